//! Savepoints, and jobs that stop behind one.

use super::*;

const STOPPED: &str = "record Stopped { savepoint: Some(\"file:///s\"), drained: false }";
const DONE: &str = "done: Stopped { savepoint: Some(\"file:///s\"), drained: false }";

impl Rig {
    /// What was asked for completes, with this output.
    fn complete(&mut self, checkpoint: u64, output: &[&str]) {
        self.ack(1, checkpoint, A, output);
        self.ack(1, checkpoint, B, &[]);
    }
}

#[test]
fn a_savepoint_is_a_copy_of_a_checkpoint_and_the_job_goes_on() {
    check(&[
        (
            "it is copied once it is durable, beside the publishing",
            |rig| {
                rig.savepoint();
                rig.complete(1, &["x"]);
                rig.committed(1, 1, Ok(()));
                rig.copied(1, Ok("file:///s"));
                rig.checkpoint(2, &[]);
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "copy 1 for 1",
                "commit 1: x",
                "tell that 1 is published",
                "trigger 2",
                "completed 2 for [2]",
            ],
        ),
        (
            "one that can't be made harms nobody",
            |rig| {
                rig.savepoint();
                rig.complete(1, &[]);
                rig.copied(1, Err(()));
                rig.checkpoint(2, &[]);
            },
            &["trigger 1", "completed 1 for [1]", "copy 1 for 1", "trigger 2", "completed 2 for [2]"],
        ),
        (
            "without a checkpoint there is none",
            |rig| {
                rig.savepoint();
                rig.decline(1);
            },
            &[
                "trigger 1",
                "aborted 1: task 0[0] declined: no",
                "tell that 1 is aborted",
                "checkpoint 1 failed, the 1. in a row, 0 are tolerated",
                "stop 1",
                "restart 1 is scheduled",
            ],
        ),
        (
            "a failure of the attempt does not take it back",
            |rig| {
                rig.savepoint();
                rig.complete(1, &[]);
                rig.fail(1, FailureClass::Recoverable, "broken");
                rig.copied(1, Ok("file:///s"));
            },
            &["trigger 1", "completed 1 for [1]", "copy 1 for 1", "keep it", "stop 1", "restart 1 is scheduled"],
        ),
    ]);
}

#[test]
fn a_job_stops_once_its_output_is_published_and_its_savepoint_made() {
    check(&[
        (
            "the savepoint last",
            |rig| {
                assert!(rig.stop(false, true));
                rig.complete(1, &["x"]);
                rig.committed(1, 1, Ok(()));
                rig.copied(1, Ok("file:///s"));
                rig.stopped(1);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "copy 1 for 1",
                "commit 1: x",
                "tell that 1 is published",
                "stop 1",
                STOPPED,
                DONE,
            ],
        ),
        (
            "the publishing last",
            |rig| {
                rig.stop(false, true);
                rig.complete(1, &["x"]);
                rig.copied(1, Ok("file:///s"));
                rig.committed(1, 1, Ok(()));
                rig.stopped(1);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "copy 1 for 1",
                "commit 1: x",
                "tell that 1 is published",
                "stop 1",
                STOPPED,
                DONE,
            ],
        ),
        (
            "with no savepoint behind the checkpoint alone",
            |rig| {
                rig.stop(false, false);
                rig.complete(1, &[]);
                rig.stopped(1);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "stop 1",
                "record Stopped { savepoint: None, drained: false }",
                "done: Stopped { savepoint: None, drained: false }",
            ],
        ),
        (
            "it stops once, and who asks again is told so",
            |rig| {
                assert!(rig.stop(false, true));
                assert!(!rig.stop(true, true));
            },
            &["trigger 1, then hold"],
        ),
        (
            "a cancel does not wait for it, and then it is too late to stop",
            |rig| {
                rig.stop(false, true);
                rig.complete(1, &[]);
                rig.cancel();
                assert!(!rig.stop(false, false));
                rig.stopped(1);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "copy 1 for 1",
                "stop 1",
                "record Canceled",
                "done: Canceled",
            ],
        ),
    ]);
}

