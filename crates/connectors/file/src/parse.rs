use crate::FileError;
use crate::feed::Feed;
use crate::position::Place;

/// Makes records of a [`Feed`].
pub(crate) trait Parser<T>: Send {
    /// The next record, or `None` at the end of the file.
    fn next(&mut self) -> Result<Option<T>, FileError>;

    /// After the last record.
    fn place(&self) -> Place;

    fn feed(&self) -> &Feed;

    /// Checksum of the header as it stands in the file; 0 if there is none.
    fn header_crc(&self) -> u32;
}
