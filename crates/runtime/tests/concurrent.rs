//! Several checkpoints in flight, over a store that is slow.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::{Settings, checkpoint_of_snapshot};
use cutwater_core::CheckpointId;
use cutwater_dataflow::{Collect, Job, ProcessContext, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{JobOutcome, Options, spawn};
use cutwater_storage::{
    CreateError, Listed, MemoryStore, ObjectName, ObjectReader, ObjectWriter, Store, StoreError, Written,
};
use cutwater_task::DeltaLimits;

#[expect(clippy::disallowed_methods, reason = "it is to last")]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// The checkpoints whose files are being written, and how many those were at the most.
#[derive(Debug, Default)]
struct Open {
    now: BTreeSet<(CheckpointId, String)>,
    most: usize,
}

/// Takes its time to finish a file.
#[derive(Debug)]
struct Slow {
    store: MemoryStore,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct SlowWriter {
    writer: Box<dyn ObjectWriter>,
    open: Arc<Mutex<Open>>,
    of: (CheckpointId, String),
}

impl Store for Slow {
    fn url(&self) -> String {
        self.store.url()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.store.create(name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.store.open(name)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let writer = self.store.writer(name)?;
        let of_job = name.as_str().split_once('/').unwrap().1;
        let of = (checkpoint_of_snapshot(of_job).unwrap(), of_job.to_owned());
        let mut open = self.open.lock().unwrap();
        open.now.insert(of.clone());
        // An attempt that failed may still be writing when the next one begins.
        let attempt = |name: &str| name.rsplit_once('-').map(|(_, attempt)| attempt.to_owned());
        let own = open.now.iter().filter(|(_, name)| attempt(name) == attempt(&of.1));
        let now = own.map(|(checkpoint, _)| checkpoint).collect::<BTreeSet<_>>().len();
        open.most = open.most.max(now);
        Ok(Box::new(SlowWriter { writer, open: Arc::clone(&self.open), of }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }
}

impl ObjectWriter for SlowWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.writer.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Written, StoreError> {
        pause(30);
        self.open.lock().unwrap().now.remove(&self.of);
        self.writer.finish()
    }
}

const RECORDS: u64 = 3_000;

/// Runs a job that fails twice; returns how many checkpoints wrote at the same time at the most.
fn run(max_concurrent: u32, deltas: bool) -> usize {
    let open = Arc::new(Mutex::new(Open::default()));
    let mut options = Options::new();
    options.inline_threshold = 0; // files are what it looks at
    options.checkpointing = Settings {
        interval: Some(Duration::from_millis(10)),
        max_concurrent: NonZeroU32::new(max_concurrent).unwrap(),
        ..Settings::default()
    };
    options.restart = Some(Strategy::FixedDelay { attempts: 5, delay: Duration::ZERO });
    options.store = Some(Arc::new(Slow { store: MemoryStore::new(), open: Arc::clone(&open) }));
    options.parallelism = NonZeroU32::new(2).unwrap();
    options.task.read_records = 16;
    options.task.deltas = deltas.then_some(DeltaLimits { longest: 3, percent: 1_000 });
    let (out, failures) = (Collect::default(), Arc::new(AtomicU32::new(0)));
    let seen = Arc::clone(&failures);
    let slowly = |n: u64| {
        if n.is_multiple_of(16) {
            pause(2);
        }
        n
    };
    let job = Job::new("slow");
    job.source("numbers", generator(RECORDS, slowly))
        .key_by(|n| n % 100)
        .process("count", |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, _: u64| {
            *cx.state()? += 1;
            let count = *cx.state()?;
            let key = *cx.key();
            cx.emit((key, count));
            Ok(())
        })
        .map(move |row: (u64, u64)| {
            let wanted = seen.load(Ordering::SeqCst);
            if wanted < 2 && row.1 == 10 * u64::from(wanted + 1) {
                seen.fetch_add(1, Ordering::SeqCst);
                panic!("planned");
            }
            row
        })
        .sink("out", out.clone());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    assert_eq!(failures.load(Ordering::SeqCst), 2);
    let mut rows = out.take();
    rows.sort_unstable();
    let expected: Vec<_> = (0..100).flat_map(|key| (1..=RECORDS / 100).map(move |count| (key, count))).collect();
    assert!(rows == expected, "each record counts once");
    open.lock().unwrap().most
}

#[test]
fn the_next_checkpoint_begins_while_the_one_before_is_written() {
    assert_eq!(run(1, false), 1);
    for deltas in [false, true] {
        let most = run(3, deltas);
        assert!((2..=3).contains(&most), "{most} at once");
    }
}
