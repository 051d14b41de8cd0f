//! What one subtask does with what it is given, input by input.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use cutwater_barrier::Mode;
use cutwater_core::{
    Attempt, Barrier, ChannelId, CheckpointId, EdgeId, Epoch, Moment, SnapshotForm, TaskId, Timestamp,
};
use cutwater_dataflow::exec::{Element, OutputChannel, SnapshotKind};
use cutwater_dataflow::{Collect, Job, JobGraph, discard, generator};
use cutwater_task::{Action, Progress, SnapshotError, TaskCore, TaskSettings, TaskSnapshot, TaskStart};

fn counts(records: u64) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(records, |n| n))
        .key_by(|n| *n)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", discard());
    job.build().unwrap()
}

fn core(graph: &JobGraph, task: u32, index: u32, parallelism: u32, settings: &TaskSettings) -> TaskCore {
    TaskCore::new(graph, &TaskStart::fresh(TaskId(task), index, parallelism), settings.clone()).unwrap()
}

fn barrier(checkpoint: u64) -> Barrier {
    Barrier {
        epoch: Epoch(1),
        attempt: Attempt(1),
        checkpoint: CheckpointId(checkpoint),
        base: None,
        form: SnapshotForm::Configured,
    }
}

fn drain(core: &mut TaskCore) -> Vec<Action> {
    std::iter::from_fn(|| core.poll_action()).collect()
}

/// Runs until idle, past the flush.
fn pump(core: &mut TaskCore, now: &mut Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    for _ in 0..1000 {
        let progress = core.run(*now).unwrap();
        actions.extend(drain(core));
        if progress == Progress::Idle {
            match core.next_deadline() {
                Some(at) => *now = at.max(*now),
                None => return actions,
            }
        }
    }
    panic!("it is never idle");
}

/// What goes to receiver `to`.
fn sent(actions: Vec<Action>, to: u32) -> Vec<Element> {
    let mut elements = Vec::new();
    for action in actions {
        if let Action::Send { output, element } = action
            && output.to == to
        {
            elements.push(element);
        }
    }
    elements
}

fn kinds(actions: &[Action]) -> Vec<String> {
    let kind = |action: &Action| match action {
        Action::Send { element, .. } => format!("send {element:?}"),
        Action::Credit { .. } => "credit".to_owned(),
        Action::SnapshotBegun { barrier, .. } => format!("begun {}", barrier.checkpoint),
        Action::Block { checkpoint, .. } => format!("block {checkpoint}"),
        Action::SnapshotComplete { checkpoint, .. } => format!("complete {checkpoint}"),
        Action::SnapshotDropped { checkpoint } => format!("dropped {checkpoint}"),
        Action::Decline { checkpoint, counted, .. } => format!("decline {checkpoint}, counted {counted}"),
        Action::EndOfData => "end".to_owned(),
        Action::LastCut { handles, .. } => format!("last cut of {}", handles.len()),
    };
    actions.iter().map(kind).collect()
}

/// Task 1 of a job, filled with so many keys, and idle.
fn filled(keys: u64, settings: &TaskSettings) -> (TaskCore, Moment) {
    let graph = counts(keys);
    let mut now = Moment::ZERO;
    let wide = TaskSettings { window_bytes: u64::MAX / 4, ..TaskSettings::default() };
    let elements = sent(pump(&mut core(&graph, 0, 0, 1, &wide), &mut now), 0);
    let mut counts = core(&graph, 1, 0, 1, settings);
    for element in elements {
        if !matches!(element, Element::End | Element::Watermark(_)) {
            counts.handle_element(now, ChannelId(0), element);
        }
    }
    pump(&mut counts, &mut now);
    assert_eq!(counts.records(), keys);
    (counts, now)
}

