//! Stores that do not speak S3's protocol: Azure's, by the emulator that Microsoft makes. What it must do for checkpoints, and
//! the real `flights` process with its checkpoints there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cutwater_integration_tests::{
    Azurite, BUCKET, Ended, Flights, Kind, Process, Server, assert_same_output, program, sleep,
};

/// A run takes not quite a second.
const PACE: &str = "400000";

type Env = [(&'static str, String)];

/// A program with this environment and nothing else that concerns stores.
fn start(path: &Path, folder: &Path, env: &Env, arguments: &[&str]) -> Process {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "AZURE_", "AZURITE_", "GOOGLE_"].iter().any(|family| name.starts_with(family)) {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value))).env("HOME", folder);
    Process::start(command.current_dir(folder).args(arguments), folder)
}

fn store_check(folder: &Path, env: &Env, url: &str) -> Ended {
    start(Path::new(env!("CARGO_BIN_EXE_store-check")), folder, env, &[url]).wait()
}

/// The program with its checkpoints at the URL, at so many records a second.
fn flights(folder: &Flights, env: &Env, checkpoints: &str, pace: &str, more: &[&str]) -> Process {
    let paced = ["--out", "out", "--checkpoints", checkpoints, "--interval", "50ms", "--pace", pace];
    start(&program("flights"), folder.path(), env, &[&paced[..], more].concat())
}

fn cutwater(folder: &Flights, env: &Env, arguments: &[&str]) -> Ended {
    start(&program("cutwater"), folder.path(), env, arguments).wait()
}

fn reference() -> Vec<u8> {
    let flights = Flights::new();
    drop(flights.run("").with_code(0));
    flights.output()
}

#[test]
fn each_store_does_what_checkpoints_need() {
    let folder = Flights::new();
    for kind in Kind::ALL {
        let server = Server::start(kind);
        let ended = store_check(folder.path(), &server.env(), &format!("s3://{BUCKET}/check")).with_code(0);
        assert_eq!(ended.stdout.matches("ok ").count(), 7, "{kind}: {ended}");
        assert_eq!((server.objects(), server.uploads()), (Vec::new(), Vec::new()), "{kind}: something is left");
    }
    let azurite = Azurite::start();
    for (way, env) in [("endpoint", azurite.env()), ("emulator", azurite.env_of_emulator())] {
        let ended = store_check(folder.path(), &env, &format!("az://{BUCKET}/check")).with_code(0);
        assert_eq!(ended.stdout.matches("ok ").count(), 7, "{way}: {ended}");
        assert_eq!(azurite.objects(false), [""; 0], "{way}: something is left");
        // Nobody can take parts back there: the service lets them go after a week. They are in nobody's way.
        assert_eq!(azurite.objects(true), ["check/swept/object"], "{way}");
    }
}

#[test]
fn flights_on_azure_are_killed_and_go_on_from_another_folder() {
    let azurite = Azurite::start();
    let env = azurite.env();
    let reference = reference();
    for (round, moment) in [300, 500, 700].into_iter().enumerate() {
        let url = format!("az://{BUCKET}/flights-{round}");
        let folder = Flights::new();
        // A run that was over before the kill is checked like the others.
        drop(flights(&folder, &env, &url, PACE, &["--parallelism", "2"]).kill_at(Duration::from_millis(moment)));
        let folder = folder.copy();
        drop(flights(&folder, &env, &url, PACE, &["--parallelism", "3"]).wait().with_code(0));
        assert_same_output(&folder.output(), &reference, &format!("killed after {moment} ms"));
        let listed = cutwater(&folder, &env, &["checkpoints", "list", &url]).with_code(0);
        assert!(listed.stdout.contains("flights"), "{listed}");
        drop(cutwater(&folder, &env, &["checkpoints", "verify", &format!("{url}/flights")]).with_code(0));
    }
    assert!(azurite.objects(false).iter().all(|name| !name.contains(".uploads")), "{:?}", azurite.objects(false));
}

#[test]
fn of_two_processes_on_azure_the_later_wins() {
    let azurite = Azurite::start();
    let (env, url) = (azurite.env(), format!("az://{BUCKET}/fight"));
    let (first, second) = (Flights::new(), Flights::new());
    let mut earlier = flights(&first, &env, &url, "50000", &[]);
    earlier.wait_until("a checkpoint", |_| azurite.objects(false).iter().any(|name| name.contains("flights/log/")));
    sleep(Duration::from_millis(300));
    drop(flights(&second, &env, &url, PACE, &[]).wait());
    earlier.wait().with_code(3).saying(&["superseded by epoch"]);
}

#[test]
fn what_is_wrong_on_azure_is_said_at_the_start() {
    let azurite = Azurite::start();
    let with = |name: &str, value: &str| {
        let mut env = azurite.env();
        env.iter_mut().filter(|(variable, _)| *variable == name).for_each(|entry| entry.1 = value.to_owned());
        env
    };
    let other_key = "0".repeat(64);
    let (here, nowhere) = (format!("az://{BUCKET}/refused"), "az://no-such-container/refused".to_owned());
    let cases = [
        ("another key", with("AZURE_STORAGE_ACCOUNT_KEY", &other_key), &here, "account key does not belong", 1),
        ("elsewhere without TLS", with("AZURE_STORAGE_ENDPOINT", "http://192.0.2.1/a"), &here, "AZURE_ALLOW_HTTP", 2),
        ("no such container", azurite.env(), &nowhere, "there is no such bucket", 1),
    ];
    for (case, env, url, text, code) in cases {
        let folder = Flights::new();
        let ended = flights(&folder, &env, url, PACE, &[]).wait().with_code(code);
        assert!(ended.stderr.contains(text) && ended.stderr.starts_with("error[STO000"), "{case}: {ended}");
        let key = &env[1].1;
        assert!(!ended.stderr.contains(key.as_str()) && !ended.stdout.contains(key.as_str()), "{case}: {ended}");
    }
}
