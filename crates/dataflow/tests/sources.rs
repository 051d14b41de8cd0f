//! Sources: positions, splits and watermarks, driven as a task drives them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use cutwater_core::{Attempt, CheckpointId, Epoch, MaxParallelism, Moment, SubtaskId, TaskId, Timestamp};
use cutwater_dataflow::exec::{
    BuildContext, Chain, ChainSnapshot, ClaimedStates, Element, Exec, OperatorSnapshot, Outbox, SourcePoll,
};
use cutwater_dataflow::{
    Collect, Job, JobGraph, ReadStatus, Source, SourceOutput, SplitReader, UserError, from_iter, generator,
};
use proptest::prelude::*;

/// Everything that a split yields from `position` on, with the position after each read of at most `limit` records.
fn read<S: Source>(
    source: &S,
    split: &str,
    position: Option<&S::Position>,
    limit: usize,
) -> Vec<(Vec<S::Record>, S::Position)> {
    let mut reader = source.open(split, position).unwrap();
    let mut reads = Vec::new();
    loop {
        let mut out = SourceOutput::new(limit);
        let status = reader.read(&mut out).unwrap();
        let records: Vec<_> = out.take().into_iter().map(|(_, record)| record).collect();
        assert!(records.len() <= limit, "more than there is room for");
        reads.push((records, reader.position()));
        if status == ReadStatus::End {
            return reads;
        }
    }
}

fn flat<T, P>(reads: Vec<(Vec<T>, P)>) -> Vec<T> {
    reads.into_iter().flat_map(|(records, _)| records).collect()
}

