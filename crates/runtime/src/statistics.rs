//! What became of checkpoints: a bounded history, for the status of a job and beside its checkpoints.

use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, FileRef, SubtaskSnapshot, checkpoint_of_snapshot};
use cutwater_core::{Attempt, CheckpointId, Epoch, SubtaskId};
use serde::{Deserialize, Serialize};

mod history;
mod keeping;
mod object;
mod summary;

pub use history::{CheckpointCounts, CheckpointHistory};
pub(crate) use keeping::{Keeping, Step};
pub(crate) use object::{FOLDER, encode, position_of, statistics_name};
pub use object::{StatisticsError, StoredStatistics, is_statistics_name, read_statistics};
pub use summary::{CheckpointStatisticsSummary, Distribution};

/// The longest text of a failure that is kept, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// A checkpoint that has come to its end, completed or failed. Source of the words: Flink's checkpoint statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatistics {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// The reign in which it began.
    pub epoch: Epoch,
    /// The run of the graph it was of.
    pub attempt: Attempt,
    /// What it was for.
    pub kind: CheckpointKind,
    /// How it ended.
    pub status: CheckpointStatus,
    /// Why it failed, if it did, with the causes in one line, cut at 4096 bytes.
    pub failure: Option<String>,
    /// When it began, in ms since 1970-01-01 UTC.
    pub triggered_at_unix_ms: u64,
    /// From its start until all acknowledgements were in, or until it was given up. Flink's end-to-end duration.
    #[serde(rename = "duration_ns", with = "nanos")]
    pub duration: Duration,
    /// Bytes written for it. Flink's checkpointed size. Of a failed one those of the parts that were acknowledged.
    pub written_bytes: u64,
    /// Bytes of state it holds, whoever wrote them. Flink's full size.
    pub full_bytes: u64,
    /// Bytes of its record in the log; `None` if it failed. Flink's metadata size.
    pub metadata_bytes: Option<u64>,
    /// How many files it consists of, its record not counted.
    pub files: u64,
    /// How many subtasks took part. Of a failed one some may not be among `subtasks`.
    pub total_subtasks: u32,
    /// What each subtask told of its part, in order.
    pub subtasks: Vec<SubtaskStatistics>,
}

/// What a checkpoint was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointKind {
    /// To recover from failures.
    Checkpoint,
    /// To be copied as a savepoint as well, whether or not the job stopped behind it.
    Savepoint,
    /// The one at the end of all data.
    Last,
}

/// How a checkpoint ended. The names are Flink's; one in flight is in no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// Its record is in the log. It may have been subsumed since.
    Completed,
    /// It was given up.
    Failed,
}

/// One subtask's part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskStatistics {
    /// The subtask.
    pub subtask: SubtaskId,
    /// The name of its task.
    pub task: String,
    /// From the trigger until its first barrier came.
    #[serde(rename = "start_delay_ns", with = "nanos")]
    pub start_delay: Duration,
    /// From the first barrier until the last.
    #[serde(rename = "alignment_ns", with = "nanos")]
    pub alignment: Duration,
    /// While it stood still.
    #[serde(rename = "sync_ns", with = "nanos")]
    pub sync: Duration,
    /// Sweeping and uploading beside the processing.
    #[serde(rename = "async_ns", with = "nanos")]
    pub asynchronous: Duration,
    /// Bytes that it wrote.
    pub written_bytes: u64,
    /// Bytes of state that its part holds.
    pub full_bytes: u64,
    /// How many files its part consists of.
    pub files: u64,
}

impl CheckpointKind {
    /// The word for it: `checkpoint`, `savepoint` or `last`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Savepoint => "savepoint",
            Self::Last => "last",
        }
    }
}

impl CheckpointStatus {
    /// The word for it: `completed` or `failed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl SubtaskStatistics {
    /// Its part of this checkpoint. Files of earlier ones, which it builds on, were not written for it.
    pub(crate) fn of(task: &str, checkpoint: CheckpointId, snapshot: &SubtaskSnapshot) -> Self {
        let phases = snapshot.phases;
        Self {
            subtask: snapshot.subtask,
            task: task.to_owned(),
            start_delay: phases.start_delay,
            alignment: phases.alignment,
            sync: phases.sync,
            asynchronous: phases.asynchronous,
            written_bytes: written_bytes(checkpoint, snapshot),
            full_bytes: snapshot.state_bytes,
            files: snapshot.files.len() as u64,
        }
    }

    /// Those of a completed checkpoint.
    pub(crate) fn all_of(checkpoint: &CompletedCheckpoint) -> Vec<Self> {
        let (id, tasks) = (checkpoint.checkpoint, checkpoint.tasks.iter());
        tasks.flat_map(|task| task.subtasks.iter().map(|subtask| Self::of(&task.name, id, subtask))).collect()
    }
}

/// The bytes that a subtask wrote for this checkpoint: without files of earlier ones, which it builds on.
pub(crate) fn written_bytes(checkpoint: CheckpointId, snapshot: &SubtaskSnapshot) -> u64 {
    let is_own = |file: &&FileRef| checkpoint_of_snapshot(&file.name).is_none_or(|of| of == checkpoint);
    let files = snapshot.files.iter().filter(is_own).fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    files.saturating_add(snapshot.inline.len() as u64)
}

impl CheckpointStatistics {
    /// With the parts of the subtasks and the sums over them.
    pub(crate) fn with_subtasks(self, subtasks: Vec<SubtaskStatistics>) -> Self {
        let sum = |of: fn(&SubtaskStatistics) -> u64| subtasks.iter().map(of).fold(0, u64::saturating_add);
        Self {
            written_bytes: sum(|subtask| subtask.written_bytes),
            full_bytes: sum(|subtask| subtask.full_bytes),
            files: sum(|subtask| subtask.files),
            subtasks,
            ..self
        }
    }
}

/// At most [`MAX_TEXT`] bytes of a text that somebody else wrote.
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// A duration as nanoseconds in a `u64` (584 years; longer ones are cut).
mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use cutwater_coordinator::{Phases, snapshot_name};
    use cutwater_core::{Barrier, SnapshotForm, TaskId};

    use super::*;

    #[test]
    fn what_a_snapshot_builds_on_was_not_written_for_it() {
        let subtask = SubtaskId { task: TaskId(1), index: 0 };
        let file = |checkpoint, bytes| {
            let (epoch, attempt, checkpoint) = (Epoch(2), Attempt(1), CheckpointId(checkpoint));
            let name = snapshot_name(
                Barrier { epoch, attempt, checkpoint, base: None, form: SnapshotForm::Configured },
                subtask,
            );
            FileRef::stored(name, bytes, 0)
        };
        let cases = [
            ("whole", vec![file(7, 100)], 103),
            ("a delta", vec![file(5, 1_000), file(6, 20), file(7, 9)], 12),
            ("nothing has changed", vec![file(5, 1_000)], 3),
            ("a name of somebody else's", vec![FileRef { name: "blob".to_owned(), ..file(7, 50) }], 53),
        ];
        for (name, files, written) in cases {
            let (inline, phases, count) = (vec![0; 3], Phases::default(), files.len() as u64);
            let snapshot = SubtaskSnapshot { subtask, files, inline, phases, state_bytes: 4_444 };
            let told = SubtaskStatistics::of("counts", CheckpointId(7), &snapshot);
            assert_eq!((told.written_bytes, told.full_bytes, told.files), (written, 4_444, count), "{name}");
        }
    }
}
