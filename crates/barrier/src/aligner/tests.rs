use std::time::Duration;

use cutwater_core::{Attempt, Barrier, ChannelId, CheckpointId, Epoch, Moment, SnapshotForm};

use super::Mode::{AtLeastOnce, ExactlyOnce};
use super::{Aligner, MAX_ABORTS, MAX_PENDING, Mode};
use crate::DeclineReason::{InputEndOfStream, OnCancellationBarrier, Subsumed};
use crate::{Action, DeclineReason, Violation};

/// One input; the n-th of a script comes n milliseconds after the clock began.
#[derive(Clone, Copy, Debug)]
enum In {
    Barrier(u32, u64),
    Cancel(u32, u64),
    End(u32),
    Trigger(u64),
    Abort(u64),
}
use In::{Abort, Barrier as Bar, Cancel, End, Trigger};

fn barrier(checkpoint: u64) -> Barrier {
    Barrier {
        epoch: Epoch(1),
        attempt: Attempt(1),
        checkpoint: CheckpointId(checkpoint),
        base: None,
        form: SnapshotForm::Configured,
    }
}

fn feed(aligner: &mut Aligner, millis: u64, input: In) -> Result<(), Violation> {
    let now = Moment::from_millis(millis);
    match input {
        Bar(channel, checkpoint) => aligner.handle_barrier(now, ChannelId(channel), barrier(checkpoint)),
        Cancel(channel, checkpoint) => aligner.handle_cancel(now, ChannelId(channel), CheckpointId(checkpoint)),
        End(channel) => aligner.handle_end(now, ChannelId(channel)),
        Trigger(checkpoint) => {
            aligner.handle_trigger(now, barrier(checkpoint));
            Ok(())
        }
        Abort(checkpoint) => {
            aligner.handle_abort(CheckpointId(checkpoint));
            Ok(())
        }
    }
}

fn drain(aligner: &mut Aligner) -> Vec<Action> {
    std::iter::from_fn(|| aligner.poll_action()).collect()
}

/// The actions of the whole script.
fn run(aligner: &mut Aligner, script: &[In]) -> Vec<Action> {
    let mut actions = Vec::new();
    for (millis, &input) in (1..).zip(script) {
        feed(aligner, millis, input).unwrap();
        actions.extend(drain(aligner));
    }
    actions
}

fn pause(channel: u32) -> Action {
    Action::Pause(ChannelId(channel))
}
fn resume(channel: u32) -> Action {
    Action::Resume(ChannelId(channel))
}
fn cancel(checkpoint: u64) -> Action {
    Action::ForwardCancel(CheckpointId(checkpoint))
}
fn decline(checkpoint: u64, reason: DeclineReason) -> Action {
    Action::Decline { checkpoint: CheckpointId(checkpoint), reason }
}
fn snapshot(checkpoint: u64, millis: u64) -> Action {
    Action::Snapshot { barrier: barrier(checkpoint), aligned_for: Duration::from_millis(millis) }
}

type Case<'a> = (&'a str, u32, Vec<In>, Vec<Action>);

fn check(mode: Mode, checkpoints_after_tasks_finish: bool, cases: Vec<Case<'_>>) {
    for (name, channels, script, expected) in cases {
        let mut aligner = Aligner::new(mode, channels, checkpoints_after_tasks_finish);
        assert_eq!(run(&mut aligner, &script), expected, "{mode:?}: {name}");
    }
}

