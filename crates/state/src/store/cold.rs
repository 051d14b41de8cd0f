//! The tier below a store: entries are fetched from it before they are needed, put out to it when memory runs short, and
//! what changes between two cuts is written there by whoever takes the snapshot.
//!
//! An entry is *clean* if the tier has it as it is here, else dirty. The tier has everything up to the cut `applied`; what has
//! changed since then is dirty. Between a cut and the word that all of it was applied nobody else writes to the tier, so that
//! it then is as the state was at the cut.

mod keys;
mod timers;

pub(crate) use self::keys::Hand;
use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Arc;

use cutwater_core::{KeyGroupRange, KeyHash};

use super::shard::Entry;
use super::{Place, Store, Tracked};
use crate::codec::{append_framed, split_framed};
use crate::cold::{append_name, batch_of, split_for_tier, split_name};
use crate::{
    Block, BlockKind, CodecId, ColdBatch, ColdError, ColdState, ColdTier, Cut, StateError, StateKind, codec_of,
    group_prefix,
};

/// What a store has of the tier below it.
pub(super) struct Cold {
    tier: Arc<dyn ColdTier>,
    state: ColdState,
    /// How many bytes the entries in memory may take.
    limit: u64,
    /// About how many entries are in the tier alone.
    below: u64,
    /// Whether there may be any.
    any_below: bool,
    /// The tier has everything up to this cut.
    applied: u64,
    /// A later cut is on its way into the tier, or a part of it was: nobody else may write there.
    outstanding: bool,
    /// Names of entries that went since the last cut, which the tier may have.
    gone: BTreeSet<Vec<u8>>,
    /// The same of the cut that is not applied yet.
    frozen_gone: BTreeSet<Vec<u8>>,
    /// How far the sweep has emitted them.
    emitted: Emitted,
    /// Where the search for entries to put out goes on: a normalized hash, and a place in the shard there.
    hand: (u64, usize),
    /// Bytes of an encoded entry, on average.
    encoded: Average,
    batch: ColdBatch,
    /// Whether entries may soon have to go: only then it is noted which ones are used.
    pressed: bool,
    lookup: Lookup,
    /// How often the tier was told what may expire.
    expired: u64,
}

/// What [`Store::fetch`] asks for; kept for its memory.
#[derive(Default)]
struct Lookup {
    names: Vec<u8>,
    /// Where each name is, and the hash of its key.
    missing: Vec<(Range<usize>, KeyHash)>,
}

enum Emitted {
    UpTo(Bound<Vec<u8>>),
    All,
}

/// An average of many numbers that forgets the old ones.
#[derive(Default)]
struct Average {
    sum: u64,
    count: u64,
}

impl Average {
    fn add(&mut self, number: usize) {
        self.sum += number as u64;
        self.count += 1;
        if self.count >= 1 << 16 {
            (self.sum, self.count) = (self.sum / 2, self.count / 2);
        }
    }

    fn get(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }
}

/// So many entries are put out together.
const TOGETHER: usize = 1024;
/// In a call of [`Store::relieve`] at most so many slots are visited for each entry that has to go, and this many besides: if
/// they all have to stay the store grows.
const SLOTS_FOR_EACH: usize = 64;
/// So many times its limit a store may take while a cut is on its way into the tier.
const CROWDED: u64 = 2;
/// After so many calls of [`Store::expire`] it is asked how many entries the tier has left.
const EXPIRED_OFTEN: u64 = 1024;
/// So many entries are looked at before their size is believed to be known.
const SAMPLED: u64 = 16;

impl<E: Entry> Store<E> {
    /// From now on entries may lie in the tier. To be called before there is any entry.
    pub(crate) fn attach(&mut self, tier: Arc<dyn ColdTier>, limit: u64) -> Result<(), StateError> {
        assert!(self.entries == 0 && self.cuts == 0, "a tier is attached to an empty state");
        let state = tier.open(&self.header()).map_err(|error| self.cold_error(error))?;
        self.cold = Some(Box::new(Cold {
            tier,
            state,
            limit,
            below: 0,
            any_below: false,
            applied: 0,
            outstanding: false,
            gone: BTreeSet::new(),
            frozen_gone: BTreeSet::new(),
            emitted: Emitted::All,
            hand: (0, 0),
            encoded: Average::default(),
            batch: ColdBatch::default(),
            pressed: false,
            lookup: Lookup::default(),
            expired: 0,
        }));
        self.tracked = Some(Tracked::default());
        self.set_active(0);
        Ok(())
    }

