use cutwater_core::{KeyGroup, KeyHash, MaxParallelism, OperatorUid, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{Block, Cut, Snapshotable, StateError, Table, TableSpec, Timers, hash_key};

fn spec(name: &str) -> TableSpec {
    let max_parallelism = MaxParallelism::new(16).unwrap();
    let operator = OperatorUid::new("op").unwrap();
    TableSpec { operator, name: name.to_owned(), max_parallelism, key_groups: max_parallelism.all() }
}

fn hash(key: u64) -> KeyHash {
    hash_key(&key, &mut Vec::new())
}

fn header(states: Vec<StateHeader>) -> SnapshotHeader {
    SnapshotHeader {
        job: "job".to_owned(),
        task: "op".to_owned(),
        subtask: 1,
        parallelism: 2,
        checkpoint: CheckpointId(7),
        base: None,
        states,
    }
}

/// A file with a table, timers and another table that is empty.
fn file(compression: Compression) -> (SnapshotHeader, Vec<Block>, Vec<u8>) {
    let mut table: Table<u64, String> = Table::new(spec("table"));
    let mut timers: Timers<u64> = Timers::new(spec("timers"));
    for key in 0..12 {
        table.insert(hash(key), key, "a value that is worth compressing, ".repeat(2)).unwrap();
        timers.register(hash(key), &key, Timestamp(50)).unwrap();
    }
    let empty: Table<(), ()> = Table::new(spec("empty"));
    let header = header(vec![table.header(), timers.header(), empty.header()]);
    let mut blocks = Vec::new();
    table.cut();
    timers.cut();
    table.sweep(usize::MAX, &mut |block| blocks.push(block)).unwrap();
    timers.sweep(usize::MAX, &mut |block| blocks.push(Block { state: 1, ..block })).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, compression, &mut bytes).unwrap();
    for block in &blocks {
        encoder.push(block, &mut bytes).unwrap();
        assert_eq!(encoder.written(), bytes.len() as u64);
    }
    encoder.finish(&mut bytes);
    (header, blocks, bytes)
}

fn read_all(bytes: &Vec<u8>) -> Result<(SnapshotHeader, Vec<Block>), StateError> {
    let reader = SnapshotReader::open(bytes)?;
    let blocks: Result<_, _> = reader.blocks().iter().map(|info| reader.read_block(info)).collect();
    Ok((reader.header().clone(), blocks?))
}

#[test]
fn what_was_written_is_read() {
    for compression in [Compression::None, Compression::Zstd(1), Compression::Zstd(-3)] {
        let (header, blocks, bytes) = file(compression);
        let reader = SnapshotReader::open(&bytes).unwrap();
        for used in [0, 1, 100, 1 << 20] {
            let into_used = |info| reader.read_block_into(info, vec![0xaa; used]).unwrap();
            assert_eq!(reader.blocks().iter().map(into_used).collect::<Vec<_>>(), blocks, "{used} bytes were in use");
        }
        assert_eq!(read_all(&bytes).unwrap(), (header, blocks), "{compression:?}");
    }
    assert!(file(Compression::Zstd(1)).2.len() + 100 < file(Compression::None).2.len());
}

#[test]
fn every_flipped_byte_is_an_error() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        let (.., bytes) = file(compression);
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= mask;
                let error = read_all(&flipped).expect_err(&format!("byte {at} ^ {mask:#x}"));
                assert!(!error.is_retryable(), "byte {at}: {error}");
            }
        }
    }
}

