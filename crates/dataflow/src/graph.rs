//! The graph: pure data, taken by the runtime and by the simulation alike.

use std::fmt;
use std::sync::Arc;

use cutwater_core::{EdgeId, InvalidUid, OperatorUid, TaskId};

use crate::UserError;
use crate::exec::Chain;
use crate::sink::{CommitContext, Committer};
use crate::stream::{Build, OperatorKind, OperatorSpec};

/// Makes the chain of one subtask.
pub type BuildChain = Build<Box<dyn Chain>>;

/// Makes what publishes the output of a sink.
pub type MakeCommitter = Arc<dyn Fn(&CommitContext) -> Result<Box<dyn Committer>, UserError> + Send + Sync>;

/// A job: its tasks and what connects them.
#[derive(Clone)]
pub struct JobGraph {
    pub(crate) name: String,
    pub(crate) tasks: Vec<TaskSpec>,
    pub(crate) edges: Vec<EdgeSpec>,
}

/// Operators that run fused: a chain, or a tree where a stream fans out.
#[derive(Clone)]
pub struct TaskSpec {
    /// Its place in the graph.
    pub task: TaskId,
    /// Its operators; each stands behind the one that it takes its records from.
    pub operators: Vec<OperatorSpec>,
    /// Which one that is; none for the first.
    pub(crate) after: Vec<Option<u16>>,
    /// The edges it reads, in the order in which their channels are numbered: those of one edge by sending subtask.
    /// Empty if it begins with a source.
    pub inputs: Vec<InputSpec>,
    /// The edges it writes. Empty if it ends in sinks alone.
    pub outputs: Vec<OutputSpec>,
    /// The number of subtasks that make sense.
    pub parallelism_limit: u32,
    /// Makes the chain of one subtask.
    pub build: BuildChain,
    /// The sinks in it, and what publishes their output.
    pub committers: Vec<(OperatorUid, MakeCommitter)>,
}

/// An edge as the task that reads it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The edge.
    pub edge: EdgeId,
    /// Which input of the first operator it leads to: 0, or 1 for the second of a `connect`. A union has several edges to
    /// one input.
    pub input: u8,
}

/// An edge as the task that writes it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// The edge.
    pub edge: EdgeId,
    /// The place of the operator that sends over it.
    pub operator: u16,
}

/// What connects two tasks: a channel from each subtask of the one to each of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeSpec {
    /// Its place in the graph.
    pub edge: EdgeId,
    /// The task that writes it.
    pub from: TaskId,
    /// The task that reads it.
    pub to: TaskId,
}

impl TaskSpec {
    /// What people call it: its operators with a uid, else all.
    #[must_use]
    pub fn name(&self) -> String {
        let uids: Vec<_> = self.uids().map(OperatorUid::as_str).collect();
        if uids.is_empty() {
            let names: Vec<_> = self.operators.iter().map(|operator| operator.name).collect();
            return names.join(" -> ");
        }
        uids.join(" -> ")
    }

    /// How many subtasks it has in a job of this parallelism.
    #[must_use]
    pub fn parallelism(&self, of_job: u32) -> u32 {
        of_job.min(self.parallelism_limit).max(1)
    }

    /// The uids of its operators.
    pub fn uids(&self) -> impl Iterator<Item = &OperatorUid> {
        self.operators.iter().filter_map(|operator| operator.uid.as_ref())
    }
}

impl JobGraph {
    /// The name of the job.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same job under another name, by the rules of [`Job::new`](crate::Job::new).
    ///
    /// # Errors
    ///
    /// [`GraphError::Name`](crate::GraphError::Name).
    pub fn renamed(self, name: &str) -> Result<Self, crate::GraphError> {
        cutwater_core::OperatorUid::new(name).map_err(|error| crate::GraphError::Name { error })?;
        Ok(Self { name: name.to_owned(), ..self })
    }