#[test]
fn exactly_once_barriers() {
    check(
        ExactlyOnce,
        true,
        vec![
            ("the first barrier stops its channel", 2, vec![Bar(1, 1)], vec![pause(1)]),
            (
                "the last barrier brings the snapshot, and the others resume after it",
                3,
                vec![Bar(2, 1), Bar(0, 1), Bar(1, 1)],
                vec![pause(2), pause(0), snapshot(1, 2), resume(0), resume(2)],
            ),
            ("one input never waits", 1, vec![Bar(0, 1), Bar(0, 2)], vec![snapshot(1, 0), snapshot(2, 0)]),
            ("one open input never waits", 2, vec![End(0), Bar(1, 1)], vec![snapshot(1, 0)]),
            (
                "numbers may skip",
                2,
                vec![Bar(0, 3), Bar(1, 3), Bar(1, 9), Bar(0, 9)],
                vec![pause(0), snapshot(3, 1), resume(0), pause(1), snapshot(9, 1), resume(1)],
            ),
            (
                "a newer barrier overtakes: the older is declined and cancelled downstream, its channels resume",
                3,
                vec![Bar(0, 1), Bar(1, 1), Bar(2, 2)],
                vec![pause(0), pause(1), decline(1, Subsumed), cancel(1), resume(0), resume(1), pause(2)],
            ),
            (
                "the newer one is then aligned over all channels",
                2,
                vec![Bar(0, 1), Bar(1, 2), Bar(0, 2)],
                vec![pause(0), decline(1, Subsumed), cancel(1), resume(0), pause(1), snapshot(2, 1), resume(1)],
            ),
            ("a barrier older than the one being aligned is ignored", 3, vec![Bar(0, 2), Bar(1, 1)], vec![pause(0)]),
            (
                "a barrier of a checkpoint already snapshot, or older, is ignored",
                1,
                vec![Bar(0, 2), Bar(0, 2), Bar(0, 1)],
                vec![snapshot(2, 0)],
            ),
        ],
    );
}

#[test]
fn exactly_once_cancel_markers() {
    let why = OnCancellationBarrier;
    check(
        ExactlyOnce,
        true,
        vec![
            (
                "a marker of the one being aligned gives it up, and later barriers of it are ignored",
                3,
                vec![Bar(0, 1), Cancel(1, 1), Bar(2, 1)],
                vec![pause(0), decline(1, why), cancel(1), resume(0)],
            ),
            (
                "a marker ahead of all barriers is passed on, and later barriers and markers are ignored",
                2,
                vec![Cancel(0, 1), Bar(1, 1), Cancel(1, 1)],
                vec![decline(1, why), cancel(1)],
            ),
            ("a marker at a single input", 1, vec![Cancel(0, 1), Bar(0, 1)], vec![decline(1, why), cancel(1)]),
            (
                "a marker of a newer one also gives up the one being aligned",
                2,
                vec![Bar(0, 1), Cancel(1, 2), Bar(0, 2)],
                vec![pause(0), decline(1, Subsumed), cancel(1), resume(0), decline(2, why), cancel(2)],
            ),
            ("a marker older than the one being aligned is ignored", 2, vec![Bar(0, 2), Cancel(1, 1)], vec![pause(0)]),
            (
                "a marker of a checkpoint already snapshot is ignored",
                2,
                vec![Bar(0, 1), Bar(1, 1), Cancel(0, 1)],
                vec![pause(0), snapshot(1, 1), resume(0)],
            ),
            (
                "the next checkpoint is aligned as ever",
                2,
                vec![Bar(0, 1), Cancel(1, 1), Bar(0, 2), Bar(1, 2)],
                vec![pause(0), decline(1, why), cancel(1), resume(0), pause(0), snapshot(2, 1), resume(0)],
            ),
        ],
    );
}

#[test]
fn exactly_once_ends() {
    check(
        ExactlyOnce,
        true,
        vec![
            (
                "an end counts as the barrier",
                3,
                vec![Bar(0, 1), End(1), Bar(2, 1)],
                vec![pause(0), snapshot(1, 2), resume(0)],
            ),
            ("an end can be the last to come", 2, vec![Bar(0, 1), End(1)], vec![pause(0), snapshot(1, 1), resume(0)]),
            (
                "an ended channel is not waited for",
                3,
                vec![End(2), Bar(0, 1), Bar(1, 1)],
                vec![pause(0), snapshot(1, 1), resume(0)],
            ),
            ("ends alone do nothing", 2, vec![End(0), End(1)], vec![]),
        ],
    );
    check(
        ExactlyOnce,
        false,
        vec![
            (
                "feature off: an end gives up what is being aligned, and later barriers of it are ignored",
                3,
                vec![Bar(0, 1), End(1), Bar(2, 1)],
                vec![pause(0), decline(1, InputEndOfStream), cancel(1), resume(0)],
            ),
            (
                "feature off: the next is aligned over the open channels",
                3,
                vec![End(1), Bar(0, 1), Bar(2, 1)],
                vec![pause(0), snapshot(1, 1), resume(0)],
            ),
        ],
    );
}

