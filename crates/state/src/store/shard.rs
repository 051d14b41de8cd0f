use std::hint::black_box;

use cutwater_core::{KeyGroup, KeyHash};

use super::bits::Bits;
use super::changes::Changes;
use super::pending::Pending;
use crate::{Data, Key, StateError};

/// What a store holds: a key with a value, or a key with the time of a timer.
pub(crate) trait Entry: Send + Sized {
    type Key: Key;
    type Value: Data;

    /// The hash of the key. `scratch` is any vector.
    fn hash(&self, scratch: &mut Vec<u8>) -> KeyHash;
    /// What spreads entries within a shard: the hash of the key, unless a key can have several entries.
    fn spread(&self, hash: KeyHash) -> u64;
    /// Whether both stand for the same thing, so that a store may hold only one.
    fn same(&self, other: &Self) -> bool;
    /// Appends key and value as they stand in a block; on an error nothing.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), StateError>;
    /// Loads what [`Self::encode`] will copy from elsewhere than the entry itself.
    fn warm(&self) -> u8;
    /// When it was last written, if it may expire: see [`super::Store::set_horizon`].
    #[inline]
    fn written(&self) -> Option<i64> {
        None
    }
    /// The entry with this encoded key and value.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, StateError>;

    /// Whether a key may have several entries that can be put on a tier. What tells them apart is then at the front of their
    /// values, and at the end of the names that they have there.
    const MANY: bool = false;
    /// As [`Self::encode`], as it stands in a block [for a tier](crate::BlockKind::ForTier). Only where there may be many.
    fn encode_for_tier(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        self.encode(out)
    }
    /// How many bytes at the front of the encoded value belong to the name in a tier.
    fn name_bytes(value: &[u8]) -> Result<usize, StateError> {
        let _ = value;
        Ok(0)
    }
    /// The entry of a tier: of this encoded key, the rest of the name, and what remains of the value.
    fn decode_cold(key: &[u8], rest: &[u8], value: &[u8]) -> Result<Self, StateError> {
        let _ = rest;
        Self::decode(key, value)
    }

    /// What tells an entry from all others.
    type Name;
    /// Appends the name as it stands in a block of removed entries: the key as [`Self::encode`] has it, and what else it takes,
    /// after its length; on an error nothing.
    fn encode_name(&self, out: &mut Vec<u8>) -> Result<(), StateError>;
    /// The name of this encoded key and rest, and its spread.
    fn decode_name(hash: KeyHash, key: &[u8], rest: &[u8]) -> Result<(Self::Name, u64), StateError>;
    /// Whether the entry has this name.
    fn has_name(&self, name: &Self::Name) -> bool;
}

/// The most entries that a shard can hold. Only entries of one and the same hash ever come near it.
pub(crate) const MAX_ENTRIES: usize = (1 << 22) - 1;
/// A shard with more slots splits instead of growing. Larger: fewer shards, so fewer cache misses on the way to one;
/// smaller: shorter pauses for a split (some 30 µs for integers), and memory from the allocator's heap, not by `mmap`.
pub(crate) const FULL_SLOTS: usize = 4096;
const LEAST_SLOTS: usize = 8;
/// How much of a shard's slots may be taken, in sixteenths, before it is tight, and how much entries alone may take
/// before they get twice as many slots: at eleven sixteenths a search takes two steps on average.
const FILL: (usize, usize) = (11, 8);
/// The same for a shard that has not its full size. There is hardly more than one such shard, it stays in the nearest
/// caches, and what then takes the time of a lookup is a wrong guess of how many steps it takes: with room to spare it
/// is nearly always one.
const SPARSE_FILL: (usize, usize) = (4, 3);

/// A small table with open addressing: entries stand in the slots themselves, so that a lookup misses the cache once.
/// (An index beside dense entries takes less memory and was three times slower at 1e6 keys.)
///
/// The bits of the hash are shared out so that none serves twice: the store takes the top ones to find the shard, the
/// lowest give the slot, and with 20 others they are the fragment that stands beside the entry. A slot from bits that
/// are equal throughout a shard would turn the probing into a search.
#[repr(align(64))] // what a lookup needs is one cache line
pub(crate) struct Shard<E> {
    slots: Vec<Slot<E>>,
    full: usize,
    removed: usize,
    /// The last cut that this shard has nothing left to do for.
    pub(crate) settled: u64,
    /// What is kept for the running cut, from the first change after it until the sweep has passed.
    pub(crate) pending: Option<Box<Pending>>,
    /// What has changed since when, if that is asked for.
    pub(crate) changes: Option<Box<Changes>>,
}

