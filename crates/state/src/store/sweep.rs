use cutwater_core::{KeyGroup, KeyHash};

use super::pending::Pending;
use super::shard::{Entry, Shard, has_expired};
use super::{Since, Store};
use crate::block::{BLOCK_BYTES, BlockBuilder};
use crate::{Block, BlockKind, Cut, StateError, SweepProgress};

/// How far the sweep of the running cut has come.
#[derive(Default)]
pub(crate) struct Sweep {
    /// The smallest normalized hash of the shard to sweep next, or to go on with; `None` if all are swept. It stays
    /// right when the directory grows.
    cursor: Option<u64>,
    plan: Option<Plan>,
    block: BlockBuilder,
    /// Names of entries that were removed.
    pub(super) removed: BlockBuilder,
}

impl Sweep {
    pub(super) fn forget_plan(&mut self) {
        self.plan = None;
    }

    fn bytes(&self) -> usize {
        self.block.bytes() + self.removed.bytes()
    }
}

/// How to go through one shard, group by group. While there is a plan the shard is pinned.
struct Plan {
    /// Frozen entries with their groups, in the order of the groups; `None` if all are of the group `current`.
    order: Option<Vec<(KeyGroup, u32)>>,
    /// How far it was followed: an index into `order`, or a place.
    at: usize,
    current: KeyGroup,
    /// Entries written at or before it are left out.
    horizon: i64,
}

impl<E: Entry> Store<E> {
    pub(crate) fn cut_since(&mut self, base: Option<Cut>) -> Cut {
        assert!(!self.sweeping(), "a cut before the sweep of the last one has ended or been aborted");
        let base = self.cold_base().or(base);
        let changed = base.map(|base| self.changed_since(base).expect("a cut since one of which nothing is known"));
        let whole = |cut| self.tracked.as_ref().is_some_and(|tracked| tracked.since(cut).whole);
        self.since = base.map(|base| Since { cut: base.0, whole: whole(base.0) });
        self.cuts += 1;
        if let Some(tracked) = &mut self.tracked {
            tracked.before.push_back((self.cuts, std::mem::take(&mut tracked.now)));
        }
        self.set_active(self.cuts);
        self.sweep.cursor = Some(0);
        // The encoding of an entry is about as large as the entry, with some for what it owns.
        let each = size_of::<E>() as u64 + 64;
        let kind = match base {
            Some(_) if self.many_cold() => BlockKind::ForTier,
            Some(_) => BlockKind::Changed,
            None => BlockKind::All,
        };
        self.sweep.block.begin(kind, changed.unwrap_or(self.entries).saturating_mul(each));
        self.sweep.removed.begin(BlockKind::Removed, 0);
        Cut(self.cuts)
    }

    pub(crate) fn sweeping(&self) -> bool {
        self.active != 0
    }

    pub(crate) fn abort(&mut self) {
        self.set_active(0);
        self.since = None;
        self.sweep = Sweep::default();
        self.undo_bytes = 0;
        for shard in &mut self.shards {
            shard.pending = None;
        }
    }

    pub(crate) fn sweep(&mut self, budget: usize, out: &mut dyn FnMut(Block)) -> Result<SweepProgress, StateError> {
        if !self.sweeping() {
            return Ok(SweepProgress::Done);
        }
        let mut left = budget.max(1);
        loop {
            let before = self.sweep.bytes();
            let room = BLOCK_BYTES.saturating_sub(self.sweep.removed.bytes());
            let all = self.emit_gone(self.sweep.removed.bytes() + room.min(left));
            left = left.saturating_sub(self.sweep.bytes() - before);
            // Before what has changed, so that what was removed and came back is there in the end.
            if (all && self.cold.is_some() || self.sweep.removed.bytes() >= BLOCK_BYTES)
                && let Some(block) = self.sweep.removed.take()
            {
                out(block);
            }
            if all {
                break;
            }
            if left == 0 {
                return Ok(SweepProgress::More);
            }
        }
        while let Some(cursor) = self.sweep.cursor {
            if left == 0 {
                return Ok(SweepProgress::More);
            }
            let before = self.sweep.bytes();
            let room = BLOCK_BYTES.saturating_sub(self.sweep.block.bytes());
            let done = self.sweep_shard(cursor, before + room.min(left))?;
            left = left.saturating_sub(self.sweep.bytes().saturating_sub(before));
            for block in [&mut self.sweep.removed, &mut self.sweep.block] {
                if block.bytes() >= BLOCK_BYTES
                    && let Some(block) = block.take()
                {
                    out(block);
                }
            }
            if done {
                self.settle(cursor);
            }
        }
        for block in [&mut self.sweep.removed, &mut self.sweep.block] {
            if let Some(block) = block.take() {
                out(block);
            }
        }
        self.set_active(0);
        self.since = None;
        Ok(SweepProgress::Done)
    }

