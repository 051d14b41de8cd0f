//! The named states of an operator, by key and without: how they are declared and reached.

mod closures;
mod error;
mod fold;
mod list;
mod map;
mod named;
mod operator;
mod value;

use std::any::{Any, type_name};
use std::marker::PhantomData;

use cutwater_core::OperatorUid;
use cutwater_state::{Accumulator, Data, Key, ListTable, MapTable, StateKind, TableSpec};

pub use self::closures::StatefulFn;
pub use self::error::StatesError;
pub use self::fold::{Aggregate, AggregatingAccess, Folding, ReducingAccess, folding};
pub use self::list::ListAccess;
pub use self::map::MapAccess;
pub(crate) use self::named::{At, Named};
use self::named::{Kept, Slot};
pub(crate) use self::operator::OperatorStore;
pub use self::operator::{OperatorState, OperatorStates};
pub use self::value::ValueAccess;
use crate::ttl::Ttl;

/// Names that an operator's own value and its timers have.
pub(crate) const OWN: [(&str, &str); 3] = [
    ("value", "the operator's own value"),
    ("timers", "its event-time timers"),
    ("processing-timers", "its processing-time timers"),
];
/// A name of a state has so many bytes at the most.
const LONGEST_NAME: usize = 200;
/// An operator has so many states at the most: more than that are entries of one map.
const MOST_STATES: usize = 1_024;

macro_rules! handles {
    ($from:literal: $($(#[$doc:meta])* $name:ident<$($type:ident),+>)*) => {
        $(
            $(#[$doc])*
            ///
            #[doc = concat!("A handle, to be had from [`", $from, "`]; it is cheap to copy. That of `Default` is not \
                declared, and a placeholder until the operator's `open` sets it.")]
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
    "States":
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

handles! {
    "OperatorStates":
    /// A list of a subtask, without keys. At another parallelism the items of all subtasks are spread evenly.
    OperatorListState<T>
    /// A list of a subtask, without keys, of which each subtask gets the items of all at a restore.
    UnionListState<T>
    /// A map that is the same in all subtasks, since each makes the same changes to it.
    BroadcastState<U, V>
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
        let table = |spec| Box::new(Accumulator::<K, V>::single(spec, kind)) as Box<dyn Kept<K>>;
        self.add(name, kind, &[type_name::<V>()], table, Box::new(())).map(ValueState::at)
    }

    /// A list for each key. An append does not copy the list.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn list<T: Data>(&mut self, name: &str) -> Result<ListState<T>, StatesError> {
        let table = |spec| Box::new(ListTable::<K, T>::new(spec)) as Box<dyn Kept<K>>;
        self.add(name, StateKind::List, &[type_name::<T>()], table, Box::new(())).map(ListState::at)
    }

    /// A map for each key. A change of an entry does not copy the map.
    ///
    /// # Errors
    ///
    /// As [`Self::value`].
    pub fn map<U: Key, V: Data>(&mut self, name: &str) -> Result<MapState<U, V>, StatesError> {
        let table = |spec| Box::new(MapTable::<K, U, V>::new(spec)) as Box<dyn Kept<K>>;
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
        let table = |spec| Box::new(Accumulator::<K, V>::single(spec, kind)) as Box<dyn Kept<K>>;
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
        let table = |spec| Box::new(Accumulator::<K, A::Accumulator>::single(spec, kind)) as Box<dyn Kept<K>>;
        let types = [type_name::<A::Accumulator>()];
        self.add(name, kind, &types, table, Box::new(aggregate)).map(AggregatingState::at)
    }

    fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        types: &[&'static str],
        table: impl FnOnce(TableSpec) -> Box<dyn Kept<K>>,
        function: Box<dyn Any + Send>,
    ) -> Result<u16, StatesError> {
        let named = &mut *self.named;
        let operator = named.operator.clone();
        let what = format!("{} of {}", kind.name(), types.join(" to "));
        let taken = || named.taken(name);
        check_name(&operator, name, taken, &what)?;
        if self.ttl.is_some_and(|ttl| !ttl.is_valid()) {
            return Err(StatesError::Ttl { operator, name: name.to_owned() });
        }
        let place = u16::try_from(named.slots.len()).unwrap_or(u16::MAX);
        if usize::from(place) >= MOST_STATES {
            return Err(StatesError::TooMany { operator, most: MOST_STATES });
        }
        let table = table(named.spec(name));
        named.slots.push(Slot { name: name.to_owned(), what, table, ttl: self.ttl, tiered: false, function });
        Ok(place)
    }
}

/// Whether a state can be called so; `taken` says what has the name already.
fn check_name(
    operator: &OperatorUid,
    name: &str,
    taken: impl FnOnce() -> Option<String>,
    what: &str,
) -> Result<(), StatesError> {
    let operator = operator.clone();
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(StatesError::Name { operator, name: name.to_owned() });
    }
    match taken() {
        Some(first) => {
            Err(StatesError::DuplicateName { operator, name: name.to_owned(), first, second: what.to_owned() })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