enum Slot<E> {
    Empty,
    /// There was an entry, so that a search goes on beyond.
    Removed,
    Full(u32, E),
}

impl<E: Entry> Shard<E> {
    /// An empty shard, to grow from small.
    pub(crate) fn small(settled: u64) -> Self {
        Self { slots: empty(LEAST_SLOTS), full: 0, removed: 0, settled, pending: None, changes: None }
    }

    /// An empty shard of full size.
    pub(crate) fn large(settled: u64) -> Self {
        Self { slots: empty(FULL_SLOTS), ..Self::small(settled) }
    }

    pub(crate) fn len(&self) -> usize {
        self.full
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The place of the entry that `matches`.
    #[inline]
    pub(crate) fn find(&self, spread: u64, matches: impl Fn(&E) -> bool) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let fragment = spread as u32;
        let mut place = fragment as usize & mask;
        loop {
            match &self.slots[place] {
                Slot::Full(found, entry) if *found == fragment && matches(entry) => return Some(place),
                Slot::Empty => return None,
                Slot::Full(..) | Slot::Removed => place = (place + 1) & mask,
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&E> {
        match &self.slots[place] {
            Slot::Full(_, entry) => Some(entry),
            Slot::Empty | Slot::Removed => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut E> {
        match &mut self.slots[place] {
            Slot::Full(_, entry) => Some(entry),
            Slot::Empty | Slot::Removed => None,
        }
    }

    /// Loads the slots that [`Self::find`] is likely to read, without a branch that depends on them: where the processor
    /// guesses one wrong it has waited for memory in vain. Two steps reach past the end of the first slot as well.
    #[inline]
    pub(crate) fn touch(&self, spread: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let place = spread as usize & mask;
        let full = |place: usize| u32::from(matches!(self.slots[place], Slot::Full(..)));
        full(place) ^ full((place + 2) & mask)
    }

    /// Finds the entries among the 64 places from `first` on whose bits are set, and loads what they own: their places
    /// go into `found`, their number is returned. Encoding them one by one would wait for memory one by one. Which slots
    /// are full is anybody's guess, so the search for them has no branch that depends on it.
    #[inline]
    pub(crate) fn gather(&self, first: usize, bits: u64, found: &mut [usize; 64]) -> usize {
        let mut count = 0;
        for (at, slot) in self.slots.iter().skip(first).take(64).enumerate() {
            found[count] = first + at;
            count += usize::from(matches!(slot, Slot::Full(..))) & (bits >> at & 1) as usize;
        }
        let entries = found[..count].iter().filter_map(|&place| self.get(place));
        black_box(entries.fold(0, |loaded, entry| loaded ^ entry.warm()));
        count
    }

    /// Whether the next entry needs more slots, or fresh ones without those of removed entries: see [`Self::rebuild`].
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        (self.full + self.removed + 1) * 16 > self.slots.len() * self.fill().0
    }

    #[inline]
    fn fill(&self) -> (usize, usize) {
        if self.slots.len() < FULL_SLOTS { SPARSE_FILL } else { FILL }
    }

    /// Moves all entries to new slots, twice as many if the entries need them. Places change.
    #[cold]
    pub(crate) fn rebuild(&mut self) {
        let grow = (self.full + 1) * 16 > self.slots.len() * self.fill().1;
        let slots = if grow { self.slots.len() * 2 } else { self.slots.len() };
        let old = std::mem::replace(&mut self.slots, empty(slots));
        (self.full, self.removed) = (0, 0);
        let pending = self.pending.take();
        let mut moved = pending.as_ref().map(|_| Bits::default());
        let changes = self.changes.take();
        let mut moved_changes = changes.as_ref().map(|changes| changes.emptied());
        for (from, slot) in old.into_iter().enumerate() {
            let Slot::Full(fragment, entry) = slot else { continue };
            let to = self.place(fragment, entry);
            if let (Some(pending), Some(moved)) = (&pending, &mut moved)
                && pending.is_frozen(from)
            {
                moved.set(to);
            }
            if let (Some(changes), Some(moved)) = (&changes, &mut moved_changes) {
                changes.move_to(from, moved, to);
            }
        }
        if let (Some(mut changes), Some(mut moved)) = (changes, moved_changes) {
            for (period, removed) in changes.take_removed().into_iter().enumerate() {
                moved.set_removed(period, removed);
            }
            *changes = moved;
            self.changes = Some(changes);
        }
        if let (Some(mut pending), Some(moved)) = (pending, moved) {
            pending.freeze_as(moved);
            self.pending = Some(pending);
        }
    }

    /// Adds an entry that is not there yet and returns its place. The shard must not be tight.
    pub(crate) fn push(&mut self, spread: u64, entry: E) -> usize {
        let place = self.place(spread as u32, entry);
        if let Some(pending) = &mut self.pending {
            pending.thaw(place); // the running snapshot leaves it out
        }
        place
    }

    /// Adds an entry, or says `false` if the same one is there, in one pass over the slots: a restore adds nothing else.
    /// The shard must not be tight, and no cut pending.
    #[inline]
    pub(crate) fn push_unless_there(&mut self, spread: u64, entry: E) -> bool {
        debug_assert!(self.pending.is_none(), "a restore during a sweep");
        let mask = self.slots.len() - 1;
        let fragment = spread as u32;
        let mut place = fragment as usize & mask;
        let mut removed = None;
        loop {
            match &self.slots[place] {
                Slot::Full(found, there) if *found == fragment && there.same(&entry) => return false,
                Slot::Empty => break,
                Slot::Full(..) => {}
                // The same entry may stand behind it.
                Slot::Removed => removed = removed.or(Some(place)),
            }
            place = (place + 1) & mask;
        }
        if let Some(removed) = removed {
            self.removed -= 1;
            place = removed;
        }
        self.slots[place] = Slot::Full(fragment, entry);
        self.full += 1;
        true
    }

    fn place(&mut self, fragment: u32, entry: E) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = fragment as usize & mask;
        while let Slot::Full(..) = self.slots[place] {
            place = (place + 1) & mask;
        }
        if let Slot::Removed = self.slots[place] {
            self.removed -= 1;
        }
        self.slots[place] = Slot::Full(fragment, entry);
        self.full += 1;
        place
    }

    /// Keeps the entry as it is, if it is frozen and had not expired at `horizon`, and thaws it. Returns how many bytes that
    /// took.
    pub(crate) fn keep(&mut self, place: usize, group: KeyGroup, horizon: i64) -> Result<usize, StateError> {
        let (Some(pending), Slot::Full(_, entry)) = (&mut self.pending, &self.slots[place]) else { return Ok(0) };
        if !pending.is_frozen(place) {
            return Ok(0);
        }
        let bytes = if has_expired(entry, horizon) {
            pending.leave_out(group, entry)?;
            0
        } else {
            pending.keep(group, entry)?
        };
        pending.thaw(place);
        Ok(bytes)
    }

    /// Takes an entry out; no other one moves.
    pub(crate) fn remove(&mut self, place: usize) -> Option<E> {
        let mask = self.slots.len() - 1;
        let Slot::Full(_, entry) = std::mem::replace(&mut self.slots[place], Slot::Removed) else { return None };
        self.full -= 1;
        self.removed += 1;
        // At the end of a chain nobody searches beyond: no need to remember what was there.
        if let Slot::Empty = self.slots[(place + 1) & mask] {
            let mut place = place;
            while let Slot::Removed = self.slots[place] {
                self.slots[place] = Slot::Empty;
                self.removed -= 1;
                place = place.wrapping_sub(1) & mask;
            }
        }
        Some(entry)
    }

    /// The places of all entries.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (usize, E)> {
        self.slots.into_iter().enumerate().filter_map(|(place, slot)| match slot {
            Slot::Full(_, entry) => Some((place, entry)),
            Slot::Empty | Slot::Removed => None,
        })
    }

    /// Memory in bytes, without what entries own.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let own = self.slots.capacity() * size_of::<Slot<E>>() + size_of::<Self>();
        let changes = self.changes.as_ref().map_or(0, |changes| changes.memory_bytes());
        own as u64 + self.pending.as_ref().map_or(0, |pending| pending.memory_bytes()) + changes
    }
}

/// Whether the entry was last written at or before `horizon`.
#[inline]
pub(crate) fn has_expired<E: Entry>(entry: &E, horizon: i64) -> bool {
    entry.written().is_some_and(|written| written <= horizon)
}

fn empty<E>(slots: usize) -> Vec<Slot<E>> {
    (0..slots).map(|_| Slot::Empty).collect()
}
