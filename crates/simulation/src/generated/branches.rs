//! Judges what leaves a generated job beside its main outputs: second branches of fan-outs, and side outputs.

use std::collections::BTreeMap;

use cutwater_core::CheckpointId;

use super::{Cut, GeneratedJudge};
use crate::config::Copied;
use crate::job::Row;
use crate::marks::Mark;

impl GeneratedJudge {
    /// Lines of a second branch: records as they come from the source, as often as a subtask may have them.
    pub(super) fn check_copies(
        &mut self,
        pipeline: usize,
        lines: &[String],
        newest: Option<CheckpointId>,
    ) -> Result<(), String> {
        let cut = newest.and_then(|newest| self.cuts.get(&newest)).and_then(|cuts| cuts.get(pipeline));
        let most = match self.pipelines[pipeline].copied {
            Some(Copied::Broadcast) => self.most_subtasks,
            Some(Copied::Fused | Copied::Rebalance) | None => 1,
        };
        let once = self.once();
        for line in lines {
            let row = Row::parse(line).ok_or_else(|| format!("a line {line:?}"))?;
            let ahead = |cut: &Cut| match &row {
                Row::Record(record) => record.number == 0 && record.offset < cut.position(record.split),
                Row::Day { .. } => false,
            };
            if once && !cut.is_some_and(ahead) {
                return Err(format!("{row} is published in a copy, the newest checkpoint is {newest:?}: {cut:?}"));
            }
            let times = self.copies[pipeline].entry(row.clone()).or_default();
            *times += 1;
            if once && *times > most {
                return Err(format!("{row} is published {times} times in a copy, {most} may be"));
            }
        }
        Ok(())
    }

    /// Lines of a side output: every fifth record of a key.
    pub(super) fn check_side(
        &mut self,
        pipeline: usize,
        lines: &[String],
        newest: Option<CheckpointId>,
    ) -> Result<(), String> {
        let cut = newest.and_then(|newest| self.cuts.get(&newest)).and_then(|cuts| cuts.get(pipeline));
        for line in lines {
            let Some(Row::Record(record)) = Row::parse(line) else { return Err(format!("a line {line:?}")) };
            let ahead = cut.is_some_and(|cut| record.offset < cut.position(record.split));
            if !record.number.is_multiple_of(5) || (self.once() && !ahead) {
                return Err(format!(
                    "{record:?} is published on the side, the newest checkpoint is {newest:?}: {cut:?}"
                ));
            }
            self.shared.hit(Mark::SideOutput);
            let before = self.sides[pipeline].insert((record.key, record.number), record);
            if self.once() && before.is_some() {
                return Err(format!("{record:?} is published on the side after {before:?}"));
            }
        }
        Ok(())
    }

    /// The side output holds every fifth record of each key up to the cut.
    pub(super) fn check_fifths(&self, pipeline: usize, cut: &Cut) -> Result<(), String> {
        let spec = &self.pipelines[pipeline];
        if !spec.sided || spec.stages.is_empty() || self.sources(pipeline).is_empty() {
            return Ok(());
        }
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for record in self.ahead(pipeline, cut) {
            *counts.entry(record.key).or_default() += 1;
        }
        for (key, count) in counts {
            let found = (5..=count).step_by(5).find(|number| !self.sides[pipeline].contains_key(&(key, *number)));
            if let Some(number) = found {
                return Err(format!("pipeline {pipeline}: number {number} of key {key} is not published on the side"));
            }
        }
        Ok(())
    }
}
