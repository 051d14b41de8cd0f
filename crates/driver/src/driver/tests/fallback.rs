//! Falling back past a damaged checkpoint.

use std::num::NonZeroU32;

use super::*;

fn settings() -> Settings {
    Settings { num_retained: NonZeroU32::new(2).unwrap(), fall_back: true, ..by_hand() }
}

/// A job started again over three checkpoints: its first attempt is starting.
fn starting(settings: Settings, strategy: Strategy) -> Rig {
    let mut rig = Rig::running(settings.clone(), restarts(1));
    for id in 1..=3 {
        rig.checkpoint(id, &[&format!("x{id}")]);
        rig.committed(1, id, Ok(()));
    }
    let mut rig = Rig::new(settings, strategy, rig.store);
    rig.open();
    assert_eq!(rig.seen, ["start 1 of epoch 2 from 3, publish x3"]);
    rig.seen.clear();
    rig
}

fn damaged(rig: &mut Rig, attempt: u32) -> bool {
    let falls_back = rig.driver.handle_damaged(rig.now, Attempt(attempt), "chk/3 is cut".to_owned());
    rig.drain();
    falls_back
}

const TOLD: &str = "checkpoint 3 is damaged (chk/3 is cut): checkpoint 2 is restored in its place; what came between is \
                    processed again, and its output may appear twice";

#[test]
fn a_damaged_checkpoint_is_told_and_the_next_older_one_started_from_whatever_the_strategy() {
    let mut rig = starting(settings(), Strategy::None);
    assert!(damaged(&mut rig, 1));
    assert_eq!(rig.seen, [TOLD, "start 2 of epoch 2 from 2, publish x2"]);
    rig.seen.clear();
    assert!(!damaged(&mut rig, 1), "that attempt is over");
    assert!(!damaged(&mut rig, 2), "no other is retained");
    assert_eq!(rig.seen, [""; 0]);
    rig.started(2, Err(FailureClass::NonRecoverable));
    assert!(rig.seen.last().unwrap().contains("GaveUp { restarts: 0, reason: NonRecoverable }"), "{:?}", rig.seen);
}

#[test]
fn without_the_setting_damage_is_a_failure_as_any_other() {
    let mut rig = starting(Settings { fall_back: false, ..settings() }, Strategy::None);
    assert!(!damaged(&mut rig, 1));
    assert_eq!(rig.seen, [""; 0]);
}

#[test]
fn a_job_that_is_cancelled_meanwhile_does_not_start_again() {
    let mut rig = starting(settings(), Strategy::None);
    rig.held = true;
    assert!(damaged(&mut rig, 1), "it is being looked whether the job is still ours");
    rig.cancel();
    rig.release();
    assert_eq!(rig.seen, ["record Canceled", "done: Canceled"]);
}

#[test]
fn what_is_replayed_is_told_by_source() {
    type Split = (String, Option<Vec<u8>>, bool, i64, u64);
    let part = |uid: &str, records: &[u64]| {
        let splits: Vec<Split> = records.iter().map(|records| ("s".to_owned(), None, false, 0, *records)).collect();
        let mut payload = Vec::new();
        cutwater_state::encode(&splits, &mut payload).unwrap();
        OperatorSnapshot { operator: OperatorUid::new(uid).unwrap(), kind: SnapshotKind::SourceSplits, payload }
    };
    let mut rig = Rig::running(settings(), restarts(1));
    for (id, records, new) in [(1, [5, 5], None), (2, [1_005, 95], Some(4))] {
        rig.driver.set_wall_clock(rig.now, id * 60_000);
        rig.request();
        let operators = [part("lines", &records)].into_iter().chain(new.map(|new| part("other", &[new]))).collect();
        rig.ack_inline(1, id, A, TaskSnapshot { watermark: 0, records: 0, operators }.encode());
        rig.ack(1, id, B, &[]);
    }
    let mut rig = Rig::new(settings(), restarts(1), rig.store);
    rig.open();
    rig.seen.clear();
    assert!(damaged(&mut rig, 1));
    let expected = "checkpoint 2 is damaged (chk/3 is cut): checkpoint 1 is restored in its place, which is 60s older; \
                    what came between is processed again, and its output may appear twice: lines from record 11 to 1100, \
                    other from record 1 to 4";
    assert_eq!(rig.seen[0], expected);
}
