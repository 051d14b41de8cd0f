//! Copies of snapshot files on this machine, from which a restore takes what it can.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use cutwater_coordinator::inspect::epoch_of_snapshot;
use cutwater_coordinator::{CompletedCheckpoint, FileRef, checkpoint_of_snapshot};
use cutwater_storage::{LocalFolder, ObjectName, ObjectReader, Store, StoreError, StoreErrorKind};

use crate::clock::Clock;
use crate::place::job_folder;
use crate::upload::chain;

/// Whether snapshot files are copied to disks of this machine too, and restored from there. The store stays the truth: a copy that
/// can't be written costs the copy, one that is not exactly the file that the checkpoint names is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRecovery {
    /// Whether files are copied while they are stored; no unless set. Flink: `execution.checkpointing.local-backup.enabled`.
    pub backup: bool,
    /// Whether a restore reads the copies; no unless set. Flink: `execution.state-recovery.from-local`.
    pub from_local: bool,
    /// The folders for copies: each file goes into one of them, below a folder with the job's name. Only what lies in folders of
    /// the user's outlives the process. Empty: a new one among the system's temporary files, which goes with the job. Flink:
    /// `execution.checkpointing.local-backup.dirs`.
    pub dirs: Vec<PathBuf>,
}

/// So many bytes of one job may wait for the disks that the copies go to. Where they are slower than the store for longer, copies
/// are given up.
const MOST_QUEUED: u64 = 256 << 20;

/// The copies of one job.
#[derive(Debug)]
pub(crate) struct LocalCopies {
    job: String,
    stores: Vec<Arc<dyn Store>>,
    /// The same as folders.
    folders: Vec<PathBuf>,
    backup: bool,
    from_local: bool,
    queued: AtomicU64,
    /// The copies that are being made, and whether their files have been deleted meanwhile.
    made: Mutex<BTreeMap<ObjectName, bool>>,
    /// A folder of this process.
    own: Option<PathBuf>,
}

impl LocalCopies {
    /// `None` if there is nothing to copy, nor to read.
    pub(crate) fn new(options: &LocalRecovery, job: &str) -> Option<Arc<Self>> {
        let LocalRecovery { backup, from_local, mut dirs } = options.clone();
        let mut own = None;
        if dirs.is_empty() && backup {
            match own_folder() {
                Ok(folder) => own = Some(folder.clone()),
                Err(error) => tracing::warn!(job, "no local copies of snapshots: no temporary folder: {error}"),
            }
            dirs.extend(own.clone());
        }
        let folders: Vec<_> = dirs.iter().map(|dir| dir.join(job)).collect();
        let store = |dir| job_folder(Arc::new(LocalFolder::new(dir)), job);
        let stores: Vec<_> = dirs.into_iter().map(store).collect();
        let used = !stores.is_empty() && (backup || from_local);
        let (job, queued, made) = (job.to_owned(), AtomicU64::new(0), Mutex::default());
        used.then(|| Arc::new(Self { job, stores, folders, backup, from_local, queued, made, own }))
    }

    /// Which of the folders is for a file.
    fn place(&self, name: &ObjectName) -> usize {
        crc32c::crc32c(name.as_str().as_bytes()) as usize % self.stores.len()
    }

    fn store(&self, name: &ObjectName) -> &dyn Store {
        self.stores[self.place(name)].as_ref()
    }

