//! A table with a tier below, against a map: whatever is put out, comes back, is cut, applied and given up.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use cutwater_core::{KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::{
    Accumulator, Block, ColdBatch, ColdState, ColdTier, Cut, ModelTier, Snapshotable, StateKind, SweepProgress, Table,
    TableSpec, apply_block, blocks_of_view, hash_key,
};
use proptest::prelude::*;

type Values = BTreeMap<u32, String>;

fn spec() -> TableSpec {
    let max_parallelism = MaxParallelism::new(8).unwrap();
    let operator = OperatorUid::new("operator").unwrap();
    TableSpec { operator, name: "state".to_owned(), max_parallelism, key_groups: max_parallelism.all() }
}

fn hash(key: u32) -> KeyHash {
    hash_key(&key, &mut Vec::new())
}

/// So many bytes hold some hundred entries.
const LIMIT: u64 = 8 << 10;

/// What a table of values and one of accumulators have in common.
trait Kept: Snapshotable + Sized {
    fn new() -> Self;
    fn attach(&mut self, tier: Arc<ModelTier>);
    fn fetch(&mut self, keys: &[u32]) -> usize;
    fn relieve(&mut self);
    fn get(&mut self, key: u32) -> Option<String>;
    fn put(&mut self, key: u32, value: String) -> Option<String>;
    fn change(&mut self, key: u32);
    fn remove(&mut self, key: u32) -> Option<String>;
}

type Accumulators = Accumulator<u32, String>;

impl Kept for Table<u32, String> {
    fn new() -> Self {
        Self::new(spec())
    }

    fn attach(&mut self, tier: Arc<ModelTier>) {
        self.attach(tier, LIMIT).unwrap();
    }

    fn fetch(&mut self, keys: &[u32]) -> usize {
        self.fetch(keys.iter().map(|key| (hash(*key), key))).unwrap()
    }

    fn relieve(&mut self) {
        self.relieve().unwrap();
    }

    fn get(&mut self, key: u32) -> Option<String> {
        Table::get(self, hash(key), &key).cloned()
    }

    fn put(&mut self, key: u32, value: String) -> Option<String> {
        self.insert(hash(key), key, value).unwrap()
    }

    fn change(&mut self, key: u32) {
        self.get_or_insert_with(hash(key), &key, String::new).unwrap().push('+');
    }

    fn remove(&mut self, key: u32) -> Option<String> {
        self.remove(hash(key), &key).unwrap()
    }
}

impl Kept for Accumulators {
    fn new() -> Self {
        Self::single(spec(), StateKind::NamedValue)
    }

    fn attach(&mut self, tier: Arc<ModelTier>) {
        self.attach(tier, LIMIT).unwrap();
    }

    fn fetch(&mut self, keys: &[u32]) -> usize {
        self.fetch(keys.iter().map(|key| (hash(*key), key))).unwrap()
    }

    fn relieve(&mut self) {
        self.relieve().unwrap();
    }

    fn get(&mut self, key: u32) -> Option<String> {
        Some(self.peek(hash(key), &key, &())?.1.clone())
    }

    fn put(&mut self, key: u32, value: String) -> Option<String> {
        self.insert(hash(key), &key, (), None, value).unwrap()
    }

    fn change(&mut self, key: u32) {
        match self.get_mut(hash(key), &key, &(), None).unwrap() {
            Some(value) => value.push('+'),
            None => drop(self.put(key, "+".to_owned())),
        }
    }

    fn remove(&mut self, key: u32) -> Option<String> {
        self.remove(hash(key), &key, &()).unwrap()
    }
}

struct Tested<T> {
    tier: Arc<ModelTier>,
    state: ColdState,
    table: T,
    expected: Values,
    /// The cut that is being swept, what was there then, and its blocks so far.
    running: Option<(Cut, Values, Vec<Block>)>,
    /// The same once it is swept, with how many of the blocks are in the tier.
    swept: Option<(Cut, Values, Vec<Block>, usize)>,
}

impl<T: Kept> Tested<T> {
    fn new() -> Self {
        let tier = Arc::new(ModelTier::default());
        let mut table = T::new();
        table.attach(tier.clone());
        let state = tier.open(&table.header()).unwrap();
        Self { tier, state, table, expected: Values::new(), running: None, swept: None }
    }

    fn put(&mut self, keys: &[u32], value: &str) {
        self.table.fetch(keys);
        for key in keys {
            let before = self.table.put(*key, value.to_owned());
            assert_eq!(before, self.expected.insert(*key, value.to_owned()), "{key}");
        }
    }

    fn change(&mut self, key: u32) {
        self.table.fetch(&[key]);
        self.table.change(key);
        self.expected.entry(key).or_default().push('+');
    }

