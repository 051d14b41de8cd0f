//! Reads the log of any job, for tools that look into a folder without running the job.
//!
//! A tool lists the objects below `log/`, keeps those for which [`slot_of`] knows a slot, and reads each with
//! [`read_slot`]. What counts are the slots from [`first_slot`] of the newest boundary on. The newest completed
//! checkpoint is that of the last record, or of the slot that its [`LogEntry::newest`] names; none if that is
//! an end of the job which says that the checkpoints were discarded.
//!
//! ```
//! use cutwater_coordinator::inspect::{read_slot, slot_name, slot_of};
//!
//! assert_eq!(slot_of(&slot_name(7)), Some(7));
//! let error = read_slot(&slot_name(7), b"not a record").unwrap_err();
//! assert!(error.to_string().starts_with("log/00000000000000000007 is damaged"));
//! ```

use cutwater_core::{CheckpointId, Epoch, MaxParallelism};

use crate::log::names;
use crate::log::record::{Body, Boundary, MAX_BYTES, Record, corrupt};
use crate::{CompletedCheckpoint, OpenError, Origin, Outcome};

/// The most bytes that an object of the log has: the limit for reading one.
pub const MAX_RECORD_BYTES: u64 = MAX_BYTES;

/// What a slot of the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The slot.
    pub slot: u64,
    /// The reign in which it was written.
    pub epoch: Epoch,
    /// Tells the starts of processes apart: the same in all records of one, and by chance in no others.
    pub process: u64,
    /// The job, as the record says.
    pub job: String,
    /// The slot of the newest completed checkpoint before this record, if there was one. It is always still there, so if
    /// it is missing the log is damaged. If that checkpoint went with the job, the slot of the end that says so, which
    /// names the checkpoint in turn.
    pub newest: Option<u64>,
    /// What happened.
    pub kind: LogEntryKind,
}

/// What a record of the log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntryKind {
    /// A coordinator took the job over.
    Claim {
        /// The number of key groups of the job.
        max_parallelism: MaxParallelism,
        /// The checkpoint that its reign began with; `None` if it began with nothing.
        restored: Option<CheckpointId>,
        /// The checkpoint of another folder that it began with or descends from.
        origin: Option<Origin>,
    },
    /// A checkpoint completed.
    Completed {
        /// The checkpoint.
        checkpoint: Box<CompletedCheckpoint>,
        /// The slots of the other checkpoints kept from then on, rising. All others let go of their files.
        retained: Vec<u64>,
    },
    /// The job ended. A claim after it says that it was started again.
    Ended {
        /// How.
        outcome: Outcome,
        /// Whether its checkpoints went with it: none of those before this record can be restored any more, and their
        /// files are deleted or about to be.
        discarded: bool,
    },
}

/// The name of a slot's object, relative to the job's folder.
#[must_use]
pub fn slot_name(slot: u64) -> String {
    names::slot(slot)
}

/// The slot whose object has this name; `None` if it is no slot's.
#[must_use]
pub fn slot_of(name: &str) -> Option<u64> {
    number(name, "log/", names::slot)
}

/// The name of a boundary's object, relative to the job's folder.
#[must_use]
pub fn boundary_name(k: u64) -> String {
    names::boundary(k)
}

/// The number of the boundary whose object has this name; `None` if it is no boundary's.
#[must_use]
pub fn boundary_of(name: &str) -> Option<u64> {
    number(name, "boundary/", names::boundary)
}

/// The first slot that counts when `k` is the newest boundary, 0 if there is none: those before may be gone, and what is
/// there is to be ignored.
#[must_use]
pub fn first_slot(k: u64) -> u64 {
    k.saturating_mul(names::SLOTS_PER_BOUNDARY)
}

/// The epoch in a name made by [`snapshot_name`](crate::snapshot_name): the reign in which the file was begun; `None` for any
/// other name.
#[must_use]
pub fn epoch_of_snapshot(name: &str) -> Option<Epoch> {
    names::epoch_of_snapshot(name)
}

/// Reads the object of a slot, whatever job it is of.
///
/// # Errors
///
/// [`OpenError::Corrupt`] if the name is no slot's, or the bytes are not what was written for this slot: each changed,
/// missing or added byte is found. [`OpenError::NewerFormat`] if a newer version wrote them.
pub fn read_slot(name: &str, bytes: &[u8]) -> Result<LogEntry, OpenError> {
    let slot = slot_of(name).ok_or_else(|| corrupt(name, "its name is not that of a slot".to_owned()))?;
    let Record { slot, epoch, job, newest, body, nonce } = Record::decode_any(name, bytes, slot)?;
    let kind = match body {
        Body::Claim(claim) => LogEntryKind::Claim {
            max_parallelism: claim.max_parallelism,
            restored: claim.restored,
            origin: claim.origin,
        },
        Body::Completed(completed) => {
            LogEntryKind::Completed { checkpoint: Box::new(completed.checkpoint), retained: completed.retained }
        }
        Body::Ended(outcome) => LogEntryKind::Ended { outcome, discarded: false },
        Body::Discarded(outcome) => LogEntryKind::Ended { outcome, discarded: true },
    };
    Ok(LogEntry { slot, epoch, process: nonce.process, job, newest, kind })
}

