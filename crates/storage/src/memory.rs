use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{CreateError, StoreError, StoreErrorKind};
use crate::name::ObjectName;
use crate::store::{Listed, ObjectReader, ObjectWriter, Store, Written};

const URL: &str = "memory:";

type Objects = BTreeMap<ObjectName, Arc<[u8]>>;

/// A store in memory, for tests and for jobs that only want to survive their own panics. Clones share their objects.
///
/// To see what a loss of power does, use [`LocalFolder`](crate::LocalFolder) over [`MemoryFiles`](crate::MemoryFiles).
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        // No code below panics between two changes, so the map is whole even if a caller's thread panicked.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the object there unless the name is taken; whether it did.
    fn insert(&self, name: &ObjectName, bytes: Arc<[u8]>) -> bool {
        let mut objects = self.objects();
        let free = !objects.contains_key(name);
        if free {
            objects.insert(name.clone(), bytes);
        }
        free
    }
}

impl Store for MemoryStore {
    fn url(&self) -> String {
        URL.to_owned()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        if self.insert(name, bytes.into()) { Ok(()) } else { Err(CreateError::Exists) }
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.objects().get(name) {
            Some(bytes) if bytes.len() as u64 > limit => {
                Err(StoreError::too_large("read", self.url(), name, bytes.len() as u64, limit))
            }
            found => Ok(found.map(|bytes| bytes.to_vec())),
        }
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        let bytes = self.objects().get(name).cloned();
        Ok(bytes.map(|bytes| Box::new(BytesReader { bytes }) as Box<dyn ObjectReader>))
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(Writer { store: self.clone(), name: name.clone(), bytes: Vec::new() }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects();
        let matching = objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        Ok(matching.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 }).collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects().remove(name);
        Ok(())
    }
}

/// Reads bytes that are in memory.
#[derive(Debug)]
pub struct BytesReader {
    bytes: Arc<[u8]>,
}

impl BytesReader {
    /// From their beginning to their end.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into() }
    }
}

impl ObjectReader for BytesReader {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[derive(Debug)]
struct Writer {
    store: MemoryStore,
    name: ObjectName,
    bytes: Vec<u8>,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Written, StoreError> {
        let Self { store, name, bytes } = *self;
        let written = Written { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        if store.insert(&name, bytes.into()) {
            Ok(written)
        } else {
            Err(StoreError::new(StoreErrorKind::AlreadyExists, "finish", store.url(), name.as_str()))
        }
    }
}
