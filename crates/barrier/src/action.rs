use std::fmt;
use std::time::Duration;

use cutwater_core::{Barrier, ChannelId, CheckpointId};

/// What the caller does next, in the order polled, before it takes the next element of any channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop reading this channel: its barrier is ahead of the others. Only in [`Mode::ExactlyOnce`](crate::Mode).
    Pause(ChannelId),
    /// All barriers are in: snapshot the state, send the barrier on to all outputs, then go on polling. The channels
    /// that waited are resumed by the actions that follow.
    Snapshot {
        /// What to send on.
        barrier: Barrier,
        /// From the first word of the checkpoint to the last: from the first barrier to the last barrier or end, or
        /// from the coordinator's trigger to the end of the last channel. Zero where nothing had to be waited for.
        aligned_for: Duration,
    },
    /// Read this channel again. Only for a channel that was paused.
    Resume(ChannelId),
    /// Tell the coordinator that this subtask gave the checkpoint up.
    Decline {
        /// The checkpoint that this subtask will not snapshot.
        checkpoint: CheckpointId,
        /// Why.
        reason: DeclineReason,
    },
    /// Send a cancel marker for the checkpoint to all outputs, in band: behind everything sent so far and ahead of
    /// everything later. Without it the subtasks downstream would wait for a barrier that never comes.
    ForwardCancel(CheckpointId),
}

/// Why a subtask gave a checkpoint up. None of these counts towards the tolerable failures, as in Flink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeclineReason {
    /// A newer checkpoint got ahead before all barriers of this one were in.
    Subsumed,
    /// A subtask upstream gave it up and sent a cancel marker.
    OnCancellationBarrier,
    /// An input ended, and checkpoints after that are switched off
    /// (`execution.checkpointing.checkpoints-after-tasks-finish: false`).
    InputEndOfStream,
}

impl DeclineReason {
    /// The name of the reason in Flink's logs, statistics and REST answers.
    #[must_use]
    pub fn flink_name(self) -> &'static str {
        match self {
            Self::Subsumed => "CHECKPOINT_DECLINED_SUBSUMED",
            Self::OnCancellationBarrier => "CHECKPOINT_DECLINED_ON_CANCELLATION_BARRIER",
            Self::InputEndOfStream => "CHECKPOINT_DECLINED_INPUT_END_OF_STREAM",
        }
    }
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subsumed => "a newer checkpoint arrived before all barriers of this one",
            Self::OnCancellationBarrier => "a subtask upstream cancelled it",
            Self::InputEndOfStream => "an input ended, and checkpoints after tasks finish are off",
        })
    }
}
