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
    /// Unique among all starts of the job: drawn at random, or from the seed of a simulation. It marks the records of this
    /// start in the log and decides the jitter of delays.
    pub nonce: u64,
    /// What runs in each attempt.
    pub plan: Plan,
    /// By how many slots a boundary of the log moves, at least 1; `None` for the usual 1024. See
    /// [`set_slots_per_boundary`](cutwater_coordinator::Coordinator::set_slots_per_boundary).
    pub slots_per_boundary: Option<u64>,
}
