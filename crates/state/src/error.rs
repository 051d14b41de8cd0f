use std::io;

use crate::{ColdError, SchemaMismatch};

/// What can go wrong with state: a type that does not serialize, a snapshot that does not fit or is damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A key or value refused to be serialized.
    #[error("could not encode a {type_name}: {reason}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What its `Serialize` said.
        reason: Box<str>,
    },
    /// Stored bytes are not a value of the type.
    #[error("could not decode a {type_name}: {reason}")]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// What is wrong with the bytes.
        reason: Box<str>,
    },
    /// A key, a value or a block is larger than the format can hold.
    #[error("{what} of {bytes} bytes is larger than the limit of {limit}: split it over several keys")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// More than four million entries have the same hash, such as timers of one key.
    #[error("state {state} of {operator} holds {entries} entries under one hash: spread them over several keys")]
    Crowded {
        /// Uid of the operator.
        operator: Box<str>,
        /// Name of the state.
        state: Box<str>,
        /// How many there are.
        entries: u64,
    },
    /// A restore was asked of a state whose snapshot is being swept.
    #[error("state {state} of {operator} is being swept: finish or abort the sweep before a restore")]
    Sweeping {
        /// Uid of the operator.
        operator: Box<str>,
        /// Name of the state.
        state: Box<str>,
    },
    /// The snapshot was written for another type, codec or maximum parallelism.
    #[error("state {state} of {operator} was written with another schema: {mismatch}")]
    Schema {
        /// Uid of the operator.
        operator: Box<str>,
        /// Name of the state.
        state: Box<str>,
        /// The differences.
        mismatch: SchemaMismatch,
    },
    /// The file begins with something else than a snapshot's magic number.
    #[error("not a snapshot file: its first bytes are not those of one")]
    NotASnapshot,
    /// The file was written by a newer release.
    #[error("the snapshot has format version {found}, this release reads versions up to {known}: use a newer release")]
    NewerVersion {
        /// The version in the file.
        found: u32,
        /// The newest version this release reads.
        known: u32,
    },
    /// A part of a snapshot is not what was written: truncated, overwritten or mixed up.
    #[error("damaged snapshot: {part} at byte {offset}: {reason}")]
    Damaged {
        /// Which part, such as "footer" or "block".
        part: &'static str,
        /// Where the part begins in the file; in a block's payload, once that has passed its checksum.
        offset: u64,
        /// What is wrong.
        reason: Box<str>,
    },
    /// The tier below the tables failed.
    #[error("state {state} of {operator}: the tier below its table failed")]
    Cold {
        /// Uid of the operator.
        operator: Box<str>,
        /// Name of the state.
        state: Box<str>,
        /// What the tier said.
        source: Box<ColdError>,
    },
    /// The file could not be read.
    #[error("could not read {bytes} bytes of the snapshot at byte {offset}")]
    Read {
        /// Where the read began.
        offset: u64,
        /// How much was to be read.
        bytes: u64,
        /// What the file said.
        source: io::Error,
    },
}

impl StateError {
    /// Whether the same may succeed at another time: a read that failed, and what a tier did, which has a disk.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Cold { .. })
    }
}
