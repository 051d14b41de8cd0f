//! The real `flights` process with its checkpoints on real object stores: killed at any moment, resumed from another folder
//! and at another parallelism, behind a proxy that makes requests fail. Its output is that of a run that nobody disturbed.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cutwater_integration_tests::{
    BUCKET, Fault, Flights, Kind, Process, Proxy, Rates, Rng, Server, Times, assert_same_output, program, sleep,
};

const SEED: u64 = 20_130_301;
const KILLS: usize = 6;
const PACED: &str = "--interval 50ms --pace 400000";

fn reference() -> &'static [u8] {
    static REFERENCE: OnceLock<Vec<u8>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let flights = Flights::new();
        drop(flights.run("").with_code(0));
        flights.output()
    })
}

type Env = [(&'static str, String); 4];

/// The program with its checkpoints below a folder of the bucket.
fn flights(folder: &Flights, env: &Env, below: &str, options: &str) -> Process {
    start(folder, env, &format!("s3://{BUCKET}/{below}"), options)
}

fn start(folder: &Flights, env: &Env, checkpoints: &str, options: &str) -> Process {
    let mut command = Command::new(program("flights"));
    command.current_dir(folder.path()).args(["--out", "out", "--checkpoints", checkpoints]);
    Process::start(command.args(options.split_whitespace()).envs(env.clone()), folder.path())
}

fn cutwater(folder: &Flights, env: &Env, arguments: &str) -> cutwater_integration_tests::Ended {
    let mut command = Command::new(program("cutwater"));
    command.current_dir(folder.path()).args(arguments.split_whitespace()).envs(env.clone());
    Process::start(&mut command, folder.path()).wait()
}

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

#[test]
fn a_store_that_fails_in_every_way_changes_nothing_in_the_output() {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), SEED);
    proxy.set_times(Times {
        hold: Duration::from_millis(300),
        late: Duration::from_millis(200),
        slow: Duration::from_millis(100),
    });
    let faults = [
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
    proxy.set(Rates::of(&faults, 0.01));
    let env = server.env_at(&proxy.endpoint());
    for round in 0..4 {
        let folder = Flights::new();
        let below = format!("faults-{round}");
        drop(flights(&folder, &env, &below, PACED).kill_at(Duration::from_millis(300 + 150 * round)));
        drop(flights(&folder, &env, &below, PACED).wait().with_code(0));
        assert_same_output(&folder.output(), reference(), &format!("round {round}"));
    }
    let counts = proxy.counts();
    println!("{counts}");
    assert!(counts.injected() > 0, "no request met a fault");
}

#[test]
fn a_store_that_is_down_for_a_while_holds_only_checkpoints_up() {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), SEED);
    let env = server.env_at(&proxy.endpoint());
    let folder = Flights::new();
    let mut process = flights(&folder, &env, "down", "--interval 50ms --pace 100000");
    process.wait_until("a published file", |_| !folder.published().is_empty());
    proxy.down();
    let before = folder.published().len();
    sleep(Duration::from_secs(1));
    let meanwhile = folder.published().len();
    proxy.up();
    let ended = process.wait().with_code(0);
    // What was committed before may be published a moment after.
    assert!(meanwhile <= before + 1, "{meanwhile} files after {before}: something was published without a commit");
    assert!(ended.stdout.contains("0 restarts"), "{ended}");
    assert_same_output(&folder.output(), reference(), "a store that was down");
}

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