    /// Makes a copy of a file of this machine that nobody changes, without copying its bytes; false if that can't be had, on
    /// another disk, say. Nothing if files are not copied.
    pub(crate) fn link_from(&self, file: &Path, name: &ObjectName) -> bool {
        if !self.backup {
            return true;
        }
        let path = self.folders[self.place(name)].join(name.as_str());
        let made = path.parent().map_or(Ok(()), private_folders);
        // One of an earlier job is another.
        let removed = made.and_then(|()| match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.and_then(|()| fs::hard_link(file, &path)).is_ok()
    }

    /// Puts the copy of a file to this path, without copying its bytes, if there is one and it is this file; says whether it did.
    pub(crate) fn link_to(&self, job: &str, file: &FileRef, to: &Path) -> bool {
        let Ok(name) = ObjectName::parse(&file.name) else { return false };
        self.open(job, file).is_some() && fs::hard_link(self.folders[self.place(&name)].join(name.as_str()), to).is_ok()
    }

    /// Removes what killed writers left.
    pub(crate) fn sweep(&self) {
        for store in &self.stores {
            if let Err(error) = store.sweep_leftovers("") {
                tracing::warn!(job = self.job, "could not clean up local copies: {}", chain(&error));
            }
        }
    }

    /// A reader of the copy, if there is one and it is this file. The names of files say nothing of that: a job that was begun
    /// anew elsewhere uses them again.
    pub(crate) fn open(&self, job: &str, file: &FileRef) -> Option<Box<dyn ObjectReader>> {
        if !self.from_local || self.job != job {
            return None;
        }
        let name = ObjectName::parse(&file.name).ok()?;
        let reader = self.store(&name).open(&name).ok()??;
        let is_same = reader.len() == file.bytes && checksum(reader.as_ref()).ok()? == file.crc32c;
        if !is_same {
            tracing::debug!(job = self.job, "the local copy of {name} is another file or damaged, and not read");
        }
        is_same.then_some(reader)
    }

    /// Begins a copy, if files are copied. It is written beside, on a thread that may block.
    pub(crate) fn copy(self: &Arc<Self>, name: &ObjectName, tokio: &tokio::runtime::Handle) -> Option<Copying> {
        if !self.backup {
            return None;
        }
        let (pieces, received) = channel();
        let (copies, name) = (Arc::clone(self), name.clone());
        self.made().insert(name.clone(), false);
        tokio.spawn_blocking(move || {
            if let Err(error) = copies.write(&name, received) {
                tracing::warn!(job = copies.job, "no local copy of {name}: {}", chain(&error));
            }
            let deleted = copies.made().remove(&name);
            if deleted == Some(true) {
                copies.delete_one(&name);
            }
        });
        Some(Copying { copies: Arc::clone(self), pieces: Some(pieces) })
    }

    fn write(&self, name: &ObjectName, pieces: Receiver<Piece>) -> Result<(), StoreError> {
        let store = self.store(name);
        store.delete(name)?; // of an earlier job
        let mut writer = store.writer(name)?;
        for piece in pieces {
            match piece {
                Piece::Bytes(queued) => writer.write(&queued.bytes)?,
                Piece::End => return writer.finish().map(drop),
            }
        }
        Ok(()) // given up: the writer is dropped, and with it what was written
    }

    /// Deletes what the next restore can't need: all but the files of the newest checkpoint, and those of checkpoints that may
    /// still become newer.
    pub(crate) fn keep_only(&self, newest: &CompletedCheckpoint) {
        let needed: BTreeSet<&str> = newest.files().map(|file| file.name.as_str()).collect();
        let of_newer = |name: &str| {
            epoch_of_snapshot(name) == Some(newest.epoch)
                && checkpoint_of_snapshot(name).is_some_and(|checkpoint| checkpoint > newest.checkpoint)
        };
        for store in &self.stores {
            let listed = store.list("").unwrap_or_default();
            let names =
                listed.iter().map(|listed| &listed.name).filter(|name| epoch_of_snapshot(name.as_str()).is_some());
            names
                .filter(|name| !needed.contains(name.as_str()) && !of_newer(name.as_str()))
                .for_each(|name| self.delete_one(name));
        }
    }

    /// The store lets go of these objects.
    pub(crate) fn delete(&self, names: &[String]) {
        let snapshots = names.iter().filter(|name| epoch_of_snapshot(name).is_some());
        for name in snapshots.filter_map(|name| ObjectName::parse(name).ok()) {
            if let Some(deleted) = self.made().get_mut(&name) {
                *deleted = true;
            }
            self.delete_one(&name);
        }
    }

    fn delete_one(&self, name: &ObjectName) {
        if let Err(error) = self.store(name).delete(name) {
            tracing::warn!(job = self.job, "could not delete a local copy: {}", chain(&error));
        }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<ObjectName, bool>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalCopies {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            drop(std::fs::remove_dir_all(own)); // the system clears its temporary files
        }
    }
}

/// Folders that nobody else can look into.
fn private_folders(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A folder that nobody else can have put anything into.
fn own_folder() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = std::env::temp_dir().join(format!("cutwater-local-{:016x}", Clock::nonce()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Bytes read at once.
const PIECE: usize = 1 << 20;

fn checksum(reader: &dyn ObjectReader) -> Result<u32, StoreError> {
    let mut piece = vec![0; PIECE.min(usize::try_from(reader.len()).unwrap_or(PIECE))];
    let (mut at, mut sum) = (0, 0);
    while at < reader.len() {
        let read = reader.read_at(at, &mut piece)?;
        if read == 0 {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "read", String::new(), ""));
        }
        sum = crc32c::crc32c_append(sum, &piece[..read]);
        at += read as u64;
    }
    Ok(sum)
}

enum Piece {
    Bytes(Queued),
    End,
}

/// Bytes on their way to the disk.
struct Queued {
    bytes: Vec<u8>,
    copies: Arc<LocalCopies>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.copies.queued.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// A copy that is being made of a file. Dropped before its end, it leaves nothing.
pub(crate) struct Copying {
    copies: Arc<LocalCopies>,
    pieces: Option<Sender<Piece>>,
}

impl Copying {
    /// Never waits.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(pieces) = &self.pieces else { return };
        let before = self.copies.queued.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let queued = Queued { bytes: bytes.to_vec(), copies: Arc::clone(&self.copies) };
        if before > MOST_QUEUED {
            tracing::warn!(job = self.copies.job, "the disk for local copies is too slow, one is given up");
            self.pieces = None;
        } else if pieces.send(Piece::Bytes(queued)).is_err() {
            self.pieces = None; // it has failed, and said so
        }
    }

    /// The file is stored.
    pub(crate) fn finish(self) {
        if let Some(pieces) = &self.pieces {
            drop(pieces.send(Piece::End));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(dirs: &[&std::path::Path]) -> Arc<LocalCopies> {
        let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        LocalCopies::new(&LocalRecovery { backup: true, from_local: true, dirs }, "daily").unwrap()
    }

    fn write(copies: &LocalCopies, name: &str, bytes: &[u8]) -> FileRef {
        let object = ObjectName::parse(name).unwrap();
        copies.store(&object).create(&object, bytes).unwrap();
        FileRef::stored(name.to_owned(), bytes.len() as u64, crc32c::crc32c(bytes))
    }

    #[test]
    fn a_copy_is_read_only_if_it_is_exactly_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, others) = (folder.path().join("a"), folder.path().join("b"));
        let copies = copies(&[&ours, &others]);
        let file = write(&copies, "chk/1", &[7; 3 << 20]);
        assert_eq!(copies.open("daily", &file).unwrap().len(), file.bytes);
        assert!(copies.open("hourly", &file).is_none(), "of another job");
        assert!(copies.open("daily", &FileRef { name: "chk/2".to_owned(), ..file.clone() }).is_none(), "absent");
        assert!(copies.open("daily", &FileRef { bytes: file.bytes - 1, ..file.clone() }).is_none(), "too long");
        assert!(copies.open("daily", &FileRef { crc32c: file.crc32c ^ 1, ..file }).is_none(), "of another run");
        for n in 3..40 {
            write(&copies, &format!("chk/{n}"), b"x");
        }
        let spread = [ours, others].map(|dir| std::fs::read_dir(dir.join("daily/chk")).unwrap().count());
        assert!(spread.iter().all(|count| *count > 5), "{spread:?}");
    }

    #[test]
    fn what_a_slow_disk_has_not_taken_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let copies = copies(&[folder.path()]);
        let (sender, receiver) = channel(); // nobody takes anything
        let mut copying = Copying { copies: Arc::clone(&copies), pieces: Some(sender) };
        for _ in 0..300 {
            copying.write(&[0; 1 << 20]);
        }
        assert!(copies.queued.load(Ordering::Relaxed) <= MOST_QUEUED + (1 << 20));
        assert!(copying.pieces.is_none());
        drop(receiver);
        assert_eq!(copies.queued.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_folder_of_the_process_goes_with_it() {
        let options = LocalRecovery { backup: true, ..LocalRecovery::default() };
        let copies = LocalCopies::new(&options, "daily").unwrap();
        write(&copies, "chk/1", b"x");
        let own = copies.own.clone().unwrap();
        assert!(own.join("daily/chk/1").is_file());
        drop(copies);
        assert!(!own.exists());
        assert!(LocalCopies::new(&LocalRecovery::default(), "daily").is_none());
        assert!(LocalCopies::new(&LocalRecovery { from_local: true, ..LocalRecovery::default() }, "daily").is_none());
    }
}
