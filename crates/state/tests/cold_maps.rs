//! Maps and lists with a tier below, against maps and lists: whatever is put out, comes back, is cut, applied and given up, and
//! wherever it is restored.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use cutwater_core::{CheckpointId, KeyGroup, KeyGroupRange, KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::format::{Compression, SnapshotEncoder, SnapshotHeader};
use cutwater_state::{
    Block, BlockKind, ColdBatch, ColdState, ColdTier, Cut, Key, ListTable, MapTable, ModelTier, Snapshotable,
    SweepProgress, TableSpec, apply_block, blocks_of_view, hash_key,
};
use proptest::prelude::*;

fn max_parallelism() -> MaxParallelism {
    MaxParallelism::new(8).unwrap()
}

fn all() -> KeyGroupRange {
    max_parallelism().all()
}

/// The key groups of two subtasks.
fn halves() -> [KeyGroupRange; 2] {
    [(0, 2), (3, 7)].map(|(first, last)| KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) })
}

fn spec(key_groups: KeyGroupRange) -> TableSpec {
    let operator = OperatorUid::new("operator").unwrap();
    TableSpec { operator, name: "state".to_owned(), max_parallelism: max_parallelism(), key_groups }
}

fn hash<K: Key>(key: &K) -> KeyHash {
    hash_key(key, &mut Vec::new())
}

/// So many bytes hold some hundred entries.
const LIMIT: u64 = 24 << 10;
const KEYS: u32 = 200;

/// What is done under a key.
#[derive(Clone, Debug)]
enum Act {
    Put(u32, String),
    Change(u32),
    Remove(u32),
    /// Many entries.
    Fill(u32),
    Clear,
    Look,
}

/// What maps and lists have in common.
trait Kept: Snapshotable + Sized {
    /// What is under a key.
    type Of: Default + Clone + PartialEq + Debug;
    fn new(groups: KeyGroupRange) -> Self;
    fn attach(&mut self, tier: Arc<ModelTier>);
    fn fetch(&mut self, keys: &[u32]);
    fn relieve(&mut self);
    fn cold_entries(&self) -> u64;
    fn of(&self, key: u32) -> Self::Of;
    fn act(&mut self, key: u32, act: &Act, expected: &mut Self::Of);
    /// How many entries that is.
    fn entries(of: &Self::Of) -> u64;
}

/// Keys of which some are the beginnings of others.
fn text(key: u32) -> String {
    "\0a".repeat(key as usize % 7) + &"\u{ff}".repeat(key as usize % 3) + &key.to_string()
}

fn user(user: u32) -> String {
    match user % 3 {
        0 => user.to_string(),
        1 => "\0".repeat(user as usize % 5) + &user.to_string(),
        _ => user.to_string() + &"long ".repeat(user as usize % 9),
    }
}

type Maps = MapTable<String, String, String>;

impl Kept for Maps {
    type Of = BTreeMap<String, String>;

    fn new(groups: KeyGroupRange) -> Self {
        Self::new(spec(groups))
    }

    fn attach(&mut self, tier: Arc<ModelTier>) {
        self.attach(tier, LIMIT).unwrap();
    }

    fn fetch(&mut self, keys: &[u32]) {
        let keys: Vec<String> = keys.iter().map(|key| text(*key)).collect();
        self.fetch(keys.iter().map(|key| (hash(key), key))).unwrap();
    }

    fn relieve(&mut self) {
        self.relieve().unwrap();
    }

    fn cold_entries(&self) -> u64 {
        self.cold_entries()
    }

    fn of(&self, key: u32) -> Self::Of {
        let key = text(key);
        let of = self.iter(hash(&key), &key).map(|(user, _, value)| (user.clone(), value.clone()));
        let found: Vec<_> = of.collect();
        assert!(found.is_sorted(), "in the order of the user keys");
        assert_eq!(self.entries(hash(&key), &key), found.len());
        for (user, value) in &found {
            assert_eq!(self.peek(hash(&key), &key, user), Some((None, value)));
        }
        found.into_iter().collect()
    }

