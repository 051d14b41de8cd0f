//! Named states, processing-time timers and times-to-live in whole jobs that fail and go on at other parallelisms.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::Timestamp;
use cutwater_dataflow::{
    Aggregate, AggregatingState, Collect, Job, JobGraph, KeyedProcess, ListState, MapState, ProcessContext,
    ReducingState, States, Ttl, UserError, ValueState, from_iter, generator,
};
use cutwater_restart::Strategy;
use cutwater_runtime::{Failure, JobError, JobOutcome, Options, RestoreError, run, spawn, store_at};
use cutwater_task::DeltaLimits;

const RECORDS: u64 = 20_000;
const KEYS: u64 = 50;

fn checkpointed(folder: &std::path::Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

#[derive(Clone)]
struct Sum;

impl Aggregate<u64> for Sum {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, record: u64) {
        *sum += record;
    }

    fn merge(&self, sum: &mut u64, other: u64) {
        *sum += other;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

/// Key, the last record before, the length of a list, a checksum of it in order, a map's entries and its sum, the largest
/// record, the sum.
type Row = (u64, Option<u64>, u64, u64, u64, u64, u64, u64);

/// Uses a state of each kind and tells all of them with each record.
#[derive(Clone)]
struct Everything {
    fault: Arc<dyn Fn(u64) -> Result<(), UserError> + Send + Sync>,
    last: ValueState<u64>,
    all: ListState<u64>,
    rests: MapState<String, u64>,
    largest: ReducingState<u64>,
    sum: AggregatingState<u64, Sum>,
}

impl KeyedProcess<u64, u64> for Everything {
    type State = u64;
    type Out = Row;

    fn initial(&self) -> u64 {
        0
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        // A time-to-live that nothing in this test reaches, so that stamps are on the way too.
        let mut states = states.ttl(Ttl::new(Duration::from_secs(86_400)));
        self.last = states.value("last")?;
        self.all = states.list("all")?;
        self.rests = states.map("rests")?;
        self.largest = states.reducing("largest", |largest, n: u64| *largest = n.max(*largest))?;
        self.sum = states.aggregating("sum", Sum)?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, Row>, n: u64) -> Result<(), UserError> {
        (self.fault)(n)?;
        let before = cx.value(self.last)?.get()?.copied();
        cx.value(self.last)?.set(n)?;
        cx.list(self.all)?.push(n)?;
        let (mut length, mut checksum) = (0, 0_u64);
        for element in cx.list(self.all)?.iter()? {
            length += 1;
            checksum = checksum.wrapping_mul(31).wrapping_add(*element);
        }
        if length >= 100 {
            cx.list(self.all)?.clear()?;
        }
        let mut rests = cx.map(self.rests)?;
        let rest = format!("rest {}", n / KEYS % 23);
        if n.is_multiple_of(7) {
            rests.remove(&rest)?;
        } else {
            *rests.get_or_insert_with(&rest, || 0)? += n;
        }
        let (mut entries, mut of_rests) = (0, 0);
        for (_, value) in rests.iter()? {
            entries += 1;
            of_rests += value;
        }
        cx.reducing(self.largest)?.add(n)?;
        let largest = cx.reducing(self.largest)?.get()?.copied().unwrap_or_default();
        cx.aggregating(self.sum)?.add(n)?;
        let sum = cx.aggregating(self.sum)?.get()?.unwrap_or_default();
        let key = *cx.key();
        cx.emit((key, before, length, checksum, entries, of_rests, largest, sum));
        Ok(())
    }
}

fn everything(out: &Collect<Row>, fault: impl Fn(u64) -> Result<(), UserError> + Send + Sync + 'static) -> JobGraph {
    let operator = Everything {
        fault: Arc::new(fault),
        last: ValueState::default(),
        all: ListState::default(),
        rests: MapState::default(),
        largest: ReducingState::default(),
        sum: AggregatingState::default(),
    };
    let job = Job::new("everything");
    // One split: with several, the order of a key's records would differ from run to run.
    job.source("numbers", from_iter(0..RECORDS))
        .key_by(|n| n % KEYS)
        .process_with("everything", operator)
        .sink("out", out.clone());
    job.build().unwrap()
}

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort_unstable();
    rows
}

#[test]
fn all_kinds_of_state_survive_failures_and_other_parallelisms() {
    let undisturbed = Collect::default();
    assert_eq!(run(everything(&undisturbed, |_| Ok(())), Options::new()).unwrap(), JobOutcome::Finished);
    let expected = sorted(undisturbed.take());
    assert_eq!(expected.len() as u64, RECORDS);

    for (first, second, deltas) in [(1, 4, false), (3, 2, false), (2, 2, true), (3, 2, true)] {
        let checkpointed = |folder: &std::path::Path, parallelism| {
            let mut options = checkpointed(folder, parallelism);
            options.task.deltas = deltas.then_some(DeltaLimits { longest: 4, percent: 300 });
            options
        };
        let folder = tempfile::tempdir().unwrap();
        let out = Collect::default();
        let (panics, open) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let graph = || {
            let (panics, open) = (Arc::clone(&panics), Arc::clone(&open));
            everything(&out, move |n: u64| {
                let wanted = panics.load(Ordering::SeqCst);
                if wanted < 3 && n == u64::from(wanted + 1) * 3_000 {
                    panics.fetch_add(1, Ordering::SeqCst);
                    panic!("planned");
                }
                match n >= 15_000 && !open.load(Ordering::SeqCst) {
                    true => Err("the gate is closed".into()),
                    false => Ok(()),
                }
            })
        };
        let handle = spawn(graph(), checkpointed(folder.path(), first)).unwrap();
        while handle.status().restarts < 5 || handle.status().completed_checkpoints == 0 {
            std::thread::yield_now();
        }
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        open.store(true, Ordering::SeqCst);
        let handle = spawn(graph(), checkpointed(folder.path(), second)).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
        assert!(sorted(out.take()) == expected, "the output differs, {first} to {second}, deltas: {deltas}");
    }
}

/// Counts in a map; `declared` says whether it declares it.
#[derive(Clone)]
struct MayForget {
    declared: bool,
    gate: Arc<AtomicBool>,
    counts: MapState<u64, u64>,
}

impl KeyedProcess<u64, u64> for MayForget {
    type State = u64;
    type Out = u64;

    fn initial(&self) -> u64 {
        0
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        if self.declared {
            self.counts = states.map("counts")?;
        }
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, u64>, n: u64) -> Result<(), UserError> {
        if n >= RECORDS - 100 && !self.gate.load(Ordering::SeqCst) {
            return Err("the gate is closed".into());
        }
        *cx.state()? += 1;
        if self.declared {
            *cx.map(self.counts)?.get_or_insert_with(&(n % 3), || 0)? += 1;
        }
        cx.emit(n);
        Ok(())
    }
}

#[test]
fn a_state_that_was_dropped_is_refused_and_one_that_was_added_begins_empty() {
    for (before, after) in [(true, false), (false, true)] {
        let folder = tempfile::tempdir().unwrap();
        let out = Collect::default();
        let gate = Arc::new(AtomicBool::new(false));
        let graph = |declared| {
            let operator = MayForget { declared, gate: Arc::clone(&gate), counts: MapState::default() };
            let job = Job::new("forgets");
            job.source("numbers", generator(RECORDS, |n| n))
                .key_by(|n| n % KEYS)
                .process_with("op", operator)
                .sink("out", out.clone());
            job.build().unwrap()
        };
        let handle = spawn(graph(before), checkpointed(folder.path(), 2)).unwrap();
        // Checkpoints from before the first record have no state.
        let has_state = || handle.status().last_checkpoint.is_some_and(|checkpoint| checkpoint.bytes > 500);
        while handle.status().restarts < 2 || !has_state() {
            std::thread::yield_now();
        }
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        gate.store(true, Ordering::SeqCst);
        let ended = run(graph(after), checkpointed(folder.path(), 3));
        if after {
            assert_eq!(ended.unwrap(), JobOutcome::Finished);
            assert!(sorted(out.take()).into_iter().eq(0..RECORDS));
            continue;
        }
        let JobError::Failed { source, .. } = ended.unwrap_err() else { panic!("it failed otherwise") };
        let Failure::Restore { source: RestoreError::UnknownState { operator, state, kind }, .. } = &*source else {
            panic!("{source:?}")
        };
        assert_eq!((operator.as_str(), state.as_str(), *kind), ("op", "counts", "map"));
    }
}

/// Emits each record after some milliseconds of processing time.
#[derive(Clone)]
struct Delay {
    waiting: ListState<u64>,
    rung: Arc<AtomicU32>,
}

impl KeyedProcess<u64, u64> for Delay {
    type State = ();
    type Out = u64;

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.waiting = states.list("waiting")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, (), u64>, n: u64) -> Result<(), UserError> {
        cx.list(self.waiting)?.push(n)?;
        let soon = cx.processing_time().0 + 1 + n as i64 % 5;
        cx.register_timer(Timestamp::MAX)?;
        Ok(cx.register_processing_timer(Timestamp(soon))?)
    }

    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, u64, (), u64>,
        _: Timestamp,
    ) -> Result<(), UserError> {
        self.rung.fetch_add(1, Ordering::SeqCst);
        self.on_timer(cx, Timestamp::MAX)
    }

    /// At the end of the input, what still waits: timers of processing time do not fire behind it.
    fn on_timer(&mut self, cx: &mut ProcessContext<'_, u64, (), u64>, _: Timestamp) -> Result<(), UserError> {
        let waiting: Vec<u64> = cx.list(self.waiting)?.iter()?.copied().collect();
        cx.list(self.waiting)?.clear()?;
        waiting.into_iter().for_each(|n| cx.emit(n));
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "processing time has to go on")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn timers_of_processing_time_fire_and_outlive_failures() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let failures = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&failures);
    let rung = Arc::new(AtomicU32::new(0));
    let slowly = |n: u64| {
        if n.is_multiple_of(50) {
            pause(); // so that timers come due among the records
        }
        n
    };
    let job = Job::new("delays");
    job.source("numbers", generator(3_000, slowly))
        .key_by(|n| n % KEYS)
        .process_with("delay", Delay { waiting: ListState::default(), rung: Arc::clone(&rung) })
        .map(move |n: u64| {
            let wanted = seen.load(Ordering::SeqCst);
            if wanted < 3 && n >= u64::from(wanted + 1) * 600 {
                seen.fetch_add(1, Ordering::SeqCst);
                panic!("planned");
            }
            n
        })
        .sink("out", out.clone());
    let graph = job.build().unwrap();
    let handle = spawn(graph, checkpointed(folder.path(), 2)).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert_eq!((failures.load(Ordering::SeqCst), handle.status().restarts), (3, 3));
    let rung = rung.load(Ordering::SeqCst);
    assert!(rung > 0, "{rung} timers fired among the records");
    assert!(sorted(out.take()).into_iter().eq(0..3_000));
}
