//! The generated job: real typed streams whose output and state tell which records made them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::{
    Compose, GraphError, Head, Identity, Job, JobGraph, ProcessContext, ReadStatus, Source, SourceOutput, SplitReader,
    Stream, UserError,
};
use cutwater_file::lines_sink;
use cutwater_storage::Files;
use serde::{Deserialize, Serialize};

use crate::config::{Pipeline, StageKind};
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
        (0..self.splits).flat_map(move |split| {
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
pub(crate) fn graph(pipelines: &[Pipeline], probe: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, GraphError> {
    let job = Job::new("simulated");
    for (at, pipeline) in pipelines.iter().enumerate() {
        let input = Input { pipeline: Arc::new(pipeline.clone()), probe: probe.clone() };
        let shape = pipeline.reshape;
        let stream = job.source(&Pipeline::uid(at, "source"), input).flat_map(move |record| reshape(shape, record));
        let stage = |stage| Step { uid: Pipeline::stage_uid(at, stage), probe: probe.clone() };
        match pipeline.stages[..] {
            [] => stream.map(Row::Record).sink(&Pipeline::uid(at, "out"), sink(files)),
            [StageKind::Number, StageKind::Forget, StageKind::Forget] => {
                let stream = forget(forget(number(stream, stage(0)), stage(1)), stage(2));
                stream.map(Row::Record).sink(&Pipeline::uid(at, "out"), sink(files));
            }
            [StageKind::Number, StageKind::Forget, StageKind::Days] => {
                let stream = days(forget(number(stream, stage(0)), stage(1)), stage(2));
                stream.sink(&Pipeline::uid(at, "out"), sink(files));
            }
            [StageKind::Number, StageKind::Forget] => {
                let stream = forget(number(stream, stage(0)), stage(1));
                stream.map(Row::Record).sink(&Pipeline::uid(at, "out"), sink(files));
            }
            [StageKind::Number, StageKind::Days] => {
                days(number(stream, stage(0)), stage(1)).sink(&Pipeline::uid(at, "out"), sink(files));
            }
            // Whatever else a tape may say.
            _ => number(stream, stage(0)).map(Row::Record).sink(&Pipeline::uid(at, "out"), sink(files)),
        }
    }
    job.build()
}

fn sink(files: &Arc<dyn Files>) -> cutwater_file::FileSink<impl Fn(&Row, &mut Vec<u8>) + Send + Sync + 'static> {
    lines_sink::<Row>(OUT).create_folder().files(Arc::clone(files))
}

struct Step {
    uid: String,
    probe: Probe,
}

/// Numbers the records of each key.
fn number<'j, H, C>(
    stream: Stream<'j, H, C>,
    Step { uid, probe }: Step,
) -> Stream<'j, impl Head<Out = Record> + use<H, C>, Identity<Record>>
where
    H: Head,
    C: Compose<H::Out, Out = Record>,
{
    stream.key_by(|record: &Record| record.key).process(
        &uid,
        move |cx: &mut ProcessContext<'_, u32, u32, Record>, record: Record| {
            probe.may_fail()?;
            let count = cx.state()?;
            *count += 1;
            let number = *count;
            cx.emit(Record { number, ..record });
            Ok(())
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
        Ok((0..self.pipeline.splits).map(|split| split.to_string()).collect())
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
        let Pipeline { records, keys, chunk, pause_us, .. } = *self.pipeline;
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
        let pause = Duration::from_micros(u64::from(pause_us) * u64::from(self.split));
        Ok(if pause.is_zero() { ReadStatus::More } else { ReadStatus::WaitUntil(out.now() + pause) })
    }

    fn position(&self) -> u32 {
        self.next
    }
}
