use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cutwater_state::ColdError;

/// A step of [`RocksDbBackend`](crate::RocksDbBackend) that changes the disk, in the order in which the databases of a process
/// come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Removes the folder of a process that has ended without doing so.
    SweepHome,
    /// Makes the folder of the process under a name that begins with `.`, with a file that is locked as long as it lives.
    MakeHome,
    /// Gives it its name.
    NameHome,
    /// Links or copies a file of an image into the folder of a database.
    Fetch,
    /// Opens a database, which is made if it is not there.
    Open,
    /// Links the files that several databases have of a state, and takes them over.
    TakeOver,
    /// Reads what a database has of a state, and writes it into another.
    Copy,
    /// Deletes what a database has of other key groups.
    Clip,
    /// Rids the files of it, beside the use of the database.
    Clean,
    /// Writes a batch of entries.
    Write,
    /// Writes a file of entries, which the database takes over.
    Load,
    /// Writes what is in memory into files, and links all files into the folder of an image.
    MakeImage,
    /// Removes the folder of an image.
    RemoveImage,
    /// Removes the folder of a database.
    Remove,
    /// Removes the folder of the process.
    RemoveHome,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 15] = [
        Self::SweepHome,
        Self::MakeHome,
        Self::NameHome,
        Self::Fetch,
        Self::Open,
        Self::TakeOver,
        Self::Copy,
        Self::Clip,
        Self::Clean,
        Self::Write,
        Self::Load,
        Self::MakeImage,
        Self::RemoveImage,
        Self::Remove,
        Self::RemoveHome,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SweepHome => "rocksdb.home.sweep",
            Self::MakeHome => "rocksdb.home.make",
            Self::NameHome => "rocksdb.home.name",
            Self::Fetch => "rocksdb.import.fetch",
            Self::Open => "rocksdb.open",
            Self::TakeOver => "rocksdb.import.take-over",
            Self::Copy => "rocksdb.import.copy",
            Self::Clip => "rocksdb.import.clip",
            Self::Clean => "rocksdb.import.clean",
            Self::Write => "rocksdb.write",
            Self::Load => "rocksdb.load",
            Self::MakeImage => "rocksdb.image.make",
            Self::RemoveImage => "rocksdb.image.remove",
            Self::Remove => "rocksdb.remove",
            Self::RemoveHome => "rocksdb.home.remove",
        })
    }
}

/// What [`RocksDbBackend::with_steps`](crate::RocksDbBackend::with_steps) asks before each step; the path is what the step
/// changes. An error fails the step.
pub type StepHook = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

/// The hook, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Steps(Option<StepHook>);

impl Steps {
    pub(crate) fn new(hook: StepHook) -> Self {
        Self(Some(hook))
    }

    pub(crate) fn ask(&self, step: Step, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(step, path))
    }

    /// The same for a tier.
    pub(crate) fn before(&self, step: Step, path: &Path) -> Result<(), ColdError> {
        self.ask(step, path).map_err(|error| ColdError {
            action: format!("take the step {step} of {}", path.display()).into(),
            reason: error.to_string().into(),
        })
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steps").field(&self.0.is_some()).finish()
    }
}
