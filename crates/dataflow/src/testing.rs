//! Harnesses for tests of one operator, without a job: records, time and failures are given by hand. [`TestHarness`] is for
//! keyed ones, [`BroadcastTestHarness`] for those with a broadcast input, [`ProcessTestHarness`] for those without keys.
//!
//! ```
//! use cutwater_dataflow::testing::TestHarness;
//! use cutwater_dataflow::{KeyedProcess, ProcessContext, Timestamp, UserError};
//!
//! /// Emits how many records of a key there were by the end of each minute.
//! #[derive(Clone)]
//! struct PerMinute;
//!
//! impl KeyedProcess<String, u64> for PerMinute {
//!     type State = u64;
//!     type Out = (String, u64);
//!
//!     fn initial(&self) -> u64 { 0 }
//!
//!     fn process(&mut self, cx: &mut ProcessContext<'_, String, u64, (String, u64)>, _: u64) -> Result<(), UserError> {
//!         *cx.state()? += 1;
//!         let time = cx.timestamp().ok_or("a record without a time")?;
//!         cx.register_timer(Timestamp(time.0 - time.0.rem_euclid(60_000) + 59_999))?;
//!         Ok(())
//!     }
//!
//!     fn on_timer(&mut self, cx: &mut ProcessContext<'_, String, u64, (String, u64)>, _: Timestamp) -> Result<(), UserError> {
//!         let count = cx.peek()?.copied().unwrap_or_default();
//!         let key = cx.key().clone();
//!         cx.clear()?;
//!         cx.emit((key, count));
//!         Ok(())
//!     }
//! }
//!
//! let mut harness = TestHarness::new(PerMinute, 2)?;
//! harness.push_at(1_000, "a".to_owned(), 7)?;
//! harness.push_at(2_000, "a".to_owned(), 8)?;
//! assert_eq!(harness.take(), []);
//!
//! // As if the job failed here and went on at another parallelism.
//! let snapshot = harness.snapshot()?;
//! let mut harness = TestHarness::restore(PerMinute, 3, &snapshot)?;
//! harness.watermark(59_999)?;
//! assert_eq!(harness.take(), [(Some(Timestamp(59_999)), ("a".to_owned(), 2))]);
//! assert_eq!(harness.entries("value"), 0);
//! # Ok::<(), UserError>(())
//! ```

use std::marker::PhantomData;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_core::{Attempt, CheckpointId, Epoch, MaxParallelism, OperatorUid, SubtaskId, TaskId, Timestamp};
use cutwater_state::{Block, Data, Key, OperatorStatePart, StateHeader, SweepProgress, hash_key};

use crate::broadcast::{BroadcastHead, KeyedBroadcastProcess};
use crate::each::{EachStage, Process};
use crate::exec::{
    Batch, BuildContext, Chain, ChainSnapshot, ClaimedStates, Exec, Keyed, KeyedBatch, OperatorSnapshot, Outbox,
    SnapshotKind,
};
use crate::input::InputChain;
use crate::process::{KeyedHead, KeyedProcess};
use crate::side::MakeSides;
use crate::stage::Stage;
use crate::stream::Head;
use crate::{NonRecoverable, UserError};

/// One keyed operator in as many subtasks as wanted, all on this thread. A record goes to the subtask that owns its key;
/// time is set for all of them. See the module's page.
pub struct TestHarness<K: Key, T: Data, P: KeyedProcess<K, T>> {
    subtasks: Subtasks<P::Out>,
    types: PhantomData<fn(K, T) -> P>,
}

/// One operator without keys in as many subtasks as wanted, as [`TestHarness`].
///
/// ```
/// use cutwater_dataflow::testing::ProcessTestHarness;
/// use cutwater_dataflow::{OperatorListState, OperatorStates, Process, RecordContext, UserError};
///
/// /// Emits each record once the next one comes.
/// #[derive(Clone, Default)]
/// struct Late {
///     waiting: OperatorListState<u64>,
/// }
///
/// impl Process<u64> for Late {
///     type Out = u64;
///
///     fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
///         self.waiting = states.list("waiting")?;
///         Ok(())
///     }
///
///     fn process(&mut self, cx: &mut RecordContext<'_, u64>, record: u64) -> Result<(), UserError> {
///         let before = std::mem::replace(cx.operator_state(self.waiting)?, vec![record]);
///         before.into_iter().for_each(|before| cx.emit(before));
///         Ok(())
///     }
/// }
///
/// let mut harness = ProcessTestHarness::new(Late::default(), 2)?;
/// harness.push(0, 7)?;
/// harness.push(1, 8)?;
/// let mut harness = ProcessTestHarness::restore(Late::default(), 1, &harness.snapshot()?)?;
/// harness.push(0, 9)?;
/// assert_eq!(harness.take(), [(None, 7), (None, 8)]);
/// # Ok::<(), UserError>(())
/// ```
pub struct ProcessTestHarness<T: Send + 'static, P: Process<T>> {
    subtasks: Subtasks<P::Out>,
    types: PhantomData<fn(T) -> P>,
}

