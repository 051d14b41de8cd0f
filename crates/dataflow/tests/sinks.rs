//! What is collected is published once, and only when a commit says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid};
use cutwater_dataflow::{
    Collect, CommitContext, CommitOutcome, NonRecoverable, Sink, SinkContext, SinkWriter, UserError, discard,
};

fn operator() -> OperatorUid {
    OperatorUid::new("out").unwrap()
}

fn to_write() -> SinkContext {
    let (job, operator) = ("job".to_owned(), operator());
    SinkContext { job, operator, subtask: 0, parallelism: 1, epoch: Epoch(1), attempt: Attempt(1), from_nothing: true }
}

fn to_commit() -> CommitContext {
    CommitContext { job: "job".to_owned(), operator: operator(), epoch: Epoch(1), attempt: Attempt(1) }
}

#[test]
fn a_commit_publishes_once() {
    let out = Collect::<u64>::default();
    let mut writer = out.open(&to_write()).unwrap();
    writer.write(None, 1).unwrap();
    writer.write(None, 2).unwrap();
    let first = writer.prepare(CheckpointId(1)).unwrap().remove(0);
    writer.write(None, 3).unwrap();
    assert!(out.take().is_empty(), "prepared is not published");

    let mut committer = out.committer(&to_commit()).unwrap();
    assert!(matches!(committer.commit(&first.handle), CommitOutcome::Committed));
    assert!(matches!(committer.commit(&first.handle), CommitOutcome::Already));
    let mut another = out.committer(&to_commit()).unwrap();
    assert!(matches!(another.commit(&first.handle), CommitOutcome::Already), "another committer knows");
    assert_eq!(out.take(), [1, 2], "what came after the cut belongs to the next");

    let second = writer.prepare(CheckpointId(2)).unwrap().remove(0);
    assert!(matches!(committer.commit(&second.handle), CommitOutcome::Committed));
    assert_eq!(out.take(), [3]);
    assert!(writer.prepare(CheckpointId(3)).unwrap().is_empty(), "nothing was written");
}

#[test]
fn a_handle_of_another_process_is_lost() {
    let mut committer = Collect::<u64>::default().committer(&to_commit()).unwrap();
    for handle in [&[][..], &7u64.to_le_bytes(), b"not a number"] {
        assert!(matches!(committer.commit(handle), CommitOutcome::Lost(_)), "{handle:?}");
    }
}

#[test]
fn discarding_prepares_nothing() {
    let mut writer = Sink::<u64>::open(&discard(), &to_write()).unwrap();
    writer.write(None, 1u64).unwrap();
    assert!(SinkWriter::<u64>::prepare(&mut writer, CheckpointId(1)).unwrap().is_empty());
}

#[test]
fn an_error_is_non_recoverable_if_it_or_a_cause_is_marked() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] UserError);

    let marked = || UserError::from(NonRecoverable::new("no such column"));
    assert!(NonRecoverable::is(&*marked()));
    assert_eq!(marked().to_string(), "no such column");
    assert!(NonRecoverable::is(&Outer(marked())));
    assert!(!NonRecoverable::is(&Outer("a full disk".into())));
}
