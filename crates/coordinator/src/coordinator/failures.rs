use std::collections::BTreeSet;

use cutwater_core::CheckpointId;

/// Counts failures of checkpoints in a row. Source: Flink's `CheckpointFailureManager`.
///
/// - A checkpoint is counted once, however often it is said to have failed.
/// - One that is not above the last success is not counted.
/// - A success clears the count, and so does passing the limit.
#[derive(Clone, Debug, Hash)]
pub(crate) struct FailureCounter {
    tolerable: u32, // `u32::MAX`: all
    counted: BTreeSet<CheckpointId>,
    last_success: Option<CheckpointId>,
}

impl FailureCounter {
    pub(crate) fn new(tolerable: u32) -> Self {
        Self { tolerable, counted: BTreeSet::new(), last_success: None }
    }

    /// A counted failure. Returns how many there were in a row if that is too many.
    pub(crate) fn failed(&mut self, checkpoint: CheckpointId) -> Option<u32> {
        if self.tolerable == u32::MAX || Some(checkpoint) <= self.last_success {
            return None; // without a limit nothing is remembered, so that the set does not grow for ever
        }
        self.counted.insert(checkpoint);
        let failures = u32::try_from(self.counted.len()).unwrap_or(u32::MAX);
        if failures <= self.tolerable {
            return None;
        }
        self.counted.clear();
        Some(failures)
    }

    pub(crate) fn succeeded(&mut self, checkpoint: CheckpointId) {
        if Some(checkpoint) > self.last_success {
            self.last_success = Some(checkpoint);
            self.counted.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Event {
        Fail(u64),
        Succeed(u64),
    }
    use Event::{Fail, Succeed};

    #[test]
    fn failures_count_as_in_flink() {
        let cases: [(&str, u32, &[Event], &[usize]); 8] = [
            ("none tolerated: the first is too many", 0, &[Fail(1)], &[0]),
            ("two tolerated: the third is too many", 2, &[Fail(1), Fail(2), Fail(3)], &[2]),
            ("a success between them clears the count", 1, &[Fail(1), Succeed(2), Fail(3)], &[]),
            ("one checkpoint counts once", 1, &[Fail(1), Fail(1), Fail(1)], &[]),
            ("a failure below the last success is not counted", 0, &[Succeed(5), Fail(4), Fail(5), Fail(6)], &[3]),
            ("passing the limit clears the count", 1, &[Fail(1), Fail(2), Fail(3), Fail(4)], &[1, 3]),
            ("a late success of an older one clears nothing", 1, &[Succeed(5), Fail(6), Succeed(4), Fail(7)], &[3]),
            ("without a limit there are never too many", u32::MAX, &[Fail(1), Fail(2), Fail(3)], &[]),
        ];
        for (name, tolerable, events, expected) in cases {
            let mut counter = FailureCounter::new(tolerable);
            let mut exceeded = Vec::new();
            for (index, event) in events.iter().enumerate() {
                match *event {
                    Fail(id) => exceeded.extend(counter.failed(CheckpointId(id)).map(|_| index)),
                    Succeed(id) => counter.succeeded(CheckpointId(id)),
                }
            }
            assert_eq!(exceeded, expected, "{name}");
        }
    }
}
