//! The typed streams that users write, and how they become tasks.

use std::marker::PhantomData;
use std::sync::Arc;

use cutwater_core::{EdgeId, KeyGroup, OperatorUid, TaskId, Timestamp};
use cutwater_state::{Data, Key};

use crate::UserError;
use crate::exec::{BuildContext, Chain};
use crate::graph::{BuildChain, GraphError, JobGraph, MakeCommitter, TaskSpec};
use crate::process::{FnProcess, Fold, KeyedHead, KeyedProcess, ProcessContext, check_states};
use crate::read::SourceHead;
use crate::sink::Sink;
use crate::source::Source;
use crate::stage::{Buffer, Compose, Filter, FlatMap, Identity, KeyedOutput, Map, SinkStage, Stage};
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
    /// Keeps state by key.
    Keyed,
    /// Writes an output.
    Sink,
}

/// The first operator of a task.
pub trait Head: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;

    /// What it is.
    fn operator(&self) -> OperatorSpec;

    /// The number of subtasks that make sense.
    fn parallelism_limit(&self) -> u32;

    /// Makes the chain that it and the stages after it form.
    ///
    /// # Errors
    ///
    /// If an input or output can't be opened, or restored parts can't be read.
    fn build<N: Stage<Self::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError>;
}

/// A job being written: sources begin streams, sinks end them, [`Job::build`] makes the [`JobGraph`].
pub struct Job {
    name: String,
    tasks: Vec<TaskSpec>,
    uids: Vec<(OperatorUid, String)>,
    errors: Vec<GraphError>,
}

impl Job {
    /// An empty job. Its name becomes the folder of its checkpoints: 1 to 200 letters, digits, `-`, `_` or `.`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let errors = OperatorUid::new(name).err().map(|error| GraphError::Name { error }).into_iter().collect();
        Self { name: name.to_owned(), tasks: Vec::new(), uids: Vec::new(), errors }
    }

    /// Reads an input. The uid names its positions in checkpoints.
    pub fn source<S: Source>(&mut self, uid: &str, source: S) -> Stream<'_, SourceHead<S>, Identity<S::Record>> {
        let uid = self.take_uid(uid, "source");
        let head = SourceHead { uid, source: Arc::new(source) };
        Stream::begin(self, head, None)
    }

    /// Finishes the graph.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it: a bad or repeated uid, a stream without an end, no source at all.
    pub fn build(mut self) -> Result<JobGraph, GraphError> {
        if !self.errors.is_empty() {
            return Err(self.errors.remove(0));
        }
        if self.tasks.is_empty() {
            return Err(GraphError::Empty { job: self.name });
        }
        let read = |edge: EdgeId| self.tasks.iter().any(|task| task.input == Some(edge));
        if let Some(task) = self.tasks.iter().find(|task| task.output.is_some_and(|edge| !read(edge))) {
            return Err(GraphError::Unfinished { operators: task.describe() });
        }
        Ok(JobGraph { name: self.name, tasks: self.tasks })
    }

    /// Checks a uid. What is wrong is kept until [`Self::build`], so that streams can be written without `?`.
    fn take_uid(&mut self, uid: &str, name: &str) -> OperatorUid {
        match OperatorUid::new(uid) {
            Ok(uid) => {
                let operator = format!("{name} (operator number {})", self.uids.len() + 1);
                if let Some((_, first)) = self.uids.iter().find(|(other, _)| *other == uid) {
                    let (first, second) = (first.clone(), operator.clone());
                    self.errors.push(GraphError::DuplicateUid { uid: uid.clone(), first, second });
                }
                self.uids.push((uid.clone(), operator));
                uid
            }
            Err(error) => {
                self.errors.push(GraphError::Uid { operator: name.to_owned(), error });
                OperatorUid::new("invalid").expect("a valid name")
            }
        }
    }
}

/// A stream of records. Consecutive stateless operators run fused with what is before them.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<'j, H, C> {
    job: &'j mut Job,
    head: H,
    chain: C,
    operators: Vec<OperatorSpec>,
    input: Option<EdgeId>,
}

impl<'j, H: Head> Stream<'j, H, Identity<H::Out>> {
    fn begin(job: &'j mut Job, head: H, input: Option<EdgeId>) -> Self {
        let operators = vec![head.operator()];
        Self { job, head, chain: Identity::default(), operators, input }
    }
}

