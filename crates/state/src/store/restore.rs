use std::hint::black_box;

use cutwater_core::{KeyGroup, KeyGroupRange, KeyHash};

use super::shard::{Entry, Shard};
use super::{FULL_SLOTS, NAME_REST, Place, Store};
use crate::block::read_entries;
use crate::{Block, BlockKind, StateError, codec_of};

/// A shard made beforehand gets at most so many entries on average, so that hardly one has to split.
const RESERVED_ENTRIES: u64 = FULL_SLOTS as u64 * 5 / 8;
/// So many changed entries are looked up together.
const TOGETHER: usize = 128;
/// No more shards than this are made beforehand: the number of entries comes from a file.
const MAX_RESERVED_DEPTH: u32 = 18;

impl<E: Entry> Store<E> {
    /// Makes the shards that so many entries will need. Without effect on a store that has any entry.
    pub(crate) fn reserve(&mut self, entries: u64) {
        if self.entries > 0
            || self.cold.is_some()
            || self.shards.len() > 1
            || self.sweeping()
            || entries < RESERVED_ENTRIES
        {
            return;
        }
        // The groups fill between half and all of the normalized hashes.
        let share = f64::from(self.spec.key_groups.count()) / f64::from(self.spec.max_parallelism.count());
        let wanted = entries as f64 / (share * 2_f64.powi(self.free as i32)).clamp(0.5, 1.0);
        let mut depth = 1;
        while depth < MAX_RESERVED_DEPTH && wanted > RESERVED_ENTRIES as f64 * f64::from(1_u32 << depth) {
            depth += 1;
        }
        self.reserved = true; // each shard takes its slots when it gets its first entry
        self.depth = depth;
        self.directory = (0..1 << depth).collect();
        self.shards = (0..1 << depth).map(|_| Shard::small(self.cuts)).collect();
        self.depths = vec![depth; 1 << depth];
    }

    /// Puts the entries of a block into the store; `added` hears of each that was not there, `removed` of each that goes.
    pub(crate) fn restore(
        &mut self,
        block: &Block,
        groups: KeyGroupRange,
        mut added: impl FnMut(&E, KeyHash),
        mut removed: impl FnMut(&E, KeyHash),
    ) -> Result<u64, StateError> {
        if self.sweeping() {
            return Err(StateError::Sweeping {
                operator: self.spec.operator.as_str().into(),
                state: self.spec.name.as_str().into(),
            });
        }
        let own = self.spec.key_groups;
        let range = KeyGroupRange { first: groups.first.max(own.first), last: groups.last.min(own.last) };
        if self.cold.is_some() {
            return self.cold_restore(block, range);
        }
        let second = if block.kind == BlockKind::Removed { NAME_REST } else { codec_of::<E::Value>() };
        let mut changed: Vec<(KeyGroup, KeyHash, E)> = Vec::new();
        let restored = read_entries(block, (codec_of::<E::Key>(), second), range, |group, key, value| {
            let hash = KeyHash::of(key);
            if hash.group(self.spec.max_parallelism) != group {
                return Err(damaged(group, "the key belongs to another group"));
            }
            match block.kind {
                BlockKind::All => {
                    let entry = E::decode(key, value)?;
                    added(&entry, hash);
                    return self.adopt(group, hash, entry);
                }
                BlockKind::Changed => {
                    changed.push((group, hash, E::decode(key, value)?));
                    if changed.len() >= TOGETHER {
                        self.change(&mut changed, &mut added)?;
                    }
                }
                BlockKind::ForTier => return Err(damaged(group, "it is for a tier, and not for a table")),
                BlockKind::Removed => {
                    let (name, spread) = E::decode_name(hash, key, value)?;
                    // It may have come and gone since what this builds on.
                    if let Some(place) = self.find(hash, spread, |there| there.has_name(&name)) {
                        removed(&self.remove(hash, place)?, hash);
                    }
                }
            }
            Ok(())
        })?;
        self.change(&mut changed, &mut added)?;
        Ok(restored)
    }

    /// Puts changed entries in the place of those that are there.
    fn change(
        &mut self,
        changed: &mut Vec<(KeyGroup, KeyHash, E)>,
        added: &mut impl FnMut(&E, KeyHash),
    ) -> Result<(), StateError> {
        // They lie anywhere: their cache misses, and those of what the old values own, overlap.
        let touch =
            |&(_, hash, ref entry): &(KeyGroup, KeyHash, E)| self.shards[self.shard_of(hash)].touch(entry.spread(hash));
        black_box(changed.iter().map(touch).fold(0, |loaded, slot| loaded ^ slot));
        let places: Vec<Option<Place>> = changed
            .iter()
            .map(|(_, hash, entry)| self.find(*hash, entry.spread(*hash), |there| there.same(entry)))
            .collect();
        black_box(places.iter().flatten().fold(0, |loaded, place| loaded ^ self.at(*place).warm()));
        let mut new = Vec::new();
        for ((group, hash, entry), place) in changed.drain(..).zip(places) {
            match place {
                Some(place) => *self.at_mut(hash, place)? = entry,
                None => new.push((group, hash, entry)), // later, since it may move others
            }
        }
        for (group, hash, entry) in new {
            added(&entry, hash);
            self.adopt(group, hash, entry)?;
        }
        Ok(())
    }

    /// Adds an entry of one of the store's own groups.
    fn adopt(&mut self, group: KeyGroup, hash: KeyHash, entry: E) -> Result<(), StateError> {
        let spread = entry.spread(hash);
        let mut shard = self.shard_of(hash);
        if self.reserved && self.shards[shard].len() == 0 {
            self.shards[shard] = Shard::large(self.cuts);
        }
        if self.shards[shard].is_tight() {
            self.make_room(hash)?;
            shard = self.shard_of(hash);
        }
        if !self.shards[shard].push_unless_there(spread, entry) {
            return Err(damaged(group, "the key is there already"));
        }
        self.entries += 1;
        Ok(())
    }
}

#[cold]
fn damaged(group: KeyGroup, reason: &str) -> StateError {
    StateError::Damaged { part: "entry of a block", offset: 0, reason: format!("{group}: {reason}").into() }
}
