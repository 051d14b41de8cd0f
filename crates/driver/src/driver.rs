use std::collections::{BTreeMap, VecDeque};

use cutwater_coordinator::{
    CompletedCheckpoint, Coordinator, CreateOutcome, Plan, Purpose, RequestId, RestoreFrom, SubtaskSnapshot, Token,
};
use cutwater_core::{Attempt, CheckpointId, Epoch, Moment, SubtaskId};
use cutwater_dataflow::Finish;
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_restart::{FailureClass, FailureSite, InvalidStrategy, NoProgress, ProgressWatch, Restarter};

use crate::{Action, DriverSettings, End, OnNoProgress};

mod attempts;
mod ending;
mod fallback;
mod progress;
mod publishing;
mod savepoints;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "tests name the cases they are about")]
mod tests;

use attempts::{Between, Phase, Report};
use progress::Told;
use savepoints::{Copy, Stop};

/// What is published at the end of a job and is in no checkpoint.
const NO_CHECKPOINT: CheckpointId = CheckpointId(0);

/// Drives one job through its attempts to its end.
///
/// A pure state machine: inputs are the `handle_*` calls, what to do comes from [`Self::poll_action`]. After each call
/// drain the actions to `None`, and call [`Self::handle_timeout`] when [`Self::next_deadline`] comes. Each
/// [`Action::Start`], [`Action::Stop`], [`Action::Commit`] and [`Action::CommitLast`] needs its answer, and so do the
/// questions to the store: what comes next waits for them.
///
/// What is told of an attempt that is over changes nothing, whenever it comes.
#[derive(Debug)]
pub struct Driver {
    job: String,
    plan: Plan,
    coordinator: Coordinator,
    restarter: Restarter,
    epoch: Option<Epoch>, // of the claim that opened the job
    attempt: Attempt,     // the newest
    phase: Phase,
    commits: VecDeque<(CheckpointId, Vec<OperatorSnapshot>)>, // of the attempt that runs, to be published next
    committing: Option<(Attempt, CheckpointId)>,              // being published
    /// Acknowledgements held back while output of the checkpoint before is being published: a checkpoint may not
    /// complete before, since a restore publishes only what the newest one names.
    held: Vec<(Attempt, CheckpointId, SubtaskSnapshot)>,
    described: Told,         // the failure that is told next
    failure: Option<String>, // that which ended the last attempt
    watch: ProgressWatch,
    on_no_progress: OnNoProgress,
    no_progress: Option<NoProgress>, // since the job last got on
    damage: Option<String>,          // of the checkpoint that could not be restored
    fell_from: Option<Box<CompletedCheckpoint>>,
    copies: BTreeMap<RequestId, Copy>,
    stop: Option<Stop>,  // the job is to stop behind a checkpoint, or is to be drained
    ending: Option<End>, // how the job is to end; then no attempt runs, though one may be starting or stopping
    closing: bool,       // the coordinator has been told of it
    over: bool,
    actions: VecDeque<Action>,
}

impl Driver {
    /// The driver of one job for one start of the process.
    ///
    /// # Errors
    ///
    /// [`InvalidStrategy`] if a parameter of the restart strategy is out of its range.
    ///
    /// # Panics
    ///
    /// If `slots_per_boundary` is zero.
    pub fn new(settings: DriverSettings) -> Result<Self, InvalidStrategy> {
        let restarter = Restarter::new(settings.strategy, settings.nonce)?;
        let job = settings.job.name.clone();
        let mut coordinator = Coordinator::new(settings.checkpointing, settings.job, settings.nonce);
        if let Some(slots) = settings.slots_per_boundary {
            coordinator.set_slots_per_boundary(slots);
        }
        Ok(Self {
            job,
            plan: settings.plan,
            coordinator,
            restarter,
            epoch: None,
            attempt: Attempt(0),
            // Nothing runs that is to be stopped, and no delay is to be waited for.
            phase: Phase::Between(Between { stopped: true, due: true, restore: None }),
            commits: VecDeque::new(),
            committing: None,
            held: Vec::new(),
            described: Told::default(),
            failure: None,
            watch: ProgressWatch::new(settings.no_progress_attempts),
            on_no_progress: settings.on_no_progress,
            no_progress: None,
            damage: None,
            fell_from: None,
            copies: BTreeMap::new(),
            stop: None,
            ending: None,
            closing: false,
            over: false,
            actions: VecDeque::new(),
        })
    }

