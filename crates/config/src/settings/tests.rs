use super::*;
use crate::{CheckpointStorage, Checkpointing, Config, Resolved, RestartSettings};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every method, the keys it sets, and what comes of it. One that is missing here fails the second test below.
#[test]
fn every_method_sets_its_keys_and_they_take_effect() {
    type Keys = &'static [(&'static str, &'static str)];
    type Effect = fn(&Resolved) -> bool;
    let new = Settings::new;
    let cases: [(&str, Settings, Keys, Effect); 29] = [
        ("new", new(), &[], |resolved| *resolved == Config::new().resolve().unwrap()),
        (
            "enable_checkpointing(1000 ms)",
            new().enable_checkpointing(Duration::from_millis(1000)),
            &[("execution.checkpointing.interval", "1 s")],
            |resolved| resolved.checkpointing.interval == Some(s(1)),
        ),
        (
            "disable_checkpointing",
            new().disable_checkpointing(),
            &[("execution.checkpointing.interval", "0 ms")],
            |resolved| resolved.checkpointing.interval.is_none(),
        ),
        (
            "checkpointing_mode(exactly once)",
            new().checkpointing_mode(CheckpointingMode::ExactlyOnce),
            &[("execution.checkpointing.mode", "EXACTLY_ONCE")],
            |resolved| resolved.checkpointing.mode == CheckpointingMode::ExactlyOnce,
        ),
        (
            "checkpointing_mode(at least once)",
            new().checkpointing_mode(CheckpointingMode::AtLeastOnce),
            &[("execution.checkpointing.mode", "AT_LEAST_ONCE")],
            |resolved| resolved.checkpointing.mode == CheckpointingMode::AtLeastOnce,
        ),
        (
            "min_pause_between_checkpoints",
            new().min_pause_between_checkpoints(Duration::from_millis(500)),
            &[("execution.checkpointing.min-pause", "500 ms")],
            |resolved| resolved.checkpointing.min_pause == Duration::from_millis(500),
        ),
        (
            "checkpoint_timeout",
            new().checkpoint_timeout(s(60)),
            &[("execution.checkpointing.timeout", "1 min")],
            |resolved| resolved.checkpointing.timeout == s(60),
        ),
        (
            "fail_tasks_on_checkpointing_errors(false) bears all",
            new().fail_tasks_on_checkpointing_errors(false),
            &[("execution.checkpointing.tolerable-failed-checkpoints", "2147483647")],
            |resolved| resolved.checkpointing.tolerable_failures == 2_147_483_647,
        ),
        (
            "fail_tasks_on_checkpointing_errors(true) bears none",
            new().fail_tasks_on_checkpointing_errors(true),
            &[("execution.checkpointing.tolerable-failed-checkpoints", "0")],
            |resolved| resolved.checkpointing.tolerable_failures == 0,
        ),
        (
            "tolerable_checkpoint_failure_number",
            new().tolerable_checkpoint_failure_number(3),
            &[("execution.checkpointing.tolerable-failed-checkpoints", "3")],
            |resolved| resolved.checkpointing.tolerable_failures == 3,
        ),
        (
            "externalized_checkpoint_retention",
            new().externalized_checkpoint_retention(ExternalizedCheckpointRetention::NoExternalizedCheckpoints),
            &[("execution.checkpointing.externalized-checkpoint-retention", "NO_EXTERNALIZED_CHECKPOINTS")],
            |resolved| resolved.checkpointing.retention == ExternalizedCheckpointRetention::NoExternalizedCheckpoints,
        ),
        ("native_savepoints", new().native_savepoints(true), &[("cutwater.savepoint.format", "NATIVE")], |resolved| {
            resolved.checkpointing.native_savepoints
        }),
        (
            "fall_back_past_damaged_checkpoints",
            new().num_retained_checkpoints(2).fall_back_past_damaged_checkpoints(true),
            &[("execution.checkpointing.num-retained", "2"), ("cutwater.state-recovery.fall-back", "true")],
            |resolved| resolved.recovery.fall_back,
        ),
        (
            "stop_without_progress",
            new().stop_without_progress(5),
            &[("cutwater.restart.no-progress", "STOP"), ("cutwater.restart.no-progress-attempts", "5")],
            |resolved| resolved.no_progress.stop && resolved.no_progress.attempts.get() == 5,
        ),
        (
            "max_concurrent_checkpoints",
            new().max_concurrent_checkpoints(1),
            &[("execution.checkpointing.max-concurrent-checkpoints", "1")],
            |resolved| resolved.checkpointing.max_concurrent.get() == 1,
        ),
        (
            "incremental_checkpoints",
            new().incremental_checkpoints(true),
            &[("execution.checkpointing.incremental", "true")],
            |resolved| resolved.checkpointing.incremental,
        ),
        (
            "num_retained_checkpoints",
            new().num_retained_checkpoints(5),
            &[("execution.checkpointing.num-retained", "5")],
            |resolved| resolved.checkpointing.num_retained.get() == 5,
        ),
        (
            "checkpoints_after_tasks_finish",
            new().checkpoints_after_tasks_finish(false),
            &[("execution.checkpointing.checkpoints-after-tasks-finish", "false")],
            |resolved| !resolved.checkpointing.after_tasks_finish,
        ),
        (
            "checkpoint_storage",
            new().checkpoint_storage("/c"),
            &[("execution.checkpointing.dir", "/c"), ("execution.checkpointing.storage", "filesystem")],
            |resolved| {
                resolved.checkpointing.storage == CheckpointStorage::Folder("/c".to_owned())
                    && resolved.checkpoint_dir.as_deref() == Some("/c")
            },
        ),
        ("state_backend", new().state_backend("memory"), &[("state.backend.type", "memory")], |resolved| {
            resolved.backend == crate::BackendKind::Hashmap
        }),
        ("parallelism", new().parallelism(4), &[("parallelism.default", "4")], |resolved| {
            resolved.parallelism.is_some_and(|parallelism| parallelism.get() == 4)
        }),
        ("max_parallelism", new().max_parallelism(128), &[("pipeline.max-parallelism", "128")], |resolved| {
            resolved.max_parallelism.is_some_and(|max| max.count() == 128)
        }),
        ("job_name", new().job_name("flights"), &[("pipeline.name", "flights")], |resolved| {
            resolved.name.as_deref() == Some("flights")
        }),
        ("no_restart", new().no_restart(), &[("restart-strategy.type", "none")], |resolved| {
            resolved.restart == Some(RestartSettings::None)
        }),
        (
            "fixed_delay_restart(3, 10 s)",
            new().fixed_delay_restart(3, s(10)),
            &[
                ("restart-strategy.fixed-delay.attempts", "3"),
                ("restart-strategy.fixed-delay.delay", "10 s"),
                ("restart-strategy.type", "fixed-delay"),
            ],
            |resolved| resolved.restart == Some(RestartSettings::FixedDelay { attempts: 3, delay: s(10) }),
        ),
        (
            "failure_rate_restart(3, 5 min, 10 s)",
            new().failure_rate_restart(3, s(300), s(10)),
            &[
                ("restart-strategy.failure-rate.delay", "10 s"),
                ("restart-strategy.failure-rate.failure-rate-interval", "5 min"),
                ("restart-strategy.failure-rate.max-failures-per-interval", "3"),
                ("restart-strategy.type", "failure-rate"),
            ],
            |resolved| {
                let (max_failures_per_interval, interval, delay) = (3, s(300), s(10));
                resolved.restart == Some(RestartSettings::FailureRate { max_failures_per_interval, interval, delay })
            },
        ),
        (
            "exponential_delay_restart(1 s, 1 min, 2, 1 h, 0.25)",
            new().exponential_delay_restart(s(1), s(60), 2.0, s(3600), 0.25),
            &[
                ("restart-strategy.exponential-delay.backoff-multiplier", "2"),
                ("restart-strategy.exponential-delay.initial-backoff", "1 s"),
                ("restart-strategy.exponential-delay.jitter-factor", "0.25"),
                ("restart-strategy.exponential-delay.max-backoff", "1 min"),
                ("restart-strategy.exponential-delay.reset-backoff-threshold", "1 h"),
                ("restart-strategy.type", "exponential-delay"),
            ],
            |resolved| {
                resolved.restart
                    == Some(RestartSettings::ExponentialDelay {
                        initial_backoff: s(1),
                        max_backoff: s(60),
                        backoff_multiplier: 2.0,
                        reset_backoff_threshold: s(3600),
                        jitter_factor: 0.25,
                        attempts_before_reset_backoff: 2_147_483_647,
                    })
            },
        ),
        (
            "set, by an old name",
            new().set("state.checkpoints.num-retained", "2"),
            &[("state.checkpoints.num-retained", "2")],
            |resolved| resolved.checkpointing.num_retained.get() == 2,
        ),
        (
            "the second strategy takes the options of the first away",
            new().fixed_delay_restart(3, s(10)).no_restart(),
            &[("restart-strategy.type", "none")],
            |resolved| resolved.restart == Some(RestartSettings::None),
        ),
    ];
    for (name, settings, keys, effect) in cases {
        for (key, value) in keys {
            assert_eq!(settings.value(key), Some(*value), "{name}: {key}");
        }
        let expected: BTreeMap<String, String> = keys.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(settings.clone().into_pairs(), expected, "{name}");
        let resolved = Config::new().code(settings).resolve().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(effect(&resolved), "{name}: {resolved:?}");
    }
}

#[test]
fn the_table_names_every_method() {
    let table = include_str!("tests.rs");
    let methods = include_str!("../settings.rs").lines().filter_map(|line| line.trim().strip_prefix("pub fn "));
    let mut seen = 0;
    for method in methods {
        let (name, _) = method.split_once('(').unwrap();
        assert!(table.contains(&format!(".{name}(")) || name == "new", "`{name}` is not in the table");
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} methods were found");
}

#[test]
fn what_nobody_said_is_the_default() {
    let resolved = Config::new().code(Settings::new()).resolve().unwrap();
    assert_eq!(resolved.checkpointing, Checkpointing::default());
    let nothing = (resolved.restart, resolved.checkpoint_dir, resolved.parallelism, resolved.name);
    assert_eq!(nothing, (None, None, None, None));
    assert_eq!((resolved.max_parallelism, resolved.warnings.len(), resolved.origins.len()), (None, 0, 0));
}
