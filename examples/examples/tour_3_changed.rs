//! The third step of docs/tour.md: the job has a second operator, and tests. Shown there in pieces.

use std::path::Path;
use std::time::Duration;

use cutwater::prelude::*;
use cutwater::{GraphError, JobGraph, Sink, Source};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reading {
    time: i64,
    meter: String,
    watts: u32,
}

fn largest() -> impl cutwater::Aggregate<Reading, Out = u32> {
    folding(
        || 0,
        |most: &mut u32, reading: Reading| *most = reading.watts.max(*most),
        |most, other| *most = other.max(*most),
    )
}

const MINUTE: i64 = 60_000;

/// Tells of meters that gave nothing for a minute. Those of one meter must come in the order of their times.
#[derive(Clone)]
struct Silence;

impl KeyedProcess<String, Reading> for Silence {
    type State = i64; // the time of the newest reading
    type Out = String;

    fn initial(&self) -> i64 {
        0
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, String, i64, String>, reading: Reading) -> Result<(), UserError> {
        let before = std::mem::replace(cx.state()?, reading.time);
        cx.delete_timer(Timestamp(before + MINUTE))?;
        cx.register_timer(Timestamp(reading.time + MINUTE))?;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, String, i64, String>, time: Timestamp) -> Result<(), UserError> {
        if cx.watermark() < Timestamp::MAX {
            let line = format!("{} silent since second {}", cx.key(), (time.0 - MINUTE) / 1000);
            cx.emit(line);
        } // else the input has ended, and time with it
        Ok(())
    }
}

pub(crate) fn readings(path: impl AsRef<Path>) -> file::CsvSource<Reading> {
    file::csv(path.as_ref()).event_time(|reading: &Reading| Timestamp(reading.time)).watermark_on_advance()
}

pub(crate) fn graph(readings: impl Source<Record = Reading>, out: impl Sink<String>) -> Result<JobGraph, GraphError> {
    let job = Job::new("meters");
    let meters = job.source("readings", readings).fan_out();
    let largest = meters
        .branch()
        .key_by(|reading| reading.meter.clone())
        .window(Windows::tumbling(Duration::from_secs(60)))
        .aggregate("largest", largest())
        .map(|(meter, minute, watts)| format!("{meter} minute {} {watts} W", minute.start / MINUTE));
    let silent = meters.branch().key_by(|reading| reading.meter.clone()).process_with("silence", Silence);
    largest.union(silent).sink("out", out);
    job.build()
}

fn main() -> anyhow::Result<()> {
    let job = graph(readings("readings.csv").pace(10_000.0), file::lines_sink("out").create_folder())?;
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_millis(500))
        .checkpoint_storage("checkpoints")
        .set("execution.checkpointing.savepoint-dir", "savepoints");
    let config = Config::new().code(settings).environment(std::env::vars_os()).resolve()?;
    cutwater::run(job, Options::from_config(&config)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutwater::testing::TestHarness;

    #[test]
    fn a_meter_that_gives_nothing_for_a_minute_is_silent() -> Result<(), UserError> {
        let reading = |time| Reading { time, meter: "m3".to_owned(), watts: 100 };
        let mut harness = TestHarness::new(Silence, 2)?;
        harness.push("m3".to_owned(), reading(1_000))?;
        harness.push("m3".to_owned(), reading(5_000))?;
        harness.watermark(64_999)?;
        assert_eq!(harness.take(), []);

        let snapshot = harness.snapshot()?; // as a checkpoint would
        let mut harness = TestHarness::restore(Silence, 3, &snapshot)?; // as a restart at another parallelism would
        harness.watermark(65_000)?;
        assert_eq!(harness.take(), [(Some(Timestamp(65_000)), "m3 silent since second 5".to_owned())]);
        Ok(())
    }
}

#[cfg(all(test, feature = "simulation"))]
mod worlds {
    use super::*;
    use cutwater::simulation::{Env, Simulation};

    #[test]
    fn whatever_fails_the_output_is_the_same() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("readings.csv");
        let lines = (0..300).filter(|n| n % 7 != 3 || *n < 120 || *n > 200);
        let lines: Vec<_> = lines.map(|n| format!("{},m{},{}\n", n * 1_000, n % 7, n * 7_919 % 2_000)).collect();
        std::fs::write(&path, format!("time,meter,watts\n{}", lines.concat()))?;

        let graph = move |env: &Env| {
            let out = file::lines_sink(env.out()).create_folder().files(env.files());
            Ok(graph(readings(&path), out)?)
        };
        let report = Simulation::of_job(graph)?.run_seeds(0..50, 2);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        Ok(())
    }
}
