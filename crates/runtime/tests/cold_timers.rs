//! Jobs with more timers than memory has room for, against the same jobs in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::Timestamp;
use cutwater_dataflow::{Collect, Job, JobGraph, KeyedProcess, ProcessContext, UserError, Windows, folding, generator};
use cutwater_memory::MemoryBackend;
use cutwater_restart::Strategy;
use cutwater_runtime::{JobOutcome, Options, StartFrom, StopMode, run, spawn, store_at};
use cutwater_state::{AttachedTier, Capabilities, ColdError, ModelTier, StateBackend, TierOwner};
use cutwater_task::DeltaLimits;

const KEYS: u64 = 2_000;
const RECORDS: u64 = 12_000;

/// Keeps some hundred timers of each subtask in memory.
#[derive(Debug, Default)]
struct ModelBackend {
    opened: Mutex<Vec<Arc<ModelTier>>>,
}

impl StateBackend for ModelBackend {
    fn name(&self) -> &'static str {
        "model"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cold_tier: true, images: true }
    }

    fn open_tier(&self, _: &TierOwner) -> Result<Option<AttachedTier>, ColdError> {
        let tier = Arc::new(ModelTier::default());
        self.opened.lock().unwrap().push(Arc::clone(&tier));
        Ok(Some(AttachedTier { tier, overlay_bytes: 32 << 10 }))
    }
}

/// Sets three timers for each record, of which one may be deleted by another; one more by each that fires at the first.
#[derive(Clone)]
struct Rings {
    /// Fails at these records, once each.
    fail_at: Arc<Mutex<Vec<u64>>>,
}

/// How long after its record each kind of timer is due, in milliseconds.
const AFTER: [i64; 4] = [300, 4_000, 7_000, 2_500];

/// The kind of a timer is in its time: no two records set the same one.
fn at(record: u64, kind: usize) -> Timestamp {
    Timestamp((record as i64 + AFTER[kind]) * 4 + kind as i64)
}

type Cx<'a> = ProcessContext<'a, u64, u64, (u64, i64)>;

impl KeyedProcess<u64, u64> for Rings {
    type State = u64;
    type Out = (u64, i64);

    fn initial(&self) -> u64 {
        0
    }

    fn process(&mut self, cx: &mut Cx<'_>, record: u64) -> Result<(), UserError> {
        let fails = self.fail_at.lock().unwrap().pop_if(|at| record >= *at).is_some();
        assert!(!fails, "planned");
        for kind in 0..3 {
            cx.register_timer(at(record, kind))?;
        }
        // It is due already.
        cx.register_processing_timer(Timestamp(record as i64))?;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, time: Timestamp) -> Result<(), UserError> {
        let kind = (time.0 % 4) as usize;
        let record = (time.0 / 4 - AFTER[kind]) as u64;
        *cx.state()? += 1;
        if kind == 0 {
            cx.register_timer(at(record, 3))?;
            if record.is_multiple_of(3) {
                cx.delete_timer(at(record, 2))?;
            }
        }
        cx.emit((*cx.key(), time.0));
        Ok(())
    }

    fn on_processing_timer(&mut self, cx: &mut Cx<'_>, time: Timestamp) -> Result<(), UserError> {
        cx.emit((*cx.key(), -1 - time.0));
        Ok(())
    }
}

fn rings(records: u64, fail_at: &[u64], out: &Collect<(u64, i64)>) -> JobGraph {
    let job = Job::new("rings");
    let fail_at = Arc::new(Mutex::new(fail_at.iter().rev().copied().collect()));
    job.source("numbers", generator(records, |n| n).event_time(|n| Timestamp(n as i64 * 4)))
        .key_by(|n| n * 7919 % KEYS)
        .process_with("rings", Rings { fail_at })
        .sink("out", out.clone());
    job.build().unwrap()
}

/// What rings for so many records.
fn expected(records: u64) -> Vec<(u64, i64)> {
    let mut rung = Vec::new();
    for record in 0..records {
        let kinds = (0..4).filter(|kind| *kind != 2 || !record.is_multiple_of(3));
        let times = kinds.map(|kind| at(record, kind).0).chain([-1 - record as i64]);
        rung.extend(times.map(|time| (record * 7919 % KEYS, time)));
    }
    rung.sort_unstable();
    rung
}

