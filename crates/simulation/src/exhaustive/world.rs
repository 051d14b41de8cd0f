//! Two seats for coordinators, the store between them, and what may happen next.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

use cutwater_core::Epoch;

use super::actor::{ActorId, Answer, Asked, Cast, Effect, Input, Phase};
use super::object::{Files, Key, Objects, Place, What, names_of};
use super::{Bounds, Marks, Mutant, tell};

/// The most slots that a log may have: two more than [`Bounds::slots`], for what somebody left alone appends.
pub(super) const SLOTS: usize = 7;
/// The most operations whose caller is gone or was told that it is not known what became of them.
const LATE: usize = 6;
/// The most slot deletions among them.
const LATE_DELETES: usize = 4;
/// The most questions of somebody who is left alone.
const MOST_ANSWERS: usize = 60;
/// What marks the deletion of a slot among [`World::late`]; without it, it is an object to create.
pub(super) const DELETE: u16 = 0x8000;

/// A state, complete but for what is left of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) seats: [ActorId; 2], // in order: which seat somebody has does not matter
    pub(super) slots: [u16; SLOTS],
    /// What each slot held first.
    pub(super) history: [u16; SLOTS],
    pub(super) late: [u16; LATE], // in order, zeros first
    pub(super) boundaries: u8,
    starts: u8,
    /// Nobody has done more than read yet. The first who does is called 1: names don't matter.
    fresh: bool,
    written: Files,
    gone: Files,
}

/// Coordinators, and contents of the log with which they were left alone.
pub(super) type Alone = HashSet<(ActorId, [u16; SLOTS], u8), BuildHasherDefault<DefaultHasher>>;

/// What is left of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) restarts: u8,
    pub(super) requests: u8,
    pub(super) faults: u8,
    pub(super) failovers: u8,
    pub(super) cancels: u8,
}

/// What happens next. Seats are by their order, operations by theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Answer { seat: u8, out: u8, fate: Fate },
    Request(u8),
    Acknowledge(u8),
    FailOver(u8),
    Cancel(u8),
    Replace(u8),
    Land(u8),
}

/// What the store does to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    Failed,
    /// It is not known what became of it, and it may take effect later, or at once, or never.
    InFlight,
    /// A mistake: a read misses what is there, or a create that is yet to come is called done.
    Lie,
}

/// A rule that does not hold.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

/// What a step needs beside the world.
pub(super) struct Stage<'a> {
    pub(super) bounds: &'a Bounds,
    pub(super) mutant: Option<Mutant>,
    pub(super) cast: &'a mut Cast,
    pub(super) over: ActorId,
    pub(super) marks: &'a mut Marks,
    pub(super) told: Option<&'a mut Vec<String>>, // the trace, if one is wanted
}

impl Left {
    pub(super) fn of(bounds: &Bounds) -> Self {
        let Bounds { restarts, requests, faults, failovers, cancels, .. } = *bounds;
        Self { restarts, requests, faults, failovers, cancels }
    }

    /// Whether all that is possible with the other is possible with this.
    pub(super) fn covers(self, other: Self) -> bool {
        self.restarts >= other.restarts
            && self.requests >= other.requests
            && self.faults >= other.faults
            && self.failovers >= other.failovers
            && self.cancels >= other.cancels
    }

    fn spend(mut self, step: Step) -> Self {
        match step {
            Step::Answer { fate: Fate::Well, .. } | Step::Acknowledge(_) | Step::Land(_) => {}
            Step::Answer { .. } => self.faults -= 1,
            Step::Request(_) => self.requests -= 1,
            Step::FailOver(_) => self.failovers -= 1,
            Step::Cancel(_) => self.cancels -= 1,
            Step::Replace(_) => self.restarts -= 1,
        }
        self
    }
}

impl World {
    /// Both have started, and nothing was answered: to start later is to be slow at first.
    pub(super) fn new(cast: &mut Cast) -> Self {
        Self {
            seats: [cast.start(1), cast.start(2)],
            slots: [0; SLOTS],
            history: [0; SLOTS],
            late: [0; LATE],
            boundaries: 0,
            starts: 2,
            fresh: true,
            written: 0,
            gone: 0,
        }
    }

