//! What becomes of checkpoints, of attempts and of the job, as the log says.

use cutwater_core::{CheckpointId, Moment};

use super::{Coordinator, ENDED_TRIES, Pending, Phase, RETRY};
use crate::log::{Event, Opened, Pin};
use crate::{AbortReason, Action, CheckpointError, Purpose, RequestId};

fn ids(requests: &[(RequestId, Purpose)]) -> Vec<RequestId> {
    requests.iter().map(|(request, _)| *request).collect()
}

impl Coordinator {
    /// Hears what the log has to say, then passes on what it asks for.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some(event) = self.log.poll_event() {
            self.on_event(now, event);
        }
        self.finish_closing();
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(action) = self.log.poll_action() {
            self.actions.push_back(action);
        }
    }

    pub(super) fn on_event(&mut self, now: Moment, event: Event) {
        self.give_up_old_reign(now);
        match event {
            Event::Opened(opened) => self.on_opened(opened),
            Event::AlreadyFinished { epoch, latest } => {
                self.phase = Phase::Over;
                self.actions.push_back(Action::AlreadyFinished { epoch, latest });
            }
            Event::Refused(error) => {
                self.stop(&AbortReason::LogUnusable);
                self.actions.push_back(Action::Refused(error));
            }
            Event::Superseded(by) => {
                self.stop(&AbortReason::Superseded { by });
                self.actions.push_back(Action::Superseded { by });
            }
            Event::Appended => match self.finalizing() {
                Some(checkpoint) => self.on_completed(now, checkpoint),
                None => self.close(None),
            },
            Event::Failed(reason) => match self.finalizing() {
                Some(checkpoint) => self.abort(now, checkpoint, AbortReason::Finalize { reason }),
                None => self.on_end_not_recorded(now, reason),
            },
            Event::Lost => match self.finalizing() {
                Some(checkpoint) => {
                    let reason = "the store did not say whether it was written, and it was not".to_owned();
                    self.abort(now, checkpoint, AbortReason::Finalize { reason });
                }
                None => self.go_on(now),
            },
            Event::Current => self.on_current(now),
        }
        self.finalize_if_acked(now); // another one may be ready
    }

    /// The checkpoint whose record is on its way.
    fn finalizing(&self) -> Option<CheckpointId> {
        let finalizing = self.pending.iter().find(|pending| pending.is_finalizing());
        finalizing.map(|pending| pending.barrier.checkpoint)
    }

    /// What began in an earlier reign can't be recorded in this one.
    fn give_up_old_reign(&mut self, now: Moment) {
        if let Some(epoch) = self.log.epoch() {
            let old = |pending: &Pending| pending.barrier.epoch != epoch && !pending.is_finalizing();
            self.give_up(now, |pending| old(pending).then_some(AbortReason::NewReign { epoch }));
        }
    }

    pub(super) fn on_opened(&mut self, opened: Opened) {
        let Some(epoch) = self.log.epoch() else { return };
        self.phase = Phase::Open;
        self.next_id = opened.next_id;
        self.origin = opened.origin;
        // Deltas may build on our own files only: the other folder may go away.
        let own = opened.restore.as_ref().map(|restore| restore.checkpoint);
        self.base = own.filter(|own| self.log.retention().checkpoints().any(|kept| kept == *own));
        // State is stored by the key groups of the checkpoint, whatever the settings say by now.
        if let Some(restore) = &opened.restore {
            self.job.max_parallelism = restore.max_parallelism;
        }
        self.restore = opened.restore;
        let (restore, discarded) = (self.restore.clone(), opened.discarded);
        self.actions.push_back(Action::Opened { epoch, restore, discarded });
    }

    fn on_completed(&mut self, now: Moment, checkpoint: CheckpointId) {
        let Some(mut pending) = self.take_pending(checkpoint) else { return };
        let Some(latest) = self.log.latest() else { return };
        let checkpoint = Box::new(latest.clone());
        self.counts.completed += 1;
        self.last_completion = Some(now);
        self.failures.succeeded(checkpoint.checkpoint);
        self.base = Some(checkpoint.checkpoint);
        self.restore = Some(checkpoint.clone());
        let stops = pending.stops();
        let mut requests = std::mem::take(&mut pending.requests);
        // Older ones can't complete any more. Who asked for one of them by hand has a newer one.
        let by = checkpoint.checkpoint;
        for older in self.pending.iter_mut().filter(|pending| pending.barrier.checkpoint < by) {
            requests.append(&mut older.requests);
        }
        for (request, _) in requests.iter().filter(|(_, purpose)| *purpose != Purpose::Checkpoint) {
            self.log.pin(Pin::Copy(*request), by);
        }
        self.log.unpin(Pin::Base(by));
        self.actions.push_back(Action::NotifyCompleted { checkpoint, requests: ids(&requests) });
        let older = |pending: &Pending| pending.barrier.checkpoint < by;
        self.give_up(now, |pending| older(pending).then_some(AbortReason::Subsumed { by }));
        if let Some(run) = self.run.as_mut().filter(|run| run.attempt == pending.barrier.attempt) {
            if pending.final_ {
                self.all_done();
            } else if stops && !run.halted {
                (run.halted, run.stopped) = (true, true);
                self.fail_requests(&AbortReason::Shutdown);
            }
        }
        self.go_on(now);
    }

    /// Gives the checkpoints in flight up, but for one whose record is on its way: there only the log decides.
    pub(super) fn abort_collecting(&mut self, now: Moment, reason: &AbortReason) {
        if self.give_up(now, |pending| (!pending.is_finalizing()).then(|| reason.clone())) {
            self.go_on(now);
        }
    }

    /// The same for one of them.
    pub(super) fn abort_one(&mut self, now: Moment, checkpoint: CheckpointId, reason: AbortReason) {
        let mut collecting = self.pending.iter().filter(|pending| !pending.is_finalizing());
        if collecting.any(|pending| pending.barrier.checkpoint == checkpoint) {
            self.abort(now, checkpoint, reason);
        }
    }

    fn take_pending(&mut self, checkpoint: CheckpointId) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.barrier.checkpoint == checkpoint)?;
        Some(self.pending.remove(at))
    }

    /// Gives those up for which there is a reason; whether there were any. All are taken out before anything else happens, so that
    /// none of them completes or begins on the occasion of another's end.
    fn give_up(&mut self, now: Moment, reason: impl Fn(&Pending) -> Option<AbortReason>) -> bool {
        let mut gone = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            match reason(&pending) {
                Some(reason) => gone.push((pending, reason)),
                None => self.pending.push(pending),
            }
        }
        let any = !gone.is_empty();
        for (pending, reason) in gone {
            self.gave_up(now, pending, reason);
        }
        any
    }

    fn abort(&mut self, now: Moment, checkpoint: CheckpointId, reason: AbortReason) {
        let Some(pending) = self.take_pending(checkpoint) else { return };
        self.gave_up(now, pending, reason);
        self.go_on(now);
    }

    fn gave_up(&mut self, now: Moment, mut pending: Pending, reason: AbortReason) {
        let checkpoint = pending.barrier.checkpoint;
        self.log.unpin(Pin::Base(checkpoint));
        self.counts.failed += 1;
        // The sources have ended for a drain, so there will be another last one: that answers it.
        let asked = std::mem::take(&mut pending.requests);
        let stays = |purpose: Purpose| purpose == Purpose::Drain && self.run.is_some();
        let (drains, asked): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, purpose)| stays(*purpose));
        self.requests.extend(drains);
        let requests = ids(&asked);
        self.actions.push_back(Action::NotifyAborted { checkpoint, reason: reason.clone(), requests });
        self.discard(pending.into_files());
        let subsumed = matches!(reason, AbortReason::Subsumed { .. });
        if let Some(run) = self.run.as_mut().filter(|run| run.all_ended() && !subsumed) {
            run.retry_final_at = Some(now + RETRY);
        }
        if let Some(failures) = reason.counts().then(|| self.failures.failed(checkpoint)).flatten() {
            let tolerable = self.settings.tolerable_failures;
            self.fail_job(CheckpointError::TooManyFailures { checkpoint, failures, tolerable, source: reason });
        }
    }

    pub(super) fn fail_job(&mut self, error: CheckpointError) {
        // If the attempt is over already there is nothing to fail.
        if let Some(run) = &mut self.run {
            run.halted = true;
            self.actions.push_back(Action::FailJob(error));
            self.fail_requests(&AbortReason::JobFailover);
        }
    }

    /// Does what waited for a record on its way.
    pub(super) fn go_on(&mut self, now: Moment) {
        if self.finalizing().is_some() || !self.log.is_idle() {
            return;
        }
        match &self.phase {
            Phase::Ending { outcome, retry_at: None, .. } => self.log.append_ended(outcome.clone()),
            Phase::FailingOver => self.log.check_reign(),
            Phase::Open => {
                self.done_without_checkpoint();
                self.try_begin(now);
            }
            Phase::Opening | Phase::Ending { .. } | Phase::Closing { .. } | Phase::Over => {}
        }
    }

    /// The job is still ours: the next attempt may start.
    fn on_current(&mut self, now: Moment) {
        if let Phase::FailingOver = self.phase {
            self.phase = Phase::Open;
            self.fall_back();
            self.actions.push_back(Action::Restore { restore: self.restore.clone() });
        }
        self.go_on(now);
    }

    pub(super) fn on_end_not_recorded(&mut self, now: Moment, reason: String) {
        if let Phase::Ending { tries, retry_at, .. } = &mut self.phase {
            *tries += 1;
            if *tries < ENDED_TRIES {
                *retry_at = Some(now + RETRY);
            } else {
                self.close(Some(reason));
            }
        }
    }

    /// If there is no last checkpoint to wait for, the end of the data is the end.
    pub(super) fn done_without_checkpoint(&mut self) {
        let no_last = !(self.settings.enabled && self.settings.checkpoints_after_tasks_finish);
        let ended = self.run.as_ref().is_some_and(|run| run.all_ended() && !run.halted);
        if no_last && ended && self.pending.is_empty() {
            self.all_done();
        }
    }

    pub(super) fn all_done(&mut self) {
        if let Some(run) = self.run.as_mut().filter(|run| !run.halted) {
            run.halted = true;
            self.fail_requests(&AbortReason::Shutdown);
            self.actions.push_back(Action::AllDone);
        }
    }

    pub(super) fn end_attempt(&mut self, now: Moment, reason: &AbortReason) {
        self.run = None;
        self.fail_requests(reason);
        self.abort_collecting(now, reason);
    }

    pub(super) fn expire(&mut self, now: Moment) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let late = self.pending.iter().filter(|pending| pending.deadline <= now && !pending.is_finalizing());
        let late: Vec<_> = late
            .filter_map(|pending| {
                let first = pending.waiting().first().copied()?;
                let (missing, total) = (count(pending.waiting().len()), count(pending.total()));
                Some((pending.barrier.checkpoint, AbortReason::Expired { missing, total, first }))
            })
            .collect();
        for (checkpoint, reason) in late {
            self.abort_one(now, checkpoint, reason);
        }
        self.settle(now);
    }

    /// Ends everything without touching the store: it is not ours, or can't be trusted.
    pub(super) fn stop(&mut self, reason: &AbortReason) {
        self.phase = Phase::Over;
        self.run = None;
        self.log.close();
        for pending in std::mem::take(&mut self.pending) {
            self.counts.failed += 1;
            let (checkpoint, requests) = (pending.barrier.checkpoint, ids(&pending.requests));
            self.actions.push_back(Action::NotifyAborted { checkpoint, reason: reason.clone(), requests });
        }
        self.fail_requests(reason);
    }

    pub(super) fn close(&mut self, unrecorded: Option<String>) {
        self.phase = Phase::Closing { unrecorded };
        self.finish_closing();
    }

    fn finish_closing(&mut self) {
        if let (Phase::Closing { unrecorded }, false) = (&mut self.phase, self.storing || self.log.is_tidying()) {
            let unrecorded = unrecorded.take();
            self.phase = Phase::Over;
            self.log.close();
            self.actions.push_back(Action::Closed { unrecorded });
        }
    }

    pub(super) fn fail_requests(&mut self, reason: &AbortReason) {
        if !self.requests.is_empty() {
            let requests = ids(&std::mem::take(&mut self.requests));
            self.actions.push_back(Action::RequestFailed { requests, reason: reason.clone() });
        }
    }

    /// Deletes files that neither a retained checkpoint nor the one in flight names.
    pub(super) fn discard(&mut self, names: impl IntoIterator<Item = String>) {
        let pending = &self.pending;
        let free = names.into_iter().filter(|name| !pending.iter().any(|pending| pending.protects(name)));
        self.log.discard(free.collect::<Vec<String>>());
    }
}
