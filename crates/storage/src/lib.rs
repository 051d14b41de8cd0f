//! Stores for checkpoints: a local folder and memory, with every durable step named.
//!
//! A [`Store`] keeps immutable objects under names. It is all that the commit log, snapshots and restores need from the
//! outside, and small enough that a folder, memory and a cloud's object store behave alike.
//!
//! ```
//! use cutwater_storage::{CreateError, MemoryStore, ObjectName, Store, verify};
//!
//! let store = MemoryStore::new(); // or LocalFolder::new("/var/lib/flights")
//! store.probe()?; // refuses a store that could not tell who committed
//!
//! // A large object: written in pieces, visible and durable only when finished.
//! let state = ObjectName::parse("flights/1-7-routes-0")?;
//! let mut writer = store.writer(&state)?;
//! writer.write(b"many")?;
//! writer.write(b" blocks")?;
//! assert!(store.open(&state)?.is_none());
//! let written = writer.finish()?;
//! verify(&store, &state, written.bytes, written.crc32c)?;
//!
//! // A small one, which only one of all racing creators gets.
//! let slot = ObjectName::parse("flights/log/0000000007")?;
//! store.create(&slot, b"checkpoint 7 is complete")?;
//! assert!(matches!(store.create(&slot, b"no, mine"), Err(CreateError::Exists)));
//! assert_eq!(store.read(&slot, 1 << 20)?.as_deref(), Some(&b"checkpoint 7 is complete"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - [`Store`], with [`ObjectReader`] and [`ObjectWriter`]: the contract. [`LocalFolder`] and [`MemoryStore`] keep it.
//! - [`ObjectName`]: a relative path that can't leave the store.
//! - [`verify`]: compares an object with the length and CRC-32C noted in [`Written`]. [`read_checked`]: reads a small one. Both
//!   read once more what is not as it was written.
//! - [`StoreError`] with its [`StoreErrorKind`], [`CreateError`], [`ProbeError`]: each text names the object and says
//!   what to do.
//! - [`Files`]: the file system below, also for sinks that publish files. [`OsFiles`] is the real one; [`MemoryFiles`]
//!   loses what was not synced; [`HookedFiles`] and [`LocalFolder::with_steps`] fail or end everything at a chosen
//!   [`FileStep`] or [`Step`].
//!
//! # What is guaranteed
//!
//! - After `Ok` of [`Store::create`] or [`ObjectWriter::finish`], the object survives `kill -9` and a loss of power, on
//!   a disk that honours a sync.
//! - An object is there whole or not at all. [`CreateError`] tells "not stored" from "nobody knows".
//! - [`CreateError::Exists`] comes after the winner's object is durable too.
//! - A failed sync is never tried again: the system may have dropped the bytes, and would report success.
//! - Of a writer that was dropped or failed, nothing is left; of one that was killed, a file whose name begins with
//!   `.`, which [`Store::sweep_leftovers`] removes.
//!
//! # What it costs
//!
//! A `create` on a local disk is two syncs, of the file and of its folder, so milliseconds. A large object is written in
//! pieces of 1 MiB; each 32 MiB another thread begins to sync what is there, so that the disk works while the next
//! blocks are being made and little is left for the end. `cargo run --release -p cutwater-storage --example write_bench`
//! shows the rate beside that of a plain write and sync.
//!
//! # What is not here
//!
//! No retries and no deadlines (the caller knows how long it can wait), no async (call it from a pool of blocking
//! threads), no encryption, no replacing or appending. A CRC finds accidents, not forgeries. A local folder needs a
//! Unix-like system and a file system with hard links.

mod aligned;
mod error;
mod files;
mod local;
mod memory;
mod name;
mod probe;
mod step;
mod store;
mod verify;

pub use error::{CreateError, ProbeError, StoreError, StoreErrorKind};
pub use files::{
    EntryKind, Fate, FileReader, FileStep, FileWriter, Files, FolderEntry, HookedFiles, MemoryFiles, OsFiles, Unsynced,
};
pub use local::{InvalidLocation, LocalFolder};
pub use memory::{BytesReader, MemoryStore};
pub use name::{InvalidName, ObjectName};
pub use step::{Step, StepHook};
pub use store::{Leftover, Listed, ObjectReader, ObjectWriter, Store, Written};
pub use verify::{read_checked, verify};
