//! Keyed processing: the operator with state and timers at the head of a chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use cutwater_core::{CheckpointId, KeyHash, OperatorUid, Timestamp};
use cutwater_state::{Data, Key, Snapshotable, StateError, Table, Timers};

use crate::UserError;
use crate::each::RecordContext;
use crate::exec::{AnyBatch, BATCH_RECORDS, BuildContext, Chain, ChainSnapshot, Exec, Keyed, KeyedBatch, SourcePoll};
use crate::graph::{BuildChain, GraphError};
use crate::side::{MakeSides, OutputTag, OutputTagMismatch, SideOutputs, Sides};
use crate::stage::Stage;
use crate::states::{
    Aggregate, AggregatingAccess, AggregatingState, At, BroadcastState, ListAccess, ListState, MapAccess, MapState,
    Named, OperatorStore, ReducingAccess, ReducingState, States, StatesError, ValueAccess, ValueState,
};
use crate::stream::{Build, Head, OperatorKind, OperatorSpec, TaskHead};

/// An operator over a keyed stream, with a value of state per key, timers, and further states by name.
///
/// The one value ([`ProcessContext::state`]) is the fastest state there is. Further ones, of any kind, are declared in
/// [`Self::open`] and reached through handles:
///
/// ```
/// use cutwater_dataflow::{KeyedProcess, MapState, ProcessContext, States, UserError};
///
/// /// Counts users and their pages by country.
/// #[derive(Clone, Default)]
/// struct Visits {
///     pages: MapState<String, u64>,
/// }
///
/// impl KeyedProcess<String, String> for Visits {
///     type State = u64;
///     type Out = (String, u64);
///
///     fn initial(&self) -> u64 { 0 }
///
///     fn open(&mut self, states: &mut States<'_, String>) -> Result<(), UserError> {
///         self.pages = states.map("pages")?;
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         cx: &mut ProcessContext<'_, String, u64, (String, u64)>,
///         user: String,
///     ) -> Result<(), UserError> {
///         *cx.state()? += 1;
///         let mut pages = cx.map(self.pages)?;
///         let seen = pages.get_or_insert_with(&user, || 0)?;
///         *seen += 1;
///         let seen = *seen;
///         cx.emit((user, seen));
///         Ok(())
///     }
/// }
/// ```
///
/// Most jobs use closures (`process`, `process_with_timers`, `fold` on [`KeyedStream`](crate::KeyedStream)); implement
/// this for an operator with fields of its own. Each subtask works on a clone. What is kept in `self` is not part of
/// any snapshot: it must be a cache or a constant.
pub trait KeyedProcess<K: Key, T>: Clone + Send + Sync + 'static {
    /// What is kept per key.
    type State: Data;
    /// What it emits.
    type Out: Send + 'static;

    /// The state of a key that has none yet.
    fn initial(&self) -> Self::State;

    /// Declares further states and keeps their handles in `self`. Called for each subtask before anything else, and once
    /// when the stream is written, so that wrong names are an error of the graph.
    ///
    /// # Errors
    ///
    /// Those of [`States`], to be passed on. One that comes up when the stream is written is that of
    /// [`Job::build`](crate::Job::build).
    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        let _ = states;
        Ok(())
    }

    /// Takes a record.
    ///
    /// # Errors
    ///
    /// An error fails the attempt, and the restart strategy decides; see [`NonRecoverable`](crate::NonRecoverable).
    fn process(&mut self, cx: &mut ProcessContext<'_, K, Self::State, Self::Out>, record: T) -> Result<(), UserError>;

    /// A timer of the key fires: the watermark has passed `time`.
    ///
    /// # Errors
    ///
    /// As for [`Self::process`].
    fn on_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, Self::State, Self::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        let _ = (cx, time);
        Ok(())
    }

    /// A processing-time timer of the key fires: the wall clock has reached `time`.
    ///
    /// # Errors
    ///
    /// As for [`Self::process`].
    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, Self::State, Self::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        let _ = (cx, time);
        Ok(())
    }
}

