//! Watches the store and the output from outside, and knows what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cutwater_coordinator::inspect::{LogEntry, LogEntryKind, boundary_of, read_slot, slot_of};
use cutwater_coordinator::{CompletedCheckpoint, Origin, Outcome};
use cutwater_core::{CheckpointId, Epoch, SubtaskId};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_state::{Block, StateHeader};
use cutwater_storage::{Files, MemoryFiles};
use cutwater_task::TaskSnapshot;

use crate::job::OUT;
use crate::marks::Mark;
use crate::shared::{Handle, Rule};

/// What a subtask had put into a snapshot, as the world saw it.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) states: Vec<StateHeader>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) inline: TaskSnapshot,
}

/// Which snapshot.
pub(crate) type PartId = (Epoch, CheckpointId, SubtaskId);

/// What is special about the job of a world.
pub(crate) trait Judge {
    /// A checkpoint was recorded: its parts, by subtask.
    fn check_cut(&mut self, checkpoint: &CompletedCheckpoint, parts: &BTreeMap<SubtaskId, &Part>)
    -> Result<(), String>;

    /// A file was published; `newest` is the newest checkpoint that is durable.
    fn check_file(&mut self, name: &str, lines: &[String], newest: Option<CheckpointId>) -> Result<(), String>;

    /// Everything up to this checkpoint has been published.
    fn check_published(&mut self, checkpoint: CheckpointId) -> Result<(), String>;

    /// From now on output may come twice: the job has gone back below what it had published.
    fn rewound(&mut self);

    /// The job begins from nothing, and so does its output.
    fn begin_anew(&mut self);

    /// Forgets all files: the disk has lost some, and those that are left will be shown again.
    fn forget_files(&mut self);

    /// The job is over.
    fn check_end(&mut self) -> Result<(), String>;
}

/// See the module.
pub(crate) struct Oracle {
    shared: Handle,
    disk: MemoryFiles,
    pub(crate) judge: Box<dyn Judge>,
    retained_at_most: usize,
    slots_per_boundary: u64,
    /// Every record that ever had its slot for good.
    pub(crate) history: Vec<LogEntry>,
    /// So many of them somebody has acted upon: they can't be unmade any more.
    relied: usize,
    boundaries: u64,
    /// Files of snapshots in the store.
    pub(crate) files: BTreeSet<String>,
    /// Files that some completed checkpoint named.
    ever_named: BTreeSet<String>,
    parts: BTreeMap<PartId, Part>,
    /// Final names that durable checkpoints name, by temporary name, with the checkpoint that did so first.
    named: BTreeMap<String, String>,
    finals: BTreeMap<String, CheckpointId>,
    /// Published files and their lines.
    lines: BTreeMap<String, Vec<String>>,
    /// Files that somebody was told are published.
    settled: BTreeSet<String>,
    /// The newest durable checkpoint, since the job began anew.
    newest: Option<CheckpointId>,
    /// Files of snapshots that were lost for good.
    pub(crate) lost: BTreeSet<String>,
    /// Final names of output that was not published when its checkpoint went with the job.
    gone: BTreeSet<String>,
    /// Final names of output of before the job began anew, and since when that is.
    bygone: BTreeSet<String>,
    anew: Epoch,
    /// Files that were written by somebody who was replaced, after the living one had swept; that could not be removed; or
    /// whose deletion was out when its process died: a successor makes up for it, unless the job had just finished.
    pub(crate) excused: BTreeSet<String>,
    pub(crate) finished: bool,
    /// It was drained: its output is that of data which ended where the sources stood.
    drained: bool,
}

impl Oracle {
    pub(crate) fn new(
        shared: &Handle,
        disk: &MemoryFiles,
        judge: Box<dyn Judge>,
        retained_at_most: u32,
        slots_per_boundary: u64,
    ) -> Self {
        Self {
            shared: shared.clone(),
            disk: disk.clone(),
            judge,
            retained_at_most: retained_at_most as usize,
            slots_per_boundary,
            history: Vec::new(),
            relied: 0,
            boundaries: 0,
            files: BTreeSet::new(),
            ever_named: BTreeSet::new(),
            parts: BTreeMap::new(),
            named: BTreeMap::new(),
            finals: BTreeMap::new(),
            lines: BTreeMap::new(),
            settled: BTreeSet::new(),
            newest: None,
            lost: BTreeSet::new(),
            gone: BTreeSet::new(),
            bygone: BTreeSet::new(),
            anew: Epoch(0),
            excused: BTreeSet::new(),
            finished: false,
            drained: false,
        }
    }

