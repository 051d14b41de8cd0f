//! How far a restore has come.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater_core::{CheckpointId, Moment};

/// How far the restore of an attempt has come: what is told of it in [`JobStatus::restore`](crate::JobStatus::restore).
///
/// As text it is one line: `checkpoint 7: 1.5 GiB of 6.0 GiB in 12 files (25 %) after 20 s, 60 s left`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// When the first subtask began to be filled, counted as [`JobStatus::looked_at`](crate::JobStatus::looked_at).
    pub since: Moment,
    /// For how long it has lasted, or did.
    pub elapsed: Duration,
    /// Whether it is over: all state is in its tables, or the attempt has failed.
    pub is_over: bool,
    /// How many files there are to read.
    pub files: u64,
    /// How many of their bytes. At the parallelism of the checkpoint these are all bytes of the files. At another one, where
    /// several subtasks take parts of one file and some blocks are read twice, it is an estimate, which each file that is opened
    /// makes better.
    pub bytes: u64,
    /// How many of these have come into the tables.
    pub restored_bytes: u64,
    /// How many bytes were read from copies on this machine: [`Options::local`](crate::Options::local).
    pub local_bytes: u64,
    /// How often what the store answered was not what had been written, and was read once more.
    pub rereads: u64,
    /// The time that is left, if it goes on as it did so far. `None` in the first half second, before anything has been restored,
    /// and when it is over.
    pub time_left: Option<Duration>,
}

impl fmt::Display for RestoreProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint, files, bytes, restored_bytes, elapsed, .. } = self;
        let percent = u128::from(*restored_bytes) * 100 / u128::from(*bytes).max(1);
        let (restored, all, plural) = (size(*restored_bytes), size(*bytes), if *files == 1 { "" } else { "s" });
        let seconds = elapsed.as_secs();
        write!(
            f,
            "checkpoint {checkpoint}: {restored} of {all} in {files} file{plural} ({percent} %) after {seconds} s"
        )?;
        match self.time_left {
            Some(left) => write!(f, ", {} s left", left.as_millis().div_ceil(1000)),
            None => Ok(()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.95 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Before this nothing is said of the time left: the first blocks tell too little.
const LEAST: Duration = Duration::from_millis(500);

/// The time that is left if the rest takes as long for each byte as what is restored did.
fn time_left(restored: u64, bytes: u64, elapsed: Duration) -> Option<Duration> {
    if restored == 0 || elapsed < LEAST {
        return None;
    }
    let left = elapsed.as_nanos().saturating_mul(bytes.saturating_sub(restored).into()) / u128::from(restored);
    Some(Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)))
}

/// The counters behind it. The threads that fill tables add to them.
#[derive(Debug)]
pub(crate) struct Progress {
    checkpoint: CheckpointId,
    since: Moment,
    over: OnceLock<Moment>,
    files: u64,
    bytes: AtomicU64,
    restored_bytes: AtomicU64,
    local_bytes: AtomicU64,
    rereads: AtomicU64,
}

impl Progress {
    pub(crate) fn new(checkpoint: CheckpointId, since: Moment, files: u64, bytes: u64) -> Self {
        let over = OnceLock::new();
        let zero = || AtomicU64::new(0);
        let (bytes, restored_bytes, local_bytes, rereads) = (AtomicU64::new(bytes), zero(), zero(), zero());
        Self { checkpoint, since, over, files, bytes, restored_bytes, local_bytes, rereads }
    }

    /// A file was opened: not `estimate` bytes of it are to be read but `bytes`.
    pub(crate) fn opened(&self, estimate: u64, bytes: u64) {
        // Together the difference, whatever its sign: the sum wraps back.
        self.bytes.fetch_add(bytes.wrapping_sub(estimate), Ordering::Relaxed);
    }

    /// So many bytes more are in the tables, or needed no table.
    pub(crate) fn restored(&self, bytes: u64) {
        self.restored_bytes.fetch_add(bytes, Ordering::Release);
    }

    pub(crate) fn read_locally(&self, bytes: u64) {
        self.local_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read_again(&self) {
        self.rereads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, now: Moment) {
        let _: Result<(), Moment> = self.over.set(now); // the first end counts
    }

    pub(crate) fn read(&self, now: Moment) -> RestoreProgress {
        let over = self.over.get();
        let elapsed = over.unwrap_or(&now).since(self.since);
        // In this order: what has been restored was counted before as to be read.
        let restored_bytes = self.restored_bytes.load(Ordering::Acquire);
        let bytes = self.bytes.load(Ordering::Relaxed);
        RestoreProgress {
            checkpoint: self.checkpoint,
            since: self.since,
            elapsed,
            is_over: over.is_some(),
            files: self.files,
            bytes,
            restored_bytes,
            local_bytes: self.local_bytes.load(Ordering::Relaxed),
            rereads: self.rereads.load(Ordering::Relaxed),
            time_left: if over.is_some() { None } else { time_left(restored_bytes, bytes, elapsed) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_rest_at_the_rate_so_far() {
        let seconds = Duration::from_secs;
        let cases = [
            ("nothing was restored yet", (0, 100, seconds(10)), None),
            ("it has just begun", (1, 100, Duration::from_millis(499)), None),
            ("a quarter", (25, 100, seconds(10)), Some(seconds(30))),
            ("a little", (1, 100, Duration::from_millis(500)), Some(Duration::from_millis(49_500))),
            ("all", (100, 100, seconds(10)), Some(Duration::ZERO)),
            ("more than was thought", (110, 100, seconds(10)), Some(Duration::ZERO)),
            ("no number is too large", (1, u64::MAX, seconds(u64::MAX)), Some(Duration::from_nanos(u64::MAX))),
        ];
        for (name, (restored, bytes, elapsed), expected) in cases {
            assert_eq!(time_left(restored, bytes, elapsed), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_opened_puts_its_true_size_in_place_of_the_estimate() {
        let at = |ms: u64| Moment(ms * 1_000_000);
        let progress = Progress::new(CheckpointId(7), at(1_000), 2, 100);
        progress.opened(50, 30);
        progress.opened(50, 90);
        progress.restored(40);
        let found = progress.read(at(3_000));
        assert_eq!((found.bytes, found.restored_bytes, found.elapsed), (120, 40, Duration::from_secs(2)));
        assert_eq!(found.to_string(), "checkpoint 7: 40 B of 120 B in 2 files (33 %) after 2 s, 4 s left");
        progress.restored(80);
        progress.end(at(4_000));
        progress.end(at(9_000));
        let found = progress.read(at(10_000));
        assert_eq!((found.is_over, found.time_left, found.elapsed), (true, None, Duration::from_secs(3)));
        assert_eq!(found.to_string(), "checkpoint 7: 120 B of 120 B in 2 files (100 %) after 3 s");
    }

    #[test]
    fn sizes_are_short() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (3 << 29, "1.5 GiB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((size((1 << 20) - 1), size(1 << 42)), ("1.0 MiB".to_owned(), "4.0 TiB".to_owned()));
    }
}
