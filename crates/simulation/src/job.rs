//! The generated job: real typed streams whose output and state tell which records made them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::{
    BranchHead, Compose, GraphError, Head, Identity, Job, JobGraph, KeyedStream, OutputTag, ProcessContext, ReadStatus,
    SideOutputs, Source, SourceOutput, SplitReader, Stream, UserError,
};
use cutwater_file::lines_sink;
use cutwater_state::Data;
use cutwater_storage::Files;
use serde::{Deserialize, Serialize};

use crate::config::{Copied, Joined, Pipeline, StageKind, WorldConfig};
use crate::shared::Probe;

/// Where the sinks write.
pub(crate) const OUT: &str = "/out";

/// Which record of which split, and what became of it on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: u32,
    pub(crate) split: u32,
    pub(crate) offset: u32,
    /// 1 for the second of a record that was doubled.
    pub(crate) copy: u32,
    /// Its number among the records of its key, from 1; 0 before it has one.
    pub(crate) number: u32,
}

/// A line of the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Record(Record),
    Day { key: u32, day: u32, count: u32 },
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(Record { key, split, offset, copy, number }) => {
                write!(f, "r,{key},{number},{split},{offset},{copy}")
            }
            Self::Day { key, day, count } => write!(f, "d,{key},{day},{count}"),
        }
    }
}

impl Row {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (kind, numbers) = line.split_once(',')?;
        let numbers = numbers.split(',').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
        match (kind, numbers[..].as_ref()) {
            ("r", &[key, number, split, offset, copy]) => {
                Some(Self::Record(Record { key, split, offset, copy, number }))
            }
            ("d", &[key, day, count]) => Some(Self::Day { key, day, count }),
            _ => None,
        }
    }
}

impl Pipeline {
    /// So many records of a split make a day.
    pub(crate) const DAY: u32 = 4;

    /// What goes on behind the first, fused part of the pipeline: nothing, the record, or it and a copy.
    pub(crate) fn records_of(&self, split: u32, offset: u32) -> impl Iterator<Item = Record> + use<> {
        let key = (split * 5 + offset * 7 + offset / 11) % self.keys;
        reshape(self.reshape, Record { key, split, offset, copy: 0, number: 0 })
    }

    /// The records ahead of these positions.
    pub(crate) fn ahead_of(&self, positions: impl Fn(u32) -> u32) -> impl Iterator<Item = Record> {
        (self.first_split..self.first_split + self.splits).flat_map(move |split| {
            let end = positions(split).min(self.records);
            (0..end).flat_map(move |offset| self.records_of(split, offset))
        })
    }

    pub(crate) fn day_of(offset: u32) -> u32 {
        offset / Self::DAY
    }

    fn time(offset: u32) -> Timestamp {
        Timestamp(i64::from(offset) * 1000)
    }

    /// The last moment of a day.
    pub(crate) fn end_of(day: u32) -> Timestamp {
        Timestamp(Self::time((day + 1) * Self::DAY).0 - 1)
    }

    /// The uid of the source, of a stage or of the sink.
    pub(crate) fn uid(pipeline: usize, what: &str) -> String {
        format!("{what}-{pipeline}")
    }

    /// The uid of a keyed stage.
    pub(crate) fn stage_uid(pipeline: usize, stage: usize) -> String {
        format!("stage-{pipeline}-{stage}")
    }
}

fn reshape(on: bool, record: Record) -> impl Iterator<Item = Record> {
    let first = (!on || record.offset % 7 != 3).then_some(record);
    let second = (on && record.offset % 5 == 1).then_some(Record { copy: 1, ..record });
    first.into_iter().chain(second)
}

