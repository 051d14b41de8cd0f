//! Jobs whose state lies in a tier below the tables, most of it not in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::inspect::epoch_of_snapshot;
use cutwater_coordinator::{
    CompletedCheckpoint, FileRef, SavepointFormat, Settings, checkpoint_of_snapshot, native_number,
};
use cutwater_core::{KeyGroup, KeyGroupRange, Timestamp};
use cutwater_dataflow::{
    Collect, Job, JobGraph, KeyedProcess, ListState, MapState, ProcessContext, ReducingState, States, Ttl, UserError,
    ValueState, Window, Windows, folding, generator,
};
use cutwater_memory::MemoryBackend;
use cutwater_restart::Strategy;
use cutwater_runtime::{
    JobError, JobHandle, JobOutcome, Options, StartFrom, StopMode, open_checkpoint, run, spawn, store_at,
};
use cutwater_state::{
    AttachedTier, Capabilities, ColdBatch, ColdError, ColdFound, ColdImage, ColdState, ColdTier, ColdView, ColdVisitor,
    ImageSource, ModelTier, StateBackend, StateHeader, TierOwner,
};
use cutwater_task::DeltaLimits;

const KEYS: u64 = 3_000;
const RECORDS: u64 = 60_000;
/// On a slow machine attempts come to less between two failures, and would never come to the end.
const MOST_FAILURES: u64 = 60;
/// Of checkpoints, where one has to take longer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Keeps in memory what it takes for some hundred keys, the rest in a model of a tier that fails now and then.
#[derive(Debug)]
struct ModelBackend {
    overlay_bytes: u64,
    /// Whether it says that it has images.
    images: bool,
    /// The tier's operations fail with each so many, all in all; 0: never.
    fail_each: u64,
    /// One of so many snapshots of a tier takes longer than a checkpoint may; 0: none.
    stall_each: u64,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    opened: Mutex<Vec<(TierOwner, Arc<ModelTier>)>>,
}

impl ModelBackend {
    fn failing(overlay_bytes: u64, fail_each: u64) -> Arc<Self> {
        let (done, failed) = Default::default();
        Arc::new(Self { overlay_bytes, images: true, fail_each, stall_each: 0, done, failed, opened: Mutex::default() })
    }

    fn stalling(stall_each: u64) -> Arc<Self> {
        let (done, failed) = Default::default();
        let overlay_bytes = 32 << 10;
        Arc::new(Self { overlay_bytes, images: true, fail_each: 0, stall_each, done, failed, opened: Mutex::default() })
    }

    fn sound() -> Arc<Self> {
        Self::failing(32 << 10, 0)
    }
}

impl StateBackend for ModelBackend {
    fn name(&self) -> &'static str {
        "model"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cold_tier: true, images: self.images }
    }

    fn open_tier(&self, owner: &TierOwner) -> Result<Option<AttachedTier>, ColdError> {
        let model = Arc::new(ModelTier::default());
        self.opened.lock().unwrap().push((owner.clone(), Arc::clone(&model)));
        let (fail_each, done, failed) = (self.fail_each, Arc::clone(&self.done), Arc::clone(&self.failed));
        let (stall_each, views) = (self.stall_each, AtomicU64::new(0));
        let tier = Arc::new(FailingTier { model, fail_each, stall_each, views, done, failed });
        Ok(Some(AttachedTier { tier, overlay_bytes: self.overlay_bytes }))
    }
}

