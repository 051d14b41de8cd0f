//! The named states of a keyed operator: how they are declared and reached.

mod closures;
mod fold;
mod list;
mod map;
mod value;

use std::any::{Any, type_name};
use std::marker::PhantomData;

use cutwater_core::{KeyGroupRange, KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::{
    Accumulator, Data, Key, ListTable, MapTable, Snapshotable, StateError, StateKind, TableSpec, Timers,
};

pub use self::closures::StatefulFn;
pub use self::fold::{Aggregate, AggregatingAccess, Folding, ReducingAccess, folding};
pub use self::list::ListAccess;
pub use self::map::MapAccess;
pub use self::value::ValueAccess;
use crate::ttl::{Life, Now, Ttl};

/// Names that an operator's own value and its timers have.
pub(crate) const OWN: [(&str, &str); 3] = [
    ("value", "the operator's own value"),
    ("timers", "its event-time timers"),
    ("processing-timers", "its processing-time timers"),
];
/// Slots visited with each batch to find what has expired.
const CLEAN_SLOTS: usize = 256;
/// A name of a state has so many bytes at the most.
const LONGEST_NAME: usize = 200;
/// An operator has so many states at the most.
const MOST_STATES: usize = 256;

/// Why a state of an operator could not be declared or reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatesError {
    /// Two states of one operator have the same name.
    #[error("operator {operator} has two states named {name}: {first}, and {second}: give one another name")]
    DuplicateName {
        /// The operator.
        operator: OperatorUid,
        /// The name.
        name: String,
        /// What the first one is.
        first: String,
        /// What the second one is.
        second: String,
    },
    /// A name that can't be one.
    #[error("operator {operator}: {name:?} is no name for a state: it needs 1 to 200 bytes without control characters")]
    Name {
        /// The operator.
        operator: OperatorUid,
        /// The name.
        name: String,
    },
    /// A time-to-live below a millisecond.
    #[error("state {name} of {operator} has a time-to-live of less than a millisecond")]
    Ttl {
        /// The operator.
        operator: OperatorUid,
        /// The state.
        name: String,
    },
    /// More states than an operator can have.
    #[error("operator {operator} declares more than {most} states: use a map with several entries instead")]
    TooMany {
        /// The operator.
        operator: OperatorUid,
        /// How many it can have.
        most: usize,
    },
    /// A handle that was not declared, or in another operator.
    #[error("{handle} was not declared by this operator: declare it in `open` and keep what that returns")]
    Undeclared {
        /// The type of the handle.
        handle: &'static str,
    },
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident<$($type:ident),+>)*) => {
        $(
            $(#[$doc])*
            ///
            /// A handle, to be had from [`States`]; it is cheap to copy. That of `Default` is not declared, and a
            /// placeholder until [`KeyedProcess::open`](crate::KeyedProcess::open) sets it.
            pub struct $name<$($type),+> {
                place: u16,
                types: PhantomData<fn() -> ($($type,)+)>,
            }

            impl<$($type),+> $name<$($type),+> {
                fn at(place: u16) -> Self {
                    Self { place, types: PhantomData }
                }
            }

            impl<$($type),+> Clone for $name<$($type),+> {
                fn clone(&self) -> Self {
                    *self
                }
            }

            impl<$($type),+> Copy for $name<$($type),+> {}

            impl<$($type),+> Default for $name<$($type),+> {
                fn default() -> Self {
                    Self::at(u16::MAX)
                }
            }

            impl<$($type),+> std::fmt::Debug for $name<$($type),+> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    write!(f, concat!(stringify!($name), "({})"), self.place)
                }
            }
        )*
    };
}

handles! {
    /// A value for each key.
    ValueState<V>
    /// A list for each key.
    ListState<T>
    /// A map for each key.
    MapState<U, V>
    /// A value for each key that others are reduced into.
    ReducingState<V>
    /// An accumulator for each key that others are aggregated into.
    AggregatingState<T, A>
}

/// Declares the states of a keyed operator, in [`KeyedProcess::open`](crate::KeyedProcess::open).
///
/// A state is found again in a checkpoint by the uid of the operator and its name; types and kind must then be the same.
/// The order of the declarations has no meaning. A state that the checkpoint does not have begins empty; one that it has
/// and the operator declares no more is refused.
pub struct States<'a, K: Key> {
    named: &'a mut Named<K>,
    ttl: Option<Ttl>,
}