#[test]
fn exactly_once_aborts() {
    check(
        ExactlyOnce,
        true,
        vec![
            (
                "the one being aligned is given up at once, and later barriers of it are ignored",
                3,
                vec![Bar(0, 1), Bar(2, 1), Abort(1), Bar(1, 1), Bar(1, 2)],
                vec![pause(0), pause(2), cancel(1), resume(0), resume(2), pause(1)],
            ),
            (
                "an abort ahead of the barrier turns it into a cancel marker, once, and nobody waits",
                2,
                vec![Abort(1), Bar(0, 1), Bar(1, 1)],
                vec![cancel(1)],
            ),
            ("an abort ahead of the barrier at a single input", 1, vec![Abort(1), Bar(0, 1)], vec![cancel(1)]),
            (
                "an aborted newer one still overtakes",
                2,
                vec![Bar(0, 1), Abort(2), Bar(1, 2)],
                vec![pause(0), decline(1, Subsumed), cancel(1), resume(0), cancel(2)],
            ),
            (
                "an abort of a later one does not touch the one being aligned",
                2,
                vec![Bar(0, 1), Abort(2), Bar(1, 1)],
                vec![pause(0), snapshot(1, 2), resume(0)],
            ),
            (
                "an abort of one already snapshot changes nothing, now or later",
                1,
                vec![Bar(0, 1), Abort(1), Bar(0, 1), Bar(0, 2)],
                vec![snapshot(1, 0), snapshot(2, 0)],
            ),
            (
                "a cancel marker of one already aborted is passed on, but not declined",
                2,
                vec![Abort(1), Cancel(0, 1), Bar(1, 1)],
                vec![cancel(1)],
            ),
            (
                "aborts of others are remembered beside each other",
                1,
                vec![Abort(3), Abort(1), Bar(0, 1), Bar(0, 2), Bar(0, 3)],
                vec![cancel(1), snapshot(2, 0), cancel(3)],
            ),
        ],
    );
}

#[test]
fn at_least_once_barriers() {
    check(
        AtLeastOnce,
        true,
        vec![
            ("barriers are counted, nobody waits", 3, vec![Bar(0, 1), Bar(1, 1), Bar(2, 1)], vec![snapshot(1, 2)]),
            ("a channel counts once", 2, vec![Bar(0, 1), Bar(0, 1), Bar(1, 1)], vec![snapshot(1, 2)]),
            ("one input", 1, vec![Bar(0, 1), Bar(0, 2), Bar(0, 1)], vec![snapshot(1, 0), snapshot(2, 0)]),
            (
                "two are counted at the same time",
                2,
                vec![Bar(0, 1), Bar(0, 2), Bar(1, 1), Bar(1, 2)],
                vec![snapshot(1, 2), snapshot(2, 2)],
            ),
            (
                "completing the newer drops the older without a word",
                2,
                vec![Bar(0, 1), Bar(0, 2), Bar(1, 2), Bar(1, 1)],
                vec![snapshot(2, 1)],
            ),
            (
                "a first barrier below the newest seen is ignored",
                2,
                vec![Bar(0, 2), Bar(1, 1), Bar(0, 1), Bar(1, 2)],
                vec![snapshot(2, 3)],
            ),
        ],
    );
}

