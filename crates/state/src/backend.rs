use std::fmt;
use std::sync::Arc;

use cutwater_core::{Attempt, Epoch, SubtaskId};

use crate::{Accumulator, ColdError, ColdTier, Data, Key, ListTable, MapTable, StateKind, Table, TableSpec, Timers};

/// What a state backend can do beyond what every backend does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether entries can live in a tier below the table, so that state may be larger than memory.
    pub cold_tier: bool,
    /// Whether that has [images](crate::ColdTier::image), so that checkpoints can share its files.
    pub images: bool,
}

/// Where keyed state lives.
///
/// Operators always work on a [`Table`] or on [`Timers`], whatever the backend; a backend is the *cold tier* below them.
/// The memory backend has none. What a cold tier must do is said at [`ColdTier`].
///
/// The contract, of which `cutwater-state-conformance` has a test for each sentence:
///
/// - A read sees every earlier write of the same subtask, a removed key is gone, and keys do not disturb each other.
/// - A cut fixes what the snapshot holds: the state at the call. Later inserts, changes and removals, before, between
///   and after the steps of the sweep, do not change it.
/// - A cut takes no time that grows with the state.
/// - A second cut comes only after the sweep of the first has ended or was aborted.
/// - A sweep emits its blocks in key-group order, each entry once, and keeps near the budget of each step.
/// - Whoever drives the sweep sees in `undo_bytes` what changes since the cut cost; it is 0 again after the sweep.
/// - An abort leaves the state as it is, and another cut can follow.
/// - A snapshot restores into any parallelism from 1 to the maximum: each key comes to the one subtask that owns it.
/// - A restore during a sweep, of a damaged block or of the same block twice is an error.
/// - Timers fire in the order of (time, encoded key), once, and not before the watermark; deleted ones do not.
/// - A snapshot of timers holds those that were set at the cut.
/// - Timers of processing time do the same, and are told apart from those of event time.
/// - Maps keep their entries by key and user key, in the order of the encoded user keys; to clear one key leaves others.
/// - Lists keep the order in which was appended, and an append does not copy the list.
/// - A snapshot of maps, lists and accumulators is the state at the cut, and restores into any parallelism.
/// - What has expired is left out of snapshots and removed in bounded steps; what was never stamped is not.
/// - A cut may be since another: what it holds makes the snapshot of that one its own, for states of every kind, in any
///   parallelism, whatever changes while it is swept. It takes no time that grows, and holds no more than what has changed
///   and the names of what has gone; its blocks come in key-group order, kind by kind.
/// - It may be since any cut that is not forgotten, swept or aborted, and since what was restored.
/// - What has expired is gone in it, also if the other has it without a stamp.
/// - What is kept of removed entries is bounded: if it grows too large, what changed before is no longer known.
/// - What is declared in [`Self::capabilities`] works, what is not fails cleanly.
pub trait StateBackend: Send + Sync + fmt::Debug {
    /// The name by which the configuration asks for this backend, such as `hashmap`.
    fn name(&self) -> &'static str;

    /// What this backend can do beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Makes what all its tiers need, a folder say. It is called before a job starts: what fails here would fail each attempt,
    /// and no restart would mend it. By default there is nothing to make.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if there can be no tiers.
    fn prepare(&self) -> Result<(), ColdError> {
        Ok(())
    }

    /// A tier for a subtask that starts, with nothing in it; what it leaves on disks goes with its last clone. `None` if the
    /// backend has none, which is the default.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if there can be none now: a disk that is full, say.
    fn open_tier(&self, owner: &TierOwner) -> Result<Option<AttachedTier>, ColdError> {
        let _ = owner;
        Ok(None)
    }
}

/// Whose tier it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierOwner {
    /// The name of the job.
    pub job: String,
    /// The subtask.
    pub subtask: SubtaskId,
    /// The reign of the coordinator.
    pub epoch: Epoch,
    /// The run within the epoch.
    pub attempt: Attempt,
}

/// The tier of a subtask, and how much of the state stays above it.
#[derive(Clone, Debug)]
pub struct AttachedTier {
    /// The tier.
    pub tier: Arc<dyn ColdTier>,
    /// How many bytes the entries may take that each table of the subtask holds in memory.
    pub overlay_bytes: u64,
}

/// How operators get their state from any backend.
pub trait StateBackendExt: StateBackend {
    /// An empty table.
    fn table<K: Key, V: Data>(&self, spec: TableSpec) -> Table<K, V> {
        Table::new(spec)
    }

    /// No timers of event time yet.
    fn timers<K: Key>(&self, spec: TableSpec) -> Timers<K> {
        Timers::new(spec)
    }

    /// No timers of processing time yet.
    fn processing_timers<K: Key>(&self, spec: TableSpec) -> Timers<K> {
        Timers::processing(spec)
    }

    /// No maps yet.
    fn maps<K: Key, U: Key, V: Data>(&self, spec: TableSpec) -> MapTable<K, U, V> {
        MapTable::new(spec)
    }

    /// No lists yet.
    fn lists<K: Key, T: Data>(&self, spec: TableSpec) -> ListTable<K, T> {
        ListTable::new(spec)
    }

    /// No values beside the operator's own yet, or no reduced values or accumulators, as `kind` says.
    fn accumulators<K: Key, V: Data>(&self, spec: TableSpec, kind: StateKind) -> Accumulator<K, V> {
        MapTable::single(spec, kind)
    }
}

impl<B: StateBackend + ?Sized> StateBackendExt for B {}
