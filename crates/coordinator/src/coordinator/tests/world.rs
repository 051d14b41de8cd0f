//! Two processes race for one job over a store that fails, forgets to answer and answers late; both crash at will.
//! Everything follows from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use cutwater_core::{Barrier, Epoch, MaxParallelism, OperatorUid, TaskId};

use super::super::*;
use crate::log::record::{Body, Completed, Record};
use crate::{FileRef, OpenError, Phases, PlanInput, TaskPlan, snapshot_name};

const SLOTS_PER_BOUNDARY: u64 = 4;
const JOB: &str = "race";

struct Dice(u64);

impl Dice {
    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(n).unwrap()).unwrap()
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// A question to the store that is out.
#[derive(Debug)]
enum Op {
    Create(Token, String, Vec<u8>),
    Read(Token, String),
    Delete(Token, Vec<String>),
    /// With what there was when it was asked.
    List(Token, Vec<String>),
}

#[derive(Debug)]
struct Process {
    coordinator: Coordinator,
    ops: Vec<Op>,
    attempt: u32,
    wants_attempt: bool,
    barriers: Vec<Barrier>, // of the checkpoints that tasks are taking
    superseded: bool,
    over: bool,
    ended: usize,
    copies: BTreeSet<RequestId>,               // asked for
    copying: BTreeMap<RequestId, Vec<String>>, // files of the checkpoints that answered
}

/// How often something interesting happened.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marks(BTreeMap<&'static str, u64>);

impl Marks {
    fn hit(&mut self, mark: &'static str) {
        *self.0.entry(mark).or_default() += 1;
    }
}

struct World {
    seed: u64,
    dice: Dice,
    now: Moment,
    store: BTreeMap<String, Vec<u8>>,
    files: BTreeSet<String>,
    late: Vec<Op>, // of the dead, and those whose caller was told "unknown": may take effect at any time
    history: Vec<Record>, // every record that ever held its slot, by slot
    processes: [Option<Process>; 2],
    nonce: u64,
    retain: u32,
    concurrent: u32,
    faults: bool,
    marks: Marks,
}

