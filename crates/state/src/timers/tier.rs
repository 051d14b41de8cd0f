//! Timers with a tier below them, where those of each key group lie in the order in which they fire.
//!
//! Of each group that has timers in the tier alone it is known where those begin: at its *head*. All timers of the group before
//! its head are in memory. Behind it a timer may be in memory, in the tier, or in both, and nobody looks: it is set, or deleted,
//! whatever the tier has. As time goes on, the timers at the first of all heads are brought into memory, some hundred together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use cutwater_core::{KeyGroup, KeyHash, Timestamp};

use super::{Timer, Timers, spread};
use crate::cold::{TIME_BYTES, append_name};
use crate::key_bytes::KeyBytes;
use crate::store::Place;
use crate::{ColdTier, Key, StateError, decode, encode, group_of_name, group_prefix};

/// A place in the order in which timers fire.
pub(super) type Turn = (i64, KeyBytes);

/// At most so many timers of a group are brought into memory together, and at least so many.
const PORTION: usize = 512;
const LEAST_PORTION: usize = 8;
/// Of the memory for timers, what has been brought there ahead of time takes one in so many parts; and so many are free once some were
/// put out. So those that are brought do not drive each other out.
const PARTS: u64 = 4;
/// So many timers stay in memory whatever the limit: those that fire next.
const LEAST_HELD: u64 = 4;
/// So many timers are looked at, in a call of [`Timers::relieve`], that have to stay since a cut waits to be applied.
const IN_VAIN: usize = 256;
/// So many are put out together.
const TOGETHER: usize = 1024;

/// What is known of the timers in the tier.
#[derive(Default)]
pub(super) struct Heads {
    /// The heads of the groups that have one.
    of_groups: BTreeMap<KeyGroup, Turn>,
    in_order: BTreeSet<(Turn, KeyGroup)>,
    /// Nothing is known yet of this group and those behind it: they may have timers in the tier, anywhere.
    unknown: Option<KeyGroup>,
}

impl Heads {
    /// Whether the tier may have a timer of the group that is not in memory.
    fn may_have(&self, group: KeyGroup, turn: &Turn) -> bool {
        self.unknown.is_some_and(|first| group >= first) || self.of_groups.get(&group).is_some_and(|head| head <= turn)
    }

    fn set(&mut self, group: KeyGroup, head: Option<Turn>) {
        let before = match head.clone() {
            Some(head) => self.of_groups.insert(group, head),
            None => self.of_groups.remove(&group),
        };
        if let Some(before) = before {
            self.in_order.remove(&(before, group));
        }
        self.in_order.extend(head.map(|head| (head, group)));
    }

    /// The tier alone has this timer from now on.
    fn lower(&mut self, group: KeyGroup, turn: Turn) {
        let lower = self.of_groups.get(&group).is_none_or(|head| turn < *head);
        if lower && self.unknown.is_none_or(|first| group < first) {
            self.set(group, Some(turn));
        }
    }

    pub(super) fn first(&self) -> Option<&(Turn, KeyGroup)> {
        self.in_order.first()
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.unknown.is_some()
    }

    fn is_empty(&self) -> bool {
        self.unknown.is_none() && self.in_order.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.in_order.len() * size_of::<(Turn, KeyGroup)>() * 3
    }
}

impl<K: Key> Timers<K> {
    /// From now on timers may lie in the `tier`: in memory stay those that fire next, with about `limit` bytes at the most. Call
    /// [`Self::relieve`] now and then. For cuts the same holds as for [`Table::attach`](crate::Table::attach).
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier refuses.
    ///
    /// # Panics
    ///
    /// If there was a timer already.
    pub fn attach(&mut self, tier: Arc<dyn ColdTier>, limit: u64) -> Result<(), StateError> {
        self.store.attach(tier, limit)?;
        self.heads = Some(Heads::default());
        Ok(())
    }

