use std::cell::RefCell;
use std::collections::BTreeMap;

use cutwater_core::{KeyGroupRange, KeyHash, Timestamp};

use crate::codec::{append_framed, checked_length, encode_framed};
use crate::cold::TIME_BYTES;
use crate::key_bytes::KeyBytes;
use crate::store::{Entry, Store};
use crate::{
    Block, ColdState, Cut, Key, Snapshotable, StateError, StateHeader, StateKind, SweepProgress, TableSpec, decode,
    encode,
};

mod tier;

use self::tier::{Heads, Turn};

/// Timers by key, of event time or of processing time. They fire in the order of time, at one time in the order of the encoded keys, so that every
/// run fires them in the same order.
///
/// A timer is set once however often it is registered. With a [tier](Self::attach) below only those that fire next are in memory. Hashes are as for a [`Table`](crate::Table), and so are cut, sweep
/// and restore: what a snapshot holds are the timers that were set at the cut.
pub struct Timers<K: Key> {
    store: Store<Timer<K>>,
    /// The same timers in the order in which they fire.
    order: BTreeMap<Turn, KeyHash>,
    /// What is known of the tier, if there is one. In memory are then only some.
    heads: Option<Heads>,
    scratch: Vec<u8>,
}

impl<K: Key> Timers<K> {
    /// No timers of event time yet.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        Self::of_kind(spec, StateKind::Timers)
    }

    /// No timers of processing time yet: their times are those of the wall clock, in milliseconds since 1970-01-01 UTC,
    /// since they outlive the process.
    #[must_use]
    pub fn processing(spec: TableSpec) -> Self {
        Self::of_kind(spec, StateKind::ProcessingTimers)
    }

    fn of_kind(spec: TableSpec, kind: StateKind) -> Self {
        Self { store: Store::new(spec, kind), order: BTreeMap::new(), heads: None, scratch: Vec::new() }
    }

    /// Sets a timer; false if it was set already. With a tier below, true where only that knows.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if the key can't be encoded; [`StateError::Crowded`] if the key has four million timers.
    pub fn register(&mut self, hash: KeyHash, key: &K, time: Timestamp) -> Result<bool, StateError> {
        let bytes = self.key_bytes(key)?;
        let spread = spread(hash, time.0);
        if self.store.find(hash, spread, |timer| timer.is(&bytes, time.0)).is_some() {
            return Ok(false);
        }
        let place = self.store.push(hash, spread, Timer { key: key.clone(), bytes: bytes.clone(), time: time.0 })?;
        let turn = (time.0, bytes);
        if self.may_be_below(hash, &turn) {
            self.store.may_be_below(place);
        }
        self.order.insert(turn, hash);
        Ok(true)
    }

    /// Removes a timer; false if it was not set. With a tier below, true where only that knows.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if the key can't be encoded.
    pub fn delete(&mut self, hash: KeyHash, key: &K, time: Timestamp) -> Result<bool, StateError> {
        let turn = (time.0, self.key_bytes(key)?);
        if self.remove(hash, &turn.1, time.0)?.is_none() {
            return self.delete_below(hash, &turn);
        }
        self.order.remove(&turn);
        Ok(true)
    }

    /// Removes and returns the first timer whose time has come: is at or before `now`, the watermark or the wall clock. One at a time, so that
    /// the caller can stop after any.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier can't be read; the timers are then as they were.
    pub fn pop_due(&mut self, now: Timestamp) -> Result<Option<(Timestamp, KeyHash, K)>, StateError> {
        self.bring(now, 1)?;
        self.pop(|(time, _)| *time <= now.0)
    }

    /// The first timers whose time has come, about so many at the most, to be fired by [`Self::pop_of`]: what their keys have in a
    /// tier can be fetched before, together.
    ///
    /// # Errors
    ///
    /// As [`Self::pop_due`].
    pub fn due(&mut self, now: Timestamp, most: usize) -> Result<DueTimers<K>, StateError> {
        self.bring(now, most)?;
        let due = self.order.iter().take_while(|((time, _), _)| *time <= now.0).take(most);
        let mut keys = Vec::new();
        if self.heads.is_some() {
            for ((time, bytes), hash) in due.clone() {
                let found = self.store.find(*hash, spread(*hash, *time), |timer| timer.is(bytes, *time));
                let place = found.expect("every timer in order is in the store");
                keys.push((*hash, self.store.at(place).key.clone()));
            }
        }
        Ok(DueTimers { last: due.last().map(|(turn, _)| turn.clone()), keys })
    }

    /// Removes and returns the first timer, unless it fires behind all of these. So a timer that one of them sets comes in its turn
    /// too, if it is due; its key is one of theirs.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if the timer can't be removed.
    pub fn pop_of(&mut self, due: &DueTimers<K>) -> Result<Option<(Timestamp, KeyHash, K)>, StateError> {
        self.pop(|turn| due.last.as_ref().is_some_and(|last| turn <= last))
    }

    /// The time of the first timer, or an earlier one if only the tier knows it: then [`Self::pop_due`] finds none that is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let heads = self.heads.as_ref();
        if heads.is_some_and(Heads::is_unknown) {
            return Some(Timestamp::MIN);
        }
        let head = heads.and_then(Heads::first).map(|((time, _), _)| *time);
        let here = self.order.first_key_value().map(|((time, _), _)| *time);
        head.into_iter().chain(here).min().map(Timestamp)
    }

    /// Removes and returns the first timer that is in memory, if its turn has come.
    fn pop(&mut self, is_due: impl FnOnce(&Turn) -> bool) -> Result<Option<(Timestamp, KeyHash, K)>, StateError> {
        let first = self.order.first_key_value().filter(|(turn, _)| is_due(turn));
        let Some((turn, hash)) = first.map(|(turn, hash)| (turn.clone(), *hash)) else { return Ok(None) };
        let timer = self.remove(hash, &turn.1, turn.0)?.expect("every timer in order is in the store");
        self.order.remove(&turn);
        Ok(Some((Timestamp(turn.0), hash, timer.key)))
    }

    fn remove(&mut self, hash: KeyHash, bytes: &KeyBytes, time: i64) -> Result<Option<Timer<K>>, StateError> {
        let spread = spread(hash, time);
        match self.store.find(hash, spread, |timer| timer.is(bytes, time)) {
            Some(place) => self.store.remove(hash, place).map(Some),
            None => Ok(None),
        }
    }

    /// What [`Self::order`] takes, and what is known of the tier.
    fn order_bytes(&self) -> u64 {
        // The nodes of a B-tree are about two thirds full.
        let order = self.order.len() * size_of::<(Turn, KeyHash)>() * 3 / 2;
        (order + self.heads.as_ref().map_or(0, Heads::memory_bytes)) as u64
    }

    fn key_bytes(&mut self, key: &K) -> Result<KeyBytes, StateError> {
        self.scratch.clear();
        encode(key, &mut self.scratch)?;
        checked_length(self.scratch.len())?; // after this the timer can always be encoded
        Ok(KeyBytes::from(self.scratch.as_slice()))
    }
}

