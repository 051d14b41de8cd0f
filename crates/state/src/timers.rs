use std::cell::RefCell;
use std::collections::BTreeMap;

use cutwater_core::{KeyGroupRange, KeyHash, Timestamp};

use crate::codec::{append_framed, checked_length, encode_framed};
use crate::key_bytes::KeyBytes;
use crate::store::{Entry, Store};
use crate::{
    Block, Cut, Key, Snapshotable, StateError, StateHeader, StateKind, SweepProgress, TableSpec, decode, encode,
};

/// Timers by key, of event time or of processing time. They fire in the order of time, at one time in the order of the encoded keys, so that every
/// run fires them in the same order.
///
/// A timer is set once however often it is registered. Hashes are as for a [`Table`](crate::Table), and so are cut, sweep
/// and restore: what a snapshot holds are the timers that were set at the cut.
pub struct Timers<K: Key> {
    store: Store<Timer<K>>,
    /// The same timers in the order in which they fire.
    order: BTreeMap<(i64, KeyBytes), KeyHash>,
    scratch: Vec<u8>,
}

impl<K: Key> Timers<K> {
    /// No timers of event time yet.
    #[must_use]
    pub fn new(spec: TableSpec) -> Self {
        Self { store: Store::new(spec, StateKind::Timers), order: BTreeMap::new(), scratch: Vec::new() }
    }

    /// No timers of processing time yet: their times are those of the wall clock, in milliseconds since 1970-01-01 UTC,
    /// since they outlive the process.
    #[must_use]
    pub fn processing(spec: TableSpec) -> Self {
        Self { store: Store::new(spec, StateKind::ProcessingTimers), order: BTreeMap::new(), scratch: Vec::new() }
    }

    /// Sets a timer; false if it was set already.
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
        self.store.push(hash, spread, Timer { key: key.clone(), bytes: bytes.clone(), time: time.0 })?;
        self.order.insert((time.0, bytes), hash);
        Ok(true)
    }

    /// Removes a timer; false if it was not set.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if the key can't be encoded.
    pub fn delete(&mut self, hash: KeyHash, key: &K, time: Timestamp) -> Result<bool, StateError> {
        let bytes = self.key_bytes(key)?;
        let removed = self.remove(hash, &bytes, time.0)?.is_some();
        if removed {
            self.order.remove(&(time.0, bytes));
        }
        Ok(removed)
    }

    /// Removes and returns the first timer whose time has come: is at or before `now`, the watermark or the wall clock. One at a time, so that
    /// the caller can stop after any.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, KeyHash, K)> {
        let first = self.order.first_entry().filter(|first| first.key().0 <= now.0)?;
        let ((time, bytes), hash) = first.remove_entry();
        let timer = self.remove(hash, &bytes, time).ok().flatten();
        let timer = timer.expect("every timer in order is in the store, and was encoded when it came there");
        Some((Timestamp(time), hash, timer.key))
    }

    /// The time of the first timer.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.order.first_key_value().map(|((time, _), _)| Timestamp(*time))
    }

    fn remove(&mut self, hash: KeyHash, bytes: &KeyBytes, time: i64) -> Result<Option<Timer<K>>, StateError> {
        let spread = spread(hash, time);
        match self.store.find(hash, spread, |timer| timer.is(bytes, time)) {
            Some(place) => self.store.remove(hash, place).map(Some),
            None => Ok(None),
        }
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
        let Self { store, order, .. } = self;
        let order = RefCell::new(order);
        let added = |timer: &Timer<K>, hash| {
            order.borrow_mut().insert((timer.time, timer.bytes.clone()), hash);
        };
        store.restore(block, groups, added, |timer, _| {
            order.borrow_mut().remove(&(timer.time, timer.bytes.clone()));
        })
    }

    fn imported(&mut self, _entries: u64) {} // they have no tier

    fn len(&self) -> u64 {
        self.store.len()
    }

    fn memory_bytes(&self) -> u64 {
        // The nodes of a B-tree are about two thirds full.
        let order = self.order.len() * size_of::<((i64, KeyBytes), KeyHash)>() * 3 / 2;
        self.store.memory_bytes() + order as u64
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
