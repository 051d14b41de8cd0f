//! Interesting states, counted: a search that never gets there proves nothing about them.

use std::collections::BTreeMap;

macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident = $name:literal,)*) => {
        /// A state worth reaching. The tests fail if a budget of seeds does not reach one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names that people see say it")]
        pub enum Mark {
            $($(#[$doc])* $mark,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mark,)*];

            /// How people call it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$mark => $name,)*
                }
            }
        }
    };
}

marks! {
    // The log.
    OpenedEmpty = "a job starts from nothing",
    OpenedWithCheckpoint = "a process resumes from a checkpoint",
    OpenedFinished = "a process finds the job finished",
    ClaimLost = "somebody else takes the slot that a claim was for",
    Superseded = "a coordinator learns that it was replaced",
    SupersededAsZombie = "a process that was paused learns that it was replaced",
    RefusedCorrupt = "a damaged record is refused",
    RefusedStorage = "a store that does not answer is given up",
    CompletedRecord = "a checkpoint completes",
    UnknownThere = "a record of unknown fate turns out to be there",
    UnknownLost = "a record of unknown fate can never be there any more",
    RecordFailed = "the store refuses a record",
    RecordLandsLate = "a record lands after its writer was told nothing",
    RecordTooLate = "a late record finds its slot taken",
    RecordBelowBoundary = "a record lands below the boundary, and counts for nothing",
    BoundaryMoved = "the boundary moves",
    SlotDeleted = "a slot below the boundary is deleted",
    FileDeleted = "a file of a subsumed checkpoint is deleted",
    DeleteFailed = "a delete fails and is made up for",
    OrphanSwept = "a file of a dead epoch is swept",
    LitterTold = "a subtask tells of files that it has stored in vain",
    EndAwaited = "the end of a job waits for what is being stored",
    StaleListing = "a listing is stale",
    EpochByContest = "an epoch rises within a process",
    Discarded = "the checkpoints of a job go when it ends",
    DiedLettingGo = "a process dies between the end of its job and the last deletion",
    BeganAnew = "a job begins anew, since its checkpoints went with it",
    FromSavepointAnew = "a job without checkpoints of its own starts from its savepoint",
    // Checkpoints.
    SeveralInFlight = "several checkpoints are in flight",
    CompletedOutOfOrder = "a newer checkpoint completes first",
    OfOldReign = "a checkpoint is given up, since the job was claimed anew",
    Expired = "a checkpoint expires",
    DeclinedCounted = "a subtask declines for a failure",
    DeclinedOvertaken = "a subtask gives up for a newer barrier",
    AbortedByFailover = "a failure aborts a checkpoint",
    SnapshotDropped = "a snapshot is dropped half swept",
    UndoLimit = "too much is kept for a snapshot",
    LateAck = "an acknowledgement comes for a checkpoint that is over",
    AckOfOldAttempt = "an acknowledgement of a dead attempt comes",
    AckHeldBack = "an acknowledgement waits for output to be published",
    AckTwice = "an acknowledgement comes twice",
    TriggerLate = "a trigger comes after a newer one",
    TooManyFailures = "too many failed checkpoints fail the attempt",
    HalfEnded = "a checkpoint completes while some subtasks are at the end of data",
    FinalCheckpoint = "the last checkpoint completes",
    RequestAnswered = "a checkpoint by hand completes",
    RequestRefused = "a checkpoint by hand comes to nothing",
    EmptyState = "a checkpoint without any file completes",
    DeltaWritten = "a delta is written",
    DeltaRestored = "a chain of deltas is restored",
    DeltaEmpty = "a delta has nothing to write",
    HeldInRecord = "the record holds a small snapshot",
    HeldRestored = "a snapshot comes back from the record that holds it",
    ChainCompacted = "a chain of deltas is compacted",
    SavepointMade = "a savepoint is made",
    SavepointFailed = "a savepoint comes to nothing",
    SavepointOutlives = "a checkpoint is subsumed while it is copied",
    SavepointOfOldAttempt = "a savepoint is finished after its attempt",
    Stopped = "a job stops behind a savepoint",
    StoppedBare = "a job stops behind a checkpoint alone",
    Drained = "a job is drained",
    NotStopped = "a job that was to stop goes on",
    HeldSourceGoesOn = "a source that held goes on",
    FromSavepoint = "a job starts from the savepoint it was stopped with",
    BelowPublished = "a start from an older savepoint is refused",
    // Channels.
    WindowUsedUp = "a channel has used up its window",
    BarrierWaitsForCredit = "a barrier waits behind a batch without credit",
    AlignmentPauses = "a channel stops at its barrier",
    AtLeastOnceAhead = "a record behind a barrier is in the state, at least once",
    CancelBarrier = "a barrier is cancelled downstream",
    JoinedBoth = "state is made of both inputs of a task",
    InputsEndApart = "one input of a task ends while another goes on",
    AlignedOverInputs = "a barrier waits for that of another input",
    BranchBlocked = "one edge of a task has no room while another has",
    BroadcastSent = "records go to all subtasks of a task",
    SideOutput = "records of a side output are published",
    // Tiers below the tables.
    TierFetched = "an entry comes back from a tier",
    TierWrittenBack = "an entry that has changed goes to a tier to make room",
    TierBlockApplied = "a part of a snapshot is put into a tier",
    TierRemoved = "an entry is removed from a tier",
    TierCameBack = "an entry comes into a tier again from which it was removed",
    TierRestoredRemoved = "a restore brings back what the tier before had removed",
    TierPending = "a subtask declines while a tier still lacks the snapshot before",
    TierGivenUp = "a snapshot is given up with a part of it in a tier",
    TierToldLate = "a subtask hears late that its tier has a checkpoint which is over",
    TierGoesOnBelowView = "a subtask writes to its tier while a view of it is read",
    TierReadFailed = "a tier can't be read",
    TierWriteFailed = "a tier can't be written to make room",
    TierApplyFailed = "a tier can't be written for a snapshot",
    TierScanFailed = "a view of a tier can't be read",
    TierRestoreFailed = "a tier can't be written for a restore",
    TierRescaled = "state is restored into a tier at another parallelism",
    MemoryToTier = "state of a job without tiers is restored into one",
    TierToMemory = "state of a job with tiers is restored without one",
    // Checkpoints of files of tiers.
    NativeShared = "a checkpoint shares files of a tier with its base",
    NativeAnew = "all files of a tier are stored anew, as none of the base is known",
    NativeLivesOn = "a file of a tier outlives the checkpoint that it was stored for",
    NativeIndexHeld = "the record holds the index of the files of a tier",
    NativeImageFailed = "there can be no image of a tier",
    NativeStoreFailed = "a file of a tier can't be stored",
    NativeKilledBetween = "a process dies between two files of a tier",
    NativeLitterDeleted = "files of a tier that were stored for nothing are deleted",
    NativeOrphanSwept = "a file of a tier of a dead epoch is swept",
    NativeGoesOn = "a tier takes over one image, and goes on from it",
    NativeJoined = "a tier takes over several images",
    NativeClipped = "of an image some key groups are taken over",
    NativeReadFailed = "a restore fails between two files of a tier",
    NativeImportFailed = "a tier fails in the midst of taking over an image",
    NativeKilledReading = "a process dies between two files of a tier that it restores",
    NativeCorrupt = "a damaged file of a tier is refused",
    NativeFromBlocks = "what was restored entry by entry is stored as files of a tier",
    NativeToBlocks = "what was restored from files of a tier is stored entry by entry",
    NativeSavepoint = "a savepoint has files of tiers",
    NativeForeign = "a tier takes over an image of a savepoint",
    // Attempts.
    UserError = "user code fails",
    TaskPanic = "a subtask panics",
    FailureWhileCommitting = "an attempt fails while output is being published",
    FailureWhileRecordOut = "an attempt fails while a record is on its way",
    FailedStart = "an attempt can't be started",
    SecondFailureIgnored = "a second failure of one attempt changes nothing",
    GaveUp = "the restart strategy gives up",
    Restarted = "an attempt follows another in one process",
    Rescaled = "state is restored at another parallelism",
    RestoreCorrupt = "a damaged snapshot file is refused",
    FileLost = "a file of a checkpoint is lost for good",
    FellBack = "a job goes back past a damaged checkpoint",
    NoneBefore = "a damaged checkpoint has none before it to go back to",
    NoFallBackReplaced = "whoever was replaced misses a file and does not go back",
    NoProgress = "a job restarts again and again without getting on",
    Canceled = "a job is cancelled",
    Finished = "a job finishes",
    // Processes and disks.
    Killed = "a process is killed",
    KilledAtStep = "a process is killed at a durable step",
    KilledWhileOpening = "a process is killed while it opens the log",
    KilledWhileStarting = "a process is killed while it starts an attempt",
    KilledWithRecordOut = "a process is killed with a record on its way",
    KilledWhileCommitting = "a process is killed while it publishes",
    PowerLost = "the machine loses power",
    UnsyncedLost = "unsynced bytes are lost",
    TornWrite = "a write is torn",
    ZeroedWrite = "a length survives and its bytes do not",
    EntryLost = "an unsynced entry of a folder is lost",
    RemovalUndone = "an unsynced removal is undone",
    DiskError = "a step of the disk fails",
    ZombieWakes = "a paused process wakes and another one has the job",
    TwoAlive = "two processes of a job run at once",
    // Output.
    OutputPublished = "output is published",
    OutputAgain = "output that is published is committed again",
    SyncFailed = "prepared output can't be synced",
    CommitUnknown = "a commit's result is unknown",
    CommitOnRestore = "a restore publishes what its checkpoint names",
    HandlesCarriedOn = "output of a checkpoint that came to nothing is in the next",
    LeftoverSwept = "unpublished output of an earlier attempt is swept",
    TimersFired = "a day is over",
    SplitsEndApart = "one split ends long before another",
    MessageLost = "a message is lost",
    MessageTwice = "a message comes twice",
}

