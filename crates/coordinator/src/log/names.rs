//! Names of the objects of a job: those of the log, where twenty digits hold any `u64`, so that names sort as numbers do,
//! and those of snapshot files.

use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, SubtaskId, TaskId};

/// How many slots a boundary moves by.
pub(crate) const SLOTS_PER_BOUNDARY: u64 = 1024;

/// The object of a slot.
pub(crate) fn slot(slot: u64) -> String {
    format!("log/{slot:020}")
}

/// The object that says: slots below `k` times [`SLOTS_PER_BOUNDARY`] may be gone.
pub(crate) fn boundary(k: u64) -> String {
    format!("boundary/{k:020}")
}

/// What all names of snapshot files begin with. There is no folder for each checkpoint, since folders stay when files are
/// deleted.
pub(crate) const SNAPSHOTS: &str = "chk/";

/// The name of the file that holds a subtask's snapshot for a checkpoint, below the job's folder.
///
/// Unique for ever, since epoch and checkpoint together are never used twice, and told apart from all other names by the
/// coordinator: what an earlier process left behind without a record that names it is deleted at the next start. Files
/// with names of another shape are never deleted unless a checkpoint named them.
///
/// ```
/// use cutwater_coordinator::snapshot_name;
/// use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, SubtaskId, TaskId};
///
/// let barrier = Barrier { epoch: Epoch(3), attempt: Attempt(2), checkpoint: CheckpointId(17), base: None };
/// let name = snapshot_name(barrier, SubtaskId { task: TaskId(1), index: 4 });
/// assert_eq!(name, "chk/0000000003-0000000017-0001-00004-000002.snap");
/// ```
#[must_use]
pub fn snapshot_name(barrier: Barrier, subtask: SubtaskId) -> String {
    let Barrier { epoch: Epoch(epoch), attempt: Attempt(attempt), checkpoint: CheckpointId(checkpoint), base: _ } =
        barrier;
    let SubtaskId { task: TaskId(task), index } = subtask;
    format!("{SNAPSHOTS}{epoch:010}-{checkpoint:010}-{task:04}-{index:05}-{attempt:06}.snap")
}

/// The checkpoint in a name made by [`snapshot_name`]; `None` for any other name.
#[must_use]
pub fn checkpoint_of_snapshot(name: &str) -> Option<CheckpointId> {
    epoch_of_snapshot(name)?;
    name.split('-').nth(1)?.parse().ok().map(CheckpointId)
}

/// The epoch in a name made by [`snapshot_name`]; `None` for any other name.
pub(crate) fn epoch_of_snapshot(name: &str) -> Option<Epoch> {
    let mut numbers = name.strip_prefix(SNAPSHOTS)?.strip_suffix(".snap")?.split('-');
    let epoch = Epoch(numbers.next()?.parse().ok()?);
    let checkpoint = CheckpointId(numbers.next()?.parse().ok()?);
    let subtask = SubtaskId { task: TaskId(numbers.next()?.parse().ok()?), index: numbers.next()?.parse().ok()? };
    let attempt = Attempt(numbers.next()?.parse().ok()?);
    // Written back, since numbers can be spelled in other ways.
    (snapshot_name(Barrier { epoch, attempt, checkpoint, base: None }, subtask) == name).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_snapshots_have_an_epoch() {
        let barrier =
            |epoch| Barrier { epoch: Epoch(epoch), attempt: Attempt(3), checkpoint: CheckpointId(9), base: None };
        let subtask = SubtaskId { task: TaskId(2), index: 70_000 };
        for epoch in [1, 9_999_999_999, 10_000_000_000, u64::MAX] {
            assert_eq!(epoch_of_snapshot(&snapshot_name(barrier(epoch), subtask)), Some(Epoch(epoch)), "{epoch}");
        }
        let cases = [
            ("nothing", ""),
            ("the folder", "chk/"),
            ("another folder", "old/0000000001-0000000009-0002-00000-000003.snap"),
            ("below another folder", "x/chk/0000000001-0000000009-0002-00000-000003.snap"),
            ("statistics beside it", "statistics/00000000000000000001-00000000000000000009.json"),
            ("another kind", "chk/0000000001-0000000009-0002-00000-000003.tmp"),
            ("something behind it", "chk/0000000001-0000000009-0002-00000-000003.snap.bak"),
            ("too few zeros", "chk/1-9-2-0-3.snap"),
            ("a sign", "chk/+000000001-0000000009-0002-00000-000003.snap"),
            ("a number too few", "chk/0000000001-0000000009-0002-00000.snap"),
            ("a number too many", "chk/0000000001-0000000009-0002-00000-000003-000001.snap"),
            ("too large a number", "chk/99999999999999999999-0000000009-0002-00000-000003.snap"),
        ];
        for (name, object) in cases {
            assert_eq!(epoch_of_snapshot(object), None, "{name}");
        }
    }
}
