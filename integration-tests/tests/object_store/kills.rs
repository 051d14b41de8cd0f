//! The `flights` process, killed at any moment.

use std::time::Duration;

use cutwater_integration_tests::{BUCKET, Flights, Kind, Rng, Server, assert_same_output};

use crate::{PACED, SEED, cutwater, flights, reference};

const KILLS: usize = 6;

#[test]
fn kills_leave_no_trace_in_the_output() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let env = server.env();
        let mut rng = Rng::new(SEED);
        for index in 0..KILLS {
            let below = format!("kills-{index}");
            let folder = Flights::new();
            let moment = Duration::from_secs_f64(0.1 + 0.8 * (index as f64 + rng.fraction()) / KILLS as f64);
            let what = format!("{kind}, kill {index} after {moment:?}");
            // A run that was over before the kill is checked like the others.
            drop(flights(&folder, &env, &below, &format!("{PACED} --parallelism 2")).kill_at(moment));
            // All that is of the job lies in the store, but for its output: it goes on from another folder.
            let folder = folder.copy();
            let options = format!("{PACED} --parallelism {}", 1 + index % 3);
            drop(flights(&folder, &env, &below, &options).wait().with_code(0));
            assert_same_output(&folder.output(), reference(), &what);
            assert_eq!(folder.unpublished(), [""; 0], "{what}");
            let verified = cutwater(&folder, &env, &format!("checkpoints verify s3://{BUCKET}/{below}"));
            assert_eq!(verified.code, Some(0), "{what}: {verified}");
            let ended = flights(&folder, &env, &below, PACED).wait().with_code(0);
            assert!(ended.stdout.starts_with("finished already"), "{what}: {ended}");
        }
    }
}
