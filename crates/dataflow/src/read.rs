//! The source at the head of a chain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{CheckpointId, Moment, OperatorUid, SubtaskId, Timestamp};
use cutwater_state::Snapshotable;
use serde::{Deserialize, Serialize};

use crate::UserError;
use crate::exec::{
    AnyBatch, BuildContext, Chain, ChainSnapshot, Element, Exec, OperatorSnapshot, Origin, SnapshotKind, SourcePoll,
};
use crate::graph::BuildChain;
use crate::source::{ReadStatus, Source, SourceOutput, SplitReader};
use crate::stage::Stage;
use crate::stream::{Build, Head, OperatorKind, OperatorSpec, TaskHead};

/// A source as the head of a task.
pub struct SourceHead<S> {
    pub(crate) uid: OperatorUid,
    pub(crate) source: Arc<S>,
    /// A split that gives nothing for so long is idle.
    pub(crate) idleness: Option<Duration>,
}

impl<S> Clone for SourceHead<S> {
    fn clone(&self) -> Self {
        Self { uid: self.uid.clone(), source: Arc::clone(&self.source), idleness: self.idleness }
    }
}

/// A split in a snapshot. The position is in the encoding of its type.
#[derive(Serialize, Deserialize)]
struct SplitSnapshot {
    name: String,
    position: Option<Vec<u8>>,
    ended: bool,
    watermark: i64,
    records: u64,
}

impl OperatorSnapshot {
    /// How many records the splits of a source had yielded, over all attempts of the job. `None` if this is not of a
    /// source, or can't be read.
    #[must_use]
    pub fn records_read(&self) -> Option<u64> {
        if self.kind != SnapshotKind::SourceSplits {
            return None;
        }
        let splits: Vec<SplitSnapshot> = cutwater_state::decode(&self.payload).ok()?;
        Some(splits.iter().fold(0, |sum: u64, split| sum.saturating_add(split.records)))
    }
}

impl<S: Source> Head for SourceHead<S> {
    type Out = S::Record;
    type Built = Box<dyn Chain>;

    fn build<N: Stage<S::Record>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {
        let mut all: BTreeMap<String, Option<SplitSnapshot>> = BTreeMap::new();
        let splits = |part: &&OperatorSnapshot| part.operator == self.uid && part.kind == SnapshotKind::SourceSplits;
        let mut parts = context.restored.iter().filter(splits).peekable();
        let restored = parts.peek().is_some();
        for part in parts {
            for split in cutwater_state::decode::<Vec<SplitSnapshot>>(&part.payload)? {
                all.insert(split.name.clone(), Some(split));
            }
        }
        let names = if restored {
            let found: Vec<_> = all.keys().map(String::as_str).collect();
            self.source.splits_after_restore(context.parallelism, &found)?
        } else {
            self.source.splits(context.parallelism)?
        };
        for name in names {
            all.entry(name).or_insert(None);
        }
        let mut splits = Vec::new();
        let mine = |at: usize| at as u64 % u64::from(context.parallelism) == u64::from(context.subtask.index);
        for (_, (name, found)) in all.into_iter().enumerate().filter(|(at, _)| mine(*at)) {
            splits.push(self.open(name, found)?);
        }
        let emitted = splits.iter().map(|split| split.records).sum();
        let mut chain = SourceChain::<S, N> {
            uid: self.uid.clone(),
            subtask: context.subtask,
            splits,
            turn: 0,
            output: SourceOutput::new(0),
            watermark: Timestamp::MIN,
            announced: Timestamp::MIN,
            idleness: self.idleness,
            idle: false,
            emitted,
            next,
        };
        chain.watermark = chain.lowest();
        Ok(Box::new(chain))
    }

    fn place(&self, build: Build<Box<dyn Chain>>) -> Option<BuildChain> {
        Some(build)
    }
}

impl<S: Source> TaskHead for SourceHead<S> {
    fn operator(&self) -> OperatorSpec {
        OperatorSpec { kind: OperatorKind::Source, name: "source", uid: Some(self.uid.clone()) }
    }

    fn parallelism_limit(&self) -> u32 {
        self.source.parallelism_limit().max(1)
    }
}

impl<S: Source> SourceHead<S> {
    fn open(&self, name: String, found: Option<SplitSnapshot>) -> Result<Split<S>, UserError> {
        let Some(found) = found else {
            let reader = Some(self.source.open(&name, None)?);
            return Ok(Split::new(name, reader, None, Timestamp::MIN, 0));
        };
        let position: Option<S::Position> = found.position.as_deref().map(cutwater_state::decode).transpose()?;
        let reader = if found.ended { None } else { Some(self.source.open(&name, position.as_ref())?) };
        Ok(Split::new(name, reader, position, Timestamp(found.watermark), found.records))
    }
}

