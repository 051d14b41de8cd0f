//! Counts the durable steps of this process, by name, and ends it at one of them, or lets one fail.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cutwater::OptionsError;
use cutwater::object_store::{ObjectStorage, Settings};
use cutwater::storage::{
    CreateError, Files, HookedFiles, Leftover, Listed, LocalFolder, ObjectName, ObjectReader, ObjectWriter, OsFiles,
    Store, StoreError, StoreErrorKind,
};
use signal_hook::consts::SIGKILL;

/// One step of the process: `NAME:NUMBER`, the first of a name being 1; `NAME:NUMBER+MILLISECONDS` for a moment after it began.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    name: String,
    number: u64,
    after: Duration,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (step, after) = text.split_once('+').unwrap_or((text, "0"));
        let (name, number) = step.rsplit_once(':').unwrap_or_default();
        let after = after.parse().ok().and_then(|after: f64| Duration::try_from_secs_f64(after / 1_000.0).ok());
        let (Ok(number), Some(after)) = (number.parse(), after) else {
            return Err(format!("{text:?} is neither NAME:NUMBER nor NAME:NUMBER+MILLISECONDS"));
        };
        Ok(Self { name: name.to_owned(), number, after })
    }
}

impl Moment {
    fn is(&self, name: &str, number: u64) -> bool {
        self.name == name && self.number == number
    }
}

/// All steps of the process.
#[derive(Debug)]
pub(crate) struct Steps {
    death: Option<Moment>,
    failure: Option<Moment>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Steps {
    pub(crate) fn new(death: Option<Moment>, failure: Option<Moment>) -> Arc<Self> {
        Arc::new(Self { death, failure, counts: Mutex::default() })
    }

    /// How often each step has been taken.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Called before each step. The lock is held into death, so that no other thread takes a step any more.
    pub(crate) fn before(&self, name: &str, path: &dyn Display) -> io::Result<()> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        if let Some(death) = self.death.as_ref().filter(|death| death.is(name, *count)) {
            let after = death.after;
            if after.is_zero() {
                eprintln!("dies before {name} number {count}, of {path}");
                die();
            }
            eprintln!("dies {after:?} into {name} number {count}, of {path}");
            thread::spawn(move || {
                thread::park_timeout(after);
                die();
            });
        }
        if self.failure.as_ref().is_some_and(|failure| failure.is(name, *count)) {
            return Err(io::Error::other(format!("{name} number {count} was to fail")));
        }
        Ok(())
    }

    /// Where checkpoints go: a folder, or one in a bucket. The names of its steps begin so.
    pub(crate) fn store(self: &Arc<Self>, url: &str, prefix: &'static str) -> Result<Arc<dyn Store>, OptionsError> {
        let steps = Arc::clone(self);
        if !url.starts_with("s3://") {
            let folder = LocalFolder::new(Path::new(url.strip_prefix("file://").unwrap_or(url)));
            let hook = move |step, path: &Path| steps.before(&format!("{prefix}{step}"), &path.display());
            return Ok(Arc::new(folder.with_steps(Arc::new(hook))));
        }
        let opened = ObjectStorage::open(url, &Settings::default());
        let opened = opened.map_err(|source| OptionsError::ObjectStore { url: url.to_owned(), source })?;
        let hook = move |step, path: &str| steps.before(&format!("{prefix}{step}"), &path);
        Ok(Arc::new(opened.with_steps(Arc::new(hook))))
    }

    /// The file system of a sink.
    pub(crate) fn files(self: &Arc<Self>) -> Arc<dyn Files> {
        let steps = Arc::clone(self);
        let hook =
            move |step: cutwater::storage::FileStep, path: &Path| steps.before(&step.to_string(), &path.display());
        Arc::new(HookedFiles::new(Arc::new(OsFiles::shared()), hook))
    }
}

fn die() {
    let error = signal_hook::low_level::raise(SIGKILL);
    unreachable!("nothing outlives SIGKILL: {error:?}");
}

/// Where savepoints go: beside the steps of the folder, those that the simulation knows.
#[derive(Debug)]
pub(crate) struct Savepoints {
    store: Arc<dyn Store>,
    steps: Arc<Steps>,
}

impl Savepoints {
    pub(crate) fn new(steps: &Arc<Steps>, url: &str) -> Result<Self, OptionsError> {
        Ok(Self { store: steps.store(url, "savepoint.")?, steps: Arc::clone(steps) })
    }

    fn failed(&self, action: &'static str, name: &ObjectName, error: io::Error) -> StoreError {
        StoreError::new(StoreErrorKind::Other, action, self.url(), name.as_str()).because(error)
    }
}

impl Store for Savepoints {
    fn url(&self) -> String {
        self.store.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        let failed = |error| CreateError::Failed { source: self.failed("create", name, error) };
        self.steps.before("savepoint.create", name).map_err(failed)?;
        self.store.create(name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.store.open(name)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let failed = |error| self.failed("write", name, error);
        self.steps.before("savepoint.copy-file", name).map_err(failed)?;
        self.store.writer(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        self.store.sweep_leftovers(folder)
    }

    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        self.store.leftovers(folder)
    }
}
