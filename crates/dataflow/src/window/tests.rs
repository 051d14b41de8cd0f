use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::TestHarness;
use crate::{GraphError, Job, KeyedProcess, UserError, discard, from_iter};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn window(start: i64, end: i64) -> Window {
    Window { start, end }
}

#[test]
fn records_belong_to_the_windows_that_hold_their_time() {
    let cases = [
        ("the first millisecond", Windows::tumbling(ms(10)), 20, vec![(20, 30)]),
        ("the last millisecond", Windows::tumbling(ms(10)), 29, vec![(20, 30)]),
        ("before 1970", Windows::tumbling(ms(10)), -1, vec![(-10, 0)]),
        ("later by an offset", Windows::tumbling(ms(10)).offset(3), 22, vec![(13, 23)]),
        ("earlier by an offset", Windows::tumbling(ms(10)).offset(-3), 27, vec![(27, 37)]),
        ("two that overlap", Windows::sliding(ms(10), ms(5)), 12, vec![(10, 20), (5, 15)]),
        ("at the start of one", Windows::sliding(ms(10), ms(5)), 10, vec![(10, 20), (5, 15)]),
        ("sizes that do not divide", Windows::sliding(ms(10), ms(4)), 13, vec![(12, 22), (8, 18), (4, 14)]),
        ("between two windows", Windows::sliding(ms(4), ms(10)), 17, vec![]),
        ("a session", Windows::sessions(ms(7)), 5, vec![(5, 12)]),
        ("the first time", Windows::tumbling(ms(10)), i64::MIN + 1, vec![(i64::MIN, i64::MIN + 8)]),
        ("the last time", Windows::tumbling(ms(10)), i64::MAX, vec![(i64::MAX - 7, i64::MAX)]),
    ];
    for (name, windows, time, expected) in cases {
        assert_eq!(windows.check(0), Ok(()), "{name}");
        let found: Vec<_> = windows.assign(Timestamp(time)).into_iter().map(|it| (it.start, it.end)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn wrong_windows_are_errors_of_the_graph() {
    let cases = [
        (Windows::tumbling(Duration::from_micros(999)), "at least a millisecond"),
        (Windows::sliding(ms(10), ms(0)), "at least a millisecond"),
        (Windows::sliding(ms(1 << 40), ms(1)), "slide further"),
        (Windows::sessions(ms(0)), "gap of sessions"),
        (Windows::sessions(ms(5)).offset(1), "no offset"),
        (Windows::tumbling(ms(10)).offset(-10), "offset of -10 ms"),
    ];
    for (windows, expected) in cases {
        let job = Job::new("test");
        let keyed = job.source("in", from_iter(0..9_u64)).key_by(|n| *n);
        keyed.window(windows).aggregate("win", List).sink("out", discard());
        let error = job.build().unwrap_err();
        assert!(matches!(error, GraphError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains(expected) && error.to_string().contains("win"), "{error}");
    }
}

/// Keeps the records themselves, sorted, so that merges can be seen.
#[derive(Clone)]
struct List;

impl Aggregate<u64> for List {
    type Accumulator = Vec<u64>;
    type Out = Vec<u64>;

    fn create(&self) -> Vec<u64> {
        Vec::new()
    }

    fn add(&self, all: &mut Vec<u64>, record: u64) {
        all.push(record);
        all.sort_unstable();
    }

    fn merge(&self, all: &mut Vec<u64>, other: Vec<u64>) {
        all.extend(other);
        all.sort_unstable();
    }

    fn result(&self, all: &Vec<u64>) -> Vec<u64> {
        all.clone()
    }
}

type Result = (u64, Window, Vec<u64>);
type Out = Windowed<Result, u64>;

fn aggregated(windows: Windows, lateness: i64) -> impl KeyedProcess<u64, u64, Out = Out> {
    WindowOperator::<_, WithLate>::new(windows, lateness, LateCount::default(), Aggregated::new(List))
}

fn elements(windows: Windows, lateness: i64) -> impl KeyedProcess<u64, u64, Out = Out> {
    let f = |key: &u64, window, records: &[&u64]| {
        let mut records: Vec<u64> = records.iter().map(|record| **record).collect();
        records.sort_unstable();
        [(*key, window, records)]
    };
    WindowOperator::<_, WithLate>::new(windows, lateness, LateCount::default(), Elements::new(f))
}

/// What happens to an operator, in order.
enum Step {
    /// A record of key 1 at its own time.
    Record(u64),
    Watermark(i64),
    /// Windows with their records fire.
    Fires(&'static [(i64, i64, &'static [u64])]),
    Late(u64),
    /// So many windows have something.
    Holds(u64),
}

fn follow(name: &str, mut harness: TestHarness<u64, u64, impl KeyedProcess<u64, u64, Out = Out>>, steps: &[Step]) {
    let mut emitted: Vec<(Option<Timestamp>, Out)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Record(time) => harness.push_at(*time as i64, 1, *time).unwrap(),
            Step::Watermark(time) => harness.watermark(*time).unwrap(),
            Step::Fires(windows) => {
                for (start, end, records) in *windows {
                    let result = Windowed::Result((1, window(*start, *end), records.to_vec()));
                    assert!(!emitted.is_empty(), "{name}, step {at}: it does not fire");
                    assert_eq!(emitted.remove(0), (Some(Timestamp(end - 1)), result), "{name}, step {at}");
                }
            }
            Step::Late(record) => {
                let late = (Some(Timestamp(*record as i64)), Windowed::Late(*record));
                assert_eq!(emitted.first(), Some(&late), "{name}, step {at}");
                emitted.remove(0);
            }
            Step::Holds(windows) => assert_eq!(harness.entries("windows"), *windows, "{name}, step {at}"),
        }
        emitted.extend(harness.take());
        let expected = matches!(steps.get(at + 1), Some(Step::Fires(_) | Step::Late(_)));
        assert!(expected || emitted.is_empty(), "{name}, step {at}: {emitted:?}");
    }
}

