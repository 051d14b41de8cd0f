//! `checkpoints history` and `checkpoints gc`: the real binary on folders that a real job wrote.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cutwater::coordinator::inspect::{LogEntryKind, read_slot, slot_name};
use cutwater::coordinator::snapshot_name;
use cutwater::prelude::*;
use cutwater::{Attempt, CheckpointId, Epoch, SubtaskId, TaskId, spawn};
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

fn lines_fit(ran: &Ran, folder: &Path) {
    for line in ran.out.lines().filter(|line| !line.contains(text(folder))) {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    assert!(!ran.out.contains('\u{1b}'), "no escape codes in a pipe");
}

/// A job that took three checkpoints by hand and was cancelled, and its folder.
fn cancelled() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_secs(3600))
        .checkpoint_storage(text(folder.path()))
        .parallelism(2);
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap();
    let job = Job::new("words");
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % 1_000)
        .fold("counts", 0u64, |count, _| *count += 1)
        .sink("out", Collect::<(u64, u64)>::default());
    let handle = spawn(job.build().unwrap(), options).unwrap();
    while handle.status().records_in == 0 {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        handle.checkpoint().unwrap();
    }
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    let path = folder.path().join("words");
    (folder, path)
}

fn only_statistics(path: &Path) -> PathBuf {
    let found: Vec<_> = fs::read_dir(path.join("statistics")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &found[..] else { panic!("{found:?}") };
    file.clone()
}

#[test]
fn the_history_outlives_the_job() {
    let (folder, path) = cancelled();
    for place in [folder.path(), &path] {
        let ran = cutwater(&["history", text(place)]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        lines_fit(&ran, folder.path());
        assert!(
            ran.out.contains("job words in ") && ran.out.contains("3 completed, 0 failed; 0 restores"),
            "{}",
            ran.out
        );
        assert!(ran.out.contains("3 COMPLETED") && ran.out.contains("P99"), "{}", ran.out);
    }
    let (code, shown) = json(&["history", text(&path)]);
    assert_eq!((code, &shown["schema"]), (0, &"cutwater.checkpoints.history/1".into()));
    let statistics = &shown["jobs"][0]["statistics"];
    let checkpoints = statistics["checkpoints"].as_array().unwrap();
    let ids: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint["checkpoint"].as_u64().unwrap()).collect();
    assert_eq!((ids, &statistics["completed"]), (vec![3, 2, 1], &3.into()), "newest first");
    let newest = cutwater::open_checkpoint(text(&path)).unwrap().0;
    assert_eq!(checkpoints[0]["full_bytes"], newest.state_bytes());
    assert_eq!(checkpoints[0]["subtasks"].as_array().unwrap().len(), 4);
    assert_eq!(statistics["summary"]["full_bytes"]["min"].as_u64().map(|bytes| bytes > 0), Some(true));

    let ran = cutwater(&["history", text(&path), "--checkpoint", "2"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    lines_fit(&ran, folder.path());
    assert!(ran.out.contains("checkpoint 2 of epoch 1") && ran.out.contains("4 of 4 subtasks"), "{}", ran.out);
    assert!(ran.out.contains("  task 1: counts"), "{}", ran.out);
    let ran = cutwater(&["history", text(&path), "--checkpoint", "9"]);
    assert!(ran.code == 5 && ran.err.starts_with("error[CLI0004]: "), "{}", ran.err);
}

#[test]
fn statistics_that_are_missing_damaged_or_newer_are_named() {
    let (_folder, path) = cancelled();
    let file = only_statistics(&path);
    let whole = fs::read(&file).unwrap();
    let flipped = {
        let mut bytes = whole.clone();
        bytes[100] ^= 1;
        bytes
    };
    let newer = String::from_utf8(whole.clone()).unwrap().replacen("statistics/1", "statistics/2", 1);
    let deep = "[".repeat(1 << 20);
    let cases: [(&str, &[u8], &str, &str); 4] = [
        ("a byte that changed", &flipped, "damaged", "STA0001"),
        ("cut off", &whole[..whole.len() / 2], "damaged", "STA0001"),
        ("lists without end", deep.as_bytes(), "damaged", "STA0001"),
        ("a newer version", newer.as_bytes(), "newer format", "STA0002"),
    ];
    for (case, bytes, word, code) in cases {
        fs::write(&file, bytes).unwrap();
        let ran = cutwater(&["history", text(&path)]);
        assert_eq!(ran.code, 4, "{case}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("{word}[{code}]: {}", text(&file))), "{case}: {}", ran.err);
        let (exit, shown) = json(&["history", text(&path)]);
        assert_eq!((exit, &shown["jobs"][0]["problems"][0]["code"]), (4, &code.into()), "{case}");
    }
    fs::remove_file(&file).unwrap();
    let ran = cutwater(&["history", text(&path)]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("no statistics"), "{}", ran.out);
}

/// A snapshot file of this epoch.
fn snapshot(epoch: u64, checkpoint: u64) -> String {
    let (epoch, checkpoint) = (Epoch(epoch), CheckpointId(checkpoint));
    let barrier = cutwater_core::Barrier {
        epoch,
        attempt: Attempt(1),
        checkpoint,
        base: None,
        form: cutwater_core::SnapshotForm::Configured,
    };
    snapshot_name(barrier, SubtaskId { task: TaskId(1), index: 0 })
}

fn put(path: &Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
    fs::write(path.join(name), bytes).unwrap();
}

/// What gc says of each name.
fn judged(path: &Path) -> BTreeMap<String, String> {
    let (_, shown) = json(&["gc", "--dry-run", text(path)]);
    let job = &shown["jobs"][0];
    let mut all = BTreeMap::new();
    for list in ["garbage", "may_be_in_use", "not_of_the_job"] {
        let mut bytes = 0;
        for object in job[list].as_array().unwrap() {
            let why = object["why"].as_str().unwrap_or("-");
            bytes += object["bytes"].as_u64().unwrap();
            assert_eq!(all.insert(object["name"].as_str().unwrap().to_owned(), format!("{list} {why}")), None);
        }
        if let Some(sum) = job[format!("{list}_bytes")].as_u64() {
            assert_eq!(sum, bytes, "{list}");
        }
    }
    all
}

/// The name of a file of the newest checkpoint that is not kept any more.
fn subsumed(path: &Path) -> String {
    let newest = cutwater::open_checkpoint(text(path)).unwrap().0;
    let records = (0..newest.slot).map(|slot| {
        let name = slot_name(slot);
        read_slot(&name, &fs::read(path.join(&name)).unwrap()).unwrap()
    });
    let mut files = records.filter_map(|entry| match entry.kind {
        LogEntryKind::Completed { checkpoint, .. } => checkpoint.files().next().map(|file| file.name.clone()),
        LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
    });
    files.next_back().unwrap()
}

#[test]
fn what_nobody_needs_is_told_from_what_may_be_in_use() {
    let (folder, path) = cancelled();
    assert_eq!(judged(&path), BTreeMap::new(), "a job that has ended leaves nothing");
    let old = "statistics/00000000000000000001-00000000000000000000.json".to_owned();
    let subsumed = subsumed(&path);
    let planted = [
        (snapshot(1, 77), "garbage orphan", "may_be_in_use orphan"),
        (snapshot(2, 78), "may_be_in_use orphan", "may_be_in_use orphan"),
        (subsumed, "garbage subsumed", "may_be_in_use subsumed"),
        ("chk/.cutwater-7-7".to_owned(), "garbage temporary", "may_be_in_use temporary"),
        (old, "garbage old-statistics", "may_be_in_use old-statistics"),
        ("cutwater-probe-7-0".to_owned(), "may_be_in_use probe", "may_be_in_use probe"),
        ("chk/notes.txt".to_owned(), "not_of_the_job -", "not_of_the_job -"),
    ];
    for (name, _, _) in &planted {
        put(&path, name, b"12345");
    }
    let expected = |of: fn(&(String, &'static str, &'static str)) -> &'static str| {
        planted.iter().map(|one| (one.0.clone(), of(one).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(judged(&path), expected(|one| one.1), "the log says that the job has ended");
    let ran = cutwater(&["gc", "--dry-run", text(folder.path())]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    lines_fit(&ran, folder.path());
    for line in ["  nobody needs: 4 files, 20 B\n", "  may be in use: 2 files, 10 B\n", "  not of the job: 1 file\n"] {
        assert!(ran.out.contains(line), "{line} is not in {}", ran.out);
    }

    // Killed, or at work: there is no record of an end.
    let last = fs::read_dir(path.join("log")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let end = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    assert_eq!(judged(&path), expected(|one| one.2), "the job may run");
    fs::write(&last, end).unwrap();

    // Nobody can tell what a record named that can't be read.
    let claim = path.join(slot_name(0));
    let whole = fs::read(&claim).unwrap();
    fs::write(&claim, &whole[1..]).unwrap();
    let damaged = judged(&path);
    assert_eq!(damaged[&snapshot(1, 77)], "may_be_in_use log-damaged");
    assert_eq!(cutwater(&["gc", "--dry-run", text(&path)]).code, 4);
    fs::write(&claim, whole).unwrap();

    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    let before = (names(&path.join("chk")), names(&path.join("log")));
    for args in [["gc", text(&path)].as_slice(), &["gc", text(&path), "--json"]] {
        let ran = cutwater(args);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains("error[CLI0002]: deleting is the job's own work"), "{}", ran.err);
    }
    assert_eq!((names(&path.join("chk")), names(&path.join("log"))), before, "nothing is deleted");
}

#[test]
fn slots_below_the_boundary_are_garbage_and_many_files_are_counted() {
    let (folder, path) = cancelled();
    // A boundary as docs/format.md has it: k 1, epoch 1, two numbers, the name of the job.
    let body = [&[1, 1, 1, 1, 5][..], b"words"].concat();
    let mut bytes = [b"CUTWLOG\n", &[1, 0, 4][..], &(body.len() as u64).to_le_bytes()].concat();
    let sum = crc32c(&[&bytes[..], &body].concat());
    bytes.extend(sum.to_le_bytes());
    put(&path, "boundary/00000000000000000001", &[bytes, body].concat());
    let judged = judged(&path);
    let of = |name: &str| judged.get(name).map(String::as_str);
    assert_eq!(
        (of(&slot_name(0)), of(&slot_name(1))),
        (Some("garbage below-boundary"), Some("garbage below-boundary"))
    );
    assert_eq!(of("boundary/00000000000000000001"), None, "boundaries stay for ever");
    for checkpoint in 0..70 {
        put(&path, &slot_name(100 + checkpoint), b"x");
    }
    let ran = cutwater(&["gc", "--dry-run", text(&path)]);
    lines_fit(&ran, folder.path());
    assert!(ran.out.contains("more (below the boundary): --json names them"), "{}", ran.out);
}

/// CRC-32C bit by bit: slow, and independent of the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, byte)
}