impl<'j, H: Head, C: Compose<H::Out>> Stream<'j, H, C> {
    fn stateless<D>(mut self, name: &'static str, make: impl FnOnce(C, u16) -> D) -> Stream<'j, H, D> {
        let operator = u16::try_from(self.operators.len()).unwrap_or(u16::MAX);
        self.operators.push(OperatorSpec { kind: OperatorKind::Stateless, name, uid: None });
        let Self { job, head, chain, operators, input } = self;
        Stream { job, head, chain: make(chain, operator), operators, input }
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
    pub fn key_by<F, K>(mut self, key_of: F) -> KeyedStream<'j, K, C::Out>
    where
        K: Key,
        C::Out: Data,
        F: Fn(&C::Out) -> K + Clone + Send + Sync + 'static,
    {
        let operator = u16::try_from(self.operators.len()).unwrap_or(u16::MAX);
        self.operators.push(OperatorSpec { kind: OperatorKind::KeyBy, name: "key_by", uid: None });
        let task = TaskId(u32::try_from(self.job.tasks.len()).unwrap_or(u32::MAX));
        let edge = EdgeId(task.0);
        let build = move |head: &H, chain: &C, context: &BuildContext<'_>| {
            let groups = 0..context.max_parallelism.count();
            let group = |group: u32| KeyGroup(u16::try_from(group).expect("at most 32768 groups"));
            let owner = |g| group(g).owner(context.max_parallelism, context.receivers);
            let output = KeyedOutput {
                key_of: key_of.clone(),
                operator,
                owners: groups.map(owner).collect(),
                max_parallelism: context.max_parallelism,
                buffers: (0..context.receivers).map(|_| Buffer::<K, C::Out>::new(0)).collect(),
                scratch: Vec::new(),
            };
            head.build(chain.compose(output), context)
        };
        let job = self.finish(Some(edge), None, build);
        KeyedStream { job, input: edge, types: PhantomData }
    }

    /// Writes the stream to an output. The uid names its prepared output in checkpoints.
    pub fn sink<S>(mut self, uid: &str, sink: S)
    where
        S: Sink<C::Out>,
    {
        let uid = self.job.take_uid(uid, "sink");
        let operator = u16::try_from(self.operators.len()).unwrap_or(u16::MAX);
        self.operators.push(OperatorSpec { kind: OperatorKind::Sink, name: "sink", uid: Some(uid.clone()) });
        let sink = Arc::new(sink);
        let committer: MakeCommitter = {
            let sink = Arc::clone(&sink);
            Arc::new(move |context| sink.committer(context))
        };
        let named = uid.clone();
        let build = move |head: &H, chain: &C, context: &BuildContext<'_>| {
            let writer = sink.open(&crate::sink::SinkContext {
                job: context.job.to_owned(),
                operator: named.clone(),
                subtask: context.subtask.index,
                parallelism: context.parallelism,
                epoch: context.epoch,
                attempt: context.attempt,
                from_nothing: context.from_nothing,
            })?;
            head.build(chain.compose(SinkStage { writer, operator, uid: named.clone() }), context)
        };
        self.finish(None, Some((uid, committer)), build);
    }

    fn finish(
        self,
        output: Option<EdgeId>,
        committer: Option<(OperatorUid, MakeCommitter)>,
        build: impl Fn(&H, &C, &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> + Send + Sync + 'static,
    ) -> &'j mut Job {
        let Self { job, head, chain, operators, input } = self;
        let task = TaskId(u32::try_from(job.tasks.len()).unwrap_or(u32::MAX));
        let parallelism_limit = head.parallelism_limit();
        let build: BuildChain = Arc::new(move |context| build(&head, &chain, context));
        job.tasks.push(TaskSpec { task, operators, input, output, parallelism_limit, build, committer });
        job
    }
}

/// A stream grouped by key, on which state can be kept.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<'j, K, T> {
    job: &'j mut Job,
    input: EdgeId,
    types: PhantomData<fn() -> (K, T)>,
}

impl<'j, K: Key, T: Data> KeyedStream<'j, K, T> {
    /// Processes records with a value of state per key; the type of the state is that which `f` takes from
    /// [`ProcessContext::state`], and a key without state begins with its default.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, ProcessContext, from_iter, discard};
    /// # let mut job = Job::new("doc");
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
    pub fn process<F, S, O>(self, uid: &str, f: F) -> Stream<'j, impl Head<Out = O> + use<F, S, O, K, T>, Identity<O>>
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
    ) -> Stream<'j, impl Head<Out = O> + use<F, G, S, O, K, T>, Identity<O>>
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
    /// # let mut job = Job::new("doc");
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
        let Self { job, input, .. } = self;
        let uid = job.take_uid(uid, name);
        job.errors.extend(check_states::<K, T, P>(&uid, &process));
        Stream::begin(job, KeyedHead { uid, process, name, types: PhantomData }, Some(input))
    }
}
