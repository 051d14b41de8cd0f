//! Judges a generated job: what each state and each line must be follows from the positions of the sources alone.

use std::collections::{BTreeMap, BTreeSet};

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{CheckpointId, MaxParallelism, OperatorUid, SubtaskId, Timestamp};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_state::{Data, Snapshotable, StateKind, Table, TableSpec, hash_key};
use serde::{Deserialize, Serialize};

use crate::config::{Joined, Pipeline, StageKind, WorldConfig};
use crate::job::{Record, Row};
use crate::marks::Mark;
use crate::oracle::{Judge, Part};
use crate::shared::Handle;

mod branches;

pub(crate) struct GeneratedJudge {
    shared: Handle,
    pipelines: Vec<Pipeline>,
    /// How the first two are joined.
    joined: Option<Joined>,
    /// The most subtasks that a task ever has.
    most_subtasks: u32,
    exactly_once: bool,
    /// Whether the job has gone back below what it had published.
    rewound: bool,
    /// What each checkpoint cut, by pipeline.
    cuts: BTreeMap<CheckpointId, Vec<Cut>>,
    /// Rows that were published, by pipeline, with how often.
    rows: Vec<BTreeMap<Row, u32>>,
    /// The same of second branches.
    copies: Vec<BTreeMap<Row, u32>>,
    /// The same of side outputs: which records, by key and number.
    sides: Vec<BTreeMap<(u32, u32), Record>>,
}

/// Where a checkpoint cuts a pipeline.
#[derive(Clone, Debug, Default)]
struct Cut {
    max_parallelism: MaxParallelism,
    positions: BTreeMap<u32, u32>,
    /// The watermark of the stage that counts days.
    watermark: Option<Timestamp>,
}

impl Cut {
    fn position(&self, split: u32) -> u32 {
        self.positions.get(&split).copied().unwrap_or(0)
    }
}

/// The splits as a source writes them into a snapshot: the same fields in the same order.
#[derive(Serialize, Deserialize)]
struct SplitSnapshot {
    name: String,
    position: Option<Vec<u8>>,
    ended: bool,
    _watermark: i64,
    _records: u64,
}

impl GeneratedJudge {
    pub(crate) fn new(config: &WorldConfig, shared: &Handle) -> Self {
        Self {
            shared: shared.clone(),
            pipelines: config.pipelines.clone(),
            joined: config.joined(),
            most_subtasks: config.parallelism.iter().copied().max().unwrap_or(1),
            exactly_once: config.exactly_once,
            rewound: false,
            cuts: BTreeMap::new(),
            rows: vec![BTreeMap::new(); config.pipelines.len()],
            copies: vec![BTreeMap::new(); config.pipelines.len()],
            sides: vec![BTreeMap::new(); config.pipelines.len()],
        }
    }

    /// Whether each row is published once.
    fn once(&self) -> bool {
        self.exactly_once && !self.rewound
    }

    /// The pipelines whose sources a pipeline reads; none if it is a part of another.
    fn sources(&self, pipeline: usize) -> &[Pipeline] {
        match (self.joined, pipeline) {
            (Some(_), 0) => &self.pipelines[..2],
            (Some(_), 1) => &[],
            _ => &self.pipelines[pipeline..=pipeline],
        }
    }

    /// The records of all sources of a pipeline that are ahead of the cut.
    fn ahead<'a>(&'a self, pipeline: usize, cut: &'a Cut) -> impl Iterator<Item = Record> + 'a {
        self.sources(pipeline).iter().flat_map(|source| source.ahead_of(|split| cut.position(split)))
    }

    fn positions(&self, pipeline: usize, parts: &BTreeMap<SubtaskId, &Part>) -> Result<Cut, String> {
        let uid = Pipeline::uid(pipeline, "source");
        let mut cut = Cut::default();
        let mut ended = BTreeSet::new();
        let operators = parts.values().flat_map(|part| &part.inline.operators);
        for part in operators.filter(|part| part.kind == SnapshotKind::SourceSplits && part.operator.as_str() == uid) {
            let splits: Vec<SplitSnapshot> =
                cutwater_state::decode(&part.payload).map_err(|error| format!("{uid}: {error}"))?;
            for split in splits {
                let number: u32 = split.name.parse().map_err(|_| format!("{uid}: a split {}", split.name))?;
                let position = split.position.map_or(Ok(0), |bytes| cutwater_state::decode::<u32>(&bytes));
                let position = position.map_err(|error| format!("{uid}: {error}"))?;
                if split.ended {
                    ended.insert(number);
                }
                if cut.positions.insert(number, position).is_some() {
                    return Err(format!("split {number} of {uid} is in two subtasks"));
                }
            }
        }
        let splits = self.pipelines[pipeline].splits;
        if cut.positions.len() != splits as usize {
            return Err(format!("{} of {splits} splits of {uid} are in it", cut.positions.len()));
        }
        if !ended.is_empty() && ended.len() < splits as usize {
            self.shared.hit(Mark::SplitsEndApart);
        }
        Ok(cut)
    }

