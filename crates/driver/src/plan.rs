use cutwater_coordinator::{Plan, PlanInput, TaskPlan};
use cutwater_dataflow::{JobGraph, TaskSpec};

/// What the coordinator is told of a graph that runs at this parallelism.
#[must_use]
pub fn plan_of(graph: &JobGraph, parallelism: u32) -> Plan {
    let task = |task: &TaskSpec| TaskPlan {
        task: task.task,
        name: task.name(),
        operators: task.uids().cloned().collect(),
        parallelism: task.parallelism(parallelism),
        inputs: task
            .inputs
            .iter()
            .map(|input| PlanInput { from: graph.writer(input.edge).task, pointwise: false })
            .collect(),
    };
    Plan { tasks: graph.tasks().iter().map(task).collect() }
}
