//! How state comes back: what is told of it, and what becomes of answers of the store that are late or wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, Settings};
use cutwater_dataflow::{Job, JobGraph, discard, generator};
use cutwater_runtime::{JobHandle, JobOutcome, JobState, Options, spawn};
use cutwater_storage::{MemoryStore, Store};

mod store;

use store::Hooked;

const KEYS: u64 = 60_000;

/// Counts numbers without end. A count has some bytes beside it, so that there are blocks enough.
fn counts() -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % KEYS)
        .fold("counts", (0u64, "-".repeat(160)), |count, _| count.0 += 1)
        .sink("out", discard());
    job.build().unwrap()
}

fn options(store: Arc<dyn Store>, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store);
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

/// A store with a checkpoint of the job, at parallelism 2, that holds all keys.
fn prepared() -> (Arc<dyn Store>, CompletedCheckpoint) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let handle = spawn(counts(), options(Arc::clone(&store), 2)).unwrap();
    wait_until(&handle, |handle| handle.status().records_in > 2 * KEYS);
    let checkpoint = handle.checkpoint().unwrap();
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    (store, checkpoint)
}

#[expect(clippy::disallowed_methods, reason = "it waits for threads")]
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[track_caller]
fn wait_until(handle: &JobHandle, is_so: impl Fn(&JobHandle) -> bool) {
    for _ in 0..60_000 {
        if is_so(handle) {
            return;
        }
        assert!(!handle.is_done(), "{:?}", handle.wait());
        pause(1);
    }
    panic!("not within a minute: {:?}", handle.status());
}

fn file_bytes(checkpoint: &CompletedCheckpoint) -> u64 {
    checkpoint.files().map(|file| file.bytes).sum()
}

#[test]
fn a_slow_restore_tells_how_far_it_is_and_when_it_will_be_done() {
    let (store, checkpoint) = prepared();
    let all = file_bytes(&checkpoint);
    assert!(all > 8 << 20, "{all} bytes");
    let slowly = |name: &str, _: u64, bytes: &mut [u8]| {
        if name.contains("chk/") && bytes.len() > 100_000 {
            pause(250);
        }
        bytes.len()
    };
    for parallelism in [2, 3] {
        let slow = Hooked::new(&store, |_| {}, slowly);
        let handle = spawn(counts(), options(slow, parallelism)).unwrap();
        wait_until(&handle, |handle| handle.status().restore.is_some());
        let first = handle.status();
        let restore = first.restore.unwrap();
        assert_eq!((restore.checkpoint, restore.is_over), (checkpoint.checkpoint, false));
        assert_eq!(restore.files, checkpoint.files().count() as u64);
        // At 3, blocks that lie across two subtasks are read by both.
        let slack = if parallelism == 2 { 0 } else { all / 4 };
        assert!(restore.bytes.abs_diff(all) <= slack, "{} of {all} at {parallelism}", restore.bytes);

        // It rises, and what is left falls.
        let mut seen: BTreeMap<u64, Duration> = BTreeMap::new();
        wait_until(&handle, |handle| handle.status().restore.unwrap().time_left.is_some());
        loop {
            let status = handle.status();
            let restore = status.restore.unwrap();
            if restore.is_over {
                break;
            }
            assert_eq!(status.state, JobState::Initializing);
            assert!(restore.restored_bytes <= restore.bytes, "{restore:?}");
            seen.insert(restore.restored_bytes, restore.time_left.unwrap());
            pause(20);
        }
        let (early, late) = (seen.first_key_value().unwrap(), seen.last_key_value().unwrap());
        assert!(seen.len() >= 3 && early.1 > late.1, "{seen:?}");

        wait_until(&handle, |handle| handle.status().state == JobState::Running);
        let restore = handle.status().restore.unwrap();
        assert_eq!((restore.restored_bytes, restore.time_left), (restore.bytes, None), "at {parallelism}");
        assert!(restore.bytes.abs_diff(all) <= slack && restore.elapsed > Duration::from_millis(500), "{restore:?}");
        let metrics = handle.metrics();
        let figure = |name: &str| metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value as u64);
        assert_eq!(figure("restored_state_size_bytes"), Some(restore.bytes));
        assert_eq!(figure("restore_full_size"), Some(restore.bytes));
        assert!(figure("initializing_time") > Some(500));
        handle.cancel();
        handle.wait().unwrap();
    }
}

#[test]
fn an_attempt_from_nothing_tells_of_no_restore() {
    let handle = spawn(counts(), options(Arc::new(MemoryStore::new()), 1)).unwrap();
    wait_until(&handle, |handle| handle.status().records_in > 0);
    assert_eq!(handle.status().restore, None);
    handle.cancel();
    handle.wait().unwrap();
}
