//! A savepoint in one bucket, copied to another.

use cutwater_integration_tests::{BUCKET, Flights, Kind, Log, Server, assert_same_output};

use crate::{PACED, cutwater, flights, reference, start};

const OTHER: &str = "cutwater-tests-copies";

#[test]
fn a_savepoint_copied_to_another_bucket_outlives_the_first() {
    for (kind, parallelism) in Kind::ALL.into_iter().zip([3, 2]) {
        let server = Server::start(kind);
        let env = server.env();
        server.create_bucket(OTHER);
        let folder = Flights::new();
        let options = format!("{PACED} --savepoints s3://{BUCKET}/savepoints");
        let mut process = flights(&folder, &env, "jobs", &options);
        let store = server.storage("jobs/flights");
        process.wait_until("checkpoints", |_| Log::read_in(&store).completed().count() >= 2);
        process.signal("TERM");
        let ended = process.wait().with_code(0);
        let told = ended.stdout.lines().find_map(|line| line.strip_prefix("stopped with savepoint "));
        let savepoint = told.and_then(|told| told.split(';').next()).unwrap_or_else(|| panic!("{kind}: {ended}"));
        assert!(savepoint.starts_with(&format!("s3://{BUCKET}/savepoints/")), "{kind}: {savepoint}");

        let copy = format!("s3://{OTHER}/moved/here");
        let copied = cutwater(&folder, &env, &format!("savepoint copy {savepoint} {copy}"));
        assert_eq!(copied.code, Some(0), "{kind}: {copied}");
        server.objects().iter().for_each(|name| server.delete_object(name));
        server.remove_bucket(BUCKET);
        let verified = cutwater(&folder, &env, &format!("savepoint verify {copy}"));
        assert_eq!(verified.code, Some(0), "{kind}: {verified}");

        let folder = folder.copy();
        let options = format!("{PACED} --from {copy} --parallelism {parallelism}");
        let checkpoints = format!("s3://{OTHER}/jobs");
        let ended = start(&folder, &env, &checkpoints, &options).wait().with_code(0);
        assert!(ended.stderr.contains("resumes from checkpoint"), "{kind}: {ended}");
        assert_same_output(&folder.output(), reference(), &format!("{kind}, at parallelism {parallelism}"));
        assert_eq!(folder.unpublished(), [""; 0], "{kind}");
    }
}
