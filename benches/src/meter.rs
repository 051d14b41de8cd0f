//! How long batches take, with a snapshot under way and without.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::histogram::Histogram;
use crate::job::ms;
use crate::report::{Bound, Figure, Report};

/// So many records are a batch here, as they are in the runtime.
pub(crate) const BATCH: usize = 1024;

/// What an operator tells the benchmark.
pub(crate) struct Meter {
    counted: AtomicU64,
    /// Whether a checkpoint is being taken: from asking for it until it is durable.
    snapshot: AtomicBool,
    /// Whether what is measured has begun.
    measuring: AtomicBool,
    batches: [Histogram; 2],
    /// The same without the time in which the worker waited for a core.
    on_core: [Histogram; 2],
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            counted: AtomicU64::new(0),
            snapshot: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            batches: [Histogram::new(), Histogram::new()],
            on_core: [Histogram::new(), Histogram::new()],
        }
    }

    /// Records in full batches.
    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    pub(crate) fn measure(&self, measuring: bool) {
        self.measuring.store(measuring, Ordering::Relaxed);
    }

    /// Batches meanwhile are those of a snapshot.
    pub(crate) fn during_snapshot<T>(&self, take: impl FnOnce() -> T) -> T {
        self.snapshot.store(true, Ordering::Relaxed);
        let taken = take();
        self.snapshot.store(false, Ordering::Relaxed);
        taken
    }

    /// What a share of the batches stayed at or below while a snapshot was taken.
    pub(crate) fn quantile_during_snapshot(&self, share: f64) -> Duration {
        self.batches[1].quantile(share)
    }

    /// The longest that a batch should take during a snapshot, in milliseconds, is that of the backend.
    pub(crate) fn figures(&self, report: &mut Report, longest_ms: f64) {
        let [plain, snapshot] = &self.batches;
        report.figure(
            Figure::new("batch_p999_during_snapshot_ms", [ms(snapshot.quantile(0.999))])
                .beside("batch_p999_otherwise_ms", [ms(plain.quantile(0.999))])
                .should_be(Some(Bound::AtMost(longest_ms))),
        );
        report.figure(
            Figure::new("batch_max_during_snapshot_ms", [ms(snapshot.longest())])
                .beside("batch_max_otherwise_ms", [ms(plain.longest())]),
        );
        let [plain, snapshot] = &self.on_core;
        report.figure(
            Figure::new("batch_on_core_p999_during_snapshot_ms", [ms(snapshot.quantile(0.999))])
                .beside("batch_on_core_p999_otherwise_ms", [ms(plain.quantile(0.999))]),
        );
        report.figure(
            Figure::new("batch_on_core_max_during_snapshot_ms", [ms(snapshot.longest())])
                .beside("batch_on_core_max_otherwise_ms", [ms(plain.longest())]),
        );
        report.figure(
            Figure::new("batch_p50_during_snapshot_ms", [ms(snapshot.quantile(0.5))])
                .beside("batch_p50_otherwise_ms", [ms(plain.quantile(0.5))]),
        );
        report.figure(Figure::new("batches_during_snapshot_count", [snapshot.count() as f64]));
        report.note(
            "A batch is 1,024 records of one subtask; its time is from the end of the one before to its own, so that all \
             the worker does in between counts. A snapshot runs from asking for the checkpoint until it is durable. \
             On core: without the time in which the worker was ready to run and other threads had the cores.",
        );
    }
}

/// Looks at the clock once for each batch of its subtask.
pub(crate) struct BatchWatch {
    meter: Arc<Meter>,
    left: usize,
    /// When the batch before was done, and whether a snapshot was running then. `None` where no batch was before.
    last: Option<(Instant, bool)>,
    waits: Waits,
}

impl Clone for BatchWatch {
    fn clone(&self) -> Self {
        Self::new(&self.meter)
    }
}

impl BatchWatch {
    pub(crate) fn new(meter: &Arc<Meter>) -> Self {
        Self { meter: Arc::clone(meter), left: BATCH, last: None, waits: Waits::default() }
    }

    #[inline]
    pub(crate) fn note_record(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.note_batch();
        }
    }

    #[cold]
    fn note_batch(&mut self) {
        self.left = BATCH;
        let now = clock::now();
        self.meter.counted.fetch_add(BATCH as u64, Ordering::Relaxed);
        let snapshot = self.meter.snapshot.load(Ordering::Relaxed);
        if !self.meter.measuring.load(Ordering::Relaxed) {
            self.last = None;
            return;
        }
        if let Some((last, during)) = self.last.replace((now, snapshot)) {
            let (took, place) = (now.duration_since(last), usize::from(during || snapshot));
            self.meter.batches[place].note(took);
            self.meter.on_core[place].note(took.saturating_sub(self.waits.within(took)));
        }
    }
}

/// How long the calling thread has waited for a core, from the kernel's count.
#[derive(Default)]
struct Waits {
    schedstat: Option<File>,
    seen: Duration,
    batches: u32,
}

impl Waits {
    /// The kernel is asked only about batches as long as this, and at every so many: asking takes a microsecond.
    const LONG: Duration = Duration::from_micros(200);
    const EVERY: u32 = 64;

    /// How much of a batch that `took` so long was waiting.
    fn within(&mut self, took: Duration) -> Duration {
        self.batches = self.batches.wrapping_add(1);
        if took < Self::LONG && !self.batches.is_multiple_of(Self::EVERY) {
            return Duration::ZERO;
        }
        let before = self.seen;
        self.seen = self.read().unwrap_or(before);
        if took < Self::LONG { Duration::ZERO } else { self.seen.saturating_sub(before).min(took) }
    }

    /// The second number of `/proc/thread-self/schedstat`, in nanoseconds.
    fn read(&mut self) -> Option<Duration> {
        if self.schedstat.is_none() {
            self.schedstat = File::open("/proc/thread-self/schedstat").ok();
        }
        let mut text = [0; 96];
        let read = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..read]).ok()?;
        text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    }
}
