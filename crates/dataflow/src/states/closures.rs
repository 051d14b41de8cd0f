use std::marker::PhantomData;

use cutwater_state::Key;

use super::{States, StatesError};
use crate::UserError;
use crate::process::{KeyedProcess, ProcessContext};

/// `process_with_states` with closures.
pub struct StatefulFn<D, F, H, O> {
    pub(crate) declare: D,
    pub(crate) process: F,
    pub(crate) handles: Option<H>,
    pub(crate) types: PhantomData<fn() -> O>,
}

impl<D: Clone, F: Clone, H: Clone, O> Clone for StatefulFn<D, F, H, O> {
    fn clone(&self) -> Self {
        Self {
            declare: self.declare.clone(),
            process: self.process.clone(),
            handles: self.handles.clone(),
            types: PhantomData,
        }
    }
}

impl<K, T, D, F, H, O> KeyedProcess<K, T> for StatefulFn<D, F, H, O>
where
    K: Key,
    H: Clone + Send + Sync + 'static,
    O: Send + 'static,
    D: Fn(&mut States<'_, K>) -> Result<H, StatesError> + Clone + Send + Sync + 'static,
    F: Fn(&mut ProcessContext<'_, K, (), O>, &H, T) -> Result<(), UserError> + Clone + Send + Sync + 'static,
{
    type State = ();
    type Out = O;

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, K>) -> Result<(), UserError> {
        self.handles = Some((self.declare)(states)?);
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, K, (), O>, record: T) -> Result<(), UserError> {
        let handles = self.handles.as_ref().ok_or("the operator was not opened")?;
        (self.process)(cx, handles, record)
    }
}
