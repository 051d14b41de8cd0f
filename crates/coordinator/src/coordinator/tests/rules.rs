//! When checkpoints begin, complete and fail: one case for each rule.

use super::*;

const OFF_AFTER_END: fn() -> Settings = || Settings { checkpoints_after_tasks_finish: false, ..by_hand() };

#[test]
fn checkpoints_begin_when_they_should() {
    let pause = Settings { min_pause: Duration::from_millis(80), ..settings() };
    let cases: [Case; 12] = [
        ("one tick before the interval nothing begins", settings(), |rig| rig.until(99), &[]),
        ("the first comes one interval after the start", settings(), |rig| rig.until(100), &["trigger 1 at S0 S1"]),
        ("without an interval none comes by itself", by_hand(), |rig| rig.until(100_000), &[]),
        (
            "an interval of nothing is no endless loop",
            Settings { interval: Some(Duration::ZERO), ..settings() },
            |rig| {
                rig.until(3);
            },
            &["trigger 1 at S0 S1"],
        ),
        (
            "off is off",
            Settings { enabled: false, ..settings() },
            |rig| {
                rig.until(1000);
                rig.request();
            },
            &["failed [1]: checkpoints are off: enable them to take one"],
        ),
        (
            "one in flight holds the next back, which then comes at once, and the rate stays",
            settings(),
            |rig| {
                rig.until(250);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.until(299);
                rig.until(300);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for []",
                "trigger 2 at S0 S1",
                "completed 2 for []",
                "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1",
                "trigger 3 at S0 S1",
            ],
        ),
        (
            "the min pause holds the next back to its end",
            pause.clone(),
            |rig| {
                rig.until(150);
                rig.ack_all(1);
                rig.until(229);
                rig.seen.push("-- 229".to_owned());
                rig.until(230);
            },
            &["trigger 1 at S0 S1", "completed 1 for []", "-- 229", "trigger 2 at S0 S1"],
        ),
        (
            "a request minds neither interval nor min pause",
            pause,
            |rig| {
                rig.until(100);
                rig.ack_all(1);
                rig.request();
            },
            &["trigger 1 at S0 S1", "completed 1 for []", "trigger 2 at S0 S1"],
        ),
        (
            "an interval below the min pause is raised to it",
            Settings { min_pause: Duration::from_millis(300), ..settings() },
            |rig| {
                rig.until(299);
                rig.seen.push("-- 299".to_owned());
                rig.until(300);
            },
            &["-- 299", "trigger 1 at S0 S1"],
        ),
        (
            "requests wait for the one in flight and are answered together",
            by_hand(),
            |rig| {
                rig.request();
                rig.request();
                rig.request();
                rig.ack_all(1);
                rig.ack_all(2);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for [1]",
                "trigger 2 at S0 S1",
                "completed 2 for [2, 3]",
                "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1",
            ],
        ),
        (
            "after a failover the first comes after the min pause",
            settings(),
            |rig| {
                rig.until(10);
                rig.fail_over();
                rig.until(50);
                rig.run(2);
                rig.until(51);
            },
            &["restore nothing", "trigger 1 at S0 S1"],
        ),
        (
            "while nothing runs a request fails",
            by_hand(),
            |rig| {
                rig.fail_over();
                rig.request();
            },
            &["restore nothing", "failed [1]: not all subtasks run"],
        ),
    ];
    check(&cases);
}

#[test]
fn too_many_deletions_hold_checkpoints_back() {
    let mut rig = Rig::running(retaining(1));
    rig.checkpoint();
    rig.request();
    rig.ack_all(2);
    rig.seen.clear();
    rig.fails_deletions = true;
    rig.request();
    rig.ack_all(3); // the deletion of 2 fails and is carried on
    rig.request();
    rig.held = true;
    rig.ack_all(4);
    rig.held = false;
    // Answer the creation and the look at the boundary, but not the deletions that follow.
    for _ in 0..2 {
        let question = rig.waiting.pop_front().unwrap();
        rig.answer(question);
        rig.held = true;
        rig.drain();
    }
    assert_eq!(rig.coordinator.log.retention().deleting(), 2, "those of 2 and 3");
    rig.seen.clear();
    rig.request();
    assert_eq!(rig.seen, [""; 0]);
    rig.fails_deletions = false;
    rig.release();
    assert!(rig.seen.contains(&"trigger 5 at S0 S1".to_owned()), "{:?}", rig.seen);
}

