//! Whatever the schedule, the crashes, the aborts and the parallelism: each record counts once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_core::{OperatorUid, Timestamp};
use cutwater_dataflow::{Collect, Job, JobGraph, ProcessContext};
use cutwater_state::{Snapshotable, Table, TableSpec, hash_key};
use cutwater_task::TaskSettings;
use world::source::{Numbers, Record, positions};
use world::{Chaos, Checkpoint, World};

const NUMBERS: Numbers = Numbers { splits: 4, count: 60, keys: 9, chunk: 5, pause: Duration::from_micros(300) };

/// Small enough that outputs wait for credit and snapshots for writes.
fn settings() -> TaskSettings {
    TaskSettings {
        window_bytes: 400,
        flush_delay: Duration::from_millis(1),
        sweep_step_bytes: 24,
        unwritten_limit_bytes: 48,
        ..TaskSettings::default()
    }
}

/// Numbers the records of each key, then counts those by the remainder of the key.
fn job(out: &Collect<(u64, u64)>) -> JobGraph {
    let job = Job::new("counts");
    job.source("numbers", NUMBERS)
        .key_by(|record| record.key)
        .process("running", |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, _: Record| {
            *cx.state()? += 1;
            let number = *cx.state()?;
            cx.emit((*cx.key(), number));
            Ok(())
        })
        .key_by(|(key, _)| key % 4)
        .process("last", |cx: &mut ProcessContext<'_, u64, BTreeMap<u64, u64>, (u64, u64)>, (key, number)| {
            let last = cx.state()?.entry(key).or_default();
            assert_eq!(*last + 1, number, "the numbers of key {key} come without gap or repetition");
            *last = number;
            cx.emit((key, number));
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

fn published(out: &Collect<(u64, u64)>) -> BTreeMap<u64, Vec<u64>> {
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (key, number) in out.take() {
        numbers.entry(key).or_default().push(number);
    }
    numbers.values_mut().for_each(|numbers| numbers.sort_unstable());
    numbers
}

/// The counts in the snapshot of task 1.
fn counts(world: &World, checkpoint: &Checkpoint) -> BTreeMap<u64, u64> {
    let max_parallelism = world.max_parallelism;
    let operator = OperatorUid::new("running").unwrap();
    let key_groups = max_parallelism.all();
    let mut table =
        Table::<u64, u64>::new(TableSpec { operator, name: "value".to_owned(), max_parallelism, key_groups });
    for (_, part) in checkpoint.parts.iter().filter(|(subtask, _)| subtask.task.0 == 1) {
        for block in part.blocks().filter(|block| block.state == 0) {
            table.restore(block, max_parallelism.all()).unwrap();
        }
    }
    let found = |key| Some((key, *table.get(hash_key(&key, &mut Vec::new()), &key)?));
    (0..NUMBERS.keys).filter_map(found).collect()
}

/// State in a checkpoint is the fold over exactly the records before the source positions in it.
fn check_cut(world: &World, checkpoint: &Checkpoint) {
    let operators = checkpoint.parts.values().flat_map(|part| &part.inline.operators);
    let positions = positions(operators);
    assert_eq!(positions.len() as u64, NUMBERS.splits, "every split is in the checkpoint");
    let expected = NUMBERS.counts(|split| positions[&split]);
    assert_eq!(counts(world, checkpoint), expected, "checkpoint {} at {positions:?}", checkpoint.id);
}

#[test]
fn each_record_counts_once_and_each_cut_is_consistent() {
    let expected: BTreeMap<u64, Vec<u64>> =
        NUMBERS.counts(|_| u64::MAX).into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    let mut seen = world::Seen::default();
    for seed in 0..200 {
        let out = Collect::default();
        let mut world = World::new(job(&out), settings(), Chaos::ALL, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(published(&out), expected, "seed {seed}");
        for checkpoint in &world.completed {
            check_cut(&world, checkpoint);
        }
        seen.completed += world.seen.completed;
        seen.half_ended += world.seen.half_ended;
        seen.dropped += world.seen.dropped;
        seen.crashes += world.seen.crashes;
        seen.blocked += world.seen.blocked;
        seen.deltas += world.seen.deltas;
        seen.deltas_restored += world.seen.deltas_restored;
    }
    assert!(seen.deltas > 1000 && seen.deltas_restored > 30, "no snapshots that build on others: {seen:?}");
    assert!(seen.crashes > 100, "the seeds did not crash: {seen:?}");
    assert!(seen.half_ended > 100, "no checkpoint while sources end: {seen:?}");
    assert!(seen.dropped > 100, "no snapshot was dropped half swept: {seen:?}");
    assert!(seen.blocked > 1000, "no window was used up: {seen:?}");
}

#[test]
fn output_prepared_for_a_checkpoint_that_came_to_nothing_is_in_the_next() {
    let expected: u64 = NUMBERS.counts(|_| u64::MAX).values().sum();
    for seed in 0..30 {
        let out = Collect::default();
        let chaos = Chaos { checkpoint: 20, abort: 30, overtake: 50, ..Chaos::NONE };
        let mut world = World::new(job(&out), settings(), chaos, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(out.take().len() as u64, expected, "seed {seed}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let hash = |seed| {
        let mut world = World::new(job(&Collect::default()), settings(), Chaos::ALL, seed);
        world.run().unwrap();
        world.hash()
    };
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

type Day = (u64, u64, u64);

/// Counts the records of each key and day, and emits (key, day, count) when the day is over.
fn days(out: &Collect<Day>) -> JobGraph {
    let job = Job::new("days");
    let end = |day: u64| Timestamp(Numbers::time((day + 1) * Numbers::DAY).0 - 1);
    job.source("numbers", NUMBERS)
        .key_by(|record| record.key)
        .process_with_timers(
            "days",
            move |cx: &mut ProcessContext<'_, u64, BTreeMap<u64, u64>, Day>, record: Record| {
                let day = record.number / Numbers::DAY;
                assert!(cx.watermark() < cx.timestamp().unwrap(), "a record behind the watermark");
                *cx.state()?.entry(day).or_default() += 1;
                cx.register_timer(end(day))?;
                Ok(())
            },
            move |cx, time| {
                let day = u64::try_from(time.0 + 1).unwrap() / 1000 / Numbers::DAY - 1;
                assert_eq!(time, end(day));
                assert!(cx.watermark() >= time);
                let count = cx.state()?.remove(&day).unwrap_or(0);
                if cx.state()?.is_empty() {
                    cx.clear()?;
                }
                cx.emit((*cx.key(), day, count));
                Ok(())
            },
        )
        .sink("out", out.clone());
    job.build().unwrap()
}

#[test]
fn each_timer_fires_once_after_all_records_before_it() {
    let mut expected: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for record in NUMBERS.all() {
        *expected.entry((record.key, record.number / Numbers::DAY)).or_default() += 1;
    }
    for seed in 0..120 {
        let out = Collect::default();
        let mut world = World::new(days(&out), settings(), Chaos::ALL, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut found = BTreeMap::new();
        for (key, day, count) in out.take() {
            assert_eq!(found.insert((key, day), count), None, "seed {seed}: key {key} of day {day} fired twice");
        }
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[test]
fn timers_of_a_subtask_fire_in_the_order_of_time_and_key() {
    for seed in 0..50 {
        let out = Collect::default();
        // One subtask, one attempt: what is published is in the order in which it was written.
        let chaos = Chaos { parallelism: 1, checkpoint: 60, ..Chaos::NONE };
        let mut world = World::new(days(&out), settings(), chaos, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let fired: Vec<_> = out.take().into_iter().map(|(key, day, _)| (day, key)).collect();
        assert!(fired.is_sorted(), "seed {seed}: {fired:?}");
    }
}
