//! Checkpoints that are to be copied, and those that a job is to stop behind.

use super::*;

const DELETE_1: &str = "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1";

fn stopped(drained: bool) -> Outcome {
    Outcome::Stopped { savepoint: Some("file:///savepoints/1".to_owned()), drained }
}

#[test]
fn a_checkpoint_that_is_copied_keeps_its_files_until_it_has_been() {
    let cases: [Case; 4] = [
        (
            "one that nobody copies lets go of them when it is subsumed",
            by_hand(),
            |rig| {
                rig.checkpoint();
                rig.checkpoint();
                rig.checkpoint();
                rig.copied(1);
            },
            &[],
        ),
        (
            "two copies of one checkpoint are both waited for",
            by_hand(),
            |rig| {
                rig.request_for(Purpose::Copy);
                rig.request_for(Purpose::Copy);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.request();
                rig.ack_all(3);
                rig.seen.push("-- copied".to_owned());
                rig.copied(1);
                rig.copied(2);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for [1]",
                "trigger 2 at S0 S1",
                "completed 2 for [2]",
                "trigger 3 at S0 S1",
                "completed 3 for [3]",
                "-- copied",
                DELETE_1,
                "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1",
            ],
        ),
        (
            "a later checkpoint that shares files with it, and is subsumed as well, leaves them to it",
            by_hand(),
            |rig| {
                rig.request_for(Purpose::Copy);
                rig.ack_all(1);
                rig.request();
                ALL.iter().for_each(|subtask| rig.ack_chain(1, &[1, 2], *subtask));
                rig.request();
                rig.ack_all(3);
                rig.fail_over();
                rig.ack_chain(1, &[1, 4], S0); // late, and of a checkpoint that never was
                rig.copied(1);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for [1]",
                "trigger 2 at S0 S1",
                "completed 2 for [2]",
                "trigger 3 at S0 S1",
                "completed 3 for [3]",
                "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1",
                "restore 3",
                "delete c4-a1-S0",
                DELETE_1,
            ],
        ),
        (
            "word of a copy that nobody asked for changes nothing",
            by_hand(),
            |rig| {
                rig.checkpoint();
                rig.copied(77);
            },
            &[],
        ),
    ];
    check(&cases);
}

