//! The objects of the log as bytes.
//!
//! ```text
//! offset  length
//!      0       8  magic "CUTWLOG\n"
//!      8       2  format version, little-endian, as all numbers of the header
//!     10       1  kind: 1 Claim, 2 Completed, 3 Ended, 4 Boundary, 5 Savepoint, 6 Discarded
//!     11       8  length of the body
//!     19       4  CRC-32C of the 19 bytes before and of the body
//!     23          body: postcard
//! ```
//! The header and the meaning of the sum are the same in all versions, so a damaged version is told from a newer one.
//!
//! In version 2 a second postcard value follows in the body: the contents of the files that are so small that no object
//! holds them. It is written only where there are some, so that older programs read all else.
//!
//! Version 3 is the same, of a checkpoint with files that are in the form of the backend: older programs would take these for
//! damaged ones.

use cutwater_core::{CheckpointId, Epoch, MaxParallelism};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::names;
use crate::codec::{bounded, bytes};
use crate::{CompletedCheckpoint, OpenError, Origin, Outcome};

/// The newest format version that is read.
pub(crate) const VERSION: u16 = 3;
/// The one with contents of files, and none of the backend's own.
const HELD: u16 = 2;
/// The one without contents of files.
const PLAIN: u16 = 1;
/// The most bytes of an object.
pub(crate) const MAX_BYTES: u64 = 256 << 20;
/// The most slots of subsumed checkpoints that a record carries on. What is above is left for a sweep to find.
pub(crate) const MAX_SUBSUMED: usize = 4096;

const MAGIC: &[u8; 8] = b"CUTWLOG\n";
const HEADER: usize = 23;
/// No epoch, slot or checkpoint is larger, so that counting on from a record never overflows.
pub(crate) const LARGEST: u64 = 1 << 60;
/// The kind of a savepoint's object, which is no part of a log.
pub(crate) const SAVEPOINT: u8 = 5;

/// Tells our own records from all others: unique for each record written by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Nonce {
    pub(crate) process: u64,
    pub(crate) counter: u64,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) slot: u64,
    pub(crate) epoch: Epoch,
    pub(crate) nonce: Nonce,
    pub(crate) job: String,
    /// The slot of the newest `Completed` before this record, so that opening need not walk back over claims; or, if that
    /// went with the job, of the `Discarded` that says so, which names it.
    pub(crate) newest: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Body {
    Claim(Claim),
    Completed(Box<Completed>),
    Ended(Outcome),
    /// The job ended, and its checkpoints went with it: from here on nobody may restore any that was before, since files
    /// of it are being deleted. (A program that does not know this kind refuses the log, as it should.)
    Discarded(Outcome),
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Claim(_) => 1,
            Self::Completed(_) => 2,
            Self::Ended(_) => 3,
            Self::Discarded(_) => 6,
        }
    }
}

/// From here on nobody of a lower epoch can append.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) max_parallelism: MaxParallelism,
    /// What the reign begins with. For people who read the log: the next opening goes by `newest` alone.
    pub(crate) restored: Option<CheckpointId>,
    pub(crate) origin: Option<Origin>,
}

/// A checkpoint exists if and only if this record does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Completed {
    pub(crate) checkpoint: CompletedCheckpoint,
    /// The slots of the other checkpoints that stay, rising.
    #[serde(deserialize_with = "bounded::<_, _, 65536>")]
    pub(crate) retained: Vec<u64>,
    /// The slots of checkpoints whose files are to be deleted or were not all deleted before, rising.
    #[serde(deserialize_with = "bounded::<_, _, 4096>")]
    pub(crate) subsumed: Vec<u64>,
    /// Slots below this one have been deleted.
    pub(crate) swept_below: u64,
}

/// Slots below `k` times 1024 may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boundary {
    pub(crate) k: u64,
    pub(crate) epoch: Epoch,
    pub(crate) nonce: Nonce,
    pub(crate) job: String,
}

/// What an object of the log, or of a savepoint, may hold beside its body.
pub(crate) trait Holder {
    /// The checkpoint whose small files it holds.
    fn checkpoint(&self) -> Option<&CompletedCheckpoint>;
    fn checkpoint_mut(&mut self) -> Option<&mut CompletedCheckpoint>;
}

impl Holder for Record {
    fn checkpoint(&self) -> Option<&CompletedCheckpoint> {
        if let Body::Completed(completed) = &self.body { Some(&completed.checkpoint) } else { None }
    }

    fn checkpoint_mut(&mut self) -> Option<&mut CompletedCheckpoint> {
        if let Body::Completed(completed) = &mut self.body { Some(&mut completed.checkpoint) } else { None }
    }
}

