use std::collections::BTreeMap;

use cutwater_core::KeyGroup;

use super::shard::Entry;
use crate::StateError;

/// What a shard keeps for the running cut: which entries still have the state of the cut, and what the others were.
pub(crate) struct Pending {
    /// A bit for each place: an entry there is as it was at the cut, and not swept yet.
    frozen: Vec<u64>,
    /// The entries that were changed or removed before they were swept, encoded as they were at the cut.
    undo: BTreeMap<KeyGroup, Vec<Undo>>,
    /// The sweep is within this shard and holds on to places: when they change it needs a new plan.
    pub(crate) pinned: bool,
}

/// Some encoded entries of one key group.
#[derive(Default)]
pub(crate) struct Undo {
    pub(crate) entries: u32,
    pub(crate) bytes: Vec<u8>,
}

/// So much is emitted at once, whatever the budget of the sweep.
const UNDO_BYTES: usize = 256 << 10;

impl Pending {
    /// Every entry of so many places is frozen. The bits of places without one say nothing: whoever puts an entry
    /// there clears them. So this need not look at the places.
    pub(crate) fn all(places: usize) -> Self {
        let mut frozen = vec![u64::MAX; places.div_ceil(64)];
        if let Some(last) = frozen.last_mut().filter(|_| !places.is_multiple_of(64)) {
            *last = (1 << (places % 64)) - 1;
        }
        Self { frozen, undo: BTreeMap::new(), pinned: false }
    }

    /// No entry is frozen.
    pub(crate) fn none() -> Self {
        Self::all(0)
    }

    /// Takes over which places are frozen, after the entries have moved.
    pub(crate) fn freeze_as(&mut self, moved: Self) {
        self.frozen = moved.frozen;
    }

    #[inline]
    pub(crate) fn is_frozen(&self, place: usize) -> bool {
        self.frozen.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    #[inline]
    pub(crate) fn thaw(&mut self, place: usize) {
        if let Some(word) = self.frozen.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    pub(crate) fn freeze(&mut self, place: usize) {
        if self.frozen.len() <= place / 64 {
            self.frozen.resize(place / 64 + 1, 0);
        }
        self.frozen[place / 64] |= 1 << (place % 64);
    }

    /// The first frozen place at or after this one.
    #[inline]
    pub(crate) fn next_frozen(&self, place: usize) -> Option<usize> {
        let mut word = place / 64;
        let mut bits = self.frozen.get(word)? & (u64::MAX << (place % 64));
        while bits == 0 {
            word += 1;
            bits = *self.frozen.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// Which of the places from this one to the end of its word are frozen, as bits from the lowest on.
    pub(crate) fn frozen_from(&self, place: usize) -> u64 {
        self.frozen.get(place / 64).map_or(0, |word| word >> (place % 64))
    }

    /// Keeps the entry as it is now. Returns how many bytes that took.
    pub(crate) fn keep<E: Entry>(&mut self, group: KeyGroup, entry: &E) -> Result<usize, StateError> {
        let undo = self.undo_of(group);
        let before = undo.bytes.len();
        entry.encode(&mut undo.bytes)?;
        undo.entries += 1;
        Ok(undo.bytes.len() - before)
    }

    /// Keeps an entry that is already encoded.
    pub(crate) fn keep_encoded(&mut self, group: KeyGroup, entry: &[u8]) {
        let undo = self.undo_of(group);
        undo.bytes.extend_from_slice(entry);
        undo.entries += 1;
    }

    fn undo_of(&mut self, group: KeyGroup) -> &mut Undo {
        let parts = self.undo.entry(group).or_default();
        if parts.last().is_none_or(|part| part.bytes.len() >= UNDO_BYTES) {
            parts.push(Undo::default());
        }
        parts.last_mut().expect("a part was pushed if there was none to append to")
    }

    /// The first group with kept entries.
    pub(crate) fn first_undo(&self) -> Option<KeyGroup> {
        self.undo.first_key_value().map(|(&group, _)| group)
    }

    /// Takes some of the kept entries of the group.
    pub(crate) fn take_undo(&mut self, group: KeyGroup) -> Option<Undo> {
        let parts = self.undo.get_mut(&group)?;
        let part = parts.pop();
        if parts.is_empty() {
            self.undo.remove(&group);
        }
        part
    }

    /// Everything kept, by group.
    pub(crate) fn into_undo(self) -> BTreeMap<KeyGroup, Vec<Undo>> {
        self.undo
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let undo: usize = self.undo.values().flatten().map(|part| part.bytes.capacity()).sum();
        (self.frozen.capacity() * 8 + undo) as u64
    }
}
