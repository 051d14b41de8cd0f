//! One function for each sentence of the contract. Each panics if a backend breaks it.

pub use crate::changes::*;
pub use crate::kinds::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cutwater_core::{KeyGroup, KeyGroupRange, Timestamp};
use cutwater_state::{
    Data, Key, Snapshotable, StateBackend, StateBackendExt, StateError, SweepProgress, Table, Timers,
};
use serde::{Deserialize, Serialize};

use crate::harness::{
    MAX, contents, counted, fired, group, hash, max_parallelism, numbers, put, register, remove, restore, snapshot,
    spec, step, sweep,
};

/// A read sees every earlier write of the same subtask.
pub fn a_read_sees_earlier_writes<B: StateBackend>(make: impl Fn() -> B) {
    let mut table: Table<String, u64> = make().table(spec(0, 1));
    let key = "key".to_owned();
    assert_eq!(table.get(hash(&key), &key), None);
    assert_eq!(put(&mut table, key.clone(), 1), None);
    assert_eq!(put(&mut table, key.clone(), 2), Some(1));
    assert_eq!(table.get(hash(&key), &key), Some(&2));
    if let Some(value) = table.get_mut(hash(&key), &key).expect("no sweep is running") {
        *value += 1;
    }
    *table.get_or_insert_with(hash(&key), &key, || 100).expect("no sweep is running") += 1;
    assert_eq!(table.get(hash(&key), &key), Some(&4));
    assert_eq!(table.len(), 1);
}

/// A removed key is gone.
pub fn a_removed_key_is_gone<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 100);
    assert_eq!(remove(&mut table, &7), Some(7));
    assert_eq!(remove(&mut table, &7), None);
    assert_eq!(table.get(hash(&7_u64), &7), None);
    assert_eq!(table.get_mut(hash(&7_u64), &7).expect("no sweep is running"), None);
    assert_eq!(*table.get_or_insert_with(hash(&7_u64), &7, || 70).expect("no sweep is running"), 70);
    assert_eq!(table.len(), 100);
}

/// Keys do not disturb each other, however many come and go.
pub fn keys_do_not_disturb_each_other<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 20_000);
    for key in (0..20_000).filter(|key| key % 3 == 0) {
        assert_eq!(remove(&mut table, &key), Some(key));
    }
    for key in 0..20_000_u64 {
        assert_eq!(table.get(hash(&key), &key), (key % 3 != 0).then_some(&key), "{key}");
    }
}

/// Any serde type can be a key and a value, and survives a snapshot.
pub fn every_kind_of_type_can_be_key_and_value<B: StateBackend>(make: impl Fn() -> B) {
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Route {
        from: String,
        to: Option<String>,
    }
    fn check<B: StateBackend, K: Key, V: Data + Clone + PartialEq + std::fmt::Debug>(backend: &B, key: K, value: V) {
        let mut table: Table<K, V> = backend.table(spec(0, 1));
        put(&mut table, key.clone(), value.clone());
        let blocks = snapshot(&mut table);
        let mut restored: Table<K, V> = backend.table(spec(0, 1));
        assert_eq!(restore(&mut restored, &blocks), 1);
        assert_eq!(restored.get(hash(&key), &key), Some(&value));
    }
    let backend = make();
    check(&backend, (), 1.5_f64);
    check(&backend, true, ());
    check(&backend, -5_i32, 5_u128);
    check(&backend, "text".to_owned(), vec![0_u8, 1, 2]);
    check(&backend, vec![7_u8], "x".repeat(3 << 20));
    check(&backend, Route { from: "JFK".to_owned(), to: None }, BTreeMap::from([(1_u8, vec!['a'])]));
}

/// A cut fixes what the snapshot holds.
pub fn a_cut_is_the_state_at_the_call<B: StateBackend>(make: impl Fn() -> B) {
    for count in [0, 1, 50, 30_000] {
        let backend = make();
        let mut table = numbers(&backend, count);
        let blocks = snapshot(&mut table);
        assert_eq!(contents(&backend, &blocks, count), counted(count), "{count} keys");
    }
}

