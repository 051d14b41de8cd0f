//! The real `flights` process, killed and stopped at any moment: its output is that of a run that nobody disturbed.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cutwater_core::{CheckpointId, Epoch};
use cutwater_integration_tests::{
    Flights, Process, Rng, assert_same_output, cutwater, seconds, side_by_side, small_csv,
};

const SEED: u64 = 20_130_101;
const KILLS: usize = 50;
/// So many runs at a time: most of each is waiting.
const AT_ONCE: usize = 4;
const FLIGHTS: usize = 30_000;
/// Slow enough to last for half a second, with a checkpoint every 20 ms, and to leave room for others.
const PACED: &str = "--interval 20ms --pace 60000";

/// One test at a time: they measure moments, and the machine may have two cores only.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some of the flights: a run of them is mostly waiting.
fn flights() -> Flights {
    static DATA: OnceLock<String> = OnceLock::new();
    Flights::with_data(DATA.get_or_init(|| small_csv(FLIGHTS)))
}

/// The output of a run of them that nobody disturbed.
fn reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let flights = flights();
        drop(flights.run("").with_code(0));
        flights.output()
    })
}

/// What holds after each run that came to its end, whatever happened before.
fn assert_finished(flights: &Flights, expected: &[u8], what: &str) {
    assert_same_output(&flights.output(), expected, what);
    assert_eq!(flights.unpublished(), [""; 0], "{what}: unpublished files stay in the output folder");
    assert_untouchable(flights, what);
}

/// The checkpoints are in order, and the same command does nothing more.
fn assert_untouchable(flights: &Flights, what: &str) {
    let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
    assert_eq!(verified.code, Some(0), "{what}: {verified}");
    let before = flights.published();
    let ended = flights.run(PACED).with_code(0);
    assert!(ended.stdout.starts_with("finished already"), "{what}: {ended}");
    assert!(flights.published() == before, "{what}: a finished job has changed its output");
}

#[test]
fn the_output_is_the_same_at_each_parallelism() {
    let _alone = alone();
    let all = Flights::new();
    let ended = all.run("").with_code(0);
    assert!(ended.stdout.contains("finished: 336776 flights on 224 routes"), "{ended}");
    let expected = all.output();
    let lines = |kind: &str| {
        let lines = expected.split(|byte| *byte == b'\n');
        lines.filter(|line| line.starts_with(kind.as_bytes())).count()
    };
    assert_eq!(lines("flight,"), 336_776);
    assert!(lines("day,") > 10_000, "{} daily lines", lines("day,"));
    for parallelism in 1..=3 {
        let flights = Flights::new();
        let options = format!("--interval 50ms --parallelism {parallelism}");
        let _ended = flights.run(&options).with_code(0);
        assert_finished(&flights, &expected, &options);
    }
}

/// What a kill left behind.
#[derive(Debug)]
struct Hit {
    /// Of the run's length.
    fraction: f64,
    /// Nobody had claimed the job yet.
    unclaimed: bool,
    /// No checkpoint had completed yet.
    early: bool,
    /// Snapshots of a checkpoint had been written, or were, that had not completed.
    during: bool,
    /// All data had been read and the last checkpoint completed, but the end was not recorded.
    last: bool,
}

impl Hit {
    fn look(flights: &Flights, fraction: f64) -> Self {
        let log = flights.log();
        let newest = log.newest();
        let done = (log.epoch(), newest.map_or(CheckpointId(0), |newest| newest.checkpoint));
        let open = |(epoch, checkpoint, _): &(u64, u64, String)| {
            Some(Epoch(*epoch)) == done.0 && CheckpointId(*checkpoint) > done.1
        };
        Self {
            fraction,
            unclaimed: log.entries.is_empty(),
            early: newest.is_none(),
            during: flights.snapshots().iter().any(open) || !flights.temporary().is_empty(),
            last: newest.is_some_and(|newest| newest.is_final()),
        }
    }
}

/// Starts the program and kills it there. If it ends before, that run was no test: again, a bit earlier. `None` if it always
/// does, since nearly nothing was left to do.
fn kill_once(flights: &mut Flights, options: &str, length: f64, fraction: f64) -> Option<Hit> {
    let mut fraction = fraction;
    for _ in 0..20 {
        let before = flights.copy();
        match flights.start(options).kill_at(Duration::from_secs_f64(length * fraction)) {
            Ok(()) => return Some(Hit::look(flights, fraction)),
            Err(ended) => drop(ended.with_code(0)),
        }
        *flights = before;
        fraction *= 0.93;
    }
    None
}

#[test]
fn fifty_kills_spread_over_the_run_leave_no_trace_in_the_output() {
    spread_kills(SEED, KILLS, &["hashmap"], "");
}

