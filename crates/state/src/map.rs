use std::any::TypeId;
use std::cell::{Cell, RefCell};

use cutwater_core::{KeyGroupRange, KeyHash};

use crate::codec::{checked_length, decode_front, encode_framed, encode_framed_parts};
use crate::index::Index;
use crate::key_bytes::KeyBytes;
use crate::store::{Entry, Place, Store};
use crate::{
    Block, ColdState, Cut, Data, Key, Snapshotable, StateError, StateHeader, StateKind, SweepProgress, TableSpec,
    decode, encode, hash_key,
};

/// A map for each key: its entries stand one by one in a table, by key and user key, so that a change during a sweep
/// copies one entry and never the map. Which user keys a key has is kept beside, in the order of their encodings.
///
/// Hashes are those of the key, as for a [`Table`](crate::Table), and so are cut, sweep and restore. An entry may carry the
/// time when it was last written, the *stamp*: what is stamped at or before the horizon of a snapshot is not in it.
///
/// ```
/// use cutwater_core::{MaxParallelism, OperatorUid};
/// use cutwater_state::{MapTable, TableSpec, hash_key};
///
/// let max = MaxParallelism::default();
/// let operator = OperatorUid::new("routes").unwrap();
/// let spec = TableSpec { operator, name: "by-day".to_owned(), max_parallelism: max, key_groups: max.all() };
/// let mut flights: MapTable<String, u32, u64> = MapTable::new(spec);
///
/// let route = "JFK-LAX".to_owned();
/// let hash = hash_key(&route, &mut Vec::new());
/// flights.insert(hash, &route, 300, None, 7)?;
/// flights.insert(hash, &route, 2, None, 5)?;
/// let days: Vec<_> = flights.iter(hash, &route).map(|(day, _, flights)| (*day, *flights)).collect();
/// assert_eq!(days, [(2, 5), (300, 7)]);
/// # Ok::<(), cutwater_state::StateError>(())
/// ```
pub struct MapTable<K: Key, U: Key, V: Data> {
    store: Store<Part<K, U, V>>,
    /// `None` where a key has one entry at most.
    index: Option<Index<K, U>>,
    scratch: Vec<u8>,
}

/// One value for each key, beside the operator's own one: a [`MapTable`] with one user key.
pub type Accumulator<K, V> = MapTable<K, (), V>;

/// The stamp of an entry that has none.
const UNSTAMPED: i64 = i64::MIN;

impl<K: Key, V: Data> Accumulator<K, V> {
    /// No values yet. `kind` says what they are: named values, reduced ones or accumulators.
    #[must_use]
    pub fn single(spec: TableSpec, kind: StateKind) -> Self {
        Self { store: Store::new(spec, kind), index: None, scratch: Vec::new() }
    }
}

