//! Whatever is written, read, viewed and scanned, in whatever order: RocksDB says what the tier in memory says.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::ops::ControlFlow;

use common::{TempTier, header};
use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{ColdBatch, ColdState, ColdTier, ColdView, ModelTier, StateKind, group_prefix};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const STATES: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Write(u32, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Get(u32, Vec<Vec<u8>>),
    GetAll(u32, Vec<Vec<u8>>),
    View,
    DropView(usize),
    Scan { view: usize, state: u32, first: u16, more: u16, limit: usize },
    Flush,
}

/// Few names, so that writes meet: some begin with others, and some stand at the ends of a group.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![3 => vec(prop::sample::select(vec![0, 1, b'a', 255]), 0..4), 1 => vec(any::<u8>(), 0..40)];
    (prop::sample::select(vec![0_u16, 1, 2, 255, 256, 32_767]), key)
        .prop_map(|(group, key)| [&group_prefix(KeyGroup(group))[..], &key].concat())
}

fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        5 => vec(any::<u8>(), 0..50).prop_map(Some),
        1 => (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| Some(vec![byte; length])),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..STATES, vec((any_name(), any_value()), 0..40)).prop_map(|(state, writes)| Step::Write(state, writes)),
        4 => (0..STATES, vec(any_name(), 0..300)).prop_map(|(state, names)| Step::Get(state, names)),
        4 => (0..STATES, vec((any_name(), 0..4_usize), 0..20)).prop_map(|(state, names)| {
            Step::GetAll(state, names.into_iter().map(|(name, less)| name[..name.len().saturating_sub(less)].to_vec()).collect())
        }),
        2 => Just(Step::View),
        1 => any::<usize>().prop_map(Step::DropView),
        4 => (any::<usize>(), 0..STATES, prop::sample::select(vec![0_u16, 1, 200, 32_767]), 0..300_u16, 1..200_usize)
            .prop_map(|(view, state, first, more, limit)| Step::Scan { view, state, first, more, limit }),
        1 => Just(Step::Flush),
    ]
}

fn get<T: ColdTier>(tier: &T, state: ColdState, names: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut values = vec![None; names.len()];
    let mut found = |at: usize, value: &[u8]| assert_eq!(values[at].replace(value.to_vec()), None, "found once");
    tier.get(state, names, &mut found).unwrap();
    values
}

fn scan(view: &dyn ColdView, state: ColdState, groups: KeyGroupRange, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut visit = |name: &[u8], value: &[u8]| {
        entries.push((name.to_vec(), value.to_vec()));
        if entries.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    view.scan(state, groups, &mut visit).unwrap();
    entries
}

fn get_all<T: ColdTier>(tier: &T, state: ColdState, prefixes: &[&[u8]]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = vec![Vec::new(); prefixes.len()];
    tier.get_all(state, prefixes, &mut |at, name, value| entries[at].push((name.to_vec(), value.to_vec()))).unwrap();
    entries
}

/// Takes the steps on both; how many entries were found and scanned in all.
fn run(rocks: &TempTier, steps: Vec<Step>) -> usize {
    let model = ModelTier::default();
    let open = |tier: &dyn ColdTier| -> Vec<_> {
        (0..STATES).map(|n| tier.open(&header(&format!("state {n}"), StateKind::Map)).unwrap()).collect()
    };
    let states: Vec<_> = open(rocks).into_iter().zip(open(&model)).collect();
    let (mut views, mut compared) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Write(state, writes) => {
                let mut batch = ColdBatch::default();
                for (name, value) in &writes {
                    match value {
                        Some(value) => batch.put(name, value),
                        None => batch.delete(name),
                    }
                }
                rocks.write(states[state as usize].0, &batch).unwrap();
                model.write(states[state as usize].1, &batch).unwrap();
            }
            Step::Get(state, names) => {
                let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
                let found = get(rocks, states[state as usize].0, &names);
                assert_eq!(found, get(&model, states[state as usize].1, &names));
                compared += found.iter().flatten().count();
            }
            Step::GetAll(state, prefixes) => {
                let prefixes: Vec<&[u8]> = prefixes.iter().map(Vec::as_slice).collect();
                let found = get_all(rocks, states[state as usize].0, &prefixes);
                assert_eq!(found, get_all(&model, states[state as usize].1, &prefixes));
                compared += found.iter().flatten().count();
            }
            Step::View => views.push((rocks.view().unwrap(), model.view().unwrap())),
            Step::DropView(at) if !views.is_empty() => drop(views.remove(at % views.len())),
            Step::Scan { view, state, first, more, limit } if !views.is_empty() => {
                let (of_rocks, of_model) = &views[view % views.len()];
                let state = states[state as usize];
                let groups = KeyGroupRange { first: KeyGroup(first), last: KeyGroup(first + more) };
                let scanned = scan(&**of_rocks, state.0, groups, limit);
                assert_eq!(scanned, scan(&**of_model, state.1, groups, limit));
                compared += scanned.len();
            }
            Step::DropView(_) | Step::Scan { .. } => {}
            Step::Flush => rocks.tier.flush().unwrap(),
        }
    }
    compared
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn it_says_what_the_model_says(steps in vec(any_step(), 0..60)) {
        run(&TempTier::new(), steps);
    }

    #[test]
    fn it_says_so_also_if_all_lies_in_files(steps in vec(any_step(), 0..40)) {
        run(&TempTier::tiny(), steps);
    }
}

/// Else the comparisons above might be of nothing.
#[test]
fn most_schedules_find_something() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let compared: Vec<usize> = (0..10)
        .map(|_| {
            let steps = vec(any_step(), 30..60).new_tree(&mut runner).unwrap().current();
            run(&TempTier::new(), steps)
        })
        .collect();
    assert!(compared.iter().filter(|compared| **compared > 100).count() > 5, "{compared:?}");
}
