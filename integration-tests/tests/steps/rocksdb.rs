//! The same with state in RocksDB, of which memory holds a small part, and with its files in the checkpoints.
//!
//! Beside RocksDB's own steps there are those of its files on their way into the checkpoint folder, which begin with `native.`,
//! and of the file that says which these are, which begin with `index.`. The process dies right before a step or in its midst.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use cutwater::rocksdb::Step;
use cutwater_integration_tests::{Log, side_by_side, tell};

use crate::stepped::{Counts, Stepped, counts, names, sorted};
use crate::{SIGKILL, TRIES};

/// State in RocksDB; the same with copies on this machine, which are links, and savepoints of RocksDB's files.
const VARIANTS: [&str; 2] =
    ["--rocksdb state --deltas --pause 3", "--rocksdb state --deltas --pause 3 --local copies --native"];
/// All that changes stays in memory until a checkpoint, and is enough for a file.
const LOADS: &str = "--rocksdb state --deltas --pause 3 --ballast 2000 --overlay 16000000";
/// Of files on their way.
const OF_FILES: [&str; 8] = [
    "native.begin",
    "native.write",
    "native.finish",
    "native.delete",
    "index.begin",
    "index.write",
    "index.finish",
    "index.delete",
];
/// What a process does whose snapshots are large.
const OF_LOADS: [Step; 1] = [Step::Load];
/// What a process does that begins from a checkpoint.
const OF_RESTORE: [Step; 7] =
    [Step::SweepHome, Step::Fetch, Step::Open, Step::TakeOver, Step::Copy, Step::Clip, Step::Clean];
/// What one does that begins with nothing.
const OF_RUN: [Step; 8] = [
    Step::MakeHome,
    Step::NameHome,
    Step::Open,
    Step::Write,
    Step::MakeImage,
    Step::RemoveImage,
    Step::Remove,
    Step::RemoveHome,
];

/// Where a process dies.
#[derive(Clone, Debug)]
struct Death {
    step: String,
    number: u64,
    /// Milliseconds from the beginning of the step; 0 for right before it.
    after: &'static str,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}+{}", self.step, self.number, self.after)
    }
}

/// Before the first, a middle and the last of these steps, and in the midst of one.
fn deaths(step: &str, counts: &Counts) -> Vec<Death> {
    let taken = counts.get(step).copied().unwrap_or(0);
    if taken == 0 {
        return Vec::new();
    }
    let numbers: BTreeSet<u64> = [1, taken.div_ceil(2), taken].into_iter().collect();
    let death = |number, after| Death { step: step.to_owned(), number, after };
    let before = numbers.iter().map(|number| death(*number, "0"));
    let midst = numbers.iter().nth(numbers.len() / 2).map(|number| death(*number, "0.4"));
    before.chain(midst).collect()
}

/// Where a process begins.
struct Start {
    name: &'static str,
    /// What a killed one left, or nothing.
    left: Stepped,
    parallelism: u32,
}

impl Start {
    /// The process dies there. A run may have fewer of the steps than the one in which they were counted: then it is no test, and
    /// the next aims at an earlier one.
    fn die(&self, death: &Death) -> Stepped {
        let mut death = death.clone();
        for _ in 0..TRIES {
            let stepped = self.left.copy();
            let ended = stepped.run(&format!("--die {death} --parallelism {}", self.parallelism));
            if ended.code.is_none() {
                assert_eq!(ended.signal, Some(SIGKILL), "{death}: {ended}");
                return stepped;
            }
            let counts = counts(&ended.with_code(0));
            let last = counts.get(&death.step).copied().unwrap_or(1);
            death.number = last.min(death.number.max(2) - 1);
        }
        panic!("{}: always ends before it can die at {death}", self.name);
    }

    fn run(&self, death: &Death, after: u32, expected: &[u8]) {
        let what = format!("{}, {death}, then at parallelism {after}", self.name);
        let stepped = self.die(death);
        let over = Log::read(&stepped.path("checkpoints/stepped")).finished();
        drop(stepped.run(&format!("--parallelism {after}")).with_code(0));
        stepped.assert_finished(expected, &what);
        drop(stepped.savepoints(&what));
        if over {
            // A job that has finished is not started again; whoever uses the folder next clears it up.
            drop(stepped.run_in("other", "others", "").with_code(0));
        }
        assert_eq!(names(&stepped.path("state")), [""; 0], "{what}: databases stay");
        let copies = names(&stepped.path("copies/stepped/chk"));
        assert!(copies.iter().all(|name| !name.starts_with('.')), "{what}: half copies stay: {copies:?}");
    }
}

/// Runs these cases, some at a time: most of a run is waiting for the disk.
fn run(cases: &[(&Start, Death)], expected: &[u8]) {
    let died = Mutex::new(Counts::new());
    side_by_side(3, cases.len(), |index| {
        let (start, death) = &cases[index];
        start.run(death, 1 + u32::try_from(index % 3).expect("below 3"), expected);
        *died.lock().expect("no case panics with it").entry(death.step.clone()).or_default() += 1;
    });
    let died = died.into_inner().expect("no case panics with it");
    tell(&format!("{} deaths: {died:?}", cases.len()));
}

