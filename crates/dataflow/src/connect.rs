//! Two keyed streams of different types into one operator, with state that both share.

use std::marker::PhantomData;

use cutwater_core::{CheckpointId, EdgeId, OperatorUid, Timestamp};
use cutwater_state::{Data, Key, Snapshotable};
use serde::{Deserialize, Serialize};

use crate::UserError;
use crate::exec::{AnyBatch, BuildContext, Chain, ChainSnapshot, Exec, SourcePoll};
use crate::graph::BuildChain;
use crate::job::Job;
use crate::process::{KeyedChain, KeyedHead, KeyedProcess, ProcessContext, check_states};
use crate::side::{MakeSides, SideOutputs};
use crate::stage::{Identity, Stage};
use crate::states::States;
use crate::stream::{Build, Head, KeyedStream, OperatorSpec, Stream, TaskHead};

/// An operator over two streams that are keyed alike: both reach the same state and timers of their key. Flink calls it
/// a keyed co-process function.
///
/// Records of the two inputs come in no order that could be relied upon: what must wait for the other input is kept in
/// the state. The watermark is the lowest of both inputs; an input that has ended holds nothing back. For the rest see
/// [`KeyedProcess`].
pub trait KeyedProcess2<K: Key, A, B>: Clone + Send + Sync + 'static {
    /// What is kept per key.
    type State: Data;
    /// What it emits.
    type Out: Send + 'static;

    /// The state of a key that has none yet.
    fn initial(&self) -> Self::State;

    /// Declares further states, as [`KeyedProcess::open`].
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::open`].
    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        let _ = states;
        Ok(())
    }

    /// Takes a record of the first input.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`].
    fn process1(&mut self, cx: &mut ProcessContext<'_, K, Self::State, Self::Out>, record: A) -> Result<(), UserError>;

    /// Takes a record of the second input.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`].
    fn process2(&mut self, cx: &mut ProcessContext<'_, K, Self::State, Self::Out>, record: B) -> Result<(), UserError>;

    /// A timer of the key fires: the watermark of both inputs has passed `time`.
    ///
    /// # Errors
    ///
    /// As for [`KeyedProcess::process`].
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
    /// As for [`KeyedProcess::process`].
    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, Self::State, Self::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        let _ = (cx, time);
        Ok(())
    }
}

/// Two keyed streams with the same key type: [`KeyedStream::connect`].
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct ConnectedStreams<'j, K, A, B> {
    job: &'j Job,
    edges: Vec<(EdgeId, u8)>,
    types: PhantomData<(K, A, B)>,
}

impl<'j, K: Key, A: Data> KeyedStream<'j, K, A> {
    /// Joins this stream with another one that has keys of the same type, for an operator with two inputs.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, ProcessContext, from_iter, discard};
    /// # let job = Job::new("doc");
    /// let orders = job.source("orders", from_iter([(1u64, "book"), (2, "lamp")]));
    /// let payments = job.source("payments", from_iter([1u64]));
    /// type Context<'a, 'b> = &'a mut ProcessContext<'b, u64, (Option<String>, bool), (u64, String)>;
    /// fn settle(cx: Context<'_, '_>) -> Result<(), cutwater_dataflow::UserError> {
    ///     if let Some((Some(order), true)) = cx.peek()?.cloned() {
    ///         cx.clear()?;
    ///         cx.emit((*cx.key(), order));
    ///     }
    ///     Ok(())
    /// }
    /// orders
    ///     .map(|(id, what)| (id, what.to_owned()))
    ///     .key_by(|(id, _)| *id)
    ///     .connect(payments.key_by(|id| *id))
    ///     .process(
    ///         "paid",
    ///         |cx: Context<'_, '_>, (_, what)| {
    ///             cx.state()?.0 = Some(what);
    ///             settle(cx)
    ///         },
    ///         |cx: Context<'_, '_>, _| {
    ///             cx.state()?.1 = true;
    ///             settle(cx)
    ///         },
    ///     )
    ///     .sink("out", discard());
    /// ```
    pub fn connect<B: Data>(self, other: KeyedStream<'j, K, B>) -> ConnectedStreams<'j, K, A, B> {
        let (job, first) = self.into_edges();
        let (other, second) = other.into_edges();
        job.same_as(other, "connect");
        let first = first.into_iter().map(|edge| (edge, 0));
        let edges = first.chain(second.into_iter().map(|edge| (edge, 1))).collect();
        ConnectedStreams { job, edges, types: PhantomData }
    }
}

impl<'j, K: Key, A: Data, B: Data> ConnectedStreams<'j, K, A, B> {
    /// Processes the records of both inputs with a value of state per key; see [`KeyedStream::process`].
    pub fn process<F, G, S, O>(
        self,
        uid: &str,
        process1: F,
        process2: G,
    ) -> Stream<'j, impl SideOutputs<Out = O> + use<F, G, S, O, K, A, B>, Identity<O>>
    where
        S: Data + Default,
        O: Send + 'static,
        F: Fn(&mut ProcessContext<'_, K, S, O>, A) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        G: Fn(&mut ProcessContext<'_, K, S, O>, B) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.process_with_timers(uid, process1, process2, |_: &mut ProcessContext<'_, K, S, O>, _| Ok(()))
    }

