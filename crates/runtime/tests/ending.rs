//! What becomes of checkpoints when a job ends, damaged checkpoints, and jobs that do not get on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::disallowed_methods,
    reason = "real threads, a slow source, and deadlines by the clock of the machine"
)]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutwater_config::{Config, ExternalizedCheckpointRetention as Configured, Settings as Builder};
use cutwater_coordinator::ExternalizedCheckpointRetention::{self, DeleteOnCancellation, NoExternalizedCheckpoints};
use cutwater_coordinator::{Outcome, Settings};
use cutwater_dataflow::{Collect, Job, JobGraph, ProcessContext, UserError, generator};
use cutwater_restart::{GiveUp, NoProgress, Strategy};
use cutwater_runtime::{
    JobError, JobHandle, JobOutcome, OnNoProgress, OpenCheckpointError, Options, StopMode, open_checkpoint, run, spawn,
    store_at,
};

const KEYS: u64 = 10;
/// Too many for a slow source to end within a test.
const RECORDS: u64 = 200_000;

type Row = (u64, u64); // key, running number of the key

/// Counts numbers by key; `fault` is called with each number. The source is slow from a number on, so that a job can be
/// caught while it runs.
fn counting_slowly(
    records: u64,
    slow_from: u64,
    out: &Collect<Row>,
    fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static,
) -> JobGraph {
    let job = Job::new("counting");
    let paced = move |n| {
        if n >= slow_from {
            std::thread::sleep(Duration::from_millis(1));
        }
        n
    };
    job.source("numbers", generator(records, paced))
        .key_by(|n| n % KEYS)
        .process("counts", move |cx: &mut ProcessContext<'_, u64, u64, Row>, n| {
            fault(n)?;
            let count = cx.state()?;
            *count += 1;
            let count = *count;
            cx.emit((*cx.key(), count));
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

fn counting(
    records: u64,
    out: &Collect<Row>,
    fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static,
) -> JobGraph {
    counting_slowly(records, u64::MAX, out, fault)
}

fn options(folder: &Path) -> Options {
    let mut options = Options::new();
    options.inline_threshold = 0; // files are what it looks at
    // Checkpoints by hand, so that a test knows which there are.
    options.checkpointing = Settings { interval: None, enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 100, delay: Duration::ZERO });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(2).unwrap();
    options.task.read_records = 20;
    options
}

fn keeping(folder: &Path, retention: ExternalizedCheckpointRetention) -> Options {
    let mut options = options(folder);
    options.checkpointing.externalized_checkpoint_retention = retention;
    options
}

/// The snapshot files of the job, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("counting/chk")).map(|entries| entries.collect::<Vec<_>>());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default().into_iter().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn until(handle: &JobHandle, what: &str, is: impl Fn(&JobHandle) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is(handle) {
        assert!(Instant::now() < deadline, "{what}: {:?}", handle.status());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every key has its rows 1, 2, 3, … once.
fn assert_once(rows: Vec<Row>, records: u64) {
    let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (key, count) in rows {
        by_key.entry(key).or_default().push(count);
    }
    for (key, mut counts) in by_key {
        counts.sort_unstable();
        assert_eq!(counts, (1..=records / KEYS).collect::<Vec<_>>(), "key {key}");
    }
}

#[test]
fn a_cancelled_job_whose_checkpoints_went_with_it_begins_from_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let handle = spawn(
        counting_slowly(100_000, 500, &Collect::default(), |_| Ok(())),
        keeping(folder.path(), DeleteOnCancellation),
    )
    .unwrap();
    until(&handle, "it runs", |handle| handle.status().records_in >= 500);
    handle.checkpoint().unwrap();
    assert!(!files(folder.path()).is_empty());
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    assert!(files(folder.path()).is_empty());
    let error = open_checkpoint(folder.path().to_str().unwrap()).err().unwrap();
    assert!(matches!(error, OpenCheckpointError::NoCheckpoint { .. }), "{error}");

    let out = Collect::default();
    let handle = spawn(counting(1_000, &out, |_| Ok(())), keeping(folder.path(), DeleteOnCancellation)).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    let status = handle.status();
    assert_eq!((status.discarded, status.restored), (Some(Outcome::Canceled), None));
    assert_once(out.take(), 1_000);
    assert!(files(folder.path()).is_empty(), "nor does one that has finished leave any");
    let again = run(counting(1_000, &Collect::default(), |_| Ok(())), keeping(folder.path(), DeleteOnCancellation));
    assert_eq!(again.unwrap(), JobOutcome::AlreadyFinished);
}

