//! A sum per key, through the whole of a job: what checkpoints cost its throughput and its batches.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cutwater::state::{Table, TableSpec, hash_key};
use cutwater::{
    DeltaLimits, Job, JobGraph, KeyedProcess, MaxParallelism, OperatorUid, ProcessContext, Timestamp, UserError,
};
use serde_json::json;

use crate::backend::Backend;
use crate::backend::RawRocks;
use crate::job::{Folder, Running, ms, options};
use crate::keys::{Gate, Keys, key_of, splitmix64};
use crate::machine::{Machine, cpu_time, preemptions};
use crate::meter::{BATCH, BatchWatch, Meter};
use crate::report::{Bound, Figure, Report};
use crate::{clock, duration};

/// Arguments of `keyed-count`.
#[derive(clap::Args)]
pub(crate) struct KeyedCount {
    /// How many keys, uniformly drawn.
    #[arg(long, default_value = "1000000")]
    keys: NonZeroU64,
    /// Subtasks of the source and of the sum; as many worker threads, up to the cores.
    #[arg(long, default_value = "1")]
    parallelism: NonZeroU32,
    /// For how long the job is measured, half of it with checkpoints. At least three windows of each are.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// From one checkpoint to the next, such as `1s` or `200ms`.
    #[arg(long, default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Take checkpoints of what has changed only, beside a job without any that notes no changes.
    #[arg(long)]
    incremental: bool,
    /// Where to put the folder of checkpoints.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// Draw low keys more often: the logarithm of the key is uniform.
    #[arg(long)]
    skewed: bool,
    #[command(flatten)]
    backend: Backend,
}

/// Checkpoints in each window with checkpoints.
const CHECKPOINTS_A_WINDOW: u32 = 2;
const BARE_WINDOW: Duration = Duration::from_millis(500);
/// Until what was under way has been processed after the gate closed.
const DRAIN: Duration = Duration::from_millis(50);

/// Sums the records of each key.
#[derive(Clone)]
struct Sum {
    watch: BatchWatch,
}

impl KeyedProcess<u64, u64> for Sum {
    type State = u64;
    type Out = u64;

    fn initial(&self) -> u64 {
        0
    }

    #[inline]
    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, u64>, record: u64) -> Result<(), UserError> {
        let sum = cx.state()?;
        *sum = sum.wrapping_add(record);
        let sum = *sum;
        cx.emit(sum);
        self.watch.note_record();
        Ok(())
    }

    fn on_timer(&mut self, _: &mut ProcessContext<'_, u64, u64, u64>, _: Timestamp) -> Result<(), UserError> {
        Ok(())
    }
}

fn graph(keys: u64, skewed: bool, gate: &Arc<Gate>, meter: &Arc<Meter>) -> anyhow::Result<JobGraph> {
    let job = Job::new("keyed-count");
    job.source("keys", Keys { keys, gate: Arc::clone(gate), skewed })
        .key_by(move |record| key_of(*record, keys))
        .process_with("sums", Sum { watch: BatchWatch::new(meter) })
        .sink("nowhere", cutwater::discard());
    Ok(job.build()?)
}

/// What one window saw.
struct Window {
    per_second: f64,
    per_cpu_second: f64,
    preemptions: f64,
}

/// Begun by [`Self::begin`].
struct Stopwatch {
    start: Instant,
    cpu: Duration,
    preemptions: u64,
    counted: u64,
}

impl Stopwatch {
    fn begin(counted: u64) -> Self {
        Self { start: clock::now(), cpu: cpu_time(), preemptions: preemptions(), counted }
    }

    fn end(self, counted: u64) -> Window {
        let seconds = clock::since(self.start).as_secs_f64();
        let records = (counted - self.counted) as f64;
        let cpu = cpu_time().saturating_sub(self.cpu).as_secs_f64();
        Window {
            per_second: records / seconds,
            per_cpu_second: records / cpu.max(1e-3),
            preemptions: preemptions().saturating_sub(self.preemptions) as f64 / seconds,
        }
    }
}

/// The table alone on one thread, with the same keys and values in the same batches.
struct Bare {
    table: Table<u64, u64>,
    keys: u64,
    at: u64,
}

impl Bare {
    fn new(keys: u64) -> anyhow::Result<Self> {
        let max = MaxParallelism::default();
        let operator = OperatorUid::new("bare")?;
        let spec = TableSpec { operator, name: "value".to_owned(), max_parallelism: max, key_groups: max.all() };
        let mut table = Table::new(spec);
        let mut scratch = Vec::new();
        for key in 0..keys {
            table.insert(hash_key(&key, &mut scratch), key, 0)?;
        }
        Ok(Self { table, keys, at: 0 })
    }

