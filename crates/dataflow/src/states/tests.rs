use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::testing::TestHarness;
use crate::{GraphError, Job, KeyedProcess, ProcessContext, UserError, discard, from_iter};

/// What a key has in states of all kinds, told after each record.
#[derive(Clone, Default)]
struct AllKinds {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
    largest: ReducingState<u64>,
    mean: AggregatingState<u64, Mean>,
    ttl: Option<Ttl>,
}

#[derive(Clone)]
struct Mean;

impl Aggregate<u64> for Mean {
    type Accumulator = (u64, u64);
    type Out = u64;

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, sum: &mut (u64, u64), record: u64) {
        *sum = (sum.0 + record, sum.1 + 1);
    }

    fn merge(&self, sum: &mut (u64, u64), other: (u64, u64)) {
        *sum = (sum.0 + other.0, sum.1 + other.1);
    }

    fn result(&self, sum: &(u64, u64)) -> u64 {
        sum.0 / sum.1
    }
}

/// Value, list, map, largest and mean of a key.
type Told = (Option<u64>, Vec<u64>, Vec<(u64, u64)>, Option<u64>, Option<u64>);

/// A record: written into the states, or only read if it is 0.
impl KeyedProcess<u64, u64> for AllKinds {
    type State = ();
    type Out = (u64, Told);

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        let mut states = states.ttl(self.ttl);
        self.value = states.value("last")?;
        self.list = states.list("all")?;
        self.map = states.map("by-rest")?;
        self.largest = states.reducing("largest", |largest, record: u64| *largest = record.max(*largest))?;
        self.mean = states.aggregating("mean", Mean)?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, (), (u64, Told)>, record: u64) -> Result<(), UserError> {
        if record > 0 {
            cx.value(self.value)?.set(record)?;
            cx.list(self.list)?.push(record)?;
            *cx.map(self.map)?.get_or_insert_with(&(record % 5), || 0)? += record;
            cx.reducing(self.largest)?.add(record)?;
            cx.aggregating(self.mean)?.add(record)?;
        }
        let value = cx.value(self.value)?.get()?.copied();
        let list: Vec<u64> = cx.list(self.list)?.iter()?.copied().collect();
        let map: Vec<(u64, u64)> = cx.map(self.map)?.iter()?.map(|(rest, sum)| (*rest, *sum)).collect();
        let largest = cx.reducing(self.largest)?.get()?.copied();
        let mean = cx.aggregating(self.mean)?.get()?;
        let told = (value, list, map, largest, mean);
        assert_eq!(cx.list(self.list)?.is_empty(), told.1.is_empty());
        assert_eq!(cx.map(self.map)?.is_empty(), told.2.is_empty());
        let key = *cx.key();
        cx.emit((key, told));
        Ok(())
    }
}

type Harness = TestHarness<u64, u64, AllKinds>;

fn tell(harness: &mut Harness, key: u64) -> Told {
    let _ = harness.take();
    harness.push(key, 0).unwrap();
    harness.take().remove(0).1.1
}

/// The same by a model: the records of each key.
fn expected(records: &[u64]) -> Told {
    let mut map = BTreeMap::new();
    for record in records {
        *map.entry(record % 5).or_insert(0) += record;
    }
    let mean = (!records.is_empty()).then(|| records.iter().sum::<u64>() / records.len() as u64);
    (records.last().copied(), records.to_vec(), map.into_iter().collect(), records.iter().max().copied(), mean)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is written at any parallelism, restored at any other and written again: all kinds of state are as if
    /// nothing had happened.
    #[test]
    fn all_kinds_of_state_survive_any_change_of_parallelism(
        rounds in proptest::collection::vec(
            (1..=9_u32, proptest::collection::vec((0..20_u64, 1..1_000_u64), 0..200)),
            1..5,
        ),
    ) {
        let mut model: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut harness = Harness::new(AllKinds::default(), 1).unwrap();
        for (parallelism, records) in rounds {
            let snapshot = harness.snapshot().unwrap();
            harness = Harness::restore(AllKinds::default(), parallelism, &snapshot).unwrap();
            for (key, record) in records {
                harness.push(key, record).unwrap();
                let records = model.entry(key).or_default();
                records.push(record);
                prop_assert_eq!(&harness.take()[..], &[(None, (key, expected(records)))]);
            }
        }
        for key in 0..20 {
            let records = model.remove(&key).unwrap_or_default();
            prop_assert_eq!(tell(&mut harness, key), expected(&records));
        }
    }
}

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis))
}

