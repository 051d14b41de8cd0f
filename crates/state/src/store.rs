//! What tables and timers are made of: extendible hashing over the key groups of the subtask, with an O(1) cut.
//!
//! A directory over the top bits of the hash leads to small shards. A key group is a range of hashes, so the order of
//! the directory is the order of the key groups, and a sweep that follows it emits blocks in that order. A shard that is
//! full splits in two, so no pause grows with the state; few keys are one shard, which stays in the first cache.

mod bits;
mod changes;
mod cold;
mod pending;
mod restore;
mod shard;
mod sweep;

use std::collections::VecDeque;
use std::hint::black_box;

use cutwater_core::{KeyGroup, KeyHash};

use self::bits::Bits;
use self::cold::Cold;
pub(crate) use self::cold::Hand;
use self::pending::{Parts, Pending};
pub(crate) use self::shard::Entry;
use self::shard::{FULL_SLOTS, MAX_ENTRIES, Shard, has_expired};
use self::sweep::Sweep;
use crate::codec::split_framed;
use crate::{CodecId, Cut, StateError, StateHeader, StateKind, TableSpec, codec_of};

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
    /// Before an entry changes of a shard that was settled before this, there is something to do: `active`, or `u64::MAX` while
    /// each change is noted.
    watch: u64,
    /// What is being swept is what has changed since a cut; `None`: everything.
    since: Option<Since>,
    tracked: Option<Tracked>,
    /// What is below, if anything.
    cold: Option<Box<Cold>>,
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

/// What is known of changes in the whole store.
#[derive(Default)]
struct Tracked {
    /// What changed before this cut is forgotten.
    floor: u64,
    /// The periods before, each with the cut at its end.
    before: VecDeque<(u64, Extent)>,
    /// The present period.
    now: Extent,
    /// How many names of removed entries are kept at the most, all in all.
    names: u64,
}

/// How much changed in a period.
#[derive(Clone, Copy, Default)]
struct Extent {
    /// How many entries changed, as far as that was noted.
    changes: u64,
    /// So much has changed that the rest was not noted: every entry may have.
    whole: bool,
}

/// The base of a cut.
#[derive(Clone, Copy)]
struct Since {
    cut: u64,
    /// Every entry may have changed since then.
    whole: bool,
}

impl Tracked {
    /// What has changed since this cut.
    fn since(&self, cut: u64) -> Extent {
        let before = self.before.iter().filter(|(until, _)| *until > cut).map(|(_, extent)| extent);
        before.fold(self.now, |all, extent| Extent {
            changes: all.changes + extent.changes,
            whole: all.whole || extent.whole,
        })
    }
}

/// So many names of removed entries are kept however few entries there are. With more than this and more than one for each
/// two entries they are all forgotten: a snapshot of everything costs less by then.
const LEAST_NAMES: u64 = 1 << 16;