#[derive(Debug)]
struct FailingTier {
    model: Arc<ModelTier>,
    fail_each: u64,
    stall_each: u64,
    views: AtomicU64,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl FailingTier {
    fn act(&self, action: &str) -> Result<(), ColdError> {
        let fails = self.fail_each > 0 && self.failed.load(Ordering::SeqCst) < MOST_FAILURES;
        if fails && (self.done.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(self.fail_each) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(ColdError { action: action.into(), reason: "planned".into() });
        }
        Ok(())
    }

    fn stall(&self) {
        let views = self.views.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stall_each > 0 && views.is_multiple_of(self.stall_each) {
            let (_keep, never) = channel::<()>();
            let _ = never.recv_timeout(TIMEOUT * 2);
        }
    }
}

impl ColdTier for FailingTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.model.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        self.act("read")?;
        self.model.get(state, names, found)
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        self.act("read")?;
        self.model.get_all(state, prefixes, found)
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.act("read")?;
        self.model.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        // A part of it is there, as after a crash in its midst.
        if let Err(error) = self.act("write") {
            let mut part = ColdBatch::default();
            for (name, value) in batch.iter().step_by(2) {
                match value {
                    Some(value) => part.put(name, value),
                    None => part.delete(name),
                }
            }
            self.model.write(state, &part)?;
            return Err(error);
        }
        self.model.write(state, batch)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.act("make a view")?;
        self.stall();
        self.model.view()
    }

    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        self.act("make an image")?;
        self.stall();
        self.model.image()
    }

    fn import(&self, images: &[&dyn ImageSource], groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        self.model.import(images, groups)
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.model.about(state)
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        self.model.expire(state, horizon);
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        self.model.keep_only(states)
    }
}

/// Counts records by key, forgets every fifth key now and then, and tells the count when a timer fires.
#[derive(Clone)]
struct Count {
    /// Fails at these records, once each.
    fail_at: Arc<Mutex<Vec<u64>>>,
    /// As the count, by other kinds of state.
    named: ValueState<u64>,
    reduced: ReducingState<u64>,
    /// How many there were in each third of the rounds over all keys.
    thirds: MapState<u64, u64>,
    records: ListState<u64>,
    /// With a time-to-live that is longer than the job.
    short: ValueState<u64>,
}

impl KeyedProcess<u64, u64> for Count {
    type State = (u64, String);
    type Out = (u64, u64);

    fn initial(&self) -> Self::State {
        (0, "x".repeat(50))
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.named = states.value("named")?;
        self.reduced = states.reducing("reduced", |sum: &mut u64, other| *sum += other)?;
        self.thirds = states.map("thirds")?;
        self.records = states.list("records")?;
        self.short = states.ttl(Ttl::new(Duration::from_secs(3_600))).value("short")?;
        Ok(())
    }

    fn process(
        &mut self,
        cx: &mut ProcessContext<'_, u64, Self::State, Self::Out>,
        record: u64,
    ) -> Result<(), UserError> {
        let fails = self.fail_at.lock().unwrap().pop_if(|at| record >= *at).is_some();
        assert!(!fails, "planned");
        if cx.key().is_multiple_of(5) && (record / KEYS).is_multiple_of(4) {
            cx.value(self.named)?.clear()?;
            cx.reducing(self.reduced)?.clear()?;
            cx.value(self.short)?.clear()?;
            cx.list(self.records)?.clear()?;
            for third in 0..3 {
                cx.map(self.thirds)?.remove(&third)?;
            }
            return Ok(cx.clear()?);
        }
        cx.state()?.0 += 1;
        *cx.value(self.named)?.get_or_insert_with(|| 0)? += 1;
        cx.reducing(self.reduced)?.add(1)?;
        *cx.map(self.thirds)?.get_or_insert_with(&(record / KEYS % 3), || 0)? += 1;
        cx.list(self.records)?.push(record)?;
        *cx.value(self.short)?.get_or_insert_with(|| 0)? += 1;
        let last = Timestamp(1 << 40); // fires when all input has ended
        cx.register_timer(last)?;
        Ok(())
    }

