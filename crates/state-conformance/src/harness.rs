//! What the sentences share: specs, and what blocks hold.

use std::collections::BTreeMap;

use cutwater_core::{KeyGroup, KeyHash, MaxParallelism, OperatorUid, Timestamp};
use cutwater_state::{
    Block, BlockKind, Data, Key, Snapshotable, StateBackend, StateBackendExt, SweepProgress, Table, TableSpec, Timers,
    hash_key,
};

pub(crate) const MAX: u32 = 12;

pub(crate) fn max_parallelism() -> MaxParallelism {
    MaxParallelism::new(MAX).expect("in range")
}

pub(crate) fn spec(subtask: u32, parallelism: u32) -> TableSpec {
    let max_parallelism = max_parallelism();
    TableSpec {
        operator: OperatorUid::new("operator").expect("a valid uid"),
        name: "state".to_owned(),
        max_parallelism,
        key_groups: max_parallelism.range_of(subtask, parallelism),
    }
}

pub(crate) fn hash<K: Data>(key: &K) -> KeyHash {
    hash_key(key, &mut Vec::new())
}

pub(crate) fn group<K: Data>(key: &K) -> KeyGroup {
    hash(key).group(max_parallelism())
}

/// A table with the keys `0..count`, each with its own number as value.
pub(crate) fn numbers<B: StateBackend>(backend: &B, count: u64) -> Table<u64, u64> {
    let mut table = backend.table(spec(0, 1));
    for key in 0..count {
        put(&mut table, key, key);
    }
    table
}

pub(crate) fn put<K: Key, V: Data>(table: &mut Table<K, V>, key: K, value: V) -> Option<V> {
    table.insert(hash(&key), key, value).expect("the value can be encoded")
}

pub(crate) fn remove<K: Key, V: Data>(table: &mut Table<K, V>, key: &K) -> Option<V> {
    table.remove(hash(key), key).expect("the value can be encoded")
}

pub(crate) fn sweep(state: &mut dyn Snapshotable, budget: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    while step(state, budget, &mut blocks) == SweepProgress::More {}
    blocks
}

pub(crate) fn step(state: &mut dyn Snapshotable, budget: usize, blocks: &mut Vec<Block>) -> SweepProgress {
    state.sweep(budget, &mut |block| blocks.push(block)).expect("every entry can be encoded")
}

/// As they are to be restored: what was removed before what has changed.
pub(crate) fn in_order(mut blocks: Vec<Block>) -> Vec<Block> {
    blocks.sort_by_key(|block| block.kind == BlockKind::Changed);
    blocks
}

pub(crate) fn snapshot(state: &mut dyn Snapshotable) -> Vec<Block> {
    state.cut();
    sweep(state, 4096)
}

/// What blocks of a table of numbers hold, found out by a restore.
pub(crate) fn contents<B: StateBackend>(backend: &B, blocks: &[Block], keys: u64) -> BTreeMap<u64, u64> {
    let mut table: Table<u64, u64> = backend.table(spec(0, 1));
    restore(&mut table, blocks);
    let found: BTreeMap<_, _> = (0..keys).filter_map(|key| Some((key, *table.get(hash(&key), &key)?))).collect();
    assert_eq!(table.len(), found.len() as u64, "no other keys than these");
    found
}

pub(crate) fn restore(state: &mut dyn Snapshotable, blocks: &[Block]) -> u64 {
    let all = max_parallelism().all();
    blocks.iter().map(|block| state.restore(block, all).expect("what was swept can be restored")).sum()
}

/// The numbers `0..count`, as [`numbers`] fills them in.
pub(crate) fn counted(count: u64) -> BTreeMap<u64, u64> {
    (0..count).map(|key| (key, key)).collect()
}

pub(crate) fn register(timers: &mut Timers<u64>, key: u64, time: i64) -> bool {
    timers.register(hash(&key), &key, Timestamp(time)).expect("an integer can be encoded")
}

/// Fires everything up to the watermark.
pub(crate) fn fired(timers: &mut Timers<u64>, watermark: i64) -> Vec<(i64, u64)> {
    let mut fired = Vec::new();
    while let Some((time, hashed, key)) = timers.pop_due(Timestamp(watermark)).expect("no tier fails") {
        assert_eq!(hashed, hash(&key), "a timer brings the hash of its key");
        fired.push((time.0, key));
    }
    fired
}
