//! The real `flights` process with bad input, bad configuration and bad disks: a clear error with its exit code, and
//! nothing lost. Once the cause is mended, the same command ends with the output of a run that nobody disturbed.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cutwater_integration_tests::{Ended, Flights, Mounts, Process, Rng, assert_same_output, cutwater, small_csv};

const SEED: u64 = 20_131_231;
const FLIGHTS: usize = 6_000;
/// Lasts for most of a second, with a checkpoint every 20 ms.
const PACED: &str = "--interval 20ms --pace 8000 --parallelism 2";
/// The same job, as fast as it can.
const FAST: &str = "--interval 20ms --parallelism 2";

fn data() -> &'static str {
    static DATA: OnceLock<String> = OnceLock::new();
    DATA.get_or_init(|| small_csv(FLIGHTS))
}

/// The output of a run that nobody disturbed.
fn reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let flights = Flights::with_data(data());
        let ended = flights.run(FAST).with_code(0);
        assert!(ended.stdout.contains("finished: 6000 flights on 30 routes"), "{ended}");
        flights.output()
    })
}

fn assert_finishes(flights: &Flights, options: &str, what: &str) {
    let ended = flights.run(options);
    assert_eq!(ended.code, Some(0), "{what}: {ended}");
    assert_same_output(&flights.output(), reference(), what);
}

/// A job that was killed after some checkpoints: half its output is published, all that the newest checkpoint names.
/// Its snapshots are files.
fn killed() -> &'static Flights {
    static KILLED: OnceLock<Flights> = OnceLock::new();
    killed_with(&KILLED, "execution.checkpointing.data-inline-threshold: 0\n")
}

/// The same with its snapshots in the records.
fn killed_small() -> &'static Flights {
    static KILLED: OnceLock<Flights> = OnceLock::new();
    killed_with(&KILLED, "")
}

fn killed_with(killed: &'static OnceLock<Flights>, config: &str) -> &'static Flights {
    killed.get_or_init(|| {
        for _ in 0..50 {
            let flights = Flights::with_data(data());
            flights.write("cutwater.yaml", config);
            let mut process = flights.start(PACED);
            process.wait_until("some checkpoints", |_| flights.log().completed().count() >= 5);
            process.wait_until("their output", |_| is_published(&flights));
            process.kill();
            // Another checkpoint may have completed meanwhile.
            if is_published(&flights) && !flights.log().finished() {
                return flights;
            }
        }
        panic!("the program was never killed between two checkpoints");
    })
}

/// Whether both subtasks have published what they had prepared for the newest checkpoint.
fn is_published(flights: &Flights) -> bool {
    let log = flights.log();
    let newest = log.newest().unwrap();
    let published = flights.published();
    (0..2).all(|subtask| published.contains_key(&format!("out-{subtask}-{}-1-{}.csv", newest.epoch, newest.checkpoint)))
}

// ---- input and configuration

#[test]
fn bad_input_is_named_with_its_line_and_once_mended_the_job_goes_on() {
    let lines: Vec<&str> = data().split_inclusive('\n').collect();
    let with_line = |number: usize, line: &str| {
        let mut lines = lines.clone();
        lines[number - 1] = line;
        lines.concat()
    };
    let without_last_bytes = |bytes: usize| data()[..data().len() - bytes].to_owned();
    let last = lines.len();
    let half = &lines[4_999][..lines[4_999].len() / 2];
    // Name, the file as it is at first, what must be said, whether output may have been published before.
    let cases = [
        (
            "a column is missing",
            data().replacen(",arr_delay,", ",arrival,", 1),
            vec!["flights.csv, line 2", "arr_delay", "the columns are: year, month, day, dep_time, arrival"],
            false,
        ),
        (
            "half a line in the midst",
            with_line(5_000, &format!("{half}\n")),
            vec!["flights.csv, line 5000", "fields, expected 9 as in the header"],
            true,
        ),
        (
            "half a line at the end",
            without_last_bytes(9),
            vec!["flights.csv, line 6001", "expected 9", "the file ends in the midst of this record, get a whole copy"],
            true,
        ),
        (
            "a line without its beginning",
            with_line(5_000, "EWR,BOS\n"),
            vec!["flights.csv, line 5000", "2 fields, expected 9 as in the header"],
            true,
        ),
        (
            "a word where a number should be",
            with_line(5_000, "2013,two,1,1000,1,UA,5098,EWR,BOS\n"),
            vec!["flights.csv, line 5000, column month", "\"two\" is not what was expected"],
            true,
        ),
        (
            "a day that there is not",
            with_line(5_000, "2013,2,30,1000,1,UA,5098,EWR,BOS\n"),
            vec!["flights.csv, line 5000", "there is no day 2013-02-30"],
            true,
        ),
    ];
    assert_eq!(last, FLIGHTS + 1);
    for (name, text, said, published) in cases {
        let flights = Flights::with_data(&text);
        let ended = flights.run(PACED);
        assert_eq!(ended.code, Some(3), "{name}: {ended}");
        let ended = ended.saying(&said);
        assert!(ended.stderr.contains("operator flights, subtask 0"), "{name}: {ended}");
        let before = flights.published();
        assert_eq!(!before.is_empty(), published, "{name}: what completed checkpoints hold is published: {ended}");
        // As long as it is not mended the same command fails in the same way and changes nothing.
        let again = flights.run(FAST);
        assert_eq!(again.code, Some(3), "{name}: {again}");
        let _again = again.saying(&said);
        flights.write("flights.csv", data());
        if data().len() < text.len() {
            continue; // a file that is shorter than it was is another one
        }
        assert_finishes(&flights, FAST, name);
        assert!(before.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)), "{name}");
    }
}

