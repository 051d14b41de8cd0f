//! Snapshots on their way into the store.

use cutwater_coordinator::{FileRef, Phases, SubtaskSnapshot, snapshot_name};
use cutwater_core::{Attempt, CheckpointId, SubtaskId};
use cutwater_driver::NativeFiles;
use cutwater_restart::FailureClass;
use cutwater_state::format::{Compression, SnapshotEncoder, SnapshotHeader};
use cutwater_storage::{ObjectName, Store};
use cutwater_task::Base;

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::oracle::Part;
use crate::process::{LateOp, Message, SnapshotId, Upload, UploadStep};
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// The next step of one of the uploads.
    pub(super) fn upload(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get(&id) else { return };
        let ready = |at: &usize| process.uploads[*at].stalled_until <= self.now;
        let ready: Vec<usize> = (0..process.uploads.len()).filter(ready).collect();
        let at = ready[self.shared.lock().choices.below(ready.len())];
        let rate = self.shared.lock().rates.upload_stall;
        let stall = self.stall("upload_stall", rate);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Some(stall) = stall {
            let upload = &mut process.uploads[at];
            upload.stalled_until = self.now + stall;
            let (subtask, checkpoint) = (upload.subtask, upload.barrier.checkpoint);
            return self
                .tell(Entity::Io(id), || format!("checkpoint {checkpoint} of {subtask} is not stored for {stall:?}"));
        }
        let mut upload = process.uploads.swap_remove(at);
        let begun = upload.begun();
        let next = match std::mem::replace(&mut upload.step, UploadStep::Finish) {
            UploadStep::Finish if self.is(Mutant::AckBeforeSync) => Ok(UploadStep::Write),
            UploadStep::Finish => match finish(&mut upload) {
                Ok(()) => Ok(UploadStep::Write),
                // Only a replay brings that output back: the attempt fails.
                Err(reason) => return self.fail_attempt(id, &upload, &reason),
            },
            UploadStep::Write => self.write(id, &upload).map(|files| match &upload.native {
                Some(native) => UploadStep::Native(Box::new(self.begin_native(id, &upload, native, files))),
                None => UploadStep::Tell(files),
            }),
            UploadStep::Native(storing) => self.store_native(id, &upload, storing),
            UploadStep::Tell(files) => {
                self.acked(id, &upload, files);
                if self.is(Mutant::AckBeforeSync) {
                    // Late enough for a loss of power in between.
                    upload.step = UploadStep::Finish;
                }
                return;
            }
        };
        match next {
            Ok(step) => {
                upload.step = step;
                if let Some(process) = self.processes.get_mut(&id) {
                    process.uploads.push(upload);
                }
            }
            Err(reason) => {
                self.decline(id, (upload.attempt, upload.barrier.checkpoint, upload.subtask), reason);
                self.leave_litter(id, begun);
            }
        }
    }

    /// What was stored of a snapshot that can't be stored to its end is to be deleted.
    fn leave_litter(&mut self, id: ProcessId, names: Vec<String>) {
        if self.shared.is_dead(id) || self.is(Mutant::LitterUntold) {
            return;
        }
        if let Some(process) = self.processes.get_mut(&id) {
            process.net.push(Message::Litter { names });
        }
    }

    fn fail_attempt(&mut self, id: ProcessId, upload: &Upload, reason: &str) {
        if self.shared.is_dead(id) {
            return;
        }
        self.hit(Mark::SyncFailed);
        self.tell(Entity::Io(id), || format!("the output of {} can't be synced: {reason}", upload.subtask));
        if let Some(process) = self.processes.get_mut(&id) {
            let class = FailureClass::Recoverable;
            process.net.push(Message::Failed { attempt: upload.attempt, class });
        }
    }

    pub(super) fn decline(&mut self, id: ProcessId, (attempt, checkpoint, subtask): SnapshotId, reason: String) {
        if self.shared.is_dead(id) {
            return;
        }
        self.hit(Mark::DeclinedCounted);
        self.tell(Entity::Io(id), || format!("{subtask} can't be stored: {reason}"));
        if let Some(process) = self.processes.get_mut(&id) {
            process.net.push(Message::Declined { attempt, checkpoint, subtask, reason, counted: true });
        }
    }

    fn acked(&mut self, id: ProcessId, upload: &Upload, files: Vec<FileRef>) {
        let inline = upload.inline.encode();
        let state_bytes = files.iter().map(|file| file.bytes).sum::<u64>() + inline.len() as u64;
        let phases = Phases::default();
        let snapshot = SubtaskSnapshot { subtask: upload.subtask, files, inline, phases, state_bytes };
        let (attempt, checkpoint) = (upload.attempt, upload.barrier.checkpoint);
        if let Some(process) = self.processes.get_mut(&id) {
            process.net.push(Message::Acked { attempt, checkpoint, snapshot: Box::new(snapshot) });
        }
    }

    /// A snapshot has been swept: the oracle is told what it holds together with what it builds on.
    pub(super) fn note_taken(&mut self, id: ProcessId, upload: &Upload) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let checkpoint = upload.barrier.checkpoint;
        let taken = process.contents.entry((upload.attempt, upload.subtask)).or_default();
        let mut blocks = upload.blocks.clone();
        blocks.extend(upload.native.iter().flat_map(|native| native.blocks.iter().cloned()));
        if self.config.deltas {
            let before = upload.base.map(|base| (base, taken.get(&base.checkpoint).cloned().unwrap_or_default()));
            let mut contents = before.clone().map(|(_, contents)| contents).unwrap_or_default();
            if before.is_none_or(|(base, _)| base.only_full) {
                contents.whole = std::mem::take(&mut contents.full);
                contents.full = contents.whole.clone();
            }
            if contents.whole.add(&upload.states, &upload.blocks).is_none() {
                return self.violated(Rule::Contract, || format!("{} emits blocks that can't be read", upload.subtask));
            }
            if upload.base.is_none() {
                contents.full = contents.whole.clone();
            }
            if let Some(base) = upload.barrier.base {
                taken.retain(|of, _| *of >= base);
            }
            blocks = contents.whole.blocks(&upload.states);
            taken.insert(checkpoint, contents);
        }
        let part = Part { states: upload.states.clone(), blocks, inline: upload.inline.clone() };
        self.oracle.snapshot_taken((upload.barrier.epoch, checkpoint, upload.subtask), part);
    }

    /// Writes what has to be written and returns the files that hold the snapshot.
    fn write(&mut self, id: ProcessId, upload: &Upload) -> Result<Vec<FileRef>, String> {
        let mut chain = upload.chain.clone();
        if !upload.blocks.is_empty() || upload.tiered {
            let (name, bytes) = file_of(upload)?;
            let before = chain.iter().filter_map(|file| file.content.as_ref()).map(|content| content.len());
            let file = if bytes.len() + before.sum::<usize>() <= self.config.held_bytes {
                self.hit(Mark::HeldInRecord);
                if self.is(Mutant::HeldForgotten) {
                    FileRef::stored(name, bytes.len() as u64, crc32c::crc32c(&bytes))
                } else {
                    FileRef::held(name, bytes)
                }
            } else {
                let file = FileRef::stored(name, bytes.len() as u64, crc32c::crc32c(&bytes));
                self.put(id, &file.name, bytes)?;
                file
            };
            if upload.base.is_some() {
                self.hit(Mark::DeltaWritten);
            }
            if self.is(Mutant::ChainCutShort) && chain.len() > 1 {
                chain.pop();
            }
            chain.push(file);
        } else if upload.base.is_some() {
            self.hit(Mark::DeltaEmpty);
        }
        if self.config.deltas
            && let Some(process) = self.processes.get_mut(&id)
        {
            let chains = process.chains.entry((upload.attempt, upload.subtask)).or_default();
            if let Some(base) = upload.barrier.base {
                chains.retain(|checkpoint, _| *checkpoint >= base);
            }
            chains.insert(upload.barrier.checkpoint, chain.clone());
        }
        Ok(chain)
    }

    /// The files that a snapshot builds on. It is over, so that they are known.
    pub(super) fn chain_of(
        &mut self,
        id: ProcessId,
        attempt: Attempt,
        subtask: SubtaskId,
        base: Option<Base>,
    ) -> Vec<FileRef> {
        let (Some(base), Some(process)) = (base, self.processes.get(&id)) else { return Vec::new() };
        let chains = process.chains.get(&(attempt, subtask));
        let Some(mut chain) = chains.and_then(|chains| chains.get(&base.checkpoint)).cloned() else {
            let base = base.checkpoint;
            self.violated(Rule::Contract, || {
                format!("{subtask} builds on its snapshot {base}, of which nothing is known")
            });
            return Vec::new();
        };
        if base.only_full {
            self.hit(Mark::ChainCompacted);
            chain.truncate(1);
        }
        chain
    }

    pub(super) fn put(&mut self, id: ProcessId, name: &str, bytes: Vec<u8>) -> Result<(), String> {
        if self.is_out_of_reach() {
            return Err("the store can't be reached".to_owned());
        }
        if !self.config.object_store {
            let Some(process) = self.processes.get(&id) else { return Err(String::new()) };
            let object = ObjectName::parse(name).map_err(|error| error.to_string())?;
            let mut writer = process.folder.writer(&object).map_err(|error| error.to_string())?;
            writer.write(&bytes).map_err(|error| error.to_string())?;
            let done = writer.finish();
            if self.raw_read(name).is_some() {
                self.oracle.created(name, &bytes);
                if done.is_err() || self.is_replaced(id) {
                    self.oracle.excused.insert(name.to_owned()); // it may be there, and its writer knows of nothing
                }
            }
            return done.map(drop).map_err(|error| error.to_string());
        }
        if let Err(error) = self.shared.step(id, "object.put-snapshot") {
            if self.shared.is_dead(id) {
                self.late.push(LateOp::Create { name: name.to_owned(), bytes });
            }
            return Err(error.to_string());
        }
        let fault = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            shared.choices.fault(&[r.store_fails, r.store_answer_lost, r.store_late])
        };
        if fault == 1 {
            self.shared.lock().marks.fault("store_fails");
            return Err("the store says no".to_owned());
        }
        if fault == 3 {
            self.shared.lock().marks.fault("store_late");
            self.late.push(LateOp::Create { name: name.to_owned(), bytes });
            return Err("no answer in time".to_owned());
        }
        if self.objects.create(name, bytes.clone()) {
            self.oracle.created(name, &bytes);
        }
        if self.is_replaced(id) {
            self.oracle.excused.insert(name.to_owned()); // written by somebody who was replaced, after the sweep
        }
        if fault == 2 {
            self.shared.lock().marks.fault("store_answer_lost");
            self.oracle.excused.insert(name.to_owned());
            return Err("the answer was lost".to_owned());
        }
        Ok(())
    }

    /// An acknowledgement comes to the driver.
    pub(super) fn acknowledge(
        &mut self,
        id: ProcessId,
        attempt: Attempt,
        checkpoint: CheckpointId,
        snapshot: SubtaskSnapshot,
    ) {
        let now = self.now;
        let Some(process) = self.processes.get(&id) else { return };
        let (mut attempt, mut checkpoint) = (attempt, checkpoint);
        if attempt != process.attempt {
            self.hit(Mark::AckOfOldAttempt);
        }
        if process.commit.is_some() {
            self.hit(Mark::AckHeldBack);
        }
        if process.acked.contains(&(checkpoint, snapshot.subtask)) {
            self.hit(Mark::AckTwice);
        }
        let current = process.attempt;
        let pending = process.driver.coordinator().pending().map(|pending| (current, pending.checkpoint));
        match pending {
            Some((_, open)) if open == checkpoint => {}
            _ => self.hit(Mark::LateAck),
        }
        if let (true, Some((of, open))) = (self.is(Mutant::AcksUnbound), pending) {
            (attempt, checkpoint) = (of, open);
        }
        self.tell(Entity::Driver(id), || format!("hears that {} has stored checkpoint {checkpoint}", snapshot.subtask));
        if let Some(process) = self.processes.get_mut(&id) {
            process.acked.insert((checkpoint, snapshot.subtask));
        }
        self.with_driver(id, |driver| driver.handle_ack(now, attempt, checkpoint, snapshot));
    }
}

