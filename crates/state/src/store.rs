//! What tables and timers are made of: extendible hashing over the key groups of the subtask, with an O(1) cut.
//!
//! A directory over the top bits of the hash leads to small shards. A key group is a range of hashes, so the order of
//! the directory is the order of the key groups, and a sweep that follows it emits blocks in that order. A shard that is
//! full splits in two, so no pause grows with the state; few keys are one shard, which stays in the first cache.

mod pending;
mod restore;
mod shard;
mod sweep;

use std::hint::black_box;

use cutwater_core::{KeyGroup, KeyHash};

use self::pending::Pending;
pub(crate) use self::shard::Entry;
use self::shard::{FULL_SLOTS, MAX_ENTRIES, Shard, has_expired};
use self::sweep::Sweep;
use crate::codec::split_framed;
use crate::{StateError, StateHeader, StateKind, TableSpec, codec_of};

/// The directory has at most `2^24` places: 64 MiB of them serve 6e10 entries.
const MAX_DEPTH: u32 = 24;
/// While there are fewer entries for each place of the directory, a full shard grows instead of splitting: its entries
/// share their hashes, so that splitting would only double the directory again and again.
const LEAST_ENTRIES_A_PLACE: u64 = 256;

pub(crate) struct Store<E: Entry> {
    spec: TableSpec,
    kind: StateKind,
    /// The smallest hash of the key groups, and how many bits the others above it leave free. Normalized hashes,
    /// `(hash - base) << free`, fill 64 bits, so that a small range of groups needs no larger directory.
    base: u64,
    free: u32,
    /// The directory has `2^depth` places, at least 2: a shift by 64 bits does not exist.
    depth: u32,
    directory: Vec<u32>,
    shards: Vec<Shard<E>>,
    /// How many bits of the normalized hash each shard stands for.
    depths: Vec<u32>,
    entries: u64,
    /// How many cuts there have been.
    cuts: u64,
    /// The cut that is being swept, or 0. A shard settled before it has something to do.
    active: u64,
    sweep: Sweep,
    undo_bytes: u64,
    /// Entries last written at or before it are not put into snapshots.
    horizon: i64,
    /// Where [`Self::next_expired`] goes on: a normalized hash, and a place in the shard there.
    visited: (u64, usize),
    /// Whether shards were made beforehand, to get all their slots at their first entry.
    reserved: bool,
    scratch: Vec<u8>,
}

/// Where an entry is. Good until the next change of the store.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    shard: usize,
    entry: usize,
}