    /// All that may happen. Counts what is left out since the log or the list of late operations would grow too long.
    pub(super) fn steps(&self, left: Left, stage: &Stage<'_>, steps: &mut Vec<Step>, pruned: &mut u64) {
        for seat in 0..2 {
            self.answers(seat, left, stage, steps, pruned);
            self.inputs(seat, left, stage, steps, pruned);
        }
        for (index, late) in self.late.iter().enumerate() {
            if self.can_land(*late, stage) {
                steps.push(Step::Land(small(index)));
            }
        }
    }

    fn answers(&self, seat: u8, left: Left, stage: &Stage<'_>, steps: &mut Vec<Step>, pruned: &mut u64) {
        let actor = stage.cast.actor(self.seats[usize::from(seat)]);
        let faulty = left.faults > 0 && actor.phase != Phase::Over;
        let mistakes = if left.faults > 0 { stage.mutant } else { None };
        for (out, (asked, _)) in actor.out.iter().enumerate() {
            let mut push = |fate| steps.push(Step::Answer { seat, out: small(out), fate });
            match *asked {
                Asked::Create(object) => {
                    let place = &stage.cast.objects.of(object).place;
                    if let Place::Slot { slot, .. } = place
                        && *slot >= usize::from(stage.bounds.slots)
                    {
                        *pruned += 1;
                        continue;
                    }
                    if self.fresh && actor.start != 1 {
                        continue;
                    }
                    push(Fate::Well);
                    let has_room = self.has_room(&[object], stage);
                    if faulty {
                        push(Fate::Failed);
                        if has_room { push(Fate::InFlight) } else { *pruned += 1 }
                    }
                    let completed = matches!(place, Place::Slot { what: What::Completed { .. }, .. });
                    if mistakes == Some(Mutant::NotifyBeforeDurable) && completed && has_room {
                        push(Fate::Lie);
                    }
                }
                Asked::ReadSlot(_) | Asked::ReadBoundary(_) => {
                    push(Fate::Well);
                    if faulty {
                        push(Fate::Failed);
                    }
                    if mistakes == Some(Mutant::StaleRead) {
                        push(Fate::Lie);
                    }
                }
                Asked::DeleteFiles(_) => {
                    push(Fate::Well);
                    if faulty {
                        push(Fate::Failed); // whatever is left of them, nobody will know
                    }
                }
                Asked::DeleteSlots(slots) => {
                    push(Fate::Well);
                    if faulty {
                        if self.has_room(&deletions(slots), stage) { push(Fate::InFlight) } else { *pruned += 1 }
                    }
                }
            }
        }
    }

    fn inputs(&self, seat: u8, left: Left, stage: &Stage<'_>, steps: &mut Vec<Step>, pruned: &mut u64) {
        let actor = stage.cast.actor(self.seats[usize::from(seat)]);
        let mut push_if = |enabled, step| {
            if enabled {
                steps.push(step);
            }
        };
        push_if(left.requests > 0 && actor.may_request(), Step::Request(seat));
        push_if(actor.may_acknowledge(), Step::Acknowledge(seat));
        push_if(left.failovers > 0 && actor.may_fail_over(), Step::FailOver(seat));
        push_if(left.cancels > 0 && actor.may_cancel(), Step::Cancel(seat));
        if left.restarts > 0 && actor.may_crash() && !(self.fresh && actor.start != 1) {
            let has_room = self.has_room(&abandoned(stage.cast, self.seats[usize::from(seat)]), stage);
            push_if(has_room, Step::Replace(seat));
            *pruned += u64::from(!has_room);
        }
    }

    /// Whether these may be added to the late operations.
    fn has_room(&self, more: &[u16], stage: &Stage<'_>) -> bool {
        let all = || self.late.iter().chain(more).filter(|late| **late != 0);
        let deletes = all().filter(|late| **late & DELETE != 0).count();
        deletes <= LATE_DELETES && all().count() - deletes <= usize::from(stage.bounds.late_creates)
    }

