//! The snapshot file of one subtask, format versions 1 and 2: `docs/format.md` has it byte by byte.
//!
//! [`SnapshotEncoder`] turns a header and blocks into bytes, [`SnapshotReader`] reads any [`ReadAt`] back. Neither
//! touches a disk. Every byte is under a checksum, and the reader checks each length before it makes room for it: a file
//! that was truncated or changed is a [`StateError`], whatever was done to it.

mod encoder;
mod layout;
mod native;
mod reader;

use std::io;

use cutwater_core::{CheckpointId, KeyGroupRange};
use serde::{Deserialize, Serialize};

pub use self::encoder::{FramedBlock, SnapshotEncoder};
pub use self::layout::{FULL_VERSION, VERSION};
pub use self::native::{NativeFile, NativeIndex, NativeState};
pub use self::reader::SnapshotReader;
use crate::{BlockKind, StateError, StateHeader};

/// How keys become hashes and so key groups in every file of version 1.
pub const KEY_HASH: &str = "xxh3-64/v1";

/// Where a snapshot is read from: a file, an object of a store, bytes in memory.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// If they can't be read; [`io::ErrorKind::UnexpectedEof`] if there are not so many.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let bytes = from.and_then(|from| from.get(..buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// What a snapshot file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// Name of the job.
    pub job: String,
    /// Name of the task, such as the uids of its operators.
    pub task: String,
    /// Which subtask of the task.
    pub subtask: u32,
    /// How many subtasks the task had.
    pub parallelism: u32,
    /// The checkpoint that the snapshot is a part of.
    pub checkpoint: CheckpointId,
    /// The checkpoint whose snapshot of this subtask it builds on: it holds what has changed since that one, or since an
    /// earlier one whose file comes before this one. `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CheckpointId>,
    /// The states, at most 65,536; a block names its own by its place here.
    pub states: Vec<StateHeader>,
}

impl SnapshotHeader {
    /// Whether the file of this header may come after that of `before` (`None`: be the first) among the files that a checkpoint
    /// names for one subtask: the first holds everything, each other one builds on those before it.
    ///
    /// # Errors
    ///
    /// [`StateError::Damaged`] if not.
    pub fn check_follows(&self, before: Option<&Self>) -> Result<(), StateError> {
        let wrong = |reason: String| Err(layout::damaged("header", 0, &reason));
        match (before, self.base) {
            (None, None) => Ok(()),
            (None, Some(base)) => wrong(format!("it builds on checkpoint {base}, of which there is no file before it")),
            (Some(before), None) => {
                wrong(format!("it holds everything, and is to build on checkpoint {}", before.checkpoint))
            }
            (Some(before), Some(base)) => {
                let same =
                    (&before.job, before.subtask, before.parallelism) == (&self.job, self.subtask, self.parallelism);
                if same && before.checkpoint <= base && base < self.checkpoint {
                    return Ok(());
                }
                let (before, own) = (before.checkpoint, self.checkpoint);
                wrong(format!("it is of checkpoint {own} and builds on {base}, the file before it is of {before}"))
            }
        }
    }
}

/// Whether and how blocks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are: as fast as the disk. A local disk gains nothing from more.
    #[default]
    None,
    /// Zstandard at this level, 1 (some 350 MB/s a core) to 22, negative for the faster ones. Blocks that it does not
    /// make smaller are stored as they are. For stores that are slower than that or cost by the byte.
    Zstd(i32),
}

/// One block in the index of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// The place of its state in [`SnapshotHeader::states`].
    pub state: u16,
    /// What its entries are.
    pub kind: BlockKind,
    /// The key groups in it.
    pub groups: KeyGroupRange,
    /// How many entries.
    pub entries: u32,
    /// Where its frame begins in the file.
    pub offset: u64,
    /// The length of its frame in bytes.
    pub length: u32,
}

#[cfg(test)]
mod tests;
