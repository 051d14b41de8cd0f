//! What is still being stored when an attempt is over: it is given up, and the end of the job waits until it has told what it
//! leaves.

use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{Attempt, Moment};
use tokio::sync::mpsc::UnboundedSender;

use super::Shell;
use crate::hosted::Report;
use crate::under_way::Uploads;

/// How long the end of the job waits for a store that answers nothing.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Storing {
    pub(super) uploads: Arc<Uploads>,
    /// An attempt has ended, and not all of its uploads have told what became of them.
    waits: bool,
    /// When the end of the job no longer waits for them.
    until: Option<Moment>,
}

impl Shell {
    /// All threads of the attempt have ended, so that no upload of it begins any more.
    pub(super) fn stopped_storing(&mut self, now: Moment, attempt: Attempt, reports: &UnboundedSender<Report>) {
        self.storing.uploads.give_up(attempt, None);
        self.storing.waits = true;
        self.driver.handle_storing(now, true);
        drop(reports.send(Report::AllStored)); // if it is so; comes behind all that has been told already
        self.driver.handle_stopped(now, attempt);
    }

    pub(super) fn all_stored(&mut self, now: Moment) {
        if self.storing.waits && self.storing.uploads.is_empty() {
            self.stop_waiting(now);
        }
    }

    fn stop_waiting(&mut self, now: Moment) {
        self.storing.waits = false;
        self.driver.handle_storing(now, false);
    }

    pub(super) fn storing_deadline(&mut self) -> Option<Moment> {
        let waits = self.storing.waits && self.driver.is_ending();
        let now = self.clock.now();
        waits.then(|| *self.storing.until.get_or_insert(now + DEADLINE))
    }

    pub(super) fn handle_timeout(&mut self, now: Moment) {
        if self.storing_deadline().is_some_and(|deadline| deadline <= now) {
            tracing::warn!(
                job = self.graph.name(),
                "the store answers too slowly: files of a checkpoint that was given up stay"
            );
            self.stop_waiting(now);
        }
        self.driver.handle_timeout(now);
    }
}
