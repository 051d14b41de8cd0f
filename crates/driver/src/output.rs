use cutwater_coordinator::CompletedCheckpoint;
use cutwater_dataflow::exec::{OperatorSnapshot, SnapshotKind};
use cutwater_task::{SnapshotError, TaskSnapshot};

/// The handles of prepared output that a checkpoint names, in the order in which they are published.
///
/// # Errors
///
/// [`SnapshotError`] if the part of a subtask can't be read. Then none of its output is known.
pub fn prepared_output(checkpoint: &CompletedCheckpoint) -> Result<Vec<OperatorSnapshot>, SnapshotError> {
    let mut handles = Vec::new();
    for subtask in checkpoint.tasks.iter().flat_map(|task| &task.subtasks) {
        let parts = TaskSnapshot::decode(&subtask.inline)?.operators.into_iter();
        handles.extend(parts.filter(|part| part.kind == SnapshotKind::PreparedOutput));
    }
    Ok(handles)
}
