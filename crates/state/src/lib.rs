//! Keyed state: typed tables and timers that are snapshotted while they change, and the file that a snapshot becomes.
//!
//! ```
//! use cutwater_core::{CheckpointId, MaxParallelism, OperatorUid};
//! use cutwater_state::format::{Compression, SnapshotEncoder, SnapshotHeader, SnapshotReader};
//! use cutwater_state::{Snapshotable, SweepProgress, Table, TableSpec, hash_key};
//!
//! let max_parallelism = MaxParallelism::default();
//! let spec = |subtask, parallelism| TableSpec {
//!     operator: OperatorUid::new("routes").expect("a valid uid"),
//!     name: "flights".to_owned(),
//!     max_parallelism,
//!     key_groups: max_parallelism.range_of(subtask, parallelism),
//! };
//! let mut flights: Table<String, u64> = Table::new(spec(0, 1));
//! for route in ["JFK-LAX", "JFK-SFO", "JFK-LAX"].map(str::to_owned) {
//!     let hash = hash_key(&route, &mut Vec::new());
//!     *flights.get_or_insert_with(hash, &route, || 0)? += 1;
//! }
//!
//! // The snapshot is the state at the cut. It is swept in small steps, with more records between them.
//! let header = SnapshotHeader {
//!     job: "flights".to_owned(),
//!     task: "routes".to_owned(),
//!     subtask: 0,
//!     parallelism: 1,
//!     checkpoint: CheckpointId(1),
//!     base: None,
//!     states: vec![flights.header()],
//! };
//! let (mut file, mut blocks) = (Vec::new(), Vec::new());
//! let mut encoder = SnapshotEncoder::new(&header, Compression::Zstd(1), &mut file)?;
//! flights.cut();
//! while flights.sweep(64 << 10, &mut |block| blocks.push(block))? == SweepProgress::More {}
//! for block in &blocks {
//!     encoder.push(block, &mut file)?;
//! }
//! encoder.finish(&mut file);
//!
//! // Two subtasks take over: each reads the blocks of its key groups.
//! let reader = SnapshotReader::open(&file)?;
//! let mut restored = 0;
//! for subtask in 0..2 {
//!     let mut half: Table<String, u64> = Table::new(spec(subtask, 2));
//!     half.header().check(&reader.header().states[0])?;
//!     let groups = max_parallelism.range_of(subtask, 2);
//!     for info in reader.blocks_for(0, groups) {
//!         restored += half.restore(&reader.read_block(info)?, groups)?;
//!     }
//! }
//! assert_eq!(restored, 2);
//! # Ok::<(), cutwater_state::StateError>(())
//! ```
//!
//! # The parts
//!
//! - [`Table`]: a value for each key. [`Timers`]: timers by key, of event or processing time. Both are a few nanoseconds
//!   an access while they fit the caches.
//! - [`MapTable`]: a map for each key, or one value that may expire. [`ListTable`]: a list for each key.
//! - [`Snapshotable`]: what both offer to whoever takes checkpoints: cut, sweep, abort, restore.
//! - [`Block`]: a mebibyte of entries on its way to a file. [`mod@format`]: the file, `docs/format.md` byte by byte.
//! - [`Data`], [`Key`], [`CodecId`], [`encode`], [`decode`], [`hash_key`]: how any serde type becomes bytes and a hash.
//! - [`OperatorStateWriter`], [`OperatorStatePart`]: state without keys, which is in the checkpoint's record.
//! - [`Schema`], [`StateHeader`]: what was written, so that a program whose types have changed learns it by name.
//! - [`StateBackend`]: the contract of what lies below the table. [`ColdTier`]: entries that memory does not hold, timers too.
//!
//! # What is guaranteed
//!
//! - A cut is O(1), and no later step takes time that grows with the number of entries: the worst is the split of a
//!   shard of some 2,800. (One key with many thousands of timers is the exception.)
//! - What changes between cut and sweep is kept as it was at the cut, encoded, entry by entry: values need no `Clone`.
//! - With [`Snapshotable::track_changes`] a snapshot can hold what has changed since another cut, and nothing else.
//! - A damaged file is a [`StateError`]: it neither panics, nor passes, nor takes memory that it only claims to need.
//!
//! # What is not here
//!
//! Files, threads and clocks: the crate computes, its callers do. Changed types are told, not migrated.

mod backend;
mod block;
mod codec;
mod cold;
mod error;
pub mod format;
mod index;
mod key_bytes;
mod list;
mod map;
mod operator;
mod schema;
mod snapshot;
mod store;
mod table;
mod timers;

pub use backend::{AttachedTier, Capabilities, StateBackend, StateBackendExt, TierOwner};
pub use block::{Block, BlockKind};
pub use codec::{CodecId, Data, Key, codec_of, decode, encode, hash_key};
pub use cold::{
    ColdBatch, ColdError, ColdFound, ColdImage, ColdLoad, ColdState, ColdTier, ColdView, ColdVisitor, ImageFile,
    ImageSource, MakeFile, ModelTier, apply_block, blocks_of_view, group_of_name, group_prefix, load_block,
    stamp_of_value,
};
pub use error::StateError;
pub use list::ListTable;
pub use map::{Accumulator, MapTable};
pub use operator::{OPERATOR_STATE_BYTES, OPERATOR_STATE_OF_TASK, OperatorStatePart, OperatorStateWriter};
pub use schema::{Field, Schema, SchemaMismatch, Variant};
pub use snapshot::{Cut, Snapshotable, StateHeader, StateKind, SweepProgress, TableSpec};
pub use table::Table;
pub use timers::{DueTimers, Timers};
