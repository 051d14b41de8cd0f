//! Timers of which most lie in RocksDB, against timers in memory.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::JobTier;
use cutwater_core::{KeyHash, MaxParallelism, OperatorUid, Timestamp};
use cutwater_state::{
    ColdBatch, ColdTier, Snapshotable, StateError, SweepProgress, TableSpec, Timers, apply_block, blocks_of_view,
    hash_key,
};

const KEYS: u64 = 3_000;
const ROUNDS: i64 = 60;
/// So many bytes hold some hundred timers.
const LIMIT: u64 = 64 << 10;

fn spec() -> TableSpec {
    let max_parallelism = MaxParallelism::default();
    let operator = OperatorUid::new("operator").unwrap();
    TableSpec { operator, name: "timers".to_owned(), max_parallelism, key_groups: max_parallelism.all() }
}

/// Keys of all lengths, some the beginnings of others.
fn key(n: u64) -> Vec<u8> {
    [vec![0xff; (n % 4) as usize], n.to_string().into_bytes(), vec![0; (n % 3) as usize]].concat()
}

fn hash(key: &Vec<u8>) -> KeyHash {
    hash_key(key, &mut Vec::new())
}

/// The next of some numbers that look random.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn attached(tier: &Arc<JobTier>) -> Timers<Vec<u8>> {
    let mut timers = Timers::new(spec());
    timers.attach(tier.clone(), LIMIT).unwrap();
    timers
}

#[test]
fn timers_in_rocksdb_fire_as_those_in_memory() {
    let mut tier = Arc::new(JobTier::tiny());
    let mut timers = attached(&tier);
    let mut plain: Timers<Vec<u8>> = Timers::new(spec());
    let (mut random, mut fired, mut cuts) = (7, 0, 0);
    for round in 0..ROUNDS {
        for step in 0..1_500 {
            let key = key(next(&mut random) % KEYS);
            let time = Timestamp(round * 100 - 200 + (next(&mut random) % 3_000) as i64);
            for timers in [&mut timers, &mut plain] {
                match step % 5 {
                    0 => timers.delete(hash(&key), &key, time).unwrap(),
                    _ => timers.register(hash(&key), &key, time).unwrap(),
                };
            }
            if step % 250 == 0 {
                timers.relieve().unwrap();
            }
        }
        for n in 0..700 {
            let expected = plain.pop_due(Timestamp(round * 100)).unwrap();
            assert_eq!(timers.pop_due(Timestamp(round * 100)).unwrap(), expected, "round {round}");
            fired += u32::from(expected.is_some());
            if n % 250 == 0 {
                timers.relieve().unwrap();
            }
        }
        if round % 4 != 3 {
            continue;
        }
        let (cut, header) = (timers.cut(), timers.header());
        let state = timers.cold().unwrap();
        let mut apply = |block| apply_block(&*tier, state, &header, &block, &mut ColdBatch::default()).unwrap();
        while timers.sweep(100_000, &mut apply).unwrap() == SweepProgress::More {}
        timers.applied(cut);
        cuts += 1;
        if cuts % 5 != 0 {
            continue;
        }
        // And once more, out of a snapshot or what it has of its own.
        let new = Arc::new(JobTier::tiny());
        if cuts % 10 == 0 {
            timers = attached(&new);
            let view = tier.view().unwrap();
            let mut restore = |block| timers.restore(&block, spec().key_groups).map(drop::<u64>);
            blocks_of_view::<StateError>(&*view, state, &header, spec().key_groups, &mut restore).unwrap();
        } else {
            let view = tier.view().unwrap();
            let mut restored: Timers<Vec<u8>> = Timers::new(spec());
            let mut restore = |block| restored.restore(&block, spec().key_groups).map(drop::<u64>);
            let set = blocks_of_view::<StateError>(&*view, state, &header, spec().key_groups, &mut restore).unwrap();
            assert_eq!((set, restored.len()), (plain.len(), plain.len()));
            let about = tier.about(state).unwrap();
            timers = attached(&tier); // goes on in the same tier
            timers.imported(about);
            continue;
        }
        tier = new;
    }
    assert!(fired > 20_000 && timers.cold_entries() > 5_000, "{fired}, {}", timers.cold_entries());
    loop {
        let expected = plain.pop_due(Timestamp::MAX).unwrap();
        assert_eq!(timers.pop_due(Timestamp::MAX).unwrap(), expected);
        if expected.is_none() {
            break;
        }
        if fired % 500 == 0 {
            timers.relieve().unwrap();
        }
        fired += 1;
    }
}
