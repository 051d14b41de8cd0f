//! One start of a coordinator and the tasks it drives, as a state that is met once and known by a number from then on:
//! what it does when something is said to it is computed once, too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use cutwater_coordinator::inspect::{boundary_of, slot_of};
use cutwater_coordinator::{
    AbortReason, Action, Coordinator, CreateOutcome, FileRef, Job, Outcome, Phases, Plan, Purpose, RestoreFrom,
    Settings, SubtaskSnapshot, TaskPlan, Token,
};
use cutwater_core::{Attempt, Barrier, Epoch, MaxParallelism, Moment, SubtaskId, TaskId};

use super::object::{Files, Key, ObjectId, Objects, Place, What, file_name, file_of};
use super::{Bounds, Map};

/// A start of a coordinator in some state, by its number in [`Cast`].
pub(super) type ActorId = u32;

#[derive(Clone, Debug)]
pub(super) struct Actor {
    coordinator: Coordinator,
    pub(super) start: u64, // which start of the job it is, from 1
    pub(super) out: Vec<(Asked, Token)>,
    pub(super) phase: Phase,
    attempt: u32,
    barrier: Option<Barrier>, // that its task has not acknowledged
    requests: u32,            // not answered
    claim: ObjectId,          // on its way while opening; zero if none
    /// It has asked for a record anew because its fate was unknown.
    contests: bool,
    /// A record of its own was just answered as created.
    pub(super) created: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Opening,
    Running,
    FailingOver,
    Ending,
    Over,
}

/// A question to the store that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Asked {
    Create(ObjectId),
    ReadSlot(u8),
    ReadBoundary(u8),
    DeleteFiles(Files),
    /// One bit for each slot.
    DeleteSlots(u32),
}

/// What is said to a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Input {
    Answer(Asked, Answer),
    Request,
    Acknowledge,
    FailOver,
    /// A mistake: it is told first that the record on its way has failed.
    ForgetAndFailOver,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Created,
    Exists,
    Failed,
    Unknown,
    /// Zero: there is no such object.
    Found(ObjectId),
    Unreadable,
    Deleted,
    NotDeleted,
}

/// What a coordinator did that the world has to look at.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Opened {
        claim: ObjectId,
        epoch: Epoch,
        restore: Option<Key>,
    },
    Restored {
        epoch: Epoch,
        restore: Option<Key>,
    },
    Completed(Key),
    Wrote(Files),
    /// It asked to delete these files. Nobody reads them, so the worst is that they are gone at once.
    LetGoFiles(Files),
    LetGoSlots(u32),
    Reached(&'static str),
    Wrong {
        rule: &'static str,
        detail: String,
    },
}

#[derive(Debug)]
pub(super) struct Move {
    pub(super) to: ActorId,
    pub(super) effects: Box<[Effect]>,
}

/// All actors met, and all they did.
#[derive(Debug)]
pub(super) struct Cast {
    bounds: Bounds,
    pub(super) objects: Objects,
    actors: Vec<Actor>,
    ids: Map<u64, ActorId>,
    moves: Map<(ActorId, Input), usize>,
    done: Vec<Move>,
}

