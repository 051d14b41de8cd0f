//! The job of `flights`: what is read, what is kept per route, what is written.

mod date;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cutwater::file::{csv, lines_sink};
use cutwater::prelude::*;
use cutwater::storage::Files;
use cutwater::{GraphError, JobGraph};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::date::Date;

/// What the job can be told beside its input and output.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The most records a second.
    pub pace: Option<f64>,
    /// At which record to panic, once.
    pub crash_at: Option<u64>,
    /// The file system that the output goes to; that of the machine unless given.
    pub files: Option<Arc<dyn Files>>,
}

/// The graph: flights from a CSV file, statistics per route, lines into a folder.
///
/// # Errors
///
/// [`GraphError`] if `name` can't be that of a job.
pub fn graph(name: &str, data: &Path, out: &Path, tuning: Tuning) -> Result<JobGraph, GraphError> {
    let Tuning { pace, crash_at, files } = tuning;
    let mut flights = csv::<Line>(data)
        .event_time(|Line(flight)| flight.date.timestamp())
        // The file is in the order of its days: the first flight of a day tells that the day before is complete.
        .watermark_on_advance();
    if let Some(records_per_second) = pace {
        flights = flights.pace(records_per_second);
    }
    let mut output = lines_sink::<Row>(out).create_folder();
    if let Some(files) = files {
        output = output.files(files);
    }
    let job = Job::new(name);
    job.source("flights", flights)
        .map(|Line(flight)| flight)
        .key_by(|flight: &Flight| flight.route.clone())
        .process_with("routes", Routes { crash: crash_at.map(|record| Arc::new(Crash::at(record))) })
        .sink("out", output);
    job.build()
}

/// Some of the flights of the first days of the year: enough for a simulation, which runs them many thousand times.
#[cfg(feature = "simulation")]
const FEW: &str = include_str!("../data/flights-few.csv");

/// The job as a world of the simulation: real flights, the same graph, a modelled disk for its output.
///
/// # Errors
///
/// If the data can't be put into a temporary file, or the job does not work even undisturbed.
#[cfg(feature = "simulation")]
pub fn simulation() -> Result<cutwater::simulation::Simulation, UserError> {
    use cutwater::simulation::{Env, Simulation};

    let folder = Arc::new(tempfile::tempdir()?);
    let data = folder.path().join("flights.csv");
    std::fs::write(&data, FEW)?;
    let make = move |env: &Env| {
        let _kept = &folder; // as long as the job may be made
        let tuning = Tuning { files: Some(env.files()), ..Tuning::default() };
        Ok(graph("flights", &data, env.out(), tuning)?)
    };
    Ok(Simulation::of_job(make)?)
}

/// A flight as it stands in the file.
#[derive(Deserialize)]
struct Columns {
    year: i32,
    month: u32,
    day: u32,
    /// Missing if the flight was cancelled.
    #[serde(deserialize_with = "number_or_na")]
    dep_time: Option<i32>,
    /// Minutes late, negative if early.
    #[serde(deserialize_with = "number_or_na")]
    arr_delay: Option<i32>,
    carrier: String,
    flight: u32,
    origin: String,
    dest: String,
}

/// A record of the source. A type of its own, since a [`Flight`] is read from a checkpoint or another process in the
/// form in which it was written there.
#[derive(Deserialize)]
#[serde(try_from = "Columns")]
struct Line(Flight);

/// What the job uses of a flight.
#[derive(Debug, Serialize, Deserialize)]
struct Flight {
    route: String,
    date: Date,
    /// Carrier and number.
    number: String,
    cancelled: bool,
    arrival_delay: Option<i32>,
}

impl TryFrom<Columns> for Line {
    type Error = String;

    fn try_from(columns: Columns) -> Result<Self, String> {
        let Columns { year, month, day, dep_time, arr_delay, carrier, flight, origin, dest } = columns;
        let date = Date::new(year, month, day).ok_or_else(|| format!("there is no day {year}-{month:02}-{day:02}"))?;
        Ok(Self(Flight {
            route: format!("{origin}-{dest}"),
            date,
            number: format!("{carrier}{flight}"),
            cancelled: dep_time.is_none(),
            arrival_delay: arr_delay,
        }))
    }
}

/// The data writes `NA` where a value is missing.
fn number_or_na<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    struct NumberOrNa;

    impl serde::de::Visitor<'_> for NumberOrNa {
        type Value = Option<i32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number or NA")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<i32>, E> {
            match text {
                "NA" => Ok(None),
                _ => text.parse().map(Some).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_str(NumberOrNa)
}

/// Flights that were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub flights: u64,
    /// Those that never departed.
    pub cancelled: u64,
    /// Flights whose arrival delay is known.
    pub arrived: u64,
    /// Of all delays, in minutes. A whole number, so that the order of the sum can't change the mean.
    pub delay: i64,
}

impl Tally {
    fn add(&mut self, flight: &Flight) {
        self.flights += 1;
        self.cancelled += u64::from(flight.cancelled);
        self.arrived += u64::from(flight.arrival_delay.is_some());
        self.delay += i64::from(flight.arrival_delay.unwrap_or(0));
    }

