use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{CheckpointId, OperatorUid};
use cutwater_task::TaskSnapshot;

/// A job has gone back to an older checkpoint, since the one it should have started from is damaged: what was in between is
/// processed again, and output of that which was published is published once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FellBack {
    /// The checkpoint that is damaged.
    pub bad: CheckpointId,
    /// What is wrong with it: the file, and how.
    pub reason: String,
    /// The checkpoint that is restored in its place.
    pub restored: CheckpointId,
    /// How much earlier that completed, by the wall clock; zero if it is not known.
    pub older_by: Duration,
    /// What is read again of each source, by uid. A source whose records are not known is missing.
    pub replayed: Vec<Replayed>,
}

/// What is read again of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The source.
    pub operator: OperatorUid,
    /// How many records it had yielded at the older checkpoint, over all attempts and splits. Those after it come again.
    pub after: u64,
    /// How many it had yielded at the damaged one: the last record that comes again.
    pub to: u64,
}

impl FellBack {
    pub(crate) fn new(bad: &CompletedCheckpoint, older: &CompletedCheckpoint, reason: String) -> Self {
        let (before, after) = (records(older), records(bad));
        let one = |(operator, to): (OperatorUid, u64)| {
            let after = before.get(&operator).copied().unwrap_or(0);
            Replayed { operator, after, to }
        };
        let at = [bad.completed_at_unix_ms, older.completed_at_unix_ms];
        let known = at.iter().all(|at| *at > 0);
        Self {
            bad: bad.checkpoint,
            reason,
            restored: older.checkpoint,
            older_by: Duration::from_millis(if known { at[0].saturating_sub(at[1]) } else { 0 }),
            replayed: after.into_iter().map(one).collect(),
        }
    }
}

/// How many records each source had yielded.
fn records(checkpoint: &CompletedCheckpoint) -> BTreeMap<OperatorUid, u64> {
    let mut sources = BTreeMap::new();
    let subtasks = checkpoint.tasks.iter().flat_map(|task| &task.subtasks);
    for part in subtasks.filter_map(|it| TaskSnapshot::decode(&it.inline).ok()).flat_map(|inline| inline.operators) {
        if let Some(records) = part.records_read() {
            let sum: &mut u64 = sources.entry(part.operator).or_default();
            *sum = sum.saturating_add(records);
        }
    }
    sources
}

impl fmt::Display for FellBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bad, reason, restored, older_by, replayed } = self;
        write!(f, "checkpoint {bad} is damaged ({reason}): checkpoint {restored} is restored in its place")?;
        if !older_by.is_zero() {
            write!(f, ", which is {older_by:?} older")?;
        }
        f.write_str("; what came between is processed again, and its output may appear twice")?;
        for (at, Replayed { operator, after, to }) in replayed.iter().enumerate() {
            let start = if at == 0 { ": " } else { ", " };
            write!(f, "{start}{operator} from record {} to {to}", after.saturating_add(1))?;
        }
        Ok(())
    }
}