#[test]
fn at_least_once_cancel_markers() {
    let why = OnCancellationBarrier;
    check(
        AtLeastOnce,
        true,
        vec![
            (
                "a marker cancels that one and all older ones",
                2,
                vec![Bar(0, 1), Bar(0, 2), Cancel(1, 2), Bar(1, 1)],
                vec![decline(1, why), cancel(1), decline(2, why), cancel(2)],
            ),
            (
                "a marker leaves newer ones alone",
                2,
                vec![Bar(0, 1), Bar(0, 2), Cancel(1, 1), Bar(1, 2)],
                vec![decline(1, why), cancel(1), snapshot(2, 2)],
            ),
            (
                "a cancelled one stays cancelled until all channels have reported, whatever they report",
                3,
                vec![Bar(0, 1), Cancel(1, 1), Bar(2, 1), Bar(2, 1)],
                vec![decline(1, why), cancel(1)],
            ),
            (
                "a second marker, from another channel, says nothing new",
                2,
                vec![Cancel(0, 1), Cancel(1, 1), Bar(0, 1), Bar(1, 1)],
                vec![decline(1, why), cancel(1)],
            ),
            ("a marker ahead of all barriers", 2, vec![Cancel(0, 1), Bar(1, 1)], vec![decline(1, why), cancel(1)]),
            ("a marker at a single input", 1, vec![Cancel(0, 1), Bar(0, 1)], vec![decline(1, why), cancel(1)]),
            (
                "a marker of an older one, done with, is ignored",
                2,
                vec![Bar(0, 2), Bar(0, 3), Bar(1, 2), Cancel(1, 1), Cancel(1, 2), Bar(1, 3)],
                vec![snapshot(2, 2), snapshot(3, 4)],
            ),
        ],
    );
}

#[test]
fn at_least_once_ends() {
    check(
        AtLeastOnce,
        true,
        vec![
            ("an end counts as the barrier", 3, vec![Bar(0, 1), End(2), Bar(1, 1)], vec![snapshot(1, 2)]),
            (
                "of all that an end satisfies, the newest is snapshot",
                2,
                vec![Bar(0, 1), Bar(0, 2), End(1)],
                vec![snapshot(2, 1)],
            ),
            (
                "what an end does not satisfy is still counted",
                3,
                vec![Bar(0, 1), Bar(1, 1), Bar(0, 2), End(2), Bar(1, 2)],
                vec![snapshot(1, 3), snapshot(2, 2)],
            ),
            ("an ended channel is not waited for", 3, vec![End(2), Bar(0, 1), Bar(1, 1)], vec![snapshot(1, 1)]),
            (
                "a cancelled one does not stand before a good one at the end",
                2,
                vec![Bar(0, 1), Bar(0, 2), Abort(2), End(1)],
                vec![snapshot(1, 3), cancel(2)],
            ),
        ],
    );
    check(
        AtLeastOnce,
        false,
        vec![(
            "feature off: an end gives up all that are counted",
            2,
            vec![Bar(0, 1), Bar(0, 2), End(1), Bar(0, 3)],
            vec![decline(1, InputEndOfStream), cancel(1), decline(2, InputEndOfStream), cancel(2), snapshot(3, 0)],
        )],
    );
}

#[test]
fn at_least_once_aborts() {
    check(
        AtLeastOnce,
        true,
        vec![
            (
                "the cancel marker goes in place of the barrier, so that an older one can still succeed downstream",
                2,
                vec![Bar(0, 1), Bar(0, 2), Abort(2), Bar(1, 1), Bar(1, 2)],
                vec![snapshot(1, 3), cancel(2)],
            ),
            ("a second abort says nothing new", 2, vec![Bar(0, 1), Abort(1), Abort(1), Bar(1, 1)], vec![cancel(1)]),
            ("an abort ahead of the barriers", 2, vec![Abort(1), Bar(0, 1), Bar(1, 1)], vec![cancel(1)]),
            ("an abort ahead of the barrier at a single input", 1, vec![Abort(1), Bar(0, 1)], vec![cancel(1)]),
            (
                "a marker after the abort is passed on, but not declined",
                2,
                vec![Abort(1), Cancel(1, 1)],
                vec![cancel(1)],
            ),
            (
                "a marker for one that is counted and aborted is passed on, but not declined",
                2,
                vec![Bar(0, 1), Abort(1), Cancel(1, 1)],
                vec![cancel(1)],
            ),
            (
                "an abort after the marker says nothing new",
                3,
                vec![Cancel(0, 1), Abort(1), Bar(1, 1), Bar(2, 1)],
                vec![decline(1, OnCancellationBarrier), cancel(1)],
            ),
            (
                "an abort of one already snapshot changes nothing, now or later",
                1,
                vec![Bar(0, 1), Abort(1), Bar(0, 1), Bar(0, 2)],
                vec![snapshot(1, 0), snapshot(2, 0)],
            ),
        ],
    );
}

