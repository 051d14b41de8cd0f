//! `cutwater config`, the real binary: what it prints, in 80 columns and in a pipe, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `cutwater config` in the folder, with these variables and no others that begin with `CUTWATER_`.
fn config(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutwater"));
    command.arg("config").args(args).current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CUTWATER_")) {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

const FILE: &str = "execution.checkpointing.interval: 10s
state.checkpoints.num-retained: 3
restart-strategy: fixed-delay
restart-strategy.fixed-delay.attempts: 7
taskmanager.numberOfTaskSlots: 4
";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("flink-conf.yaml"), FILE).unwrap();
    folder
}

#[test]
fn origins_name_the_line_the_variable_and_what_was_overridden() {
    let folder = folder();
    let variables = [("CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL", "2 s")];
    let args = ["show", "--origin", "-D", "execution.checkpointing.num-retained=5"];
    let ran = config(folder.path(), &variables, &args);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for expected in [
        "execution.checkpointing.interval: 2 s\n\
         #   from environment, CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL\n\
         #   over flink-conf.yaml:1: 10s\n",
        "execution.checkpointing.num-retained: 5\n\
         #   from flag\n\
         #   over flink-conf.yaml:2, as `state.checkpoints.num-retained`: 3\n",
        "execution.checkpointing.timeout: 10 min\n#   from default\n",
        "restart-strategy.fixed-delay.attempts: 7\n#   from flink-conf.yaml:4\n",
        "# execution.checkpointing.dir: not set\n",
    ] {
        assert!(ran.out.contains(expected), "{expected}\nis not in\n{}", ran.out);
    }
    assert!(!ran.out.contains("exponential-delay"), "options of a strategy that is not chosen: {}", ran.out);
    assert!(ran.err.contains("line 5: `taskmanager.numberOfTaskSlots` has no"), "{}", ran.err);
    for line in ran.out.lines().chain(ran.err.lines()) {
        let is_setting = line.starts_with("execution."); // which can't be broken, and one has 81 columns
        assert!((line.chars().count() <= 80 || is_setting) && !line.contains('\u{1b}'), "{line}");
    }
    let plain = config(folder.path(), &variables, &["show", "-D", "execution.checkpointing.num-retained=5"]).out;
    assert_eq!(
        plain,
        ran.out.lines().filter(|line| !line.starts_with("#  ")).map(|line| format!("{line}\n")).collect::<String>()
    );
}

