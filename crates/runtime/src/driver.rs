//! Drives one job: performs what coordinator and restarter decide, starts and ends attempts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cutwater_coordinator::{
    AbortReason, Action, CompletedCheckpoint, Coordinator, CreateOutcome, Job, Outcome, Plan, PlanInput, RequestId,
    RestoreFrom, SubtaskSnapshot, TaskPlan, Token,
};
use cutwater_core::{Attempt, CheckpointId, Epoch, MaxParallelism, Moment, SubtaskId, TaskId};
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_dataflow::{Finish, JobGraph};
use cutwater_restart::{Action as RestartAction, FailureClass, GiveUp, Restarter, Strategy};
use cutwater_storage::{CreateError, Listed, ObjectName, ProbeError, Store};
use cutwater_task::{Cause, TaskError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::attempt::{Committers, Start, Started, commit};
use crate::clock::Clock;
use crate::error::{Failure, JobError};
use crate::host::{Handles, Incarnation, guarded};
use crate::hosted::{Command, Report};
use crate::job::{JobOutcome, Options};
use crate::restore::{self, RestorePoint};
use crate::status::{CheckpointSummary, JobState, Shared};
use crate::upload::{Uploader, chain};

/// How long worker threads may take to end before they are left behind.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);

type Answer = oneshot::Sender<Result<CompletedCheckpoint, AbortReason>>;

/// What the driver hears.
pub(crate) enum Event {
    Probed(Result<(), ProbeError>),
    Created(Token, CreateOutcome),
    Read(Token, Result<Option<Vec<u8>>, String>),
    Deleted(Token, Result<(), String>),
    Listed(Token, Result<Vec<String>, String>),
    Started(Attempt, Result<Box<Started>, Failure>),
    Joined(Result<(), Failure>),
    Committed(Committers, Result<CheckpointId, Failure>),
    HostPanicked(Attempt, Failure),
    Request(Answer),
    Cancel,
}

/// The attempt that runs.
struct Running {
    attempt: Attempt,
    incarnation: Incarnation,
    handles: Handles<Command>,
    /// `None` while a commit is under way.
    committers: Option<Committers>,
    /// Subtasks that have yet to hand over what their sinks hold, once all is done.
    last_cut: Option<LastCut>,
}

#[derive(Default)]
struct LastCut {
    missing: usize,
    handles: Vec<OperatorSnapshot>,
    finish: Vec<Finish>,
}

/// What has to come together before the next attempt, or the end.
#[derive(Default)]
struct Between {
    joined: bool,
    restore: Option<Option<Box<CompletedCheckpoint>>>,
    due: bool,
}

pub(crate) struct Driver {
    graph: Arc<JobGraph>,
    options: Options,
    store: Arc<dyn Store>,
    foreign: Option<RestorePoint>,
    tokio: tokio::runtime::Handle,
    clock: Clock,
    events: UnboundedSender<Event>,
    shared: Arc<Shared>,
    coordinator: Coordinator,
    restarter: Restarter,
    epoch: Epoch,
    attempt: Attempt,
    max_parallelism: MaxParallelism,
    running: Option<Running>,
    starting: bool,
    between: Option<Between>,
    committing: bool,
    commits: VecDeque<(CheckpointId, Vec<OperatorSnapshot>)>,
    /// Acknowledgements held back while output of the checkpoint before is being published: a checkpoint may not
    /// complete before, since a restore publishes only what the newest one names.
    held: Vec<(Attempt, CheckpointId, SubtaskSnapshot)>,
    /// Reports of subtasks that ran before the driver heard that their attempt has started.
    early: Vec<Report>,
    early_panic: Option<(Attempt, Failure)>,
    triggered: Option<(CheckpointId, Moment)>,
    answers: BTreeMap<RequestId, Answer>,
    failure: Option<Arc<Failure>>,
    from: Option<RestoreFrom>,
    /// How the job is being ended.
    ending: Option<Result<JobOutcome, JobError>>,
    closing: bool,
    done: Option<Result<JobOutcome, JobError>>,
}

impl Driver {
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
        let job = Job { name: graph.name().to_owned(), max_parallelism };
        let nonce = Clock::nonce();
        Self {
            coordinator: Coordinator::new(options.checkpointing.clone(), job, nonce),
            restarter: Restarter::new(restart, nonce).expect("the strategy was validated when the job was spawned"),
            graph: Arc::new(graph),
            options,
            store,
            foreign,
            tokio,
            clock: Clock::new(),
            events,
            shared,
            epoch: Epoch(1),
            attempt: Attempt(0),
            max_parallelism,
            running: None,
            starting: false,
            between: None,
            committing: false,
            commits: VecDeque::new(),
            held: Vec::new(),
            early: Vec::new(),
            early_panic: None,
            triggered: None,
            answers: BTreeMap::new(),
            failure: None,
            from: None,
            ending: None,
            closing: false,
            done: None,
        }
    }

    pub(crate) async fn drive(
        mut self,
        from: RestoreFrom,
        mut inbox: UnboundedReceiver<Event>,
    ) -> Result<JobOutcome, JobError> {
        let (reports, mut reported) = unbounded_channel();
        let store = Arc::clone(&self.store);
        self.block(move || Event::Probed(store.probe()));
        self.from = Some(from);
        loop {
            self.settle(&reports);
            if let Some(result) = self.done.take() {
                return result;
            }
            let deadline = match (self.coordinator.next_deadline(), self.restarter.next_deadline()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let sleep = async {
                match deadline {
                    Some(moment) => tokio::time::sleep_until(self.clock.instant(moment).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = inbox.recv() => self.handle(event),
                Some(report) = reported.recv() => self.handle_report(report),
                () = sleep => {
                    let now = self.clock.now();
                    self.coordinator.handle_timeout(now);
                    self.restarter.handle_timeout(now);
                }
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

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Probed(Ok(())) => {
                if let Some(from) = self.from.take() {
                    self.coordinator.handle_open(now, from);
                }
            }
            Event::Probed(Err(error)) => {
                self.done = Some(Err(JobError::Store { job: self.job(), source: Arc::new(error) }));
            }
            Event::Created(token, outcome) => self.coordinator.handle_created(now, token, outcome),
            Event::Read(token, result) => self.coordinator.handle_read(now, token, result),
            Event::Deleted(token, result) => self.coordinator.handle_deleted(now, token, result),
            Event::Listed(token, result) => self.coordinator.handle_listed(now, token, result),
            Event::Started(attempt, Ok(started)) => self.handle_started(now, attempt, *started),
            Event::Started(_, Err(failure)) => {
                self.starting = false;
                self.early.clear();
                self.fail(failure);
            }
            Event::Joined(result) => {
                if let Err(failure) = result {
                    tracing::error!(job = self.graph.name(), "{}", chain(&failure));
                }
                if let Some(between) = &mut self.between {
                    between.joined = true;
                }
            }
            Event::Committed(committers, result) => self.handle_committed(committers, result),
            Event::HostPanicked(attempt, failure) if self.starting => self.early_panic = Some((attempt, failure)),
            Event::HostPanicked(attempt, failure) => {
                if self.running.as_ref().is_some_and(|running| running.attempt == attempt) {
                    self.fail(failure);
                }
            }
            Event::Request(answer) => {
                if self.ending.is_some() || self.closing {
                    drop(answer.send(Err(AbortReason::Shutdown)));
                } else {
                    let request = self.coordinator.handle_request(now);
                    self.answers.insert(request, answer);
                }
            }
            Event::Cancel => {
                self.end(Ok(JobOutcome::Canceled));
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        if self.starting {
            self.early.push(report);
            return;
        }
        let now = self.clock.now();
        match report {
            Report::Acked { attempt, checkpoint, mut snapshot, cut_at } => {
                if let Some((_, started)) = self.triggered.filter(|(triggered, _)| *triggered == checkpoint) {
                    snapshot.phases.start_delay = cut_at.since(started).saturating_sub(snapshot.phases.alignment);
                }
                if self.committing {
                    self.held.push((attempt, checkpoint, *snapshot));
                } else {
                    self.coordinator.set_wall_clock(now, Clock::unix_ms());
                    self.coordinator.handle_ack(now, attempt, checkpoint, *snapshot);
                }
            }
            Report::Declined { attempt, checkpoint, subtask, reason, counted } => {
                self.coordinator.handle_decline(now, attempt, checkpoint, subtask, reason, counted);
            }
            Report::EndOfData { attempt, subtask } => self.coordinator.handle_end_of_data(now, attempt, subtask),
            Report::LastCut { attempt, handles, finish } => {
                let running = self.running.as_mut().filter(|running| running.attempt == attempt);
                if let Some(cut) = running.and_then(|running| running.last_cut.as_mut()) {
                    cut.handles.extend(handles);
                    cut.finish.extend(finish);
                    cut.missing = cut.missing.saturating_sub(1);
                }
            }
            Report::Failed { attempt, error } => {
                if self.running.as_ref().is_some_and(|running| running.attempt == attempt) {
                    self.fail(Failure::Task(*error));
                }
            }
        }
    }

    /// Performs everything that can be done now.
    fn settle(&mut self, reports: &UnboundedSender<Report>) {
        loop {
            let mut idle = true;
            while let Some(action) = self.coordinator.poll_action() {
                idle = false;
                self.perform(action, reports);
            }
            while let Some(action) = self.restarter.poll_action() {
                idle = false;
                self.perform_restart(action);
            }
            self.commit_next();
            self.finish_last_cut();
            if self.step_between(reports) {
                idle = false;
            }
            if idle {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action, reports: &UnboundedSender<Report>) {
        match action {
            Action::Create { token, name, bytes } => self.create(token, name, bytes),
            Action::Read { token, name, limit } => {
                let store = Arc::clone(&self.store);
                self.block(move || {
                    let read = object(&name).and_then(|name| store.read(&name, limit).map_err(|error| chain(&error)));
                    Event::Read(token, read)
                });
            }
            Action::Delete { token, names } => {
                let store = Arc::clone(&self.store);
                self.block(move || {
                    let delete = |name: &String| {
                        object(name).and_then(|name| store.delete(&name).map_err(|error| chain(&error)))
                    };
                    Event::Deleted(token, names.iter().try_for_each(delete))
                });
            }
            Action::List { token, prefix } => {
                let store = Arc::clone(&self.store);
                self.block(move || {
                    let listed = store.list(&prefix).map_err(|error| chain(&error));
                    let names = |listed: Vec<Listed>| listed.iter().map(|entry| entry.name.to_string()).collect();
                    Event::Listed(token, listed.map(names))
                });
            }
            Action::Opened { epoch, restore } => {
                self.epoch = epoch;
                self.shared.update(|status| status.epoch = Some(epoch));
                if self.ending.is_none() {
                    self.start(restore, reports);
                } else {
                    self.close();
                }
            }
            Action::AlreadyFinished { .. } => {
                self.shared.update(|status| status.state = JobState::Finished);
                self.done = Some(Ok(JobOutcome::AlreadyFinished));
            }
            Action::Refused(source) => {
                let error = JobError::Log { job: self.job(), url: self.store.url(), source };
                self.stop_at_once(error);
            }
            Action::Trigger { barrier, subtasks } => {
                self.triggered.get_or_insert((barrier.checkpoint, self.clock.now()));
                if self.triggered.is_some_and(|(checkpoint, _)| checkpoint != barrier.checkpoint) {
                    self.triggered = Some((barrier.checkpoint, self.clock.now()));
                }
                for subtask in subtasks {
                    self.send(subtask, Command::Trigger(barrier));
                }
            }
            Action::NotifyCompleted { checkpoint, requests } => self.completed(*checkpoint, requests),
            Action::NotifyAborted { checkpoint, reason, requests } => {
                let text = chain(&reason);
                tracing::warn!(job = self.graph.name(), %checkpoint, "checkpoint aborted: {text}");
                self.shared.update(|status| {
                    status.failed_checkpoints += 1;
                    status.last_checkpoint_failure = Some(format!("checkpoint {checkpoint}: {text}"));
                });
                self.refuse(requests, &reason);
                self.tell_all(|| Command::Abort(checkpoint));
            }
            Action::RequestFailed { requests, reason } => self.refuse(requests, &reason),
            Action::Restore { restore } => {
                if let Some(between) = &mut self.between {
                    between.restore = Some(restore);
                }
            }
            Action::FailJob(error) => self.fail(Failure::Checkpoints(error)),
            Action::AllDone => self.all_done(),
            Action::Superseded { by } => {
                let error = JobError::Superseded { job: self.job(), by };
                self.stop_at_once(error);
            }
            Action::Closed { unrecorded } => {
                if let Some(reason) = unrecorded {
                    tracing::warn!(job = self.graph.name(), "the end of the job could not be recorded: {reason}");
                }
                self.done = self.ending.take();
            }
        }
    }

    fn create(&self, token: Token, name: String, bytes: Vec<u8>) {
        let store = Arc::clone(&self.store);
        self.block(move || {
            let outcome = match object(&name) {
                Err(reason) => CreateOutcome::Failed(reason),
                Ok(name) => match store.create(&name, &bytes) {
                    Ok(()) => CreateOutcome::Created,
                    Err(CreateError::Exists) => CreateOutcome::Exists,
                    Err(CreateError::Failed { source }) => CreateOutcome::Failed(chain(&source)),
                    Err(CreateError::Unknown { source }) => CreateOutcome::Unknown(chain(&source)),
                },
            };
            Event::Created(token, outcome)
        });
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

    fn refuse(&mut self, requests: Vec<RequestId>, reason: &AbortReason) {
        for request in requests {
            if let Some(answer) = self.answers.remove(&request) {
                drop(answer.send(Err(reason.clone())));
            }
        }
    }

    fn completed(&mut self, checkpoint: CompletedCheckpoint, requests: Vec<RequestId>) {
        let subtasks = || checkpoint.tasks.iter().flat_map(|task| &task.subtasks);
        let summary = CheckpointSummary {
            checkpoint: checkpoint.checkpoint,
            bytes: checkpoint.state_bytes(),
            duration: checkpoint.duration,
            sync: subtasks().map(|subtask| subtask.phases.sync).max().unwrap_or_default(),
        };
        self.shared.update(|status| {
            status.completed_checkpoints += 1;
            status.last_checkpoint = Some(summary);
        });
        match restore::handles(&checkpoint) {
            Ok(handles) => self.commits.push_back((checkpoint.checkpoint, handles)),
            Err(source) => self.fail(Failure::Restore { checkpoint: checkpoint.checkpoint, source }),
        }
        for request in requests {
            if let Some(answer) = self.answers.remove(&request) {
                drop(answer.send(Ok(checkpoint.clone())));
            }
        }
    }

    /// Publishes what the oldest waiting checkpoint names.
    fn commit_next(&mut self) {
        if self.committing {
            return;
        }
        let Some(running) = &mut self.running else {
            self.commits.clear(); // the restore publishes it
            return;
        };
        let Some((checkpoint, handles)) = self.commits.pop_front() else { return };
        if handles.is_empty() {
            return self.commit_next();
        }
        let Some(mut committers) = running.committers.take() else { return };
        self.committing = true;
        self.block(move || {
            let result = commit(&mut committers, checkpoint, &handles).map(|()| checkpoint);
            Event::Committed(committers, result)
        });
    }

    fn handle_committed(&mut self, committers: Committers, result: Result<CheckpointId, Failure>) {
        self.committing = false;
        if let Some(running) = &mut self.running {
            running.committers = Some(committers);
        }
        let now = self.clock.now();
        for (attempt, checkpoint, snapshot) in std::mem::take(&mut self.held) {
            self.coordinator.set_wall_clock(now, Clock::unix_ms());
            self.coordinator.handle_ack(now, attempt, checkpoint, snapshot);
        }
        match result {
            Ok(checkpoint) => self.tell_all(|| Command::Published(checkpoint)),
            Err(failure) => self.fail(failure),
        }
    }

    /// All data is processed, and what can be durable is.
    fn all_done(&mut self) {
        let Some(running) = &mut self.running else { return };
        let subtasks: Vec<_> = running.handles.subtasks().collect();
        running.last_cut = Some(LastCut { missing: subtasks.len(), ..LastCut::default() });
        self.tell_all(|| Command::LastCut);
    }

    /// Once all subtasks have handed over what their sinks still held: publish it, and end.
    fn finish_last_cut(&mut self) {
        if self.committing || !self.commits.is_empty() || self.ending.is_some() {
            return;
        }
        let Some(running) = &mut self.running else { return };
        let Some(cut) = running.last_cut.as_mut().filter(|cut| cut.missing == 0) else { return };
        let (handles, finish) = (std::mem::take(&mut cut.handles), std::mem::take(&mut cut.finish));
        if handles.is_empty() && finish.is_empty() {
            running.last_cut = None;
            self.end(Ok(JobOutcome::Finished));
            return;
        }
        let Some(mut committers) = running.committers.take() else { return };
        self.committing = true;
        self.block(move || {
            let operator = handles.first().map(|handle| handle.operator.clone());
            let finished = finish.into_iter().try_for_each(|finish| finish());
            let finished = finished.map_err(|error| Failure::Commit {
                operator: operator.expect("what is to be finished has a handle"),
                checkpoint: CheckpointId(0),
                reason: error.to_string(),
                lost: false,
            });
            let result = finished.and_then(|()| commit(&mut committers, CheckpointId(0), &handles));
            Event::Committed(committers, result.map(|()| CheckpointId(0)))
        });
    }

    fn start(&mut self, restore: Option<Box<CompletedCheckpoint>>, reports: &UnboundedSender<Report>) {
        let (asked, max) = (self.options.parallelism.get(), self.max_parallelism); // a checkpoint has its own
        if restore.is_none() && asked > max.count() {
            let reason =
                format!("parallelism {asked} is above its {} key groups: raise pipeline.max-parallelism", max.count());
            return self.stop_at_once(JobError::Options { job: self.job(), reason });
        }
        self.attempt = self.attempt.next();
        self.starting = true;
        let mut from_elsewhere = false;
        let point = restore.map(|checkpoint| {
            let foreign = self.foreign.as_ref().filter(|foreign| foreign.checkpoint == *checkpoint);
            from_elsewhere = foreign.is_some();
            let store = foreign.map_or(&self.store, |foreign| &foreign.store);
            RestorePoint { checkpoint: *checkpoint, store: Arc::clone(store) }
        });
        let restored = point.as_ref().map(|point| point.checkpoint.checkpoint);
        let attempt = self.attempt;
        self.shared.update(|status| {
            status.state = JobState::Initializing;
            status.attempt = Some(attempt);
            status.restored = restored;
        });
        if let Some(point) = &point {
            self.max_parallelism = self.options.max_parallelism.unwrap_or(point.checkpoint.max_parallelism);
        }
        let uploader = Arc::new(Uploader {
            job: self.job(),
            attempt,
            store: Arc::clone(&self.store),
            tokio: self.tokio.clone(),
            clock: self.clock,
            compression: self.options.compression,
            tasks: self.graph.tasks().iter().map(|task| (task.name(), self.parallelism_of(task.task))).collect(),
            handles: std::sync::OnceLock::new(),
        });
        let start = Start {
            graph: Arc::clone(&self.graph),
            options: self.options.clone(),
            max_parallelism: self.max_parallelism,
            epoch: self.epoch,
            attempt,
            point,
            foreign: from_elsewhere,
            reports: reports.clone(),
            events: self.events.clone(),
            clock: self.clock,
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

    fn parallelism_of(&self, task: TaskId) -> u32 {
        self.graph.tasks()[task.0 as usize].parallelism(self.options.parallelism.get())
    }

    fn handle_started(&mut self, now: Moment, attempt: Attempt, started: Started) {
        self.starting = false;
        let Started { incarnation, handles, committers, gauges } = started;
        let sources = |subtask: &SubtaskId| self.graph.tasks()[subtask.task.0 as usize].input.is_none();
        let gauges = gauges.into_iter().filter(|(subtask, _)| sources(subtask)).map(|(_, gauges)| gauges);
        self.shared.set_sources(gauges.collect());
        self.running = Some(Running { attempt, incarnation, handles, committers: Some(committers), last_cut: None });
        if self.ending.is_some() {
            self.stop_attempt();
            return;
        }
        self.shared.update(|status| status.state = JobState::Running);
        self.restarter.handle_restarted(now);
        self.coordinator.handle_running(now, attempt, self.plan());
        for report in std::mem::take(&mut self.early) {
            self.handle_report(report);
        }
        if let Some((attempt, failure)) = self.early_panic.take() {
            self.handle(Event::HostPanicked(attempt, failure));
        }
    }

    fn plan(&self) -> Plan {
        let task = |task: &cutwater_dataflow::TaskSpec| TaskPlan {
            task: task.task,
            name: task.name(),
            operators: task.uids().cloned().collect(),
            parallelism: self.parallelism_of(task.task),
            inputs: task.input.map(|edge| PlanInput { from: TaskId(edge.0), pointwise: false }).into_iter().collect(),
        };
        Plan { tasks: self.graph.tasks().iter().map(task).collect() }
    }

    /// The attempt is over.
    fn fail(&mut self, failure: Failure) {
        if self.ending.is_some() {
            tracing::warn!(job = self.graph.name(), "while the job ends: {}", chain(&failure));
            return;
        }
        if self.between.is_some() {
            // One failure brings others about; the strategy hears of the first only.
            tracing::warn!(job = self.graph.name(), "after the attempt had failed: {}", chain(&failure));
            return;
        }
        let now = self.clock.now();
        tracing::warn!(job = self.graph.name(), attempt = %self.attempt, "attempt failed: {}", chain(&failure));
        let class = match failure.is_non_recoverable() {
            true => FailureClass::NonRecoverable,
            false => FailureClass::Recoverable,
        };
        self.shared.update(|status| {
            status.state = JobState::Restarting;
            status.last_failure = Some(chain(&failure));
        });
        self.failure = Some(Arc::new(failure));
        self.stop_attempt();
        self.between.get_or_insert(Between { joined: true, ..Between::default() }); // nothing ran that is to be joined
        self.coordinator.handle_failover(now);
        self.restarter.handle_failure(now, class);
    }

    /// Ends the threads of the attempt, if it runs.
    fn stop_attempt(&mut self) {
        if let Some(running) = self.running.take() {
            self.between = Some(Between::default());
            running.incarnation.abort();
            // Joining waits for a quantum of user code, so not here.
            self.block(move || Event::Joined(running.incarnation.join(JOIN_DEADLINE).map_err(Failure::Host)));
        }
    }

    fn perform_restart(&mut self, action: RestartAction) {
        match action {
            RestartAction::Restart { attempt, .. } => self.shared.update(|status| status.restarts = attempt),
            RestartAction::Merged { .. } => {}
            RestartAction::Start { .. } => {
                if let Some(between) = &mut self.between {
                    between.due = true;
                }
            }
            RestartAction::GiveUp { reason } => self.give_up(reason),
        }
    }

    fn give_up(&mut self, gave_up: GiveUp) {
        let Some(source) = self.failure.clone() else { return };
        let restarts = self.restarter.restarts();
        self.end(Err(JobError::Failed { job: self.job(), restarts, gave_up, source }));
    }

    /// Begins to end the job.
    fn end(&mut self, outcome: Result<JobOutcome, JobError>) {
        if self.ending.is_none() {
            self.ending = Some(outcome);
            self.stop_attempt();
        }
    }

    /// Ends the job without a word to the log, which is not ours any more.
    fn stop_at_once(&mut self, error: JobError) {
        self.commits.clear();
        self.closing = true;
        self.shared.update(|status| status.state = JobState::Failed);
        match self.running.take() {
            Some(running) => {
                self.ending = Some(Err(error));
                self.between = Some(Between::default());
                running.incarnation.abort();
                self.block(move || Event::Joined(running.incarnation.join(JOIN_DEADLINE).map_err(Failure::Host)));
            }
            None => self.done = Some(Err(error)),
        }
    }

    /// Goes on between attempts, or at the end, once all that is needed is there. `true` if something was done.
    fn step_between(&mut self, reports: &UnboundedSender<Report>) -> bool {
        if self.committing || self.starting {
            return false; // output under way may not be swept, a start under way must be stopped first
        }
        if self.ending.is_some() {
            let joined = self.between.as_ref().is_none_or(|between| between.joined);
            if joined && self.running.is_none() && self.done.is_none() {
                self.between = None;
                if std::mem::replace(&mut self.closing, true) {
                    if self.between.is_none() && self.coordinator_is_over() {
                        self.done = self.ending.take();
                        return true;
                    }
                    return false;
                }
                self.close();
                return true;
            }
            return false;
        }
        let ready = |between: &Between| between.joined && between.due && between.restore.is_some();
        if self.between.as_ref().is_some_and(ready)
            && let Some(Between { restore: Some(restore), .. }) = self.between.take()
        {
            self.start(restore, reports);
            return true;
        }
        false
    }

    /// After it was superseded or refused the coordinator says no more.
    fn coordinator_is_over(&self) -> bool {
        matches!(self.ending, Some(Err(JobError::Superseded { .. } | JobError::Log { .. } | JobError::Store { .. })))
    }

    /// Records the end of the job.
    fn close(&mut self) {
        self.closing = true;
        let (outcome, state) = match &self.ending {
            Some(Ok(JobOutcome::Finished | JobOutcome::AlreadyFinished)) => (Outcome::Finished, JobState::Finished),
            Some(Ok(JobOutcome::Canceled)) => (Outcome::Canceled, JobState::Canceled),
            Some(Err(error)) => (Outcome::Failed(chain(error)), JobState::Failed),
            None => return,
        };
        self.shared.update(|status| status.state = state);
        for (_, answer) in std::mem::take(&mut self.answers) {
            drop(answer.send(Err(AbortReason::Shutdown)));
        }
        self.coordinator.handle_end(self.clock.now(), outcome);
    }
}

fn object(name: &str) -> Result<ObjectName, String> {
    ObjectName::parse(name).map_err(|error| error.to_string())
}
