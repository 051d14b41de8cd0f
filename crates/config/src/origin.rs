use std::fmt;
use std::path::PathBuf;

/// The levels a setting can come from, weakest first: a value of a higher level replaces one of a lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nobody said anything.
    Default,
    /// `cutwater.yaml`, `config.yaml` or `flink-conf.yaml`.
    File,
    /// The program, by [`Settings`](crate::Settings).
    Code,
    /// A variable `CUTWATER_...` of the environment.
    Environment,
    /// The command line.
    Flag,
}

/// Where a value was found, so that an error can say where to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File {
        /// Its path, as it was given.
        path: PathBuf,
        /// The line of the key, from 1.
        line: u64,
    },
    /// The program.
    Code,
    /// The environment.
    Environment {
        /// The variable, `CUTWATER_...`.
        variable: String,
    },
    /// The command line.
    Flag,
}

impl Origin {
    /// The level this place belongs to.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Default => Level::Default,
            Self::File { .. } => Level::File,
            Self::Code => Level::Code,
            Self::Environment { .. } => Level::Environment,
            Self::Flag => Level::Flag,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Code => f.write_str("set by the program"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}
