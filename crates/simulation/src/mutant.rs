//! Deliberate protocol errors: a simulation that does not find them would not find real ones.

use serde::{Deserialize, Serialize};

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// An error planted on purpose, chosen when a world is made. The first fourteen are those of the prototype that
        /// this simulation began as; each is planted at the seam where the cores meet the world, so that the cores are
        /// those of production.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// How people call it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// Channels are not stopped at their barriers.
    NoAlignment = "no-alignment",
    /// A subtask takes its snapshot one batch late: the barrier comes behind the batch that follows it.
    SnapshotLate = "snapshot-late",
    /// A barrier overtakes a batch that waits before it.
    BarrierOvertakes = "barrier-overtakes",
    /// Acknowledgements are not bound to attempt and checkpoint: one of a dead attempt counts for the checkpoint in
    /// flight.
    AcksUnbound = "acks-unbound",
    /// Sinks publish when all acknowledgements are in, before the record is durable.
    CommitBeforeDurable = "commit-before-durable",
    /// A record of unknown fate is taken for one that failed.
    UnknownIsFailure = "unknown-is-failure",
    /// Barriers and triggers of checkpoints that are over are honoured like new ones.
    StaleHonoured = "stale-honoured",
    /// A restore does not publish what its checkpoint names.
    NoRecommit = "no-recommit",
    /// Publishing is not idempotent: what is there already is written again.
    CommitTwice = "commit-twice",
    /// When a checkpoint is subsumed all its files are deleted, those that others share included.
    DeleteShared = "delete-shared",
    /// A delta builds on the last snapshot that was taken, whether or not its checkpoint completed.
    DeltaOnUnconfirmed = "delta-on-unconfirmed",
    /// The store creates what is there already: no claim fences anybody.
    NoFence = "no-fence",
    /// When an attempt fails while a record is on its way, the record is taken for one that failed.
    NotSettled = "not-settled",
    /// A delta builds on the checkpoint that the subtask last heard of, and not on that of the barrier.
    BaseFromNotice = "base-from-notice",
    /// Leftovers of sinks are swept before the restored checkpoint's output is published.
    SweepBeforeRecommit = "sweep-before-recommit",
    /// A source records the position behind what it has read ahead.
    PositionAhead = "position-ahead",
    /// Output prepared for a checkpoint that came to nothing is forgotten.
    HandlesForgotten = "handles-forgotten",
    /// A snapshot is acknowledged before its files are synced.
    AckBeforeSync = "ack-before-sync",
    /// A process resumes from the checkpoint before the newest.
    RestoreOlder = "restore-older",
    /// A subtask restores one key group too few when the parallelism changes.
    GroupLost = "group-lost",
    /// Timers are not restored.
    TimersLost = "timers-lost",
    /// Senders do not wait for credit.
    NoCredit = "no-credit",
    /// The driver is told that output is published before it is: the next checkpoint completes meanwhile, and does not
    /// name it. (That subtasks alone are told too early does no harm: acknowledgements wait for the publishing.)
    CommittedEarly = "committed-early",
    /// Orphaned files are never swept.
    OrphansKept = "orphans-kept",
    /// A snapshot that can't be stored to its end tells nothing of what it has stored.
    LitterUntold = "litter-untold",
    /// The end of a job waits for no snapshot that is being stored.
    EndAwaitsNoUpload = "end-awaits-no-upload",
    /// The watermark of a restored subtask is the highest of its predecessors, not the lowest.
    WatermarkAhead = "watermark-ahead",
    /// Records of the log are deleted above the boundary.
    SlotDeletedEarly = "slot-deleted-early",
    /// A damaged snapshot file is read as if it were whole.
    ChecksumIgnored = "checksum-ignored",
    /// The files of a checkpoint are not kept while it is copied.
    CopyNotPinned = "copy-not-pinned",
    /// A savepoint is made known before all files are in it.
    SavepointEarly = "savepoint-early",
    /// Who starts from a savepoint below what has been published is not refused.
    RewindUnasked = "rewind-unasked",
    /// A source that held for a stop which came to nothing never goes on, whatever checkpoint comes after it.
    HeldForEver = "held-for-ever",
    /// The barrier of one input of a task counts for all its inputs.
    AlignsOneInput = "aligns-one-input",
    /// The watermark of one input of a task counts for all its inputs.
    WatermarkOfOneInput = "watermark-of-one-input",
    /// The end of one input of a task counts for all its inputs.
    EndOfOneInput = "end-of-one-input",
    /// Of the edges that a task writes, all but the first get the barrier one batch late.
    BarrierLateOnBranch = "barrier-late-on-branch",
    /// The files of the checkpoints that go with the job are deleted when its end is being recorded, not after that.
    FilesBeforeEnd = "files-before-end",
    /// A store that does not answer is taken for a damaged checkpoint, and an older one is restored.
    FallsBackUnreachable = "falls-back-unreachable",
    /// Nobody is told that an older checkpoint is restored.
    FallBackUntold = "fall-back-untold",
    /// The last subtask behind a broadcast does not get its batches.
    BroadcastMisses = "broadcast-misses",
    /// A checkpoint does not name the file before the last of those that its newest builds on.
    ChainCutShort = "chain-cut-short",
    /// A small snapshot that the record should hold goes nowhere.
    HeldForgotten = "held-forgotten",
    /// Of a file of changes, what was removed is restored after what has changed.
    RemovedLast = "removed-last",
    /// A subtask builds on what another of the same number had stored for other key groups.
    BaseOfAnotherShare = "base-of-another-share",
    /// The second block of a snapshot does not come into the tier.
    TierBlockSkipped = "tier-block-skipped",
    /// What was removed is not removed from the tier.
    TierRemovedKept = "tier-removed-kept",
    /// The blocks of a snapshot come into the tier in another order than that in which they were emitted.
    TierBlocksReversed = "tier-blocks-reversed",
    /// A subtask is told that the tier has its snapshot before the last block is there.
    TierToldEarly = "tier-told-early",
    /// The view from which a snapshot is read is taken before the last block is in the tier.
    TierViewEarly = "tier-view-early",
    /// It is taken after the subtask was told that it may write to the tier again.
    TierViewLate = "tier-view-late",
    /// A subtask is never told that its snapshot will not come into the tier.
    TierFailureUntold = "tier-failure-untold",
    /// It is told that the snapshot is there.
    TierFailureToldDone = "tier-failure-told-done",
    /// It is told that the snapshot will not be there while blocks that are left still come.
    TierGivenUpEarly = "tier-given-up-early",
    /// A write to the tier that has failed is taken for one that has not.
    TierFailedWriteTaken = "tier-failed-write-taken",
    /// The last part of the tier is not read into the snapshot.
    TierScanShort = "tier-scan-short",
    /// An attempt goes on with the tier of the one before.
    TierReused = "tier-reused",
    /// An entry that has changed is not written to the tier when it goes from memory.
    TierWriteBackLost = "tier-write-back-lost",
    /// A checkpoint shares files of a tier with the last snapshot that was stored, whether or not its checkpoint completed.
    NativeOnUnconfirmed = "native-on-unconfirmed",
    /// It shares them with snapshots of earlier attempts, too.
    NativeOfOtherAttempt = "native-of-other-attempt",
    /// A file of a tier is taken for the one of the same name, whatever its length, and whether or not it lasts.
    NativeByName = "native-by-name",
    /// The index of the files of a tier is not stored.
    NativeIndexForgotten = "native-index-forgotten",
    /// A snapshot is acknowledged without the last file of its tier.
    NativeFileForgotten = "native-file-forgotten",
    /// A checkpoint does not name the files of a tier that it shares.
    NativeSharedUnlisted = "native-shared-unlisted",
    /// A tier takes over all key groups of an image.
    NativeUnclipped = "native-unclipped",
    /// A tier that several images have come into goes on as if it was the first of them.
    NativeJoinedGoesOn = "native-joined-goes-on",
    /// A damaged file of a tier is taken over as if it were whole.
    NativeChecksumIgnored = "native-checksum-ignored",
    /// A tier that has failed in the midst of taking over an image is used as if it had not.
    NativeImportFailureTaken = "native-import-failure-taken",
    /// The tables are not told of what their tier has taken over.
    NativeUnclaimed = "native-unclaimed",
}
