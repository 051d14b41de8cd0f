use std::any::Any;
use std::sync::Arc;

use cutwater_core::{KeyGroupRange, KeyHash, MaxParallelism, OperatorUid, Timestamp};
use cutwater_state::{AttachedTier, Data, Key, ListTable, MapTable, Snapshotable, StateError, TableSpec, Timers};

use super::{OWN, States, StatesError};
use crate::ttl::{Life, Now, Ttl};

/// Slots visited with each batch to find what has expired.
const CLEAN_SLOTS: usize = 256;

/// A table with what the chain does to each of them, whatever its types.
pub(crate) trait Kept<K: Key>: Snapshotable {
    /// What is not in memory may be in the tier from now on.
    fn attach(&mut self, tier: &AttachedTier) -> Result<(), StateError>;
    fn fetch(&mut self, keys: &mut dyn Iterator<Item = (KeyHash, &K)>) -> Result<usize, StateError>;
    fn relieve(&mut self) -> Result<(), StateError>;
    fn any(&mut self) -> &mut dyn Any;
    fn set_horizon(&mut self, horizon: i64);
    fn clean(&mut self, horizon: i64, now: i64, slots: usize) -> Result<u64, StateError>;
}

impl<K: Key, U: Key, V: Data> Kept<K> for MapTable<K, U, V> {
    fn attach(&mut self, tier: &AttachedTier) -> Result<(), StateError> {
        self.attach(Arc::clone(&tier.tier), tier.overlay_bytes)
    }

    fn fetch(&mut self, keys: &mut dyn Iterator<Item = (KeyHash, &K)>) -> Result<usize, StateError> {
        self.fetch(keys)
    }

    fn relieve(&mut self) -> Result<(), StateError> {
        self.relieve()
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }

    fn set_horizon(&mut self, horizon: i64) {
        self.set_horizon(horizon);
    }

    fn clean(&mut self, horizon: i64, now: i64, slots: usize) -> Result<u64, StateError> {
        self.clean(horizon, now, slots)
    }
}

impl<K: Key, T: Data> Kept<K> for ListTable<K, T> {
    fn attach(&mut self, tier: &AttachedTier) -> Result<(), StateError> {
        self.attach(Arc::clone(&tier.tier), tier.overlay_bytes)
    }

    fn fetch(&mut self, keys: &mut dyn Iterator<Item = (KeyHash, &K)>) -> Result<usize, StateError> {
        self.fetch(keys)
    }

    fn relieve(&mut self) -> Result<(), StateError> {
        self.relieve()
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }

    fn set_horizon(&mut self, horizon: i64) {
        self.set_horizon(horizon);
    }

    fn clean(&mut self, horizon: i64, now: i64, slots: usize) -> Result<u64, StateError> {
        self.clean(horizon, now, slots)
    }
}

pub(super) struct Slot<K: Key> {
    pub(super) name: String,
    /// For messages.
    pub(super) what: String,
    pub(super) table: Box<dyn Kept<K>>,
    pub(super) ttl: Option<Ttl>,
    /// Whether there is a tier below.
    pub(super) tiered: bool,
    /// How a reducing or aggregating state takes a record.
    pub(super) function: Box<dyn Any + Send>,
}

/// What a keyed operator has beside its own value and its event-time timers.
pub(crate) struct Named<K: Key> {
    pub(super) operator: OperatorUid,
    max_parallelism: MaxParallelism,
    key_groups: KeyGroupRange,
    pub(super) slots: Vec<Slot<K>>,
    pub(crate) processing: Timers<K>,
    /// The wall clock of the quantum.
    pub(crate) wall: Timestamp,
    /// The watermark, or the time of the timer that fires.
    pub(crate) event: Timestamp,
}

impl<K: Key> Named<K> {
    pub(crate) fn new(operator: OperatorUid, max_parallelism: MaxParallelism, key_groups: KeyGroupRange) -> Self {
        let spec =
            TableSpec { operator: operator.clone(), name: "processing-timers".to_owned(), max_parallelism, key_groups };
        Self {
            operator,
            max_parallelism,
            key_groups,
            slots: Vec::new(),
            processing: Timers::processing(spec),
            wall: Timestamp::MIN,
            event: Timestamp::MIN,
        }
    }