#[test]
fn a_missing_file_keeps_the_job_from_starting() {
    let flights = Flights::with_data(data());
    fs::remove_file(flights.path().join("flights.csv")).unwrap();
    let _ended = flights.run(FAST).with_code(1).saying(&["could not open flights.csv: check --data", "No such file"]);
    assert!(!flights.checkpoints().exists(), "nothing was begun");
    flights.write("flights.csv", data());
    assert_finishes(&flights, FAST, "with its file");

    // A job that has begun and comes back without its file.
    let flights = killed().copy();
    let before = flights.published();
    fs::rename(flights.path().join("flights.csv"), flights.path().join("away")).unwrap();
    let _ended = flights.run(FAST).with_code(1).saying(&["could not open flights.csv"]);
    assert!(flights.published() == before, "a start that failed has changed the output");
    // Another file under its name.
    flights.write("flights.csv", data().replacen("2013", "2014", 1_000));
    let said = ["flights.csv has changed since the checkpoint", "put the old file back"];
    let _ended = flights.run(FAST).with_code(3).saying(&said);
    fs::rename(flights.path().join("away"), flights.path().join("flights.csv")).unwrap();
    assert_finishes(&flights, FAST, "with its file back");
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    let cases = [
        (
            "a mistyped key",
            "execution.checkpointing.intervall: 1 s\n",
            vec!["job.yaml", "`execution.checkpointing.intervall`", "did you mean `execution.checkpointing.interval`?"],
        ),
        (
            "a mistyped key of the nested form",
            "restart-strategy:\n  typ: none\n",
            vec!["job.yaml", "restart-strategy.typ", "`restart-strategy.type`"],
        ),
        (
            "unaligned checkpoints",
            "execution.checkpointing.unaligned.enabled: true\n",
            vec!["job.yaml", "execution.checkpointing.unaligned.enabled", "not built"],
        ),
        (
            "a value of the wrong kind",
            "execution.checkpointing.timeout: soon\n",
            vec!["job.yaml", "execution.checkpointing.timeout", "soon"],
        ),
        ("no YAML", "execution.checkpointing: [\n", vec!["job.yaml"]),
    ];
    let flights = Flights::with_data(data());
    for (name, text, said) in cases {
        flights.write("job.yaml", text);
        let ended = flights.run(&format!("{FAST} --config job.yaml"));
        assert_eq!(ended.code, Some(2), "{name}: {ended}");
        let _ended = ended.saying(&said);
        assert!(!flights.checkpoints().exists() && !flights.path().join("out").exists(), "{name}: nothing was begun");
    }
    let ended = flights.run(&format!("{FAST} --config missing.yaml")).with_code(2).saying(&["missing.yaml"]);
    drop(ended);
    flights.write("job.yaml", "execution.checkpointing.unaligned.enabled: false\n");
    assert_finishes(&flights, &format!("{FAST} --config job.yaml"), "the same key, asking for nothing");
}

