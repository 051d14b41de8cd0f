//! Durations, counted by size, by any number of threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps to each power of two: a quantile is at most 1/32 too high.
const STEPS: u32 = 5;
const BUCKETS: usize = 64 << STEPS;

/// Counts durations, without a lock.
pub(crate) struct Histogram {
    buckets: Vec<AtomicU64>,
    longest: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), longest: AtomicU64::new(0) }
    }

    pub(crate) fn note(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }

    /// The duration that a share `q` of all stay at or below, rounded up to the next step; zero if there are none.
    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let rank = (self.count() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= rank && seen > 0 {
                return Duration::from_nanos(highest(at)).min(self.longest());
            }
        }
        Duration::ZERO
    }
}

/// Below `2^STEPS` each number has a bucket, above it each power of two has `2^STEPS`.
fn bucket(nanos: u64) -> usize {
    let shift = (63 - (nanos | 1).leading_zeros()).saturating_sub(STEPS);
    ((u64::from(shift) << STEPS) + (nanos >> shift)) as usize
}

/// The highest number of a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket >> STEPS).saturating_sub(1);
    let low = (bucket - (shift << STEPS)) as u64;
    (low << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_lies_in_its_bucket_and_above_the_one_before() {
        let numbers = (0..4096).chain((12..62).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]));
        for nanos in numbers {
            let at = bucket(nanos);
            assert!(nanos <= highest(at), "{nanos} in bucket {at} up to {}", highest(at));
            assert!(at == 0 || nanos > highest(at - 1), "{nanos} in bucket {at} from {}", highest(at - 1));
        }
    }

    #[test]
    fn quantiles_are_at_most_a_step_too_high() {
        let histogram = Histogram::new();
        for nanos in 1..=100_000 {
            histogram.note(Duration::from_nanos(nanos));
        }
        for (q, exact) in [(0.5, 50_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let found = histogram.quantile(q).as_nanos() as f64;
            assert!(found >= exact && found <= exact * (1.0 + 1.0 / 32.0), "quantile {q}: {found}");
        }
        assert_eq!(histogram.longest(), Duration::from_nanos(100_000));
    }
}