fn options(folder: &Path, parallelism: u32, backend: Arc<dyn StateBackend>, native: bool) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.task.sweep_step_bytes = 2_000; // records between the steps of a snapshot
    options.task.deltas = native.then(DeltaLimits::default);
    options.backend = backend;
    options
}

fn sorted<T: Ord>(out: &Collect<T>) -> Vec<T> {
    let mut found = out.take();
    found.sort_unstable();
    found
}

#[test]
fn timers_in_a_tier_fire_once_each_through_failures() {
    for (parallelism, native) in [(1, false), (2, false), (1, true), (2, true)] {
        let (folder, backend, out) =
            (tempfile::tempdir().unwrap(), Arc::new(ModelBackend::default()), Collect::default());
        let graph = rings(RECORDS, &[2_000, 5_000, 5_400, 10_000, 11_990], &out);
        let outcome = run(graph, options(folder.path(), parallelism, backend.clone(), native)).unwrap();
        assert_eq!(outcome, JobOutcome::Finished);
        assert_eq!(sorted(&out), expected(RECORDS), "parallelism {parallelism}, native: {native}");
        let most = backend.opened.lock().unwrap().iter().map(|tier| tier.most()).max();
        assert!(most > Some(3_000), "{most:?} entries in a tier");
    }
}

#[test]
fn timers_cross_between_memory_and_a_tier() {
    for (first, parallelisms, native) in [(0, [1, 2, 3], false), (1, [2, 1, 3], false), (0, [1, 2, 3], true)] {
        let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
        let mut from = StartFrom::Latest;
        let mut all = 0;
        for (step, parallelism) in (0..).zip(parallelisms) {
            let backend: Arc<dyn StateBackend> =
                if (first + step) % 2 == 0 { Arc::new(ModelBackend::default()) } else { Arc::new(MemoryBackend) };
            let home = folder.path().join(step.to_string());
            std::fs::create_dir(&home).unwrap();
            let options = Options { from, ..options(&home, parallelism, backend, native) };
            let last = step == 2;
            let records = if last { all + RECORDS } else { u64::MAX };
            let handle = spawn(rings(records, &[], &out), options).unwrap();
            if last {
                assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
                assert_eq!(sorted(&out), expected(records), "from {first} on");
                break;
            }
            while handle.status().records_in < all + 5_000 {
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

/// All windows of a day end at once, and there are more of them than memory holds.
#[test]
fn windows_that_end_together_fire_with_little_memory() {
    let counted = |backend: Arc<dyn StateBackend>, fail_at: Vec<u64>| {
        let (folder, out, fail_at) = (tempfile::tempdir().unwrap(), Collect::default(), Mutex::new(fail_at));
        let job = Job::new("windows");
        let count = folding(|| 0, |count: &mut u64, _: u64| *count += 1, |count, other| *count += other);
        let fail_at = Arc::new(fail_at);
        job.source("numbers", generator(RECORDS, |n| n).event_time(|n| Timestamp(n as i64)))
            .key_by(move |n| {
                let fails = fail_at.lock().unwrap().pop_if(|at| *n >= *at).is_some();
                assert!(!fails, "planned");
                n * 7919 % 2_500
            })
            .window(Windows::tumbling(Duration::from_secs(5)))
            .aggregate("count", count)
            .sink("out", out.clone());
        assert_eq!(run(job.build().unwrap(), options(folder.path(), 2, backend, false)).unwrap(), JobOutcome::Finished);
        sorted(&out)
    };
    let backend = Arc::new(ModelBackend::default());
    let found = counted(backend.clone(), vec![11_000, 7_000, 3_000]);
    let mut expected = BTreeMap::new();
    for record in 0..RECORDS {
        *expected.entry((record * 7919 % 2_500, record / 5_000)).or_insert(0) += 1;
    }
    let told =
        |(key, window, count): &(u64, cutwater_dataflow::Window, u64)| ((*key, window.start as u64 / 5_000), *count);
    assert_eq!(found.iter().map(told).collect::<BTreeMap<_, _>>(), expected);
    assert_eq!(found, counted(Arc::new(MemoryBackend), Vec::new()));
    let most = backend.opened.lock().unwrap().iter().map(|tier| tier.most()).max();
    assert!(most > Some(1_500), "{most:?} entries in a tier");
}
