use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Inner, parent};
use crate::error::{CreateError, StoreError, StoreErrorKind};
use crate::files::FileWriter;
use crate::name::ObjectName;
use crate::step::Step;

/// An object under its temporary name. Dropping it removes the name, as far as that is possible.
pub(super) struct Temp {
    pub(super) inner: Arc<Inner>,
    temp: PathBuf,
    object: PathBuf,
    file: Option<Box<dyn FileWriter>>,
    unlinked: bool,
}

impl Temp {
    pub(super) fn new(inner: Arc<Inner>, temp: PathBuf, object: PathBuf, file: Box<dyn FileWriter>) -> Self {
        Self { inner, temp, object, file: Some(file), unlinked: false }
    }

    /// Appends a piece.
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().expect("only `publish` takes it, and consumes self");
        self.inner.step(Step::WriteTemp, &self.temp, || file.write(piece))
    }

    /// Gives the object its name, durably; with `in_order`, not before the names that are there already.
    pub(super) fn publish(mut self, name: &ObjectName, in_order: bool) -> Result<(), CreateError> {
        let inner = self.inner.clone();
        let error = |source| inner.error("create", name.as_str(), source);
        let failed = |source| CreateError::Failed { source: error(source) };
        let unknown = |source| CreateError::Unknown { source: error(source) };

        let mut file = self.file.take().expect("only this function takes it, and consumes self");
        inner.step(Step::SyncTemp, &self.temp, || file.sync()).map_err(failed)?;
        drop(file);
        if in_order {
            let folder = parent(&self.object);
            inner.step(Step::SyncEarlier, folder, || inner.files.sync_folder(folder)).map_err(failed)?;
        }
        // The hook is asked apart from the link: its refusal is certain, while a link that failed need not be.
        inner.step(Step::Link, &self.object, || Ok(())).map_err(failed)?;
        match inner.files.link(&self.temp, &self.object) {
            Ok(()) => {
                self.unlink().map_err(unknown)?;
                self.sync_folder().map_err(unknown)
            }
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                // The winner may not have come to sync the folder yet. Whoever is told that the name is taken will act
                // upon what is there, so it must not vanish any more.
                self.sync_folder().map_err(failed)?;
                Err(CreateError::Exists)
            }
            Err(source) => Err(link_error(&inner, name, source)),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = parent(&self.object);
        self.inner.step(Step::SyncFolder, folder, || self.inner.files.sync_folder(folder))
    }

    fn unlink(&mut self) -> io::Result<()> {
        match self.inner.step(Step::UnlinkTemp, &self.temp, || self.inner.files.unlink(&self.temp)) {
            // Swept away by a process that took us for dead: what is wanted is done.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.unlinked = true,
        }
        Ok(())
    }
}

/// What a failed link means. On a network file system an error may be that of the answer, not of the link.
fn link_error(inner: &Inner, name: &ObjectName, source: io::Error) -> CreateError {
    use StoreErrorKind::{NoSpace, NotFound, Other, PermissionDenied, ReadOnly, Unsupported};
    let kind = StoreErrorKind::of(&source);
    // The temporary file could be created here, so it is links that the file system lacks: FAT and some others say "not
    // permitted" for that.
    let lacks_links = matches!(kind, PermissionDenied | Unsupported);
    let certain = lacks_links || matches!(kind, NoSpace | ReadOnly | NotFound);
    let kind = if lacks_links {
        Unsupported
    } else if certain {
        kind
    } else {
        Other
    };
    let source = StoreError::new(kind, "link", inner.url(), name.as_str()).because(source);
    if certain { CreateError::Failed { source } } else { CreateError::Unknown { source } }
}

impl Drop for Temp {
    fn drop(&mut self) {
        self.file = None; // close it first: some file systems keep open files under another name
        if !self.unlinked {
            let _ = self.unlink(); // it begins with '.', so at worst it takes space until the next sweep
        }
    }
}

impl fmt::Debug for Temp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Temp").field(&self.temp).finish()
    }
}
