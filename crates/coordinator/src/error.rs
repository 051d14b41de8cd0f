use cutwater_core::{CheckpointId, Epoch, SubtaskId};

/// Why a log can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The job would start below what its sinks were told to publish.
    #[error(
        "checkpoint {published} has completed and its output may be published: start from it, or allow a rewind and \
         expect output twice"
    )]
    BelowPublished {
        /// The newest completed checkpoint.
        published: CheckpointId,
    },
    /// The log belongs to another job.
    #[error("{name} is a record of job {found:?}, not of {expected:?}: give each job a folder of its own")]
    AnotherJob {
        /// The object that says so.
        name: String,
        /// The job it names.
        found: String,
        /// The job that should be opened.
        expected: String,
    },
    /// An object is damaged. Nothing is guessed: restore the object from a copy, or start in a new folder.
    #[error("{name} is damaged: {reason}; restore it from a copy or start the job in a new folder")]
    Corrupt {
        /// The object.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object was written by a newer version.
    #[error("{name} has format version {found}, this program knows up to {known}: use a newer version of the program")]
    NewerFormat {
        /// The object.
        name: String,
        /// Its version.
        found: u16,
        /// The newest version known.
        known: u16,
    },
    /// The checkpoint asked for is not retained.
    #[error("checkpoint {checkpoint} is not retained, only {retained:?}: start from one of these or from the latest")]
    NoSuchCheckpoint {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Those that are, oldest first.
        retained: Vec<CheckpointId>,
    },
    /// The store did not answer usably, after several tries.
    #[error("could not use {name}: {reason}")]
    Storage {
        /// The object.
        name: String,
        /// What the store said last.
        reason: String,
    },
}

impl OpenError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BelowPublished { .. } => "LOG0001",
            Self::AnotherJob { .. } => "LOG0002",
            Self::Corrupt { .. } => "LOG0003",
            Self::NewerFormat { .. } => "LOG0004",
            Self::NoSuchCheckpoint { .. } => "LOG0005",
            Self::Storage { .. } => "LOG0006",
        }
    }
}

/// Why a checkpoint, or a request for one, came to nothing. The job goes on and can still restore the one before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AbortReason {
    /// A newer one completed first. Flink: `CHECKPOINT_SUBSUMED`, not counted.
    #[error("checkpoint {by} completed first")]
    Subsumed {
        /// The newer one.
        by: CheckpointId,
    },
    /// The job was claimed anew while it was in flight, to settle the fate of a record. Not counted.
    #[error("the job was claimed anew meanwhile: epoch {epoch}")]
    NewReign {
        /// The new reign.
        epoch: Epoch,
    },
    /// Not all acknowledgements came in time. Flink: `CHECKPOINT_EXPIRED`, counted.
    #[error("{missing} of {total} acknowledgements missing at the timeout, first of {first}")]
    Expired {
        /// How many were missing.
        missing: u32,
        /// How many there should have been.
        total: u32,
        /// The first subtask whose was missing.
        first: SubtaskId,
    },
    /// A subtask gave it up. Flink: `CHECKPOINT_DECLINED` and its kin, some counted, some not.
    #[error("{subtask} declined: {reason}")]
    Declined {
        /// The subtask.
        subtask: SubtaskId,
        /// What it said, cut at 4096 bytes.
        reason: String,
        /// Whether it counts as a failure.
        counted: bool,
    },
    /// Its record could not be written. Flink: `FINALIZE_CHECKPOINT_FAILURE`, counted.
    #[error("its record could not be written: {reason}")]
    Finalize {
        /// What the store said.
        reason: String,
    },
    /// The attempt ended. Flink: `JOB_FAILOVER_REGION`, not counted.
    #[error("the attempt ended")]
    JobFailover,
    /// The job ends. Flink: `CHECKPOINT_COORDINATOR_SHUTDOWN`, not counted.
    #[error("the job ends")]
    Shutdown,
    /// Another coordinator has taken over. Not counted.
    #[error("another coordinator has taken over: epoch {by}")]
    Superseded {
        /// Its reign, or the lowest that it can be.
        by: Epoch,
    },
    /// The log turned out to be unusable. Not counted, the job must stop.
    #[error("the log can't be used any more")]
    LogUnusable,
    /// The sources are being ended, and it may have been cut when some had ended and others not. Not counted.
    #[error("the job is being drained: the last checkpoint comes")]
    Draining,
    /// Some subtask has not started or has finished already. Flink: `NOT_ALL_REQUIRED_TASKS_RUNNING`, not counted.
    #[error("not all subtasks run")]
    NotAllRequiredTasksRunning,
    /// A subtask finished for good without an acknowledgement. Flink: `CHECKPOINT_DECLINED_TASK_CLOSING`, not counted.
    #[error("{subtask} finished before it had acknowledged")]
    TaskClosing {
        /// The subtask.
        subtask: SubtaskId,
    },
    /// Data ended, and checkpoints after that are off. Flink: `CHECKPOINT_DECLINED_INPUT_END_OF_STREAM`, not counted.
    #[error("{subtask} reached the end of its data, and checkpoints after that are off")]
    InputEndOfStream {
        /// The subtask.
        subtask: SubtaskId,
    },
    /// Too many requests wait. Flink: `TOO_MANY_CHECKPOINT_REQUESTS`, not counted.
    #[error("{waiting} requests wait already: ask again later")]
    TooManyRequests {
        /// How many.
        waiting: u32,
    },
    /// Checkpoints are off.
    #[error("checkpoints are off: enable them to take one")]
    Disabled,
    /// A job can't be drained into a last checkpoint if there is none.
    #[error(
        "checkpoints after the end of data are off, so there is no last one: switch on \
         execution.checkpointing.checkpoints-after-tasks-finish, or stop without draining"
    )]
    NoLastCheckpoint,
}

impl AbortReason {
    /// Whether it counts towards [`crate::Settings::tolerable_failures`]. Source: Flink's `CheckpointFailureManager`.
    #[must_use]
    pub fn counts(&self) -> bool {
        match self {
            Self::Expired { .. } | Self::Finalize { .. } => true,
            Self::Declined { counted, .. } => *counted,
            Self::Subsumed { .. }
            | Self::NewReign { .. }
            | Self::JobFailover
            | Self::Shutdown
            | Self::Superseded { .. }
            | Self::LogUnusable
            | Self::Draining
            | Self::NotAllRequiredTasksRunning
            | Self::TaskClosing { .. }
            | Self::InputEndOfStream { .. }
            | Self::TooManyRequests { .. }
            | Self::Disabled
            | Self::NoLastCheckpoint => false,
        }
    }
}

/// Why the attempt should fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// More failures in a row than are tolerated.
    #[error("checkpoint {checkpoint} failed, the {failures}. in a row, {tolerable} are tolerated")]
    TooManyFailures {
        /// The checkpoint that failed last.
        checkpoint: CheckpointId,
        /// How many failed in a row.
        failures: u32,
        /// How many are tolerated.
        tolerable: u32,
        /// Why the last one failed.
        source: AbortReason,
    },
}
