//! What may expire, with a tier below: nothing that lives is lost, and what has expired does not come back as if it lived.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use cutwater_core::{KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::{
    Block, ColdBatch, ColdState, ColdTier, Cut, ListTable, MapTable, ModelTier, Snapshotable, StateError,
    SweepProgress, TableSpec, apply_block, blocks_of_view, hash_key, stamp_of_value,
};
use proptest::prelude::*;

const KEYS: u32 = 60;
/// So many bytes hold some dozens of entries.
const LIMIT: u64 = 6 << 10;
/// How long entries live.
const TTL: i64 = 40;

fn spec() -> TableSpec {
    let operator = OperatorUid::new("operator").unwrap();
    let max_parallelism = MaxParallelism::new(8).unwrap();
    TableSpec { operator, name: "state".to_owned(), max_parallelism, key_groups: max_parallelism.all() }
}

fn hash(key: u32) -> KeyHash {
    hash_key(&key, &mut Vec::new())
}

/// Under a key, what each user key has with its stamp.
type Map = BTreeMap<u32, (i64, String)>;
type Model = BTreeMap<u32, Map>;

/// What of it lives at a horizon.
fn living(model: &Model, horizon: i64) -> Model {
    let mut living = model.clone();
    living.values_mut().for_each(|map| map.retain(|_, (stamp, _)| *stamp > horizon));
    living.retain(|_, map| !map.is_empty());
    living
}

struct Tested {
    tier: Arc<ModelTier>,
    state: ColdState,
    table: MapTable<u32, u32, String>,
    now: i64,
    model: Model,
    /// A cut that is swept or applied: with the horizon and what lived then, its blocks, whether all are here.
    running: Option<(Cut, i64, Model, Vec<Block>, bool)>,
}

impl Tested {
    fn new() -> Self {
        let tier = Arc::new(ModelTier::default());
        let mut table = MapTable::new(spec());
        table.attach(tier.clone(), LIMIT).unwrap();
        let state = tier.open(&table.header()).unwrap();
        Self { tier, state, table, now: 0, model: Model::new(), running: None }
    }

    fn horizon(&self) -> i64 {
        self.now - TTL
    }

    /// What is there of a key and lives. It has to be in memory.
    fn of(&self, key: u32) -> Map {
        let of = self.table.iter(hash(key), &key);
        let of = of.map(|(user, stamp, value)| (*user, (stamp.unwrap(), value.clone())));
        of.filter(|(_, (stamp, _))| *stamp > self.horizon()).collect()
    }

    fn check(&mut self, key: u32) {
        let living = living(&self.model, self.horizon());
        assert_eq!(self.of(key), living.get(&key).cloned().unwrap_or_default(), "{key} at {}", self.now);
    }

    fn batch(&mut self, changes: &[(u32, u32, Change)]) {
        let keys: Vec<u32> = changes.iter().map(|(key, ..)| *key).collect();
        self.table.fetch(keys.iter().map(|key| (hash(*key), key))).unwrap();
        for (key, user, change) in changes {
            let (key, user, now) = (*key, *user, self.now);
            self.check(key);
            let map = self.model.entry(key).or_default();
            match change {
                Change::Put(value) => {
                    self.table.insert(hash(key), &key, user, Some(now), value.clone()).unwrap();
                    map.insert(user, (now, value.clone()));
                }
                Change::Renew => {
                    // Only what lives is renewed, as whoever reads it sees to.
                    let lives = |stamp: i64| stamp > now - TTL;
                    if map.get(&user).is_some_and(|(stamp, _)| lives(*stamp)) {
                        self.table.get_mut(hash(key), &key, &user, Some(now)).unwrap().unwrap();
                        map.get_mut(&user).unwrap().0 = now;
                    }
                }
                Change::Remove => {
                    self.table.remove(hash(key), &key, &user).unwrap();
                    map.remove(&user);
                }
            }
            self.check(key);
        }
    }

    fn clean(&mut self, slots: usize) {
        self.table.clean(self.horizon(), self.now, slots).unwrap();
    }

    fn cut(&mut self) {
        if self.running.is_none() {
            self.table.set_horizon(self.horizon());
            let cut = self.table.cut();
            self.running = Some((cut, self.horizon(), living(&self.model, self.horizon()), Vec::new(), false));
        }
    }

    fn sweep(&mut self, budget: usize) {
        if let Some((_, _, _, blocks, all)) = &mut self.running
            && !*all
        {
            *all = self.table.sweep(budget, &mut |block| blocks.push(block)).unwrap() == SweepProgress::Done;
        }
    }

    /// The blocks of a swept cut come into the tier, which then has what lived at the cut.
    fn apply(&mut self) {
        let Some((cut, horizon, then, blocks, true)) = self.running.take_if(|(.., all)| *all) else { return };
        for block in &blocks {
            apply_block(&*self.tier, self.state, &self.table.header(), block, &mut ColdBatch::default()).unwrap();
        }
        let view = self.tier.view().unwrap();
        self.table.applied(cut);
        // The view is read while the job goes on.
        self.now += TTL / 4;
        self.clean(1_000);
        let mut restored = MapTable::<u32, u32, String>::new(spec());
        let all = spec().key_groups;
        let emit = |block: Block| restored.restore(&block, all).map(drop);
        blocks_of_view::<StateError>(&*view, self.state, &self.table.header(), all, emit).unwrap();
        for key in 0..KEYS {
            let of = restored.iter(hash(key), &key);
            let of = of.map(|(user, stamp, value)| (*user, (stamp.unwrap(), value.clone())));
            let of: Map = of.filter(|(_, (stamp, _))| *stamp > horizon).collect();
            assert_eq!(of, then.get(&key).cloned().unwrap_or_default(), "{key} in the snapshot of {horizon}");
        }
    }

