//! Snapshots on their way into the tiers below the tables, and out of them into files: a step for each block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{KeyGroup, KeyGroupRange, MaxParallelism, SubtaskId};
use cutwater_state::format::NativeState;
use cutwater_state::{AttachedTier, Block, BlockKind, ColdState, ColdTier, StateError, StateHeader};
use cutwater_task::TaskCore;

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::native::Native;
use crate::process::{Applying, Message, SnapshotId, Upload};
use crate::shared::ProcessId;
use crate::tier::{Filled, Tier, blocks_of};

/// In so many parts the key groups of a state are read out of a view.
const PARTS: u32 = 3;

/// How long nothing comes into tiers, in microseconds: up to the longest that a checkpoint may take, about.
const STALLS: [u64; 3] = [500, 5_000, 100_000];

impl World<'_> {
    /// What lies below the tables of a subtask that starts: a tier of its own, if its process has such.
    pub(super) fn tier_for(
        &mut self,
        id: ProcessId,
        subtask: SubtaskId,
        groups: MaxParallelism,
    ) -> Option<AttachedTier> {
        let files = self.config.images.as_ref().map_or(1, |images| images.files.max(1));
        let in_file = u16::try_from(groups.count().div_ceil(files)).unwrap_or(u16::MAX);
        let process = self.processes.get_mut(&id)?;
        let overlay_bytes = self.config.overlay_of(id)?;
        let before = process.tiers.remove(&subtask);
        let tier = match before {
            Some(before) if self.mutant == Some(Mutant::TierReused) => before,
            before => Arc::new(Tier::new(&self.shared, self.mutant, in_file, before.as_deref())),
        };
        process.tiers.insert(subtask, Arc::clone(&tier));
        Some(AttachedTier { tier, overlay_bytes })
    }

    /// A subtask has been built, from the files of a checkpoint if it had any.
    pub(super) fn mark_tier(
        &mut self,
        id: ProcessId,
        core: &TaskCore,
        restored: Option<&CompletedCheckpoint>,
        rescaled: bool,
    ) {
        let Some(process) = self.processes.get(&id) else { return };
        let tier = core.tier().and_then(|_| process.tiers.get(&core.subtask()));
        let (filled, epoch) = (tier.is_some_and(|tier| tier.begin()), process.epoch);
        if self.config.overlay_of(id).is_some() {
            self.tiered.insert(epoch);
        }
        let Some(restored) = restored else { return };
        match (tier.is_some(), self.tiered.contains(&restored.epoch)) {
            (true, false) if filled => self.hit(Mark::MemoryToTier),
            (false, true) => self.hit(Mark::TierToMemory),
            _ => {}
        }
        if filled && rescaled {
            self.hit(Mark::TierRescaled);
        }
    }

    /// A snapshot has been cut, of which some states lie in a tier.
    pub(super) fn begin_applying(
        &mut self,
        id: ProcessId,
        snapshot: SnapshotId,
        states: Vec<StateHeader>,
        cold: Vec<Option<ColdState>>,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(tier) = process.tiers.get(&snapshot.2).cloned() else { return };
        process.applying.push(Applying {
            snapshot,
            tier,
            states,
            cold,
            blocks: VecDeque::new(),
            applied: 0,
            upload: None,
            dropped: false,
            told: false,
            view: None,
            image: None,
            scanned: 0,
            written: 0,
        });
    }

    /// A block of such a state: it goes into the tier, unless the snapshot was given up.
    pub(super) fn block_for_tier(&mut self, id: ProcessId, snapshot: SnapshotId, block: Block) {
        if let Some(applying) = self.applying_mut(id, snapshot) {
            applying.blocks.push_back(block);
        }
    }

    fn applying_mut(&mut self, id: ProcessId, snapshot: SnapshotId) -> Option<&mut Applying> {
        self.processes.get_mut(&id)?.applying.iter_mut().find(|applying| applying.snapshot == snapshot)
    }

    /// All blocks are out: what is written of the snapshot besides follows those that the tier then has. Without anybody who
    /// still puts them there it is written by nobody.
    pub(super) fn complete_for_tier(&mut self, id: ProcessId, snapshot: SnapshotId, upload: Upload) {
        let early = self.is(Mutant::TierToldEarly);
        let Some(applying) = self.applying_mut(id, snapshot) else { return };
        applying.upload = Some(upload);
        if early && !applying.blocks.is_empty() {
            self.tell_applied(id, snapshot, true);
        }
    }

    /// No more blocks come: those that are there still go into the tier.
    pub(super) fn drop_for_tier(&mut self, id: ProcessId, snapshot: SnapshotId) {
        let early = self.is(Mutant::TierGivenUpEarly);
        let Some(applying) = self.applying_mut(id, snapshot) else { return };
        applying.dropped = true;
        if early {
            self.tell_applied(id, snapshot, false);
        }
    }

    /// Tells the subtask, once, that the tier has its snapshot, or that it will not.
    fn tell_applied(&mut self, id: ProcessId, snapshot: SnapshotId, applied: bool) {
        let (untold, mistaken) = (self.is(Mutant::TierFailureUntold), self.is(Mutant::TierFailureToldDone));
        let Some(process) = self.processes.get_mut(&id) else { return };
        let here = process.applying.iter_mut().find(|applying| applying.snapshot == snapshot);
        if here.is_some_and(|here| std::mem::replace(&mut here.told, true)) || (untold && !applied) {
            return;
        }
        let (attempt, checkpoint, to) = snapshot;
        process.net.push(Message::Applied { to, attempt, checkpoint, applied: applied || mistaken });
    }

    /// A subtask hears what has become of its snapshot in the tier.
    pub(super) fn applied(&mut self, id: ProcessId, (attempt, checkpoint, to): SnapshotId, applied: bool) {
        let Some(process) = self.processes.get(&id) else { return };
        let over = process.driver.coordinator().in_flight().all(|pending| pending.checkpoint != checkpoint);
        let mut heard = false;
        self.tell(Entity::Tier(id), || format!("tells {to} of checkpoint {checkpoint}: {applied}"));
        self.command(id, attempt, to, |node| {
            heard = true;
            node.core.handle_applied(checkpoint, applied);
            (applied && over).then_some(Mark::TierToldLate)
        });
        if heard && applied && self.config.max_concurrent > 1 {
            self.post(id, Message::Swept { attempt, checkpoint, subtask: to });
        }
    }

    /// The next step of one of the snapshots.
    pub(super) fn apply_step(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get(&id) else { return };
        let ready: Vec<SnapshotId> =
            process.applying.iter().filter(|applying| applying.is_ready()).map(|applying| applying.snapshot).collect();
        if ready.is_empty() {
            return;
        }
        if self.stalls(id) {
            return;
        }
        let snapshot = ready[self.shared.lock().choices.below(ready.len())];
        let done = self.apply_next(id, snapshot);
        if self.shared.is_dead(id) {
            return;
        }
        match done {
            Ok(false) => {}
            Ok(true) => {
                let Some(Applying { upload: Some(upload), .. }) = self.end_applying(id, snapshot) else { return };
                self.note_taken(id, &upload);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.uploads.push(upload);
                }
            }
            Err(reason) => {
                self.tell_applied(id, snapshot, false);
                self.decline(id, snapshot, reason);
                drop(self.end_applying(id, snapshot));
            }
        }
    }

    /// Whether nothing comes into the tiers of this process for a while.
    fn stalls(&mut self, id: ProcessId) -> bool {
        let rate = self.shared.lock().rates.tier_stall;
        let Some(stall) = self.stall("tier_stall", rate) else { return false };
        let until = self.now + stall;
        if let Some(process) = self.processes.get_mut(&id) {
            process.stalled_until = until;
        }
        self.tell(Entity::Tier(id), || format!("does not get on for {stall:?}"));
        true
    }

    /// For how long something does not get on, if this fault strikes.
    pub(super) fn stall(&self, fault: &'static str, rate: u16) -> Option<Duration> {
        let mut shared = self.shared.lock();
        if !shared.choices.strikes(rate) {
            return None;
        }
        shared.marks.fault(fault);
        Some(Duration::from_micros(STALLS[shared.choices.below(STALLS.len())]))
    }

    fn end_applying(&mut self, id: ProcessId, snapshot: SnapshotId) -> Option<Applying> {
        let process = self.processes.get_mut(&id)?;
        let at = process.applying.iter().position(|applying| applying.snapshot == snapshot)?;
        Some(process.applying.swap_remove(at))
    }

    /// True if the snapshot has been read out of the tier, or was given up.
    fn apply_next(&mut self, id: ProcessId, snapshot: SnapshotId) -> Result<bool, String> {
        let view_early = self.is(Mutant::TierViewEarly);
        let reversed = self.is(Mutant::TierBlocksReversed);
        let Some(applying) = self.applying_mut(id, snapshot) else { return Ok(false) };
        if view_early && applying.upload.is_some() && applying.view.is_none() {
            return self.take_view(id, snapshot);
        }
        let next = if reversed && applying.upload.is_some() {
            applying.blocks.pop_back()
        } else {
            applying.blocks.pop_front()
        };
        if let Some(block) = next {
            return self.apply_block(id, snapshot, &block).map(|()| false);
        }
        if applying.dropped {
            if applying.applied > 0 {
                self.hit(Mark::TierGivenUp);
            }
            self.tell_applied(id, snapshot, false);
            drop(self.end_applying(id, snapshot));
            return Ok(false);
        }
        if applying.view.is_none() {
            return self.take_view(id, snapshot);
        }
        self.scan(id, snapshot)
    }

    fn apply_block(&mut self, id: ProcessId, snapshot: SnapshotId, block: &Block) -> Result<(), String> {
        let step = self.shared.step(id, "tier.apply");
        if self.shared.is_dead(id) {
            return Ok(());
        }
        let taken = self.is(Mutant::TierFailedWriteTaken);
        let (skips, keeps) = (self.is(Mutant::TierBlockSkipped), self.is(Mutant::TierRemovedKept));
        let Some(applying) = self.applying_mut(id, snapshot) else { return Ok(()) };
        let fails = step.is_err() || applying.tier.apply_fails();
        let place = usize::from(block.state);
        let (Some(header), Some(&Some(state))) = (applying.states.get(place), applying.cold.get(place)) else {
            return Err(format!("a block of the state {place}, which the tier does not have"));
        };
        let skipped = skips && applying.applied == 1 || keeps && block.kind == BlockKind::Removed;
        let applied = match skipped {
            true => Ok(()),
            false => applying.tier.apply(state, header, block, fails),
        };
        applying.applied += 1;
        let (attempt, checkpoint, subtask) = snapshot;
        if let Err(error) = applied {
            self.hit(Mark::TierApplyFailed);
            if !taken {
                return Err(error.to_string());
            }
        }
        self.hit(Mark::TierBlockApplied);
        let (entries, kind) = (block.entries, block.kind);
        self.tell(Entity::Tier(id), || {
            format!("takes {entries} entries ({kind:?}) of checkpoint {checkpoint} of {subtask}")
        });
        if let Some(process) = self.processes.get_mut(&id) {
            process.written.push_back((attempt, subtask, checkpoint, block.payload.len() as u64));
        }
        Ok(())
    }

    /// What the tier has is the snapshot: from now on its subtask may write there again.
    fn take_view(&mut self, id: ProcessId, snapshot: SnapshotId) -> Result<bool, String> {
        if self.is(Mutant::TierViewLate) && self.applying_mut(id, snapshot).is_some_and(|applying| !applying.told) {
            self.tell_applied(id, snapshot, true);
            return Ok(false);
        }
        let Some(applying) = self.applying_mut(id, snapshot) else { return Ok(false) };
        if applying.tier.read_fails() {
            self.hit(Mark::TierScanFailed);
            return Err("there can be no view of the tier, as the seed wants it".to_owned());
        }
        applying.written = applying.tier.written();
        applying.view = Some(applying.tier.view_now().map_err(|error| error.to_string())?);
        let whole = applying.blocks.is_empty();
        let barrier = applying.upload.as_ref().map(|upload| upload.barrier);
        if barrier.is_some_and(|barrier| self.is_native(id, barrier)) {
            self.take_image(id, snapshot)?;
        }
        self.tell(Entity::Tier(id), || format!("has checkpoint {} of {}", snapshot.1, snapshot.2));
        if whole {
            self.tell_applied(id, snapshot, true);
        }
        Ok(false)
    }

    /// The tier as it is now is stored as files.
    fn take_image(&mut self, id: ProcessId, snapshot: SnapshotId) -> Result<(), String> {
        let Some(applying) = self.applying_mut(id, snapshot) else { return Ok(()) };
        if applying.tier.image_fails() {
            self.hit(Mark::NativeImageFailed);
            return Err("there can be no image of the tier, as the seed wants it".to_owned());
        }
        applying.image = Some(applying.tier.image_now().map_err(|error| error.to_string())?);
        let filled = applying.tier.was_filled();
        if filled == Some(Filled::Blocks) {
            self.hit(Mark::NativeFromBlocks);
        }
        Ok(())
    }

    /// What the oracle is told of an image, and the index says.
    fn describe_image(applying: &mut Applying) -> Result<Option<Native>, StateError> {
        let (Some(image), Some(view)) = (applying.image.take(), &applying.view) else { return Ok(None) };
        let (mut states, mut blocks) = (Vec::new(), Vec::new());
        for (index, (header, state)) in (0_u16..).zip(applying.states.iter().zip(&applying.cold)) {
            let Some(state) = *state else { continue };
            blocks.extend(blocks_of(&**view, state, index, header, header.max_parallelism.all())?);
            let entries = applying.tier.about(state).map_err(|error| StateError::Cold {
                operator: header.operator.as_str().into(),
                state: header.name.as_str().into(),
                source: Box::new(error),
            })?;
            states.push(NativeState { header: header.clone(), entries });
        }
        Ok(Some(Native { states, image, blocks }))
    }

    /// Reads the next part of the view; true if there is none. What is stored as files is not read.
    fn scan(&mut self, id: ProcessId, snapshot: SnapshotId) -> Result<bool, String> {
        let short = self.is(Mutant::TierScanShort);
        self.tell_applied(id, snapshot, true);
        let Some(applying) = self.applying_mut(id, snapshot) else { return Ok(false) };
        if let Some(native) = Self::describe_image(applying).map_err(|error| error.to_string())? {
            if let Some(upload) = &mut applying.upload {
                upload.native = Some(native);
            }
            return Ok(true);
        }
        let Some(view) = &applying.view else { return Ok(false) };
        let (states, cold) = (&applying.states, &applying.cold);
        let all = (0_u16..)
            .zip(states.iter().zip(cold))
            .filter_map(|(index, (header, cold))| Some((index, header, (*cold)?)));
        let mut parts = all.flat_map(|(index, header, cold)| {
            let groups = header.max_parallelism.count();
            (0..PARTS).filter_map(move |part| Some((index, header, cold, part_of(groups, part)?)))
        });
        let Some((index, header, cold, groups)) = parts.nth(applying.scanned) else {
            if applying.tier.was_filled() == Some(Filled::Image) {
                self.hit(Mark::NativeToBlocks);
            }
            return Ok(true);
        };
        let last = parts.next().is_none_or(|(next, ..)| next != index); // of its state
        let fails = applying.tier.read_fails();
        let blocks = blocks_of(&**view, cold, index, header, groups).map_err(|error| error.to_string())?;
        applying.scanned += 1;
        let goes_on = applying.tier.written() > applying.written;
        if let (Some(upload), false) = (&mut applying.upload, short && last) {
            upload.blocks.extend(blocks);
        }
        if fails {
            self.hit(Mark::TierScanFailed);
            return Err("the tier can't be read, as the seed wants it".to_owned());
        }
        if goes_on {
            self.hit(Mark::TierGoesOnBelowView);
        }
        Ok(false)
    }
}

/// One of the parts of all key groups, if there are any in it.
fn part_of(groups: u32, part: u32) -> Option<KeyGroupRange> {
    let (first, end) = (groups * part / PARTS, groups * (part + 1) / PARTS);
    let group = |number| u16::try_from(number).ok().map(KeyGroup);
    (first < end).then_some(())?;
    Some(KeyGroupRange { first: group(first)?, last: group(end - 1)? })
}
