//! The asynchronous part of a snapshot: blocks become a file, the file becomes durable, the subtask is acknowledged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cutwater_coordinator::{FileRef, Phases, SubtaskSnapshot, snapshot_name};
use cutwater_core::{Attempt, Barrier, CheckpointId, Moment, SnapshotForm, SubtaskId};
use cutwater_dataflow::{Finish, UserError};
use cutwater_driver::Natives;
use cutwater_state::format::{Compression, NativeState, SnapshotEncoder, SnapshotHeader};
use cutwater_state::{
    Block, ColdBatch, ColdImage, ColdLoad, ColdState, ColdTier, ColdView, StateHeader, apply_block, blocks_of_view,
    load_block,
};
use cutwater_storage::{ObjectName, ObjectWriter, Store, StoreError};
use cutwater_task::{Base, Cause, TaskError, TaskSnapshot};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::host::Handles;
use crate::hosted::{Command, Report};
use crate::local::{Copying, LocalCopies};
use crate::native;
use crate::under_way::{UnderWay, Uploads};

/// What all uploads of an attempt share.
pub(crate) struct Uploader {
    pub(crate) job: String,
    pub(crate) attempt: Attempt,
    pub(crate) store: Arc<dyn Store>,
    /// Where files are copied to beside.
    pub(crate) local: Option<Arc<LocalCopies>>,
    pub(crate) tokio: tokio::runtime::Handle,
    pub(crate) clock: Clock,
    pub(crate) compression: Compression,
    /// So many bytes of small files of a subtask may be in the record.
    pub(crate) held: usize,
    /// Whether snapshots may build on others.
    pub(crate) deltas: bool,
    /// Whether several checkpoints may be in flight.
    pub(crate) overlapping: bool,
    /// Names and parallelism of the tasks, by id.
    pub(crate) tasks: Vec<(String, u32)>,
    /// Set once the attempt runs.
    pub(crate) handles: OnceLock<Handles<Command>>,
    pub(crate) chains: Mutex<Chains>,
    /// What keeps the state.
    pub(crate) backend: &'static str,
    /// Whether checkpoints are in the form of the backend.
    pub(crate) native: bool,
    pub(crate) natives: Mutex<Natives>,
    pub(crate) uploads: Arc<Uploads>,
}

/// The files of snapshots that later ones of the same subtask may build on.
pub(crate) type Chains = BTreeMap<SubtaskId, BTreeMap<CheckpointId, Vec<FileRef>>>;

enum Part {
    Block(Block),
    Complete(TaskSnapshot, Vec<Finish>),
}

/// One snapshot on its way into the store. Dropped before it is complete, it leaves nothing.
pub(crate) struct Upload {
    work: Option<Work>,
    parts: Option<Sender<Part>>,
    tokio: tokio::runtime::Handle,
}

struct Work {
    uploader: Arc<Uploader>,
    subtask: SubtaskId,
    barrier: Barrier,
    /// The files that the snapshot builds on; `None`: it holds everything.
    base: Option<Vec<FileRef>>,
    states: Vec<StateHeader>,
    /// What goes into the tier below the tables first.
    applying: Option<Applying>,
    cut_at: Moment,
    phases: Phases,
    reports: UnboundedSender<Report>,
}

impl Upload {
    pub(crate) fn new(
        uploader: &Arc<Uploader>,
        subtask: SubtaskId,
        barrier: Barrier,
        base: Option<Base>,
        states: Vec<StateHeader>,
        applying: Option<Applying>,
        cut_at: Moment,
        alignment: Duration,
        reports: UnboundedSender<Report>,
    ) -> Self {
        // The barrier is handled and the state cut in one call, so what it took is known now.
        let sync = uploader.clock.now().since(cut_at);
        let phases = Phases { start_delay: Duration::ZERO, alignment, sync, asynchronous: Duration::ZERO };
        let base = base.map(|base| uploader.chain(subtask, base));
        let uploader = Arc::clone(uploader);
        let tokio = uploader.tokio.clone();
        Self {
            work: Some(Work { uploader, subtask, barrier, base, states, applying, cut_at, phases, reports }),
            parts: None,
            tokio,
        }
    }

