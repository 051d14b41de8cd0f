//! Snapshots in the form of the backend: files of a tier below the tables, of which later checkpoints name those that have not
//! changed.

use std::io::Read as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutwater_coordinator::FileRef;
use cutwater_core::{Barrier, SubtaskId};
use cutwater_driver::{Lasting, NativeFiles, Place, Stored};
use cutwater_state::ColdImage;
use cutwater_state::format::NativeState;
use cutwater_storage::{ObjectName, StoreError, StoreErrorKind};

use crate::under_way::UnderWay;
use crate::upload::{NotWritten, Uploader, Writer};

/// What is smaller stands in the index, unless it lasts.
const HELD_BYTES: u64 = 256 << 10;
/// So many files are stored at once. Source: Flink's `state.backend.rocksdb.checkpoint.transfer.thread.num`.
const AT_ONCE: usize = 4;
/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// Stores an image: what the barrier's base has is not stored again. Returns the files of the snapshot, the index first, and
/// those of them that last. `room`: so many bytes of the index may stand in the record.
pub(crate) fn store(
    uploader: &Uploader,
    barrier: Barrier,
    subtask: SubtaskId,
    states: Vec<NativeState>,
    image: &dyn ColdImage,
    room: usize,
    under_way: &UnderWay,
) -> Result<(Vec<FileRef>, Lasting), NotWritten> {
    let known = uploader.natives.lock().unwrap_or_else(PoisonError::into_inner).of(subtask, barrier.base);
    let places = Place::of_files(barrier, subtask, image.files(), &known, HELD_BYTES);
    let work = |at: usize, place: &Place| match place {
        Place::Index => {
            let mut content = Vec::new();
            image.open(at)?.read_to_end(&mut content)?;
            Ok(Stored::Index(content))
        }
        Place::Shared(known) => Ok(Stored::Object(known.clone())),
        Place::Object(name) => copy(uploader, name, image, at, under_way).map(Stored::Object),
    };
    let stored = side_by_side(&places, work)?;
    let files = image.files().iter().cloned().zip(stored);
    let NativeFiles { index, mut files, lasting } = NativeFiles::new(uploader.backend, states, files);
    let name = ObjectName::parse(&NativeFiles::index_name(barrier, subtask))?;
    let mut writer = Writer::new(uploader, name, room);
    writer.write_owned(index.encode()?)?;
    files.insert(0, writer.finish(under_way)?);
    Ok((files, lasting))
}

/// What `work` makes of each file, in their order: some at once, since a disk or store that has to answer for each of them is
/// slow with one after the other.
fn side_by_side<F: Sync, T: Send>(
    files: &[F],
    work: impl Fn(usize, &F) -> Result<T, NotWritten> + Sync,
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
fn copy(
    uploader: &Uploader,
    name: &str,
    image: &dyn ColdImage,
    at: usize,
    under_way: &UnderWay,
) -> Result<FileRef, NotWritten> {
    under_way.go_on()?;
    let file = &image.files()[at];
    let mut reader = image.open(at)?;
    let name = ObjectName::parse(name)?;
    under_way.note(&name); // the copy is there from now on
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
        under_way.go_on()?;
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
    Ok(writer.finish_stored(under_way)?)
}
