//! Benchmarks of whole jobs, each figure beside its limit from the same run.
//!
//! `cargo run --release -p cutwater-benches -- CASE`, with `--json` for one JSON document. Units are in the names of
//! the figures; MB are 1e6 bytes. With `--features mimalloc` the jobs run with that allocator instead of the system's; with
//! `--features s3` checkpoints can go to a MinIO, which `./test.sh` installs.

mod backend;
mod blobs;
mod clock;
mod deltas;
mod histogram;
mod job;
mod keyed_count;
mod keys;
mod machine;
mod meter;
mod place;
mod recovery;
mod report;
mod restore;
#[cfg(feature = "s3")]
mod s3;
mod scale;
mod snapshot;
mod soak;

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::machine::Machine;

/// It asks the system for huge pages, which the system's own allocator does only when told to by the environment.
/// Which allocator is best is for programs to say, so no library of ours chooses one.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures whole jobs; prints each figure with its limit from the same run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    case: Case,
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Case {
    /// Sums per key at full rate: throughput, what checkpoints cost, how long batches take meanwhile.
    KeyedCount(keyed_count::KeyedCount),
    /// Full checkpoints of a large state, beside the synced disk.
    Snapshot(snapshot::Snapshot),
    /// Starts from a checkpoint of a large state, beside plain reads.
    Restore(restore::Restore),
    /// From a panic to the next output.
    Recovery(recovery::Recovery),
    /// Checkpoints of a large state of which a part has changed, and a start from a chain of them, beside a full one.
    Deltas(deltas::Deltas),
    /// Load for minutes with a checkpoint each second: memory, descriptors and files must not grow.
    Soak(soak::Soak),
    /// 500 named states, 1,000 operators, 256 subtasks, each beside the same job with few.
    Scale(scale::Scale),
}

fn main() -> anyhow::Result<()> {
    let Arguments { case, json } = Arguments::parse();
    let machine = Machine::look();
    let report = match case {
        Case::KeyedCount(case) => case.run(machine)?,
        Case::Snapshot(case) => case.run(machine)?,
        Case::Restore(case) => case.run(machine)?,
        Case::Recovery(case) => case.run(machine)?,
        Case::Deltas(case) => case.run(machine)?,
        Case::Soak(case) => case.run(machine)?,
        Case::Scale(case) => case.run(machine)?,
    };
    report.print(json)
}

/// Parses `1s`, `200ms` or `500us`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1_000.0), ("us", 1_000_000.0), ("s", 1.0)];
    let parsed = units.iter().find_map(|(unit, per_second)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number / per_second).ok().filter(|duration| !duration.is_zero())
    });
    parsed.ok_or_else(|| format!("{text:?} is not a duration above zero such as 1s, 200ms or 500us"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        let cases = [
            ("seconds", "1s", Some(Duration::from_secs(1))),
            ("a fraction", "0.5s", Some(Duration::from_millis(500))),
            ("milliseconds", "200ms", Some(Duration::from_millis(200))),
            ("microseconds", "500us", Some(Duration::from_micros(500))),
            ("no unit", "1", None),
            ("nothing", "0s", None),
            ("below nothing", "-1s", None),
            ("no number", "s", None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(duration(text).ok(), expected, "{name}");
        }
    }
}
