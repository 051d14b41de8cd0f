//! Edges of every kind under any schedule: fan-out, union, rebalance, broadcast, connect, with inputs that end at
//! different times.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_core::{OperatorUid, Timestamp};
use cutwater_dataflow::exec::{OperatorSnapshot, SnapshotKind};
use cutwater_dataflow::{Collect, Job, JobGraph, OutputTag, ProcessContext, RecordContext};
use cutwater_state::{Data, Snapshotable, StateKind, Table, TableSpec, hash_key};
use cutwater_task::TaskSettings;
use world::source::{Numbers, Record, positions};
use world::{Chaos, Checkpoint, Seen, World};

/// One input is long, the other ends early.
const LONG: Numbers = Numbers { splits: 3, count: 50, keys: 7, chunk: 5, pause: Duration::from_micros(300) };
const SHORT: Numbers = Numbers { splits: 2, count: 9, keys: 7, chunk: 2, pause: Duration::ZERO };

fn settings() -> TaskSettings {
    TaskSettings {
        window_bytes: 300,
        flush_delay: Duration::from_millis(1),
        sweep_step_bytes: 24,
        unwritten_limit_bytes: 48,
        ..TaskSettings::default()
    }
}

type Row = (u64, u64);

#[derive(Clone, Default)]
struct Outs {
    numbered: Collect<Row>,
    spread: Collect<Row>,
    everywhere: Collect<Record>,
}

/// Numbers the records of both inputs by key, and writes them twice, once spread evenly; writes the first input as it is,
/// once from each subtask.
fn job(outs: &Outs) -> JobGraph {
    let job = Job::new("edges");
    let long = job.source("long", LONG).fan_out();
    let short = job.source("short", SHORT);
    let numbered = long
        .branch()
        .union(short)
        .key_by(|record| record.key)
        .process("number", |cx: &mut ProcessContext<'_, u64, u64, Row>, _: Record| {
            *cx.state()? += 1;
            let number = *cx.state()?;
            cx.emit((*cx.key(), number));
            Ok(())
        })
        .fan_out();
    numbered.branch().sink("numbered", outs.numbered.clone());
    numbered.branch().rebalance().map(|row| row).sink("spread", outs.spread.clone());
    long.branch().broadcast().sink("everywhere", outs.everywhere.clone());
    job.build().unwrap()
}

/// The positions of one source in a checkpoint.
fn positions_of(checkpoint: &Checkpoint, source: &str) -> BTreeMap<u64, u64> {
    let operators = checkpoint.parts.values().flat_map(|part| &part.inline.operators);
    let mine = |part: &&OperatorSnapshot| part.kind == SnapshotKind::SourceSplits && part.operator.as_str() == source;
    positions(operators.filter(mine))
}

fn counts(checkpoint: Option<&Checkpoint>) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    for (name, source) in [("long", LONG), ("short", SHORT)] {
        let positions = checkpoint.map(|checkpoint| positions_of(checkpoint, name));
        let until = |split| positions.as_ref().map_or(u64::MAX, |positions| positions[&split]);
        for (key, count) in source.counts(until) {
            *all.entry(key).or_default() += count;
        }
    }
    all
}

/// The values of an operator in a checkpoint.
fn values<V: Data + Clone>(world: &World, checkpoint: &Checkpoint, uid: &str) -> BTreeMap<u64, V> {
    let operator = OperatorUid::new(uid).unwrap();
    let (max_parallelism, key_groups) = (world.max_parallelism, world.max_parallelism.all());
    let spec = TableSpec { operator: operator.clone(), name: "value".to_owned(), max_parallelism, key_groups };
    let mut table = Table::<u64, V>::new(spec);
    for part in checkpoint.parts.values() {
        for block in part.blocks() {
            let header = &part.states[usize::from(block.state)];
            if header.operator == operator && header.kind == StateKind::Value {
                table.restore(block, key_groups).unwrap();
            }
        }
    }
    let found = |key| Some((key, table.get(hash_key(&key, &mut Vec::new()), &key)?.clone()));
    (0..LONG.keys).filter_map(found).collect()
}