#[test]
fn checkpoints_complete_or_fail_as_they_should() {
    let tolerant = Settings { tolerable_failures: 5, ..by_hand() };
    let cases: [Case; 15] = [
        (
            "an acknowledgement that comes twice changes nothing",
            by_hand(),
            |rig| {
                rig.request();
                rig.ack(1, 1, S0);
                rig.ack(1, 1, S0);
                rig.ack_all(1);
                rig.ack(1, 1, S0);
            },
            &["trigger 1 at S0 S1", "completed 1 for [1]"],
        ),
        (
            "one of another attempt is not taken, and its files go",
            by_hand(),
            |rig| {
                rig.request();
                rig.ack(9, 1, S0);
            },
            &["trigger 1 at S0 S1", "delete c1-a9-S0"],
        ),
        (
            "one of a subtask unknown is not taken, and its files go",
            by_hand(),
            |rig| {
                rig.request();
                rig.ack(1, 1, SubtaskId { task: TaskId(1), index: 7 });
            },
            &["trigger 1 at S0 S1", "delete c1-a1-T7"],
        ),
        (
            "a decline aborts at once, and what came goes, then and later",
            tolerant.clone(),
            |rig| {
                rig.request();
                rig.ack(1, 1, S0);
                rig.decline(1, T0, true);
                rig.ack(1, 1, S1);
                rig.decline(1, T1, true);
            },
            &["trigger 1 at S0 S1", "aborted 1 for [1]: task 1[0] declined: no", "delete c1-a1-S0", "delete c1-a1-S1"],
        ),
        (
            "a decline of a subtask unknown changes nothing",
            tolerant.clone(),
            |rig| {
                rig.request();
                rig.decline(1, SubtaskId { task: TaskId(7), index: 0 }, true);
            },
            &["trigger 1 at S0 S1"],
        ),
        (
            "one tick before the timeout it still waits",
            tolerant.clone(),
            |rig| {
                rig.request();
                rig.until(999);
            },
            &["trigger 1 at S0 S1"],
        ),
        (
            "at the timeout it expires",
            tolerant.clone(),
            |rig| {
                rig.request();
                rig.ack(1, 1, S0);
                rig.until(1000);
            },
            &[
                "trigger 1 at S0 S1",
                "aborted 1 for [1]: 3 of 4 acknowledgements missing at the timeout, first of task 0[1]",
                "delete c1-a1-S0",
            ],
        ),
        (
            "writing the record does not count towards the timeout",
            by_hand(),
            |rig| {
                rig.request();
                rig.held = true;
                rig.ack_all(1);
                rig.until(5000);
                rig.release();
            },
            &["trigger 1 at S0 S1", "completed 1 for [1]"],
        ),
        (
            "with none tolerated the first counted failure fails the job, and nothing begins after",
            settings(),
            |rig| {
                rig.until(100);
                rig.decline(1, S0, true);
                rig.until(1000);
                rig.request();
            },
            &[
                "trigger 1 at S0 S1",
                "aborted 1 for []: task 0[0] declined: no",
                "fail job: 1",
                "failed [1]: not all subtasks run",
            ],
        ),
        (
            "one that does not count never fails the job",
            settings(),
            |rig| {
                rig.until(100);
                rig.decline(1, S0, false);
                rig.until(200);
            },
            &["trigger 1 at S0 S1", "aborted 1 for []: task 0[0] declined: no", "trigger 2 at S0 S1"],
        ),
        (
            "a failed job clears the count",
            Settings { tolerable_failures: 1, ..by_hand() },
            |rig| {
                rig.request();
                rig.decline(1, S0, true);
                rig.request();
                rig.decline(2, S0, true);
                rig.fail_over();
                rig.run(1);
                rig.request();
                rig.decline(3, S0, true);
                rig.request();
            },
            &[
                "trigger 1 at S0 S1",
                "aborted 1 for [1]: task 0[0] declined: no",
                "trigger 2 at S0 S1",
                "aborted 2 for [2]: task 0[0] declined: no",
                "fail job: 2",
                "restore nothing",
                "trigger 3 at S0 S1",
                "aborted 3 for [3]: task 0[0] declined: no",
                "trigger 4 at S0 S1",
            ],
        ),
        (
            "a failover aborts what is in flight and what waits, uncounted",
            by_hand(),
            |rig| {
                rig.request();
                rig.request();
                rig.ack(1, 1, S0);
                rig.fail_over();
                rig.ack(1, 1, S1);
            },
            &[
                "trigger 1 at S0 S1",
                "failed [2]: the attempt ended",
                "aborted 1 for [1]: the attempt ended",
                "delete c1-a1-S0",
                "restore nothing",
                "delete c1-a1-S1",
            ],
        ),
        (
            "a failover waits for a record on its way, which completes",
            by_hand(),
            |rig| {
                rig.request();
                rig.held = true;
                rig.ack_all(1);
                rig.fail_over();
                rig.seen.push("-- held".to_owned());
                rig.release();
            },
            &["trigger 1 at S0 S1", "-- held", "completed 1 for [1]", "restore 1"],
        ),
        (
            "a new attempt goes on with the numbers",
            by_hand(),
            |rig| {
                rig.request();
                rig.fail_over();
                rig.run(2);
                rig.request();
            },
            &["trigger 1 at S0 S1", "aborted 1 for [1]: the attempt ended", "restore nothing", "trigger 2 at S0 S1"],
        ),
        (
            "a file name that leads out is declined and never deleted",
            tolerant,
            |rig| {
                rig.request();
                let files = vec![FileRef::stored("../x".to_owned(), 1, 0)];
                let phases = Phases::default();
                let snapshot = SubtaskSnapshot { subtask: S0, files, inline: vec![], phases, state_bytes: 0 };
                rig.coordinator.handle_ack(rig.now, Attempt(1), CheckpointId(1), snapshot);
                rig.drain();
            },
            &[
                "trigger 1 at S0 S1",
                "aborted 1 for [1]: task 0[0] declined: \"../x\" can't be the name of a file of a checkpoint",
            ],
        ),
    ];
    check(&cases);
}