#[test]
fn windows_fire_and_go_as_flink_has_it() {
    use Step::*;
    let cases: Vec<(&str, Windows, i64, Vec<Step>)> = vec![
        (
            "a tumbling window fires once, with the watermark at its last millisecond",
            Windows::tumbling(ms(10)),
            0,
            vec![
                Record(3),
                Record(9),
                Record(10),
                Watermark(8),
                Holds(2),
                Watermark(9),
                Fires(&[(0, 10, &[3, 9])]),
                Holds(1),
                Record(9),
                Late(9),
                Watermark(i64::MAX),
                Fires(&[(10, 20, &[10])]),
                Holds(0),
            ],
        ),
        (
            "within the lateness each record makes it fire again, with all it has",
            Windows::tumbling(ms(10)),
            5,
            vec![
                Record(3),
                Watermark(9),
                Fires(&[(0, 10, &[3])]),
                Holds(1),
                Record(4),
                Fires(&[(0, 10, &[3, 4])]),
                Watermark(13),
                Record(5),
                Fires(&[(0, 10, &[3, 4, 5])]),
                Watermark(14),
                Holds(0),
                Record(6),
                Late(6),
            ],
        ),
        (
            "a window that nothing came to in time fires for a late record",
            Windows::tumbling(ms(10)),
            5,
            vec![Watermark(12), Record(3), Fires(&[(0, 10, &[3])]), Watermark(14), Holds(0)],
        ),
        (
            "a record is in each sliding window, and late only if it is in none",
            Windows::sliding(ms(10), ms(5)),
            0,
            vec![
                Record(7),
                Holds(2),
                Watermark(9),
                Fires(&[(0, 10, &[7])]),
                Record(8),
                Watermark(14),
                Fires(&[(5, 15, &[7, 8])]),
                Record(9),
                Late(9),
                Holds(0),
            ],
        ),
        (
            "a record between two windows is in none",
            Windows::sliding(ms(4), ms(10)),
            0,
            vec![Record(7), Holds(0), Watermark(9), Record(6), Late(6), Watermark(i64::MAX)],
        ),
        (
            "a session lasts until the gap after its last record",
            Windows::sessions(ms(10)),
            0,
            vec![
                Record(1),
                Record(8),
                Record(30),
                Holds(2),
                Watermark(16),
                Watermark(17),
                Fires(&[(1, 18, &[1, 8])]),
                Holds(1),
                Watermark(39),
                Fires(&[(30, 40, &[30])]),
                Holds(0),
            ],
        ),
        (
            "sessions that touch become one",
            Windows::sessions(ms(10)),
            0,
            vec![Record(1), Record(11), Holds(1), Watermark(20), Fires(&[(1, 21, &[1, 11])])],
        ),
        (
            "sessions that do not touch stay apart until a record joins them",
            Windows::sessions(ms(10)),
            0,
            vec![
                Record(1),
                Record(21),
                Holds(2),
                Record(11),
                Holds(1),
                Watermark(29),
                Watermark(30),
                Fires(&[(1, 31, &[1, 11, 21])]),
                Holds(0),
            ],
        ),
        (
            "a late record joins a session that is open still",
            Windows::sessions(ms(10)),
            0,
            vec![
                Record(15),
                Watermark(20),
                Record(8),
                Holds(1),
                Watermark(24),
                Fires(&[(8, 25, &[8, 15])]),
                Record(9),
                Late(9),
            ],
        ),
        (
            "within the lateness a session that has fired is extended",
            Windows::sessions(ms(10)),
            20,
            vec![
                Record(1),
                Watermark(10),
                Fires(&[(1, 11, &[1])]),
                Record(9),
                Holds(1),
                Watermark(18),
                Fires(&[(1, 19, &[1, 9])]),
                Watermark(37),
                Holds(1),
                Record(2),
                Fires(&[(1, 19, &[1, 2, 9])]),
                Watermark(38),
                Holds(0),
                Record(3),
                Late(3),
            ],
        ),
        (
            "a timer that two sessions share stays when one of them grows",
            Windows::sessions(ms(10)),
            // The first one goes when the second one fires: at 39.
            30,
            vec![
                Record(0),
                Watermark(9),
                Fires(&[(0, 10, &[0])]),
                Record(30),
                Record(5),
                Watermark(14),
                Fires(&[(0, 15, &[0, 5])]),
                Watermark(39),
                Fires(&[(30, 40, &[30])]),
                Watermark(44),
                Holds(1),
                Watermark(69),
                Holds(0),
            ],
        ),
    ];
    for (name, windows, lateness, steps) in cases {
        follow(name, TestHarness::new(aggregated(windows, lateness), 3).unwrap(), &steps);
        follow(name, TestHarness::new(elements(windows, lateness), 2).unwrap(), &steps);
    }
}

