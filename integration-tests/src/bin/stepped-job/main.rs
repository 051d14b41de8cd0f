//! A small job on real folders and buckets that can be told at which of its durable steps it is to die, by SIGKILL, and which is
//! to fail. It ends by printing how often it took each step, as JSON.

mod job;
mod steps;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use cutwater::coordinator::Settings;
use cutwater::{
    DeltaLimits, JobHandle, JobOutcome, Options, OptionsError, SavepointError, StartFrom, StoreResolver, spawn,
};

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
    fn options(&self, steps: &Arc<Steps>) -> Result<Options, OptionsError> {
        let mut options = Options::new();
        options.inline_threshold = 0; // the steps of files are what it is for
        options.checkpointing = Settings {
            interval: Some(Duration::from_millis(4)),
            max_concurrent: self.max_concurrent,
            tolerable_failures: self.tolerate,
            ..Settings::default()
        };
        options.parallelism = self.parallelism;
        options.store = Some(steps.store(&self.checkpoints, "")?);
        // All keys change all the time: a chain is begun anew after three, not when much has changed.
        options.task.deltas = self.deltas.then_some(DeltaLimits { longest: 3, percent: 1_000 });
        options.from = self.from.clone().map_or(StartFrom::Latest, StartFrom::Path);
        let steps = Arc::clone(steps);
        options.stores = StoreResolver::new(move |url| Ok(Arc::new(Savepoints::new(&steps, url)?)));
        Ok(options)
    }
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
