//! The statistics as an object beside the checkpoints: JSON that people and tools can read, with a checksum.
//!
//! ```text
//! statistics/<epoch>-<number>.json      twenty digits each, so that names sort as numbers do
//! {"schema":"cutwater.statistics/1","crc32c":"0a1b2c3d","statistics":{...}}
//! ```
//! The sum is of the bytes of the object behind `"statistics":`. The newest object has the whole history.

use cutwater_core::Epoch;
use cutwater_storage::{ObjectName, Store, StoreError, StoreErrorKind};
use serde::{Deserialize, Serialize};

use super::{CheckpointCounts, CheckpointHistory, CheckpointStatistics};

/// The folder of the objects, below that of the job.
pub(crate) const FOLDER: &str = "statistics/";
/// The most bytes of an object. A history that has more loses its oldest half, again and again.
const MAX_BYTES: u64 = 16 << 20;
/// What a known version begins with, up to the number.
const SCHEMA: &str = "cutwater.statistics/";
const VERSION: u32 = 1;
/// How often the newest object is looked for, if a job that runs has deleted it meanwhile.
const TRIES: u32 = 5;

/// Statistics of checkpoints as they were found beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStatistics {
    /// The job.
    pub job: String,
    /// When they were written, in ms since 1970-01-01 UTC. A job that runs writes them every few seconds.
    pub written_at_unix_ms: u64,
    /// The checkpoints and the counts.
    pub history: CheckpointHistory,
}

/// Why statistics can't be read. They are for people: the job and its checkpoints don't depend on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatisticsError {
    /// They are not as they were written.
    #[error("{name} is damaged: {reason}; delete it, the job writes another one")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A newer version wrote them.
    #[error("{name} has format version {found}, this program knows up to {known}: use a newer version of the program")]
    NewerFormat {
        /// The object.
        name: String,
        /// Its version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize)]
struct Written<'a> {
    job: &'a str,
    written_at_unix_ms: u64,
    restored: u64,
    completed: u64,
    failed: u64,
    /// Oldest first.
    checkpoints: &'a [&'a CheckpointStatistics],
}

#[derive(Deserialize)]
struct Read {
    job: String,
    written_at_unix_ms: u64,
    restored: u64,
    completed: u64,
    failed: u64,
    checkpoints: Vec<CheckpointStatistics>,
}

#[derive(Deserialize)]
struct Envelope {
    schema: String,
}

/// The name of an object, below the job's folder. Rising numbers within an epoch make rising names.
pub(crate) fn statistics_name(epoch: Epoch, number: u64) -> String {
    format!("{FOLDER}{epoch:020}-{number:020}.json", epoch = epoch.0)
}

/// The epoch and number in a name made by [`statistics_name`]; `None` for any other name.
pub(crate) fn position_of(name: &str) -> Option<(Epoch, u64)> {
    let (epoch, number) = name.strip_prefix(FOLDER)?.strip_suffix(".json")?.split_once('-')?;
    let (epoch, number) = (Epoch(epoch.parse().ok()?), number.parse().ok()?);
    (statistics_name(epoch, number) == name).then_some((epoch, number))
}

/// Whether an object of a job's folder has the name of statistics.
#[must_use]
pub fn is_statistics_name(name: &str) -> bool {
    position_of(name).is_some()
}

fn head(sum: u32) -> String {
    format!("{{\"schema\":\"{SCHEMA}{VERSION}\",\"crc32c\":\"{sum:08x}\",\"statistics\":")
}

/// The object that holds as much of the history as fits.
pub(crate) fn encode(job: &str, written_at_unix_ms: u64, history: &CheckpointHistory) -> Vec<u8> {
    let CheckpointCounts { restored, completed, failed, in_progress: _ } = history.counts();
    let checkpoints: Vec<_> = history.checkpoints().rev().collect();
    let mut kept = &checkpoints[..];
    loop {
        let body = Written { job, written_at_unix_ms, restored, completed, failed, checkpoints: kept };
        let body = serde_json::to_vec(&body).expect("numbers, texts and lists of them are JSON");
        let bytes = [head(crc32c::crc32c(&body)).as_bytes(), &body, b"}\n"].concat();
        if bytes.len() as u64 <= MAX_BYTES || kept.is_empty() {
            return bytes;
        }
        kept = &kept[kept.len().div_ceil(2)..];
    }
}

fn decode(name: &str, bytes: &[u8]) -> Result<StoredStatistics, StatisticsError> {
    let damaged = |reason: &str| StatisticsError::Damaged { name: name.to_owned(), reason: reason.to_owned() };
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|_| damaged("it is no JSON of statistics, or not all of it"))?;
    let version = envelope.schema.strip_prefix(SCHEMA).and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        Some(found) if found > VERSION => {
            return Err(StatisticsError::NewerFormat { name: name.to_owned(), found, known: VERSION });
        }
        Some(_) | None => return Err(damaged("its schema is none of ours")),
    }
    let (head_found, rest) =
        bytes.split_at_checked(head(0).len()).ok_or_else(|| damaged("it does not begin as it should"))?;
    let body = rest.strip_suffix(b"}\n").ok_or_else(|| damaged("it does not end as it should"))?;
    if head_found != head(crc32c::crc32c(body)).as_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    let Read { job, written_at_unix_ms, restored, completed, failed, checkpoints } =
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    let counts = CheckpointCounts { restored, completed, failed, in_progress: 0 };
    Ok(StoredStatistics { job, written_at_unix_ms, history: CheckpointHistory::of(counts, checkpoints) })
}

/// The newest statistics of checkpoints in the folder of a job; `None` if there are none. Blocks.
///
/// They are written every few seconds while a job takes checkpoints, and at its end, as far as that is possible; those of a
/// process that was killed are as old as the last time.
///
/// # Errors
///
/// [`StatisticsError`]; older objects are not tried.
pub fn read_statistics(store: &dyn Store) -> Result<Option<StoredStatistics>, StatisticsError> {
    for _ in 0..TRIES {
        let Some(newest) = newest(store)? else { return Ok(None) };
        // A job that runs may have written a newer one, and deleted this.
        match store.read(&newest, MAX_BYTES) {
            Ok(Some(bytes)) => return decode(newest.as_str(), &bytes).map(Some),
            Ok(None) => {}
            Err(error) if matches!(error.kind(), StoreErrorKind::TooLarge | StoreErrorKind::NotAnObject) => {
                let (name, reason) = (newest.to_string(), error.kind().to_string());
                return Err(StatisticsError::Damaged { name, reason });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn newest(store: &dyn Store) -> Result<Option<ObjectName>, StoreError> {
    let listed = store.list(FOLDER)?.into_iter();
    let found = listed.filter_map(|found| position_of(found.name.as_str()).map(|position| (position, found.name)));
    Ok(found.max().map(|(_, name)| name))
}

#[cfg(test)]
mod tests;
