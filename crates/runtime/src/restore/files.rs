//! Fills the tables of a subtask from the files of a checkpoint.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::mpsc::{channel, sync_channel};

use cutwater_coordinator::{FileRef, SubtaskSnapshot, TaskSnapshot as TaskPart, checkpoint_of_snapshot};
use cutwater_core::{KeyGroupRange, MaxParallelism, OperatorUid};
use cutwater_state::format::{BlockInfo, ReadAt as _, SnapshotHeader, SnapshotReader};
use cutwater_state::{Block, BlockKind, StateError, StateHeader};
use cutwater_task::TaskCore;

use super::file::File;
use super::{Progress, RestorePoint};
use crate::error::RestoreError;
use crate::job::IgnoreUnclaimed;
use crate::local::LocalCopies;

/// Of how many of the key groups of a part a subtask restores the entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlap {
    shared: u32,
    all: u32,
}

impl Overlap {
    /// `None` if the part can't hold entries of these key groups: of any number of subtasks each would else open the files of
    /// all. What can't be said of a record that makes no sense is left to the check of the file.
    pub(super) fn find(
        max: MaxParallelism,
        task: &TaskPart,
        part: &SubtaskSnapshot,
        range: &KeyGroupRange,
    ) -> Option<Self> {
        let (index, parallelism) = (part.subtask.index, task.parallelism);
        if index >= parallelism || parallelism > max.count() {
            return Some(Self { shared: 1, all: 1 });
        }
        let own = max.range_of(index, parallelism);
        let (first, last) = (own.first.max(range.first), own.last.min(range.last));
        own.overlaps(range).then(|| Self { shared: KeyGroupRange { first, last }.count(), all: own.count() })
    }

    /// How many bytes of a file the subtask is likely to read.
    pub(super) fn of(self, bytes: u64) -> u64 {
        u64::try_from(u128::from(bytes) * u128::from(self.shared) / u128::from(self.all)).unwrap_or(u64::MAX)
    }
}

/// So many blocks wait to be put into the tables, while one more is read. Fewer stay in the caches on the way, and one is
/// enough: what evens out the speed of the disk is the system's own reading ahead.
const BLOCKS_AHEAD: usize = 1;

/// Makes the allocator get memory for the entries of a block from the system at once. In threads other than the first,
/// glibc's gets it page by page, each with a system call that stops the other threads of the process; what is given
/// back is kept for the thread's next allocations. With other allocators this does next to nothing.
fn make_room(bytes: usize) {
    drop(black_box(Vec::<u8>::with_capacity(bytes.saturating_mul(2).clamp(LEAST_ROOM, MOST_ROOM))));
}

/// What a block of small entries becomes: each has a slot of the table, which is larger the more of them are empty, and
/// values on the heap have a head each.
const LEAST_ROOM: usize = 4 << 20;
/// The most that the allocator keeps at all.
const MOST_ROOM: usize = 16 << 20;

/// The tables of a subtask that are being filled. Their headers hold traced schemas, and are made once.
pub(super) struct Tables<'a> {
    core: &'a mut TaskCore,
    headers: Vec<StateHeader>,
    places: BTreeMap<(OperatorUid, String), usize>,
    point: &'a RestorePoint,
    range: KeyGroupRange,
    ignored: &'a IgnoreUnclaimed,
    local: Option<&'a LocalCopies>,
    progress: Option<&'a Progress>,
}

/// The blocks of one table that a file has for it.
struct Share {
    table: usize,
    blocks: Vec<BlockInfo>,
}

impl<'a> Tables<'a> {
    /// Of what files hold, the entries of the range are restored; states of the operators in `ignored` may be lost.
    pub(super) fn new(
        core: &'a mut TaskCore,
        point: &'a RestorePoint,
        range: KeyGroupRange,
        ignored: &'a IgnoreUnclaimed,
        local: Option<&'a LocalCopies>,
        progress: Option<&'a Progress>,
    ) -> Self {
        let headers: Vec<_> = core.states().iter().map(|state| state.header()).collect();
        let name = |header: &StateHeader| (header.operator.clone(), header.name.clone());
        let places = headers.iter().enumerate().map(|(place, header)| (name(header), place)).collect();
        Self { core, headers, places, point, range, ignored, local, progress }
    }

