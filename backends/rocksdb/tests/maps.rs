//! Maps and lists of which most lie in RocksDB, against maps and lists.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::TempTier;
use cutwater_core::{KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::{
    ColdBatch, ColdTier, ListTable, MapTable, Snapshotable, StateError, SweepProgress, TableSpec, apply_block,
    blocks_of_view, hash_key,
};

const KEYS: u64 = 500;
const ROUNDS: u64 = 60;
/// So many bytes hold a tenth of it.
const LIMIT: u64 = 64 << 10;

fn spec(name: &str) -> TableSpec {
    let max_parallelism = MaxParallelism::default();
    let operator = OperatorUid::new("operator").unwrap();
    TableSpec { operator, name: name.to_owned(), max_parallelism, key_groups: max_parallelism.all() }
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

/// What both tables have of each key.
type Expected = BTreeMap<Vec<u8>, (BTreeMap<String, u64>, Vec<u64>)>;

struct Tables {
    maps: MapTable<Vec<u8>, String, u64>,
    lists: ListTable<Vec<u8>, u64>,
}

impl Tables {
    fn new() -> Self {
        Self { maps: MapTable::new(spec("maps")), lists: ListTable::new(spec("lists")) }
    }

    fn both(&mut self) -> [&mut dyn Snapshotable; 2] {
        [&mut self.maps, &mut self.lists]
    }

    fn fetch(&mut self, keys: &[Vec<u8>]) {
        self.maps.fetch(keys.iter().map(|key| (hash(key), key))).unwrap();
        self.lists.fetch(keys.iter().map(|key| (hash(key), key))).unwrap();
    }

    fn relieve(&mut self) {
        self.maps.relieve().unwrap();
        self.lists.relieve().unwrap();
    }

    fn check(&self, key: &Vec<u8>, expected: &Expected) {
        let (map, list) = expected.get(key).cloned().unwrap_or_default();
        let of_map = self.maps.iter(hash(key), key).map(|(user, _, value)| (user.clone(), *value));
        assert_eq!(of_map.collect::<BTreeMap<_, _>>(), map, "{key:?}");
        assert!(self.lists.iter(hash(key), key).map(|(_, element)| *element).eq(list), "{key:?}");
    }

    /// One change of a key, or some.
    fn change(&mut self, key: &Vec<u8>, expected: &mut Expected, random: &mut u64) {
        let (map, list) = expected.entry(key.clone()).or_default();
        let user = (next(random) % 12).to_string().repeat(next(random) as usize % 2 + 1);
        match next(random) % 8 {
            0 => {
                self.maps.clear(hash(key), key).unwrap();
                map.clear();
            }
            1 => {
                self.lists.clear(hash(key), key).unwrap();
                list.clear();
            }
            2 | 3 => assert_eq!(self.maps.remove(hash(key), key, &user).unwrap(), map.remove(&user)),
            _ => {
                let value = next(random);
                assert_eq!(
                    self.maps.insert(hash(key), key, user.clone(), None, value).unwrap(),
                    map.insert(user, value)
                );
                for element in 0..next(random) % 40 {
                    self.lists.push(hash(key), key, None, element).unwrap();
                    list.push(element);
                }
            }
        }
    }
}

#[test]
fn maps_and_lists_on_the_disk_are_maps_and_lists() {
    let tier = Arc::new(TempTier::tiny());
    let mut tables = Tables::new();
    tables.maps.attach(tier.clone(), LIMIT).unwrap();
    tables.lists.attach(tier.clone(), LIMIT).unwrap();
    let (mut expected, mut random) = (Expected::new(), 1);
    for round in 0..ROUNDS {
        let keys: Vec<Vec<u8>> = (0..100).map(|_| key(next(&mut random) % KEYS)).collect();
        tables.fetch(&keys);
        for key in &keys {
            tables.check(key, &expected);
            tables.change(key, &mut expected, &mut random);
            tables.check(key, &expected);
        }
        tables.relieve();
        if round % 7 == 3 {
            let then = expected.clone();
            snapshot(&mut tables, &tier, round % 2 == 0);
            let view = tier.view().unwrap();
            let mut restored = Tables::new();
            for state in restored.both() {
                let (header, all) = (state.header(), MaxParallelism::default().all());
                let cold = tier.open(&header).unwrap();
                let restore = |block| -> Result<(), StateError> { state.restore(&block, all).map(drop::<u64>) };
                blocks_of_view(&*view, cold, &header, all, restore).unwrap();
            }
            (0..KEYS).map(key).for_each(|key| restored.check(&key, &then));
        }
    }
    let below = tables.maps.cold_entries();
    assert!(below * 2 > tables.maps.len(), "{below} of {} entries lie below", tables.maps.len());
    for key in (0..KEYS).map(key) {
        tables.fetch(std::slice::from_ref(&key));
        tables.check(&key, &expected);
        tables.relieve();
    }
}

/// A cut of both comes into the tier, the first time perhaps not.
fn snapshot(tables: &mut Tables, tier: &TempTier, give_up: bool) {
    for state in tables.both() {
        for given_up in [give_up, false] {
            let (cut, header) = (state.cut(), state.header());
            let mut blocks = Vec::new();
            while state.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
            let cold = tier.open(&header).unwrap();
            let some = if given_up { blocks.len() / 2 } else { blocks.len() };
            for block in &blocks[..some] {
                apply_block(tier, cold, &header, block, &mut ColdBatch::default()).unwrap();
            }
            if given_up { state.not_applied() } else { state.applied(cut) }
        }
    }
}
