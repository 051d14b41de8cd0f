//! What drivers want done: attempts started and stopped, messages sent, output published.

use std::collections::VecDeque;

use cutwater_coordinator::inspect::{LogEntryKind, read_slot, slot_name, slot_of};
use cutwater_coordinator::{AbortReason, CompletedCheckpoint};
use cutwater_core::{Attempt, CheckpointId, SubtaskId};
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_dataflow::{CommitContext, CommitOutcome};
use cutwater_driver::{Action, Driver};
use cutwater_restart::FailureClass;
use cutwater_state::format::SnapshotReader;
use cutwater_storage::Store;
use cutwater_task::{TaskCore, TaskSnapshot, TaskStart};

use super::World;
use super::events::Entity;
use crate::delta::{Delta, Entries};
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{Commit, LateOp, Message, Op, Process, Running, Stage, Starting, subtasks};
use crate::shared::{ProcessId, Rule};

/// How often publishing is tried again whose result is unknown.
const COMMIT_TRIES: u32 = 5;

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

    fn perform_driver(&mut self, id: ProcessId, action: Action) {
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
            Action::Trigger { attempt, barrier, subtasks } => {
                let messages = subtasks.into_iter().map(|to| Message::Trigger { to, attempt, barrier });
                process.net.extend(messages);
                self.tell(Entity::Driver(id), || format!("triggers checkpoint {}", barrier.checkpoint));
            }
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
            Action::Completed { checkpoint, requests } => self.completed(id, &checkpoint, requests.len()),
            Action::Aborted { checkpoint, reason, requests } => {
                self.tell(Entity::Driver(id), || format!("gives checkpoint {checkpoint} up: {reason}"));
                self.mark_abort(&reason);
                if !requests.is_empty() {
                    self.hit(Mark::RequestRefused);
                }
            }
            Action::RequestFailed { .. } => self.hit(Mark::RequestRefused),
            Action::CheckpointsFailed(_) => self.hit(Mark::TooManyFailures),
            Action::OutputUnreadable { checkpoint, error } => {
                self.violated(Rule::Contract, || format!("the output of checkpoint {checkpoint}: {error}"));
            }
            Action::Restarting { .. } => self.hit(Mark::Restarted),
            Action::EndUnrecorded { .. } => {}
            Action::Done(end) => process.end = Some(end),
        }
    }

    fn mark_abort(&self, reason: &AbortReason) {
        match reason {
            AbortReason::Expired { .. } => self.hit(Mark::Expired),
            AbortReason::JobFailover => self.hit(Mark::AbortedByFailover),
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

    fn post_to_all(&mut self, id: ProcessId, message: impl Fn(SubtaskId) -> Message) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let all: Vec<SubtaskId> = process.running.iter().flat_map(Running::subtasks).collect();
        process.net.extend(all.into_iter().map(message));
    }

    fn completed(&mut self, id: ProcessId, checkpoint: &CompletedCheckpoint, requests: usize) {
        self.checkpoints += 1;
        self.hit(Mark::CompletedRecord);
        if checkpoint.final_ {
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

    /// Deletes all files of the checkpoint before, whoever else needs them.
    fn delete_shared(&mut self, id: ProcessId, newest: &CompletedCheckpoint) {
        let others = self.oracle.history.iter().rev().filter_map(|entry| match &entry.kind {
            LogEntryKind::Completed { checkpoint, .. } => Some(checkpoint),
            LogEntryKind::Claim { .. } | LogEntryKind::Ended(_) => None,
        });
        let before = others.filter(|other| other.checkpoint < newest.checkpoint).map(|other| other.files()).next();
        let names: Vec<String> = before.into_iter().flatten().map(|file| file.name.clone()).collect();
        for name in names {
            let deleted = match self.config.object_store {
                true => self.objects.delete(&name),
                false => cutwater_storage::ObjectName::parse(&name)
                    .is_ok_and(|object| self.raw_folder.delete(&object).is_ok()),
            };
            if deleted {
                self.oracle.deleted(&name);
            }
        }
        let _ = id;
    }

    /// Publishes what a record names that is only on its way.
    fn publish_at_once(&mut self, id: ProcessId, name: &str, bytes: &[u8]) {
        let Ok(entry) = read_slot(name, bytes) else { return };
        let LogEntryKind::Completed { checkpoint, .. } = entry.kind else { return };
        let Ok(handles) = cutwater_driver::prepared_output(&checkpoint) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        for handle in handles {
            if let Some(committer) = process.committers.get_mut(&handle.operator) {
                let _ = committer.commit(&handle.payload);
            }
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

    /// The record that is out counts as failed, and may land all the same.
    fn forget_record(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let is_record = |op: &Op| matches!(op, Op::Create { name, .. } if name.starts_with("log/"));
        let Some(at) = process.ops.iter().position(is_record) else { return };
        if let Op::Create { token, name, bytes } = process.ops.swap_remove(at) {
            if self.config.object_store {
                self.late.push(LateOp::Create { name, bytes });
            } else if let Ok(object) = cutwater_storage::ObjectName::parse(&name)
                && self.raw_folder.create(&object, &bytes).is_ok()
            {
                self.oracle.created(&name, &bytes);
            }
            let now = self.now;
            let outcome = cutwater_coordinator::CreateOutcome::Failed("forgotten".to_owned());
            self.with_driver(id, |driver| driver.handle_created(now, token, outcome));
        }
    }

    fn begin_start(
        &mut self,
        id: ProcessId,
        attempt: Attempt,
        restore: Option<Box<CompletedCheckpoint>>,
        handles: Vec<OperatorSnapshot>,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let reign = process.driver.coordinator().epoch().unwrap_or(process.epoch);
        self.oracle.told_restore(reign, restore.as_deref());
        let restore = match self.is(Mutant::RestoreOlder) {
            true => self.older_than(restore),
            false => restore,
        };
        self.tell(Entity::Driver(id), || {
            let from = restore.as_ref().map(|checkpoint| checkpoint.checkpoint.0);
            format!("starts attempt {attempt} from checkpoint {from:?}")
        });
        let from = restore.as_ref().map(|checkpoint| {
            let parallelism = checkpoint.tasks.iter().map(|task| task.parallelism).max();
            (parallelism, checkpoint.tasks.iter().map(|task| task.parallelism).collect::<Vec<_>>())
        });
        let Some(process) = self.processes.get_mut(&id) else { return };
        let now: Vec<u32> = process.graph.tasks().iter().map(|spec| spec.parallelism(process.parallelism)).collect();
        let rescaled = from.as_ref().is_some_and(|(_, before)| *before != now);
        let first = process.attempt == Attempt(0);
        process.attempt = attempt;
        process.starting = Some(Starting {
            attempt,
            handles: if self.mutant == Some(Mutant::NoRecommit) { VecDeque::new() } else { handles.into() },
            stage: if self.mutant == Some(Mutant::SweepBeforeRecommit) { Stage::Committers } else { Stage::SweepStore },
            cores: Vec::new(),
            to_build: subtasks(&process.graph, process.parallelism).collect(),
            tries: 0,
            restore,
        });
        match (first, from.is_some()) {
            (true, true) => self.hit(Mark::OpenedWithCheckpoint),
            (true, false) => self.hit(Mark::OpenedEmpty),
            (false, _) => {}
        }
        if rescaled {
            self.hit(Mark::Rescaled);
        }
    }

    fn older_than(&self, restore: Option<Box<CompletedCheckpoint>>) -> Option<Box<CompletedCheckpoint>> {
        let newest = restore?;
        let older = self.oracle.retained().filter(|other| other.checkpoint < newest.checkpoint).last().cloned();
        Some(older.map_or(newest, Box::new))
    }

    /// The next step of starting an attempt.
    pub(super) fn start_step(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(mut starting) = process.starting.take() else { return };
        let (attempt, done) = (starting.attempt, self.next_step(id, &mut starting));
        if self.shared.is_dead(id) {
            return;
        }
        let now = self.now;
        match done {
            Ok(false) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.starting = Some(starting);
                }
            }
            Ok(true) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                process.running = Some(Running::new(&process.graph, process.parallelism, attempt, starting.cores));
                process.noticed.clear();
                self.tell(Entity::Driver(id), || format!("attempt {attempt} runs"));
                self.with_driver(id, |driver| driver.handle_started(now, attempt, Ok(())));
            }
            Err((class, reason)) => {
                self.hit(Mark::FailedStart);
                self.tell(Entity::Driver(id), || format!("attempt {attempt} can't be started: {reason}"));
                self.with_driver(id, |driver| driver.handle_started(now, attempt, Err(class)));
            }
        }
    }

    fn next_step(&mut self, id: ProcessId, starting: &mut Starting) -> Result<bool, (FailureClass, String)> {
        let failed = |reason: String| (FailureClass::Recoverable, reason);
        let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
        match starting.stage {
            Stage::SweepStore => {
                if starting.attempt == Attempt(1) && !self.config.object_store {
                    // A sweep that fails is no reason not to start.
                    let _ = process.folder.sweep_leftovers("");
                }
                starting.stage = Stage::Committers;
            }
            Stage::Committers => {
                make_committers(process, starting.attempt).map_err(failed)?;
                let early = self.mutant == Some(Mutant::SweepBeforeRecommit);
                starting.stage = Stage::Publish;
                if early {
                    let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
                    sweep_sinks(process).map_err(failed)?;
                }
            }
            Stage::Publish => match starting.handles.pop_front() {
                Some(handle) => {
                    self.hit(Mark::CommitOnRestore);
                    self.publish(id, &handle, &mut starting.tries)
                        .map_err(failed)?
                        .then_some(())
                        .map_or_else(|| starting.handles.push_front(handle.clone()), |()| starting.tries = 0);
                }
                None => {
                    if let (Some(restore), false) = (&starting.restore, self.mutant == Some(Mutant::RestoreOlder)) {
                        self.oracle.told_published(restore.checkpoint);
                    }
                    starting.stage = Stage::SweepSinks;
                }
            },
            Stage::SweepSinks => {
                sweep_sinks(process).map_err(failed)?;
                starting.stage = Stage::Build;
            }
            Stage::Build => {
                let Some(subtask) = starting.to_build.pop_front() else { return Ok(true) };
                let core = self.build(id, starting, subtask)?;
                starting.cores.push(core);
            }
        }
        Ok(false)
    }

    /// Publishes a handle. `false`: nobody knows whether it is, and it is to be tried again.
    fn publish(&mut self, id: ProcessId, handle: &OperatorSnapshot, tries: &mut u32) -> Result<bool, String> {
        let twice = self.is(Mutant::CommitTwice);
        let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
        let Some(committer) = process.committers.get_mut(&handle.operator) else {
            return Err(format!("no committer of {}", handle.operator));
        };
        let outcome = committer.commit(&handle.payload);
        match outcome {
            CommitOutcome::Committed => Ok(true),
            CommitOutcome::Already => {
                self.hit(Mark::OutputAgain);
                if twice {
                    self.write_again(id, handle);
                }
                Ok(true)
            }
            CommitOutcome::Unknown(error) => {
                if !self.shared.is_dead(id) {
                    self.hit(Mark::CommitUnknown);
                }
                *tries += 1;
                if *tries >= COMMIT_TRIES { Err(error.to_string()) } else { Ok(false) }
            }
            CommitOutcome::Lost(error) => {
                let text = error.to_string();
                self.violated(Rule::Commit, || format!("prepared output is lost: {text}"));
                Err(error.to_string())
            }
        }
    }

    /// Writes the lines of a published file once more, under another name.
    fn write_again(&mut self, id: ProcessId, handle: &OperatorSnapshot) {
        use cutwater_storage::Files;
        let names = handle.payload.split_first().map(|(_, body)| postcard::take_from_bytes::<(String, String)>(body));
        let Some(Ok(((_, name), _))) = names else { return };
        let folder = std::path::Path::new(crate::job::OUT);
        let Some(content) = self.disk.open(&folder.join(&name)).ok() else { return };
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or(0)];
        let _ = content.read_at(0, &mut bytes);
        let copy = folder.join(name.replace(".csv", "9.csv"));
        if let Ok(mut file) = self.disk.create_new(&copy) {
            let _ = file.write(&bytes);
            let _ = file.sync();
        }
        let mut shared = self.shared.lock();
        shared.disk_events.push(crate::shared::DiskEvent::Published { path: copy });
        let _ = id;
    }

    fn build(
        &mut self,
        id: ProcessId,
        starting: &Starting,
        subtask: SubtaskId,
    ) -> Result<TaskCore, (FailureClass, String)> {
        let failed = |reason: String| (FailureClass::Recoverable, reason);
        let Some(process) = self.processes.get(&id) else { return Err(failed(String::new())) };
        let graph = std::sync::Arc::clone(&process.graph);
        let spec = &graph.tasks()[subtask.task.0 as usize];
        let (epoch, parallelism) = (process.epoch, process.parallelism);
        let groups = starting.restore.as_ref().map_or(process.told_groups, |restore| restore.max_parallelism);
        let mut start = TaskStart {
            subtask,
            parallelism,
            max_parallelism: groups,
            epoch,
            attempt: starting.attempt,
            from_nothing: starting.restore.is_none(),
            restored: Vec::new(),
        };
        let mut files = Vec::new();
        if let Some(checkpoint) = &starting.restore {
            let mine = checkpoint.tasks.iter().filter(|task| task.task == subtask.task).flat_map(|task| &task.subtasks);
            for part in mine {
                start.restored.push(TaskSnapshot::decode(&part.inline).map_err(|error| failed(error.to_string()))?);
                if !part.files.is_empty() {
                    files.push(part.files.clone());
                }
            }
        }
        if self.is(Mutant::WatermarkAhead) && !start.restored.is_empty() {
            for part in &mut start.restored {
                part.watermark = part.watermark.saturating_add(3_000);
            }
        }
        let mut settings = self.config.task();
        if self.is(Mutant::NoAlignment) {
            settings.mode = cutwater_barrier::Mode::AtLeastOnce;
        }
        if self.is(Mutant::NoCredit) {
            settings.window_bytes = 1 << 40;
        }
        let mut core = TaskCore::new(&graph, &start, settings).map_err(|error| {
            let class =
                if error.is_non_recoverable() { FailureClass::NonRecoverable } else { FailureClass::Recoverable };
            (class, error.to_string())
        })?;
        let mut range = groups.range_of(subtask.index, spec.parallelism(parallelism));
        if self.is(Mutant::GroupLost) && parallelism > 1 && range.last > range.first {
            range.last.0 -= 1;
        }
        for chain in files {
            self.restore_chain(id, &mut core, &chain, range).map_err(failed)?;
        }
        Ok(core)
    }

    /// Restores what a snapshot, or a full one and its deltas, hold of the range.
    fn restore_chain(
        &mut self,
        id: ProcessId,
        core: &mut TaskCore,
        chain: &[cutwater_coordinator::FileRef],
        range: cutwater_core::KeyGroupRange,
    ) -> Result<(), String> {
        let mut full: Option<(Vec<cutwater_state::StateHeader>, Vec<cutwater_state::Block>)> = None;
        let mut deltas = Vec::new();
        for file in chain {
            let bytes = self.read_file(id, file)?;
            if Delta::is_one(&bytes) {
                deltas.push(Delta::decode(&bytes).ok_or_else(|| format!("{} is damaged", file.name))?);
                continue;
            }
            let reader = SnapshotReader::open(&bytes).map_err(|error| error.to_string())?;
            let headers = reader.header().states.clone();
            let mut blocks = Vec::new();
            for info in reader.blocks() {
                blocks.push(reader.read_block(info).map_err(|error| error.to_string())?);
            }
            full = Some((headers, blocks));
        }
        let Some((headers, mut blocks)) = full else { return Err("a chain without a full snapshot".to_owned()) };
        if !deltas.is_empty() {
            self.hit(Mark::DeltaRestored);
            let mut entries = Entries::of(&headers, &blocks).ok_or("blocks that can't be read")?;
            deltas.into_iter().for_each(|delta| entries.apply(delta));
            blocks = entries.blocks(&headers);
        }
        let drop_timers = self.is(Mutant::TimersLost);
        let mut states = core.states();
        for block in blocks {
            let Some(header) = headers.get(usize::from(block.state)) else { continue };
            if drop_timers && header.kind == cutwater_state::StateKind::Timers {
                continue;
            }
            let same = |state: &&mut &mut dyn cutwater_state::Snapshotable| {
                let own = state.header();
                own.operator == header.operator && own.name == header.name && own.kind == header.kind
            };
            let state = states.iter_mut().find(|state| same(state)).ok_or("a state that nobody has")?;
            state.restore(&block, range).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn read_file(&mut self, id: ProcessId, file: &cutwater_coordinator::FileRef) -> Result<Vec<u8>, String> {
        let fault = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            shared.choices.fault(&[if self.config.object_store { r.store_fails } else { 0 }, r.corrupt_read])
        };
        if fault == 1 || self.is_out_of_reach() {
            self.shared.lock().marks.fault("store_fails");
            return Err("the store does not answer".to_owned());
        }
        let Some(mut bytes) = self.raw_read(&file.name) else {
            // Whoever was replaced may find that its successor has let go of it.
            if !self.is_replaced(id) {
                let name = &file.name;
                self.violated(Rule::Ref, || format!("{name} is to be restored and is gone"));
            }
            return Err("gone".to_owned());
        };
        if fault == 2 {
            self.shared.lock().marks.fault("corrupt_read");
            if self.is(Mutant::ChecksumIgnored) {
                return Ok(self.damage_unseen(bytes));
            }
            self.damage(&mut bytes);
            self.hit(Mark::RestoreCorrupt);
        }
        Ok(bytes)
    }

    /// Damages a value and makes the checksums fit again.
    fn damage_unseen(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Ok(reader) = SnapshotReader::open(&bytes) else { return bytes };
        let header = reader.header().clone();
        let mut again = Vec::new();
        let Ok(mut encoder) = cutwater_state::format::SnapshotEncoder::new(
            &header,
            cutwater_state::format::Compression::None,
            &mut again,
        ) else {
            return bytes;
        };
        for info in reader.blocks() {
            let Ok(mut block) = reader.read_block(info) else { return bytes };
            if let Some(last) = block.payload.last_mut() {
                *last ^= 1;
            }
            if encoder.push(&block, &mut again).is_err() {
                return bytes;
            }
        }
        encoder.finish(&mut again);
        again
    }

    /// The threads of the attempt end.
    pub(super) fn stop_attempt(&mut self, id: ProcessId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(attempt) = process.stopping.take() else { return };
        process.running = None;
        process.bases.retain(|(of, _), _| *of != attempt);
        self.tell(Entity::Driver(id), || format!("attempt {attempt} has stopped"));
        self.with_driver(id, |driver| driver.handle_stopped(now, attempt));
    }

    /// The next handle is published.
    pub(super) fn commit_step(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(mut commit) = process.commit.take() else { return };
        let finished = std::mem::take(&mut commit.finish).into_iter().try_for_each(|finish| finish());
        let step = match (finished, commit.handles.pop_front()) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(()), None) => Ok(true),
            (Ok(()), Some(handle)) => self.publish(id, &handle, &mut commit.tries).map(|published| {
                if published {
                    commit.tries = 0;
                } else {
                    commit.handles.push_front(handle);
                }
                commit.handles.is_empty()
            }),
        };
        if self.shared.is_dead(id) {
            return;
        }
        let (now, attempt, checkpoint) = (self.now, commit.attempt, commit.checkpoint);
        match step {
            Ok(false) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.commit = Some(commit);
                }
            }
            Ok(true) => {
                self.look_at_disk();
                if checkpoint > CheckpointId(0) {
                    self.oracle.told_published(checkpoint);
                }
                self.tell(Entity::Driver(id), || format!("output of checkpoint {checkpoint} is published"));
                if !self.is(Mutant::CommittedEarly) || checkpoint == CheckpointId(0) {
                    self.with_driver(id, |driver| driver.handle_committed(now, attempt, checkpoint, Ok(())));
                }
            }
            Err(_) => {
                let class = FailureClass::Recoverable;
                self.with_driver(id, |driver| driver.handle_committed(now, attempt, checkpoint, Err(class)));
            }
        }
    }
}

fn make_committers(process: &mut Process, attempt: Attempt) -> Result<(), String> {
    process.committers.clear();
    let graph = std::sync::Arc::clone(&process.graph);
    for (operator, make) in graph.tasks().iter().filter_map(|task| task.committer.as_ref()) {
        let context =
            CommitContext { job: graph.name().to_owned(), operator: operator.clone(), epoch: process.epoch, attempt };
        let committer = make(&context).map_err(|error| error.to_string())?;
        process.committers.insert(operator.clone(), committer);
    }
    Ok(())
}

fn sweep_sinks(process: &mut Process) -> Result<(), String> {
    process.committers.values_mut().try_for_each(|committer| committer.sweep()).map_err(|error| error.to_string())
}
