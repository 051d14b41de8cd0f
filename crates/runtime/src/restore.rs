//! Builds the subtasks of an attempt and fills them from a checkpoint.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::io;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, FileRef, checkpoint_of_snapshot};
use cutwater_core::{Attempt, Epoch, MaxParallelism, OperatorUid, SubtaskId};
use cutwater_dataflow::JobGraph;
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_state::format::{ReadAt, SnapshotHeader, SnapshotReader};
use cutwater_state::{Block, BlockKind, StateError};
use cutwater_storage::{ObjectName, ObjectReader, Store};
use cutwater_task::{Cause, DroppedState, RestoredBase, TaskCore, TaskError, TaskSettings, TaskSnapshot, TaskStart};

use crate::clock::Clock;
use crate::error::{Failure, RestoreError, UnclaimedState, check_parallelism};
use crate::host::guarded;
use crate::job::IgnoreUnclaimed;
use crate::upload::Chains;

/// A checkpoint with the store that its files are in.
#[derive(Clone)]
pub(crate) struct RestorePoint {
    pub(crate) checkpoint: CompletedCheckpoint,
    pub(crate) store: std::sync::Arc<dyn Store>,
}

pub(crate) struct Build<'a> {
    pub(crate) graph: &'a JobGraph,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) settings: &'a TaskSettings,
    pub(crate) restore: Option<&'a RestorePoint>,
    pub(crate) ignored: &'a IgnoreUnclaimed,
    /// Whether the checkpoint is of another folder.
    pub(crate) foreign: bool,
    /// Where to note what snapshots may build on.
    pub(crate) chains: &'a Mutex<Chains>,
    pub(crate) clock: Clock,
}

/// Checks, before anything is published or restored, that the checkpoint is one of this job.
pub(crate) fn check(
    graph: &JobGraph,
    point: &RestorePoint,
    parallelism: u32,
    ignored: &IgnoreUnclaimed,
) -> Result<(), RestoreError> {
    let known: BTreeSet<_> = graph.tasks().iter().flat_map(|task| task.uids()).collect();
    let stored = point.checkpoint.tasks.iter().flat_map(|task| &task.operators);
    let unclaimed: BTreeSet<_> =
        stored.filter(|operator| !known.contains(operator) && !ignored.covers(operator)).collect();
    if !unclaimed.is_empty() {
        let state = |operator: &OperatorUid| UnclaimedState {
            operator: operator.clone(),
            bytes: bytes_of(point, operator).ok(),
        };
        return Err(RestoreError::Unclaimed { operators: unclaimed.into_iter().map(state).collect() });
    }
    check_parallelism(parallelism, point.checkpoint.max_parallelism)
}

/// The operators of the job of which the checkpoint has nothing.
pub(crate) fn new_operators(graph: &JobGraph, checkpoint: &CompletedCheckpoint) -> Vec<OperatorUid> {
    let stored: BTreeSet<_> = checkpoint.tasks.iter().flat_map(|task| &task.operators).collect();
    let known: BTreeSet<_> = graph.tasks().iter().flat_map(|task| task.uids()).collect();
    known.difference(&stored).map(|operator| (*operator).clone()).collect()
}

/// How many bytes of state the checkpoint holds of an operator: in its files by key, in its record without.
fn bytes_of(point: &RestorePoint, operator: &OperatorUid) -> Result<u64, RestoreError> {
    let tasks = point.checkpoint.tasks.iter().filter(|task| task.operators.contains(operator));
    let mut bytes = 0;
    for subtask in tasks.clone().flat_map(|task| &task.subtasks) {
        let parts = TaskSnapshot::decode(&subtask.inline)?.operators;
        let own = parts.iter().filter(|part| part.kind == SnapshotKind::OperatorState && part.operator == *operator);
        bytes += own.map(|part| part.payload.len() as u64).sum::<u64>();
    }
    for file in tasks.flat_map(|task| &task.subtasks).flat_map(|subtask| &subtask.files) {
        let (url, name) = (point.store.url(), file.name.clone());
        let reader = point.store.open(&ObjectName::parse(&file.name)?)?;
        let reader = File(reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?);
        let snapshot = SnapshotReader::open(&reader).map_err(|source| RestoreError::File { url, name, source })?;
        for (place, _) in (0u16..).zip(&snapshot.header().states).filter(|(_, state)| state.operator == *operator) {
            let own = snapshot.blocks().iter().filter(|block| block.state == place);
            bytes += own.map(|block| u64::from(block.length)).sum::<u64>();
        }
    }
    Ok(bytes)
}

