//! Timers of processing time, driven by moments and a wall clock given by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cutwater_core::{
    Attempt, Barrier, ChannelId, CheckpointId, EdgeId, Epoch, MaxParallelism, Moment, SnapshotForm, TaskId, Timestamp,
};
use cutwater_dataflow::exec::{Element, OutputChannel};
use cutwater_dataflow::{Collect, Job, JobGraph, KeyedProcess, ProcessContext, UserError, discard, from_iter};
use cutwater_state::{Block, StateHeader};
use cutwater_task::{Action, Progress, TaskCore, TaskSettings, TaskStart};

/// A record is how many milliseconds later its key rings.
#[derive(Clone)]
struct Alarm;

type Cx<'a> = ProcessContext<'a, u64, (), (u64, i64, i64)>;

impl KeyedProcess<u64, u64> for Alarm {
    type State = ();
    type Out = (u64, i64, i64);

    fn initial(&self) {}

    fn process(&mut self, cx: &mut Cx<'_>, delay: u64) -> Result<(), UserError> {
        let at = Timestamp(cx.processing_time().0 + delay as i64);
        cx.register_processing_timer(at)?;
        cx.register_processing_timer(at)?;
        Ok(())
    }

    fn on_processing_timer(&mut self, cx: &mut Cx<'_>, time: Timestamp) -> Result<(), UserError> {
        assert_eq!(cx.timestamp(), None);
        let rung = (*cx.key(), time.0, cx.processing_time().0);
        cx.emit(rung);
        Ok(())
    }
}

/// The alarms of task 1 reach task 2 by way of `key_by`, so that they can be seen as batches.
fn alarms(delays: Vec<u64>) -> JobGraph {
    let job = Job::new("alarms");
    job.source("delays", from_iter(delays))
        .key_by(|n| *n)
        .process_with("alarm", Alarm)
        .key_by(|rung| rung.0)
        .process("after", |cx: &mut ProcessContext<'_, u64, u64, u64>, _| {
            cx.emit(1);
            Ok(())
        })
        .sink("out", discard());
    job.build().unwrap()
}

fn drain(core: &mut TaskCore) -> Vec<Action> {
    std::iter::from_fn(|| core.poll_action()).collect()
}

fn run(core: &mut TaskCore, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    loop {
        let progress = core.run(now).unwrap();
        actions.extend(drain(core));
        if progress == Progress::Idle {
            return actions;
        }
    }
}

fn records(actions: &[Action]) -> usize {
    let batch = |action: &Action| {
        if let Action::Send { element: Element::Batch(batch), .. } = action { batch.len() } else { 0 }
    };
    actions.iter().map(batch).sum()
}

/// The core of task 1 with the records of the source in its stash, those behind them left out.
fn given(delays: Vec<u64>, settings: &TaskSettings) -> TaskCore {
    let graph = alarms(delays);
    let mut source = TaskCore::new(&graph, &TaskStart::fresh(TaskId(0), 0, 1), TaskSettings::default()).unwrap();
    let mut core = TaskCore::new(&graph, &TaskStart::fresh(TaskId(1), 0, 1), settings.clone()).unwrap();
    for action in run(&mut source, Moment::ZERO) {
        if let Action::Send { element: element @ Element::Batch(_), .. } = action {
            core.handle_element(Moment::ZERO, ChannelId(0), element);
        }
    }
    core
}

const WALL: u64 = 1_700_000_000_000;

#[test]
fn the_first_timer_is_a_deadline_and_fires_at_it() {
    let mut core = given(vec![50, 20, 20, 90], &TaskSettings { window_bytes: 1 << 20, ..TaskSettings::default() });
    core.set_wall_clock(Moment::from_millis(1_000), WALL);
    let mut now = Moment::from_millis(1_000);
    assert_eq!(records(&run(&mut core, now)), 0);
    let mut rung = Vec::new();
    while let Some(deadline) = core.next_deadline() {
        assert!(deadline > now, "an idle core does not ask to be run at once");
        now = deadline;
        let fired = records(&run(&mut core, now));
        if fired > 0 {
            rung.push((now.since(Moment::ZERO).as_millis(), fired));
        }
    }
    // They leave with the flush, a millisecond after they fired.
    assert_eq!(rung, [(1_021, 1), (1_051, 1), (1_091, 1)], "a key and time ring once");
}

