//! Finds the jobs in a folder and reads their logs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, io};

use cutwater_config::Config;
use cutwater_coordinator::inspect::{
    LogEntry, LogEntryKind, MAX_RECORD_BYTES, boundary_name, boundary_of, first_slot, is_whole, read_boundary,
    read_slot, slot_name, slot_of,
};
use cutwater_coordinator::{CompletedCheckpoint, OpenError, Outcome};
use cutwater_runtime::{StoreResolver, job_folder};
use cutwater_storage::{InvalidLocation, LocalFolder, ObjectName, Store, read_checked};
use serde::Serialize;

use crate::failure::{Exit, Failure, chain};
use crate::report::{Problem, ProblemKind};
use crate::text::duration;

/// The folder of one job's checkpoints.
#[derive(Debug)]
pub(crate) struct JobFolder {
    /// For people; also for the system, if it is a folder of this machine.
    pub(crate) path: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    /// Whether it is a folder of this machine.
    pub(crate) local: bool,
}

/// A folder that is there, whatever is in it.
pub(crate) fn folder_at(location: &str) -> Result<JobFolder, Failure> {
    let store = match LocalFolder::parse(location) {
        Ok(store) => store,
        Err(InvalidLocation::OtherScheme { .. }) => {
            let store = remote(location)?;
            return Ok(JobFolder { path: PathBuf::from(store.url()), store, local: false });
        }
        Err(error) => return Err(Failure::new(Exit::Usage, error.to_string())),
    };
    let path = store.path().to_owned();
    let shown = path.display().to_string();
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(Failure::new(Exit::NotFound, format!("{shown} is a file: give a folder of checkpoints"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(Exit::NotFound, format!("{shown} is not there: give a folder of checkpoints")));
        }
        Err(error) => return Err(unreadable(&path, &error)),
    }
    Ok(JobFolder { path, store: Arc::new(store), local: true })
}

/// The store at the URL of something else than a folder of this machine. Of the configuration only the environment is read: a
/// file in the working folder may be of another job.
pub(crate) fn remote(url: &str) -> Result<Arc<dyn Store>, Failure> {
    let config = Config::new().environment(env::vars_os()).resolve()?;
    let store = StoreResolver::from_config(&config).and_then(|stores| stores.store_at(url));
    store.map_err(|error| Failure::new(Exit::Usage, chain(&error)).with_code(error.code()))
}

/// The jobs at a location: the one whose folder it is, or all in the folder, by name.
pub(crate) fn jobs(location: &str) -> Result<Vec<JobFolder>, Failure> {
    let folder = folder_at(location)?;
    if has_log(folder.store.as_ref())? {
        return Ok(vec![folder]);
    }
    let shown = folder.path.display().to_string();
    let mut jobs = if folder.local { folders_in(&folder.path)? } else { jobs_below(&folder)? };
    jobs.sort_by(|a, b| a.path.cmp(&b.path));
    if jobs.is_empty() {
        let message = format!("{shown} holds no checkpoints: give the folder of a job's checkpoints, or the one above");
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(jobs)
}

/// The jobs whose folders are in one of a store elsewhere.
fn jobs_below(folder: &JobFolder) -> Result<Vec<JobFolder>, Failure> {
    let listed = folder.store.list("")?;
    let split = listed.iter().filter_map(|listed| listed.name.as_str().split_once('/'));
    let jobs: BTreeSet<&str> = split.filter(|(_, rest)| slot_of(rest).is_some()).map(|(job, _)| job).collect();
    let below = |job: &str| {
        let store = job_folder(Arc::clone(&folder.store), job);
        JobFolder { path: PathBuf::from(store.url()), store, local: false }
    };
    Ok(jobs.into_iter().map(below).collect())
}

/// The jobs whose folders are in one of this machine.
fn folders_in(path: &Path) -> Result<Vec<JobFolder>, Failure> {
    let mut jobs = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        // Of other folders than ours, some may not be ours to read.
        if !entry.path().join("log").is_dir() {
            continue;
        }
        let store = LocalFolder::new(entry.path());
        if has_log(&store)? {
            jobs.push(JobFolder { path: entry.path(), store: Arc::new(store), local: true });
        }
    }
    Ok(jobs)
}

