use std::collections::VecDeque;
use std::time::Duration;

use cutwater_barrier::{Action as AlignerAction, Aligner, Mode};
use cutwater_core::{
    Attempt, Barrier, ChannelId, CheckpointId, Epoch, MaxParallelism, Moment, SubtaskId, TaskId, Timestamp,
};
use cutwater_dataflow::exec::{
    BATCH_RECORDS, BuildContext, Chain, ChainSnapshot, ClaimedStates, Element, Exec, OperatorSnapshot, Outbox,
    OutputChannel, SnapshotKind, SourcePoll,
};
use cutwater_dataflow::{Finish, JobGraph};
use cutwater_state::{AttachedTier, Block, ColdState, Cut, StateHeader, SweepProgress};

use crate::chain::{Base, Chains, DeltaLimits, Planned, RestoredBase};
use crate::dropped::{DroppedState, dropped_states};
use crate::finish::OnceFinish;
use crate::{Cause, TaskError, TaskSnapshot};

/// How a subtask works. The defaults suit most jobs.
#[derive(Clone, Debug)]
pub struct TaskSettings {
    /// Exactly once or at least once.
    pub mode: Mode,
    /// Whether checkpoints go on after some subtasks have ended.
    pub checkpoints_after_tasks_finish: bool,
    /// How many bytes may be under way on one channel, counted until they are processed; 512 KiB. Larger: fewer
    /// stops, more memory, slower barriers.
    pub window_bytes: u64,
    /// How many bytes may be under way to one subtask, over all its channels; 2 MiB. Channels for which that is not enough to
    /// have [`Self::window_bytes`] each have an equal part of it, at least 4 KiB; a single one has `window_bytes` whatever
    /// this says. It bounds the memory of a job whose channels are the square of its parallelism. Smaller: faster barriers
    /// where there are many channels.
    pub subtask_window_bytes: u64,
    /// How long a partly filled batch waits for more records; 1 ms.
    pub flush_delay: Duration,
    /// How many records a source reads in one quantum at the most; 1,024. Smaller: barriers are sent sooner after they are
    /// asked for, each record costs more.
    pub read_records: usize,
    /// How much of a snapshot is swept in one quantum; 128 KiB. Larger: the snapshot ends sooner, batches meanwhile
    /// take longer.
    pub sweep_step_bytes: usize,
    /// How much of a snapshot may wait to be written before the sweep pauses; 16 MiB.
    pub unwritten_limit_bytes: u64,
    /// How much may be kept because entries changed before they were swept; 256 MiB. Above it the snapshot is
    /// declined.
    pub undo_limit_bytes: u64,
    /// Whether, and how far, snapshots may hold only what has changed since another, which costs some time with each change of
    /// state. Default: they hold everything. A barrier names the checkpoint that they may build on.
    pub deltas: Option<DeltaLimits>,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            mode: Mode::ExactlyOnce,
            checkpoints_after_tasks_finish: true,
            window_bytes: 512 << 10,
            subtask_window_bytes: 2 << 20,
            flush_delay: Duration::from_millis(1),
            read_records: BATCH_RECORDS,
            sweep_step_bytes: 128 << 10,
            unwritten_limit_bytes: 16 << 20,
            undo_limit_bytes: 256 << 20,
            deltas: None,
        }
    }
}

/// The least that [`TaskSettings::subtask_window_bytes`] leaves to a channel.
const LEAST_WINDOW: u64 = 4 << 10;

impl TaskSettings {
    /// How many bytes may be under way on each of the `channels` that lead to a subtask. Sender and receiver must agree on it.
    #[must_use]
    pub fn channel_window(&self, channels: usize) -> u64 {
        let part = self.subtask_window_bytes.max(self.window_bytes) / (channels.max(1) as u64);
        part.max(LEAST_WINDOW).min(self.window_bytes)
    }
}

/// What a subtask is started as, and from what.
#[derive(Clone, Debug)]
pub struct TaskStart {
    /// The subtask.
    pub subtask: SubtaskId,
    /// Parallelism of the job; that of each task follows from its limit.
    pub parallelism: u32,
    /// How many key groups.
    pub max_parallelism: MaxParallelism,
    /// The reign of the coordinator.
    pub epoch: Epoch,
    /// The run within the epoch.
    pub attempt: Attempt,
    /// Whether the job starts from nothing; else from a checkpoint, which may hold nothing of a new task.
    pub from_nothing: bool,
    /// What the task's subtasks had in the restored checkpoint, all of them.
    pub restored: Vec<TaskSnapshot>,
    /// The snapshot that is restored into this subtask, if it is one that this very subtask took: with the same operators and
    /// key groups. Then later ones may build on it.
    pub base: Option<RestoredBase>,
    /// What lies below its tables of values by key, if anything: an empty tier of its own. Without [`TaskSettings::deltas`].
    pub tier: Option<AttachedTier>,
}

