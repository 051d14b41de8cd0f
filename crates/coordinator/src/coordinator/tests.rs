use std::collections::BTreeMap;
use std::num::NonZeroU32;

use cutwater_core::{Barrier, Epoch, MaxParallelism, OperatorUid, SnapshotForm, TaskId};

use super::*;
use crate::{CheckpointError, FileRef, OpenError, Phases, PlanInput, TaskPlan, snapshot_name};

mod concurrent;
mod ending;
mod fallback;
mod log;
mod rules;
mod savepoints;
mod world;

/// A coordinator on a store that does as it is told, and what it says in short words.
struct Rig {
    coordinator: Coordinator,
    now: Moment,
    store: BTreeMap<String, Vec<u8>>,
    /// What becomes of the next creations, before all go well again.
    outcomes: VecDeque<Fate>,
    /// Whether questions to the store wait.
    held: bool,
    waiting: VecDeque<Action>,
    fails_deletions: bool,
    fails_reads: bool,
    /// Files beside the log, for listings; `None` if listings fail.
    files: Option<Vec<String>>,
    seen: Vec<String>,
}

#[derive(Clone, Copy)]
enum Fate {
    Well,
    Failed,
    UnknownDone,
    UnknownNotDone,
}

fn settings() -> Settings {
    Settings { interval: Some(Duration::from_millis(100)), timeout: Duration::from_millis(1000), ..Settings::default() }
}

fn by_hand() -> Settings {
    Settings { interval: None, ..settings() }
}

fn retaining(count: u32) -> Settings {
    Settings { num_retained: NonZeroU32::new(count).unwrap(), ..by_hand() }
}

/// Task 0 is a source of two subtasks, all of which send to both of task 1.
fn plan() -> Plan {
    let task = |task, inputs| TaskPlan {
        task: TaskId(task),
        name: format!("task {task}"),
        operators: vec![OperatorUid::new(&format!("operator-{task}")).unwrap()],
        parallelism: 2,
        inputs,
    };
    Plan { tasks: vec![task(0, vec![]), task(1, vec![PlanInput { from: TaskId(0), pointwise: false }])] }
}

const S0: SubtaskId = SubtaskId { task: TaskId(0), index: 0 };
const S1: SubtaskId = SubtaskId { task: TaskId(0), index: 1 };
const T0: SubtaskId = SubtaskId { task: TaskId(1), index: 0 };
const T1: SubtaskId = SubtaskId { task: TaskId(1), index: 1 };
const ALL: [SubtaskId; 4] = [S0, S1, T0, T1];

fn ids(requests: &[RequestId]) -> Vec<u64> {
    requests.iter().map(|request| request.0).collect()
}

fn short(subtasks: &[SubtaskId]) -> String {
    let name = |subtask: &SubtaskId| format!("{}{}", ["S", "T"][subtask.task.0 as usize], subtask.index);
    subtasks.iter().map(name).collect::<Vec<_>>().join(" ")
}

impl Rig {
    fn new(settings: Settings, nonce: u64) -> Self {
        let job = Job { name: "test".to_owned(), max_parallelism: MaxParallelism::default() };
        let mut coordinator = Coordinator::new(settings, job, nonce);
        coordinator.set_wall_clock(Moment::ZERO, 1_000_000);
        coordinator.log.set_slots_per_boundary(4);
        Self {
            coordinator,
            now: Moment::ZERO,
            store: BTreeMap::new(),
            outcomes: VecDeque::new(),
            held: false,
            waiting: VecDeque::new(),
            fails_deletions: false,
            fails_reads: false,
            files: Some(Vec::new()),
            seen: Vec::new(),
        }
    }

    /// Open and running, with nothing seen yet.
    fn running(settings: Settings) -> Self {
        let mut rig = Self::new(settings, 1);
        rig.open(RestoreFrom::Latest);
        rig.run(1);
        rig.seen.clear();
        rig
    }

    /// The next start of the job, on the same store.
    fn restarted(self, settings: Settings) -> Self {
        let nonce = self.coordinator.next_request + 1000 * u64::try_from(self.store.len()).unwrap();
        Self { store: self.store, files: self.files, now: self.now, ..Self::new(settings, nonce) }
    }

