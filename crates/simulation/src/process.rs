//! One process of the job: the driver, the subtasks of its attempt, what is on its way between them and to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use cutwater_coordinator::{CompletedCheckpoint, FileRef, RequestId, SubtaskSnapshot, Token};
use cutwater_core::{
    Attempt, Barrier, CheckpointId, EdgeId, Epoch, MaxParallelism, Moment, OperatorUid, SubtaskId, TaskId,
};
use cutwater_dataflow::exec::{Element, OperatorSnapshot};
use cutwater_dataflow::{Committer, Finish, JobGraph, OperatorKind};
use cutwater_driver::{Driver, End, Lasting, Natives};
use cutwater_restart::FailureClass;
use cutwater_state::{Block, ColdState, ColdView, StateHeader};
use cutwater_storage::LocalFolder;
use cutwater_task::{Base, TaskCore, TaskSnapshot};

use crate::contents::Entries;
use crate::image::TierImage;
use crate::native::{Native, Reading, Storing};
use crate::shared::ProcessId;
use crate::tier::Tier;

/// See the module.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) driver: Driver,
    /// When the driver is to be told of the time at the latest. It changes only when the driver is told something.
    pub(crate) deadline: Option<Moment>,
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) parallelism: u32,
    /// How many key groups it has if it starts from nothing.
    pub(crate) told_groups: MaxParallelism,
    pub(crate) folder: LocalFolder,
    /// Until then nothing of it runs.
    pub(crate) paused_until: Option<Moment>,
    /// Whether it was paused while another process ran.
    pub(crate) slept: bool,
    /// Whether the store has ever not answered it, or given it damaged bytes.
    pub(crate) store_failed: bool,
    pub(crate) store_damaged: bool,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) running: Option<Running>,
    pub(crate) starting: Option<Starting>,
    pub(crate) stopping: Option<Attempt>,
    pub(crate) commit: Option<Commit>,
    pub(crate) committers: BTreeMap<OperatorUid, Box<dyn Committer>>,
    pub(crate) ops: Vec<Op>,
    pub(crate) net: Vec<Message>,
    /// Bytes that were written, to be told to their subtasks.
    pub(crate) written: VecDeque<(Attempt, SubtaskId, CheckpointId, u64)>,
    pub(crate) uploads: Vec<Upload>,
    /// What lies below the tables of each subtask, of the newest attempt that has such.
    pub(crate) tiers: BTreeMap<SubtaskId, Arc<Tier>>,
    /// Of each attempt the files of images that later ones may have.
    pub(crate) natives: BTreeMap<Attempt, Natives>,
    /// The same as planted errors have it: all files of all images.
    pub(crate) planted: BTreeMap<(Attempt, SubtaskId), BTreeMap<CheckpointId, Lasting>>,
    /// Snapshots on their way into tiers.
    pub(crate) applying: Vec<Applying>,
    /// Until then they don't get on.
    pub(crate) stalled_until: Moment,
    /// What snapshots may build on: those that each subtask has taken or was restored from, with the files that hold them.
    pub(crate) chains: BTreeMap<(Attempt, SubtaskId), BTreeMap<CheckpointId, Vec<FileRef>>>,
    /// What they hold, for the oracle.
    pub(crate) contents: BTreeMap<(Attempt, SubtaskId), BTreeMap<CheckpointId, Contents>>,
    /// The newest checkpoint that each subtask has heard of as published.
    pub(crate) noticed: BTreeMap<SubtaskId, CheckpointId>,
    /// Whether it was started from a savepoint.
    pub(crate) from_savepoint: bool,
    /// The checkpoint that its savepoint is of.
    pub(crate) savepoint: Option<(Epoch, CheckpointId)>,
    /// Checkpoints that it found damaged, and those past which it said to have gone back.
    pub(crate) damaged: BTreeSet<CheckpointId>,
    pub(crate) fell_from: BTreeSet<CheckpointId>,
    /// Savepoints that are being made.
    pub(crate) copies: Vec<Copying>,
    /// The checkpoint behind which the job is to stop, once it has completed.
    pub(crate) stop_behind: Option<(RequestId, Option<CheckpointId>)>,
    pub(crate) end: Option<End>,
    /// For marks: a record of this slot has an unknown fate.
    pub(crate) unknown: Option<String>,
    /// For marks: the acknowledgements that have come.
    pub(crate) acked: BTreeSet<(CheckpointId, SubtaskId)>,
    /// Whether the driver was told that something is still being stored of attempts that are over.
    pub(crate) storing: bool,
}

