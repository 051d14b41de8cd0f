//! The typed streams that users write, and how they become tasks.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{EdgeId, KeyGroup, OperatorUid, Timestamp};
use cutwater_state::{Data, Key};

use crate::UserError;
use crate::exchange::{BroadcastOutput, Buffer, KeyedOutput, TurnOutput};
use crate::exec::{BuildContext, Chain, Keyed};
use crate::graph::{BuildChain, GraphError, MakeCommitter};
use crate::job::Job;
use crate::process::{FnProcess, Fold, KeyedHead, KeyedProcess, ProcessContext, check_states};
use crate::read::SourceHead;
use crate::side::{MakeSides, SideOutputs};
use crate::sink::Sink;
use crate::source::Source;
use crate::stage::{Compose, Filter, FlatMap, Identity, Map, SinkStage, Stage};
use crate::states::{StatefulFn, States, StatesError};

/// What an operator is, for `describe()`, checkpoints and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSpec {
    /// What it does.
    pub kind: OperatorKind,
    /// How it is called in the code, such as `map`.
    pub name: &'static str,
    /// Its uid; stateless operators have none.
    pub uid: Option<OperatorUid>,
}

impl std::fmt::Display for OperatorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.uid {
            Some(uid) => write!(f, "{} {uid:?}", self.name, uid = uid.as_str()),
            None if self.kind == OperatorKind::SideOutput => write!(f, "side output {:?}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorKind {
    /// Reads an input.
    Source,
    /// Keeps nothing.
    Stateless,
    /// Sends records to the subtasks that own their keys.
    KeyBy,
    /// Sends the records of several streams on as one.
    Union,
    /// Sends records to subtasks in turn.
    Rebalance,
    /// Sends each record to all subtasks.
    Broadcast,
    /// Takes records that were sent without keys.
    Input,
    /// Emits on the side what the operator before it says.
    SideOutput,
    /// Keeps operator state, without keys.
    Process,
    /// Keeps state by key.
    Keyed,
    /// Writes an output.
    Sink,
}

/// Makes a part of a subtask.
pub type Build<B> = Arc<dyn Fn(&BuildContext<'_>) -> Result<B, UserError> + Send + Sync>;

/// Where a stream begins: the first operator of a task, or a branch of one.
pub trait Head: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;
    /// What it and the stages after it form: a chain, or stages of a chain that begins elsewhere.
    type Built: 'static;

    /// Makes what it and the stages after it form.
    ///
    /// # Errors
    ///
    /// If an input or output can't be opened, or restored parts can't be read.
    fn build<N: Stage<Self::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Self::Built, UserError>;

    /// The stream has ended, and can be made for each subtask: gives that back if it is a task, else to where the stream
    /// has grown out of.
    fn place(&self, build: Build<Self::Built>) -> Option<BuildChain>;
}

/// The first operator of a task.
pub trait TaskHead: Head<Built = Box<dyn Chain>> {
    /// What it is.
    fn operator(&self) -> OperatorSpec;

    /// The number of subtasks that make sense.
    fn parallelism_limit(&self) -> u32;
}

/// A stream of records. Consecutive stateless operators run fused with what is before them.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<'j, H, C> {
    job: &'j Job,
    head: H,
    chain: C,
    /// The task that it is a part of, and its last operator there.
    task: usize,
    last: u16,
}

impl<'j, H: TaskHead> Stream<'j, H, Identity<H::Out>> {
    /// A task begins with `head`, on these edges, each with the input of the operator that it leads to.
    pub(crate) fn begin(job: &'j Job, head: H, edges: &[(EdgeId, u8)]) -> Self {
        let (operator, limit) = (head.operator(), head.parallelism_limit());
        let task = job.draft().begin(operator, limit, edges);
        Self { job, head, chain: Identity::default(), task, last: 0 }
    }
}

