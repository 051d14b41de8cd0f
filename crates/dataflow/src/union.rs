//! Several streams of one type as one.

use cutwater_state::{Data, Key};

use crate::fan::{BranchHead, FanOut};
use crate::input::InputHead;
use crate::job::Job;
use crate::sink::Sink;
use crate::stage::{Compose, Filter, FlatMap, Identity, Map};
use crate::stream::{Head, KeyedStream, OperatorKind, Stream};

/// What [`Stream::union`] takes: a stream or another union.
pub trait IntoUnion<'j, T> {
    /// The union of this alone.
    fn into_union(self) -> Union<'j, T>;
}

/// Several streams of one type: [`Stream::union`].
///
/// Records of one input keep their order; those of different inputs come as they come. The watermark is the lowest of
/// all inputs that have not ended.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Union<'j, T> {
    job: &'j Job,
    inputs: Vec<Stream<'j, BranchHead<T>, Identity<T>>>,
}

impl<'j, T> IntoUnion<'j, T> for Union<'j, T> {
    fn into_union(self) -> Self {
        self
    }
}

impl<'j, H: Head, C: Compose<H::Out>> IntoUnion<'j, C::Out> for Stream<'j, H, C> {
    fn into_union(self) -> Union<'j, C::Out> {
        let (job, ..) = self.place();
        Union { job, inputs: vec![self.erase()] }
    }
}

impl<'j, H: Head, C: Compose<H::Out>> Stream<'j, H, C> {
    /// The records of this stream and of another one of the same type. More inputs: call it again on the union.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, from_iter, discard};
    /// # let job = Job::new("doc");
    /// let old = job.source("old", from_iter(0u64..100));
    /// let new = job.source("new", from_iter(100u64..200));
    /// old.union(new).key_by(|n| n % 10).fold("sums", 0, |sum, n| *sum += n).sink("out", discard());
    /// ```
    ///
    /// A `key_by` right behind it costs nothing more than that of one stream. Any other operator begins a task, to whose
    /// subtasks the records go as they are: from each subtask to its like, or in turn if the parallelism differs.
    pub fn union(self, other: impl IntoUnion<'j, C::Out>) -> Union<'j, C::Out>
    where
        C::Out: Data,
    {
        self.into_union().union(other)
    }

    /// Sends the records to the subtasks of the next operators in turn, whatever their keys: for work that is spread
    /// unevenly, or more of it than the source has subtasks. The order of the records of one split is lost.
    pub fn rebalance(self) -> Stream<'j, InputHead<C::Out>, Identity<C::Out>>
    where
        C::Out: Data,
    {
        let (job, ..) = self.place();
        let edge = self.turn_edge(OperatorKind::Rebalance, "rebalance", |_| true);
        Stream::begin(job, InputHead::default(), &[(edge, 0)])
    }

    /// Sends each record to all subtasks of the next operators: what they do, they do once for each subtask. A sink behind
    /// it has each record as often as there are subtasks.
    pub fn broadcast(self) -> Stream<'j, InputHead<C::Out>, Identity<C::Out>>
    where
        C::Out: Data + Clone,
    {
        let (job, ..) = self.place();
        let edge = self.broadcast_edge();
        Stream::begin(job, InputHead::default(), &[(edge, 0)])
    }
}

impl<'j, T: Data> Union<'j, T> {
    /// One more input.
    pub fn union(mut self, other: impl IntoUnion<'j, T>) -> Self {
        let other = other.into_union();
        self.job.same_as(other.job, "union");
        self.inputs.extend(other.inputs);
        self
    }

    /// See [`Stream::key_by`].
    pub fn key_by<F, K>(self, key_of: F) -> KeyedStream<'j, K, T>
    where
        K: Key,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        let edges = self.inputs.into_iter().map(|input| input.keyed_edge(key_of.clone())).collect();
        KeyedStream::new(self.job, edges)
    }

    /// The union as a stream like any other.
    pub fn stream(self) -> Stream<'j, InputHead<T>, Identity<T>> {
        let turns = |same: bool| !same;
        let edge = |input: Stream<'j, BranchHead<T>, _>| (input.turn_edge(OperatorKind::Union, "union", turns), 0);
        let edges: Vec<_> = self.inputs.into_iter().map(edge).collect();
        Stream::begin(self.job, InputHead::default(), &edges)
    }

    /// See [`Stream::rebalance`].
    pub fn rebalance(self) -> Stream<'j, InputHead<T>, Identity<T>> {
        let edge =
            |input: Stream<'j, BranchHead<T>, _>| (input.turn_edge(OperatorKind::Rebalance, "rebalance", |_| true), 0);
        let edges: Vec<_> = self.inputs.into_iter().map(edge).collect();
        Stream::begin(self.job, InputHead::default(), &edges)
    }

    /// See [`Stream::broadcast`].
    pub fn broadcast(self) -> Stream<'j, InputHead<T>, Identity<T>>
    where
        T: Clone,
    {
        let edges: Vec<_> = self.inputs.into_iter().map(|input| (input.broadcast_edge(), 0)).collect();
        Stream::begin(self.job, InputHead::default(), &edges)
    }

    /// See [`Stream::map`].
    pub fn map<F, U>(self, f: F) -> Stream<'j, InputHead<T>, Map<Identity<T>, F>>
    where
        F: Fn(T) -> U + Clone + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.stream().map(f)
    }

    /// See [`Stream::filter`].
    pub fn filter<F>(self, f: F) -> Stream<'j, InputHead<T>, Filter<Identity<T>, F>>
    where
        F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
    {
        self.stream().filter(f)
    }

    /// See [`Stream::flat_map`].
    pub fn flat_map<F, I>(self, f: F) -> Stream<'j, InputHead<T>, FlatMap<Identity<T>, F>>
    where
        F: Fn(T) -> I + Clone + Send + Sync + 'static,
        I: IntoIterator,
        I::Item: Send + 'static,
    {
        self.stream().flat_map(f)
    }

    /// See [`Stream::fan_out`].
    pub fn fan_out(self) -> FanOut<'j, T>
    where
        T: Clone,
    {
        self.stream().fan_out()
    }

    /// See [`Stream::sink`].
    pub fn sink<S: Sink<T>>(self, uid: &str, sink: S) {
        self.stream().sink(uid, sink);
    }
}
