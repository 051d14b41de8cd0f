use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid};

use crate::hosted::Gauges;

/// What a job does, at one moment.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// The job.
    pub job: String,
    /// Where it is in its life.
    pub state: JobState,
    /// The reign of its coordinator; `None` before the claim.
    pub epoch: Option<Epoch>,
    /// The run within the epoch; `None` before the first.
    pub attempt: Option<Attempt>,
    /// How often it was restarted in this process.
    pub restarts: u32,
    /// Why it failed last, if it did.
    pub last_failure: Option<String>,
    /// The checkpoint that the attempt started from.
    pub restored: Option<CheckpointId>,
    /// The operators that started empty, since that checkpoint has nothing of them.
    pub new_operators: Vec<OperatorUid>,
    /// The newest completed checkpoint of this process.
    pub last_checkpoint: Option<CheckpointSummary>,
    /// How many checkpoints completed in this process.
    pub completed_checkpoints: u64,
    /// How many failed.
    pub failed_checkpoints: u64,
    /// Why the last one failed.
    pub last_checkpoint_failure: Option<String>,
    /// Records read by the sources, in this attempt.
    pub records_in: u64,
}

/// Where a job is in its life. The names are Flink's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Reading the log, claiming the job.
    Created,
    /// Restoring and starting an attempt.
    Initializing,
    /// Processing.
    Running,
    /// Ending an attempt that failed, or waiting to start the next.
    Restarting,
    /// All data processed.
    Finished,
    /// Stopped by the user.
    Canceled,
    /// Failed for good.
    Failed,
}

/// A completed checkpoint, in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Bytes of state.
    pub bytes: u64,
    /// From its start until all acknowledgements were in.
    pub duration: Duration,
    /// The longest time that a subtask stood still for it.
    pub sync: Duration,
}

impl JobStatus {
    pub(crate) fn new(job: &str) -> Self {
        Self {
            job: job.to_owned(),
            state: JobState::Created,
            epoch: None,
            attempt: None,
            restarts: 0,
            last_failure: None,
            restored: None,
            new_operators: Vec::new(),
            last_checkpoint: None,
            completed_checkpoints: 0,
            failed_checkpoints: 0,
            last_checkpoint_failure: None,
            records_in: 0,
        }
    }
}

/// The status as the driver keeps it and handles read it.
pub(crate) struct Shared {
    status: Mutex<JobStatus>,
    /// Of the source subtasks of the attempt.
    sources: Mutex<Vec<Arc<Gauges>>>,
}

impl Shared {
    pub(crate) fn new(status: JobStatus) -> Self {
        Self { status: Mutex::new(status), sources: Mutex::default() }
    }

    pub(crate) fn read(&self) -> JobStatus {
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.records_in = sources.iter().map(|gauges| gauges.records.load(Ordering::Relaxed)).sum();
        status
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut JobStatus)) {
        change(&mut self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(crate) fn set_sources(&self, sources: Vec<Arc<Gauges>>) {
        *self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sources;
    }
}
