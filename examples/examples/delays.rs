//! Departure delays by the hour at New York's three airports in 2013, with the wind of that hour: two streams that meet
//! (`connect`), then sliding windows of three hours, one each hour. `cargo run --release --example delays`.

use std::path::Path;
use std::time::Duration;

use cutwater::file::{csv, lines_sink};
use cutwater::prelude::*;
use cutwater_examples::flights::Date;
use serde::{Deserialize, Serialize};

const HOUR: i64 = 3_600_000;

/// An hour of an airport.
type Key = (String, i64);

/// A flight, as far as it matters here.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Flight {
    year: i32,
    month: u32,
    day: u32,
    /// When it should have left.
    hour: i64,
    /// Minutes late; `NA` if it never left.
    dep_delay: String,
    origin: String,
}

/// The weather of an hour.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Weather {
    year: i32,
    month: u32,
    day: u32,
    hour: i64,
    /// Miles an hour, or `NA`.
    wind_speed: String,
    origin: String,
}

fn day(year: i32, month: u32, day: u32) -> Timestamp {
    Date::new(year, month, day).map_or(Timestamp::MIN, Date::timestamp)
}

impl Flight {
    fn day(&self) -> Timestamp {
        day(self.year, self.month, self.day)
    }

    fn key(&self) -> Key {
        (self.origin.clone(), self.day().0 + self.hour * HOUR)
    }
}

impl Weather {
    fn day(&self) -> Timestamp {
        day(self.year, self.month, self.day)
    }

    fn key(&self) -> Key {
        (self.origin.clone(), self.day().0 + self.hour * HOUR)
    }
}

/// A departure with the wind at its hour, if that is known.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Departure {
    origin: String,
    delay: f64,
    wind: Option<f64>,
}

/// Joins the flights of an hour with its weather. Both files are in the order of their days, not of their hours; the hour is
/// complete when the watermark of both has passed it.
#[derive(Clone, Default)]
struct Join {
    delays: ListState<f64>,
}

impl KeyedProcess2<Key, Flight, Weather> for Join {
    type State = Option<f64>;
    type Out = Departure;

    fn initial(&self) -> Option<f64> {
        None
    }

    fn open(&mut self, states: &mut States<'_, Key>) -> Result<(), UserError> {
        self.delays = states.list("delays")?;
        Ok(())
    }

    fn process1(
        &mut self,
        cx: &mut ProcessContext<'_, Key, Option<f64>, Departure>,
        flight: Flight,
    ) -> Result<(), UserError> {
        if let Ok(delay) = flight.dep_delay.parse() {
            cx.list(self.delays)?.push(delay)?; // cancelled flights have none
        }
        Ok(cx.register_timer(Timestamp(cx.key().1))?)
    }

    fn process2(
        &mut self,
        cx: &mut ProcessContext<'_, Key, Option<f64>, Departure>,
        weather: Weather,
    ) -> Result<(), UserError> {
        *cx.state()? = weather.wind_speed.parse().ok();
        Ok(cx.register_timer(Timestamp(cx.key().1))?)
    }

    fn on_timer(
        &mut self,
        cx: &mut ProcessContext<'_, Key, Option<f64>, Departure>,
        hour: Timestamp,
    ) -> Result<(), UserError> {
        let wind = *cx.state()?;
        let delays: Vec<f64> = cx.list(self.delays)?.iter()?.copied().collect();
        for delay in delays {
            let origin = cx.key().0.clone();
            cx.emit_at(hour, Departure { origin, delay, wind });
        }
        cx.list(self.delays)?.clear()?;
        Ok(cx.clear()?)
    }
}

/// Sums, for means.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Sums {
    flights: u32,
    delay: f64,
    winds: u32,
    wind: f64,
}

impl Sums {
    fn add(&mut self, departure: Departure) {
        self.flights += 1;
        self.delay += departure.delay;
        if let Some(wind) = departure.wind {
            self.winds += 1;
            self.wind += wind;
        }
    }

    fn merge(&mut self, other: Self) {
        self.flights += other.flights;
        self.delay += other.delay;
        self.winds += other.winds;
        self.wind += other.wind;
    }

    /// As `JFK,2013-01-01,05,12 flights,3.5 min late,12.7 mph`: the window that begins at that hour.
    fn line(&self, origin: &str, window: Window) -> String {
        let (date, hour) = (Date::of(Timestamp(window.start)), window.start.rem_euclid(24 * HOUR) / HOUR);
        let wind = match self.winds {
            0 => "wind unknown".to_owned(),
            winds => format!("{:.1} mph", self.wind / f64::from(winds)),
        };
        let late = self.delay / f64::from(self.flights);
        format!("{origin},{date},{hour:02},{} flights,{late:.1} min late,{wind}", self.flights)
    }
}

/// Runs the job; public for the test.
pub(crate) fn run(
    flights: &Path,
    weather: &Path,
    out: &Path,
    checkpoints: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("delays");
    let hours = job
        .source("weather", csv::<Weather>(weather).event_time(Weather::day).watermark_on_advance())
        .key_by(Weather::key);
    job.source("flights", csv::<Flight>(flights).event_time(Flight::day).watermark_on_advance())
        .key_by(Flight::key)
        .connect(hours)
        .process_with("join", Join::default())
        .key_by(|departure| departure.origin.clone())
        .window(Windows::sliding(Duration::from_secs(3 * 3600), Duration::from_secs(3600)))
        .aggregate("means", folding(Sums::default, Sums::add, Sums::merge))
        .map(|(origin, window, sums)| sums.line(&origin, window))
        .sink("out", lines_sink(out).create_folder());

    let settings = Settings::new().enable_checkpointing(Duration::from_millis(200)).checkpoint_storage(checkpoints);
    let options = Options::from_config(&Config::new().code(settings).resolve()?)?;
    cutwater::run(job.build()?, options)?;
    Ok(())
}

#[cfg_attr(test, expect(dead_code, reason = "the test runs it on data of its own"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    run(
        &data.join("flights-2013.csv.zst"),
        &data.join("weather-2013.csv.zst"),
        Path::new("out/delays"),
        "checkpoints",
    )?;
    println!("the means of three hours are in out/delays: sort -t, -k5 -rn out/delays/* | head");
    Ok(())
}
