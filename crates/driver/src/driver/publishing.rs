//! What is published, and when: the output of a checkpoint once it is durable, and at the end what no checkpoint holds.

use std::collections::BTreeSet;
use std::fmt;

use cutwater_coordinator::{CompletedCheckpoint, RequestId};
use cutwater_core::{Attempt, CheckpointId, Moment, SubtaskId};
use cutwater_dataflow::Finish;
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_restart::FailureClass;

use super::attempts::Phase;
use super::progress::Told;
use super::{Driver, NO_CHECKPOINT};
use crate::Action;
use crate::output::Inline;

/// What sinks hand over once all data is processed.
pub(super) struct LastCut {
    missing: BTreeSet<SubtaskId>,
    handles: Vec<OperatorSnapshot>,
    finish: Vec<Finish>,
}

impl fmt::Debug for LastCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, handles, finish } = self;
        write!(f, "LastCut({missing:?} missing, {handles:?}, {} to finish)", finish.len())
    }
}

impl Driver {
    pub(super) fn on_completed(&mut self, now: Moment, checkpoint: Box<CompletedCheckpoint>, requests: Vec<RequestId>) {
        let id = checkpoint.checkpoint;
        // Of an attempt that is over the restore publishes it.
        let output = Inline::of(&checkpoint);
        if let Ok(Inline { positions, .. }) = &output {
            self.got_on(positions);
        }
        let output = self.is_running().then_some(output);
        self.act(Action::Completed { checkpoint: checkpoint.clone(), requests: requests.clone() });
        self.begin_copies(now, &checkpoint, &requests);
        match output {
            Some(Ok(Inline { handles, .. })) => self.commits.push_back((id, handles)),
            Some(Err(error)) => self.unreadable(now, id, error),
            None => {}
        }
    }

    /// Publishes what the oldest waiting checkpoint names. `true` if something was done.
    pub(super) fn commit_next(&mut self) -> bool {
        if self.committing.is_some() {
            return false;
        }
        let Some((checkpoint, handles)) = self.commits.pop_front() else { return false };
        let attempt = self.attempt;
        if !handles.is_empty() {
            self.committing = Some((attempt, checkpoint));
            self.act(Action::Commit { attempt, checkpoint, handles });
        }
        true
    }

    pub(super) fn on_committed(
        &mut self,
        now: Moment,
        attempt: Attempt,
        checkpoint: CheckpointId,
        result: Result<(), FailureClass>,
        told: Told,
    ) -> bool {
        if self.committing != Some((attempt, checkpoint)) {
            return false;
        }
        self.committing = None;
        for (attempt, checkpoint, snapshot) in std::mem::take(&mut self.held) {
            self.coordinator.handle_ack(now, attempt, checkpoint, snapshot);
        }
        match result {
            Ok(()) => {
                if self.is_running() && checkpoint != NO_CHECKPOINT {
                    self.act(Action::Published { attempt, checkpoint });
                }
                false
            }
            Err(class) => self.fail(now, class, told),
        }
    }

    pub(super) fn is_cutting_last(&self) -> bool {
        matches!(self.phase, Phase::Running(Some(_)))
    }

    /// All data is processed, and what can be durable is.
    pub(super) fn begin_last_cut(&mut self) {
        if let Phase::Running(cut @ None) = &mut self.phase {
            let missing = self.plan.subtasks().collect();
            *cut = Some(LastCut { missing, handles: Vec::new(), finish: Vec::new() });
            self.act(Action::LastCut { attempt: self.attempt });
        }
    }

    pub(super) fn take_last_cut(&mut self, subtask: SubtaskId, handles: Vec<OperatorSnapshot>, finish: Vec<Finish>) {
        if let Phase::Running(Some(cut)) = &mut self.phase
            && cut.missing.remove(&subtask)
        {
            cut.handles.extend(handles);
            cut.finish.extend(finish);
        }
    }

    /// Once all subtasks have handed over what their sinks still held: publishes it, then ends the job. `true` if
    /// something was done.
    pub(super) fn finish_last_cut(&mut self) -> bool {
        if self.committing.is_some() {
            return false;
        }
        let Phase::Running(Some(cut)) = &mut self.phase else { return false };
        if !cut.missing.is_empty() {
            return false;
        }
        let (handles, finish) = (std::mem::take(&mut cut.handles), std::mem::take(&mut cut.finish));
        if handles.is_empty() && finish.is_empty() {
            return self.end_all_done();
        } else {
            self.committing = Some((self.attempt, NO_CHECKPOINT));
            self.act(Action::CommitLast { attempt: self.attempt, handles, finish });
        }
        true
    }
}
