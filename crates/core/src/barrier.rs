use serde::{Deserialize, Serialize};

use crate::{Attempt, CheckpointId, Epoch};

/// The in-band marker of a checkpoint: everything before it on a channel belongs to the checkpoint, nothing after.
///
/// `base` is the newest checkpoint that a delta may build on. It travels in the barrier, since a task that heard late
/// of a completion would otherwise build on files that are already deleted.
///
/// Source: Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows", 2015.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Barrier {
    /// The reign of the coordinator that asked for the checkpoint.
    pub epoch: Epoch,
    /// The run of the graph that the checkpoint is of.
    pub attempt: Attempt,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The completed checkpoint that deltas may build on, if there is one.
    pub base: Option<CheckpointId>,
    /// In which form subtasks store their state.
    pub form: SnapshotForm,
}

/// In which form the state of a snapshot is stored.
///
/// Source: Flink's savepoint formats, CANONICAL and NATIVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SnapshotForm {
    /// As the settings of the job say for its checkpoints.
    #[default]
    Configured,
    /// In the one that every backend reads.
    Canonical,
    /// In the backend's own files, where it has such: quick to make and to restore, by that backend alone.
    Native,
}
