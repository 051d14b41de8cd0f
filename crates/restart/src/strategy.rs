use std::time::Duration;

/// Flink's way of writing "without limit": the largest `int` of Java.
const UNLIMITED: u32 = i32::MAX as u32;

/// Whether a job that failed starts again, and after what delay. The rules are those of Flink 2.3.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// The first failure ends the job.
    None,
    /// The same delay before each of a number of restarts.
    FixedDelay {
        /// How many failures are forgiven in the whole life of the job; the count never goes back. `0` forgives none,
        /// `2147483647` is as good as unlimited.
        attempts: u32,
        /// From the failure to the restart; may be zero.
        delay: Duration,
    },
    /// Restarts as long as failures stay rare.
    FailureRate {
        /// How many failures any stretch of `interval` may hold; at least 1. One more ends the job.
        max_failures_per_interval: u32,
        /// The stretch of time in which failures are counted; above zero. Both its ends count: a failure exactly
        /// `interval` old is still inside.
        interval: Duration,
        /// From the failure to the restart; may be zero.
        delay: Duration,
    },
    /// Delays that grow from failure to failure, until the job has run well for a while.
    ExponentialDelay(ExponentialDelay),
}

/// The parameters of the exponential strategy. [`Default`] is Flink's (since 1.19).
///
/// The n-th failure in a row (n from 0) waits `initial_backoff * backoff_multiplier^n`, plus or minus the jitter, and
/// then never less than `initial_backoff` nor more than `max_backoff`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialDelay {
    /// The first delay and the least of all; at least 1 ms; 1 s by default.
    pub initial_backoff: Duration,
    /// The longest delay; at least `initial_backoff`; 1 min by default.
    pub max_backoff: Duration,
    /// By what the delay grows from one failure to the next; above 1; 1.5 by default.
    pub backoff_multiplier: f64,
    /// A failure at least this long after the last planned restart counts as the first again; at least 1 ms; 1 h by
    /// default.
    pub reset_backoff_threshold: Duration,
    /// The part of a delay by which it is lengthened or shortened at random, so that many jobs do not start at once;
    /// in `0.0..=1.0`; 0.1 by default.
    pub jitter_factor: f64,
    /// How many failures in a row are forgiven; at least 1; 2147483647 (as good as unlimited) by default.
    pub attempts_before_reset_backoff: u32,
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            backoff_multiplier: 1.5,
            reset_backoff_threshold: Duration::from_secs(3600),
            jitter_factor: 0.1,
            attempts_before_reset_backoff: UNLIMITED,
        }
    }
}

impl Strategy {
    /// What holds when checkpointing is on and nobody chose: 2147483647 restarts, each after 1 s.
    ///
    /// This is Flink's rule up to 1.18; newer ones take the exponential strategy.
    #[must_use]
    pub fn default_with_checkpointing() -> Self {
        Self::FixedDelay { attempts: UNLIMITED, delay: Duration::from_secs(1) }
    }

    /// What holds when checkpointing is off and nobody chose: no restart, since there is nothing to restart from.
    #[must_use]
    pub fn default_without_checkpointing() -> Self {
        Self::None
    }

    /// Checks every parameter against the range stated at it.
    ///
    /// # Errors
    ///
    /// [`InvalidStrategy`] with the first parameter that is out of range.
    pub fn validate(&self) -> Result<(), InvalidStrategy> {
        match self {
            Self::None | Self::FixedDelay { .. } => Ok(()),
            Self::FailureRate { max_failures_per_interval: 0, .. } => Err(InvalidStrategy::MaxFailures),
            Self::FailureRate { interval: Duration::ZERO, .. } => Err(InvalidStrategy::Interval),
            Self::FailureRate { .. } => Ok(()),
            Self::ExponentialDelay(parameters) => parameters.validate(),
        }
    }
}

impl ExponentialDelay {
    fn validate(&self) -> Result<(), InvalidStrategy> {
        const LEAST: Duration = Duration::from_millis(1);
        if self.initial_backoff < LEAST {
            return Err(InvalidStrategy::InitialBackoff { given: self.initial_backoff });
        }
        if self.max_backoff < self.initial_backoff {
            return Err(InvalidStrategy::MaxBackoff { given: self.max_backoff, initial: self.initial_backoff });
        }
        if !(self.backoff_multiplier > 1.0 && self.backoff_multiplier.is_finite()) {
            return Err(InvalidStrategy::Multiplier { given: self.backoff_multiplier });
        }
        if self.reset_backoff_threshold < LEAST {
            return Err(InvalidStrategy::ResetThreshold { given: self.reset_backoff_threshold });
        }
        if !(0.0..=1.0).contains(&self.jitter_factor) {
            return Err(InvalidStrategy::Jitter { given: self.jitter_factor });
        }
        if self.attempts_before_reset_backoff == 0 {
            return Err(InvalidStrategy::Attempts);
        }
        Ok(())
    }
}