impl Build<'_> {
    /// All subtasks, in order, and how long each took. Their state is restored side by side.
    pub(crate) fn all(&self) -> Result<(Vec<TaskCore>, Vec<Duration>), Failure> {
        let subtasks: Vec<_> = self
            .graph
            .tasks()
            .iter()
            .flat_map(|task| (0..task.parallelism(self.parallelism)).map(|index| SubtaskId { task: task.task, index }))
            .collect();
        let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let (mut cores, mut took) = (Vec::with_capacity(subtasks.len()), Vec::with_capacity(subtasks.len()));
        for some in subtasks.chunks(threads) {
            let built: Vec<_> = std::thread::scope(|scope| {
                let build = |subtask| {
                    let begun = self.clock.now();
                    (self.guarded(subtask), self.clock.now().since(begun))
                };
                let running: Vec<_> = some.iter().map(|subtask| scope.spawn(move || build(*subtask))).collect();
                running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
            });
            for built in built {
                let (core, duration) = built.expect("panics were caught inside");
                cores.push(core?);
                took.push(duration);
            }
        }
        Ok((cores, took))
    }

    /// Builds one subtask; a panic of user code becomes a failure of the attempt.
    fn guarded(&self, subtask: SubtaskId) -> Result<TaskCore, Failure> {
        guarded(|| self.one(subtask)).unwrap_or_else(|(message, at)| {
            Err(Failure::Task(TaskError {
                subtask,
                operator: self.graph.tasks()[subtask.task.0 as usize].name(),
                position: None,
                cause: Cause::Panic { message, at },
            }))
        })
    }

    fn one(&self, subtask: SubtaskId) -> Result<TaskCore, Failure> {
        let spec = &self.graph.tasks()[subtask.task.0 as usize];
        let mut start = TaskStart {
            subtask,
            parallelism: self.parallelism,
            max_parallelism: self.max_parallelism,
            epoch: self.epoch,
            attempt: self.attempt,
            from_nothing: self.restore.is_none(),
            restored: Vec::new(),
            base: None,
        };
        let mut files = Vec::new();
        if let Some(point) = self.restore {
            let failed = |source| Failure::Restore { checkpoint: point.checkpoint.checkpoint, source };
            let mine = |task: &&cutwater_coordinator::TaskSnapshot| {
                task.operators.iter().any(|operator| spec.uids().any(|uid| uid == operator))
            };
            for part in point.checkpoint.tasks.iter().filter(mine).flat_map(|task| &task.subtasks) {
                let inline = TaskSnapshot::decode(&part.inline).map_err(|error| failed(error.into()))?;
                start.restored.push(inline);
                files.push(&part.files);
            }
            if let Some(own) = self.own_part(point, subtask) {
                let bytes = own.iter().map(|file| file.bytes).collect();
                start.base = Some(RestoredBase { checkpoint: point.checkpoint.checkpoint, files: bytes });
                let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
                chains.entry(subtask).or_default().insert(point.checkpoint.checkpoint, own.clone());
            }
        }
        let mut core = self.core(&start)?;
        if let Some(point) = self.restore {
            let lost = core.dropped_states().iter().find(|lost| !self.ignored.covers(&lost.operator));
            if let Some(DroppedState { operator, state, kind }) = lost.cloned() {
                let source = RestoreError::UnknownState { operator, state, kind };
                return Err(Failure::Restore { checkpoint: point.checkpoint.checkpoint, source });
            }
            let range = self.max_parallelism.range_of(subtask.index, spec.parallelism(self.parallelism));
            for part in files {
                let mut before = None;
                for file in part {
                    let mine = |operator: &OperatorUid| spec.uids().any(|uid| uid == operator);
                    let restored = restore_file(&mut core, point, file, &mut before, range, mine, self.ignored);
                    restored.map_err(|source| Failure::Restore { checkpoint: point.checkpoint.checkpoint, source })?;
                }
            }
        }
        Ok(core)
    }

    /// The files of the one part that becomes this subtask, if it is one of its own, with the same operators and key groups, and
    /// nothing of it is left out: then later snapshots can build on it.
    fn own_part<'p>(&self, point: &'p RestorePoint, subtask: SubtaskId) -> Option<&'p Vec<FileRef>> {
        let spec = &self.graph.tasks()[subtask.task.0 as usize];
        let known: BTreeSet<_> = spec.uids().collect();
        let mut tasks = point.checkpoint.tasks.iter();
        let task = tasks.find(|task| task.operators.iter().collect::<BTreeSet<_>>() == known)?;
        let same = task.parallelism == spec.parallelism(self.parallelism);
        let whole = same && !self.foreign && *self.ignored == IgnoreUnclaimed::No;
        let mut parts = task.subtasks.iter().filter(|_| whole);
        parts.find(|part| part.subtask.index == subtask.index).map(|part| &part.files)
    }
}

impl Build<'_> {
    /// The subtask with its operator states; its tables are empty.
    fn core(&self, start: &TaskStart) -> Result<TaskCore, Failure> {
        TaskCore::new(self.graph, start, self.settings.clone()).map_err(|error| match (error.cause, self.restore) {
            (Cause::Restore(source), Some(point)) => {
                let source = RestoreError::OperatorState(source);
                Failure::Restore { checkpoint: point.checkpoint.checkpoint, source }
            }
            (cause, _) => Failure::Task(TaskError { cause, ..error }),
        })
    }
}