/// Each run is killed with its state in one place and goes on with it in the next.
#[cfg(feature = "rocksdb")]
#[test]
fn fifty_kills_with_state_in_rocksdb_and_across_to_memory_leave_no_trace_in_the_output() {
    spread_kills(SEED + 1, KILLS, &["rocksdb", "rocksdb", "hashmap"], "");
}

/// Checkpoints share RocksDB's own files, which only that can read.
#[cfg(feature = "rocksdb")]
#[test]
fn kills_of_a_job_whose_checkpoints_share_files_of_rocksdb_leave_no_trace_in_the_output() {
    spread_kills(SEED + 2, KILLS / 2, &["rocksdb"], "execution.checkpointing.incremental: true\n");
}

/// What came of all kills.
#[derive(Debug, Default)]
struct Told {
    hits: Vec<Hit>,
    runs: usize,
    resumed: usize,
    other_parallelism: usize,
}

/// Kills so many runs, which have these settings besides; the backends take turns, from one start to the next.
fn spread_kills(seed: u64, kills: usize, backends: &[&str], settings: &str) {
    let _alone = alone();
    let lengths = [1, 2].map(|parallelism| {
        let options = format!("{PACED} --parallelism {parallelism} --backend {}", backends[0]);
        flights().run(&options).with_code(0).time.as_secs_f64()
    });
    let length = lengths[0].min(lengths[1]);
    let started = Instant::now();
    let told = Mutex::new(Told::default());
    side_by_side(AT_ONCE, kills, |index| {
        let mut rng = Rng::new(seed.wrapping_mul(1_000) + index as u64);
        let mut starts = index;
        let mut next = |options: String| {
            starts += 1;
            format!("{options} --backend {}", backends[starts % backends.len()])
        };
        let moment = (index as f64 + rng.fraction()) / kills as f64;
        let parallelism = 1 + index % 2;
        let options = next(format!("{PACED} --parallelism {parallelism}"));
        let what = format!("seed {seed}, kill {index} at {moment:.3} of {length:.3} s, {options}");
        let mut flights = flights();
        // Snapshots as files, or in the records.
        let threshold = if index % 4 < 2 { "0" } else { "20 kb" };
        flights
            .write("cutwater.yaml", format!("{settings}execution.checkpointing.data-inline-threshold: {threshold}\n"));
        let hit = kill_once(&mut flights, &options, length, moment);
        let mut hits = vec![hit.unwrap_or_else(|| panic!("{what}: it always ends before it can be killed"))];
        // Every fifth is killed once more before it may finish, every tenth twice more.
        let more = if index % 10 == 0 { 2 } else { usize::from(index % 5 == 0) };
        let parallelism = if index % 3 == 0 { 1 + (parallelism + rng.below(3)) % 4 } else { parallelism };
        let options = next(format!("{PACED} --parallelism {parallelism}"));
        for _ in 0..more {
            let left = 1.0 - hits.last().map_or(0.0, |hit| hit.fraction);
            hits.extend(kill_once(&mut flights, &options, length, left * rng.fraction()));
        }

        let expected = flights.log().newest().map(|newest| newest.checkpoint);
        let ended = flights.run(&options).with_code(0);
        let already = ended.stdout.starts_with("finished already");
        // The end may have been recorded just before the kill.
        if !already {
            assert_eq!(flights.log().claims().last(), Some(&expected), "{what}: {ended}");
            let said = match expected {
                Some(checkpoint) => format!("resumes from checkpoint {checkpoint} of checkpoints/flights"),
                None => "starts from nothing".to_owned(),
            };
            assert!(ended.stderr.contains(&said), "{what}: {ended}");
        }
        assert!(flights.log().finished(), "{what}");
        assert_finished(&flights, reference(), &what);
        // A job that had finished when it was killed, while it wrote its statistics say, starts no more and sweeps nothing.
        if !already {
            assert_eq!(flights.temporary(), [""; 0], "{what}: temporary files stay in the checkpoint folder");
        }
        let mut told = told.lock().expect("no case panics with it");
        told.hits.extend(hits);
        told.runs += 1;
        told.resumed += usize::from(!already && expected.is_some());
        told.other_parallelism += usize::from(index % 3 == 0);
    });
    let Told { hits, runs, resumed, other_parallelism } = told.into_inner().expect("no case panics with it");
    let count = |hit: fn(&Hit) -> bool| hits.iter().filter(|found| hit(found)).count();
    let unclaimed = count(|hit| hit.unclaimed);
    let early = count(|hit| hit.early);
    let during = count(|hit| hit.during);
    let late = count(|hit| hit.fraction > 0.85);
    let last = count(|hit| hit.last);
    println!(
        "seed {seed}, {}: {} kills in {runs} runs of {length:.3} s, {other_parallelism} resumed with another parallelism; \
         {resumed} runs went on from a checkpoint; {unclaimed} killed before the claim, {early} before the first \
         checkpoint, {during} while a checkpoint was being taken, {late} near the end, {last} after the last \
         checkpoint; {:.1} s",
        backends.join(", "),
        hits.len(),
        seconds(started)
    );
    assert_eq!(runs, kills);
    assert!((kills * 6 / 5..=kills * 4 / 3).contains(&hits.len()), "{} kills", hits.len());
    // Some had finished when they were killed, and recorded it.
    // A start with RocksDB takes longer, and so a larger part of the run.
    let least_resumed = if backends.contains(&"rocksdb") { kills / 2 } else { kills * 7 / 10 };
    assert!(resumed >= least_resumed, "only {resumed} of {runs} runs went on from a checkpoint");
    assert!(early >= 1 && during >= 3 && late >= 3, "the moments are badly spread: {hits:?}");
}

