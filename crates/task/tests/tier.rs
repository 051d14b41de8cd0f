//! What a subtask does with a tier below its tables, input by input.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use cutwater_core::{
    Attempt, Barrier, ChannelId, CheckpointId, Epoch, MaxParallelism, Moment, OperatorUid, SnapshotForm, TaskId,
};
use cutwater_dataflow::exec::Element;
use cutwater_dataflow::{Job, JobGraph, ProcessContext, States, discard, generator};
use cutwater_state::{
    AttachedTier, ColdBatch, ColdState, ColdTier, ListTable, MapTable, ModelTier, Snapshotable, StateHeader, TableSpec,
    apply_block, blocks_of_view, hash_key,
};
use cutwater_task::{Action, Progress, TaskCore, TaskSettings, TaskStart};

const KEYS: u64 = 500;

fn counts() -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", generator(100 * KEYS, |n| n % KEYS))
        .key_by(|n| *n)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", discard());
    job.build().unwrap()
}

/// The same counts, as entries of maps and as lengths of lists.
fn by_entries() -> JobGraph {
    let job = Job::new("by-entries");
    job.source("numbers", generator(100 * KEYS, |n| n))
        .key_by(|n| n % KEYS)
        .process_with_states(
            "counts",
            |states: &mut States<'_, u64>| Ok((states.map::<String, u64>("map")?, states.list::<u64>("list")?)),
            |cx: &mut ProcessContext<'_, u64, (), u64>, (map, list), n| {
                let part = if n % 3 == 0 { "a" } else { "" };
                *cx.map(*map)?.get_or_insert_with(&part.to_owned(), || 0)? += 1;
                cx.list(*list)?.push(n)?;
                cx.emit(n);
                Ok(())
            },
        )
        .sink("out", discard());
    job.build().unwrap()
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

/// The subtask that counts, its source, and its tier.
struct World {
    tier: Arc<ModelTier>,
    source: TaskCore,
    counts: TaskCore,
    now: Moment,
    /// The states of the running snapshot, as the tier knows them.
    states: Vec<(StateHeader, Option<ColdState>)>,
}

impl World {
    fn new() -> Self {
        Self::of(&counts(), 16 << 10)
    }

    fn of(graph: &JobGraph, overlay_bytes: u64) -> Self {
        let tier = Arc::new(ModelTier::default());
        let settings = TaskSettings { window_bytes: u64::MAX / 4, ..TaskSettings::default() };
        let source = TaskCore::new(graph, &TaskStart::fresh(TaskId(0), 0, 1), settings.clone()).unwrap();
        let attached = AttachedTier { tier: tier.clone(), overlay_bytes };
        let start = TaskStart { tier: Some(attached), ..TaskStart::fresh(TaskId(1), 0, 1) };
        let counts = TaskCore::new(graph, &start, TaskSettings { sweep_step_bytes: 500, ..settings }).unwrap();
        Self { tier, source, counts, now: Moment::ZERO, states: Vec::new() }
    }

    /// Lets the source read some batches, which the other processes.
    fn feed(&mut self) {
        for _ in 0..3 {
            self.source.run(self.now).unwrap();
            while let Some(action) = self.source.poll_action() {
                if let Action::Send { element, .. } = action {
                    self.counts.handle_element(self.now, ChannelId(0), element);
                }
            }
        }
        self.run(usize::MAX, usize::MAX);
    }

