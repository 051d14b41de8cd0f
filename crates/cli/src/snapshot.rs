//! Looks into the files and the inline parts of a checkpoint.

use std::collections::BTreeMap;
use std::io;

use cutwater_coordinator::inspect::slot_name;
use cutwater_coordinator::{
    CompletedCheckpoint, FileRef, SubtaskSnapshot, TaskSnapshot, checkpoint_of_snapshot, native_number,
};
use cutwater_dataflow::exec::SnapshotKind;
use cutwater_state::format::{BlockInfo, NativeIndex, NativeState, ReadAt, SnapshotHeader, SnapshotReader};
use cutwater_state::{BlockKind, OperatorStatePart, StateError, StateHeader};
use cutwater_storage::{BytesReader, ObjectName, ObjectReader, verify};
use cutwater_task::TaskSnapshot as Inline;
use serde::{Deserialize, Serialize};

use crate::failure::chain;
use crate::folder::JobFolder;
use crate::report::{Problem, ProblemKind};

/// The most bytes of an index of native files.
const MOST_INDEX: u64 = 256 << 20;

/// One state, summed over the files.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct State {
    pub(crate) operator: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) key_codec: String,
    pub(crate) key_schema: String,
    pub(crate) value_codec: String,
    pub(crate) value_schema: String,
    /// In files that hold everything.
    pub(crate) entries: u64,
    /// In files that build on others: entries that have come or changed, and names of those that went. One of them may stand in
    /// several files.
    pub(crate) changes: u64,
    /// As stored, so after compression.
    pub(crate) stored_bytes: u64,
    /// The backend in whose own files it is: then the entries are about so many, and the bytes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) native: Option<String>,
}

/// Where one source stands.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SourcePosition {
    pub(crate) operator: String,
    pub(crate) splits: Vec<Split>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Split {
    pub(crate) name: String,
    /// The position itself is in the encoding of the source's type.
    pub(crate) position_bytes: u64,
    pub(crate) ended: bool,
    pub(crate) records: u64,
    /// The lowest and highest numbers: before all, after all.
    pub(crate) watermark_ms: i64,
}

/// A split as the payload of [`SnapshotKind::SourceSplits`] has it.
#[derive(Serialize, Deserialize)]
struct StoredSplit {
    name: String,
    position: Option<Vec<u8>>,
    ended: bool,
    watermark: i64,
    records: u64,
}

/// Output that one sink has prepared.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PreparedOutput {
    pub(crate) operator: String,
    pub(crate) handles: u64,
    pub(crate) bytes: u64,
}

/// What the inline parts of a checkpoint hold, by operator.
#[derive(Debug, Default)]
pub(crate) struct InlineParts {
    pub(crate) sources: BTreeMap<String, SourcePosition>,
    pub(crate) prepared: BTreeMap<String, PreparedOutput>,
    /// States without keys, summed over the subtasks: of broadcast ones each has a copy.
    pub(crate) operator_states: Vec<State>,
}

impl InlineParts {
    /// Adds what a subtask stored in the record and returns it.
    pub(crate) fn add(&mut self, subtask: &SubtaskSnapshot) -> Result<Inline, String> {
        let of = |what: &str| format!("the part of {} {what}", subtask.subtask);
        let inline =
            Inline::decode(&subtask.inline).map_err(|error| of(&format!("can't be read: {}", chain(&error))))?;
        for part in &inline.operators {
            let operator = part.operator.to_string();
            match part.kind {
                SnapshotKind::SourceSplits => {
                    let splits: Vec<StoredSplit> = cutwater_state::decode(&part.payload)
                        .map_err(|error| of(&format!("has positions of {operator} that can't be read: {error}")))?;
                    let source = self.sources.entry(operator.clone()).or_default();
                    source.operator = operator;
                    source.splits.extend(splits.into_iter().map(Split::from));
                    source.splits.sort_by(|a, b| a.name.cmp(&b.name));
                }
                SnapshotKind::OperatorState => {
                    let stored = OperatorStatePart::decode(&part.payload).map_err(|error| {
                        of(&format!("has operator state of {operator} that can't be read: {error}"))
                    })?;
                    let state = State::found(&mut self.operator_states, &stored.header);
                    state.entries += u64::from(stored.entries);
                    state.stored_bytes += part.payload.len() as u64;
                }
                SnapshotKind::PreparedOutput => {
                    let prepared = self.prepared.entry(operator.clone()).or_default();
                    prepared.operator = operator;
                    prepared.handles += 1;
                    prepared.bytes += part.payload.len() as u64;
                }
            }
        }
        Ok(inline)
    }
}

