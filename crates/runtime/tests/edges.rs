//! Jobs with edges of every kind on the real runtime: run, fail, restart, compare with an undisturbed run.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::TaskId;
use cutwater_dataflow::{Collect, Job, JobGraph, OutputTag, ProcessContext, UserError, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{Failure, JobError, JobOutcome, JobState, Options, run, spawn, store_at};

const LONG: u64 = 40_000;
const SHORT: u64 = 3_000;
const KEYS: u64 = 100;

type Row = (u64, u64);

const TENTHS: OutputTag<Row> = OutputTag::new("tenths");

#[derive(Clone, Default)]
struct Outs {
    /// Key and running number over both inputs.
    numbered: Collect<Row>,
    /// The same, through a rebalance.
    spread: Collect<Row>,
    /// Every tenth of them, from a side output through a rebalance.
    tenths: Collect<Row>,
    /// The even records of the long input.
    even: Collect<u64>,
    /// Key, how many of the long and of the short input: when both are complete.
    joined: Collect<(u64, u64, u64)>,
    /// Records of the short input, from each subtask.
    everywhere: Collect<u64>,
}

/// What came out, in an order that does not depend on the schedule.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    numbered: BTreeMap<u64, Vec<u64>>,
    spread: BTreeMap<u64, Vec<u64>>,
    tenths: BTreeMap<u64, Vec<u64>>,
    even: Vec<u64>,
    joined: Vec<(u64, u64, u64)>,
    everywhere: Vec<u64>,
}

impl Outs {
    fn take(&self) -> Written {
        let rows = |out: &Collect<Row>| {
            let mut keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            out.take().into_iter().for_each(|(key, number)| keys.entry(key).or_default().push(number));
            keys.values_mut().for_each(|numbers| numbers.sort_unstable());
            keys
        };
        let (mut even, mut joined, mut everywhere) = (self.even.take(), self.joined.take(), self.everywhere.take());
        even.sort_unstable();
        joined.sort_unstable();
        everywhere.sort_unstable();
        everywhere.dedup(); // as often as there were subtasks, which a restart may change
        Written {
            numbered: rows(&self.numbered),
            spread: rows(&self.spread),
            tenths: rows(&self.tenths),
            even,
            joined,
            everywhere,
        }
    }
}

fn job(outs: &Outs, fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static) -> JobGraph {
    let job = Job::new("edges");
    let long = job.source("long", generator(LONG, |n| n)).fan_out();
    let short = job.source("short", generator(SHORT, |n| n)).fan_out();
    let numbered = long.branch().union(short.branch()).key_by(|n| n % KEYS).process(
        "number",
        move |cx: &mut ProcessContext<'_, u64, u64, Row>, n| {
            fault(n)?;
            *cx.state()? += 1;
            let number = *cx.state()?;
            let row = (*cx.key(), number);
            if number.is_multiple_of(10) {
                cx.emit_to(&TENTHS, row)?;
            }
            cx.emit(row);
            Ok(())
        },
    );
    numbered.side_output(&TENTHS).rebalance().sink("tenths", outs.tenths.clone());
    let numbered = numbered.fan_out();
    numbered.branch().sink("numbered", outs.numbered.clone());
    numbered.branch().rebalance().filter(|(_, number)| *number > 0).sink("spread", outs.spread.clone());
    long.branch().filter(|n| n % 2 == 0).sink("even", outs.even.clone());
    short.branch().broadcast().sink("everywhere", outs.everywhere.clone());
    type Context<'a, 'b> = &'a mut ProcessContext<'b, u64, (u64, u64), (u64, u64, u64)>;
    fn count(cx: Context<'_, '_>, long: u64, short: u64) -> Result<(), UserError> {
        let state = cx.state()?;
        *state = (state.0 + long, state.1 + short);
        let (long, short) = *state;
        if (long, short) == (LONG / KEYS, SHORT / KEYS) {
            cx.emit((*cx.key(), long, short));
        }
        Ok(())
    }
    let short = short.branch().map(|n| n.to_string()).key_by(|text| text.parse::<u64>().unwrap_or(0) % KEYS);
    long.branch()
        .key_by(|n| n % KEYS)
        .connect(short)
        .process(
            "join",
            |cx: Context<'_, '_>, _: u64| count(cx, 1, 0),
            |cx: Context<'_, '_>, _: String| count(cx, 0, 1),
        )
        .sink("joined", outs.joined.clone());
    job.build().unwrap()
}

fn undisturbed() -> Written {
    let per_key = (LONG + SHORT) / KEYS;
    let rows: BTreeMap<u64, Vec<u64>> = (0..KEYS).map(|key| (key, (1..=per_key).collect())).collect();
    Written {
        numbered: rows.clone(),
        spread: rows,
        tenths: (0..KEYS).map(|key| (key, (10..=per_key).step_by(10).collect())).collect(),
        even: (0..LONG).step_by(2).collect(),
        joined: (0..KEYS).map(|key| (key, LONG / KEYS, SHORT / KEYS)).collect(),
        everywhere: (0..SHORT).collect(),
    }
}

fn checkpointed(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 20, delay: Duration::ZERO });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

#[test]
fn a_run_without_failures_writes_what_is_expected() {
    for parallelism in 1..=4 {
        let outs = Outs::default();
        let mut options = Options::new();
        options.parallelism = NonZeroU32::new(parallelism).unwrap();
        assert_eq!(run(job(&outs, |_| Ok(())), options).unwrap(), JobOutcome::Finished);
        assert_eq!(outs.take(), undisturbed(), "parallelism {parallelism}");
    }
}

