//! What is wrong with a store is one clear error.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cutwater_integration_tests::{BUCKET, Flights, Kind, Log, Proxy, Server, assert_same_output, seconds};

use crate::{Env, PACED, SEED, flights, reference, start};

#[test]
fn what_is_wrong_with_a_store_is_said_at_the_start() {
    let server = Server::start(Kind::MinIo);
    let env = server.env();
    let with = |name: &str, value: &str| {
        let mut env = env.clone();
        env.iter_mut().filter(|(variable, _)| *variable == name).for_each(|entry| entry.1 = value.to_owned());
        env
    };
    let cases = [
        ("a wrong secret", with("AWS_SECRET_ACCESS_KEY", "not-the-secret"), "SignatureDoesNotMatch", 1),
        ("an unknown key", with("AWS_ACCESS_KEY_ID", "nobody"), "InvalidAccessKeyId", 1),
        ("an endpoint elsewhere without TLS", with("AWS_ENDPOINT_URL", "http://192.0.2.1:9000"), "without TLS", 2),
    ];
    for (case, env, text, code) in cases {
        let folder = Flights::new();
        let ended = flights(&folder, &env, "refused", PACED).wait().with_code(code);
        assert!(ended.stderr.contains(text) && ended.stderr.starts_with("error[STO000"), "{case}: {ended}");
        let secret = &env[1].1;
        assert!(!ended.stderr.contains(secret.as_str()) && !ended.stdout.contains(secret.as_str()), "{case}: {ended}");
    }
    let folder = Flights::new();
    let ended = start(&folder, &env, "s3://no-such-bucket/jobs", PACED).wait().with_code(1);
    assert!(ended.stderr.contains("there is no such bucket"), "{ended}");
}

/// What S3 answers when the token of a session has expired, and when the clocks differ by more than a quarter of an hour.
const REFUSALS: [(u16, &str, &str); 3] = [
    (400, "ExpiredToken", "the session token has expired: get a new one and give it to this process"),
    (403, "ExpiredToken", "the session token has expired: get a new one and give it to this process"),
    (403, "RequestTimeTooSkewed", "the clock of this machine is wrong, or that of the store: set it right"),
];

#[test]
fn an_expired_token_and_a_wrong_clock_are_named_at_the_start_and_while_the_job_runs() {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), SEED);
    let env = server.env_at(&proxy.endpoint());
    for (round, (status, code, advice)) in REFUSALS.into_iter().enumerate() {
        let (folder, below) = (Flights::new(), format!("refused-{round}"));
        let what = format!("{status} {code}");
        folder.write("cutwater.yaml", "restart-strategy.type: none\n");
        proxy.refuse(status, code);
        let ended = flights(&folder, &env, &below, PACED).wait().with_code(1);
        let said = format!("the store answered {what}; {advice}");
        assert!(ended.stderr.contains(&said) && ended.stderr.starts_with("error["), "{what}: {ended}");
        assert!(ended.time < Duration::from_secs(10), "{what}: no retry can mend it: {ended}");
        assert!(folder.published().is_empty(), "{what}");

        proxy.all_off();
        let mut process = flights(&folder, &env, &below, PACED);
        process.wait_until("a published file", |_| !folder.published().is_empty());
        proxy.refuse(status, code);
        let ended = process.wait().with_code(3);
        assert!(ended.stderr.contains(&said), "{what}: {ended}");

        proxy.all_off();
        let ended = flights(&folder, &env, &below, PACED).wait().with_code(0);
        assert!(ended.stderr.contains("resumes from checkpoint"), "{what}: {ended}");
        assert_same_output(&folder.output(), reference(), &what);
    }
}

/// A job on the bucket that was killed after some checkpoints.
fn killed(server: &Server, env: &Env, below: &str, config: &str) -> Flights {
    let folder = Flights::new();
    folder.write("cutwater.yaml", format!("execution.checkpointing.data-inline-threshold: 0\n{config}"));
    // Slow enough to be met in the midst of its work, however slow the store is.
    let mut process = flights(&folder, env, below, "--interval 50ms --pace 50000");
    let store = server.storage(&format!("{below}/flights"));
    process.wait_until("checkpoints", |_| Log::read_in(&store).completed().count() >= 3);
    process.kill();
    assert!(!Log::read_in(&store).finished(), "it was killed too late");
    folder
}

/// The name of a snapshot file of the newest checkpoint, in the bucket.
fn newest_file(server: &Server, below: &str) -> String {
    let job = format!("{below}/flights");
    let log = Log::read_in(&server.storage(&job));
    let newest = log.newest().expect("some have completed");
    format!("{job}/{}", newest.files().next().expect("it has state").name)
}

#[test]
fn a_bucket_that_lost_an_object_of_the_newest_checkpoint_is_told_by_its_name() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let env = server.env();
        let folder = killed(&server, &env, "lost", "");
        let lost = newest_file(&server, "lost");
        server.delete_object(&lost);
        let before = folder.published();
        let ended = flights(&folder, &env, "lost", PACED).wait().with_code(4);
        assert!(ended.stderr.contains(&format!("s3://{BUCKET}/{lost}")), "{kind}: {ended}");
        assert!(ended.stderr.starts_with("error["), "{kind}: {ended}");
        // What the newest checkpoint holds may have been published first: it has completed.
        let after = folder.published();
        assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "{kind}: output has changed");

        // With an older one to go back to, and leave to do so.
        let fall_back = "execution.checkpointing.num-retained: 3\ncutwater.state-recovery.fall-back: true\n";
        let folder = killed(&server, &env, "kept", fall_back);
        let lost = newest_file(&server, "kept");
        server.delete_object(&lost);
        let ended = flights(&folder, &env, "kept", PACED).wait().with_code(0);
        assert!(ended.stdout.contains("finished: 336776 flights"), "{kind}: {ended}");
        // What was published between the two checkpoints may be there twice.
        let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
        assert!(lines(&folder.output()) == lines(reference()), "{kind}: something is lost, or counted twice");
    }
}

#[test]
fn a_store_that_is_down_at_the_start_is_asked_once_whatever_the_output_holds() {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), SEED);
    let env = server.env_at(&proxy.endpoint());
    let folder = killed(&server, &server.env(), "away", "");
    assert!(!folder.published().is_empty(), "without output nothing is to be asked");
    proxy.down();
    let started = Instant::now();
    let ended = flights(&folder, &env, "away", PACED).wait().with_code(1);
    assert_eq!(ended.stderr.matches("given up after").count(), 1, "{ended}");
    assert!(ended.stderr.contains("s3://cutwater-tests/away"), "{ended}");
    let took = seconds(started);
    assert!((20.0..45.0).contains(&took), "one operation is tried for 30 s, and this took {took:.1} s: {ended}");
}
