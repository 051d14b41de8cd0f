//! Looking, before an attempt starts anew, whether the job is still ours.
//!
//! Nothing depends on the answer: whoever was replaced can't append, whether it knows or not. But a process whose attempts
//! all fail before they have anything to append (since its successor has let go of the files that they would restore, say)
//! would never learn it, and start them again and again.

use super::record::{MAX_BYTES, Record};
use super::{Event, Log, State, names};
use crate::{Action, Token};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Check {
    /// Whether somebody has taken the slot behind our newest record.
    Slot,
    /// Whether a boundary has passed it, so that it may have been taken and deleted.
    Boundary,
}

impl Check {
    pub(super) fn question(self, tail: u64, slots_per_boundary: u64, token: Token) -> Action {
        let name = match self {
            Self::Slot => names::slot(tail),
            Self::Boundary => names::boundary(tail / slots_per_boundary + 1),
        };
        Action::Read { token, name, limit: MAX_BYTES }
    }
}

impl Log {
    /// Ends in [`Event::Current`], [`Event::Superseded`], or [`Event::Refused`] if what is there can't be read. Asked
    /// until there is an answer, or the job ends. Only while idle.
    pub(crate) fn check_reign(&mut self) {
        if let State::Idle = self.state {
            self.tries = 0;
            self.state = State::Checking(Check::Slot);
            self.ask();
        }
    }

    /// Nobody needs the answer any more.
    pub(crate) fn stop_checking(&mut self) {
        if let State::Checking(_) = self.state {
            self.state = State::Idle;
            self.asked = None;
            self.retry_at = None;
        }
    }

    pub(super) fn on_checking_read(&mut self, check: Check, object: Option<&[u8]>) {
        self.tries = 0;
        let next = self.epoch.map_or(cutwater_core::Epoch(1), cutwater_core::Epoch::next);
        match (check, object) {
            (Check::Slot, Some(bytes)) => {
                match Record::decode(&names::slot(self.tail), bytes, self.tail, &self.job.name) {
                    Ok(found) => self.supersede(found.epoch.max(next)),
                    Err(error) => self.refuse(error),
                }
            }
            (Check::Slot, None) => {
                self.state = State::Checking(Check::Boundary);
                self.ask();
            }
            (Check::Boundary, Some(_)) => self.supersede(next),
            (Check::Boundary, None) => {
                self.state = State::Idle;
                self.events.push_back(Event::Current);
            }
        }
    }
}
