//! When an attempt starts, and what ends it.

use cutwater_coordinator::{CompletedCheckpoint, SubtaskSnapshot};
use cutwater_core::{Attempt, CheckpointId, Moment, SubtaskId};
use cutwater_restart::FailureClass;
use cutwater_task::SnapshotError;

use super::progress::Told;
use super::publishing::LastCut;
use super::{Driver, in_words};
use crate::output::Inline;
use crate::{Action, End};

/// Where the newest attempt stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is none, or it is being stopped.
    Between(Between),
    /// It is being started. What its subtasks have told already waits until the coordinator knows that they run.
    Starting(Vec<Report>),
    /// It runs; at the end of all data it hands over what its sinks still hold.
    Running(Option<LastCut>),
}

/// What has to come together before the next attempt. For the end of the job only `stopped` matters.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// All threads of the last attempt have ended.
    pub(super) stopped: bool,
    /// The delay of the restart strategy is over.
    pub(super) due: bool,
    /// What the coordinator says is to be restored: it may have to settle first whether a checkpoint completed.
    pub(super) restore: Option<Option<Box<CompletedCheckpoint>>>,
}

/// What is told of an attempt by those who run it.
#[derive(Debug)]
pub(super) enum Report {
    Ack { checkpoint: CheckpointId, snapshot: SubtaskSnapshot },
    Decline { checkpoint: CheckpointId, subtask: SubtaskId, reason: String, counted: bool },
    EndOfData { subtask: SubtaskId },
    Failure { class: FailureClass, told: Told },
}

impl Driver {
    pub(super) fn tell(&mut self, now: Moment, attempt: Attempt, report: Report) {
        match &mut self.phase {
            Phase::Starting(early) if attempt == self.attempt => early.push(report),
            Phase::Starting(_) | Phase::Running(_) | Phase::Between(_) => self.hear(now, attempt, report),
        }
        self.settle(now);
    }

    /// The coordinator knows by itself what is of an attempt that is over, and deletes its files.
    fn hear(&mut self, now: Moment, attempt: Attempt, report: Report) {
        match report {
            Report::Ack { checkpoint, snapshot } if self.committing.is_some() => {
                self.held.push((attempt, checkpoint, snapshot));
            }
            Report::Ack { checkpoint, snapshot } => self.coordinator.handle_ack(now, attempt, checkpoint, snapshot),
            Report::Decline { checkpoint, subtask, reason, counted } => {
                self.coordinator.handle_decline(now, attempt, checkpoint, subtask, reason, counted);
            }
            Report::EndOfData { subtask } => self.coordinator.handle_end_of_data(now, attempt, subtask),
            Report::Failure { class, told } => drop(self.on_failure(now, attempt, class, told)),
        }
    }

    pub(super) fn on_failure(&mut self, now: Moment, attempt: Attempt, class: FailureClass, told: Told) -> bool {
        if attempt != self.attempt || self.ending.is_some() {
            return false;
        }
        match &mut self.phase {
            Phase::Starting(early) => {
                let first = !early.iter().any(|report| matches!(report, Report::Failure { .. }));
                if first {
                    early.push(Report::Failure { class, told });
                }
                first
            }
            Phase::Running(_) => self.fail(now, class, told),
            Phase::Between(_) => false,
        }
    }

    pub(super) fn on_started(
        &mut self,
        now: Moment,
        attempt: Attempt,
        result: Result<(), FailureClass>,
        told: Told,
    ) -> bool {
        let (true, Phase::Starting(early)) = (attempt == self.attempt, &mut self.phase) else { return false };
        let early = std::mem::take(early);
        match result {
            Ok(()) => {
                self.phase = Phase::Running(None);
                if self.ending.is_some() {
                    self.stop();
                    return false;
                }
                self.restarter.handle_restarted(now);
                self.coordinator.handle_running(now, attempt, self.plan.clone());
                for report in early {
                    self.hear(now, attempt, report);
                }
                false
            }
            Err(class) => {
                // A failure that was told before is the first one, and the caller knows of it.
                let before = early.into_iter().find_map(|report| match report {
                    Report::Failure { class, told } => Some((class, told)),
                    Report::Ack { .. } | Report::Decline { .. } | Report::EndOfData { .. } => None,
                });
                let is_first = before.is_none();
                let (class, told) = before.unwrap_or((class, told));
                self.fail(now, class, told) && is_first
            }
        }
    }

