//! What a configuration says is what runs.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use cutwater_config::{Config, Settings};
use cutwater_dataflow::{Collect, Job, generator};
use cutwater_runtime::{JobError, JobOutcome, Options, run, spawn};

/// Runs a job of some size, written as `numbers`.
fn run_with(settings: Settings, folder: &Path) -> Result<JobOutcome, JobError> {
    let job = Job::new("numbers");
    job.source("numbers", generator(20_000, |n| n))
        .key_by(|n| *n)
        .fold("texts", String::new(), |text, n| *text = format!("{:0>100}", n % 3))
        .sink("out", Collect::<(u64, String)>::default());
    let settings = settings.enable_checkpointing(Duration::from_secs(60)).checkpoint_storage(folder.to_str().unwrap());
    run(job.build().unwrap(), Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap())
}

/// The bytes of the largest file.
fn largest(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = entries
        .map(|entry| if entry.path().is_dir() { largest(&entry.path()) } else { entry.metadata().unwrap().len() });
    sizes.max().unwrap_or(0)
}

#[test]
fn a_job_takes_the_name_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run_with(Settings::new().job_name("daily.numbers"), folder.path()).unwrap(), JobOutcome::Finished);
    assert!(folder.path().join("daily.numbers/log").is_dir());
    assert!(!folder.path().join("numbers").exists());
    let again = run_with(Settings::new().job_name("daily.numbers"), folder.path()).unwrap();
    assert_eq!(again, JobOutcome::AlreadyFinished, "it is known by that name");

    let job = Job::new("numbers");
    job.source("numbers", generator(1, |n| n)).sink("out", Collect::<u64>::default());
    let options = Options { name: Some("../elsewhere".to_owned()), ..Options::new() };
    let error = spawn(job.build().unwrap(), options).err().unwrap();
    assert_eq!(error.code(), "JOB0006");
    let error = error.to_string();
    assert!(error.contains("job numbers") && error.contains("../elsewhere"), "{error}");
}

#[test]
fn snapshots_are_compressed_if_the_configuration_says_so() {
    let [plain, packed] = ["false", "true"].map(|value| {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new().set("execution.checkpointing.snapshot-compression", value);
        assert_eq!(run_with(settings, folder.path()).unwrap(), JobOutcome::Finished);
        largest(folder.path())
    });
    assert!(plain > 20_000 * 100 && packed < plain / 4, "{packed} of {plain} bytes");
}

/// Whether they can be read is a matter of the build; that they are not passed over is not.
#[test]
fn keys_of_object_stores_reach_them_or_are_refused() {
    let settings = Settings::new().set("s3.endpoint", "http://192.0.2.1:9000").checkpoint_storage("s3://bucket/jobs");
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap());
    let error = options.map(|_| ()).unwrap_err();
    #[cfg(not(feature = "object-store"))]
    {
        let expected = "set by the program: `s3.endpoint` needs the feature `s3`: build the program with `--features s3`, \
                        or leave the key out";
        assert_eq!((error.to_string().as_str(), error.code()), (expected, "OPT0004"));
    }
    #[cfg(feature = "object-store")]
    assert_eq!(error.code(), "STO0008", "{error}: an endpoint elsewhere without TLS");

    let settings = Settings::new().set("cutwater.object-store.parallelism", "4").checkpoint_storage("memory:");
    let options = Options::from_config(&Config::new().code(settings).resolve().unwrap());
    assert_eq!(options.is_ok(), cfg!(feature = "object-store"));
}
