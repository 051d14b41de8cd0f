//! What is kept, and deleting the rest: files of subsumed checkpoints, then slots below a durable boundary.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use cutwater_core::CheckpointId;

use super::record::{Boundary, Completed, MAX_SUBSUMED};
use super::{Log, names};
use crate::{Action, CompletedCheckpoint, CreateOutcome, RequestId, Token};

/// The most names of files of aborted checkpoints that are remembered for another try, and of orphans deleted at a start.
pub(super) const MAX_LITTER: usize = 4096;

/// Of how many subsumed checkpoints files are deleted after one that completes. There is one, unless deletions failed
/// before; a store that refuses them all should not be asked ever more.
const MAX_AT_ONCE: usize = 16;

/// What the durable records keep, and what is being deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retention {
    retained: Vec<Kept>,                      // oldest first, the newest completed checkpoint last
    pins: BTreeMap<Pin, Kept>,                // checkpoints whose files stay for something else
    subsumed: BTreeMap<u64, Subsumed>,        // by slot; not yet all deleted
    litter: BTreeSet<String>,                 // files of aborted checkpoints, to be deleted next
    litter_out: Option<(Token, Vec<String>)>, // their deletion that is out: one, however many acks come late
    stubborn: BTreeSet<String>,               // those that could not be deleted: again after the next checkpoint
    boundary: u64,                            // the newest
    found: bool,                              // it was there when the log was opened, and may not be durable
    boundary_out: Option<Token>,              // the creation of the next
    swept_below: u64,                         // slots below have been deleted
    sweep_out: Option<(Token, u64)>,          // the deletion of slots up to this one
    let_go: bool,                             // the job has ended, and nothing is kept
}

/// What files of a checkpoint are kept for, even if it is subsumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pin {
    /// It is being copied, for this request.
    Copy(RequestId),
    /// This checkpoint in flight builds on it.
    Base(CheckpointId),
}

#[derive(Clone, Debug, Hash)]
struct Kept {
    slot: u64,
    checkpoint: CheckpointId,
    files: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct Subsumed {
    files: BTreeSet<String>,
    out: Option<Token>,
}

impl Retention {
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        self.retained.iter().map(|kept| kept.checkpoint)
    }

    /// Whether a checkpoint names the file that is retained, or is being copied.
    pub(crate) fn protects(&self, name: &str) -> bool {
        self.retained.iter().chain(self.pins.values()).any(|kept| kept.files.contains(name))
    }