/// The only job at a location.
pub(crate) fn only_job(location: &str) -> Result<JobFolder, Failure> {
    let mut jobs = jobs(location)?;
    if jobs.len() > 1 {
        let names = jobs.iter().filter_map(|job| job.path.file_name()).map(|name| name.display().to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        let message = format!("{location} holds several jobs: give the folder of one of them ({names})");
        return Err(Failure::new(Exit::Usage, message));
    }
    jobs.pop().ok_or_else(|| Failure::new(Exit::NotFound, format!("{location} holds no checkpoints")))
}

fn has_log(store: &dyn Store) -> Result<bool, Failure> {
    Ok(store.list("log/")?.iter().any(|listed| slot_of(listed.name.as_str()).is_some()))
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("could not read {}: {error}", path.display()))
}

/// The log of one job, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) job: String,
    /// By slot.
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    /// The slots of the checkpoints whose files are kept.
    pub(crate) retained: BTreeSet<u64>,
    pub(crate) problems: Vec<Problem>,
}

/// One line of `list`, and the head of the other reports.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) checkpoint: u64,
    pub(crate) epoch: u64,
    pub(crate) attempt: u32,
    pub(crate) slot: u64,
    /// 0: not known.
    pub(crate) completed_at_unix_ms: u64,
    pub(crate) duration_ns: u64,
    pub(crate) state_bytes: u64,
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    #[serde(rename = "final")]
    pub(crate) final_: bool,
    pub(crate) retained: bool,
}

impl Summary {
    pub(crate) fn of(checkpoint: &CompletedCheckpoint, log: &Log) -> Self {
        Self {
            checkpoint: checkpoint.checkpoint.0,
            epoch: checkpoint.epoch.0,
            attempt: checkpoint.attempt.0,
            slot: checkpoint.slot,
            completed_at_unix_ms: checkpoint.completed_at_unix_ms,
            duration_ns: nanos(checkpoint.duration),
            state_bytes: checkpoint.state_bytes(),
            files: checkpoint.files().count() as u64,
            file_bytes: checkpoint.files().fold(0, |sum, file| sum.saturating_add(file.bytes)),
            final_: checkpoint.is_final(),
            retained: log.retained.contains(&checkpoint.slot),
        }
    }

    pub(crate) fn took(&self) -> String {
        duration(std::time::Duration::from_nanos(self.duration_ns))
    }
}

pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl JobFolder {
    /// The path of an object.
    pub(crate) fn path_of(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Reads all records that count, and notes what is wrong with them.
    pub(crate) fn log(&self) -> Result<Log, Failure> {
        let mut problems = Vec::new();
        let boundaries: BTreeSet<u64> = self.numbers("boundary/", boundary_of)?;
        let newest_boundary = boundaries.last().copied().unwrap_or(0);
        for k in 1..=newest_boundary {
            problems.extend(self.record(&boundary_name(k), read_boundary).err());
        }
        let first = first_slot(newest_boundary);
        let slots = self.numbers("log/", slot_of)?;
        let last = slots.last().copied().unwrap_or(0);
        let mut entries = BTreeMap::new();
        for slot in first..=last {
            match self.record(&slot_name(slot), read_slot) {
                Ok(entry) => drop(entries.insert(slot, entry)),
                Err(problem) => problems.push(problem),
            }
            if problems.len() > 10_000 {
                break; // an absurd number in a file's name; these are enough
            }
        }
        let newest = entries.last_key_value().and_then(|(slot, entry)| match entry.kind {
            LogEntryKind::Completed { .. } => Some(*slot),
            LogEntryKind::Ended { discarded: true, .. } => None,
            LogEntryKind::Claim { .. } | LogEntryKind::Ended { discarded: false, .. } => entry.newest,
        });
        // It may have gone with an end of the job.
        let is_end = |slot: &u64| {
            entries.get(slot).is_some_and(|entry| matches!(entry.kind, LogEntryKind::Ended { discarded: true, .. }))
        };
        let newest = newest.filter(|slot| !is_end(slot));
        let mut retained = BTreeSet::new();
        if let Some(newest) = newest {
            retained.insert(newest);
            if let Some(LogEntryKind::Completed { retained: others, .. }) =
                entries.get(&newest).map(|entry| &entry.kind)
            {
                retained.extend(others);
            }
        }
        for slot in &retained {
            let is_checkpoint = |entry: &LogEntry| matches!(entry.kind, LogEntryKind::Completed { .. });
            // What is not among the entries but should be is a problem already.
            if entries.get(slot).is_some_and(|entry| !is_checkpoint(entry)) || *slot < first {
                let reason = "a later record says it is a checkpoint, and it is not";
                problems.push(Problem::new(self.path_of(&slot_name(*slot)), ProblemKind::Damaged, reason));
            }
        }
        let mut job: Option<&str> = None;
        for entry in entries.values() {
            let job = *job.get_or_insert(&entry.job);
            if job != entry.job {
                let reason = format!("it is a record of job {:?}, the log is of {job:?}", entry.job);
                problems.push(Problem::new(self.path_of(&slot_name(entry.slot)), ProblemKind::Damaged, reason));
            }
        }
        let folder = || self.path.file_name().map_or_else(String::new, |name| name.display().to_string());
        let job = job.map_or_else(folder, str::to_owned);
        Ok(Log { job, entries, retained, problems })
    }

    fn numbers(&self, folder: &str, number_of: fn(&str) -> Option<u64>) -> Result<BTreeSet<u64>, Failure> {
        Ok(self.store.list(folder)?.iter().filter_map(|listed| number_of(listed.name.as_str())).collect())
    }

    fn record<T>(&self, name: &str, decode: fn(&str, &[u8]) -> Result<T, OpenError>) -> Result<T, Problem> {
        let object = ObjectName::parse(name).expect("a folder and digits");
        let path = || self.path_of(name);
        match read_checked(self.store.as_ref(), &object, MAX_RECORD_BYTES, |bytes| is_whole(name, bytes)) {
            Ok(Some(bytes)) => decode(name, &bytes).map_err(|error| Problem::of_record(path(), &error)),
            Ok(None) => Err(Problem::new(path(), ProblemKind::Missing, "it is not there, and later ones are")),
            Err(error) => Err(Problem::of_store(path(), &error)),
        }
    }
}

impl Log {
    /// As if there were just this checkpoint.
    pub(crate) fn of_one(checkpoint: &CompletedCheckpoint) -> Self {
        let retained = BTreeSet::from([checkpoint.slot]);
        Self { job: checkpoint.job.clone(), entries: BTreeMap::new(), retained, problems: Vec::new() }
    }

    /// The checkpoints whose records are there, oldest first.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = &CompletedCheckpoint> {
        self.entries.values().filter_map(|entry| match &entry.kind {
            LogEntryKind::Completed { checkpoint, .. } => Some(checkpoint.as_ref()),
            LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
        })
    }

    /// The retained ones, oldest first.
    pub(crate) fn retained(&self) -> impl Iterator<Item = &CompletedCheckpoint> {
        self.checkpoints().filter(|checkpoint| self.retained.contains(&checkpoint.slot))
    }

    /// How the job ended, if its last record says so, and whether its checkpoints were deleted with that.
    pub(crate) fn outcome(&self) -> Option<(&Outcome, bool)> {
        match &self.entries.last_key_value()?.1.kind {
            LogEntryKind::Ended { outcome, discarded } => Some((outcome, *discarded)),
            LogEntryKind::Claim { .. } | LogEntryKind::Completed { .. } => None,
        }
    }

    /// The numbers of the retained checkpoints, for messages.
    pub(crate) fn retained_ids(&self) -> String {
        let ids: Vec<_> = self.retained().map(|checkpoint| checkpoint.checkpoint.to_string()).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    }
}
