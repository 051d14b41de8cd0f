//! What task cores and hosts use of a built graph: elements, batches, outputs, chains. Users of streams don't need it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use cutwater_core::{
    Attempt, Barrier, CheckpointId, Epoch, KeyHash, MaxParallelism, Moment, OperatorUid, SubtaskId, Timestamp,
};
use cutwater_state::{AttachedTier, Snapshotable, StateError};

use crate::UserError;
pub use crate::outbox::{Outbox, OutputChannel};
use crate::sink::Prepared;

/// How many records a batch holds, and a source reads in one quantum, at the most.
pub const BATCH_RECORDS: usize = 1024;

/// What travels on a channel.
pub enum Element {
    /// Records.
    Batch(Box<dyn AnyBatch>),
    /// No record at or before this time follows on the channel.
    Watermark(Timestamp),
    /// The sender has nothing to send for now: its watermark holds nobody back, until [`Self::Active`].
    Idle,
    /// The sender has something to send again: what follows.
    Active,
    /// Everything before belongs to the checkpoint.
    Barrier(Barrier),
    /// The sender gave the checkpoint up.
    CancelBarrier(CheckpointId),
    /// The last element of the channel.
    End,
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Batch(batch) => write!(f, "Batch({} records)", batch.len()),
            Self::Watermark(watermark) => write!(f, "Watermark({watermark})"),
            Self::Idle => f.write_str("Idle"),
            Self::Active => f.write_str("Active"),
            Self::Barrier(barrier) => write!(f, "{barrier:?}"),
            Self::CancelBarrier(checkpoint) => write!(f, "CancelBarrier({checkpoint})"),
            Self::End => f.write_str("End"),
        }
    }
}

/// Records of one type, erased once per batch so that hosts need not know the type.
pub trait AnyBatch: Send {
    /// How many records are left in it.
    fn len(&self) -> usize;

    /// Whether no record is left.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the batch counts for in credits: its size in memory when it was made. What records hold on the heap is
    /// taken from the encoded size of the first one.
    fn bytes(&self) -> u64;

    /// The way back to the type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Which records of a source a batch was made of, for reports of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The source subtask.
    pub source: SubtaskId,
    /// The first record, counted from 1 over all attempts of the job.
    pub first: u64,
    /// The last record, included.
    pub last: u64,
}

/// A record with its key. One vector of them takes less time to fill and to empty than one of each part.
pub(crate) struct Keyed<K, T> {
    pub(crate) hash: KeyHash,
    pub(crate) key: K,
    pub(crate) record: T,
}

/// Records on their way to another subtask, in the form `R` that the exchange gives them.
#[derive(Clone)]
pub struct Batch<R> {
    pub(crate) records: std::vec::IntoIter<R>,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) next: usize,
    pub(crate) bytes: u64,
    pub(crate) origin: Option<Origin>,
    /// Whether each record stands for one source record, in order.
    pub(crate) exact: bool,
}

/// Records with their keys, on the way to the subtask that owns the keys.
pub(crate) type KeyedBatch<K, T> = Batch<Keyed<K, T>>;

impl<R> Batch<R> {
    /// The next record with its time; [`Timestamp::MIN`] if it has none.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(Timestamp, R)> {
        let record = self.records.next()?;
        let time = self.times.get(self.next).copied().unwrap_or(Timestamp::MIN);
        self.next += 1;
        Some((time, record))
    }
}

impl<R: Send + 'static> Batch<R> {
    /// The batch that came in, noted as what is processed now.
    pub(crate) fn enter(exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Box<Self>, UserError> {
        let batch = batch
            .into_any()
            .downcast::<Self>()
            .map_err(|_| UserError::from("a batch of another type came in: the edge and the chain disagree"))?;
        if batch.next == 0 {
            exec.begin(batch.origin);
        }
        exec.enter(batch.origin, batch.exact, batch.next as u64);
        Ok(batch)
    }
}

impl<R: Send + 'static> AnyBatch for Batch<R> {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What the stages of a chain share while they run.
pub struct Exec {
    /// Where the last stage sends to.
    pub outbox: Outbox,
    /// The moment of the quantum.
    pub now: Moment,
    /// The processing time of the quantum: milliseconds of the wall clock since 1970-01-01 UTC. It never goes back.
    pub wall: Timestamp,
    /// Which operator of the chain runs, by its place: set before user code is called, for reports.
    pub running: u16,
    origin: Option<Origin>,
    exact: bool,
    /// Counts the changes from one source, or none, to another, and the steps back within one: what is gathered across one
    /// has no common range.
    pub(crate) switches: u64,
    /// Counts the times when a record became none or several: then records no longer stand for one source record each.
    pub(crate) uneven: u64,
    /// How many records of the current batch were begun, the one being processed included.
    pub begun: u64,
    /// How many records have been processed or read since the subtask was made.
    pub records: u64,
    /// Which input of the operator the batch at hand came in by: 0, or 1 for the second of a `connect`.
    pub input: u8,
}

