use std::marker::PhantomData;

use cutwater_core::{CheckpointId, OperatorUid, Timestamp};
use cutwater_state::{Data, Key, Snapshotable};

use super::KeyedBroadcastProcess;
use crate::UserError;
use crate::exec::{AnyBatch, Batch, BuildContext, Chain, ChainSnapshot, Exec, SourcePoll};
use crate::graph::{BuildChain, GraphError};
use crate::process::{KeyedChain, KeyedHead, KeyedProcess, ProcessContext, check_states};
use crate::side::{MakeSides, SideOutputs};
use crate::stage::Stage;
use crate::states::{Named, OperatorStates, States};
use crate::stream::{Build, Head, OperatorSpec, TaskHead};

/// The keyed side of the operator as one of its own.
struct KeyedSide<P, B> {
    process: P,
    types: PhantomData<fn(B)>,
}

impl<P: Clone, B> Clone for KeyedSide<P, B> {
    fn clone(&self) -> Self {
        Self { process: self.process.clone(), types: PhantomData }
    }
}

impl<K: Key, A, B: 'static, P: KeyedBroadcastProcess<K, A, B>> KeyedProcess<K, A> for KeyedSide<P, B> {
    type State = P::State;
    type Out = P::Out;

    fn initial(&self) -> P::State {
        self.process.initial()
    }

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        self.process.open(states)
    }

    #[inline]
    fn process(&mut self, cx: &mut ProcessContext<'_, K, P::State, P::Out>, record: A) -> Result<(), UserError> {
        self.process.process(cx, record)
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, K, P::State, P::Out>, time: Timestamp) -> Result<(), UserError> {
        self.process.on_timer(cx, time)
    }

    fn on_processing_timer(
        &mut self,
        cx: &mut ProcessContext<'_, K, P::State, P::Out>,
        time: Timestamp,
    ) -> Result<(), UserError> {
        self.process.on_processing_timer(cx, time)
    }
}

/// An operator with a keyed and a broadcast input as the head of a task.
pub struct BroadcastHead<K, A, B, P> {
    keyed: KeyedHead<K, A, KeyedSide<P, B>>,
}

impl<K, A, B, P: Clone> Clone for BroadcastHead<K, A, B, P> {
    fn clone(&self) -> Self {
        Self { keyed: self.keyed.clone() }
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> BroadcastHead<K, A, B, P> {
    pub(crate) fn new(uid: OperatorUid, process: P) -> Self {
        let (process, sides) = (KeyedSide { process, types: PhantomData }, MakeSides::default());
        Self { keyed: KeyedHead { uid, process, name: "connect_broadcast", sides, types: PhantomData } }
    }

    /// What is wrong with the states that the operator declares.
    pub(super) fn check(&self) -> Option<GraphError> {
        let KeyedHead { uid, process, .. } = &self.keyed;
        if let Some(wrong) = check_states::<K, A, _>(uid, process) {
            return Some(wrong);
        }
        let mut named = Named::<K>::draft(uid.clone());
        let mut process = process.process.clone();
        process.open(&mut named.states()).ok()?;
        let taken = |name: &str| named.taken(name);
        let opened = OperatorStates::draft(uid.clone(), &taken).open(|states| process.open_broadcast(states));
        opened.err().map(|error| GraphError::of_open(uid, error))
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> Head for BroadcastHead<K, A, B, P> {
    type Out = P::Out;
    type Built = Box<dyn Chain>;

    fn build<N: Stage<P::Out>>(&self, next: N, context: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {
        let mut keyed = self.keyed.chain(next, context)?;
        let KeyedChain { named, process, .. } = &mut keyed;
        let taken = |name: &str| named.taken(name);
        let states = OperatorStates::of(self.keyed.uid.clone(), context, &taken)?;
        keyed.operator = states.open(|states| process.process.open_broadcast(states))?;
        Ok(Box::new(BroadcastChain { keyed, types: PhantomData::<fn(B)> }))
    }

    fn place(&self, build: Build<Box<dyn Chain>>) -> Option<BuildChain> {
        Some(build)
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> TaskHead for BroadcastHead<K, A, B, P> {
    fn operator(&self) -> OperatorSpec {
        self.keyed.operator()
    }

    fn parallelism_limit(&self) -> u32 {
        self.keyed.parallelism_limit()
    }
}

impl<K: Key, A: Data, B: Data, P: KeyedBroadcastProcess<K, A, B>> SideOutputs for BroadcastHead<K, A, B, P> {
    fn sides(&self) -> &MakeSides {
        self.keyed.sides()
    }
}

/// A keyed chain whose second input comes without keys.
struct BroadcastChain<K: Key, A, B: 'static, P: KeyedBroadcastProcess<K, A, B>, N> {
    keyed: KeyedChain<K, A, KeyedSide<P, B>, N>,
    types: PhantomData<fn(B)>,
}

impl<K, A, B, P, N> BroadcastChain<K, A, B, P, N>
where
    K: Key,
    A: Data,
    B: Data,
    P: KeyedBroadcastProcess<K, A, B>,
    N: Stage<P::Out>,
{
    fn process_broadcast(
        &mut self,
        exec: &mut Exec,
        batch: Box<dyn AnyBatch>,
    ) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        let mut batch = Batch::<B>::enter(exec, batch)?;
        while let Some((time, record)) = batch.take() {
            exec.begun += 1;
            exec.records += 1;
            self.keyed.call_broadcast(exec, time, |side, cx| side.process.process_broadcast(cx, record))?;
            if exec.outbox.is_blocked() && batch.len() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl<K, A, B, P, N> Chain for BroadcastChain<K, A, B, P, N>
where
    K: Key,
    A: Data,
    B: Data,
    P: KeyedBroadcastProcess<K, A, B>,
    N: Stage<P::Out>,
{
    fn read(&mut self, exec: &mut Exec, limit: usize) -> Result<SourcePoll, UserError> {
        self.keyed.read(exec, limit)
    }

    fn process(&mut self, exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        match exec.input {
            0 => self.keyed.process(exec, batch),
            _ => self.process_broadcast(exec, batch),
        }
    }

    fn advance(&mut self, exec: &mut Exec, watermark: Timestamp, limit: usize) -> Result<bool, UserError> {
        self.keyed.advance(exec, watermark, limit)
    }

    fn processing_due(&self) -> Option<Timestamp> {
        self.keyed.processing_due()
    }

    fn advance_processing(&mut self, exec: &mut Exec, limit: usize) -> Result<bool, UserError> {
        self.keyed.advance_processing(exec, limit)
    }

    fn flush(&mut self, exec: &mut Exec) {
        self.keyed.flush(exec);
    }

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        self.keyed.snapshot(exec, checkpoint, out)
    }

    fn states(&mut self) -> Vec<&mut dyn Snapshotable> {
        self.keyed.states()
    }
}
