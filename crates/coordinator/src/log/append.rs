//! Appending: create the next slot, and when in doubt find out who has it.

use cutwater_core::{Epoch, Moment};

use super::record::{Body, Claim, Completed, MAX_BYTES, Record};
use super::{Event, Log, Open, Opened, State, names};
use crate::{Action, CompletedCheckpoint, CreateOutcome, Outcome, Token};

/// A record on its way into its slot.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Append {
    record: Record,
    bytes: Vec<u8>,
    purpose: Purpose,
    /// A claim of the next epoch for the same slot, once the fate of `record` is unknown. Whichever of the two is there
    /// is the truth, and the other can never come to be.
    rival: Option<Box<(Record, Vec<u8>)>>,
    step: Step,
}

#[derive(Clone, Debug, Hash)]
pub(crate) enum Purpose {
    Open { open: Box<Open>, opened: Opened },
    Append,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Step {
    /// Create the record, or the rival if there is one.
    Create,
    /// See who has the slot.
    ReadSlot,
    /// See whether a boundary has passed the slot: then what was created there counts for nothing.
    ReadBoundary(Holder),
}

/// Who has the slot.
#[derive(Clone, Copy, Debug, Hash)]
enum Holder {
    Record,
    Rival,
    /// It was taken, and then it was empty.
    Nobody,
}

impl Append {
    pub(crate) fn new(record: Record, purpose: Purpose) -> Self {
        let bytes = record.encode();
        Self { record, bytes, purpose, rival: None, step: Step::Create }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.purpose, Purpose::Open { .. })
    }

    pub(crate) fn object(&self, slots_per_boundary: u64) -> String {
        match self.step {
            Step::Create | Step::ReadSlot => names::slot(self.record.slot),
            Step::ReadBoundary(_) => names::boundary(self.record.slot / slots_per_boundary + 1),
        }
    }

    pub(crate) fn question(&self, slots_per_boundary: u64, token: Token) -> Action {
        let name = self.object(slots_per_boundary);
        match self.step {
            Step::Create => {
                let bytes = self.rival.as_ref().map_or(&self.bytes, |rival| &rival.1).clone();
                Action::Create { token, name, bytes }
            }
            Step::ReadSlot | Step::ReadBoundary(_) => Action::Read { token, name, limit: MAX_BYTES },
        }
    }
}

impl Log {
    pub(super) fn begin_completed(&mut self, mut checkpoint: CompletedCheckpoint) {
        let (Some(epoch), State::Idle) = (self.epoch, &self.state) else { return };
        checkpoint.slot = self.tail;
        checkpoint.epoch = epoch;
        let (retained, subsumed) = self.retention.after(self.num_retained, self.older.bad());
        let swept_below = self.retention.swept_below();
        let completed = Completed { checkpoint, retained, subsumed, swept_below };
        self.begin(epoch, Body::Completed(Box::new(completed)));
    }

    pub(super) fn begin_ended(&mut self, outcome: Outcome) {
        if let (Some(epoch), State::Idle) = (self.epoch, &self.state) {
            let discards = self.retains.deletes_after(&outcome) && self.retention.checkpoints().next().is_some();
            self.begin(epoch, if discards { Body::Discarded(outcome) } else { Body::Ended(outcome) });
        }
    }

    fn begin(&mut self, epoch: Epoch, body: Body) {
        let nonce = self.fresh_nonce();
        let job = self.job.name.clone();
        let record = Record { slot: self.tail, epoch, nonce, job, newest: self.newest_slot, body };
        let append = Append::new(record, Purpose::Append);
        // Nothing is written that we could not read again.
        let name = append.object(self.slots_per_boundary);
        if let Err(error) = Record::decode(&name, &append.bytes, self.tail, &self.job.name) {
            self.events.push_back(Event::Failed(error.to_string()));
            return;
        }
        self.tries = 0;
        self.state = State::Appending(Box::new(append));
        self.ask();
    }

    pub(super) fn on_created(&mut self, now: Moment, outcome: CreateOutcome) {
        let State::Appending(append) = &mut self.state else { return };
        let holder = if append.rival.is_some() { Holder::Rival } else { Holder::Record };
        match (outcome, holder, &append.purpose) {
            (CreateOutcome::Created, _, _) => self.settle(Step::ReadBoundary(holder)),
            (CreateOutcome::Exists, _, _) => self.settle(Step::ReadSlot),
            (CreateOutcome::Failed(reason), Holder::Record | Holder::Nobody, Purpose::Append) => {
                self.state = State::Idle;
                self.events.push_back(Event::Failed(reason));
            }
            (CreateOutcome::Unknown(_), Holder::Record | Holder::Nobody, Purpose::Append) => self.contest(),
            // A claim does the same whichever try of it is the one that lands, so it is simply tried again.
            (CreateOutcome::Failed(reason) | CreateOutcome::Unknown(reason), _, _) => self.stumble(now, reason),
        }
    }

