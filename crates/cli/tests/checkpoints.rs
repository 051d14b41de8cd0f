//! The real binary on folders that a real job wrote, whole and damaged.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cutwater::prelude::*;
use cutwater::{coordinator, spawn};
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn cutwater(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_cutwater")).arg("checkpoints").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(args: &[&str]) -> (i32, serde_json::Value) {
    let ran = cutwater(&[args, &["--json"]].concat());
    (ran.code, serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err)))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a job to its end with two checkpoints retained and returns its folder.
fn job(folder: &Path, name: &str) -> PathBuf {
    job_with(folder, name, Settings::new())
}

fn job_with(folder: &Path, name: &str, settings: Settings) -> PathBuf {
    let settings = settings
        .enable_checkpointing(Duration::from_secs(60))
        .checkpoint_storage(text(folder))
        .num_retained_checkpoints(2)
        .set("execution.checkpointing.data-inline-threshold", "0") // files are looked at
        .parallelism(2);
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    let job = Job::new(name);
    job.source("numbers", generator(300_000, |n| n))
        .process_with_states(
            "large",
            |states: &mut OperatorStates<'_>| states.list::<u64>("numbers"),
            |cx: &mut RecordContext<'_, u64>, numbers, n| {
                if n >= 299_990 {
                    cx.operator_state(*numbers)?.push(n);
                }
                cx.emit(n);
                Ok(())
            },
        )
        .key_by(|n| n % 1_000)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", Collect::<(u64, u64)>::default());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    drop(handle.checkpoint()); // one by hand, if the job is not at its end already
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    folder.join(name)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn newest(folder: &Path) -> coordinator::CompletedCheckpoint {
    cutwater::open_checkpoint(text(folder)).unwrap().0
}

fn one_job() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = job(folder.path(), "words");
    (folder, path)
}

