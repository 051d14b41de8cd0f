//! A configuration file alone says how a store is reached: no variable of the environment, on a real MinIO.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cutwater_integration_tests::{
    BUCKET, Ended, Flights, Kind, Process, Server, assert_same_output, cutwater, program,
};

/// The program in its folder, where its configuration is, with no other place to learn of the store.
fn start(name: &str, folder: &Path, arguments: &str) -> Process {
    let mut command = Command::new(program(name));
    command.env_clear().env("HOME", folder).current_dir(folder).args(arguments.split_whitespace());
    Process::start(&mut command, folder)
}

fn of(server: &Server, name: &str) -> String {
    server.env().into_iter().find(|(variable, _)| *variable == name).expect("it is in the environment").1
}

/// In Flink's words of old and of today.
fn configuration(server: &Server) -> String {
    format!(
        "execution.checkpointing.dir: s3://{BUCKET}/jobs\nexecution.checkpointing.interval: 50 ms\n\
         s3:\n  endpoint: {}\n  access-key: {}\n  secret-key: {}\n  path.style.access: true\n  region: us-east-1\n\
         cutwater.object-store:\n  deadline: 5 s\n  request-timeout: 2 s\n  parallelism: 4\n  upload-rate: 100 mb\n",
        server.endpoint(),
        of(server, "AWS_ACCESS_KEY_ID"),
        of(server, "AWS_SECRET_ACCESS_KEY"),
    )
}

fn shows_no_secret(ended: Ended, secret: &str) -> Ended {
    assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended}");
    ended
}

#[test]
fn a_file_alone_brings_a_job_to_its_store() {
    let server = Server::start(Kind::MinIo);
    let secret = of(&server, "AWS_SECRET_ACCESS_KEY");
    let reference = Flights::new();
    drop(reference.run("").with_code(0));

    let folder = Flights::new();
    folder.write("cutwater.yaml", configuration(&server));
    drop(start("flights", folder.path(), "--out out --pace 400000").kill_at(Duration::from_millis(500)));
    // What is left of the job is found and read with the same file.
    let ended = start("flights", folder.path(), "--out out --pace 400000").wait().with_code(0);
    shows_no_secret(ended, &secret);
    assert_same_output(&folder.output(), &reference.output(), "resumed");
    assert!(server.objects().iter().any(|name| name.starts_with("jobs/flights/log/")), "{:?}", server.objects());

    // Started from there by another job, whose file is another.
    let other = Flights::new();
    other.write("store.yaml", configuration(&server).replace("/jobs", "/others"));
    let from = format!("--out out --config store.yaml --from s3://{BUCKET}/jobs/flights");
    drop(start("flights", other.path(), &from).wait().with_code(0));
    assert!(server.objects().iter().any(|name| name.starts_with("others/flights/log/")), "{:?}", server.objects());
    let stranger = Flights::new();
    stranger.write("store.yaml", configuration(&server).replace(&secret, "not-the-secret-of-it"));
    // A store that lets nobody in is no damage.
    drop(start("flights", stranger.path(), &from).wait().with_code(1));

    // The tool reads no file in passing; variables say the same.
    let list = format!("checkpoints list s3://{BUCKET}/jobs");
    let refused = start("cutwater", folder.path(), &list).wait();
    assert_ne!(refused.code, Some(0), "{refused}");
    let mut command = Command::new(program("cutwater"));
    command.env_clear().env("HOME", folder.path()).current_dir(folder.path()).args(list.split_whitespace());
    command.env("CUTWATER_S3_ENDPOINT", server.endpoint()).env("CUTWATER_S3_SECRET_KEY", &secret);
    command.env("CUTWATER_S3_ACCESS_KEY", of(&server, "AWS_ACCESS_KEY_ID"));
    let listed = Process::start(&mut command, folder.path()).wait().with_code(0);
    assert!(listed.stdout.contains("flights"), "{listed}");
    let shown = shows_no_secret(cutwater(folder.path(), "config show --origin"), &secret).with_code(0);
    assert!(shown.stdout.contains("# s3.secret-key: set, and not shown"), "{shown}");
}

/// What a file says counts for more than what the environment says of the store, which belongs to other programs.
#[test]
fn keys_count_more_than_the_variables_of_other_programs() {
    let server = Server::start(Kind::MinIo);
    let folder = Flights::new();
    folder.write("cutwater.yaml", configuration(&server));
    let run = |text: &str| {
        let mut command = Command::new(program("flights"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        let others = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
            ("AWS_ACCESS_KEY_ID", "nobody"),
            ("AWS_SECRET_ACCESS_KEY", "nothing"),
            ("AWS_SESSION_TOKEN", "stale"),
        ];
        command.envs(others).args(["--out", text]);
        Process::start(&mut command, folder.path()).wait()
    };
    drop(run("first").with_code(0));

    let secret = of(&server, "AWS_SECRET_ACCESS_KEY");
    folder.write("cutwater.yaml", configuration(&server).replace(&secret, "not-the-secret-of-it"));
    let refused = shows_no_secret(run("second").with_code(1), "not-the-secret-of-it");
    assert!(refused.stderr.contains("SignatureDoesNotMatch"), "{refused}");
    folder.write("cutwater.yaml", configuration(&server).replace("secret-key", "# secret-key"));
    let refused = run("third").with_code(2);
    assert!(
        refused.stderr.starts_with("error[CFG0006]") && refused.stderr.contains("set `s3.secret-key` too"),
        "{refused}"
    );
}
