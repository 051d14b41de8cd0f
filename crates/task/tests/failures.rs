//! A failure names the operator, the subtask and the source record.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use cutwater_core::{Attempt, Barrier, CheckpointId, EdgeId, Epoch, Moment, SnapshotForm, TaskId, Timestamp};
use cutwater_dataflow::exec::Origin;
use cutwater_dataflow::{
    CommitContext, Committer, Job, JobGraph, NonRecoverable, Prepared, ProcessContext, Sink, SinkContext, SinkWriter,
    Stream, UserError, discard, generator,
};
use cutwater_task::{Action, Cause, TaskCore, TaskError, TaskSettings, TaskStart};
use world::source::{Numbers, Record};
use world::{Chaos, World};

/// Fails to write a certain number, or to prepare.
#[derive(Clone, Copy)]
struct Failing(Option<u64>);

impl Sink<u64> for Failing {
    type Writer = Self;

    fn open(&self, _: &SinkContext) -> Result<Self, UserError> {
        Ok(*self)
    }

    fn committer(&self, _: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        Sink::<u64>::committer(
            &discard(),
            &CommitContext {
                job: String::new(),
                operator: cutwater_core::OperatorUid::new("x").unwrap(),
                epoch: Epoch(1),
                attempt: Attempt(1),
            },
        )
    }
}

impl SinkWriter<u64> for Failing {
    fn write(&mut self, _: Option<Timestamp>, record: u64) -> Result<(), UserError> {
        if self.0 == Some(record) { Err("full".into()) } else { Ok(()) }
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        if self.0.is_none() { Err("no sync".into()) } else { Ok(Vec::new()) }
    }
}

/// A number other than 41 as it is.
fn check(n: u64) -> Result<u64, UserError> {
    if n == 41 { Err("bad number".into()) } else { Ok(n) }
}

type Context<'a> = ProcessContext<'a, u64, u64, u64>;

fn checked(cx: &mut Context<'_>, n: u64) -> Result<(), UserError> {
    cx.emit(check(n)?);
    Ok(())
}

fn passed(cx: &mut Context<'_>, n: u64) -> Result<(), UserError> {
    cx.emit(n);
    Ok(())
}

fn build(write: impl FnOnce(&Job)) -> JobGraph {
    let job = Job::new("failing");
    write(&job);
    job.build().unwrap()
}

/// Runs at a parallelism of one, with a checkpoint at the end, until it fails; a panic counts as a failure, as in a host.
fn failure(graph: &JobGraph) -> TaskError {
    let settings = TaskSettings { window_bytes: 700, ..TaskSettings::default() };
    let mut cores: Vec<_> = (0..u32::try_from(graph.tasks().len()).unwrap())
        .map(|task| TaskCore::new(graph, &TaskStart::fresh(TaskId(task), 0, 1), settings.clone()).unwrap())
        .collect();
    let mut now = Moment::ZERO;
    for round in 0..10_000 {
        now = now + Duration::from_micros(300);
        for at in 0..cores.len() {
            if round == 5000 {
                let (epoch, attempt) = (Epoch(1), Attempt(1));
                cores[at].handle_trigger(
                    now,
                    Barrier { epoch, attempt, checkpoint: CheckpointId(1), base: None, form: SnapshotForm::Configured },
                );
            }
            match catch_unwind(AssertUnwindSafe(|| cores[at].run(now))) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(panic) => {
                    let message = (*panic.downcast_ref::<&str>().unwrap()).to_owned();
                    return cores[at].fault(Cause::Panic { message, at: None });
                }
            }
            while let Some(action) = cores[at].poll_action() {
                match action {
                    Action::Send { element, .. } => {
                        cores[at + 1].handle_element(now, cutwater_core::ChannelId(0), element);
                    }
                    Action::Credit { bytes, .. } => {
                        let edge = EdgeId(u32::try_from(at - 1).unwrap());
                        cores[at - 1].handle_credit(cutwater_dataflow::exec::OutputChannel { edge, to: 0 }, bytes);
                    }
                    Action::SnapshotBegun { .. }
                    | Action::Block { .. }
                    | Action::SnapshotComplete { .. }
                    | Action::SnapshotDropped { .. }
                    | Action::Decline { .. }
                    | Action::EndOfData
                    | Action::LastCut { .. } => {}
                }
            }
        }
    }
    panic!("it never failed");
}

