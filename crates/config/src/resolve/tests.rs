use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use crate::*;

mod reference;
mod stores;

const FILES: [&str; 2] = ["cutwater.yaml", "flink-conf.yaml"];

fn flags(pairs: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
    pairs.iter().fold(Config::new(), |config, (key, value)| config.flag(key, value)).resolve()
}

fn file(name: &str, text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    Config::new().file(path).unwrap()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The error without the folder of its file, which differs from run to run.
fn refusal(result: Result<Resolved, ConfigError>) -> String {
    result.map(|resolved| format!("accepted: {resolved:?}")).unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_higher_level_wins_whatever_the_order_of_the_calls() {
    const KEY: &str = "execution.checkpointing.num-retained";
    const VARIABLE: (&str, &str) = ("CUTWATER_EXECUTION_CHECKPOINTING_NUM_RETAINED", "4");
    let file = || file("cutwater.yaml", "execution.checkpointing.num-retained: 2\n");
    let code = || Settings::new().num_retained_checkpoints(3);
    let cases = [
        ("nothing said", Config::new(), 1, Level::Default),
        ("a file", file(), 2, Level::File),
        ("the program over a file", file().code(code()), 3, Level::Code),
        ("the environment over both", file().code(code()).environment([VARIABLE]), 4, Level::Environment),
        ("a flag over all", file().flag(KEY, "5").code(code()).environment([VARIABLE]), 5, Level::Flag),
        ("the later flag over the earlier", Config::new().flag(KEY, "5").flag(KEY, "6"), 6, Level::Flag),
        (
            "the environment over an earlier flag of nothing",
            file().flag(KEY, "").environment([VARIABLE]),
            4,
            Level::Environment,
        ),
        ("an empty variable is none", file().environment([(VARIABLE.0, " ")]), 2, Level::File),
        (
            "an old spelling on a higher level wins over the new below",
            file().flag("state.checkpoints.num-retained", "7"),
            7,
            Level::Flag,
        ),
    ];
    for (name, config, expected, level) in cases {
        let resolved = config.resolve().unwrap();
        assert_eq!(resolved.checkpointing.num_retained.get(), expected, "{name}");
        assert_eq!(resolved.origin(KEY).level(), level, "{name}");
    }
}

#[test]
fn a_later_file_wins_and_lines_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("flink-conf.yaml"), folder.path().join("cutwater.yaml")];
    fs::write(&paths[0], "pipeline.name: old\nparallelism.default: 3\n").unwrap();
    fs::write(&paths[1], "# ours\npipeline:\n  name: new\n").unwrap();
    let resolved = Config::new().file(&paths[0]).unwrap().file(&paths[1]).unwrap().resolve().unwrap();
    assert_eq!(resolved.name.as_deref(), Some("new"));
    assert_eq!(resolved.origin("pipeline.name"), Origin::File { path: paths[1].clone(), line: 3 });
    assert_eq!(resolved.origin("parallelism.default"), Origin::File { path: paths[0].clone(), line: 2 });
}

#[test]
fn the_restart_strategy_and_its_options_come_from_one_source() {
    use RestartSettings::{FixedDelay, None as Never};
    const FILE: &str = "restart-strategy.type: fixed-delay\nrestart-strategy.fixed-delay.attempts: 7\n\
                        restart-strategy.fixed-delay.delay: 5 s\n";
    let fixed = |attempts, delay| Some(FixedDelay { attempts, delay: ms(delay) });
    let set = |key: &str, value: &str| Settings::new().set(key, value);
    let from_file = || file("cutwater.yaml", FILE);
    let cases = [
        ("nobody chose", Config::new(), None, 0),
        ("the file says fixed delay", from_file(), fixed(7, 5000), 0),
        // Each of the two options of the file is passed over with a warning.
        (
            "the file says fixed delay and the program none",
            from_file().code(Settings::new().no_restart()),
            Some(Never),
            2,
        ),
        (
            "options the program leaves out are defaults, not the file's",
            from_file()
                .code(set("restart-strategy.type", "fixed-delay").set("restart-strategy.fixed-delay.attempts", "2")),
            fixed(2, 1000),
            2,
        ),
        (
            "an option above the level of the type is not read",
            from_file().flag("restart-strategy.fixed-delay.attempts", "9"),
            fixed(7, 5000),
            1,
        ),
        (
            "options without a type choose nothing",
            Config::new().flag("restart-strategy.fixed-delay.delay", "1 s"),
            None,
            1,
        ),
        (
            "options that are not read are not judged",
            Config::new().flag("restart-strategy.fixed-delay.delay", "soon"),
            None,
            1,
        ),
        (
            "a variable of the environment chooses",
            from_file().environment([("CUTWATER_RESTART_STRATEGY_TYPE", "off")]),
            Some(Never),
            2,
        ),
        (
            "the old name of the type",
            file("flink-conf.yaml", "restart-strategy: none\n"),
            Some(Never),
            1, // deprecated
        ),
    ];
    for (name, config, expected, warnings) in cases {
        let resolved = config.resolve().unwrap();
        assert_eq!(resolved.restart, expected, "{name}");
        assert_eq!(resolved.warnings.len(), warnings, "{name}: {:?}", resolved.warnings);
    }
}

