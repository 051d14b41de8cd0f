//! A model of incremental snapshots: files that hold only what has changed since another checkpoint.
//!
//! The table writes full snapshots. What matters to the protocols is which files a checkpoint needs, who else needs them,
//! and what they are built on; so the model compares entries, and puts the difference into a file of its own.

use std::collections::BTreeMap;

use cutwater_core::KeyGroup;
use cutwater_state::{Block, StateHeader};
use serde::{Deserialize, Serialize};

/// Which entry: its state's place in the header, its key group, its encoded key.
type EntryKey = (u16, u16, Vec<u8>);

/// All entries of one subtask's snapshot, with the widths that their encodings have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    entries: BTreeMap<EntryKey, Vec<u8>>,
}

/// What changed between two snapshots of a subtask; `None` for an entry that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) changes: Vec<(EntryKey, Option<Vec<u8>>)>,
}

const CHECKSUM: usize = 4;

impl Delta {
    /// The bytes of its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = postcard::to_extend(self, b"delta".to_vec()).expect("plain data has an encoding");
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not those of a delta.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        if crc32c::crc32c(bytes).to_le_bytes() != *sum {
            return None;
        }
        postcard::from_bytes(bytes.strip_prefix(b"delta")?).ok()
    }

    /// Whether a file holds one, and not a full snapshot.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(b"delta")
    }
}

impl Entries {
    /// The entries of these blocks; `None` if they are not as docs/format.md says.
    pub(crate) fn of(headers: &[StateHeader], blocks: &[Block]) -> Option<Self> {
        let mut entries = BTreeMap::new();
        for block in blocks {
            let header = headers.get(usize::from(block.state))?;
            let widths = (header.key_codec.fixed_width(), header.value_codec.fixed_width());
            let mut rest = block.payload.as_slice();
            while !rest.is_empty() {
                let group = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
                let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                take(&mut rest, 4)?;
                for _ in 0..count {
                    let key = framed(&mut rest, widths.0)?.to_vec();
                    let value = framed(&mut rest, widths.1)?.to_vec();
                    // Timers and maps have several entries of one key: they differ in the value.
                    let key = if header.kind.has_several() { [&key[..], &value[..]].concat() } else { key };
                    entries.insert((block.state, group, key), value);
                }
            }
        }
        Some(Self { entries })
    }

    /// What has to change for these to become `newer`.
    pub(crate) fn delta_to(&self, newer: &Self) -> Delta {
        let changed = newer.entries.iter().filter(|(key, value)| self.entries.get(*key) != Some(value));
        let changed = changed.map(|(key, value)| (key.clone(), Some(value.clone())));
        let gone = self.entries.keys().filter(|key| !newer.entries.contains_key(*key));
        Delta { changes: changed.chain(gone.map(|key| (key.clone(), None))).collect() }
    }

    pub(crate) fn apply(&mut self, delta: Delta) {
        for (key, value) in delta.changes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
    }

