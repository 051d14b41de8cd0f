//! State in RocksDB, with its files in a bucket: of MinIO, since what differs between stores is below.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use cutwater_coordinator::{checkpoint_of_snapshot, native_number};
use cutwater_integration_tests::{
    BUCKET, Ended, Flights, Kind, Log, Rng, Server, assert_same_output, side_by_side, small_csv, tell,
};

use crate::stepped::{Counts, Stepped, counts};
use crate::steps::Left;
use crate::{Env, SEED, cutwater, flights};

const SIGKILL: i32 = 9;
/// So many processes at a time: most of each is waiting.
const AT_ONCE: usize = 3;
/// How often a death may come too late: the number of checkpoints differs from run to run.
const TRIES: u64 = 10;

/// With the least buffers there are, and with all files of checkpoints as objects.
const CONFIG: &str = "
state.backend.type: rocksdb
state.backend.rocksdb.localdir: state
cutwater.rocksdb:
  overlay: 1 mb
  block-cache: 1 mb
  write-buffers: 1 mb
execution.checkpointing:
  incremental: true
  data-inline-threshold: 0
";
/// Lasts for one and a half seconds.
const PACED: &str = "--data flights.csv --interval 40ms --pace 12000";
/// Lasts for nine, so that it is stopped long before its end, on a machine that has much to do as well.
const SLOW: &str = "--data flights.csv --interval 40ms --pace 2000";

fn folder() -> Flights {
    static DATA: OnceLock<String> = OnceLock::new();
    let folder = Flights::with_data(DATA.get_or_init(|| small_csv(18_000)));
    folder.write("cutwater.yaml", CONFIG);
    folder
}

fn reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let flights = folder();
        drop(flights.run("--backend hashmap").with_code(0));
        flights.output()
    })
}

/// What lies in the bucket is what the newest checkpoint names, and all of it is whole. `before`: what there was when the last
/// process was started, if others were killed.
fn assert_whole(server: &Server, env: &Env, job: &str, before: Option<&Left>, what: &str) {
    let verified = cutwater(&Flights::new(), env, &format!("checkpoints verify s3://{BUCKET}/{job}"));
    assert_eq!(verified.code, Some(0), "{what}: {verified}");
    let log = Log::read_in(&server.storage(job));
    assert!(log.finished(), "{what}");
    let newest = log.newest().expect("it has finished");
    let named: BTreeSet<String> = newest.stored_files().map(|file| format!("{job}/{}", file.name)).collect();
    let mut left = Left::of_job(server, job);
    if let Some(before) = before {
        left = left.but_late(before, newest.epoch, what);
    }
    assert_eq!(left.files, named, "{what}");
    assert_eq!(left.notes, [""; 0], "{what}");
    // Whoever died between the beginning of an upload and its note has sent no part yet.
    assert!(left.uploads.iter().all(Vec::is_empty), "{what}: {:?}", left.uploads);
}

const KILLS: usize = 12;

