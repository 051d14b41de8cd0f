//! What windows hold: an accumulator each, or their records.

use std::marker::PhantomData;

use cutwater_state::{Data, Key};

use super::Window;
use crate::UserError;
use crate::process::ProcessContext;
use crate::states::{Aggregate, MapState, States, StatesError};

/// What the windows of a key hold, in keyed state.
pub(crate) trait Contents<K: Key, T>: Clone + Send + Sync + 'static {
    /// What comes out of a window.
    type Out: Send + 'static;

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), StatesError>;

    /// The windows of the key at hand that hold anything, in their order.
    fn windows<O>(&self, cx: &mut ProcessContext<'_, K, (), O>) -> Result<Vec<Window>, UserError>;

    fn add<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window, record: T) -> Result<(), UserError>;

    /// Makes one window of those in `from`, which hold something.
    fn merge<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, from: &[Window], into: Window) -> Result<(), UserError>;

    /// What comes out of the window as it is.
    fn fire<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<Vec<Self::Out>, UserError>;

    fn clear<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<(), UserError>;
}

fn keys_of<K: Key, V: Data, O>(
    cx: &mut ProcessContext<'_, K, (), O>,
    windows: MapState<Window, V>,
) -> Result<Vec<Window>, UserError> {
    let mut keys: Vec<Window> = cx.map(windows)?.iter()?.map(|(window, _)| *window).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// An accumulator for each window.
pub(crate) struct Aggregated<T, A: Aggregate<T>> {
    aggregate: A,
    windows: MapState<Window, A::Accumulator>,
    types: PhantomData<fn(T)>,
}

impl<T, A: Aggregate<T>> Aggregated<T, A> {
    pub(crate) fn new(aggregate: A) -> Self {
        Self { aggregate, windows: MapState::default(), types: PhantomData }
    }
}

impl<T, A: Aggregate<T>> Clone for Aggregated<T, A> {
    fn clone(&self) -> Self {
        Self { aggregate: self.aggregate.clone(), windows: self.windows, types: PhantomData }
    }
}

impl<K: Key, T: 'static, A: Aggregate<T>> Contents<K, T> for Aggregated<T, A> {
    type Out = (K, Window, A::Out);

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), StatesError> {
        self.windows = states.map("windows")?;
        Ok(())
    }

    fn windows<O>(&self, cx: &mut ProcessContext<'_, K, (), O>) -> Result<Vec<Window>, UserError> {
        keys_of(cx, self.windows)
    }

    fn add<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window, record: T) -> Result<(), UserError> {
        let mut windows = cx.map(self.windows)?;
        let accumulator = windows.get_or_insert_with(&window, || self.aggregate.create())?;
        self.aggregate.add(accumulator, record);
        Ok(())
    }

    fn merge<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, from: &[Window], into: Window) -> Result<(), UserError> {
        let mut windows = cx.map(self.windows)?;
        let mut merged: Option<A::Accumulator> = None;
        for window in from {
            match (windows.remove(window)?, &mut merged) {
                (Some(other), Some(merged)) => self.aggregate.merge(merged, other),
                (Some(first), None) => merged = Some(first),
                (None, _) => {}
            }
        }
        if let Some(merged) = merged {
            windows.insert(into, merged)?;
        }
        Ok(())
    }

    fn fire<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<Vec<Self::Out>, UserError> {
        let key = cx.key().clone();
        let windows = cx.map(self.windows)?;
        let result = windows.peek(&window).map(|accumulator| self.aggregate.result(accumulator));
        Ok(result.map(|result| (key, window, result)).into_iter().collect())
    }

    fn clear<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<(), UserError> {
        cx.map(self.windows)?.remove(&window)?;
        Ok(())
    }
}

/// The records of each window, one entry each, so that none is copied with another.
pub(crate) struct Elements<T, F> {
    f: F,
    /// For each window a number that no other window of the key has, and how many records it holds. The number is a time
    /// within the window: its start, or that of one that became a part of it. Windows that can become one never overlap.
    windows: MapState<Window, (i64, u64)>,
    /// Records by the number of their window, and counted in it.
    records: MapState<(i64, u64), T>,
}

impl<T, F> Elements<T, F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f, windows: MapState::default(), records: MapState::default() }
    }
}

impl<T, F: Clone> Clone for Elements<T, F> {
    fn clone(&self) -> Self {
        Self { f: self.f.clone(), windows: self.windows, records: self.records }
    }
}

impl<K, T, F, I> Contents<K, T> for Elements<T, F>
where
    K: Key,
    T: Data,
    F: Fn(&K, Window, &[&T]) -> I + Clone + Send + Sync + 'static,
    I: IntoIterator + 'static,
    I::Item: Send + 'static,
{
    type Out = I::Item;

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), StatesError> {
        self.windows = states.map("windows")?;
        self.records = states.map("records")?;
        Ok(())
    }

    fn windows<O>(&self, cx: &mut ProcessContext<'_, K, (), O>) -> Result<Vec<Window>, UserError> {
        keys_of(cx, self.windows)
    }

    fn add<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window, record: T) -> Result<(), UserError> {
        let mut windows = cx.map(self.windows)?;
        let (number, count) = windows.get_or_insert_with(&window, || (window.start, 0))?;
        let place = (*number, *count);
        *count += 1;
        cx.map(self.records)?.insert(place, record)?;
        Ok(())
    }

    fn merge<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, from: &[Window], into: Window) -> Result<(), UserError> {
        let mut parts = Vec::new();
        let mut windows = cx.map(self.windows)?;
        for window in from {
            parts.extend(windows.remove(window)?);
        }
        // The one with most records keeps its place, so that most often nothing is moved.
        parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut parts = parts.into_iter();
        let Some((number, mut count)) = parts.next() else { return Ok(()) };
        let mut records = cx.map(self.records)?;
        for (other, others) in parts {
            for at in 0..others {
                if let Some(record) = records.remove(&(other, at))? {
                    records.insert((number, count), record)?;
                    count += 1;
                }
            }
        }
        cx.map(self.windows)?.insert(into, (number, count))?;
        Ok(())
    }

    fn fire<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<Vec<Self::Out>, UserError> {
        let key = cx.key().clone();
        let Some((number, count)) = cx.map(self.windows)?.peek(&window).copied() else { return Ok(Vec::new()) };
        let records = cx.map(self.records)?;
        let of_window: Vec<&T> = (0..count).filter_map(|at| records.peek(&(number, at))).collect();
        Ok((self.f)(&key, window, &of_window).into_iter().collect())
    }

    fn clear<O>(&self, cx: &mut ProcessContext<'_, K, (), O>, window: Window) -> Result<(), UserError> {
        if let Some((number, count)) = cx.map(self.windows)?.remove(&window)? {
            let mut records = cx.map(self.records)?;
            for at in 0..count {
                records.remove(&(number, at))?;
            }
        }
        Ok(())
    }
}