#[test]
fn a_stopped_process_that_wakes_up_after_another_finished_its_job_stops_itself() {
    let _alone = alone();
    side_by_side(AT_ONCE, 6, |round| {
        let mut rng = Rng::new(SEED * 1_000 + round as u64);
        let flights = flights();
        let options = format!("{PACED} --parallelism {}", 1 + round % 3);
        let mut first = flights.start(&options);
        let wanted = 1 + rng.below(8);
        first.wait_until("some checkpoints", |_| flights.log().completed().count() >= wanted);
        cutwater_integration_tests::sleep(Duration::from_secs_f64(0.03 * rng.fraction()));
        first.signal("STOP");
        let what = format!("seed {SEED}, round {round}, stopped after {wanted} checkpoints, {options}");

        let second = flights.run(&options).with_code(0);
        assert!(second.stderr.contains("resumes from checkpoint"), "{what}: {second}");
        assert_same_output(&flights.output(), reference(), &what);
        let published = flights.published();
        first.signal("CONT");
        let zombie = first.wait().with_code(3);
        assert!(zombie.stderr.contains("job flights was superseded by epoch 2"), "{what}: {zombie}");
        assert!(flights.published() == published, "{what}: the one that was replaced has published something");
        assert_untouchable(&flights, &what);
    });
}

#[test]
fn of_two_started_at_once_one_does_the_job() {
    let _alone = alone();
    let superseded = AtomicUsize::new(0);
    side_by_side(AT_ONCE, 8, |round| {
        let mut rng = Rng::new(SEED * 2_000 + round as u64);
        let flights = flights();
        let options = format!("{PACED} --parallelism {}", 1 + round % 3);
        let first = flights.start(&options);
        cutwater_integration_tests::sleep(Duration::from_secs_f64(0.02 * rng.fraction()));
        let second = flights.start(&options);
        let ended = [first, second].map(Process::wait);
        let what = format!("seed {SEED}, round {round}, {options}:\n{}\n{}", ended[0], ended[1]);
        assert!(ended.iter().any(|ended| ended.code == Some(0)), "{what}");
        for ended in &ended {
            match ended.code {
                Some(0) => {}
                Some(3) => {
                    superseded.fetch_add(1, Ordering::Relaxed);
                    assert!(ended.stderr.contains("job flights was superseded by epoch"), "{what}");
                }
                _ => panic!("{what}"),
            }
        }
        assert_same_output(&flights.output(), reference(), &what);
        assert_untouchable(&flights, &what);
    });
    let superseded = superseded.into_inner();
    println!("{superseded} of 8 pairs met while both ran");
    assert!(superseded > 0, "they never met");
}

/// The checkpoint of a killed run starts a log of its own elsewhere; the output folder is the same. Killed again, the same
/// command resumes from the new log.
#[test]
fn a_killed_run_goes_on_from_another_folder() {
    let _alone = alone();
    side_by_side(AT_ONCE, 3, |round| {
        let flights = flights();
        while flights.log().newest().is_none() {
            let running = flights.start(PACED);
            running.kill_at(Duration::from_millis(300)).expect("the run is paced to last longer");
        }
        let old = flights.path().join("old");
        std::fs::rename(flights.path().join("checkpoints"), &old).expect("both are in one folder");
        let options = format!("{PACED} --parallelism {} --from old/flights", round + 1);
        if let Err(ended) = flights.start(&options).kill_at(Duration::from_millis(200)) {
            drop(ended.with_code(0));
        }
        let _ended = flights.run(&options).with_code(0);
        assert_same_output(&flights.output(), reference(), &options);
        assert_eq!(flights.unpublished(), [""; 0], "{options}");
        assert!(matches!(flights.log().claims()[..], [Some(_), ..]), "{options}: it did not begin from a checkpoint");
    });
}
