use cutwater_coordinator::{Plan, PlanInput, TaskPlan};
use cutwater_core::TaskId;
use cutwater_dataflow::{JobGraph, TaskSpec};

/// What the coordinator is told of a graph that runs at this parallelism.
#[must_use]
pub fn plan_of(graph: &JobGraph, parallelism: u32) -> Plan {
    let task = |task: &TaskSpec| TaskPlan {
        task: task.task,
        name: task.name(),
        operators: task.uids().cloned().collect(),
        parallelism: task.parallelism(parallelism),
        // The edge of task `n` has the number `n`.
        inputs: task.input.map(|edge| PlanInput { from: TaskId(edge.0), pointwise: false }).into_iter().collect(),
    };
    Plan { tasks: graph.tasks().iter().map(task).collect() }
}
