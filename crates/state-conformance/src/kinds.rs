//! The sentences about maps, lists, accumulators and timers of processing time.

use std::collections::BTreeMap;

use cutwater_state::{
    Accumulator, Block, ListTable, MapTable, Snapshotable, StateBackend, StateBackendExt, StateError, StateKind,
    SweepProgress, Timers,
};

use crate::harness::{MAX, fired, hash, register, restore, snapshot, spec, step, sweep};

/// Timers of processing time fire, restore and are snapshotted as those of event time, and are told apart from them.
pub fn timers_of_processing_time_do_the_same<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut timers: Timers<u64> = backend.processing_timers(spec(0, 1));
    for (key, time) in [(3, 5), (2, 5), (9, 1)] {
        assert!(register(&mut timers, key, time));
        assert!(!register(&mut timers, key, time));
    }
    let blocks = snapshot(&mut timers);
    assert_eq!(fired(&mut timers, 5), [(1, 9), (5, 2), (5, 3)]);
    let mut restored: Timers<u64> = backend.processing_timers(spec(0, 1));
    assert_eq!(restore(&mut restored, &blocks), 3);
    assert_eq!(fired(&mut restored, 4), [(1, 9)]);
    let events: Timers<u64> = backend.timers(spec(0, 1));
    assert!(matches!(events.header().check(&timers.header()), Err(StateError::Schema { .. })));
}

type Maps = MapTable<u64, String, u64>;

fn entries(maps: &Maps, key: u64) -> Vec<(String, u64)> {
    maps.iter(hash(&key), &key).map(|(user, _, value)| (user.clone(), *value)).collect()
}

/// A map keeps one value for each user key, in the order of the encoded user keys.
pub fn a_map_keeps_its_entries_by_user_key<B: StateBackend>(make: impl Fn() -> B) {
    let mut maps: Maps = make().maps(spec(0, 1));
    let mut model: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
    for n in 0..2_000_u64 {
        let (key, user) = (n % 7, format!("user {}", n % 90));
        let before = maps.insert(hash(&key), &key, user.clone(), None, n).ok();
        assert_eq!(before, Some(model.entry(key).or_default().insert(user, n)));
    }
    for (key, users) in &mut model {
        let gone = "user 11".to_owned();
        assert_eq!(maps.remove(hash(key), key, &gone).ok(), Some(users.remove(&gone)));
        assert_eq!(maps.get(hash(key), key, &gone), None);
        let kept = "user 12".to_owned();
        assert_eq!(maps.get(hash(key), key, &kept).map(|(_, value)| *value), users.get(&kept).copied());
        assert_eq!(entries(&maps, *key), users.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(maps.entries(hash(key), key), users.len());
    }
}

/// A map that is cleared is gone, those of other keys stay.
pub fn a_cleared_map_is_gone_and_others_stay<B: StateBackend>(make: impl Fn() -> B) {
    let mut maps: Maps = make().maps(spec(0, 1));
    for key in 0..50 {
        for user in ["a", "b"] {
            maps.insert(hash(&key), &key, user.to_owned(), None, key).expect("plain data");
        }
    }
    maps.clear(hash(&7_u64), &7).expect("plain data");
    for key in 0..50 {
        let expected = if key == 7 { vec![] } else { vec![("a".to_owned(), key), ("b".to_owned(), key)] };
        assert_eq!(entries(&maps, key), expected);
    }
    assert_eq!(maps.len(), 98);
}

fn elements(lists: &ListTable<u64, u64>, key: u64) -> Vec<u64> {
    lists.iter(hash(&key), &key).map(|(_, element)| *element).collect()
}

/// A list keeps the order in which was appended, also over a restore and appends after it.
pub fn a_list_keeps_the_order_of_its_elements<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut lists: ListTable<u64, u64> = backend.lists(spec(0, 1));
    for n in 0..1_000 {
        lists.push(hash(&(n % 3)), &(n % 3), None, n).expect("plain data");
    }
    let blocks = snapshot(&mut lists);
    let mut restored: ListTable<u64, u64> = backend.lists(spec(0, 1));
    restore(&mut restored, &blocks);
    restored.push(hash(&1_u64), &1, None, 5).expect("plain data");
    let mut expected: Vec<_> = (0..1_000).filter(|n| n % 3 == 1).collect();
    assert_eq!(elements(&lists, 1), expected);
    expected.push(5);
    assert_eq!(elements(&restored, 1), expected);
    restored.clear(hash(&1_u64), &1).expect("plain data");
    assert_eq!((elements(&restored, 1).len(), elements(&restored, 2).len()), (0, 333));
}

/// An append during a sweep keeps a chunk of the list, not the list.
pub fn an_append_does_not_copy_the_list<B: StateBackend>(make: impl Fn() -> B) {
    let mut lists: ListTable<u64, u64> = make().lists(spec(0, 1));
    for n in 0..50_000 {
        lists.push(hash(&1_u64), &1, None, n).expect("plain data");
    }
    lists.cut();
    lists.push(hash(&1_u64), &1, None, 0).expect("plain data");
    assert!(lists.undo_bytes() < 1_000, "{} bytes", lists.undo_bytes());
}

