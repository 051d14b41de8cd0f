//! Savepoints, and jobs that stop behind them, on the real runtime.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutwater_config::{Config, Settings};
use cutwater_coordinator::AbortReason;
use cutwater_core::OperatorUid;
use cutwater_dataflow::{Collect, Job, JobGraph, ProcessContext, Source, UserError, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{
    ClaimMode, IgnoreUnclaimed, JobError, JobHandle, JobOutcome, Options, OptionsError, SavepointError, StartFrom,
    StopMode, StoreResolver, job_folder, open_checkpoint, run, spawn, store_at,
};
use cutwater_storage::{MemoryStore, Store};

const KEYS: u64 = 100;

type Row = (u64, u64, u64); // key, running number of the key, sum

fn counting_from(
    name: &str,
    source: impl Source<Record = u64>,
    out: &Collect<Row>,
    fails: &Arc<AtomicBool>,
) -> JobGraph {
    let fails = Arc::clone(fails);
    let job = Job::new(name);
    job.source("numbers", source)
        .key_by(|n| n % KEYS)
        .process("sums", move |cx: &mut ProcessContext<'_, u64, (u64, u64), Row>, n| {
            if fails.swap(false, Ordering::SeqCst) {
                return Err(UserError::from("planned"));
            }
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

/// Counts without end.
fn counting(name: &str, out: &Collect<Row>) -> JobGraph {
    counting_from(name, generator(u64::MAX, |n| n), out, &Arc::default())
}

fn options(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = cutwater_coordinator::Settings {
        interval: Some(Duration::from_millis(5)),
        enabled: true,
        ..cutwater_coordinator::Settings::default()
    };
    options.restart = Some(Strategy::FixedDelay { attempts: 20, delay: Duration::ZERO });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.savepoints = Some(folder.join("savepoints").to_str().unwrap().to_owned());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

#[expect(clippy::disallowed_methods, reason = "asks again and again, until a state that must come")]
fn nap() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Until so many checkpoints have completed.
fn let_run(handle: &JobHandle, checkpoints: u64) {
    while handle.status().completed_checkpoints < checkpoints {
        assert!(!handle.is_done(), "{:?}", handle.wait());
        nap();
    }
}

/// What was published is a beginning of the input, each record once. Returns how many records.
fn assert_beginning(rows: &[Row]) -> usize {
    let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (key, count, _) in rows {
        by_key.entry(*key).or_default().push(*count);
    }
    for (key, mut counts) in by_key {
        counts.sort_unstable();
        assert_eq!(counts, (1..=counts.len() as u64).collect::<Vec<_>>(), "key {key}");
    }
    rows.len()
}

fn from(location: &str) -> StartFrom {
    let (checkpoint, store) = open_checkpoint(location).unwrap();
    StartFrom::Checkpoint(Box::new(checkpoint), store)
}

/// Stops a job behind a savepoint; where that is, and what was published.
fn stopped(folder: &Path, out: &Collect<Row>) -> (String, Vec<Row>) {
    let handle = spawn(counting("counting", out), options(folder, 2)).unwrap();
    let_run(&handle, 2);
    let taken = handle.stop_with_savepoint(None, StopMode::Suspend).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Stopped { savepoint: Some(taken.location.clone()) });
    let rows = out.take();
    assert!(assert_beginning(&rows) > 0 && !taken.savepoint.checkpoint.is_drained());
    (taken.location, rows)
}

#[test]
fn a_stopped_job_goes_on_from_its_savepoint_and_from_its_own_folder_and_loses_and_repeats_nothing() {
    // By the same command as before, and at another parallelism; from the savepoint, and by that command again.
    for from_savepoint in [false, true] {
        let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
        let (savepoint, mut rows) = stopped(folder.path(), &out);
        for parallelism in [2, 3] {
            let mut options = options(folder.path(), parallelism);
            options.from = if from_savepoint { from(&savepoint) } else { StartFrom::Latest };
            let before = rows.len();
            let handle = spawn(counting("counting", &out), options).unwrap();
            let_run(&handle, 2);
            handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Stopped { savepoint: None });
            rows.extend(out.take());
            assert!(assert_beginning(&rows) > before, "from the savepoint: {from_savepoint}");
        }
    }
}

#[test]
fn a_savepoint_below_what_was_published_is_refused() {
    let (folder, out) = (tempfile::tempdir().unwrap(), Collect::default());
    let (savepoint, _) = stopped(folder.path(), &out);
    let handle = spawn(counting("counting", &out), options(folder.path(), 2)).unwrap();
    let_run(&handle, 1);
    handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
    handle.wait().unwrap();
    let mut options = options(folder.path(), 2);
    options.from = from(&savepoint);
    let handle = spawn(counting("counting", &out), options).unwrap();
    let error = handle.wait().unwrap_err();
    assert_eq!(error.code(), "LOG0001", "{error:?}");
}

#[test]
fn a_savepoint_is_self_contained_and_can_be_moved_and_starts_another_job_at_another_parallelism() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let handle = spawn(counting("counting", &out), options(&folder.path().join("a"), 3)).unwrap();
    let_run(&handle, 1);
    let taken = handle.savepoint(Some(folder.path().join("mine").to_str().unwrap())).unwrap();
    let_run(&handle, taken.savepoint.checkpoint.checkpoint.0 + 3); // it goes on
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    drop(out.take());

    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    let made = std::fs::read_dir(folder.path().join("mine")).unwrap().next().unwrap().unwrap().path();
    let moved = folder.path().join("elsewhere");
    std::fs::rename(made, &moved).unwrap();
    for parallelism in [1, 2, 5] {
        let mut options = options(&folder.path().join(format!("b{parallelism}")), parallelism);
        options.from = from(moved.to_str().unwrap());
        let out = Collect::default();
        let handle = spawn(counting("another", &out), options).unwrap();
        let_run(&handle, 2);
        handle.cancel();
        handle.wait().unwrap();
        let rows = out.take();
        // Counts go on where the savepoint has them: the first row of each key says how many came before.
        let firsts: BTreeMap<u64, u64> = rows.iter().rev().map(|(key, count, _)| (*key, *count)).collect();
        let before: u64 = firsts.values().map(|count| count - 1).sum();
        assert!(before > 0, "parallelism {parallelism}");
        assert_eq!(firsts.len() as u64, KEYS);
    }
}

#[test]
fn a_drained_job_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let handle = spawn(counting("counting", &out), options(folder.path(), 2)).unwrap();
    let_run(&handle, 1);
    let taken = handle.stop_with_savepoint(None, StopMode::Drain).unwrap();
    assert!(matches!(handle.wait().unwrap(), JobOutcome::Stopped { .. }));
    assert!(taken.savepoint.checkpoint.is_drained() && taken.savepoint.checkpoint.is_final());
    assert!(assert_beginning(&out.take()) > 0);
    let again = run(counting("counting", &out), options(folder.path(), 2)).unwrap();
    assert_eq!((again, out.take()), (JobOutcome::AlreadyFinished, vec![]));
}

