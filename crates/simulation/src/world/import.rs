//! Images that come back from the files of a checkpoint: a step for each file, then a tier takes them over.

use cutwater_coordinator::{CompletedCheckpoint, FileRef, native_number};
use cutwater_core::{KeyGroupRange, MaxParallelism, SubtaskId};
use cutwater_driver::{NotClaimed, claim_imported, lasting_files, native_files, native_index};
use cutwater_state::format::NativeIndex;
use cutwater_task::TaskCore;

use super::World;
use super::ending::StartFailure;
use super::events::Entity;
use crate::contents::Entries;
use crate::image::ReadImage;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::native::Reading;
use crate::process::Starting;
use crate::shared::{ProcessId, Rule};
use crate::tier::blocks_of;

/// The checkpoint that a subtask is restored from, and its key groups.
#[derive(Clone, Copy)]
pub(super) struct Restored<'a> {
    pub(super) checkpoint: &'a CompletedCheckpoint,
    pub(super) subtask: SubtaskId,
    pub(super) groups: MaxParallelism,
    pub(super) range: KeyGroupRange,
}

impl World<'_> {
    /// Reads the indexes of the images that a subtask needs.
    pub(super) fn open_images(&mut self, id: ProcessId, restored: Restored<'_>) -> Result<Reading, StartFailure> {
        let Restored { checkpoint, subtask, groups, range } = restored;
        let mut images = Vec::new();
        let task = checkpoint.tasks.iter().find(|task| task.task == subtask.task);
        for (part, parallelism) in
            task.iter().flat_map(|task| task.subtasks.iter().map(|part| (part, task.parallelism)))
        {
            let own = groups.range_of(part.subtask.index, parallelism);
            let Some(file) = native_index(&part.files).filter(|_| own.overlaps(&range)) else { continue };
            let bytes = self.read_native(id, file)?;
            let index = NativeIndex::decode(&bytes).map_err(|error| StartFailure::damaged(error.to_string()))?;
            let stored = native_files(&index, &part.files).map_err(|error| {
                self.violated(Rule::Ref, || format!("{}: {error}", file.name));
                StartFailure::damaged(error.to_string())
            })?;
            let stored = stored.into_iter().map(Option::<&FileRef>::cloned).collect();
            let content =
                |file: &cutwater_state::format::NativeFile| file.object.is_none().then(|| file.content.clone());
            let (files, contents) = index.files.iter().map(|file| (file.file.clone(), content(file))).unzip();
            images.push((index, stored, ReadImage { files, contents, groups: own }));
        }
        Ok(Reading { images })
    }

    /// Reads a file of an image, which is what the record says, or is refused.
    fn read_native(&mut self, id: ProcessId, file: &FileRef) -> Result<Vec<u8>, StartFailure> {
        let bytes = self.read_file(id, file)?;
        let is_whole = |bytes: &[u8]| (bytes.len() as u64, crc32c::crc32c(bytes)) == (file.bytes, file.crc32c);
        if is_whole(&bytes) {
            return Ok(bytes);
        }
        let stored = self.raw_read(&file.name).or_else(|| self.read_savepoint(id, &file.name));
        if stored.is_some_and(|stored| !is_whole(&stored)) {
            self.violated(Rule::Ref, || format!("{} is not what the checkpoint names", file.name));
        }
        if self.is(Mutant::NativeChecksumIgnored) && native_number(&file.name) != Some(0) {
            return Ok(bytes);
        }
        self.hit(Mark::NativeCorrupt);
        Err(StartFailure::damaged(format!("{} is damaged", file.name)))
    }

    /// Reads the next file of the images; false if there is none.
    pub(super) fn read_image(
        &mut self,
        id: ProcessId,
        begun: &mut Option<Reading>,
        restored: Restored<'_>,
    ) -> Result<bool, StartFailure> {
        let Some(reading) = begun else { return Ok(false) };
        let Some((image, at, file)) = reading.next() else { return Ok(false) };
        let file = file.clone();
        let step = self.shared.step(id, "native.import-file");
        let read = step.map_err(|error| StartFailure::recoverable(error.to_string()));
        match read.and_then(|()| self.read_native(id, &file)) {
            Ok(bytes) => reading.images[image].2.contents[at] = Some(bytes),
            Err(failure) if self.shared.is_dead(id) => {
                if reading.is_begun() {
                    self.hit(Mark::NativeKilledReading);
                }
                return Err(failure);
            }
            Err(failure) => {
                if reading.is_begun() {
                    self.hit(Mark::NativeReadFailed);
                }
                // What has been read is in the tier, and goes with it.
                let reading = begun.take();
                let images: Vec<_> =
                    reading.into_iter().flat_map(|reading| reading.images).map(|(_, _, read)| read).collect();
                self.tier_for(id, restored.subtask, restored.groups);
                let tier = self.processes.get(&id).and_then(|process| process.tiers.get(&restored.subtask));
                if let Some(tier) = tier {
                    let _ = tier.take_over(&images, restored.range);
                }
                return Err(failure);
            }
        }
        Ok(true)
    }

    /// The tier of a subtask takes the images over.
    pub(super) fn import(
        &mut self,
        id: ProcessId,
        starting: &Starting,
        reading: &Reading,
        restored: Restored<'_>,
    ) -> Result<(), StartFailure> {
        let Restored { checkpoint, subtask, groups, range } = restored;
        let tier = self.processes.get(&id).and_then(|process| process.tiers.get(&subtask)).cloned();
        let tier = tier.ok_or_else(|| StartFailure::recoverable("only a tier can read it".to_owned()))?;
        let mut images: Vec<_> = reading.images.iter().map(|(_, _, read)| read.clone()).collect();
        let fails = tier.apply_fails();
        if fails {
            let all = images.iter_mut().flat_map(|image| &mut image.contents);
            let done = self.shared.lock().choices.below(all.count());
            images.iter_mut().flat_map(|image| &mut image.contents).skip(done).for_each(|content| *content = None);
        }
        let wanted = if self.is(Mutant::NativeUnclipped) { groups.all() } else { range };
        let goes_on = match tier.take_over(&images, wanted) {
            Ok(goes_on) => goes_on,
            Err(error) if fails => {
                self.hit(Mark::NativeImportFailed);
                match self.is(Mutant::NativeImportFailureTaken) {
                    true => return Ok(()),
                    false => return Err(StartFailure::recoverable(error.to_string())),
                }
            }
            Err(error) => {
                self.violated(Rule::Contract, || format!("an image of {subtask} is refused: {error}"));
                return Err(StartFailure::recoverable(error.to_string()));
            }
        };
        let outside = |image: &ReadImage| image.groups.first < range.first || image.groups.last > range.last;
        self.tell(Entity::Tier(id), || format!("of {subtask} takes {} images over", images.len()));
        let joined_goes_on = self.is(Mutant::NativeJoinedGoesOn);
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        let foreign = process.savepoint == Some((checkpoint.epoch, checkpoint.checkpoint));
        if let (true, false, Some((index, stored, _))) = (goes_on || joined_goes_on, foreign, reading.images.first()) {
            let stored: Vec<_> = stored.iter().map(Option::as_ref).collect();
            let natives = process.natives.entry(starting.attempt).or_default();
            natives.remember(subtask, None, checkpoint.checkpoint, lasting_files(index, &stored));
        }
        if goes_on {
            self.hit(Mark::NativeGoesOn);
        } else {
            self.hit(Mark::NativeJoined);
        }
        if images.iter().any(outside) {
            self.hit(Mark::NativeClipped);
        }
        if foreign {
            self.hit(Mark::NativeForeign);
        }
        Ok(())
    }

    /// The tables of a subtask get what its tier has taken over, which is what was cut.
    pub(super) fn claim(
        &mut self,
        id: ProcessId,
        core: &mut TaskCore,
        reading: &Reading,
        restored: Restored<'_>,
    ) -> Result<(), StartFailure> {
        let tier = self.processes.get(&id).and_then(|process| process.tiers.get(&restored.subtask)).cloned();
        let tier = tier.ok_or_else(|| StartFailure::recoverable("only a tier can read it".to_owned()))?;
        let headers = reading.images.iter().flat_map(|(index, ..)| &index.states).map(|state| &state.header);
        if !self.is(Mutant::NativeUnclaimed)
            && let Err(error) = claim_imported(core, &*tier, headers, restored.range, |_| false)
        {
            let error = match error {
                NotClaimed::Unknown { operator, state, .. } => format!("the state {state} of {operator} would be lost"),
                NotClaimed::State(error) => error.to_string(),
            };
            self.violated(Rule::Contract, || format!("an image of {}: {error}", restored.subtask));
            return Err(StartFailure::recoverable(error));
        }
        match self.what_is_restored(core, restored) {
            Ok(()) => Ok(()),
            Err(Some(detail)) => {
                self.violated(Rule::Cut, || detail);
                Ok(())
            }
            Err(None) => Err(StartFailure::recoverable("blocks that can't be read".to_owned())),
        }
    }

    /// Compares what a tier has taken over with what its key groups had at the cut.
    fn what_is_restored(&self, core: &mut TaskCore, restored: Restored<'_>) -> Result<(), Option<String>> {
        let Restored { checkpoint, subtask, groups, range } = restored;
        let id = checkpoint.checkpoint;
        let Some(parts) = self.oracle.natives.get(&(checkpoint.epoch, id)) else { return Ok(()) };
        let Some(tier) = core.tier().map(|attached| std::sync::Arc::clone(&attached.tier)) else { return Ok(()) };
        let view = tier.view().map_err(|_| None)?;
        let (mut found, mut expected) = (Entries::default(), Entries::default());
        let tables: Vec<_> = core.states().into_iter().map(|table| (table.header(), table.cold())).collect();
        let headers: Vec<_> = tables.iter().map(|(header, _)| header.clone()).collect();
        for (place, (header, state)) in (0u16..).zip(&tables) {
            let Some(state) = state else { continue };
            let blocks = blocks_of(&*view, *state, place, header, groups.all()).map_err(|_| None)?;
            found.add(&headers, &blocks).ok_or(None)?;
            for part in parts.iter().filter(|part| part.0.task == subtask.task).map(|(_, part)| part) {
                let same = |other: &cutwater_state::StateHeader| {
                    (&other.operator, &other.name, other.kind) == (&header.operator, &header.name, header.kind)
                };
                let of = part.states.iter().position(same);
                let blocks = part.blocks.iter().filter(|block| Some(usize::from(block.state)) == of).cloned();
                let blocks: Vec<_> = blocks.map(|block| cutwater_state::Block { state: place, ..block }).collect();
                expected.add(&headers, &blocks).ok_or(None)?;
            }
        }
        expected.keep_only(range);
        match found == expected {
            true => Ok(()),
            false => Err(Some(format!("{subtask} is restored from checkpoint {id} with another state than was cut"))),
        }
    }
}
