//! `process` without keys: an operator without state that may fail, and emit to side outputs.

use std::marker::PhantomData;

use cutwater_core::{CheckpointId, Timestamp};

use crate::UserError;
use crate::exec::{BuildContext, ChainSnapshot, Exec};
use crate::fan::BranchHead;
use crate::graph::BuildChain;
use crate::side::{MakeSides, OutputTag, OutputTagMismatch, SideOutputs, Sides};
use crate::stage::{Compose, Identity, Stage};
use crate::stream::{Build, Head, OperatorKind, Stream};

/// What the closure of [`Stream::process`] works with: the time of the record at hand, and what it emits.
pub struct RecordContext<'a, O> {
    time: Timestamp,
    out: &'a mut Vec<(Timestamp, O)>,
    sides: &'a mut Sides,
}

impl<O> RecordContext<'_, O> {
    /// The event time of the record, if it has one.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        (self.time != Timestamp::MIN).then_some(self.time)
    }

    /// Emits a record with the time of the one at hand.
    pub fn emit(&mut self, record: O) {
        self.out.push((self.time, record));
    }

    /// Emits a record that happened at `time`.
    pub fn emit_at(&mut self, time: Timestamp, record: O) {
        self.out.push((time, record));
    }

    /// Emits a record to a side output, with the time of the one at hand; see [`Stream::side_output`].
    ///
    /// # Errors
    ///
    /// If the stream was taken with a tag of the same name and another type.
    pub fn emit_to<T: Send + 'static>(&mut self, tag: &OutputTag<T>, record: T) -> Result<(), OutputTagMismatch> {
        self.sides.emit(tag, self.time, record)
    }
}

impl<'j, H: Head, C: Compose<H::Out>> Stream<'j, H, C> {
    /// Turns each record into any number of others, some of them on side outputs; an error fails the attempt. For steps that
    /// need neither, `map`, `filter` and `flat_map` cost less: this one is called dynamically, once per record.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, OutputTag, RecordContext, from_iter, discard};
    /// # let job = Job::new("doc");
    /// const MALFORMED: OutputTag<String> = OutputTag::new("malformed");
    /// let numbers = job.source("lines", from_iter(["1".to_owned(), "x".to_owned()])).process(
    ///     |cx: &mut RecordContext<'_, u64>, line: String| {
    ///         match line.parse() {
    ///             Ok(number) => cx.emit(number),
    ///             Err(_) => cx.emit_to(&MALFORMED, line)?,
    ///         }
    ///         Ok(())
    ///     },
    /// );
    /// numbers.side_output(&MALFORMED).sink("malformed", discard());
    /// numbers.sink("numbers", discard());
    /// ```
    pub fn process<F, O>(self, f: F) -> Stream<'j, EachHead<C::Out, F, O>, Identity<O>>
    where
        F: Fn(&mut RecordContext<'_, O>, C::Out) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        O: Send + 'static,
    {
        let mut before = self.erase();
        let operator = before.operator(OperatorKind::Stateless, "process", None);
        let (job, task, last) = before.place();
        let head =
            EachHead { before: before.head().clone(), f, operator, sides: MakeSides::default(), types: PhantomData };
        Stream::branch_of(job, task, last, head)
    }
}

/// `process` without keys, behind other operators of its task.
pub struct EachHead<T, F, O> {
    before: BranchHead<T>,
    f: F,
    operator: u16,
    sides: MakeSides,
    types: PhantomData<fn() -> O>,
}

impl<T, F: Clone, O> Clone for EachHead<T, F, O> {
    fn clone(&self) -> Self {
        let Self { before, f, operator, sides, .. } = self;
        let (before, f, sides) = (before.clone(), f.clone(), sides.clone());
        Self { before, f, operator: *operator, sides, types: PhantomData }
    }
}

impl<T, F, O> Head for EachHead<T, F, O>
where
    T: Send + 'static,
    F: Fn(&mut RecordContext<'_, O>, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    type Out = O;
    type Built = Box<dyn Stage<T>>;

    fn build<N: Stage<O>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Stage<T>>, UserError> {
        let sides = self.sides.build(context)?;
        Ok(Box::new(EachStage { f: self.f.clone(), operator: self.operator, out: Vec::new(), sides, next }))
    }

    fn place(&self, build: Build<Box<dyn Stage<T>>>) -> Option<BuildChain> {
        self.before.place(build)
    }
}

impl<T, F, O> SideOutputs for EachHead<T, F, O>
where
    Self: Head,
{
    fn sides(&self) -> &MakeSides {
        &self.sides
    }
}

struct EachStage<F, O, N> {
    f: F,
    operator: u16,
    out: Vec<(Timestamp, O)>,
    sides: Sides,
    next: N,
}

impl<T, F, O, N> Stage<T> for EachStage<F, O, N>
where
    F: Fn(&mut RecordContext<'_, O>, T) -> Result<(), UserError> + Send + 'static,
    O: Send + 'static,
    N: Stage<O>,
{
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        (self.f)(&mut RecordContext { time, out: &mut self.out, sides: &mut self.sides }, record)?;
        self.sides.drain(exec)?;
        exec.uneven += u64::from(self.out.len() != 1);
        self.out.drain(..).try_for_each(|(time, record)| self.next.push(exec, time, record))
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.next.watermark(exec, watermark)?;
        self.sides.watermark(exec, watermark)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.next.flush(exec);
        self.sides.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.next.snapshot(exec, checkpoint, out)?;
        self.sides.snapshot(exec, checkpoint, out)
    }
}