const NOTHING: Told = (None, Vec::new(), Vec::new(), None, None);

#[test]
fn what_has_expired_is_never_returned_whatever_the_kind() {
    let mut harness = Harness::new(AllKinds { ttl: Some(ttl(100)), ..AllKinds::default() }, 1).unwrap();
    harness.processing_time(1_000).unwrap();
    harness.push(1, 7).unwrap();
    harness.processing_time(1_050).unwrap();
    harness.push(1, 8).unwrap();
    harness.processing_time(1_099).unwrap();
    assert_eq!(tell(&mut harness, 1), expected(&[7, 8]));
    harness.processing_time(1_100).unwrap();
    let (value, list, map, largest, mean) = tell(&mut harness, 1);
    assert_eq!(list, [8], "a list expires element by element");
    assert_eq!(map, [(3, 8)], "a map expires entry by entry");
    assert_eq!((value, largest, mean), (Some(8), Some(8), Some(7)), "written at 1,050 at the latest");
    harness.processing_time(1_150).unwrap();
    assert_eq!(tell(&mut harness, 1), NOTHING);
}

#[test]
fn reads_renew_only_where_that_is_asked_for() {
    for (name, ttl, expected) in [
        ("written at 0 and read at 90", ttl(100), NOTHING),
        ("read and written", ttl(100).on_read_and_write(), expected(&[7])),
    ] {
        let mut harness = Harness::new(AllKinds { ttl: Some(ttl), ..AllKinds::default() }, 1).unwrap();
        harness.processing_time(1).unwrap();
        harness.push(1, 7).unwrap();
        harness.processing_time(91).unwrap();
        let _ = tell(&mut harness, 1);
        harness.processing_time(189).unwrap();
        assert_eq!(tell(&mut harness, 1), expected, "{name}");
    }
}

#[test]
fn by_event_time_the_watermark_decides() {
    let ttl = Some(ttl(100).by_event_time());
    let mut harness = Harness::new(AllKinds { ttl, ..AllKinds::default() }, 1).unwrap();
    harness.push_at(1_000, 1, 7).unwrap();
    harness.processing_time(1 << 40).unwrap();
    harness.watermark(1_099).unwrap();
    assert_eq!(tell(&mut harness, 1), expected(&[7]));
    harness.watermark(1_100).unwrap();
    assert_eq!(tell(&mut harness, 1), NOTHING);
    // A late record counts as written now: it would else be gone at once.
    harness.push_at(1_000, 1, 9).unwrap();
    assert_eq!(tell(&mut harness, 1), expected(&[9]));
    harness.watermark(i64::MAX).unwrap();
    assert_eq!(tell(&mut harness, 1), expected(&[9]), "the end of the input is no time");
}

const NAMES: [&str; 5] = ["last", "all", "by-rest", "largest", "mean"];

#[test]
fn snapshots_leave_out_what_has_expired() {
    let all = AllKinds { ttl: Some(ttl(100)), ..AllKinds::default() };
    let mut harness = Harness::new(all.clone(), 1).unwrap();
    harness.processing_time(50).unwrap();
    for key in 0..1_000 {
        harness.push(key, 1).unwrap();
    }
    harness.processing_time(100).unwrap();
    harness.push(1_000, 1).unwrap();
    harness.processing_time(150).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let mut restored = Harness::restore(all, 2, &snapshot).unwrap();
    for name in NAMES {
        assert_eq!(restored.entries(name), 1, "{name}");
    }
}

#[test]
fn what_has_expired_is_removed_in_the_background() {
    let mut harness = Harness::new(AllKinds { ttl: Some(ttl(100)), ..AllKinds::default() }, 1).unwrap();
    harness.processing_time(50).unwrap();
    for key in 0..1_000 {
        harness.push(key, 1).unwrap();
    }
    harness.processing_time(500).unwrap();
    for _ in 0..100 {
        harness.push(5_000, 1).unwrap();
    }
    for name in NAMES {
        assert!(harness.entries(name) <= 2, "{name} has {} entries", harness.entries(name));
    }
}