    pub(crate) fn block(&mut self, block: Block) {
        self.begin();
        if let Some(parts) = &self.parts {
            drop(parts.send(Part::Block(block))); // the other end only goes away after a failure it has reported
        }
    }

    fn begin(&mut self) {
        if let Some(work) = self.work.take() {
            let (parts, received) = channel();
            let under_way = work.begin();
            self.tokio.spawn_blocking(move || work.run(&received, &under_way));
            self.parts = Some(parts);
        }
    }

    pub(crate) fn complete(mut self, inline: TaskSnapshot, finish: Vec<Finish>) {
        if self.work.as_ref().is_some_and(|work| work.applying.is_some()) {
            self.begin(); // what has not changed since the last snapshot is part of this one
        }
        match (self.work.take(), self.parts.take()) {
            (Some(work), _) if finish.is_empty() => work.acknowledge(Vec::new(), &inline),
            (Some(work), _) => {
                self.tokio.spawn_blocking(move || {
                    match run_all(finish) {
                        Ok(()) => work.acknowledge(Vec::new(), &inline),
                        Err(error) => work.fail(error),
                    };
                });
            }
            (None, Some(parts)) => drop(parts.send(Part::Complete(inline, finish))),
            (None, None) => {}
        }
    }
}

impl Uploader {
    /// The files of the snapshot that another builds on. Its checkpoint is complete, so that they are known.
    fn chain(&self, subtask: SubtaskId, base: Base) -> Vec<FileRef> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let known = chains.get(&subtask).and_then(|known| known.get(&base.checkpoint));
        let files = known.expect("a subtask builds on what it was restored from or has acknowledged");
        files[..if base.only_full { 1.min(files.len()) } else { files.len() }].to_vec()
    }

    /// Later snapshots of the subtask may build on this one, and on none before the base of its barrier.
    fn remember(&self, subtask: SubtaskId, barrier: Barrier, files: &[FileRef]) {
        if !self.deltas {
            return;
        }
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let known = chains.entry(subtask).or_default();
        if let Some(base) = barrier.base {
            known.retain(|checkpoint, _| *checkpoint >= base);
        }
        known.insert(barrier.checkpoint, files.to_vec());
    }
}

fn run_all(finish: Vec<Finish>) -> Result<(), UserError> {
    finish.into_iter().try_for_each(|finish| finish())
}

/// Text of an error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

/// What could not be made durable.
pub(crate) enum NotWritten {
    /// The state: the checkpoint comes to nothing, and the next one has it again.
    Snapshot(UserError),
    /// Output that a sink had prepared. A failed sync is never tried again, so no later checkpoint can have it either:
    /// only the records that it was made of bring it back.
    Output(UserError),
    /// The checkpoint was given up meanwhile.
    GivenUp,
}

impl<E: Into<UserError>> From<E> for NotWritten {
    fn from(error: E) -> Self {
        Self::Snapshot(error.into())
    }
}

impl Work {
    fn begin(&self) -> UnderWay {
        UnderWay::new(&self.uploader.uploads, self.uploader.attempt, self.barrier.checkpoint, self.reports.clone())
    }

    fn run(mut self, parts: &Receiver<Part>, under_way: &UnderWay) {
        let applying = self.applying.take();
        match self.write(parts, applying, under_way) {
            // From now on whoever hears of it deletes the files if the checkpoint is over.
            Ok((files, inline)) => return self.acknowledge(files, &inline),
            Err(NotWritten::GivenUp) => {}
            Err(NotWritten::Snapshot(error)) => self.decline(&chain(&*error)),
            Err(NotWritten::Output(error)) => self.fail(error),
        }
        let litter = under_way.litter();
        if !litter.is_empty() {
            drop(self.reports.send(Report::Litter(litter)));
        }
    }