impl Cast {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            bounds: bounds.clone(),
            objects: Objects::default(),
            actors: Vec::new(),
            ids: Map::default(),
            moves: Map::default(),
            done: Vec::new(),
        }
    }

    pub(super) fn actor(&self, id: ActorId) -> &Actor {
        &self.actors[id as usize]
    }

    /// The `start`-th start of the job.
    pub(super) fn start(&mut self, start: u64) -> ActorId {
        let mut coordinator = coordinator(&self.bounds, start);
        coordinator.handle_open(Moment::ZERO, RestoreFrom::Latest);
        let mut actor = Actor {
            coordinator,
            start,
            out: Vec::new(),
            phase: Phase::Opening,
            attempt: 0,
            barrier: None,
            requests: 0,
            claim: 0,
            contests: false,
            created: false,
        };
        actor.drain(&mut self.objects, &mut Vec::new());
        self.intern(actor)
    }

    /// One that is over: they are all alike.
    pub(super) fn over(&mut self) -> ActorId {
        let first = self.start(0);
        let mut actor = self.actor(first).clone();
        (actor.phase, actor.out) = (Phase::Over, Vec::new());
        self.intern(actor)
    }

    /// What the actor does when this is said to it.
    pub(super) fn say(&mut self, id: ActorId, input: Input) -> usize {
        if let Some(index) = self.moves.get(&(id, input)) {
            return *index;
        }
        let mut actor = self.actors[id as usize].clone();
        let mut effects = Vec::new();
        actor.hear(input, &mut self.objects, &mut effects);
        let to = self.intern(actor);
        self.done.push(Move { to, effects: effects.into_boxed_slice() });
        self.moves.insert((id, input), self.done.len() - 1);
        self.done.len() - 1
    }

    pub(super) fn done(&self, index: usize) -> &Move {
        &self.done[index]
    }

    /// How many states of single coordinators were met.
    pub(super) fn len(&self) -> usize {
        self.actors.len()
    }

    fn intern(&mut self, actor: Actor) -> ActorId {
        let digest = actor.digest();
        if let Some(id) = self.ids.get(&digest) {
            return *id;
        }
        let id = ActorId::try_from(self.actors.len()).expect("memory ends before");
        self.actors.push(actor);
        self.ids.insert(digest, id);
        id
    }
}

/// A coordinator as all in a search are.
pub(super) fn coordinator(bounds: &Bounds, nonce: u64) -> Coordinator {
    let settings = Settings {
        timeout: Duration::MAX, // no checkpoint expires: a decline or a failover does the same
        tolerable_failures: u32::MAX,
        num_retained: bounds.num_retained,
        ..Settings::default()
    };
    let job = Job { name: "job".to_owned(), max_parallelism: MaxParallelism::default() };
    let mut coordinator = Coordinator::new(settings, job, nonce);
    coordinator.set_slots_per_boundary(u64::from(bounds.slots_per_boundary.get()));
    coordinator
}

/// One source of one subtask.
pub(super) fn plan() -> Plan {
    let (task, name) = (TaskId(0), "source".to_owned());
    Plan { tasks: vec![TaskPlan { task, name, operators: vec![], parallelism: 1, inputs: vec![] }] }
}

/// The acknowledgement of that subtask.
pub(super) fn snapshot(barrier: Barrier) -> SubtaskSnapshot {
    let file = FileRef::stored(file_name(barrier.epoch, barrier.checkpoint), 1, 0);
    let subtask = SubtaskId { task: TaskId(0), index: 0 };
    SubtaskSnapshot { subtask, files: vec![file], inline: vec![], phases: Phases::default(), state_bytes: 1 }
}

impl Actor {
    pub(super) fn may_request(&self) -> bool {
        self.phase == Phase::Running && self.requests == 0 && self.coordinator.pending().is_none()
    }

    pub(super) fn may_acknowledge(&self) -> bool {
        self.barrier.is_some() && self.phase != Phase::Over
    }

    pub(super) fn may_fail_over(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn may_cancel(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::FailingOver)
    }

    /// Whether its crash can matter: one that has only read is like one that has yet to begin.
    pub(super) fn may_crash(&self) -> bool {
        self.phase != Phase::Opening || self.creates().next().is_some()
    }

    /// Whether nothing waits any more, once all questions are answered.
    pub(super) fn is_settled(&self) -> bool {
        let pending = self.coordinator.pending();
        let free = pending.is_none_or(|pending| !pending.finalizing) && (self.requests == 0 || pending.is_some());
        self.phase == Phase::Over || (self.phase == Phase::Running && free)
    }

    /// The objects whose creation is out.
    pub(super) fn creates(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.out.iter().filter_map(|(asked, _)| if let Asked::Create(object) = asked { Some(*object) } else { None })
    }

    /// The record of a checkpoint that is on its way.
    pub(super) fn record_out(&self, objects: &Objects) -> Option<ObjectId> {
        self.creates().find(|id| matches!(&objects.of(*id).place, Place::Slot { what: What::Completed { .. }, .. }))
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self { coordinator, start, out, phase, attempt, barrier, requests, claim, contests, created } = self;
        coordinator.digest(&mut hasher);
        (start, phase, attempt, barrier, requests, claim, contests, created).hash(&mut hasher);
        out.len().hash(&mut hasher);
        for (asked, _) in out {
            asked.hash(&mut hasher);
        }
        hasher.finish()
    }

