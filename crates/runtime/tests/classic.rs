//! The classic sample of Flink's documents, as code and as `flink-conf.yaml`: both say the same, and each setting acts, on a
//! clock that is only a number.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cutwater_barrier::Mode;
use cutwater_config::{CheckpointingMode, Config, Settings};
use cutwater_coordinator::{
    Action, Coordinator, CreateOutcome, Job, Phases, Plan, Purpose, RestoreFrom, SubtaskSnapshot, TaskPlan,
};
use cutwater_core::{Attempt, CheckpointId, MaxParallelism, Moment, SubtaskId, TaskId};
use cutwater_restart::{Action as Restart, FailureClass, GiveUp, Restarter, Strategy};
use cutwater_runtime::Options;

const SOURCE: SubtaskId = SubtaskId { task: TaskId(0), index: 0 };

fn common() -> Settings {
    Settings::new()
        .enable_checkpointing(Duration::from_millis(1000))
        .checkpointing_mode(CheckpointingMode::ExactlyOnce)
        .min_pause_between_checkpoints(Duration::from_millis(500))
        .checkpoint_timeout(Duration::from_millis(60_000))
        .fail_tasks_on_checkpointing_errors(false)
        .max_concurrent_checkpoints(1)
}

const COMMON: &str = "
execution.checkpointing.interval: 1000 ms
execution.checkpointing.mode: EXACTLY_ONCE
execution.checkpointing.min-pause: 500 ms
execution.checkpointing.timeout: 60000 ms
execution.checkpointing.tolerable-failed-checkpoints: 2147483647
execution.checkpointing.max-concurrent-checkpoints: 1
";

fn of_code(settings: Settings) -> Options {
    Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap()
}

fn of_file(rest: &str) -> Options {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flink-conf.yaml");
    std::fs::write(&path, format!("{COMMON}{rest}")).unwrap();
    Options::from_config(&Config::new().file(&path).unwrap().resolve().unwrap()).unwrap()
}

/// Both ways of saying it.
fn both(settings: Settings, rest: &str) -> Options {
    let (code, file) = (of_code(settings), of_file(rest));
    assert_eq!(code.checkpointing, file.checkpointing);
    assert_eq!((code.task.mode, code.restart.clone()), (file.task.mode, file.restart));
    code
}

/// A coordinator with these options over a store in memory, with one source, and what it says.
struct Rig {
    coordinator: Coordinator,
    store: BTreeMap<String, Vec<u8>>,
    said: VecDeque<(u64, String)>,
    now: u64,
}

impl Rig {
    fn new(options: &Options) -> Self {
        let job = Job { name: "classic".to_owned(), max_parallelism: MaxParallelism::default() };
        let coordinator = Coordinator::new(options.checkpointing.clone(), job, 1);
        let mut rig = Self { coordinator, store: BTreeMap::new(), said: VecDeque::new(), now: 0 };
        rig.coordinator.handle_open(Moment::ZERO, RestoreFrom::Latest);
        rig.drain();
        let (task, name) = (SOURCE.task, "source".to_owned());
        let source = TaskPlan { task, name, operators: vec![], parallelism: 1, inputs: vec![] };
        rig.coordinator.handle_running(Moment::ZERO, Attempt(1), Plan { tasks: vec![source] });
        rig.drain();
        rig.said.clear();
        rig
    }

    fn moment(&self) -> Moment {
        Moment::from_millis(self.now)
    }

    fn drain(&mut self) {
        while let Some(action) = self.coordinator.poll_action() {
            let now = self.moment();
            let said = match action {
                Action::Create { token, name, bytes } => {
                    self.store.insert(name, bytes);
                    self.coordinator.handle_created(now, token, CreateOutcome::Created);
                    continue;
                }
                Action::Read { token, name, .. } => {
                    self.coordinator.handle_read(now, token, Ok(self.store.get(&name).cloned()));
                    continue;
                }
                Action::List { token, .. } => {
                    self.coordinator.handle_listed(now, token, Ok(vec![]));
                    continue;
                }
                Action::Trigger { barrier, .. } => format!("trigger {}", barrier.checkpoint),
                Action::NotifyCompleted { checkpoint, .. } => format!("completed {}", checkpoint.checkpoint),
                Action::NotifyAborted { checkpoint, .. } => format!("aborted {checkpoint}"),
                Action::FailJob(_) => "the job fails".to_owned(),
                Action::Opened { .. } => "opened".to_owned(),
                Action::FellBack { bad } => format!("fell back past {}", bad.checkpoint),
                other @ (Action::Delete { .. }
                | Action::AlreadyFinished { .. }
                | Action::Refused(_)
                | Action::Drain
                | Action::RequestFailed { .. }
                | Action::Restore { .. }
                | Action::AllDone
                | Action::Superseded { .. }
                | Action::Closed { .. }) => panic!("{other:?}"),
            };
            self.said.push_back((self.now, said));
        }
    }

    /// Lets time pass, in milliseconds since the start.
    fn until(&mut self, end: u64) {
        while let Some(deadline) = self.coordinator.next_deadline().filter(|at| *at <= Moment::from_millis(end)) {
            self.now = deadline.0 / 1_000_000;
            self.coordinator.handle_timeout(deadline);
            self.drain();
        }
        self.now = end;
    }

    fn ack(&mut self, checkpoint: u64) {
        let (files, inline, phases) = (vec![], vec![], Phases::default());
        let snapshot = SubtaskSnapshot { subtask: SOURCE, files, inline, phases, state_bytes: 0 };
        self.coordinator.handle_ack(self.moment(), Attempt(1), CheckpointId(checkpoint), snapshot);
        self.drain();
    }