#[test]
fn a_channel_waits_behind_its_barrier_in_exactly_once_mode_only() {
    for (mode, records_before) in [(Mode::ExactlyOnce, false), (Mode::AtLeastOnce, true)] {
        let settings = TaskSettings { mode, ..TaskSettings::default() };
        let graph = counts(200);
        let mut now = Moment::ZERO;
        let mut elements = sent(pump(&mut core(&graph, 0, 0, 2, &settings), &mut now), 0);
        elements.truncate(1); // the batch
        let mut receiver = core(&graph, 1, 0, 2, &settings);
        receiver.handle_element(now, ChannelId(0), Element::Barrier(barrier(1)));
        receiver.handle_element(now, ChannelId(0), elements.remove(0));
        assert!(!kinds(&pump(&mut receiver, &mut now)).contains(&"begun 1".to_owned()), "{mode:?}");
        assert_eq!(receiver.records() > 0, records_before, "{mode:?}");
        receiver.handle_element(now, ChannelId(1), Element::Barrier(barrier(1)));
        let actions = kinds(&pump(&mut receiver, &mut now));
        assert!(actions.contains(&"complete 1".to_owned()), "{mode:?}: {actions:?}");
        assert!(receiver.records() > 0, "{mode:?}: the channel goes on");
    }
}

#[test]
fn a_receiver_that_gives_no_credit_stops_the_source() {
    let settings = TaskSettings { window_bytes: 1000, ..TaskSettings::default() };
    let graph = counts(100_000);
    let mut now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, 1, &settings);
    let output = OutputChannel { edge: EdgeId(0), to: 0 };
    let mut all = 0;
    for round in 0..200 {
        let actions = pump(&mut source, &mut now);
        let ended = actions.iter().any(|action| matches!(action, Action::EndOfData));
        let batches: Vec<_> = sent(actions, 0)
            .into_iter()
            .filter_map(
                |element| if let Element::Batch(batch) = element { Some((batch.len(), batch.bytes())) } else { None },
            )
            .collect();
        assert!(batches.len() <= 1, "round {round}: a batch is more than the window, so no second one leaves");
        all += batches.iter().map(|(records, _)| records).sum::<usize>();
        assert!(source.records() as usize <= all + 2 * 1024, "round {round}: it read on");
        if ended && batches.is_empty() {
            break;
        }
        source.handle_credit(output, batches.iter().map(|(_, bytes)| bytes).sum());
    }
    assert_eq!(all, 100_000);
}

#[test]
fn the_channels_of_a_subtask_share_its_window() {
    let of = |window_bytes, subtask_window_bytes| TaskSettings {
        window_bytes,
        subtask_window_bytes,
        ..TaskSettings::default()
    };
    let cases = [
        ("one channel has no more than a channel may have", TaskSettings::default(), 1, 512 << 10),
        ("few have it too", TaskSettings::default(), 4, 512 << 10),
        ("many have a part each", TaskSettings::default(), 64, 32 << 10),
        ("but at least 4 KiB", TaskSettings::default(), 10_000, 4 << 10),
        ("unless a channel may have less", of(1_000, 2 << 20), 10_000, 1_000),
        ("none: a subtask that reads a source", of(1_000, 2 << 20), 0, 1_000),
        ("one channel has what a channel may have", of(8 << 20, 2 << 20), 1, 8 << 20),
        ("two share that if it is more", of(8 << 20, 2 << 20), 2, 4 << 20),
    ];
    for (name, settings, channels, expected) in cases {
        assert_eq!(settings.channel_window(channels), expected, "{name}");
    }
}

/// What is under way to each of 64 receivers is a 64th of its window: that on all 4,096 channels would else be 2 GiB.
#[test]
fn a_source_before_many_subtasks_sends_each_its_part_of_the_window() {
    const SUBTASKS: u32 = 64;
    let settings = TaskSettings::default();
    let graph = counts(64_000_000);
    let mut now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, SUBTASKS, &settings);
    let window = settings.channel_window(SUBTASKS as usize);
    let mut under_way = vec![0; SUBTASKS as usize];
    let send = |actions: Vec<Action>, under_way: &mut Vec<u64>| {
        for action in actions {
            if let Action::Send { output, element: Element::Batch(batch) } = action {
                let channel = &mut under_way[output.to as usize];
                assert!(*channel < window, "a batch left although the window of {output:?} was used up");
                *channel += batch.bytes();
            }
        }
    };
    send(pump(&mut source, &mut now), &mut under_way);
    assert!(source.is_backpressured(), "it has read {} records", source.records());
    let full = under_way.iter().filter(|bytes| **bytes >= window).count();
    assert!(full >= 1, "{under_way:?}");
    // Credit lets it go on: at first what waited leaves, then it reads again.
    let before = source.records();
    for _ in 0..4 {
        for (to, bytes) in (0..).zip(&mut under_way) {
            source.handle_credit(OutputChannel { edge: EdgeId(0), to }, std::mem::take(bytes));
        }
        send(pump(&mut source, &mut now), &mut under_way);
        assert!(source.is_backpressured(), "it has read {} records", source.records());
    }
    assert!(source.records() > before, "it has read {before} records");
}