impl<K: Key, U: Key, V: Data> MapTable<K, U, V> {
    /// No maps yet.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        Self::of_kind(spec, StateKind::Map)
    }

    pub(crate) fn of_kind(spec: TableSpec, kind: StateKind) -> Self {
        Self { store: Store::new(spec.clone(), kind), index: Some(Index::new(spec)), scratch: Vec::new() }
    }

    /// The value under the user key, with its stamp.
    #[inline]
    pub fn get(&mut self, hash: KeyHash, key: &K, user: &U) -> Option<(Option<i64>, &V)> {
        let place = self.find(hash, key, user)?;
        let part = self.store.at(place);
        Some((stamp(part.stamp), &part.value))
    }

    /// As [`Self::get`], so that several values can be looked at together.
    #[must_use]
    pub fn peek(&self, hash: KeyHash, key: &K, user: &U) -> Option<(Option<i64>, &V)> {
        let spread = spread(hash, user, &mut Vec::new());
        let place = self.store.find(hash, spread, |part| part.key == *key && part.user == *user)?;
        let part = self.store.at(place);
        Some((stamp(part.stamp), &part.value))
    }

    /// The value under the user key, to be changed; a stamp given here replaces that of the entry.
    ///
    /// # Errors
    ///
    /// During a sweep, [`StateError::Encode`] or [`StateError::TooLarge`] if the value as it is can't be encoded.
    #[inline]
    pub fn get_mut(
        &mut self,
        hash: KeyHash,
        key: &K,
        user: &U,
        written: Option<i64>,
    ) -> Result<Option<&mut V>, StateError> {
        let Some(place) = self.find(hash, key, user) else { return Ok(None) };
        let part = self.store.at_mut(hash, place)?;
        part.stamp = written.unwrap_or(part.stamp);
        Ok(Some(&mut part.value))
    }

    /// Sets the value under the user key and returns the one that was there.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; [`StateError::Encode`] if the user key can't be encoded, [`StateError::Crowded`] if the key
    /// has four million entries. The map is then as it was.
    pub fn insert(
        &mut self,
        hash: KeyHash,
        key: &K,
        user: U,
        written: Option<i64>,
        value: V,
    ) -> Result<Option<V>, StateError> {
        if let Some(place) = self.find(hash, key, &user) {
            let part = self.store.at_mut(hash, place)?;
            part.stamp = written.unwrap_or(UNSTAMPED);
            return Ok(Some(std::mem::replace(&mut part.value, value)));
        }
        let spread = spread(hash, &user, &mut self.scratch);
        let noted = match &self.index {
            Some(_) => Some((self.user_bytes(&user)?, user.clone())),
            None => None,
        };
        let part = Part { key: key.clone(), user, stamp: written.unwrap_or(UNSTAMPED), value };
        let place = self.store.push(hash, spread, part)?;
        if let (Some(index), Some((bytes, user))) = (&mut self.index, noted)
            && let Err(error) = index.insert(hash, key, bytes, user)
        {
            self.store.remove(hash, place)?;
            return Err(error);
        }
        Ok(None)
    }

    /// Removes the user key and returns the value that it had.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; the map is then as it was.
    pub fn remove(&mut self, hash: KeyHash, key: &K, user: &U) -> Result<Option<V>, StateError> {
        match self.find(hash, key, user) {
            Some(place) => self.take(hash, place).map(|part| Some(part.value)),
            None => Ok(None),
        }
    }

    /// Removes all user keys of the key.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; a part of the map may then be gone.
    pub fn clear(&mut self, hash: KeyHash, key: &K) -> Result<(), StateError> {
        let users: Vec<U> = match &self.index {
            Some(index) => index.of(hash, key).map(|(_, user)| user.clone()).collect(),
            None => self.store.find(hash, single(hash), |part| part.key == *key).map_or_else(Vec::new, |place| {
                vec![self.store.at(place).user.clone()] // the one there is
            }),
        };
        for user in users {
            self.remove(hash, key, &user)?;
        }
        Ok(())
    }

    /// The entries of the key with their stamps, in the order of the encoded user keys.
    pub fn iter<'a>(
        &'a self,
        hash: KeyHash,
        key: &'a K,
    ) -> impl DoubleEndedIterator<Item = (&'a U, Option<i64>, &'a V)> {
        let of = self.index.iter().flat_map(move |index| index.of(hash, key));
        of.filter_map(move |(bytes, user)| {
            let spread = spread_of_bytes::<U>(hash, bytes);
            let place = self.store.find(hash, spread, |part| part.key == *key && part.user == *user)?;
            let part = self.store.at(place);
            Some((&part.user, stamp(part.stamp), &part.value))
        })
    }

    /// How many user keys the key has.
    #[must_use]
    pub fn entries(&self, hash: KeyHash, key: &K) -> usize {
        match &self.index {
            Some(index) => index.len(hash, key),
            None => usize::from(self.store.find(hash, single(hash), |part| part.key == *key).is_some()),
        }
    }

    /// The next snapshots leave out what was stamped at or before `horizon`; [`i64::MIN`]: nothing. To be called when no
    /// sweep is running.
    pub fn set_horizon(&mut self, horizon: i64) {
        self.store.set_horizon(horizon);
    }

    /// Goes on through the table, at most `slots` slots: removes what was stamped at or before `horizon`, and stamps with
    /// `now` what has no stamp. Returns how many entries were removed. Many calls after each other visit all of it. What is in a
    /// tier alone the tier removes when it comes to it, and it gets its stamp once it is back in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn clean(&mut self, horizon: i64, now: i64, mut slots: usize) -> Result<u64, StateError> {
        self.store.expire(horizon)?;
        let mut removed = 0;
        while let Some(place) = self.store.next_expired(horizon, &mut slots) {
            let hash = hash_key(&self.store.at(place).key, &mut self.scratch);
            if self.store.at(place).stamp == UNSTAMPED {
                self.store.at_mut(hash, place)?.stamp = now;
            } else {
                self.take(hash, place)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn find(&mut self, hash: KeyHash, key: &K, user: &U) -> Option<Place> {
        let spread = spread(hash, user, &mut self.scratch);
        self.store.find(hash, spread, |part| part.key == *key && part.user == *user)
    }

    /// Takes the entry out of table and index.
    fn take(&mut self, hash: KeyHash, place: Place) -> Result<Part<K, U, V>, StateError> {
        let noted = match &self.index {
            Some(_) => {
                let user = self.store.at(place).user.clone();
                Some(self.user_bytes(&user)?)
            }
            None => None,
        };
        let part = self.store.remove(hash, place)?;
        if let (Some(index), Some(bytes)) = (&mut self.index, noted) {
            index.remove(hash, &part.key, &bytes)?;
        }
        Ok(part)
    }

    fn user_bytes(&mut self, user: &U) -> Result<KeyBytes, StateError> {
        self.scratch.clear();
        encode(user, &mut self.scratch)?;
        checked_length(self.scratch.len())?;
        Ok(KeyBytes::from(self.scratch.as_slice()))
    }

    /// The last user key of the key, if `wanted` says so of it, with its value to be changed; else the user key alone.
    #[inline]
    pub(crate) fn last_mut(
        &mut self,
        hash: KeyHash,
        key: &K,
        wanted: impl FnOnce(Option<i64>, &V) -> bool,
    ) -> Result<Last<'_, U, V>, StateError> {
        let Some((bytes, user)) = self.index.as_ref().and_then(|index| index.last(hash, key)) else {
            return Ok(Last::None);
        };
        let spread = spread_of_bytes::<U>(hash, bytes);
        let found = self.store.find(hash, spread, |part| part.key == *key && part.user == *user);
        let Some(place) = found else { return Ok(Last::None) };
        let part = self.store.at(place);
        if !wanted(stamp(part.stamp), &part.value) {
            return Ok(Last::Other(part.user.clone()));
        }
        Ok(Last::Wanted(&mut self.store.at_mut(hash, place)?.value))
    }
}