    /// Puts timers out of memory if it holds more than it may, those first that fire last: those that the tier does not have
    /// are written there, unless a cut waits to be applied. Without a tier it does nothing.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier can't be written. No timer is lost.
    pub fn relieve(&mut self) -> Result<(), StateError> {
        let beside = self.order_bytes();
        let Some(held) = self.store.held(beside)? else { return Ok(()) };
        if held.bytes <= held.limit {
            return Ok(());
        }
        if held.may_write {
            self.store.write_gone(held.limit / PARTS / 2)?;
        }
        let (all, each) = (self.store.in_memory(), self.each_bytes());
        let keep = ((held.limit - held.limit / PARTS) / each).max(LEAST_HELD);
        let mut too_many = usize::try_from(all.saturating_sub(keep)).unwrap_or(usize::MAX);
        let (mut in_vain, mut from) = (IN_VAIN, Bound::Unbounded);
        while too_many > 0 && in_vain > 0 {
            let (mut out, mut dirty) = (Vec::<(Turn, KeyHash, Place)>::new(), Vec::new());
            let mut last = None;
            for (turn, hash) in self.order.range((Bound::Unbounded, from)).rev() {
                if out.len() >= too_many.min(TOGETHER) || in_vain == 0 {
                    break;
                }
                last = Some(turn.clone());
                let (time, bytes) = turn;
                let found = self.store.find(*hash, spread(*hash, *time), |timer| timer.is(bytes, *time));
                let place = found.expect("every timer in order is in the store");
                match (self.store.is_dirty(place), held.may_write) {
                    (true, false) => {
                        in_vain -= 1;
                        continue;
                    }
                    (true, true) => dirty.push(place),
                    (false, _) => {}
                }
                out.push((turn.clone(), *hash, place));
            }
            let Some(last) = last else { break };
            from = Bound::Excluded(last);
            self.store.write_back(&dirty)?;
            too_many -= out.len();
            for (turn, hash, place) in out {
                self.store.put_out(place);
                self.order.remove(&turn);
                if let Some(heads) = &mut self.heads {
                    heads.lower(self.store.group_of(hash), turn);
                }
            }
        }
        Ok(())
    }

    /// About how many timers are in the tier and not in memory.
    #[must_use]
    pub fn cold_entries(&self) -> u64 {
        self.store.cold_entries()
    }

    /// The tier may have any timers.
    pub(super) fn forget_heads(&mut self) {
        if self.store.has_tier() {
            self.heads = Some(Heads { unknown: Some(self.store.key_groups().first), ..Heads::default() });
        }
    }

    /// Whether the tier may have this timer, which is not in memory.
    pub(super) fn may_be_below(&self, hash: KeyHash, turn: &Turn) -> bool {
        self.heads.as_ref().is_some_and(|heads| heads.may_have(self.store.group_of(hash), turn))
    }

    /// A timer that is not in memory is deleted; false if it was not set for sure.
    pub(super) fn delete_below(&mut self, hash: KeyHash, turn: &Turn) -> Result<bool, StateError> {
        if !self.may_be_below(hash, turn) {
            return Ok(false);
        }
        let name = self.name_of(self.store.group_of(hash), turn)?;
        if self.store.is_gone(&name) {
            return Ok(false);
        }
        self.store.gone_unseen(name);
        Ok(true)
    }

    /// Brings timers into memory until the first so many of those that are due are there, and all that fire before them.
    pub(super) fn bring(&mut self, now: Timestamp, count: usize) -> Result<(), StateError> {
        if self.heads.as_ref().is_none_or(Heads::is_empty) {
            return Ok(());
        }
        self.explore()?;
        while let Some((head, group)) = self.heads.as_ref().and_then(Heads::first) {
            let there = self.order.keys().nth(count.saturating_sub(1));
            if head.0 > now.0 || there.is_some_and(|last| last < head) {
                return Ok(());
            }
            let (head, group) = (head.clone(), *group);
            self.bring_portion(group, &head)?;
        }
        Ok(())
    }

