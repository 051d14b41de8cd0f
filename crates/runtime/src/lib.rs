//! Runs a job graph: Timely hosts the subtasks, Tokio does the I/O, one clock tells the time.
//!
//! [`run`] runs a job to its end and minds SIGINT and SIGTERM, [`spawn`] gives a [`JobHandle`] with status, checkpoints
//! and savepoints by hand, stop and cancel. Both take the graph that `cutwater-dataflow` builds and [`Options`].
//!
//! ```
//! use std::time::Duration;
//! use cutwater_config::{Config, Settings};
//! use cutwater_dataflow::{Collect, Job, generator};
//! use cutwater_runtime::{JobOutcome, Options, spawn};
//!
//! let settings = Settings::new().enable_checkpointing(Duration::from_millis(20)).fixed_delay_restart(3, Duration::ZERO);
//! let options = Options::from_config(&Config::new().code(settings).resolve()?)?; // checkpoints in memory
//!
//! let out = Collect::<u64>::default();
//! let job = Job::new("squares");
//! job.source("numbers", generator(10_000, |n| n)).map(|n| n * n).sink("out", out.clone());
//! let handle = spawn(job.build()?, options)?;
//! assert_eq!(handle.wait()?, JobOutcome::Finished);
//! assert_eq!(out.take().len(), 10_000);
//! assert!(handle.status().completed_checkpoints >= 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Options`] from code or configuration; [`store_at`] makes a store of a path or URL, and a
//!   [`StoreResolver`] others.
//! - [`JobHandle`], [`JobStatus`]: a job in the hands of the program that embeds it; [`Metric`]: its figures, to export.
//! - [`CheckpointHistory`], [`FailureRecord`]: what became of its checkpoints and attempts; [`read_statistics`] reads the
//!   former when the job is gone. `tracing` spans `checkpoint` and `restore` say the same as it happens.
//! - [`Failure`] and [`JobError`]: what an attempt and a job can die of. The program that embeds never dies of a job.
//! - [`host`]: the threads, channels and credits below, behind one seam.
//!
//! Promised: panics and errors of user code end an attempt, never the process; output is published only after the
//! checkpoint that holds it is durable; a second process that runs the same job stops the first; a savepoint is there whole
//! or not at all. Not here yet: several processes for one job.

mod attempt;
mod clock;
mod code;
mod driver;
mod error;
mod failures;
pub mod host;
mod hosted;
mod job;
mod local;
mod metrics;
mod native;
mod open;
mod place;
mod rates;
mod restore;
mod savepoint;
mod signals;
mod spans;
mod statistics;
mod status;
mod under_way;
mod upload;

pub use clock::Clock;
pub use cutwater_config::HistorySizes;
pub use cutwater_driver::{FellBack, OnNoProgress, Replayed};
pub use error::{Failure, JobError, RestoreError, UnclaimedState};
pub use failures::{FailureDecision, FailurePosition, FailureRecord};
pub use job::{ClaimMode, IgnoreUnclaimed, JobHandle, JobOutcome, Options, StartFrom, StopMode, run, spawn};
pub use local::LocalRecovery;
pub use metrics::Metric;
pub use open::{OpenCheckpointError, open_checkpoint};
pub use place::{OptionsError, StoreResolver, job_folder, store_at};
pub use rates::{JobRates, SubtaskRates};
pub use restore::RestoreProgress;
pub use savepoint::{CopyError, SavepointError, TakenSavepoint, copy_savepoint, delete_savepoint, read_savepoint};
pub use signals::stop_on_signals;
pub use statistics::{
    CheckpointCounts, CheckpointHistory, CheckpointKind, CheckpointStatistics, CheckpointStatisticsSummary,
    CheckpointStatus, Distribution, StatisticsError, StoredStatistics, SubtaskStatistics, is_statistics_name,
    read_statistics,
};
pub use status::{CheckpointSummary, JobState, JobStatus, SubtaskStatus};
