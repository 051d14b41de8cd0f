use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use cutwater_core::{EdgeId, TaskId};

/// Which tasks there are and which edges join them. Edges connect all subtasks of one task with all of another, and the
/// graph has no cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The tasks, in any order.
    pub tasks: Vec<TaskLayout>,
    /// The edges, in any order.
    pub edges: Vec<EdgeLayout>,
}

/// One task of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLayout {
    /// The task.
    pub task: TaskId,
    /// How many subtasks it has, at least 1.
    pub parallelism: u32,
    /// The edges that end here. Their order numbers the input channels: that of sender subtask `s` on the input edge `k`
    /// is the sum of the senders' parallelism over the edges before `k`, plus `s`.
    pub inputs: Vec<EdgeId>,
    /// The edges that begin here.
    pub outputs: Vec<EdgeId>,
}

/// One edge of a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLayout {
    /// The edge.
    pub edge: EdgeId,
    /// The task that lists it among its outputs.
    pub from: TaskId,
    /// The task that lists it among its inputs.
    pub to: TaskId,
}

/// Why a [`Layout`] cannot be hosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Two tasks have the same id.
    #[error("{task} is there twice")]
    RepeatedTask {
        /// The id.
        task: TaskId,
    },
    /// Two edges have the same id, or a task lists one edge twice.
    #[error("{edge} is there twice")]
    RepeatedEdge {
        /// The id.
        edge: EdgeId,
    },
    /// A task has no subtask.
    #[error("{task} has parallelism 0; it must be at least 1")]
    NoSubtask {
        /// The task.
        task: TaskId,
    },
    /// An edge and a task do not say the same about where the edge begins or ends.
    #[error("{edge} and {task} disagree on whether they are joined")]
    Mismatch {
        /// The edge.
        edge: EdgeId,
        /// A task that lists the edge or is named by it.
        task: TaskId,
    },
    /// The edges form a cycle.
    #[error("{task} is part of a cycle or behind one; a graph of tasks must have none")]
    Cycle {
        /// One of its tasks.
        task: TaskId,
    },
}

/// Where the subtasks of one task are: subtask `i` on worker `(offset + i) % workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) parallelism: u32,
    offset: usize,
    workers: usize,
}

impl Placement {
    pub(super) fn worker(self, subtask: u32) -> usize {
        (self.offset + subtask as usize) % self.workers
    }

    /// The place of a subtask among those of its task that share its worker, in order of their indices.
    pub(super) fn slot(self, subtask: u32) -> usize {
        subtask as usize / self.workers
    }
}

/// One task as the workers build it.
#[derive(Debug)]
pub(super) struct TaskPlan {
    pub(super) task: TaskId,
    pub(super) placement: Placement,
    /// The input edges in channel order, each with the placement of its senders.
    pub(super) inputs: Vec<(EdgeId, Placement)>,
    /// The output edges, each with the placement of its receivers.
    pub(super) outputs: Vec<(EdgeId, Placement)>,
}

/// A checked layout: the tasks in an order in which each edge points forward.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tasks: Vec<TaskPlan>,
}

impl Plan {
    pub(super) fn new(layout: &Layout, workers: NonZeroUsize) -> Result<Self, LayoutError> {
        let (tasks, edges) = checked(layout)?;
        let order = topological(&tasks, &edges)?;
        let placements = place(&order, workers.get());
        let ends = |of: &[EdgeId], end: fn(&EdgeLayout) -> TaskId| {
            of.iter().map(|edge| (*edge, placements[&end(edges[edge])])).collect()
        };
        let plan = |task: &&TaskLayout| TaskPlan {
            task: task.task,
            placement: placements[&task.task],
            inputs: ends(&task.inputs, |edge| edge.from),
            outputs: ends(&task.outputs, |edge| edge.to),
        };
        Ok(Self { tasks: order.iter().map(plan).collect() })
    }
}

type Tasks<'a> = BTreeMap<TaskId, &'a TaskLayout>;
type Edges<'a> = BTreeMap<EdgeId, &'a EdgeLayout>;