    fn remove(&mut self, keys: &[u32]) {
        self.table.fetch(keys);
        for key in keys {
            assert_eq!(self.table.remove(*key), self.expected.remove(key), "{key}");
        }
    }

    fn get(&mut self, key: u32) {
        self.table.fetch(&[key]);
        assert_eq!(self.table.get(key), self.expected.get(&key).cloned(), "{key}");
    }

    fn cut(&mut self) {
        if self.running.is_none() && self.swept.is_none() {
            self.running = Some((self.table.cut(), self.expected.clone(), Vec::new()));
        }
    }

    fn sweep(&mut self, budget: usize) {
        let Some((cut, then, mut blocks)) = self.running.take() else { return };
        match self.table.sweep(budget, &mut |block| blocks.push(block)).unwrap() {
            SweepProgress::More => self.running = Some((cut, then, blocks)),
            SweepProgress::Done => self.swept = Some((cut, then, blocks, 0)),
        }
    }

    /// Some of the blocks come into the tier; once all have it is what was there at the cut.
    fn apply(&mut self, count: usize) {
        let Some((cut, then, blocks, from)) = self.swept.take() else { return };
        let to = (from + count).min(blocks.len());
        self.write(&blocks[from..to]);
        if to < blocks.len() {
            self.swept = Some((cut, then, blocks, to));
            return;
        }
        let (found, entries) = self.contents();
        assert_eq!((found, entries), (then.clone(), then.len() as u64), "the tier is as the table was at the cut");
        self.table.applied(cut);
    }

    fn write(&self, blocks: &[Block]) {
        for block in blocks {
            apply_block(&*self.tier, self.state, &self.table.header(), block, &mut ColdBatch::default()).unwrap();
        }
    }

    fn give_up(&mut self) {
        if let Some((_, _, blocks)) = self.running.take() {
            self.write(&blocks);
            self.table.abort();
            self.table.not_applied();
        } else if self.swept.take().is_some() {
            self.table.not_applied();
        }
    }

    /// What a snapshot made of the tier as it is now restores to.
    fn contents(&self) -> (Values, u64) {
        let view = self.tier.view().unwrap();
        let mut restored = T::new();
        let mut restore = |block: Block| restored.restore(&block, spec().key_groups).map(drop::<u64>);
        let groups = spec().key_groups;
        let header = self.table.header();
        let entries = blocks_of_view(&*view, self.state, &header, groups, &mut restore).unwrap();
        let keys = 0..KEYS;
        let found = keys.filter_map(|key| Some((key, restored.get(key)?))).collect();
        (found, entries)
    }

    /// Brings a snapshot that is under way to its end.
    fn settle(&mut self) {
        while self.running.is_some() {
            self.sweep(5_000);
        }
        while self.swept.is_some() {
            self.apply(1);
        }
    }

    fn check(&mut self) {
        assert_eq!(self.table.len(), self.expected.len() as u64);
        for key in 0..KEYS {
            self.get(key);
            if key % 100 == 0 {
                self.table.relieve();
            }
        }
    }
}

const KEYS: u32 = 2_000;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u32>, String),
    Change(u32),
    Remove(Vec<u32>),
    Get(u32),
    Relieve,
    Cut,
    Sweep(usize),
    Apply(usize),
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    // Often the same ones, so that keys go and come back.
    let key = prop_oneof![0..KEYS, 0..20_u32];
    let keys = || prop::collection::vec(prop_oneof![0..KEYS, 0..20_u32], 1..60);
    prop_oneof![
        6 => (keys(), "[a-z]{0,80}").prop_map(|(keys, value)| Step::Put(keys, value)),
        3 => key.clone().prop_map(Step::Change),
        4 => keys().prop_map(Step::Remove),
        2 => key.prop_map(Step::Get),
        6 => Just(Step::Relieve),
        3 => Just(Step::Cut),
        6 => (1..3_000_usize).prop_map(Step::Sweep),
        3 => (1..4_usize).prop_map(Step::Apply),
        1 => Just(Step::GiveUp),
    ]
}

fn run<T: Kept>(steps: Vec<Step>) {
    let mut tested = Tested::<T>::new();
    for step in steps {
        match step {
            Step::Put(keys, value) => tested.put(&keys, &value),
            Step::Change(key) => tested.change(key),
            Step::Remove(keys) => tested.remove(&keys),
            Step::Get(key) => tested.get(key),
            Step::Relieve => tested.table.relieve(),
            Step::Cut => tested.cut(),
            Step::Sweep(budget) => tested.sweep(budget),
            Step::Apply(blocks) => tested.apply(blocks),
            Step::GiveUp => tested.give_up(),
        }
    }
    tested.check();
    tested.settle();
    tested.cut();
    tested.settle();
    tested.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_table_on_a_tier_is_a_map_and_the_tier_is_each_cut(steps in prop::collection::vec(step(), 1..150)) {
        run::<Table<u32, String>>(steps);
    }

    #[test]
    fn accumulators_on_a_tier_are_a_map_and_the_tier_is_each_cut(steps in prop::collection::vec(step(), 1..150)) {
        run::<Accumulators>(steps);
    }
}

