use crate::FileError;
use crate::feed::Feed;
use crate::position::Place;

/// What comes next in a file.
pub(crate) enum Next<T> {
    Record(T),
    /// The file is followed, and its next record is not whole yet.
    Pending,
    /// The file has ended.
    End,
}

/// Makes records of a [`Feed`].
pub(crate) trait Parser<T>: Send {
    /// The next record, if there is one.
    fn next(&mut self) -> Result<Next<T>, FileError>;

    /// After the last record.
    fn place(&self) -> Place;

    fn feed(&self) -> &Feed;

    /// Checksum of the header as it stands in the file; 0 if there is none.
    fn header_crc(&self) -> u32;
}
