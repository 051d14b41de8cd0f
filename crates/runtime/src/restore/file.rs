//! A file of a checkpoint, which is read once more where an answer of the store was damaged on its way.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use cutwater_state::format::{BlockInfo, ReadAt, SnapshotReader};
use cutwater_state::{Block, StateError};
use cutwater_storage::{ObjectName, ObjectReader, Store, StoreError, StoreErrorKind};

use super::Progress;
use crate::upload::chain;

pub(super) struct File<'a> {
    store: &'a dyn Store,
    name: ObjectName,
    reader: RwLock<Arc<dyn ObjectReader>>,
    progress: Option<&'a Progress>,
}

impl<'a> File<'a> {
    /// `None` if it is not there.
    pub(super) fn open(
        store: &'a dyn Store,
        name: ObjectName,
        progress: Option<&'a Progress>,
    ) -> Result<Option<Self>, StoreError> {
        let opened = match store.open(&name) {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => store.open(&name)?,
            opened => opened?,
        };
        Ok(opened.map(|reader| Self { store, name, reader: RwLock::new(reader.into()), progress }))
    }

    /// Reads something of several parts. Each one that fails its check is read once more from the store, afresh: a reader may have
    /// read ahead.
    pub(super) fn ask<T>(&self, read: impl Fn() -> Result<T, StateError>) -> Result<T, StateError> {
        let mut wrong = Vec::new();
        loop {
            match read() {
                Err(error) => {
                    let part = wrong_part(&error);
                    if wrong.contains(&part) || !self.begins_again(&error) {
                        return Err(error);
                    }
                    wrong.push(part);
                }
                read => return read,
            }
        }
    }

    /// Reads a block, into a buffer that is no longer needed.
    pub(super) fn block(
        &self,
        snapshot: &SnapshotReader<'_>,
        block: &BlockInfo,
        buffer: Vec<u8>,
    ) -> Result<Block, StateError> {
        let first = snapshot.read_block_into(block, buffer);
        first.or_else(|error| if self.begins_again(&error) { snapshot.read_block(block) } else { Err(error) })
    }

    /// Whether another answer can be better, and there is one.
    fn begins_again(&self, error: &StateError) -> bool {
        if wrong_part(error).is_none() {
            return false;
        }
        let Ok(Some(reader)) = self.store.open(&self.name) else { return false };
        tracing::warn!("{}/{} is read once more: {}", self.store.url(), self.name, chain(error));
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader.into();
        self.progress.iter().for_each(|progress| progress.read_again());
        true
    }

    fn reader(&self) -> Arc<dyn ObjectReader> {
        Arc::clone(&self.reader.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The part of the file that came wrong or too short. `None` of another error: a store that could not answer has said so, and has
/// tried what it can.
fn wrong_part(error: &StateError) -> Option<(&'static str, u64)> {
    if let StateError::Damaged { part, offset, .. } = error {
        return Some((part, *offset));
    }
    if matches!(error, StateError::NotASnapshot | StateError::NewerVersion { .. }) {
        return Some(("file prefix", 0));
    }
    let StateError::Read { offset, source, .. } = error else { return None };
    let store = source.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    let is_wrong = match store {
        Some(store) => store.kind() == StoreErrorKind::Corrupt,
        None => source.kind() == io::ErrorKind::UnexpectedEof,
    };
    is_wrong.then_some(("what was read", *offset))
}

impl ReadAt for File<'_> {
    fn len(&self) -> u64 {
        self.reader().len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.reader().read_at(offset, buf).map_err(io::Error::other)?;
        if read < buf.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
