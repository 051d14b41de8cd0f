//! A source whose splits do not depend on the parallelism and which reads little at a time, so that much happens
//! between two reads.

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::exec::{OperatorSnapshot, SnapshotKind};
use cutwater_dataflow::{ReadStatus, Source, SourceOutput, SplitReader, UserError};
use serde::{Deserialize, Serialize};

/// Which record of which split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: u64,
    pub(crate) split: u64,
    pub(crate) number: u64,
}

/// `splits` times `count` records over `keys` keys. Split `n` pauses `n * pause` after each read, so that they drift
/// apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) splits: u64,
    pub(crate) count: u64,
    pub(crate) keys: u64,
    pub(crate) chunk: u64,
    pub(crate) pause: Duration,
}

impl Numbers {
    /// Ten records make a day.
    pub(crate) const DAY: u64 = 10;

    pub(crate) fn record(&self, split: u64, number: u64) -> Record {
        Record { key: (split * 5 + number * 7 + number / 11) % self.keys, split, number }
    }

    /// All records of all splits.
    pub(crate) fn all(&self) -> impl Iterator<Item = Record> {
        let this = *self;
        (0..self.splits).flat_map(move |split| (0..this.count).map(move |number| this.record(split, number)))
    }

    /// How many records each key has, if split `s` ends before record `until(s)`.
    pub(crate) fn counts(&self, until: impl Fn(u64) -> u64) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for record in self.all().filter(|record| record.number < until(record.split)) {
            *counts.entry(record.key).or_default() += 1;
        }
        counts
    }

    pub(crate) fn time(number: u64) -> Timestamp {
        Timestamp(i64::try_from(number).unwrap() * 1000)
    }
}

impl Source for Numbers {
    type Record = Record;
    type Position = u64;
    type Reader = NumbersReader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok((0..self.splits).map(|split| split.to_string()).collect())
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<NumbersReader, UserError> {
        Ok(NumbersReader { of: *self, split: split.parse()?, next: position.copied().unwrap_or(0) })
    }
}

pub(crate) struct NumbersReader {
    of: Numbers,
    split: u64,
    next: u64,
}

impl SplitReader for NumbersReader {
    type Record = Record;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<Record>) -> Result<ReadStatus, UserError> {
        for _ in 0..1 + (self.next * 13 + self.split) % self.of.chunk {
            if self.next == self.of.count {
                return Ok(ReadStatus::End);
            }
            out.emit_at(Numbers::time(self.next), self.of.record(self.split, self.next));
            self.next += 1;
            if self.next.is_multiple_of(3) {
                out.watermark(Timestamp(Numbers::time(self.next).0 - 1));
            }
        }
        let pause = self.of.pause * u32::try_from(self.split).unwrap();
        Ok(if pause.is_zero() { ReadStatus::More } else { ReadStatus::WaitUntil(out.now() + pause) })
    }

    fn position(&self) -> u64 {
        self.next
    }
}

/// The splits as a source subtask writes them into a snapshot: the same fields in the same order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SplitSnapshot {
    pub(crate) name: String,
    pub(crate) position: Option<Vec<u8>>,
    pub(crate) ended: bool,
    pub(crate) watermark: i64,
    pub(crate) records: u64,
}

/// The positions in a snapshot of a [`Numbers`] source, by split.
pub(crate) fn positions<'a>(parts: impl Iterator<Item = &'a OperatorSnapshot>) -> BTreeMap<u64, u64> {
    let mut positions = BTreeMap::new();
    for part in parts.filter(|part| part.kind == SnapshotKind::SourceSplits) {
        for split in cutwater_state::decode::<Vec<SplitSnapshot>>(&part.payload).unwrap() {
            let position = split.position.map_or(0, |position| cutwater_state::decode(&position).unwrap());
            assert_eq!(split.records, position, "one record is one step here");
            let twice = positions.insert(split.name.parse().unwrap(), position);
            assert!(twice.is_none(), "a split in two subtasks");
        }
    }
    positions
}