impl Process {
    /// Whether something is being stored, or what has been is still to be told.
    pub(crate) fn is_storing(&self) -> bool {
        let told = |message: &Message| matches!(message, Message::Acked { .. } | Message::Litter { .. });
        let applying = self.applying.iter().any(|applying| applying.upload.is_some());
        applying || !self.uploads.is_empty() || self.net.iter().any(told)
    }
}

/// A checkpoint that is being copied.
pub(crate) struct Copying {
    pub(crate) request: RequestId,
    pub(crate) attempt: Attempt,
    pub(crate) checkpoint: Box<CompletedCheckpoint>,
    pub(crate) to_copy: VecDeque<FileRef>,
}

/// What a snapshot holds, and what the full one does that it builds on.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) whole: Entries,
    pub(crate) full: Entries,
}

/// A question to the store that is out.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { token: Token, name: String, bytes: Vec<u8> },
    Read { token: Token, name: String },
    Delete { token: Token, names: Vec<String> },
    List { token: Token, prefix: String },
}

/// Something that the store may still do although nobody waits for it.
#[derive(Clone, Debug)]
pub(crate) enum LateOp {
    Create { name: String, bytes: Vec<u8> },
    Delete { names: Vec<String> },
}

/// A message between the driver and a subtask. They come in any order.
pub(crate) enum Message {
    Trigger { to: SubtaskId, attempt: Attempt, barrier: Barrier, hold: bool },
    Drain { to: SubtaskId, attempt: Attempt },
    Abort { to: SubtaskId, attempt: Attempt, checkpoint: CheckpointId },
    Published { to: SubtaskId, attempt: Attempt, checkpoint: CheckpointId },
    LastCut { to: SubtaskId, attempt: Attempt },
    Applied { to: SubtaskId, attempt: Attempt, checkpoint: CheckpointId, applied: bool },
    Acked { attempt: Attempt, checkpoint: CheckpointId, snapshot: Box<SubtaskSnapshot> },
    Swept { attempt: Attempt, checkpoint: CheckpointId, subtask: SubtaskId },
    Declined { attempt: Attempt, checkpoint: CheckpointId, subtask: SubtaskId, reason: String, counted: bool },
    EndOfData { attempt: Attempt, subtask: SubtaskId },
    HandedOver { attempt: Attempt, subtask: SubtaskId, handles: Vec<OperatorSnapshot>, finish: Vec<Finish> },
    Failed { attempt: Attempt, class: FailureClass },
    Litter { names: Vec<String> },
}

impl Message {
    /// A second one of the same, if such a message may be repeated.
    pub(crate) fn again(&self) -> Option<Self> {
        Some(match self {
            Self::Trigger { to, attempt, barrier, hold } => {
                Self::Trigger { to: *to, attempt: *attempt, barrier: *barrier, hold: *hold }
            }
            Self::Drain { to, attempt } => Self::Drain { to: *to, attempt: *attempt },
            Self::Abort { to, attempt, checkpoint } => {
                Self::Abort { to: *to, attempt: *attempt, checkpoint: *checkpoint }
            }
            Self::Published { to, attempt, checkpoint } => {
                Self::Published { to: *to, attempt: *attempt, checkpoint: *checkpoint }
            }
            Self::Acked { attempt, checkpoint, snapshot } => {
                Self::Acked { attempt: *attempt, checkpoint: *checkpoint, snapshot: snapshot.clone() }
            }
            Self::Declined { attempt, checkpoint, subtask, reason, counted } => Self::Declined {
                attempt: *attempt,
                checkpoint: *checkpoint,
                subtask: *subtask,
                reason: reason.clone(),
                counted: *counted,
            },
            Self::Swept { attempt, checkpoint, subtask } => {
                Self::Swept { attempt: *attempt, checkpoint: *checkpoint, subtask: *subtask }
            }
            Self::EndOfData { attempt, subtask } => Self::EndOfData { attempt: *attempt, subtask: *subtask },
            Self::Failed { attempt, class } => Self::Failed { attempt: *attempt, class: *class },
            Self::LastCut { .. } | Self::Applied { .. } | Self::HandedOver { .. } | Self::Litter { .. } => return None,
        })
    }