/// What a [`KeyedProcess`] works with: the state and timers of the key at hand, and what it emits.
pub struct ProcessContext<'a, K: Key, S: Data, O> {
    key: &'a K,
    hash: KeyHash,
    time: Timestamp,
    watermark: Timestamp,
    table: &'a mut Table<K, S>,
    timers: &'a mut Timers<K>,
    named: &'a mut Named<K>,
    initial: &'a dyn Fn() -> S,
    out: &'a mut Vec<(Timestamp, O)>,
    sides: &'a mut Sides,
    operator: &'a OperatorStore,
}

impl<'a, K: Key, S: Data, O> ProcessContext<'a, K, S, O> {
    /// A broadcast state of a [`KeyedBroadcastProcess`](crate::KeyedBroadcastProcess), to be read: only records of the
    /// broadcast stream, which all subtasks see, may change it. Source: Flink's `ReadOnlyBroadcastState`.
    ///
    /// # Errors
    ///
    /// [`StatesError::Undeclared`] if this operator did not declare it.
    pub fn broadcast_state<U: Ord + 'static, V: 'static>(
        &self,
        state: BroadcastState<U, V>,
    ) -> Result<&'a BTreeMap<U, V>, StatesError> {
        self.operator.get(state)
    }
}

impl<K: Key, S: Data, O> ProcessContext<'_, K, S, O> {
    /// The key of the record or timer.
    #[must_use]
    pub fn key(&self) -> &K {
        self.key
    }

    /// The event time of the record, if it has one; of a timer, the time it was set for.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        (self.time != Timestamp::MIN).then_some(self.time)
    }

    /// No record at or before this time is expected any more; [`Timestamp::MIN`] before the first watermark.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The state of the key, to be changed; its initial value if there was none. During a snapshot the old value is
    /// noted first, so use [`Self::peek`] where reading is enough.
    ///
    /// # Errors
    ///
    /// If the old value can't be encoded for a running snapshot, or the state can't be read.
    #[inline]
    pub fn state(&mut self) -> Result<&mut S, StateError> {
        self.table.get_or_insert_with(self.hash, self.key, self.initial)
    }

    /// The state of the key, to be read; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// If the state can't be read.
    pub fn peek(&self) -> Result<Option<&S>, StateError> {
        Ok(self.table.get(self.hash, self.key))
    }

    /// Forgets the state of the key.
    ///
    /// # Errors
    ///
    /// As for [`Self::state`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.table.remove(self.hash, self.key)?;
        Ok(())
    }

    /// Emits a record with the time of the one at hand.
    #[inline]
    pub fn emit(&mut self, record: O) {
        self.out.push((self.time, record));
    }

    /// Emits a record that happened at `time`.
    pub fn emit_at(&mut self, time: Timestamp, record: O) {
        self.out.push((time, record));
    }

    /// Emits a record to a side output, with the time of the one at hand; see
    /// [`Stream::side_output`](crate::Stream::side_output).
    ///
    /// # Errors
    ///
    /// If the stream was taken with a tag of the same name and another type.
    pub fn emit_to<T: Send + 'static>(&mut self, tag: &OutputTag<T>, record: T) -> Result<(), OutputTagMismatch> {
        self.sides.emit(tag, self.time, record)
    }

    /// As [`Self::emit_to`], for a record that happened at `time`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn emit_to_at<T: Send + 'static>(
        &mut self,
        tag: &OutputTag<T>,
        time: Timestamp,
        record: T,
    ) -> Result<(), OutputTagMismatch> {
        self.sides.emit(tag, time, record)
    }

    /// Asks for [`KeyedProcess::on_timer`] once the watermark has reached `time`; at once with the next watermark if
    /// it has already. A second timer of the same key and time changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`Self::state`].
    pub fn register_timer(&mut self, time: Timestamp) -> Result<(), StateError> {
        self.timers.register(self.hash, self.key, time)?;
        Ok(())
    }

    /// Takes a timer back. Nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Self::state`].
    pub fn delete_timer(&mut self, time: Timestamp) -> Result<(), StateError> {
        self.timers.delete(self.hash, self.key, time)?;
        Ok(())
    }

    /// The processing time: the wall clock in milliseconds since 1970-01-01 UTC, as of the batch at hand. It does not go
    /// back within an attempt. Whatever depends on it differs from run to run, and after a failure too.
    #[must_use]
    pub fn processing_time(&self) -> Timestamp {
        self.named.wall
    }

    /// Asks for [`KeyedProcess::on_processing_timer`] once the wall clock has reached `time`, in milliseconds since
    /// 1970-01-01 UTC; soon if it has already. A second timer of the same key and time changes nothing. Timers are part of
    /// checkpoints: those that came due while the job was down fire at once when it is back. Those that are not due when
    /// all input has ended do not fire, as in Flink.
    ///
    /// # Errors
    ///
    /// As for [`Self::state`].
    pub fn register_processing_timer(&mut self, time: Timestamp) -> Result<(), StateError> {
        self.named.processing.register(self.hash, self.key, time)?;
        Ok(())
    }

    /// Takes a processing-time timer back. Nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Self::state`].
    pub fn delete_processing_timer(&mut self, time: Timestamp) -> Result<(), StateError> {
        self.named.processing.delete(self.hash, self.key, time)?;
        Ok(())
    }

    /// The value of the key in a state that was declared by [`States::value`].
    ///
    /// # Errors
    ///
    /// [`StatesError::Undeclared`] if this operator did not declare it.
    pub fn value<V: Data>(&mut self, state: ValueState<V>) -> Result<ValueAccess<'_, K, V>, StatesError> {
        self.named.value(state, At { hash: self.hash, key: self.key }, self.time)
    }

    /// The list of the key in a state that was declared by [`States::list`].
    ///
    /// # Errors
    ///
    /// As for [`Self::value`].
    pub fn list<T: Data>(&mut self, state: ListState<T>) -> Result<ListAccess<'_, K, T>, StatesError> {
        self.named.list(state, At { hash: self.hash, key: self.key }, self.time)
    }

    /// The map of the key in a state that was declared by [`States::map`].
    ///
    /// # Errors
    ///
    /// As for [`Self::value`].
    pub fn map<U: Key, V: Data>(&mut self, state: MapState<U, V>) -> Result<MapAccess<'_, K, U, V>, StatesError> {
        self.named.map(state, At { hash: self.hash, key: self.key }, self.time)
    }

    /// The reduced value of the key in a state that was declared by [`States::reducing`].
    ///
    /// # Errors
    ///
    /// As for [`Self::value`].
    pub fn reducing<V: Data>(&mut self, state: ReducingState<V>) -> Result<ReducingAccess<'_, K, V>, StatesError> {
        self.named.reducing(state, At { hash: self.hash, key: self.key }, self.time)
    }

    /// The accumulator of the key in a state that was declared by [`States::aggregating`].
    ///
    /// # Errors
    ///
    /// As for [`Self::value`].
    pub fn aggregating<T: 'static, A: Aggregate<T>>(
        &mut self,
        state: AggregatingState<T, A>,
    ) -> Result<AggregatingAccess<'_, K, T, A>, StatesError> {
        self.named.aggregating(state, At { hash: self.hash, key: self.key }, self.time)
    }
}