#[test]
fn the_end_of_data_ends_in_a_last_checkpoint() {
    let tolerant = || Settings { tolerable_failures: 5, ..by_hand() };
    let cases: [Case; 15] = [
        (
            "when all have ended the last one is taken at once, all are told directly, and then all is done",
            by_hand(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.ack_all(1);
                rig.request();
            },
            &[
                "trigger 1 at S0 S1 T0 T1",
                "completed 1, the last for []",
                "all done",
                "failed [1]: not all subtasks run",
            ],
        ),
        (
            "when some have ended, checkpoints go on",
            by_hand(),
            |rig| {
                rig.end_of_data(&[S0]);
                rig.request();
                rig.ack_all(1);
            },
            &["trigger 1 at S0 S1", "completed 1 for [1]"],
        ),
        (
            "those all of whose senders have ended are told directly",
            by_hand(),
            |rig| {
                rig.end_of_data(&[S0, S1]);
                rig.request();
            },
            &["trigger 1 at S0 S1 T0 T1"],
        ),
        (
            "when the last sender ends in the middle, those after it are told, unless they have acknowledged",
            by_hand(),
            |rig| {
                rig.request();
                rig.end_of_data(&[S0]);
                rig.ack(1, 1, T0);
                rig.end_of_data(&[S1]);
            },
            &["trigger 1 at S0 S1", "trigger 1 at T1"],
        ),
        (
            "one that ends in the middle is told even if its senders' notices are still on the way, but once",
            by_hand(),
            |rig| {
                rig.request();
                rig.end_of_data(&[T1]);
                rig.end_of_data(&[S0, S1]);
            },
            &["trigger 1 at S0 S1", "trigger 1 at T1", "trigger 1 at T0"],
        ),
        (
            "one in flight is waited for, and then another is taken: it may have been cut before the end",
            by_hand(),
            |rig| {
                rig.request();
                rig.end_of_data(&ALL);
                rig.ack_all(1);
                rig.ack_all(2);
            },
            &[
                "trigger 1 at S0 S1",
                "trigger 1 at T0 T1",
                "completed 1 for [1]",
                "trigger 2 at S0 S1 T0 T1",
                "completed 2, the last for []",
                "all done",
                "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1",
            ],
        ),
        (
            "a request meanwhile is answered by the last one",
            by_hand(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.request();
                rig.ack_all(1);
            },
            &["trigger 1 at S0 S1 T0 T1", "completed 1, the last for [1]", "all done"],
        ),
        (
            "a last one that fails is tried again after a second",
            tolerant(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.decline(1, S0, true);
                rig.until(999);
                rig.seen.push("-- 999".to_owned());
                rig.until(1000);
            },
            &[
                "trigger 1 at S0 S1 T0 T1",
                "aborted 1 for []: task 0[0] declined: no",
                "-- 999",
                "trigger 2 at S0 S1 T0 T1",
            ],
        ),
        (
            "without checkpoints all is done at once",
            Settings { enabled: false, ..settings() },
            |rig| {
                rig.end_of_data(&ALL);
            },
            &["all done"],
        ),
        (
            "with none after the end: the first end gives up the one in flight and stops all others",
            OFF_AFTER_END(),
            |rig| {
                rig.request();
                rig.end_of_data(&[S0]);
                rig.request();
            },
            &[
                "trigger 1 at S0 S1",
                "aborted 1 for [1]: task 0[0] reached the end of its data, and checkpoints after that are off",
                "failed [2]: not all subtasks run",
            ],
        ),
        ("with none after the end: all is done at once", OFF_AFTER_END(), |rig| rig.end_of_data(&ALL), &["all done"]),
        (
            "with none after the end: a record on its way is waited for",
            OFF_AFTER_END(),
            |rig| {
                rig.request();
                rig.held = true;
                rig.ack_all(1);
                rig.end_of_data(&ALL);
                rig.seen.push("-- held".to_owned());
                rig.release();
            },
            &["trigger 1 at S0 S1", "-- held", "completed 1 for [1]", "all done"],
        ),
        (
            "those gone for good are not waited for",
            by_hand(),
            |rig| {
                rig.finished(&[S0, S1]);
                rig.request();
                rig.ack(1, 1, T0);
                rig.ack(1, 1, T1);
            },
            &["trigger 1 at T0 T1", "completed 1 for [1]"],
        ),
        (
            "one that goes without having acknowledged takes the checkpoint along, uncounted",
            by_hand(),
            |rig| {
                rig.request();
                rig.finished(&[S0]);
            },
            &["trigger 1 at S0 S1", "aborted 1 for [1]: task 0[0] finished before it had acknowledged"],
        ),
        (
            "when all are gone the last one needs nobody",
            by_hand(),
            |rig| rig.finished(&ALL),
            &["completed 1, the last for []", "all done"],
        ),
    ];
    check(&cases);
}

