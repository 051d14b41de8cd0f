use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_core::KeyGroupRange;

use super::{ColdBatch, ColdError, ColdState, ColdTier, ColdView, ColdVisitor, group_prefix};
use crate::{StateHeader, StateKind};

/// A cold tier in memory, for tests and simulations: what a tier has to do, without a disk.
#[derive(Debug, Default)]
pub struct ModelTier {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    states: Vec<(String, String, StateKind)>,
    /// Shared with the views.
    entries: Arc<Entries>,
}

type Entries = BTreeMap<(ColdState, Vec<u8>), Vec<u8>>;

impl ModelTier {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries it has, of all states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ColdTier for ModelTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        let wanted = (header.operator.as_str().to_owned(), header.name.clone(), header.kind);
        let states = &mut self.inner().states;
        let found = states.iter().position(|state| *state == wanted).unwrap_or_else(|| {
            states.push(wanted);
            states.len() - 1
        });
        Ok(ColdState(u32::try_from(found).expect("fewer states than 2^32")))
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        let inner = self.inner();
        for (at, name) in names.iter().enumerate() {
            if let Some(value) = inner.entries.get(&(state, name.to_vec())) {
                found(at, value);
            }
        }
        Ok(())
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        let mut inner = self.inner();
        let entries = Arc::make_mut(&mut inner.entries);
        for (name, value) in batch.iter() {
            match value {
                Some(value) => entries.insert((state, name.to_vec()), value.to_vec()),
                None => entries.remove(&(state, name.to_vec())),
            };
        }
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        Ok(Box::new(ModelView { entries: Arc::clone(&self.inner().entries) }))
    }
}

#[derive(Debug)]
struct ModelView {
    entries: Arc<Entries>,
}

impl ColdView for ModelView {
    fn scan(&self, state: ColdState, groups: KeyGroupRange, visit: &mut ColdVisitor<'_>) -> Result<(), ColdError> {
        let from = (state, group_prefix(groups.first).to_vec());
        let last = group_prefix(groups.last);
        for ((found, name), value) in self.entries.range(from..) {
            if *found != state || name[..] > last[..] && !name.starts_with(&last) {
                break;
            }
            // A name without a whole group is in none.
            if name.len() >= 2 && visit(name, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
