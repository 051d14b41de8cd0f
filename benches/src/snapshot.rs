//! A full checkpoint of a large state, beside the same bytes written plainly and synced.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::blobs::{StateSize, noise};
use crate::clock;
use crate::job::{Folder, ms, options, synchronous_part};
use crate::keys::Gate;
use crate::machine::Machine;
use crate::report::{Bound, Figure, Report};

/// Arguments of `snapshot`.
#[derive(clap::Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    size: StateSize,
    /// Where to put the folder of checkpoints.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
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

impl Snapshot {
    pub(crate) fn run(&self, machine: Machine) -> anyhow::Result<Report> {
        let folder = Folder::below(self.checkpoints.as_deref())?;
        let gate = Arc::new(Gate::default());
        let job = self.size.fill(&gate, options(self.size.parallelism, folder.path()))?;
        gate.set_open(self.busy);
        clock::pause(SETTLE);
        let block = noise(0, 1 << 20);
        let (mut end_to_end, mut sync, mut rates, mut raw) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..self.pairs {
            let (took, checkpoint) = job.checkpoint()?;
            bytes = checkpoint.state_bytes();
            end_to_end.push(took);
            sync.push(ms(synchronous_part(&checkpoint)));
            rates.push(bytes as f64 / 1e6 / took.as_secs_f64());
            // The plain write has the machine to itself: the limit is what the disk can do.
            gate.set_open(false);
            clock::pause(SETTLE);
            // Once before, so that it does not depend on what the checkpoint has left: memory that the system, or the host
            // of a virtual machine, has to find first.
            write(folder.path(), bytes, &block)?;
            raw.push(bytes as f64 / 1e6 / write(folder.path(), bytes, &block)?.as_secs_f64());
            gate.set_open(self.busy);
        }
        job.cancel()?;
        let parameters = json!({
            "state_bytes": bytes,
            "value_bytes": self.size.value,
            "keys": self.size.keys(),
            "parallelism": self.size.parallelism,
            "busy": self.busy,
            "pairs": self.pairs,
            "folder": folder.path().parent(),
        });
        let mut report = Report::new("snapshot", machine, parameters);
        report.figure(
            Figure::new("checkpoint_mb_per_second", rates)
                .beside("plain_synced_write_mb_per_second", raw)
                .ratio_should_be(Bound::AtLeast(0.8)),
        );
        report.figure(Figure::new("checkpoint_ms", end_to_end.into_iter().map(ms)));
        report.figure(Figure::new("synchronous_part_ms", sync));
        report.note(
            "A checkpoint is measured from asking for it until its record is durable; MB are 1e6 bytes. The plain write \
             puts as many pseudo-random bytes into one file of the same folder, in pieces of 1 MiB, and syncs it; the second \
             of two in a row counts.",
        );
        Ok(report)
    }
}

/// Writes so many bytes into a new file, syncs it and removes it again.
fn write(folder: &Path, bytes: u64, block: &[u8]) -> anyhow::Result<Duration> {
    let path = folder.join("plain");
    let start = clock::now();
    let mut file = File::create_new(&path).with_context(|| format!("could not make {}", path.display()))?;
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()?;
    let took = clock::since(start);
    std::fs::remove_file(&path)?;
    Ok(took)
}
