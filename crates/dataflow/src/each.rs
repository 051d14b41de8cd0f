//! `process` without keys: an operator that may fail, emit to side outputs and keep operator state.

use std::marker::PhantomData;

use cutwater_core::{CheckpointId, OperatorUid, Timestamp};

use crate::UserError;
use crate::exec::{BuildContext, ChainSnapshot, Exec};
use crate::fan::BranchHead;
use crate::graph::{BuildChain, GraphError};
use crate::side::{MakeSides, OutputTag, OutputTagMismatch, SideOutputs, Sides};
use crate::stage::{Compose, Identity, Stage};
use crate::states::{OperatorState, OperatorStates, OperatorStore, StatesError};
use crate::stream::{Build, Head, OperatorKind, Stream};

/// An operator over a stream without keys, with operator states.
///
/// ```
/// use cutwater_dataflow::{OperatorListState, OperatorStates, Process, RecordContext, Timestamp, UserError};
///
/// /// Sends records on in packets of 100. Those of a packet that is not full are in each checkpoint.
/// #[derive(Clone, Default)]
/// struct Packets {
///     open: OperatorListState<u64>,
/// }
///
/// impl Process<u64> for Packets {
///     type Out = Vec<u64>;
///
///     fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
///         self.open = states.list("open")?;
///         Ok(())
///     }
///
///     fn process(&mut self, cx: &mut RecordContext<'_, Vec<u64>>, record: u64) -> Result<(), UserError> {
///         let open = cx.operator_state(self.open)?;
///         open.push(record);
///         if open.len() == 100 {
///             let packet = std::mem::take(open);
///             cx.emit(packet);
///         }
///         Ok(())
///     }
///
///     fn on_watermark(&mut self, cx: &mut RecordContext<'_, Vec<u64>>, time: Timestamp) -> Result<(), UserError> {
///         let packet = match time {
///             Timestamp::MAX => std::mem::take(cx.operator_state(self.open)?), // the end of the input
///             _ => return Ok(()),
///         };
///         cx.emit(packet);
///         Ok(())
///     }
/// }
/// ```
///
/// Each subtask works on a clone. What is kept in `self` is not part of any snapshot: it must be a cache or a constant.
pub trait Process<T>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;

    /// Declares operator states and keeps their handles in `self`; what was restored can be seen and changed. Called for each
    /// subtask before anything else, and once when the stream is written, so that wrong names are an error of the graph.
    ///
    /// # Errors
    ///
    /// Those of [`OperatorStates`], to be passed on. One that comes up when the stream is written is that of
    /// [`Job::build`](crate::Job::build).
    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        let _ = states;
        Ok(())
    }

    /// Takes a record.
    ///
    /// # Errors
    ///
    /// An error fails the attempt, and the restart strategy decides; see [`NonRecoverable`](crate::NonRecoverable).
    fn process(&mut self, cx: &mut RecordContext<'_, Self::Out>, record: T) -> Result<(), UserError>;

    /// The watermark has risen to `time`; [`Timestamp::MAX`] once all input has ended, which comes without watermarks too.
    /// What it emits has no time unless it is given one.
    ///
    /// # Errors
    ///
    /// As for [`Self::process`].
    fn on_watermark(&mut self, cx: &mut RecordContext<'_, Self::Out>, time: Timestamp) -> Result<(), UserError> {
        let _ = (cx, time);
        Ok(())
    }
}

