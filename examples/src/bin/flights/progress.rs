//! What the job does, on standard error: a line that renews itself on a terminal, otherwise one now and then.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::Place;
use anyhow::Context;
use cutwater::{Attempt, JobError, JobHandle, JobOutcome, JobState, JobStatus};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the job is asked. Asking takes a lock that the job needs only at checkpoints, and some microseconds.
const TICK: Duration = Duration::from_millis(100);
/// The least time between two lines where standard error is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// Shows the job until it ends. `checkpoints` is where a resumed job's checkpoint was found, where that is one place for sure.
pub(crate) fn watch(handle: &JobHandle, checkpoints: Option<&Place>) -> anyhow::Result<Result<JobOutcome, JobError>> {
    thread::scope(|scope| {
        let (ended, end) = channel();
        let waiter = thread::Builder::new().name("flights-wait".to_owned());
        // A failed send means that nobody listens any more.
        let wait = move || drop(ended.send(handle.wait()));
        waiter.spawn_scoped(scope, wait).context("could not start a thread")?;
        let mut progress = Progress::new(checkpoints);
        loop {
            let result = end.recv_timeout(TICK);
            progress.update(&handle.status());
            match result {
                Ok(result) => {
                    progress.bar.finish_and_clear();
                    return Ok(result);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the job ended without a result"),
            }
        }
    })
}

/// Whether there is something to say where standard error is no terminal: while it runs, and while it restores.
fn is_told(status: &JobStatus) -> bool {
    status.state == JobState::Running || status.restore.as_ref().is_some_and(|restore| !restore.is_over)
}

struct Progress<'a> {
    checkpoints: Option<&'a Place>,
    bar: ProgressBar,
    /// The attempt that was announced.
    attempt: Option<Attempt>,
    failures: u32,
    checkpoint_failures: u64,
    /// Whether it was told that one is undecided.
    undecided: bool,
    /// The records of this attempt at the time of the last update, and the rate there.
    last: (u64, Duration),
    rate: f64,
    line_due: Duration,
}

impl<'a> Progress<'a> {
    fn new(checkpoints: Option<&'a Place>) -> Self {
        // Hidden by itself if that is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner:.cyan} {elapsed_precise} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            checkpoints,
            bar,
            attempt: None,
            failures: 0,
            checkpoint_failures: 0,
            undecided: false,
            last: (0, Duration::ZERO),
            rate: 0.0,
            line_due: LINE,
        }
    }

    fn update(&mut self, status: &JobStatus) {
        self.announce(status);
        self.measure(status.records_in);
        let line = self.line(status);
        if !self.bar.is_hidden() {
            self.bar.set_message(line);
            self.bar.tick();
        } else if self.bar.elapsed() >= self.line_due && is_told(status) {
            self.line_due = self.bar.elapsed() + LINE;
            eprintln!("{line}");
        }
    }

    /// Tells failures and new attempts, each once. What happens twice between two updates is told once.
    fn announce(&mut self, status: &JobStatus) {
        let failed = status.restarts > self.failures;
        if failed {
            self.failures = status.restarts;
            let reason = status.last_failure.as_deref().unwrap_or("unknown");
            self.say(&format!("failed, restart {} follows: {reason}", status.restarts));
        }
        if status.failed_checkpoints > self.checkpoint_failures {
            self.checkpoint_failures = status.failed_checkpoints;
            // One that made the attempt fail has been told.
            if !failed {
                let reason = status.last_checkpoint_failure.as_deref().unwrap_or("unknown");
                self.say(&format!("a checkpoint failed: {reason}"));
            }
        }
        if let Some(reason) = status.undecided.as_deref().filter(|_| !self.undecided) {
            self.say(&format!("a checkpoint is undecided until the store answers: {reason}"));
        }
        self.undecided = status.undecided.is_some();
        if matches!(status.state, JobState::Running | JobState::Finished) && status.attempt != self.attempt {
            let first = self.attempt.is_none();
            self.attempt = status.attempt;
            (self.last, self.rate) = ((0, self.bar.elapsed()), 0.0);
            let verb = if first { "resumes" } else { "goes on" };
            match status.restored {
                Some(checkpoint) => {
                    let place = self.checkpoints.map(|place| format!(" of {place}")).unwrap_or_default();
                    self.say(&format!("{verb} from checkpoint {checkpoint}{place}"));
                }
                None if first => self.say("starts from nothing"),
                None => self.say("starts again from nothing"),
            }
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// The rate over about a second.
    fn measure(&mut self, records: u64) {
        let (before, then) = self.last;
        let now = self.bar.elapsed();
        let passed = now.saturating_sub(then).as_secs_f64();
        if records < before {
            self.last = (records, now);
        } else if passed >= 1.0 || self.rate == 0.0 && passed > 0.05 {
            self.rate = (records - before) as f64 / passed;
            self.last = (records, now);
        }
    }

    fn line(&self, status: &JobStatus) -> String {
        if let Some(restore) = status.restore.as_ref().filter(|restore| !restore.is_over) {
            return format!("restores {restore}");
        }
        let mut line = format!("{} records, {}/s", HumanCount(status.records_in), HumanCount(self.rate as u64));
        match &status.last_checkpoint {
            Some(last) => {
                let (bytes, time) = (HumanBytes(last.bytes), last.duration.as_secs_f64() * 1e3);
                line += &format!(", checkpoint {}: {bytes}, {time:.1} ms", last.checkpoint);
            }
            None => line += ", no checkpoint yet",
        }
        line
    }
}
