//! `cutwater checkpoints gc --dry-run`: what nobody needs. Deleting is the job's own work: only it knows what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cutwater_coordinator::inspect::{boundary_of, epoch_of_snapshot, first_slot, slot_of};
use cutwater_coordinator::{CompletedCheckpoint, FileRef};
use cutwater_core::Epoch;
use cutwater_runtime::is_statistics_name;
use cutwater_storage::Leftover;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::folder::{JobFolder, Log, jobs, unreadable};
use crate::report::{Problem, Report};
use crate::text::{count, safe, size, table, wrap};

/// How many objects of a kind the text names; the document has all.
const SHOWN: usize = 50;
/// Deeper than any name of ours.
const DEEPEST: usize = 8;

/// What nobody needs in the folders of all jobs.
#[derive(Debug, Serialize)]
pub(crate) struct Garbage {
    schema: &'static str,
    dry_run: bool,
    jobs: Vec<Job>,
}

#[derive(Debug, Default, Serialize)]
struct Job {
    job: String,
    folder: String,
    garbage_bytes: u64,
    /// What nobody needs.
    garbage: Vec<Object>,
    may_be_in_use_bytes: u64,
    /// What no record names, and somebody may be working at.
    may_be_in_use: Vec<Object>,
    /// It has done all that it ever will, and is not started again.
    over: bool,
    /// Names that are none of the job's.
    not_of_the_job: Vec<Object>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Object {
    name: String,
    /// Not known of unfinished uploads where the store does not tell.
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
}

/// What an object is that no retained checkpoint needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Why {
    /// A snapshot file that no record names.
    Orphan,
    /// A snapshot file of a checkpoint that is not retained any more.
    Subsumed,
    /// A slot of the log below its boundary.
    BelowBoundary,
    /// What a writer had not finished.
    Temporary,
    /// An upload in parts that has not ended.
    UnfinishedUpload,
    /// The trial object of a start of the job.
    Probe,
    /// Statistics that are not the newest.
    OldStatistics,
    /// A snapshot file of which nobody can tell, since the log can't be read whole.
    LogDamaged,
}

enum Verdict {
    Needed,
    Garbage(Why),
    MayBeInUse(Why),
    NotOfTheJob,
}

pub(crate) fn gather(location: &str, dry_run: bool) -> Result<Garbage, Failure> {
    if !dry_run {
        let message = "deleting is the job's own work, at its next start, since only it knows what is in use: say \
                       --dry-run to see what nobody needs";
        return Err(Failure::new(Exit::Usage, message));
    }
    let jobs = jobs(location)?.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Garbage { schema: "cutwater.checkpoints.gc/1", dry_run, jobs })
}

fn one(folder: &JobFolder) -> Result<Job, Failure> {
    // First the listing: what a job that runs completes meanwhile is then named by the log.
    let (mut found, mut unfinished) = (Vec::new(), Vec::new());
    match folder.local {
        true => walk(&folder.path, "", DEEPEST, &mut found)?,
        false => {
            let listed = folder.store.list("")?;
            found.extend(listed.into_iter().map(|listed| (listed.name.to_string(), listed.bytes)));
            unfinished = folder.store.leftovers("")?;
        }
    }
    let log = folder.log()?;
    let known = Known::of(&log, &found);
    let mut job = Job { job: log.job.clone(), folder: folder.path.display().to_string(), ..Job::default() };
    for (name, bytes) in found {
        let (list, sum, why) = match known.judge(&name) {
            Verdict::Needed => continue,
            Verdict::Garbage(why) => (&mut job.garbage, Some(&mut job.garbage_bytes), Some(why)),
            Verdict::MayBeInUse(why) => (&mut job.may_be_in_use, Some(&mut job.may_be_in_use_bytes), Some(why)),
            Verdict::NotOfTheJob => (&mut job.not_of_the_job, None, None),
        };
        if let Some(sum) = sum {
            *sum = sum.saturating_add(bytes);
        }
        list.push(Object { name, bytes: Some(bytes), why });
    }
    for Leftover { path: name, bytes } in unfinished {
        let (list, sum) = match known.ended {
            true => (&mut job.garbage, &mut job.garbage_bytes),
            false => (&mut job.may_be_in_use, &mut job.may_be_in_use_bytes),
        };
        *sum = sum.saturating_add(bytes.unwrap_or(0));
        list.push(Object { name, bytes, why: Some(Why::UnfinishedUpload) });
    }
    job.over = log.outcome().is_some_and(|(outcome, _)| outcome.is_final());
    job.problems = log.problems;
    Ok(job)
}

/// All plain files below a folder, with hidden ones, by name. Links are not followed.
fn walk(path: &Path, prefix: &str, deepest: usize, found: &mut Vec<(String, u64)>) -> Result<(), Failure> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        entries.push(entry.map_err(|error| unreadable(path, &error))?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().display());
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && deepest > 0 => {
                walk(&entry.path(), &format!("{name}/"), deepest - 1, found)?;
            }
            Ok(metadata) if metadata.is_file() => found.push((name, metadata.len())),
            Ok(_) => {}
            // A job that runs has deleted it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&entry.path(), &error)),
        }
    }
    Ok(())
}

