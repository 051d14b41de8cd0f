//! Falling back past a checkpoint that is damaged.

use super::*;

fn settings_with(num_retained: u32) -> Settings {
    Settings { fall_back: true, ..retaining(num_retained) }
}

/// A job started again over so many checkpoints, of which so many are retained.
fn started(settings: Settings, checkpoints: u64) -> Rig {
    let mut rig = Rig::running(settings.clone());
    for _ in 0..checkpoints {
        rig.checkpoint();
    }
    let mut rig = rig.restarted(settings);
    rig.open(RestoreFrom::Latest);
    rig
}

fn damaged(rig: &mut Rig) -> bool {
    let falls_back = rig.coordinator.handle_damaged(rig.now);
    rig.drain();
    falls_back
}

#[test]
fn a_damaged_checkpoint_is_passed_over_one_after_the_other_and_only_if_wanted() {
    let mut rig = started(settings_with(3), 4);
    assert_eq!(rig.seen[0], "epoch 2 from 4");
    rig.seen.clear();
    assert!(damaged(&mut rig) && damaged(&mut rig));
    assert_eq!(rig.seen, ["fell back past 4", "restore 3", "fell back past 3", "restore 2"]);
    assert!(!damaged(&mut rig), "there is none before it");
    assert_eq!(rig.seen.len(), 4, "and nothing happens");

    let mut rig = started(Settings { fall_back: false, ..settings_with(3) }, 4);
    assert!(!damaged(&mut rig), "nobody wanted it");
    let mut rig = started(settings_with(1), 4);
    assert!(!damaged(&mut rig), "only one is kept");
    let mut rig = started(settings_with(3), 0);
    assert!(!damaged(&mut rig), "there is nothing to restore");
}

#[test]
fn a_checkpoint_of_another_folder_has_none_before_it() {
    let mut other = Rig::running(settings_with(2));
    other.checkpoint();
    let foreign = Box::new(other.coordinator.latest().unwrap().clone());
    let rig = started(settings_with(2), 2);
    let mut rig = rig.restarted(Settings { allow_rewind: true, ..settings_with(2) });
    // Another job's checkpoint of the same slot and number: not one of ours all the same.
    let foreign = Box::new(CompletedCheckpoint { job: "other".to_owned(), ..*foreign });
    rig.open(RestoreFrom::Foreign(foreign));
    assert!(!damaged(&mut rig));
}

#[test]
fn numbers_stay_above_the_damaged_one_and_it_is_let_go_first() {
    let mut rig = started(settings_with(2), 3);
    assert!(damaged(&mut rig));
    rig.run(1);
    // A failure before the next checkpoint starts from the older one again.
    rig.fail_over();
    assert_eq!(rig.seen.last().unwrap(), "restore 2");
    rig.run(1);
    rig.seen.clear();
    rig.request();
    rig.ack_all(4);
    let expected = ["trigger 4 at S0 S1", "completed 4 for [1]", "delete c3-a1-S0 c3-a1-S1 c3-a1-T0 c3-a1-T1"];
    assert_eq!(rig.seen, expected);
    assert_eq!(rig.coordinator.retained(), [CheckpointId(2), CheckpointId(4)]);
    let mut rig = rig.restarted(settings_with(2));
    rig.open(RestoreFrom::Latest);
    rig.seen.clear();
    assert!(damaged(&mut rig));
    assert_eq!(rig.seen, ["fell back past 4", "restore 2"]);
}

#[test]
fn deltas_are_not_built_on_what_is_damaged() {
    let mut rig = started(settings_with(2), 3);
    assert!(damaged(&mut rig));
    rig.run(1);
    rig.coordinator.handle_request(rig.now, Purpose::Checkpoint);
    let base = std::iter::from_fn(|| rig.coordinator.poll_action()).find_map(|action| match action {
        Action::Trigger { barrier, .. } => Some(barrier.base),
        _ => None,
    });
    assert_eq!(base, Some(Some(CheckpointId(2))));
}

#[test]
fn whoever_was_replaced_does_not_fall_back() {
    let rig = started(settings_with(2), 3);
    let mut replaced = Rig { store: rig.store.clone(), ..Rig::new(settings_with(2), 7) };
    replaced.open(RestoreFrom::Latest);
    assert_eq!(replaced.seen[0], "epoch 3 from 3");
    replaced.seen.clear();
    let mut later = Rig { store: replaced.store.clone(), ..Rig::new(settings_with(2), 8) };
    later.open(RestoreFrom::Latest);
    replaced.store = later.store; // its successor has claimed the job, and may have let go of files
    assert!(damaged(&mut replaced));
    assert_eq!(replaced.seen, ["superseded by 4"]);
}
