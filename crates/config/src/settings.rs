use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::keys::{HIDDEN, may_be_shown};
use crate::value::write_duration;
use crate::{CheckpointingMode, ExternalizedCheckpointRetention};

#[cfg(test)]
mod tests;

/// What a program says about its job, in Flink's words. Each method sets the key named at it; values are checked when
/// the configuration is resolved, so that every source has the same rules and errors.
///
/// ```
/// use cutwater_config::Settings;
/// use std::time::Duration;
///
/// let settings = Settings::new()
///     .enable_checkpointing(Duration::from_secs(10))
///     .fixed_delay_restart(3, Duration::from_secs(10));
/// assert_eq!(settings.value("restart-strategy.type"), Some("fixed-delay"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pairs: BTreeMap<String, String>,
}

impl Settings {
    /// Says nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a checkpoint every `interval`, at least 10 ms; zero is [`Self::disable_checkpointing`]. Sets
    /// `execution.checkpointing.interval`.
    #[must_use]
    pub fn enable_checkpointing(self, interval: Duration) -> Self {
        self.set("execution.checkpointing.interval", write_duration(interval))
    }

    /// Takes no checkpoints, whatever a file says. Sets `execution.checkpointing.interval` to 0.
    #[must_use]
    pub fn disable_checkpointing(self) -> Self {
        self.enable_checkpointing(Duration::ZERO)
    }

    /// Sets `execution.checkpointing.mode`.
    #[must_use]
    pub fn checkpointing_mode(self, mode: CheckpointingMode) -> Self {
        let name = match mode {
            CheckpointingMode::ExactlyOnce => "EXACTLY_ONCE",
            CheckpointingMode::AtLeastOnce => "AT_LEAST_ONCE",
        };
        self.set("execution.checkpointing.mode", name)
    }

    /// The least time between the end of a checkpoint and the start of the next. Sets
    /// `execution.checkpointing.min-pause`.
    #[must_use]
    pub fn min_pause_between_checkpoints(self, pause: Duration) -> Self {
        self.set("execution.checkpointing.min-pause", write_duration(pause))
    }

    /// A checkpoint that takes longer is given up; at least 10 ms. Sets `execution.checkpointing.timeout`.
    #[must_use]
    pub fn checkpoint_timeout(self, timeout: Duration) -> Self {
        self.set("execution.checkpointing.timeout", write_duration(timeout))
    }

    /// Whether a failed checkpoint fails the job. `true` sets `execution.checkpointing.tolerable-failed-checkpoints`
    /// to 0, `false` to 2147483647.
    #[must_use]
    pub fn fail_tasks_on_checkpointing_errors(self, fail: bool) -> Self {
        self.tolerable_checkpoint_failure_number(if fail { 0 } else { crate::resolve::UNLIMITED })
    }

    /// How many checkpoints in a row may fail before the job does; at most 2147483647. Sets
    /// `execution.checkpointing.tolerable-failed-checkpoints`.
    #[must_use]
    pub fn tolerable_checkpoint_failure_number(self, failures: u32) -> Self {
        self.set("execution.checkpointing.tolerable-failed-checkpoints", failures.to_string())
    }

    /// How many checkpoints may be under way at once; at least 1. Sets
    /// `execution.checkpointing.max-concurrent-checkpoints`.
    #[must_use]
    pub fn max_concurrent_checkpoints(self, checkpoints: u32) -> Self {
        self.set("execution.checkpointing.max-concurrent-checkpoints", checkpoints.to_string())
    }

    /// Whether checkpoints hold only what has changed since the one before, when that pays. Sets
    /// `execution.checkpointing.incremental`.
    #[must_use]
    pub fn incremental_checkpoints(self, incremental: bool) -> Self {
        self.set("execution.checkpointing.incremental", incremental.to_string())
    }

    /// How many completed checkpoints are kept; at least 1. Sets `execution.checkpointing.num-retained`.
    #[must_use]
    pub fn num_retained_checkpoints(self, checkpoints: u32) -> Self {
        self.set("execution.checkpointing.num-retained", checkpoints.to_string())
    }

    /// What becomes of checkpoints when the job ends. Sets
    /// `execution.checkpointing.externalized-checkpoint-retention`.
    #[must_use]
    pub fn externalized_checkpoint_retention(self, retention: ExternalizedCheckpointRetention) -> Self {
        let name = match retention {
            ExternalizedCheckpointRetention::RetainOnCancellation => "RETAIN_ON_CANCELLATION",
            ExternalizedCheckpointRetention::DeleteOnCancellation => "DELETE_ON_CANCELLATION",
            ExternalizedCheckpointRetention::NoExternalizedCheckpoints => "NO_EXTERNALIZED_CHECKPOINTS",
        };
        self.set("execution.checkpointing.externalized-checkpoint-retention", name)
    }

    /// Whether savepoints are in the own form of the backend, where it has one: quick to make and to start from, by that backend
    /// alone. Sets `cutwater.savepoint.format`.
    #[must_use]
    pub fn native_savepoints(self, native: bool) -> Self {
        self.set("cutwater.savepoint.format", if native { "NATIVE" } else { "CANONICAL" })
    }

    /// Whether the retained checkpoint before it takes the place of one that is damaged; output of what came between is
    /// then published once more. Needs at least 2 of [`Self::num_retained_checkpoints`]. Sets
    /// `cutwater.state-recovery.fall-back`.
    #[must_use]
    pub fn fall_back_past_damaged_checkpoints(self, fall_back: bool) -> Self {
        self.set("cutwater.state-recovery.fall-back", fall_back.to_string())
    }

