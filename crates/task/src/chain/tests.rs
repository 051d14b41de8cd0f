use cutwater_core::{MaxParallelism, OperatorUid};
use cutwater_state::{SweepProgress, Table, TableSpec, hash_key};

use super::*;

struct Snapshots {
    table: Table<u32, u64>,
    chains: Chains,
    next: u64,
}

impl Snapshots {
    fn new(limits: DeltaLimits, restored: Option<&RestoredBase>) -> Self {
        let max_parallelism = MaxParallelism::default();
        let operator = OperatorUid::new("operator").unwrap();
        let spec = TableSpec { operator, name: "state".to_owned(), max_parallelism, key_groups: max_parallelism.all() };
        let mut table = Table::new(spec);
        for key in 0..10_000_u32 {
            table.insert(hash_key(&key, &mut Vec::new()), key, 0).unwrap();
        }
        table.track_changes();
        Self { table, chains: Chains::new(limits, restored), next: 1 }
    }

    /// Changes so many entries, then takes a snapshot that may build on `base`: what it builds on, and how many entries it has.
    fn take(&mut self, changes: u32, base: Option<u64>) -> (Option<Base>, u32) {
        for key in 0..changes {
            *self.table.get_mut(hash_key(&key, &mut Vec::new()), &key).unwrap().unwrap() += 1;
        }
        let checkpoint = CheckpointId(self.next);
        self.next += 1;
        let planned = self.chains.plan(base.map(CheckpointId), &mut [&mut self.table]);
        let cut = self.table.cut_since(planned.since);
        let (mut bytes, mut entries) = (0, 0);
        let mut take = |block: cutwater_state::Block| {
            bytes += block.payload.len() as u64;
            entries += block.entries;
        };
        while self.table.sweep(100_000, &mut take).unwrap() == SweepProgress::More {}
        self.chains.taken(checkpoint, cut, &planned, bytes);
        (planned.base, entries)
    }
}

fn on(checkpoint: u64) -> Option<Base> {
    Some(Base { checkpoint: CheckpointId(checkpoint), only_full: false })
}

#[test]
fn a_snapshot_builds_on_the_checkpoint_that_the_barrier_names() {
    let mut snapshots = Snapshots::new(DeltaLimits::default(), None);
    assert_eq!(snapshots.take(10, None), (None, 10_000), "nothing to build on");
    assert_eq!(snapshots.take(10, Some(1)), (on(1), 10));
    assert_eq!(snapshots.take(20, Some(1)), (on(1), 20), "2 came to nothing, or is not known yet");
    assert_eq!(snapshots.take(5, Some(2)), (on(2), 20), "what 3 has had and more");
    assert_eq!(snapshots.take(5, None), (None, 10_000), "none named: a savepoint");
    assert_eq!(snapshots.take(5, Some(4)), (on(4), 5));
    assert_eq!(snapshots.take(5, Some(3)), (None, 10_000), "bases rise: it is forgotten");
    assert_eq!(snapshots.take(5, Some(99)), (None, 10_000), "no snapshot of this attempt");
    assert_eq!(snapshots.take(0, Some(8)), (on(8), 0));
    assert_eq!(snapshots.take(1, Some(9)), (on(9), 1));
}

#[test]
fn a_full_one_is_taken_when_the_changes_are_too_many() {
    let mut snapshots = Snapshots::new(DeltaLimits { longest: 16, percent: 20 }, None);
    snapshots.take(0, None);
    assert_eq!(snapshots.take(2_100, Some(1)), (None, 10_000), "more than a fifth");
    assert_eq!(snapshots.take(900, Some(2)), (on(2), 900));
    assert_eq!(snapshots.take(900, Some(3)), (on(3), 900));
    assert_eq!(snapshots.take(900, Some(4)), (None, 10_000), "together they would be");
}

#[test]
fn a_long_chain_is_compacted() {
    let mut snapshots = Snapshots::new(DeltaLimits { longest: 3, percent: 20 }, None);
    snapshots.take(0, None);
    for n in 1..=3 {
        assert_eq!(snapshots.take(100, Some(n)), (on(n), 100));
    }
    let compacted = Some(Base { checkpoint: CheckpointId(4), only_full: true });
    assert_eq!(snapshots.take(100, Some(4)), (compacted, 100), "all that has changed since the full one, once");
    assert_eq!(snapshots.take(10, Some(5)), (on(5), 10));
}

#[test]
fn what_was_restored_can_be_built_on() {
    let restored = |files: &[u64]| RestoredBase { checkpoint: CheckpointId(7), files: files.to_vec() };
    let limits = DeltaLimits { longest: 3, percent: 20 };
    let take = |files: &[u64], base| {
        let mut snapshots = Snapshots::new(limits, Some(&restored(files)));
        snapshots.next = 8;
        snapshots.take(100, base).0
    };
    assert_eq!(take(&[200_000], Some(7)), on(7));
    assert_eq!(take(&[200_000, 1_000, 500], Some(7)), on(7));
    assert_eq!(take(&[200_000], Some(6)), None, "of another checkpoint");
    assert_eq!(take(&[200_000, 39_000], Some(7)), None, "too much together");
    assert_eq!(
        take(&[200_000, 1, 1, 1], Some(7)),
        None,
        "too long, and what has changed since the full one is not known"
    );
    assert_eq!(take(&[], Some(7)), None, "nothing");
}