#[test]
fn a_savepoint_outlives_the_checkpoints_of_its_job_and_the_job_goes_on_from_it() {
    let (folder, savepoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = Collect::default();
    let handle =
        spawn(counting_slowly(RECORDS, 1_000, &out, |_| Ok(())), keeping(folder.path(), NoExternalizedCheckpoints))
            .unwrap();
    until(&handle, "it runs", |handle| handle.status().records_in >= 1_000);
    let taken = handle.stop_with_savepoint(savepoints.path().to_str(), StopMode::Suspend).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Stopped { savepoint: Some(taken.location.clone()) });
    assert!(files(folder.path()).is_empty());
    let mut options = keeping(folder.path(), NoExternalizedCheckpoints);
    options.from = cutwater_runtime::StartFrom::Path(taken.location);
    assert_eq!(run(counting(RECORDS, &out, |_| Ok(())), options).unwrap(), JobOutcome::Finished);
    assert_once(out.take(), RECORDS);
}

/// A job with two checkpoints, the newer one of which is damaged by `damage`, and which is started again.
fn with_damage(folder: &Path, out: &Collect<Row>, damage: impl Fn(&Path)) -> Options {
    let mut options = options(folder);
    options.checkpointing.num_retained = NonZeroU32::new(2).unwrap();
    let handle = spawn(counting_slowly(RECORDS, 300, out, |_| Ok(())), options.clone()).unwrap();
    until(&handle, "it runs", |handle| handle.status().records_in >= 300);
    handle.checkpoint().unwrap();
    let older = files(folder);
    until(&handle, "it goes on", |handle| handle.status().records_in >= 320);
    handle.checkpoint().unwrap();
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    let newer: Vec<_> = files(folder).into_iter().filter(|file| !older.contains(file)).collect();
    damage(newer.first().expect("the newer checkpoint has a file"));
    options.checkpointing.fall_back = true;
    options
}

#[test]
fn a_job_goes_back_past_a_damaged_checkpoint_if_that_is_wanted_and_tells_what_comes_again() {
    let truncate = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let flip = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    };
    type Case<'a> = (&'static str, &'a dyn Fn(&Path), &'static str);
    let cases: [Case<'_>; 3] = [
        ("a file is gone", &|file| fs::remove_file(file).unwrap(), "is missing"),
        ("a file is cut", &truncate, "the checkpoint names"),
        ("a byte is another", &flip, "damaged"),
    ];
    for (name, damage, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let out = Collect::default();
        let options = with_damage(folder.path(), &out, damage);
        let mut unwanted = options.clone();
        unwanted.checkpointing.fall_back = false;
        let error = run(counting(RECORDS, &out, |_| Ok(())), unwanted).unwrap_err();
        assert!(["RST0004", "RST0006"].contains(&error.code()), "{name}: {error:?}");

        let handle = spawn(counting(RECORDS, &out, |_| Ok(())), options).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished, "{name}");
        let told = handle.status().fell_back.unwrap();
        assert_eq!((told.bad.0, told.restored.0), (2, 1), "{name}");
        assert!(told.reason.contains(reason), "{name}: {}", told.reason);
        let source = &told.replayed[0];
        assert_eq!(source.operator.as_str(), "numbers");
        assert!(source.after >= 300 && source.to > source.after, "{name}: {told}");
        assert_eq!(handle.status().restarts, 0, "{name}: no restart strategy was asked");
        // Nothing is lost; what came between the two was published once more.
        let mut rows = out.take();
        let all = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert!(all > rows.len(), "{name}: {all}");
        assert_once(rows, RECORDS);
    }
}

