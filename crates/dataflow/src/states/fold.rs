use cutwater_core::Timestamp;
use cutwater_state::{Data, Key, StateError};

use super::{AggregatingState, At, Named, ReducingState, StatesError, ValueAccess};

pub(super) type Reduce<V> = Box<dyn Fn(&mut V, V) + Send>;

/// How records become a result by way of an accumulator, the only thing that is kept.
///
/// ```
/// use cutwater_dataflow::Aggregate;
///
/// #[derive(Clone)]
/// struct Mean;
///
/// impl Aggregate<f64> for Mean {
///     type Accumulator = (f64, u64);
///     type Out = f64;
///     fn create(&self) -> (f64, u64) { (0.0, 0) }
///     fn add(&self, sum: &mut (f64, u64), value: f64) { *sum = (sum.0 + value, sum.1 + 1); }
///     fn merge(&self, sum: &mut (f64, u64), other: (f64, u64)) { *sum = (sum.0 + other.0, sum.1 + other.1); }
///     fn result(&self, sum: &(f64, u64)) -> f64 { sum.0 / sum.1 as f64 }
/// }
/// ```
pub trait Aggregate<T>: Clone + Send + Sync + 'static {
    /// What is kept.
    type Accumulator: Data;
    /// What comes out.
    type Out: Send + 'static;

    /// An accumulator that nothing was added to.
    fn create(&self) -> Self::Accumulator;

    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: T);

    /// Adds what was gathered in another accumulator: for windows that merge.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator);

    /// What comes out of the accumulator as it is.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Out;
}

/// An [`Aggregate`] of closures, whose accumulator is the result: see [`folding`].
#[derive(Clone, Debug)]
pub struct Folding<C, F, M> {
    create: C,
    add: F,
    merge: M,
}

/// An [`Aggregate`] of closures, where the accumulator is the result: what one begins as, how a record is added to it, and
/// how another one is.
///
/// ```
/// use cutwater_dataflow::{Aggregate, folding};
///
/// let count = folding(|| 0u64, |count, _: String| *count += 1, |count, other| *count += other);
/// let mut counted = count.create();
/// count.add(&mut counted, "one".to_owned());
/// assert_eq!(count.result(&counted), 1);
/// ```
pub fn folding<T, V, C, F, M>(create: C, add: F, merge: M) -> Folding<C, F, M>
where
    C: Fn() -> V,
    F: Fn(&mut V, T),
    M: Fn(&mut V, V),
{
    Folding { create, add, merge }
}

impl<T, V, C, F, M> Aggregate<T> for Folding<C, F, M>
where
    V: Data + Clone,
    C: Fn() -> V + Clone + Send + Sync + 'static,
    F: Fn(&mut V, T) + Clone + Send + Sync + 'static,
    M: Fn(&mut V, V) + Clone + Send + Sync + 'static,
{
    type Accumulator = V;
    type Out = V;

    fn create(&self) -> V {
        (self.create)()
    }

    fn add(&self, accumulator: &mut V, record: T) {
        (self.add)(accumulator, record);
    }

    fn merge(&self, accumulator: &mut V, other: V) {
        (self.merge)(accumulator, other);
    }

    fn result(&self, accumulator: &V) -> V {
        accumulator.clone()
    }
}

/// The reduced value of the key at hand, of a [`ReducingState`].
pub struct ReducingAccess<'a, K: Key, V: Data> {
    value: ValueAccess<'a, K, V>,
    reduce: &'a Reduce<V>,
}

/// The accumulator of the key at hand, of an [`AggregatingState`].
pub struct AggregatingAccess<'a, K: Key, T, A: Aggregate<T>> {
    value: ValueAccess<'a, K, A::Accumulator>,
    aggregate: &'a A,
}

impl<K: Key> Named<K> {
    pub(crate) fn reducing<'a, V: Data>(
        &'a mut self,
        handle: ReducingState<V>,
        at: At<'a, K>,
        record: Timestamp,
    ) -> Result<ReducingAccess<'a, K, V>, StatesError> {
        let handle_type = std::any::type_name::<ReducingState<V>>();
        let (table, life, function) = self.reach(handle.place, handle_type, record)?;
        let reduce = function.downcast_ref().ok_or(StatesError::Undeclared { handle: handle_type })?;
        Ok(ReducingAccess { value: ValueAccess { table, at, life }, reduce })
    }

    pub(crate) fn aggregating<'a, T: 'static, A: Aggregate<T>>(
        &'a mut self,
        handle: AggregatingState<T, A>,
        at: At<'a, K>,
        record: Timestamp,
    ) -> Result<AggregatingAccess<'a, K, T, A>, StatesError> {
        let handle_type = std::any::type_name::<AggregatingState<T, A>>();
        let (table, life, function) = self.reach(handle.place, handle_type, record)?;
        let aggregate = function.downcast_ref().ok_or(StatesError::Undeclared { handle: handle_type })?;
        Ok(AggregatingAccess { value: ValueAccess { table, at, life }, aggregate })
    }
}

impl<K: Key, V: Data> ReducingAccess<'_, K, V> {
    /// Reduces another value into that of the key; the first one is kept as it is.
    ///
    /// # Errors
    ///
    /// If the value as it is can't be encoded for a running snapshot.
    pub fn add(&mut self, value: V) -> Result<(), StateError> {
        match self.value.get_mut()? {
            Some(there) => (self.reduce)(there, value),
            None => self.value.set(value)?,
        }
        Ok(())
    }

    /// The reduced value; `None` if there is none or it has expired.
    ///
    /// # Errors
    ///
    /// As [`ValueAccess::get`].
    pub fn get(&mut self) -> Result<Option<&V>, StateError> {
        self.value.get()
    }

    /// Forgets the value.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.value.clear()
    }
}

impl<K: Key, T, A: Aggregate<T>> AggregatingAccess<'_, K, T, A> {
    /// Adds a record to the accumulator.
    ///
    /// # Errors
    ///
    /// If the accumulator as it is can't be encoded for a running snapshot.
    pub fn add(&mut self, record: T) -> Result<(), StateError> {
        let accumulator = self.value.get_or_insert_with(|| self.aggregate.create())?;
        self.aggregate.add(accumulator, record);
        Ok(())
    }

    /// The result as of now; `None` if nothing was added or it has expired.
    ///
    /// # Errors
    ///
    /// As [`ValueAccess::get`].
    pub fn get(&mut self) -> Result<Option<A::Out>, StateError> {
        Ok(self.value.get()?.map(|accumulator| self.aggregate.result(accumulator)))
    }

    /// Forgets the accumulator.
    ///
    /// # Errors
    ///
    /// As [`Self::add`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.value.clear()
    }
}
