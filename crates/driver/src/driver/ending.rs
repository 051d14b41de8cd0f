//! How the job ends: in peace through the log, or at once when the log is not ours.

use cutwater_coordinator::Outcome;
use cutwater_core::Moment;

use super::Driver;
use crate::{Action, End};

impl Driver {
    /// Begins to end the job. The first way counts. An attempt that is being started is stopped once it runs.
    pub(super) fn end(&mut self, end: End) {
        if !self.is_ending() {
            self.stop_at_once(end);
        }
    }

    /// Ends the job, whatever else it was about to do.
    pub(super) fn stop_at_once(&mut self, end: End) {
        self.ending = Some(end);
        if self.is_running() {
            self.stop();
        }
    }

    /// Nothing runs and nothing is being published: records the end, if the log is still ours. `true` if something was
    /// done.
    pub(super) fn step_ending(&mut self, now: Moment) -> bool {
        let outcome = match &self.ending {
            Some(End::Finished) => Outcome::Finished,
            Some(End::Canceled) => Outcome::Canceled,
            Some(End::Stopped { savepoint, drained }) => {
                Outcome::Stopped { savepoint: savepoint.clone(), drained: *drained }
            }
            Some(End::GaveUp { restarts, reason }) => {
                let words = self.failure.iter().map(|words| format!(": {words}")).collect::<String>();
                Outcome::Failed(format!("job {} failed after {restarts} restarts: {reason}{words}", self.job))
            }
            // The log is not ours: not a word to it.
            Some(End::AlreadyFinished { .. } | End::Superseded { .. } | End::Refused(_)) => {
                self.done();
                return true;
            }
            None => return false,
        };
        if std::mem::replace(&mut self.closing, true) {
            return false;
        }
        self.coordinator.handle_end(now, outcome);
        true
    }

    pub(super) fn done(&mut self) {
        self.over = true;
        self.actions.extend(self.ending.take().map(Action::Done));
    }
}
