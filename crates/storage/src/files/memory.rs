use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EntryKind, FileReader, FileWriter, Files, FolderEntry, parent};

/// A file system in memory that loses what was not synced when told to [`crash`](Self::crash). Clones are the same file
/// system. It makes no decision of its own: what survives is up to the caller, so a seed or a test table can drive it.
///
/// It begins with the folder `/`; relative paths are taken from there. There are no rights, links or size limits: to
/// make a step fail, put [`HookedFiles`](super::HookedFiles) before it.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
}

/// Something that a crash may take away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsynced {
    /// An entry that was added to a folder not synced since. [`Fate::Kept`] keeps it, any other fate loses it.
    Added(PathBuf),
    /// An entry that was removed from a folder not synced since. [`Fate::Kept`] keeps it removed; after any other fate
    /// it is back.
    Removed(PathBuf),
    /// The end of a file, after what its last sync covered.
    Tail {
        /// One name of the file, durable or not.
        path: PathBuf,
        /// Bytes that are safe.
        synced: u64,
        /// Bytes that are not.
        unsynced: u64,
    },
}

/// What a crash does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had reached the disk by itself.
    Kept,
    /// It is gone.
    Lost,
    /// Of a [`Tail`](Unsynced::Tail), this many bytes had reached the disk (all, if there are fewer).
    Torn(u64),
    /// Of a [`Tail`](Unsynced::Tail), the length had reached the disk but not the bytes: they read as zeros.
    Zeroed,
}

impl MemoryFiles {
    /// A file system with nothing but the folder `/`, which is durable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power and starts again: asks `fate` about everything that was not synced, entries in the order they were
    /// changed and folder by folder, then files; what is left is durable. Handles opened before fail from now on.
    pub fn crash(&self, fate: impl FnMut(&Unsynced) -> Fate) {
        self.disk().crash(fate);
    }

    /// Loses everything that was not synced.
    pub fn crash_losing_all(&self) {
        self.crash(|_| Fate::Lost);
    }

    /// Every file with its content, by path: to compare whole states in tests.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk();
        let files = disk.folders.iter().flat_map(|(path, folder)| {
            folder.entries.iter().filter_map(|(name, node)| Some((path.join(name), node.file()?.bytes.clone())))
        });
        files.collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic of the caller's `fate` leaves folders and files consistent one by one, which is what a crash is.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All paths are absolute and hold neither `.` nor `..`.
#[derive(Debug)]
struct Disk {
    folders: BTreeMap<PathBuf, Folder>,
    generation: u64, // crashes so far
}

#[derive(Debug, Default)]
struct Folder {
    entries: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
    changes: Vec<(OsString, Option<Node>)>, // since the last sync; `None` removes
}

/// A folder's own entries are in [`Disk::folders`] under its path.
#[derive(Clone, Debug)]
enum Node {
    File(Arc<Mutex<Content>>),
    Folder,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

impl Node {
    fn file(&self) -> Option<MutexGuard<'_, Content>> {
        match self {
            Self::File(content) => Some(lock(content)),
            Self::Folder => None,
        }
    }
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Disk {
    fn default() -> Self {
        Self { folders: BTreeMap::from([(PathBuf::from("/"), Folder::default())]), generation: 0 }
    }
}

impl Disk {
    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        let holder = self.folders.get(parent(path)).and_then(|folder| folder.entries.get(path.file_name()?));
        let wrong =
            if matches!(holder, Some(Node::File(_))) { io::ErrorKind::NotADirectory } else { io::ErrorKind::NotFound };
        self.folders.get_mut(path).ok_or_else(|| wrong.into())
    }

    fn find(&mut self, path: &Path) -> io::Result<Option<Node>> {
        let Some(name) = path.file_name() else { return Ok(Some(Node::Folder)) };
        match self.folder(parent(path)) {
            Ok(folder) => Ok(folder.entries.get(name).cloned()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::AlreadyExists)?;
        let folder = self.folder(parent(path))?;
        if folder.entries.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.change(name, Some(node));
        Ok(())
    }

    fn crash(&mut self, mut fate: impl FnMut(&Unsynced) -> Fate) {
        self.generation += 1;
        for (path, folder) in &mut self.folders {
            folder.crash(path, &mut fate);
        }
        // A folder whose own entry was lost is gone with all that is below it; parents come before children here.
        let paths: Vec<PathBuf> = self.folders.keys().cloned().collect();
        for path in paths {
            if !matches!(self.find(&path), Ok(Some(Node::Folder))) {
                self.folders.remove(&path);
            }
        }
        for (path, folder) in &self.folders {
            for (name, node) in &folder.entries {
                if let Some(mut content) = node.file() {
                    content.crash(|| path.join(name), &mut fate);
                }
            }
        }
    }
}

impl Folder {
    fn change(&mut self, name: &OsStr, node: Option<Node>) {
        match &node {
            Some(node) => self.entries.insert(name.to_owned(), node.clone()),
            None => self.entries.remove(name),
        };
        self.changes.push((name.to_owned(), node));
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.entries);
        self.changes.clear();
    }

