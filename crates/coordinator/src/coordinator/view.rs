use cutwater_core::{CheckpointId, Epoch, Moment};

use super::Coordinator;
use crate::CompletedCheckpoint;

/// How many checkpoints there were since the coordinator was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Begun.
    pub triggered: u64,
    /// Completed.
    pub completed: u64,
    /// Given up, for whatever reason. Requests refused before a checkpoint began are not among them.
    pub failed: u64,
}

/// A checkpoint in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingView {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// When it began.
    pub started: Moment,
    /// How many acknowledgements are in.
    pub acknowledged: u32,
    /// How many there must be.
    pub total: u32,
    /// Whether all are in and its record is being written.
    pub finalizing: bool,
    /// Whether it was begun at the end of all data.
    pub final_: bool,
}

/// For a status page.
impl Coordinator {
    /// The reign, once the job is open. It may rise while the job runs, when the fate of a record had to be settled.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.log.epoch()
    }

    /// The newest completed checkpoint of the log.
    #[must_use]
    pub fn latest(&self) -> Option<&CompletedCheckpoint> {
        self.log.latest()
    }

    /// The newest checkpoint in flight.
    #[must_use]
    pub fn pending(&self) -> Option<PendingView> {
        self.in_flight().last()
    }

    /// The checkpoints in flight, oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = PendingView> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.pending.iter().map(move |pending| PendingView {
            checkpoint: pending.barrier.checkpoint,
            started: pending.started,
            acknowledged: count(pending.total() - pending.waiting().len()),
            total: count(pending.total()),
            finalizing: pending.is_finalizing(),
            final_: pending.final_,
        })
    }

    /// Whether the sources of the attempt that runs were ended before their end, for [`Purpose::Drain`](crate::Purpose): by
    /// itself, or by the one before whose last checkpoint it began with.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.drained)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The checkpoints that are kept, oldest first.
    #[must_use]
    pub fn retained(&self) -> Vec<CheckpointId> {
        self.log.retention().checkpoints().collect()
    }
}