impl Upload {
    /// The files that may be there once its next step has failed.
    pub(super) fn begun(&self) -> Vec<String> {
        let own = snapshot_name(self.barrier, self.subtask);
        match &self.step {
            UploadStep::Write => vec![own],
            UploadStep::Native(storing) => {
                let index = NativeFiles::index_name(self.barrier, self.subtask);
                storing.begun().cloned().chain([own, index]).collect()
            }
            UploadStep::Finish | UploadStep::Tell(_) => Vec::new(),
        }
    }
}

fn finish(upload: &mut Upload) -> Result<(), String> {
    std::mem::take(&mut upload.finish).into_iter().try_for_each(|finish| finish()).map_err(|error| error.to_string())
}

/// The snapshot as a file.
pub(super) fn file_of(upload: &Upload) -> Result<(String, Vec<u8>), String> {
    let header = SnapshotHeader {
        job: "simulated".to_owned(),
        task: upload.subtask.task.to_string(),
        subtask: upload.subtask.index,
        parallelism: 0,
        checkpoint: upload.barrier.checkpoint,
        base: upload.base.map(|base| base.checkpoint),
        states: upload.states.clone(),
    };
    let mut bytes = Vec::new();
    let mut encoder =
        SnapshotEncoder::new(&header, Compression::None, &mut bytes).map_err(|error| error.to_string())?;
    for block in &upload.blocks {
        encoder.push(block, &mut bytes).map_err(|error| error.to_string())?;
    }
    encoder.finish(&mut bytes);
    Ok((snapshot_name(upload.barrier, upload.subtask), bytes))
}
