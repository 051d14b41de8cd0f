//! Load for minutes on a state that is larger than the memory it may take: does anything grow?

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use cutwater::DeltaLimits;
use serde_json::json;

use crate::backend::{Backend, RawRocks};
use crate::blobs::StateSize;
use crate::histogram::Histogram;
use crate::job::{Folder, ms, options, synchronous_part};
use crate::keys::Gate;
use crate::machine::{Machine, descriptors, footprint};
use crate::meter::Meter;
use crate::report::{Bound, Figure, Report};
use crate::{clock, duration};

/// Arguments of `soak`.
#[derive(clap::Args)]
pub(crate) struct Soak {
    #[command(flatten)]
    size: StateSize,
    #[command(flatten)]
    backend: Backend,
    /// For how long records flow once the state is filled.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// From the beginning of one checkpoint to that of the next; one that takes longer is waited for.
    #[arg(long, default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Checkpoints that hold all of the state, in place of what has changed.
    #[arg(long)]
    full: bool,
    /// What the process may take, in units of 1e9 bytes.
    #[arg(long, default_value_t = 1.0)]
    memory_gb: f64,
    /// Where to put the folder of checkpoints and of the backend.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// The parts of the time: in the first one caches fill, the second and the third are compared with the last two.
const PARTS: usize = 5;

/// So many records of the log are deleted together.
const RECORDS_AT_ONCE: f64 = 1024.0;
/// The folder that they are in.
const LOG: &str = "log";

/// What was seen after a checkpoint.
#[derive(Clone, Copy)]
struct Seen {
    resident: f64,
    threads: f64,
    descriptors: f64,
    files: f64,
    stored: f64,
    log: f64,
    per_second: f64,
    checkpoint_ms: f64,
    sync_ms: f64,
}

/// What RocksDB alone has done.
struct Raw {
    per_second: f64,
    batches: Histogram,
}

/// One figure of what was seen.
type Look = fn(&Seen) -> f64;

impl Soak {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let folder = Folder::below(self.folder.as_deref())?;
        let (gate, meter) = (Arc::new(Gate::default()), Arc::new(Meter::new()));
        let mut options = options(self.size.parallelism, folder.store());
        options.task.deltas = (!self.full).then(DeltaLimits::default);
        self.backend.set(&mut options, folder.path())?;
        let job = self.size.fill(&gate, &meter, options)?;
        let (first, _) = job.checkpoint()?;
        gate.set_open(true);
        meter.measure(true);
        let start = clock::now();
        let mut seen = Vec::new();
        let (mut before, mut counted) = (start, (start, meter.counted()));
        while clock::since(start).as_secs_f64() < self.seconds {
            clock::pause_until(before + self.interval);
            let began = clock::now();
            let (took, checkpoint) = meter.during_snapshot(|| job.checkpoint())?;
            let (now, all) = (clock::now(), meter.counted());
            let (files, stored, log) = files_below(folder.path());
            let footprint = footprint();
            seen.push(Seen {
                resident: footprint.resident_bytes as f64,
                threads: footprint.threads as f64,
                descriptors: descriptors() as f64,
                files,
                stored,
                log,
                per_second: (all - counted.1) as f64 / (now - counted.0).as_secs_f64(),
                checkpoint_ms: ms(took),
                sync_ms: ms(synchronous_part(&checkpoint)),
            });
            (before, counted) = (began.max(before + self.interval), (now, all));
        }
        job.cancel()?;
        ensure!(seen.len() >= 2 * PARTS, "only {} checkpoints: let it take longer", seen.len());
        drop(folder);
        let mut report = self.report(machine, &seen, first, &meter);
        if let Some(raw) = self.raw()? {
            let per_second = Figure::new("records_per_second", seen.iter().map(|seen| seen.per_second));
            let per_second = per_second.beside("raw_rocksdb_records_per_second", [raw.per_second]);
            report.figure(per_second.ratio_should_be(Bound::AtLeast(0.9)));
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
                report.figure(
                    Figure::new(
                        format!("batch_during_snapshot_{name}_ms"),
                        [ms(meter.quantile_during_snapshot(quantile))],
                    )
                    .beside(format!("raw_rocksdb_batch_{name}_ms"), [ms(raw.batches.quantile(quantile))]),
                );
            }
            report.note("Raw: each record reads its value and writes it back, on one thread, without checkpoints.");
        } else {
            report.figure(Figure::new("records_per_second", seen.iter().map(|seen| seen.per_second)));
        }
        Ok(report)
    }

    /// The same keys and values in RocksDB alone, for a tenth of the time; `None` for a job in memory.
    fn raw(&self) -> anyhow::Result<Option<Raw>> {
        if !self.backend.is_rocksdb() {
            return Ok(None);
        }
        let folder = Folder::below(self.folder.as_deref())?;
        let mut rocks = RawRocks::new(self.size.keys().get(), self.size.value.get() as usize, false, folder)?;
        let batches = Histogram::new();
        let (start, until) = (clock::now(), (self.seconds / 10.0).max(10.0));
        while clock::since(start).as_secs_f64() < until {
            let batch = clock::now();
            rocks.batch()?;
            batches.note(clock::since(batch));
        }
        Ok(Some(Raw { per_second: rocks.done() as f64 / clock::since(start).as_secs_f64(), batches }))
    }

    fn report(&self, machine: Machine, seen: &[Seen], first: Duration, meter: &Meter) -> Report {
        let parameters = json!({
            "state_gb": self.size.gb,
            "value_bytes": self.size.value,
            "keys": self.size.keys(),
            "parallelism": self.size.parallelism,
            "backend": self.backend.name(),
            "full": self.full,
            "seconds": self.seconds,
            "interval_ms": ms(self.interval),
        });
        let mut report = Report::new("soak", machine, parameters);
        let all = |figure: Look| seen.iter().map(figure).collect::<Vec<_>>();
        report.figure(
            Figure::new("peak_resident_bytes", [footprint().peak_bytes as f64])
                .should_be(Some(Bound::AtMost(self.memory_gb * 1e9))),
        );
        let each = seen.len() / PARTS;
        let (early, late) = (&seen[each..3 * each], &seen[seen.len() - 2 * each..]);
        // What goes up and down comes no higher later.
        let flat: [(&str, Look); 5] = [
            ("resident_bytes", |seen| seen.resident),
            ("threads_count", |seen| seen.threads),
            ("descriptors_count", |seen| seen.descriptors),
            ("files_count", |seen| seen.files),
            ("stored_bytes", |seen| seen.stored),
        ];
        for (name, figure) in flat {
            let highest = |seen: &[Seen]| [seen.iter().map(figure).fold(0.0, f64::max)];
            report.figure(
                Figure::new(format!("late_highest_{name}"), highest(late))
                    .beside(format!("early_highest_{name}"), highest(early))
                    .ratio_should_be(Bound::AtMost(1.1)),
            );
            report.figure(
                Figure::new(format!("late_{name}"), late.iter().map(figure))
                    .beside(format!("early_{name}"), early.iter().map(figure)),
            );
        }
        report.figure(
            Figure::new("highest_log_records_count", [all(|seen| seen.log).into_iter().fold(0.0, f64::max)])
                .should_be(Some(Bound::AtMost(2.0 * RECORDS_AT_ONCE))),
        );
        let rates = |seen: &[Seen]| seen.iter().map(|seen| seen.per_second).collect::<Vec<_>>();
        report.figure(
            Figure::new("late_records_per_second", rates(late))
                .beside("early_records_per_second", rates(early))
                .ratio_should_be(Bound::AtLeast(0.9)),
        );
        report.figure(Figure::new("checkpoint_ms", all(|seen| seen.checkpoint_ms)));
        report.figure(Figure::new("synchronous_part_ms", all(|seen| seen.sync_ms)));
        report.figure(Figure::new("first_full_checkpoint_ms", [ms(first)]));
        report.figure(Figure::new("checkpoints_count", [seen.len() as f64]));
        meter.figures(&mut report, self.backend.longest_batch_ms());
        report.note(
            "Files and stored bytes are those of checkpoints and of the backend together, hard links counted each; records of the log, of \
             which the old ones go 1,024 at a time, are counted apart. Memory is what \
             the process has in memory, without the page cache. Early is the second and the third fifth of the time, late the rest of it. \
             RocksDB rewrites all of the state after about as much has changed: for a fair comparison each should be longer than that takes.",
        );
        report
    }
}

/// How many files there are below a folder, and their bytes; and how many records in folders of logs, which do not count. They come
/// and go meanwhile.
fn files_below(folder: &Path) -> (f64, f64, f64) {
    let (mut files, mut bytes, mut log) = (0.0, 0.0, 0.0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let is_log = folder.file_name().is_some_and(|name| name == LOG);
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(_) if is_log => log += 1.0,
                Ok(metadata) => {
                    files += 1.0;
                    bytes += metadata.len() as f64;
                }
                Err(_) => {} // it is gone
            }
        }
    }
    (files, bytes, log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_in_all_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::create_dir_all(folder.path().join("a/log")).unwrap();
        for (name, bytes) in [("one", 3), ("a/two", 4), ("a/b/three", 5), ("a/log/0001", 6), ("a/log/0002", 7)] {
            std::fs::write(folder.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(files_below(folder.path()), (3.0, 12.0, 2.0));
        assert_eq!(files_below(&folder.path().join("none")), (0.0, 0.0, 0.0));
    }
}
