use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_coordinator::inspect::{LogEntryKind, read_slot, slot_of};
use cutwater_coordinator::{Job, Phases, Settings, TaskPlan};
use cutwater_core::{MaxParallelism, OperatorUid, TaskId};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_restart::{GiveUp, Strategy};
use cutwater_task::TaskSnapshot;

use super::*;
use crate::NO_PROGRESS_ATTEMPTS;

mod fallback;
mod progress;
mod savepoints;

const A: SubtaskId = SubtaskId { task: TaskId(0), index: 0 };
const B: SubtaskId = SubtaskId { task: TaskId(0), index: 1 };
const FAILS: Result<(), FailureClass> = Err(FailureClass::Recoverable);

/// A driver of two subtasks without inputs on a store that does as it is told, and what it says in short words.
struct Rig {
    driver: Driver,
    now: Moment,
    store: BTreeMap<String, Vec<u8>>,
    /// What the store says to the next creation, instead of doing it.
    refusal: Option<CreateOutcome>,
    /// Whether questions to the store wait.
    held: bool,
    waiting: VecDeque<Action>,
    seen: Vec<String>,
}

fn by_hand() -> Settings {
    Settings::default()
}

fn without() -> Settings {
    Settings { enabled: false, ..Settings::default() }
}

fn restarts(attempts: u32) -> Strategy {
    Strategy::FixedDelay { attempts, delay: Duration::from_secs(1) }
}

fn handle(text: &str) -> OperatorSnapshot {
    let operator = OperatorUid::new("sink").unwrap();
    OperatorSnapshot { operator, kind: SnapshotKind::PreparedOutput, payload: text.as_bytes().to_vec() }
}

fn texts(handles: &[OperatorSnapshot]) -> String {
    handles.iter().map(|handle| format!(" {}", String::from_utf8_lossy(&handle.payload))).collect()
}

impl Rig {
    fn new(checkpointing: Settings, strategy: Strategy, store: BTreeMap<String, Vec<u8>>) -> Self {
        let task = TaskPlan { task: A.task, name: "all".to_owned(), operators: vec![], parallelism: 2, inputs: vec![] };
        let driver = Driver::new(DriverSettings {
            checkpointing,
            job: Job { name: "test".to_owned(), max_parallelism: MaxParallelism::default() },
            strategy,
            no_progress_attempts: NO_PROGRESS_ATTEMPTS,
            on_no_progress: OnNoProgress::Report,
            nonce: 1 + u64::try_from(store.len()).unwrap(),
            plan: Plan { tasks: vec![task] },
            slots_per_boundary: Some(4),
        });
        let now = Moment::ZERO;
        let (refusal, waiting, seen) = (None, VecDeque::new(), Vec::new());
        Self { driver: driver.unwrap(), now, store, refusal, held: false, waiting, seen }
    }

    fn opened(checkpointing: Settings, strategy: Strategy) -> Self {
        let mut rig = Self::new(checkpointing, strategy, BTreeMap::new());
        rig.open();
        assert_eq!(rig.seen, ["start 1 of epoch 1 from nothing"]);
        rig.seen.clear();
        rig
    }

    fn running(checkpointing: Settings, strategy: Strategy) -> Self {
        let mut rig = Self::opened(checkpointing, strategy);
        rig.started(1, Ok(()));
        rig
    }

    /// The next start of the job, on the same store.
    fn restarted(self, checkpointing: Settings) -> Self {
        let mut rig = Self::new(checkpointing, restarts(1), self.store);
        rig.open();
        rig
    }

    fn open(&mut self) {
        self.driver.handle_open(self.now, RestoreFrom::Latest);
        self.drain();
    }

    fn started(&mut self, attempt: u32, result: Result<(), FailureClass>) {
        self.driver.describe_failure("no room".to_owned());
        let ended = self.driver.handle_started(self.now, Attempt(attempt), result);
        self.failed(result, ended);
    }