    fn hear(&mut self, input: Input, objects: &mut Objects, effects: &mut Vec<Effect>) {
        let now = Moment::ZERO;
        match input {
            Input::Answer(asked, answer) => self.hear_answer(asked, answer, objects),
            Input::Request => {
                self.requests += 1;
                self.coordinator.handle_request(now, Purpose::Checkpoint);
            }
            Input::Acknowledge => {
                let barrier = self.barrier.take().expect("there is one to acknowledge");
                let snapshot = snapshot(barrier);
                effects.push(Effect::Wrote(file_of(&snapshot.files[0].name)));
                self.coordinator.handle_ack(now, barrier.attempt, barrier.checkpoint, snapshot);
            }
            Input::FailOver => self.fail_over(objects, effects),
            Input::ForgetAndFailOver => {
                let record = self.record_out(objects).expect("a record is on its way");
                self.hear_answer(Asked::Create(record), Answer::Failed, objects);
                self.drain(objects, effects);
                self.fail_over(objects, effects);
            }
            Input::Cancel => {
                self.phase = Phase::Ending;
                self.coordinator.handle_end(now, Outcome::Canceled);
            }
        }
        self.drain(objects, effects);
        self.pass_time(objects, effects);
        self.check_waiting(objects, effects);
        if self.phase == Phase::Over {
            self.check_end(effects);
        }
    }

    /// Whatever comes after the end, nothing is done.
    fn check_end(&mut self, effects: &mut Vec<Effect>) {
        let now = Moment::ZERO;
        for (asked, token) in self.out.clone() {
            match asked {
                Asked::Create(_) => {
                    self.check_silence(effects, |it| it.handle_created(now, token, CreateOutcome::Created));
                    self.check_silence(effects, |it| it.handle_created(now, token, CreateOutcome::Exists));
                    let fault = "fault".to_owned();
                    self.check_silence(effects, |it| it.handle_created(now, token, CreateOutcome::Failed(fault)));
                    let fault = "fault".to_owned();
                    self.check_silence(effects, |it| it.handle_created(now, token, CreateOutcome::Unknown(fault)));
                }
                Asked::ReadSlot(_) | Asked::ReadBoundary(_) => {
                    self.check_silence(effects, |it| it.handle_read(now, token, Ok(None)));
                    self.check_silence(effects, |it| it.handle_read(now, token, Err("fault".to_owned())));
                }
                Asked::DeleteFiles(_) | Asked::DeleteSlots(_) => {
                    self.check_silence(effects, |it| it.handle_deleted(now, token, Ok(())));
                    self.check_silence(effects, |it| it.handle_deleted(now, token, Err("fault".to_owned())));
                }
            }
        }
        if let Some(barrier) = self.barrier {
            self.check_silence(effects, |it| {
                it.handle_ack(now, barrier.attempt, barrier.checkpoint, snapshot(barrier))
            });
        }
        self.check_silence(effects, |it| it.handle_failover(now));
        self.check_silence(effects, |it| it.handle_end(now, Outcome::Canceled));
        self.check_silence(effects, |it| it.handle_timeout(Moment::MAX));
    }

    fn check_silence(&self, effects: &mut Vec<Effect>, input: impl FnOnce(&mut Coordinator)) {
        let mut coordinator = self.coordinator.clone();
        input(&mut coordinator);
        if let Some(action) = coordinator.poll_action() {
            effects.push(wrong("nothing is done after the end", format!("{action:?}")));
        }
    }

    fn fail_over(&mut self, objects: &Objects, effects: &mut Vec<Effect>) {
        if self.record_out(objects).is_some() {
            effects.push(Effect::Reached("failover with a record on its way"));
        }
        self.phase = Phase::FailingOver;
        self.coordinator.handle_failover(Moment::ZERO);
    }

