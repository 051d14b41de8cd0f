//! When a checkpoint begins, whom it is told to, and when all its parts are in.

use std::time::Duration;

use cutwater_core::{Barrier, Moment, SnapshotForm};

use super::{Coordinator, MAX_REQUESTS, MIN_INTERVAL, Pending, Phase, Run};
use crate::log::Pin;
use crate::{AbortReason, Action, CompletedCheckpoint, Last, Purpose, SavepointFormat};

impl Coordinator {
    /// Begins a checkpoint if one is wanted and may begin.
    pub(super) fn try_begin(&mut self, now: Moment) {
        let most = self.settings.max_concurrent.get() as usize;
        // What stands alone waits for those in flight.
        let alone = self.requests.iter().any(|(_, purpose)| *purpose != Purpose::Checkpoint)
            || self.run.as_ref().is_some_and(Run::all_ended);
        let room = self.pending.is_empty()
            || (!alone && self.pending.len() < most && self.pending.iter().all(Pending::may_be_joined));
        // Too many deletions under way hold checkpoints back. Source: Flink's checkpoint coordinator.
        let free = room && self.log.is_idle() && self.log.retention().deleting() <= most;
        let interval = self.interval();
        let (Phase::Open, true, Some(run)) = (&self.phase, free, &mut self.run) else { return self.flush() };
        if run.halted || !self.settings.enabled {
            return self.flush();
        }
        let after_pause = self.last_completion.map(|last| last + self.settings.min_pause).filter(|end| *end > now);
        let wants_last = run.all_ended() && run.retry_final_at.is_none();
        // Some sources may have ended for a drain and others not yet: only when all have is that a cut.
        let early = run.drained && !run.all_ended();
        if let (true, Some(end)) = (run.due && !run.all_ended() && self.requests.is_empty(), after_pause) {
            run.due = false;
            run.next_periodic = Some(end);
        }
        let periodic = run.due && !run.all_ended();
        let allowed = self.settings.checkpoints_after_tasks_finish || run.any_ended().is_none();
        let asked = self.requests.iter().any(|(_, purpose)| *purpose != Purpose::Drain);
        if allowed && !early && (wants_last || periodic || asked) {
            if let (true, Some(interval)) = (run.due, interval) {
                run.due = false;
                run.next_periodic = run.next_periodic.map(|next| after(next, interval, now));
            }
            self.begin(now);
        }
        self.flush();
    }

    pub(super) fn begin(&mut self, now: Moment) {
        let (Some(run), Some(epoch)) = (&self.run, self.log.epoch()) else { return };
        self.counts.triggered += 1;
        // A drain is about the last one.
        let last = run.all_ended();
        let requests = self.requests.extract_if(.., |(_, purpose)| last || *purpose != Purpose::Drain);
        let requests: Vec<_> = requests.collect();
        // A savepoint stands alone: what it is made of holds everything.
        let whole = requests.iter().any(|(_, purpose)| *purpose != Purpose::Checkpoint);
        let base = self.base.filter(|_| !whole);
        let form = match (whole, self.settings.savepoints) {
            (false, _) => SnapshotForm::Configured,
            (true, SavepointFormat::Canonical) => SnapshotForm::Canonical,
            (true, SavepointFormat::Native) => SnapshotForm::Native,
        };
        let barrier = Barrier { epoch, attempt: run.attempt, checkpoint: self.next_id, base, form };
        self.next_id = self.next_id.next();
        let pending = Pending::new(barrier, run, now, now + self.settings.timeout, requests);
        if let (true, Some(base)) = (self.settings.max_concurrent.get() > 1, base) {
            self.log.pin(Pin::Base(barrier.checkpoint), base); // one beside it may complete first, and subsume the base
        }
        self.pending.push(pending);
        self.trigger();
        self.finalize_if_acked(now); // if all have finished there is nothing to wait for
    }

    /// Ends the sources. What is in flight may be cut when some have ended and others not: it is given up, and nothing begins
    /// before all have ended.
    pub(super) fn drain(&mut self, now: Moment) {
        if let Some(run) = self.run.as_mut().filter(|run| !run.drained) {
            run.drained = true;
            let ended = run.all_ended();
            self.actions.push_back(Action::Drain);
            if !ended {
                self.abort_collecting(now, &AbortReason::Draining);
            }
        }
    }

