//! State larger than memory: a cold tier on RocksDB.
//!
//! [`RocksTier`] is a [`ColdTier`](cutwater_state::ColdTier): it keeps on a local disk the entries that the tables of one
//! subtask have no room for. RocksDB is C++, and is built only with the feature `rocksdb` of this crate, which is off by
//! default; without it the crate is empty.
//!
#![cfg_attr(feature = "rocksdb", doc = "```")]
#![cfg_attr(not(feature = "rocksdb"), doc = "```ignore")]
//! use std::ops::ControlFlow;
//!
//! use cutwater_core::{MaxParallelism, OperatorUid};
//! use cutwater_rocksdb::{RocksBudget, RocksTier};
//! use cutwater_state::{ColdBatch, ColdTier, Snapshotable, Table, TableSpec};
//!
//! # let folder = tempfile::tempdir().expect("a temporary folder");
//! # let folder = folder.path();
//! let budget = RocksBudget::default(); // one for all subtasks of the process
//! let tier = RocksTier::create(&folder.join("counts-0"), &budget)?;
//!
//! let max_parallelism = MaxParallelism::default();
//! let table: Table<u64, String> = Table::new(TableSpec {
//!     operator: OperatorUid::new("names").expect("a valid uid"),
//!     name: "name".to_owned(),
//!     max_parallelism,
//!     key_groups: max_parallelism.all(),
//! });
//! let state = tier.open(&table.header())?;
//!
//! let mut batch = ColdBatch::default();
//! batch.put(b"\0\x07seven", b"7"); // in key group 7
//! tier.write(state, &batch)?;
//! let view = tier.view()?; // what a snapshot reads, whatever is written meanwhile
//! batch.clear();
//! batch.delete(b"\0\x07seven");
//! tier.write(state, &batch)?;
//!
//! let mut names = Vec::new();
//! view.scan(state, max_parallelism.all(), &mut |name, _| {
//!     names.push(name.to_vec());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(names, [b"\0\x07seven"]);
//! tier.get(state, &[b"\0\x07seven"], &mut |_, _| unreachable!("it was deleted"))?;
//! # Ok::<(), cutwater_state::ColdError>(())
//! ```
//!
//! # The parts
//!
//! - [`RocksDbBackend`]: the backend `rocksdb` of a job, with a tier for each subtask.
//! - [`RocksTier`]: one database for each subtask, a column family for each state. Each needs a folder of its own.
//! - [`RocksBudget`]: memory for blocks and for writes, shared by all tiers of the process.
//! - [`Step`]: what it changes on the disk, step by step; [`RocksDbBackend::with_steps`] fails or ends everything at one.
//! - [`TierStatistics`]: bytes on the disk and in memory, and whether writes have to wait.
//!
//! # What is guaranteed
//!
//! - The contract of a cold tier; each of its sentences is a test.
//! - Blocks have checksums, and a damaged one is an error that names the file. A full disk, a folder in use and missing
//!   rights are errors that say what to do. None of them is a panic.
//! - An image is the tier as it was, in files that RocksDB does not change: one that is in two images is stored once.
//! - What a snapshot has becomes a file beside the use of the tier, and is seen all at once or not at all; what is small, or
//!   comes to a state with writes in memory, is written like anything else.
//! - A view is made in microseconds: a snapshot of RocksDB, without flush or copy.
//! - Memory for blocks, indexes, filters and writes stays near the budget, however large the state.
//!
//! # What it costs
//!
//! A key that has to be read from files takes 2 to 5 microseconds if its block is in the cache, less if it is not there at all,
//! and a read of the disk otherwise. The entries of a map or list are found by one search of each file that may have some, whether
//! there are any or not: filters tell of whole names only. Writes come to half a million entries a second if a batch is spread over the whole state,
//! and to some millions if it lies close together (measured with a million small entries, on one of two busy cores). Each
//! state that has been written takes about 2.5 MB of memory at the least, and an open file for each 64 MB. While a view exists,
//! entries that were replaced since stay on the disk.
//!
//! # What is not here
//!
//! A log: what a tier holds does not survive the process, checkpoints do.
//! Compression other than lz4. The file of a snapshot is not compressed where samples of it do not get smaller.
//!
//! # Building it
//!
//! The feature needs a C++20 compiler and libclang (on Debian `apt-get install g++ clang libclang-dev`), and its first build
//! takes some 20 minutes of one core. `ROCKSDB_LIB_DIR`, `ROCKSDB_INCLUDE_DIR` and `ROCKSDB_STATIC=1` name an archive of an
//! earlier build instead, which must be of the same version.
#![cfg_attr(not(feature = "rocksdb"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(feature = "rocksdb")]
mod backend;
#[cfg(feature = "rocksdb")]
mod budget;
#[cfg(feature = "rocksdb")]
mod database;
#[cfg(feature = "rocksdb")]
mod error;
#[cfg(feature = "rocksdb")]
mod expiry;
#[cfg(feature = "rocksdb")]
mod family;
#[cfg(feature = "rocksdb")]
mod image;
#[cfg(feature = "rocksdb")]
mod import;
#[cfg(feature = "rocksdb")]
mod load;
#[cfg(feature = "rocksdb")]
mod options;
#[cfg(feature = "rocksdb")]
mod statistics;
#[cfg(feature = "rocksdb")]
mod steps;
#[cfg(feature = "rocksdb")]
mod tier;
#[cfg(feature = "rocksdb")]
mod view;

#[cfg(feature = "rocksdb")]
pub use {
    backend::RocksDbBackend,
    budget::RocksBudget,
    statistics::TierStatistics,
    steps::{Step, StepHook},
    tier::RocksTier,
};