#[test]
fn a_snapshot_waits_for_its_blocks_to_be_written_and_records_do_not() {
    let settings =
        TaskSettings { sweep_step_bytes: 1 << 20, unwritten_limit_bytes: 1 << 20, ..TaskSettings::default() };
    let (mut counts, mut now) = filled(200_000, &settings);
    counts.handle_element(now, ChannelId(0), Element::Barrier(barrier(1)));
    let mut unwritten = 0;
    let mut complete = false;
    for round in 0..100 {
        let actions = pump(&mut counts, &mut now);
        complete = actions.iter().any(|action| matches!(action, Action::SnapshotComplete { .. }));
        for action in actions {
            if let Action::Block { block, .. } = action {
                unwritten += block.payload.len() as u64;
            }
        }
        if complete {
            assert!(round > 2, "it waited for nothing");
            break;
        }
        assert!(unwritten < 3 << 20, "{unwritten} bytes wait to be written");
        // It is idle, and processes what comes.
        let before = counts.records();
        for element in sent(pump(&mut core(&self::counts(10), 0, 0, 1, &settings), &mut now), 0) {
            if matches!(element, Element::Batch(_)) {
                counts.handle_element(now, ChannelId(0), element);
            }
        }
        pump(&mut counts, &mut now);
        assert_eq!(counts.records(), before + 10);
        counts.handle_written(CheckpointId(1), std::mem::take(&mut unwritten));
    }
    assert!(complete);
}

/// A sweep that has begun and waits, since nothing was written.
fn half_swept(undo_limit_bytes: u64) -> (TaskCore, Moment) {
    let settings =
        TaskSettings { sweep_step_bytes: 1, unwritten_limit_bytes: 1, undo_limit_bytes, ..TaskSettings::default() };
    let (mut counts, mut now) = filled(200_000, &settings);
    counts.handle_element(now, ChannelId(0), Element::Barrier(barrier(1)));
    // One byte a quantum: long before the first block is full.
    counts.run(now).unwrap();
    assert_eq!(kinds(&drain(&mut counts)), ["begun 1"]);
    now = now + Duration::from_millis(1);
    (counts, now)
}

#[test]
fn an_abort_ends_the_sweep() {
    let (mut counts, mut now) = half_swept(u64::MAX);
    counts.handle_abort(CheckpointId(1));
    assert_eq!(kinds(&drain(&mut counts)), ["dropped 1"]);
    assert_eq!(kinds(&pump(&mut counts, &mut now)), [""; 0], "nothing more of it");
    counts.handle_abort(CheckpointId(1));
    assert_eq!(kinds(&drain(&mut counts)), [""; 0], "a second time changes nothing");
    counts.handle_element(now, ChannelId(0), Element::Barrier(barrier(2)));
    counts.run(now).unwrap();
    assert_eq!(kinds(&drain(&mut counts)), ["begun 2"]);
}

#[test]
fn a_newer_checkpoint_ends_the_sweep_of_the_older() {
    let (mut counts, now) = half_swept(u64::MAX);
    counts.handle_element(now, ChannelId(0), Element::Barrier(barrier(2)));
    counts.run(now).unwrap();
    assert_eq!(kinds(&drain(&mut counts)), ["dropped 1", "begun 2"]);
    counts.handle_abort(CheckpointId(1));
    assert_eq!(kinds(&drain(&mut counts)), [""; 0], "it is not the one being swept");
}

