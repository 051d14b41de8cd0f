//! The sentences about snapshots of what has changed since another.

use cutwater_core::Timestamp;
use cutwater_state::{
    Accumulator, Block, BlockKind, Cut, Snapshotable, StateBackend, StateBackendExt, StateKind, SweepProgress, Table,
};

use crate::harness::{
    MAX, contents, fired, hash, in_order, numbers, put, register, remove, restore, snapshot, spec, step, sweep,
};
use crate::kinds::{All, Found};

/// What a cut since another holds, after all that the other holds, is the state at the later cut, whatever changes
/// while it is swept.
pub fn a_cut_since_another_makes_it_the_later_one<B: StateBackend>(make: impl Fn() -> B) {
    const KEYS: u64 = 9_000;
    for budget in [100, 5_000, 100_000] {
        let backend = make();
        let mut table = numbers(&backend, KEYS);
        table.track_changes();
        let mut files = vec![snapshot(&mut table)];
        let mut base = Cut(1);
        for round in 1..6 {
            let change = |table: &mut Table<u64, u64>, key: u64| match key % 4 {
                0 => drop(remove(table, &(key % KEYS))),
                1 => drop(put(table, key % KEYS, round)),
                2 => *table.get_or_insert_with(hash(&key), &key, || 0).expect("no sweep fails") += 1,
                _ => drop(put(table, 2 * KEYS + round * 100 + key % 100, key)),
            };
            (0..300).for_each(|n| change(&mut table, n * 7 + round * 1_001));
            let expected: Vec<_> = (0..5 * KEYS).map(|key| table.get(hash(&key), &key).copied()).collect();
            let cut = table.cut_since(Some(base));
            let (mut blocks, mut at) = (Vec::new(), 0);
            while step(&mut table, budget, &mut blocks) == SweepProgress::More {
                at += 1;
                (0..3).for_each(|n| change(&mut table, at * 31 + n));
            }
            assert!(blocks.iter().map(|block| block.entries).sum::<u32>() < KEYS as u32 / 4, "only what changed");
            files.push(in_order(blocks));
            let blocks: Vec<Block> = files.iter().flatten().cloned().collect();
            let found = contents(&backend, &blocks, 5 * KEYS);
            for (key, expected) in (0..).zip(expected) {
                assert_eq!(found.get(&key).copied(), expected, "{key} in round {round}, steps of {budget} bytes");
            }
            base = cut;
        }
    }
}

/// Blocks of a cut since another come in key-group order, those of removed entries and those of changed ones each, and the
/// former are restored first.
pub fn blocks_of_changes_come_in_key_group_order<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 5_000);
    table.track_changes();
    for key in 0..2_000 {
        remove(&mut table, &key);
        if key % 2 == 0 {
            put(&mut table, key, 0);
        }
    }
    table.cut_since(Some(Cut::RESTORED));
    let blocks = sweep(&mut table, 300);
    for (kind, entries) in [(BlockKind::Removed, 2_000), (BlockKind::Changed, 1_000), (BlockKind::All, 0)] {
        let of_kind: Vec<_> = blocks.iter().filter(|block| block.kind == kind).collect();
        assert!(of_kind.is_sorted_by(|a, b| a.groups.last <= b.groups.first), "{kind:?}");
        assert_eq!(of_kind.iter().map(|block| block.entries).sum::<u32>(), entries, "{kind:?}");
    }
}

/// A base may be any cut that was not forgotten, one that came to nothing as well as what was restored.
pub fn a_cut_may_be_since_any_that_is_not_forgotten<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let full = snapshot(&mut numbers(&backend, 1_000));
    let mut table: Table<u64, u64> = backend.table(spec(0, 1));
    restore(&mut table, &full);
    assert_eq!(table.changed_since(Cut::RESTORED), None, "nothing is tracked yet");
    table.track_changes();
    let mut cuts = vec![Cut::RESTORED];
    for round in 1..5_u64 {
        put(&mut table, round, 9);
        cuts.push(table.cut());
        if round.is_multiple_of(2) {
            table.abort();
        } else {
            sweep(&mut table, 500);
        }
    }
    for (at, base) in cuts.iter().enumerate() {
        assert!(table.changed_since(*base).is_some_and(|changed| changed >= 4 - at as u64));
        table.cut_since(Some(*base));
        let blocks = sweep(&mut table, 500);
        assert_eq!(blocks.iter().map(|block| u64::from(block.entries)).sum::<u64>(), 4 - at as u64, "since {base:?}");
    }
    table.forget(cuts[2]);
    assert_eq!(
        cuts.iter().map(|cut| table.changed_since(*cut).is_some()).collect::<Vec<_>>(),
        [false, false, true, true, true]
    );
    assert_eq!(table.changed_since(Cut(1_000)), None, "it has not come yet");
}

