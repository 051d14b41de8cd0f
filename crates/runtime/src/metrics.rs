//! The figures of a job under Flink's names, for whatever a program exports them with.

use std::fmt;

use cutwater_core::Timestamp;

use crate::job::JobHandle;
use crate::status::{JobState, JobStatus, SubtaskStatus};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Flink's name in snake case, such as `last_checkpoint_duration`. Its unit is Flink's: durations are milliseconds,
    /// sizes bytes, watermarks milliseconds since 1970-01-01 UTC.
    pub name: &'static str,
    /// Whether it only ever rises while the process lives and the attempt lasts.
    pub is_counter: bool,
    /// What it is of: `job`, and for a figure of a subtask also `task` and `subtask`.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: f64,
}

/// As a line of the text format that Prometheus and others read: `cutwater_num_restarts{job="flights"} 2`.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cutwater_{}{{", self.name)?;
        for (at, (label, value)) in self.labels.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{comma}{label}=\"{value}\"")?;
        }
        write!(f, "}} {}", self.value)
    }
}

impl JobHandle {
    /// All figures of the job now, those of the job first, then those of each subtask of the attempt. A program exports them
    /// with what it has: there is no exporter here, nor a thread that gathers them.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        metrics(&self.status())
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn metrics(status: &JobStatus) -> Vec<Metric> {
    let mut all = Vec::new();
    let mut of_job = |name: &'static str, is_counter: bool, value: Option<f64>| {
        let labels = vec![("job", status.job.clone())];
        all.extend(value.map(|value| Metric { name, is_counter, labels, value }));
    };
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let last = status.last_checkpoint.as_ref();
    of_job("running", false, Some(f64::from(u8::from(status.state == JobState::Running))));
    of_job("num_restarts", true, Some(f64::from(status.restarts)));
    of_job("number_of_completed_checkpoints", true, Some(status.completed_checkpoints as f64));
    of_job("number_of_failed_checkpoints", true, Some(status.failed_checkpoints as f64));
    let total = status.completed_checkpoints + status.failed_checkpoints;
    of_job("total_number_of_checkpoints", true, Some(total as f64));
    let in_progress = status.checkpoints.counts().in_progress;
    of_job("number_of_in_progress_checkpoints", false, Some(in_progress as f64));
    of_job("last_completed_checkpoint_id", false, last.map(|last| last.checkpoint.0 as f64));
    of_job("last_checkpoint_size", false, last.map(|last| last.written_bytes as f64));
    of_job("last_checkpoint_full_size", false, last.map(|last| last.bytes as f64));
    of_job("last_checkpoint_duration", false, last.map(|last| ms(last.duration)));
    of_job("last_checkpoint_sync_duration", false, last.map(|last| ms(last.sync)));
    let restore = status.restore.as_ref();
    of_job("initializing_time", false, restore.map(|restore| ms(restore.elapsed)));
    of_job("restore_full_size", false, restore.map(|restore| restore.bytes as f64));
    of_job("restored_state_size_bytes", false, restore.map(|restore| restore.restored_bytes as f64));
    for subtask in &status.subtasks {
        let SubtaskStatus { subtask: id, task, records, watermark, busy, backpressured, idle } = subtask;
        let mut of_subtask = |name: &'static str, is_counter: bool, value: f64| {
            let labels = vec![("job", status.job.clone()), ("task", task.clone()), ("subtask", id.index.to_string())];
            all.push(Metric { name, is_counter, labels, value });
        };
        of_subtask("num_records_in", true, *records as f64);
        if *watermark != Timestamp::MIN && *watermark != Timestamp::MAX {
            of_subtask("current_input_watermark", false, watermark.0 as f64);
        }
        of_subtask("accumulate_busy_time_ms", true, ms(*busy));
        of_subtask("accumulate_back_pressured_time_ms", true, ms(*backpressured));
        of_subtask("accumulate_idle_time_ms", true, ms(*idle));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_line_whatever_is_in_its_labels() {
        let labels = vec![("job", "a\"b\\c\nd".to_owned()), ("subtask", "3".to_owned())];
        let metric = Metric { name: "num_records_in", is_counter: true, labels, value: 12.0 };
        assert_eq!(metric.to_string(), r#"cutwater_num_records_in{job="a\"b\\c\nd",subtask="3"} 12"#);
    }
}