fn plan() -> Plan {
    let task = |task, inputs| TaskPlan {
        task: TaskId(task),
        name: format!("task {task}"),
        operators: vec![OperatorUid::new(&format!("operator-{task}")).unwrap()],
        parallelism: 2,
        inputs,
    };
    Plan { tasks: vec![task(0, vec![]), task(1, vec![PlanInput { from: TaskId(0), pointwise: false }])] }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let retain = 1 + u32::try_from(dice.below(3)).unwrap();
        let concurrent = 1 + u32::try_from(dice.below(3)).unwrap();
        Self {
            seed,
            dice,
            now: Moment::ZERO,
            store: BTreeMap::new(),
            files: BTreeSet::new(),
            late: Vec::new(),
            history: Vec::new(),
            processes: [None, None],
            nonce: 0,
            retain,
            concurrent,
            faults: true,
            marks: Marks::default(),
        }
    }

    fn step(&mut self) {
        let who = self.dice.below(2);
        match self.dice.below(100) {
            _ if self.processes[who].is_none() => self.start(who),
            0 if self.faults && self.dice.percent(50) => self.crash(who),
            1..5 => self.land_late(),
            5..45 => self.answer(who),
            45..55 => self.pass_time(who),
            _ => self.work(who),
        }
    }

    fn start(&mut self, who: usize) {
        self.nonce += 1;
        let settings = Settings {
            interval: Some(Duration::from_millis(20)),
            timeout: Duration::from_millis(500),
            tolerable_failures: 2,
            num_retained: NonZeroU32::new(self.retain).unwrap(),
            max_concurrent: NonZeroU32::new(self.concurrent).unwrap(),
            ..Settings::default()
        };
        let job = Job { name: JOB.to_owned(), max_parallelism: MaxParallelism::default() };
        let mut coordinator = Coordinator::new(settings, job, self.nonce);
        coordinator.set_slots_per_boundary(SLOTS_PER_BOUNDARY);
        coordinator.handle_open(self.now, RestoreFrom::Latest);
        self.processes[who] = Some(Process {
            coordinator,
            ops: Vec::new(),
            attempt: 0,
            wants_attempt: false,
            barriers: Vec::new(),
            superseded: false,
            over: false,
            ended: 0,
            copies: BTreeSet::new(),
            copying: BTreeMap::new(),
        });
        self.drain(who);
    }

    fn crash(&mut self, who: usize) {
        if let Some(process) = self.processes[who].take() {
            self.marks.hit("crash");
            if process.coordinator.in_flight().any(|pending| pending.finalizing) {
                self.marks.hit("crash with a record on its way");
            }
            self.late.extend(process.ops);
        }
    }

    fn land_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let op = self.late.remove(self.dice.below(self.late.len()));
        if self.faults && self.dice.percent(50) {
            return; // never takes effect
        }
        match op {
            Op::Create(_, name, bytes) => {
                if self.create(&name, &bytes) {
                    self.marks.hit("a create lands late");
                }
            }
            Op::Delete(_, names) => self.delete(&names),
            Op::Read(..) | Op::List(..) => {}
        }
    }

    /// Carries out one question of the process and answers it, as badly as the dice say.
    fn answer(&mut self, who: usize) {
        let faulty = self.faults && self.dice.percent(15);
        let fault = self.dice.below(3);
        let Some(process) = &mut self.processes[who] else { return };
        if process.ops.is_empty() {
            return;
        }
        let op = process.ops.remove(self.dice.below(process.ops.len()));
        match op {
            Op::Create(token, name, bytes) => {
                let outcome = match (faulty, fault) {
                    (false, _) if self.create(&name, &bytes) => CreateOutcome::Created,
                    (false, _) => CreateOutcome::Exists,
                    (true, 0) => CreateOutcome::Failed("full".to_owned()),
                    (true, 1) => {
                        self.create(&name, &bytes);
                        CreateOutcome::Unknown("answer lost".to_owned())
                    }
                    (true, _) => {
                        self.late.push(Op::Create(token, name, bytes));
                        CreateOutcome::Unknown("timed out".to_owned())
                    }
                };
                self.tell(who, |coordinator, now| coordinator.handle_created(now, token, outcome));
            }
            Op::Read(token, name) => {
                let result = if faulty { Err("unreachable".to_owned()) } else { Ok(self.store.get(&name).cloned()) };
                self.tell(who, |coordinator, now| coordinator.handle_read(now, token, result));
            }
            Op::Delete(token, names) => {
                let result = if faulty {
                    self.delete(&names[..names.len() / 2]);
                    self.late.push(Op::Delete(token, names));
                    Err("slow down".to_owned())
                } else {
                    self.delete(&names);
                    Ok(())
                };
                self.tell(who, |coordinator, now| coordinator.handle_deleted(now, token, result));
            }
            Op::List(token, asked) => {
                let now: Vec<String> = self.files.iter().cloned().collect();
                let result = match (faulty, fault) {
                    (false, _) => Ok(now),
                    (true, 0) => Err("unreachable".to_owned()),
                    (true, 1) => Ok(asked),
                    (true, _) => Ok(now[now.len() / 2..].to_vec()),
                };
                self.tell(who, |coordinator, now| coordinator.handle_listed(now, token, result));
            }
        }
    }

    fn pass_time(&mut self, who: usize) {
        self.now = self.now + Duration::from_millis(1 + self.dice.roll() % 20);
        if let Some(deadline) = self.process(who).coordinator.next_deadline().filter(|_| self.dice.percent(10)) {
            self.now = self.now.max(deadline);
        }
        self.tell(who, Coordinator::handle_timeout);
        let (now, deadline) = (self.now, self.process(who).coordinator.next_deadline());
        assert!(deadline.is_none_or(|deadline| deadline > now), "seed {}: a deadline that stays", self.seed);
    }

    /// The tasks of the process do something.
    fn work(&mut self, who: usize) {
        let chance = self.dice.below(if self.faults { 80 } else { 60 });
        let faults = self.faults;
        let subtasks: Vec<SubtaskId> = plan().subtasks().collect();
        let mut any = subtasks[self.dice.below(subtasks.len())];
        let useful = self.dice.percent(80);
        let older = self.dice.percent(60);
        let process = self.process(who);
        let in_flight = &process.coordinator.pending;
        let pending = if older { in_flight.first() } else { in_flight.last() };
        let barrier = pending.map_or(process.barriers.last().copied(), |pending| Some(pending.barrier));
        let waiting = pending.and_then(|pending| pending.waiting().first());
        any = waiting.copied().filter(|_| useful).unwrap_or(any);
        let attempt = Attempt(process.attempt);
        let copying = process.copying.keys().next().copied();
        let copied = copying.filter(|_| !faults || (74..78).contains(&chance));
        if process.over {
            self.processes[who] = None;
        } else if process.wants_attempt {
            process.wants_attempt = false;
            process.attempt += 1;
            process.ended = 0;
            let attempt = Attempt(process.attempt);
            self.tell(who, |coordinator, now| coordinator.handle_running(now, attempt, plan()));
        } else if attempt.0 == 0 {
            // still opening
        } else if let (Some(barrier), 50..60) = (barrier, chance) {
            let checkpoint = barrier.checkpoint;
            self.tell(who, |coordinator, now| coordinator.handle_swept(now, barrier.attempt, checkpoint, any));
        } else if let (Some(barrier), 0..50) = (barrier, chance) {
            let name = snapshot_name(barrier, any);
            let file = FileRef::stored(name.clone(), 1, 0);
            // A task uploads a part once; what comes later is an acknowledgement that comes twice.
            if pending.is_some_and(|pending| pending.waiting().contains(&any)) {
                self.files.insert(name);
            }
            let mut files = self.chain(barrier, any);
            files.push(file);
            let phases = Phases::default();
            let snapshot = SubtaskSnapshot { subtask: any, files, inline: vec![], phases, state_bytes: 1 };
            self.tell(who, |coordinator, now| {
                coordinator.handle_ack(now, barrier.attempt, barrier.checkpoint, snapshot);
            });
        } else if let (Some(barrier), 62) = (barrier, chance) {
            // Uploaded, and before it is acknowledged the process dies.
            self.files.insert(snapshot_name(barrier, any));
            self.crash(who);
        } else if let (Some(barrier), 60..62) = (barrier, chance) {
            self.tell(who, |coordinator, now| {
                let reason = "no space".to_owned();
                coordinator.handle_decline(now, barrier.attempt, barrier.checkpoint, any, reason, true);
            });
        } else if (63..65).contains(&chance) {
            self.fail_over(who);
        } else if (66..69).contains(&chance) {
            let purpose = if chance == 66 { Purpose::Checkpoint } else { Purpose::Copy };
            let now = self.now;
            let process = self.process(who);
            let request = process.coordinator.handle_request(now, purpose);
            if purpose == Purpose::Copy {
                process.copies.insert(request);
            }
            self.drain(who);
        } else if let Some(request) = copied {
            process.copying.remove(&request);
            self.tell(who, |coordinator, now| coordinator.handle_copied(now, request));
        } else if (69..73).contains(&chance) && process.ended < subtasks.len() {
            let subtask = subtasks[process.ended];
            process.ended += 1;
            self.tell(who, |coordinator, now| coordinator.handle_end_of_data(now, attempt, subtask));
        } else if chance == 73 {
            self.tell(who, |coordinator, now| coordinator.handle_end(now, Outcome::Canceled));
        }
    }

    /// The files that the subtask's snapshot builds on: those of the barrier's base, or none.
    fn chain(&mut self, barrier: Barrier, subtask: SubtaskId) -> Vec<FileRef> {
        let full = self.dice.percent(30);
        let Some(base) = barrier.base.filter(|_| !full) else { return Vec::new() };
        let mut checkpoints = self.history.iter().filter_map(completed).map(|completed| &completed.checkpoint);
        let base = checkpoints.find(|checkpoint| checkpoint.checkpoint == base).expect("a base is complete");
        let mut parts = base.tasks.iter().flat_map(|task| &task.subtasks);
        let files = parts.find(|part| part.subtask == subtask).map_or_else(Vec::new, |part| part.files.clone());
        self.marks.hit("builds on another");
        files
    }

    fn fail_over(&mut self, who: usize) {
        self.process(who).barriers.clear();
        self.tell(who, Coordinator::handle_failover);
    }

    fn process(&mut self, who: usize) -> &mut Process {
        self.processes[who].as_mut().expect("it runs")
    }

    fn tell(&mut self, who: usize, input: impl FnOnce(&mut Coordinator, Moment)) {
        let now = self.now;
        input(&mut self.process(who).coordinator, now);
        self.drain(who);
    }

    fn drain(&mut self, who: usize) {
        let (seed, faults) = (self.seed, self.faults);
        let files = |world: &Self| world.files.iter().cloned().collect();
        while let Some(action) = self.process(who).coordinator.poll_action() {
            let process = self.process(who);
            assert!(!process.over, "seed {seed}: {action:?} after the end");
            match action {
                Action::Create { token, name, bytes } => process.ops.push(Op::Create(token, name, bytes)),
                Action::Read { token, name, .. } => process.ops.push(Op::Read(token, name)),
                Action::Delete { token, names } => {
                    let copied = process.copying.values().flatten().find(|name| names.contains(name));
                    assert_eq!(copied, None, "seed {seed}: deleted while it is copied");
                    process.ops.push(Op::Delete(token, names));
                }
                Action::List { token, .. } => {
                    let asked = files(self);
                    self.process(who).ops.push(Op::List(token, asked));
                }
                Action::Opened { epoch, restore, discarded: _ } => {
                    process.wants_attempt = true;
                    self.check_restore(epoch, true, restore.as_deref());
                    self.marks.hit(if restore.is_some() { "opened with a checkpoint" } else { "opened empty" });
                }
                Action::Restore { restore } => {
                    process.wants_attempt = true;
                    let epoch = process.coordinator.epoch().expect("open");
                    self.check_restore(epoch, false, restore.as_deref());
                }
                Action::Trigger { barrier, .. } => {
                    process.barriers.push(barrier);
                    if process.coordinator.in_flight().count() > 1 {
                        self.marks.hit("two in flight");
                    }
                }
                Action::Drain => panic!("seed {seed}: nobody asked for it"),
                Action::NotifyCompleted { checkpoint, requests } => {
                    for request in requests.into_iter().filter(|request| process.copies.remove(request)) {
                        process.copying.insert(request, checkpoint.files().map(|file| file.name.clone()).collect());
                    }
                    let holds = |names: &Vec<String>| !checkpoint.files().any(|file| names.contains(&file.name));
                    let outlives = process.copying.values().any(holds);
                    if outlives {
                        self.marks.hit("copied after it was subsumed");
                    }
                    let process = self.process(who);
                    assert!(!process.superseded, "seed {seed}: completed after superseded");
                    let slot = usize::try_from(checkpoint.slot).unwrap();
                    let known = completed(&self.history[slot]).map(|completed| &completed.checkpoint);
                    assert_eq!(known, Some(&*checkpoint), "seed {seed}: completed and not in the log");
                    self.marks.hit("completed");
                }
                Action::NotifyAborted { reason, .. } => self.marks.hit(match reason {
                    AbortReason::Finalize { reason } if reason.contains("did not say") => "unknown, lost",
                    AbortReason::Finalize { .. } => "record failed",
                    AbortReason::Expired { .. } => "expired",
                    AbortReason::Subsumed { .. } => "overtaken",
                    AbortReason::NewReign { .. } => "of an old reign",
                    _ => "aborted otherwise",
                }),
                Action::RequestFailed { .. } => {}
                Action::FailJob(_) => {
                    self.marks.hit("fail job");
                    self.fail_over(who);
                }
                Action::AllDone => {
                    self.marks.hit("all done");
                    // A job that has finished would end the race: cancel it, so that the next process resumes.
                    self.tell(who, |coordinator, now| coordinator.handle_end(now, Outcome::Canceled));
                }
                Action::Superseded { .. } => {
                    (process.superseded, process.over) = (true, true);
                    self.marks.hit("superseded");
                }
                Action::Closed { unrecorded } => {
                    process.over = true;
                    self.marks.hit(if unrecorded.is_some() { "closed unrecorded" } else { "closed" });
                }
                Action::Refused(OpenError::Storage { .. }) if faults => process.over = true,
                Action::Refused(_) | Action::AlreadyFinished { .. } | Action::FellBack { .. } => {
                    panic!("seed {seed}: {action:?}")
                }
            }
        }
    }

    /// Whatever is restored is the newest checkpoint that the reign can know of.
    fn check_restore(&self, epoch: Epoch, opening: bool, restore: Option<&CompletedCheckpoint>) {
        let known = |record: &&Record| if opening { record.epoch < epoch } else { record.epoch <= epoch };
        let newest = self.history.iter().filter(known).filter_map(completed).next_back();
        assert_eq!(restore, newest.map(|completed| &completed.checkpoint), "seed {}: restore", self.seed);
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> bool {
        if self.store.contains_key(name) {
            return false;
        }
        if let Some(slot) = name.strip_prefix("log/") {
            let slot: u64 = slot.parse().unwrap();
            if self.boundary() * SLOTS_PER_BOUNDARY > slot {
                self.marks.hit("a record lands below the boundary");
            } else {
                self.check_record(Record::decode(name, bytes, slot, JOB).unwrap());
            }
        } else {
            let boundary: u64 = name.strip_prefix("boundary/").unwrap().parse().unwrap();
            assert_eq!(boundary, self.boundary() + 1, "seed {}: boundaries have no gaps", self.seed);
            self.marks.hit("boundary moved");
        }
        self.store.insert(name.to_owned(), bytes.to_vec());
        true
    }

    fn boundary(&self) -> u64 {
        u64::try_from(self.store.range("boundary/".to_owned().."boundary0".to_owned()).count()).unwrap()
    }

    fn check_record(&mut self, record: Record) {
        let seed = self.seed;
        assert_eq!(record.slot, u64::try_from(self.history.len()).unwrap(), "seed {seed}: slots have no gaps");
        let reign = self.history.last().map_or(Epoch(0), |last| last.epoch);
        match &record.body {
            Body::Claim(_) => assert!(record.epoch > reign, "seed {seed}: a claim of an epoch that was"),
            Body::Completed(_) | Body::Ended(_) | Body::Discarded(_) => {
                assert_eq!(record.epoch, reign, "seed {seed}: a record of a reign that is over");
            }
        }
        if let Some(new) = completed(&record) {
            let before = self.history.iter().filter_map(completed).next_back();
            let before = before.map(|before| before.checkpoint.checkpoint);
            assert!(Some(new.checkpoint.checkpoint) > before, "seed {seed}: a number used twice");
            assert!(new.retained.len() < usize::try_from(self.retain).unwrap(), "seed {seed}: too many retained");
        }
        self.history.push(record);
        self.check_retained();
    }

    fn delete(&mut self, names: &[String]) {
        for name in names {
            if let Some(slot) = name.strip_prefix("log/") {
                let slot: u64 = slot.parse().unwrap();
                assert!(slot < self.boundary() * SLOTS_PER_BOUNDARY, "seed {}: {slot} above the boundary", self.seed);
                self.store.remove(name);
                self.marks.hit("slot deleted");
            } else {
                assert!(name.starts_with("chk/"), "seed {}: {name} is not ours to delete", self.seed);
                if self.files.remove(name) && !self.history.iter().any(|record| is_named_by(name, record)) {
                    self.marks.hit("file without a record deleted");
                }
            }
        }
        self.check_retained();
    }

    /// Nothing that a retained record needs is gone.
    fn check_retained(&self) {
        let Some(newest) = self.history.iter().filter_map(completed).next_back() else { return };
        for slot in newest.retained.iter().copied().chain([newest.checkpoint.slot]) {
            let kept = completed(&self.history[usize::try_from(slot).unwrap()]).expect("a checkpoint is retained");
            let is_new = self.history.last().is_some_and(|last| last.slot == slot);
            let there = is_new || self.store.contains_key(&format!("log/{slot:020}"));
            assert!(there, "seed {}: the retained record in slot {slot} is gone", self.seed);
            for file in kept.checkpoint.files() {
                assert!(self.files.contains(&file.name), "seed {}: {} is retained and gone", self.seed, file.name);
            }
        }
    }

    /// The faults stop: one process must open, complete some checkpoints and leave nothing of the subsumed ones.
    fn heal(&mut self) {
        self.crash(1);
        while !self.late.is_empty() {
            self.land_late();
        }
        self.faults = false;
        let target = self.history.iter().filter(|record| completed(record).is_some()).count() + 3;
        for _ in 0..5000 {
            let count = self.history.iter().filter(|record| completed(record).is_some()).count();
            if count >= target && self.process_is_quiet() {
                self.check_leftovers();
                return self.check_orphans();
            }
            let work = self.dice.below(3);
            match (&self.processes[0], work) {
                (None, _) => self.start(0),
                (Some(_), 0) => self.answer(0),
                (Some(_), 1) => self.work(0),
                (Some(_), _) => self.pass_time(0),
            }
        }
        panic!("seed {}: no checkpoint completes though all is well", self.seed);
    }

    /// Whoever starts next leaves nothing that no record names.
    fn check_orphans(&mut self) {
        self.crash(0);
        self.start(0);
        while !self.process_is_quiet() {
            self.answer(0);
        }
        let orphan = self.files.iter().find(|file| !self.history.iter().any(|record| is_named_by(file, record)));
        assert_eq!(orphan, None, "seed {}: a file without a record is left", self.seed);
    }

    fn process_is_quiet(&self) -> bool {
        self.processes[0].as_ref().is_some_and(|process| process.ops.is_empty() && process.copying.is_empty())
    }

    fn check_leftovers(&self) {
        let newest = self.history.iter().filter_map(completed).next_back().expect("three were completed");
        for record in &self.history {
            let Some(old) = completed(record).filter(|old| old.checkpoint.slot < newest.checkpoint.slot) else {
                continue;
            };
            if !newest.retained.contains(&old.checkpoint.slot) {
                let kept = |slot: &u64| completed(&self.history[usize::try_from(*slot).unwrap()]);
                // And what those in flight build on.
                let in_flight = self.processes[0].iter().flat_map(|process| &process.coordinator.pending);
                let built_on: BTreeSet<_> = in_flight.filter_map(|pending| pending.barrier.base).collect();
                let bases = self.history.iter().filter_map(completed);
                let bases = bases.filter(|completed| built_on.contains(&completed.checkpoint.checkpoint));
                let kept: Vec<_> = newest.retained.iter().filter_map(kept).chain([newest]).chain(bases).collect();
                let needed = |file: &&FileRef| kept.iter().any(|kept| kept.checkpoint.files().any(|own| own == *file));
                let left = old.checkpoint.files().find(|file| !needed(file) && self.files.contains(&file.name));
                assert_eq!(left, None, "seed {}: a file of a subsumed checkpoint is left", self.seed);
            }
        }
    }
}

