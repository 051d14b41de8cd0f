use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use cutwater_core::{KeyGroup, KeyGroupRange};
use serde::{Deserialize, Serialize};

use crate::StateHeader;
use crate::codec::decode_front;

mod batch;
mod blocks;
mod model;
mod names;

pub use self::batch::ColdBatch;
pub use self::blocks::{apply_block, blocks_of_view, load_block};
pub(crate) use self::blocks::{batch_of, split_for_tier};
pub use self::model::ModelTier;
pub(crate) use self::names::{TIME_BYTES, append_name, split_name};

/// What lies below the tables of one subtask: a store of bytes on a local disk, say, for what memory does not hold.
///
/// A tier keeps *cold entries*, each under a *name*: the number of its key group, two bytes with the higher one first, then
/// the encoded key, then what tells the entries of one key apart, such as the key in a map. So the entries of a key group stand together, and those of a
/// key within it. Timers have their time before their key instead: within a group they stand in the order in which they fire. What a name stands for is the business of the table: a tier compares and keeps bytes.
///
/// The worker of the subtask reads and writes, and another thread may read and write at the same time, but never the same
/// state. A tier need not survive the process: what must is in checkpoints. The contract, of which
/// `cutwater-state-conformance` has a test for each sentence:
///
/// - A read sees every earlier write of any thread. Of the writes of one batch the last one of a name counts.
/// - A lookup by prefixes finds all entries whose names begin with them, and no others.
/// - A range begins at its name and ends with its last key group, or when it is told to stop: it visits the entries between in the
///   order of their names, each once.
/// - A deleted name is gone, and names and states do not disturb each other.
/// - A scan visits the entries of the groups asked for in the order of their names, each once, until it is told to stop.
/// - What is [loaded](ColdTier::load) is written, whatever its order, once the load is finished; one that is not leaves nothing.
/// - A [view](ColdTier::view) is the tier as it was at the call, whatever is written later, also after later views.
/// - Any bytes can be a name or a value, empty ones too; values may have megabytes.
/// - A state that is opened again by the same header is the same; one of another header is another.
/// - It says about how many entries a state has, and 0 of an empty one alone.
/// - If it has images: one is the tier as it was at the call, whatever is written later. Imported, whole or in parts, alone or
///   with others, it gives the entries of the groups asked for, and no others.
/// - What it [lets expire](ColdTier::expire) it may leave out at any time, but not of views made before; nothing else goes with it.
/// - A lasting file of an image has the same bytes in every other image of the tier that has one of its name and length, also if
///   the tier goes on from an image.
pub trait ColdTier: Send + Sync + fmt::Debug {
    /// The state that this header describes, by operator, name and kind; an empty one if the tier does not have it.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it can't be made.
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError>;

    /// Looks the names up, all at once; `found` gets the index and the value of each that is there, in any order.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if any of them can't be read. Some may have been found.
    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError>;

    /// Looks up all entries whose names begin with one of the prefixes, those of all prefixes at once. `found` gets the index of
    /// the prefix, the name and the value of each; those of one prefix come in the order of their names. Where a name begins with
    /// several of the prefixes it is found for each of them.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if any of them can't be read. Some may have been found.
    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError>;

    /// Visits the entries whose names are `from` or behind it, in the order of their names, up to the end of the key group `last`.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if any of them can't be read. Some may have been visited.
    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError>;

    /// Puts and deletes what the batch says, in its order. Cheapest if its names rise.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it can't be written: then all of it may have been, or a part, or nothing.
    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError>;

    /// Begins to take what a snapshot has of the state, which may be more than [`Self::write`] should get, and an
    /// [image](Self::image) of which is made next. `None`, which is the default: `write` does as well. Nobody else may write to
    /// the state before it is dropped.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it can't begin.
    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        let _ = state;
        Ok(None)
    }

    /// The tier as it is now, to be read by whoever makes a snapshot of it. Takes no time that grows with the state.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if there can be none.
    fn view(&self) -> Result<Box<dyn ColdView>, ColdError>;

    /// The tier as it is now, as files of its own form; `None` if it has no such form, which is the default. May write what is
    /// in memory to a disk, and wait for it. Nobody may write to the tier meanwhile.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if they can't be made, on a full disk, say.
    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        Ok(None)
    }

    /// Makes the tier hold what these images do of the key groups, before any state is opened. No two of them have entries of the
    /// same state and key group. Returns which of the images, if any, goes on in this tier: files that the tier has from it and
    /// has not changed have their names, so that its lasting files need not be stored again with images of this tier.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if the files can't be read, are no image of such a tier, or can't be stored here; what there is of them
    /// goes with the tier. A tier without [images](Self::image) refuses.
    fn import(&self, images: &[&dyn ImageSource], groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        let _ = groups;
        Err(ColdError {
            action: format!("take over {} images", images.len()).into(),
            reason: "this tier has no files of its own form".into(),
        })
    }

    /// About how many entries the state has; 0 only if it has none.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if that can't be known.
    fn about(&self, state: ColdState) -> Result<u64, ColdError>;

    /// From now on entries of the state that were stamped at or before `horizon` may go, at any time and one by one, but not from
    /// a view that there is already. The values of the state begin with their stamps, as [`stamp_of_value`] reads them. A lower
    /// horizon than before says nothing. By default all of them stay.
    fn expire(&self, state: ColdState, horizon: i64) {
        let _ = (state, horizon);
    }

    /// Forgets all states but these, which may have come with an image and belong to nobody now. Does nothing unless there can
    /// be such.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if they can't be removed.
    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        let _ = states;
        Ok(())
    }
}

