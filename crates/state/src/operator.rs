//! Operator state of one subtask as it stands in a checkpoint's record.

use cutwater_core::{MaxParallelism, OperatorUid};

use crate::codec::{encode_framed, split_framed};
use crate::{Data, Schema, StateError, StateHeader, StateKind, codec_of};

/// The operator states of one subtask have at most so many bytes together, 16 MiB: they are in the checkpoint's record, and
/// copied while the worker waits. Subtasks of one task have at most [`OPERATOR_STATE_OF_TASK`] together.
pub const OPERATOR_STATE_BYTES: u64 = 16 << 20;

/// All subtasks of a task have at most so many bytes of operator state together, 128 MiB.
pub const OPERATOR_STATE_OF_TASK: u64 = 128 << 20;

/// The format of [`OperatorStateWriter`]. The first byte of each part.
const FORMAT: u8 = 1;
/// Format, subtask, parallelism, length of the header.
const PREFIX: usize = 1 + 4 + 4 + 4;

impl StateHeader {
    /// Describes an operator state: a list, whose items are values with `()` as their key, or a map.
    #[must_use]
    pub fn of_operator_state<U: Data, V: Data>(
        operator: OperatorUid,
        name: &str,
        kind: StateKind,
        max_parallelism: MaxParallelism,
    ) -> Self {
        Self {
            operator,
            name: name.to_owned(),
            kind,
            key_codec: codec_of::<U>(),
            key_schema: Schema::of::<U>(),
            value_codec: codec_of::<V>(),
            value_schema: Schema::of::<V>(),
            max_parallelism,
        }
    }
}

/// Encodes what one subtask has of one operator state.
pub struct OperatorStateWriter {
    bytes: Vec<u8>,
    /// Where the number of entries stands.
    count_at: usize,
    entries: u32,
}

impl OperatorStateWriter {
    /// A part without entries, of subtask `subtask` of `parallelism`.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if the header can't be encoded.
    pub fn new(header: &StateHeader, subtask: u32, parallelism: u32) -> Result<Self, StateError> {
        let json = serde_json::to_vec(header)
            .map_err(|error| StateError::Encode { type_name: "StateHeader", reason: error.to_string().into() })?;
        let length = crate::codec::checked_length(json.len())?;
        let mut bytes = vec![FORMAT];
        for number in [subtask, parallelism, length] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&json);
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Ok(Self { bytes, count_at, entries: 0 })
    }

    /// Adds an entry, in the types that the header was made of.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] if it can't be encoded, [`StateError::TooLarge`] if the part is then larger than a subtask's
    /// operator state may be. The part can then only be dropped.
    pub fn push<U: Data, V: Data>(&mut self, key: &U, value: &V) -> Result<(), StateError> {
        encode_framed(key, &mut self.bytes)?;
        encode_framed(value, &mut self.bytes)?;
        self.entries += 1;
        // Entries may have no bytes at all, such as `()`: their number is bounded all the same.
        let bytes = (self.bytes.len() as u64).max(self.entries.into());
        if bytes > OPERATOR_STATE_BYTES {
            return Err(StateError::TooLarge { what: "an operator state", bytes, limit: OPERATOR_STATE_BYTES });
        }
        Ok(())
    }

    /// The encoded part.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&self.entries.to_le_bytes());
        self.bytes
    }
}

/// What one subtask had of one operator state, read without copying its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorStatePart<'a> {
    /// The subtask.
    pub subtask: u32,
    /// How many subtasks its task had.
    pub parallelism: u32,
    /// What kind of state it is, and of which types.
    pub header: StateHeader,
    /// How many entries follow.
    pub entries: u32,
    bytes: &'a [u8],
}