/// One operator with a keyed and a broadcast input in as many subtasks as wanted, as [`TestHarness`]. The example of
/// [`KeyedBroadcastProcess`] uses it.
pub struct BroadcastTestHarness<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> {
    subtasks: Subtasks<P::Out>,
    types: PhantomData<fn(K, A, B) -> P>,
}

/// What was emitted, with its times.
type Emitted<O> = Vec<(Option<Timestamp>, O)>;

/// What the `snapshot` of a harness took.
#[derive(Clone, Debug)]
pub struct HarnessSnapshot {
    parts: Vec<(Vec<StateHeader>, Vec<Block>)>,
    operators: Vec<OperatorSnapshot>,
    watermark: Timestamp,
}

macro_rules! common {
    () => {
        /// The operator in `parallelism` subtasks, 1 to 128, without any state. The wall clock shows 0.
        ///
        /// # Errors
        ///
        /// What the operator says when it is opened; a parallelism out of range.
        pub fn new(process: P, parallelism: u32) -> Result<Self, UserError> {
            let subtasks = Subtasks::build(parallelism, None, Self::make(process)?)?;
            Ok(Self { subtasks, types: PhantomData })
        }

        /// The operator as a job would restore it, at any parallelism; it may be a changed one. The watermark is that of the
        /// snapshot, the wall clock shows 0 until it is set.
        ///
        /// # Errors
        ///
        /// As [`Self::new`]; if the operator lacks a state that the snapshot has, or has it with other types.
        pub fn restore(process: P, parallelism: u32, snapshot: &HarnessSnapshot) -> Result<Self, UserError> {
            let subtasks = Subtasks::build(parallelism, Some(snapshot), Self::make(process)?)?;
            Ok(Self { subtasks, types: PhantomData })
        }

        /// Raises the watermark to `time`, in milliseconds; the timers up to it fire. [`i64::MAX`] is the end of the input. A
        /// watermark that does not rise changes nothing.
        ///
        /// # Errors
        ///
        /// Of the operator.
        pub fn watermark(&mut self, time: i64) -> Result<(), UserError> {
            self.subtasks.watermark(Timestamp(time))
        }

        /// Takes what was emitted since the last call, with its event times.
        #[must_use]
        pub fn take(&mut self) -> Emitted<P::Out> {
            mem::take(&mut *lock(&self.subtasks.out))
        }

        /// Takes a snapshot as a checkpoint would. The operator can go on.
        ///
        /// # Errors
        ///
        /// If something can't be encoded, or the operator state is too large.
        pub fn snapshot(&mut self) -> Result<HarnessSnapshot, UserError> {
            self.subtasks.snapshot()
        }
    };
}

macro_rules! keyed {
    ($record:ident) => {
        /// Gives the operator a record without event time.
        ///
        /// # Errors
        ///
        /// Of the operator.
        pub fn push(&mut self, key: K, record: $record) -> Result<(), UserError> {
            self.subtasks.give_keyed(Timestamp::MIN, key, record)
        }

        /// Gives the operator a record that happened at `time`, in milliseconds.
        ///
        /// # Errors
        ///
        /// Of the operator.
        pub fn push_at(&mut self, time: i64, key: K, record: $record) -> Result<(), UserError> {
            self.subtasks.give_keyed(Timestamp(time), key, record)
        }

        /// Sets the wall clock to `time`, in milliseconds since 1970-01-01 UTC; the processing-time timers up to it fire.
        ///
        /// # Errors
        ///
        /// Of the operator.
        pub fn processing_time(&mut self, time: i64) -> Result<(), UserError> {
            self.subtasks.processing_time(Timestamp(time))
        }

        /// How many entries the keyed state of this name has, over all subtasks, those that have expired and are still there
        /// included: `value` is the operator's own value, `timers` and `processing-timers` are its timers.
        #[must_use]
        pub fn entries(&mut self, state: &str) -> u64 {
            self.subtasks.entries(state)
        }
    };
}

impl<K: Key, T: Data, P: KeyedProcess<K, T>> TestHarness<K, T, P> {
    common!();
    keyed!(T);