#[test]
fn without_a_place_or_a_checkpoint_there_is_no_savepoint_and_the_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let mut nowhere = options(folder.path(), 1);
    nowhere.savepoints = None;
    let handle = spawn(counting("counting", &out), nowhere).unwrap();
    let_run(&handle, 1);
    assert!(matches!(handle.savepoint(None), Err(SavepointError::NoFolder)));
    assert!(matches!(handle.savepoint(Some("ftp://host/x")), Err(SavepointError::Location(_))));

    // A file stands where the folder should be.
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, b"x").unwrap();
    let blocked = blocked.to_str().unwrap();
    assert!(matches!(handle.savepoint(Some(blocked)), Err(SavepointError::NotCopied { .. })));
    let error = handle.stop_with_savepoint(Some(blocked), StopMode::Suspend).unwrap_err();
    assert!(matches!(error, SavepointError::NotCopied { .. }), "{error}");
    let_run(&handle, handle.status().completed_checkpoints + 3);
    handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
    assert!(assert_beginning(&out.take()) > 0);
    assert!(matches!(handle.savepoint(Some("anywhere")), Err(SavepointError::Ended)));
    handle.wait().unwrap();

    let mut off = Options::new();
    off.savepoints = Some(folder.path().to_str().unwrap().to_owned());
    let handle = spawn(counting("off", &out), off).unwrap();
    while handle.status().records_in == 0 {
        nap();
    }
    let error = handle.savepoint(None).unwrap_err();
    assert!(matches!(error, SavepointError::NotTaken(AbortReason::Disabled)), "{error}");
    handle.cancel();
    handle.wait().unwrap();
}

