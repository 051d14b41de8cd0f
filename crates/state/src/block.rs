use cutwater_core::{KeyGroup, KeyGroupRange};

use crate::codec::split_framed;
use crate::{CodecId, StateError};

/// What the entries of a block are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// Entries of a snapshot of everything: each key is there once.
    #[default]
    All,
    /// Entries of a snapshot since another: they replace what that one has of them.
    Changed,
    /// As [`BlockKind::Changed`], of a state with several entries of a key, for the tier below it. In each value stands first, as
    /// u32 and little-endian, how many of the bytes behind that belong to the name which the entry has there. Is in no file.
    ForTier,
    /// Names of entries that another snapshot has and that are gone. What is both removed and changed is there: it came back.
    Removed,
}

/// About a mebibyte of encoded entries, in key-group order. The worker only copies bytes into it; to compress,
/// checksum and store it is for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which of the file's state headers the entries belong to. The table writes 0; whoever writes the file sets it.
    pub state: u16,
    /// What the entries are.
    pub kind: BlockKind,
    /// The key groups of the entries: from that of the first to that of the last.
    pub groups: KeyGroupRange,
    /// How many entries.
    pub entries: u32,
    /// The entries, as docs/format.md describes.
    pub payload: Vec<u8>,
}

/// A block is closed once its payload has this many bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Before each run: group (u16), entries (u32), bytes of the entries (u32).
const RUN_HEADER: usize = 10;

/// Gathers entries into blocks. Entries of one group that follow each other make a run.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    payload: Vec<u8>,
    run: Option<Run>,
    entries: u32,
    first: u16,
    last: u16,
    expected: u64,
    kind: BlockKind,
}

struct Run {
    group: u16,
    start: usize,
    entries: u32,
}

impl BlockBuilder {
    /// Blocks of this kind follow. About so many bytes will come before the end of the sweep: makes no more room than they
    /// need.
    pub(crate) fn begin(&mut self, kind: BlockKind, expected: u64) {
        (self.kind, self.expected) = (kind, expected);
    }

    /// What follows belongs to `group`, which is not before the last one.
    pub(crate) fn open(&mut self, group: KeyGroup) {
        if self.run.as_ref().is_some_and(|run| run.group == group.0) {
            return;
        }
        self.close_run();
        if self.payload.capacity() == 0 {
            let whole = BLOCK_BYTES + BLOCK_BYTES / 64;
            self.payload.reserve(usize::try_from(self.expected).unwrap_or(whole).min(whole));
        }
        self.run = Some(Run { group: group.0, start: self.payload.len(), entries: 0 });
        self.payload.extend_from_slice(&[0; RUN_HEADER]);
    }

    /// Where to append the entries of the open run; tell [`Self::added`] how many.
    #[inline]
    pub(crate) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.payload
    }

    #[inline]
    pub(crate) fn added(&mut self, entries: u32) {
        self.run.as_mut().expect("entries are added to an open run").entries += entries;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.payload.len()
    }

    fn close_run(&mut self) {
        let Some(Run { group, start, entries }) = self.run.take() else { return };
        if entries == 0 {
            self.payload.truncate(start);
            return;
        }
        let bytes = self.payload.len() - start - RUN_HEADER;
        let bytes = u32::try_from(bytes).expect("a block ends soon after a mebibyte, an entry is at most 2 GiB");
        self.payload[start..start + 2].copy_from_slice(&group.to_le_bytes());
        self.payload[start + 2..start + 6].copy_from_slice(&entries.to_le_bytes());
        self.payload[start + 6..start + 10].copy_from_slice(&bytes.to_le_bytes());
        if self.entries == 0 {
            self.first = group;
        }
        self.last = group;
        self.entries += entries;
    }

    /// Ends the block, if it has any entry.
    pub(crate) fn take(&mut self) -> Option<Block> {
        self.close_run();
        let rest = Self { expected: self.expected, kind: self.kind, ..Self::default() };
        let Self { payload, entries, first, last, kind, .. } = std::mem::replace(self, rest);
        let groups = KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) };
        if entries == 0 { None } else { Some(Block { state: 0, kind, groups, entries, payload }) }
    }
}

/// Reads a block back: calls `entry` with the group and the encoded key and value of each entry whose group is in
/// `groups`, and checks everything that the payload says of itself.
pub(crate) fn read_entries(
    block: &Block,
    codecs: (CodecId, CodecId),
    groups: KeyGroupRange,
    mut entry: impl FnMut(KeyGroup, &[u8], &[u8]) -> Result<(), StateError>,
) -> Result<u64, StateError> {
    let damaged = |rest: &[u8], reason: &str| StateError::Damaged {
        part: "run of entries",
        offset: (block.payload.len() - rest.len()) as u64,
        reason: reason.into(),
    };
    let mut rest = block.payload.as_slice();
    let mut previous = None;
    let (mut total, mut taken) = (0_u64, 0_u64);
    while !rest.is_empty() {
        let here = rest;
        let Some((group, entries, mut run)) = split_run(&mut rest) else {
            return Err(damaged(here, "it ends before its length"));
        };
        if previous >= Some(group) || !block.groups.contains(group) {
            return Err(damaged(here, "its key group is out of order"));
        }
        previous = Some(group);
        total += u64::from(entries);
        if !groups.contains(group) {
            continue;
        }
        for _ in 0..entries {
            let key = split_framed(codecs.0, &mut run);
            let Some((key, value)) = key.zip(split_framed(codecs.1, &mut run)) else {
                return Err(damaged(here, "it has fewer entries than it says"));
            };
            entry(group, key, value)?;
        }
        if !run.is_empty() {
            return Err(damaged(here, "bytes follow its last entry"));
        }
        taken += u64::from(entries);
    }
    if total != u64::from(block.entries) {
        return Err(damaged(rest, "the number of entries is not that of the block"));
    }
    Ok(taken)
}

fn split_run<'a>(payload: &mut &'a [u8]) -> Option<(KeyGroup, u32, &'a [u8])> {
    let (group, rest) = payload.split_first_chunk::<2>()?;
    let (entries, rest) = rest.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_first_chunk::<4>()?;
    let (run, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*bytes)).ok()?)?;
    *payload = rest;
    Some((KeyGroup(u16::from_le_bytes(*group)), u32::from_le_bytes(*entries), run))
}
