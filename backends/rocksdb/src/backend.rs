use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{
    AttachedTier, Capabilities, ColdBatch, ColdError, ColdFound, ColdImage, ColdLoad, ColdState, ColdTier, ColdView,
    ColdVisitor, ImageSource, StateBackend, StateHeader, TierOwner,
};

use crate::error::folder_failed;
use crate::steps::{Step, StepHook, Steps};
use crate::{RocksBudget, RocksTier};

/// Keeps the state of the keys that were used last in memory, and that of the others in RocksDB on a local disk: state may be larger than
/// memory. The configuration calls it `rocksdb`.
///
/// A key comes and goes with all entries of its map or list; of timers those are in memory that fire next. What has expired goes
/// when its file is rewritten. Operator states stay in memory whole. The databases live as long as the attempts of the job that they belong to; what outlives the process are checkpoints, which are the same as those of state in memory: a job can
/// change its backend from one start to the next.
///
/// ```no_run
/// use std::path::Path;
///
/// use cutwater_rocksdb::{RocksBudget, RocksDbBackend};
///
/// // 64 MiB of each state and subtask in memory, the rest below a folder of a fast disk.
/// let backend = RocksDbBackend::new(Some(Path::new("/mnt/nvme/state")), 64 << 20, RocksBudget::default());
/// ```
#[derive(Debug)]
pub struct RocksDbBackend {
    below: Option<PathBuf>,
    overlay_bytes: u64,
    budget: RocksBudget,
    steps: Steps,
    /// Made at the first use.
    home: Mutex<Option<Arc<Home>>>,
}

/// The folder of the process, with those of its tiers. It goes with the last of them.
#[derive(Debug)]
struct Home {
    folder: PathBuf,
    steps: Steps,
    /// Locked as long as the process uses the folder: who can lock it may remove that.
    _owner: File,
}

/// Folders of processes begin with it; until they have an owner, with the other.
const PREFIX: &str = "cutwater-rocksdb-";
const YOUNG: &str = ".young-cutwater-rocksdb-";
const OWNER: &str = "OWNER";

impl RocksDbBackend {
    /// A backend whose databases lie in folders of their own below `below`, without one where temporary files go. About
    /// `overlay_bytes` of each state and subtask stay in memory. Nothing is made before a job starts.
    #[must_use]
    pub fn new(below: Option<&Path>, overlay_bytes: u64, budget: RocksBudget) -> Self {
        let steps = Steps::default();
        Self { below: below.map(Path::to_owned), overlay_bytes, budget, steps, home: Mutex::new(None) }
    }

    /// The same backend, where `steps` is asked before each step that changes the disk: an error fails the step instead of
    /// taking it. One that ends the process is a process that was killed there.
    #[must_use]
    pub fn with_steps(self, steps: StepHook) -> Self {
        Self { steps: Steps::new(steps), ..self }
    }

    fn home(&self) -> Result<Arc<Home>, ColdError> {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = &*home {
            return Ok(Arc::clone(home));
        }
        let below = self.below.clone().unwrap_or_else(std::env::temp_dir);
        let made = Home::new(&below, &self.steps).map_err(|error| folder_failed(&below, &error))?;
        Ok(Arc::clone(home.insert(Arc::new(made))))
    }
}

impl Home {
    fn new(below: &Path, steps: &Steps) -> io::Result<Self> {
        fs::create_dir_all(below)?;
        sweep(below, steps)?;
        let process = std::process::id();
        let mut tries = 1;
        loop {
            let unused = unused();
            let young = below.join(format!("{YOUNG}{process}-{unused:016x}"));
            match Self::make(&young, below.join(format!("{PREFIX}{process}-{unused:016x}")), steps) {
                // Another one has taken it for a dead one's, and swept it, before it had its owner.
                Err(error) if is_swept(&error) && tries < MOST_TRIES => tries += 1,
                made => return made,
            }
        }
    }

    /// It is `young` until it has its owner.
    fn make(young: &Path, folder: PathBuf, steps: &Steps) -> io::Result<Self> {
        steps.ask(Step::MakeHome, young)?;
        private_dir(young)?;
        let owner = File::create_new(young.join(OWNER))?;
        owner.try_lock()?;
        steps.ask(Step::NameHome, &folder)?;
        fs::rename(young, &folder)?;
        Ok(Self { folder, steps: steps.clone(), _owner: owner })
    }
}

/// A number that no folder has had before: one that sweeps may have opened the owner of a folder that is gone by now, and would
/// lock it and remove what has its name.
#[expect(clippy::disallowed_methods, reason = "nothing but the name of a temporary folder depends on it")]
fn unused() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn is_swept(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock)
}

/// Makes a folder that nobody but its owner can look into: state lies in it, and it may be where everybody's temporary files go.
fn private_dir(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// So often a folder may be swept while it is being made.
const MOST_TRIES: u32 = 100;

impl Drop for Home {
    fn drop(&mut self) {
        if self.steps.ask(Step::RemoveHome, &self.folder).is_ok() {
            drop(remove(&self.folder)); // what can't be removed now is swept by the next process
        }
    }
}

/// Removes the folder of a process, and the file of its owner last: where that is missing nobody looks for more.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != OWNER {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(folder.join(OWNER))?;
    fs::remove_dir(folder)
}