struct File(Box<dyn ObjectReader>);

impl ReadAt for File {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.0.read_at(offset, buf).map_err(io::Error::other)?;
        if read < buf.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// So many blocks wait to be put into the tables, while one more is read. Fewer stay in the caches on the way, and one is
/// enough: what evens out the speed of the disk is the system's own reading ahead.
const BLOCKS_AHEAD: usize = 1;

/// Makes the allocator get memory for the entries of a block from the system at once. In threads other than the first,
/// glibc's gets it page by page, each with a system call that stops the other threads of the process; what is given
/// back is kept for the thread's next allocations. With other allocators this does next to nothing.
fn make_room(bytes: usize) {
    drop(black_box(Vec::<u8>::with_capacity(bytes.saturating_mul(2).clamp(LEAST_ROOM, MOST_ROOM))));
}

/// What a block of small entries becomes: each has a slot of the table, which is larger the more of them are empty, and
/// values on the heap have a head each.
const LEAST_ROOM: usize = 4 << 20;
/// The most that the allocator keeps at all.
const MOST_ROOM: usize = 16 << 20;

/// Restores what the file holds of the range and of the operators that are `mine`: one thread reads ahead, this one fills the
/// tables. `before` is the header of the file that it may build on, and becomes its own.
fn restore_file(
    core: &mut TaskCore,
    point: &RestorePoint,
    file: &FileRef,
    before: &mut Option<SnapshotHeader>,
    range: cutwater_core::KeyGroupRange,
    mine: impl Fn(&OperatorUid) -> bool,
    ignored: &IgnoreUnclaimed,
) -> Result<(), RestoreError> {
    let (url, name) = (point.store.url(), file.name.clone());
    let reader = point.store.open(&ObjectName::parse(&file.name)?)?;
    let reader = File(reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?);
    let damaged = |source| RestoreError::File { url: url.clone(), name: name.clone(), source };
    if reader.len() != file.bytes {
        let reason = format!("the file has {} bytes, the checkpoint names {}", reader.len(), file.bytes);
        return Err(damaged(StateError::Damaged { part: "file", offset: 0, reason: reason.into() }));
    }
    let snapshot = SnapshotReader::open(&reader).map_err(damaged)?;
    let header = snapshot.header();
    // It may be of an earlier checkpoint, which this one builds on.
    let of = checkpoint_of_snapshot(&file.name).unwrap_or(point.checkpoint.checkpoint);
    if (header.checkpoint, &header.job) != (of, &point.checkpoint.job) || of > point.checkpoint.checkpoint {
        let reason = format!("the file is of checkpoint {} of job {}", header.checkpoint, header.job);
        return Err(damaged(StateError::Damaged { part: "header", offset: 0, reason: reason.into() }));
    }
    header.check_follows(before.as_ref()).map_err(damaged)?;
    *before = Some(header.clone());
    for (place, header) in (0u16..).zip(&snapshot.header().states) {
        if !mine(&header.operator) {
            continue; // it runs in another task now: an exchange has come between operators that were fused
        }
        let mut states = core.states();
        let found = states.iter_mut().find(|state| {
            let own = state.header();
            own.operator == header.operator && own.name == header.name
        });
        let Some(state) = found else {
            if ignored.covers(&header.operator) {
                continue;
            }
            if snapshot.blocks().iter().all(|block| block.state != place) {
                continue; // it has no entries, so that nothing is lost
            }
            let (operator, state) = (header.operator.clone(), header.name.clone());
            return Err(RestoreError::UnknownState { operator, state, kind: header.kind.name() });
        };
        state.header().check(header).map_err(damaged)?;
        let mut blocks: Vec<_> = snapshot.blocks_for(place, range).copied().collect();
        blocks.sort_by_key(|block| block.kind == BlockKind::Changed); // what was removed may have come back
        let all = blocks.iter().filter(|block| block.kind == BlockKind::All);
        state.reserve(all.map(|block| u64::from(block.entries)).sum());
        let snapshot = &snapshot;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Result<Block, StateError>>(BLOCKS_AHEAD);
            let (spent, buffers) = channel::<Vec<u8>>();
            scope.spawn(move || {
                for block in &blocks {
                    let buffer = buffers.try_recv().unwrap_or_default();
                    if sender.send(snapshot.read_block_into(block, buffer)).is_err() {
                        return; // the other side has met an error
                    }
                }
            });
            for block in receiver {
                let block = block.map_err(damaged)?;
                make_room(block.payload.len());
                state.restore(&block, range).map_err(damaged)?;
                drop(spent.send(block.payload)); // after its last block the reader takes none
            }
            Ok::<_, RestoreError>(())
        })?;
    }
    Ok(())
}