// ---- folders

const NO_RESTART: &str = "restart-strategy.type: none\n";
const RESTART_SOON: &str = "restart-strategy:
  type: fixed-delay
  fixed-delay.delay: 50 ms
  fixed-delay.attempts: 1000
";

fn start_in(mounts: &Mounts, flights: &Flights, options: &str) -> Process {
    Process::start(&mut mounts.enter(&flights.command(options)), flights.path())
}

fn run_in(mounts: &Mounts, flights: &Flights, options: &str) -> Ended {
    start_in(mounts, flights, options).wait()
}

#[test]
fn a_read_only_checkpoint_folder_keeps_the_job_from_starting() {
    for (name, flights) in [("a new job", Flights::with_data(data())), ("a job that was killed", killed().copy())] {
        fs::create_dir_all(flights.path().join("checkpoints")).unwrap();
        let before = flights.published();
        let read_only = "mount --bind checkpoints checkpoints; mount -o remount,bind,ro checkpoints";
        let mounts = Mounts::new(flights.path(), read_only);
        let ended = run_in(&mounts, &flights, FAST);
        assert_eq!(ended.code, Some(1), "{name}: {ended}");
        let _ended = ended.saying(&["job flights has not started", "checkpoints", "read-only", "--checkpoints"]);
        assert!(flights.published() == before, "{name}: a start that failed has changed the output");
        drop(mounts.run(flights.path(), "mount -o remount,bind,rw checkpoints"));
        let ended = run_in(&mounts, &flights, FAST);
        assert_eq!(ended.code, Some(0), "{name}: {ended}");
        assert_same_output(&flights.output(), reference(), name);
    }
}

#[test]
fn a_folder_that_becomes_read_only_is_named_and_the_job_goes_on_when_it_is_writable_again() {
    for folder in ["checkpoints", "out"] {
        let flights = Flights::with_data(data());
        fs::create_dir_all(flights.path().join(folder)).unwrap();
        flights.write("none.yaml", NO_RESTART);
        flights.write("soon.yaml", RESTART_SOON);
        fs::create_dir(flights.path().join("side")).unwrap();
        let mounts = Mounts::new(flights.path(), "true");
        // Files are open for writing, so it can't be made read-only itself; but it can be covered by itself.
        let cover = format!("mount --bind {folder} side; mount -o remount,bind,ro side; mount --move side {folder}");
        let script = |mode: &str| if mode == "ro" { format!("set -e; {cover}") } else { format!("umount -l {folder}") };
        let remount = |mode: &str| drop(mounts.run(flights.path(), &script(mode)));

        // Without restarts it ends.
        let mut process = start_in(&mounts, &flights, &format!("{PACED} --config none.yaml"));
        process.wait_until("a checkpoint", |_| flights.log().completed().count() >= 2);
        remount("ro");
        let ended = process.wait();
        assert_eq!(ended.code, Some(3), "{folder}: {ended}");
        let ended = ended.saying(&["job flights failed after 0 restarts", "read-only"]);
        assert!(ended.stderr.contains(&format!("{folder}/")), "{folder}: {ended}");
        let before = flights.published();
        remount("rw");

        // With restarts it tries until it can.
        let mut process = start_in(&mounts, &flights, &format!("{PACED} --config soon.yaml"));
        let completed = flights.log().completed().count();
        process.wait_until("a further checkpoint", |_| flights.log().completed().count() > completed + 1);
        remount("ro");
        process.wait_until("restarts", |process| process.stderr().matches("follows").count() >= 2);
        assert!(process.stderr().contains("read-only"), "{folder}: {}", process.stderr());
        remount("rw");
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{folder}: {ended}");
        assert_same_output(&flights.output(), reference(), folder);
        assert!(before.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)), "{folder}");
    }
}

