use cutwater_coordinator::CompletedCheckpoint;
use cutwater_dataflow::exec::{OperatorSnapshot, SnapshotKind};
use cutwater_task::{SnapshotError, TaskSnapshot};

/// The handles of prepared output that a checkpoint names, in the order in which they are published.
///
/// # Errors
///
/// [`SnapshotError`] if the part of a subtask can't be read. Then none of its output is known.
pub fn prepared_output(checkpoint: &CompletedCheckpoint) -> Result<Vec<OperatorSnapshot>, SnapshotError> {
    Inline::of(checkpoint).map(|inline| inline.handles)
}

/// What the parts of the subtasks in a checkpoint's record hold.
#[derive(Debug, Default)]
pub(crate) struct Inline {
    /// Of prepared output, in the order in which they are published.
    pub(crate) handles: Vec<OperatorSnapshot>,
    /// Where all sources stand: bytes that differ if and only if any stands elsewhere.
    pub(crate) positions: Vec<u8>,
}

impl Inline {
    pub(crate) fn of(checkpoint: &CompletedCheckpoint) -> Result<Self, SnapshotError> {
        let mut inline = Self::default();
        for subtask in checkpoint.tasks.iter().flat_map(|task| &task.subtasks) {
            for part in TaskSnapshot::decode(&subtask.inline)?.operators {
                match part.kind {
                    SnapshotKind::PreparedOutput => inline.handles.push(part),
                    SnapshotKind::SourceSplits => inline.positions.extend(part.payload),
                    SnapshotKind::OperatorState => {}
                }
            }
        }
        Ok(inline)
    }
}