    fn violated(&self, rule: Rule, detail: impl FnOnce() -> String) {
        self.shared.violated(rule, detail);
    }

    /// The newest durable checkpoint.
    pub(crate) fn newest(&self) -> Option<CheckpointId> {
        self.newest
    }

    /// A subtask has completed its snapshot.
    pub(crate) fn snapshot_taken(&mut self, id: PartId, part: Part) {
        self.parts.insert(id, part);
    }

    /// An object was created in the store. `there`: whether an object of this name was there before.
    pub(crate) fn created(&mut self, name: &str, bytes: &[u8]) {
        if let Some(slot) = slot_of(name) {
            if slot < self.boundaries * self.slots_per_boundary {
                self.shared.hit(Mark::RecordBelowBoundary);
                return;
            }
            match read_slot(name, bytes) {
                Ok(entry) => self.recorded(entry),
                Err(error) => self.violated(Rule::Contract, || format!("{name} was written unreadable: {error}")),
            }
        } else if let Some(k) = boundary_of(name) {
            if k != self.boundaries + 1 {
                self.violated(Rule::Contract, || format!("boundary {k} after {}", self.boundaries));
            }
            self.boundaries = k;
            self.shared.hit(Mark::BoundaryMoved);
        } else {
            self.files.insert(name.to_owned());
        }
    }

    fn recorded(&mut self, entry: LogEntry) {
        let next = self.history.len() as u64;
        if entry.slot != next {
            let known = self.history.get(usize::try_from(entry.slot).unwrap_or(usize::MAX));
            if known == Some(&entry) {
                return; // a crash took it away, and it has come back
            }
            self.violated(Rule::Fence, || format!("slot {} is written, the next one is {next}", entry.slot));
            return;
        }
        let reign = self.history.last().map_or(Epoch(0), |last| last.epoch);
        match &entry.kind {
            LogEntryKind::Claim { .. } if entry.epoch <= reign => {
                self.violated(Rule::Mono, || format!("epoch {} is claimed after {reign}", entry.epoch));
            }
            LogEntryKind::Claim { .. } => {}
            LogEntryKind::Completed { .. } | LogEntryKind::Ended { .. } if entry.epoch != reign => {
                self.violated(Rule::Fence, || format!("epoch {} appends in the reign of {reign}", entry.epoch));
            }
            LogEntryKind::Completed { checkpoint, retained } => self.completed(checkpoint, retained),
            LogEntryKind::Ended { outcome, discarded } => {
                self.finished |= outcome.is_final();
                self.drained |= outcome.is_final() && !matches!(outcome, Outcome::Finished);
                if *discarded {
                    self.shared.hit(Mark::Discarded);
                    self.gone.extend(self.finals.keys().filter(|name| !self.lines.contains_key(*name)).cloned());
                }
            }
        }
        self.history.push(entry);
        self.check_references();
    }

