use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::testing::{BroadcastTestHarness, HarnessSnapshot, ProcessTestHarness};
use crate::{
    BroadcastState, GraphError, Job, KeyedBroadcastProcess, OperatorListState, OperatorStates, Process, ProcessContext,
    RecordContext, StatesError, Timestamp, UnionListState, UserError, ValueState, discard, from_iter,
};

/// A state of each kind, written by the records and told by the last one.
#[derive(Clone, Default)]
struct AllKinds {
    items: OperatorListState<u64>,
    union: UnionListState<String>,
    rules: BroadcastState<u32, String>,
}

#[derive(Clone, Debug)]
enum Record {
    Item(u64),
    Union(u64),
    Rule(u32, u64),
    Tell,
}

/// What a subtask has.
type Told = (Vec<u64>, Vec<String>, BTreeMap<u32, String>);

impl Process<Record> for AllKinds {
    type Out = Told;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.items = states.list("items")?;
        self.union = states.union_list("union")?;
        self.rules = states.broadcast("rules")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut RecordContext<'_, Told>, record: Record) -> Result<(), UserError> {
        match record {
            Record::Item(n) => cx.operator_state(self.items)?.push(n),
            Record::Union(n) => cx.operator_state(self.union)?.push(n.to_string()),
            Record::Rule(key, n) => drop(cx.operator_state(self.rules)?.insert(key, n.to_string())),
            Record::Tell => {
                let (items, union) = (cx.operator_state(self.items)?.clone(), cx.operator_state(self.union)?.clone());
                let told = (items, union, cx.operator_state(self.rules)?.clone());
                cx.emit(told);
            }
        }
        Ok(())
    }
}

type Harness = ProcessTestHarness<Record, AllKinds>;

fn tell(harness: &mut Harness, parallelism: u32) -> Vec<Told> {
    (0..parallelism).for_each(|subtask| harness.push(subtask, Record::Tell).unwrap());
    harness.take().into_iter().map(|(_, told)| told).collect()
}

/// The same by a model.
fn restored(before: &[Told], parallelism: usize) -> Vec<Told> {
    let items: Vec<u64> = before.iter().flat_map(|told| told.0.clone()).collect();
    let union: Vec<String> = before.iter().flat_map(|told| told.1.clone()).collect();
    (0..parallelism)
        .map(|subtask| {
            let spread = || items.iter().copied().skip(subtask).step_by(parallelism).collect();
            let own = (before.len() == parallelism).then(|| before[subtask].0.clone());
            (own.unwrap_or_else(spread), union.clone(), before[subtask % before.len()].2.clone())
        })
        .collect()
}

fn record() -> impl Strategy<Value = (u32, Record)> {
    let record = prop_oneof![
        (0..1_000_u64).prop_map(Record::Item),
        (0..1_000_u64).prop_map(Record::Union),
        (0..5_u32, 0..1_000_u64).prop_map(|(key, n)| Record::Rule(key, n)),
    ];
    (0..9_u32, record)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written at any parallelism, restored at any other and written again: each kind of operator state is
    /// spread as it says, and nothing is lost or doubled.
    #[test]
    fn all_kinds_of_operator_state_survive_any_change_of_parallelism(
        rounds in proptest::collection::vec((1..=9_u32, proptest::collection::vec(record(), 0..60)), 1..4),
    ) {
        let mut harness = Harness::new(AllKinds::default(), 1).unwrap();
        let mut model: Vec<Told> = vec![Told::default()];
        for (parallelism, records) in rounds {
            let snapshot = harness.snapshot().unwrap();
            harness = Harness::restore(AllKinds::default(), parallelism, &snapshot).unwrap();
            model = restored(&model, parallelism as usize);
            prop_assert_eq!(&tell(&mut harness, parallelism), &model);
            for (at, record) in records {
                let subtask = at % parallelism;
                match record {
                    Record::Item(n) => model[subtask as usize].0.push(n),
                    Record::Union(n) => model[subtask as usize].1.push(n.to_string()),
                    Record::Rule(key, n) => {
                        model.iter_mut().for_each(|told| drop(told.2.insert(key, n.to_string())));
                        (0..parallelism).for_each(|subtask| harness.push(subtask, record.clone()).unwrap());
                        continue;
                    }
                    Record::Tell => {}
                }
                harness.push(subtask, record).unwrap();
            }
            prop_assert_eq!(&tell(&mut harness, parallelism), &model);
        }
        // Items of lists, too, at a parallelism that none of the rounds had.
        let snapshot = harness.snapshot().unwrap();
        let mut harness = Harness::restore(AllKinds::default(), 10, &snapshot).unwrap();
        prop_assert_eq!(tell(&mut harness, 10), restored(&model, 10));
    }
}