    /// Tells that the wall clock shows `unix_ms` (milliseconds since 1970-01-01 UTC) at `now`. Only for the times that
    /// people see in checkpoints.
    pub fn set_wall_clock(&mut self, now: Moment, unix_ms: u64) {
        self.coordinator.set_wall_clock(now, unix_ms);
    }

    /// Says in words what the failure is that is told *next*, by [`Self::handle_failure`], [`Self::handle_started`] or
    /// [`Self::handle_committed`]. Only for the record that the log gets if the job ends of it.
    pub fn describe_failure(&mut self, words: String) {
        self.described.words = Some(words);
    }

    /// Says where the failure is that is told *next*, for whether the job makes progress. Without it, a failure is like no
    /// other.
    pub fn locate_failure(&mut self, site: FailureSite) {
        self.described.site = Some(site);
    }

    /// The store can be used: starts reading the log, to claim the job. Only the first call counts.
    pub fn handle_open(&mut self, now: Moment, from: RestoreFrom) {
        self.coordinator.handle_open(now, from);
        self.settle(now);
    }

    /// The answer to [`Action::Create`].
    pub fn handle_created(&mut self, now: Moment, token: Token, outcome: CreateOutcome) {
        self.coordinator.handle_created(now, token, outcome);
        self.settle(now);
    }

    /// The answer to [`Action::Read`]: the object's bytes, `None` if there is no such object, or why that is not known.
    pub fn handle_read(&mut self, now: Moment, token: Token, result: Result<Option<Vec<u8>>, String>) {
        self.coordinator.handle_read(now, token, result);
        self.settle(now);
    }

    /// The answer to [`Action::Delete`]; an error if any of the objects may still be there.
    pub fn handle_deleted(&mut self, now: Moment, token: Token, result: Result<(), String>) {
        self.coordinator.handle_deleted(now, token, result);
        self.settle(now);
    }

    /// The answer to [`Action::List`].
    pub fn handle_listed(&mut self, now: Moment, token: Token, result: Result<Vec<String>, String>) {
        self.coordinator.handle_listed(now, token, result);
        self.settle(now);
    }

    /// The answer to [`Action::Start`]: the attempt runs, or it could not be started, and nothing of it is left. What
    /// its subtasks told before is handled now.
    ///
    /// Returns whether this is a failure that ends the attempt, as [`Self::handle_failure`] does.
    pub fn handle_started(&mut self, now: Moment, attempt: Attempt, result: Result<(), FailureClass>) -> bool {
        let told = std::mem::take(&mut self.described);
        let ended = self.on_started(now, attempt, result, told);
        self.settle(now);
        ended
    }

    /// The attempt could not be started, and nothing of it is left, since the checkpoint that it was to restore is damaged:
    /// a file is missing, cut, or not as it was written; `reason` says which and how. Not for a store that does not answer,
    /// nor for a checkpoint that does not fit the job.
    ///
    /// Returns whether an older checkpoint takes its place; then [`Action::FellBack`] and the next [`Action::Start`] follow
    /// without asking the restart strategy, unless another process has the job by now. If not, nothing has changed: answer
    /// with [`Self::handle_started`].
    #[must_use]
    pub fn handle_damaged(&mut self, now: Moment, attempt: Attempt, reason: String) -> bool {
        let falls_back = self.on_damaged(now, attempt, reason);
        self.settle(now);
        falls_back
    }

    /// The answer to [`Action::Stop`]: all threads of the attempt have ended.
    pub fn handle_stopped(&mut self, now: Moment, attempt: Attempt) {
        if let (true, Phase::Between(between)) = (attempt == self.attempt, &mut self.phase) {
            between.stopped = true;
        }
        self.settle(now);
    }

    /// The answer to [`Action::Commit`], and with checkpoint 0 to [`Action::CommitLast`]: the output is published, or
    /// could not be; then some of it may be.
    ///
    /// Returns whether this is a failure that ends the attempt, as [`Self::handle_failure`] does.
    pub fn handle_committed(
        &mut self,
        now: Moment,
        attempt: Attempt,
        checkpoint: CheckpointId,
        result: Result<(), FailureClass>,
    ) -> bool {
        let told = std::mem::take(&mut self.described);
        let ended = self.on_committed(now, attempt, checkpoint, result, told);
        self.settle(now);
        ended
    }

    /// A subtask took its snapshot, and its files are durable.
    pub fn handle_ack(&mut self, now: Moment, attempt: Attempt, checkpoint: CheckpointId, snapshot: SubtaskSnapshot) {
        self.tell(now, attempt, Report::Ack { checkpoint, snapshot });
    }