/// Savepoints and stops at any moment, while the job fails again and again.
#[test]
fn a_job_that_fails_meanwhile_stops_in_the_end_and_its_output_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (out, fails) = (Collect::default(), Arc::new(AtomicBool::new(false)));
    let graph = || counting_from("counting", generator(u64::MAX, |n| n), &out, &fails);
    let mut rows = Vec::new();
    for _ in 0..10 {
        let handle = spawn(graph(), options(folder.path(), 2)).unwrap();
        let_run(&handle, 1);
        let mut failures = 0;
        loop {
            fails.store(failures < 3, Ordering::SeqCst);
            failures += 1;
            match handle.stop_with_savepoint(None, StopMode::Suspend) {
                Ok(_) => break,
                Err(SavepointError::NotStopped { .. } | SavepointError::NotTaken(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(matches!(handle.wait().unwrap(), JobOutcome::Stopped { savepoint: Some(_) }));
        rows.extend(out.take());
        assert_beginning(&rows);
    }
}

#[test]
fn a_configuration_says_where_savepoints_go_and_where_a_job_starts() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let resolve = |settings: Settings| Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    let base = || Settings::new().enable_checkpointing(Duration::from_millis(10));
    let first = base().checkpoint_storage(&place("a")).set("state.savepoints.dir", place("savepoints"));
    let handle = spawn(counting("counting", &Collect::default()), resolve(first)).unwrap();
    let_run(&handle, 1);
    let taken = handle.stop_with_savepoint(None, StopMode::Suspend).unwrap();
    assert!(taken.location.contains("/savepoints/savepoint-counting-"), "{}", taken.location);

    let start = |claim: &str, ignore: &str, to: &str| {
        let settings = base()
            .checkpoint_storage(&place(to))
            .set("execution.state-recovery.path", &taken.location)
            .set("execution.state-recovery.claim-mode", claim)
            .set("execution.state-recovery.ignore-unclaimed-state", ignore);
        spawn(passing("passing", "counts"), resolve(settings))
    };
    let error = start("NO_CLAIM", "false", "b").unwrap().wait().unwrap_err();
    assert_eq!(error.code(), "RST0001", "{error}");
    let handle = start("CLAIM", "true", "c").unwrap();
    let_run(&handle, 2);
    handle.cancel();
    handle.wait().unwrap();
    let error = start("NO_CLAIM", "true", "d").map(drop).unwrap_err();
    assert_eq!(error.code(), "OPN0001", "it was claimed: {error}");
}

/// The numbers without sums: an operator fewer.
fn passing(name: &str, uid: &str) -> JobGraph {
    let job = Job::new(name);
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % KEYS)
        .fold(uid, 0u64, |count, _| *count += 1)
        .sink("out", Collect::<(u64, u64)>::default());
    job.build().unwrap()
}

#[test]
fn state_that_no_operator_claims_is_refused_with_its_size_unless_it_is_dropped_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let handle = spawn(counting("counting", &Collect::default()), options(&folder.path().join("a"), 2)).unwrap();
    let_run(&handle, 1);
    let taken = handle.stop_with_savepoint(None, StopMode::Suspend).unwrap();
    let start = |ignore: IgnoreUnclaimed, to: &str| {
        let mut options = options(&folder.path().join(to), 2);
        (options.from, options.ignore_unclaimed) = (from(&taken.location), ignore);
        spawn(passing("passing", "counts"), options).unwrap()
    };
    let uid = |uid: &str| OperatorUid::new(uid).unwrap();
    for (at, ignore) in [IgnoreUnclaimed::No, IgnoreUnclaimed::Of([uid("numbers")].into())].into_iter().enumerate() {
        let error = start(ignore, &format!("b{at}")).wait().unwrap_err();
        let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ");
        assert!(text.contains("it holds state of sums (") && text.contains(" bytes), which the job has not"), "{text}");
    }
    for (at, ignore) in [IgnoreUnclaimed::All, IgnoreUnclaimed::Of([uid("sums")].into())].into_iter().enumerate() {
        let handle = start(ignore, &format!("c{at}"));
        let_run(&handle, 1);
        assert_eq!(handle.status().new_operators, [uid("counts")]);
        handle.cancel();
        handle.wait().unwrap();
    }
}

