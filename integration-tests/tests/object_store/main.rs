//! Real processes with their checkpoints on real object stores: killed at any moment and at each durable step, resumed from
//! another folder and at another parallelism, two at once, behind a proxy that makes requests fail, and stores that are down
//! or refuse. Their output is that of a run that nobody disturbed.

mod down;
mod faults;
mod fights;
mod kills;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod savepoints;
mod starts;
mod stepped;
mod steps;

use std::process::Command;
use std::sync::OnceLock;

use cutwater_integration_tests::{BUCKET, Ended, Flights, Process, program};

const SEED: u64 = 20_130_301;
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

fn cutwater(folder: &Flights, env: &Env, arguments: &str) -> Ended {
    let mut command = Command::new(program("cutwater"));
    command.current_dir(folder.path()).args(arguments.split_whitespace()).envs(env.clone());
    Process::start(&mut command, folder.path()).wait()
}
