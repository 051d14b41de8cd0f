//! Restart strategies, without I/O: after a failure, whether the job starts again and when.
//!
//! A [`Restarter`] is told of failures and says what to do. It reads no clock and owns no timer: every input brings
//! its [`Moment`](cutwater_core::Moment), and the caller wakes it at [`Restarter::next_deadline`]. With the same
//! strategy, seed and inputs it decides the same, which is what lets a simulation replay a run.
//!
//! ```
//! use std::time::Duration;
//! use cutwater_core::Moment;
//! use cutwater_restart::{Action, FailureClass, GiveUp, Restarter, Strategy};
//!
//! # fn main() -> Result<(), cutwater_restart::InvalidStrategy> {
//! let strategy = Strategy::FixedDelay { attempts: 1, delay: Duration::from_secs(10) };
//! let mut restarter = Restarter::new(strategy, 42)?;
//!
//! // The first failure is forgiven: ten seconds later the job starts again.
//! restarter.handle_failure(Moment::from_millis(500), FailureClass::Recoverable);
//! let at = Moment::from_millis(10_500);
//! let restart = Action::Restart { at, attempt: 1, delay: Duration::from_secs(10) };
//! assert_eq!(restarter.poll_action(), Some(restart));
//! assert_eq!(restarter.next_deadline(), Some(at));
//! restarter.handle_timeout(at);
//! assert_eq!(restarter.poll_action(), Some(Action::Start { attempt: 1 }));
//! restarter.handle_restarted(Moment::from_millis(10_600));
//!
//! // The second is one too many.
//! restarter.handle_failure(Moment::from_millis(99_000), FailureClass::Recoverable);
//! let reason = GiveUp::AttemptsExhausted { attempts: 1 };
//! assert_eq!(restarter.poll_action(), Some(Action::GiveUp { reason }));
//! # Ok(())
//! # }
//! ```
//!
//! - [`Strategy`]: none, fixed delay, failure rate, exponential delay, with the parameters, defaults and rules of
//!   Apache Flink 2.3; [`Strategy::default_with_checkpointing`] and [`Strategy::default_without_checkpointing`] are
//!   what holds when nobody chose.
//! - [`Restarter`]: one strategy at work for one job.
//! - [`ProgressWatch`]: notices a job that restarts again and again without getting on; [`Restarter::handle_no_progress`]
//!   ends such a one.
//! - [`FailureClass`]: what no retry can mend ends the job, whatever the strategy.
//!
//! Promised: after [`Action::GiveUp`] nothing follows; at most one restart is scheduled at a time; a delay of the
//! exponential strategy lies within its bounds, jitter included. Not offered: restarting a part of a job (all of it
//! restarts).

mod progress;
mod restarter;
mod rng;
mod strategy;

pub use progress::{FailureSite, NoProgress, ProgressWatch, SourceRange};
pub use restarter::{Action, FailureClass, GiveUp, Restarter};
pub use strategy::{ExponentialDelay, InvalidStrategy, Strategy};
