//! One function for each sentence of the contract of a [`ColdTier`]. Each panics if a tier breaks it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cutwater_core::{KeyGroup, KeyGroupRange, OperatorUid};
use cutwater_state::{
    CodecId, ColdBatch, ColdState, ColdTier, ColdView, Schema, StateHeader, StateKind, encode, group_of_name,
    group_prefix, stamp_of_value,
};

use crate::harness::max_parallelism;

pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn header(operator: &str, name: &str, kind: StateKind) -> StateHeader {
    StateHeader {
        operator: OperatorUid::new(operator).expect("a valid uid"),
        name: name.to_owned(),
        kind,
        key_codec: CodecId::Bytes,
        key_schema: Schema::Bytes,
        value_codec: CodecId::Bytes,
        value_schema: Schema::Bytes,
        max_parallelism: max_parallelism(),
    }
}

pub(crate) fn open<T: ColdTier>(tier: &T, name: &str) -> ColdState {
    tier.open(&header("operator", name, StateKind::Map)).expect("a state can be opened")
}

pub(crate) fn name_of(group: u16, key: &[u8]) -> Vec<u8> {
    [&group_prefix(KeyGroup(group))[..], key].concat()
}

pub(crate) fn groups(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

/// Writes all of it as one batch; without a value the name is deleted.
pub(crate) fn write<T: ColdTier>(tier: &T, state: ColdState, writes: &[(&[u8], Option<&[u8]>)]) {
    let mut batch = ColdBatch::default();
    for (name, value) in writes {
        match value {
            Some(value) => batch.put(name, value),
            None => batch.delete(name),
        }
    }
    tier.write(state, &batch).expect("it can be written");
}

pub(crate) fn put<T: ColdTier>(tier: &T, state: ColdState, name: &[u8], value: &[u8]) {
    write(tier, state, &[(name, Some(value))]);
}

pub(crate) fn get<T: ColdTier>(tier: &T, state: ColdState, name: &[u8]) -> Option<Vec<u8>> {
    let mut values = get_all(tier, state, &[name]);
    values.pop().expect("one for each name")
}

/// The values in the order of the names.
fn get_all<T: ColdTier>(tier: &T, state: ColdState, names: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut values = vec![None; names.len()];
    let mut found = |at: usize, value: &[u8]| {
        assert_eq!(values[at].replace(value.to_vec()), None, "the name {at} is found once");
    };
    tier.get(state, names, &mut found).expect("it can be read");
    values
}

fn scan(view: &dyn ColdView, state: ColdState, groups: KeyGroupRange) -> Entries {
    let mut entries = Entries::new();
    let mut visit = |name: &[u8], value: &[u8]| {
        entries.push((name.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    view.scan(state, groups, &mut visit).expect("it can be read");
    entries
}

/// All there is now.
pub(crate) fn contents<T: ColdTier>(tier: &T, state: ColdState) -> Entries {
    scan(&*tier.view().expect("there can be a view"), state, groups(0, u16::MAX))
}

/// Thousands of entries in the key groups `0..10`, written in no order and in several batches, some twice and some deleted;
/// returns what is there then.
pub(crate) fn many<T: ColdTier>(tier: &T, state: ColdState) -> Entries {
    let mut expected = BTreeMap::new();
    for round in 0..3_u64 {
        let mut batch = ColdBatch::default();
        for n in 0..2_000_u64 {
            let key = n * 7_919 % 3_000 + round * 100;
            let name = name_of((key % 10) as u16, &key.to_be_bytes()[8 - (key % 3 + 2) as usize..]);
            if key % 11 == round {
                batch.delete(&name);
                expected.remove(&name);
            } else {
                let value = format!("value {key} of round {round}").into_bytes();
                batch.put(&name, &value);
                expected.insert(name, value);
            }
        }
        tier.write(state, &batch).expect("it can be written");
    }
    expected.into_iter().collect()
}

/// Batches as a sweep makes them: names that are removed, then entries whose key groups rise, and in between what comes late.
/// Each is told to `write`.
fn swept(mut write: impl FnMut(&ColdBatch)) {
    let name = |n: u64| name_of((n % 10) as u16, &(n * 7_919 % 6_007).to_be_bytes());
    let all = |groups: &[u64]| (0..3_000).filter(|n| groups.contains(&(n % 10))).collect::<Vec<u64>>();
    let mut batch = ColdBatch::default();
    let mut send = |of: &[u64], value: &dyn Fn(u64) -> Option<String>| {
        for n in all(of) {
            match value(n) {
                Some(value) => batch.put(&name(n), value.repeat(8).as_bytes()),
                None if n % 3 == 0 => batch.delete(&name(n)),
                None => {}
            }
        }
        write(&batch);
        batch.clear();
    };
    send(&[0, 1, 2, 3, 4], &|_| None);
    send(&[5, 6, 7, 8, 9], &|_| None);
    send(&[0, 1, 2], &|n| (n % 5 == 0).then(|| format!("first {n}")));
    send(&[2, 3, 4], &|n| (n % 2 == 0).then(|| format!("second {n}")));
    send(&[1, 2], &|n| (n % 9 == 0).then(|| format!("late {n}")));
    send(&[0, 3], &|_| None);
    send(&[4, 5, 6, 7, 8, 9], &|n| (n % 4 != 0).then(|| format!("third {n}")));
}

/// As [`many`], some of it [loaded](ColdTier::load) before the rest is written.
pub(crate) fn many_loaded<T: ColdTier>(tier: &T, state: ColdState) -> Entries {
    let mut expected = BTreeMap::new();
    let mut load = tier.load(state).expect("it can begin");
    swept(|batch| {
        for (name, value) in batch.iter() {
            match value {
                Some(value) => expected.insert(name.to_vec(), value.to_vec()),
                None => expected.remove(name),
            };
        }
        let done = load.as_mut().map_or_else(|| tier.write(state, batch), |load| load.write(batch));
        done.expect("it can be written");
    });
    load.map_or(Ok(()), |load| load.finish()).expect("it can be finished");
    expected.extend(many(tier, state));
    expected.into_iter().collect()
}

/// What is loaded is written, whatever its order, once the load is finished.
pub fn what_is_loaded_is_written_once_the_load_is_finished<T: ColdTier>(make: impl Fn() -> T) {
    // Into an empty state, into one with entries in memory, and into one that has been loaded before.
    for (filled, loads) in [(false, 1), (true, 1), (false, 2)] {
        let (tier, expected) = (make(), make());
        let (state, same) = (open(&tier, "state"), open(&expected, "state"));
        let beside = open(&tier, "beside");
        put(&tier, beside, &name_of(3, b"key"), b"value");
        if filled {
            many(&tier, state);
            many(&expected, same);
        }
        for _ in 0..loads {
            let before = contents(&tier, state);
            let Some(mut load) = tier.load(state).expect("it can begin") else {
                swept(|batch| tier.write(state, batch).expect("it can be written"));
                continue;
            };
            swept(|batch| load.write(batch).expect("it can be taken"));
            assert_eq!(contents(&tier, state), before, "nothing is seen before it is finished");
            load.finish().expect("it can be finished");
        }
        (0..loads).for_each(|_| swept(|batch| expected.write(same, batch).expect("it can be written")));
        assert!(contents(&tier, state) == contents(&expected, same), "filled: {filled}, loads: {loads}");
        assert_eq!(contents(&tier, beside), [(name_of(3, b"key"), b"value".to_vec())]);
        put(&tier, state, &name_of(1, b"later"), b"value");
        assert_eq!(get(&tier, state, &name_of(1, b"later")), Some(b"value".to_vec()));
    }
}

/// A load that is not finished leaves the tier as it was.
pub fn a_load_that_is_not_finished_leaves_nothing<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    if let Some(mut load) = tier.load(state).expect("it can begin") {
        swept(|batch| load.write(batch).expect("it can be taken"));
    }
    assert_eq!(contents(&tier, state), []);
    let expected = many(&tier, state);
    assert_eq!(contents(&tier, state), expected);
}

/// A read sees every earlier write of any thread.
pub fn a_read_sees_every_earlier_write_of_any_thread<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let name = name_of(1, b"key");
    assert_eq!(get(&tier, state, &name), None);
    for round in 0..50_u8 {
        std::thread::scope(|threads| {
            threads.spawn(|| put(&tier, state, &name, &[round]));
        });
        assert_eq!(get(&tier, state, &name), Some(vec![round]), "written by another thread");
        put(&tier, state, &name, &[round, 0]);
        assert_eq!(get(&tier, state, &name), Some(vec![round, 0]), "written by this thread");
    }
}

/// A lookup of many names finds each that is there, in whatever order they stand and however often.
pub fn a_lookup_finds_each_of_many_names<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let expected: BTreeMap<_, _> = many(&tier, state).into_iter().collect();
    let mut names: Vec<Vec<u8>> = expected.keys().rev().step_by(3).cloned().collect();
    names.extend((0..500_u16).map(|n| name_of(n % 10, &b"absent"[..(n % 7) as usize])));
    names.extend(expected.keys().take(300).cloned());
    names.extend(expected.keys().take(300).cloned());
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let found = get_all(&tier, state, &names);
    assert!(found.iter().flatten().count() > 1_000, "there is something to find");
    for (name, value) in names.iter().zip(found) {
        assert_eq!(value.as_ref(), expected.get(*name), "{name:?}");
    }
    assert_eq!(get_all(&tier, state, &[]), []);
}

/// A lookup by prefixes finds all entries whose names begin with them, and no others: those of each prefix in the order of their
/// names, whatever bytes it has and in whatever order the prefixes stand, also where one begins with another.
pub fn a_lookup_by_prefixes_finds_all_that_begin_with_them<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let (state, other) = (open(&tier, "state"), open(&tier, "another state"));
    let mut expected: BTreeMap<_, _> = many(&tier, state).into_iter().collect();
    many(&tier, other);
    let edges =
        [&b"\xff"[..], b"\xff\xff", b"\xff\xff\xff", b"\xff\xfe\xff", b"", b"\0", b"\0\0", b"\0\0\x01\xff", b"\x01"];
    for (edge, group) in edges.iter().flat_map(|edge| [(edge, 3), (edge, 0x00ff), (edge, u16::MAX)]) {
        let name = name_of(group, edge);
        put(&tier, state, &name, edge);
        put(&tier, other, &name, b"of another state");
        expected.insert(name, edge.to_vec());
    }
    let deleted: Vec<_> = expected.keys().step_by(3).cloned().collect();
    for name in &deleted {
        write(&tier, state, &[(name, None)]);
        expected.remove(name);
    }
    let mut prefixes: Vec<Vec<u8>> = (0..12_u16).rev().map(|group| name_of(group, b"")).collect();
    prefixes.extend(expected.keys().step_by(17).cloned());
    prefixes.extend(deleted.iter().step_by(29).cloned());
    prefixes.extend(expected.keys().step_by(5).map(|name| name[..name.len() - 1].to_vec()));
    prefixes.extend(edges.iter().flat_map(|edge| [name_of(3, edge), name_of(0x00ff, edge), name_of(u16::MAX, edge)]));
    prefixes.extend([vec![], vec![0], vec![255], name_of(3, b""), name_of(500, b"absent")]);
    let asked: Vec<&[u8]> = prefixes.iter().map(Vec::as_slice).collect();
    let mut found = vec![Entries::new(); asked.len()];
    tier.get_all(state, &asked, &mut |at, name, value| found[at].push((name.to_vec(), value.to_vec())))
        .expect("it can be read");
    assert!(found.iter().filter(|found| !found.is_empty()).count() > 100, "there is something to find");
    for (prefix, found) in prefixes.iter().zip(found) {
        let all = expected.iter().filter(|(name, _)| name.starts_with(prefix));
        let all: Entries = all.map(|(name, value)| (name.clone(), value.clone())).collect();
        assert_eq!(found, all, "{prefix:?}");
    }
    tier.get_all(state, &[], &mut |_, _, _| panic!("nothing was asked for")).expect("it can be read");
}