/// An accumulator, whatever its kind, is one value for each key.
pub fn an_accumulator_is_one_value_for_each_key<B: StateBackend>(make: impl Fn() -> B) {
    for kind in [StateKind::NamedValue, StateKind::Reducing, StateKind::Aggregating] {
        let mut sums: Accumulator<u64, u64> = make().accumulators(spec(0, 1), kind);
        for n in 0..100_u64 {
            let key = n % 10;
            match sums.get_mut(hash(&key), &key, &(), None).expect("plain data") {
                Some(sum) => *sum += n,
                None => drop(sums.insert(hash(&key), &key, (), None, n).expect("plain data")),
            }
        }
        assert_eq!(sums.get(hash(&3_u64), &3, &()), Some((None, &(3 * 10 + 450))));
        assert_eq!((sums.len(), sums.entries(hash(&3_u64), &3)), (10, 1));
        sums.clear(hash(&3_u64), &3).expect("plain data");
        assert_eq!((sums.len(), sums.get(hash(&3_u64), &3, &())), (9, None));
        assert_eq!(sums.header().kind, kind);
    }
}

/// One state of each kind over the keys `0..40`, with something to tell apart in each.
pub(crate) struct All {
    pub(crate) maps: Maps,
    pub(crate) lists: ListTable<u64, u64>,
    pub(crate) named: Accumulator<u64, u64>,
    reduced: Accumulator<u64, u64>,
    aggregated: Accumulator<u64, (u64, u64)>,
    pub(crate) timers: Timers<u64>,
}

pub(crate) type Found = BTreeMap<u64, (Vec<(String, u64)>, Vec<u64>, u64, u64, (u64, u64))>;

impl All {
    pub(crate) fn empty<B: StateBackend>(backend: &B, subtask: u32, parallelism: u32) -> Self {
        let spec = || spec(subtask, parallelism);
        Self {
            maps: backend.maps(spec()),
            lists: backend.lists(spec()),
            named: backend.accumulators(spec(), StateKind::NamedValue),
            reduced: backend.accumulators(spec(), StateKind::Reducing),
            aggregated: backend.accumulators(spec(), StateKind::Aggregating),
            timers: backend.processing_timers(spec()),
        }
    }

    pub(crate) fn fill(&mut self, round: u64) {
        for key in 0..40_u64 {
            let hashed = hash(&key);
            for user in 0..=key % 5 {
                self.maps.insert(hashed, &key, format!("{user}"), None, user + round).expect("plain data");
                self.lists.push(hashed, &key, None, user * 10 + round).expect("plain data");
            }
            self.named.insert(hashed, &key, (), None, key + round).expect("plain data");
            self.reduced.insert(hashed, &key, (), None, key * 2 + round).expect("plain data");
            self.aggregated.insert(hashed, &key, (), None, (key, round)).expect("plain data");
            register(&mut self.timers, key, round as i64);
        }
    }

    pub(crate) fn states(&mut self) -> [&mut dyn Snapshotable; 6] {
        [&mut self.maps, &mut self.lists, &mut self.named, &mut self.reduced, &mut self.aggregated, &mut self.timers]
    }

    pub(crate) fn found(&mut self) -> Found {
        let mut found = Found::new();
        for key in 0..40_u64 {
            let hashed = hash(&key);
            let Some(named) = self.named.get(hashed, &key, &()).map(|(_, value)| *value) else { continue };
            let reduced = self.reduced.get(hashed, &key, &()).map(|(_, value)| *value).expect("with the named one");
            let pair = self.aggregated.get(hashed, &key, &()).map(|(_, value)| *value).expect("with the named one");
            found.insert(key, (entries(&self.maps, key), elements(&self.lists, key), named, reduced, pair));
        }
        found
    }
}

/// The snapshot of any kind is its state at the cut, whatever is written while it is swept.
pub fn snapshots_of_every_kind_are_the_state_at_the_cut<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut all = All::empty(&backend, 0, 1);
    all.fill(0);
    let expected = all.found();
    for state in all.states() {
        state.cut();
    }
    let mut blocks: [Vec<Block>; 6] = Default::default();
    let mut round = 1;
    let mut more = [true; 6];
    while more.contains(&true) {
        for ((state, blocks), more) in all.states().into_iter().zip(&mut blocks).zip(&mut more) {
            *more = step(state, 60, blocks) == SweepProgress::More;
        }
        all.fill(round);
        round += 1;
    }
    let mut restored = All::empty(&backend, 0, 1);
    for (state, blocks) in restored.states().into_iter().zip(&blocks) {
        restore(state, blocks);
    }
    assert_eq!(restored.found(), expected);
    assert_eq!(fired(&mut restored.timers, i64::MAX).len(), 40, "those of the first round");
    assert_ne!(all.found(), expected);
}

