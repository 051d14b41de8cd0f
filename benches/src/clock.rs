//! Where the benchmarks read the clock and wait: measuring is what they are for.

use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn since(start: Instant) -> Duration {
    now().duration_since(start)
}

#[expect(clippy::disallowed_methods, reason = "a window of measurement is a while")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits for a moment; nothing if it has passed.
pub(crate) fn pause_until(moment: Instant) {
    pause(moment.saturating_duration_since(now()));
}
