//! What the tests with real processes share: they start the programs of this repository as a user would, kill, stop and
//! starve them, damage their files, and look at what is left.
//!
//! - [`Process`] is a child that is killed by its id when it is dropped, and that never runs longer than [`LIMIT`].
//! - [`Flights`] is a folder of its own with output, checkpoints and, if wanted, small data for the `flights` program.
//! - [`Log`] reads the commit log from outside, to tell in which moment a process died.
//! - [`Mounts`] is a mount namespace of its own: folders there can be read-only or full, even for root.
//! - [`database_files`] are what RocksDB has on a disk, [`damage`] is what a bad disk does to them.
//! - [`Server`] is a real object store, MinIO or SeaweedFS, that `./test.sh` installed; [`Azurite`] an emulator of Azure's.
//! - [`Proxy`] stands before such a store and makes the faults of networks and stores, from a seed.
//! - [`Rng`] draws from a seed, which every failure prints.
//!
//! The programs are those of the release build, beside the test executables; `./test.sh` builds them first. Only
//! `stepped-job`, which counts its durable steps and dies before one of them, and `store-check`, which tries out what a store
//! must do, are of this crate and built with the tests.

mod csv;
mod databases;
mod flights;
mod log;
mod mounts;
mod process;
mod proxy;
mod rng;
mod servers;
mod tell;
mod threads;

pub use csv::small_csv;
pub use databases::{damage, database_files, database_homes};
pub use flights::{Flights, assert_same_output, copy_folder, cutwater};
pub use log::Log;
pub use mounts::Mounts;
pub use process::{Ended, LIMIT, Process, bound, program, seconds, sleep};
pub use proxy::{Counts, Fault, Proxy, Rates, Times};
pub use rng::Rng;
pub use servers::{Azurite, BUCKET, Kind, Server, Upload};
pub use tell::tell;
pub use threads::side_by_side;
