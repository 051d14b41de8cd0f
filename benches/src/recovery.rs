//! From a panic in an operator to the next record at the sink, with a delay of 0.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cutwater::{
    Attempt, CheckpointId, CommitContext, Committer, Discard, Job, JobGraph, KeyedProcess, Prepared, ProcessContext,
    Sink, SinkContext, SinkWriter, Strategy, Timestamp, UserError,
};
use serde_json::json;

use crate::histogram::Histogram;
use crate::job::{Folder, Running, ms, options};
use crate::keys::{Gate, Keys, key_of, splitmix64};
use crate::machine::Machine;
use crate::report::{Bound, Figure, Report};
use crate::{clock, duration};

/// Arguments of `recovery`.
#[derive(clap::Args)]
pub(crate) struct Recovery {
    /// How many keys the state has.
    #[arg(long, default_value = "1000")]
    keys: NonZeroU64,
    /// Subtasks; as many worker threads, up to the cores.
    #[arg(long, default_value = "1")]
    parallelism: NonZeroU32,
    /// How many panics.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// From one checkpoint to the next, such as `100ms`.
    #[arg(long, default_value = "100ms", value_parser = duration)]
    interval: Duration,
    /// Where to put the folder of checkpoints.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
}

/// What operator and sink tell the benchmark.
#[derive(Default)]
struct Trace {
    /// The next record panics.
    armed: AtomicBool,
    moments: Mutex<Moments>,
}

#[derive(Default)]
struct Moments {
    panicked: Option<Instant>,
    /// The newest attempt and its first record at the sink.
    output: Option<(Attempt, Instant)>,
}

impl Trace {
    fn moments(&self) -> std::sync::MutexGuard<'_, Moments> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Count {
    trace: Arc<Trace>,
}

impl KeyedProcess<u64, u64> for Count {
    type State = u64;
    type Out = u64;

    fn initial(&self) -> u64 {
        0
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, u64>, _: u64) -> Result<(), UserError> {
        if self.trace.armed.load(Ordering::Relaxed) && self.trace.armed.swap(false, Ordering::Relaxed) {
            self.trace.moments().panicked = Some(clock::now());
            panic!("asked to");
        }
        let count = cx.state()?;
        *count += 1;
        let count = *count;
        cx.emit(count);
        Ok(())
    }
}

/// Notes the first record of each attempt.
struct FirstOutput {
    trace: Arc<Trace>,
}

struct FirstOutputWriter {
    trace: Arc<Trace>,
    /// `None` once its first record has come.
    attempt: Option<Attempt>,
}

impl Sink<u64> for FirstOutput {
    type Writer = FirstOutputWriter;

    fn open(&self, context: &SinkContext) -> Result<FirstOutputWriter, UserError> {
        Ok(FirstOutputWriter { trace: Arc::clone(&self.trace), attempt: Some(context.attempt) })
    }

    fn committer(&self, _: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        Ok(Box::new(Discard))
    }
}

impl SinkWriter<u64> for FirstOutputWriter {
    fn write(&mut self, _: Option<Timestamp>, _: u64) -> Result<(), UserError> {
        if let Some(attempt) = self.attempt.take() {
            let mut moments = self.trace.moments();
            // Another subtask may have been first.
            if moments.output.is_none_or(|(newest, _)| newest < attempt) {
                moments.output = Some((attempt, clock::now()));
            }
        }
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        Ok(Vec::new())
    }
}

fn graph(keys: u64, gate: &Arc<Gate>, trace: &Arc<Trace>) -> anyhow::Result<JobGraph> {
    let job = Job::new("recovery");
    job.source("keys", Keys { keys, gate: Arc::clone(gate), skewed: false })
        .key_by(move |record| key_of(*record, keys))
        .process_with("counts", Count { trace: Arc::clone(trace) })
        .sink("first", FirstOutput { trace: Arc::clone(trace) });
    Ok(job.build()?)
}

impl Recovery {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let folder = Folder::below(self.checkpoints.as_deref())?;
        let (gate, trace) = (Arc::new(Gate::default()), Arc::new(Trace::default()));
        gate.set_open(true);
        let mut options = options(self.parallelism, folder.store());
        options.checkpointing.interval = Some(self.interval);
        options.restart = Some(Strategy::FixedDelay { attempts: u32::MAX, delay: Duration::ZERO });
        let job = Running::spawn(graph(self.keys.get(), &gate, &trace)?, options)?;
        let (mut took, all) = (Vec::new(), Histogram::new());
        let step = Duration::from_millis(1);
        for round in 0..self.rounds {
            // A new checkpoint each time, and another moment between two.
            let before = job.handle().status().completed_checkpoints;
            job.wait_for("a checkpoint", step, |job| job.status().completed_checkpoints > before)?;
            clock::pause(self.interval.mul_f64(splitmix64(1, u64::from(round)) as f64 / u64::MAX as f64));
            let attempt = trace.moments().output.map(|(attempt, _)| attempt);
            trace.armed.store(true, Ordering::Relaxed);
            job.wait_for("output after the panic", step, |_| {
                trace.moments().output.map(|(attempt, _)| attempt) > attempt
            })?;
            let moments = trace.moments();
            if let (Some(panicked), Some((_, output))) = (moments.panicked, moments.output) {
                let duration = output.duration_since(panicked);
                took.push(ms(duration));
                all.note(duration);
            }
        }
        let restarts = job.handle().status().restarts;
        job.cancel()?;
        anyhow::ensure!(restarts == self.rounds, "{} panics were asked for, {restarts} restarts seen", self.rounds);
        let parameters = json!({
            "keys": self.keys,
            "parallelism": self.parallelism,
            "rounds": self.rounds,
            "interval_ms": ms(self.interval),
        });
        let mut report = Report::new("recovery", machine, parameters);
        report.figure(Figure::new("panic_to_output_ms", took).should_be(Some(Bound::AtMost(10.0))));
        report.figure(Figure::new("panic_to_output_p99_ms", [ms(all.quantile(0.99))]));
        report.figure(Figure::new("panic_to_output_max_ms", [ms(all.longest())]));
        report.note(
            "From the panic in the keyed operator to the first record that reaches the sink in the next attempt: report, \
             stop, join, restore from the folder, start. Fixed delay of 0.",
        );
        Ok(report)
    }
}
