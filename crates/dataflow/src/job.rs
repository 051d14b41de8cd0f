//! A job being written: what its streams have become so far.

use std::cell::{RefCell, RefMut};
use std::sync::Arc;

use cutwater_core::{EdgeId, OperatorUid, TaskId};

use crate::graph::{BuildChain, EdgeSpec, GraphError, InputSpec, JobGraph, MakeCommitter, OutputSpec, TaskSpec};
use crate::read::SourceHead;
use crate::source::Source;
use crate::stage::Identity;
use crate::stream::{OperatorSpec, Stream};

/// A job being written: sources begin streams, sinks end them, [`Job::build`] makes the [`JobGraph`].
pub struct Job {
    draft: RefCell<Draft>,
}

impl Job {
    /// An empty job. Its name becomes the folder of its checkpoints: 1 to 200 letters, digits, `-`, `_` or `.`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let errors = OperatorUid::new(name).err().map(|error| GraphError::Name { error }).into_iter().collect();
        let draft = Draft { name: name.to_owned(), tasks: Vec::new(), edges: Vec::new(), uids: Vec::new(), errors };
        Self { draft: RefCell::new(draft) }
    }

    /// Reads an input. The uid names its positions in checkpoints.
    pub fn source<S: Source>(&self, uid: &str, source: S) -> Stream<'_, SourceHead<S>, Identity<S::Record>> {
        let uid = self.draft().take_uid(uid, "source");
        let head = SourceHead { uid, source: Arc::new(source), idleness: None };
        Stream::begin(self, head, &[])
    }

    /// Finishes the graph.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it: a bad or repeated uid, a stream without an end, no source at all.
    pub fn build(self) -> Result<JobGraph, GraphError> {
        self.draft.into_inner().build()
    }

    pub(crate) fn draft(&self) -> RefMut<'_, Draft> {
        self.draft.borrow_mut()
    }

    /// Notes an error if a stream of another job is to be joined with one of this.
    pub(crate) fn same_as(&self, other: &Self, what: &'static str) {
        if !std::ptr::eq(self, other) {
            let other = other.draft().name.clone();
            let mut draft = self.draft();
            let job = draft.name.clone();
            draft.errors.push(GraphError::OtherJob { what, job, other });
        }
    }
}

/// The graph so far.
pub(crate) struct Draft {
    name: String,
    tasks: Vec<TaskDraft>,
    edges: Vec<EdgeDraft>,
    uids: Vec<(OperatorUid, String)>,
    pub(crate) errors: Vec<GraphError>,
}

struct TaskDraft {
    operators: Vec<OperatorSpec>,
    after: Vec<Option<u16>>,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
    parallelism_limit: u32,
    /// Set when the stream that begins the task has ended.
    build: Option<BuildChain>,
    committers: Vec<(OperatorUid, MakeCommitter)>,
    /// The last operators of streams that have not ended.
    open: Vec<u16>,
}

struct EdgeDraft {
    from: usize,
    operator: u16,
    to: Option<usize>,
}