    /// Whether a timeout makes up for its loss. The others must arrive, in whatever order.
    pub(crate) fn may_be_lost(&self) -> bool {
        match self {
            Self::Trigger { .. }
            | Self::Abort { .. }
            | Self::Published { .. }
            | Self::Acked { .. }
            | Self::Swept { .. }
            | Self::Declined { .. } => true,
            Self::Drain { .. }
            | Self::EndOfData { .. }
            | Self::Failed { .. }
            | Self::LastCut { .. }
            | Self::Applied { .. }
            | Self::HandedOver { .. }
            | Self::Litter { .. } => false,
        }
    }
}

/// A subtask.
pub(crate) struct Node {
    pub(crate) core: TaskCore,
    pub(crate) subtask: SubtaskId,
    pub(crate) busy: bool,
    /// When it must run at the latest. It changes only when it runs.
    pub(crate) deadline: Option<Moment>,
    pub(crate) failed: bool,
    /// The snapshot that is being taken.
    pub(crate) snapshot: Option<Snapshot>,
    /// The newest checkpoint of which it has been told or has seen a barrier.
    pub(crate) newest: CheckpointId,
    pub(crate) ended: bool,
    /// The checkpoint behind which it was told to read nothing.
    pub(crate) held: Option<CheckpointId>,
}

pub(crate) struct Snapshot {
    pub(crate) barrier: Barrier,
    pub(crate) base: Option<Base>,
    pub(crate) states: Vec<StateHeader>,
    /// Of each of them its state in the tier, if it has one.
    pub(crate) cold: Vec<Option<ColdState>>,
    pub(crate) blocks: Vec<Block>,
}

impl Snapshot {
    /// Whether the state of this number lies in a tier.
    pub(crate) fn is_cold(&self, state: u16) -> bool {
        self.cold.get(usize::from(state)).is_some_and(Option::is_some)
    }
}

/// Whose snapshot for which checkpoint.
pub(crate) type SnapshotId = (Attempt, CheckpointId, SubtaskId);

/// A channel from one subtask to another.
#[derive(Default)]
pub(crate) struct Channel {
    pub(crate) edge: u32,
    /// Its number among the input channels of the receiver.
    pub(crate) number: u32,
    pub(crate) to: u32,
    /// The places of its ends among the nodes.
    pub(crate) sender: usize,
    pub(crate) receiver: usize,
    pub(crate) elements: VecDeque<Element>,
    pub(crate) credits: VecDeque<u64>,
    /// Sent, and not known to the sender as processed.
    pub(crate) in_flight: u64,
    /// Records ever sent.
    pub(crate) sent: u64,
    /// How many had been sent when the barrier of a checkpoint was.
    pub(crate) at_barrier: BTreeMap<CheckpointId, u64>,
    pub(crate) ended: bool,
    /// Whether its end has come in.
    pub(crate) over: bool,
    /// A barrier held back by a mutant, until a batch has gone ahead of it.
    pub(crate) held: Option<Element>,
    /// Stopped for good by a mutant.
    pub(crate) stuck: bool,
}

/// An edge of the graph.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    /// The place of its first channel.
    first: usize,
    receivers: u32,
    /// Whether each record goes to all receivers.
    pub(crate) broadcast: bool,
    /// Whether its task has written another one before.
    pub(crate) branch: bool,
}

