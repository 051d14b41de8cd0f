use std::fmt;

use cutwater_core::{Barrier, CheckpointId, Epoch, SubtaskId};

use crate::{AbortReason, CheckpointError, CompletedCheckpoint, OpenError, Outcome};

/// Joins an answer of the store to the action that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(crate) u64);

/// A checkpoint asked for by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a checkpoint is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// For itself.
    Checkpoint,
    /// To be copied: its files stay until [`crate::Coordinator::handle_copied`]. Its barrier names no base, so that it
    /// stands alone.
    Copy,
    /// To be copied, and to be the last: sources read nothing after its barrier, and no other checkpoint begins after it,
    /// or before it once this is asked for. If it is given up the job goes on. Source: Flink's stop-with-savepoint.
    Stop,
    /// The same after all sources were ended, wherever they stand: the watermark goes to its end, timers fire, and what
    /// is asked for is the last checkpoint of the job.
    Drain,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// What became of a create-if-absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The object is durable, with the bytes given.
    Created,
    /// There was an object of that name already. It may be our own from an earlier try: the coordinator looks.
    Exists,
    /// It was not created and never will be by this call.
    Failed(String),
    /// Nobody knows: the call may have taken effect, or may still do so at any later time. When in doubt, say this.
    Unknown(String),
}

/// What the caller does next, in the order polled. All names are relative to the job's folder.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this object if it is absent, durably, and answer with [`crate::Coordinator::handle_created`].
    Create {
        /// To be given back with the answer.
        token: Token,
        /// The object's name.
        name: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Read this object as it is now and answer with [`crate::Coordinator::handle_read`]: `None` if there is none, an
    /// error if it is longer than `limit`. A read must see every create that was answered before.
    Read {
        /// To be given back with the answer.
        token: Token,
        /// The object's name.
        name: String,
        /// The most bytes it may have.
        limit: u64,
    },
    /// Delete these objects, in any order, and answer with [`crate::Coordinator::handle_deleted`]. That some are not
    /// there is no error. The list may be long: split it as the store wants.
    Delete {
        /// To be given back with the answer.
        token: Token,
        /// The objects' names.
        names: Vec<String>,
    },
    /// List the names of all objects that begin with this prefix, in any order, and answer with
    /// [`crate::Coordinator::handle_listed`]. Comes once, after [`Action::Opened`]. [`Action::Closed`] waits for the
    /// answer, and nothing else does: an error, or a list that is stale or lacks names, only leaves files for the next
    /// start to delete.
    List {
        /// To be given back with the answer.
        token: Token,
        /// What the names begin with.
        prefix: String,
    },
    /// The job is ours: the claim is durable. Start its first attempt.
    Opened {
        /// The reign that begins.
        epoch: Epoch,
        /// What to restore; `None` to start from nothing.
        restore: Option<Box<CompletedCheckpoint>>,
        /// How the job ended before, if its checkpoints were deleted with that, as
        /// [`Settings::externalized_checkpoint_retention`](crate::Settings::externalized_checkpoint_retention) says: then
        /// it does not go on from where it was.
        discarded: Option<Outcome>,
    },
    /// The job has finished in an earlier run; nothing was claimed. The coordinator is of no more use.
    AlreadyFinished {
        /// The reign in which it finished.
        epoch: Epoch,
        /// The newest completed checkpoint, if there is one.
        latest: Option<Box<CompletedCheckpoint>>,
    },
    /// The log can't be used, so the job must not run. Mostly while opening; later only if the log turns out to be
    /// damaged while it is settled what became of a record. The coordinator is of no more use.
    Refused(OpenError),
    /// Send this barrier to these subtasks. A source puts it into its output; a subtask whose channels have all ended acts
    /// on it at once; any other remembers it until the barrier comes or its channels have ended.
    Trigger {
        /// The barrier.
        barrier: Barrier,
        /// Whom to send it to, in order.
        subtasks: Vec<SubtaskId>,
        /// Whether sources are to read nothing after it: the job is to stop behind this checkpoint. They go on if it is
        /// given up.
        hold: bool,
    },
    /// All sources are to end now, as if there were no more data: see [`Purpose::Drain`].
    Drain,
    /// The checkpoint is durable: tell the tasks, so that sinks publish what they prepared up to it. If the attempt is
    /// over meanwhile there is nobody to tell: what it prepared is published when it is restored.
    NotifyCompleted {
        /// The checkpoint.
        checkpoint: Box<CompletedCheckpoint>,
        /// The requests that it answers.
        requests: Vec<RequestId>,
    },
    /// The checkpoint was given up: tell the tasks, best effort. What sinks prepared is *not* to be thrown away: the next
    /// checkpoint covers it.
    NotifyAborted {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: AbortReason,
        /// The requests that it should have answered.
        requests: Vec<RequestId>,
    },
    /// These requests will not be answered, and no checkpoint was begun for them.
    RequestFailed {
        /// The requests.
        requests: Vec<RequestId>,
        /// Why.
        reason: AbortReason,
    },
    /// The answer to [`crate::Coordinator::handle_failover`]: start the next attempt from this.
    Restore {
        /// What to restore; `None` to start from nothing.
        restore: Option<Box<CompletedCheckpoint>>,
    },
    /// This checkpoint is damaged, and an older one is restored in its place: [`Action::Restore`] follows, with that. What
    /// came between the two is processed and published again. The answer to [`crate::Coordinator::handle_damaged`].
    FellBack {
        /// The one that is damaged.
        bad: Box<CompletedCheckpoint>,
    },
    /// Too many checkpoints failed: end the attempt and ask the restart strategy. The coordinator begins no checkpoint
    /// until the next attempt runs.
    FailJob(CheckpointError),
    /// All data is processed, and the last checkpoint is durable, or checkpoints are off: publish what is left, then call
    /// [`crate::Coordinator::handle_end`].
    AllDone,
    /// Another coordinator has taken the job over: stop at once and publish nothing more. The coordinator is of no more
    /// use.
    Superseded {
        /// Its reign, or the lowest that it can be.
        by: Epoch,
    },
    /// The answer to [`crate::Coordinator::handle_end`]. The coordinator is of no more use.
    Closed {
        /// Why the outcome could not be recorded, or `None` if it was. A finished job then finishes once more when it is
        /// started again.
        unrecorded: Option<String>,
    },
}