    fn can_land(&self, late: u16, stage: &Stage<'_>) -> bool {
        if late == 0 {
            return false;
        }
        if late & DELETE != 0 {
            return self.slots[usize::from(late ^ DELETE)] != 0;
        }
        match stage.cast.objects.of(late).place {
            Place::Slot { slot, .. } => self.slots[slot] == 0 || stage.mutant == Some(Mutant::NoFence),
            Place::Boundary { k } => k > self.boundaries,
        }
    }

    /// Does the step.
    pub(super) fn take(&mut self, step: Step, left: Left, stage: &mut Stage<'_>) -> Result<Left, Broken> {
        match step {
            Step::Answer { seat, out, fate } => self.answer(seat, out, fate, stage)?,
            Step::Request(seat) => self.say(seat, Input::Request, stage)?,
            Step::Acknowledge(seat) => self.say(seat, Input::Acknowledge, stage)?,
            Step::FailOver(seat) => self.fail_over(seat, stage)?,
            Step::Cancel(seat) => self.say(seat, Input::Cancel, stage)?,
            Step::Replace(seat) => self.replace(seat, stage),
            Step::Land(index) => self.land(index, stage)?,
        }
        for seat in 0..2 {
            self.retire(seat, stage);
        }
        self.seats.sort_unstable();
        self.late.sort_unstable();
        Ok(left.spend(step))
    }

    fn answer(&mut self, seat: u8, out: u8, fate: Fate, stage: &mut Stage<'_>) -> Result<(), Broken> {
        let actor = stage.cast.actor(self.seats[usize::from(seat)]);
        let (asked, _) = actor.out[usize::from(out)];
        let created = actor.created;
        let answer = match asked {
            Asked::Create(object) => {
                self.fresh = false;
                self.answer_create(object, fate, stage)?
            }
            Asked::ReadSlot(_) | Asked::ReadBoundary(_) if fate == Fate::Failed => Answer::Unreadable,
            Asked::ReadSlot(_) | Asked::ReadBoundary(_) if fate == Fate::Lie => Answer::Found(0),
            Asked::ReadSlot(slot) => Answer::Found(self.slots.get(usize::from(slot)).copied().unwrap_or(0)),
            Asked::ReadBoundary(_) if created && stage.mutant == Some(Mutant::LateLands) => Answer::Found(0),
            Asked::ReadBoundary(k) => Answer::Found(stage.cast.objects.boundary(k, self.boundaries)),
            Asked::DeleteFiles(_) if fate == Fate::Well => Answer::Deleted,
            Asked::DeleteFiles(_) => {
                stage.marks.hit("files not deleted");
                Answer::NotDeleted
            }
            Asked::DeleteSlots(slots) if fate == Fate::Well => {
                for slot in deletions(slots) {
                    self.delete_slot(usize::from(slot ^ DELETE), stage);
                }
                Answer::Deleted
            }
            Asked::DeleteSlots(slots) => {
                self.defer(&deletions(slots));
                stage.marks.hit("slots not deleted");
                Answer::NotDeleted
            }
        };
        self.say(seat, Input::Answer(asked, answer), stage)
    }

    fn answer_create(&mut self, object: u16, fate: Fate, stage: &mut Stage<'_>) -> Result<Answer, Broken> {
        match fate {
            Fate::Well if self.create(object, stage)? => Ok(Answer::Created),
            Fate::Well => Ok(Answer::Exists),
            Fate::Failed => Ok(Answer::Failed),
            Fate::InFlight | Fate::Lie => {
                self.defer(&[object]);
                Ok(match (fate, stage.mutant) {
                    (Fate::Lie, _) => Answer::Created,
                    (_, Some(Mutant::UnknownIsFailure)) => Answer::Failed,
                    _ => Answer::Unknown,
                })
            }
        }
    }

    fn fail_over(&mut self, seat: u8, stage: &mut Stage<'_>) -> Result<(), Broken> {
        let record = stage.cast.actor(self.seats[usize::from(seat)]).record_out(&stage.cast.objects);
        match record.filter(|record| stage.mutant == Some(Mutant::ForgetSettling) && self.has_room(&[*record], stage)) {
            Some(record) => {
                self.defer(&[record]);
                self.say(seat, Input::ForgetAndFailOver, stage)
            }
            None => self.say(seat, Input::FailOver, stage),
        }
    }

