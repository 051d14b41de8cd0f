use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::Outcome;
use cutwater_core::{Attempt, CheckpointId, Epoch, Moment, OperatorUid, SubtaskId, Timestamp};
use cutwater_driver::FellBack;
use cutwater_restart::NoProgress;

use crate::clock::Clock;
use crate::failures::FailureRecord;
use crate::hosted::Gauges;
use crate::restore::{Progress, RestoreProgress};
use crate::statistics::CheckpointHistory;

/// What a job does, at one moment.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// When this was looked at, counted from the start of the job in this process.
    pub looked_at: Moment,
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
    /// The failures of this process that ended an attempt, newest first: at most as many as `web.exception-history-size`
    /// says, 16 unless set.
    pub failures: Vec<Arc<FailureRecord>>,
    /// The checkpoint that the attempt started from.
    pub restored: Option<CheckpointId>,
    /// How far restoring it has come, or how it went; `None` if the attempt started from nothing, or has not come so far.
    pub restore: Option<RestoreProgress>,
    /// The operators that started empty, since that checkpoint has nothing of them.
    pub new_operators: Vec<OperatorUid>,
    /// How the job had ended, if its checkpoints were deleted with that: it began from nothing, or from what it was told.
    pub discarded: Option<Outcome>,
    /// The damaged checkpoint past which the job went back last in this process, if it did, and what came again.
    pub fell_back: Option<FellBack>,
    /// In what the job makes no progress, if it restarts again and again without getting on; until a source has got further
    /// in a checkpoint.
    pub no_progress: Option<NoProgress>,
    /// The newest completed checkpoint of this process.
    pub last_checkpoint: Option<CheckpointSummary>,
    /// How many checkpoints completed in this process.
    pub completed_checkpoints: u64,
    /// How many failed.
    pub failed_checkpoints: u64,
    /// Why the last one failed.
    pub last_checkpoint_failure: Option<String>,
    /// Why nobody knows whether the record of the checkpoint in flight is stored: the store did not answer. It is found out when
    /// it does, and then the checkpoint completes or fails; meanwhile records flow.
    pub undecided: Option<String>,
    /// The newest checkpoints, completed and failed, also those of earlier processes: at most as many as
    /// `web.checkpoints.history` says, 10 unless set.
    pub checkpoints: Arc<CheckpointHistory>,
    /// Records read by the sources, in this attempt.
    pub records_in: u64,
    /// What the subtasks of the attempt do, in order; empty before the first runs.
    pub subtasks: Vec<SubtaskStatus>,
}

/// What a subtask of the attempt has done so far. Rates and shares come from two looks: [`JobStatus::rates_since`].
///
/// The three times add up to the time since its first quantum. A worker that has several subtasks is busy with one while the
/// others count as idle or backpressured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskStatus {
    /// The subtask.
    pub subtask: SubtaskId,
    /// The name of its task: the operators fused in it.
    pub task: String,
    /// Records processed, or read by a source.
    pub records: u64,
    /// The watermark of its input; [`Timestamp::MIN`] before any, [`Timestamp::MAX`] after all, and of sources.
    pub watermark: Timestamp,
    /// How long it worked.
    pub busy: Duration,
    /// How long it waited for receivers to process what it had sent.
    pub backpressured: Duration,
    /// How long it waited for something to do.
    pub idle: Duration,
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
    /// Bytes written for it: fewer than those of the state if it builds on others.
    pub written_bytes: u64,
    /// From its start until all acknowledgements were in.
    pub duration: Duration,
    /// The longest time that a subtask stood still for it.
    pub sync: Duration,
}

impl JobStatus {
    pub(crate) fn new(job: &str) -> Self {
        Self {
            looked_at: Moment::ZERO,
            job: job.to_owned(),
            state: JobState::Created,
            epoch: None,
            attempt: None,
            restarts: 0,
            last_failure: None,
            failures: Vec::new(),
            restored: None,
            restore: None,
            new_operators: Vec::new(),
            discarded: None,
            fell_back: None,
            no_progress: None,
            last_checkpoint: None,
            completed_checkpoints: 0,
            failed_checkpoints: 0,
            last_checkpoint_failure: None,
            undecided: None,
            checkpoints: Arc::default(),
            records_in: 0,
            subtasks: Vec::new(),
        }
    }
}

/// The status as the driver keeps it and handles read it.
pub(crate) struct Shared {
    clock: Clock,
    status: Mutex<JobStatus>,
    /// The subtasks of the attempt.
    watched: Mutex<Vec<Watched>>,
    /// The restore of the attempt.
    restore: Mutex<Option<Arc<Progress>>>,
}

/// A subtask whose counters can be read.
pub(crate) struct Watched {
    pub(crate) subtask: SubtaskId,
    pub(crate) task: String,
    pub(crate) is_source: bool,
    pub(crate) gauges: Arc<Gauges>,
}

impl Watched {
    fn read(&self) -> SubtaskStatus {
        let time = |gauge: &AtomicU64| Duration::from_nanos(gauge.load(Ordering::Relaxed));
        let gauges = &self.gauges;
        SubtaskStatus {
            subtask: self.subtask,
            task: self.task.clone(),
            records: gauges.records.load(Ordering::Relaxed),
            watermark: Timestamp(gauges.watermark.load(Ordering::Relaxed)),
            busy: time(&gauges.busy),
            backpressured: time(&gauges.backpressured),
            idle: time(&gauges.idle),
        }
    }
}

impl Shared {
    pub(crate) fn new(status: JobStatus) -> Self {
        Self { clock: Clock::new(), status: Mutex::new(status), watched: Mutex::default(), restore: Mutex::default() }
    }

    pub(crate) fn read(&self) -> JobStatus {
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let watched = self.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.looked_at = self.now();
        status.restore = self.restore();
        status.subtasks = watched.iter().map(Watched::read).collect();
        let sources = watched.iter().zip(&status.subtasks).filter(|(watched, _)| watched.is_source);
        status.records_in = sources.map(|(_, subtask)| subtask.records).sum();
        status
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut JobStatus)) {
        change(&mut self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// The time as the status tells it.
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn restore(&self) -> Option<RestoreProgress> {
        let restore = self.restore.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        restore.as_ref().map(|progress| progress.read(self.now()))
    }

    /// Tells from now on of the restore of this attempt.
    pub(crate) fn watch_restore(&self, progress: Option<Arc<Progress>>) {
        *self.restore.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = progress;
    }

    pub(crate) fn watch(&self, subtasks: Vec<Watched>) {
        *self.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = subtasks;
    }
}
