//! A world in one thread: all subtasks of a job, the channels between them, and as much of a coordinator as they need.
//! One seed decides what happens next, and when everything is torn down and built anew from the newest checkpoint.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod source;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use cutwater_core::{
    Attempt, Barrier, ChannelId, CheckpointId, EdgeId, Epoch, MaxParallelism, Moment, OperatorUid, SnapshotForm,
    SubtaskId,
};
use cutwater_dataflow::exec::{Element, OperatorSnapshot, OutputChannel, SnapshotKind};
use cutwater_dataflow::{CommitContext, CommitOutcome, Finish, JobGraph};
use cutwater_state::{Block, BlockKind, StateHeader};
use cutwater_task::{
    Action, Base, DeltaLimits, Progress, RestoredBase, TaskCore, TaskError, TaskSettings, TaskSnapshot, TaskStart,
};

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times; never if `n` is 0.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

/// After so many steps the faults stop, and the job must come to its end.
const FAULTS_UNTIL: u64 = 4000;

/// What goes on beside the records. Each rate is "once in so many steps", 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chaos {
    /// A checkpoint is asked for, unless one is under way.
    pub(crate) checkpoint: u64,
    /// A new one is asked for although one is under way, which the coordinator forgets.
    pub(crate) overtake: u64,
    /// The coordinator gives the one under way up.
    pub(crate) abort: u64,
    /// Everything is torn down, built anew at another parallelism.
    pub(crate) crash: u64,
    /// At most so many times.
    pub(crate) crashes: u32,
    /// The largest parallelism.
    pub(crate) parallelism: u32,
}

impl Chaos {
    /// Only what a job needs to end: a last checkpoint.
    pub(crate) const NONE: Self = Self { checkpoint: 0, overtake: 0, abort: 0, crash: 0, crashes: 0, parallelism: 3 };
    /// Some of everything.
    pub(crate) const ALL: Self =
        Self { checkpoint: 40, overtake: 150, abort: 150, crash: 700, crashes: 3, parallelism: 3 };
}

/// What one subtask put into a checkpoint.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) states: Vec<StateHeader>,
    /// Its file, after those that it builds on.
    pub(crate) files: Vec<Vec<Block>>,
    pub(crate) inline: TaskSnapshot,
}

impl Part {
    /// In the order in which they are restored.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.files.iter().flat_map(|file| {
            let changed = |block: &&Block| block.kind == BlockKind::Changed;
            file.iter().filter(move |block| !changed(block)).chain(file.iter().filter(changed))
        })
    }
}

/// A complete checkpoint.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    pub(crate) id: CheckpointId,
    pub(crate) attempt: Attempt,
    pub(crate) parts: BTreeMap<SubtaskId, Part>,
    /// How many subtasks had been reported at the end of data when it was asked for.
    pub(crate) ended: usize,
}

impl Checkpoint {
    /// The handles of prepared output in it.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &OperatorSnapshot> {
        let parts = self.parts.values().flat_map(|part| &part.inline.operators);
        parts.filter(|part| part.kind == SnapshotKind::PreparedOutput)
    }
}

struct Pending {
    barrier: Barrier,
    parts: BTreeMap<SubtaskId, Part>,
    triggered: BTreeSet<SubtaskId>,
    ended: usize,
}

struct Upload {
    subtask: SubtaskId,
    checkpoint: CheckpointId,
    part: Part,
    finish: Vec<Finish>,
}

#[derive(Clone, Copy)]
enum Command {
    Trigger(Barrier),
    Abort(CheckpointId),
    Published(CheckpointId),
}

struct Node {
    core: TaskCore,
    busy: bool,
    commands: VecDeque<Command>,
    /// The snapshot that is being taken, and what it builds on.
    snapshot: Option<Taking>,
    /// The files of those taken, since one may build on them.
    taken: Taken,
}

type Taking = (CheckpointId, Option<Base>, Vec<StateHeader>, Vec<Block>);

