use std::collections::BTreeMap;

use cutwater_core::{KeyGroupRange, MaxParallelism, OperatorUid};
use proptest::prelude::*;

use crate::block::read_entries;
use crate::{
    Block, BlockKind, Cut, Snapshotable, StateError, SweepProgress, Table, TableSpec, codec_of, decode, hash_key,
};

use super::FULL_SLOTS;

fn spec(max: u32, subtask: u32, parallelism: u32) -> TableSpec {
    let max_parallelism = MaxParallelism::new(max).unwrap();
    TableSpec {
        operator: OperatorUid::new("op").unwrap(),
        name: "state".to_owned(),
        max_parallelism,
        key_groups: max_parallelism.range_of(subtask, parallelism),
    }
}

type Model = BTreeMap<u32, String>;
type Strings = Table<u32, String>;

fn put(table: &mut Strings, key: u32, value: &str) -> Option<String> {
    table.insert(hash_key(&key, &mut Vec::new()), key, value.to_owned()).unwrap()
}

fn remove(table: &mut Strings, key: u32) -> Option<String> {
    table.remove(hash_key(&key, &mut Vec::new()), &key).unwrap()
}

fn owned(key: u32, groups: KeyGroupRange, max: u32) -> bool {
    groups.contains(hash_key(&key, &mut Vec::new()).group(MaxParallelism::new(max).unwrap()))
}

/// What the blocks hold; they must be in key-group order and hold no key twice.
fn contents(blocks: &[Block]) -> Model {
    let mut model = Model::new();
    let all = MaxParallelism::new(32768).unwrap().all();
    let mut last = None;
    for block in blocks {
        let entries = read_entries(block, (codec_of::<u32>(), codec_of::<String>()), all, |group, key, value| {
            assert!(last <= Some(group), "{group} after {last:?}");
            last = Some(group);
            assert_eq!(model.insert(decode(key)?, decode(value)?), None, "a key twice");
            Ok(())
        });
        assert_eq!(entries.unwrap(), u64::from(block.entries));
    }
    model
}

fn sweep_all(table: &mut Strings) -> Vec<Block> {
    let mut blocks = Vec::new();
    while table.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    blocks
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    /// Many keys from this one on, so that shards split.
    Fill(u32, u32),
    Remove(u32),
    /// Many keys from this one on.
    Clear(u32, u32),
    Change(u32),
    Cut,
    Abort,
    Sweep(usize),
    Restore,
}

fn any_step(keys: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..keys).prop_map(Step::Put),
        2 => (0..keys, 0..keys / 2).prop_map(|(from, count)| Step::Fill(from, count)),
        4 => (0..keys).prop_map(Step::Remove),
        1 => (0..keys, 0..keys / 3).prop_map(|(from, count)| Step::Clear(from, count)),
        4 => (0..keys).prop_map(Step::Change),
        3 => Just(Step::Cut),
        1 => Just(Step::Abort),
        6 => prop_oneof![1..200_usize, 1000..100_000_usize].prop_map(Step::Sweep),
        1 => Just(Step::Restore),
    ]
}

