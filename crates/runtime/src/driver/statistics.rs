//! What becomes of checkpoints, told as it happens: to the status, to spans, and to an object beside the checkpoints, which
//! nothing waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cutwater_coordinator::{AbortReason, CompletedCheckpoint, RequestId, SubtaskSnapshot};
use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, Moment, SubtaskId};
use cutwater_storage::{ObjectName, Store};
use tracing::Span;

use super::{Answer, Event, Shell};
use crate::clock::Clock;
use crate::spans;
use crate::statistics::{
    self, CheckpointHistory, CheckpointKind, CheckpointStatistics, CheckpointStatus, StatisticsError, Step,
    StoredStatistics, SubtaskStatistics, cut,
};
use crate::upload::chain;

/// What is known of the checkpoints of this process, and of those before.
pub(super) struct Recorder {
    history: CheckpointHistory,
    begun: BTreeMap<CheckpointId, Begun>,
    /// The newest record that the log was to get, with its length.
    record: Option<(String, u64)>,
    pub(super) keeping: statistics::Keeping,
}

/// A checkpoint in flight.
struct Begun {
    barrier: Barrier,
    at: Moment,
    at_unix_ms: u64,
    total_subtasks: u32,
    is_last: bool,
    subtasks: BTreeMap<SubtaskId, SubtaskStatistics>,
    span: Span,
}

impl Recorder {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            history: CheckpointHistory::new(limit as usize),
            begun: BTreeMap::new(),
            record: None,
            keeping: statistics::Keeping::new(),
        }
    }

    /// When the checkpoint was triggered, if it is in flight.
    pub(super) fn triggered(&self, checkpoint: CheckpointId) -> Option<Moment> {
        self.begun.get(&checkpoint).map(|begun| begun.at)
    }

    /// A record is on its way into the log.
    pub(super) fn recording(&mut self, name: &str, bytes: &[u8]) {
        self.record = Some((name.to_owned(), bytes.len() as u64));
    }

    /// How many bytes the record of a slot has, if it was the newest.
    fn metadata_bytes(&self, slot: u64) -> Option<u64> {
        let name = cutwater_coordinator::inspect::slot_name(slot);
        self.record.as_ref().filter(|(newest, _)| *newest == name).map(|(_, bytes)| *bytes)
    }
}

impl Shell {
    /// A barrier goes out: the first time, the checkpoint begins.
    pub(super) fn begun(&mut self, barrier: Barrier) {
        if self.recorder.begun.contains_key(&barrier.checkpoint) {
            return;
        }
        let pending = self.driver.coordinator().pending().filter(|it| it.checkpoint == barrier.checkpoint);
        let at_unix_ms = Clock::unix_ms();
        let begun = Begun {
            barrier,
            at: self.clock.now(),
            at_unix_ms,
            total_subtasks: pending.map_or(0, |pending| pending.total),
            is_last: pending.is_some_and(|pending| pending.final_),
            subtasks: BTreeMap::new(),
            span: spans::checkpoint(self.graph.name(), barrier, at_unix_ms),
        };
        self.recorder.begun.insert(barrier.checkpoint, begun);
        self.publish_history();
    }

    /// A subtask has stored its part.
    pub(super) fn part_done(&mut self, attempt: Attempt, checkpoint: CheckpointId, snapshot: &SubtaskSnapshot) {
        let of_attempt = |begun: &&mut Begun| begun.barrier.attempt == attempt;
        if let Some(begun) = self.recorder.begun.get_mut(&checkpoint).filter(of_attempt) {
            let task = self.graph.tasks().get(snapshot.subtask.task.0 as usize);
            let name = task.map_or_else(String::new, |task| task.name());
            begun.subtasks.insert(snapshot.subtask, SubtaskStatistics::of(&name, checkpoint, snapshot));
        }
    }

    pub(super) fn record_completed(&mut self, checkpoint: &CompletedCheckpoint, requests: &[RequestId]) {
        let begun = self.recorder.begun.remove(&checkpoint.checkpoint);
        let subtasks = SubtaskStatistics::all_of(checkpoint);
        let took = u64::try_from(checkpoint.duration.as_millis()).unwrap_or(u64::MAX);
        let ended = CheckpointStatistics {
            checkpoint: checkpoint.checkpoint,
            epoch: checkpoint.epoch,
            attempt: checkpoint.attempt,
            kind: self.kind(checkpoint.is_final(), requests),
            status: CheckpointStatus::Completed,
            failure: None,
            // One that nobody had to be told of has no trigger.
            triggered_at_unix_ms: begun
                .as_ref()
                .map_or(checkpoint.completed_at_unix_ms.saturating_sub(took), |begun| begun.at_unix_ms),
            duration: checkpoint.duration,
            written_bytes: 0,
            full_bytes: 0,
            metadata_bytes: self.recorder.metadata_bytes(checkpoint.slot),
            files: 0,
            total_subtasks: u32::try_from(subtasks.len()).unwrap_or(u32::MAX),
            subtasks: Vec::new(),
        };
        self.record(ended.with_subtasks(subtasks), begun.map(|begun| begun.span));
    }

