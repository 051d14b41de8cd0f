use cutwater_core::Timestamp;
use cutwater_dataflow::exec::OperatorSnapshot;
use serde::{Deserialize, Serialize};

/// What a snapshot of one subtask holds beside the keyed state: small, and kept in the checkpoint's own record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// The watermark of the subtask's input, the lowest over its channels; in milliseconds.
    pub watermark: i64,
    /// How many records the subtask had processed in its attempt. For display.
    pub records: u64,
    /// Source positions and handles of prepared output.
    pub operators: Vec<OperatorSnapshot>,
}

/// The format of [`TaskSnapshot::encode`]. The first byte of each.
const FORMAT: u8 = 1;

/// Bytes that are not a [`TaskSnapshot`] of a format known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A newer version wrote it.
    #[error("the subtask's part has format {found}, this version knows up to {FORMAT}: use the version that wrote it")]
    NewerFormat {
        /// The format found.
        found: u8,
    },
    /// It is damaged.
    #[error("the subtask's part of the checkpoint can't be read: {reason}")]
    Corrupt {
        /// In what way.
        reason: String,
    },
}

impl TaskSnapshot {
    /// The watermark as a time.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark)
    }

    /// The bytes that go into the checkpoint's record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("plain data into memory")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] for anything else. Nothing large is allocated on the word of a damaged length.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let corrupt = |reason: &str| SnapshotError::Corrupt { reason: reason.to_owned() };
        let (&format, body) = bytes.split_first().ok_or_else(|| corrupt("it is empty"))?;
        if format != FORMAT {
            return Err(SnapshotError::NewerFormat { found: format });
        }
        match postcard::take_from_bytes(body) {
            Ok((snapshot, [])) => Ok(snapshot),
            Ok((_, rest)) => Err(corrupt(&format!("{} bytes too many", rest.len()))),
            Err(error) => Err(corrupt(&error.to_string())),
        }
    }
}