    /// The tasks; their places are their ids. Each edge leads from a task to a later one.
    #[must_use]
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }

    /// The edges; their places are their ids.
    #[must_use]
    pub fn edges(&self) -> &[EdgeSpec] {
        &self.edges
    }

    /// The task that reads the edge.
    ///
    /// # Panics
    ///
    /// If the edge is not of this graph.
    #[must_use]
    pub fn reader(&self, edge: EdgeId) -> &TaskSpec {
        &self.tasks[self.edges[edge.0 as usize].to.0 as usize]
    }

    /// The task that writes the edge.
    ///
    /// # Panics
    ///
    /// If the edge is not of this graph.
    #[must_use]
    pub fn writer(&self, edge: EdgeId) -> &TaskSpec {
        &self.tasks[self.edges[edge.0 as usize].from.0 as usize]
    }

    /// The input channels of each subtask of a task, in the order of their numbers: over which edge, from which subtask.
    /// `parallelism` is that of the job.
    ///
    /// # Panics
    ///
    /// If the task is not of this graph.
    pub fn channels(&self, task: TaskId, parallelism: u32) -> impl Iterator<Item = (InputSpec, u32)> + '_ {
        self.tasks[task.0 as usize].inputs.iter().flat_map(move |input| {
            (0..self.writer(input.edge).parallelism(parallelism)).map(move |sender| (*input, sender))
        })
    }

    /// The graph for people: a line per task, with the operators that run fused, and the edges between. Where a stream fans
    /// out, each branch has a line of its own.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, from_iter, discard};
    /// let job = Job::new("count");
    /// let numbers = job.source("numbers", from_iter(0u64..9)).filter(|n| n % 2 == 1).fan_out();
    /// numbers.branch().key_by(|n| n % 3).fold("counts", 0u64, |count, _| *count += 1).sink("out", discard());
    /// numbers.branch().sink("all", discard());
    /// assert_eq!(
    ///     job.build()?.describe(),
    ///     "job count\n\
    ///      task 0: source \"numbers\" -> filter\n\
    ///      \x20   -> key_by ==> task 1\n\
    ///      \x20   -> sink \"all\"\n\
    ///      task 1: fold \"counts\" -> sink \"out\"\n"
    /// );
    /// # Ok::<(), cutwater_dataflow::GraphError>(())
    /// ```
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("job {}\n", self.name);
        for task in &self.tasks {
            text += &format!("{}: ", task.task);
            self.describe_from(task, 0, 1, &mut text);
        }
        text
    }

    /// The operator and what is behind it; branches are indented by `depth`.
    fn describe_from(&self, task: &TaskSpec, at: usize, depth: usize, text: &mut String) {
        *text += &task.operators[at].to_string();
        if let Some(output) = task.outputs.iter().find(|output| usize::from(output.operator) == at) {
            let reader = self.reader(output.edge);
            *text += &format!(" ==> {}", reader.task);
            let several = reader.inputs.iter().any(|input| input.input > 0);
            if let Some(input) = reader.inputs.iter().find(|input| several && input.edge == output.edge) {
                *text += &format!(", input {}", input.input + 1);
            }
        }
        let behind = |other: &Option<u16>| other.is_some_and(|before| usize::from(before) == at);
        let next: Vec<_> = (0..task.operators.len()).filter(|&other| behind(&task.after[other])).collect();
        if let [only] = next[..]
            && task.operators[only].kind != OperatorKind::SideOutput
        {
            *text += " -> ";
            return self.describe_from(task, only, depth, text);
        }
        text.push('\n');
        for branch in next {
            *text += &format!("{}-> ", "    ".repeat(depth));
            self.describe_from(task, branch, depth + 1, text);
        }
    }
}

impl fmt::Debug for JobGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// What is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two operators have the same uid: their state could not be told apart.
    #[error("the uid {uid} is given twice: to {first} and to {second}; give one of them another")]
    DuplicateUid {
        /// The uid.
        uid: OperatorUid,
        /// The operator that had it first.
        first: String,
        /// The operator that took it again.
        second: String,
    },
    /// A uid that can't be one.
    #[error("uid of a {operator}")]
    Uid {
        /// The kind of operator.
        operator: String,
        /// Why not.
        #[source]
        error: InvalidUid,
    },
    /// The job's name can't be one.
    #[error("name of the job")]
    Name {
        /// Why not.
        #[source]
        error: InvalidUid,
    },
    /// The states that an operator declares can't be.
    #[error(transparent)]
    States(#[from] crate::StatesError),
    /// The `open` of an operator failed while the stream was written.
    #[error("operator {operator} can't be opened: {reason}")]
    Open {
        /// The operator.
        operator: OperatorUid,
        /// What it said.
        reason: String,
    },
    /// A stream has no end, so that nobody takes its records.
    #[error("the records of {operators} go nowhere; process them and end the stream in a sink, or remove it")]
    Unfinished {
        /// The operators of the stream, from the last exchange on.
        operators: String,
    },
    /// A side output was taken twice.
    #[error("side output {name:?} of {operator} is taken twice; take it once and fan it out, or give one another name")]
    DuplicateSideOutput {
        /// Its name.
        name: &'static str,
        /// The operator.
        operator: String,
    },
    /// Streams of two jobs were joined.
    #[error("{what} joins a stream of job {job} with one of job {other}; both must come from the same job")]
    OtherJob {
        /// What joins them.
        what: &'static str,
        /// The job of the first stream.
        job: String,
        /// The job of the other.
        other: String,
    },
    /// A source was given an idleness of zero: it would be idle between any two records.
    #[error("source {operator} has an idleness of zero: give it the longest silence that is usual, or leave it out")]
    Idleness {
        /// The source.
        operator: OperatorUid,
    },
    /// There is nothing to run.
    #[error("job {job} has no stream that ends in a sink; add a source and a sink")]
    Empty {
        /// The job.
        job: String,
    },
}

impl GraphError {
    /// What an `open` said while the stream was written.
    pub(crate) fn of_open(operator: &OperatorUid, error: UserError) -> Self {
        match error.downcast::<crate::StatesError>() {
            Ok(error) => Self::States(*error),
            Err(error) => Self::Open { operator: operator.clone(), reason: error.to_string() },
        }
    }

    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DuplicateUid { .. } => "GRF0001",
            Self::Uid { .. } => "GRF0002",
            Self::Name { .. } => "GRF0003",
            Self::Unfinished { .. } => "GRF0004",
            Self::Empty { .. } => "GRF0005",
            Self::DuplicateSideOutput { .. } => "GRF0006",
            Self::OtherJob { .. } => "GRF0007",
            Self::States(_) => "GRF0008",
            Self::Open { .. } => "GRF0009",
            Self::Idleness { .. } => "GRF0010",
        }
    }
}
