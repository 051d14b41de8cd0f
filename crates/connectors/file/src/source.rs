use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_dataflow::{Source, UserError};
use serde::de::DeserializeOwned;

use crate::FileError;
use crate::csv::CsvParser;
use crate::feed::Feed;
use crate::files::{Files, IntoFiles, by_split, may_be_none};
use crate::json::JsonParser;
use crate::lines::LineParser;
use crate::pace::Pace;
use crate::parse::Parser;
use crate::position::FilePosition;
use crate::reader::{FileReader, TimeOf};

type OpenParser<T> = fn(Feed, u8, Option<&FilePosition>) -> Result<Box<dyn Parser<T>>, FileError>;

/// The longest record unless [`FileSource::max_record_bytes`] says otherwise: 1 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;

/// Files of records, plain or compressed with zstd or gzip, each a split. Made by [`csv()`], [`delimited`],
/// [`json_lines`] or [`lines`] of a path or a [`glob()`](crate::glob()).
///
/// - A file is read once from beginning to end. It may grow between two runs, not change otherwise.
/// - A file compressed in one piece is decompressed from its beginning to go on at a position; one of many zstd frames or
///   gzip members only from the one that holds the position.
/// - Without [`Self::event_time`] the records have no time, and no watermarks are made.
pub struct FileSource<T> {
    files: Vec<Files>,
    listed: Mutex<Option<Arc<BTreeMap<String, PathBuf>>>>,
    delimiter: u8,
    open: OpenParser<T>,
    time_of: Option<TimeOf<T>>,
    lag: Option<Duration>,
    per_second: Option<f64>,
    max_record_bytes: usize,
    follow: bool,
}

/// A source of CSV records, read by column names into a type that is `Deserialize`.
pub type CsvSource<T> = FileSource<T>;

/// A source of JSON texts, one a line.
pub type JsonSource<T> = FileSource<T>;

/// A source of lines of text.
pub type LineSource = FileSource<String>;

/// Reads a CSV file with a header; fields are separated by commas, quoted with `"` where needed, in UTF-8.
///
/// The type names its columns as fields; columns that it does not name are passed over. Empty lines are skipped. A record
/// with more or fewer fields than the header is an error, as is a file that ends within a record. A last line without
/// line end counts if it is a whole record.
pub fn csv<T: DeserializeOwned + Send + 'static>(files: impl IntoFiles) -> CsvSource<T> {
    delimited(files, b',')
}

/// Like [`csv()`], with another byte between fields, such as `b'\t'` or `b';'`.
pub fn delimited<T: DeserializeOwned + Send + 'static>(files: impl IntoFiles, delimiter: u8) -> CsvSource<T> {
    FileSource::new(files, delimiter, CsvParser::open::<T>)
}

/// Reads a text file in UTF-8 by lines, empty ones included, without their ends (`\n` or `\r\n`).
pub fn lines(files: impl IntoFiles) -> LineSource {
    FileSource::new(files, 0, |feed, _, position| LineParser::open(feed, position))
}

/// Reads JSON texts, one a line, in UTF-8, into a type that is `Deserialize`: what is called JSON Lines or NDJSON.
///
/// Lines of nothing but white space are skipped, and so is a byte order mark. A text that goes over several lines is an
/// error, as is anything behind it in its line. A last line without line end counts if it is a whole text. Objects and
/// lists may be nested 127 deep.
///
/// ```
/// # use cutwater_dataflow::{Source, SourceOutput, SplitReader};
/// # use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Click {
///     page: String,
/// }
///
/// # fn main() -> Result<(), cutwater_dataflow::UserError> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("clicks.jsonl");
/// # std::fs::write(&path, "{\"page\": \"/\", \"user\": 7}\n{\"page\": 1}\n")?;
/// let source = cutwater_file::json_lines::<Click>(&path);
/// let mut out = SourceOutput::new(10);
/// let error = source.open("clicks.jsonl", None)?.read(&mut out).unwrap_err();
/// assert_eq!(out.take()[0].1.page, "/");
/// assert!(error.to_string().contains("line 2, column 10"));
/// # Ok(())
/// # }
/// ```
pub fn json_lines<T: DeserializeOwned + Send + 'static>(files: impl IntoFiles) -> JsonSource<T> {
    FileSource::new(files, 0, |feed, _, position| JsonParser::open::<T>(feed, position))
}

impl<T> FileSource<T> {
    fn new(files: impl IntoFiles, delimiter: u8, open: OpenParser<T>) -> Self {
        Self {
            files: vec![files.into_files()],
            listed: Mutex::default(),
            delimiter,
            open,
            time_of: None,
            lag: None,
            per_second: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            follow: false,
        }
    }

