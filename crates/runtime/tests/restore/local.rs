//! Copies on this machine: what is read from them, what is not, and what becomes of old ones.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_dataflow::Collect;
use cutwater_restart::Strategy;
use cutwater_runtime::{JobHandle, JobOutcome, JobState, LocalRecovery, Options, RestoreProgress, spawn};
use cutwater_storage::{MemoryStore, Store};
use cutwater_task::DeltaLimits;

use super::store::Hooked;
use super::{FAIL, HALF, assert_whole, closed, copy, counts, options, wait_until};

fn with_copies(store: Arc<dyn Store>, folder: &Path) -> Options {
    let local = LocalRecovery { backup: true, from_local: true, dirs: vec![folder.to_owned()] };
    Options { local, ..options(store, 2) }
}

/// The copies in the folder, by the names of the files.
fn copies(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.join("counts/chk")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).map(|name| format!("chk/{name}")).collect()
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    copies(folder).into_iter().map(|name| folder.join("counts").join(name)).collect()
}

fn files(checkpoint: &CompletedCheckpoint) -> BTreeSet<String> {
    checkpoint.files().map(|file| file.name.clone()).collect()
}

fn with_all_keys(options: Options) -> JobHandle {
    let handle = spawn(closed(), options).unwrap();
    wait_until(&handle, |handle| handle.status().records_in == HALF);
    handle
}

/// Runs the job to its end; how the restore went, and how many files of state were opened in the store.
fn restore(store: &Arc<dyn Store>, options: impl Fn(Arc<dyn Store>) -> Options) -> (RestoreProgress, u64) {
    let opened = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&opened);
    let count = move |name: &str| {
        counter.fetch_add(u64::from(name.contains("/chk/")), Ordering::Relaxed);
    };
    let store = Hooked::new(&copy(store), count, |_, _, bytes| bytes.len());
    let handle = assert_whole(options(store));
    (handle.status().restore.unwrap(), opened.load(Ordering::Relaxed))
}

/// A store and a folder with copies of the files of its checkpoint.
fn prepared(folder: &Path) -> (Arc<dyn Store>, CompletedCheckpoint) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let handle = with_all_keys(with_copies(Arc::clone(&store), folder));
    let checkpoint = handle.checkpoint().unwrap();
    wait_until(&handle, |_| copies(folder) == files(&checkpoint));
    handle.cancel();
    handle.wait().unwrap();
    (store, checkpoint)
}

#[test]
fn right_copies_are_read_in_place_of_the_store_and_wrong_ones_never() {
    let folder = tempfile::tempdir().unwrap();
    let (store, checkpoint) = prepared(folder.path());
    let right: Vec<_> = paths(folder.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert_eq!(right.len(), 2);

    let copied = |store| with_copies(store, folder.path());
    for parallelism in [2, 3] {
        let (restored, opened) = restore(&store, |store| {
            let mut options = copied(store);
            options.parallelism = parallelism.try_into().unwrap();
            options
        });
        assert_eq!((restored.local_bytes, opened), (restored.restored_bytes, 0), "at {parallelism}");
        put_back(folder.path(), &right);
    }
    let (restored, opened) = restore(&store, |store| {
        let mut options = copied(store);
        options.local.from_local = false;
        options
    });
    assert_eq!((restored.local_bytes, opened), (0, 2), "nobody said that they are to be read");

    let flipped = |bytes: &[u8], at: usize| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        flipped
    };
    let other = |at: usize| right[1 - at].0.clone();
    type Wrong<'a> = &'a dyn Fn(usize, &[u8]) -> Option<Vec<u8>>;
    let cases: [(&str, Wrong<'_>); 7] = [
        ("there are none", &|_, _| None),
        ("a byte of the header is another", &|_, bytes| Some(flipped(bytes, 30))),
        ("a byte of a block is another", &|_, bytes| Some(flipped(bytes, bytes.len() / 2))),
        ("the last byte is another", &|_, bytes| Some(flipped(bytes, bytes.len() - 1))),
        ("they are cut", &|_, bytes| Some(bytes[..bytes.len() - 1].to_vec())),
        ("they are longer", &|_, bytes| Some([bytes, b"!"].concat())),
        ("they are whole files of other subtasks", &|at, _| Some(other(at))),
    ];
    for (name, wrong) in cases {
        put_back(folder.path(), &[]);
        for (at, (bytes, path)) in right.iter().enumerate() {
            wrong(at, bytes).into_iter().for_each(|bytes| fs::write(path, bytes).unwrap());
        }
        let (restored, opened) = restore(&store, copied);
        assert_eq!((restored.local_bytes, restored.rereads, opened), (0, 0, 2), "{name}");
        assert_eq!((restored.checkpoint, restored.restored_bytes), (checkpoint.checkpoint, restored.bytes), "{name}");
    }

    // One of two.
    put_back(folder.path(), &right[..1]);
    let (restored, opened) = restore(&store, copied);
    assert_eq!((restored.local_bytes, opened), (right[0].0.len() as u64, 1));
}

/// These copies and no others.
fn put_back(folder: &Path, copies: &[(Vec<u8>, PathBuf)]) {
    paths(folder).iter().for_each(|path| fs::remove_file(path).unwrap());
    copies.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
}

/// Of a run in another place the files have the same names, and these even the same lengths.
#[test]
fn copies_of_a_run_elsewhere_are_not_read_and_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let (_, elsewhere) = prepared(folder.path());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let until = Arc::new(AtomicU64::new(HALF + 1_000));
    let handle = spawn(counts(&until, &Collect::default()), options(Arc::clone(&store), 2)).unwrap();
    wait_until(&handle, |handle| handle.status().records_in == HALF + 1_000);
    let checkpoint = handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();
    let lengths = |checkpoint: &CompletedCheckpoint| checkpoint.files().map(|file| file.bytes).collect::<Vec<_>>();
    assert_eq!((files(&checkpoint), lengths(&checkpoint)), (files(&elsewhere), lengths(&elsewhere)));
    let (restored, opened) = restore(&store, |store| with_copies(store, folder.path()));
    assert_eq!((restored.local_bytes, opened), (0, 2));

    // Its own are written in their place.
    let handle = with_all_keys(with_copies(Arc::new(MemoryStore::new()), folder.path()));
    let checkpoint = handle.checkpoint().unwrap();
    let right = |path: &Path| {
        fs::read(path).is_ok_and(|bytes| checkpoint.files().any(|file| file.crc32c == crc32c::crc32c(&bytes)))
    };
    wait_until(&handle, |_| paths(folder.path()).len() == 2 && paths(folder.path()).iter().all(|path| right(path)));
    handle.cancel();
    handle.wait().unwrap();
}