#[test]
fn too_many_old_values_decline_the_snapshot() {
    for (name, limit, declined) in [("a small limit", 1000, true), ("a large one", 1 << 30, false)] {
        let (mut counts, mut now) = half_swept(limit);
        for element in sent(pump(&mut core(&self::counts(1000), 0, 0, 1, &TaskSettings::default()), &mut now), 0) {
            if matches!(element, Element::Batch(_)) {
                counts.handle_element(now, ChannelId(0), element);
            }
        }
        let mut actions = Vec::new();
        for _ in 0..10 {
            counts.run(now).unwrap();
            actions.extend(drain(&mut counts));
        }
        let found = kinds(&actions);
        assert_eq!(found.contains(&"decline 1, counted true".to_owned()), declined, "{name}: {found:?}");
        assert_eq!(found.contains(&"dropped 1".to_owned()), declined, "{name}: {found:?}");
        assert_eq!(counts.records(), 201_000, "{name}: records are processed meanwhile");
    }
}

#[test]
fn a_subtask_at_its_end_is_snapshot_by_trigger_alone() {
    let graph = counts(10);
    let mut now = Moment::ZERO;
    let settings = TaskSettings::default();
    let mut source = core(&graph, 0, 0, 1, &settings);
    let actions = pump(&mut source, &mut now);
    assert_eq!(kinds(&actions), ["send Batch(10 records)", "send Watermark(after all)", "send End", "end"],);
    source.handle_trigger(now, barrier(1));
    assert_eq!(kinds(&pump(&mut source, &mut now)), ["begun 1", "complete 1"], "no barrier behind the end");

    let mut counts = core(&graph, 1, 0, 1, &settings);
    counts.handle_trigger(now, barrier(1));
    assert_eq!(kinds(&pump(&mut counts, &mut now)), [""; 0], "what is under way belongs to the checkpoint");
    for element in sent(actions, 0) {
        counts.handle_element(now, ChannelId(0), element);
    }
    let found = kinds(&pump(&mut counts, &mut now));
    let rest: Vec<_> = found.iter().filter(|kind| !kind.starts_with("block") && *kind != "credit").collect();
    assert_eq!(rest, ["begun 1", "end", "complete 1"]);
    counts.handle_trigger(now, barrier(2));
    assert!(kinds(&pump(&mut counts, &mut now)).contains(&"complete 2".to_owned()), "again, as often as asked");
}

/// A source that has read some of its records, and is asked for checkpoint 1 to stop behind it.
fn asked_to_stop() -> (TaskCore, Moment) {
    let graph = counts(5_000);
    let now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, 1, &TaskSettings::default());
    source.run(now).unwrap();
    assert_eq!(source.records(), 1_024);
    drain(&mut source);
    source.handle_hold(CheckpointId(1));
    source.handle_trigger(now, barrier(1));
    (source, now)
}

#[test]
fn a_source_reads_nothing_behind_the_barrier_it_is_to_stop_at() {
    let (mut source, mut now) = asked_to_stop();
    let sent = format!("send {:?}", Element::Barrier(barrier(1)));
    assert_eq!(kinds(&pump(&mut source, &mut now)), [sent.as_str(), "begun 1", "complete 1"]);
    assert_eq!((source.records(), source.next_deadline()), (1_024, None), "nothing to wait for");
    source.handle_abort(CheckpointId(2));
    pump(&mut source, &mut now);
    assert_eq!(source.records(), 1_024, "another checkpoint was given up");
    source.handle_abort(CheckpointId(1));
    pump(&mut source, &mut now);
    assert_eq!(source.records(), 5_000, "the job goes on");
}

#[test]
fn a_newer_checkpoint_says_that_the_stop_was_given_up() {
    let (mut source, mut now) = asked_to_stop();
    pump(&mut source, &mut now);
    source.handle_trigger(now, barrier(2));
    source.handle_hold(CheckpointId(1));
    source.handle_trigger(now, barrier(1));
    pump(&mut source, &mut now);
    assert_eq!(source.records(), 5_000, "neither was the word lost that it was, nor does an old one hold again");
}