    /// Writes the blocks as they come. A file that is being written when this ends too early leaves nothing.
    fn write(
        &self,
        parts: &Receiver<Part>,
        mut applying: Option<Applying>,
        under_way: &UnderWay,
    ) -> Result<(Vec<FileRef>, TaskSnapshot), NotWritten> {
        let name = ObjectName::parse(&snapshot_name(self.barrier, self.subtask))?;
        let before = self.base.iter().flatten().filter_map(|file| file.content.as_ref()).map(|content| content.len());
        let room = self.uploader.held.saturating_sub(before.sum());
        let mut writer = Writer::new(&self.uploader, name, room);
        let mut bytes = Vec::new();
        let mut encoder = SnapshotEncoder::new(&self.header(), self.uploader.compression, &mut bytes)?;
        writer.flush(&mut bytes)?;
        for part in parts {
            match part {
                Part::Block(block) => {
                    let bytes = block.payload.len() as u64;
                    match applying.as_mut().and_then(|applying| Some((applying.state(block.state)?, applying))) {
                        Some((state, applying)) => {
                            applying.apply(state, &self.states[usize::from(block.state)], &block)?;
                        }
                        None => {
                            under_way.go_on()?;
                            writer.block(&mut encoder, block)?;
                        }
                    }
                    self.written(bytes);
                }
                Part::Complete(inline, finish) => {
                    let mut image = None;
                    if let Some(applying) = applying {
                        let below = applying.finish()?;
                        image = below.write(&self.states, |block| {
                            under_way.go_on()?;
                            writer.block(&mut encoder, block)
                        })?;
                    }
                    encoder.finish(&mut bytes);
                    writer.flush(&mut bytes)?;
                    run_all(finish).map_err(NotWritten::Output)?;
                    under_way.go_on()?;
                    let mut files = vec![writer.finish(under_way)?];
                    if let Some((image, states)) = image {
                        let room = room.saturating_sub(files[0].content.as_ref().map_or(0, |content| content.len()));
                        files.extend(self.store_native(&*image, states, room, under_way)?);
                    }
                    return Ok((files, inline));
                }
            }
        }
        Err(NotWritten::GivenUp) // the subtask has dropped it
    }

    fn store_native(
        &self,
        image: &dyn ColdImage,
        states: Vec<NativeState>,
        room: usize,
        under_way: &UnderWay,
    ) -> Result<Vec<FileRef>, NotWritten> {
        let Self { uploader, barrier, subtask, .. } = self;
        let (files, lasting) = native::store(uploader, *barrier, *subtask, states, image, room, under_way)?;
        let mut natives = uploader.natives.lock().unwrap_or_else(PoisonError::into_inner);
        natives.remember(*subtask, barrier.base, barrier.checkpoint, lasting);
        Ok(files)
    }

    fn header(&self) -> SnapshotHeader {
        let (task, parallelism) = self.uploader.tasks[self.subtask.task.0 as usize].clone();
        SnapshotHeader {
            job: self.uploader.job.clone(),
            task,
            subtask: self.subtask.index,
            parallelism,
            checkpoint: self.barrier.checkpoint,
            base: self.base.as_ref().and(self.barrier.base),
            states: self.states.clone(),
        }
    }

    fn written(&self, bytes: u64) {
        if let Some(handles) = self.uploader.handles.get() {
            let command = Command::Written { checkpoint: self.barrier.checkpoint, bytes };
            drop(handles.send(self.subtask, command)); // an attempt that is over needs no word
        }
    }

    /// Without a file of its own the snapshot is what it builds on.
    fn acknowledge(mut self, own: Vec<FileRef>, inline: &TaskSnapshot) {
        let mut files = self.base.take().unwrap_or_default();
        files.extend(own);
        self.uploader.remember(self.subtask, self.barrier, &files);
        self.phases.asynchronous = self.uploader.clock.now().since(self.cut_at).saturating_sub(self.phases.sync);
        let inline = inline.encode();
        let state_bytes = files.iter().map(|file| file.bytes).sum::<u64>() + inline.len() as u64;
        let snapshot = SubtaskSnapshot { subtask: self.subtask, files, inline, phases: self.phases, state_bytes };
        let (attempt, checkpoint) = (self.uploader.attempt, self.barrier.checkpoint);
        let report = Report::Acked { attempt, checkpoint, snapshot: Box::new(snapshot), cut_at: self.cut_at };
        drop(self.reports.send(report));
    }

    fn fail(&self, error: UserError) {
        let (operator, _) = self.uploader.tasks[self.subtask.task.0 as usize].clone();
        let error = TaskError { subtask: self.subtask, operator, position: None, cause: Cause::User(error) };
        drop(self.reports.send(Report::Failed { attempt: self.uploader.attempt, error: Box::new(error) }));
    }