    fn open(&mut self, from: RestoreFrom) {
        self.coordinator.handle_open(self.now, from);
        self.drain();
    }

    fn run(&mut self, attempt: u32) {
        self.coordinator.handle_running(self.now, Attempt(attempt), plan());
        self.drain();
    }

    /// Lets time pass until the moment, waking the coordinator whenever it wants.
    fn until(&mut self, millis: u64) {
        let end = Moment::from_millis(millis);
        while let Some(deadline) = self.coordinator.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.coordinator.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn request(&mut self) {
        self.request_for(Purpose::Checkpoint);
    }

    fn request_for(&mut self, purpose: Purpose) {
        self.coordinator.handle_request(self.now, purpose);
        self.drain();
    }

    fn copied(&mut self, request: u64) {
        self.coordinator.handle_copied(self.now, RequestId(request));
        self.drain();
    }

    fn ack(&mut self, attempt: u32, checkpoint: u64, subtask: SubtaskId) {
        self.ack_chain(attempt, &[checkpoint], subtask);
    }

    /// Acknowledges the last of the checkpoints with the files of all of them, as one does that builds on the others.
    fn ack_chain(&mut self, attempt: u32, checkpoints: &[u64], subtask: SubtaskId) {
        let name = |checkpoint| format!("c{checkpoint}-a{attempt}-{}", short(&[subtask]));
        let files = checkpoints.iter().map(|at| FileRef::stored(name(at), 10, 0)).collect();
        let checkpoint = *checkpoints.last().unwrap();
        let snapshot = SubtaskSnapshot { subtask, files, inline: vec![], phases: Phases::default(), state_bytes: 10 };
        self.coordinator.handle_ack(self.now, Attempt(attempt), CheckpointId(checkpoint), snapshot);
        self.drain();
    }

    fn ack_all(&mut self, checkpoint: u64) {
        for subtask in ALL {
            self.ack(1, checkpoint, subtask);
        }
    }

    /// One checkpoint from start to end, without its traces.
    fn checkpoint(&mut self) {
        self.request();
        let checkpoint = self.coordinator.pending().expect("one has begun").checkpoint;
        self.ack_all(checkpoint.0);
        assert_eq!(self.coordinator.latest().map(|latest| latest.checkpoint), Some(checkpoint));
        self.seen.clear();
    }

    fn decline(&mut self, checkpoint: u64, subtask: SubtaskId, counted: bool) {
        let (attempt, checkpoint) = (Attempt(1), CheckpointId(checkpoint));
        self.coordinator.handle_decline(self.now, attempt, checkpoint, subtask, "no".to_owned(), counted);
        self.drain();
    }

    fn end_of_data(&mut self, subtasks: &[SubtaskId]) {
        for subtask in subtasks {
            self.coordinator.handle_end_of_data(self.now, Attempt(1), *subtask);
            self.drain();
        }
    }

    fn finished(&mut self, subtasks: &[SubtaskId]) {
        for subtask in subtasks {
            self.coordinator.handle_finished(self.now, Attempt(1), *subtask);
            self.drain();
        }
    }

    fn fail_over(&mut self) {
        self.coordinator.handle_failover(self.now);
        self.drain();
    }

    fn end(&mut self, outcome: Outcome) {
        self.coordinator.handle_end(self.now, outcome);
        self.drain();
    }

    /// Answers what waits, and holds nothing back any more.
    fn release(&mut self) {
        self.held = false;
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            if let Some(action) = self.coordinator.poll_action() {
                match action {
                    Action::Create { .. } | Action::Read { .. } | Action::Delete { .. } | Action::List { .. } => {
                        self.waiting.push_back(action)
                    }
                    told => self.note(told),
                }
            } else if let Some(action) = self.waiting.pop_front() {
                if self.held {
                    return self.waiting.push_front(action);
                }
                self.answer(action);
            } else {
                return;
            }
        }
    }