    fn window(&mut self) -> anyhow::Result<Window> {
        let stopwatch = Stopwatch::begin(self.at);
        let (mut scratch, mut records, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        while clock::since(stopwatch.start) < BARE_WINDOW {
            records.clear();
            hashes.clear();
            for at in self.at..self.at + BATCH as u64 {
                let record = splitmix64(0, at);
                let key = key_of(record, self.keys);
                hashes.push(hash_key(&key, &mut scratch));
                records.push((key, record));
            }
            self.at += BATCH as u64;
            self.table.prefetch(hashes.iter().copied());
            for (&hash, (key, record)) in hashes.iter().zip(&records) {
                let sum = self.table.get_or_insert_with(hash, key, || 0)?;
                *sum = sum.wrapping_add(*record);
            }
        }
        Ok(stopwatch.end(self.at))
    }
}

/// What the job is compared with.
enum Limit {
    Table(Box<Bare>),
    Rocks(Box<RawRocks>),
}

impl Limit {
    fn new(arguments: &KeyedCount) -> anyhow::Result<Self> {
        if arguments.backend.is_rocksdb() {
            let folder = Folder::below(arguments.checkpoints.as_deref())?;
            return Ok(Self::Rocks(Box::new(RawRocks::new(arguments.keys.get(), 8, arguments.skewed, folder)?)));
        }
        Ok(Self::Table(Box::new(Bare::new(arguments.keys.get())?)))
    }

    fn window(&mut self) -> anyhow::Result<Window> {
        match self {
            Self::Table(bare) => bare.window(),
            Self::Rocks(raw) => {
                let stopwatch = Stopwatch::begin(raw.done());
                while clock::since(stopwatch.start) < BARE_WINDOW {
                    raw.batch()?;
                }
                Ok(stopwatch.end(raw.done()))
            }
        }
    }
}

/// A job with all keys in its state.
struct Subject {
    job: Running,
    gate: Arc<Gate>,
    meter: Arc<Meter>,
    _folder: Folder,
}

impl Subject {
    fn new(arguments: &KeyedCount, incremental: bool) -> anyhow::Result<Self> {
        let folder = Folder::below(arguments.checkpoints.as_deref())?;
        let meter = Arc::new(Meter::new());
        let gate = Arc::new(Gate::default());
        let graph = graph(arguments.keys.get(), arguments.skewed, &gate, &meter)?;
        let mut options = options(arguments.parallelism, folder.store());
        arguments.backend.set(&mut options, folder.path())?;
        options.task.deltas = incremental.then(DeltaLimits::default);
        let job = Running::spawn(graph, options)?;
        let splits = u64::from(arguments.parallelism.get());
        job.wait_for("all keys", Duration::from_millis(1), |_| gate.filled() == splits)?;
        Ok(Self { job, gate, meter, _folder: folder })
    }

    /// Lets what is under way come to its end.
    fn rest(&self) {
        self.gate.set_open(false);
        self.meter.measure(false);
        clock::pause(DRAIN);
    }
}

/// All that is measured.
#[derive(Default)]
struct Windows {
    with: Vec<Window>,
    without: Vec<Window>,
    bare: Vec<Window>,
    checkpoints: Vec<f64>,
    checkpoint_bytes: u64,
}

impl KeyedCount {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let subject = Subject::new(self, self.incremental)?;
        // What it is compared with: the same job between its checkpoints, or one that notes no changes.
        let plain = if self.incremental { Some(Subject::new(self, false)?) } else { None };
        let (splits, meter) = (u64::from(self.parallelism.get()), &subject.meter);
        let mut bare = Limit::new(self)?;
        let window = self.interval * CHECKPOINTS_A_WINDOW;
        let rounds = (self.seconds / (2.0 * window.as_secs_f64())).round().clamp(3.0, 1e6) as u32;
        let mut windows = Windows::default();
        for round in 0..rounds {
            bare.window().map(|seen| windows.bare.push(seen))?;
            let mut open: Option<&Subject> = None;
            // Whichever comes first has another part of the noise: they take turns.
            for with in [round % 2 == 0, round % 2 != 0] {
                let next = plain.as_ref().filter(|_| !with).unwrap_or(&subject);
                if open.is_none_or(|open| !std::ptr::eq(open, next)) {
                    open.iter().for_each(|open| open.rest());
                    next.gate.set_open(true);
                    clock::pause(DRAIN); // caches and queues fill
                    open = Some(next);
                }
                self.window(&next.job, &next.meter, with, &mut windows)?;
            }
            open.iter().for_each(|open| open.rest());
        }
        let job = subject.job;
        let (read, counted) = (job.handle().status().records_in, meter.counted());
        let rest = splits * BATCH as u64;
        ensure!(read >= counted && read - counted < rest, "{read} records read, {counted} summed: some were lost");
        job.cancel()?;
        Ok(self.report(machine, &windows, meter, rounds))
    }