    /// Files that a subtask has stored in vain: see [`Coordinator::handle_litter`].
    pub fn handle_litter(&mut self, now: Moment, names: Vec<String>) {
        self.coordinator.handle_litter(now, names);
        self.settle(now);
    }

    /// Whether acknowledgements or litter may still come of attempts that are over; no unless told. The end of the job waits
    /// for them: see [`Coordinator::handle_storing`]. Tell it before [`Self::handle_stopped`].
    pub fn handle_storing(&mut self, now: Moment, storing: bool) {
        self.coordinator.handle_storing(now, storing);
        self.settle(now);
    }

    /// A subtask has swept its snapshot: see [`Coordinator::handle_swept`]. Need not be told.
    pub fn handle_swept(&mut self, now: Moment, attempt: Attempt, checkpoint: CheckpointId, subtask: SubtaskId) {
        // Of an attempt that is only starting there is no checkpoint.
        self.coordinator.handle_swept(now, attempt, checkpoint, subtask);
        self.settle(now);
    }

    /// A subtask gave the checkpoint up. `counted`: whether that is a failure, or only bad luck.
    pub fn handle_decline(
        &mut self,
        now: Moment,
        attempt: Attempt,
        checkpoint: CheckpointId,
        subtask: SubtaskId,
        reason: String,
        counted: bool,
    ) {
        self.tell(now, attempt, Report::Decline { checkpoint, subtask, reason, counted });
    }

    /// A subtask has processed everything. It stays, and still takes snapshots.
    pub fn handle_end_of_data(&mut self, now: Moment, attempt: Attempt, subtask: SubtaskId) {
        self.tell(now, attempt, Report::EndOfData { subtask });
    }

    /// A subtask's answer to [`Action::LastCut`]: what its sinks still hold. One that comes twice changes nothing.
    pub fn handle_last_cut(
        &mut self,
        now: Moment,
        attempt: Attempt,
        subtask: SubtaskId,
        handles: Vec<OperatorSnapshot>,
        finish: Vec<Finish>,
    ) {
        if attempt == self.attempt {
            self.take_last_cut(subtask, handles, finish);
        }
        self.settle(now);
    }

    /// The attempt failed: in a subtask, or in the threads below.
    ///
    /// Returns whether this failure ends the attempt: then the caller keeps its error for the report. One that comes
    /// after the first of an attempt, of another attempt, or while the job ends changes nothing.
    pub fn handle_failure(&mut self, now: Moment, attempt: Attempt, class: FailureClass) -> bool {
        let told = std::mem::take(&mut self.described);
        let ended = self.on_failure(now, attempt, class, told);
        self.settle(now);
        ended
    }

    /// A checkpoint by hand. Its answer is among the requests of [`Action::Completed`], [`Action::Aborted`] or
    /// [`Action::RequestFailed`]; there is none after [`Action::Done`].
    pub fn handle_request(&mut self, now: Moment) -> RequestId {
        let request = self.coordinator.handle_request(now, Purpose::Checkpoint);
        self.settle(now);
        request
    }

    /// A checkpoint to be copied: [`Action::Copy`] follows [`Action::Completed`]. Else as [`Self::handle_request`].
    pub fn handle_savepoint(&mut self, now: Moment) -> RequestId {
        let request = self.coordinator.handle_request(now, Purpose::Copy);
        self.copies.insert(request, Copy::Asked);
        self.settle(now);
        request
    }

    /// The job is to stop behind a checkpoint of its own, and behind the publishing of its output. `drain`: the sources end
    /// first. `copy`: the checkpoint is to be made a savepoint first.
    ///
    /// Ends in [`Action::Done`] with [`End::Stopped`]; or in an answer to the request as of [`Self::handle_request`], if
    /// there is no such checkpoint, or in [`Action::NotStopped`]; then the job goes on. A job whose sources have ended for it
    /// stops even if the copy fails. `None` if the job is about to stop or to end already.
    pub fn handle_stop(&mut self, now: Moment, drain: bool, copy: bool) -> Option<RequestId> {
        if self.stop.is_some() || self.is_ending() {
            return None;
        }
        let purpose = if drain { Purpose::Drain } else { Purpose::Stop };
        let request = self.coordinator.handle_request(now, purpose);
        self.stop = Some(Stop { request, drain, copy, behind: None, copied: None });
        self.settle(now);
        Some(request)
    }

    /// The answer to [`Action::Copy`]: where the savepoint lies, or that it could not be made.
    pub fn handle_copied(&mut self, now: Moment, request: RequestId, result: Result<String, ()>) {
        self.take_copied(now, request, result);
        self.settle(now);
    }