/// `process` with closures.
pub struct FnProcess<F, G, I, S, O> {
    pub(crate) process: F,
    pub(crate) on_timer: G,
    pub(crate) initial: I,
    pub(crate) types: std::marker::PhantomData<fn() -> (S, O)>,
}

impl<F: Clone, G: Clone, I: Clone, S, O> Clone for FnProcess<F, G, I, S, O> {
    fn clone(&self) -> Self {
        Self {
            process: self.process.clone(),
            on_timer: self.on_timer.clone(),
            initial: self.initial.clone(),
            types: std::marker::PhantomData,
        }
    }
}

impl<K, T, S, O, F, G, I> KeyedProcess<K, T> for FnProcess<F, G, I, S, O>
where
    K: Key,
    S: Data,
    O: Send + 'static,
    F: Fn(&mut ProcessContext<'_, K, S, O>, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    G: Fn(&mut ProcessContext<'_, K, S, O>, Timestamp) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    I: Fn() -> S + Clone + Send + Sync + 'static,
{
    type State = S;
    type Out = O;

    fn initial(&self) -> S {
        (self.initial)()
    }

    #[inline]
    fn process(&mut self, cx: &mut ProcessContext<'_, K, S, O>, record: T) -> Result<(), UserError> {
        (self.process)(cx, record)
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, K, S, O>, time: Timestamp) -> Result<(), UserError> {
        (self.on_timer)(cx, time)
    }
}

/// `fold` as an operator: emits the key with the new value at each record.
pub struct Fold<F, A> {
    pub(crate) initial: A,
    pub(crate) f: F,
}

