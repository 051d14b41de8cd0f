//! The memory backend: all state stays in the table.
//!
//! Flink calls it `hashmap`, and so does the configuration (`state.backend.type: hashmap`). State must fit into memory; a
//! checkpoint writes all of it, beside the processing. There is nothing to open and nothing to close.
//!
//! ```
//! use cutwater_core::{MaxParallelism, OperatorUid};
//! use cutwater_memory::MemoryBackend;
//! use cutwater_state::{StateBackend, StateBackendExt, Table, TableSpec, hash_key};
//!
//! let backend = MemoryBackend::default();
//! assert!(!backend.capabilities().cold_tier);
//! let max_parallelism = MaxParallelism::default();
//! let mut table: Table<u64, String> = backend.table(TableSpec {
//!     operator: OperatorUid::new("names").expect("a valid uid"),
//!     name: "name".to_owned(),
//!     max_parallelism,
//!     key_groups: max_parallelism.all(),
//! });
//! table.insert(hash_key(&7_u64, &mut Vec::new()), 7, "seven".to_owned())?;
//! # Ok::<(), cutwater_state::StateError>(())
//! ```

use cutwater_state::{Capabilities, StateBackend};

/// Keeps all state in memory. Fastest, and the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBackend;

impl StateBackend for MemoryBackend {
    fn name(&self) -> &'static str {
        "hashmap"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
