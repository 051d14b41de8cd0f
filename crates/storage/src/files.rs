//! The few operations of a file system that durable files need, each a named step that can be made to fail.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

mod hooked;
mod memory;
mod os;

pub use hooked::{FileStep, HookedFiles};
pub use memory::{Fate, MemoryFiles, Unsynced};
pub use os::OsFiles;

/// A file system as far as durable files need it: [`OsFiles`] is the real one, [`MemoryFiles`] a model that loses what
/// was not synced, [`HookedFiles`] fails any other at a chosen step.
///
/// The recipe for a durable file is: [`create_new`](Self::create_new) under a temporary name, write,
/// [`sync`](FileWriter::sync), [`link`](Self::link) to the final name, [`unlink`](Self::unlink) the temporary one,
/// [`sync_folder`](Self::sync_folder). Nothing is ever replaced: there is no rename and no truncation.
///
/// - An entry of a folder (a new file, a link, a removal, a new folder) is durable after `sync_folder` of that folder,
///   and may or may not survive a loss of power before. Entries are independent of each other.
/// - Written bytes are durable after `sync` of their file; before, none, some or all may survive.
/// - Symbolic links are followed only in the folders of a path that the caller gives, never created.
pub trait Files: Send + Sync + fmt::Debug {
    /// Creates an empty file for writing.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is anything under this name, also a dangling link; else as the system reports.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FileWriter>>;

    /// Gives the file of `from` the further name `to`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is anything under `to`, which stays as it was; else as the system reports.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes one name of a file; the file goes with its last one.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there; else as the system reports.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of the folder durable (not the bytes of its files).
    ///
    /// # Errors
    ///
    /// As the system reports. Which of the entries survive is then unknown.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Creates one folder in a folder that exists.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is anything under this name; else as the system reports.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// The entries of a folder, sorted by name.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there; else as the system reports.
    fn list_folder(&self, path: &Path) -> io::Result<Vec<FolderEntry>>;

    /// What is under this name itself, a symbolic link not followed; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there, `IsADirectory` if it is no plain file; else as the system reports.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>>;

    /// Whether there is anything under this name.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.kind(path)?.is_some())
    }

    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there; `FileTooLarge` if it has more bytes than `limit`; `UnexpectedEof` if it got
    /// shorter while being read; else as the system reports.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let length = file.len();
        let size = usize::try_from(length).ok().filter(|_| length <= limit).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; size];
        let count = file.read_at(0, &mut bytes)?;
        if count == size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Creates a folder and those above it that are missing, and makes them durable: each one's parent is synced.
    ///
    /// The innermost one that is there already may be of a process that was killed before it could sync the parent, so that
    /// is done too, unless the parent may not be opened: then it was not us who made it.
    ///
    /// # Errors
    ///
    /// As the system reports; the outer ones may be there then.
    fn create_folder_all(&self, path: &Path) -> io::Result<()> {
        let missing = missing_folders(self, path)?;
        let found = missing.first().map_or(path, |first| parent(first));
        match self.sync_folder(parent(found)) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
        for folder in missing {
            match self.create_folder(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.sync_folder(parent(folder))?,
            }
        }
        Ok(())
    }
}

/// The folders of `path` that do not exist, the outermost first.
pub(crate) fn missing_folders<'a, F: Files + ?Sized>(files: &F, path: &'a Path) -> io::Result<Vec<&'a Path>> {
    let mut missing = Vec::new();
    for folder in path.ancestors().take_while(|folder| !folder.as_os_str().is_empty()) {
        if files.exists(folder)? {
            break;
        }
        missing.push(folder);
    }
    missing.reverse();
    Ok(missing)
}

/// The folder that holds the entry `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path, // the root of the file system holds itself
    }
}

/// A new file, open for appending. Dropping it closes the file and syncs nothing.
pub trait FileWriter: Send + fmt::Debug {
    /// Appends all bytes.
    ///
    /// # Errors
    ///
    /// As the system reports, also for an earlier write-back. The file is then lost: all later calls fail.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all bytes so far and the length durable.
    ///
    /// # Errors
    ///
    /// As the system reports. The file is then lost, since the system may have dropped the bytes and forgotten it: all
    /// later calls fail, and syncing again through another handle proves nothing.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file open for reading.
pub trait FileReader: Send + Sync + fmt::Debug {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on and returns how many bytes there were: fewer than fit only at the file's end.
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, a device, a socket and so on.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its name in the folder.
    pub name: OsString,
    /// What it is, a symbolic link not followed.
    pub kind: EntryKind,
    /// Length in bytes of a file; 0 for the others.
    pub bytes: u64,
}

/// The error of every call on a writer that failed before.
pub(crate) fn lost_file() -> io::Error {
    io::Error::other("an earlier write or sync of this file failed, so it is given up")
}

#[cfg(test)]
mod tests;