    /// While the stream is written.
    pub(crate) fn draft(operator: OperatorUid) -> Self {
        let max_parallelism = MaxParallelism::default();
        Self::new(operator, max_parallelism, max_parallelism.all())
    }

    pub(crate) fn spec(&self, name: &str) -> TableSpec {
        TableSpec {
            operator: self.operator.clone(),
            name: name.to_owned(),
            max_parallelism: self.max_parallelism,
            key_groups: self.key_groups,
        }
    }

    pub(crate) fn states(&mut self) -> States<'_, K> {
        States { named: self, ttl: None }
    }

    /// What has this name already.
    pub(crate) fn taken(&self, name: &str) -> Option<String> {
        let own = OWN.iter().find(|(own, _)| *own == name).map(|(_, what)| (*what).to_owned());
        own.or_else(|| self.slots.iter().find(|slot| slot.name == name).map(|slot| slot.what.clone()))
    }

    /// All of them, in an order that never changes.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut dyn Snapshotable> {
        let Self { processing, slots, .. } = self;
        let slots = slots.iter_mut().map(|slot| &mut *slot.table as &mut dyn Snapshotable);
        std::iter::once(processing as &mut dyn Snapshotable).chain(slots)
    }

    /// What can lie in the tier may from now on.
    pub(crate) fn attach(&mut self, tier: &AttachedTier) -> Result<(), StateError> {
        self.processing.attach(Arc::clone(&tier.tier), tier.overlay_bytes)?;
        for slot in &mut self.slots {
            slot.table.attach(tier)?;
            slot.tiered = true;
        }
        Ok(())
    }

    /// Before user code runs for these keys. Returns how many of them tiers were asked for.
    #[inline]
    pub(crate) fn fetch<'k>(
        &mut self,
        keys: impl IntoIterator<Item = (KeyHash, &'k K)> + Clone,
    ) -> Result<usize, StateError> {
        let mut asked = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.tiered) {
            asked += slot.table.fetch(&mut keys.clone().into_iter())?;
        }
        Ok(asked)
    }

    /// After it, now and then.
    pub(crate) fn relieve(&mut self) -> Result<(), StateError> {
        self.processing.relieve()?;
        self.slots.iter_mut().filter(|slot| slot.tiered).try_for_each(|slot| slot.table.relieve())
    }

    /// Before a cut: what has expired stays out of the snapshot.
    pub(crate) fn set_horizons(&mut self) {
        let now = self.now();
        for slot in &mut self.slots {
            if !slot.table.sweeping() {
                slot.table.set_horizon(slot.ttl.map_or(i64::MIN, |ttl| ttl.life(now).horizon));
            }
        }
    }

    /// A bounded step of the search for what has expired.
    pub(crate) fn clean(&mut self) -> Result<(), StateError> {
        let now = self.now();
        for slot in &mut self.slots {
            if let Some(Life { horizon, written: Some(written), .. }) = slot.ttl.map(|ttl| ttl.life(now))
                && horizon != i64::MIN
            {
                slot.table.clean(horizon, written, CLEAN_SLOTS)?;
            }
        }
        Ok(())
    }

    fn now(&self) -> Now {
        Now { wall: self.wall, event: self.event, event_write: self.event }
    }

    /// The table at the handle's place, with what stamps mean for it now and its function.
    #[inline]
    pub(super) fn reach<T: 'static>(
        &mut self,
        place: u16,
        handle: &'static str,
        record: Timestamp,
    ) -> Result<(&mut T, Life, &dyn Any), StatesError> {
        let now = Now { event_write: record.max(self.event), ..self.now() };
        let undeclared = StatesError::Undeclared { handle };
        let Some(slot) = self.slots.get_mut(usize::from(place)) else { return Err(undeclared) };
        let life = slot.ttl.map_or(Life::ENDLESS, |ttl| ttl.life(now));
        match slot.table.any().downcast_mut::<T>() {
            Some(table) => Ok((table, life, &*slot.function)),
            None => Err(undeclared),
        }
    }
}

/// The place of a key in its state.
pub(crate) struct At<'a, K> {
    pub(crate) hash: KeyHash,
    pub(crate) key: &'a K,
}

impl<K> Clone for At<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for At<'_, K> {}