/// A cut since another takes no time that grows with the state, nor with what has changed.
pub fn a_cut_of_changes_takes_no_time_that_grows<B: StateBackend>(make: impl Fn() -> B) {
    let mut table = numbers(&make(), 30_000);
    table.track_changes();
    for key in 0..10_000 {
        put(&mut table, key, 0);
    }
    let memory = table.memory_bytes();
    table.cut_since(Some(Cut::RESTORED));
    assert_eq!((table.memory_bytes(), table.undo_bytes()), (memory, 0), "nothing was copied");
}

/// States of every kind can be cut since another cut, and restore into any parallelism.
pub fn every_kind_can_be_cut_since_another<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut all = All::empty(&backend, 0, 1);
    all.fill(0);
    all.states().into_iter().for_each(|state| state.track_changes());
    let mut files: [Vec<Block>; 6] = all.states().map(snapshot);
    for round in 1..4 {
        change(&mut all, round);
        let (mut more, mut news) = ([true; 6], [const { Vec::new() }; 6]);
        for state in all.states() {
            state.cut_since(Some(Cut(round)));
        }
        let (expected, timers) = (all.found(), all.timers.len());
        while more.contains(&true) {
            for ((state, blocks), more) in all.states().into_iter().zip(&mut news).zip(&mut more) {
                *more = step(state, 60, blocks) == SweepProgress::More;
            }
            change(&mut all, round + 10); // belongs to the next round
        }
        files.iter_mut().zip(news).for_each(|(blocks, news)| blocks.extend(in_order(news)));
        for parallelism in [1, 2, 5, MAX] {
            let (mut found, mut set) = (Found::new(), 0);
            for subtask in 0..parallelism {
                let mut part = All::empty(&backend, subtask, parallelism);
                for (state, blocks) in part.states().into_iter().zip(&files) {
                    restore(state, blocks);
                }
                found.extend(part.found());
                set += fired(&mut part.timers, i64::MAX).len() as u64;
            }
            assert_eq!((found, set), (expected.clone(), timers), "round {round}, parallelism {parallelism}");
        }
    }
}

/// Changes, adds and removes some of each kind.
fn change(all: &mut All, round: u64) {
    for key in (0..40).filter(|key| key % 5 == round % 5) {
        let hashed = hash(&key);
        all.maps.insert(hashed, &key, "0".to_owned(), None, round).expect("plain data");
        all.maps.insert(hashed, &key, format!("new {round}"), None, round).expect("plain data");
        all.maps.remove(hashed, &key, &format!("{}", key % 5)).expect("plain data");
        if round.is_multiple_of(2) {
            all.lists.clear(hashed, &key).expect("plain data");
        }
        all.lists.push(hashed, &key, None, round).expect("plain data");
        all.named.insert(hashed, &key, (), None, round * 3).expect("plain data");
        register(&mut all.timers, key, 100 + round as i64);
        all.timers.delete(hashed, &key, Timestamp(0)).expect("an integer can be encoded");
    }
    while all.timers.pop_due(Timestamp(99 + round as i64)).expect("no tier fails").is_some() {}
}

/// What has expired is gone in a cut since another, also if the other has it without a stamp.
pub fn what_has_expired_is_gone_in_a_cut_since_another<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut values: Accumulator<u64, u64> = backend.accumulators(spec(0, 1), StateKind::NamedValue);
    for key in 0..300_u64 {
        values.insert(hash(&key), &key, (), None, key).expect("plain data");
    }
    values.track_changes();
    let mut blocks = snapshot(&mut values);
    for key in 0..200_u64 {
        values.get_mut(hash(&key), &key, &(), Some(10)).expect("plain data");
    }
    values.set_horizon(10);
    values.cut_since(Some(Cut(1)));
    for key in 0..100_u64 {
        values.insert(hash(&key), &key, (), Some(50), 1_000).expect("plain data"); // after the cut
    }
    blocks.extend(in_order(sweep(&mut values, 500)));
    let mut restored: Accumulator<u64, u64> = backend.accumulators(spec(0, 1), StateKind::NamedValue);
    restore(&mut restored, &blocks);
    for key in 0..300_u64 {
        let expected = (key >= 200).then_some((None, key));
        assert_eq!(restored.get(hash(&key), &key, &()).map(|(stamp, value)| (stamp, *value)), expected, "{key}");
    }
}

/// What is kept of removed entries is bounded: with too many of them no cut is since one before any more.
pub fn what_is_kept_of_removed_entries_is_bounded<B: StateBackend>(make: impl Fn() -> B) {
    let mut table: Table<u64, u64> = make().table(spec(0, 1));
    table.track_changes();
    for round in 0..5 {
        for key in 0..50_000 {
            put(&mut table, key, round);
        }
        snapshot(&mut table);
        for key in 0..50_000 {
            remove(&mut table, &key);
        }
    }
    assert_eq!(table.changed_since(Cut::RESTORED), None);
    assert!(table.memory_bytes() < 8 << 20, "{} bytes", table.memory_bytes());
    let cut = table.cut();
    assert_eq!(table.changed_since(cut), Some(0));
}