    fn stopped(&mut self, attempt: u32) {
        self.driver.handle_stopped(self.now, Attempt(attempt));
        self.drain();
    }

    fn committed(&mut self, attempt: u32, checkpoint: u64, result: Result<(), FailureClass>) {
        self.driver.describe_failure("the sink is full".to_owned());
        let ended = self.driver.handle_committed(self.now, Attempt(attempt), CheckpointId(checkpoint), result);
        self.failed(result, ended);
    }

    fn fail(&mut self, attempt: u32, class: FailureClass, words: &str) {
        self.driver.describe_failure(words.to_owned());
        let ended = self.driver.handle_failure(self.now, Attempt(attempt), class);
        self.failed(Err(class), ended);
    }

    /// What the caller is told of a failure.
    fn failed(&mut self, result: Result<(), FailureClass>, ended: bool) {
        if result.is_err() {
            self.seen.push(if ended { "keep it" } else { "forget it" }.to_owned());
        } else {
            assert!(!ended, "nothing failed");
        }
        self.drain();
    }

    fn ack(&mut self, attempt: u32, checkpoint: u64, subtask: SubtaskId, output: &[&str]) {
        let operators = output.iter().map(|text| handle(text)).collect();
        let inline = TaskSnapshot { watermark: 0, records: 0, operators }.encode();
        self.ack_inline(attempt, checkpoint, subtask, inline);
    }

    fn ack_inline(&mut self, attempt: u32, checkpoint: u64, subtask: SubtaskId, inline: Vec<u8>) {
        let snapshot = SubtaskSnapshot { subtask, files: vec![], inline, phases: Phases::default(), state_bytes: 0 };
        self.driver.handle_ack(self.now, Attempt(attempt), CheckpointId(checkpoint), snapshot);
        self.drain();
    }

    /// A checkpoint by hand, of the first attempt, with this output.
    fn checkpoint(&mut self, checkpoint: u64, output: &[&str]) {
        self.request();
        self.ack(1, checkpoint, A, output);
        self.ack(1, checkpoint, B, &[]);
    }

    fn request(&mut self) {
        self.driver.handle_request(self.now);
        self.drain();
    }

    fn savepoint(&mut self) {
        self.driver.handle_savepoint(self.now);
        self.drain();
    }

    fn stop(&mut self, drain: bool, copy: bool) -> bool {
        let request = self.driver.handle_stop(self.now, drain, copy);
        self.drain();
        request.is_some()
    }

    fn copied(&mut self, request: u64, result: Result<&str, ()>) {
        self.driver.handle_copied(self.now, RequestId(request), result.map(str::to_owned));
        self.drain();
    }

    fn decline(&mut self, checkpoint: u64) {
        let (attempt, checkpoint) = (Attempt(1), CheckpointId(checkpoint));
        self.driver.handle_decline(self.now, attempt, checkpoint, A, "no".to_owned(), true);
        self.drain();
    }

    fn end_of_data(&mut self, attempt: u32) {
        for subtask in [A, B] {
            self.driver.handle_end_of_data(self.now, Attempt(attempt), subtask);
            self.drain();
        }
    }

    fn last_cut(&mut self, attempt: u32, subtask: SubtaskId, output: &[&str]) {
        let handles = output.iter().map(|text| handle(text)).collect();
        let finish: Vec<Finish> = output.iter().map(|_| -> Finish { Box::new(|| Ok(())) }).collect();
        self.driver.handle_last_cut(self.now, Attempt(attempt), subtask, handles, finish);
        self.drain();
    }

    fn cancel(&mut self) {
        self.driver.handle_cancel(self.now);
        self.drain();
    }

