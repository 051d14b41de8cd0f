//! Several jobs in one process, and what is seen of them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_dataflow::{Collect, Job, JobGraph, UserError, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{JobHandle, JobOutcome, JobState, Metric, Options, spawn, store_at};

const RECORDS: u64 = 200_000;

fn job(name: &str, out: &Collect<(u64, u64)>, fails_at: Option<u64>) -> JobGraph {
    let job = Job::new(name);
    job.source("numbers", generator(RECORDS, |n| n))
        .key_by(|n| n % 10)
        .process("counts", move |cx: &mut cutwater_dataflow::ProcessContext<'_, u64, u64, (u64, u64)>, n| {
            if Some(n) == fails_at {
                return Err(UserError::from("planned"));
            }
            *cx.state()? += 1;
            let count = *cx.state()?;
            cx.emit((*cx.key(), count));
            Ok(())
        })
        .sink("out", out.clone());
    job.build().unwrap()
}

fn options(folder: &std::path::Path) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(5)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 2, delay: Duration::ZERO });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(2).unwrap();
    options
}

#[test]
fn of_several_jobs_one_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let outs: Vec<Collect<(u64, u64)>> = (0..4).map(|_| Collect::default()).collect();
    let handles: Vec<JobHandle> = outs
        .iter()
        .enumerate()
        .map(|(at, out)| {
            let fails_at = (at == 2).then_some(RECORDS / 2);
            spawn(job(&format!("job-{at}"), out, fails_at), options(folder.path())).unwrap()
        })
        .collect();
    for (at, (handle, out)) in handles.iter().zip(&outs).enumerate() {
        let ended = handle.wait();
        if at == 2 {
            let error = ended.unwrap_err();
            assert!(error.to_string().contains("job job-2 failed after 2 restarts"), "{error}");
            assert_eq!(handle.status().state, JobState::Failed);
        } else {
            assert_eq!(ended.unwrap(), JobOutcome::Finished, "job {at}");
            assert_eq!(out.take().len() as u64, RECORDS, "job {at}");
        }
    }
}

#[test]
fn the_figures_of_a_job_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::default();
    let handle = spawn(job("seen", &out, None), options(folder.path())).unwrap();
    handle.wait().unwrap();
    let status = handle.status();
    assert_eq!(status.subtasks.len(), 4, "two sources, two counts: {:?}", status.subtasks);
    let sum = |records: &[cutwater_runtime::SubtaskStatus]| records.iter().map(|it| it.records).sum::<u64>();
    assert_eq!((sum(&status.subtasks[..2]), sum(&status.subtasks[2..])), (RECORDS, RECORDS));
    assert!(status.subtasks.iter().all(|subtask| subtask.busy > Duration::ZERO), "{:?}", status.subtasks);

    let metrics = handle.metrics();
    let all = |name: &str| metrics.iter().filter(|metric| metric.name == name).collect::<Vec<&Metric>>();
    let completed = all("number_of_completed_checkpoints")[0].value;
    assert!(completed >= 1.0 && (completed - status.completed_checkpoints as f64).abs() < 0.5, "{completed}");
    let records: f64 = all("num_records_in").iter().map(|metric| metric.value).sum();
    assert!((records - 2.0 * RECORDS as f64).abs() < 0.5, "{records}");
    let names: Vec<&str> = all("num_records_in")[3].labels.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["job", "task", "subtask"]);
    assert!(metrics.iter().all(|metric| metric.to_string().starts_with("cutwater_")));
}