#[test]
fn a_job_that_can_not_stop_goes_on_and_says_so() {
    check(&[
        (
            "no checkpoint: the request is answered as any, and the next may stop it",
            |rig| {
                rig.held = true;
                rig.stop(false, true);
                rig.driver.handle_decline(rig.now, Attempt(1), CheckpointId(1), A, "no".to_owned(), false);
                rig.release();
                assert!(rig.stop(false, false));
            },
            &[
                "trigger 1, then hold",
                "aborted 1: task 0[0] declined: no",
                "tell that 1 is aborted",
                "trigger 2, then hold",
            ],
        ),
        (
            "no copy: sources go on",
            |rig| {
                rig.stop(false, true);
                rig.complete(1, &[]);
                rig.copied(1, Err(()));
                rig.checkpoint(2, &[]);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "copy 1 for 1",
                "not stopped for 1: None",
                "tell that 1 is aborted",
                "trigger 2",
                "completed 2 for [2]",
            ],
        ),
        (
            "an attempt that fails before its output is published is restarted, and the savepoint told when it is made",
            |rig| {
                rig.stop(false, true);
                rig.complete(1, &["x"]);
                rig.committed(1, 1, FAILS);
                rig.copied(1, Ok("file:///s"));
                rig.stopped(1);
                rig.until(1_000);
            },
            &[
                "trigger 1, then hold",
                "completed 1 for [1]",
                "copy 1 for 1",
                "commit 1: x",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "not stopped for 1: Some(\"file:///s\")",
                "start 2 of epoch 1 from 1, publish x",
            ],
        ),
        (
            "an attempt that fails while the record is on its way is over, whatever comes of it",
            |rig| {
                rig.held = true;
                rig.stop(false, true);
                rig.complete(1, &[]);
                rig.fail(1, FailureClass::Recoverable, "broken");
                rig.release();
                rig.stopped(1);
                rig.until(1_000);
                rig.started(2, Ok(()));
                rig.copied(1, Ok("file:///s"));
            },
            &[
                "trigger 1, then hold",
                "keep it",
                "stop 1",
                "restart 1 is scheduled",
                "completed 1 for [1]",
                "copy 1 for 1",
                "start 2 of epoch 1 from 1",
                "not stopped for 1: Some(\"file:///s\")",
            ],
        ),
    ]);
}

#[test]
fn a_drained_job_ends_when_all_is_published_and_its_savepoint_made() {
    const DRAINED: [&str; 2] = [
        "record Stopped { savepoint: Some(\"file:///s\"), drained: true }",
        "done: Stopped { savepoint: Some(\"file:///s\"), drained: true }",
    ];
    check(&[
        (
            "the savepoint last",
            |rig| {
                rig.stop(true, true);
                rig.end_of_data(1);
                rig.complete(1, &["x"]);
                rig.committed(1, 1, Ok(()));
                rig.last_cut(1, A, &[]);
                rig.last_cut(1, B, &[]);
                rig.copied(1, Ok("file:///s"));
                rig.stopped(1);
            },
            &[
                "end the sources",
                "trigger 1",
                "completed 1 for [1]",
                "copy 1 for 1, drained",
                "last cut",
                "commit 1: x",
                "tell that 1 is published",
                "stop 1",
                DRAINED[0],
                DRAINED[1],
            ],
        ),
        (
            "what sinks held to the end comes first",
            |rig| {
                rig.stop(true, true);
                rig.end_of_data(1);
                rig.complete(1, &[]);
                rig.copied(1, Ok("file:///s"));
                rig.last_cut(1, A, &["y"]);
                rig.last_cut(1, B, &[]);
                rig.committed(1, 0, Ok(()));
                rig.stopped(1);
            },
            &[
                "end the sources",
                "trigger 1",
                "completed 1 for [1]",
                "copy 1 for 1, drained",
                "last cut",
                "commit at last: y, 1 to finish",
                "stop 1",
                DRAINED[0],
                DRAINED[1],
            ],
        ),
        (
            "without the savepoint it ends all the same",
            |rig| {
                rig.stop(true, true);
                rig.end_of_data(1);
                rig.complete(1, &[]);
                rig.last_cut(1, A, &[]);
                rig.last_cut(1, B, &[]);
                rig.copied(1, Err(()));
                rig.stopped(1);
            },
            &[
                "end the sources",
                "trigger 1",
                "completed 1 for [1]",
                "copy 1 for 1, drained",
                "last cut",
                "stop 1",
                "record Stopped { savepoint: None, drained: true }",
                "done: Stopped { savepoint: None, drained: true }",
            ],
        ),
        (
            "a job that was to stop and comes to its end has finished, with a savepoint",
            |rig| {
                rig.end_of_data(1);
                rig.stop(false, true);
                rig.complete(1, &[]);
                rig.copied(1, Ok("file:///s"));
                rig.last_cut(1, A, &[]);
                rig.last_cut(1, B, &[]);
                rig.stopped(1);
            },
            &[
                "trigger 1",
                "completed 1 for [1]",
                "copy 1 for 1",
                "last cut",
                "stop 1",
                "record Finished",
                "done: Finished",
            ],
        ),
        (
            "an attempt that begins with a drained checkpoint is drained too, whatever became of the savepoint",
            |rig| {
                rig.stop(true, true);
                rig.end_of_data(1);
                rig.complete(1, &[]);
                rig.fail(1, FailureClass::Recoverable, "broken");
                rig.copied(1, Ok("file:///s"));
                rig.stopped(1);
                rig.until(1_000);
                rig.seen.clear();
                rig.started(2, Ok(()));
                rig.end_of_data(2);
                rig.ack(2, 2, A, &[]);
                rig.ack(2, 2, B, &[]);
                rig.last_cut(2, A, &[]);
                rig.last_cut(2, B, &[]);
                rig.stopped(2);
            },
            &[
                "trigger 2",
                "completed 2 for []",
                "last cut",
                "stop 2",
                "record Stopped { savepoint: None, drained: true }",
                "done: Stopped { savepoint: None, drained: true }",
            ],
        ),
    ]);
}
