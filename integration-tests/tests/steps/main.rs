//! A real process that is killed right before each of its named durable steps, and started again.
//!
//! A step of the checkpoint folder has its own name, one of the savepoint's folder begins with `savepoint.`, one of the
//! sink with `file.`; `savepoint.copy-file` and `savepoint.create` are those of the simulation.

#[cfg(feature = "rocksdb")]
mod rocksdb;
mod stepped;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cutwater::storage::{FileStep, Step};
use cutwater_integration_tests::{Ended, assert_same_output};

use crate::stepped::{Counts, Stepped, counts, sorted};

/// How the job takes its checkpoints; the same for all runs of one folder.
const VARIANTS: [&str; 3] = ["", "--deltas", "--max-concurrent 2"];
const SIGKILL: i32 = 9;
/// How often a death may come too late: the number of checkpoints differs from run to run.
const TRIES: u32 = 20;

/// The output and the steps of runs that nobody disturbs, by variant.
fn undisturbed() -> (Vec<u8>, Vec<Counts>) {
    let runs = VARIANTS.map(|variant| {
        let stepped = Stepped::new(variant);
        let counts = counts(&stepped.run("").with_code(0));
        let output = sorted(stepped.files("out").values());
        stepped.assert_finished(&output, variant);
        let savepoints = stepped.savepoints(variant);
        assert_eq!(savepoints.len(), 1, "{variant}");
        stepped.assert_restores(&savepoints[0], &output, variant);
        (output, counts)
    });
    let [(output, _), ..] = &runs;
    assert!(output.split(|byte| *byte == b'\n').count() > 9_000, "the job writes too little to prove anything");
    for (variant, (other, _)) in VARIANTS.iter().zip(&runs) {
        assert_same_output(other, output, variant);
    }
    (output.clone(), runs.into_iter().map(|(_, counts)| counts).collect())
}

/// The names of all steps. A savepoint is deleted only if it is claimed.
fn all_steps() -> BTreeSet<String> {
    let of_savepoint = Step::ALL.iter().filter(|step| **step != Step::Delete).map(|step| format!("savepoint.{step}"));
    let of_copy = ["savepoint.copy-file", "savepoint.create"].map(str::to_owned);
    let of_sink = FileStep::ALL.iter().map(ToString::to_string);
    Step::ALL.iter().map(ToString::to_string).chain(of_savepoint).chain(of_copy).chain(of_sink).collect()
}

/// One death and what follows.
struct Case {
    step: String,
    /// Of all times that the step is taken: 0 the first, 3 the last, 1 and 2 in between.
    third: u64,
    /// An index of [`VARIANTS`].
    variant: usize,
}

impl Case {
    fn all(counts: &[Counts]) -> Vec<Self> {
        let steps = all_steps();
        let mut cases = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let mut seen = BTreeSet::new();
            for third in 0..4 {
                let variant = (at + third as usize) % VARIANTS.len();
                let taken = counts[variant].get(&step).copied().unwrap_or(0);
                assert!(taken > 0, "{step} never comes with {:?}: {counts:?}", VARIANTS[variant]);
                // A step that comes once or twice is not died at four times at the same place.
                if seen.insert((variant, number(third, taken))) {
                    cases.push(Self { step: step.clone(), third, variant });
                }
            }
        }
        cases
    }

    /// Dies at the step. A run may have fewer of them than the undisturbed one: then it is no test, and the next aims at
    /// its own last one.
    fn die(&self, counted: u64) -> (Stepped, u64, Ended) {
        let mut taken = counted;
        for _ in 0..TRIES {
            let stepped = Stepped::new(VARIANTS[self.variant]);
            let number = number(self.third, taken);
            let ended = stepped.run(&format!("--die {}:{number}", self.step));
            if ended.code.is_none() {
                return (stepped, number, ended);
            }
            taken = counts(&ended.with_code(0)).get(&self.step).copied().unwrap_or(1).min(taken.max(2) - 1);
        }
        panic!("{} always ends before it can die at its step {} of {counted}", VARIANTS[self.variant], self.step);
    }

    /// Whether there was a savepoint when the process died.
    fn run(&self, counted: u64, expected: &[u8]) -> bool {
        let (stepped, number, dead) = self.die(counted);
        let what = format!("{:?}, {} number {number} of {counted}", stepped.variant, self.step);
        assert_eq!(dead.signal, Some(SIGKILL), "{what}: {dead}");
        assert!(dead.stderr.contains(&format!("dies before {} number {number}, ", self.step)), "{what}: {dead}");
        let before = stepped.savepoints(&what);

        drop(stepped.run("").with_code(0));
        stepped.assert_finished(expected, &what);
        let after = stepped.savepoints(&what);
        assert!(before.iter().all(|savepoint| after.contains(savepoint)), "{what}: a savepoint is gone");
        if self.step.starts_with("savepoint.") {
            before.iter().for_each(|savepoint| stepped.assert_restores(savepoint, expected, &what));
        }
        !before.is_empty()
    }
}

/// Which number of `taken` the case dies at.
fn number(third: u64, taken: u64) -> u64 {
    1 + (taken - 1) * third / 3
}

#[test]
fn a_process_killed_before_any_durable_step_leaves_no_trace_in_the_output() {
    let (expected, counts) = undisturbed();
    let cases = Case::all(&counts);
    let (next, with_savepoint) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<bool, u32>::new()));
    // Two at a time: most of a run is waiting for the disk.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let saved = case.run(counts[case.variant][&case.step], &expected);
                    *with_savepoint.lock().expect("no case panics with it").entry(saved).or_default() += 1;
                }
            });
        }
    });
    let with_savepoint = with_savepoint.into_inner().expect("no case panics with it");
    println!("{} deaths at {} steps; a savepoint was there: {with_savepoint:?}", cases.len(), all_steps().len());
    assert!(with_savepoint.len() == 2, "no death before, or none after a savepoint was made");
}