/// A checkpoint folder of 256 KiB in which other files leave some room only.
fn nearly_full(flights: &Flights, room: usize) -> Mounts {
    fs::create_dir_all(flights.path().join("checkpoints")).unwrap();
    let fill = (256 << 10) - room;
    let script = format!("mount -t tmpfs -o size=256k none checkpoints; head -c {fill} /dev/zero >checkpoints/filler");
    Mounts::new(flights.path(), &script)
}

#[test]
fn a_full_checkpoint_folder_fails_checkpoints_and_loses_nothing() {
    let unlimited = "execution.checkpointing.tolerable-failed-checkpoints: 2147483647\n";
    let (none, soon) = (NO_RESTART.to_owned(), RESTART_SOON.to_owned());
    // Full from the beginning: the job does not even start.
    let flights = Flights::with_data(data());
    let mounts = nearly_full(&flights, 0);
    let said = ["job flights has not started", "checkpoints", "no space left", "--checkpoints"];
    let _ended = run_in(&mounts, &flights, FAST).with_code(1).saying(&said);
    drop(mounts.run(flights.path(), "rm checkpoints/filler"));
    let _ended = run_in(&mounts, &flights, FAST).with_code(0);
    assert_same_output(&flights.output(), reference(), "with room");

    // No failed checkpoint is tolerated, no restart allowed: the job ends.
    let flights = Flights::with_data(data());
    flights.write("job.yaml", none);
    let mounts = nearly_full(&flights, 100 << 10);
    let said = ["job flights failed after 0 restarts", "checkpoint", "no space left"];
    let _ended = run_in(&mounts, &flights, &format!("{PACED} --config job.yaml")).with_code(3).saying(&said);
    let before = flights.published();
    assert!(!before.is_empty(), "there was room for some checkpoints");
    drop(mounts.run(flights.path(), "rm checkpoints/filler; mount -o remount,size=64m checkpoints"));
    let ended = run_in(&mounts, &flights, &format!("{FAST} --config job.yaml")).with_code(0);
    assert!(ended.stderr.contains("resumes from checkpoint"), "{ended}");
    assert_same_output(&flights.output(), reference(), "no restarts");
    assert!(before.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)));

    // Restarts until there is room; or failures tolerated: then it works on, and waits at its end for the checkpoint
    // without which nothing more may be published.
    for (name, config, sign, times) in [
        ("with restarts", soon.clone(), "follows: checkpoint", 3),
        ("with failures tolerated", format!("{soon}{unlimited}"), "a checkpoint failed", 1),
    ] {
        let flights = Flights::with_data(data());
        flights.write("job.yaml", &config);
        let mounts = nearly_full(&flights, 100 << 10);
        let mut process = start_in(&mounts, &flights, &format!("{PACED} --config job.yaml"));
        process.wait_until(sign, |process| process.stderr().matches(sign).count() >= times);
        assert!(process.stderr().contains("no space left"), "{name}: {}", process.stderr());
        if name == "with failures tolerated" {
            // Past the end of its data, which takes 750 ms, it has neither given up nor lied.
            cutwater_integration_tests::sleep(std::time::Duration::from_millis(1_500));
            process.wait_until("being awake", |_| true);
            assert!(!process.stderr().contains("follows"), "{name}: it was not to restart: {}", process.stderr());
        }
        let before = flights.published();
        drop(mounts.run(flights.path(), "rm checkpoints/filler; mount -o remount,size=64m checkpoints"));
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{name}: {ended}");
        assert_same_output(&flights.output(), reference(), name);
        assert!(before.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)), "{name}");
    }
}