#[test]
fn a_job_that_panics_now_and_then_writes_the_same() {
    for parallelism in [1, 3, 4] {
        let folder = tempfile::tempdir().unwrap();
        let outs = Outs::default();
        let panics = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&panics);
        let graph = job(&outs, move |n| {
            let wanted = seen.load(Ordering::SeqCst);
            let is_due = wanted < 5 && n >= u64::from(wanted + 1) * 7_000;
            if is_due && seen.compare_exchange(wanted, wanted + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                panic!("planned");
            }
            Ok(())
        });
        let handle = spawn(graph, checkpointed(folder.path(), parallelism)).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        let status = handle.status();
        assert_eq!((status.state, panics.load(Ordering::SeqCst)), (JobState::Finished, 5), "{:?}", status.last_failure);
        // A subtask that is ahead may panic in the attempt that another has ended.
        assert!((1..=5).contains(&status.restarts), "{} restarts", status.restarts);
        assert_eq!(outs.take(), undisturbed(), "parallelism {parallelism}");
    }
}

#[test]
fn a_failure_behind_a_union_names_the_record_of_the_right_source() {
    let outs = Outs::default();
    let graph = job(&outs, |n| if n == 20_000 { Err("boom".into()) } else { Ok(()) });
    let error = run(graph, Options::new()).unwrap_err();
    let JobError::Failed { source, .. } = error else { panic!("{error:?}") };
    let Failure::Task(task) = &*source else { panic!("{source:?}") };
    let position = task.position.unwrap();
    assert_eq!((task.operator.as_str(), position.source.task, position.first), ("number", TaskId(0), 20_001), "{task}");
}

#[test]
fn a_job_stopped_in_the_middle_resumes_at_another_parallelism() {
    for (before, after) in [(1, 4), (4, 3), (3, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let outs = Outs::default();
        let open = Arc::new(AtomicBool::new(false));
        let graph = || {
            let open = Arc::clone(&open);
            job(&outs, move |n| match n >= 30_000 && !open.load(Ordering::SeqCst) {
                true => Err("the gate is closed".into()),
                false => Ok(()),
            })
        };
        let mut options = checkpointed(folder.path(), before);
        options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
        let handle = spawn(graph(), options).unwrap();
        while handle.status().restarts < 3 || handle.status().completed_checkpoints == 0 {
            std::thread::yield_now();
        }
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        open.store(true, Ordering::SeqCst);
        let handle = spawn(graph(), checkpointed(folder.path(), after)).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
        assert_eq!(outs.take(), undisturbed(), "{before} -> {after}");
    }
}

#[test]
fn a_branch_that_stands_stops_the_others_and_no_queue_grows() {
    let (count, opened) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let job = Job::new("slow");
    let numbers = job.source("numbers", generator(30_000, |n| [n; 16])).fan_out();
    let (fast, open) = (Arc::clone(&count), Arc::clone(&opened));
    numbers.branch().rebalance().map(move |_| fast.fetch_add(1, Ordering::SeqCst)).sink("fast", Collect::default());
    let slow = Collect::default();
    let wait = move |_| {
        while !open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    numbers.branch().rebalance().map(wait).sink("slow", slow.clone());
    let mut options = Options::new();
    options.workers = NonZeroUsize::new(3); // each task has its own, or the one that stands holds the source up
    options.task.window_bytes = 256 << 10;
    let handle = spawn(job.build().unwrap(), options).unwrap();
    let (_sender, nobody) = std::sync::mpsc::channel::<()>();
    let mut before = 0;
    loop {
        nobody.recv_timeout(Duration::from_millis(200)).unwrap_err();
        let now = count.load(Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    // A record is 136 bytes with its time. To the branch that stands go a window and a batch, and a quantum waits: more has
    // not been read, so that more can't have come to the other.
    assert!(u64::from(before) <= (256 << 10) / 136 + 2 * 1_024, "{before} records came to the fast branch");
    opened.store(true, Ordering::SeqCst);
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert_eq!((count.load(Ordering::SeqCst), slow.take().len()), (30_000, 30_000));
}

/// One `count` operator with its sink behind it: in the same task, or in one of its own.
fn counting(out: &Collect<(u64, u64)>, apart: bool, fail: &Arc<AtomicBool>) -> JobGraph {
    let fail = Arc::clone(fail);
    let job = Job::new("moved");
    let counts = job.source("numbers", generator(LONG, |n| n)).key_by(|n| n % KEYS).process(
        "count",
        move |cx: &mut ProcessContext<'_, u64, u64, Row>, n| {
            if n >= 30_000 && fail.load(Ordering::SeqCst) {
                return Err("not yet".into());
            }
            *cx.state()? += 1;
            let count = *cx.state()?;
            cx.emit((*cx.key(), count));
            Ok(())
        },
    );
    match apart {
        true => counts.rebalance().sink("out", out.clone()),
        false => counts.sink("out", out.clone()),
    }
    job.build().unwrap()
}

#[test]
fn an_exchange_may_come_between_operators_that_were_fused() {
    for (before, after) in [(false, true), (true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let out = Collect::default();
        let fail = Arc::new(AtomicBool::new(true));
        let mut options = checkpointed(folder.path(), 3);
        options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
        let handle = spawn(counting(&out, before, &fail), options.clone()).unwrap();
        while handle.status().restarts < 2 || handle.status().completed_checkpoints == 0 {
            std::thread::yield_now();
        }
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        fail.store(false, Ordering::SeqCst);
        let handle = spawn(counting(&out, after, &fail), options).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
        let mut rows = out.take();
        rows.sort_unstable();
        let expected: Vec<_> = (0..KEYS).flat_map(|key| (1..=LONG / KEYS).map(move |count| (key, count))).collect();
        assert_eq!(rows, expected, "apart: {before}, then {after}");
    }
}
