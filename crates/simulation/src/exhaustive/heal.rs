//! After the faults: a fresh coordinator, alone with what the store holds, opens the job and completes a checkpoint.

use std::collections::BTreeMap;

use cutwater_coordinator::inspect::{boundary_name, slot_name};
use cutwater_coordinator::{Action, CreateOutcome, Purpose, RestoreFrom};
use cutwater_core::{Attempt, Moment};

use super::Bounds;
use super::actor::{coordinator, plan, snapshot};
use super::object::{Key, Objects};
use super::world::World;

/// The most questions to the store until the checkpoint has completed.
const MOST_QUESTIONS: u32 = 60;

/// What was restored, or why nothing completes.
pub(super) fn heal(world: &World, bounds: &Bounds, objects: &Objects) -> Result<Option<Key>, String> {
    let mut store = store_of(world, objects);
    let mut coordinator = coordinator(bounds, u64::MAX);
    let now = Moment::ZERO;
    let mut restored = None;
    let mut questions = 0;
    coordinator.handle_open(now, RestoreFrom::Latest);
    loop {
        let Some(action) = coordinator.poll_action() else {
            let deadline = coordinator.next_deadline().filter(|at| *at < Moment::MAX);
            coordinator.handle_timeout(deadline.ok_or("it waits for ever")?);
            questions += 1;
            continue;
        };
        match action {
            Action::Create { token, name, bytes } => {
                questions += 1;
                let exists = store.contains_key(&name);
                store.entry(name).or_insert(bytes);
                let outcome = if exists { CreateOutcome::Exists } else { CreateOutcome::Created };
                coordinator.handle_created(now, token, outcome);
            }
            Action::Read { token, name, .. } => {
                questions += 1;
                coordinator.handle_read(now, token, Ok(store.get(&name).cloned()));
            }
            Action::Delete { token, names } => {
                questions += 1;
                store.retain(|name, _| !names.contains(name));
                coordinator.handle_deleted(now, token, Ok(()));
            }
            Action::List { token, .. } => coordinator.handle_listed(now, token, Ok(Vec::new())),
            Action::Opened { restore, .. } => {
                restored = restore.as_deref().map(Key::of);
                coordinator.handle_running(now, Attempt(1), plan());
                coordinator.handle_request(now, Purpose::Checkpoint);
            }
            Action::Trigger { barrier, .. } => {
                coordinator.handle_ack(now, barrier.attempt, barrier.checkpoint, snapshot(barrier));
            }
            Action::NotifyCompleted { .. } => return Ok(restored),
            other @ (Action::AlreadyFinished { .. }
            | Action::Refused(_)
            | Action::FellBack { .. }
            | Action::NotifyAborted { .. }
            | Action::RequestFailed { .. }
            | Action::Restore { .. }
            | Action::FailJob(_)
            | Action::AllDone
            | Action::Drain
            | Action::Superseded { .. }
            | Action::Closed { .. }) => return Err(format!("{other:?}")),
        }
        if questions > MOST_QUESTIONS {
            return Err(format!("more than {MOST_QUESTIONS} questions"));
        }
    }
}

fn store_of(world: &World, objects: &Objects) -> BTreeMap<String, Vec<u8>> {
    let mut store = BTreeMap::new();
    for (slot, object) in (0..).zip(world.slots) {
        store.extend(objects.bytes(object).map(|bytes| (slot_name(slot), bytes)));
    }
    for k in 1..=world.boundaries {
        let bytes = objects.bytes(objects.boundary(k, world.boundaries));
        store.extend(bytes.map(|bytes| (boundary_name(u64::from(k)), bytes)));
    }
    store
}