/// Reopened at each position on the way, a split yields exactly the rest.
fn check_positions<S: Source>(source: &S, split: &str, limit: usize)
where
    S::Record: PartialEq + std::fmt::Debug,
{
    let all = flat(read(source, split, None, limit));
    let mut before = 0;
    for (records, position) in read(source, split, None, limit) {
        before += records.len();
        assert_eq!(flat(read(source, split, Some(&position), limit)), all[before..], "{split}, after {before}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_split_goes_on_where_its_position_says(count in 0u64..60, limit in 1usize..20, splits in 1u32..5) {
        check_positions(&from_iter((0..count).map(|n| n * 3)), "all", limit);
        let numbers = generator(count, |n| n * 3);
        for split in numbers.splits(splits).unwrap() {
            check_positions(&numbers, &split, limit);
        }
    }

    #[test]
    fn all_splits_of_a_generator_make_each_number_once(count in 0u64..60, splits in 1u32..5) {
        let numbers = generator(count, |n| n);
        let names = numbers.splits(splits).unwrap();
        let mut made: Vec<_> = names.iter().flat_map(|split| flat(read(&numbers, split, None, 7))).collect();
        made.sort_unstable();
        prop_assert_eq!(made, (0..count).collect::<Vec<_>>());
    }

    /// Stopped anywhere, as often as you like, and opened again at another parallelism: no record is lost or repeated.
    #[test]
    fn splits_are_spread_anew_after_a_restore(steps in prop::collection::vec((1u32..6, 0usize..12), 1..5)) {
        let mut restored = Vec::new();
        let mut all = Vec::new();
        for (parallelism, reads) in steps {
            let out = Collect::default();
            let graph = graph(generator(97, |n| n), &out);
            let mut subtasks: Vec<_> =
                (0..parallelism).map(|index| Subtask::new(&graph, index, parallelism, &restored)).collect();
            for at in 0..reads {
                subtasks[at % parallelism as usize].read(5);
            }
            restored = subtasks.iter_mut().flat_map(|subtask| subtask.snapshot(&graph)).collect();
            all.extend(out.take());
        }
        let out = Collect::default();
        let graph = graph(generator(97, |n| n), &out);
        for index in 0..3 {
            let mut subtask = Subtask::new(&graph, index, 3, &restored);
            while subtask.read(50) == SourcePoll::More {}
            subtask.snapshot(&graph);
        }
        all.extend(out.take());
        all.sort_unstable();
        prop_assert_eq!(all, (0..97).collect::<Vec<_>>());
    }
}

fn graph<S: Source>(source: S, out: &Collect<S::Record>) -> JobGraph {
    let job = Job::new("sources");
    job.source("source", source).sink("out", out.clone());
    job.build().unwrap()
}

/// A source subtask without the task around it.
struct Subtask {
    chain: Box<dyn Chain>,
    exec: Exec,
}

impl Subtask {
    fn new(graph: &JobGraph, index: u32, parallelism: u32, restored: &[OperatorSnapshot]) -> Self {
        let spec = &graph.tasks()[0];
        let outputs: Vec<_> = spec.outputs.iter().map(|output| (output.edge, 1, u64::MAX)).collect();
        let chain = (spec.build)(&BuildContext {
            job: graph.name(),
            subtask: SubtaskId { task: TaskId(0), index },
            parallelism,
            max_parallelism: MaxParallelism::default(),
            receivers: &vec![1; outputs.len()],
            epoch: Epoch(1),
            attempt: Attempt(1),
            watermark: Timestamp::MIN,
            from_nothing: restored.is_empty(),
            restored,
            claimed: &ClaimedStates::default(),
            tier: None,
        });
        Self { chain: chain.unwrap(), exec: Exec::new(Outbox::new(&outputs)) }
    }

    fn read(&mut self, limit: usize) -> SourcePoll {
        self.chain.read(&mut self.exec, limit).unwrap()
    }

    /// Positions; prepared output is published.
    fn snapshot(&mut self, graph: &JobGraph) -> Vec<OperatorSnapshot> {
        let mut parts = ChainSnapshot::default();
        self.chain.snapshot(&mut self.exec, CheckpointId(1), &mut parts).unwrap();
        for (operator, prepared) in parts.prepared {
            let (_, make) = &graph.tasks()[0].committers[0];
            let (epoch, attempt) = (Epoch(1), Attempt(1));
            let context = cutwater_dataflow::CommitContext { job: graph.name().to_owned(), operator, epoch, attempt };
            make(&context).unwrap().commit(&prepared.handle);
        }
        parts.operators
    }

    /// The watermarks sent since the last call.
    fn watermarks(&mut self) -> Vec<i64> {
        let sent = std::iter::from_fn(|| self.exec.outbox.pop());
        sent.filter_map(|(_, element)| match element {
            Element::Watermark(watermark) => Some(watermark.0),
            Element::Batch(_)
            | Element::Idle
            | Element::Active
            | Element::Barrier(_)
            | Element::CancelBarrier(_)
            | Element::End => None,
        })
        .collect()
    }
}

/// Splits whose watermarks are scripted: each read emits one record and the next watermark.
#[derive(Clone)]
struct Scripted(BTreeMap<&'static str, Vec<i64>>);

struct ScriptedReader(Vec<i64>, u64);

impl Source for Scripted {
    type Record = u64;
    type Position = u64;
    type Reader = ScriptedReader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(self.0.keys().map(ToString::to_string).collect())
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<ScriptedReader, UserError> {
        Ok(ScriptedReader(self.0[split].clone(), position.copied().unwrap_or(0)))
    }
}

impl SplitReader for ScriptedReader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let Some(watermark) = self.0.get(usize::try_from(self.1)?) else { return Ok(ReadStatus::End) };
        out.emit(self.1);
        out.watermark(Timestamp(*watermark));
        self.1 += 1;
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.1
    }
}

fn keyed(source: Scripted) -> JobGraph {
    let job = Job::new("watermarks");
    let keyed = job.source("source", source).key_by(|n| *n);
    keyed.fold("sum", 0u64, |sum, n| *sum += n).sink("out", cutwater_dataflow::discard());
    job.build().unwrap()
}

#[test]
fn the_watermark_is_that_of_the_slowest_open_split() {
    let graph = keyed(Scripted(BTreeMap::from([("a", vec![10, 20, 15, 30]), ("b", vec![5, 25])])));
    let mut subtask = Subtask::new(&graph, 0, 1, &[]);
    let expected: [(&str, &[i64]); 8] = [
        ("a says 10, b nothing yet", &[]),
        ("b says 5", &[5]),
        ("a says 20", &[]),
        ("b says 25, a holds it at 20", &[20]),
        ("a says 15, which is not above 20", &[]),
        ("b ends", &[]),
        ("a says 30", &[30]),
        ("a ends: all have", &[i64::MAX]),
    ];
    for (name, watermarks) in expected {
        assert_eq!(subtask.read(10), SourcePoll::More);
        assert_eq!(subtask.watermarks(), watermarks, "{name}");
    }
    assert_eq!(subtask.read(10), SourcePoll::End);
}

