//! Opening: find the tail, learn what the log says, claim the next slot.

use std::collections::BTreeMap;

use cutwater_core::{CheckpointId, Epoch};

use super::append::Purpose;
use super::record::{Body, Boundary, Claim, Completed, MAX_BYTES, Record, corrupt};
use super::search::Search;
use super::{Append, Event, Log, Opened, State, names};
use crate::{Action, CompletedCheckpoint, OpenError, Origin, Outcome, RestoreFrom, Token};

/// Where an opening stands.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Open {
    from: RestoreFrom,
    step: Step,
    boundaries: Search, // index `i` is boundary `i + 1`
    slots: Search,      // index `i` is slot `base + i`
    last: Option<Last>,
    newest: Option<Box<Completed>>,
    to_read: Vec<u64>,                          // slots of other checkpoints that `newest` names
    others: BTreeMap<u64, CompletedCheckpoint>, // those read
    doubt: Option<OpenError>,                   // a damage, if nobody moved the log meanwhile
}

/// What the newest record says.
#[derive(Clone, Debug, Hash)]
struct Last {
    epoch: Epoch,
    finished: bool,
    /// The slot of the newest checkpoint, or of the end of the job that it went with, as the next record is to name it.
    pointer: Option<u64>,
    /// The slot to read for it.
    newest: Option<u64>,
    /// How the job ended, if its checkpoints went with it: `newest` only says what had been published.
    discarded: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Boundaries,
    Slots,
    Last,
    Newest,
    Others,
    /// Nothing that was read was deleted meanwhile, if the boundary has not moved.
    Recheck,
}

impl Open {
    pub(crate) fn new(from: RestoreFrom) -> Self {
        Self {
            from,
            step: Step::Boundaries,
            boundaries: Search::default(),
            slots: Search::default(),
            last: None,
            newest: None,
            to_read: Vec::new(),
            others: BTreeMap::new(),
            doubt: None,
        }
    }

    /// What to begin again with.
    pub(crate) fn into_from(self) -> RestoreFrom {
        self.from
    }

    pub(crate) fn question(&self, slots_per_boundary: u64, token: Token) -> Action {
        Action::Read { token, name: self.object(slots_per_boundary), limit: MAX_BYTES }
    }

    pub(crate) fn object(&self, slots_per_boundary: u64) -> String {
        match self.boundary() {
            Some(k) => names::boundary(k),
            None => names::slot(self.slot(slots_per_boundary)),
        }
    }

    /// The boundary to read, if the step reads one.
    fn boundary(&self) -> Option<u64> {
        match self.step {
            Step::Boundaries => self.boundaries.probe().map(|index| index + 1),
            Step::Recheck => Some(self.boundaries.count() + 1),
            Step::Slots | Step::Last | Step::Newest | Step::Others => None,
        }
    }

    /// The slot to read in the steps that read one.
    fn slot(&self, slots_per_boundary: u64) -> u64 {
        let tail = self.tail(slots_per_boundary);
        match self.step {
            Step::Slots => self.base(slots_per_boundary) + self.slots.probe().unwrap_or(0),
            Step::Newest => self.last.as_ref().and_then(|last| last.newest).unwrap_or(0),
            Step::Others => self.to_read.last().copied().unwrap_or(0),
            Step::Last | Step::Boundaries | Step::Recheck => tail.saturating_sub(1),
        }
    }

    fn base(&self, slots_per_boundary: u64) -> u64 {
        self.boundaries.count() * slots_per_boundary
    }

    fn tail(&self, slots_per_boundary: u64) -> u64 {
        self.base(slots_per_boundary) + self.slots.count()
    }

    fn take_last(&mut self, record: Record, base: u64) {
        let pointer = match &record.body {
            Body::Completed(_) | Body::Discarded(_) => Some(record.slot),
            Body::Claim(_) | Body::Ended(_) => record.newest,
        };
        let newest = if let Body::Completed(_) = &record.body { pointer } else { record.newest };
        let (finished, discarded) = match &record.body {
            Body::Ended(outcome) => (outcome.is_final(), None),
            Body::Discarded(outcome) => (outcome.is_final(), Some(outcome.clone())),
            Body::Claim(_) | Body::Completed(_) => (false, None),
        };
        self.last = Some(Last { epoch: record.epoch, finished, pointer, newest, discarded });
        match record.body {
            Body::Completed(completed) => self.take_newest(completed, base),
            Body::Claim(_) | Body::Ended(_) | Body::Discarded(_) if newest.is_some() => self.step = Step::Newest,
            Body::Claim(_) | Body::Ended(_) | Body::Discarded(_) => self.step = Step::Recheck,
        }
    }

