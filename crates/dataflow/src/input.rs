//! The head of a task that takes records as they come: behind `union`, `rebalance` and `broadcast`.

use std::marker::PhantomData;

use cutwater_core::{CheckpointId, Timestamp};
use cutwater_state::{Data, Snapshotable};

use crate::UserError;
use crate::exec::{AnyBatch, Batch, BuildContext, Chain, ChainSnapshot, Exec, SourcePoll};
use crate::graph::BuildChain;
use crate::stage::Stage;
use crate::stream::{Build, Head, OperatorKind, OperatorSpec, TaskHead};

/// An input without keys as the head of a task.
pub struct InputHead<T>(PhantomData<fn(T) -> T>);

impl<T> Default for InputHead<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for InputHead<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Data> Head for InputHead<T> {
    type Out = T;
    type Built = Box<dyn Chain>;

    fn build<N: Stage<T>>(&self, next: N, _: &BuildContext<'_>) -> Result<Box<dyn Chain>, UserError> {
        Ok(Box::new(InputChain::new(next)))
    }

    fn place(&self, build: Build<Box<dyn Chain>>) -> Option<BuildChain> {
        Some(build)
    }
}

impl<T: Data> TaskHead for InputHead<T> {
    fn operator(&self) -> OperatorSpec {
        OperatorSpec { kind: OperatorKind::Input, name: "input", uid: None }
    }

    fn parallelism_limit(&self) -> u32 {
        u32::MAX
    }
}

pub(crate) struct InputChain<T, N> {
    next: N,
    types: PhantomData<fn(T)>,
}

impl<T, N> InputChain<T, N> {
    pub(crate) fn new(next: N) -> Self {
        Self { next, types: PhantomData }
    }
}

impl<T: Send + 'static, N: Stage<T>> Chain for InputChain<T, N> {
    fn read(&mut self, _: &mut Exec, _: usize) -> Result<SourcePoll, UserError> {
        Err("this chain does not begin with a source".into())
    }

    fn process(&mut self, exec: &mut Exec, batch: Box<dyn AnyBatch>) -> Result<Option<Box<dyn AnyBatch>>, UserError> {
        let mut batch = Batch::<T>::enter(exec, batch)?;
        while let Some((time, record)) = batch.take() {
            exec.begun += 1;
            exec.records += 1;
            self.next.push(exec, time, record)?;
            if exec.outbox.is_blocked() && batch.len() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn advance(&mut self, exec: &mut Exec, watermark: Timestamp, _: usize) -> Result<bool, UserError> {
        self.next.watermark(exec, watermark)?;
        Ok(true)
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

    fn states(&mut self) -> Vec<&mut dyn Snapshotable> {
        Vec::new()
    }
}
