//! How large a job is, as far as the settings and the command line say.

use cutwater_config::{BackendKind, Resolved};

/// What decides how much of a machine a job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobSize {
    /// Of each operator; 1 unless the settings say.
    pub(super) subtasks: u32,
    /// How many states by key the job has.
    pub(super) states: u32,
    /// How large all of its state may get; `None` if nobody said.
    pub(super) state_bytes: Option<u64>,
    /// Whether state lies in RocksDB.
    pub(super) rocksdb: bool,
}

impl JobSize {
    pub(super) fn of(settings: &Resolved, states: u32, state_bytes: Option<u64>) -> Self {
        let subtasks = settings.parallelism.map_or(1, std::num::NonZeroU32::get);
        Self { subtasks, states, state_bytes, rocksdb: settings.backend == BackendKind::RocksDb }
    }
}