impl TaskStart {
    /// A first start without a checkpoint, with 128 key groups.
    #[must_use]
    pub fn fresh(task: TaskId, index: u32, parallelism: u32) -> Self {
        Self {
            subtask: SubtaskId { task, index },
            parallelism,
            max_parallelism: MaxParallelism::default(),
            epoch: Epoch(1),
            attempt: Attempt(1),
            from_nothing: true,
            restored: Vec::new(),
            base: None,
            tier: None,
        }
    }
}

/// What the host does next, in the order polled.
pub enum Action {
    /// Send an element.
    Send {
        /// Over this channel.
        output: OutputChannel,
        /// The element.
        element: Element,
    },
    /// Tell the sender on this channel that so many bytes were processed.
    Credit {
        /// The input channel.
        channel: ChannelId,
        /// The bytes.
        bytes: u64,
    },
    /// A snapshot has been cut: blocks of these states follow. A snapshot begun before and not complete is dropped.
    SnapshotBegun {
        /// The barrier it belongs to.
        barrier: Barrier,
        /// What it builds on; `None`: it holds everything. Without blocks it is what it builds on, or empty.
        base: Option<Base>,
        /// The states, in the order that blocks count them.
        states: Vec<StateHeader>,
        /// Of each of them its state in the tier below, if there is one. The blocks of such a state hold what has changed since
        /// the snapshot before: they are to be put into the tier, which after the last of them holds what the snapshot does.
        /// Say so with [`TaskCore::handle_applied`], or that it will not, also for a snapshot that is dropped: until then
        /// there is no other.
        cold: Vec<Option<ColdState>>,
        /// When the barriers were all in.
        cut_at: Moment,
        /// How long barriers waited for each other.
        aligned_for: Duration,
    },
    /// A part of the snapshot, to be written. Say so with [`TaskCore::handle_written`].
    Block {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The part.
        block: Block,
    },
    /// All blocks are out. Once they are written and `finish` has succeeded, acknowledge. If a `finish` fails, the attempt
    /// has failed: what it was to make durable is in no later snapshot either, and only a replay brings it back.
    SnapshotComplete {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What goes into the checkpoint's record.
        inline: TaskSnapshot,
        /// Blocking work of sinks, to be done first.
        finish: Vec<Finish>,
    },
    /// The snapshot is given up: what was written of it can go.
    SnapshotDropped {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Tell the coordinator that this subtask gives the checkpoint up.
    Decline {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// Whether it counts towards the tolerable failures.
        counted: bool,
    },
    /// Everything has been processed and sent. The subtask stays, to take part in checkpoints.
    EndOfData,
    /// Output prepared for a job without checkpoints, see [`TaskCore::handle_last_cut`]: run `finish`, then publish.
    LastCut {
        /// The handles, as operator snapshots.
        handles: Vec<OperatorSnapshot>,
        /// Blocking work of sinks, to be done first.
        finish: Vec<Finish>,
    },
}

/// Whether [`TaskCore::run`] should be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Soon.
    Busy,
    /// After the next `handle_*`, or at [`TaskCore::next_deadline`].
    Idle,
}

/// One input channel.
struct Input {
    /// Which input of the first operator it leads to.
    input: u8,
    stash: VecDeque<Element>,
    watermark: Timestamp,
    /// Its sender has said that it is idle.
    idle: bool,
    /// Whether its watermark counts: not while it is idle, and after that not before it has caught up with what the other
    /// channels have made of the watermark meanwhile. Source: Flink's `StatusWatermarkValve`.
    aligned: bool,
    ended: bool,
    credit: u64,
}

impl Input {
    /// Whether more is to come that the watermark may have to wait for.
    fn is_open(&self) -> bool {
        !self.ended && self.watermark < Timestamp::MAX
    }
}

struct Running {
    checkpoint: CheckpointId,
    /// Which state is being swept.
    state: usize,
    unwritten: u64,
    cut: Cut,
    planned: Planned,
    bytes: u64,
    inline: TaskSnapshot,
    finish: Vec<Finish>,
}

/// Output that was prepared and is not known to be published. Each later snapshot has it again: the checkpoint that it was
/// prepared for may come to nothing while the attempt goes on, or complete and be overtaken by the next one before its
/// output is published.
struct Unpublished {
    checkpoint: CheckpointId,
    handle: OperatorSnapshot,
    finish: Option<OnceFinish>,
}