    /// How late they arrived, in minutes.
    #[must_use]
    pub fn mean_delay(&self) -> Mean {
        Mean { sum: self.delay, count: self.arrived }
    }
}

/// A mean with two decimals, rounded half away from zero; nothing if nothing was counted. Computed in whole numbers, so
/// that each run and machine writes the same text.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    /// What was added up.
    pub sum: i64,
    /// How many there were.
    pub count: u64,
}

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        let count = u128::from(self.count);
        let hundredths = (u128::from(self.sum.unsigned_abs()) * 200 + count) / (2 * count);
        let sign = if self.sum < 0 && hundredths > 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

/// What is kept of a route.
#[derive(Default, Serialize, Deserialize)]
struct Route {
    tally: Tally,
    worst_delay: Option<i32>,
    /// Of the days that are not over, which is one unless the file is out of order.
    days: BTreeMap<Date, Tally>,
}

/// Counts the flights of each route. A timer at each day with flights fires when the watermark has passed it.
#[derive(Clone)]
struct Routes {
    crash: Option<Arc<Crash>>,
}

impl KeyedProcess<String, Flight> for Routes {
    type State = Route;
    type Out = Row;

    fn initial(&self) -> Route {
        Route::default()
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, String, Route, Row>, flight: Flight) -> Result<(), UserError> {
        if let Some(crash) = &self.crash {
            crash.count();
        }
        let route = cx.state()?;
        route.tally.add(&flight);
        route.worst_delay = route.worst_delay.max(flight.arrival_delay);
        let day_begins = !route.days.contains_key(&flight.date);
        route.days.entry(flight.date).or_default().add(&flight);
        let (tally, worst_delay) = (route.tally, route.worst_delay);
        if day_begins {
            cx.register_timer(flight.date.timestamp())?;
        }
        let Flight { route, date, number, .. } = flight;
        cx.emit(Row::Flight { route, date, number, tally, worst_delay });
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, String, Route, Row>, time: Timestamp) -> Result<(), UserError> {
        let date = Date::of(time);
        if let Some(tally) = cx.state()?.days.remove(&date) {
            let route = cx.key().clone();
            cx.emit(Row::Day { date, route, tally });
        }
        Ok(())
    }
}

/// A line of the output.
enum Row {
    /// `flight,route,date,number,flights so far,cancelled so far,mean arrival delay,worst arrival delay`
    Flight { route: String, date: Date, number: String, tally: Tally, worst_delay: Option<i32> },
    /// `day,date,route,flights,cancelled,mean arrival delay`, all of the day
    Day { date: Date, route: String, tally: Tally },
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flight { route, date, number, tally, worst_delay } => {
                let Tally { flights, cancelled, .. } = tally;
                write!(f, "flight,{route},{date},{number},{flights},{cancelled},{},", tally.mean_delay())?;
                worst_delay.map_or(Ok(()), |delay| write!(f, "{delay}"))
            }
            Self::Day { date, route, tally } => {
                let Tally { flights, cancelled, .. } = tally;
                write!(f, "day,{date},{route},{flights},{cancelled},{}", tally.mean_delay())
            }
        }
    }
}

/// A crash to order. It counts all records that the process has processed, those processed again included, so that it
/// strikes once and the restarted attempt gets past it.
struct Crash {
    at: u64,
    seen: AtomicU64,
}

impl Crash {
    fn at(record: u64) -> Self {
        Self { at: record, seen: AtomicU64::new(0) }
    }

    fn count(&self) {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(seen != self.at, "the crash at record {} that --crash-at asked for", self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_half_away_from_zero() {
        let cases = [
            ("nothing counted is nothing", 0, 0, ""),
            ("a whole number", 33, 3, "11.00"),
            ("rounded down", 1, 3, "0.33"),
            ("rounded up", 2, 3, "0.67"),
            ("half a hundredth", 1, 200, "0.01"),
            ("half a hundredth below zero", -1, 200, "-0.01"),
            ("less than half below zero is zero, without sign", -1, 201, "0.00"),
            ("below zero", -35, 2, "-17.50"),
            ("the largest sums", i64::MIN, 1, "-9223372036854775808.00"),
        ];
        for (name, sum, count, text) in cases {
            assert_eq!(Mean { sum, count }.to_string(), text, "{name}");
        }
    }

    #[test]
    fn rows_are_lines_of_csv() {
        let date = Date::new(2013, 1, 2).unwrap();
        let tally = Tally { flights: 3, cancelled: 1, arrived: 2, delay: -7 };
        let (route, number) = ("EWR-IAH".to_owned(), "UA1545".to_owned());
        let flight = Row::Flight { route: route.clone(), date, number: number.clone(), tally, worst_delay: Some(-2) };
        assert_eq!(flight.to_string(), "flight,EWR-IAH,2013-01-02,UA1545,3,1,-3.50,-2");
        let nothing = Tally { flights: 1, cancelled: 1, ..Tally::default() };
        let flight = Row::Flight { route: route.clone(), date, number, tally: nothing, worst_delay: None };
        assert_eq!(flight.to_string(), "flight,EWR-IAH,2013-01-02,UA1545,1,1,,");
        assert_eq!(Row::Day { date, route, tally }.to_string(), "day,2013-01-02,EWR-IAH,3,1,-3.50");
    }
}
