use std::fmt;

use cutwater_barrier::Violation;
use cutwater_core::SubtaskId;
use cutwater_dataflow::exec::{OperatorStateError, Origin};
use cutwater_dataflow::{NonRecoverable, UserError};
use cutwater_state::StateError;

/// Why a subtask failed, and where.
#[derive(Debug)]
pub struct TaskError {
    /// The subtask.
    pub subtask: SubtaskId,
    /// The operator whose code ran: its uid, or its name if it has none.
    pub operator: String,
    /// The source records that were being processed.
    pub position: Option<Origin>,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong in a subtask.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// User code or a connector returned an error.
    #[error("{0}")]
    User(UserError),
    /// User code panicked.
    #[error("panic: {message}{}", .at.as_deref().map(|at| format!(" (at {at})")).unwrap_or_default())]
    Panic {
        /// What it said.
        message: String,
        /// File and line.
        at: Option<String>,
    },
    /// Operator state of the checkpoint does not fit the job or is damaged: a later attempt would find the same.
    #[error("{0}")]
    Restore(Box<OperatorStateError>),
    /// State could not be encoded for a snapshot.
    #[error(transparent)]
    State(#[from] StateError),
    /// An element came that can't come: a bug of ours or of a peer.
    #[error(transparent)]
    Protocol(Box<Violation>),
}

impl From<Violation> for Cause {
    fn from(violation: Violation) -> Self {
        Self::Protocol(Box::new(violation))
    }
}

impl Cause {
    /// What building the operators came to.
    pub(crate) fn of_build(error: UserError) -> Self {
        error.downcast().map_or_else(Self::User, Self::Restore)
    }
}

impl TaskError {
    /// Whether the restart strategy should not be asked.
    #[must_use]
    pub fn is_non_recoverable(&self) -> bool {
        match &self.cause {
            Cause::User(error) => NonRecoverable::is(&**error),
            Cause::Restore(_) => true,
            Cause::Panic { .. } | Cause::State(_) | Cause::Protocol(_) => false,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator {}, subtask {}", self.operator, self.subtask.index)?;
        match self.position {
            Some(Origin { first, last, .. }) if first == last => write!(f, ", source record {first}")?,
            Some(Origin { first, last, .. }) => write!(f, ", source records {first} to {last}")?,
            None => {}
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::User(error) => error.source(),
            Cause::Panic { .. } => None,
            Cause::Restore(error) => error.source(),
            Cause::State(error) => error.source(),
            Cause::Protocol(error) => error.source(),
        }
    }
}