/// The graph of a generated job.
pub(crate) fn graph(config: &WorldConfig, probe: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, GraphError> {
    let job = Job::new("simulated");
    let writer = Writer { config, job: &job, probe, files };
    let joined = config.joined();
    for (at, pipeline) in config.pipelines.iter().enumerate() {
        match (at, joined) {
            (0, Some(joined)) => writer.first(joined),
            (1, Some(_)) => {} // a part of the first
            _ => match pipeline.copied {
                None => writer.alone(at, writer.source(at)),
                Some(copied) => writer.alone(at, writer.copied(at, copied)),
            },
        }
    }
    job.build()
}

/// Writes the streams of a job.
struct Writer<'a, 'j> {
    config: &'a WorldConfig,
    job: &'j Job,
    probe: &'a Probe,
    files: &'a Arc<dyn Files>,
}

impl<'j> Writer<'_, 'j> {
    fn source(
        &self,
        at: usize,
    ) -> Stream<'j, impl Head<Out = Record> + use<>, impl Compose<Record, Out = Record> + use<>> {
        let pipeline = &self.config.pipelines[at];
        let input = Input { pipeline: Arc::new(pipeline.clone()), probe: self.probe.clone() };
        let shape = pipeline.reshape;
        self.job.source(&Pipeline::uid(at, "source"), input).flat_map(move |record| reshape(shape, record))
    }

    /// The source as a branch, the other one of which goes to a sink.
    fn copied(&self, at: usize, copied: Copied) -> Stream<'j, BranchHead<Record>, Identity<Record>> {
        let all = self.source(at).fan_out();
        let (copy, uid, sink) = (all.branch(), Pipeline::uid(at, "copy"), sink(self.files));
        match copied {
            Copied::Fused => copy.map(Row::Record).sink(&uid, sink),
            Copied::Rebalance => copy.rebalance().map(Row::Record).sink(&uid, sink),
            Copied::Broadcast => copy.broadcast().map(Row::Record).sink(&uid, sink),
        }
        all.branch()
    }

    /// A stream that is not joined.
    fn alone<H: Head, C: Compose<H::Out, Out = Record>>(&self, at: usize, stream: Stream<'j, H, C>) {
        if self.config.pipelines[at].stages.is_empty() {
            return stream.map(Row::Record).sink(&Pipeline::uid(at, "out"), sink(self.files));
        }
        self.later(at, number(stream.key_by(|record: &Record| record.key), self.step(at, 0)));
    }

    /// The first two streams.
    fn first(&self, joined: Joined) {
        let copied = |at: usize| self.config.pipelines[at].copied;
        match (copied(0), copied(1)) {
            (None, None) => self.join(joined, self.source(0), self.source(1)),
            (Some(copied), None) => self.join(joined, self.copied(0, copied), self.source(1)),
            (None, Some(copied)) => self.join(joined, self.source(0), self.copied(1, copied)),
            (Some(one), Some(two)) => self.join(joined, self.copied(0, one), self.copied(1, two)),
        }
    }

    fn join<H1, C1, H2, C2>(&self, joined: Joined, first: Stream<'j, H1, C1>, second: Stream<'j, H2, C2>)
    where
        H1: Head,
        C1: Compose<H1::Out, Out = Record>,
        H2: Head,
        C2: Compose<H2::Out, Out = Record>,
    {
        let key = |record: &Record| record.key;
        match joined {
            Joined::Union if self.config.pipelines[0].stages.is_empty() => {
                first.union(second).map(Row::Record).sink(&Pipeline::uid(0, "out"), sink(self.files));
            }
            Joined::Union => self.later(0, number(first.union(second).key_by(key), self.step(0, 0))),
            Joined::Connect => self.later(0, number_both(first.key_by(key), second.key_by(key), self.step(0, 0))),
        }
    }

    /// The stages behind the first one.
    fn later<H: SideOutputs<Out = Record>>(&self, at: usize, stream: Stream<'j, H, Identity<Record>>) {
        if self.config.pipelines[at].sided {
            stream.side_output(&FIFTHS).map(Row::Record).sink(&Pipeline::uid(at, "side"), sink(self.files));
        }
        let (uid, sink) = (Pipeline::uid(at, "out"), sink(self.files));
        match self.config.pipelines[at].stages.get(1..) {
            Some([StageKind::Forget, StageKind::Forget]) => {
                let stream = forget(forget(stream, self.step(at, 1)), self.step(at, 2));
                stream.map(Row::Record).sink(&uid, sink);
            }
            Some([StageKind::Forget, StageKind::Days]) => {
                days(forget(stream, self.step(at, 1)), self.step(at, 2)).sink(&uid, sink);
            }
            Some([StageKind::Forget]) => forget(stream, self.step(at, 1)).map(Row::Record).sink(&uid, sink),
            Some([StageKind::Days]) => days(stream, self.step(at, 1)).sink(&uid, sink),
            // Whatever else a tape may say.
            _ => stream.map(Row::Record).sink(&uid, sink),
        }
    }

    fn step(&self, at: usize, stage: usize) -> Step {
        Step { uid: Pipeline::stage_uid(at, stage), probe: self.probe.clone() }
    }
}