#[test]
fn a_full_output_folder_loses_nothing() {
    let flights = Flights::with_data(data());
    fs::create_dir_all(flights.path().join("out")).unwrap();
    flights.write("job.yaml", NO_RESTART);
    let mounts = Mounts::new(flights.path(), "mount -t tmpfs -o size=128k none out");
    let said = ["job flights failed after 0 restarts", "out/", "no space left"];
    let _ended = run_in(&mounts, &flights, &format!("{PACED} --config job.yaml")).with_code(3).saying(&said);
    drop(mounts.run(flights.path(), "mount -o remount,size=64m out"));
    let _ended = run_in(&mounts, &flights, &format!("{FAST} --config job.yaml")).with_code(0);
    let published = |name: &str| !name.starts_with('.');
    let mut lines = Vec::new();
    for entry in fs::read_dir(mounts.path(&flights.path().join("out"))).unwrap() {
        let path = entry.unwrap().path();
        assert!(published(path.file_name().unwrap().to_str().unwrap()), "{} stays", path.display());
        lines.extend(fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    lines.sort_unstable();
    assert_same_output(&lines.concat(), reference(), "with room");
}

#[test]
fn folders_that_can_not_be_are_refused_and_missing_ones_made() {
    let flights = Flights::with_data(data());
    flights.write("file", "not a folder");
    let run = |out: &str, checkpoints: &str| {
        let mut command = Command::new(flights.command("").get_program());
        command.current_dir(flights.path()).args(["--data", "flights.csv", "--out", out, "--checkpoints", checkpoints]);
        Process::start(&mut command, flights.path()).wait()
    };
    let _ended = run("file/out", "checkpoints").with_code(1).saying(&["could not create file/out", "Not a directory"]);
    let _ended = run("file", "checkpoints").with_code(1).saying(&["could not create file"]);
    assert!(!flights.checkpoints().exists(), "nothing was begun");
    let _ended =
        run("out", "file/checkpoints").with_code(1).saying(&["job flights has not started", "file/checkpoints"]);
    let _ended = run("out", "ftp://host/folder").with_code(2).saying(&["ftp://host/folder", "no checkpoints on ftp"]);
    assert_eq!(flights.published(), BTreeMap::new());
    let _ended = run("a/b/out", "c/d/checkpoints").with_code(0);
    assert!(flights.path().join("c/d/checkpoints/flights/log").is_dir() && flights.path().join("a/b/out").is_dir());
}

// ---- damaged, foreign and newer checkpoints

/// A file of the newest checkpoint: its record or a snapshot. Relative to the job's folder.
fn files_of_newest(flights: &Flights) -> Vec<String> {
    let log = flights.log();
    let newest = log.newest().unwrap();
    let mut files = vec![cutwater_coordinator::inspect::slot_name(newest.slot)];
    files.extend(newest.stored_files().map(|file| file.name.clone()));
    assert!(newest.files().count() >= 2 && [1, newest.files().count() + 1].contains(&files.len()), "{files:?}");
    files
}

/// What must hold when the program is started with a damaged checkpoint: it refuses and names the file, or the damage
/// does not matter; and with the file as it was it goes on as if nothing had been.
fn assert_refused_or_unharmed(flights: &Flights, file: &str, whole: &[u8], may_be_unharmed: bool, what: &str) {
    let before = flights.published();
    let ended = flights.run(FAST);
    match ended.code {
        Some(4) => {
            assert!(ended.stderr.contains(file), "{what}: the file is not named: {ended}");
            assert!(flights.published() == before, "{what}: a start that was refused has changed the output");
            fs::write(flights.checkpoints().join(file), whole).unwrap();
            assert_finishes(flights, FAST, what);
        }
        Some(0) if may_be_unharmed => assert_same_output(&flights.output(), reference(), what),
        _ => panic!("{what}: {ended}"),
    }
}

#[test]
fn truncated_checkpoints_are_refused_by_name() {
    let files = |killed| files_of_newest(killed).into_iter().map(move |file| (killed, file));
    for (killed, file) in files(killed()).chain(files(killed_small())) {
        let whole = fs::read(killed.checkpoints().join(&file)).unwrap();
        for length in [0, 1, 12, 30, whole.len() / 2, whole.len() - 33, whole.len() - 1] {
            let flights = killed.copy();
            let what = format!("{file} cut at {length} of {} bytes", whole.len());
            fs::write(flights.checkpoints().join(&file), &whole[..length]).unwrap();
            let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
            assert_eq!(verified.code, Some(4), "{what}: {verified}");
            assert!(verified.to_string().contains(&file), "{what}: {verified}");
            assert_refused_or_unharmed(&flights, &file, &whole, false, &what);
        }
    }
}

#[test]
fn a_snapshot_that_is_missing_is_named() {
    for file in &files_of_newest(killed())[1..] {
        let flights = killed().copy();
        let whole = fs::read(flights.checkpoints().join(file)).unwrap();
        fs::remove_file(flights.checkpoints().join(file)).unwrap();
        let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(4), "{file}: {verified}");
        assert!(verified.to_string().contains(file) && verified.to_string().contains("missing"), "{file}: {verified}");
        assert_refused_or_unharmed(&flights, file, &whole, false, &format!("{file} is missing"));
    }
}

#[test]
fn any_flipped_byte_is_found_by_verify() {
    flip_bytes(killed(), 150);
    flip_bytes(killed_small(), 40);
}

fn flip_bytes(killed: &Flights, flips: usize) {
    let flights = killed.copy();
    let mut files: Vec<String> = files_of_newest(&flights);
    let records = flights.log().entries.len();
    files.extend((0..records as u64).map(cutwater_coordinator::inspect::slot_name));
    let mut rng = Rng::new(SEED);
    for flip in 0..flips {
        // Each file of the newest checkpoint in turn, and a record of the log now and then.
        let newest = files.len() - records;
        let file = if flip % 4 == 3 { &files[newest + rng.below(records)] } else { &files[flip % newest] };
        let path = flights.checkpoints().join(file);
        let (whole, at, bit) = flip_a_byte(&path, &mut rng);
        let what = format!("seed {SEED}, flip {flip}: {file}, byte {at}, bits {bit:#04x}");
        let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(4), "{what}: {verified}");
        assert!(verified.to_string().contains(file.as_str()), "{what}: the file is not named: {verified}");
        fs::write(path, whole).unwrap();
    }
    let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
    assert_eq!(verified.code, Some(0), "with all bytes back: {verified}");
}

