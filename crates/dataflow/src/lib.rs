//! Typed streams, operators, sources and sinks that build a [`JobGraph`].
//!
//! A job is written once and run by whoever takes its graph: the runtime on threads, the simulation from a seed.
//!
//! ```
//! use cutwater_dataflow::{Collect, Job, generator};
//!
//! let out = Collect::<(u64, u64)>::default();
//! let job = Job::new("counts");
//! job.source("numbers", generator(1_000, |n| n))
//!     .filter(|n| n % 2 == 0)
//!     .key_by(|n| n % 10)
//!     .fold("counts", 0u64, |count, _| *count += 1)
//!     .sink("out", out.clone());
//! let graph = job.build()?;
//! assert_eq!(graph.tasks().len(), 2);
//! # Ok::<(), cutwater_dataflow::GraphError>(())
//! ```
//!
//! - [`Job`] begins streams; [`Stream`] has `map`, `filter`, `flat_map`, `key_by` and `sink`; [`KeyedStream`] has
//!   `process`, `process_with_timers` and `fold`.
//! - [`Stream::fan_out`] hands a stream to several consumers, [`Stream::union`] makes several streams one,
//!   [`Stream::rebalance`] and [`Stream::broadcast`] spread records without keys, [`KeyedStream::connect`] brings two
//!   streams of different types into one operator.
//! - [`KeyedProcess`] is an operator of your own with state and timers, of event and of processing time, [`KeyedProcess2`]
//!   one with two inputs; [`States`] declares further states: values, lists, maps, reduced and aggregated values, each with
//!   a [`Ttl`] if wanted. Both may emit to side outputs, named by an [`OutputTag`], and so may [`Stream::process`], without
//!   keys and state.
//! - [`Process`] is an operator without keys, with [`OperatorStates`]: lists and union lists of its subtask.
//!   [`KeyedStream::connect_broadcast`] and [`KeyedBroadcastProcess`] give each record of a stream to all subtasks of a keyed
//!   operator, for broadcast state that its other records read.
//! - [`Windows`] group the records of a key by time: tumbling, sliding, sessions, with lateness.
//! - [`testing`] runs one operator in a test.
//! - [`Source`] and [`Sink`] are what connectors implement; [`from_iter`], [`generator`], [`discard`] and [`Collect`]
//!   need nothing outside the process.
//! - The uid is an argument of whatever keeps something: state is found again by it.
//! - [`exec`] is for those who run graphs.
//!
//! Consecutive operators without `key_by` between them run fused, without a call per record; records cross to another
//! subtask in batches of [`exec::BATCH_RECORDS`].
//!
//! Not here yet: triggers and evictors of windows.

mod broadcast;
mod builtin;
mod connect;
mod each;
mod exchange;
pub mod exec;
mod fan;
mod graph;
mod input;
mod job;
mod outbox;
mod process;
mod read;
mod side;
mod sink;
mod source;
mod stage;
mod states;
mod stream;
pub mod testing;
mod ttl;
mod union;
mod window;

use std::fmt;

pub use cutwater_core::Timestamp;

pub use broadcast::{BroadcastConnectedStreams, BroadcastHead, KeyedBroadcastProcess};
pub use builtin::{Collect, CollectWriter, Discard, FromIter, Generator, GeneratorReader, IterReader, discard};
pub use builtin::{from_iter, generator};
pub use connect::{ConnectHead, ConnectedStreams, KeyedProcess2};
pub use each::{Each, EachHead, Process, RecordContext, StatefulEach};
pub use fan::{BranchHead, FanOut};
pub use graph::{BuildChain, EdgeSpec, GraphError, InputSpec, JobGraph, MakeCommitter, OutputSpec, TaskSpec};
pub use input::InputHead;
pub use job::Job;
pub use process::{FnProcess, Fold, KeyedHead, KeyedProcess, ProcessContext};
pub use read::SourceHead;
pub use side::{MakeSides, OutputTag, OutputTagMismatch, SideOutputs};
pub use sink::{CommitContext, CommitOutcome, Committer, Finish, Prepared, Sink, SinkContext, SinkWriter};
pub use source::{ReadStatus, Source, SourceOutput, SplitReader};
pub use stage::{Compose, Filter, FilterStage, FlatMap, FlatMapStage, Identity, Map, MapStage, Stage};
pub use states::{
    Aggregate, AggregatingAccess, AggregatingState, BroadcastState, Folding, ListAccess, ListState, MapAccess,
    MapState, OperatorListState, OperatorState, OperatorStates, ReducingAccess, ReducingState, StatefulFn, States,
    StatesError, UnionListState, ValueAccess, ValueState, folding,
};
pub use stream::{Build, Head, KeyedStream, OperatorKind, OperatorSpec, Stream, TaskHead};
pub use ttl::Ttl;
pub use union::{IntoUnion, Union};
pub use window::{LateCount, Window, Windowed, WindowedStream, Windows};

/// An error of user code or of a connector.
pub type UserError = Box<dyn std::error::Error + Send + Sync>;

/// Marks an error that no retry can mend, such as a schema that can never match: the job fails without asking the
/// restart strategy.
///
/// ```
/// # use cutwater_dataflow::{NonRecoverable, UserError};
/// let error: UserError = NonRecoverable::new("the input has no column dep_delay").into();
/// assert!(NonRecoverable::is(&*error));
/// ```
#[derive(Debug)]
pub struct NonRecoverable(UserError);

impl NonRecoverable {
    /// Marks the error.
    pub fn new(error: impl Into<UserError>) -> Self {
        Self(error.into())
    }

    /// Whether the error, or one that caused it, is marked.
    #[must_use]
    pub fn is(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl fmt::Display for NonRecoverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for NonRecoverable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
