//! Watches the store and the output from outside, and knows what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cutwater_coordinator::inspect::{LogEntry, LogEntryKind, boundary_of, read_slot, slot_of};
use cutwater_coordinator::{CompletedCheckpoint, Origin, Outcome, checkpoint_of_snapshot, native_number};
use cutwater_core::{CheckpointId, Epoch, SubtaskId};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_driver::is_native;
use cutwater_state::{Block, StateHeader};
use cutwater_storage::{Files, MemoryFiles};
use cutwater_task::TaskSnapshot;

mod output;

use crate::job::OUT;
use crate::marks::Mark;
use crate::shared::{Handle, Rule};
use output::file_name;

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
    /// Length and sum of each file of a snapshot that was ever created.
    sums: BTreeMap<String, (u64, u32)>,
    /// What was cut for the checkpoints of which some state is stored as files of tiers.
    pub(crate) natives: BTreeMap<(Epoch, CheckpointId), BTreeMap<SubtaskId, Part>>,
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
    /// Files of which those who would delete them were never told: they stay until the next start, and there may be none.
    pub(crate) unheard: BTreeSet<String>,
    /// Files that were on their way when their process came to the end of the job, and should have waited for them.
    pub(crate) unawaited: BTreeSet<String>,
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
            sums: BTreeMap::new(),
            natives: BTreeMap::new(),
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
            unheard: BTreeSet::new(),
            unawaited: BTreeSet::new(),
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
            self.sums.insert(name.to_owned(), (bytes.len() as u64, crc32c::crc32c(bytes)));
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
        if !self.natives.is_empty() {
            self.mark_lives_on();
        }
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
        self.check_files(checkpoint);
        let (epoch, of_epoch) = (checkpoint.epoch, (checkpoint.epoch, CheckpointId(id.0 + 1)));
        if checkpoint.files().any(is_native) {
            let taken = self.parts.extract_if(.., |part, _| (part.0, part.1) == (epoch, id));
            let taken = taken.map(|((_, _, subtask), part)| (subtask, part)).collect();
            self.natives.insert((epoch, id), taken);
        }
        self.parts.retain(|(of, checkpoint, _), _| (*of, *checkpoint) >= of_epoch || *of > epoch);
    }

    /// What a record says of its files is what they are.
    fn check_files(&self, checkpoint: &CompletedCheckpoint) {
        let id = checkpoint.checkpoint;
        for file in checkpoint.stored_files() {
            let stored = self.sums.get(&file.name);
            if stored.is_some_and(|stored| *stored != (file.bytes, file.crc32c)) {
                let (name, bytes) = (file.name.clone(), file.bytes);
                self.violated(Rule::Ref, || {
                    format!("checkpoint {id} names {name} of {bytes} bytes, which is another one")
                });
            }
        }
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
            let named = self.ever_named.contains(name);
            let orphan = epoch_of(name) < reign && !named;
            if native_number(name).is_some() && !named {
                self.shared.hit(if orphan { Mark::NativeOrphanSwept } else { Mark::NativeLitterDeleted });
            }
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

    /// Whether a file of a tier has outlived its checkpoint.
    fn mark_lives_on(&self) {
        let kept: BTreeSet<CheckpointId> = self.retained().map(|kept| kept.checkpoint).collect();
        let mut native = self.retained().flat_map(CompletedCheckpoint::stored_files).filter(|file| is_native(file));
        if native.any(|file| checkpoint_of_snapshot(&file.name).is_some_and(|of| !kept.contains(&of))) {
            self.shared.hit(Mark::NativeLivesOn);
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

    /// Whoever has died would have deleted some of the files that are there, and the job has finished.
    pub(crate) fn nobody_comes_back(&mut self) {
        self.unheard.extend(self.files.iter().cloned());
    }

    /// All files that are there may stay until somebody starts the job once more.
    pub(crate) fn excuse_all(&mut self) {
        self.excused.extend(self.files.iter().cloned());
    }

    /// This file may stay until somebody starts the job once more.
    pub(crate) fn excuse(&mut self, path: &Path) {
        self.excused.insert(file_name(path));
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
                && (epoch_of(name).is_some_and(|of| of < epoch) || is_let_go(name) || !self.unheard.contains(*name))
                && !self.excused.contains(*name)
        });
        if let Some(orphan) = orphan {
            self.violated(Rule::Orphan, || format!("{orphan} belongs to nobody, the epoch is {epoch}"));
        }
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