/// Whatever is done to the table, a sweep emits what a copy made at the cut holds.
fn check(max: u32, subtask: u32, parallelism: u32, steps: &[Step]) {
    let spec = spec(max, subtask, parallelism);
    let groups = spec.key_groups;
    let mut table = Strings::new(spec.clone());
    let mut model = Model::new();
    let mut cut: Option<(Model, Vec<Block>)> = None;
    for (at, step) in steps.iter().enumerate() {
        let value = at.to_string();
        match *step {
            Step::Put(key) if owned(key, groups, max) => {
                assert_eq!(put(&mut table, key, &value), model.insert(key, value));
            }
            Step::Fill(from, count) => {
                for key in (from..from + count).filter(|&key| owned(key, groups, max)) {
                    assert_eq!(put(&mut table, key, &value), model.insert(key, value.clone()));
                }
            }
            Step::Remove(key) => assert_eq!(remove(&mut table, key), model.remove(&key)),
            Step::Clear(from, count) => {
                for key in from..from + count {
                    assert_eq!(remove(&mut table, key), model.remove(&key));
                }
            }
            Step::Change(key) => {
                let hash = hash_key(&key, &mut Vec::new());
                if let Some(there) = table.get_mut(hash, &key).unwrap() {
                    there.push('!');
                    model.get_mut(&key).unwrap().push('!');
                }
            }
            Step::Cut if cut.is_none() => {
                table.cut();
                cut = Some((model.clone(), Vec::new()));
            }
            Step::Abort => {
                table.abort();
                cut = None;
            }
            Step::Sweep(budget) => {
                if let Some((expected, mut blocks)) = cut.take() {
                    match table.sweep(budget, &mut |block| blocks.push(block)).unwrap() {
                        SweepProgress::More => cut = Some((expected, blocks)),
                        SweepProgress::Done => assert_eq!(contents(&blocks), expected),
                    }
                }
            }
            Step::Restore if cut.is_none() => {
                table.cut();
                let blocks = sweep_all(&mut table);
                let mut restored = Strings::new(spec.clone());
                restored.reserve(table.len());
                for block in &blocks {
                    restored.restore(block, groups).unwrap();
                }
                table = restored;
            }
            Step::Put(_) | Step::Cut | Step::Restore => {}
        }
        assert_eq!(table.len(), model.len() as u64);
        assert_eq!(table.sweeping(), cut.is_some());
        assert!(cut.is_some() || table.undo_bytes() == 0);
    }
    if let Some((expected, mut blocks)) = cut {
        blocks.extend(sweep_all(&mut table));
        assert_eq!(contents(&blocks), expected);
    }
    assert_eq!(table.undo_bytes(), 0);
    for (key, value) in &model {
        assert_eq!(table.get(hash_key(key, &mut Vec::new()), key), Some(value));
    }
    table.cut();
    assert_eq!(contents(&sweep_all(&mut table)), model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_sweep_emits_the_state_of_its_cut(
        steps in proptest::collection::vec(any_step(3 * FULL_SLOTS as u32), 1..40),
        max in prop_oneof![Just(1_u32), Just(128), Just(1000)],
        parallelism in 1_u32..4,
        subtask in 0_u32..4,
    ) {
        let parallelism = parallelism.min(max);
        check(max, subtask % parallelism, parallelism, &steps);
    }

    #[test]
    fn a_small_table_is_swept_in_small_steps(
        steps in proptest::collection::vec(any_step(60), 1..200),
        max in prop_oneof![Just(1_u32), Just(7), Just(128), Just(32768)],
    ) {
        check(max, 0, 1, &steps);
    }

    #[test]
    fn a_snapshot_since_another_makes_it_the_later_one(
        steps in proptest::collection::vec(any_since(3 * FULL_SLOTS as u32), 1..40),
        max in prop_oneof![Just(1_u32), Just(128), Just(1000)],
        parallelism in 1_u32..4,
        subtask in 0_u32..4,
    ) {
        let parallelism = parallelism.min(max);
        check_since(max, subtask % parallelism, parallelism, &steps);
    }

    #[test]
    fn a_small_snapshot_since_another_makes_it_the_later_one(
        steps in proptest::collection::vec(any_since(60), 1..200),
        max in prop_oneof![Just(1_u32), Just(7), Just(128), Just(32768)],
    ) {
        check_since(max, 0, 1, &steps);
    }
}

#[test]
fn a_snapshot_since_another_holds_what_has_changed() {
    let mut table = Strings::new(spec(128, 0, 1));
    (0..50_000).for_each(|key| drop(put(&mut table, key, "value")));
    table.track_changes();
    let first = table.cut();
    assert_eq!((table.changed_since(Cut::RESTORED), table.changed_since(first)), (Some(0), Some(0)));
    sweep_all(&mut table);
    (0..500).for_each(|key| drop(put(&mut table, key * 100, "new")));
    remove(&mut table, 7);
    put(&mut table, 1_000_000, "came and went");
    remove(&mut table, 1_000_000);
    assert_eq!(table.changed_since(first), Some(502));
    let second = table.cut_since(Some(first));
    let blocks = sweep_all(&mut table);
    let entries = |kind| blocks.iter().filter(|it| it.kind == kind).map(|it| it.entries).sum::<u32>();
    assert_eq!((entries(BlockKind::Changed), entries(BlockKind::Removed)), (500, 1));

    remove(&mut table, 100);
    table.cut_since(Some(second));
    let blocks = sweep_all(&mut table);
    assert_eq!((blocks.len(), blocks[0].kind, blocks[0].entries), (1, BlockKind::Removed, 1));
    // Both periods together, and nothing of the first after it was forgotten.
    table.cut_since(Some(first));
    assert_eq!(sweep_all(&mut table).iter().map(|it| it.entries).sum::<u32>(), 499 + 2);
    table.forget(second);
    assert_eq!(table.changed_since(first), None);
    assert_eq!(table.changed_since(second), Some(1));
}

#[test]
fn where_most_has_changed_the_rest_is_not_noted() {
    let mut table = Strings::new(spec(128, 0, 1));
    (0..1_000).for_each(|key| drop(put(&mut table, key, "value")));
    table.track_changes();
    (0..500).for_each(|key| drop(put(&mut table, key, "new")));
    assert_eq!(table.changed_since(Cut::RESTORED), Some(500));
    (500..700).for_each(|key| drop(put(&mut table, key, "new")));
    assert_eq!(table.changed_since(Cut::RESTORED), Some(1_000), "each may have changed");
    (0..10).for_each(|key| drop(remove(&mut table, key)));
    put(&mut table, 2_000, "came");
    put(&mut table, 2_001, "came and went");
    remove(&mut table, 2_001);
    assert_eq!(table.changed_since(Cut::RESTORED), Some(991 + 10));
    let first = table.cut_since(Some(Cut::RESTORED));
    // While that is swept the next period begins, in which changes are noted again.
    put(&mut table, 999, "later");
    let blocks = sweep_all(&mut table);
    let entries = |kind| blocks.iter().filter(|it| it.kind == kind).map(|it| it.entries).sum::<u32>();
    assert_eq!((entries(BlockKind::Changed), entries(BlockKind::Removed)), (991, 10));
    let mut restored = Strings::new(spec(128, 0, 1));
    (0..1_000).for_each(|key| drop(put(&mut restored, key, "value")));
    apply(&blocks, &mut restored);
    let expected = (10..700).map(|key| (key, "new")).chain((700..1_000).map(|key| (key, "value")));
    for (key, value) in expected.chain([(2_000, "came")]) {
        assert_eq!(remove(&mut restored, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(restored.len(), 0);

    assert_eq!(table.changed_since(first), Some(1));
    table.cut_since(Some(first));
    assert_eq!(sweep_all(&mut table).iter().map(|block| block.entries).sum::<u32>(), 1);
}

#[test]
fn a_snapshot_since_one_long_ago_knows_what_went_then() {
    let mut table = Strings::new(spec(128, 0, 1));
    (0..100).for_each(|key| drop(put(&mut table, key, "value")));
    table.track_changes();
    for key in 0..20 {
        remove(&mut table, key);
        put(&mut table, 50 + key, "new");
        table.cut();
        sweep_all(&mut table);
    }
    table.cut_since(Some(Cut::RESTORED));
    let mut restored = Strings::new(spec(128, 0, 1));
    (0..100).for_each(|key| drop(put(&mut restored, key, "value")));
    apply(&sweep_all(&mut table), &mut restored);
    assert_eq!(restored.len(), 80);
    assert!((50..70).all(|key| remove(&mut restored, key).as_deref() == Some("new")));
}

#[test]
fn a_table_that_is_emptied_over_and_over_forgets_what_went() {
    let mut table = Strings::new(spec(128, 0, 1));
    table.track_changes();
    let mut most = 0;
    for round in 0..10_u32 {
        (0..20_000).for_each(|key| drop(put(&mut table, round * 20_000 + key, "")));
        table.cut_since(table.changed_since(Cut::RESTORED).map(|_| Cut::RESTORED));
        sweep_all(&mut table);
        (0..20_000).for_each(|key| drop(remove(&mut table, round * 20_000 + key)));
        most = most.max(table.memory_bytes());
    }
    assert_eq!(table.changed_since(Cut::RESTORED), None, "it would hold too many names");
    assert!(most < 6 << 20, "{most} bytes");
    let cut = table.cut();
    sweep_all(&mut table);
    assert_eq!(table.changed_since(cut), Some(0));
}

/// What blocks of changes make of a table.
fn apply(blocks: &[Block], table: &mut Strings) {
    for kind in [BlockKind::Removed, BlockKind::Changed] {
        for block in blocks.iter().filter(|block| block.kind == kind) {
            assert_eq!(table.restore(block, block.groups).unwrap(), u64::from(block.entries));
        }
    }
    assert!(blocks.iter().all(|block| block.kind != BlockKind::All));
}

#[derive(Clone, Debug)]
enum Since {
    Change(Step),
    /// Begins a snapshot since one of those before, or of everything.
    Cut(Option<prop::sample::Index>),
    /// No later one is since one before this.
    Forget(prop::sample::Index),
    /// All of it is thrown away, and comes back from what was taken.
    Restore,
}

fn any_since(keys: u32) -> impl Strategy<Value = Since> {
    prop_oneof![
        14 => any_step(keys).prop_map(Since::Change),
        4 => any::<prop::sample::Index>().prop_map(|base| Since::Cut(Some(base))),
        1 => Just(Since::Cut(None)),
        1 => any::<prop::sample::Index>().prop_map(Since::Forget),
        1 => Just(Since::Restore),
    ]
}

/// Whatever is done to the table, what was taken since a cut makes its snapshot that of the later one.
fn check_since(max: u32, subtask: u32, parallelism: u32, steps: &[Since]) {
    let spec = spec(max, subtask, parallelism);
    let groups = spec.key_groups;
    let mut table = Strings::new(spec.clone());
    table.track_changes();
    let mut model = Model::new();
    // Each snapshot with its cut, as it should be; `None` before its sweep has ended.
    let mut taken = vec![(Cut::RESTORED, Model::new())];
    let mut running: Option<(Cut, Option<Cut>, Model, Vec<Block>)> = None;
    let restored = |model: &Model| {
        let mut table = Strings::new(spec.clone());
        model.iter().for_each(|(&key, value)| drop(put(&mut table, key, value)));
        table
    };
    let finish = |(cut, base, expected, blocks): (Cut, Option<Cut>, Model, Vec<Block>),
                  taken: &mut Vec<(Cut, Model)>| {
        let mut base = match base {
            Some(base) => restored(&taken.iter().find(|(cut, _)| *cut == base).unwrap().1),
            None => {
                assert_eq!(contents(&blocks), expected);
                return taken.push((cut, expected));
            }
        };
        apply(&blocks, &mut base);
        base.cut();
        assert_eq!(contents(&sweep_all(&mut base)), expected);
        taken.push((cut, expected));
    };
    for (at, step) in steps.iter().enumerate() {
        let value = at.to_string();
        match step {
            Since::Change(Step::Put(key)) if owned(*key, groups, max) => {
                assert_eq!(put(&mut table, *key, &value), model.insert(*key, value));
            }
            Since::Change(Step::Fill(from, count)) => {
                for key in (*from..from + count).filter(|&key| owned(key, groups, max)) {
                    assert_eq!(put(&mut table, key, &value), model.insert(key, value.clone()));
                }
            }
            Since::Change(Step::Remove(key)) => assert_eq!(remove(&mut table, *key), model.remove(key)),
            Since::Change(Step::Clear(from, count)) => {
                for key in *from..from + count {
                    assert_eq!(remove(&mut table, key), model.remove(&key));
                }
            }
            Since::Change(Step::Change(key)) => {
                if let Some(there) = table.get_mut(hash_key(key, &mut Vec::new()), key).unwrap() {
                    there.push('!');
                    model.get_mut(key).unwrap().push('!');
                }
            }
            Since::Change(Step::Abort) => {
                table.abort();
                running = None;
            }
            Since::Change(Step::Sweep(budget)) => {
                if let Some((cut, base, expected, mut blocks)) = running.take() {
                    match table.sweep(*budget, &mut |block| blocks.push(block)).unwrap() {
                        SweepProgress::More => running = Some((cut, base, expected, blocks)),
                        SweepProgress::Done => finish((cut, base, expected, blocks), &mut taken),
                    }
                }
            }
            Since::Cut(base) if running.is_none() => {
                let base = base.map(|index| index.get(&taken).0).filter(|base| table.changed_since(*base).is_some());
                let cut = table.cut_since(base);
                running = Some((cut, base, model.clone(), Vec::new()));
            }
            Since::Forget(index) if running.is_none() => table.forget(index.get(&taken).0),
            Since::Restore if running.is_none() => {
                let (_, last) = taken.last().unwrap().clone();
                table = restored(&last);
                table.track_changes();
                model = last.clone();
                taken = vec![(Cut::RESTORED, last)];
            }
            Since::Change(_) | Since::Cut(_) | Since::Forget(_) | Since::Restore => {}
        }
        assert_eq!(table.len(), model.len() as u64);
    }
    if let Some((cut, base, expected, mut blocks)) = running {
        blocks.extend(sweep_all(&mut table));
        finish((cut, base, expected, blocks), &mut taken);
    }
}

#[test]
fn shards_stay_small_and_the_index_follows() {
    let mut table = Strings::new(spec(128, 1, 3));
    let mut keys = 0;
    for key in (0..300_000).filter(|&key| owned(key, spec(128, 1, 3).key_groups, 128)) {
        put(&mut table, key, "");
        keys += 1;
    }
    assert_eq!(table.len(), keys);
    let sizes: Vec<_> = table.store().shards.iter().map(|shard| shard.len()).collect();
    assert!(sizes.iter().all(|&size| size <= FULL_SLOTS), "{sizes:?}");
    let full = sizes.iter().filter(|&&size| size > FULL_SLOTS / 4).count();
    assert!(full * 10 >= sizes.len() * 9, "the shards are about equally full: {sizes:?}");
}

#[test]
fn a_small_table_has_slots_to_spare_and_a_large_one_has_not() {
    for (keys, least, most) in [(10, 4, 12), (400, 4, 12), (1_000, 4, 12), (2_800, 1, 2), (100_000, 1, 3)] {
        let mut table = Strings::new(spec(128, 0, 1));
        for key in 0..keys {
            put(&mut table, key, "");
        }
        let slots = table.store().shards.iter().map(|shard| shard.slots()).sum::<usize>() as u32;
        assert!((keys * least..=keys * most).contains(&slots), "{slots} slots for {keys} keys");
    }
}

#[test]
fn what_is_reserved_neither_splits_nor_grows() {
    for (keys, subtask, parallelism) in [(3_000, 0, 1), (40_000, 0, 1), (41_500, 0, 1), (90_000, 1, 3)] {
        let mut table = Strings::new(spec(128, subtask, parallelism));
        for key in (0..keys).filter(|&key| owned(key, spec(128, subtask, parallelism).key_groups, 128)) {
            put(&mut table, key, "");
        }
        table.cut();
        let blocks = sweep_all(&mut table);
        let mut restored = Strings::new(spec(128, subtask, parallelism));
        restored.reserve(table.len());
        let made = restored.store().shards.len();
        for block in &blocks {
            restored.restore(block, block.groups).unwrap();
        }
        assert_eq!(restored.len(), table.len());
        let slots: Vec<_> = restored.store().shards.iter().map(|shard| shard.slots()).collect();
        assert!(made > 1 && slots.len() == made, "{made} shards became {}", slots.len());
        assert!(slots.iter().all(|&slots| slots <= FULL_SLOTS), "{slots:?}");
    }
}

#[test]
fn a_restore_finds_a_key_behind_removed_ones() {
    // So many that searches take several steps, all in one shard.
    let keys = 0..2_500;
    let mut table = Strings::new(spec(128, 0, 1));
    for key in keys.clone() {
        put(&mut table, key, "old");
    }
    for key in keys.clone().filter(|key| key % 3 == 0) {
        remove(&mut table, key);
    }
    // The last first: what stands behind a removed key came later than it.
    for key in keys.clone().rev() {
        let mut one = Strings::new(spec(128, 0, 1));
        put(&mut one, key, "new");
        one.cut();
        let block = sweep_all(&mut one).remove(0);
        let restored = table.restore(&block, block.groups);
        let there = key % 3 != 0;
        assert!(if there { matches!(restored, Err(StateError::Damaged { .. })) } else { restored.is_ok() }, "{key}");
    }
    assert_eq!(table.len(), 2_500);
    table.cut();
    let model = keys.map(|key| (key, if key % 3 == 0 { "new" } else { "old" }.to_owned())).collect();
    assert_eq!(contents(&sweep_all(&mut table)), model);
}

#[test]
fn a_shard_that_splits_under_the_sweep_is_swept_whole() {
    // Wherever in the shard the sweep is: most entries keep their place in a split, some do not.
    for (max, step) in [1, 1000].into_iter().flat_map(|max| (1..30).map(move |step| (max, step * 1_000))) {
        let mut table = Strings::new(spec(max, 0, 1));
        let model: Model = (0..2_800).map(|key| (key, key.to_string())).collect();
        for (&key, value) in &model {
            put(&mut table, key, value);
        }
        assert_eq!(table.store().shards.len(), 1);
        table.cut();
        let mut blocks = Vec::new();
        table.sweep(step, &mut |block| blocks.push(block)).unwrap();
        for key in 1_000_000..1_000_100 {
            put(&mut table, key, "new");
        }
        assert!(table.store().shards.len() > 1, "it has split");
        blocks.extend(sweep_all(&mut table));
        assert_eq!(contents(&blocks), model, "{max} key groups, after {step} bytes");
    }
}

#[test]
fn entries_of_one_hash_do_not_blow_up_the_directory() {
    let mut timers = crate::Timers::new(spec(128, 0, 1));
    let key = 5_u64;
    let hash = hash_key(&key, &mut Vec::new());
    for time in 0..20_000 {
        assert!(timers.register(hash, &key, cutwater_core::Timestamp(time * 86_400_000)).unwrap());
    }
    assert!(timers.memory_bytes() < 5_000_000, "{} bytes", timers.memory_bytes());
}

#[test]
fn what_a_block_says_wrongly_is_an_error() {
    let mut table = Strings::new(spec(128, 0, 1));
    for key in 0..50 {
        put(&mut table, key, "value");
    }
    table.cut();
    let good = sweep_all(&mut table).remove(0);
    let restore = |block: &Block| Strings::new(spec(128, 0, 1)).restore(block, block.groups);
    assert_eq!(restore(&good).unwrap(), 50);
    for length in 0..good.payload.len() {
        let mut short = good.clone();
        short.payload.truncate(length);
        assert!(matches!(restore(&short), Err(StateError::Damaged { .. })), "cut at {length}");
    }
    let mut twice = Strings::new(spec(128, 0, 1));
    twice.restore(&good, good.groups).unwrap();
    assert!(matches!(twice.restore(&good, good.groups), Err(StateError::Damaged { .. })));
    // Without a checksum a flipped byte of a value passes, but nothing may panic, and a changed key shows by its group.
    let mut unnoticed = 0;
    for at in 0..good.payload.len() {
        let mut flipped = good.clone();
        flipped.payload[at] ^= 0x55;
        unnoticed += usize::from(restore(&flipped).is_ok());
    }
    assert!(unnoticed <= 50 * "value".len() + 10, "{unnoticed}");
}