/// What the log says of names.
struct Known<'a> {
    first_slot: u64,
    retained: BTreeSet<&'a str>,
    subsumed: BTreeSet<&'a str>,
    newest_statistics: Option<String>,
    /// Files of this epoch and of later ones may be of a checkpoint that is being taken.
    in_use_from: Epoch,
    ended: bool,
    whole: bool,
}

impl<'a> Known<'a> {
    fn of(log: &'a Log, found: &[(String, u64)]) -> Self {
        let names = |checkpoint: &'a CompletedCheckpoint| checkpoint.files().map(|file: &FileRef| file.name.as_str());
        let boundaries = found.iter().filter_map(|(name, _)| boundary_of(name));
        let statistics = found.iter().map(|(name, _)| name).filter(|name| is_statistics_name(name));
        let last = log.entries.values().next_back();
        let ended = log.outcome().is_some();
        // The epoch of a process rises when the fate of a record has to be settled; files of before are still its own.
        let own = last.map(|last| log.entries.values().filter(|entry| entry.process == last.process));
        let first = own.and_then(|own| own.map(|entry| entry.epoch).min()).unwrap_or(Epoch(0));
        Self {
            first_slot: first_slot(boundaries.max().unwrap_or(0)),
            retained: log.retained().flat_map(names).collect(),
            subsumed: log.checkpoints().flat_map(names).collect(),
            newest_statistics: statistics.max().cloned(),
            in_use_from: if ended { last.map_or(first, |last| last.epoch.next()) } else { first },
            ended,
            whole: log.problems.is_empty(),
        }
    }

    fn judge(&self, name: &str) -> Verdict {
        let last = name.rsplit('/').next().unwrap_or(name);
        if let Some(slot) = slot_of(name) {
            return if slot < self.first_slot { Verdict::Garbage(Why::BelowBoundary) } else { Verdict::Needed };
        }
        if boundary_of(name).is_some() || self.retained.contains(name) {
            return Verdict::Needed;
        }
        if let Some(epoch) = epoch_of_snapshot(name) {
            return self.judge_snapshot(name, epoch);
        }
        if is_statistics_name(name) {
            return match (self.newest_statistics.as_deref() == Some(name), self.ended) {
                (true, _) => Verdict::Needed,
                (false, true) => Verdict::Garbage(Why::OldStatistics),
                (false, false) => Verdict::MayBeInUse(Why::OldStatistics),
            };
        }
        match (last.starts_with(".cutwater-"), self.ended) {
            (true, true) => Verdict::Garbage(Why::Temporary),
            // There is no epoch in its name: it may be half of a file that is being written now.
            (true, false) => Verdict::MayBeInUse(Why::Temporary),
            (false, _) if name.starts_with("cutwater-probe-") => Verdict::MayBeInUse(Why::Probe),
            (false, _) => Verdict::NotOfTheJob,
        }
    }

    fn judge_snapshot(&self, name: &str, epoch: Epoch) -> Verdict {
        let why = if self.subsumed.contains(name) { Why::Subsumed } else { Why::Orphan };
        match (self.whole, epoch < self.in_use_from) {
            (false, _) => Verdict::MayBeInUse(Why::LogDamaged),
            (true, true) => Verdict::Garbage(why),
            (true, false) => Verdict::MayBeInUse(why),
        }
    }
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Orphan => "no record names it",
            Self::Subsumed => "checkpoint not kept",
            Self::BelowBoundary => "below the boundary",
            Self::Temporary => "not finished",
            Self::UnfinishedUpload => "upload not finished",
            Self::Probe => "trial of a start",
            Self::OldStatistics => "old statistics",
            Self::LogDamaged => "log is damaged",
        }
    }
}

impl Report for Garbage {
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
        out += &section("nobody needs", &self.garbage, self.garbage_bytes);
        if !self.may_be_in_use.is_empty() {
            out += &section("may be in use", &self.may_be_in_use, self.may_be_in_use_bytes);
        }
        if !self.not_of_the_job.is_empty() {
            out += &format!("  not of the job: {}\n", count(self.not_of_the_job.len() as u64, "file"));
        }
        if self.garbage.is_empty() {
            return out;
        }
        let deletes = match self.over {
            true => "nothing was deleted: the job is over, so nobody does it if not you",
            false => "nothing was deleted: the job does that itself when it is started again",
        };
        out + &wrap("  ", deletes)
    }
}

fn section(what: &str, objects: &[Object], bytes: u64) -> String {
    if objects.is_empty() {
        return format!("  {what}: nothing\n");
    }
    let files = count(objects.len() as u64, "file");
    let mut out = format!("  {what}: {files}, {}\n", size(bytes));
    let row = |object: &Object| {
        let bytes = object.bytes.map_or_else(|| "?".to_owned(), size);
        vec![object.name.clone(), bytes, object.why.map_or("", Why::text).to_owned()]
    };
    out += &table(4, &["NAME", ">SIZE", "WHY"], objects.iter().take(SHOWN).map(row).collect());
    let kinds = objects.iter().skip(SHOWN).fold(BTreeMap::new(), |mut kinds, object| {
        *kinds.entry(object.why.map_or("", Why::text)).or_insert(0u64) += 1;
        kinds
    });
    for (why, more) in kinds {
        out += &format!("    and {} more ({why}): --json names them\n", count(more, "file"));
    }
    out
}