    /// Runs until there is nothing to do, or for so many quanta; of the blocks that come only the first go into the tier.
    fn run(&mut self, quanta: usize, mut blocks: usize) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..quanta {
            let progress = self.counts.run(self.now).unwrap();
            while let Some(action) = self.counts.poll_action() {
                match action {
                    Action::SnapshotBegun { barrier, states, cold, .. } => {
                        done.push(format!("begun {}", barrier.checkpoint));
                        self.states = states.into_iter().zip(cold).collect();
                    }
                    Action::Block { block, .. } => {
                        let (header, state) = &self.states[usize::from(block.state)];
                        if let (Some(state), true) = (state, blocks > 0) {
                            apply_block(&*self.tier, *state, header, &block, &mut ColdBatch::default()).unwrap();
                            blocks -= 1;
                        }
                    }
                    Action::SnapshotComplete { checkpoint, .. } => done.push(format!("complete {checkpoint}")),
                    Action::SnapshotDropped { checkpoint } => done.push(format!("dropped {checkpoint}")),
                    Action::Decline { checkpoint, counted, .. } => {
                        done.push(format!("decline {checkpoint}, counted {counted}"));
                    }
                    Action::Send { .. } | Action::Credit { .. } | Action::EndOfData | Action::LastCut { .. } => {}
                }
            }
            if progress == Progress::Idle {
                break;
            }
        }
        done
    }

    fn barrier(&mut self, checkpoint: u64, quanta: usize) -> Vec<String> {
        self.counts.handle_element(self.now, ChannelId(0), Element::Barrier(barrier(checkpoint)));
        self.run(quanta, usize::MAX)
    }

    /// The counts in the tier.
    fn contents(&self) -> BTreeMap<u64, u64> {
        let (_, state) = self.states.iter().find(|(_, state)| state.is_some()).unwrap();
        let view = self.tier.view().unwrap();
        let mut found = BTreeMap::new();
        let all = MaxParallelism::default().all();
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        view.scan(state.unwrap(), all, &mut |name, value| {
            found.insert(number(&name[2..]), number(value));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    /// The counts of [`by_entries`] in the tier: of the map and of the list.
    fn contents_by_entries(&self) -> [BTreeMap<u64, u64>; 2] {
        let all = MaxParallelism::default().all();
        let spec = |name: &str| {
            let operator = OperatorUid::new("counts").unwrap();
            TableSpec { operator, name: name.to_owned(), max_parallelism: MaxParallelism::default(), key_groups: all }
        };
        let mut map: MapTable<u64, String, u64> = MapTable::new(spec("map"));
        let mut list: ListTable<u64, u64> = ListTable::new(spec("list"));
        let view = self.tier.view().unwrap();
        for state in [&mut map as &mut dyn Snapshotable, &mut list] {
            let header = state.header();
            let (_, cold) = self.states.iter().find(|(known, _)| *known == header).unwrap();
            let restore = |block| state.restore(&block, all).map(drop::<u64>);
            blocks_of_view(&*view, cold.unwrap(), &header, all, restore).unwrap();
        }
        let hash = |key: &u64| hash_key(key, &mut Vec::new());
        let of_map = |key| map.iter(hash(&key), &key).map(|(_, _, count)| *count).sum();
        let of_list = |key| list.iter(hash(&key), &key).count() as u64;
        let counts = |of: &dyn Fn(u64) -> u64| (0..KEYS).map(|key| (key, of(key))).collect();
        [counts(&of_map), counts(&of_list)]
    }

    /// What the counts are after so many records.
    fn expected(records: u64) -> BTreeMap<u64, u64> {
        (0..KEYS.min(records)).map(|key| (key, (records - key).div_ceil(KEYS))).collect()
    }
}

const QUANTA: usize = 10_000;

#[test]
fn a_snapshot_waits_until_the_tier_has_the_one_before() {
    let mut world = World::new();
    world.feed();
    let records = world.counts.records();
    assert!(records > KEYS);
    assert_eq!(world.barrier(1, QUANTA), ["begun 1", "complete 1"]);
    assert_eq!(world.contents(), World::expected(records));
    world.feed();
    assert_eq!(world.contents(), World::expected(records), "the subtask itself writes nothing there meanwhile");
    assert_eq!(world.barrier(2, QUANTA), ["decline 2, counted false"]);
    world.counts.handle_applied(CheckpointId(2), true); // nobody knows of it
    assert_eq!(world.barrier(3, QUANTA), ["decline 3, counted false"]);
    world.counts.handle_applied(CheckpointId(1), true);
    let records = world.counts.records();
    assert_eq!(world.barrier(4, QUANTA), ["begun 4", "complete 4"]);
    assert_eq!(world.contents(), World::expected(records));
}

/// Records whose keys are in the tier take their time: after some of them the subtask looks at barriers and timers again, and
/// what is in memory does not hold it up.
#[test]
fn a_batch_much_of_which_is_in_the_tier_is_processed_in_pieces() {
    let job = Job::new("many");
    job.source("numbers", generator(1 << 20, |n| n * 7919 % 5_000))
        .key_by(|n| *n)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", discard());
    let graph = job.build().unwrap();
    for (overlay_bytes, in_pieces) in [(16 << 10, true), (64 << 20, false)] {
        let mut world = World::of(&graph, overlay_bytes);
        (0..4).for_each(|_| world.feed());
        world.source.run(world.now).unwrap();
        while let Some(action) = world.source.poll_action() {
            if let Action::Send { element, .. } = action {
                world.counts.handle_element(world.now, ChannelId(0), element);
            }
        }
        let mut pieces = Vec::new();
        loop {
            let before = world.counts.records();
            world.counts.run(world.now).unwrap();
            while world.counts.poll_action().is_some() {}
            pieces.push(world.counts.records() - before);
            if !world.counts.is_amid() {
                break;
            }
        }
        assert_eq!(pieces.iter().sum::<u64>(), 1024, "one batch, and it is not left in its midst: {pieces:?}");
        let expected = if in_pieces { 128..=256 } else { 1024..=1024 };
        let (last, others) = pieces.split_last().unwrap();
        let sound = others.iter().all(|piece| expected.contains(piece)) && last <= expected.end();
        assert!(sound, "with {overlay_bytes} bytes in memory: {pieces:?}");
    }
}

#[test]
fn maps_and_lists_are_in_the_tier_as_they_were_at_the_cut() {
    let mut world = World::of(&by_entries(), 64 << 10);
    for checkpoint in [1, 2, 3] {
        world.feed();
        let records = world.counts.records();
        world.counts.handle_element(world.now, ChannelId(0), Element::Barrier(barrier(checkpoint)));
        world.run(2, usize::MAX);
        world.feed(); // while it is swept
        world.run(QUANTA, usize::MAX);
        let expected = World::expected(records);
        assert_eq!(world.contents_by_entries(), [expected.clone(), expected], "checkpoint {checkpoint}");
        world.counts.handle_applied(CheckpointId(checkpoint), true);
    }
    assert!(world.counts.records() > 3 * KEYS);
}

#[test]
fn what_was_given_up_comes_with_the_next_snapshot() {
    // Given up by the coordinator, by whoever writes it, and after the last block.
    for (name, quanta, by_writer) in [("aborted", 2, false), ("not written", 2, true), ("swept", QUANTA, true)] {
        let mut world = World::new();
        world.feed();
        world.counts.handle_element(world.now, ChannelId(0), Element::Barrier(barrier(1)));
        let begun = world.run(quanta, 1);
        assert_eq!(begun.last().unwrap() == "complete 1", quanta == QUANTA, "{name}");
        if !by_writer {
            world.counts.handle_abort(CheckpointId(1));
            assert_eq!(world.run(1, 0), ["dropped 1"], "{name}");
            assert_eq!(world.barrier(2, QUANTA), ["decline 2, counted false"], "{name}: it may be written yet");
        }
        world.counts.handle_applied(CheckpointId(1), false);
        let records = world.counts.records();
        world.barrier(3, QUANTA);
        assert_eq!(world.contents(), World::expected(records), "{name}");
    }
}

/// What has changed since a cut can't leave memory before the cut is in the tier. So there is no end to it but this.
#[test]
fn a_subtask_waits_while_changes_since_a_cut_take_too_much_memory() {
    for applied in [true, false] {
        let mut world = World::of(&counts(), 4 << 10);
        world.feed();
        assert!(!world.counts.is_crowded(), "without a cut it puts entries out");
        assert_eq!(world.barrier(1, QUANTA), ["begun 1", "complete 1"]);
        let before = world.counts.records();
        world.feed();
        let taken = world.counts.records() - before;
        assert!(world.counts.is_crowded() && (1..2_048).contains(&taken), "it has taken {taken} of 3,072 records");
        let memory: u64 = world.counts.states().iter().map(|state| state.memory_bytes()).sum();
        assert_eq!(world.counts.run(world.now).unwrap(), Progress::Idle);
        world.feed();
        assert_eq!(world.counts.records(), before + taken);
        assert_eq!(world.counts.states().iter().map(|state| state.memory_bytes()).sum::<u64>(), memory);
        world.counts.handle_applied(CheckpointId(1), applied);
        assert!(!world.counts.is_crowded());
        world.run(QUANTA, QUANTA);
        assert_eq!(world.counts.records(), before + 6 * 1_024, "then it takes what had waited");
        let records = world.counts.records();
        assert_eq!(world.barrier(2, QUANTA), ["begun 2", "complete 2"]);
        assert_eq!(world.contents(), World::expected(records), "applied: {applied}");
    }
}

/// It waits between two elements, so that a snapshot is swept on and cut in the meantime.
#[test]
fn a_crowded_subtask_sweeps_on() {
    let mut world = World::of(&counts(), 1 << 10);
    world.feed();
    world.counts.handle_element(world.now, ChannelId(0), Element::Barrier(barrier(1)));
    assert_eq!(world.run(1, usize::MAX), ["begun 1"]);
    for _ in 0..3 {
        world.source.run(world.now).unwrap();
        while let Some(action) = world.source.poll_action() {
            if let Action::Send { element, .. } = action {
                world.counts.handle_element(world.now, ChannelId(0), element);
            }
        }
    }
    let records = world.counts.records();
    assert_eq!(world.run(QUANTA, usize::MAX), ["complete 1"]);
    assert!(world.counts.is_crowded());
    assert_eq!(world.contents(), World::expected(records));
}
