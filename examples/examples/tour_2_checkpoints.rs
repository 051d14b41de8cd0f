//! The second step of docs/tour.md: the same job with checkpoints. Only the end of `main` is new, and shown there.

use std::time::Duration;

use cutwater::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Reading {
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

/// Public for the test that runs it.
pub(crate) fn main() -> anyhow::Result<()> {
    let readings = file::csv::<Reading>("readings.csv")
        .event_time(|reading| Timestamp(reading.time))
        .watermark_on_advance()
        .pace(10_000.0);

    let job = Job::new("meters");
    job.source("readings", readings)
        .key_by(|reading| reading.meter.clone())
        .window(Windows::tumbling(Duration::from_secs(60)))
        .aggregate("largest", largest())
        .map(|(meter, minute, watts)| format!("{meter} minute {} {watts} W", minute.start / 60_000))
        .sink("out", file::lines_sink("out").create_folder());

    let settings = Settings::new()
        .enable_checkpointing(Duration::from_millis(500))
        .checkpoint_storage("checkpoints")
        .set("execution.checkpointing.savepoint-dir", "savepoints");
    let config = Config::new().code(settings).environment(std::env::vars_os()).resolve()?;
    cutwater::run(job.build()?, Options::from_config(&config)?)?;
    Ok(())
}