    fn take_newest(&mut self, completed: Box<Completed>, base: u64) {
        // A subsumed slot below the boundary has nothing left to delete, and what is there now may be anybody's.
        let subsumed = completed.subsumed.iter().filter(|slot| **slot >= base);
        self.to_read = completed.retained.iter().chain(subsumed).copied().collect();
        self.newest = Some(completed);
        self.step = if self.to_read.is_empty() { Step::Recheck } else { Step::Others };
    }

    /// The newest checkpoint went with the job: what is read next only says what had been published. `false` if that was
    /// known already.
    fn take_discarded(&mut self, outcome: Outcome, newest: Option<u64>) -> bool {
        match &mut self.last {
            Some(last @ Last { discarded: None, .. }) => {
                (last.discarded, last.newest) = (Some(outcome), newest);
                true
            }
            Some(_) | None => false,
        }
    }

    fn missing(&mut self, name: &str) {
        self.doubt(corrupt(name, "it is missing, and the records around it are there".to_owned()));
    }

    /// May also be what a slot looks like that was deleted, and perhaps created once more by somebody who slept for long.
    fn not_a_checkpoint(&mut self, name: &str) {
        self.doubt(corrupt(name, "a later record says it is a checkpoint, and it is not".to_owned()));
    }

    fn doubt(&mut self, damage: OpenError) {
        self.doubt = Some(damage);
        self.to_read.clear();
        self.step = Step::Recheck;
    }

    /// Where to start, or why not.
    fn decide(&self, allow_rewind: bool) -> Result<Start, OpenError> {
        let newest = self.newest.as_ref().map(|completed| &completed.checkpoint);
        let start =
            |checkpoint: &CompletedCheckpoint| Start::At(Box::new(checkpoint.clone()), checkpoint.origin.clone());
        let rewind = |start: Start| match newest {
            Some(newest) if !allow_rewind => Err(OpenError::BelowPublished { published: newest.checkpoint }),
            Some(_) | None => Ok(start),
        };
        let latest = || Ok(newest.map_or(Start::Empty, start));
        if self.discarded().is_some() {
            return self.decide_anew(newest, allow_rewind);
        }
        match &self.from {
            RestoreFrom::Latest => latest(),
            RestoreFrom::Nothing => rewind(Start::Empty),
            RestoreFrom::Checkpoint(wanted) if newest.is_some_and(|newest| newest.checkpoint == *wanted) => latest(),
            RestoreFrom::Checkpoint(wanted) => match self.retained().find(|kept| kept.checkpoint == *wanted) {
                Some(older) => rewind(start(older)),
                None => Err(self.no_such(*wanted)),
            },
            RestoreFrom::Foreign(foreign) => {
                let origin = origin_of(foreign);
                match newest {
                    Some(newest) if newest.origin.as_ref() == Some(&origin) => latest(),
                    // Our own, and from here on the line that begins with it: the same command resumes that.
                    Some(newest) if origin_of(newest) == origin => {
                        Ok(Start::At(Box::new(newest.clone()), Some(origin)))
                    }
                    Some(_) | None => rewind(Start::Foreign(foreign.clone())),
                }
            }
        }
    }

    /// The same when no checkpoint of the log can be restored any more. What had been published is still known.
    fn decide_anew(&self, newest: Option<&CompletedCheckpoint>, allow_rewind: bool) -> Result<Start, OpenError> {
        match &self.from {
            RestoreFrom::Latest | RestoreFrom::Nothing => Ok(Start::Empty),
            RestoreFrom::Checkpoint(wanted) => {
                Err(OpenError::NoSuchCheckpoint { checkpoint: *wanted, retained: Vec::new() })
            }
            RestoreFrom::Foreign(foreign) => {
                let origin = origin_of(foreign);
                let is_beyond = |newest: &&CompletedCheckpoint| {
                    newest.origin.as_ref() != Some(&origin) && origin_of(newest) != origin
                };
                match newest.filter(is_beyond) {
                    Some(newest) if !allow_rewind => Err(OpenError::BelowPublished { published: newest.checkpoint }),
                    Some(_) | None => Ok(Start::Foreign(foreign.clone())),
                }
            }
        }
    }