    fn act(&mut self, key: u32, act: &Act, expected: &mut Self::Of) {
        let key = text(key);
        let hash = hash(&key);
        match act {
            Act::Put(at, value) => {
                let before = self.insert(hash, &key, user(*at), None, value.clone()).unwrap();
                assert_eq!(before, expected.insert(user(*at), value.clone()));
            }
            Act::Change(at) => {
                let there = self.get_mut(hash, &key, &user(*at), None).unwrap();
                let expected = expected.get_mut(&user(*at));
                assert_eq!(there.is_some(), expected.is_some());
                there.into_iter().chain(expected).for_each(|value| value.push('+'));
            }
            Act::Remove(at) => {
                assert_eq!(self.remove(hash, &key, &user(*at)).unwrap(), expected.remove(&user(*at)));
            }
            Act::Fill(count) => {
                for at in 0..*count {
                    self.insert(hash, &key, user(at), None, "filled".to_owned()).unwrap();
                    expected.insert(user(at), "filled".to_owned());
                }
            }
            Act::Clear => {
                self.clear(hash, &key).unwrap();
                expected.clear();
            }
            Act::Look => {}
        }
    }

    fn entries(of: &Self::Of) -> u64 {
        of.len() as u64
    }
}

type Lists = ListTable<u32, String>;

impl Kept for Lists {
    type Of = Vec<String>;

    fn new(groups: KeyGroupRange) -> Self {
        Self::new(spec(groups))
    }

    fn attach(&mut self, tier: Arc<ModelTier>) {
        self.attach(tier, LIMIT).unwrap();
    }

    fn fetch(&mut self, keys: &[u32]) {
        self.fetch(keys.iter().map(|key| (hash(key), key))).unwrap();
    }

    fn relieve(&mut self) {
        self.relieve().unwrap();
    }

    fn cold_entries(&self) -> u64 {
        self.cold_entries()
    }

    fn of(&self, key: u32) -> Self::Of {
        self.iter(hash(&key), &key).map(|(_, element)| element.clone()).collect()
    }

    fn act(&mut self, key: u32, act: &Act, expected: &mut Self::Of) {
        let hash = hash(&key);
        match act {
            Act::Put(_, value) => {
                self.push(hash, &key, None, value.clone()).unwrap();
                expected.push(value.clone());
            }
            Act::Fill(count) => {
                for at in 0..*count {
                    self.push(hash, &key, None, at.to_string()).unwrap();
                    expected.push(at.to_string());
                }
            }
            Act::Clear | Act::Remove(_) => {
                self.clear(hash, &key).unwrap();
                expected.clear();
            }
            Act::Change(_) | Act::Look => {}
        }
    }

    fn entries(of: &Self::Of) -> u64 {
        of.len().div_ceil(Self::CHUNK) as u64
    }
}

type Model<T> = BTreeMap<u32, <T as Kept>::Of>;

struct Tested<T: Kept> {
    tier: Arc<ModelTier>,
    state: ColdState,
    table: T,
    expected: Model<T>,
    /// The cut that is being swept, what was there then, and its blocks so far.
    running: Option<(Cut, Model<T>, Vec<Block>)>,
    /// The same once it is swept, with how many of the blocks are in the tier.
    swept: Option<(Cut, Model<T>, Vec<Block>, usize)>,
}

fn attached<T: Kept>(groups: KeyGroupRange) -> (T, Arc<ModelTier>, ColdState) {
    let tier = Arc::new(ModelTier::default());
    let mut table = T::new(groups);
    table.attach(tier.clone());
    let state = tier.open(&table.header()).unwrap();
    (table, tier, state)
}

/// What a snapshot of the tier as it is now holds.
fn blocks_of<T: Kept>(table: &T, tier: &ModelTier, state: ColdState) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut emit = |block: Block| -> Result<(), cutwater_state::StateError> {
        assert_eq!(block.kind, BlockKind::All);
        blocks.push(block);
        Ok(())
    };
    blocks_of_view(&*tier.view().unwrap(), state, &table.header(), all(), &mut emit).unwrap();
    blocks
}

