//! Builds the subtasks of an attempt and fills them from a checkpoint.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, FileRef, SubtaskSnapshot, TaskSnapshot as TaskPart};
use cutwater_core::{Attempt, Epoch, KeyGroupRange, MaxParallelism, Moment, OperatorUid, SubtaskId};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_dataflow::{JobGraph, TaskSpec};
use cutwater_driver::{Natives, is_native};
use cutwater_state::format::SnapshotReader;
use cutwater_state::{AttachedTier, ColdError, ImageSource, StateBackend, TierOwner};
use cutwater_storage::Store;
use cutwater_task::{Cause, DroppedState, RestoredBase, TaskCore, TaskError, TaskSettings, TaskSnapshot, TaskStart};

use crate::clock::Clock;
use crate::error::{Failure, RestoreError, UnclaimedState, check_parallelism};
use crate::host::guarded;
use crate::job::IgnoreUnclaimed;
use crate::local::LocalCopies;
use crate::upload::Chains;

mod fetched;
mod file;
mod files;
mod native;
mod progress;

use file::File;
use files::{Overlap, Tables};
use native::StoredImage;

pub(crate) use fetched::Fetched;
pub(crate) use progress::Progress;
pub use progress::RestoreProgress;

/// A checkpoint with the store that its files are in.
#[derive(Clone)]
pub(crate) struct RestorePoint {
    pub(crate) checkpoint: CompletedCheckpoint,
    pub(crate) store: Arc<dyn Store>,
}