    /// Sends the barrier to those that would not get it otherwise.
    pub(super) fn trigger(&mut self) {
        let Some(run) = &self.run else { return };
        for pending in &mut self.pending {
            let subtasks = pending.mark_untold(run);
            if !subtasks.is_empty() {
                self.actions.push_back(Action::Trigger { barrier: pending.barrier, subtasks, hold: pending.stops() });
            }
        }
    }

    /// Some subtasks have reached the end.
    pub(super) fn on_ended(&mut self, now: Moment) {
        let Some(run) = &self.run else { return };
        if let (Some(subtask), false) = (run.any_ended(), self.settings.checkpoints_after_tasks_finish) {
            self.abort_collecting(now, &AbortReason::InputEndOfStream { subtask });
            self.fail_requests(&AbortReason::NotAllRequiredTasksRunning);
        }
        self.trigger(); // a barrier in flight may have missed them
        self.done_without_checkpoint();
        self.try_begin(now);
        self.settle(now);
    }

    pub(super) fn finalize_if_acked(&mut self, now: Moment) {
        // One record at a time; of several that are ready the oldest first.
        let busy = self.pending.iter().any(Pending::is_finalizing);
        let ready = |pending: &&mut Pending| pending.waiting().is_empty() && !busy;
        let (Some(run), Some(pending)) = (&self.run, self.pending.iter_mut().find(ready)) else { return };
        let checkpoint = CompletedCheckpoint {
            epoch: pending.barrier.epoch,
            attempt: pending.barrier.attempt,
            checkpoint: pending.barrier.checkpoint,
            slot: 0, // the log's to say
            job: self.job.name.clone(),
            max_parallelism: self.job.max_parallelism,
            completed_at_unix_ms: self.clock.map_or(0, |(then, unix_ms)| {
                unix_ms.saturating_add(u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX))
            }),
            duration: now.since(pending.started),
            last: match (pending.final_, run.drained) {
                (false, _) => Last::No,
                (true, false) => Last::Finished,
                (true, true) => Last::Drained,
            },
            origin: self.origin.clone(),
            tasks: pending.finalize(run),
        };
        self.log.append_completed(checkpoint);
        self.settle(now);
    }

    /// Why a request made now can't be answered.
    pub(super) fn refusal(&self, purpose: Purpose) -> Option<AbortReason> {
        let waiting = self.requests.len();
        match (&self.phase, &self.run) {
            (Phase::Ending { .. } | Phase::Closing { .. } | Phase::Over, _) => Some(AbortReason::Shutdown),
            _ if !self.settings.enabled => Some(AbortReason::Disabled),
            _ if purpose == Purpose::Drain && !self.settings.checkpoints_after_tasks_finish => {
                Some(AbortReason::NoLastCheckpoint)
            }
            (Phase::Open, Some(run)) if run.halted || !self.may_checkpoint(run) => {
                Some(AbortReason::NotAllRequiredTasksRunning)
            }
            (Phase::Open, Some(_)) if waiting >= MAX_REQUESTS => {
                Some(AbortReason::TooManyRequests { waiting: u32::try_from(waiting).unwrap_or(u32::MAX) })
            }
            (Phase::Open, Some(_)) => None,
            (Phase::Opening | Phase::Open | Phase::FailingOver, _) => Some(AbortReason::NotAllRequiredTasksRunning),
        }
    }

    pub(super) fn may_checkpoint(&self, run: &Run) -> bool {
        self.settings.enabled && (self.settings.checkpoints_after_tasks_finish || run.any_ended().is_none())
    }

    /// The interval as it is used.
    pub(super) fn interval(&self) -> Option<Duration> {
        let interval = self.settings.interval.filter(|_| self.settings.enabled);
        interval.map(|interval| interval.max(self.settings.min_pause).max(MIN_INTERVAL))
    }
}

/// The first moment after `now` that is `next` and some intervals, so that the rate stays fixed when some are missed.
fn after(next: Moment, interval: Duration, now: Moment) -> Moment {
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let missed = now.0.saturating_sub(next.0) / interval;
    if next > now { next } else { Moment(next.0.saturating_add(interval.saturating_mul(missed + 1))) }
}
