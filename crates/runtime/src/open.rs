use std::collections::BTreeSet;
use std::sync::Arc;

use cutwater_coordinator::inspect::{
    LogEntry, LogEntryKind, MAX_RECORD_BYTES, boundary_of, first_slot, is_whole, read_slot, slot_name, slot_of,
};
use cutwater_coordinator::{CompletedCheckpoint, OpenError, SAVEPOINT_NAME};
use cutwater_core::{CheckpointId, SubtaskId};
use cutwater_storage::{InvalidName, ObjectName, Store, StoreError, read_checked};
use cutwater_task::{SnapshotError, TaskSnapshot};

use crate::place::{OptionsError, job_folder, store_at};
use crate::savepoint::{CopyError, read_savepoint};

/// Why no checkpoint could be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenCheckpointError {
    /// The location is of a kind that is not built.
    #[error(transparent)]
    Location(#[from] OptionsError),
    /// Neither the folder nor one directly below it has a job's log.
    #[error(
        "{url} holds no checkpoint: give the folder of a savepoint or of a job's checkpoints, or the one above that"
    )]
    NoLog {
        /// What was given.
        url: String,
    },
    /// There are several jobs below the folder.
    #[error("{url} holds checkpoints of several jobs: give the folder of one of them ({})", jobs.join(", "))]
    SeveralJobs {
        /// What was given.
        url: String,
        /// The jobs' folders in it, in the order of their names.
        jobs: Vec<String>,
    },
    /// The job has a log, and no checkpoint has completed yet, or they were deleted when it ended.
    #[error(
        "{url} is the folder of a job that has completed no checkpoint yet, or whose checkpoints were deleted when it ended: \
         start the job from nothing"
    )]
    NoCheckpoint {
        /// The job's folder.
        url: String,
    },
    /// The log is damaged, or of a newer version.
    #[error("can't use the log in {url}")]
    Log {
        /// The job's folder.
        url: String,
        /// Why, naming the object.
        source: OpenError,
    },
    /// What a subtask stored in the checkpoint's record can't be read.
    #[error("{url}/{name}, checkpoint {checkpoint}: the part of {subtask} can't be used")]
    Part {
        /// The job's folder.
        url: String,
        /// The record.
        name: String,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The subtask.
        subtask: SubtaskId,
        /// Why.
        source: SnapshotError,
    },
    /// A file of the checkpoint has a name that the store can't have.
    #[error("{url}/{record} names a file that can't be one")]
    Name {
        /// The job's folder.
        url: String,
        /// The record.
        record: String,
        /// The name, and the rules.
        source: InvalidName,
    },
    /// What makes the folder a savepoint can't be used.
    #[error(transparent)]
    Savepoint(#[from] CopyError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds a savepoint, or the newest checkpoint in a folder of another job, or of the same job elsewhere, to start from it:
/// give both parts of the result to [`StartFrom::Checkpoint`](crate::StartFrom::Checkpoint).
///
/// `path_or_url` is what [`store_at`] takes: the folder of a savepoint, or that of one job's checkpoints, which has a
/// folder `log`, or the folder above that if there is just one job. Only reads: no folder is created, no log is claimed, and the job may be
/// running. The checkpoint's record is checked whole; its files are checked when they are restored.
///
/// # Errors
///
/// [`OpenCheckpointError`]: nothing there, several jobs, no checkpoint completed, a record that is damaged, missing or
/// of a newer version (the error names the object), or a folder that can't be read.
///
/// ```
/// use cutwater_runtime::{OpenCheckpointError, open_checkpoint};
///
/// let error = open_checkpoint("no/such/folder").unwrap_err();
/// assert!(matches!(error, OpenCheckpointError::NoLog { .. }));
/// ```
pub fn open_checkpoint(path_or_url: &str) -> Result<(CompletedCheckpoint, Arc<dyn Store>), OpenCheckpointError> {
    open_checkpoint_in(store_at(path_or_url)?)
}

/// The same in a store.
pub(crate) fn open_checkpoint_in(
    store: Arc<dyn Store>,
) -> Result<(CompletedCheckpoint, Arc<dyn Store>), OpenCheckpointError> {
    if let Some(savepoint) = read_savepoint(store.as_ref())? {
        check(store.as_ref(), &savepoint.checkpoint, SAVEPOINT_NAME)?;
        return Ok((savepoint.checkpoint, store));
    }
    let store = if has_log(store.as_ref())? { store } else { only_job(store)? };
    let checkpoint = newest(store.as_ref())?;
    check(store.as_ref(), &checkpoint, &slot_name(checkpoint.slot))?;
    Ok((checkpoint, store))
}

fn has_log(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.list("log/")?.iter().any(|listed| slot_of(listed.name.as_str()).is_some()))
}

