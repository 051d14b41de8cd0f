use cutwater_core::Timestamp;
use serde::{Deserialize, Serialize};

/// A place in a file, between two records; kept in every snapshot.
///
/// It knows the file too: its length, a checksum of its first bytes and of its header, so that another file under the
/// same name is noticed. A file may grow, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    pub(crate) place: Place,
    pub(crate) records: u64,
    pub(crate) greatest: Option<Timestamp>,
    pub(crate) open_end: bool, // the file ended here, without a line end
    pub(crate) frame: Option<Frame>,
    pub(crate) file: Identity,
    pub(crate) header_crc: u32,
}

impl FilePosition {
    /// Bytes of the decompressed text before this place.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.place.offset
    }

    /// Line ends before this place; differs from the records by the header, empty lines, and line ends inside quotes.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.place.lines
    }

    /// Records before this place, the header not counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The greatest event time of these records.
    #[must_use]
    pub fn greatest_time(&self) -> Option<Timestamp> {
        self.greatest
    }
}

/// A place in the decompressed text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) lines: u64,
}

/// Where a zstd frame begins: decompression can start there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// In the file.
    pub(crate) compressed: u64,
    /// In the decompressed text.
    pub(crate) offset: u64,
}

/// What tells a file from another: raw bytes, before decompression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) bytes: u64,
    pub(crate) head_bytes: u32,
    pub(crate) head_crc: u32,
}
