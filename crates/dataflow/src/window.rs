//! Windows on keyed streams.

mod contents;
mod operator;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater_core::Timestamp;
use cutwater_state::{Data, Key};
use serde::{Deserialize, Serialize};

use self::contents::{Aggregated, Elements};
use self::operator::{OnlyResults, WindowOperator, WithLate};
use crate::stage::Identity;
use crate::states::Aggregate;
use crate::stream::{Head, KeyedStream, Stream};

/// A stretch of time: from `start` to before `end`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first millisecond.
    pub start: i64,
    /// The millisecond after the last.
    pub end: i64,
}

impl Window {
    /// The last time in it: that of its results, and of the watermark that makes it fire.
    #[must_use]
    pub fn last(self) -> Timestamp {
        Timestamp(self.end.saturating_sub(1))
    }

    /// Whether the two overlap or touch.
    fn meets(self, other: Self) -> bool {
        self.start <= other.end && self.end >= other.start
    }

    fn cover(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Which windows a record belongs to. Flink's assigners, and their rules.
///
/// They go by event time, unless [`Self::by_processing_time`] says otherwise.
///
/// Durations are whole milliseconds, at least one; wrong ones are an error of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    kind: Kind,
    offset: i64,
    processing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One every `slide`, each `size` long.
    Sliding { size: i64, slide: i64 },
    /// Records closer than `gap` are together.
    Session { gap: i64 },
}

impl Windows {
    /// Windows of one size that follow each other, the first from the time 0.
    #[must_use]
    pub fn tumbling(size: Duration) -> Self {
        Self::sliding(size, size)
    }

    /// A window of this size every `slide`: a record is in `size / slide` of them, at most 100,000, and in none if it falls
    /// between two.
    #[must_use]
    pub fn sliding(size: Duration, slide: Duration) -> Self {
        Self { kind: Kind::Sliding { size: millis(size), slide: millis(slide) }, offset: 0, processing: false }
    }

    /// A window from the first record of a key until `gap` after its last one: a record less than or just `gap` away from
    /// a window joins it, and windows that meet by it become one.
    #[must_use]
    pub fn sessions(gap: Duration) -> Self {
        Self { kind: Kind::Session { gap: millis(gap) }, offset: 0, processing: false }
    }

    /// Tumbling and sliding windows begin `millis` later, or earlier if it is negative: less than the size of the former,
    /// or the slide of the latter. For days in a time zone, for example.
    #[must_use]
    pub fn offset(self, millis: i64) -> Self {
        Self { offset: millis, ..self }
    }

    /// A record belongs to windows by the wall clock at the time when it comes, and a window fires once the clock has passed
    /// its last millisecond. Nothing is late, so that no lateness can be allowed. What is in a window differs from run to
    /// run, and after a failure too, but each record is in its windows once. Windows that are open at the end of all input
    /// do not fire, as timers of processing time do not. A session has ended `gap` after its last record, so that a record
    /// just then begins another.
    #[must_use]
    pub fn by_processing_time(self) -> Self {
        Self { processing: true, ..self }
    }

    /// What is wrong with it.
    fn check(self, lateness: i64) -> Result<(), String> {
        if self.processing && lateness != 0 {
            return Err("nothing is late in windows by processing time: leave allowed_lateness out".to_owned());
        }
        match self.kind {
            Kind::Session { gap } if gap < 1 => Err("the gap of sessions must be at least a millisecond".to_owned()),
            Kind::Session { .. } if self.offset != 0 => Err("sessions have no offset".to_owned()),
            Kind::Session { .. } => Ok(()),
            Kind::Sliding { size, slide } if size < 1 || slide < 1 => {
                Err("size and slide of windows must be at least a millisecond".to_owned())
            }
            Kind::Sliding { size, slide } if size / slide > MOST_WINDOWS => {
                Err(format!("a record would be in {} windows, more than {MOST_WINDOWS}: slide further", size / slide))
            }
            Kind::Sliding { slide, .. } if self.offset.unsigned_abs() >= slide.unsigned_abs() => {
                Err(format!("the offset of {} ms is not less than the {slide} ms between two windows", self.offset))
            }
            Kind::Sliding { .. } => Ok(()),
        }
    }

    /// The windows of a record at this time, before any merge; the latest first.
    fn assign(self, time: Timestamp) -> Vec<Window> {
        // In 128 bits, since the first and last times there are have windows too.
        let clamp = |time: i128| i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX });
        let window = |start: i128, size: i64| Window { start: clamp(start), end: clamp(start + i128::from(size)) };
        let at = i128::from(time.0);
        match self.kind {
            Kind::Session { gap } => vec![window(at, gap)],
            Kind::Sliding { size, slide } => {
                let slide = i128::from(slide);
                let latest = at - (at - i128::from(self.offset)).rem_euclid(slide);
                let starts = std::iter::successors(Some(latest), |start| Some(start - slide));
                starts.take_while(|start| *start > at - i128::from(size)).map(|start| window(start, size)).collect()
            }
        }
    }
}

