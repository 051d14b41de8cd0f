//! Operator state: what a subtask keeps without keys.

use std::any::{Any, type_name};
use std::collections::BTreeMap;

use cutwater_core::{MaxParallelism, OperatorUid};
use cutwater_state::{
    Data, Key, OPERATOR_STATE_BYTES, OPERATOR_STATE_OF_TASK, OperatorStatePart, OperatorStateWriter, StateError,
    StateHeader, StateKind, decode,
};

use super::{BroadcastState, MOST_STATES, OperatorListState, StatesError, UnionListState, check_name};
use crate::exec::{BuildContext, ChainSnapshot, OperatorSnapshot, OperatorStateError, SnapshotKind};
use crate::{NonRecoverable, UserError};

/// A handle of an operator state: [`OperatorListState`], [`UnionListState`] or [`BroadcastState`].
pub trait OperatorState: Copy + sealed::Sealed {
    /// What is kept: a `Vec` or a `BTreeMap`.
    type Content: 'static;
}

mod sealed {
    pub trait Sealed {
        /// The kind that a state of this handle has.
        const KIND: super::StateKind;
        /// Its place among the states of the operator.
        fn place(&self) -> usize;
    }
}

macro_rules! operator_states {
    ($($handle:ident<$($type:ident),+> = $kind:ident, $content:ty;)*) => {
        $(
            impl<$($type: 'static),+> OperatorState for $handle<$($type),+> {
                type Content = $content;
            }

            impl<$($type: 'static),+> sealed::Sealed for $handle<$($type),+> {
                const KIND: StateKind = StateKind::$kind;

                fn place(&self) -> usize {
                    usize::from(self.place)
                }
            }
        )*
    };
}

operator_states! {
    OperatorListState<T> = OperatorList, Vec<T>;
    UnionListState<T> = UnionList, Vec<T>;
    BroadcastState<U, V> = Broadcast, BTreeMap<U, V>;
}

/// Declares the operator states of an operator and shows what was restored, in [`Process::open`](crate::Process::open) or
/// [`KeyedBroadcastProcess::open_broadcast`](crate::KeyedBroadcastProcess::open_broadcast).
///
/// A state is found again in a checkpoint by the uid of the operator and its name; types and kind must then be the same. A
/// state that the checkpoint does not have begins empty; one that it has items of and the operator declares no more is
/// refused.
///
/// Operator state is small: it is copied while a checkpoint is cut, and stands in the checkpoint's record. A subtask has
/// at most 16 MiB of it, all subtasks of a task 128 MiB; more fails the job. What grows with the input is kept by key.
pub struct OperatorStates<'a> {
    store: OperatorStore,
    operator: OperatorUid,
    max_parallelism: MaxParallelism,
    /// `None` while the stream is written.
    context: Option<&'a BuildContext<'a>>,
    /// What the checkpoint has of the operator, in the order in which items are spread and copies taken.
    parts: Vec<OperatorStatePart<'a>>,
    /// What else of the operator has a name already.
    taken: &'a dyn Fn(&str) -> Option<String>,
    failed: Option<OperatorStateError>,
}

impl<'a> OperatorStates<'a> {
    /// While the stream is written: nothing is restored.
    pub(crate) fn draft(operator: OperatorUid, taken: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let (store, max_parallelism) = (OperatorStore::default(), MaxParallelism::default());
        Self { store, operator, max_parallelism, context: None, parts: Vec::new(), taken, failed: None }
    }

    /// For a subtask.
    pub(crate) fn of(
        operator: OperatorUid,
        context: &'a BuildContext<'a>,
        taken: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, OperatorStateError> {
        let mine = |part: &&OperatorSnapshot| part.kind == SnapshotKind::OperatorState && part.operator == operator;
        let parts = context.restored.iter().filter(mine).map(|part| OperatorStatePart::decode(&part.payload));
        let parts: Result<Vec<_>, _> = parts.collect();
        let mut parts = parts.map_err(|source| OperatorStateError::Part { operator: operator.clone(), source })?;
        parts.sort_by_key(|part| part.subtask);
        let store = OperatorStore::of(context);
        let max_parallelism = context.max_parallelism;
        Ok(Self { store, operator, max_parallelism, context: Some(context), parts, taken, failed: None })
    }

    /// Lets an operator declare its states, and returns them as they were restored.
    pub(crate) fn open(
        mut self,
        open: impl FnOnce(&mut OperatorStates<'_>) -> Result<(), UserError>,
    ) -> Result<OperatorStore, UserError> {
        let opened = open(&mut self);
        // What a state that is not restored makes of `open` says less than why it was not.
        match self.failed {
            Some(error) => Err(error.into()),
            None => opened.map(|()| self.store),
        }
    }
}

impl OperatorStates<'_> {
    /// A list of this subtask. At another parallelism the items of all subtasks are spread evenly, item by item in turn; at
    /// the same one each subtask has its own again, in order. Source: Flink's list state with even-split redistribution.
    ///
    /// # Errors
    ///
    /// [`StatesError`] if the name is taken or can't be one.
    pub fn list<T: Data>(&mut self, name: &str) -> Result<OperatorListState<T>, StatesError> {
        let restore = |parts: &[&OperatorStatePart<'_>], place: Place| {
            let own = parts.iter().all(|part| part.parallelism == place.parallelism);
            let mut turn = (0..place.parallelism).cycle();
            let mut mine = |part: &OperatorStatePart<'_>| {
                let next = turn.next();
                if own { part.subtask == place.subtask } else { next == Some(place.subtask) }
            };
            items(parts, &mut mine)
        };
        let types = [type_name::<T>()];
        self.add::<(), T, Vec<T>>(name, StateKind::OperatorList, &types, restore).map(OperatorListState::at)
    }