#[test]
fn a_time_to_live_can_be_given_and_taken_between_attempts() {
    let endless = AllKinds::default();
    let short = AllKinds { ttl: Some(ttl(100)), ..AllKinds::default() };
    let mut harness = Harness::new(endless.clone(), 1).unwrap();
    harness.processing_time(1_000).unwrap();
    harness.push(1, 7).unwrap();

    let mut harness = Harness::restore(short, 1, &harness.snapshot().unwrap()).unwrap();
    harness.processing_time(5_000).unwrap();
    assert_eq!(tell(&mut harness, 1), expected(&[7]), "its time begins when it is first met");
    harness.processing_time(5_100).unwrap();
    assert_eq!(tell(&mut harness, 1), NOTHING);

    harness.push(2, 8).unwrap();
    let mut harness = Harness::restore(endless, 1, &harness.snapshot().unwrap()).unwrap();
    harness.processing_time(1 << 40).unwrap();
    assert_eq!(tell(&mut harness, 2), expected(&[8]));
}

/// An operator with the states that the test declares.
#[derive(Clone)]
struct Declares(fn(&mut States<'_, u64>) -> Result<(), StatesError>);

impl KeyedProcess<u64, u64> for Declares {
    type State = ();
    type Out = u64;

    fn initial(&self) {}

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        Ok((self.0)(states)?)
    }

    fn process(&mut self, _: &mut ProcessContext<'_, u64, (), u64>, _: u64) -> Result<(), UserError> {
        Ok(())
    }
}

fn graph_error(declare: fn(&mut States<'_, u64>) -> Result<(), StatesError>) -> String {
    let job = Job::new("test");
    job.source("in", from_iter(0..9_u64)).key_by(|n| *n).process_with("op", Declares(declare)).sink("out", discard());
    let error = job.build().unwrap_err();
    assert!(matches!(error, GraphError::States(_)), "{error:?}");
    error.to_string()
}

#[test]
fn wrong_declarations_are_errors_of_the_graph() {
    let twice = graph_error(|states| {
        states.map::<String, u64>("seen")?;
        states.value::<i32>("seen").map(drop)
    });
    assert!(twice.contains("named seen") && twice.contains("map of alloc::string::String to u64"), "{twice}");
    assert!(twice.contains("named-value of i32") && twice.contains("operator op"), "{twice}");
    let own = graph_error(|states| states.list::<u64>("timers").map(drop));
    assert!(own.contains("its event-time timers") && own.contains("list of u64"), "{own}");
    let name = graph_error(|states| states.list::<u64>("a\nb").map(drop));
    assert!(name.contains(r#""a\nb""#), "{name}");
    let ttl = graph_error(|states| states.ttl(Ttl::new(Duration::from_micros(999))).list::<u64>("x").map(drop));
    assert!(ttl.contains("less than a millisecond"), "{ttl}");
    let many = graph_error(|states| (0..1_025).try_for_each(|n| states.value::<u64>(&n.to_string()).map(drop)));
    assert!(many.contains("1024"), "{many}");
}

#[test]
fn a_handle_that_was_not_declared_is_an_error() {
    #[derive(Clone, Default)]
    struct Forgets(ValueState<u64>);

    impl KeyedProcess<u64, u64> for Forgets {
        type State = ();
        type Out = u64;

        fn initial(&self) {}

        fn process(&mut self, cx: &mut ProcessContext<'_, u64, (), u64>, n: u64) -> Result<(), UserError> {
            Ok(cx.value(self.0)?.set(n)?)
        }
    }

    let error = TestHarness::new(Forgets::default(), 1).unwrap().push(1, 1).unwrap_err();
    assert!(error.to_string().contains("was not declared"), "{error}");
}

#[test]
fn an_added_state_begins_empty_and_a_dropped_one_is_refused() {
    let mut harness = Harness::new(AllKinds::default(), 1).unwrap();
    harness.push(1, 7).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let error = TestHarness::restore(Declares(|_| Ok(())), 1, &snapshot).err().unwrap();
    assert!(error.to_string().contains("has a state last"), "{error}");
    let changed = Declares(|states| states.value::<u32>("last").map(drop));
    let error = TestHarness::restore(changed, 1, &snapshot).err().unwrap();
    assert!(error.to_string().contains("u64, now u32"), "{error}");

    let before = TestHarness::new(Declares(|_| Ok(())), 1).unwrap().snapshot().unwrap();
    let mut harness = Harness::restore(AllKinds::default(), 1, &before).unwrap();
    assert_eq!(tell(&mut harness, 1), NOTHING);
}