    /// As [`Self::process`], with `on_timer` for the timers that the three closures register.
    pub fn process_with_timers<F, G, H, S, O>(
        self,
        uid: &str,
        process1: F,
        process2: G,
        on_timer: H,
    ) -> Stream<'j, impl SideOutputs<Out = O> + use<F, G, H, S, O, K, A, B>, Identity<O>>
    where
        S: Data + Default,
        O: Send + 'static,
        F: Fn(&mut ProcessContext<'_, K, S, O>, A) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        G: Fn(&mut ProcessContext<'_, K, S, O>, B) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        H: Fn(&mut ProcessContext<'_, K, S, O>, Timestamp) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.process_with(uid, FnProcess2 { process1, process2, on_timer, types: PhantomData })
    }

    /// Processes the records of both inputs with an operator of your own.
    pub fn process_with<P: KeyedProcess2<K, A, B>>(
        self,
        uid: &str,
        process: P,
    ) -> Stream<'j, ConnectHead<K, A, B, P>, Identity<P::Out>> {
        let Self { job, edges, .. } = self;
        let uid: OperatorUid = job.draft().take_uid(uid, "connect");
        let process = Either2 { process };
        let wrong = check_states::<K, Either<A, B>, Either2<P>>(&uid, &process);
        job.draft().errors.extend(wrong);
        let keyed = KeyedHead { uid, process, name: "connect", sides: MakeSides::default(), types: PhantomData };
        Stream::begin(job, ConnectHead { keyed }, &edges)
    }
}

/// `process` with two closures for the records.
struct FnProcess2<F, G, H, S, O> {
    process1: F,
    process2: G,
    on_timer: H,
    types: PhantomData<fn() -> (S, O)>,
}

impl<F: Clone, G: Clone, H: Clone, S, O> Clone for FnProcess2<F, G, H, S, O> {
    fn clone(&self) -> Self {
        let Self { process1, process2, on_timer, .. } = self;
        let (process1, process2, on_timer) = (process1.clone(), process2.clone(), on_timer.clone());
        Self { process1, process2, on_timer, types: PhantomData }
    }
}

