//! Says what is wrong with a record, in the words of the file: line, column, what stands there, what was expected.

use ::csv::{DeserializeErrorKind, Error, ErrorKind, Reader, StringRecord};
use serde::de::DeserializeOwned;

use crate::FileError;
use crate::feed::Feed;

/// Longest part of a field that an error shows, in characters.
const SHOWN: usize = 100;

/// The reader could not make fields of the bytes.
pub(super) fn unreadable(error: Error, reader: &Reader<Feed>, header: &StringRecord) -> FileError {
    let feed = reader.get_ref();
    let (path, line) = (feed.path().to_path_buf(), feed.line());
    match error.into_kind() {
        ErrorKind::Io(error) => feed.failed(error),
        ErrorKind::Utf8 { err, .. } => {
            let place = match header.get(err.field()) {
                Some(name) => format!("column {name}"),
                None => format!("field {}", err.field() + 1),
            };
            FileError::Utf8 { path, line, place, valid: err.valid_up_to() }
        }
        // Not of a reader that takes any number of fields and makes no values.
        other @ (ErrorKind::UnequalLengths { .. }
        | ErrorKind::Seek
        | ErrorKind::Serialize(_)
        | ErrorKind::Deserialize { .. }
        | _) => FileError::BadRecord { path, line, reason: format!("{other:?}") },
    }
}

pub(super) fn wrong_fields(feed: &Feed, header: &StringRecord, record: &StringRecord) -> FileError {
    FileError::Fields {
        path: feed.path().to_path_buf(),
        line: feed.line(),
        found: record.len(),
        expected: header.len(),
        cut: feed.at_end() && record.len() < header.len(),
    }
}

/// The fields are not what `T` expects.
pub(super) fn bad_record<T: DeserializeOwned>(
    error: &Error,
    feed: &Feed,
    header: &StringRecord,
    record: &StringRecord,
) -> FileError {
    let (path, line) = (feed.path().to_path_buf(), feed.line());
    let reason = reason(error);
    if reason.starts_with("missing field") {
        let reason = reason.replacen("missing field", "missing column", 1);
        return FileError::MissingColumn { path, line, reason, columns: header.iter().map(str::to_owned).collect() };
    }
    match column_of(error).or_else(|| find_column::<T>(&reason, header, record)) {
        Some(column) if column < header.len() => FileError::BadField {
            path,
            line,
            column: header[column].to_owned(),
            value: record[column].chars().take(SHOWN).collect(),
            reason,
        },
        _ => FileError::BadRecord { path, line, reason },
    }
}

fn reason(error: &Error) -> String {
    let ErrorKind::Deserialize { err, .. } = error.kind() else { return error.to_string() };
    match err.kind() {
        DeserializeErrorKind::ParseInt(error) => format!("expected a whole number: {error}"),
        DeserializeErrorKind::ParseFloat(error) => format!("expected a number: {error}"),
        DeserializeErrorKind::ParseBool(_) => "expected true or false".to_owned(),
        kind @ (DeserializeErrorKind::Message(_)
        | DeserializeErrorKind::Unsupported(_)
        | DeserializeErrorKind::UnexpectedEndOfRow
        | DeserializeErrorKind::InvalidUtf8(_)) => kind.to_string(),
    }
}

fn column_of(error: &Error) -> Option<usize> {
    let ErrorKind::Deserialize { err, .. } = error.kind() else { return None };
    err.field().and_then(|field| usize::try_from(field).ok())
}

/// Errors of a type's own `Deserialize` don't say where. The column is the first one whose presence brings the error
/// about.
fn find_column<T: DeserializeOwned>(
    reason_of_all: &str,
    header: &StringRecord,
    record: &StringRecord,
) -> Option<usize> {
    (0..record.len()).find(|last| {
        let upto = |all: &StringRecord| all.iter().take(last + 1).collect::<StringRecord>();
        let (header, record) = (upto(header), upto(record));
        record.deserialize::<T>(Some(&header)).is_err_and(|error| reason(&error) == reason_of_all)
    })
}

/// Whether a quote is open after `raw`, which begins where a record may begin. The reader itself takes the end of the
/// file for a closing quote.
pub(super) fn ends_in_quotes(raw: &[u8], delimiter: u8) -> bool {
    let mut quotes = Quotes::default();
    raw.iter().for_each(|byte| quotes.take(*byte, delimiter));
    quotes.are_open()
}

/// Follows the quotes through the bytes of records.
#[derive(Clone, Copy, Default)]
pub(super) enum Quotes {
    /// A field begins.
    #[default]
    Start,
    Plain,
    Quoted,
    /// After one within quotes: it ends them or, doubled, stands for itself.
    Quote,
}

impl Quotes {
    pub(super) fn take(&mut self, byte: u8, delimiter: u8) {
        *self = match (*self, byte) {
            (Self::Start | Self::Quote, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Quote,
            (Self::Quoted, _) => Self::Quoted,
            (_, b'\n' | b'\r') => Self::Start,
            (_, byte) if byte == delimiter => Self::Start,
            _ => Self::Plain,
        };
    }

    pub(super) fn are_open(self) -> bool {
        matches!(self, Self::Quoted)
    }
}
