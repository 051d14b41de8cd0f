//! A small job on real folders that can be told before which of its durable steps it is to die, by SIGKILL. It ends by
//! printing how often it took each step, as JSON.

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
use cutwater::{DeltaLimits, JobHandle, JobOutcome, Options, SavepointError, StartFrom, StoreResolver, spawn};

use crate::steps::{Death, Savepoints, Steps};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    checkpoints: PathBuf,
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
    /// Before which step to die, as NAME:NUMBER.
    #[arg(long)]
    die: Option<Death>,
}

impl Arguments {
    fn options(&self, steps: &Arc<Steps>) -> Options {
        let mut options = Options::new();
        options.checkpointing = Settings {
            interval: Some(Duration::from_millis(4)),
            max_concurrent: self.max_concurrent,
            ..Settings::default()
        };
        options.parallelism = NonZeroU32::new(2).expect("2 is not 0");
        options.store = Some(Arc::new(steps.folder(&self.checkpoints, "")));
        // All keys change all the time: a chain is begun anew after three, not when much has changed.
        options.task.deltas = self.deltas.then_some(DeltaLimits { longest: 3, percent: 1_000 });
        options.from = self.from.clone().map_or(StartFrom::Latest, StartFrom::Path);
        let steps = Arc::clone(steps);
        options.stores = StoreResolver::new(move |url| Ok(Arc::new(Savepoints::new(&steps, url))));
        options
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let steps = Steps::new(arguments.die.clone());
    let reached = Arc::new(AtomicU64::new(0));
    let graph = job::graph(&arguments.out, steps.files(), &reached).map_err(anyhow::Error::from_boxed)?;
    let handle = spawn(graph, arguments.options(&steps))?;
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
