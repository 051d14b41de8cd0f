use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutwater_core::Timestamp;
use cutwater_dataflow::{Source, UserError};
use serde::de::DeserializeOwned;

use crate::FileError;
use crate::csv::CsvParser;
use crate::feed::Feed;
use crate::lines::LineParser;
use crate::pace::Pace;
use crate::parse::Parser;
use crate::position::FilePosition;
use crate::reader::{FileReader, TimeOf};

type OpenParser<T> = fn(Feed, u8, Option<&FilePosition>) -> Result<Box<dyn Parser<T>>, FileError>;

/// The longest record unless [`FileSource::max_record_bytes`] says otherwise: 1 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;

/// Files of records, plain or compressed with zstd, each a split. Made by [`csv()`], [`delimited`] or [`lines`].
///
/// - A file is read once from beginning to end. It may grow between two runs, not change otherwise.
/// - A file compressed in one piece is decompressed from its beginning to go on at a position; one of many frames only
///   from the frame that holds the position.
/// - Without [`Self::event_time`] the records have no time, and no watermarks are made.
pub struct FileSource<T> {
    paths: Vec<PathBuf>,
    delimiter: u8,
    open: OpenParser<T>,
    time_of: Option<TimeOf<T>>,
    watermarks: bool,
    per_second: Option<f64>,
    max_record_bytes: usize,
}

/// A source of CSV records, read by column names into a type that is `Deserialize`.
pub type CsvSource<T> = FileSource<T>;

/// A source of lines of text.
pub type LineSource = FileSource<String>;

/// Reads a CSV file with a header; fields are separated by commas, quoted with `"` where needed, in UTF-8.
///
/// The type names its columns as fields; columns that it does not name are passed over. Empty lines are skipped. A record
/// with more or fewer fields than the header is an error, as is a file that ends within a record. A last line without
/// line end counts if it is a whole record.
pub fn csv<T: DeserializeOwned + Send + 'static>(path: impl Into<PathBuf>) -> CsvSource<T> {
    delimited(path, b',')
}

/// Like [`csv()`], with another byte between fields, such as `b'\t'` or `b';'`.
pub fn delimited<T: DeserializeOwned + Send + 'static>(path: impl Into<PathBuf>, delimiter: u8) -> CsvSource<T> {
    FileSource::new(path.into(), delimiter, CsvParser::open::<T>)
}

/// Reads a text file in UTF-8 by lines, empty ones included, without their ends (`\n` or `\r\n`).
pub fn lines(path: impl Into<PathBuf>) -> LineSource {
    FileSource::new(path.into(), 0, |feed, _, position| LineParser::open(feed, position))
}

impl<T> FileSource<T> {
    fn new(path: PathBuf, delimiter: u8, open: OpenParser<T>) -> Self {
        Self {
            paths: vec![path],
            delimiter,
            open,
            time_of: None,
            watermarks: false,
            per_second: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        }
    }

    /// Reads this file too. The files are read side by side, as far as there are subtasks.
    #[must_use]
    pub fn and(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Gives each record the time at which it happened.
    #[must_use]
    pub fn event_time(mut self, time_of: impl Fn(&T) -> Timestamp + Send + Sync + 'static) -> Self {
        self.time_of = Some(Arc::new(time_of));
        self
    }

    /// Whenever a record has a greater time than all before it in its file, a watermark 1 ms below that time goes before
    /// it: for files in the order of their times, where a new time means that the one before is complete. A record that
    /// is earlier than a watermark flows on as a late one. Needs [`Self::event_time`].
    #[must_use]
    pub fn watermark_on_advance(mut self) -> Self {
        self.watermarks = true;
        self
    }

    /// Emits at most this many records a second of each file, in steps of about 5 ms, or of one record if that is
    /// longer. After a stall no more than 50 ms are made up. A rate that is not above zero or not a number is an error at
    /// the start; unlimited unless set.
    #[must_use]
    pub fn pace(mut self, records_per_second: f64) -> Self {
        self.per_second = Some(records_per_second);
        self
    }

    /// The longest record in bytes, its line end not counted: a longer one is an error, so that a file without line ends
    /// can't fill the memory. [`DEFAULT_MAX_RECORD_BYTES`] unless set.
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// The files by the names of their splits: the name of the file without its folder, so that a folder can move; the
    /// whole path where two files share a name.
    fn files(&self) -> Result<BTreeMap<&str, &Path>, FileError> {
        let bad = |reason| FileError::BadFiles { reason };
        let mut shared = BTreeMap::<_, usize>::new();
        for path in &self.paths {
            *shared.entry(path.file_name()).or_default() += 1;
        }
        let mut files = BTreeMap::new();
        for path in &self.paths {
            let name = path.file_name().filter(|name| shared.get(&Some(*name)) == Some(&1)).unwrap_or(path.as_os_str());
            let name = name.to_str().ok_or_else(|| bad(format!("the name of {} is not UTF-8", path.display())))?;
            if files.insert(name, path.as_path()).is_some() {
                return Err(bad(format!("{} is given twice", path.display())));
            }
        }
        Ok(files)
    }

    fn check(&self) -> Result<(), FileError> {
        let bad = |reason: &str| Err(FileError::BadFiles { reason: reason.to_owned() });
        match () {
            () if self.per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) => {
                bad("the pace must be a number above zero")
            }
            () if self.watermarks && self.time_of.is_none() => {
                bad("watermark_on_advance needs the times of the records: add event_time")
            }
            () if matches!(self.delimiter, b'"' | b'\n' | b'\r') => bad("quotes and line ends can't separate fields"),
            () => Ok(()),
        }
    }

    /// The names of the splits. Looks at the files too, so that a missing one is an error now, not when its turn comes.
    fn names(&self) -> Result<Vec<String>, FileError> {
        self.check()?;
        let files = self.files()?;
        files.into_iter().map(|(name, path)| Feed::open(path, self.max_record_bytes).map(|_| name.to_owned())).collect()
    }

    fn reader(&self, split: &str, position: Option<&FilePosition>) -> Result<FileReader<T>, FileError> {
        let files = self.files()?;
        let path = files.get(split).ok_or_else(|| FileError::UnknownSplit { split: split.to_owned() })?;
        let feed = Feed::open(path, self.max_record_bytes)?;
        let parser = (self.open)(feed, self.delimiter, position)?;
        let pace = self.per_second.map(Pace::new);
        Ok(FileReader::new(parser, self.time_of.clone(), self.watermarks, pace, position))
    }
}

impl<T: Send + 'static> Source for FileSource<T> {
    type Record = T;
    type Position = FilePosition;
    type Reader = FileReader<T>;

    fn splits(&self, _parallelism: u32) -> Result<Vec<String>, UserError> {
        self.names().map_err(FileError::for_job)
    }

    fn open(&self, split: &str, position: Option<&FilePosition>) -> Result<FileReader<T>, UserError> {
        self.reader(split, position).map_err(FileError::for_job)
    }

    fn parallelism_limit(&self) -> u32 {
        u32::try_from(self.paths.len()).unwrap_or(u32::MAX)
    }
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