    fn window(&self, job: &Running, meter: &Meter, with: bool, windows: &mut Windows) -> anyhow::Result<()> {
        meter.measure(true);
        let stopwatch = Stopwatch::begin(meter.counted());
        let start = stopwatch.start;
        for at in 0..CHECKPOINTS_A_WINDOW {
            clock::pause_until(start + self.interval * at + self.interval / 2);
            if with {
                let (took, checkpoint) = meter.during_snapshot(|| job.checkpoint())?;
                windows.checkpoints.push(ms(took));
                windows.checkpoint_bytes = checkpoint.state_bytes();
            }
        }
        clock::pause_until(start + self.interval * CHECKPOINTS_A_WINDOW);
        let seen = stopwatch.end(meter.counted());
        if with {
            windows.with.push(seen)
        } else {
            windows.without.push(seen)
        }
        Ok(())
    }

    fn report(&self, machine: Machine, windows: &Windows, meter: &Meter, rounds: u32) -> Report {
        let parameters = json!({
            "keys": self.keys,
            "parallelism": self.parallelism,
            "interval_ms": ms(self.interval),
            "incremental": self.incremental,
            "skewed": self.skewed,
            "backend": self.backend.name(),
            "rounds": rounds,
            "window_ms": ms(self.interval * CHECKPOINTS_A_WINDOW),
        });
        let mut report = Report::new("keyed-count", machine, parameters);
        let name = self.backend.limit();
        let target = match self.keys.get() {
            _ if self.backend.is_rocksdb() => None,
            1_000 => Some(Bound::AtLeast(60e6)),
            1_000_000 => Some(Bound::AtLeast(15e6)),
            10_000_000 => Some(Bound::AtLeast(10e6)),
            _ => None,
        };
        let per = |windows: &[Window], figure: fn(&Window) -> f64| windows.iter().map(figure).collect::<Vec<_>>();
        let wall: fn(&Window) -> f64 = |window| window.per_second;
        let cpu: fn(&Window) -> f64 = |window| window.per_cpu_second;
        let Windows { with, without, bare, checkpoints, .. } = windows;
        report.figure(
            Figure::new("records_per_second", per(with, wall))
                .beside("without_checkpoints_records_per_second", per(without, wall)),
        );
        report.figure(
            Figure::new("records_per_cpu_second", per(with, cpu))
                .beside(format!("{name}_records_per_cpu_second"), per(bare, cpu))
                .should_be(target),
        );
        report.figure(
            Figure::new("without_checkpoints_records_per_cpu_second", per(without, cpu))
                .beside(format!("{name}_records_per_cpu_second"), per(bare, cpu)),
        );
        if self.backend.is_rocksdb() {
            let figure = Figure::new("without_checkpoints_records_per_second", per(without, wall));
            let figure = figure.beside(format!("{name}_records_per_second"), per(bare, wall));
            report.figure(if self.skewed { figure } else { figure.ratio_should_be(Bound::AtLeast(0.9)) });
        }
        let cost = |figure: fn(&Window) -> f64| {
            let (with, without) = (per(with, figure), per(without, figure));
            with.into_iter().zip(without).map(|(with, without)| (1.0 - with / without) * 100.0).collect::<Vec<_>>()
        };
        report.figure(Figure::new("checkpoint_cost_percent", cost(wall)).should_be(Some(Bound::AtMost(5.0))));
        report.figure(Figure::new("checkpoint_cpu_cost_percent", cost(cpu)));
        report.figure(Figure::new("checkpoints_count", [checkpoints.len() as f64]));
        report.figure(Figure::new("checkpoint_ms", checkpoints.iter().copied()));
        report.figure(Figure::new("checkpoint_bytes", [windows.checkpoint_bytes as f64]));
        meter.figures(&mut report, self.backend.longest_batch_ms());
        report.figure(
            Figure::new("preemptions_per_second", per(with, |window| window.preemptions))
                .beside("without_checkpoints_preemptions_per_second", per(without, |window| window.preemptions)),
        );
        report
    }
}