    /// Nobody knows whether the record is or will be there: claims the same slot, so that it is settled for ever.
    fn contest(&mut self) {
        let nonce = self.fresh_nonce();
        let State::Appending(append) = &mut self.state else { return };
        let claim = Claim {
            max_parallelism: self.job.max_parallelism,
            restored: self.latest.as_ref().map(|latest| latest.checkpoint),
            origin: None,
        };
        let record = Record {
            epoch: append.record.epoch.next(),
            nonce,
            body: Body::Claim(claim),
            slot: append.record.slot,
            job: append.record.job.clone(),
            newest: append.record.newest,
        };
        let bytes = record.encode();
        append.rival = Some(Box::new((record, bytes)));
        self.ask();
    }

    fn settle(&mut self, step: Step) {
        if let State::Appending(append) = &mut self.state {
            append.step = step;
            self.ask();
        }
    }

    /// An answer while appending.
    pub(super) fn on_settling_read(&mut self, now: Moment, object: Option<&[u8]>) {
        let State::Appending(append) = &self.state else { return };
        match (append.step, object) {
            (Step::ReadSlot, Some(bytes)) => self.on_slot(bytes),
            (Step::ReadSlot, None) => self.settle(Step::ReadBoundary(Holder::Nobody)),
            (Step::ReadBoundary(_), Some(_)) => self.passed(),
            (Step::ReadBoundary(Holder::Record), None) => self.appended(),
            (Step::ReadBoundary(Holder::Rival), None) => self.reclaimed(),
            (Step::ReadBoundary(Holder::Nobody), None) => {
                // Taken, then empty, and no boundary passed it: the store shows creates late. Look again, later.
                if let State::Appending(append) = &mut self.state {
                    append.step = Step::ReadSlot;
                }
                self.stumble(now, "it exists and can't be read".to_owned());
            }
            (Step::Create, _) => {} // nothing was asked
        }
    }

    fn on_slot(&mut self, bytes: &[u8]) {
        let State::Appending(append) = &self.state else { return };
        let name = names::slot(append.record.slot);
        let found = match Record::decode(&name, bytes, append.record.slot, &self.job.name) {
            Ok(found) => found,
            Err(error) => return self.refuse(error),
        };
        let rival = append.rival.as_ref().map(|rival| rival.0.nonce);
        if found.nonce == append.record.nonce {
            self.settle(Step::ReadBoundary(Holder::Record));
        } else if Some(found.nonce) == rival {
            self.settle(Step::ReadBoundary(Holder::Rival));
        } else {
            self.overtaken(found.epoch);
        }
    }

    /// The slot was passed by a boundary: whoever moved it has claimed the job since.
    fn passed(&mut self) {
        let State::Appending(append) = &self.state else { return };
        self.overtaken(append.record.epoch.next());
    }

    /// Somebody else has the slot. Who only opens looks again, who had the job has lost it.
    fn overtaken(&mut self, by: Epoch) {
        let State::Appending(append) = std::mem::replace(&mut self.state, State::Over) else { return };
        match append.purpose {
            Purpose::Open { open, .. } => self.reopen(open.into_from()),
            Purpose::Append => self.supersede(by),
        }
    }

    /// The record has its slot for good.
    fn appended(&mut self) {
        self.tries = 0;
        let State::Appending(append) = std::mem::replace(&mut self.state, State::Idle) else { return };
        let Append { record, purpose, .. } = *append;
        if let Purpose::Open { open, opened } = purpose {
            return self.opened(&record, *open, opened);
        }
        self.tail = record.slot + 1;
        self.events.push_back(Event::Appended);
        match record.body {
            Body::Completed(completed) => {
                self.newest_slot = Some(record.slot);
                self.retention.completed(&completed);
                let before = self.latest.replace(Box::new(completed.checkpoint));
                self.older.completed(before, &completed.retained);
                self.clean();
            }
            Body::Discarded(_) => {
                self.newest_slot = Some(record.slot);
                self.latest = None;
                self.retention.let_go();
                self.clean();
            }
            Body::Claim(_) | Body::Ended(_) => {}
        }
    }

    /// Our claim has the slot, so the record never will.
    fn reclaimed(&mut self) {
        self.tries = 0;
        let State::Appending(append) = std::mem::replace(&mut self.state, State::Idle) else { return };
        if let Some(rival) = append.rival {
            self.epoch = Some(rival.0.epoch);
            self.tail = rival.0.slot + 1;
            self.events.push_back(Event::Lost);
        }
    }
}
