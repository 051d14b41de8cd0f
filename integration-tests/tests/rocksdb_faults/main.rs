//! What goes wrong where the databases of RocksDB lie, under the real `flights` process: a full disk, a folder that can't be, damaged
//! files, other processes in the same folder, checkpoints whose files are not what they were. Each is named with its folder and
//! what to do, and costs nothing but time: the output is that of a run that nobody disturbed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod checkpoints;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use cutwater_integration_tests::{
    Ended, Flights, Mounts, Process, assert_same_output, damage, database_files, database_homes, small_csv,
};

const FLIGHTS: usize = 12_000;
/// Lasts for three seconds, with some checkpoints each 100 ms.
const PACED: &str = "--interval 25ms --pace 4000 --parallelism 2 --config job.yaml";
/// The same job, as fast as it can.
const FAST: &str = "--interval 25ms --parallelism 2 --config job.yaml";

/// With the least buffers there are, so that RocksDB puts what it gets into files at once, and keeps few blocks in memory.
const ROCKSDB: &str = "
state.backend.type: rocksdb
state.backend.rocksdb.localdir: state
cutwater.rocksdb:
  overlay: 1 mb
  block-cache: 1 mb
  write-buffers: 1 mb
";
const NO_RESTART: &str = "restart-strategy.type: none\n";
const RESTART_SOON: &str = "restart-strategy:
  type: fixed-delay
  fixed-delay.delay: 50 ms
  fixed-delay.attempts: 1000
";

fn data() -> &'static str {
    static DATA: OnceLock<String> = OnceLock::new();
    DATA.get_or_init(|| small_csv(FLIGHTS))
}

/// The output of a run that nobody disturbed, with its state in memory.
fn reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let flights = Flights::with_data(data());
        drop(flights.run("--interval 25ms --parallelism 2").with_code(0));
        flights.output()
    })
}

/// The job with its databases in the folder `state`.
fn flights(more: &str) -> Flights {
    let flights = Flights::with_data(data());
    flights.write("job.yaml", format!("{ROCKSDB}{more}"));
    flights
}

fn start_in(mounts: &Mounts, flights: &Flights, options: &str) -> Process {
    Process::start(&mut mounts.enter(&flights.command(options)), flights.path())
}

fn assert_finished(flights: &Flights, ended: &Ended, what: &str) {
    assert_eq!(ended.code, Some(0), "{what}: {ended}");
    assert_same_output(&flights.output(), reference(), what);
}

// ---- a full disk

/// A disk of its own for the databases, large enough for them.
const DISK: &str = "mkdir state; mount -t tmpfs -o size=24m none state";
/// Takes all the room that is left.
const FILL: &str = "head -c 32m /dev/zero >>state/filler 2>/dev/null || true";

#[test]
fn a_full_disk_is_named_and_with_room_the_same_command_resumes() {
    let flights = flights(NO_RESTART);
    let mounts = Mounts::new(flights.path(), DISK);
    let mut process = start_in(&mounts, &flights, PACED);
    process.wait_until("some checkpoints", |_| flights.log().completed().count() >= 5);
    drop(mounts.run(flights.path(), FILL));
    let ended = process.wait();
    assert_eq!(ended.code, Some(3), "{ended}");
    let said = [
        "job flights failed after 0 restarts",
        "No space left on device",
        "state/cutwater-rocksdb-",
        "the disk is full: make room, or put the folder of the state on a larger disk",
        "the same command resumes",
    ];
    let ended = ended.saying(&said);
    let before = flights.published();
    let completed = flights.log().completed().count();
    assert!(completed >= 5 && !before.is_empty() && !flights.log().finished(), "{ended}");
    // Full again, for what it had has gone with it: the same in other words.
    drop(mounts.run(flights.path(), FILL));
    let ended = start_in(&mounts, &flights, FAST).wait();
    let said = ["No space left on device", "state", "the disk is full: make room"];
    assert!(ended.code.is_some_and(|code| code != 0), "{ended}");
    let _ended = ended.saying(&said);
    assert!(flights.published() == before, "a start that failed has changed the output");

    drop(mounts.run(flights.path(), "rm state/filler"));
    let ended = start_in(&mounts, &flights, FAST).wait();
    assert!(ended.stderr.contains("resumes from checkpoint"), "{ended}");
    assert_finished(&flights, &ended, "with room");
    assert!(before.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)), "published output stays");
    assert_eq!(
        database_homes(&mounts.path(&flights.path().join("state"))),
        [] as [PathBuf; 0],
        "all databases are gone"
    );
}

