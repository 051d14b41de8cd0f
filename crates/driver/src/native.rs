//! Snapshots in the form of a backend: files of a tier below the tables, of which later checkpoints name those that have not
//! changed. What is stored, what is named, and what a restore takes over; the bytes are for the caller to move.

use std::collections::{BTreeMap, BTreeSet};

use cutwater_coordinator::{FileRef, native_name, native_number};
use cutwater_core::{Barrier, CheckpointId, KeyGroupRange, OperatorUid, SubtaskId};
use cutwater_state::format::{NativeFile, NativeIndex, NativeState};
use cutwater_state::{ColdError, ColdState, ColdTier, ImageFile, StateError, StateHeader, blocks_of_view};
use cutwater_task::TaskCore;

/// The lasting files of images that later snapshots of the same subtask may name, in one attempt.
#[derive(Clone, Debug, Default)]
pub struct Natives {
    known: BTreeMap<SubtaskId, BTreeMap<CheckpointId, Lasting>>,
}

/// Lasting files of an image, and where they are stored.
pub type Lasting = BTreeMap<ImageFile, FileRef>;

impl Natives {
    /// Those of the base of a barrier, which is complete. What is known of any other checkpoint may not be there any more.
    #[must_use]
    pub fn of(&self, subtask: SubtaskId, base: Option<CheckpointId>) -> Lasting {
        let of = self.known.get(&subtask).and_then(|known| known.get(&base?));
        of.cloned().unwrap_or_default()
    }

    /// Later images of the subtask may have these files of a checkpoint, all of which are stored. None builds on one before
    /// `base`.
    pub fn remember(
        &mut self,
        subtask: SubtaskId,
        base: Option<CheckpointId>,
        checkpoint: CheckpointId,
        files: Lasting,
    ) {
        let known = self.known.entry(subtask).or_default();
        if let Some(base) = base {
            known.retain(|checkpoint, _| *checkpoint >= base);
        }
        known.insert(checkpoint, files);
    }
}

/// Where a file of an image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the index.
    Index,
    /// Where it is: it is not stored again.
    Shared(FileRef),
    /// In an object of this name.
    Object(String),
}

impl Place {
    /// That of each file, in their order. `known` are the lasting files of the barrier's base; what does not last and has up to
    /// `held_bytes` stands in the index.
    ///
    /// # Panics
    ///
    /// With 2^32 files.
    #[must_use]
    pub fn of_files(
        barrier: Barrier,
        subtask: SubtaskId,
        files: &[ImageFile],
        known: &Lasting,
        held_bytes: u64,
    ) -> Vec<Self> {
        let place = |(at, file): (usize, &ImageFile)| match known.get(file) {
            _ if !file.lasting && file.bytes <= held_bytes => Self::Index,
            Some(known) => Self::Shared(known.clone()),
            None => {
                let number = u32::try_from(at + 1).expect("fewer files than 2^32");
                Self::Object(native_name(barrier, subtask, number))
            }
        };
        files.iter().enumerate().map(place).collect()
    }
}

/// A file of an image that is where it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Its content goes into the index.
    Index(Vec<u8>),
    /// In this object.
    Object(FileRef),
}

/// An image all of whose files are stored but for the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeFiles {
    /// What says which files there are.
    pub index: NativeIndex,
    /// The files that the checkpoint names besides it, those that it shares included.
    pub files: Vec<FileRef>,
    /// Those that later images may have.
    pub lasting: Lasting,
}

impl NativeFiles {
    /// Of the files of an image, in their order.
    #[must_use]
    pub fn new(backend: &str, states: Vec<NativeState>, stored: impl IntoIterator<Item = (ImageFile, Stored)>) -> Self {
        let (mut files, mut listed, mut lasting) = (Vec::new(), Vec::new(), Lasting::new());
        for (file, stored) in stored {
            match stored {
                Stored::Object(stored) => {
                    let (crc32c, object) = (stored.crc32c, Some(stored.name.clone()));
                    listed.push(NativeFile { file: file.clone(), crc32c, object, content: Vec::new() });
                    if file.lasting {
                        lasting.insert(file, stored.clone());
                    }
                    files.push(stored);
                }
                Stored::Index(content) => {
                    let file = ImageFile { bytes: content.len() as u64, ..file };
                    listed.push(NativeFile { file, crc32c: crc32c::crc32c(&content), object: None, content });
                }
            }
        }
        Self { index: NativeIndex { backend: backend.to_owned(), states, files: listed }, files, lasting }
    }

    /// The name of the index.
    #[must_use]
    pub fn index_name(barrier: Barrier, subtask: SubtaskId) -> String {
        native_name(barrier, subtask, 0)
    }
}