#[test]
fn names_and_options_of_the_strategies() {
    use RestartSettings::{ExponentialDelay, FailureRate, FixedDelay, None as Never};
    let fixed = FixedDelay { attempts: 1, delay: ms(1000) };
    let rate = FailureRate { max_failures_per_interval: 1, interval: ms(60_000), delay: ms(1000) };
    let exponential = ExponentialDelay {
        initial_backoff: ms(1000),
        max_backoff: ms(60_000),
        backoff_multiplier: 1.5,
        reset_backoff_threshold: ms(3_600_000),
        jitter_factor: 0.1,
        attempts_before_reset_backoff: 2_147_483_647,
    };
    let names: [(&[&str], &RestartSettings); 4] = [
        (&["none", "off", "disable", "NONE", "Off"], &Never),
        (&["fixed-delay", "fixeddelay", "Fixed-Delay"], &fixed),
        (&["failure-rate", "failurerate", "FAILURERATE"], &rate),
        (&["exponential-delay", "exponentialdelay"], &exponential),
    ];
    for (names, expected) in names {
        for name in names {
            let resolved = flags(&[("restart-strategy.type", name)]).unwrap();
            assert_eq!(resolved.restart.as_ref(), Some(expected), "{name}");
        }
    }
    let all = flags(&[
        ("restart-strategy.type", "exponential-delay"),
        ("restart-strategy.exponential-delay.initial-backoff", "1 ms"),
        ("restart-strategy.exponential-delay.max-backoff", "1"),
        ("restart-strategy.exponential-delay.backoff-multiplier", "1.01"),
        ("restart-strategy.exponential-delay.reset-backoff-threshold", "PT1S"),
        ("restart-strategy.exponential-delay.jitter-factor", "1"),
        ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "1"),
    ]);
    let least = ExponentialDelay {
        initial_backoff: ms(1),
        max_backoff: ms(1),
        backoff_multiplier: 1.01,
        reset_backoff_threshold: ms(1000),
        jitter_factor: 1.0,
        attempts_before_reset_backoff: 1,
    };
    assert_eq!(all.unwrap().restart, Some(least));
}

