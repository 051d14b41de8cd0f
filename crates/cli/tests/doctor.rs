//! `cutwater doctor`, the real binary, on machines made of folders: what it finds, how it ends, and that it leaves nothing
//! behind. Full and read-only disks and real stores are in integration-tests/tests/doctor.rs.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `cutwater doctor` in the folder with no variables that would tell it anything, and time enough for a busy disk.
fn doctor(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutwater"));
    run(command.arg("doctor").args(args), folder)
}

fn run(command: &mut Command, folder: &Path) -> Ran {
    for (name, _) in std::env::vars_os() {
        if ["CUTWATER_", "AWS_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command.current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// The report in JSON.
fn report(folder: &Path, args: &[&str]) -> (i32, Value) {
    let ran = doctor(folder, &[args, &["--json", "--limit", "120"]].concat());
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err));
    (ran.code, report)
}

/// `error checkpoints STO0001` and so on, of all that is not well.
fn wrong(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] != "ok");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    checks
        .map(|check| format!("{} {} {}", text(&check["verdict"]), text(&check["check"]), text(&check["code"])))
        .collect()
}

/// What was found by a check with this verdict, and what is to be done.
fn said(report: &Value, verdict: &str, check: &str) -> String {
    let checks = report["checks"].as_array().unwrap().iter();
    let of = checks.filter(|one| one["verdict"] == verdict && one["check"] == check);
    of.map(|one| format!("{} {}\n", one["found"].as_str().unwrap(), one["to_do"].as_str().unwrap_or(""))).collect()
}

/// A folder with this configuration, on the disk that is built on: where temporary files go may be memory.
fn with_settings(text: &str) -> TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(folder.path().join("cutwater.yaml"), text).unwrap();
    folder
}

const SOUND: &str = "execution.checkpointing:
  interval: 10 s
  dir: chk
  savepoint-dir: savepoints
";

/// All files and folders below, with their lengths.
fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        found.push((entry.path(), if metadata.is_dir() { 0 } else { metadata.len() }));
        if metadata.is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_sound_job_is_well_and_nothing_is_left_behind() {
    let folder = with_settings(SOUND);
    let before = tree(folder.path());
    let (code, found) = report(folder.path(), &[]);
    assert_eq!((code, wrong(&found)), (0, vec![]), "{found:#}");
    assert_eq!((&found["schema"], &found["verdict"]), (&"cutwater.doctor/1".into(), &"ok".into()));
    let named = |check: &str| found["checks"].as_array().unwrap().iter().filter(|one| one["check"] == check).count();
    let counts = ["settings", "checkpoints", "disk of checkpoints", "disk of savepoints", "open files", "memory"];
    let counts = counts.map(named);
    assert_eq!(counts, [1; 6], "{found:#}");
    let figures: Vec<_> = found["checks"].as_array().unwrap().iter().map(|check| &check["figures"]).collect();
    for name in ["free_bytes", "total_bytes", "soft_limit", "hard_limit", "needed", "probe_ms", "keys"] {
        assert!(figures.iter().any(|figures| figures[name].is_u64()), "{name}: {found:#}");
    }
    assert_eq!(tree(folder.path()), before, "no folder, no probe");
}

