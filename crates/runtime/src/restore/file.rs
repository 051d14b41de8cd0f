//! A file of a checkpoint, which is read once more where an answer of the store was damaged on its way.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cutwater_coordinator::FileRef;
use cutwater_state::format::{BlockInfo, ReadAt, SnapshotReader};
use cutwater_state::{Block, StateError};
use cutwater_storage::{BytesReader, ObjectName, ObjectReader, Store, StoreError, StoreErrorKind};

use super::{Progress, RestorePoint};
use crate::error::RestoreError;
use crate::local::LocalCopies;
use crate::upload::chain;

pub(super) struct File<'a> {
    store: &'a dyn Store,
    name: ObjectName,
    reader: RwLock<Arc<dyn ObjectReader>>,
    /// Whether that reads a copy on this machine.
    is_local: AtomicBool,
    progress: Option<&'a Progress>,
}

impl<'a> File<'a> {
    /// From the record if that holds it, from the copy on this machine if there is one, else from the store; `None` if it is not
    /// there.
    pub(super) fn open(
        point: &'a RestorePoint,
        file: &FileRef,
        local: Option<&LocalCopies>,
        progress: Option<&'a Progress>,
    ) -> Result<Option<Self>, RestoreError> {
        let (store, name) = (point.store.as_ref(), ObjectName::parse(&file.name)?);
        let new = |reader: Box<dyn ObjectReader>, is_local| {
            let (reader, is_local) = (RwLock::new(reader.into()), AtomicBool::new(is_local));
            Some(Self { store, name: name.clone(), reader, is_local, progress })
        };
        if let Some(content) = &file.content {
            return Ok(new(Box::new(BytesReader::new(content.clone())), false));
        }
        if let Some(reader) = local.and_then(|local| local.open(&point.checkpoint.job, file)) {
            return Ok(new(reader, true));
        }
        let opened = match store.open(&name) {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => store.open(&name)?,
            opened => opened?,
        };
        Ok(opened.and_then(|reader| new(reader, false)))
    }

    /// Reads something of several parts. Each one that fails its check is read once more from the store, afresh: a reader may have
    /// read ahead.
    pub(super) fn ask<T>(&self, mut read: impl FnMut() -> Result<T, StateError>) -> Result<T, StateError> {
        let mut wrong = Vec::new();
        loop {
            let (error, was_local) = match read() {
                Err(error) => (error, self.is_local.load(Ordering::Relaxed)),
                read => return read,
            };
            let part = wrong_part(&error);
            if !was_local && (part.is_none() || wrong.contains(&part)) || !self.begins_again(&error) {
                return Err(error);
            }
            wrong.extend((!was_local).then_some(part));
        }
    }

    /// Reads a block, into a buffer that is no longer needed.
    pub(super) fn block(
        &self,
        snapshot: &SnapshotReader<'_>,
        block: &BlockInfo,
        buffer: Vec<u8>,
    ) -> Result<Block, StateError> {
        let mut buffer = Some(buffer);
        let read = self.ask(|| snapshot.read_block_into(block, buffer.take().unwrap_or_default()))?;
        self.was_read(block.length.into());
        Ok(read)
    }

    /// So many bytes more were read and are right.
    pub(super) fn was_read(&self, bytes: u64) {
        if let Some(progress) = self.progress.filter(|_| self.is_local.load(Ordering::Relaxed)) {
            progress.read_locally(bytes);
        }
    }

    /// Opens the file anew, if it is there. A copy that has been damaged since it was opened is left behind.
    fn begins_again(&self, error: &StateError) -> bool {
        let Ok(Some(reader)) = self.store.open(&self.name) else { return false };
        tracing::warn!("{}/{} is read once more: {}", self.store.url(), self.name, chain(error));
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader.into();
        let was_local = self.is_local.swap(false, Ordering::Relaxed);
        self.progress.iter().filter(|_| !was_local).for_each(|progress| progress.read_again());
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use cutwater_coordinator::{CompletedCheckpoint, Last};
    use cutwater_core::{Attempt, CheckpointId, Epoch, KeyGroup, KeyGroupRange, MaxParallelism, Moment, OperatorUid};
    use cutwater_state::format::{Compression, SnapshotEncoder, SnapshotHeader};
    use cutwater_state::{BlockKind, CodecId, Schema, StateHeader, StateKind};
    use cutwater_storage::MemoryStore;

    use super::*;
    use crate::local::LocalRecovery;

    const NAME: &str = "chk/1";

    fn point() -> RestorePoint {
        let checkpoint = CompletedCheckpoint {
            epoch: Epoch(1),
            attempt: Attempt(1),
            checkpoint: CheckpointId(1),
            slot: 1,
            job: "daily".to_owned(),
            max_parallelism: MaxParallelism::default(),
            completed_at_unix_ms: 0,
            duration: Duration::ZERO,
            last: Last::No,
            origin: None,
            tasks: Vec::new(),
        };
        RestorePoint { checkpoint, store: Arc::new(MemoryStore::new()) }
    }

    /// A snapshot file of two such blocks.
    fn snapshot(block: &Block) -> Vec<u8> {
        let state = StateHeader {
            operator: OperatorUid::new("count").unwrap(),
            name: "value".to_owned(),
            kind: StateKind::Value,
            key_codec: CodecId::Postcard,
            key_schema: Schema::of::<u64>(),
            value_codec: CodecId::Postcard,
            value_schema: Schema::of::<u64>(),
            max_parallelism: MaxParallelism::default(),
        };
        let (job, task) = ("daily".to_owned(), "all".to_owned());
        let checkpoint = CheckpointId(1);
        let header =
            SnapshotHeader { job, task, subtask: 0, parallelism: 1, checkpoint, base: None, states: vec![state] };
        let mut bytes = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header, Compression::None, &mut bytes).unwrap();
        for _ in 0..2 {
            encoder.frame(block).unwrap().parts().iter().for_each(|part| bytes.extend_from_slice(part));
        }
        encoder.finish(&mut bytes);
        bytes
    }

    #[test]
    fn a_copy_that_is_damaged_while_it_is_read_is_left_for_the_store() {
        let groups = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(0) };
        let block = Block { state: 0, kind: BlockKind::All, groups, entries: 1, payload: vec![7; 1000] };
        let bytes = snapshot(&block);
        let (point, object) = (point(), ObjectName::parse(NAME).unwrap());
        point.store.create(&object, &bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copied = folder.path().join("daily").join(NAME);
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        for (damage, name) in [(vec![0; bytes.len()], "overwritten"), (Vec::new(), "cut")] {
            fs::write(&copied, &bytes).unwrap();
            let local = LocalRecovery { backup: false, from_local: true, dirs: vec![folder.path().to_owned()] };
            let local = LocalCopies::new(&local, "daily").unwrap();
            let progress = Progress::new(CheckpointId(1), Moment::ZERO, 1, bytes.len() as u64);
            let named = FileRef::stored(NAME.to_owned(), bytes.len() as u64, crc32c::crc32c(&bytes));
            let file = File::open(&point, &named, Some(&local), Some(&progress)).unwrap().unwrap();
            let reader = file.ask(|| SnapshotReader::open(&file)).unwrap();
            let [first, second] = reader.blocks() else { panic!("two blocks") };
            assert_eq!(file.block(&reader, first, Vec::new()).unwrap(), block, "{name}");
            fs::write(&copied, damage).unwrap();
            assert_eq!(file.block(&reader, second, Vec::new()).unwrap(), block, "{name}");
            let told = progress.read(Moment::ZERO);
            assert_eq!((told.local_bytes, told.rereads), (first.length.into(), 0), "{name}");
        }
    }
}
