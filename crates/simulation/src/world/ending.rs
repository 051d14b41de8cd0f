//! Checkpoints that go with the end of a job, and a job that goes back past a damaged one.

use std::collections::BTreeSet;
use std::path::Path;

use cutwater_coordinator::inspect::{LogEntryKind, read_slot};
use cutwater_coordinator::native_number;
use cutwater_core::{Attempt, CheckpointId, Epoch};
use cutwater_restart::FailureClass;
use cutwater_storage::{Files, ObjectName, Store};

use super::World;
use super::events::Entity;
use crate::job::OUT;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::shared::ProcessId;

/// Why an attempt can't be started.
pub(super) struct StartFailure {
    pub(super) class: FailureClass,
    pub(super) reason: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The checkpoint is damaged.
    Damaged,
    /// The store did not answer.
    Unreachable,
    Other,
}

impl StartFailure {
    pub(super) fn recoverable(reason: String) -> Self {
        Self { class: FailureClass::Recoverable, reason, kind: Kind::Other }
    }

    pub(super) fn damaged(reason: String) -> Self {
        Self { kind: Kind::Damaged, ..Self::recoverable(reason) }
    }

    pub(super) fn unreachable(reason: String) -> Self {
        Self { kind: Kind::Unreachable, ..Self::recoverable(reason) }
    }
}

impl World<'_> {
    /// An attempt could not be started. Whether the driver goes back to an older checkpoint.
    pub(super) fn goes_back(
        &mut self,
        id: ProcessId,
        attempt: Attempt,
        restored: Option<CheckpointId>,
        kind: Kind,
        reason: String,
    ) -> bool {
        let damaged = kind == Kind::Damaged;
        let mistaken = kind == Kind::Unreachable && self.is(Mutant::FallsBackUnreachable);
        if !damaged && !mistaken {
            return false;
        }
        if let (true, Some(process)) = (damaged, self.processes.get_mut(&id)) {
            process.damaged.extend(restored);
        }
        let now = self.now;
        let replaced = self.is_replaced(id);
        let goes_back = self.with_driver(id, |driver| driver.handle_damaged(now, attempt, reason)) == Some(true);
        if !goes_back && self.config.fall_back {
            self.hit(Mark::NoneBefore);
        }
        if goes_back && replaced {
            self.hit(Mark::NoFallBackReplaced); // it only looks whether the job is still its own
        }
        goes_back
    }

    /// A driver says that it goes back.
    pub(super) fn fell_back(&mut self, id: ProcessId, bad: CheckpointId) {
        self.hit(Mark::FellBack);
        if let (false, Some(process)) = (self.is(Mutant::FallBackUntold), self.processes.get_mut(&id)) {
            process.fell_from.insert(bad);
        }
    }

    /// A file of the newest checkpoint is lost for good, if there is another checkpoint that is whole. None that later ones may
    /// build on or name too: they would be lost with it.
    pub(super) fn lose_file(&mut self) {
        if self.config.deltas {
            return;
        }
        let retained: Vec<BTreeSet<String>> =
            self.oracle.retained().map(|kept| kept.stored_files().map(|file| file.name.clone()).collect()).collect();
        let Some((newest, others)) = retained.split_last().filter(|(_, others)| !others.is_empty()) else { return };
        if retained.iter().flatten().any(|name| self.oracle.lost.contains(name)) {
            return;
        }
        let alone = |name: &&String| matches!(native_number(name), None | Some(0));
        let own = newest.iter().filter(alone).filter(|name| !others.iter().any(|other| other.contains(*name)));
        let own: Vec<String> = own.cloned().collect();
        if own.is_empty() {
            return;
        }
        let at = self.shared.lock().choices.below(own.len());
        let name = own[at].clone();
        self.oracle.lost.insert(name.clone());
        self.remove(&name);
        self.hit(Mark::FileLost);
        self.tell(Entity::Store, || format!("{name} is lost for good"));
    }

    /// Takes a file out of the store, whoever needs it.
    fn remove(&mut self, name: &str) {
        let removed = match self.config.object_store {
            true => self.objects.delete(name),
            false => ObjectName::parse(name).is_ok_and(|object| self.raw_folder.delete(&object).is_ok()),
        };
        if removed {
            self.oracle.deleted(name);
        }
    }

    /// A file of a savepoint, for those who start from one.
    pub(super) fn read_savepoint(&self, id: ProcessId, name: &str) -> Option<Vec<u8>> {
        let process = self.processes.get(&id)?;
        self.savepoint_files.get(name).filter(|_| process.from_savepoint).cloned()
    }

    /// An attempt is about to start from nothing. If there was output before, of checkpoints that went with the job,
    /// the user has moved it away; and savepoints of that life are no concern of this one.
    pub(super) fn begin_anew(&mut self, epoch: Epoch) {
        // One that was replaced and does not know it yet has nothing to say about the output any more.
        if epoch < self.epoch || !self.oracle.lets_go() {
            return;
        }
        self.hit(Mark::BeganAnew);
        self.savepoints.clear();
        // Nor does anybody start from one any more: its output is not there.
        let late = self.processes.values().filter(|process| process.from_savepoint && process.epoch < epoch);
        let late: Vec<ProcessId> = late.map(|process| process.id).collect();
        self.shared.lock().killed.extend(late);
        let visible = self.disk.list_folder(Path::new(OUT)).unwrap_or_default();
        for entry in visible.iter().filter(|entry| !entry.name.to_string_lossy().starts_with('.')) {
            let _ = self.disk.unlink(&Path::new(OUT).join(&entry.name));
        }
        let _ = self.disk.sync_folder(Path::new(OUT));
        self.oracle.begin_anew(epoch);
    }

    /// Deletes the files of the checkpoints that a record lets go of, when that is only on its way.
    pub(super) fn let_go_at_once(&mut self, name: &str, bytes: &[u8]) {
        let Ok(entry) = read_slot(name, bytes) else { return };
        if let LogEntryKind::Ended { discarded: true, .. } = entry.kind {
            let files = self.oracle.retained().flat_map(|kept| kept.stored_files()).map(|file| file.name.clone());
            let files: Vec<String> = files.collect();
            files.iter().for_each(|name| self.remove(name));
        }
    }
}
