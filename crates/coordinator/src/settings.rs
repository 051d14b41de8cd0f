use std::num::NonZeroU32;
use std::time::Duration;

use cutwater_core::{CheckpointId, MaxParallelism};
use serde::{Deserialize, Serialize};

use crate::CompletedCheckpoint;

/// When checkpoints are taken, how many failures are borne and what is kept. [`Settings::default`] has Flink's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From the start of one periodic checkpoint to the start of the next; `None` (the default) takes none by itself.
    /// Raised to `min_pause` if below it, and to 1 ms. Shorter: less to replay after a failure, more writes to the store.
    ///
    /// The first one of a coordinator comes one interval after the job runs (Flink draws a moment between `min_pause`
    /// and the interval at random); after each later start of the job it comes `min_pause` after, as in Flink 2.1 and later.
    pub interval: Option<Duration>,
    /// Whether checkpoints are taken at all, by hand and at the end of the data included. Default `true`. If not, the log
    /// is still claimed, since that is what keeps two runs of a job apart.
    pub enabled: bool,
    /// How long a checkpoint may take from its start until all acknowledgements are in; then it is aborted. Default
    /// 10 min. Writing its record doesn't count.
    pub timeout: Duration,
    /// From the completion of one checkpoint to the start of the next *periodic* one, at least. Default 0.
    pub min_pause: Duration,
    /// How many checkpoints may be in flight at once. Default 1. With more, one begins when all subtasks have swept their
    /// snapshots for the one before, while those are still being written: see [`crate::Coordinator::handle_swept`]. Savepoints,
    /// whatever the job is to stop behind, and the last checkpoint are alone in flight.
    pub max_concurrent: NonZeroU32,
    /// How many counted failures in a row are borne; one more and [`crate::Action::FailJob`] follows. Default 0;
    /// `u32::MAX` means without limit.
    pub tolerable_failures: u32,
    /// How many completed checkpoints are kept. Default 1. More: an older one to fall back to, more storage.
    pub num_retained: NonZeroU32,
    /// Whether checkpoints go on once some subtask has reached the end of its data, and whether a last one is taken at
    /// the end of all. Default `true`. Without it what came after the last checkpoint is published at the end unsaved.
    pub checkpoints_after_tasks_finish: bool,
    /// Whether the job may start below what its sinks were told to publish, or again after it has finished. Default
    /// `false`; with `true` output may appear twice.
    pub allow_rewind: bool,
    /// What becomes of the checkpoints when the job ends. Default: they are kept.
    pub externalized_checkpoint_retention: ExternalizedCheckpointRetention,
    /// Whether an attempt that can't be restored, since its checkpoint is damaged, is followed by one from the retained
    /// checkpoint before: see [`crate::Coordinator::handle_damaged`]. Default `false`. Does something only with
    /// `num_retained` of 2 or more; output of what is replayed appears twice.
    pub fall_back: bool,
    /// In which form the state of savepoints is stored. Default: the canonical one, which every backend reads.
    pub savepoints: SavepointFormat,
}

/// In which form the state of savepoints is stored. Source: Flink's `SavepointFormatType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SavepointFormat {
    /// In the one that every backend reads.
    #[default]
    Canonical,
    /// In the own one of the backend, where it has one, which that backend alone reads: quick to make and to start from, of
    /// large state. It is whole, as any savepoint is.
    Native,
}

/// What becomes of the checkpoints of a job when it ends. Names and rules are Flink's, but for the first. Savepoints are
/// the user's and are never touched; nor is output that is published.
///
/// | | finished, drained | cancelled | stopped | failed |
/// |---|---|---|---|---|
/// | `RetainOnCancellation` | kept | kept | kept | kept |
/// | `DeleteOnCancellation` | deleted | deleted | kept | kept |
/// | `NoExternalizedCheckpoints` | deleted | deleted | deleted if a savepoint was made, else kept | deleted |
///
/// A job whose checkpoints were deleted, and which had not finished, begins from nothing when it is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExternalizedCheckpointRetention {
    /// They are kept, however the job ends, so that the same command resumes and tools can read them. (Flink deletes them
    /// when the job has finished.)
    #[default]
    RetainOnCancellation,
    /// They are kept only if the job failed, or was stopped behind one of them to go on later.
    DeleteOnCancellation,
    /// They are never kept. (A stop behind a checkpoint alone keeps it: it would be a cancellation else.)
    NoExternalizedCheckpoints,
}