    fn make(process: P) -> Result<impl Make<P::Out>, UserError> {
        let uid = OperatorUid::new(OPERATOR)?;
        let head = KeyedHead { uid, process, name: "process", sides: MakeSides::default(), types: PhantomData };
        Ok(move |gather, context: &BuildContext<'_>| head.build(gather, context))
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> BroadcastTestHarness<K, A, B, P> {
    common!();
    keyed!(A);

    /// Gives each subtask a copy of a record of the broadcast stream, without event time.
    ///
    /// # Errors
    ///
    /// Of the operator.
    pub fn broadcast(&mut self, record: B) -> Result<(), UserError>
    where
        B: Clone,
    {
        let all = self.subtasks.all.len();
        (0..all).try_for_each(|subtask| self.subtasks.give(subtask, 1, batch(Timestamp::MIN, record.clone())))
    }

    fn make(process: P) -> Result<impl Make<P::Out>, UserError> {
        let head = BroadcastHead::new(OperatorUid::new(OPERATOR)?, process);
        Ok(move |gather, context: &BuildContext<'_>| head.build(gather, context))
    }
}

impl<T: Send + 'static, P: Process<T>> ProcessTestHarness<T, P> {
    common!();

    /// Gives a subtask, in `0..parallelism`, a record without event time.
    ///
    /// # Errors
    ///
    /// Of the operator; if there is no such subtask.
    pub fn push(&mut self, subtask: u32, record: T) -> Result<(), UserError> {
        self.subtasks.give(subtask as usize, 0, batch(Timestamp::MIN, record))
    }

    /// Gives a subtask a record that happened at `time`, in milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub fn push_at(&mut self, time: i64, subtask: u32, record: T) -> Result<(), UserError> {
        self.subtasks.give(subtask as usize, 0, batch(Timestamp(time), record))
    }

    fn make(process: P) -> Result<impl Make<P::Out>, UserError> {
        let uid = OperatorUid::new(OPERATOR)?;
        Ok(move |gather, context: &BuildContext<'_>| {
            let sides = MakeSides::default().build(context)?;
            let stage = EachStage::new(process.clone(), 0, Some(&uid), sides, gather, context)?;
            Ok(Box::new(InputChain::<T, _>::new(stage)) as Box<dyn Chain>)
        })
    }
}

/// The uid of the one operator.
const OPERATOR: &str = "operator";

/// Makes the chain of one subtask.
trait Make<O>: Fn(Gather<O>, &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {}

impl<O, F: Fn(Gather<O>, &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError>> Make<O> for F {}

fn batch<R: Send + 'static>(time: Timestamp, record: R) -> Batch<R> {
    let records = vec![record].into_iter();
    Batch { records, times: vec![time], next: 0, bytes: 0, origin: None, exact: false }
}

/// The subtasks of one operator, whatever its inputs.
struct Subtasks<O> {
    all: Vec<(Box<dyn Chain>, Exec)>,
    max_parallelism: MaxParallelism,
    out: Arc<Mutex<Emitted<O>>>,
    watermark: Timestamp,
}

impl<O: Send + 'static> Subtasks<O> {
    fn build(parallelism: u32, snapshot: Option<&HarnessSnapshot>, make: impl Make<O>) -> Result<Self, UserError> {
        let max_parallelism = MaxParallelism::default();
        if parallelism == 0 || parallelism > max_parallelism.count() {
            return Err(NonRecoverable::new(format!("parallelism {parallelism} is not within 1 to 128")).into());
        }
        let out = Arc::new(Mutex::new(Vec::new()));
        let watermark = snapshot.map_or(Timestamp::MIN, |snapshot| snapshot.watermark);
        let claimed = ClaimedStates::default();
        let mut all = Vec::new();
        for index in 0..parallelism {
            let context = BuildContext {
                job: "test",
                subtask: SubtaskId { task: TaskId(0), index },
                parallelism,
                max_parallelism,
                receivers: &[],
                epoch: Epoch(1),
                attempt: Attempt(1),
                watermark,
                from_nothing: snapshot.is_none(),
                restored: snapshot.map_or(&[], |snapshot| &snapshot.operators),
                claimed: &claimed,
                tier: None,
            };
            let chain = make(Gather { out: Arc::clone(&out) }, &context)?;
            all.push((chain, Exec::new(Outbox::new(&[]))));
        }
        let mut subtasks = Self { all, max_parallelism, out, watermark };
        if let Some(snapshot) = snapshot {
            check_claimed(snapshot, &claimed)?;
            subtasks.fill(snapshot)?;
        }
        Ok(subtasks)
    }

    /// Restores keyed state.
    fn fill(&mut self, snapshot: &HarnessSnapshot) -> Result<(), UserError> {
        let all = self.max_parallelism.all();
        for (chain, _) in &mut self.all {
            let mut states = chain.states();
            for (headers, blocks) in &snapshot.parts {
                for block in blocks {
                    let header = &headers[usize::from(block.state)];
                    let state = states.iter_mut().find(|state| state.header().name == header.name);
                    let state = state.ok_or_else(|| undeclared(&header.name))?;
                    state.header().check(header)?;
                    state.restore(block, all)?;
                }
            }
        }
        Ok(())
    }

    fn give<R: Send + 'static>(&mut self, subtask: usize, input: u8, batch: Batch<R>) -> Result<(), UserError> {
        let (chain, exec) = self.all.get_mut(subtask).ok_or_else(|| format!("there is no subtask {subtask}"))?;
        exec.input = input;
        chain.process(exec, Box::new(batch))?;
        Ok(())
    }

