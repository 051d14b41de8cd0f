//! Jobs with named states of all kinds, timers of processing time and windows, in worlds where everything fails.

use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::{
    Aggregate, BroadcastState, JobGraph, KeyedBroadcastProcess, KeyedProcess, ListState, MapState, OperatorListState,
    OperatorStates, Process, ProcessContext, ReadStatus, RecordContext, Source, SourceOutput, SplitReader, States, Ttl,
    UnionListState, UserError, Windows, from_iter, generator,
};
use cutwater_file::lines_sink;
use cutwater_simulation::{Env, Mark, Mutant, Report, Simulation};

const RELEASE: bool = !cfg!(debug_assertions);
const SEEDS: u64 = if RELEASE { 2_000 } else { 60 };
/// Where the fixed seeds don't show what a test is about, so many times as many are tried.
const MOST_ROUNDS: u64 = 20;
const KEYS: u64 = 7;
const RECORDS: u64 = 240;

/// Holds each record back for some milliseconds of processing time; the rest goes with the end of the input.
#[derive(Clone, Default)]
struct Delay {
    waiting: ListState<u64>,
}

impl KeyedProcess<u64, u64> for Delay {
    type State = ();
    type Out = u64;

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.waiting = states.list("waiting")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, (), u64>, n: u64) -> Result<(), UserError> {
        cx.list(self.waiting)?.push(n)?;
        cx.register_timer(Timestamp::MAX)?;
        Ok(cx.register_processing_timer(Timestamp(cx.processing_time().0 + 1 + n as i64 % 4))?)
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, u64, (), u64>, _: Timestamp) -> Result<(), UserError> {
        let waiting: Vec<u64> = cx.list(self.waiting)?.iter()?.copied().collect();
        cx.list(self.waiting)?.clear()?;
        waiting.into_iter().for_each(|n| cx.emit(n));
        Ok(())
    }

    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, u64, (), u64>,
        _: Timestamp,
    ) -> Result<(), UserError> {
        self.on_timer(cx, Timestamp::MAX)
    }
}

/// Tells with each record what the states of its key are.
#[derive(Clone, Default)]
struct Tell {
    all: ListState<u64>,
    rests: MapState<String, u64>,
}

impl KeyedProcess<u64, u64> for Tell {
    type State = u64;
    type Out = String;

    fn initial(&self) -> u64 {
        0
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        // Longer than any world lasts: nothing expires, but one of the states has stamps.
        self.all = states.list("all")?;
        self.rests = states.ttl(Ttl::new(Duration::from_secs(86_400))).map("rests")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, String>, n: u64) -> Result<(), UserError> {
        *cx.state()? += 1;
        cx.list(self.all)?.push(n)?;
        let mut rests = cx.map(self.rests)?;
        let rest = format!("{}", n / KEYS % 5);
        match n % 3 {
            0 => drop(rests.remove(&rest)?),
            _ => *rests.get_or_insert_with(&rest, || 0)? += n,
        }
        let rests: Vec<_> = rests.iter()?.map(|(rest, sum)| format!("{rest}:{sum}")).collect();
        let all: Vec<_> = cx.list(self.all)?.iter()?.map(u64::to_string).collect();
        let count = *cx.state()?;
        let told = format!("{} {count} {} {}", cx.key(), all.join("+"), rests.join("+"));
        cx.emit(told);
        Ok(())
    }
}

/// Gives out its records in threes, and at the end what it has kept of every seventh. Where it does not keep states, it has
/// them as fields of its own.
#[derive(Clone, Default)]
struct Packets {
    states: bool,
    open: OperatorListState<u64>,
    kept: UnionListState<u64>,
    field: Vec<u64>,
}

impl Process<u64> for Packets {
    type Out = String;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.open = states.list("open")?;
        self.kept = states.union_list("kept")?;
        // Each subtask has been given all of them.
        let (subtask, parallelism) = (u64::from(states.subtask()), u64::from(states.parallelism()));
        states.operator_state(self.kept)?.retain(|n| n % parallelism == subtask);
        Ok(())
    }

    fn process(&mut self, cx: &mut RecordContext<'_, String>, n: u64) -> Result<(), UserError> {
        if n.is_multiple_of(7) {
            cx.operator_state(self.kept)?.push(n);
        }
        let open = if self.states { cx.operator_state(self.open)? } else { &mut self.field };
        open.push(n);
        if open.len() == 3 {
            std::mem::take(open).into_iter().for_each(|n| cx.emit(format!("packet {n}")));
        }
        Ok(())
    }

    fn on_watermark(&mut self, cx: &mut RecordContext<'_, String>, time: Timestamp) -> Result<(), UserError> {
        if time == Timestamp::MAX {
            let open = if self.states { cx.operator_state(self.open)? } else { &mut self.field };
            std::mem::take(open).into_iter().for_each(|n| cx.emit(format!("packet {n}")));
            let kept = std::mem::take(cx.operator_state(self.kept)?);
            kept.into_iter().for_each(|n| cx.emit(format!("kept {n}")));
        }
        Ok(())
    }
}

/// Sums up broadcast records, and tells the sums with the count of each key at the end.
#[derive(Clone, Default)]
struct Ruled {
    sums: BroadcastState<u64, u64>,
}

impl KeyedBroadcastProcess<u64, u64, u64> for Ruled {
    type State = u64;
    type Out = String;

    fn initial(&self) -> u64 {
        0
    }

    fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.sums = states.broadcast("sums")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, String>, _: u64) -> Result<(), UserError> {
        *cx.state()? += 1;
        Ok(cx.register_timer(Timestamp::MAX)?)
    }

    fn process_broadcast(&mut self, cx: &mut RecordContext<'_, String>, n: u64) -> Result<(), UserError> {
        *cx.operator_state(self.sums)?.entry(n % 3).or_default() += n;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, u64, u64, String>, _: Timestamp) -> Result<(), UserError> {
        let told = format!("ruled {} {:?} {:?}", cx.key(), cx.peek()?, cx.broadcast_state(self.sums)?);
        cx.emit(told);
        Ok(())
    }
}