    /// Lets time pass, waking the driver whenever it wants.
    fn until(&mut self, millis: u64) {
        let end = Moment::from_millis(millis);
        while let Some(deadline) = self.driver.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.driver.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Answers what waits, and holds nothing back any more.
    fn release(&mut self) {
        self.held = false;
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.driver.poll_action() {
                Some(
                    question @ (Action::Create { .. }
                    | Action::Read { .. }
                    | Action::Delete { .. }
                    | Action::List { .. }),
                ) => self.waiting.push_back(question),
                Some(told) => self.seen.push(self.short(told)),
                None if self.held => return,
                None => match self.waiting.pop_front() {
                    Some(question) => self.answer(question),
                    None => return,
                },
            }
        }
    }

    fn answer(&mut self, question: Action) {
        match question {
            Action::Create { token, name, bytes } => {
                let entry = slot_of(&name).map(|_| read_slot(&name, &bytes).unwrap().kind);
                let outcome = match self.refusal.take() {
                    Some(refusal) => refusal,
                    None if self.store.contains_key(&name) => CreateOutcome::Exists,
                    None => {
                        if let Some(LogEntryKind::Ended { outcome, discarded }) = entry {
                            let gone = if discarded { ", and its checkpoints go" } else { "" };
                            self.seen.push(format!("record {outcome:?}{gone}"));
                        }
                        self.store.insert(name, bytes);
                        CreateOutcome::Created
                    }
                };
                self.driver.handle_created(self.now, token, outcome);
            }
            Action::Read { token, name, .. } => {
                self.driver.handle_read(self.now, token, Ok(self.store.get(&name).cloned()));
            }
            Action::Delete { token, .. } => self.driver.handle_deleted(self.now, token, Ok(())),
            Action::List { token, .. } => self.driver.handle_listed(self.now, token, Ok(vec![])),
            other => panic!("{other:?} is no question"),
        }
    }

    fn short(&self, action: Action) -> String {
        let ids = |requests: &[RequestId]| format!("{:?}", requests.iter().map(|it| it.0).collect::<Vec<_>>());
        match action {
            Action::Start { epoch, attempt, restore, handles } => {
                let from = restore.map_or("nothing".to_owned(), |restore| restore.checkpoint.to_string());
                let publish = if handles.is_empty() { "" } else { ", publish" };
                format!("start {attempt} of epoch {epoch} from {from}{publish}{}", texts(&handles))
            }
            Action::Stop { attempt } => format!("stop {attempt}"),
            Action::Trigger { attempt, barrier, subtasks, hold } => {
                assert_eq!((barrier.attempt, subtasks), (attempt, vec![A, B]));
                let hold = if hold { ", then hold" } else { "" };
                format!("trigger {}{hold}", barrier.checkpoint)
            }
            Action::Drain { .. } => "end the sources".to_owned(),
            Action::Copy { request, checkpoint } => {
                let drained = if checkpoint.is_drained() { ", drained" } else { "" };
                format!("copy {} for {}{drained}", checkpoint.checkpoint, request.0)
            }
            Action::NotStopped { request, savepoint } => format!("not stopped for {}: {savepoint:?}", request.0),
            Action::Abort { checkpoint, .. } => format!("tell that {checkpoint} is aborted"),
            Action::Published { checkpoint, .. } => format!("tell that {checkpoint} is published"),
            Action::LastCut { .. } => "last cut".to_owned(),
            Action::Commit { checkpoint, handles, .. } => format!("commit {checkpoint}:{}", texts(&handles)),
            Action::CommitLast { handles, finish, .. } => {
                format!("commit at last:{}, {} to finish", texts(&handles), finish.len())
            }
            Action::Completed { checkpoint, requests } => {
                format!("completed {} for {}", checkpoint.checkpoint, ids(&requests))
            }
            Action::Aborted { checkpoint, reason, .. } => format!("aborted {checkpoint}: {reason}"),
            Action::RequestFailed { requests, reason } => format!("failed {}: {reason}", ids(&requests)),
            Action::CheckpointsFailed(error) => error.to_string(),
            Action::OutputUnreadable { checkpoint, .. } => format!("unreadable output of {checkpoint}"),
            Action::Restarting { restarts, .. } => format!("restart {restarts} is scheduled"),
            Action::BeginsAnew { outcome } => format!("begins anew after {outcome:?}"),
            Action::FellBack(fell_back) => fell_back.to_string(),
            Action::NoProgress { no_progress, first } => {
                format!("no progress{}: {no_progress}", if first { "" } else { " still" })
            }
            Action::EndUnrecorded { reason } => format!("unrecorded: {reason}"),
            Action::Done(end) => {
                assert!(self.driver.is_ending() && self.driver.next_deadline().is_none());
                format!("done: {end:?}")
            }
            question @ (Action::Create { .. } | Action::Read { .. } | Action::Delete { .. } | Action::List { .. }) => {
                panic!("{question:?}")
            }
        }
    }
}

