use std::ffi::OsStr;

use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid};
use cutwater_dataflow::SinkContext;
use serde::{Deserialize, Serialize};

use super::job_tag;
use crate::FileError;

/// Names of files not yet published: `.<uid>-<subtask>-<epoch>-<attempt>-<number>.<job>.tmp`. They tell whose they are,
/// so that each job sweeps its own leftovers only.
pub(super) struct TempNames {
    uid: String,
    tail: String,
}

impl TempNames {
    pub(super) fn new(job: &str, operator: &OperatorUid) -> Self {
        Self { uid: format!(".{operator}"), tail: format!(".{}.tmp", job_tag(job)) }
    }

    /// The `number`th file of the attempt.
    pub(super) fn name(&self, context: &SinkContext, number: u64) -> String {
        let SinkContext { subtask, epoch, attempt, .. } = context;
        format!("{}-{subtask}-{epoch}-{attempt}-{number}{}", self.uid, self.tail)
    }

    /// The run that made the file of this name, if it is one of this job and sink.
    pub(super) fn run_of(&self, name: &OsStr) -> Option<(Epoch, Attempt)> {
        let name = name.to_str()?.strip_suffix(&self.tail)?.strip_prefix(&self.uid)?.strip_prefix('-')?;
        // A uid may hold '-' and digits: exactly four numbers are left after this one, or it is another's.
        let numbers = name.split('-').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
        match numbers[..] {
            [_, epoch, attempt, _] => Some((Epoch(epoch), Attempt(u32::try_from(attempt).ok()?))),
            _ => None,
        }
    }
}

/// The beginning that the names of all files published by one subtask in one attempt share.
pub(super) struct FinalPrefix {
    of_sink: String,
    of_attempt: String,
}

impl FinalPrefix {
    pub(super) fn new(prefix: &str, context: &SinkContext) -> Self {
        let SinkContext { operator, subtask, epoch, attempt, .. } = context;
        let of_sink = format!("{prefix}{operator}-");
        Self { of_attempt: format!("{of_sink}{subtask}-{epoch}-{attempt}-"), of_sink }
    }

    pub(super) fn name(&self, checkpoint: CheckpointId, extension: &str) -> String {
        let dot = if extension.is_empty() { "" } else { "." };
        format!("{}{checkpoint}{dot}{extension}", self.of_attempt)
    }

    /// Whether a file of this name may be one that this attempt publishes.
    pub(super) fn is_of_attempt(&self, name: &OsStr) -> bool {
        numbers_after(&self.of_attempt, name) == Some(1)
    }

    /// Whether a file of this name is one of this sink, of whatever subtask and attempt.
    pub(super) fn is_of_sink(&self, name: &OsStr) -> bool {
        numbers_after(&self.of_sink, name) == Some(4)
    }
}

/// How many numbers, joined by `-`, stand between the prefix and the extension; `None` if anything else does.
fn numbers_after(prefix: &str, name: &OsStr) -> Option<usize> {
    let rest = name.to_str()?.strip_prefix(prefix)?.split('.').next()?;
    let numbers = rest.split('-').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
    Some(numbers.len())
}

/// What it takes to publish a file. The names are relative to the folder, so that it can be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    pub(super) temporary: String,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
    pub(super) job: String,
    pub(super) uid: OperatorUid,
}

/// Of the encoding: the first byte.
const VERSION: u8 = 1;

impl Handle {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("strings and numbers have an encoding")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        let bad = |reason: String| FileError::BadHandle { reason };
        let Some((&VERSION, bytes)) = bytes.split_first() else {
            let version = bytes.first().map_or("none".to_owned(), u8::to_string);
            return Err(bad(format!("its version is {version}, this release knows {VERSION}")));
        };
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((handle, [])) if handle.is_safe() => Ok(handle),
            Ok((_, [])) => Err(bad("it names a file outside the output folder".to_owned())),
            Ok(_) => Err(bad("there are bytes after its end".to_owned())),
            Err(error) => Err(bad(error.to_string())),
        }
    }

    /// Both names stay in the folder and are of the right kind, whatever the checkpoint says.
    fn is_safe(&self) -> bool {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']);
        plain(&self.temporary)
            && self.temporary.starts_with('.')
            && self.temporary.ends_with(".tmp")
            && plain(&self.name)
            && !self.name.starts_with('.')
    }
}
