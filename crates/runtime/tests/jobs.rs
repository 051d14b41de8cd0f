//! Whole jobs on the real runtime: threads, Timely, a real folder.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cutwater_coordinator::{Settings, snapshot_name};
use cutwater_core::{
    Attempt, Barrier, CheckpointId, Epoch, MaxParallelism, SnapshotForm, SubtaskId, TaskId, Timestamp,
};
use cutwater_dataflow::{
    Collect, CollectWriter, CommitContext, Committer, Job, JobGraph, NonRecoverable, Prepared, ProcessContext, Sink,
    SinkContext, SinkWriter, UserError, generator,
};
use cutwater_restart::{GiveUp, Strategy};
use cutwater_runtime::{Failure, JobError, JobOutcome, JobState, Options, run, spawn, store_at};

const RECORDS: u64 = 40_000;
const KEYS: u64 = 100;

type Row = (u64, u64, u64); // key, running number of the key, sum

/// Numbers by key with a running count and sum; `fault` is called with each number.
fn counting(
    out: &Collect<Row>,
    fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static,
) -> JobGraph {
    let job = Job::new("counting");
    job.source("numbers", generator(RECORDS, |n| n))
        .key_by(|n| n % KEYS)
        .process("sums", move |cx: &mut ProcessContext<'_, u64, (u64, u64), Row>, n| {
            fault(n)?;
            let state = cx.state()?;
            state.0 += 1;
            state.1 += n;
            let (count, sum) = *state;
            cx.emit((*cx.key(), count, sum));
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

/// Every key has its rows 1, 2, 3, … once, and the right sum at the end.
fn assert_exact(rows: Vec<Row>) {
    let mut by_key: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for (key, count, sum) in rows {
        by_key.entry(key).or_default().push((count, sum));
    }
    assert_eq!(by_key.len() as u64, KEYS);
    for (key, mut rows) in by_key {
        rows.sort_unstable();
        let counts: Vec<_> = rows.iter().map(|(count, _)| *count).collect();
        assert_eq!(counts, (1..=RECORDS / KEYS).collect::<Vec<_>>(), "key {key}");
        let sum = (0..RECORDS / KEYS).map(|n| n * KEYS + key).sum::<u64>();
        assert_eq!(rows.last().unwrap().1, sum, "key {key}");
    }
}

fn checkpointed(folder: &std::path::Path) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 20, delay: Duration::ZERO });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(3).unwrap();
    options
}

#[test]
fn a_job_without_checkpoints_publishes_at_its_end() {
    for parallelism in 1..=4 {
        let out = Collect::default();
        let mut options = Options::new();
        options.parallelism = NonZeroU32::new(parallelism).unwrap();
        assert_eq!(run(counting(&out, |_| Ok(())), options).unwrap(), JobOutcome::Finished);
        assert_exact(out.take());
    }
}

#[test]
fn without_checkpoints_the_first_failure_ends_the_job() {
    let out = Collect::default();
    let graph = counting(&out, |n| if n == 20_000 { Err("boom".into()) } else { Ok(()) });
    let error = run(graph, Options::new()).unwrap_err();
    let JobError::Failed { restarts: 0, gave_up: GiveUp::NoStrategy, source, .. } = error else { panic!("{error:?}") };
    let Failure::Task(task) = &*source else { panic!("{source:?}") };
    assert_eq!((task.operator.as_str(), task.cause.to_string().as_str()), ("sums", "boom"));
    assert_eq!(task.position.unwrap().first, 20_001, "{task}");
    assert_eq!(out.take(), vec![], "nothing was published");
}

#[test]
fn a_job_that_panics_now_and_then_counts_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let panics = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&panics);
    let graph = counting(&out, move |n| {
        let wanted = seen.load(Ordering::SeqCst);
        if wanted < 5 && n == u64::from(wanted + 1) * 7_000 {
            seen.fetch_add(1, Ordering::SeqCst);
            panic!("planned");
        }
        Ok(())
    });
    let handle = spawn(graph, checkpointed(folder.path())).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert_eq!(panics.load(Ordering::SeqCst), 5);
    let status = handle.status();
    assert_eq!((status.state, status.restarts), (JobState::Finished, 5));
    let failure = status.last_failure.unwrap();
    assert!(failure.contains("operator sums") && failure.contains("planned"), "{failure}");
    assert!(failure.contains("tests/jobs.rs:"), "{failure}");
    assert_exact(out.take());
}

/// A sink whose first prepared output can't be synced, as on a disk that fails once.
struct FailsOnce {
    out: Collect<Row>,
    failed: Arc<AtomicBool>,
}

struct FailsOnceWriter {
    writer: CollectWriter<Row>,
    failed: Arc<AtomicBool>,
}

impl Sink<Row> for FailsOnce {
    type Writer = FailsOnceWriter;

    fn open(&self, context: &SinkContext) -> Result<FailsOnceWriter, UserError> {
        Ok(FailsOnceWriter { writer: self.out.open(context)?, failed: Arc::clone(&self.failed) })
    }

    fn committer(&self, context: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        self.out.committer(context)
    }
}

