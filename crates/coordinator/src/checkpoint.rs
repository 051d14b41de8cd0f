use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{Attempt, CheckpointId, Epoch, MaxParallelism, OperatorUid, SubtaskId, TaskId};
use serde::{Deserialize, Serialize};

use crate::codec::{bounded, bytes, nanos};

/// A checkpoint of the job, as its record in the log says. It exists if and only if the record does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CompletedCheckpoint {
    /// The reign in which it was recorded.
    pub epoch: Epoch,
    /// The run of the graph it is of.
    pub attempt: Attempt,
    /// Its number. Completed checkpoints of one log have rising numbers; with the epoch it is unique for ever.
    pub checkpoint: CheckpointId,
    /// The slot of the log that holds it.
    pub slot: u64,
    /// The job.
    pub job: String,
    /// The number of key groups by which keyed state is stored.
    pub max_parallelism: MaxParallelism,
    /// The wall clock when all acknowledgements were in, in ms since 1970-01-01 UTC; 0 if the coordinator was never told
    /// the time. For display only.
    pub completed_at_unix_ms: u64,
    /// From the start until all acknowledgements were in.
    #[serde(with = "nanos")]
    pub duration: Duration,
    /// Whether it was cut at the end of all data.
    pub last: Last,
    /// The checkpoint of another folder from which this line of checkpoints began, if it did.
    pub origin: Option<Origin>,
    /// What each task stored, by task.
    #[serde(deserialize_with = "bounded::<_, _, 65536>")]
    pub tasks: Vec<TaskSnapshot>,
}

/// Whether a checkpoint was cut at the end of all data. (The encoding is that of a flag, which it was before jobs could be
/// drained.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Last {
    /// There was more to read.
    #[default]
    No,
    /// All data had been read: nothing comes after it.
    Finished,
    /// The sources had been ended wherever they stood: whoever starts from it has nothing left to read either.
    Drained,
}

impl CompletedCheckpoint {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.last != Last::No
    }

    /// Whether sources had been ended for it: see [`Last::Drained`].
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.last == Last::Drained
    }

    /// All files it consists of.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.tasks.iter().flat_map(|task| &task.subtasks).flat_map(|subtask| &subtask.files)
    }

    /// Those that are objects of the store: all but the small ones that the record holds.
    pub fn stored_files(&self) -> impl Iterator<Item = &FileRef> {
        let subtasks = self.tasks.iter().flat_map(|task| &task.subtasks);
        subtasks.flat_map(SubtaskSnapshot::stored_files)
    }

    /// All files, to give them what the record holds.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileRef> {
        self.tasks.iter_mut().flat_map(|task| &mut task.subtasks).flat_map(|subtask| &mut subtask.files)
    }

    /// The bytes of state of all subtasks.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let subtasks = self.tasks.iter().flat_map(|task| &task.subtasks);
        subtasks.fold(0, |sum, subtask| sum.saturating_add(subtask.state_bytes))
    }
}

/// Names a checkpoint of another folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The job it was of.
    pub job: String,
    /// The reign in which it was recorded.
    pub epoch: Epoch,
    /// Its number.
    pub checkpoint: CheckpointId,
}

/// What one task stored in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// The task's place in the graph that ran. Restoring goes by `operators`: places change with the code.
    pub task: TaskId,
    /// The task's name, for display.
    pub name: String,
    /// The operators fused into the task, in order.
    #[serde(deserialize_with = "bounded::<_, _, 65536>")]
    pub operators: Vec<OperatorUid>,
    /// How many subtasks it ran as.
    pub parallelism: u32,
    /// What each subtask stored, by index. Those that had finished for good are missing.
    #[serde(deserialize_with = "bounded::<_, _, 65536>")]
    pub subtasks: Vec<SubtaskSnapshot>,
    /// The indices of the subtasks that had finished for good before the checkpoint.
    #[serde(deserialize_with = "bounded::<_, _, 65536>")]
    pub finished: Vec<u32>,
}

/// One subtask's part of a checkpoint, carried by its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubtaskSnapshot {
    /// The subtask.
    pub subtask: SubtaskId,
    /// The files it wrote for this checkpoint, durable already.
    #[serde(deserialize_with = "bounded::<_, _, 1048576>")]
    pub files: Vec<FileRef>,
    /// What is small enough to live in the record: source positions, watermarks, handles of sinks. Opaque here.
    #[serde(with = "bytes")]
    pub inline: Vec<u8>,
    /// How long each phase took.
    pub phases: Phases,
    /// The bytes of state behind `files` and `inline`, for display.
    pub state_bytes: u64,
}

impl SubtaskSnapshot {
    /// The files that are objects of the store.
    pub fn stored_files(&self) -> impl Iterator<Item = &FileRef> {
        self.files.iter().filter(|file| file.content.is_none())
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name below the job's folder: relative, `/` between the parts, no part empty, `.` or `..`, at most 1024 bytes,
    /// not below `log/` or `boundary/`. No two files of a job may ever have the same name, which holds for
    /// [`snapshot_name`](crate::snapshot_name) and for whatever else contains the barrier's epoch and checkpoint.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// The content, if it is so small that the record holds it. No object has its name then.
    #[serde(skip)]
    pub content: Option<Content>,
}

/// The bytes of a small file. Clones share them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Content(Arc<[u8]>);

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Content> for Arc<[u8]> {
    fn from(content: Content) -> Self {
        content.0
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl FileRef {
    /// A file that is an object of the store.
    #[must_use]
    pub fn stored(name: String, bytes: u64, crc32c: u32) -> Self {
        Self { name, bytes, crc32c, content: None }
    }

    /// A file that the record holds.
    #[must_use]
    pub fn held(name: String, content: Vec<u8>) -> Self {
        let (bytes, crc32c) = (content.len() as u64, crc32c::crc32c(&content));
        Self { name, bytes, crc32c, content: Some(content.into()) }
    }

    /// Whether the name keeps the rules above, so that reading or deleting it stays within the job's folder.
    #[must_use]
    pub fn has_safe_name(&self) -> bool {
        let name = self.name.as_str();
        let part_is_safe = |part: &str| !part.is_empty() && part != "." && part != "..";
        let mut parts = name.split('/');
        let first = parts.next().unwrap_or_default();
        name.len() <= 1024
            && !name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
            && !first.eq_ignore_ascii_case("log")
            && !first.eq_ignore_ascii_case("boundary")
            && part_is_safe(first)
            && parts.all(part_is_safe)
    }
}

/// How long the phases of one subtask's snapshot took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Phases {
    /// From the trigger until the first barrier came.
    #[serde(with = "nanos")]
    pub start_delay: Duration,
    /// From the first barrier until the last.
    #[serde(with = "nanos")]
    pub alignment: Duration,
    /// While the subtask stood still.
    #[serde(with = "nanos")]
    pub sync: Duration,
    /// Sweeping and uploading beside the processing.
    #[serde(with = "nanos")]
    pub asynchronous: Duration,
}
