use std::time::Duration;

use cutwater_core::Moment;

/// Small enough to look smooth, large enough not to wake up for every record.
const STEP: Duration = Duration::from_millis(5);
/// What may be made up after a late wake-up; more would be a burst after a long stall.
const ARREARS: Duration = Duration::from_millis(50);

/// Spreads records evenly over time.
pub(crate) struct Pace {
    per_second: f64,
    due: f64, // records that may be emitted now
    last: Option<Moment>,
}

impl Pace {
    pub(crate) fn new(per_second: f64) -> Self {
        Self { per_second, due: 1.0, last: None }
    }

    /// How many records may be emitted now.
    pub(crate) fn allowed(&mut self, now: Moment) -> usize {
        let passed = self.last.map_or(Duration::ZERO, |last| now.since(last));
        self.last = Some(now);
        let most = 1.0 + self.per_second * ARREARS.as_secs_f64();
        self.due = (self.due + self.per_second * passed.as_secs_f64()).min(most);
        // Truncates on purpose; a float beyond usize saturates.
        self.due as usize
    }

    pub(crate) fn emitted(&mut self) {
        self.due -= 1.0;
    }

    /// When to ask again, if nothing is allowed now.
    pub(crate) fn next(&self, now: Moment) -> Option<Moment> {
        if self.due >= 1.0 {
            return None;
        }
        // The microsecond keeps rounding from waking up just too early. Slower than one record in a century is never.
        let missing = Duration::try_from_secs_f64((1.0 - self.due) / self.per_second).unwrap_or(Duration::MAX);
        Some(now + missing.saturating_add(Duration::from_micros(1)).max(STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Emits for a while, waking `late` after each wanted moment; the records of each step.
    fn run(per_second: f64, room: usize, late: Duration, until: Duration) -> Vec<(Moment, usize)> {
        let (mut pace, mut now, mut steps) = (Pace::new(per_second), Moment(77), Vec::new());
        while now.since(Moment(77)) < until {
            let count = pace.allowed(now).min(room);
            (0..count).for_each(|_| pace.emitted());
            steps.push((now, count));
            if let Some(next) = pace.next(now) {
                now = next + late;
            }
        }
        steps
    }

    #[test]
    fn the_rate_is_kept_in_small_steps() {
        for (name, rate, late_ms) in [
            ("slow", 3.0, 0),
            ("a few", 250.0, 0),
            ("many", 100_000.0, 0),
            ("with late wake-ups", 100_000.0, 9),
            ("slow with late wake-ups", 20.0, 9),
        ] {
            let steps = run(rate, 1000, Duration::from_millis(late_ms), Duration::from_secs(10));
            let total: usize = steps.iter().map(|step| step.1).sum();
            let most = rate * 10.0 + 1.0;
            assert!(total as f64 <= most && total as f64 >= most * 0.96 - 1.0, "{name}: {total} of {most}");
            let step = (rate * (0.010 + late_ms as f64 / 1000.0)).max(1.0);
            assert!(steps.iter().all(|&(_, count)| count as f64 <= step), "{name}");
        }
    }

    #[test]
    fn a_long_stall_is_not_made_up() {
        let mut pace = Pace::new(1000.0);
        assert_eq!(pace.allowed(Moment(0)), 1);
        assert_eq!(pace.allowed(Moment(3_600_000_000_000)), 51);
    }

    #[test]
    fn a_rate_of_almost_nothing_waits_for_ever() {
        let mut pace = Pace::new(f64::MIN_POSITIVE);
        assert_eq!(pace.allowed(Moment(0)), 1);
        pace.emitted();
        assert_eq!(pace.next(Moment(0)), Some(Moment::MAX));
    }
}