    /// The entries as blocks again, one for each state that has any.
    pub(crate) fn blocks(&self, headers: &[StateHeader]) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut run: Option<(u16, u16, usize, u32)> = None; // state, group, where its header is, entries
        for ((state, group, key), value) in &self.entries {
            let Some(header) = headers.get(usize::from(*state)) else { continue };
            let key = if header.kind.has_several() { &key[..key.len() - value.len()] } else { key };
            if blocks.last().is_none_or(|block| block.state != *state) {
                let groups = cutwater_core::KeyGroupRange { first: KeyGroup(*group), last: KeyGroup(*group) };
                blocks.push(Block { state: *state, groups, entries: 0, payload: Vec::new() });
                run = None;
            }
            let Some(block) = blocks.last_mut() else { continue };
            if run.is_none_or(|run| run.1 != *group) {
                run = Some((*state, *group, block.payload.len(), 0));
                block.payload.extend_from_slice(&[0; 10]);
            }
            for (bytes, width) in [(key, header.key_codec.fixed_width()), (value, header.value_codec.fixed_width())] {
                if width.is_none() {
                    block.payload.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                }
                block.payload.extend_from_slice(bytes);
            }
            block.entries += 1;
            block.groups.last = KeyGroup(*group);
            if let Some((_, group, start, entries)) = &mut run {
                *entries += 1;
                let bytes = (block.payload.len() - *start - 10) as u32;
                block.payload[*start..*start + 2].copy_from_slice(&group.to_le_bytes());
                block.payload[*start + 2..*start + 6].copy_from_slice(&entries.to_le_bytes());
                block.payload[*start + 6..*start + 10].copy_from_slice(&bytes.to_le_bytes());
            }
        }
        blocks
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn framed<'a>(rest: &mut &'a [u8], width: Option<usize>) -> Option<&'a [u8]> {
    let length = match width {
        Some(width) => width,
        None => u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize,
    };
    take(rest, length)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cutwater_core::{MaxParallelism, OperatorUid, Timestamp};
    use cutwater_state::{Snapshotable, Table, TableSpec, Timers, hash_key};

    use super::*;

    fn spec(name: &str) -> TableSpec {
        let max_parallelism = MaxParallelism::new(16).unwrap();
        let operator = OperatorUid::new("o").unwrap();
        TableSpec { operator, name: name.to_owned(), max_parallelism, key_groups: max_parallelism.all() }
    }

    fn snapshot(states: &mut [&mut dyn Snapshotable]) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (at, state) in (0..).zip(states) {
            state.cut();
            let sweep = &mut |mut block: Block| {
                block.state = at;
                blocks.push(block);
            };
            state.sweep(usize::MAX, sweep).unwrap();
        }
        blocks
    }

    #[test]
    fn a_full_snapshot_and_its_deltas_restore_what_was_there() {
        let mut table: Table<u32, BTreeMap<u32, u32>> = Table::new(spec("table"));
        let mut timers: Timers<u32> = Timers::new(spec("timers"));
        let hash = |key: u32| hash_key(&key, &mut Vec::new());
        for key in 0..40 {
            table.insert(hash(key), key, BTreeMap::from([(key, 1)])).unwrap();
            timers.register(hash(key), &key, Timestamp(5)).unwrap();
            timers.register(hash(key), &key, Timestamp(6)).unwrap();
        }
        let headers = [table.header(), timers.header()];
        let first = Entries::of(&headers, &snapshot(&mut [&mut table, &mut timers])).unwrap();
        table.insert(hash(3), 3, BTreeMap::from([(3, 2)])).unwrap();
        table.remove(hash(4), &4).unwrap();
        table.insert(hash(99), 99, BTreeMap::new()).unwrap();
        while timers.pop_due(Timestamp(5)).is_some() {}
        let second = Entries::of(&headers, &snapshot(&mut [&mut table, &mut timers])).unwrap();

        let delta = Delta::decode(&first.delta_to(&second).encode()).unwrap();
        assert_eq!(delta.changes.len(), 3 + 40);
        let mut restored = first;
        restored.apply(delta);
        assert_eq!(restored, second);
        let (mut again, mut timers_again): (Table<u32, BTreeMap<u32, u32>>, Timers<u32>) =
            (Table::new(spec("table")), Timers::new(spec("timers")));
        let all = MaxParallelism::new(16).unwrap().all();
        for block in restored.blocks(&headers) {
            match block.state {
                0 => again.restore(&block, all).unwrap(),
                _ => timers_again.restore(&block, all).unwrap(),
            };
        }
        let states: &mut [&mut dyn Snapshotable] = &mut [&mut again, &mut timers_again];
        assert_eq!(Entries::of(&headers, &snapshot(states)).unwrap(), second);
    }

    #[test]
    fn a_damaged_delta_is_none() {
        let delta = Delta { changes: vec![((0, 1, vec![2]), Some(vec![3]))] };
        let bytes = delta.encode();
        assert!(Delta::is_one(&bytes));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(Delta::decode(&damaged), None, "byte {at}");
            assert_eq!(Delta::decode(&bytes[..at]), None);
        }
    }
}
