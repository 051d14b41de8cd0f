//! Sources in whole jobs: what a job read from files that grow, or from many, it has read once.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use cutwater::prelude::*;
use cutwater::{JobGraph, JobState, spawn};
use serde::Deserialize;

fn options(folder: &Path) -> Options {
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_millis(20))
        .checkpoint_storage(folder.join("checkpoints").to_str().unwrap())
        .parallelism(2);
    Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Runs until that many records are published, then cancels; all that was published, sorted.
fn run_until(graph: JobGraph, folder: &Path, out: &Collect<String>, count: usize) -> Vec<String> {
    let handle = spawn(graph, options(folder)).unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let status = handle.status();
        assert!(!matches!(status.state, JobState::Failed), "{status:?}");
        all.extend(out.take());
        std::thread::yield_now();
    }
    handle.cancel();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
    all.extend(out.take());
    all.sort();
    all
}

#[test]
fn a_followed_file_is_read_once_over_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.log");
    append(&path, "one\ntwo\nthr");
    let out = Collect::default();
    let graph = || {
        let job = Job::new("follow");
        job.source("lines", file::lines(&path).follow()).sink("out", out.clone());
        job.build().unwrap()
    };
    assert_eq!(run_until(graph(), folder.path(), &out, 2), ["one", "two"], "half a line is none");
    append(&path, "ee\nfour\nfi");
    assert_eq!(run_until(graph(), folder.path(), &out, 2), ["four", "three"]);
    append(&path, "ve\n");
    assert_eq!(run_until(graph(), folder.path(), &out, 1), ["five"]);
}

#[test]
fn a_followed_file_that_is_cut_fails_the_job_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.log");
    append(&path, "one\ntwo\n");
    let out = Collect::default();
    let job = Job::new("cut");
    job.source("lines", file::lines(&path).follow()).sink("out", out.clone());
    let handle = spawn(job.build().unwrap(), options(folder.path())).unwrap();
    while out.take().is_empty() {
        std::thread::yield_now();
    }
    fs::write(&path, "").unwrap();
    let error = handle.wait().unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains("input.log was cut to 0 bytes, of which 8 had been read"), "{text}");
    assert_eq!(error.code(), "JOB0001", "the code of the failure, not of having given up");
    assert_eq!(handle.status().restarts, 0, "no restart mends it");
}

#[derive(Deserialize)]
struct Click {
    page: String,
}

#[test]
fn files_that_appear_between_two_runs_are_read_by_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let click = |page: &str| format!("{{\"page\":\"{page}\"}}\n");
    append(&folder.path().join("a.jsonl"), &(click("/a") + &click("/b")));
    append(&folder.path().join("c.jsonl"), &click("/c"));
    let out = Collect::default();
    let graph = |follow: bool| {
        let clicks = file::json_lines::<Click>(file::glob(format!("{}/*.jsonl", folder.path().display())));
        let job = Job::new("clicks");
        let clicks = if follow { clicks.follow() } else { clicks };
        job.source("clicks", clicks).map(|click: Click| click.page).sink("out", out.clone());
        job.build().unwrap()
    };
    assert_eq!(run_until(graph(true), folder.path(), &out, 3), ["/a", "/b", "/c"]);
    append(&folder.path().join("b.jsonl"), &click("/new"));
    append(&folder.path().join("a.jsonl"), &click("/more"));
    let handle = spawn(graph(false), options(folder.path())).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    let mut rest = out.take();
    rest.sort();
    assert_eq!(rest, ["/more", "/new"]);
}

#[test]
fn a_socket_is_read_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sender = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        for n in 0..10_000 {
            writeln!(stream, "line {n}").unwrap();
        }
    });
    let out = Collect::default();
    let job = Job::new("socket");
    job.source("lines", file::socket_lines(address)).sink("out", out.clone());
    let handle = spawn(job.build().unwrap(), options(folder.path())).unwrap();
    assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
    sender.join().unwrap();
    let expected: Vec<_> = (0..10_000).map(|n| format!("line {n}")).collect();
    assert_eq!(out.take(), expected);
}
