use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{CreateError, StoreError, StoreErrorKind};
use crate::files::{EntryKind, FileReader, Files, OsFiles, missing_folders, parent};
use crate::name::{ObjectName, valid_part};
use crate::step::{Step, StepHook};
use crate::store::{Leftover, Listed, ObjectReader, ObjectWriter, Store};

mod location;
mod temp;
mod writer;

pub use location::InvalidLocation;
use temp::Temp;
use writer::Writer;

/// A store in a folder of this machine, or of a network file system that has hard links.
///
/// An object `a/b` is the file `a/b` below the folder. It is written under a temporary name that begins with `.`,
/// synced, linked to its name (which never replaces anything), the temporary name is removed, and the folder synced. A
/// folder's parent is synced before the folder is used for the first time. [`Store::create`] also syncs the folder before
/// the link, so that no object outlives those whose existence its creator may have acted upon. Files get mode 0600 and folders 0700; the
/// store's own folder is created by the first write and may be a symbolic link, what is below it may not.
///
/// Deletes leave folders behind, so names should not use a new folder for each checkpoint.
///
/// Clones are the same store.
#[derive(Clone)]
pub struct LocalFolder {
    inner: Arc<Inner>,
}

impl LocalFolder {
    /// The store in `folder`, which need not exist yet. A relative path is taken from the current directory, now.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::with_files(folder, Arc::new(OsFiles::private()))
    }

    /// The store at a location as users write it: a path, or a URL `file:///path`, `file:/path`. Nothing is decoded: a
    /// `%` is a percent sign.
    ///
    /// # Errors
    ///
    /// [`InvalidLocation`] if it is empty, names another host or another kind of store.
    pub fn parse(location: &str) -> Result<Self, InvalidLocation> {
        location::path(location).map(Self::new)
    }

    /// The store in `folder` of the given file system.
    #[must_use]
    pub fn with_files(folder: impl Into<PathBuf>, files: Arc<dyn Files>) -> Self {
        let folder = folder.into();
        // Fails only if the current directory is gone or the path is empty; then the first use says so.
        let root = std::path::absolute(&folder).unwrap_or(folder);
        let steps: StepHook = Arc::new(|_, _| Ok(()));
        Self { inner: Arc::new(Inner { root, files, steps, temps: AtomicU64::new(0), ready: Mutex::default() }) }
    }

    /// The same folder, where `steps` is asked before each step that changes the disk: an error fails the step instead
    /// of taking it. One that fails a single step is a bad disk; one that fails all from then on is a killed process.
    #[must_use]
    pub fn with_steps(self, steps: StepHook) -> Self {
        let Inner { root, files, .. } = self.inner.as_ref();
        let (root, files) = (root.clone(), files.clone());
        Self { inner: Arc::new(Inner { root, files, steps, temps: AtomicU64::new(0), ready: Mutex::default() }) }
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.root
    }
}

impl fmt::Debug for LocalFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalFolder").field(&self.inner.root).finish()
    }
}

struct Inner {
    root: PathBuf,
    files: Arc<dyn Files>,
    steps: StepHook,
    temps: AtomicU64,                // temporary files so far
    ready: Mutex<BTreeSet<PathBuf>>, // folders that exist and whose entries in their parents are durable
}

impl Inner {
    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn path_of(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Asks the hook, then takes the step.
    fn step<T>(&self, step: Step, path: &Path, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        (self.steps)(step, path)?;
        run()
    }

    /// Turns an error of the system into ours, about `name`.
    fn error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::new(StoreErrorKind::of(&source), action, self.url(), name).because(source)
    }

