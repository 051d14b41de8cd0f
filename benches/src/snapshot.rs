//! A full checkpoint of a large state, beside the same bytes written plainly and synced.

use std::sync::Arc;
use std::time::Duration;

use cutwater::DeltaLimits;
use serde_json::json;

use crate::backend::Backend;
use crate::blobs::StateSize;
use crate::clock;
use crate::job::{Folder, Running, ms, options, synchronous_part};
use crate::keys::Gate;
use crate::machine::{Machine, touch_memory};
use crate::meter::Meter;
use crate::place::{Place, Where};
use crate::report::{Bound, Figure, Report};

/// Arguments of `snapshot`.
#[derive(clap::Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    size: StateSize,
    #[command(flatten)]
    to: Where,
    #[command(flatten)]
    backend: Backend,
    /// A checkpoint that later ones can build on, with RocksDB of its own files: the first of a job, which has all. Each pair has
    /// a job of its own.
    #[arg(long)]
    incremental: bool,
    /// Keep the job processing at full rate meanwhile: records for keys drawn uniformly, each changing its value.
    #[arg(long, conflicts_with = "idle")]
    busy: bool,
    /// Keep the job idle meanwhile, which is the default.
    #[arg(long)]
    idle: bool,
    /// How many pairs of a checkpoint and a plain write.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
}

/// For the last records to be processed after the sources have emitted them.
const SETTLE: Duration = Duration::from_millis(200);

/// A job with its state filled, and what it runs on.
struct Subject {
    job: Running,
    gate: Arc<Gate>,
    place: Place,
    _disk: Folder,
}

impl Snapshot {
    fn subject(&self, meter: &Arc<Meter>) -> anyhow::Result<Subject> {
        let (place, gate) = (self.to.open()?, Arc::new(Gate::default()));
        let disk = Folder::below(place.below())?;
        let mut options = options(self.size.parallelism, place.store()?);
        self.backend.set(&mut options, disk.path())?;
        options.task.deltas = self.incremental.then(DeltaLimits::default);
        let job = self.size.fill(&gate, meter, options)?;
        gate.set_open(self.busy);
        clock::pause(SETTLE);
        Ok(Subject { job, gate, place, _disk: disk })
    }

    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let meter = Arc::new(Meter::new());
        let mut subject = self.subject(&meter)?;
        let (mut end_to_end, mut sync, mut rates, mut raw) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for pair in 0..self.pairs {
            if pair > 0 && self.incremental {
                subject.job.cancel()?;
                subject = self.subject(&meter)?;
            }
            let Subject { job, gate, place, .. } = &subject;
            touch_memory((self.size.gb * 1e9) as u64);
            meter.measure(self.busy);
            let (took, checkpoint) = meter.during_snapshot(|| job.checkpoint())?;
            bytes = checkpoint.state_bytes();
            end_to_end.push(took);
            sync.push(ms(synchronous_part(&checkpoint)));
            rates.push(bytes as f64 / 1e6 / took.as_secs_f64());
            // The plain write has the machine to itself: the limit is what the disk can do.
            clock::pause(SETTLE);
            meter.measure(false);
            gate.set_open(false);
            clock::pause(SETTLE);
            raw.push(bytes as f64 / 1e6 / place.write(bytes)?.as_secs_f64());
            gate.set_open(self.busy);
            clock::pause(SETTLE);
        }
        subject.job.cancel()?;
        let place = subject.place;
        let parameters = json!({
            "state_bytes": bytes,
            "value_bytes": self.size.value,
            "keys": self.size.keys(),
            "parallelism": self.size.parallelism,
            "backend": self.backend.name(),
            "busy": self.busy,
            "incremental": self.incremental,
            "pairs": self.pairs,
            "target": place.target(),
            "folder": place.below(),
        });
        let mut report = Report::new("snapshot", machine, parameters);
        report.figure(
            Figure::new("checkpoint_mb_per_second", rates)
                .beside(place.limits()[0], raw)
                .ratio_should_be(Bound::AtLeast(0.8)),
        );
        report.figure(Figure::new("checkpoint_ms", end_to_end.into_iter().map(ms)));
        report.figure(Figure::new("synchronous_part_ms", sync));
        if self.busy {
            meter.figures(&mut report, self.backend.longest_batch_ms());
        }
        report.note("A checkpoint is measured from asking for it until its record is durable; MB are 1e6 bytes.");
        report.note(place.notes()[0]);
        Ok(report)
    }
}
