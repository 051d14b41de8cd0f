//! Flink's reference list of checkpointing, recovery and restart, key by key: each one is read, warned of or refused, by
//! its name of today and by every old one.

use super::flags;
use crate::*;

use Promise::{Honoured, Refused, Warned};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// Another value makes another configuration.
    Honoured,
    /// Any value costs one warning and changes nothing.
    Warned,
    /// Any value is an error that names the key, but the one that asks for nothing.
    Refused,
}

struct Row {
    key: &'static str,
    promise: Promise,
    /// Not the default.
    value: &'static str,
    default: Option<&'static str>,
    old: &'static [&'static str],
}

const fn row(
    key: &'static str,
    promise: Promise,
    value: &'static str,
    default: Option<&'static str>,
    old: &'static [&'static str],
) -> Row {
    Row { key, promise, value, default, old }
}

/// The defaults are Flink's but for the retention of checkpoints on cancel.
#[rustfmt::skip]
static REFERENCE: &[Row] = &[
    row("execution.checkpointing.aligned-checkpoint-timeout", Refused, "7 s", Some("0 ms"), &["execution.checkpointing.alignment-timeout"]),
    row("execution.checkpointing.checkpoints-after-tasks-finish", Honoured, "false", Some("true"), &["execution.checkpointing.checkpoints-after-tasks-finish.enabled"]),
    row("execution.checkpointing.cleaner.parallel-mode", Warned, "true", Some("true"), &["state.checkpoint.cleaner.parallel-mode"]),
    row("execution.checkpointing.create-subdir", Refused, "false", Some("true"), &["state.checkpoints.create-subdir"]),
    row("execution.checkpointing.data-inline-threshold", Honoured, "7 kb", Some("20 kb"), &["state.storage.fs.memory-threshold", "state.backend.fs.memory-threshold"]),
    row("execution.checkpointing.dir", Honoured, "/checkpoints", None, &["state.checkpoints.dir", "state.backend.fs.checkpointdir"]),
    row("execution.checkpointing.during-recovery.enabled", Refused, "true", Some("false"), &[]),
    row("execution.checkpointing.externalized-checkpoint-retention", Honoured, "DELETE_ON_CANCELLATION", Some("RETAIN_ON_CANCELLATION"), &[]),
    row("execution.checkpointing.file-merging.across-checkpoint-boundary", Warned, "true", Some("false"), &[]),
    row("execution.checkpointing.file-merging.enabled", Refused, "true", Some("false"), &[]),
    row("execution.checkpointing.file-merging.max-file-size", Warned, "7 kb", Some("32 mb"), &[]),
    row("execution.checkpointing.file-merging.max-space-amplification", Warned, "7.5", Some("2.0"), &[]),
    row("execution.checkpointing.file-merging.max-subtasks-per-file", Warned, "7", Some("4"), &[]),
    row("execution.checkpointing.file-merging.pool-blocking", Warned, "true", Some("false"), &[]),
    row("execution.checkpointing.incremental", Honoured, "true", Some("false"), &["state.backend.incremental"]),
    row("execution.checkpointing.interval-during-backlog", Refused, "7 s", None, &[]),
    row("execution.checkpointing.interval", Honoured, "10 s", None, &[]),
    row("execution.checkpointing.local-backup.dirs", Honoured, "/seven", None, &["taskmanager.state.local.root-dirs"]),
    row("execution.checkpointing.local-backup.enabled", Honoured, "true", Some("false"), &["state.backend.local-recovery"]),
    row("execution.checkpointing.max-concurrent-checkpoints", Honoured, "2", Some("1"), &[]),
    row("execution.checkpointing.min-pause", Honoured, "7 s", Some("0 ms"), &[]),
    row("execution.checkpointing.mode", Honoured, "at_least_once", Some("EXACTLY_ONCE"), &[]),
    row("execution.checkpointing.num-retained", Honoured, "7", Some("1"), &["state.checkpoints.num-retained"]),
    row("execution.checkpointing.savepoint-dir", Honoured, "/seven", None, &["state.savepoints.dir", "savepoints.state.backend.fs.dir"]),
    row("execution.checkpointing.snapshot-compression", Honoured, "true", Some("false"), &[]),
    row("execution.checkpointing.storage", Honoured, "jobmanager", None, &["state.checkpoint-storage"]),
    row("execution.checkpointing.timeout", Honoured, "7 s", Some("10 min"), &[]),
    row("execution.checkpointing.tolerable-failed-checkpoints", Honoured, "7", Some("0"), &[]),
    row("execution.checkpointing.unaligned.enabled", Refused, "true", Some("false"), &["execution.checkpointing.unaligned"]),
    row("execution.checkpointing.unaligned.forced", Refused, "true", Some("false"), &[]),
    row("execution.checkpointing.unaligned.interruptible-timers.enabled", Refused, "true", Some("false"), &[]),
    row("execution.checkpointing.unaligned.max-subtasks-per-channel-state-file", Warned, "7", Some("5"), &[]),
    row("execution.checkpointing.unaligned.recover-output-on-downstream.enabled", Refused, "true", Some("false"), &[]),
    row("execution.checkpointing.write-buffer-size", Warned, "7", Some("4096"), &["state.storage.fs.write-buffer-size", "state.backend.fs.write-buffer-size"]),
    row("execution.state-recovery.approximate-local-recovery", Refused, "true", Some("false"), &["execution.checkpointing.approximate-local-recovery"]),
    row("execution.state-recovery.claim-mode", Honoured, "CLAIM", Some("NO_CLAIM"), &["execution.savepoint-restore-mode"]),
    row("execution.state-recovery.from-local", Honoured, "true", Some("false"), &[]),
    row("execution.state-recovery.ignore-unclaimed-state", Honoured, "true", Some("false"), &["execution.savepoint.ignore-unclaimed-state"]),
    row("execution.state-recovery.path", Honoured, "/seven", None, &["execution.savepoint.path"]),
    row("execution.state-recovery.without-channel-state.checkpoint-id", Refused, "7", Some("-1"), &["execution.checkpointing.recover-without-channel-state.checkpoint-id"]),
    row("jobmanager.execution.failover-strategy", Warned, "full", Some("region"), &[]),
    row("jobmanager.scheduler", Refused, "Adaptive", Some("Default"), &[]),
    row("restart-strategy.exponential-delay.attempts-before-reset-backoff", Honoured, "7", Some("2147483647"), &[]),
    row("restart-strategy.exponential-delay.backoff-multiplier", Honoured, "7.5", Some("1.5"), &[]),
    row("restart-strategy.exponential-delay.initial-backoff", Honoured, "7 s", Some("1 s"), &[]),
    row("restart-strategy.exponential-delay.jitter-factor", Honoured, "0.5", Some("0.1"), &[]),
    row("restart-strategy.exponential-delay.max-backoff", Honoured, "7 s", Some("1 min"), &[]),
    row("restart-strategy.exponential-delay.reset-backoff-threshold", Honoured, "7 s", Some("1 h"), &[]),
    row("restart-strategy.failure-rate.delay", Honoured, "7 s", Some("1 s"), &[]),
    row("restart-strategy.failure-rate.failure-rate-interval", Honoured, "7 s", Some("1 min"), &[]),
    row("restart-strategy.failure-rate.max-failures-per-interval", Honoured, "7", Some("1"), &[]),
    row("restart-strategy.fixed-delay.attempts", Honoured, "7", Some("1"), &[]),
    row("restart-strategy.fixed-delay.delay", Honoured, "7 s", Some("1 s"), &[]),
    row("restart-strategy.type", Honoured, "fixed-delay", None, &["restart-strategy"]),
    row("scheduler-mode", Refused, "reactive", None, &[]),
    row("web.checkpoints.history", Honoured, "7", Some("10"), &["jobmanager.web.checkpoints.history"]),
    row("web.exception-history-size", Honoured, "7", Some("16"), &[]),
];