    fn decline(&self, reason: &str) {
        let (attempt, checkpoint): (_, CheckpointId) = (self.uploader.attempt, self.barrier.checkpoint);
        let (subtask, reason) = (self.subtask, reason.to_owned());
        drop(self.reports.send(Report::Declined { attempt, checkpoint, subtask, reason, counted: true }));
    }
}

/// The most bytes of small files in a record.
const MOST_HELD: usize = 4 << 20;

/// How many bytes of them a subtask may have.
pub(crate) fn held(threshold: u32, tasks: &[(String, u32)]) -> usize {
    let subtasks = tasks.iter().map(|(_, parallelism)| *parallelism as usize).sum::<usize>();
    (threshold as usize).min(MOST_HELD / subtasks.max(1))
}

/// A file that is being written: held back as long as it may be a small one.
pub(crate) struct Writer<'a> {
    uploader: &'a Uploader,
    name: ObjectName,
    /// Up to which size it is one.
    room: usize,
    /// Whether it is copied beside.
    copies: bool,
    held: Vec<u8>,
    out: Option<Out>,
}

/// A file on its way into the store, and its copy.
struct Out {
    stored: Box<dyn ObjectWriter>,
    copied: Option<Copying>,
}

/// A snapshot on its way into the tier below the tables, from which it is then read whole. Dropped before that, it tells the
/// subtask that it will not be there.
pub(crate) struct Applying {
    uploader: Arc<Uploader>,
    subtask: SubtaskId,
    checkpoint: CheckpointId,
    tier: Arc<dyn ColdTier>,
    /// Of each state that in the tier, if it has one.
    cold: Vec<Option<ColdState>>,
    /// Whether an image of the tier is to be stored.
    native: bool,
    loads: BTreeMap<ColdState, Option<Box<dyn ColdLoad>>>,
    batch: ColdBatch,
    applied: bool,
}

impl Applying {
    pub(crate) fn new(
        uploader: &Arc<Uploader>,
        subtask: SubtaskId,
        barrier: Barrier,
        tier: &Arc<dyn ColdTier>,
        cold: Vec<Option<ColdState>>,
    ) -> Self {
        let (uploader, tier) = (Arc::clone(uploader), Arc::clone(tier));
        let native = match barrier.form {
            SnapshotForm::Configured => uploader.native,
            SnapshotForm::Canonical => false,
            SnapshotForm::Native => true,
        };
        Self {
            uploader,
            subtask,
            checkpoint: barrier.checkpoint,
            tier,
            cold,
            native,
            loads: BTreeMap::new(),
            batch: ColdBatch::default(),
            applied: false,
        }
    }

    fn state(&self, state: u16) -> Option<ColdState> {
        self.cold.get(usize::from(state)).copied().flatten()
    }

    fn apply(&mut self, state: ColdState, header: &StateHeader, block: &Block) -> Result<(), NotWritten> {
        // Where an image follows, all of it becomes a file next.
        let load = match self.loads.entry(state) {
            Entry::Occupied(load) => load.into_mut(),
            Entry::Vacant(none) => none.insert(if self.native { self.tier.load(state)? } else { None }),
        };
        match load {
            Some(load) => load_block(&mut **load, header, block, &mut self.batch)?,
            None => apply_block(&*self.tier, state, header, block, &mut self.batch)?,
        }
        Ok(())
    }

    /// All blocks are in the tier: everything that it has is the snapshot, to be read from what this returns.
    fn finish(mut self) -> Result<Below, NotWritten> {
        for load in std::mem::take(&mut self.loads).into_values().flatten() {
            load.finish()?;
        }
        let image = if self.native { self.tier.image()? } else { None };
        let tier = Arc::clone(&self.tier);
        let below = match image {
            Some(image) => Below::Image(image, tier, std::mem::take(&mut self.cold)),
            None => Below::View(self.tier.view()?, std::mem::take(&mut self.cold)),
        };
        self.applied = true;
        Ok(below) // dropped: the subtask may write to its tier again
    }
}

/// An image, and the states in it.
type Described = (Box<dyn ColdImage>, Vec<NativeState>);

