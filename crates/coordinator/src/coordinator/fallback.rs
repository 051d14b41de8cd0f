//! An attempt that can't be restored, since its checkpoint is damaged, and one from an older checkpoint in its place.

use cutwater_core::Moment;

use super::{Coordinator, Phase};
use crate::Action;

impl Coordinator {
    /// The attempt could not be started, since the checkpoint that it was to restore is damaged: a file is missing, cut, or
    /// not as it was written. Not for a store that does not answer, nor for a checkpoint that does not fit the job: an
    /// older one would be of no help.
    ///
    /// Returns whether an older checkpoint takes its place. If so this is like [`Self::handle_failover`]: once it is known
    /// that the job is still ours (whoever has replaced us may have let go of the files), [`Action::FellBack`] and
    /// [`Action::Restore`] follow. Numbers of new checkpoints stay above that of the damaged one, which is let go when the
    /// next completes. A later start of the process tries the damaged one again first, as long as it is the newest.
    ///
    /// If not, nothing has changed: [`Settings::fall_back`](crate::Settings::fall_back) is off, there is no older one
    /// that is retained and not known to be damaged, or the damaged one is of another folder.
    #[must_use]
    pub fn handle_damaged(&mut self, now: Moment) -> bool {
        let bad = self.restore.as_deref().filter(|_| matches!(self.phase, Phase::Open));
        let falls_back = bad.is_some_and(|bad| self.log.older_than(bad).is_some());
        if falls_back {
            self.falls_back = true;
            self.handle_failover(now);
        }
        falls_back
    }

    /// The job is still ours: what the next attempt restores is the older one, if that was wanted.
    pub(super) fn fall_back(&mut self) {
        if !std::mem::take(&mut self.falls_back) {
            return;
        }
        let Some(bad) = self.restore.clone() else { return };
        let Some(older) = self.log.older_than(&bad).map(|older| Box::new(older.clone())) else { return };
        self.log.mark_bad(&bad);
        self.base = Some(older.checkpoint); // what is damaged may not be built upon
        self.restore = Some(older);
        self.actions.push_back(Action::FellBack { bad });
    }
}