    fn on_timer(
        &mut self,
        cx: &mut ProcessContext<'_, u64, Self::State, Self::Out>,
        _: Timestamp,
    ) -> Result<(), UserError> {
        if let Some((count, _)) = cx.peek()?.cloned() {
            let named = cx.value(self.named)?.get()?.copied();
            let reduced = cx.reducing(self.reduced)?.get()?.copied();
            let short = cx.value(self.short)?.get()?.copied();
            assert_eq!((named, reduced, short), (Some(count), Some(count), Some(count)), "all states agree");
            let key = *cx.key();
            let thirds: Vec<(u64, u64)> = cx.map(self.thirds)?.iter()?.map(|(third, count)| (*third, *count)).collect();
            let records: Vec<u64> = cx.list(self.records)?.iter()?.copied().collect();
            assert!(records.is_sorted() && records.len() as u64 == count, "the list has all records: {records:?}");
            let of = |third| records.iter().filter(|record| **record / KEYS % 3 == third).count() as u64;
            let expected: Vec<_> = (0..3).map(|third| (third, of(third))).filter(|(_, count)| *count > 0).collect();
            assert_eq!(thirds, expected, "the map has them by thirds");
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
        .process_with(
            "count",
            Count {
                fail_at,
                named: ValueState::default(),
                reduced: ReducingState::default(),
                thirds: MapState::default(),
                records: ListState::default(),
                short: ValueState::default(),
            },
        )
        .sink("out", out.clone());
    job.build().unwrap()
}

fn expected(records: u64) -> Vec<(u64, u64)> {
    let mut counts = vec![None; KEYS as usize];
    for record in 0..records {
        let key = record * 7919 % KEYS;
        let count = &mut counts[key as usize];
        *count = if key.is_multiple_of(5) && (record / KEYS).is_multiple_of(4) {
            None
        } else {
            Some(count.unwrap_or(0) + 1)
        };
    }
    (0..).zip(counts).filter_map(|(key, count)| Some((key, count?))).collect()
}

fn options(folder: &Path, parallelism: u32, backend: Arc<dyn StateBackend>) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.task.sweep_step_bytes = 2_000; // records between the steps of a snapshot
    options.backend = backend;
    options
}

fn sorted(out: &Collect<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut found = out.take();
    found.sort_unstable();
    found
}

#[test]
fn a_job_that_fails_goes_on_from_what_its_tier_held() {
    for (parallelism, native) in [(1, false), (3, false), (1, true), (3, true)] {
        let (folder, backend) = (tempfile::tempdir().unwrap(), ModelBackend::sound());
        let out = Collect::default();
        let graph = counts(RECORDS, &[9_000, 20_000, 21_000, 45_000, 59_990], &out);
        let mut options = options(folder.path(), parallelism, backend.clone());
        options.task.deltas = native.then(DeltaLimits::default);
        let handle = spawn(graph, options).unwrap();
        let outcome = handle.wait().unwrap();
        assert_eq!(outcome, JobOutcome::Finished);
        assert_eq!(sorted(&out), expected(RECORDS));
        let opened = backend.opened.lock().unwrap();
        // Sources have one too, and put nothing there.
        let attempts: Vec<u32> = opened.iter().map(|(owner, _)| owner.attempt.0).collect();
        let last = attempts.iter().copied().max().unwrap_or(0);
        // Two of the failures are near: on two subtasks both may come before the attempt of the first is over.
        let is_expected = if parallelism == 1 { last == 6 } else { (5..=6).contains(&last) };
        assert!(is_expected, "{attempts:?}");
        let entries: usize =
            opened.iter().filter(|(owner, _)| owner.attempt.0 == last).map(|(_, tier)| tier.len()).sum();
        assert!(entries > 2_000, "{entries} of {KEYS} keys are in the tiers");
    }
}

/// In the second case all is in memory, only snapshots come into the tier, and nothing is restored.
#[test]
fn a_tier_that_fails_costs_time_and_nothing_else() {
    let cases = [
        (32 << 10, 250, &[30_000, 59_000][..], None, false),
        (1 << 30, 23, &[], Some(0), false),
        (32 << 10, 250, &[30_000, 59_000], None, true),
        (1 << 30, 23, &[], Some(0), true),
    ];
    for (overlay_bytes, fail_each, fail_at, restarts, native) in cases {
        let folder = tempfile::tempdir().unwrap();
        let backend = ModelBackend::failing(overlay_bytes, fail_each);
        let out = Collect::default();
        let mut options = options(folder.path(), 2, backend.clone());
        options.checkpointing.tolerable_failures = u32::MAX;
        options.checkpointing.interval = Some(Duration::from_millis(5));
        options.task.deltas = native.then(DeltaLimits::default);
        let handle = spawn(counts(RECORDS, fail_at, &out), options).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert_eq!(sorted(&out), expected(RECORDS));
        let failed = backend.failed.load(Ordering::SeqCst);
        assert!(failed > 0, "no failure");
        let found = handle.status().restarts;
        assert!(restarts.is_none_or(|restarts| found == restarts), "{found} restarts");
    }
}

/// A snapshot that was given up is still on its way into the tier: the next one waits for that.
#[test]
fn snapshots_that_take_too_long_do_not_mix() {
    for (concurrent, native) in [(1, false), (3, false), (1, true), (3, true)] {
        let (folder, backend) = (tempfile::tempdir().unwrap(), ModelBackend::stalling(12));
        let out = Collect::default();
        let mut options = options(folder.path(), 2, backend);
        options.checkpointing.tolerable_failures = u32::MAX;
        options.checkpointing.timeout = TIMEOUT;
        options.checkpointing.max_concurrent = NonZeroU32::new(concurrent).unwrap();
        options.task.deltas = native.then(DeltaLimits::default);
        let handle = spawn(counts(RECORDS, &[30_000, 50_000], &out), options).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert_eq!(sorted(&out), expected(RECORDS));
        assert!(handle.status().failed_checkpoints > 0, "no snapshot took too long");
        assert_eq!(handle.status().restarts, 2);
    }
}

#[test]
fn savepoints_cross_between_memory_and_a_tier() {
    /// Five of each key.
    const ENOUGH: u64 = 5 * KEYS;
    let backends =
        || -> [Arc<dyn StateBackend>; 3] { [ModelBackend::sound(), Arc::new(MemoryBackend), ModelBackend::sound()] };
    for (first, parallelisms, native) in
        [(0, [1, 2, 3], false), (1, [2, 1, 4], false), (0, [1, 2, 3], true), (1, [2, 1, 4], true)]
    {
        let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
        let backends = backends();
        let mut from = StartFrom::Latest;
        let mut all = 0;
        for (step, parallelism) in (0..).zip(parallelisms) {
            let home = folder.path().join(step.to_string());
            std::fs::create_dir(&home).unwrap();
            let backend = Arc::clone(&backends[(first + step) % 3]);
            let mut options = Options { from, ..options(&home, parallelism, backend) };
            options.task.deltas = native.then(DeltaLimits::default);
            let last = step == 2;
            let records = if last { all + ENOUGH } else { u64::MAX };
            let handle = spawn(counts(records, &[], &out), options).unwrap();
            if last {
                assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
                assert_eq!(sorted(&out), expected(records), "from {first} on");
                break;
            }
            while handle.status().records_in < ENOUGH {
                std::thread::yield_now();
            }
            let target = folder.path().join(format!("savepoint-{step}"));
            let stopped = handle.stop_with_savepoint(Some(target.to_str().unwrap()), StopMode::Suspend).unwrap();
            handle.wait().unwrap();
            all += handle.status().records_in;
            from = StartFrom::Path(stopped.location);
        }
    }
}

/// Files in the form of the backend, under the names of earlier checkpoints and of the last one.
fn native_files(checkpoint: &CompletedCheckpoint) -> (Vec<&FileRef>, Vec<&FileRef>) {
    let native = checkpoint.files().filter(|file| native_number(&file.name).is_some_and(|number| number > 0));
    native.partition(|file| checkpoint_of_snapshot(&file.name).unwrap() < checkpoint.checkpoint)
}

/// Three thousand keys once, then two of them for ever.
fn few_change(out: &Collect<(u64, u64)>) -> JobGraph {
    let job = Job::new("few");
    job.source("numbers", generator(u64::MAX, |n| if n < KEYS { n } else { n % 2 }))
        .key_by(|n| *n)
        .fold("counts", 0_u64, |count, _| *count += 1)
        .sink("out", out.clone());
    job.build().unwrap()
}

fn wait_for(handle: &JobHandle, checkpoints: u64) {
    while handle.status().completed_checkpoints < checkpoints || handle.status().records_in < 10_000 {
        assert!(!handle.is_done(), "it has ended: {:?}", handle.wait());
        std::thread::yield_now();
    }
}

#[test]
fn checkpoints_share_files_that_have_not_changed_and_restore_at_any_parallelism() {
    for parallelisms in [[1, 1, 1, 1], [1, 3, 2, 4], [4, 2, 1, 3]] {
        let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
        let job = folder.path().join("few");
        for (step, parallelism) in (0..).zip(parallelisms) {
            let mut options = options(folder.path(), parallelism, ModelBackend::sound());
            options.task.deltas = Some(DeltaLimits::default());
            options.checkpointing.interval = Some(Duration::from_millis(10));
            let handle = spawn(few_change(&out), options).unwrap();
            wait_for(&handle, 8);
            handle.cancel();
            handle.wait().unwrap();
            let (checkpoint, store) = open_checkpoint(job.to_str().unwrap()).unwrap();
            let (earlier, own) = native_files(&checkpoint);
            assert!(
                earlier.len() >= own.len() && own.len() <= 2,
                "{} and {} of {checkpoint:?}",
                earlier.len(),
                own.len()
            );
            // Of a restored checkpoint too, unless its files were joined or it was the first.
            let of_former = |file: &&&FileRef| epoch_of_snapshot(&file.name).unwrap() < checkpoint.epoch;
            let former = earlier.iter().filter(of_former).count();
            assert!(step == 0 || former > 0 || parallelisms[step - 1] > parallelism, "{former} of {checkpoint:?}");
            // All that is named is there, and nothing else.
            let there: BTreeSet<_> = store.list("chk/").unwrap().iter().map(|listed| listed.name.to_string()).collect();
            let named: BTreeSet<_> = checkpoint.stored_files().map(|file| file.name.clone()).collect();
            assert_eq!(there, named);
        }
        assert_each_count_once(&out, &format!("{parallelisms:?}"));
    }
}

/// Each key was counted on from what was restored, and each count told once.
#[track_caller]
fn assert_each_count_once(out: &Collect<(u64, u64)>, what: &str) {
    let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (key, count) in out.take() {
        told.entry(key).or_default().push(count);
    }
    assert_eq!(told.len() as u64, KEYS, "{what}");
    for (key, mut counts) in told {
        counts.sort_unstable();
        assert!(counts.iter().copied().eq(1..=counts.len() as u64), "{key} in {what}");
        assert!(key > 1 || counts.len() > 2_000, "{key} came {} times", counts.len());
    }
}

#[test]
fn files_of_one_backend_are_refused_by_another() {
    let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
    let mut first = options(folder.path(), 2, ModelBackend::sound());
    first.task.deltas = Some(DeltaLimits::default());
    let handle = spawn(few_change(&out), first).unwrap();
    wait_for(&handle, 3);
    let target = folder.path().join("savepoint");
    let saved = handle.stop_with_savepoint(Some(target.to_str().unwrap()), StopMode::Suspend).unwrap();
    handle.wait().unwrap();
    // The savepoint is canonical; the checkpoint that it is a copy of is so too, and the one before is gone.
    let (checkpoint, _) = open_checkpoint(&saved.location).unwrap();
    assert_eq!(checkpoint.files().filter(|file| native_number(&file.name).is_some()).count(), 0);

    let mut again = options(folder.path(), 2, ModelBackend::sound());
    again.task.deltas = Some(DeltaLimits::default());
    let handle = spawn(few_change(&out), again).unwrap();
    wait_for(&handle, 3);
    handle.cancel();
    handle.wait().unwrap();
    let error = run(few_change(&out), options(folder.path(), 2, Arc::new(MemoryBackend))).unwrap_err();
    assert_eq!(error.code(), "RST0011", "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains("backend model") && text.contains("hashmap") && text.contains("savepoint"), "{text}");
}

/// Windows are maps of their keys.
#[test]
fn windows_lie_in_a_tier_too() {
    for (parallelism, whole) in [(1, false), (2, true)] {
        let (folder, backend, out) = (tempfile::tempdir().unwrap(), ModelBackend::sound(), Collect::default());
        let fail_at = Arc::new(Mutex::new(vec![50_000, 30_000, 10_000]));
        let job = Job::new("windows");
        let windows = job
            .source("numbers", generator(RECORDS, |n| n).event_time(|n| Timestamp(n as i64)))
            .key_by(move |n| {
                let fails = fail_at.lock().unwrap().pop_if(|at| *n >= *at).is_some();
                assert!(!fails, "planned");
                n * 7919 % KEYS
            })
            .window(Windows::tumbling(Duration::from_secs(10)));
        if whole {
            let process = |key: &u64, window: Window, numbers: &[&u64]| vec![(*key, window, numbers.len() as u64)];
            windows.process("count", process).sink("out", out.clone());
        } else {
            let count = folding(|| 0, |count: &mut u64, _: u64| *count += 1, |count, other| *count += other);
            windows.aggregate("count", count).sink("out", out.clone());
        }
        let options = options(folder.path(), parallelism, backend.clone());
        assert_eq!(run(job.build().unwrap(), options).unwrap(), JobOutcome::Finished);
        let mut found: Vec<(u64, u64, u64)> =
            out.take().into_iter().map(|(key, window, count)| (window.start as u64 / 10_000, key, count)).collect();
        found.sort_unstable();
        let mut expected = BTreeMap::new();
        for record in 0..RECORDS {
            *expected.entry((record / 10_000, record * 7919 % KEYS)).or_insert(0) += 1;
        }
        let expected: Vec<_> = expected.into_iter().map(|((window, key), count)| (window, key, count)).collect();
        assert_eq!(found, expected, "parallelism {parallelism}");
        let opened = backend.opened.lock().unwrap();
        assert!(opened.iter().any(|(_, tier)| tier.len() > 1_000), "windows were in the tier");
    }
}

/// Says of each record whether its key had one within a time-to-live, and how many in a map and a list.
#[derive(Clone)]
struct Recent {
    fail_at: Arc<Mutex<Vec<u64>>>,
    /// When the key was written to, without a time-to-live.
    stamps: ListState<i64>,
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
}

const TTL: i64 = 2_000;

impl KeyedProcess<u64, u64> for Recent {
    type State = ();
    type Out = (u64, u64);

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.stamps = states.list("stamps")?;
        let mut states = states.ttl(Ttl::new(Duration::from_millis(TTL as u64)).by_event_time());
        self.value = states.value("last")?;
        self.list = states.list("all")?;
        self.map = states.map("by-record")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, (), Self::Out>, record: u64) -> Result<(), UserError> {
        let fails = self.fail_at.lock().unwrap().pop_if(|at| record >= *at).is_some();
        assert!(!fails, "planned");
        let watermark = cx.watermark().0;
        let stamps: Vec<i64> = cx.list(self.stamps)?.iter()?.copied().collect();
        let living = stamps.iter().filter(|stamp| **stamp > watermark.saturating_sub(TTL)).count();
        let lives = cx.value(self.value)?.get()?.is_some();
        assert_eq!(lives, living > 0, "record {record} at {watermark}, {stamps:?}");
        assert_eq!(cx.list(self.list)?.iter()?.count(), living, "record {record} at {watermark}, {stamps:?}");
        assert_eq!(cx.map(self.map)?.iter()?.count(), living, "record {record} at {watermark}, {stamps:?}");
        cx.list(self.stamps)?.push(watermark.max(record as i64))?;
        cx.value(self.value)?.set(record)?;
        cx.list(self.list)?.push(record)?;
        cx.map(self.map)?.insert(record, record)?;
        cx.emit((*cx.key(), u64::from(lives)));
        Ok(())
    }
}

/// What has expired is as good as gone, whether it was in memory or in the tier, and what lives is there, wherever it was.
#[test]
fn what_expires_in_a_tier_is_not_there_and_all_else_is() {
    const RECORDS: u64 = 18_000;
    for (parallelism, native) in [(1, false), (2, true)] {
        let (folder, backend, out) = (tempfile::tempdir().unwrap(), ModelBackend::sound(), Collect::default());
        let recent = Recent {
            fail_at: Arc::new(Mutex::new(vec![17_000, 12_000, 11_500, 4_000])),
            stamps: ListState::default(),
            value: ValueState::default(),
            list: ListState::default(),
            map: MapState::default(),
        };
        let job = Job::new("recent");
        job.source("numbers", generator(RECORDS, |n| n).event_time(|n| Timestamp(n as i64)))
            // Some keys come again at once, some after twice the time that they live.
            .key_by(|n| if n % 3 == 0 { n / 7 % 50 } else { 50 + n * 7919 % 3_000 })
            .process_with("recent", recent)
            .sink("out", out.clone());
        let mut options = options(folder.path(), parallelism, backend.clone());
        options.task.deltas = native.then(DeltaLimits::default);
        // What fails again and again ends the job.
        options.restart = Some(Strategy::FixedDelay { attempts: 8, delay: Duration::from_millis(1) });
        assert_eq!(run(job.build().unwrap(), options).unwrap(), JobOutcome::Finished);
        let found = out.take();
        let living = found.iter().filter(|(_, lives)| *lives == 1).count();
        assert_eq!(found.len() as u64, RECORDS);
        assert!(living > 3_000 && found.len() - living > 3_000, "{living} had one within the time");
        let opened = backend.opened.lock().unwrap();
        assert!(opened.iter().any(|(_, tier)| tier.len() > 1_000), "state was in the tier");
    }
}

/// Nothing of the job's folder is needed by one, whether checkpoints share files or not; another backend refuses it.
#[test]
fn savepoints_in_the_form_of_the_backend_are_whole() {
    for incremental in [false, true] {
        let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
        let at = |name: &str, parallelism, backend: Arc<dyn StateBackend>| {
            let home = folder.path().join(name);
            std::fs::create_dir(&home).unwrap();
            options(&home, parallelism, backend)
        };
        let mut first = at("first", 2, ModelBackend::sound());
        first.task.deltas = incremental.then(DeltaLimits::default);
        first.checkpointing.savepoints = SavepointFormat::Native;
        let handle = spawn(few_change(&out), first).unwrap();
        wait_for(&handle, 3);
        let target = folder.path().join("savepoint");
        let saved = handle.stop_with_savepoint(Some(target.to_str().unwrap()), StopMode::Suspend).unwrap();
        handle.wait().unwrap();
        let (checkpoint, _) = open_checkpoint(&saved.location).unwrap();
        let (earlier, own) = native_files(&checkpoint);
        assert!(earlier.is_empty() && own.len() > 5, "{} and {}", earlier.len(), own.len());
        std::fs::remove_dir_all(folder.path().join("first")).unwrap();

        let from = || StartFrom::Path(saved.location.clone());
        let error = run(few_change(&out), Options { from: from(), ..at("memory", 2, Arc::new(MemoryBackend)) });
        assert_eq!(error.unwrap_err().code(), "RST0011");
        let handle =
            spawn(few_change(&out), Options { from: from(), ..at("second", 3, ModelBackend::sound()) }).unwrap();
        wait_for(&handle, 3);
        handle.cancel();
        handle.wait().unwrap();
        assert_each_count_once(&out, &format!("incremental: {incremental}"));
    }
}

#[test]
fn what_is_not_built_is_refused() {
    let without_images = ModelBackend { images: false, ..Arc::into_inner(ModelBackend::sound()).unwrap() };
    let mut options = options(Path::new("."), 1, Arc::new(without_images));
    options.store = None;
    options.task.deltas = Some(DeltaLimits::default());
    let error = run(counts(1, &[], &Collect::default()), options).unwrap_err();
    let JobError::Options { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("execution.checkpointing.incremental") && reason.contains("model"), "{reason}");
}