    /// The attempt is over, or could not be started. One failure brings others about: the strategy hears of the first
    /// only.
    pub(super) fn fail(&mut self, now: Moment, class: FailureClass, told: Told) -> bool {
        match &self.phase {
            Phase::Between(_) => return false,
            Phase::Running(_) => self.stop(),
            // The caller has cleaned up.
            Phase::Starting(_) => self.phase = Phase::Between(Between { stopped: true, ..Between::default() }),
        }
        if self.ending.is_some() {
            return false;
        }
        self.give_up_stop();
        self.failure = told.words;
        self.coordinator.handle_failover(now);
        if class == FailureClass::NonRecoverable || !self.stands_still_at(told.site.as_ref()) {
            self.restarter.handle_failure(now, class);
        }
        true
    }

    /// Ends the threads of the attempt that runs.
    pub(super) fn stop(&mut self) {
        self.act(Action::Stop { attempt: self.attempt });
        self.phase = Phase::Between(Between::default());
        self.commits.clear(); // the restore publishes it, now or when the job is started again
    }

    pub(super) fn on_restarter(&mut self, action: cutwater_restart::Action) {
        use cutwater_restart::Action as Said;
        match action {
            Said::Restart { attempt: restarts, delay, at: _ } => self.act(Action::Restarting { restarts, delay }),
            Said::Merged { .. } => {}
            Said::Start { .. } => {
                if let Phase::Between(between) = &mut self.phase {
                    between.due = true;
                }
            }
            Said::GiveUp { reason } => self.end(End::GaveUp { restarts: self.restarter.restarts(), reason }),
        }
    }

    /// Goes on between attempts, or at the end, once all that is needed is there. `true` if something was done.
    pub(super) fn step_between(&mut self, now: Moment) -> bool {
        let Phase::Between(between) = &mut self.phase else { return false };
        // Output under way may not be swept.
        if !between.stopped || self.committing.is_some() {
            return false;
        }
        if self.ending.is_some() {
            return self.step_ending(now);
        }
        match between.restore.take_if(|_| between.due) {
            Some(restore) => self.start(now, restore),
            None => return false,
        }
        true
    }

    fn start(&mut self, now: Moment, restore: Option<Box<CompletedCheckpoint>>) {
        let epoch = self.epoch.expect("the job is open before the coordinator says what to restore");
        let known = restore.as_deref().map_or(Ok(Inline::default()), Inline::of);
        if let Ok(Inline { positions, .. }) = &known
            && self.stands_still_from(positions)
        {
            return;
        }
        let attempt = self.attempt.next();
        self.attempt = attempt;
        self.phase = Phase::Starting(Vec::new());
        match known {
            Ok(Inline { handles, .. }) => self.act(Action::Start { epoch, attempt, restore, handles }),
            Err(error) => {
                let checkpoint = restore.map_or(CheckpointId(0), |restore| restore.checkpoint);
                self.unreadable(now, checkpoint, error);
            }
        }
    }

    /// Nobody knows what is to be published.
    pub(super) fn unreadable(&mut self, now: Moment, checkpoint: CheckpointId, error: SnapshotError) {
        let words = format!("could not restore checkpoint {checkpoint}: {}", in_words(&error));
        self.act(Action::OutputUnreadable { checkpoint, error });
        self.fail(now, FailureClass::NonRecoverable, Told { words: Some(words), site: None });
    }
}
