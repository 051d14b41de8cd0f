//! The graph: pure data, taken by the runtime and by the simulation alike.

use std::fmt;
use std::sync::Arc;

use cutwater_core::{EdgeId, InvalidUid, OperatorUid, TaskId};

use crate::UserError;
use crate::exec::{BuildContext, Chain};
use crate::sink::{CommitContext, Committer};
use crate::stream::OperatorSpec;

/// Makes the chain of one subtask.
pub type BuildChain = Arc<dyn Fn(&BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> + Send + Sync>;

/// Makes what publishes the output of a sink.
pub type MakeCommitter = Arc<dyn Fn(&CommitContext) -> Result<Box<dyn Committer>, UserError> + Send + Sync>;

/// A job: its tasks and what connects them.
#[derive(Clone)]
pub struct JobGraph {
    pub(crate) name: String,
    pub(crate) tasks: Vec<TaskSpec>,
}

/// A chain of operators that run fused.
#[derive(Clone)]
pub struct TaskSpec {
    /// Its place in the graph.
    pub task: TaskId,
    /// Its operators, from first to last.
    pub operators: Vec<OperatorSpec>,
    /// The edge it reads; `None` if it begins with a source.
    pub input: Option<EdgeId>,
    /// The edge it writes; `None` if it ends in a sink. The edge of task `n` has the number `n`.
    pub output: Option<EdgeId>,
    /// The number of subtasks that make sense.
    pub parallelism_limit: u32,
    /// Makes the chain of one subtask.
    pub build: BuildChain,
    /// The sink at its end, and what publishes its output.
    pub committer: Option<(OperatorUid, MakeCommitter)>,
}

impl TaskSpec {
    /// What people call it: its operators with an uid, else all.
    #[must_use]
    pub fn name(&self) -> String {
        let uids: Vec<_> = self.operators.iter().filter_map(|operator| operator.uid.as_ref()).collect();
        uids.iter().map(|uid| uid.as_str()).collect::<Vec<_>>().join(" -> ")
    }

    /// Its operators for people.
    pub(crate) fn describe(&self) -> String {
        let operators: Vec<_> = self.operators.iter().map(ToString::to_string).collect();
        operators.join(" -> ")
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

    /// The tasks; their places are their ids.
    #[must_use]
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }

    /// The task that reads the edge.
    ///
    /// # Panics
    ///
    /// If the edge is not of this graph.
    #[must_use]
    pub fn reader(&self, edge: EdgeId) -> &TaskSpec {
        self.tasks.iter().find(|task| task.input == Some(edge)).expect("each edge of a built graph has a reader")
    }

    /// The graph for people: a line per task, with the operators that run fused, and the edges between.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, from_iter, discard};
    /// let mut job = Job::new("count");
    /// job.source("numbers", from_iter(0u64..9))
    ///     .filter(|n| n % 2 == 1)
    ///     .key_by(|n| n % 3)
    ///     .fold("counts", 0u64, |count, _| *count += 1)
    ///     .sink("out", discard());
    /// assert_eq!(
    ///     job.build()?.describe(),
    ///     "job count\n\
    ///      task 0: source \"numbers\" -> filter -> key_by ==> task 1\n\
    ///      task 1: fold \"counts\" -> sink \"out\"\n"
    /// );
    /// # Ok::<(), cutwater_dataflow::GraphError>(())
    /// ```
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("job {}\n", self.name);
        for task in &self.tasks {
            text += &format!("{}: {}", task.task, task.describe());
            if let Some(edge) = task.output {
                text += &format!(" ==> {}", self.reader(edge).task);
            }
            text.push('\n');
        }
        text
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
    /// A stream ends in `key_by`, so that nobody takes its records.
    #[error("the records of {operators} go nowhere; process them and end the stream in a sink, or remove it")]
    Unfinished {
        /// The operators of the stream, from the last exchange on.
        operators: String,
    },
    /// There is nothing to run.
    #[error("job {job} has no stream that ends in a sink; add a source and a sink")]
    Empty {
        /// The job.
        job: String,
    },
}