    /// Somebody crashes, and another start of the job has the seat. What was out stays in flight.
    fn replace(&mut self, seat: u8, stage: &mut Stage<'_>) {
        let id = self.seats[usize::from(seat)];
        if stage.cast.actor(id).record_out(&stage.cast.objects).is_some() {
            stage.marks.hit("crash with a record on its way");
        }
        self.defer(&abandoned(stage.cast, id));
        self.fresh = false;
        self.starts += 1;
        self.seats[usize::from(seat)] = stage.cast.start(u64::from(self.starts));
    }

    /// Forgets all of one that is over but what it has in flight.
    fn retire(&mut self, seat: usize, stage: &Stage<'_>) {
        let id = self.seats[seat];
        if stage.cast.actor(id).phase == Phase::Over && id != stage.over {
            let late = abandoned(stage.cast, id);
            if self.has_room(&late, stage) {
                self.defer(&late);
                self.seats[seat] = stage.over;
            }
        }
    }

    fn land(&mut self, index: u8, stage: &mut Stage<'_>) -> Result<(), Broken> {
        let late = std::mem::take(&mut self.late[usize::from(index)]);
        if late & DELETE != 0 {
            stage.marks.hit("a deletion lands late");
            self.delete_slot(usize::from(late ^ DELETE), stage);
            return Ok(());
        }
        stage.marks.hit("a create lands late");
        self.create(late, stage).map(|_| ())
    }

    fn defer(&mut self, late: &[u16]) {
        for new in late {
            let free = self.late.iter_mut().find(|late| **late == 0).expect("there is room");
            *free = *new;
        }
    }

    /// Creates the object if it is absent, and says whether it was.
    fn create(&mut self, object: u16, stage: &mut Stage<'_>) -> Result<bool, Broken> {
        let place = &stage.cast.objects.of(object).place;
        match place {
            Place::Boundary { k } if *k <= self.boundaries => return Ok(false),
            Place::Boundary { k } => {
                holds(*k == self.boundaries + 1, "boundaries have no gaps", || {
                    format!("{k} after {}", self.boundaries)
                })?;
                self.boundaries = *k;
                stage.marks.hit("boundary moved");
            }
            Place::Slot { slot, .. } => {
                let taken = self.slots[*slot] != 0;
                if taken && stage.mutant != Some(Mutant::NoFence) {
                    return Ok(false);
                }
                if *slot < self.first_slot(stage) {
                    stage.marks.hit("a record lands below a boundary");
                } else {
                    self.check_record(*slot, object, &stage.cast.objects)?;
                    self.history[*slot] = object;
                }
                self.slots[*slot] = object;
            }
        }
        self.check_retained(stage)?;
        Ok(true)
    }

    /// What a record says about all before it.
    fn check_record(&self, slot: usize, object: u16, objects: &Objects) -> Result<(), Broken> {
        let Place::Slot { epoch, what, .. } = &objects.of(object).place else { return Ok(()) };
        holds(self.history[slot] == 0, "a record never changes", || format!("slot {slot}"))?;
        holds(self.tail() == slot, "slots have no gaps", || format!("slot {slot} after {} others", self.tail()))?;
        let reign = slot.checked_sub(1).map_or(Epoch(0), |before| epoch_of(objects, self.history[before]));
        let told = || format!("a record of epoch {epoch} in the reign of {reign}");
        match what {
            What::Claim => holds(*epoch > reign, "a claim has a higher epoch than all before", told),
            What::Completed { .. } | What::Ended if *epoch != reign => {
                holds(false, "nobody appends after another's claim", told)
            }
            What::Ended => Ok(()),
            What::Completed { key, .. } => {
                let before = self.newest(objects, Epoch(u64::MAX)).map(|before| before.checkpoint);
                holds(Some(key.checkpoint) > before, "numbers of checkpoints rise", || {
                    format!("{} after {before:?}", key.checkpoint)
                })
            }
        }
    }