/// A range begins at its name, whether that is there or not, and ends with its last key group, or when it is told to stop: it visits
/// the entries between in the order of their names, each once, as they are after all earlier writes.
pub fn a_range_begins_at_its_name_and_ends_with_its_group<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let (state, other) = (open(&tier, "state"), open(&tier, "another state"));
    let mut expected: BTreeMap<_, _> = many(&tier, state).into_iter().collect();
    many(&tier, other);
    for (edge, group) in
        [(&b""[..], 3), (b"\xff\xff\xff", 3), (b"\xff", 0x00ff), (b"", 0x0100), (b"\xff\xff", u16::MAX)]
    {
        put(&tier, state, &name_of(group, edge), edge);
        expected.insert(name_of(group, edge), edge.to_vec());
    }
    let range = |from: &[u8], last: u16, most: usize| {
        let mut visited = Entries::new();
        let mut visit = |name: &[u8], value: &[u8]| {
            visited.push((name.to_vec(), value.to_vec()));
            if visited.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        tier.range(state, from, KeyGroup(last), &mut visit).expect("it can be read");
        visited
    };
    let mut froms: Vec<Vec<u8>> = expected.keys().step_by(101).cloned().collect();
    froms.extend((0..12).map(|group| name_of(group, b"")));
    froms.extend([
        vec![],
        vec![0],
        name_of(3, b"\xff\xff\xff\0"),
        name_of(4, b"\xff"),
        name_of(u16::MAX, b"\xff\xff\xff"),
    ]);
    // What is read again has been deleted meanwhile, or is another value, or has come.
    for round in 0..3 {
        for (n, from) in froms.iter().enumerate() {
            for (last, most) in [(3, 5), (9, 1), (9, usize::MAX), (0x00ff, usize::MAX), (u16::MAX, 3_000)] {
                let within = |name: &[u8]| group_of_name(name).is_some_and(|group| group.0 <= last);
                let all = expected.range(from.clone()..).filter(|(name, _)| within(name)).take(most);
                let all: Entries = all.map(|(name, value)| (name.clone(), value.clone())).collect();
                assert_eq!(range(from, last, most), all, "from {from:?} to {last}, {most} at the most");
            }
            let name = if from.len() < 2 { name_of(9, from) } else { from.clone() };
            if (n + round) % 3 == 0 {
                write(&tier, state, &[(&name, None)]);
                expected.remove(&name);
            } else {
                put(&tier, state, &name, &[round as u8]);
                expected.insert(name, vec![round as u8]);
            }
        }
    }
    assert_eq!(range(&name_of(9, b""), 8, usize::MAX), [], "it ends before it begins");
}