    fn give_up(&mut self) {
        if self.running.take().is_some() {
            self.table.abort();
            self.table.not_applied();
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(String),
    Renew,
    Remove,
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<(u32, u32, Change)>),
    Later(i64),
    Clean(usize),
    Relieve,
    Cut,
    Sweep(usize),
    Apply,
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        4 => "[a-z]{0,40}".prop_map(Change::Put),
        3 => Just(Change::Renew),
        1 => Just(Change::Remove),
    ];
    let key = prop_oneof![0..KEYS, 0..4_u32];
    prop_oneof![
        10 => prop::collection::vec((key, 0..5_u32, change), 1..30).prop_map(Step::Batch),
        6 => (1..20_i64).prop_map(Step::Later),
        5 => (1..400_usize).prop_map(Step::Clean),
        6 => Just(Step::Relieve),
        3 => Just(Step::Cut),
        6 => (1..3_000_usize).prop_map(Step::Sweep),
        3 => Just(Step::Apply),
        1 => Just(Step::GiveUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_lives_is_there_and_what_has_expired_is_not(steps in prop::collection::vec(step(), 1..150)) {
        let mut tested = Tested::new();
        for step in steps {
            match step {
                Step::Batch(changes) => tested.batch(&changes),
                Step::Later(by) => tested.now += by,
                Step::Clean(slots) => tested.clean(slots),
                Step::Relieve => tested.table.relieve().unwrap(),
                Step::Cut => tested.cut(),
                Step::Sweep(budget) => tested.sweep(budget),
                Step::Apply => tested.apply(),
                Step::GiveUp => tested.give_up(),
            }
        }
        for key in 0..KEYS {
            tested.batch(&[(key, 0, Change::Renew)]);
            tested.table.relieve().unwrap();
        }
        // Once all has expired and was cleaned, nothing is left anywhere.
        tested.cut();
        while !matches!(tested.running, Some((.., true))) {
            tested.sweep(10_000);
        }
        tested.apply();
        tested.now += TTL;
        tested.clean(100_000);
        prop_assert_eq!(tested.tier.len(), 0);
    }
}

/// What is in the tier goes only once no cut needs it that is on its way there.
#[test]
fn a_cut_on_its_way_into_the_tier_has_what_lived_then() {
    let mut tested = Tested::new();
    let put = |key| (key, 0, Change::Put("x".repeat(100)));
    tested.batch(&(0..KEYS).map(put).collect::<Vec<_>>());
    tested.table.relieve().unwrap();
    assert!(tested.table.cold_entries() > 0);
    tested.now = TTL - 1; // all of them live
    tested.cut();
    while !matches!(tested.running, Some((.., true))) {
        tested.sweep(10_000);
    }
    tested.now = TTL; // none does
    tested.clean(100_000);
    tested.apply(); // compares
    tested.clean(100_000);
    assert!(tested.tier.is_empty(), "{} are left", tested.tier.len());
}

#[test]
fn lists_go_on_where_their_living_elements_end() {
    let tier = Arc::new(ModelTier::default());
    let mut lists: ListTable<u32, u64> = ListTable::new(spec());
    lists.attach(tier.clone(), 0).unwrap();
    let elements = |lists: &ListTable<u32, u64>| -> Vec<_> {
        lists.iter(hash(1), &1).map(|(stamp, element)| (stamp, *element)).collect()
    };
    for now in 0..100 {
        lists.fetch([(hash(1), &1)]).unwrap();
        lists.push(hash(1), &1, Some(now), now as u64).unwrap();
        let living: Vec<_> = elements(&lists).into_iter().filter(|(stamp, _)| *stamp > Some(now - TTL)).collect();
        let expected: Vec<_> = (0.max(now - TTL + 1)..=now).map(|at| (Some(at), at as u64)).collect();
        assert_eq!(living, expected);
        lists.relieve().unwrap();
        lists.clean(now - TTL, now, 10).unwrap();
        assert!(tier.len() <= TTL as usize, "at {now} the tier has {}", tier.len());
    }
    assert!(!tier.is_empty(), "the list is in the tier");
}

#[test]
fn a_value_in_a_tier_begins_with_its_stamp() {
    let tier = Arc::new(ModelTier::default());
    let mut table: MapTable<u32, u32, String> = MapTable::new(spec());
    table.attach(tier.clone(), 0).unwrap();
    let state = tier.open(&table.header()).unwrap();
    let stamps = [None, Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN + 1), Some(1_764_500_000_000)];
    for (key, stamp) in (0..).zip(stamps) {
        table.insert(hash(key), &key, 7, stamp, "value".to_owned()).unwrap();
    }
    table.relieve().unwrap();
    assert_eq!(table.cold_entries(), stamps.len() as u64);
    let mut found = Vec::new();
    let mut visit = |_: &[u8], value: &[u8]| {
        found.push(stamp_of_value(value));
        std::ops::ControlFlow::Continue(())
    };
    tier.view().unwrap().scan(state, spec().key_groups, &mut visit).unwrap();
    found.sort_unstable();
    let mut expected = stamps.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for bytes in [&[][..], &[2], &[1], &[1, 0x80], &[0xff; 12]] {
        assert_eq!(stamp_of_value(bytes), None, "{bytes:?} is no stamp");
    }
}
