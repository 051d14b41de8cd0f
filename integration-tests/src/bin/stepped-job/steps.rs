//! Counts the durable steps of this process, by name, and ends it before one of them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use cutwater::storage::{
    CreateError, Files, HookedFiles, Listed, LocalFolder, ObjectName, ObjectReader, ObjectWriter, OsFiles, Store,
    StoreError,
};
use signal_hook::consts::SIGKILL;

/// Before which step the process dies: `NAME:NUMBER`, the first of a name being 1.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    name: String,
    number: u64,
}

impl FromStr for Death {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once(':').and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
        let (name, number) = parsed.ok_or_else(|| format!("{text:?} is not NAME:NUMBER"))?;
        Ok(Self { name, number })
    }
}

/// All steps of the process.
#[derive(Debug)]
pub(crate) struct Steps {
    death: Option<Death>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Steps {
    pub(crate) fn new(death: Option<Death>) -> Arc<Self> {
        Arc::new(Self { death, counts: Mutex::default() })
    }

    /// How often each step has been taken.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Called before each step. The lock is held into death, so that no other thread takes a step any more.
    fn before(&self, name: &str, path: &dyn Display) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        if self.death.as_ref().is_some_and(|death| death.name == name && death.number == *count) {
            eprintln!("dies before {name} number {count}, of {path}");
            let error = signal_hook::low_level::raise(SIGKILL);
            unreachable!("nothing outlives SIGKILL: {error:?}");
        }
    }

    /// The checkpoints' folder.
    pub(crate) fn folder(self: &Arc<Self>, path: &Path, prefix: &'static str) -> LocalFolder {
        let steps = Arc::clone(self);
        LocalFolder::new(path).with_steps(Arc::new(move |step, path| {
            steps.before(&format!("{prefix}{step}"), &path.display());
            Ok(())
        }))
    }

    /// The file system of a sink.
    pub(crate) fn files(self: &Arc<Self>) -> Arc<dyn Files> {
        let steps = Arc::clone(self);
        Arc::new(HookedFiles::new(Arc::new(OsFiles::shared()), move |step, path| {
            steps.before(&step.to_string(), &path.display());
            Ok(())
        }))
    }
}

/// Where savepoints go: beside the steps of the folder, those that the simulation knows.
#[derive(Debug)]
pub(crate) struct Savepoints {
    folder: LocalFolder,
    steps: Arc<Steps>,
}

impl Savepoints {
    pub(crate) fn new(steps: &Arc<Steps>, path: &str) -> Self {
        let path = path.strip_prefix("file://").unwrap_or(path);
        Self { folder: steps.folder(Path::new(path), "savepoint."), steps: Arc::clone(steps) }
    }
}

impl Store for Savepoints {
    fn url(&self) -> String {
        self.folder.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.steps.before("savepoint.create", name);
        self.folder.create(name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.folder.read(name, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.folder.open(name)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.steps.before("savepoint.copy-file", name);
        self.folder.writer(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.folder.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.folder.delete(name)
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        self.folder.sweep_leftovers(folder)
    }
}
