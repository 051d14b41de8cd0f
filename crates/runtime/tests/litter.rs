//! What a checkpoint had stored that came to nothing is deleted, by the job that stored it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use cutwater_coordinator::inspect::{LogEntryKind, read_slot, slot_of};
use cutwater_coordinator::{AbortReason, Settings, native_number};
use cutwater_dataflow::{Job, JobGraph, discard, generator};
use cutwater_memory::MemoryBackend;
use cutwater_runtime::{JobHandle, JobOutcome, LocalRecovery, Options, open_checkpoint, spawn, store_at};
use cutwater_state::{AttachedTier, Capabilities, ColdError, ModelTier, StateBackend, TierOwner};
use cutwater_storage::{
    CreateError, Listed, ObjectName, ObjectReader, ObjectWriter, Store, StoreError, StoreErrorKind, Written,
};
use cutwater_task::DeltaLimits;

const KEYS: u64 = 2_000;

/// State in a tier, whose images have a file for every eighth key group.
#[derive(Debug)]
struct Model;

const FILES: usize = 16;

impl StateBackend for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { cold_tier: true, images: true }
    }

    fn open_tier(&self, _: &TierOwner) -> Result<Option<AttachedTier>, ColdError> {
        Ok(Some(AttachedTier { tier: Arc::new(ModelTier::with_groups_in_file(8)), overlay_bytes: 16 << 10 }))
    }
}

/// What becomes of files.
#[derive(Debug, Default)]
struct Plan {
    /// This file of a checkpoint can't be stored, counted as they come to their end; from 1, 0: all can.
    fails: usize,
    /// How many have come to it.
    finished: usize,
    /// Files whose names have this in them wait at their end.
    holds: Option<&'static str>,
    /// Files whose names have this in them fail, as soon as others wait.
    refuses: Option<&'static str>,
    /// How many were begun, how many of them wait, and how many of those have come to an end.
    begun: usize,
    held: usize,
    let_go: usize,
    /// The log says that the job has ended.
    ended: bool,
}

/// A folder whose files fail or wait as they are told.
#[derive(Clone)]
struct Told {
    store: Arc<dyn Store>,
    plan: Arc<(Mutex<Plan>, Condvar)>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Told {
    fn new(folder: &tempfile::TempDir) -> Self {
        Self { store: store_at(folder.path().to_str().unwrap()).unwrap(), plan: Arc::default() }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan());
        self.plan.1.notify_all();
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&Plan) -> bool) {
        let waited = self.plan.1.wait_timeout_while(self.plan(), Duration::from_secs(60), |plan| !is_so(plan));
        let (plan, waited) = waited.unwrap();
        assert!(!waited.timed_out(), "{what}: {plan:?}");
    }

    /// The files of checkpoints that are there.
    fn files(&self) -> BTreeSet<String> {
        let names = self.store.list("").unwrap().into_iter().map(|listed| listed.name.as_str().to_owned());
        names.filter_map(|name| Some(format!("chk/{}", name.split_once("/chk/")?.1))).collect()
    }
}

impl Store for Told {
    fn url(&self) -> String {
        self.store.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.store.create(name, bytes)?;
        let of_job = name.as_str().split_once('/').unwrap().1;
        if slot_of(of_job).is_some() && matches!(read_slot(of_job, bytes).unwrap().kind, LogEntryKind::Ended { .. }) {
            self.change(|plan| plan.ended = true);
        }
        Ok(())
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.store.open(name)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.change(|plan| {
            plan.begun += usize::from(native_number(name.as_str().split_once('/').unwrap().1).is_some())
        });
        Ok(Box::new(Writer { writer: self.store.writer(name)?, told: self.clone(), name: name.clone() }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }
}

#[derive(Debug)]
struct Writer {
    writer: Box<dyn ObjectWriter>,
    told: Told,
    name: ObjectName,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Written, StoreError> {
        let is = |of: &Option<&str>| of.is_some_and(|of| self.name.as_str().contains(of));
        let mut plan = self.told.plan();
        plan.finished += 1;
        let (fails, refuses, holds) = (plan.finished == plan.fails, is(&plan.refuses), is(&plan.holds));
        drop(plan);
        if refuses {
            self.told.wait_until("another is held", |plan| plan.held > 0);
        }
        if fails || refuses {
            return Err(StoreError::new(StoreErrorKind::Other, "finish", String::new(), self.name.as_str()));
        }
        if holds {
            self.told.change(|plan| plan.held += 1);
            self.told.wait_until("somebody lets go", |plan| plan.holds.is_none());
        }
        let finished = self.writer.finish();
        self.told.change(|plan| plan.let_go += usize::from(holds));
        finished
    }
}

fn counts(records: u64) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(records, |n| n))
        .key_by(|n| n % KEYS)
        .fold("count", 0_u64, |count, _| *count += 1)
        .sink("out", discard());
    job.build().unwrap()
}

/// All files are objects, and those of a tier are stored as they are.
fn options(store: &Told, parallelism: u32, backend: Arc<dyn StateBackend>) -> Options {
    let mut options = Options::new();
    options.inline_threshold = 0;
    options.checkpointing = Settings { enabled: true, tolerable_failures: 1_000, ..Settings::default() };
    options.store = Some(Arc::new(store.clone()));
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.task.deltas = Some(DeltaLimits::default());
    options.backend = backend;
    options
}

