//! `cutwater checkpoints list`.

use cutwater_coordinator::Outcome;
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::{JobFolder, Summary, jobs};
use crate::report::{Problem, Report};
use crate::text::{count, safe, size, table, time, wrap};

/// All jobs of a folder.
#[derive(Debug, Serialize)]
pub(crate) struct List {
    schema: &'static str,
    jobs: Vec<Job>,
}

#[derive(Debug, Serialize)]
struct Job {
    job: String,
    folder: String,
    /// `finished`, `canceled`, `failed`, `stopped`, `drained`, or `open`: it runs, or was killed.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Where the savepoint was made that a job was stopped behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    savepoint: Option<String>,
    /// Whether the checkpoints were deleted when the job ended, as it was set to.
    checkpoints_deleted: bool,
    /// Oldest first.
    checkpoints: Vec<Summary>,
    /// How many more there are, with `--all`.
    not_shown: u64,
    problems: Vec<Problem>,
}

pub(crate) fn gather(location: &str, all: bool) -> Result<List, Failure> {
    let jobs = jobs(location)?.iter().map(|folder| one(folder, all)).collect::<Result<_, _>>()?;
    Ok(List { schema: "cutwater.checkpoints.list/1", jobs })
}

fn one(folder: &JobFolder, all: bool) -> Result<Job, Failure> {
    let log = folder.log()?;
    let ended = log.outcome();
    let checkpoints_deleted = ended.is_some_and(|(_, discarded)| discarded);
    let (outcome, failure, savepoint) = match ended.map(|(outcome, _)| outcome) {
        None => ("open", None, None),
        Some(Outcome::Finished) => ("finished", None, None),
        Some(Outcome::Canceled) => ("canceled", None, None),
        Some(Outcome::Failed(reason)) => ("failed", Some(reason.clone()), None),
        Some(Outcome::Stopped { savepoint, drained: false }) => ("stopped", None, savepoint.clone()),
        Some(Outcome::Stopped { savepoint, drained: true }) => ("drained", None, savepoint.clone()),
    };
    let (shown, hidden): (Vec<_>, Vec<_>) =
        log.checkpoints().map(|checkpoint| Summary::of(checkpoint, &log)).partition(|summary| all || summary.retained);
    let (folder, not_shown) = (folder.path.display().to_string(), hidden.len() as u64);
    let (job, problems) = (log.job, log.problems);
    Ok(Job { job, folder, outcome, failure, savepoint, checkpoints_deleted, checkpoints: shown, not_shown, problems })
}

impl Report for List {
    fn text(&self) -> String {
        self.jobs.iter().map(Job::text).collect::<Vec<_>>().join("\n")
    }

    fn problems(&self) -> Vec<&Problem> {
        self.jobs.iter().flat_map(|job| &job.problems).collect()
    }
}

impl Job {
    fn text(&self) -> String {
        let mut out = format!("job {} in {}\n", safe(&self.job), safe(&self.folder));
        if self.checkpoints.is_empty() {
            out += "  no checkpoint\n";
        } else {
            let titles = [">ID", ">EPOCH", ">ATTEMPT", "COMPLETED (UTC)", ">TOOK", ">STATE", "KEPT", "FINAL"];
            out += &table(2, &titles, self.checkpoints.iter().map(row).collect());
        }
        if self.not_shown > 0 {
            let what = count(self.not_shown, "older checkpoint");
            out += &format!("  and {what} no longer retained (see --all)\n");
        }
        out += &match (self.outcome, &self.failure) {
            ("failed", Some(reason)) => wrap("  outcome: failed: ", reason),
            ("open", _) => "  outcome: none recorded; the job runs, or was killed\n".to_owned(),
            (outcome, _) => match &self.savepoint {
                Some(savepoint) => wrap(&format!("  outcome: {outcome} with savepoint "), savepoint),
                None => format!("  outcome: {outcome}\n"),
            },
        };
        if self.checkpoints_deleted {
            out += "  its checkpoints were deleted with that, as it was set to\n";
        }
        out
    }
}

fn row(summary: &Summary) -> Vec<String> {
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    vec![
        summary.checkpoint.to_string(),
        summary.epoch.to_string(),
        summary.attempt.to_string(),
        time(summary.completed_at_unix_ms),
        summary.took(),
        size(summary.state_bytes),
        yes(summary.retained),
        yes(summary.final_),
    ]
}