/// What a [`Process`] and the closure of [`Stream::process`] work with: the time of the record at hand, what they emit, and
/// operator states.
pub struct RecordContext<'a, O> {
    pub(crate) time: Timestamp,
    pub(crate) out: &'a mut Vec<(Timestamp, O)>,
    pub(crate) sides: &'a mut Sides,
    pub(crate) states: &'a mut OperatorStore,
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

    /// The content of an operator state that was declared through [`OperatorStates`]: a `Vec` or a `BTreeMap`.
    ///
    /// # Errors
    ///
    /// [`StatesError::Undeclared`] if this operator did not declare it.
    pub fn operator_state<H: OperatorState>(&mut self, state: H) -> Result<&mut H::Content, StatesError> {
        self.states.get_mut(state)
    }

    /// The subtask, in `0..parallelism`.
    #[must_use]
    pub fn subtask(&self) -> u32 {
        self.states.subtask
    }

    /// How many subtasks the operator has.
    #[must_use]
    pub fn parallelism(&self) -> u32 {
        self.states.parallelism
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
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn process<F, O>(self, f: F) -> Stream<'j, EachHead<C::Out, Each<F, O>>, Identity<O>>
    where
        F: Fn(&mut RecordContext<'_, O>, C::Out) -> Result<(), UserError> + Clone + Send + Sync + 'static,
        O: Send + 'static,
    {
        self.each(OperatorKind::Stateless, None, Each { f, types: PhantomData })
    }

    /// Processes records with operator states: `declare` makes their handles, and `f` gets them with each record.
    ///
    /// ```
    /// # use cutwater_dataflow::{Job, OperatorStates, RecordContext, from_iter, discard};
    /// # let job = Job::new("doc");
    /// job.source("numbers", from_iter(0u64..100))
    ///     .process_with_states(
    ///         "count",
    ///         |states: &mut OperatorStates<'_>| states.list::<u64>("count"),
    ///         |cx: &mut RecordContext<'_, u64>, count, _| {
    ///             let counts = cx.operator_state(*count)?;
    ///             let all = counts.iter().sum::<u64>() + 1; // after a restore there may be several, or none
    ///             *counts = vec![all];
    ///             cx.emit(all);
    ///             Ok(())
    ///         },
    ///     )
    ///     .sink("out", discard());
    /// # assert!(job.build().is_ok());
    /// ```
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn process_with_states<D, S, F, O>(
        self,
        uid: &str,
        declare: D,
        f: F,
    ) -> Stream<'j, EachHead<C::Out, StatefulEach<D, S, F, O>>, Identity<O>>
    where
        S: Clone + Send + Sync + 'static,
        O: Send + 'static,
        D: Fn(&mut OperatorStates<'_>) -> Result<S, StatesError> + Clone + Send + Sync + 'static,
        F: Fn(&mut RecordContext<'_, O>, &S, C::Out) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    {
        self.process_with(uid, StatefulEach { declare, f, handles: None, types: PhantomData })
    }

    /// Processes records with an operator of your own, with operator states that are found again by `uid`.
    pub fn process_with<P: Process<C::Out>>(
        self,
        uid: &str,
        process: P,
    ) -> Stream<'j, EachHead<C::Out, P>, Identity<P::Out>> {
        let (job, ..) = self.place();
        let uid = job.draft().take_uid(uid, "process");
        let opened = OperatorStates::draft(uid.clone(), &|_| None).open(|states| process.clone().open(states));
        job.draft().errors.extend(opened.err().map(|error| GraphError::of_open(&uid, error)));
        self.each(OperatorKind::Process, Some(uid), process)
    }

    fn each<P: Process<C::Out>>(
        self,
        kind: OperatorKind,
        uid: Option<OperatorUid>,
        process: P,
    ) -> Stream<'j, EachHead<C::Out, P>, Identity<P::Out>> {
        let mut before = self.erase();
        let operator = before.operator(kind, "process", uid.clone());
        let (job, task, last) = before.place();
        let head = EachHead { before: before.head().clone(), process, operator, uid, sides: MakeSides::default() };
        Stream::branch_of(job, task, last, head)
    }
}

/// `process` with a closure.
pub struct Each<F, O> {
    f: F,
    types: PhantomData<fn() -> O>,
}

impl<F: Clone, O> Clone for Each<F, O> {
    fn clone(&self) -> Self {
        Self { f: self.f.clone(), types: PhantomData }
    }
}

impl<T, F, O> Process<T> for Each<F, O>
where
    F: Fn(&mut RecordContext<'_, O>, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    type Out = O;

    fn process(&mut self, cx: &mut RecordContext<'_, O>, record: T) -> Result<(), UserError> {
        (self.f)(cx, record)
    }
}

/// `process_with_states` with closures, without keys.
pub struct StatefulEach<D, S, F, O> {
    declare: D,
    f: F,
    handles: Option<S>,
    types: PhantomData<fn() -> O>,
}

impl<D: Clone, S: Clone, F: Clone, O> Clone for StatefulEach<D, S, F, O> {
    fn clone(&self) -> Self {
        let Self { declare, f, handles, .. } = self;
        Self { declare: declare.clone(), f: f.clone(), handles: handles.clone(), types: PhantomData }
    }
}