/// One subtask. See the crate's page.
pub struct TaskCore {
    subtask: SubtaskId,
    operators: Vec<String>,
    chain: Box<dyn Chain>,
    dropped: Vec<DroppedState>,
    exec: Exec,
    settings: TaskSettings,
    inputs: Vec<Input>,
    /// Of each input channel, in bytes.
    window: u64,
    /// The channel that is asked first.
    turn: usize,
    aligner: Aligner,
    watermark: Timestamp,
    /// Whether the receivers were told that this subtask is idle. A source tells them itself.
    idle: bool,
    /// A moment, and what the wall clock showed then.
    wall: (Moment, i64),
    /// The watermark whose timers are being fired.
    advancing: Option<Timestamp>,
    running: Option<Running>,
    /// What snapshots may build on, if they may.
    chains: Option<Chains>,
    /// Whether the states note what changes.
    tracking: bool,
    unpublished: Vec<Unpublished>,
    source_wait: Moment,
    /// After the barrier of this checkpoint the source reads nothing, and whether it has passed.
    hold: Option<(CheckpointId, bool)>,
    newest_trigger: CheckpointId,
    drain: bool,
    flush_at: Option<Moment>,
    ended: bool,
    last_cut: bool,
    tier: Option<AttachedTier>,
    /// The snapshot that is put into the tier below, and its cut.
    applying: Option<(CheckpointId, Cut)>,
    /// What has changed since that cut takes all the memory that it may.
    crowded: bool,
    /// See [`Self::is_amid`].
    amid: bool,
    /// Records of the batch at hand, for reports.
    actions: VecDeque<Action>,
}

/// Control elements handled in one quantum at the most.
const CONTROLS: usize = 64;

impl TaskCore {
    /// Builds the subtask's operators and opens its input and output.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if user code or a connector refuses.
    pub fn new(graph: &JobGraph, start: &TaskStart, settings: TaskSettings) -> Result<Self, TaskError> {
        let spec = &graph.tasks()[start.subtask.task.0 as usize];
        let parallelism = spec.parallelism(start.parallelism);
        let outputs: Vec<_> = spec
            .outputs
            .iter()
            .map(|output| {
                let reader = graph.reader(output.edge);
                let window = settings.channel_window(graph.channels(reader.task, start.parallelism).count());
                (output.edge, reader.parallelism(start.parallelism), window)
            })
            .collect();
        let receivers: Vec<_> = outputs.iter().map(|(_, receivers, _)| *receivers).collect();
        let watermark = start.restored.iter().map(TaskSnapshot::watermark).min().unwrap_or(Timestamp::MIN);
        let restored: Vec<_> = start.restored.iter().flat_map(|part| part.operators.iter().cloned()).collect();
        let claimed = ClaimedStates::default();
        let context = BuildContext {
            job: graph.name(),
            subtask: start.subtask,
            parallelism,
            max_parallelism: start.max_parallelism,
            receivers: &receivers,
            epoch: start.epoch,
            attempt: start.attempt,
            watermark,
            from_nothing: start.from_nothing,
            restored: &restored,
            claimed: &claimed,
            tier: start.tier.as_ref(),
        };
        let failed = |cause| TaskError { subtask: start.subtask, operator: spec.name(), position: None, cause };
        let mut chain = (spec.build)(&context).map_err(|error| failed(Cause::of_build(error)))?;
        let has_cold = chain.states().iter().any(|state| state.cold().is_some());
        let dropped = dropped_states(spec, &restored, &claimed);
        let dropped = dropped.map_err(|error| failed(Cause::Restore(Box::new(error))))?;
        let input = |input| Input {
            input,
            stash: VecDeque::new(),
            watermark,
            idle: false,
            aligned: true,
            ended: false,
            credit: 0,
        };
        let channels = graph.channels(start.subtask.task, start.parallelism);
        let inputs: Vec<_> = channels.map(|(edge, _)| input(edge.input)).collect();
        let channels = u32::try_from(inputs.len()).expect("a subtask has fewer channels than 2^32");
        Ok(Self {
            subtask: start.subtask,
            operators: spec
                .operators
                .iter()
                .map(|operator| operator.uid.as_ref().map_or(operator.name.to_owned(), ToString::to_string))
                .collect(),
            tier: start.tier.clone().filter(|_| has_cold),
            chain,
            dropped,
            exec: Exec::new(Outbox::new(&outputs)),
            window: settings.channel_window(inputs.len()),
            inputs,
            turn: 0,
            aligner: Aligner::new(settings.mode, channels, settings.checkpoints_after_tasks_finish),
            watermark,
            idle: false,
            wall: (Moment::ZERO, 0),
            advancing: None,
            running: None,
            // What has changed in a tier is in the files of its own, if the snapshot is of these.
            chains: settings
                .deltas
                .filter(|_| start.tier.is_none())
                .map(|limits| Chains::new(limits, start.base.as_ref())),
            tracking: false,
            unpublished: Vec::new(),
            source_wait: Moment::ZERO,
            hold: None,
            settings,
            newest_trigger: CheckpointId(0),
            drain: false,
            flush_at: None,
            ended: false,
            last_cut: false,
            applying: None,
            crowded: false,
            amid: false,
            actions: VecDeque::new(),
        })
    }