pub(crate) struct Build<'a> {
    pub(crate) graph: &'a JobGraph,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) settings: &'a TaskSettings,
    pub(crate) backend: &'a dyn StateBackend,
    pub(crate) restore: Option<&'a RestorePoint>,
    /// Copies of its files, which are read first.
    pub(crate) local: Option<&'a LocalCopies>,
    /// Which of its files subtasks have by now.
    pub(crate) fetched: &'a Fetched,
    /// Where to count what is restored.
    pub(crate) progress: Option<&'a Progress>,
    pub(crate) ignored: &'a IgnoreUnclaimed,
    /// Whether the checkpoint is of another folder.
    pub(crate) foreign: bool,
    /// Where to note what snapshots may build on.
    pub(crate) chains: &'a Mutex<Chains>,
    pub(crate) natives: &'a Mutex<Natives>,
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
    let files = tasks.flat_map(|task| &task.subtasks).flat_map(|subtask| &subtask.files);
    // Of files in the form of the backend it is not known whose they are.
    for file in files.filter(|file| !is_native(file)) {
        let (url, name) = (point.store.url(), file.name.clone());
        let reader = File::open(point, file, None, None)?;
        let reader = reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?;
        let snapshot = reader.ask(|| SnapshotReader::open(&reader));
        let snapshot = snapshot.map_err(|source| RestoreError::File { url, name, source })?;
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
        let subtasks: Vec<_> = self.subtasks().collect();
        let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2).min(subtasks.len());
        // Few threads that take one after the other: to start threads for each would cost more than most of them take.
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut built = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(subtask) = subtasks.get(at) else { break };
                let begun = self.clock.now();
                let core = self.guarded(*subtask);
                failed.fetch_or(core.is_err(), Ordering::Relaxed);
                built.push((at, core, self.clock.now().since(begun)));
            }
            built
        };
        let mut built: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let built = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            built.flat_map(|built| built.expect("panics were caught inside")).collect()
        });
        built.sort_by_key(|(at, ..)| *at);
        let (mut cores, mut took) = (Vec::with_capacity(built.len()), Vec::with_capacity(built.len()));
        for (_, core, duration) in built {
            cores.push(core?);
            took.push(duration);
        }
        Ok((cores, took))
    }

    fn subtasks(&self) -> impl Iterator<Item = SubtaskId> {
        let of_task = |task: &TaskSpec| {
            let of = task.task;
            (0..task.parallelism(self.parallelism)).map(move |index| SubtaskId { task: of, index })
        };
        self.graph.tasks().iter().flat_map(of_task)
    }

    /// Nothing restored, of all that the subtasks will read.
    pub(crate) fn expected(&self, point: &RestorePoint, since: Moment) -> Progress {
        let (mut names, mut bytes) = (BTreeSet::new(), 0u64);
        for subtask in self.subtasks() {
            for (part, overlap) in self.parts(point, subtask) {
                let of = |overlap: &Overlap, file: &FileRef| {
                    if is_native(file) { file.bytes } else { overlap.of(file.bytes) }
                };
                let files =
                    overlap.iter().flat_map(|overlap| part.files.iter().map(move |file| (file, of(overlap, file))));
                for (file, expected) in files {
                    names.insert(&file.name);
                    bytes = bytes.saturating_add(expected);
                }
            }
        }
        Progress::new(point.checkpoint.checkpoint, since, names.len() as u64, bytes)
    }

    /// The key groups of a subtask.
    fn range(&self, subtask: SubtaskId) -> KeyGroupRange {
        let spec = &self.graph.tasks()[subtask.task.0 as usize];
        self.max_parallelism.range_of(subtask.index, spec.parallelism(self.parallelism))
    }

    /// The parts of the checkpoint that have operators of the subtask, each with what its files may hold for it, if anything.
    fn parts<'p>(
        &self,
        point: &'p RestorePoint,
        subtask: SubtaskId,
    ) -> impl Iterator<Item = (&'p SubtaskSnapshot, Option<Overlap>)> {
        let spec = &self.graph.tasks()[subtask.task.0 as usize];
        let (max, range) = (self.max_parallelism, self.range(subtask));
        let mine = move |task: &&TaskPart| task.operators.iter().any(|operator| spec.uids().any(|uid| uid == operator));
        let overlap = move |task, part| (part, Overlap::find(max, task, part, &range));
        let tasks = point.checkpoint.tasks.iter().filter(mine);
        tasks.flat_map(move |task| task.subtasks.iter().map(move |part| overlap(task, part)))
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
            tier: self.tier(subtask)?,
        };
        let (mut files, mut images) = (Vec::new(), Vec::new());
        if let Some(point) = self.restore {
            let failed = |source| Failure::Restore { checkpoint: point.checkpoint.checkpoint, source };
            images = self.images(point, subtask).map_err(failed)?;
            if let Some(first) = images.first() {
                let tier = start.tier.as_ref().filter(|_| first.backend() == self.backend.name());
                let other =
                    || RestoreError::Backend { found: first.backend().to_owned(), own: self.backend.name().to_owned() };
                self.import(point, subtask, tier.ok_or_else(|| failed(other()))?, &images)?;
            }
            for (part, overlap) in self.parts(point, subtask) {
                let inline = TaskSnapshot::decode(&part.inline).map_err(|error| failed(error.into()))?;
                start.restored.push(inline);
                files.extend(overlap.map(|overlap| (&part.files, overlap)));
            }
            if let (Some(own), None) = (self.own_part(point, subtask), &start.tier) {
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
            let mine = |operator: &OperatorUid| spec.uids().any(|uid| uid == operator);
            if let (Some(tier), false) = (&start.tier, images.is_empty()) {
                let to = (self.range(subtask), point, self.ignored);
                let claimed = native::claim(&mut core, tier, &images, to, mine);
                claimed.map_err(|source| Failure::Restore { checkpoint: point.checkpoint.checkpoint, source })?;
            }
            let mut tables =
                Tables::new(&mut core, point, self.range(subtask), self.ignored, self.local, self.progress);
            for (part, overlap) in files {
                let mut before = None;
                for file in part.iter().filter(|file| !is_native(file)) {
                    let restored = tables.restore(file, overlap, &mut before, mine);
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
    /// What the subtask needs that is in the form of a backend.
    fn images<'p>(&'p self, point: &'p RestorePoint, subtask: SubtaskId) -> Result<Vec<StoredImage<'p>>, RestoreError> {
        let mut images = Vec::new();
        for task in &point.checkpoint.tasks {
            for (part, overlap) in self.parts(point, subtask) {
                if overlap.is_some() && task.subtasks.iter().any(|of| std::ptr::eq(of, part)) {
                    let of = (self.max_parallelism, task, part);
                    images.extend(StoredImage::open(point, of, self.local, self.fetched, self.progress)?);
                }
            }
        }
        Ok(images)
    }

    /// Gives the tier what there is in images.
    fn import(
        &self,
        point: &RestorePoint,
        subtask: SubtaskId,
        attached: &AttachedTier,
        images: &[StoredImage<'_>],
    ) -> Result<(), Failure> {
        let checkpoint = point.checkpoint.checkpoint;
        let sources: Vec<_> = images.iter().map(|image| image as &dyn ImageSource).collect();
        let imported = attached.tier.import(&sources, self.range(subtask));
        let goes_on = imported.map_err(|error| match images.iter().find_map(StoredImage::take_failure) {
            Some(source) => Failure::Restore { checkpoint, source },
            None => self.tier_failed(subtask, error),
        })?;
        if let (Some(image), false) = (goes_on.and_then(|at| images.get(at)), self.foreign) {
            let mut natives = self.natives.lock().unwrap_or_else(PoisonError::into_inner);
            natives.remember(subtask, None, checkpoint, image.lasting());
        }
        Ok(())
    }

    fn tier_failed(&self, subtask: SubtaskId, error: ColdError) -> Failure {
        let operator = self.graph.tasks()[subtask.task.0 as usize].name();
        Failure::Task(TaskError { subtask, operator, position: None, cause: Cause::User(error.into()) })
    }

    /// What lies below the tables of the subtask: nothing is in it yet.
    fn tier(&self, subtask: SubtaskId) -> Result<Option<AttachedTier>, Failure> {
        let (epoch, attempt) = (self.epoch, self.attempt);
        let owner = TierOwner { job: self.graph.name().to_owned(), subtask, epoch, attempt };
        self.backend.open_tier(&owner).map_err(|error| self.tier_failed(subtask, error))
    }

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
