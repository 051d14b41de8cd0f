use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use cutwater_state::{ColdError, ColdImage, ImageFile};
use rocksdb::checkpoint::Checkpoint;

use crate::database::Database;
use crate::error::{failed, folder_failed};
use crate::steps::{Step, Steps};

/// The files of a database as it was once, hard-linked into a folder of their own: RocksDB never changes a table that it has
/// written, and removes it when no version of the database needs it.
pub(crate) struct RocksImage {
    folder: PathBuf,
    steps: Steps,
    files: Vec<ImageFile>,
}

/// What the folders of images in that of their database begin with.
pub(crate) const PREFIX: &str = "image-";
/// Of a file with entries, of which the name is used once in the life of a database.
const TABLE: &str = ".sst";
/// Says how the database was opened, which whoever opens it says anew.
const OPTIONS: &str = "OPTIONS-";
/// A log of writes, of which there are none.
const LOG: &str = ".log";

static NEXT: AtomicU64 = AtomicU64::new(0);

impl RocksImage {
    /// Writes what is in memory into files, and links all.
    pub(crate) fn new(database: &Arc<Database>) -> Result<Self, ColdError> {
        let folder = database.folder.join(format!("{PREFIX}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let cant_make =
            |error| failed(format!("make an image of the database in {}", database.folder.display()), &error);
        database.steps.before(Step::MakeImage, &folder)?;
        let checkpoint = Checkpoint::new(&database.db).map_err(cant_make)?;
        let steps = database.steps.clone();
        let mut image = Self { folder, steps, files: Vec::new() }; // what there is of it goes if it fails
        checkpoint.create_checkpoint(&image.folder).map_err(cant_make)?;
        image.files = list(&image.folder).map_err(|error| folder_failed(&image.folder, &error))?;
        Ok(image)
    }
}

fn list(folder: &Path) -> io::Result<Vec<ImageFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name =
            entry.file_name().into_string().map_err(|name| io::Error::other(format!("a file {}", name.display())))?;
        if !name.starts_with(OPTIONS) && !name.ends_with(LOG) {
            let lasting = name.ends_with(TABLE);
            files.push(ImageFile { bytes: entry.metadata()?.len(), lasting, name });
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl ColdImage for RocksImage {
    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn open(&self, file: usize) -> io::Result<Box<dyn io::Read + Send>> {
        let file = self.files.get(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File::open(self.folder.join(&file.name))?))
    }

    fn path(&self, file: usize) -> Option<PathBuf> {
        Some(self.folder.join(&self.files.get(file)?.name))
    }
}

impl Drop for RocksImage {
    fn drop(&mut self) {
        if self.steps.ask(Step::RemoveImage, &self.folder).is_ok() {
            drop(fs::remove_dir_all(&self.folder)); // what can't be removed goes with the folder above
        }
    }
}

impl fmt::Debug for RocksImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksImage").field("folder", &self.folder).field("files", &self.files.len()).finish()
    }
}
