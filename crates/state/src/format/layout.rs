//! Magic numbers and fixed-size parts. All integers of the file are little-endian.

use cutwater_core::{KeyGroup, KeyGroupRange};

use super::BlockInfo;
use crate::{BlockKind, StateError};

/// The newest version of the snapshot format that this release knows: that of snapshots that build on others.
pub const VERSION: u32 = 2;
/// The version of snapshots of everything, which older releases can read.
pub const FULL_VERSION: u32 = 1;

/// The line break shows a transfer in text mode, the byte above 127 one that is not 8-bit clean.
pub(super) const MAGIC: [u8; 8] = *b"\x89CUTW\r\n\x1a";
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"\x1a\nWTUC\x89\0";

/// Magic, version, length of the header.
pub(super) const PREFIX: usize = 8 + 4 + 4;
pub(super) const FRAME: usize = 24;
pub(super) const INDEX_ENTRY: usize = 24;
pub(super) const FOOTER: usize = 8 + 8 + 4 + 4 + 8;
pub(super) const CHECKSUM: usize = 4;

/// The payload of a block and the header are at most so large: an entry has at most 1 GiB each of key and value.
pub(super) const MAX_BLOCK: u32 = u32::MAX - FRAME as u32 - CHECKSUM as u32;
/// Room that is made on the word of the file; beyond it, room grows with what is really there.
pub(super) const TRUSTED_BYTES: u32 = 16 << 20;

pub(super) const STORED: u16 = 0;
pub(super) const ZSTD: u16 = 1;

/// What stands before the bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) state: u16,
    pub(super) groups: KeyGroupRange,
    pub(super) compression: u16,
    pub(super) entries: u32,
    /// Bytes of the payload as it is in memory, and as it is stored.
    pub(super) raw: u32,
    pub(super) stored: u32,
    pub(super) kind: BlockKind,
}

impl Frame {
    pub(super) fn to_bytes(self) -> [u8; FRAME] {
        let mut bytes = [0; FRAME];
        let groups = self.groups;
        for (at, short) in [self.state, groups.first.0, groups.last.0, self.compression].into_iter().enumerate() {
            bytes[at * 2..at * 2 + 2].copy_from_slice(&short.to_le_bytes());
        }
        for (at, word) in [self.entries, self.raw, self.stored].into_iter().enumerate() {
            bytes[8 + at * 4..12 + at * 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[20..22].copy_from_slice(&code_of(self.kind).to_le_bytes());
        bytes
    }

    /// `None` if there is no such kind of block.
    pub(super) fn from_bytes(bytes: &[u8; FRAME]) -> Option<Self> {
        Some(Self {
            state: u16_at(bytes, 0),
            groups: KeyGroupRange { first: KeyGroup(u16_at(bytes, 2)), last: KeyGroup(u16_at(bytes, 4)) },
            compression: u16_at(bytes, 6),
            entries: u32_at(bytes, 8),
            raw: u32_at(bytes, 12),
            stored: u32_at(bytes, 16),
            kind: kind_of(u16_at(bytes, 20))?,
        })
    }
}

fn code_of(kind: BlockKind) -> u16 {
    match kind {
        BlockKind::All => 0,
        BlockKind::Changed => 1,
        BlockKind::Removed => 2,
        BlockKind::ForTier => u16::MAX, // no file has one: it is not written, and not known
    }
}

fn kind_of(code: u16) -> Option<BlockKind> {
    [BlockKind::All, BlockKind::Changed, BlockKind::Removed].into_iter().find(|kind| code_of(*kind) == code)
}

impl BlockInfo {
    pub(super) fn to_bytes(self) -> [u8; INDEX_ENTRY] {
        let mut bytes = [0; INDEX_ENTRY];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.entries.to_le_bytes());
        for (at, short) in [self.state, self.groups.first.0, self.groups.last.0].into_iter().enumerate() {
            bytes[16 + at * 2..18 + at * 2].copy_from_slice(&short.to_le_bytes());
        }
        bytes[22..].copy_from_slice(&code_of(self.kind).to_le_bytes());
        bytes
    }

    /// `None` if there is no such kind of block.
    pub(super) fn from_bytes(bytes: &[u8; INDEX_ENTRY]) -> Option<Self> {
        Some(Self {
            offset: u64_at(bytes, 0),
            length: u32_at(bytes, 8),
            entries: u32_at(bytes, 12),
            state: u16_at(bytes, 16),
            groups: KeyGroupRange { first: KeyGroup(u16_at(bytes, 18)), last: KeyGroup(u16_at(bytes, 20)) },
            kind: kind_of(u16_at(bytes, 22))?,
        })
    }
}

/// The end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) index: u64,
    pub(super) total: u64,
    pub(super) blocks: u32,
}

impl Footer {
    pub(super) fn to_bytes(self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.total.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        let checksum = checksum(&[&bytes[..20]]);
        bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
        bytes[24..].copy_from_slice(&FOOTER_MAGIC);
        bytes
    }

    /// `None` if these are not the bytes of a footer.
    pub(super) fn from_bytes(bytes: &[u8; FOOTER]) -> Option<Self> {
        let sound = bytes[24..] == FOOTER_MAGIC && u32_at(bytes, 20) == checksum(&[&bytes[..20]]);
        sound.then(|| Self { index: u64_at(bytes, 0), total: u64_at(bytes, 8), blocks: u32_at(bytes, 16) })
    }
}

/// The checksum behind a part of the file: CRC-32C, turned and raised by a constant.
///
/// Not the plain sum: the sum over anything that ends in its own sum depends on the length alone, so the sum of the whole
/// file, which the checkpoint's record holds, would not tell two files of one shape apart.
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let sum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    sum.rotate_right(15).wrapping_add(0x5157_3a21)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cold]
pub(super) fn damaged(part: &'static str, offset: u64, reason: &str) -> StateError {
    StateError::Damaged { part, offset, reason: reason.into() }
}
