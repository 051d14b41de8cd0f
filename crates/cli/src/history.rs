//! `cutwater checkpoints history`.

use std::time::Duration;

use cutwater_runtime::{
    CheckpointHistory, CheckpointStatistics, CheckpointStatisticsSummary, CheckpointStatus, Distribution,
    StatisticsError, SubtaskStatistics, read_statistics,
};
use serde::Serialize;

use crate::failure::{Exit, Failure, chain};
use crate::folder::{JobFolder, jobs, nanos, only_job};
use crate::report::{Problem, ProblemKind, Report};
use crate::text::{count, duration, safe, size, table, time, wrap};

/// What was kept of the checkpoints of all jobs of a folder.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    schema: &'static str,
    jobs: Vec<Job>,
    /// Show the subtasks.
    #[serde(skip)]
    details: bool,
}

#[derive(Debug, Serialize)]
struct Job {
    job: String,
    folder: String,
    /// Missing if nothing was kept, or if it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<Statistics>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Statistics {
    written_at_unix_ms: u64,
    restored: u64,
    completed: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
    /// Newest first.
    checkpoints: Vec<CheckpointStatistics>,
}

/// The completed checkpoints of the history in figures.
#[derive(Debug, Serialize)]
struct Summary {
    checkpoints: u64,
    duration_ns: Spread,
    written_bytes: Spread,
    full_bytes: Spread,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    min: u64,
    max: u64,
    avg: u64,
    p50: u64,
    p95: u64,
    p99: u64,
}

pub(crate) fn gather(location: &str, checkpoint: Option<u64>) -> Result<History, Failure> {
    let folders = if checkpoint.is_some() { vec![only_job(location)?] } else { jobs(location)? };
    let jobs: Vec<_> = folders.iter().map(|folder| one(folder, checkpoint)).collect::<Result<_, _>>()?;
    Ok(History { schema: "cutwater.checkpoints.history/1", jobs, details: checkpoint.is_some() })
}

fn one(folder: &JobFolder, only: Option<u64>) -> Result<Job, Failure> {
    let path = folder.path.display().to_string();
    let name = || folder.path.file_name().map_or_else(String::new, |name| name.display().to_string());
    match read_statistics(folder.store.as_ref()) {
        Ok(found) => {
            let job = found.as_ref().map_or_else(name, |found| found.job.clone());
            let statistics = found.map(|found| Statistics::of(&found.history, found.written_at_unix_ms, only));
            let shown = statistics.iter().map(|statistics| statistics.checkpoints.len()).sum::<usize>();
            if let (Some(only), 0) = (only, shown) {
                let message = format!("the statistics in {path} have nothing of checkpoint {only}");
                return Err(Failure::new(Exit::NotFound, message));
            }
            Ok(Job { job, folder: path, statistics, problems: Vec::new() })
        }
        Err(error) => {
            let problems = vec![problem(folder, &error)];
            Ok(Job { job: name(), folder: path, statistics: None, problems })
        }
    }
}

fn problem(folder: &JobFolder, error: &StatisticsError) -> Problem {
    let of = |file: String, kind, reason: String| Problem { code: error.code(), ..Problem::new(file, kind, reason) };
    match error {
        StatisticsError::Damaged { name, reason } => {
            let reason = format!("{reason}; delete it, a job that runs writes another one");
            of(folder.path_of(name), ProblemKind::Damaged, reason)
        }
        StatisticsError::NewerFormat { name, found, known } => {
            let reason = format!("it has format version {found}, this program knows up to {known}: use a newer one");
            of(folder.path_of(name), ProblemKind::NewerFormat, reason)
        }
        StatisticsError::Store(_) | _ => of(folder.path_of("statistics"), ProblemKind::Unreadable, chain(error)),
    }
}

impl Statistics {
    /// `only`: of the checkpoints of this number, of which each epoch may have one.
    fn of(history: &CheckpointHistory, written_at_unix_ms: u64, only: Option<u64>) -> Self {
        let counts = history.counts();
        let wanted = |it: &&CheckpointStatistics| only.is_none_or(|only| it.checkpoint.0 == only);
        Self {
            written_at_unix_ms,
            restored: counts.restored,
            completed: counts.completed,
            failed: counts.failed,
            summary: history.summary().as_ref().map(Summary::of),
            checkpoints: history.checkpoints().filter(wanted).cloned().collect(),
        }
    }

    fn text(&self) -> String {
        let Self { written_at_unix_ms, restored, completed, failed, .. } = self;
        let (written, restores) = (time(*written_at_unix_ms), count(*restored, "restore"));
        let mut out = format!("  until {written} UTC: {completed} completed, {failed} failed; {restores}\n");
        if self.checkpoints.is_empty() {
            return out + "  no checkpoint\n";
        }
        let titles = [">ID", ">EPOCH", "KIND", "STATUS", "TRIGGERED (UTC)", ">TOOK", ">WRITTEN"];
        out += &table(2, &titles, self.checkpoints.iter().map(row).collect());
        for failed in self.checkpoints.iter().filter(|it| it.status == CheckpointStatus::Failed) {
            let reason = failed.failure.as_deref().unwrap_or("it is not said why");
            out += &wrap(&format!("  checkpoint {} failed: ", failed.checkpoint), reason);
        }
        out
    }
}