    fn hear_answer(&mut self, asked: Asked, answer: Answer, objects: &Objects) {
        let index = self.out.iter().position(|(out, _)| *out == asked).expect("it was asked");
        let (_, token) = self.out.remove(index);
        let now = Moment::ZERO;
        let text = || "fault".to_owned();
        let is_slot = |id| matches!(objects.of(id).place, Place::Slot { .. });
        self.created = match asked {
            Asked::Create(object) if is_slot(object) => answer == Answer::Created,
            Asked::ReadSlot(_) | Asked::ReadBoundary(_) => false,
            Asked::Create(_) | Asked::DeleteFiles(_) | Asked::DeleteSlots(_) => self.created,
        };
        match (asked, answer) {
            (Asked::ReadSlot(_) | Asked::ReadBoundary(_), Answer::Found(0)) => {}
            (Asked::ReadSlot(_), Answer::Found(found)) if found == self.claim => {}
            (Asked::ReadSlot(_) | Asked::ReadBoundary(_), Answer::Found(_)) => self.claim = 0, // it is lost
            _ => {}
        }
        let mut created = |outcome| self.coordinator.handle_created(now, token, outcome);
        match answer {
            Answer::Created => created(CreateOutcome::Created),
            Answer::Exists => created(CreateOutcome::Exists),
            Answer::Failed => created(CreateOutcome::Failed(text())),
            Answer::Unknown => {
                created(CreateOutcome::Unknown(text()));
                let opening = self.phase == Phase::Opening;
                self.contests |= !opening && matches!(asked, Asked::Create(object) if is_slot(object));
            }
            Answer::Found(object) => self.coordinator.handle_read(now, token, Ok(objects.bytes(object))),
            Answer::Unreadable => self.coordinator.handle_read(now, token, Err(text())),
            Answer::Deleted => self.coordinator.handle_deleted(now, token, Ok(())),
            Answer::NotDeleted => self.coordinator.handle_deleted(now, token, Err(text())),
        }
    }

    /// Whatever waits for a while only is asked again at once: the question may take its time instead.
    fn pass_time(&mut self, objects: &mut Objects, effects: &mut Vec<Effect>) {
        for _ in 0..4 {
            let Some(deadline) = self.coordinator.next_deadline().filter(|at| *at < Moment::MAX) else { return };
            self.coordinator.handle_timeout(deadline);
            self.drain(objects, effects);
        }
        effects.push(wrong("a deadline stays", format!("{:?}", self.coordinator.next_deadline())));
    }

    /// One that waits for the log has a question out.
    fn check_waiting(&self, objects: &Objects, effects: &mut Vec<Effect>) {
        let waits = match self.phase {
            Phase::Opening | Phase::FailingOver | Phase::Ending => true,
            Phase::Running => self.coordinator.pending().is_some_and(|pending| pending.finalizing),
            Phase::Over => false,
        };
        let asks = self.out.iter().any(|(asked, _)| match asked {
            Asked::Create(object) => matches!(objects.of(*object).place, Place::Slot { .. }),
            Asked::ReadSlot(_) | Asked::ReadBoundary(_) => true,
            // Whoever has recorded its end waits for what is being deleted.
            Asked::DeleteFiles(_) | Asked::DeleteSlots(_) => false,
        }) || (self.phase == Phase::Ending && !self.out.is_empty());
        if waits && !asks {
            effects.push(wrong("it waits for an answer that nobody owes", format!("{:?}", self.phase)));
        }
    }

    fn drain(&mut self, objects: &mut Objects, effects: &mut Vec<Effect>) {
        loop {
            let mut wants_attempt = false;
            while let Some(action) = self.coordinator.poll_action() {
                if self.phase == Phase::Over {
                    effects.push(wrong("nothing is done after the end", format!("{action:?}")));
                }
                wants_attempt |= matches!(action, Action::Opened { .. } | Action::Restore { .. });
                self.act(action, objects, effects);
            }
            if !wants_attempt {
                break;
            }
            self.attempt += 1;
            self.coordinator.handle_running(Moment::ZERO, Attempt(self.attempt), plan());
        }
        self.out.sort_unstable_by_key(|(asked, _)| *asked);
    }

