use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid, Timestamp};

use crate::UserError;

/// An output that publishes in two phases: a writer per subtask prepares, a committer publishes what a durable
/// checkpoint names.
///
/// Exactly-once rests on this contract:
///
/// - What a writer wrote since the last [`SinkWriter::prepare`] is in the handles that `prepare` returns, and nowhere
///   visible.
/// - A handle is enough to publish, in another process too, after any crash.
/// - [`Committer::commit`] is idempotent: the same handle may come again after each restore.
pub trait Sink<T>: Send + Sync + 'static {
    /// Writes for one subtask.
    type Writer: SinkWriter<T>;

    /// Opens the writer of a subtask, at the start of each attempt, after the handles of the restored checkpoint were
    /// committed again.
    ///
    /// # Errors
    ///
    /// If the output can't be written; the attempt then fails.
    fn open(&self, context: &SinkContext) -> Result<Self::Writer, UserError>;

    /// Makes what publishes the handles of all subtasks. Called on a thread that may block.
    ///
    /// # Errors
    ///
    /// If the output can't be reached; the attempt then fails.
    fn committer(&self, context: &CommitContext) -> Result<Box<dyn Committer>, UserError>;
}

/// Whom a [`SinkWriter`] writes for. Names made of epoch, attempt and subtask are never made twice.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The job.
    pub job: String,
    /// The uid of the sink.
    pub operator: OperatorUid,
    /// Which subtask, in `0..parallelism`.
    pub subtask: u32,
    /// How many subtasks.
    pub parallelism: u32,
    /// The reign of the coordinator; 1 without checkpoints.
    pub epoch: Epoch,
    /// The run within the epoch.
    pub attempt: Attempt,
    /// Whether the attempt starts from nothing: then the job has published nothing yet, and output of this sink that is
    /// there already is of somebody else.
    pub from_nothing: bool,
}

/// Whom a [`Committer`] publishes for.
#[derive(Clone, Debug)]
pub struct CommitContext {
    /// The job.
    pub job: String,
    /// The uid of the sink.
    pub operator: OperatorUid,
    /// The reign of the coordinator; 1 without checkpoints.
    pub epoch: Epoch,
    /// The run within the epoch.
    pub attempt: Attempt,
}

/// Writes the records of one subtask, on a worker thread: buffered writes are fine, syncing is not.
pub trait SinkWriter<T>: Send + 'static {
    /// Takes a record; `time` is its event time if it has one.
    ///
    /// # Errors
    ///
    /// If it can't be written; the attempt then fails.
    fn write(&mut self, time: Option<Timestamp>, record: T) -> Result<(), UserError>;

    /// Cuts: what was written since the last call becomes handles. Slow work, such as a sync, goes into
    /// [`Prepared::finish`]; the snapshot is acknowledged only after it succeeded.
    ///
    /// # Errors
    ///
    /// If the cut fails; the attempt then fails.
    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Prepared>, UserError>;
}

/// The blocking rest of a [`SinkWriter::prepare`].
pub type Finish = Box<dyn FnOnce() -> Result<(), UserError> + Send>;

/// Output that is ready to be published.
pub struct Prepared {
    /// Enough to publish it; kept in the checkpoint.
    pub handle: Vec<u8>,
    /// What must succeed before the handle is worth anything; run on a thread that may block.
    pub finish: Option<Finish>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("handle", &self.handle.len()).finish_non_exhaustive()
    }
}

/// Publishes prepared output, once the checkpoint that names it is durable.
pub trait Committer: Send {
    /// Publishes one handle.
    fn commit(&mut self, handle: &[u8]) -> CommitOutcome;

    /// Removes what writers of earlier epochs and attempts left unpublished. Called after the handles of the restored
    /// checkpoint were committed again, before the writers of the attempt are opened.
    ///
    /// # Errors
    ///
    /// If the output can't be read or cleaned; the attempt then fails.
    fn sweep(&mut self) -> Result<(), UserError>;
}

/// What became of a handle.
#[derive(Debug)]
pub enum CommitOutcome {
    /// It is published now.
    Committed,
    /// It was published before.
    Already,
    /// Nobody knows; committing the handle again settles it.
    Unknown(UserError),
    /// What it names is gone, unpublished: output is lost, and the job must not go on as if nothing had happened.
    Lost(UserError),
}
