//! Snapshots in the form of the backend: the tier below the tables takes their files over.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cutwater_coordinator::{FileRef, SubtaskSnapshot, TaskSnapshot as TaskPart};
use cutwater_core::{KeyGroupRange, MaxParallelism, OperatorUid};
use cutwater_driver::{Lasting, NotClaimed, claim_imported, lasting_files, native_files, native_index};
use cutwater_state::format::{NativeIndex, ReadAt as _};
use cutwater_state::{AttachedTier, ColdError, ImageFile, ImageSource, MakeFile, StateError};
use cutwater_task::TaskCore;

use super::file::File;
use super::{Fetched, Progress, RestorePoint};
use crate::error::RestoreError;
use crate::job::IgnoreUnclaimed;
use crate::local::LocalCopies;
use crate::upload::chain;

/// The most bytes of an index: of a million files.
const MOST_INDEX: u64 = 256 << 20;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// The files of one subtask that are of the backend's own form, in their store.
pub(super) struct StoredImage<'a> {
    /// Of the file with the index.
    name: String,
    index: NativeIndex,
    files: Vec<ImageFile>,
    /// Where each of them is; `None` if the index has it.
    stored: Vec<Option<&'a FileRef>>,
    groups: KeyGroupRange,
    point: &'a RestorePoint,
    local: Option<&'a LocalCopies>,
    fetched: &'a Fetched,
    progress: Option<&'a Progress>,
    /// Why a file could not be read.
    failed: Mutex<Option<RestoreError>>,
}

impl<'a> StoredImage<'a> {
    /// That of a subtask, if there is one.
    pub(super) fn open(
        point: &'a RestorePoint,
        (max, task, part): (MaxParallelism, &TaskPart, &'a SubtaskSnapshot),
        local: Option<&'a LocalCopies>,
        fetched: &'a Fetched,
        progress: Option<&'a Progress>,
    ) -> Result<Option<Self>, RestoreError> {
        let Some(index) = native_index(&part.files) else { return Ok(None) };
        let (url, name) = (point.store.url(), index.name.clone());
        let reader = File::open(point, index, local, progress)?;
        let reader = reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?;
        let damaged = |reason: String| StateError::Damaged { part: "index", offset: 0, reason: reason.into() };
        let read = reader.ask(|| {
            let bytes = reader.len();
            if bytes != index.bytes || bytes > MOST_INDEX {
                return Err(damaged(format!("the file has {bytes} bytes, the checkpoint names {}", index.bytes)));
            }
            let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
            let read = reader.read_at(0, &mut content);
            read.map_err(|source| StateError::Read { offset: 0, bytes, source })?;
            if crc32c::crc32c(&content) != index.crc32c {
                return Err(damaged("its checksum is wrong: it is not the file that the checkpoint names".to_owned()));
            }
            NativeIndex::decode(&content)
        });
        let wrong = |source| RestoreError::File { url: url.clone(), name: name.clone(), source };
        let index = read.map_err(wrong)?;
        let stored = native_files(&index, &part.files).map_err(wrong)?;
        let files = index.files.iter().map(|file| file.file.clone()).collect();
        // What can't be said of a record that makes no sense is left to the check of the files.
        let (number, parallelism) = (part.subtask.index, task.parallelism);
        let makes_sense = number < parallelism && parallelism <= max.count();
        let groups = if makes_sense { max.range_of(number, parallelism) } else { max.all() };
        Ok(Some(Self { name, index, files, stored, groups, point, local, fetched, progress, failed: Mutex::default() }))
    }

    /// The backend that can read it.
    pub(super) fn backend(&self) -> &str {
        &self.index.backend
    }

    /// The files that later images of a tier that goes on from this one may have.
    pub(super) fn lasting(&self) -> Lasting {
        lasting_files(&self.index, &self.stored)
    }

    /// Why it could not be read, if that is why.
    pub(super) fn take_failure(&self) -> Option<RestoreError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads a stored file from its begin, and returns the sum.
    fn copy(&self, reader: &File<'_>, file: &ImageFile, to: &mut dyn Write) -> Result<u32, StateError> {
        let mut piece = vec![0; PIECE.min(usize::try_from(file.bytes).unwrap_or(PIECE))];
        let (mut at, mut sum) = (0, 0);
        while at < file.bytes {
            let some = piece.len().min(usize::try_from(file.bytes - at).unwrap_or(usize::MAX));
            let read = reader.read_at(at, &mut piece[..some]);
            read.map_err(|source| StateError::Read { offset: at, bytes: some as u64, source })?;
            sum = crc32c::crc32c_append(sum, &piece[..some]);
            to.write_all(&piece[..some]).map_err(written)?;
            at += some as u64;
        }
        to.flush().map_err(written)?;
        Ok(sum)
    }

    fn read_stored(&self, file: &FileRef, image: &ImageFile, make: &mut MakeFile<'_>) -> Result<(), RestoreError> {
        let (url, name) = (self.point.store.url(), file.name.clone());
        let reader = File::open(self.point, file, self.local, self.progress)?;
        let reader = reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?;
        let read = reader.ask(|| {
            let damaged = |reason: String| StateError::Damaged { part: "file", offset: 0, reason: reason.into() };
            if reader.len() != file.bytes {
                return Err(damaged(format!("it has {} bytes, the checkpoint names {}", reader.len(), file.bytes)));
            }
            let sum = self.copy(&reader, image, &mut *make().map_err(written)?)?;
            if sum == file.crc32c { Ok(()) } else { Err(damaged("its checksum is wrong".to_owned())) }
        });
        read.map_err(|source| RestoreError::File { url, name, source })?;
        if let Some(progress) = self.progress {
            progress.restored(file.bytes);
        }
        reader.was_read(file.bytes);
        Ok(())
    }
}

impl StoredImage<'_> {
    /// Links the copy on this machine, if there is one. Never what is in the store: an object has to stay what it is, whatever
    /// becomes of a disk under load.
    fn link_copy(&self, stored: &FileRef, to: &Path) -> bool {
        let Some(local) = self.local else { return false };
        let linked = local.link_to(&self.point.checkpoint.job, stored, to);
        if let (Some(progress), true) = (self.progress, linked) {
            progress.restored(stored.bytes);
            progress.read_locally(stored.bytes);
        }
        linked
    }
}

