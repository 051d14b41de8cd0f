//! The store: what drivers ask of it, how it answers, what it does late.

use cutwater_coordinator::{CreateOutcome, Token};
use cutwater_storage::{CreateError, ObjectName, Store};

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{LateOp, Op};
use crate::shared::{ProcessId, Rule};

/// How an object store treats a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// It did nothing, and says so.
    Fails,
    /// It did it, and the answer is lost.
    AnswerLost,
    /// Nobody knows, and it may still do it.
    Late,
}

/// What a store can do to those who ask.
#[derive(Clone, Copy)]
enum Ill {
    Failed,
    Damaged,
}

/// No driver asks more at a time: one on its main path, and a few deletions.
const MOST_OPS: usize = 40;

impl World<'_> {
    fn fate(&mut self, process: ProcessId) -> Fate {
        let mut shared = self.shared.lock();
        let r = shared.rates;
        let fault = shared.choices.fault(&[r.store_fails, r.store_answer_lost, r.store_late]);
        if fault > 0 {
            shared.marks.fault(["store_fails", "store_answer_lost", "store_late"][fault - 1]);
        }
        let _ = process;
        [Fate::Done, Fate::Fails, Fate::AnswerLost, Fate::Late][fault]
    }

    /// The store answers one of the questions of a process.
    pub(super) fn answer(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let count = process.ops.len();
        if count > MOST_OPS {
            self.violated(Rule::Bound, || format!("{count} questions to the store are out"));
        }
        let at = self.shared.lock().choices.below(count);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let op = process.ops.remove(at);
        if self.is_out_of_reach() {
            return self.answer_nothing(id, op);
        }
        match op {
            Op::Create { token, name, bytes } => self.answer_create(id, token, name, bytes),
            Op::Read { token, name } => self.answer_read(id, token, &name),
            Op::Delete { token, names } => self.answer_delete(id, token, names),
            Op::List { token, prefix } => self.answer_list(id, token, &prefix),
        }
    }

    pub(super) fn is_out_of_reach(&self) -> bool {
        self.now < self.outage_until
    }

    /// The store can't be reached: it has done nothing, and the caller knows.
    fn answer_nothing(&mut self, id: ProcessId, op: Op) {
        let now = self.now;
        let reason = || "the store can't be reached".to_owned();
        self.tell(Entity::Store, || format!("process {id} is not answered"));
        self.note_store(id, Ill::Failed);
        match op {
            Op::Create { token, .. } => {
                self.with_driver(id, |driver| driver.handle_created(now, token, CreateOutcome::Failed(reason())));
            }
            Op::Read { token, .. } => {
                self.with_driver(id, |driver| driver.handle_read(now, token, Err(reason())));
            }
            Op::Delete { token, names } => {
                self.oracle.excused.extend(names);
                self.with_driver(id, |driver| driver.handle_deleted(now, token, Err(reason())));
            }
            Op::List { token, .. } => {
                self.oracle.excuse_all(); // what is not found now is found at the next start
                self.with_driver(id, |driver| driver.handle_listed(now, token, Err(reason())));
            }
        }
    }

    fn answer_create(&mut self, id: ProcessId, token: Token, name: String, bytes: Vec<u8>) {
        let (outcome, landed) = if self.config.object_store {
            self.create_object(id, &name, &bytes)
        } else {
            self.create_in_folder(id, &name, &bytes)
        };
        self.tell(Entity::Store, || format!("process {id} creates {name}: {outcome:?}"));
        if landed {
            self.oracle.created(&name, &bytes);
        }
        let is_slot = name.starts_with("log/");
        let outcome = match outcome {
            CreateOutcome::Unknown(reason) if is_slot && self.is(Mutant::UnknownIsFailure) => {
                CreateOutcome::Failed(reason)
            }
            outcome @ (CreateOutcome::Created
            | CreateOutcome::Exists
            | CreateOutcome::Failed(_)
            | CreateOutcome::Unknown(_)) => outcome,
        };
        if is_slot && matches!(outcome, CreateOutcome::Failed(_)) {
            self.hit(Mark::RecordFailed);
        }
        if matches!(outcome, CreateOutcome::Failed(_) | CreateOutcome::Unknown(_)) {
            self.note_store(id, Ill::Failed);
        }
        let now = self.now;
        let before = self.reign_of(id);
        if is_slot && let Some(process) = self.processes.get_mut(&id) {
            match &outcome {
                CreateOutcome::Unknown(_) => process.unknown = Some(name),
                CreateOutcome::Exists if before.is_none() => self.hit(Mark::ClaimLost),
                CreateOutcome::Exists | CreateOutcome::Created | CreateOutcome::Failed(_) => {}
            }
        }
        self.with_driver(id, |driver| driver.handle_created(now, token, outcome));
        self.mark_epoch(id, before);
    }

    /// What the store has done to a process: it may refuse the log for it, even after the faults have stopped.
    fn note_store(&mut self, id: ProcessId, ill: Ill) {
        if let Some(process) = self.processes.get_mut(&id) {
            match ill {
                Ill::Failed => process.store_failed = true,
                Ill::Damaged => process.store_damaged = true,
            }
        }
    }

    fn reign_of(&self, id: ProcessId) -> Option<cutwater_core::Epoch> {
        self.processes.get(&id).and_then(|process| process.driver.coordinator().epoch())
    }

    /// Whether a contested slot has raised the epoch of a living process.
    fn mark_epoch(&mut self, id: ProcessId, before: Option<cutwater_core::Epoch>) {
        if before.is_some() && self.reign_of(id) > before {
            self.hit(Mark::EpochByContest);
            self.hit(Mark::UnknownLost);
        }
    }

    /// What the caller hears, and whether the object is there now and was not before.
    fn create_object(&mut self, id: ProcessId, name: &str, bytes: &[u8]) -> (CreateOutcome, bool) {
        let step = if name.starts_with("log/") { "object.create-record" } else { "object.create-boundary" };
        if let Err(error) = self.shared.step(id, step) {
            return match self.shared.is_dead(id) {
                // It was sent before the process died, or it was not.
                true => {
                    self.late.push(LateOp::Create { name: name.to_owned(), bytes: bytes.to_vec() });
                    (CreateOutcome::Unknown(error.to_string()), false)
                }
                false => (CreateOutcome::Failed(error.to_string()), false),
            };
        }
        if self.is(Mutant::NoFence) && self.objects.contains(name) {
            self.objects.overwrite(name, bytes.to_vec());
            return (CreateOutcome::Created, true);
        }
        match self.fate(id) {
            Fate::Fails => (CreateOutcome::Failed("the store says no".to_owned()), false),
            Fate::Late => {
                self.late.push(LateOp::Create { name: name.to_owned(), bytes: bytes.to_vec() });
                (CreateOutcome::Unknown("no answer in time".to_owned()), false)
            }
            fate @ (Fate::Done | Fate::AnswerLost) => {
                let created = self.objects.create(name, bytes.to_vec());
                match (fate, created) {
                    (Fate::AnswerLost, created) => (CreateOutcome::Unknown("the answer was lost".to_owned()), created),
                    (_, true) => (CreateOutcome::Created, true),
                    (_, false) => (CreateOutcome::Exists, false),
                }
            }
        }
    }

    fn create_in_folder(&mut self, id: ProcessId, name: &str, bytes: &[u8]) -> (CreateOutcome, bool) {
        let Some(process) = self.processes.get(&id) else { return (CreateOutcome::Failed(String::new()), false) };
        let Ok(object) = ObjectName::parse(name) else {
            return (CreateOutcome::Failed("a name that no store can have".to_owned()), false);
        };
        let before = self.raw_folder.open(&object).ok().flatten().is_some();
        let outcome = match process.folder.create(&object, bytes) {
            Ok(()) => CreateOutcome::Created,
            Err(CreateError::Exists) => CreateOutcome::Exists,
            Err(CreateError::Failed { source }) => CreateOutcome::Failed(source.to_string()),
            Err(CreateError::Unknown { source }) => CreateOutcome::Unknown(source.to_string()),
        };
        let after = self.raw_folder.open(&object).ok().flatten().is_some();
        (outcome, after && !before)
    }

    fn answer_read(&mut self, id: ProcessId, token: Token, name: &str) {
        let faults = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            shared.choices.fault(&[if self.config.object_store { r.store_fails } else { 0 }, r.corrupt_read])
        };
        let result = match faults {
            1 => {
                self.shared.lock().marks.fault("store_fails");
                self.note_store(id, Ill::Failed);
                Err("the store does not answer".to_owned())
            }
            _ => {
                let mut bytes = self.raw_read(name);
                if let (2, Some(bytes)) = (faults, &mut bytes) {
                    self.shared.lock().marks.fault("corrupt_read");
                    self.note_store(id, Ill::Damaged);
                    self.damage(bytes);
                }
                Ok(bytes)
            }
        };
        self.tell(Entity::Store, || {
            let found = result.as_ref().map(|bytes| bytes.as_ref().map(Vec::len));
            format!("process {id} reads {name}: {found:?} bytes")
        });
        let (now, before) = (self.now, self.reign_of(id));
        self.with_driver(id, |driver| driver.handle_read(now, token, result));
        self.mark_epoch(id, before);
    }

    /// Flips a bit.
    pub(super) fn damage(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.shared.lock().choices.below(bytes.len());
            bytes[at] ^= 1 << (at % 8);
        }
    }

    fn answer_delete(&mut self, id: ProcessId, token: Token, names: Vec<String>) {
        let result = match self.config.object_store {
            true => self.delete_objects(id, names.clone()),
            false => self.delete_in_folder(id, &names),
        };
        if result.is_err() {
            self.hit(Mark::DeleteFailed);
            // It is tried again after the next checkpoint or at the next start, and there may be neither.
            self.oracle.excused.extend(names);
        }
        let now = self.now;
        self.with_driver(id, |driver| driver.handle_deleted(now, token, result));
    }

    fn delete_objects(&mut self, id: ProcessId, names: Vec<String>) -> Result<(), String> {
        if let Err(error) = self.shared.step(id, "object.delete") {
            if self.shared.is_dead(id) {
                self.late.push(LateOp::Delete { names });
            }
            return Err(error.to_string());
        }
        match self.fate(id) {
            Fate::Fails => {
                // Some of many may be gone all the same.
                let half = names.len() / 2;
                names[..half].iter().for_each(|name| self.delete(name));
                Err("the store says no".to_owned())
            }
            Fate::AnswerLost => {
                names.iter().for_each(|name| self.delete(name));
                Err("the answer was lost".to_owned())
            }
            Fate::Late => {
                self.late.push(LateOp::Delete { names });
                Err("no answer in time".to_owned())
            }
            Fate::Done => {
                names.iter().for_each(|name| self.delete(name));
                Ok(())
            }
        }
    }

    fn delete(&mut self, name: &str) {
        if self.objects.delete(name) {
            self.oracle.deleted(name);
            self.tell(Entity::Store, || format!("{name} is deleted"));
        }
    }

    fn delete_in_folder(&mut self, id: ProcessId, names: &[String]) -> Result<(), String> {
        for name in names {
            let Some(process) = self.processes.get(&id) else { return Ok(()) };
            let object = ObjectName::parse(name).map_err(|error| error.to_string())?;
            let there = self.raw_folder.open(&object).ok().flatten().is_some();
            let deleted = process.folder.delete(&object).map_err(|error| error.to_string());
            if there && self.raw_folder.open(&object).ok().flatten().is_none() {
                self.oracle.deleted(name);
                self.tell(Entity::Store, || format!("{name} is deleted"));
            }
            deleted?;
        }
        Ok(())
    }

    fn answer_list(&mut self, id: ProcessId, token: Token, prefix: &str) {
        let stale = {
            let mut shared = self.shared.lock();
            let rate = if self.config.object_store { shared.rates.stale_list } else { 0 };
            let stale = shared.choices.strikes(rate);
            if stale {
                shared.marks.fault("stale_list");
                shared.marks.hit(Mark::StaleListing);
            }
            stale
        };
        let mut names = if self.config.object_store {
            self.objects.list(prefix, stale)
        } else {
            let listed = self.raw_folder.list(prefix).unwrap_or_default();
            listed.into_iter().map(|listed| listed.name.as_str().to_owned()).collect()
        };
        if stale {
            // What the listing does not show is nobody's fault when it stays.
            let all: Vec<String> = self.oracle.files.iter().filter(|name| !names.contains(*name)).cloned().collect();
            self.oracle.excused.extend(all);
        }
        if self.is(Mutant::OrphansKept) {
            names.clear();
        }
        let now = self.now;
        self.tell(Entity::Store, || format!("process {id} lists {prefix}: {} names", names.len()));
        self.with_driver(id, |driver| driver.handle_listed(now, token, Ok(names)));
    }

    /// Something that nobody waits for any more comes to be, or never will.
    pub(super) fn land_late(&mut self) {
        let at = self.shared.lock().choices.below(self.late.len());
        let op = self.late.swap_remove(at);
        if self.shared.lock().choices.below(2) == 0 {
            return;
        }
        match op {
            LateOp::Create { name, bytes } => {
                let created = match self.is(Mutant::NoFence) {
                    true => {
                        self.objects.overwrite(&name, bytes.clone());
                        true
                    }
                    false => self.objects.create(&name, bytes.clone()),
                };
                self.tell(Entity::Store, || format!("{name} lands late: {created}"));
                let is_slot = name.starts_with("log/");
                if created {
                    self.oracle.created(&name, &bytes);
                    if name.starts_with("chk/") && !self.oracle.unawaited.contains(&name) {
                        self.oracle.excused.insert(name);
                    }
                }
                if created && is_slot && self.oracle.finished {
                    self.oracle.nobody_comes_back();
                }
                if created && is_slot && self.oracle.lets_go() && self.oracle.finished {
                    self.oracle.excuse_all(); // whoever wrote it may be dead, and nobody comes back for the files
                }
                match (is_slot, created) {
                    (true, true) => self.hit(Mark::RecordLandsLate),
                    (true, false) => self.hit(Mark::RecordTooLate),
                    (false, _) => {}
                }
            }
            LateOp::Delete { names } => names.iter().for_each(|name| self.delete(name)),
        }
    }
}
