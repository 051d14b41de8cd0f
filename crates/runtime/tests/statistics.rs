//! What the status and the folder of checkpoints tell of checkpoints and failures, with disks that fail and hang.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::{Attempt, Epoch, Moment};
use cutwater_dataflow::{Collect, Job, JobGraph, UserError, generator};
use cutwater_restart::{GiveUp, Strategy};
use cutwater_runtime::{
    CheckpointKind, CheckpointStatus, Clock, FailureDecision, JobHandle, JobOutcome, Options, StopMode,
    is_statistics_name, job_folder, open_checkpoint, read_statistics, spawn, store_at,
};
use cutwater_storage::{LocalFolder, ObjectName, Store};

/// Numbers without end, counted by key; `fault` is asked about each.
fn counts(fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % 10)
        .process("sums", move |cx: &mut cutwater_dataflow::ProcessContext<'_, u64, u64, u64>, n| {
            fault(n)?;
            *cx.state()? += 1;
            Ok(())
        })
        .sink("out", Collect::<u64>::default());
    job.build().unwrap()
}

/// Checkpoints by hand only, in two subtasks.
fn options(store: Arc<dyn Store>) -> Options {
    let mut options = Options::new();
    options.inline_threshold = 0; // files are what it looks at
    options.checkpointing = Settings { tolerable_failures: u32::MAX, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 2, delay: Duration::from_millis(1) });
    options.store = Some(store);
    options.parallelism = NonZeroU32::new(2).unwrap();
    options
}

/// Waits until it is so, for a minute at most.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let clock = Clock::new();
    while !is_so() {
        assert!(clock.now().since(Moment::ZERO) < Duration::from_secs(60), "in vain: {what}");
        std::thread::yield_now();
    }
}

fn running(options: Options) -> JobHandle {
    let handle = spawn(counts(|_| Ok(())), options).unwrap();
    wait_until("a record", || handle.status().records_in > 0);
    handle
}

fn in_folder(folder: &Path) -> Arc<dyn Store> {
    store_at(folder.to_str().unwrap()).unwrap()
}

fn stored(folder: &Path) -> Vec<String> {
    let all = job_folder(in_folder(folder), "counts").list("").unwrap();
    all.into_iter().map(|found| found.name.to_string()).filter(|name| is_statistics_name(name)).collect()
}

#[test]
fn completed_and_failed_checkpoints_are_told_and_outlive_the_job_and_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let steps = move |_, path: &Path| match path.components().any(|part| part.as_os_str() == "chk") {
        true if disk.load(Ordering::SeqCst) => Err(io::ErrorKind::StorageFull.into()),
        true | false => Ok(()),
    };
    let store = LocalFolder::new(folder.path().join("checkpoints")).with_steps(Arc::new(steps));
    let handle = running(options(Arc::new(store.clone())));
    handle.checkpoint().unwrap();
    full.store(true, Ordering::SeqCst);
    handle.checkpoint().unwrap_err();
    full.store(false, Ordering::SeqCst);
    let savepoint = handle.savepoint(Some(folder.path().join("savepoints").to_str().unwrap())).unwrap();
    handle.stop_with_checkpoint(StopMode::Drain).unwrap();
    assert!(matches!(handle.wait().unwrap(), JobOutcome::Stopped { .. }));

    let history = handle.status().checkpoints;
    let counts = history.counts();
    assert_eq!((counts.restored, counts.in_progress, counts.completed, counts.failed), (0, 0, 3, 1));
    let told: Vec<_> = history.checkpoints().map(|it| (it.checkpoint.0, it.kind, it.status)).collect();
    let expected = [
        (4, CheckpointKind::Last, CheckpointStatus::Completed),
        (3, CheckpointKind::Savepoint, CheckpointStatus::Completed),
        (2, CheckpointKind::Checkpoint, CheckpointStatus::Failed),
        (1, CheckpointKind::Checkpoint, CheckpointStatus::Completed),
    ];
    assert_eq!(told, expected);
    let failed = history.latest(CheckpointStatus::Failed).unwrap();
    assert!(failed.failure.as_deref().unwrap().contains("declined"), "{failed:?}");
    assert_eq!((failed.metadata_bytes, failed.total_subtasks), (None, 4));
    let first = history.checkpoints().last().unwrap();
    assert_eq!((first.epoch, first.attempt, first.total_subtasks, first.subtasks.len()), (Epoch(1), Attempt(1), 4, 4));
    assert!(first.triggered_at_unix_ms > 1_700_000_000_000 && first.duration > Duration::ZERO, "{first:?}");
    let keyed: Vec<_> = first.subtasks.iter().filter(|subtask| subtask.files > 0).collect();
    assert_eq!((keyed.len() as u64, first.files), (2, 2), "{first:?}");
    assert!(
        keyed.iter().all(|it| it.task.contains("sums") && it.asynchronous > Duration::ZERO && it.written_bytes > 0)
    );
    assert_eq!(first.written_bytes, first.subtasks.iter().map(|it| it.written_bytes).sum::<u64>());
    let record = history.checkpoints().next().unwrap().metadata_bytes.unwrap();
    let checkpoint = open_checkpoint(store.path().to_str().unwrap()).unwrap().0;
    let object = ObjectName::parse(&format!("counts/{}", cutwater_coordinator::inspect::slot_name(checkpoint.slot)));
    assert_eq!(store.read(&object.unwrap(), 1 << 20).unwrap().unwrap().len() as u64, record);
    let summary = history.summary().unwrap();
    assert_eq!((summary.checkpoints, summary.duration.max >= summary.duration.p50), (3, true));

    // The job is gone, its statistics are not, and they are not in the savepoint.
    let found = read_statistics(job_folder(Arc::new(store.clone()), "counts").as_ref()).unwrap().unwrap();
    assert_eq!(found.history.counts(), counts);
    assert!(found.history.checkpoints().eq(history.checkpoints()));
    let copied = in_folder(Path::new(&savepoint.location)).list("").unwrap();
    assert!(!copied.is_empty() && copied.iter().all(|found| !is_statistics_name(found.name.as_str())), "{copied:?}");

    // Another process goes on from them, and keeps one object.
    let mut options = options(Arc::new(store.clone()));
    options.checkpointing.allow_rewind = true;
    options.history.checkpoints = 3;
    options.from = cutwater_runtime::StartFrom::Path(savepoint.location);
    let handle = running(options);
    wait_until("the history of before", || handle.status().checkpoints.counts().completed >= 3);
    handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();
    let history = handle.status().checkpoints;
    let counts = history.counts();
    assert_eq!((counts.restored, counts.completed, counts.failed, counts.total()), (1, 4, 1, 5));
    let epochs: Vec<_> = history.checkpoints().map(|it| it.epoch.0).collect();
    assert_eq!(epochs, [2, 1, 1], "the newest three");
    let names = stored(store.path());
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("statistics/00000000000000000002-"), "{names:?}");
}