    /// What its names in a tier go by.
    pub(crate) fn naming(&self) -> (StateKind, CodecId) {
        (self.kind, codec_of::<E::Key>())
    }

    pub(crate) fn cold_state(&self) -> Option<ColdState> {
        self.cold.as_ref().map(|cold| cold.state)
    }

    pub(crate) fn cold_entries(&self) -> u64 {
        self.cold.as_ref().map_or(0, |cold| cold.below)
    }

    /// What is in the tier and was stamped at or before `horizon` may go, unless a cut of before is on its way there.
    pub(crate) fn expire(&mut self, horizon: i64) -> Result<(), StateError> {
        let Some(cold) = self.cold.as_mut().filter(|cold| !cold.outstanding) else { return Ok(()) };
        cold.tier.expire(cold.state, horizon);
        cold.expired += 1;
        if cold.expired % EXPIRED_OFTEN == 0 {
            // It does not say how many have gone.
            match cold.tier.about(cold.state) {
                Ok(about) => cold.below = cold.below.min(about),
                Err(error) => return Err(self.cold_error(error)),
            }
        }
        Ok(())
    }

    /// The tier had about so many entries when it was attached.
    pub(crate) fn imported(&mut self, entries: u64) {
        if let Some(cold) = &mut self.cold {
            assert!(self.entries == 0 && self.cuts == 0, "what the tier has is said of an empty state");
            cold.below += entries;
            cold.any_below = true;
        }
    }