/// Of the writes of one batch the last one of a name counts.
pub fn of_one_batch_the_last_write_of_a_name_counts<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let [a, b, c] = [b"a", b"b", b"c"].map(|key| name_of(0, key));
    let writes: [(&[u8], Option<&[u8]>); 7] = [
        (&c, Some(b"1")),
        (&a, Some(b"1")),
        (&b, None),
        (&a, Some(b"2")),
        (&c, None),
        (&b, Some(b"2")),
        (&a, Some(b"3")),
    ];
    write(&tier, state, &writes);
    let expected = [Some(b"3".to_vec()), Some(b"2".to_vec()), None];
    assert_eq!(get_all(&tier, state, &[&a, &b, &c]), expected);
    assert_eq!(contents(&tier, state), [(a, b"3".to_vec()), (b, b"2".to_vec())]);
}

/// A deleted name is gone, whether it was there or not, and can be put again.
pub fn a_deleted_name_is_gone<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let [gone, never, again] = [&b"gone"[..], b"never", b"again"].map(|key| name_of(3, key));
    write(&tier, state, &[(&gone, Some(b"1")), (&again, Some(b"1"))]);
    write(&tier, state, &[(&gone, None), (&never, None), (&again, None)]);
    assert_eq!(get_all(&tier, state, &[&gone, &never, &again]), [None, None, None]);
    assert_eq!(contents(&tier, state), []);
    put(&tier, state, &again, b"2");
    assert_eq!(contents(&tier, state), [(again, b"2".to_vec())]);
}

