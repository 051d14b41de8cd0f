use cutwater_core::OperatorUid;
use cutwater_dataflow::TaskSpec;
use cutwater_dataflow::exec::{ClaimedStates, OperatorSnapshot, OperatorStateError, SnapshotKind};
use cutwater_state::OperatorStatePart;

/// An operator state that a checkpoint has items of and its operator no longer declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedState {
    /// The operator.
    pub operator: OperatorUid,
    /// The state.
    pub state: String,
    /// Its kind, such as `union-list`.
    pub kind: &'static str,
}

/// What the checkpoint has of the task's operators and nobody has claimed, each once.
pub(crate) fn dropped_states(
    spec: &TaskSpec,
    restored: &[OperatorSnapshot],
    claimed: &ClaimedStates,
) -> Result<Vec<DroppedState>, OperatorStateError> {
    let mut dropped = Vec::new();
    for part in restored.iter().filter(|part| part.kind == SnapshotKind::OperatorState) {
        let operator = part.operator.clone();
        if !spec.uids().any(|uid| *uid == operator) {
            continue; // it runs in another task now
        }
        let stored = OperatorStatePart::decode(&part.payload)
            .map_err(|source| OperatorStateError::Part { operator: operator.clone(), source })?;
        let state = stored.header.name;
        if stored.entries == 0 || claimed.has(&operator, &state) {
            continue;
        }
        let found = DroppedState { operator, state, kind: stored.header.kind.name() };
        if !dropped.contains(&found) {
            dropped.push(found);
        }
    }
    Ok(dropped)
}