/// A record that comes when the wall clock shows `wall`.
fn at_wall(harness: &mut TestHarness<u64, u64, impl KeyedProcess<u64, u64, Out = Out>>, wall: i64, record: u64) {
    harness.processing_time(wall).unwrap();
    // Its own time has no meaning here, and a watermark has none either.
    harness.push_at(5, 1, record).unwrap();
    harness.watermark(wall * 100).unwrap();
}

#[test]
fn windows_by_processing_time_go_by_the_wall_clock() {
    let fired = |start, end, records: &[u64]| {
        (Some(Timestamp(end - 1)), Windowed::Result((1, window(start, end), records.to_vec())))
    };
    let operator = || aggregated(Windows::tumbling(ms(10)).by_processing_time(), 0);
    let mut harness = TestHarness::new(operator(), 1).unwrap();
    for (wall, n) in [(1, 1), (8, 2), (9, 3)] {
        at_wall(&mut harness, wall, n);
    }
    assert_eq!(harness.take(), [], "the last millisecond is not over");
    harness.processing_time(10).unwrap();
    assert_eq!(harness.take(), [fired(0, 10, &[1, 2, 3])]);
    at_wall(&mut harness, 12, 4);
    let mut harness = TestHarness::restore(operator(), 3, &harness.snapshot().unwrap()).unwrap();
    harness.processing_time(50).unwrap();
    assert_eq!(harness.take(), [fired(10, 20, &[4])], "what came due while the job was down fires");
    assert_eq!(harness.entries("windows") + harness.entries("processing-timers"), 0);

    let mut harness = TestHarness::new(elements(Windows::sessions(ms(10)).by_processing_time(), 0), 2).unwrap();
    for (wall, n) in [(1, 1), (10, 2), (19, 3)] {
        at_wall(&mut harness, wall, n);
    }
    assert_eq!(harness.entries("processing-timers"), 1, "those of what was merged are taken back");
    harness.processing_time(28).unwrap();
    assert_eq!(harness.take(), []);
    harness.processing_time(29).unwrap();
    assert_eq!(harness.take(), [fired(1, 29, &[1, 2, 3])]);
    let late = aggregated(Windows::tumbling(ms(10)).by_processing_time(), 1);
    assert!(TestHarness::new(late, 1).err().unwrap().to_string().contains("allowed_lateness"));
}