/// Names do not disturb each other, not even where one begins with the other.
pub fn names_do_not_disturb_each_other<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let names = [&b""[..], b"\0", b"\0\0", b"a", b"a\0", b"aa", b"b", b"\xff", b"\xff\xff"].map(|key| name_of(2, key));
    for name in &names {
        put(&tier, state, name, name);
    }
    write(&tier, state, &[(&names[4], None), (&names[7], None)]);
    put(&tier, state, &names[1], b"new");
    for (at, name) in names.iter().enumerate() {
        let expected = match at {
            1 => Some(b"new".to_vec()),
            4 | 7 => None,
            _ => Some(name.clone()),
        };
        assert_eq!(get(&tier, state, name), expected, "{name:?}");
    }
}

/// States do not disturb each other, also if the same names are in them.
pub fn states_do_not_disturb_each_other<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let states = ["one", "two", "three"].map(|name| open(&tier, name));
    let name = name_of(5, b"key");
    put(&tier, states[0], &name, b"1");
    put(&tier, states[1], &name, b"2");
    put(&tier, states[1], &name_of(6, b"key"), b"2");
    write(&tier, states[0], &[(&name, None)]);
    let expected = many(&tier, states[2]);
    assert_eq!(get(&tier, states[0], &name), None);
    assert_eq!(contents(&tier, states[0]), []);
    assert_eq!(contents(&tier, states[1]).len(), 2);
    assert_eq!(contents(&tier, states[2]), expected);
}