/// How often each mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    counts: Vec<u64>,
    /// Named steps that change disk or store: how often taken, and how often somebody died there.
    steps: BTreeMap<&'static str, (u64, u64)>,
    /// Faults, by the name of their rate: how often they struck.
    faults: BTreeMap<&'static str, u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { counts: vec![0; Mark::ALL.len()], steps: BTreeMap::new(), faults: BTreeMap::new() }
    }
}

impl Marks {
    pub(crate) fn hit(&mut self, mark: Mark) {
        self.counts[mark as usize] += 1;
    }

    pub(crate) fn step(&mut self, step: &'static str) {
        self.steps.entry(step).or_default().0 += 1;
    }

    pub(crate) fn died_at(&mut self, step: &'static str) {
        self.steps.entry(step).or_default().1 += 1;
    }

    pub(crate) fn fault(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// How often the mark was reached.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.counts[mark as usize]
    }

    /// The marks that were not reached.
    #[must_use]
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }

    /// The named durable steps: how often each was taken, and how often a process died right before it.
    #[must_use]
    pub fn steps(&self) -> &BTreeMap<&'static str, (u64, u64)> {
        &self.steps
    }

    /// The kinds of fault: how often each struck.
    #[must_use]
    pub fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults
    }

    /// Adds what another run has reached.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        for (step, (taken, died)) in &other.steps {
            let mine = self.steps.entry(step).or_default();
            (mine.0, mine.1) = (mine.0 + taken, mine.1 + died);
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}