impl<K: Key> Snapshotable for Timers<K> {
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
        let Self { store, order, .. } = self; // `order` knows nothing of what comes into a tier
        let order = RefCell::new(order);
        let added = |timer: &Timer<K>, hash| {
            order.borrow_mut().insert((timer.time, timer.bytes.clone()), hash);
        };
        let restored = store.restore(block, groups, added, |timer, _| {
            order.borrow_mut().remove(&(timer.time, timer.bytes.clone()));
        });
        self.forget_heads();
        restored
    }

    fn cold(&self) -> Option<ColdState> {
        self.store.cold_state()
    }

    fn imported(&mut self, entries: u64) {
        self.store.imported(entries);
        self.forget_heads();
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
        self.store.memory_bytes() + self.order_bytes()
    }
}

/// Timers that [`Timers::due`] found.
pub struct DueTimers<K> {
    /// Where the last of them stands in the order; `None` if there are none.
    last: Option<Turn>,
    keys: Vec<(KeyHash, K)>,
}

impl<K> DueTimers<K> {
    /// Whether no timer was due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Their keys, in the order of the timers; none if there is no tier.
    pub fn keys(&self) -> impl Iterator<Item = (KeyHash, &K)> + Clone {
        self.keys.iter().map(|(hash, key)| (*hash, key))
    }
}

struct Timer<K> {
    key: K,
    /// The encoding of the key, so that firing a timer during a sweep can't fail.
    bytes: KeyBytes,
    time: i64,
}

impl<K> Timer<K> {
    #[inline]
    fn is(&self, bytes: &KeyBytes, time: i64) -> bool {
        self.time == time && self.bytes == *bytes
    }
}

/// The timers of one key share a hash but must not share a slot of the index: the time decides that.
#[inline]
fn spread(hash: KeyHash, time: i64) -> u64 {
    hash.0 ^ (time as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl<K: Key> Entry for Timer<K> {
    type Key = K;
    type Value = i64;

    fn hash(&self, _: &mut Vec<u8>) -> KeyHash {
        KeyHash::of(self.bytes.as_slice())
    }

    fn spread(&self, hash: KeyHash) -> u64 {
        spread(hash, self.time)
    }

    fn same(&self, other: &Self) -> bool {
        self.is(&other.bytes, other.time)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        append_framed::<K>(self.bytes.as_slice(), out);
        encode_framed(&self.time, out)
    }

    fn warm(&self) -> u8 {
        self.bytes.as_slice().first().copied().unwrap_or(0)
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, StateError> {
        Ok(Self { key: decode(key)?, bytes: KeyBytes::from(key), time: decode(value)? })
    }

    type Name = (KeyBytes, i64);

    /// All of the time: names begin with it, behind their group.
    fn name_bytes(_: &[u8]) -> Result<usize, StateError> {
        Ok(TIME_BYTES)
    }

    fn encode_name(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        append_framed::<K>(self.bytes.as_slice(), out);
        out.extend_from_slice(&8_u32.to_le_bytes());
        encode(&self.time, out)
    }

    fn decode_name(hash: KeyHash, key: &[u8], rest: &[u8]) -> Result<((KeyBytes, i64), u64), StateError> {
        let time = decode(rest)?;
        Ok(((KeyBytes::from(key), time), spread(hash, time)))
    }

    fn has_name(&self, (bytes, time): &(KeyBytes, i64)) -> bool {
        self.is(bytes, *time)
    }
}
