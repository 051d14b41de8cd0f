use std::any::Any;
use std::sync::Arc;

use cutwater_core::{KeyGroupRange, KeyHash};

use crate::codec::encode_framed;
use crate::store::{Entry, Store};
use crate::{
    Block, ColdState, ColdTier, Cut, Data, Key, Snapshotable, StateError, StateHeader, StateKind, SweepProgress,
    TableSpec, decode, hash_key,
};

/// Value state by key: the memory of one operator in one subtask.
///
/// Every call brings the hash of the key along, since a batch carries it; it must be [`hash_key`] of the key, and of a
/// key group that the table was made for. What changes during a sweep is encoded first, as it was at the cut, which is
/// why changes can fail and reads can't.
///
/// A call takes 5 to 10 ns while the table fits the caches. Beyond that it waits for memory, unless the hashes of a
/// batch went through [`Self::prefetch`] before.
///
/// ```
/// use cutwater_core::{MaxParallelism, OperatorUid};
/// use cutwater_state::{Snapshotable, SweepProgress, Table, TableSpec, hash_key};
///
/// let max = MaxParallelism::default();
/// let operator = OperatorUid::new("routes").unwrap();
/// let spec = TableSpec { operator, name: "flights".to_owned(), max_parallelism: max, key_groups: max.all() };
/// let mut flights: Table<String, u64> = Table::new(spec);
///
/// let route = "JFK-LAX".to_owned();
/// let hash = hash_key(&route, &mut Vec::new());
/// *flights.get_or_insert_with(hash, &route, || 0)? += 1;
///
/// flights.cut(); // what the snapshot holds is decided here
/// *flights.get_or_insert_with(hash, &route, || 0)? += 1;
/// let mut blocks = Vec::new();
/// while flights.sweep(64 << 10, &mut |block| blocks.push(block))? == SweepProgress::More {}
/// assert_eq!(blocks[0].entries, 1);
/// assert_eq!(flights.get(hash, &route), Some(&2));
/// # Ok::<(), cutwater_state::StateError>(())
/// ```
pub struct Table<K: Key, V: Data> {
    store: Store<Pair<K, V>>,
}

impl<K: Key, V: Data> Table<K, V> {
    /// An empty table.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        Self { store: Store::new(spec, StateKind::Value) }
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store<impl Entry> {
        &self.store
    }

    /// The value of the key.
    #[must_use]
    #[inline]
    pub fn get(&self, hash: KeyHash, key: &K) -> Option<&V> {
        let place = self.store.find(hash, hash.0, |pair| pair.key == *key)?;
        Some(&self.store.at(place).value)
    }

    /// The value of the key, to be changed.
    ///
    /// # Errors
    ///
    /// During a sweep, [`StateError::Encode`] or [`StateError::TooLarge`] if the value as it is can't be encoded.
    #[inline]
    pub fn get_mut(&mut self, hash: KeyHash, key: &K) -> Result<Option<&mut V>, StateError> {
        match self.store.find(hash, hash.0, |pair| pair.key == *key) {
            Some(place) => Ok(Some(&mut self.store.at_mut(hash, place)?.value)),
            None => Ok(None),
        }
    }

    /// The value of the key, to be changed; if there is none, what `make` returns is put there first.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; [`StateError::Crowded`] if there is no room for the key.
    #[inline]
    pub fn get_or_insert_with(
        &mut self,
        hash: KeyHash,
        key: &K,
        make: impl FnOnce() -> V,
    ) -> Result<&mut V, StateError> {
        let place = match self.store.find(hash, hash.0, |pair| pair.key == *key) {
            Some(place) => return Ok(&mut self.store.at_mut(hash, place)?.value),
            None => self.store.push(hash, hash.0, Pair { key: key.clone(), value: make() })?,
        };
        Ok(&mut self.store.at_mut(hash, place)?.value)
    }

    /// Sets the value of the key and returns the one that it had.
    ///
    /// # Errors
    ///
    /// As [`Self::get_or_insert_with`]; the table is then as it was.
    #[inline]
    pub fn insert(&mut self, hash: KeyHash, key: K, value: V) -> Result<Option<V>, StateError> {
        match self.store.find(hash, hash.0, |pair| pair.key == key) {
            Some(place) => Ok(Some(std::mem::replace(&mut self.store.at_mut(hash, place)?.value, value))),
            None => self.store.push(hash, hash.0, Pair { key, value }).map(|_| None),
        }
    }

    /// Removes the key and returns the value that it had.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; the table is then as it was.
    pub fn remove(&mut self, hash: KeyHash, key: &K) -> Result<Option<V>, StateError> {
        match self.store.find(hash, hash.0, |pair| pair.key == *key) {
            Some(place) => self.store.remove(hash, place).map(|pair| Some(pair.value)),
            None => Ok(None),
        }
    }

    /// From now on entries may lie in the `tier`: in memory stay those that were used last, with about `limit` bytes at the
    /// most. Before each batch call [`Self::fetch`] with its keys, after it [`Self::relieve`]. Cuts are then always since what
    /// the tier has: what a sweep emits is to be put there, in order, by [`apply_block`](crate::apply_block), and
    /// [`Snapshotable::applied`] to be called after that; meanwhile nobody else writes to the state in the tier.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier refuses.
    ///
    /// # Panics
    ///
    /// If the table is not new.
    pub fn attach(&mut self, tier: Arc<dyn ColdTier>, limit: u64) -> Result<(), StateError> {
        self.store.attach(tier, limit)
    }