/// How the rest of a name is framed.
pub(crate) const NAME_REST: CodecId = CodecId::Bytes;

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
            watch: 0,
            since: None,
            tracked: None,
            cold: None,
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
        if self.shards[place.shard].settled < self.watch {
            self.before_change(hash, place)?;
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
        if self.tracked.is_some() {
            self.mark(Place { shard, entry }, true);
        }
        Ok(Place { shard, entry })
    }

    /// Takes an entry out. On an error it is still there.
    pub(crate) fn remove(&mut self, hash: KeyHash, place: Place) -> Result<E, StateError> {
        if self.shards[place.shard].settled < self.active {
            self.capture(hash, place)?;
        }
        if self.tracked.is_some() {
            self.mark_gone(hash, place)?;
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
        self.entries + self.cold_entries()
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

    /// From now on it is known what changes. What is there now is what there was at the last cut, or, before the first,
    /// at [`Cut::RESTORED`].
    pub(crate) fn track_changes(&mut self) {
        if self.tracked.is_none() {
            self.tracked = Some(Tracked { floor: self.cuts, ..Tracked::default() });
            self.set_active(self.active);
        }
    }

    /// How many entries at the most a cut made now would hold that is since `base`; `None` if that is not known.
    pub(crate) fn changed_since(&self, base: Cut) -> Option<u64> {
        let tracked = self.tracked.as_ref().filter(|tracked| base.0 >= tracked.floor && base.0 <= self.cuts)?;
        let since = tracked.since(base.0);
        Some(if since.whole { self.entries + tracked.names } else { since.changes })
    }

    /// No later cut will be since one before `base`. With a tier below, all are since what that has.
    pub(crate) fn forget(&mut self, base: Cut) {
        if self.cold.is_none() {
            self.forget_before(base);
        }
    }

    fn forget_before(&mut self, base: Cut) {
        if let Some(tracked) = &mut self.tracked {
            tracked.floor = tracked.floor.max(base.0.min(self.cuts));
            tracked.before.retain(|(until, _)| *until > tracked.floor);
        }
    }

    /// The entry is about to change, or has come.
    #[inline]
    fn mark(&mut self, place: Place, came: bool) {
        let Some(tracked) = &mut self.tracked else { return };
        // That an entry came is noted even so: its name need not be kept if it goes.
        if tracked.now.whole && !came {
            return;
        }
        let changes = self.shards[place.shard].changes.get_or_insert_default();
        let until = self.cuts + 1;
        let first = match came {
            true => changes.came(until, tracked.floor, place.entry),
            false => changes.mark(until, tracked.floor, place.entry),
        };
        if first {
            tracked.now.changes += 1;
            if !came && !tracked.now.whole && tracked.now.changes > self.entries / 2 && self.cold.is_none() {
                tracked.now.whole = true;
                self.set_active(self.active);
            }
        }
    }

    /// The entry is about to go.
    fn mark_gone(&mut self, hash: KeyHash, place: Place) -> Result<(), StateError> {
        if self.cold.is_some() {
            return self.cold_gone(hash, place);
        }
        let Some(tracked) = &mut self.tracked else { return Ok(()) };
        let shard = &mut self.shards[place.shard];
        self.scratch.clear();
        shard.get(place.entry).map_or(Ok(()), |entry| entry.encode_name(&mut self.scratch))?;
        let group = hash.group(self.spec.max_parallelism);
        let changes = shard.changes.get_or_insert_default();
        if changes.gone(self.cuts + 1, tracked.floor, place.entry, group, &self.scratch) {
            tracked.now.changes += 1;
            tracked.names += 1;
            if tracked.names > LEAST_NAMES && tracked.names > self.entries / 2 {
                self.forget_names();
            }
        }
        Ok(())
    }

    /// Forgets all changes if there really are too many names, some of which may have been forgotten one by one.
    #[cold]
    fn forget_names(&mut self) {
        let Some(tracked) = &mut self.tracked.as_mut().filter(|_| self.active == 0) else { return };
        let shards = self.shards.iter().filter_map(|shard| shard.changes.as_ref());
        tracked.names = shards.map(|changes| changes.names(tracked.floor)).sum();
        if tracked.names > LEAST_NAMES && tracked.names > self.entries / 2 {
            **tracked = Tracked { floor: self.cuts + 1, ..Tracked::default() };
            self.shards.iter_mut().for_each(|shard| shard.changes = None);
            self.set_active(self.active);
        }
    }

    /// Keeps and notes what is wanted of an entry that is about to change. Not inlined, for the sake of tables of which nothing
    /// is wanted most of the time.
    #[inline(never)]
    fn before_change(&mut self, hash: KeyHash, place: Place) -> Result<(), StateError> {
        if self.shards[place.shard].settled < self.active {
            self.capture(hash, place)?;
        }
        self.mark(place, false);
        Ok(())
    }

    /// Which cut is being swept, or 0 for none.
    fn set_active(&mut self, active: u64) {
        self.active = active;
        let each = self.tracked.as_ref().is_some_and(|tracked| !tracked.now.whole);
        self.watch = if each { u64::MAX } else { active };
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
        let (since, active, for_tier) = (self.since, self.active, self.many_cold());
        let shard = &mut self.shards[shard];
        let slots = shard.slots();
        let Shard { pending, changes, .. } = shard;
        pending.get_or_insert_with(|| match since {
            None => Box::new(Pending::all(slots)),
            Some(since) => {
                let (changed, removed) = changes.as_ref().map(|it| it.union(since.cut, active)).unwrap_or_default();
                let changed = if since.whole { Bits::all(slots) } else { changed };
                Box::new(Pending::changed(changed, removed, for_tier))
            }
        })
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
        let mut changes = whole.changes.take();
        for half in &mut halves {
            half.pending = pending.as_ref().map(|pending| Box::new(pending.half()));
            half.changes = changes.as_ref().map(|changes| Box::new(changes.emptied()));
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
            if let (Some(changes), Some(moved)) = (&changes, &mut half.changes) {
                changes.move_to(place, moved, to);
            }
        }
        if let Some(pending) = pending {
            self.split_pending(*pending, bit, &mut halves);
        }
        for (period, removed) in changes.iter_mut().flat_map(|changes| changes.take_removed()).enumerate() {
            let high = |hash| self.normalized(hash) & bit != 0;
            each_encoded::<E>(removed, NAME_REST, |group, hash, name| {
                let half =
                    halves[usize::from(high(hash))].changes.as_mut().expect("both halves have what the whole had");
                half.put_removed(period, group, name);
            });
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

    fn split_pending(&self, pending: Pending, bit: u64, halves: &mut [Shard<E>; 2]) {
        let (undo, removed) = pending.into_kept();
        let high = |hash| usize::from(self.normalized(hash) & bit != 0);
        let both = "both halves keep what the whole did";
        each_encoded::<E>(undo, codec_of::<E::Value>(), |group, hash, entry| {
            halves[high(hash)].pending.as_mut().expect(both).keep_encoded(group, entry);
        });
        each_encoded::<E>(removed, NAME_REST, |group, hash, name| {
            halves[high(hash)].pending.as_mut().expect(both).keep_name(group, name);
        });
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

/// Calls `each` with the group, the hash of the key and the bytes of each encoded entry, or name of one, whose second part has
/// this codec.
fn each_encoded<E: Entry>(parts: Parts, second: CodecId, mut each: impl FnMut(KeyGroup, KeyHash, &[u8])) {
    for (group, parts) in parts.into_groups() {
        for part in parts {
            let mut rest = part.bytes.as_slice();
            while !rest.is_empty() {
                let whole = rest;
                let key = split_framed(codec_of::<E::Key>(), &mut rest).expect("written by `encode`");
                split_framed(second, &mut rest).expect("written by `encode`");
                each(group, KeyHash::of(key), &whole[..whole.len() - rest.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