/// Whatever `change` does at every step of the sweep, the snapshot holds the state of the cut, and the table what was
/// done to it.
fn undisturbed<B: StateBackend>(make: impl Fn() -> B, mut change: impl FnMut(&mut Table<u64, u64>, u64)) {
    const KEYS: u64 = 15_000;
    for budget in [100, 5_000, 100_000] {
        let backend = make();
        let mut table = numbers(&backend, KEYS);
        let mut expected = numbers(&backend, KEYS);
        table.cut();
        let (mut blocks, mut at) = (Vec::new(), 0);
        loop {
            // Keys near and far from where the sweep is.
            for _ in 0..25 {
                at += 1;
                let key = at * 7919 % KEYS;
                change(&mut table, key);
                change(&mut expected, key);
            }
            if step(&mut table, budget, &mut blocks) == SweepProgress::Done {
                break;
            }
        }
        assert_eq!(contents(&backend, &blocks, KEYS), counted(KEYS), "steps of {budget} bytes");
        assert_eq!(table.len(), expected.len());
        for key in 0..10 * KEYS {
            assert_eq!(table.get(hash(&key), &key), expected.get(hash(&key), &key), "{key}, steps of {budget} bytes");
        }
    }
}

/// Later inserts do not change the snapshot.
pub fn inserts_during_the_sweep_are_left_out<B: StateBackend>(make: impl Fn() -> B) {
    undisturbed(make, |table, key| {
        put(table, key + 20_000, key);
    });
}

/// Later changes do not change the snapshot.
pub fn changes_during_the_sweep_do_not_show<B: StateBackend>(make: impl Fn() -> B) {
    undisturbed(make, |table, key| {
        *table.get_or_insert_with(hash(&key), &key, || 0).expect("a number can be encoded") += 1;
        put(table, key, 5);
    });
}

/// Later removals do not change the snapshot, not even when the key comes back.
pub fn removals_during_the_sweep_do_not_show<B: StateBackend>(make: impl Fn() -> B) {
    undisturbed(make, |table, key| {
        remove(table, &key);
        if key % 3 == 0 {
            put(table, key, 9);
        }
    });
}

/// The table may grow by a multiple during the sweep.
pub fn growth_during_the_sweep_does_not_show<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut table = numbers(&backend, 5_000);
    table.cut();
    let mut blocks = Vec::new();
    for key in 5_000..40_000 {
        put(&mut table, key, key);
        put(&mut table, key % 5_000, 0);
        if key % 100 == 0 {
            step(&mut table, 50, &mut blocks);
        }
    }
    blocks.extend(sweep(&mut table, 1000));
    assert_eq!(contents(&backend, &blocks, 40_000), counted(5_000));
    assert_eq!(table.len(), 40_000);
}

/// A cut takes no time that grows with the state: it keeps nothing until something changes.
pub fn a_cut_takes_no_time_that_grows_with_the_state<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 30_000);
    let memory = table.memory_bytes();
    table.cut();
    assert_eq!((table.memory_bytes(), table.undo_bytes()), (memory, 0), "nothing was copied");
}

/// A second cut comes only after the sweep of the first has ended or was aborted.
pub fn a_second_cut_waits_for_the_end_of_the_sweep<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut table = numbers(&backend, 1_000);
    assert!(!table.sweeping());
    table.cut();
    assert!(table.sweeping());
    assert!(catch_unwind(AssertUnwindSafe(|| table.cut())).is_err(), "a second cut is our caller's bug");
    sweep(&mut table, 1_000);
    assert!(!table.sweeping());
    put(&mut table, 0, 77);
    let blocks = snapshot(&mut table);
    assert_eq!(contents(&backend, &blocks, 1_000)[&0], 77, "the second cut is the state at its own call");
}

/// Without a cut there is nothing to emit.
pub fn a_sweep_without_a_cut_emits_nothing<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 10);
    let mut blocks = Vec::new();
    assert_eq!(step(&mut table, 1_000, &mut blocks), SweepProgress::Done);
    snapshot(&mut table);
    assert_eq!(step(&mut table, 1_000, &mut blocks), SweepProgress::Done);
    assert!(blocks.is_empty());
}