/// What a key needs beside it to be read at all.
fn companions(key: &str) -> Vec<(&'static str, &'static str)> {
    for strategy in ["fixed-delay", "failure-rate", "exponential-delay"] {
        if key.strip_prefix("restart-strategy.").is_some_and(|rest| rest.starts_with(strategy)) {
            return vec![("restart-strategy.type", strategy)];
        }
    }
    match key {
        "execution.checkpointing.storage" => vec![("execution.checkpointing.dir", "/checkpoints")],
        _ => Vec::new(),
    }
}

/// The configuration without what was said about it.
fn meaning(resolved: Resolved) -> Resolved {
    Resolved { warnings: Vec::new(), settings: Vec::new(), origins: Default::default(), ..resolved }
}

#[test]
fn every_key_of_the_reference_is_honoured_warned_of_or_refused_under_each_of_its_names() {
    for Row { key, promise, value, default, old } in REFERENCE {
        for name in std::iter::once(key).chain(*old) {
            let beside = companions(key);
            let with = |value| flags(&beside.iter().copied().chain([(*name, value)]).collect::<Vec<_>>());
            let plain = meaning(flags(&beside).unwrap());
            match promise {
                Honoured => {
                    let resolved = with(value).unwrap_or_else(|error| panic!("{name}: {error}"));
                    let setting = resolved.setting(key).unwrap();
                    let written_as = (name != key).then(|| (*name).to_owned());
                    assert_eq!((setting.value.as_deref(), &setting.written_as), (Some(*value), &written_as), "{name}");
                    assert_eq!(resolved.origin(key), Origin::Flag, "{name}");
                    assert_ne!(meaning(resolved), plain, "`{name}: {value}` changes nothing");
                    if let Some(default) = default {
                        assert_eq!(meaning(with(default).unwrap()), plain, "{name}");
                    }
                }
                Warned => {
                    let resolved = with(value).unwrap();
                    let expected = Warning::NoMeaning { key: (*name).to_owned(), origin: Origin::Flag };
                    assert_eq!(resolved.warnings, [expected], "{name}");
                    assert_eq!(meaning(resolved), plain, "{name}");
                }
                Refused => {
                    let error = with(value).unwrap_err();
                    assert_eq!(error.code(), "CFG0007", "{name}");
                    let message = error.to_string();
                    assert!(message.contains(key) && message.contains(name), "both names: {message}");
                    if let Some(default) = default {
                        assert_eq!(meaning(with(default).unwrap()), plain, "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_table_of_keys_says_the_same_as_the_reference() {
    for Row { key, promise, default, old, .. } in REFERENCE {
        let Status::Known(found) = status(key) else { panic!("`{key}` is not in the table") };
        let expected = match found.support {
            // One of its values is built.
            Support::Built => Honoured,
            Support::NoMeaning => Warned,
            Support::NotBuilt { .. } => Refused,
        };
        assert_eq!((*promise, *default, *old), (expected, found.default, found.old), "`{key}`");
        for name in *old {
            assert_eq!(status(name), Status::Renamed(found), "`{name}`");
        }
    }
    // One old name was read for two keys, and still is.
    assert!(matches!(status("state.backend.local-recovery"), Status::Renamed(key)
        if key.name == "execution.checkpointing.local-backup.enabled"));
}

#[test]
fn local_copies_are_written_and_read_by_flinks_rules() {
    const BACKUP: &str = "execution.checkpointing.local-backup.enabled";
    const FROM_LOCAL: &str = "execution.state-recovery.from-local";
    const BOTH: &str = "state.backend.local-recovery";
    type Given = &'static [(&'static str, &'static str)];
    let cases: [(Given, (bool, bool)); 7] = [
        (&[], (false, false)),
        (&[(BACKUP, "true")], (true, false)),
        (&[(FROM_LOCAL, "true")], (true, true)),
        (&[(FROM_LOCAL, "true"), (BACKUP, "false")], (false, true)),
        (&[(BOTH, "true")], (true, true)),
        (&[(BOTH, "true"), (FROM_LOCAL, "false")], (true, false)),
        (&[(BOTH, "false")], (false, false)),
    ];
    for (given, expected) in cases {
        let resolved = flags(given).unwrap();
        assert_eq!((resolved.checkpointing.local_backup, resolved.recovery.from_local), expected, "{given:?}");
    }
    let dirs = "execution.checkpointing.local-backup.dirs";
    let resolved = flags(&[(dirs, "/a, /b"), (BACKUP, "true")]).unwrap();
    assert_eq!(
        (resolved.checkpointing.local_backup_dirs, resolved.warnings.len()),
        (vec!["/a".into(), "/b".into()], 0)
    );
    let warnings = flags(&[(dirs, "/a")]).unwrap().warnings;
    assert!(matches!(&warnings[..], [Warning::Adjusted { key, .. }] if *key == dirs), "{warnings:?}");
    for wrong in [",", "/a,", "s3://bucket/a"] {
        assert!(matches!(flags(&[(dirs, wrong)]), Err(ConfigError::Invalid { .. })), "{wrong:?}");
    }
}