/// What a snapshot has of one state on its way into a [`ColdTier`]: see [`ColdTier::load`]. Dropped before it is finished, it
/// leaves the tier as it was.
pub trait ColdLoad: Send + fmt::Debug {
    /// Takes what the batch says, as [`ColdTier::write`] would after all batches before. Cheapest if key groups rise from batch
    /// to batch.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it can't be taken: the load is to be dropped.
    fn write(&mut self, batch: &ColdBatch) -> Result<(), ColdError>;

    /// Makes the tier have all of it. Before that reads see none of it.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it can't: then the tier may have all of it, or a part, or nothing.
    fn finish(self: Box<Self>) -> Result<(), ColdError>;
}

/// A [`ColdTier`] as it was once, as files that nobody changes. They go when it is dropped.
pub trait ColdImage: Send + Sync + fmt::Debug {
    /// The files, in the order of their names.
    fn files(&self) -> &[ImageFile];

    /// Opens a file, by its place in [`Self::files`].
    ///
    /// # Errors
    ///
    /// As the system reports.
    fn open(&self, file: usize) -> io::Result<Box<dyn io::Read + Send>>;

    /// Where a file lies on a disk of this machine, if it does: whoever wants to have it there for longer may link it, and has to
    /// leave it as it is. `None` is the default.
    fn path(&self, file: usize) -> Option<PathBuf> {
        let _ = file;
        None
    }
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name, by which the tier knows it: no path.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Whether a file of this name and length is the same in all images of one tier, and of those that go on from it.
    pub lasting: bool,
}

/// An image in a store, for [`ColdTier::import`].
pub trait ImageSource: Sync + fmt::Debug {
    /// The files, in the order of their names.
    fn files(&self) -> &[ImageFile];

    /// The key groups of the subtask that it was of.
    fn groups(&self) -> KeyGroupRange;

    /// Writes a file, by its place in [`Self::files`], to what `make` makes, anew if it has to be read again. After that it has
    /// the bytes that were stored.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if it is not there, damaged, or can't be written.
    fn read(&self, file: usize, make: &mut MakeFile<'_>) -> Result<(), ColdError>;

    /// Puts a lasting file to the path that `make` makes it at: it may link there what is another's too, so that the file has to
    /// stay as it is. By default it [reads](Self::read) it.
    ///
    /// # Errors
    ///
    /// As of [`Self::read`].
    fn put(&self, file: usize, to: &Path, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let _ = to;
        self.read(file, make)
    }
}

/// A [`ColdTier`] as it was once.
pub trait ColdView: Send + fmt::Debug {
    /// Visits the entries of these key groups, name and value, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if they can't be read.
    fn scan(&self, state: ColdState, groups: KeyGroupRange, visit: &mut ColdVisitor<'_>) -> Result<(), ColdError>;
}

/// What makes an empty file to write to, in place of the one that it made before.
pub type MakeFile<'a> = dyn FnMut() -> io::Result<Box<dyn io::Write>> + 'a;

/// What a scan calls with each name and its value; it says whether to go on.
pub type ColdVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What [`ColdTier::get_all`] calls with the index of the prefix, and the name and the value of each entry.
pub type ColdFound<'a> = dyn FnMut(usize, &[u8], &[u8]) + 'a;

/// A state of a [`ColdTier`]: its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColdState(pub u32);

/// A cold tier failed. Whoever uses it adds which state it was for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {reason}")]
pub struct ColdError {
    /// What it was about to do, such as "read 12 entries".
    pub action: Box<str>,
    /// What went wrong, and what to do next if that is known.
    pub reason: Box<str>,
}

/// When an entry of a map, a list, or another named state was last written, as far as it may expire: the first thing in its
/// value, in a tier. `None` also if the bytes are none that a table wrote.
#[must_use]
pub fn stamp_of_value(value: &[u8]) -> Option<i64> {
    decode_front::<Option<i64>>(value).ok().and_then(|(stamp, _)| stamp)
}

/// The bytes with which the names of a key group begin.
#[must_use]
pub fn group_prefix(group: KeyGroup) -> [u8; 2] {
    group.0.to_be_bytes()
}

/// The key group of a name.
#[must_use]
pub fn group_of_name(name: &[u8]) -> Option<KeyGroup> {
    name.first_chunk().map(|group| KeyGroup(u16::from_be_bytes(*group)))
}
