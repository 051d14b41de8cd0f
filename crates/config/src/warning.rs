use std::fmt;
use std::path::PathBuf;

use crate::Origin;

/// Something in a configuration that its author should know and that stops nobody. `Display` gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An old spelling was read.
    Deprecated {
        /// As written.
        key: String,
        /// The name to use.
        new: &'static str,
        /// Where it was found.
        origin: Origin,
    },
    /// A key was not read, since another one is stronger.
    Overruled {
        /// As written.
        key: String,
        /// The stronger key.
        by: &'static str,
        /// Where it was found.
        origin: Origin,
    },
    /// The key has no meaning in Cutwater; it was passed over.
    NoMeaning {
        /// As written.
        key: String,
        /// Where it was found.
        origin: Origin,
    },
    /// An option of the restart strategy was not read: the options come from the level that sets the type.
    StrategyOptionIgnored {
        /// As written.
        key: String,
        /// Where it was found.
        origin: Origin,
        /// Where the type was set; `None` if nowhere.
        type_origin: Option<Origin>,
    },
    /// A value was moved to the nearest one that can be.
    Adjusted {
        /// The key.
        key: &'static str,
        /// Where it was found.
        origin: Origin,
        /// To what, and why.
        how: &'static str,
    },
    /// A line of `flink-conf.yaml` is not `key: value`; it was passed over.
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deprecated { key, new, origin } => write!(f, "{origin}: `{key}` is an old name, use `{new}`"),
            Self::Overruled { key, by, origin } => write!(f, "{origin}: `{key}` is not read, `{by}` is set too"),
            Self::NoMeaning { key, origin } => write!(f, "{origin}: `{key}` has no meaning here and is not read"),
            Self::StrategyOptionIgnored { key, origin, type_origin: None } => {
                write!(f, "{origin}: `{key}` is not read, `restart-strategy.type` is not set")
            }
            Self::StrategyOptionIgnored { key, origin, type_origin: Some(by) } => {
                write!(f, "{origin}: `{key}` is not read, `restart-strategy.type` is set elsewhere ({by})")
            }
            Self::Adjusted { key, origin, how } => write!(f, "{origin}: `{key}` {how}"),
            Self::BadLine { path, line } => {
                write!(f, "{}, line {line}: not `key: value`, the line is not read", path.display())
            }
        }
    }
}