/// The layout by id, if tasks and edges agree on each other.
fn checked(layout: &Layout) -> Result<(Tasks<'_>, Edges<'_>), LayoutError> {
    let mut tasks = BTreeMap::new();
    for task in &layout.tasks {
        if task.parallelism == 0 {
            return Err(LayoutError::NoSubtask { task: task.task });
        }
        if tasks.insert(task.task, task).is_some() {
            return Err(LayoutError::RepeatedTask { task: task.task });
        }
    }
    let mut edges = BTreeMap::new();
    for edge in &layout.edges {
        if edges.insert(edge.edge, edge).is_some() {
            return Err(LayoutError::RepeatedEdge { edge: edge.edge });
        }
        let lists = |task: TaskId, list: fn(&TaskLayout) -> &Vec<EdgeId>| match tasks.get(&task) {
            Some(found) if list(found).contains(&edge.edge) => Ok(()),
            _ => Err(LayoutError::Mismatch { edge: edge.edge, task }),
        };
        lists(edge.from, |task| &task.outputs)?;
        lists(edge.to, |task| &task.inputs)?;
    }
    for task in &layout.tasks {
        joined(&task.inputs, task.task, &edges, |edge| edge.to)?;
        joined(&task.outputs, task.task, &edges, |edge| edge.from)?;
    }
    Ok((tasks, edges))
}

/// Whether each edge that `task` lists exists, once, and has its `end` there.
fn joined(list: &[EdgeId], task: TaskId, edges: &Edges<'_>, end: fn(&EdgeLayout) -> TaskId) -> Result<(), LayoutError> {
    let mut seen = BTreeSet::new();
    for &edge in list {
        if !seen.insert(edge) {
            return Err(LayoutError::RepeatedEdge { edge });
        }
        if edges.get(&edge).is_none_or(|found| end(found) != task) {
            return Err(LayoutError::Mismatch { edge, task });
        }
    }
    Ok(())
}

/// The tasks so that each edge points forward; among those possible, the lowest id first.
fn topological<'a>(tasks: &Tasks<'a>, edges: &Edges<'_>) -> Result<Vec<&'a TaskLayout>, LayoutError> {
    let mut waiting = tasks.clone();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some((&first, _)) = waiting.first_key_value() {
        let free = |task: &&TaskLayout| task.inputs.iter().all(|edge| !waiting.contains_key(&edges[edge].from));
        let next = waiting.values().copied().find(free).ok_or(LayoutError::Cycle { task: first })?;
        waiting.remove(&next.task);
        order.push(next);
    }
    Ok(order)
}

/// Spreads the subtasks so that no worker has more than one above another, over all tasks and within each. A task whose
/// parallelism is a multiple of the workers starts at worker 0, so that equal indices of such tasks share a worker;
/// the others begin where the last of them ended.
fn place(order: &[&TaskLayout], workers: usize) -> BTreeMap<TaskId, Placement> {
    let mut next = 0;
    let mut placed = BTreeMap::new();
    for task in order {
        let rest = task.parallelism as usize % workers;
        let offset = if rest == 0 { 0 } else { next };
        next = (next + rest) % workers;
        placed.insert(task.task, Placement { parallelism: task.parallelism, offset, workers });
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(parallelism: &[u32]) -> Layout {
        let task = |(task, &parallelism): (usize, &u32)| TaskLayout {
            task: TaskId(task as u32),
            parallelism,
            inputs: vec![],
            outputs: vec![],
        };
        Layout { tasks: parallelism.iter().enumerate().map(task).collect(), edges: vec![] }
    }

    #[test]
    fn subtasks_are_spread_evenly_and_numbered_without_gaps() {
        let layouts: [&[u32]; 6] = [&[1], &[1, 1, 1, 1, 1], &[3, 3], &[1, 3, 1], &[5, 2, 7, 1, 4], &[100, 1, 99]];
        for parallelism in layouts {
            for workers in 1..=8 {
                let what = format!("{parallelism:?} on {workers}");
                let plan = Plan::new(&tasks(parallelism), NonZeroUsize::new(workers).unwrap()).unwrap();
                let mut load = vec![0; workers];
                for task in &plan.tasks {
                    let mut slots = vec![0; workers];
                    for subtask in 0..task.placement.parallelism {
                        let worker = task.placement.worker(subtask);
                        assert_eq!(task.placement.slot(subtask), slots[worker], "{what}");
                        slots[worker] += 1;
                    }
                    assert!(slots.iter().max().unwrap() - slots.iter().min().unwrap() <= 1, "{what}");
                    load.iter_mut().zip(slots).for_each(|(load, slots)| *load += slots);
                }
                assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1, "{what}: {load:?}");
            }
        }
    }

    #[test]
    fn equal_indices_of_tasks_with_a_subtask_on_each_worker_share_it() {
        let plan = Plan::new(&tasks(&[1, 4, 2, 4]), NonZeroUsize::new(4).unwrap()).unwrap();
        for subtask in 0..4 {
            let worker = plan.tasks[1].placement.worker(subtask);
            assert_eq!(plan.tasks[3].placement.worker(subtask), worker);
        }
    }
}