/// A sweep emits its blocks in key-group order, whatever changes meanwhile.
pub fn blocks_come_in_key_group_order<B: StateBackend>(make: impl Fn() -> B) {
    let mut table: Table<u64, String> = make().table(spec(0, 1));
    for key in 0..8_000 {
        put(&mut table, key, "x".repeat(500));
    }
    table.cut();
    let (mut blocks, mut key) = (Vec::new(), 0);
    while step(&mut table, 20_000, &mut blocks) == SweepProgress::More {
        for _ in 0..50 {
            key = (key + 7919) % 8_000;
            put(&mut table, key, String::new());
        }
    }
    assert!(blocks.len() > 3, "{} blocks", blocks.len());
    assert!(blocks.iter().all(|block| block.groups.first <= block.groups.last));
    assert!(blocks.windows(2).all(|pair| pair[0].groups.last <= pair[1].groups.first));
}

/// A step of the sweep emits about what its budget allows, and each step something.
pub fn a_sweep_keeps_near_its_budget<B: StateBackend>(make: impl Fn() -> B) {
    let mut table: Table<u64, Vec<u8>> = make().table(spec(0, 1));
    for key in 0..3_000 {
        put(&mut table, key, vec![1; 1_000]);
    }
    table.cut();
    let (mut steps, mut blocks) = (1, Vec::new());
    while step(&mut table, 10_000, &mut blocks) == SweepProgress::More {
        steps += 1;
    }
    let bytes: usize = blocks.iter().map(|block| block.payload.len()).sum();
    assert!((bytes / 12_000..=bytes / 9_000).contains(&steps), "{steps} steps for {bytes} bytes");
}

/// What changes since the cut cost is seen, and is 0 after the sweep.
pub fn the_cost_of_changes_is_seen<B: StateBackend>(make: impl Fn() -> B) {
    let mut table: Table<u64, Vec<u8>> = make().table(spec(0, 1));
    for key in 0..100 {
        put(&mut table, key, vec![1; 1_000]);
    }
    assert_eq!(table.undo_bytes(), 0);
    table.cut();
    put(&mut table, 1_000, vec![1; 1_000]);
    assert_eq!(table.undo_bytes(), 0, "what came after the cut need not be kept");
    put(&mut table, 0, Vec::new());
    put(&mut table, 0, vec![2; 5_000]);
    let once = table.undo_bytes();
    assert!((1_000..1_100).contains(&once), "{once} bytes for one entry that changed twice");
    remove(&mut table, &1);
    assert_eq!(table.undo_bytes(), 2 * once);
    sweep(&mut table, 10_000);
    assert_eq!(table.undo_bytes(), 0);
}

/// An abort leaves the state as it is, and another cut can follow.
pub fn an_abort_leaves_the_state_as_it_is<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut table = numbers(&backend, 10_000);
    table.cut();
    let mut blocks = Vec::new();
    step(&mut table, 20_000, &mut blocks);
    for key in 0..10_000 {
        put(&mut table, key, key + 1);
    }
    table.abort();
    assert!(!table.sweeping());
    assert_eq!(table.undo_bytes(), 0);
    let expected: BTreeMap<u64, u64> = (0..10_000).map(|key| (key, key + 1)).collect();
    let blocks = snapshot(&mut table);
    assert_eq!(contents(&backend, &blocks, 10_000), expected);
}

/// A snapshot restores into any parallelism: each key comes to the one subtask that owns it.
pub fn a_snapshot_restores_into_any_parallelism<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    const KEYS: u64 = 3_000;
    for before in [1, 2, MAX] {
        let mut blocks = Vec::new();
        for subtask in 0..before {
            let mut table: Table<u64, u64> = backend.table(spec(subtask, before));
            for key in (0..KEYS).filter(|key| spec(subtask, before).key_groups.contains(group(key))) {
                put(&mut table, key, key);
            }
            blocks.extend(snapshot(&mut table));
        }
        for after in 1..=MAX {
            let mut total = 0;
            for subtask in 0..after {
                let mut table: Table<u64, u64> = backend.table(spec(subtask, after));
                table.reserve(KEYS / u64::from(after));
                total += restore(&mut table, &blocks);
                for key in 0..KEYS {
                    let owned = group(&key).owner(max_parallelism(), after) == subtask;
                    assert_eq!(table.get(hash(&key), &key), owned.then_some(&key), "{key}, {before} to {after}");
                }
            }
            assert_eq!(total, KEYS, "{before} to {after}");
        }
    }
}