    fn answer(&mut self, question: Action) {
        match question {
            Action::Create { token, name, bytes } => {
                let exists = self.store.contains_key(&name);
                let outcome = match self.outcomes.pop_front().unwrap_or(Fate::Well) {
                    Fate::Failed => CreateOutcome::Failed("full".to_owned()),
                    Fate::UnknownNotDone => CreateOutcome::Unknown("timed out".to_owned()),
                    Fate::Well if exists => CreateOutcome::Exists,
                    done => {
                        self.store.entry(name).or_insert(bytes);
                        let lost = matches!(done, Fate::UnknownDone);
                        if lost { CreateOutcome::Unknown("lost".to_owned()) } else { CreateOutcome::Created }
                    }
                };
                self.coordinator.handle_created(self.now, token, outcome);
            }
            Action::Read { token, name, .. } => {
                let found = Ok(self.store.get(&name).cloned());
                let result = if self.fails_reads { Err("unreachable".to_owned()) } else { found };
                self.coordinator.handle_read(self.now, token, result);
            }
            Action::Delete { token, names } => {
                self.seen.push(format!("delete {}", names.join(" ")));
                let result = if self.fails_deletions { Err("busy".to_owned()) } else { Ok(()) };
                if !self.fails_deletions {
                    self.files.iter_mut().for_each(|files| files.retain(|name| !names.contains(name)));
                    self.store.retain(|name, _| !names.contains(name));
                }
                self.coordinator.handle_deleted(self.now, token, result);
            }
            Action::List { token, prefix } => {
                assert_eq!(prefix, "chk/");
                let result = self.files.clone().ok_or_else(|| "unreachable".to_owned());
                self.coordinator.handle_listed(self.now, token, result);
            }
            other => panic!("{other:?} is no question"),
        }
    }

    fn note(&mut self, action: Action) {
        let id = |checkpoint: &Option<Box<CompletedCheckpoint>>| match checkpoint {
            Some(checkpoint) => format!("{}", checkpoint.checkpoint),
            None => "nothing".to_owned(),
        };
        self.seen.push(match action {
            Action::Opened { epoch, restore, discarded } => {
                let anew = discarded.map(|outcome| format!(", whose checkpoints went with {outcome:?}"));
                format!("epoch {epoch} from {}{}", id(&restore), anew.unwrap_or_default())
            }
            Action::FellBack { bad } => format!("fell back past {}", bad.checkpoint),
            Action::AlreadyFinished { latest, .. } => format!("finished already at {}", id(&latest)),
            Action::Refused(error) => format!("refused: {error}"),
            Action::Trigger { barrier, subtasks, hold } => {
                let hold = if hold { ", then hold" } else { "" };
                format!("trigger {} at {}{hold}", barrier.checkpoint, short(&subtasks))
            }
            Action::Drain => "end the sources".to_owned(),
            Action::NotifyCompleted { checkpoint, requests } => {
                let last = if checkpoint.is_final() { ", the last" } else { "" };
                format!("completed {}{last} for {:?}", checkpoint.checkpoint, ids(&requests))
            }
            Action::NotifyAborted { checkpoint, reason, requests } => {
                format!("aborted {checkpoint} for {:?}: {reason}", ids(&requests))
            }
            Action::RequestFailed { requests, reason } => format!("failed {:?}: {reason}", ids(&requests)),
            Action::Restore { restore } => format!("restore {}", id(&restore)),
            Action::FailJob(CheckpointError::TooManyFailures { failures, .. }) => format!("fail job: {failures}"),
            Action::AllDone => "all done".to_owned(),
            Action::Superseded { by } => format!("superseded by {by}"),
            Action::Closed { unrecorded } => format!("closed: {unrecorded:?}"),
            question @ (Action::Create { .. } | Action::Read { .. } | Action::Delete { .. } | Action::List { .. }) => {
                panic!("{question:?}")
            }
        });
    }
}

/// A sentence, the settings, what happens, and what the coordinator says to it.
type Case = (&'static str, Settings, fn(&mut Rig), &'static [&'static str]);

fn check(cases: &[Case]) {
    for (name, settings, script, expected) in cases {
        let mut rig = Rig::running(settings.clone());
        script(&mut rig);
        assert_eq!(rig.seen, *expected, "{name}");
    }
}