impl<'a> OperatorStatePart<'a> {
    /// Reads a part.
    ///
    /// # Errors
    ///
    /// [`StateError::NewerVersion`] if a newer release wrote it, [`StateError::Damaged`] if it is not what a writer wrote.
    /// Nothing is allocated on the word of a damaged length.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, StateError> {
        let wrong = |reason: &str| StateError::Damaged { part: "operator state", offset: 0, reason: reason.into() };
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or_else(|| wrong("it is too short"))?;
        if prefix[0] != FORMAT {
            return Err(StateError::NewerVersion { found: prefix[0].into(), known: FORMAT.into() });
        }
        let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        let (subtask, parallelism, length) = (word(1), word(5), word(9));
        if subtask >= parallelism {
            return Err(wrong("it is of no subtask"));
        }
        let json = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (json, rest) = json.ok_or_else(|| wrong("its header is longer than it"))?;
        let header: StateHeader = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?;
        let (count, bytes) = rest.split_first_chunk::<4>().ok_or_else(|| wrong("it ends before its entries"))?;
        let entries = u32::from_le_bytes(*count);
        if u64::from(entries) > OPERATOR_STATE_BYTES {
            return Err(wrong("it has more entries than any"));
        }
        let part = Self { subtask, parallelism, header, entries, bytes };
        let mut left = bytes;
        for _ in 0..entries {
            part.split(&mut left).ok_or_else(|| wrong("it ends within an entry"))?;
        }
        if left.is_empty() { Ok(part) } else { Err(wrong("bytes follow its last entry")) }
    }

    fn split(&self, bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        Some((split_framed(self.header.key_codec, bytes)?, split_framed(self.header.value_codec, bytes)?))
    }

    /// Its entries in order: key and value as encoded.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        let mut left = self.bytes;
        (0..self.entries).map_while(move |_| self.split(&mut left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode;

    fn header<U: Data, V: Data>(kind: StateKind) -> StateHeader {
        let operator = OperatorUid::new("op").unwrap();
        StateHeader::of_operator_state::<U, V>(operator, "items", kind, MaxParallelism::default())
    }

    fn of_list(items: &[String]) -> Vec<u8> {
        let mut writer = OperatorStateWriter::new(&header::<(), String>(StateKind::OperatorList), 2, 3).unwrap();
        items.iter().for_each(|item| writer.push(&(), item).unwrap());
        writer.finish()
    }

    proptest! {
        #[test]
        fn a_part_is_read_as_it_was_written_and_nothing_else(
            map in proptest::collection::btree_map(any::<u32>(), "[a-z]{0,9}", 0..20),
        ) {
            let header = header::<u32, String>(StateKind::Broadcast);
            let mut writer = OperatorStateWriter::new(&header, 0, 4).unwrap();
            map.iter().for_each(|(key, value)| writer.push(key, value).unwrap());
            let bytes = writer.finish();
            let part = OperatorStatePart::decode(&bytes).unwrap();
            prop_assert_eq!((part.subtask, part.parallelism, &part.header), (0, 4, &header));
            let found: std::collections::BTreeMap<u32, String> =
                part.iter().map(|(key, value)| (decode(key).unwrap(), decode(value).unwrap())).collect();
            prop_assert_eq!(found, map);
            for length in 0..bytes.len() {
                prop_assert!(OperatorStatePart::decode(&bytes[..length]).is_err(), "cut to {} bytes", length);
            }
            prop_assert!(OperatorStatePart::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn format_1_is_frozen() {
        let bytes = of_list(&["a".to_owned(), "bc".to_owned()]);
        let json = r#"{"operator":"op","name":"items","kind":"operator-list","key_codec":1,"key_schema":"unit","value_codec":14,"value_schema":"string","max_parallelism":128}"#;
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let head = [&[1, 2, 0, 0, 0, 3, 0, 0, 0][..], &length, json.as_bytes()].concat();
        let entries: &[u8] = &[2, 0, 0, 0, 1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b', b'c'];
        assert_eq!(bytes, [&head, entries].concat());
    }

    #[test]
    fn what_is_no_part_is_refused() {
        let bytes = of_list(&["a".to_owned()]);
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            OperatorStatePart::decode(&bytes).unwrap_err().to_string()
        };
        assert!(with(0, 2).contains("newer release"));
        assert!(with(1, 3).contains("of no subtask"));
        assert!(with(12, 200).contains("header is longer"));
        assert!(with(PREFIX, b'x').contains("operator state"));
        assert!(with(bytes.len() - 6, 200).contains("more entries"));
    }

    #[test]
    fn what_is_too_large_for_a_record_is_refused_as_it_grows() {
        let item = "x".repeat(1 << 20);
        let mut writer = OperatorStateWriter::new(&header::<(), String>(StateKind::UnionList), 0, 1).unwrap();
        let error = (0..20).find_map(|_| writer.push(&(), &item).err()).unwrap();
        assert!(matches!(error, StateError::TooLarge { limit: OPERATOR_STATE_BYTES, .. }), "{error}");
        let mut writer = OperatorStateWriter::new(&header::<(), ()>(StateKind::UnionList), 0, 1).unwrap();
        writer.entries = u32::try_from(OPERATOR_STATE_BYTES).unwrap();
        assert!(writer.push(&(), &()).is_err(), "items without bytes are counted");
    }
}
