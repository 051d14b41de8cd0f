use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use cutwater_core::Moment;

use crate::rng::SplitMix64;
use crate::{ExponentialDelay, InvalidStrategy, Strategy};

#[cfg(test)]
mod tests;

/// Whether starting again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// A restart may get past it: a lost disk, a panic on a rare interleaving, an error nobody classified.
    Recoverable,
    /// It will come again: a state written with another type, a checkpoint of another job. The strategy is not asked.
    NonRecoverable,
}

/// What the caller does next, in the order polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop what is left of the job; it starts again at `at`, when [`Restarter::handle_timeout`] says so. Takes the
    /// place of a restart scheduled before.
    Restart {
        /// When the job starts again.
        at: Moment,
        /// Which restart of the job this is, from 1; one that takes the place of another counts too.
        attempt: u32,
        /// From the failure to `at`.
        delay: Duration,
    },
    /// The failure belongs to the restart already scheduled: nothing new is counted or delayed.
    Merged {
        /// When the job starts again, as before.
        at: Moment,
    },
    /// Start the job now, and report [`Restarter::handle_restarted`] when it runs.
    Start {
        /// The number its [`Action::Restart`] had.
        attempt: u32,
    },
    /// End the job as failed. No action follows.
    GiveUp {
        /// Why it does not start again.
        reason: GiveUp,
    },
}

/// Why a job does not start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// The strategy is [`Strategy::None`].
    NoStrategy,
    /// As many failures as there are attempts were forgiven already.
    AttemptsExhausted {
        /// The limit of the strategy.
        attempts: u32,
    },
    /// Too many failures in too short a time.
    RateExceeded {
        /// How many the strategy forgives.
        max_failures: u32,
        /// In what time.
        interval: Duration,
    },
    /// The failure was [`FailureClass::NonRecoverable`].
    NonRecoverable,
    /// The job makes no progress, and is to be stopped then: see [`ProgressWatch`](crate::ProgressWatch).
    NoProgress {
        /// After how many failures or restores in a row.
        attempts: u32,
    },
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStrategy => f.write_str("the restart strategy is none"),
            Self::AttemptsExhausted { attempts } => write!(f, "all {attempts} restart attempts are used up"),
            Self::RateExceeded { max_failures, interval } => {
                write!(f, "more than {max_failures} failures within {interval:?}")
            }
            Self::NonRecoverable => f.write_str("the failure is one that no restart can mend"),
            Self::NoProgress { attempts } => write!(f, "no progress in {attempts} attempts in a row"),
        }
    }
}

/// One strategy at work for one job.
///
/// The driver reports each failure of the running attempt, performs the actions and wakes it at its deadline. When one
/// failure brings others about (a worker falls, its peers lose their channels), the driver reports the first only: but
/// for the exponential strategy, each report counts, as in Flink.
#[derive(Clone, Debug)]
pub struct Restarter {
    policy: Policy,
    state: State,
    restarts: u32, // scheduled so far, over the whole life of the job
    actions: VecDeque<Action>,
}

/// A strategy and what it remembers.
#[derive(Clone, Debug)]
enum Policy {
    None,
    FixedDelay { attempts: u32, delay: Duration, failures: u32 },
    FailureRate { max: u32, interval: Duration, delay: Duration, recent: VecDeque<Moment> },
    Exponential(Box<Backoff>),
}

#[derive(Clone, Debug)]
struct Backoff {
    parameters: ExponentialDelay,
    attempts: u32,           // failures counted since the last reset
    next: f64,               // seconds of the next delay, before jitter and bounds
    planned: Option<Moment>, // the last restart as it was scheduled
    rng: SplitMix64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Waiting { at: Moment, attempt: u32 },
    Restarting,
    Ended,
}

enum Verdict {
    After(Duration),
    Merge,
    Refuse(GiveUp),
}

impl Restarter {
    /// For a job that is about to run for the first time. `seed` decides the jitter.
    ///
    /// # Errors
    ///
    /// [`InvalidStrategy`] if a parameter is out of its range.
    pub fn new(strategy: Strategy, seed: u64) -> Result<Self, InvalidStrategy> {
        strategy.validate()?;
        let policy = match strategy {
            Strategy::None => Policy::None,
            Strategy::FixedDelay { attempts, delay } => Policy::FixedDelay { attempts, delay, failures: 0 },
            Strategy::FailureRate { max_failures_per_interval: max, interval, delay } => {
                Policy::FailureRate { max, interval, delay, recent: VecDeque::new() }
            }
            Strategy::ExponentialDelay(parameters) => Policy::Exponential(Box::new(Backoff::new(parameters, seed))),
        };
        Ok(Self { policy, state: State::Running, restarts: 0, actions: VecDeque::new() })
    }

    /// The job, or its start, has failed. Ignored after [`Action::GiveUp`].
    ///
    /// A failure while a restart is scheduled counts like any other and moves that restart; with the exponential
    /// strategy it merges into it instead.
    pub fn handle_failure(&mut self, now: Moment, class: FailureClass) {
        if self.state == State::Ended {
            return;
        }
        let verdict = match class {
            FailureClass::Recoverable => self.policy.judge(now),
            FailureClass::NonRecoverable => Verdict::Refuse(GiveUp::NonRecoverable),
        };
        match verdict {
            Verdict::After(delay) => self.schedule(now, delay),
            Verdict::Merge => self.merge(now),
            Verdict::Refuse(reason) => {
                self.state = State::Ended;
                self.actions.push_back(Action::GiveUp { reason });
            }
        }
    }