/// State of any kind that subtasks of one parallelism wrote restores into any other, each key to its owner.
pub fn every_kind_restores_into_any_parallelism<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut whole = All::empty(&backend, 0, 1);
    whole.fill(3);
    let expected = whole.found();
    let first: Vec<Vec<Block>> = whole.states().into_iter().map(snapshot).collect();
    for (from, to) in (1..=MAX).flat_map(|from| [1, 2, 5, MAX].map(|to| (from, to))) {
        let mut parts: Vec<Vec<Vec<Block>>> = Vec::new();
        for subtask in 0..from {
            let mut part = All::empty(&backend, subtask, from);
            for (state, blocks) in part.states().into_iter().zip(&first) {
                restore(state, blocks);
            }
            parts.push(part.states().into_iter().map(snapshot).collect());
        }
        let (mut found, mut timers) = (Found::new(), 0);
        for subtask in 0..to {
            let mut part = All::empty(&backend, subtask, to);
            for blocks in &parts {
                for (state, blocks) in part.states().into_iter().zip(blocks) {
                    restore(state, blocks);
                }
            }
            for (key, what) in part.found() {
                assert_eq!(found.insert(key, what), None, "{key} has two owners");
            }
            timers += fired(&mut part.timers, i64::MAX).len();
        }
        assert_eq!((found, timers), (expected.clone(), 40), "from {from} to {to}");
    }
}

/// A block of any kind that was cut short is refused, and one with a changed byte is refused or restored, without a panic.
pub fn a_damaged_block_of_any_kind_is_no_panic<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut all = All::empty(&backend, 0, 1);
    all.fill(3);
    let groups = crate::harness::max_parallelism().all();
    let blocks: Vec<Vec<Block>> = all.states().into_iter().map(snapshot).collect();
    for (place, blocks) in blocks.iter().enumerate() {
        let good = &blocks[0];
        for at in 0..good.payload.len() {
            let mut short = good.clone();
            short.payload.truncate(at);
            let mut target = All::empty(&backend, 0, 1);
            assert!(target.states()[place].restore(&short, groups).is_err(), "state {place}, cut at {at}");
            for bit in [1, 0x80] {
                let mut flipped = good.clone();
                flipped.payload[at] ^= bit;
                // Half of the key groups, so that a changed key may be one of another subtask.
                let mut target = All::empty(&backend, 0, 2);
                let _ = target.states()[place].restore(&flipped, groups);
            }
        }
    }
}

/// What was stamped at or before the horizon is left out of snapshots, also if it is overwritten meanwhile; what has no
/// stamp stays.
pub fn what_has_expired_is_left_out_of_snapshots<B: StateBackend>(make: impl Fn() -> B) {
    let backend = make();
    let mut values: Accumulator<u64, u64> = backend.accumulators(spec(0, 1), StateKind::NamedValue);
    for key in 0..300_u64 {
        let stamp = [None, Some(10), Some(11)][(key % 3) as usize];
        values.insert(hash(&key), &key, (), stamp, key).expect("plain data");
    }
    values.set_horizon(10);
    values.cut();
    for key in 0..300_u64 {
        values.insert(hash(&key), &key, (), Some(50), 1_000).expect("plain data");
    }
    let blocks = sweep(&mut values, 500);
    let mut restored: Accumulator<u64, u64> = backend.accumulators(spec(0, 1), StateKind::NamedValue);
    assert_eq!(restore(&mut restored, &blocks), 200);
    for key in 0..300_u64 {
        let expected = [Some((None, key)), None, Some((Some(11), key))][(key % 3) as usize];
        assert_eq!(restored.get(hash(&key), &key, &()).map(|(stamp, value)| (stamp, *value)), expected);
    }
    assert_eq!(values.len(), 300, "the state itself keeps what has expired until it is cleaned");
}

/// Cleaning visits a bounded number of slots a step and, step by step, removes all that has expired.
pub fn cleaning_removes_what_has_expired_in_steps<B: StateBackend>(make: impl Fn() -> B) {
    let mut maps: Maps = make().maps(spec(0, 1));
    for key in 0..1_000 {
        for (user, stamp) in [("old", Some(1)), ("new", Some(9)), ("unstamped", None)] {
            maps.insert(hash(&key), &key, user.to_owned(), stamp, key).expect("plain data");
        }
    }
    let mut before = maps.len();
    for _ in 0..1_000 {
        let removed = maps.clean(5, 10, 64).expect("plain data");
        assert!(removed <= 64);
        assert_eq!(maps.len(), before - removed);
        before = maps.len();
    }
    assert_eq!(before, 2_000);
    let key = 17_u64;
    assert_eq!(maps.get(hash(&key), &key, &"unstamped".to_owned()), Some((Some(10), &key)), "its time begins now");
    assert_eq!(entries(&maps, key), [("new".to_owned(), key), ("unstamped".to_owned(), key)]);
}