#[test]
fn triggers_are_the_same_in_both_modes() {
    for mode in [ExactlyOnce, AtLeastOnce] {
        check(
            mode,
            true,
            vec![
                ("a source snapshots at once", 0, vec![Trigger(1), Trigger(2)], vec![snapshot(1, 0), snapshot(2, 0)]),
                (
                    "a source ignores what it has done",
                    0,
                    vec![Trigger(2), Trigger(2), Trigger(1)],
                    vec![snapshot(2, 0)],
                ),
                ("a source answers an aborted one with a marker", 0, vec![Abort(1), Trigger(1)], vec![cancel(1)]),
                ("while a channel is open, a trigger waits", 2, vec![Trigger(1), End(0)], vec![]),
                ("once all have ended, it is answered", 2, vec![End(0), Trigger(1), End(1)], vec![snapshot(1, 1)]),
                ("after all have ended, it is answered at once", 1, vec![End(0), Trigger(1)], vec![snapshot(1, 0)]),
                (
                    "several are answered in order",
                    1,
                    vec![Trigger(2), Trigger(1), Trigger(2), End(0), Trigger(2), Trigger(3)],
                    vec![snapshot(1, 2), snapshot(2, 3), snapshot(3, 0)],
                ),
                (
                    "one that was aborted while it waited is answered with a marker",
                    1,
                    vec![Trigger(1), Trigger(2), Abort(1), End(0)],
                    vec![cancel(1), snapshot(2, 2)],
                ),
                (
                    "one whose barrier came after all is not snapshot twice",
                    1,
                    vec![Trigger(1), Bar(0, 1), End(0)],
                    vec![snapshot(1, 0)],
                ),
                (
                    "one whose barrier came before is done with",
                    1,
                    vec![Bar(0, 1), Trigger(1), End(0)],
                    vec![snapshot(1, 0)],
                ),
                (
                    "one whose cancel marker came is given up",
                    1,
                    vec![Trigger(1), Cancel(0, 1), End(0)],
                    vec![decline(1, OnCancellationBarrier), cancel(1)],
                ),
                (
                    "a newer barrier overtakes it",
                    1,
                    vec![Trigger(1), Bar(0, 2), End(0)],
                    vec![decline(1, Subsumed), snapshot(2, 0)],
                ),
                (
                    "one that was aborted is not declined when overtaken",
                    1,
                    vec![Trigger(1), Abort(1), Bar(0, 2), End(0)],
                    vec![snapshot(2, 0)],
                ),
                (
                    "the one being aligned comes before the trigger",
                    2,
                    vec![End(0), Bar(1, 1), Trigger(2), End(1)],
                    vec![snapshot(1, 0), snapshot(2, 1)],
                ),
            ],
        );
        check(
            mode,
            false,
            vec![
                ("feature off: a source is no subtask whose inputs ended", 0, vec![Trigger(1)], vec![snapshot(1, 0)]),
                (
                    "feature off: an end declines the trigger that waits",
                    2,
                    vec![Trigger(1), End(0), End(1)],
                    vec![decline(1, InputEndOfStream), cancel(1)],
                ),
                (
                    "feature off: after the last end every trigger is declined, once",
                    1,
                    vec![End(0), Trigger(1), Trigger(1)],
                    vec![decline(1, InputEndOfStream), cancel(1)],
                ),
                ("feature off: an aborted one is not declined", 1, vec![Trigger(1), Abort(1), End(0)], vec![cancel(1)]),
            ],
        );
    }
}

#[test]
fn an_end_finishes_the_alignment_before_the_triggers() {
    check(
        ExactlyOnce,
        true,
        vec![(
            "an end finishes the alignment first, then answers the trigger",
            2,
            vec![Bar(0, 1), Trigger(2), End(1), End(0)],
            vec![pause(0), snapshot(1, 2), resume(0), snapshot(2, 2)],
        )],
    );
}