type Taken = BTreeMap<CheckpointId, Vec<Vec<Block>>>;

#[derive(Default)]
struct Channel {
    elements: VecDeque<Element>,
    credits: VecDeque<u64>,
    /// Sent, and not known to the sender as processed.
    in_flight: u64,
}

type Way = (EdgeId, u32, u32);

#[derive(Clone, Copy)]
enum Event {
    Run(SubtaskId),
    Deliver(Way),
    Credit(Way),
    Command(SubtaskId),
    Written(usize),
    Ack(usize),
    Ended(usize),
    Publish,
}

/// What has been seen, so that a test can tell that it tested something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) steps: u64,
    pub(crate) completed: u64,
    /// Completed, and asked for while some subtasks had ended and others not.
    pub(crate) half_ended: u64,
    pub(crate) declined: u64,
    pub(crate) dropped: u64,
    pub(crate) crashes: u32,
    pub(crate) blocked: u64,
    /// Snapshots that build on others, and how often one was restored.
    pub(crate) deltas: u64,
    pub(crate) deltas_restored: u64,
}

pub(crate) struct World {
    graph: JobGraph,
    settings: TaskSettings,
    chaos: Chaos,
    pub(crate) random: Random,
    pub(crate) now: Moment,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) attempt: Attempt,
    /// Of the job, in this attempt.
    parallelism: u32,
    nodes: BTreeMap<SubtaskId, Node>,
    channels: BTreeMap<Way, Channel>,
    writes: Vec<(SubtaskId, CheckpointId, u64)>,
    uploads: Vec<Upload>,
    ends: Vec<SubtaskId>,
    ended: BTreeSet<SubtaskId>,
    pending: Option<Pending>,
    last_id: u64,
    pub(crate) completed: Vec<Checkpoint>,
    /// Handles of complete checkpoints that are not published yet.
    publish: VecDeque<(CheckpointId, VecDeque<OperatorSnapshot>)>,
    pub(crate) seen: Seen,
    hasher: DefaultHasher,
}

impl World {
    /// Every other seed has snapshots that build on others.
    pub(crate) fn new(graph: JobGraph, mut settings: TaskSettings, chaos: Chaos, seed: u64) -> Self {
        settings.deltas = seed.is_multiple_of(2).then_some(DeltaLimits { longest: 3, percent: 1000 });
        Self {
            graph,
            settings,
            chaos,
            random: Random(seed),
            now: Moment::ZERO,
            max_parallelism: MaxParallelism::new(16).unwrap(),
            attempt: Attempt(0),
            parallelism: 0,
            nodes: BTreeMap::new(),
            channels: BTreeMap::new(),
            writes: Vec::new(),
            uploads: Vec::new(),
            ends: Vec::new(),
            ended: BTreeSet::new(),
            pending: None,
            last_id: 0,
            completed: Vec::new(),
            publish: VecDeque::new(),
            seen: Seen::default(),
            hasher: DefaultHasher::new(),
        }
    }

    /// What has happened so far, as a number.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// The parallelism of the attempt.
    pub(crate) fn parallelism(&self) -> u32 {
        self.nodes.keys().map(|subtask| subtask.index + 1).max().unwrap_or(0)
    }

    /// Runs the job to its end, with a last checkpoint that publishes everything.
    pub(crate) fn run(&mut self) -> Result<(), TaskError> {
        self.start()?;
        while !self.done() {
            self.step()?;
            assert!(self.seen.steps < 1_000_000, "it never ends");
        }
        Ok(())
    }