    /// Ends the job as failed if it restarts `attempts` times in a row without getting on; at least 1. Sets
    /// `cutwater.restart.no-progress` to `STOP`, and `cutwater.restart.no-progress-attempts`.
    #[must_use]
    pub fn stop_without_progress(self, attempts: u32) -> Self {
        self.set("cutwater.restart.no-progress", "STOP")
            .set("cutwater.restart.no-progress-attempts", attempts.to_string())
    }

    /// Whether checkpoints go on when a part of the job has reached its end. Sets
    /// `execution.checkpointing.checkpoints-after-tasks-finish`.
    #[must_use]
    pub fn checkpoints_after_tasks_finish(self, go_on: bool) -> Self {
        self.set("execution.checkpointing.checkpoints-after-tasks-finish", go_on.to_string())
    }

    /// Writes checkpoints to a folder. Sets `execution.checkpointing.dir`, and `execution.checkpointing.storage` to
    /// `filesystem`.
    #[must_use]
    pub fn checkpoint_storage(self, folder: &str) -> Self {
        self.set("execution.checkpointing.storage", "filesystem").set("execution.checkpointing.dir", folder)
    }

    /// Where keyed state lives. Sets `state.backend.type`.
    #[must_use]
    pub fn state_backend(self, name: &str) -> Self {
        self.set("state.backend.type", name)
    }

    /// The number of subtasks of each operator. Sets `parallelism.default`.
    #[must_use]
    pub fn parallelism(self, subtasks: u32) -> Self {
        self.set("parallelism.default", subtasks.to_string())
    }

    /// The number of key groups; at most 32768. Sets `pipeline.max-parallelism`.
    #[must_use]
    pub fn max_parallelism(self, groups: u32) -> Self {
        self.set("pipeline.max-parallelism", groups.to_string())
    }

    /// The name of the job. Sets `pipeline.name`.
    #[must_use]
    pub fn job_name(self, name: &str) -> Self {
        self.set("pipeline.name", name)
    }

    /// The first failure ends the job. Sets `restart-strategy.type`.
    #[must_use]
    pub fn no_restart(self) -> Self {
        self.restart("none", [])
    }

    /// Restarts after each of the first `attempts` failures, `delay` later. Sets `restart-strategy.type` and
    /// `restart-strategy.fixed-delay.*`.
    #[must_use]
    pub fn fixed_delay_restart(self, attempts: u32, delay: Duration) -> Self {
        let options = [
            ("restart-strategy.fixed-delay.attempts", attempts.to_string()),
            ("restart-strategy.fixed-delay.delay", write_duration(delay)),
        ];
        self.restart("fixed-delay", options)
    }

    /// Restarts `delay` after a failure, as long as no `interval` holds more than `max_failures`. Sets
    /// `restart-strategy.type` and `restart-strategy.failure-rate.*`.
    #[must_use]
    pub fn failure_rate_restart(self, max_failures: u32, interval: Duration, delay: Duration) -> Self {
        let options = [
            ("restart-strategy.failure-rate.max-failures-per-interval", max_failures.to_string()),
            ("restart-strategy.failure-rate.failure-rate-interval", write_duration(interval)),
            ("restart-strategy.failure-rate.delay", write_duration(delay)),
        ];
        self.restart("failure-rate", options)
    }

    /// Restarts after a delay that grows from `initial` to `max` by `multiplier`, varied by `jitter` (a part of it),
    /// and begins anew when the job has run for `reset_threshold`. Sets `restart-strategy.type` and
    /// `restart-strategy.exponential-delay.*`, all but the number of attempts, which stays unlimited unless
    /// [`Self::set`] says otherwise afterwards.
    #[must_use]
    pub fn exponential_delay_restart(
        self,
        initial: Duration,
        max: Duration,
        multiplier: f64,
        reset_threshold: Duration,
        jitter: f64,
    ) -> Self {
        let options = [
            ("restart-strategy.exponential-delay.initial-backoff", write_duration(initial)),
            ("restart-strategy.exponential-delay.max-backoff", write_duration(max)),
            ("restart-strategy.exponential-delay.backoff-multiplier", multiplier.to_string()),
            ("restart-strategy.exponential-delay.reset-backoff-threshold", write_duration(reset_threshold)),
            ("restart-strategy.exponential-delay.jitter-factor", jitter.to_string()),
        ];
        self.restart("exponential-delay", options)
    }

    /// Sets any key, new name or old, to a text as it would stand in a file. An empty text takes the key out.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.pairs.insert(key.into(), value.into());
        self
    }

    /// What was said of a key, under the name under which it was said.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn into_pairs(self) -> BTreeMap<String, String> {
        self.pairs
    }

    /// Whoever chooses a strategy twice means the second, without options of the first.
    fn restart<const N: usize>(mut self, name: &str, options: [(&str, String); N]) -> Self {
        self.pairs.retain(|key, _| !key.starts_with("restart-strategy"));
        let start = self.set("restart-strategy.type", name);
        options.into_iter().fold(start, |settings, (key, value)| settings.set(key, value))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in &self.pairs {
            map.entry(key, &if may_be_shown(key, false) { value.as_str() } else { HIDDEN });
        }
        map.finish()
    }
}