#[test]
fn a_failure_names_operator_and_source_record() {
    let numbers = || generator(100, |n| n);
    let timed = || generator(100, |n| n).event_time(|n| Timestamp(i64::try_from(n).unwrap()));
    fn keyed<H: cutwater_dataflow::Head, C: cutwater_dataflow::Compose<H::Out, Out = u64>>(stream: Stream<'_, H, C>) {
        stream.key_by(|n| *n).process("checked", checked).sink("out", discard());
    }
    let cases: Vec<(&str, JobGraph, &str)> = vec![
        (
            "process",
            build(|job| keyed(job.source("numbers", numbers()))),
            "operator checked, subtask 0, source record 42: bad number",
        ),
        (
            "process with watermarks between the records",
            build(|job| keyed(job.source("numbers", timed()))),
            "operator checked, subtask 0, source record 42: bad number",
        ),
        (
            "process behind a process",
            build(|job| keyed(job.source("numbers", timed()).key_by(|n| n % 5).process("passed", passed))),
            "operator checked, subtask 0, source record 42: bad number",
        ),
        (
            "process behind a filter: a range",
            build(|job| keyed(job.source("numbers", numbers()).filter(|n| n % 2 == 1))),
            "operator checked, subtask 0, source records 2 to 100: bad number",
        ),
        (
            "process behind a flat_map, as many records as before but not one for each",
            build(|job| {
                keyed(job.source("numbers", numbers()).flat_map(|n| if n % 2 == 0 { vec![n, n + 1] } else { vec![] }));
            }),
            "operator checked, subtask 0, source records 1 to 100: bad number",
        ),
        (
            "a panic in a map",
            build(|job| {
                let stream = job.source("numbers", numbers()).filter(|n| n % 2 == 1);
                stream.map(|n| if n == 41 { panic!("oh") } else { n }).sink("out", discard());
            }),
            "operator map, subtask 0, source record 42: panic: oh",
        ),
        (
            "a panic in a key",
            build(|job| {
                let keyed = job.source("numbers", numbers()).key_by(|n| if *n == 41 { panic!("oh") } else { *n });
                keyed.fold("sum", 0u64, |sum, n| *sum += n).sink("out", discard());
            }),
            "operator key_by, subtask 0, source record 42: panic: oh",
        ),
        (
            "a panic in a fold",
            build(|job| {
                let keyed = job.source("numbers", numbers()).key_by(|n| *n);
                keyed.fold("sum", 0u64, |_, n| assert!(n != 41, "oh")).sink("out", discard());
            }),
            "operator sum, subtask 0, source record 42: panic: oh",
        ),
        (
            "a write behind a source",
            build(|job| job.source("numbers", numbers()).sink("out", Failing(Some(41)))),
            "operator out, subtask 0, source record 42: full",
        ),
        (
            "a write behind a process",
            build(|job| {
                let keyed = job.source("numbers", numbers()).key_by(|n| *n);
                keyed.process("passed", passed).sink("out", Failing(Some(41)));
            }),
            "operator out, subtask 0, source record 42: full",
        ),
        (
            "a cut belongs to no record",
            build(|job| job.source("numbers", numbers()).sink("out", Failing(None))),
            "operator out, subtask 0: no sync",
        ),
        (
            "a timer belongs to no record",
            build(|job| {
                job.source("numbers", timed())
                    .key_by(|n| *n)
                    .process_with_timers(
                        "timed",
                        |cx: &mut Context<'_>, n| Ok(cx.register_timer(Timestamp(i64::try_from(n)? + 7))?),
                        |cx, _| check(*cx.key()).map(drop),
                    )
                    .sink("out", discard());
            }),
            "operator timed, subtask 0: bad number",
        ),
    ];
    for (name, graph, expected) in cases {
        assert_eq!(failure(&graph).to_string(), expected, "{name}");
    }
}

