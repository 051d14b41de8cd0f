//! What only worlds with a planted error do.

use cutwater_coordinator::CompletedCheckpoint;
use cutwater_coordinator::inspect::{LogEntryKind, read_slot};
use cutwater_core::{Barrier, SubtaskId};
use cutwater_dataflow::exec::{Element, OperatorSnapshot};
use cutwater_state::format::SnapshotReader;
use cutwater_storage::Store;

use super::World;
use crate::mutant::Mutant;
use crate::process::{LateOp, Op};
use crate::shared::ProcessId;

impl World<'_> {
    /// Deletes all files of the checkpoint before, whoever else needs them.
    pub(super) fn delete_shared(&mut self, id: ProcessId, newest: &CompletedCheckpoint) {
        let others = self.oracle.history.iter().rev().filter_map(|entry| match &entry.kind {
            LogEntryKind::Completed { checkpoint, .. } => Some(checkpoint),
            LogEntryKind::Claim { .. } | LogEntryKind::Ended { .. } => None,
        });
        let before =
            others.filter(|other| other.checkpoint < newest.checkpoint).map(|other| other.stored_files()).next();
        let names: Vec<String> = before.into_iter().flatten().map(|file| file.name.clone()).collect();
        for name in names {
            let deleted = match self.config.object_store {
                true => self.objects.delete(&name),
                false => cutwater_storage::ObjectName::parse(&name)
                    .is_ok_and(|object| self.raw_folder.delete(&object).is_ok()),
            };
            if deleted {
                self.oracle.deleted(&name);
            }
        }
        let _ = id;
    }

    /// The barrier as it comes to a subtask.
    pub(super) fn planted_base(&self, id: ProcessId, subtask: SubtaskId, barrier: Barrier) -> Barrier {
        let Some(process) = self.processes.get(&id) else { return barrier };
        let base = if self.is(Mutant::DeltaOnUnconfirmed) {
            let taken = process.contents.get(&(barrier.attempt, subtask));
            taken.and_then(|taken| taken.last_key_value()).map(|(checkpoint, _)| *checkpoint)
        } else if self.is(Mutant::BaseFromNotice) {
            process.noticed.get(&subtask).copied()
        } else {
            return barrier;
        };
        Barrier { base, ..barrier }
    }

    /// Publishes what a record names that is only on its way.
    pub(super) fn publish_at_once(&mut self, id: ProcessId, name: &str, bytes: &[u8]) {
        let Ok(entry) = read_slot(name, bytes) else { return };
        let LogEntryKind::Completed { checkpoint, .. } = entry.kind else { return };
        let Ok(handles) = cutwater_driver::prepared_output(&checkpoint) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        for handle in handles {
            if let Some(committer) = process.committers.get_mut(&handle.operator) {
                let _ = committer.commit(&handle.payload);
            }
        }
    }

    /// The record that is out counts as failed, and may land all the same.
    pub(super) fn forget_record(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let is_record = |op: &Op| matches!(op, Op::Create { name, .. } if name.starts_with("log/"));
        let Some(at) = process.ops.iter().position(is_record) else { return };
        if let Op::Create { token, name, bytes } = process.ops.swap_remove(at) {
            if self.config.object_store {
                self.late.push(LateOp::Create { name, bytes });
            } else if let Ok(object) = cutwater_storage::ObjectName::parse(&name)
                && self.raw_folder.create(&object, &bytes).is_ok()
            {
                self.oracle.created(&name, &bytes);
            }
            let now = self.now;
            let outcome = cutwater_coordinator::CreateOutcome::Failed("forgotten".to_owned());
            self.with_driver(id, |driver| driver.handle_created(now, token, outcome));
        }
    }

    /// Writes the lines of a published file once more, under another name.
    pub(super) fn write_again(&mut self, id: ProcessId, handle: &OperatorSnapshot) {
        use cutwater_storage::Files;
        let names = handle.payload.split_first().map(|(_, body)| postcard::take_from_bytes::<(String, String)>(body));
        let Some(Ok(((_, name), _))) = names else { return };
        let folder = std::path::Path::new(crate::job::OUT);
        let Some(content) = self.disk.open(&folder.join(&name)).ok() else { return };
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or(0)];
        let _ = content.read_at(0, &mut bytes);
        let copy = folder.join(name.replace(".csv", "9.csv"));
        if let Ok(mut file) = self.disk.create_new(&copy) {
            let _ = file.write(&bytes);
            let _ = file.sync();
        }
        let mut shared = self.shared.lock();
        shared.disk_events.push(crate::shared::DiskEvent::Published { path: copy });
        let _ = id;
    }

    /// Damages a value and makes the checksums fit again.
    pub(super) fn damage_unseen(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Ok(reader) = SnapshotReader::open(&bytes) else { return bytes };
        let header = reader.header().clone();
        let mut again = Vec::new();
        let Ok(mut encoder) = cutwater_state::format::SnapshotEncoder::new(
            &header,
            cutwater_state::format::Compression::None,
            &mut again,
        ) else {
            return bytes;
        };
        for info in reader.blocks() {
            let Ok(mut block) = reader.read_block(info) else { return bytes };
            if let Some(last) = block.payload.last_mut() {
                *last ^= 1;
            }
            if encoder.push(&block, &mut again).is_err() {
                return bytes;
            }
        }
        encoder.finish(&mut again);
        again
    }
}

/// What comes in on the other inputs of the subtask, too, with an error planted that takes one input for all.
pub(super) fn for_all_inputs(
    mutant: Option<Mutant>,
    element: &Element,
    first: bool,
) -> Option<Box<dyn Fn() -> Element>> {
    match (mutant?, element) {
        (Mutant::AlignsOneInput, &Element::Barrier(barrier)) if first => {
            Some(Box::new(move || Element::Barrier(barrier)))
        }
        (Mutant::WatermarkOfOneInput, &Element::Watermark(watermark)) => {
            Some(Box::new(move || Element::Watermark(watermark)))
        }
        (Mutant::EndOfOneInput, Element::End) => Some(Box::new(|| Element::End)),
        _ => None,
    }
}