#[test]
fn json_has_the_origins_and_the_warnings() {
    let folder = folder();
    let ran = config(folder.path(), &[], &["show", "--json", "-D", "execution.checkpointing.interval=1 s"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["schema"], "cutwater.config.show/1");
    let setting = |key: &str| {
        let settings = shown["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).cloned().unwrap_or_else(|| panic!("{key}: {shown:#}"))
    };
    let expected = json!({
        "key": "execution.checkpointing.interval",
        "value": "1 s",
        "origin": { "level": "flag" },
        "overridden": [{ "value": "10s", "origin": { "level": "file", "file": "flink-conf.yaml", "line": 1 } }],
    });
    assert_eq!(setting("execution.checkpointing.interval"), expected);
    assert_eq!(setting("execution.checkpointing.num-retained")["written_as"], "state.checkpoints.num-retained");
    assert_eq!(setting("execution.checkpointing.dir")["value"], Value::Null);
    assert_eq!(shown["warnings"].as_array().unwrap().len(), 3, "{shown:#}");
}

#[test]
fn a_key_is_explained_under_each_of_its_names() {
    let folder = folder();
    let explain = |key: &str| config(folder.path(), &[], &["explain", key]);
    let today = explain("execution.checkpointing.num-retained");
    assert_eq!(today.code, 0, "{}", today.err);
    for expected in ["  honoured: ", "at least 1.", "  default    1\n", "  old names  state.checkpoints.num-retained\n"]
    {
        assert!(today.out.contains(expected), "{expected} is not in {}", today.out);
    }
    assert_eq!(explain("state.checkpoints.num-retained").out, today.out);
    assert_eq!(explain("CUTWATER_EXECUTION_CHECKPOINTING_NUM_RETAINED").out, today.out);
    let cases = [
        ("execution.checkpointing.unaligned.enabled", "refused", "any value but `false` is an error"),
        ("execution.checkpointing.write-buffer-size", "warned", "passed over"),
        ("rest.port", "warned", "passed over"),
        ("execution.checkpointing.aligned-checkpoint-timeout", "refused", "any value but `0 ms`"),
    ];
    for (key, status, effect) in cases {
        let ran = explain(key);
        let words: Vec<_> = ran.out.split_whitespace().collect();
        assert!(words.join(" ").contains(effect) && ran.out.contains(&format!("  {status}: ")), "{}", ran.out);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
        let json: Value = serde_json::from_str(&config(folder.path(), &[], &["explain", "--json", key]).out).unwrap();
        assert_eq!((json["key"].as_str(), json["status"].as_str()), (Some(key), Some(status)));
    }
}

#[test]
fn all_keys_are_listed_with_what_becomes_of_them() {
    let folder = folder();
    let ran = config(folder.path(), &[], &["explain"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for line in
        ["honoured  restart-strategy.type\n", "refused   scheduler-mode\n", "honoured  web.checkpoints.history\n"]
    {
        assert!(ran.out.contains(line), "{line} is not in {}", ran.out);
    }
    let json: Value = serde_json::from_str(&config(folder.path(), &[], &["explain", "--json"]).out).unwrap();
    let keys = json["keys"].as_array().unwrap();
    assert_eq!((ran.out.lines().count(), json["schema"].as_str()), (keys.len(), Some("cutwater.config.keys/1")));
    assert!(keys.iter().all(|key| key["meaning"].as_str().is_some_and(|meaning| !meaning.is_empty())));
}

#[test]
fn a_secret_is_said_to_be_set_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "s3.access-key: minio\ns3.secret-key: hunter2\ns3.path.style.access: true\n";
    fs::write(folder.path().join("cutwater.yaml"), text).unwrap();
    let variables = [("CUTWATER_S3_SECRET_KEY", "hunter22")];
    for args in [&["show"][..], &["show", "--origin"], &["show", "--json"], &["show", "-D", "s3.secret-key=hunter222"]]
    {
        let ran = config(folder.path(), &variables, args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.out.contains("hunter") && !ran.err.contains("hunter"), "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("s3.access-key"), "{}", ran.out);
    }
    let shown = config(folder.path(), &variables, &["show", "--origin"]).out;
    let expected = "# s3.secret-key: set, and not shown\n#   from environment, CUTWATER_S3_SECRET_KEY\n\
                    #   over cutwater.yaml:2: ***\n";
    assert!(shown.contains(expected), "{shown}");
    fs::write(folder.path().join("cutwater.yaml"), "s3.secret-key: hunter2\n").unwrap();
    for args in [&["show"][..], &["show", "--json"]] {
        let refused = config(folder.path(), &[], args);
        assert_eq!(refused.code, 6, "{}", refused.err);
        assert!(!refused.out.contains("hunter") && !refused.err.contains("hunter"), "{}{}", refused.out, refused.err);
    }
}

#[test]
fn errors_have_exit_codes_and_codes() {
    let folder = folder();
    fs::write(folder.path().join("broken.yaml"), "a: [b\n").unwrap();
    fs::write(folder.path().join("twice.yaml"), "pipeline.name: a\npipeline:\n  name: b\n").unwrap();
    let interval = "execution.checkpointing.interval";
    let cases: [(&str, Vec<&str>, i32, &str, &str); 9] = [
        ("no such file", vec!["show", "--file", "none.yaml"], 5, "CFG0001", "none.yaml: can't be read"),
        ("a folder", vec!["show", "--file", "."], 1, "CFG0001", "can't be read"),
        ("no YAML", vec!["show", "--file", "broken.yaml"], 6, "CFG0003", "broken.yaml"),
        ("a key twice", vec!["show", "--file", "twice.yaml"], 6, "CFG0004", "lines 1 and 3"),
        ("a swapped letter", vec!["show", "-D", "pipeline.nmae=x"], 6, "CFG0005", "did you mean `pipeline.name`?"),
        ("a bad value", vec!["show", "-D", "parallelism.default=0"], 6, "CFG0006", "give 1 to"),
        ("what is not built", vec!["show", "-D", "scheduler-mode=reactive"], 6, "CFG0007", "not built yet"),
        ("no value", vec!["show", "-D", interval], 2, "CLI0002", "KEY=VALUE"),
        ("no such key", vec!["explain", "state.backend.tpye"], 5, "CFG0005", "`state.backend.type`?"),
    ];
    for (name, args, exit, code, message) in cases {
        let ran = config(folder.path(), &[], &args);
        assert_eq!((ran.code, ran.out.as_str()), (exit, ""), "{name}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("error[{code}]: ")) && ran.err.contains(message), "{name}: {}", ran.err);
        let ran = config(folder.path(), &[], &[&args[..], &["--json"]].concat());
        let error: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{name}: {error}: {}", ran.out));
        assert_eq!(ran.code, exit, "{name}");
        let found = (error["schema"].as_str(), error["code"].as_str(), error["exit_code"].as_i64());
        assert_eq!(found, (Some("cutwater.error/1"), Some(code), Some(exit.into())), "{name}");
        assert!(error["message"].as_str().unwrap().contains(message), "{name}: {error}");
    }
    let conflict =
        config(folder.path(), &[], &["show", "-D", "parallelism.default=9", "-D", "pipeline.max-parallelism=8"]);
    assert!(conflict.code == 6 && conflict.err.starts_with("error[CFG0008]: "), "{}", conflict.err);
    assert_eq!(
        config(folder.path(), &[], &["show", "--folder", "a", "--file", "b"]).code,
        2,
        "they exclude each other"
    );
    let help = config(folder.path(), &[], &["show", "--help"]);
    for code in 0..=6 {
        assert!(help.out.contains(&format!("\n  {code}  ")), "exit code {code}: {}", help.out);
    }
}

/// The table of docs/coming-from-flink.md is what `config explain` says.
#[test]
fn the_page_for_those_who_come_from_flink_has_each_key_as_it_is() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coming-from-flink.md")).unwrap();
    let in_page: Vec<&str> = page.lines().filter(|line| line.starts_with("| `") && line.contains(" | ")).collect();
    let ran = config(folder().path(), &[], &["explain", "--json"]);
    let all: Value = serde_json::from_str(&ran.out).unwrap();
    let keys = all["keys"].as_array().unwrap();
    assert!(keys.len() > 50);
    for key in keys {
        let text = |field: &str| key[field].as_str().map_or_else(|| "–".to_owned(), |text| format!("`{text}`"));
        let old = key["old_names"].as_array().into_iter().flatten();
        let old: Vec<String> = old.map(|name| format!("`{}`", name.as_str().unwrap())).collect();
        let old = if old.is_empty() { "–".to_owned() } else { old.join(", ") };
        let status = key["status"].as_str().unwrap();
        let line = format!("| {} | {status} | {} | {old} |", text("key"), text("default"));
        assert!(in_page.contains(&line.as_str()), "not in the page: {line}");
    }
}