    /// Reads this file too, or all that match a [`glob()`](crate::glob()). The files are read side by side, as far as there
    /// are subtasks, and in turns beyond that.
    #[must_use]
    pub fn and(mut self, files: impl IntoFiles) -> Self {
        self.files.push(files.into_files());
        self.listed = Mutex::default();
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
    pub fn watermark_on_advance(self) -> Self {
        self.bounded_out_of_orderness(Duration::ZERO)
    }

    /// As [`Self::watermark_on_advance`], for files whose records come at most so much later than one with a greater time: the
    /// watermark is that much, and 1 ms, below the greatest time in the file. Longer: fewer late records, later results. Source:
    /// Flink's strategy of this name.
    #[must_use]
    pub fn bounded_out_of_orderness(mut self, bound: Duration) -> Self {
        self.lag = Some(bound);
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

    /// Does not stop at the end of a file, but waits for more, as `tail -f` does; the file is looked at ten times a
    /// second. The job then runs until it is cancelled.
    ///
    /// - A record is read when its line end is there: half a line, as a writer may leave it, is none.
    /// - A file must grow and do nothing else. That it was cut, replaced, moved or written anew is an error, which no
    ///   restart mends. Files that appear later are not noticed.
    /// - Compressed files can't be followed. A CSV file must have its header when the job starts.
    /// - A file that does not grow holds the watermark back, unless the source has an idleness.
    /// - What an earlier run read to its end without following it is done with: its growth is not read.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    fn check(&self) -> Result<(), FileError> {
        let bad = |reason: &str| Err(FileError::BadFiles { reason: reason.to_owned() });
        match () {
            () if self.per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) => {
                bad("the pace must be a number above zero")
            }
            () if self.lag.is_some() && self.time_of.is_none() => {
                bad("watermarks need the times of the records: add event_time")
            }
            () if matches!(self.delimiter, b'"' | b'\n' | b'\r') => bad("quotes and line ends can't separate fields"),
            () => Ok(()),
        }
    }

    /// The names of the splits. Looks at the files too, so that a missing one is an error now, not when its turn comes.
    fn names(&self) -> Result<Vec<String>, FileError> {
        self.check()?;
        let files = self.list()?;
        let open = |(name, path): (&String, &PathBuf)| {
            Feed::open(path, self.max_record_bytes, self.follow).map(|_| name.clone())
        };
        files.iter().map(open).collect()
    }

    /// The files by the names of their splits. Listed once: subtasks share the splits out by their places in the list,
    /// so all must see the same one, whatever appears in the folder meanwhile.
    fn list(&self) -> Result<Arc<BTreeMap<String, PathBuf>>, FileError> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &*listed {
            return Ok(Arc::clone(files));
        }
        let files = Arc::new(by_split(&self.files)?);
        *listed = Some(Arc::clone(&files));
        Ok(files)
    }

    fn reader(&self, split: &str, position: Option<&FilePosition>) -> Result<FileReader<T>, FileError> {
        let files = self.list()?;
        let path = files.get(split).ok_or_else(|| FileError::UnknownSplit { split: split.to_owned() })?;
        let feed = Feed::open(path, self.max_record_bytes, self.follow)?;
        let parser = (self.open)(feed, self.delimiter, position)?;
        let pace = self.per_second.map(Pace::new);
        Ok(FileReader::new(parser, self.time_of.clone(), self.lag, pace, position))
    }
}

impl<T: Send + 'static> Source for FileSource<T> {
    type Record = T;
    type Position = FilePosition;
    type Reader = FileReader<T>;

    fn splits(&self, _parallelism: u32) -> Result<Vec<String>, UserError> {
        let names = self.names().map_err(FileError::for_job)?;
        if names.is_empty() {
            let reason = "no file matches the pattern of the source; is it relative to the right folder?".to_owned();
            return Err(FileError::BadFiles { reason }.for_job());
        }
        Ok(names)
    }

    fn splits_after_restore(&self, parallelism: u32, found: &[&str]) -> Result<Vec<String>, UserError> {
        if found.is_empty() || !may_be_none(&self.files) {
            return self.splits(parallelism);
        }
        self.names().map_err(FileError::for_job)
    }

    fn open(&self, split: &str, position: Option<&FilePosition>) -> Result<FileReader<T>, UserError> {
        self.reader(split, position).map_err(FileError::for_job)
    }

    fn parallelism_limit(&self) -> u32 {
        // What can't be listed now is an error when the job starts.
        self.list().map_or(1, |files| u32::try_from(files.len()).unwrap_or(u32::MAX))
    }
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
