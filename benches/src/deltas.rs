//! Checkpoints of a large state of which a part has changed since the one before, and a start from a chain of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cutwater::coordinator::checkpoint_of_snapshot;
use cutwater::{CompletedCheckpoint, DeltaLimits, JobState, Options};
use serde_json::json;

use crate::backend::{Backend, RawRocks};
use crate::blobs::StateSize;
use crate::clock;
use crate::job::{Folder, Running, ms, options, synchronous_part};
use crate::keys::Gate;
use crate::machine::{Machine, drop_page_cache};
use crate::meter::Meter;
use crate::report::{Bound, Figure, Report};

/// Arguments of `deltas`.
#[derive(clap::Args)]
pub(crate) struct Deltas {
    #[command(flatten)]
    size: StateSize,
    #[command(flatten)]
    backend: Backend,
    /// How much of the keys changes from one checkpoint to the next, in percent.
    #[arg(long, default_value_t = 1.0)]
    touch: f64,
    /// How many checkpoints after the first. Up to 16 of them make a chain, if they touch no more than a fifth together.
    #[arg(long, default_value_t = 16)]
    checkpoints: u32,
    /// Where to put the folders of checkpoints.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many pairs of a start from the chain and one from a full checkpoint of the same state.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
}

const STEP: Duration = Duration::from_micros(500);
/// For the last records, which have left their source, to come through the job.
const SETTLE: Duration = Duration::from_millis(50);

/// A job whose state has been filled and changed, and its last checkpoint.
struct Made {
    folder: Folder,
    options: Options,
    first: (Duration, CompletedCheckpoint),
    later: Vec<(Duration, CompletedCheckpoint)>,
}

