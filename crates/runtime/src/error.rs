use std::fmt;
use std::sync::Arc;

use cutwater_coordinator::{CheckpointError, OpenError};
use cutwater_core::{CheckpointId, Epoch, MaxParallelism, OperatorUid};
use cutwater_dataflow::exec::OperatorStateError;
use cutwater_restart::{FailureSite, GiveUp, SourceRange};
use cutwater_state::{ColdError, StateError};
use cutwater_storage::{InvalidName, ProbeError, StoreError};
use cutwater_task::{Cause, TaskError};

use crate::host::HostError;
use crate::open::OpenCheckpointError;
use crate::upload::chain;

/// Why an attempt of a job failed. The restart strategy decides what follows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A subtask failed: user code, a connector, or state that can't be encoded.
    #[error(transparent)]
    Task(TaskError),
    /// Too many checkpoints failed.
    #[error(transparent)]
    Checkpoints(CheckpointError),
    /// What the checkpoint holds could not be restored.
    #[error("could not restore checkpoint {checkpoint}")]
    Restore {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        source: RestoreError,
    },
    /// Prepared output could not be published.
    #[error("output of {operator}, prepared for checkpoint {checkpoint}, could not be published: {reason}")]
    Commit {
        /// The sink.
        operator: OperatorUid,
        /// The checkpoint; 0 for a job without checkpoints.
        checkpoint: CheckpointId,
        /// What the sink said.
        reason: String,
        /// Whether it is lost for good.
        lost: bool,
    },
    /// A worker thread failed in our own code.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Failure {
    /// Whether no restart can mend it, so that the strategy is not asked.
    #[must_use]
    pub fn is_non_recoverable(&self) -> bool {
        match self {
            Self::Task(error) => error.is_non_recoverable(),
            Self::Checkpoints(_) | Self::Host(_) => false,
            Self::Restore { source, .. } => source.is_non_recoverable(),
            Self::Commit { lost, .. } => *lost,
        }
    }

    /// Whether the checkpoint is damaged, so that an older one may be restored in its place: a file is missing, cut, or not
    /// as it was written. Not if the store does not answer, or the checkpoint does not fit the job.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Restore { source, .. } => source.is_damage(),
            Self::Task(_) | Self::Checkpoints(_) | Self::Commit { .. } | Self::Host(_) => false,
        }
    }

    /// What makes this failure the same as another: operator, class of the error, source record. Known of failures of
    /// subtasks.
    pub(crate) fn site(&self) -> Option<FailureSite> {
        let Self::Task(TaskError { subtask: _, operator, position, cause }) = self else { return None };
        let class = match cause {
            Cause::Panic { message, at } => format!("panic at {}", at.as_ref().unwrap_or(message)),
            // All that is known of an error of somebody else is what it says.
            Cause::User(error) => error.to_string(),
            Cause::State(_) => "state that can't be encoded".to_owned(),
            Cause::Protocol(_) => "an element that can't come".to_owned(),
            Cause::Restore(_) | _ => cause.to_string(),
        };
        let position = position.map(|at| SourceRange { source: at.source.to_string(), first: at.first, last: at.last });
        Some(FailureSite { operator: operator.clone(), class, position })
    }
}

/// What a checkpoint holds of an operator that the job lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnclaimedState {
    /// The operator.
    pub operator: OperatorUid,
    /// How many bytes of keyed and operator state, as stored; `None` if that can't be read. Positions and handles don't count.
    pub bytes: Option<u64>,
}

fn listed(operators: &[UnclaimedState]) -> String {
    let one = |state: &UnclaimedState| match state.bytes {
        Some(bytes) => format!("{} ({bytes} bytes)", state.operator),
        None => format!("{} (of unknown size)", state.operator),
    };
    operators.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Why the parts of a checkpoint could not be restored. Nothing was changed: the checkpoint is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The checkpoint has operators that the job lacks: their state would be dropped. Source: Flink refuses it too.
    #[error(
        "it holds state of {}, which the job has not: give the operators their uids back, or allow by name that they are \
         dropped (Options::ignore_unclaimed, execution.state-recovery.ignore-unclaimed-state)",
        listed(operators)
    )]
    Unclaimed {
        /// The operators, in order.
        operators: Vec<UnclaimedState>,
    },
    /// The checkpoint has entries of a state, by key or without, that its operator no longer declares: they would be dropped.
    #[error("it holds the {kind} state {state} of {operator}, which the operator no longer declares: declare it again")]
    UnknownState {
        /// The operator.
        operator: OperatorUid,
        /// The state.
        state: String,
        /// Its kind, such as `map`.
        kind: &'static str,
    },
    /// The number of key groups differs.
    #[error("it has {found} key groups, the job asks for {asked}: leave pipeline.max-parallelism unset or at {found}")]
    MaxParallelism {
        /// That of the checkpoint.
        found: u32,
        /// That of the job.
        asked: u32,
    },
    /// More subtasks than key groups.
    #[error("parallelism {asked} is above the {max} key groups of the checkpoint")]
    Parallelism {
        /// What was asked for.
        asked: u32,
        /// The key groups.
        max: u32,
    },
    /// A file of the checkpoint is not there.
    #[error("{url}/{name} is missing: use another checkpoint, or bring the file back")]
    Missing {
        /// The store.
        url: String,
        /// The file.
        name: String,
    },
    /// A file can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file's content is not what it should be.
    #[error("{url}/{name}{}", advice(source))]
    File {
        /// The store.
        url: String,
        /// The file.
        name: String,
        /// What is wrong.
        source: StateError,
    },
    /// The part of a subtask in the checkpoint's record can't be read.
    #[error(transparent)]
    Inline(#[from] cutwater_task::SnapshotError),
    /// Operator state in the checkpoint's record is of another kind or type than the job's, or damaged.
    #[error(transparent)]
    OperatorState(Box<OperatorStateError>),
    /// The checkpoint holds files of another backend than the job's.
    #[error(
        "it holds files in the form of the backend {found}, and this job keeps its state in {own}: start it with          state.backend.type: {found}, or from a canonical savepoint, which every backend reads"
    )]
    Backend {
        /// The one that wrote it.
        found: String,
        /// That of the job.
        own: String,
    },
    /// A name in the checkpoint's record leads outside its folder.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// What to do about a file that is not what was written.
