//! SIGINT and SIGTERM: the first stops a job in order, the second cancels it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::error::JobError;
use crate::job::JobHandle;

/// The jobs that mind signals, each with how many it has had.
static JOBS: Mutex<Vec<(Weak<JobHandle>, u32)>> = Mutex::new(Vec::new());
/// Whether signals are heard. It can't be undone without losing those that come meanwhile, so who hears them once hears
/// them for ever, and does what would have happened when no job runs.
static HEARD: OnceLock<Result<(), String>> = OnceLock::new();

/// Has the job mind SIGINT and SIGTERM as under [`run`](crate::run), until its handle is dropped. The process then minds
/// them for good: while no such job runs they do what they would have done.
///
/// # Errors
///
/// [`JobError::Options`] if the process can't listen for signals.
pub fn stop_on_signals(handle: &Arc<JobHandle>) -> Result<(), JobError> {
    let heard = HEARD.get_or_init(|| {
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
        let thread = std::thread::Builder::new().name("cutwater-signals".to_owned());
        let heard = thread.spawn(move || signals.forever().for_each(on_signal));
        heard.map(drop).map_err(|error| error.to_string())
    });
    if let Err(reason) = heard {
        let reason = format!("could not listen for signals: {reason}; start it with spawn()");
        return Err(JobError::Options { job: handle.status().job, reason });
    }
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.retain(|(job, _)| job.strong_count() > 0);
    jobs.push((Arc::downgrade(handle), 0));
    Ok(())
}

fn on_signal(signal: i32) {
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.retain(|(job, _)| job.strong_count() > 0);
    for (job, signals) in jobs.iter_mut() {
        let Some(job) = job.upgrade() else { continue };
        *signals += 1;
        if *signals == 1 { job.stop_in_order() } else { job.cancel() }
    }
    if jobs.is_empty() {
        drop(jobs);
        drop(emulate_default_handler(signal)); // mostly the end of the process
    }
}
