//! The objects of the log, each met once and known by a number from then on.

use std::collections::BTreeMap;

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_coordinator::inspect::{LogEntryKind, boundary_of, read_slot, slot_of};
use cutwater_core::{Attempt, CheckpointId, Epoch};

use super::Map;

/// An object, by its number in [`Objects`]; zero is none.
pub(super) type ObjectId = u16;

/// Files of checkpoints: one bit for each epoch and checkpoint.
pub(super) type Files = u64;

/// What tells a checkpoint from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) epoch: Epoch,
    pub(super) attempt: Attempt,
    pub(super) checkpoint: CheckpointId,
    pub(super) slot: u64,
}

impl Key {
    pub(super) fn of(checkpoint: &CompletedCheckpoint) -> Self {
        let CompletedCheckpoint { epoch, attempt, checkpoint, slot, .. } = *checkpoint;
        Self { epoch, attempt, checkpoint, slot }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bytes: Vec<u8>,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    Slot { slot: usize, epoch: Epoch, what: What },
    Boundary { k: u8 },
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Claim,
    Completed { key: Key, retained: Vec<u64>, files: Files },
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    all: Vec<Object>,
    slots: Map<Vec<u8>, ObjectId>,
    boundaries: BTreeMap<u8, ObjectId>, // whoever wrote it: nobody reads more than that it is there
}

impl Objects {
    pub(super) fn intern(&mut self, name: &str, bytes: Vec<u8>) -> ObjectId {
        if let Some(k) = boundary_of(name) {
            let k = u8::try_from(k).expect("a search has few boundaries");
            return match self.boundaries.get(&k) {
                Some(id) => *id,
                None => {
                    let id = self.push(Object { bytes, place: Place::Boundary { k } });
                    self.boundaries.insert(k, id);
                    id
                }
            };
        }
        if let Some(id) = self.slots.get(&bytes) {
            return *id;
        }
        let place = place_of(name, &bytes);
        let id = self.push(Object { bytes: bytes.clone(), place });
        self.slots.insert(bytes, id);
        id
    }

    fn push(&mut self, object: Object) -> ObjectId {
        self.all.push(object);
        ObjectId::try_from(self.all.len()).ok().filter(|id| *id < 0x8000).expect("a search has few records")
    }

    pub(super) fn of(&self, id: ObjectId) -> &Object {
        &self.all[usize::from(id) - 1]
    }

    /// The bytes of the object; `None` for none.
    pub(super) fn bytes(&self, id: ObjectId) -> Option<Vec<u8>> {
        (id != 0).then(|| self.of(id).bytes.clone())
    }

    /// What is found at boundary `k` if `count` of them are there; zero if nothing.
    pub(super) fn boundary(&self, k: u8, count: u8) -> ObjectId {
        if k <= count { self.boundaries.get(&k).copied().unwrap_or(0) } else { 0 }
    }
}

fn place_of(name: &str, bytes: &[u8]) -> Place {
    let slot = slot_of(name).expect("what is created is a slot or a boundary");
    let entry = read_slot(name, bytes).expect("what is created can be read");
    let what = match entry.kind {
        LogEntryKind::Claim { .. } => What::Claim,
        LogEntryKind::Ended { .. } => What::Ended,
        LogEntryKind::Completed { checkpoint, retained } => {
            let files = checkpoint.files().fold(0, |files, file| files | file_of(&file.name));
            What::Completed { key: Key::of(&checkpoint), retained, files }
        }
    };
    Place::Slot { slot: usize::try_from(slot).expect("a search has few slots"), epoch: entry.epoch, what }
}

/// The only file of a checkpoint.
pub(super) fn file_name(epoch: Epoch, checkpoint: CheckpointId) -> String {
    format!("chk/{epoch}-{checkpoint}")
}

/// The bit of a file. Both numbers are below 8 in a search.
pub(super) fn file_of(name: &str) -> Files {
    let numbers = name.strip_prefix("chk/").and_then(|rest| rest.split_once('-'));
    let (epoch, checkpoint) = numbers.expect("only files of checkpoints are named");
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < 8).expect("a search has few epochs");
    1 << (number(epoch) * 8 + number(checkpoint))
}

/// The names of files, for a trace.
pub(super) fn names_of(files: Files) -> String {
    let names = (0..64u32).filter(|bit| files >> bit & 1 == 1).map(|bit| format!("chk/{}-{}", bit / 8, bit % 8));
    names.collect::<Vec<_>>().join(" ")
}
