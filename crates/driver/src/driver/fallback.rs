//! A checkpoint that is damaged, and an older one in its place.

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_core::{Attempt, Moment};

use super::Driver;
use super::attempts::{Between, Phase};
use crate::{Action, FellBack};

impl Driver {
    pub(super) fn on_damaged(&mut self, now: Moment, attempt: Attempt, reason: String) -> bool {
        let starting = attempt == self.attempt && matches!(self.phase, Phase::Starting(_));
        if !starting || self.ending.is_some() || !self.coordinator.handle_damaged(now) {
            return false;
        }
        self.damage = Some(reason);
        // There are no more of these than retained checkpoints, so no delay keeps them apart.
        self.phase = Phase::Between(Between { stopped: true, due: true, restore: None });
        true
    }

    /// Says past what the job has fallen back, if it has.
    pub(super) fn tell_fall_back(&mut self, restore: Option<&CompletedCheckpoint>) {
        let reason = self.damage.take();
        if let (Some(bad), Some(older)) = (self.fell_from.take(), restore) {
            self.act(Action::FellBack(Box::new(FellBack::new(&bad, older, reason.unwrap_or_default()))));
        }
    }
}