impl Holder for Boundary {
    fn checkpoint(&self) -> Option<&CompletedCheckpoint> {
        None
    }

    fn checkpoint_mut(&mut self) -> Option<&mut CompletedCheckpoint> {
        None
    }
}

/// The contents of small files, in the order of [`CompletedCheckpoint::files`].
#[derive(Serialize, Deserialize)]
struct Contents {
    #[serde(deserialize_with = "bounded::<_, _, 1048576>")]
    held: Vec<Held>,
}

#[derive(Serialize, Deserialize)]
struct Held {
    /// Which of the files.
    file: u32,
    #[serde(with = "bytes")]
    content: Vec<u8>,
}

impl Contents {
    fn of(checkpoint: Option<&CompletedCheckpoint>) -> Self {
        let files = checkpoint.into_iter().flat_map(CompletedCheckpoint::files);
        let held = (0..).zip(files).filter_map(|(file, of)| {
            let content = of.content.as_ref()?.to_vec();
            Some(Held { file, content })
        });
        Self { held: held.collect() }
    }

    fn give(self, checkpoint: Option<&mut CompletedCheckpoint>) -> Result<(), String> {
        let mut files = (0..).zip(checkpoint.into_iter().flat_map(CompletedCheckpoint::files_mut));
        for Held { file, content } in self.held {
            let Some((_, of)) = files.find(|(at, _)| *at == file) else {
                return Err(format!("it holds the content of file {file}, which is not one of its files"));
            };
            if (of.bytes, of.crc32c) != (content.len() as u64, crc32c::crc32c(&content)) {
                return Err(format!("the content that it holds of {} is another", of.name));
            }
            of.content = Some(content.into());
        }
        Ok(())
    }
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self.body.kind(), self)
    }

    /// Reads the record of `slot` of `job`.
    pub(crate) fn decode(name: &str, bytes: &[u8], slot: u64, job: &str) -> Result<Self, OpenError> {
        let (kind, record) = Self::parse(name, bytes)?;
        same_job(name, &record.job, job)?;
        record.checked(name, kind, slot)
    }

    /// Reads the record of `slot` of whatever job.
    pub(crate) fn decode_any(name: &str, bytes: &[u8], slot: u64) -> Result<Self, OpenError> {
        let (kind, record) = Self::parse(name, bytes)?;
        record.checked(name, kind, slot)
    }

    fn parse(name: &str, bytes: &[u8]) -> Result<(u8, Self), OpenError> {
        let Opened { version, kind, body } = open(name, bytes)?;
        if !matches!(kind, 1..=3 | 6) {
            return Err(corrupt(name, format!("kind {kind} is not one of a slot")));
        }
        Ok((kind, decode(name, version, body)?))
    }

    fn checked(self, name: &str, kind: u8, slot: u64) -> Result<Self, OpenError> {
        self.check(kind, slot).map_err(|reason| corrupt(name, reason))?;
        Ok(self)
    }

    fn check(&self, kind: u8, slot: u64) -> Result<(), String> {
        if self.body.kind() != kind {
            return Err(format!("the header says kind {kind}, the body {}", self.body.kind()));
        }
        if self.slot != slot {
            return Err(format!("it was written for slot {}", self.slot));
        }
        if self.epoch.0 == 0 || self.epoch.0 > LARGEST || self.slot > LARGEST {
            return Err(format!("epoch {} or slot {} is out of range", self.epoch, self.slot));
        }
        if self.newest.is_some_and(|newest| newest >= slot) {
            return Err("it points at a later slot".to_owned());
        }
        if let Body::Completed(completed) = &self.body { completed.check(self) } else { Ok(()) }
    }
}

impl Completed {
    fn check(&self, record: &Record) -> Result<(), String> {
        let checkpoint = &self.checkpoint;
        if (checkpoint.slot, checkpoint.epoch, &checkpoint.job) != (record.slot, record.epoch, &record.job) {
            return Err("the checkpoint is of another record".to_owned());
        }
        if checkpoint.checkpoint.0 > LARGEST {
            return Err(format!("checkpoint {} is out of range", checkpoint.checkpoint));
        }
        if self.swept_below > record.slot {
            return Err("it says that it is deleted itself".to_owned());
        }
        for slots in [&self.retained, &self.subsumed] {
            if !slots.is_sorted_by(|a, b| a < b) || slots.last().is_some_and(|last| *last >= record.slot) {
                return Err("its lists of slots are not rising to below its own".to_owned());
            }
        }
        // These names are read and deleted later, so none may lead out of the job's folder.
        match checkpoint.files().find(|file| !file.has_safe_name()) {
            Some(file) => Err(format!("{:?} is not a name of a file of a checkpoint", file.name)),
            None => Ok(()),
        }
    }
}

