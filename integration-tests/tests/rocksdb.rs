//! Jobs with state in RocksDB of which memory holds a small part, in this process.

#![expect(clippy::disallowed_methods, reason = "what other threads do takes real time")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cutwater::rocksdb::{RocksBudget, RocksDbBackend, Step};
use cutwater::state::StateBackend;
use cutwater::{
    Collect, DeltaLimits, Job, JobGraph, JobHandle, JobOutcome, JobState, KeyedProcess, ListState, MapState, Options,
    ProcessContext, StartFrom, States, StopMode, Strategy, Timestamp, UserError, generator, spawn, store_at,
};
use cutwater_coordinator::Settings;
use cutwater_integration_tests::{damage, database_files};

/// The records of a key come from one split each, of up to three: so they are in order.
const KEYS: u64 = 12_000;
const RECORDS: u64 = 96_000;
/// Of so many records of a key the list has those since the last whole page.
const PAGE: u64 = 8;

/// Counts the records of each key, also in a map, keeps the last ones in a list, forgets some keys now and then, and tells the
/// counts at the end.
#[derive(Clone)]
struct Count {
    /// How many there were in the even and in the odd rounds over all keys.
    halves: MapState<String, u64>,
    records: ListState<u64>,
    /// Fails at these records, once each.
    fail_at: Arc<Mutex<Vec<u64>>>,
}

fn forgets(key: u64, record: u64) -> bool {
    key.is_multiple_of(5) && (record / KEYS).is_multiple_of(4)
}

fn half(record: u64) -> String {
    if (record / KEYS).is_multiple_of(2) { String::new() } else { "odd".to_owned() }
}

impl KeyedProcess<u64, u64> for Count {
    type State = (u64, String);
    type Out = (u64, u64);

    fn initial(&self) -> Self::State {
        (0, "x".repeat(50))
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.halves = states.map("halves")?;
        self.records = states.list("records")?;
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut ProcessContext<'_, u64, Self::State, Self::Out>,
        record: u64,
    ) -> Result<(), UserError> {
        let fails = self.fail_at.lock().expect("no panic while it is held").pop_if(|at| record >= *at).is_some();
        if fails {
            return Err("planned".into());
        }
        if forgets(*cx.key(), record) {
            cx.map(self.halves)?.clear()?;
            cx.list(self.records)?.clear()?;
            return Ok(cx.clear()?);
        }
        cx.state()?.0 += 1;
        let count = cx.state()?.0;
        *cx.map(self.halves)?.get_or_insert_with(&half(record), || 0)? += 1;
        match count.is_multiple_of(PAGE) {
            true => cx.list(self.records)?.clear()?,
            false => cx.list(self.records)?.push(record)?,
        }
        cx.register_timer(Timestamp(1 << 40))?; // fires when all input has ended
        Ok(())
    }

    fn on_timer(
        &mut self,
        cx: &mut ProcessContext<'_, u64, Self::State, Self::Out>,
        _: Timestamp,
    ) -> Result<(), UserError> {
        if let Some((count, _)) = cx.peek()?.cloned() {
            let key = *cx.key();
            let records: Vec<u64> = cx.list(self.records)?.iter()?.copied().collect();
            assert!(
                records.is_sorted() && records.len() as u64 == count % PAGE,
                "the last ones: {records:?} of {count}"
            );
            let halves = cx.map(self.halves)?.iter()?.fold(0, |sum, (_, count)| sum + count);
            assert_eq!(halves, count, "the map has all");
            cx.emit((key, count));
        }
        Ok(())
    }
}

fn counts(records: u64, fail_at: &[u64], out: &Collect<(u64, u64)>) -> JobGraph {
    let job = Job::new("counts");
    let fail_at = Arc::new(Mutex::new(fail_at.iter().rev().copied().collect()));
    job.source("numbers", generator(records, |n| n))
        .key_by(|n| n * 7919 % KEYS)
        .process_with("count", Count { halves: MapState::default(), records: ListState::default(), fail_at })
        .sink("out", out.clone());
    job.build().expect("a sound graph")
}