    fn crash(&mut self, path: &Path, fate: &mut impl FnMut(&Unsynced) -> Fate) {
        for (name, node) in std::mem::take(&mut self.changes) {
            let entry = path.join(&name);
            let unsynced = if node.is_some() { Unsynced::Added(entry) } else { Unsynced::Removed(entry) };
            if fate(&unsynced) == Fate::Kept {
                match node {
                    Some(node) => self.durable.insert(name, node),
                    None => self.durable.remove(&name),
                };
            }
        }
        self.entries.clone_from(&self.durable);
    }
}

impl Content {
    fn crash(&mut self, path: impl FnOnce() -> PathBuf, fate: &mut impl FnMut(&Unsynced) -> Fate) {
        let unsynced = self.bytes.len() - self.synced;
        if unsynced > 0 {
            let tail = Unsynced::Tail { path: path(), synced: self.synced as u64, unsynced: unsynced as u64 };
            match fate(&tail) {
                Fate::Kept => {}
                Fate::Lost => self.bytes.truncate(self.synced),
                Fate::Torn(kept) => {
                    let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(unsynced);
                    self.bytes.truncate(self.synced + kept);
                }
                Fate::Zeroed => self.bytes[self.synced..].fill(0),
            }
        }
        self.synced = self.bytes.len();
    }
}

/// The path from `/`, so that a path has one spelling.
fn absolute(path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    absolute.extend(path.components().filter(|part| !matches!(part, std::path::Component::CurDir)));
    absolute
}

impl Files for MemoryFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        let content = Arc::new(Mutex::new(Content::default()));
        let mut disk = self.disk();
        disk.add(&absolute(path), Node::File(content.clone()))?;
        Ok(Box::new(Writer { disk: self.disk.clone(), generation: disk.generation, content }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        match disk.find(&absolute(from))?.ok_or(io::ErrorKind::NotFound)? {
            node @ Node::File(_) => disk.add(&absolute(to), node),
            Node::Folder => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let mut disk = self.disk();
        match disk.find(&path)?.ok_or(io::ErrorKind::NotFound)? {
            Node::Folder => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(_) => {
                let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
                disk.folder(parent(&path))?.change(name, None);
                Ok(())
            }
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.disk().folder(&absolute(path))?.sync();
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let mut disk = self.disk();
        disk.add(&path, Node::Folder)?;
        disk.folders.insert(path, Folder::default());
        Ok(())
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut disk = self.disk();
        let entries = disk.folder(&absolute(path))?.entries.iter().map(|(name, node)| FolderEntry {
            name: name.clone(),
            kind: node.kind(),
            bytes: node.file().map_or(0, |content| content.bytes.len() as u64),
        });
        Ok(entries.collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        Ok(self.disk().find(&absolute(path))?.map(|node| node.kind()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>> {
        let mut disk = self.disk();
        match disk.find(&absolute(path))?.ok_or(io::ErrorKind::NotFound)? {
            Node::Folder => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(content) => {
                let length = lock(&content).bytes.len() as u64;
                Ok(Box::new(Reader { disk: self.disk.clone(), generation: disk.generation, content, length }))
            }
        }
    }
}

impl Node {
    fn kind(&self) -> EntryKind {
        match self {
            Self::File(_) => EntryKind::File,
            Self::Folder => EntryKind::Folder,
        }
    }
}

/// The content, unless the file system crashed since the handle was made in `generation`. Locks the disk first, as all
/// do.
fn alive<T>(
    disk: &Mutex<Disk>,
    generation: u64,
    content: &Mutex<Content>,
    run: impl FnOnce(&mut Content) -> T,
) -> io::Result<T> {
    let disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
    if disk.generation == generation {
        Ok(run(&mut lock(content)))
    } else {
        Err(io::Error::other("the file was open when the file system crashed"))
    }
}

#[derive(Debug)]
struct Writer {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
    content: Arc<Mutex<Content>>,
}

impl FileWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        alive(&self.disk, self.generation, &self.content, |content| content.bytes.extend_from_slice(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        alive(&self.disk, self.generation, &self.content, |content| content.synced = content.bytes.len())
    }
}

#[derive(Debug)]
struct Reader {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
    content: Arc<Mutex<Content>>,
    length: u64,
}

impl FileReader for Reader {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        alive(&self.disk, self.generation, &self.content, |content| {
            let rest = usize::try_from(offset).ok().and_then(|offset| content.bytes.get(offset..)).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            count
        })
    }
}
