//! Stores in which a key may have many entries: what is fetched and put out is then a key with all its entries. Whose entries are
//! in memory somebody else knows.

use std::ops::Range;

use cutwater_core::KeyHash;

use super::super::shard::Entry;
use super::super::{Place, Store};
use super::{SLOTS_FOR_EACH, decode};
use crate::codec::encode_framed;
use crate::{StateError, StateKind, group_prefix};

/// Keys whose entries are to be fetched.
pub(crate) struct Wanted {
    /// Whether keys may soon have to go: it is to be noted which ones are used.
    pub(crate) pressed: bool,
    /// Whether the tier may have any entry.
    below: bool,
    prefixes: Vec<u8>,
    keys: Vec<(Range<usize>, KeyHash)>,
}

impl Wanted {
    /// Of how many keys.
    pub(crate) fn count(&self) -> usize {
        self.keys.len()
    }
}

/// A store has too much in memory.
pub(crate) struct Pressure {
    /// So many entries have to go, about.
    pub(crate) entries: usize,
    /// Where to look for them: at most so many slots.
    pub(crate) slots: usize,
    /// Whether those that have changed may go too: [`Store::write_back`].
    pub(crate) may_write: bool,
}

/// Where a search that goes round a store goes on: a normalized hash, and a place in the shard there.
pub(crate) type Hand = (u64, usize);

impl<E: Entry> Store<E> {
    /// Whether there is a tier, and entries are called there by more than their keys.
    pub(in crate::store) fn many_cold(&self) -> bool {
        E::MANY && self.cold.is_some() && matches!(self.kind, StateKind::Map | StateKind::List)
    }

    /// How many entries are in memory.
    pub(crate) fn in_memory(&self) -> u64 {
        self.entries
    }

    /// What is to be fetched before a batch, still nothing; `None` if nothing is to be done for any key.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let cold = self.cold.as_ref()?;
        let (pressed, below) = (cold.pressed, cold.any_below);
        (pressed || below).then(|| Wanted { pressed, below, prefixes: Vec::new(), keys: Vec::new() })
    }

    /// The entries of this key, of which none is in memory, are wanted.
    pub(crate) fn want(&self, wanted: &mut Wanted, hash: KeyHash, key: &E::Key) -> Result<(), StateError> {
        if !wanted.below {
            return Ok(());
        }
        let start = wanted.prefixes.len();
        wanted.prefixes.extend_from_slice(&group_prefix(hash.group(self.spec.max_parallelism)));
        encode_framed(key, &mut wanted.prefixes)?;
        wanted.keys.push((start..wanted.prefixes.len(), hash));
        Ok(())
    }

    /// Reads the entries that are wanted, as far as the tier has them and they are not gone. Each is to be put in by
    /// [`Self::push_clean`].
    pub(crate) fn read_wanted(&mut self, wanted: Wanted) -> Result<Vec<(KeyHash, E)>, StateError> {
        let Wanted { prefixes, mut keys, .. } = wanted;
        let (Some(cold), false) = (&mut self.cold, keys.is_empty()) else { return Ok(Vec::new()) };
        keys.sort_unstable_by(|(one, _), (other, _)| prefixes[one.clone()].cmp(&prefixes[other.clone()]));
        keys.dedup_by(|(one, _), (other, _)| prefixes[one.clone()] == prefixes[other.clone()]);
        let asked: Vec<&[u8]> = keys.iter().map(|(prefix, _)| &prefixes[prefix.clone()]).collect();
        let (mut found, mut damaged) = (Vec::new(), None);
        let (encoded, gone) = (&mut cold.encoded, [&cold.gone, &cold.frozen_gone]);
        let read = cold.tier.get_all(cold.state, &asked, &mut |at, name, value| {
            encoded.add(name.len() + value.len());
            if gone.iter().any(|gone| gone.contains(name)) {
                return;
            }
            match decode::<E>(name, value) {
                Ok(entry) => found.push((keys[at].1, entry)),
                Err(error) => damaged = Some(error),
            }
        });
        read.map_err(|error| self.cold_error(error))?;
        damaged.map_or(Ok(found), Err)
    }

    /// Whether there is more in memory than may be, with so many bytes that belong to it elsewhere.
    pub(crate) fn pressure(&mut self, beside: u64) -> Result<Option<Pressure>, StateError> {
        self.sample()?;
        let Some(cold) = &self.cold else { return Ok(None) };
        let (bytes, limit) = (self.cold_bytes(cold) + beside, cold.limit);
        let hand = self.moved(cold.hand);
        let entries = self.entries.max(1);
        let Some(cold) = &mut self.cold else { return Ok(None) };
        cold.hand = hand; // only what is sampled lies there
        cold.pressed = bytes > limit - limit / 8;
        let over = bytes.saturating_sub(limit);
        if over == 0 {
            return Ok(None);
        }
        let entries = usize::try_from(over.div_ceil((bytes / entries).max(1))).unwrap_or(usize::MAX);
        let slots = SLOTS_FOR_EACH.saturating_mul(entries.saturating_add(64));
        Ok(Some(Pressure { entries, slots, may_write: !cold.outstanding }))
    }

    /// Whether the tier does not have the entry as it is here.
    pub(crate) fn is_dirty(&self, place: Place) -> bool {
        let applied = self.cold.as_ref().map_or(0, |cold| cold.applied);
        self.shards[place.shard].changes.as_ref().is_some_and(|changes| changes.is_since(applied, place.entry))
    }

    /// Notes that an entry is used, for [`Self::turn`].
    pub(crate) fn mark_used(&mut self, place: Place) {
        self.shards[place.shard].changes.get_or_insert_default().used(place.entry);
    }

    /// Goes on through the rest of a shard, and returns entries that were not used since it came by the last time, at most so
    /// many. Takes off `slots` how many it has visited.
    pub(crate) fn turn(&mut self, hand: &mut Hand, slots: &mut usize, most: usize) -> Vec<Place> {
        let shard = self.directory[(hand.0 >> (64 - self.depth)) as usize] as usize;
        let visited = &mut self.shards[shard];
        let (from, mut unused) = (hand.1.min(visited.slots()), Vec::new());
        let mut entry = from;
        while entry < visited.slots() && unused.len() < most {
            let used = visited.changes.as_mut().is_some_and(|changes| changes.was_used(entry));
            if visited.get(entry).is_some() && !used {
                unused.push(Place { shard, entry });
            }
            entry += 1;
        }
        *slots = slots.saturating_sub(entry - from + 1);
        *hand = self.at_or_behind((hand.0, entry));
        unused
    }

    /// A few slots further.
    fn moved(&self, hand: Hand) -> Hand {
        self.at_or_behind((hand.0, hand.1 + 7))
    }

    /// The hand, or where the next shard begins if it is at the end of one.
    fn at_or_behind(&self, (cursor, entry): Hand) -> Hand {
        let shard = self.directory[(cursor >> (64 - self.depth)) as usize] as usize;
        if entry < self.shards[shard].slots() {
            return (cursor, entry);
        }
        let width = 1_u64.checked_shl(64 - self.depths[shard]).unwrap_or(0);
        // The shard may have split since, so that the cursor is not where one begins.
        let first = if width == 0 { 0 } else { cursor & !(width - 1) };
        (first.wrapping_add(width), 0)
    }

    /// Takes an entry out that no tier and no snapshot knows of, of a store that only says what another one has.
    pub(crate) fn drop_at(&mut self, place: Place) {
        if self.shards[place.shard].remove(place.entry).is_some() {
            self.entries -= 1;
        }
    }
}