#[test]
fn the_job_ends_with_a_record() {
    let cases: [Case; 6] = [
        (
            "what is in flight and what waits is given up",
            by_hand(),
            |rig| {
                rig.request();
                rig.request();
                rig.ack(1, 1, S0);
                rig.end(Outcome::Canceled);
                rig.request();
                rig.end(Outcome::Finished);
            },
            &[
                "trigger 1 at S0 S1",
                "failed [2]: the job ends",
                "aborted 1 for [1]: the job ends",
                "delete c1-a1-S0",
                "closed: None",
                "failed [3]: the job ends",
            ],
        ),
        (
            "a record on its way is settled first",
            by_hand(),
            |rig| {
                rig.request();
                rig.held = true;
                rig.ack_all(1);
                rig.end(Outcome::Canceled);
                rig.release();
            },
            &["trigger 1 at S0 S1", "completed 1 for [1]", "closed: None"],
        ),
        (
            "a failed record is tried again",
            by_hand(),
            |rig| {
                rig.outcomes = [Fate::Failed, Fate::Failed].into();
                rig.end(Outcome::Canceled);
                rig.until(1999);
                rig.seen.push("-- 1999".to_owned());
                rig.until(2000);
            },
            &["-- 1999", "closed: None"],
        ),
        (
            "after five failures it is closed without",
            by_hand(),
            |rig| {
                rig.outcomes = [Fate::Failed; 5].into();
                rig.end(Outcome::Canceled);
                rig.until(60_000);
            },
            &["closed: Some(\"full\")"],
        ),
        (
            "a record whose fate is unknown is settled",
            by_hand(),
            |rig| {
                rig.outcomes = [Fate::UnknownNotDone].into();
                rig.end(Outcome::Canceled);
            },
            &["closed: None"],
        ),
        (
            "a record whose fate is unknown and that is there is enough",
            by_hand(),
            |rig| {
                rig.outcomes = [Fate::UnknownDone].into();
                rig.end(Outcome::Canceled);
            },
            &["closed: None"],
        ),
    ];
    check(&cases);
    let mut rig = Rig::new(by_hand(), 1);
    rig.held = true;
    rig.open(RestoreFrom::Latest);
    rig.end(Outcome::Canceled);
    rig.release();
    assert_eq!(rig.seen, ["closed: Some(\"the job was not open\")"], "nothing is claimed for a job that has ended");
    assert!(rig.store.is_empty());
}