impl<S: Source> Stream<'_, SourceHead<S>, Identity<S::Record>> {
    /// A split of the source that gives nothing for so long is idle: it no longer holds the watermark back, until its next
    /// record or rising watermark. A subtask all of whose splits are idle is idle itself, and tells those behind it; if all
    /// that an operator reads is idle, its watermark rises to the highest that it was told, and it is idle too. The watermark
    /// never goes back: records of an idle split that are then behind it are late. Not idle: a split that nobody asks, since
    /// output waits for its receivers.
    ///
    /// Without it a split that is silent and has not ended holds back all windows and timers behind it. Source: Flink's
    /// `WatermarkStrategy.withIdleness`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cutwater_dataflow::{Job, from_iter, discard};
    /// # let job = Job::new("doc");
    /// job.source("readings", from_iter(0u64..100)).idleness(Duration::from_secs(30)).sink("out", discard());
    /// # assert!(job.build().is_ok());
    /// ```
    ///
    /// A duration of zero is an error of [`Job::build`].
    pub fn idleness(mut self, idleness: Duration) -> Self {
        if idleness.is_zero() {
            let operator = self.head.uid.clone();
            self.job.draft().errors.push(GraphError::Idleness { operator });
        }
        self.head.idleness = Some(idleness);
        self
    }
}

impl<'j, H: Head> Stream<'j, H, Identity<H::Out>> {
    /// A stream that grows out of an operator of a task that has begun; the draft knows of it as open.
    pub(crate) fn branch_of(job: &'j Job, task: usize, last: u16, head: H) -> Self {
        Self { job, head, chain: Identity::default(), task, last }
    }
}

impl<'j, H: Head, C: Compose<H::Out>> Stream<'j, H, C> {
    /// The job, the task and the last operator.
    pub(crate) fn place(&self) -> (&'j Job, usize, u16) {
        (self.job, self.task, self.last)
    }

    pub(crate) fn head(&self) -> &H {
        &self.head
    }

    /// Adds an operator to the draft of the task.
    pub(crate) fn operator(&mut self, kind: OperatorKind, name: &'static str, uid: Option<OperatorUid>) -> u16 {
        let mut draft = self.job.draft();
        draft.close(self.task, self.last);
        self.last = draft.operator(self.task, self.last, OperatorSpec { kind, name, uid });
        draft.open(self.task, self.last);
        self.last
    }

    fn stateless<D>(mut self, name: &'static str, make: impl FnOnce(C, u16) -> D) -> Stream<'j, H, D> {
        let operator = self.operator(OperatorKind::Stateless, name, None);
        let Self { job, head, chain, task, last } = self;
        Stream { job, head, chain: make(chain, operator), task, last }
    }

    /// Turns each record into another.
    pub fn map<F, U>(self, f: F) -> Stream<'j, H, Map<C, F>>
    where
        F: Fn(C::Out) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.stateless("map", |before, operator| Map { before, f, operator })
    }

    /// Keeps the records for which `f` is true.
    pub fn filter<F>(self, f: F) -> Stream<'j, H, Filter<C, F>>
    where
        F: Fn(&C::Out) -> bool + Clone + Send + Sync + 'static,
    {
        self.stateless("filter", |before, operator| Filter { before, f, operator })
    }

    /// Turns each record into any number of others.
    pub fn flat_map<F, I>(self, f: F) -> Stream<'j, H, FlatMap<C, F>>
    where
        F: Fn(C::Out) -> I + Clone + Send + Sync + 'static,
        I: IntoIterator,
        I::Item: Send + 'static,
    {
        self.stateless("flat_map", |before, operator| FlatMap { before, f, operator })
    }

    /// Groups the records by key: what follows sees all records of a key in one subtask, those of one source split in
    /// their order. Records and keys cross threads here, and later processes, so they must be [`Data`].
    pub fn key_by<F, K>(self, key_of: F) -> KeyedStream<'j, K, C::Out>
    where
        K: Key,
        C::Out: Data,
        F: Fn(&C::Out) -> K + Clone + Send + Sync + 'static,
    {
        let job = self.job;
        KeyedStream::new(job, vec![self.keyed_edge(key_of)])
    }

    /// Ends in an edge to the owners of the keys.
    pub(crate) fn keyed_edge<F, K>(mut self, key_of: F) -> EdgeId
    where
        K: Key,
        C::Out: Data,
        F: Fn(&C::Out) -> K + Clone + Send + Sync + 'static,
    {
        let operator = self.operator(OperatorKind::KeyBy, "key_by", None);
        let (edge, output) = self.job.draft().output(self.task, operator);
        self.end(move |context| {
            let channels = context.channels(output);
            let receivers = u32::try_from(channels.len()).unwrap_or(u32::MAX);
            let groups = 0..context.max_parallelism.count();
            let group = |group: u32| KeyGroup(u16::try_from(group).expect("at most 32768 groups"));
            let owner = |g| group(g).owner(context.max_parallelism, receivers);
            Ok(KeyedOutput {
                key_of: key_of.clone(),
                operator,
                owners: groups.map(owner).collect(),
                max_parallelism: context.max_parallelism,
                buffers: channels.clone().map(|_| Buffer::<Keyed<K, C::Out>>::new(0)).collect(),
                channels,
                scratch: Vec::new(),
            })
        });
        edge
    }