/// What [`MapTable::last_mut`] found.
pub(crate) enum Last<'a, U, V> {
    None,
    Other(U),
    Wanted(&'a mut V),
}

impl<K: Key, U: Key, V: Data> Snapshotable for MapTable<K, U, V> {
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
        let Self { store, index, .. } = self;
        let index = RefCell::new(index.as_mut());
        let failed = Cell::new(None);
        let note = |part: &Part<K, U, V>, hash, came| {
            let mut index = index.borrow_mut();
            let Some(index) = index.as_mut() else { return };
            let mut bytes = Vec::new();
            let noted = encode(&part.user, &mut bytes).and_then(|()| {
                let bytes = KeyBytes::from(bytes.as_slice());
                match came {
                    true => index.insert(hash, &part.key, bytes, part.user.clone()),
                    false => index.remove(hash, &part.key, &bytes),
                }
            });
            failed.set(failed.take().or(noted.err()));
        };
        let (added, removed) = (|part: &_, hash| note(part, hash, true), |part: &_, hash| note(part, hash, false));
        let restored = store.restore(block, groups, added, removed)?;
        failed.take().map_or(Ok(restored), Err)
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
        self.store.memory_bytes() + self.index.as_ref().map_or(0, Index::memory_bytes)
    }
}

struct Part<K, U, V> {
    key: K,
    user: U,
    stamp: i64,
    value: V,
}

