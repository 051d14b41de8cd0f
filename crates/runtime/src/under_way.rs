//! The uploads of a job that are under way, in all its attempts: which of them are given up, and what those leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_core::{Attempt, CheckpointId};
use cutwater_storage::ObjectName;
use tokio::sync::mpsc::UnboundedSender;

use crate::hosted::Report;
use crate::upload::NotWritten;

/// All of a job.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    next: u64,
    under_way: BTreeMap<u64, Upload>,
}

#[derive(Debug)]
struct Upload {
    attempt: Attempt,
    checkpoint: CheckpointId,
    given_up: Arc<AtomicBool>,
}

impl Uploads {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known().under_way.is_empty()
    }

    /// Nobody needs what is stored for this checkpoint any more; `None`: for any of the attempt.
    pub(crate) fn give_up(&self, attempt: Attempt, checkpoint: Option<CheckpointId>) {
        let is_of = |upload: &&Upload| {
            upload.attempt == attempt && checkpoint.is_none_or(|checkpoint| upload.checkpoint == checkpoint)
        };
        let known = self.known();
        known.under_way.values().filter(is_of).for_each(|upload| upload.given_up.store(true, Ordering::Relaxed));
    }
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    uploads: Arc<Uploads>,
    number: u64,
    given_up: Arc<AtomicBool>,
    begun: Mutex<BTreeSet<String>>,
    reports: UnboundedSender<Report>,
}

impl UnderWay {
    pub(crate) fn new(
        uploads: &Arc<Uploads>,
        attempt: Attempt,
        checkpoint: CheckpointId,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let given_up = Arc::<AtomicBool>::default();
        let mut known = uploads.known();
        known.next += 1;
        let number = known.next;
        known.under_way.insert(number, Upload { attempt, checkpoint, given_up: Arc::clone(&given_up) });
        drop(known);
        Self { uploads: Arc::clone(uploads), number, given_up, begun: Mutex::default(), reports }
    }

    /// An error once it is given up.
    pub(crate) fn go_on(&self) -> Result<(), NotWritten> {
        if self.given_up.load(Ordering::Relaxed) { Err(NotWritten::GivenUp) } else { Ok(()) }
    }

    /// From now on this file may be there, or a copy of it.
    pub(crate) fn note(&self, name: &ObjectName) {
        self.begun().insert(name.as_str().to_owned());
    }

    /// What is left if nobody is told of the files.
    pub(crate) fn litter(&self) -> Vec<String> {
        self.begun().iter().cloned().collect()
    }

    fn begun(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut known = self.uploads.known();
        known.under_way.remove(&self.number);
        if known.under_way.is_empty() {
            drop(self.reports.send(Report::AllStored)); // behind what it had to tell
        }
    }
}
