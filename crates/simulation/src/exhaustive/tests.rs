use super::*;

/// Small, and yet every mistake shows in it.
fn small() -> Bounds {
    Bounds { restarts: 0, faults: 1, cancels: 0, ..Bounds::default() }
}

#[test]
fn every_mistake_is_found_by_the_rule_it_breaks() {
    let cases = [
        (Mutant::UnknownIsFailure, "no file of a retained checkpoint is deleted", 9),
        (Mutant::NoFence, "a record never changes", 6),
        (Mutant::NotifyBeforeDurable, "completed is said only of what is in the log", 9),
        (Mutant::ForgetSettling, "no file of a retained checkpoint is deleted", 9),
        (Mutant::DeleteRetained, "no file of a retained checkpoint is deleted", 12),
        (Mutant::LateLands, "who opens has claimed", 17),
        (Mutant::StaleRead, "nothing is refused", 9),
    ];
    for (mutant, rule, steps) in cases {
        let report = search(&small(), Some(mutant));
        let violation = report.violation.unwrap_or_else(|| panic!("{mutant:?} is not found"));
        assert_eq!((violation.rule, violation.trace.len()), (rule, steps), "{mutant:?}: {violation:#?}");
        assert!(!report.complete, "{mutant:?}");
    }
}

#[test]
fn the_trace_tells_what_happened() {
    let violation = search(&small(), Some(Mutant::UnknownIsFailure)).violation.expect("it is found");
    assert_eq!(
        violation.trace,
        [
            "coordinator 1: read boundary 1 -- nothing there",
            "coordinator 1: read slot 0 -- nothing there",
            "coordinator 1: read boundary 1 -- nothing there",
            "coordinator 1: create slot 0 (claim of epoch 1) -- created",
            "coordinator 1: read boundary 1 -- nothing there; opened, epoch 1, from nothing",
            "coordinator 1: a checkpoint is asked for",
            "coordinator 1: the task acknowledges; wrote chk/1-1",
            "coordinator 1: create slot 1 (checkpoint 1 of epoch 1) -- nobody knows, and it may take effect later; record \
             failed; deletes chk/1-1",
            "late: slot 1 (checkpoint 1 of epoch 1) is created",
        ]
    );
}

#[test]
fn a_search_that_gives_up_says_so() {
    let report = search(&Bounds { most_states: 100, ..small() }, None);
    assert!(!report.complete && report.violation.is_none(), "{report:?}");
}

#[test]
fn two_searches_are_the_same() {
    let bounds = Bounds { requests: 1, ..small() };
    assert_eq!(format!("{:?}", search(&bounds, None)), format!("{:?}", search(&bounds, None)));
}

#[test]
fn with_more_left_nothing_is_missed() {
    let left = Left::of(&Bounds::default());
    let less = Left { faults: left.faults - 1, ..left };
    let other = Left { restarts: 0, faults: left.faults + 1, ..left };
    assert!(left.covers(left) && left.covers(less) && !less.covers(left));
    assert!(!left.covers(other) && !other.covers(left));
}
