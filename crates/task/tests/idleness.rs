//! What a subtask makes of inputs that are idle.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cutwater_core::{ChannelId, Moment, TaskId, Timestamp};
use cutwater_dataflow::exec::Element;
use cutwater_dataflow::{Job, JobGraph, ProcessContext, discard, generator};
use cutwater_task::{Action, Progress, TaskCore, TaskSettings, TaskStart};

#[derive(Clone, Copy, Debug)]
enum Give {
    Watermark(u32, i64),
    Idle(u32),
    Active(u32),
    End(u32),
}

/// What comes in, and what then goes out.
type Step<'a> = (Give, &'a [&'a str]);

use Give::{Active, End, Idle, Watermark};

/// Runs until there is nothing to do; what went to the first receiver.
fn run(core: &mut TaskCore) -> Vec<String> {
    let mut sent = Vec::new();
    loop {
        let progress = core.run(Moment::ZERO).unwrap();
        while let Some(action) = core.poll_action() {
            if let Action::Send { output, element } = action
                && output.to == 0
            {
                sent.push(format!("{element:?}"));
            }
        }
        if progress == Progress::Idle {
            return sent;
        }
    }
}

fn give(core: &mut TaskCore, what: Give) {
    let (channel, element) = match what {
        Watermark(channel, time) => (channel, Element::Watermark(Timestamp(time))),
        Idle(channel) => (channel, Element::Idle),
        Active(channel) => (channel, Element::Active),
        End(channel) => (channel, Element::End),
    };
    core.handle_element(Moment::ZERO, ChannelId(channel), element);
}

/// Its second task has three channels.
fn graph() -> JobGraph {
    let job = Job::new("test");
    job.source("in", generator(9, |n| n)).rebalance().map(|n| n).rebalance().sink("out", discard());
    job.build().unwrap()
}

fn settings() -> TaskSettings {
    TaskSettings::default()
}

#[test]
fn idle_channels_hold_no_watermark_back_and_a_subtask_with_no_other_is_idle() {
    let graph = graph();
    let cases: [(&str, &[Step<'_>]); 6] = [
        (
            "one that becomes idle is no longer waited for",
            &[
                (Watermark(0, 20), &[]),
                (Watermark(1, 30), &[]),
                (Watermark(2, 5), &["Watermark(5 ms)"]),
                (Idle(2), &["Watermark(20 ms)"]),
                (Watermark(0, 40), &["Watermark(30 ms)"]),
            ],
        ),
        (
            "one that becomes active holds it back only once it has caught up",
            &[
                (Idle(2), &[]),
                (Watermark(0, 20), &[]),
                (Watermark(1, 20), &["Watermark(20 ms)"]),
                (Active(2), &[]),
                (Watermark(0, 30), &[]),
                (Watermark(1, 30), &["Watermark(30 ms)"]),
                (Watermark(2, 25), &[]),
                (Watermark(2, 30), &[]),
                (Watermark(0, 50), &[]),
                (Watermark(1, 50), &[]),
                (Watermark(2, 40), &["Watermark(40 ms)"]),
            ],
        ),
        (
            "one that has not fallen behind holds it back at once",
            &[
                (Watermark(0, 20), &[]),
                (Watermark(1, 20), &[]),
                (Watermark(2, 20), &["Watermark(20 ms)"]),
                (Idle(2), &[]),
                (Active(2), &[]),
                (Watermark(0, 30), &[]),
                (Watermark(1, 30), &[]),
                (Watermark(2, 25), &["Watermark(25 ms)"]),
            ],
        ),
        (
            "if all are idle the watermark goes to the highest, and the subtask is idle until one is active",
            &[
                (Watermark(0, 10), &[]),
                (Watermark(1, 30), &[]),
                (Watermark(2, 20), &["Watermark(10 ms)"]),
                (Idle(1), &[]),
                (Idle(2), &[]),
                (Idle(0), &["Watermark(30 ms)", "Idle"]),
                (Active(0), &["Active"]),
                (Watermark(0, 25), &[]),
                (Watermark(0, 35), &["Watermark(35 ms)"]),
                (Idle(0), &["Idle"]),
            ],
        ),
        (
            "one that has ended says nothing of those that are idle",
            &[
                (Watermark(0, 10), &[]),
                (Idle(1), &[]),
                (Watermark(2, 20), &["Watermark(10 ms)"]),
                (Watermark(0, i64::MAX), &["Watermark(20 ms)"]),
                (End(0), &[]),
                (Idle(2), &["Idle"]),
                (End(2), &[]),
                (Active(1), &["Active"]),
                (Watermark(1, 50), &["Watermark(50 ms)"]),
                (Idle(1), &["Idle"]),
                (End(1), &["Watermark(after all)", "Active", "End"]),
            ],
        ),
        (
            "if the last one that was not idle ends, the others are idle",
            &[(Idle(0), &[]), (Idle(1), &[]), (Watermark(2, 7), &["Watermark(7 ms)"]), (End(2), &["Idle"])],
        ),
    ];
    for (name, steps) in cases {
        let mut core = TaskCore::new(&graph, &TaskStart::fresh(TaskId(1), 0, 3), settings()).unwrap();
        for (at, (what, expected)) in steps.iter().enumerate() {
            give(&mut core, *what);
            assert_eq!(run(&mut core), *expected, "{name}: step {at}, {what:?}");
        }
    }
}

#[test]
fn a_subtask_is_idle_behind_the_timers_that_its_inputs_made_fire() {
    const KEYS: u64 = 5_000; // more than fire in one quantum
    let job = Job::new("test");
    job.source("in", generator(KEYS, |n| n))
        .key_by(|n| *n)
        .process_with_timers(
            "op",
            |cx: &mut ProcessContext<'_, u64, u64, u64>, _| Ok(cx.register_timer(Timestamp(50))?),
            |cx: &mut ProcessContext<'_, u64, u64, u64>, _| {
                cx.emit(1);
                Ok(())
            },
        )
        .rebalance()
        .sink("out", discard());
    let graph = job.build().unwrap();
    let mut core = TaskCore::new(&graph, &TaskStart::fresh(TaskId(1), 0, 2), settings()).unwrap();
    for index in 0..2 {
        let mut source = TaskCore::new(&graph, &TaskStart::fresh(TaskId(0), index, 2), settings()).unwrap();
        while source.run(Moment::ZERO).unwrap() == Progress::Busy {
            while let Some(action) = source.poll_action() {
                if let Action::Send { output, element: element @ Element::Batch(_) } = action
                    && output.to == 0
                {
                    core.handle_element(Moment::ZERO, ChannelId(index), element);
                }
            }
        }
    }
    give(&mut core, Watermark(0, 100));
    assert!(run(&mut core).is_empty());
    give(&mut core, Idle(0));
    give(&mut core, Idle(1));
    let sent = run(&mut core);
    let (batches, rest) = sent.split_at(sent.len() - 2);
    assert!(batches.len() > 1 && batches.iter().all(|sent| sent.starts_with("Batch")), "{sent:?}");
    assert_eq!(rest, ["Watermark(100 ms)", "Idle"]);
}
