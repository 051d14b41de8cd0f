use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

numeric_id! {
    /// Number of a checkpoint (or savepoint) of one job. Starts at 1, only ever rises, is never used twice; failed
    /// checkpoints use numbers up as well.
    CheckpointId(u64), ""
}
numeric_id! {
    /// One reign of a coordinator of one job. Starts at 1; whoever claims a later one fences the earlier.
    Epoch(u64), ""
}
numeric_id! {
    /// One run of the graph between two restarts, within an epoch. Starts at 1.
    Attempt(u32), ""
}
numeric_id! {
    /// A task: a chain of operators that run fused. Its place in the `JobGraph`, from 0.
    TaskId(u32), "task "
}
numeric_id! {
    /// All channels between two tasks. Its place in the `JobGraph`, from 0.
    EdgeId(u32), "edge "
}
numeric_id! {
    /// An input channel of one subtask: FIFO from one sending subtask. Numbered from 0 within the subtask.
    ChannelId(u32), "channel "
}

impl CheckpointId {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The reign that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Attempt {
    /// The run that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One parallel instance of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskId {
    /// The task.
    pub task: TaskId,
    /// Which instance, in `0..parallelism`.
    pub index: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.task, self.index)
    }
}

/// The name under which the user knows an operator, and under which its state is found again: in checkpoints, after a
/// change of code, on another machine.
///
/// 1 to 200 characters of letters, digits, `-`, `_` and `.`, the first a letter or digit: it becomes part of file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperatorUid(Arc<str>);

impl OperatorUid {
    /// Checks and takes the name.
    ///
    /// # Errors
    ///
    /// [`InvalidUid`] if the name is empty, too long, or holds a character that a file name should not.
    pub fn new(name: &str) -> Result<Self, InvalidUid> {
        let valid = (1..=200).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if valid { Ok(Self(name.into())) } else { Err(InvalidUid { name: name.chars().take(250).collect() }) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OperatorUid {
    type Error = InvalidUid;

    fn try_from(name: String) -> Result<Self, InvalidUid> {
        Self::new(&name)
    }
}

impl From<OperatorUid> for String {
    fn from(uid: OperatorUid) -> String {
        uid.as_str().to_owned()
    }
}

/// A name that can't be the uid of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidUid {
    /// The name as given, cut at 250 characters.
    pub name: String,
}

impl fmt::Display for InvalidUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} can't name an operator: use 1 to 200 letters, digits, '-', '_' or '.', beginning with a letter or digit",
            self.name
        )
    }
}

impl std::error::Error for InvalidUid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_safe_file_name() {
        for good in ["routes", "daily-lines", "a.b_c", "7days"] {
            assert_eq!(OperatorUid::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".hidden", "a/b", "..", "a b", "ä", &"x".repeat(201)] {
            assert!(OperatorUid::new(bad).is_err(), "{bad:?}");
        }
    }
}