/// The attempt that runs.
pub(crate) struct Running {
    pub(crate) attempt: Attempt,
    pub(crate) nodes: Vec<Node>,
    /// The place of the first node of each task.
    pub(crate) first_node: Vec<usize>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) edges: Vec<Edge>,
    /// The places of the input channels of each node, by number.
    pub(crate) inputs: Vec<Vec<usize>>,
}

impl Running {
    pub(crate) fn new(graph: &JobGraph, parallelism: u32, attempt: Attempt, cores: Vec<TaskCore>) -> Self {
        let tasks = graph.tasks();
        let count = |task: usize| tasks[task].parallelism(parallelism);
        let mut first_node = Vec::with_capacity(tasks.len());
        let mut nodes = 0;
        for task in 0..tasks.len() {
            first_node.push(nodes);
            nodes += count(task) as usize;
        }
        let mut channels = Vec::new();
        let mut edges = Vec::with_capacity(graph.edges().len());
        for spec in graph.edges() {
            let (task, reader) = (spec.from.0 as usize, spec.to.0 as usize);
            let mut numbers = graph.channels(spec.to, parallelism);
            let first = numbers.position(|(input, _)| input.edge == spec.edge).unwrap_or(0);
            let outputs = &tasks[task].outputs;
            let output = outputs.iter().find(|output| output.edge == spec.edge);
            let kind = output.map(|output| tasks[task].operators[usize::from(output.operator)].kind);
            edges.push(Edge {
                first: channels.len(),
                receivers: count(reader),
                broadcast: kind == Some(OperatorKind::Broadcast),
                branch: outputs.first().is_some_and(|first| first.edge != spec.edge),
            });
            for from in 0..count(task) {
                for to in 0..count(reader) {
                    let (sender, receiver) = (first_node[task] + from as usize, first_node[reader] + to as usize);
                    let number = u32::try_from(first).unwrap_or(u32::MAX) + from;
                    channels.push(Channel { edge: spec.edge.0, number, to, sender, receiver, ..Channel::default() });
                }
            }
        }
        let mut inputs = vec![Vec::new(); nodes];
        for (place, channel) in channels.iter().enumerate() {
            inputs[channel.receiver].push((channel.number, place));
        }
        let sorted = |mut of: Vec<(u32, usize)>| {
            of.sort_unstable();
            of.into_iter().map(|(_, place)| place).collect()
        };
        let inputs = inputs.into_iter().map(sorted).collect();
        let node = |core: TaskCore| Node {
            subtask: core.subtask(),
            deadline: core.next_deadline(),
            core,
            busy: true,
            failed: false,
            snapshot: None,
            newest: CheckpointId(0),
            ended: false,
            held: None,
        };
        let nodes = cores.into_iter().map(node).collect();
        Self { attempt, nodes, first_node, channels, edges, inputs }
    }

    pub(crate) fn node_of(&self, subtask: SubtaskId) -> Option<usize> {
        let at = self.first_node.get(subtask.task.0 as usize)? + subtask.index as usize;
        (self.nodes.get(at)?.subtask == subtask).then_some(at)
    }

    pub(crate) fn channel_of(&self, edge: EdgeId, from: u32, to: u32) -> usize {
        let Edge { first, receivers, .. } = self.edges[edge.0 as usize];
        first + (from * receivers + to) as usize
    }

    /// The channels of a subtask over an edge.
    pub(crate) fn channels_of(&self, edge: EdgeId, from: u32) -> &[Channel] {
        let first = self.channel_of(edge, from, 0);
        &self.channels[first..first + self.edges[edge.0 as usize].receivers as usize]
    }

    /// The places of the channels that lead to the same subtask over other edges, and have not come to their end there.
    pub(crate) fn other_inputs(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        let Channel { edge, receiver, .. } = self.channels[place];
        let others = self.inputs[receiver].iter().copied();
        others.filter(move |other| self.channels[*other].edge != edge && !self.channels[*other].over)
    }