    /// Restores what the file holds of the range and of the operators that are `mine`. `before` is the header of the file that
    /// it may build on, and becomes its own.
    pub(super) fn restore(
        &mut self,
        file: &FileRef,
        overlap: Overlap,
        before: &mut Option<SnapshotHeader>,
        mine: impl Fn(&OperatorUid) -> bool,
    ) -> Result<(), RestoreError> {
        let (url, name) = (self.point.store.url(), file.name.clone());
        let reader = File::open(self.point, file, self.local, self.progress)?;
        let reader = reader.ok_or(RestoreError::Missing { url: url.clone(), name: name.clone() })?;
        let damaged = |source| RestoreError::File { url: url.clone(), name: name.clone(), source };
        let opened = reader.ask(|| {
            if reader.len() != file.bytes {
                let reason = format!("the file has {} bytes, the checkpoint names {}", reader.len(), file.bytes);
                return Err(StateError::Damaged { part: "file", offset: 0, reason: reason.into() });
            }
            let snapshot = SnapshotReader::open(&reader)?;
            self.check(file, snapshot.header(), before.as_ref())?;
            Ok(snapshot)
        });
        let snapshot = opened.map_err(damaged)?;
        *before = Some(snapshot.header().clone());
        let shares = self.shares(&snapshot, mine, &damaged)?;
        if let Some(progress) = self.progress {
            let sum = |blocks: &[BlockInfo]| blocks.iter().map(|block| u64::from(block.length)).sum::<u64>();
            let beside = file.bytes - sum(snapshot.blocks()); // header and index have been read
            progress
                .opened(overlap.of(file.bytes), beside + shares.iter().map(|share| sum(&share.blocks)).sum::<u64>());
            progress.restored(beside);
            reader.was_read(beside);
        }
        self.fill(&reader, &snapshot, &shares).map_err(damaged)
    }

    /// Whether the file is of this job and checkpoint, or of an earlier checkpoint that this one builds on.
    fn check(
        &self,
        file: &FileRef,
        header: &SnapshotHeader,
        before: Option<&SnapshotHeader>,
    ) -> Result<(), StateError> {
        let checkpoint = &self.point.checkpoint;
        let of = checkpoint_of_snapshot(&file.name).unwrap_or(checkpoint.checkpoint);
        if (header.checkpoint, &header.job) != (of, &checkpoint.job) || of > checkpoint.checkpoint {
            let reason = format!("the file is of checkpoint {} of job {}", header.checkpoint, header.job);
            return Err(StateError::Damaged { part: "header", offset: 0, reason: reason.into() });
        }
        header.check_follows(before)
    }

    /// What of the file goes into which table.
    fn shares(
        &self,
        snapshot: &SnapshotReader<'_>,
        mine: impl Fn(&OperatorUid) -> bool,
        damaged: &dyn Fn(StateError) -> RestoreError,
    ) -> Result<Vec<Share>, RestoreError> {
        let mut shares = Vec::new();
        for (place, header) in (0u16..).zip(&snapshot.header().states) {
            if !mine(&header.operator) {
                continue; // it runs in another task now: an exchange has come between operators that were fused
            }
            let Some(&table) = self.places.get(&(header.operator.clone(), header.name.clone())) else {
                // One without entries is dropped in silence, since nothing is lost.
                if self.ignored.covers(&header.operator) || snapshot.blocks().iter().all(|block| block.state != place) {
                    continue;
                }
                let (operator, state) = (header.operator.clone(), header.name.clone());
                return Err(RestoreError::UnknownState { operator, state, kind: header.kind.name() });
            };
            self.headers[table].check(header).map_err(damaged)?;
            let mut blocks: Vec<_> = snapshot.blocks_for(place, self.range).copied().collect();
            blocks.sort_by_key(|block| block.kind == BlockKind::Changed); // what was removed may have come back
            if !blocks.is_empty() {
                shares.push(Share { table, blocks });
            }
        }
        Ok(shares)
    }