/// A restore takes only the key groups that it was asked for.
pub fn a_restore_takes_only_the_groups_asked_for<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let blocks = snapshot(&mut numbers(&backend, 1_000));
    let groups = KeyGroupRange { first: KeyGroup(3), last: KeyGroup(5) };
    let mut table: Table<u64, u64> = backend.table(spec(0, 1));
    for block in &blocks {
        table.restore(block, groups).expect("the block is sound");
    }
    for key in 0..1_000 {
        assert_eq!(table.get(hash(&key), &key).is_some(), groups.contains(group(&key)), "{key}");
    }
}

/// A restore during a sweep is refused.
pub fn a_restore_during_a_sweep_is_refused<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let blocks = snapshot(&mut numbers(&backend, 10));
    let mut table: Table<u64, u64> = backend.table(spec(0, 1));
    table.cut();
    let refused = table.restore(&blocks[0], max_parallelism().all());
    assert!(matches!(refused, Err(StateError::Sweeping { .. })), "{refused:?}");
    assert_eq!(table.len(), 0);
}

/// A damaged block is refused.
pub fn a_damaged_block_is_refused<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let good = snapshot(&mut numbers(&backend, 10)).remove(0);
    let all = max_parallelism().all();
    for length in 0..good.payload.len() {
        let mut block = good.clone();
        block.payload.truncate(length);
        let mut table: Table<u64, u64> = backend.table(spec(0, 1));
        assert!(table.restore(&block, all).is_err(), "cut at {length}");
    }
    let mut table: Table<u64, u32> = backend.table(spec(0, 1));
    assert!(table.restore(&good, all).is_err(), "values of another type");
}

/// The same block twice is refused.
pub fn the_same_block_twice_is_refused<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let blocks = snapshot(&mut numbers(&backend, 10));
    let mut table: Table<u64, u64> = backend.table(spec(0, 1));
    restore(&mut table, &blocks);
    assert!(matches!(table.restore(&blocks[0], max_parallelism().all()), Err(StateError::Damaged { .. })));
}

/// Timers fire in the order of (time, encoded key), and not before the watermark.
pub fn timers_fire_in_order_of_time_and_key<B: StateBackend>(make: impl Fn() -> B) {
    let mut timers: Timers<u64> = make().timers(spec(0, 1));
    for (key, time) in [(300, 5), (2, 5), (9, -3), (1, i64::MIN), (7, 6), (1, i64::MAX), (2, 4)] {
        assert!(register(&mut timers, key, time));
    }
    assert_eq!(timers.next_due(), Some(Timestamp::MIN));
    assert_eq!(fired(&mut timers, 5), [(i64::MIN, 1), (-3, 9), (4, 2), (5, 2), (5, 300)]);
    assert_eq!(timers.next_due(), Some(Timestamp(6)));
    assert_eq!(fired(&mut timers, 5), []);
    assert_eq!(fired(&mut timers, i64::MAX), [(6, 7), (i64::MAX, 1)]);
    assert_eq!((timers.next_due(), timers.len()), (None, 0));
}

/// A timer fires once, however often it was registered.
pub fn a_timer_fires_once_however_often_registered<B: StateBackend>(make: impl Fn() -> B) {
    let mut timers: Timers<u64> = make().timers(spec(0, 1));
    assert!(register(&mut timers, 1, 10));
    assert!(!register(&mut timers, 1, 10));
    assert_eq!(timers.len(), 1);
    assert_eq!(fired(&mut timers, 10), [(10, 1)]);
    assert!(register(&mut timers, 1, 10), "after it has fired it can be set again");
}

/// A deleted timer does not fire, others of its key and of its time do.
pub fn a_deleted_timer_does_not_fire<B: StateBackend>(make: impl Fn() -> B) {
    let mut timers: Timers<u64> = make().timers(spec(0, 1));
    for (key, time) in [(1, 10), (1, 11), (2, 10)] {
        register(&mut timers, key, time);
    }
    assert_eq!(timers.delete(hash(&1_u64), &1, Timestamp(10)).ok(), Some(true));
    assert_eq!(timers.delete(hash(&1_u64), &1, Timestamp(10)).ok(), Some(false));
    assert_eq!(fired(&mut timers, 99), [(10, 2), (11, 1)]);
}