/// An operator with the states that the test declares.
#[derive(Clone)]
struct Declares(fn(&mut OperatorStates<'_>) -> Result<(), UserError>);

impl Process<Record> for Declares {
    type Out = Told;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        (self.0)(states)
    }

    fn process(&mut self, _: &mut RecordContext<'_, Told>, _: Record) -> Result<(), UserError> {
        Ok(())
    }
}

fn some_state() -> HarnessSnapshot {
    let mut harness = Harness::new(AllKinds::default(), 2).unwrap();
    harness.push(1, Record::Item(7)).unwrap();
    harness.push(1, Record::Union(8)).unwrap();
    harness.snapshot().unwrap()
}

fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

#[test]
fn a_state_that_was_dropped_or_changed_is_refused_by_operator_and_name_and_a_new_one_begins_empty() {
    type Declare = fn(&mut OperatorStates<'_>) -> Result<(), UserError>;
    let cases: [(&str, Declare, &[&str]); 5] = [
        ("both lists are gone", |_| Ok(()), &["has a state items"]),
        ("one is gone", |states| Ok(states.list::<u64>("items").map(drop)?), &["has a state union"]),
        (
            "another type",
            |states| Ok(states.list::<u32>("items").map(drop)?),
            &["the operator-list state items of operator", "written as u64, now u32"],
        ),
        (
            "another kind",
            |states| Ok(states.union_list::<u64>("items").map(drop)?),
            &["the union-list state items of operator", "written as operator-list, now union-list"],
        ),
        (
            "what open makes of it is not what is told",
            |states| {
                let items = states.list::<bool>("items")?;
                states.operator_state(items)?.first().ok_or("it is empty").map(drop).map_err(UserError::from)
            },
            &["written as u64, now bool"],
        ),
    ];
    for (name, declare, expected) in cases {
        let error = ProcessTestHarness::restore(Declares(declare), 3, &some_state()).err().unwrap();
        let text = text(&*error);
        assert!(expected.iter().all(|part| text.contains(part)), "{name}: {text}");
    }
    let kept: Declare = |states| {
        states.list::<u64>("items")?;
        states.union_list::<String>("union")?;
        let new = states.list::<u64>("new")?; // and the empty map is no longer declared
        assert!(states.is_restored() && states.operator_state(new)?.is_empty());
        Ok(())
    };
    ProcessTestHarness::restore(Declares(kept), 3, &some_state()).unwrap();
}

#[test]
fn wrong_declarations_are_errors_of_the_graph() {
    let error = |declare| {
        let job = Job::new("test");
        let records = job.source("in", from_iter([0_u64])).map(Record::Item);
        records.process_with("op", Declares(declare)).sink("out", discard());
        job.build().unwrap_err()
    };
    let twice = error(|states| {
        states.list::<u64>("x")?;
        Ok(states.broadcast::<u64, String>("x").map(drop)?)
    });
    assert!(matches!(twice, GraphError::States(StatesError::DuplicateName { .. })), "{twice:?}");
    let text = twice.to_string();
    assert!(
        text.contains("operator-list of u64") && text.contains("broadcast of u64 to alloc::string::String"),
        "{text}"
    );
    let name = error(|states| Ok(states.list::<u64>("").map(drop)?));
    assert!(matches!(name, GraphError::States(StatesError::Name { .. })), "{name:?}");
    let other = error(|_| Err("no reason".into()));
    assert!(matches!(other, GraphError::Open { .. }), "{other:?}");
    let stale = error(|states| {
        let list = states.list::<u64>("x")?;
        let union = UnionListState::<u64>::at(list.place);
        Ok(states.operator_state(union).map(drop)?)
    });
    assert!(matches!(stale, GraphError::States(StatesError::Undeclared { .. })), "{stale:?}");
}

#[test]
fn operator_state_that_no_record_can_hold_fails_for_good_and_says_what_to_do() {
    let declare = |states: &mut OperatorStates<'_>| {
        let list = states.list::<String>("large")?;
        // With 128 subtasks each may have 1 MiB.
        *states.operator_state(list)? = vec!["x".repeat(600 << 10); 2];
        Ok(())
    };
    ProcessTestHarness::new(Declares(declare), 64).unwrap().snapshot().unwrap();
    let error = ProcessTestHarness::new(Declares(declare), 128).unwrap().snapshot().unwrap_err();
    assert!(crate::NonRecoverable::is(&*error));
    let text = text(&*error);
    assert!(
        text.contains("of operator, with large") && text.contains("1048576 bytes") && text.contains("by key"),
        "{text}"
    );
}

#[test]
fn at_the_end_of_the_input_an_operator_gives_out_what_it_kept() {
    #[derive(Clone, Default)]
    struct Pairs(OperatorListState<u64>);

    impl Process<u64> for Pairs {
        type Out = Vec<u64>;

        fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
            self.0 = states.list("open")?;
            Ok(())
        }

        fn process(&mut self, cx: &mut RecordContext<'_, Vec<u64>>, n: u64) -> Result<(), UserError> {
            let open = cx.operator_state(self.0)?;
            open.push(n);
            if open.len() == 2 {
                let pair = std::mem::take(open);
                cx.emit(pair);
            }
            Ok(())
        }

        fn on_watermark(&mut self, cx: &mut RecordContext<'_, Vec<u64>>, time: Timestamp) -> Result<(), UserError> {
            if time == Timestamp::MAX {
                let rest = std::mem::take(cx.operator_state(self.0)?);
                cx.emit_at(Timestamp(cx.subtask().into()), rest);
            }
            Ok(())
        }
    }

    let mut harness = ProcessTestHarness::new(Pairs::default(), 1).unwrap();
    for n in 0..5 {
        harness.push(0, n).unwrap();
    }
    harness.watermark(1_000).unwrap();
    assert_eq!(harness.take(), [(None, vec![0, 1]), (None, vec![2, 3])]);
    harness.watermark(i64::MAX).unwrap();
    assert_eq!(harness.take(), [(Some(Timestamp(0)), vec![4])]);
}

