//! What becomes of the checkpoints when a job ends.

use super::*;
use crate::ExternalizedCheckpointRetention::{
    self, DeleteOnCancellation, NoExternalizedCheckpoints, RetainOnCancellation,
};
use crate::native_name;

fn keeping(retention: ExternalizedCheckpointRetention) -> Settings {
    Settings { externalized_checkpoint_retention: retention, ..retaining(2) }
}

fn stopped(savepoint: bool, drained: bool) -> Outcome {
    Outcome::Stopped { savepoint: savepoint.then(|| "s".to_owned()), drained }
}

/// A job with two checkpoints of one file each for each subtask.
fn job(retention: ExternalizedCheckpointRetention) -> Rig {
    let mut rig = Rig::running(keeping(retention));
    rig.checkpoint();
    rig.checkpoint();
    rig
}

/// Started again, by the same command.
fn again(rig: Rig, retention: ExternalizedCheckpointRetention) -> Rig {
    let mut rig = rig.restarted(keeping(retention));
    rig.open(RestoreFrom::Latest);
    rig
}

const DELETIONS: [&str; 2] =
    ["delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1", "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1"];

#[test]
fn checkpoints_go_with_the_job_as_the_setting_says() {
    let failed = || Outcome::Failed("disk".to_owned());
    let cases = [
        ("retained: finished", RetainOnCancellation, Outcome::Finished, false, "finished already at 2"),
        ("retained: cancelled", RetainOnCancellation, Outcome::Canceled, false, "epoch 2 from 2"),
        ("retained: failed", RetainOnCancellation, failed(), false, "epoch 2 from 2"),
        ("retained: stopped with a savepoint", RetainOnCancellation, stopped(true, false), false, "epoch 2 from 2"),
        ("retained: drained", RetainOnCancellation, stopped(true, true), false, "finished already at 2"),
        ("on cancellation: finished", DeleteOnCancellation, Outcome::Finished, true, "finished already at nothing"),
        (
            "on cancellation: cancelled",
            DeleteOnCancellation,
            Outcome::Canceled,
            true,
            "epoch 2 from nothing, whose checkpoints went with Canceled",
        ),
        ("on cancellation: failed", DeleteOnCancellation, failed(), false, "epoch 2 from 2"),
        ("on cancellation: stopped", DeleteOnCancellation, stopped(true, false), false, "epoch 2 from 2"),
        ("on cancellation: drained", DeleteOnCancellation, stopped(false, true), true, "finished already at nothing"),
        ("never: finished", NoExternalizedCheckpoints, Outcome::Finished, true, "finished already at nothing"),
        (
            "never: cancelled",
            NoExternalizedCheckpoints,
            Outcome::Canceled,
            true,
            "epoch 2 from nothing, whose checkpoints went with Canceled",
        ),
        (
            "never: failed",
            NoExternalizedCheckpoints,
            failed(),
            true,
            "epoch 2 from nothing, whose checkpoints went with Failed(\"disk\")",
        ),
        (
            "never: stopped with a savepoint",
            NoExternalizedCheckpoints,
            stopped(true, false),
            true,
            "epoch 2 from nothing, whose checkpoints went with Stopped { savepoint: Some(\"s\"), drained: false }",
        ),
        (
            "never: stopped behind a checkpoint alone",
            NoExternalizedCheckpoints,
            stopped(false, false),
            false,
            "epoch 2 from 2",
        ),
    ];
    for (name, retention, outcome, deleted, then) in cases {
        assert_eq!(retention.deletes_after(&outcome), deleted, "{name}");
        let mut rig = job(retention);
        rig.end(outcome);
        let mut expected = if deleted { DELETIONS.to_vec() } else { vec![] };
        expected.push("closed: None");
        assert_eq!(rig.seen, expected, "{name}");
        let rig = again(rig, retention);
        assert_eq!(rig.seen[0], then, "{name}");
    }
}