/// The output of a run that nobody disturbs, and how often it takes each step.
fn undisturbed(variant: &'static str) -> (Vec<u8>, Counts) {
    let stepped = Stepped::new(variant);
    let counts = counts(&stepped.run("").with_code(0));
    let output = sorted(stepped.files("out").values());
    assert!(output.split(|byte| *byte == b'\n').count() > 9_000, "the job writes too little to prove anything");
    stepped.assert_finished(&output, variant);
    let savepoints = stepped.savepoints(variant);
    assert_eq!(savepoints.len(), 1, "{variant}");
    stepped.assert_restores(&savepoints[0], &output, variant);
    assert_eq!(names(&stepped.path("state")), [""; 0], "{variant}: databases stay");
    (output, counts)
}

#[test]
fn a_process_killed_at_any_step_of_rocksdb_leaves_no_trace_in_the_output() {
    let runs = VARIANTS.map(undisturbed);
    assert!(runs[0].0 == runs[1].0, "the outputs differ");
    let starts = VARIANTS.map(|variant| Start { name: variant, left: Stepped::new(variant), parallelism: 2 });
    let steps = OF_RUN.iter().map(ToString::to_string).chain(OF_FILES.map(str::to_owned));
    let mut cases = Vec::new();
    for (at, step) in steps.enumerate() {
        let variant = at % VARIANTS.len();
        let deaths = deaths(&step, &runs[variant].1);
        assert!(!deaths.is_empty(), "{step} never comes with {:?}: {:?}", VARIANTS[variant], runs[variant].1);
        cases.extend(deaths.into_iter().map(|death| (&starts[variant], death)));
    }
    run(&cases, &runs[0].0);
}

#[test]
fn a_process_killed_while_a_snapshot_becomes_a_file_of_rocksdb_leaves_no_trace_in_the_output() {
    let (expected, counts) = undisturbed(LOADS);
    let start = Start { name: LOADS, left: Stepped::new(LOADS), parallelism: 2 };
    let deaths: Vec<_> = OF_LOADS.iter().flat_map(|step| deaths(&step.to_string(), &counts)).collect();
    assert!(!deaths.is_empty(), "never a file with {LOADS}: {counts:?}");
    run(&deaths.into_iter().map(|death| (&start, death)).collect::<Vec<_>>(), &expected);
}

/// What is left of a process that died so, with some checkpoints.
fn killed(before: &Stepped, options: &str) -> Stepped {
    for _ in 0..TRIES {
        let stepped = before.copy();
        let ended = stepped.run(options);
        if ended.code.is_none() && Log::read(&stepped.path("checkpoints/stepped")).newest().is_some() {
            return stepped;
        }
    }
    panic!("never dies after a checkpoint: {options}");
}

#[test]
fn a_process_killed_while_it_takes_over_files_of_rocksdb_leaves_no_trace_in_the_output() {
    let (expected, _) = undisturbed(VARIANTS[0]);
    let [plain, near] = VARIANTS.map(Stepped::new);
    let one = killed(&plain, "--parallelism 1 --die rocksdb.image.make:3");
    let two = killed(&plain, "--parallelism 2 --die rocksdb.image.make:6");
    let near = killed(&near, "--parallelism 2 --die rocksdb.image.make:6");
    // Of its files those of one subtask at least reach beyond its key groups.
    let uncut = killed(&one, "--parallelism 3 --fail rocksdb.import.clean:1 --die rocksdb.image.make:4");
    let start = |name, left: &Stepped, parallelism| Start { name, left: left.copy(), parallelism };
    let starts = [
        start("1 to 2", &one, 2),
        start("2 to 2", &two, 2),
        start("2 to 1", &two, 1),
        start("2 to 3", &two, 3),
        start("2 to 2 with copies", &near, 2),
        start("uncut 3 to 2", &uncut, 2),
    ];
    let mut cases = Vec::new();
    for start in &starts {
        let stepped = start.left.copy();
        let counts = counts(&stepped.run(&format!("--parallelism {}", start.parallelism)).with_code(0));
        stepped.assert_finished(&expected, start.name);
        for step in OF_RESTORE {
            cases.extend(deaths(&step.to_string(), &counts).into_iter().map(|death| (start, death)));
        }
    }
    let died: BTreeSet<&str> = cases.iter().map(|(_, death)| death.step.as_str()).collect();
    let all: Vec<_> = OF_RESTORE.iter().map(ToString::to_string).collect();
    let never: Vec<_> = all.iter().map(String::as_str).filter(|step| !died.contains(step)).collect();
    // Entries are copied only where the files are not cleaned up yet, which is done beside.
    assert!(never.iter().all(|step| *step == "rocksdb.import.copy"), "no process takes these steps: {never:?}");
    run(&cases, &expected);
}

#[test]
fn all_steps_are_died_at() {
    let all: BTreeSet<Step> = OF_RUN.into_iter().chain(OF_LOADS).chain(OF_RESTORE).collect();
    assert_eq!(all, Step::ALL.into_iter().collect::<BTreeSet<_>>());
}