    fn completed(&mut self, checkpoint: &CompletedCheckpoint, retained: &[u64]) {
        let id = checkpoint.checkpoint;
        if self.newest >= Some(id) {
            self.violated(Rule::Mono, || format!("checkpoint {id} after {:?}", self.newest));
        }
        if retained.len() >= self.retained_at_most {
            self.violated(Rule::Bound, || format!("{} other checkpoints are retained", retained.len()));
        }
        self.newest = Some(id);
        let mut files = 0;
        for subtask in checkpoint.tasks.iter().flat_map(|task| &task.subtasks) {
            files += subtask.files.len();
            match TaskSnapshot::decode(&subtask.inline) {
                Ok(inline) => {
                    for part in inline.operators.iter().filter(|part| part.kind == SnapshotKind::PreparedOutput) {
                        self.name_output(id, &part.payload);
                    }
                }
                Err(error) => self.violated(Rule::Contract, || format!("{}: {error}", subtask.subtask)),
            }
        }
        let subtasks = checkpoint.tasks.iter().flat_map(|task| &task.subtasks).map(|subtask| subtask.subtask);
        let part = |subtask| Some((subtask, self.parts.get(&(checkpoint.epoch, id, subtask))?));
        let parts: BTreeMap<SubtaskId, &Part> = subtasks.filter_map(part).collect();
        self.ever_named.extend(checkpoint.stored_files().map(|file| file.name.clone()));
        if files == 0 {
            self.shared.hit(Mark::EmptyState);
        }
        if let Err(detail) = self.judge.check_cut(checkpoint, &parts) {
            self.violated(Rule::Cut, || format!("checkpoint {id}: {detail}"));
        }
        let (epoch, of_epoch) = (checkpoint.epoch, (checkpoint.epoch, CheckpointId(id.0 + 1)));
        self.parts.retain(|(of, checkpoint, _), _| (*of, *checkpoint) >= of_epoch || *of > epoch);
    }

