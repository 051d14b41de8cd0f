//! Generated worlds: no seed breaks a rule, the same seed does the same, and planted errors are found.
//!
//! In release builds the budget is that of CI; in debug builds it is small, so that a plain `cargo test` stays quick.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cutwater_simulation::{Mark, Mutant, Report, Simulation, Tape};

const RELEASE: bool = !cfg!(debug_assertions);
const SEEDS: u64 = if RELEASE { 50_000 } else { 300 };
/// By how many seeds each planted error must be found.
const MUTANT_SEEDS: u64 = 20_000;
/// Set for the other process that runs the same seeds.
const CHILD: &str = "SIMULATED_IN_ANOTHER_PROCESS";

/// Each name under which somebody changes disk or store: a world may die right before it.
const STEPS: [&str; 27] = [
    "file.create",
    "file.create-folder",
    "file.link",
    "file.sync",
    "file.sync-folder",
    "file.unlink",
    "file.write",
    "local.create.link",
    "local.create.open",
    "local.create.sync",
    "local.create.sync-earlier",
    "local.create.sync-folder",
    "local.create.unlink",
    "local.create.write",
    "local.delete",
    "local.folder.create",
    "local.folder.sync-parent",
    "native.import-file",
    "native.store-file",
    "native.store-index",
    "object.create-boundary",
    "object.create-record",
    "object.delete",
    "object.put-snapshot",
    "savepoint.copy-file",
    "savepoint.create",
    "tier.apply",
];

const FAULTS: [&str; 29] = [
    "cancel",
    "corrupt_read",
    "disk_error",
    "drain",
    "file_lost",
    "from_savepoint",
    "kill",
    "kill_at_step",
    "message_lost",
    "message_twice",
    "pause",
    "power_loss",
    "power_loss_at_step",
    "request",
    "restore_fails",
    "savepoint",
    "second_process",
    "stale_list",
    "stop",
    "store_answer_lost",
    "store_fails",
    "store_late",
    "store_outage",
    "task_panic",
    "tier_read",
    "tier_stall",
    "tier_write",
    "upload_stall",
    "user_error",
];

fn run() -> Report {
    Simulation::generated().run_seeds(0..SEEDS, 1)
}

fn other_process() -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "seeds_break_no_rule_and_do_the_same_again", "--nocapture"])
        .env(CHILD, "1")
        .env("MALLOC_PERTURB_", "85") // other bytes in fresh memory, beside the other addresses
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn seeds_break_no_rule_and_do_the_same_again() {
    if env::var_os(CHILD).is_some() {
        println!("hash {:016x}", run().hash);
        return;
    }
    let child = other_process();
    let report = run();
    println!("{} seeds, {} steps, {} checkpoints", report.seeds, report.steps, report.checkpoints);
    if let Some(failure) = report.failures.first() {
        let small = Simulation::generated().shrink(Simulation::generated().run_tape(&failure.tape, false));
        let trace = Simulation::generated().run_tape(&small.tape, true).trace.unwrap().list();
        panic!("seed {}: {:?}\n{trace}", failure.seed, failure.violation);
    }
    assert_eq!(run().hash, report.hash, "the same seeds did something else when they ran again");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("hash {:016x}", report.hash)), "another process did something else: {said}");

    for mark in Mark::ALL {
        println!("{:>10}  {}", report.marks.count(*mark), mark.name());
    }
    for (step, (taken, died)) in report.marks.steps() {
        println!("{taken:>10}  {step}, somebody died there {died} times");
    }
    for (fault, count) in report.marks.faults() {
        println!("{count:>10}  fault {fault}");
    }
    if RELEASE {
        let missing: Vec<_> = report.marks.missing().into_iter().map(Mark::name).collect();
        assert!(missing.is_empty(), "the seeds never reached: {missing:?}");
        assert!(Mark::ALL.len() >= 50);
        for step in STEPS {
            let (taken, died) = report.marks.steps().get(step).copied().unwrap_or_default();
            assert!(taken > 0 && died > 0, "{step}: taken {taken} times, somebody died there {died} times");
        }
        assert!(report.marks.steps().keys().all(|step| STEPS.contains(step)), "{:?}", report.marks.steps());
        for fault in FAULTS {
            assert!(report.marks.faults().contains_key(fault), "{fault} never struck");
        }
    }
}

#[test]
fn each_planted_error_is_found() {
    assert!(Mutant::ALL.len() >= 20);
    // Some need many seeds: those are for the release build.
    let some = if RELEASE { Mutant::ALL.len() } else { 6 };
    for &mutant in &Mutant::ALL[..some] {
        let simulation = Simulation::generated().with_mutant(Some(mutant));
        let failure = simulation.first_failure(0..MUTANT_SEEDS, 1);
        let Some(failure) = failure else { panic!("{} is not found by {MUTANT_SEEDS} seeds", mutant.name()) };
        println!("{:<24} {:?} at seed {}", mutant.name(), failure.violation.rule, failure.seed);
        // It is the planted error, not one that is there without it.
        let alone = Simulation::generated().run_seed(failure.seed, false);
        assert_eq!(alone.violation, None, "{}: seed {} fails without it too", mutant.name(), failure.seed);
    }
}

#[test]
fn errors_that_were_found_stay_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut tapes = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let tape: Tape = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let run = Simulation::generated().run_tape(&tape, false);
        assert_eq!(run.violation, None, "{}", path.display());
        tapes += 1;
    }
    assert!(tapes >= 5, "only {tapes} tapes");
}

#[test]
fn a_tape_is_read_back_as_it_was_written() {
    let run = Simulation::generated().run_seed(11, false);
    let text = serde_json::to_string(&run.tape).unwrap();
    let tape: Tape = serde_json::from_str(&text).unwrap();
    assert_eq!(tape, run.tape);
    assert_eq!(Simulation::generated().run_tape(&tape, true).hash, run.hash, "with a trace it does the same");
    for damaged in ["\"0*99999999999\"", "\"1 x\"", "\"-1\""] {
        let start = text.find("\"decisions\":").unwrap() + "\"decisions\":".len();
        let end = start + 1 + text[start + 1..].find('"').unwrap() + 1;
        let text = format!("{}{damaged}{}", &text[..start], &text[end..]);
        assert!(serde_json::from_str::<Tape>(&text).unwrap_err().to_string().contains("decision"), "{damaged}");
    }
}
