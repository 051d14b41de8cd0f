//! `cutwater doctor` on bad disks, which takes mounts of our own, and before real object stores.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cutwater_integration_tests::{BUCKET, Ended, Kind, Mounts, Process, Server, program};
use futures_util::StreamExt as _;
use object_store::ObjectStore as _;

const SETTINGS: &str = "
execution.checkpointing:
  interval: 1 s
  dir: chk
state.backend.type: rocksdb
state.backend.rocksdb.localdir: state
";

fn doctor(folder: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(program("cutwater"));
    command.current_dir(folder).arg("doctor").args(options);
    if !options.contains(&"--limit") {
        command.args(["--limit", "60"]); // the disk may be busy
    }
    command
}

/// A folder with the settings, for mounts and for a doctor that leaves nothing in it.
fn machine(mount: &str) -> (tempfile::TempDir, Mounts) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cutwater.yaml"), SETTINGS).unwrap();
    for name in ["chk", "state"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let mounts = Mounts::new(folder.path(), mount);
    (folder, mounts)
}

/// The lines of the report with those that they are broken into made one again.
fn lines(ended: &Ended) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in ended.stdout.lines() {
        match (line.strip_prefix("         "), lines.last_mut()) {
            (Some(rest), Some(last)) => *last = format!("{last} {}", rest.trim_start()),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[track_caller]
fn assert_line(ended: &Ended, begins: &str, contains: &[&str]) {
    let found = lines(ended).into_iter().any(|line| {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        line.starts_with(begins) && contains.iter().all(|text| line.contains(text))
    });
    assert!(found, "no line begins with {begins:?} and contains {contains:?}: {ended}");
}

#[test]
fn bad_disks_are_told_with_their_folders() {
    type Line = (&'static str, &'static [&'static str]);
    let cases: [(&str, &str, i32, &[Line]); 6] = [
        (
            "a disk as it should be",
            "true",
            0,
            &[("ok checkpoints:", &["created once"]), ("ok RocksDB:", &["synced"]), ("ok disk of RocksDB:", &["free"])],
        ),
        (
            "checkpoints on a read-only disk",
            "mount --bind chk chk; mount -o remount,bind,ro chk",
            1,
            &[
                ("error checkpoints [STO0001]", &["the file system is read-only; mount it writable"]),
                (
                    "error disk of checkpoints [DOC0003]",
                    &["the file system is read-only", "execution.checkpointing.dir"],
                ),
            ],
        ),
        (
            "checkpoints on a full disk",
            "mount -t tmpfs -o size=64k none chk; head -c 64k /dev/zero >chk/filler",
            1,
            &[
                ("error checkpoints [STO0001]", &["no space left"]),
                ("error disk of checkpoints [DOC0004]", &["0 B of 64.0 KiB are free", "make room"]),
                ("warning disk of checkpoints [DOC0005]", &["is in memory (tmpfs)"]),
            ],
        ),
        (
            "no inodes for checkpoints",
            "mount -t tmpfs -o size=64m,nr_inodes=20 none chk",
            1,
            &[("error disk of checkpoints [DOC0004]", &["19 of 20 inodes", "make room"])],
        ),
        (
            "RocksDB on a full disk",
            "mount -t tmpfs -o size=64k none state; head -c 64k /dev/zero >state/filler",
            1,
            &[
                ("error RocksDB [DOC0003]", &["state can't be written to: No space left on device", "make room"]),
                ("error disk of RocksDB [DOC0004]", &["0 B of 64.0 KiB are free", "state.backend.rocksdb.localdir"]),
            ],
        ),
        (
            "RocksDB in memory",
            "mount -t tmpfs -o size=2g none state",
            0,
            &[
                ("ok RocksDB:", &["synced and locked"]),
                ("warning disk of RocksDB [DOC0005]", &["is in memory (tmpfs)", "a folder of a local disk"]),
            ],
        ),
    ];
    for (name, mount, code, expected) in cases {
        let (folder, mounts) = machine(mount);
        let before = mounts.run(folder.path(), "find . ! -name 'process-*' | sort").stdout;
        let ended = Process::start(&mut mounts.enter(&doctor(folder.path(), &[])), folder.path()).wait();
        assert_eq!(ended.code, Some(code), "{name}: {ended}");
        for (begins, contains) in expected {
            assert_line(&ended, begins, contains);
        }
        let after = mounts.run(folder.path(), "find . ! -name 'process-*' | sort").stdout;
        assert_eq!(after, before, "{name}: the doctor left something behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn object_stores_are_tried_as_a_job_would() {
    let url = format!("execution.checkpointing.dir=s3://{BUCKET}/jobs");
    let missing = "execution.checkpointing.dir=s3://no-such-bucket-here/jobs";
    for kind in Kind::ALL {
        let mut server = Server::start(kind);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cutwater.yaml"), "execution.checkpointing.interval: 1 s\n").unwrap();
        let run = |server: &Server, options: &[&str], key: Option<&str>| {
            let mut command = doctor(folder.path(), options);
            command.envs(server.env()).env_remove("AWS_PROFILE");
            if let Some(key) = key {
                command.env("AWS_SECRET_ACCESS_KEY", key);
            }
            Process::start(&mut command, folder.path()).wait()
        };
        let good = run(&server, &["-D", &url], None).with_code(0);
        assert_line(&good, "ok checkpoints:", &["s3://", "created once, read and deleted"]);
        let left: Vec<_> = server.store().list(None).collect().await;
        assert!(left.is_empty(), "{kind}: {left:?}");

        let wrong = run(&server, &["-D", &url], Some("wrong-secret-of-mine")).with_code(1);
        assert_line(
            &wrong,
            "error checkpoints [STO0001]",
            &["the store does not accept the credentials of this process"],
        );
        assert!(!wrong.stdout.contains("wrong-secret-of-mine"), "{kind}: {wrong}");
        let no_bucket = run(&server, &["-D", missing], None).with_code(1);
        // SeaweedFS does not let somebody with the rights to one bucket know of others.
        let said = ["there is no such bucket; create it", "permission denied"];
        let found = lines(&no_bucket).into_iter().find(|line| line.starts_with("error    checkpoints [STO0001]"));
        assert!(found.is_some_and(|line| said.iter().any(|text| line.contains(text))), "{kind}: {no_bucket}");

        server.stop();
        let down = run(&server, &["-D", &url, "--limit", "1"], None).with_code(1);
        assert_line(&down, "error checkpoints [STO0001]", &["see whether it runs and can be reached from here"]);
        assert!(down.time.as_secs() < 20, "{kind}: {down}");
    }
}