impl Draft {
    /// Checks a uid. What is wrong is kept until [`Job::build`], so that streams can be written without `?`.
    pub(crate) fn take_uid(&mut self, uid: &str, name: &str) -> OperatorUid {
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

    /// A task begins with this operator, on these edges; says which task it is.
    pub(crate) fn begin(&mut self, head: OperatorSpec, parallelism_limit: u32, edges: &[(EdgeId, u8)]) -> usize {
        let task = self.tasks.len();
        for (edge, _) in edges {
            self.edges[edge.0 as usize].to = Some(task);
        }
        self.tasks.push(TaskDraft {
            operators: vec![head],
            after: vec![None],
            inputs: edges.iter().map(|&(edge, input)| InputSpec { edge, input }).collect(),
            outputs: Vec::new(),
            parallelism_limit,
            build: None,
            committers: Vec::new(),
            open: vec![0],
        });
        task
    }

    /// One more stream goes on behind the operator.
    pub(crate) fn open(&mut self, task: usize, last: u16) {
        self.tasks[task].open.push(last);
    }

    /// A stream that went on behind the operator has ended.
    pub(crate) fn close(&mut self, task: usize, last: u16) {
        let open = &mut self.tasks[task].open;
        if let Some(at) = open.iter().position(|other| *other == last) {
            open.swap_remove(at);
        }
    }

    /// An operator behind another one; says its place in the task.
    pub(crate) fn operator(&mut self, task: usize, after: u16, operator: OperatorSpec) -> u16 {
        let draft = &mut self.tasks[task];
        let place = u16::try_from(draft.operators.len()).unwrap_or(u16::MAX);
        draft.operators.push(operator);
        draft.after.push(Some(after));
        place
    }

    /// A side output of the operator; says its place in the task. It is open.
    pub(crate) fn side_output(&mut self, task: usize, after: u16, side: OperatorSpec) -> u16 {
        let taken = |other: &OperatorSpec| other.kind == side.kind && other.name == side.name;
        if self.tasks[task].operators.iter().any(taken) {
            let operator = self.tasks[task].way_to(after);
            self.errors.push(GraphError::DuplicateSideOutput { name: side.name, operator });
        }
        let place = self.operator(task, after, side);
        self.open(task, place);
        place
    }

    /// An edge that the operator sends over; says also which output of the task it is.
    pub(crate) fn output(&mut self, task: usize, operator: u16) -> (EdgeId, usize) {
        let edge = EdgeId(u32::try_from(self.edges.len()).unwrap_or(u32::MAX));
        self.edges.push(EdgeDraft { from: task, operator, to: None });
        let outputs = &mut self.tasks[task].outputs;
        outputs.push(OutputSpec { edge, operator });
        (edge, outputs.len() - 1)
    }

    pub(crate) fn committer(&mut self, task: usize, uid: OperatorUid, make: MakeCommitter) {
        self.tasks[task].committers.push((uid, make));
    }

    /// The stream that begins the task has ended.
    pub(crate) fn set_build(&mut self, task: usize, build: BuildChain) {
        self.tasks[task].build = Some(build);
    }

    fn build(mut self) -> Result<JobGraph, GraphError> {
        if !self.errors.is_empty() {
            return Err(self.errors.remove(0));
        }
        if self.tasks.iter().all(|task| task.build.is_none()) {
            return Err(GraphError::Empty { job: self.name });
        }
        let unread = self.edges.iter().find(|edge| edge.to.is_none()).map(|edge| (edge.from, edge.operator));
        let open = || self.tasks.iter().enumerate().find_map(|(task, draft)| Some((task, *draft.open.first()?)));
        if let Some((task, last)) = unread.or_else(open) {
            return Err(GraphError::Unfinished { operators: self.tasks[task].way_to(last) });
        }
        let id = |task: usize| TaskId(u32::try_from(task).unwrap_or(u32::MAX));
        let edge = |(at, edge): (usize, &EdgeDraft)| {
            Some(EdgeSpec {
                edge: EdgeId(u32::try_from(at).unwrap_or(u32::MAX)),
                from: id(edge.from),
                to: id(edge.to?),
            })
        };
        let edges = self.edges.iter().enumerate().filter_map(edge).collect();
        let task = |(task, draft): (usize, TaskDraft)| {
            let TaskDraft { operators, after, inputs, outputs, parallelism_limit, build, committers, .. } = draft;
            let build = build?;
            Some(TaskSpec { task: id(task), operators, after, inputs, outputs, parallelism_limit, build, committers })
        };
        let tasks = self.tasks.into_iter().enumerate().filter_map(task).collect();
        Ok(JobGraph { name: self.name, tasks, edges })
    }
}

impl TaskDraft {
    /// The operators from the first to this one, for people.
    fn way_to(&self, last: u16) -> String {
        let mut way = Vec::new();
        let mut next = Some(last);
        while let Some(at) = next {
            way.extend(self.operators.get(usize::from(at)).map(ToString::to_string));
            next = self.after.get(usize::from(at)).copied().flatten();
        }
        way.reverse();
        way.join(" -> ")
    }
}