/// A scan visits the entries of the groups asked for in the order of their names, each once.
pub fn a_scan_visits_the_groups_asked_for_in_order<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let expected = many(&tier, state);
    let edge = name_of(u16::MAX, b"\xff\xff");
    put(&tier, state, &edge, b"the last group of all");
    let view = tier.view().expect("there can be a view");
    for (first, last) in [(0, 9), (0, 0), (3, 5), (9, 9), (7, 500), (10, 500)] {
        let within = |name: &[u8]| group_of_name(name).is_some_and(|group| (first..=last).contains(&group.0));
        let expected: Entries = expected.iter().filter(|(name, _)| within(name)).cloned().collect();
        assert_eq!(scan(&*view, state, groups(first, last)), expected, "groups {first} to {last}");
    }
    assert_eq!(scan(&*view, state, groups(10, u16::MAX)), [(edge, b"the last group of all".to_vec())]);
}

/// A scan goes on until it is told to stop.
pub fn a_scan_stops_when_it_is_told<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let expected = many(&tier, state);
    let view = tier.view().expect("there can be a view");
    for limit in [1, 2, 1_000] {
        let mut visited = Entries::new();
        let mut visit = |name: &[u8], value: &[u8]| {
            visited.push((name.to_vec(), value.to_vec()));
            if visited.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        view.scan(state, groups(0, 9), &mut visit).expect("it can be read");
        assert_eq!(visited, expected[..limit]);
    }
}

/// A view is the tier as it was at the call, in all states, whatever is written later.
pub fn a_view_is_the_tier_as_it_was_at_the_call<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let states = ["one", "two"].map(|name| open(&tier, name));
    let expected = many(&tier, states[0]);
    let view = tier.view().expect("there can be a view");
    for (name, _) in &expected {
        write(&tier, states[0], &[(name, None), (&name_of(4, name), Some(b"later"))]);
    }
    put(&tier, states[0], &expected[7].0, b"overwritten");
    put(&tier, states[1], &name_of(1, b"key"), b"later");
    let late = open(&tier, "opened later");
    put(&tier, late, &name_of(1, b"key"), b"later");
    assert_eq!(scan(&*view, states[0], groups(0, 9)), expected);
    assert_eq!(scan(&*view, states[1], groups(0, 9)), []);
    assert_eq!(scan(&*view, late, groups(0, 9)), []);
    assert_eq!(scan(&*view, states[0], groups(0, 9)), expected, "as often as it is asked");
    assert_eq!(contents(&tier, states[0]).len(), expected.len() + 1);
}