fn sink(files: &Arc<dyn Files>) -> cutwater_file::FileSink<impl Fn(&Row, &mut Vec<u8>) + Send + Sync + 'static> {
    lines_sink::<Row>(OUT).create_folder().files(Arc::clone(files))
}

struct Step {
    uid: String,
    probe: Probe,
}

/// Every fifth record of a key.
const FIFTHS: OutputTag<Record> = OutputTag::new("fifths");

/// Passes a record on with its number.
fn emit<S: Data>(cx: &mut ProcessContext<'_, u32, S, Record>, record: Record) -> Result<(), UserError> {
    if record.number.is_multiple_of(5) {
        cx.emit_to(&FIFTHS, record)?;
    }
    cx.emit(record);
    Ok(())
}

/// Numbers the records of each key.
fn number<'j>(
    stream: KeyedStream<'j, u32, Record>,
    Step { uid, probe }: Step,
) -> Stream<'j, impl SideOutputs<Out = Record> + use<>, Identity<Record>> {
    stream.process(&uid, move |cx: &mut ProcessContext<'_, u32, u32, Record>, record: Record| {
        probe.may_fail()?;
        let count = cx.state()?;
        *count += 1;
        let number = *count;
        emit(cx, Record { number, ..record })
    })
}

/// The same for the records of two inputs, which are counted apart and numbered together.
fn number_both<'j>(
    first: KeyedStream<'j, u32, Record>,
    second: KeyedStream<'j, u32, Record>,
    Step { uid, probe }: Step,
) -> Stream<'j, impl SideOutputs<Out = Record> + use<>, Identity<Record>> {
    type Context<'a, 'b> = &'a mut ProcessContext<'b, u32, (u32, u32), Record>;
    let other = probe.clone();
    first.connect(second).process(
        &uid,
        move |cx: Context<'_, '_>, record: Record| {
            probe.may_fail()?;
            let counts = cx.state()?;
            counts.0 += 1;
            let number = counts.0 + counts.1;
            emit(cx, Record { number, ..record })
        },
        move |cx: Context<'_, '_>, record: Record| {
            other.may_fail()?;
            let counts = cx.state()?;
            counts.1 += 1;
            let number = counts.0 + counts.1;
            emit(cx, Record { number, ..record })
        },
    )
}

/// Groups keys anew, checks that each key's numbers come without gap, and forgets every fifth.
fn forget<'j, H, C>(
    stream: Stream<'j, H, C>,
    Step { uid, probe }: Step,
) -> Stream<'j, impl Head<Out = Record> + use<H, C>, Identity<Record>>
where
    H: Head,
    C: Compose<H::Out, Out = Record>,
{
    stream.key_by(|record: &Record| record.key % 3).process(
        &uid,
        move |cx: &mut ProcessContext<'_, u32, BTreeMap<u32, u32>, Record>, record: Record| {
            probe.may_fail()?;
            let last = cx.state()?;
            let before = last.get(&record.key).copied();
            let expected = before.map_or_else(|| record.number % 5 == 1, |before| before + 1 == record.number);
            probe.expect_in_order(expected, || format!("{record:?} after {before:?}"));
            if record.number.is_multiple_of(5) {
                last.remove(&record.key);
                if last.is_empty() {
                    cx.clear()?;
                }
            } else {
                last.insert(record.key, record.number);
            }
            cx.emit(record);
            Ok(())
        },
    )
}