    /// Which subtask this is.
    #[must_use]
    pub fn subtask(&self) -> SubtaskId {
        self.subtask
    }

    /// How many records it has processed or read in this attempt.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.exec.records
    }

    /// Whether it waits for the tier below its tables: state changes faster than the tier takes a snapshot of it, and memory for
    /// what has changed meanwhile is used up. It goes on with [`Self::handle_applied`].
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Whether it waits for credit: its receivers are slower than it is.
    #[must_use]
    pub fn is_backpressured(&self) -> bool {
        self.exec.outbox.is_blocked()
    }

    /// What lies below its tables, if it has any that can have something below.
    #[must_use]
    pub fn tier(&self) -> Option<&AttachedTier> {
        self.tier.as_ref()
    }

    /// The watermark of its input.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The keyed states, to restore blocks into before the first element. Their order is that of
    /// [`Action::SnapshotBegun`].
    pub fn states(&mut self) -> Vec<&mut dyn cutwater_state::Snapshotable> {
        self.chain.states()
    }

    /// The operator states that the restored checkpoint has items of and no operator of the task declares any more. They are
    /// not restored: whoever does not want to lose them must not run the task.
    #[must_use]
    pub fn dropped_states(&self) -> &[DroppedState] {
        &self.dropped
    }

    /// Tells that the wall clock shows `unix_ms`, milliseconds since 1970-01-01 UTC, at `now`: the time that timers of
    /// processing time and times-to-live go by. To be called before the first [`Self::run`], and again from time to time,
    /// since wall clocks are set. For user code the time never goes back. Without a call it begins as 0 at
    /// [`Moment::ZERO`].
    pub fn set_wall_clock(&mut self, now: Moment, unix_ms: u64) {
        self.wall = (now, i64::try_from(unix_ms).unwrap_or(i64::MAX));
    }

    /// An element arrived. It waits in the stash for [`Self::run`].
    pub fn handle_element(&mut self, _now: Moment, channel: ChannelId, element: Element) {
        if let Some(input) = self.inputs.get_mut(channel.0 as usize) {
            input.stash.push_back(element);
        }
    }

    /// A receiver has processed so many bytes.
    pub fn handle_credit(&mut self, output: OutputChannel, bytes: u64) {
        self.exec.outbox.credit(output, bytes);
    }

    /// The coordinator asks for a checkpoint.
    pub fn handle_trigger(&mut self, now: Moment, barrier: Barrier) {
        self.newest_trigger = self.newest_trigger.max(barrier.checkpoint);
        self.hold = self.hold.filter(|(held, _)| *held >= barrier.checkpoint);
        self.aligner.handle_trigger(now, barrier);
    }

    /// A source reads nothing after the barrier of this checkpoint, unless the checkpoint is given up: the job is to stop
    /// behind it. Comes before its trigger. For other subtasks it means nothing.
    ///
    /// A newer trigger says that it was given up as well: nothing begins after one that completes.
    pub fn handle_hold(&mut self, checkpoint: CheckpointId) {
        let newer = self.newest_trigger.max(self.hold.map_or(CheckpointId(0), |(held, _)| held));
        if self.inputs.is_empty() && checkpoint > newer {
            self.hold = Some((checkpoint, false));
        }
    }

    /// A source ends now, as if there were no more data, also one that is held: a drain gives up the checkpoint that it was held
    /// for, and none comes before it has ended. For other subtasks it means nothing.
    pub fn handle_drain(&mut self) {
        self.drain = self.inputs.is_empty();
        self.hold = None;
    }

    /// The coordinator says that the checkpoint is dead.
    pub fn handle_abort(&mut self, checkpoint: CheckpointId) {
        self.hold = self.hold.filter(|(held, _)| *held != checkpoint);
        self.aligner.handle_abort(checkpoint);
        if self.running.as_ref().is_some_and(|running| running.checkpoint == checkpoint) {
            self.drop_snapshot();
        }
    }

    /// All output that was prepared up to this checkpoint has been published: later snapshots need not have it again.
    /// Without this word the handles of all checkpoints of the attempt go into each snapshot.
    pub fn handle_published(&mut self, checkpoint: CheckpointId) {
        self.unpublished.retain(|output| output.checkpoint > checkpoint);
    }

    /// So many bytes of blocks have been written.
    pub fn handle_written(&mut self, checkpoint: CheckpointId, bytes: u64) {
        if let Some(running) = self.running.as_mut().filter(|running| running.checkpoint == checkpoint) {
            running.unwritten = running.unwritten.saturating_sub(bytes);
        }
    }

    /// The tier below has the whole snapshot of this checkpoint, if `applied`; else it has none or a part of it, and nothing more
    /// of it will be put there.
    pub fn handle_applied(&mut self, checkpoint: CheckpointId, applied: bool) {
        let Some((_, cut)) = self.applying.filter(|(applying, _)| *applying == checkpoint) else { return };
        if self.running.as_ref().is_some_and(|running| running.checkpoint == checkpoint) {
            self.drop_snapshot(); // whoever writes it has given up
        }
        (self.applying, self.crowded) = (None, false);
        for state in self.chain.states() {
            match applied {
                true => state.applied(cut),
                false => state.not_applied(),
            }
        }
    }

    /// The job has no checkpoints and all its subtasks are at the end of data: prepare what sinks still hold.
    pub fn handle_last_cut(&mut self) {
        self.last_cut = true;
    }

    /// Does one bounded quantum of work: at most [`BATCH_RECORDS`] records, timers or a few control elements, and a
    /// step of a running sweep.
    ///
    /// # Errors
    ///
    /// [`TaskError`]: the attempt is over, and the core must not be run again. User code may also panic out of here;
    /// then [`Self::fault`] tells where.
    pub fn run(&mut self, now: Moment) -> Result<Progress, TaskError> {
        self.exec.now = now;
        self.exec.wall = self.exec.wall.max(self.wall_at(now));
        if self.chains.is_some() && !std::mem::replace(&mut self.tracking, true) {
            self.chain.states().into_iter().for_each(|state| state.track_changes());
        }
        self.settle(now)?;
        self.sweep()?;
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.chain.flush(&mut self.exec);
        }
        self.amid = false;
        self.crowded = self.applying.is_some() && self.chain.states().iter().any(|state| state.is_crowded());
        let fired = self.fire()?;
        let worked = if self.crowded {
            false
        } else if let Some(watermark) = self.advancing {
            self.advance(watermark)?
        } else if self.exec.outbox.is_blocked() || self.ended {
            false
        } else if self.inputs.is_empty() {
            self.read(now)?
        } else {
            self.take(now)?
        };
        let worked = worked || fired;
        self.settle(now)?;
        if std::mem::take(&mut self.last_cut) {
            self.cut_last()?;
        }
        let sweeping = self.running.as_ref().is_some_and(|it| it.unwritten < self.settings.unwritten_limit_bytes);
        if worked && self.exec.outbox.channels() > 0 && self.flush_at.is_none() {
            self.flush_at = Some(now + self.settings.flush_delay);
        }
        if worked || sweeping {
            return Ok(Progress::Busy);
        }
        self.return_credit();
        Ok(Progress::Idle)
    }

    /// Whether the last quantum ended in the midst of a batch only because much of what its records need was not in memory: the
    /// rest should follow before it is the turn of others, or those would get on faster than this one.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.amid
    }

    /// The next thing to do. Drain to `None` after each `handle_*` and `run`.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some((output, element)) = self.exec.outbox.pop() {
            return Some(Action::Send { output, element });
        }
        self.actions.pop_front()
    }

    /// When to call [`Self::run`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let reads = self.inputs.is_empty() && !self.ended && !self.is_held();
        let read = (reads && self.source_wait > self.exec.now).then_some(self.source_wait);
        [self.flush_at, read, self.timer_deadline()].into_iter().flatten().min()
    }

    /// What the wall clock shows at `now`.
    fn wall_at(&self, now: Moment) -> Timestamp {
        let (then, millis) = self.wall;
        let since = i64::try_from(now.since(then).as_millis()).unwrap_or(i64::MAX);
        Timestamp(millis.saturating_add(since))
    }

    /// Whether timers of processing time may fire: not among those of an advancing watermark, not without credit, not while
    /// there is no memory for what they change, and not behind the end of the output.
    fn may_fire(&self) -> bool {
        self.advancing.is_none() && !self.crowded && !self.ended && !self.exec.outbox.is_blocked()
    }

    /// When the first timer of processing time is due, if it may fire.
    fn timer_deadline(&self) -> Option<Moment> {
        let due = self.chain.processing_due().filter(|_| self.may_fire())?;
        if due <= self.exec.wall {
            return Some(self.exec.now);
        }
        let (then, millis) = self.wall;
        let after = u64::try_from(due.0.saturating_sub(millis)).unwrap_or(0);
        Some(then + Duration::from_millis(after))
    }

    /// Fires timers of processing time that are due.
    fn fire(&mut self) -> Result<bool, TaskError> {
        let due = self.chain.processing_due().is_some_and(|due| due <= self.exec.wall);
        if !due || !self.may_fire() {
            return Ok(false);
        }
        let fired = self.chain.advance_processing(&mut self.exec, BATCH_RECORDS);
        fired.map_err(|error| self.fault(Cause::User(error)))?;
        Ok(true)
    }

    /// Says where the subtask was when `cause` came up.
    #[must_use]
    pub fn fault(&self, cause: Cause) -> TaskError {
        let operator = self.operators.get(usize::from(self.exec.running)).cloned().unwrap_or_default();
        TaskError { subtask: self.subtask, operator, position: self.exec.at(), cause }
    }

    fn is_held(&self) -> bool {
        self.hold.is_some_and(|(_, passed)| passed)
    }

    /// Reads a quantum of the source.
    fn read(&mut self, now: Moment) -> Result<bool, TaskError> {
        if self.is_held() {
            return Ok(false);
        }
        if std::mem::take(&mut self.drain) {
            let drained = self.chain.drain(&mut self.exec);
            drained.map_err(|error| self.fault(Cause::User(error)))?;
            self.end();
            return Ok(true);
        }
        if self.source_wait > now {
            return Ok(false);
        }
        let read = self.chain.read(&mut self.exec, self.settings.read_records);
        match read.map_err(|error| self.fault(Cause::User(error)))? {
            SourcePoll::More => self.source_wait = Moment::ZERO,
            SourcePoll::WaitUntil(moment) => {
                self.source_wait = moment;
                return Ok(false);
            }
            SourcePoll::End => self.end(),
        }
        Ok(true)
    }

    /// Takes elements from the channels in turn, up to one batch.
    fn take(&mut self, now: Moment) -> Result<bool, TaskError> {
        for taken in 0..CONTROLS {
            let Some(at) = self.next_channel() else { return Ok(taken > 0) };
            let channel = ChannelId(u32::try_from(at).expect("as many channels as subtasks"));
            let Some(element) = self.inputs[at].stash.pop_front() else { return Ok(taken > 0) };
            match element {
                Element::Batch(batch) => {
                    let bytes = batch.bytes();
                    self.exec.input = self.inputs[at].input;
                    let rest = self.chain.process(&mut self.exec, batch);
                    let input = &mut self.inputs[at];
                    match rest {
                        Ok(Some(rest)) => {
                            input.stash.push_front(Element::Batch(rest));
                            self.amid = !self.exec.outbox.is_blocked();
                        }
                        Ok(None) => {
                            input.credit += bytes;
                            if input.credit >= self.window / 4 {
                                let bytes = std::mem::take(&mut input.credit);
                                self.actions.push_back(Action::Credit { channel, bytes });
                            }
                            self.turn = at + 1;
                        }
                        Err(error) => return Err(self.fault(Cause::User(error))),
                    }
                    return Ok(true);
                }
                Element::Watermark(watermark) => {
                    let input = &mut self.inputs[at];
                    input.watermark = input.watermark.max(watermark);
                    input.aligned |= !input.idle && input.watermark >= self.watermark;
                    self.raise();
                }
                Element::Idle => {
                    let input = &mut self.inputs[at];
                    (input.idle, input.aligned) = (true, false);
                    self.raise();
                }
                Element::Active => {
                    let input = &mut self.inputs[at];
                    (input.idle, input.aligned) = (false, input.watermark >= self.watermark);
                }
                Element::Barrier(barrier) => {
                    let handled = self.aligner.handle_barrier(now, channel, barrier);
                    handled.map_err(|violation| self.fault(violation.into()))?;
                }
                Element::CancelBarrier(checkpoint) => {
                    let handled = self.aligner.handle_cancel(now, channel, checkpoint);
                    handled.map_err(|violation| self.fault(violation.into()))?;
                }
                Element::End => {
                    self.inputs[at].ended = true;
                    self.raise();
                    let handled = self.aligner.handle_end(now, channel);
                    handled.map_err(|violation| self.fault(violation.into()))?;
                }
            }
            self.tell_status();
            self.settle(now)?;
            if self.advancing.is_some() {
                return Ok(true); // timers first: nothing may be cut in their midst
            }
            if self.inputs.iter().all(|input| input.ended) {
                self.end();
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The next channel with something to take, in turn.
    fn next_channel(&self) -> Option<usize> {
        let count = self.inputs.len();
        (0..count).map(|step| (self.turn + step) % count).find(|&at| {
            let channel = ChannelId(u32::try_from(at).expect("as many channels as subtasks"));
            !self.inputs[at].stash.is_empty() && !self.aligner.is_paused(channel)
        })
    }

    /// Begins to advance if the lowest watermark of the open channels that count has risen. If all open ones are idle nothing
    /// is waited for, and the highest of them counts.
    fn raise(&mut self) {
        let open = || self.inputs.iter().filter(|input| input.is_open());
        let target = match open().filter(|input| input.aligned).map(|input| input.watermark).min() {
            Some(lowest) => lowest,
            None if open().all(|input| input.idle) => {
                open().map(|input| input.watermark).max().unwrap_or(Timestamp::MAX)
            }
            None => return, // those that are not idle have still to catch up
        };
        if target > self.watermark {
            self.advancing = Some(target);
        }
    }

    /// Tells the receivers whether all open channels are idle, if that has changed; behind the watermark that it made.
    fn tell_status(&mut self) {
        let mut open = self.inputs.iter().filter(|input| input.is_open()).peekable();
        let idle = open.peek().is_some() && open.all(|input| input.idle);
        if idle == self.idle || self.advancing.is_some() {
            return;
        }
        self.idle = idle;
        self.chain.flush(&mut self.exec);
        self.exec.outbox.broadcast(|| if idle { Element::Idle } else { Element::Active });
    }

    fn advance(&mut self, watermark: Timestamp) -> Result<bool, TaskError> {
        if self.exec.outbox.is_blocked() {
            return Ok(false);
        }
        let done = self.chain.advance(&mut self.exec, watermark, BATCH_RECORDS);
        if done.map_err(|error| self.fault(Cause::User(error)))? {
            self.watermark = watermark;
            self.advancing = None;
            self.tell_status();
            if !self.ended && self.inputs.iter().all(|input| input.ended) {
                self.end();
            }
        }
        Ok(true)
    }

    /// All input is processed.
    fn end(&mut self) {
        self.chain.flush(&mut self.exec);
        self.exec.outbox.broadcast(|| Element::End);
        self.ended = true;
        self.actions.push_back(Action::EndOfData);
    }

    /// Does what the aligner asks for.
    fn settle(&mut self, now: Moment) -> Result<(), TaskError> {
        // Timers that fire belong before the barrier: nothing is cut in their midst.
        while self.advancing.is_none()
            && let Some(action) = self.aligner.poll_action()
        {
            match action {
                AlignerAction::Pause(_) | AlignerAction::Resume(_) => {} // `next_channel` asks
                AlignerAction::Snapshot { barrier, aligned_for } => self.cut(now, barrier, aligned_for)?,
                AlignerAction::Decline { checkpoint, reason } => {
                    self.actions.push_back(Action::Decline { checkpoint, reason: reason.to_string(), counted: false });
                }
                AlignerAction::ForwardCancel(checkpoint) => {
                    if !self.ended {
                        self.chain.flush(&mut self.exec);
                        self.exec.outbox.broadcast(|| Element::CancelBarrier(checkpoint));
                    }
                }
            }
        }
        Ok(())
    }

    /// The synchronous part of a snapshot: freeze, note, send the barrier on.
    fn cut(&mut self, now: Moment, barrier: Barrier, aligned_for: Duration) -> Result<(), TaskError> {
        self.drop_snapshot(); // one that is still being swept was given up by the coordinator
        let checkpoint = barrier.checkpoint;
        self.chain.flush(&mut self.exec);
        if let Some((before, _)) = self.applying {
            let reason =
                format!("the state of checkpoint {before} is still being written to the tier below the tables");
            self.actions.push_back(Action::Decline { checkpoint, reason, counted: false });
            self.forward(barrier);
            return Ok(());
        }
        self.exec.enter(None, false, 0); // an error from here on is of no record
        let (operators, finish) = self.cut_operators(checkpoint)?;
        let mut states = self.chain.states();
        let planned = self.chains.as_mut().map_or(Planned::FULL, |chains| chains.plan(barrier.base, &mut states));
        let cut = states.iter_mut().map(|state| state.cut_since(planned.since)).last();
        let cold: Vec<_> = states.iter().map(|state| state.cold()).collect();
        let states = states.iter().map(|state| state.header()).collect();
        if let Some((_, passed)) = self.hold.as_mut().filter(|(held, _)| *held == checkpoint) {
            *passed = true;
        }
        let inline = TaskSnapshot { watermark: self.watermark.0, records: self.exec.records, operators };
        let cut = cut.unwrap_or(Cut::RESTORED); // without a state there is nothing to build on
        self.running = Some(Running { checkpoint, state: 0, unwritten: 0, cut, planned, bytes: 0, inline, finish });
        self.applying = cold.iter().any(Option::is_some).then_some((checkpoint, cut));
        let base = planned.base;
        self.actions.push_back(Action::SnapshotBegun { barrier, base, states, cold, cut_at: now, aligned_for });
        self.forward(barrier);
        Ok(())
    }

    fn forward(&mut self, barrier: Barrier) {
        if !self.ended {
            self.exec.outbox.broadcast(|| Element::Barrier(barrier));
        }
    }

    fn cut_operators(&mut self, checkpoint: CheckpointId) -> Result<(Vec<OperatorSnapshot>, Vec<Finish>), TaskError> {
        let mut parts = ChainSnapshot::default();
        let taken = self.chain.snapshot(&mut self.exec, checkpoint, &mut parts);
        taken.map_err(|error| self.fault(Cause::User(error)))?;
        for (operator, prepared) in parts.prepared {
            let handle = OperatorSnapshot { operator, kind: SnapshotKind::PreparedOutput, payload: prepared.handle };
            let finish = prepared.finish.map(OnceFinish::new);
            self.unpublished.push(Unpublished { checkpoint, handle, finish });
        }
        let mut operators = parts.operators;
        operators.extend(self.unpublished.iter().map(|output| output.handle.clone()));
        let finish = self.unpublished.iter().filter_map(|output| Some(output.finish.as_ref()?.again())).collect();
        Ok((operators, finish))
    }

    fn cut_last(&mut self) -> Result<(), TaskError> {
        let (operators, finish) = self.cut_operators(CheckpointId(0))?;
        let handles = operators.into_iter().filter(|part| part.kind == SnapshotKind::PreparedOutput).collect();
        self.actions.push_back(Action::LastCut { handles, finish });
        Ok(())
    }

    /// Sweeps a step of the running snapshot.
    fn sweep(&mut self) -> Result<(), TaskError> {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        if running.unwritten >= self.settings.unwritten_limit_bytes {
            return self.check_undo();
        }
        let checkpoint = running.checkpoint;
        let mut states = self.chain.states();
        let mut budget = self.settings.sweep_step_bytes;
        while let Some(state) = states.get_mut(running.state) {
            let index = u16::try_from(running.state).expect("an operator has few states");
            let (actions, unwritten, all) = (&mut self.actions, &mut running.unwritten, &mut running.bytes);
            let swept = state.sweep(budget, &mut |mut block| {
                block.state = index;
                let bytes = block.payload.len();
                *unwritten += bytes as u64;
                *all += bytes as u64;
                budget = budget.saturating_sub(bytes);
                actions.push_back(Action::Block { checkpoint, block });
            });
            match swept {
                Ok(SweepProgress::Done) => running.state += 1,
                Ok(SweepProgress::More) => return self.check_undo(),
                Err(error) => {
                    let reason = error.to_string();
                    self.actions.push_back(Action::Decline { checkpoint, reason, counted: true });
                    self.drop_snapshot();
                    return Ok(());
                }
            }
            if budget == 0 && running.state < states.len() {
                return self.check_undo();
            }
        }
        if let Some(Running { checkpoint, cut, planned, bytes, inline, finish, .. }) = self.running.take() {
            if let Some(chains) = &mut self.chains {
                chains.taken(checkpoint, cut, &planned, bytes);
            }
            self.actions.push_back(Action::SnapshotComplete { checkpoint, inline, finish });
        }
        Ok(())
    }

    /// Declines the running snapshot if too much is kept for it.
    fn check_undo(&mut self) -> Result<(), TaskError> {
        let kept: u64 = self.chain.states().iter().map(|state| state.undo_bytes()).sum();
        if kept > self.settings.undo_limit_bytes
            && let Some(running) = &self.running
        {
            let (checkpoint, limit) = (running.checkpoint, self.settings.undo_limit_bytes);
            let reason = format!("{kept} bytes of old values wait to be written, the limit is {limit}");
            self.actions.push_back(Action::Decline { checkpoint, reason, counted: true });
            self.drop_snapshot();
        }
        Ok(())
    }

    fn drop_snapshot(&mut self) {
        if let Some(running) = self.running.take() {
            for state in self.chain.states() {
                state.abort();
            }
            self.actions.push_back(Action::SnapshotDropped { checkpoint: running.checkpoint });
        }
    }

    /// Returns credit that was held back to be returned in larger pieces.
    fn return_credit(&mut self) {
        for (at, input) in (0u32..).zip(&mut self.inputs) {
            if input.credit > 0 {
                let bytes = std::mem::take(&mut input.credit);
                self.actions.push_back(Action::Credit { channel: ChannelId(at), bytes });
            }
        }
    }
}