impl<K: Key> States<'_, K> {
    /// What is declared through this has a time-to-live, or none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cutwater_dataflow::{States, StatesError, Ttl, ValueState};
    /// # fn open(states: &mut States<'_, u64>) -> Result<(), StatesError> {
    /// let seen: ValueState<bool> = states.ttl(Ttl::new(Duration::from_secs(3600))).value("seen")?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ttl(&mut self, ttl: impl Into<Option<Ttl>>) -> States<'_, K> {
        States { named: self.named, ttl: ttl.into() }
    }

    /// A value for each key.
    ///
    /// # Errors
    ///
    /// [`StatesError`] if the name is taken or can't be one, or the time-to-live is too short.
    pub fn value<V: Data>(&mut self, name: &str) -> Result<ValueState<V>, StatesError> {
        let kind = StateKind::NamedValue;
        let table = |spec| Box::new(Accumulator::<K, V>::single(spec, kind)) as Box<dyn Kept>;
        self.add(name, kind, &[type_name::<V>()], table, Box::new(())).map(ValueState::at)
    }

    /// A list for each key. An append does not copy the list.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn list<T: Data>(&mut self, name: &str) -> Result<ListState<T>, StatesError> {
        let table = |spec| Box::new(ListTable::<K, T>::new(spec)) as Box<dyn Kept>;
        self.add(name, StateKind::List, &[type_name::<T>()], table, Box::new(())).map(ListState::at)
    }

    /// A map for each key. A change of an entry does not copy the map.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn map<U: Key, V: Data>(&mut self, name: &str) -> Result<MapState<U, V>, StatesError> {
        let table = |spec| Box::new(MapTable::<K, U, V>::new(spec)) as Box<dyn Kept>;
        let types = [type_name::<U>(), type_name::<V>()];
        self.add(name, StateKind::Map, &types, table, Box::new(())).map(MapState::at)
    }

    /// A value for each key that others are reduced into by `reduce`.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn reducing<V: Data>(
        &mut self,
        name: &str,
        reduce: impl Fn(&mut V, V) + Send + 'static,
    ) -> Result<ReducingState<V>, StatesError> {
        let kind = StateKind::Reducing;
        let table = |spec| Box::new(Accumulator::<K, V>::single(spec, kind)) as Box<dyn Kept>;
        let reduce: fold::Reduce<V> = Box::new(reduce);
        self.add(name, kind, &[type_name::<V>()], table, Box::new(reduce)).map(ReducingState::at)
    }

    /// An accumulator for each key that others are added to as `aggregate` says.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn aggregating<T: 'static, A: Aggregate<T>>(
        &mut self,
        name: &str,
        aggregate: A,
    ) -> Result<AggregatingState<T, A>, StatesError> {
        let kind = StateKind::Aggregating;
        let table = |spec| Box::new(Accumulator::<K, A::Accumulator>::single(spec, kind)) as Box<dyn Kept>;
        let types = [type_name::<A::Accumulator>()];
        self.add(name, kind, &types, table, Box::new(aggregate)).map(AggregatingState::at)
    }

    fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        types: &[&'static str],
        table: impl FnOnce(TableSpec) -> Box<dyn Kept>,
        function: Box<dyn Any + Send>,
    ) -> Result<u16, StatesError> {
        let named = &mut *self.named;
        let operator = named.operator.clone();
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(StatesError::Name { operator, name: name.to_owned() });
        }
        let what = format!("{} of {}", kind.name(), types.join(" to "));
        let own = OWN.iter().find(|(own, _)| *own == name).map(|(_, what)| (*what).to_owned());
        let other = named.slots.iter().find(|slot| slot.name == name).map(|slot| slot.what.clone());
        if let Some(first) = own.or(other) {
            return Err(StatesError::DuplicateName { operator, name: name.to_owned(), first, second: what });
        }
        if self.ttl.is_some_and(|ttl| !ttl.is_valid()) {
            return Err(StatesError::Ttl { operator, name: name.to_owned() });
        }
        let place = u16::try_from(named.slots.len()).unwrap_or(u16::MAX);
        if usize::from(place) >= MOST_STATES {
            return Err(StatesError::TooMany { operator, most: MOST_STATES });
        }
        let table = table(named.spec(name));
        named.slots.push(Slot { name: name.to_owned(), what, table, ttl: self.ttl, function });
        Ok(place)
    }
}

/// A table with what the chain does to each of them, whatever its types.
pub(crate) trait Kept: Snapshotable {
    fn any(&mut self) -> &mut dyn Any;
    fn set_horizon(&mut self, horizon: i64);
    fn clean(&mut self, horizon: i64, now: i64, slots: usize) -> Result<u64, StateError>;
}

macro_rules! kept {
    ($table:ident<$($type:ident: $bound:ident),+>) => {
        impl<$($type: $bound),+> Kept for $table<$($type),+> {
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
    };
}

kept!(MapTable<K: Key, U: Key, V: Data>);
kept!(ListTable<K: Key, T: Data>);

struct Slot {
    name: String,
    /// For messages.
    what: String,
    table: Box<dyn Kept>,
    ttl: Option<Ttl>,
    /// How a reducing or aggregating state takes a record.
    function: Box<dyn Any + Send>,
}

/// What a keyed operator has beside its own value and its event-time timers.
pub(crate) struct Named<K: Key> {
    operator: OperatorUid,
    max_parallelism: MaxParallelism,
    key_groups: KeyGroupRange,
    slots: Vec<Slot>,
    pub(crate) processing: Timers<K>,
    /// The wall clock of the quantum.
    pub(crate) wall: cutwater_core::Timestamp,
    /// The watermark, or the time of the timer that fires.
    pub(crate) event: cutwater_core::Timestamp,
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
            wall: cutwater_core::Timestamp::MIN,
            event: cutwater_core::Timestamp::MIN,
        }
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

    /// All of them, in an order that never changes.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut dyn Snapshotable> {
        let Self { processing, slots, .. } = self;
        let slots = slots.iter_mut().map(|slot| &mut *slot.table as &mut dyn Snapshotable);
        std::iter::once(processing as &mut dyn Snapshotable).chain(slots)
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
    fn reach<T: 'static>(
        &mut self,
        place: u16,
        handle: &'static str,
        record: cutwater_core::Timestamp,
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

#[cfg(test)]
mod tests;
