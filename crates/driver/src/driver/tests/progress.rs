//! Jobs that restart again and again without getting on.

use cutwater_restart::SourceRange;

use super::*;

fn site(record: u32) -> FailureSite {
    let (operator, class, source) = ("parse".to_owned(), "panic at main.rs:7".to_owned(), "lines".to_owned());
    let (first, last) = (record.into(), record.into());
    FailureSite { operator, class, position: Some(SourceRange { source, first, last }) }
}

fn running(on_no_progress: OnNoProgress) -> Rig {
    let mut rig = Rig::running(by_hand(), Strategy::FixedDelay { attempts: 100, delay: Duration::ZERO });
    rig.driver.on_no_progress = on_no_progress;
    rig
}

/// The attempt fails there and the next one starts, if one does.
fn fails(rig: &mut Rig, attempt: u32, record: u32) {
    rig.driver.locate_failure(site(record));
    rig.fail(attempt, FailureClass::Recoverable, "poison");
    rig.stopped(attempt);
    rig.until(0);
    rig.started(attempt + 1, Ok(()));
}

fn told(rig: &Rig) -> Vec<&str> {
    rig.seen.iter().map(String::as_str).filter(|said| said.starts_with("no progress")).collect()
}

/// A checkpoint with the source that far.
fn checkpoint(rig: &mut Rig, attempt: u32, id: u64, position: u8) {
    rig.request();
    let source = OperatorUid::new("lines").unwrap();
    let part = OperatorSnapshot { operator: source, kind: SnapshotKind::SourceSplits, payload: vec![position] };
    let inline = TaskSnapshot { watermark: 0, records: 0, operators: vec![part] }.encode();
    rig.ack_inline(attempt, id, A, inline);
    rig.ack(attempt, id, B, &[]);
}

const POISON: &str = "no progress: operator parse failed 3 times in a row with the same error (panic at main.rs:7) at \
                      record 17 of lines";

#[test]
fn the_same_failure_is_told_at_the_third_time_and_once() {
    let mut rig = running(OnNoProgress::Report);
    for attempt in 1..=5 {
        fails(&mut rig, attempt, 17);
    }
    let found = told(&rig);
    assert_eq!(found[0], POISON);
    assert!(found.len() > 1 && found[1..].iter().all(|said| said.starts_with("no progress still")), "{found:?}");
    assert!(rig.driver.is_running() && rig.driver.no_progress().is_some());
}

#[test]
fn a_job_that_is_to_stop_for_want_of_progress_ends_with_the_third_failure() {
    let mut rig = running(OnNoProgress::Stop);
    fails(&mut rig, 1, 17);
    fails(&mut rig, 2, 17);
    rig.seen.clear();
    rig.driver.locate_failure(site(17));
    rig.fail(3, FailureClass::Recoverable, "poison");
    rig.stopped(3);
    let end = "GaveUp { restarts: 2, reason: NoProgress { attempts: 3 } }";
    let words = "job test failed after 2 restarts: no progress in 3 attempts in a row: poison";
    let expected = [
        "stop 3".to_owned(),
        POISON.to_owned(),
        "keep it".to_owned(),
        format!("record Failed({words:?})"),
        format!("done: {end}"),
    ];
    let mut seen = rig.seen.clone();
    seen.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn a_job_that_fails_elsewhere_each_time_ends_with_the_third_restore_from_the_same_place() {
    let mut rig = running(OnNoProgress::Stop);
    checkpoint(&mut rig, 1, 1, 5);
    for attempt in 1..=2 {
        fails(&mut rig, attempt, attempt);
        assert!(rig.driver.is_running(), "attempt {attempt}");
    }
    rig.driver.locate_failure(site(3));
    rig.fail(3, FailureClass::Recoverable, "again");
    rig.stopped(3);
    rig.until(0);
    assert_eq!(told(&rig), ["no progress: 3 restores in a row, and no source has got any further"]);
    assert!(rig.seen.last().unwrap().contains("NoProgress { attempts: 3 }"), "{:?}", rig.seen);
    assert!(!rig.seen.iter().any(|said| said.starts_with("start 4")), "{:?}", rig.seen);
}

#[test]
fn a_job_that_gets_on_is_left_alone_and_what_was_told_is_taken_back() {
    let mut rig = running(OnNoProgress::Stop);
    for attempt in 1..=20 {
        checkpoint(&mut rig, attempt, attempt.into(), u8::try_from(attempt).unwrap());
        fails(&mut rig, attempt, attempt);
    }
    assert_eq!(told(&rig), [""; 0]);
    assert!(rig.driver.is_running());

    let mut rig = running(OnNoProgress::Report);
    for attempt in 1..=3 {
        fails(&mut rig, attempt, 17);
    }
    assert!(rig.driver.no_progress().is_some());
    checkpoint(&mut rig, 4, 1, 1);
    assert!(rig.driver.no_progress().is_none());
}

#[test]
fn a_process_that_is_killed_and_started_again_counts_anew() {
    let mut store = BTreeMap::new();
    for _ in 0..5 {
        let mut rig = Rig::new(by_hand(), Strategy::FixedDelay { attempts: 100, delay: Duration::ZERO }, store);
        rig.driver.on_no_progress = OnNoProgress::Stop;
        rig.open();
        rig.started(1, Ok(()));
        fails(&mut rig, 1, 17);
        fails(&mut rig, 2, 17);
        assert_eq!(told(&rig), [""; 0]);
        store = rig.store;
    }
}
