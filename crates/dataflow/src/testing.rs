//! A harness for tests of one keyed operator, without a job: records, time and failures are given by hand.
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
use cutwater_state::{Block, Data, Key, StateHeader, SweepProgress, hash_key};

use crate::exec::{BuildContext, Chain, ChainSnapshot, Exec, Keyed, KeyedBatch, Outbox};
use crate::process::{KeyedHead, KeyedProcess};
use crate::side::MakeSides;
use crate::stage::Stage;
use crate::stream::Head;
use crate::{NonRecoverable, UserError};

/// One keyed operator in as many subtasks as wanted, all on this thread. A record goes to the subtask that owns its key;
/// time is set for all of them. See the module's page.
pub struct TestHarness<K: Key, T: Data, P: KeyedProcess<K, T>> {
    subtasks: Vec<(Box<dyn Chain>, Exec)>,
    max_parallelism: MaxParallelism,
    out: Arc<Mutex<Emitted<P::Out>>>,
    watermark: Timestamp,
    types: PhantomData<fn(K, T) -> P>,
}

/// What was emitted, with its times.
type Emitted<O> = Vec<(Option<Timestamp>, O)>;

/// What [`TestHarness::snapshot`] took.
#[derive(Clone, Debug)]
pub struct HarnessSnapshot {
    parts: Vec<(Vec<StateHeader>, Vec<Block>)>,
    watermark: Timestamp,
}

impl<K: Key, T: Data, P: KeyedProcess<K, T>> TestHarness<K, T, P> {
    /// The operator in `parallelism` subtasks, 1 to 128, without any state. The wall clock shows 0.
    ///
    /// # Errors
    ///
    /// What the operator's `open` says; a parallelism out of range.
    pub fn new(process: P, parallelism: u32) -> Result<Self, UserError> {
        Self::build(process, parallelism, Timestamp::MIN, true)
    }

    /// The operator as a job would restore it, at any parallelism; it may be a changed one. The watermark is that of the
    /// snapshot, the wall clock shows 0 until it is set.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; if the operator lacks a state that the snapshot has, or has it with other types.
    pub fn restore(process: P, parallelism: u32, snapshot: &HarnessSnapshot) -> Result<Self, UserError> {
        let mut harness = Self::build(process, parallelism, snapshot.watermark, false)?;
        let all = harness.max_parallelism.all();
        for (chain, _) in &mut harness.subtasks {
            let mut states = chain.states();
            for (headers, blocks) in &snapshot.parts {
                for block in blocks {
                    let header = &headers[usize::from(block.state)];
                    let state = states.iter_mut().find(|state| state.header().name == header.name);
                    let Some(state) = state else {
                        let name = &header.name;
                        return Err(format!("the snapshot has a state {name}, the operator declares none").into());
                    };
                    state.header().check(header)?;
                    state.restore(block, all)?;
                }
            }
        }
        Ok(harness)
    }

    fn build(process: P, parallelism: u32, watermark: Timestamp, from_nothing: bool) -> Result<Self, UserError> {
        let max_parallelism = MaxParallelism::default();
        if parallelism == 0 || parallelism > max_parallelism.count() {
            return Err(NonRecoverable::new(format!("parallelism {parallelism} is not within 1 to 128")).into());
        }
        let out = Arc::new(Mutex::new(Vec::new()));
        let head = KeyedHead {
            uid: OperatorUid::new("operator")?,
            process,
            name: "process",
            sides: MakeSides::default(),
            types: PhantomData,
        };
        let mut subtasks = Vec::new();
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
                from_nothing,
                restored: &[],
            };
            let chain = head.build(Gather { out: Arc::clone(&out) }, &context)?;
            subtasks.push((chain, Exec::new(Outbox::new(&[], 0))));
        }
        Ok(Self { subtasks, max_parallelism, out, watermark, types: PhantomData })
    }

    /// Gives the operator a record without event time.
    ///
    /// # Errors
    ///
    /// Of the operator.
    pub fn push(&mut self, key: K, record: T) -> Result<(), UserError> {
        self.give(Timestamp::MIN, key, record)
    }

    /// Gives the operator a record that happened at `time`, in milliseconds.
    ///
    /// # Errors
    ///
    /// Of the operator.
    pub fn push_at(&mut self, time: i64, key: K, record: T) -> Result<(), UserError> {
        self.give(Timestamp(time), key, record)
    }

    fn give(&mut self, time: Timestamp, key: K, record: T) -> Result<(), UserError> {
        let hash = hash_key(&key, &mut Vec::new());
        let parallelism = u32::try_from(self.subtasks.len()).unwrap_or(u32::MAX);
        let owner = hash.group(self.max_parallelism).owner(self.max_parallelism, parallelism);
        let (chain, exec) = &mut self.subtasks[owner as usize];
        let records = vec![Keyed { hash, key, record }].into_iter();
        let batch = KeyedBatch { records, times: vec![time], next: 0, bytes: 0, origin: None, exact: false };
        chain.process(exec, Box::new(batch))?;
        Ok(())
    }

    /// Raises the watermark to `time`, in milliseconds; the timers up to it fire. [`i64::MAX`] is the end of the input. A
    /// watermark that does not rise changes nothing.
    ///
    /// # Errors
    ///
    /// Of the operator.
    pub fn watermark(&mut self, time: i64) -> Result<(), UserError> {
        if Timestamp(time) <= self.watermark {
            return Ok(());
        }
        self.watermark = Timestamp(time);
        for (chain, exec) in &mut self.subtasks {
            while !chain.advance(exec, Timestamp(time), 1_000)? {}
        }
        Ok(())
    }

    /// Sets the wall clock to `time`, in milliseconds since 1970-01-01 UTC; the processing-time timers up to it fire.
    ///
    /// # Errors
    ///
    /// Of the operator.
    pub fn processing_time(&mut self, time: i64) -> Result<(), UserError> {
        for (chain, exec) in &mut self.subtasks {
            exec.wall = exec.wall.max(Timestamp(time));
            while !chain.advance_processing(exec, 1_000)? {}
        }
        Ok(())
    }

    /// Takes what was emitted since the last call, with its event times.
    #[must_use]
    pub fn take(&mut self) -> Emitted<P::Out> {
        mem::take(&mut *lock(&self.out))
    }

    /// Takes a snapshot as a checkpoint would. The operator can go on.
    ///
    /// # Errors
    ///
    /// If a key or value can't be encoded.
    pub fn snapshot(&mut self) -> Result<HarnessSnapshot, UserError> {
        let mut parts = Vec::new();
        for (chain, exec) in &mut self.subtasks {
            chain.snapshot(exec, CheckpointId(1), &mut ChainSnapshot::default())?;
            let (mut headers, mut blocks) = (Vec::new(), Vec::new());
            for (place, state) in (0..).zip(chain.states()) {
                headers.push(state.header());
                state.cut();
                let mut keep = |block: Block| blocks.push(Block { state: place, ..block });
                while state.sweep(1 << 20, &mut keep)? == SweepProgress::More {}
            }
            parts.push((headers, blocks));
        }
        Ok(HarnessSnapshot { parts, watermark: self.watermark })
    }

    /// How many entries the state of this name has, over all subtasks, those that have expired and are still there
    /// included: `value` is the operator's own value, `timers` and `processing-timers` are its timers.
    #[must_use]
    pub fn entries(&mut self, state: &str) -> u64 {
        let chains = self.subtasks.iter_mut().flat_map(|(chain, _)| chain.states());
        chains.filter(|one| one.header().name == state).map(|one| one.len()).sum()
    }
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