/// A parameter of a [`Strategy`] is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStrategy {
    /// A failure rate that forgives nothing.
    #[error("failure rate: max failures per interval is 0, give at least 1 or the strategy `none`")]
    MaxFailures,
    /// A failure rate over no time.
    #[error("failure rate: the interval is zero, give a longer one")]
    Interval,
    /// The first delay is too short.
    #[error("exponential delay: the initial backoff is {given:?}, give at least 1 ms")]
    InitialBackoff {
        /// As given.
        given: Duration,
    },
    /// The longest delay is shorter than the first.
    #[error("exponential delay: the maximum backoff {given:?} is below the initial backoff {initial:?}")]
    MaxBackoff {
        /// As given.
        given: Duration,
        /// What it must reach.
        initial: Duration,
    },
    /// Delays would not grow.
    #[error("exponential delay: the backoff multiplier is {given}, give a finite number above 1")]
    Multiplier {
        /// As given.
        given: f64,
    },
    /// Each failure would count as the first.
    #[error("exponential delay: the reset threshold is {given:?}, give at least 1 ms")]
    ResetThreshold {
        /// As given.
        given: Duration,
    },
    /// Jitter is a part of the delay.
    #[error("exponential delay: the jitter factor is {given}, give one from 0 to 1")]
    Jitter {
        /// As given.
        given: f64,
    },
    /// A strategy that forgives nothing.
    #[error("exponential delay: attempts before reset is 0, give at least 1 or the strategy `none`")]
    Attempts,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(change: impl FnOnce(&mut ExponentialDelay)) -> Strategy {
        let mut parameters = ExponentialDelay::default();
        change(&mut parameters);
        Strategy::ExponentialDelay(parameters)
    }

    fn rate(max_failures_per_interval: u32, interval: Duration) -> Strategy {
        Strategy::FailureRate { max_failures_per_interval, interval, delay: Duration::ZERO }
    }

    #[test]
    fn parameters_are_checked_at_the_edges_of_their_ranges() {
        use InvalidStrategy as No;
        let (micro, milli, second) = (Duration::from_micros(999), Duration::from_millis(1), Duration::from_secs(1));
        let below = Duration::from_millis(999);
        let cases = [
            ("none has no parameters", Strategy::None, None),
            ("no attempt is a way to say none", Strategy::FixedDelay { attempts: 0, delay: second }, None),
            ("one failure a nanosecond", rate(1, Duration::from_nanos(1)), None),
            ("no failure in an interval", rate(0, second), Some(No::MaxFailures)),
            ("failures in no interval", rate(1, Duration::ZERO), Some(No::Interval)),
            ("the defaults", exponential(|_| ()), None),
            ("the least initial backoff", exponential(|p| p.initial_backoff = milli), None),
            ("less", exponential(|p| p.initial_backoff = micro), Some(No::InitialBackoff { given: micro })),
            ("maximum equal to initial", exponential(|p| p.max_backoff = second), None),
            (
                "maximum below initial",
                exponential(|p| p.max_backoff = below),
                Some(No::MaxBackoff { given: below, initial: second }),
            ),
            ("it hardly grows", exponential(|p| p.backoff_multiplier = 1.000_001), None),
            ("it does not grow", exponential(|p| p.backoff_multiplier = 1.0), Some(No::Multiplier { given: 1.0 })),
            (
                "it grows at once",
                exponential(|p| p.backoff_multiplier = f64::INFINITY),
                Some(No::Multiplier { given: f64::INFINITY }),
            ),
            ("the least threshold", exponential(|p| p.reset_backoff_threshold = milli), None),
            (
                "no threshold",
                exponential(|p| p.reset_backoff_threshold = micro),
                Some(No::ResetThreshold { given: micro }),
            ),
            ("no jitter", exponential(|p| p.jitter_factor = 0.0), None),
            ("all jitter", exponential(|p| p.jitter_factor = 1.0), None),
            ("more than all", exponential(|p| p.jitter_factor = 1.01), Some(No::Jitter { given: 1.01 })),
            ("jitter below zero", exponential(|p| p.jitter_factor = -0.1), Some(No::Jitter { given: -0.1 })),
            ("one attempt", exponential(|p| p.attempts_before_reset_backoff = 1), None),
            ("no attempt", exponential(|p| p.attempts_before_reset_backoff = 0), Some(No::Attempts)),
        ];
        for (name, strategy, refused) in cases {
            assert_eq!(strategy.validate().err(), refused, "{name}");
        }
        assert!(exponential(|p| p.jitter_factor = f64::NAN).validate().is_err());
        assert!(exponential(|p| p.backoff_multiplier = f64::NAN).validate().is_err());
    }

    #[test]
    fn defaults_are_those_of_the_documents() {
        let on = Strategy::FixedDelay { attempts: 2_147_483_647, delay: Duration::from_secs(1) };
        assert_eq!(Strategy::default_with_checkpointing(), on);
        assert_eq!(Strategy::default_without_checkpointing(), Strategy::None);
    }
}
