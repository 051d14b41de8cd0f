//! Every run of the commit log in some small worlds. A debug build walks through smaller ones.

use std::num::{NonZeroU8, NonZeroU32};

use cutwater_simulation::exhaustive::{Bounds, Report, search};

fn walk(name: &str, bounds: &Bounds) -> Report {
    let report = search(bounds, None);
    let Report { states, transitions, depth, pruned, coordinators, logs, alone, .. } = &report;
    println!(
        "{name}: {states} states, {transitions} steps, depth {depth}, {pruned} steps beyond the bounds, \
         {coordinators} states of a coordinator, {logs} logs, {alone} left alone"
    );
    if let Some(violation) = &report.violation {
        panic!("{name}: {}: {}\n{}", violation.rule, violation.detail, violation.trace.join("\n"));
    }
    assert!(report.complete, "{name}: there are more than {} states", bounds.most_states);
    report
}

fn per_boundary(slots: u8) -> NonZeroU8 {
    NonZeroU8::new(slots).expect("not zero")
}

/// The main world; in debug one in which a boundary passes each slot, so that less is needed to see all.
fn main_world() -> Bounds {
    if cfg!(debug_assertions) {
        Bounds { slots_per_boundary: per_boundary(1), restarts: 0, requests: 1, faults: 1, ..Bounds::default() }
    } else {
        Bounds::default()
    }
}

#[test]
fn no_run_of_the_main_world_breaks_a_promise() {
    let report = walk("main", &main_world());
    for mark in [
        "a create lands late",
        "a deletion lands late",
        "a record lands below a boundary",
        "boundary moved",
        "completed",
        "failover with a record on its way",
        "given up by a failover or an end",
        "opened empty",
        "outcome recorded",
        "outcome recorded, though contested",
        "record failed",
        "record overtaken",
        "restarted empty",
        "restored in an attempt",
        "restored newest",
        "rival lost",
        "settled by another's claim",
        "settled by rival",
        "slot deleted",
        "slots not deleted",
        "superseded",
    ] {
        assert!(report.marks.contains_key(mark), "never came about: {mark}");
    }
}

#[test]
fn no_run_with_a_boundary_at_each_slot_breaks_a_promise() {
    let (faults, failovers) = if cfg!(debug_assertions) { (1, 0) } else { (2, 1) };
    let bounds = Bounds { requests: 1, cancels: 0, faults, failovers, ..Bounds::default() };
    let report = walk("a boundary at each slot", &Bounds { slots_per_boundary: per_boundary(1), ..bounds });
    for mark in ["crash with a record on its way", "a record lands below a boundary", "a deletion lands late"] {
        assert!(report.marks.contains_key(mark), "never came about: {mark}");
    }
}

#[test]
fn no_run_with_more_checkpoints_breaks_a_promise() {
    let bounds = Bounds { slots: 5, failovers: 0, cancels: 0, faults: 0, requests: 4, ..Bounds::default() };
    let restarts = u8::from(!cfg!(debug_assertions));
    let report =
        walk("two retained", &Bounds { restarts, num_retained: NonZeroU32::new(2).expect("not zero"), ..bounds });
    for mark in ["a record lands below a boundary", "boundary moved", "restored newest", "slot deleted", "superseded"] {
        assert!(report.marks.contains_key(mark), "never came about: {mark}");
    }
}

#[test]
fn no_run_with_a_longer_log_breaks_a_promise() {
    let bounds = Bounds { slots: 4, failovers: 0, cancels: 0, faults: 1, requests: 3, ..Bounds::default() };
    let restarts = u8::from(!cfg!(debug_assertions));
    let report =
        walk("four slots", &Bounds { restarts, num_retained: NonZeroU32::new(2).expect("not zero"), ..bounds });
    for mark in ["boundary moved", "files not deleted", "restored newest", "settled by rival", "slots not deleted"] {
        assert!(report.marks.contains_key(mark), "never came about: {mark}");
    }
}