    /// Tears down what there is; builds all subtasks from the newest checkpoint, at some parallelism.
    pub(crate) fn start(&mut self) -> Result<(), TaskError> {
        let parallelism = 1 + u32::try_from(self.random.below(self.chaos.parallelism.into())).unwrap();
        self.parallelism = parallelism;
        self.nodes.clear();
        self.channels.clear();
        self.writes.clear();
        self.uploads.clear();
        self.ends.clear();
        self.ended.clear();
        self.pending = None;
        self.publish.clear();
        self.attempt = self.attempt.next();
        if let Some(checkpoint) = self.completed.last().cloned() {
            for handle in checkpoint.handles() {
                self.commit(handle);
            }
            self.seen.deltas_restored += checkpoint.parts.values().filter(|part| part.files.len() > 1).count() as u64;
        }
        for (operator, make) in self.graph.tasks().iter().flat_map(|task| task.committers.clone()) {
            make(&self.commit_context(&operator)).unwrap().sweep().unwrap();
        }
        for spec in self.graph.tasks() {
            for index in 0..spec.parallelism(parallelism) {
                let subtask = SubtaskId { task: spec.task, index };
                let (core, taken) = self.build(subtask, parallelism)?;
                let node = Node { core, busy: true, commands: VecDeque::new(), snapshot: None, taken };
                self.nodes.insert(subtask, node);
                for output in &spec.outputs {
                    for to in 0..self.graph.reader(output.edge).parallelism(parallelism) {
                        self.channels.insert((output.edge, index, to), Channel::default());
                    }
                }
            }
        }
        Ok(())
    }

    fn build(&self, subtask: SubtaskId, parallelism: u32) -> Result<(TaskCore, Taken), TaskError> {
        let restored: Vec<Part> = self.completed.last().map_or_else(Vec::new, |checkpoint| {
            let mine = checkpoint.parts.iter().filter(|(of, _)| of.task == subtask.task);
            mine.map(|(_, part)| part.clone()).collect()
        });
        let encoded = |part: &Part| TaskSnapshot::decode(&part.inline.encode()).expect("what was encoded");
        let count = self.graph.tasks()[subtask.task.0 as usize].parallelism(parallelism);
        let own = self.completed.last().filter(|_| restored.len() == count as usize);
        let own = own.and_then(|checkpoint| Some((checkpoint.id, checkpoint.parts.get(&subtask)?.files.clone())));
        let bytes = |file: &Vec<Block>| file.iter().map(|block| block.payload.len() as u64).sum();
        let base = own.as_ref().map(|(checkpoint, files)| RestoredBase {
            checkpoint: *checkpoint,
            files: files.iter().map(bytes).collect(),
        });
        let start = TaskStart {
            base,
            tier: None,
            subtask,
            parallelism,
            max_parallelism: self.max_parallelism,
            epoch: Epoch(1),
            attempt: self.attempt,
            from_nothing: false,
            restored: restored.iter().map(encoded).collect(),
        };
        let mut core = TaskCore::new(&self.graph, &start, self.settings.clone())?;
        let groups = self.max_parallelism.range_of(subtask.index, count);
        for block in restored.iter().flat_map(Part::blocks) {
            core.states()[usize::from(block.state)].restore(block, groups).unwrap();
        }
        Ok((core, own.into_iter().collect()))
    }

    /// One thing that can happen happens. Panics if nothing can and the job is not at its end.
    pub(crate) fn step(&mut self) -> Result<(), TaskError> {
        self.seen.steps += 1;
        self.now = self.now + Duration::from_nanos(self.random.below(200_000));
        self.meddle()?;
        let events = self.events();
        if events.is_empty() {
            return self.wait();
        }
        let at = usize::try_from(self.random.below(events.len() as u64)).unwrap();
        self.perform_event(events[at])
    }

