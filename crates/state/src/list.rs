use std::sync::Arc;

use cutwater_core::{KeyGroupRange, KeyHash};

use crate::map::Last;
use crate::{
    Block, ColdState, ColdTier, Cut, Data, Key, MapTable, Snapshotable, StateError, StateHeader, StateKind,
    SweepProgress, TableSpec,
};

/// A list for each key, in chunks of at most [`ListTable::CHUNK`] elements: an append touches the last chunk only, and
/// during a sweep no more than that one is copied.
///
/// Elements of one chunk have the same stamp, so that a list with stamps has a chunk for each time at which was appended.
/// Otherwise all is as for a [`MapTable`].
pub struct ListTable<K: Key, T: Data> {
    chunks: MapTable<K, u64, Vec<T>>,
}

impl<K: Key, T: Data> ListTable<K, T> {
    /// How many elements a chunk has at the most.
    pub const CHUNK: usize = 64;

    /// No lists yet.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        Self { chunks: MapTable::of_kind(spec, StateKind::List) }
    }

    /// Appends an element, stamped with `written`.
    ///
    /// # Errors
    ///
    /// During a sweep, if the last chunk can't be encoded as it is; [`StateError::Crowded`] if the key has four million
    /// chunks. The list is then as it was.
    pub fn push(&mut self, hash: KeyHash, key: &K, written: Option<i64>, element: T) -> Result<(), StateError> {
        let room = |stamp, chunk: &Vec<T>| stamp == written && chunk.len() < Self::CHUNK;
        let next = match self.chunks.last_mut(hash, key, room)? {
            Last::Wanted(chunk) => {
                chunk.push(element);
                return Ok(());
            }
            Last::Other(number) => number + 1,
            Last::None => 0,
        };
        self.chunks.insert(hash, key, next, written, vec![element])?;
        Ok(())
    }

    /// As [`MapTable::attach`]: a list comes into memory and goes as a whole.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn attach(&mut self, tier: Arc<dyn ColdTier>, limit: u64) -> Result<(), StateError> {
        self.chunks.attach(tier, limit)
    }

    /// As [`MapTable::fetch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fetch<'k>(&mut self, keys: impl IntoIterator<Item = (KeyHash, &'k K)>) -> Result<usize, StateError>
    where
        K: 'k,
    {
        self.chunks.fetch(keys)
    }

    /// As [`MapTable::relieve`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn relieve(&mut self) -> Result<(), StateError> {
        self.chunks.relieve()
    }

    /// How many chunks are in the tier and not in memory.
    #[must_use]
    pub fn cold_entries(&self) -> u64 {
        self.chunks.cold_entries()
    }

    /// The elements of the key with their stamps, in the order in which they were appended.
    pub fn iter<'a>(&'a self, hash: KeyHash, key: &'a K) -> impl Iterator<Item = (Option<i64>, &'a T)> {
        self.chunks.iter(hash, key).flat_map(|(_, stamp, chunk)| chunk.iter().map(move |element| (stamp, element)))
    }

    /// Stamps the chunks of the key anew that were stamped after `horizon`: those that have not expired.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub fn touch(&mut self, hash: KeyHash, key: &K, horizon: i64, written: i64) -> Result<(), StateError> {
        let older = |stamp: Option<i64>| stamp.is_none_or(|stamp| stamp > horizon && stamp < written);
        let chunks = self.chunks.iter(hash, key).filter(|(_, stamp, _)| older(*stamp));
        for number in chunks.map(|(number, ..)| *number).collect::<Vec<_>>() {
            self.chunks.get_mut(hash, key, &number, Some(written))?;
        }
        Ok(())
    }

    /// Removes the list of the key.
    ///
    /// # Errors
    ///
    /// As [`Self::push`]; a part of the list may then be gone.
    pub fn clear(&mut self, hash: KeyHash, key: &K) -> Result<(), StateError> {
        self.chunks.clear(hash, key)
    }

    /// As [`MapTable::set_horizon`].
    pub fn set_horizon(&mut self, horizon: i64) {
        self.chunks.set_horizon(horizon);
    }

    /// As [`MapTable::clean`], chunk by chunk.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub fn clean(&mut self, horizon: i64, now: i64, slots: usize) -> Result<u64, StateError> {
        self.chunks.clean(horizon, now, slots)
    }
}

impl<K: Key, T: Data> Snapshotable for ListTable<K, T> {
    fn header(&self) -> StateHeader {
        self.chunks.header()
    }

    fn cut_since(&mut self, base: Option<Cut>) -> Cut {
        self.chunks.cut_since(base)
    }

    fn track_changes(&mut self) {
        self.chunks.track_changes();
    }

    fn changed_since(&self, base: Cut) -> Option<u64> {
        self.chunks.changed_since(base)
    }

    fn forget(&mut self, base: Cut) {
        self.chunks.forget(base);
    }

    fn sweep(&mut self, budget_bytes: usize, out: &mut dyn FnMut(Block)) -> Result<SweepProgress, StateError> {
        self.chunks.sweep(budget_bytes, out)
    }

    fn abort(&mut self) {
        self.chunks.abort();
    }

    fn sweeping(&self) -> bool {
        self.chunks.sweeping()
    }

    fn undo_bytes(&self) -> u64 {
        self.chunks.undo_bytes()
    }

    fn reserve(&mut self, entries: u64) {
        self.chunks.reserve(entries);
    }

    fn restore(&mut self, block: &Block, groups: KeyGroupRange) -> Result<u64, StateError> {
        self.chunks.restore(block, groups)
    }

    fn cold(&self) -> Option<ColdState> {
        self.chunks.cold()
    }

    fn imported(&mut self, entries: u64) {
        self.chunks.imported(entries);
    }

    fn applied(&mut self, cut: Cut) {
        self.chunks.applied(cut);
    }

    fn is_crowded(&self) -> bool {
        self.chunks.is_crowded()
    }

    fn not_applied(&mut self) {
        self.chunks.not_applied();
    }

    fn len(&self) -> u64 {
        self.chunks.len()
    }

    fn memory_bytes(&self) -> u64 {
        self.chunks.memory_bytes()
    }
}
