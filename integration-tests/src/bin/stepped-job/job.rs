//! The job: numbers from two splits, lists and timers by key, lines into files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater::file::lines_sink;
use cutwater::prelude::*;
use cutwater::storage::Files;
use cutwater::{JobGraph, ReadStatus, Source, SourceOutput, SplitReader};
use cutwater_integration_tests::Rng;

/// Numbers from 0 on, half of them in each split.
pub(crate) const RECORDS: u64 = 8_000;
const SPLITS: u64 = 2;
/// Each split gives so many, then waits.
const BURST: u64 = 40;
/// From one timer of a key to the next, in the times of records.
const PERIOD: u64 = 200;
const KEYS: u64 = 41;

/// What differs from test to test.
#[derive(Clone)]
pub(crate) struct Shape {
    /// How many random numbers, of ten bytes each, every key holds besides what it needs. They show in its output.
    pub(crate) ballast: usize,
    /// From one burst to the next.
    pub(crate) pause: Duration,
    /// Is told how far the source has come.
    pub(crate) reached: Arc<AtomicU64>,
}

/// The source. It notes how far it has come.
#[derive(Clone)]
struct Numbers(Shape);

struct Reader {
    next: u64,
    shape: Shape,
}

impl Source for Numbers {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok((0..SPLITS).map(|split| split.to_string()).collect())
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<Reader, UserError> {
        let next = position.copied().map_or_else(|| split.parse(), Ok)?;
        Ok(Reader { next, shape: self.0.clone() })
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let upto = self.next + SPLITS * BURST;
        while self.next < upto.min(RECORDS) && out.room() > 0 {
            let time = i64::try_from(self.next)?;
            out.emit_at(Timestamp(time), self.next);
            out.watermark(Timestamp(time - 1));
            self.next += SPLITS;
        }
        self.shape.reached.fetch_max(self.next, Ordering::Relaxed);
        Ok(if self.next < RECORDS { ReadStatus::WaitUntil(out.now() + self.shape.pause) } else { ReadStatus::End })
    }

    fn position(&self) -> u64 {
        self.next
    }
}

/// Keeps the numbers of a key in a list until its timer comes.
#[derive(Clone, Default)]
struct Periods {
    waiting: ListState<u64>,
    ballast: Option<ValueState<Vec<u64>>>,
    ballast_numbers: usize,
}

impl KeyedProcess<u64, u64> for Periods {
    /// How many periods the key has had.
    type State = u64;
    type Out = String;

    fn initial(&self) -> u64 {
        0
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.waiting = states.list("waiting")?;
        self.ballast = (self.ballast_numbers > 0).then(|| states.value("ballast")).transpose()?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, String>, n: u64) -> Result<(), UserError> {
        cx.list(self.waiting)?.push(n)?;
        cx.register_timer(Timestamp(i64::try_from(n.next_multiple_of(PERIOD))?))?;
        let key = *cx.key();
        if let Some(ballast) = self.ballast
            && cx.value(ballast)?.get()?.is_none()
        {
            let mut rng = Rng::new(key);
            cx.value(ballast)?.set((0..self.ballast_numbers).map(|_| rng.next_u64()).collect())?;
        }
        cx.emit(format!("number,{key},{n}"));
        Ok(())
    }

    /// One split may be ahead of the watermark: its numbers wait for a later timer.
    fn on_timer(&mut self, cx: &mut ProcessContext<'_, u64, u64, String>, time: Timestamp) -> Result<(), UserError> {
        let end = u64::try_from(time.0)?;
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for n in cx.list(self.waiting)?.iter()? {
            if *n <= end { due.push(*n) } else { later.push(*n) }
        }
        cx.list(self.waiting)?.clear()?;
        for n in later {
            cx.list(self.waiting)?.push(n)?;
        }
        *cx.state()? += 1;
        let (key, period) = (*cx.key(), *cx.state()?);
        let mut sum: u64 = due.iter().sum();
        if let Some(ballast) = self.ballast
            && let Some(numbers) = cx.value(ballast)?.get()?
        {
            sum ^= numbers[usize::try_from(end + period)? % numbers.len()];
        }
        cx.emit(format!("period,{key},{end},{period},{},{sum}", due.len()));
        Ok(())
    }
}

pub(crate) fn graph(out: &Path, files: Arc<dyn Files>, shape: &Shape) -> Result<JobGraph, UserError> {
    let job = Job::new("stepped");
    job.source("numbers", Numbers(shape.clone()))
        .key_by(|n| n / SPLITS % KEYS)
        .process_with("periods", Periods { ballast_numbers: shape.ballast, ..Periods::default() })
        .sink("lines", lines_sink::<String>(out.join("lines")).extension("txt").create_folder().files(files));
    Ok(job.build()?)
}
