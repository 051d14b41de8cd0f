//! Output that is published.

use cutwater_core::CheckpointId;
use cutwater_dataflow::CommitOutcome;
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_restart::FailureClass;

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::shared::{ProcessId, Rule};

/// How often publishing is tried again whose result is unknown.
const COMMIT_TRIES: u32 = 5;

impl World<'_> {
    /// Publishes a handle. `false`: nobody knows whether it is, and it is to be tried again.
    pub(super) fn publish(
        &mut self,
        id: ProcessId,
        handle: &OperatorSnapshot,
        tries: &mut u32,
    ) -> Result<bool, String> {
        let twice = self.is(Mutant::CommitTwice);
        let Some(process) = self.processes.get_mut(&id) else { return Ok(false) };
        let Some(committer) = process.committers.get_mut(&handle.operator) else {
            return Err(format!("no committer of {}", handle.operator));
        };
        let outcome = committer.commit(&handle.payload);
        match outcome {
            CommitOutcome::Committed => Ok(true),
            CommitOutcome::Already => {
                self.hit(Mark::OutputAgain);
                if twice {
                    self.write_again(id, handle);
                }
                Ok(true)
            }
            CommitOutcome::Unknown(error) => {
                if !self.shared.is_dead(id) {
                    self.hit(Mark::CommitUnknown);
                }
                *tries += 1;
                if *tries >= COMMIT_TRIES { Err(error.to_string()) } else { Ok(false) }
            }
            CommitOutcome::Lost(error) => {
                let text = error.to_string();
                self.violated(Rule::Commit, || format!("prepared output is lost: {text}"));
                Err(error.to_string())
            }
        }
    }

    /// The next handle is published.
    pub(super) fn commit_step(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(mut commit) = process.commit.take() else { return };
        let finished = std::mem::take(&mut commit.finish).into_iter().try_for_each(|finish| finish());
        let step = match (finished, commit.handles.pop_front()) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(()), None) => Ok(true),
            (Ok(()), Some(handle)) => self.publish(id, &handle, &mut commit.tries).map(|published| {
                if published {
                    commit.tries = 0;
                } else {
                    commit.handles.push_front(handle);
                }
                commit.handles.is_empty()
            }),
        };
        if self.shared.is_dead(id) {
            return;
        }
        let (now, attempt, checkpoint) = (self.now, commit.attempt, commit.checkpoint);
        match step {
            Ok(false) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.commit = Some(commit);
                }
            }
            Ok(true) => {
                self.look_at_disk();
                if checkpoint > CheckpointId(0) {
                    let epoch = self.processes.get(&id).map_or(cutwater_core::Epoch(0), |process| process.epoch);
                    self.oracle.told_published(epoch, checkpoint);
                }
                self.tell(Entity::Driver(id), || format!("output of checkpoint {checkpoint} is published"));
                if !self.is(Mutant::CommittedEarly) || checkpoint == CheckpointId(0) {
                    self.with_driver(id, |driver| driver.handle_committed(now, attempt, checkpoint, Ok(())));
                }
            }
            Err(_) => {
                let class = FailureClass::Recoverable;
                self.with_driver(id, |driver| driver.handle_committed(now, attempt, checkpoint, Err(class)));
            }
        }
    }
}
