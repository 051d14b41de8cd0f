//! Whether the job gets on.

use cutwater_restart::{FailureSite, NoProgress};

use super::Driver;
use crate::{Action, OnNoProgress};

/// What the caller says of a failure, beside its class.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) words: Option<String>,
    pub(super) site: Option<FailureSite>,
}

impl Driver {
    /// An attempt has failed here. `true` if the job ends for want of progress.
    pub(super) fn stands_still_at(&mut self, site: Option<&FailureSite>) -> bool {
        let found = self.watch.handle_failure(site);
        self.stands_still(found)
    }

    /// An attempt is to start with the sources at these positions. `true` if it does not, since the job ends for want of
    /// progress.
    pub(super) fn stands_still_from(&mut self, positions: &[u8]) -> bool {
        let found = self.watch.handle_restore(positions);
        self.stands_still(found)
    }

    /// A checkpoint has completed with the sources at these positions.
    pub(super) fn got_on(&mut self, positions: &[u8]) {
        if self.watch.handle_checkpoint(positions) {
            self.no_progress = None;
        }
    }

    fn stands_still(&mut self, found: Option<NoProgress>) -> bool {
        let Some(no_progress) = found else { return false };
        let attempts = no_progress.attempts();
        // Of an error in one part of the input the others may get on meanwhile: that is no reason to tell it again.
        let first = self.no_progress.is_none() && self.watch.attempts() == attempts;
        self.no_progress = Some(no_progress.clone());
        self.act(Action::NoProgress { no_progress, first });
        match self.on_no_progress {
            OnNoProgress::Report => false,
            OnNoProgress::Stop => {
                self.restarter.handle_no_progress(attempts);
                true
            }
        }
    }
}
