//! Which events are possible, which one comes next, and who performs it.

use std::time::Duration;

use cutwater_core::Moment;

use super::World;
use crate::config::Search;
use crate::marks::Mark;
use crate::process::Applying;
use crate::random::Random;
use crate::shared::{ProcessId, Rule};

/// Something that can happen now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Run(ProcessId, usize),
    Deliver(ProcessId, usize),
    Credit(ProcessId, usize),
    Net(ProcessId),
    Written(ProcessId),
    Upload(ProcessId),
    Apply(ProcessId),
    Op(ProcessId),
    Start(ProcessId),
    Stop(ProcessId),
    Commit(ProcessId),
    Copy(ProcessId),
    Timer(ProcessId),
    Wake(ProcessId),
    Late,
}

/// Who does it: the unit of priorities and of the columns of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entity {
    World,
    Store,
    Driver(ProcessId),
    Node(ProcessId, u32),
    Channel(ProcessId, u32),
    Net(ProcessId),
    Io(ProcessId),
    Tier(ProcessId),
}

impl Entity {
    pub(crate) fn process(self) -> Option<ProcessId> {
        match self {
            Self::World | Self::Store => None,
            Self::Driver(id)
            | Self::Node(id, _)
            | Self::Channel(id, _)
            | Self::Net(id)
            | Self::Io(id)
            | Self::Tier(id) => Some(id),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::World => "world".to_owned(),
            Self::Store => "store".to_owned(),
            Self::Driver(id) => format!("p{id}"),
            Self::Node(id, at) => format!("p{id} node {at}"),
            Self::Channel(id, at) => format!("p{id} channel {at}"),
            Self::Net(id) => format!("p{id} net"),
            Self::Io(id) => format!("p{id} io"),
            Self::Tier(id) => format!("p{id} tier"),
        }
    }
}

impl Event {
    fn entity(self) -> Entity {
        match self {
            Self::Run(process, node) => Entity::Node(process, node as u32),
            Self::Deliver(process, channel) => Entity::Channel(process, channel as u32),
            Self::Credit(process, channel) => Entity::Channel(process, 1 << 16 | channel as u32),
            Self::Net(process) => Entity::Net(process),
            Self::Written(process) | Self::Upload(process) | Self::Copy(process) => Entity::Io(process),
            Self::Apply(process) => Entity::Tier(process),
            Self::Op(_) | Self::Late => Entity::Store,
            Self::Start(process)
            | Self::Stop(process)
            | Self::Commit(process)
            | Self::Timer(process)
            | Self::Wake(process) => Entity::Driver(process),
        }
    }
}

/// What the clock may move by in one step, in microseconds.
const TICKS: [u64; 8] = [0, 5, 10, 20, 30, 40, 60, 200];
/// The same once the faults have stopped: slowly, so that even the shortest timeout leaves time for a checkpoint.
const CALM_TICKS: [u64; 2] = [0, 1];

