use std::sync::{Arc, Mutex, PoisonError};

use cutwater_dataflow::{Finish, UserError};

/// The blocking rest of one prepared output, which several snapshots may ask for: the first one to get there does it.
/// A failure stays: what could not be finished is in no checkpoint.
pub(crate) struct OnceFinish(Arc<Mutex<State>>);

enum State {
    Waiting(Finish),
    Done,
    Failed(String),
}

impl OnceFinish {
    pub(crate) fn new(finish: Finish) -> Self {
        Self(Arc::new(Mutex::new(State::Waiting(finish))))
    }

    /// What one more snapshot must wait for.
    pub(crate) fn again(&self) -> Finish {
        let state = Arc::clone(&self.0);
        Box::new(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // A panic in user code leaves the failure behind.
            let panicked = State::Failed("it panicked".to_owned());
            let result = match std::mem::replace(&mut *state, panicked) {
                State::Waiting(finish) => finish(),
                State::Done => Ok(()),
                State::Failed(reason) => Err(UserError::from(reason)),
            };
            *state = match &result {
                Ok(()) => State::Done,
                Err(error) => State::Failed(error.to_string()),
            };
            result
        })
    }
}

#[cfg(test)]
mod tests;
