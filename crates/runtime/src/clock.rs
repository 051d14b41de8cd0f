//! The only clock of Cutwater. Everything else takes its time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cutwater_core::Moment;

/// Monotonic time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins at [`Moment::ZERO`] now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the only clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the only clock")]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant of a moment, to sleep until.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // A century is never reached, and far from what an Instant can't hold.
        self.start + moment.since(Moment::ZERO).min(Duration::from_secs(100 * 365 * 86_400))
    }

    /// The wall clock in ms since 1970-01-01 UTC: for display, and as processing time.
    #[expect(clippy::disallowed_methods, reason = "the only clock")]
    pub(crate) fn unix_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// A number that no other start of a process is likely to have.
    pub(crate) fn nonce() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        #[expect(clippy::disallowed_methods, reason = "a nonce must differ between processes")]
        let state = std::hash::RandomState::new();
        let mut hasher = state.build_hasher();
        hasher.write_u64(Self::unix_ms());
        hasher.write_u32(std::process::id());
        hasher.finish()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