    /// Makes sure that the folder exists and is durable, with all above it down from the root.
    fn prepare(&self, folder: &Path) -> io::Result<()> {
        if self.ready.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        if folder == self.root {
            self.prepare_root()?
        } else {
            self.prepare_below(folder)?
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    fn prepare_root(&self) -> io::Result<()> {
        let missing = missing_folders(self.files.as_ref(), &self.root)?;
        // An earlier process may have been killed before it could sync the innermost that is there. Where that is
        // somebody else's, we may not be able to, and it was not us who made it.
        let found = missing.first().map_or(self.root.as_path(), |first| parent(first));
        match self.sync_parent(found) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
        for folder in &missing {
            self.create_folder(folder)?;
            self.sync_parent(folder)?;
        }
        Ok(())
    }

    fn prepare_below(&self, folder: &Path) -> io::Result<()> {
        self.prepare(parent(folder))?;
        match self.files.kind(folder)? {
            None => self.create_folder(folder)?,
            Some(EntryKind::Folder) => {}
            Some(EntryKind::File | EntryKind::Other) => return Err(not_an_object(folder)),
        }
        self.sync_parent(folder)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match self.step(Step::CreateFolder, folder, || self.files.create_folder(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()), // another thread was faster
            done => done,
        }
    }

    fn sync_parent(&self, folder: &Path) -> io::Result<()> {
        let parent = parent(folder);
        self.step(Step::SyncParent, parent, || self.files.sync_folder(parent))
    }

    /// Begins a temporary file beside the object, so that the link stays in one folder.
    fn begin(self: &Arc<Self>, name: &ObjectName) -> io::Result<Temp> {
        let path = self.path_of(name);
        let folder = parent(&path);
        self.prepare(folder)?;
        loop {
            let number = self.temps.fetch_add(1, Ordering::Relaxed);
            let temp = folder.join(format!("{TEMP_PREFIX}{}-{number}", process::id()));
            match self.step(Step::CreateTemp, &temp, || self.files.create_new(&temp)) {
                Ok(file) => return Ok(Temp::new(self.clone(), temp, path, file)),
                // Of a killed process, or of one on another machine: theirs is left alone.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    // If the folder was deleted under us, the next call must look again.
                    self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(error);
                }
            }
        }
    }

    /// Opens the plain file of an object; `None` if it is not there.
    fn open(&self, name: &ObjectName) -> io::Result<Option<Box<dyn FileReader>>> {
        let path = self.path_of(name);
        if !self.check(name, &path)? {
            return Ok(None);
        }
        match self.files.open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a plain file under the name, with nothing but folders above it up to the root. Not proof against
    /// somebody who changes the folder meanwhile: whoever can do that owns the checkpoints anyway.
    fn check(&self, name: &ObjectName, path: &Path) -> io::Result<bool> {
        let mut folder = self.root.clone();
        for part in name.parts().rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            folder.push(part);
            match self.files.kind(&folder)? {
                None => return Ok(false),
                Some(EntryKind::Folder) => {}
                Some(EntryKind::File | EntryKind::Other) => return Err(not_an_object(&folder)),
            }
        }
        match self.files.kind(path)? {
            None => Ok(false),
            Some(EntryKind::File) => Ok(true),
            Some(EntryKind::Folder | EntryKind::Other) => Err(not_an_object(path)),
        }
    }

    /// Calls `found` with the name and size of every file below `folder` (a name without its last part, or empty) that
    /// may matter: folders are entered if `enter` says so.
    fn walk(
        &self,
        folder: &str,
        enter: &dyn Fn(&str) -> bool,
        found: &mut dyn FnMut(&str, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let entries = match self.files.list_folder(&self.root.join(folder)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let Some(part) = entry.name.to_str() else { continue };
            let path = if folder.is_empty() { part.to_owned() } else { format!("{folder}/{part}") };
            match entry.kind {
                EntryKind::File => found(&path, entry.bytes)?,
                EntryKind::Folder if valid_part(part) && enter(&path) => self.walk(&path, enter, found)?,
                EntryKind::Folder | EntryKind::Other => {}
            }
        }
        Ok(())
    }

    /// Calls `found` with each temporary file below the folder, and its length.
    fn walk_temporary(&self, folder: &str, found: &mut dyn FnMut(&str, u64) -> io::Result<()>) -> io::Result<()> {
        let folder = folder.trim_end_matches('/');
        if !folder.is_empty() && ObjectName::parse(folder).is_err() {
            return Ok(());
        }
        let is_temporary = |path: &str| path.rsplit('/').next().is_some_and(|part| part.starts_with(TEMP_PREFIX));
        self.walk(folder, &|_| true, &mut |path, bytes| if is_temporary(path) { found(path, bytes) } else { Ok(()) })
    }
}

/// What the names of temporary files begin with; the process and a number follow.
const TEMP_PREFIX: &str = ".cutwater-";
/// How often a creation is tried whose temporary file others sweep away.
const TRIES: u32 = 5;

fn not_an_object(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a plain file or folder", path.display()))
}

impl Store for LocalFolder {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        let failed = |source| CreateError::Failed { source: self.inner.error("create", name.as_str(), source) };
        let mut tries = 0;
        loop {
            let mut temp = self.inner.begin(name).map_err(failed)?;
            for piece in bytes.chunks(writer::PIECE) {
                temp.write(piece).map_err(failed)?;
            }
            tries += 1;
            match temp.publish(name, true) {
                // The link did not find our temporary file: another process has taken us for dead and swept it away.
                Err(CreateError::Failed { source }) if source.kind() == StoreErrorKind::NotFound && tries < TRIES => {}
                done => return done,
            }
        }
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source| self.inner.error("read", name.as_str(), source);
        let Some(file) = self.inner.open(name).map_err(failed)? else { return Ok(None) };
        let length = file.len();
        let Some(size) = usize::try_from(length).ok().filter(|_| length <= limit) else {
            return Err(StoreError::too_large("read", self.url(), name, length, limit));
        };
        let mut bytes = vec![0; size];
        let count = file.read_at(0, &mut bytes).map_err(failed)?;
        if count == size { Ok(Some(bytes)) } else { Err(failed(io::ErrorKind::UnexpectedEof.into())) }
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        let file = self.inner.open(name).map_err(|source| self.inner.error("open", name.as_str(), source))?;
        Ok(file.map(|file| {
            Box::new(Reader { inner: self.inner.clone(), name: name.clone(), file }) as Box<dyn ObjectReader>
        }))
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let temp = self.inner.begin(name).map_err(|source| self.inner.error("write", name.as_str(), source))?;
        Ok(Box::new(Writer::new(temp, name.clone())))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && ObjectName::parse(folder).is_err() {
            return Ok(listed); // no name begins like this
        }
        let enter = |path: &str| prefix.starts_with(path) || path.starts_with(prefix);
        let mut found = |path: &str, bytes| {
            if path.starts_with(prefix)
                && let Ok(name) = ObjectName::parse(path)
            {
                listed.push(Listed { name, bytes });
            }
            Ok(())
        };
        self.inner.walk(folder, &enter, &mut found).map_err(|source| self.inner.error("list", prefix, source))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name)); // "a-b" comes before "a/b", but its folder after
        Ok(listed)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.inner.path_of(name);
        let deleted = self.inner.check(name, &path).and_then(|there| {
            if there { self.inner.step(Step::Delete, &path, || self.inner.files.unlink(&path)) } else { Ok(()) }
        });
        match deleted {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.inner.error("delete", name.as_str(), source))
            }
            _ => Ok(()),
        }
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        let mut swept = 0;
        let unlinked = self.inner.walk_temporary(folder, &mut |path, _| {
            let path = self.inner.root.join(path);
            match self.inner.step(Step::Delete, &path, || self.inner.files.unlink(&path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => swept += 1,
            }
            Ok(())
        });
        unlinked.map_err(|source| self.inner.error("sweep", folder, source))?;
        Ok(swept)
    }

    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        let mut found = Vec::new();
        let walked = self.inner.walk_temporary(folder, &mut |path, bytes| {
            found.push(Leftover { path: path.to_owned(), bytes: Some(bytes) });
            Ok(())
        });
        walked.map_err(|source| self.inner.error("list", folder, source))?;
        Ok(found)
    }
}

struct Reader {
    inner: Arc<Inner>,
    name: ObjectName,
    file: Box<dyn FileReader>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.name).finish()
    }
}

impl ObjectReader for Reader {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        self.file.read_at(offset, buffer).map_err(|source| self.inner.error("read", self.name.as_str(), source))
    }
}

#[cfg(test)]
mod tests;
