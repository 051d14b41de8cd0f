//! The at-least-once mode loses nothing, and is told apart from exactly-once by what it repeats.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_barrier::Mode;
use cutwater_dataflow::{Collect, Job};
use cutwater_task::TaskSettings;
use world::source::Numbers;
use world::{Chaos, World};

/// The pauses make the splits, and so the source subtasks, drift apart.
const NUMBERS: Numbers = Numbers { splits: 3, count: 40, keys: 5, chunk: 3, pause: Duration::from_millis(2) };

/// How often each number of each key was published.
fn published(mode: Mode, seed: u64) -> BTreeMap<(u64, u64), u64> {
    let out = Collect::default();
    let job = Job::new("counts");
    job.source("numbers", NUMBERS)
        .key_by(|record| record.key)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", out.clone());
    let settings = TaskSettings { mode, window_bytes: 400, sweep_step_bytes: 24, ..TaskSettings::default() };
    let chaos = Chaos { checkpoint: 20, crash: 150, crashes: 4, ..Chaos::ALL };
    let mut world = World::new(job.build().unwrap(), settings, chaos, seed);
    world.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let mut times = BTreeMap::new();
    for number in out.take() {
        *times.entry(number).or_default() += 1;
    }
    times
}

#[test]
fn nothing_is_lost_and_something_is_repeated() {
    let expected = NUMBERS.counts(|_| u64::MAX);
    let mut repeated = 0;
    for seed in 0..100 {
        let times = published(Mode::AtLeastOnce, seed);
        for (&key, &count) in &expected {
            let last = times.keys().filter(|(of, _)| *of == key).map(|(_, number)| *number).max().unwrap();
            assert!(last >= count, "seed {seed}: key {key} has {count} records and counts to {last}");
            assert!((1..=last).all(|number| times.contains_key(&(key, number))), "seed {seed}: a gap in key {key}");
            repeated += u64::from(last > count);
        }
        let exactly: BTreeMap<_, _> =
            expected.iter().flat_map(|(&key, &count)| (1..=count).map(move |number| ((key, number), 1))).collect();
        assert_eq!(published(Mode::ExactlyOnce, seed), exactly, "seed {seed}");
    }
    assert!(repeated > 20, "the modes do the same: {repeated} keys were counted too high");
}