#[test]
fn after_a_restore_the_watermark_is_announced_again() {
    let graph = keyed(Scripted(BTreeMap::from([("a", vec![10, 20, 30]), ("b", vec![5, 25, 35])])));
    let mut subtask = Subtask::new(&graph, 0, 1, &[]);
    for _ in 0..4 {
        subtask.read(10);
    }
    assert_eq!(subtask.watermarks(), [5, 20]);
    let restored = subtask.snapshot(&graph);
    let mut again = Subtask::new(&graph, 0, 1, &restored);
    again.read(10);
    assert_eq!(again.watermarks(), [20, 25], "that of the snapshot, then that of the next read");
    // One split each: neither waits for the other.
    for (index, expected) in [(0, [20, 30]), (1, [25, 35])] {
        let mut half = Subtask::new(&graph, index, 2, &restored);
        half.read(10);
        assert_eq!(half.watermarks(), expected, "subtask {index}");
    }
    let mut idle = Subtask::new(&graph, 2, 3, &restored);
    assert_eq!(idle.read(10), SourcePoll::End);
    assert_eq!(idle.watermarks(), [i64::MAX], "a subtask without a split holds nobody back");
}

#[test]
fn a_split_that_ended_is_not_read_again() {
    let graph = keyed(Scripted(BTreeMap::from([("a", vec![10]), ("b", vec![5, 25])])));
    let mut subtask = Subtask::new(&graph, 0, 1, &[]);
    for _ in 0..3 {
        subtask.read(10);
    }
    let restored = subtask.snapshot(&graph);
    let mut again = Subtask::new(&graph, 0, 1, &restored);
    assert_eq!(again.read(10), SourcePoll::More);
    assert_eq!(again.watermarks(), [5, 25], "a has ended before and holds nothing back");
    while again.read(10) == SourcePoll::More {}
    assert_eq!(again.exec.records, 1);
}

/// A split appears while the job is down.
#[test]
fn a_new_split_is_read_after_a_restore() {
    let old = Scripted(BTreeMap::from([("b", vec![1, 2, 3])]));
    let new = Scripted(BTreeMap::from([("a", vec![1, 2]), ("b", vec![1, 2, 3])]));
    let mut subtask = Subtask::new(&keyed(old), 0, 1, &[]);
    subtask.read(10);
    let restored = subtask.snapshot(&keyed(new.clone()));
    let mut again = Subtask::new(&keyed(new), 0, 1, &restored);
    while again.read(10) == SourcePoll::More {}
    assert_eq!(again.exec.records, 2 + 2);
}

#[test]
fn an_output_keeps_records_times_and_watermarks_in_their_places() {
    let mut out = SourceOutput::new(3);
    assert_eq!(out.now(), Moment::ZERO);
    out.emit("plain");
    out.watermark(Timestamp(4));
    out.emit_at(Timestamp(5), "timed");
    out.emit("plain again");
    assert_eq!(out.room(), 0);
    assert_eq!(out.watermarks(), [(1, Timestamp(4))]);
    assert_eq!(out.take(), [(None, "plain"), (Some(Timestamp(5)), "timed"), (None, "plain again")]);
    assert_eq!(out.room(), 3);
    assert!(out.watermarks().is_empty());
}

#[test]
fn a_source_that_shrank_is_an_error() {
    let error = from_iter(0u64..5).open("all", Some(&7)).unwrap_err();
    assert_eq!(error.to_string(), "the iterator yields 5 records, the checkpoint has seen 7");
    let error = generator(5, |n| n).open("3 of 2", None).err().unwrap();
    assert_eq!(error.to_string(), "\"3 of 2\" is not a split of a generator");
}

#[test]
fn the_watermark_of_a_generator_is_below_the_next_record() {
    let numbers = generator(10, |n| n).event_time(|n| Timestamp(i64::try_from(n).unwrap() * 100));
    let mut reader = numbers.open("00001 of 2", None).unwrap();
    let mut out = SourceOutput::new(2);
    assert_eq!(reader.read(&mut out).unwrap(), ReadStatus::More);
    assert_eq!(out.watermarks(), [(2, Timestamp(499))]);
    assert_eq!(out.take(), [(Some(Timestamp(100)), 1), (Some(Timestamp(300)), 3)]);
}