impl Deltas {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let splits = u64::from(self.size.parallelism.get());
        let touched_each = ((self.size.keys().get() as f64 * self.touch / 100.0) as u64 / splits).max(1);
        let chain = self.make(Some(DeltaLimits::default()), touched_each)?;
        let full = self.make(None, touched_each)?;
        let changed = (touched_each * splits) as f64 * (8.0 + f64::from(self.size.value.get()));
        let raw = self.raw(touched_each * splits)?;
        let (mut from_chain, mut from_full) = (Vec::new(), Vec::new());
        for pair in 0..self.pairs {
            // Whichever comes first has another part of the noise: they take turns.
            for of_chain in [pair % 2 == 0, pair % 2 != 0] {
                let (made, times) = if of_chain { (&chain, &mut from_chain) } else { (&full, &mut from_full) };
                times.push(self.restore(made)?);
            }
        }
        let parameters = json!({
            "state_bytes": full.later.last().map_or(0, |(_, checkpoint)| checkpoint.state_bytes()),
            "value_bytes": self.size.value,
            "keys": self.size.keys(),
            "parallelism": self.size.parallelism,
            "backend": self.backend.name(),
            "touched_percent": self.touch,
            "checkpoints": self.checkpoints,
            "pairs": self.pairs,
            "folder": chain.folder.path().parent(),
        });
        let mut report = Report::new("deltas", machine, parameters);
        let bytes = |made: &Made| made.later.iter().map(|(_, checkpoint)| written(checkpoint)).collect::<Vec<_>>();
        let took = |made: &Made| made.later.iter().map(|(took, _)| ms(*took)).collect::<Vec<_>>();
        report.figure(
            Figure::new("checkpoint_bytes", bytes(&chain))
                .beside("changed_bytes", vec![changed; chain.later.len()])
                .ratio_should_be(Bound::AtMost(1.5)),
        );
        let figure = Figure::new("checkpoint_ms", took(&chain));
        if self.backend.is_rocksdb() {
            let figure = figure.beside("raw_rocksdb_checkpoint_ms", raw);
            report.figure(figure.should_be(Some(Bound::AtMost(70.0))));
            report.figure(Figure::new("full_checkpoint_ms", took(&full)));
            report.note(
                "Raw: as many keys changed in RocksDB alone, and a checkpoint of its own: a flush, which it syncs, and links to \
                 all files.",
            );
        } else {
            report.figure(figure.beside("full_checkpoint_ms", took(&full)));
        }
        report.figure(Figure::new("first_full_checkpoint_ms", [ms(chain.first.0)]));
        let sync = chain.later.iter().map(|(_, checkpoint)| ms(synchronous_part(checkpoint)));
        report.figure(Figure::new("synchronous_part_ms", sync));
        let last = chain.later.last().map_or(&chain.first.1, |(_, checkpoint)| checkpoint);
        let longest = last.tasks.iter().flat_map(|task| &task.subtasks).map(|subtask| subtask.files.len()).max();
        report.figure(Figure::new("files_of_a_subtask_count", [longest.unwrap_or(0) as f64]));
        report.figure(
            Figure::new("restore_from_chain_ms", from_chain)
                .beside("restore_from_full_ms", from_full)
                .ratio_should_be(Bound::AtMost(1.25)),
        );
        report.note(
            "Changed bytes are those of the keys touched and their values; no key is touched twice in a run. A checkpoint is \
             measured from asking for it until its record is durable, while the job is idle. A restore is measured from spawning the job \
             until it runs with all of its state, with an empty page cache where that can be had (as root).",
        );
        Ok(report)
    }

    /// How long checkpoints of RocksDB alone take after as many changes, in ms; none for a job in memory.
    fn raw(&self, touched: u64) -> anyhow::Result<Vec<f64>> {
        if !self.backend.is_rocksdb() {
            return Ok(Vec::new());
        }
        let folder = Folder::below(self.folder.as_deref())?;
        let mut raw = RawRocks::new(self.size.keys().get(), self.size.value.get() as usize, false, folder)?;
        let mut took = Vec::new();
        for round in 0..u64::from(self.checkpoints) {
            raw.touch(touched, round)?;
            clock::pause(SETTLE);
            took.push(ms(raw.checkpoint(round)?));
        }
        Ok(took)
    }

    fn make(&self, deltas: Option<DeltaLimits>, touched_each: u64) -> anyhow::Result<Made> {
        let folder = Folder::below(self.folder.as_deref())?;
        let gate = Arc::new(Gate::default());
        let mut options = options(self.size.parallelism, folder.store());
        options.task.deltas = deltas;
        self.backend.set(&mut options, folder.path())?;
        let job = self.size.fill(&gate, &Arc::new(Meter::new()), options.clone())?;
        let first = job.checkpoint()?;
        let mut later = Vec::new();
        for _ in 0..self.checkpoints {
            let before = job.handle().status().records_in;
            gate.burst(touched_each);
            let all = before + touched_each * u64::from(self.size.parallelism.get());
            job.wait_for("the records of a burst", STEP, |job| job.status().records_in >= all)?;
            clock::pause_until(clock::now() + SETTLE);
            later.push(job.checkpoint()?);
        }
        job.cancel()?;
        Ok(Made { folder, options, first, later })
    }

    /// How long a start from the newest checkpoint takes, in ms.
    fn restore(&self, made: &Made) -> anyhow::Result<f64> {
        drop_page_cache();
        let gate = Arc::new(Gate::default());
        let start = clock::now();
        let job = Running::spawn(self.size.graph(&gate, &Arc::new(Meter::new()))?, made.options.clone())?;
        let running = job.wait_for_state(JobState::Running, STEP)?;
        anyhow::ensure!(job.handle().status().restored.is_some(), "the job started without its checkpoint");
        job.cancel()?;
        Ok(ms(running - start))
    }
}

/// The bytes that were written for a checkpoint: those of its files that no earlier one has.
fn written(checkpoint: &CompletedCheckpoint) -> f64 {
    let own = checkpoint.files().filter(|file| checkpoint_of_snapshot(&file.name) == Some(checkpoint.checkpoint));
    own.map(|file| file.bytes).sum::<u64>() as f64
}
