//! Sources and sinks that need nothing outside the process.

use std::sync::{Arc, Mutex};

use cutwater_core::{CheckpointId, Timestamp};

use crate::UserError;
use crate::sink::{CommitContext, CommitOutcome, Committer, Prepared, Sink, SinkContext, SinkWriter};
use crate::source::{ReadStatus, Source, SourceOutput, SplitReader};

/// Reads an iterator. After a restore the iterator is made anew and the records already emitted are skipped, so it
/// must yield the same records each time, and skipping takes time: see [`generator`] for one that can jump.
pub fn from_iter<I>(records: I) -> FromIter<I>
where
    I: IntoIterator + Clone + Send + Sync + 'static,
    I::IntoIter: Send,
    I::Item: Send,
{
    FromIter { records }
}

/// See [`from_iter`].
#[derive(Clone, Debug)]
pub struct FromIter<I> {
    records: I,
}

impl<I> Source for FromIter<I>
where
    I: IntoIterator + Clone + Send + Sync + 'static,
    I::IntoIter: Send + 'static,
    I::Item: Send + 'static,
{
    type Record = I::Item;
    type Position = u64;
    type Reader = IterReader<I::IntoIter>;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["all".to_owned()])
    }

    fn open(&self, _: &str, position: Option<&u64>) -> Result<Self::Reader, UserError> {
        let mut records = self.records.clone().into_iter();
        let emitted = position.copied().unwrap_or(0);
        for at in 0..emitted {
            if records.next().is_none() {
                return Err(format!("the iterator yields {at} records, the checkpoint has seen {emitted}").into());
            }
        }
        Ok(IterReader { records, emitted })
    }

    fn parallelism_limit(&self) -> u32 {
        1
    }
}

/// Reads a [`FromIter`].
#[derive(Debug)]
pub struct IterReader<I> {
    records: I,
    emitted: u64,
}

impl<I: Iterator + Send + 'static> SplitReader for IterReader<I> {
    type Record = I::Item;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<I::Item>) -> Result<ReadStatus, UserError> {
        while out.room() > 0 {
            let Some(record) = self.records.next() else { return Ok(ReadStatus::End) };
            self.emitted += 1;
            out.emit(record);
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.emitted
    }
}

/// Makes the records `make(0)`, `make(1)`, … `make(count - 1)`, spread over as many splits as the job has subtasks at
/// its first start. `make` must return the same record for the same number.
pub fn generator<F, T>(count: u64, make: F) -> Generator<F>
where
    F: Fn(u64) -> T + Clone + Send + Sync + 'static,
{
    Generator { count, make, time: None }
}

/// See [`generator`].
#[derive(Clone, Debug)]
pub struct Generator<F> {
    count: u64,
    make: F,
    time: Option<fn(u64) -> Timestamp>,
}

impl<F> Generator<F> {
    /// Gives record `n` the time `time(n)`, which must not fall as `n` rises; the watermark follows each read.
    #[must_use]
    pub fn event_time(mut self, time: fn(u64) -> Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}

impl<F, T> Source for Generator<F>
where
    F: Fn(u64) -> T + Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    type Record = T;
    type Position = u64;
    type Reader = GeneratorReader<F>;

    /// Split `i of n` makes the numbers `i`, `i + n`, `i + 2 n`, …
    fn splits(&self, parallelism: u32) -> Result<Vec<String>, UserError> {
        Ok((0..parallelism).map(|split| format!("{split:05} of {parallelism}")).collect())
    }