    /// A durable checkpoint names this prepared output.
    fn name_output(&mut self, checkpoint: CheckpointId, handle: &[u8]) {
        let names = handle.split_first().and_then(|(_, body)| postcard::take_from_bytes::<(String, String)>(body).ok());
        let Some(((temporary, name), _)) = names else { return };
        match self.finals.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => self.shared.hit(Mark::HandlesCarriedOn),
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(checkpoint)),
        }
        self.named.insert(temporary, name);
    }

    /// An object was deleted from the store.
    pub(crate) fn deleted(&mut self, name: &str) {
        if let Some(slot) = slot_of(name) {
            if slot >= self.boundaries * self.slots_per_boundary {
                self.violated(Rule::Ref, || format!("slot {slot} is deleted, the boundary is {}", self.boundaries));
            }
            self.shared.hit(Mark::SlotDeleted);
        } else if boundary_of(name).is_some() {
            self.violated(Rule::Ref, || format!("{name} is deleted"));
        } else {
            self.files.remove(name);
            let reign = self.history.last().map(|last| last.epoch);
            let orphan = epoch_of(name) < reign && !self.ever_named.contains(name);
            self.shared.hit(if orphan { Mark::OrphanSwept } else { Mark::FileDeleted });
        }
        self.check_references();
    }

    /// Nothing that a retained record needs is gone.
    fn check_references(&self) {
        for checkpoint in self.retained() {
            let is_gone = |name: &String| !self.files.contains(name) && !self.lost.contains(name);
            if let Some(file) = checkpoint.stored_files().find(|file| is_gone(&file.name)) {
                let (id, name) = (checkpoint.checkpoint, file.name.clone());
                self.violated(Rule::Ref, || format!("checkpoint {id} is retained and {name} is gone"));
            }
        }
    }

    /// The checkpoints that the newest record of one keeps, itself included; none once they went with the job.
    pub(crate) fn retained(&self) -> impl Iterator<Item = &CompletedCheckpoint> {
        self.retained_until(Epoch(u64::MAX))
    }

    /// The same as of an epoch.
    fn retained_until(&self, epoch: Epoch) -> impl Iterator<Item = &CompletedCheckpoint> {
        let newest = self.newest_record(epoch);
        newest.into_iter().flat_map(|(checkpoint, retained)| {
            let others = retained.iter().filter_map(|slot| completed_in(&self.history, *slot));
            others.chain([checkpoint])
        })
    }

    /// The newest record of a checkpoint of an epoch up to this one, unless its checkpoints went with the job.
    fn newest_record(&self, epoch: Epoch) -> Option<(&CompletedCheckpoint, &Vec<u64>)> {
        let entries = self.history.iter().rev().filter(|entry| entry.epoch <= epoch);
        let last = entries.map(|entry| &entry.kind).find(|kind| is_checkpoint(kind) || lets_go(kind));
        match last {
            Some(LogEntryKind::Completed { checkpoint, retained }) => Some((checkpoint, retained)),
            Some(LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. }) | None => None,
        }
    }

    /// The newest checkpoint that ever completed, whatever has become of it.
    pub(crate) fn last_completed(&self) -> Option<&CompletedCheckpoint> {
        self.history.iter().rev().find_map(|entry| match &entry.kind {
            LogEntryKind::Completed { checkpoint, .. } => Some(&**checkpoint),
            LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
        })
    }

    /// Whether the checkpoints went with the job, and none has completed since.
    pub(crate) fn lets_go(&self) -> bool {
        self.lets_go_before(Epoch(u64::MAX))
    }

    /// The same as of an epoch.
    fn lets_go_before(&self, epoch: Epoch) -> bool {
        let entries = self.history.iter().rev().filter(|entry| entry.epoch <= epoch);
        entries.map(|entry| &entry.kind).find(|kind| is_checkpoint(kind) || lets_go(kind)).is_some_and(lets_go)
    }

    /// The job begins anew, in an output folder that was cleared.
    pub(crate) fn begin_anew(&mut self, epoch: Epoch) {
        self.bygone.extend(std::mem::take(&mut self.finals).into_keys());
        self.named.clear();
        self.gone.clear();
        self.lines.clear();
        self.settled.clear();
        self.newest = None;
        self.anew = epoch;
        self.judge.begin_anew();
    }

    /// Somebody acts on what the log says up to this slot. What comes after it may be of somebody who died before it was
    /// durable.
    fn rely(&mut self, slot: u64) {
        self.relied = self.relied.max(usize::try_from(slot + 1).unwrap_or(usize::MAX));
    }

    /// A driver says that this checkpoint completed.
    pub(crate) fn told_completed(&mut self, checkpoint: &CompletedCheckpoint) {
        let known = completed_in(&self.history, checkpoint.slot);
        if known != Some(checkpoint) {
            let id = checkpoint.checkpoint;
            self.violated(Rule::Commit, || format!("checkpoint {id} is told complete, and the log has none such"));
        }
        self.rely(checkpoint.slot);
    }

    /// A driver starts an attempt from this. `passed` are those that it has found damaged, and has said so; `foreign` is
    /// whether it was started from a savepoint.
    pub(crate) fn told_restore(
        &mut self,
        epoch: Epoch,
        restore: Option<&CompletedCheckpoint>,
        passed: &BTreeSet<CheckpointId>,
        foreign: bool,
    ) {
        let kept: Vec<&CompletedCheckpoint> = self.retained_until(epoch).collect();
        let newest = kept.last().copied();
        let expected = kept.iter().rev().copied().find(|kept| !passed.contains(&kept.checkpoint));
        // Without checkpoints of its own the job starts from where it would have gone on.
        let own = self.last_completed().filter(|_| foreign && self.lets_go_before(epoch));
        let same_line = |last: &CompletedCheckpoint, from: &CompletedCheckpoint| {
            let is_origin = |origin: &Origin| (origin.epoch, origin.checkpoint) == (from.epoch, from.checkpoint);
            last == from || last.origin.as_ref().is_some_and(is_origin)
        };
        let anew = own.zip(restore).is_some_and(|(last, from)| same_line(last, from));
        let back = if anew { own != restore } else { restore != newest };
        if expected != restore && !anew {
            let id = |checkpoint: Option<&CompletedCheckpoint>| checkpoint.map(|checkpoint| checkpoint.checkpoint);
            let (expected, restore) = (id(expected), id(restore));
            self.violated(Rule::Mono, || format!("{restore:?} is restored in epoch {epoch}, and not {expected:?}"));
        }
        if anew {
            self.shared.hit(Mark::FromSavepointAnew);
        }
        if back {
            self.judge.rewound();
        }
        let claim = self.history.iter().rposition(|entry| entry.epoch == epoch).map_or(0, |at| self.history[at].slot);
        self.rely(claim);
    }

    /// A file of the output got its final name.
    pub(crate) fn published(&mut self, path: &Path) {
        let name = file_name(path);
        if self.bygone.contains(&name) {
            // By somebody who slept: whoever has moved the others away moves it too.
            let _ = self.disk.unlink(path);
            let _ = self.disk.sync_folder(Path::new(OUT));
            return;
        }
        match self.finals.get(&name) {
            Some(_) => self.shared.hit(Mark::OutputPublished),
            None => self.violated(Rule::Commit, || format!("{name} is published, and no durable checkpoint names it")),
        }
        self.read_lines(name);
    }

    fn read_lines(&mut self, name: String) {
        let Some(text) = self.content(&name) else { return };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Err(detail) = self.judge.check_file(&name, &lines, self.newest) {
            self.violated(Rule::Out, || format!("{name}: {detail}"));
        }
        self.lines.insert(name, lines);
    }

    fn content(&self, name: &str) -> Option<String> {
        let file = self.disk.open(&Path::new(OUT).join(name)).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len()).ok()?];
        file.read_at(0, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All files that are there may stay until somebody starts the job once more.
    pub(crate) fn excuse_all(&mut self) {
        self.excused.extend(self.files.iter().cloned());
    }

    /// This file may stay until somebody starts the job once more.
    pub(crate) fn excuse(&mut self, path: &Path) {
        self.excused.insert(file_name(path));
    }

    /// A temporary name was removed.
    pub(crate) fn removed(&mut self, path: &Path) {
        let temporary = file_name(path);
        match self.named.get(&temporary) {
            Some(name) if !self.lines.contains_key(name) && !self.gone.contains(name) => {
                let name = name.clone();
                self.violated(Rule::Commit, || format!("{name} is durable, unpublished, and its file is removed"));
            }
            Some(_) => {}
            None => self.shared.hit(Mark::LeftoverSwept),
        }
    }

    /// A driver was told that the output of this checkpoint is published.
    pub(crate) fn told_published(&mut self, epoch: Epoch, checkpoint: CheckpointId) {
        if epoch < self.anew {
            return; // of before the job began anew
        }
        let named = self.finals.iter().filter(|(_, of)| **of <= checkpoint);
        let missing = named.clone().find(|(name, _)| !self.lines.contains_key(*name) && !self.gone.contains(*name));
        if let Some((name, _)) = missing {
            let name = name.clone();
            self.violated(Rule::Commit, || format!("{name} should be published with checkpoint {checkpoint}"));
        }
        let names: Vec<String> = named.map(|(name, _)| name.clone()).collect();
        self.settled.extend(names.into_iter().filter(|name| !self.gone.contains(name)));
        if let Err(detail) = self.judge.check_published(checkpoint) {
            self.violated(Rule::Out, || format!("after checkpoint {checkpoint} was published: {detail}"));
        }
    }

    /// The machine has lost power: looks at what is left. `log` are the objects of the log that are there, `files` those
    /// of snapshots.
    pub(crate) fn power_lost(&mut self, log: &BTreeMap<String, Vec<u8>>, files: BTreeSet<String>) {
        self.boundaries = log.keys().filter_map(|name| boundary_of(name)).max().unwrap_or(0).min(self.boundaries);
        let first = self.boundaries * self.slots_per_boundary;
        let present: BTreeMap<u64, &Vec<u8>> =
            log.iter().filter_map(|(name, bytes)| Some((slot_of(name)?, bytes))).collect();
        let kept = (first..).take_while(|slot| present.contains_key(slot)).count() as u64 + first;
        let kept = usize::try_from(kept).unwrap_or(usize::MAX).max(usize::try_from(first).unwrap_or(0));
        if kept < self.relied {
            self.violated(Rule::Commit, || format!("{} records were relied upon, {kept} are left", self.relied));
        }
        self.history.truncate(kept);
        let of_now = self.history.iter().rev().filter(|entry| entry.epoch >= self.anew);
        self.newest = of_now.clone().find_map(completed_id);
        if !self.history.iter().any(|entry| lets_go(&entry.kind)) {
            self.gone.clear();
        }
        let ends = self.history.iter().filter_map(|entry| match &entry.kind {
            LogEntryKind::Ended { outcome, .. } if outcome.is_final() => Some(outcome),
            LogEntryKind::Ended { .. } | LogEntryKind::Claim { .. } | LogEntryKind::Completed { .. } => None,
        });
        let finals: Vec<_> = ends.collect();
        self.finished = !finals.is_empty();
        self.drained = finals.iter().any(|outcome| !matches!(outcome, Outcome::Finished));
        // Deletions are not synced: what was deleted may be back, until the next start.
        self.excused.extend(files.difference(&self.files).cloned());
        self.files = files;
        self.check_references();
        self.judge.forget_files();
        self.lines.clear();
        let visible = self.disk.list_folder(Path::new(OUT)).unwrap_or_default();
        let names = visible.iter().filter_map(|entry| entry.name.to_str()).filter(|name| !name.starts_with('.'));
        let names: Vec<String> = names.map(str::to_owned).filter(|name| !self.bygone.contains(name)).collect();
        for name in names {
            self.read_lines(name);
        }
        // The removal of a temporary name is not synced: that of a published file may be back, until the next start.
        let published = self.named.iter().filter(|(_, name)| self.lines.contains_key(*name));
        self.excused.extend(published.map(|(temporary, _)| temporary.clone()));
        if let Some(lost) = self.settled.iter().find(|name| !self.lines.contains_key(*name)) {
            let lost = lost.clone();
            self.violated(Rule::Commit, || format!("{lost} was told published, and a loss of power has taken it"));
        }
        let durable: BTreeSet<CheckpointId> = self.history.iter().filter_map(completed_id).collect();
        self.finals.retain(|_, of| durable.contains(of));
        let finals = &self.finals;
        self.named.retain(|_, name| finals.contains_key(name));
    }

    /// The job has finished and all is quiet.
    pub(crate) fn check_end(&mut self, epoch: Epoch) {
        if !self.drained
            && let Err(detail) = self.judge.check_end()
        {
            self.violated(Rule::Out, || format!("at the end: {detail}"));
        }
        let unpublished = |name: &String| !self.lines.contains_key(name) && !self.gone.contains(name);
        if let Some((name, _)) = self.finals.iter().find(|(name, _)| unpublished(name)) {
            self.violated(Rule::Commit, || format!("{name} is durable and was never published"));
        }
        let kept: BTreeSet<&str> =
            self.retained().flat_map(CompletedCheckpoint::files).map(|file| &*file.name).collect();
        // What went with the job is gone even if it was of the last epoch.
        let is_let_go = |name: &String| self.lets_go() && self.ever_named.contains(name);
        let orphan = self.files.iter().find(|name| {
            !kept.contains(name.as_str())
                && (epoch_of(name).is_some_and(|of| of < epoch) || is_let_go(name))
                && !self.excused.contains(*name)
        });
        if let Some(orphan) = orphan {
            self.violated(Rule::Orphan, || format!("{orphan} belongs to nobody, the epoch is {epoch}"));
        }
    }

    /// Names below the output folder that were not published.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let entries = self.disk.list_folder(Path::new(OUT)).unwrap_or_default();
        entries
            .into_iter()
            .map(|entry| PathBuf::from(entry.name))
            .filter(|name| file_name(name).starts_with('.') && !self.excused.contains(&file_name(name)))
            .collect()
    }
}

/// The epoch in the name of a snapshot file.
pub(crate) fn epoch_of(name: &str) -> Option<Epoch> {
    name.strip_prefix("chk/")?.split('-').next()?.parse().ok().map(Epoch)
}

fn is_checkpoint(kind: &LogEntryKind) -> bool {
    matches!(kind, LogEntryKind::Completed { .. })
}

fn lets_go(kind: &LogEntryKind) -> bool {
    matches!(kind, LogEntryKind::Ended { discarded: true, .. })
}

fn completed_in(history: &[LogEntry], slot: u64) -> Option<&CompletedCheckpoint> {
    match &history.get(usize::try_from(slot).ok()?)?.kind {
        LogEntryKind::Completed { checkpoint, .. } => Some(checkpoint),
        LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
    }
}

fn completed_id(entry: &LogEntry) -> Option<CheckpointId> {
    match &entry.kind {
        LogEntryKind::Completed { checkpoint, .. } => Some(checkpoint.checkpoint),
        LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}