#[test]
fn only_what_the_next_restore_may_need_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let with = |store| {
        let mut options = with_copies(store, folder.path());
        options.task.deltas = Some(DeltaLimits::default());
        options
    };
    let until = Arc::new(AtomicU64::new(HALF));
    let handle = spawn(counts(&until, &Collect::default()), with(Arc::clone(&store))).unwrap();
    for number in 1..=3 {
        wait_until(&handle, |handle| handle.status().records_in == until.load(Ordering::Relaxed));
        let checkpoint = handle.checkpoint().unwrap();
        assert_eq!(files(&checkpoint).len(), 2 * number, "a full one, then those that build on it");
        wait_until(&handle, |_| copies(folder.path()) == files(&checkpoint));
        until.fetch_add(1_000, Ordering::Relaxed);
    }
    handle.cancel();
    handle.wait().unwrap();
    let (restored, opened) = restore(&store, with);
    assert_eq!((restored.local_bytes, opened), (restored.restored_bytes, 0), "the whole chain");

    let mut options = with_copies(store, folder.path());
    options.checkpointing.num_retained = NonZeroU32::new(3).unwrap(); // in the store
    let handle = spawn(counts(&until, &Collect::default()), options).unwrap();
    wait_until(&handle, |handle| handle.status().state == JobState::Running);
    for _ in 0..2 {
        let checkpoint = handle.checkpoint().unwrap();
        assert_eq!(files(&checkpoint).len(), 2, "full ones");
        wait_until(&handle, |_| copies(folder.path()) == files(&checkpoint));
    }
    handle.cancel();
    handle.wait().unwrap();
}

#[test]
fn a_folder_that_can_not_be_written_costs_the_copies_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"no folder").unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let handle = with_all_keys(with_copies(Arc::clone(&store), &file));
    handle.checkpoint().unwrap();
    let status = handle.status();
    assert_eq!((status.restarts, status.failed_checkpoints), (0, 0));
    handle.cancel();
    handle.wait().unwrap();
    let (restored, opened) = restore(&store, |store| with_copies(store, &file));
    assert_eq!((restored.local_bytes, opened), (0, 2));
}

#[test]
fn a_restart_within_the_process_reads_copies_in_a_folder_of_its_own() {
    let until = Arc::new(AtomicU64::new(HALF));
    let mut options = options(Arc::new(MemoryStore::new()), 2);
    options.local = LocalRecovery { backup: true, from_local: true, dirs: Vec::new() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1, delay: Duration::ZERO });
    let handle = spawn(counts(&until, &Collect::default()), options).unwrap();
    wait_until(&handle, |handle| handle.status().records_in == HALF);
    let checkpoint = handle.checkpoint().unwrap();
    let temporary = || {
        let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
        let ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cutwater-local-"));
        entries.filter(ours).find(|path| copies(path) == files(&checkpoint))
    };
    wait_until(&handle, |_| temporary().is_some());
    until.store(FAIL, Ordering::Relaxed);
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    let (status, restored) = (handle.status(), handle.status().restore.unwrap());
    assert_eq!((status.restarts, status.restored), (1, Some(checkpoint.checkpoint)));
    assert_eq!(restored.local_bytes, restored.restored_bytes);
}