/// Whether a file is of the backend's own form, or says which are.
#[must_use]
pub fn is_native(file: &FileRef) -> bool {
    native_number(&file.name).is_some()
}

/// The index among the files of a subtask, if its state is in the form of a backend.
#[must_use]
pub fn native_index(files: &[FileRef]) -> Option<&FileRef> {
    files.iter().find(|file| native_number(&file.name) == Some(0))
}

/// Of each file in the index, in their order, the one of the subtask's files that has it; `None` if the index does.
///
/// # Errors
///
/// [`StateError::Damaged`] if there is none, or it is another one.
pub fn native_files<'a>(index: &NativeIndex, files: &'a [FileRef]) -> Result<Vec<Option<&'a FileRef>>, StateError> {
    let damaged = |reason: String| StateError::Damaged { part: "index", offset: 0, reason: reason.into() };
    let named: BTreeMap<&str, &FileRef> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    let find = |file: &NativeFile| {
        let Some(object) = &file.object else { return Ok(None) };
        match named.get(object.as_str()) {
            Some(named) if (named.bytes, named.crc32c) == (file.file.bytes, file.crc32c) => Ok(Some(*named)),
            Some(_) => Err(damaged(format!("{object} is not as the checkpoint names it"))),
            None => Err(damaged(format!("the checkpoint has no {object}"))),
        }
    };
    index.files.iter().map(find).collect()
}

/// The files that later images may have of a tier that goes on from this one. `stored`: as [`native_files`] has found them.
#[must_use]
pub fn lasting_files(index: &NativeIndex, stored: &[Option<&FileRef>]) -> Lasting {
    let files = index.files.iter().zip(stored).filter(|(listed, _)| listed.file.lasting);
    files.filter_map(|(listed, stored)| Some((listed.file.clone(), (*stored)?.clone()))).collect()
}

/// What of an image can't be given to the tables of a subtask.
#[derive(Debug)]
pub enum NotClaimed {
    /// A state has entries, and nobody here has such a state.
    Unknown {
        /// Whose it was.
        operator: OperatorUid,
        /// Its name.
        state: String,
        /// What kind of state it was.
        kind: &'static str,
    },
    /// A state was written otherwise, or the tier can't be read.
    State(StateError),
}

impl From<StateError> for NotClaimed {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// Gives the tables of a subtask what its tier has imported: `headers` are those of all images, of the operators that run in this
/// task. What belongs to no table is forgotten, of operators of which something `may_be_lost`, or if there is nothing of it.
///
/// # Errors
///
/// [`NotClaimed`]. Some tables may have got theirs.
pub fn claim_imported<'a>(
    core: &mut TaskCore,
    tier: &dyn ColdTier,
    headers: impl IntoIterator<Item = &'a StateHeader>,
    range: KeyGroupRange,
    may_be_lost: impl Fn(&OperatorUid) -> bool,
) -> Result<(), NotClaimed> {
    let mut written: BTreeMap<(&OperatorUid, &str), &StateHeader> = BTreeMap::new();
    for header in headers {
        written.entry((&header.operator, &header.name)).or_insert(header);
    }
    let mut tables = core.states();
    let kept: BTreeSet<ColdState> = tables.iter().filter_map(|table| table.cold()).collect();
    for ((operator, name), header) in written {
        let cold = |error: ColdError| cold(header.operator.as_str(), &header.name, error);
        let found = tables.iter_mut().find(|table| {
            let own = table.header();
            (&own.operator, own.name.as_str()) == (operator, name)
        });
        let state = tier.open(header).map_err(cold)?;
        let entries = tier.about(state).map_err(cold)?;
        let Some(table) = found else {
            if entries == 0 || may_be_lost(operator) {
                continue; // nothing is lost that was not to be
            }
            let (operator, state) = (operator.clone(), name.to_owned());
            return Err(NotClaimed::Unknown { operator, state, kind: header.kind.name() });
        };
        table.header().check(header)?;
        if table.cold() == Some(state) {
            if entries > 0 {
                table.imported(entries);
            }
            continue;
        }
        // It is kept in memory now.
        let view = tier.view().map_err(cold)?;
        blocks_of_view(&*view, state, header, range, |block| table.restore(&block, range).map(drop))?;
    }
    tier.keep_only(&kept.into_iter().collect::<Vec<_>>()).map_err(|error| cold("the task", "all", error))?;
    Ok(())
}

