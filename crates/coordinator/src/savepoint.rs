use cutwater_core::CheckpointId;
use serde::{Deserialize, Serialize};

use crate::log::record::{self, Holder, corrupt};
use crate::{CompletedCheckpoint, OpenError};

/// The name of the object that makes a folder a savepoint, relative to that folder.
pub const SAVEPOINT_NAME: &str = "savepoint";

/// The most bytes that the object has: the limit for reading it.
pub const MAX_SAVEPOINT_BYTES: u64 = record::MAX_BYTES;

/// A copy of a checkpoint in a folder of its own, which is the user's to keep, move and delete.
///
/// The folder holds the stored files of the checkpoint under the names that the checkpoint has for them, and this, encoded, as
/// the object [`SAVEPOINT_NAME`]. All names are relative, so the folder can be copied anywhere; nothing in it refers to
/// anything outside. The object is created last: **a savepoint exists if and only if that object does.**
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Savepoint {
    /// What was copied.
    pub checkpoint: CompletedCheckpoint,
    /// The wall clock when it was made, in ms since 1970-01-01 UTC. For display only.
    pub created_at_unix_ms: u64,
}

impl Holder for Savepoint {
    fn checkpoint(&self) -> Option<&CompletedCheckpoint> {
        Some(&self.checkpoint)
    }

    fn checkpoint_mut(&mut self) -> Option<&mut CompletedCheckpoint> {
        Some(&mut self.checkpoint)
    }
}

impl Savepoint {
    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::encode(record::SAVEPOINT, self)
    }

    /// Reads the object called `name`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Corrupt`] if these are not the bytes of a savepoint: each changed, missing or added byte is found.
    /// [`OpenError::NewerFormat`] if a newer version wrote them.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, OpenError> {
        let savepoint: Self = record::decode_kind(name, bytes, record::SAVEPOINT, "a savepoint")?;
        savepoint.check().map_err(|reason| corrupt(name, reason))?;
        Ok(savepoint)
    }

    fn check(&self) -> Result<(), String> {
        let CheckpointId(id) = self.checkpoint.checkpoint;
        if self.checkpoint.epoch.0 == 0 || self.checkpoint.epoch.0 > record::LARGEST || id > record::LARGEST {
            return Err(format!("epoch {} or checkpoint {id} is out of range", self.checkpoint.epoch));
        }
        // These names are read and deleted later, so none may lead out of the folder, or back to this object.
        let is_safe = |name: &str| !name.eq_ignore_ascii_case(SAVEPOINT_NAME);
        match self.checkpoint.files().find(|file| !file.has_safe_name() || !is_safe(&file.name)) {
            Some(file) => Err(format!("{:?} is not a name of a file of a savepoint", file.name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cutwater_core::{Attempt, Epoch, MaxParallelism, SubtaskId, TaskId};

    use super::*;
    use crate::{FileRef, Last, Phases, SubtaskSnapshot, TaskSnapshot};

    fn savepoint(file: &str) -> Savepoint {
        let files = vec![FileRef::stored(file.to_owned(), 7, 1)];
        let subtask = SubtaskId { task: TaskId(0), index: 0 };
        let inline = vec![1, 2];
        let snapshot = SubtaskSnapshot { subtask, files, inline, phases: Phases::default(), state_bytes: 9 };
        let (task, name, operators) = (TaskId(0), "all".to_owned(), Vec::new());
        let tasks =
            vec![TaskSnapshot { task, name, operators, parallelism: 1, subtasks: vec![snapshot], finished: vec![] }];
        let checkpoint = CompletedCheckpoint {
            epoch: Epoch(3),
            attempt: Attempt(1),
            checkpoint: CheckpointId(4),
            slot: 7,
            job: "daily".to_owned(),
            max_parallelism: MaxParallelism::default(),
            completed_at_unix_ms: 0,
            duration: Duration::ZERO,
            last: Last::No,
            origin: None,
            tasks,
        };
        Savepoint { checkpoint, created_at_unix_ms: 1_700_000_000_000 }
    }

    #[test]
    fn a_savepoint_reads_back_as_written_and_every_damage_is_noticed() {
        let savepoint = savepoint("chk/1");
        let bytes = savepoint.encode();
        assert_eq!(Savepoint::decode(SAVEPOINT_NAME, &bytes), Ok(savepoint));
        let is_corrupt = |bytes: &[u8]| {
            let error = Savepoint::decode(SAVEPOINT_NAME, bytes).unwrap_err();
            matches!(error, OpenError::Corrupt { name, .. } if name == SAVEPOINT_NAME)
        };
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(is_corrupt(&damaged), "byte {at}");
            assert!(is_corrupt(&bytes[..at]), "{at} bytes");
        }
        assert!(is_corrupt(&[bytes.as_slice(), b"x"].concat()));
    }

    #[test]
    fn a_file_that_would_lead_elsewhere_is_refused_under_a_good_checksum() {
        for name in ["../other", "savepoint", "Savepoint", "log/00000000000000000001", "/etc/passwd", ""] {
            let error = Savepoint::decode(SAVEPOINT_NAME, &savepoint(name).encode()).unwrap_err();
            assert!(error.to_string().contains("is not a name of a file"), "{name:?}: {error}");
        }
    }
}