#[test]
fn nothing_is_deleted_before_the_record_that_says_so_is_there() {
    let mut rig = job(NoExternalizedCheckpoints);
    rig.held = true;
    rig.end(Outcome::Canceled);
    assert_eq!(rig.seen, [""; 0], "the record is on its way");
    rig.outcomes.push_back(Fate::UnknownNotDone);
    rig.release();
    // The slot had to be claimed to settle it; only the record in the slot after that lets go of the files.
    let expected = [DELETIONS[0], DELETIONS[1], "closed: None"];
    assert_eq!(rig.seen, expected);
    let rig = again(rig, NoExternalizedCheckpoints);
    assert_eq!(rig.seen[0], "epoch 3 from nothing, whose checkpoints went with Canceled");

    let mut rig = job(NoExternalizedCheckpoints);
    rig.outcomes.extend([Fate::Failed; 5]);
    rig.end(Outcome::Canceled);
    rig.until(10_000);
    assert_eq!(rig.seen, ["closed: Some(\"full\")"], "an end that is not recorded takes nothing along");
    let rig = again(rig, NoExternalizedCheckpoints);
    assert_eq!(rig.seen[0], "epoch 2 from 2");
}

#[test]
fn whoever_died_before_its_deletions_is_made_up_for_and_nobody_restores_half_a_checkpoint() {
    let mut rig = job(DeleteOnCancellation);
    rig.fails_deletions = true; // as good as dead
    rig.end(Outcome::Canceled);
    assert_eq!(rig.seen, [DELETIONS[0], DELETIONS[1], "closed: None"], "what can't be deleted is not waited for");
    let mut rig = again(rig, DeleteOnCancellation);
    let anew = "epoch 2 from nothing, whose checkpoints went with Canceled";
    assert_eq!(rig.seen, [anew, DELETIONS[0], DELETIONS[1]]);
    rig.run(1);
    // Its first checkpoint knows nothing of those before, and resumes.
    rig.checkpoint();
    assert_eq!(rig.coordinator.retained(), [CheckpointId(3)]);
    let rig = again(rig, DeleteOnCancellation);
    assert_eq!(rig.seen[0], "epoch 3 from 3");

    // It may also die after it has claimed the job and before any checkpoint: still there is nothing to restore.
    let mut rig = job(DeleteOnCancellation);
    rig.end(Outcome::Canceled);
    let rig = again(again(rig, DeleteOnCancellation), DeleteOnCancellation);
    assert_eq!(rig.seen[0], "epoch 3 from nothing, whose checkpoints went with Canceled");
}

#[test]
fn all_of_many_are_deleted_though_only_some_at_once() {
    let mut rig =
        Rig::running(Settings { num_retained: NonZeroU32::new(50).unwrap(), ..keeping(DeleteOnCancellation) });
    for _ in 0..40 {
        rig.checkpoint();
    }
    rig.end(Outcome::Canceled);
    assert_eq!((rig.seen.len(), rig.seen.last().unwrap().as_str()), (41, "closed: None"));
}

#[test]
fn a_copy_that_is_being_made_is_finished_before_its_files_go() {
    let mut rig = job(NoExternalizedCheckpoints);
    rig.request_for(Purpose::Copy);
    let request = rig.coordinator.next_request - 1;
    rig.ack_all(3);
    rig.seen.clear();
    rig.end(Outcome::Canceled);
    assert_eq!(rig.seen, [DELETIONS[1]], "the copied one stays, and the end waits");
    rig.copied(request);
    assert_eq!(rig.seen[1..], ["delete c3-a1-S0 c3-a1-S1 c3-a1-T0 c3-a1-T1", "closed: None"]);
}

/// It is subsumed, so that nobody would come back for its files once the job has finished.
#[test]
fn a_job_that_finishes_waits_for_the_copy_of_a_checkpoint_that_nothing_else_keeps() {
    let mut rig = Rig::running(Settings { externalized_checkpoint_retention: RetainOnCancellation, ..retaining(1) });
    rig.request_for(Purpose::Copy);
    let request = rig.coordinator.next_request - 1;
    rig.ack_all(1);
    rig.checkpoint();
    rig.end(Outcome::Finished);
    assert_eq!(rig.seen, [""; 0], "recorded, and not closed yet");
    rig.copied(request);
    assert_eq!(rig.seen, [DELETIONS[0], "closed: None"]);
}