    fn act(&mut self, action: Action, objects: &mut Objects, effects: &mut Vec<Effect>) {
        match action {
            Action::Create { token, name, bytes } => {
                let object = objects.intern(&name, bytes);
                if let (Place::Slot { .. }, Phase::Opening) = (&objects.of(object).place, self.phase) {
                    self.claim = object;
                }
                self.out.push((Asked::Create(object), token));
            }
            Action::Read { token, name, .. } => self.out.push((read_of(&name), token)),
            Action::Delete { token, names } => self.delete(token, &names, effects),
            // Orphans are files of dead tasks, which are not in these worlds.
            Action::List { token, .. } => self.coordinator.handle_listed(Moment::ZERO, token, Ok(Vec::new())),
            Action::Opened { epoch, restore, discarded: _ } => {
                self.phase = Phase::Running;
                let (claim, restore) = (std::mem::take(&mut self.claim), restore.as_deref().map(Key::of));
                effects.push(Effect::Opened { claim, epoch, restore });
            }
            Action::Restore { restore } => {
                self.phase = Phase::Running;
                let epoch = self.coordinator.epoch().expect("it is open");
                effects.push(Effect::Restored { epoch, restore: restore.as_deref().map(Key::of) });
            }
            Action::FellBack { bad } => {
                effects.push(wrong("nobody falls back unasked", format!("past checkpoint {}", bad.checkpoint)));
            }
            Action::Trigger { barrier, .. } => self.barrier = Some(barrier),
            Action::NotifyCompleted { checkpoint, requests } => {
                self.answered(requests.len());
                effects.push(Effect::Completed(Key::of(&checkpoint)));
                if std::mem::take(&mut self.contests) {
                    effects.push(Effect::Reached("rival lost"));
                }
            }
            Action::NotifyAborted { reason, requests, .. } => {
                self.answered(requests.len());
                let contested = std::mem::take(&mut self.contests);
                let is_finalize = matches!(reason, AbortReason::Finalize { .. });
                let is_superseded = matches!(reason, AbortReason::Superseded { .. });
                effects.push(Effect::Reached(match (is_finalize, is_superseded, contested) {
                    (true, _, true) => "settled by rival",
                    (true, _, false) => "record failed",
                    (false, true, true) => "settled by another's claim",
                    (false, true, false) => "record overtaken",
                    (false, false, _) => "given up by a failover or an end",
                }));
            }
            Action::RequestFailed { requests, .. } => self.answered(requests.len()),
            Action::Superseded { .. } => self.finish("superseded", effects),
            Action::Closed { unrecorded: None } => {
                let contested = std::mem::take(&mut self.contests);
                self.finish(if contested { "outcome recorded, though contested" } else { "outcome recorded" }, effects);
            }
            Action::Closed { unrecorded: Some(_) } => self.finish("outcome not recorded", effects),
            Action::Refused(error) => {
                self.phase = Phase::Over;
                effects.push(wrong("nothing is refused", error.to_string()));
            }
            Action::AlreadyFinished { .. } | Action::AllDone | Action::Drain | Action::FailJob(_) => {
                effects.push(wrong("nothing is said that can't be", format!("{action:?}")));
            }
        }
    }

    fn answered(&mut self, requests: usize) {
        let left = u32::try_from(requests).ok().and_then(|requests| self.requests.checked_sub(requests));
        self.requests = left.expect("a request is answered once");
    }

    fn finish(&mut self, mark: &'static str, effects: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        self.contests = false;
        effects.push(Effect::Reached(mark));
    }

    fn delete(&mut self, token: Token, names: &[String], effects: &mut Vec<Effect>) {
        let slots = names.iter().filter_map(|name| slot_of(name)).fold(0, |slots, slot| slots | 1u32 << slot);
        if slots == 0 {
            let files = names.iter().fold(0, |files, name| files | file_of(name));
            self.out.push((Asked::DeleteFiles(files), token));
            effects.push(Effect::LetGoFiles(files));
        } else {
            self.out.push((Asked::DeleteSlots(slots), token));
            effects.push(Effect::LetGoSlots(slots));
        }
    }
}

fn read_of(name: &str) -> Asked {
    let small = |number: u64| u8::try_from(number).expect("a search has few objects");
    match (slot_of(name), boundary_of(name)) {
        (Some(slot), _) => Asked::ReadSlot(small(slot)),
        (None, Some(k)) => Asked::ReadBoundary(small(k)),
        (None, None) => panic!("{name} is no object of the log"),
    }
}

fn wrong(rule: &'static str, detail: String) -> Effect {
    Effect::Wrong { rule, detail }
}
