use std::borrow::Cow;

use cutwater_core::KeyGroup;
use serde::Serialize;

use super::layout::{CHECKSUM, FRAME, FULL_VERSION, Footer, Frame, MAGIC, MAX_BLOCK, STORED, VERSION, ZSTD, checksum};
use super::{BlockInfo, Compression, KEY_HASH, SnapshotHeader};
use crate::{Block, BlockKind, StateError};

/// Turns blocks into the bytes of a snapshot file. It writes nothing itself: every call appends to `out`, whose bytes
/// the caller writes in order.
///
/// ```
/// # use cutwater_core::{CheckpointId, MaxParallelism, OperatorUid};
/// # use cutwater_state::{Snapshotable, StateError, Table, TableSpec, hash_key};
/// use cutwater_state::format::{Compression, SnapshotEncoder, SnapshotHeader, SnapshotReader};
///
/// # let max_parallelism = MaxParallelism::default();
/// # let operator = OperatorUid::new("routes").unwrap();
/// # let spec = TableSpec { operator, name: "n".to_owned(), max_parallelism, key_groups: max_parallelism.all() };
/// # let mut table: Table<u64, u64> = Table::new(spec);
/// table.insert(hash_key(&7_u64, &mut Vec::new()), 7, 1)?;
/// table.cut();
/// let header = SnapshotHeader {
///     job: "flights".to_owned(),
///     task: "routes".to_owned(),
///     subtask: 0,
///     parallelism: 1,
///     checkpoint: CheckpointId(1),
///     base: None,
///     states: vec![table.header()],
/// };
/// let mut file = Vec::new();
/// let mut encoder = SnapshotEncoder::new(&header, Compression::None, &mut file)?;
/// let mut blocks = Vec::new();
/// table.sweep(usize::MAX, &mut |block| blocks.push(block))?;
/// for block in &blocks {
///     encoder.push(block, &mut file)?;
/// }
/// encoder.finish(&mut file);
///
/// let reader = SnapshotReader::open(&file)?;
/// assert_eq!(reader.header(), &header);
/// for info in reader.blocks_for(0, max_parallelism.range_of(0, 2)) {
///     let _half_of_the_entries = reader.read_block(info)?;
/// }
/// # Ok::<(), StateError>(())
/// ```
#[derive(Debug)]
pub struct SnapshotEncoder {
    compression: Compression,
    /// Whether the snapshot builds on another.
    delta: bool,
    written: u64,
    index: Vec<BlockInfo>,
    /// The last key group of the entries of each state, and of its removed ones, since both come in order.
    last: Vec<[Option<KeyGroup>; 2]>,
}

/// A block as it stands in the file, made by [`SnapshotEncoder::frame`].
#[derive(Debug)]
pub struct FramedBlock<'a> {
    head: [u8; FRAME],
    body: Cow<'a, [u8]>,
    checksum: [u8; CHECKSUM],
}

impl FramedBlock<'_> {
    /// The bytes: one after the other they are the block.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.head, &self.body, &self.checksum]
    }

    /// What comes before the body, the body unless it is the payload of the block as it is, and what comes behind it: for
    /// callers that can give the payload away.
    #[must_use]
    pub fn into_parts(self) -> ([u8; FRAME], Option<Vec<u8>>, [u8; CHECKSUM]) {
        let packed = if let Cow::Owned(packed) = self.body { Some(packed) } else { None };
        (self.head, packed, self.checksum)
    }
}

/// The header as it stands in the file.
#[derive(Serialize)]
struct Stored<'a> {
    key_hash: &'static str,
    #[serde(flatten)]
    header: &'a SnapshotHeader,
}