    /// All stages of one pipeline hold what the records ahead of the positions make.
    fn check_states(&self, pipeline: usize, cut: &mut Cut, parts: &BTreeMap<SubtaskId, &Part>) -> Result<(), String> {
        let spec = &self.pipelines[pipeline];
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut of_each: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for record in self.ahead(pipeline, cut) {
            *counts.entry(record.key).or_default() += 1;
            let of_each = of_each.entry(record.key).or_default();
            let second = self.pipelines.get(1).is_some_and(|second| record.split >= second.first_split);
            *(if second { &mut of_each.1 } else { &mut of_each.0 }) += 1;
        }
        if pipeline == 0 && self.joined.is_some() && of_each.values().any(|(first, second)| *first > 0 && *second > 0) {
            self.shared.hit(Mark::JoinedBoth);
        }
        for (stage, kind) in spec.stages.iter().enumerate() {
            let uid = Pipeline::stage_uid(pipeline, stage);
            match kind {
                StageKind::Number if pipeline == 0 && self.joined == Some(Joined::Connect) => {
                    self.compare(&uid, parts, &of_each, cut)?;
                }
                StageKind::Number => self.compare(&uid, parts, &counts, cut)?,
                StageKind::Forget => {
                    let mut expected: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
                    for (key, count) in counts.iter().filter(|(_, count)| *count % 5 != 0) {
                        expected.entry(key % 3).or_default().insert(*key, *count);
                    }
                    self.compare(&uid, parts, &expected, cut)?;
                }
                StageKind::Days => {
                    let of_stage = |part: &&&Part| part.states.iter().any(|state| state.operator.as_str() == uid);
                    let watermarks: BTreeSet<i64> =
                        parts.values().filter(of_stage).map(|part| part.inline.watermark).collect();
                    let (Some(lowest), Some(highest)) = (watermarks.first(), watermarks.last()) else { continue };
                    if lowest != highest {
                        return Err(format!("the subtasks of {uid} have watermarks {watermarks:?}"));
                    }
                    let watermark = Timestamp(*lowest);
                    cut.watermark = Some(watermark);
                    let mut expected: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
                    let mut timers = 0;
                    for record in self.ahead(pipeline, cut) {
                        let day = Pipeline::day_of(record.offset);
                        if Pipeline::end_of(day) > watermark {
                            let count = expected.entry(record.key).or_default().entry(day).or_default();
                            timers += u64::from(*count == 0);
                            *count += 1;
                        }
                    }
                    self.compare(&uid, parts, &expected, cut)?;
                    let found = entries(&uid, StateKind::Timers, parts);
                    if found != timers {
                        return Err(format!("{uid} has {found} timers where {timers} are expected"));
                    }
                }
            }
        }
        Ok(())
    }

    fn compare<V: Data + PartialEq + std::fmt::Debug>(
        &self,
        uid: &str,
        parts: &BTreeMap<SubtaskId, &Part>,
        expected: &BTreeMap<u32, V>,
        cut: &Cut,
    ) -> Result<(), String> {
        let all = cut.max_parallelism.all();
        let operator = OperatorUid::new(uid).map_err(|error| error.to_string())?;
        let spec =
            TableSpec { operator, name: "value".to_owned(), max_parallelism: cut.max_parallelism, key_groups: all };
        let mut table: Table<u32, V> = Table::new(spec);
        for part in parts.values() {
            let mine = |state: u16| {
                let header = part.states.get(usize::from(state));
                header.is_some_and(|header| header.kind == StateKind::Value && header.operator.as_str() == uid)
            };
            for block in part.blocks.iter().filter(|block| mine(block.state)) {
                table.restore(block, all).map_err(|error| format!("{uid}: {error}"))?;
            }
        }
        let mut scratch = Vec::new();
        for (key, value) in expected {
            let found = table.get(hash_key(key, &mut scratch), key);
            if found != Some(value) {
                let positions = &cut.positions;
                return Err(format!("{uid} has {found:?} for key {key}, {value:?} is ahead of {positions:?}"));
            }
        }
        if table.len() != expected.len() as u64 {
            let (found, expected) = (table.len(), expected.len());
            return Err(format!("{uid} has {found} keys where {expected} are expected"));
        }
        Ok(())
    }