/// Removes the folders of processes that have ended without doing so.
fn sweep(below: &Path, steps: &Steps) -> io::Result<()> {
    for entry in fs::read_dir(below)? {
        let entry = entry?;
        let name = entry.file_name();
        if ![PREFIX, YOUNG].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let Ok(owner) = File::open(entry.path().join(OWNER)) else {
            // Somebody makes or sweeps it; or was killed while he did, and it is empty.
            drop(fs::remove_dir(entry.path()));
            continue;
        };
        match owner.try_lock() {
            // What can't be removed is somebody else's, or just being removed: no reason not to start.
            Ok(()) => {
                steps.ask(Step::SweepHome, &entry.path())?;
                drop(remove(&entry.path()));
            }
            Err(TryLockError::WouldBlock) => {} // it lives
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

impl StateBackend for RocksDbBackend {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cold_tier: true, images: true }
    }

    fn prepare(&self) -> Result<(), ColdError> {
        self.home().map(drop)
    }

    fn open_tier(&self, owner: &TierOwner) -> Result<Option<AttachedTier>, ColdError> {
        let TierOwner { job, subtask, epoch, attempt } = owner;
        let home = self.home()?;
        let (task, index) = (subtask.task.0, subtask.index);
        let folder = home.folder.join(format!("{job}-{}-{}-{task}-{index}", epoch.0, attempt.0));
        let (budget, steps) = (self.budget.clone(), self.steps.clone());
        let tier = Arc::new(OwnTier { folder, budget, steps, tier: OnceLock::new(), _home: home });
        Ok(Some(AttachedTier { tier, overlay_bytes: self.overlay_bytes }))
    }
}

/// The tier of a subtask, made at the first state that it has. Dropping it removes its folder.
#[derive(Debug)]
struct OwnTier {
    folder: PathBuf,
    budget: RocksBudget,
    steps: Steps,
    tier: OnceLock<RocksTier>,
    _home: Arc<Home>,
}

impl OwnTier {
    fn made(&self) -> Result<&RocksTier, ColdError> {
        if self.tier.get().is_none() {
            // Only the one thread that builds the subtask opens states.
            let tier = RocksTier::create_with(&self.folder, &self.budget, &self.steps)?;
            drop(self.tier.set(tier));
        }
        self.tier.get().ok_or_else(|| ColdError {
            action: "open the database".into(),
            reason: "it is gone: a bug of Cutwater".into(),
        })
    }
}

impl ColdTier for OwnTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.made()?.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        self.made()?.get(state, names, found)
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        self.made()?.get_all(state, prefixes, found)
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.made()?.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.made()?.write(state, batch)
    }

    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        self.made()?.load(state)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.made()?.view()
    }

    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        self.made()?.image()
    }

    fn import(&self, images: &[&dyn ImageSource], groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        let (tier, goes_on) = RocksTier::from_images_with(&self.folder, &self.budget, &self.steps, images, groups)?;
        match self.tier.set(tier) {
            Ok(()) => Ok(goes_on),
            Err(open) => open.import(images, groups), // refuses
        }
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.made()?.about(state)
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        if let Some(tier) = self.tier.get() {
            tier.expire(state, horizon);
        }
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        self.tier.get().map_or(Ok(()), |tier| tier.keep_only(states))
    }
}

impl Drop for OwnTier {
    fn drop(&mut self) {
        if let Some(tier) = self.tier.take() {
            drop(tier); // closes the database, unless a view still reads from it: its files are open and can go
            if self.steps.ask(Step::Remove, &self.folder).is_ok() {
                drop(fs::remove_dir_all(&self.folder)); // what can't be removed now goes with the folder above
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(below: &Path) -> Vec<String> {
        let entries = fs::read_dir(below).expect("it is there");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Wherever a process was killed while it made or removed its folder.
    #[test]
    fn all_that_the_dead_leave_is_swept() {
        let folder = tempfile::tempdir().expect("temporary");
        let below = folder.path();
        let make = |name: &str, content: &[&str]| {
            fs::create_dir_all(below.join(name)).expect("new");
            content.iter().for_each(|file| {
                let path = below.join(name).join(file);
                fs::create_dir_all(path.parent().expect("below")).expect("new");
                fs::write(path, "x").expect("new");
            });
        };
        make(".young-cutwater-rocksdb-1-0", &[]);
        make(".young-cutwater-rocksdb-1-1", &[OWNER]);
        make("cutwater-rocksdb-2-0", &[OWNER, "job-1-1-0-0/CURRENT", "file"]);
        make("cutwater-rocksdb-2-1", &[OWNER]);
        make("cutwater-rocksdb-2-2", &[]);
        make("of-somebody-else", &["file"]);
        make("cutwater-rocksdb-3-0", &[OWNER]);
        let living = File::open(below.join("cutwater-rocksdb-3-0").join(OWNER)).expect("it is there");
        living.try_lock().expect("nobody has it");
        let home = Home::new(below, &Steps::default()).expect("a folder");
        let own = home.folder.file_name().expect("it has a name").to_string_lossy().into_owned();
        let mut expected = ["cutwater-rocksdb-3-0", own.as_str(), "of-somebody-else"];
        let mut left = names(below);
        left.sort_unstable();
        expected.sort_unstable();
        assert_eq!(left, expected);
        drop(home);
        assert!(!names(below).contains(&own));
    }

    /// Of the dead or the living, whoever sweeps meanwhile: each that starts has a folder of its own.
    #[test]
    fn many_that_start_at_once_have_folders_of_their_own() {
        let folder = tempfile::tempdir().expect("temporary");
        let made = std::thread::scope(|threads| {
            let start = || {
                let homes = (0..50).map(|_| Home::new(folder.path(), &Steps::default()).expect("a folder"));
                homes.collect::<Vec<_>>()
            };
            let running: Vec<_> = (0..4).map(|_| threads.spawn(start)).collect();
            running.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        let own: std::collections::BTreeSet<_> = made.iter().map(|home| home.folder.clone()).collect();
        assert_eq!(own.len(), 200);
        assert!(own.iter().all(|folder| folder.join(OWNER).is_file()));
        drop(made);
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
