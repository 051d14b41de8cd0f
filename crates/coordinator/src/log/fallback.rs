//! Checkpoints to fall back to when the newest can't be restored.

use std::collections::{BTreeMap, BTreeSet};

use super::Log;
use crate::CompletedCheckpoint;

/// The retained checkpoints other than the newest, if the job may fall back to them; and those that turned out to be bad.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Older {
    wanted: bool,                             // else nothing is remembered: a record may be large
    kept: BTreeMap<u64, CompletedCheckpoint>, // by slot
    bad: BTreeSet<u64>,                       // their slots
}

impl Older {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// The slots of those that can't be restored.
    pub(super) fn bad(&self) -> &BTreeSet<u64> {
        &self.bad
    }

    /// Takes over what the log says. `retained` are the slots of those that the newest keeps.
    pub(super) fn begin(&mut self, others: &BTreeMap<u64, CompletedCheckpoint>, retained: &[u64]) {
        if self.wanted {
            let kept = retained.iter().filter_map(|slot| Some((*slot, others.get(slot)?.clone())));
            self.kept = kept.collect();
        }
    }

    /// A checkpoint has completed, which keeps those of these slots. `before` was the newest until now.
    pub(super) fn completed(&mut self, before: Option<Box<CompletedCheckpoint>>, retained: &[u64]) {
        if self.wanted {
            self.kept.extend(before.map(|before| (before.slot, *before)));
            self.kept.retain(|slot, _| retained.contains(slot));
            self.bad.retain(|slot| retained.contains(slot));
        }
    }
}

impl Log {
    /// The next older retained checkpoint that is not known to be bad; `None` if there is none, if falling back is not
    /// wanted, or if the given one is none of this log.
    pub(crate) fn older_than(&self, checkpoint: &CompletedCheckpoint) -> Option<&CompletedCheckpoint> {
        let Older { wanted, kept, bad } = &self.older;
        let is_ours = [self.latest(), kept.get(&checkpoint.slot)].contains(&Some(checkpoint));
        let below = kept.range(..checkpoint.slot).rev();
        below.map(|(_, older)| older).find(|older| *wanted && is_ours && !bad.contains(&older.slot))
    }

    /// The checkpoint can't be restored: no later one keeps it.
    pub(crate) fn mark_bad(&mut self, checkpoint: &CompletedCheckpoint) {
        self.older.bad.insert(checkpoint.slot);
    }
}