fn cold(operator: &str, state: &str, error: ColdError) -> StateError {
    StateError::Cold { operator: operator.into(), state: state.into(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use cutwater_core::{Attempt, Epoch, SnapshotForm, TaskId};

    use super::*;

    const SUBTASK: SubtaskId = SubtaskId { task: TaskId(2), index: 0 };

    fn barrier(checkpoint: u64) -> Barrier {
        let (epoch, attempt, form) = (Epoch(1), Attempt(3), SnapshotForm::Configured);
        Barrier { epoch, attempt, checkpoint: CheckpointId(checkpoint), base: None, form }
    }

    fn file(name: &str, bytes: u64, lasting: bool) -> ImageFile {
        ImageFile { name: name.to_owned(), bytes, lasting }
    }

    fn stored(name: &str, bytes: u64) -> FileRef {
        FileRef::stored(name.to_owned(), bytes, 7)
    }

    #[test]
    fn only_a_lasting_file_of_the_same_name_and_length_is_shared() {
        let known = Lasting::from([(file("1.sst", 10, true), stored("chk/one", 10))]);
        let files = [file("1.sst", 10, true), file("1.sst", 11, true), file("1.sst", 10, false), file("LOG", 9, false)];
        let object = |number| Place::Object(native_name(barrier(9), SUBTASK, number));
        let all = Place::of_files(barrier(9), SUBTASK, &files, &known, 9);
        assert_eq!(all, [Place::Shared(stored("chk/one", 10)), object(2), object(3), Place::Index]);
        let none = Place::of_files(barrier(9), SUBTASK, &files, &Lasting::new(), 10);
        assert_eq!(none, [object(1), object(2), Place::Index, Place::Index]);
    }

    #[test]
    fn what_is_known_is_that_of_the_base_and_of_no_other_checkpoint_or_subtask() {
        let mut natives = Natives::default();
        let of = |name: &str| Lasting::from([(file(name, 1, true), stored(name, 1))]);
        let other = SubtaskId { index: 1, ..SUBTASK };
        natives.remember(SUBTASK, None, CheckpointId(4), of("four"));
        natives.remember(SUBTASK, Some(CheckpointId(4)), CheckpointId(5), of("five"));
        natives.remember(other, None, CheckpointId(4), of("other"));
        assert_eq!(natives.of(SUBTASK, Some(CheckpointId(4))), of("four"));
        assert_eq!(natives.of(SUBTASK, Some(CheckpointId(5))), of("five"));
        assert_eq!(natives.of(other, Some(CheckpointId(4))), of("other"));
        for base in [None, Some(CheckpointId(6))] {
            assert_eq!(natives.of(SUBTASK, base), Lasting::new(), "{base:?}");
        }
        natives.remember(SUBTASK, Some(CheckpointId(5)), CheckpointId(6), of("six"));
        assert_eq!(
            natives.of(SUBTASK, Some(CheckpointId(4))),
            Lasting::new(),
            "no barrier has it as its base any more"
        );
    }

    #[test]
    fn an_index_leads_to_the_files_that_the_checkpoint_names() {
        let files = [
            (file("1.sst", 10, true), Stored::Object(stored("chk/one", 10))),
            (file("CURRENT", 0, false), Stored::Index(b"LOG".to_vec())),
            (file("LOG", 20, false), Stored::Object(stored("chk/log", 20))),
        ];
        let native = NativeFiles::new("model", Vec::new(), files);
        assert_eq!(native.files, [stored("chk/one", 10), stored("chk/log", 20)]);
        assert_eq!(native.lasting, Lasting::from([(file("1.sst", 10, true), stored("chk/one", 10))]));
        assert_eq!(native.index.files[1].file.bytes, 3, "as long as its content is");

        let found = native_files(&native.index, &native.files).unwrap();
        assert_eq!(found, [Some(&native.files[0]), None, Some(&native.files[1])]);
        assert_eq!(lasting_files(&native.index, &found), native.lasting);

        let longer = [stored("chk/one", 11), stored("chk/log", 20)];
        let other = [FileRef::stored("chk/one".to_owned(), 10, 8), stored("chk/log", 20)];
        for (files, reason) in [(&longer[..], "not as"), (&other, "not as"), (&longer[1..], "has no chk/one")] {
            let error = native_files(&native.index, files).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_index_is_told_from_the_files_that_it_lists() {
        let named = |name: String| FileRef::stored(name, 1, 1);
        let native = |number| named(native_name(barrier(9), SUBTASK, number));
        let other = named(cutwater_coordinator::snapshot_name(barrier(9), SUBTASK));
        let files = [other, native(1), native(0)];
        assert_eq!(native_index(&files), Some(&files[2]));
        assert_eq!(native_index(&files[..2]), None);
        assert_eq!(files.each_ref().map(is_native), [false, true, true]);
    }
}
