//! A job that somebody else wrote: judged by what it writes when nothing fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{CheckpointId, SubtaskId};
use cutwater_dataflow::{JobGraph, UserError};
use cutwater_storage::Files;

use crate::config::WorldConfig;
use crate::job::OUT;
use crate::oracle::{Judge, Part};
use crate::shared::{Handle, Probe};
use crate::world::Subject;

/// What a simulated job writes to. Hand it to the job's file sinks:
/// `lines_sink(env.out()).create_folder().files(env.files())`.
pub struct Env {
    files: Arc<dyn Files>,
}

impl Env {
    /// The folder that the job's sinks must write to, all of them; they are told apart by their uids.
    #[must_use]
    pub fn out(&self) -> &'static Path {
        Path::new(OUT)
    }

    /// The modelled disk that the folder is on.
    #[must_use]
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::clone(&self.files)
    }
}

/// Makes the graph; called for each process of each world.
pub(crate) type Make = Box<dyn Fn(&Env) -> Result<JobGraph, UserError> + Send + Sync>;

/// A job that is given. `expected` are the lines that it writes when nothing fails, with how often each comes.
pub(crate) struct Given {
    pub(crate) make: Make,
    pub(crate) expected: BTreeMap<String, u32>,
}

impl Subject for Given {
    fn graph(&self, _: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, String> {
        (self.make)(&Env { files: Arc::clone(files) }).map_err(|error| error.to_string())
    }

    fn judge(&self, config: &WorldConfig, _: &Handle) -> Box<dyn Judge> {
        Box::new(LinesJudge {
            exactly_once: config.exactly_once,
            rewound: false,
            expected: self.expected.clone(),
            found: BTreeMap::new(),
        })
    }
}

struct LinesJudge {
    exactly_once: bool,
    /// Whether the job has gone back below what it had published.
    rewound: bool,
    expected: BTreeMap<String, u32>,
    found: BTreeMap<String, u32>,
}

impl Judge for LinesJudge {
    fn check_cut(
        &mut self,
        checkpoint: &CompletedCheckpoint,
        parts: &BTreeMap<SubtaskId, &Part>,
    ) -> Result<(), String> {
        let subtasks: usize = checkpoint.tasks.iter().map(|task| task.subtasks.len()).sum();
        match subtasks == parts.len() {
            true => Ok(()),
            false => Err(format!("it has {subtasks} parts, {} snapshots of it were taken", parts.len())),
        }
    }

    fn check_file(&mut self, _: &str, lines: &[String], _: Option<CheckpointId>) -> Result<(), String> {
        for line in lines {
            let times = self.found.entry(line.clone()).or_default();
            *times += 1;
            if self.exactly_once && !self.rewound && *times > self.expected.get(line).copied().unwrap_or(0) {
                return Err(format!("the line {line:?} is there {times} times, which no run without failures writes"));
            }
        }
        Ok(())
    }

    fn check_published(&mut self, _: CheckpointId) -> Result<(), String> {
        Ok(())
    }

    fn rewound(&mut self) {
        self.rewound = true;
    }

    fn begin_anew(&mut self) {
        self.rewound = false;
        self.found.clear();
    }

    fn forget_files(&mut self) {
        self.found.clear();
    }

    fn check_end(&mut self) -> Result<(), String> {
        // At least once, lines may differ: what an operator has counted twice it writes so. Nothing is to be compared.
        let lost = self.expected.iter().find(|(line, times)| self.found.get(*line).unwrap_or(&0) < times);
        match lost {
            Some((line, _)) if self.exactly_once => Err(format!("the line {line:?} is lost")),
            _ => Ok(()),
        }
    }
}

/// Only notes which lines there are.
pub(crate) struct Observed {
    pub(crate) make: Make,
    pub(crate) lines: Arc<std::sync::Mutex<BTreeMap<String, u32>>>,
}

impl Subject for Observed {
    fn graph(&self, _: &Probe, files: &Arc<dyn Files>) -> Result<JobGraph, String> {
        (self.make)(&Env { files: Arc::clone(files) }).map_err(|error| error.to_string())
    }

    fn judge(&self, _: &WorldConfig, _: &Handle) -> Box<dyn Judge> {
        Box::new(Observer(Arc::clone(&self.lines)))
    }
}

struct Observer(Arc<std::sync::Mutex<BTreeMap<String, u32>>>);

impl Judge for Observer {
    fn check_cut(&mut self, _: &CompletedCheckpoint, _: &BTreeMap<SubtaskId, &Part>) -> Result<(), String> {
        Ok(())
    }

    fn check_file(&mut self, _: &str, lines: &[String], _: Option<CheckpointId>) -> Result<(), String> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for line in lines {
            *all.entry(line.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn check_published(&mut self, _: CheckpointId) -> Result<(), String> {
        Ok(())
    }

    fn rewound(&mut self) {}

    fn begin_anew(&mut self) {}

    fn forget_files(&mut self) {}

    fn check_end(&mut self) -> Result<(), String> {
        Ok(())
    }
}