#[test]
fn a_job_stops_behind_a_checkpoint_or_goes_on() {
    let cases: [Case; 6] = [
        (
            "sources hold, and nothing begins after it",
            settings(),
            |rig| {
                rig.request_for(Purpose::Stop);
                rig.ack_all(1);
                rig.request();
                rig.until(10_000);
            },
            &["trigger 1 at S0 S1, then hold", "completed 1 for [1]", "failed [2]: not all subtasks run"],
        ),
        (
            "one in flight is waited for, and goes on as it began",
            settings(),
            |rig| {
                rig.until(100);
                rig.request_for(Purpose::Stop);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.until(10_000);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for []",
                "trigger 2 at S0 S1, then hold",
                "completed 2 for [1]",
                DELETE_1,
            ],
        ),
        (
            "if it is given up the job goes on",
            settings(),
            |rig| {
                rig.request_for(Purpose::Stop);
                rig.decline(1, T0, false);
                rig.until(100);
            },
            &["trigger 1 at S0 S1, then hold", "aborted 1 for [1]: task 1[0] declined: no", "trigger 2 at S0 S1"],
        ),
        (
            "if it can't be copied checkpoints go on, an interval later",
            settings(),
            |rig| {
                rig.request_for(Purpose::Stop);
                rig.ack_all(1);
                rig.until(1_000);
                rig.copied(1);
                rig.coordinator.handle_not_stopped(rig.now);
                rig.until(1_099);
                rig.seen.push("-- 1099".to_owned());
                rig.until(1_100);
            },
            &["trigger 1 at S0 S1, then hold", "completed 1 for [1]", "-- 1099", "trigger 2 at S0 S1"],
        ),
        (
            "a job that is not stopped is not set going",
            by_hand(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.ack_all(1);
                rig.coordinator.handle_not_stopped(rig.now);
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
            "the end of all data is the end of a job that was to stop",
            by_hand(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.request_for(Purpose::Stop);
                rig.ack_all(1);
            },
            &["trigger 1 at S0 S1 T0 T1", "completed 1, the last for [1]", "all done"],
        ),
    ];
    check(&cases);
}

#[test]
fn a_drained_job_ends_with_its_last_checkpoint() {
    let cases: [Case; 5] = [
        (
            "if the last one fails the next try of it is the one",
            by_hand(),
            |rig| {
                rig.request_for(Purpose::Drain);
                rig.end_of_data(&ALL);
                rig.decline(1, T0, false);
                rig.until(1_000);
                rig.ack_all(2);
            },
            &[
                "end the sources",
                "trigger 1 at S0 S1 T0 T1",
                "aborted 1 for []: task 1[0] declined: no",
                "trigger 2 at S0 S1 T0 T1",
                "completed 2, the last for [1]",
                "all done",
            ],
        ),
        (
            "one in flight is given up, and nothing is cut before all sources have ended",
            settings(),
            |rig| {
                rig.until(100);
                rig.request_for(Purpose::Drain);
                rig.request_for(Purpose::Copy);
                rig.until(1_000);
                rig.end_of_data(&[S0]);
                rig.until(2_000);
                rig.end_of_data(&[S1, T0, T1]);
                rig.ack_all(2);
            },
            &[
                "trigger 1 at S0 S1",
                "end the sources",
                "aborted 1 for []: the job is being drained: the last checkpoint comes",
                "trigger 2 at S0 S1 T0 T1",
                "completed 2, the last for [1, 2]",
                "all done",
            ],
        ),
        (
            "who asks during the last is answered by it",
            by_hand(),
            |rig| {
                rig.end_of_data(&ALL);
                rig.request_for(Purpose::Drain);
                rig.ack_all(1);
            },
            &["trigger 1 at S0 S1 T0 T1", "completed 1, the last for [1]", "all done"],
        ),
        (
            "an attempt that fails takes the request with it",
            by_hand(),
            |rig| {
                rig.request_for(Purpose::Drain);
                rig.fail_over();
            },
            &["end the sources", "failed [1]: the attempt ended", "restore nothing"],
        ),
        (
            "without a last checkpoint there is nothing to drain into",
            Settings { checkpoints_after_tasks_finish: false, ..by_hand() },
            |rig| rig.request_for(Purpose::Drain),
            &["failed [1]: checkpoints after the end of data are off, so there is no last one: switch on \
               execution.checkpointing.checkpoints-after-tasks-finish, or stop without draining"],
        ),
    ];
    check(&cases);
}

#[test]
fn an_attempt_that_begins_with_a_drained_checkpoint_is_drained() {
    let mut rig = Rig::running(by_hand());
    rig.request_for(Purpose::Drain);
    rig.end_of_data(&ALL);
    rig.ack_all(1);
    assert!(rig.coordinator.is_drained() && rig.coordinator.latest().unwrap().is_drained());
    let mut rig = rig.restarted(by_hand());
    rig.open(RestoreFrom::Latest);
    assert!(!rig.coordinator.is_drained(), "nothing runs yet");
    rig.run(1);
    rig.end_of_data(&ALL);
    rig.ack_all(2);
    assert!(rig.coordinator.is_drained() && rig.coordinator.latest().unwrap().is_drained());

    let mut rig = Rig::running(by_hand());
    rig.request_for(Purpose::Drain);
    rig.fail_over();
    rig.run(2);
    assert!(!rig.coordinator.is_drained(), "it reads on where the one before began");
}

#[test]
fn a_stopped_job_resumes_and_a_drained_one_does_not() {
    for (drained, expected) in [(false, "epoch 2 from 1"), (true, "finished already at 1")] {
        let mut rig = Rig::running(by_hand());
        rig.request_for(Purpose::Stop);
        rig.ack_all(1);
        let savepoint = Box::new(rig.coordinator.latest().unwrap().clone());
        rig.end(stopped(drained));
        assert_eq!(rig.seen.last().map(String::as_str), Some("closed: None"));
        // By the same command, and from the savepoint that was made of that very checkpoint.
        for from in [RestoreFrom::Latest, RestoreFrom::Foreign(savepoint)] {
            let mut again = Rig { store: rig.store.clone(), ..Rig::new(by_hand(), 99) };
            again.open(from);
            assert_eq!(again.seen, [expected], "drained: {drained}");
        }
    }
}

#[test]
fn a_job_started_from_its_own_savepoint_resumes_by_that_command() {
    let mut rig = Rig::running(by_hand());
    rig.request_for(Purpose::Stop);
    rig.ack_all(1);
    let savepoint = Box::new(rig.coordinator.latest().unwrap().clone());
    rig.end(stopped(false));
    let from = || RestoreFrom::Foreign(savepoint.clone());
    let mut rig = rig.restarted(by_hand());
    rig.open(from());
    rig.run(1);
    rig.request();
    rig.ack_all(2);
    let mut rig = rig.restarted(by_hand());
    rig.open(from());
    assert_eq!(rig.seen[0], "epoch 3 from 2");
}

#[test]
fn a_savepoint_below_what_was_published_is_refused_unless_asked_for() {
    let mut rig = Rig::running(by_hand());
    rig.request_for(Purpose::Copy);
    rig.ack_all(1);
    let savepoint = Box::new(rig.coordinator.latest().unwrap().clone());
    rig.checkpoint();
    let mut again = Rig { store: rig.store.clone(), ..Rig::new(by_hand(), 99) };
    again.open(RestoreFrom::Foreign(savepoint.clone()));
    assert!(again.seen[0].starts_with("refused: checkpoint 2 has completed"), "{:?}", again.seen);
    let mut again = Rig { store: rig.store, ..Rig::new(Settings { allow_rewind: true, ..by_hand() }, 99) };
    again.open(RestoreFrom::Foreign(savepoint));
    // What the copy would have kept in the first run is nobody's any more.
    assert_eq!(again.seen, ["epoch 2 from 1", DELETE_1]);
}
