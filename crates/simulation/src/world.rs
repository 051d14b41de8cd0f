//! The world: a clock, processes, channels, a network, a store, a disk; one decision after the other.

mod actions;
mod ending;
mod events;
mod flow;
mod import;
mod log;
mod meddle;
mod native;
mod planted;
mod publish;
mod restore;
mod savepoint;
mod start;
mod tier;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{Epoch, MaxParallelism, Moment};
use cutwater_dataflow::JobGraph;
use cutwater_storage::{Files, LocalFolder, MemoryFiles};

use crate::choices::Choices;
use crate::config::WorldConfig;
use crate::disk::STORE;
use crate::generated::GeneratedJudge;
use crate::job;
use crate::marks::{Mark, Marks};
use crate::mutant::Mutant;
use crate::oracle::{Judge, Oracle};
use crate::process::{LateOp, Process};
use crate::shared::{Handle, Probe, ProcessId, Rule, Violation};
use crate::store::Objects;
use crate::trace::Trace;

pub(crate) use events::Entity;
use events::Event;

/// What a world runs.
pub(crate) trait Subject: Send + Sync {
    /// The graph, with sinks that write to these files. Called for each process.
    fn graph(&self, probe: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, String>;

    /// Who judges a run.
    fn judge(&self, config: &WorldConfig, shared: &Handle) -> Box<dyn Judge>;
}

/// A job made from the pipelines of the configuration.
pub(crate) struct Generated(pub(crate) WorldConfig);

impl Subject for Generated {
    fn graph(&self, probe: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, String> {
        job::graph(&self.0, probe, files).map_err(|error| error.to_string())
    }

    fn judge(&self, config: &WorldConfig, shared: &Handle) -> Box<dyn Judge> {
        Box::new(GeneratedJudge::new(config, shared))
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) marks: Marks,
    pub(crate) steps: u32,
    pub(crate) checkpoints: u64,
    pub(crate) hash: u64,
    pub(crate) tape: Vec<u32>,
    pub(crate) trace: Option<Trace>,
}

/// See the module.
pub(crate) struct World<'a> {
    config: WorldConfig,
    subject: &'a dyn Subject,
    mutant: Option<Mutant>,
    max_parallelism: MaxParallelism,
    shared: Handle,
    now: Moment,
    disk: MemoryFiles,
    /// The folder of checkpoints as it is, without faults: for the oracle.
    raw_folder: LocalFolder,
    objects: Objects,
    late: Vec<LateOp>,
    /// Until then nobody reaches the store.
    outage_until: Moment,
    /// Savepoints that were made.
    savepoints: Vec<CompletedCheckpoint>,
    /// The files that they hold.
    savepoint_files: BTreeMap<String, Vec<u8>>,
    processes: BTreeMap<ProcessId, Process>,
    started: ProcessId,
    oracle: Oracle,
    steps: u32,
    healed_at: Option<u32>,
    /// The newest epoch that was opened.
    epoch: Epoch,
    /// Epochs of processes with tiers below their tables.
    tiered: BTreeSet<Epoch>,
    over: bool,
    events: Vec<Event>,
    /// For the search by priorities: who goes first, and how often that has changed.
    demoted: BTreeMap<Entity, u64>,
    checkpoints: u64,
    trace: Option<Trace>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        config: &WorldConfig,
        subject: &'a dyn Subject,
        mutant: Option<Mutant>,
        choices: Choices,
        traced: bool,
    ) -> Self {
        let max_parallelism = MaxParallelism::new(u32::from(config.max_parallelism)).unwrap_or_default();
        let shared = Handle::new(choices, config.rates, config.exactly_once);
        let disk = MemoryFiles::new();
        let raw_files: Arc<dyn Files> = Arc::new(disk.clone());
        let judge = subject.judge(config, &shared);
        Self {
            oracle: Oracle::new(&shared, &disk, judge, config.retained, config.slots_per_boundary),
            config: config.clone(),
            subject,
            mutant,
            max_parallelism,
            shared,
            now: Moment::ZERO,
            raw_folder: LocalFolder::with_files(STORE, raw_files),
            disk,
            objects: Objects::default(),
            late: Vec::new(),
            outage_until: Moment::ZERO,
            savepoints: Vec::new(),
            savepoint_files: BTreeMap::new(),
            processes: BTreeMap::new(),
            started: 0,
            steps: 0,
            healed_at: None,
            epoch: Epoch(0),
            tiered: BTreeSet::new(),
            over: false,
            events: Vec::new(),
            demoted: BTreeMap::new(),
            checkpoints: 0,
            trace: traced.then(Trace::default),
        }
    }

    /// Runs until the job is over and all is quiet, or a rule is broken.
    pub(crate) fn run(mut self) -> Outcome {
        while !self.over && self.shared.lock().violation.is_none() {
            self.step();
        }
        if self.over {
            self.check_end();
        }
        // What processes drop writes to the shared part once more.
        self.processes.clear();
        let mut shared = self.shared.lock();
        let choices = std::mem::replace(&mut shared.choices, Choices::from_tape(Vec::new()));
        Outcome {
            violation: shared.violation.take(),
            marks: std::mem::take(&mut shared.marks),
            steps: self.steps,
            checkpoints: self.checkpoints,
            hash: choices.hash(),
            tape: choices.into_tape(),
            trace: self.trace.take(),
        }
    }

    fn check_end(&mut self) {
        self.oracle.check_end(self.epoch);
        if let Some(left) = self.oracle.leftovers().first() {
            let left = left.display().to_string();
            self.shared.violated(Rule::Orphan, || format!("{left} is left of the output that was not published"));
        }
    }

    fn hit(&self, mark: Mark) {
        self.shared.hit(mark);
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn violated(&self, rule: Rule, detail: impl FnOnce() -> String) {
        self.shared.violated(rule, detail);
    }

    /// Adds a line to the trace, if there is one.
    fn tell(&mut self, who: Entity, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.tell(self.steps, self.now, who, text());
        }
    }

    /// The faults stop: sleepers wake, what was late comes now or never.
    fn heal(&mut self) {
        self.healed_at = Some(self.steps);
        self.shared.lock().choices.faults = false;
        while !self.late.is_empty() {
            self.land_late();
        }
        let now = self.now;
        self.outage_until = now;
        for process in self.processes.values_mut() {
            process.paused_until = process.paused_until.map(|until| until.min(now));
            process.stalled_until = now;
        }
        self.tell(Entity::World, || "no more faults".to_owned());
    }

    fn is_healed(&self) -> bool {
        self.healed_at.is_some()
    }
}