impl SnapshotEncoder {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// [`StateError::TooLarge`] if there are more than 65,536 states or the header is larger than 4 GiB.
    pub fn new(header: &SnapshotHeader, compression: Compression, out: &mut Vec<u8>) -> Result<Self, StateError> {
        let states = header.states.len() as u64;
        if states > 1 << 16 {
            return Err(StateError::TooLarge { what: "a list of states", bytes: states, limit: 1 << 16 });
        }
        let encode_error = |error: serde_json::Error| StateError::Encode {
            type_name: "SnapshotHeader",
            reason: error.to_string().into(),
        };
        let json = serde_json::to_vec(&Stored { key_hash: KEY_HASH, header }).map_err(encode_error)?;
        let length = block_length("a snapshot header", json.len())?;
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        let version = if header.base.is_some() { VERSION } else { FULL_VERSION };
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&json);
        append_checksum(start, out);
        let last = vec![[None; 2]; header.states.len()];
        let written = (out.len() - start) as u64;
        Ok(Self { compression, delta: header.base.is_some(), written, index: Vec::new(), last })
    }

    /// Appends a block: [`Self::frame`] for callers that have the whole file in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::frame`]. `out` is then as it was.
    pub fn push(&mut self, block: &Block, out: &mut Vec<u8>) -> Result<(), StateError> {
        for part in self.frame(block)?.parts() {
            out.extend_from_slice(part);
        }
        Ok(())
    }

    /// The next bytes of the file, which are this block, without copying its payload. Blocks of one state come in the
    /// order in which its sweep emits them; those of several states may alternate.
    ///
    /// # Errors
    ///
    /// [`StateError::TooLarge`] if the payload is larger than a frame can say; [`StateError::Damaged`] if the block is
    /// out of order, of a state that is not in the header, or of a kind that does not go with the header's base. The file
    /// then has no such block.
    pub fn frame<'a>(&mut self, block: &'a Block) -> Result<FramedBlock<'a>, StateError> {
        let raw = block_length("a block", block.payload.len())?;
        self.check_order(block)?;
        let mut frame = Frame {
            state: block.state,
            groups: block.groups,
            compression: STORED,
            entries: block.entries,
            raw,
            stored: raw,
            kind: block.kind,
        };
        let packed = match self.compression {
            Compression::None => None,
            // A block that can't be compressed is stored as it is.
            Compression::Zstd(level) => zstd::bulk::compress(&block.payload, level).ok(),
        };
        let packed = packed.filter(|packed| packed.len() < block.payload.len());
        if let Some(packed) = &packed {
            frame.compression = ZSTD;
            frame.stored = block_length("a block", packed.len())?;
        }
        let head = frame.to_bytes();
        let body = packed.map_or(Cow::Borrowed(block.payload.as_slice()), Cow::Owned);
        let checksum = checksum(&[&head, &body]).to_le_bytes();
        let length = frame.stored + (FRAME + CHECKSUM) as u32;
        let Block { state, kind, groups, entries, .. } = *block;
        self.index.push(BlockInfo { state, kind, groups, entries, offset: self.written, length });
        self.written += u64::from(length);
        Ok(FramedBlock { head, body, checksum })
    }

    /// How many bytes the file has so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends the index and the footer, which end the file.
    pub fn finish(self, out: &mut Vec<u8>) {
        let start = out.len();
        for info in &self.index {
            out.extend_from_slice(&info.to_bytes());
        }
        append_checksum(start, out);
        let blocks = u32::try_from(self.index.len()).expect("4e9 blocks of a mebibyte are 4 PiB");
        let total = self.written + (out.len() - start) as u64 + super::layout::FOOTER as u64;
        out.extend_from_slice(&Footer { index: self.written, total, blocks }.to_bytes());
    }

    fn check_order(&mut self, block: &Block) -> Result<(), StateError> {
        let wrong =
            |reason: &str| StateError::Damaged { part: "block to write", offset: self.written, reason: reason.into() };
        let groups = block.groups;
        if self.delta == (block.kind == BlockKind::All) {
            return Err(wrong("a snapshot of everything has no changes, one that builds on another has nothing else"));
        }
        if block.kind == BlockKind::ForTier {
            return Err(wrong("it is for a tier, and not for a file"));
        }
        let kind = usize::from(block.kind == BlockKind::Removed);
        match self.last.get(usize::from(block.state)).map(|last| last[kind]) {
            None => Err(wrong("its state is not in the header")),
            Some(last) if last > Some(groups.first) || groups.first > groups.last => {
                Err(wrong("its key groups are out of order"))
            }
            Some(_) => {
                self.last[usize::from(block.state)][kind] = Some(groups.last);
                Ok(())
            }
        }
    }
}

fn append_checksum(start: usize, out: &mut Vec<u8>) {
    let checksum = checksum(&[&out[start..]]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn block_length(what: &'static str, bytes: usize) -> Result<u32, StateError> {
    match u32::try_from(bytes) {
        Ok(length) if length <= MAX_BLOCK => Ok(length),
        _ => Err(StateError::TooLarge { what, bytes: bytes as u64, limit: MAX_BLOCK.into() }),
    }
}
