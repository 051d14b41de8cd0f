//! A job under measurement, and where it keeps its checkpoints.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cutwater::coordinator::Settings;
use cutwater::storage::{LocalFolder, Store};
use cutwater::{CompletedCheckpoint, JobGraph, JobHandle, JobState, Options, Strategy};
use tempfile::TempDir;

use crate::clock;

/// The longest that a job may take to do what a case waits for.
const PATIENCE: Duration = Duration::from_secs(600);

/// A folder of this run, removed at its end.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// Below the folder given, else below `TMPDIR` if set, else beside this program: in Cargo's target folder.
    pub(crate) fn below(given: Option<&Path>) -> anyhow::Result<Self> {
        let below = match given {
            Some(folder) => folder.to_owned(),
            None if std::env::var_os("TMPDIR").is_some() => std::env::temp_dir(),
            None => {
                let program = std::env::current_exe().context("where is this program?")?;
                program.parent().map(Path::to_owned).unwrap_or_else(|| PathBuf::from("."))
            }
        };
        std::fs::create_dir_all(&below).with_context(|| format!("could not make {}", below.display()))?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&below);
        Ok(Self(folder.with_context(|| format!("could not make a folder in {}", below.display()))?))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(LocalFolder::new(self.path()))
    }
}

/// Checkpoints into the store by hand, no restarts.
pub(crate) fn options(parallelism: NonZeroU32, store: Arc<dyn Store>) -> Options {
    let mut options = Options::new();
    options.parallelism = parallelism;
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::None);
    options.store = Some(store);
    options
}

/// A job that is cancelled when the measurement is over, however it ends.
pub(crate) struct Running(JobHandle);

impl Running {
    pub(crate) fn spawn(graph: JobGraph, options: Options) -> anyhow::Result<Self> {
        Ok(Self(cutwater::spawn(graph, options)?))
    }

    pub(crate) fn handle(&self) -> &JobHandle {
        &self.0
    }

    /// Waits until something holds of the job, looking each `step`.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        step: Duration,
        mut holds: impl FnMut(&JobHandle) -> bool,
    ) -> anyhow::Result<Instant> {
        let start = clock::now();
        while !holds(&self.0) {
            if self.0.is_done() {
                self.0.wait()?;
                bail!("the job ended before {what}");
            }
            if clock::since(start) > PATIENCE {
                bail!("no sign of {what} within {} s", PATIENCE.as_secs());
            }
            clock::pause(step);
        }
        Ok(clock::now())
    }

    pub(crate) fn wait_for_state(&self, state: JobState, step: Duration) -> anyhow::Result<Instant> {
        self.wait_for(&format!("{state:?}"), step, |job| job.status().state == state)
    }

    /// Takes a checkpoint, and says how long it took from asking until it was durable.
    pub(crate) fn checkpoint(&self) -> anyhow::Result<(Duration, CompletedCheckpoint)> {
        let start = clock::now();
        match self.0.checkpoint() {
            Ok(checkpoint) => Ok((clock::since(start), checkpoint)),
            Err(reason) => {
                if self.0.is_done() {
                    self.0.wait()?;
                }
                Err(reason).context("a checkpoint failed")
            }
        }
    }

    pub(crate) fn cancel(self) -> anyhow::Result<()> {
        self.0.cancel();
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
        drop(self.0.wait()); // the measurement has its own error by now
    }
}

/// The longest time that a subtask stood still for the checkpoint.
pub(crate) fn synchronous_part(checkpoint: &CompletedCheckpoint) -> Duration {
    let subtasks = checkpoint.tasks.iter().flat_map(|task| &task.subtasks);
    subtasks.map(|subtask| subtask.phases.sync).max().unwrap_or_default()
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
