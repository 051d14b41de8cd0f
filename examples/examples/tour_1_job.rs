//! The first step of docs/tour.md: a job without checkpoints. Shown there from the first `use` on.

use std::time::Duration;

use cutwater::prelude::*;
use serde::{Deserialize, Serialize};

/// What a meter showed.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Reading {
    time: i64, // in milliseconds
    meter: String,
    watts: u32,
}

/// The largest of some readings.
fn largest() -> impl cutwater::Aggregate<Reading, Out = u32> {
    folding(
        || 0,
        |most: &mut u32, reading: Reading| *most = reading.watts.max(*most),
        |most, other| *most = other.max(*most),
    )
}

fn main() -> anyhow::Result<()> {
    let readings = file::csv::<Reading>("readings.csv")
        .event_time(|reading| Timestamp(reading.time))
        .watermark_on_advance()
        .pace(10_000.0); // records a second, to have time to look

    let job = Job::new("meters");
    job.source("readings", readings)
        .key_by(|reading| reading.meter.clone())
        .window(Windows::tumbling(Duration::from_secs(60)))
        .aggregate("largest", largest())
        .map(|(meter, minute, watts)| format!("{meter} minute {} {watts} W", minute.start / 60_000))
        .sink("out", file::lines_sink("out").create_folder());

    cutwater::run(job.build()?, Options::new())?;
    Ok(())
}
