//! A small job on real folders and buckets that can be told at which of its durable steps it is to die, by SIGKILL, and which is
//! to fail. It ends by printing how often it took each step, as JSON.

mod job;
mod natives;
mod steps;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use cutwater::coordinator::{SavepointFormat, Settings};
use cutwater::state::StateBackend;
use cutwater::{
    DeltaLimits, JobHandle, JobOutcome, LocalRecovery, Options, SavepointError, StartFrom, StoreResolver, spawn,
};

use crate::natives::Natives;
use crate::steps::{Moment, Savepoints, Steps};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    checkpoints: String,
    /// Where a savepoint is made half way.
    #[arg(long)]
    savepoints: Option<String>,
    /// The savepoint to start from.
    #[arg(long)]
    from: Option<String>,
    /// Makes savepoints in the form of the backend.
    #[arg(long)]
    native: bool,
    /// Checkpoints of what has changed.
    #[arg(long)]
    deltas: bool,
    /// Checkpoints in flight.
    #[arg(long, default_value = "1")]
    max_concurrent: NonZeroU32,
    #[arg(long, default_value = "2")]
    parallelism: NonZeroU32,
    /// How many random numbers, of ten bytes each, every one of the 41 keys holds.
    #[arg(long, default_value = "0")]
    ballast: usize,
    /// Keeps the state in RocksDB, with its databases below this folder.
    #[arg(long)]
    rocksdb: Option<PathBuf>,
    /// How many bytes of each state and subtask stay in memory then.
    #[arg(long, default_value = "4096")]
    overlay: u64,
    /// Where copies of the checkpoints' files go, and are read first.
    #[arg(long)]
    local: Option<PathBuf>,
    /// From one burst of records to the next.
    #[arg(long, default_value = "1", value_name = "MILLISECONDS")]
    pause: u64,
    /// How many checkpoints in a row may fail.
    #[arg(long, default_value = "0")]
    tolerate: u32,
    /// Before which step to die, as NAME:NUMBER, or how long after its beginning, as NAME:NUMBER+MILLISECONDS.
    #[arg(long)]
    die: Option<Moment>,
    /// Which step fails, as NAME:NUMBER.
    #[arg(long)]
    fail: Option<Moment>,
}

impl Arguments {
    fn options(&self, steps: &Arc<Steps>) -> anyhow::Result<Options> {
        let mut options = Options::new();
        options.inline_threshold = 0; // the steps of files are what it is for
        options.checkpointing = Settings {
            interval: Some(Duration::from_millis(4)),
            max_concurrent: self.max_concurrent,
            tolerable_failures: self.tolerate,
            savepoints: if self.native { SavepointFormat::Native } else { SavepointFormat::Canonical },
            ..Settings::default()
        };
        options.parallelism = self.parallelism;
        let store = steps.store(&self.checkpoints, "")?;
        options.store = Some(Arc::new(Natives::new(store, Arc::clone(steps))));
        // All keys change all the time: a chain is begun anew after three, not when much has changed.
        options.task.deltas = self.deltas.then_some(DeltaLimits { longest: 3, percent: 1_000 });
        options.from = self.from.clone().map_or(StartFrom::Latest, StartFrom::Path);
        if let Some(folder) = &self.rocksdb {
            options.backend = rocksdb(folder, self.overlay, steps)?;
        }
        if let Some(folder) = &self.local {
            options.local = LocalRecovery { backup: true, from_local: true, dirs: vec![folder.clone()] };
        }
        let steps = Arc::clone(steps);
        options.stores = StoreResolver::new(move |url| Ok(Arc::new(Savepoints::new(&steps, url)?)));
        Ok(options)
    }
}

/// Writes come to the disk with each checkpoint only, however many states there are.
#[cfg(feature = "rocksdb")]
fn rocksdb(folder: &Path, overlay: u64, steps: &Arc<Steps>) -> anyhow::Result<Arc<dyn StateBackend>> {
    use cutwater::rocksdb::{RocksBudget, RocksDbBackend};
    let backend = RocksDbBackend::new(Some(folder), overlay, RocksBudget::new(8 << 20, 128 << 20));
    let steps = Arc::clone(steps);
    Ok(Arc::new(backend.with_steps(Arc::new(move |step, path| steps.before(&step.to_string(), &path.display())))))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_: &Path, _: u64, _: &Arc<Steps>) -> anyhow::Result<Arc<dyn StateBackend>> {
    anyhow::bail!("--rocksdb needs the feature `rocksdb`")
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let steps = Steps::new(arguments.die.clone(), arguments.fail.clone());
    let reached = Arc::new(AtomicU64::new(0));
    let shape = job::Shape {
        ballast: arguments.ballast,
        pause: Duration::from_millis(arguments.pause),
        reached: Arc::clone(&reached),
    };
    let graph = job::graph(&arguments.out, steps.files(), &shape).map_err(anyhow::Error::from_boxed)?;
    let handle = spawn(graph, arguments.options(&steps)?)?;
    if let Some(folder) = &arguments.savepoints {
        savepoint_half_way(&handle, folder, &reached)?;
    }
    let outcome = handle.wait()?;
    ensure!(matches!(outcome, JobOutcome::Finished | JobOutcome::AlreadyFinished), "the job {outcome}");
    println!("{}", serde_json::to_string(&steps.counts())?);
    Ok(())
}

/// A job that resumes behind its middle makes one at once, one that had finished makes none.
fn savepoint_half_way(handle: &JobHandle, folder: &str, reached: &AtomicU64) -> anyhow::Result<()> {
    while reached.load(Ordering::Relaxed) < job::RECORDS / 2 {
        if handle.is_done() {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    match handle.savepoint(Some(folder)) {
        Ok(_) | Err(SavepointError::Ended | SavepointError::NotTaken(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