/// Prefixes words by a rule of their length, with a number and, after some time, a farewell.
#[derive(Clone, Default)]
struct Ruled {
    rules: BroadcastState<usize, String>,
    seen: ValueState<String>,
}

impl KeyedBroadcastProcess<String, u64, (usize, String)> for Ruled {
    type State = u64;
    type Out = String;

    fn initial(&self) -> u64 {
        0
    }

    fn open(&mut self, states: &mut crate::States<'_, String>) -> Result<(), UserError> {
        self.seen = states.value("seen")?;
        Ok(())
    }

    fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.rules = states.broadcast("rules")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, String, u64, String>, n: u64) -> Result<(), UserError> {
        let rules = cx.broadcast_state(self.rules)?; // which goes on while the state of the key changes
        let rule = rules.get(&cx.key().len()).map_or("-", String::as_str);
        *cx.state()? += n;
        cx.value(self.seen)?.set(rule.to_owned())?;
        let told = format!("{rule} {} {}", cx.key(), cx.peek()?.copied().unwrap_or_default());
        cx.register_timer(Timestamp(100))?;
        cx.emit(told);
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        cx: &mut RecordContext<'_, String>,
        (length, rule): (usize, String),
    ) -> Result<(), UserError> {
        let before = cx.operator_state(self.rules)?.insert(length, rule);
        if let (Some(before), 0) = (before, cx.subtask()) {
            cx.emit(format!("no longer {before}"));
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, String, u64, String>, _: Timestamp) -> Result<(), UserError> {
        let rules = cx.broadcast_state(self.rules)?.len();
        let seen = cx.value(self.seen)?.get()?.cloned().unwrap_or_default();
        let told = format!("bye {} {seen} {rules}", cx.key());
        cx.emit(told);
        Ok(())
    }
}

#[test]
fn keyed_records_read_what_broadcast_ones_have_made_at_any_parallelism() {
    let mut harness = BroadcastTestHarness::new(Ruled::default(), 3).unwrap();
    let taken = |harness: &mut BroadcastTestHarness<_, _, _, _>| -> Vec<String> {
        let mut taken: Vec<_> = harness.take().into_iter().map(|(_, told)| told).collect();
        taken.sort_unstable();
        taken
    };
    harness.push("a".to_owned(), 1).unwrap();
    harness.broadcast((1, "one".to_owned())).unwrap();
    harness.broadcast((1, "single".to_owned())).unwrap();
    harness.broadcast((2, "two".to_owned())).unwrap();
    harness.push("bb".to_owned(), 5).unwrap();
    assert_eq!(taken(&mut harness), ["- a 1", "no longer one", "two bb 5"]);
    for parallelism in [7, 3, 1] {
        let snapshot = harness.snapshot().unwrap();
        harness = BroadcastTestHarness::restore(Ruled::default(), parallelism, &snapshot).unwrap();
        for word in ["a", "bb", "cc", "d"] {
            harness.push(word.to_owned(), 1).unwrap();
        }
        let told = taken(&mut harness);
        assert!(told[0].starts_with("single a") && told[3].starts_with("two cc"), "{told:?}");
    }
    harness.watermark(100).unwrap();
    assert_eq!(taken(&mut harness), ["bye a single 2", "bye bb two 2", "bye cc two 2", "bye d single 2"]);
}

#[test]
fn keyed_and_operator_states_of_one_operator_share_their_names() {
    let error = |name: &'static str| {
        let job = Job::new("test");
        let rules = job.source("rules", from_iter([0_u64]));
        let keyed = job.source("in", from_iter([0_u64])).key_by(|n| *n).connect_broadcast(rules);
        let declare = move |states: &mut OperatorStates<'_>| states.broadcast::<u64, u64>(name);
        let stream = keyed.process(
            "op",
            declare,
            |_: &mut ProcessContext<'_, u64, u64, u64>, _, _| Ok(()),
            |_: &mut RecordContext<'_, u64>, _, _| Ok(()),
        );
        stream.sink("out", discard());
        job.build().map(drop)
    };
    assert_eq!(error("rules"), Ok(()));
    let taken = error("value").unwrap_err().to_string();
    assert!(taken.contains("the operator's own value"), "{taken}");
}