#[test]
fn values_out_of_range_are_refused() {
    let cases: [(&[(&str, &str)], &str); 38] = [
        (&[("execution.checkpointing.interval", "9 ms")], "`9 ms`, give at least 10 ms, or 0 for no checkpoints"),
        (&[("execution.checkpointing.interval", "soon")], "`soon`, give a whole number and a unit"),
        (&[("execution.checkpointing.interval", "-1 s")], "`-1 s`, give a whole number and a unit"),
        (&[("execution.checkpointing.timeout", "9 ms")], "give at least 10 ms"),
        (&[("execution.checkpointing.mode", "exactly-once")], "give one of EXACTLY_ONCE, AT_LEAST_ONCE"),
        (&[("execution.checkpointing.tolerable-failed-checkpoints", "-1")], "give 0 to 2147483647"),
        (&[("execution.checkpointing.tolerable-failed-checkpoints", "2147483648")], "give a whole number of 32 bits"),
        (&[("execution.checkpointing.num-retained", "0")], "give 1 to 2147483647"),
        (
            &[("execution.checkpointing.externalized-checkpoint-retention", "RETAIN")],
            "give one of DELETE_ON_CANCELLATION, RETAIN_ON_CANCELLATION, NO_EXTERNALIZED_CHECKPOINTS",
        ),
        (
            &[("cutwater.state-recovery.fall-back", "true")],
            "is `true`, but `execution.checkpointing.num-retained` is `1` (default): at least 2 must be kept",
        ),
        (
            &[("execution.checkpointing.num-retained", "1"), ("cutwater.state-recovery.fall-back", "true")],
            "is `true`, but `execution.checkpointing.num-retained` is `1` (flag): at least 2 must be kept",
        ),
        (&[("cutwater.restart.no-progress", "ignore")], "give one of REPORT, STOP"),
        (&[("cutwater.restart.no-progress-attempts", "0")], "give 1 to 2147483647"),
        (&[("execution.checkpointing.max-concurrent-checkpoints", "0")], "give 1 to 2147483647"),
        (&[("execution.checkpointing.checkpoints-after-tasks-finish", "yes")], "give `true` or `false`"),
        (&[("execution.checkpointing.storage", "s3")], "give one of jobmanager, filesystem"),
        (&[("execution.checkpointing.storage", "filesystem")], "set `execution.checkpointing.dir` too"),
        (&[("execution.checkpointing.unaligned.enabled", "maybe")], "`maybe`, give `true` or `false`"),
        (&[("parallelism.default", "0")], "give 1 to 2147483647"),
        (&[("parallelism.default", "32769")], "give 1 to 32768"),
        (&[("pipeline.max-parallelism", "0")], "give 1 to 32768, or -1 for none"),
        (&[("pipeline.max-parallelism", "32769")], "give 1 to 32768, or -1 for none"),
        (
            &[("parallelism.default", "9"), ("pipeline.max-parallelism", "8")],
            "`parallelism.default` is `9`, but `pipeline.max-parallelism` is `8` (flag): the parallelism can't be above",
        ),
        (&[("restart-strategy.type", "sometimes")], "give one of none, fixed-delay, failure-rate, exponential-delay"),
        (
            &[("restart-strategy", "fixed delay")],
            "`restart-strategy` (now `restart-strategy.type`) is `fixed delay`, give one of none",
        ),
        (&[("pipeline.name", "daily flights")], "give 1 to 200 letters, digits, `-`, `_` or `.`"),
        (&[("pipeline.name", "../x")], "a letter or digit first"),
        (
            &[("restart-strategy.type", "fixed-delay"), ("restart-strategy.fixed-delay.attempts", "-1")],
            "give 0 to 2147483647",
        ),
        (&[("restart-strategy.type", "fixed-delay"), ("restart-strategy.fixed-delay.delay", "1.5 s")], "`1.5 s`"),
        (
            &[
                ("restart-strategy.type", "failurerate"),
                ("restart-strategy.failure-rate.max-failures-per-interval", "0"),
            ],
            "give 1 to 2147483647",
        ),
        (
            &[
                ("restart-strategy.type", "failure-rate"),
                ("restart-strategy.failure-rate.failure-rate-interval", "0 s"),
            ],
            "give more than 0",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.initial-backoff", "999 µs"),
            ],
            "give at least 1 ms",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.max-backoff", "999 ms"),
            ],
            "but `restart-strategy.exponential-delay.initial-backoff` is `1 s` (default): the longest delay",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.backoff-multiplier", "1.0"),
            ],
            "give a number above 1",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.jitter-factor", "1.1"),
            ],
            "give a number from 0 to 1",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.jitter-factor", "NaN"),
            ],
            "give a decimal number",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.reset-backoff-threshold", "0"),
            ],
            "give at least 1 ms",
        ),
        (
            &[
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "0"),
            ],
            "give 1 to 2147483647",
        ),
    ];
    for (pairs, expected) in cases {
        let message = refusal(flags(pairs));
        let (key, _) = pairs.last().unwrap();
        assert!(message.contains(expected), "{pairs:?}: {message}");
        assert!(message.starts_with("flag: `") && message.contains(key), "{pairs:?}: {message}");
    }
}

