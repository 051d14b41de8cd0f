use std::collections::VecDeque;
use std::time::Duration;

use cutwater_core::{Attempt, CheckpointId, Moment, SubtaskId};

use crate::log::names::epoch_of_snapshot;
use crate::log::{Log, Pin};
use crate::{
    AbortReason, Action, CompletedCheckpoint, CreateOutcome, Job, Origin, Outcome, Plan, Purpose, RequestId,
    RestoreFrom, Settings, SubtaskSnapshot, Token,
};

mod begin;
mod digest;
mod failures;
mod fallback;
mod outcome;
mod pending;
mod run;
mod view;

use failures::FailureCounter;
use pending::{Ack, Pending};
use run::Run;
pub use view::{Counts, PendingView};

/// How many requests may wait. Source: Flink's `CheckpointRequestDecider`.
const MAX_REQUESTS: usize = 1000;
/// From a failed last checkpoint, or a failed record of the outcome, to the next try.
const RETRY: Duration = Duration::from_secs(1);
/// How often the outcome is tried to be recorded.
const ENDED_TRIES: u32 = 5;
/// The shortest time between periodic checkpoints.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// Decides when checkpoints of one job are taken, gathers their parts, and makes them exist by appending to the log.
///
/// A pure state machine: inputs are the `handle_*` calls, what to do comes from [`Self::poll_action`]. After each call
/// drain the actions to `None`, and call [`Self::handle_timeout`] when [`Self::next_deadline`] comes. Every `Create`,
/// `Read` and `Delete` needs its answer: checkpoints wait for them. So does `List`, for which only the end of the job
/// waits.
///
/// - [`Settings::max_concurrent`] checkpoints are in flight at the most. When a newer one completes first, older ones are given up.
/// - A checkpoint exists if and only if its record is in the log, and [`Action::NotifyCompleted`] comes only then.
/// - Numbers of checkpoints rise within a process; a new process goes on above the newest *completed* one, since only
///   those are in the log. So it is epoch and number together that are never used twice: name files by both, as the
///   barrier carries both.
#[derive(Clone, Debug)]
pub struct Coordinator {
    settings: Settings,
    job: Job,
    log: Log,
    actions: VecDeque<Action>,
    clock: Option<(Moment, u64)>, // a moment and the wall clock then
    phase: Phase,
    restore: Option<Box<CompletedCheckpoint>>, // what the next attempt starts from
    falls_back: bool, // the attempt that comes starts from an older one, if the job is still ours
    origin: Option<Origin>,
    base: Option<CheckpointId>, // what deltas may build on
    next_id: CheckpointId,
    run: Option<Run>,
    has_run: bool,
    pending: Vec<Pending>, // in the order in which they began
    requests: Vec<(RequestId, Purpose)>,
    next_request: u64,
    failures: FailureCounter,
    counts: Counts,
    last_completion: Option<Moment>,
    storing: bool, // something may still be told that has files
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    /// Not open yet.
    Opening,
    /// Open; attempts come and go.
    Open,
    /// An attempt is over, and a record is still on its way.
    FailingOver,
    /// The outcome is to be recorded.
    Ending {
        outcome: Outcome,
        tries: u32,
        retry_at: Option<Moment>,
    },
    /// The outcome is recorded, or can't be; the listing, what is being stored and what is being deleted are waited for,
    /// since nobody comes back for files that are left once a job has finished.
    Closing {
        unrecorded: Option<String>,
    },
    Over,
}

impl Coordinator {
    /// A coordinator of one job for one start of the process.
    ///
    /// `nonce` tells the records of this start from all others, so it must be unique among all starts of the job: draw it
    /// at random.
    #[must_use]
    pub fn new(settings: Settings, job: Job, nonce: u64) -> Self {
        Self {
            log: Log::new(&settings, job.clone(), nonce),
            failures: FailureCounter::new(settings.tolerable_failures),
            settings,
            job,
            actions: VecDeque::new(),
            clock: None,
            phase: Phase::Opening,
            restore: None,
            falls_back: false,
            origin: None,
            base: None,
            next_id: CheckpointId(1),
            run: None,
            has_run: false,
            pending: Vec::new(),
            requests: Vec::new(),
            next_request: 1,
            counts: Counts::default(),
            last_completion: None,
            storing: false,
        }
    }