/// What can't be written here is no damage of the checkpoint.
fn written(error: io::Error) -> StateError {
    StateError::Cold {
        operator: "the task".into(),
        state: "all".into(),
        source: Box::new(ColdError { action: "write a file of an image".into(), reason: error.to_string().into() }),
    }
}

impl ImageSource for StoredImage<'_> {
    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn groups(&self) -> KeyGroupRange {
        self.groups
    }

    fn read(&self, file: usize, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let image = &self.files[file];
        let failed = |reason: String| ColdError {
            action: format!("read the file {} of an image", image.name).into(),
            reason: reason.into(),
        };
        let Some(stored) = self.stored[file] else {
            let content = &self.index.files[file].content;
            let write = make().and_then(|mut to| to.write_all(content).and_then(|()| to.flush()));
            return write.map_err(|error| failed(error.to_string()));
        };
        self.read_stored(stored, image, make).map_err(|error| {
            let told = failed(chain(&error));
            // What could not be written is the tier's own error.
            if !matches!(&error, RestoreError::File { source: StateError::Cold { .. }, .. }) {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            told
        })
    }

    fn put(&self, file: usize, to: &Path, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let Some(stored) = self.stored[file] else { return self.read(file, make) };
        let fetch = || if self.link_copy(stored, to) { Ok(()) } else { self.read(file, make) };
        let linked = self.fetched.put(&stored.name, to, fetch)?;
        if let (Some(progress), true) = (self.progress, linked) {
            progress.restored(stored.bytes);
        }
        Ok(())
    }
}

impl std::fmt::Debug for StoredImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredImage").field("backend", &self.index.backend).field("files", &self.files.len()).finish()
    }
}

/// Gives the tables of a subtask what the tier has taken over of these images. What belongs to none of them is forgotten.
pub(super) fn claim(
    core: &mut TaskCore,
    attached: &AttachedTier,
    images: &[StoredImage<'_>],
    (range, point, ignored): (KeyGroupRange, &RestorePoint, &IgnoreUnclaimed),
    mine: impl Fn(&OperatorUid) -> bool,
) -> Result<(), RestoreError> {
    let headers = images.iter().flat_map(|image| &image.index.states).map(|state| &state.header);
    let headers = headers.filter(|header| mine(&header.operator));
    let claimed = claim_imported(core, &*attached.tier, headers, range, |operator| ignored.covers(operator));
    claimed.map_err(|error| match error {
        NotClaimed::Unknown { operator, state, kind } => RestoreError::UnknownState { operator, state, kind },
        NotClaimed::State(source) => {
            let name = images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>().join(", ");
            RestoreError::File { url: point.store.url(), name, source }
        }
    })
}