    /// How many rows a pipeline has published when everything up to the cut is.
    fn rows_at(&self, pipeline: usize, cut: &Cut) -> usize {
        let spec = &self.pipelines[pipeline];
        let ahead = self.ahead(pipeline, cut);
        match (spec.stages.last(), cut.watermark) {
            (Some(StageKind::Days), watermark) => {
                let watermark = watermark.unwrap_or(Timestamp::MIN);
                let days = ahead.map(|record| (record.key, Pipeline::day_of(record.offset)));
                days.filter(|(_, day)| Pipeline::end_of(*day) <= watermark).collect::<BTreeSet<_>>().len()
            }
            _ => ahead.count(),
        }
    }

    /// Whether the row may be there when the newest checkpoint cuts here.
    fn is_ahead(&self, pipeline: usize, row: &Row, cut: &Cut) -> bool {
        match row {
            Row::Record(record) => record.offset < cut.position(record.split),
            Row::Day { day, .. } => {
                let last = self.pipelines[pipeline].stages.last();
                last == Some(&StageKind::Days) && cut.watermark.is_some_and(|now| Pipeline::end_of(*day) <= now)
            }
        }
    }

    fn check_rows(&self, pipeline: usize) -> Result<(), String> {
        let spec = &self.pipelines[pipeline];
        let rows = &self.rows[pipeline];
        let all: Vec<Record> = self.sources(pipeline).iter().flat_map(|source| source.ahead_of(|_| u32::MAX)).collect();
        if spec.stages.last() == Some(&StageKind::Days) {
            let mut days: BTreeMap<(u32, u32), u32> = BTreeMap::new();
            for record in &all {
                *days.entry((record.key, Pipeline::day_of(record.offset))).or_default() += 1;
            }
            let mut found: BTreeMap<(u32, u32), u32> = BTreeMap::new();
            for (row, times) in rows {
                let Row::Day { key, day, count } = row else { return Err(format!("{row} in a stream of days")) };
                // Without exactly once a day can come again, with more records or only those that came late.
                *found.entry((*key, *day)).or_default() += count * times;
            }
            for (day, count) in &days {
                let there = found.get(day).copied().unwrap_or(0);
                if there < *count || (self.once() && there != *count) {
                    return Err(format!("pipeline {pipeline}: {there} of {count} records of key and day {day:?}"));
                }
            }
            return Ok(());
        }
        let mut expected: BTreeSet<(u32, u32, u32)> = all.iter().map(|it| (it.split, it.offset, it.copy)).collect();
        let mut order: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for row in rows.keys() {
            let Row::Record(record) = row else { return Err(format!("{row} in a stream of records")) };
            let known = expected.remove(&(record.split, record.offset, record.copy));
            if !known && self.once() {
                return Err(format!("pipeline {pipeline}: {row} is there twice, or should not be"));
            }
            order.entry(record.key).or_default().push(*record);
        }
        if let Some(lost) = expected.first() {
            return Err(format!("pipeline {pipeline}: split, offset and copy {lost:?} is lost"));
        }
        if spec.stages.is_empty() || !self.once() {
            return Ok(());
        }
        for (key, mut records) in order {
            records.sort_by_key(|record| record.number);
            let mut last = BTreeMap::new();
            for (number, record) in (1..).zip(&records) {
                let at = (record.offset, record.copy);
                if record.number != number || last.insert(record.split, at) > Some(at) {
                    return Err(format!("pipeline {pipeline}: key {key} has {record:?} as its number {number}"));
                }
            }
        }
        Ok(())
    }
}

/// How many entries the states of this kind have.
fn entries(uid: &str, kind: StateKind, parts: &BTreeMap<SubtaskId, &Part>) -> u64 {
    let mut entries = 0;
    for part in parts.values() {
        for block in &part.blocks {
            let header = part.states.get(usize::from(block.state));
            if header.is_some_and(|header| header.kind == kind && header.operator.as_str() == uid) {
                entries += u64::from(block.entries);
            }
        }
    }
    entries
}