fn lines_fit(ran: &Ran, folder: &Path) {
    for line in ran.out.lines().filter(|line| !line.contains(text(folder))) {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    assert!(!ran.out.contains('\u{1b}'), "no escape codes in a pipe");
}

#[test]
fn a_folder_is_listed_by_job_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = job(folder.path(), "words");
    job(folder.path(), "more");

    let ran = cutwater(&["list", text(folder.path())]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    lines_fit(&ran, folder.path());
    assert!(ran.out.contains("job more in ") && ran.out.contains("job words in "), "{}", ran.out);
    assert!(ran.out.contains("outcome: finished"), "{}", ran.out);

    let newest = newest(&path);
    let (code, list) = json(&["list", text(&path)]);
    assert_eq!((code, &list["schema"]), (0, &"cutwater.checkpoints.list/1".into()));
    assert_eq!((&list["jobs"][0]["job"], &list["jobs"][0]["outcome"]), (&"words".into(), &"finished".into()));
    let last = list["jobs"][0]["checkpoints"].as_array().unwrap().last().unwrap();
    assert_eq!(last["checkpoint"], newest.checkpoint.0);
    assert_eq!(last["completed_at_unix_ms"], newest.completed_at_unix_ms);
    assert_eq!(last["state_bytes"], newest.state_bytes());
    assert_eq!((&last["final"], &last["retained"]), (&true.into(), &true.into()));
}

#[test]
fn a_checkpoint_is_shown_with_its_states_and_positions() {
    let (folder, path) = one_job();
    let ran = cutwater(&["inspect", text(&path)]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    lines_fit(&ran, folder.path());
    assert!(ran.out.contains("numbers") && ran.out.contains("counts/"), "{}", ran.out);

    let newest = newest(&path);
    let (code, shown) = json(&["inspect", text(&path), "--checkpoint", &newest.checkpoint.to_string()]);
    assert_eq!((code, &shown["schema"]), (0, &"cutwater.checkpoints.inspect/1".into()));
    assert_eq!(shown["max_parallelism"], 128);
    let (states, sources) = (shown["states"].as_array().unwrap(), shown["sources"].as_array().unwrap());
    let (without_keys, states): (Vec<_>, Vec<_>) = states.iter().partition(|state| state["operator"] == "large");
    assert_eq!(states.iter().map(|state| state["entries"].as_u64().unwrap()).sum::<u64>(), 1_000);
    let [numbers] = without_keys[..] else { panic!("{without_keys:?}") };
    assert_eq!((&numbers["kind"], &numbers["name"]), (&"operator-list".into(), &"numbers".into()));
    assert_eq!((&numbers["entries"], &numbers["value_schema"]), (&10.into(), &"u64".into()));
    assert_eq!((&states[0]["operator"], &states[0]["key_schema"]), (&"counts".into(), &"u64".into()));
    assert_eq!(sources.len(), 1);
    let splits = sources[0]["splits"].as_array().unwrap();
    assert_eq!(splits.iter().map(|split| split["records"].as_u64().unwrap()).sum::<u64>(), 300_000);
    assert!(splits.iter().all(|split| split["ended"] == true));
    let files = shown["tasks"].as_array().unwrap().iter().flat_map(|task| task["subtasks"].as_array().unwrap());
    let files: Vec<_> = files.flat_map(|subtask| subtask["files"].as_array().unwrap()).collect();
    let expected: BTreeMap<_, _> = newest.files().map(|file| (file.name.as_str(), file.bytes)).collect();
    let found = files.iter().map(|file| (file["name"].as_str().unwrap(), file["bytes"].as_u64().unwrap())).collect();
    assert_eq!(expected, found);
}

#[test]
fn verify_reads_all_and_names_every_damaged_file() {
    let (folder, path) = one_job();
    let ran = cutwater(&["verify", text(&path)]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    lines_fit(&ran, folder.path());
    let (code, report) = json(&["verify", text(&path)]);
    assert_eq!((code, &report["ok"]), (0, &true.into()));
    let last = report["jobs"][0]["checkpoints"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["entries"], 1_000);

    let newest = newest(&path);
    let snapshot = path.join(&newest.files().next().unwrap().name);
    let record = path.join(coordinator::inspect::slot_name(newest.slot));
    type Damage = fn(&Path, &[u8]);
    let flip_first: Damage = |file, whole| write_flipped(file, whole, 0);
    let flip_middle: Damage = |file, whole| write_flipped(file, whole, whole.len() / 2);
    let flip_last: Damage = |file, whole| write_flipped(file, whole, whole.len() - 1);
    let cases: [(&str, &Path, Damage, &str); 11] = [
        ("the first byte of a snapshot", &snapshot, flip_first, "damaged"),
        ("a byte in the middle of a snapshot", &snapshot, flip_middle, "damaged"),
        ("the last byte of a snapshot", &snapshot, flip_last, "damaged"),
        (
            "a truncated snapshot",
            &snapshot,
            |file, whole| fs::write(file, &whole[..whole.len() - 1]).unwrap(),
            "damaged",
        ),
        ("an empty snapshot", &snapshot, |file, _| fs::write(file, b"").unwrap(), "damaged"),
        ("a snapshot that is gone", &snapshot, |file, _| fs::remove_file(file).unwrap(), "missing"),
        ("the first byte of a record", &record, flip_first, "damaged"),
        ("a byte in the middle of a record", &record, flip_middle, "damaged"),
        ("the last byte of a record", &record, flip_last, "damaged"),
        ("a truncated record", &record, |file, whole| fs::write(file, &whole[..whole.len() / 2]).unwrap(), "damaged"),
        ("a record that is gone", &record, |file, _| fs::remove_file(file).unwrap(), "missing"),
    ];
    for (case, file, damage, word) in cases {
        let whole = fs::read(file).unwrap();
        damage(file, &whole);
        let ran = cutwater(&["verify", text(&path)]);
        assert_eq!(ran.code, 4, "{case}: {}{}", ran.out, ran.err);
        let code = if word == "damaged" { "CKP0001" } else { "CKP0002" };
        assert!(ran.out.contains(&format!("{word}[{code}]: {}", text(file))), "{case}: {}", ran.out);
        let (code, report) = json(&["verify", text(&path)]);
        assert_eq!((code, &report["ok"]), (4, &false.into()), "{case}");
        fs::write(file, whole).unwrap();
        assert_eq!(cutwater(&["verify", text(&path)]).code, 0, "{case}, mended");
    }
}

fn write_flipped(file: &Path, whole: &[u8], at: usize) {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn list_and_inspect_show_what_is_whole_and_name_what_is_not() {
    let (_folder, path) = one_job();
    let newest = newest(&path);
    let record = path.join(coordinator::inspect::slot_name(newest.slot));
    let whole = fs::read(&record).unwrap();
    write_flipped(&record, &whole, 30);
    for command in ["list", "inspect"] {
        let ran = cutwater(&[command, text(&path)]);
        assert_eq!(ran.code, 4, "{command}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(text(&record)), "{command}: {}", ran.err);
    }
    fs::write(&record, whole).unwrap();

    let snapshot = path.join(&newest.files().next().unwrap().name);
    fs::remove_file(&snapshot).unwrap();
    let ran = cutwater(&["inspect", text(&path)]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains(text(&snapshot)) && ran.out.contains("task 0"), "{}{}", ran.out, ran.err);
    assert_eq!(cutwater(&["list", text(&path)]).code, 0, "a listing reads the log only");
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let (_folder, path) = one_job();
    let newest = newest(&path);
    let record = path.join(coordinator::inspect::slot_name(newest.slot));
    let mut bytes = fs::read(&record).unwrap();
    bytes[8] = 99; // the version; then the sum over header and body, as docs of the record say
    let sum = crc32c(&[&bytes[..19], &bytes[23..]].concat());
    bytes[19..23].copy_from_slice(&sum.to_le_bytes());
    fs::write(&record, bytes).unwrap();
    let ran = cutwater(&["verify", text(&path)]);
    assert_eq!(ran.code, 4, "{}", ran.out);
    assert!(ran.out.contains(&format!("newer format[CKP0003]: {}", text(&record))), "{}", ran.out);
}

/// CRC-32C bit by bit: slow, and independent of the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, byte)
}

#[test]
fn exit_codes_are_as_documented() {
    let (folder, path) = one_job();
    job(folder.path(), "more");
    let empty = tempfile::tempdir().unwrap();
    let file = empty.path().join("file");
    fs::write(&file, "x").unwrap();
    let missing = empty.path().join("missing");
    let cases: [(&str, &[&str], i32, &str); 9] = [
        ("a folder without checkpoints", &["list", text(empty.path())], 5, "holds no checkpoints"),
        ("a folder that is missing", &["verify", text(&missing)], 5, "is not there"),
        ("a file", &["inspect", text(&file)], 5, "is a file"),
        ("another kind of store", &["list", "ftp://host/job"], 2, "ftp"),
        ("a word that is no command", &["show", "x"], 2, "show"),
        ("several jobs", &["inspect", text(folder.path())], 2, "(more, words)"),
        ("no such checkpoint", &["inspect", text(&path), "--checkpoint", "99"], 5, "checkpoint 99"),
        ("no such checkpoint to verify", &["verify", text(&path), "--checkpoint", "99"], 5, "checkpoint 99"),
        ("help", &["--help"], 0, ""),
    ];
    for (case, args, code, message) in cases {
        let ran = cutwater(args);
        assert_eq!(ran.code, code, "{case}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(message), "{case}: {}", ran.err);
        let error = match code {
            5 => "CLI0004",
            2 if message == "show" => "CLI0005",
            2 if message == "ftp" => "OPT0001",
            2 => "CLI0002",
            _ => continue, // none
        };
        assert!(ran.err.starts_with(&format!("error[{error}]: ")) && ran.out.is_empty(), "{case}: {}", ran.err);
        let (exit, document) = json(args);
        let found = (document["schema"].as_str(), document["code"].as_str(), document["exit_code"].as_i64());
        assert_eq!((exit, found), (code, (Some("cutwater.error/1"), Some(error), Some(code.into()))), "{case}");
        assert!(document["message"].as_str().unwrap().contains(message), "{case}: {document}");
    }
    assert!(!missing.exists() && files_below(empty.path()) == [file], "nothing is created");
    let help = cutwater(&["verify", "--help"]);
    assert!(help.out.contains("4  something is damaged"), "{}", help.out);
}

#[test]
fn a_job_whose_checkpoints_went_with_it_is_shown_as_such_and_its_folder_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let deletes = cutwater::ExternalizedCheckpointRetention::DeleteOnCancellation;
    let path = job_with(folder.path(), "words", Settings::new().externalized_checkpoint_retention(deletes));
    let ran = cutwater(&["list", text(&path)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("no checkpoint") && ran.out.contains("outcome: finished"), "{}", ran.out);
    assert!(ran.out.contains("its checkpoints were deleted with that"), "{}", ran.out);
    lines_fit(&ran, folder.path());
    let (code, list) = json(&["list", text(&path), "--all"]);
    let job = &list["jobs"][0];
    assert_eq!((code, &job["checkpoints_deleted"]), (0, &true.into()));
    assert!(job["checkpoints"].as_array().unwrap().iter().all(|checkpoint| checkpoint["retained"] == false));
    assert_eq!(cutwater(&["verify", text(&path)]).code, 0, "nothing that should be there is missing");
    assert_eq!(cutwater(&["inspect", text(&path)]).code, 5, "there is none to look into");
}

/// A checkpoint whose files build on each other: a few keys changed after all had come.
fn chained(folder: &Path) -> PathBuf {
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_secs(60))
        .checkpoint_storage(text(folder))
        .set("execution.checkpointing.data-inline-threshold", "0")
        .incremental_checkpoints(true);
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    let job = Job::new("chained");
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| if *n < 50_000 { *n } else { n % 10 })
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", cutwater::discard());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    while handle.status().records_in < 100_000 {
        std::thread::yield_now();
    }
    handle.checkpoint().unwrap();
    handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();
    folder.join("chained")
}

#[test]
fn files_that_build_on_others_are_told_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = chained(folder.path());
    let (code, inspected) = json(&["inspect", text(&path)]);
    assert_eq!(code, 0);
    let counts = inspected["states"].as_array().unwrap().iter().find(|state| state["name"] == "value").unwrap();
    assert_eq!((&counts["entries"], &counts["changes"]), (&50_000.into(), &10.into()), "{counts}");
    let ran = cutwater(&["inspect", text(&path)]);
    lines_fit(&ran, folder.path());
    assert!(ran.out.contains("50000 entries and 10 later changes"), "{}", ran.out);
    assert_eq!(json(&["verify", text(&path)]).0, 0);

    // The file of changes alone holds nothing that could be restored.
    let files: Vec<_> = newest(&path).files().map(|file| path.join(&file.name)).collect();
    assert_eq!(files.len(), 2);
    let changes = fs::read(&files[1]).unwrap();
    fs::remove_file(&files[0]).unwrap();
    let (code, verified) = json(&["verify", text(&path)]);
    assert_ne!(code, 0);
    assert!(verified.to_string().contains("is not there"), "{verified}");
    fs::write(&files[0], &changes).unwrap();
    let (code, verified) = json(&["verify", text(&path)]);
    assert_ne!(code, 0, "{verified}");
}
