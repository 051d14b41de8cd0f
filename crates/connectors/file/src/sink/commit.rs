use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutwater_core::{Attempt, Epoch};
use cutwater_dataflow::{CommitContext, CommitOutcome, Committer, UserError};
use cutwater_storage::{EntryKind, Files};

use super::names::{Handle, TempNames};
use super::output_error;
use crate::FileError;

/// Publishes the files of a [`FileSink`](super::FileSink).
pub struct FileCommitter {
    files: Arc<dyn Files>,
    folder: PathBuf,
    temps: TempNames,
    run: (Epoch, Attempt),
}

impl FileCommitter {
    pub(super) fn new(files: Arc<dyn Files>, folder: PathBuf, context: &CommitContext) -> Self {
        let temps = TempNames::new(&context.job, &context.operator);
        Self { files, folder, temps, run: (context.epoch, context.attempt) }
    }

    fn publish(&self, handle: &Handle) -> CommitOutcome {
        let (temporary, path) = (self.folder.join(&handle.temporary), self.folder.join(&handle.name));
        match self.unharmed(handle, &temporary) {
            Ok(()) => {}
            Err(outcome) => return outcome,
        }
        match self.files.link(&temporary, &path) {
            Ok(()) => self.settle(CommitOutcome::Committed, &temporary),
            // Linked by an earlier commit, which may have been killed before it synced the folder; after the last step
            // the temporary name is gone too.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                match self.find_published(handle, &path) {
                    Ok(()) => self.settle(CommitOutcome::Already, &temporary),
                    Err(outcome) => outcome,
                }
            }
            Err(source) => unknown("link", &path, source),
        }
    }

    /// A file that lost bytes after it was acknowledged must not be published.
    fn unharmed(&self, handle: &Handle, temporary: &Path) -> Result<(), CommitOutcome> {
        match self.files.open(temporary) {
            Ok(file) if file.len() == handle.bytes => Ok(()),
            Ok(file) => {
                let reason = format!("{} has {} bytes, {} were prepared", handle.temporary, file.len(), handle.bytes);
                Err(self.conflict(handle, reason))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(unknown("open", temporary, source)),
        }
    }

    /// Looks whether what stands under the final name is the file that was prepared.
    fn find_published(&self, handle: &Handle, path: &Path) -> Result<(), CommitOutcome> {
        let file = match self.files.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.gone(handle)),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(self.conflict(handle, "it is not a plain file".to_owned()));
            }
            Err(source) => return Err(unknown("open", path, source)),
        };
        if file.len() != handle.bytes {
            let reason = format!("it has {} bytes, {} were prepared", file.len(), handle.bytes);
            return Err(self.conflict(handle, reason));
        }
        let (mut crc, mut offset, mut buffer) = (0, 0, vec![0; 64 << 10]);
        loop {
            match file.read_at(offset, &mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    crc = crc32c::crc32c_append(crc, &buffer[..count]);
                    offset += count as u64;
                }
                Err(source) => return Err(unknown("read", path, source)),
            }
        }
        if crc == handle.crc32c { Ok(()) } else { Err(self.conflict(handle, "its content differs".to_owned())) }
    }

    /// Makes the link durable, then removes the temporary name. In this order: after a crash at any point one of the two
    /// names is there.
    fn settle(&self, outcome: CommitOutcome, temporary: &Path) -> CommitOutcome {
        if let Err(source) = self.files.sync_folder(&self.folder) {
            return unknown("sync", &self.folder, source);
        }
        // The output is published whether or not this works: a name that stays is swept after the next restart.
        let _ = self.files.unlink(temporary);
        outcome
    }

    fn gone(&self, handle: &Handle) -> CommitOutcome {
        CommitOutcome::Lost(Box::new(FileError::Gone {
            job: handle.job.clone(),
            path: self.folder.join(&handle.name),
            temporary: handle.temporary.clone(),
            bytes: handle.bytes,
        }))
    }

    fn conflict(&self, handle: &Handle, reason: String) -> CommitOutcome {
        CommitOutcome::Lost(Box::new(FileError::Conflict {
            job: handle.job.clone(),
            path: self.folder.join(&handle.name),
            temporary: handle.temporary.clone(),
            reason,
        }))
    }

    /// Whether it is left over from an attempt before this one, of the same job and sink.
    fn is_leftover(&self, entry: &cutwater_storage::FolderEntry) -> bool {
        entry.kind == EntryKind::File && self.temps.run_of(&entry.name).is_some_and(|run| run < self.run)
    }
}

fn unknown(action: &'static str, path: &Path, source: io::Error) -> CommitOutcome {
    CommitOutcome::Unknown(Box::new(output_error(action, path, source)))
}

impl Committer for FileCommitter {
    fn commit(&mut self, handle: &[u8]) -> CommitOutcome {
        match Handle::decode(handle) {
            Ok(handle) => self.publish(&handle),
            Err(error) => CommitOutcome::Lost(Box::new(error)),
        }
    }

    fn sweep(&mut self) -> Result<(), UserError> {
        let entries = match self.files.list_folder(&self.folder) {
            Ok(entries) => entries,
            // The first attempt has not created it yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(output_error("list the output folder", &self.folder, source).into()),
        };
        for entry in entries.iter().filter(|entry| self.is_leftover(entry)) {
            let path = self.folder.join(&entry.name);
            match self.files.unlink(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(|source| output_error("remove", &path, source))?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for FileCommitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCommitter").field("folder", &self.folder).field("run", &self.run).finish_non_exhaustive()
    }
}
