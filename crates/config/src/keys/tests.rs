use std::collections::BTreeMap;

use super::*;

#[test]
fn the_table_is_sorted_and_no_name_means_two_keys() {
    assert!(KEYS.is_sorted_by(|one, next| one.name < next.name));
    let mut names = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for key in KEYS {
        for name in std::iter::once(&key.name).chain(key.old) {
            assert_eq!(names.insert(*name, key.name), None, "`{name}`");
            // Two spellings of one key may have one variable.
            let other = variables.insert(variable(name), key.name).filter(|other| *other != key.name);
            assert_eq!(other, None, "variable of `{name}`");
        }
        assert!(!key.description.is_empty(), "`{}`", key.name);
    }
}

#[test]
fn defaults_are_of_their_kind_and_ask_for_nothing_that_is_missing() {
    for key in KEYS {
        if let Some(default) = key.default {
            assert_eq!(key.kind.same(default, default), Some(true), "`{}`", key.name);
        }
        if let Support::NotBuilt { inert } = key.support {
            assert_eq!(inert, key.default, "`{}`", key.name);
        }
    }
}

#[test]
fn names_are_looked_up() {
    let describe = |written: &str| match look_up(written, written.starts_with("CUTWATER_")) {
        Known::Current(key) => format!("is {}", key.name),
        Known::Old(key, _) => format!("was {}", key.name),
        Known::NoMeaning => "nothing".to_owned(),
        Known::Unknown { nearest } => format!("near {}", nearest.unwrap_or_default()),
    };
    let cases = [
        ("execution.checkpointing.interval", "is execution.checkpointing.interval"),
        ("CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL", "is execution.checkpointing.interval"),
        ("state.backend", "was state.backend.type"),
        ("CUTWATER_STATE_BACKEND", "was state.backend.type"),
        ("restart-strategy", "was restart-strategy.type"),
        ("execution.checkpointing.intervall", "near execution.checkpointing.interval"),
        ("execution.checkpointing.min-pauze", "near execution.checkpointing.min-pause"),
        ("CUTWATER_EXECUTION_CHECKPOINTING_MODUS", "near CUTWATER_EXECUTION_CHECKPOINTING_MODE"),
        ("restart-strategy.fixed-delay.atempts", "near restart-strategy.fixed-delay.attempts"),
        ("state.backend.typ", "near state.backend.type"),
        ("cutwater.zzzzzzzzzzzzzzz", "near "),
        ("executon.checkpointing.interval", "near execution.checkpointing.interval"),
        ("paralelism.default", "near parallelism.default"),
        ("CUTWATER_PIPELINE_NAM", "near CUTWATER_PIPELINE_NAME"),
        ("Execution.Checkpointing.Mode", "near execution.checkpointing.mode"),
        ("taskmanager.numberOfTaskSlots", "nothing"),
        ("pipeline.object-reuse", "nothing"),
        ("state.backend.rocksdb.thread.num", "nothing"),
        ("state.changelog.dstl.dfs.base-path", "nothing"),
        ("state.backend.latency-track.history-size", "nothing"),
        ("CUTWATER_LOG", "nothing"),
        ("s3.path-style-access", "is s3.path-style-access"),
        ("s3.path.style.access", "was s3.path-style-access"),
        ("CUTWATER_S3_PATH_STYLE_ACCESS", "is s3.path-style-access"),
        ("CUTWATER_S3_SECRET_KEY", "is s3.secret-key"),
        ("s3.acces-key", "near s3.access-key"),
        ("s3.entropy.length", "nothing"),
        ("cutwater.object-store.dead-line", "near cutwater.object-store.deadline"),
    ];
    for (written, expected) in cases {
        assert_eq!(describe(written), expected, "`{written}`");
    }
}

#[test]
fn distances_are_counted_in_characters() {
    let cases = [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("äb", "ab", 1),
        ("ab", "ba", 1),
        ("intreval", "interval", 1),
        ("abc", "ca", 3),
    ];
    for (one, other, expected) in cases {
        assert_eq!(distance(one, other), expected, "`{one}` to `{other}`");
    }
}
