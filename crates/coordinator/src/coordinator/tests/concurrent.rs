//! Several checkpoints in flight: one case for each rule.

use super::*;

const TWO: fn() -> Settings = || Settings {
    max_concurrent: NonZeroU32::new(2).unwrap(),
    tolerable_failures: 10,
    num_retained: NonZeroU32::new(5).unwrap(),
    ..settings()
};

impl Rig {
    fn swept(&mut self, checkpoint: u64, subtasks: &[SubtaskId]) {
        for subtask in subtasks {
            self.coordinator.handle_swept(self.now, Attempt(1), CheckpointId(checkpoint), *subtask);
            self.drain();
        }
    }

    /// Two in flight, the second of them asked for by hand.
    fn with_two(&mut self) {
        self.until(100);
        self.request();
        self.swept(1, &ALL);
        self.seen.clear();
    }
}

#[test]
fn the_next_begins_when_all_have_swept_the_one_before() {
    let cases: [Case; 6] = [
        (
            "not before the last has",
            TWO(),
            |rig| {
                rig.until(250);
                rig.swept(1, &[S0, S1, T0]);
                rig.seen.push("-- T1".to_owned());
                rig.swept(1, &[T1]);
            },
            &["trigger 1 at S0 S1", "-- T1", "trigger 2 at S0 S1"],
        ),
        (
            "an acknowledgement says it too",
            TWO(),
            |rig| {
                rig.until(250);
                rig.swept(1, &[S0, S1, T0]);
                rig.ack(1, 1, T1);
            },
            &["trigger 1 at S0 S1", "trigger 2 at S0 S1"],
        ),
        (
            "no third one while two are in flight",
            TWO(),
            |rig| {
                rig.until(250);
                rig.swept(1, &ALL);
                rig.swept(2, &ALL);
                rig.until(350);
                rig.seen.push("-- 1 is in".to_owned());
                rig.ack_all(1);
            },
            &["trigger 1 at S0 S1", "trigger 2 at S0 S1", "-- 1 is in", "completed 1 for []", "trigger 3 at S0 S1"],
        ),
        (
            "with one allowed it means nothing",
            settings(),
            |rig| {
                rig.until(250);
                rig.swept(1, &ALL);
            },
            &["trigger 1 at S0 S1"],
        ),
        (
            "of another attempt or checkpoint it means nothing",
            TWO(),
            |rig| {
                rig.until(250);
                rig.swept(2, &ALL);
                for subtask in ALL {
                    rig.coordinator.handle_swept(rig.now, Attempt(2), CheckpointId(1), subtask);
                }
            },
            &["trigger 1 at S0 S1"],
        ),
        (
            "the min pause counts from the last completion",
            Settings { min_pause: Duration::from_millis(70), ..TWO() },
            |rig| {
                rig.until(210);
                rig.swept(1, &ALL);
                rig.ack_all(1);
                rig.swept(2, &ALL);
                rig.until(279);
                rig.seen.push("-- 280".to_owned());
                rig.until(310);
            },
            &["trigger 1 at S0 S1", "trigger 2 at S0 S1", "completed 1 for []", "-- 280", "trigger 3 at S0 S1"],
        ),
    ];
    check(&cases);
}

#[test]
fn what_is_to_stand_alone_does() {
    let cases: [Case; 4] = [
        (
            "a savepoint waits for those in flight, and holds back the next",
            TWO(),
            |rig| {
                rig.until(100);
                rig.swept(1, &ALL);
                rig.request_for(Purpose::Copy);
                rig.until(250);
                rig.ack_all(1);
                rig.swept(2, &ALL);
                rig.until(350);
                rig.ack_all(2);
            },
            &[
                "trigger 1 at S0 S1",
                "completed 1 for []",
                "trigger 2 at S0 S1",
                "completed 2 for [1]",
                "trigger 3 at S0 S1",
            ],
        ),
        (
            "so does the one behind which the job stops",
            TWO(),
            |rig| {
                rig.with_two();
                rig.request_for(Purpose::Stop);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.swept(3, &ALL);
                rig.until(350);
                rig.ack_all(3);
            },
            &["completed 1 for []", "completed 2 for [1]", "trigger 3 at S0 S1, then hold", "completed 3 for [2]"],
        ),
        (
            "and the last one",
            TWO(),
            |rig| {
                rig.with_two();
                rig.end_of_data(&ALL);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.ack_all(3);
            },
            &[
                "trigger 1 at T0 T1",
                "trigger 2 at T0 T1",
                "completed 1 for []",
                "completed 2 for [1]",
                "trigger 3 at S0 S1 T0 T1",
                "completed 3, the last for []",
                "all done",
            ],
        ),
        (
            "a drain gives all up",
            TWO(),
            |rig| {
                rig.with_two();
                rig.request_for(Purpose::Drain);
            },
            &[
                "end the sources",
                "aborted 1 for []: the job is being drained: the last checkpoint comes",
                "aborted 2 for [1]: the job is being drained: the last checkpoint comes",
            ],
        ),
    ];
    check(&cases);
}