    /// Whether a record names the file that is retained, or subsumed and not yet all deleted.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.protects(name) || self.subsumed.values().any(|subsumed| subsumed.files.contains(name))
    }

    /// How many deletions of files of checkpoints are out.
    pub(crate) fn deleting(&self) -> usize {
        self.subsumed.values().filter(|subsumed| subsumed.out.is_some()).count()
            + usize::from(self.litter_out.is_some())
    }

    /// Whether anything that was asked for is out.
    pub(crate) fn is_at_work(&self) -> bool {
        self.deleting() > 0 || self.boundary_out.is_some() || self.sweep_out.is_some()
    }

    pub(super) fn is_boundary(&self, token: Token) -> bool {
        self.boundary_out == Some(token)
    }

    pub(super) fn swept_below(&self) -> u64 {
        self.swept_below
    }

    /// Whether all is let go and not yet deleted; what is being copied goes after that.
    pub(crate) fn is_letting_go(&self) -> bool {
        self.let_go && !self.subsumed.is_empty()
    }

    /// Whether a checkpoint that is subsumed stays only until it is copied.
    pub(crate) fn awaits_copy(&self) -> bool {
        let mut copied = self.pins.iter().filter(|(pin, _)| matches!(pin, Pin::Copy(_)));
        copied.any(|(_, kept)| self.subsumed.contains_key(&kept.slot))
    }

    /// Takes over what the log says. `discarded`: the checkpoints went when the job ended, and what is left of their
    /// files is to be deleted.
    pub(super) fn begin(
        &mut self,
        boundary: u64,
        newest: Option<&Completed>,
        discarded: bool,
        mut others: BTreeMap<u64, CompletedCheckpoint>,
    ) {
        self.boundary = boundary;
        self.found = boundary > 0;
        let Some(newest) = newest else { return };
        self.swept_below = newest.swept_below;
        for slot in &newest.retained {
            self.retained.extend(others.remove(slot).as_ref().map(Kept::of));
        }
        self.retained.push(Kept::of(&newest.checkpoint));
        for slot in &newest.subsumed {
            // A slot that is gone had no files left.
            let files = others.remove(slot).map(|checkpoint| names_of(&checkpoint));
            self.subsumed.extend(files.map(|files| (*slot, Subsumed { files, out: None })));
        }
        if discarded {
            self.subsume_all();
        }
    }

    /// The record is durable that says: nothing is kept.
    pub(super) fn let_go(&mut self) {
        self.subsume_all();
        self.let_go = true;
    }

    fn subsume_all(&mut self) {
        let all = std::mem::take(&mut self.retained).into_iter();
        self.subsumed.extend(all.map(|kept| (kept.slot, Subsumed { files: kept.files, out: None })));
    }

    /// What the next `Completed` keeps beside itself, and what it subsumes or carries on, by slot. Of the `bad`, which can't
    /// be restored, nothing is kept.
    pub(super) fn after(&self, num_retained: usize, bad: &BTreeSet<u64>) -> (Vec<u64>, Vec<u64>) {
        let (good, bad): (Vec<u64>, Vec<u64>) =
            self.retained.iter().map(|kept| kept.slot).partition(|slot| !bad.contains(slot));
        let dropped = (good.len() + 1).saturating_sub(num_retained).min(good.len());
        let (dropped, kept) = good.split_at(dropped);
        let mut subsumed: BTreeSet<u64> = self.subsumed.keys().copied().collect();
        subsumed.extend(dropped.iter().chain(&bad));
        let too_many = subsumed.len().saturating_sub(MAX_SUBSUMED);
        (kept.to_vec(), subsumed.into_iter().skip(too_many).collect())
    }

    /// The record is durable: what it says holds.
    pub(super) fn completed(&mut self, completed: &Completed) {
        let retained = std::mem::take(&mut self.retained);
        let mut subsumed = std::mem::take(&mut self.subsumed);
        for kept in retained {
            if completed.retained.binary_search(&kept.slot).is_ok() {
                self.retained.push(kept);
            } else {
                subsumed.insert(kept.slot, Subsumed { files: kept.files, out: None });
            }
        }
        subsumed.retain(|slot, _| completed.subsumed.binary_search(slot).is_ok());
        self.subsumed = subsumed;
        self.retained.push(Kept::of(&completed.checkpoint));
    }

    /// Feeds what later behaviour depends on. Of tokens only whether they are out.
    pub(super) fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            retained,
            pins,
            subsumed,
            litter,
            litter_out,
            stubborn,
            boundary,
            found,
            boundary_out,
            swept_below,
            sweep_out,
            let_go,
        } = self;
        let_go.hash(hasher);
        (retained, pins, litter, stubborn, boundary, found, swept_below, boundary_out.is_some()).hash(hasher);
        (litter_out.as_ref().map(|out| &out.1), sweep_out.map(|out| out.1)).hash(hasher);
        subsumed.len().hash(hasher);
        for (slot, Subsumed { files, out }) in subsumed {
            (slot, files, out.is_some()).hash(hasher);
        }
    }

    /// The lowest slot that must stay.
    fn lowest(&self) -> Option<u64> {
        let retained = self.retained.iter().map(|kept| kept.slot);
        retained.chain(self.subsumed.keys().copied()).min().filter(|_| !self.retained.is_empty())
    }
}

impl Kept {
    fn of(checkpoint: &CompletedCheckpoint) -> Self {
        Self { slot: checkpoint.slot, checkpoint: checkpoint.checkpoint, files: names_of(checkpoint) }
    }
}

fn names_of(checkpoint: &CompletedCheckpoint) -> BTreeSet<String> {
    checkpoint.stored_files().map(|file| file.name.clone()).collect()
}

impl Log {
    /// Deletes files that no record names: those of an aborted checkpoint.
    pub(crate) fn discard(&mut self, names: impl IntoIterator<Item = String>) {
        if self.is_open() {
            self.retention.litter.extend(names);
            self.discard_next();
        }
    }

    fn discard_next(&mut self) {
        if self.retention.litter.is_empty() || self.retention.litter_out.is_some() {
            return;
        }
        let litter = std::mem::take(&mut self.retention.litter);
        let names: Vec<String> = litter.into_iter().filter(|name| !self.retention.protects(name)).collect();
        if !names.is_empty() {
            let token = self.token();
            self.retention.litter_out = Some((token, names.clone()));
            self.actions.push_back(Action::Delete { token, names });
        }
    }

    /// Keeps the files of a checkpoint that is retained until [`Self::unpin`], even if it is subsumed meanwhile.
    pub(crate) fn pin(&mut self, pin: Pin, checkpoint: CheckpointId) {
        if let Some(kept) = self.retention.retained.iter().find(|kept| kept.checkpoint == checkpoint) {
            self.retention.pins.insert(pin, kept.clone());
        }
    }

