//! Measures the bare table on one thread: updates a second, the pause of a cut, sweep and restore.
//!
//! `cargo run --release -p cutwater-state --example table_bench [KEYS ...]`, by default 1e3, 1e6 and 1e7 keys. Other load
//! on the machine shows as noise: look at ratios within a run.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use cutwater_core::{KeyHash, MaxParallelism, OperatorUid};
use cutwater_state::{Block, Snapshotable, StateError, SweepProgress, Table, TableSpec, hash_key};

const BATCH: usize = 1024;

fn main() -> Result<(), StateError> {
    let keys: Vec<u64> = std::env::args().skip(1).map(|arg| arg.parse::<f64>().expect("a number") as u64).collect();
    for keys in if keys.is_empty() { vec![1_000, 1_000_000, 10_000_000] } else { keys } {
        updates(keys)?;
    }
    sweep_and_restore()
}

fn spec() -> TableSpec {
    let max_parallelism = MaxParallelism::default();
    let operator = OperatorUid::new("bench").expect("a valid uid");
    TableSpec { operator, name: "count".to_owned(), max_parallelism, key_groups: max_parallelism.all() }
}

/// Keys drawn uniformly, by splitmix64.
struct Draw(u64, u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(self.1)) >> 64) as u64
    }
}

struct Run {
    table: Table<u64, u64>,
    draw: Draw,
    keys: Vec<u64>,
    hashes: Vec<KeyHash>,
}

impl Run {
    fn batch(&mut self) -> Result<(), StateError> {
        let mut scratch = Vec::new();
        self.keys.clear();
        self.keys.extend((0..BATCH).map(|_| self.draw.next()));
        self.hashes.clear();
        self.hashes.extend(self.keys.iter().map(|key| hash_key(key, &mut scratch)));
        for (keys, hashes) in self.keys.chunks(256).zip(self.hashes.chunks(256)) {
            self.table.prefetch(hashes.iter().copied());
            for (key, &hash) in keys.iter().zip(hashes) {
                *self.table.get_or_insert_with(hash, key, || 0)? += 1;
            }
        }
        Ok(())
    }

    /// Runs batches for a while and returns the seconds of each.
    fn batches(&mut self, time: Duration) -> Result<Vec<f64>, StateError> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let before = Instant::now();
            self.batch()?;
            times.push(before.elapsed().as_secs_f64());
        }
        Ok(times)
    }
}

fn updates(keys: u64) -> Result<(), StateError> {
    let mut run = Run { table: Table::new(spec()), draw: Draw(1, keys), keys: Vec::new(), hashes: Vec::new() };
    let (mut scratch, start, mut slowest, mut last) = (Vec::new(), Instant::now(), 0.0_f64, Instant::now());
    for key in 0..keys {
        run.table.insert(hash_key(&key, &mut scratch), key, 0)?;
        if key % BATCH as u64 == 0 {
            slowest = slowest.max(last.elapsed().as_secs_f64());
            last = Instant::now();
        }
    }
    println!(
        "{keys} keys: filled at {:.1} M/s, slowest batch {:.0} us, {:.1} bytes/entry",
        keys as f64 / start.elapsed().as_secs_f64() / 1e6,
        slowest * 1e6,
        run.table.memory_bytes() as f64 / keys as f64
    );
    run.batches(Duration::from_millis(300))?;
    for round in 0..3 {
        report("  steady", run.batches(Duration::from_secs(1))?);
        let before = Instant::now();
        run.table.cut();
        let cut = before.elapsed();
        let (mut times, mut bytes, mut undo, mut sweeping) = (Vec::new(), 0, 0, true);
        while sweeping {
            let before = Instant::now();
            run.batch()?;
            times.push(before.elapsed().as_secs_f64());
            undo = undo.max(run.table.undo_bytes());
            let progress = run.table.sweep(32 << 10, &mut |block: Block| bytes += black_box(&block.payload).len())?;
            sweeping = progress == SweepProgress::More;
        }
        report(&format!("  round {round}: cut {cut:?}, {bytes} bytes, at most {undo} of undo; batches"), times);
    }
    Ok(())
}

fn report(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let total: f64 = times.iter().sum();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] * 1e6;
    println!(
        "{what}: {:.1} M/s; a batch p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0} us",
        (times.len() * BATCH) as f64 / total / 1e6,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn sweep_and_restore() -> Result<(), StateError> {
    let mut table: Table<u64, Vec<u8>> = Table::new(spec());
    let mut scratch = Vec::new();
    for key in 0..4_000_000_u64 {
        table.insert(hash_key(&key, &mut scratch), key, vec![key as u8; 100])?;
    }
    for _ in 0..3 {
        // Once as a running job does it, each block gone soon, and once to have blocks for the restore.
        const STEP: usize = 256 << 10;
        let (mut steps, mut more) = (Vec::new(), SweepProgress::More);
        let start = Instant::now();
        table.cut();
        while more == SweepProgress::More {
            let before = Instant::now();
            more = table.sweep(STEP, &mut |block| drop(black_box(block)))?;
            steps.push(before.elapsed().as_secs_f64() / STEP as f64);
        }
        let swept = start.elapsed().as_secs_f64();
        let mut blocks = Vec::new();
        table.cut();
        while table.sweep(STEP, &mut |block| blocks.push(block))? == SweepProgress::More {}
        let bytes: usize = blocks.iter().map(|block| block.payload.len()).sum();
        let start = Instant::now();
        let mut restored: Table<u64, Vec<u8>> = Table::new(spec());
        restored.reserve(blocks.iter().map(|block| u64::from(block.entries)).sum());
        let mut reads = Vec::new();
        for block in &blocks {
            let before = Instant::now();
            restored.restore(block, block.groups)?;
            reads.push(before.elapsed().as_secs_f64() / block.payload.len() as f64);
        }
        let took = start.elapsed().as_secs_f64();
        assert_eq!(restored.len(), table.len());
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            1.0 / times[times.len() / 2] / 1e6
        };
        println!(
            "{} MB of 100-byte values: sweep {:.0} MB/s (median step {:.0}), restore {:.0} MB/s (median block {:.0})",
            bytes / 1_000_000,
            bytes as f64 / swept / 1e6,
            median(steps),
            bytes as f64 / took / 1e6,
            median(reads)
        );
    }
    Ok(())
}
