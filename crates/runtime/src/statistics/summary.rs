use std::time::Duration;

use super::{CheckpointStatistics, CheckpointStatus};

/// How some values are spread. A percentile is the least value that at least so many of a hundred are not above, so it is
/// always one that was there. Source of the choice: Flink's checkpoint statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution<T> {
    /// The least.
    pub min: T,
    /// The greatest.
    pub max: T,
    /// The mean, rounded down.
    pub avg: T,
    /// Half of the values are not above it.
    pub p50: T,
    /// 95 of a hundred are not above it.
    pub p95: T,
    /// 99 of a hundred are not above it.
    pub p99: T,
}

/// The completed checkpoints of a history in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointStatisticsSummary {
    /// How many they are, at least one.
    pub checkpoints: u64,
    /// Their durations, from the start until all acknowledgements were in.
    pub duration: Distribution<Duration>,
    /// Bytes written for each.
    pub written_bytes: Distribution<u64>,
    /// Bytes of state of each.
    pub full_bytes: Distribution<u64>,
}

impl Distribution<u64> {
    /// Of these values; `None` if there are none.
    fn of(values: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        let (min, max) = (*values.first()?, *values.last()?);
        let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
        let avg = u64::try_from(sum / values.len() as u128).expect("a mean is not above the greatest");
        let percentile = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1];
        Some(Self { min, max, avg, p50: percentile(50), p95: percentile(95), p99: percentile(99) })
    }

    fn map<T>(self, of: impl Fn(u64) -> T) -> Distribution<T> {
        let Self { min, max, avg, p50, p95, p99 } = self;
        Distribution { min: of(min), max: of(max), avg: of(avg), p50: of(p50), p95: of(p95), p99: of(p99) }
    }
}

impl CheckpointStatisticsSummary {
    /// Of the completed ones among these; `None` if there are none.
    pub(super) fn of<'a>(checkpoints: impl Iterator<Item = &'a CheckpointStatistics>) -> Option<Self> {
        let completed: Vec<_> = checkpoints.filter(|it| it.status == CheckpointStatus::Completed).collect();
        let spread = |of: fn(&CheckpointStatistics) -> u64| Distribution::of(completed.iter().map(|it| of(it)));
        Some(Self {
            checkpoints: completed.len() as u64,
            duration: spread(|it| u64::try_from(it.duration.as_nanos()).unwrap_or(u64::MAX))?.map(Duration::from_nanos),
            written_bytes: spread(|it| it.written_bytes)?,
            full_bytes: spread(|it| it.full_bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_there() {
        let spread = |min, max, avg, p50, p95, p99| Some(Distribution { min, max, avg, p50, p95, p99 });
        let cases = [
            ("none", vec![], None),
            ("one", vec![7], spread(7, 7, 7, 7, 7, 7)),
            ("two", vec![9, 4], spread(4, 9, 6, 4, 9, 9)),
            ("ten", (1..=10).rev().collect(), spread(1, 10, 5, 5, 10, 10)),
            ("a hundred", (1..=100).collect(), spread(1, 100, 50, 50, 95, 99)),
            ("no sum overflows", vec![u64::MAX; 3], spread(u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX)),
        ];
        for (name, values, expected) in cases {
            assert_eq!(Distribution::of(values), expected, "{name}");
        }
    }
}
