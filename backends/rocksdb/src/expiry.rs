use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_state::stamp_of_value;
use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

/// What may expire in the column families of a database.
///
/// A compaction leaves out what was stamped at or before the horizon of its family. RocksDB does not ask whether a snapshot
/// still shows it, so that the horizons stand still while there are any: what is told meanwhile counts once the last one is gone.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many snapshots there are.
    snapshots: usize,
    families: BTreeMap<Box<str>, Horizon>,
}

#[derive(Debug)]
struct Horizon {
    told: i64,
    /// What compactions go by.
    holds: Arc<AtomicI64>,
}

impl Default for Horizon {
    fn default() -> Self {
        Self { told: i64::MIN, holds: Arc::new(AtomicI64::new(i64::MIN)) }
    }
}

impl Expiry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes the filters of a family.
    pub(crate) fn filters(&self, family: &str) -> Filters {
        let mut inner = self.inner();
        Filters { holds: Arc::clone(&inner.families.entry(family.into()).or_default().holds) }
    }

    pub(crate) fn tell(&self, family: &str, horizon: i64) {
        let mut inner = self.inner();
        let held = inner.snapshots > 0;
        let Some(of_family) = inner.families.get_mut(family).filter(|it| it.told < horizon) else { return };
        of_family.told = horizon;
        if !held {
            of_family.holds.store(horizon, Ordering::Relaxed);
        }
    }

    /// Before a snapshot is made. Returns what was told of each family: that is expired in the snapshot.
    pub(crate) fn snapshot(&self) -> BTreeMap<Box<str>, i64> {
        let mut inner = self.inner();
        inner.snapshots += 1;
        inner.families.iter().map(|(family, horizon)| (family.clone(), horizon.told)).collect()
    }

    /// After it is gone.
    pub(crate) fn snapshot_ended(&self) {
        let mut inner = self.inner();
        inner.snapshots = inner.snapshots.saturating_sub(1);
        if inner.snapshots == 0 {
            for horizon in inner.families.values() {
                horizon.holds.store(horizon.told, Ordering::Relaxed);
            }
        }
    }
}

/// Makes a filter for each compaction of a family.
pub(crate) struct Filters {
    holds: Arc<AtomicI64>,
}

const NAME: &CStr = c"cutwater.expiry";

impl CompactionFilterFactory for Filters {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter { horizon: self.holds.load(Ordering::Relaxed) }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

pub(crate) struct Filter {
    horizon: i64,
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, _name: &[u8], value: &[u8]) -> CompactionDecision {
        // Most families have no horizon.
        if self.horizon != i64::MIN && has_expired(value, self.horizon) {
            return CompactionDecision::Remove;
        }
        CompactionDecision::Keep
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

pub(crate) fn has_expired(value: &[u8], horizon: i64) -> bool {
    stamp_of_value(value).is_some_and(|stamp| stamp <= horizon)
}

#[cfg(test)]
mod tests;