#[test]
fn from_another_folder_a_job_without_checkpoints_of_its_own_starts_where_it_would_have_gone_on() {
    let at = |rig: &Rig| Box::new(rig.coordinator.latest().unwrap().clone());
    let mut rig = job(NoExternalizedCheckpoints);
    let older = at(&rig);
    rig.checkpoint();
    let newest = at(&rig);
    rig.end(stopped(true, false));
    let open = |rig: Rig, from| {
        let mut rig = rig.restarted(keeping(NoExternalizedCheckpoints));
        rig.open(from);
        rig
    };
    let rig = open(rig, RestoreFrom::Foreign(older.clone()));
    assert!(rig.seen[0].starts_with("refused: checkpoint 3 has completed"), "{:?}", rig.seen);
    let rig = open(rig, RestoreFrom::Checkpoint(CheckpointId(3)));
    assert!(rig.seen[0].starts_with("refused: checkpoint 3 is not retained, only []"), "{:?}", rig.seen);
    // It stays so until a checkpoint completes, whoever has claimed the job meanwhile.
    let rig = open(rig, RestoreFrom::Foreign(newest.clone()));
    assert!(rig.seen[0].starts_with("epoch 2 from 3, whose checkpoints went with Stopped"), "{:?}", rig.seen);
    let rig = open(rig, RestoreFrom::Foreign(older.clone()));
    assert!(rig.seen[0].starts_with("refused: checkpoint 3 has completed"), "{:?}", rig.seen);
    let mut rig = open(rig, RestoreFrom::Foreign(newest));
    assert!(rig.seen[0].starts_with("epoch 3 from 3, whose checkpoints went with Stopped"), "{:?}", rig.seen);
    rig.run(1);
    rig.checkpoint();
    let rig = open(rig, RestoreFrom::Latest);
    assert_eq!(rig.seen[0], "epoch 4 from 4");
}

fn barrier(checkpoint: u64) -> Barrier {
    let (epoch, attempt, checkpoint) = (Epoch(1), Attempt(1), CheckpointId(checkpoint));
    Barrier { epoch, attempt, checkpoint, base: None, form: SnapshotForm::Configured }
}

#[test]
fn a_job_that_ends_waits_for_what_is_still_being_stored_and_deletes_it() {
    let mut rig = job(RetainOnCancellation);
    rig.coordinator.handle_storing(rig.now, true);
    rig.end(Outcome::Finished);
    assert_eq!(rig.seen, [""; 0], "recorded, and not closed yet");
    rig.ack(1, 3, S0);
    assert_eq!(rig.seen, ["delete c3-a1-S0"]);
    rig.seen.clear();
    let (snapshot, native) = (snapshot_name(barrier(3), T0), native_name(barrier(3), T0, 1));
    let names = [&snapshot, "log/00000000000000000001", "notes.txt", "chk/1-3-0-0-1.snap", &native].map(str::to_owned);
    rig.coordinator.handle_litter(rig.now, names.to_vec());
    rig.drain();
    assert_eq!(rig.seen, [format!("delete {native} {snapshot}")], "only files of snapshots");
    rig.seen.clear();
    rig.coordinator.handle_storing(rig.now, false);
    rig.drain();
    assert_eq!(rig.seen, ["closed: None"]);
}

#[test]
fn litter_that_can_not_be_deleted_is_tried_again_and_no_file_of_a_checkpoint_is_litter() {
    let mut rig = Rig::running(retaining(2));
    let (kept, litter) = (native_name(barrier(1), S0, 1), native_name(barrier(1), S0, 2));
    rig.request();
    let acknowledge = |rig: &mut Rig, subtask, name: &str| {
        let files = vec![FileRef::stored(name.to_owned(), 1, 0)];
        let snapshot = SubtaskSnapshot { subtask, files, inline: vec![], phases: Phases::default(), state_bytes: 1 };
        rig.coordinator.handle_ack(rig.now, Attempt(1), CheckpointId(1), snapshot);
        rig.drain();
    };
    let tell = |rig: &mut Rig| {
        rig.seen.clear();
        rig.coordinator.handle_litter(rig.now, vec![kept.clone(), litter.clone()]);
        rig.drain();
    };
    acknowledge(&mut rig, S0, &kept);
    rig.fails_deletions = true;
    tell(&mut rig);
    assert_eq!(rig.seen, [format!("delete {litter}")], "of one in flight");
    rig.fails_deletions = false;
    for (subtask, name) in [(S1, "a"), (T0, "b"), (T1, "c")] {
        acknowledge(&mut rig, subtask, name);
    }
    assert_eq!(rig.seen[1..], ["completed 1 for [1]".to_owned(), format!("delete {litter}")]);
    tell(&mut rig);
    assert_eq!(rig.seen, [format!("delete {litter}")], "of one that is retained");
}
