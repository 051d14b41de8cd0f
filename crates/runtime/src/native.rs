//! Snapshots in the form of the backend: files of a tier below the tables, of which later checkpoints name those that have not
//! changed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cutwater_coordinator::{FileRef, native_name};
use cutwater_core::{Barrier, CheckpointId, SubtaskId};
use cutwater_state::format::{NativeFile, NativeIndex, NativeState};
use cutwater_state::{ColdImage, ImageFile};
use cutwater_storage::{ObjectName, StoreError, StoreErrorKind};

use crate::upload::{NotWritten, Uploader, Writer};

/// What is smaller stands in the index, unless it lasts.
const HELD_BYTES: u64 = 256 << 10;
/// So many files are stored at once. Source: Flink's `state.backend.rocksdb.checkpoint.transfer.thread.num`.
const AT_ONCE: usize = 4;
/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// The lasting files of images that later snapshots of the same subtask may name.
#[derive(Debug, Default)]
pub(crate) struct Natives {
    known: Mutex<BTreeMap<SubtaskId, BTreeMap<CheckpointId, Lasting>>>,
}

/// Files of an image, and where they are stored.
pub(crate) type Lasting = BTreeMap<ImageFile, FileRef>;

impl Natives {
    /// Those of a checkpoint that is complete.
    fn of(&self, subtask: SubtaskId, checkpoint: Option<CheckpointId>) -> Lasting {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = known.get(&subtask).and_then(|known| known.get(&checkpoint?));
        of.cloned().unwrap_or_default()
    }

    /// Later images of the subtask may have these files of a checkpoint. None builds on one before `base`.
    pub(crate) fn remember(
        &self,
        subtask: SubtaskId,
        base: Option<CheckpointId>,
        checkpoint: CheckpointId,
        files: Lasting,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(subtask).or_default();
        if let Some(base) = base {
            known.retain(|checkpoint, _| *checkpoint >= base);
        }
        known.insert(checkpoint, files);
    }
}

/// Stores an image: what the barrier's base has is not stored again. Returns the files of the snapshot, the index first, and
/// those of them that last. `room`: so many bytes of the index may stand in the record.
pub(crate) fn store(
    uploader: &Uploader,
    barrier: Barrier,
    subtask: SubtaskId,
    states: Vec<NativeState>,
    image: &dyn ColdImage,
    room: usize,
) -> Result<(Vec<FileRef>, Lasting), NotWritten> {
    let before = uploader.natives.of(subtask, barrier.base);
    let work = |at: usize, file: &ImageFile| {
        if !file.lasting && file.bytes <= HELD_BYTES {
            return Ok(None);
        }
        if let Some(known) = before.get(file) {
            return Ok(Some(known.clone()));
        }
        let number = u32::try_from(at + 1).expect("fewer files than 2^32");
        copy(uploader, &native_name(barrier, subtask, number), image, at).map(Some)
    };
    let (mut files, mut listed, mut lasting) = (Vec::new(), Vec::new(), Lasting::new());
    for (at, (file, stored)) in image.files().iter().zip(side_by_side(image.files(), work)?).enumerate() {
        let file = file.clone();
        match stored {
            Some(stored) => {
                let (crc32c, object) = (stored.crc32c, Some(stored.name.clone()));
                listed.push(NativeFile { file: file.clone(), crc32c, object, content: Vec::new() });
                if file.lasting {
                    lasting.insert(file, stored.clone());
                }
                files.push(stored);
            }
            None => {
                let mut content = Vec::new();
                image.open(at)?.read_to_end(&mut content)?;
                let file = ImageFile { bytes: content.len() as u64, ..file };
                listed.push(NativeFile { file, crc32c: crc32c::crc32c(&content), object: None, content });
            }
        }
    }
    let index = NativeIndex { backend: uploader.backend.to_owned(), states, files: listed };
    let name = ObjectName::parse(&native_name(barrier, subtask, 0))?;
    let mut writer = Writer::new(uploader, name, room);
    writer.write_owned(index.encode()?)?;
    files.insert(0, writer.finish()?);
    Ok((files, lasting))
}

/// What `work` makes of each file, in their order: some at once, since a disk or store that has to answer for each of them is
/// slow with one after the other.
fn side_by_side<T: Send>(
    files: &[ImageFile],
    work: impl Fn(usize, &ImageFile) -> Result<T, NotWritten> + Sync,
) -> Result<Vec<T>, NotWritten> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut made = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return Ok(made) };
            match work(at, file) {
                Ok(one) => made.push((at, one)),
                Err(error) => {
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let mut made = std::thread::scope(|threads| {
        let running: Vec<_> = (1..AT_ONCE.min(files.len())).map(|_| threads.spawn(some)).collect();
        let mut made = some()?;
        for thread in running {
            made.extend(thread.join().expect("no part of it panics")?);
        }
        Ok::<_, NotWritten>(made)
    })?;
    made.sort_unstable_by_key(|(at, _)| *at);
    Ok(made.into_iter().map(|(_, one)| one).collect())
}

/// Stores one file of an image.
fn copy(uploader: &Uploader, name: &str, image: &dyn ColdImage, at: usize) -> Result<FileRef, NotWritten> {
    let file = &image.files()[at];
    let mut reader = image.open(at)?;
    let name = ObjectName::parse(name)?;
    let linked = match (&uploader.local, image.path(at)) {
        (Some(local), Some(path)) => local.link_from(&path, &name),
        _ => false,
    };
    let mut writer = Writer::new(uploader, name, 0);
    if linked {
        writer.without_copy();
    }
    let mut left = file.bytes;
    while left > 0 {
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        reader.read_exact(&mut piece)?;
        left -= piece.len() as u64;
        writer.write_owned(piece)?;
    }
    if reader.read(&mut [0])? > 0 {
        return Err(
            StoreError::new(StoreErrorKind::Corrupt, "copy a file that has grown", String::new(), &file.name).into()
        );
    }
    Ok(writer.finish_stored()?)
}