/// Reads the object of a boundary, whatever job it is of, and returns the job's name.
///
/// # Errors
///
/// As for [`read_slot`].
pub fn read_boundary(name: &str, bytes: &[u8]) -> Result<String, OpenError> {
    let k = boundary_of(name).ok_or_else(|| corrupt(name, "its name is not that of a boundary".to_owned()))?;
    Boundary::decode_any(name, bytes, k).map(|boundary| boundary.job)
}

/// Whether an object of the log can be read, by its name. An answer of a store that can't be may have been damaged on its way, so
/// whoever reads the log asks once more then. Objects of other names are not known here and pass.
#[must_use]
pub fn is_whole(name: &str, bytes: &[u8]) -> bool {
    match (slot_of(name), boundary_of(name)) {
        (Some(_), _) => read_slot(name, bytes).is_ok(),
        (None, Some(_)) => read_boundary(name, bytes).is_ok(),
        (None, None) => true,
    }
}

/// The number in a name, if the name is written as `written` writes it.
fn number(name: &str, prefix: &str, written: fn(u64) -> String) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let number = digits.parse().ok()?;
    (written(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use cutwater_core::Attempt;

    use super::*;
    use crate::Last;
    use crate::log::record::{Claim, Completed, Nonce};

    const NONCE: Nonce = Nonce { process: 1, counter: 2 };

    fn record(body: Body) -> Record {
        Record { slot: 7, epoch: Epoch(3), nonce: NONCE, job: "daily".to_owned(), newest: Some(5), body }
    }

    fn checkpoint() -> CompletedCheckpoint {
        CompletedCheckpoint {
            epoch: Epoch(3),
            attempt: Attempt(1),
            checkpoint: CheckpointId(4),
            slot: 7,
            job: "daily".to_owned(),
            max_parallelism: MaxParallelism::default(),
            completed_at_unix_ms: 0,
            duration: std::time::Duration::ZERO,
            last: Last::Finished,
            origin: None,
            tasks: Vec::new(),
        }
    }

    #[test]
    fn a_slot_is_told_by_its_exact_name() {
        for slot in [0, 7, 1024, u64::MAX] {
            assert_eq!(slot_of(&slot_name(slot)), Some(slot));
            assert_eq!(boundary_of(&boundary_name(slot)), Some(slot));
            assert_eq!((slot_of(&boundary_name(slot)), boundary_of(&slot_name(slot))), (None, None));
        }
        let others =
            ["log/7", "log/+0000000000000000007", "log/000000000000000000007", "log/", "log/x", "00000000000000000007"];
        for other in others {
            assert_eq!(slot_of(other), None, "{other}");
        }
    }

    #[test]
    fn each_kind_is_read_for_any_job() {
        let (max_parallelism, restored) = (MaxParallelism::default(), Some(CheckpointId(4)));
        let origin = Some(Origin { job: "old".to_owned(), epoch: Epoch(1), checkpoint: CheckpointId(9) });
        let claim = Claim { max_parallelism, restored, origin: origin.clone() };
        let completed = Completed { checkpoint: checkpoint(), retained: vec![5], subsumed: vec![2], swept_below: 0 };
        let (checkpoint, retained) = (Box::new(checkpoint()), vec![5]);
        let cases = [
            (Body::Claim(claim), LogEntryKind::Claim { max_parallelism, restored, origin }),
            (Body::Completed(Box::new(completed)), LogEntryKind::Completed { checkpoint, retained }),
            (Body::Ended(Outcome::Canceled), LogEntryKind::Ended { outcome: Outcome::Canceled, discarded: false }),
            (Body::Discarded(Outcome::Canceled), LogEntryKind::Ended { outcome: Outcome::Canceled, discarded: true }),
        ];
        for (body, kind) in cases {
            let entry =
                LogEntry { slot: 7, epoch: Epoch(3), process: 1, job: "daily".to_owned(), newest: Some(5), kind };
            assert_eq!(read_slot(&slot_name(7), &record(body).encode()), Ok(entry));
        }
    }

    #[test]
    fn damage_names_the_object() {
        let bytes = record(Body::Ended(Outcome::Finished)).encode();
        let boundary = Boundary { k: 2, epoch: Epoch(3), nonce: NONCE, job: "daily".to_owned() }.encode();
        assert_eq!(read_boundary(&boundary_name(2), &boundary), Ok("daily".to_owned()));
        assert!(is_whole(&slot_name(7), &bytes) && is_whole(&boundary_name(2), &boundary) && is_whole("chk/7", &bytes));
        assert!(!is_whole(&boundary_name(2), &boundary[1..]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = read_slot(&slot_name(7), &damaged).unwrap_err();
            assert!(matches!(&error, OpenError::Corrupt { name, .. } if *name == slot_name(7)), "byte {at}: {error}");
            assert!(!is_whole(&slot_name(7), &damaged));
        }
        let cases = [
            ("a record of another slot", slot_name(8), read_slot(&slot_name(8), &bytes).map(drop)),
            ("a name that is no slot's", "chk/7".to_owned(), read_slot("chk/7", &bytes).map(drop)),
            ("a boundary in a slot", slot_name(2), read_slot(&slot_name(2), &boundary).map(drop)),
            ("a slot in a boundary", boundary_name(7), read_boundary(&boundary_name(7), &bytes).map(drop)),
            ("another boundary", boundary_name(3), read_boundary(&boundary_name(3), &boundary).map(drop)),
        ];
        for (case, object, result) in cases {
            let error = result.unwrap_err();
            assert!(matches!(&error, OpenError::Corrupt { name, .. } if *name == object), "{case}: {error}");
        }
    }
}