impl SinkWriter<Row> for FailsOnceWriter {
    fn write(&mut self, time: Option<Timestamp>, record: Row) -> Result<(), UserError> {
        self.writer.write(time, record)
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        let mut prepared = self.writer.prepare(checkpoint)?;
        for output in &mut prepared {
            let failed = Arc::clone(&self.failed);
            output.finish = Some(Box::new(move || match failed.swap(true, Ordering::SeqCst) {
                true => Ok(()),
                false => Err("the disk fails".into()),
            }));
        }
        Ok(prepared)
    }
}

#[test]
fn output_that_can_not_be_synced_is_replayed() {
    // A failed sync is never tried again, so no later checkpoint can have that output: were it only the checkpoint that
    // fails, and failures borne, none would ever complete again.
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let failed = Arc::new(AtomicBool::new(false));
    let job = Job::new("counting");
    job.source("numbers", generator(RECORDS, |n| n))
        .key_by(|n| n % KEYS)
        .fold("sums", (0, 0), |(count, sum): &mut (u64, u64), n: u64| {
            *count += 1;
            *sum += n;
        })
        .map(|(key, (count, sum))| (key, count, sum))
        .sink("out", FailsOnce { out: out.clone(), failed: Arc::clone(&failed) });
    let mut options = checkpointed(folder.path());
    options.checkpointing.tolerable_failures = u32::MAX;
    let handle = spawn(job.build().unwrap(), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert!(failed.load(Ordering::SeqCst));
    let status = handle.status();
    assert_eq!(status.restarts, 1, "{:?}", status.last_failure);
    assert!(status.last_failure.unwrap().contains("the disk fails"));
    assert_exact(out.take());
}

#[test]
fn a_job_resumed_without_its_setting_keeps_its_key_groups() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let panics = Arc::new(AtomicU32::new(0));
    let graph = || {
        let panics = Arc::clone(&panics);
        counting(&out, move |n| {
            let wanted = panics.load(Ordering::SeqCst);
            assert!(!(wanted < 4 && n == u64::from(wanted + 1) * 8_000 && panics.fetch_add(1, Ordering::SeqCst) < 4));
            Ok(())
        })
    };
    let mut options = checkpointed(folder.path());
    options.max_parallelism = Some(MaxParallelism::new(256).unwrap());
    options.restart = Some(Strategy::FixedDelay { attempts: 1, delay: Duration::ZERO });
    run(graph(), options.clone()).unwrap_err(); // the strategy gives up at the second panic
    options.max_parallelism = None;
    options.restart = Some(Strategy::FixedDelay { attempts: 9, delay: Duration::ZERO });
    let handle = spawn(graph(), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished, "it restarts from a checkpoint of its own");
    assert!(handle.status().restarts > 0);
    assert_exact(out.take());
}

#[test]
fn a_finished_job_is_not_run_twice() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let options = checkpointed(folder.path());
    assert_eq!(run(counting(&out, |_| Ok(())), options.clone()).unwrap(), JobOutcome::Finished);
    assert_exact(out.take());
    assert_eq!(run(counting(&out, |_| Ok(())), options).unwrap(), JobOutcome::AlreadyFinished);
    assert_eq!(out.take(), vec![]);
}

#[test]
fn a_cancelled_job_resumes_at_another_parallelism() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let graph = || {
        let open = Arc::clone(&open);
        counting(&out, move |n| match n >= 30_000 && !open.load(Ordering::SeqCst) {
            true => Err("the gate is closed".into()),
            false => Ok(()),
        })
    };
    let mut options = checkpointed(folder.path());
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    let handle = spawn(graph(), options.clone()).unwrap();
    while handle.status().restarts < 3 || handle.status().completed_checkpoints == 0 {
        std::thread::yield_now();
    }
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    gate.store(true, Ordering::SeqCst);
    options.parallelism = NonZeroU32::new(5).unwrap();
    let handle = spawn(graph(), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
    assert_exact(out.take());
}

#[test]
fn a_checkpoint_by_hand_is_durable_when_the_call_returns() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let graph = counting(&out, move |n| {
        while n == 30_000 && !open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(())
    });
    let mut options = checkpointed(folder.path());
    options.checkpointing.interval = None;
    let handle = spawn(graph, options).unwrap();
    while handle.status().state != JobState::Running {
        std::thread::yield_now();
    }
    gate.store(true, Ordering::SeqCst);
    let first = handle.checkpoint();
    if let Ok(checkpoint) = &first {
        assert!(folder.path().join("counting/log").join(format!("{:020}", checkpoint.slot)).exists());
    }
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert!(handle.checkpoint().is_err(), "the job has ended");
    assert_exact(out.take());
}

#[test]
fn an_error_that_no_retry_mends_ends_the_job_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let graph = counting(&out, |n| match n {
        5 => Err(NonRecoverable::new("the schema can never match").into()),
        _ => Ok(()),
    });
    let error = run(graph, checkpointed(folder.path())).unwrap_err();
    let JobError::Failed { restarts: 0, gave_up: GiveUp::NonRecoverable, .. } = error else { panic!("{error:?}") };
}