impl<T: Kept> Tested<T> {
    fn new() -> Self {
        let (table, tier, state) = attached(all());
        Self { tier, state, table, expected: Model::<T>::new(), running: None, swept: None }
    }

    fn batch(&mut self, acts: &[(u32, Act)]) {
        let keys: Vec<u32> = acts.iter().map(|(key, _)| *key).collect();
        self.table.fetch(&keys);
        for (key, act) in acts {
            let expected = self.expected.entry(*key).or_default();
            assert_eq!(self.table.of(*key), *expected, "{key} before {act:?}");
            self.table.act(*key, act, expected);
            assert_eq!(self.table.of(*key), *expected, "{key} after {act:?}");
        }
        self.expected.retain(|_, of| *of != T::Of::default());
    }

    fn relieve(&mut self) {
        self.table.relieve();
        let mut there = 0;
        for (key, expected) in &self.expected {
            let found = self.table.of(*key);
            assert!(found == *expected || found == T::Of::default(), "{key} is here whole or not at all: {found:?}");
            there += T::entries(&found);
        }
        assert_eq!(there + self.table.cold_entries(), self.table.len(), "nothing else is here");
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
        let mut restored = T::new(all());
        for block in blocks_of(&self.table, &self.tier, self.state) {
            restored.restore(&block, all()).unwrap();
        }
        check(&mut [restored], &then, "the tier is as the table was at the cut");
        self.table.applied(cut);
    }

    fn write(&self, blocks: &[Block]) {
        for block in blocks {
            apply_block(&*self.tier, self.state, &self.table.header(), block, &mut ColdBatch::default()).unwrap();
        }
    }

    /// Some blocks may have been written, of all or of a part of the sweep.
    fn give_up(&mut self, written: usize) {
        if let Some((_, _, blocks)) = self.running.take() {
            self.write(&blocks[..written.min(blocks.len())]);
            self.table.abort();
            self.table.not_applied();
        } else if let Some((_, _, blocks, from)) = self.swept.take() {
            self.write(&blocks[from..(from + written).min(blocks.len())]);
            self.table.not_applied();
        }
    }

    /// Brings a snapshot that is under way to its end, or makes one.
    fn settle(&mut self) {
        self.cut();
        while self.running.is_some() {
            self.sweep(5_000);
        }
        while self.swept.is_some() {
            self.apply(1);
        }
    }

    /// Begins anew from a snapshot: over two subtasks, then over one again.
    fn restart(&mut self) {
        self.settle();
        self.settle(); // of all, whatever the one before held
        let blocks = blocks_of(&self.table, &self.tier, self.state);
        let mut parts: Vec<(T, Arc<ModelTier>, ColdState)> = halves().map(attached).into();
        for (table, ..) in &mut parts {
            blocks.iter().for_each(|block| assert!(table.restore(block, all()).is_ok()));
        }
        *self = Self { expected: std::mem::take(&mut self.expected), ..Self::new() };
        for (table, tier, state) in &parts {
            for block in blocks_of(table, tier, *state) {
                self.table.restore(&block, all()).unwrap();
            }
        }
        assert_eq!(self.table.cold_entries(), self.table.len());
        let mut tables: Vec<T> = parts.into_iter().map(|(table, ..)| table).collect();
        check(&mut tables, &self.expected, "in two halves");
    }
}