impl ExternalizedCheckpointRetention {
    /// Whether checkpoints are deleted once a job has ended so.
    #[must_use]
    pub fn deletes_after(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::RetainOnCancellation, _) => false,
            (_, Outcome::Finished | Outcome::Canceled | Outcome::Stopped { drained: true, .. }) => true,
            (Self::DeleteOnCancellation, Outcome::Failed(_) | Outcome::Stopped { drained: false, .. }) => false,
            (Self::NoExternalizedCheckpoints, Outcome::Failed(_)) => true,
            (Self::NoExternalizedCheckpoints, Outcome::Stopped { savepoint, drained: false }) => savepoint.is_some(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: None,
            enabled: true,
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            max_concurrent: NonZeroU32::MIN,
            tolerable_failures: 0,
            num_retained: NonZeroU32::MIN,
            checkpoints_after_tasks_finish: true,
            allow_rewind: false,
            externalized_checkpoint_retention: ExternalizedCheckpointRetention::default(),
            fall_back: false,
            savepoints: SavepointFormat::Canonical,
        }
    }
}

/// Whose log it is. Written into every record: a log of another job is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's name, at most 1000 bytes.
    pub name: String,
    /// How many key groups it has if it starts from nothing; a job that resumes keeps those of its checkpoint. Only
    /// written down: whether the checkpoint fits what the user wants is for the caller to check.
    pub max_parallelism: MaxParallelism,
}

impl Outcome {
    /// Whether the job has done all that it ever will, and is not run again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Finished | Self::Stopped { drained: true, .. } => true,
            Self::Canceled | Self::Failed(_) | Self::Stopped { drained: false, .. } => false,
        }
    }
}

/// Where a job starts.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum RestoreFrom {
    /// At the newest completed checkpoint of the log; from nothing if there is none, or if they were all deleted when the
    /// job ended.
    Latest,
    /// From nothing. Refused while the log has a completed checkpoint, unless [`Settings::allow_rewind`].
    Nothing,
    /// At this retained checkpoint of the log. Refused if a newer one completed, unless [`Settings::allow_rewind`].
    Checkpoint(CheckpointId),
    /// At a checkpoint that the caller read from another folder. Its files stay the other folder's.
    ///
    /// If the newest completed checkpoint of this log descends from the same one, the job goes on from the newest, so
    /// that the same command resumes after a crash. Likewise if the newest is this very checkpoint: a job that was stopped
    /// with a savepoint resumes from it. If it is neither, refused, unless [`Settings::allow_rewind`].
    ///
    /// If the checkpoints of this log were deleted when the job ended, the newest of them counts for that all the same,
    /// and the job starts from the given one where it would go on from the newest.
    Foreign(Box<CompletedCheckpoint>),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// All data was read and all output published. The job is not run again.
    Finished,
    /// The user stopped it. The same command resumes from the newest checkpoint, if they are kept:
    /// [`ExternalizedCheckpointRetention`].
    Canceled,
    /// It failed for good, with the reason (cut at 4096 bytes). The same command resumes likewise.
    Failed(String),
    /// The user stopped it behind a last checkpoint, whose output is published.
    Stopped {
        /// Where the savepoint lies that was made of the checkpoint, if one was (cut at 4096 bytes). For people: it is
        /// theirs, and may have been moved since.
        savepoint: Option<String>,
        /// Whether the sources were ended first, so that timers fired and windows closed: then all is done as if the data
        /// had ended there, and the job is not run again. Else the same command resumes from the checkpoint.
        drained: bool,
    },
}
