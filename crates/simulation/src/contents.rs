//! What the files of a subtask's snapshot hold together, read by what docs/format.md says and not by what wrote them: the
//! oracle compares it with what must be there.

use std::collections::BTreeMap;

use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{Block, BlockKind, StateHeader};

/// Which entry: its state's place in the header, its key group, its encoded key.
type EntryKey = (u16, u16, Vec<u8>);

/// All entries of one subtask's snapshot, with the widths that their encodings have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    entries: BTreeMap<EntryKey, Vec<u8>>,
}

impl Entries {
    /// Adds what a file holds; `None` if its blocks are not as docs/format.md says. Of maps and lists nothing is known: what
    /// tells their entries apart stands within their values.
    pub(crate) fn add(&mut self, headers: &[StateHeader], blocks: &[Block]) -> Option<()> {
        let changed = |block: &&Block| block.kind == BlockKind::Changed;
        for block in blocks.iter().filter(|block| !changed(block)).chain(blocks.iter().filter(changed)) {
            let header = headers.get(usize::from(block.state))?;
            let removed = block.kind == BlockKind::Removed;
            let second = if removed { None } else { header.value_codec.fixed_width() };
            let widths = (header.key_codec.fixed_width(), second);
            let mut rest = block.payload.as_slice();
            while !rest.is_empty() {
                let group = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
                let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                take(&mut rest, 4)?;
                for _ in 0..count {
                    let key = framed(&mut rest, widths.0)?.to_vec();
                    let value = framed(&mut rest, widths.1)?.to_vec();
                    // A key has several timers: they differ in the value, which is what stands in the name of one.
                    let key = if header.kind.has_several() { [&key[..], &value[..]].concat() } else { key };
                    if removed {
                        self.entries.remove(&(block.state, group, key));
                    } else {
                        self.entries.insert((block.state, group, key), value);
                    }
                }
            }
        }
        Some(())
    }

    /// Forgets those of other key groups.
    pub(crate) fn keep_only(&mut self, groups: KeyGroupRange) {
        self.entries.retain(|(_, group, _), _| groups.contains(KeyGroup(*group)));
    }

    /// The entries as blocks again, one for each state that has any.
    pub(crate) fn blocks(&self, headers: &[StateHeader]) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut run: Option<(u16, u16, usize, u32)> = None; // state, group, where its header is, entries
        for ((state, group, key), value) in &self.entries {
            let Some(header) = headers.get(usize::from(*state)) else { continue };
            let key = if header.kind.has_several() { &key[..key.len() - value.len()] } else { key };
            if blocks.last().is_none_or(|block| block.state != *state) {
                let groups = KeyGroupRange { first: KeyGroup(*group), last: KeyGroup(*group) };
                blocks.push(Block { state: *state, kind: BlockKind::All, groups, entries: 0, payload: Vec::new() });
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
    use cutwater_core::{MaxParallelism, OperatorUid, Timestamp};
    use cutwater_state::{Cut, Snapshotable, Table, TableSpec, Timers, hash_key};

    use super::*;

    fn spec(name: &str) -> TableSpec {
        let max_parallelism = MaxParallelism::new(16).unwrap();
        let operator = OperatorUid::new("o").unwrap();
        TableSpec { operator, name: name.to_owned(), max_parallelism, key_groups: max_parallelism.all() }
    }

    fn snapshot(states: &mut [&mut dyn Snapshotable], since: Option<Cut>) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (at, state) in (0..).zip(states) {
            state.cut_since(since);
            let sweep = &mut |mut block: Block| {
                block.state = at;
                blocks.push(block);
            };
            state.sweep(usize::MAX, sweep).unwrap();
        }
        blocks
    }

    #[test]
    fn the_files_of_a_chain_hold_what_is_there() {
        let mut table: Table<u32, BTreeMap<u32, u32>> = Table::new(spec("table"));
        let mut timers: Timers<u32> = Timers::new(spec("timers"));
        let hash = |key: u32| hash_key(&key, &mut Vec::new());
        for key in 0..40 {
            table.insert(hash(key), key, BTreeMap::from([(key, 1)])).unwrap();
            timers.register(hash(key), &key, Timestamp(5)).unwrap();
            timers.register(hash(key), &key, Timestamp(6)).unwrap();
        }
        let headers = [table.header(), timers.header()];
        let states: &mut [&mut dyn Snapshotable] = &mut [&mut table, &mut timers];
        states.iter_mut().for_each(|state| state.track_changes());
        let mut chain = Entries::default();
        chain.add(&headers, &snapshot(states, None)).unwrap();
        table.insert(hash(3), 3, BTreeMap::from([(3, 2)])).unwrap();
        table.remove(hash(4), &4).unwrap();
        table.insert(hash(99), 99, BTreeMap::new()).unwrap();
        while timers.pop_due(Timestamp(5)).unwrap().is_some() {}
        let states: &mut [&mut dyn Snapshotable] = &mut [&mut table, &mut timers];
        chain.add(&headers, &snapshot(states, Some(Cut(1)))).unwrap();
        let mut whole = Entries::default();
        whole.add(&headers, &snapshot(states, None)).unwrap();
        assert_eq!(chain, whole);
        assert_eq!(chain.entries.len(), 40 + 40);

        let mut again = Entries::default();
        again.add(&headers, &whole.blocks(&headers)).unwrap();
        assert_eq!(again, whole);
        assert_eq!(
            Entries::default().add(&headers, &[Block { payload: vec![1; 9], ..whole.blocks(&headers)[0].clone() }]),
            None
        );
    }
}