    pub(crate) fn unpin(&mut self, pin: Pin) {
        if self.retention.pins.remove(&pin).is_some() && self.is_open() {
            self.clean();
        }
    }

    /// Deletes what the newest durable record allows, whatever failed before included.
    pub(super) fn clean(&mut self) {
        let pins = &self.retention.pins;
        let is_free = |slot: &u64| !pins.values().any(|pinned| pinned.slot == *slot);
        let slots: Vec<u64> = self.retention.subsumed.keys().copied().filter(is_free).take(MAX_AT_ONCE).collect();
        for slot in slots {
            let token = self.token();
            let retention = &mut self.retention;
            let Some(Subsumed { files, out: None }) = retention.subsumed.get(&slot) else { continue };
            let names: Vec<String> = files.iter().filter(|name| !retention.protects(name)).cloned().collect();
            if names.is_empty() {
                retention.subsumed.remove(&slot);
            } else if let Some(subsumed) = retention.subsumed.get_mut(&slot) {
                subsumed.out = Some(token);
                self.actions.push_back(Action::Delete { token, names });
            }
        }
        let stubborn = std::mem::take(&mut self.retention.stubborn);
        self.discard(stubborn);
        self.advance_boundary();
        self.sweep();
    }

    pub(super) fn on_deleted(&mut self, token: Token, done: bool) {
        let retention = &mut self.retention;
        if let Some((_, names)) = retention.litter_out.take_if(|(out, _)| *out == token) {
            if !done && retention.stubborn.len() + names.len() <= MAX_LITTER {
                retention.stubborn.extend(names);
            }
            self.discard_next();
        } else if retention.sweep_out.is_some_and(|(out, _)| out == token) {
            if let (Some((_, below)), true) = (retention.sweep_out.take(), done) {
                retention.swept_below = below;
                self.sweep();
            }
        } else if let Some(slot) = retention.subsumed_by(token) {
            if retention.let_go {
                // What could not be deleted belongs to nobody, and goes when the job is started again.
                retention.subsumed.remove(&slot);
                self.clean();
            } else if done {
                retention.subsumed.remove(&slot);
                self.advance_boundary();
            } else if let Some(subsumed) = retention.subsumed.get_mut(&slot) {
                subsumed.out = None; // again after the next checkpoint
            }
        }
    }

    /// Creates the next boundary if nothing below it is needed. One after the other: they are searched as a sequence
    /// without gaps.
    ///
    /// One that was found is created once more, which the store answers when what is there is durable: its creator may have
    /// died before it was, and a loss of power could take it while slots below it are gone, so that the log would seem to
    /// begin at a slot that was never written.
    fn advance_boundary(&mut self) {
        let next = self.retention.boundary + u64::from(!self.retention.found);
        let lowest = self.retention.lowest();
        let allowed = self.retention.found || lowest.is_some_and(|lowest| lowest >= next * self.slots_per_boundary);
        let (Some(epoch), None, true) = (self.epoch, self.retention.boundary_out, allowed) else { return };
        let token = self.token();
        let boundary = Boundary { k: next, epoch, nonce: self.fresh_nonce(), job: self.job.name.clone() };
        self.retention.boundary_out = Some(token);
        self.actions.push_back(Action::Create { token, name: names::boundary(next), bytes: boundary.encode() });
    }

    pub(super) fn on_boundary_created(&mut self, outcome: &CreateOutcome) {
        self.retention.boundary_out = None;
        match outcome {
            CreateOutcome::Created | CreateOutcome::Exists => {
                if !std::mem::take(&mut self.retention.found) {
                    self.retention.boundary += 1;
                }
                self.advance_boundary();
                self.sweep();
            }
            // Harmless whether it is there or not; tried again after the next checkpoint.
            CreateOutcome::Failed(_) | CreateOutcome::Unknown(_) => {}
        }
    }

    /// Deletes slots below the durable boundary.
    fn sweep(&mut self) {
        let from = self.retention.swept_below;
        let below =
            (self.retention.boundary * self.slots_per_boundary).min(from.saturating_add(names::SLOTS_PER_BOUNDARY));
        if from < below && self.retention.sweep_out.is_none() && !self.retention.found {
            let token = self.token();
            self.retention.sweep_out = Some((token, below));
            self.actions.push_back(Action::Delete { token, names: (from..below).map(names::slot).collect() });
        }
    }
}

impl Retention {
    fn subsumed_by(&self, token: Token) -> Option<u64> {
        self.subsumed.iter().find(|(_, subsumed)| subsumed.out == Some(token)).map(|(slot, _)| *slot)
    }
}
