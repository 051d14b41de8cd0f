//! Checkpoints that hold only what has changed since the one before.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, FileRef, Settings};
use cutwater_dataflow::{Collect, Job, JobGraph, ProcessContext, generator};
use cutwater_runtime::{JobOutcome, Options, StartFrom, StopMode, open_checkpoint, spawn, store_at};
use cutwater_task::DeltaLimits;

/// So many keys come once, then a few of them over and over.
const KEYS: u64 = 20_000;
const FEW: u64 = 100;
const RECORDS: u64 = KEYS + 16_000;

/// A small change fits into the record, all keys don't.
const SMALL: u32 = 20 << 10;

fn key_of(n: u64) -> u64 {
    if n < KEYS { n } else { n % FEW * 7 }
}

/// Counts each key. After the keys came once, a record comes only as far as `until` says.
fn counts(until: &Arc<AtomicU64>, out: &Collect<(u64, u64)>) -> JobGraph {
    let until = Arc::clone(until);
    let slowly = move |n: u64| {
        if n >= KEYS && n >= until.load(Ordering::SeqCst) {
            pause();
        }
        n
    };
    let job = Job::new("counts");
    job.source("numbers", generator(RECORDS, slowly))
        .key_by(|n| key_of(*n))
        .process("count", |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, n: u64| {
            *cx.state()? += 1;
            let count = *cx.state()?;
            if n >= KEYS {
                cx.emit((*cx.key(), count));
            }
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "it is to last")]
fn pause() {
    std::thread::sleep(Duration::from_micros(500));
}

fn options(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.inline_threshold = 0; // files are what it looks at
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.task.deltas = Some(DeltaLimits::default());
    options.task.read_records = 64;
    options
}

fn newest(folder: &Path) -> CompletedCheckpoint {
    open_checkpoint(folder.join("counts").to_str().unwrap()).unwrap().0
}

/// The files of the counting subtasks.
fn files(checkpoint: &CompletedCheckpoint) -> Vec<Vec<FileRef>> {
    let task = checkpoint.tasks.iter().find(|task| task.operators.iter().any(|uid| uid.as_str() == "count")).unwrap();
    task.subtasks.iter().map(|subtask| subtask.files.clone()).collect()
}

fn expected() -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    (0..RECORDS).for_each(|n| *counts.entry(key_of(n)).or_default() += 1);
    counts.into_iter().filter(|(_, count)| *count > 1).collect()
}

fn highest(out: &Collect<(u64, u64)>) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    let rows = out.take();
    let rows_of: std::collections::BTreeSet<_> = rows.iter().collect();
    assert_eq!(rows.len(), rows_of.len(), "each count is told once");
    for (key, count) in rows {
        let highest = counts.entry(key).or_insert(count);
        *highest = count.max(*highest);
    }
    counts
}

#[test]
fn a_checkpoint_holds_what_has_changed_and_restores_at_any_parallelism() {
    for (second, held) in [(2, 0), (3, 0), (2, SMALL), (3, SMALL)] {
        let (folder, out, until) = (tempfile::tempdir().unwrap(), Collect::default(), Arc::new(AtomicU64::new(0)));
        let options = |folder: &Path, parallelism| Options { inline_threshold: held, ..options(folder, parallelism) };
        let handle = spawn(counts(&until, &out), options(folder.path(), 2)).unwrap();
        while handle.status().records_in < KEYS + 64 {
            std::thread::yield_now();
        }
        let mut before = Vec::new();
        for number in 0..4 {
            let chains = files(&handle.checkpoint().unwrap());
            for (chain, before) in chains.iter().zip(before.iter().chain(std::iter::repeat(&Vec::new()))) {
                assert_eq!(chain.len(), number + 1, "a full one, then those that build on it");
                assert_eq!(chain[..number], before[..], "files are taken over");
                assert!(chain[1..].iter().all(|delta| delta.bytes * 20 < chain[0].bytes), "{chain:?}");
                let is_stored = |file: &FileRef| folder.path().join("counts").join(&file.name).is_file();
                assert!(chain.iter().all(|file| is_stored(file) == file.content.is_none()));
                let in_record: u64 = chain.iter().filter(|file| file.content.is_some()).map(|file| file.bytes).sum();
                assert!(in_record <= held.into(), "{chain:?}");
                assert!(
                    chain[0].content.is_none()
                        && chain[1..].iter().take(1).all(|delta| delta.content.is_some() == (held > 0))
                );
            }
            before = chains;
        }
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);

        until.store(u64::MAX, Ordering::SeqCst);
        let handle = spawn(counts(&until, &out), options(folder.path(), second)).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert_eq!(highest(&out), expected(), "from 2 to {second}");
        let chains = files(&newest(folder.path()));
        if second == 2 {
            // What was restored is built on; or, after too many changes, a full one was taken.
            assert!(chains.iter().zip(&before).all(|(chain, before)| chain.len() == 1 || chain.starts_with(before)));
            assert!(chains.iter().any(|chain| chain.len() > 1), "{chains:?}");
        } else {
            assert!(chains.iter().all(|chain| chain.len() == 1), "other key groups: everything is written anew");
        }
    }
}

#[test]
fn a_savepoint_holds_everything_and_needs_nothing_of_the_job() {
    let (folder, out, until) = (tempfile::tempdir().unwrap(), Collect::default(), Arc::new(AtomicU64::new(0)));
    let handle = spawn(counts(&until, &out), options(folder.path(), 2)).unwrap();
    while handle.status().records_in < KEYS + 64 {
        std::thread::yield_now();
    }
    handle.checkpoint().unwrap();
    assert!(files(&handle.checkpoint().unwrap()).iter().all(|chain| chain.len() == 2));
    let savepoints = tempfile::tempdir().unwrap();
    let target = savepoints.path().to_str().unwrap();
    let stopped = handle.stop_with_savepoint(Some(target), StopMode::Suspend).unwrap();
    handle.wait().unwrap();
    std::fs::remove_dir_all(folder.path()).unwrap();
    let (savepoint, _) = open_checkpoint(&stopped.location).unwrap();
    assert!(files(&savepoint).iter().all(|chain| chain.len() == 1), "full ones");

    until.store(u64::MAX, Ordering::SeqCst);
    let (elsewhere, mut options) = (tempfile::tempdir().unwrap(), options(folder.path(), 2));
    options.store = Some(store_at(elsewhere.path().to_str().unwrap()).unwrap());
    options.from = StartFrom::Path(stopped.location);
    let handle = spawn(counts(&until, &out), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert_eq!(highest(&out), expected());
    assert!(files(&newest(elsewhere.path())).iter().all(|chain| chain.len() == 1), "the savepoint is not built on");
}