    pub(super) fn tail(&self) -> usize {
        self.history.iter().filter(|object| **object != 0).count()
    }

    fn first_slot(&self, stage: &Stage<'_>) -> usize {
        usize::from(self.boundaries) * usize::from(stage.bounds.slots_per_boundary.get())
    }

    /// The newest checkpoint completed in this reign or before.
    pub(super) fn newest(&self, objects: &Objects, epoch: Epoch) -> Option<Key> {
        let of = |object: &u16| match &objects.of(*object).place {
            Place::Slot { what: What::Completed { key, .. }, .. } if key.epoch <= epoch => Some(*key),
            Place::Slot { .. } | Place::Boundary { .. } => None,
        };
        self.history[..self.tail()].iter().rev().find_map(of)
    }

    /// Nothing that the newest completed checkpoint keeps is gone.
    fn check_retained(&self, stage: &Stage<'_>) -> Result<(), Broken> {
        let objects = &stage.cast.objects;
        let Some(newest) = self.newest(objects, Epoch(u64::MAX)) else { return Ok(()) };
        let Place::Slot { what: What::Completed { retained, .. }, .. } = record(objects, self.history, newest.slot)
        else {
            return Ok(());
        };
        for slot in retained.iter().copied().chain([newest.slot]) {
            let index = usize::try_from(slot).expect("a search has few slots");
            let there = self.slots[index] == self.history[index] && index >= self.first_slot(stage);
            holds(there, "a retained record stays", || format!("slot {slot} is gone"))?;
            if let Place::Slot { what: What::Completed { files, .. }, .. } = record(objects, self.history, slot) {
                let lost = files & (self.gone | !self.written);
                holds(lost == 0, "no file of a retained checkpoint is deleted", || names_of(lost))?;
            }
        }
        Ok(())
    }

    fn delete_slot(&mut self, slot: usize, stage: &mut Stage<'_>) {
        if std::mem::take(&mut self.slots[slot]) != 0 {
            stage.marks.hit("slot deleted");
        }
    }

    fn say(&mut self, seat: u8, input: Input, stage: &mut Stage<'_>) -> Result<(), Broken> {
        let index = stage.cast.say(self.seats[usize::from(seat)], input);
        let count = stage.cast.done(index).effects.len();
        self.seats[usize::from(seat)] = stage.cast.done(index).to;
        for effect in 0..count {
            let effect = stage.cast.done(index).effects[effect].clone();
            if let Some(told) = &mut stage.told {
                told.extend(tell::effect(&effect));
            }
            self.see(effect, stage)?;
        }
        Ok(())
    }

    fn see(&mut self, effect: Effect, stage: &mut Stage<'_>) -> Result<(), Broken> {
        match effect {
            Effect::Wrong { rule, detail } => return holds(false, rule, || detail),
            Effect::Reached(mark) => stage.marks.hit(mark),
            Effect::Wrote(files) => {
                holds(self.written & files == 0, "no two files have the same name", || names_of(files))?;
                self.written |= files;
            }
            Effect::LetGoFiles(files) => {
                self.gone |= files;
                if stage.mutant == Some(Mutant::DeleteRetained) {
                    self.gone |= self.newest_files(&stage.cast.objects);
                }
                self.check_retained(stage)?;
            }
            Effect::LetGoSlots(slots) => {
                let first = self.first_slot(stage);
                holds(slots >> first == 0, "no slot at or above the boundary is deleted", || format!("{slots:#b}"))?;
            }
            Effect::Opened { claim, epoch, restore } => {
                let objects = &stage.cast.objects;
                holds(self.counts(claim, stage), "who opens has claimed", || format!("epoch {epoch}"))?;
                let newest = self.newest(objects, Epoch(epoch.0 - 1));
                stage.marks.hit(if restore.is_some() { "restored newest" } else { "opened empty" });
                return holds(restore == newest, "what is restored is the newest completed", || {
                    format!("{restore:?}, not {newest:?}")
                });
            }
            Effect::Restored { epoch, restore } => {
                let newest = self.newest(&stage.cast.objects, epoch);
                stage.marks.hit(if restore.is_some() { "restored in an attempt" } else { "restarted empty" });
                return holds(restore == newest, "what is restored is the newest completed", || {
                    format!("{restore:?}, not {newest:?}")
                });
            }
            Effect::Completed(key) => {
                stage.marks.hit("completed");
                return self.check_completed(key, stage);
            }
        }
        Ok(())
    }

