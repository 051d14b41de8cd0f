//! `cutwater checkpoints verify`.

use cutwater_coordinator::inspect::slot_name;
use cutwater_coordinator::{CompletedCheckpoint, TaskSnapshot};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::folder::{JobFolder, Log, jobs, only_job};
use crate::report::{Problem, ProblemKind, Report};
use crate::snapshot::{InlineParts, Owner};
use crate::text::{count, safe, size};

/// What was read, and every problem met.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    schema: &'static str,
    ok: bool,
    jobs: Vec<Job>,
}

#[derive(Debug, Serialize)]
struct Job {
    job: String,
    folder: String,
    log_records: u64,
    log_problems: Vec<Problem>,
    checkpoints: Vec<Verified>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Verified {
    checkpoint: u64,
    files: u64,
    file_bytes: u64,
    blocks: u64,
    entries: u64,
    /// The job runs and let go of it meanwhile, so that missing files mean nothing.
    subsumed_meanwhile: bool,
    pub(crate) problems: Vec<Problem>,
}

pub(crate) fn gather(location: &str, checkpoint: Option<u64>) -> Result<Verification, Failure> {
    let folders = if checkpoint.is_some() { vec![only_job(location)?] } else { jobs(location)? };
    let jobs: Vec<_> = folders.iter().map(|folder| one(folder, checkpoint)).collect::<Result<_, _>>()?;
    let ok = jobs.iter().all(|job| job.problems().next().is_none());
    Ok(Verification { schema: "cutwater.checkpoints.verify/1", ok, jobs })
}

fn one(folder: &JobFolder, only: Option<u64>) -> Result<Job, Failure> {
    let log = folder.log()?;
    let wanted: Vec<_> =
        log.retained().filter(|checkpoint| only.is_none_or(|only| checkpoint.checkpoint.0 == only)).collect();
    if let (Some(only), true, true) = (only, wanted.is_empty(), log.problems.is_empty()) {
        let message = format!("checkpoint {only} is not retained; these are: {}", log.retained_ids());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let checkpoints = wanted.into_iter().map(|checkpoint| verify(folder, checkpoint)).collect::<Result<_, _>>()?;
    let Log { job, entries, problems: log_problems, .. } = log;
    let folder = folder.path.display().to_string();
    Ok(Job { job, folder, log_records: entries.len() as u64, log_problems, checkpoints })
}

fn verify(folder: &JobFolder, checkpoint: &CompletedCheckpoint) -> Result<Verified, Failure> {
    let mut verified = files(folder, checkpoint, &slot_name(checkpoint.slot));
    // A job that runs may have completed another checkpoint and deleted the files of this one.
    let missing = verified.problems.iter().any(|problem| problem.kind == ProblemKind::Missing);
    if missing && !folder.log()?.retained.contains(&checkpoint.slot) {
        verified.problems.retain(|problem| problem.kind != ProblemKind::Missing);
        verified.subsumed_meanwhile = true;
    }
    Ok(verified)
}

/// Reads all files of a checkpoint, whose record is this object.
pub(crate) fn files(folder: &JobFolder, checkpoint: &CompletedCheckpoint, record: &str) -> Verified {
    let mut verified = Verified { checkpoint: checkpoint.checkpoint.0, ..Verified::default() };
    let of_record = |reason: String| Problem::new(folder.path_of(record), ProblemKind::Damaged, reason);
    let mut inline = InlineParts::default();
    for task in &checkpoint.tasks {
        verified.problems.extend(incomplete(task).map(of_record));
        for subtask in &task.subtasks {
            verified.problems.extend(inline.add(subtask).err().map(of_record));
            let owner = Owner { folder, checkpoint, task, subtask };
            let mut before = None;
            for file in &subtask.files {
                verified.files += 1;
                verified.file_bytes = verified.file_bytes.saturating_add(file.bytes);
                match owner.verify(file, &mut before) {
                    Ok(checked) => {
                        verified.blocks += checked.blocks;
                        verified.entries += checked.entries;
                    }
                    Err(problem) => verified.problems.push(problem),
                }
            }
        }
    }
    verified
}

/// Whether some subtask has neither a part nor finished before.
fn incomplete(task: &TaskSnapshot) -> Option<String> {
    let there = |index: &u32| {
        task.finished.contains(index) || task.subtasks.iter().any(|subtask| subtask.subtask.index == *index)
    };
    let missing = (0..task.parallelism).find(|index| !there(index))?;
    Some(format!("it has no part of subtask {missing} of {} ({})", task.parallelism, task.name))
}

impl Job {
    fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.log_problems.iter().chain(self.checkpoints.iter().flat_map(|checkpoint| &checkpoint.problems))
    }

    fn text(&self) -> String {
        let mut out = format!("job {} in {}\n", safe(&self.job), safe(&self.folder));
        out += &line(format!("log: {}", count(self.log_records, "record")), &self.log_problems);
        for checkpoint in &self.checkpoints {
            out += &checkpoint.line();
        }
        if self.checkpoints.is_empty() {
            out += "  no checkpoint to verify\n";
        }
        out
    }
}

fn line(what: String, problems: &[Problem]) -> String {
    let verdict = match problems.len() as u64 {
        0 => "ok".to_owned(),
        problems => count(problems, "problem"),
    };
    format!("  {what:<66}  {verdict}\n") + &problems.iter().map(indented).collect::<String>()
}

impl Verified {
    pub(crate) fn line(&self) -> String {
        let Self { checkpoint: id, files, file_bytes, entries, problems, subsumed_meanwhile, .. } = self;
        let (files, unit) = (count(*files, "file"), if *entries == 1 { "entry" } else { "entries" });
        let mut what = format!("checkpoint {id}: {files}, {}, {entries} {unit}", size(*file_bytes));
        if *subsumed_meanwhile {
            what += ", let go meanwhile";
        }
        line(what, problems)
    }
}

fn indented(problem: &Problem) -> String {
    problem.text().lines().map(|line| format!("    {line}\n")).collect()
}

impl Report for Verification {
    fn text(&self) -> String {
        self.jobs.iter().map(Job::text).collect::<Vec<_>>().join("\n")
    }

    fn problems(&self) -> Vec<&Problem> {
        self.jobs.iter().flat_map(Job::problems).collect()
    }

    fn text_has_problems(&self) -> bool {
        true
    }
}