#[test]
fn kills_of_a_job_with_files_of_rocksdb_in_a_bucket_leave_no_trace_in_the_output() {
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let (resumed, shared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    side_by_side(AT_ONCE, KILLS, |index| {
        let mut rng = Rng::new(SEED ^ index as u64);
        let below = format!("rocksdb-{index}");
        let job = format!("{below}/flights");
        let folder = folder();
        let moment = Duration::from_secs_f64(0.2 + 1.4 * (index as f64 + rng.fraction()) / KILLS as f64);
        let what = format!("kill {index} after {moment:?}");
        let mut parallelism = 1 + index % 2;
        // Every third is killed once more. A run that was over before the kill is checked like the others.
        let again = index.is_multiple_of(3).then(|| Duration::from_secs_f64(0.1 + 0.6 * rng.fraction()));
        for moment in [Some(moment), again].into_iter().flatten() {
            drop(flights(&folder, &env, &below, &format!("{PACED} --parallelism {parallelism}")).kill_at(moment));
            parallelism = 1 + (parallelism + index / 2) % 3;
        }
        let log = Log::read_in(&server.storage(&job));
        if let Some(newest) = log.newest() {
            let of_earlier = newest.files().filter(|file| checkpoint_of_snapshot(&file.name) < Some(newest.checkpoint));
            shared.fetch_add(of_earlier.count().min(1), Ordering::Relaxed);
            assert!(newest.files().any(|file| native_number(&file.name).is_some()), "{what}: no files of RocksDB");
        }
        // All that is of the job lies in the store, but for its output: it goes on from another folder.
        let (folder, before) = (folder.copy(), Left::of_job(&server, &job));
        let ended = flights(&folder, &env, &below, &format!("{PACED} --parallelism {parallelism}")).wait().with_code(0);
        resumed.fetch_add(usize::from(ended.stderr.contains("resumes from checkpoint")), Ordering::Relaxed);
        assert_same_output(&folder.output(), reference(), &what);
        assert_eq!(folder.unpublished(), [""; 0], "{what}");
        let ended = flights(&folder, &env, &below, PACED).wait().with_code(0);
        assert!(ended.stdout.starts_with("finished already"), "{what}: {ended}");
        assert_whole(&server, &env, &job, Some(&before), &what);
    });
    let (resumed, shared) = (resumed.into_inner(), shared.into_inner());
    tell(&format!("{resumed} of {KILLS} went on from a checkpoint, of which {shared} had files of earlier ones"));
    assert!(resumed >= KILLS / 2 && shared >= KILLS / 4, "{resumed} resumed, {shared} with shared files");
}

/// The job stops with a savepoint, in which form the options say.
fn savepoint(server: &Server, env: &Env, below: &str, options: &str) -> (Flights, String) {
    let folder = folder();
    let options = format!("{SLOW} --parallelism 2 --savepoints s3://{BUCKET}/{below}-savepoints {options}");
    let mut process = flights(&folder, env, below, &options);
    let store = server.storage(&format!("{below}/flights"));
    process.wait_until("checkpoints", |_| Log::read_in(&store).completed().count() >= 4);
    process.signal("TERM");
    let ended = process.wait().with_code(0);
    let told = ended.stdout.lines().find_map(|line| line.strip_prefix("stopped with savepoint "));
    let savepoint = told.and_then(|told| told.split(';').next()).unwrap_or_else(|| panic!("{options}: {ended}"));
    // It is whole without the checkpoints.
    let of_job = |name: &&String| name.starts_with(&format!("{below}/"));
    server.objects().iter().filter(of_job).for_each(|name| server.delete_object(name));
    let verified = cutwater(&folder, env, &format!("savepoint verify {savepoint}"));
    assert_eq!(verified.code, Some(0), "{options}: {verified}");
    (folder, savepoint.to_owned())
}

#[test]
fn savepoints_in_a_bucket_go_from_rocksdb_to_rocksdb_and_canonical_ones_to_memory_too() {
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let made = Mutex::new(vec![None, None]);
    side_by_side(AT_ONCE, 2, |index| {
        let (below, options) = [("canonical", ""), ("native", "--native")][index];
        let savepoint = savepoint(&server, &env, below, options);
        made.lock().expect("no panic while it is held")[index] = Some(savepoint);
    });
    let made = made.into_inner().expect("nobody has it");
    let cases = [
        (0, "hashmap", 3),
        (0, "rocksdb", 1),
        (0, "rocksdb", 2),
        (1, "rocksdb", 3),
        (1, "rocksdb", 2),
        (1, "hashmap", 2),
    ];
    side_by_side(AT_ONCE, cases.len(), |index| {
        let (form, backend, parallelism) = cases[index];
        let (folder, savepoint) = made[form].as_ref().expect("it was made");
        let what = format!("{savepoint}, with {backend} at parallelism {parallelism}");
        let folder = folder.copy();
        let before = folder.published();
        let (below, job) = (format!("restored-{index}"), format!("restored-{index}/flights"));
        let options = format!("{PACED} --from {savepoint} --backend {backend} --parallelism {parallelism}");
        let ended = flights(&folder, &env, &below, &options).wait();
        if (form, backend) == (1, "hashmap") {
            let said = ["it holds files in the form of the backend rocksdb", "state.backend.type: rocksdb"];
            let ended = ended.with_code(4).saying(&said);
            assert!(folder.published() == before, "{what}: a start that was refused has changed the output: {ended}");
            return;
        }
        let ended = ended.with_code(0).saying(&["resumes from checkpoint"]);
        assert_same_output(&folder.output(), reference(), &format!("{what}: {ended}"));
        assert_eq!(folder.unpublished(), [""; 0], "{what}");
        assert_whole(&server, &env, &job, None, &what);
    });
}

// ---- killed at each step

/// In each run one checkpoint comes to nothing when nearly all of it is stored.
const OPTIONS: &str = "--rocksdb state --deltas --pause 8 --tolerate 1000 --fail index.finish:2";
/// With files of more than 8 MiB, which go in parts; one of them fails.
const LARGE: &str = "--rocksdb state --deltas --pause 3 --tolerate 1000 --ballast 75000 --fail object.upload.part:3";
/// Of files in parts.
const OF_PARTS: [&str; 4] =
    ["object.upload.begin", "object.upload.note", "object.upload.part", "object.upload.complete"];
/// Of RocksDB's files on their way into the bucket, and of the one that says which they are.
const OF_FILES: [&str; 9] = [
    "rocksdb.image.make",
    "native.begin",
    "native.write",
    "native.finish",
    "native.delete",
    "index.begin",
    "index.write",
    "index.finish",
    "index.delete",
];
/// Processes that die with some checkpoints in the bucket.
const TWO: &str = "--parallelism 2 --die rocksdb.image.make:6";
const ONE: &str = "--parallelism 1 --die rocksdb.image.make:3";
/// Of those that begin from files in the bucket.
const OF_RESTORE: [&str; 3] = ["rocksdb.import.fetch", "rocksdb.open", "rocksdb.import.take-over"];

struct Death {
    options: &'static str,
    /// A first process dies here, with some checkpoints in the bucket.
    before: Option<&'static str>,
    step: &'static str,
    number: u64,
    /// Milliseconds from the beginning of the step; 0 for right before it.
    after: &'static str,
    parallelism: usize,
}

impl Death {
    /// A run may have fewer such steps than the undisturbed one: then it is no test, and the next aims at an earlier one.
    fn die<'a>(&self, env: &'a Env, below: &str) -> (Stepped<'a>, String, Ended) {
        let mut number = self.number;
        for attempt in 0..TRIES {
            let stepped = Stepped::new(env, format!("{below}-{attempt}"), self.options);
            if let Some(before) = self.before {
                assert_eq!(stepped.run(before).signal, Some(SIGKILL), "{before}");
            }
            let moment = format!("--die {}:{number}+{} --parallelism {}", self.step, self.after, self.parallelism);
            let ended = stepped.run(&moment);
            if ended.code.is_none() {
                return (stepped, moment, ended);
            }
            let last = counts(&ended.with_code(0)).get(self.step).copied().unwrap_or(1);
            number = last.min(number.max(2) - 1);
        }
        panic!("always ends before it can die at {}", self.step);
    }

    fn run(&self, server: &Server, env: &Env, index: usize, expected: &[u8]) {
        let (stepped, moment, dead) = self.die(env, &format!("rocksdb-steps-{index}"));
        let parallelism = 1 + index % 3;
        let what = format!("{:?}, {moment}, then at parallelism {parallelism}", self.before);
        assert_eq!(dead.signal, Some(SIGKILL), "{what}: {dead}");
        let over = Log::read_in(&server.storage(&stepped.job())).finished();
        let before = Left::of_job(server, &stepped.job());
        let stepped = stepped.moved();
        drop(stepped.run(&format!("--parallelism {parallelism}")).with_code(0));
        assert_same_output(&stepped.output(), expected, &what);
        assert_eq!(stepped.unpublished(), [""; 0], "{what}");
        drop(stepped.run("").with_code(0));
        // A job that had finished is not started again: what it was about to delete stays.
        if !over {
            assert_whole(server, env, &stepped.job(), Some(&before), &what);
        } else {
            let verified =
                cutwater(&Flights::new(), env, &format!("checkpoints verify s3://{BUCKET}/{}", stepped.job()));
            assert_eq!(verified.code, Some(0), "{what}: {verified}");
        }
    }
}

