use std::io;
use std::path::PathBuf;

use cutwater_dataflow::{NonRecoverable, UserError};
use cutwater_storage::StoreErrorKind;

/// Why a file could not be read, or output not written or published. The text names the file and, where there is one,
/// the line (from 1, in the decompressed text), the column and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be opened.
    #[error("could not open {}: {}", path.display(), StoreErrorKind::of(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device: nothing that could be read again after a failure.
    #[error("{} is not a plain file, so it could not be read again after a failure", path.display())]
    NotAFile {
        /// What was to be read.
        path: PathBuf,
    },
    /// The system failed to read it.
    #[error("could not read {} after byte {offset} (decompressed)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes read before.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The zstd or gzip data is damaged.
    #[error("{} is corrupt after byte {offset} of its decompressed text: {reason}; get a whole copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes before the damage.
        offset: u64,
        /// What the decompressor says.
        reason: &'static str,
    },
    /// The file ends inside a zstd frame or a gzip member.
    #[error("{} is cut off: its compressed data ends after byte {offset} of the decompressed text; get a whole copy", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes before the cut.
        offset: u64,
    },
    /// There is not even a header.
    #[error("{} is empty; expected a line with the names of the columns", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// A record is longer than allowed.
    #[error(
        "{}, line {line}: the record is longer than {limit} bytes; is a line end or a closing quote missing? otherwise \
         raise the limit with max_record_bytes",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The file ends inside quotes.
    #[error("{}, line {line}: the file ends inside a quoted field of this record; expected a closing quote", path.display())]
    Unclosed {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
    },
    /// A record has more or fewer fields than the header.
    #[error(
        "{}, line {line}: {found} fields, expected {expected} as in the header{}",
        path.display(),
        if *cut { "; the file ends in the midst of this record, get a whole copy" } else { "" }
    )]
    Fields {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
        /// Fields of the record.
        found: usize,
        /// Fields of the header.
        expected: usize,
        /// Whether the record ends with the file, without a line end.
        cut: bool,
    },
    /// The header lacks a column that the record type needs.
    #[error("{}, line {line}: {reason}; the columns are: {}", path.display(), columns.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The first record that needs it.
        line: u64,
        /// Which one is missing.
        reason: String,
        /// Those that are there.
        columns: Vec<String>,
    },
    /// A field is not what the record type expects.
    #[error("{}, line {line}, column {column}: {value:?} is not what was expected: {reason}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
        /// The name of the column.
        column: String,
        /// What stands there, cut at 100 characters.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// A line is no JSON, or not what the record type expects.
    #[error(
        "{}, line {line}, column {column}: {reason}, near {near:?}{}",
        path.display(),
        if *cut { "; the file ends in the midst of this record, get a whole copy" } else { "" }
    )]
    BadJson {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The byte in the line up to which it was good, from 1.
        column: usize,
        /// What stands around that place.
        near: String,
        /// What is wrong, or what was expected.
        reason: String,
        /// Whether the record ends with the file, without a line end.
        cut: bool,
    },
    /// A compressed file can't be followed.
    #[error("{} is compressed: only plain files can be followed while they grow", path.display())]
    CantFollow {
        /// The file.
        path: PathBuf,
    },
    /// A file that is followed did something else than grow.
    #[error(
        "{} {reason} while it was followed; append to a followed file and do nothing else, or follow a new one under a \
         new name",
        path.display()
    )]
    NotAppended {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// No connection came about.
    #[error("could not connect to {address}; does anybody listen there?")]
    Connect {
        /// The host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A connection failed.
    #[error("the connection to {address} failed after {lines} lines; what was sent since the last checkpoint is lost")]
    Receive {
        /// The host and port.
        address: String,
        /// Lines received over it and those before.
        lines: u64,
        /// Why.
        source: io::Error,
    },
    /// A line from a connection can't be used.
    #[error("line {line} from {address}: {reason}")]
    SocketLine {
        /// The host and port.
        address: String,
        /// Its number, over all connections, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A record is not what the type expects, though no single field is to blame.
    #[error("{}, line {line}: {reason}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
        /// What was expected.
        reason: String,
    },
    /// Bytes that are no UTF-8.
    #[error("{}, line {line}, {place}: invalid UTF-8 after {valid} bytes; expected UTF-8 text", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
        /// The column.
        place: String,
        /// Good bytes before, in the field or line.
        valid: usize,
    },
    /// The file is not the one that the position belongs to.
    #[error(
        "{} has changed since the checkpoint: {reason}; put the old file back, or start without the checkpoint",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A checkpoint names a file that is not among those of the source.
    #[error("the checkpoint has a position in {split:?}, which is not among the files of the source: add it again")]
    UnknownSplit {
        /// The name of the split.
        split: String,
    },
    /// The source has no files, or the same one twice, or a name that can't be kept in a checkpoint.
    #[error("the files of the source can't be used: {reason}")]
    BadFiles {
        /// What is wrong with them.
        reason: String,
    },
    /// Output could not be written.
    #[error("could not {action} {}: {}", path.display(), StoreErrorKind::of(source))]
    Output {
        /// What was tried: a verb.
        action: &'static str,
        /// The output folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A prefix or an extension that can't be part of the names of output files.
    #[error("can't name the files in {}: {reason}", path.display())]
    BadNames {
        /// The output folder.
        path: PathBuf,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// The output folder holds files that this run would make.
    #[error(
        "{} is there already, from another run into the same folder; move the old output away or choose another folder",
        path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A handle in the checkpoint can't be understood.
    #[error("the checkpoint holds a handle of the sink that can't be read: {reason}")]
    BadHandle {
        /// What is wrong with it.
        reason: String,
    },
    /// Prepared output is gone.
    #[error(
        "output of job {job}, {bytes} bytes, is lost: neither {} nor its unpublished form {temporary} is there; was the \
         folder moved or cleaned by hand?",
        path.display()
    )]
    Gone {
        /// The job that prepared it.
        job: String,
        /// The file to be published.
        path: PathBuf,
        /// The name it had before.
        temporary: String,
        /// Its length.
        bytes: u64,
    },
    /// Something else stands where output was to be published.
    #[error(
        "output of job {job} can't be published: {} is not the file that was prepared ({reason}); move it away, the \
         output waits as {temporary} if that is there",
        path.display()
    )]
    Conflict {
        /// The job that prepared it.
        job: String,
        /// The file to be published.
        path: PathBuf,
        /// The name it had before.
        temporary: String,
        /// How it differs.
        reason: String,
    },
}

impl FileError {
    /// Whether the same may succeed later without anyone changing the files or the job: after a failure of the system,
    /// not of the data.
    #[must_use]
    pub fn retry_may_help(&self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::Read { .. } | Self::Output { .. } | Self::Connect { .. } | Self::Receive { .. }
        )
    }

    /// For the job, which does not restart for what no retry can mend.
    pub(crate) fn for_job(self) -> UserError {
        if self.retry_may_help() { self.into() } else { NonRecoverable::new(self).into() }
    }
}