    /// Brings the entries of these names into memory, where the tier has them, and returns for how many it was asked. `Q` is what
    /// an entry is asked for by.
    pub(crate) fn fetch<'q, Q: 'q>(
        &mut self,
        wanted: impl IntoIterator<Item = (KeyHash, &'q Q)>,
        is: impl Fn(&E, &Q) -> bool,
        spread: impl Fn(KeyHash, &Q) -> u64,
        encode: impl Fn(&Q, &mut Vec<u8>) -> Result<(), StateError>,
    ) -> Result<usize, StateError> {
        let Some(cold) = &mut self.cold else { return Ok(0) };
        if !cold.any_below && !cold.pressed {
            return Ok(0); // all that there is is here, and will stay
        }
        let (pressed, any_below) = (cold.pressed, cold.any_below);
        let Lookup { mut names, mut missing } = std::mem::take(&mut cold.lookup);
        names.clear();
        missing.clear();
        for (hash, query) in wanted {
            if let Some(place) = self.find(hash, spread(hash, query), |entry| is(entry, query)) {
                if pressed {
                    self.shards[place.shard].changes.get_or_insert_default().used(place.entry);
                }
            } else if any_below {
                let start = names.len();
                names.extend_from_slice(&group_prefix(hash.group(self.spec.max_parallelism)));
                encode(query, &mut names)?;
                let cold = self.cold.as_ref().expect("seen above");
                let name = &names[start..];
                if cold.gone.contains(name) || cold.frozen_gone.contains(name) {
                    names.truncate(start);
                } else {
                    missing.push((start..names.len(), hash));
                }
            }
        }
        missing.sort_unstable_by(|(one, _), (other, _)| names[one.clone()].cmp(&names[other.clone()]));
        missing.dedup_by(|(one, _), (other, _)| names[one.clone()] == names[other.clone()]);
        let count = missing.len();
        let mut found = Vec::with_capacity(count);
        let mut damaged = None;
        let cold = self.cold.as_mut().expect("seen above");
        if !missing.is_empty() {
            let asked: Vec<&[u8]> = missing.iter().map(|(name, _)| &names[name.clone()]).collect();
            let read = cold.tier.get(cold.state, &asked, &mut |at, value| {
                cold.encoded.add(asked[at].len() + value.len());
                match decode::<E>(asked[at], value) {
                    Ok(entry) => found.push((missing[at].1, entry)),
                    Err(error) => damaged = Some(error),
                }
            });
            read.map_err(|error| self.cold_error(error))?;
        }
        if let Some(cold) = &mut self.cold {
            cold.lookup = Lookup { names, missing };
        }
        if let Some(error) = damaged {
            return Err(error);
        }
        for (hash, entry) in found {
            self.push_clean(hash, entry)?;
        }
        Ok(count)
    }

    /// Adds an entry as the tier has it.
    pub(crate) fn push_clean(&mut self, hash: KeyHash, entry: E) -> Result<(), StateError> {
        let spread = entry.spread(hash);
        let mut shard = self.shard_of(hash);
        if self.shards[shard].is_tight() {
            self.make_room(hash)?;
            shard = self.shard_of(hash);
        }
        if self.shards[shard].settled < self.active {
            self.pending(shard); // the running snapshot is of what has changed: this has not
        }
        let place = self.shards[shard].push(spread, entry);
        self.shards[shard].changes.get_or_insert_default().used(place);
        self.entries += 1;
        if let Some(cold) = &mut self.cold {
            cold.below = cold.below.saturating_sub(1);
        }
        Ok(())
    }

    /// How many bytes the entries in memory take, as an estimate: what they own has the size of its encoding.
    fn cold_bytes(&self, cold: &Cold) -> u64 {
        self.entries * each_bytes::<E>(cold)
    }

    /// Whether entries that have changed since a cut, which is not in the tier yet, take so much memory that they should not
    /// become more.
    pub(crate) fn is_crowded(&self) -> bool {
        let Some(cold) = self.cold.as_ref().filter(|cold| cold.outstanding) else { return false };
        self.cold_bytes(cold) > cold.limit.saturating_mul(CROWDED)
    }

    /// Puts entries out until those in memory fit the limit, if it is possible in a bounded number of steps: those that were
    /// not used for the longest time, about, first. Dirty ones stay while a cut waits to be applied.
    pub(crate) fn relieve(&mut self) -> Result<(), StateError> {
        self.sample()?;
        let Some(cold) = &self.cold else { return Ok(()) };
        let (bytes, limit) = (self.cold_bytes(cold), cold.limit);
        if let Some(cold) = &mut self.cold {
            cold.pressed = bytes > limit - limit / 8;
        }
        let Some(cold) = &self.cold else { return Ok(()) };
        let over = bytes.saturating_sub(limit);
        if over == 0 {
            return Ok(());
        }
        let each = bytes / self.entries.max(1);
        let (applied, may_write) = (cold.applied, !cold.outstanding);
        let mut too_many = usize::try_from(over.div_ceil(each.max(1))).unwrap_or(usize::MAX);
        let mut slots = SLOTS_FOR_EACH.saturating_mul(too_many.saturating_add(64));
        let (mut clean, mut dirty) = (Vec::new(), Vec::new());
        while too_many > 0 && slots > 0 {
            self.turn_hand(&mut slots, too_many.min(TOGETHER), applied, may_write, &mut clean, &mut dirty);
            too_many -= clean.len() + dirty.len();
            self.write_back(&dirty)?;
            for place in clean.drain(..).chain(dirty.drain(..)) {
                self.put_out(place);
            }
        }
        Ok(())
    }

    /// Sees how large an entry is: one each time, more at first.
    fn sample(&mut self) -> Result<(), StateError> {
        let Some(cold) = &mut self.cold else { return Ok(()) };
        let wanted = if cold.encoded.count < SAMPLED { SAMPLED as usize } else { 1 };
        let (cursor, from) = cold.hand;
        let shard = &self.shards[self.directory[(cursor >> (64 - self.depth)) as usize] as usize];
        let places = (from..shard.slots()).chain(0..from.min(shard.slots()));
        for entry in places.take(SLOTS_FOR_EACH).filter_map(|place| shard.get(place)).take(wanted) {
            self.scratch.clear();
            entry.encode(&mut self.scratch)?;
            cold.encoded.add(self.scratch.len());
        }
        Ok(())
    }

    /// Visits the rest of the shard where the hand is, and notes which of its entries may be put out, not more than wanted.
    fn turn_hand(
        &mut self,
        slots: &mut usize,
        wanted: usize,
        applied: u64,
        may_write: bool,
        clean: &mut Vec<Place>,
        dirty: &mut Vec<Place>,
    ) {
        let Some(cold) = &mut self.cold else { return };
        let (cursor, from) = cold.hand;
        let shard = self.directory[(cursor >> (64 - self.depth)) as usize] as usize;
        let found = &mut self.shards[shard];
        let end = found.slots();
        let mut entry = from.min(end);
        while entry < end && clean.len() + dirty.len() < wanted {
            if found.get(entry).is_some() {
                let changes = found.changes.as_mut();
                let (used, changed) =
                    changes.map_or((false, false), |it| (it.was_used(entry), it.is_since(applied, entry)));
                match (used, changed) {
                    (true, _) => {}
                    (false, false) => clean.push(Place { shard, entry }),
                    (false, true) if may_write => dirty.push(Place { shard, entry }),
                    (false, true) => {}
                }
            }
            entry += 1;
        }
        *slots = slots.saturating_sub(entry - from.min(entry) + 1);
        cold.hand.1 = entry;
        if entry >= end {
            let width = 1_u64.checked_shl(64 - self.depths[shard]).unwrap_or(0);
            // The shard may have split since, so that the cursor is not where one begins.
            let first = if width == 0 { 0 } else { cursor & !(width - 1) };
            cold.hand = (first.wrapping_add(width), 0);
        }
    }

    /// Writes dirty entries to the tier; after that they are clean.
    pub(crate) fn write_back(&mut self, dirty: &[Place]) -> Result<(), StateError> {
        let (many, of) = (self.many_cold(), self.naming());
        let (Some(cold), false) = (&mut self.cold, dirty.is_empty()) else { return Ok(()) };
        cold.batch.clear();
        let mut name = Vec::new();
        for place in dirty {
            let Some(entry) = self.shards[place.shard].get(place.entry) else { continue };
            self.scratch.clear();
            match many {
                true => entry.encode_for_tier(&mut self.scratch)?,
                false => entry.encode(&mut self.scratch)?,
            }
            let mut rest = self.scratch.as_slice();
            let key = split_framed(codec_of::<E::Key>(), &mut rest).expect("written by `encode`");
            let value = split_framed(codec_of::<E::Value>(), &mut rest).expect("written by `encode`");
            let (rest, value) = if many { split_for_tier(value)? } else { split::<E>(value)? };
            name.clear();
            append_name(of, KeyHash::of(key).group(self.spec.max_parallelism), key, rest, &mut name)?;
            cold.batch.put(&name, value);
            cold.gone.remove(&name); // it came back, and from now on the tier has it
            cold.encoded.add(name.len() + value.len());
        }
        cold.batch.sort();
        let written = cold.tier.write(cold.state, &cold.batch);
        written.map_err(|error| self.cold_error(error))?;
        for place in dirty {
            if let Some(changes) = &mut self.shards[place.shard].changes {
                changes.clean(place.entry);
            }
        }
        Ok(())
    }

    /// Takes a clean entry out of memory.
    pub(crate) fn put_out(&mut self, place: Place) {
        let Some(cold) = &mut self.cold else { return };
        if self.shards[place.shard].remove(place.entry).is_some() {
            self.entries -= 1;
            cold.below += 1;
            cold.any_below = true;
        }
    }

    /// The entry is about to go: the tier may have it.
    pub(super) fn cold_gone(&mut self, hash: KeyHash, place: Place) -> Result<(), StateError> {
        self.scratch.clear();
        let (until, of) = (self.cuts + 1, self.naming());
        let shard = &mut self.shards[place.shard];
        shard.get(place.entry).map_or(Ok(()), |entry| entry.encode_name(&mut self.scratch))?;
        let fresh = shard.changes.as_mut().is_some_and(|changes| changes.gone_unnamed(until, place.entry));
        if let (Some(cold), false) = (&mut self.cold, fresh) {
            let mut rest = self.scratch.as_slice();
            let key = split_framed(codec_of::<E::Key>(), &mut rest).expect("written by `encode_name`");
            let mut name = Vec::with_capacity(self.scratch.len());
            append_name(of, hash.group(self.spec.max_parallelism), key, &rest[4..], &mut name)?; // behind its length
            cold.gone.insert(name);
        }
        Ok(())
    }

    /// A cut is made: the base of it, if there is a tier, is what that has.
    pub(super) fn cold_base(&mut self) -> Option<Cut> {
        let cold = self.cold.as_mut()?;
        assert!(!cold.outstanding, "a cut before the last one was applied, or is known to be written no more");
        cold.outstanding = true;
        cold.frozen_gone = std::mem::take(&mut cold.gone);
        cold.emitted = Emitted::UpTo(Bound::Unbounded);
        Some(Cut(cold.applied))
    }

    /// The tier has everything that the sweep of this cut, the last one, has emitted.
    pub(crate) fn applied(&mut self, cut: Cut) {
        let Some(cold) = &mut self.cold else { return };
        assert!(cold.outstanding && self.active == 0 && cut.0 == self.cuts, "the last cut was swept and is applied");
        (cold.applied, cold.outstanding) = (cut.0, false);
        cold.frozen_gone = BTreeSet::new();
        self.forget_before(cut);
    }

    /// Nothing more of the last cut, which was given up, is written to the tier. It may have a part, which the next cut
    /// writes once more.
    pub(crate) fn not_applied(&mut self) {
        if let Some(cold) = &mut self.cold {
            assert!(self.active == 0, "the sweep of a cut is aborted first");
            cold.outstanding = false;
            let mut frozen = std::mem::take(&mut cold.frozen_gone);
            cold.gone.append(&mut frozen);
        }
    }

    /// Emits names of entries that went before the cut, until there are `stop` bytes; true if there are no more.
    pub(super) fn emit_gone(&mut self, stop: usize) -> bool {
        let of = self.naming();
        let Some(cold) = &mut self.cold else { return true };
        let Emitted::UpTo(after) = std::mem::replace(&mut cold.emitted, Emitted::All) else { return true };
        let block = &mut self.sweep.removed;
        for name in cold.frozen_gone.range((after, Bound::Unbounded)) {
            let (group, key, rest) = split_name(of, name).expect("it was made of these");
            block.open(group);
            append_framed::<E::Key>(key, block.payload());
            let length = u32::try_from(rest.len()).expect("it was checked when the name was made");
            block.payload().extend_from_slice(&length.to_le_bytes());
            block.payload().extend_from_slice(rest);
            block.added(1);
            if block.bytes() >= stop {
                cold.emitted = Emitted::UpTo(Bound::Excluded(name.clone()));
                return false;
            }
        }
        true
    }

    /// Puts what a snapshot holds into the tier: entries do not come into memory before they are wanted.
    pub(super) fn cold_restore(&mut self, block: &Block, range: KeyGroupRange) -> Result<u64, StateError> {
        let header = self.header();
        let Some(cold) = &mut self.cold else { return Ok(0) };
        assert!(self.entries == 0, "a state is restored before anything else happens to it");
        if block.kind == BlockKind::ForTier {
            let reason = "it is for a tier, and not for a table".into();
            return Err(StateError::Damaged { part: "block to restore", offset: 0, reason });
        }
        let restored = batch_of(&header, block, range, &mut cold.batch, split::<E>)?;
        cold.batch.sort();
        let names: BTreeSet<&[u8]> = cold.batch.iter().map(|(name, _)| name).collect();
        let repeated =
            || StateError::Damaged { part: "entry of a block", offset: 0, reason: "the key is there already".into() };
        if block.kind == BlockKind::All && (names.len() as u64) < restored {
            return Err(repeated());
        }
        let mut there = 0;
        let names: Vec<&[u8]> = names.into_iter().collect();
        let read = if cold.any_below { cold.tier.get(cold.state, &names, &mut |_, _| there += 1) } else { Ok(()) };
        if block.kind == BlockKind::All && there > 0 {
            return Err(repeated());
        }
        let all = names.len() as u64;
        let written = read.and_then(|()| cold.tier.write(cold.state, &cold.batch));
        match block.kind {
            BlockKind::All | BlockKind::Changed | BlockKind::ForTier => cold.below += all - there,
            BlockKind::Removed => cold.below = cold.below.saturating_sub(there),
        }
        cold.any_below |= all > 0;
        written.map_err(|error| self.cold_error(error))?;
        Ok(restored)
    }

    #[cold]
    fn cold_error(&self, error: ColdError) -> StateError {
        StateError::Cold {
            operator: self.spec.operator.as_str().into(),
            state: self.spec.name.as_str().into(),
            source: Box::new(error),
        }
    }
}

/// How many bytes an entry in memory takes, about.
fn each_bytes<E: Entry>(cold: &Cold) -> u64 {
    // Slots are about two thirds full.
    size_of::<E>() as u64 * 3 / 2 + cold.encoded.get()
}

/// What belongs to the name in the tier, and what does not, of an encoded value.
fn split<E: Entry>(value: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    let at = E::name_bytes(value)?;
    Ok(value.split_at(at.min(value.len())))
}

/// The entry of a name and a value of the tier.
fn decode<E: Entry>(name: &[u8], value: &[u8]) -> Result<E, StateError> {
    let damaged = || StateError::Damaged { part: "name of a cold entry", offset: 0, reason: "it is too short".into() };
    let mut rest = name.get(2..).ok_or_else(damaged)?;
    let key = split_framed(codec_of::<E::Key>(), &mut rest).ok_or_else(damaged)?;
    E::decode_cold(key, rest, value)
}