/// A view stays as it was after later views, and after those before it are gone.
pub fn a_view_stays_after_later_views<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let mut views = Vec::new();
    for round in 0..10_u8 {
        put(&tier, state, &name_of(0, &[round % 3]), &[round]);
        views.push((tier.view().expect("there can be a view"), contents(&tier, state)));
        if round % 4 == 3 {
            views.remove(0);
        }
        for (view, expected) in &views {
            assert_eq!(scan(&**view, state, groups(0, 0)), *expected, "in round {round}");
        }
    }
}

/// A view can be read by another thread while the tier is written.
pub fn a_view_can_be_read_while_the_tier_is_written<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let expected = many(&tier, state);
    let view = tier.view().expect("there can be a view");
    std::thread::scope(|threads| {
        let reader = threads.spawn(move || (0..5).map(|_| scan(&*view, state, groups(0, 9))).collect::<Vec<_>>());
        for (name, _) in &expected {
            write(&tier, state, &[(name, None)]);
        }
        for scanned in reader.join().expect("the reader does not panic") {
            assert_eq!(scanned, expected);
        }
    });
    assert_eq!(contents(&tier, state), []);
}

/// Two threads may read and write at the same time, each its own state.
pub fn two_threads_may_use_two_states_at_once<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let work = |name: &str| {
        let state = open(&tier, name);
        let expected = many(&tier, state);
        for (name, value) in &expected {
            assert_eq!(get(&tier, state, name).as_ref(), Some(value));
        }
        assert_eq!(contents(&tier, state), expected);
    };
    std::thread::scope(|threads| {
        threads.spawn(|| work("one"));
        work("two");
    });
}

/// Any bytes can be a name or a value, empty ones too.
pub fn any_bytes_can_be_a_name_or_a_value<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let mut names: Vec<Vec<u8>> = (0..=255).map(|byte| name_of(u16::from(byte % 3), &[byte])).collect();
    names.extend([name_of(0, b""), name_of(1, b""), vec![], vec![0], vec![255], name_of(2, &[0; 3_000])]);
    let values: Vec<Vec<u8>> = (0..names.len()).map(|n| vec![n as u8; n % 5]).collect();
    for (name, value) in names.iter().zip(&values) {
        put(&tier, state, name, value);
    }
    let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    assert_eq!(get_all(&tier, state, &asked), values.iter().cloned().map(Some).collect::<Vec<_>>());
    let mut expected: Entries = names.into_iter().zip(values).filter(|(name, _)| name.len() >= 2).collect();
    expected.sort();
    assert_eq!(contents(&tier, state), expected, "names without a whole group are in none");
}

/// Values may have megabytes.
pub fn values_may_have_megabytes<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let value =
        |n: u8| -> Vec<u8> { (0..5_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ n).collect() };
    let names: Vec<_> = (0..5).map(|n| name_of(1, &[n])).collect();
    let mut batch = ColdBatch::default();
    for (n, name) in (0..).zip(&names) {
        batch.put(name, &value(n));
    }
    tier.write(state, &batch).expect("it can be written");
    let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    for (n, found) in (0..).zip(get_all(&tier, state, &asked)) {
        assert!(found == Some(value(n)), "the value {n} comes back as it was");
    }
    assert_eq!(contents(&tier, state).iter().map(|(_, value)| value.len()).sum::<usize>(), 25 << 20);
}

/// A state that is opened again by the same header is the same.
pub fn a_state_opened_again_is_the_same<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    put(&tier, state, &name_of(0, b"key"), b"value");
    open(&tier, "another");
    assert_eq!(open(&tier, "state"), state);
    assert_eq!(get(&tier, open(&tier, "state"), &name_of(0, b"key")), Some(b"value".to_vec()));
}

