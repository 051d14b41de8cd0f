//! Whether a snapshot holds everything, or what has changed since another one.

use cutwater_core::CheckpointId;
use cutwater_state::{Cut, Snapshotable};

/// How far snapshots go that hold only what has changed since another. Chains of them are files that a restore has to read,
/// and a checkpoint to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeltaLimits {
    /// So many of them follow a full snapshot at the most; the next one is compacted: it holds what has changed since the
    /// full one, instead of them. Default 16.
    pub longest: u32,
    /// So much of the full snapshot's bytes, in percent, they have together at the most; else the next snapshot is a full one.
    /// Default 20, so that a restore takes hardly longer. What the next one will have is estimated from how many entries have
    /// changed.
    pub percent: u32,
}

impl Default for DeltaLimits {
    fn default() -> Self {
        Self { longest: 16, percent: 20 }
    }
}

/// The snapshot that a subtask is restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredBase {
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
    /// The bytes of each file that it consists of, in the order in which they are restored: first the full one, then those
    /// that build on it.
    pub files: Vec<u64>,
}

/// What a snapshot builds on: the files of another of the same subtask, which its own follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The checkpoint of the other.
    pub checkpoint: CheckpointId,
    /// Only the first file of the other is built on, the full snapshot; the others are superseded by this one.
    pub only_full: bool,
}

/// Snapshots that are remembered although their checkpoints have not completed.
const REMEMBERED: usize = 64;

/// The snapshots of a subtask that others may build on.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    limits: DeltaLimits,
    taken: Vec<Taken>,
}

/// A snapshot with the chain of which it is the end.
#[derive(Clone, Copy, Debug)]
struct Taken {
    checkpoint: CheckpointId,
    cut: Cut,
    /// The cut of the full snapshot, if it was of this attempt.
    full_cut: Option<Cut>,
    full_bytes: u64,
    deltas: u32,
    delta_bytes: u64,
}

/// What a snapshot that is being swept will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// What it builds on; `None`: it is a full one.
    pub(crate) base: Option<Base>,
    /// Since when it holds what has changed.
    pub(crate) since: Option<Cut>,
    before: Option<Taken>,
}

impl Planned {
    /// A full snapshot.
    pub(crate) const FULL: Self = Self { base: None, since: None, before: None };
}

impl Chains {
    /// What was restored may be built on.
    pub(crate) fn new(limits: DeltaLimits, restored: Option<&RestoredBase>) -> Self {
        let taken = restored.filter(|restored| !restored.files.is_empty()).map(|restored| Taken {
            checkpoint: restored.checkpoint,
            cut: Cut::RESTORED,
            full_cut: (restored.files.len() == 1).then_some(Cut::RESTORED),
            full_bytes: restored.files[0],
            deltas: u32::try_from(restored.files.len() - 1).unwrap_or(u32::MAX),
            delta_bytes: restored.files[1..].iter().sum(),
        });
        Self { limits, taken: taken.into_iter().collect() }
    }

    /// What the next snapshot is to be, if the barrier names this `base`; what is not needed any more is forgotten.
    pub(crate) fn plan(&mut self, base: Option<CheckpointId>, states: &mut [&mut dyn Snapshotable]) -> Planned {
        let full = Planned::FULL;
        let Some(base) = base else { return full };
        self.taken.retain(|taken| taken.checkpoint >= base);
        let Some(before) = self.taken.first().copied().filter(|taken| taken.checkpoint == base) else { return full };
        for state in &mut *states {
            state.forget(before.full_cut.unwrap_or(before.cut));
        }
        let compact = before.deltas >= self.limits.longest;
        let (since, kept) = match (compact, before.full_cut) {
            (false, _) => (before.cut, before.delta_bytes),
            (true, Some(cut)) => (cut, 0),
            (true, None) => return full,
        };
        let changed: Option<u64> = states.iter().map(|state| state.changed_since(since)).sum();
        let entries: u64 = states.iter().map(|state| state.len()).sum();
        let Some(changed) = changed.filter(|_| before.full_bytes > 0) else { return full };
        let bytes = u128::from(before.full_bytes) * u128::from(changed) / u128::from(entries.max(1));
        if (u128::from(kept) + bytes) * 100 > u128::from(before.full_bytes) * u128::from(self.limits.percent) {
            return full;
        }
        let base = Base { checkpoint: base, only_full: compact };
        Planned { base: Some(base), since: Some(since), before: Some(before) }
    }

    /// The snapshot of `checkpoint`, cut at `cut`, has been swept, with so many bytes.
    pub(crate) fn taken(&mut self, checkpoint: CheckpointId, cut: Cut, planned: &Planned, bytes: u64) {
        let taken = match planned.before {
            None => Taken { checkpoint, cut, full_cut: Some(cut), full_bytes: bytes, deltas: 0, delta_bytes: 0 },
            Some(before) => {
                let compacted = planned.base.is_some_and(|base| base.only_full);
                let (deltas, delta_bytes) = if compacted { (0, 0) } else { (before.deltas, before.delta_bytes) };
                let deltas = deltas.saturating_add(u32::from(bytes > 0)); // without a change there is no file
                Taken { checkpoint, cut, deltas, delta_bytes: delta_bytes + bytes, ..before }
            }
        };
        self.taken.push(taken);
        if self.taken.len() > REMEMBERED {
            self.taken.remove(1); // the first one may be the base
        }
    }
}

#[cfg(test)]
mod tests;
