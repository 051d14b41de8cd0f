//! The checkpoints of one job and its commit log, without I/O.
//!
//! A [`Coordinator`] decides when a checkpoint is taken, tells the subtasks that would not hear of it otherwise, gathers
//! their acknowledgements, and makes the checkpoint exist by appending one record to the job's log. It reads no clock and
//! touches no store: every input is a `handle_*` call with its [`Moment`](cutwater_core::Moment), everything it wants done
//! is an [`Action`]. The same machine runs in production and in a simulation.
//!
//! ```
//! use std::collections::BTreeMap;
//! use cutwater_coordinator::*;
//! use cutwater_core::{Attempt, MaxParallelism, Moment, SubtaskId, TaskId};
//!
//! let job = Job { name: "daily".to_owned(), max_parallelism: MaxParallelism::default() };
//! let mut coordinator = Coordinator::new(Settings::default(), job, 0x5eed); // a number drawn at random
//! let mut store = BTreeMap::new(); // instead of a bucket
//! let now = Moment::ZERO; // instead of a clock
//!
//! coordinator.handle_open(now, RestoreFrom::Latest);
//! let mut completed = None;
//! while let Some(action) = coordinator.poll_action() {
//!     match action {
//!         Action::Create { token, name, bytes } => {
//!             let absent = store.insert(name, bytes).is_none();
//!             let outcome = if absent { CreateOutcome::Created } else { CreateOutcome::Exists };
//!             coordinator.handle_created(now, token, outcome);
//!         }
//!         Action::Read { token, name, .. } => coordinator.handle_read(now, token, Ok(store.get(&name).cloned())),
//!         Action::List { token, prefix } => {
//!             let names = store.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
//!             coordinator.handle_listed(now, token, Ok(names));
//!         }
//!         Action::Opened { restore, .. } => {
//!             assert_eq!(restore, None); // a new job: start one source, and take a checkpoint by hand
//!             let (task, name) = (TaskId(0), "source".to_owned());
//!             let source = TaskPlan { task, name, operators: vec![], parallelism: 1, inputs: vec![] };
//!             coordinator.handle_running(now, Attempt(1), Plan { tasks: vec![source] });
//!             coordinator.handle_request(now, Purpose::Checkpoint);
//!         }
//!         Action::Trigger { barrier, subtasks, .. } => {
//!             assert_eq!(subtasks, [SubtaskId { task: TaskId(0), index: 0 }]);
//!             let phases = Phases::default();
//!             let inline = b"line 17".to_vec(); // where the source stands
//!             let snapshot = SubtaskSnapshot { subtask: subtasks[0], files: vec![], inline, phases, state_bytes: 7 };
//!             coordinator.handle_ack(now, barrier.attempt, barrier.checkpoint, snapshot);
//!         }
//!         Action::NotifyCompleted { checkpoint, .. } => completed = Some(checkpoint), // now sinks may publish
//!         other => panic!("not expected here: {other:?}"),
//!     }
//! }
//! assert_eq!(completed.unwrap().tasks[0].subtasks[0].inline, b"line 17");
//! ```
//!
//! # The parts
//!
//! - [`Settings`], [`Job`] and [`RestoreFrom`]: what it is told at the start. [`Plan`]: what runs in an attempt.
//! - [`Coordinator`]: the inputs and the deadlines. [`Action`]: the outputs, the store's among them.
//! - [`inspect`]: reads the log of any job, for tools.
//! - [`Savepoint`]: what makes a folder with copies of a checkpoint's files a savepoint.
//! - [`CompletedCheckpoint`]: what a record holds; [`snapshot_name`]: how the files that it names are best called.
//! - [`OpenError`], [`AbortReason`], [`CheckpointError`]: what went wrong.
//!
//! # The log
//!
//! A sequence of slots, `log/<20 digits>` from 0 on, each created if absent and never changed. A slot holds a claim (a new
//! reign begins: nobody of a lower epoch can append after it), a completed checkpoint, or how the job ended, and whether its
//! checkpoints went with it. To open a
//! log is to find its first free slot by galloping and bisecting, and to claim it. Beside the slots,
//! `boundary/<20 digits>` number *k* says that slots below 1024 *k* may be gone; boundaries have no gaps and stay for ever.
//!
//! - A create whose outcome is [`CreateOutcome::Unknown`] is never taken for a failure: the coordinator claims *the same
//!   slot* with the next epoch and reads who has it. Either the record is there after all, or it can never come to be;
//!   then the checkpoint is given up, and the job goes on under the new epoch.
//! - After each create the coordinator looks for the boundary above its slot: a slot that was deleted can be created once
//!   more, by somebody who slept for long, but counts for nothing.
//! - What is deleted (files of subsumed and aborted checkpoints, slots below a durable boundary) is deleted only after the
//!   record that lets go of it is durable. What could not be deleted is carried on in the next record.
//! - When checkpoints go with the job ([`ExternalizedCheckpointRetention`]), the record of its end says so first, and only
//!   then their files are deleted. Whoever opens the log after that finds no checkpoint in it.
//! - Files of a checkpoint that came to nothing are deleted whoever tells of them: an acknowledgement that comes too late, or
//!   [`Coordinator::handle_litter`] where there is none.
//! - Files that were never acknowledged, of a process that died, are found by one listing after opening: snapshot files of
//!   lower epochs that no record names. Whoever wrote them can append nothing after our claim, so nobody will need them.
//!
//! # What is guaranteed
//!
//! As long as the store creates atomically and a read sees every create that was answered before: two coordinators never
//! both append after each other's claim; [`Action::NotifyCompleted`] comes only when the record is in the log; no file
//! that a retained record names is deleted; what is restored is the newest completed checkpoint, what was asked for by
//! name, or, if that was wanted, an older one after the newest was found damaged ([`Coordinator::handle_damaged`]). No clock is relied on, nor a listing: one that is wrong only leaves files behind.
//!
//! # What is not offered
//!
//! Savepoints are copies that the caller makes of checkpoints. A rewind ([`Settings::allow_rewind`]) is no event of its
//! own in the log: until its first checkpoint completes, [`RestoreFrom::Latest`] still means the one before it.

mod action;
mod checkpoint;
mod codec;
mod coordinator;
mod error;
pub mod inspect;
mod log;
mod plan;
mod savepoint;
mod settings;

pub use action::{Action, CreateOutcome, Purpose, RequestId, Token};
pub use checkpoint::{CompletedCheckpoint, Content, FileRef, Last, Origin, Phases, SubtaskSnapshot, TaskSnapshot};
pub use coordinator::{Coordinator, Counts, PendingView};
pub use error::{AbortReason, CheckpointError, OpenError};
pub use log::names::{checkpoint_of_snapshot, native_name, native_number, snapshot_name};
pub use plan::{Plan, PlanInput, TaskPlan};
pub use savepoint::{MAX_SAVEPOINT_BYTES, SAVEPOINT_NAME, Savepoint};
pub use settings::{ExternalizedCheckpointRetention, Job, Outcome, RestoreFrom, SavepointFormat, Settings};