/// Counts by key and day; the count comes out by a timer when the watermark has passed the day.
fn days<'j, H, C>(
    stream: Stream<'j, H, C>,
    Step { uid, probe }: Step,
) -> Stream<'j, impl Head<Out = Row> + use<H, C>, Identity<Row>>
where
    H: Head,
    C: Compose<H::Out, Out = Record>,
{
    let timed = probe.clone();
    stream.key_by(|record: &Record| record.key).process_with_timers(
        &uid,
        move |cx: &mut ProcessContext<'_, u32, BTreeMap<u32, u32>, Row>, record: Record| {
            probe.may_fail()?;
            let day = Pipeline::day_of(record.offset);
            let late = cx.timestamp().is_none_or(|time| time <= cx.watermark());
            probe.expect_in_order(!late, || format!("{record:?} behind the watermark {}", cx.watermark().0));
            *cx.state()?.entry(day).or_default() += 1;
            cx.register_timer(Pipeline::end_of(day))?;
            Ok(())
        },
        move |cx: &mut ProcessContext<'_, u32, BTreeMap<u32, u32>, Row>, time| {
            timed.may_fail()?;
            let day = u32::try_from((time.0 + 1) / 1000).unwrap_or(0) / Pipeline::DAY - 1;
            let count = cx.state()?.remove(&day).unwrap_or(0);
            if cx.state()?.is_empty() {
                cx.clear()?;
            }
            cx.emit(Row::Day { key: *cx.key(), day, count });
            Ok(())
        },
    )
}

/// Reads the splits a few records at a time, with pauses, so that much happens between two reads.
struct Input {
    pipeline: Arc<Pipeline>,
    probe: Probe,
}

impl Source for Input {
    type Record = Record;
    type Position = u32;
    type Reader = Split;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        let Pipeline { first_split, splits, .. } = *self.pipeline;
        Ok((first_split..first_split + splits).map(|split| split.to_string()).collect())
    }

    fn open(&self, split: &str, position: Option<&u32>) -> Result<Split, UserError> {
        let next = position.copied().unwrap_or(0);
        Ok(Split { pipeline: Arc::clone(&self.pipeline), probe: self.probe.clone(), split: split.parse()?, next })
    }
}

struct Split {
    pipeline: Arc<Pipeline>,
    probe: Probe,
    split: u32,
    next: u32,
}

impl SplitReader for Split {
    type Record = Record;
    type Position = u32;

    fn read(&mut self, out: &mut SourceOutput<Record>) -> Result<ReadStatus, UserError> {
        self.probe.may_fail()?;
        let Pipeline { records, keys, chunk, pause_us, first_split, .. } = *self.pipeline;
        for _ in 0..1 + (self.next * 13 + self.split) % chunk {
            if self.next >= records {
                return Ok(ReadStatus::End);
            }
            let (split, offset) = (self.split, self.next);
            let key = (split * 5 + offset * 7 + offset / 11) % keys;
            out.emit_at(Pipeline::time(offset), Record { key, split, offset, copy: 0, number: 0 });
            self.next += 1;
            if self.next.is_multiple_of(3) {
                out.watermark(Timestamp(Pipeline::time(self.next).0 - 1));
            }
        }
        let pause = Duration::from_micros(u64::from(pause_us) * u64::from(self.split - first_split));
        Ok(if pause.is_zero() { ReadStatus::More } else { ReadStatus::WaitUntil(out.now() + pause) })
    }

    fn position(&self) -> u32 {
        self.next
    }
}
