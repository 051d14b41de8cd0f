//! The real binary simulates.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::fs;
use std::process::Command;

/// Seeds for the world of the flights example, each of which runs some thousand steps.
const FLIGHTS: &str = if cfg!(debug_assertions) { "20" } else { "2000" };

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn simulate(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_cutwater")).arg("simulate").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn seeds_are_run_counted_and_judged() {
    let ran = simulate(&["--seeds", "40", "--twice"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.starts_with("40 seeds, "), "{}", ran.out);
    assert!(ran.out.contains(", 0 failed\n") && ran.out.contains("local.create.link"), "{}", ran.out);
    let wide: Vec<_> = ran.out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");

    let ran = simulate(&["--seeds", "40", "--threads", "1", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((document["schema"].as_str(), document["seeds"].as_u64()), (Some("cutwater.simulate/1"), Some(40)));
    assert!(document["checkpoints"].as_u64().unwrap() > 40);
    assert!(document["marks"].as_object().unwrap().len() >= 50);

    let ran = simulate(&["--seeds", "2", "--require-marks"]);
    assert_eq!(ran.code, 3, "two seeds do not reach all: {}", ran.out);
}

#[test]
fn a_planted_error_is_found_made_small_and_had_again() {
    let folder = tempfile::tempdir().unwrap();
    let tape = folder.path().join("tape.json");
    let path = tape.to_str().unwrap();
    let ran = simulate(&["--mutant", "no-alignment", "--seeds", "50", "--save", path]);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("Cut is broken"), "{}", ran.out);
    assert!(ran.err.contains("--tape"), "{}", ran.err);

    let ran = simulate(&["--tape", path, "--trace", "--diagram"]);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("triggers checkpoint") && ran.out.contains("store, machine"), "{}", ran.out);
    assert!(ran.out.contains("Cut is broken"), "{}", ran.out);
    assert_eq!(simulate(&["--tape", folder.path().to_str().unwrap()]).code, 3, "a folder of tapes");

    fs::write(&tape, "{}").unwrap();
    let ran = simulate(&["--tape", path]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("tape.json"), "{}", ran.err);
    let ran = simulate(&["--tape", "no/such/tape.json"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    let ran = simulate(&["--mutant", "nonsense"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("no-alignment"), "{}", ran.err);
}

#[test]
fn one_seed_tells_what_happened() {
    let first = simulate(&["--seed", "7"]);
    assert_eq!(first.code, 0, "{}{}", first.out, first.err);
    let traced = simulate(&["--seed", "7", "--trace"]);
    assert!(traced.out.lines().count() > 50, "{}", traced.out);
    assert!(traced.out.ends_with(&first.out), "with a trace it does the same");
}

#[test]
fn the_flights_example_is_a_world() {
    let ran = simulate(&["--world", "flights", "--seeds", FLIGHTS]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    println!("{}", ran.out);
    assert!(ran.out.starts_with(&format!("{FLIGHTS} seeds, ")), "{}", ran.out);
}