impl Exec {
    /// A context with these outputs.
    #[must_use]
    pub fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            now: Moment::ZERO,
            wall: Timestamp(0),
            running: 0,
            origin: None,
            exact: false,
            switches: 0,
            uneven: 0,
            begun: 0,
            records: 0,
            input: 0,
        }
    }

    /// The source record that is being processed, if each record of the batch stands for one; else the batch's range.
    #[must_use]
    pub fn at(&self) -> Option<Origin> {
        let origin = self.origin?;
        if self.exact && self.begun > 0 {
            let at = origin.first + self.begun - 1;
            return Some(Origin { first: at, last: at, ..origin });
        }
        Some(origin)
    }

    /// Notes that a batch begins. Behind two exchanges the records of one source come over several channels, so that its
    /// later ones may be here already.
    pub(crate) fn begin(&mut self, origin: Option<Origin>) {
        if let (Some(next), Some(last)) = (origin, self.origin) {
            let steps_back = next.first < last.first || next.last < last.last;
            self.switches += u64::from(next.source == last.source && steps_back);
        }
    }

    /// Notes where the records come from that are processed next, `begun` of which were begun before. `exact`: each
    /// stands for one record of the source, in order.
    pub fn enter(&mut self, origin: Option<Origin>, exact: bool, begun: u64) {
        let source = |origin: Option<Origin>| origin.map(|origin| origin.source);
        self.switches += u64::from(source(origin) != source(self.origin));
        self.exact = exact;
        self.origin = origin;
        self.begun = begun;
    }
}

/// What [`Chain::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePoll {
    /// Ask again at once.
    More,
    /// Nothing before this moment.
    WaitUntil(Moment),
    /// All splits have ended.
    End,
}

/// What an operator adds to a snapshot besides its tables.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OperatorSnapshot {
    /// The operator.
    pub operator: OperatorUid,
    /// What the payload is.
    pub kind: SnapshotKind,
    /// The operator's own encoding.
    pub payload: Vec<u8>,
}

/// What the payload of an [`OperatorSnapshot`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SnapshotKind {
    /// The splits of a source subtask and their positions.
    SourceSplits,
    /// One handle of prepared output.
    PreparedOutput,
    /// What the subtask has of one operator state, a [`cutwater_state::OperatorStatePart`].
    OperatorState,
}

/// Why operator state could not be restored or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorStateError {
    /// What a subtask stored of the operator's states can't be read.
    #[error("the operator state of {operator} in the checkpoint's record can't be read")]
    Part {
        /// The operator.
        operator: OperatorUid,
        /// Why.
        source: StateError,
    },
    /// The stored state is of another kind or type, or its items can't be decoded.
    #[error("the {kind} state {state} of {operator} can't be restored")]
    Restore {
        /// The operator.
        operator: OperatorUid,
        /// The state.
        state: String,
        /// The kind that it has now, such as `union-list`.
        kind: &'static str,
        /// Why.
        source: StateError,
    },
    /// The operator states of a subtask are too large for the checkpoint's record.
    #[error(
        "the operator state of {operator}, with {state}, is larger than the {limit} bytes that a subtask may have of it: keep \
         by key what grows with the input"
    )]
    TooLarge {
        /// The operator.
        operator: OperatorUid,
        /// The state that was one too many.
        state: String,
        /// How many bytes the states of a subtask may have together.
        limit: u64,
    },
    /// An item can't be encoded.
    #[error("the operator state {state} of {operator} can't be encoded")]
    Encode {
        /// The operator.
        operator: OperatorUid,
        /// The state.
        state: String,
        /// Why.
        source: StateError,
    },
}

/// The operator states that the operators of a chain declare while it is built: what a checkpoint has besides would be
/// dropped.
#[derive(Debug, Default)]
pub struct ClaimedStates(RefCell<BTreeSet<(OperatorUid, String)>>);

impl ClaimedStates {
    pub(crate) fn add(&self, operator: &OperatorUid, state: &str) {
        self.0.borrow_mut().insert((operator.clone(), state.to_owned()));
    }

    /// Whether the operator has declared a state of this name.
    #[must_use]
    pub fn has(&self, operator: &OperatorUid, state: &str) -> bool {
        self.0.borrow().contains(&(operator.clone(), state.to_owned()))
    }
}