#[test]
fn a_claimed_savepoint_goes_once_the_job_has_checkpoints_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let handle = spawn(counting("counting", &Collect::default()), options(&folder.path().join("a"), 2)).unwrap();
    let_run(&handle, 1);
    let taken = handle.stop_with_savepoint(None, StopMode::Suspend).unwrap();
    for (claim, stays) in [(ClaimMode::NoClaim, true), (ClaimMode::Claim, false)] {
        let mut options = options(&folder.path().join(format!("{claim:?}")), 2);
        (options.from, options.claim) = (from(&taken.location), claim);
        let handle = spawn(counting("another", &Collect::default()), options).unwrap();
        let_run(&handle, 3);
        handle.cancel();
        handle.wait().unwrap();
        assert_eq!(open_checkpoint(&taken.location).is_ok(), stays, "{claim:?}");
    }
    // Only a savepoint can be claimed.
    let mut options = options(&folder.path().join("b"), 2);
    let (checkpoint, store) = open_checkpoint(folder.path().join("a").to_str().unwrap()).unwrap();
    (options.from, options.claim) = (StartFrom::Checkpoint(Box::new(checkpoint), store), ClaimMode::Claim);
    let error = spawn(counting("another", &Collect::default()), options).map(drop).unwrap_err().to_string();
    assert!(error.contains("is no savepoint, so it can't be claimed"), "{error}");
}

/// One memory for all jobs and as long as the resolver lives, which [`store_at`] does not offer; nothing at other places.
fn shared_memory() -> StoreResolver {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    StoreResolver::new(move |url| match url.strip_prefix("memory:").map(|folder| folder.trim_matches('/')) {
        Some("") => Ok(Arc::clone(&memory)),
        Some(folder) => Ok(job_folder(Arc::clone(&memory), folder)),
        None => Err(OptionsError::Unresolved { url: url.to_owned(), reason: "give memory:FOLDER".to_owned() }),
    })
}

#[test]
fn checkpoints_and_savepoints_lie_in_stores_of_the_users_own() {
    let settings =
        Settings::new().enable_checkpointing(Duration::from_millis(10)).checkpoint_storage("memory:checkpoints");
    let config = Config::new().code(settings).resolve().unwrap();
    let options = Options::from_config_with_stores(&config, shared_memory()).unwrap();
    let out = Collect::default();
    let handle = spawn(counting("counting", &out), options.clone()).unwrap();
    let_run(&handle, 2);
    let error = handle.savepoint(Some("/tmp")).unwrap_err();
    assert!(matches!(&error, SavepointError::Location(error) if error.code() == "OPT0002"), "{error}");
    let taken = handle.stop_with_savepoint(Some("memory:saved"), StopMode::Suspend).unwrap();
    handle.wait().unwrap();
    assert!(taken.location.starts_with("memory:/saved/savepoint-counting-"), "{}", taken.location);
    let published = out.take();
    let before = assert_beginning(&published);

    for (from, expected) in
        [(taken.location.as_str(), None), ("memory:nothing", Some("OPN0001")), ("/tmp", Some("OPT0002"))]
    {
        let options = Options { from: StartFrom::Path(from.to_owned()), ..options.clone() };
        match (spawn(counting("other", &out), options), expected) {
            (Ok(handle), None) => {
                let_run(&handle, 1);
                handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
                handle.wait().unwrap();
                assert!(assert_beginning(&[published.clone(), out.take()].concat()) > before);
            }
            (Err(JobError::Open { source, .. }), Some(code)) => assert_eq!(source.code(), code, "{from}"),
            (found, _) => panic!("{from}: {:?}", found.map(drop)),
        }
    }
    // The same command goes on from the folder of the configuration.
    let handle = spawn(counting("counting", &out), options).unwrap();
    let_run(&handle, 1);
    assert!(handle.status().restored.is_some());
    handle.cancel();
    handle.wait().unwrap();
}
