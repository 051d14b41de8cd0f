//! Files that no record names: those of checkpoints that were being taken when their process died.
//!
//! After opening, one listing shows them. A snapshot file of an epoch *below that of the claim that opened the log* is
//! deleted unless a checkpoint names it that is retained, or subsumed and still to be deleted in its own way. Why nothing
//! that is needed goes:
//!
//! - Whoever has a lower epoch can't append after the claim, and all that it appended before was read when the log was
//!   opened. So a file of its that no record names now will never be named. It may still be written to by a process that
//!   does not know yet that it was replaced; that process will learn it before it completes anything.
//! - Files of our own epoch, which our tasks may be writing, and of higher ones, whose owner has replaced us, are not
//!   touched. When our epoch rises, since the fate of a record had to be settled, the files of the epoch before are still
//!   ours: hence the epoch of the claim that opened, and one listing only.
//! - The listing may be as old or as short as it likes: it only says what *may* be there, and deleting what is gone does
//!   nothing.

use super::retention::MAX_LITTER;
use super::{Log, names};
use crate::Action;

impl Log {
    /// Asks once, after opening, what is there.
    pub(super) fn look_for_orphans(&mut self) {
        let Some(epoch) = self.epoch else { return };
        let token = self.token();
        self.listing = Some((token, epoch));
        self.actions.push_back(Action::List { token, prefix: names::SNAPSHOTS.to_owned() });
    }

    /// Deletes the orphans among the names, no more than are remembered if they can't be deleted now. The next start
    /// finds the others.
    pub(super) fn on_listed(&mut self, listed: Vec<String>) {
        let Some((_, epoch)) = self.listing.take().filter(|_| self.is_open()) else { return };
        let is_below = |name: &String| names::epoch_of_snapshot(name).is_some_and(|of| of < epoch);
        let is_orphan = |name: &String| is_below(name) && !self.retention.knows(name);
        let orphans: Vec<String> = listed.into_iter().filter(is_orphan).take(MAX_LITTER).collect();
        self.discard(orphans);
    }
}
