use std::num::NonZeroU32;

use cutwater_coordinator::{Job, Plan, Settings};
use cutwater_restart::Strategy;

/// What a [`Driver`](crate::Driver) is told of its job.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    /// When checkpoints are taken, how many failures are borne, what is kept.
    pub checkpointing: Settings,
    /// Whose log it is.
    pub job: Job,
    /// Whether and when the job starts again after a failure.
    pub strategy: Strategy,
    /// After how many failures or restores in a row without progress something is said or done about it: see
    /// [`ProgressWatch`](cutwater_restart::ProgressWatch).
    pub no_progress_attempts: NonZeroU32,
    /// What is done about it.
    pub on_no_progress: OnNoProgress,
    /// Unique among all starts of the job: drawn at random, or from the seed of a simulation. It marks the records of this
    /// start in the log and decides the jitter of delays.
    pub nonce: u64,
    /// What runs in each attempt.
    pub plan: Plan,
    /// By how many slots a boundary of the log moves, at least 1; `None` for the usual 1024. See
    /// [`set_slots_per_boundary`](cutwater_coordinator::Coordinator::set_slots_per_boundary).
    pub slots_per_boundary: Option<u64>,
}

/// What follows if a job restarts again and again without getting on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoProgress {
    /// It is reported, and the job goes on restarting as its strategy says.
    #[default]
    Report,
    /// The job ends as failed.
    Stop,
}

/// How long the rows are that make no progress, unless set.
pub const NO_PROGRESS_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
