//! Spans for checkpoints and restores, with Flink's words for their fields in snake case: durations in ms, times in ms since
//! 1970-01-01 UTC, sizes in bytes. They are closed when what they tell of is done, so that a subscriber can export them
//! whole.

use std::time::Duration;

use cutwater_core::{Attempt, Barrier, Epoch};
use tracing::Span;
use tracing::field::Empty;

use crate::restore::{RestorePoint, RestoreProgress};
use crate::statistics::{CheckpointStatistics, CheckpointStatus};

/// Flink's span `Checkpoint`, from the trigger to the record or the failure.
pub(crate) fn checkpoint(job: &str, barrier: Barrier, start_ts: u64) -> Span {
    tracing::info_span!(
        parent: None,
        "checkpoint",
        job,
        epoch = barrier.epoch.0,
        attempt = barrier.attempt.0,
        checkpoint_id = barrier.checkpoint.0,
        is_unaligned = false,
        start_ts,
        end_ts = Empty,
        checkpoint_type = Empty,
        checkpoint_status = Empty,
        checkpointed_size = Empty,
        full_size = Empty,
        metadata_size = Empty,
        failure = Empty,
    )
}

/// What became of it.
pub(crate) fn end_checkpoint(span: &Span, ended: &CheckpointStatistics, end_ts: u64) {
    span.record("end_ts", end_ts);
    span.record("checkpoint_type", ended.kind.name());
    span.record("checkpoint_status", status(ended.status == CheckpointStatus::Completed));
    span.record("checkpointed_size", ended.written_bytes);
    span.record("full_size", ended.full_bytes);
    if let Some(bytes) = ended.metadata_bytes {
        span.record("metadata_size", bytes);
    }
    if let Some(failure) = &ended.failure {
        span.record("failure", failure.as_str());
    }
}

/// Flink's span `JobInitialization`, from the start of an attempt that restores until it runs or fails.
pub(crate) fn restore(job: &str, epoch: Epoch, attempt: Attempt, point: &RestorePoint, start_ts: u64) -> Span {
    tracing::info_span!(
        parent: None,
        "restore",
        job,
        epoch = epoch.0,
        attempt = attempt.0,
        checkpoint_id = point.checkpoint.checkpoint.0,
        full_size = point.checkpoint.state_bytes(),
        start_ts,
        end_ts = Empty,
        restore_status = Empty,
        max_restore_state_duration_ms = Empty,
        sum_restore_state_duration_ms = Empty,
        sum_restored_state_size_bytes_local_disk = Empty,
        sum_restored_state_size_bytes_remote = Empty,
        failure = Empty,
    )
}

/// What became of it: how long each subtask took, or why there is no attempt; and what was read from where.
pub(crate) fn end_restore(
    span: &Span,
    ended: Result<&[Duration], &str>,
    progress: Option<&RestoreProgress>,
    end_ts: u64,
) {
    if let Some(progress) = progress {
        span.record("sum_restored_state_size_bytes_local_disk", progress.local_bytes);
        span.record(
            "sum_restored_state_size_bytes_remote",
            progress.restored_bytes.saturating_sub(progress.local_bytes),
        );
    }
    span.record("end_ts", end_ts);
    span.record("restore_status", status(ended.is_ok()));
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match ended {
        Ok(took) => {
            span.record("max_restore_state_duration_ms", ms(took.iter().max().copied().unwrap_or_default()));
            span.record("sum_restore_state_duration_ms", ms(took.iter().sum()));
        }
        Err(failure) => drop(span.record("failure", failure)),
    }
}

fn status(done: bool) -> &'static str {
    if done { "COMPLETED" } else { "FAILED" }
}
