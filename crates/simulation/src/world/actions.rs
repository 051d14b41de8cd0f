//! What drivers want done.

use std::collections::VecDeque;

use cutwater_coordinator::inspect::{slot_name, slot_of};
use cutwater_coordinator::{AbortReason, CompletedCheckpoint};
use cutwater_core::{Attempt, CheckpointId, SubtaskId};
use cutwater_driver::{Action, Driver};
use cutwater_restart::FailureClass;

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{Commit, Message, Op, Process, Running};
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// Tells the driver of a process something, and performs what it then wants.
    pub(super) fn with_driver<T>(&mut self, id: ProcessId, tell: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        let process = self.processes.get_mut(&id)?;
        let told = tell(&mut process.driver);
        while let Some(process) = self.processes.get_mut(&id) {
            let Some(action) = process.driver.poll_action() else {
                process.deadline = process.driver.next_deadline();
                break;
            };
            self.perform_driver(id, action);
        }
        Some(told)
    }

    pub(super) fn perform_driver(&mut self, id: ProcessId, action: Action) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.end.is_some() {
            return self.violated(Rule::Contract, || format!("process {id} is over, and then: {action:?}"));
        }
        match action {
            Action::Create { token, name, bytes } => {
                self.shared.lock().choices.note(u64::from(crc32c::crc32c(&bytes)));
                process.ops.push(Op::Create { token, name: name.clone(), bytes: bytes.clone() });
                if self.is(Mutant::CommitBeforeDurable) {
                    self.publish_at_once(id, &name, &bytes);
                }
                if self.is(Mutant::FilesBeforeEnd) {
                    self.let_go_at_once(&name, &bytes);
                }
            }
            Action::Read { token, name, .. } => process.ops.push(Op::Read { token, name }),
            Action::Delete { token, mut names } => {
                if self.mutant == Some(Mutant::SlotDeletedEarly)
                    && let Some(last) = names.iter().rev().find(|name| name.starts_with("log/")).cloned()
                    && let Some(next) = slot_of(&last)
                {
                    names.push(slot_name(next + 1));
                }
                process.ops.push(Op::Delete { token, names });
            }
            Action::List { token, prefix } => process.ops.push(Op::List { token, prefix }),
            Action::Start { epoch, attempt, restore, handles } => {
                process.epoch = epoch;
                self.epoch = self.epoch.max(epoch);
                self.begin_start(id, attempt, restore, handles);
            }
            Action::Stop { attempt } => process.stopping = Some(attempt),
            Action::Trigger { attempt, barrier, subtasks, hold } => {
                let messages = subtasks.into_iter().map(|to| Message::Trigger { to, attempt, barrier, hold });
                process.net.extend(messages);
                if process.driver.coordinator().in_flight().count() > 1 {
                    self.hit(Mark::SeveralInFlight);
                }
                self.tell(Entity::Driver(id), || format!("triggers checkpoint {}", barrier.checkpoint));
            }
            Action::Drain { attempt } => self.post_to_all(id, |to| Message::Drain { to, attempt }),
            Action::Copy { request, checkpoint } => self.begin_copy(id, request, checkpoint),
            Action::NotStopped { request, .. } => self.not_stopped(id, request),
            Action::Abort { attempt, checkpoint } => {
                self.post_to_all(id, |to| Message::Abort { to, attempt, checkpoint });
            }
            Action::Published { attempt, checkpoint } => {
                self.post_to_all(id, |to| Message::Published { to, attempt, checkpoint });
            }
            Action::LastCut { attempt } => self.post_to_all(id, |to| Message::LastCut { to, attempt }),
            Action::Commit { attempt, checkpoint, handles } => {
                // Only with an error planted is there one under way.
                let before = process.commit.take().map_or_else(VecDeque::new, |commit| commit.handles);
                let handles = before.into_iter().chain(handles).collect();
                process.commit = Some(Commit { attempt, checkpoint, finish: Vec::new(), handles, tries: 0 });
                if self.mutant == Some(Mutant::CommittedEarly) {
                    let now = self.now;
                    process.driver.handle_committed(now, attempt, checkpoint, Ok(()));
                }
            }
            Action::CommitLast { attempt, handles, finish } => {
                let checkpoint = CheckpointId(0);
                process.commit = Some(Commit { attempt, checkpoint, finish, handles: handles.into(), tries: 0 });
            }
            Action::Completed { checkpoint, requests } => {
                self.note_stop(id, checkpoint.checkpoint, &requests);
                self.completed(id, &checkpoint, requests.len());
            }
            Action::Aborted { checkpoint, reason, requests } => {
                self.tell(Entity::Driver(id), || format!("gives checkpoint {checkpoint} up: {reason}"));
                self.mark_abort(&reason);
                self.forget_stop(id, &requests);
                if !requests.is_empty() {
                    self.hit(Mark::RequestRefused);
                }
            }
            Action::RequestFailed { requests, .. } => {
                self.forget_stop(id, &requests);
                self.hit(Mark::RequestRefused);
            }
            Action::CheckpointsFailed(_) => self.hit(Mark::TooManyFailures),
            Action::OutputUnreadable { checkpoint, error } => {
                self.violated(Rule::Contract, || format!("the output of checkpoint {checkpoint}: {error}"));
            }
            Action::Restarting { .. } => self.hit(Mark::Restarted),
            Action::BeginsAnew { .. } => {
                self.tell(Entity::Driver(id), || "has lost its checkpoints with its end".to_owned())
            }
            Action::FellBack(fell_back) => {
                self.tell(Entity::Driver(id), || fell_back.to_string());
                self.fell_back(id, fell_back.bad);
            }
            Action::NoProgress { .. } => self.hit(Mark::NoProgress),
            Action::EndUnrecorded { .. } => {}
            Action::Done(end) => process.end = Some(end),
        }
    }

    pub(super) fn mark_abort(&self, reason: &AbortReason) {
        match reason {
            AbortReason::Expired { .. } => self.hit(Mark::Expired),
            AbortReason::JobFailover => self.hit(Mark::AbortedByFailover),
            AbortReason::Subsumed { .. } => self.hit(Mark::CompletedOutOfOrder),
            AbortReason::NewReign { .. } => self.hit(Mark::OfOldReign),
            AbortReason::Declined { .. }
            | AbortReason::Finalize { .. }
            | AbortReason::Shutdown
            | AbortReason::Superseded { .. }
            | AbortReason::LogUnusable
            | AbortReason::NotAllRequiredTasksRunning
            | AbortReason::TaskClosing { .. }
            | AbortReason::InputEndOfStream { .. }
            | AbortReason::TooManyRequests { .. }
            | AbortReason::Disabled
            | _ => {}
        }
    }

    pub(super) fn post_to_all(&mut self, id: ProcessId, message: impl Fn(SubtaskId) -> Message) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let all: Vec<SubtaskId> = process.running.iter().flat_map(Running::subtasks).collect();
        process.net.extend(all.into_iter().map(message));
    }

    pub(super) fn completed(&mut self, id: ProcessId, checkpoint: &CompletedCheckpoint, requests: usize) {
        self.checkpoints += 1;
        self.hit(Mark::CompletedRecord);
        if checkpoint.is_final() {
            self.hit(Mark::FinalCheckpoint);
        }
        if requests > 0 {
            self.hit(Mark::RequestAnswered);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.unknown.take().is_some_and(|slot| slot == slot_name(checkpoint.slot)) {
            self.shared.hit(Mark::UnknownThere);
        }
        let nodes = process.running.iter().flat_map(|running| &running.nodes);
        let ended = nodes.clone().filter(|node| node.ended).count();
        if ended > 0 && ended < nodes.count() {
            self.hit(Mark::HalfEnded);
        }
        self.tell(Entity::Driver(id), || format!("checkpoint {} is complete", checkpoint.checkpoint));
        self.oracle.told_completed(checkpoint);
        if self.is(Mutant::DeleteShared) {
            self.delete_shared(id, checkpoint);
        }
    }

    /// A subtask or a thread has failed.
    pub(super) fn report_failure(&mut self, id: ProcessId, attempt: Attempt, class: FailureClass) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let record_out = process.ops.iter().any(|op| matches!(op, Op::Create { name, .. } if name.starts_with("log/")));
        if record_out && process.attempt == attempt {
            self.hit(Mark::FailureWhileRecordOut);
            if self.is(Mutant::NotSettled) {
                self.forget_record(id);
            }
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.commit.is_some() {
            self.hit(Mark::FailureWhileCommitting);
        }
        if self.with_driver(id, |driver| driver.handle_failure(now, attempt, class)) == Some(false) {
            self.hit(Mark::SecondFailureIgnored);
        }
    }

    /// Tells the drivers whose processes store nothing any more of attempts that are over.
    pub(super) fn look_whether_stored(&mut self) {
        let stored = |process: &&Process| process.storing && process.end.is_none() && !process.is_storing();
        let stored: Vec<ProcessId> = self.processes.values().filter(stored).map(|process| process.id).collect();
        let now = self.now;
        for id in stored {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            process.storing = false;
            if process.driver.is_ending() {
                self.shared.hit(Mark::EndAwaited);
            }
            self.with_driver(id, |driver| driver.handle_storing(now, false));
        }
    }

    /// The threads of the attempt end.
    pub(super) fn stop_attempt(&mut self, id: ProcessId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(attempt) = process.stopping.take() else { return };
        process.running = None;
        // What was not cut to its end is of no use to anybody any more.
        process.applying.retain(|applying| applying.snapshot.0 != attempt || applying.upload.is_some());
        process.chains.retain(|(of, _), _| *of != attempt);
        process.contents.retain(|(of, _), _| *of != attempt);
        self.tell(Entity::Driver(id), || format!("attempt {attempt} has stopped"));
        let unawaited = self.is(Mutant::EndAwaitsNoUpload);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.storing = process.is_storing() && !unawaited;
        let storing = process.storing;
        self.with_driver(id, |driver| driver.handle_storing(now, storing));
        self.with_driver(id, |driver| driver.handle_stopped(now, attempt));
    }
}