/// A source whose record 42 can't be read.
#[derive(Clone, Copy)]
struct Torn;

struct TornReader(u64);

impl cutwater_dataflow::Source for Torn {
    type Record = u64;
    type Position = u64;
    type Reader = TornReader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["one".to_owned()])
    }

    fn open(&self, _: &str, position: Option<&u64>) -> Result<TornReader, UserError> {
        Ok(TornReader(position.copied().unwrap_or(0)))
    }
}

impl cutwater_dataflow::SplitReader for TornReader {
    type Record = u64;
    type Position = u64;

    fn read(
        &mut self,
        out: &mut cutwater_dataflow::SourceOutput<u64>,
    ) -> Result<cutwater_dataflow::ReadStatus, UserError> {
        for _ in 0..10 {
            out.emit(check(self.0)?);
            self.0 += 1;
        }
        Ok(cutwater_dataflow::ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_record_that_can_not_be_read_is_named() {
    let error = failure(&build(|job| job.source("torn", Torn).sink("out", discard())));
    assert_eq!(error.to_string(), "operator torn, subtask 0, source record 42: bad number");
    assert!(!error.is_non_recoverable());
}

#[test]
fn an_operator_that_can_not_be_opened_is_named() {
    struct Closed;
    impl Sink<u64> for Closed {
        type Writer = Failing;
        fn open(&self, _: &SinkContext) -> Result<Failing, UserError> {
            Err(NonRecoverable::new("no such folder").into())
        }
        fn committer(&self, context: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
            Sink::<u64>::committer(&discard(), context)
        }
    }
    let graph = build(|job| job.source("numbers", generator(1, |n| n)).sink("out", Closed));
    let error = TaskCore::new(&graph, &TaskStart::fresh(TaskId(0), 0, 1), TaskSettings::default()).err().unwrap();
    assert_eq!(error.to_string(), "operator numbers -> out, subtask 0: no such folder");
    assert!(error.is_non_recoverable());
}

const NUMBERS: Numbers = Numbers { splits: 3, count: 50, keys: 7, chunk: 4, pause: Duration::ZERO };

fn bad(_: &mut ProcessContext<'_, u64, u64, ()>, record: Record) -> Result<(), UserError> {
    if record.split == 1 && record.number == 30 { Err("bad record".into()) } else { Ok(()) }
}

/// Runs until the bad record, which is number 31 of split 1.
fn position(graph: JobGraph, seed: u64) -> Option<Origin> {
    let chaos = Chaos { checkpoint: 50, ..Chaos::NONE };
    let mut world = World::new(graph, TaskSettings { window_bytes: 400, ..TaskSettings::default() }, chaos, seed);
    let error = world.run().unwrap_err();
    assert_eq!(error.operator, "bad", "seed {seed}");
    let Origin { source, first, last } = error.position?;
    let parallelism = world.parallelism();
    assert_eq!(source.index, 1 % parallelism, "seed {seed}: the subtask that reads the split");
    // It counts the records of all its splits.
    let others = (0..3).filter(|split| split % parallelism == source.index).count() as u64 - 1;
    assert!(first <= last && last >= 31 && first <= 31 + others * 50, "seed {seed}: {first} to {last}");
    error.position
}

#[test]
fn a_range_holds_the_record() {
    for seed in 0..100 {
        let near = build(|job| {
            job.source("numbers", NUMBERS).key_by(|record| record.key).process("bad", bad).sink("out", discard());
        });
        assert!(position(near, seed).is_some(), "seed {seed}: no position");
        // Behind a second exchange, a batch may be made of several sources; then it has no position.
        let far = build(|job| {
            job.source("numbers", NUMBERS)
                .key_by(|record| record.key)
                .process("pass", |cx: &mut ProcessContext<'_, u64, u64, Record>, record| {
                    cx.emit(record);
                    Ok(())
                })
                .key_by(|record| record.key % 2)
                .process("bad", bad)
                .sink("out", discard());
        });
        position(far, seed);
    }
}