/// Collects what the operators of a chain add to a snapshot.
#[derive(Default)]
pub struct ChainSnapshot {
    /// Payloads of operators.
    pub operators: Vec<OperatorSnapshot>,
    /// Prepared output of sinks, with the blocking rest.
    pub prepared: Vec<(OperatorUid, Prepared)>,
}

/// The fused operators of one subtask, erased: one dynamic call per batch.
pub trait Chain: Send {
    /// Reads a quantum from the source; an error if the chain does not begin with one.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn read(&mut self, exec: &mut Exec, limit: usize) -> Result<SourcePoll, UserError>;

    /// Ends all splits of the source where they stand, as if there were no more data: the watermark goes to its end. An
    /// error if the chain does not begin with a source.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn drain(&mut self, _exec: &mut Exec) -> Result<(), UserError> {
        Err("this chain does not begin with a source".into())
    }

    /// Processes records of a batch until it is done, the outputs are blocked, or it has taken long since much of what the records
    /// need was not in memory; gives back the rest.
    ///
    /// # Errors
    ///
    /// Of user code, or if the batch is of another type.
    fn process(&mut self, exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError>;

    /// Fires at most `limit` timers due at `watermark`. `true`: all have fired and the watermark went on.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn advance(&mut self, exec: &mut Exec, watermark: Timestamp, limit: usize) -> Result<bool, UserError>;

    /// The time of the first processing-time timer, if there is one.
    fn processing_due(&self) -> Option<Timestamp> {
        None
    }

    /// Fires at most `limit` processing-time timers due at [`Exec::wall`]. `true`: all have fired.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn advance_processing(&mut self, exec: &mut Exec, limit: usize) -> Result<bool, UserError> {
        let _ = (exec, limit);
        Ok(true)
    }

    /// Sends partly filled batches.
    fn flush(&mut self, exec: &mut Exec);

    /// Adds positions and prepared output. Tables are cut by the caller.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn snapshot(&mut self, exec: &mut Exec, checkpoint: CheckpointId, out: &mut ChainSnapshot)
    -> Result<(), UserError>;

    /// The keyed states, in an order that never changes.
    fn states(&mut self) -> Vec<&mut dyn Snapshotable>;
}

/// What a chain is built for.
pub struct BuildContext<'a> {
    /// The job.
    pub job: &'a str,
    /// The subtask.
    pub subtask: SubtaskId,
    /// How many subtasks the task has.
    pub parallelism: u32,
    /// How many key groups the job has.
    pub max_parallelism: MaxParallelism,
    /// Of each output of the task: how many subtasks receive it.
    pub receivers: &'a [u32],
    /// The reign of the coordinator.
    pub epoch: Epoch,
    /// The run within the epoch.
    pub attempt: Attempt,
    /// The watermark that the restored checkpoint holds for the task; [`Timestamp::MIN`] at a fresh start.
    pub watermark: Timestamp,
    /// Whether the attempt starts from nothing rather than from a checkpoint.
    pub from_nothing: bool,
    /// What the operators of this task, all subtasks, added to the restored checkpoint.
    pub restored: &'a [OperatorSnapshot],
    /// Where operators note the operator states that they declare.
    pub claimed: &'a ClaimedStates,
    /// What lies below the tables of values by key, if anything.
    pub tier: Option<&'a AttachedTier>,
}

impl BuildContext<'_> {
    /// The channels of an output of the task, counted as the [`Outbox`] counts them.
    pub(crate) fn channels(&self, output: usize) -> Range<usize> {
        let counts = || self.receivers.iter().map(|receivers| *receivers as usize);
        let first = counts().take(output).sum();
        first..first + counts().nth(output).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use cutwater_core::TaskId;

    use super::*;

    #[test]
    fn batches_of_one_source_that_come_out_of_order_have_no_common_range() {
        let batch =
            |source, first, last| Some(Origin { source: SubtaskId { task: TaskId(0), index: source }, first, last });
        let cases = [
            ("one after the other", batch(0, 14, 15), batch(0, 16, 18), 0),
            ("one record made into two batches", batch(0, 14, 15), batch(0, 15, 16), 0),
            ("over a channel that was slower", batch(0, 17, 18), batch(0, 14, 15), 1),
            ("another source", batch(0, 17, 18), batch(1, 14, 15), 1),
            ("a timer in between", None, batch(0, 14, 15), 1),
        ];
        for (name, first, second, expected) in cases {
            let mut exec = Exec::new(Outbox::new(&[]));
            exec.begin(first);
            exec.enter(first, false, 0);
            let before = exec.switches;
            exec.begin(second);
            exec.enter(second, false, 0);
            assert_eq!(exec.switches - before, expected, "{name}");
        }
    }
}