fn advice(source: &StateError) -> &'static str {
    if is_damage(source) { " is not what was written: use another checkpoint, or bring the file back" } else { "" }
}

fn is_damage(source: &StateError) -> bool {
    matches!(source, StateError::Damaged { .. } | StateError::NotASnapshot)
}

impl RestoreError {
    fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::File { source, .. } => is_damage(source),
            Self::Unclaimed { .. }
            | Self::UnknownState { .. }
            | Self::MaxParallelism { .. }
            | Self::Parallelism { .. }
            | Self::Backend { .. }
            | Self::OperatorState(_)
            | Self::Store(_)
            | Self::Inline(_)
            | Self::Name(_) => false,
        }
    }

    fn is_non_recoverable(&self) -> bool {
        match self {
            Self::Store(error) => !error.retry_may_help(),
            Self::File { source, .. } => !source.is_retryable(),
            Self::Unclaimed { .. }
            | Self::UnknownState { .. }
            | Self::MaxParallelism { .. }
            | Self::Parallelism { .. }
            | Self::Backend { .. }
            | Self::Missing { .. }
            | Self::Inline(_)
            | Self::OperatorState(_)
            | Self::Name(_) => true,
        }
    }
}

/// Why a job ended without being finished or cancelled.
///
/// Its `Debug` is the text of it and of its causes with the code, in one line, since that is what a `main` prints which returns
/// it.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// An attempt failed and the restart strategy gave up. The same command resumes from the newest checkpoint, if
    /// there is one.
    #[error("job {job} failed after {restarts} restarts: {gave_up}")]
    Failed {
        /// The job.
        job: String,
        /// How often it was restarted.
        restarts: u32,
        /// Why it is not restarted again.
        gave_up: GiveUp,
        /// The last failure.
        source: Arc<Failure>,
    },
    /// The checkpoint folder can't be used.
    #[error("job {job} has not started")]
    Store {
        /// The job.
        job: String,
        /// Why.
        source: Arc<ProbeError>,
    },
    /// The state backend can't be used.
    #[error("job {job} has not started: the state backend {backend} can't be used")]
    Backend {
        /// The job.
        job: String,
        /// Its name in the configuration.
        backend: &'static str,
        /// Why.
        source: Arc<ColdError>,
    },
    /// There is no checkpoint where the job should start.
    #[error("job {job} has not started")]
    Open {
        /// The job.
        job: String,
        /// Why.
        source: Arc<OpenCheckpointError>,
    },
    /// The commit log refuses the start.
    #[error("job {job} has not started: {url}")]
    Log {
        /// The job.
        job: String,
        /// Where the log is.
        url: String,
        /// Why.
        source: OpenError,
    },
    /// Another process runs the job now.
    #[error("job {job} was superseded by epoch {by}: another process has taken it over, and this one has stopped")]
    Superseded {
        /// The job.
        job: String,
        /// The other's reign.
        by: Epoch,
    },
    /// The options contradict each other or the graph.
    #[error("job {job}: {reason}")]
    Options {
        /// The job.
        job: String,
        /// What is wrong, and what to change.
        reason: String,
    },
    /// The driver thread is gone: a bug of ours.
    #[error("job {job}: its driver has ended without a result")]
    Driver {
        /// The job.
        job: String,
    },
}

pub(crate) fn check_parallelism(asked: u32, max: MaxParallelism) -> Result<(), RestoreError> {
    if asked > max.count() {
        return Err(RestoreError::Parallelism { asked, max: max.count() });
    }
    Ok(())
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", chain(self), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_prints_can_be_read() {
        let source = Arc::new(Failure::Restore {
            checkpoint: CheckpointId(7),
            source: RestoreError::Missing { url: "file:///chk".to_owned(), name: "chk/1".to_owned() },
        });
        let gave_up = GiveUp::NonRecoverable;
        let error: Box<dyn std::error::Error> =
            Box::new(JobError::Failed { job: "words".to_owned(), restarts: 0, gave_up, source });
        let printed = format!("{error:?}");
        assert!(printed.starts_with("job words failed after 0 restarts: "), "{printed}");
        assert!(printed.contains("chk/1") && printed.ends_with(" [RST0004]") && !printed.contains('{'), "{printed}");
    }
}
