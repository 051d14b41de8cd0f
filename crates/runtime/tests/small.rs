//! State that is so small that the record of its checkpoint holds it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use cutwater_coordinator::{CompletedCheckpoint, Settings};
use cutwater_dataflow::{Collect, Job, JobGraph, generator};
use cutwater_runtime::{JobOutcome, Options, StartFrom, StopMode, open_checkpoint, spawn, store_at};

const RECORDS: u64 = 100_000;
const KEYS: u64 = 10;

fn counts(records: u64, out: &Collect<(u64, u64)>) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(records, |n| n))
        .key_by(|n| n % KEYS)
        .fold("count", 0_u64, |count, _| *count += 1)
        .sink("out", out.clone());
    job.build().unwrap()
}

fn options(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

/// The snapshot files below the folder.
fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let own = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "snap"));
    own.chain(folders.iter().flat_map(|folder| snapshots(folder))).collect()
}

fn held(checkpoint: &CompletedCheckpoint) -> (usize, usize) {
    (checkpoint.files().count(), checkpoint.stored_files().count())
}

#[test]
fn small_state_needs_no_files_and_comes_back_from_the_record() {
    for (threshold, stored) in [(20 << 10, 0), (0, 2)] {
        for second in [1, 2, 5] {
            let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let out = Collect::default();
            let options =
                |folder: &Path, parallelism| Options { inline_threshold: threshold, ..options(folder, parallelism) };
            let handle = spawn(counts(u64::MAX, &out), options(folder.path(), 2)).unwrap();
            while handle.status().records_in < 1_000 {
                std::thread::yield_now();
            }
            assert_eq!(held(&handle.checkpoint().unwrap()), (2, stored));
            assert_eq!(snapshots(folder.path()).len(), stored);
            let target = elsewhere.path().to_str().unwrap();
            let stopped = handle.stop_with_savepoint(Some(target), StopMode::Suspend).unwrap();
            handle.wait().unwrap();
            let before = handle.status().records_in;
            std::fs::remove_dir_all(folder.path()).unwrap();
            assert_eq!(snapshots(Path::new(target)).len(), stored);
            let (savepoint, _) = open_checkpoint(&stopped.location).unwrap();
            assert_eq!(held(&savepoint), (2, stored));

            // It goes on where it was: each key counts on to the end.
            drop(out.take());
            let (last, home) = (before + RECORDS, tempfile::tempdir().unwrap());
            let options = Options { from: StartFrom::Path(stopped.location), ..options(home.path(), second) };
            let handle = spawn(counts(last, &out), options).unwrap();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
            let mut highest = [0; KEYS as usize];
            for (key, count) in out.take() {
                highest[key as usize] = count.max(highest[key as usize]);
            }
            let expected: Vec<_> = (0..KEYS).map(|key| (last - key).div_ceil(KEYS)).collect();
            assert_eq!(highest.as_slice(), expected, "at {second}");
        }
    }
}

/// However many there are, the record stays small.
#[test]
fn of_many_subtasks_less_is_in_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { inline_threshold: 1 << 20, ..options(folder.path(), 64) };
    let job = Job::new("wide");
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % 100_000)
        .fold("last", String::new(), |last, n| *last = format!("{n:0100}"))
        .sink("out", cutwater_dataflow::discard());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    while handle.status().records_in < 200_000 {
        std::thread::yield_now();
    }
    let checkpoint = handle.checkpoint().unwrap();
    let in_record: u64 = checkpoint.files().filter(|file| file.content.is_some()).map(|file| file.bytes).sum();
    assert!(in_record <= 4 << 20 && checkpoint.stored_files().count() > 0, "{in_record} bytes in the record");
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
}
