//! A store that is down for a while.

use std::time::Duration;

use cutwater_integration_tests::{BUCKET, Flights, Kind, Process, Proxy, Server, assert_same_output, sleep, tell};

use crate::{SEED, cutwater, flights, reference};

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

/// What the process says each five seconds: records and checkpoint.
fn told(process: &Process) -> Vec<(u64, u64)> {
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
    let text = process.stderr();
    let lines = text.lines().filter_map(|line| {
        let (records, rest) = line.split_once(" records, ")?;
        let checkpoint = rest.split_once(", checkpoint ")?.1.split(':').next()?;
        Some((number(records)?, number(checkpoint)?))
    });
    lines.collect()
}

/// Longer than the 30 s that one operation is tried for.
const DOWN: Duration = Duration::from_secs(60);

#[test]
fn a_store_that_is_down_for_a_minute_fails_checkpoints_with_a_reason_and_the_job_works_on_and_recovers() {
    down_for_a_minute("files", "execution.checkpointing.data-inline-threshold: 0", "a checkpoint failed: ");
}

/// The record is all that there is to store.
#[test]
fn small_state_on_a_store_that_is_down_for_a_minute_is_undecided_with_a_reason_and_recovers() {
    down_for_a_minute("small", "execution.checkpointing.data-inline-threshold: 20 kb", "a checkpoint is undecided ");
}

fn down_for_a_minute(below: &str, inline: &str, reason: &str) {
    let server = Server::start(Kind::MinIo);
    let proxy = Proxy::start(server.address(), SEED);
    let env = server.env_at(&proxy.endpoint());
    let folder = Flights::new();
    let config = "execution.checkpointing.tolerable-failed-checkpoints: 100\nweb.checkpoints.history: 1000\n";
    folder.write("cutwater.yaml", format!("{config}{inline}\n"));
    let mut process = flights(&folder, &env, below, "--interval 200ms --pace 4400");
    process.wait_until("its first words", |process| !told(process).is_empty());
    let (records, checkpoint) = told(&process)[0];

    proxy.down();
    sleep(Duration::from_secs(1)); // what was committed before may be published a moment after
    let published = folder.published().len();
    sleep(DOWN - Duration::from_secs(1));
    assert_eq!(folder.published().len(), published, "something was published without a commit");
    let meanwhile = told(&process);
    let &(later, stuck) = meanwhile.last().expect("it has told before");
    assert!(stuck <= checkpoint + 2, "checkpoint {stuck} completed on a store that was down, after {checkpoint}");
    let rate = (later - records) / DOWN.as_secs();
    assert!(rate > 3_000, "{rate} records a second: {meanwhile:?}");
    let failures = process.stderr().matches(reason).count();
    assert!(failures >= 1, "{}", process.stderr());
    assert!(process.stderr().contains("given up after"), "{}", process.stderr());

    proxy.up();
    let before_up = told(&process).len();
    process.wait_until("checkpoints again", |process| {
        told(process).iter().skip(before_up).any(|(_, checkpoint)| *checkpoint > stuck + 2)
    });
    assert!(folder.published().len() > published);
    let ended = process.wait().with_code(0);
    let history = cutwater(&folder, &env, &format!("checkpoints history --json s3://{BUCKET}/{below}")).with_code(0);
    assert!(ended.stdout.contains("0 restarts"), "{ended}");
    assert_same_output(&folder.output(), reference(), "a store that was down for a minute");
    // An undecided one may have completed in the end.
    assert!(history.stdout.contains("given up after") || below == "small", "{history}");
    tell(&format!("{DOWN:?} without a store: {rate} records a second, {failures} reasons told\n{}", ended.stderr));
}