/// Says nothing, and ends when it has been asked so often. It is idle before: windows behind it must close as without it.
#[derive(Clone)]
struct Silent {
    asked: u64,
}

struct Listens(u64);

impl Source for Silent {
    type Record = u64;
    type Position = u64;
    type Reader = Listens;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["all".to_owned()])
    }

    fn open(&self, _: &str, position: Option<&u64>) -> Result<Listens, UserError> {
        Ok(Listens(position.copied().unwrap_or(self.asked)))
    }
}

impl SplitReader for Listens {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            0 => Ok(ReadStatus::End),
            _ => Ok(ReadStatus::WaitUntil(out.now() + Duration::from_millis(2))),
        }
    }

    fn position(&self) -> u64 {
        self.0
    }
}

#[derive(Clone)]
struct Sum;

impl Aggregate<u64> for Sum {
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, n: u64) {
        *sum += n;
    }

    fn merge(&self, sum: &mut u64, other: u64) {
        *sum += other;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

fn job(env: &Env) -> Result<JobGraph, UserError> {
    let sink = || lines_sink::<String>(env.out()).create_folder().files(env.files());
    let time = |n: u64| Timestamp((n * 10 + n / 50 * 400) as i64);
    let ms = Duration::from_millis;
    let job = cutwater_dataflow::Job::new("states");
    job.source("delayed-in", from_iter(0..RECORDS))
        .key_by(|n| n % KEYS)
        .process_with("delay", Delay::default())
        .map(|n: u64| format!("delayed {n}"))
        .sink("delayed-out", sink());
    job.source("told-in", from_iter(0..RECORDS))
        .key_by(|n| n % KEYS)
        .process_with("tell", Tell::default())
        .sink("told-out", sink());
    let silent = job.source("silent-in", Silent { asked: 12 }).idleness(ms(3));
    job.source("sessions-in", generator(RECORDS, |n| n).event_time(time))
        .union(silent)
        .key_by(|n| n % KEYS)
        .window(Windows::sessions(ms(200)))
        .aggregate("sessions", Sum)
        .map(|(key, window, sum)| format!("session {key} {}-{} {sum}", window.start, window.end))
        .sink("sessions-out", sink());
    job.source("sliding-in", generator(RECORDS, |n| n).event_time(time))
        .key_by(|n| n % KEYS)
        .window(Windows::sliding(ms(300), ms(100)))
        .process("sliding", |key: &u64, window, records: &[&u64]| {
            let mut records: Vec<u64> = records.iter().map(|n| **n).collect();
            records.sort_unstable();
            [format!("sliding {key} {} {records:?}", window.start)]
        })
        .sink("sliding-out", sink());
    Ok(job.build()?)
}

/// What is without keys, and what is broadcast.
fn operator_job(env: &Env, states: bool) -> Result<JobGraph, UserError> {
    let sink = || lines_sink::<String>(env.out()).create_folder().files(env.files());
    let job = cutwater_dataflow::Job::new("operator-states");
    job.source("packets-in", generator(RECORDS, |n| n))
        .rebalance()
        .process_with("packets", Packets { states, ..Packets::default() })
        .sink("packets-out", sink());
    let rules = job.source("rules-in", generator(RECORDS, |n| n));
    job.source("ruled-in", from_iter(0..RECORDS))
        .key_by(|n| n % KEYS)
        .connect_broadcast(rules)
        .process_with("ruled", Ruled::default())
        .sink("ruled-out", sink());
    Ok(job.build()?)
}

fn breaks_no_rule(simulation: &Simulation) -> Report {
    let report = simulation.run_seeds(0..SEEDS, 2);
    let first = report.failures.first().map(|failure| format!("{failure:?}").chars().take(2_000).collect::<String>());
    assert!(first.is_none(), "{first:?}");
    report
}

/// Something is seen in some run: in one of those that were made, or in some more.
fn assert_seen(simulation: &Simulation, report: &Report, mark: Mark) {
    let more = || (1..MOST_ROUNDS).map(|round| simulation.run_seeds(round * SEEDS..(round + 1) * SEEDS, 2));
    let seen = |report: &Report| report.marks.count(mark) > 0;
    assert!(seen(report) || more().any(|report| seen(&report)), "never: {}", mark.name());
}

#[test]
fn states_timers_and_windows_break_no_rule() {
    let simulation = Simulation::of_job(job).unwrap();
    let report = breaks_no_rule(&simulation);
    assert_seen(&simulation, &report, Mark::DeltaRestored);
}

#[test]
fn operator_states_break_no_rule() {
    let simulation = Simulation::of_job(|env: &Env| operator_job(env, true)).unwrap();
    let report = breaks_no_rule(&simulation);
    for mark in [Mark::Rescaled, Mark::FromSavepoint, Mark::OpenedWithCheckpoint] {
        assert_seen(&simulation, &report, mark);
    }
}

#[test]
fn what_an_operator_keeps_outside_of_its_states_is_found() {
    let failure = Simulation::of_job(|env: &Env| operator_job(env, false)).unwrap().first_failure(0..20_000, 2);
    assert!(failure.is_some(), "no world shows that a field of the operator is lost");
}

#[test]
fn timers_that_are_not_restored_are_found() {
    let simulation = Simulation::of_job(job).unwrap().with_mutant(Some(Mutant::TimersLost));
    let failure = simulation.first_failure(0..20_000, 2);
    assert!(failure.is_some(), "no world shows that timers are lost");
}