#[test]
fn what_is_not_damage_is_no_reason_to_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = with_damage(folder.path(), &Collect::default(), |_| ());
    // The checkpoint is whole, and does not fit the job: the older one would not either.
    let job = Job::new("counting");
    job.source("other", generator(10, |n| n)).sink("out", Collect::<u64>::default());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    let error = handle.wait().unwrap_err();
    assert_eq!(error.code(), "RST0001", "{error:?}");
    assert_eq!(handle.status().fell_back, None);
}

#[test]
fn to_go_back_two_checkpoints_must_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.checkpointing.fall_back = true;
    let Err(error) = spawn(counting(10, &Collect::default(), |_| Ok(())), options) else { panic!("accepted") };
    let text = error.to_string();
    let keys = ["cutwater.state-recovery.fall-back", "execution.checkpointing.num-retained"];
    assert!(keys.iter().all(|key| text.contains(key)), "{text}");
    assert_eq!(error.code(), "JOB0006");
}

fn poison(n: u64) -> Result<(), UserError> {
    if n == 700 { panic!("this record can't be processed") } else { Ok(()) }
}

#[test]
fn a_poisoned_job_is_told_to_make_no_progress_or_stopped_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.on_no_progress = OnNoProgress::Stop;
    let handle = spawn(counting(RECORDS, &Collect::default(), poison), options.clone()).unwrap();
    let error = handle.wait().unwrap_err();
    assert_eq!(error.code(), "JOB0008", "{error:?}");
    let JobError::Failed { gave_up, restarts: 2, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*gave_up, GiveUp::NoProgress { attempts: 3 });
    assert_eq!(source.code(), "JOB0001", "the failure itself is behind it");
    // Of a record that was being processed each time.
    let Some(NoProgress::SameFailure { site, times: 3 }) = handle.status().no_progress else { panic!("{error:?}") };
    assert_eq!(site.operator, "counts");
    assert!(site.class.contains("tests/ending.rs:"), "{site:?}");
    assert!(site.position.as_ref().is_some_and(|at| at.first <= at.last), "{site:?}");
    // The same command, which only reports, goes on as its strategy says.
    options.on_no_progress = OnNoProgress::Report;
    let handle = spawn(counting(RECORDS, &Collect::default(), poison), options).unwrap();
    until(&handle, "it is told", |handle| handle.status().no_progress.is_some());
    assert!(!handle.is_done());
    until(&handle, "it restarts", |handle| handle.status().restarts > 5);
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
}

#[test]
fn a_job_that_fails_often_and_gets_on_is_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.checkpointing.interval = Some(Duration::from_millis(2));
    options.on_no_progress = OnNoProgress::Stop;
    let out = Collect::default();
    let (completed, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, failed, last) = (Arc::clone(&completed), Arc::clone(&failures), Arc::new(AtomicU64::new(0)));
    let graph = counting_slowly(100_000, 0, &out, move |_| {
        // Now and then, and only where checkpoints have been since the last time. One of the subtasks, not both at once: that
        // would be two failures and one restart.
        let (now, before) = (seen.load(Ordering::SeqCst), last.load(Ordering::SeqCst));
        let due = failed.load(Ordering::SeqCst) < 6 && now >= before + 4;
        if due && last.compare_exchange(before, now, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            failed.fetch_add(1, Ordering::SeqCst);
            return Err("now and then".into());
        }
        Ok(())
    });
    let handle = spawn(graph, options).unwrap();
    until(&handle, "it fails and gets on", |handle| {
        completed.store(handle.status().completed_checkpoints, Ordering::SeqCst);
        let enough = failures.load(Ordering::SeqCst) == 6 && handle.status().restarts == 6;
        enough || handle.is_done()
    });
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    assert_eq!(handle.status().no_progress, None);
}

#[test]
fn the_settings_come_from_the_configuration() {
    let settings = Builder::new()
        .enable_checkpointing(Duration::from_secs(1))
        .num_retained_checkpoints(2)
        .externalized_checkpoint_retention(Configured::NoExternalizedCheckpoints)
        .fall_back_past_damaged_checkpoints(true)
        .stop_without_progress(4);
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    assert_eq!(options.checkpointing.externalized_checkpoint_retention, NoExternalizedCheckpoints);
    assert!(options.checkpointing.fall_back);
    assert_eq!((options.on_no_progress, options.no_progress_attempts.get()), (OnNoProgress::Stop, 4));
}
