use std::collections::{BTreeMap, BTreeSet};

use cutwater_core::{Attempt, Moment, SubtaskId, TaskId};

use crate::{Plan, TaskPlan};

/// The attempt that runs, and its clockwork.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Run {
    pub(crate) attempt: Attempt,
    pub(crate) plan: Plan,
    subtasks: BTreeSet<SubtaskId>,
    ended: BTreeSet<SubtaskId>, // at the end of data, or finished for good
    finished: BTreeSet<SubtaskId>,
    ended_of: BTreeMap<TaskId, u32>,
    /// When the next periodic checkpoint is due; `None` if they are off.
    pub(crate) next_periodic: Option<Moment>,
    /// A periodic one is due and could not begin yet.
    pub(crate) due: bool,
    /// After a failed last checkpoint, when to try again.
    pub(crate) retry_final_at: Option<Moment>,
    /// Nothing begins any more: too many checkpoints failed, or all is done.
    pub(crate) halted: bool,
    /// Because it was to stop behind a checkpoint, which has completed.
    pub(crate) stopped: bool,
    /// Its sources were ended, or it began with those that had been.
    pub(crate) drained: bool,
}

impl Run {
    pub(crate) fn new(attempt: Attempt, plan: Plan, first_periodic: Option<Moment>) -> Self {
        Self {
            attempt,
            subtasks: plan.subtasks().collect(),
            plan,
            ended: BTreeSet::new(),
            finished: BTreeSet::new(),
            ended_of: BTreeMap::new(),
            next_periodic: first_periodic,
            due: false,
            retry_final_at: None,
            halted: false,
            drained: false,
            stopped: false,
        }
    }

    pub(crate) fn has(&self, subtask: SubtaskId) -> bool {
        self.subtasks.contains(&subtask)
    }

    pub(crate) fn end(&mut self, subtask: SubtaskId) {
        if self.has(subtask) && self.ended.insert(subtask) {
            *self.ended_of.entry(subtask.task).or_default() += 1;
        }
    }

    pub(crate) fn finish(&mut self, subtask: SubtaskId) {
        self.end(subtask);
        if self.has(subtask) {
            self.finished.insert(subtask);
        }
    }

    pub(crate) fn any_ended(&self) -> Option<SubtaskId> {
        self.ended.first().copied()
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.ended.len() == self.subtasks.len()
    }

    pub(crate) fn finished(&self) -> &BTreeSet<SubtaskId> {
        &self.finished
    }

    /// Those that are still there to snapshot.
    pub(crate) fn live(&self) -> BTreeSet<SubtaskId> {
        self.subtasks.difference(&self.finished).copied().collect()
    }

    /// Whether no barrier may come to this subtask from another, so that it must be told itself: it is a source, or all
    /// that send to it have ended. One that has ended itself has heard the end of all its channels, even if their
    /// senders' notices are still on the way.
    pub(crate) fn needs_trigger(&self, subtask: SubtaskId) -> bool {
        let task_ended = |task: &TaskPlan| self.ended_of.get(&task.task).copied().unwrap_or(0) == task.parallelism;
        self.ended.contains(&subtask)
            || self.plan.predecessors_all(subtask, task_ended, |sender| self.ended.contains(&sender))
    }
}
