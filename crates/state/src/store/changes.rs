use cutwater_core::KeyGroup;

use super::bits::Bits;
use super::pending::Parts;

/// Which entries of a shard have changed between which cuts, so that a snapshot can hold only what has changed since another.
#[derive(Default)]
pub(crate) struct Changes {
    /// Rising. The last one is that of the changes made now, once any was made.
    periods: Vec<Period>,
    /// Places of entries that came in the last period: if they go within it they leave nothing behind.
    fresh: Bits,
    /// Places of entries that were used since somebody last asked, where there is a tier below.
    used: Bits,
}

/// The changes from one cut, or an earlier one, to another.
#[derive(Default)]
struct Period {
    /// The cut at its end.
    until: u64,
    /// Entries that came or changed, at their places of now.
    changed: Bits,
    /// Names of entries that went.
    removed: Parts,
}

/// With more periods the oldest two become one: a snapshot since a cut between them then holds more than it must.
const PERIODS: usize = 6;

impl Changes {
    /// An entry changed before the cut `until`; true if it is the first time in this period.
    #[inline]
    pub(crate) fn mark(&mut self, until: u64, floor: u64, place: usize) -> bool {
        self.period(until, floor).changed.set(place)
    }

    /// An entry came before the cut `until`.
    pub(crate) fn came(&mut self, until: u64, floor: u64, place: usize) -> bool {
        let new = self.mark(until, floor, place);
        self.fresh.set(place);
        new
    }

    /// An entry goes: no place says anything about it any more. Its name is kept unless nobody but the present has seen it;
    /// true if it was.
    pub(crate) fn gone(&mut self, until: u64, floor: u64, place: usize, group: KeyGroup, name: &[u8]) -> bool {
        let fresh = self.fresh.has(place) && self.periods.last().is_some_and(|period| period.until == until);
        for period in &mut self.periods {
            period.changed.clear(place);
        }
        self.fresh.clear(place);
        if !fresh {
            self.period(until, floor).removed.push(group, name);
        }
        !fresh
    }

    /// As [`Self::gone`], but nobody's name is kept; true if nobody but the present has seen the entry.
    pub(crate) fn gone_unnamed(&mut self, until: u64, place: usize) -> bool {
        let fresh = self.fresh.has(place) && self.periods.last().is_some_and(|period| period.until == until);
        self.clean(place);
        fresh
    }

    /// Somebody else may have seen the entry before it came in the last period.
    pub(crate) fn seen(&mut self, place: usize) {
        self.fresh.clear(place);
    }

    /// The entry counts as not changed in any period.
    pub(crate) fn clean(&mut self, place: usize) {
        for period in &mut self.periods {
            period.changed.clear(place);
        }
        self.fresh.clear(place);
    }

    /// Whether the entry changed after the cut `since`.
    pub(crate) fn is_since(&self, since: u64, place: usize) -> bool {
        self.periods.iter().any(|period| period.until > since && period.changed.has(place))
    }

    /// The entry is used.
    pub(crate) fn used(&mut self, place: usize) {
        self.used.set(place);
    }

    /// Whether the entry was used since the last call.
    pub(crate) fn was_used(&mut self, place: usize) -> bool {
        let used = self.used.has(place);
        self.used.clear(place);
        used
    }

    #[inline]
    fn period(&mut self, until: u64, floor: u64) -> &mut Period {
        if self.periods.last().is_none_or(|last| last.until != until) {
            self.begin(until, floor);
        }
        self.periods.last_mut().expect("it was begun if there was none")
    }

    #[cold]
    fn begin(&mut self, until: u64, floor: u64) {
        self.periods.retain(|period| period.until > floor);
        if self.periods.len() >= PERIODS {
            let oldest = self.periods.remove(0);
            let next = &mut self.periods[0];
            next.changed.add(&oldest.changed);
            next.removed.append(&oldest.removed);
        }
        self.fresh = Bits::default();
        self.periods.push(Period { until, ..Period::default() });
    }

    /// Whether anything changed after the cut `since` and before the cut `until`.
    pub(crate) fn any(&self, since: u64, until: u64) -> bool {
        let mut between = self.between(since, until);
        between.any(|period| !period.removed.is_empty() || period.changed.next(0).is_some())
    }

    /// The places of what changed, and the names of what went, after the cut `since` and before the cut `until`. A name may be
    /// that of an entry that has come back.
    pub(crate) fn union(&self, since: u64, until: u64) -> (Bits, Parts) {
        let (mut changed, mut removed) = (Bits::default(), Parts::default());
        for period in self.between(since, until) {
            changed.add(&period.changed);
            removed.append(&period.removed);
        }
        (changed, removed)
    }

    fn between(&self, since: u64, until: u64) -> impl Iterator<Item = &Period> {
        self.periods.iter().filter(move |period| period.until > since && period.until <= until)
    }

    /// The same periods without any change, for entries that move.
    pub(crate) fn emptied(&self) -> Self {
        let periods = self.periods.iter().map(|period| Period { until: period.until, ..Period::default() });
        Self { periods: periods.collect(), fresh: Bits::default(), used: Bits::default() }
    }

    /// What is said of the entry at `from` holds for the one at `to` of the other, which has the same periods.
    pub(crate) fn move_to(&self, from: usize, other: &mut Self, to: usize) {
        for (period, moved) in self.periods.iter().zip(&mut other.periods) {
            if period.changed.has(from) {
                moved.changed.set(to);
            }
        }
        if self.fresh.has(from) {
            other.fresh.set(to);
        }
        if self.used.has(from) {
            other.used.set(to);
        }
    }

    /// How many names of removed entries there are, without those that are forgotten.
    pub(crate) fn names(&self, floor: u64) -> u64 {
        let known = self.periods.iter().filter(|period| period.until > floor);
        known.map(|period| period.removed.entries()).sum()
    }

    /// Takes out the names of removed entries, period by period.
    pub(crate) fn take_removed(&mut self) -> Vec<Parts> {
        self.periods.iter_mut().map(|period| std::mem::take(&mut period.removed)).collect()
    }

    /// Puts all names back into the period of this number.
    pub(crate) fn set_removed(&mut self, period: usize, removed: Parts) {
        self.periods[period].removed = removed;
    }

    /// Puts a name back into the period of this number.
    pub(crate) fn put_removed(&mut self, period: usize, group: KeyGroup, name: &[u8]) {
        self.periods[period].removed.push(group, name);
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let bytes = |period: &Period| period.changed.memory_bytes() + period.removed.memory_bytes();
        (self.periods.iter().map(bytes).sum::<usize>() + self.fresh.memory_bytes() + self.used.memory_bytes()) as u64
    }
}
