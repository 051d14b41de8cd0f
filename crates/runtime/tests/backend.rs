//! A state backend that can't be used keeps the job from starting, whatever restarts it may have.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use cutwater_dataflow::{Collect, Job, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{JobError, JobOutcome, Options, spawn};
use cutwater_state::{Capabilities, ColdError, StateBackend};

#[derive(Debug)]
struct Backend {
    is_broken: bool,
}

impl StateBackend for Backend {
    fn name(&self) -> &'static str {
        "of-a-test"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn prepare(&self) -> Result<(), ColdError> {
        let error = ColdError { action: "make the folder /x".into(), reason: "there is none".into() };
        if self.is_broken { Err(error) } else { Ok(()) }
    }
}

#[test]
fn a_backend_that_cant_be_used_keeps_the_job_from_starting() {
    for is_broken in [true, false] {
        let out = Collect::<u64>::default();
        let job = Job::new("numbers");
        job.source("numbers", generator(10, |n| n)).sink("out", out.clone());
        let mut options = Options::new();
        options.backend = Arc::new(Backend { is_broken });
        options.restart = Some(Strategy::FixedDelay { attempts: u32::MAX, delay: Duration::ZERO });
        let handle = spawn(job.build().unwrap(), options).unwrap();
        let ended = handle.wait();
        if !is_broken {
            assert_eq!((ended.unwrap(), out.take().len()), (JobOutcome::Finished, 10));
            continue;
        }
        let error = ended.unwrap_err();
        assert!(matches!(error, JobError::Backend { backend: "of-a-test", .. }), "{error:?}");
        assert_eq!(error.code(), "JOB0009");
        assert_eq!(error.to_string(), "job numbers has not started: the state backend of-a-test can't be used");
        assert_eq!(error.source().unwrap().to_string(), "make the folder /x: there is none");
        assert_eq!((handle.status().restarts, out.take().len()), (0, 0), "nothing was begun");
    }
}
