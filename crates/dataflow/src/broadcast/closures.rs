use std::marker::PhantomData;

use cutwater_state::{Data, Key};

use super::KeyedBroadcastProcess;
use crate::UserError;
use crate::each::RecordContext;
use crate::process::ProcessContext;
use crate::states::{OperatorStates, StatesError};

/// `process` with closures.
pub(super) struct FnBroadcast<D, H, F, G, S, O> {
    declare: D,
    process: F,
    process_broadcast: G,
    handles: Option<H>,
    types: PhantomData<fn() -> (S, O)>,
}

impl<D: Clone, H: Clone, F: Clone, G: Clone, S, O> Clone for FnBroadcast<D, H, F, G, S, O> {
    fn clone(&self) -> Self {
        let Self { declare, process, process_broadcast, handles, .. } = self;
        let (declare, process, handles) = (declare.clone(), process.clone(), handles.clone());
        Self { declare, process, process_broadcast: process_broadcast.clone(), handles, types: PhantomData }
    }
}

impl<D, H, F, G, S, O> FnBroadcast<D, H, F, G, S, O> {
    pub(super) fn new(declare: D, process: F, process_broadcast: G) -> Self {
        Self { declare, process, process_broadcast, handles: None, types: PhantomData }
    }

    fn handles(handles: &Option<H>) -> Result<&H, UserError> {
        handles.as_ref().ok_or_else(|| "the operator was not opened".into())
    }
}

impl<K, A, B, D, H, F, G, S, O> KeyedBroadcastProcess<K, A, B> for FnBroadcast<D, H, F, G, S, O>
where
    K: Key,
    S: Data + Default,
    H: Clone + Send + Sync + 'static,
    O: Send + 'static,
    D: Fn(&mut OperatorStates<'_>) -> Result<H, StatesError> + Clone + Send + Sync + 'static,
    F: Fn(&mut ProcessContext<'_, K, S, O>, &H, A) -> Result<(), UserError> + Clone + Send + Sync + 'static,
    G: Fn(&mut RecordContext<'_, O>, &H, B) -> Result<(), UserError> + Clone + Send + Sync + 'static,
{
    type State = S;
    type Out = O;

    fn initial(&self) -> S {
        S::default()
    }

    fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.handles = Some((self.declare)(states)?);
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, K, S, O>, record: A) -> Result<(), UserError> {
        (self.process)(cx, Self::handles(&self.handles)?, record)
    }

    fn process_broadcast(&mut self, cx: &mut RecordContext<'_, O>, record: B) -> Result<(), UserError> {
        (self.process_broadcast)(cx, Self::handles(&self.handles)?, record)
    }
}
