//! `cutwater savepoint`: looks into savepoints, checks, copies and deletes them.

use std::sync::Arc;

use cutwater_coordinator::{MAX_SAVEPOINT_BYTES, SAVEPOINT_NAME, Savepoint};
use cutwater_runtime::{CopyError, copy_savepoint, delete_savepoint};
use cutwater_storage::{InvalidLocation, LocalFolder, ObjectName, Store, read_checked};
use serde::Serialize;

use crate::failure::{Exit, Failure, chain};
use crate::folder::{JobFolder, Log, folder_at, remote};
use crate::inspect::Inspection;
use crate::report::{Problem, Report};
use crate::text::{count, safe, size};
use crate::verify::{self, Verified};

/// The savepoint in a folder.
fn open(location: &str) -> Result<(JobFolder, Savepoint), Failure> {
    let folder = folder_at(location)?;
    let name = ObjectName::parse(SAVEPOINT_NAME).expect("a plain word");
    let is_whole = |bytes: &[u8]| Savepoint::decode(SAVEPOINT_NAME, bytes).is_ok();
    let Some(bytes) = read_checked(folder.store.as_ref(), &name, MAX_SAVEPOINT_BYTES, is_whole)? else {
        let path = safe(&folder.path.display().to_string());
        let message = format!("{path} is no savepoint, or one that was not finished: it has no file {SAVEPOINT_NAME}");
        return Err(Failure::new(Exit::NotFound, message));
    };
    let savepoint = Savepoint::decode(&folder.path_of(SAVEPOINT_NAME), &bytes);
    let savepoint = savepoint.map_err(|error| Failure::new(Exit::Damaged, chain(&error)))?;
    Ok((folder, savepoint))
}

pub(crate) fn inspect(location: &str) -> Result<Inspection, Failure> {
    let (folder, savepoint) = open(location)?;
    let checkpoint = &savepoint.checkpoint;
    let log = Log::of_one(checkpoint);
    Ok(Inspection::of(&folder, &log, checkpoint, SAVEPOINT_NAME, "cutwater.savepoint.inspect/1"))
}

/// What was read, and every problem met.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    schema: &'static str,
    ok: bool,
    job: String,
    folder: String,
    #[serde(flatten)]
    verified: Verified,
}

pub(crate) fn verify(location: &str) -> Result<Verification, Failure> {
    let (folder, savepoint) = open(location)?;
    let verified = verify::files(&folder, &savepoint.checkpoint, SAVEPOINT_NAME);
    Ok(Verification {
        schema: "cutwater.savepoint.verify/1",
        ok: verified.problems.is_empty(),
        job: savepoint.checkpoint.job,
        folder: folder.path.display().to_string(),
        verified,
    })
}

impl Report for Verification {
    fn text(&self) -> String {
        let head = format!("savepoint of job {} in {}\n", safe(&self.job), safe(&self.folder));
        head + &self.verified.line()
    }

    fn problems(&self) -> Vec<&Problem> {
        self.verified.problems.iter().collect()
    }

    fn text_has_problems(&self) -> bool {
        true
    }
}

/// What was done to a savepoint.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    schema: &'static str,
    job: String,
    checkpoint: u64,
    files: u64,
    file_bytes: u64,
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

impl Done {
    fn of(schema: &'static str, savepoint: &Savepoint, from: &JobFolder, to: Option<String>) -> Self {
        Self {
            schema,
            job: savepoint.checkpoint.job.clone(),
            checkpoint: savepoint.checkpoint.checkpoint.0,
            files: savepoint.checkpoint.stored_files().count() as u64,
            file_bytes: savepoint.checkpoint.stored_files().fold(0, |sum, file| sum.saturating_add(file.bytes)),
            from: from.path.display().to_string(),
            to,
        }
    }
}

impl Report for Done {
    fn text(&self) -> String {
        let Self { job, checkpoint, files, file_bytes, from, to, .. } = self;
        let (job, files, bytes) = (safe(job), count(*files, "file"), size(*file_bytes));
        let did = match to {
            Some(to) => format!("copied, and each byte checked, to {}\n", safe(to)),
            None => format!("deleted from {}\n", safe(from)),
        };
        format!("savepoint of checkpoint {checkpoint} of job {job}: {files}, {bytes}\n{did}")
    }

    fn problems(&self) -> Vec<&Problem> {
        Vec::new()
    }
}

pub(crate) fn copy(location: &str, to: &str) -> Result<Done, Failure> {
    let (folder, savepoint) = open(location)?;
    let (target, to): (Arc<dyn Store>, _) = match LocalFolder::parse(to) {
        Ok(target) => {
            let path = target.path().display().to_string();
            if target.path().read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Failure::new(Exit::Usage, format!("{} is not empty: name a new folder", safe(&path))));
            }
            (Arc::new(target), Some(path))
        }
        Err(InvalidLocation::OtherScheme { .. }) => {
            let target = remote(to)?;
            let url = target.url();
            if !target.list("")?.is_empty() {
                return Err(Failure::new(Exit::Usage, format!("{} is not empty: name a new folder", safe(&url))));
            }
            (target, Some(url))
        }
        Err(error) => return Err(Failure::new(Exit::Usage, error.to_string())),
    };
    copy_savepoint(&savepoint, folder.store.as_ref(), target.as_ref()).map_err(|error| failed(&error))?;
    Ok(Done::of("cutwater.savepoint.copy/1", &savepoint, &folder, to))
}

pub(crate) fn delete(location: &str) -> Result<Done, Failure> {
    let (folder, savepoint) = open(location)?;
    delete_savepoint(&savepoint, folder.store.as_ref()).map_err(|error| failed(&error))?;
    // What is left are empty folders. One in which somebody keeps something else stays.
    if folder.local {
        drop(std::fs::remove_dir(folder.path.join("chk")));
        drop(std::fs::remove_dir(&folder.path));
    }
    Ok(Done::of("cutwater.savepoint.delete/1", &savepoint, &folder, None))
}

fn failed(error: &CopyError) -> Failure {
    let exit = match error {
        CopyError::Missing { .. } | CopyError::Damaged { .. } | CopyError::Savepoint { .. } => Exit::Damaged,
        CopyError::Name(_) | CopyError::Store(_) | CopyError::Create { .. } | _ => Exit::Failed,
    };
    Failure::new(exit, chain(error))
}