impl Boundary {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(4, self)
    }

    pub(crate) fn decode(name: &str, bytes: &[u8], k: u64, job: &str) -> Result<Self, OpenError> {
        let boundary = Self::decode_any(name, bytes, k)?;
        same_job(name, &boundary.job, job)?;
        Ok(boundary)
    }

    /// Reads boundary `k` of whatever job.
    pub(crate) fn decode_any(name: &str, bytes: &[u8], k: u64) -> Result<Self, OpenError> {
        let boundary: Self = decode_kind(name, bytes, 4, "a boundary")?;
        if boundary.k != k {
            return Err(corrupt(name, format!("it was written for boundary {}", boundary.k)));
        }
        Ok(boundary)
    }
}

pub(crate) fn encode<T: Serialize + Holder>(kind: u8, value: &T) -> Vec<u8> {
    let contents = Contents::of(value.checkpoint());
    let mut files = value.checkpoint().into_iter().flat_map(CompletedCheckpoint::files);
    let version = match () {
        () if files.any(|file| names::native_number(&file.name).is_some()) => VERSION,
        () if contents.held.is_empty() => PLAIN,
        () => HELD,
    };
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&[0; HEADER - 11]);
    let mut bytes = append(value, bytes);
    if version != PLAIN {
        bytes = append(&contents, bytes);
    }
    seal(&mut bytes);
    bytes
}

fn append<T: Serialize>(value: &T, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("a growing vector takes all, and no list is of unknown length")
}

/// Fills in the length and the sum.
fn seal(bytes: &mut [u8]) {
    let length = u64::try_from(bytes.len() - HEADER).expect("a length fits 64 bits");
    bytes[11..19].copy_from_slice(&length.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..19]), &bytes[HEADER..]);
    bytes[19..HEADER].copy_from_slice(&sum.to_le_bytes());
}

struct Opened<'a> {
    version: u16,
    kind: u8,
    body: &'a [u8],
}

/// Checks the header and the sum.
fn open<'a>(name: &str, bytes: &'a [u8]) -> Result<Opened<'a>, OpenError> {
    let fail = |reason: &str| Err(corrupt(name, reason.to_owned()));
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return fail("it is longer than any record");
    }
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else { return fail("it is too short") };
    if !header.starts_with(MAGIC) {
        return fail("it does not begin as a record does");
    }
    if header[11..19] != u64::try_from(body.len()).unwrap_or(u64::MAX).to_le_bytes() {
        return fail("it is not as long as it says");
    }
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..19]), body);
    if header[19..] != sum.to_le_bytes() {
        return fail("its checksum is wrong");
    }
    match u16::from_le_bytes([header[8], header[9]]) {
        version @ PLAIN..=VERSION => Ok(Opened { version, kind: header[10], body }),
        0 => fail("there is no format version 0"),
        found => Err(OpenError::NewerFormat { name: name.to_owned(), found, known: VERSION }),
    }
}

/// Reads an object that must be of this kind.
pub(crate) fn decode_kind<T: DeserializeOwned + Holder>(
    name: &str,
    bytes: &[u8],
    expected: u8,
    what: &str,
) -> Result<T, OpenError> {
    let Opened { version, kind, body } = open(name, bytes)?;
    if kind != expected {
        return Err(corrupt(name, format!("kind {kind} is not {what}")));
    }
    decode(name, version, body)
}

fn decode<T: DeserializeOwned + Holder>(name: &str, version: u16, body: &[u8]) -> Result<T, OpenError> {
    let (mut value, mut rest): (T, _) = take(name, body)?;
    if version != PLAIN {
        let (contents, after): (Contents, _) = take(name, rest)?;
        contents.give(value.checkpoint_mut()).map_err(|reason| corrupt(name, reason))?;
        rest = after;
    }
    if rest.is_empty() { Ok(value) } else { Err(corrupt(name, format!("{} bytes follow its end", rest.len()))) }
}

fn take<'a, T: DeserializeOwned>(name: &str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), OpenError> {
    postcard::take_from_bytes(bytes).map_err(|error| corrupt(name, error.to_string()))
}

fn same_job(name: &str, found: &str, expected: &str) -> Result<(), OpenError> {
    if found == expected {
        return Ok(());
    }
    let cut = |job: &str| job.chars().take(200).collect();
    Err(OpenError::AnotherJob { name: name.to_owned(), found: cut(found), expected: cut(expected) })
}

pub(crate) fn corrupt(name: &str, reason: String) -> OpenError {
    OpenError::Corrupt { name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests;
