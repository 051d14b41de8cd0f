//! What the checkpointing mode decides, and what is left without checkpoints.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutwater::prelude::*;
use cutwater::{JobGraph, JobHandle, JobStatus, ReadStatus, Source, SourceOutput, SplitReader, spawn};
use cutwater_integration_tests::{Flights, assert_same_output, small_csv};

const KEYS: u64 = 16;
/// The fewest records of the split that is read fast, and of the one that is slow.
const FAST: u64 = 115_200;
const SLOW: u64 = 9_600;
const FAILURES: u64 = 3;
const ROUNDS: u64 = 4;
/// The longest that a job may take to its next failure: two checkpoints and a restart.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two splits of numbers. One is slow to read: while its reader sleeps, the barrier of its subtask waits, and records
/// of the other split run ahead of it. Neither ends before all planned failures have happened, however slow the disk
/// that the checkpoints in between wait for.
struct TwoSplits(Arc<Gate>);

/// What the test tells the splits, and they it.
#[derive(Default)]
struct Gate {
    may_end: AtomicBool,
    /// How many records each split had.
    ends: [AtomicU64; 2],
}

struct Split {
    gate: Arc<Gate>,
    place: usize,
    next: u64,
    least: u64,
    step: u64,
    pause: Duration,
}

impl Source for TwoSplits {
    type Record = u64;
    type Position = u64;
    type Reader = Split;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["fast".to_owned(), "slow".to_owned()])
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<Split, UserError> {
        let next = position.copied().unwrap_or(0);
        let gate = Arc::clone(&self.0);
        // A step is a multiple of the keys, so that each key is there equally often wherever the split ends.
        Ok(match split {
            "fast" => Split { gate, place: 0, next, least: FAST, step: 3 * KEYS, pause: Duration::from_micros(500) },
            _ => Split { gate, place: 1, next, least: SLOW, step: KEYS, pause: Duration::from_millis(4) },
        })
    }
}

impl SplitReader for Split {
    type Record = u64;
    type Position = u64;

    #[expect(clippy::disallowed_methods, reason = "the slowness of an input is what is played here")]
    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        std::thread::sleep(self.pause);
        if self.next >= self.least && self.gate.may_end.load(Ordering::SeqCst) {
            self.gate.ends[self.place].store(self.next, Ordering::SeqCst);
            return Ok(ReadStatus::End);
        }
        for _ in 0..self.step {
            out.emit(self.next);
            self.next += 1;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.next
    }
}