/// A timer that is set while others fire takes its place among them.
pub fn a_timer_set_while_firing_takes_its_place<B: StateBackend>(make: impl Fn() -> B) {
    let mut timers: Timers<u64> = make().timers(spec(0, 1));
    for key in [1, 5] {
        register(&mut timers, key, 10);
    }
    let first = timers.pop_due(Timestamp(10)).expect("no tier fails");
    assert_eq!(first, Some((Timestamp(10), hash(&1_u64), 1)));
    for (key, time) in [(3, 10), (4, 2), (1, 11)] {
        register(&mut timers, key, time);
    }
    assert_eq!(fired(&mut timers, 10), [(2, 4), (10, 3), (10, 5)]);
}

/// A snapshot of timers holds those that were set at the cut.
pub fn a_snapshot_holds_the_timers_set_at_the_cut<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut timers: Timers<u64> = backend.timers(spec(0, 1));
    for key in 0..3_000 {
        register(&mut timers, key, (key % 10) as i64);
    }
    // All timers of one key share its hash.
    for time in 100..6_100 {
        register(&mut timers, 1, time);
    }
    timers.cut();
    let (mut blocks, mut key) = (Vec::new(), 3_000);
    while step(&mut timers, 1_000, &mut blocks) == SweepProgress::More {
        timers.pop_due(Timestamp(5)).expect("no tier fails");
        register(&mut timers, key, 7);
        let _ = timers.delete(hash(&1_u64), &1, Timestamp(key as i64));
        key += 1;
    }
    let mut restored: Timers<u64> = backend.timers(spec(0, 1));
    assert_eq!(restore(&mut restored, &blocks), 9_000);
    let mut expected: Vec<(i64, u64)> = (0..3_000).map(|key| ((key % 10) as i64, key)).collect();
    expected.sort_unstable();
    expected.extend((100..6_100).map(|time| (time, 1)));
    assert_eq!(fired(&mut restored, i64::MAX), expected);
}

/// Timers restore into any parallelism, each to the subtask that owns its key.
pub fn timers_restore_into_any_parallelism<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut timers: Timers<u64> = backend.timers(spec(0, 1));
    for key in 0..500 {
        register(&mut timers, key, 1);
        register(&mut timers, key, 2);
    }
    let blocks = snapshot(&mut timers);
    for parallelism in 1..=MAX {
        let mut all = Vec::new();
        for subtask in 0..parallelism {
            let mut part: Timers<u64> = backend.timers(spec(subtask, parallelism));
            restore(&mut part, &blocks);
            let fired = fired(&mut part, 9);
            assert!(fired.iter().all(|(_, key)| spec(subtask, parallelism).key_groups.contains(group(key))));
            all.extend(fired);
        }
        all.sort_unstable();
        assert_eq!(all, fired(&mut clone_of(&backend, &blocks), 9), "parallelism {parallelism}");
    }
}

fn clone_of<B: StateBackend>(backend: &B, blocks: &[cutwater_state::Block]) -> Timers<u64> {
    let mut timers = backend.timers(spec(0, 1));
    restore(&mut timers, blocks);
    timers
}

/// The header tells tables of other types and kinds apart.
pub fn the_header_tells_types_apart<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let numbers: Table<u64, u64> = backend.table(spec(0, 1));
    let same: Table<u64, u64> = backend.table(spec(0, 2));
    let signed: Table<u64, i64> = backend.table(spec(0, 1));
    let timers: Timers<u64> = backend.timers(spec(0, 1));
    assert!(numbers.header().check(&same.header()).is_ok());
    for other in [signed.header(), timers.header()] {
        assert!(matches!(numbers.header().check(&other), Err(StateError::Schema { .. })), "{other:?}");
    }
}

/// What is not among the capabilities is not there: a backend without a cold tier holds everything in memory.
pub fn undeclared_capabilities_are_absent<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    assert!(!backend.name().is_empty());
    if !backend.capabilities().cold_tier {
        let table = numbers(&backend, 10_000);
        table.prefetch((0..10_000_u64).map(|key| hash(&key)));
        assert!(table.memory_bytes() >= 10_000 * 16);
    }
}