#[test]
fn violations_leave_the_aligner_as_it_was() {
    let a = ChannelId(0);
    let other = Barrier { epoch: Epoch(2), ..barrier(1) };
    let paused = Violation::ReadWhilePaused { channel: a, checkpoint: CheckpointId(1) };
    let repeated = Violation::RepeatedBarrier { channel: a, checkpoint: CheckpointId(1) };
    let unknown = Violation::UnknownChannel { channel: ChannelId(2), channels: 2 };
    let ended = Violation::AfterEnd { channel: a };
    let both = [ExactlyOnce, AtLeastOnce];
    type Broken<'a> = (&'a str, &'a [Mode], Vec<In>, In, Violation);
    let cases: Vec<Broken<'_>> = vec![
        ("a barrier on an unknown channel", &both, vec![], Bar(2, 1), unknown),
        ("a marker on an unknown channel", &both, vec![], Cancel(2, 1), unknown),
        ("an end of an unknown channel", &both, vec![], End(2), unknown),
        ("a barrier after the end", &both, vec![End(0)], Bar(0, 1), ended),
        ("a barrier after the end that another channel delivered", &both, vec![Bar(1, 1), End(0)], Bar(0, 1), ended),
        ("a marker after the end", &both, vec![End(0)], Cancel(0, 1), ended),
        ("a second end", &both, vec![End(0)], End(0), ended),
        ("the barrier a second time", &[ExactlyOnce], vec![Bar(0, 1)], Bar(0, 1), repeated),
        ("a newer barrier from a paused channel", &[ExactlyOnce], vec![Bar(0, 1)], Bar(0, 2), paused),
        ("an older barrier from a paused channel", &[ExactlyOnce], vec![Bar(0, 1)], Bar(0, 0), paused),
        ("a marker from a paused channel", &[ExactlyOnce], vec![Bar(0, 1)], Cancel(0, 1), paused),
        ("the end of a paused channel", &[ExactlyOnce], vec![Bar(0, 1)], End(0), paused),
    ];
    for (name, modes, before, input, expected) in cases {
        for &mode in modes {
            let mut aligner = Aligner::new(mode, 2, true);
            run(&mut aligner, &before);
            let untouched = aligner.clone();
            assert_eq!(feed(&mut aligner, 99, input), Err(expected), "{mode:?}: {name}");
            assert_eq!(aligner, untouched, "{mode:?}: {name}");
        }
    }
    for mode in both {
        let mut aligner = Aligner::new(mode, 2, true);
        run(&mut aligner, &[Bar(1, 1)]);
        let untouched = aligner.clone();
        let expected = Violation::DifferentBarrier { channel: a, expected: barrier(1), found: other };
        assert_eq!(aligner.handle_barrier(Moment::ZERO, a, other), Err(expected));
        assert_eq!(aligner, untouched);
    }
    let mut source = Aligner::new(ExactlyOnce, 0, true);
    assert_eq!(
        source.handle_barrier(Moment::ZERO, a, barrier(1)),
        Err(Violation::UnknownChannel { channel: a, channels: 0 })
    );
}

#[test]
fn messages_carry_ids_and_name_the_thing_to_do() {
    let found = Barrier { base: Some(CheckpointId(6)), ..barrier(7) };
    let channel = ChannelId(3);
    let checkpoint = CheckpointId(7);
    for (violation, message) in [
        (
            Violation::UnknownChannel { channel, channels: 2 },
            "channel 3 is unknown: the subtask has 2 input channels, numbered from 0",
        ),
        (Violation::AfterEnd { channel }, "channel 3 has ended and can't deliver anything more"),
        (
            Violation::ReadWhilePaused { channel, checkpoint },
            "channel 3 is paused for checkpoint 7: read it again only after its resume",
        ),
        (Violation::RepeatedBarrier { channel, checkpoint }, "channel 3 delivered the barrier of checkpoint 7 twice"),
        (
            Violation::DifferentBarrier { channel, expected: barrier(7), found },
            "channel 3 delivered another barrier of checkpoint 7: epoch 1, attempt 1 and base Some(6), not 1, 1 and None",
        ),
    ] {
        assert_eq!(violation.to_string(), message);
    }
    assert_eq!(Subsumed.flink_name(), "CHECKPOINT_DECLINED_SUBSUMED");
    assert_eq!(OnCancellationBarrier.flink_name(), "CHECKPOINT_DECLINED_ON_CANCELLATION_BARRIER");
    assert_eq!(InputEndOfStream.flink_name(), "CHECKPOINT_DECLINED_INPUT_END_OF_STREAM");
    assert_eq!(OnCancellationBarrier.to_string(), "a subtask upstream cancelled it");
}

