use std::collections::VecDeque;
use std::sync::Arc;

use super::{CheckpointKind, CheckpointStatistics, CheckpointStatisticsSummary, CheckpointStatus, StoredStatistics};

/// The newest checkpoints that came to their end, up to a limit, and how many there were in all.
///
/// It goes on over restarts of the job and of the process, as far as it could be kept beside the checkpoints: see
/// [`read_statistics`](crate::read_statistics). It is for people, and nothing depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointHistory {
    limit: usize,
    counts: CheckpointCounts,
    checkpoints: VecDeque<Arc<CheckpointStatistics>>, // oldest first
}

/// How many checkpoints there were in the life of a job, as far as it is known. The names are Flink's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointCounts {
    /// Attempts that started from a checkpoint.
    pub restored: u64,
    /// In flight now.
    pub in_progress: u64,
    /// Completed.
    pub completed: u64,
    /// Given up, for whatever reason. Those in flight when a process was killed are not among them.
    pub failed: u64,
}

impl CheckpointCounts {
    /// All that were begun.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.in_progress.saturating_add(self.completed).saturating_add(self.failed)
    }
}

impl CheckpointHistory {
    /// An empty one of at most `limit` checkpoints.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// What was read back.
    pub(super) fn of(counts: CheckpointCounts, checkpoints: Vec<CheckpointStatistics>) -> Self {
        Self { limit: checkpoints.len(), counts, checkpoints: checkpoints.into_iter().map(Arc::new).collect() }
    }

    /// How many there were. Those that are no longer in the history count too.
    #[must_use]
    pub fn counts(&self) -> CheckpointCounts {
        self.counts
    }

    /// The checkpoints of the history, newest first, at most as many as `web.checkpoints.history` says.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = &CheckpointStatistics> + ExactSizeIterator {
        self.checkpoints.iter().rev().map(Arc::as_ref)
    }

    /// The newest in the history that ended like this.
    #[must_use]
    pub fn latest(&self, status: CheckpointStatus) -> Option<&CheckpointStatistics> {
        self.checkpoints().find(|checkpoint| checkpoint.status == status)
    }

    /// The newest in the history that completed and was copied as a savepoint.
    #[must_use]
    pub fn latest_savepoint(&self) -> Option<&CheckpointStatistics> {
        let is_savepoint = |it: &&CheckpointStatistics| {
            (it.kind, it.status) == (CheckpointKind::Savepoint, CheckpointStatus::Completed)
        };
        self.checkpoints().find(is_savepoint)
    }

    /// The completed checkpoints of the history in figures; `None` if there are none.
    #[must_use]
    pub fn summary(&self) -> Option<CheckpointStatisticsSummary> {
        CheckpointStatisticsSummary::of(self.checkpoints())
    }

    /// One more has ended.
    pub(crate) fn add(&mut self, checkpoint: CheckpointStatistics) {
        match checkpoint.status {
            CheckpointStatus::Completed => self.counts.completed += 1,
            CheckpointStatus::Failed => self.counts.failed += 1,
        }
        self.checkpoints.push_back(Arc::new(checkpoint));
        self.trim();
    }

    pub(crate) fn add_restored(&mut self) {
        self.counts.restored += 1;
    }

    pub(crate) fn set_in_progress(&mut self, checkpoints: usize) {
        self.counts.in_progress = checkpoints as u64;
    }

    /// Goes on from what an earlier process left.
    pub(crate) fn continue_from(&mut self, before: StoredStatistics) {
        let CheckpointCounts { restored, completed, failed, in_progress: _ } = before.history.counts;
        self.counts.restored = self.counts.restored.saturating_add(restored);
        self.counts.completed = self.counts.completed.saturating_add(completed);
        self.counts.failed = self.counts.failed.saturating_add(failed);
        for checkpoint in before.history.checkpoints.into_iter().rev() {
            self.checkpoints.push_front(checkpoint);
        }
        self.trim();
    }

    fn trim(&mut self) {
        self.checkpoints.drain(..self.checkpoints.len().saturating_sub(self.limit));
    }
}