#[test]
fn a_stop_that_is_given_up_before_the_barrier_holds_nothing() {
    let (mut source, mut now) = asked_to_stop();
    source.handle_abort(CheckpointId(1));
    pump(&mut source, &mut now);
    assert_eq!(source.records(), 5_000);
}

#[test]
fn a_drained_source_ends_where_it_stands() {
    let graph = counts(5_000);
    let mut now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, 1, &TaskSettings::default());
    source.run(now).unwrap();
    drain(&mut source);
    source.handle_drain();
    assert_eq!(kinds(&pump(&mut source, &mut now)), ["send Watermark(after all)", "send End", "end"]);
    assert_eq!(source.records(), 1_024);
    source.handle_drain();
    source.handle_trigger(now, barrier(1));
    assert_eq!(kinds(&pump(&mut source, &mut now)), ["begun 1", "complete 1"], "it ends once");

    // One that is held for a stop which the drain has overtaken, and has not heard that it was given up.
    let mut source = core(&graph, 0, 0, 1, &TaskSettings::default());
    source.handle_hold(CheckpointId(1));
    source.handle_trigger(now, barrier(1));
    pump(&mut source, &mut now);
    source.handle_drain();
    assert!(kinds(&pump(&mut source, &mut now)).contains(&"end".to_owned()));

    // What has no source takes no notice.
    let mut counts = core(&graph, 1, 0, 1, &TaskSettings::default());
    counts.handle_drain();
    counts.handle_hold(CheckpointId(1));
    assert_eq!(kinds(&pump(&mut counts, &mut now)), [""; 0]);
}

#[test]
fn without_checkpoints_after_the_end_a_subtask_declines() {
    let settings = TaskSettings { checkpoints_after_tasks_finish: false, ..TaskSettings::default() };
    let graph = counts(10);
    let mut now = Moment::ZERO;
    let mut counts = core(&graph, 1, 0, 1, &settings);
    counts.handle_element(now, ChannelId(0), Element::End);
    pump(&mut counts, &mut now);
    counts.handle_trigger(now, barrier(1));
    assert_eq!(kinds(&pump(&mut counts, &mut now)), ["decline 1, counted false"]);
}

#[test]
fn a_partly_filled_batch_leaves_after_the_delay() {
    struct Slow;
    struct Reader(u64);
    impl cutwater_dataflow::Source for Slow {
        type Record = u64;
        type Position = u64;
        type Reader = Reader;
        fn splits(&self, _: u32) -> Result<Vec<String>, cutwater_dataflow::UserError> {
            Ok(vec!["one".to_owned()])
        }
        fn open(&self, _: &str, position: Option<&u64>) -> Result<Reader, cutwater_dataflow::UserError> {
            Ok(Reader(position.copied().unwrap_or(0)))
        }
    }
    impl cutwater_dataflow::SplitReader for Reader {
        type Record = u64;
        type Position = u64;
        fn read(
            &mut self,
            out: &mut cutwater_dataflow::SourceOutput<u64>,
        ) -> Result<cutwater_dataflow::ReadStatus, cutwater_dataflow::UserError> {
            out.emit(self.0);
            self.0 += 1;
            Ok(cutwater_dataflow::ReadStatus::WaitUntil(out.now() + Duration::from_millis(70)))
        }
        fn position(&self) -> u64 {
            self.0
        }
    }
    let job = Job::new("slow");
    job.source("slow", Slow).key_by(|n| *n).fold("sum", 0u64, |sum, n| *sum += n).sink("out", discard());
    let settings = TaskSettings { flush_delay: Duration::from_millis(5), ..TaskSettings::default() };
    let mut source = core(&job.build().unwrap(), 0, 0, 1, &settings);
    let mut run = |millis| {
        let now = Moment::from_millis(millis);
        while source.run(now).unwrap() == Progress::Busy {}
        (kinds(&drain(&mut source)), source.next_deadline().map(|at| at.0 / 1_000_000))
    };
    assert_eq!(run(100), (vec![], Some(105)), "the flush comes before the next record");
    assert_eq!(run(104), (vec![], Some(105)), "a tick early");
    assert_eq!(run(105), (vec!["send Batch(1 records)".to_owned()], Some(170)));
    assert_eq!(run(170), (vec![], Some(175)));
}