    pub(super) fn record_failed(&mut self, checkpoint: CheckpointId, reason: &AbortReason, requests: &[RequestId]) {
        // One whose attempt was over before its barrier went out has nothing to tell.
        let Some(begun) = self.recorder.begun.remove(&checkpoint) else { return };
        let ended = CheckpointStatistics {
            checkpoint,
            epoch: begun.barrier.epoch,
            attempt: begun.barrier.attempt,
            kind: self.kind(begun.is_last, requests),
            status: CheckpointStatus::Failed,
            failure: Some(cut(chain(reason))),
            triggered_at_unix_ms: begun.at_unix_ms,
            duration: self.clock.now().since(begun.at),
            written_bytes: 0,
            full_bytes: 0,
            metadata_bytes: None,
            files: 0,
            total_subtasks: begun.total_subtasks,
            subtasks: Vec::new(),
        };
        self.record(ended.with_subtasks(begun.subtasks.into_values().collect()), Some(begun.span));
    }

    fn record(&mut self, ended: CheckpointStatistics, span: Option<Span>) {
        if let Some(span) = span {
            spans::end_checkpoint(&span, &ended, Clock::unix_ms());
        }
        self.recorder.history.add(ended);
        self.recorder.keeping.changed();
        self.publish_history();
    }

    pub(super) fn record_restored(&mut self) {
        self.recorder.history.add_restored();
        self.recorder.keeping.changed();
        self.publish_history();
    }

    fn kind(&self, is_last: bool, requests: &[RequestId]) -> CheckpointKind {
        let is_copied = |request| match self.answers.get(request) {
            Some(Answer::Savepoint(waiting)) => waiting.to.is_some(),
            Some(Answer::Checkpoint(_)) | None => false,
        };
        match (requests.iter().any(is_copied), is_last) {
            (true, _) => CheckpointKind::Savepoint,
            (false, true) => CheckpointKind::Last,
            (false, false) => CheckpointKind::Checkpoint,
        }
    }

    fn publish_history(&mut self) {
        self.recorder.history.set_in_progress(self.recorder.begun.len());
        let history = Arc::new(self.recorder.history.clone());
        self.shared.update(|status| status.checkpoints = history);
    }

    /// Reads and writes beside the checkpoints, if it is time, on a thread that may block.
    pub(super) fn keep_statistics(&mut self) {
        let Some(epoch) = self.driver.epoch() else { return };
        self.recorder.keeping.open();
        let store = Arc::clone(&self.store);
        match self.recorder.keeping.poll(self.clock.now()) {
            None => {}
            Some(Step::Read) => {
                self.block(move || Event::StatisticsRead(Box::new(statistics::read_statistics(store.as_ref()))));
            }
            Some(Step::Write(number)) => {
                let (job, history) = (self.job(), self.recorder.history.clone());
                self.block(move || {
                    let written = write(store.as_ref(), &job, epoch, number, &history);
                    Event::StatisticsWritten(written.map_err(|error| chain(&*error)))
                });
            }
        }
    }

    pub(super) fn statistics_read(&mut self, read: Result<Option<StoredStatistics>, StatisticsError>) {
        let known = match read {
            Ok(Some(found)) if found.job == self.graph.name() => {
                self.recorder.history.continue_from(found);
                self.publish_history();
                true
            }
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(job = self.graph.name(), "earlier statistics can't be read: {}", chain(&error));
                !matches!(error, StatisticsError::Store(_))
            }
        };
        self.recorder.keeping.handle_read(known);
    }

    pub(super) fn statistics_written(&mut self, written: &Result<(), String>) {
        if let Err(reason) = written {
            tracing::debug!(job = self.graph.name(), "statistics could not be written: {reason}");
        }
        self.recorder.keeping.handle_written(written.is_ok());
    }
}

/// Creates the object, then deletes older ones; if that fails, the next one tries again.
fn write(
    store: &dyn Store,
    job: &str,
    epoch: Epoch,
    number: u64,
    history: &CheckpointHistory,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = ObjectName::parse(&statistics::statistics_name(epoch, number))?;
    store.create(&name, &statistics::encode(job, Clock::unix_ms(), history))?;
    for older in store.list(statistics::FOLDER)? {
        if statistics::position_of(older.name.as_str()).is_some_and(|position| position < (epoch, number)) {
            store.delete(&older.name)?;
        }
    }
    Ok(())
}
