//! Images of tiers on their way into the store: a step for each file, and one for the index.

use cutwater_coordinator::FileRef;
use cutwater_core::{Barrier, SnapshotForm};
use cutwater_driver::{Lasting, NativeFiles, Place, Stored};

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::native::{Native, Storing};
use crate::process::{LateOp, Upload, UploadStep};
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// Whether a snapshot is to be stored as files of its tier.
    pub(super) fn is_native(&self, id: ProcessId, barrier: Barrier) -> bool {
        match barrier.form {
            SnapshotForm::Configured => self.config.is_native(id),
            SnapshotForm::Canonical => false,
            SnapshotForm::Native => self.config.images.is_some(),
        }
    }

    /// The file of a snapshot is stored: the files of its tier follow.
    pub(super) fn begin_native(
        &mut self,
        id: ProcessId,
        upload: &Upload,
        native: &Native,
        beside: Vec<FileRef>,
    ) -> Storing {
        let known = self.known_files(id, upload, native);
        let held = self.config.images.as_ref().map_or(0, |images| images.held_bytes);
        let files = &native.image.files;
        let places = Place::of_files(upload.barrier, upload.subtask, files, &known, held);
        let stored = places.iter().zip(&native.image.contents).map(|(place, content)| match place {
            Place::Index => Some(Stored::Index(content.clone())),
            Place::Shared(file) => Some(Stored::Object(file.clone())),
            Place::Object(_) => None,
        });
        let stored: Vec<_> = stored.collect();
        let shared = places.iter().filter(|place| matches!(place, Place::Shared(_))).count();
        if shared > 0 {
            self.hit(Mark::NativeShared);
        } else if upload.barrier.base.is_some() && known.is_empty() && files.iter().any(|file| file.lasting) {
            self.hit(Mark::NativeAnew);
        }
        for ((place, file), content) in places.iter().zip(files).zip(&native.image.contents) {
            if let Place::Shared(stored) = place
                && (stored.bytes, stored.crc32c) != (content.len() as u64, crc32c::crc32c(content))
            {
                let (name, subtask) = (&file.name, upload.subtask);
                self.violated(Rule::Cut, || format!("{subtask} shares {}, which is another {name}", stored.name));
            }
        }
        let to_store = (0..stored.len()).filter(|at| stored[*at].is_none()).collect();
        self.tell(Entity::Io(id), || {
            format!("stores {} as {} files, of which {shared} are there", upload.subtask, files.len())
        });
        Storing { beside, places, stored, to_store }
    }

    /// The lasting files that need not be stored again.
    fn known_files(&self, id: ProcessId, upload: &Upload, native: &Native) -> Lasting {
        let Some(process) = self.processes.get(&id) else { return Lasting::new() };
        let Upload { attempt, subtask, barrier, .. } = upload;
        let natives = process.natives.get(attempt);
        let mut known = natives.map(|natives| natives.of(*subtask, barrier.base)).unwrap_or_default();
        let planted = |of| process.planted.get(&(of, *subtask));
        if self.is(Mutant::NativeOnUnconfirmed)
            && let Some((_, files)) = planted(*attempt).and_then(|planted| planted.last_key_value())
        {
            known =
                files.iter().filter(|(file, _)| file.lasting).map(|(file, at)| (file.clone(), at.clone())).collect();
        }
        if self.is(Mutant::NativeOfOtherAttempt) {
            let before = process.planted.iter().filter(|((of, other), _)| of < attempt && other == subtask);
            let files = before.flat_map(|(_, planted)| planted.last_key_value()).flat_map(|(_, files)| files);
            for (file, at) in files.filter(|(file, _)| file.lasting) {
                known.entry(file.clone()).or_insert_with(|| at.clone());
            }
        }
        if let (true, Some(base)) = (self.is(Mutant::NativeByName), barrier.base) {
            let files = planted(*attempt).and_then(|planted| planted.get(&base)).into_iter().flatten();
            for (file, at) in files {
                let same = native.image.files.iter().filter(|other| other.name == file.name);
                known.extend(same.map(|other| (other.clone(), at.clone())));
            }
        }
        known
    }

    /// The next step of such an upload.
    pub(super) fn store_native(
        &mut self,
        id: ProcessId,
        upload: &Upload,
        mut storing: Box<Storing>,
    ) -> Result<UploadStep, String> {
        let under_way = storing.under_way().count();
        if under_way == 0 {
            return self.store_index(id, upload, *storing).map(UploadStep::Tell);
        }
        let next = self.shared.lock().choices.below(under_way);
        let Some(at) = storing.to_store.remove(next) else { return Ok(UploadStep::Native(storing)) };
        let Some((name, bytes)) = upload.object(&storing, at) else { return Ok(UploadStep::Native(storing)) };
        let file = FileRef::stored(name, bytes.len() as u64, crc32c::crc32c(&bytes));
        let forgotten = self.is(Mutant::NativeFileForgotten) && storing.to_store.is_empty();
        let step = self.shared.step(id, "native.store-file").map_err(|error| error.to_string());
        let put = step.and_then(|()| if forgotten { Ok(()) } else { self.put(id, &file.name, bytes) });
        if let Err(reason) = put {
            self.leave_under_way(id, upload, &storing);
            return Err(reason);
        }
        storing.stored[at] = Some(Stored::Object(file));
        Ok(UploadStep::Native(storing))
    }

    /// A file can't be stored, or the process dies: those that were on their way beside it may still come.
    fn leave_under_way(&mut self, id: ProcessId, upload: &Upload, storing: &Storing) {
        let others: Vec<_> = storing.still_under_way().filter_map(|at| upload.object(storing, at)).collect();
        if !self.shared.is_dead(id) {
            self.hit(Mark::NativeStoreFailed);
            let some = self.shared.lock().choices.below(others.len() + 1);
            for (name, bytes) in others.into_iter().take(some) {
                let _ = self.put(id, &name, bytes); // nobody waits for it
            }
            return;
        }
        if storing.is_begun() {
            self.hit(Mark::NativeKilledBetween);
        }
        if self.config.object_store {
            self.late.extend(others.into_iter().map(|(name, bytes)| LateOp::Create { name, bytes }));
        }
    }

    fn store_index(&mut self, id: ProcessId, upload: &Upload, storing: Storing) -> Result<Vec<FileRef>, String> {
        let Some(native) = &upload.native else { return Ok(storing.beside) };
        let Storing { beside, places, stored, .. } = storing;
        let files = native.image.files.iter().cloned().zip(stored.into_iter().flatten());
        let NativeFiles { index, mut files, lasting } = NativeFiles::new("model", native.states.clone(), files);
        let (attempt, subtask, barrier) = (upload.attempt, upload.subtask, upload.barrier);
        let name = NativeFiles::index_name(barrier, subtask);
        let bytes = index.encode().map_err(|error| error.to_string())?;
        let held = beside.iter().filter_map(|file| file.content.as_ref()).map(|content| content.len()).sum::<usize>();
        let index_file = if held + bytes.len() <= self.config.held_bytes {
            self.hit(Mark::NativeIndexHeld);
            FileRef::held(name, bytes)
        } else {
            let file = FileRef::stored(name, bytes.len() as u64, crc32c::crc32c(&bytes));
            self.shared.step(id, "native.store-index").map_err(|error| error.to_string())?;
            if !self.is(Mutant::NativeIndexForgotten) {
                self.put(id, &file.name, bytes)?;
            }
            file
        };
        if let (true, Some(process)) = (self.mutant.is_some(), self.processes.get_mut(&id)) {
            let objects = index.files.iter().filter_map(|file| Some((&file.file, file.object.as_ref()?)));
            let all = objects.filter_map(|(file, object)| {
                Some((file.clone(), files.iter().find(|stored| stored.name == *object)?.clone()))
            });
            process.planted.entry((attempt, subtask)).or_default().insert(barrier.checkpoint, all.collect());
        }
        if self.is(Mutant::NativeSharedUnlisted) {
            files.retain(|file| !places.contains(&Place::Shared(file.clone())));
        }
        if let Some(process) = self.processes.get_mut(&id) {
            let natives = process.natives.entry(attempt).or_default();
            natives.remember(subtask, barrier.base, barrier.checkpoint, lasting);
        }
        Ok(beside.into_iter().chain([index_file]).chain(files).collect())
    }
}