/// Changes a byte, and returns what was there.
fn flip_a_byte(path: &Path, rng: &mut Rng) -> (Vec<u8>, usize, u8) {
    let whole = fs::read(path).unwrap();
    let (at, bits) = (rng.below(whole.len()), u8::try_from(1 + rng.below(255)).unwrap());
    let mut damaged = whole.clone();
    damaged[at] ^= bits;
    fs::write(path, damaged).unwrap();
    (whole, at, bits)
}

#[test]
fn a_flipped_byte_is_refused_or_does_no_harm() {
    flip_and_start(killed(), 30);
    flip_and_start(killed_small(), 15);
}

fn flip_and_start(killed: &Flights, flips: usize) {
    let newest = files_of_newest(killed);
    let records = killed.log().entries.len() as u64;
    let mut rng = Rng::new(SEED ^ 1);
    for flip in 0..flips {
        // Of the newest checkpoint every byte is needed; of older records only some are read.
        let file = match flip % 5 {
            4 => cutwater_coordinator::inspect::slot_name(rng.next_u64() % records),
            _ => newest[flip % newest.len()].clone(),
        };
        let flights = killed.copy();
        let (whole, at, bits) = flip_a_byte(&flights.checkpoints().join(&file), &mut rng);
        let what = format!("seed {SEED}, flip {flip}: {file}, byte {at}, bits {bits:#04x}");
        assert_refused_or_unharmed(&flights, &file, &whole, !newest.contains(&file), &what);
    }
}

