//! Barrier alignment of one subtask, without I/O.
//!
//! A subtask with several input channels takes its part of a checkpoint at one moment: when the barrier of the
//! checkpoint has come in on every channel. This crate decides what to do until then. It reads no clock and no channel:
//! the caller says what arrived and does what [`Aligner::poll_action`] answers.
//!
//! ```
//! use std::time::Duration;
//!
//! use cutwater_barrier::{Action, Aligner, Mode};
//! use cutwater_core::{Attempt, Barrier, ChannelId, CheckpointId, Epoch, Moment, SnapshotForm};
//!
//! # fn main() -> Result<(), cutwater_barrier::Violation> {
//! let (left, right) = (ChannelId(0), ChannelId(1));
//! let barrier = Barrier { epoch: Epoch(1), attempt: Attempt(1), checkpoint: CheckpointId(1), base: None, form: SnapshotForm::Configured };
//! let mut aligner = Aligner::new(Mode::ExactlyOnce, 2, true);
//!
//! // The barrier comes in on the left: what follows there has to wait.
//! aligner.handle_barrier(Moment::from_millis(10), left, barrier)?;
//! assert_eq!(aligner.poll_action(), Some(Action::Pause(left)));
//! assert_eq!(aligner.poll_action(), None);
//!
//! // Records on the right go on being processed. Then the barrier comes in there too.
//! aligner.handle_barrier(Moment::from_millis(15), right, barrier)?;
//! let aligned_for = Duration::from_millis(5);
//! assert_eq!(aligner.poll_action(), Some(Action::Snapshot { barrier, aligned_for }));
//! // Here the caller freezes its state and sends the barrier on. Only then:
//! assert_eq!(aligner.poll_action(), Some(Action::Resume(left)));
//! assert_eq!(aligner.poll_action(), None);
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! - [`Aligner`], one for each subtask; [`Mode`] says how strict it is.
//! - [`Action`], what the caller does next; [`DeclineReason`], why a checkpoint was given up.
//! - [`Violation`], what well-behaved channels never deliver.
//!
//! # What is guaranteed
//!
//! - In [`Mode::ExactlyOnce`] no record behind a barrier is processed before the snapshot, and all records ahead of it
//!   are, as long as the caller obeys [`Action::Pause`] and does all actions before it reads on.
//! - In [`Mode::AtLeastOnce`] no channel is ever paused.
//! - A checkpoint is snapshot at most once, and the numbers of snapshots rise.
//! - When nothing is being aligned, nothing is paused. A single open channel never waits.
//! - Memory is bounded: [`MAX_PENDING`] checkpoints, each with one entry for each channel, [`MAX_PENDING`] triggers,
//!   [`MAX_ABORTS`] aborts. One input causes at most `2 * MAX_PENDING + 1` snapshots and declines, as many cancel
//!   markers, and one pause or resume for each channel.
//!
//! # What is not offered
//!
//! Unaligned checkpoints, and aligned ones that become unaligned after a timeout. A subtask waits for its slowest channel.
//!
//! Source: the handlers `SingleCheckpointBarrierHandler` and `CheckpointBarrierTracker` of Flink 2.3, whose rules this
//! crate follows; [`Aligner`] says where it differs.

mod action;
mod aligner;
mod violation;

pub use action::{Action, DeclineReason};
pub use aligner::{Aligner, MAX_ABORTS, MAX_PENDING, Mode};
pub use violation::Violation;