#[test]
fn statistics_that_cannot_be_kept_are_in_nobodys_way() {
    #[derive(Clone, Copy, Debug)]
    enum Disk {
        Fails,
        Hangs,
    }
    for disk in [Disk::Fails, Disk::Hangs] {
        let folder = tempfile::tempdir().unwrap();
        let (release, released) = channel::<()>();
        let released = std::sync::Mutex::new(released);
        let met = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&met);
        let steps = move |_, path: &Path| {
            if !path.components().any(|part| part.as_os_str() == "statistics") {
                return Ok(());
            }
            seen.fetch_add(1, Ordering::SeqCst);
            match disk {
                Disk::Fails => {}
                Disk::Hangs => drop(released.lock().unwrap().recv()), // until the test ends
            }
            Err(io::ErrorKind::PermissionDenied.into())
        };
        let store = LocalFolder::new(folder.path()).with_steps(Arc::new(steps));
        let handle = running(options(Arc::new(store)));
        for _ in 0..5 {
            handle.checkpoint().unwrap();
        }
        handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
        handle.wait().unwrap();
        let status = handle.status();
        assert_eq!((status.completed_checkpoints, status.restarts), (6, 0), "{disk:?}");
        assert_eq!(status.checkpoints.counts().completed, 6, "{disk:?}");
        assert!(met.load(Ordering::SeqCst) > 0, "{disk:?}: it was tried");
        assert_eq!(stored(folder.path()), [""; 0], "{disk:?}");
        drop(release);
    }
}

#[test]
fn statistics_that_somebody_else_wrote_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let own = job_folder(in_folder(folder.path()), "counts");
    let name = ObjectName::parse("statistics/00000000000000000000-00000000000000000001.json").unwrap();
    own.create(&name, b"{\"schema\":\"cutwater.statistics/1\",").unwrap();
    let handle = running(options(in_folder(folder.path())));
    handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();
    assert_eq!(read_statistics(own.as_ref()).unwrap().unwrap().history.counts().completed, 1);
    assert_eq!(stored(folder.path()), ["statistics/00000000000000000001-00000000000000000001.json"]);
}

#[test]
fn the_status_tells_the_newest_failures_and_what_was_decided() {
    let failures = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&failures);
    let graph = counts(move |n| match n {
        5_000.. => Err(format!("no {}", seen.fetch_add(1, Ordering::SeqCst)).into()),
        _ => Ok(()),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(in_folder(folder.path()));
    options.history.failures = 2;
    let handle = spawn(graph, options).unwrap();
    handle.wait().unwrap_err();
    let records = handle.status().failures;
    let decisions: Vec<_> = records.iter().map(|it| (it.attempt.0, it.decision.clone().unwrap())).collect();
    let gave_up = FailureDecision::GaveUp { reason: GiveUp::AttemptsExhausted { attempts: 2 } };
    let restart = FailureDecision::Restart { after: Duration::from_millis(1) };
    assert_eq!(decisions, [(3, gave_up), (2, restart)], "newest first, two of three");
    for record in records {
        assert_eq!((record.operator.as_deref(), record.code, record.epoch), (Some("sums"), "JOB0001", Some(Epoch(1))));
        assert!(record.error.contains(": no ") && record.subtask.is_some(), "{record:?}");
        assert!(
            record.position.is_some_and(|at| at.source.task.0 == 0 && (1..=at.last).contains(&at.first)),
            "{record:?}"
        );
        assert!(record.at_unix_ms > 1_700_000_000_000, "{record:?}");
    }
}
