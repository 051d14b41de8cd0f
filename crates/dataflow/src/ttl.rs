//! Time-to-live of state.

use std::time::Duration;

use cutwater_core::Timestamp;

/// How long what is kept under a key lives after it was last written.
///
/// What has expired is never returned, is left out of snapshots, is removed when it is read, and otherwise in the
/// background, a bounded step with each batch of records. Lists expire element by element, maps entry by entry. Each
/// entry carries the time when it was last written, so that the duration may be changed, and a time-to-live be given to a
/// state or taken from it, between a checkpoint and the restart from it: what was written without one counts as written
/// when the background cleaning first meets it.
///
/// Flink's rules (`StateTtlConfig`), with two differences: there is event time too, and expired values are never returned
/// in any setting.
///
/// ```
/// use std::time::Duration;
/// use cutwater_dataflow::Ttl;
///
/// let session = Ttl::new(Duration::from_secs(1800)).on_read_and_write();
/// let dedup = Ttl::new(Duration::from_secs(86_400)).by_event_time();
/// assert_ne!(session, dedup);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    millis: i64,
    event_time: bool,
    on_read: bool,
}

impl Ttl {
    /// By processing time, renewed by each write. At least a millisecond, whole milliseconds; less is refused when the
    /// state is declared.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self { millis, event_time: false, on_read: false }
    }

    /// By event time: a write counts as made at the time of its record, or at the watermark where that is later. It
    /// expires when the watermark has come so far; while a timer fires, the time of the timer counts instead.
    #[must_use]
    pub fn by_event_time(self) -> Self {
        Self { event_time: true, ..self }
    }

    /// Reads renew it too.
    #[must_use]
    pub fn on_read_and_write(self) -> Self {
        Self { on_read: true, ..self }
    }

    pub(crate) fn is_valid(self) -> bool {
        self.millis > 0
    }

    /// What a state with this time-to-live is to do now.
    pub(crate) fn life(self, now: Now) -> Life {
        let (now, written) = if self.event_time { (now.event, now.event_write) } else { (now.wall, now.wall) };
        let horizon = match now {
            Timestamp::MIN | Timestamp::MAX => i64::MIN, // no time yet, or all input has ended: nothing expires by it
            Timestamp(now) => now.saturating_sub(self.millis),
        };
        let written = (written != Timestamp::MIN).then_some(written.0);
        Life { written, horizon, on_read: self.on_read }
    }
}

/// The times of a call of user code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) event: Timestamp,
    /// The later of the time of the record and `event`.
    pub(crate) event_write: Timestamp,
}

/// How a state treats stamps in one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// The stamp of what is written; `None` without a time-to-live.
    pub(crate) written: Option<i64>,
    /// What was stamped at or before it has expired.
    pub(crate) horizon: i64,
    pub(crate) on_read: bool,
}

impl Life {
    /// Of a state without time-to-live.
    pub(crate) const ENDLESS: Self = Self { written: None, horizon: i64::MIN, on_read: false };

    #[inline]
    pub(crate) fn has_expired(self, stamp: Option<i64>) -> bool {
        stamp.is_some_and(|stamp| stamp <= self.horizon)
    }

    /// The stamp that a read leaves.
    #[inline]
    pub(crate) fn read(self) -> Option<i64> {
        if self.on_read { self.written } else { None }
    }
}
