//! Steps and what comes of them as text, for the trace of a violation.

use super::actor::{Asked, Cast, Effect};
use super::object::{Key, ObjectId, Objects, Place, What, names_of};
use super::world::{DELETE, Fate, Step, World};

/// What is about to happen.
pub(super) fn step(world: &World, step: Step, cast: &Cast) -> String {
    let who = |seat: u8| format!("coordinator {}", cast.actor(world.seats[usize::from(seat)]).start);
    match step {
        Step::Answer { seat, out, fate } => {
            let (asked, _) = cast.actor(world.seats[usize::from(seat)]).out[usize::from(out)];
            format!("{}: {} -- {}", who(seat), question(asked, &cast.objects), answer(world, asked, fate, cast))
        }
        Step::Request(seat) => format!("{}: a checkpoint is asked for", who(seat)),
        Step::Acknowledge(seat) => format!("{}: the task acknowledges", who(seat)),
        Step::FailOver(seat) => format!("{}: the attempt fails", who(seat)),
        Step::Cancel(seat) => format!("{}: the job is canceled", who(seat)),
        Step::Replace(seat) if cast.actor(world.seats[usize::from(seat)]).start == 0 => {
            "another coordinator starts in the place of one that is over".to_owned()
        }
        Step::Replace(seat) => format!("{} crashes, and another one starts", who(seat)),
        Step::Land(index) => match world.late[usize::from(index)] {
            late if late & DELETE != 0 => format!("late: slot {} is deleted", late ^ DELETE),
            late => format!("late: {} is created", object(late, &cast.objects)),
        },
    }
}

fn question(asked: Asked, objects: &Objects) -> String {
    match asked {
        Asked::Create(id) => format!("create {}", object(id, objects)),
        Asked::ReadSlot(slot) => format!("read slot {slot}"),
        Asked::ReadBoundary(k) => format!("read boundary {k}"),
        Asked::DeleteFiles(files) => format!("delete {}", names_of(files)),
        Asked::DeleteSlots(slots) => {
            let slots = (0..32u32).filter(|slot| slots >> slot & 1 == 1).map(|slot| slot.to_string());
            format!("delete slots {}", slots.collect::<Vec<_>>().join(" "))
        }
    }
}

fn answer(world: &World, asked: Asked, fate: Fate, cast: &Cast) -> String {
    let found = match asked {
        Asked::ReadSlot(slot) => world.slots.get(usize::from(slot)).copied().unwrap_or(0),
        Asked::ReadBoundary(k) => cast.objects.boundary(k, world.boundaries),
        Asked::Create(_) | Asked::DeleteFiles(_) | Asked::DeleteSlots(_) => 0,
    };
    match (asked, fate) {
        (_, Fate::Failed) => "fails".to_owned(),
        (_, Fate::InFlight) => "nobody knows, and it may take effect later".to_owned(),
        (_, Fate::Lie) => "a wrong answer".to_owned(),
        (Asked::ReadSlot(_) | Asked::ReadBoundary(_), Fate::Well) if found == 0 => "nothing there".to_owned(),
        (Asked::ReadSlot(_) | Asked::ReadBoundary(_), Fate::Well) => object(found, &cast.objects),
        (Asked::Create(id), Fate::Well) => {
            let exists = match cast.objects.of(id).place {
                Place::Slot { slot, .. } => world.slots[slot] != 0,
                Place::Boundary { k } => k <= world.boundaries,
            };
            if exists { "exists" } else { "created" }.to_owned()
        }
        (Asked::DeleteFiles(_) | Asked::DeleteSlots(_), Fate::Well) => "deleted".to_owned(),
    }
}

fn object(id: ObjectId, objects: &Objects) -> String {
    match &objects.of(id).place {
        Place::Boundary { k } => format!("boundary {k}"),
        Place::Slot { slot, epoch, what: What::Claim } => format!("slot {slot} (claim of epoch {epoch})"),
        Place::Slot { slot, epoch, what: What::Ended } => format!("slot {slot} (end in epoch {epoch})"),
        Place::Slot { slot, epoch, what: What::Completed { key, .. } } => {
            format!("slot {slot} (checkpoint {} of epoch {epoch})", key.checkpoint)
        }
    }
}

/// What came of it, if it is worth telling.
pub(super) fn effect(effect: &Effect) -> Option<String> {
    let from = |restore: &Option<Key>| match restore {
        Some(key) => format!("checkpoint {} of slot {}", key.checkpoint, key.slot),
        None => "nothing".to_owned(),
    };
    match effect {
        Effect::Opened { epoch, restore, .. } => Some(format!("opened, epoch {epoch}, from {}", from(restore))),
        Effect::Restored { restore, .. } => Some(format!("starts an attempt from {}", from(restore))),
        Effect::Completed(key) => Some(format!("completed {} in slot {}", key.checkpoint, key.slot)),
        Effect::Wrote(files) => Some(format!("wrote {}", names_of(*files))),
        Effect::LetGoFiles(files) => Some(format!("deletes {}", names_of(*files))),
        Effect::LetGoSlots(_) => None,
        Effect::Reached(mark) => Some((*mark).to_owned()),
        Effect::Wrong { rule, detail } => Some(format!("broken: {rule}: {detail}")),
    }
}