    /// Ends in an edge over which each record goes to one subtask: to the next in turn if `turns` says so of "as many
    /// receivers as senders", else to the like.
    pub(crate) fn turn_edge(mut self, kind: OperatorKind, name: &'static str, turns: fn(bool) -> bool) -> EdgeId
    where
        C::Out: Data,
    {
        let operator = self.operator(kind, name, None);
        let (edge, output) = self.job.draft().output(self.task, operator);
        self.end(move |context| {
            let channels = context.channels(output);
            let turns = turns(channels.len() == context.parallelism as usize);
            Ok(TurnOutput::new(operator, channels, context.subtask.index, turns))
        });
        edge
    }

    /// Ends in an edge over which each record goes to all subtasks.
    pub(crate) fn broadcast_edge(mut self) -> EdgeId
    where
        C::Out: Data + Clone,
    {
        let operator = self.operator(OperatorKind::Broadcast, "broadcast", None);
        let (edge, output) = self.job.draft().output(self.task, operator);
        self.end(move |context| Ok(BroadcastOutput::new(operator, context.channels(output))));
        edge
    }

    /// Writes the stream to an output. The uid names its prepared output in checkpoints.
    pub fn sink<S>(mut self, uid: &str, sink: S)
    where
        S: Sink<C::Out>,
    {
        let uid = self.job.draft().take_uid(uid, "sink");
        let operator = self.operator(OperatorKind::Sink, "sink", Some(uid.clone()));
        let sink = Arc::new(sink);
        let committer: MakeCommitter = {
            let sink = Arc::clone(&sink);
            Arc::new(move |context| sink.committer(context))
        };
        self.job.draft().committer(self.task, uid.clone(), committer);
        self.end(move |context| {
            let writer = sink.open(&crate::sink::SinkContext {
                job: context.job.to_owned(),
                operator: uid.clone(),
                subtask: context.subtask.index,
                parallelism: context.parallelism,
                epoch: context.epoch,
                attempt: context.attempt,
                from_nothing: context.from_nothing,
            })?;
            Ok(SinkStage { writer, operator, uid: uid.clone() })
        });
    }

    /// Ends the stream in a stage that is made for each subtask.
    pub(crate) fn end<N: Stage<C::Out>>(
        self,
        make: impl Fn(&BuildContext<'_>) -> Result<N, UserError> + Send + Sync + 'static,
    ) {
        let Self { job, head, chain, task, last } = self;
        let place = head.clone();
        let build: Build<H::Built> = Arc::new(move |context| head.build(chain.compose(make(context)?), context));
        let build = place.place(build);
        let mut draft = job.draft();
        draft.close(task, last);
        if let Some(build) = build {
            draft.set_build(task, build);
        }
    }
}

/// A stream grouped by key, on which state can be kept.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<'j, K, T> {
    job: &'j Job,
    edges: Vec<EdgeId>,
    types: PhantomData<fn() -> (K, T)>,
}

impl<'j, K: Key, T: Data> KeyedStream<'j, K, T> {
    pub(crate) fn new(job: &'j Job, edges: Vec<EdgeId>) -> Self {
        Self { job, edges, types: PhantomData }
    }

    /// The job and the edges over which the records come.
    pub(crate) fn into_edges(self) -> (&'j Job, Vec<EdgeId>) {
        (self.job, self.edges)
    }

