use cutwater_core::{OperatorUid, SubtaskId, TaskId};

/// What runs in an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The tasks. Those with no `inputs` are sources.
    pub tasks: Vec<TaskPlan>,
}

/// One task of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskPlan {
    /// The task.
    pub task: TaskId,
    /// Its name, for display.
    pub name: String,
    /// The operators fused into it, in order.
    pub operators: Vec<OperatorUid>,
    /// How many subtasks it runs as.
    pub parallelism: u32,
    /// Where its records come from.
    pub inputs: Vec<PlanInput>,
}

/// One input of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanInput {
    /// The task that sends.
    pub from: TaskId,
    /// Whether subtask `i` of `n` hears only the senders whose share of `0..1` overlaps its own (with equal parallelism:
    /// sender `i`), instead of all.
    pub pointwise: bool,
}

impl Plan {
    /// All subtasks, in order.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        self.tasks.iter().flat_map(|task| (0..task.parallelism).map(|index| SubtaskId { task: task.task, index }))
    }

    /// Whether every subtask that sends to this one is `done`. A source has none, so they all are. `task_done` says the
    /// same of all subtasks of a task at once, so that wide exchanges need not be walked.
    pub(crate) fn predecessors_all(
        &self,
        subtask: SubtaskId,
        task_done: impl Fn(&TaskPlan) -> bool,
        done: impl Fn(SubtaskId) -> bool,
    ) -> bool {
        let Some(task) = self.task(subtask.task) else { return true };
        task.inputs.iter().all(|input| {
            let Some(from) = self.task(input.from) else { return true };
            let heard = senders(subtask.index, task.parallelism, from.parallelism);
            task_done(from)
                || (input.pointwise && heard.into_iter().all(|index| done(SubtaskId { task: from.task, index })))
        })
    }

    fn task(&self, task: TaskId) -> Option<&TaskPlan> {
        self.tasks.iter().find(|plan| plan.task == task)
    }
}

/// The senders whose share of `0..1` overlaps that of receiver `index`.
fn senders(index: u32, receivers: u32, senders: u32) -> std::ops::Range<u32> {
    let (index, receivers, senders) = (u64::from(index), u64::from(receivers.max(1)), u64::from(senders));
    let narrow = |n: u64| u32::try_from(n.min(senders)).expect("at most the number of senders, which is a u32");
    narrow(index * senders / receivers)..narrow(((index + 1) * senders).div_ceil(receivers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointwise_receiver_hears_the_senders_that_overlap_it() {
        let cases = [
            ("equal", 2, 4, 4, 2..3),
            ("one sender for two receivers", 3, 4, 2, 1..2),
            ("two senders for one receiver", 1, 2, 4, 2..4),
            ("shares that overlap in part", 1, 3, 2, 0..2),
            ("no sender at all", 0, 3, 0, 0..0),
        ];
        for (name, index, receivers, count, expected) in cases {
            assert_eq!(senders(index, receivers, count), expected, "{name}");
        }
    }
}
