//! The words that several Cutwater crates share: ids, key groups, moments, barriers.
//!
//! Nothing here does anything: the crate depends on no other crate of the workspace, reads no clock and holds no
//! state. A type that only one crate uses lives in that crate.
//!
//! ```
//! use cutwater_core::{KeyHash, MaxParallelism};
//!
//! // A key belongs to a key group for ever; which subtask owns the group depends on the parallelism of the run.
//! let max = MaxParallelism::new(128).expect("128 is in range");
//! let group = KeyHash::of(b"JFK-LAX").group(max);
//! assert!(max.range_of(group.owner(max, 4), 4).contains(group));
//! ```
//!
//! - Ids: [`CheckpointId`], [`Epoch`], [`Attempt`], [`TaskId`], [`SubtaskId`], [`ChannelId`], [`EdgeId`], [`OperatorUid`].
//! - Keys: [`KeyHash`], [`KeyGroup`], [`KeyGroupRange`], [`MaxParallelism`].
//! - Time: [`Moment`] (of the process, for deadlines), [`Timestamp`] (of an event).
//! - [`Barrier`], the in-band marker of a checkpoint; [`Secret`], a text that is never printed.

mod barrier;
mod ids;
mod keys;
mod secret;
mod time;

pub use barrier::{Barrier, SnapshotForm};
pub use ids::{Attempt, ChannelId, CheckpointId, EdgeId, Epoch, InvalidUid, OperatorUid, SubtaskId, TaskId};
pub use keys::{InvalidMaxParallelism, KeyGroup, KeyGroupRange, KeyHash, MaxParallelism};
pub use secret::Secret;
pub use time::{Moment, Timestamp};