    /// The place of the input channel of this number of a subtask.
    pub(crate) fn input_of(&self, subtask: SubtaskId, number: u32) -> Option<usize> {
        self.inputs.get(self.node_of(subtask)?)?.get(number as usize).copied()
    }

    /// The subtasks, in order.
    pub(crate) fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        self.nodes.iter().map(|node| node.subtask)
    }
}

/// The steps of a start, one at a time.
pub(crate) struct Starting {
    pub(crate) attempt: Attempt,
    pub(crate) restore: Option<Box<CompletedCheckpoint>>,
    pub(crate) handles: VecDeque<OperatorSnapshot>,
    pub(crate) stage: Stage,
    pub(crate) cores: Vec<TaskCore>,
    pub(crate) to_build: VecDeque<SubtaskId>,
    /// What is being read for the first of them, of files of a tier.
    pub(crate) reading: Option<Reading>,
    pub(crate) tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    SweepStore,
    Committers,
    Publish,
    SweepSinks,
    Build,
}

/// Output that is being published.
pub(crate) struct Commit {
    pub(crate) attempt: Attempt,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) finish: Vec<Finish>,
    pub(crate) handles: VecDeque<OperatorSnapshot>,
    pub(crate) tries: u32,
}

/// A snapshot on its way into the store.
pub(crate) struct Upload {
    pub(crate) attempt: Attempt,
    pub(crate) subtask: SubtaskId,
    pub(crate) barrier: Barrier,
    pub(crate) base: Option<Base>,
    /// The files that it builds on.
    pub(crate) chain: Vec<FileRef>,
    pub(crate) states: Vec<StateHeader>,
    /// Whether some of them lie in a tier. Then there is a file even if nothing is in it.
    pub(crate) tiered: bool,
    pub(crate) blocks: Vec<Block>,
    /// What is stored as files of its tier.
    pub(crate) native: Option<Native>,
    pub(crate) inline: TaskSnapshot,
    pub(crate) finish: Vec<Finish>,
    pub(crate) step: UploadStep,
    pub(crate) stalled_until: Moment,
}

pub(crate) enum UploadStep {
    /// Sync what sinks have written.
    Finish,
    /// Write the file.
    Write,
    /// Store the files of its tier.
    Native(Box<Storing>),
    /// Tell the driver.
    Tell(Vec<FileRef>),
}

/// A snapshot on its way into the tier below its tables, from which it is then read.
pub(crate) struct Applying {
    pub(crate) snapshot: SnapshotId,
    pub(crate) tier: Arc<Tier>,
    pub(crate) states: Vec<StateHeader>,
    pub(crate) cold: Vec<Option<ColdState>>,
    /// What is still to be put there, and how much has been.
    pub(crate) blocks: VecDeque<Block>,
    pub(crate) applied: u32,
    /// What is written besides, once all blocks are out.
    pub(crate) upload: Option<Upload>,
    /// It was given up: there are no more blocks.
    pub(crate) dropped: bool,
    /// Whether the subtask was told what has become of it.
    pub(crate) told: bool,
    /// What it is read from, how many parts have been, and how often the subtask had written to the tier before.
    pub(crate) view: Option<Box<dyn ColdView>>,
    /// The same as files, if it is stored so.
    pub(crate) image: Option<TierImage>,
    pub(crate) scanned: usize,
    pub(crate) written: u64,
}

impl Applying {
    /// Whether there is a next step.
    pub(crate) fn is_ready(&self) -> bool {
        !self.blocks.is_empty() || self.dropped || self.upload.is_some()
    }
}

/// All subtasks of the graph at this parallelism, in order.
pub(crate) fn subtasks(graph: &JobGraph, parallelism: u32) -> impl Iterator<Item = SubtaskId> + '_ {
    graph.tasks().iter().flat_map(move |spec| {
        (0..spec.parallelism(parallelism)).map(move |index| SubtaskId { task: TaskId(spec.task.0), index })
    })
}