impl<E: Entry> Store<E> {
    pub(crate) fn new(spec: TableSpec, kind: StateKind) -> Self {
        let base = spec.key_groups.first.first_hash(spec.max_parallelism).0;
        let last = match spec.key_groups.last.0.checked_add(1) {
            Some(next) if u32::from(next) < spec.max_parallelism.count() => {
                KeyGroup(next).first_hash(spec.max_parallelism).0 - 1
            }
            _ => u64::MAX,
        };
        Self {
            spec,
            kind,
            base,
            free: last.saturating_sub(base).leading_zeros().min(63),
            depth: 1,
            directory: vec![0; 2],
            shards: vec![Shard::small(0)],
            depths: vec![0],
            entries: 0,
            cuts: 0,
            active: 0,
            sweep: Sweep::default(),
            undo_bytes: 0,
            horizon: i64::MIN,
            visited: (0, 0),
            reserved: false,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn header(&self) -> StateHeader {
        StateHeader {
            operator: self.spec.operator.clone(),
            name: self.spec.name.clone(),
            kind: self.kind,
            key_codec: codec_of::<E::Key>(),
            key_schema: crate::Schema::of::<E::Key>(),
            value_codec: codec_of::<E::Value>(),
            value_schema: crate::Schema::of::<E::Value>(),
            max_parallelism: self.spec.max_parallelism,
        }
    }

    #[inline]
    fn normalized(&self, hash: KeyHash) -> u64 {
        hash.0.wrapping_sub(self.base) << self.free
    }

    #[inline]
    fn shard_of(&self, hash: KeyHash) -> usize {
        self.directory[(self.normalized(hash) >> (64 - self.depth)) as usize] as usize
    }

    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, spread: u64, matches: impl Fn(&E) -> bool) -> Option<Place> {
        let shard = self.shard_of(hash);
        let entry = self.shards[shard].find(spread, matches)?;
        Some(Place { shard, entry })
    }

    #[inline]
    pub(crate) fn at(&self, place: Place) -> &E {
        self.shards[place.shard].get(place.entry).expect("the place of an entry")
    }

    /// The entry, to be changed: what it was at the running cut is kept first.
    #[inline]
    pub(crate) fn at_mut(&mut self, hash: KeyHash, place: Place) -> Result<&mut E, StateError> {
        if self.shards[place.shard].settled < self.active {
            self.capture(hash, place)?;
        }
        Ok(self.shards[place.shard].get_mut(place.entry).expect("the place of an entry"))
    }

    /// Adds an entry that is not there.
    pub(crate) fn push(&mut self, hash: KeyHash, spread: u64, entry: E) -> Result<Place, StateError> {
        debug_assert!(self.spec.key_groups.contains(hash.group(self.spec.max_parallelism)), "{hash:?} is not ours");
        let mut shard = self.shard_of(hash);
        if self.shards[shard].is_tight() {
            self.make_room(hash)?;
            shard = self.shard_of(hash);
        }
        if self.shards[shard].settled < self.active {
            self.pending(shard); // so that the running snapshot leaves the new entry out
        }
        let entry = self.shards[shard].push(spread, entry);
        self.entries += 1;
        Ok(Place { shard, entry })
    }

    /// Takes an entry out. On an error it is still there.
    pub(crate) fn remove(&mut self, hash: KeyHash, place: Place) -> Result<E, StateError> {
        if self.shards[place.shard].settled < self.active {
            self.capture(hash, place)?;
        }
        self.entries -= 1;
        Ok(self.shards[place.shard].remove(place.entry).expect("the place of an entry"))
    }

    /// Loads what lookups of these hashes will need, all at once, so that they do not wait for memory one by one.
    pub(crate) fn prefetch(&self, hashes: impl IntoIterator<Item = KeyHash>, spread: impl Fn(KeyHash) -> u64) {
        let mut loaded = 0;
        for hash in hashes {
            loaded ^= self.shards[self.shard_of(hash)].touch(spread(hash));
        }
        black_box(loaded);
    }

    /// Whether the table is too large for [`Self::prefetch`] to be a waste: what is in the second cache anyway need not
    /// be fetched twice.
    pub(crate) fn outgrew_cache(&self) -> bool {
        self.entries * (size_of::<E>() as u64 + 8) > 1 << 20
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    pub(crate) fn undo_bytes(&self) -> u64 {
        self.undo_bytes
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let shards: u64 = self.shards.iter().map(Shard::memory_bytes).sum();
        (self.directory.capacity() * 4 + self.depths.capacity() * 4) as u64 + shards
    }

    /// The next cut leaves out what was last written at or before `horizon`; [`i64::MIN`]: it leaves out nothing.
    pub(crate) fn set_horizon(&mut self, horizon: i64) {
        debug_assert!(!self.sweeping(), "the horizon of a running cut stays");
        self.horizon = horizon;
    }

    /// Goes on looking for an entry that was last written at or before `horizon`, or never was, in at most `slots` slots
    /// in turn; takes off `slots` how many it has visited. `None` once they are used up.
    pub(crate) fn next_expired(&mut self, horizon: i64, slots: &mut usize) -> Option<Place> {
        while *slots > 0 {
            let (cursor, from) = self.visited;
            let shard = self.directory[(cursor >> (64 - self.depth)) as usize] as usize;
            let end = self.shards[shard].slots();
            let found = (from..end).take(*slots).find(|&place| {
                let entry = self.shards[shard].get(place);
                entry.is_some_and(|entry| has_expired(entry, horizon) || entry.written().is_none())
            });
            if let Some(entry) = found {
                *slots -= entry + 1 - from;
                self.visited.1 = entry + 1;
                return Some(Place { shard, entry });
            }
            let visited = end.saturating_sub(from).min(*slots);
            *slots -= visited.max(1);
            self.visited.1 = from + visited;
            if self.visited.1 >= end {
                let width = 1_u64.checked_shl(64 - self.depths[shard]).unwrap_or(0);
                // The shard may have split since, so that the cursor is not where one begins.
                let first = if width == 0 { 0 } else { cursor & !(width - 1) };
                self.visited = (first.wrapping_add(width), 0);
            }
        }
        None
    }

    /// Keeps the entry as it was at the running cut, unless that was done or it came later.
    #[cold]
    #[inline(never)]
    fn capture(&mut self, hash: KeyHash, place: Place) -> Result<(), StateError> {
        let group = hash.group(self.spec.max_parallelism);
        self.pending(place.shard);
        self.undo_bytes += self.shards[place.shard].keep(place.entry, group, self.horizon)? as u64;
        Ok(())
    }

    /// What the shard keeps for the running cut; at the first call after the cut that is all its entries.
    fn pending(&mut self, shard: usize) -> &mut Pending {
        let shard = &mut self.shards[shard];
        let slots = shard.slots();
        shard.pending.get_or_insert_with(|| Box::new(Pending::all(slots)))
    }

    /// Makes room for an entry in the shard of this hash.
    #[cold]
    fn make_room(&mut self, hash: KeyHash) -> Result<(), StateError> {
        let mut shard = self.shard_of(hash);
        // Removed entries alone do not make a shard full.
        while self.shards[shard].is_tight() {
            let full = self.shards[shard].slots() >= FULL_SLOTS && self.shards[shard].len() * 2 > FULL_SLOTS;
            if !(full && self.split(hash)) {
                if self.shards[shard].len() >= MAX_ENTRIES {
                    return Err(self.crowded());
                }
                self.unpin(shard);
                self.shards[shard].rebuild();
            }
            shard = self.shard_of(hash);
        }
        Ok(())
    }

    /// Places of the shard are about to change: a sweep within it makes a new plan. What it has emitted is frozen no
    /// more, so that it goes on where it was.
    fn unpin(&mut self, shard: usize) {
        if let Some(pending) = &mut self.shards[shard].pending
            && std::mem::take(&mut pending.pinned)
        {
            self.sweep.forget_plan();
        }
    }

    /// Splits the shard of this hash in two by the next bit; false if that can't help.
    #[cold]
    fn split(&mut self, hash: KeyHash) -> bool {
        let old = self.shard_of(hash);
        let depth = self.depths[old];
        if depth == self.depth && !self.double_directory() {
            return false;
        }
        let bit = 1_u64 << (63 - depth);
        self.unpin(old);
        let mut whole = std::mem::replace(&mut self.shards[old], Shard::small(0));
        let pending = whole.pending.take();
        let mut halves = [(); 2].map(|()| Shard::large(whole.settled));
        if pending.is_some() {
            for half in &mut halves {
                half.pending = Some(Box::new(Pending::none()));
            }
        }
        for (place, entry) in whole.into_entries() {
            let hash = entry.hash(&mut self.scratch);
            let half = &mut halves[usize::from(self.normalized(hash) & bit != 0)];
            if half.is_tight() {
                half.rebuild();
            }
            let to = half.push(entry.spread(hash), entry);
            if let (Some(from), Some(pending)) = (&pending, &mut half.pending)
                && from.is_frozen(place)
            {
                pending.freeze(to);
            }
        }
        if let Some(pending) = pending {
            self.split_undo(*pending, bit, &mut halves);
        }
        let new = u32::try_from(self.shards.len()).expect("no more shards than places in the directory");
        let [low, high] = halves;
        self.shards[old] = low;
        self.shards.push(high);
        self.depths[old] = depth + 1;
        self.depths.push(depth + 1);
        // The places of the shard are a run; the second half of it is the new shard's.
        let places = 1_usize << (self.depth - depth);
        let first = (self.normalized(hash) >> (64 - self.depth)) as usize & !(places - 1);
        self.directory[first + places / 2..first + places].fill(new);
        true
    }

    fn split_undo(&self, pending: Pending, bit: u64, halves: &mut [Shard<E>; 2]) {
        for (group, parts) in pending.into_undo() {
            for part in parts {
                let mut rest = part.bytes.as_slice();
                while !rest.is_empty() {
                    let whole = rest;
                    let key = split_framed(codec_of::<E::Key>(), &mut rest).expect("written by `keep`");
                    split_framed(codec_of::<E::Value>(), &mut rest).expect("written by `keep`");
                    let high = self.normalized(KeyHash::of(key)) & bit != 0;
                    let half = halves[usize::from(high)].pending.as_mut().expect("both halves keep what the whole did");
                    half.keep_encoded(group, &whole[..whole.len() - rest.len()]);
                }
            }
        }
    }

    fn double_directory(&mut self) -> bool {
        if self.depth >= MAX_DEPTH || self.directory.len() as u64 * LEAST_ENTRIES_A_PLACE > self.entries {
            return false;
        }
        self.depth += 1;
        self.directory = self.directory.iter().flat_map(|&shard| [shard, shard]).collect();
        true
    }

    #[cold]
    fn crowded(&self) -> StateError {
        StateError::Crowded {
            operator: self.spec.operator.as_str().into(),
            state: self.spec.name.as_str().into(),
            entries: MAX_ENTRIES as u64,
        }
    }
}

#[cfg(test)]
mod tests;
