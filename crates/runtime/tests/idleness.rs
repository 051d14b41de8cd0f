//! A source that says nothing, beside one that does.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::Timestamp;
use cutwater_dataflow::{
    Collect, Job, JobGraph, ReadStatus, Source, SourceOutput, SplitReader, UserError, Windows, folding,
};
use cutwater_runtime::{JobHandle, JobOutcome, Options, spawn, store_at};

/// Emits so many records, one a second of event time, and stays open until it is told to end.
#[derive(Clone)]
struct Stays {
    records: u64,
    end: Arc<AtomicBool>,
}

struct Reader {
    source: Stays,
    next: u64,
}

impl Source for Stays {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["all".to_owned()])
    }

    fn open(&self, _: &str, position: Option<&u64>) -> Result<Reader, UserError> {
        Ok(Reader { source: self.clone(), next: position.copied().unwrap_or(0) })
    }

    fn parallelism_limit(&self) -> u32 {
        1
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        while self.next < self.source.records {
            let time = Timestamp(self.next as i64 * 1_000);
            out.emit_at(time, self.next);
            out.watermark(Timestamp(time.0 - 1));
            self.next += 1;
        }
        match self.source.end.load(Ordering::SeqCst) {
            true => Ok(ReadStatus::End),
            false => Ok(ReadStatus::WaitUntil(out.now() + Duration::from_millis(1))),
        }
    }

    fn position(&self) -> u64 {
        self.next
    }
}

type Row = (u64, i64, u64);

/// Counts both sources in windows of 10 s.
fn job(out: &Collect<Row>, end: &Arc<AtomicBool>, idleness: Option<Duration>) -> JobGraph {
    let job = Job::new("idleness");
    let speaks = job.source("speaks", Stays { records: 95, end: Arc::clone(end) });
    let silent = job.source("silent", Stays { records: 0, end: Arc::clone(end) });
    let silent = match idleness {
        Some(idleness) => silent.idleness(idleness),
        None => silent,
    };
    speaks
        .union(silent)
        .key_by(|n| n % 2)
        .window(Windows::tumbling(Duration::from_secs(10)))
        .aggregate("counts", folding(|| 0_u64, |count: &mut u64, _: u64| *count += 1, |count, other| *count += other))
        .map(|(key, window, count)| (key, window.start, count))
        .sink("out", out.clone());
    job.build().unwrap()
}

fn start(graph: JobGraph) -> JobHandle {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.store = Some(store_at("memory:").unwrap());
    options.parallelism = 2.try_into().unwrap();
    spawn(graph, options).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "asks again and again, until a state that must come")]
fn nap() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Ends both sources; the rest of what is published.
fn end(handle: &JobHandle, ends: &AtomicBool, out: &Collect<Row>) -> Vec<Row> {
    ends.store(true, Ordering::SeqCst);
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    out.take()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_unstable();
    rows
}

/// The windows that begin before `until`.
fn windows(until: i64) -> Vec<Row> {
    let count = |start: i64| if start == 90_000 { [3, 2] } else { [5, 5] };
    let both = |start: i64| [0, 1].map(|key: u64| (key, start, count(start)[key as usize]));
    sorted((0..until).step_by(10_000).flat_map(both).collect())
}

#[test]
fn without_idleness_windows_wait_for_a_silent_source_and_with_it_they_close() {
    let (out, ends) = (Collect::default(), Arc::new(AtomicBool::new(false)));
    let handle = start(job(&out, &ends, None));
    while handle.status().records_in < 95 {
        nap();
    }
    let before = handle.status().completed_checkpoints;
    while handle.status().completed_checkpoints < before + 10 {
        nap(); // each would publish what has come out
    }
    assert_eq!(out.take(), [], "windows wait for the silent source");
    assert_eq!(sorted(end(&handle, &ends, &out)), windows(100_000), "its end closes them");

    let (out, ends) = (Collect::default(), Arc::new(AtomicBool::new(false)));
    let handle = start(job(&out, &ends, Some(Duration::from_millis(20))));
    let mut closed = Vec::new();
    while closed.len() < windows(90_000).len() {
        assert!(!handle.is_done(), "{:?}", handle.wait());
        closed.extend(out.take());
        nap();
    }
    assert_eq!(sorted(closed), windows(90_000), "all but the last, which is not over");
    let last = windows(100_000).into_iter().filter(|(_, start, _)| *start == 90_000).collect::<Vec<_>>();
    assert_eq!(sorted(end(&handle, &ends, &out)), last);
}
