use std::collections::BTreeMap;

use cutwater_core::KeyGroup;

use super::bits::Bits;
use super::shard::Entry;
use crate::StateError;

/// What a shard keeps for the running cut: which entries still have the state of the cut, and what the others were.
pub(crate) struct Pending {
    /// An entry at a place here is as it was at the cut, belongs to the snapshot, and is not swept yet.
    frozen: Bits,
    /// The entries that were changed or removed before they were swept, encoded as they were at the cut.
    undo: Parts,
    /// The names of the entries that were removed since the base of the cut.
    removed: Parts,
    /// Whether the snapshot holds only what has changed since a base.
    delta: bool,
    /// Its entries go to a tier, by names of their own.
    for_tier: bool,
    /// The sweep is within this shard and holds on to places: when they change it needs a new plan.
    pub(crate) pinned: bool,
}

/// Some encoded entries, or names of entries, of one key group.
#[derive(Clone, Default)]
pub(crate) struct Undo {
    pub(crate) entries: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Encoded entries by key group, in parts that can be emitted at once.
#[derive(Clone, Default)]
pub(crate) struct Parts(BTreeMap<KeyGroup, Vec<Undo>>);

/// So much is emitted at once, whatever the budget of the sweep.
const UNDO_BYTES: usize = 256 << 10;

impl Parts {
    /// The part of the group to append to; whoever appends an entry counts it.
    pub(crate) fn open(&mut self, group: KeyGroup) -> &mut Undo {
        let parts = self.0.entry(group).or_default();
        if parts.last().is_none_or(|part| part.bytes.len() >= UNDO_BYTES) {
            parts.push(Undo::default());
        }
        parts.last_mut().expect("a part was pushed if there was none to append to")
    }

    /// Adds an entry that is already encoded.
    pub(crate) fn push(&mut self, group: KeyGroup, entry: &[u8]) {
        let part = self.open(group);
        part.bytes.extend_from_slice(entry);
        part.entries += 1;
    }

    /// Adds all that the other has.
    pub(crate) fn append(&mut self, other: &Self) {
        for (group, parts) in &other.0 {
            self.0.entry(*group).or_default().extend(parts.iter().cloned());
        }
    }

    fn first(&self) -> Option<KeyGroup> {
        self.0.first_key_value().map(|(&group, _)| group)
    }

    fn take(&mut self, group: KeyGroup) -> Option<Undo> {
        let parts = self.0.get_mut(&group)?;
        let part = parts.pop();
        if parts.is_empty() {
            self.0.remove(&group);
        }
        part
    }

    pub(crate) fn entries(&self) -> u64 {
        self.0.values().flatten().map(|part| u64::from(part.entries)).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_groups(self) -> impl Iterator<Item = (KeyGroup, Vec<Undo>)> {
        self.0.into_iter()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.values().flatten().map(|part| part.bytes.capacity()).sum()
    }
}

impl Pending {
    /// Every entry of so many places is frozen. The bits of places without one say nothing: whoever puts an entry
    /// there clears them. So this need not look at the places.
    pub(crate) fn all(places: usize) -> Self {
        Self { frozen: Bits::all(places), ..Self::none() }
    }

    /// No entry is frozen.
    pub(crate) fn none() -> Self {
        Self {
            frozen: Bits::default(),
            undo: Parts::default(),
            removed: Parts::default(),
            delta: false,
            for_tier: false,
            pinned: false,
        }
    }

    /// Only these entries are frozen, and those of these names were removed.
    pub(crate) fn changed(frozen: Bits, removed: Parts, for_tier: bool) -> Self {
        Self { frozen, removed, delta: true, for_tier, ..Self::none() }
    }

    /// For one half of the shard when it splits: as this one, with nothing in it yet.
    pub(crate) fn half(&self) -> Self {
        Self { delta: self.delta, for_tier: self.for_tier, ..Self::none() }
    }

    /// Takes over which places are frozen, after the entries have moved.
    pub(crate) fn freeze_as(&mut self, moved: Bits) {
        self.frozen = moved;
    }

    #[inline]
    pub(crate) fn is_frozen(&self, place: usize) -> bool {
        self.frozen.has(place)
    }

    #[inline]
    pub(crate) fn thaw(&mut self, place: usize) {
        self.frozen.clear(place);
    }

    pub(crate) fn freeze(&mut self, place: usize) {
        self.frozen.set(place);
    }

    /// The first frozen place at or after this one.
    #[inline]
    pub(crate) fn next_frozen(&self, place: usize) -> Option<usize> {
        self.frozen.next(place)
    }

    /// Which of the places from this one to the end of its word are frozen, as bits from the lowest on.
    pub(crate) fn frozen_from(&self, place: usize) -> u64 {
        self.frozen.word_from(place)
    }

    /// Keeps the entry as it is now. Returns how many bytes that took.
    pub(crate) fn keep<E: Entry>(&mut self, group: KeyGroup, entry: &E) -> Result<usize, StateError> {
        let undo = self.undo.open(group);
        let before = undo.bytes.len();
        encode(entry, self.for_tier, &mut undo.bytes)?;
        undo.entries += 1;
        Ok(undo.bytes.len() - before)
    }

    /// Appends the entry as the blocks of the running snapshot have it.
    #[inline]
    pub(crate) fn encode<E: Entry>(&self, entry: &E, out: &mut Vec<u8>) -> Result<(), StateError> {
        encode(entry, self.for_tier, out)
    }

    /// The entry has expired: the snapshot leaves it out. What it builds on may hold it as it was before it got its stamp, so
    /// that one which builds on another says that the entry is gone.
    pub(crate) fn leave_out<E: Entry>(&mut self, group: KeyGroup, entry: &E) -> Result<(), StateError> {
        if self.delta {
            let removed = self.removed.open(group);
            entry.encode_name(&mut removed.bytes)?;
            removed.entries += 1;
        }
        Ok(())
    }

    /// Keeps an entry that is already encoded.
    pub(crate) fn keep_encoded(&mut self, group: KeyGroup, entry: &[u8]) {
        self.undo.push(group, entry);
    }

    /// Keeps the encoded name of an entry that was removed.
    pub(crate) fn keep_name(&mut self, group: KeyGroup, name: &[u8]) {
        self.removed.push(group, name);
    }

    /// The first group with kept entries or names.
    pub(crate) fn first_kept(&self) -> Option<KeyGroup> {
        [self.undo.first(), self.removed.first()].into_iter().flatten().min()
    }

    /// Takes some of the kept entries of the group.
    pub(crate) fn take_undo(&mut self, group: KeyGroup) -> Option<Undo> {
        self.undo.take(group)
    }

    /// Takes some of the names of removed entries of the group.
    pub(crate) fn take_removed(&mut self, group: KeyGroup) -> Option<Undo> {
        self.removed.take(group)
    }

    /// Everything kept, by group: entries, and names of removed ones.
    pub(crate) fn into_kept(self) -> (Parts, Parts) {
        (self.undo, self.removed)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.frozen.memory_bytes() + self.undo.memory_bytes() + self.removed.memory_bytes()) as u64
    }
}

#[inline]
fn encode<E: Entry>(entry: &E, for_tier: bool, out: &mut Vec<u8>) -> Result<(), StateError> {
    if E::MANY && for_tier { entry.encode_for_tier(out) } else { entry.encode(out) }
}
