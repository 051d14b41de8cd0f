//! What a job has died of and survived: for its status.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{Attempt, Epoch, SubtaskId};
use cutwater_restart::GiveUp;
use cutwater_task::TaskError;

use crate::error::Failure;
use crate::statistics::cut;
use crate::upload::chain;

/// A failure that ended an attempt, and what followed. Source of the idea: Flink's exception history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// When, in ms since 1970-01-01 UTC.
    pub at_unix_ms: u64,
    /// The reign of the coordinator; `None` if the job was not open.
    pub epoch: Option<Epoch>,
    /// The attempt that it ended.
    pub attempt: Attempt,
    /// The operator whose code failed, or whose output could not be published, if it was one.
    pub operator: Option<String>,
    /// The subtask that failed, if it was one.
    pub subtask: Option<SubtaskId>,
    /// The source records that were being processed, if that is known.
    pub position: Option<FailurePosition>,
    /// The code of the error: docs/errors.md has more.
    pub code: &'static str,
    /// The error with its causes, in one line, cut at 4096 bytes.
    pub error: String,
    /// What was decided; `None` until then.
    pub decision: Option<FailureDecision>,
}

/// Which records of a source were being processed when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePosition {
    /// The subtask of the source.
    pub source: SubtaskId,
    /// The first record, counted from 1 over all attempts of the job.
    pub first: u64,
    /// The last record, included.
    pub last: u64,
}

/// What the restart strategy decided after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureDecision {
    /// The job starts again.
    Restart {
        /// From the failure to the start.
        after: Duration,
    },
    /// The job has failed for good.
    GaveUp {
        /// Why it does not start again.
        reason: GiveUp,
    },
}

/// The newest failures, up to a limit.
#[derive(Debug)]
pub(crate) struct FailureHistory {
    limit: usize,
    records: VecDeque<Arc<FailureRecord>>, // oldest first
}

impl FailureRecord {
    pub(crate) fn of(failure: &Failure, at_unix_ms: u64, epoch: Option<Epoch>, attempt: Attempt) -> Self {
        let task: Option<&TaskError> = match failure {
            Failure::Task(error) => Some(error),
            Failure::Checkpoints(_) | Failure::Restore { .. } | Failure::Commit { .. } | Failure::Host(_) => None,
        };
        let sink = match failure {
            Failure::Commit { operator, .. } => Some(operator.to_string()),
            Failure::Task(_) | Failure::Checkpoints(_) | Failure::Restore { .. } | Failure::Host(_) => None,
        };
        let position = task.and_then(|error| error.position);
        Self {
            at_unix_ms,
            epoch,
            attempt,
            operator: task.map(|error| error.operator.clone()).or(sink),
            subtask: task.map(|error| error.subtask),
            position: position.map(|it| FailurePosition { source: it.source, first: it.first, last: it.last }),
            code: failure.code(),
            error: cut(chain(failure)),
            decision: None,
        }
    }
}

impl FailureHistory {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: limit as usize, records: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, record: FailureRecord) {
        self.records.push_back(Arc::new(record));
        self.records.drain(..self.records.len().saturating_sub(self.limit));
    }

    /// What was decided after the newest failure.
    pub(crate) fn decided(&mut self, decision: FailureDecision) {
        if let Some(newest) = self.records.back_mut().filter(|newest| newest.decision.is_none()) {
            Arc::make_mut(newest).decision = Some(decision);
        }
    }

    /// Newest first.
    pub(crate) fn records(&self) -> Vec<Arc<FailureRecord>> {
        self.records.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use cutwater_core::TaskId;
    use cutwater_dataflow::exec::Origin;
    use cutwater_task::Cause;

    use super::*;

    fn failure(text: &str) -> Failure {
        let subtask = SubtaskId { task: TaskId(2), index: 1 };
        let position = Some(Origin { source: SubtaskId { task: TaskId(0), index: 3 }, first: 7, last: 9 });
        Failure::Task(TaskError { subtask, operator: "counts".to_owned(), position, cause: Cause::User(text.into()) })
    }

    #[test]
    fn a_record_says_where_and_is_bounded_whatever_the_error_says() {
        let record = FailureRecord::of(&failure(&"ä".repeat(9_000)), 5, Some(Epoch(2)), Attempt(3));
        assert_eq!((record.operator.as_deref(), record.code), (Some("counts"), "JOB0001"));
        assert_eq!(record.position.map(|at| (at.source.index, at.first, at.last)), Some((3, 7, 9)));
        assert!(
            record.error.len() <= 4096 && record.error.starts_with("operator counts, subtask 1"),
            "{}",
            record.error
        );
    }

    #[test]
    fn the_newest_are_kept_and_a_decision_is_of_the_newest() {
        let mut history = FailureHistory::new(2);
        let restart = |secs| FailureDecision::Restart { after: Duration::from_secs(secs) };
        history.decided(restart(1));
        for attempt in 1..=3 {
            history.add(FailureRecord::of(&failure("no"), 5, None, Attempt(attempt)));
            history.decided(restart(attempt.into()));
            history.decided(restart(99));
        }
        let records = history.records();
        let told: Vec<_> = records.iter().map(|record| (record.attempt, record.decision.clone())).collect();
        assert_eq!(told, [(Attempt(3), Some(restart(3))), (Attempt(2), Some(restart(2)))]);
        let mut none = FailureHistory::new(0);
        none.add(FailureRecord::of(&failure("no"), 5, None, Attempt(1)));
        assert!(none.records().is_empty());
    }
}