/// Whether the tables have this together, and nothing else.
fn check<T: Kept>(tables: &mut [T], expected: &Model<T>, what: &str) {
    let entries: u64 = expected.values().map(T::entries).sum();
    assert_eq!(tables.iter().map(|table| table.len()).sum::<u64>(), entries, "{what}");
    let nothing = T::Of::default();
    for key in 0..KEYS {
        let mut found: Vec<T::Of> = Vec::new();
        for table in tables.iter_mut() {
            table.fetch(&[key]);
            found.push(table.of(key));
            if key % 20 == 0 {
                table.relieve();
            }
        }
        found.retain(|found| *found != nothing);
        assert!(found.len() < 2, "{what}: {key} is in one place");
        assert_eq!(found.first().unwrap_or(&nothing), expected.get(&key).unwrap_or(&nothing), "{what}: {key}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<(u32, Act)>),
    Relieve,
    Cut,
    Sweep(usize),
    Apply(usize),
    GiveUp(usize),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    // Often the same ones, so that they go and come back.
    let user = || prop_oneof![0..4_u32, 0..200_u32];
    prop_oneof![
        8 => (user(), "[a-z]{0,60}").prop_map(|(user, value)| Act::Put(user, value)),
        4 => user().prop_map(Act::Change),
        6 => user().prop_map(Act::Remove),
        1 => (1..150_u32).prop_map(Act::Fill),
        2 => Just(Act::Clear),
        2 => Just(Act::Look),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop_oneof![0..KEYS, 0..6_u32];
    prop_oneof![
        12 => prop::collection::vec((key(), act()), 1..40).prop_map(Step::Batch),
        6 => Just(Step::Relieve),
        3 => Just(Step::Cut),
        6 => (1..3_000_usize).prop_map(Step::Sweep),
        3 => (1..4_usize).prop_map(Step::Apply),
        1 => (0..3_usize).prop_map(Step::GiveUp),
        1 => prop::bool::weighted(0.3).prop_map(|restart| if restart { Step::Restart } else { Step::Relieve }),
    ]
}

fn run<T: Kept>(steps: Vec<Step>) {
    let mut tested = Tested::<T>::new();
    for step in steps {
        match step {
            Step::Batch(acts) => tested.batch(&acts),
            Step::Relieve => tested.relieve(),
            Step::Cut => tested.cut(),
            Step::Sweep(budget) => tested.sweep(budget),
            Step::Apply(blocks) => tested.apply(blocks),
            Step::GiveUp(written) => tested.give_up(written),
            Step::Restart => tested.restart(),
        }
    }
    check(std::slice::from_mut(&mut tested.table), &tested.expected, "in the end");
    tested.settle();
    tested.restart();
    check(std::slice::from_mut(&mut tested.table), &tested.expected, "after a restart");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn maps_on_a_tier_are_maps_and_the_tier_is_each_cut(steps in prop::collection::vec(step(), 1..150)) {
        run::<Maps>(steps);
    }

    #[test]
    fn lists_on_a_tier_are_lists_and_the_tier_is_each_cut(steps in prop::collection::vec(step(), 1..150)) {
        run::<Lists>(steps);
    }
}

/// A cut, swept and in the tier.
fn settled<T: Kept>(acts: &[(u32, Act)]) -> Tested<T> {
    let mut tested = Tested::<T>::new();
    tested.batch(acts);
    tested.settle();
    tested
}

/// Puts all keys but this one out of memory, or as many as it takes, and this one too.
fn crowd<T: Kept>(tested: &mut Tested<T>) {
    for key in 50..150 {
        tested.batch(&[(key, Act::Put(0, "x".repeat(300)))]);
        tested.relieve();
    }
}

fn puts(users: std::ops::Range<u32>, value: &str) -> Vec<(u32, Act)> {
    users.map(|user| (1, Act::Put(user, value.to_owned()))).collect()
}

/// What was removed is in the tier until the next cut is: nobody may see it, and what comes in its place must stay.
#[test]
fn what_went_and_came_back_across_cuts_is_as_it_was_told() {
    let cases: [(&str, Vec<(u32, Act)>); 6] = [
        ("cleared", vec![(1, Act::Clear)]),
        ("cleared and filled with less", vec![(1, Act::Clear), (1, Act::Put(3, "new".to_owned()))]),
        ("some removed", (0..9).map(|user| (1, Act::Remove(user))).collect()),
        ("all removed one by one", (0..10).map(|user| (1, Act::Remove(user))).collect()),
        ("removed and put again", vec![(1, Act::Remove(3)), (1, Act::Put(3, "new".to_owned()))]),
        ("put again and removed", vec![(1, Act::Remove(3)), (1, Act::Put(3, "new".to_owned())), (1, Act::Remove(3))]),
    ];
    for (name, acts) in cases {
        for (cut, given_up, written) in [(false, false, 0), (true, false, 0), (true, true, 0), (true, true, 1)] {
            let mut tested = settled::<Maps>(&puts(0..10, "old"));
            crowd(&mut tested);
            assert_eq!(tested.table.of(1).len(), 0, "it lies in the tier");
            tested.batch(&acts);
            if cut {
                tested.cut();
                while tested.running.is_some() {
                    tested.sweep(100);
                }
                tested.batch(&[(1, Act::Look)]); // which nobody may see before the cut is in the tier
                tested.batch(&puts(20..22, "later"));
                tested.batch(&[(1, Act::Remove(20)), (1, Act::Remove(3))]);
                if given_up {
                    tested.give_up(written);
                }
            }
            tested.settle();
            crowd(&mut tested);
            tested.batch(&[(1, Act::Look)]);
            tested.restart();
            check(std::slice::from_mut(&mut tested.table), &tested.expected, name);
        }
    }
}

#[test]
fn a_list_goes_on_where_it_ended() {
    let mut tested = Tested::<Lists>::new();
    for round in 0..6 {
        tested.batch(&[(1, Act::Fill(100)), (2, Act::Put(0, round.to_string()))]);
        crowd(&mut tested);
        if round % 2 == 1 {
            tested.settle();
            crowd(&mut tested);
        }
        assert_eq!(tested.table.of(1).len(), 0, "it lies in the tier");
    }
    tested.batch(&[(1, Act::Look), (2, Act::Look)]);
    assert_eq!((tested.table.of(1).len(), tested.table.of(2).len()), (600, 6));
}

#[test]
fn memory_holds_what_the_limit_allows_and_what_was_used_last() {
    let mut tested = Tested::<Maps>::new();
    for key in 10..KEYS {
        let hot: Vec<_> = (0..3).map(|hot| (hot, Act::Put(key % 5, "hot".to_owned()))).collect();
        tested.batch(&hot);
        tested.batch(&[(key, Act::Fill(5))]);
        tested.relieve();
        let in_memory = tested.table.len() - tested.table.cold_entries();
        assert!(in_memory < 120, "{in_memory} entries in memory after {key} keys, the limit is {LIMIT} bytes");
    }
    assert!(tested.table.cold_entries() > 800, "{}", tested.table.cold_entries());
    for hot in 0..3 {
        assert_eq!(tested.table.of(hot).len(), 5, "{hot} is in memory without a fetch");
    }
}

#[test]
fn maps_stay_whole_while_a_cut_waits_to_be_applied() {
    let mut tested = settled::<Maps>(&puts(0..10, "old"));
    crowd(&mut tested);
    tested.batch(&[(1, Act::Look)]);
    tested.cut();
    while tested.running.is_some() {
        tested.sweep(1_000);
    }
    tested.batch(&[(1, Act::Change(3))]); // one of ten
    let written = tested.tier.len();
    for key in 50..150 {
        tested.batch(&[(key, Act::Put(1, "x".repeat(300)))]);
        tested.relieve();
    }
    assert_eq!(tested.tier.len(), written, "nobody but the snapshot writes");
    assert_eq!(tested.table.of(1).len(), 10, "nine are clean, and stay with the tenth");
    tested.apply(usize::MAX);
    crowd(&mut tested);
    assert_eq!(tested.table.of(1).len(), 0);
    tested.batch(&[(1, Act::Look)]);
}

/// The table takes thousands of entries more between a cut and its sweep: what it keeps for the cut is for the tier even so.
#[test]
fn what_splits_under_the_sweep_still_goes_to_the_tier() {
    let fill = |keys: std::ops::Range<u32>| keys.map(|key| (key, Act::Fill(150))).collect::<Vec<_>>();
    let mut tested = Tested::<Maps>::new();
    tested.batch(&fill(0..15));
    tested.cut();
    tested.sweep(1_000);
    tested.batch(&[(3, Act::Clear), (4, Act::Put(7, "changed".to_owned())), (5, Act::Remove(7))]);
    tested.batch(&fill(15..60));
    tested.settle();
    tested.restart();
}

/// What memory alone has written as changes of changes can be restored into a tier.
#[test]
fn snapshots_since_others_are_restored_into_a_tier() {
    let mut plain = Maps::new(spec(all()));
    let mut expected = Model::<Maps>::new();
    let mut snapshots: Vec<Vec<Block>> = Vec::new();
    let mut base = None;
    plain.track_changes();
    for round in 0..4_u32 {
        for key in 0..KEYS {
            let of = expected.entry(key).or_default();
            plain.act(key, &Act::Put(round, round.to_string()), of);
            if round > key % 3 {
                plain.act(key, &Act::Remove(round - key % 3 - 1), of);
            }
            if (key + round) % 5 == 0 {
                plain.act(key, &Act::Clear, of);
            }
        }
        base = Some(plain.cut_since(base));
        let mut blocks = Vec::new();
        while plain.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
        blocks.sort_by_key(|block| block.kind == BlockKind::Changed);
        snapshots.push(blocks);
    }
    assert!(snapshots.iter().flatten().any(|block| block.kind == BlockKind::Removed));
    let (mut table, tier, _) = attached::<Maps>(all());
    for block in snapshots.iter().flatten() {
        table.restore(block, all()).unwrap();
    }
    expected.retain(|_, of| !of.is_empty());
    assert_eq!(tier.len() as u64, table.len());
    check(&mut [table], &expected, "restored");
    let (mut table, ..) = attached::<Maps>(all());
    table.restore(&snapshots[0][0], all()).unwrap();
    let error = table.restore(&snapshots[0][0], all()).unwrap_err();
    assert!(error.to_string().contains("the key is there already"), "{error}");
}

#[test]
fn a_block_for_a_tier_is_for_nothing_else_and_no_other_is_for_one() {
    let mut tested = Tested::<Maps>::new();
    tested.batch(&puts(0..10, "value"));
    let mut blocks = Vec::new();
    tested.table.cut();
    while tested.table.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    let [block] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!((block.kind, block.entries), (BlockKind::ForTier, 10));
    let (mut on_a_tier, tier, state) = attached::<Maps>(all());
    for table in [&mut Maps::new(spec(all())), &mut on_a_tier] {
        let error = table.restore(block, all()).unwrap_err();
        assert!(error.to_string().contains("it is for a tier, and not for a table"), "{error}");
    }
    let header = on_a_tier.header();
    for base in [None, Some(CheckpointId(1))] {
        let (job, task) = ("job".to_owned(), "task".to_owned());
        let checkpoint = CheckpointId(2);
        let of_file =
            SnapshotHeader { job, task, subtask: 0, parallelism: 1, checkpoint, base, states: vec![header.clone()] };
        let mut encoder = SnapshotEncoder::new(&of_file, Compression::None, &mut Vec::new()).unwrap();
        assert!(encoder.frame(block).is_err(), "{base:?}");
    }
    for kind in [BlockKind::All, BlockKind::Changed] {
        let block = Block { kind, ..block.clone() };
        let error = apply_block(&*tier, state, &header, &block, &mut ColdBatch::default()).unwrap_err();
        assert!(error.to_string().contains("no table with a tier has written this map"), "{error}");
    }
    let mut damaged = block.clone();
    let length = damaged.payload.len();
    damaged.payload.truncate(length - 1);
    for at in 0..length - 1 {
        let mut damaged = block.clone();
        damaged.payload[at] ^= 0x80;
        // It may still make sense, but there is no panic.
        drop(apply_block(&*tier, state, &header, &damaged, &mut ColdBatch::default()));
    }
    assert!(apply_block(&*tier, state, &header, &damaged, &mut ColdBatch::default()).is_err());
}