#[test]
fn memory_holds_what_the_limit_allows() {
    let mut tested = Tested::<Table<u32, String>>::new();
    for key in 0..KEYS {
        tested.put(&[key], &"x".repeat(100));
        tested.table.relieve().unwrap();
        let in_memory = tested.table.len() - tested.table.cold_entries();
        assert!(
            in_memory < 80,
            "{in_memory} entries of 100 bytes in memory after {key} keys, the limit is {LIMIT} bytes"
        );
    }
    assert!(tested.table.cold_entries() > 1_900, "{}", tested.table.cold_entries());
    tested.check();
}

#[test]
fn what_was_used_last_stays() {
    let mut tested = Tested::<Table<u32, String>>::new();
    for key in 20..KEYS {
        for hot in 0..10 {
            tested.get(hot);
            if key == 20 {
                tested.put(&[hot], "hot");
            }
        }
        tested.put(&[key], &"x".repeat(100));
        tested.table.relieve().unwrap();
    }
    for hot in 0..10_u32 {
        assert_eq!(tested.table.get(hash(hot), &hot), Some(&"hot".to_owned()), "{hot} is in memory without a fetch");
    }
}

#[test]
fn dirty_values_stay_while_a_cut_waits_to_be_applied() {
    let mut tested = Tested::<Table<u32, String>>::new();
    tested.put(&[1], "before");
    tested.cut();
    while tested.running.is_some() {
        tested.sweep(1_000);
    }
    for key in 2..500 {
        tested.put(&[key], &"x".repeat(100));
        tested.table.relieve().unwrap();
    }
    assert!(tested.tier.is_empty(), "nobody but the snapshot writes");
    tested.apply(usize::MAX);
    tested.table.relieve().unwrap();
    tested.table.relieve().unwrap();
    assert!(tested.table.cold_entries() > 400, "{} in the tier", tested.table.cold_entries());
    tested.check();
}

#[test]
fn what_is_restored_lies_in_the_tier() {
    let mut plain: Table<u32, String> = Table::new(spec());
    for key in 0..KEYS {
        plain.insert(hash(key), key, key.to_string()).unwrap();
    }
    let mut blocks = Vec::new();
    plain.cut();
    while plain.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    let mut tested = Tested::<Table<u32, String>>::new();
    for block in &blocks {
        tested.table.restore(block, spec().key_groups).unwrap();
    }
    assert_eq!((tested.table.len(), tested.table.cold_entries()), (2_000, 2_000));
    let error = tested.table.restore(&blocks[0], spec().key_groups).unwrap_err();
    assert!(error.to_string().contains("the key is there already"), "{error}");
    tested.expected = (0..KEYS).map(|key| (key, key.to_string())).collect();
    tested.check();
    // And what changes after it is all that the first snapshot writes.
    tested.change(7);
    tested.remove(&[8]);
    tested.cut();
    while tested.running.is_some() {
        tested.sweep(1_000);
    }
    let (_, _, blocks, _) = tested.swept.as_ref().unwrap();
    assert_eq!(blocks.iter().map(|block| block.entries).collect::<Vec<_>>(), [1, 1]);
    tested.apply(usize::MAX);
}

fn asks_only_for_what_is_not_in_memory<T: Kept>() {
    let mut tested = Tested::<T>::new();
    let keys: Vec<u32> = (0..2_000).collect();
    for some in keys.chunks(100) {
        tested.put(some, &"x".repeat(100));
        tested.table.relieve();
    }
    let asked: usize = keys.chunks(100).map(|some| tested.table.fetch(some)).sum();
    assert!(asked > 1_000 && asked <= 2_000, "{asked} of 2000 were not in memory");
    assert_eq!(tested.table.fetch(&keys), 0, "all have been fetched");
    assert_eq!(tested.table.fetch(&[7_000, 7_001, 7_000]), 2, "nobody knows whether these are there");
}

#[test]
fn a_fetch_tells_for_how_many_keys_the_tier_was_asked() {
    asks_only_for_what_is_not_in_memory::<Table<u32, String>>();
    asks_only_for_what_is_not_in_memory::<Accumulators>();
}
