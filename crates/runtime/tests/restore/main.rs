//! How state comes back: what is told of it, and what becomes of answers of the store that are late or wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, Savepoint, Settings};
use cutwater_dataflow::{
    Collect, Job, JobGraph, ProcessContext, ReadStatus, Source, SourceOutput, SplitReader, UserError,
};
use cutwater_restart::Strategy;
use cutwater_runtime::{
    CopyError, JobHandle, JobOutcome, JobState, Options, copy_savepoint, job_folder, read_savepoint, spawn,
};
use cutwater_storage::{MemoryStore, ObjectName, Store, StoreErrorKind, verify};

mod local;
mod store;

use store::Hooked;

const KEYS: u64 = 60_000;
/// The counts of this record and of later ones are told.
const TOLD: u64 = HALF + 10_000;

/// So many records come before the job waits to be let on.
const HALF: u64 = 2 * KEYS;
const ALL: u64 = 3 * KEYS;

/// In place of a limit: the source fails once, and then goes on to the end.
const FAIL: u64 = u64::MAX;

/// The even numbers and the odd ones, each as far as it is let.
struct Numbers {
    until: Arc<AtomicU64>,
}

struct Reader {
    next: u64,
    until: Arc<AtomicU64>,
}

impl Source for Numbers {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["0".to_owned(), "1".to_owned()])
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<Reader, UserError> {
        let next = position.copied().map_or_else(|| split.parse(), Ok)?;
        Ok(Reader { next, until: Arc::clone(&self.until) })
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        if self.until.compare_exchange(FAIL, ALL, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Err("planned".into());
        }
        while out.room() > 0 {
            if self.next >= ALL {
                return Ok(ReadStatus::End);
            }
            if self.next >= self.until.load(Ordering::Relaxed) {
                return Ok(ReadStatus::WaitUntil(out.now() + Duration::from_millis(1)));
            }
            out.emit(self.next);
            self.next += 2;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.next
    }
}

/// Counts each of the keys three times, and tells most of the last counts. A count has some bytes beside it, so that there are
/// blocks enough.
fn counts(until: &Arc<AtomicU64>, out: &Collect<(u64, u64)>) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", Numbers { until: Arc::clone(until) })
        .key_by(|n| n % KEYS)
        .process("counts", |cx: &mut ProcessContext<'_, u64, (u64, String), (u64, u64)>, n: u64| {
            let count = cx.state()?;
            if count.1.is_empty() {
                count.1 = "-".repeat(160);
            }
            count.0 += 1;
            let count = count.0;
            if n >= TOLD {
                cx.emit((*cx.key(), count));
            }
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

fn options(store: Arc<dyn Store>, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store);
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.restart = Some(Strategy::None);
    options
}

/// The job as far as half of it.
fn closed() -> JobGraph {
    counts(&Arc::new(AtomicU64::new(HALF)), &Collect::default())
}

/// Runs the job to its end from what is in the store, and looks at each count.
#[track_caller]
fn assert_whole(options: Options) -> JobHandle {
    let out = Collect::default();
    let handle = spawn(counts(&Arc::new(AtomicU64::new(ALL)), &out), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    let rows: BTreeMap<u64, u64> = out.take().into_iter().collect();
    assert!(rows.len() as u64 == ALL - TOLD && rows.values().all(|count| *count == 3), "{} rows", rows.len());
    assert!(handle.status().restored.is_some() && handle.status().records_in <= KEYS);
    handle
}

/// A store with a checkpoint of the job, at parallelism 2, that holds all keys.
fn prepared() -> (Arc<dyn Store>, CompletedCheckpoint) {
    static PREPARED: OnceLock<(Arc<dyn Store>, CompletedCheckpoint)> = OnceLock::new();
    let (store, checkpoint) = PREPARED.get_or_init(prepare);
    (copy(store), checkpoint.clone())
}

fn prepare() -> (Arc<dyn Store>, CompletedCheckpoint) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let handle = spawn(closed(), options(Arc::clone(&store), 2)).unwrap();
    wait_until(&handle, |handle| handle.status().records_in == HALF);
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
        let handle = spawn(closed(), options(slow, parallelism)).unwrap();
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
    let handle = spawn(closed(), options(Arc::new(MemoryStore::new()), 1)).unwrap();
    wait_until(&handle, |handle| handle.status().records_in > 0);
    assert_eq!(handle.status().restore, None);
    handle.cancel();
    handle.wait().unwrap();
}

/// Changes an answer, and says how much of it comes.
type Damage = fn(&mut [u8]) -> usize;
/// By name, place and length.
type IsDamaged = fn(&str, u64, usize) -> bool;