    fn discarded(&self) -> Option<&Outcome> {
        self.last.as_ref().and_then(|last| last.discarded.as_ref())
    }

    fn retained(&self) -> impl Iterator<Item = &CompletedCheckpoint> {
        let slots = self.newest.iter().flat_map(|completed| &completed.retained);
        slots.filter_map(|slot| self.others.get(slot))
    }

    fn no_such(&self, checkpoint: CheckpointId) -> OpenError {
        let newest = self.newest.iter().map(|completed| completed.checkpoint.checkpoint);
        let retained = self.retained().map(|kept| kept.checkpoint).chain(newest).collect();
        OpenError::NoSuchCheckpoint { checkpoint, retained }
    }
}

#[derive(Clone, Debug)]
enum Start {
    Empty,
    /// At one of our own, in the line that begins with this one.
    At(Box<CompletedCheckpoint>, Option<Origin>),
    Foreign(Box<CompletedCheckpoint>),
}

fn origin_of(foreign: &CompletedCheckpoint) -> Origin {
    Origin { job: foreign.job.clone(), epoch: foreign.epoch, checkpoint: foreign.checkpoint }
}

impl Log {
    /// An answer while opening.
    pub(super) fn on_opening_read(&mut self, object: Option<&[u8]>) {
        self.tries = 0;
        let State::Opening(mut open) = std::mem::replace(&mut self.state, State::Idle) else { return };
        match self.advance(&mut open, object) {
            Err(error) => self.refuse(error),
            Ok(Next::Read) => {
                self.state = State::Opening(open);
                self.ask();
            }
            Ok(Next::Restart) => self.reopen(open.from),
            Ok(Next::Decide) => self.decide(open),
        }
    }

    /// Begins again: somebody else moved the log while it was read.
    pub(super) fn reopen(&mut self, from: RestoreFrom) {
        self.state = State::Opening(Box::new(Open::new(from)));
        self.ask();
    }

    fn advance(&self, open: &mut Open, object: Option<&[u8]>) -> Result<Next, OpenError> {
        let name = open.object(self.slots_per_boundary);
        let slot = open.slot(self.slots_per_boundary);
        let base = open.base(self.slots_per_boundary);
        if let (Some(k), Some(bytes)) = (open.boundary(), object) {
            Boundary::decode(&name, bytes, k, &self.job.name)?;
        }
        let read = |bytes| Record::decode(&name, bytes, slot, &self.job.name);
        match (open.step, object) {
            (Step::Boundaries, _) => {
                let index = open.boundaries.probe().unwrap_or(0);
                open.boundaries.answer(index, object.is_some());
                if open.boundaries.probe().is_none() {
                    open.step = Step::Slots;
                }
            }
            (Step::Slots, _) => {
                open.slots.answer(open.slots.probe().unwrap_or(0), object.is_some());
                match (open.slots.probe(), open.slots.count(), open.boundaries.count()) {
                    (Some(_), _, _) => {}
                    (None, 0, 0) => open.step = Step::Recheck,
                    (None, 0, _) => open.missing(&name),
                    (None, _, _) => open.step = Step::Last,
                }
            }
            (Step::Last, Some(bytes)) => open.take_last(read(bytes)?, base),
            (Step::Newest, Some(bytes)) => match read(bytes)? {
                Record { body: Body::Completed(completed), .. } => open.take_newest(completed, base),
                Record { body: Body::Discarded(outcome), newest: newest @ Some(_), .. } => {
                    if !open.take_discarded(outcome, newest) {
                        open.not_a_checkpoint(&name);
                    }
                }
                Record { body: Body::Claim(_) | Body::Ended(_) | Body::Discarded(_), .. } => {
                    open.not_a_checkpoint(&name);
                }
            },
            (Step::Others, _) => {
                match object.map(read).transpose()?.map(|record| record.body) {
                    Some(Body::Completed(completed)) => drop(open.others.insert(slot, completed.checkpoint)),
                    Some(Body::Claim(_) | Body::Ended(_) | Body::Discarded(_)) => open.not_a_checkpoint(&name),
                    // Subsumed and deleted: done. Retained ones must be there.
                    None if open.newest.as_ref().is_some_and(|newest| newest.subsumed.contains(&slot)) => {}
                    None => open.missing(&name),
                }
                open.to_read.pop();
                if open.to_read.is_empty() {
                    open.step = Step::Recheck;
                }
            }
            (Step::Last | Step::Newest, None) => open.missing(&name),
            (Step::Recheck, Some(_)) => return Ok(Next::Restart),
            (Step::Recheck, None) => {
                return open.doubt.take().map_or(Ok(Next::Decide), Err);
            }
        }
        Ok(Next::Read)
    }