/// Counts by key; panics when told to, once each time.
fn counting(gate: &Arc<Gate>, out: &Collect<(u64, u64)>, panic: &Arc<AtomicBool>) -> JobGraph {
    let panic = Arc::clone(panic);
    let job = Job::new("counting");
    job.source("numbers", TwoSplits(Arc::clone(gate)))
        .key_by(|n| n % KEYS)
        .process("counts", move |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, _| {
            assert!(!panic.swap(false, Ordering::SeqCst), "planned");
            let count = cx.state()?;
            *count += 1;
            let count = *count;
            cx.emit((*cx.key(), count));
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

/// Runs the job with some failures, each after further checkpoints; returns the published rows and how many records
/// there were of each key.
fn run_with_failures(mode: CheckpointingMode) -> (Vec<(u64, u64)>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_millis(10))
        .checkpointing_mode(mode)
        .checkpoint_storage(folder.path().to_str().unwrap())
        .fixed_delay_restart(100, Duration::ZERO);
    let mut options = Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    (options.parallelism, options.workers) = (NonZeroU32::new(2).unwrap(), NonZeroUsize::new(2));
    let (gate, out, panic) = (Arc::new(Gate::default()), Collect::default(), Arc::new(AtomicBool::new(false)));
    let handle = spawn(counting(&gate, &out, &panic), options).unwrap();
    for failure in 1..=FAILURES {
        let before = handle.status().completed_checkpoints;
        wait_for(&format!("two checkpoints before failure {failure}"), &handle, |status| {
            status.completed_checkpoints >= before + 2
        });
        panic.store(true, Ordering::SeqCst);
        wait_for(&format!("failure {failure}"), &handle, |status| u64::from(status.restarts) >= failure);
    }
    gate.may_end.store(true, Ordering::SeqCst);
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    let status = handle.status();
    assert_eq!(u64::from(status.restarts), FAILURES);
    assert!(status.restored.is_some(), "the last restart went on from a checkpoint");
    let records: u64 = gate.ends.iter().map(|end| end.load(Ordering::SeqCst)).sum();
    assert!(records >= FAST + SLOW, "both splits have ended");
    (out.take(), records / KEYS)
}

#[expect(clippy::disallowed_methods, reason = "a job that hangs must not hang the tests")]
fn wait_for(what: &str, handle: &JobHandle, holds: impl Fn(&JobStatus) -> bool) {
    let start = Instant::now();
    while !holds(&handle.status()) {
        assert!(!handle.is_done(), "the job ended before {what}");
        assert!(
            start.elapsed() < PATIENCE,
            "no {what} within {PATIENCE:?}: is the disk so slow, or does the job hang?"
        );
        std::thread::yield_now();
    }
}

/// The last count of each key; every count up to it is there, as often as the job counted it.
fn counts(rows: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    let mut by_key: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (key, count) in rows {
        by_key.entry(*key).or_default().insert(*count);
    }
    for (key, counts) in &by_key {
        let last = counts.last().copied().unwrap_or(0);
        assert_eq!(counts.len() as u64, last, "key {key}: a count is missing");
    }
    by_key.into_iter().map(|(key, counts)| (key, counts.last().copied().unwrap_or(0))).collect()
}

#[test]
fn exactly_once_counts_each_record_once_whatever_fails() {
    for round in 0..ROUNDS {
        let (rows, exact) = run_with_failures(CheckpointingMode::ExactlyOnce);
        assert_eq!(rows.len() as u64, exact * KEYS, "round {round}: rows are missing or there twice");
        assert_eq!(counts(&rows), (0..KEYS).map(|key| (key, exact)).collect(), "round {round}");
    }
}

#[test]
fn at_least_once_loses_nothing_and_counts_some_records_twice() {
    let (mut more, mut records) = (0, 0);
    for round in 0..ROUNDS {
        let (rows, exact) = run_with_failures(CheckpointingMode::AtLeastOnce);
        let counts = counts(&rows);
        for key in 0..KEYS {
            let found = counts.get(&key).copied().unwrap_or(0);
            assert!(found >= exact, "round {round}: key {key} has {found} of {exact}");
            more += found - exact;
        }
        records += exact * KEYS;
    }
    println!("counted again: {more} of {records}");
    assert!(more > 0, "nothing was ever counted twice, so the mode made no difference");
}

#[test]
fn without_checkpoints_the_first_failure_ends_the_job() {
    let flights = Flights::with_data(&small_csv(2_000));
    let said = ["job flights failed after 0 restarts", "operator routes", "--crash-at asked for"];
    let _ended = flights.run("--interval 0 --crash-at 1000").with_code(3).saying(&said);
    assert_eq!(flights.published().len(), 0, "nothing of a job that failed is published");
    let again = flights.copy();
    let ended = again.run("--interval 0").with_code(0);
    assert!(ended.stdout.contains("finished: 2000 flights"), "what the failed run left is in the way: {ended}");

    // With checkpoints the same failure costs a restart.
    flights.write("job.yaml", "restart-strategy.type: fixed-delay\nrestart-strategy.fixed-delay.delay: 10 ms\n");
    let ended = flights.run("--interval 20ms --crash-at 1000 --config job.yaml").with_code(0);
    let ended = ended.saying(&["failed, restart 1 follows: operator routes, subtask 0, source record 1000: panic"]);
    assert!(ended.stdout.contains("1 restarts"), "{ended}");
    assert_same_output(&flights.output(), &again.output(), "with a failure and a restart");
}