/// A state of another header is another: by operator, name or kind, also where these look alike.
pub fn a_state_of_another_header_is_another<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let mut states = Vec::new();
    for operator in ["a", "a.b", "b"] {
        for name in ["", "a", "A", "b.a", "a/b", "a%2fb", "default", "\0", "\u{e4}", " "] {
            for kind in [StateKind::Value, StateKind::Map, StateKind::List] {
                states.push(tier.open(&header(operator, name, kind)).expect("a state can be opened"));
            }
        }
    }
    let name = name_of(0, b"key");
    for (n, state) in states.iter().enumerate() {
        put(&tier, *state, &name, &n.to_be_bytes());
    }
    for (n, state) in states.iter().enumerate() {
        assert_eq!(get(&tier, *state, &name), Some(n.to_be_bytes().to_vec()));
    }
}

/// It says about how many entries a state has, and 0 of an empty one alone.
pub fn it_says_about_how_many_entries_there_are<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let (state, empty) = (open(&tier, "state"), open(&tier, "empty"));
    let about = |state| tier.about(state).expect("it can be known");
    assert_eq!((about(state), about(empty)), (0, 0));
    put(&tier, state, &name_of(3, b"key"), b"value");
    assert_eq!((about(state), about(empty)), (1, 0));
    let there = many(&tier, state).len() as u64;
    assert!((there / 4..there * 4).contains(&about(state)), "about {} of {there}", about(state));
}

/// What it lets expire it may leave out at any time, but not of views made before; nothing else goes with it.
pub fn what_expires_may_go_but_nothing_else_and_not_from_earlier_views<T: ColdTier>(make: impl Fn() -> T) {
    const HORIZON: i64 = 1_000;
    let tier = make();
    let (state, other) = (open(&tier, "state"), open(&tier, "other"));
    let stamps = [None, Some(i64::MIN + 1), Some(-5), Some(0), Some(999), Some(1_000), Some(1_001), Some(i64::MAX)];
    let mut written = Entries::new();
    let mut batch = ColdBatch::default();
    for n in 0..4_000_u32 {
        let mut value = Vec::new();
        encode(&(stamps[n as usize % stamps.len()], format!("value {n}")), &mut value).expect("it can be encoded");
        let name = name_of((n % 10) as u16, &n.to_be_bytes());
        batch.put(&name, &value);
        written.push((name, value));
    }
    batch.sort();
    written.sort_unstable();
    for state in [state, other] {
        tier.write(state, &batch).expect("it can be written");
    }
    let before = tier.view().expect("there can be a view");
    tier.expire(state, HORIZON);
    tier.expire(state, HORIZON - 500); // says nothing
    let living: Entries =
        written.iter().filter(|(_, value)| stamp_of_value(value).is_none_or(|it| it > HORIZON)).cloned().collect();
    let may_be = |found: &Entries, what: &str| {
        assert!(living.iter().all(|entry| found.binary_search(entry).is_ok()), "{what}: all that lives is there");
        assert!(
            found.iter().all(|entry| written.binary_search(entry).is_ok()),
            "{what}: and nothing that was never written"
        );
    };
    for round in 0..5_u32 {
        assert_eq!(scan(&*before, state, groups(0, u16::MAX)), written, "of the view before nothing goes");
        assert_eq!(contents(&tier, other), written, "another state is not concerned");
        may_be(&contents(&tier, state), "a view after it");
        // What is written later counts as what was there.
        put(&tier, other, &name_of(20, &round.to_be_bytes()), b"");
        write(&tier, other, &[(&name_of(20, &round.to_be_bytes()), None)]);
    }
    drop(before);
    tier.expire(state, HORIZON);
    may_be(&contents(&tier, state), "without a view");
    for (name, value) in living.iter().step_by(37) {
        assert_eq!(get(&tier, state, name).as_ref(), Some(value));
    }
    // A name that was let go is as free as any.
    let (name, _) = written.iter().find(|(_, value)| stamp_of_value(value) == Some(0)).expect("one of the stamps");
    let mut renewed = Vec::new();
    encode(&(Some(HORIZON + 5), "renewed".to_owned()), &mut renewed).expect("it can be encoded");
    put(&tier, state, name, &renewed);
    assert_eq!(get(&tier, state, name), Some(renewed));
}
