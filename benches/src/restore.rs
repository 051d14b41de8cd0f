//! A start from a checkpoint of a large state, beside plainly reading its files.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cutwater::{DeltaLimits, JobState, LocalRecovery};
use serde_json::json;

use crate::backend::Backend;
use crate::blobs::StateSize;
use crate::clock;
use crate::job::{Folder, Running, ms, options};
use crate::keys::Gate;
use crate::machine::{Machine, drop_page_cache, touch_memory};
use crate::meter::Meter;
use crate::place::Where;
use crate::report::{Bound, Figure, Report};

/// Arguments of `restore`.
#[derive(clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    size: StateSize,
    #[command(flatten)]
    from: Where,
    #[command(flatten)]
    backend: Backend,
    /// Whether the checkpoint is one of a chain, or of the backend's own files.
    #[arg(long)]
    incremental: bool,
    /// At which parallelism the job is started again; the same if not given.
    #[arg(long)]
    rescale_to: Option<NonZeroU32>,
    /// Copies of the checkpoint's files on this machine, from which it is restored.
    #[arg(long)]
    local: bool,
    /// Leave the page cache as it is, so that the files are read from memory.
    #[arg(long)]
    warm: bool,
    /// How many pairs of a restore and a plain read.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
}

const STEP: Duration = Duration::from_micros(500);

impl Restore {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let place = self.from.open()?;
        let (gate, meter) = (Arc::new(Gate::default()), Arc::new(Meter::new()));
        let disk = Folder::below(place.below())?;
        let mut options = options(self.size.parallelism, place.store()?);
        self.backend.set(&mut options, disk.path())?;
        options.task.deltas = self.incremental.then(DeltaLimits::default);
        if self.local {
            options.local = LocalRecovery { backup: true, from_local: true, dirs: vec![disk.path().join("copies")] };
        }
        let job = self.size.fill(&gate, &meter, options.clone())?;
        let (_, checkpoint) = job.checkpoint()?;
        job.cancel()?;
        options.parallelism = self.rescale_to.unwrap_or(self.size.parallelism);
        let bytes: u64 = checkpoint.files().map(|file| file.bytes).sum();
        let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
        place.read(&checkpoint)?; // what is read plainly may have to be put there first
        let mut cold = !self.warm;
        let (mut rates, mut raw, mut end_to_end, mut restore) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.pairs {
            cold = cold && drop_page_cache();
            touch_memory(3 * bytes);
            let start = clock::now();
            let job = Running::spawn(self.size.graph(&gate, &meter)?, options.clone())?;
            let begun = job.wait_for("the restore", STEP, |job| {
                matches!(job.status().state, JobState::Initializing | JobState::Running)
            })?;
            let running = job.wait_for_state(JobState::Running, STEP)?;
            anyhow::ensure!(job.handle().status().restored.is_some(), "the job started without its checkpoint");
            rates.push(rate(running - start));
            end_to_end.push(ms(running - start));
            restore.push(ms(running - begun));
            job.cancel()?;
            cold = cold && drop_page_cache();
            touch_memory(3 * bytes);
            raw.push(rate(place.read(&checkpoint)?));
        }
        let parameters = json!({
            "state_bytes": bytes,
            "value_bytes": self.size.value,
            "keys": self.size.keys(),
            "parallelism": self.size.parallelism,
            "backend": self.backend.name(),
            "incremental": self.incremental,
            "rescale_to": self.rescale_to,
            "local": self.local,
            "page_cache": if cold { "cold" } else { "warm" },
            "pairs": self.pairs,
            "target": place.target(),
            "folder": place.below(),
        });
        let mut report = Report::new("restore", machine, parameters);
        let figure = Figure::new("restore_mb_per_second", rates).beside(place.limits()[1], raw);
        report.figure(match (place.target(), cold) {
            ("s3", _) => figure.ratio_should_be(Bound::AtLeast(0.8)),
            (_, true) => figure.ratio_should_be(Bound::AtLeast(0.6)),
            (_, false) => figure,
        });
        report.figure(Figure::new("spawn_to_running_ms", end_to_end));
        report.figure(Figure::new("restore_phase_ms", restore));
        report.note(
            "A restore is measured from spawning the job until it runs with all of its state, reading and claiming the \
             log included; the restore phase begins after the claim. MB are 1e6 bytes. Before each of both three times as much \
             memory is touched and freed, so that neither waits for a host to find it.",
        );
        report.note(place.notes()[1]);
        if !cold && !self.warm {
            report.note("The page cache could not be emptied, which needs root: these are reads from memory.");
        }
        Ok(report)
    }
}