#[test]
fn at_most_fifty_checkpoints_are_counted_and_the_oldest_goes_silently() {
    assert_eq!(MAX_PENDING, 50);
    let mut aligner = Aligner::new(AtLeastOnce, 2, true);
    let barriers: Vec<In> = (1..=51).map(|id| Bar(0, id)).collect();
    assert_eq!(run(&mut aligner, &barriers), vec![]);
    assert_eq!(aligner.pending.len(), 50);
    assert_eq!(run(&mut aligner, &[Bar(1, 1)]), vec![], "the first is forgotten");
    assert_eq!(run(&mut aligner, &[Bar(1, 2)]).len(), 1, "the second is not");
}

#[test]
fn at_most_fifty_triggers_wait_and_the_oldest_is_declined() {
    let mut aligner = Aligner::new(ExactlyOnce, 1, true);
    let triggers: Vec<In> = (1..=51).map(Trigger).collect();
    assert_eq!(run(&mut aligner, &triggers), vec![decline(1, Subsumed)]);
    assert_eq!(run(&mut aligner, &[End(0)]).len(), 50);
}

#[test]
fn a_bounded_number_of_aborts_is_remembered_and_the_lowest_is_forgotten() {
    let most = u64::try_from(MAX_ABORTS).unwrap();
    let mut aligner = Aligner::new(ExactlyOnce, 1, true);
    let aborts: Vec<In> = (1..=most + 1).map(Abort).collect();
    assert_eq!(run(&mut aligner, &aborts), vec![]);
    assert_eq!(aligner.aborts.len(), MAX_ABORTS);
    assert_eq!(run(&mut aligner, &[Bar(0, 1), Bar(0, 2)]), vec![snapshot(1, 0), cancel(2)]);
    assert_eq!(aligner.aborts.len(), MAX_ABORTS - 1, "what was overtaken is not kept");
}

#[test]
fn the_largest_number_is_a_number_too() {
    for mode in [ExactlyOnce, AtLeastOnce] {
        let mut aligner = Aligner::new(mode, 1, true);
        assert_eq!(run(&mut aligner, &[Trigger(u64::MAX), Bar(0, u64::MAX)]), vec![snapshot(u64::MAX, 0)]);
    }
}

#[test]
fn what_can_be_asked() {
    let mut aligner = Aligner::new(ExactlyOnce, 2, true);
    assert_eq!((aligner.aligning(), aligner.open_channels()), (None, 2));
    run(&mut aligner, &[Bar(1, 1)]);
    assert_eq!(aligner.aligning(), Some(CheckpointId(1)));
    assert!(aligner.is_paused(ChannelId(1)) && !aligner.is_paused(ChannelId(0)));
    run(&mut aligner, &[End(0)]);
    assert_eq!((aligner.aligning(), aligner.open_channels()), (None, 1));
    assert!(!aligner.is_paused(ChannelId(1)));

    let mut aligner = Aligner::new(AtLeastOnce, 2, true);
    run(&mut aligner, &[Bar(0, 1), Bar(0, 2)]);
    assert_eq!(aligner.aligning(), Some(CheckpointId(2)));
    run(&mut aligner, &[Abort(2)]);
    assert_eq!(aligner.aligning(), Some(CheckpointId(1)), "an aborted one can't be snapshot any more");
}
