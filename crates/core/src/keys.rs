use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// XXH3 (64 bits, seed 0) of an encoded key. Computed once, where the record is keyed; batches carry it.
///
/// The hash is of the *encoded bytes*, never of `std::hash::Hash`, whose byte feed may change between compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Hashes the encoded key.
    #[must_use]
    #[inline]
    pub fn of(encoded: &[u8]) -> Self {
        Self(xxh3_64(encoded))
    }

    /// The group of the key: `hash * max_parallelism >> 64`, so that groups are contiguous ranges of hashes in order.
    #[must_use]
    #[inline]
    pub fn group(self, max: MaxParallelism) -> KeyGroup {
        let scaled = (u128::from(self.0) * u128::from(max.0)) >> 64;
        KeyGroup(u16::try_from(scaled).expect("less than the maximum parallelism, which is at most 32768"))
    }
}

/// The unit in which keyed state moves between subtasks, in `0..max_parallelism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The subtask that owns this group, in `0..parallelism`; the inverse of [`MaxParallelism::range_of`].
    ///
    /// Subtasks own contiguous ranges whose sizes differ by at most one, so that a rescaled subtask restores by reading
    /// whole ranges. Source: Carbone et al., "State Management in Apache Flink", PVLDB 10(12), 2017.
    ///
    /// # Panics
    ///
    /// If `parallelism` is zero or above `max`.
    ///
    /// ```
    /// # use cutwater_core::{KeyGroup, MaxParallelism};
    /// assert_eq!(KeyGroup(127).owner(MaxParallelism::new(128).unwrap(), 4), 3);
    /// ```
    #[must_use]
    #[inline]
    pub fn owner(self, max: MaxParallelism, parallelism: u32) -> u32 {
        assert!((1..=u32::from(max.0)).contains(&parallelism), "parallelism {parallelism} is not in 1..={}", max.0);
        u32::from(self.0) * parallelism / u32::from(max.0)
    }

    /// The smallest hash of this group.
    #[must_use]
    pub fn first_hash(self, max: MaxParallelism) -> KeyHash {
        let scaled = (u128::from(self.0) << 64).div_ceil(u128::from(max.0));
        KeyHash(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key group {}", self.0)
    }
}

/// Key groups `first..=last`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group.
    pub first: KeyGroup,
    /// The last group, included.
    pub last: KeyGroup,
}

impl KeyGroupRange {
    /// Whether the group is in the range.
    #[must_use]
    #[inline]
    pub fn contains(&self, group: KeyGroup) -> bool {
        self.first <= group && group <= self.last
    }

    /// Whether the two ranges share a group.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many groups.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.last.0) - u32::from(self.first.0) + 1
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key groups {}..={}", self.first.0, self.last.0)
    }
}

/// How many key groups a job has, and so its largest parallelism: 1 to 32768, 128 unless said. Fixed at the first start
/// and stored in every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MaxParallelism(u16);

impl MaxParallelism {
    /// Checks the number.
    ///
    /// # Errors
    ///
    /// [`InvalidMaxParallelism`] unless `1 <= count <= 32768`.
    pub fn new(count: u32) -> Result<Self, InvalidMaxParallelism> {
        match u16::try_from(count) {
            Ok(valid) if (1..=32768).contains(&count) => Ok(Self(valid)),
            _ => Err(InvalidMaxParallelism { count }),
        }
    }

    /// The number.
    #[must_use]
    #[inline]
    pub fn count(self) -> u32 {
        u32::from(self.0)
    }

    /// All key groups.
    #[must_use]
    pub fn all(self) -> KeyGroupRange {
        KeyGroupRange { first: KeyGroup(0), last: KeyGroup(self.0 - 1) }
    }

    /// The key groups that a subtask owns.
    ///
    /// # Panics
    ///
    /// If `parallelism` is above the maximum, or `subtask` not below `parallelism`.
    #[must_use]
    pub fn range_of(self, subtask: u32, parallelism: u32) -> KeyGroupRange {
        let max = u32::from(self.0);
        assert!(subtask < parallelism && parallelism <= max, "subtask {subtask} of {parallelism}, at most {max}");
        let first = (subtask * max).div_ceil(parallelism);
        let end = ((subtask + 1) * max).div_ceil(parallelism);
        let group = |n: u32| KeyGroup(u16::try_from(n).expect("below the maximum parallelism"));
        KeyGroupRange { first: group(first), last: group(end - 1) }
    }
}

impl Default for MaxParallelism {
    fn default() -> Self {
        Self(128)
    }
}

impl TryFrom<u32> for MaxParallelism {
    type Error = InvalidMaxParallelism;

    fn try_from(count: u32) -> Result<Self, InvalidMaxParallelism> {
        Self::new(count)
    }
}

impl From<MaxParallelism> for u32 {
    fn from(max: MaxParallelism) -> u32 {
        max.count()
    }
}

/// A number of key groups out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMaxParallelism {
    /// The number as given.
    pub count: u32,
}

impl fmt::Display for InvalidMaxParallelism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "maximum parallelism {} is not in 1..=32768", self.count)
    }
}

impl std::error::Error for InvalidMaxParallelism {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_xxh3_for_ever() {
        assert_eq!(KeyHash::of(b"").0, 0x2d06_8005_38d3_94c2);
        assert_eq!(KeyHash::of(b"JFK-LAX"), KeyHash(xxh3_64(b"JFK-LAX")));
    }

    #[test]
    fn the_ends_of_the_hash_range_fall_into_the_end_groups() {
        for count in [1, 2, 3, 127, 128, 1000, 32768] {
            let max = MaxParallelism::new(count).unwrap();
            assert_eq!(KeyHash(0).group(max), max.all().first);
            assert_eq!(KeyHash(u64::MAX).group(max), max.all().last);
        }
    }

    proptest! {
        #[test]
        fn every_group_has_one_owner_and_lies_in_its_range(max in 1u32..=32768, p in 1u32..=32768, g in 0u32..32768) {
            let (p, g) = (p.min(max), g.min(max - 1));
            let max = MaxParallelism::new(max).unwrap();
            let group = KeyGroup(u16::try_from(g).unwrap());
            let owner = group.owner(max, p);
            prop_assert!(owner < p);
            prop_assert!(max.range_of(owner, p).contains(group));
        }

        #[test]
        fn ranges_tile_the_groups(max in 1u32..=2000, p in 1u32..=2000) {
            let p = p.min(max);
            let max = MaxParallelism::new(max).unwrap();
            let mut next = 0;
            for subtask in 0..p {
                let range = max.range_of(subtask, p);
                prop_assert_eq!(u32::from(range.first.0), next);
                prop_assert!(range.count() >= max.count() / p && range.count() <= max.count().div_ceil(p));
                next += range.count();
            }
            prop_assert_eq!(next, max.count());
        }

        #[test]
        fn a_group_begins_at_its_first_hash(max in 1u32..=32768, g in 0u32..32768) {
            let g = g.min(max - 1);
            let max = MaxParallelism::new(max).unwrap();
            let group = KeyGroup(u16::try_from(g).unwrap());
            let first = group.first_hash(max);
            prop_assert_eq!(first.group(max), group);
            if first.0 > 0 {
                prop_assert!(KeyHash(first.0 - 1).group(max) < group);
            }
        }
    }
}
