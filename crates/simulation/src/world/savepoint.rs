//! Savepoints: checkpoints that are copied, jobs that stop behind them and start from them.

use cutwater_coordinator::{CompletedCheckpoint, RequestId, RestoreFrom};
use cutwater_core::CheckpointId;
use cutwater_driver::is_native;

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{Copying, Process};
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// Somebody wants the job to stop.
    pub(super) fn ask_to_stop(&mut self, id: ProcessId, drain: bool) {
        let now = self.now;
        let copy = self.shared.lock().choices.below(2) == 0;
        self.tell(Entity::Driver(id), || format!("is to stop, drained {drain}, with a savepoint {copy}"));
        let request = self.processes.get_mut(&id).and_then(|process| process.driver.handle_stop(now, drain, copy));
        if let (Some(request), Some(process)) = (request, self.processes.get_mut(&id)) {
            process.stop_behind = Some((request, None));
        }
        self.with_driver(id, |_| ()); // performs what it wants
    }

    pub(super) fn note_stop(&mut self, id: ProcessId, checkpoint: CheckpointId, requests: &[RequestId]) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Some((request, behind)) = &mut process.stop_behind
            && requests.contains(request)
        {
            *behind = Some(checkpoint);
        }
    }

    pub(super) fn forget_stop(&mut self, id: ProcessId, requests: &[RequestId]) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.stop_behind.take_if(|(request, _)| requests.contains(request));
    }

    pub(super) fn not_stopped(&mut self, id: ProcessId, request: RequestId) {
        self.hit(Mark::NotStopped);
        self.forget_stop(id, &[request]);
    }

    pub(super) fn begin_copy(&mut self, id: ProcessId, request: RequestId, checkpoint: Box<CompletedCheckpoint>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let to_copy = checkpoint.stored_files().cloned().collect();
        process.copies.push(Copying { request, attempt: process.attempt, checkpoint, to_copy });
        if self.is(Mutant::CopyNotPinned) {
            let now = self.now;
            self.with_driver(id, |driver| driver.handle_copied(now, request, Ok("savepoint".to_owned())));
        }
    }

    /// The next step of one of the copies: a file, or at last what makes it a savepoint.
    pub(super) fn copy_step(&mut self, id: ProcessId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let count = process.copies.len();
        let at = self.shared.lock().choices.below(count);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let mut copying = process.copies.swap_remove(at);
        let copied = match copying.to_copy.pop_front() {
            Some(_) if self.is(Mutant::SavepointEarly) => self.finish_copy(id, &copying).map(|()| true),
            Some(file) => self.copy_file(id, &copying, &file).map(|()| false),
            None => self.finish_copy(id, &copying).map(|()| true),
        };
        if self.shared.is_dead(id) {
            return;
        }
        let request = copying.request;
        match copied {
            Ok(false) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.copies.push(copying);
                }
            }
            Ok(true) => drop(self.with_driver(id, |driver| {
                driver.handle_copied(now, request, Ok("savepoint".to_owned()));
            })),
            Err(reason) => {
                self.hit(Mark::SavepointFailed);
                self.tell(Entity::Io(id), || format!("no savepoint: {reason}"));
                self.with_driver(id, |driver| driver.handle_copied(now, request, Err(())));
            }
        }
    }

    fn copy_file(
        &mut self,
        id: ProcessId,
        copying: &Copying,
        file: &cutwater_coordinator::FileRef,
    ) -> Result<(), String> {
        self.shared.step(id, "savepoint.copy-file").map_err(|error| error.to_string())?;
        let retained = self.oracle.retained().any(|kept| kept.checkpoint == copying.checkpoint.checkpoint);
        if !retained {
            self.hit(Mark::SavepointOutlives);
        }
        let bytes = self.read_file(id, file).map_err(|failure| failure.reason)?;
        // A read that brings back something else is noticed by the sum that the record has.
        if crc32c::crc32c(&bytes) != file.crc32c {
            return Err(format!("{} is damaged", file.name));
        }
        self.savepoint_files.insert(file.name.clone(), bytes);
        Ok(())
    }

    fn finish_copy(&mut self, id: ProcessId, copying: &Copying) -> Result<(), String> {
        self.shared.step(id, "savepoint.create").map_err(|error| error.to_string())?;
        let missing = copying.to_copy.len();
        if missing > 0 {
            self.violated(Rule::Ref, || format!("a savepoint is made, and {missing} files are not in it"));
        }
        self.hit(Mark::SavepointMade);
        if copying.checkpoint.files().any(is_native) {
            self.hit(Mark::NativeSavepoint);
        }
        let current = self.processes.get(&id).map(|process| process.attempt);
        if current != Some(copying.attempt) {
            self.hit(Mark::SavepointOfOldAttempt);
        }
        self.tell(Entity::Io(id), || format!("a savepoint of checkpoint {} is made", copying.checkpoint.checkpoint));
        self.savepoints.push((*copying.checkpoint).clone());
        Ok(())
    }

    /// Mostly by the same command as before; else from one of the savepoints, which may lie below what was published.
    pub(super) fn where_to_start(&mut self) -> RestoreFrom {
        let count = self.savepoints.len();
        let mut shared = self.shared.lock();
        let rate = shared.rates.from_savepoint;
        if count == 0 || !shared.choices.strikes(rate) {
            return RestoreFrom::Latest;
        }
        shared.marks.fault("from_savepoint");
        // The newest are asked for most.
        let back = shared.choices.below(count.min(3));
        RestoreFrom::Foreign(Box::new(self.savepoints[count - 1 - back].clone()))
    }

    /// A start that was refused: there must be a checkpoint that its savepoint lies below.
    pub(super) fn refused_below(&mut self, process: &Process, published: CheckpointId) -> Option<Mark> {
        let known = self.oracle.retained().chain(self.oracle.last_completed()).any(|kept| kept.checkpoint == published);
        if !known && !process.store_damaged && !self.is_replaced(process.id) {
            self.violated(Rule::Contract, || format!("refused for checkpoint {published}, which is not there"));
            return None;
        }
        Some(Mark::BelowPublished)
    }

    /// A job stopped: behind the newest checkpoint there is, unless somebody else has it by now.
    pub(super) fn stopped(&mut self, process: &Process, savepoint: bool, drained: bool) -> Option<Mark> {
        let behind = process.stop_behind.and_then(|(_, behind)| behind);
        let newest = self.oracle.newest();
        // Whoever starts from a drained checkpoint is drained, though nobody asks for it any more.
        let drained_before = drained && self.oracle.last_completed().is_some_and(CompletedCheckpoint::is_drained);
        if process.epoch >= self.epoch && (behind.is_none() || behind != newest) && !drained_before {
            self.violated(Rule::Mono, || format!("stopped behind {behind:?}, and the newest checkpoint is {newest:?}"));
            return None;
        }
        Some(match (drained, savepoint) {
            (true, _) => Mark::Drained,
            (false, true) => Mark::Stopped,
            (false, false) => Mark::StoppedBare,
        })
    }
}