/// The output of a run that nobody disturbs, and its steps.
fn undisturbed(env: &Env, below: &str, options: &'static str) -> (Vec<u8>, Counts) {
    let stepped = Stepped::new(env, below, options);
    let counts = counts(&stepped.run("").with_code(0));
    let output = stepped.output();
    assert!(output.split(|byte| *byte == b'\n').count() > 9_000, "the job writes too little to prove anything");
    (output, counts)
}

#[test]
fn a_process_killed_at_any_step_of_a_file_of_rocksdb_leaves_no_trace_in_the_output_and_nothing_in_the_bucket() {
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let (output, counts) = undisturbed(&env, "undisturbed", OPTIONS);
    let (large, large_counts) = undisturbed(&env, "undisturbed-large", LARGE);
    let mut cases = Vec::new();
    let taken =
        |counts: &Counts, step| counts.get(step).copied().unwrap_or_else(|| panic!("{step} never comes: {counts:?}"));
    for (at, step) in OF_PARTS.into_iter().enumerate() {
        let (number, after) = (taken(&large_counts, step).div_ceil(2), ["0", "1"][at % 2]);
        cases.push(Death { options: LARGE, before: None, step, number, after, parallelism: 2 });
    }
    let mut case = |(before, parallelism), step, number, after| {
        cases.push(Death { options: OPTIONS, before, step, number, after, parallelism });
    };
    let anew = (None, 2);
    for step in OF_FILES {
        case(anew, step, taken(&counts, step).div_ceil(3), "0");
        case(anew, step, taken(&counts, step).div_ceil(2), "1");
    }
    for step in OF_RESTORE {
        for (number, after) in [(1, "0"), (2, "0"), (2, "0.5")] {
            // The files of several are taken over by one.
            let before = match (step, number) {
                ("rocksdb.import.take-over", _) => (Some(TWO), 1),
                (_, 1) => (Some(ONE), 2),
                (..) => (Some(TWO), 2),
            };
            case(before, step, number, after);
        }
    }
    side_by_side(AT_ONCE, cases.len(), |index| {
        let case = &cases[index];
        case.run(&server, &env, index, if case.options == LARGE { &large } else { &output });
    });
    tell(&format!("{} deaths", cases.len()));
}