    /// One thread reads ahead, this one fills the tables. Nothing is ahead of a single block.
    fn fill(&mut self, file: &File<'_>, snapshot: &SnapshotReader<'_>, shares: &[Share]) -> Result<(), StateError> {
        let mut states = self.core.states();
        let restored = |block: &BlockInfo| {
            if let Some(progress) = self.progress {
                progress.restored(block.length.into());
            }
        };
        for Share { table, blocks } in shares {
            let all = blocks.iter().filter(|block| block.kind == BlockKind::All);
            states[*table].reserve(all.map(|block| u64::from(block.entries)).sum());
        }
        match shares {
            [] => return Ok(()),
            [Share { table, blocks }] if blocks.len() == 1 => {
                states[*table].restore(&file.block(snapshot, &blocks[0], Vec::new())?, self.range)?;
                restored(&blocks[0]);
                return Ok(());
            }
            _ => {}
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<(usize, &BlockInfo, Result<Block, StateError>)>(BLOCKS_AHEAD);
            let (spent, buffers) = channel::<Vec<u8>>();
            scope.spawn(move || {
                for (table, block) in
                    shares.iter().flat_map(|share| share.blocks.iter().map(|block| (share.table, block)))
                {
                    let buffer = buffers.try_recv().unwrap_or_default();
                    if sender.send((table, block, file.block(snapshot, block, buffer))).is_err() {
                        return; // the other side has met an error
                    }
                }
            });
            for (table, info, block) in receiver {
                let block = block?;
                make_room(block.payload.len());
                states[table].restore(&block, self.range)?;
                restored(info);
                drop(spent.send(block.payload)); // after its last block the reader takes none
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use cutwater_coordinator::Phases;
    use cutwater_core::{SubtaskId, TaskId};

    use super::*;

    fn task(parallelism: u32) -> TaskPart {
        let part = |index| SubtaskSnapshot {
            subtask: SubtaskId { task: TaskId(0), index },
            files: vec![],
            inline: vec![],
            phases: Phases::default(),
            state_bytes: 0,
        };
        let subtasks = (0..parallelism).map(part).collect();
        TaskPart { task: TaskId(0), name: String::new(), operators: vec![], parallelism, subtasks, finished: vec![] }
    }

    /// Together they open not many more than there are, and none that a key group of theirs could be in is left out.
    #[test]
    fn each_subtask_opens_the_parts_that_its_key_groups_may_be_in_and_no_others() {
        let max = MaxParallelism::new(60).unwrap();
        for (before, after) in [(1, 1), (1, 60), (60, 1), (50, 50), (50, 49), (7, 3), (3, 7), (60, 60)] {
            let task = task(before);
            let (mut opened, mut expected) = (0, vec![0; before as usize]);
            for subtask in 0..after {
                let range = max.range_of(subtask, after);
                for part in &task.subtasks {
                    let own = max.range_of(part.subtask.index, before);
                    let shared = (0..60).any(|group| {
                        let in_range = |range: &KeyGroupRange| (range.first.0..=range.last.0).contains(&group);
                        in_range(&own) && in_range(&range)
                    });
                    let overlap = Overlap::find(max, &task, part, &range);
                    assert_eq!(overlap.is_some(), shared, "{part:?} of {before}, {subtask} of {after}");
                    opened += u32::from(shared);
                    expected[part.subtask.index as usize] += overlap.map_or(0, |overlap| overlap.of(60_000));
                }
            }
            assert!(opened < before + after, "{opened} from {before} to {after}");
            // Each byte once, but for what rounding takes.
            assert!(expected.iter().all(|bytes| (59_940..=60_000).contains(bytes)), "{expected:?}");
        }
    }

    #[test]
    fn a_record_that_makes_no_sense_is_left_to_the_check_of_the_file() {
        let max = MaxParallelism::new(4).unwrap();
        let (mut outside, mut above) = (task(2), task(5));
        outside.subtasks[1].subtask.index = 2;
        above.subtasks.truncate(1);
        for task in [outside, above] {
            let part = task.subtasks.last().unwrap();
            assert!(Overlap::find(max, &task, part, &max.range_of(0, 4)).is_some(), "{task:?}");
        }
    }
}
