//! Windows in whole jobs that fail and go on at other parallelisms.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::Timestamp;
use cutwater_dataflow::{Aggregate, Collect, Job, JobGraph, LateCount, Window, Windows, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{JobOutcome, Options, run, spawn, store_at};

const RECORDS: u64 = 20_000;
const KEYS: u64 = 40;

/// One record each 10 ms, and a pause of 5 s after each 700.
fn time(n: u64) -> Timestamp {
    Timestamp((n * 10 + n / 700 * 5_000) as i64)
}

#[derive(Clone)]
struct CountAndSum;

impl Aggregate<u64> for CountAndSum {
    type Accumulator = (u64, u64);
    type Out = (u64, u64);

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, (count, sum): &mut (u64, u64), n: u64) {
        (*count, *sum) = (*count + 1, *sum + n);
    }

    fn merge(&self, (count, sum): &mut (u64, u64), other: (u64, u64)) {
        (*count, *sum) = (*count + other.0, *sum + other.1);
    }

    fn result(&self, of: &(u64, u64)) -> (u64, u64) {
        *of
    }
}

type Row = (u64, Window, (u64, u64));

fn windowed(
    windows: Windows,
    keep_records: bool,
    late: &LateCount,
    out: &Collect<Row>,
    fault: impl Fn(u64) + Clone + Send + Sync + 'static,
) -> JobGraph {
    let job = Job::new("windows");
    let keyed = job
        .source("numbers", generator(RECORDS, |n| n).event_time(time))
        .map(move |n: u64| {
            fault(n);
            n
        })
        .key_by(|n| n % KEYS);
    let windowed = keyed.window(windows).count_late(late);
    match keep_records {
        true => windowed
            .process("windows", |key: &u64, window, records: &[&u64]| {
                [(*key, window, (records.len() as u64, records.iter().copied().sum::<u64>()))]
            })
            .sink("out", out.clone()),
        false => windowed.aggregate("windows", CountAndSum).sink("out", out.clone()),
    }
    job.build().unwrap()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_unstable();
    rows
}

#[expect(clippy::disallowed_methods, reason = "the job must last until it is stopped")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn windows_survive_failures_and_other_parallelisms() {
    let seconds = Duration::from_secs;
    let kinds = [
        ("tumbling", Windows::tumbling(seconds(7)).offset(300)),
        ("sliding", Windows::sliding(seconds(12), seconds(5))),
        ("sessions", Windows::sessions(seconds(2))),
    ];
    for (name, windows) in kinds {
        let (late, undisturbed) = (LateCount::default(), Collect::default());
        let graph = windowed(windows, false, &late, &undisturbed, |_| ());
        assert_eq!(run(graph, Options::new()).unwrap(), JobOutcome::Finished);
        let expected = sorted(undisturbed.take());
        let counted: u64 = expected.iter().map(|(_, _, (count, _))| count).sum();
        match name {
            "sliding" => assert!(counted > 2 * RECORDS, "{counted}"),
            _ => assert_eq!(counted, RECORDS, "{name}"),
        }

        for keep_records in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let out = Collect::default();
            let (panics, open) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
            let graph = || {
                let (panics, open) = (Arc::clone(&panics), Arc::clone(&open));
                windowed(windows, keep_records, &late, &out, move |n| {
                    let wanted = panics.load(Ordering::SeqCst);
                    if wanted < 1 && n == 8_000 {
                        panics.fetch_add(1, Ordering::SeqCst);
                        panic!("planned");
                    }
                    if n >= 15_000 && !open.load(Ordering::SeqCst) {
                        pause(); // so that it is stopped before its end
                    }
                })
            };
            let options = |parallelism| {
                let mut options = Options::new();
                let interval = Some(Duration::from_millis(2));
                options.checkpointing = Settings { interval, enabled: true, ..Settings::default() };
                options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
                options.store = Some(store_at(folder.path().to_str().unwrap()).unwrap());
                options.parallelism = NonZeroU32::new(parallelism).unwrap();
                options
            };
            let handle = spawn(graph(), options(2)).unwrap();
            let has_state = || handle.status().last_checkpoint.is_some_and(|checkpoint| checkpoint.bytes > 1_000);
            while handle.status().restarts < 1 || !has_state() {
                assert!(!handle.is_done(), "it ended before it could be stopped: {:?}", handle.status());
                std::thread::yield_now();
            }
            handle.cancel();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
            open.store(true, Ordering::SeqCst);
            let handle = spawn(graph(), options(3)).unwrap();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
            assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
            assert!(sorted(out.take()) == expected, "{name}, records kept: {keep_records}: the output differs");
        }
        assert_eq!(late.get(), 0, "{name}");
    }
}