#[test]
fn what_is_late_is_counted_and_dropped_unless_asked_for() {
    let late = LateCount::default();
    let operator =
        WindowOperator::<_, OnlyResults>::new(Windows::tumbling(ms(10)), 0, late.clone(), Aggregated::new(List));
    let mut harness = TestHarness::new(operator, 1).unwrap();
    harness.watermark(50).unwrap();
    for time in 38..53 {
        harness.push_at(time, 1, time as u64).unwrap();
    }
    assert_eq!(late.get(), 12);
    harness.watermark(i64::MAX).unwrap();
    assert_eq!(harness.take(), [(Some(Timestamp(59)), (1, window(50, 60), vec![50, 51, 52]))]);
}

#[test]
fn a_record_without_time_is_an_error_that_no_retry_mends() {
    let mut harness = TestHarness::new(aggregated(Windows::tumbling(ms(10)), 0), 1).unwrap();
    let error: UserError = harness.push(1, 1).unwrap_err();
    assert!(crate::NonRecoverable::is(&*error), "{error}");
}

#[test]
fn a_busy_session_has_a_timer_and_no_more() {
    let mut harness = TestHarness::new(elements(Windows::sessions(ms(10)), 0), 1).unwrap();
    for time in 0..1_000 {
        harness.push_at(time, 1, time as u64).unwrap();
    }
    assert_eq!((harness.entries("timers"), harness.entries("windows"), harness.entries("records")), (1, 1, 1_000));
}

fn any_windows() -> impl Strategy<Value = Windows> {
    prop_oneof![
        (1..30_u64, -5..5_i64).prop_map(|(size, offset)| match size > 5 {
            true => Windows::tumbling(ms(size)).offset(offset),
            false => Windows::tumbling(ms(size)),
        }),
        (1..30_u64, 1..30_u64).prop_map(|(size, slide)| Windows::sliding(ms(size), ms(slide))),
        (1..15_u64).prop_map(|gap| Windows::sessions(ms(gap))),
    ]
}

/// The windows of one key's records, from the definition.
fn by_definition(windows: Windows, records: &[u64]) -> BTreeMap<Window, Vec<u64>> {
    let mut found: BTreeMap<Window, Vec<u64>> = BTreeMap::new();
    let mut sorted = records.to_vec();
    sorted.sort_unstable();
    match windows.kind {
        Kind::Session { gap } => {
            let mut open: Option<(Window, Vec<u64>)> = None;
            for record in sorted {
                let own = window(record as i64, record as i64 + gap);
                match &mut open {
                    Some((window, all)) if window.end >= own.start => {
                        window.end = own.end;
                        all.push(record);
                    }
                    _ => found.extend(open.replace((own, vec![record]))),
                }
            }
            found.extend(open);
        }
        Kind::Sliding { size, slide } => {
            for record in sorted {
                let time = record as i64;
                for start in (-100..1_000).map(|n| n * slide + windows.offset) {
                    if (start..start + size).contains(&time) {
                        found.entry(window(start, start + size)).or_default().push(record);
                    }
                }
            }
        }
    }
    found
}