/// The part of the store that belongs to its only job.
fn only_job(store: Arc<dyn Store>) -> Result<Arc<dyn Store>, OpenCheckpointError> {
    let listed = store.list("")?;
    let split = listed.iter().filter_map(|listed| listed.name.as_str().split_once('/'));
    let jobs: BTreeSet<&str> = split.filter(|(_, rest)| slot_of(rest).is_some()).map(|(job, _)| job).collect();
    let mut jobs = jobs.into_iter();
    match (jobs.next(), jobs.next()) {
        (None, _) => Err(OpenCheckpointError::NoLog { url: store.url() }),
        (Some(job), None) => Ok(job_folder(Arc::clone(&store), job)),
        (Some(first), Some(second)) => Err(OpenCheckpointError::SeveralJobs {
            url: store.url(),
            jobs: [first, second].into_iter().chain(jobs).map(str::to_owned).collect(),
        }),
    }
}

/// The newest completed checkpoint of a job's log.
///
/// A listing finds the end of the log; that is good enough to look at, while whoever appends relies on none. From there
/// the records themselves say where the newest checkpoint is, so that a lost record does not silently lead to an older.
fn newest(store: &dyn Store) -> Result<CompletedCheckpoint, OpenCheckpointError> {
    let boundaries = store.list("boundary/")?;
    let boundary = boundaries.iter().filter_map(|listed| boundary_of(listed.name.as_str())).max();
    let first = first_slot(boundary.unwrap_or(0));
    let slots = store.list("log/")?;
    let last = slots.iter().filter_map(|listed| slot_of(listed.name.as_str())).filter(|slot| *slot >= first).max();
    let none = || OpenCheckpointError::NoCheckpoint { url: store.url() };
    let mut entry = read(store, last.ok_or_else(none)?)?;
    let settles = |entry: &LogEntry| {
        matches!(entry.kind, LogEntryKind::Completed { .. } | LogEntryKind::Ended { discarded: true, .. })
    };
    if !settles(&entry) {
        entry = read(store, entry.newest.ok_or_else(none)?)?;
    }
    match entry.kind {
        LogEntryKind::Completed { checkpoint, .. } => Ok(*checkpoint),
        LogEntryKind::Ended { discarded: true, .. } => Err(none()),
        LogEntryKind::Claim { .. } | LogEntryKind::Ended { discarded: false, .. } => {
            Err(damaged(store, entry.slot, "a later record says it is a checkpoint, and it is not"))
        }
    }
}

fn read(store: &dyn Store, slot: u64) -> Result<LogEntry, OpenCheckpointError> {
    let name = slot_name(slot);
    let object = ObjectName::parse(&name).expect("a folder and digits");
    match read_checked(store, &object, MAX_RECORD_BYTES, |bytes| is_whole(&name, bytes))? {
        Some(bytes) => read_slot(&name, &bytes).map_err(|source| OpenCheckpointError::Log { url: store.url(), source }),
        None => Err(damaged(store, slot, "it is missing, and a later record refers to it")),
    }
}

fn damaged(store: &dyn Store, slot: u64, reason: &str) -> OpenCheckpointError {
    let source = OpenError::Corrupt { name: slot_name(slot), reason: reason.to_owned() };
    OpenCheckpointError::Log { url: store.url(), source }
}