struct Split<S: Source> {
    name: String,
    /// `None` once the split has ended.
    reader: Option<S::Reader>,
    /// The last position of a split that has ended.
    last: Option<S::Position>,
    wait: Moment,
    watermark: Timestamp,
    records: u64,
    /// Since when it has given nothing, although it was asked; while output waits for credit nobody asks.
    quiet: Option<Moment>,
    idle: bool,
}

impl<S: Source> Split<S> {
    fn new(
        name: String,
        reader: Option<S::Reader>,
        last: Option<S::Position>,
        watermark: Timestamp,
        records: u64,
    ) -> Self {
        Self { name, reader, last, wait: Moment::ZERO, watermark, records, quiet: None, idle: false }
    }

    /// Whether more is to come of it that the watermark has to wait for.
    fn is_open(&self) -> bool {
        self.reader.is_some() && self.watermark < Timestamp::MAX
    }

    /// Marks it idle if its time has come; when that is, if it is still to come.
    fn idle_at(&mut self, idleness: Option<Duration>, now: Moment) -> Option<Moment> {
        let due = self.quiet? + idleness?;
        self.idle |= due <= now;
        (!self.idle).then_some(due)
    }
}

struct SourceChain<S: Source, N> {
    uid: OperatorUid,
    subtask: SubtaskId,
    splits: Vec<Split<S>>,
    turn: usize,
    output: SourceOutput<S::Record>,
    /// Of the subtask: the lowest of its splits.
    watermark: Timestamp,
    /// What the receivers were told in this attempt: after a restore they are told anew.
    announced: Timestamp,
    idleness: Option<Duration>,
    /// What the receivers were told.
    idle: bool,
    emitted: u64,
    next: N,
}

impl<S: Source, N: Stage<S::Record>> SourceChain<S, N> {
    /// The watermark of the subtask: that of the slowest split that is neither idle nor at its end. If all that are open are
    /// idle nothing is waited for, and it is that of the fastest.
    fn lowest(&self) -> Timestamp {
        let open = || self.splits.iter().filter(|split| split.is_open());
        let lowest = open().filter(|split| !split.idle).map(|split| split.watermark).min();
        lowest.or_else(|| open().map(|split| split.watermark).max()).unwrap_or(Timestamp::MAX)
    }

    fn raise(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        self.watermark = self.watermark.max(self.lowest());
        if self.watermark > self.announced {
            self.announced = self.watermark;
            self.next.watermark(exec, self.watermark)?;
        }
        Ok(())
    }

    /// Raises the watermark, and tells the receivers whether the subtask is idle, if that has changed.
    fn settle(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        self.raise(exec)?;
        let mut open = self.splits.iter().filter(|split| split.is_open()).peekable();
        let idle = open.peek().is_some() && open.all(|split| split.idle);
        if idle != self.idle {
            self.idle = idle;
            self.next.flush(exec);
            exec.outbox.broadcast(|| if idle { Element::Idle } else { Element::Active });
        }
        Ok(())
    }

    /// What one call of a split's reader gave, before it is sent on: nothing keeps or makes it quiet, anything ends that.
    fn note(&mut self, exec: &mut Exec, at: usize, status: ReadStatus) -> Result<(), UserError> {
        let (now, split) = (exec.now, &mut self.splits[at]);
        let rises = self.output.watermarks.iter().any(|(_, watermark)| *watermark > split.watermark);
        if self.output.records.is_empty() && !rises {
            split.quiet.get_or_insert(now);
            split.idle_at(self.idleness, now);
            return Ok(());
        }
        split.quiet = matches!(status, ReadStatus::WaitUntil(_)).then_some(now);
        if std::mem::take(&mut split.idle) {
            self.settle(exec)?; // before its records, so that they are not late
        }
        Ok(())
    }

    fn origin(&self, first: u64, last: u64) -> Option<Origin> {
        Some(Origin { source: self.subtask, first, last })
    }