    /// A list of this subtask. At a restore each subtask gets the items of all, at any parallelism, and takes those out that
    /// it does not want: what each keeps, the next checkpoint has as often. Source: Flink's union list state.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub fn union_list<T: Data>(&mut self, name: &str) -> Result<UnionListState<T>, StatesError> {
        let restore = |parts: &[&OperatorStatePart<'_>], _: Place| items(parts, &mut |_| true);
        let types = [type_name::<T>()];
        self.add::<(), T, Vec<T>>(name, StateKind::UnionList, &types, restore).map(UnionListState::at)
    }

    /// A map that is the same in all subtasks, since all make the same changes: those that a broadcast stream asks for.
    /// At a restore each subtask has its own copy again, or that of another where there are more of them. Nobody checks that
    /// the copies are the same. Source: Flink's broadcast state.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub fn broadcast<U: Key + Ord, V: Data>(&mut self, name: &str) -> Result<BroadcastState<U, V>, StatesError> {
        let restore = |parts: &[&OperatorStatePart<'_>], place: Place| {
            let copy = place.subtask as usize % parts.len().max(1);
            let entries = parts.get(copy).into_iter().flat_map(|part| part.iter());
            entries.map(|(key, value)| Ok((decode(key)?, decode(value)?))).collect()
        };
        let types = [type_name::<U>(), type_name::<V>()];
        self.add::<U, V, BTreeMap<U, V>>(name, StateKind::Broadcast, &types, restore).map(BroadcastState::at)
    }

    /// The content of a state that was just declared: what was restored, or nothing. What is done to it is done once, before
    /// the first record.
    ///
    /// # Errors
    ///
    /// [`StatesError::Undeclared`] if this operator did not declare it.
    pub fn operator_state<H: OperatorState>(&mut self, state: H) -> Result<&mut H::Content, StatesError> {
        self.store.get_mut(state)
    }

    /// The subtask, in `0..parallelism`; 0 while the stream is written.
    #[must_use]
    pub fn subtask(&self) -> u32 {
        self.store.subtask
    }

    /// How many subtasks there are; 1 while the stream is written.
    #[must_use]
    pub fn parallelism(&self) -> u32 {
        self.store.parallelism
    }

    /// Whether the attempt starts from a checkpoint. It may hold nothing of the operator, if that is new.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.context.is_some_and(|context| !context.from_nothing)
    }

    fn add<U: Data, V: Data, C: Content + Default>(
        &mut self,
        name: &str,
        kind: StateKind,
        types: &[&'static str],
        restore: impl FnOnce(&[&OperatorStatePart<'_>], Place) -> Result<C, StateError>,
    ) -> Result<u16, StatesError> {
        let operator = &self.operator;
        let what = format!("{} of {}", kind.name(), types.join(" to "));
        let slot = |slot: &Slot| (slot.header.name == name).then(|| slot.what.clone());
        let taken = || (self.taken)(name).or_else(|| self.store.slots.iter().find_map(slot));
        check_name(operator, name, taken, &what)?;
        let place = u16::try_from(self.store.slots.len()).unwrap_or(u16::MAX);
        if usize::from(place) >= MOST_STATES {
            return Err(StatesError::TooMany { operator: operator.clone(), most: MOST_STATES });
        }
        let header = StateHeader::of_operator_state::<U, V>(operator.clone(), name, kind, self.max_parallelism);
        let content = Box::new(self.restore(&header, restore));
        self.store.slots.push(Slot { header, what, content });
        Ok(place)
    }

    fn restore<C: Content + Default>(
        &mut self,
        header: &StateHeader,
        restore: impl FnOnce(&[&OperatorStatePart<'_>], Place) -> Result<C, StateError>,
    ) -> C {
        if let Some(context) = self.context {
            context.claimed.add(&self.operator, &header.name);
        }
        let parts: Vec<_> = self.parts.iter().filter(|part| part.header.name == header.name).collect();
        let at = Place { subtask: self.store.subtask, parallelism: self.store.parallelism };
        let checked = parts.iter().try_for_each(|part| header.check(&part.header));
        checked.and_then(|()| restore(&parts, at)).unwrap_or_else(|source| {
            let (operator, state, kind) = (self.operator.clone(), header.name.clone(), header.kind.name());
            self.failed.get_or_insert(OperatorStateError::Restore { operator, state, kind, source });
            C::default()
        })
    }
}

/// The subtask that restores.
#[derive(Clone, Copy)]
struct Place {
    subtask: u32,
    parallelism: u32,
}

/// The items of all parts, in the order of subtasks, for which `mine` is true.
fn items<T: Data>(
    parts: &[&OperatorStatePart<'_>],
    mine: &mut dyn FnMut(&OperatorStatePart<'_>) -> bool,
) -> Result<Vec<T>, StateError> {
    let mut items = Vec::new();
    for part in parts {
        for (_, item) in part.iter() {
            if mine(part) {
                items.push(decode(item)?);
            }
        }
    }
    Ok(items)
}

/// What a state keeps, whatever its types.
trait Content: Any + Send {
    fn any(&self) -> &dyn Any;
    fn any_mut(&mut self) -> &mut dyn Any;
    fn write(&self, writer: &mut OperatorStateWriter) -> Result<(), StateError>;
}

impl<T: Data> Content for Vec<T> {
    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn write(&self, writer: &mut OperatorStateWriter) -> Result<(), StateError> {
        self.iter().try_for_each(|item| writer.push(&(), item))
    }
}

impl<U: Key + Ord, V: Data> Content for BTreeMap<U, V> {
    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn write(&self, writer: &mut OperatorStateWriter) -> Result<(), StateError> {
        self.iter().try_for_each(|(key, value)| writer.push(key, value))
    }
}

struct Slot {
    header: StateHeader,
    /// For messages.
    what: String,
    content: Box<dyn Content>,
}

/// The operator states of one operator in one subtask.
pub(crate) struct OperatorStore {
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    slots: Vec<Slot>,
}

impl Default for OperatorStore {
    fn default() -> Self {
        Self { subtask: 0, parallelism: 1, slots: Vec::new() }
    }
}

impl OperatorStore {
    /// Without states, for a subtask.
    pub(crate) fn of(context: &BuildContext<'_>) -> Self {
        Self { subtask: context.subtask.index, parallelism: context.parallelism, slots: Vec::new() }
    }

    pub(crate) fn get<H: OperatorState>(&self, state: H) -> Result<&H::Content, StatesError> {
        let slot = self.slots.get(state.place()).filter(|slot| slot.header.kind == H::KIND);
        let content = slot.and_then(|slot| (*slot.content).any().downcast_ref());
        content.ok_or(StatesError::Undeclared { handle: type_name::<H>() })
    }

    pub(crate) fn get_mut<H: OperatorState>(&mut self, state: H) -> Result<&mut H::Content, StatesError> {
        let slot = self.slots.get_mut(state.place()).filter(|slot| slot.header.kind == H::KIND);
        let content = slot.and_then(|slot| (*slot.content).any_mut().downcast_mut());
        content.ok_or(StatesError::Undeclared { handle: type_name::<H>() })
    }

    /// Adds a copy of all of them.
    pub(crate) fn snapshot(&self, out: &mut ChainSnapshot) -> Result<(), UserError> {
        let limit = OPERATOR_STATE_BYTES.min(OPERATOR_STATE_OF_TASK / u64::from(self.parallelism));
        let parts = out.operators.iter().filter(|part| part.kind == SnapshotKind::OperatorState);
        let mut bytes: u64 = parts.map(|part| part.payload.len() as u64).sum();
        for Slot { header, content, .. } in &self.slots {
            let payload = OperatorStateWriter::new(header, self.subtask, self.parallelism).and_then(|mut writer| {
                content.write(&mut writer)?;
                Ok(writer.finish())
            });
            let (operator, state) = (header.operator.clone(), header.name.clone());
            let too_large =
                |operator, state| NonRecoverable::new(OperatorStateError::TooLarge { operator, state, limit });
            let payload = match payload {
                Ok(payload) => payload,
                Err(StateError::TooLarge { .. }) => return Err(too_large(operator, state).into()),
                Err(source) => return Err(OperatorStateError::Encode { operator, state, source }.into()),
            };
            bytes += payload.len() as u64;
            if bytes > limit {
                return Err(too_large(operator, state).into());
            }
            out.operators.push(OperatorSnapshot { operator, kind: SnapshotKind::OperatorState, payload });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
