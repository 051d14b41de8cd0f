//! Two processes that fight for one job.

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_integration_tests::{
    BUCKET, Ended, Flights, Kind, Log, Process, Rng, Server, assert_same_output, sleep, tell,
};

use crate::{PACED, SEED, cutwater, flights, reference};

const ROUNDS: usize = 9;

/// When the second process comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Second {
    /// At the same moment.
    AtOnce,
    /// While the first one works.
    Later,
    /// While the first one stands still; it wakes up when the job is done.
    MeanwhileAsleep,
}

#[test]
fn of_two_processes_that_fight_for_a_job_the_later_wins_on_minio() {
    the_later_wins(Kind::MinIo);
}

#[test]
fn of_two_processes_that_fight_for_a_job_the_later_wins_on_seaweedfs() {
    the_later_wins(Kind::SeaweedFs);
}

fn the_later_wins(kind: Kind) {
    let server = Server::start(kind);
    let env = server.env();
    let mut rng = Rng::new(SEED);
    let mut superseded = BTreeMap::<Second, usize>::new();
    for round in 0..ROUNDS {
        let second = [Second::AtOnce, Second::Later, Second::MeanwhileAsleep][round % 3];
        let (folder, below) = (Flights::new(), format!("fights-{round}"));
        let options = |parallelism: usize| format!("{PACED} --parallelism {}", 1 + parallelism % 3);
        let store = server.storage(&format!("{below}/flights"));
        let mut first = flights(&folder, &env, &below, &options(round));
        if second != Second::AtOnce {
            let wanted = 1 + rng.below(3);
            first.wait_until("some checkpoints", |_| Log::read_in(&store).completed().count() >= wanted);
            sleep(Duration::from_secs_f64(0.05 * rng.fraction()));
        }
        if second == Second::MeanwhileAsleep {
            first.signal("STOP");
        }
        let other = flights(&folder, &env, &below, &options(round + 1));
        let [first, other] = match second {
            Second::MeanwhileAsleep => {
                let other = other.wait();
                assert_same_output(&folder.output(), reference(), &format!("{kind}, round {round}, {second:?}"));
                first.signal("CONT");
                [first.wait(), other]
            }
            Second::AtOnce | Second::Later => [first, other].map(Process::wait),
        };
        let what = format!("{kind}, round {round}, {second:?}:\n{first}\n{other}");
        let lost = [&first, &other].into_iter().filter(|ended| is_superseded(ended, &what)).count();
        *superseded.entry(second).or_default() += lost;
        assert!(lost <= 1, "{what}");
        if second != Second::AtOnce {
            assert_eq!((first.code, other.code), (Some(3), Some(0)), "{what}");
        }
        assert_same_output(&folder.output(), reference(), &what);
        let verified = cutwater(&folder, &env, &format!("checkpoints verify s3://{BUCKET}/{below}"));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
    }
    tell(&format!("{kind}: of {} fights of each sort the earlier was superseded in {superseded:?}", ROUNDS / 3));
    assert!(superseded[&Second::AtOnce] > 0, "those that started at once never met");
}

/// Whether another one has taken its job; otherwise it has done it.
fn is_superseded(ended: &Ended, what: &str) -> bool {
    match ended.code {
        Some(0) => false,
        Some(3) => {
            assert!(ended.stderr.contains("job flights was superseded by epoch"), "{what}");
            true
        }
        _ => panic!("{what}"),
    }
}
