//! The codes of errors, in one place. docs/errors.md has the cause of each and what to do.

use cutwater_restart::GiveUp;

use crate::error::{Failure, JobError, RestoreError};
use crate::open::OpenCheckpointError;
use crate::place::OptionsError;
use crate::savepoint::{CopyError, SavepointError};
use crate::statistics::StatisticsError;

impl JobError {
    /// The code of this kind of error, or of the one behind it, under which docs/errors.md says what to do. It never changes
    /// its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed { gave_up: GiveUp::NoProgress { .. }, .. } => "JOB0008",
            Self::Failed { source, .. } => source.code(),
            Self::Store { source, .. } => source.code(),
            Self::Open { source, .. } => source.code(),
            Self::Log { source, .. } => source.code(),
            Self::Superseded { .. } => "JOB0005",
            Self::Options { .. } => "JOB0006",
            Self::Driver { .. } => "JOB0007",
            Self::Backend { .. } => "JOB0009",
        }
    }
}

impl Failure {
    /// The code of this kind of error, or of the one behind it, under which docs/errors.md says what to do. It never changes
    /// its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Task(_) => "JOB0001",
            Self::Checkpoints(_) => "JOB0002",
            Self::Restore { source, .. } => source.code(),
            Self::Commit { .. } => "JOB0003",
            Self::Host(_) => "JOB0004",
        }
    }
}

impl RestoreError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unclaimed { .. } => "RST0001",
            Self::MaxParallelism { .. } => "RST0002",
            Self::Parallelism { .. } => "RST0003",
            Self::Missing { .. } => "RST0004",
            Self::Store(_) => "RST0005",
            Self::File { .. } => "RST0006",
            Self::Inline(_) => "RST0007",
            Self::Name(_) => "RST0008",
            Self::UnknownState { .. } => "RST0009",
            Self::OperatorState(_) => "RST0010",
            Self::Backend { .. } => "RST0011",
        }
    }
}

impl SavepointError {
    /// The code of this kind of error, or of the one behind it, under which docs/errors.md says what to do. It never changes
    /// its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoFolder => "SVP0001",
            Self::Location(error) => error.code(),
            Self::NotTaken(_) => "SVP0002",
            Self::NotCopied { source, .. } => source.code(),
            Self::NotStopped { .. } => "SVP0003",
            Self::Stopping => "SVP0004",
            Self::Ended => "SVP0005",
        }
    }
}

impl CopyError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "SVP0006",
            Self::Damaged { .. } => "SVP0007",
            Self::Name(_) => "SVP0008",
            Self::Store(_) => "SVP0009",
            Self::Create { .. } => "SVP0010",
            Self::Savepoint { .. } => "SVP0011",
        }
    }
}

impl OptionsError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Scheme { .. } => "OPT0001",
            Self::Unresolved { .. } => "OPT0002",
            Self::Feature { .. } => "OPT0003",
            Self::Key { .. } => "OPT0004",
            Self::Backend { .. } => "OPT0005",
            #[cfg(feature = "object-store")]
            Self::ObjectStore { source, .. } => source.code(),
        }
    }
}

impl OpenCheckpointError {
    /// The code of this kind of error, or of the one behind it, under which docs/errors.md says what to do. It never changes
    /// its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Location(error) => error.code(),
            Self::NoLog { .. } => "OPN0001",
            Self::SeveralJobs { .. } => "OPN0002",
            Self::NoCheckpoint { .. } => "OPN0003",
            Self::Log { source, .. } => source.code(),
            Self::Savepoint(source) => source.code(),
            Self::Part { .. } => "OPN0004",
            Self::Name { .. } => "OPN0005",
            Self::Store(_) => "OPN0006",
        }
    }
}

impl StatisticsError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "STA0001",
            Self::NewerFormat { .. } => "STA0002",
            Self::Store(_) => "STA0003",
        }
    }
}
