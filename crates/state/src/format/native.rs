use serde::{Deserialize, Serialize};

use super::layout::{checksum, damaged};
use crate::{ImageFile, StateError, StateHeader};

const MAGIC: &[u8; 8] = b"CUTWNAT\n";
/// The newest version that is read.
const VERSION: u32 = 1;
/// Magic, version and length of the JSON.
const PREFIX: usize = 16;
const CHECKSUM: usize = 4;

/// What the files are that hold the state of one subtask in the form of its backend: `docs/format.md` has it byte by byte.
///
/// It stands in a file of its own. Small files of the backend are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeIndex {
    /// The backend that can read them, by its name in the configuration.
    pub backend: String,
    /// The states that they hold.
    pub states: Vec<NativeState>,
    /// The files, in the order of their names.
    pub files: Vec<NativeFile>,
}

/// A state in a [`NativeIndex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeState {
    /// Which state it is, and what is in it.
    pub header: StateHeader,
    /// About how many entries it has.
    pub entries: u64,
}

/// A file in a [`NativeIndex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeFile {
    /// What the backend calls it, and how long it is.
    #[serde(flatten)]
    pub file: ImageFile,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// The object that it is stored as; `None` if the index holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The content, if the index holds it.
    #[serde(skip)]
    pub content: Vec<u8>,
}

impl NativeIndex {
    /// The index as bytes.
    ///
    /// # Errors
    ///
    /// [`StateError::TooLarge`] if there are 4 GiB of them.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| StateError::Encode { type_name: "NativeIndex", reason: error.to_string().into() })?;
        let bytes = json.len() as u64;
        let length = u32::try_from(bytes).map_err(|_| StateError::TooLarge {
            what: "an index of native files",
            bytes,
            limit: u32::MAX.into(),
        })?;
        let held = || self.files.iter().filter(|file| file.object.is_none()).map(|file| &file.content);
        let all = held().map(Vec::len).sum::<usize>();
        let mut out = Vec::with_capacity(PREFIX + json.len() + all + CHECKSUM);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&json);
        held().for_each(|content| out.extend_from_slice(content));
        out.extend_from_slice(&checksum(&[&out]).to_le_bytes());
        Ok(out)
    }

    /// Reads one back.
    ///
    /// # Errors
    ///
    /// [`StateError::Damaged`] if it is not what was written, [`StateError::NewerVersion`] if a newer release wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        const PART: &str = "index of native files";
        let wrong = |offset: usize, reason: &str| damaged(PART, offset as u64, reason);
        let (sealed, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(|| wrong(0, "it is too short"))?;
        let Some((prefix, rest)) = sealed.split_first_chunk::<PREFIX>() else {
            return Err(wrong(0, "it is too short"));
        };
        if !prefix.starts_with(MAGIC) {
            return Err(wrong(0, "it does not begin as one does"));
        }
        if checksum(&[sealed]).to_le_bytes() != *sum {
            return Err(wrong(sealed.len(), "its checksum is wrong"));
        }
        let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        match number(8) {
            VERSION => {}
            found => return Err(StateError::NewerVersion { found, known: VERSION }),
        }
        let length = number(12) as usize;
        let Some((json, mut held)) = rest.split_at_checked(length) else { return Err(wrong(12, "it is too short")) };
        let mut index: Self = serde_json::from_slice(json).map_err(|error| wrong(PREFIX, &error.to_string()))?;
        for file in index.files.iter_mut().filter(|file| file.object.is_none()) {
            let content = usize::try_from(file.file.bytes).ok().and_then(|bytes| held.split_at_checked(bytes));
            let Some((content, after)) = content else { return Err(wrong(PREFIX, "a file in it is cut off")) };
            if crc32c::crc32c(content) != file.crc32c {
                return Err(wrong(PREFIX, "the checksum of a file in it is wrong"));
            }
            (file.content, held) = (content.to_vec(), after);
        }
        if held.is_empty() { Ok(index) } else { Err(wrong(sealed.len() - held.len(), "something follows its end")) }
    }
}

#[cfg(test)]
mod tests {
    use cutwater_core::{MaxParallelism, OperatorUid};

    use super::*;
    use crate::{Table, TableSpec};

    fn index() -> NativeIndex {
        let max_parallelism = MaxParallelism::default();
        let operator = OperatorUid::new("count").unwrap();
        let spec = TableSpec { operator, name: "n".to_owned(), max_parallelism, key_groups: max_parallelism.all() };
        let header = crate::Snapshotable::header(&Table::<u64, String>::new(spec));
        let file = |name: &str, content: &[u8], object: Option<&str>, lasting| NativeFile {
            file: ImageFile { name: name.to_owned(), bytes: content.len() as u64, lasting },
            crc32c: crc32c::crc32c(content),
            object: object.map(str::to_owned),
            content: if object.is_none() { content.to_vec() } else { Vec::new() },
        };
        let files = vec![
            file("000012.sst", b"entries", Some("chk/1-12.native"), true),
            file("CURRENT", b"MANIFEST-000005\n", None, false),
            file("EMPTY", b"", None, false),
            file("MANIFEST-000005", &[7; 300], None, false),
        ];
        NativeIndex { backend: "rocksdb".to_owned(), states: vec![NativeState { header, entries: 12 }], files }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let index = index();
        assert_eq!(NativeIndex::decode(&index.encode().unwrap()).unwrap(), index);
    }

    /// That of a file that ends with its own CRC would be the same for all files.
    #[test]
    fn two_of_the_same_length_differ_in_their_crc() {
        let (one, mut other) = (index(), index());
        other.states[0].entries = 13;
        let [one, other] = [one, other].map(|index| index.encode().unwrap());
        assert_eq!(one.len(), other.len());
        assert_ne!(crc32c::crc32c(&one), crc32c::crc32c(&other));
    }

    #[test]
    fn whatever_changes_in_it_is_found() {
        let bytes = index().encode().unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let error = NativeIndex::decode(&changed).unwrap_err();
            assert!(matches!(error, StateError::Damaged { .. }), "byte {at}: {error}");
            assert!(NativeIndex::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(NativeIndex::decode(&[&bytes[..], b"x"].concat()).is_err(), "longer");
    }

    #[test]
    fn one_of_a_newer_release_is_told_from_a_damaged_one() {
        let mut bytes = index().encode().unwrap();
        bytes[8] = 9;
        let end = bytes.len() - CHECKSUM;
        let sum = checksum(&[&bytes[..end]]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
        let error = NativeIndex::decode(&bytes).unwrap_err();
        assert!(matches!(error, StateError::NewerVersion { found: 9, known: VERSION }), "{error}");
    }
}
