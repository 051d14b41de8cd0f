use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Operator, class and position; 0 is a position that is not known.
    Fail(u8, u8, u8),
    FailSomewhere,
    Restore(u8),
    Checkpoint(u8),
}
use Event::{Checkpoint, Fail, FailSomewhere, Restore};

fn run(events: &[Event]) -> Vec<(usize, NoProgress)> {
    let mut watch = ProgressWatch::new(NonZeroU32::new(3).unwrap());
    let mut found = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let said = match *event {
            Fail(operator, class, position) => {
                let at = u64::from(position);
                let position = (at > 0).then(|| SourceRange { source: "lines".to_owned(), first: at, last: at });
                let site = FailureSite { operator: operator.to_string(), class: class.to_string(), position };
                watch.handle_failure(Some(&site))
            }
            FailSomewhere => watch.handle_failure(None),
            Restore(at) => watch.handle_restore(&[at]),
            Checkpoint(at) => {
                watch.handle_checkpoint(&[at]);
                None
            }
        };
        found.extend(said.map(|said| (index, said)));
    }
    found
}

#[test]
fn a_job_makes_no_progress_if_it_fails_at_the_same_place_or_starts_from_it_again_and_again() {
    let cases: [(&str, &[Event], &[usize]); 11] = [
        (
            "the third of the same",
            &[Restore(1), Fail(1, 1, 1), Restore(1), Fail(1, 1, 1), Restore(1), Fail(1, 1, 1)],
            &[5],
        ),
        (
            "also while other sources get on",
            &[Fail(1, 1, 1), Restore(2), Fail(1, 1, 1), Restore(3), Fail(1, 1, 1), Restore(4), Fail(1, 1, 1)],
            &[4, 6],
        ),
        ("another operator begins a new row", &[Fail(1, 1, 1), Fail(1, 1, 1), Fail(2, 1, 1), Fail(1, 1, 1)], &[]),
        ("another class too", &[Fail(1, 1, 1), Fail(1, 1, 1), Fail(1, 2, 1), Fail(1, 1, 1)], &[]),
        ("another place too", &[Fail(1, 1, 1), Fail(1, 1, 1), Fail(1, 1, 2), Fail(1, 1, 2)], &[]),
        ("a place that is not known makes no row", &[Fail(1, 1, 0), Fail(1, 1, 0), Fail(1, 1, 0), Fail(1, 1, 0)], &[]),
        (
            "the third restore after a failure with the sources where they were",
            &[Restore(1), FailSomewhere, Restore(1), Fail(1, 1, 5), Restore(1), Fail(1, 1, 6), Restore(1)],
            &[6],
        ),
        (
            "a source that has advanced begins a new row",
            &[
                Restore(1),
                FailSomewhere,
                Restore(1),
                FailSomewhere,
                Restore(1),
                FailSomewhere,
                Restore(2),
                FailSomewhere,
                Restore(2),
            ],
            &[],
        ),
        (
            "so does a checkpoint with a source further on",
            &[
                Restore(1),
                FailSomewhere,
                Restore(1),
                FailSomewhere,
                Restore(1),
                Checkpoint(2),
                FailSomewhere,
                Restore(2),
            ],
            &[],
        ),
        (
            "and one with all sources where they were does not",
            &[
                Restore(1),
                FailSomewhere,
                Restore(1),
                Checkpoint(1),
                FailSomewhere,
                Restore(1),
                FailSomewhere,
                Restore(1),
            ],
            &[7],
        ),
        ("starts without a failure between them do not count", &[Restore(1), Restore(1), Restore(1), Restore(1)], &[]),
    ];
    for (name, events, expected) in cases {
        let found: Vec<usize> = run(events).into_iter().map(|(index, _)| index).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn it_says_what_it_has_seen() {
    let found = run(&[Fail(7, 8, 9), Fail(7, 8, 9), Fail(7, 8, 9)]);
    let expected = "operator 7 failed 3 times in a row with the same error (8) at record 9 of lines";
    assert_eq!(found[0].1.to_string(), expected);
    assert_eq!(
        NoProgress::SamePositions { restores: 4 }.to_string(),
        "4 restores in a row, and no source has got any further"
    );
}

#[test]
fn of_batches_the_records_count_that_were_in_all_of_them() {
    let found = |ranges: &[(&str, u64, u64)]| {
        let mut watch = ProgressWatch::new(NonZeroU32::new(3).unwrap());
        let mut found = None;
        for (source, first, last) in ranges {
            let position = Some(SourceRange { source: (*source).to_owned(), first: *first, last: *last });
            let site = FailureSite { operator: "o".to_owned(), class: "c".to_owned(), position };
            found = watch.handle_failure(Some(&site));
        }
        found.map(|found| found.to_string())
    };
    type Case = (&'static str, &'static [(&'static str, u64, u64)], Option<&'static str>);
    let cases: [Case; 4] = [
        ("they overlap", &[("a", 1, 10), ("a", 5, 20), ("a", 8, 9)], Some("at records 8 to 9 of a")),
        ("down to one", &[("a", 1, 10), ("a", 5, 20), ("a", 10, 30)], Some("at record 10 of a")),
        ("two by two, and not all", &[("a", 1, 10), ("a", 10, 20), ("a", 20, 30)], None),
        ("of another source", &[("a", 1, 10), ("a", 1, 10), ("b", 1, 10)], None),
    ];
    for (name, ranges, expected) in cases {
        let said = found(ranges);
        assert_eq!(said.is_some(), expected.is_some(), "{name}");
        assert!(expected.is_none_or(|end| said.as_ref().is_some_and(|said| said.ends_with(end))), "{name}: {said:?}");
    }
}

proptest! {
    /// Whatever fails: as long as each restore is further on and no failure comes where the last one did, all is well.
    #[test]
    fn a_job_that_gets_on_is_never_accused(steps in proptest::collection::vec((0u8..3, 0u8..3), 0..60)) {
        let events: Vec<Event> = (1u8..)
            .zip(&steps)
            .flat_map(|(at, (operator, class))| [Restore(at), Fail(*operator, *class, at)])
            .collect();
        prop_assert_eq!(run(&events), []);
    }
}