#[test]
fn a_job_that_may_restart_goes_on_by_itself_once_there_is_room() {
    let flights = flights(RESTART_SOON);
    let mounts = Mounts::new(flights.path(), DISK);
    let mut process = start_in(&mounts, &flights, PACED);
    process.wait_until("some checkpoints", |_| flights.log().completed().count() >= 5);
    drop(mounts.run(flights.path(), FILL));
    process.wait_until("restarts", |process| process.stderr().matches("follows").count() >= 2);
    let said = process.stderr();
    for text in ["No space left on device", "state/cutwater-rocksdb-", "the disk is full: make room"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    drop(mounts.run(flights.path(), "rm state/filler"));
    let ended = process.wait();
    assert!(ended.stderr.contains("goes on from checkpoint"), "{ended}");
    assert_finished(&flights, &ended, "with room");
}

// ---- a folder that can't be

#[test]
fn a_folder_that_cant_be_keeps_the_job_from_starting() {
    // Restarts are allowed: they would mend nothing.
    let flights = flights(RESTART_SOON);
    let below_a_file = "state.backend.rocksdb.localdir: flights.csv/state";
    flights.write(
        "job.yaml",
        format!("{ROCKSDB}{RESTART_SOON}").replace("state.backend.rocksdb.localdir: state", below_a_file),
    );
    let ended = flights.run(PACED).with_code(1).saying(&[
        "job flights has not started",
        "make the folder flights.csv/state",
        "Not a directory",
        "state.backend.rocksdb.localdir",
    ]);
    assert!(!ended.stderr.contains("follows"), "{ended}");
    assert!(flights.published().is_empty(), "nothing was begun");
    // Nor is it one where nobody may write: root is stopped by the file system alone.
    flights.write("job.yaml", format!("{ROCKSDB}{RESTART_SOON}"));
    let mounts = Mounts::new(flights.path(), "mkdir state; mount -t tmpfs -o ro none state");
    let ended = start_in(&mounts, &flights, PACED).wait().with_code(1);
    let said = ["job flights has not started", "state", "Read-only file system", "on a disk that can be written"];
    let _ended = ended.saying(&said);
    drop(mounts);
    let ended = flights.run(FAST);
    assert_finished(&flights, &ended, "on a disk that can be written");
}

// ---- damaged files

#[test]
fn a_damaged_file_fails_the_attempt_and_the_next_has_databases_of_its_own() {
    let flights = flights(RESTART_SOON);
    let state = flights.path().join("state");
    let mut process = flights.start(PACED);
    process.wait_until("some checkpoints", |_| flights.log().completed().count() >= 3);
    // Files come and go with each checkpoint: each of the first attempt is damaged once, until one is read.
    let mut damaged = BTreeSet::new();
    process.wait_until("a damaged file being read", |process| {
        for file in database_files(&state, 1) {
            if !damaged.contains(&file) && damage(&file) {
                damaged.insert(file);
            }
        }
        process.stderr().contains("follows")
    });
    let ended = process.wait();
    assert_finished(&flights, &ended, "with new databases");
    let ended = ended.saying(&[
        "block checksum mismatch",
        "the local state is damaged, checkpoints are not",
        "goes on from checkpoint",
    ]);
    let names: Vec<_> =
        damaged.iter().map(|file| file.strip_prefix(flights.path()).unwrap().display().to_string()).collect();
    assert!(names.iter().any(|name| ended.stderr.contains(name.as_str())), "none of {names:?} is named: {ended}");
    assert_eq!(ended.stderr.matches("follows").count(), 1, "one restart was enough: {ended}");
    assert_eq!(database_homes(&state), [] as [PathBuf; 0], "all databases are gone");
}

// ---- other processes

#[test]
fn processes_share_a_folder_and_only_what_the_dead_leave_is_swept() {
    let [living, killed, later] = [(); 3].map(|()| flights(RESTART_SOON));
    let shared = tempfile::tempdir().unwrap();
    for flights in [&living, &killed, &later] {
        let folder = format!("state.backend.rocksdb.localdir: {}", shared.path().display());
        flights.write(
            "job.yaml",
            format!("{ROCKSDB}{RESTART_SOON}").replace("state.backend.rocksdb.localdir: state", &folder),
        );
    }
    fs::create_dir(shared.path().join("of-somebody-else")).unwrap();
    let mut first = living.start("--interval 25ms --pace 100 --parallelism 2 --config job.yaml");
    first.wait_until("its folder", |_| {
        living.log().completed().count() >= 2 && database_homes(shared.path()).len() == 1
    });
    let [home] = &database_homes(shared.path())[..] else { panic!("one process has one folder") };
    let number = fs::metadata(home).unwrap().ino();

    let mut second = killed.start(PACED);
    second.wait_until("its folder", |_| {
        killed.log().completed().count() >= 2 && database_homes(shared.path()).len() == 2
    });
    second.kill();
    let dead: Vec<_> = database_homes(shared.path()).into_iter().filter(|other| other != home).collect();
    assert!(dead.len() == 1 && dead[0].is_dir(), "what is killed can't tidy up");

    let ended = later.run(FAST);
    assert_finished(&later, &ended, "the third");
    first.wait_until("being awake", |_| true);
    assert_eq!(
        database_homes(shared.path()),
        std::slice::from_ref(home),
        "the folder of the dead is swept, the own has gone"
    );
    assert_eq!(fs::metadata(home).unwrap().ino(), number, "it is the same folder");
    // The killed one goes on too, beside the first.
    let ended = killed.run(FAST);
    assert!(ended.stderr.contains("resumes from checkpoint"), "{ended}");
    assert_finished(&killed, &ended, "the second");
    // And so did the first all the time, as fast as it was told to.
    let completed = living.log().completed().count();
    first.wait_until("a further checkpoint", |_| living.log().completed().count() > completed);
    assert!(!first.stderr().contains("follows"), "nothing was taken from it: {}", first.stderr());
    first.kill();
    let ended = living.run(FAST);
    assert_finished(&living, &ended, "the first");
    let left: Vec<_> = fs::read_dir(shared.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["of-somebody-else"]);
}
