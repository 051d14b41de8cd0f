use cutwater_core::{Barrier, ChannelId, CheckpointId};

/// Upstream, or the caller, broke the protocol. The aligner is as it was before the call.
///
/// No retry helps: the channels carry something else than one run of one job. Fail the subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The subtask has no such channel.
    #[error("{channel} is unknown: the subtask has {channels} input channels, numbered from 0")]
    UnknownChannel {
        /// The channel as given.
        channel: ChannelId,
        /// How many channels there are.
        channels: u32,
    },
    /// A barrier, cancel marker or second end on a channel that has ended.
    #[error("{channel} has ended and can't deliver anything more")]
    AfterEnd {
        /// The channel.
        channel: ChannelId,
    },
    /// The caller took something from a paused channel: what lies behind its barrier does not belong to the checkpoint.
    #[error("{channel} is paused for checkpoint {checkpoint}: read it again only after its resume")]
    ReadWhilePaused {
        /// The channel.
        channel: ChannelId,
        /// The checkpoint being aligned.
        checkpoint: CheckpointId,
    },
    /// A second barrier of the checkpoint being aligned, on the same channel, in exactly-once mode.
    #[error("{channel} delivered the barrier of checkpoint {checkpoint} twice")]
    RepeatedBarrier {
        /// The channel.
        channel: ChannelId,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Two channels delivered barriers of one checkpoint that do not say the same.
    #[error(
        "{channel} delivered another barrier of checkpoint {}: epoch {}, attempt {} and base {:?}, not {}, {} and {:?}",
        .expected.checkpoint, .found.epoch, .found.attempt, .found.base.map(|base| base.0),
        .expected.epoch, .expected.attempt, .expected.base.map(|base| base.0)
    )]
    DifferentBarrier {
        /// The channel that delivered the later one.
        channel: ChannelId,
        /// The barrier that came first.
        expected: Barrier,
        /// The barrier that came later.
        found: Barrier,
    },
}