/// Answers of which the first of each object, or the first to each of its larger reads, is damaged.
fn damaging(store: &Arc<dyn Store>, each_place: bool, damage: Damage) -> Arc<Hooked> {
    let seen = Mutex::new(BTreeSet::new());
    let read = move |name: &str, offset: u64, bytes: &mut [u8]| {
        if each_place && bytes.len() < 100 {
            return bytes.len(); // the frame of a block comes first, and the block counts as one
        }
        let place = if each_place { offset } else { 0 };
        let first = seen.lock().unwrap().insert((name.to_owned(), place));
        if first && !bytes.is_empty() { damage(bytes) } else { bytes.len() }
    };
    Hooked::new(store, |_| {}, read)
}

fn flip(bytes: &mut [u8]) -> usize {
    bytes[bytes.len() / 2] ^= 4;
    bytes.len()
}

fn cut(bytes: &mut [u8]) -> usize {
    bytes.len() / 2
}

#[test]
fn what_was_damaged_on_its_way_is_read_once_more() {
    let cases: [(&str, u32, bool, Damage); 4] = [
        ("the first answer of each object has another byte", 2, false, flip),
        ("each first answer has another byte", 3, true, flip),
        ("the first answer of each object is too short", 3, false, cut),
        ("each first answer is too short", 2, true, cut),
    ];
    let (store, checkpoint) = prepared();
    for (name, parallelism, each_place, damage) in cases {
        let handle = assert_whole(options(damaging(&copy(&store), each_place, damage), parallelism));
        let restore = handle.status().restore.unwrap();
        assert_eq!((restore.checkpoint, restore.restored_bytes), (checkpoint.checkpoint, restore.bytes), "{name}");
        assert!(restore.rereads >= if each_place { 10 } else { restore.files }, "{name}: {restore:?}");
    }
}

/// Another store with the same objects.
fn copy(store: &Arc<dyn Store>) -> Arc<dyn Store> {
    let copy = MemoryStore::new();
    for listed in store.list("").unwrap() {
        copy.create(&listed.name, &store.read(&listed.name, u64::MAX).unwrap().unwrap()).unwrap();
    }
    Arc::new(copy)
}

#[test]
fn what_is_damaged_twice_is_an_error_that_names_it_and_nothing_runs() {
    let (store, checkpoint) = prepared();
    let file = checkpoint.files().next().unwrap().name.clone();
    let damaged: [(&str, IsDamaged, &str); 4] = [
        ("blocks", |name, _, bytes| name.contains("/chk/") && bytes > 100_000, "its checksum does not match"),
        ("headers", |name, offset, bytes| name.contains("/chk/") && offset == 0 && bytes > 100, "header at byte 0"),
        ("records of the log", |name, _, _| name.contains("/log/"), "is damaged"),
        ("all but the probe", |name, _, _| !name.contains("probe"), "is damaged"),
    ];
    for (name, is_damaged, reason) in damaged {
        let all = move |name: &str, offset: u64, bytes: &mut [u8]| {
            if is_damaged(name, offset, bytes.len()) && !bytes.is_empty() { flip(bytes) } else { bytes.len() }
        };
        let handle = spawn(closed(), options(Hooked::new(&copy(&store), |_| {}, all), 2)).unwrap();
        let error = handle.wait().unwrap_err();
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(text.contains(reason), "{name}: {text}");
        let object = if reason == "is damaged" { "log/" } else { file.rsplit_once('/').unwrap().0 };
        assert!(text.contains(object), "{name}: {text}");
        assert_eq!(handle.status().records_in, 0, "{name}");
    }
}

#[test]
fn savepoints_are_copied_and_verified_over_damaged_answers_but_not_if_they_are_damaged() {
    let (store, checkpoint) = prepared();
    let savepoint = Savepoint { checkpoint, created_at_unix_ms: 0 };
    let job = |store: &Arc<dyn Store>| job_folder(copy(store), "counts");
    for damage in [flip, cut] {
        let copied: Arc<dyn Store> = Arc::new(MemoryStore::new());
        copy_savepoint(&savepoint, damaging(&job(&store), false, damage).as_ref(), copied.as_ref()).unwrap();
        let from = damaging(&copied, false, damage);
        assert_eq!(read_savepoint(from.as_ref()).unwrap().as_ref(), Some(&savepoint));
        for file in savepoint.checkpoint.files() {
            verify(from.as_ref(), &ObjectName::parse(&file.name).unwrap(), file.bytes, file.crc32c).unwrap();
        }
    }
    let always = Hooked::new(&job(&store), |_| {}, |_, _, bytes| if bytes.is_empty() { 0 } else { flip(bytes) });
    let target = MemoryStore::new();
    let error = copy_savepoint(&savepoint, always.as_ref(), &target).unwrap_err();
    assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
    assert_eq!(target.list("").unwrap(), []);
    let file = savepoint.checkpoint.files().next().unwrap();
    let verified = verify(always.as_ref(), &ObjectName::parse(&file.name).unwrap(), file.bytes, file.crc32c);
    assert_eq!(verified.unwrap_err().kind(), StoreErrorKind::Corrupt);
}
