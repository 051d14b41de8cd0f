//! The input of all cases: first every key once, then pseudo-random keys for as long as the gate is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cutwater::{ReadStatus, Source, SourceOutput, SplitReader, UserError};

/// How long a source of few splits waits behind a closed gate before it looks again.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// Records are 64 pseudo-random bits, which serve as the value; their key is [`key_of`] them.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) keys: u64,
    pub(crate) gate: Arc<Gate>,
    /// Whether low keys are drawn more often: the logarithm of the key is uniform.
    pub(crate) skewed: bool,
}

/// What the benchmark tells the sources, and they it.
#[derive(Default)]
pub(crate) struct Gate {
    /// Whether records flow once all keys have been seen.
    open: AtomicBool,
    filled: AtomicU64,
    /// How many keys, all different, each split may have touched in bursts.
    burst: AtomicU64,
}

impl Gate {
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// Lets each split touch so many further keys, none of them twice, spread over all of them. Behind a closed gate.
    pub(crate) fn burst(&self, keys_each: u64) {
        self.burst.fetch_add(keys_each, Ordering::Relaxed);
    }

    /// How many splits of an attempt that began at nothing have emitted all their keys.
    pub(crate) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }
}

/// The key of a record: uniform over `0..keys` if the record is uniform.
#[inline]
pub(crate) fn key_of(record: u64, keys: u64) -> u64 {
    ((u128::from(record) * u128::from(keys)) >> 64) as u64
}

/// The least record with this key.
fn record_of(key: u64, keys: u64) -> u64 {
    (u128::from(key) << 64).div_ceil(u128::from(keys)) as u64
}

/// A record whose key has a uniform logarithm, made of one that is uniform.
pub(crate) fn skewed(record: u64, keys: u64) -> u64 {
    let uniform = (record >> 11) as f64 / (1_u64 << 53) as f64;
    record_of(((keys as f64).powf(uniform) as u64 - 1).min(keys - 1), keys)
}

/// The `at`-th number of the splitmix64 sequence that starts at `seed` (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", OOPSLA 2014).
#[inline]
pub(crate) fn splitmix64(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Source for Keys {
    type Record = u64;
    type Position = u64;
    type Reader = KeysReader;

    fn splits(&self, parallelism: u32) -> Result<Vec<String>, UserError> {
        Ok((0..parallelism).map(|split| format!("{split:05} of {parallelism}")).collect())
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<KeysReader, UserError> {
        let parts = split.split_once(" of ").and_then(|(at, of)| Some((at.parse().ok()?, of.parse().ok()?)));
        let Some((first, step)) = parts.filter(|(at, of): &(u64, u64)| at < of) else {
            return Err(format!("{split:?} is not a split of this source").into());
        };
        Ok(KeysReader {
            keys: self.keys,
            gate: Arc::clone(&self.gate),
            skewed: self.skewed,
            first,
            step,
            share: self.keys.saturating_sub(first).div_ceil(step),
            emitted: position.copied().unwrap_or(0),
            touched: 0,
        })
    }
}

/// Reads one split of [`Keys`]: the keys `first`, `first + step`, ... once, then any.
pub(crate) struct KeysReader {
    keys: u64,
    gate: Arc<Gate>,
    skewed: bool,
    first: u64,
    step: u64,
    share: u64,
    emitted: u64,
    /// In bursts.
    touched: u64,
}

impl KeysReader {
    /// All splits together look about as often, however many there are.
    fn look_again(&self) -> Duration {
        let splits = u32::try_from(self.step).unwrap_or(u32::MAX);
        LOOK_AGAIN * (splits / 8).max(1)
    }
}

/// Keys that follow each other in a burst are so far apart: a prime, so that none comes twice.
const STRIDE: u64 = 2_654_435_761;

impl SplitReader for KeysReader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let room = out.room() as u64;
        if self.emitted < self.share {
            for _ in 0..room.min(self.share - self.emitted) {
                out.emit(record_of(self.first + self.emitted * self.step, self.keys));
                self.emitted += 1;
            }
            if self.emitted == self.share {
                self.gate.filled.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(ReadStatus::More);
        }
        let burst = self.gate.burst.load(Ordering::Relaxed);
        if self.touched < burst {
            for _ in 0..room.min(burst - self.touched) {
                let at = u128::from(self.first + self.touched * self.step) * u128::from(STRIDE);
                out.emit(record_of((at % u128::from(self.keys)) as u64, self.keys));
                self.touched += 1;
            }
            return Ok(ReadStatus::More);
        }
        if !self.gate.open.load(Ordering::Relaxed) {
            return Ok(ReadStatus::WaitUntil(out.now() + self.look_again()));
        }
        for at in self.emitted..self.emitted + room {
            let record = splitmix64(self.first, at);
            out.emit(if self.skewed { skewed(record, self.keys) } else { record });
        }
        self.emitted += room;
        Ok(ReadStatus::More)
    }

    fn position(&self) -> u64 {
        self.emitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_is_the_published_sequence() {
        let found = [0, 1, 2].map(|at| splitmix64(1_234_567, at));
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn skewed_records_have_low_keys_more_often_and_every_key_is_in_range() {
        let keys = 1_000_000;
        let found: Vec<u64> = (0..100_000).map(|at| key_of(skewed(splitmix64(0, at), keys), keys)).collect();
        let below = |end| found.iter().filter(|key| **key < end).count();
        // A sixth of them for each digit more.
        assert!((16_000..17_400).contains(&below(9)), "{}", below(9));
        assert!((49_000..51_000).contains(&below(999)), "{}", below(999));
        assert_eq!(below(keys), found.len());
    }

    #[test]
    fn a_burst_touches_no_key_twice() {
        let (keys, parallelism) = (10_007, 3);
        let gate = Arc::new(Gate::default());
        let source = Keys { keys, gate: Arc::clone(&gate), skewed: false };
        let mut readers: Vec<_> =
            source.splits(parallelism).unwrap().iter().map(|split| source.open(split, Some(&keys)).unwrap()).collect();
        let mut seen = std::collections::BTreeSet::new();
        for round in 1..=3 {
            gate.burst(1_000);
            for reader in &mut readers {
                let mut out = SourceOutput::new(300);
                while reader.read(&mut out).unwrap() == ReadStatus::More {
                    seen.extend(out.take().into_iter().map(|(_, record)| key_of(record, keys)));
                }
            }
            assert_eq!(seen.len(), round * 3_000);
        }
    }

    #[test]
    fn filling_meets_each_key_once_over_all_splits() {
        for (keys, parallelism) in [(1, 1), (1, 3), (1_000, 1), (1_000, 3), (5_000, 2)] {
            let gate = Arc::new(Gate::default());
            let source = Keys { keys, gate: Arc::clone(&gate), skewed: false };
            let mut seen = Vec::new();
            for split in source.splits(parallelism).unwrap() {
                let mut reader = source.open(&split, None).unwrap();
                let mut out = SourceOutput::new(1024);
                while reader.read(&mut out).unwrap() == ReadStatus::More {
                    seen.extend(out.take().into_iter().map(|(_, record)| key_of(record, keys)));
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..keys).collect::<Vec<_>>(), "{keys} keys in {parallelism} splits");
        }
    }
}
