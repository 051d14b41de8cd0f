//! The decisions about one job, without I/O: when an attempt starts and stops, what is published when, how the job ends.
//!
//! A [`Driver`] joins the [`Coordinator`](cutwater_coordinator::Coordinator) and the
//! [`Restarter`](cutwater_restart::Restarter) of a job. It starts no thread, reads no clock and touches no store: each
//! input is a `handle_*` call with its [`Moment`](cutwater_core::Moment), all it wants done is an [`Action`]. The runtime
//! performs the actions on threads and disks, a simulation on made-up ones: both run the same decisions.
//!
//! ```
//! use std::collections::BTreeMap;
//! use cutwater_coordinator::*;
//! use cutwater_core::{MaxParallelism, Moment, SubtaskId, TaskId};
//! use cutwater_driver::{Action, Driver, DriverSettings, End, NO_PROGRESS_ATTEMPTS, OnNoProgress};
//! use cutwater_restart::Strategy;
//! use cutwater_task::TaskSnapshot;
//!
//! let source = SubtaskId { task: TaskId(0), index: 0 };
//! let task = TaskPlan { task: source.task, name: "source".into(), operators: vec![], parallelism: 1, inputs: vec![] };
//! let mut driver = Driver::new(DriverSettings {
//!     checkpointing: Settings::default(),
//!     job: Job { name: "daily".to_owned(), max_parallelism: MaxParallelism::default() },
//!     strategy: Strategy::default_with_checkpointing(),
//!     no_progress_attempts: NO_PROGRESS_ATTEMPTS,
//!     on_no_progress: OnNoProgress::Report,
//!     nonce: 0x5eed, // a number drawn at random
//!     plan: Plan { tasks: vec![task] },
//!     slots_per_boundary: None,
//! })?;
//! let mut store = BTreeMap::new(); // instead of a bucket
//! let now = Moment::ZERO; // instead of a clock
//!
//! driver.handle_open(now, RestoreFrom::Latest);
//! let mut completed = 0;
//! let end = loop {
//!     match driver.poll_action().expect("in this world there is always something to do") {
//!         Action::Create { token, name, bytes } => {
//!             let absent = store.insert(name, bytes).is_none();
//!             let outcome = if absent { CreateOutcome::Created } else { CreateOutcome::Exists };
//!             driver.handle_created(now, token, outcome);
//!         }
//!         Action::Read { token, name, .. } => driver.handle_read(now, token, Ok(store.get(&name).cloned())),
//!         Action::List { token, .. } => driver.handle_listed(now, token, Ok(vec![])),
//!         Action::Start { attempt, restore, .. } => {
//!             assert_eq!(restore, None); // a new job: its only subtask starts, and is soon at the end of its data
//!             driver.handle_started(now, attempt, Ok(()));
//!             driver.handle_end_of_data(now, attempt, source);
//!         }
//!         Action::Trigger { attempt, barrier, .. } => {
//!             let inline = TaskSnapshot { watermark: 0, records: 17, operators: vec![] }.encode();
//!             let (files, phases) = (vec![], Phases::default());
//!             let snapshot = SubtaskSnapshot { subtask: source, files, inline, phases, state_bytes: 0 };
//!             driver.handle_ack(now, attempt, barrier.checkpoint, snapshot);
//!         }
//!         Action::Completed { .. } => completed += 1,
//!         Action::LastCut { attempt } => driver.handle_last_cut(now, attempt, source, vec![], vec![]),
//!         Action::Stop { attempt } => driver.handle_stopped(now, attempt),
//!         Action::Done(end) => break end,
//!         other => panic!("not expected here: {other:?}"),
//!     }
//! };
//! assert_eq!((completed, end), (1, End::Finished));
//! # Ok::<(), cutwater_restart::InvalidStrategy>(())
//! ```
//!
//! - [`DriverSettings`]: what it is told at the start. [`Driver`]: the inputs and the deadlines.
//! - [`Action`]: the outputs. [`End`]: how a job comes to its end.
//! - [`plan_of`]: what the coordinator is told of a graph. [`prepared_output`]: what is published when a checkpoint completes or is restored.
//! - [`Natives`], [`Place`], [`NativeFiles`]: which files of an image are stored, and which are shared with an earlier checkpoint.
//!   [`native_index`], [`native_files`], [`claim_imported`]: what a restore takes over.
//!
//! # What is guaranteed
//!
//! - One attempt at a time: none is started before all threads of the one before have ended, and before output that was
//!   being published is, or has failed to be. So nobody sweeps what somebody publishes.
//! - Output is published only after the record of its checkpoint is durable, one checkpoint after the other; none
//!   completes before the output of the one before is published, or has failed to be.
//! - The restart strategy hears of one failure of each attempt, the first. After [`Action::Done`] nothing follows.
//! - Whoever was replaced, or may not run, starts and publishes nothing more, and says nothing more to the log.
//!
//! # What is not offered
//!
//! Restarting a part of a job. Whether a checkpoint is damaged, and whether it
//! fits the program is for the caller to check, when it starts an attempt.

mod action;
mod driver;
mod fallback;
mod native;
mod output;
mod plan;
mod settings;

pub use action::{Action, End};
pub use driver::Driver;
pub use fallback::{FellBack, Replayed};
pub use native::{
    Lasting, NativeFiles, Natives, NotClaimed, Place, Stored, claim_imported, is_native, lasting_files, native_files,
    native_index,
};
pub use output::prepared_output;
pub use plan::plan_of;
pub use settings::{DriverSettings, NO_PROGRESS_ATTEMPTS, OnNoProgress};