    /// At the instant at which it is said, the record is in its slot, and the slot counts.
    fn check_completed(&self, key: Key, stage: &Stage<'_>) -> Result<(), Broken> {
        let object = self.slots.get(usize::try_from(key.slot).unwrap_or(SLOTS)).copied().unwrap_or(0);
        let is_it = |place: &Place| matches!(place, Place::Slot { what: What::Completed { key: found, .. }, .. } if *found == key);
        let is_there = object != 0 && is_it(&stage.cast.objects.of(object).place);
        let counts = is_there && self.counts(object, stage);
        holds(counts, "completed is said only of what is in the log", || format!("{key:?}"))
    }

    /// Whether this record is in its slot, from the first on, and no boundary has passed it.
    fn counts(&self, record: u16, stage: &Stage<'_>) -> bool {
        let Place::Slot { slot, .. } = stage.cast.objects.of(record).place else { return false };
        self.slots[slot] == record && self.history[slot] == record && slot >= self.first_slot(stage)
    }

    /// Whether everybody who is left alone from now on, with a store that does as it is told, comes to rest.
    /// `known` holds those for whom this is known.
    pub(super) fn check_settling(&self, known: &mut Alone, stage: &mut Stage<'_>) -> Result<(), Broken> {
        for seat in 0..2u8 {
            let mut world = *self;
            let mut way = Vec::new();
            let is_settled = loop {
                let id = world.seats[usize::from(seat)];
                let place = (id, world.slots, world.boundaries);
                let actor = stage.cast.actor(id);
                if known.contains(&place) {
                    break true;
                }
                if actor.out.is_empty() || way.len() > MOST_ANSWERS {
                    break actor.out.is_empty() && actor.is_settled();
                }
                way.push(place);
                if world.answer(seat, 0, Fate::Well, stage).is_err() {
                    break true; // the search will find it, with all the steps
                }
            };
            let start = stage.cast.actor(self.seats[usize::from(seat)]).start;
            holds(is_settled, "left alone, everybody comes to rest", || format!("coordinator {start}"))?;
            known.extend(way);
        }
        Ok(())
    }

    fn newest_files(&self, objects: &Objects) -> Files {
        let newest = self.newest(objects, Epoch(u64::MAX)).map(|newest| record(objects, self.history, newest.slot));
        match newest {
            Some(Place::Slot { what: What::Completed { files, .. }, .. }) => *files,
            Some(Place::Slot { .. } | Place::Boundary { .. }) | None => 0,
        }
    }
}

fn record(objects: &Objects, history: [u16; SLOTS], slot: u64) -> &Place {
    &objects.of(history[usize::try_from(slot).expect("a search has few slots")]).place
}

fn epoch_of(objects: &Objects, object: u16) -> Epoch {
    match objects.of(object).place {
        Place::Slot { epoch, .. } => epoch,
        Place::Boundary { .. } => Epoch(0),
    }
}

/// What stays in flight when this one crashes.
fn abandoned(cast: &Cast, id: ActorId) -> Vec<u16> {
    let mut late = Vec::new();
    for (asked, _) in &cast.actor(id).out {
        match asked {
            Asked::Create(object) => late.push(*object),
            Asked::DeleteSlots(slots) => late.extend(deletions(*slots)),
            Asked::ReadSlot(_) | Asked::ReadBoundary(_) | Asked::DeleteFiles(_) => {}
        }
    }
    late
}

/// The deletions of these slots, each on its own.
fn deletions(slots: u32) -> Vec<u16> {
    (0..16u16).filter(|slot| slots >> slot & 1 == 1).map(|slot| DELETE | slot).collect()
}

fn small(index: usize) -> u8 {
    u8::try_from(index).expect("few operations are out")
}

fn holds(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { rule, detail: detail() }) }
}