impl<F: Clone, A: Clone> Clone for Fold<F, A> {
    fn clone(&self) -> Self {
        Self { initial: self.initial.clone(), f: self.f.clone() }
    }
}

impl<K, T, F, A> KeyedProcess<K, T> for Fold<F, A>
where
    K: Key,
    A: Data + Clone + Sync,
    F: Fn(&mut A, T) + Clone + Send + Sync + 'static,
{
    type State = A;
    type Out = (K, A);

    fn initial(&self) -> A {
        self.initial.clone()
    }

    #[inline]
    fn process(&mut self, cx: &mut ProcessContext<'_, K, A, (K, A)>, record: T) -> Result<(), UserError> {
        let state = cx.state()?;
        (self.f)(state, record);
        let value = state.clone();
        let key = cx.key().clone();
        cx.emit((key, value));
        Ok(())
    }
}

/// A keyed operator as the head of a task.
pub struct KeyedHead<K, T, P> {
    pub(crate) uid: OperatorUid,
    pub(crate) process: P,
    pub(crate) name: &'static str,
    pub(crate) sides: MakeSides,
    pub(crate) types: std::marker::PhantomData<fn() -> (K, T)>,
}

impl<K, T, P: Clone> Clone for KeyedHead<K, T, P> {
    fn clone(&self) -> Self {
        let Self { uid, process, name, sides, .. } = self;
        let (uid, process, sides) = (uid.clone(), process.clone(), sides.clone());
        Self { uid, process, name, sides, types: std::marker::PhantomData }
    }
}

impl<K: Key, T: Data, P: KeyedProcess<K, T>> SideOutputs for KeyedHead<K, T, P> {
    fn sides(&self) -> &MakeSides {
        &self.sides
    }
}

impl<K, T, P> Head for KeyedHead<K, T, P>
where
    K: Key,
    T: Data,
    P: KeyedProcess<K, T>,
{
    type Out = P::Out;
    type Built = Box<dyn Chain>;

    fn build<N: Stage<P::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {
        Ok(Box::new(self.chain(next, context)?))
    }

    fn place(&self, build: Build<Box<dyn Chain>>) -> Option<BuildChain> {
        Some(build)
    }
}

impl<K, T, P> KeyedHead<K, T, P>
where
    K: Key,
    T: Data,
    P: KeyedProcess<K, T>,
{
    pub(crate) fn chain<N: Stage<P::Out>>(
        &self,
        next: N,
        context: &BuildContext<'_>,
    ) -> Result<KeyedChain<K, T, P, N>, UserError> {
        let groups = context.max_parallelism.range_of(context.subtask.index, context.parallelism);
        let mut named = Named::new(self.uid.clone(), context.max_parallelism, groups);
        named.event = context.watermark;
        let mut process = self.process.clone();
        process.open(&mut named.states())?;
        let mut table = Table::new(named.spec("value"));
        let mut timers = Timers::new(named.spec("timers"));
        if let Some(attached) = context.tier {
            table.attach(Arc::clone(&attached.tier), attached.overlay_bytes)?;
            timers.attach(Arc::clone(&attached.tier), attached.overlay_bytes)?;
            named.attach(attached)?;
        }
        Ok(KeyedChain {
            maker: process.clone(),
            process,
            table,
            timers,
            named,
            watermark: context.watermark,
            out: Vec::new(),
            sides: self.sides.build(context)?,
            together: BATCH_RECORDS,
            operator: OperatorStore::of(context),
            next,
            types: std::marker::PhantomData::<fn(T)>,
        })
    }
}

impl<K, T, P> TaskHead for KeyedHead<K, T, P>
where
    K: Key,
    T: Data,
    P: KeyedProcess<K, T>,
{
    fn operator(&self) -> OperatorSpec {
        OperatorSpec { kind: OperatorKind::Keyed, name: self.name, uid: Some(self.uid.clone()) }
    }

    fn parallelism_limit(&self) -> u32 {
        u32::MAX
    }
}

/// What is wrong with the states that the operator declares.
pub(crate) fn check_states<K: Key, T, P: KeyedProcess<K, T>>(uid: &OperatorUid, process: &P) -> Option<GraphError> {
    let mut named = Named::<K>::draft(uid.clone());
    let error = process.clone().open(&mut named.states()).err()?;
    Some(GraphError::of_open(uid, error))
}