    /// The job is to stop, without a further checkpoint. The first way to end counts.
    pub fn handle_cancel(&mut self, now: Moment) {
        self.end(End::Canceled);
        self.settle(now);
    }

    /// Time has passed. May be called at any time.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.coordinator.handle_timeout(now);
        self.restarter.handle_timeout(now);
        self.settle(now);
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let deadlines = [self.coordinator.next_deadline(), self.restarter.next_deadline()];
        deadlines.into_iter().flatten().min().filter(|_| !self.over)
    }

    /// The next thing to do. Drain to `None` after each `handle_*` call, before the next one.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

/// For the caller, and for a status page.
impl Driver {
    /// The reign under which attempts run, once the job is open: that of the claim that opened it. The coordinator's may
    /// have risen since, when the fate of a record had to be settled.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The newest attempt; 0 before the first.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Whether an attempt runs: it has started, and nothing has ended it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Whether the job ends, or has ended: no attempt will be started any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.over || self.ending.is_some()
    }

    /// In what the job makes no progress, if it does not; until a source gets further in a checkpoint.
    #[must_use]
    pub fn no_progress(&self) -> Option<&NoProgress> {
        self.no_progress.as_ref()
    }

    /// What is known of checkpoints.
    #[must_use]
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }
}

/// Steps taken until nothing is left to do.
impl Driver {
    fn settle(&mut self, now: Moment) {
        while !self.over {
            if let Some(action) = self.coordinator.poll_action() {
                self.on_coordinator(now, action);
            } else if let Some(action) = self.restarter.poll_action() {
                self.on_restarter(action);
            } else if !(self.commit_next() || self.finish_last_cut() || self.finish_stop() || self.step_between(now)) {
                return;
            }
        }
    }

    fn on_coordinator(&mut self, now: Moment, action: cutwater_coordinator::Action) {
        use cutwater_coordinator::Action as Said;
        let attempt = self.attempt;
        match action {
            Said::Create { token, name, bytes } => self.act(Action::Create { token, name, bytes }),
            Said::Read { token, name, limit } => self.act(Action::Read { token, name, limit }),
            Said::Delete { token, names } => self.act(Action::Delete { token, names }),
            Said::List { token, prefix } => self.act(Action::List { token, prefix }),
            Said::Opened { epoch, restore, discarded } => {
                self.epoch = Some(epoch);
                self.actions.extend(discarded.map(|outcome| Action::BeginsAnew { outcome }));
                self.take_restore(restore);
            }
            Said::FellBack { bad } => self.fell_from = Some(bad),
            Said::Restore { restore } => {
                self.tell_fall_back(restore.as_deref());
                self.take_restore(restore);
            }
            Said::Trigger { barrier, subtasks, hold } => {
                if self.is_running() {
                    self.act(Action::Trigger { attempt, barrier, subtasks, hold });
                }
            }
            Said::Drain => {
                if self.is_running() {
                    self.act(Action::Drain { attempt });
                }
            }
            Said::NotifyCompleted { checkpoint, requests } => self.on_completed(now, checkpoint, requests),
            Said::NotifyAborted { checkpoint, reason, requests } => {
                self.forget_copies(&requests);
                self.act(Action::Aborted { checkpoint, reason, requests });
                if self.is_running() {
                    self.act(Action::Abort { attempt, checkpoint });
                }
            }
            Said::RequestFailed { requests, reason } => {
                self.forget_copies(&requests);
                self.act(Action::RequestFailed { requests, reason });
            }
            Said::FailJob(error) => {
                if self.is_running() {
                    let words = in_words(&error);
                    self.act(Action::CheckpointsFailed(error));
                    self.fail(now, FailureClass::Recoverable, Told { words: Some(words), site: None });
                }
            }
            Said::AllDone => self.begin_last_cut(),
            Said::AlreadyFinished { epoch, latest } => self.stop_at_once(End::AlreadyFinished { epoch, latest }),
            Said::Refused(error) => self.stop_at_once(End::Refused(error)),
            Said::Superseded { by } => self.stop_at_once(End::Superseded { by }),
            Said::Closed { unrecorded } => {
                self.actions.extend(unrecorded.map(|reason| Action::EndUnrecorded { reason }));
                self.done();
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn take_restore(&mut self, restore: Option<Box<CompletedCheckpoint>>) {
        if let Phase::Between(between) = &mut self.phase {
            between.restore = Some(restore);
        }
    }
}

/// Text of an error with its causes, in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
