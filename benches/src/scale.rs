//! Many states, many operators, many subtasks: what each costs beside the same job with few.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use cutwater::JobState;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::job::{Folder, Running, ms, options};
use crate::keys::Gate;
use crate::machine::{Machine, footprint};
use crate::report::{Figure, Report};
use crate::{clock, duration};

mod jobs;

use jobs::Dimension;

/// Arguments of `scale`.
#[derive(clap::Args)]
pub(crate) struct Scale {
    /// Of what there are many; all of them unless given.
    #[arg(long, value_enum)]
    only: Option<Dimension>,
    /// How many pairs of a job with many and one with few.
    #[arg(long, default_value_t = 3)]
    pairs: u32,
    /// How long records are counted, such as `2s`.
    #[arg(long, default_value = "2s", value_parser = duration)]
    window: Duration,
    /// Where to put the folders of checkpoints.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Measure one job of this size in this process, and print it as JSON: what the case does for each.
    #[arg(long, hide = true, requires = "only")]
    size: Option<u32>,
}

/// Of one job, in a process of its own, so that memory and threads are its own.
#[derive(Serialize, Deserialize)]
struct Measured {
    start_ms: f64,
    records_per_second: f64,
    loaded_checkpoint_ms: f64,
    checkpoint_ms: f64,
    checkpoint_bytes: f64,
    restore_ms: f64,
    resident_bytes: f64,
    peak_bytes: f64,
    threads: f64,
    threads_with_uploads: f64,
}

const STEP: Duration = Duration::from_micros(200);
/// Each taken behind the other, while no records come.
const CHECKPOINTS: usize = 5;
const RESTORES: usize = 3;

impl Scale {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        if let (Some(size), Some(of)) = (self.size, self.only) {
            println!("{}", serde_json::to_string(&self.measure(of, size)?)?);
            std::process::exit(0);
        }
        let dimensions: Vec<_> = Dimension::ALL.into_iter().filter(|of| self.only.is_none_or(|it| it == *of)).collect();
        let parameters = json!({
            "entries": jobs::ENTRIES,
            "operators_of_a_stage": jobs::STAGE_OPERATORS,
            "window_ms": ms(self.window),
            "pairs": self.pairs,
        });
        let mut report = Report::new("scale", machine, parameters);
        for of in dimensions {
            let (mut many, mut few) = (Vec::new(), Vec::new());
            for _ in 0..self.pairs {
                many.push(self.child(of, of.sizes()[0])?);
                few.push(self.child(of, of.sizes()[1])?);
            }
            figures(&mut report, of, &many, &few);
        }
        report.note(
            "A start is measured from spawning the job until its threads run, without a checkpoint and, as a restore, with one \
             in the page cache. Records are those of the source, at full rate. A loaded checkpoint is asked for at that rate, so \
             its barriers wait behind all that is queued; the others are taken while no records come. Each job has a process of its own. \
             Threads with uploads are those after a checkpoint: the threads that write files stay for some seconds.",
        );
        Ok(report)
    }

    fn child(&self, of: Dimension, size: u32) -> anyhow::Result<Measured> {
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["scale", "--only", of.name(), "--size", &size.to_string()]);
        command.args(["--window", &format!("{}ms", self.window.as_millis())]);
        if let Some(folder) = &self.folder {
            command.arg("--folder").arg(folder);
        }
        let output = command.stderr(Stdio::inherit()).output().context("could not start a process for a job")?;
        ensure!(output.status.success(), "the job with {size} {} did not end well: {}", of.name(), output.status);
        serde_json::from_slice(&output.stdout).context("the process of a job did not print what it measured")
    }

    fn measure(&self, of: Dimension, size: u32) -> anyhow::Result<Measured> {
        let folder = Folder::below(self.folder.as_deref())?;
        let gate = Arc::new(Gate::default());
        let (job, start_ms) = start(of, size, &folder, &gate)?;
        let splits = u64::from(of.parallelism(size).get());
        job.wait_for("all keys", STEP, |_| gate.filled() == splits)?;
        gate.set_open(true);
        clock::pause(self.window / 4); // queues fill
        let (begun, before) = (clock::now(), job.handle().status().records_in);
        clock::pause(self.window);
        let (took, counted) = (clock::since(begun), job.handle().status().records_in - before);
        let running = footprint();
        let (loaded, _) = job.checkpoint()?;
        gate.set_open(false);
        job.checkpoint()?; // all queues are empty behind it
        let mut took_each = Vec::new();
        let mut bytes = 0;
        for _ in 0..CHECKPOINTS {
            let (took, checkpoint) = job.checkpoint()?;
            took_each.push(ms(took));
            bytes = checkpoint.state_bytes();
        }
        let after = footprint();
        job.cancel()?;
        let mut restores = Vec::new();
        for _ in 0..RESTORES {
            let (job, took) = start(of, size, &folder, &Arc::new(Gate::default()))?;
            ensure!(job.handle().status().restored.is_some(), "the job started without its checkpoint");
            job.cancel()?;
            restores.push(took);
        }
        Ok(Measured {
            start_ms,
            records_per_second: counted as f64 / took.as_secs_f64(),
            loaded_checkpoint_ms: ms(loaded),
            checkpoint_ms: median(took_each),
            checkpoint_bytes: bytes as f64,
            restore_ms: median(restores),
            resident_bytes: running.resident_bytes as f64,
            peak_bytes: after.peak_bytes as f64,
            threads: running.threads as f64,
            threads_with_uploads: after.threads as f64,
        })
    }
}

/// A job that runs, and how long that took, in ms.
fn start(of: Dimension, size: u32, folder: &Folder, gate: &Arc<Gate>) -> anyhow::Result<(Running, f64)> {
    let begun = clock::now();
    let mut options = options(of.parallelism(size), folder.store());
    of.set(size, &mut options)?;
    let job = Running::spawn(of.graph(size, gate)?, options)?;
    let running = job.wait_for_state(JobState::Running, STEP)?;
    Ok((job, ms(running - begun)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn figures(report: &mut Report, of: Dimension, many: &[Measured], few: &[Measured]) {
    type Get = fn(&Measured) -> f64;
    let all: [(&str, Get); 10] = [
        ("start_ms", |measured| measured.start_ms),
        ("records_per_second", |measured| measured.records_per_second),
        ("loaded_checkpoint_ms", |measured| measured.loaded_checkpoint_ms),
        ("checkpoint_ms", |measured| measured.checkpoint_ms),
        ("checkpoint_bytes", |measured| measured.checkpoint_bytes),
        ("restore_ms", |measured| measured.restore_ms),
        ("resident_bytes", |measured| measured.resident_bytes),
        ("peak_resident_bytes", |measured| measured.peak_bytes),
        ("threads_count", |measured| measured.threads),
        ("threads_with_uploads_count", |measured| measured.threads_with_uploads),
    ];
    let [large, small] = of.sizes();
    for (name, get) in all {
        let figure = Figure::new(format!("{large}_{}_{name}", of.name()), many.iter().map(get));
        report.figure(figure.beside(format!("with {small}"), few.iter().map(get)));
    }
}