/// What a tier had at the end of a snapshot.
enum Below {
    /// To be written entry by entry.
    View(Box<dyn ColdView>, Vec<Option<ColdState>>),
    /// To be stored as it is.
    Image(Box<dyn ColdImage>, Arc<dyn ColdTier>, Vec<Option<ColdState>>),
}

impl Below {
    /// Writes the blocks of all states, or returns the image with what it has.
    fn write(
        self,
        states: &[StateHeader],
        mut write: impl FnMut(Block) -> Result<(), NotWritten>,
    ) -> Result<Option<Described>, NotWritten> {
        match self {
            Self::View(view, cold) => {
                for (index, (state, header)) in (0_u16..).zip(cold.into_iter().zip(states)) {
                    let Some(state) = state else { continue };
                    blocks_of_view(&*view, state, header, header.max_parallelism.all(), |mut block| {
                        block.state = index;
                        write(block)
                    })?;
                }
                Ok(None)
            }
            Self::Image(image, tier, cold) => {
                let mut listed = Vec::new();
                for (state, header) in cold.into_iter().zip(states) {
                    if let Some(state) = state {
                        listed.push(NativeState { header: header.clone(), entries: tier.about(state)? });
                    }
                }
                Ok(Some((image, listed)))
            }
        }
    }
}

impl Drop for Applying {
    fn drop(&mut self) {
        if let Some(handles) = self.uploader.handles.get() {
            let command = Command::Applied { checkpoint: self.checkpoint, applied: self.applied };
            drop(handles.send(self.subtask, command)); // an attempt that is over needs no word
        }
    }
}

impl<'a> Writer<'a> {
    pub(crate) fn new(uploader: &'a Uploader, name: ObjectName, room: usize) -> Self {
        Self { uploader, name, room, copies: true, held: Vec::new(), out: None }
    }

    /// There is a copy on this machine already.
    pub(crate) fn without_copy(&mut self) {
        self.copies = false;
    }

    fn block(&mut self, encoder: &mut SnapshotEncoder, block: Block) -> Result<(), NotWritten> {
        let (head, packed, checksum) = encoder.frame(&block)?.into_parts();
        self.write(&head)?;
        self.write_owned(packed.unwrap_or(block.payload))?;
        self.write(&checksum)?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.out(bytes.len())? {
            Some(out) => out.write(bytes),
            None => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    pub(crate) fn write_owned(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        match self.out(bytes.len())? {
            Some(out) => out.write_owned(bytes),
            None => self.write(&bytes),
        }
    }

    /// Where so many more bytes go, unless they are held back.
    fn out(&mut self, more: usize) -> Result<Option<&mut Out>, StoreError> {
        if self.held.len() + more > self.room {
            self.begin()?;
        }
        Ok(self.out.as_mut())
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if self.out.is_none() {
            let Self { uploader, name, .. } = self;
            let copied =
                uploader.local.as_ref().filter(|_| self.copies).and_then(|local| local.copy(name, &uploader.tokio));
            let mut out = Out { stored: uploader.store.writer(name)?, copied };
            out.write(&std::mem::take(&mut self.held))?;
            self.out = Some(out);
        }
        Ok(())
    }

    fn flush(&mut self, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        self.write(bytes)?;
        bytes.clear();
        Ok(())
    }

    /// [`Self::finish`] of a file that is an object even if it is empty.
    pub(crate) fn finish_stored(mut self, under_way: &UnderWay) -> Result<FileRef, StoreError> {
        self.begin()?;
        self.finish(under_way)
    }

    pub(crate) fn finish(self, under_way: &UnderWay) -> Result<FileRef, StoreError> {
        let name = self.name.as_str().to_owned();
        let Some(out) = self.out else { return Ok(FileRef::held(name, self.held)) };
        under_way.note(&self.name); // it may be there after an error too
        let written = out.stored.finish()?;
        out.copied.into_iter().for_each(Copying::finish);
        Ok(FileRef::stored(name, written.bytes, written.crc32c))
    }
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.copied.iter_mut().for_each(|copied| copied.write(bytes));
        self.stored.write(bytes)
    }

    fn write_owned(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.copied.iter_mut().for_each(|copied| copied.write(&bytes));
        self.stored.write_owned(bytes)
    }
}