    /// Brings the values of these keys into memory, and returns how many of them the tier was asked for. A table with a tier below may be asked for, and told to change, only
    /// keys that were fetched since the last [`Self::relieve`]. Without a tier it does nothing.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier can't be read, or what decoding and encoding say of keys and values.
    pub fn fetch<'k>(&mut self, keys: impl IntoIterator<Item = (KeyHash, &'k K)>) -> Result<usize, StateError>
    where
        K: 'k,
    {
        self.store.fetch(keys, |pair, key| pair.key == *key, |hash, _| hash.0, encode_framed)
    }

    /// Puts values out of memory that were not used for a while, if it holds more than it may: those that have changed are
    /// written to the tier first, unless a cut waits to be applied. Without a tier it does nothing.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier can't be written. The table is then as it was.
    pub fn relieve(&mut self) -> Result<(), StateError> {
        self.store.relieve()
    }

    /// How many values are in the tier and not in memory.
    #[must_use]
    pub fn cold_entries(&self) -> u64 {
        self.store.cold_entries()
    }

    /// Loads what lookups of these hashes will need, so that they wait for memory together and not one by one. For the
    /// hashes of a batch, about a thousand; does nothing while the table fits the second cache.
    #[inline]
    pub fn prefetch(&self, hashes: impl IntoIterator<Item = KeyHash>) {
        if self.store.outgrew_cache() {
            self.store.prefetch(hashes, |hash| hash.0);
        }
    }
}

impl<K: Key, V: Data> Snapshotable for Table<K, V> {
    fn header(&self) -> StateHeader {
        self.store.header()
    }

    fn cut_since(&mut self, base: Option<Cut>) -> Cut {
        self.store.cut_since(base)
    }

    fn track_changes(&mut self) {
        self.store.track_changes();
    }

    fn changed_since(&self, base: Cut) -> Option<u64> {
        self.store.changed_since(base)
    }

    fn forget(&mut self, base: Cut) {
        self.store.forget(base);
    }

    fn sweep(&mut self, budget_bytes: usize, out: &mut dyn FnMut(Block)) -> Result<SweepProgress, StateError> {
        self.store.sweep(budget_bytes, out)
    }

    fn abort(&mut self) {
        self.store.abort();
    }

    fn sweeping(&self) -> bool {
        self.store.sweeping()
    }

    fn undo_bytes(&self) -> u64 {
        self.store.undo_bytes()
    }

    fn reserve(&mut self, entries: u64) {
        self.store.reserve(entries);
    }

    fn restore(&mut self, block: &Block, groups: KeyGroupRange) -> Result<u64, StateError> {
        self.store.restore(block, groups, |_, _| {}, |_, _| {})
    }

    fn cold(&self) -> Option<ColdState> {
        self.store.cold_state()
    }

    fn imported(&mut self, entries: u64) {
        self.store.imported(entries);
    }

    fn applied(&mut self, cut: Cut) {
        self.store.applied(cut);
    }

    fn is_crowded(&self) -> bool {
        self.store.is_crowded()
    }

    fn not_applied(&mut self) {
        self.store.not_applied();
    }

    fn len(&self) -> u64 {
        self.store.len()
    }

    fn memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
    }
}

struct Pair<K, V> {
    key: K,
    value: V,
}

impl<K: Key, V: Data> Entry for Pair<K, V> {
    type Key = K;
    type Value = V;

    fn hash(&self, scratch: &mut Vec<u8>) -> KeyHash {
        hash_key(&self.key, scratch)
    }

    #[inline]
    fn spread(&self, hash: KeyHash) -> u64 {
        hash.0
    }

    #[inline]
    fn same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let start = out.len();
        let result = encode_framed(&self.key, out).and_then(|()| encode_framed(&self.value, out));
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    #[inline]
    fn warm(&self) -> u8 {
        warm(&self.key) ^ warm(&self.value)
    }

    #[inline]
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, StateError> {
        Ok(Self { key: decode(key)?, value: decode(value)? })
    }

    type Name = K;

    fn encode_name(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let start = out.len();
        let result = encode_framed(&self.key, out);
        match result {
            Ok(()) => out.extend_from_slice(&0_u32.to_le_bytes()),
            Err(_) => out.truncate(start),
        }
        result
    }

    fn decode_name(hash: KeyHash, key: &[u8], _: &[u8]) -> Result<(K, u64), StateError> {
        Ok((decode(key)?, hash.0))
    }

    fn has_name(&self, name: &K) -> bool {
        self.key == *name
    }
}

/// Loads the first two cache lines of a string or of bytes, which lie anywhere on the heap, and the last one. The rest
/// of a longer one the processor fetches by itself: its lines follow each other.
#[inline]
fn warm<T: Data>(value: &T) -> u8 {
    let any = value as &dyn Any;
    let text = any.downcast_ref::<String>().map(|text| text.as_bytes());
    let bytes = text.or_else(|| any.downcast_ref::<Vec<u8>>().map(Vec::as_slice)).unwrap_or_default();
    bytes.first().unwrap_or(&0) ^ bytes.get(64).unwrap_or(&0) ^ bytes.last().unwrap_or(&0)
}