#[test]
fn what_was_said_of_a_key_is_remembered_strongest_first() {
    const KEY: &str = "execution.checkpointing.num-retained";
    let text = "state.checkpoints.num-retained: 2\nrestart-strategy.fixed-delay.attempts: 7\n";
    let resolved = file("flink-conf.yaml", text)
        .code(Settings::new().num_retained_checkpoints(3))
        .environment([("CUTWATER_EXECUTION_CHECKPOINTING_NUM_RETAINED", "4")])
        .flag(KEY, "5")
        .flag(KEY, "6")
        .flag("state.checkpoints.num-retained", "7")
        .resolve()
        .unwrap();
    let setting = resolved.setting(KEY).unwrap();
    let held = (setting.value.as_deref(), setting.origin.level(), setting.written_as.as_deref());
    assert_eq!(held, (Some("6"), Level::Flag, None));
    let overridden: Vec<_> = setting
        .overridden
        .iter()
        .map(|said| (said.value.as_str(), said.origin.level(), said.written_as.as_deref()))
        .collect();
    let old = Some("state.checkpoints.num-retained");
    let expected = [
        ("5", Level::Flag, None),
        ("7", Level::Flag, old),
        ("4", Level::Environment, None),
        ("3", Level::Code, None),
        ("2", Level::File, old),
    ];
    assert_eq!(overridden, expected);
    let ignored = resolved.setting("restart-strategy.fixed-delay.attempts").unwrap();
    assert_eq!((&ignored.value, &ignored.origin, ignored.overridden.len()), (&None, &Origin::Default, 1));
    assert_eq!(resolved.setting("pipeline.name"), None, "nobody spoke of it");
    assert_eq!(resolved.settings.len(), 2);
}

#[test]
fn values_at_the_edge_of_their_ranges_are_accepted() {
    let checkpointing = |pairs: &[(&str, &str)]| flags(pairs).unwrap().checkpointing;
    let least = checkpointing(&[
        ("execution.checkpointing.interval", "10"),
        ("execution.checkpointing.timeout", "10 ms"),
        ("execution.checkpointing.min-pause", "10 ms"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "2147483647"),
        ("execution.checkpointing.mode", "at_Least_once"),
        ("execution.checkpointing.storage", "JobManager"),
    ]);
    let expected = Checkpointing {
        interval: Some(ms(10)),
        timeout: ms(10),
        min_pause: ms(10),
        tolerable_failures: 2_147_483_647,
        mode: CheckpointingMode::AtLeastOnce,
        ..Checkpointing::default()
    };
    assert_eq!(least, expected);
    assert_eq!(checkpointing(&[("execution.checkpointing.interval", "0")]).interval, None);
    let resolved = flags(&[("parallelism.default", "32768"), ("pipeline.max-parallelism", "32768")]).unwrap();
    assert_eq!(resolved.parallelism.unwrap().get(), resolved.max_parallelism.unwrap().count());
    assert_eq!(flags(&[("pipeline.max-parallelism", "-1")]).unwrap().max_parallelism, None);
}

#[test]
fn the_storage_follows_the_folder() {
    let folder = CheckpointStorage::Folder("/c".to_owned());
    let (dir, storage) = ("execution.checkpointing.dir", "execution.checkpointing.storage");
    let cases = [
        ("nothing said", vec![], CheckpointStorage::Memory, 0),
        ("a folder", vec![(dir, "/c")], folder.clone(), 0),
        ("a folder and the file system", vec![(dir, "/c"), (storage, "FileSystem")], folder.clone(), 0),
        ("memory", vec![(storage, "jobmanager")], CheckpointStorage::Memory, 0),
        (
            "memory and a folder, which is not read",
            vec![(dir, "/c"), (storage, "jobmanager")],
            CheckpointStorage::Memory,
            1,
        ),
        ("the oldest name", vec![("state.backend.fs.checkpointdir", "/c")], folder, 1),
    ];
    for (name, pairs, expected, warnings) in cases {
        let resolved = flags(&pairs).unwrap();
        let dir = match &expected {
            CheckpointStorage::Folder(dir) => Some(dir.clone()),
            CheckpointStorage::Memory => None,
        };
        assert_eq!((resolved.checkpointing.storage, resolved.checkpoint_dir), (expected, dir), "{name}");
        assert_eq!(resolved.warnings.len(), warnings, "{name}: {:?}", resolved.warnings);
    }
}