    fn decline(&mut self, checkpoint: u64) {
        let (attempt, checkpoint) = (Attempt(1), CheckpointId(checkpoint));
        self.coordinator.handle_decline(self.moment(), attempt, checkpoint, SOURCE, "no room".to_owned(), true);
        self.drain();
    }

    fn assert_said(&mut self, expected: &[(u64, &str)]) {
        let said: Vec<_> = self.said.drain(..).collect();
        let said: Vec<_> = said.iter().map(|(at, text)| (*at, text.as_str())).collect();
        assert_eq!(said, expected);
    }
}

#[test]
fn interval_pause_timeout_concurrency_and_tolerance_act() {
    let options = both(common(), "");
    assert_eq!(options.task.mode, Mode::ExactlyOnce);

    // Interval: 1000 ms. One that is done at once is followed by the next an interval later.
    let mut rig = Rig::new(&options);
    rig.until(1000);
    rig.ack(1);
    rig.until(2000);
    rig.assert_said(&[(1000, "trigger 1"), (1000, "completed 1"), (2000, "trigger 2")]);

    // Pause: one that is done at 2900 is followed at 3400, not at 3000.
    rig.until(2900);
    rig.ack(2);
    rig.until(3400);
    rig.assert_said(&[(2900, "completed 2"), (3400, "trigger 3")]);

    // Concurrency: while it lasts no other begins, not even by hand; the timeout ends it after 60,000 ms.
    rig.coordinator.handle_request(rig.moment(), Purpose::Checkpoint);
    rig.drain();
    rig.until(63_399);
    rig.assert_said(&[]);
    rig.until(63_400);
    rig.assert_said(&[(63_400, "aborted 3"), (63_400, "trigger 4")]);

    // Tolerance: however many fail in a row, the job does not.
    for checkpoint in 4..104 {
        rig.decline(checkpoint);
        rig.until(rig.now + 1000);
    }
    assert!(rig.said.iter().all(|(_, said)| said != "the job fails"));
    rig.ack(104);
    assert_eq!(rig.said.back().unwrap().1, "completed 104");

    // And by default, or told so, the first failure is one too many.
    for settings in [
        Settings::new().enable_checkpointing(Duration::from_millis(1000)),
        common().fail_tasks_on_checkpointing_errors(true),
    ] {
        let mut rig = Rig::new(&of_code(settings));
        rig.until(1000);
        rig.decline(1);
        assert_eq!(rig.said.back().unwrap().1, "the job fails");
    }
}

/// Fails at these moments, in seconds, whenever it runs; says when it restarts, in seconds, and why it gives up.
fn failures(strategy: Strategy, at: &[u64]) -> (Vec<u64>, Option<GiveUp>) {
    let mut restarter = Restarter::new(strategy, 1).unwrap();
    let mut restarts = Vec::new();
    let mut gave_up = None;
    let mut hear = |restarter: &mut Restarter| {
        while let Some(action) = restarter.poll_action() {
            match action {
                Restart::Restart { at, .. } => restarts.push(at.0 / 1_000_000_000),
                Restart::GiveUp { reason } => gave_up = Some(reason),
                Restart::Start { .. } | Restart::Merged { .. } => {}
            }
        }
    };
    for &second in at {
        let now = Moment::from_millis(second * 1000);
        if let Some(deadline) = restarter.next_deadline().filter(|deadline| *deadline <= now) {
            restarter.handle_timeout(deadline);
            hear(&mut restarter);
            restarter.handle_restarted(deadline);
        }
        restarter.handle_failure(now, FailureClass::Recoverable);
        hear(&mut restarter);
    }
    (restarts, gave_up)
}

#[test]
fn fixed_delay_of_three_times_ten_seconds_acts() {
    let file = "restart-strategy: fixed-delay
restart-strategy.fixed-delay.attempts: 3
restart-strategy.fixed-delay.delay: 10 s
";
    let options = both(common().fixed_delay_restart(3, Duration::from_secs(10)), file);
    let (restarts, gave_up) = failures(options.restart.unwrap(), &[100, 200, 300, 400]);
    assert_eq!(restarts, [110, 210, 310]);
    assert_eq!(gave_up, Some(GiveUp::AttemptsExhausted { attempts: 3 }));
}

#[test]
fn a_failure_rate_of_three_in_five_minutes_acts() {
    let file = "restart-strategy.type: failure-rate
restart-strategy.failure-rate.max-failures-per-interval: 3
restart-strategy.failure-rate.failure-rate-interval: 5 min
restart-strategy.failure-rate.delay: 10 s
";
    let settings = common().failure_rate_restart(3, Duration::from_secs(300), Duration::from_secs(10));
    let strategy = both(settings, file).restart.unwrap();
    // Three in five minutes are borne, and a fourth when the first is older than that.
    assert_eq!(failures(strategy.clone(), &[100, 200, 300, 401]), (vec![110, 210, 310, 411], None));
    let (restarts, gave_up) = failures(strategy, &[100, 200, 300, 399]);
    assert_eq!(restarts, [110, 210, 310]);
    assert_eq!(gave_up, Some(GiveUp::RateExceeded { max_failures: 3, interval: Duration::from_secs(300) }));
}

#[test]
fn a_job_that_says_none_is_not_restarted_whatever_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flink-conf.yaml");
    std::fs::write(&path, "restart-strategy: fixed-delay\nrestart-strategy.fixed-delay.attempts: 3\n").unwrap();
    let config = Config::new().file(&path).unwrap().code(common().no_restart());
    let options = Options::from_config(&config.resolve().unwrap()).unwrap();
    assert_eq!(failures(options.restart.unwrap(), &[1]), (vec![], Some(GiveUp::NoStrategy)));
}