    /// The shard at the cursor is swept: the next one.
    fn settle(&mut self, cursor: u64) {
        let shard = self.shard_at(cursor);
        self.shards[shard].pending = None;
        self.shards[shard].settled = self.active;
        self.sweep.plan = None;
        let width = 1_u64.checked_shl(64 - self.depths[shard]);
        self.sweep.cursor = width.and_then(|width| cursor.checked_add(width));
    }

    fn shard_at(&self, normalized: u64) -> usize {
        self.directory[(normalized >> (64 - self.depth)) as usize] as usize
    }

    /// Emits from the shard at the cursor until the block has `stop` bytes; true if the shard is done.
    fn sweep_shard(&mut self, cursor: u64, stop: usize) -> Result<bool, StateError> {
        let shard = self.shard_at(cursor);
        let mut plan = match self.sweep.plan.take() {
            Some(plan) => plan,
            None if self.has_nothing(shard) => return Ok(true),
            None => self.make_plan(cursor),
        };
        let done = self.follow(&mut plan, shard, stop);
        self.sweep.plan = Some(plan);
        done
    }

    /// Whether the running snapshot has nothing of the shard.
    fn has_nothing(&self, shard: usize) -> bool {
        let shard = &self.shards[shard];
        let changes = |since: Since| shard.changes.as_ref().is_some_and(|it| it.any(since.cut, self.active));
        let anything = match self.since {
            None => shard.len() > 0,
            Some(since) => since.whole && shard.len() > 0 || changes(since),
        };
        shard.pending.is_none() && !anything
    }

    fn make_plan(&mut self, cursor: u64) -> Plan {
        let shard = self.shard_at(cursor);
        self.pending(shard).pinned = true;
        let (max, horizon) = (self.spec.max_parallelism, self.horizon);
        let group = |normalized: u64| KeyHash(self.base.saturating_add(normalized >> self.free)).group(max);
        let end = cursor | 1_u64.checked_shl(64 - self.depths[shard]).map_or(u64::MAX, |width| width - 1);
        let current = group(cursor);
        if current == group(end) {
            return Plan { order: None, at: 0, current, horizon };
        }
        let last = group(end);
        let Self { shards, scratch, .. } = self;
        let shard = &shards[shard];
        let mut places = Vec::with_capacity(shard.len());
        if let Some(pending) = &shard.pending {
            let (mut place, mut found) = (0, [0; 64]);
            while let Some(first) = pending.next_frozen(place) {
                let count = shard.gather(first, pending.frozen_from(first), &mut found);
                for &place in &found[..count] {
                    if let Some(entry) = shard.get(place) {
                        places.push((entry.hash(scratch).group(max), place as u32));
                    }
                }
                place = first + 64 - first % 64;
            }
        }
        Plan { order: Some(by_group(places, current, last)), at: 0, current, horizon }
    }

    fn follow(&mut self, plan: &mut Plan, shard: usize, stop: usize) -> Result<bool, StateError> {
        let shard = &mut self.shards[shard];
        // Out of the shard for a while, so that both can be borrowed.
        let mut kept = shard.pending.take();
        let pending = kept.as_mut().expect("made with the plan");
        let Sweep { block, removed, .. } = &mut self.sweep;
        let done = Self::emit(plan, shard, pending, block, removed, &mut self.undo_bytes, stop);
        shard.pending = kept;
        done
    }

