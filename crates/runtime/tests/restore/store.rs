//! A store that does something to each answer.

use std::fmt;
use std::sync::Arc;

use cutwater_storage::{CreateError, Listed, ObjectName, ObjectReader, ObjectWriter, Store, StoreError};

/// Given the name and where the bytes begin, what to do with them: how many are answered.
type OnRead = dyn Fn(&str, u64, &mut [u8]) -> usize + Send + Sync;
type OnOpen = dyn Fn(&str) + Send + Sync;

/// Hands all on to another store, and every answer through two hooks.
#[derive(Clone)]
pub(crate) struct Hooked {
    store: Arc<dyn Store>,
    on_open: Arc<OnOpen>,
    on_read: Arc<OnRead>,
}

impl Hooked {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        on_open: impl Fn(&str) + Send + Sync + 'static,
        on_read: impl Fn(&str, u64, &mut [u8]) -> usize + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), on_open: Arc::new(on_open), on_read: Arc::new(on_read) })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").finish_non_exhaustive()
    }
}

impl Store for Hooked {
    fn url(&self) -> String {
        "hooked:".to_owned()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.store.create(name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        (self.on_open)(name.as_str());
        let mut bytes = self.store.read(name, limit)?;
        if let Some(bytes) = &mut bytes {
            let count = (self.on_read)(name.as_str(), 0, bytes);
            bytes.truncate(count);
        }
        Ok(bytes)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        (self.on_open)(name.as_str());
        let Some(reader) = self.store.open(name)? else { return Ok(None) };
        Ok(Some(Box::new(Reader { reader, name: name.clone(), hooks: self.clone() })))
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.store.writer(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }
}

#[derive(Debug)]
struct Reader {
    reader: Box<dyn ObjectReader>,
    name: ObjectName,
    hooks: Hooked,
}

impl ObjectReader for Reader {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let read = self.reader.read_at(offset, buffer)?;
        Ok((self.hooks.on_read)(self.name.as_str(), offset, &mut buffer[..read]))
    }
}
