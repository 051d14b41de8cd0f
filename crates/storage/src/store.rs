use std::fmt;

use crate::error::{CreateError, ProbeError, StoreError};
use crate::name::ObjectName;

/// Where checkpoints are kept: immutable objects under names.
///
/// - An object is created whole or not at all, and never changes afterwards; it only can be deleted.
/// - Of any number of racing creators of one name, at most one succeeds.
/// - When a create or [`ObjectWriter::finish`] has returned `Ok`, the object survives a loss of power.
/// - A writer that was dropped leaves nothing that a reader or a listing can see.
/// - Correct users need no listing: names are known or probed one by one. [`Store::list`] is for people and sweepers.
///
/// All calls block, some for as long as the disk takes to sync: call them from a pool of threads meant for that.
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this store is, for messages: `file:///var/lib/job`, `memory:`. Holds no credentials.
    fn url(&self) -> String;

    /// Stores `bytes` under `name` unless something is there.
    ///
    /// # Errors
    ///
    /// [`CreateError`] says whether nothing was stored for sure, or nobody knows.
    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError>;

    /// Reads a whole object of at most `limit` bytes; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::StoreErrorKind::TooLarge) before anything is allocated if the object has more than `limit`
    /// bytes; else as the system reports.
    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Opens an object for reading in parts; `None` if it is not there. A reader keeps working after a delete.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError>;

    /// Begins a new object of any size, which nobody sees until it is finished.
    ///
    /// # Errors
    ///
    /// As the system reports. That the name is taken is found at [`ObjectWriter::finish`], not here.
    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// The finished objects whose name begins with `prefix` (any text, also in the middle of a part; empty for all), in
    /// the order of their names. What appears or goes meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// As the system reports; nothing there at all is an empty list.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Deletes the object; one that is not there is fine. After a loss of power it may be back.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Removes what writers of killed processes left behind, under all names that begin with the parts of `folder`
    /// (empty for all); returns how many files. A writer that is still at work elsewhere then fails cleanly at its end,
    /// so call this when no other process should be writing there: at the start, after the epoch was claimed.
    ///
    /// # Errors
    ///
    /// As the system reports. Does nothing on a store where writers leave nothing.
    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        let _ = folder;
        Ok(0)
    }

    /// What [`Self::sweep_leftovers`] would remove there. It may be of a writer that is at work.
    ///
    /// # Errors
    ///
    /// As the system reports. An empty list on a store where writers leave nothing.
    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        let _ = folder;
        Ok(Vec::new())
    }

    /// Tries what a job needs (create, create again, read back, delete) with a small object of its own.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] naming the store and why it can't hold checkpoints: read-only, full, without create-if-absent, on
    /// a file system without hard links.
    fn probe(&self) -> Result<(), ProbeError> {
        crate::probe::probe(self)
    }
}

/// One object, open for reading. Reads may run at the same time on several threads.
pub trait ObjectReader: Send + Sync + fmt::Debug {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on, as far as the object reaches, and returns how many these are:
    /// fewer than fit only at the end of the object.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError>;
}

/// A new object on its way into the store. Dropping it without [`finish`](Self::finish) removes what was written.
pub trait ObjectWriter: Send + fmt::Debug {
    /// Appends the bytes. Pieces of any size will do; the store gathers small ones.
    ///
    /// # Errors
    ///
    /// As the system reports, also for a write-back of earlier bytes. The object is then lost: all later calls fail.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// The same for bytes that the caller gives away: a store that sends them as they are saves a copy.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn write_owned(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.write(&bytes)
    }

    /// Makes the object durable and visible.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::StoreErrorKind::AlreadyExists) if the name is taken. After any other error the object is
    /// absent or whole, and may still vanish: give it up, and write the bytes again under another name.
    fn finish(self: Box<Self>) -> Result<Written, StoreError>;
}

/// What was written: note it where the object is referred to, and [`verify`](crate::verify) or check against it when
/// reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32C (Castagnoli, as in iSCSI) of all bytes. Finds accidents; says nothing about who wrote them.
    pub crc32c: u32,
}

/// What a writer has begun and not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is: on a disk the temporary file, in an object store the object that was to be.
    pub path: String,
    /// How much of it is there; `None` if the store does not tell.
    pub bytes: Option<u64>,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object.
    pub name: ObjectName,
    /// Its length.
    pub bytes: u64,
}
