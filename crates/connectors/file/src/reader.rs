use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::{ReadStatus, SourceOutput, SplitReader, UserError};

use crate::FileError;
use crate::pace::Pace;
use crate::parse::{Next, Parser};
use crate::position::{FilePosition, Place};

pub(crate) type TimeOf<T> = Arc<dyn Fn(&T) -> Timestamp + Send + Sync>;

/// How often a file that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(100);

/// Reads one file of a [`FileSource`](crate::FileSource).
pub struct FileReader<T> {
    parser: Box<dyn Parser<T>>,
    time_of: Option<TimeOf<T>>,
    lag: Option<Duration>, // how far watermarks are behind the greatest time
    pace: Option<Pace>,
    place: Place,
    records: u64,
    greatest: Option<Timestamp>,
    resumed: bool, // and nothing read since
}

impl<T> FileReader<T> {
    pub(crate) fn new(
        parser: Box<dyn Parser<T>>,
        time_of: Option<TimeOf<T>>,
        lag: Option<Duration>,
        pace: Option<Pace>,
        position: Option<&FilePosition>,
    ) -> Self {
        Self {
            place: parser.place(),
            parser,
            time_of,
            lag,
            pace,
            records: position.map_or(0, |position| position.records),
            greatest: position.and_then(|position| position.greatest),
            resumed: position.is_some(),
        }
    }

    fn emit(&mut self, record: T, out: &mut SourceOutput<T>) {
        self.place = self.parser.place();
        self.records += 1;
        if let Some(pace) = &mut self.pace {
            pace.emitted();
        }
        let Some(time_of) = &self.time_of else { return out.emit(record) };
        let time = time_of(&record);
        if self.greatest.is_none_or(|greatest| time > greatest) {
            self.greatest = Some(time);
            self.watermark(out);
        }
        out.emit_at(time, record);
    }

    /// Records at the greatest time less the lag may still follow, none before it.
    fn watermark(&self, out: &mut SourceOutput<T>) {
        if let (Some(lag), Some(Timestamp(greatest))) = (self.lag, self.greatest) {
            let lag = i64::try_from(lag.as_millis()).unwrap_or(i64::MAX);
            out.watermark(Timestamp(greatest.saturating_sub(lag).saturating_sub(1)));
        }
    }
}

impl<T: Send + 'static> SplitReader for FileReader<T> {
    type Record = T;
    type Position = FilePosition;

    fn read(&mut self, out: &mut SourceOutput<T>) -> Result<ReadStatus, UserError> {
        if std::mem::take(&mut self.resumed) {
            // The split may have moved to a subtask that has not heard its watermark.
            self.watermark(out);
        }
        let now = out.now();
        let allowed = self.pace.as_mut().map_or(usize::MAX, |pace| pace.allowed(now));
        for _ in 0..allowed.min(out.room()) {
            match self.parser.next().map_err(FileError::for_job)? {
                Next::Record(record) => self.emit(record, out),
                Next::Pending => return Ok(ReadStatus::WaitUntil(now + FOLLOW)),
                Next::End => return Ok(ReadStatus::End),
            }
        }
        let wait = self.pace.as_ref().and_then(|pace| pace.next(now));
        Ok(wait.map_or(ReadStatus::More, ReadStatus::WaitUntil))
    }

    fn position(&self) -> FilePosition {
        FilePosition {
            place: self.place,
            records: self.records,
            greatest: self.greatest,
            open_end: self.parser.feed().open_end(self.place.offset),
            frame: self.parser.feed().frame_before(self.place.offset),
            file: self.parser.feed().identity(),
            header_crc: self.parser.header_crc(),
        }
    }
}

impl<T> fmt::Debug for FileReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("path", self.parser.feed().path())
            .field("place", &self.place)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