    fn give_keyed<K: Key, T: Data>(&mut self, time: Timestamp, key: K, record: T) -> Result<(), UserError> {
        let hash = hash_key(&key, &mut Vec::new());
        let parallelism = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let owner = hash.group(self.max_parallelism).owner(self.max_parallelism, parallelism);
        let batch: KeyedBatch<K, T> = batch(time, Keyed { hash, key, record });
        self.give(owner as usize, 0, batch)
    }

    fn watermark(&mut self, time: Timestamp) -> Result<(), UserError> {
        if time <= self.watermark {
            return Ok(());
        }
        self.watermark = time;
        for (chain, exec) in &mut self.all {
            while !chain.advance(exec, time, 1_000)? {}
        }
        Ok(())
    }

    fn processing_time(&mut self, time: Timestamp) -> Result<(), UserError> {
        for (chain, exec) in &mut self.all {
            exec.wall = exec.wall.max(time);
            while !chain.advance_processing(exec, 1_000)? {}
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<HarnessSnapshot, UserError> {
        let (mut parts, mut operators) = (Vec::new(), Vec::new());
        for (chain, exec) in &mut self.all {
            let mut out = ChainSnapshot::default();
            chain.snapshot(exec, CheckpointId(1), &mut out)?;
            operators.append(&mut out.operators);
            let (mut headers, mut blocks) = (Vec::new(), Vec::new());
            for (place, state) in (0..).zip(chain.states()) {
                headers.push(state.header());
                state.cut();
                let mut keep = |block: Block| blocks.push(Block { state: place, ..block });
                while state.sweep(1 << 20, &mut keep)? == SweepProgress::More {}
            }
            parts.push((headers, blocks));
        }
        Ok(HarnessSnapshot { parts, operators, watermark: self.watermark })
    }

    fn entries(&mut self, state: &str) -> u64 {
        let chains = self.all.iter_mut().flat_map(|(chain, _)| chain.states());
        chains.filter(|one| one.header().name == state).map(|one| one.len()).sum()
    }
}

/// Operator state with items that is not declared would be lost.
fn check_claimed(snapshot: &HarnessSnapshot, claimed: &ClaimedStates) -> Result<(), UserError> {
    for part in snapshot.operators.iter().filter(|part| part.kind == SnapshotKind::OperatorState) {
        let stored = OperatorStatePart::decode(&part.payload)?;
        if stored.entries > 0 && !claimed.has(&part.operator, &stored.header.name) {
            return Err(undeclared(&stored.header.name));
        }
    }
    Ok(())
}

fn undeclared(state: &str) -> UserError {
    format!("the snapshot has a state {state}, the operator declares none").into()
}

/// Gathers what the operator emits.
struct Gather<O> {
    out: Arc<Mutex<Emitted<O>>>,
}

fn lock<O>(out: &Mutex<Emitted<O>>) -> MutexGuard<'_, Emitted<O>> {
    out.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Send + 'static> Stage<O> for Gather<O> {
    fn push(&mut self, _: &mut Exec, time: Timestamp, record: O) -> Result<(), UserError> {
        lock(&self.out).push(((time != Timestamp::MIN).then_some(time), record));
        Ok(())
    }

    fn watermark(&mut self, _: &mut Exec, _: Timestamp) -> Result<(), UserError> {
        Ok(())
    }

    fn flush(&mut self, _: &mut Exec) {}

    fn snapshot(&mut self, _: &mut Exec, _: CheckpointId, _: &mut ChainSnapshot) -> Result<(), UserError> {
        Ok(())
    }
}
