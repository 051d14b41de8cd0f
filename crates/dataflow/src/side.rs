//! Side outputs: what an operator emits beside its main output, as streams of their own.

use std::any::{Any, type_name};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use cutwater_core::{CheckpointId, Timestamp};

use crate::UserError;
use crate::exec::{BuildContext, ChainSnapshot, Exec};
use crate::fan::BranchHead;
use crate::stage::{Identity, Stage};
use crate::stream::{Build, Head, OperatorKind, OperatorSpec, Stream};

/// Names a side output and says of which type its records are. A constant that the operator and whoever takes the stream
/// share:
///
/// ```
/// # use cutwater_dataflow::{Job, OutputTag, ProcessContext, from_iter, discard};
/// # let job = Job::new("doc");
/// const ODD: OutputTag<String> = OutputTag::new("odd");
/// let sums = job.source("numbers", from_iter(0u64..100)).key_by(|n| n % 10).process(
///     "sums",
///     |cx: &mut ProcessContext<'_, u64, u64, u64>, n| {
///         if n % 2 == 1 {
///             cx.emit_to(&ODD, format!("{n} is odd"))?;
///         }
///         *cx.state()? += n;
///         let sum = *cx.state()?;
///         cx.emit(sum);
///         Ok(())
///     },
/// );
/// sums.side_output(&ODD).sink("odd-out", discard());
/// sums.sink("sums-out", discard());
/// ```
pub struct OutputTag<T> {
    name: &'static str,
    types: PhantomData<fn(T) -> T>,
}

impl<T> OutputTag<T> {
    /// A tag. Within one operator the name stands for one side output.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OutputTag<T> {}

/// The tag of an emitted record and that of the stream have one name and different types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("side output {name:?} has records of {expected}, and one of {found} was emitted; share one constant tag")]
pub struct OutputTagMismatch {
    /// The name of both.
    pub name: &'static str,
    /// The type that the stream was taken with.
    pub expected: &'static str,
    /// The type that was emitted.
    pub found: &'static str,
}

/// The head of an operator that can emit to side outputs.
pub trait SideOutputs: Head {
    /// Where streams of its side outputs are noted.
    fn sides(&self) -> &MakeSides;
}

/// Makes what takes the records of the side outputs of one operator. Filled while the job is written.
#[derive(Clone, Default)]
pub struct MakeSides(Arc<Mutex<Vec<MakeSide>>>);

type MakeSide = Build<Box<dyn AnySide>>;

impl MakeSides {
    fn push(&self, make: MakeSide) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(make);
    }

    pub(crate) fn build(&self, context: &BuildContext<'_>) -> Result<Sides, UserError> {
        let makes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = makes.iter().map(|make| make(context)).collect::<Result<_, _>>()?;
        Ok(Sides { outputs, waiting: false })
    }
}

impl<'j, H: SideOutputs> Stream<'j, H, Identity<H::Out>> {
    /// The records that the operator emits with [`ProcessContext::emit_to`](crate::ProcessContext::emit_to) under this
    /// tag, as a stream of their own. What is emitted under a tag that nobody takes is dropped, as in Flink.
    ///
    /// The stream runs fused with the operator, with one dynamic call per record. Between the side output and the main
    /// output there is no order. The main stream must have an end too, if only in [`discard`](crate::discard).
    pub fn side_output<T: Send + 'static>(&self, tag: &OutputTag<T>) -> Stream<'j, BranchHead<T>, Identity<T>> {
        let (job, task, last) = self.place();
        let name = tag.name;
        let operator =
            job.draft().side_output(task, last, OperatorSpec { kind: OperatorKind::SideOutput, name, uid: None });
        let sides = Arc::downgrade(&self.head().sides().0);
        let attach = move |build: Build<Box<dyn Stage<T>>>| {
            let Some(sides) = sides.upgrade() else { return };
            MakeSides(sides).push(Arc::new(move |context| {
                Ok(Box::new(Side { name, records: Vec::new(), next: build(context)? }) as Box<dyn AnySide>)
            }));
        };
        Stream::branch_of(job, task, operator, BranchHead::new(attach))
    }
}

/// The side outputs of one operator in one subtask.
#[derive(Default)]
pub(crate) struct Sides {
    outputs: Vec<Box<dyn AnySide>>,
    /// Whether something was emitted that has not gone on.
    waiting: bool,
}

impl Sides {
    pub(crate) fn emit<T: Send + 'static>(
        &mut self,
        tag: &OutputTag<T>,
        time: Timestamp,
        record: T,
    ) -> Result<(), OutputTagMismatch> {
        let Some(side) = self.outputs.iter_mut().find(|side| side.name() == tag.name) else { return Ok(()) };
        let (name, expected, found) = (tag.name, side.type_name(), type_name::<T>());
        let side = side.as_any().downcast_mut::<Side<T>>();
        side.ok_or(OutputTagMismatch { name, expected, found })?.records.push((time, record));
        self.waiting = true;
        Ok(())
    }

    /// Hands on what was emitted since the last time.
    #[inline]
    pub(crate) fn drain(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        if self.waiting { self.drain_all(exec) } else { Ok(()) }
    }

    #[cold]
    fn drain_all(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        self.waiting = false;
        exec.uneven += 1; // a source record may have become none or several here
        self.outputs.iter_mut().try_for_each(|side| side.drain(exec))
    }

    pub(crate) fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.outputs.iter_mut().try_for_each(|side| side.watermark(exec, watermark))
    }

    pub(crate) fn flush(&mut self, exec: &mut Exec) {
        self.outputs.iter_mut().for_each(|side| side.flush(exec));
    }

    pub(crate) fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.outputs.iter_mut().try_for_each(|side| side.snapshot(exec, checkpoint, out))
    }
}

/// A side output of any type.
pub(crate) trait AnySide: Send {
    /// Its name.
    fn name(&self) -> &'static str;
    /// The type of its records.
    fn type_name(&self) -> &'static str;
    /// The way back to the type.
    fn as_any(&mut self) -> &mut dyn Any;
    /// Hands on what was emitted.
    fn drain(&mut self, exec: &mut Exec) -> Result<(), UserError>;
    /// See [`Stage::watermark`].
    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError>;
    /// See [`Stage::flush`].
    fn flush(&mut self, exec: &mut Exec);
    /// See [`Stage::snapshot`].
    fn snapshot(&mut self, exec: &mut Exec, checkpoint: CheckpointId, out: &mut ChainSnapshot)
    -> Result<(), UserError>;
}

struct Side<T> {
    name: &'static str,
    records: Vec<(Timestamp, T)>,
    next: Box<dyn Stage<T>>,
}

impl<T: Send + 'static> AnySide for Side<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn drain(&mut self, exec: &mut Exec) -> Result<(), UserError> {
        self.records.drain(..).try_for_each(|(time, record)| self.next.push(exec, time, record))
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.next.watermark(exec, watermark)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.next.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.next.snapshot(exec, checkpoint, out)
    }
}