    /// Processes records with a value of state per key; the type of the state is that which `f` takes from
    /// [`ProcessContext::state`], and a key without state begins with its default.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, ProcessContext, from_iter, discard};
    /// # let job = Job::new("doc");
    /// job.source("numbers", from_iter(0u64..100))
    ///     .key_by(|n| n % 10)
    ///     .process("sums", |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, n| {
    ///         *cx.state()? += n;
    ///         let sum = *cx.state()?;
    ///         cx.emit((*cx.key(), sum));
    ///         Ok(())
    ///     })
    ///     .sink("out", discard());
    /// ```
    pub fn process<F, S, O>(
        self,
        uid: &str,
        f: F,
    ) -> Stream<'j, impl SideOutputs<Out = O> + use<F, S, O, K, T>, Identity<O>>
    where
        S: Data + Default,
        O: Send + 'static,
        F: Fn(&mut ProcessContext<'_, K, S, O>, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.process_with_timers(uid, f, |_: &mut ProcessContext<'_, K, S, O>, _: Timestamp| Ok(()))
    }

    /// As [`Self::process`], with `on_timer` for the timers that `f` and `on_timer` register.
    pub fn process_with_timers<F, G, S, O>(
        self,
        uid: &str,
        f: F,
        on_timer: G,
    ) -> Stream<'j, impl SideOutputs<Out = O> + use<F, G, S, O, K, T>, Identity<O>>
    where
        S: Data + Default,
        O: Send + 'static,
        F: Fn(&mut ProcessContext<'_, K, S, O>, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        G: Fn(&mut ProcessContext<'_, K, S, O>, Timestamp) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        let process = FnProcess { process: f, on_timer, initial: S::default, types: PhantomData };
        self.keyed(uid, "process", process)
    }

    /// Processes records with states of any kind: `declare` makes their handles, and `f` gets them with each record.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, ProcessContext, States, from_iter, discard};
    /// # let job = Job::new("doc");
    /// job.source("numbers", from_iter(0u64..100))
    ///     .key_by(|n| n % 10)
    ///     .process_with_states(
    ///         "tens",
    ///         |states: &mut States<'_, u64>| Ok((states.map::<u64, u64>("by-ten")?, states.value::<u64>("last")?)),
    ///         |cx: &mut ProcessContext<'_, u64, (), u64>, (by_ten, last), n| {
    ///             *cx.map(*by_ten)?.get_or_insert_with(&(n / 10), || 0)? += 1;
    ///             cx.value(*last)?.set(n)?;
    ///             cx.emit(n);
    ///             Ok(())
    ///         },
    ///     )
    ///     .sink("out", discard());
    /// # assert!(job.build().is_ok());
    /// ```
    pub fn process_with_states<D, H, F, O>(
        self,
        uid: &str,
        declare: D,
        f: F,
    ) -> Stream<'j, impl Head<Out = O> + use<D, H, F, O, K, T>, Identity<O>>
    where
        H: Clone + Send + Sync + 'static,
        O: Send + 'static,
        D: Fn(&mut States<'_, K>) -> Result<H, StatesError> + Clone + Send + Sync + 'static,
        F: Fn(&mut ProcessContext<'_, K, (), O>, &H, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.keyed(uid, "process", StatefulFn { declare, process: f, handles: None, types: PhantomData })
    }

    /// Processes records with an operator of your own.
    pub fn process_with<P: KeyedProcess<K, T>>(
        self,
        uid: &str,
        process: P,
    ) -> Stream<'j, KeyedHead<K, T, P>, Identity<P::Out>> {
        self.keyed(uid, "process", process)
    }

    /// Folds the records of each key into a value that begins as `initial`; emits key and value at each record.
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn fold<A, F>(self, uid: &str, initial: A, f: F) -> Stream<'j, KeyedHead<K, T, Fold<F, A>>, Identity<(K, A)>>
    where
        A: Data + Clone + Sync,
        F: Fn(&mut A, T) + Clone + Send + Sync + 'static,
    {
        self.keyed(uid, "fold", Fold { initial, f })
    }

    pub(crate) fn keyed<P: KeyedProcess<K, T>>(
        self,
        uid: &str,
        name: &'static str,
        process: P,
    ) -> Stream<'j, KeyedHead<K, T, P>, Identity<P::Out>> {
        let Self { job, edges, .. } = self;
        let uid = job.draft().take_uid(uid, name);
        let wrong = check_states::<K, T, P>(&uid, &process);
        job.draft().errors.extend(wrong);
        let edges: Vec<_> = edges.into_iter().map(|edge| (edge, 0)).collect();
        Stream::begin(job, KeyedHead { uid, process, name, sides: MakeSides::default(), types: PhantomData }, &edges)
    }
}