#[test]
fn they_complete_and_fail_each_for_itself() {
    let cases: [Case; 9] = [
        (
            "a newer one that completes first gives the older up and answers for it",
            TWO(),
            |rig| {
                rig.request();
                rig.swept(1, &ALL);
                rig.request();
                rig.ack(1, 1, S0);
                rig.ack_all(2);
                rig.ack(1, 1, T0);
            },
            &[
                "trigger 1 at S0 S1",
                "trigger 2 at S0 S1",
                "completed 2 for [2, 1]",
                "aborted 1 for []: checkpoint 2 completed first",
                "delete c1-a1-S0",
                "delete c1-a1-T0",
            ],
        ),
        (
            "one record at a time",
            TWO(),
            |rig| {
                rig.with_two();
                rig.held = true;
                rig.ack_all(1);
                rig.ack_all(2);
                rig.seen.push("-- the store answers".to_owned());
                rig.release();
            },
            &["-- the store answers", "completed 1 for []", "completed 2 for [1]"],
        ),
        (
            "older ones that are all in when a newer one completes do not complete after it",
            Settings { max_concurrent: NonZeroU32::new(3).unwrap(), ..TWO() },
            |rig| {
                rig.with_two();
                rig.swept(2, &ALL);
                rig.request();
                rig.held = true;
                rig.ack_all(3);
                rig.ack_all(1);
                rig.ack_all(2);
                rig.release();
            },
            &[
                "trigger 3 at S0 S1",
                "completed 3 for [2, 1]",
                "aborted 1 for []: checkpoint 3 completed first",
                "aborted 2 for []: checkpoint 3 completed first",
                "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1",
                "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1",
            ],
        ),
        (
            "nor what is all in when the job is claimed anew",
            TWO(),
            |rig| {
                rig.with_two();
                rig.held = true;
                rig.ack_all(1);
                rig.ack_all(2);
                rig.outcomes = [Fate::UnknownNotDone].into();
                rig.release();
                rig.checkpoint();
            },
            &[],
        ),
        (
            "a record that fails leaves the other",
            TWO(),
            |rig| {
                rig.with_two();
                rig.outcomes = [Fate::Failed].into();
                rig.ack_all(2);
                rig.ack_all(1);
            },
            &[
                "aborted 2 for [1]: its record could not be written: full",
                "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1",
                "completed 1 for []",
            ],
        ),
        (
            "what began before the job was claimed anew is given up",
            TWO(),
            |rig| {
                rig.with_two();
                rig.outcomes = [Fate::UnknownNotDone].into();
                rig.ack_all(1);
                rig.ack_all(2);
            },
            &[
                "aborted 2 for [1]: the job was claimed anew meanwhile: epoch 2",
                "aborted 1 for []: its record could not be written: the store did not say whether it was written, and it was not",
                "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1",
                "delete c2-a1-S0",
                "delete c2-a1-S1",
                "delete c2-a1-T0",
                "delete c2-a1-T1",
            ],
        ),
        (
            "a decline is of one",
            TWO(),
            |rig| {
                rig.with_two();
                rig.decline(1, S0, true);
                rig.ack_all(2);
            },
            &["aborted 1 for []: task 0[0] declined: no", "completed 2 for [1]"],
        ),
        (
            "each has its own timeout",
            Settings { interval: None, ..TWO() },
            |rig| {
                rig.request();
                rig.until(500);
                rig.swept(1, &ALL);
                rig.request();
                rig.until(1000);
                rig.seen.push("-- later".to_owned());
                rig.until(1500);
            },
            &[
                "trigger 1 at S0 S1",
                "trigger 2 at S0 S1",
                "aborted 1 for [1]: 4 of 4 acknowledgements missing at the timeout, first of task 0[0]",
                "-- later",
                "aborted 2 for [2]: 4 of 4 acknowledgements missing at the timeout, first of task 0[0]",
            ],
        ),
        (
            "a failover gives all up",
            TWO(),
            |rig| {
                rig.with_two();
                rig.fail_over();
            },
            &["aborted 1 for []: the attempt ended", "aborted 2 for [1]: the attempt ended", "restore nothing"],
        ),
    ];
    check(&cases);
}

/// With one retained: the base of one in flight is subsumed by another that builds on nothing.
#[test]
fn what_one_in_flight_builds_on_stays() {
    let mut rig = Rig::running(Settings {
        max_concurrent: NonZeroU32::new(2).unwrap(),
        num_retained: NonZeroU32::MIN,
        ..by_hand()
    });
    rig.checkpoint();
    rig.request();
    rig.swept(2, &ALL);
    rig.request();
    rig.seen.clear();
    rig.ack_all(2);
    assert_eq!(rig.seen, ["completed 2 for [2]"], "1 is not deleted: 3 builds on it");
    for subtask in ALL {
        rig.ack_chain(1, &[1, 3], subtask);
    }
    assert_eq!(rig.seen[1..], ["completed 3 for [3]", "delete c2-a1-S0 c2-a1-S1 c2-a1-T0 c2-a1-T1"]);
    rig.checkpoint();
    assert!(rig.coordinator.latest().is_some_and(|latest| latest.files().all(|file| file.name.starts_with("c4"))));
}
