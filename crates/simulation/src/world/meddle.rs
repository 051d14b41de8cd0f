//! Faults of the world: processes that die, sleep, are started twice; machines that lose power; people who ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cutwater_coordinator::{Job, OpenError, RestoreFrom};
use cutwater_core::{Attempt, Epoch, MaxParallelism, Moment};
use cutwater_driver::{Driver, DriverSettings, End, NO_PROGRESS_ATTEMPTS, OnNoProgress, plan_of};
use cutwater_restart::FailureClass;
use cutwater_storage::{Files, ObjectName, Store};

use super::World;
use super::events::Entity;
use crate::disk::{self, ProcessFiles};
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::native::Reading;
use crate::process::{LateOp, Message, Op, Process, Upload, UploadStep};
use crate::shared::{DiskEvent, Probe, ProcessId, Rule};

/// How long a process sleeps, in microseconds.
const NAPS: [u64; 4] = [200, 3_000, 20_000, 200_000];

/// How long the store can't be reached, in microseconds.
const OUTAGES: [u64; 3] = [500, 50_000, 6_000_000];

impl World<'_> {
    pub(super) fn meddle(&mut self) {
        if self.is_healed() {
            return;
        }
        let fault = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            let rates = [
                r.kill,
                r.power_loss,
                r.task_panic,
                r.pause,
                r.second_process,
                r.request,
                r.cancel,
                r.store_outage,
                r.savepoint,
                r.stop,
                r.drain,
                if self.config.fall_back { r.file_lost } else { 0 },
            ];
            shared.choices.fault(&rates)
        };
        let names = [
            "kill",
            "power_loss",
            "task_panic",
            "pause",
            "second_process",
            "request",
            "cancel",
            "store_outage",
            "savepoint",
            "stop",
            "drain",
            "file_lost",
        ];
        if fault == 0 {
            return;
        }
        let Some(id) = self.any_process() else { return };
        self.shared.lock().marks.fault(names[fault - 1]);
        match fault {
            1 => drop(self.shared.lock().killed.insert(id)),
            2 => self.shared.lock().power_lost = true,
            3 => self.panic_somewhere(id),
            4 => self.put_to_sleep(id),
            5 if self.processes.len() < 3 => self.start_process(),
            6 => {
                let now = self.now;
                self.with_driver(id, |driver| driver.handle_request(now));
            }
            7 => {
                let now = self.now;
                self.tell(Entity::Driver(id), || "is cancelled".to_owned());
                self.with_driver(id, |driver| driver.handle_cancel(now));
            }
            8 => {
                let long = OUTAGES[self.shared.lock().choices.below(OUTAGES.len())];
                self.outage_until = self.now + Duration::from_micros(long);
                self.tell(Entity::Store, || format!("can't be reached for {long} us"));
            }
            9 => {
                let now = self.now;
                self.with_driver(id, |driver| driver.handle_savepoint(now));
            }
            10 => self.ask_to_stop(id, false),
            11 if self.config.may_drain() => self.ask_to_stop(id, true),
            12 => self.lose_file(),
            _ => {}
        }
    }

    fn any_process(&self) -> Option<ProcessId> {
        let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
        if ids.is_empty() { None } else { Some(ids[self.shared.lock().choices.below(ids.len())]) }
    }

    fn put_to_sleep(&mut self, id: ProcessId) {
        let nap = NAPS[self.shared.lock().choices.below(NAPS.len())];
        let until = self.now + Duration::from_micros(nap);
        if let Some(process) = self.processes.get_mut(&id) {
            process.paused_until = Some(until);
        }
        self.tell(Entity::Driver(id), || format!("sleeps for {nap} us"));
    }

    /// A thread of the attempt panics in user code; the host catches it and reports.
    fn panic_somewhere(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.paused_until.is_none()) else {
            return;
        };
        let Some(running) = &mut process.running else { return };
        let at = self.shared.lock().choices.below(running.nodes.len());
        let Some(node) = running.nodes.get_mut(at).filter(|node| !node.failed) else { return };
        node.failed = true;
        process.net.push(Message::Failed { attempt: running.attempt, class: FailureClass::Recoverable });
        self.shared.hit(Mark::TaskPanic);
        self.tell(Entity::Node(id, at as u32), || "panics".to_owned());
    }

    /// Somebody starts the job.
    pub(super) fn start_process(&mut self) {
        self.started += 1;
        let id = self.started;
        let parallelism = self.config.parallelism[id as usize % self.config.parallelism.len().max(1)];
        let parallelism = parallelism.clamp(1, self.max_parallelism.count());
        let files = Arc::new(ProcessFiles::new(&self.disk, &self.shared, id));
        let sink_files: Arc<dyn Files> = files.clone();
        let graph = match self.subject.graph(&Probe::new(&self.shared), &sink_files) {
            Ok(graph) => graph,
            Err(error) => return self.violated(Rule::Contract, || format!("the graph can't be built: {error}")),
        };
        let told = match self.config.other_key_groups && id.is_multiple_of(2) {
            true => MaxParallelism::default(),
            false => self.max_parallelism,
        };
        let settings = DriverSettings {
            checkpointing: self.config.checkpointing(),
            job: Job { name: graph.name().to_owned(), max_parallelism: told },
            strategy: self.config.restart.strategy(),
            no_progress_attempts: NO_PROGRESS_ATTEMPTS,
            on_no_progress: OnNoProgress::Report,
            nonce: u64::from(id),
            plan: plan_of(&graph, parallelism),
            slots_per_boundary: Some(self.config.slots_per_boundary),
        };
        let from = self.where_to_start();
        let savepoint = match &from {
            RestoreFrom::Foreign(savepoint) => Some((savepoint.epoch, savepoint.checkpoint)),
            RestoreFrom::Latest | RestoreFrom::Nothing | RestoreFrom::Checkpoint(_) => None,
        };
        let mut settings = settings;
        settings.checkpointing.allow_rewind |= self.is(Mutant::RewindUnasked) && from != RestoreFrom::Latest;
        let driver = match Driver::new(settings) {
            Ok(driver) => driver,
            Err(error) => return self.violated(Rule::Contract, || format!("the restart strategy: {error}")),
        };
        if self.processes.values().any(|process| process.paused_until.is_none()) {
            self.hit(Mark::TwoAlive);
        }
        let process = Process {
            id,
            driver,
            deadline: None,
            graph: Arc::new(graph),
            parallelism,
            told_groups: told,
            folder: disk::folder(&self.disk, &self.shared, id),
            paused_until: None,
            slept: false,
            store_failed: false,
            store_damaged: false,
            epoch: Epoch(0),
            attempt: Attempt(0),
            running: None,
            starting: None,
            stopping: None,
            commit: None,
            committers: BTreeMap::new(),
            ops: Vec::new(),
            net: Vec::new(),
            written: VecDeque::new(),
            uploads: Vec::new(),
            tiers: BTreeMap::new(),
            natives: BTreeMap::new(),
            planted: BTreeMap::new(),
            applying: Vec::new(),
            stalled_until: Moment::ZERO,
            from_savepoint: from != RestoreFrom::Latest,
            savepoint,
            damaged: BTreeSet::new(),
            fell_from: BTreeSet::new(),
            copies: Vec::new(),
            stop_behind: None,
            chains: BTreeMap::new(),
            contents: BTreeMap::new(),
            noticed: BTreeMap::new(),
            end: None,
            unknown: None,
            acked: BTreeSet::new(),
            storing: false,
        };
        self.processes.insert(id, process);
        self.tell(Entity::Driver(id), || format!("starts at parallelism {parallelism}"));
        let now = self.now;
        self.with_driver(id, |driver| driver.handle_open(now, from));
    }

    /// Clears away processes that have died; whether any has.
    pub(super) fn clear_dead(&mut self) -> bool {
        let (power_lost, killed) = {
            let mut shared = self.shared.lock();
            if !shared.power_lost && shared.killed.is_empty() {
                return false;
            }
            if shared.power_lost {
                let all: Vec<ProcessId> = self.processes.keys().copied().collect();
                shared.killed.extend(all);
            }
            (shared.power_lost, shared.killed.clone())
        };
        for id in killed {
            let Some(process) = self.processes.remove(&id) else { continue };
            self.mark_death(&process);
            self.tell(Entity::Driver(id), || "dies".to_owned());
            self.excuse_deletions(&process);
            if self.oracle.lets_go() {
                self.hit(Mark::DiedLettingGo);
                if self.oracle.finished {
                    self.oracle.excuse_all(); // nobody comes back for them
                }
            }
            if self.oracle.finished {
                self.oracle.nobody_comes_back();
            }
            self.leave_behind(process);
        }
        if power_lost {
            self.hit(Mark::PowerLost);
            self.tell(Entity::World, || "the machine loses power".to_owned());
            disk::lose_power(&self.disk, &self.shared);
            self.look_after_power_loss();
            if self.oracle.finished {
                self.oracle.nobody_comes_back();
            }
        }
        let mut shared = self.shared.lock();
        shared.killed.clear();
        shared.power_lost = false;
        true
    }

    fn mark_death(&self, process: &Process) {
        self.hit(Mark::Killed);
        if process.driver.epoch().is_none() {
            self.hit(Mark::KilledWhileOpening);
        }
        if let Some(starting) = &process.starting {
            self.hit(Mark::KilledWhileStarting);
            if starting.reading.as_ref().is_some_and(Reading::is_begun) {
                self.hit(Mark::NativeKilledReading);
            }
        }
        if process
            .uploads
            .iter()
            .any(|upload| matches!(&upload.step, UploadStep::Native(storing) if storing.is_begun()))
        {
            self.hit(Mark::NativeKilledBetween);
        }
        if process.commit.is_some() {
            self.hit(Mark::KilledWhileCommitting);
        }
        if process.ops.iter().any(|op| matches!(op, Op::Create { name, .. } if name.starts_with("log/"))) {
            self.hit(Mark::KilledWithRecordOut);
        }
    }

    /// What a process that died had asked to be deleted its successor deletes, unless the job had just finished.
    fn excuse_deletions(&mut self, process: &Process) {
        for op in &process.ops {
            if let Op::Delete { names, .. } = op {
                self.oracle.excused.extend(names.iter().cloned());
            }
        }
    }

    /// What a process had asked of an object store may still come to be after its end.
    fn leave_behind(&mut self, process: Process) {
        if !self.config.object_store {
            return; // the disk is only asked by those who live
        }
        for op in process.ops {
            match op {
                Op::Create { name, bytes, .. } => self.late.push(LateOp::Create { name, bytes }),
                Op::Delete { names, .. } => self.late.push(LateOp::Delete { names }),
                Op::Read { .. } | Op::List { .. } => {}
            }
        }
        for upload in process.uploads {
            match &upload.step {
                UploadStep::Write => {
                    if let Ok((name, bytes)) = super::upload::file_of(&upload) {
                        self.late.push(LateOp::Create { name, bytes });
                    }
                }
                UploadStep::Native(storing) => {
                    let sent = storing.under_way().filter_map(|at| upload.object(storing, at));
                    self.late.extend(sent.map(|(name, bytes)| LateOp::Create { name, bytes }));
                }
                UploadStep::Finish | UploadStep::Tell(_) => {}
            }
        }
    }

    /// The oracle looks at what is left on the disk.
    fn look_after_power_loss(&mut self) {
        let (mut log, mut files) = (BTreeMap::new(), BTreeSet::new());
        if self.config.object_store {
            log.extend(self.objects.of_log());
            files.extend(self.objects.of_snapshots());
        } else {
            for listed in self.raw_folder.list("").unwrap_or_default() {
                let name = listed.name.as_str().to_owned();
                if name.starts_with("chk/") {
                    files.insert(name);
                } else if let Some(bytes) = self.raw_read(&name) {
                    log.insert(name, bytes);
                }
            }
        }
        self.oracle.power_lost(&log, files);
    }

    pub(super) fn raw_read(&self, name: &str) -> Option<Vec<u8>> {
        if self.config.object_store {
            return self.objects.get(name).cloned();
        }
        let name = ObjectName::parse(name).ok()?;
        self.raw_folder.read(&name, u64::MAX).ok().flatten()
    }

    /// Processes whose driver is done go.
    pub(super) fn remove_ended(&mut self) {
        if self.processes.values().all(|process| process.end.is_none()) {
            return;
        }
        let ended: Vec<ProcessId> =
            self.processes.values().filter(|process| process.end.is_some()).map(|process| process.id).collect();
        for id in ended {
            let Some(mut process) = self.processes.remove(&id) else { continue };
            let end = process.end.take();
            let finished = matches!(end, Some(End::Finished));
            self.tell(Entity::Driver(id), || format!("ends: {end:?}"));
            let mark = match end {
                Some(End::Finished) => Some(Mark::Finished),
                Some(End::AlreadyFinished { .. }) => Some(Mark::OpenedFinished),
                Some(End::Canceled) => Some(Mark::Canceled),
                Some(End::Stopped { savepoint, drained }) => self.stopped(&process, savepoint.is_some(), drained),
                Some(End::GaveUp { .. }) => Some(Mark::GaveUp),
                Some(End::Superseded { .. }) if process.slept => Some(Mark::SupersededAsZombie),
                Some(End::Superseded { .. }) => Some(Mark::Superseded),
                Some(End::Refused(error)) => self.refused(&process, &error),
                None => None,
            };
            if let Some(mark) = mark {
                self.hit(mark);
            }
            if finished {
                self.oracle.unawaited.extend(process.uploads.iter().flat_map(Upload::begun));
            }
            self.leave_behind(process);
        }
    }

    /// A log may be refused as damaged by a process that was given damaged bytes, as out of reach by one that was not
    /// answered.
    fn refused(&mut self, process: &Process, error: &OpenError) -> Option<Mark> {
        if let OpenError::BelowPublished { published } = error {
            return self.refused_below(process, *published);
        }
        let unreachable = matches!(error, OpenError::Storage { .. });
        let damaged =
            matches!(error, OpenError::Corrupt { .. } | OpenError::NewerFormat { .. } | OpenError::AnotherJob { .. });
        if !(unreachable && process.store_failed || damaged && process.store_damaged) {
            let text = error.to_string();
            self.violated(Rule::Contract, || format!("the log is refused although nothing is wrong: {text}"));
            return None;
        }
        Some(if unreachable { Mark::RefusedStorage } else { Mark::RefusedCorrupt })
    }

    /// Whether somebody else has the job: what such a process still writes is swept at the next start only.
    pub(super) fn is_replaced(&self, id: ProcessId) -> bool {
        self.processes.get(&id).is_none_or(|process| process.epoch < self.epoch)
    }

    /// Shows the oracle what happened to files of the output.
    pub(super) fn look_at_disk(&mut self) {
        let events = {
            let mut shared = self.shared.lock();
            if shared.disk_events.is_empty() {
                return;
            }
            std::mem::take(&mut shared.disk_events)
        };
        for event in events {
            match event {
                DiskEvent::Published { path } => {
                    self.tell(Entity::World, || format!("{} is published", path.display()));
                    self.oracle.published(&path);
                }
                DiskEvent::Removed { path } => self.oracle.removed(&path),
                DiskEvent::Created { path, process } if self.is_replaced(process) => self.oracle.excuse(&path),
                DiskEvent::Created { .. } => {}
                DiskEvent::Kept { path } => self.oracle.excuse(&path),
            }
        }
    }
}