/// What a checkpoint had stored that fails is deleted by the run itself: there is no start after it.
#[test]
fn a_checkpoint_of_files_of_rocksdb_that_fails_leaves_nothing_in_the_bucket() {
    const PLAIN: &str = "--rocksdb state --deltas --pause 8 --tolerate 1000";
    const PLAIN_LARGE: &str = "--rocksdb state --deltas --pause 3 --tolerate 1000 --ballast 75000";
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let small = OF_FILES.iter().filter(|step| !step.ends_with(".delete")).map(|step| (PLAIN, *step, 3));
    let large = ["object.upload.part", "object.upload.complete"].map(|step| (PLAIN_LARGE, step, 2));
    let cases: Vec<_> = small.chain(large).collect();
    side_by_side(AT_ONCE, cases.len(), |index| {
        let (options, step, number) = cases[index];
        let stepped = Stepped::new(&env, format!("fails-{index}"), options);
        let what = format!("{step} number {number} fails");
        let ended = stepped.run(&format!("--fail {step}:{number}")).with_code(0);
        assert!(counts(&ended).get(step) >= Some(&number), "{what}: it never comes");
        assert_eq!(stepped.unpublished(), [""; 0], "{what}");
        assert_whole(&server, &env, &stepped.job(), None, &what);
    });
}