/// A sentence, what happens to a job that runs with checkpoints by hand and one restart, and what the driver says to it.
type Case = (&'static str, fn(&mut Rig), &'static [&'static str]);

fn check(cases: &[Case]) {
    for (name, script, expected) in cases {
        let mut rig = Rig::running(by_hand(), restarts(1));
        script(&mut rig);
        assert_eq!(rig.seen, *expected, "{name}");
    }
}

#[test]
fn output_is_published_when_its_checkpoint_is_durable() {
    check(&[
        (
            "not before the record is there, and subtasks hear of it after that",
            |rig| {
                rig.held = true;
                rig.checkpoint(1, &["x", "y"]);
                rig.seen.push("-- the record".to_owned());
                rig.release();
                rig.committed(1, 1, Ok(()));
            },
            &["trigger 1", "-- the record", "completed 1 for [1]", "commit 1: x y", "tell that 1 is published"],
        ),
        (
            "a checkpoint without output needs no publishing",
            |rig| rig.checkpoint(1, &[]),
            &["trigger 1", "completed 1 for [1]"],
        ),
        (
            "the next does not complete before the output of the one before is published",
            |rig| {
                rig.checkpoint(1, &["x"]);
                rig.checkpoint(2, &["y"]);
                rig.seen.push("-- published".to_owned());
                rig.committed(1, 1, Ok(()));
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "commit 1: x",
                "trigger 2",
                "-- published",
                "tell that 1 is published",
                "completed 2 for [2]",
                "commit 2: y",
            ],
        ),
        (
            "an answer that nobody waits for changes nothing",
            |rig| {
                rig.committed(1, 1, FAILS);
                rig.checkpoint(1, &["x"]);
                rig.committed(2, 1, FAILS);
                rig.committed(1, 2, FAILS);
                rig.committed(1, 0, Ok(()));
            },
            &["forget it", "trigger 1", "completed 1 for [1]", "commit 1: x", "forget it", "forget it"],
        ),
        (
            "output that can't be published ends the attempt",
            |rig| {
                rig.checkpoint(1, &["x"]);
                rig.committed(1, 1, FAILS);
                rig.until(1000);
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "commit 1: x",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "start 2 of epoch 1 from 1, publish x",
            ],
        ),
        (
            "output that can't be read ends the job",
            |rig| {
                rig.request();
                rig.ack(1, 1, A, &[]);
                rig.ack_inline(1, 1, B, vec![99]);
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "unreadable output of 1",
                "stop 1",
                "record Failed(\"job test failed after 0 restarts: the failure is one that no restart can mend: could \
                 not restore checkpoint 1: the subtask's part has format 99, this version knows up to 1: use the version \
                 that wrote it\")",
                "done: GaveUp { restarts: 0, reason: NonRecoverable }",
            ],
        ),
    ]);
}

#[test]
fn the_next_attempt_waits_for_all_that_it_needs() {
    const END: &str = "start 2 of epoch 1 from nothing";
    check(&[
        (
            "the delay, when the threads have ended",
            |rig| {
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.stopped(1);
                rig.until(999);
                rig.seen.push("-- 999".to_owned());
                rig.until(1000);
            },
            &["keep it", "stop 1", "restart 1 is scheduled", "-- 999", END],
        ),
        (
            "the threads, when the delay is over",
            |rig| {
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.until(5000);
                rig.stopped(0);
                rig.seen.push("-- stopped".to_owned());
                rig.stopped(1);
            },
            &["keep it", "stop 1", "restart 1 is scheduled", "-- stopped", END],
        ),
        (
            "the fate of a record on its way, whose output the restore publishes",
            |rig| {
                rig.held = true;
                rig.checkpoint(1, &["x"]);
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.stopped(1);
                rig.until(5000);
                rig.release();
            },
            &[
                "trigger 1",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "completed 1 for [1]",
                "start 2 of epoch 1 from 1, publish x",
            ],
        ),
        (
            "output that is being published, whatever becomes of it",
            |rig| {
                rig.checkpoint(1, &["x"]);
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.stopped(1);
                rig.until(5000);
                rig.seen.push("-- published".to_owned());
                rig.committed(1, 1, FAILS);
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "commit 1: x",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "-- published",
                "forget it",
                "start 2 of epoch 1 from 1, publish x",
            ],
        ),
    ]);
}

#[test]
fn an_attempt_ends_by_its_first_failure() {
    check(&[
        (
            "those that it brings about, of other attempts and of earlier ones change nothing",
            |rig| {
                rig.fail(0, FailureClass::Recoverable, "before");
                rig.fail(2, FailureClass::NonRecoverable, "never");
                rig.fail(1, FailureClass::Recoverable, "first");
                rig.fail(1, FailureClass::NonRecoverable, "second");
                rig.stopped(1);
                rig.until(1000);
                rig.fail(1, FailureClass::NonRecoverable, "late");
                rig.started(2, Ok(()));
                rig.fail(1, FailureClass::NonRecoverable, "very late");
            },
            &[
                "forget it",
                "forget it",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "forget it",
                "start 2 of epoch 1 from nothing",
                "forget it",
                "forget it",
            ],
        ),
        (
            "a start that fails is one, and the job ends when the strategy gives up, with a word to the log",
            |rig| {
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.stopped(1);
                rig.until(1000);
                rig.started(2, FAILS);
            },
            &[
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "start 2 of epoch 1 from nothing",
                "keep it",
                "record Failed(\"job test failed after 1 restarts: all 1 restart attempts are used up: no room\")",
                "done: GaveUp { restarts: 1, reason: AttemptsExhausted { attempts: 1 } }",
            ],
        ),
        (
            "what no restart can mend ends the job once the threads have ended",
            |rig| {
                rig.fail(1, FailureClass::NonRecoverable, "never fits");
                rig.until(5000);
                rig.stopped(1);
            },
            &[
                "keep it",
                "stop 1",
                "record Failed(\"job test failed after 0 restarts: the failure is one that no restart can mend: never \
                 fits\")",
                "done: GaveUp { restarts: 0, reason: NonRecoverable }",
            ],
        ),
        (
            "too many failed checkpoints are one",
            |rig| {
                rig.request();
                rig.decline(1);
                rig.stopped(1);
                rig.until(1000);
            },
            &[
                "trigger 1",
                "aborted 1: task 0[0] declined: no",
                "tell that 1 is aborted",
                "checkpoint 1 failed, the 1. in a row, 0 are tolerated",
                "stop 1",
                "restart 1 is scheduled",
                "start 2 of epoch 1 from nothing",
            ],
        ),
        (
            "a checkpoint in flight goes with its attempt, and late words of it are of no use",
            |rig| {
                rig.request();
                rig.ack(1, 1, A, &["x"]);
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.ack(1, 1, B, &[]);
                rig.stopped(1);
                rig.until(1000);
                rig.end_of_data(1);
                rig.started(2, Ok(()));
                rig.end_of_data(1);
            },
            &[
                "trigger 1",
                "keep it",
                "stop 1",
                "aborted 1: the attempt ended",
                "restart 1 is scheduled",
                "start 2 of epoch 1 from nothing",
            ],
        ),
    ]);
}

#[test]
fn what_subtasks_tell_before_their_start_is_known_is_not_lost() {
    type Opened = (&'static str, fn(&mut Rig), &'static [&'static str]);
    let cases: [Opened; 5] = [
        (
            "the end of data begins the last checkpoint",
            |rig| {
                rig.end_of_data(1);
                rig.seen.push("-- started".to_owned());
                rig.started(1, Ok(()));
            },
            &["-- started", "trigger 1"],
        ),
        (
            "a failure ends the attempt as soon as it runs, and is the first",
            |rig| {
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.fail(1, FailureClass::NonRecoverable, "more");
                rig.fail(0, FailureClass::NonRecoverable, "old");
                rig.started(1, Ok(()));
                rig.fail(1, FailureClass::NonRecoverable, "even more");
                rig.stopped(1);
                rig.until(1000);
            },
            &[
                "keep it",
                "forget it",
                "forget it",
                "stop 1",
                "restart 1 is scheduled",
                "forget it",
                "start 2 of epoch 1 from nothing",
            ],
        ),
        (
            "a failure before a start that fails is the first too",
            |rig| {
                rig.fail(1, FailureClass::NonRecoverable, "boom");
                rig.started(1, FAILS);
            },
            &[
                "keep it",
                "forget it",
                "record Failed(\"job test failed after 0 restarts: the failure is one that no restart can mend: boom\")",
                "done: GaveUp { restarts: 0, reason: NonRecoverable }",
            ],
        ),
        (
            "what was told of a start that failed goes with it",
            |rig| {
                rig.end_of_data(1);
                rig.started(1, FAILS);
                rig.until(1000);
                rig.started(1, Ok(()));
                rig.started(2, Ok(()));
            },
            &["keep it", "restart 1 is scheduled", "start 2 of epoch 1 from nothing"],
        ),
        (
            "a job that was cancelled meanwhile stops what was started",
            |rig| {
                rig.cancel();
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.end_of_data(1);
                rig.started(1, Ok(()));
                rig.seen.push("-- stopped".to_owned());
                rig.stopped(1);
            },
            &["forget it", "stop 1", "-- stopped", "record Canceled", "done: Canceled"],
        ),
    ];
    for (name, script, expected) in cases {
        let mut rig = Rig::opened(by_hand(), restarts(1));
        script(&mut rig);
        assert_eq!(rig.seen, *expected, "{name}");
    }
}

#[test]
fn a_job_finishes_when_all_data_is_processed_and_all_output_published() {
    check(&[
        (
            "with checkpoints after the last one",
            |rig| {
                rig.end_of_data(1);
                rig.ack(1, 1, A, &["x"]);
                rig.ack(1, 1, B, &[]);
                rig.last_cut(1, A, &[]);
                rig.last_cut(1, B, &[]);
                rig.seen.push("-- published".to_owned());
                rig.committed(1, 1, Ok(()));
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "completed 1 for []",
                "last cut",
                "commit 1: x",
                "-- published",
                "tell that 1 is published",
                "stop 1",
                "record Finished",
                "done: Finished",
            ],
        ),
        (
            "a last cut that comes unasked, twice or of another attempt is none",
            |rig| {
                rig.last_cut(1, A, &["early"]);
                rig.end_of_data(1);
                rig.ack(1, 1, A, &[]);
                rig.ack(1, 1, B, &[]);
                rig.last_cut(1, A, &["x"]);
                rig.last_cut(1, A, &["x"]);
                rig.last_cut(0, B, &["old"]);
                rig.seen.push("-- the last".to_owned());
                rig.last_cut(1, B, &["y"]);
                rig.last_cut(1, B, &["y"]);
                rig.committed(1, 0, Ok(()));
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "completed 1 for []",
                "last cut",
                "-- the last",
                "commit at last: x y, 2 to finish",
                "stop 1",
                "record Finished",
                "done: Finished",
            ],
        ),
        (
            "a failure before that is one like any other",
            |rig| {
                rig.end_of_data(1);
                rig.ack(1, 1, A, &["x"]);
                rig.ack(1, 1, B, &[]);
                rig.last_cut(1, A, &[]);
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.last_cut(1, B, &[]);
                rig.committed(1, 1, Ok(()));
                rig.stopped(1);
                rig.until(1000);
            },
            &[
                "trigger 1",
                "completed 1 for []",
                "last cut",
                "commit 1: x",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "start 2 of epoch 1 from 1, publish x",
            ],
        ),
    ]);
    let mut rig = Rig::running(without(), Strategy::None);
    rig.end_of_data(1);
    rig.last_cut(1, A, &["x"]);
    rig.last_cut(1, B, &[]);
    rig.committed(1, 0, FAILS);
    rig.stopped(1);
    let expected = [
        "last cut",
        "commit at last: x, 1 to finish",
        "keep it",
        "stop 1",
        "record Failed(\"job test failed after 0 restarts: the restart strategy is none: the sink is full\")",
        "done: GaveUp { restarts: 0, reason: NoStrategy }",
    ];
    assert_eq!(rig.seen, expected, "without checkpoints the last cut is all there is");
    let mut rig = Rig::running(by_hand(), restarts(0));
    rig.end_of_data(1);
    rig.ack(1, 1, A, &[]);
    rig.ack(1, 1, B, &[]);
    rig.last_cut(1, A, &[]);
    rig.last_cut(1, B, &[]);
    rig.stopped(1);
    let latest = rig.driver.coordinator().latest().cloned();
    let rig = rig.restarted(by_hand());
    let end = End::AlreadyFinished { epoch: Epoch(1), latest: latest.map(Box::new) };
    assert_eq!(rig.seen, [format!("done: {end:?}")], "it finishes once");
}

#[test]
fn a_cancelled_job_ends_in_order() {
    check(&[
        (
            "the threads end, then the log hears of it",
            |rig| {
                rig.request();
                rig.cancel();
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.cancel();
                rig.seen.push("-- stopped".to_owned());
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "stop 1",
                "forget it",
                "-- stopped",
                "aborted 1: the job ends",
                "record Canceled",
                "done: Canceled",
            ],
        ),
        (
            "output that is being published is waited for",
            |rig| {
                rig.checkpoint(1, &["x"]);
                rig.cancel();
                rig.stopped(1);
                rig.seen.push("-- published".to_owned());
                rig.committed(1, 1, Ok(()));
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "commit 1: x",
                "stop 1",
                "-- published",
                "record Canceled",
                "done: Canceled",
            ],
        ),
        (
            "a record on its way is waited for; its output is for the next start of the job",
            |rig| {
                rig.held = true;
                rig.checkpoint(1, &["x"]);
                rig.cancel();
                rig.stopped(1);
                rig.seen.push("-- the record".to_owned());
                rig.release();
            },
            &["trigger 1", "stop 1", "-- the record", "completed 1 for [1]", "record Canceled", "done: Canceled"],
        ),
        (
            "between attempts at once",
            |rig| {
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.stopped(1);
                rig.cancel();
                rig.until(5000);
            },
            &["keep it", "stop 1", "restart 1 is scheduled", "record Canceled", "done: Canceled"],
        ),
        (
            "a job that was given up is not cancelled any more",
            |rig| {
                rig.fail(1, FailureClass::NonRecoverable, "boom");
                rig.cancel();
                rig.stopped(1);
            },
            &[
                "keep it",
                "stop 1",
                "record Failed(\"job test failed after 0 restarts: the failure is one that no restart can mend: boom\")",
                "done: GaveUp { restarts: 0, reason: NonRecoverable }",
            ],
        ),
        (
            "requests are refused, and after the end nothing follows",
            |rig| {
                rig.cancel();
                rig.request();
                rig.stopped(1);
                rig.request();
                rig.fail(1, FailureClass::Recoverable, "boom");
                rig.cancel();
                rig.until(5000);
            },
            &["stop 1", "aborted 1: the job ends", "record Canceled", "done: Canceled", "forget it"],
        ),
    ]);
    let mut rig = Rig::new(by_hand(), restarts(1), BTreeMap::new());
    rig.cancel();
    rig.open();
    assert_eq!(rig.seen, ["unrecorded: the job was not open", "done: Canceled"], "before it was open");
}

#[test]
fn who_was_replaced_stops_at_once_without_a_word_to_the_log() {
    let replaced = || {
        let mut rig = Rig::running(by_hand(), restarts(1));
        let mut other = Rig::new(by_hand(), restarts(1), rig.store.clone());
        other.open();
        rig.store = other.store;
        rig
    };
    let mut rig = replaced();
    let slots = rig.store.len();
    rig.checkpoint(1, &["x"]);
    rig.request();
    rig.seen.push("-- stopped".to_owned());
    rig.stopped(1);
    let expected = [
        "trigger 1",
        "aborted 1: another coordinator has taken over: epoch 2",
        "tell that 1 is aborted",
        "stop 1",
        "failed [2]: the job ends",
        "-- stopped",
        "done: Superseded { by: Epoch(2) }",
    ];
    assert_eq!((rig.seen, rig.store.len()), (expected.map(str::to_owned).to_vec(), slots), "while it runs");

    let mut rig = replaced();
    rig.held = true;
    rig.checkpoint(1, &["x"]);
    rig.fail(1, FailureClass::Recoverable, "boom");
    rig.release();
    rig.until(5000);
    rig.stopped(1);
    let end = ["aborted 1: another coordinator has taken over: epoch 2", "done: Superseded { by: Epoch(2) }"];
    assert_eq!(rig.seen[4..], end.map(str::to_owned), "while an attempt ends");

    let mut rig = replaced();
    rig.cancel();
    rig.stopped(1);
    assert_eq!(rig.seen, ["stop 1", "done: Superseded { by: Epoch(2) }"], "while the job ends");
}

#[test]
fn a_log_that_can_not_be_used_ends_the_job_before_it_starts() {
    let mut store = Rig::running(by_hand(), restarts(1)).store;
    for bytes in store.values_mut() {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let mut rig = Rig::new(by_hand(), restarts(1), store);
    rig.open();
    assert!(rig.seen.len() == 1 && rig.seen[0].starts_with("done: Refused(Corrupt"), "{:?}", rig.seen);
}

#[test]
fn the_next_start_publishes_what_the_newest_checkpoint_names() {
    let mut rig = Rig::running(by_hand(), restarts(1));
    rig.checkpoint(1, &["x", "y"]);
    let rig = rig.restarted(by_hand());
    assert_eq!(rig.seen, ["start 1 of epoch 2 from 1, publish x y"]);
    assert_eq!((rig.driver.epoch(), rig.driver.attempt()), (Some(Epoch(2)), Attempt(1)));

    let mut rig = Rig::running(by_hand(), restarts(1));
    rig.request();
    rig.ack(1, 1, A, &["x"]);
    rig.ack_inline(1, 1, B, vec![]);
    let rig = rig.restarted(by_hand());
    let reason = GiveUp::NonRecoverable;
    assert_eq!(rig.seen[0], "unreadable output of 1");
    assert_eq!(rig.seen.last(), Some(&format!("done: {:?}", End::GaveUp { restarts: 0, reason })), "{:?}", rig.seen);
}

#[test]
fn an_end_that_can_not_be_recorded_is_told() {
    let mut rig = Rig::running(by_hand(), restarts(1));
    rig.cancel();
    rig.held = true;
    rig.stopped(1);
    for tries in 1..=5 {
        rig.refusal = Some(CreateOutcome::Failed("full".to_owned()));
        rig.release();
        rig.held = true;
        rig.until(tries * 1000);
    }
    assert_eq!(rig.seen, ["stop 1", "unrecorded: full", "done: Canceled"]);
}
