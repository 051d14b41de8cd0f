//! A store whose requests fail in every way that networks and stores know.

use std::time::Duration;

use cutwater_integration_tests::{
    Counts, Fault, Flights, Kind, Proxy, Rates, Rng, Server, Times, assert_same_output, tell,
};
use cutwater_storage::{ObjectName, Store as _};

use crate::stepped::Stepped;
use crate::{PACED, SEED, flights, reference};

/// All but a store that ignores conditions: no job runs on such a one.
const FAULTS: [Fault; 13] = [
    Fault::Error,
    Fault::ErrorAfter,
    Fault::SlowDown,
    Fault::Conflict,
    Fault::AnswerLost,
    Fault::Twice,
    Fault::TimeOutBefore,
    Fault::TimeOutAfter,
    Fault::Late,
    Fault::CutBody,
    Fault::ShortBody,
    Fault::FlippedBit,
    Fault::Slow,
];

/// Files of many parts and ranges.
const LARGE: &str = "--ballast 75000 --pause 3 --tolerate 1000";
const ROUNDS: usize = 5;

fn failing(server: &Server) -> Proxy {
    let proxy = Proxy::start(server.address(), SEED);
    proxy.set_times(Times {
        hold: Duration::from_millis(300),
        late: Duration::from_millis(200),
        slow: Duration::from_millis(100),
    });
    proxy
}

/// The table of all faults, which must have come.
fn table(what: &str, counts: &Counts, faults: &[Fault]) {
    tell(&format!("{what}\n{counts}"));
    let missing: Vec<_> = faults.iter().filter(|fault| counts.of(**fault) == 0).collect();
    assert!(missing.is_empty(), "{what}: no request met {missing:?}");
}

#[test]
fn a_store_that_fails_in_every_way_changes_nothing_in_the_output() {
    let server = Server::start(Kind::MinIo);
    let proxy = failing(&server);
    proxy.set(Rates::of(&FAULTS, 0.01));
    let env = server.env_at(&proxy.endpoint());
    for round in 0..4 {
        let folder = Flights::new();
        let below = format!("faults-{round}");
        drop(flights(&folder, &env, &below, PACED).kill_at(Duration::from_millis(300 + 150 * round)));
        drop(flights(&folder, &env, &below, PACED).wait().with_code(0));
        assert_same_output(&folder.output(), reference(), &format!("round {round}"));
    }
    table("small state, many checkpoints, 4 kills, behind the proxy:", &proxy.counts(), &[]);
    assert!(proxy.counts().injected() > 0, "no request met a fault");
}

/// The answer looks whole, and half of them are short.
#[test]
fn an_object_that_comes_short_is_asked_for_again() {
    let server = Server::start(Kind::MinIo);
    let proxy = failing(&server);
    let storage = server.storage_at(proxy.endpoint(), "short");
    proxy.set(Rates::none().with(Fault::ShortBody, 0.5));
    for n in 0..20 {
        let (name, text) = (ObjectName::parse(&format!("object-{n}")).expect("a name"), "byte ".repeat(n));
        storage.create(&name, text.as_bytes()).expect("it is new");
        assert_eq!(storage.read(&name, 1 << 10).expect("it comes"), Some(text.into_bytes()));
    }
    assert!(proxy.counts().of(Fault::ShortBody) > 5, "{}", proxy.counts());
}

#[test]
fn every_fault_comes_while_a_large_state_is_stored_and_restored_and_changes_nothing_in_the_output() {
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let undisturbed = Stepped::new(&env, "undisturbed", LARGE);
    let length = undisturbed.run("").with_code(0).time;
    let expected = undisturbed.output();

    let proxy = failing(&server);
    let env = server.env_at(&proxy.endpoint());
    let rare = Rates::of(&FAULTS, 0.02);
    // A range that is damaged twice is damage; one that is cut is asked for again, as often as need be.
    let rare = rare.with(Fault::FlippedBit, 0.002).with(Fault::CutBody, 0.05);
    proxy.set(rare.clone());
    let mut rng = Rng::new(SEED);
    let mut restores = 0;
    for round in 0..ROUNDS {
        let mut stepped = Stepped::new(&env, format!("faults-{round}"), LARGE);
        let mut moment = 0.5;
        for kill in 0..3 {
            let what = format!("round {round}, kill {kill}");
            let parallelism = format!("--parallelism {}", 1 + rng.below(3));
            let killed = stepped.start(&parallelism).kill_at(length.mul_f64(moment + 0.3 * rng.fraction()));
            if let Err(ended) = killed {
                drop(ended.with_code(0));
                assert_same_output(&stepped.output(), &expected, &what);
            }
            moment = 0.9;
            stepped = stepped.moved();
            // On the way of snapshot files and records after each kill; those that met none before are forgotten.
            proxy.all_off();
            proxy.set(rare.clone());
            for fault in [Fault::CutBody, Fault::ShortBody, Fault::FlippedBit, Fault::Late] {
                proxy.once(fault, "/chk/");
            }
            proxy.once(Fault::Conflict, "/log/");
            restores += 1;
        }
        drop(stepped.run("").with_code(0));
        assert_same_output(&stepped.output(), &expected, &format!("round {round}"));
        assert_eq!(stepped.unpublished(), [""; 0], "round {round}");
    }
    table(&format!("large state, {restores} restores, behind the proxy:"), &proxy.counts(), &FAULTS);
}
