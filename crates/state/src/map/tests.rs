use std::collections::BTreeMap;

use cutwater_core::{KeyHash, MaxParallelism, OperatorUid};
use proptest::prelude::*;

use crate::{Block, ListTable, MapTable, Snapshotable, StateKind, SweepProgress, TableSpec, hash_key};

fn spec(subtask: u32, parallelism: u32) -> TableSpec {
    let max_parallelism = MaxParallelism::new(16).unwrap();
    TableSpec {
        operator: OperatorUid::new("op").unwrap(),
        name: "state".to_owned(),
        max_parallelism,
        key_groups: max_parallelism.range_of(subtask, parallelism),
    }
}

fn hash(key: u32) -> KeyHash {
    hash_key(&key, &mut Vec::new())
}

fn sweep_all(state: &mut dyn Snapshotable) -> Vec<Block> {
    let mut blocks = Vec::new();
    while state.sweep(5_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    blocks
}

type Maps = MapTable<u32, String, u64>;
type Model = BTreeMap<(u32, String), (Option<i64>, u64)>;

/// What subtasks of this parallelism hold after they have restored the blocks.
fn restored(blocks: &[Block], parallelism: u32) -> Model {
    let mut model = Model::new();
    let all = MaxParallelism::new(16).unwrap().all();
    for subtask in 0..parallelism {
        let mut maps = Maps::new(spec(subtask, parallelism));
        for block in blocks {
            maps.restore(block, all).unwrap();
        }
        model.extend(contents(&maps));
    }
    model
}

fn contents(maps: &Maps) -> Model {
    let entries = (0..KEYS).flat_map(|key| {
        let of = maps.iter(hash(key), &key).map(move |(user, stamp, value)| ((key, user.clone()), (stamp, *value)));
        of.collect::<Vec<_>>()
    });
    let model: Model = entries.collect();
    assert_eq!(maps.len(), model.len() as u64, "the index has them all");
    model
}

const KEYS: u32 = 12;

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u32, Option<i64>),
    /// Many user keys of one key, so that they need a tree and the shard grows.
    Fill(u32, u32),
    Change(u32, u32),
    Remove(u32, u32),
    Clear(u32),
    Clean(i64, usize),
    Cut(i64),
    Abort,
    Sweep(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let stamp = proptest::option::of(0..100_i64);
    prop_oneof![
        6 => (0..KEYS, 0..40_u32, stamp).prop_map(|(key, user, stamp)| Step::Insert(key, user, stamp)),
        2 => (0..KEYS, 1..2_000_u32).prop_map(|(key, count)| Step::Fill(key, count)),
        3 => (0..KEYS, 0..40_u32).prop_map(|(key, user)| Step::Change(key, user)),
        3 => (0..KEYS, 0..40_u32).prop_map(|(key, user)| Step::Remove(key, user)),
        1 => (0..KEYS).prop_map(Step::Clear),
        2 => (0..100_i64, 1..5_000_usize).prop_map(|(horizon, slots)| Step::Clean(horizon, slots)),
        3 => (0..100_i64).prop_map(Step::Cut),
        1 => Just(Step::Abort),
        5 => (1..20_000_usize).prop_map(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to the maps, a sweep emits what they were at the cut without what had expired, and that restores
    /// into any parallelism.
    #[test]
    fn a_sweep_of_maps_emits_the_state_of_its_cut(
        steps in proptest::collection::vec(any_step(), 1..60),
        parallelism in 1..=16_u32,
    ) {
        let mut maps = Maps::new(spec(0, 1));
        let mut model = Model::new();
        let mut cut: Option<(Model, Vec<Block>)> = None;
        for (value, step) in (0_u64..).zip(steps) {
            match step {
                Step::Insert(key, user, stamp) => {
                    let user = format!("user {user}");
                    let before = maps.insert(hash(key), &key, user.clone(), stamp, value).unwrap();
                    let expected = model.insert((key, user), (stamp, value));
                    prop_assert_eq!(before, expected.map(|(_, value)| value));
                }
                Step::Fill(key, count) => {
                    for user in 0..count {
                        let user = format!("many {user}");
                        maps.insert(hash(key), &key, user.clone(), Some(50), value).unwrap();
                        model.insert((key, user), (Some(50), value));
                    }
                }
                Step::Change(key, user) => {
                    let user = format!("user {user}");
                    let there = maps.get_mut(hash(key), &key, &user, None).unwrap();
                    let expected = model.get_mut(&(key, user));
                    prop_assert_eq!(there.is_some(), expected.is_some());
                    if let (Some(there), Some(expected)) = (there, expected) {
                        *there += 1_000;
                        expected.1 += 1_000;
                    }
                }
                Step::Remove(key, user) => {
                    let user = format!("user {user}");
                    let removed = maps.remove(hash(key), &key, &user).unwrap();
                    prop_assert_eq!(removed, model.remove(&(key, user)).map(|(_, value)| value));
                }
                Step::Clear(key) => {
                    maps.clear(hash(key), &key).unwrap();
                    model.retain(|(other, _), _| *other != key);
                    prop_assert_eq!(maps.entries(hash(key), &key), 0);
                }
                Step::Clean(horizon, slots) => {
                    let removed = maps.clean(horizon, 100, slots).unwrap();
                    let now = contents(&maps);
                    prop_assert_eq!(model.len() - now.len(), removed as usize);
                    for (at, (stamp, value)) in model {
                        match now.get(&at) {
                            Some(left) => prop_assert!(*left == (stamp, value) || (stamp.is_none() && left.0 == Some(100))),
                            None => prop_assert!(stamp.is_some_and(|stamp| stamp <= horizon)),
                        }
                    }
                    model = now;
                }
                Step::Cut(horizon) if cut.is_none() => {
                    maps.set_horizon(horizon);
                    maps.cut();
                    let mut expected = model.clone();
                    expected.retain(|_, (stamp, _)| stamp.is_none_or(|stamp| stamp > horizon));
                    cut = Some((expected, Vec::new()));
                }
                Step::Cut(_) => {}
                Step::Abort => {
                    maps.abort();
                    cut = None;
                }
                Step::Sweep(budget) => {
                    if let Some((expected, mut blocks)) = cut.take() {
                        match maps.sweep(budget, &mut |block| blocks.push(block)).unwrap() {
                            SweepProgress::More => cut = Some((expected, blocks)),
                            SweepProgress::Done => prop_assert_eq!(restored(&blocks, parallelism), expected),
                        }
                    }
                }
            }
            prop_assert_eq!(maps.len(), model.len() as u64);
        }
        if let Some((expected, mut blocks)) = cut {
            blocks.extend(sweep_all(&mut maps));
            prop_assert_eq!(restored(&blocks, parallelism), expected);
        }
        prop_assert_eq!(contents(&maps), model);
    }

    /// Lists keep their order through pushes, cuts and restores into any parallelism.
    #[test]
    fn a_sweep_of_lists_emits_the_state_of_its_cut(
        pushes in proptest::collection::vec((0..4_u32, proptest::option::of(0..3_i64)), 1..600),
        at in 0..600_usize,
        parallelism in 1..=16_u32,
    ) {
        let mut lists: ListTable<u32, u64> = ListTable::new(spec(0, 1));
        let mut model: BTreeMap<u32, Vec<(Option<i64>, u64)>> = BTreeMap::new();
        let (mut blocks, mut expected) = (Vec::new(), BTreeMap::new());
        let at = at.min(pushes.len() - 1);
        for (value, (key, stamp)) in (0_u64..).zip(pushes) {
            if value == at as u64 {
                lists.cut();
                expected = model.clone();
            }
            lists.push(hash(key), &key, stamp, value).unwrap();
            model.entry(key).or_default().push((stamp, value));
            if value % 7 == 0 {
                let _ = lists.sweep(100, &mut |block| blocks.push(block)).unwrap();
            }
        }
        blocks.extend(sweep_all(&mut lists));
        let all = MaxParallelism::new(16).unwrap().all();
        let mut found = BTreeMap::new();
        for subtask in 0..parallelism {
            let mut part: ListTable<u32, u64> = ListTable::new(spec(subtask, parallelism));
            for block in &blocks {
                part.restore(block, all).unwrap();
            }
            for key in 0..4 {
                let list: Vec<_> = part.iter(hash(key), &key).map(|(stamp, value)| (stamp, *value)).collect();
                if !list.is_empty() {
                    prop_assert_eq!(found.insert(key, list), None);
                }
            }
        }
        prop_assert_eq!(found, expected);
        for (key, list) in model {
            let now: Vec<_> = lists.iter(hash(key), &key).map(|(stamp, value)| (stamp, *value)).collect();
            prop_assert_eq!(now, list);
        }
    }
}

#[test]
fn an_append_during_a_sweep_copies_one_chunk() {
    let mut lists: ListTable<u32, u64> = ListTable::new(spec(0, 1));
    for value in 0..10_000 {
        lists.push(hash(1), &1, None, value).unwrap();
    }
    lists.cut();
    lists.push(hash(1), &1, None, 10_000).unwrap();
    assert!(lists.undo_bytes() <= 64 * 3 + 20, "{} bytes were copied", lists.undo_bytes());
}

#[test]
fn cleaning_visits_all_of_a_table_in_bounded_steps() {
    let mut maps: MapTable<u32, u32, u64> = MapTable::new(spec(0, 1));
    for key in 0..20_000_u32 {
        maps.insert(hash(key), &key, 0, Some(i64::from(key % 2)), 0).unwrap();
    }
    let mut steps = 0;
    while maps.len() > 10_000 {
        let removed = maps.clean(0, 0, 100).unwrap();
        assert!(removed <= 100);
        steps += 1;
        assert!(steps < 2_000, "{} entries are left", maps.len());
    }
    assert_eq!((0..20_000_u32).filter(|key| maps.entries(hash(*key), key) > 0).count(), 10_000);
    assert!((0..20_000).all(|key| key % 2 == 1 || maps.get(hash(key), &key, &0).is_none()));
}

#[test]
fn a_map_of_units_has_one_entry() {
    let mut maps: MapTable<u32, (), u64> = MapTable::new(spec(0, 1));
    maps.insert(hash(5), &5, (), None, 6).unwrap();
    assert_eq!(maps.iter(hash(5), &5).map(|(_, _, value)| *value).collect::<Vec<_>>(), [6]);
    let mut single: super::Accumulator<u32, u64> = MapTable::single(spec(0, 1), StateKind::Reducing);
    single.insert(hash(5), &5, (), None, 6).unwrap();
    single.clear(hash(5), &5).unwrap();
    assert_eq!((single.len(), single.entries(hash(5), &5)), (0, 0));
}