#[test]
fn the_checkpoints_of_another_job_are_refused() {
    let flights = Flights::with_data(data());
    flights.write("job.yaml", "pipeline.name: trains\n");
    let _ended = flights.run(&format!("{FAST} --config job.yaml")).with_code(0);
    assert_same_output(&flights.output(), reference(), "under another name");
    let before = flights.published();
    fs::rename(flights.path().join("checkpoints/trains"), flights.checkpoints()).unwrap();
    let said =
        ["job flights has not started", "checkpoints/flights", "is a record of job \"trains\", not of \"flights\""];
    let _ended = flights.run(FAST).with_code(4).saying(&said);
    assert!(flights.published() == before, "a start that was refused has changed the output");

    // In a folder of its own it runs: into a fresh output folder, since the other one is not its.
    fs::rename(flights.checkpoints(), flights.path().join("checkpoints/trains")).unwrap();
    fs::rename(flights.path().join("out"), flights.path().join("out-of-trains")).unwrap();
    assert_finishes(&flights, FAST, "beside the other job");
    let verified = cutwater(flights.path(), "checkpoints verify checkpoints").with_code(0);
    assert!(verified.stdout.contains("job flights") && verified.stdout.contains("job trains"), "{verified}");
}

/// A version of the formats that no release has written yet.
const NEWER: u8 = 99;

/// The same file as a newer version would have written it, with its checksum.
fn as_newer_version(path: &Path, snapshot: bool) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    let mut newer = whole.clone();
    if snapshot {
        // docs/format.md: magic, version u32, header length u32, header, checksum of all this.
        newer[8..12].copy_from_slice(&u32::from(NEWER).to_le_bytes());
        let length = u32::from_le_bytes(newer[12..16].try_into().unwrap()) as usize;
        let sum = crc32c::crc32c(&newer[..16 + length]).rotate_right(15).wrapping_add(0x5157_3a21);
        newer[16 + length..20 + length].copy_from_slice(&sum.to_le_bytes());
    } else {
        // The header of the log's objects: magic, version u16, kind, length, checksum of these 19 bytes and the body.
        newer[8..10].copy_from_slice(&u16::from(NEWER).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&newer[..19]), &newer[23..]);
        newer[19..23].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(path, newer).unwrap();
    whole
}

#[test]
fn checkpoints_of_a_newer_format_are_refused_by_name() {
    for (index, file) in files_of_newest(killed()).into_iter().enumerate() {
        let flights = killed().copy();
        let path: PathBuf = flights.checkpoints().join(&file);
        let whole = as_newer_version(&path, index > 0);
        let before = flights.published();
        let ended = flights.run(FAST).with_code(4).saying(&[&file, &format!("version {NEWER}"), "up to"]);
        assert!(ended.stderr.contains("newer"), "{file}: {ended}");
        assert!(flights.published() == before, "{file}: a start that was refused has changed the output");
        let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(4), "{file}: {verified}");
        // A file that is not the one of the record is told as such before anybody looks into it.
        let reason = if index > 0 { "were written" } else { "newer" };
        assert!(verified.to_string().contains(&file) && verified.to_string().contains(reason), "{file}: {verified}");
        fs::write(&path, whole).unwrap();
        assert_finishes(&flights, FAST, &file);
    }
}