#[test]
fn a_wall_clock_that_is_set_moves_the_deadline_and_never_goes_back() {
    let mut core = given(vec![50], &TaskSettings::default());
    let at = Moment::from_millis;
    core.set_wall_clock(at(0), WALL);
    run(&mut core, at(0));
    run(&mut core, at(1)); // past the flush
    assert_eq!(core.next_deadline(), Some(at(50)));
    core.set_wall_clock(at(10), WALL + 30);
    run(&mut core, at(10));
    assert_eq!(core.next_deadline(), Some(at(30)), "20 ms ahead");
    core.set_wall_clock(at(11), WALL - 1_000);
    run(&mut core, at(11));
    assert_eq!(core.next_deadline(), Some(at(11 + 1_050)), "far behind: it waits");
    assert_eq!(records(&run(&mut core, at(1_060))), 0);
    let fired = run(&mut core, at(1_061));
    assert_eq!(records(&fired) + records(&run(&mut core, at(1_063))), 1);
}

#[test]
fn timers_wait_for_credit_and_do_not_spin_meanwhile() {
    let delays: Vec<u64> = (1..=5_000).collect();
    let mut core = given(delays, &TaskSettings { window_bytes: 1_000, ..TaskSettings::default() });
    run(&mut core, Moment::ZERO);
    let mut now = Moment::from_millis(10_000);
    let first = records(&run(&mut core, now));
    assert!(first < 5_000, "{first} fired without credit");
    let mut fired = first;
    for _ in 0..10_000 {
        assert!(core.next_deadline().is_none_or(|deadline| deadline > now || fired == 5_000), "it would spin");
        now = now + std::time::Duration::from_millis(5);
        core.handle_credit(OutputChannel { edge: EdgeId(1), to: 0 }, 1_000);
        fired += records(&run(&mut core, now));
    }
    assert_eq!(fired, 5_000);
}

#[test]
fn timers_that_came_due_while_the_job_was_down_fire_at_once() {
    let mut core = given(vec![50, 60, 100_000], &TaskSettings::default());
    core.set_wall_clock(Moment::ZERO, WALL);
    run(&mut core, Moment::ZERO);
    let (epoch, attempt) = (Epoch(1), Attempt(1));
    core.handle_trigger(
        Moment::ZERO,
        Barrier { epoch, attempt, checkpoint: CheckpointId(1), base: None, form: SnapshotForm::Configured },
    );
    core.handle_element(
        Moment::ZERO,
        ChannelId(0),
        Element::Barrier(Barrier {
            epoch,
            attempt,
            checkpoint: CheckpointId(1),
            base: None,
            form: SnapshotForm::Configured,
        }),
    );
    let (mut headers, mut blocks): (Vec<StateHeader>, Vec<Block>) = (Vec::new(), Vec::new());
    for action in run(&mut core, Moment::ZERO) {
        if let Action::SnapshotBegun { states, .. } = action {
            headers = states;
        } else if let Action::Block { block, .. } = action {
            blocks.push(block);
        }
    }
    for (parallelism, expected) in [(1, 2), (3, 2)] {
        let graph = alarms(vec![]);
        let mut fired = 0;
        for subtask in 0..parallelism {
            let start = TaskStart::fresh(TaskId(1), subtask, parallelism);
            let mut restored = TaskCore::new(&graph, &start, TaskSettings::default()).unwrap();
            for block in &blocks {
                let header = &headers[usize::from(block.state)];
                let mut states = restored.states();
                let state = states.iter_mut().find(|state| state.header().name == header.name).unwrap();
                state.restore(block, MaxParallelism::default().all()).unwrap();
            }
            restored.set_wall_clock(Moment::ZERO, WALL + 70);
            fired += records(&run(&mut restored, Moment::ZERO));
            fired += records(&run(&mut restored, Moment::from_millis(2)));
        }
        assert_eq!(fired, expected, "at parallelism {parallelism}");
    }
}

#[test]
fn at_the_end_of_the_input_timers_that_are_not_due_do_not_fire() {
    let job = Job::new("alarms");
    let out = Collect::default();
    job.source("delays", from_iter(vec![0_u64, 10])).key_by(|n| *n).process_with("alarm", Alarm).sink("out", out);
    let graph = job.build().unwrap();
    let settings = TaskSettings::default();
    let mut source = TaskCore::new(&graph, &TaskStart::fresh(TaskId(0), 0, 1), settings.clone()).unwrap();
    let mut core = TaskCore::new(&graph, &TaskStart::fresh(TaskId(1), 0, 1), settings).unwrap();
    for action in run(&mut source, Moment::ZERO) {
        if let Action::Send { element, .. } = action {
            core.handle_element(Moment::ZERO, ChannelId(0), element);
        }
    }
    let ended = run(&mut core, Moment::ZERO).iter().any(|action| matches!(action, Action::EndOfData));
    assert!(ended);
    assert_eq!(core.next_deadline(), None);
    run(&mut core, Moment::from_millis(100));
    let left: u64 = core.states().iter().filter(|it| it.header().name == "processing-timers").map(|it| it.len()).sum();
    assert!(left >= 1, "that of 10 ms is left");
}
