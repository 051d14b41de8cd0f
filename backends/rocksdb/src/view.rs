use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cutwater_core::KeyGroupRange;
use cutwater_state::{ColdError, ColdState, ColdView, ColdVisitor, group_prefix};
use rocksdb::{ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use crate::database::{Database, Db};
use crate::error::failed;
use crate::expiry::has_expired;

type Snapshot<'a> = SnapshotWithThreadMode<'a, Db>;

self_cell!(
    /// A snapshot of RocksDB, which borrows from its database, together with the database.
    struct OwnedSnapshot {
        owner: Arc<Database>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// A number in RocksDB's sequence of writes: later writes have higher ones, and what older ones replaced stays until the
/// view is dropped. Making one writes nothing and waits for nothing.
pub(crate) struct RocksView {
    snapshot: OwnedSnapshot,
    /// What was stamped at or before them has expired, by column family.
    horizons: BTreeMap<Box<str>, i64>,
}

impl RocksView {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let horizons = database.expiry.snapshot();
        Self { snapshot: OwnedSnapshot::new(database, |database| Snapshot::new(&database.db)), horizons }
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        // The snapshot itself is left a moment later, which nobody reads from any more.
        self.snapshot.borrow_owner().expiry.snapshot_ended();
    }
}

impl ColdView for RocksView {
    fn scan(&self, state: ColdState, groups: KeyGroupRange, visit: &mut ColdVisitor<'_>) -> Result<(), ColdError> {
        let mut options = ReadOptions::default();
        // What is read once should not drive out what the job reads.
        options.fill_cache(false);
        options.set_background_purge_on_iterator_cleanup(true);
        // Above the last group of all there is nothing.
        if let Some(end) = groups.last.0.checked_add(1) {
            options.set_iterate_upper_bound(end.to_be_bytes());
        }
        let database = self.snapshot.borrow_owner();
        let family = database.family(state)?;
        let horizon = database.name_of(state).and_then(|name| self.horizons.get(&name)).copied().unwrap_or(i64::MIN);
        let mut entries = self.snapshot.borrow_dependent().raw_iterator_cf_opt(&family, options);
        entries.seek(group_prefix(groups.first));
        while let Some((name, value)) = entries.item() {
            // A name without a whole group is in none.
            if name.len() < 2 || horizon != i64::MIN && has_expired(value, horizon) {
                entries.next();
                continue;
            }
            if visit(name, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        // It also ends where it can't go on.
        entries.status().map_err(|error| failed(format!("scan {groups}"), &error))
    }
}

impl fmt::Debug for RocksView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.snapshot.borrow_dependent().sequence_number();
        f.debug_struct("RocksView").field("sequence", &sequence).finish_non_exhaustive()
    }
}