#[derive(Clone, Debug)]
enum Event {
    Record(u64, u64),
    Watermark(i64),
    Restore(u32),
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..4_u64, 0..120_u64).prop_map(|(key, time)| Event::Record(key, time)),
        2 => (0..130_i64).prop_map(Event::Watermark),
        1 => (1..9_u32).prop_map(Event::Restore),
    ];
    proptest::collection::vec(event, 0..120)
}

/// Runs the events; without restores, if they are not wanted.
fn emitted<P: KeyedProcess<u64, u64, Out = Out>>(operator: P, events: &[Event], restores: bool) -> Vec<Out> {
    let mut harness = TestHarness::new(operator.clone(), 1).unwrap();
    let mut all = Vec::new();
    for event in events {
        match event {
            Event::Record(key, time) => harness.push_at(*time as i64, *key, *time).unwrap(),
            Event::Watermark(time) => harness.watermark(*time).unwrap(),
            Event::Restore(parallelism) if restores => {
                let snapshot = harness.snapshot().unwrap();
                harness = TestHarness::restore(operator.clone(), *parallelism, &snapshot).unwrap();
            }
            Event::Restore(_) => {}
        }
        // Those that one watermark lets fire come subtask by subtask.
        let mut of_step: Vec<_> = harness.take().into_iter().map(|(_, out)| out).collect();
        of_step.sort_by_key(|out| format!("{out:?}"));
        all.extend(of_step);
    }
    harness.watermark(i64::MAX).unwrap();
    let mut of_step: Vec<_> = harness.take().into_iter().map(|(_, out)| out).collect();
    of_step.sort_by_key(|out| format!("{out:?}"));
    all.extend(of_step);
    for state in ["windows", "records", "timers"] {
        assert_eq!(harness.entries(state), 0, "{state} at the end");
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// If nothing is late, the last result of each window is what its definition says, however records and watermarks
    /// come, and no matter whether an accumulator or the records are kept, or the operator was restored in between.
    #[test]
    fn the_last_results_are_those_of_the_definition(windows in any_windows(), events in any_events()) {
        let mut records: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for event in &events {
            if let Event::Record(key, time) = event {
                records.entry(*key).or_default().push(*time);
            }
        }
        let out = emitted(aggregated(windows, 1_000), &events, true);
        prop_assert_eq!(&out, &emitted(elements(windows, 1_000), &events, true));
        let mut last: BTreeMap<(u64, Window), Vec<u64>> = BTreeMap::new();
        for out in out {
            match out {
                Windowed::Result((key, window, records)) => drop(last.insert((key, window), records)),
                Windowed::Late(record) => prop_assert!(false, "{record} is late"),
            }
        }
        for (key, records) in records {
            for (window, records) in by_definition(windows, &records) {
                prop_assert_eq!(last.get(&(key, window)), Some(&records), "key {}, {:?}", key, window);
            }
        }
    }

    /// With late records too, a restore anywhere, at any parallelism, changes nothing.
    #[test]
    fn a_restore_changes_no_result(windows in any_windows(), lateness in 0..30_i64, events in any_events()) {
        prop_assert_eq!(
            emitted(aggregated(windows, lateness), &events, true),
            emitted(aggregated(windows, lateness), &events, false)
        );
        prop_assert_eq!(
            emitted(elements(windows, lateness), &events, true),
            emitted(aggregated(windows, lateness), &events, false)
        );
    }
}
