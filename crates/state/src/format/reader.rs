use std::io::Read;

use cutwater_core::KeyGroupRange;
use serde::Deserialize;

use super::layout::{
    CHECKSUM, FOOTER, FRAME, FULL_VERSION, Footer, Frame, INDEX_ENTRY, MAGIC, PREFIX, STORED, TRUSTED_BYTES, VERSION,
    ZSTD, checksum, damaged, u32_at,
};
use super::{BlockInfo, KEY_HASH, ReadAt, SnapshotHeader};
use crate::{Block, BlockKind, StateError};

/// Reads a snapshot file: header and index when it is opened, blocks when asked for.
pub struct SnapshotReader<'a> {
    file: &'a dyn ReadAt,
    header: SnapshotHeader,
    blocks: Vec<BlockInfo>,
}

#[derive(Deserialize)]
struct Stored {
    key_hash: String,
    #[serde(flatten)]
    header: SnapshotHeader,
}

impl<'a> SnapshotReader<'a> {
    /// Reads and checks the footer, the header and the index.
    ///
    /// # Errors
    ///
    /// - [`StateError::NotASnapshot`] if the file does not begin as one.
    /// - [`StateError::NewerVersion`] if a newer release wrote it.
    /// - [`StateError::Damaged`] if it was truncated or changed.
    /// - [`StateError::Read`] if it can't be read.
    pub fn open(file: &'a dyn ReadAt) -> Result<Self, StateError> {
        // Version first: only what follows it may differ in a newer format.
        let prefix: [u8; PREFIX] = read_array(file, 0)?.ok_or(StateError::NotASnapshot)?;
        if prefix[..8] != MAGIC {
            return Err(StateError::NotASnapshot);
        }
        let version = u32_at(&prefix, 8);
        match version {
            FULL_VERSION | VERSION => {}
            0 => return Err(damaged("file prefix", 0, "there is no version 0")),
            found => return Err(StateError::NewerVersion { found, known: VERSION }),
        }
        let footer = read_footer(file)?;
        let (header, header_end) = read_header(file, &prefix, footer.index)?;
        let blocks = read_index(file, footer, header_end, header.states.len())?;
        let delta = header.base.is_some();
        if delta != (version == VERSION) || blocks.iter().any(|block| (block.kind == BlockKind::All) == delta) {
            return Err(damaged("header", 0, "it and the blocks differ in whether they build on another snapshot"));
        }
        Ok(Self { file, header, blocks })
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// All blocks, in the order of the file.
    #[must_use]
    pub fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    /// The blocks of a state that may hold entries of these key groups, in key-group order.
    pub fn blocks_for(&self, state: u16, groups: KeyGroupRange) -> impl Iterator<Item = &BlockInfo> {
        self.blocks.iter().filter(move |block| block.state == state && block.groups.overlaps(&groups))
    }

    /// Reads a block of this file, checks and unpacks it.
    ///
    /// # Errors
    ///
    /// [`StateError::Damaged`] if it is not what was written; [`StateError::Read`] if it can't be read.
    pub fn read_block(&self, info: &BlockInfo) -> Result<Block, StateError> {
        self.read_block_into(info, Vec::new())
    }

    /// [`Self::read_block`] into the payload of a block that is no longer needed: memory that was in use before is
    /// faster than fresh memory. What is in the buffer does not matter.
    ///
    /// # Errors
    ///
    /// As [`Self::read_block`].
    pub fn read_block_into(&self, info: &BlockInfo, mut buffer: Vec<u8>) -> Result<Block, StateError> {
        let wrong = |reason: &str| damaged("block", info.offset, reason);
        let Some(rest) = (info.length as usize).checked_sub(FRAME) else {
            return Err(wrong("it is shorter than its frame"));
        };
        let mut head = [0; FRAME];
        read(self.file, info.offset, &mut head)?;
        // The index tiles the file, so that no length is longer than the file.
        buffer.resize(rest, 0);
        read(self.file, info.offset + FRAME as u64, &mut buffer)?;
        let Some((stored, sum)) = buffer.split_last_chunk::<CHECKSUM>() else {
            return Err(wrong("it is shorter than its frame"));
        };
        if checksum(&[&head, stored]) != u32::from_le_bytes(*sum) {
            return Err(wrong("its checksum does not match"));
        }
        let Some(frame) = Frame::from_bytes(&head).filter(|frame| frame.to_bytes() == head) else {
            return Err(wrong("its frame has bytes that are unknown to this version"));
        };
        let said = (frame.state, frame.kind, frame.groups, frame.entries, frame.stored as usize);
        if said != (info.state, info.kind, info.groups, info.entries, stored.len()) {
            return Err(wrong("it is not the block that the index says"));
        }
        let raw = frame.raw as usize;
        let payload = match frame.compression {
            STORED if raw == stored.len() => {
                buffer.truncate(raw);
                buffer
            }
            ZSTD => unpack(stored, frame.raw).ok_or_else(|| wrong("it can't be decompressed to the size it says"))?,
            _ => return Err(wrong("its length or compression is unknown")),
        };
        Ok(Block { state: info.state, kind: info.kind, groups: info.groups, entries: info.entries, payload })
    }
}

fn read_footer(file: &dyn ReadAt) -> Result<Footer, StateError> {
    let length = file.len();
    let start = length.checked_sub(FOOTER as u64);
    let bytes: Option<[u8; FOOTER]> = start.map_or(Ok(None), |start| read_array(file, start))?;
    let footer = bytes.and_then(|bytes| Footer::from_bytes(&bytes));
    let Some(footer) = footer else {
        return Err(damaged("footer", start.unwrap_or(0), "it is missing, the file was not written to its end"));
    };
    let index = u64::from(footer.blocks) * INDEX_ENTRY as u64 + CHECKSUM as u64;
    if footer.total != length || footer.index.checked_add(index) != start {
        return Err(damaged("footer", length - FOOTER as u64, "the file has not the length that it says"));
    }
    Ok(footer)
}

fn read_header(file: &dyn ReadAt, prefix: &[u8; PREFIX], limit: u64) -> Result<(SnapshotHeader, u64), StateError> {
    let wrong = |reason: &str| damaged("header", 0, reason);
    let end = PREFIX as u64 + u64::from(u32_at(prefix, 12)) + CHECKSUM as u64;
    if end > limit {
        return Err(wrong("it is longer than the file"));
    }
    let mut bytes = vec![0; usize::try_from(end).map_err(|_| wrong("it does not fit into memory"))?];
    read(file, 0, &mut bytes)?;
    let Some(sealed) = unseal(&bytes) else { return Err(wrong("its checksum does not match")) };
    let stored: Stored = serde_json::from_slice(&sealed[PREFIX..]).map_err(|error| wrong(&error.to_string()))?;
    if stored.key_hash != KEY_HASH {
        return Err(wrong(&format!("it hashes keys by {:?}, this release knows {KEY_HASH}", stored.key_hash)));
    }
    Ok((stored.header, end))
}

fn read_index(file: &dyn ReadAt, footer: Footer, start: u64, states: usize) -> Result<Vec<BlockInfo>, StateError> {
    let wrong = |reason: &str| damaged("index", footer.index, reason);
    // `read_footer` saw that the index lies within the file.
    let length = footer.blocks as usize * INDEX_ENTRY + CHECKSUM;
    let mut bytes = vec![0; length];
    read(file, footer.index, &mut bytes)?;
    let Some(sealed) = unseal(&bytes) else { return Err(wrong("its checksum does not match")) };
    let (entries, _) = sealed.as_chunks::<INDEX_ENTRY>();
    let blocks: Option<Vec<BlockInfo>> = entries.iter().map(BlockInfo::from_bytes).collect();
    let blocks = blocks.ok_or_else(|| wrong("it has a kind of block that is unknown to this version"))?;
    let mut next = start;
    let mut last = vec![[None; 2]; states];
    for (entry, block) in entries.iter().zip(&blocks) {
        let Some(last) = last.get_mut(usize::from(block.state)) else {
            return Err(wrong("a block is of a state that the header has not"));
        };
        let last = &mut last[usize::from(block.kind == BlockKind::Removed)];
        if *last > Some(block.groups.first) || block.groups.first > block.groups.last {
            return Err(wrong("key groups are out of order"));
        }
        // Each byte of the file belongs to one part, so that nothing can be hidden between blocks.
        if block.offset != next || block.length < (FRAME + CHECKSUM) as u32 || block.to_bytes() != *entry {
            return Err(wrong("the blocks do not follow each other"));
        }
        *last = Some(block.groups.last);
        next = next.saturating_add(block.length.into());
    }
    if next != footer.index {
        return Err(wrong("the blocks do not reach up to it"));
    }
    Ok(blocks)
}

/// What stands before a checksum that matches it.
fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (sealed, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    (checksum(&[sealed]) == u32::from_le_bytes(*sum)).then_some(sealed)
}

/// Decompresses to exactly `raw` bytes, and never holds many more than there really are.
pub(super) fn unpack(stored: &[u8], raw: u32) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(raw.min(TRUSTED_BYTES) as usize);
    let decoder = zstd::stream::read::Decoder::with_buffer(stored).ok()?;
    decoder.take(u64::from(raw) + 1).read_to_end(&mut payload).ok()?;
    (payload.len() == raw as usize).then_some(payload)
}

/// Reads so many bytes; `None` if the file is shorter.
fn read_array<const N: usize>(file: &dyn ReadAt, offset: u64) -> Result<Option<[u8; N]>, StateError> {
    if offset.checked_add(N as u64).is_none_or(|end| end > file.len()) {
        return Ok(None);
    }
    let mut bytes = [0; N];
    read(file, offset, &mut bytes)?;
    Ok(Some(bytes))
}

fn read(file: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<(), StateError> {
    let bytes = buf.len() as u64;
    file.read_at(offset, buf).map_err(|source| StateError::Read { offset, bytes, source })
}
