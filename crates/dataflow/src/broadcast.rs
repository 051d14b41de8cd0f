//! The broadcast state pattern: a keyed stream beside one that all subtasks see, and what that one has made.

mod chain;
mod closures;

use std::marker::PhantomData;

use cutwater_core::{EdgeId, OperatorUid, Timestamp};
use cutwater_state::{Data, Key};

pub use self::chain::BroadcastHead;
use self::closures::FnBroadcast;
use crate::UserError;
use crate::each::RecordContext;
use crate::job::Job;
use crate::process::ProcessContext;
use crate::side::SideOutputs;
use crate::stage::{Compose, Identity};
use crate::states::{OperatorStates, States, StatesError};
use crate::stream::{Head, KeyedStream, Stream};

/// An operator over a keyed stream and a broadcast one. All records of the broadcast stream come to all subtasks, where they
/// change broadcast states; the keyed records read those beside the state of their key. Flink calls it a keyed broadcast
/// process function.
///
/// - All subtasks must make the same of a broadcast record: its place among the keyed ones differs from subtask to subtask,
///   and so does the order of broadcast records that come from several subtasks of a source.
/// - The watermark is the lowest of both inputs; an input that has ended holds nothing back.
/// - What [`Self::process_broadcast`] emits, each subtask emits.
///
/// For the rest see [`KeyedProcess`](crate::KeyedProcess).
///
/// ```
/// use cutwater_dataflow::testing::BroadcastTestHarness;
/// use cutwater_dataflow::{
///     BroadcastState, KeyedBroadcastProcess, OperatorStates, ProcessContext, RecordContext, UserError,
/// };
///
/// /// Tells the amounts above the limit of their currency, and counts them by account.
/// #[derive(Clone, Default)]
/// struct Alerts {
///     limits: BroadcastState<String, u64>,
/// }
///
/// type Payment = (String, u64);
///
/// impl KeyedBroadcastProcess<u32, Payment, (String, u64)> for Alerts {
///     type State = u32;
///     type Out = (u32, Payment);
///
///     fn initial(&self) -> u32 { 0 }
///
///     fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
///         self.limits = states.broadcast("limits")?;
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         cx: &mut ProcessContext<'_, u32, u32, (u32, Payment)>,
///         (currency, amount): Payment,
///     ) -> Result<(), UserError> {
///         if cx.broadcast_state(self.limits)?.get(&currency).is_some_and(|limit| amount > *limit) {
///             *cx.state()? += 1;
///             let key = *cx.key();
///             cx.emit((key, (currency, amount)));
///         }
///         Ok(())
///     }
///
///     fn process_broadcast(
///         &mut self,
///         cx: &mut RecordContext<'_, (u32, Payment)>,
///         (currency, limit): (String, u64),
///     ) -> Result<(), UserError> {
///         cx.operator_state(self.limits)?.insert(currency, limit);
///         Ok(())
///     }
/// }
///
/// let mut harness = BroadcastTestHarness::new(Alerts::default(), 3)?;
/// harness.broadcast(("EUR".to_owned(), 100))?;
/// let snapshot = harness.snapshot()?;
/// let mut harness = BroadcastTestHarness::restore(Alerts::default(), 5, &snapshot)?;
/// for account in 0..20 {
///     harness.push(account, ("EUR".to_owned(), 99 + u64::from(account % 2) * 2))?;
/// }
/// assert_eq!(harness.take().len(), 10);
/// # Ok::<(), UserError>(())
/// ```
pub trait KeyedBroadcastProcess<K: Key, A, B>: Clone + Send + Sync + 'static {
    /// What is kept per key.
    type State: Data;
    /// What it emits.
    type Out: Send + 'static;

    /// The state of a key that has none yet.
    fn initial(&self) -> Self::State;

    /// Declares further states by key, as [`KeyedProcess::open`](crate::KeyedProcess::open).
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::open`](crate::KeyedProcess::open).
    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        let _ = states;
        Ok(())
    }

    /// Declares the broadcast states, after [`Self::open`]; other operator states too.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::open`](crate::KeyedProcess::open).
    fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError>;

    /// Takes a record of the keyed stream. It reads broadcast states by [`ProcessContext::broadcast_state`].
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`](crate::KeyedProcess::process).
    fn process(&mut self, cx: &mut ProcessContext<'_, K, Self::State, Self::Out>, record: A) -> Result<(), UserError>;

    /// Takes a record of the broadcast stream. It changes broadcast states by [`RecordContext::operator_state`], and has no
    /// key.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`](crate::KeyedProcess::process).
    fn process_broadcast(&mut self, cx: &mut RecordContext<'_, Self::Out>, record: B) -> Result<(), UserError>;

    /// A timer of the key fires: the watermark of both inputs has passed `time`.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`](crate::KeyedProcess::process).
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
    /// As for [`KeyedProcess::process`](crate::KeyedProcess::process).
    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, Self::State, Self::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        let _ = (cx, time);
        Ok(())
    }
}