/// By which clock timers fire.
#[derive(Clone, Copy)]
enum Fires {
    Event,
    Processing,
}

/// What the keys of so many timers have is fetched together.
const FIRED_TOGETHER: usize = 256;

/// Tiers are asked for about so many keys before the subtask looks at anything else: a key on the disk takes some ten
/// microseconds, and barriers, timers and the sweep of a snapshot wait for that.
const ASKED_TOGETHER: usize = 128;

pub(crate) struct KeyedChain<K: Key, T, P: KeyedProcess<K, T>, N> {
    pub(crate) process: P,
    /// A second clone, which makes initial values while the first one is borrowed.
    maker: P,
    table: Table<K, P::State>,
    timers: Timers<K>,
    pub(crate) named: Named<K>,
    watermark: Timestamp,
    out: Vec<(Timestamp, P::Out)>,
    sides: Sides,
    /// So many records are processed before the subtask looks at anything else.
    together: usize,
    /// What a broadcast stream has made.
    pub(crate) operator: OperatorStore,
    next: N,
    types: std::marker::PhantomData<fn(T)>,
}

impl<K, T, P, N> KeyedChain<K, T, P, N>
where
    K: Key,
    T: Data,
    P: KeyedProcess<K, T>,
    N: Stage<P::Out>,
{
    /// Calls user code with a context for the key, then pushes on what it emitted.
    #[inline]
    fn call(
        &mut self,
        exec: &mut Exec,
        hash: KeyHash,
        key: &K,
        time: Timestamp,
        user: impl FnOnce(&mut P, &mut ProcessContext<'_, K, P::State, P::Out>) -> Result<(), UserError>,
    ) -> Result<(), UserError> {
        exec.running = 0;
        let maker = &self.maker;
        let initial = || maker.initial();
        let mut cx = ProcessContext {
            key,
            hash,
            time,
            watermark: self.watermark,
            table: &mut self.table,
            timers: &mut self.timers,
            named: &mut self.named,
            initial: &initial,
            out: &mut self.out,
            sides: &mut self.sides,
            operator: &self.operator,
        };
        user(&mut self.process, &mut cx)?;
        self.send(exec)
    }

    /// Before user code runs for these keys. Returns how many of them tiers were asked for.
    #[inline]
    fn fetch<'k>(&mut self, keys: impl Iterator<Item = (KeyHash, &'k K)> + Clone) -> Result<usize, StateError> {
        Ok(self.table.fetch(keys.clone())? + self.named.fetch(keys)?)
    }

    fn relieve(&mut self) -> Result<(), StateError> {
        self.table.relieve()?;
        self.timers.relieve()?;
        self.named.relieve()
    }

    /// Fires at most so many timers that are due; false if that was not all of them, as far as is known.
    fn fire(&mut self, exec: &mut Exec, fires: Fires, limit: usize) -> Result<bool, UserError> {
        let mut left = limit;
        while left > 0 {
            let (timers, now) = match fires {
                Fires::Event => (&mut self.timers, self.watermark),
                Fires::Processing => (&mut self.named.processing, exec.wall),
            };
            let due = timers.due(now, left.min(FIRED_TOGETHER))?;
            if due.is_empty() {
                return Ok(true);
            }
            self.fetch(due.keys())?;
            while left > 0 {
                let timers = match fires {
                    Fires::Event => &mut self.timers,
                    Fires::Processing => &mut self.named.processing,
                };
                let Some((time, hash, key)) = timers.pop_of(&due)? else { break };
                left -= 1;
                exec.enter(None, false, 0); // a timer belongs to no record
                match fires {
                    Fires::Event => {
                        self.named.event = self.named.event.max(time);
                        self.call(exec, hash, &key, time, |process, cx| process.on_timer(cx, time))?;
                    }
                    // What a timer of the wall clock emits has no event time, unless it is given one.
                    Fires::Processing => {
                        self.call(exec, hash, &key, Timestamp::MIN, |process, cx| {
                            process.on_processing_timer(cx, time)
                        })?;
                    }
                }
                if exec.outbox.is_blocked() {
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// Calls user code for a record of a broadcast stream, then pushes on what it emitted.
    pub(crate) fn call_broadcast(
        &mut self,
        exec: &mut Exec,
        time: Timestamp,
        user: impl FnOnce(&mut P, &mut RecordContext<'_, P::Out>) -> Result<(), UserError>,
    ) -> Result<(), UserError> {
        exec.running = 0;
        let (out, sides, states) = (&mut self.out, &mut self.sides, &mut self.operator);
        user(&mut self.process, &mut RecordContext { time, out, sides, states })?;
        self.send(exec)
    }

    #[inline]
    fn send(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        self.sides.drain(exec)?;
        // One out of one in is what most operators do, and a drain costs as much as the rest of this call.
        if self.out.len() == 1
            && let Some((time, record)) = self.out.pop()
        {
            return self.next.push(exec, time, record);
        }
        for (time, record) in self.out.drain(..) {
            self.next.push(exec, time, record)?;
        }
        exec.uneven += 1;
        Ok(())
    }

    /// Processes records of a batch, each made into what the operator takes.
    #[inline]
    pub(crate) fn process_batch<R: Send + 'static>(
        &mut self,
        exec: &mut Exec,
        batch: Box<dyn AnyBatch>,
        make: impl Fn(R) -> T,
    ) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        let mut batch = KeyedBatch::<K, R>::enter(exec, batch)?;
        self.named.wall = exec.wall;
        let records = batch.records.as_slice();
        let records = &records[..records.len().min(self.together)];
        self.table.prefetch(records.iter().map(|record| record.hash));
        let keys = records.iter().map(|record| (record.hash, &record.key));
        let mut left = records.len();
        let asked = self.fetch(keys)?;
        // As many as ask for about so many keys, if the next ones are as these.
        self.together = (left * ASKED_TOGETHER / asked.max(1)).clamp(ASKED_TOGETHER, BATCH_RECORDS);
        while let Some(Keyed { hash, key, record }) = batch.records.next() {
            let at = batch.next;
            batch.next += 1;
            exec.begun += 1;
            exec.records += 1;
            let time = batch.times.get(at).copied().unwrap_or(Timestamp::MIN);
            self.call(exec, hash, &key, time, |process, cx| process.process(cx, make(record)))?;
            left -= 1;
            if batch.records.len() > 0 {
                if exec.outbox.is_blocked() {
                    self.relieve()?;
                    return Ok(Some(batch));
                }
                if left == 0 {
                    return Ok(Some(batch)); // relieved at its end, as without pieces
                }
            }
        }
        self.relieve()?;
        self.named.clean()?;
        Ok(None)
    }
}

impl<K, T, P, N> Chain for KeyedChain<K, T, P, N>
where
    K: Key,
    T: Data,
    P: KeyedProcess<K, T>,
    N: Stage<P::Out>,
{
    fn read(&mut self, _: &mut Exec, _: usize) -> Result<SourcePoll, UserError> {
        Err("this chain does not begin with a source".into())
    }

    fn process(&mut self, exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        self.process_batch(exec, batch, |record: T| record)
    }

    fn advance(&mut self, exec: &mut Exec, watermark: Timestamp, limit: usize) -> Result<bool, UserError> {
        self.watermark = watermark;
        self.named.wall = exec.wall;
        let all = self.fire(exec, Fires::Event, limit)?;
        self.relieve()?;
        if all {
            self.named.event = watermark;
            self.named.clean()?;
            self.next.watermark(exec, watermark)?;
            self.sides.watermark(exec, watermark)?;
        }
        Ok(all)
    }

    fn processing_due(&self) -> Option<Timestamp> {
        self.named.processing.next_due()
    }

    fn advance_processing(&mut self, exec: &mut Exec, limit: usize) -> Result<bool, UserError> {
        self.named.wall = exec.wall;
        let all = self.fire(exec, Fires::Processing, limit)?;
        self.relieve()?;
        Ok(all)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.next.flush(exec);
        self.sides.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.named.wall = exec.wall;
        self.named.set_horizons();
        exec.running = 0;
        self.operator.snapshot(out)?;
        self.next.snapshot(exec, checkpoint, out)?;
        self.sides.snapshot(exec, checkpoint, out)
    }

    fn states(&mut self) -> Vec<&mut dyn Snapshotable> {
        let own: [&mut dyn Snapshotable; 2] = [&mut self.table, &mut self.timers];
        own.into_iter().chain(self.named.all()).collect()
    }
}