#[test]
fn what_must_fit_together_is_adjusted_with_a_warning() {
    let (interval, pause) = ("execution.checkpointing.interval", "execution.checkpointing.min-pause");
    let cases = [
        ("the pause below the interval", vec![(interval, "2 s"), (pause, "1 s")], Some(ms(2000)), ms(1000), 0),
        ("as long", vec![(interval, "1 s"), (pause, "1 s")], Some(ms(1000)), ms(1000), 0),
        ("longer: the interval is raised", vec![(interval, "1 s"), (pause, "1001")], Some(ms(1001)), ms(1001), 1),
        ("checkpointing stays off", vec![(pause, "1 s")], None, ms(1000), 0),
        ("a year is enough", vec![(pause, "365 d")], None, Duration::from_secs(365 * 86_400), 0),
        ("two are not", vec![(pause, "730 d")], None, Duration::from_secs(365 * 86_400), 1),
    ];
    for (name, pairs, expected, expected_pause, warnings) in cases {
        let resolved = flags(&pairs).unwrap();
        let checkpointing = resolved.checkpointing;
        assert_eq!((checkpointing.interval, checkpointing.min_pause), (expected, expected_pause), "{name}");
        assert_eq!(resolved.warnings.len(), warnings, "{name}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name_unless_it_asks_for_nothing() {
    for key in keys() {
        let Support::NotBuilt { inert } = key.support else { continue };
        let active = match key.kind {
            Kind::Boolean if inert == Some("true") => "false",
            Kind::Boolean => "TRUE",
            Kind::Duration => "7 s",
            Kind::Memory => "7 kb",
            Kind::Integer | Kind::Double => "7",
            Kind::Text | Kind::Secret => "/seven",
            Kind::Choice(names) => names.iter().find(|name| Some(**name) != inert).unwrap(),
        };
        for name in std::iter::once(&key.name).chain(key.old) {
            match flags(&[(name, active)]) {
                Err(ConfigError::NotBuilt { key, value, origin, .. }) => {
                    assert_eq!((key.as_str(), value.as_str(), origin), (*name, active, Origin::Flag));
                }
                other => panic!("`{name}: {active}`: {other:?}"),
            }
            if let Some(inert) = inert {
                let accepted = flags(&[(name, &inert.to_lowercase())]).unwrap();
                let deprecated = usize::from(*name != key.name);
                assert_eq!(accepted.warnings.len(), deprecated, "`{name}: {inert}`: {:?}", accepted.warnings);
            }
        }
    }
    let cases = [
        (
            ("execution.checkpointing.unaligned", "true"),
            "flag: `execution.checkpointing.unaligned: true` (now `execution.checkpointing.unaligned.enabled`) is not \
             built yet, leave it out or set it to `false`",
        ),
        (
            ("execution.savepoint-restore-mode", "LEGACY"),
            "flag: `execution.savepoint-restore-mode: LEGACY` (now `execution.state-recovery.claim-mode`) is not built \
             yet, only `CLAIM` and `NO_CLAIM` are",
        ),
        (
            ("state.backend", "forst"),
            "flag: `state.backend: forst` (now `state.backend.type`) is not built yet, only `hashmap` (or `memory`) and `rocksdb` are",
        ),
        (
            ("execution.checkpointing.interval-during-backlog", "7 s"),
            "flag: `execution.checkpointing.interval-during-backlog: 7 s` is not built yet, leave it out",
        ),
    ];
    for (pair, expected) in cases {
        assert_eq!(refusal(flags(&[pair])), expected);
    }
}

#[test]
fn only_the_value_that_holds_must_be_built() {
    let off = file("cutwater.yaml", "execution.checkpointing.unaligned.enabled: true\n")
        .flag("execution.checkpointing.unaligned.enabled", "false");
    assert!(off.resolve().is_ok());
}

#[test]
fn unknown_keys_are_refused_on_every_level() {
    const WRONG: &str = "execution.checkpointing.intervall";
    for name in FILES {
        let message = refusal(file(name, &format!("a: b\n{WRONG}: 1 s\n")).resolve());
        let expected =
            format!("{name}, line 2: there is no key `{WRONG}`, did you mean `execution.checkpointing.interval`?");
        assert!(message.ends_with(&expected), "{message}");
    }
    let cases = [
        (Config::new().code(Settings::new().set(WRONG, "1 s")), "set by the program: there is no key"),
        (
            Config::new().environment([("CUTWATER_EXECUTION_CHECKPOINTING_INTERVALL", "1 s")]),
            "environment variable CUTWATER_EXECUTION_CHECKPOINTING_INTERVALL: there is no key \
             `CUTWATER_EXECUTION_CHECKPOINTING_INTERVALL`, did you mean `CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL`?",
        ),
        (Config::new().flag("restart-strategy.kind", "none"), "flag: there is no key `restart-strategy.kind`"),
        (Config::new().flag("cutwater.such.a.key.there.is.not", "1"), "there.is.not`, remove it"),
        (Config::new().flag(WRONG, ""), "flag: there is no key"),
    ];
    for (config, expected) in cases {
        let message = refusal(config.resolve());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn keys_without_meaning_cost_one_warning() {
    let text = "jobmanager.rpc.address: localhost\ntaskmanager.numberOfTaskSlots: 4\n\
                state.backend.rocksdb.thread.num: 4\nexecution.checkpointing.write-buffer-size: 8192\n";
    let config = file("flink-conf.yaml", text).flag("taskmanager.numberOfTaskSlots", "8").environment([
        ("CUTWATER_LOG", "debug"),
        ("PATH", "/bin"),
        ("HOME", ""),
    ]);
    let warnings: Vec<String> = config.resolve().unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.ends_with("has no meaning here and is not read")), "{warnings:?}");
    assert_eq!(warnings.iter().filter(|warning| warning.contains("numberOfTaskSlots")).count(), 1);
}

#[test]
fn old_spellings_are_read_with_a_warning_and_the_new_one_wins() {
    for key in keys() {
        let value = match key.name {
            "execution.checkpointing.dir" => "/c",
            "restart-strategy.type" => "none",
            "execution.checkpointing.storage" => "jobmanager",
            _ => match key.default {
                Some(default) => default,
                None => continue, // not built, and refused whatever the value
            },
        };
        for old in key.old.iter().filter(|_| key.support != Support::NoMeaning) {
            let resolved = flags(&[(old, value)]).unwrap();
            let (new, origin) = (key.name, Origin::Flag);
            let expected = Warning::Deprecated { key: old.to_string(), new, origin };
            assert_eq!(resolved.warnings, [expected], "`{old}`");
            assert_eq!(resolved.origin(key.name), Origin::Flag, "`{old}`");
        }
    }
    let (new, old, oldest) = (
        ("execution.checkpointing.dir", "/new"),
        ("state.checkpoints.dir", "/old"),
        ("state.backend.fs.checkpointdir", "/x"),
    );
    for (pairs, expected) in [
        (vec![new, old], "/new"),
        (vec![old, new], "/new"),
        (vec![oldest, old], "/old"),
        (vec![old, oldest], "/old"),
        (vec![oldest, new, old], "/new"),
    ] {
        let resolved = flags(&pairs).unwrap();
        assert_eq!(resolved.checkpoint_dir.as_deref(), Some(expected), "{pairs:?}");
        let overruled = resolved.warnings.iter().filter(|warning| matches!(warning, Warning::Overruled { .. })).count();
        assert_eq!(overruled, pairs.len() - 1, "{pairs:?}: {:?}", resolved.warnings);
    }
}

#[test]
fn a_list_is_no_value_and_neither_is_a_broken_text() {
    let message = refusal(file("cutwater.yaml", "pipeline.name: [a, b]\n").resolve());
    assert!(message.ends_with("line 1: `pipeline.name` is `[a, b]`, give one value, not a list"), "{message}");
    #[cfg(unix)]
    {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;
        let variable = (OsString::from("CUTWATER_PIPELINE_NAME"), OsString::from_vec(vec![b'a', 0xff]));
        let message = refusal(Config::new().environment([variable]).resolve());
        assert!(message.ends_with("give valid UTF-8"), "{message}");
    }
}

/// A file of Flink 1 and one of Flink 2 that say the same, as users have them.
#[test]
fn whole_files_of_flink_1_and_2_mean_the_same() {
    let one = file(
        "flink-conf.yaml",
        "# Flink 1.18
execution.checkpointing.interval: 10s
execution.checkpointing.mode: exactly_once
execution.checkpointing.unaligned: false
state.backend: hashmap
state.checkpoints.dir: file:///var/checkpoints # kept
state.checkpoints.num-retained: 3
restart-strategy: exponential-delay
restart-strategy.exponential-delay.initial-backoff: 2000
parallelism.default: 4
",
    );
    let two = file(
        "config.yaml",
        "
execution:
  checkpointing:
    interval: PT10S
    dir: file:///var/checkpoints # kept
    num-retained: 3
    unaligned:
      enabled: false
state.backend.type: hashmap
restart-strategy:
  type: exponential-delay
  exponential-delay:
    initial-backoff: 2 s
parallelism.default: 4
",
    );
    let (one, two) = (one.resolve().unwrap(), two.resolve().unwrap());
    assert_eq!(one.warnings.len(), 5, "{:?}", one.warnings);
    assert_eq!(two.warnings, []);
    assert_eq!(
        Resolved {
            warnings: two.warnings.clone(),
            origins: two.origins.clone(),
            settings: two.settings.clone(),
            ..one
        },
        two
    );
    assert_eq!(two.checkpointing.interval, Some(ms(10_000)));
}

proptest! {
    /// Whatever known keys are set to: an error or a configuration that keeps its own rules.
    #[test]
    fn what_resolves_is_consistent(
        pairs in proptest::collection::vec((0..keys().len(), "[0-9]{1,3}( ?(ms|s|min|d))?|true|none|fixed-delay|-1|\\PC{0,6}"), 0..6),
    ) {
        let named: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (keys()[*key].name, value.as_str())).collect();
        if let Ok(resolved) = flags(&named) {
            let checkpointing = resolved.checkpointing;
            prop_assert!(checkpointing.interval.is_none_or(|interval| interval >= ms(10).max(checkpointing.min_pause)));
            prop_assert!(checkpointing.timeout >= ms(10));
            if let (Some(parallelism), Some(max)) = (resolved.parallelism, resolved.max_parallelism) {
                prop_assert!(parallelism.get() <= max.count());
            }
        }
    }
}

#[test]
fn a_history_is_bounded() {
    let history = |checkpoints: &str| flags(&[("web.checkpoints.history", checkpoints)]);
    let cases =
        [("none", "0", 0, 0), ("some", "7", 7, 0), ("the most", "1000", 1000, 0), ("too many", "1001", 1000, 1)];
    for (name, value, expected, warnings) in cases {
        let resolved = history(value).unwrap();
        assert_eq!(resolved.history, HistorySizes { checkpoints: expected, failures: 16 }, "{name}");
        assert_eq!(resolved.warnings.len(), warnings, "{name}");
    }
    for value in ["-1", "ten", "1.5", "2147483648"] {
        assert_eq!(history(value).unwrap_err().code(), "CFG0006", "{value}");
    }
    let unset = flags(&[]).unwrap().history;
    assert_eq!((unset, HistorySizes { checkpoints: 10, failures: 16 }), (HistorySizes::default(), unset), "Flink's");
}

#[test]
fn keys_of_our_own_are_read_from_every_source() {
    use ExternalizedCheckpointRetention::{DeleteOnCancellation, NoExternalizedCheckpoints, RetainOnCancellation};
    let text = "cutwater:\n  state-recovery.fall-back: true\n  restart.no-progress: stop\n\
                execution.checkpointing.num-retained: 2\n";
    let resolved =
        file("cutwater.yaml", text).environment([("CUTWATER_RESTART_NO_PROGRESS_ATTEMPTS", "5")]).resolve().unwrap();
    assert!(resolved.recovery.fall_back && resolved.no_progress.stop);
    assert_eq!(resolved.no_progress.attempts.get(), 5);
    let settings = Settings::new().num_retained_checkpoints(2).fall_back_past_damaged_checkpoints(true);
    let resolved = Config::new().code(settings.stop_without_progress(7)).resolve().unwrap();
    assert!(resolved.recovery.fall_back && resolved.no_progress.stop);
    assert_eq!(resolved.no_progress.attempts.get(), 7);
    assert_eq!(Config::new().resolve().unwrap().no_progress, NoProgressSettings::default());
    for retention in [RetainOnCancellation, DeleteOnCancellation, NoExternalizedCheckpoints] {
        let settings = Settings::new().externalized_checkpoint_retention(retention);
        assert_eq!(Config::new().code(settings).resolve().unwrap().checkpointing.retention, retention);
    }
    let message = refusal(flags(&[("cutwater.restart.no-progres", "STOP")]));
    assert!(message.ends_with("did you mean `cutwater.restart.no-progress`?"), "{message}");
}