impl<T, D, S, F, O> Process<T> for StatefulEach<D, S, F, O>
where
    S: Clone + Send + Sync + 'static,
    O: Send + 'static,
    D: Fn(&mut OperatorStates<'_>) -> Result<S, StatesError> + Clone + Send + Sync + 'static,
    F: Fn(&mut RecordContext<'_, O>, &S, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
{
    type Out = O;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.handles = Some((self.declare)(states)?);
        Ok(())
    }

    fn process(&mut self, cx: &mut RecordContext<'_, O>, record: T) -> Result<(), UserError> {
        let handles = self.handles.as_ref().ok_or("the operator was not opened")?;
        (self.f)(cx, handles, record)
    }
}

/// `process` without keys, behind other operators of its task.
pub struct EachHead<T, P> {
    before: BranchHead<T>,
    process: P,
    operator: u16,
    /// Only what keeps state has one.
    uid: Option<OperatorUid>,
    sides: MakeSides,
}

impl<T, P: Clone> Clone for EachHead<T, P> {
    fn clone(&self) -> Self {
        let Self { before, process, operator, uid, sides } = self;
        let (before, process, uid, sides) = (before.clone(), process.clone(), uid.clone(), sides.clone());
        Self { before, process, operator: *operator, uid, sides }
    }
}

impl<T: Send + 'static, P: Process<T>> Head for EachHead<T, P> {
    type Out = P::Out;
    type Built = Box<dyn Stage<T>>;

    fn build<N: Stage<P::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Stage<T>>, UserError> {
        let sides = self.sides.build(context)?;
        Ok(Box::new(EachStage::new(self.process.clone(), self.operator, self.uid.as_ref(), sides, next, context)?))
    }

    fn place(&self, build: Build<Box<dyn Stage<T>>>) -> Option<BuildChain> {
        self.before.place(build)
    }
}

impl<T, P> SideOutputs for EachHead<T, P>
where
    Self: Head,
{
    fn sides(&self) -> &MakeSides {
        &self.sides
    }
}

pub(crate) struct EachStage<P, O, N> {
    process: P,
    operator: u16,
    out: Vec<(Timestamp, O)>,
    sides: Sides,
    states: OperatorStore,
    next: N,
}

impl<P, O, N: Stage<O>> EachStage<P, O, N> {
    pub(crate) fn new<T>(
        mut process: P,
        operator: u16,
        uid: Option<&OperatorUid>,
        sides: Sides,
        next: N,
        context: &BuildContext<'_>,
    ) -> Result<Self, UserError>
    where
        P: Process<T, Out = O>,
    {
        let states = match uid {
            Some(uid) => OperatorStates::of(uid.clone(), context, &|_| None)?.open(|states| process.open(states))?,
            None => OperatorStore::of(context),
        };
        Ok(Self { process, operator, out: Vec::new(), sides, states, next })
    }

    /// Calls user code, then pushes on what it emitted; says how much that was.
    fn call(
        &mut self,
        exec: &mut Exec,
        time: Timestamp,
        user: impl FnOnce(&mut P, &mut RecordContext<'_, O>) -> Result<(), UserError>,
    ) -> Result<usize, UserError> {
        exec.running = self.operator;
        let Self { process, out, sides, states, .. } = self;
        user(process, &mut RecordContext { time, out, sides, states })?;
        self.sides.drain(exec)?;
        let emitted = self.out.len();
        self.out.drain(..).try_for_each(|(time, record)| self.next.push(exec, time, record))?;
        Ok(emitted)
    }
}

impl<T, P, N> Stage<T> for EachStage<P, P::Out, N>
where
    P: Process<T>,
    N: Stage<P::Out>,
{
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        let emitted = self.call(exec, time, |process, cx| process.process(cx, record))?;
        exec.uneven += u64::from(emitted != 1);
        Ok(())
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        let emitted = self.call(exec, Timestamp::MIN, |process, cx| process.on_watermark(cx, watermark))?;
        exec.uneven += u64::from(emitted > 0);
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
        exec.running = self.operator;
        self.states.snapshot(out)?;
        self.next.snapshot(exec, checkpoint, out)?;
        self.sides.snapshot(exec, checkpoint, out)
    }
}
