//! Savepoints that somebody waits for.

use std::sync::Arc;

use cutwater_coordinator::{AbortReason, CompletedCheckpoint, RequestId, Savepoint};
use cutwater_core::Moment;
use cutwater_driver::Driver;

use super::{Answer, Event, Shell};
use crate::savepoint::{self, SavepointError, TakenSavepoint};
use crate::upload::chain;

impl Shell {
    /// Passes a request on to the driver.
    pub(super) fn request(&mut self, answer: Answer, ask: impl FnOnce(&mut Driver) -> Option<RequestId>) {
        if self.driver.is_ending() {
            return answer.refuse(&AbortReason::Shutdown);
        }
        match (ask(&mut self.driver), answer) {
            (Some(request), answer) => drop(self.answers.insert(request, answer)),
            (None, Answer::Savepoint(waiting)) => drop(waiting.answer.send(Err(SavepointError::Stopping))),
            (None, answer @ Answer::Checkpoint(_)) => answer.refuse(&AbortReason::Shutdown),
        }
    }

    /// Copies the checkpoint on a thread that may block.
    pub(super) fn copy(&self, request: RequestId, checkpoint: Box<CompletedCheckpoint>) {
        let to = match self.answers.get(&request) {
            Some(Answer::Savepoint(waiting)) => waiting.to.clone(),
            Some(Answer::Checkpoint(_)) | None => None,
        };
        let Some((to, location)) = to else { return };
        let from = Arc::clone(&self.store);
        self.block(move || {
            let made = savepoint::make(&checkpoint, from.as_ref(), to.as_ref());
            let id = checkpoint.checkpoint;
            Event::Copied(
                request,
                made.map_err(|source| SavepointError::NotCopied { checkpoint: id, location, source: Box::new(source) }),
            )
        });
    }

    pub(super) fn copied(&mut self, now: Moment, request: RequestId, result: Result<Savepoint, SavepointError>) {
        let Some(Answer::Savepoint(mut waiting)) = self.answers.remove(&request) else { return };
        let location = waiting.to.as_ref().map(|(_, location)| location.clone()).unwrap_or_default();
        match result {
            Ok(savepoint) => {
                tracing::info!(job = self.graph.name(), "savepoint {location}");
                waiting.taken = Some(TakenSavepoint { location: location.clone(), savepoint });
                // One that the job stops behind is answered once it has stopped.
                if waiting.stops {
                    self.answers.insert(request, Answer::Savepoint(waiting));
                } else {
                    drop(waiting.answer.send(Ok(waiting.taken)));
                }
                self.driver.handle_copied(now, request, Ok(location));
            }
            Err(error) => {
                tracing::warn!(job = self.graph.name(), "{}", chain(&error));
                drop(waiting.answer.send(Err(error)));
                self.driver.handle_copied(now, request, Err(()));
            }
        }
    }

    pub(super) fn not_stopped(&mut self, request: RequestId, savepoint: Option<String>) {
        if let Some(Answer::Savepoint(waiting)) = self.answers.remove(&request) {
            drop(waiting.answer.send(Err(SavepointError::NotStopped { savepoint })));
        }
    }

    /// The job has stopped as it was asked to, or has come to its end by itself.
    pub(super) fn stopped(&mut self) {
        for answer in std::mem::take(&mut self.answers).into_values() {
            match answer {
                Answer::Savepoint(waiting) if waiting.stops => drop(waiting.answer.send(Ok(waiting.taken))),
                answer @ (Answer::Savepoint(_) | Answer::Checkpoint(_)) => answer.refuse(&AbortReason::Shutdown),
            }
        }
    }

    /// Deletes the savepoint that was claimed, once the job has checkpoints enough of its own.
    pub(super) fn let_go_of_claimed(&mut self) {
        let enough = self.options.checkpointing.num_retained.get() as usize;
        if !self.claimed || self.driver.coordinator().retained().len() < enough {
            return;
        }
        self.claimed = false;
        let Some(foreign) = self.foreign.clone() else { return };
        let job = self.job();
        self.tidying += 1;
        self.block(move || {
            let store = foreign.store.as_ref();
            let deleted = savepoint::read_savepoint(store).and_then(|found| match found {
                Some(found) if found.checkpoint == foreign.checkpoint => savepoint::delete_savepoint(&found, store),
                Some(_) | None => Ok(()), // gone already, or another one by now
            });
            if let Err(error) = deleted {
                tracing::warn!(job, "could not delete the savepoint that the job claimed: {}", chain(&error));
            }
            Event::Tidied
        });
    }
}
