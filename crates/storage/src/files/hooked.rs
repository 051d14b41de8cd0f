use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{EntryKind, FileReader, FileWriter, Files, FolderEntry, lost_file};

/// A step of [`Files`] that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileStep {
    /// [`Files::create_new`].
    Create,
    /// [`FileWriter::write`].
    Write,
    /// [`FileWriter::sync`].
    Sync,
    /// [`Files::link`]; the path is the new name.
    Link,
    /// [`Files::unlink`].
    Unlink,
    /// [`Files::sync_folder`].
    SyncFolder,
    /// [`Files::create_folder`].
    CreateFolder,
}

impl FileStep {
    /// All steps.
    pub const ALL: [Self; 7] =
        [Self::Create, Self::Write, Self::Sync, Self::Link, Self::Unlink, Self::SyncFolder, Self::CreateFolder];
}

impl fmt::Display for FileStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "file.create",
            Self::Write => "file.write",
            Self::Sync => "file.sync",
            Self::Link => "file.link",
            Self::Unlink => "file.unlink",
            Self::SyncFolder => "file.sync-folder",
            Self::CreateFolder => "file.create-folder",
        })
    }
}

type Hook = Arc<dyn Fn(FileStep, &Path) -> io::Result<()> + Send + Sync>;

/// Asks a hook before each step that changes the disk, and fails the step with the hook's error instead of taking it.
///
/// A hook that fails one step is a bad disk; one that fails all steps from a certain one on is a process that was killed
/// there (then [`MemoryFiles::crash`](super::MemoryFiles::crash) adds the loss of power).
#[derive(Clone)]
pub struct HookedFiles {
    files: Arc<dyn Files>,
    hook: Hook,
}

impl HookedFiles {
    /// Puts `hook` before `files`.
    pub fn new(
        files: Arc<dyn Files>,
        hook: impl Fn(FileStep, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { files, hook: Arc::new(hook) }
    }
}

impl fmt::Debug for HookedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Files for HookedFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        (self.hook)(FileStep::Create, path)?;
        let file = self.files.create_new(path)?;
        Ok(Box::new(HookedWriter { file, hook: self.hook.clone(), path: path.into(), lost: false }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(FileStep::Link, to)?;
        self.files.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        (self.hook)(FileStep::Unlink, path)?;
        self.files.unlink(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        (self.hook)(FileStep::SyncFolder, path)?;
        self.files.sync_folder(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        (self.hook)(FileStep::CreateFolder, path)?;
        self.files.create_folder(path)
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        self.files.list_folder(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.files.kind(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>> {
        self.files.open(path)
    }
}

struct HookedWriter {
    file: Box<dyn FileWriter>,
    hook: Hook,
    path: Box<Path>,
    lost: bool,
}

impl HookedWriter {
    fn step(&mut self, step: FileStep, run: impl FnOnce(&mut dyn FileWriter) -> io::Result<()>) -> io::Result<()> {
        if self.lost {
            return Err(lost_file());
        }
        let done = (self.hook)(step, &self.path).and_then(|()| run(self.file.as_mut()));
        self.lost = done.is_err();
        done
    }
}

impl fmt::Debug for HookedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedWriter").field("file", &self.file).finish_non_exhaustive()
    }
}

impl FileWriter for HookedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(FileStep::Write, |file| file.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(FileStep::Sync, |file| file.sync())
    }
}