/// Whether all that the record holds can be read.
fn check(store: &dyn Store, checkpoint: &CompletedCheckpoint, record: &str) -> Result<(), OpenCheckpointError> {
    for part in checkpoint.tasks.iter().flat_map(|task| &task.subtasks) {
        TaskSnapshot::decode(&part.inline).map_err(|source| OpenCheckpointError::Part {
            url: store.url(),
            name: record.to_owned(),
            checkpoint: checkpoint.checkpoint,
            subtask: part.subtask,
            source,
        })?;
    }
    for file in checkpoint.files() {
        ObjectName::parse(&file.name).map_err(|source| OpenCheckpointError::Name {
            url: store.url(),
            record: record.to_owned(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use cutwater_config::{Config, Settings};
    use cutwater_dataflow::{Collect, Job, JobGraph, generator};

    use super::*;
    use crate::{JobOutcome, Options, StartFrom, run};

    fn graph(name: &str, out: &Collect<(u64, u64)>) -> JobGraph {
        let job = Job::new(name);
        job.source("numbers", generator(1_000, |n| n))
            .key_by(|n| n % 10)
            .fold("counts", 0u64, |count, _| *count += 1)
            .sink("out", out.clone());
        job.build().unwrap()
    }

    fn options(folder: &Path) -> Options {
        let settings =
            Settings::new().enable_checkpointing(Duration::from_secs(60)).checkpoint_storage(folder.to_str().unwrap());
        Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap()
    }

    fn job(folder: &Path, name: &str) -> PathBuf {
        let outcome = run(graph(name, &Collect::default()), options(folder)).unwrap();
        assert_eq!(outcome, JobOutcome::Finished);
        folder.join(name)
    }

    fn open(path: &Path) -> Result<(CompletedCheckpoint, Arc<dyn Store>), OpenCheckpointError> {
        open_checkpoint(path.to_str().unwrap())
    }

    #[test]
    fn the_newest_checkpoint_is_found_from_either_folder_and_starts_another_job() {
        let folder = tempfile::tempdir().unwrap();
        let path = job(folder.path(), "first");
        let (found, store) = open(folder.path()).unwrap();
        assert_eq!((found.job.as_str(), found.is_final()), ("first", true));
        assert_eq!(open(&path).unwrap().0, found);
        assert_eq!(open_checkpoint(&format!("file://{}", path.display())).unwrap().0, found);

        let elsewhere = tempfile::tempdir().unwrap();
        let mut options = options(elsewhere.path());
        options.from = StartFrom::Checkpoint(Box::new(found), store);
        let out = Collect::default();
        assert_eq!(run(graph("second", &out), options).unwrap(), JobOutcome::Finished);
        assert_eq!(out.take(), [], "all was counted before");
    }

    #[test]
    fn nothing_and_too_much_are_errors_that_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = open(&missing).unwrap_err();
        assert!(matches!(error, OpenCheckpointError::NoLog { .. }), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(!missing.exists(), "opening creates nothing");

        job(folder.path(), "a");
        job(folder.path(), "b");
        let error = open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("give the folder of one of them (a, b)"), "{error}");
        let error = open_checkpoint("ftp://host/job").unwrap_err();
        assert!(matches!(error, OpenCheckpointError::Location(_)), "{error}");
    }

    #[test]
    fn a_log_without_a_checkpoint_and_a_damaged_one_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = job(folder.path(), "a");
        let slots = open(&path).unwrap().0.slot;
        let record = path.join(slot_name(slots));
        let whole = fs::read(&record).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&record, &damaged).unwrap();
            let error = open(&path).unwrap_err();
            let source = error.source().unwrap().to_string();
            assert!(source.starts_with(&slot_name(slots)), "byte {at}: {source}");
        }
        // The job has ended behind it, so that a later record knows of it.
        fs::remove_file(&record).unwrap();
        let source = open(&path).unwrap_err().source().unwrap().to_string();
        assert!(source.contains(&slot_name(slots)) && source.contains("missing"), "{source}");
        for slot in 1..10 {
            drop(fs::remove_file(path.join(slot_name(slot)))); // all but the claim
        }
        let error = open(&path).unwrap_err();
        assert!(matches!(error, OpenCheckpointError::NoCheckpoint { .. }), "{error}");
    }
}