#[test]
fn the_text_has_a_line_for_each_check_and_fits_80_columns() {
    let folder = with_settings(SOUND);
    let ran = doctor(folder.path(), &["--limit", "120"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for expected in
        ["ok       settings: 3 keys set, by cutwater.yaml\n", "\nok       open files: ", "\nall 7 checks are well\n"]
    {
        assert!(ran.out.contains(expected), "{expected}\nis not in\n{}", ran.out);
    }
    let bad = doctor(folder.path(), &["--limit", "120", "-D", "execution.checkpointing.dir=cutwater.yaml/chk"]);
    assert_eq!((bad.code, bad.err.as_str()), (1, ""), "{}", bad.out);
    assert!(bad.out.contains("\nerror    checkpoints [STO0001]:"), "{}", bad.out);
    assert!(bad.out.ends_with(" in 7 checks\n"), "{}", bad.out);
    for line in ran.out.lines().chain(bad.out.lines()) {
        let is_path = line.split_whitespace().any(|word| word.len() > 60);
        assert!(line.chars().count() <= 80 || is_path, "{line}");
    }
}

#[test]
fn folders_that_cant_be_are_errors_that_name_them() {
    let folder = with_settings(SOUND);
    fs::write(folder.path().join("file"), "").unwrap();
    let before = tree(folder.path());
    // Tests may run as root, to whom all folders are open: a path below a file is closed to everybody.
    let cases: [(&str, &[&str], &str, &str, &str); 4] = [
        (
            "checkpoints",
            &["execution.checkpointing.dir=file/chk"],
            "error checkpoints STO0001",
            "checkpoints",
            "file/chk can't hold checkpoints: could not create a small object there",
        ),
        (
            "savepoints",
            &["execution.checkpointing.savepoint-dir=file"],
            "error savepoints STO0001",
            "savepoints",
            "a part of its path is a symbolic link or not a plain file or folder",
        ),
        (
            "RocksDB",
            &["state.backend.type=rocksdb", "state.backend.rocksdb.localdir=file/state"],
            "error RocksDB DOC0003",
            "RocksDB",
            "file/state can't be made: Not a directory (os error 20) a part of the path is no folder",
        ),
        (
            // The job goes on without them.
            "local copies",
            &[
                "execution.checkpointing.local-backup.enabled=true",
                "execution.checkpointing.local-backup.dirs=file/a,ok",
            ],
            "warning local copies STO0001",
            "local copies",
            "file/a can't hold checkpoints",
        ),
    ];
    for (name, settings, expected, check, text) in cases {
        let flags: Vec<&str> = settings.iter().flat_map(|setting| ["-D", setting]).collect();
        let (code, found) = report(folder.path(), &flags);
        let is_error = expected.starts_with("error");
        assert_eq!(code, i32::from(is_error), "{name}: {found:#}");
        // How many files may be open is up to the machine that the test runs on.
        let wrong: Vec<_> = wrong(&found).into_iter().filter(|one| !one.ends_with("DOC0002")).collect();
        assert_eq!(wrong, [expected], "{name}: {found:#}");
        let verdict = if is_error { "error" } else { "warning" };
        assert!(said(&found, verdict, check).contains(text), "{name}: {found:#}");
        assert_eq!(tree(folder.path()), before, "{name}: nothing is left behind");
    }
}

#[test]
fn what_the_configuration_refuses_is_an_error_in_its_words() {
    let folder = with_settings(SOUND);
    fs::write(folder.path().join("broken.yaml"), "a: [b\n").unwrap();
    let fall_back = "cutwater.state-recovery.fall-back=true";
    let cases: [(&str, &[&str], &str, &str); 5] = [
        ("an unknown key", &["-D", "pipeline.nmae=x"], "CFG0005", "did you mean `pipeline.name`?"),
        ("a bad value", &["-D", "execution.checkpointing.interval=1.5 s"], "CFG0006", "`1.5 s`"),
        ("what is not built", &["-D", "execution.checkpointing.unaligned.enabled=true"], "CFG0007", "is not built yet"),
        ("fall-back with one retained", &["-D", fall_back], "CFG0008", "at least 2 must be kept"),
        ("no YAML", &["--file", "broken.yaml"], "CFG0003", "broken.yaml"),
    ];
    for (name, args, expected, text) in cases {
        let (code, found) = report(folder.path(), args);
        let expected = [format!("error settings {expected}"), "warning all else DOC0008".to_owned()];
        assert_eq!((code, wrong(&found)), (1, expected.to_vec()), "{name}: {found:#}");
        let shown = Command::new(env!("CARGO_BIN_EXE_cutwater"))
            .args(["config", "show"])
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let by_config = String::from_utf8(shown.stderr).unwrap();
        let message = found["checks"][0]["found"].as_str().unwrap();
        assert!(message.contains(text) && by_config.contains(message), "{name}: {message} is not in {by_config}");
    }
}

#[test]
fn what_contradicts_itself_is_a_warning_and_the_job_can_start() {
    let folder = with_settings(SOUND);
    let args = [
        "-D",
        "execution.checkpointing.savepoint-dir=chk/savepoints",
        "-D",
        "cutwater.rocksdb.overlay=32 mb",
        "-D",
        "execution.checkpointing.min-pause=1 min",
    ];
    let (code, found) = report(folder.path(), &args);
    assert_eq!((code, wrong(&found)), (0, vec!["warning settings DOC0001".to_owned(); 3]), "{found:#}");
    for text in ["lies in that of checkpoints", "`cutwater.rocksdb.overlay` has no effect", "is shorter than"] {
        assert!(said(&found, "warning", "settings").contains(text), "{text}: {found:#}");
    }
    let secret = with_settings(&format!("{SOUND}s3.access-key: a\ns3.secret-key: hunter2\n"));
    let file = secret.path().join("cutwater.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, found) = report(secret.path(), &[]);
    assert!(said(&found, "warning", "settings").contains("(mode 644)"), "{found:#}");
    assert!(!found.to_string().contains("hunter"), "{found:#}");
}

#[test]
fn too_few_open_files_are_told_with_what_to_do() {
    let folder = with_settings(&format!("{SOUND}state.backend.type: rocksdb\nstate.backend.rocksdb.localdir: state\n"));
    let limited = |limits: &str, args: &str| {
        let script = format!("{limits} && exec \"$0\" doctor --json --limit 120 {args}");
        let mut command = Command::new("sh");
        let ran = run(command.args(["-c", &script, env!("CARGO_BIN_EXE_cutwater")]), folder.path());
        let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
        (ran.code, found)
    };
    let cases = [
        ("ulimit -n 512 && ulimit -Sn 100", "", 1, "error", "100 may be open, 512 if raised; the job needs about"),
        ("ulimit -n 512", "", 0, "warning", "raise `nofile` in /etc/security/limits.conf to 4096"),
        ("ulimit -n 512", "--state 100gb", 1, "error", "about 1752, one for each 64 MiB of 100.0 GiB among them"),
        ("ulimit -n 4096", "", 0, "ok", "4096 may be open; the job needs about 152 and one for each 64 MiB"),
    ];
    for (limits, args, code, verdict, text) in cases {
        let (ended, found) = limited(limits, args);
        assert!(said(&found, verdict, "open files").contains(text), "{limits}: {found:#}");
        // A state of 100 GiB may be too large for the disk, too.
        assert_eq!(ended, code, "{limits}: {found:#}");
    }
}

#[test]
fn a_state_that_is_too_large_for_the_machine_is_told() {
    let folder = with_settings(SOUND);
    let (code, found) = report(folder.path(), &["--state", "1000000tb"]);
    let wrong = wrong(&found);
    assert_eq!(code, 1, "{found:#}");
    for expected in ["error disk of checkpoints DOC0004", "error disk of savepoints DOC0004", "error memory DOC0006"] {
        assert!(wrong.iter().any(|one| one == expected), "{expected}: {found:#}");
    }
    let many =
        ["--states", "1000000", "-D", "state.backend.type=rocksdb", "-D", "state.backend.rocksdb.localdir=state"];
    let (code, found) = report(folder.path(), &many);
    assert_eq!(code, 1, "{found:#}");
    assert!(said(&found, "error", "memory").contains("64.0 MiB overlay x 1 subtask x 1000000 states"), "{found:#}");
}

#[test]
fn a_store_that_is_not_there_is_told_in_time() {
    // Bound, and nobody listens once it is closed again: whoever takes the port meanwhile is no store either.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("s3.endpoint=http://127.0.0.1:{port}");
    let args = [
        "-D",
        "execution.checkpointing.dir=s3://bucket/jobs",
        "-D",
        &endpoint,
        "-D",
        "s3.access-key=a",
        "-D",
        "s3.secret-key=hunter2",
        "--limit",
        "1",
        "--json",
    ];
    let folder = with_settings(SOUND);
    let ran = doctor(folder.path(), &args);
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    assert_eq!(ran.code, 1, "{found:#}");
    assert!(!ran.out.contains("hunter2"), "{}", ran.out);
    let said = said(&found, "error", "checkpoints");
    if cfg!(feature = "s3") {
        assert!(said.contains("s3://bucket/jobs can't hold checkpoints"), "{found:#}");
        assert!(said.contains("see whether it runs and can be reached from here"), "{found:#}");
    } else {
        // Not seen is not well.
        assert!(said.contains("build the program with `--features s3`") && said.contains("not checked"), "{found:#}");
    }
}

#[test]
fn where_the_job_is_to_start_there_must_be_a_checkpoint() {
    let folder = with_settings(SOUND);
    fs::create_dir(folder.path().join("empty")).unwrap();
    let (code, found) = report(folder.path(), &["-D", "execution.state-recovery.path=empty"]);
    assert_eq!((code, wrong(&found)), (1, vec!["error start OPN0001".to_owned()]), "{found:#}");
    let job = cutwater::Job::new("numbers");
    job.source("numbers", cutwater::generator(10, |n| n)).sink("out", cutwater::discard());
    let settings = cutwater::Settings::new().enable_checkpointing(std::time::Duration::from_millis(20));
    let settings = settings.checkpoint_storage(&folder.path().join("other").to_string_lossy());
    let options = cutwater::Options::from_config(&cutwater::Config::new().code(settings).resolve().unwrap()).unwrap();
    cutwater::run(job.build().unwrap(), options).unwrap();
    let (code, found) = report(folder.path(), &["-D", "execution.state-recovery.path=other"]);
    assert_eq!((code, wrong(&found)), (0, vec![]), "{found:#}");
    assert!(said(&found, "ok", "start").contains("of the job numbers"), "{found:#}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = with_settings(SOUND);
    let cases: [(&str, &[&str], &str); 4] = [
        ("an unknown flag", &["--fix"], "CLI0005"),
        ("a size that is none", &["--state", "much"], "CLI0005"),
        ("no states", &["--states", "0"], "CLI0005"),
        ("a setting without a value", &["-D", "pipeline.name"], "CLI0002"),
    ];
    for (name, args, code) in cases {
        let ran = doctor(folder.path(), args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{name}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("error[{code}]: ")), "{name}: {}", ran.err);
    }
}
