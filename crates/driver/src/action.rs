use std::fmt;
use std::time::Duration;

use cutwater_coordinator::{AbortReason, CheckpointError, CompletedCheckpoint, OpenError, Outcome, RequestId, Token};
use cutwater_core::{Attempt, Barrier, CheckpointId, Epoch, SubtaskId};
use cutwater_dataflow::Finish;
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_restart::{GiveUp, NoProgress};
use cutwater_task::SnapshotError;

use crate::FellBack;

/// What the caller does next, in the order polled. Names of objects are relative to the job's folder.
///
/// The first four are questions to the store, as in [`cutwater_coordinator::Action`].
pub enum Action {
    /// Create this object if it is absent, durably, and answer with [`crate::Driver::handle_created`].
    Create {
        /// To be given back with the answer.
        token: Token,
        /// The object's name.
        name: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Read this object as it is now and answer with [`crate::Driver::handle_read`].
    Read {
        /// To be given back with the answer.
        token: Token,
        /// The object's name.
        name: String,
        /// The most bytes it may have.
        limit: u64,
    },
    /// Delete these objects and answer with [`crate::Driver::handle_deleted`]. That some are not there is no error.
    Delete {
        /// To be given back with the answer.
        token: Token,
        /// The objects' names.
        names: Vec<String>,
    },
    /// List the names of all objects that begin with this prefix; answer with [`crate::Driver::handle_listed`]. An
    /// error, or a stale or partial list, does no harm; the end of the job waits for the answer.
    List {
        /// To be given back with the answer.
        token: Token,
        /// What the names begin with.
        prefix: String,
    },
    /// Start an attempt: publish `handles`, sweep what earlier attempts left unpublished, build the subtasks, restore their
    /// state, run. Answer with [`crate::Driver::handle_started`], or [`crate::Driver::handle_damaged`]; what subtasks report
    /// before that may be told before.
    ///
    /// Whatever else a start needs, such as that the checkpoint fits the program, is to be checked before anything is
    /// published.
    Start {
        /// The reign of the claim that opened the job: the same for all attempts of a start of the process.
        epoch: Epoch,
        /// Its number, rising from 1.
        attempt: Attempt,
        /// What to restore; `None` to start from nothing.
        restore: Option<Box<CompletedCheckpoint>>,
        /// The output that the restored checkpoint names. Some or all may be published already: publishing is idempotent.
        handles: Vec<OperatorSnapshot>,
    },
    /// End all threads of the attempt; answer with [`crate::Driver::handle_stopped`]. Output that is being published goes
    /// on, and its answer is waited for.
    Stop {
        /// The attempt.
        attempt: Attempt,
    },
    /// Send this barrier to these subtasks.
    Trigger {
        /// The attempt.
        attempt: Attempt,
        /// The barrier.
        barrier: Barrier,
        /// Whom to send it to, in order.
        subtasks: Vec<SubtaskId>,
        /// Whether sources among them are to read nothing after it, until it is given up.
        hold: bool,
    },
    /// Tell all subtasks that sources end now.
    Drain {
        /// The attempt.
        attempt: Attempt,
    },
    /// Tell all subtasks that the checkpoint was given up. Also comes for one that has completed, if the job was to stop
    /// behind it and does not: then sources go on.
    Abort {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Tell all subtasks that the output of the checkpoint, and of all before, is published.
    Published {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Tell all subtasks to hand over what their sinks still hold; each answers with [`crate::Driver::handle_last_cut`].
    LastCut {
        /// The attempt.
        attempt: Attempt,
    },
    /// Publish these handles, in order; answer with [`crate::Driver::handle_committed`].
    Commit {
        /// The attempt.
        attempt: Attempt,
        /// The checkpoint that names them.
        checkpoint: CheckpointId,
        /// The handles, at least one.
        handles: Vec<OperatorSnapshot>,
    },
    /// The same at the end of the job, for what no checkpoint names: run `finish` first. Answer with
    /// [`crate::Driver::handle_committed`], checkpoint 0.
    CommitLast {
        /// The attempt.
        attempt: Attempt,
        /// The handles.
        handles: Vec<OperatorSnapshot>,
        /// Blocking work of sinks, to be done before anything is published.
        finish: Vec<Finish>,
    },
    /// A checkpoint is durable. [`Action::Commit`] follows, if it names output and its attempt still runs.
    Completed {
        /// The checkpoint.
        checkpoint: Box<CompletedCheckpoint>,
        /// The requests that it answers.
        requests: Vec<RequestId>,
    },
    /// A checkpoint was given up.
    Aborted {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: AbortReason,
        /// The requests that it should have answered.
        requests: Vec<RequestId>,
    },
    /// Copy this checkpoint to where the request wants it, as a savepoint, and answer with
    /// [`crate::Driver::handle_copied`]. Its files stay until then, as long as this process runs the job. Comes after
    /// [`Action::Completed`], and goes on whatever happens to the attempt.
    Copy {
        /// What asked for it.
        request: RequestId,
        /// What to copy.
        checkpoint: Box<CompletedCheckpoint>,
    },
    /// The job was to stop behind a checkpoint, which has completed, and goes on: it could not be copied, or the attempt
    /// failed. For the report.
    NotStopped {
        /// What asked for it.
        request: RequestId,
        /// Where the savepoint lies, if it could be made.
        savepoint: Option<String>,
    },
    /// These requests will not be answered, and no checkpoint was begun for them.
    RequestFailed {
        /// The requests.
        requests: Vec<RequestId>,
        /// Why.
        reason: AbortReason,
    },
    /// Too many checkpoints failed, and with this error the attempt does. For the report: the rest follows by itself.
    CheckpointsFailed(CheckpointError),
    /// It can't be read what output a checkpoint names, so the attempt fails, and no restart can mend it. For the report:
    /// the rest follows by itself.
    OutputUnreadable {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What is wrong with the part of a subtask.
        error: SnapshotError,
    },
    /// The restart strategy has scheduled restart number `restarts`. For the report.
    Restarting {
        /// How many there were in the life of the driver, this one included.
        restarts: u32,
        /// From the failure to the start.
        delay: Duration,
    },
    /// The checkpoints of the job were deleted when it ended so, as it was set to: it begins from nothing, or from what it
    /// was told. For the report; [`Action::Start`] follows.
    BeginsAnew {
        /// How it had ended.
        outcome: Outcome,
    },
    /// A checkpoint is damaged, and an older one is restored in its place. For the report; [`Action::Start`] follows.
    FellBack(Box<FellBack>),
    /// The job restarts again and again without getting on. For the report; if the job is to be stopped for it that
    /// follows by itself.
    NoProgress {
        /// In what.
        no_progress: NoProgress,
        /// Whether it has not been told since the job last got on.
        first: bool,
    },
    /// How the job ended could not be recorded in the log. For the report; [`Action::Done`] follows.
    EndUnrecorded {
        /// What the store said.
        reason: String,
    },
    /// The job is over, nothing follows.
    Done(End),
}

/// How a job comes to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All data was processed and all output published.
    Finished,
    /// It had finished in an earlier run; nothing was claimed.
    AlreadyFinished {
        /// The reign in which it finished.
        epoch: Epoch,
        /// Its newest completed checkpoint, if there is one.
        latest: Option<Box<CompletedCheckpoint>>,
    },
    /// It was cancelled.
    Canceled,
    /// It was stopped behind a checkpoint, whose output is published.
    Stopped {
        /// Where the savepoint lies, if one was made.
        savepoint: Option<String>,
        /// Whether all has been done that ever will be, so that the job is not run again: its sources were ended first.
        drained: bool,
    },
    /// An attempt failed and the restart strategy gave up.
    GaveUp {
        /// How often the job was restarted.
        restarts: u32,
        /// Why it is not restarted again.
        reason: GiveUp,
    },
    /// Another process runs the job now. Nothing was recorded, since the log is not ours any more.
    Superseded {
        /// Its reign, or the lowest that it can be.
        by: Epoch,
    },
    /// The log can't be used. Nothing was recorded.
    Refused(OpenError),
}

/// In a line: for traces.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |restore: &Option<Box<CompletedCheckpoint>>| restore.as_ref().map(|it| it.checkpoint.0);
        match self {
            Self::Create { token, name, bytes } => write!(f, "Create({token:?}, {name}, {} bytes)", bytes.len()),
            Self::Read { token, name, .. } => write!(f, "Read({token:?}, {name})"),
            Self::Delete { token, names } => write!(f, "Delete({token:?}, {names:?})"),
            Self::List { token, prefix } => write!(f, "List({token:?}, {prefix})"),
            Self::Start { epoch, attempt, restore, handles } => {
                let (restore, handles) = (id(restore), handles.len());
                write!(f, "Start(epoch {epoch}, attempt {attempt}, restore {restore:?}, {handles} handles)")
            }
            Self::Stop { attempt } => write!(f, "Stop(attempt {attempt})"),
            Self::Trigger { attempt, barrier, subtasks, hold } => {
                let hold = if *hold { ", then hold" } else { "" };
                write!(f, "Trigger(attempt {attempt}, checkpoint {}, {subtasks:?}{hold})", barrier.checkpoint)
            }
            Self::Drain { attempt } => write!(f, "Drain(attempt {attempt})"),
            Self::Copy { request, checkpoint } => write!(f, "Copy({request:?}, checkpoint {})", checkpoint.checkpoint),
            Self::NotStopped { request, savepoint } => write!(f, "NotStopped({request:?}, {savepoint:?})"),
            Self::Abort { attempt, checkpoint } => write!(f, "Abort(attempt {attempt}, checkpoint {checkpoint})"),
            Self::Published { attempt, checkpoint } => {
                write!(f, "Published(attempt {attempt}, checkpoint {checkpoint})")
            }
            Self::LastCut { attempt } => write!(f, "LastCut(attempt {attempt})"),
            Self::Commit { attempt, checkpoint, handles } => {
                write!(f, "Commit(attempt {attempt}, checkpoint {checkpoint}, {} handles)", handles.len())
            }
            Self::CommitLast { attempt, handles, finish } => {
                write!(f, "CommitLast(attempt {attempt}, {} handles, {} to finish)", handles.len(), finish.len())
            }
            Self::Completed { checkpoint, requests } => {
                write!(f, "Completed(checkpoint {}, {requests:?})", checkpoint.checkpoint)
            }
            Self::Aborted { checkpoint, reason, requests } => {
                write!(f, "Aborted(checkpoint {checkpoint}, {reason:?}, {requests:?})")
            }
            Self::RequestFailed { requests, reason } => write!(f, "RequestFailed({requests:?}, {reason:?})"),
            Self::CheckpointsFailed(error) => write!(f, "CheckpointsFailed({error:?})"),
            Self::OutputUnreadable { checkpoint, error } => {
                write!(f, "OutputUnreadable(checkpoint {checkpoint}, {error:?})")
            }
            Self::Restarting { restarts, delay } => write!(f, "Restarting({restarts}, after {delay:?})"),
            Self::BeginsAnew { outcome } => write!(f, "BeginsAnew({outcome:?})"),
            Self::FellBack(fell_back) => write!(f, "FellBack({fell_back})"),
            Self::NoProgress { no_progress, first } => write!(f, "NoProgress({no_progress}, first {first})"),
            Self::EndUnrecorded { reason } => write!(f, "EndUnrecorded({reason})"),
            Self::Done(end) => write!(f, "Done({end:?})"),
        }
    }
}