    /// The job makes no progress and is to be stopped: gives [`Action::GiveUp`], whatever the strategy. Ignored after
    /// [`Action::GiveUp`].
    pub fn handle_no_progress(&mut self, attempts: u32) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.actions.push_back(Action::GiveUp { reason: GiveUp::NoProgress { attempts } });
        }
    }

    /// The job runs again. Ignored unless [`Action::Start`] was given and nothing failed since.
    ///
    /// No strategy of today looks at `now`: a backoff is reset by the time since the *planned* restart.
    pub fn handle_restarted(&mut self, _now: Moment) {
        if self.state == State::Restarting {
            self.state = State::Running;
        }
    }

    /// Gives [`Action::Start`] if a restart is due at `now`; otherwise changes nothing.
    pub fn handle_timeout(&mut self, now: Moment) {
        if let State::Waiting { at, attempt } = self.state
            && at <= now
        {
            self.state = State::Restarting;
            self.actions.push_back(Action::Start { attempt });
        }
    }

    /// The next thing to do. Drain to `None` after each `handle_*` call, before the next one.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` if no restart is scheduled.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.state {
            State::Waiting { at, .. } => Some(at),
            State::Running | State::Restarting | State::Ended => None,
        }
    }

    /// Restarts scheduled so far, over the whole life of the job.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether the job was given up.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.state == State::Ended
    }

    fn schedule(&mut self, now: Moment, delay: Duration) {
        let at = now + delay;
        self.restarts = self.restarts.saturating_add(1);
        self.state = State::Waiting { at, attempt: self.restarts };
        self.actions.push_back(Action::Restart { at, attempt: self.restarts, delay });
    }

    fn merge(&mut self, now: Moment) {
        match self.state {
            State::Waiting { at, .. } => self.actions.push_back(Action::Merged { at }),
            // The job was started already, and the driver's times go back: a failure must not be lost.
            State::Running | State::Restarting | State::Ended => self.schedule(now, Duration::ZERO),
        }
    }
}

impl Policy {
    fn judge(&mut self, now: Moment) -> Verdict {
        match self {
            Self::None => Verdict::Refuse(GiveUp::NoStrategy),
            Self::FixedDelay { attempts, delay, failures } => {
                *failures = failures.saturating_add(1);
                // At u32::MAX the count stands still: that limit is truly none.
                if *failures <= *attempts {
                    Verdict::After(*delay)
                } else {
                    Verdict::Refuse(GiveUp::AttemptsExhausted { attempts: *attempts })
                }
            }
            Self::FailureRate { max, interval, delay, recent } => {
                recent.push_back(now);
                let kept = usize::try_from(*max).unwrap_or(usize::MAX).saturating_add(1);
                // What is too old to matter goes too: a large limit must not mean a long list.
                while recent.len() > 1 && recent.front().is_some_and(|&oldest| now.since(oldest) > *interval) {
                    recent.pop_front();
                }
                if recent.len() < kept {
                    Verdict::After(*delay)
                } else {
                    Verdict::Refuse(GiveUp::RateExceeded { max_failures: *max, interval: *interval })
                }
            }
            Self::Exponential(backoff) => backoff.judge(now),
        }
    }
}

impl Backoff {
    fn new(parameters: ExponentialDelay, seed: u64) -> Self {
        let next = parameters.initial_backoff.as_secs_f64();
        Self { parameters, attempts: 0, next, planned: None, rng: SplitMix64::new(seed) }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        if let Some(planned) = self.planned {
            if now < planned {
                return Verdict::Merge;
            }
            if now.since(planned) >= self.parameters.reset_backoff_threshold {
                self.attempts = 0;
                self.next = self.parameters.initial_backoff.as_secs_f64();
            }
        }
        self.attempts = self.attempts.saturating_add(1);
        let limit = self.parameters.attempts_before_reset_backoff;
        if self.attempts > limit {
            return Verdict::Refuse(GiveUp::AttemptsExhausted { attempts: limit });
        }
        let delay = self.take_delay();
        self.planned = Some(now + delay);
        Verdict::After(delay)
    }

    /// The delay of this failure; the one of the next grows.
    fn take_delay(&mut self) -> Duration {
        let ExponentialDelay { initial_backoff, max_backoff, backoff_multiplier, jitter_factor, .. } = self.parameters;
        let jitter = self.rng.signed_unit() * jitter_factor;
        let seconds = self.next * (1.0 + jitter);
        // Multiplied step by step: the same on every machine, which `powf` does not promise. Never infinite, since
        // infinity times a jitter of -1 would not be a number.
        self.next = (self.next * backoff_multiplier).min(f64::MAX);
        Duration::try_from_secs_f64(seconds).unwrap_or(max_backoff).clamp(initial_backoff, max_backoff)
    }
}