    fn decide(&mut self, open: Box<Open>) {
        let rewinds = self.allow_rewind && open.from != RestoreFrom::Latest;
        match &open.last {
            Some(last) if last.finished && !rewinds => {
                let epoch = last.epoch;
                self.close();
                let kept = open.newest.filter(|_| last.discarded.is_none());
                let latest = kept.map(|completed| Box::new(completed.checkpoint));
                self.events.push_back(Event::AlreadyFinished { epoch, latest });
            }
            Some(_) | None => match open.decide(self.allow_rewind) {
                Ok(start) => self.claim(open, start),
                Err(error) => self.refuse(error),
            },
        }
    }

    fn claim(&mut self, open: Box<Open>, start: Start) {
        let (restore, origin) = match start {
            Start::Empty => (None, None),
            Start::At(checkpoint, origin) => (Some(checkpoint), origin),
            Start::Foreign(foreign) => (Some(foreign.clone()), Some(origin_of(&foreign))),
        };
        // Above the reign of a foreign checkpoint too: names made of epochs, such as those of output, must not come again.
        let last = open.last.as_ref().map(|last| last.epoch);
        let before = last.max(restore.as_ref().map(|checkpoint| checkpoint.epoch));
        let epoch = before.map_or(Epoch(1), Epoch::next);
        let newest_id = open.newest.as_ref().map(|completed| completed.checkpoint.checkpoint);
        let highest = newest_id.max(restore.as_ref().map(|checkpoint| checkpoint.checkpoint));
        let claim = Claim {
            max_parallelism: self.job.max_parallelism,
            restored: restore.as_ref().map(|checkpoint| checkpoint.checkpoint),
            origin: origin.clone(),
        };
        let record = Record {
            slot: open.tail(self.slots_per_boundary),
            epoch,
            nonce: self.fresh_nonce(),
            job: self.job.name.clone(),
            newest: open.last.as_ref().and_then(|last| last.pointer),
            body: Body::Claim(claim),
        };
        let next_id = highest.map_or(CheckpointId(1), CheckpointId::next);
        let opened = Opened { restore, origin, next_id, discarded: open.discarded().cloned() };
        self.state = State::Appending(Box::new(Append::new(record, Purpose::Open { open, opened })));
        self.ask();
    }

    /// The claim is durable: the job is ours.
    pub(super) fn opened(&mut self, record: &Record, open: Open, opened: Opened) {
        self.epoch = Some(record.epoch);
        self.tail = record.slot + 1;
        self.newest_slot = record.newest;
        let boundary = open.boundaries.count();
        let discarded = open.discarded().is_some();
        let newest = open.newest.as_deref();
        if let Some(newest) = newest.filter(|_| !discarded) {
            self.older.begin(&open.others, &newest.retained);
        }
        self.retention.begin(boundary, newest, discarded, open.others);
        self.latest = open.newest.filter(|_| !discarded).map(|completed| Box::new(completed.checkpoint));
        self.state = State::Idle;
        self.events.push_back(Event::Opened(opened));
        self.clean();
        self.look_for_orphans();
    }
}

/// After an answer while opening.
enum Next {
    Read,
    Restart,
    Decide,
}