    /// Sets by how many slots of the log a boundary moves: 1024, unless set before [`Self::handle_open`]. For simulations,
    /// which are to meet boundaries sooner: all coordinators of a log must agree on it for ever.
    ///
    /// # Panics
    ///
    /// If `slots` is zero.
    pub fn set_slots_per_boundary(&mut self, slots: u64) {
        assert!(slots > 0, "a boundary moves by at least one slot");
        self.log.set_slots_per_boundary(slots);
    }

    /// Tells that the wall clock shows `unix_ms` (milliseconds since 1970-01-01 UTC) at `now`. Only for the times that
    /// people see in checkpoints: correctness never depends on it. Call it at the start, and again as often as you like.
    pub fn set_wall_clock(&mut self, now: Moment, unix_ms: u64) {
        self.clock = Some((now, unix_ms));
    }

    /// Starts reading the log, to claim the job. Ends in [`Action::Opened`], [`Action::AlreadyFinished`] or
    /// [`Action::Refused`]. Only the first call counts.
    pub fn handle_open(&mut self, now: Moment, from: RestoreFrom) {
        self.log.handle_open(from);
        self.settle(now);
    }

    /// The answer to [`Action::Create`].
    pub fn handle_created(&mut self, now: Moment, token: Token, outcome: CreateOutcome) {
        self.log.handle_created(now, token, outcome);
        self.settle(now);
    }

    /// The answer to [`Action::Read`]: the object's bytes, `None` if there is no such object, or why that is not known.
    pub fn handle_read(&mut self, now: Moment, token: Token, result: Result<Option<Vec<u8>>, String>) {
        self.log.handle_read(now, token, result);
        self.settle(now);
    }

    /// The answer to [`Action::Delete`]; an error if any of the objects may still be there. It is tried again after a
    /// later checkpoint.
    pub fn handle_deleted(&mut self, now: Moment, token: Token, result: Result<(), String>) {
        self.log.handle_deleted(token, &result);
        self.settle(now);
        self.try_begin(now); // too many deletions under way hold checkpoints back
    }

    /// The answer to [`Action::List`]: the names, or why there are none.
    ///
    /// Snapshot files of lower epochs that no record names, retained or still to be deleted, are of checkpoints that were
    /// being taken when their process died: they are deleted, at most 4,096 of them, and the next start finds the others.
    /// A file is known by its name, see [`snapshot_name`](crate::snapshot_name); other names are left alone.
    pub fn handle_listed(&mut self, now: Moment, token: Token, result: Result<Vec<String>, String>) {
        self.log.handle_listed(token, result);
        self.settle(now);
    }