    /// None but those found, which make all numbers already.
    fn splits_after_restore(&self, parallelism: u32, found: &[&str]) -> Result<Vec<String>, UserError> {
        if found.is_empty() { self.splits(parallelism) } else { Ok(Vec::new()) }
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<Self::Reader, UserError> {
        let parts = split.split_once(" of ").and_then(|(at, of)| Some((at.parse().ok()?, of.parse().ok()?)));
        let Some((first, step)) = parts.filter(|(at, of)| at < of) else {
            return Err(format!("{split:?} is not a split of a generator").into());
        };
        let next = position.copied().unwrap_or(first);
        Ok(GeneratorReader { next, step, count: self.count, make: self.make.clone(), time: self.time })
    }
}

/// Reads a [`Generator`].
#[derive(Debug)]
pub struct GeneratorReader<F> {
    next: u64,
    step: u64,
    count: u64,
    make: F,
    time: Option<fn(u64) -> Timestamp>,
}

impl<F, T> SplitReader for GeneratorReader<F>
where
    F: Fn(u64) -> T + Send + 'static,
{
    type Record = T;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<T>) -> Result<ReadStatus, UserError> {
        let room = out.room() as u64;
        let left = self.count.saturating_sub(self.next).div_ceil(self.step);
        for _ in 0..room.min(left) {
            let record = (self.make)(self.next);
            match self.time {
                Some(time) => out.emit_at(time(self.next), record),
                None => out.emit(record),
            }
            self.next += self.step;
        }
        if self.next >= self.count {
            return Ok(ReadStatus::End);
        }
        if let Some(time) = self.time {
            out.watermark(Timestamp(time(self.next).0.saturating_sub(1)));
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.next
    }
}

/// Throws everything away.
#[must_use]
pub fn discard() -> Discard {
    Discard
}

/// See [`discard`].
#[derive(Clone, Copy, Debug)]
pub struct Discard;

impl<T: Send + 'static> Sink<T> for Discard {
    type Writer = Discard;

    fn open(&self, _: &SinkContext) -> Result<Discard, UserError> {
        Ok(Discard)
    }

    fn committer(&self, _: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        Ok(Box::new(Discard))
    }
}

impl<T> SinkWriter<T> for Discard {
    #[inline]
    fn write(&mut self, _: Option<Timestamp>, _: T) -> Result<(), UserError> {
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        Ok(Vec::new())
    }
}

impl Committer for Discard {
    fn commit(&mut self, _: &[u8]) -> CommitOutcome {
        CommitOutcome::Already
    }

    fn sweep(&mut self) -> Result<(), UserError> {
        Ok(())
    }
}

/// Collects records in memory, published as files would be: what a checkpoint does not cover is not in it.
///
/// For tests and trials: the published records live as long as the process.
#[derive(Debug)]
pub struct Collect<T> {
    shared: Arc<Mutex<Collected<T>>>,
}

#[derive(Debug)]
struct Collected<T> {
    prepared: Vec<Option<Vec<T>>>,
    published: Vec<T>,
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self { shared: Arc::new(Mutex::new(Collected { prepared: Vec::new(), published: Vec::new() })) }
    }
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Collect<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Collected<T>> {
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes what has been published so far.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().published)
    }
}

/// Writes for one subtask of a [`Collect`].
#[derive(Debug)]
pub struct CollectWriter<T> {
    to: Collect<T>,
    records: Vec<T>,
}

impl<T: Send + 'static> Sink<T> for Collect<T> {
    type Writer = CollectWriter<T>;

    fn open(&self, _: &SinkContext) -> Result<CollectWriter<T>, UserError> {
        Ok(CollectWriter { to: self.clone(), records: Vec::new() })
    }

    fn committer(&self, _: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        Ok(Box::new(self.clone()))
    }
}

impl<T: Send + 'static> SinkWriter<T> for CollectWriter<T> {
    fn write(&mut self, _: Option<Timestamp>, record: T) -> Result<(), UserError> {
        self.records.push(record);
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        if self.records.is_empty() {
            return Ok(Vec::new());
        }
        let mut shared = self.to.lock();
        shared.prepared.push(Some(std::mem::take(&mut self.records)));
        let place = shared.prepared.len() as u64 - 1;
        Ok(vec![Prepared { handle: place.to_le_bytes().to_vec(), finish: None }])
    }
}

impl<T: Send + 'static> Committer for Collect<T> {
    fn commit(&mut self, handle: &[u8]) -> CommitOutcome {
        let mut shared = self.lock();
        let place = handle.try_into().ok().and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok());
        let Some(slot) = place.and_then(|place| shared.prepared.get_mut(place)) else {
            return CommitOutcome::Lost("collected records live in one process only".into());
        };
        match slot.take() {
            Some(records) => {
                shared.published.extend(records);
                CommitOutcome::Committed
            }
            None => CommitOutcome::Already,
        }
    }

    fn sweep(&mut self) -> Result<(), UserError> {
        Ok(())
    }
}
