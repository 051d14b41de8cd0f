use std::ops::ControlFlow;

use cutwater_core::{KeyGroup, KeyGroupRange, MaxParallelism, OperatorUid};
use cutwater_state::{CodecId, ColdBatch, ColdState, ColdTier, ColdView, Schema, StateHeader, StateKind, encode};

use crate::{RocksBudget, RocksTier};

const ENTRIES: u32 = 20_000;

fn opened(tier: &RocksTier) -> ColdState {
    let header = StateHeader {
        operator: OperatorUid::new("operator").unwrap(),
        name: "state".to_owned(),
        kind: StateKind::Map,
        key_codec: CodecId::Bytes,
        key_schema: Schema::Bytes,
        value_codec: CodecId::Bytes,
        value_schema: Schema::Bytes,
        max_parallelism: MaxParallelism::default(),
    };
    tier.open(&header).unwrap()
}

/// Entries with the stamps from 0 on; each hundredth has none.
fn fill(tier: &RocksTier, state: ColdState) {
    let mut batch = ColdBatch::default();
    for n in 0..ENTRIES {
        let mut value = Vec::new();
        encode(&((n % 100 != 0).then_some(i64::from(n)), "x".repeat(30)), &mut value).unwrap();
        batch.put(&[&[0, (n % 9) as u8][..], &n.to_be_bytes()].concat(), &value);
    }
    batch.sort();
    tier.write(state, &batch).unwrap();
    tier.flush().unwrap();
}

fn count(view: &dyn ColdView, state: ColdState) -> u32 {
    let all = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(u16::MAX) };
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    view.scan(state, all, &mut visit).unwrap();
    count
}

/// How many entries are really in the files.
fn stored(tier: &RocksTier, state: ColdState) -> u32 {
    let names: Vec<Vec<u8>> = (0..ENTRIES).map(|n| [&[0, (n % 9) as u8][..], &n.to_be_bytes()].concat()).collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let mut count = 0;
    tier.get(state, &names, &mut |_, _| count += 1).unwrap();
    count
}

fn compact(tier: &RocksTier, state: ColdState) {
    let database = tier.database();
    database.db.compact_range_cf(&database.family(state).unwrap(), None::<&[u8]>, None::<&[u8]>);
}

#[test]
fn compactions_rid_the_files_of_what_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let tier = RocksTier::create(folder.path(), &RocksBudget::default()).unwrap();
    let state = opened(&tier);
    fill(&tier, state);
    compact(&tier, state);
    assert_eq!(stored(&tier, state), ENTRIES, "nothing was told");
    tier.expire(state, 9_999);
    assert_eq!(stored(&tier, state), ENTRIES, "it goes when its file is rewritten");
    assert_eq!(count(&*tier.view().unwrap(), state), ENTRIES / 2 + 100, "but is in no snapshot any more");
    compact(&tier, state);
    assert_eq!(stored(&tier, state), ENTRIES / 2 + 100, "with those that have no stamp");
    assert!(tier.about(state).unwrap() <= u64::from(ENTRIES / 2 + 100));
}

#[test]
fn a_view_keeps_what_expires_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let tier = RocksTier::create(folder.path(), &RocksBudget::default()).unwrap();
    let state = opened(&tier);
    fill(&tier, state);
    let (first, second) = (tier.view().unwrap(), tier.view().unwrap());
    tier.expire(state, 9_999);
    compact(&tier, state);
    let third = tier.view().unwrap();
    assert_eq!((count(&*first, state), count(&*second, state)), (ENTRIES, ENTRIES));
    assert_eq!(count(&*third, state), ENTRIES / 2 + 100);
    drop(first);
    tier.expire(state, 14_999);
    compact(&tier, state);
    assert_eq!(count(&*second, state), ENTRIES);
    assert_eq!(count(&*third, state), ENTRIES / 2 + 100);
    drop((second, third));
    compact(&tier, state);
    assert_eq!(stored(&tier, state), ENTRIES / 4 + 150, "what was told meanwhile counts");
}

#[test]
fn a_database_that_is_opened_again_has_no_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let tier = RocksTier::create(folder.path(), &RocksBudget::default()).unwrap();
    let state = opened(&tier);
    fill(&tier, state);
    tier.expire(state, 9_999);
    drop(tier);
    let tier = RocksTier::reopen(folder.path(), &RocksBudget::default()).unwrap();
    let state = opened(&tier);
    compact(&tier, state);
    assert_eq!(stored(&tier, state), ENTRIES, "the job goes on from before, and its time with it");
    tier.expire(state, 9_999);
    compact(&tier, state);
    assert_eq!(stored(&tier, state), ENTRIES / 2 + 100);
}
