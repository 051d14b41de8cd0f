//! Timers with a tier below, against timers in memory: whatever is put out, comes back, is cut, applied and given up, and wherever
//! it is restored, the same ones fire in the same order.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cutwater_core::{KeyGroup, KeyGroupRange, KeyHash, MaxParallelism, OperatorUid, Timestamp};
use cutwater_state::{
    Block, BlockKind, ColdBatch, ColdError, ColdFound, ColdState, ColdTier, ColdView, ColdVisitor, Cut, ImageSource,
    Key, ModelTier, Snapshotable, StateHeader, SweepProgress, TableSpec, Timers, apply_block, blocks_of_view, hash_key,
};
use proptest::prelude::*;

fn spec_of(max: u32, key_groups: Option<KeyGroupRange>) -> TableSpec {
    let max_parallelism = MaxParallelism::new(max).unwrap();
    let operator = OperatorUid::new("operator").unwrap();
    let key_groups = key_groups.unwrap_or(max_parallelism.all());
    TableSpec { operator, name: "timers".to_owned(), max_parallelism, key_groups }
}

fn spec(key_groups: Option<KeyGroupRange>) -> TableSpec {
    spec_of(8, key_groups)
}

fn all() -> KeyGroupRange {
    spec(None).key_groups
}

fn groups(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

fn hash<K: Key>(key: &K) -> KeyHash {
    hash_key(key, &mut Vec::new())
}

/// So many bytes hold less than what stays in any case: each call puts out all else.
const LIMIT: u64 = 4 << 10;
const KEYS: u32 = 300;

/// Integers, and texts of which some are the beginnings of others.
trait Tried: Key + Ord + Debug {
    fn of(number: u32) -> Self;
}

impl Tried for u64 {
    fn of(number: u32) -> Self {
        number.into()
    }
}

impl Tried for String {
    fn of(number: u32) -> Self {
        "\0a".repeat(number as usize % 7) + &"\u{ff}".repeat(number as usize % 3) + &number.to_string()
    }
}

type Set<K> = BTreeSet<(i64, K)>;

fn drained<K: Tried>(timers: &mut Timers<K>) -> Vec<(i64, K)> {
    let mut fired = Vec::new();
    while let Some((time, hashed, key)) = timers.pop_due(Timestamp::MAX).unwrap() {
        assert_eq!(hashed, hash(&key));
        fired.push((time.0, key));
    }
    fired
}

/// What is written of these timers in memory, whole.
fn blocks_of<K: Tried>(set: &Set<K>) -> Vec<Block> {
    let mut plain = Timers::new(spec(None));
    for (time, key) in set {
        plain.register(hash(key), key, Timestamp(*time)).unwrap();
    }
    let mut blocks = Vec::new();
    plain.cut();
    while plain.sweep(10_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    blocks
}

fn restored<K: Tried>(blocks: &[Block], key_groups: KeyGroupRange) -> Timers<K> {
    let mut timers = Timers::new(spec(Some(key_groups)));
    for block in blocks {
        timers.restore(block, key_groups).unwrap();
    }
    timers
}

struct Tested<K: Tried> {
    tier: Arc<ModelTier>,
    state: ColdState,
    timers: Timers<K>,
    plain: Timers<K>,
    expected: Set<K>,
    /// The cut that is being swept, what was set then, and its blocks so far.
    running: Option<(Cut, Set<K>, Vec<Block>)>,
    /// The same once it is swept, with how many of the blocks are in the tier.
    swept: Option<(Cut, Set<K>, Vec<Block>, usize)>,
}

impl<K: Tried> Tested<K> {
    fn new() -> Self {
        let (tier, timers, state) = Self::attached(ModelTier::default(), all());
        let (plain, expected) = (Timers::new(spec(None)), Set::new());
        Self { tier, state, timers, plain, expected, running: None, swept: None }
    }

    fn attached(tier: ModelTier, key_groups: KeyGroupRange) -> (Arc<ModelTier>, Timers<K>, ColdState) {
        let tier = Arc::new(tier);
        let mut timers = Timers::new(spec(Some(key_groups)));
        timers.attach(tier.clone(), LIMIT).unwrap();
        let state = tier.open(&timers.header()).unwrap();
        (tier, timers, state)
    }

    fn register(&mut self, timers: &[(u32, i64)]) {
        for (number, time) in timers {
            let (key, time) = (K::of(*number), Timestamp(*time));
            let told = self.timers.register(hash(&key), &key, time).unwrap();
            let new = self.plain.register(hash(&key), &key, time).unwrap();
            assert!(told || !new, "a timer is new that is said to be set");
            self.expected.insert((time.0, key));
        }
    }

    fn delete(&mut self, timers: &[(u32, i64)]) {
        for (number, time) in timers {
            let (key, time) = (K::of(*number), Timestamp(*time));
            let told = self.timers.delete(hash(&key), &key, time).unwrap();
            let set = self.plain.delete(hash(&key), &key, time).unwrap();
            assert!(told || !set, "a timer was set that is said to be none");
            self.expected.remove(&(time.0, key));
        }
    }

    fn pop(&mut self, now: i64, count: usize) {
        for _ in 0..count {
            let (due, next) = (self.plain.next_due(), self.timers.next_due());
            assert!(due.is_none_or(|due| next.is_some_and(|next| next <= due)), "{next:?}, but {due:?} is due");
            let fired = self.timers.pop_due(Timestamp(now)).unwrap();
            assert_eq!(fired, self.plain.pop_due(Timestamp(now)).unwrap());
            let Some((time, _, key)) = fired else { break };
            assert!(self.expected.remove(&(time.0, key)));
        }
    }

    /// As an operator does it. Each that fires may set and delete others of its key.
    fn fire(&mut self, now: i64, most: usize, at: i64) {
        let due = self.timers.due(Timestamp(now), most).unwrap();
        let keys: BTreeSet<K> = due.keys().map(|(_, key)| key.clone()).collect();
        let mut fired = 0;
        while let Some((time, hashed, key)) = self.timers.pop_of(&due).unwrap() {
            assert!(keys.contains(&key), "{key:?} could not be fetched");
            let expected = self.plain.pop_due(Timestamp(now)).unwrap();
            assert_eq!(Some((time, hashed, key.clone())), expected);
            self.expected.remove(&(time.0, key.clone()));
            fired += 1;
            let other = Timestamp(time.0.saturating_add(at));
            if fired % 3 == 0 && other > time {
                for timers in [&mut self.timers, &mut self.plain] {
                    timers.register(hashed, &key, other).unwrap();
                }
                self.expected.insert((other.0, key));
            } else if fired % 3 == 1 {
                for timers in [&mut self.timers, &mut self.plain] {
                    timers.delete(hashed, &key, other).unwrap();
                }
                self.expected.remove(&(other.0, key));
            }
        }
        let left = self.plain.next_due().is_some_and(|due| due.0 <= now);
        assert!(fired > 0 || !left, "nothing fires though it is time");
    }

    fn cut(&mut self) {
        if self.running.is_none() && self.swept.is_none() {
            self.running = Some((self.timers.cut(), self.expected.clone(), Vec::new()));
        }
    }

    fn sweep(&mut self, budget: usize) {
        let Some((cut, then, mut blocks)) = self.running.take() else { return };
        match self.timers.sweep(budget, &mut |block| blocks.push(block)).unwrap() {
            SweepProgress::More => self.running = Some((cut, then, blocks)),
            SweepProgress::Done => self.swept = Some((cut, then, blocks, 0)),
        }
    }

    /// Some of the blocks come into the tier; once all have it is what was set at the cut.
    fn apply(&mut self, count: usize) {
        let Some((cut, then, blocks, from)) = self.swept.take() else { return };
        let to = (from + count).min(blocks.len());
        self.write(&blocks[from..to]);
        if to < blocks.len() {
            self.swept = Some((cut, then, blocks, to));
            return;
        }
        self.check_tier(&then);
        self.timers.applied(cut);
    }

    fn write(&self, blocks: &[Block]) {
        for block in blocks {
            apply_block(&*self.tier, self.state, &self.timers.header(), block, &mut ColdBatch::default()).unwrap();
        }
    }

    fn give_up(&mut self) {
        if let Some((_, _, blocks)) = self.running.take() {
            self.write(&blocks);
            self.timers.abort();
            self.timers.not_applied();
        } else if self.swept.take().is_some() {
            self.timers.not_applied();
        }
    }

    /// A snapshot made of the tier as it is now.
    fn canonical(&self) -> Vec<Block> {
        let (view, mut blocks) = (self.tier.view().unwrap(), Vec::new());
        let mut emit = |block| {
            blocks.push(block);
            Ok::<_, cutwater_state::StateError>(())
        };
        blocks_of_view(&*view, self.state, &self.timers.header(), all(), &mut emit).unwrap();
        blocks
    }

    /// A snapshot made of the tier restores to these timers, in memory and at two subtasks.
    fn check_tier(&self, then: &Set<K>) {
        let blocks = self.canonical();
        assert_eq!(blocks.iter().map(|block| u64::from(block.entries)).sum::<u64>(), then.len() as u64);
        for parts in [vec![all()], vec![groups(0, 2), groups(3, 7)]] {
            let mut found = Set::new();
            for part in parts {
                found.extend(drained(&mut restored(&blocks, part)));
            }
            assert_eq!(found, *then, "the tier is as the timers were at the cut");
        }
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

    /// Goes on from a checkpoint, in a new tier.
    fn restart(&mut self, from: From) {
        self.settle();
        self.cut();
        self.settle();
        let halves = [groups(0, 3), groups(4, 7)];
        let (tier, timers, state) = match from {
            From::Tier => Self::restored(&self.canonical(), all()),
            From::Memory => Self::restored(&blocks_of(&self.expected), all()),
            From::Image => {
                let image = self.tier.image().unwrap().unwrap();
                let stored = Stored { image: &*image };
                let imported = |groups| {
                    let new = ModelTier::default();
                    new.import(&[&stored as &dyn ImageSource], groups).unwrap();
                    let (tier, mut timers, state) = Self::attached(new, groups);
                    timers.imported(tier.about(state).unwrap());
                    (tier, timers, state)
                };
                let mut found = Vec::new();
                for half in halves {
                    found.extend(drained(&mut imported(half).1));
                }
                assert_eq!(found.into_iter().collect::<Set<K>>(), self.expected, "the halves of an image");
                imported(all())
            }
        };
        if matches!(from, From::Tier) {
            let mut found = Vec::new();
            for half in halves {
                found.extend(drained(&mut Self::restored(&self.canonical(), half).1));
            }
            assert_eq!(found.into_iter().collect::<Set<K>>(), self.expected, "the halves of a snapshot");
        }
        (self.tier, self.timers, self.state) = (tier, timers, state);
    }

    fn restored(blocks: &[Block], key_groups: KeyGroupRange) -> (Arc<ModelTier>, Timers<K>, ColdState) {
        let (tier, mut timers, state) = Self::attached(ModelTier::default(), key_groups);
        for block in blocks {
            timers.restore(block, key_groups).unwrap();
        }
        (tier, timers, state)
    }

    fn in_memory(&self) -> u64 {
        self.timers.len() - self.timers.cold_entries()
    }
}

#[derive(Debug)]
struct Stored<'a> {
    image: &'a dyn cutwater_state::ColdImage,
}

impl ImageSource for Stored<'_> {
    fn files(&self) -> &[cutwater_state::ImageFile] {
        self.image.files()
    }

    fn groups(&self) -> KeyGroupRange {
        all()
    }

    fn read(&self, file: usize, make: &mut cutwater_state::MakeFile<'_>) -> Result<(), ColdError> {
        std::io::copy(&mut self.image.open(file).unwrap(), &mut make().unwrap()).unwrap();
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum From {
    Tier,
    Memory,
    Image,
}

#[derive(Clone, Debug)]
enum Step {
    Register(Vec<(u32, i64)>),
    Delete(Vec<(u32, i64)>),
    /// More than memory holds.
    Fill(i64),
    Pop(i64, usize),
    Fire(i64, usize, i64),
    Relieve,
    Cut,
    Sweep(usize),
    Apply(usize),
    GiveUp,
    Restart(From),
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![20 => -20..20_i64, 5 => -3..3_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 2 => any::<i64>()]
}

fn step() -> impl Strategy<Value = Step> {
    // Often the same ones, so that timers go and come back.
    let timer = || (prop_oneof![0..KEYS, 0..6_u32], time());
    let timers = move || prop::collection::vec(timer(), 1..60);
    prop_oneof![
        6 => timers().prop_map(Step::Register),
        1 => time().prop_map(Step::Fill),
        5 => timers().prop_map(Step::Delete),
        2 => (time(), 1..200_usize).prop_map(|(now, count)| Step::Pop(now, count)),
        2 => (time(), 1..200_usize, -10..40_i64).prop_map(|(now, most, at)| Step::Fire(now, most, at)),
        8 => Just(Step::Relieve),
        3 => Just(Step::Cut),
        6 => (1..3_000_usize).prop_map(Step::Sweep),
        3 => (1..4_usize).prop_map(Step::Apply),
        1 => Just(Step::GiveUp),
        1 => prop_oneof![Just(From::Tier), Just(From::Memory), Just(From::Image)].prop_map(Step::Restart),
    ]
}

fn run<K: Tried>(steps: Vec<Step>) {
    let mut tested = Tested::<K>::new();
    for step in steps {
        match step {
            Step::Register(timers) => tested.register(&timers),
            Step::Delete(timers) => tested.delete(&timers),
            Step::Fill(time) => tested.register(&(0..KEYS).map(|key| (key, time)).collect::<Vec<_>>()),
            Step::Pop(now, count) => tested.pop(now, count),
            Step::Fire(now, most, at) => tested.fire(now, most, at),
            Step::Relieve => tested.timers.relieve().unwrap(),
            Step::Cut => tested.cut(),
            Step::Sweep(budget) => tested.sweep(budget),
            Step::Apply(blocks) => tested.apply(blocks),
            Step::GiveUp => tested.give_up(),
            Step::Restart(from) => tested.restart(from),
        }
    }
    tested.settle();
    tested.cut();
    tested.settle();
    tested.pop(i64::MAX, usize::MAX);
    assert_eq!((tested.timers.len(), tested.timers.next_due()), (0, None), "all have fired");
    tested.cut();
    tested.settle();
    assert!(tested.tier.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn timers_on_a_tier_fire_as_those_in_memory_and_the_tier_is_each_cut(steps in prop::collection::vec(step(), 1..150)) {
        run::<String>(steps);
    }

    #[test]
    fn so_do_those_of_keys_of_one_length(steps in prop::collection::vec(step(), 1..150)) {
        run::<u64>(steps);
    }
}

/// A tier that counts how often it is read, and fails when it is told to.
#[derive(Debug, Default)]
struct Counted {
    model: ModelTier,
    reads: AtomicU64,
    fails: AtomicBool,
}

impl Counted {
    fn act(&self) -> Result<(), ColdError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(ColdError { action: "act".into(), reason: "planned".into() }),
            false => Ok(()),
        }
    }
}

impl ColdTier for Counted {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.model.open(header)
    }

    fn get(&self, _: ColdState, _: &[&[u8]], _: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        panic!("timers are not looked up");
    }

    fn get_all(&self, _: ColdState, _: &[&[u8]], _: &mut ColdFound<'_>) -> Result<(), ColdError> {
        panic!("timers are not looked up");
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.act()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.model.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.act()?;
        self.model.write(state, batch)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.model.view()
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.model.about(state)
    }
}

fn counted(max: u32, limit: u64) -> (Arc<Counted>, Timers<u64>) {
    let tier = Arc::new(Counted::default());
    let mut timers = Timers::new(spec_of(max, None));
    timers.attach(tier.clone(), limit).unwrap();
    (tier, timers)
}

#[test]
fn many_timers_fire_with_little_memory_and_few_reads() {
    const TIMERS: u64 = 100_000;
    let (tier, mut timers) = counted(128, 256 << 10);
    let mut most = 0;
    for n in 0..TIMERS {
        let (key, time) = (n % 50_000, Timestamp((n * 7_919 % TIMERS) as i64));
        assert!(timers.register(hash(&key), &key, time).unwrap());
        if n % 1_000 == 999 {
            timers.relieve().unwrap();
            most = most.max(timers.len() - timers.cold_entries());
        }
    }
    assert!(most < 2_000, "{most} timers in memory");
    assert_eq!((timers.len(), tier.reads.load(Ordering::SeqCst)), (TIMERS, 0), "nothing was read to set them");
    let mut fired = 0;
    loop {
        let due = timers.due(Timestamp::MAX, 256).unwrap();
        if due.is_empty() {
            break;
        }
        while let Some((time, _, key)) = timers.pop_of(&due).unwrap() {
            assert_eq!(time.0, fired);
            assert_eq!(
                time.0 as u64,
                (0..2).map(|half| (key + half * 50_000) * 7_919 % TIMERS).find(|at| *at == fired as u64).unwrap()
            );
            fired += 1;
        }
        timers.relieve().unwrap();
        most = most.max(timers.len() - timers.cold_entries());
    }
    assert_eq!((fired, timers.len()), (TIMERS as i64, 0));
    assert!(most < 2_500, "{most} timers in memory");
    let reads = tier.reads.load(Ordering::SeqCst);
    assert!(reads < TIMERS / 6, "{reads} reads for {TIMERS} timers");
    assert!(tier.model.len() < 20_000, "{} that have fired are still in the tier", tier.model.len());
}

#[test]
fn groups_without_timers_cost_nothing() {
    let (tier, mut timers) = counted(32_768, 4 << 10);
    for key in 0..500 {
        timers.register(hash(&key), &key, Timestamp(key as i64 % 7)).unwrap();
    }
    timers.relieve().unwrap();
    timers.cut();
    let state = timers.cold().unwrap();
    let header = timers.header();
    let mut apply = |block| apply_block(&*tier, state, &header, &block, &mut ColdBatch::default()).unwrap();
    while timers.sweep(1 << 20, &mut apply).unwrap() == SweepProgress::More {}
    timers.applied(Cut(1));
    let mut again = Timers::<u64>::new(spec_of(32_768, None));
    again.attach(tier.clone(), 1 << 20).unwrap();
    again.imported(500);
    assert_eq!(again.next_due(), Some(Timestamp::MIN), "nobody has looked yet");
    assert_eq!(again.pop_due(Timestamp(-1)).unwrap(), None);
    assert_eq!(again.next_due(), Some(Timestamp(0)));
    let looked = tier.reads.load(Ordering::SeqCst);
    assert!(looked <= 501, "{looked} reads to find where the timers begin");
    assert_eq!(drained(&mut again).len(), 500);
    let reads = tier.reads.load(Ordering::SeqCst) - looked;
    assert!(reads <= 500, "{reads} reads for 500 timers in as many groups");
    assert_eq!((again.len(), again.pop_due(Timestamp::MAX).unwrap()), (0, None));
    assert_eq!(tier.reads.load(Ordering::SeqCst) - looked, reads, "there is nothing left to be read");
}

#[test]
fn timers_that_have_changed_stay_while_a_cut_waits_to_be_applied() {
    let mut tested = Tested::<u64>::new();
    tested.register(&[(1, 1)]);
    tested.cut();
    while tested.running.is_some() {
        tested.sweep(1_000);
    }
    for key in 2..1_000 {
        tested.register(&[(key, i64::from(key))]);
        tested.timers.relieve().unwrap();
    }
    assert!(tested.tier.is_empty(), "nobody but the snapshot writes");
    tested.apply(usize::MAX);
    tested.timers.relieve().unwrap();
    assert!(tested.in_memory() < 100, "{} in memory", tested.in_memory());
    tested.pop(i64::MAX, usize::MAX);
}

#[test]
fn snapshots_since_others_are_restored_into_a_tier() {
    let mut tested = Tested::<String>::new();
    let plain = &mut tested.plain;
    let all_at = |time| (0..KEYS).map(move |key| (String::of(key), time));
    for (key, time) in all_at(5).chain(all_at(7)) {
        plain.register(hash(&key), &key, Timestamp(time)).unwrap();
    }
    plain.track_changes();
    let mut blocks = Vec::new();
    let mut base = plain.cut();
    while plain.sweep(5_000, &mut |block| blocks.push(block)).unwrap() == SweepProgress::More {}
    for round in 0..3 {
        for (key, time) in all_at(5).skip(round * 20).take(30) {
            plain.delete(hash(&key), &key, Timestamp(time)).unwrap();
        }
        for (key, time) in all_at(5).skip(round * 20).step_by(7).take(3).chain(all_at(-1).skip(round * 50).take(30)) {
            plain.register(hash(&key), &key, Timestamp(time)).unwrap();
        }
        let mut changed = Vec::new();
        base = plain.cut_since(Some(base));
        while plain.sweep(5_000, &mut |block| changed.push(block)).unwrap() == SweepProgress::More {}
        changed.sort_by_key(|block| block.kind == BlockKind::Changed);
        blocks.extend(changed);
    }
    (tested.tier, tested.timers, tested.state) = Tested::restored(&blocks, all());
    assert_eq!((tested.timers.len(), tested.in_memory()), (tested.plain.len(), 0));
    let fired = drained(&mut tested.timers);
    assert!(fired.len() > 500);
    assert_eq!(fired, drained(&mut tested.plain));
}

#[test]
fn what_has_fired_is_not_remembered_for_ever() {
    let mut tested = Tested::<u64>::new();
    for round in 0..20 {
        tested.register(&(0..KEYS).map(|key| (key, round)).collect::<Vec<_>>());
        tested.timers.relieve().unwrap();
    }
    let before = tested.tier.len();
    for round in 0..15 {
        tested.pop(round, usize::MAX);
        tested.timers.relieve().unwrap();
    }
    assert!(before > 5_000 && tested.tier.len() < before / 2, "{} of {before} are left in the tier", tested.tier.len());
    tested.pop(i64::MAX, usize::MAX);
}

#[test]
fn a_tier_that_fails_loses_no_timer() {
    let (tier, mut timers) = counted(8, 4 << 10);
    let mut set = Set::new();
    for key in 0..2_000 {
        if key % 100 == 50 {
            tier.fails.store(true, Ordering::SeqCst);
            timers.relieve().unwrap_err();
            tier.fails.store(false, Ordering::SeqCst);
        }
        if key % 100 == 99 {
            timers.relieve().unwrap();
        }
        let time = (key * 31 % 500) as i64;
        timers.register(hash(&key), &key, Timestamp(time)).unwrap();
        set.insert((time, key));
    }
    let (mut fired, mut failed) = (Vec::new(), 0);
    loop {
        tier.fails.store(fired.len() % 50 == 7 && failed < 30, Ordering::SeqCst);
        match timers.pop_due(Timestamp::MAX) {
            Ok(Some((time, _, key))) => fired.push((time.0, key)),
            Ok(None) => break,
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 0, "a read failed");
    assert_eq!(fired, set.into_iter().collect::<Vec<_>>());
}
