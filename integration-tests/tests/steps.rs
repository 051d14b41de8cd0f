//! A real process that is killed right before each of its named durable steps, and started again.
//!
//! A step of the checkpoint folder has its own name, one of the savepoint's folder begins with `savepoint.`, one of the
//! sink with `file.`; `savepoint.copy-file` and `savepoint.create` are those of the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cutwater::storage::{FileStep, MemoryStore, Step};
use cutwater::{OpenCheckpointError, copy_savepoint, open_checkpoint, read_savepoint, store_at};
use cutwater_integration_tests::{Ended, Log, Process, assert_same_output, cutwater};
use tempfile::TempDir;

/// How the job takes its checkpoints; the same for all runs of one folder.
const VARIANTS: [&str; 3] = ["", "--deltas", "--max-concurrent 2"];
const SIGKILL: i32 = 9;
/// How often a death may come too late: the number of checkpoints differs from run to run.
const TRIES: u32 = 20;

/// How often each step was taken.
type Counts = BTreeMap<String, u64>;

/// A folder with all that belongs to one job.
struct Stepped {
    folder: TempDir,
    variant: &'static str,
}

impl Stepped {
    fn new(variant: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made"), variant }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, options: &str) -> Ended {
        self.run_in("out", "checkpoints", &format!("--savepoints savepoints {options}"))
    }

    fn run_in(&self, out: &str, checkpoints: &str, options: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepped-job"));
        command.current_dir(self.folder.path()).args(["--out", out, "--checkpoints", checkpoints]);
        command.args(options.split_whitespace()).args(self.variant.split_whitespace());
        Process::start(&mut command, self.folder.path()).wait()
    }

    /// The published files by name; hidden ones too.
    fn files(&self, out: &str) -> BTreeMap<String, String> {
        let names = names(&self.path(out).join("lines")).into_iter();
        let read = |name: String| {
            let text = fs::read_to_string(self.path(out).join("lines").join(&name));
            (name, text.expect("the process is gone, and its files are text"))
        };
        names.map(read).collect()
    }

    /// What holds after a run that came to its end, whatever happened before.
    fn assert_finished(&self, expected: &[u8], what: &str) {
        let files = self.files("out");
        let hidden: Vec<_> = files.keys().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{what}: {hidden:?} stay in the output folder");
        assert_same_output(&sorted(files.values()), expected, what);
        let job = self.path("checkpoints/stepped");
        assert!(Log::read(&job).finished(), "{what}: the log does not say that the job has finished");
        for folder in ["", "log", "chk", "boundary"] {
            let hidden = names(&job.join(folder)).into_iter().find(|name| name.starts_with('.'));
            assert_eq!(hidden, None, "{what}: stays in {folder} of the checkpoint folder");
        }
        let verified = cutwater(self.folder.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
    }

    /// The savepoints that are there, each checked whole. What is no savepoint says so.
    fn savepoints(&self, what: &str) -> Vec<PathBuf> {
        let mut whole = Vec::new();
        for name in names(&self.path("savepoints")) {
            let path = self.path("savepoints").join(name);
            let text = path.to_str().expect("our names are UTF-8");
            match open_checkpoint(text) {
                Ok((_, store)) => {
                    let savepoint = read_savepoint(store.as_ref()).expect("it was just read").expect("it was there");
                    copy_savepoint(&savepoint, store.as_ref(), &MemoryStore::new())
                        .unwrap_or_else(|error| panic!("{what}: {text} is half a savepoint: {error}"));
                    whole.push(path);
                }
                Err(OpenCheckpointError::NoLog { .. }) => {}
                Err(error) => panic!("{what}: {text} is neither a savepoint nor none: {error}"),
            }
        }
        whole
    }

    /// What starts from a savepoint publishes what the job had not published up to it.
    fn assert_restores(&self, savepoint: &Path, expected: &[u8], what: &str) {
        let store = store_at(savepoint.to_str().expect("our names are UTF-8")).expect("a path");
        let made = read_savepoint(store.as_ref()).expect("it can be read").expect("it is there").checkpoint;
        let options = format!("--from {}", savepoint.display());
        drop(self.run_in("out-from", "checkpoints-from", &options).with_code(0));
        let rest = self.files("out-from");
        let upto = (made.epoch.0, made.checkpoint.0);
        let before = self.files("out").into_iter().filter(|(name, _)| epoch_and_checkpoint(name) <= upto);
        let all: Vec<String> = before.map(|(_, text)| text).chain(rest.into_values()).collect();
        assert_same_output(&sorted(all.iter()), expected, &format!("{what}, from {}", savepoint.display()));
    }
}

/// Those of a published file, which is named `lines-<subtask>-<epoch>-<attempt>-<checkpoint>.txt`.
fn epoch_and_checkpoint(name: &str) -> (u64, u64) {
    let numbers = name.trim_end_matches(".txt").split('-').skip(1).map(str::parse);
    match numbers.collect::<Result<Vec<u64>, _>>().as_deref() {
        Ok(&[_, epoch, _, checkpoint]) => (epoch, checkpoint),
        _ => panic!("{name} is not the name of a published file"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("the folder is ours").file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("our names are UTF-8")).collect();
    names.sort_unstable();
    names
}

fn sorted<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<u8> {
    let mut lines: Vec<&str> = texts.flat_map(|text| text.split_inclusive('\n')).collect();
    lines.sort_unstable();
    lines.concat().into_bytes()
}

fn counts(ended: &Ended) -> Counts {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error} in {ended}"))
}

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
