//! TaskCore: the operators, state and barriers of one subtask, without I/O.
//!
//! A [`TaskCore`] is what a host runs and what a simulation drives: elements, credits and commands go in by `handle_*`,
//! [`TaskCore::run`] does one bounded quantum of work, [`TaskCore::poll_action`] says what to send and store. It reads
//! no clock, starts no thread, and does the same for the same inputs.
//!
//! ```
//! use cutwater_core::{Moment, Timestamp};
//! use cutwater_dataflow::{Collect, Job, generator};
//! use cutwater_task::{Action, Progress, TaskCore, TaskSettings, TaskStart};
//!
//! let job = Job::new("doc");
//! job.source("numbers", generator(10, |n| n)).sink("out", Collect::<u64>::default());
//! let graph = job.build()?;
//! let mut core = TaskCore::new(&graph, &TaskStart::fresh(graph.tasks()[0].task, 0, 1), TaskSettings::default())?;
//! while core.run(Moment::ZERO)? == Progress::Busy {}
//! assert!(std::iter::from_fn(|| core.poll_action()).any(|action| matches!(action, Action::EndOfData)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants:
//!
//! - A record is processed once, on the side of each barrier on which it arrived (exactly-once mode).
//! - Input is processed only while no output waits for credit; control elements stay behind waiting output.
//! - The synchronous part of a snapshot takes the same time at any size of keyed state: cut, note, go on. The rest is
//!   swept in [`TaskSettings::sweep_step_bytes`] a quantum, beside the processing.
//! - A snapshot holds everything, or with [`TaskSettings::deltas`] what has changed since the checkpoint that the barrier names,
//!   if this subtask took part in that one and it pays.
//! - What a sink prepared is in each snapshot until [`TaskCore::handle_published`] says that it is published: no output is
//!   lost with a checkpoint that comes to nothing.
//! - Timers of processing time fire by the wall clock that [`TaskCore::set_wall_clock`] tells; the first one that may fire is
//!   part of [`TaskCore::next_deadline`].
//! - User code runs only inside [`TaskCore::new`] and [`TaskCore::run`].

mod chain;
mod core;
mod dropped;
mod error;
mod finish;
mod snapshot;

pub use crate::chain::{Base, DeltaLimits, RestoredBase};
pub use crate::core::{Action, Progress, TaskCore, TaskSettings, TaskStart};
pub use crate::dropped::DroppedState;
pub use crate::error::{Cause, TaskError};
pub use crate::snapshot::{SnapshotError, TaskSnapshot};
