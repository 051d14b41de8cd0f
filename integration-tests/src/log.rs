use std::fmt::Display;
use std::fs;
use std::path::Path;

use cutwater::storage::{ObjectName, Store};
use cutwater_coordinator::inspect::{LogEntry, LogEntryKind, MAX_RECORD_BYTES, read_slot, slot_name};
use cutwater_coordinator::{CompletedCheckpoint, Outcome};
use cutwater_core::{CheckpointId, Epoch};

/// The commit log of a job, read from outside.
#[derive(Debug)]
pub struct Log {
    /// Its records, by slot.
    pub entries: Vec<LogEntry>,
}

impl Log {
    /// Reads the log in a job's folder, up to the first slot that is not there.
    ///
    /// # Panics
    ///
    /// If a record is damaged.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        Self::of(&folder.display(), |name| fs::read(folder.join(name)).ok())
    }

    /// The same in a store.
    ///
    /// # Panics
    ///
    /// If a record is damaged, or the store does not answer.
    #[must_use]
    pub fn read_in(store: &dyn Store) -> Self {
        let read = |name: &str| {
            let name = ObjectName::parse(name).expect("a folder and digits");
            store.read(&name, MAX_RECORD_BYTES).unwrap_or_else(|error| panic!("{error:?}"))
        };
        Self::of(&store.url(), read)
    }

    fn of(place: &dyn Display, read: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let records = (0..).map_while(|slot| {
            let name = slot_name(slot);
            let bytes = read(&name)?;
            Some(read_slot(&name, &bytes).unwrap_or_else(|error| panic!("in {place}: {error}")))
        });
        Self { entries: records.collect() }
    }

    /// All checkpoints ever completed, oldest first.
    pub fn completed(&self) -> impl Iterator<Item = &CompletedCheckpoint> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            LogEntryKind::Completed { checkpoint, .. } => Some(&**checkpoint),
            LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
        })
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn newest(&self) -> Option<&CompletedCheckpoint> {
        self.completed().last()
    }

    /// The reign of the last record.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// What each claim began with, oldest first.
    #[must_use]
    pub fn claims(&self) -> Vec<Option<CheckpointId>> {
        let claims = self.entries.iter().filter_map(|entry| match &entry.kind {
            LogEntryKind::Claim { restored, .. } => Some(*restored),
            LogEntryKind::Completed { .. } | LogEntryKind::Ended { .. } => None,
        });
        claims.collect()
    }

    /// Whether the job has finished.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.entries
            .last()
            .is_some_and(|last| matches!(last.kind, LogEntryKind::Ended { outcome: Outcome::Finished, .. }))
    }
}
