//! Files in the form of the backend, which have steps of their own beside those of the store that they go to.

use std::io;
use std::sync::Arc;

use cutwater::coordinator::native_number;
use cutwater::storage::{
    CreateError, Leftover, Listed, ObjectName, ObjectReader, ObjectWriter, ProbeError, Store, StoreError,
    StoreErrorKind, Written,
};

use crate::steps::Steps;

/// A store of checkpoints.
#[derive(Debug)]
pub(crate) struct Natives {
    store: Arc<dyn Store>,
    steps: Arc<Steps>,
}

impl Natives {
    pub(crate) fn new(store: Arc<dyn Store>, steps: Arc<Steps>) -> Self {
        Self { store, steps }
    }
}

/// What the names of a file's steps begin with, if it is in the form of the backend. It lies in the folder of the job.
fn kind(name: &ObjectName) -> Option<&'static str> {
    let (_, in_job) = name.as_str().split_once('/')?;
    native_number(in_job).map(|number| if number == 0 { "index" } else { "native" })
}

impl Store for Natives {
    fn url(&self) -> String {
        self.store.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.store.create(name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.store.open(name)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let Some(kind) = kind(name) else { return self.store.writer(name) };
        let named = Named { kind, name: name.clone(), url: self.url(), steps: Arc::clone(&self.steps) };
        named.before("begin")?;
        Ok(Box::new(Writer { writer: self.store.writer(name)?, named }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if let Some(kind) = kind(name) {
            Named { kind, name: name.clone(), url: self.url(), steps: Arc::clone(&self.steps) }.before("delete")?;
        }
        self.store.delete(name)
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        self.store.sweep_leftovers(folder)
    }

    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        self.store.leftovers(folder)
    }

    fn probe(&self) -> Result<(), ProbeError> {
        self.store.probe()
    }
}

#[derive(Debug)]
struct Named {
    kind: &'static str,
    name: ObjectName,
    url: String,
    steps: Arc<Steps>,
}

impl Named {
    fn before(&self, step: &'static str) -> Result<(), StoreError> {
        let Self { kind, name, url, steps } = self;
        let failed =
            |error: io::Error| StoreError::new(StoreErrorKind::Other, step, url.clone(), name.as_str()).because(error);
        steps.before(&format!("{kind}.{step}"), name).map_err(failed)
    }
}

/// One of the files on its way.
#[derive(Debug)]
struct Writer {
    writer: Box<dyn ObjectWriter>,
    named: Named,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.named.before("write")?;
        self.writer.write(bytes)
    }

    fn write_owned(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.named.before("write")?;
        self.writer.write_owned(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Written, StoreError> {
        self.named.before("finish")?;
        self.writer.finish()
    }
}
