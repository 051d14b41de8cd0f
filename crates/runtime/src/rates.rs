//! Rates and shares, from two looks at a job.

use std::time::Duration;

use cutwater_core::SubtaskId;

use crate::status::{JobStatus, SubtaskStatus};

/// What a job did between two looks at it: see [`JobStatus::rates_since`].
#[derive(Clone, Debug, PartialEq)]
pub struct JobRates {
    /// The time between the looks.
    pub elapsed: Duration,
    /// Records that the sources read, a second.
    pub records_in_per_second: f64,
    /// The subtasks, in order.
    pub subtasks: Vec<SubtaskRates>,
}

/// What a subtask did between two looks. The shares are parts of its time, from 0 to 1, and add up to 1; a subtask that has
/// not ended a quantum in between has them all at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubtaskRates {
    /// The subtask.
    pub subtask: SubtaskId,
    /// Records that it processed, or read, a second.
    pub records_per_second: f64,
    /// The share in which it worked.
    pub busy: f64,
    /// The share in which it waited for receivers to process what it had sent.
    pub backpressured: f64,
    /// The share in which it waited for something to do.
    pub idle: f64,
}

impl JobStatus {
    /// What the job did since an earlier look. `None` if it was no earlier one, or the attempt is not the same: counters begin
    /// anew with each attempt.
    #[must_use]
    pub fn rates_since(&self, earlier: &Self) -> Option<JobRates> {
        let elapsed = self.looked_at.since(earlier.looked_at);
        let same = (self.epoch, self.attempt) == (earlier.epoch, earlier.attempt) && self.attempt.is_some();
        if !same || elapsed.is_zero() || self.subtasks.len() != earlier.subtasks.len() {
            return None;
        }
        let of_subtask = |(now, then): (&SubtaskStatus, &SubtaskStatus)| now.rates_since(then, elapsed);
        Some(JobRates {
            elapsed,
            records_in_per_second: per_second(self.records_in, earlier.records_in, elapsed),
            subtasks: self.subtasks.iter().zip(&earlier.subtasks).map(of_subtask).collect(),
        })
    }
}

impl SubtaskStatus {
    fn rates_since(&self, earlier: &Self, elapsed: Duration) -> SubtaskRates {
        let spent = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64();
        let busy = spent(self.busy, earlier.busy);
        let backpressured = spent(self.backpressured, earlier.backpressured);
        let idle = spent(self.idle, earlier.idle);
        let all = busy + backpressured + idle;
        let share = |part: f64| if all > 0.0 { part / all } else { 0.0 };
        SubtaskRates {
            subtask: self.subtask,
            records_per_second: per_second(self.records, earlier.records, elapsed),
            busy: share(busy),
            backpressured: share(backpressured),
            idle: share(idle),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(now: u64, then: u64, elapsed: Duration) -> f64 {
    now.saturating_sub(then) as f64 / elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use cutwater_core::{Attempt, Epoch, Moment, TaskId, Timestamp};

    use super::*;

    fn status(millis: u64, attempt: u32, records: u64, busy: u64, backpressured: u64, idle: u64) -> JobStatus {
        let mut status = JobStatus::new("job");
        status.looked_at = Moment::from_millis(millis);
        (status.epoch, status.attempt) = (Some(Epoch(1)), Some(Attempt(attempt)));
        status.records_in = records;
        status.subtasks.push(SubtaskStatus {
            subtask: SubtaskId { task: TaskId(0), index: 0 },
            task: "source".to_owned(),
            records,
            watermark: Timestamp::MIN,
            busy: Duration::from_millis(busy),
            backpressured: Duration::from_millis(backpressured),
            idle: Duration::from_millis(idle),
        });
        status
    }

    #[test]
    fn rates_are_differences_within_one_attempt() {
        let first = status(1_000, 1, 100, 10, 10, 0);
        let rates = status(3_000, 1, 5_100, 510, 1_010, 500).rates_since(&first).unwrap();
        assert_eq!((rates.elapsed, rates.records_in_per_second), (Duration::from_secs(2), 2_500.0));
        let subtask = rates.subtasks[0];
        assert_eq!((subtask.busy, subtask.backpressured, subtask.idle), (0.25, 0.5, 0.25));
        let cases = [
            ("the same look", status(1_000, 1, 100, 10, 10, 0)),
            ("an earlier one", status(900, 1, 50, 5, 5, 0)),
            ("another attempt", status(3_000, 2, 5_100, 500, 1_000, 500)),
        ];
        for (name, later) in cases {
            assert_eq!(later.rates_since(&first), None, "{name}");
        }
        let stood = status(2_000, 1, 100, 10, 10, 0).rates_since(&first).unwrap();
        assert_eq!((stood.records_in_per_second, stood.subtasks[0].busy), (0.0, 0.0));
    }
}