impl From<StoredSplit> for Split {
    fn from(split: StoredSplit) -> Self {
        let StoredSplit { name, position, ended, watermark, records } = split;
        let position_bytes = position.map_or(0, |position| position.len() as u64);
        Self { name, position_bytes, ended, records, watermark_ms: watermark }
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

/// Whose file it should be.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) folder: &'a JobFolder,
    pub(crate) checkpoint: &'a CompletedCheckpoint,
    pub(crate) task: &'a TaskSnapshot,
    pub(crate) subtask: &'a SubtaskSnapshot,
}

/// What was read of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) blocks: u64,
    pub(crate) entries: u64,
}

impl Owner<'_> {
    /// Adds the states of the file to `states`, from its header and index alone.
    pub(crate) fn read_states(&self, file: &FileRef, states: &mut Vec<State>) -> Result<(), Problem> {
        match native_number(&file.name) {
            None => {}
            Some(0) => {
                let index = self.native_index(file).or_else(|_| self.native_index(file))?; // as in `verify`
                for NativeState { header, entries } in &index.states {
                    let state = State::found(states, header);
                    state.entries += entries;
                    state.native = Some(index.backend.clone());
                }
                return Ok(());
            }
            Some(_) => return Ok(()), // what it is the index says
        }
        let mut reader = self.open(file)?;
        if SnapshotReader::open(&reader).is_err() {
            reader = self.open(file)?; // as in `verify`
        }
        let snapshot = SnapshotReader::open(&reader).map_err(|error| self.problem(file, &error))?;
        for (place, header) in (0..).zip(&snapshot.header().states) {
            let blocks = snapshot.blocks().iter().filter(|block| block.state == place);
            let of_all = |block: &BlockInfo| if block.kind == BlockKind::All { u64::from(block.entries) } else { 0 };
            let (all, entries, bytes) = blocks.fold((0, 0, 0), |(all, entries, bytes), block| {
                (all + of_all(block), entries + u64::from(block.entries), bytes + u64::from(block.length))
            });
            let state = State::found(states, header);
            state.entries += all;
            state.changes += entries - all;
            state.stored_bytes += bytes;
        }
        Ok(())
    }

    /// Reads every byte of the file: its length, its checksum, its format, each block. What is wrong is read once more, since it
    /// may be so only on its way from the store.
    ///
    /// `before` is the header of the file that it may build on, and becomes its own.
    pub(crate) fn verify(&self, file: &FileRef, before: &mut Option<SnapshotHeader>) -> Result<Checked, Problem> {
        let builds_on = before.clone();
        match self.verify_once(file, before) {
            Err(problem) if problem.kind != ProblemKind::Missing => {
                *before = builds_on;
                self.verify_once(file, before)
            }
            verified => verified,
        }
    }

    fn verify_once(&self, file: &FileRef, before: &mut Option<SnapshotHeader>) -> Result<Checked, Problem> {
        let name = self.name(file)?;
        // What the record holds was checked with it.
        if file.content.is_none() {
            verify(self.folder.store.as_ref(), &name, file.bytes, file.crc32c)
                .map_err(|error| Problem::of_store(self.folder.path_of(&file.name), &error))?;
        }
        match native_number(&file.name) {
            None => {}
            Some(0) => {
                let index = self.native_index(file)?;
                return Ok(Checked { blocks: 0, entries: index.states.iter().map(|state| state.entries).sum() });
            }
            Some(_) => return Ok(Checked::default()), // what is in it its backend alone can read
        }
        let reader = self.open(file)?;
        let snapshot = SnapshotReader::open(&reader).map_err(|error| self.problem(file, &error))?;
        self.check_header(file, &snapshot)?;
        snapshot.header().check_follows(before.as_ref()).map_err(|error| self.problem(file, &error))?;
        *before = Some(snapshot.header().clone());
        let mut checked = Checked::default();
        for info in snapshot.blocks() {
            snapshot.read_block(info).map_err(|error| self.problem(file, &error))?;
            checked.blocks += 1;
            checked.entries += u64::from(info.entries);
        }
        Ok(checked)
    }

    /// What says which files are of the backend's own form: each that it names has to be one of the checkpoint.
    fn native_index(&self, file: &FileRef) -> Result<NativeIndex, Problem> {
        let reader = self.open(file)?;
        let damaged = |reason: String| Problem::new(self.folder.path_of(&file.name), ProblemKind::Damaged, reason);
        if reader.len() != file.bytes || file.bytes > MOST_INDEX {
            return Err(damaged(format!("it has {} bytes, the checkpoint names {}", reader.len(), file.bytes)));
        }
        let mut content = vec![0; usize::try_from(file.bytes).unwrap_or(usize::MAX)];
        reader.read_at(0, &mut content).map_err(|error| damaged(error.to_string()))?;
        let index = NativeIndex::decode(&content).map_err(|error| self.problem(file, &error))?;
        for (object, native) in index.files.iter().filter_map(|native| Some((native.object.as_ref()?, native))) {
            let named = self.subtask.files.iter().find(|file| file.name == *object);
            if named.is_none_or(|named| (named.bytes, named.crc32c) != (native.file.bytes, native.crc32c)) {
                return Err(damaged(format!("{object} is not in the checkpoint, or another file there")));
            }
        }
        Ok(index)
    }

    fn check_header(&self, file: &FileRef, snapshot: &SnapshotReader<'_>) -> Result<(), Problem> {
        let header = snapshot.header();
        let Self { checkpoint, task, subtask, .. } = self;
        let found = (header.job.as_str(), header.checkpoint, header.subtask, header.parallelism);
        // It may be of an earlier one, which this one builds on.
        let of = checkpoint_of_snapshot(&file.name).unwrap_or(checkpoint.checkpoint);
        let expected = (checkpoint.job.as_str(), of, subtask.subtask.index, task.parallelism);
        if found == expected {
            return Ok(());
        }
        let say = |(job, checkpoint, index, parallelism)| {
            format!("job {job:?}, checkpoint {checkpoint}, subtask {index} of {parallelism}")
        };
        let reason = format!("it says it is of {}; the checkpoint names it for {}", say(found), say(expected));
        Err(Problem::new(self.folder.path_of(&file.name), ProblemKind::Damaged, reason))
    }

    fn name(&self, file: &FileRef) -> Result<ObjectName, Problem> {
        ObjectName::parse(&file.name).map_err(|error| {
            let record = self.folder.path_of(&slot_name(self.checkpoint.slot));
            Problem::new(record, ProblemKind::Damaged, format!("it names a file that can't be one: {error}"))
        })
    }

    fn open(&self, file: &FileRef) -> Result<File, Problem> {
        let path = || self.folder.path_of(&file.name);
        if let Some(content) = &file.content {
            return Ok(File(Box::new(BytesReader::new(content.clone()))));
        }
        match self.folder.store.open(&self.name(file)?) {
            Ok(Some(reader)) => Ok(File(reader)),
            Ok(None) => Err(Problem::new(path(), ProblemKind::Missing, "it is not there")),
            Err(error) => Err(Problem::of_store(path(), &error)),
        }
    }

    fn problem(&self, file: &FileRef, error: &StateError) -> Problem {
        let kind = if matches!(error, StateError::NewerVersion { .. }) {
            ProblemKind::NewerFormat
        } else if matches!(error, StateError::Read { .. }) {
            ProblemKind::Unreadable
        } else {
            ProblemKind::Damaged
        };
        Problem::new(self.folder.path_of(&file.name), kind, chain(error))
    }
}

impl State {
    /// The state among those found so far.
    fn found<'a>(states: &'a mut Vec<State>, header: &StateHeader) -> &'a mut State {
        let at = states.iter().position(|state| state.is_of(header)).unwrap_or_else(|| {
            states.push(State::of(header));
            states.len() - 1
        });
        &mut states[at]
    }

    fn of(header: &StateHeader) -> Self {
        Self {
            operator: header.operator.to_string(),
            name: header.name.clone(),
            kind: header.kind.name(),
            key_codec: header.key_codec.name().to_owned(),
            key_schema: header.key_schema.to_string(),
            value_codec: header.value_codec.name().to_owned(),
            value_schema: header.value_schema.to_string(),
            entries: 0,
            changes: 0,
            stored_bytes: 0,
            native: None,
        }
    }

    /// Whether it is the same state, of the same types: in a damaged or foreign file these may differ.
    fn is_of(&self, header: &StateHeader) -> bool {
        let other = Self::of(header);
        let place = |state: &Self| (state.operator.clone(), state.name.clone(), state.kind);
        let types = |state: &Self| (state.key_schema.clone(), state.value_schema.clone());
        place(self) == place(&other) && types(self) == types(&other)
    }
}