    /// Finds the heads that are not known.
    fn explore(&mut self) -> Result<(), StateError> {
        let last = self.store.key_groups().last;
        while let Some(from) = self.heads.as_ref().and_then(|heads| heads.unknown) {
            let mut first = None;
            self.store.range(&group_prefix(from), last, |name| {
                first = Some(turn_of(name));
                ControlFlow::Break(())
            })?;
            let first = first.transpose()?;
            let Some(heads) = &mut self.heads else { break };
            // So groups without a timer there cost nothing.
            heads.unknown =
                first.as_ref().and_then(|(group, _)| group.0.checked_add(1)).map(KeyGroup).filter(|next| *next <= last);
            if let Some((group, head)) = first {
                heads.set(group, Some(head));
            }
            if heads.is_empty() {
                self.store.all_in_memory();
            }
        }
        Ok(())
    }

    /// Brings the timers of the group from its head on, and moves that behind them.
    fn bring_portion(&mut self, group: KeyGroup, head: &Turn) -> Result<(), StateError> {
        let portion = self.portion();
        let (mut names, mut next) = (Vec::new(), None);
        self.store.range(&self.name_of(group, head)?, group, |name| {
            if names.len() == portion {
                next = Some(turn_of(name));
                return ControlFlow::Break(());
            }
            names.push(name.to_vec());
            ControlFlow::Continue(())
        })?;
        let next = next.transpose()?.map(|(_, turn)| turn);
        for name in names {
            if self.store.is_gone(&name) {
                continue;
            }
            let (_, (time, bytes)) = turn_of(&name)?;
            let hash = KeyHash::of(bytes.as_slice());
            if self.store.find(hash, spread(hash, time), |timer| timer.is(&bytes, time)).is_some() {
                continue; // it was set behind the head
            }
            let timer = Timer { key: decode::<K>(bytes.as_slice())?, bytes: bytes.clone(), time };
            self.store.push_clean(hash, timer)?;
            self.order.insert((time, bytes), hash);
        }
        let Some(heads) = &mut self.heads else { return Ok(()) };
        heads.set(group, next);
        if heads.is_empty() {
            self.store.all_in_memory();
        }
        Ok(())
    }

    /// How many timers of a group come together: of all groups that have a head they fit a part of the memory.
    fn portion(&self) -> usize {
        let groups = self.heads.as_ref().map_or(1, |heads| heads.in_order.len().max(1));
        let room = usize::try_from(self.store.limit() / PARTS / self.each_bytes()).unwrap_or(usize::MAX);
        (room / groups).clamp(LEAST_PORTION, PORTION)
    }

    /// Bytes of a timer in memory, about.
    fn each_bytes(&self) -> u64 {
        self.store.each_bytes() + size_of::<(Turn, KeyHash)>() as u64 * 3 / 2
    }

    fn name_of(&self, group: KeyGroup, (time, bytes): &Turn) -> Result<Vec<u8>, StateError> {
        let mut encoded = Vec::with_capacity(TIME_BYTES);
        encode(time, &mut encoded)?;
        let mut name = Vec::with_capacity(2 + TIME_BYTES + bytes.as_slice().len());
        append_name(self.store.naming(), group, bytes.as_slice(), &encoded, &mut name)?;
        Ok(name)
    }
}

/// The group, time and key of a timer's name.
fn turn_of(name: &[u8]) -> Result<(KeyGroup, Turn), StateError> {
    let parts = group_of_name(name).zip(name.get(2..2 + TIME_BYTES)).zip(name.get(2 + TIME_BYTES..));
    let Some(((group, time), key)) = parts else {
        let reason = format!("it has {} bytes", name.len()).into();
        return Err(StateError::Damaged { part: "name of a timer", offset: 0, reason });
    };
    Ok((group, (decode(time)?, KeyBytes::from(key))))
}