/// A record is in so many windows at the most.
const MOST_WINDOWS: i64 = 100_000;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Counts records that came too late, over all subtasks and attempts of the process: after a failure those that are read
/// again count again.
#[derive(Clone, Debug, Default)]
pub struct LateCount(Arc<AtomicU64>);

impl LateCount {
    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What comes out of windows that tell what was late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Windowed<R, T> {
    /// A result of a window.
    Result(R),
    /// A record that came after all its windows were gone.
    Late(T),
}

/// A keyed stream by windows.
///
/// A window of event time fires when the watermark reaches its last millisecond. Then it goes, unless lateness is allowed: until so long
/// after, each record that belongs to it makes it fire again, with all it has. What comes later still is *late*: counted,
/// if asked for, and dropped or emitted. Results carry the time of the last millisecond of their window.
///
/// What windows hold is keyed state, and they fire by timers, so they are part of checkpoints and restore at any
/// parallelism.
///
/// ```
/// # use std::time::Duration;
/// # use cutwater_dataflow::{Job, Timestamp, Windows, discard, folding, generator};
/// let job = Job::new("per-minute");
/// job.source("numbers", generator(1_000, |n| n).event_time(|n| Timestamp(n as i64 * 100)))
///     .key_by(|n| n % 10)
///     .window(Windows::tumbling(Duration::from_secs(60)))
///     .allowed_lateness(Duration::from_secs(5))
///     .aggregate("counts", folding(|| 0u64, |count, _| *count += 1, |count, other| *count += other))
///     .map(|(key, window, count)| format!("{key} {} {count}", window.start))
///     .sink("out", discard());
/// # assert!(job.build().is_ok());
/// ```
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct WindowedStream<'j, K, T> {
    stream: KeyedStream<'j, K, T>,
    windows: Windows,
    lateness: Duration,
    late: LateCount,
}

impl<'j, K: Key, T: Data> KeyedStream<'j, K, T> {
    /// Groups the records of each key by windows.
    pub fn window(self, windows: Windows) -> WindowedStream<'j, K, T> {
        WindowedStream { stream: self, windows, lateness: Duration::ZERO, late: LateCount::default() }
    }
}

impl<'j, K: Key, T: Data + Clone> WindowedStream<'j, K, T> {
    /// How long after the watermark has reached the end of a window it still takes records. By default not at all.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Counts what is late.
    pub fn count_late(self, late: &LateCount) -> Self {
        Self { late: late.clone(), ..self }
    }

    /// Aggregates the records of a window as they come: only an accumulator is kept of each. Emits key, window and result.
    /// What is late is dropped.
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn aggregate<A: Aggregate<T>>(
        self,
        uid: &str,
        aggregate: A,
    ) -> Stream<'j, impl Head<Out = (K, Window, A::Out)> + use<A, K, T>, Identity<(K, Window, A::Out)>> {
        let operator = self.operator::<_, OnlyResults>(Aggregated::new(aggregate));
        self.stream.keyed(uid, "window", operator)
    }

    /// As [`Self::aggregate`], and emits what is late as it came.
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn aggregate_with_late<A: Aggregate<T>>(
        self,
        uid: &str,
        aggregate: A,
    ) -> Stream<
        'j,
        impl Head<Out = Windowed<(K, Window, A::Out), T>> + use<A, K, T>,
        Identity<Windowed<(K, Window, A::Out), T>>,
    > {
        let operator = self.operator::<_, WithLate>(Aggregated::new(aggregate));
        self.stream.keyed(uid, "window", operator)
    }

    /// Keeps the records of a window and gives all of them to `f` each time it fires, in the order in which they came;
    /// those of sessions that became one follow each other. What `f` returns is emitted, what is late is dropped.
    pub fn process<F, I>(
        self,
        uid: &str,
        f: F,
    ) -> Stream<'j, impl Head<Out = I::Item> + use<F, I, K, T>, Identity<I::Item>>
    where
        F: Fn(&K, Window, &[&T]) -> I + Clone + Send + Sync + 'static,
        I: IntoIterator + 'static,
        I::Item: Send + 'static,
    {
        let operator = self.operator::<_, OnlyResults>(Elements::new(f));
        self.stream.keyed(uid, "window", operator)
    }

    /// As [`Self::process`], and emits what is late as it came.
    #[expect(clippy::type_complexity, reason = "an alias would hide that it is a stream")]
    pub fn process_with_late<F, I>(
        self,
        uid: &str,
        f: F,
    ) -> Stream<'j, impl Head<Out = Windowed<I::Item, T>> + use<F, I, K, T>, Identity<Windowed<I::Item, T>>>
    where
        F: Fn(&K, Window, &[&T]) -> I + Clone + Send + Sync + 'static,
        I: IntoIterator + 'static,
        I::Item: Send + 'static,
    {
        let operator = self.operator::<_, WithLate>(Elements::new(f));
        self.stream.keyed(uid, "window", operator)
    }

    fn operator<C, E>(&self, contents: C) -> WindowOperator<C, E> {
        WindowOperator::new(self.windows, millis(self.lateness), self.late.clone(), contents)
    }
}

#[cfg(test)]
mod tests;
