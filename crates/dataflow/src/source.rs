use cutwater_core::{Moment, Timestamp};
use cutwater_state::Data;

use crate::UserError;

/// A replayable input, as data: what its splits are called and how one is opened at a position.
///
/// - The same input has the same split names at each start: positions are found again by name. Each subtask asks for
///   them, so within one start the answers must be equal.
/// - Opened at a position, a split yields exactly the records after it, in the same order as before.
///
/// Splits are spread over the subtasks in the order of their names, round robin; after a change of parallelism they
/// are spread anew, each with its position.
pub trait Source: Send + Sync + 'static {
    /// What it yields.
    type Record: Send + 'static;
    /// A place in a split: after the last record emitted. Kept in every snapshot.
    type Position: Data + Clone;
    /// Reads one split.
    type Reader: SplitReader<Record = Self::Record, Position = Self::Position>;

    /// The names of the splits. `parallelism` is that of the task, for sources which make as many splits as there are
    /// subtasks; those must override [`Self::splits_after_restore`] too.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from knowing them, such as a missing file; the job then does not start.
    fn splits(&self, parallelism: u32) -> Result<Vec<String>, UserError>;

    /// The names of the splits after a restore, when `found` are those in the checkpoint. Unless said, what
    /// [`Self::splits`] returns: splits that are new since. Those found are read on in any case.
    ///
    /// # Errors
    ///
    /// As for [`Self::splits`].
    fn splits_after_restore(&self, parallelism: u32, found: &[&str]) -> Result<Vec<String>, UserError> {
        let _ = found;
        self.splits(parallelism)
    }

    /// Opens one split, at its beginning or after `position`.
    ///
    /// # Errors
    ///
    /// If it can't be read, or no longer holds the position; the attempt then fails.
    fn open(&self, split: &str, position: Option<&Self::Position>) -> Result<Self::Reader, UserError>;

    /// The number of subtasks that make sense, such as the number of splits; no limit unless said.
    fn parallelism_limit(&self) -> u32 {
        u32::MAX
    }
}

/// Reads one split of a [`Source`], on a worker thread: it must not block for long.
pub trait SplitReader: Send + 'static {
    /// What it yields.
    type Record;
    /// A place in the split.
    type Position;

    /// Emits some records, at most [`SourceOutput::room`], and says whether to ask again.
    ///
    /// # Errors
    ///
    /// Bad input or a failed read; the attempt fails with it. Records emitted before count as read.
    fn read(&mut self, out: &mut SourceOutput<Self::Record>) -> Result<ReadStatus, UserError>;

    /// The place after the last record emitted, not that of any read-ahead.
    fn position(&self) -> Self::Position;
}

/// What [`SplitReader::read`] says about the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// There may be more at once.
    More,
    /// Nothing to emit before this moment.
    WaitUntil(Moment),
    /// The split has ended; `read` is not called again.
    End,
}

/// Takes what a [`SplitReader`] emits in one call.
#[derive(Debug)]
pub struct SourceOutput<T> {
    pub(crate) now: Moment,
    pub(crate) limit: usize,
    pub(crate) records: Vec<T>,
    pub(crate) times: Vec<Timestamp>,
    /// Before which record, counted within this call, a watermark stands.
    pub(crate) watermarks: Vec<(usize, Timestamp)>,
}

impl<T> SourceOutput<T> {
    /// An output for at most `limit` records a call. Public for tests of sources of your own.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { now: Moment::ZERO, limit, records: Vec::new(), times: Vec::new(), watermarks: Vec::new() }
    }

    /// The moment of this call, for sources that pace themselves.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now
    }

    /// How many more records this call may emit. More are taken, but make the pause until the next barrier longer.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.records.len())
    }

    /// Emits a record without a time.
    #[inline]
    pub fn emit(&mut self, record: T) {
        if !self.times.is_empty() {
            self.times.push(Timestamp::MIN);
        }
        self.records.push(record);
    }

    /// Emits a record that happened at `time`.
    #[inline]
    pub fn emit_at(&mut self, time: Timestamp, record: T) {
        self.times.resize(self.records.len(), Timestamp::MIN);
        self.times.push(time);
        self.records.push(record);
    }

    /// Says that no record at or before `watermark` follows in this split. A watermark that is not above the last
    /// one of the split changes nothing.
    pub fn watermark(&mut self, watermark: Timestamp) {
        self.watermarks.push((self.records.len(), watermark));
    }

    /// Takes out what was emitted: records with their times (`None` if without), in order. For tests of sources.
    pub fn take(&mut self) -> Vec<(Option<Timestamp>, T)> {
        self.times.resize(self.records.len(), Timestamp::MIN);
        self.watermarks.clear();
        let time = |time: Timestamp| (time != Timestamp::MIN).then_some(time);
        self.times.drain(..).map(time).zip(self.records.drain(..)).collect()
    }

    /// The watermarks emitted since the last [`Self::take`]: before which record each stands. For tests of sources.
    #[must_use]
    pub fn watermarks(&self) -> &[(usize, Timestamp)] {
        &self.watermarks
    }

    pub(crate) fn clear(&mut self, now: Moment, limit: usize) {
        self.now = now;
        self.limit = limit;
        self.records.clear();
        self.times.clear();
        self.watermarks.clear();
    }
}
