//! State that comes back from the files of a checkpoint.

use cutwater_coordinator::FileRef;
use cutwater_core::KeyGroupRange;
use cutwater_state::format::SnapshotReader;
use cutwater_state::{BlockKind, Snapshotable, StateKind};
use cutwater_task::TaskCore;

use super::World;
use super::ending::StartFailure;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::Contents;
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// Restores what a snapshot, or a full one and those that build on it, hold of the range, and returns it.
    pub(super) fn restore_chain(
        &mut self,
        id: ProcessId,
        core: &mut TaskCore,
        chain: &[FileRef],
        range: KeyGroupRange,
    ) -> Result<Contents, StartFailure> {
        let (damaged, other) = (StartFailure::damaged, StartFailure::recoverable);
        let mut contents = Contents::default();
        let (drop_timers, late) = (self.is(Mutant::TimersLost), self.is(Mutant::RemovedLast));
        for (place, file) in chain.iter().enumerate() {
            let bytes = self.read_file(id, file)?;
            let reader = SnapshotReader::open(&bytes).map_err(|error| damaged(error.to_string()))?;
            let headers = &reader.header().states;
            if reader.header().base.is_some() {
                self.hit(Mark::DeltaRestored);
            }
            let read = |info| reader.read_block(info).map_err(|error| damaged(error.to_string()));
            let mut blocks: Vec<_> = reader.blocks().iter().map(read).collect::<Result<_, _>>()?;
            blocks.sort_by_key(|block| (block.kind == BlockKind::Changed) != late);
            if self.config.deltas {
                contents.whole.add(headers, &blocks).ok_or_else(|| other("blocks that can't be read".to_owned()))?;
            }
            if place == 0 {
                contents.full = contents.whole.clone();
            }
            let mut states = core.states();
            for block in blocks {
                let Some(header) = headers.get(usize::from(block.state)) else { continue };
                if drop_timers && header.kind == StateKind::Timers {
                    continue;
                }
                let same = |state: &&mut &mut dyn Snapshotable| {
                    let own = state.header();
                    own.operator == header.operator && own.name == header.name && own.kind == header.kind
                };
                let state = states
                    .iter_mut()
                    .find(|state| same(state))
                    .ok_or_else(|| other("a state that nobody has".to_owned()))?;
                state.restore(&block, range).map_err(|error| other(error.to_string()))?;
            }
        }
        Ok(contents)
    }

    pub(super) fn read_file(&mut self, id: ProcessId, file: &FileRef) -> Result<Vec<u8>, StartFailure> {
        if let Some(content) = &file.content {
            self.hit(Mark::HeldRestored);
            return Ok(content.to_vec());
        }
        let fault = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            let fault =
                shared.choices.fault(&[if self.config.object_store { r.store_fails } else { 0 }, r.corrupt_read]);
            if fault == 0 && shared.choices.strikes(r.restore_fails) {
                shared.marks.fault("restore_fails");
                return Err(StartFailure::unreachable("the store does not answer".to_owned()));
            }
            fault
        };
        if fault == 1 || self.is_out_of_reach() {
            self.shared.lock().marks.fault("store_fails");
            return Err(StartFailure::unreachable("the store does not answer".to_owned()));
        }
        let Some(mut bytes) = self.raw_read(&file.name).or_else(|| self.read_savepoint(id, &file.name)) else {
            // Whoever was replaced may find that its successor has let go of it.
            if !self.is_replaced(id) && !self.oracle.lost.contains(&file.name) {
                let name = &file.name;
                self.violated(Rule::Ref, || format!("{name} is to be restored and is gone"));
            }
            return Err(StartFailure::damaged("gone".to_owned()));
        };
        if fault == 2 {
            self.shared.lock().marks.fault("corrupt_read");
            if self.is(Mutant::ChecksumIgnored) {
                return Ok(self.damage_unseen(bytes));
            }
            self.damage(&mut bytes);
            self.hit(Mark::RestoreCorrupt);
        }
        Ok(bytes)
    }
}