fn completed(record: &Record) -> Option<&Completed> {
    match &record.body {
        Body::Completed(completed) => Some(completed),
        Body::Claim(_) | Body::Ended(_) | Body::Discarded(_) => None,
    }
}

/// Whether the record is that of a checkpoint with this file.
fn is_named_by(file: &str, record: &Record) -> bool {
    completed(record).is_some_and(|completed| completed.checkpoint.files().any(|named| named.name == file))
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..1500 {
        world.step();
    }
    world.heal();
    world
}

#[test]
fn whatever_fails_no_two_coordinators_disagree_and_nothing_needed_is_lost() {
    let mut marks = Marks::default();
    // The last one met a record of the dead in a slot that had been deleted.
    for seed in (0..300).chain([2518]) {
        for (mark, count) in run(seed).marks.0 {
            *marks.0.entry(mark).or_default() += count;
        }
    }
    for mark in [
        "a create lands late",
        "a record lands below the boundary",
        "all done",
        "boundary moved",
        "builds on another",
        "closed",
        "completed",
        "copied after it was subsumed",
        "crash with a record on its way",
        "expired",
        "fail job",
        "file without a record deleted",
        "opened empty",
        "opened with a checkpoint",
        "overtaken",
        "record failed",
        "slot deleted",
        "superseded",
        "two in flight",
        "unknown, lost",
    ] {
        assert!(marks.0.contains_key(mark), "never came about: {mark}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (run(7), run(7));
    assert_eq!((first.history, first.files, first.marks), (second.history, second.files, second.marks));
}