fn wait_for_records(handle: &JobHandle) {
    while handle.status().records_in < 4 * KEYS {
        std::thread::yield_now();
    }
}

/// The files of the newest checkpoint; none if there is none.
fn named(folder: &tempfile::TempDir) -> BTreeSet<String> {
    let Ok((checkpoint, _)) = open_checkpoint(folder.path().join("counts").to_str().unwrap()) else {
        return BTreeSet::new();
    };
    checkpoint.stored_files().map(|file| file.name.clone()).collect()
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool, what: impl FnOnce() -> String) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{}", what());
}

/// What was stored in vain goes while the job runs on.
#[track_caller]
fn assert_goes(store: &Told, expected: &BTreeSet<String>, what: &str) {
    wait_until(|| store.files() == *expected, || format!("{what}: {:?}, and not {expected:?}", store.files()));
}

/// The copies below a folder of this machine.
fn copies(folder: &tempfile::TempDir) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder.path().join("counts/chk")).unwrap();
    entries.map(|entry| format!("chk/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

#[test]
fn of_a_checkpoint_one_of_whose_files_can_not_be_stored_nothing_is_left() {
    let (folder, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Told::new(&folder);
    let mut options = options(&store, 1, Arc::new(Model));
    options.local = LocalRecovery { backup: true, from_local: true, dirs: vec![local.path().to_owned()] };
    let handle = spawn(counts(u64::MAX), options).unwrap();
    wait_for_records(&handle);
    // That of the count, those of its tier, and the index of those.
    for fails in 1..=FILES + 2 {
        let before = named(&folder);
        store.change(|plan| (plan.fails, plan.finished) = (fails, 0));
        let failed = handle.checkpoint().expect_err("one of its files can't be stored");
        assert!(failed.to_string().contains("declined"), "{failed}");
        assert_goes(&store, &before, &format!("file {fails} has failed"));
        if fails.is_multiple_of(4) {
            store.change(|plan| plan.fails = 0);
            handle.checkpoint().expect("all of its files can be stored");
            assert_goes(&store, &named(&folder), &format!("after file {fails} had failed"));
        }
    }
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    assert_eq!(store.files(), named(&folder));
    let is_tidy = || copies(&local).is_subset(&named(&folder)); // copies are made beside
    wait_until(is_tidy, || format!("{:?} are copied", copies(&local)));
}

#[test]
fn an_image_that_is_given_up_is_not_stored_to_its_end_and_leaves_nothing() {
    for cancelled in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = Told::new(&folder);
        let mut options = options(&store, 1, Arc::new(Model));
        options.checkpointing.timeout = Duration::from_secs(1);
        let handle = spawn(counts(u64::MAX), options).unwrap();
        wait_for_records(&handle);
        store.change(|plan| plan.holds = Some(".native"));
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| handle.checkpoint());
            store.wait_until("files are on their way", |plan| plan.held > 0);
            if cancelled {
                handle.cancel();
                store.wait_until("the job ends", |plan| plan.ended);
            }
            asked.join().unwrap().expect_err("it was given up");
        });
        let held = store.plan().begun;
        assert!((1..FILES).contains(&held), "{held}");
        store.change(|plan| plan.holds = None);
        if !cancelled {
            assert_goes(&store, &BTreeSet::new(), "it has expired");
            assert_eq!(store.plan().begun, held, "others were begun");
            while let Err(reason) = handle.checkpoint() {
                assert!(matches!(reason, AbortReason::Expired { .. }), "{reason}"); // a slow machine
            }
            handle.cancel();
        }
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        assert_eq!(store.files(), named(&folder), "cancelled: {cancelled}");
        assert!(!cancelled || store.plan().begun == held, "others were begun");
    }
}

/// One subtask can't store its snapshot, and while another still stores its own the job comes to its end.
#[test]
fn a_snapshot_that_is_stored_when_the_job_has_ended_is_deleted_before_it_is_over() {
    for (form, backend) in
        [("canonical", Arc::new(MemoryBackend) as Arc<dyn StateBackend>), ("native", Arc::new(Model))]
    {
        let folder = tempfile::tempdir().unwrap();
        let store = Told::new(&folder);
        let handle = spawn(counts(u64::MAX), options(&store, 2, backend)).unwrap();
        wait_for_records(&handle);
        handle.checkpoint().expect("nothing is in its way");
        // Checkpoint, task and subtask.
        store.change(|plan| plan.refuses = Some("-0000000002-0001-00001"));
        store.change(|plan| plan.holds = Some("-0000000002-0001-00000"));
        handle.checkpoint().expect_err("one subtask can't store its snapshot");
        assert_eq!(store.plan().held, 1, "{form}: the other is about to");
        handle.cancel();
        store.wait_until("the job ends", |plan| plan.ended);
        store.change(|plan| plan.holds = None);
        assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        store.wait_until("it is stored", |plan| plan.let_go == 1);
        assert_eq!(store.files(), named(&folder), "{form}");
        assert!(!named(&folder).is_empty(), "{form}");
    }
}
