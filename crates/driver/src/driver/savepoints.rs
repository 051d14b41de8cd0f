//! Checkpoints that are copied to become savepoints, and the job that stops behind one.

use cutwater_coordinator::{CompletedCheckpoint, RequestId};
use cutwater_core::{CheckpointId, Moment};

use super::Driver;
use crate::{Action, End};

/// A checkpoint is to be copied, and that is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// As it was asked for.
    Asked,
    /// The job was to stop behind it, and does not any more: that is told once it is copied.
    NotStopping,
}

/// The job is to stop behind a checkpoint.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) request: RequestId,
    pub(super) drain: bool,
    /// Whether the checkpoint is to be copied before.
    pub(super) copy: bool,
    /// The checkpoint, once it has completed.
    pub(super) behind: Option<CheckpointId>,
    /// Where it was copied to; nowhere if it was not to be.
    pub(super) copied: Option<Option<String>>,
}

impl Driver {
    /// A checkpoint has completed: copies of it are made.
    pub(super) fn begin_copies(&mut self, now: Moment, checkpoint: &CompletedCheckpoint, requests: &[RequestId]) {
        for &request in requests {
            let copy = || Box::new(checkpoint.clone());
            if let Some(stop) = self.stop.as_mut().filter(|stop| stop.request == request) {
                stop.behind = Some(checkpoint.checkpoint);
                if stop.copy {
                    self.act(Action::Copy { request, checkpoint: copy() });
                } else {
                    stop.copied = Some(None);
                    self.coordinator.handle_copied(now, request);
                }
                if !self.is_running() {
                    self.give_up_stop(); // its record was on its way when the attempt failed
                }
            } else if self.copies.contains_key(&request) {
                self.act(Action::Copy { request, checkpoint: copy() });
            }
        }
    }

    /// There will be no checkpoint to copy, or to stop behind.
    pub(super) fn forget_copies(&mut self, requests: &[RequestId]) {
        self.copies.retain(|request, _| !requests.contains(request));
        self.stop.take_if(|stop| requests.contains(&stop.request));
    }

    pub(super) fn take_copied(&mut self, now: Moment, request: RequestId, result: Result<String, ()>) {
        self.coordinator.handle_copied(now, request);
        match self.copies.remove(&request) {
            Some(Copy::Asked) => return,
            Some(Copy::NotStopping) => return self.act(Action::NotStopped { request, savepoint: result.ok() }),
            None => {}
        }
        let Some(stop) = self.stop.as_mut().filter(|stop| stop.request == request) else { return };
        match result {
            Ok(location) => stop.copied = Some(Some(location)),
            // The sources have ended: there is nothing to go on with.
            Err(()) if stop.drain => stop.copied = Some(None),
            Err(()) => self.go_on_after_all(now),
        }
    }

    /// The checkpoint could not be copied: sources that hold behind it go on. Without any left the job just ends.
    fn go_on_after_all(&mut self, now: Moment) {
        let Some(Stop { request, behind, .. }) = self.stop.take() else { return };
        self.act(Action::NotStopped { request, savepoint: None });
        self.coordinator.handle_not_stopped(now);
        if let (true, Some(checkpoint)) = (self.is_running(), behind) {
            self.act(Action::Abort { attempt: self.attempt, checkpoint });
        }
    }

    /// The attempt that was to stop has failed: the next one runs on. A copy that is being made is finished, and told.
    pub(super) fn give_up_stop(&mut self) {
        match self.stop.take_if(|stop| stop.behind.is_some()) {
            Some(Stop { request, copied: Some(savepoint), .. }) => self.act(Action::NotStopped { request, savepoint }),
            Some(Stop { request, .. }) => drop(self.copies.insert(request, Copy::NotStopping)),
            None => {}
        }
    }

    /// The checkpoint is copied and its output published: the job stops. At the end of all data the last cut comes first.
    /// `true` if something was done.
    pub(super) fn finish_stop(&mut self) -> bool {
        let Some(Stop { copied: Some(_), .. }) = &self.stop else { return false };
        if !self.is_running() || self.committing.is_some() || !self.commits.is_empty() || self.is_cutting_last() {
            return false;
        }
        self.end_stopped()
    }

    /// Ends the job as stopped, if it was to stop; `false` if it was not, or the copy is not made yet.
    fn end_stopped(&mut self) -> bool {
        let drained = self.coordinator.is_drained();
        let Some(stop) = self.stop.take_if(|stop| stop.copied.is_some()) else { return false };
        self.end(End::Stopped { savepoint: stop.copied.flatten(), drained });
        true
    }

    /// All is done and published. A job that was to stop ends once the copy is made; one that was drained, by this attempt
    /// or one before, has not finished: there was more to read.
    pub(super) fn end_all_done(&mut self) -> bool {
        match &self.stop {
            Some(Stop { behind: Some(_), copied: None, .. }) => false,
            Some(_) if self.coordinator.is_drained() => self.end_stopped(),
            None if self.coordinator.is_drained() => {
                self.end(End::Stopped { savepoint: None, drained: true });
                true
            }
            Some(_) | None => {
                self.end(End::Finished);
                true
            }
        }
    }
}
