//! Performs on threads and disks what the driver of a job decides, and tells it what becomes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cutwater_coordinator::{
    AbortReason, CompletedCheckpoint, CreateOutcome, Job, RequestId, RestoreFrom, Savepoint, Token,
};
use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, MaxParallelism, Moment, SubtaskId, TaskId};
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_dataflow::{Finish, JobGraph};
use cutwater_driver::{Action, Driver, DriverSettings, End, plan_of};
use cutwater_restart::{FailureClass, Strategy};
use cutwater_state::StateBackend;
use cutwater_storage::Store;
use cutwater_task::{Cause, TaskError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::attempt::{Committers, Start, Started, commit};
use crate::clock::Clock;
use crate::error::{Failure, JobError};
use crate::failures::{FailureDecision, FailureHistory, FailureRecord};
use crate::host::{Handles, Incarnation, guarded};
use crate::hosted::{Command, Report};
use crate::job::{ClaimMode, JobOutcome, Options};
use crate::local::LocalCopies;
use crate::restore::{RestorePoint, new_operators};
use crate::savepoint::{SavepointError, TakenSavepoint};
use crate::spans;
use crate::statistics::written_bytes;
use crate::statistics::{StatisticsError, StoredStatistics};
use crate::status::{CheckpointSummary, JobState, Shared, Watched};
use crate::upload::{Uploader, chain, held};

mod notices;
mod savepoints;
mod statistics;
mod store;
mod storing;

use statistics::Recorder;
use storing::Storing;

/// How long worker threads may take to end before they are left behind.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);

/// Whom to answer a request.
pub(crate) enum Answer {
    Checkpoint(oneshot::Sender<Result<CompletedCheckpoint, AbortReason>>),
    Savepoint(Box<AnswerSavepoint>),
}

/// A savepoint that somebody waits for.
pub(crate) struct AnswerSavepoint {
    /// Where to, and its location; `None` if the job is only to stop.
    pub(crate) to: Option<(Arc<dyn Store>, String)>,
    pub(crate) stops: bool,
    pub(crate) taken: Option<TakenSavepoint>,
    pub(crate) answer: oneshot::Sender<Result<Option<TakenSavepoint>, SavepointError>>,
}

impl Answer {
    fn refuse(self, reason: &AbortReason) {
        match self {
            Self::Checkpoint(answer) => drop(answer.send(Err(reason.clone()))),
            Self::Savepoint(waiting) => {
                let ended = *reason == AbortReason::Shutdown;
                let error = if ended { SavepointError::Ended } else { SavepointError::NotTaken(reason.clone()) };
                drop(waiting.answer.send(Err(error)));
            }
        }
    }
}

/// What the shell hears.
pub(crate) enum Event {
    /// Whether store and backend can be used.
    Probed(Result<(), JobError>),
    Created(Token, CreateOutcome),
    Read(Token, Result<Option<Vec<u8>>, String>),
    Deleted(Token, Result<(), String>),
    Listed(Token, Result<Vec<String>, String>),
    Started(Attempt, Result<Box<Started>, Failure>),
    Stopped(Attempt, Result<(), Failure>),
    Committed(Attempt, CheckpointId, Committers, Result<(), Failure>),
    HostPanicked(Attempt, Failure),
    Checkpoint(oneshot::Sender<Result<CompletedCheckpoint, AbortReason>>),
    Savepoint(Box<AnswerSavepoint>),
    /// Stop, after draining or not.
    Stop(Box<AnswerSavepoint>, bool),
    Copied(RequestId, Result<Savepoint, SavepointError>),
    StatisticsRead(Box<Result<Option<StoredStatistics>, StatisticsError>>),
    StatisticsWritten(Result<(), String>),
    Tidied,
    Cancel,
}

/// Tries what each attempt needs, so that no attempt begins where all of them would fail.
fn probe(job: String, store: &dyn Store, backend: &dyn StateBackend) -> Result<(), JobError> {
    if let Err(error) = store.probe() {
        return Err(JobError::Store { job, source: Arc::new(error) });
    }
    let name = backend.name();
    backend.prepare().map_err(|error| JobError::Backend { job, backend: name, source: Arc::new(error) })
}

/// The attempt that runs.
struct Running {
    attempt: Attempt,
    incarnation: Incarnation,
    handles: Handles<Command>,
    /// `None` while they publish.
    committers: Option<Committers>,
}

pub(crate) struct Shell {
    graph: Arc<JobGraph>,
    options: Options,
    store: Arc<dyn Store>,
    foreign: Option<RestorePoint>,
    local: Option<Arc<LocalCopies>>,
    tokio: tokio::runtime::Handle,
    clock: Clock,
    events: UnboundedSender<Event>,
    shared: Arc<Shared>,
    driver: Driver,
    max_parallelism: MaxParallelism,
    running: Option<Running>,
    storing: Storing,
    recorder: Recorder,
    failures: FailureHistory,
    /// Tells of the restore that is under way.
    restoring: Option<tracing::Span>,
    answers: BTreeMap<RequestId, Answer>,
    /// What ended the last attempt.
    failure: Option<Arc<Failure>>,
    from: Option<RestoreFrom>,
    /// The savepoint that the job started from is its own, and still there.
    claimed: bool,
    /// How many deletions of it are under way.
    tidying: u32,
    done: Option<Result<JobOutcome, JobError>>,
}

impl Shell {
    pub(crate) fn new(
        graph: JobGraph,
        options: Options,
        restart: Strategy,
        store: Arc<dyn Store>,
        foreign: Option<RestorePoint>,
        tokio: tokio::runtime::Handle,
        events: UnboundedSender<Event>,
        shared: Arc<Shared>,
    ) -> Self {
        let max_parallelism = options.max_parallelism.unwrap_or_default();
        let claimed = options.claim == ClaimMode::Claim && foreign.is_some();
        let history = options.history;
        let local = LocalCopies::new(&options.local, graph.name());
        let driver = Driver::new(DriverSettings {
            checkpointing: options.checkpointing.clone(),
            job: Job { name: graph.name().to_owned(), max_parallelism },
            strategy: restart,
            no_progress_attempts: options.no_progress_attempts,
            on_no_progress: options.on_no_progress,
            nonce: Clock::nonce(),
            plan: plan_of(&graph, options.parallelism.get()),
            slots_per_boundary: None,
        });
        Self {
            driver: driver.expect("the strategy was validated when the job was spawned"),
            graph: Arc::new(graph),
            options,
            store,
            foreign,
            local,
            tokio,
            clock: Clock::new(),
            events,
            shared,
            max_parallelism,
            running: None,
            storing: Storing::default(),
            recorder: Recorder::new(history.checkpoints),
            failures: FailureHistory::new(history.failures),
            restoring: None,
            answers: BTreeMap::new(),
            failure: None,
            from: None,
            claimed,
            tidying: 0,
            done: None,
        }
    }

    pub(crate) async fn drive(
        mut self,
        from: RestoreFrom,
        mut inbox: UnboundedReceiver<Event>,
    ) -> Result<JobOutcome, JobError> {
        let (reports, mut reported) = unbounded_channel();
        let (job, store, backend) = (self.job(), Arc::clone(&self.store), Arc::clone(&self.options.backend));
        self.block(move || Event::Probed(probe(job, store.as_ref(), backend.as_ref())));
        self.from = Some(from);
        loop {
            while let Some(action) = self.driver.poll_action() {
                self.perform(action, &reports);
            }
            self.keep_statistics();
            let keeping = &self.recorder.keeping;
            if let Some(result) = self.done.take_if(|_| self.tidying == 0 && !keeping.is_busy(self.clock.now())) {
                return result;
            }
            let deadlines = [self.driver.next_deadline(), keeping.next_deadline(), self.storing_deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let sleep = async {
                match deadline {
                    Some(moment) => tokio::time::sleep_until(self.clock.instant(moment).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = inbox.recv() => self.handle(event, &reports),
                Some(report) = reported.recv() => self.handle_report(report),
                () = sleep => self.handle_timeout(self.clock.now()),
            }
        }
    }

    fn job(&self) -> String {
        self.graph.name().to_owned()
    }

    /// Runs something that blocks, and hears of it as an event.
    fn block(&self, work: impl FnOnce() -> Event + Send + 'static) {
        let events = self.events.clone();
        self.tokio.spawn_blocking(move || drop(events.send(work())));
    }

    fn handle(&mut self, event: Event, reports: &UnboundedSender<Report>) {
        let now = self.clock.now();
        match event {
            Event::Probed(Ok(())) => {
                if let Some(from) = self.from.take() {
                    self.driver.handle_open(now, from);
                }
            }
            Event::Probed(Err(error)) => self.done = Some(Err(error)),
            Event::Created(token, outcome) => {
                self.heard(&outcome);
                self.driver.handle_created(now, token, outcome);
            }
            Event::Read(token, result) => self.driver.handle_read(now, token, result),
            Event::Deleted(token, result) => self.driver.handle_deleted(now, token, result),
            Event::Listed(token, result) => self.driver.handle_listed(now, token, result),
            Event::Started(attempt, Ok(started)) => self.handle_started(now, attempt, *started),
            Event::Started(attempt, Err(failure)) if self.falls_back(now, attempt, &failure) => {
                self.end_restore(Err(&chain(&failure)));
                self.keep(failure);
                // No strategy is asked, so that there is no delay.
                self.decided(FailureDecision::Restart { after: Duration::ZERO });
            }
            Event::Started(attempt, Err(failure)) => {
                self.end_restore(Err(&chain(&failure)));
                self.fail(failure, |driver, class| driver.handle_started(now, attempt, Err(class)));
            }
            Event::Stopped(attempt, result) => {
                if let Err(failure) = result {
                    tracing::error!(job = self.graph.name(), "{}", chain(&failure));
                }
                self.stopped_storing(now, attempt, reports);
            }
            Event::Committed(attempt, checkpoint, committers, result) => {
                if let Some(running) = self.running.as_mut().filter(|running| running.attempt == attempt) {
                    running.committers = Some(committers);
                }
                self.driver.set_wall_clock(now, Clock::unix_ms());
                match result {
                    Ok(()) => drop(self.driver.handle_committed(now, attempt, checkpoint, Ok(()))),
                    Err(failure) => self
                        .fail(failure, |driver, class| driver.handle_committed(now, attempt, checkpoint, Err(class))),
                }
            }
            Event::HostPanicked(attempt, failure) => {
                self.fail(failure, |driver, class| driver.handle_failure(now, attempt, class));
            }
            Event::Checkpoint(answer) => {
                let answer = Answer::Checkpoint(answer);
                self.request(answer, |driver| Some(driver.handle_request(now)));
            }
            Event::Savepoint(answer) => {
                self.request(Answer::Savepoint(answer), |driver| Some(driver.handle_savepoint(now)));
            }
            Event::Stop(answer, drain) => {
                let copy = answer.to.is_some();
                self.request(Answer::Savepoint(answer), |driver| driver.handle_stop(now, drain, copy));
            }
            Event::Copied(request, result) => self.copied(now, request, result),
            Event::StatisticsRead(read) => self.statistics_read(*read),
            Event::StatisticsWritten(written) => self.statistics_written(&written),
            Event::Tidied => self.tidying -= 1,
            Event::Cancel => self.driver.handle_cancel(now),
        }
    }

    fn handle_started(&mut self, now: Moment, attempt: Attempt, started: Started) {
        let Started { incarnation, handles, committers, gauges, took } = started;
        self.end_restore(Ok(&took));
        let task = |subtask: &SubtaskId| &self.graph.tasks()[subtask.task.0 as usize];
        let watched = gauges.into_iter().map(|(subtask, gauges)| Watched {
            subtask,
            task: task(&subtask).name(),
            is_source: task(&subtask).inputs.is_empty(),
            gauges,
        });
        self.shared.watch(watched.collect());
        self.running = Some(Running { attempt, incarnation, handles, committers: Some(committers) });
        self.driver.handle_started(now, attempt, Ok(()));
        // It may have failed before it was known to run, or the job may have been cancelled.
        if self.driver.is_running() {
            self.shared.update(|status| status.state = JobState::Running);
        }
    }

    fn handle_report(&mut self, report: Report) {
        let now = self.clock.now();
        match report {
            Report::Acked { attempt, checkpoint, mut snapshot, cut_at } => {
                if let Some(triggered) = self.recorder.triggered(checkpoint) {
                    snapshot.phases.start_delay = cut_at.since(triggered).saturating_sub(snapshot.phases.alignment);
                }
                self.part_done(attempt, checkpoint, &snapshot);
                self.driver.set_wall_clock(now, Clock::unix_ms());
                self.driver.handle_ack(now, attempt, checkpoint, *snapshot);
            }
            Report::Swept { attempt, checkpoint, subtask } => {
                self.driver.handle_swept(now, attempt, checkpoint, subtask);
            }
            Report::Declined { attempt, checkpoint, subtask, reason, counted } => {
                self.driver.handle_decline(now, attempt, checkpoint, subtask, reason, counted);
            }
            Report::EndOfData { attempt, subtask } => self.driver.handle_end_of_data(now, attempt, subtask),
            Report::LastCut { attempt, subtask, handles, finish } => {
                self.driver.handle_last_cut(now, attempt, subtask, handles, finish);
            }
            Report::Failed { attempt, error } => {
                self.fail(Failure::Task(*error), |driver, class| driver.handle_failure(now, attempt, class));
            }
            Report::Litter(names) => self.driver.handle_litter(now, names),
            Report::AllStored => self.all_stored(now),
        }
    }

    /// Tells the driver of a failure, and keeps the error if it ends the attempt.
    fn fail(&mut self, failure: Failure, tell: impl FnOnce(&mut Driver, FailureClass) -> bool) {
        let class = match failure.is_non_recoverable() {
            true => FailureClass::NonRecoverable,
            false => FailureClass::Recoverable,
        };
        self.driver.describe_failure(chain(&failure));
        if let Some(site) = failure.site() {
            self.driver.locate_failure(site);
        }
        if tell(&mut self.driver, class) {
            self.keep(failure);
        } else if self.driver.is_ending() {
            tracing::warn!(job = self.graph.name(), "while the job ends: {}", chain(&failure));
        } else {
            tracing::warn!(job = self.graph.name(), "after the attempt had failed: {}", chain(&failure));
        }
    }

    /// The attempt is over because of this.
    fn keep(&mut self, failure: Failure) {
        let attempt = self.driver.attempt();
        tracing::warn!(job = self.graph.name(), %attempt, "attempt failed: {}", chain(&failure));
        self.failures.add(FailureRecord::of(&failure, Clock::unix_ms(), self.driver.epoch(), attempt));
        self.shared.update(|status| {
            status.state = JobState::Restarting;
            status.last_failure = Some(chain(&failure));
            status.failures = self.failures.records();
        });
        self.failure = Some(Arc::new(failure));
    }

    /// What the restart strategy says to the newest failure.
    fn decided(&mut self, decision: FailureDecision) {
        self.failures.decided(decision);
        self.shared.update(|status| status.failures = self.failures.records());
    }

    /// The attempt that was to restore runs, or does not.
    fn end_restore(&mut self, ended: Result<&[Duration], &str>) {
        let Some(span) = self.restoring.take() else { return };
        spans::end_restore(&span, ended, self.shared.restore().as_ref(), Clock::unix_ms());
        if ended.is_ok() {
            self.record_restored();
        }
    }

    fn perform(&mut self, action: Action, reports: &UnboundedSender<Report>) {
        match action {
            Action::Create { token, name, bytes } => {
                self.recorder.recording(&name, &bytes);
                self.create(token, name, bytes);
            }
            Action::Read { token, name, limit } => self.read(token, name, limit),
            Action::Delete { token, names } => self.delete(token, names),
            Action::List { token, prefix } => self.list(token, prefix),
            Action::Start { epoch, attempt, restore, handles } => {
                self.start(epoch, attempt, restore, handles, reports);
            }
            Action::Stop { attempt } => self.stop(attempt, reports),
            Action::Trigger { barrier, subtasks, hold, attempt: _ } => self.trigger(barrier, &subtasks, hold),
            Action::Drain { attempt: _ } => self.tell_all(|| Command::Drain),
            Action::Abort { checkpoint, attempt } => {
                self.storing.uploads.give_up(attempt, Some(checkpoint));
                self.tell_all(|| Command::Abort(checkpoint));
            }
            Action::Published { checkpoint, attempt: _ } => self.tell_all(|| Command::Published(checkpoint)),
            Action::LastCut { attempt: _ } => self.tell_all(|| Command::LastCut),
            Action::Commit { attempt, checkpoint, handles } => self.commit(attempt, checkpoint, handles, Vec::new()),
            Action::CommitLast { attempt, handles, finish } => self.commit(attempt, CheckpointId(0), handles, finish),
            Action::Completed { checkpoint, requests } => self.completed(&checkpoint, requests),
            Action::Aborted { checkpoint, reason, requests } => self.aborted(checkpoint, &reason, requests),
            Action::RequestFailed { requests, reason } => self.refuse(requests, &reason),
            Action::Copy { request, checkpoint } => self.copy(request, checkpoint),
            Action::NotStopped { request, savepoint } => self.not_stopped(request, savepoint),
            Action::CheckpointsFailed(error) => self.keep(Failure::Checkpoints(error)),
            Action::OutputUnreadable { checkpoint, error } => {
                self.keep(Failure::Restore { checkpoint, source: error.into() });
            }
            Action::Restarting { restarts, delay } => {
                self.shared.update(|status| status.restarts = restarts);
                self.decided(FailureDecision::Restart { after: delay });
            }
            Action::BeginsAnew { outcome } => self.begins_anew(outcome),
            Action::FellBack(fell_back) => self.fell_back(*fell_back),
            Action::NoProgress { no_progress, first } => self.no_progress(no_progress, first),
            Action::EndUnrecorded { reason } => {
                tracing::warn!(job = self.graph.name(), "the end of the job could not be recorded: {reason}");
            }
            Action::Done(end) => self.end(end),
        }
    }

    fn start(
        &mut self,
        epoch: Epoch,
        attempt: Attempt,
        restore: Option<Box<CompletedCheckpoint>>,
        handles: Vec<OperatorSnapshot>,
        reports: &UnboundedSender<Report>,
    ) {
        self.shared.update(|status| status.epoch = Some(epoch));
        let (asked, max) = (self.options.parallelism.get(), self.max_parallelism); // a checkpoint has its own
        if restore.is_none() && asked > max.count() {
            let reason =
                format!("parallelism {asked} is above its {} key groups: raise pipeline.max-parallelism", max.count());
            return self.end_with(JobState::Failed, Err(JobError::Options { job: self.job(), reason }));
        }
        let mut from_elsewhere = false;
        let point = restore.map(|checkpoint| {
            let foreign = self.foreign.as_ref().filter(|foreign| foreign.checkpoint == *checkpoint);
            from_elsewhere = foreign.is_some();
            let store = foreign.map_or(&self.store, |foreign| &foreign.store);
            RestorePoint { checkpoint: *checkpoint, store: Arc::clone(store) }
        });
        let restored = point.as_ref().map(|point| point.checkpoint.checkpoint);
        let span = |point| spans::restore(self.graph.name(), epoch, attempt, point, Clock::unix_ms());
        self.restoring = point.as_ref().map(span);
        let new: Vec<_> = point.as_ref().map(|point| new_operators(&self.graph, &point.checkpoint)).unwrap_or_default();
        for operator in &new {
            tracing::info!(job = self.graph.name(), "{operator} starts empty: the checkpoint has nothing of it");
        }
        self.shared.update(|status| {
            status.state = JobState::Initializing;
            status.attempt = Some(attempt);
            status.restored = restored;
            status.new_operators = new;
            status.no_progress = self.driver.no_progress().cloned();
        });
        self.shared.watch_restore(None);
        if let Some(point) = &point {
            self.max_parallelism = self.options.max_parallelism.unwrap_or(point.checkpoint.max_parallelism);
        }
        let tasks = self.graph.tasks().iter().map(|task| (task.name(), task.parallelism(asked)));
        let tasks: Vec<_> = tasks.collect();
        let uploader = Arc::new(Uploader {
            job: self.job(),
            attempt,
            store: Arc::clone(&self.store),
            local: self.local.clone(),
            tokio: self.tokio.clone(),
            clock: self.clock,
            compression: self.options.compression,
            held: held(self.options.inline_threshold, &tasks),
            deltas: self.options.task.deltas.is_some(),
            overlapping: self.options.checkpointing.max_concurrent.get() > 1,
            tasks,
            handles: OnceLock::new(),
            chains: Mutex::default(),
            backend: self.options.backend.name(),
            native: self.options.task.deltas.is_some() && self.options.backend.capabilities().images,
            natives: Mutex::default(),
            uploads: Arc::clone(&self.storing.uploads),
        });
        let start = Start {
            graph: Arc::clone(&self.graph),
            options: self.options.clone(),
            max_parallelism: self.max_parallelism,
            epoch,
            attempt,
            point,
            handles,
            foreign: from_elsewhere,
            reports: reports.clone(),
            events: self.events.clone(),
            clock: self.clock,
            shared: Arc::clone(&self.shared),
            uploader,
        };
        self.block(move || {
            let started = guarded(|| start.run()).unwrap_or_else(|(message, at)| {
                Err(Failure::Task(TaskError {
                    subtask: SubtaskId { task: TaskId(0), index: 0 },
                    operator: "that was being made".to_owned(),
                    position: None,
                    cause: Cause::Panic { message, at },
                }))
            });
            Event::Started(attempt, started.map(Box::new))
        });
    }

    fn stop(&mut self, attempt: Attempt, reports: &UnboundedSender<Report>) {
        self.storing.uploads.give_up(attempt, None);
        match self.running.take() {
            Some(running) => {
                running.incarnation.abort();
                // Joining waits for a quantum of user code, so not here.
                self.block(move || {
                    Event::Stopped(attempt, running.incarnation.join(JOIN_DEADLINE).map_err(Failure::Host))
                });
            }
            None => self.stopped_storing(self.clock.now(), attempt, reports),
        }
    }

    fn trigger(&mut self, barrier: Barrier, subtasks: &[SubtaskId], hold: bool) {
        self.begun(barrier);
        for subtask in subtasks {
            self.send(*subtask, Command::Trigger { barrier, hold });
        }
    }

    fn send(&self, subtask: SubtaskId, command: Command) {
        if let Some(running) = &self.running {
            drop(running.handles.send(subtask, command)); // a worker that is gone has been reported
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for subtask in self.running.iter().flat_map(|running| running.handles.subtasks()) {
            self.send(subtask, command());
        }
    }

    fn commit(
        &mut self,
        attempt: Attempt,
        checkpoint: CheckpointId,
        handles: Vec<OperatorSnapshot>,
        finish: Vec<Finish>,
    ) {
        let committers = self.running.as_mut().and_then(|running| running.committers.take());
        let mut committers = committers.expect("the driver publishes of the attempt that runs, one after the other");
        self.block(move || {
            let operator = handles.first().map(|handle| handle.operator.clone());
            let finished = finish.into_iter().try_for_each(|finish| finish());
            let finished = finished.map_err(|error| Failure::Commit {
                operator: operator.expect("what is to be finished has a handle"),
                checkpoint,
                reason: error.to_string(),
                lost: false,
            });
            let result = finished.and_then(|()| commit(&mut committers, checkpoint, &handles));
            Event::Committed(attempt, checkpoint, committers, result)
        });
    }

    fn completed(&mut self, checkpoint: &CompletedCheckpoint, requests: Vec<RequestId>) {
        self.record_completed(checkpoint, &requests);
        let subtasks = || checkpoint.tasks.iter().flat_map(|task| &task.subtasks);
        let summary = CheckpointSummary {
            checkpoint: checkpoint.checkpoint,
            bytes: checkpoint.state_bytes(),
            written_bytes: subtasks().map(|part| written_bytes(checkpoint.checkpoint, part)).sum(),
            duration: checkpoint.duration,
            sync: subtasks().map(|subtask| subtask.phases.sync).max().unwrap_or_default(),
        };
        self.shared.update(|status| {
            status.completed_checkpoints += 1;
            status.undecided = None;
            status.last_checkpoint = Some(summary);
            status.no_progress = self.driver.no_progress().cloned();
        });
        self.let_go_of_claimed();
        if let Some(local) = self.local.clone() {
            let newest = checkpoint.clone();
            self.tokio.spawn_blocking(move || local.keep_only(&newest));
        }
        for request in requests {
            // Savepoints are answered later.
            if let Some(Answer::Checkpoint(_)) = self.answers.get(&request)
                && let Some(Answer::Checkpoint(answer)) = self.answers.remove(&request)
            {
                drop(answer.send(Ok(checkpoint.clone())));
            }
        }
    }

    fn aborted(&mut self, checkpoint: CheckpointId, reason: &AbortReason, requests: Vec<RequestId>) {
        let text = chain(reason);
        tracing::warn!(job = self.graph.name(), %checkpoint, "checkpoint aborted: {text}");
        self.record_failed(checkpoint, reason, &requests);
        self.shared.update(|status| {
            status.failed_checkpoints += 1;
            status.undecided = None;
            status.last_checkpoint_failure = Some(format!("checkpoint {checkpoint}: {text}"));
        });
        self.refuse(requests, reason);
    }

    fn refuse(&mut self, requests: Vec<RequestId>, reason: &AbortReason) {
        for request in requests {
            if let Some(answer) = self.answers.remove(&request) {
                answer.refuse(reason);
            }
        }
    }

    fn end(&mut self, end: End) {
        let job = self.job();
        let ours = !matches!(end, End::AlreadyFinished { .. } | End::Superseded { .. } | End::Refused(_));
        self.recorder.keeping.finish(self.clock.now(), ours);
        let (state, result) = match end {
            End::Finished => {
                self.stopped(); // one that was to stop has come to its end instead
                (JobState::Finished, Ok(JobOutcome::Finished))
            }
            End::AlreadyFinished { .. } => (JobState::Finished, Ok(JobOutcome::AlreadyFinished)),
            End::Canceled => (JobState::Canceled, Ok(JobOutcome::Canceled)),
            End::Stopped { savepoint, .. } => {
                self.stopped();
                (JobState::Finished, Ok(JobOutcome::Stopped { savepoint }))
            }
            End::GaveUp { restarts, reason: gave_up } => {
                self.decided(FailureDecision::GaveUp { reason: gave_up });
                let source = self.failure.clone().expect("the driver said which failure ended the attempt");
                (JobState::Failed, Err(JobError::Failed { job, restarts, gave_up, source }))
            }
            End::Superseded { by } => (JobState::Failed, Err(JobError::Superseded { job, by })),
            End::Refused(source) => (JobState::Failed, Err(JobError::Log { job, url: self.store.url(), source })),
        };
        self.end_with(state, result);
    }

    fn end_with(&mut self, state: JobState, result: Result<JobOutcome, JobError>) {
        self.shared.update(|status| status.state = state);
        self.done = Some(result);
    }
}