#[test]
fn the_last_cut_holds_what_sinks_prepared() {
    let job = Job::new("last");
    let out = Collect::default();
    job.source("numbers", generator(10, |n| n)).sink("out", out.clone());
    let graph = job.build().unwrap();
    let mut now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, 1, &TaskSettings::default());
    assert_eq!(kinds(&pump(&mut source, &mut now)), ["end"]);
    source.handle_last_cut();
    let actions = pump(&mut source, &mut now);
    assert_eq!(kinds(&actions), ["last cut of 1"]);
    assert_eq!(kinds(&pump(&mut source, &mut now)), [""; 0], "once");
}

#[test]
fn prepared_output_is_in_each_snapshot_until_it_is_published() {
    let job = Job::new("prepared");
    job.source("numbers", generator(10_000, |n| n)).sink("out", Collect::default());
    let graph = job.build().unwrap();
    let now = Moment::ZERO;
    let mut source = core(&graph, 0, 0, 1, &TaskSettings::default());
    let mut handles = |checkpoint: u64, published: Option<u64>| {
        if let Some(published) = published {
            source.handle_published(CheckpointId(published));
        }
        source.run(now).unwrap();
        source.handle_trigger(now, barrier(checkpoint));
        source.run(now).unwrap();
        let complete = |action| if let Action::SnapshotComplete { inline, .. } = action { Some(inline) } else { None };
        let inline: TaskSnapshot = drain(&mut source).into_iter().find_map(complete).unwrap();
        let parts = inline.operators.into_iter().filter(|part| part.kind == SnapshotKind::PreparedOutput);
        parts.map(|part| u64::from_le_bytes(part.payload.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(handles(1, None), [0]);
    assert_eq!(handles(2, None), [0, 1], "nobody knows what became of the first");
    assert_eq!(handles(3, Some(1)), [1, 2]);
    assert_eq!(handles(4, Some(3)), [3]);
}

#[test]
fn after_a_restore_the_watermark_is_the_lowest_of_the_snapshots() {
    let graph = counts(10);
    let snapshot = |watermark| TaskSnapshot { watermark, records: 0, operators: Vec::new() };
    let start = TaskStart { restored: vec![snapshot(30), snapshot(20)], ..TaskStart::fresh(TaskId(1), 0, 1) };
    let mut restored = TaskCore::new(&graph, &start, TaskSettings::default()).unwrap();
    let mut now = Moment::ZERO;
    for (name, watermark, expected) in
        [("restored", None, 20), ("it never falls", Some(10), 20), ("it rises", Some(25), 25)]
    {
        if let Some(watermark) = watermark {
            restored.handle_element(now, ChannelId(0), Element::Watermark(Timestamp(watermark)));
        }
        pump(&mut restored, &mut now);
        assert_eq!(restored.watermark(), Timestamp(expected), "{name}");
    }
}

#[test]
fn a_snapshot_is_read_back_or_refused() {
    let snapshot = TaskSnapshot { watermark: -5, records: 7, operators: Vec::new() };
    let bytes = snapshot.encode();
    assert_eq!(TaskSnapshot::decode(&bytes), Ok(snapshot));
    let mut newer = bytes.clone();
    newer[0] = 9;
    assert_eq!(TaskSnapshot::decode(&newer), Err(SnapshotError::NewerFormat { found: 9 }));
    let mut longer = bytes.clone();
    longer.push(0);
    for (name, damaged) in [("empty", &[][..]), ("cut short", &bytes[..bytes.len() - 1]), ("too long", &longer)] {
        let error = TaskSnapshot::decode(damaged).unwrap_err();
        assert!(matches!(error, SnapshotError::Corrupt { .. }), "{name}: {error}");
    }
    // A length of 2^60 operators in a few bytes.
    let mut huge = vec![bytes[0], 0, 0];
    huge.extend([0xff; 8]);
    huge.push(0x0f);
    assert!(matches!(TaskSnapshot::decode(&huge), Err(SnapshotError::Corrupt { .. })));
}