#[test]
fn every_truncation_and_every_longer_file_is_an_error() {
    let (.., bytes) = file(Compression::None);
    for length in 0..bytes.len() {
        let error = read_all(&bytes[..length].to_vec()).expect_err(&format!("{length} bytes"));
        assert!(matches!(error, StateError::Damaged { .. } | StateError::NotASnapshot), "{length} bytes: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(read_all(&longer), Err(StateError::Damaged { .. })));
    let twice = [bytes.as_slice(), &bytes].concat();
    assert!(matches!(read_all(&twice), Err(StateError::Damaged { .. })));
}

#[test]
fn other_files_and_newer_versions_are_told_apart() {
    assert!(matches!(read_all(&b"id,name\n1,a\n2,b\n3,c\n".to_vec()), Err(StateError::NotASnapshot)));
    let (.., mut bytes) = file(Compression::None);
    bytes[8] = 3;
    let error = read_all(&bytes).unwrap_err();
    assert!(matches!(error, StateError::NewerVersion { found: 3, known: 2 }), "{error}");
    assert!(error.to_string().contains('3') && error.to_string().contains("up to 2"), "{error}");
}

/// The file of what has changed since another.
fn delta_file() -> (SnapshotHeader, Vec<Block>, Vec<u8>) {
    let mut table: Table<u64, String> = Table::new(spec("table"));
    (0..12).for_each(|key| drop(table.insert(hash(key), key, "value".to_owned()).unwrap()));
    table.track_changes();
    table.insert(hash(3), 3, "another".to_owned()).unwrap();
    table.remove(hash(4), &4).unwrap();
    let mut blocks = Vec::new();
    table.cut_since(Some(Cut::RESTORED));
    table.sweep(usize::MAX, &mut |block| blocks.push(block)).unwrap();
    let header = SnapshotHeader { base: Some(CheckpointId(6)), ..header(vec![table.header()]) };
    let mut bytes = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, Compression::None, &mut bytes).unwrap();
    blocks.iter().for_each(|block| encoder.push(block, &mut bytes).unwrap());
    encoder.finish(&mut bytes);
    (header, blocks, bytes)
}

#[test]
fn a_snapshot_since_another_is_a_file_of_version_2() {
    let (header, blocks, bytes) = delta_file();
    assert_eq!(bytes[8..12], [2, 0, 0, 0]);
    assert_eq!(blocks.iter().map(|block| block.kind).collect::<Vec<_>>(), [BlockKind::Removed, BlockKind::Changed]);
    assert_eq!(read_all(&bytes).unwrap(), (header, blocks));
    for at in 0..bytes.len() {
        for flip in [0x01, 0x03, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert!(read_all(&damaged).is_err(), "byte {at}");
        }
        assert!(read_all(&bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}

#[test]
fn a_file_is_of_everything_or_of_changes() {
    let (full, all, _) = file(Compression::None);
    let (delta, changes, _) = delta_file();
    for (header, block) in [(full, &changes[0]), (delta, &all[0])] {
        let mut bytes = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header, Compression::None, &mut bytes).unwrap();
        assert!(matches!(encoder.push(block, &mut bytes), Err(StateError::Damaged { .. })));
    }
}

#[test]
fn only_blocks_with_the_key_groups_asked_for_are_named() {
    let block = |first, last| Block {
        state: 0,
        kind: BlockKind::All,
        groups: KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) },
        entries: 1,
        payload: vec![first as u8],
    };
    let table: Table<u64, u64> = Table::new(spec("table"));
    let mut bytes = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header(vec![table.header()]), Compression::None, &mut bytes).unwrap();
    for (first, last) in [(0, 3), (3, 3), (3, 8), (10, 12)] {
        encoder.push(&block(first, last), &mut bytes).unwrap();
    }
    assert!(matches!(encoder.push(&block(11, 12), &mut bytes), Err(StateError::Damaged { .. })), "order");
    let foreign = Block { state: 1, ..block(13, 13) };
    assert!(matches!(encoder.push(&foreign, &mut bytes), Err(StateError::Damaged { .. })), "state");
    encoder.finish(&mut bytes);
    let reader = SnapshotReader::open(&bytes).unwrap();
    let named = |first, last| {
        let groups = KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) };
        reader.blocks_for(0, groups).map(|info| info.groups.first.0).collect::<Vec<_>>()
    };
    assert_eq!(named(0, 2), [0]);
    assert_eq!(named(3, 3), [0, 3, 3]);
    assert_eq!(named(8, 9), [3]);
    assert!(named(9, 9).is_empty());
    assert_eq!(named(0, 15), [0, 3, 3, 10]);
}

#[test]
fn a_block_that_claims_to_be_huge_takes_no_memory() {
    let zeros = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    assert_eq!(reader::unpack(&zeros, u32::MAX), None);
    assert_eq!(reader::unpack(&zeros, 1000), None, "more than it says");
    assert_eq!(reader::unpack(&zeros, 1 << 20).map(|payload| payload.len()), Some(1 << 20));
}

/// The first bytes of a file of version 1, which no later release may change.
#[test]
fn the_beginning_and_the_end_are_fixed_for_ever() {
    let (.., bytes) = file(Compression::None);
    assert_eq!(bytes[..12], *b"\x89CUTW\r\n\x1a\x01\0\0\0");
    assert_eq!(bytes[bytes.len() - 8..], *b"\x1a\nWTUC\x89\0");
    assert!(bytes[16..].starts_with(br#"{"key_hash":"xxh3-64/v1","job":"job","task":"op""#));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(mut noise: Vec<u8>, keep in 0_usize..2000) {
        let (.., bytes) = file(Compression::Zstd(1));
        let _ = read_all(&noise);
        let mut mixed = bytes[..keep.min(bytes.len())].to_vec();
        mixed.append(&mut noise);
        mixed.extend_from_slice(&bytes[bytes.len() - 60..]);
        prop_assert!(mixed == bytes || read_all(&mixed).is_err());
    }
}

#[test]
fn the_sum_of_the_whole_file_tells_files_of_one_shape_apart() {
    let (header, mut blocks, bytes) = file(Compression::None);
    let other = {
        let last = blocks[0].payload.len() - 1;
        blocks[0].payload[last] ^= 1;
        let mut out = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header, Compression::None, &mut out).unwrap();
        for block in &blocks {
            encoder.push(block, &mut out).unwrap();
        }
        encoder.finish(&mut out);
        out
    };
    assert_eq!(bytes.len(), other.len());
    assert_ne!(crc32c::crc32c(&bytes), crc32c::crc32c(&other));
}
