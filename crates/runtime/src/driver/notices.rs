//! What people should hear of although the job goes on.

use cutwater_coordinator::{CreateOutcome, Outcome};
use cutwater_core::{Attempt, Moment};
use cutwater_driver::FellBack;
use cutwater_restart::NoProgress;

use super::Shell;
use crate::error::Failure;
use crate::job::in_words;
use crate::upload::chain;

impl Shell {
    /// Whether an older checkpoint takes the place of the one that an attempt could not be started from.
    pub(super) fn falls_back(&mut self, now: Moment, attempt: Attempt, failure: &Failure) -> bool {
        match failure {
            Failure::Restore { source, .. } if failure.is_damage() => {
                self.driver.handle_damaged(now, attempt, chain(source))
            }
            Failure::Restore { .. }
            | Failure::Task(_)
            | Failure::Checkpoints(_)
            | Failure::Commit { .. }
            | Failure::Host(_) => false,
        }
    }

    pub(super) fn fell_back(&self, fell_back: FellBack) {
        tracing::warn!(job = self.graph.name(), "{fell_back}");
        self.shared.update(|status| status.fell_back = Some(fell_back));
    }

    /// Whether the store has answered about a record. While nobody knows whether it is there, the checkpoint neither completes
    /// nor fails.
    pub(super) fn heard(&self, outcome: &CreateOutcome) {
        if let CreateOutcome::Unknown(reason) = outcome {
            tracing::warn!(
                job = self.graph.name(),
                "it is not known whether a record was stored, and is found out: {reason}"
            );
            self.shared.update(|status| status.undecided = Some(reason.clone()));
        }
    }

    pub(super) fn begins_anew(&self, outcome: Outcome) {
        let ended = in_words(&outcome);
        tracing::warn!(
            job = self.graph.name(),
            "the job begins anew: its checkpoints were deleted when it had {ended}"
        );
        self.shared.update(|status| status.discarded = Some(outcome));
    }

    pub(super) fn no_progress(&self, no_progress: NoProgress, first: bool) {
        if first {
            tracing::warn!(job = self.graph.name(), "the job makes no progress: {no_progress}");
        }
        self.shared.update(|status| status.no_progress = Some(no_progress));
    }
}