/// A keyed stream beside a broadcast one: [`KeyedStream::connect_broadcast`].
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct BroadcastConnectedStreams<'j, K, A, B> {
    job: &'j Job,
    edges: Vec<(EdgeId, u8)>,
    types: PhantomData<(K, A, B)>,
}

impl<'j, K: Key, A: Data> KeyedStream<'j, K, A> {
    /// Joins this stream with one of which each record goes to all subtasks, such as rules or rates that the keyed records are
    /// judged by.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, OperatorStates, ProcessContext, RecordContext, from_iter, discard};
    /// # let job = Job::new("doc");
    /// let rates = job.source("rates", from_iter([(7u64, 3u64)]));
    /// job.source("amounts", from_iter(0u64..100))
    ///     .key_by(|n| n % 10)
    ///     .connect_broadcast(rates)
    ///     .process(
    ///         "times",
    ///         |states: &mut OperatorStates<'_>| states.broadcast::<u64, u64>("rates"),
    ///         |cx: &mut ProcessContext<'_, u64, u64, u64>, rates, n| {
    ///             let rate = cx.broadcast_state(*rates)?.get(cx.key()).copied().unwrap_or(1);
    ///             *cx.state()? += n * rate;
    ///             let sum = *cx.state()?;
    ///             cx.emit(sum);
    ///             Ok(())
    ///         },
    ///         |cx: &mut RecordContext<'_, u64>, rates, (key, rate)| {
    ///             cx.operator_state(*rates)?.insert(key, rate);
    ///             Ok(())
    ///         },
    ///     )
    ///     .sink("out", discard());
    /// # assert!(job.build().is_ok());
    /// ```
    pub fn connect_broadcast<H: Head, C: Compose<H::Out>>(
        self,
        broadcast: Stream<'j, H, C>,
    ) -> BroadcastConnectedStreams<'j, K, A, C::Out>
    where
        C::Out: Data + Clone,
    {
        let (job, keyed) = self.into_edges();
        let (other, ..) = broadcast.place();
        job.same_as(other, "connect_broadcast");
        let keyed = keyed.into_iter().map(|edge| (edge, 0));
        let edges = keyed.chain([(broadcast.broadcast_edge(), 1)]).collect();
        BroadcastConnectedStreams { job, edges, types: PhantomData }
    }
}

impl<'j, K: Key, A: Data, B: Data> BroadcastConnectedStreams<'j, K, A, B> {
    /// Processes the records of both streams with a value of state per key and the operator states that `declare` makes.
    pub fn process<D, H, F, G, S, O>(
        self,
        uid: &str,
        declare: D,
        process: F,
        process_broadcast: G,
    ) -> Stream<'j, impl SideOutputs<Out = O> + use<D, H, F, G, S, O, K, A, B>, Identity<O>>
    where
        S: Data + Default,
        H: Clone + Send + Sync + 'static,
        O: Send + 'static,
        D: Fn(&mut OperatorStates<'_>) -> Result<H, StatesError> + Clone + Send + Sync + 'static,
        F: Fn(&mut ProcessContext<'_, K, S, O>, &H, A) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        G: Fn(&mut RecordContext<'_, O>, &H, B) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.process_with(uid, FnBroadcast::new(declare, process, process_broadcast))
    }

    /// Processes the records of both streams with an operator of your own.
    pub fn process_with<P: KeyedBroadcastProcess<K, A, B>>(
        self,
        uid: &str,
        process: P,
    ) -> Stream<'j, BroadcastHead<K, A, B, P>, Identity<P::Out>> {
        let Self { job, edges, .. } = self;
        let uid: OperatorUid = job.draft().take_uid(uid, "connect_broadcast");
        let head = BroadcastHead::new(uid, process);
        let wrong = head.check();
        job.draft().errors.extend(wrong);
        Stream::begin(job, head, &edges)
    }
}
