//! Names of the objects of a job: those of the log, where twenty digits hold any `u64`, so that names sort as numbers do,
//! and those of snapshot files.

use std::fmt;

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
/// use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, SnapshotForm, SubtaskId, TaskId};
///
/// let (epoch, attempt, checkpoint) = (Epoch(3), Attempt(2), CheckpointId(17));
/// let barrier = Barrier { epoch, attempt, checkpoint, base: None, form: SnapshotForm::Configured };
/// let name = snapshot_name(barrier, SubtaskId { task: TaskId(1), index: 4 });
/// assert_eq!(name, "chk/0000000003-0000000017-0001-00004-000002.snap");
/// ```
#[must_use]
pub fn snapshot_name(barrier: Barrier, subtask: SubtaskId) -> String {
    FileName::new(barrier, subtask, None).to_string()
}

/// The name of a file of a subtask's snapshot that is stored in the backend's own form. Number 0 is the one that says what
/// the others are.
///
/// As unique as [`snapshot_name`], and deleted under the same rules. Later checkpoints may name the same file.
///
/// ```
/// use cutwater_coordinator::{native_number, native_name};
/// use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, SnapshotForm, SubtaskId, TaskId};
///
/// let (epoch, attempt, checkpoint) = (Epoch(3), Attempt(2), CheckpointId(17));
/// let barrier = Barrier { epoch, attempt, checkpoint, base: None, form: SnapshotForm::Native };
/// let name = native_name(barrier, SubtaskId { task: TaskId(1), index: 4 }, 12);
/// assert_eq!(name, "chk/0000000003-0000000017-0001-00004-000002-000012.native");
/// assert_eq!(native_number(&name), Some(12));
/// ```
#[must_use]
pub fn native_name(barrier: Barrier, subtask: SubtaskId, number: u32) -> String {
    FileName::new(barrier, subtask, Some(number)).to_string()
}

/// The number in a name made by [`native_name`]; `None` for any other name.
#[must_use]
pub fn native_number(name: &str) -> Option<u32> {
    FileName::parse(name)?.native
}

/// The checkpoint in a name made by [`snapshot_name`] or [`native_name`]; `None` for any other name.
#[must_use]
pub fn checkpoint_of_snapshot(name: &str) -> Option<CheckpointId> {
    FileName::parse(name).map(|name| name.checkpoint)
}

/// The epoch in such a name; `None` for any other name.
pub(crate) fn epoch_of_snapshot(name: &str) -> Option<Epoch> {
    FileName::parse(name).map(|name| name.epoch)
}

/// What is in the name of a file.
struct FileName {
    epoch: Epoch,
    checkpoint: CheckpointId,
    subtask: SubtaskId,
    attempt: Attempt,
    /// Its number, if it is one of the backend's own.
    native: Option<u32>,
}

const SNAP: &str = ".snap";
const NATIVE: &str = ".native";

impl FileName {
    fn new(barrier: Barrier, subtask: SubtaskId, native: Option<u32>) -> Self {
        let Barrier { epoch, attempt, checkpoint, base: _, form: _ } = barrier;
        Self { epoch, checkpoint, subtask, attempt, native }
    }

    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(SNAPSHOTS)?;
        let (numbers, is_native) = match rest.strip_suffix(NATIVE) {
            Some(numbers) => (numbers, true),
            None => (rest.strip_suffix(SNAP)?, false),
        };
        let mut numbers = numbers.split('-');
        let epoch = Epoch(numbers.next()?.parse().ok()?);
        let checkpoint = CheckpointId(numbers.next()?.parse().ok()?);
        let subtask = SubtaskId { task: TaskId(numbers.next()?.parse().ok()?), index: numbers.next()?.parse().ok()? };
        let attempt = Attempt(numbers.next()?.parse().ok()?);
        let native = if is_native { Some(numbers.next()?.parse().ok()?) } else { None };
        let parsed = Self { epoch, checkpoint, subtask, attempt, native };
        // Written back, since numbers can be spelled in other ways.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch: Epoch(epoch), checkpoint: CheckpointId(checkpoint), subtask, attempt, native } = self;
        let (SubtaskId { task: TaskId(task), index }, Attempt(attempt)) = (subtask, attempt);
        write!(f, "{SNAPSHOTS}{epoch:010}-{checkpoint:010}-{task:04}-{index:05}-{attempt:06}")?;
        match native {
            None => f.write_str(SNAP),
            Some(number) => write!(f, "-{number:06}{NATIVE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use cutwater_core::SnapshotForm;

    use super::*;

    #[test]
    fn only_names_of_native_files_have_a_number() {
        let barrier = Barrier {
            epoch: Epoch(1),
            attempt: Attempt(3),
            checkpoint: CheckpointId(9),
            base: Some(CheckpointId(8)),
            form: SnapshotForm::Native,
        };
        let subtask = SubtaskId { task: TaskId(2), index: 70_000 };
        for number in [0, 1, 999_999, 1_000_000, u32::MAX] {
            let name = native_name(barrier, subtask, number);
            assert_eq!(native_number(&name), Some(number), "{name}");
            assert_eq!(epoch_of_snapshot(&name), Some(Epoch(1)), "{name}");
            assert_eq!(checkpoint_of_snapshot(&name), Some(CheckpointId(9)), "{name}");
        }
        let plain = snapshot_name(barrier, subtask);
        let others = [
            plain.as_str(),
            "chk/0000000001-0000000009-0002-00000-000003.native",
            "chk/0000000001-0000000009-0002-00000-000003-000001.snap",
            "chk/0000000001-0000000009-0002-00000-000003-1.native",
        ];
        for name in others {
            assert_eq!(native_number(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_names_of_snapshots_have_an_epoch() {
        let barrier = |epoch| Barrier {
            epoch: Epoch(epoch),
            attempt: Attempt(3),
            checkpoint: CheckpointId(9),
            base: None,
            form: SnapshotForm::Configured,
        };
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
