//! Savepoints: copies of checkpoints in folders of their own.

use std::sync::Arc;

use cutwater_coordinator::{
    AbortReason, CompletedCheckpoint, FileRef, MAX_SAVEPOINT_BYTES, OpenError, SAVEPOINT_NAME, Savepoint,
};
use cutwater_core::CheckpointId;
use cutwater_storage::{CreateError, InvalidName, ObjectName, Store, StoreError, StoreErrorKind, read_checked};

use crate::clock::Clock;
use crate::place::{OptionsError, StoreResolver, job_folder};

/// A savepoint that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSavepoint {
    /// Its folder, as a URL or path that [`open_checkpoint`](crate::open_checkpoint) takes.
    pub location: String,
    /// What is in it.
    pub savepoint: Savepoint,
}

/// Why there is no savepoint, or the job has not stopped behind it. The job goes on, unless it has ended anyway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavepointError {
    /// Nobody said where savepoints go. Source: Flink refuses it too.
    #[error("no folder for savepoints: name one, or set execution.checkpointing.savepoint-dir")]
    NoFolder,
    /// The folder is of a kind that is not built.
    #[error(transparent)]
    Location(#[from] OptionsError),
    /// There was no checkpoint to copy.
    #[error("no checkpoint could be taken for it")]
    NotTaken(#[source] AbortReason),
    /// The checkpoint could not be copied. What was written of the copy has been removed, as far as that was possible.
    #[error("checkpoint {checkpoint} could not be copied to {location}")]
    NotCopied {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Where to.
        location: String,
        /// Why.
        source: Box<CopyError>,
    },
    /// The job was to stop and goes on: it failed and was restarted meanwhile.
    #[error("the job has not stopped, since it failed meanwhile{}", made(savepoint.as_deref()))]
    NotStopped {
        /// The savepoint, which is whole.
        savepoint: Option<String>,
    },
    /// The job is about to stop already.
    #[error("the job is about to stop already")]
    Stopping,
    /// The job has ended, or ends.
    #[error("the job has ended")]
    Ended,
}

fn made(savepoint: Option<&str>) -> String {
    savepoint.map_or_else(String::new, |savepoint| format!("; the savepoint was made: {savepoint}"))
}

/// Why a checkpoint could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A file of it is not there.
    #[error("{url}/{name} is missing")]
    Missing {
        /// The store.
        url: String,
        /// The file.
        name: String,
    },
    /// A file of it is not as it was written.
    #[error("{url}/{name} is damaged: {reason}")]
    Damaged {
        /// The store.
        url: String,
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of it has a name that the store can't have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object that makes the folder a savepoint could not be created.
    #[error("{url}/{SAVEPOINT_NAME}")]
    Create {
        /// The store.
        url: String,
        /// Why.
        source: CreateError,
    },
    /// The folder is no savepoint, or a damaged one.
    #[error("{url} can't be used")]
    Savepoint {
        /// The folder.
        url: String,
        /// Why.
        source: OpenError,
    },
}

/// A new folder for a savepoint of the job, below `folder`: its store and its location.
pub(crate) fn new_folder(
    stores: &StoreResolver,
    folder: &str,
    job: &str,
) -> Result<(Arc<dyn Store>, String), SavepointError> {
    let name = format!("savepoint-{job}-{:012x}", Clock::nonce() & 0xffff_ffff_ffff);
    let store = job_folder(stores.store_at(folder)?, &name);
    let location = store.url();
    Ok((store, location))
}

/// Copies the files of a checkpoint and makes the folder a savepoint. On an error nothing is left, as far as possible.
pub(crate) fn make(checkpoint: &CompletedCheckpoint, from: &dyn Store, to: &dyn Store) -> Result<Savepoint, CopyError> {
    let savepoint = Savepoint { checkpoint: checkpoint.clone(), created_at_unix_ms: Clock::unix_ms() };
    fill(&savepoint, from, to)?;
    Ok(savepoint)
}

/// The savepoint in this folder; `None` if the folder is none.
///
/// # Errors
///
/// [`CopyError::Savepoint`] if what says so is damaged or of a newer version, [`CopyError::Store`] if it can't be read.
pub fn read_savepoint(store: &dyn Store) -> Result<Option<Savepoint>, CopyError> {
    let name = ObjectName::parse(SAVEPOINT_NAME).expect("a plain word");
    let is_whole = |bytes: &[u8]| Savepoint::decode(SAVEPOINT_NAME, bytes).is_ok();
    let Some(bytes) = read_checked(store, &name, MAX_SAVEPOINT_BYTES, is_whole)? else { return Ok(None) };
    let savepoint = Savepoint::decode(SAVEPOINT_NAME, &bytes);
    savepoint.map(Some).map_err(|source| CopyError::Savepoint { url: store.url(), source })
}

/// Copies a savepoint into another folder, which must be empty, and checks each byte of its files on the way.
///
/// # Errors
///
/// [`CopyError`]; what was written is removed again, as far as that is possible, and the folder is no savepoint.
pub fn copy_savepoint(savepoint: &Savepoint, from: &dyn Store, to: &dyn Store) -> Result<(), CopyError> {
    fill(savepoint, from, to)
}

/// Deletes a savepoint: first what makes it one, then its files, so that it is never half there and taken for whole.
///
/// # Errors
///
/// As the store reports. What is left is no savepoint any more; call it again.
pub fn delete_savepoint(savepoint: &Savepoint, store: &dyn Store) -> Result<(), CopyError> {
    store.delete(&ObjectName::parse(SAVEPOINT_NAME).expect("a plain word"))?;
    for file in savepoint.checkpoint.stored_files() {
        store.delete(&ObjectName::parse(&file.name)?)?;
    }
    Ok(())
}

fn fill(savepoint: &Savepoint, from: &dyn Store, to: &dyn Store) -> Result<(), CopyError> {
    let mut copied = Vec::new();
    let files = savepoint.checkpoint.stored_files().try_for_each(|file| copy_file(file, from, to, &mut copied));
    let made = files.and_then(|()| {
        let name = ObjectName::parse(SAVEPOINT_NAME)?;
        to.create(&name, &savepoint.encode()).map_err(|source| CopyError::Create { url: to.url(), source })
    });
    // Whose fate is unknown may exist, and then it needs its files.
    if let Err(error) = &made
        && !matches!(error, CopyError::Create { source: CreateError::Unknown { .. }, .. })
    {
        for name in copied {
            drop(to.delete(&name)); // what can't be deleted is no savepoint either
        }
    }
    made
}

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// What is damaged is read once more, since it may be so on its way only. The writer of the first copy is dropped, and with it
/// what it wrote.
fn copy_file(file: &FileRef, from: &dyn Store, to: &dyn Store, copied: &mut Vec<ObjectName>) -> Result<(), CopyError> {
    let name = match copy_once(file, from, to) {
        Err(CopyError::Damaged { .. }) => copy_once(file, from, to)?,
        Err(CopyError::Store(error)) if error.kind() == StoreErrorKind::Corrupt => copy_once(file, from, to)?,
        copied => copied?,
    };
    copied.push(name);
    Ok(())
}

fn copy_once(file: &FileRef, from: &dyn Store, to: &dyn Store) -> Result<ObjectName, CopyError> {
    let name = ObjectName::parse(&file.name)?;
    let place = || (from.url(), file.name.clone());
    let Some(reader) = from.open(&name)? else {
        let (url, name) = place();
        return Err(CopyError::Missing { url, name });
    };
    let damaged = |reason: String| {
        let (url, name) = place();
        CopyError::Damaged { url, name, reason }
    };
    if reader.len() != file.bytes {
        return Err(damaged(format!("it has {} bytes, the checkpoint names {}", reader.len(), file.bytes)));
    }
    let mut writer = to.writer(&name)?;
    let mut piece = vec![0; PIECE.min(usize::try_from(file.bytes).unwrap_or(PIECE))];
    let (mut at, mut sum) = (0, 0);
    while at < file.bytes {
        let read = reader.read_at(at, &mut piece)?;
        if read == 0 {
            return Err(damaged("it has become shorter".to_owned()));
        }
        sum = crc32c::crc32c_append(sum, &piece[..read]);
        writer.write(&piece[..read])?;
        at += read as u64;
    }
    if sum != file.crc32c {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    writer.finish()?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use cutwater_coordinator::{Last, Phases, SubtaskSnapshot, TaskSnapshot};
    use cutwater_core::{Attempt, Epoch, MaxParallelism, SubtaskId, TaskId};
    use cutwater_storage::{LocalFolder, MemoryStore, Step};

    use super::*;

    fn object(name: &str) -> ObjectName {
        ObjectName::parse(name).unwrap()
    }

    /// A checkpoint of two files, and the store that they are in.
    fn checkpoint() -> (CompletedCheckpoint, MemoryStore) {
        let store = MemoryStore::new();
        let file = |name: &str, bytes: Vec<u8>| {
            let mut writer = store.writer(&object(name)).unwrap();
            writer.write(&bytes).unwrap();
            let written = writer.finish().unwrap();
            FileRef::stored(name.to_owned(), written.bytes, written.crc32c)
        };
        let files = vec![file("chk/1", vec![7; PIECE + 5]), file("chk/2", Vec::new())];
        let subtask = SubtaskId { task: TaskId(0), index: 0 };
        let snapshot = SubtaskSnapshot { subtask, files, inline: vec![1], phases: Phases::default(), state_bytes: 9 };
        let (task, name, operators) = (TaskId(0), "all".to_owned(), Vec::new());
        let tasks =
            vec![TaskSnapshot { task, name, operators, parallelism: 1, subtasks: vec![snapshot], finished: vec![] }];
        let checkpoint = CompletedCheckpoint {
            epoch: Epoch(3),
            attempt: Attempt(1),
            checkpoint: CheckpointId(4),
            slot: 7,
            job: "daily".to_owned(),
            max_parallelism: MaxParallelism::default(),
            completed_at_unix_ms: 0,
            duration: Duration::ZERO,
            last: Last::No,
            origin: None,
            tasks,
        };
        (checkpoint, store)
    }

    fn names(store: &dyn Store) -> Vec<String> {
        store.list("").unwrap().iter().map(|listed| listed.name.to_string()).collect()
    }

    #[test]
    fn a_savepoint_holds_all_it_needs_can_be_copied_and_goes_whole() {
        let (checkpoint, from) = checkpoint();
        let (to, elsewhere) = (MemoryStore::new(), MemoryStore::new());
        let made = make(&checkpoint, &from, &to).unwrap();
        assert_eq!(made.checkpoint, checkpoint);
        drop(from); // nothing refers to it any more
        assert_eq!(names(&to), ["chk/1", "chk/2", "savepoint"]);
        copy_savepoint(&made, &to, &elsewhere).unwrap();
        delete_savepoint(&made, &to).unwrap();
        assert_eq!((names(&to), read_savepoint(&to).unwrap()), (vec![], None));
        assert_eq!(read_savepoint(&elsewhere).unwrap(), Some(made));
    }

    #[test]
    fn what_is_missing_or_damaged_is_named_and_leaves_nothing() {
        type Damage = fn(&MemoryStore);
        let write = |store: &MemoryStore, bytes: &[u8]| {
            store.delete(&object("chk/1")).unwrap();
            store.create(&object("chk/1"), bytes).unwrap();
        };
        let cases: [(&str, Damage, &str); 3] = [
            ("a file is gone", |store| store.delete(&object("chk/2")).unwrap(), "chk/2 is missing"),
            ("a file is shorter", |_| {}, "it has 3 bytes, the checkpoint names 1048581"),
            ("a byte has changed", |_| {}, "its checksum is wrong"),
        ];
        for (at, (name, damage, expected)) in cases.into_iter().enumerate() {
            let (checkpoint, from) = checkpoint();
            damage(&from);
            match at {
                1 => write(&from, &[7; 3]),
                2 => write(&from, &[&[8; 1][..], &[7; PIECE + 4]].concat()),
                _ => {}
            }
            let to = MemoryStore::new();
            let error = make(&checkpoint, &from, &to).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert_eq!(names(&to), [""; 0], "{name}");
        }
    }

    /// Each step of the local folder fails once: then there is no savepoint, or, of the very last steps, a whole one.
    #[test]
    fn whichever_step_fails_a_savepoint_is_there_whole_or_not_at_all() {
        let (checkpoint, from) = checkpoint();
        let mut failed = 0;
        for fails_at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let steps = Arc::new(Mutex::new(Vec::<Step>::new()));
            let seen = Arc::clone(&steps);
            let to = LocalFolder::new(folder.path().join("s")).with_steps(Arc::new(move |step, _| {
                let mut steps = seen.lock().unwrap();
                steps.push(step);
                // A bad disk from this step on: nothing can be removed either.
                if steps.len() > fails_at { Err(std::io::Error::other("broken")) } else { Ok(()) }
            }));
            let made = make(&checkpoint, &from, &to);
            let healthy = LocalFolder::new(folder.path().join("s"));
            match read_savepoint(&healthy).unwrap() {
                Some(savepoint) => copy_savepoint(&savepoint, &healthy, &MemoryStore::new()).unwrap(),
                None => assert!(made.is_err(), "step {fails_at}"),
            }
            if made.is_ok() {
                break;
            }
            failed += 1;
        }
        assert!(failed >= 12, "{failed} steps");
    }
}
