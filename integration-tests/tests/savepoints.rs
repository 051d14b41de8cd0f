//! The real `flights` process, stopped by signals behind savepoints and started from them: nothing is lost or repeated.

use std::path::PathBuf;
use std::time::Duration;

use cutwater_integration_tests::{Ended, Flights, Rng, assert_same_output, cutwater, sleep};

const SEED: u64 = 20_130_102;
const PACED: &str = "--interval 30ms --pace 400000";
const STOPS: usize = 10;

/// Runs until some checkpoints have completed and a bit more, then gets the signal once.
fn stopped(flights: &Flights, options: &str, signal: &str, rng: &mut Rng) -> Ended {
    let before = flights.log().completed().count();
    let mut process = flights.start(options);
    process.wait_until("checkpoints", |_| flights.log().completed().count() >= before + 1 + rng.below(3));
    sleep(Duration::from_secs_f64(0.03 * rng.fraction()));
    process.signal(signal);
    process.wait().with_code(0)
}

/// Where the savepoint is that the process says it made.
fn savepoint_in(ended: &Ended) -> PathBuf {
    let told = ended.stdout.lines().find_map(|line| line.strip_prefix("stopped with savepoint file://"));
    let told = told.unwrap_or_else(|| panic!("no savepoint: {ended}"));
    PathBuf::from(told.split(';').next().unwrap_or_default())
}

#[test]
fn a_signal_stops_the_job_behind_a_savepoint_and_it_goes_on_from_there_or_by_the_same_command() {
    let reference = Flights::new();
    drop(reference.run("").with_code(0));
    let mut rng = Rng::new(SEED);
    for round in 0..STOPS {
        let flights = Flights::new();
        let signal = ["TERM", "INT"][round % 2];
        let options = format!("{PACED} --savepoints savepoints --parallelism {}", 1 + round % 3);
        let ended = stopped(&flights, &options, signal, &mut rng);
        let savepoint = savepoint_in(&ended);
        let what = format!("seed {SEED}, round {round}, {signal}, {options}: {ended}");
        let shown = cutwater(flights.path(), &format!("savepoint verify {}", savepoint.display()));
        assert_eq!(shown.code, Some(0), "{what}: {shown}");
        let listed = cutwater(flights.path(), "checkpoints list checkpoints");
        assert!(listed.stdout.contains("outcome: stopped with savepoint"), "{what}: {listed}");
        let last = match round % 3 {
            // By the same command.
            0 => flights.run(PACED).with_code(0),
            // From the savepoint, which has been moved meanwhile, with the checkpoints gone.
            1 => {
                let moved = flights.path().join("moved");
                std::fs::rename(&savepoint, &moved).expect("the folder is ours");
                std::fs::remove_dir_all(flights.path().join("checkpoints")).expect("the folder is ours");
                flights.run(&format!("{PACED} --parallelism 2 --from moved")).with_code(0)
            }
            // From the savepoint, killed after that, and then by the same command.
            _ => {
                let options = format!("{PACED} --from {}", savepoint.display());
                drop(flights.start(&options).kill_at(Duration::from_millis(200))); // it may have finished before
                flights.run(&options).with_code(0)
            }
        };
        assert!(last.stdout.contains("finished"), "{what}\n{last}");
        assert_same_output(&flights.output(), &reference.output(), &what);
    }
}

#[test]
fn without_a_place_for_savepoints_a_signal_stops_behind_a_checkpoint_and_a_second_one_cancels() {
    let mut rng = Rng::new(SEED + 1);
    let flights = Flights::new();
    let ended = stopped(&flights, PACED, "TERM", &mut rng);
    assert!(ended.stdout.contains("stopped; checkpoints: checkpoints/flights"), "{ended}");
    // The second one comes while a disk that takes no more holds the first up: so slow is none here, so both at once.
    let mut process = flights.start(PACED);
    process.wait_until("records", |process| process.stderr().contains("resumes from checkpoint"));
    process.signal("TERM");
    process.signal("TERM");
    let ended = process.wait();
    assert!(matches!(ended.code, Some(0 | 130)), "{ended}");
    let finished = flights.run(PACED).with_code(0);
    assert!(finished.stdout.contains("finished: 336776 flights"), "{finished}");
}

#[test]
fn a_savepoint_below_what_was_published_is_refused_and_a_damaged_one_names_its_file() {
    let mut rng = Rng::new(SEED + 2);
    let flights = Flights::new();
    flights.write("cutwater.yaml", "execution.checkpointing.data-inline-threshold: 0\n"); // so that it has files
    let savepoint = savepoint_in(&stopped(&flights, &format!("{PACED} --savepoints s"), "TERM", &mut rng));
    drop(stopped(&flights, PACED, "TERM", &mut rng));
    let from = format!("{PACED} --from {}", savepoint.display());
    drop(flights.run(&from).with_code(2).saying(&["has completed and its output may be published"]));

    let copy = cutwater(flights.path(), &format!("savepoint copy {} copied", savepoint.display()));
    assert_eq!(copy.code, Some(0), "{copy}");
    let files: Vec<PathBuf> = std::fs::read_dir(savepoint.join("chk"))
        .expect("it has files")
        .map(|entry| entry.expect("the folder is ours").path())
        .collect();
    let mut bytes = std::fs::read(&files[0]).expect("the file is ours");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).expect("the file is ours");
    let name = files[0].file_name().and_then(|name| name.to_str()).expect("a plain name");
    let verified = cutwater(flights.path(), &format!("savepoint verify {}", savepoint.display()));
    assert_eq!(verified.code, Some(4), "{verified}");
    assert!(verified.stdout.contains(name), "{verified}");
    let again = cutwater(flights.path(), &format!("savepoint copy {} again", savepoint.display()));
    assert_eq!(again.code, Some(4), "{again}");
    let whole = cutwater(flights.path(), "savepoint verify copied --json");
    assert_eq!(whole.code, Some(0), "{whole}");
    let deleted = cutwater(flights.path(), "savepoint delete copied");
    assert_eq!(deleted.code, Some(0), "{deleted}");
    let gone = cutwater(flights.path(), "savepoint inspect copied");
    assert_eq!(gone.code, Some(5), "{gone}");
}
