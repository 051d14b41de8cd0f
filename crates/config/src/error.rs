use std::fmt;
use std::path::PathBuf;

use crate::Origin;

/// Why a configuration can't be used. Nothing is half applied: with an error there is no [`Resolved`](crate::Resolved).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or can't be read.
    #[error("configuration file {}: can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any configuration has reason to be.
    #[error("configuration file {}: longer than {limit} bytes, is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The file is not YAML 1.2, not a mapping, or nested too deep.
    #[error("configuration file {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the reader stumbled over, with its line where it is known.
        message: String,
    },
    /// The same key twice in one file, be it once flat and once nested.
    #[error("configuration file {}: `{key}` is set twice, in lines {first_line} and {line}, keep one", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The key, flat.
        key: String,
        /// Where it stands first.
        first_line: u64,
        /// Where it stands again.
        line: u64,
    },
    /// A key in one of our families, or nearly one of ours, that does not exist.
    #[error("{origin}: there is no key `{key}`{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// As written.
        key: String,
        /// Where it was found.
        origin: Origin,
        /// The known key with the nearest spelling, if one is near.
        nearest: Option<String>,
    },
    /// A value that is not of the key's type or out of its range.
    #[error("{origin}: `{key}`{} is `{value}`, {accepted}", today(*new))]
    Invalid {
        /// The key as written, perhaps an old name.
        key: String,
        /// The name of today, if `key` is an old one.
        new: Option<&'static str>,
        /// As written.
        value: String,
        /// Where it was found.
        origin: Origin,
        /// What is accepted, or what is wrong with the value.
        accepted: String,
    },
    /// A feature of Flink that Cutwater does not have yet. Going on without it would not be what was asked for.
    #[error("{origin}: `{key}: {value}`{} is not built yet, {accepted}", today(*new))]
    NotBuilt {
        /// The key as written, perhaps an old name.
        key: String,
        /// The name of today, if `key` is an old one.
        new: Option<&'static str>,
        /// As written.
        value: String,
        /// Where it was found.
        origin: Origin,
        /// What can be had instead.
        accepted: String,
    },
    /// Two values that are fine alone and not together.
    #[error("{0}")]
    Conflict(Box<Conflict>),
}

impl ConfigError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "CFG0001",
            Self::TooLarge { .. } => "CFG0002",
            Self::Syntax { .. } => "CFG0003",
            Self::Duplicate { .. } => "CFG0004",
            Self::UnknownKey { .. } => "CFG0005",
            Self::Invalid { .. } => "CFG0006",
            Self::NotBuilt { .. } => "CFG0007",
            Self::Conflict(_) => "CFG0008",
        }
    }
}

/// Two values that contradict each other; either may be a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// One key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where that was found.
    pub origin: Origin,
    /// The other key.
    pub other_key: &'static str,
    /// Its value.
    pub other_value: String,
    /// Where that was found.
    pub other_origin: Origin,
    /// What must hold.
    pub rule: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, other_key, other_value, other_origin, rule } = self;
        write!(f, "{origin}: `{key}` is `{value}`, but `{other_key}` is `{other_value}` ({other_origin}): {rule}")
    }
}

fn today(new: Option<&str>) -> String {
    new.map_or_else(String::new, |name| format!(" (now `{name}`)"))
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| ", remove it".to_owned(), |key| format!(", did you mean `{key}`?"))
}
