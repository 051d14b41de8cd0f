//! The disk that all processes of a world share, and what one process sees of it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cutwater_storage::{
    EntryKind, Fate, FileReader, FileStep, FileWriter, Files, FolderEntry, LocalFolder, MemoryFiles, Step, Unsynced,
};

use crate::marks::Mark;
use crate::shared::{DiskEvent, Handle, ProcessId};

/// Where the checkpoints are, if they are in a folder.
pub(crate) const STORE: &str = "/store";

/// The disk as one process uses it: each step may fail or be the last.
#[derive(Clone)]
pub(crate) struct ProcessFiles {
    disk: MemoryFiles,
    shared: Handle,
    process: ProcessId,
}

impl ProcessFiles {
    pub(crate) fn new(disk: &MemoryFiles, shared: &Handle, process: ProcessId) -> Self {
        Self { disk: disk.clone(), shared: shared.clone(), process }
    }

    fn step(&self, step: FileStep) -> io::Result<()> {
        self.shared.step(self.process, file_step(step))
    }
}

/// The folder of checkpoints as one process uses it.
pub(crate) fn folder(disk: &MemoryFiles, shared: &Handle, process: ProcessId) -> LocalFolder {
    let shared = shared.clone();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    LocalFolder::with_files(STORE, files)
        .with_steps(Arc::new(move |step: Step, _: &Path| shared.step(process, store_step(step))))
}

fn file_step(step: FileStep) -> &'static str {
    match step {
        FileStep::Create => "file.create",
        FileStep::Write => "file.write",
        FileStep::Sync => "file.sync",
        FileStep::Link => "file.link",
        FileStep::Unlink => "file.unlink",
        FileStep::SyncFolder => "file.sync-folder",
        FileStep::CreateFolder => "file.create-folder",
        _ => "file.other",
    }
}

fn store_step(step: Step) -> &'static str {
    match step {
        Step::CreateFolder => "local.folder.create",
        Step::SyncParent => "local.folder.sync-parent",
        Step::CreateTemp => "local.create.open",
        Step::WriteTemp => "local.create.write",
        Step::SyncTemp => "local.create.sync",
        Step::SyncEarlier => "local.create.sync-earlier",
        Step::Link => "local.create.link",
        Step::UnlinkTemp => "local.create.unlink",
        Step::SyncFolder => "local.create.sync-folder",
        Step::Delete => "local.delete",
        _ => "local.other",
    }
}

/// What the power loss leaves of everything unsynced.
pub(crate) fn lose_power(disk: &MemoryFiles, shared: &Handle) {
    disk.crash(|unsynced| {
        let mut shared = shared.lock();
        let (fate, mark) = match (unsynced, shared.choices.below(4)) {
            (_, 0) => (Fate::Kept, None),
            (Unsynced::Tail { unsynced, .. }, 1) => {
                let kept = shared.choices.below(usize::try_from(*unsynced).unwrap_or(usize::MAX).min(1 << 20));
                (Fate::Torn(kept as u64), Some(Mark::TornWrite))
            }
            (Unsynced::Tail { .. }, 2) => (Fate::Zeroed, Some(Mark::ZeroedWrite)),
            (Unsynced::Tail { .. }, _) => (Fate::Lost, Some(Mark::UnsyncedLost)),
            (Unsynced::Added(_), _) => (Fate::Lost, Some(Mark::EntryLost)),
            (Unsynced::Removed(_), _) => (Fate::Lost, Some(Mark::RemovalUndone)),
            _ => (Fate::Lost, None),
        };
        if let Some(mark) = mark {
            shared.marks.hit(mark);
        }
        fate
    });
}

impl fmt::Debug for ProcessFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessFiles").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Files for ProcessFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        self.step(FileStep::Create)?;
        let file = self.disk.create_new(path)?;
        let created = DiskEvent::Created { path: path.to_path_buf(), process: self.process };
        self.shared.lock().disk_events.push(created);
        Ok(Box::new(StepWriter { file, files: self.clone(), lost: false }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(FileStep::Link)?;
        self.disk.link(from, to)?;
        self.shared.lock().disk_events.push(DiskEvent::Published { path: to.to_path_buf() });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        if let Err(error) = self.step(FileStep::Unlink) {
            self.shared.lock().disk_events.push(DiskEvent::Kept { path: path.to_path_buf() });
            return Err(error);
        }
        self.disk.unlink(path)?;
        self.shared.lock().disk_events.push(DiskEvent::Removed { path: path.to_path_buf() });
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(FileStep::SyncFolder)?;
        self.disk.sync_folder(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step(FileStep::CreateFolder)?;
        self.disk.create_folder(path)
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        self.disk.list_folder(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.disk.kind(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>> {
        self.disk.open(path)
    }
}

#[derive(Debug)]
struct StepWriter {
    file: Box<dyn FileWriter>,
    files: ProcessFiles,
    lost: bool,
}

impl StepWriter {
    fn step(&mut self, step: FileStep, run: impl FnOnce(&mut dyn FileWriter) -> io::Result<()>) -> io::Result<()> {
        if self.lost {
            return Err(io::Error::other("an earlier step of this file failed"));
        }
        let done = self.files.step(step).and_then(|()| run(self.file.as_mut()));
        self.lost = done.is_err();
        done
    }
}

impl FileWriter for StepWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(FileStep::Write, |file| file.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(FileStep::Sync, |file| file.sync())
    }
}