impl Judge for GeneratedJudge {
    fn check_cut(
        &mut self,
        checkpoint: &CompletedCheckpoint,
        parts: &BTreeMap<SubtaskId, &Part>,
    ) -> Result<(), String> {
        let subtasks: usize = checkpoint.tasks.iter().map(|task| task.subtasks.len()).sum();
        if subtasks != parts.len() {
            return Err(format!("it has {subtasks} parts, {} snapshots of it were taken", parts.len()));
        }
        let mut cuts = Vec::new();
        for pipeline in 0..self.pipelines.len() {
            let mut cut = self.positions(pipeline, parts)?;
            cut.max_parallelism = checkpoint.max_parallelism;
            if pipeline == 0 && self.joined.is_some() {
                cut.positions.extend(self.positions(1, parts)?.positions);
            }
            if self.exactly_once && !self.sources(pipeline).is_empty() {
                self.check_states(pipeline, &mut cut, parts)?;
            }
            cuts.push(cut);
        }
        self.cuts.insert(checkpoint.checkpoint, cuts);
        Ok(())
    }

    fn check_file(&mut self, name: &str, lines: &[String], newest: Option<CheckpointId>) -> Result<(), String> {
        let mut parts = name.split('-');
        let (sink, pipeline) = (parts.next(), parts.next().and_then(|at| at.parse::<usize>().ok()));
        let pipeline = pipeline.filter(|at| *at < self.rows.len()).ok_or("no sink has such files")?;
        match sink {
            Some("out") => {}
            Some("copy") => return self.check_copies(pipeline, lines, newest),
            Some("side") => return self.check_side(pipeline, lines, newest),
            _ => return Err("no sink has such files".to_owned()),
        }
        let cut = newest.and_then(|newest| self.cuts.get(&newest)).and_then(|cuts| cuts.get(pipeline));
        for line in lines {
            let row = Row::parse(line).ok_or_else(|| format!("a line {line:?}"))?;
            if matches!(row, Row::Day { .. }) {
                self.shared.hit(Mark::TimersFired);
            }
            if self.once() && cut.is_none_or(|cut| !self.is_ahead(pipeline, &row, cut)) {
                return Err(format!("{row} is published, the newest checkpoint is {newest:?}: {cut:?}"));
            }
            let once = self.once();
            let times = self.rows[pipeline].entry(row.clone()).or_default();
            *times += 1;
            if *times > 1 && once {
                return Err(format!("{row} is published twice"));
            }
        }
        Ok(())
    }

    fn check_published(&mut self, checkpoint: CheckpointId) -> Result<(), String> {
        let Some(cuts) = self.cuts.get(&checkpoint).filter(|_| self.exactly_once) else { return Ok(()) };
        for (pipeline, cut) in cuts.iter().enumerate() {
            let (expected, found) = (self.rows_at(pipeline, cut), self.rows[pipeline].len());
            if found < expected {
                return Err(format!("pipeline {pipeline} has published {found} rows of {expected}"));
            }
            let spec = &self.pipelines[pipeline];
            let (expected, found) = (spec.ahead_of(|split| cut.position(split)).count(), self.copies[pipeline].len());
            if spec.copied.is_some() && found < expected {
                return Err(format!("the copy of pipeline {pipeline} has published {found} rows of {expected}"));
            }
            self.check_fifths(pipeline, cut)?;
        }
        Ok(())
    }

    fn rewound(&mut self) {
        self.rewound = true;
    }

    fn begin_anew(&mut self) {
        self.rewound = false;
        self.cuts.clear();
        self.forget_files();
    }

    fn forget_files(&mut self) {
        self.rows.iter_mut().chain(&mut self.copies).for_each(BTreeMap::clear);
        self.sides.iter_mut().for_each(BTreeMap::clear);
    }

    fn check_end(&mut self) -> Result<(), String> {
        (0..self.pipelines.len()).try_for_each(|pipeline| {
            if !self.sources(pipeline).is_empty() {
                self.check_rows(pipeline)?;
                let end = |it: &Pipeline| (it.first_split..it.first_split + it.splits).map(|split| (split, u32::MAX));
                let positions = self.sources(pipeline).iter().flat_map(end).collect();
                self.check_fifths(pipeline, &Cut { positions, ..Cut::default() })?;
            }
            let spec = &self.pipelines[pipeline];
            let lost = spec.ahead_of(|_| u32::MAX).find(|it| !self.copies[pipeline].contains_key(&Row::Record(*it)));
            match lost.filter(|_| spec.copied.is_some()) {
                Some(lost) => Err(format!("the copy of pipeline {pipeline} has lost {lost:?}")),
                None => Ok(()),
            }
        })
    }
}