fn row(checkpoint: &CheckpointStatistics) -> Vec<String> {
    vec![
        checkpoint.checkpoint.to_string(),
        checkpoint.epoch.to_string(),
        checkpoint.kind.name().to_owned(),
        checkpoint.status.name().to_owned(),
        time(checkpoint.triggered_at_unix_ms),
        duration(checkpoint.duration),
        size(checkpoint.written_bytes),
    ]
}

/// One checkpoint with its subtasks.
fn details(checkpoint: &CheckpointStatistics) -> String {
    let CheckpointStatistics { attempt, full_bytes, files, total_subtasks, .. } = checkpoint;
    let (state, files) = (size(*full_bytes), count(*files, "file"));
    let told = checkpoint.subtasks.len();
    let metadata = checkpoint.metadata_bytes.map(|bytes| format!("; record {}", size(bytes))).unwrap_or_default();
    let mut out = format!("\ncheckpoint {} of epoch {}, attempt {attempt}\n", checkpoint.checkpoint, checkpoint.epoch);
    out += &format!(
        "  state {state}, {files}{metadata}; {told} of {} acknowledged\n",
        count((*total_subtasks).into(), "subtask")
    );
    let mut task = None;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let titles = [">SUBTASK", ">START", ">ALIGN", ">SYNC", ">ASYNC", ">WRITTEN", ">STATE"];
    for subtask in &checkpoint.subtasks {
        if task != Some(subtask.subtask.task) {
            out += &some(&titles, &mut rows);
            out += &format!("  {}: {}\n", subtask.subtask.task, safe(&subtask.task));
            task = Some(subtask.subtask.task);
        }
        rows.push(subtask_row(subtask));
    }
    out + &some(&titles, &mut rows)
}

/// The rows as a table, if there are any, and takes them.
fn some(titles: &[&str], rows: &mut Vec<Vec<String>>) -> String {
    if rows.is_empty() { String::new() } else { table(4, titles, std::mem::take(rows)) }
}

fn subtask_row(subtask: &SubtaskStatistics) -> Vec<String> {
    vec![
        subtask.subtask.index.to_string(),
        duration(subtask.start_delay),
        duration(subtask.alignment),
        duration(subtask.sync),
        duration(subtask.asynchronous),
        size(subtask.written_bytes),
        size(subtask.full_bytes),
    ]
}

impl Summary {
    fn of(summary: &CheckpointStatisticsSummary) -> Self {
        Self {
            checkpoints: summary.checkpoints,
            duration_ns: Spread::of(summary.duration, nanos),
            written_bytes: Spread::of(summary.written_bytes, |bytes| bytes),
            full_bytes: Spread::of(summary.full_bytes, |bytes| bytes),
        }
    }

    fn text(&self) -> String {
        let took = |ns| duration(Duration::from_nanos(ns));
        let rows = vec![
            self.duration_ns.row("duration", took),
            self.written_bytes.row("written", size),
            self.full_bytes.row("state", size),
        ];
        let completed = format!("{} COMPLETED", self.checkpoints);
        "\n".to_owned() + &table(2, &[&completed, ">MIN", ">P50", ">AVG", ">P95", ">P99", ">MAX"], rows)
    }
}

impl Spread {
    fn of<T>(spread: Distribution<T>, number: fn(T) -> u64) -> Self {
        let Distribution { min, max, avg, p50, p95, p99 } = spread;
        Self {
            min: number(min),
            max: number(max),
            avg: number(avg),
            p50: number(p50),
            p95: number(p95),
            p99: number(p99),
        }
    }

    fn row(self, what: &str, text: fn(u64) -> String) -> Vec<String> {
        let Self { min, max, avg, p50, p95, p99 } = self;
        std::iter::once(what.to_owned()).chain([min, p50, avg, p95, p99, max].map(text)).collect()
    }
}

impl Report for History {
    fn text(&self) -> String {
        let of_job = |job: &Job| {
            let mut out = format!("job {} in {}\n", safe(&job.job), safe(&job.folder));
            match &job.statistics {
                Some(statistics) => {
                    out += &statistics.text();
                    match (self.details, &statistics.summary) {
                        (true, _) => out.extend(statistics.checkpoints.iter().map(details)),
                        (false, Some(summary)) => out += &summary.text(),
                        (false, None) => {}
                    }
                }
                None if job.problems.is_empty() => out += "  no statistics: no checkpoint has ended yet\n",
                None => out += "  no statistics that can be read\n",
            }
            out
        };
        self.jobs.iter().map(of_job).collect::<Vec<_>>().join("\n")
    }

    fn problems(&self) -> Vec<&Problem> {
        self.jobs.iter().flat_map(|job| &job.problems).collect()
    }
}