fn by_key(rows: Vec<Row>) -> BTreeMap<u64, Vec<u64>> {
    let mut keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    rows.into_iter().for_each(|(key, number)| keys.entry(key).or_default().push(number));
    keys.values_mut().for_each(|numbers| numbers.sort_unstable());
    keys
}

fn add(all: &mut Seen, seen: Seen) {
    all.completed += seen.completed;
    all.half_ended += seen.half_ended;
    all.crashes += seen.crashes;
    all.blocked += seen.blocked;
}

#[test]
fn each_record_counts_once_over_unions_fan_outs_and_rebalances() {
    let expected: BTreeMap<u64, Vec<u64>> =
        counts(None).into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    let mut all = Seen::default();
    for seed in 0..150 {
        let outs = Outs::default();
        let mut world = World::new(job(&outs), settings(), Chaos::ALL, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(by_key(outs.numbered.take()), expected, "seed {seed}");
        assert_eq!(by_key(outs.spread.take()), expected, "seed {seed}");
        for checkpoint in &world.completed {
            let found: BTreeMap<u64, u64> = values(&world, checkpoint, "number");
            assert_eq!(found, counts(Some(checkpoint)), "seed {seed}: checkpoint {}", checkpoint.id);
        }
        let mut times: BTreeMap<Record, usize> = BTreeMap::new();
        outs.everywhere.take().into_iter().for_each(|record| *times.entry(record).or_default() += 1);
        assert_eq!(times.len(), LONG.all().count(), "seed {seed}");
        // As often as there were subtasks when it was processed.
        assert!(times.values().all(|times| (1..=3).contains(times)), "seed {seed}: {times:?}");
        add(&mut all, world.seen);
    }
    assert!(all.crashes > 80 && all.half_ended > 80 && all.blocked > 1000, "{all:?}");
}

#[test]
fn without_a_crash_each_subtask_behind_a_broadcast_has_each_record_once() {
    for parallelism in 1..=4 {
        for seed in 0..10 {
            let outs = Outs::default();
            let chaos = Chaos { crash: 0, parallelism, ..Chaos::ALL };
            let mut world = World::new(job(&outs), settings(), chaos, seed);
            world.run().unwrap();
            let expected = LONG.all().count() * world.parallelism() as usize;
            assert_eq!(outs.everywhere.take().len(), expected, "seed {seed}");
        }
    }
}

#[test]
fn a_rebalance_gives_each_subtask_its_share() {
    // How many records each subtask has processed is in its snapshot.
    for seed in 0..10 {
        let outs = Outs::default();
        let mut world = World::new(job(&outs), settings(), Chaos { crash: 0, ..Chaos::ALL }, seed);
        world.run().unwrap();
        let last = world.completed.last().unwrap();
        let rebalanced = last.parts.iter().filter(|(subtask, _)| subtask.task.0 == 3);
        let records: Vec<_> = rebalanced.map(|(_, part)| part.inline.records).collect();
        assert_eq!(records.len(), world.parallelism() as usize);
        let (least, most) = (records.iter().min().unwrap(), records.iter().max().unwrap());
        // Each of the senders may begin with another receiver.
        assert!(most - least <= records.len() as u64, "seed {seed}: {records:?}");
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Both {
    /// Records of each input.
    counts: (u64, u64),
    days: BTreeMap<u64, (u64, u64)>,
}

type Day = (u64, u64, (u64, u64));

fn end_of(day: u64) -> Timestamp {
    Timestamp(Numbers::time((day + 1) * Numbers::DAY).0 - 1)
}

/// Counts by key and day how many records of each input there are; emits when the day is over on both.
fn connected(out: &Collect<Day>) -> JobGraph {
    type Context<'a, 'b> = &'a mut ProcessContext<'b, u64, Both, Day>;
    fn count(cx: Context<'_, '_>, record: Record, add: (u64, u64)) -> Result<(), cutwater_dataflow::UserError> {
        assert!(cx.watermark() < cx.timestamp().unwrap(), "a record behind the watermark");
        let day = record.number / Numbers::DAY;
        let state = cx.state()?;
        let counts = state.days.entry(day).or_default();
        *counts = (counts.0 + add.0, counts.1 + add.1);
        state.counts = (state.counts.0 + add.0, state.counts.1 + add.1);
        cx.register_timer(end_of(day))?;
        Ok(())
    }
    let job = Job::new("connect");
    let long = job.source("long", LONG).key_by(|record| record.key);
    // Both inputs have the same type: only the edge tells them apart.
    let short = job.source("short", SHORT).key_by(|record| record.key);
    long.connect(short)
        .process_with_timers(
            "both",
            |cx: Context<'_, '_>, record: Record| count(cx, record, (1, 0)),
            |cx: Context<'_, '_>, record: Record| count(cx, record, (0, 1)),
            |cx: Context<'_, '_>, time| {
                let day = u64::try_from(time.0 + 1).unwrap() / 1000 / Numbers::DAY - 1;
                let counts = cx.state()?.days.remove(&day).unwrap();
                cx.emit((*cx.key(), day, counts));
                Ok(())
            },
        )
        .sink("out", out.clone());
    job.build().unwrap()
}

#[test]
fn two_connected_inputs_share_state_and_timers() {
    let mut expected: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    for record in LONG.all() {
        expected.entry((record.key, record.number / Numbers::DAY)).or_default().0 += 1;
    }
    for record in SHORT.all() {
        expected.entry((record.key, record.number / Numbers::DAY)).or_default().1 += 1;
    }
    let mut all = Seen::default();
    for seed in 0..150 {
        let out = Collect::default();
        let mut world = World::new(connected(&out), settings(), Chaos::ALL, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut found = BTreeMap::new();
        for (key, day, counts) in out.take() {
            assert_eq!(found.insert((key, day), counts), None, "seed {seed}: key {key} of day {day} fired twice");
        }
        assert_eq!(found, expected, "seed {seed}");
        for checkpoint in &world.completed {
            let states: BTreeMap<u64, Both> = values(&world, checkpoint, "both");
            let ahead = |source: Numbers, name| {
                let positions = positions_of(checkpoint, name);
                source.counts(|split| positions[&split])
            };
            let (long, short) = (ahead(LONG, "long"), ahead(SHORT, "short"));
            let of = |counts: &BTreeMap<u64, u64>, key| counts.get(&key).copied().unwrap_or(0);
            for key in 0..LONG.keys {
                let found = states.get(&key).map_or((0, 0), |both| both.counts);
                assert_eq!(found, (of(&long, key), of(&short, key)), "seed {seed}: {} key {key}", checkpoint.id);
            }
        }
        add(&mut all, world.seen);
    }
    assert!(all.crashes > 80 && all.half_ended > 80, "{all:?}");
}

#[test]
fn an_input_that_waits_holds_the_watermark_and_one_that_has_ended_does_not() {
    // The timer of the last day of the long input fires only if the short one, which ended long before it, counts no more:
    // all days come out, and none before both inputs have passed it (asserted by each record that is processed).
    let out = Collect::default();
    let mut world = World::new(connected(&out), settings(), Chaos { parallelism: 1, ..Chaos::NONE }, 3);
    world.run().unwrap();
    let days: Vec<_> = out.take().into_iter().map(|(_, day, _)| day).collect();
    assert!(days.is_sorted(), "{days:?}");
    assert_eq!(days.last(), Some(&(LONG.count / Numbers::DAY - 1)));
}

const ODD: OutputTag<String> = OutputTag::new("odd");
const DAYS: OutputTag<(u64, u64)> = OutputTag::new("days");

const FIFTHS: OutputTag<Record> = OutputTag::new("fifths");

/// Emits every fifth record to a side before there are keys; then those with odd numbers to one side, ends of days by timers to another, which goes through an exchange.
fn sides(
    main: &Collect<Record>,
    fifths: &Collect<Record>,
    odd: &Collect<String>,
    days: &Collect<(u64, u64)>,
) -> JobGraph {
    type Context<'a, 'b> = &'a mut ProcessContext<'b, u64, u64, Record>;
    let job = Job::new("sides");
    let checked = job.source("long", LONG).process(|cx: &mut RecordContext<'_, Record>, record: Record| {
        if cx.timestamp() != Some(Numbers::time(record.number)) {
            return Err("a record without its time".into());
        }
        if record.number.is_multiple_of(5) {
            cx.emit_to(&FIFTHS, record)?;
        }
        cx.emit(record);
        Ok(())
    });
    checked.side_output(&FIFTHS).sink("fifths", fifths.clone());
    let all = checked.key_by(|record| record.key).process_with_timers(
        "split",
        |cx: Context<'_, '_>, record: Record| {
            match record.number % 2 {
                0 => cx.emit(record),
                _ => cx.emit_to(&ODD, format!("{}-{}", record.split, record.number))?,
            }
            cx.emit_to(&OutputTag::<u8>::new("nobody takes it"), 1)?;
            cx.register_timer(end_of(record.number / Numbers::DAY))?;
            Ok(())
        },
        |cx: Context<'_, '_>, time| {
            let day = u64::try_from(time.0 + 1).unwrap() / 1000 / Numbers::DAY - 1;
            cx.emit_to(&DAYS, (*cx.key(), day))?;
            Ok(())
        },
    );
    all.side_output(&ODD).filter(|text| !text.is_empty()).sink("odd", odd.clone());
    all.side_output(&DAYS)
        .key_by(|(key, _)| *key)
        .fold("last", 0u64, |last, (_, day)| {
            assert!(day == 0 || day > *last, "days of a key come in their order");
            *last = day;
        })
        .sink("days", days.clone());
    all.sink("main", main.clone());
    job.build().unwrap()
}

#[test]
fn each_record_comes_once_to_its_side_output() {
    let sorted = |mut of: Vec<_>| {
        of.sort_unstable();
        of
    };
    let even: Vec<Record> = LONG.all().filter(|record| record.number % 2 == 0).collect();
    let odd = LONG.all().filter(|record| record.number % 2 == 1);
    let odd = sorted(odd.map(|record| format!("{}-{}", record.split, record.number)).collect());
    let days: std::collections::BTreeSet<_> =
        LONG.all().map(|record| (record.key, record.number / Numbers::DAY)).collect();
    let mut all = Seen::default();
    for seed in 0..100 {
        let (main, fifths) = (Collect::default(), Collect::default());
        let (on_side, ended) = (Collect::default(), Collect::default());
        let mut world = World::new(sides(&main, &fifths, &on_side, &ended), settings(), Chaos::ALL, seed);
        world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut found = main.take();
        found.sort_unstable_by_key(|record| (record.split, record.number));
        assert_eq!(found, even, "seed {seed}");
        let mut found = fifths.take();
        found.sort_unstable_by_key(|record| (record.split, record.number));
        assert!(found.iter().copied().eq(LONG.all().filter(|record| record.number % 5 == 0)), "seed {seed}: {found:?}");
        assert_eq!(sorted(on_side.take()), odd, "seed {seed}");
        let mut found = ended.take();
        found.sort_unstable();
        assert_eq!(found, days.iter().copied().collect::<Vec<_>>(), "seed {seed}");
        add(&mut all, world.seen);
    }
    assert!(all.crashes > 50 && all.half_ended > 50, "{all:?}");
}

#[test]
fn a_side_output_of_another_type_is_named() {
    let job = Job::new("types");
    let all = job
        .source("long", LONG)
        .key_by(|record| record.key)
        .process("split", |cx: &mut ProcessContext<'_, u64, u64, ()>, _: Record| {
            Ok(cx.emit_to(&OutputTag::new("odd"), 1u8)?)
        });
    all.side_output(&ODD).sink("odd", Collect::default());
    all.sink("main", Collect::default());
    let mut world = World::new(job.build().unwrap(), settings(), Chaos::NONE, 1);
    let error = world.run().unwrap_err();
    assert_eq!(error.operator, "split");
    assert_eq!(
        error.cause.to_string(),
        "side output \"odd\" has records of alloc::string::String, and one of u8 was emitted; share one constant tag"
    );
}