    /// Every subtask of the attempt runs: checkpoints may be taken from now on.
    ///
    /// An attempt before this one is taken to be over, as by [`Self::handle_failover`].
    pub fn handle_running(&mut self, now: Moment, attempt: Attempt, plan: Plan) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.end_attempt(now, &AbortReason::JobFailover);
        let delay = self.interval().map(|interval| if self.has_run { self.settings.min_pause } else { interval });
        self.has_run = true;
        let drained = self.restore.as_ref().is_some_and(|restore| restore.is_drained());
        let mut run = Run::new(attempt, plan, delay.map(|delay| now + delay));
        run.drained = drained;
        self.run = Some(run);
        self.on_ended(now);
    }

    /// The attempt is over: gives up the checkpoint in flight, not counted. A record already on its way is settled first,
    /// since it may complete; then [`Action::Restore`] says what the next attempt starts from.
    ///
    /// Does nothing before the job is open, or when it ends.
    pub fn handle_failover(&mut self, now: Moment) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.end_attempt(now, &AbortReason::JobFailover);
        self.phase = Phase::FailingOver;
        self.go_on(now);
        self.settle(now);
    }

    /// A subtask took its snapshot, and its files are durable.
    ///
    /// One that comes twice changes nothing. One of another attempt, of a checkpoint given up or of a subtask unknown has
    /// its files deleted, except those that a retained checkpoint or the one in flight names.
    pub fn handle_ack(&mut self, now: Moment, attempt: Attempt, checkpoint: CheckpointId, snapshot: SubtaskSnapshot) {
        if let Some(file) = snapshot.files.iter().find(|file| !file.has_safe_name()) {
            let reason = format!("{:?} can't be the name of a file of a checkpoint", file.name);
            return self.handle_decline(now, attempt, checkpoint, snapshot.subtask, reason, true);
        }
        match self.pending.iter_mut().find(|pending| pending.is(attempt, checkpoint)) {
            Some(pending) => {
                let files: Vec<String> = snapshot.stored_files().map(|file| file.name.clone()).collect();
                match pending.ack(snapshot) {
                    Ack::Taken => {
                        self.finalize_if_acked(now);
                        self.try_begin(now);
                    }
                    Ack::Duplicate => {}
                    Ack::Unknown => self.discard(files),
                }
            }
            None => self.discard(snapshot.stored_files().map(|file| file.name.clone())),
        }
        self.settle(now);
    }

    /// Files that a subtask has stored, or may have, for a checkpoint that it then does not acknowledge, since one of them could
    /// not be stored or the checkpoint was given up. They are deleted, except those that a retained checkpoint or the one in
    /// flight names, and those whose names are not made by [`snapshot_name`](crate::snapshot_name) or
    /// [`native_name`](crate::native_name).
    pub fn handle_litter(&mut self, now: Moment, names: Vec<String>) {
        self.discard(names.into_iter().filter(|name| epoch_of_snapshot(name).is_some()));
        self.settle(now);
    }

    /// Whether acknowledgements or litter may still come of attempts that are over; no unless told. While they may,
    /// [`Action::Closed`] waits, so that files which come late are deleted: nobody comes back for them once a job has finished.
    pub fn handle_storing(&mut self, now: Moment, storing: bool) {
        self.storing = storing;
        self.settle(now);
    }

    /// A subtask has swept its snapshot for this checkpoint and is writing it: the next barrier would disturb nothing. Need not
    /// be told, since an acknowledgement says it too; without it checkpoints overlap less. One of another attempt or
    /// checkpoint changes nothing.
    pub fn handle_swept(&mut self, now: Moment, attempt: Attempt, checkpoint: CheckpointId, subtask: SubtaskId) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.is(attempt, checkpoint)) {
            pending.swept(subtask);
            self.try_begin(now);
        }
    }

    /// A subtask gave the checkpoint up: it is aborted at once. `counted`: whether that is a failure, such as an I/O
    /// error, or only bad luck, such as a task that was not ready. One of another attempt or checkpoint changes nothing.
    pub fn handle_decline(
        &mut self,
        now: Moment,
        attempt: Attempt,
        checkpoint: CheckpointId,
        subtask: SubtaskId,
        reason: String,
        counted: bool,
    ) {
        let concerned = self.pending.iter().any(|pending| pending.is(attempt, checkpoint));
        if concerned && self.run.as_ref().is_some_and(|run| run.has(subtask)) {
            self.abort_one(now, checkpoint, AbortReason::Declined { subtask, reason: cut(reason), counted });
        }
        self.settle(now);
    }

    /// A subtask has processed everything and sent End on all its channels. It stays alive and still takes a snapshot
    /// when triggered directly.
    ///
    /// When all have, the last checkpoint is taken at once, and when that is durable [`Action::AllDone`] follows. One in
    /// flight is waited for first; it may have been cut before the end, so it is not the last. A last checkpoint that
    /// fails is tried again after 1 s.
    pub fn handle_end_of_data(&mut self, now: Moment, attempt: Attempt, subtask: SubtaskId) {
        if let Some(run) = self.run.as_mut().filter(|run| run.attempt == attempt) {
            run.end(subtask);
            self.on_ended(now);
        }
    }

    /// A subtask is gone for good: later checkpoints count it as done and hold nothing of it. For users of this crate
    /// whose tasks exit at the end of their data; the one in flight is given up if it lacks this subtask.
    pub fn handle_finished(&mut self, now: Moment, attempt: Attempt, subtask: SubtaskId) {
        if let Some(run) = self.run.as_mut().filter(|run| run.attempt == attempt) {
            run.finish(subtask);
            let lacking = self.pending.iter().filter(|pending| pending.waiting().contains(&subtask));
            for checkpoint in lacking.map(|pending| pending.barrier.checkpoint).collect::<Vec<_>>() {
                self.abort_one(now, checkpoint, AbortReason::TaskClosing { subtask });
            }
            self.on_ended(now);
        }
    }

    /// A checkpoint by hand: neither interval nor min pause matter, but one in flight is waited for. All requests that
    /// wait when one begins are answered by it, in [`Action::NotifyCompleted`], [`Action::NotifyAborted`] or, if none
    /// began, [`Action::RequestFailed`]. One for [`Purpose::Drain`] waits for the last checkpoint, which it brings about, and
    /// if that one fails for the next try of it.
    pub fn handle_request(&mut self, now: Moment, purpose: Purpose) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        match self.refusal(purpose) {
            Some(reason) => self.actions.push_back(Action::RequestFailed { requests: vec![request], reason }),
            None => match self.pending.iter_mut().find(|pending| pending.final_) {
                Some(last) => last.requests.push((request, purpose)), // nothing can come after it
                None => {
                    self.requests.push((request, purpose));
                    if purpose == Purpose::Drain {
                        self.drain(now);
                    }
                }
            },
        }
        self.try_begin(now);
        request
    }

    /// The checkpoint that answered this request has been copied, or could not be: its files need not stay for that any
    /// more.
    pub fn handle_copied(&mut self, now: Moment, request: RequestId) {
        self.log.unpin(Pin::Copy(request));
        self.settle(now);
        self.try_begin(now);
    }

    /// A checkpoint for [`Purpose::Stop`] has completed, and the job is not to stop after all: checkpoints go on. Let the
    /// sources go on as well, by giving that checkpoint up towards them.
    pub fn handle_not_stopped(&mut self, now: Moment) {
        let interval = self.interval();
        if let Some(run) = self.run.as_mut().filter(|run| run.stopped) {
            (run.stopped, run.halted) = (false, false);
            run.next_periodic = interval.map(|interval| now + interval);
        }
        self.on_ended(now);
    }

    /// The job has ended: gives up the checkpoint in flight (a record on its way is settled first), records the outcome,
    /// and answers [`Action::Closed`]. Only the first call counts.
    pub fn handle_end(&mut self, now: Moment, outcome: Outcome) {
        match self.phase {
            Phase::Ending { .. } | Phase::Closing { .. } | Phase::Over => {}
            Phase::Opening => self.close(Some("the job was not open".to_owned())),
            Phase::Open | Phase::FailingOver => {
                self.end_attempt(now, &AbortReason::Shutdown);
                let outcome = match outcome {
                    Outcome::Failed(reason) => Outcome::Failed(cut(reason)),
                    Outcome::Stopped { savepoint, drained } => {
                        Outcome::Stopped { savepoint: savepoint.map(cut), drained }
                    }
                    Outcome::Finished | Outcome::Canceled => outcome,
                };
                // A store that refuses would hold the job for ever, and the record of the end finds out as well.
                self.log.stop_checking();
                self.phase = Phase::Ending { outcome, tries: 0, retry_at: None };
                self.go_on(now);
                self.settle(now);
            }
        }
    }

    /// Time has passed. May be called at any time.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.log.handle_timeout(now);
        self.settle(now);
        self.expire(now);
        if let Some(run) = &mut self.run {
            run.due |= run.next_periodic.is_some_and(|next| next <= now);
            run.retry_final_at = run.retry_final_at.filter(|at| *at > now);
        }
        if let Phase::Ending { retry_at, .. } = &mut self.phase {
            *retry_at = retry_at.filter(|at| *at > now);
            self.go_on(now);
        }
        self.try_begin(now);
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let collecting =
            self.pending.iter().filter(|pending| !pending.is_finalizing() && !pending.waiting().is_empty());
        let pending = collecting.map(|pending| pending.deadline).min();
        let run = self.run.as_ref().filter(|run| !run.halted && self.may_checkpoint(run));
        let periodic = run.filter(|run| !run.due && !run.all_ended()).and_then(|run| run.next_periodic);
        let last = run.and_then(|run| run.retry_final_at);
        let ending = match &self.phase {
            Phase::Ending { retry_at, .. } => *retry_at,
            Phase::Opening | Phase::Open | Phase::FailingOver | Phase::Closing { .. } | Phase::Over => None,
        };
        [self.log.next_deadline(), pending, periodic, last, ending].into_iter().flatten().min()
    }

    /// The next thing to do. Drain to `None` after each `handle_*` call, before the next one.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

/// At most 4096 bytes of a text that somebody else wrote.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(4096));
    text
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "tests name the cases they are about")]
mod tests;