fn expected(records: u64) -> Vec<(u64, u64)> {
    let mut counts = vec![None; KEYS as usize];
    for record in 0..records {
        let key = record * 7919 % KEYS;
        let count = &mut counts[key as usize];
        *count = if forgets(key, record) { None } else { Some(count.unwrap_or(0) + 1) };
    }
    (0..).zip(counts).filter_map(|(key, count)| Some((key, count?))).collect()
}

/// Requires the counts of so many records, and names the first that differ.
#[track_caller]
fn assert_counts(out: &Collect<(u64, u64)>, records: u64, what: &str) {
    let (mut found, expected) = (out.take(), expected(records));
    found.sort_unstable();
    let differ: Vec<_> = found.iter().zip(&expected).filter(|(found, expected)| found != expected).collect();
    let (lengths, first) = ((found.len(), expected.len()), &differ[..differ.len().min(5)]);
    assert!(found == expected, "{what}: of {lengths:?} counts {} differ, found and expected: {first:?}", differ.len());
}

/// Some hundred of the keys in memory.
fn rocksdb(below: &Path) -> Arc<dyn StateBackend> {
    Arc::new(RocksDbBackend::new(Some(below), 64 << 10, RocksBudget::new(8 << 20, 8 << 20)))
}

fn options(folder: &Path, parallelism: u32, backend: Arc<dyn StateBackend>) -> Options {
    let mut options = Options::new();
    let interval = Some(Duration::from_millis(30));
    options.checkpointing = Settings { interval, enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    options.store = Some(store_at(&folder.to_string_lossy()).expect("a folder"));
    options.parallelism = NonZeroU32::new(parallelism).expect("at least 1");
    options.backend = backend;
    options
}

fn folders(below: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(below).expect("it is there");
    entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

/// What a snapshot that was given up still writes to goes when it has ended.
fn wait_for_folders(below: &Path, expected: &[&str]) {
    let begun = Instant::now();
    while folders(below) != expected {
        assert!(begun.elapsed() < Duration::from_secs(20), "databases are left: {:?}", folders(below));
        std::thread::yield_now();
    }
}

#[test]
fn state_that_is_mostly_on_the_disk_survives_failures() {
    for (parallelism, incremental) in [(1, false), (3, false), (1, true), (3, true)] {
        let (chk, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
        let out = Collect::default();
        let graph = counts(RECORDS, &[RECORDS / 4, RECORDS / 2, RECORDS / 2 + 2_000, RECORDS - 10], &out);
        let mut options = options(chk.path(), parallelism, rocksdb(disk.path()));
        options.task.deltas = incremental.then(DeltaLimits::default);
        let handle = spawn(graph, options).expect("sound options");
        assert_eq!(handle.wait().expect("it finishes"), JobOutcome::Finished);
        let status = handle.status();
        // On several subtasks two of the planned failures may come before the attempt of the first is over.
        let is_expected = if parallelism == 1 { status.restarts == 4 } else { (1..=4).contains(&status.restarts) };
        assert!(is_expected, "{:?}", status.failures);
        assert_counts(&out, RECORDS, &format!("parallelism {parallelism}"));
        drop(handle);
        wait_for_folders(disk.path(), &[]);
    }
}

/// A disk that damages what it holds, under a job whose records need what is there.
#[test]
fn a_damaged_file_fails_the_attempt_that_reads_it_and_the_output_is_right() {
    const MANY: u64 = 2 * RECORDS;
    let (chk, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    let out = Collect::default();
    let handle = spawn(counts(MANY, &[], &out), options(chk.path(), 2, rocksdb(disk.path()))).expect("sound options");
    let mut damaged = BTreeSet::new();
    while handle.status().restarts == 0 {
        assert!(handle.status().state != JobState::Finished, "{} damaged files were never read", damaged.len());
        for file in database_files(disk.path(), 1) {
            if !damaged.contains(&file) && damage(&file) {
                damaged.insert(file);
            }
        }
        std::thread::yield_now();
    }
    assert_eq!(handle.wait().expect("it finishes"), JobOutcome::Finished);
    let status = handle.status();
    let [failure] = &status.failures[..] else { panic!("one failure, and new databases: {:?}", status.failures) };
    for text in ["block checksum mismatch", "the local state is damaged, checkpoints are not: check the disk"] {
        assert!(failure.error.contains(text), "{text}: {failure:?}");
    }
    let named = damaged.iter().filter(|file| failure.error.contains(&file.display().to_string())).count();
    assert!(named > 0, "none of {damaged:?} is named: {failure:?}");
    assert_counts(&out, MANY, "with new databases");
}

#[test]
fn savepoints_go_from_rocksdb_to_memory_and_back() {
    let (folder, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    let memory: Arc<dyn StateBackend> = Options::new().backend;
    let out = Collect::default();
    let mut from = StartFrom::Latest;
    // By all jobs so far. The source has two splits, of which one may be ahead of the other by all of that.
    let mut made = 0;
    for (step, parallelism) in [(0, 2), (1, 3), (2, 1), (3, 2)] {
        let home = folder.path().join(step.to_string());
        std::fs::create_dir(&home).expect("a new folder");
        let backend = if step % 2 == 0 { rocksdb(disk.path()) } else { Arc::clone(&memory) };
        let options = Options { from, ..options(&home, parallelism, backend) };
        let last = step == 3;
        let records = if last { 2 * made + RECORDS } else { u64::MAX };
        let handle = spawn(counts(records, &[], &out), options).expect("sound options");
        if last {
            assert_eq!(handle.wait().expect("it finishes"), JobOutcome::Finished);
            assert_counts(&out, records, &format!("{records} records"));
            break;
        }
        while handle.status().records_in < RECORDS / 6 {
            std::thread::yield_now();
        }
        let target = folder.path().join(format!("savepoint-{step}"));
        let stopped = handle.stop_with_savepoint(Some(&target.to_string_lossy()), StopMode::Suspend);
        from = StartFrom::Path(stopped.expect("a savepoint").location);
        drop(handle.wait());
        made += handle.status().records_in;
    }
}

/// Both subtasks need all files of the one before; neither goes on before the other has them too.
#[test]
fn subtasks_share_the_files_that_they_are_made_of() {
    let (folder, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    let out = Collect::default();
    let native = |parallelism, backend| {
        let mut options = options(folder.path(), parallelism, backend);
        options.task.deltas = Some(DeltaLimits::default());
        options
    };
    let first = spawn(counts(u64::MAX, &[], &out), native(1, rocksdb(disk.path()))).expect("sound options");
    while first.status().completed_checkpoints < 2 || first.status().records_in < RECORDS / 6 {
        assert!(!first.is_done(), "it has ended: {:?}", first.wait());
        std::thread::yield_now();
    }
    first.cancel();
    first.wait().expect("it was cancelled");
    let records = first.status().records_in;
    let (opened, both) = (Arc::new((Mutex::new(Vec::new()), Condvar::new())), Duration::from_secs(20));
    let found = Arc::clone(&opened);
    let backend = RocksDbBackend::new(Some(disk.path()), 64 << 10, RocksBudget::new(8 << 20, 8 << 20));
    let backend = backend.with_steps(Arc::new(move |step, folder| {
        if step == Step::Open {
            let (found, changed) = &*found;
            let files = std::fs::read_dir(folder)?.map(|file| file.expect("readable"));
            let tables = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "sst"));
            let tables: BTreeSet<_> = tables.map(|file| file.metadata().expect("it is there").ino()).collect();
            let mut found = found.lock().expect("no panic");
            found.push(tables);
            changed.notify_all();
            drop(changed.wait_timeout_while(found, both, |found| found.len() < 2));
        }
        Ok(())
    }));
    let second = spawn(counts(records, &[], &out), native(2, Arc::new(backend))).expect("sound options");
    assert_eq!(second.wait().expect("it finishes"), JobOutcome::Finished);
    assert_counts(&out, records, "both halves");
    let opened = opened.0.lock().expect("no panic");
    assert!(!opened[0].is_empty());
    assert_eq!(opened[0], opened[1], "the same files of the disk");
}

/// Of checkpoints with RocksDB's own files, at other parallelisms, from the store or from copies on this machine; one of these is
/// damaged each time.
#[test]
fn files_of_rocksdb_are_restored_at_any_parallelism() {
    for local in [false, true] {
        let (folder, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
        let out = Collect::default();
        let mut total = RECORDS / 4;
        let parallelisms = [1, 2, 2, 1, 3, 2];
        for (step, parallelism) in parallelisms.into_iter().enumerate() {
            let mut options = options(folder.path(), parallelism, rocksdb(disk.path()));
            options.task.deltas = Some(DeltaLimits::default());
            options.local.dirs = vec![disk.path().join("copies")];
            (options.local.backup, options.local.from_local) = (local, local);
            let last = step == parallelisms.len() - 1;
            let records = if last { total } else { u64::MAX };
            let handle = spawn(counts(records, &[], &out), options).expect("sound options");
            if last {
                assert_eq!(handle.wait().expect("it finishes"), JobOutcome::Finished);
                assert_counts(&out, records, &format!("local copies: {local}"));
            } else {
                let enough = |handle: &JobHandle| {
                    handle.status().completed_checkpoints >= 3 && handle.status().records_in >= RECORDS / 6
                };
                while !enough(&handle) {
                    assert!(!handle.is_done(), "it has ended: {:?}", handle.wait());
                    std::thread::yield_now();
                }
                handle.cancel();
                handle.wait().expect("it was cancelled");
            }
            let status = handle.status();
            total += status.records_in;
            assert_eq!(status.restarts, 0);
            let restored = status.restore.map(|restore| (restore.local_bytes > 0, restore.rereads));
            assert_eq!(restored, (step > 0).then_some((local, 0)), "step {step}");
            let copies = disk.path().join("copies/counts/chk");
            let tables = || std::fs::read_dir(&copies).expect("a folder").map(|file| file.expect("readable").path());
            if local && !last {
                let linked = tables().max_by_key(|path| path.metadata().expect("a file").len()).expect("a table");
                let mut content = std::fs::read(&linked).expect("readable");
                let middle = content.len() / 2;
                content[middle] ^= 1;
                std::fs::remove_file(&linked).expect("ours");
                std::fs::write(&linked, content).expect("ours");
            }
        }
    }
}

/// A process that was killed leaves its folder behind; one that lives keeps it.
#[test]
fn folders_of_the_dead_are_swept_and_those_of_the_living_are_not() {
    let (chk, disk) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    let dead = disk.path().join("cutwater-rocksdb-1-0");
    std::fs::create_dir(&dead).expect("a new folder");
    std::fs::write(dead.join("OWNER"), "").expect("a new file");
    std::fs::create_dir(disk.path().join("of-somebody-else")).expect("a new folder");
    let (one, other) = (Collect::default(), Collect::default());
    let first = spawn(counts(u64::MAX, &[], &one), options(&chk.path().join("1"), 1, rocksdb(disk.path())));
    let first = first.expect("sound options");
    while first.status().records_in < 10_000 {
        std::thread::yield_now();
    }
    assert!(!dead.exists());
    let own = folders(disk.path()).into_iter().find(|name| name.starts_with("cutwater-rocksdb-")).expect("it runs");
    let mode = std::fs::metadata(disk.path().join(own)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into it");
    let second = spawn(counts(RECORDS, &[], &other), options(&chk.path().join("2"), 1, rocksdb(disk.path())));
    assert_eq!(second.expect("sound options").wait().expect("it finishes"), JobOutcome::Finished);
    assert_counts(&other, RECORDS, "beside another");
    let left = folders(disk.path());
    assert_eq!(left.len(), 2, "{left:?}");
    first.cancel();
    assert_eq!(first.wait().expect("it was cancelled"), JobOutcome::Canceled);
    drop(first);
    wait_for_folders(disk.path(), &["of-somebody-else"]);
}