impl World<'_> {
    /// One thing happens.
    pub(super) fn step(&mut self) {
        self.steps += 1;
        match self.healed_at {
            None if self.steps >= self.config.fault_steps || self.oracle.finished => self.heal(),
            Some(at) if self.steps > at + self.config.healed_steps => {
                let state = self.describe();
                return self.violated(Rule::Live, || format!("the job does not end after the faults: {state}"));
            }
            _ => {}
        }
        let ticks: &[u64] = if self.is_healed() { &CALM_TICKS } else { &TICKS };
        let tick = ticks[self.shared.lock().choices.below(ticks.len())];
        self.now = self.now + Duration::from_micros(tick);
        if self.processes.is_empty() {
            if self.oracle.finished && self.is_healed() && self.late.is_empty() {
                self.over = true;
                return;
            }
            self.start_process();
        }
        self.meddle();
        if self.clear_dead() {
            return;
        }
        self.remove_ended();
        if self.processes.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        self.list_events(&mut events);
        if events.is_empty() {
            self.wait();
        } else {
            let event = events[self.choose(&events)];
            self.shared.lock().choices.note(event_number(event));
            self.perform(event);
            self.look_whether_stored();
            self.look_at_disk();
            self.clear_dead();
            self.remove_ended();
        }
        self.events = events;
    }

    fn list_events(&mut self, events: &mut Vec<Event>) {
        let now = self.now;
        for (&id, process) in &mut self.processes {
            if let Some(until) = process.paused_until {
                if until <= now {
                    events.push(Event::Wake(id));
                }
                continue;
            }
            if let Some(running) = &mut process.running {
                for (at, node) in running.nodes.iter_mut().enumerate().filter(|(_, node)| !node.failed) {
                    node.busy |= node.deadline.is_some_and(|deadline| deadline <= now);
                    if node.busy {
                        events.push(Event::Run(id, at));
                    }
                }
                for (at, channel) in running.channels.iter().enumerate() {
                    if !channel.elements.is_empty() && !channel.stuck {
                        events.push(Event::Deliver(id, at));
                    }
                    if !channel.credits.is_empty() {
                        events.push(Event::Credit(id, at));
                    }
                }
            }
            let some = [
                (!process.net.is_empty(), Event::Net(id)),
                (!process.written.is_empty(), Event::Written(id)),
                (process.uploads.iter().any(|upload| upload.stalled_until <= now), Event::Upload(id)),
                (process.stalled_until <= now && process.applying.iter().any(Applying::is_ready), Event::Apply(id)),
                (!process.ops.is_empty(), Event::Op(id)),
                (process.starting.is_some(), Event::Start(id)),
                (process.stopping.is_some(), Event::Stop(id)),
                (process.commit.is_some(), Event::Commit(id)),
                (!process.copies.is_empty(), Event::Copy(id)),
                (process.deadline.is_some_and(|deadline| deadline <= now), Event::Timer(id)),
            ];
            events.extend(some.into_iter().filter(|(possible, _)| *possible).map(|(_, event)| event));
        }
        if !self.late.is_empty() {
            events.push(Event::Late);
        }
    }

    /// The place of the event that comes next.
    fn choose(&mut self, events: &[Event]) -> usize {
        let changes = match self.config.search {
            Search::Priorities { changes } if !self.is_healed() => changes,
            Search::Priorities { .. } | Search::Walk => return self.shared.lock().choices.below(events.len()),
        };
        // The smallest goes first; those that were demoted come after all others, the last one at the very end.
        let priority = |event: &Event| match self.demoted.get(&event.entity()) {
            Some(rank) => (1, *rank),
            None => (0, Random::new(entity_number(event.entity())).next()),
        };
        let first = (0..events.len()).min_by_key(|at| priority(&events[*at])).unwrap_or(0);
        if self.shared.lock().choices.strikes(changes) {
            let rank = self.demoted.len() as u64 + u64::from(self.steps);
            self.demoted.insert(events[first].entity(), rank);
        }
        first
    }

    /// Nothing can happen before somebody's deadline.
    fn wait(&mut self) {
        let deadlines = self.processes.values().flat_map(|process| match process.paused_until {
            Some(until) => vec![until],
            None => {
                let nodes = process.running.iter().flat_map(|running| &running.nodes);
                let nodes = nodes.filter(|node| !node.failed).filter_map(|node| node.deadline);
                let stalled = process.applying.iter().any(Applying::is_ready).then_some(process.stalled_until);
                let uploads = process.uploads.iter().map(|upload| upload.stalled_until);
                nodes.chain(process.deadline).chain(stalled).chain(uploads).collect()
            }
        });
        match deadlines.min() {
            Some(next) => self.now = self.now.max(next),
            None => {
                let state = self.describe();
                self.violated(Rule::Live, || format!("nothing can happen any more: {state}"));
            }
        }
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Run(process, node) => self.run_node(process, node),
            Event::Deliver(process, channel) => self.deliver(process, channel),
            Event::Credit(process, channel) => self.return_credit(process, channel),
            Event::Net(process) => self.deliver_message(process),
            Event::Written(process) => self.tell_written(process),
            Event::Upload(process) => self.upload(process),
            Event::Apply(process) => self.apply_step(process),
            Event::Op(process) => self.answer(process),
            Event::Start(process) => self.start_step(process),
            Event::Stop(process) => self.stop_attempt(process),
            Event::Commit(process) => self.commit_step(process),
            Event::Copy(process) => self.copy_step(process),
            Event::Timer(process) => {
                let now = self.now;
                self.with_driver(process, |driver| driver.handle_timeout(now));
            }
            Event::Wake(process) => self.wake(process),
            Event::Late => self.land_late(),
        }
    }

    /// Where everybody stands, for the report of a job that hangs.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for process in self.processes.values() {
            text += &format!(
                "process {}: {} ops, {} messages, {} uploads, {} for tiers, {} copies, starting {}, stopping {}, committing {}, deadline {:?}; ",
                process.id,
                process.ops.len(),
                process.net.len(),
                process.uploads.len(),
                process.applying.len(),
                process.copies.len(),
                process.starting.is_some(),
                process.stopping.is_some(),
                process.commit.is_some(),
                process.deadline.map(|deadline| deadline.since(Moment::ZERO)),
            );
            for node in process.running.iter().flat_map(|running| &running.nodes) {
                let state = if node.failed {
                    "failed"
                } else if node.ended {
                    "ended"
                } else {
                    "runs"
                };
                text += &format!("{} {state}; ", node.subtask);
            }
        }
        text
    }

    fn wake(&mut self, id: ProcessId) {
        let other = self.processes.values().any(|process| process.id > id);
        let newer = self.epoch;
        if let Some(process) = self.processes.get_mut(&id) {
            process.paused_until = None;
            if other || process.epoch < newer {
                process.slept = true;
                self.hit(Mark::ZombieWakes);
            }
        }
        self.tell(Entity::Driver(id), || "wakes".to_owned());
    }
}

fn event_number(event: Event) -> u64 {
    let (kind, process, at) = match event {
        Event::Run(process, at) => (0, process, at),
        Event::Deliver(process, at) => (1, process, at),
        Event::Credit(process, at) => (2, process, at),
        Event::Net(process) => (3, process, 0),
        Event::Written(process) => (4, process, 0),
        Event::Upload(process) => (5, process, 0),
        Event::Op(process) => (6, process, 0),
        Event::Start(process) => (7, process, 0),
        Event::Stop(process) => (8, process, 0),
        Event::Commit(process) => (9, process, 0),
        Event::Timer(process) => (10, process, 0),
        Event::Wake(process) => (11, process, 0),
        Event::Late => (12, 0, 0),
        Event::Copy(process) => (13, process, 0),
        Event::Apply(process) => (14, process, 0),
    };
    kind << 56 | u64::from(process) << 32 | at as u64
}

fn entity_number(entity: Entity) -> u64 {
    let (kind, process, at) = match entity {
        Entity::World => (0, 0, 0),
        Entity::Store => (1, 0, 0),
        Entity::Driver(process) => (2, process, 0),
        Entity::Node(process, at) => (3, process, at),
        Entity::Channel(process, at) => (4, process, at),
        Entity::Net(process) => (5, process, 0),
        Entity::Io(process) => (6, process, 0),
        Entity::Tier(process) => (7, process, 0),
    };
    kind << 56 | u64::from(process) << 24 | u64::from(at)
}
