//! How an attempt starts: publish, sweep, build, restore, a step at a time.

use std::collections::{BTreeSet, VecDeque};

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{Attempt, CheckpointId, SubtaskId};
use cutwater_dataflow::CommitContext;
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_driver::is_native;
use cutwater_restart::FailureClass;
use cutwater_storage::Store;
use cutwater_task::{RestoredBase, TaskCore, TaskSnapshot, TaskStart};

use super::World;
use super::ending::StartFailure;
use super::events::Entity;
use super::import::Restored;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{Process, Running, Stage, Starting, subtasks};
use crate::shared::ProcessId;

impl World<'_> {
    pub(super) fn begin_start(
        &mut self,
        id: ProcessId,
        attempt: Attempt,
        restore: Option<Box<CompletedCheckpoint>>,
        handles: Vec<OperatorSnapshot>,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let reign = process.driver.coordinator().epoch().unwrap_or(process.epoch);
        let passed: BTreeSet<CheckpointId> = process.damaged.intersection(&process.fell_from).copied().collect();
        let foreign = process.from_savepoint;
        if restore.is_none() {
            self.begin_anew(reign);
        }
        self.oracle.told_restore(reign, restore.as_deref(), &passed, foreign);
        let restore = match self.is(Mutant::RestoreOlder) {
            true => self.older_than(restore),
            false => restore,
        };
        self.tell(Entity::Driver(id), || {
            let from = restore.as_ref().map(|checkpoint| checkpoint.checkpoint.0);
            format!("starts attempt {attempt} from checkpoint {from:?}")
        });
        let from = restore.as_ref().map(|checkpoint| {
            let parallelism = checkpoint.tasks.iter().map(|task| task.parallelism).max();
            (parallelism, checkpoint.tasks.iter().map(|task| task.parallelism).collect::<Vec<_>>())
        });
        let Some(process) = self.processes.get_mut(&id) else { return };
        let now: Vec<u32> = process.graph.tasks().iter().map(|spec| spec.parallelism(process.parallelism)).collect();
        let rescaled = from.as_ref().is_some_and(|(_, before)| *before != now);
        let first = process.attempt == Attempt(0);
        let from_savepoint = process.from_savepoint;
        process.attempt = attempt;
        process.starting = Some(Starting {
            attempt,
            handles: if self.mutant == Some(Mutant::NoRecommit) { VecDeque::new() } else { handles.into() },
            stage: if self.mutant == Some(Mutant::SweepBeforeRecommit) { Stage::Committers } else { Stage::SweepStore },
            cores: Vec::new(),
            to_build: subtasks(&process.graph, process.parallelism).collect(),
            reading: None,
            tries: 0,
            restore,
        });
        if first && from_savepoint {
            self.hit(Mark::FromSavepoint);
        }
        match (first, from.is_some()) {
            (true, true) => self.hit(Mark::OpenedWithCheckpoint),
            (true, false) => self.hit(Mark::OpenedEmpty),
            (false, _) => {}
        }
        if rescaled {
            self.hit(Mark::Rescaled);
        }
    }

    pub(super) fn older_than(&self, restore: Option<Box<CompletedCheckpoint>>) -> Option<Box<CompletedCheckpoint>> {
        let newest = restore?;
        let older = self.oracle.retained().filter(|other| other.checkpoint < newest.checkpoint).last().cloned();
        Some(older.map_or(newest, Box::new))
    }

    /// The next step of starting an attempt.
    pub(super) fn start_step(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(mut starting) = process.starting.take() else { return };
        let (attempt, done) = (starting.attempt, self.next_step(id, &mut starting));
        if self.shared.is_dead(id) {
            return;
        }
        let now = self.now;
        match done {
            Ok(false) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.starting = Some(starting);
                }
            }
            Ok(true) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                process.running = Some(Running::new(&process.graph, process.parallelism, attempt, starting.cores));
                process.noticed.clear();
                self.tell(Entity::Driver(id), || format!("attempt {attempt} runs"));
                self.with_driver(id, |driver| driver.handle_started(now, attempt, Ok(())));
            }
            Err(failure) => {
                self.hit(Mark::FailedStart);
                let StartFailure { class, reason, kind } = failure;
                self.tell(Entity::Driver(id), || format!("attempt {attempt} can't be started: {reason}"));
                let restored = starting.restore.as_ref().map(|restore| restore.checkpoint);
                if !self.goes_back(id, attempt, restored, kind, reason) {
                    self.with_driver(id, |driver| driver.handle_started(now, attempt, Err(class)));
                }
            }
        }
    }

    pub(super) fn next_step(&mut self, id: ProcessId, starting: &mut Starting) -> Result<bool, StartFailure> {
        let failed = StartFailure::recoverable;
        let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
        match starting.stage {
            Stage::SweepStore => {
                if starting.attempt == Attempt(1) && !self.config.object_store {
                    // A sweep that fails is no reason not to start.
                    let _ = process.folder.sweep_leftovers("");
                }
                starting.stage = Stage::Committers;
            }
            Stage::Committers => {
                make_committers(process, starting.attempt).map_err(failed)?;
                let early = self.mutant == Some(Mutant::SweepBeforeRecommit);
                starting.stage = Stage::Publish;
                if early {
                    let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
                    sweep_sinks(process).map_err(failed)?;
                }
            }
            Stage::Publish => match starting.handles.pop_front() {
                Some(handle) => {
                    self.hit(Mark::CommitOnRestore);
                    self.publish(id, &handle, &mut starting.tries)
                        .map_err(failed)?
                        .then_some(())
                        .map_or_else(|| starting.handles.push_front(handle.clone()), |()| starting.tries = 0);
                }
                None => {
                    if let (Some(restore), false) = (&starting.restore, self.mutant == Some(Mutant::RestoreOlder)) {
                        self.oracle.told_published(process.epoch, restore.checkpoint);
                    }
                    starting.stage = Stage::SweepSinks;
                }
            },
            Stage::SweepSinks => {
                sweep_sinks(process).map_err(failed)?;
                starting.stage = Stage::Build;
            }
            Stage::Build => {
                let Starting { restore, reading, to_build, .. } = &mut *starting;
                let Some(&subtask) = to_build.front() else { return Ok(true) };
                if let Some(checkpoint) = restore.as_deref() {
                    let restored = self.restored(id, checkpoint, subtask);
                    if reading.is_none() && !reading.insert(self.open_images(id, restored)?).images.is_empty()
                        || self.read_image(id, reading, restored)?
                    {
                        return Ok(false);
                    }
                }
                starting.to_build.pop_front();
                let core = self.build(id, starting, subtask)?;
                starting.reading = None;
                starting.cores.push(core);
            }
        }
        Ok(false)
    }

    /// What a subtask is restored from.
    fn restored<'a>(&self, id: ProcessId, checkpoint: &'a CompletedCheckpoint, subtask: SubtaskId) -> Restored<'a> {
        let task = subtask.task.0 as usize;
        let parallelism =
            self.processes.get(&id).map_or(1, |process| process.graph.tasks()[task].parallelism(process.parallelism));
        let groups = checkpoint.max_parallelism;
        Restored { checkpoint, subtask, groups, range: groups.range_of(subtask.index, parallelism) }
    }

    pub(super) fn build(
        &mut self,
        id: ProcessId,
        starting: &Starting,
        subtask: SubtaskId,
    ) -> Result<TaskCore, StartFailure> {
        let failed = StartFailure::recoverable;
        let Some(process) = self.processes.get(&id) else { return Err(failed(String::new())) };
        let graph = std::sync::Arc::clone(&process.graph);
        let spec = &graph.tasks()[subtask.task.0 as usize];
        let (epoch, parallelism) = (process.epoch, process.parallelism);
        let groups = starting.restore.as_ref().map_or(process.told_groups, |restore| restore.max_parallelism);
        let mut start = TaskStart {
            subtask,
            parallelism,
            max_parallelism: groups,
            epoch,
            attempt: starting.attempt,
            from_nothing: starting.restore.is_none(),
            restored: Vec::new(),
            base: None,
            tier: self.tier_for(id, subtask, groups),
        };
        let mut files = Vec::new();
        let mut own = None;
        let mut rescaled = false;
        if let Some(checkpoint) = &starting.restore {
            let mine = checkpoint.tasks.iter().filter(|task| task.task == subtask.task).flat_map(|task| &task.subtasks);
            let task = checkpoint.tasks.iter().find(|task| task.task == subtask.task);
            let anyhow = self.is(Mutant::BaseOfAnotherShare);
            rescaled = task.is_some_and(|task| task.parallelism != spec.parallelism(parallelism));
            let same = task.is_some_and(|task| task.parallelism == spec.parallelism(parallelism) || anyhow);
            for part in mine {
                if same && part.subtask == subtask {
                    let bytes = part.files.iter().map(|file| file.bytes).collect();
                    start.base = Some(RestoredBase { checkpoint: checkpoint.checkpoint, files: bytes });
                    own = Some(part.files.clone());
                }
                start.restored.push(TaskSnapshot::decode(&part.inline).map_err(|error| failed(error.to_string()))?);
                let beside: Vec<_> = part.files.iter().filter(|file| !is_native(file)).cloned().collect();
                if !beside.is_empty() {
                    files.push(beside);
                }
            }
        }
        let images = starting.restore.as_deref().zip(starting.reading.as_ref());
        let images = images.filter(|(_, reading)| !reading.images.is_empty());
        let images = images.map(|(checkpoint, reading)| (reading, self.restored(id, checkpoint, subtask)));
        if let Some((reading, restored)) = images {
            self.import(id, starting, reading, restored)?;
        }
        if self.is(Mutant::WatermarkAhead) && !start.restored.is_empty() {
            for part in &mut start.restored {
                part.watermark = part.watermark.saturating_add(3_000);
            }
        }
        let mut settings = self.config.task();
        if self.is(Mutant::NoAlignment) {
            settings.mode = cutwater_barrier::Mode::AtLeastOnce;
        }
        if self.is(Mutant::NoCredit) {
            settings.window_bytes = 1 << 40;
        }
        let mut core = TaskCore::new(&graph, &start, settings).map_err(|error| {
            let class =
                if error.is_non_recoverable() { FailureClass::NonRecoverable } else { FailureClass::Recoverable };
            StartFailure { class, ..StartFailure::recoverable(error.to_string()) }
        })?;
        if let Some(lost) = core.dropped_states().first() {
            return Err(failed(format!("the state {} of {} would be lost", lost.state, lost.operator)));
        }
        if let Some((reading, restored)) = images {
            self.claim(id, &mut core, reading, restored)?;
        }
        let mut range = groups.range_of(subtask.index, spec.parallelism(parallelism));
        if self.is(Mutant::GroupLost) && parallelism > 1 && range.last > range.first {
            range.last.0 -= 1;
        }
        let restored = files.len();
        for chain in files {
            let contents = self.restore_chain(id, &mut core, &chain, range)?;
            let Some((process, base)) = self.processes.get_mut(&id).zip(start.base.as_ref()) else { continue };
            if own.as_ref() == Some(&chain) {
                let key = (starting.attempt, subtask);
                process.chains.entry(key).or_default().insert(base.checkpoint, chain);
                process.contents.entry(key).or_default().insert(base.checkpoint, contents);
            }
        }
        self.mark_tier(id, &core, starting.restore.as_deref().filter(|_| restored > 0), rescaled);
        Ok(core)
    }
}

fn make_committers(process: &mut Process, attempt: Attempt) -> Result<(), String> {
    process.committers.clear();
    let graph = std::sync::Arc::clone(&process.graph);
    for (operator, make) in graph.tasks().iter().flat_map(|task| &task.committers) {
        let context =
            CommitContext { job: graph.name().to_owned(), operator: operator.clone(), epoch: process.epoch, attempt };
        let committer = make(&context).map_err(|error| error.to_string())?;
        process.committers.insert(operator.clone(), committer);
    }
    Ok(())
}

fn sweep_sinks(process: &mut Process) -> Result<(), String> {
    process.committers.values_mut().try_for_each(|committer| committer.sweep()).map_err(|error| error.to_string())
}