impl<K, A, B, S, O, F, G, H> KeyedProcess2<K, A, B> for FnProcess2<F, G, H, S, O>
where
    K: Key,
    S: Data + Default,
    O: Send + 'static,
    F: Fn(&mut ProcessContext<'_, K, S, O>, A) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    G: Fn(&mut ProcessContext<'_, K, S, O>, B) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    H: Fn(&mut ProcessContext<'_, K, S, O>, Timestamp) -> Result<(), UserError> + Clone + Send + Sync + 'static,
{
    type State = S;
    type Out = O;

    fn initial(&self) -> S {
        S::default()
    }

    fn process1(&mut self, cx: &mut ProcessContext<'_, K, S, O>, record: A) -> Result<(), UserError> {
        (self.process1)(cx, record)
    }

    fn process2(&mut self, cx: &mut ProcessContext<'_, K, S, O>, record: B) -> Result<(), UserError> {
        (self.process2)(cx, record)
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, K, S, O>, time: Timestamp) -> Result<(), UserError> {
        (self.on_timer)(cx, time)
    }
}

/// A record of either input.
#[derive(Serialize, Deserialize)]
enum Either<A, B> {
    First(A),
    Second(B),
}

/// An operator with two inputs as one with one.
#[derive(Clone)]
struct Either2<P> {
    process: P,
}

impl<K, A, B, P> KeyedProcess<K, Either<A, B>> for Either2<P>
where
    K: Key,
    P: KeyedProcess2<K, A, B>,
{
    type State = P::State;
    type Out = P::Out;

    fn initial(&self) -> P::State {
        self.process.initial()
    }

    #[inline]
    fn process(
        &mut self,
        cx: &mut ProcessContext<'_, K, P::State, P::Out>,
        record: Either<A, B>,
    ) -> Result<(), UserError> {
        match record {
            Either::First(record) => self.process.process1(cx, record),
            Either::Second(record) => self.process.process2(cx, record),
        }
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, K, P::State, P::Out>, time: Timestamp) -> Result<(), UserError> {
        self.process.on_timer(cx, time)
    }

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        self.process.open(states)
    }

    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, P::State, P::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        self.process.on_processing_timer(cx, time)
    }
}

/// An operator with two keyed inputs as the head of a task.
pub struct ConnectHead<K, A, B, P> {
    keyed: KeyedHead<K, Either<A, B>, Either2<P>>,
}

impl<K, A, B, P: Clone> Clone for ConnectHead<K, A, B, P> {
    fn clone(&self) -> Self {
        Self { keyed: self.keyed.clone() }
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedProcess2<K, A, B>> Head for ConnectHead<K, A, B, P> {
    type Out = P::Out;
    type Built = Box<dyn Chain>;

    fn build<N: Stage<P::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {
        Ok(Box::new(ConnectChain { keyed: self.keyed.chain(next, context)? }))
    }

    fn place(&self, build: Build<Box<dyn Chain>>) -> Option<BuildChain> {
        Some(build)
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedProcess2<K, A, B>> TaskHead for ConnectHead<K, A, B, P> {
    fn operator(&self) -> OperatorSpec {
        self.keyed.operator()
    }

    fn parallelism_limit(&self) -> u32 {
        self.keyed.parallelism_limit()
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedProcess2<K, A, B>> SideOutputs for ConnectHead<K, A, B, P> {
    fn sides(&self) -> &MakeSides {
        self.keyed.sides()
    }
}

/// A keyed chain whose batches are of one type or the other, by the input that they came in by.
struct ConnectChain<K: Key, A, B, P: KeyedProcess2<K, A, B>, N> {
    keyed: KeyedChain<K, Either<A, B>, Either2<P>, N>,
}

impl<K, A, B, P, N> Chain for ConnectChain<K, A, B, P, N>
where
    K: Key,
    A: Data,
    B: Data,
    P: KeyedProcess2<K, A, B>,
    N: Stage<P::Out>,
{
    fn read(&mut self, exec: &mut Exec, limit: usize) -> Result<SourcePoll, UserError> {
        self.keyed.read(exec, limit)
    }

    fn process(&mut self, exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        match exec.input {
            0 => self.keyed.process_batch(exec, batch, Either::First),
            _ => self.keyed.process_batch(exec, batch, Either::Second),
        }
    }

    fn advance(&mut self, exec: &mut Exec, watermark: Timestamp, limit: usize) -> Result<bool, UserError> {
        self.keyed.advance(exec, watermark, limit)
    }

    fn processing_due(&self) -> Option<Timestamp> {
        self.keyed.processing_due()
    }

    fn advance_processing(&mut self, exec: &mut Exec, limit: usize) -> Result<bool, UserError> {
        self.keyed.advance_processing(exec, limit)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.keyed.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.keyed.snapshot(exec, checkpoint, out)
    }

    fn states(&mut self) -> Vec<&mut dyn Snapshotable> {
        self.keyed.states()
    }
}
