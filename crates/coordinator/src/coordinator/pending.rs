use std::collections::{BTreeMap, BTreeSet};

use cutwater_core::{Attempt, Barrier, CheckpointId, Moment, SubtaskId};

use super::run::Run;
use crate::{Purpose, RequestId, SubtaskSnapshot, TaskSnapshot};

/// The checkpoint in flight.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Pending {
    pub(crate) barrier: Barrier,
    pub(crate) started: Moment,
    pub(crate) deadline: Moment,
    pub(crate) final_: bool,
    pub(crate) requests: Vec<(RequestId, Purpose)>,
    waiting: BTreeSet<SubtaskId>,
    sweeping: BTreeSet<SubtaskId>,  // of those that are waited for
    triggered: BTreeSet<SubtaskId>, // told directly
    total: usize,
    acks: BTreeMap<SubtaskId, SubtaskSnapshot>,
    finished: BTreeSet<SubtaskId>, // for good, before it began
    files: BTreeSet<String>,       // of all acks
    finalizing: bool,
}

/// What an acknowledgement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Taken,
    /// Taken before: nothing new.
    Duplicate,
    /// No such subtask takes part.
    Unknown,
}

impl Pending {
    pub(crate) fn new(
        barrier: Barrier,
        run: &Run,
        started: Moment,
        deadline: Moment,
        requests: Vec<(RequestId, Purpose)>,
    ) -> Self {
        let waiting = run.live();
        Self {
            barrier,
            started,
            deadline,
            final_: run.all_ended(),
            requests,
            total: waiting.len(),
            sweeping: waiting.clone(),
            waiting,
            triggered: BTreeSet::new(),
            acks: BTreeMap::new(),
            finished: run.finished().clone(),
            files: BTreeSet::new(),
            finalizing: false,
        }
    }

    pub(crate) fn is(&self, attempt: Attempt, checkpoint: CheckpointId) -> bool {
        (self.barrier.attempt, self.barrier.checkpoint) == (attempt, checkpoint)
    }

    /// Whether sources are to read nothing after it.
    pub(crate) fn stops(&self) -> bool {
        self.requests.iter().any(|(_, purpose)| *purpose == Purpose::Stop)
    }

    /// Whom to tell now, once: those that have not acknowledged, were not told, and may not get the barrier otherwise.
    pub(crate) fn mark_untold(&mut self, run: &Run) -> Vec<SubtaskId> {
        let untold = self.waiting.difference(&self.triggered);
        let subtasks: Vec<SubtaskId> = untold.copied().filter(|subtask| run.needs_trigger(*subtask)).collect();
        self.triggered.extend(&subtasks);
        subtasks
    }

    pub(crate) fn ack(&mut self, snapshot: SubtaskSnapshot) -> Ack {
        if self.waiting.remove(&snapshot.subtask) {
            self.swept(snapshot.subtask);
            self.files.extend(snapshot.stored_files().map(|file| file.name.clone()));
            self.acks.insert(snapshot.subtask, snapshot);
            Ack::Taken
        } else if self.acks.contains_key(&snapshot.subtask) || self.finalizing {
            Ack::Duplicate
        } else {
            Ack::Unknown
        }
    }

    pub(crate) fn swept(&mut self, subtask: SubtaskId) {
        self.sweeping.remove(&subtask);
    }

    /// Whether another may begin beside it: it is no savepoint, the job is not to stop behind it, and its barriers and sweeps
    /// have come to their end.
    pub(crate) fn may_be_joined(&self) -> bool {
        let plain = self.requests.iter().all(|(_, purpose)| *purpose == Purpose::Checkpoint);
        plain && !self.final_ && self.sweeping.is_empty()
    }

    pub(crate) fn waiting(&self) -> &BTreeSet<SubtaskId> {
        &self.waiting
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn is_finalizing(&self) -> bool {
        self.finalizing
    }

    pub(crate) fn protects(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    pub(crate) fn into_files(self) -> BTreeSet<String> {
        self.files
    }

    /// All acknowledgements are in: what each task stored. From now on only the log decides.
    pub(crate) fn finalize(&mut self, run: &Run) -> Vec<TaskSnapshot> {
        self.finalizing = true;
        let mut acks = std::mem::take(&mut self.acks);
        let mut snapshot_of = |task: &crate::TaskPlan| {
            let subtasks = (0..task.parallelism).map(|index| SubtaskId { task: task.task, index });
            let finished = subtasks.clone().filter(|subtask| self.finished.contains(subtask));
            TaskSnapshot {
                task: task.task,
                name: task.name.clone(),
                operators: task.operators.clone(),
                parallelism: task.parallelism,
                finished: finished.map(|subtask| subtask.index).collect(),
                subtasks: subtasks.filter_map(|subtask| acks.remove(&subtask)).collect(),
            }
        };
        run.plan.tasks.iter().map(&mut snapshot_of).collect()
    }
}