#[test]
fn the_strategy_gives_up_after_its_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let mut options = checkpointed(folder.path());
    options.restart = Some(Strategy::FixedDelay { attempts: 3, delay: Duration::from_millis(1) });
    let error = run(counting(&out, |n| if n == 5 { Err("always".into()) } else { Ok(()) }), options).unwrap_err();
    let JobError::Failed { restarts: 3, gave_up: GiveUp::AttemptsExhausted { attempts: 3 }, .. } = error else {
        panic!("{error:?}")
    };
}

#[test]
fn whoever_comes_later_stops_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let graph = || {
        let open = Arc::clone(&open);
        counting(&out, move |n| match n >= 30_000 && !open.load(Ordering::SeqCst) {
            true => Err("the gate is closed".into()),
            false => Ok(()),
        })
    };
    let mut options = checkpointed(folder.path());
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    let first = spawn(graph(), options.clone()).unwrap();
    while first.status().completed_checkpoints == 0 {
        std::thread::yield_now();
    }
    let second = spawn(graph(), options).unwrap();
    while second.status().epoch.is_none() {
        std::thread::yield_now();
    }
    gate.store(true, Ordering::SeqCst);
    let first_end = first.wait();
    assert!(matches!(first_end, Err(JobError::Superseded { .. })), "{first_end:?}");
    assert_eq!(second.wait().unwrap(), JobOutcome::Finished);
    assert_exact(out.take());
}

#[test]
fn a_job_cancelled_at_once_ends_at_once() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let handle = spawn(counting(&Collect::default(), |_| Ok(())), checkpointed(folder.path())).unwrap();
        handle.cancel();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        assert_eq!(handle.status().state, JobState::Canceled);
    }
}

#[test]
fn a_start_deletes_the_files_that_a_killed_run_left() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let open = Arc::new(AtomicBool::new(false));
    let graph = || {
        let open = Arc::clone(&open);
        counting(&out, move |n| match n >= 30_000 && !open.load(Ordering::SeqCst) {
            true => Err("the gate is closed".into()),
            false => Ok(()),
        })
    };
    let mut options = checkpointed(folder.path());
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    let first = spawn(graph(), options.clone()).unwrap();
    while first.status().completed_checkpoints == 0 {
        std::thread::yield_now();
    }
    first.cancel();
    assert_eq!(first.wait().unwrap(), JobOutcome::Canceled);
    let snapshots = folder.path().join("counting/chk");
    std::fs::create_dir_all(&snapshots).unwrap(); // the first checkpoint may have had no state yet, and so no file
    let place = |epoch| {
        let (epoch, checkpoint) = (Epoch(epoch), CheckpointId(1_000_000));
        let barrier = Barrier { epoch, attempt: Attempt(1), checkpoint, base: None, form: SnapshotForm::Configured };
        let name = snapshot_name(barrier, SubtaskId { task: TaskId(1), index: 0 });
        let path = folder.path().join("counting").join(name);
        std::fs::write(&path, "half a snap").unwrap();
        path
    };
    let (orphan, own, later) = (place(1), place(2), place(3));
    let notes = snapshots.join("notes.txt");
    std::fs::write(&notes, "of the user").unwrap();

    let second = spawn(graph(), options).unwrap();
    while orphan.exists() {
        std::thread::yield_now();
    }
    open.store(true, Ordering::SeqCst);
    assert_eq!(second.wait().unwrap(), JobOutcome::Finished);
    assert_eq!(second.status().epoch, Some(Epoch(2)));
    assert_exact(out.take());
    for kept in [own, later, notes] {
        assert!(kept.exists(), "{}", kept.display());
    }
}

#[test]
fn a_folder_that_can_not_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "in the way").unwrap();
    let error = run(counting(&Collect::default(), |_| Ok(())), checkpointed(&file)).unwrap_err();
    let JobError::Store { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains(file.to_str().unwrap()), "{source}");
}

/// Sources that take long for each batch share their workers with what comes behind them, which gets batches from both.
#[test]
fn a_barrier_does_not_wait_behind_ever_more_batches_of_slow_sources() {
    let (out, folder) = (Collect::default(), tempfile::tempdir().unwrap());
    let mut options = Options::new();
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store_at(folder.path().to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(2).unwrap();
    options.task.read_records = 10;
    let slowly = |n| {
        pause(Duration::from_millis(1));
        n
    };
    let job = Job::new("slow");
    job.source("numbers", generator(u64::MAX, slowly))
        .key_by(|n| n % KEYS)
        .fold("counts", 0_u64, |count, _| *count += 1)
        .sink("out", out.clone());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    while handle.status().records_in < 3_000 {
        pause(Duration::from_millis(10));
    }
    let took = handle.checkpoint().unwrap().duration;
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    // In the 1.5 s before, twice as many batches have come as there were turns of their receivers.
    assert!(took < Duration::from_millis(500), "the barrier needed {took:?}");
}

#[expect(clippy::disallowed_methods, reason = "it is to last")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