fn stamp(raw: i64) -> Option<i64> {
    (raw != UNSTAMPED).then_some(raw)
}

/// Entries of one key share a hash but must not share a slot of the table: the user key decides that.
#[inline]
fn spread<U: Key>(hash: KeyHash, user: &U, scratch: &mut Vec<u8>) -> u64 {
    if only_one::<U>() {
        return single(hash);
    }
    mixed(hash, hash_key(user, scratch))
}

/// The same from the encoded user key.
#[inline]
fn spread_of_bytes<U: Key>(hash: KeyHash, user: &KeyBytes) -> u64 {
    if only_one::<U>() {
        return single(hash);
    }
    mixed(hash, KeyHash::of(user.as_slice()))
}

/// Whether a key can have only one user key. Folds to a constant.
#[inline]
fn only_one<U: Key>() -> bool {
    TypeId::of::<U>() == TypeId::of::<()>()
}

#[inline]
fn mixed(hash: KeyHash, user: KeyHash) -> u64 {
    hash.0 ^ user.0
}

/// The spread of an entry that is the only one of its key.
#[inline]
fn single(hash: KeyHash) -> u64 {
    hash.0
}

impl<K: Key, U: Key, V: Data> Entry for Part<K, U, V> {
    type Key = K;
    type Value = (U, Option<i64>, V);

    const MANY: bool = true;

    fn hash(&self, scratch: &mut Vec<u8>) -> KeyHash {
        hash_key(&self.key, scratch)
    }

    fn spread(&self, hash: KeyHash) -> u64 {
        spread(hash, &self.user, &mut Vec::new())
    }

    fn same(&self, other: &Self) -> bool {
        self.key == other.key && self.user == other.user
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let start = out.len();
        let parts = (&self.user, stamp(self.stamp), &self.value);
        let result = encode_framed(&self.key, out).and_then(|()| encode_framed_parts(&parts, out));
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn warm(&self) -> u8 {
        0
    }

    fn written(&self) -> Option<i64> {
        stamp(self.stamp)
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, StateError> {
        let (user, written, value) = decode::<(U, Option<i64>, V)>(value)?;
        Ok(Self { key: decode(key)?, user, stamp: written.unwrap_or(UNSTAMPED), value })
    }

    fn encode_for_tier(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let start = out.len();
        let result = self.encode_split(out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn name_bytes(value: &[u8]) -> Result<usize, StateError> {
        Ok(value.len() - decode_front::<(U,)>(value)?.1.len())
    }

    fn decode_cold(key: &[u8], rest: &[u8], value: &[u8]) -> Result<Self, StateError> {
        let (user,) = decode::<(U,)>(rest)?;
        let (written, value) = decode::<(Option<i64>, V)>(value)?;
        Ok(Self { key: decode(key)?, user, stamp: written.unwrap_or(UNSTAMPED), value })
    }

    type Name = (K, U);

    fn encode_name(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let start = out.len();
        let result = encode_framed(&self.key, out).and_then(|()| encode_framed_parts(&self.user, out));
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn decode_name(hash: KeyHash, key: &[u8], rest: &[u8]) -> Result<((K, U), u64), StateError> {
        // As the user key stands in a value, within a tuple: by the codec of all types.
        let (user,) = decode::<(U,)>(rest)?;
        let spread = spread(hash, &user, &mut Vec::new());
        Ok(((decode(key)?, user), spread))
    }

    fn has_name(&self, (key, user): &(K, U)) -> bool {
        self.key == *key && self.user == *user
    }
}

mod tier;

#[cfg(test)]
mod tests;