    fn emit(
        plan: &mut Plan,
        shard: &Shard<E>,
        pending: &mut Pending,
        block: &mut BlockBuilder,
        removed: &mut BlockBuilder,
        undo_bytes: &mut u64,
        stop: usize,
    ) -> Result<bool, StateError> {
        loop {
            // Frozen entries of the current group first, since a change of one adds to what is kept of the group.
            if !Self::emit_frozen(plan, shard, pending, block, stop.saturating_sub(removed.bytes()))? {
                return Ok(false);
            }
            while let Some(names) = pending.take_removed(plan.current) {
                removed.open(plan.current);
                removed.payload().extend_from_slice(&names.bytes);
                removed.added(names.entries);
                if block.bytes() + removed.bytes() >= stop {
                    return Ok(false);
                }
            }
            while let Some(undo) = pending.take_undo(plan.current) {
                block.open(plan.current);
                block.payload().extend_from_slice(&undo.bytes);
                block.added(undo.entries);
                *undo_bytes = undo_bytes.saturating_sub(undo.bytes.len() as u64);
                if block.bytes() + removed.bytes() >= stop {
                    return Ok(false);
                }
            }
            let next = plan.order.as_ref().and_then(|order| order.get(plan.at)).map(|&(group, _)| group);
            match [next, pending.first_kept()].into_iter().flatten().min() {
                Some(group) => plan.current = group,
                None => return Ok(true),
            }
        }
    }

    /// Emits the frozen entries of the current group; false if the block has `stop` bytes before all are.
    fn emit_frozen(
        plan: &mut Plan,
        shard: &Shard<E>,
        pending: &mut Pending,
        block: &mut BlockBuilder,
        stop: usize,
    ) -> Result<bool, StateError> {
        if plan.order.is_none() {
            let mut found = [0; 64];
            while let Some(first) = pending.next_frozen(plan.at) {
                let count = shard.gather(first, pending.frozen_from(first), &mut found);
                for &place in &found[..count] {
                    plan.at = place + 1;
                    if !Self::emit_entry(plan, shard, place, pending, block, stop)? {
                        return Ok(false);
                    }
                }
                plan.at = first + 64 - first % 64;
            }
            return Ok(true);
        }
        let next = |plan: &Plan| plan.order.as_ref().and_then(|order| order.get(plan.at).copied());
        while let Some((_, place)) = next(plan).filter(|&(group, _)| group == plan.current) {
            plan.at += 1;
            // It may have thawed since the order was made.
            let place = place as usize;
            if pending.is_frozen(place) && !Self::emit_entry(plan, shard, place, pending, block, stop)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Emits a frozen entry and thaws it; false if the block then has `stop` bytes.
    #[inline]
    fn emit_entry(
        plan: &Plan,
        shard: &Shard<E>,
        place: usize,
        pending: &mut Pending,
        block: &mut BlockBuilder,
        stop: usize,
    ) -> Result<bool, StateError> {
        if let Some(entry) = shard.get(place) {
            if has_expired(entry, plan.horizon) {
                pending.leave_out(plan.current, entry)?;
            } else {
                block.open(plan.current);
                pending.encode(entry, block.payload())?;
                block.added(1);
            }
            pending.thaw(place);
        }
        Ok(block.bytes() < stop)
    }
}

/// Orders rising places by their groups, which are between these two.
fn by_group(mut places: Vec<(KeyGroup, u32)>, first: KeyGroup, last: KeyGroup) -> Vec<(KeyGroup, u32)> {
    let groups = usize::from(last.0.saturating_sub(first.0)) + 1;
    if groups > places.len() {
        places.sort_unstable();
        return places;
    }
    let of = |group: KeyGroup| usize::from(group.0.saturating_sub(first.0)).min(groups - 1);
    let mut next = vec![0; groups];
    for &(group, _) in &places {
        next[of(group)] += 1;
    }
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    let mut ordered = places.clone();
    for place in places {
        let next = &mut next[of(place.0)];
        ordered[*next] = place;
        *next += 1;
    }
    ordered
}