#[test]
fn at_most_a_thousand_requests_wait() {
    let mut rig = Rig::running(by_hand());
    for _ in 0..1001 {
        rig.request();
    }
    assert_eq!(rig.seen, ["trigger 1 at S0 S1"]);
    rig.request();
    assert_eq!(rig.seen[1..], ["failed [1002]: 1000 requests wait already: ask again later"]);
}

#[test]
fn the_view_shows_what_there_is() {
    let mut rig = Rig::running(retaining(2));
    assert_eq!(
        (rig.coordinator.epoch(), rig.coordinator.latest(), rig.coordinator.pending()),
        (Some(Epoch(1)), None, None)
    );
    rig.until(40);
    rig.request();
    rig.until(50);
    rig.ack(1, 1, S0);
    let started = Moment::from_millis(40);
    let checkpoint = CheckpointId(1);
    let view = PendingView { checkpoint, started, acknowledged: 1, total: 4, finalizing: false, final_: false };
    assert_eq!(rig.coordinator.pending(), Some(view));
    rig.ack_all(1);
    rig.checkpoint();
    rig.checkpoint();
    rig.request();
    rig.decline(4, S0, true);
    assert_eq!(rig.coordinator.retained(), [CheckpointId(2), CheckpointId(3)]);
    assert_eq!(rig.coordinator.counts(), Counts { triggered: 4, completed: 3, failed: 1 });
    let latest = rig.coordinator.latest().unwrap();
    assert_eq!((latest.completed_at_unix_ms, latest.state_bytes(), latest.files().count()), (1_000_050, 40, 4));
}

#[test]
fn a_barrier_says_what_a_delta_may_build_on() {
    let mut rig = Rig::running(by_hand());
    let base = |rig: &mut Rig| {
        rig.coordinator.handle_request(rig.now, Purpose::Checkpoint);
        rig.coordinator.pending[0].barrier.base
    };
    assert_eq!(base(&mut rig), None);
    rig.ack_all(1);
    assert_eq!(base(&mut rig), Some(CheckpointId(1)));
    let first = rig.coordinator.latest().unwrap().clone();
    let mut rig = rig.restarted(by_hand());
    rig.open(RestoreFrom::Latest);
    rig.run(1);
    assert_eq!(base(&mut rig), Some(CheckpointId(1)), "what was restored");
    let mut rig = Rig::new(by_hand(), 1);
    rig.open(RestoreFrom::Foreign(Box::new(first)));
    rig.run(1);
    assert_eq!(base(&mut rig), None, "another folder may go away");
}

/// A confused task names a file of the checkpoint in flight, before and while its record is written.
#[test]
fn a_stray_acknowledgement_takes_no_file_from_the_checkpoint_in_flight() {
    let mut rig = Rig::running(by_hand());
    let stray = |rig: &mut Rig| {
        let files = vec![FileRef::stored("c1-a1-S0".to_owned(), 10, 0)];
        let phases = Phases::default();
        let snapshot = SubtaskSnapshot { subtask: S0, files, inline: vec![], phases, state_bytes: 0 };
        rig.coordinator.handle_ack(rig.now, Attempt(9), CheckpointId(1), snapshot);
        rig.drain();
    };
    rig.request();
    rig.ack(1, 1, S0);
    stray(&mut rig);
    rig.held = true;
    rig.ack_all(1);
    stray(&mut rig);
    rig.release();
    assert_eq!(rig.seen, ["trigger 1 at S0 S1", "completed 1 for [1]"]);
}