    /// Sends what one split emitted through the chain, watermarks in their places.
    fn drain(&mut self, exec: &mut Exec, split: usize) -> Result<(), UserError> {
        let count = self.output.records.len() as u64;
        // What is sent before the next record is begun, was made of those up to the last.
        exec.enter(self.origin(self.emitted, self.emitted), true, 1);
        let mut records = std::mem::take(&mut self.output.records);
        let times = std::mem::take(&mut self.output.times);
        let watermarks = std::mem::take(&mut self.output.watermarks);
        let mut watermarks_left = watermarks.iter().copied().peekable();
        let records_of_all = self.origin(self.emitted + 1, self.emitted + count);
        if count > 0 && times.is_empty() && watermarks.is_empty() {
            // The usual case in a loop of its own: nothing to look up for each record.
            exec.enter(records_of_all, true, 0);
            for record in records.drain(..) {
                exec.begun += 1;
                self.next.push(exec, Timestamp::MIN, record)?;
            }
        }
        for (at, record) in records.drain(..).enumerate() {
            while let Some((_, watermark)) = watermarks_left.next_if(|(place, _)| *place <= at) {
                self.splits[split].watermark = self.splits[split].watermark.max(watermark);
                self.raise(exec)?;
            }
            if at == 0 {
                exec.enter(records_of_all, true, 0);
            }
            exec.begun += 1;
            let time = times.get(at).copied().unwrap_or(Timestamp::MIN);
            self.next.push(exec, time, record)?;
        }
        self.emitted += count;
        self.splits[split].records += count;
        exec.records += count;
        for (_, watermark) in watermarks_left {
            self.splits[split].watermark = self.splits[split].watermark.max(watermark);
        }
        self.raise(exec)?;
        self.output.records = records;
        self.output.times = times;
        self.output.watermarks = watermarks;
        Ok(())
    }
}

impl<S: Source, N: Stage<S::Record>> Chain for SourceChain<S, N> {
    fn read(&mut self, exec: &mut Exec, limit: usize) -> Result<SourcePoll, UserError> {
        self.settle(exec)?;
        let mut earliest: Option<Moment> = None;
        for _ in 0..self.splits.len() {
            let at = self.turn % self.splits.len();
            self.turn = at + 1;
            let split = &mut self.splits[at];
            let Some(reader) = split.reader.as_mut() else { continue };
            if split.wait > exec.now {
                let idle_at = split.idle_at(self.idleness, exec.now);
                earliest = [earliest, idle_at, Some(split.wait)].into_iter().flatten().min();
                continue;
            }
            self.output.clear(exec.now, limit);
            exec.running = 0;
            let (source, next) = (self.subtask, self.emitted + 1);
            exec.enter(Some(Origin { source, first: next, last: next }), true, 1);
            let status = reader.read(&mut self.output).inspect_err(|_| {
                exec.begun += self.output.records.len() as u64; // it is the one after those
            })?;
            if let ReadStatus::WaitUntil(moment) = status {
                split.wait = moment;
            }
            self.note(exec, at, status)?;
            self.drain(exec, at)?;
            if status == ReadStatus::End {
                // Only now: an ended split no longer holds the watermark back.
                let split = &mut self.splits[at];
                split.last = split.reader.take().map(|reader| reader.position());
            }
            self.settle(exec)?;
            return Ok(SourcePoll::More);
        }
        self.settle(exec)?;
        Ok(earliest.map_or(SourcePoll::End, SourcePoll::WaitUntil))
    }

    fn drain(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        for split in &mut self.splits {
            if let Some(reader) = split.reader.take() {
                split.last = Some(reader.position());
            }
        }
        self.raise(exec)
    }

    fn process(&mut self, _: &mut Exec, _: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        Err("a source has no input".into())
    }

    fn advance(&mut self, _: &mut Exec, _: Timestamp, _: usize) -> Result<bool, UserError> {
        Ok(true)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.next.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        let mut splits = Vec::with_capacity(self.splits.len());
        for split in &self.splits {
            let position = split.reader.as_ref().map(SplitReader::position).or_else(|| split.last.clone());
            let mut encoded = Vec::new();
            if let Some(position) = &position {
                cutwater_state::encode(position, &mut encoded)?;
            }
            splits.push(SplitSnapshot {
                name: split.name.clone(),
                position: position.is_some().then_some(encoded),
                ended: split.reader.is_none(),
                watermark: split.watermark.0,
                records: split.records,
            });
        }
        let mut payload = Vec::new();
        cutwater_state::encode(&splits, &mut payload)?;
        out.operators.push(OperatorSnapshot { operator: self.uid.clone(), kind: SnapshotKind::SourceSplits, payload });
        self.next.snapshot(exec, checkpoint, out)
    }

    fn states(&mut self) -> Vec<&mut dyn Snapshotable> {
        Vec::new()
    }
}