    /// Checkpoints, aborts and crashes.
    fn meddle(&mut self) -> Result<(), TaskError> {
        let last = self.ended.len() == self.nodes.len() && self.pending.is_none() && !self.done();
        if last || (self.random.once_in(self.chaos.checkpoint) && self.pending.is_none()) {
            self.trigger();
        }
        if self.seen.steps > FAULTS_UNTIL {
            return Ok(());
        }
        if self.random.once_in(self.chaos.overtake) && self.pending.is_some() {
            self.pending = None;
            self.trigger();
        }
        if self.random.once_in(self.chaos.abort) {
            self.abort();
        }
        if self.seen.crashes < self.chaos.crashes && self.random.once_in(self.chaos.crash) {
            self.seen.crashes += 1;
            return self.start();
        }
        Ok(())
    }

    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (&subtask, node) in &mut self.nodes {
            node.busy |= node.core.next_deadline().is_some_and(|at| at <= self.now);
            if node.busy {
                events.push(Event::Run(subtask));
            }
            if !node.commands.is_empty() {
                events.push(Event::Command(subtask));
            }
        }
        for (&way, channel) in &self.channels {
            if !channel.elements.is_empty() {
                events.push(Event::Deliver(way));
            }
            if !channel.credits.is_empty() {
                events.push(Event::Credit(way));
            }
        }
        events.extend((!self.writes.is_empty()).then_some(Event::Written(0)));
        events.extend((0..self.uploads.len()).map(Event::Ack));
        events.extend((0..self.ends.len()).map(Event::Ended));
        events.extend((!self.publish.is_empty()).then_some(Event::Publish));
        events
    }

    /// Nothing can happen before the next deadline.
    fn wait(&mut self) -> Result<(), TaskError> {
        let next = self.nodes.values().filter_map(|node| node.core.next_deadline()).min();
        if let Some(next) = next {
            self.now = self.now.max(next);
        } else {
            let stuck: Vec<_> = self.nodes.keys().filter(|subtask| !self.ended.contains(subtask)).collect();
            assert!(stuck.is_empty(), "nothing can happen, and these are not at the end of data: {stuck:?}");
            assert!(self.done() || self.pending.is_none(), "nothing can happen, and a checkpoint is not complete");
        }
        Ok(())
    }

    fn perform_event(&mut self, event: Event) -> Result<(), TaskError> {
        match event {
            Event::Run(subtask) => {
                let node = self.nodes.get_mut(&subtask).unwrap();
                node.busy = node.core.run(self.now)? == Progress::Busy;
                self.drain(subtask);
            }
            Event::Deliver(way) => {
                let element = self.channels.get_mut(&way).unwrap().elements.pop_front().unwrap();
                let subtask = SubtaskId { task: self.graph.reader(way.0).task, index: way.2 };
                let mut channels = self.graph.channels(subtask.task, self.parallelism);
                let number = channels.position(|(input, from)| (input.edge, from) == (way.0, way.1)).unwrap();
                let channel = ChannelId(u32::try_from(number).unwrap());
                drop(channels);
                let now = self.now;
                self.tell(subtask, |core| core.handle_element(now, channel, element));
            }
            Event::Credit(way) => {
                let channel = self.channels.get_mut(&way).unwrap();
                let bytes = channel.credits.pop_front().unwrap();
                channel.in_flight = channel.in_flight.checked_sub(bytes).expect("more credit than was used");
                let sender = self.graph.writer(way.0).task;
                let output = OutputChannel { edge: way.0, to: way.2 };
                self.tell(SubtaskId { task: sender, index: way.1 }, |core| core.handle_credit(output, bytes));
            }
            Event::Command(subtask) => {
                let now = self.now;
                let command = self.nodes.get_mut(&subtask).unwrap().commands.pop_front().unwrap();
                self.tell(subtask, |core| match command {
                    Command::Trigger(barrier) => core.handle_trigger(now, barrier),
                    Command::Abort(checkpoint) => core.handle_abort(checkpoint),
                    Command::Published(checkpoint) => core.handle_published(checkpoint),
                });
            }
            Event::Written(at) => {
                let (subtask, checkpoint, bytes) = self.writes.remove(at);
                self.tell(subtask, |core| core.handle_written(checkpoint, bytes));
            }
            Event::Ack(at) => {
                let upload = self.uploads.swap_remove(at);
                self.acknowledge(upload);
            }
            Event::Ended(at) => {
                self.ended.insert(self.ends.swap_remove(at));
                self.trigger_more();
            }
            Event::Publish => {
                let (checkpoint, handles) = self.publish.front_mut().unwrap();
                if let Some(handle) = handles.pop_front() {
                    self.commit(&handle);
                } else {
                    let published = Command::Published(*checkpoint);
                    self.publish.pop_front();
                    self.nodes.values_mut().for_each(|node| node.commands.push_back(published));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, subtask: SubtaskId, what: impl FnOnce(&mut TaskCore)) {
        let node = self.nodes.get_mut(&subtask).unwrap();
        what(&mut node.core);
        node.busy = true;
        self.drain(subtask);
    }

    fn drain(&mut self, subtask: SubtaskId) {
        while let Some(action) = self.nodes.get_mut(&subtask).unwrap().core.poll_action() {
            self.perform(subtask, action);
        }
    }

    fn perform(&mut self, subtask: SubtaskId, action: Action) {
        subtask.hash(&mut self.hasher);
        let node = self.nodes.get_mut(&subtask).unwrap();
        match action {
            Action::Send { output, element } => {
                (1, output.to, format!("{element:?}")).hash(&mut self.hasher);
                let window = self.settings.window_bytes;
                let channel = self.channels.get_mut(&(output.edge, subtask.index, output.to)).unwrap();
                if let Element::Batch(batch) = &element {
                    assert!(channel.in_flight < window, "a batch left although the window was used up");
                    channel.in_flight += batch.bytes();
                    self.seen.blocked += u64::from(channel.in_flight >= window);
                }
                channel.elements.push_back(element);
            }
            Action::Credit { channel, bytes } => {
                (2, channel, bytes).hash(&mut self.hasher);
                let number = channel.0 as usize;
                let (input, from) = self.graph.channels(subtask.task, self.parallelism).nth(number).unwrap();
                let channel = self.channels.get_mut(&(input.edge, from, subtask.index)).unwrap();
                channel.credits.push_back(bytes);
                let coming: u64 = channel.credits.iter().sum();
                assert!(coming <= channel.in_flight, "more was given back than is under way");
            }
            Action::SnapshotBegun { barrier, base, states, .. } => {
                (3, barrier).hash(&mut self.hasher);
                assert!(node.snapshot.is_none(), "{subtask}: a snapshot before the one under way ended");
                self.seen.deltas += u64::from(base.is_some());
                node.snapshot = Some((barrier.checkpoint, base, states, Vec::new()));
            }
            Action::Block { checkpoint, block } => {
                (4, &block.payload).hash(&mut self.hasher);
                let (of, _, _, blocks) = node.snapshot.as_mut().expect("a block belongs to a snapshot");
                assert_eq!(*of, checkpoint);
                self.writes.push((subtask, checkpoint, block.payload.len() as u64));
                blocks.push(block);
            }
            Action::SnapshotComplete { checkpoint, inline, finish } => {
                (5, inline.encode()).hash(&mut self.hasher);
                let (of, base, states, blocks) = node.snapshot.take().expect("begun before it is complete");
                assert_eq!(of, checkpoint);
                let mut files = base.map_or_else(Vec::new, |base| {
                    let mut files = node.taken[&base.checkpoint].clone();
                    files.truncate(if base.only_full { 1 } else { files.len() });
                    files
                });
                if !blocks.is_empty() {
                    files.push(blocks);
                }
                node.taken.insert(checkpoint, files.clone());
                self.uploads.push(Upload { subtask, checkpoint, part: Part { states, files, inline }, finish });
            }
            Action::SnapshotDropped { checkpoint } => {
                (6, checkpoint).hash(&mut self.hasher);
                self.seen.dropped += 1;
                let (of, ..) = node.snapshot.take().expect("begun before it is dropped");
                assert_eq!(of, checkpoint);
            }
            Action::Decline { checkpoint, reason, .. } => {
                (7, checkpoint, reason).hash(&mut self.hasher);
                self.seen.declined += 1;
                if self.pending.as_ref().is_some_and(|pending| pending.barrier.checkpoint == checkpoint) {
                    self.abort();
                }
            }
            Action::EndOfData => {
                8.hash(&mut self.hasher);
                self.ends.push(subtask);
            }
            Action::LastCut { .. } => panic!("nobody asked for a last cut"),
        }
    }

    /// Asks for a checkpoint.
    pub(crate) fn trigger(&mut self) {
        self.last_id += 1;
        let base = self.completed.last().map(|checkpoint| checkpoint.id);
        let checkpoint = CheckpointId(self.last_id);
        let barrier =
            Barrier { epoch: Epoch(1), attempt: self.attempt, checkpoint, base, form: SnapshotForm::Configured };
        let ended = self.ended.len();
        self.pending = Some(Pending { barrier, parts: BTreeMap::new(), triggered: BTreeSet::new(), ended });
        self.trigger_more();
    }

    /// Tells those to whom no barrier will come, as the coordinator does.
    fn trigger_more(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        for (&subtask, node) in &mut self.nodes {
            let mut heard = self.graph.channels(subtask.task, self.parallelism);
            let alone = heard.all(|(input, from)| {
                self.ended.contains(&SubtaskId { task: self.graph.writer(input.edge).task, index: from })
            });
            if (alone || self.ended.contains(&subtask)) && pending.triggered.insert(subtask) {
                node.commands.push_back(Command::Trigger(pending.barrier));
            }
        }
    }

    /// Gives the checkpoint under way up.
    pub(crate) fn abort(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        for node in self.nodes.values_mut() {
            node.commands.push_back(Command::Abort(pending.barrier.checkpoint));
        }
    }

    fn acknowledge(&mut self, upload: Upload) {
        for finish in upload.finish {
            finish().unwrap();
        }
        let Some(pending) = &mut self.pending else { return };
        if pending.barrier.checkpoint != upload.checkpoint {
            return;
        }
        let twice = pending.parts.insert(upload.subtask, upload.part);
        assert!(twice.is_none(), "{} acknowledged twice", upload.subtask);
        if pending.parts.len() == self.nodes.len()
            && let Some(Pending { barrier, parts, ended, .. }) = self.pending.take()
        {
            let checkpoint = Checkpoint { id: barrier.checkpoint, attempt: barrier.attempt, parts, ended };
            self.seen.completed += 1;
            self.seen.half_ended += u64::from(ended > 0 && ended < self.nodes.len());
            self.publish.push_back((checkpoint.id, checkpoint.handles().cloned().collect()));
            self.completed.push(checkpoint);
        }
    }

    fn commit_context(&self, operator: &OperatorUid) -> CommitContext {
        let job = self.graph.name().to_owned();
        CommitContext { job, operator: operator.clone(), epoch: Epoch(1), attempt: self.attempt }
    }

    fn commit(&self, handle: &OperatorSnapshot) {
        let committers = self.graph.tasks().iter().flat_map(|task| &task.committers);
        let (operator, make) = committers.into_iter().find(|(operator, _)| *operator == handle.operator).unwrap();
        match make(&self.commit_context(operator)).unwrap().commit(&handle.payload) {
            CommitOutcome::Committed | CommitOutcome::Already => {}
            CommitOutcome::Unknown(error) | CommitOutcome::Lost(error) => panic!("{error}"),
        }
    }

    /// Whether all subtasks are at the end of data, and a checkpoint begun after that is complete and published.
    pub(crate) fn done(&self) -> bool {
        let last = self.completed.last().filter(|last| last.attempt == self.attempt);
        let done = last.is_some_and(|last| last.ended == self.nodes.len()) && self.publish.is_empty();
        if done {
            let left = self.channels.values().filter(|channel| !channel.elements.is_empty()).count();
            assert_eq!(left, 0, "channels that hold something after the end of data");
        }
        done
    }
}
