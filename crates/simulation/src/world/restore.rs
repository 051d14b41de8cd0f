//! State that comes back from the files of a checkpoint.

use cutwater_state::format::SnapshotReader;
use cutwater_task::TaskCore;

use super::World;
use crate::delta::{Delta, Entries};
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    /// Restores what a snapshot, or a full one and its deltas, hold of the range.
    pub(super) fn restore_chain(
        &mut self,
        id: ProcessId,
        core: &mut TaskCore,
        chain: &[cutwater_coordinator::FileRef],
        range: cutwater_core::KeyGroupRange,
    ) -> Result<(), String> {
        let mut full: Option<(Vec<cutwater_state::StateHeader>, Vec<cutwater_state::Block>)> = None;
        let mut deltas = Vec::new();
        for file in chain {
            let bytes = self.read_file(id, file)?;
            if Delta::is_one(&bytes) {
                deltas.push(Delta::decode(&bytes).ok_or_else(|| format!("{} is damaged", file.name))?);
                continue;
            }
            let reader = SnapshotReader::open(&bytes).map_err(|error| error.to_string())?;
            let headers = reader.header().states.clone();
            let mut blocks = Vec::new();
            for info in reader.blocks() {
                blocks.push(reader.read_block(info).map_err(|error| error.to_string())?);
            }
            full = Some((headers, blocks));
        }
        let Some((headers, mut blocks)) = full else { return Err("a chain without a full snapshot".to_owned()) };
        if !deltas.is_empty() {
            self.hit(Mark::DeltaRestored);
            let mut entries = Entries::of(&headers, &blocks).ok_or("blocks that can't be read")?;
            deltas.into_iter().for_each(|delta| entries.apply(delta));
            blocks = entries.blocks(&headers);
        }
        let drop_timers = self.is(Mutant::TimersLost);
        let mut states = core.states();
        for block in blocks {
            let Some(header) = headers.get(usize::from(block.state)) else { continue };
            if drop_timers && header.kind == cutwater_state::StateKind::Timers {
                continue;
            }
            let same = |state: &&mut &mut dyn cutwater_state::Snapshotable| {
                let own = state.header();
                own.operator == header.operator && own.name == header.name && own.kind == header.kind
            };
            let state = states.iter_mut().find(|state| same(state)).ok_or("a state that nobody has")?;
            state.restore(&block, range).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(super) fn read_file(&mut self, id: ProcessId, file: &cutwater_coordinator::FileRef) -> Result<Vec<u8>, String> {
        let fault = {
            let mut shared = self.shared.lock();
            let r = shared.rates;
            shared.choices.fault(&[if self.config.object_store { r.store_fails } else { 0 }, r.corrupt_read])
        };
        if fault == 1 || self.is_out_of_reach() {
            self.shared.lock().marks.fault("store_fails");
            return Err("the store does not answer".to_owned());
        }
        let Some(mut bytes) = self.raw_read(&file.name) else {
            // Whoever was replaced may find that its successor has let go of it.
            if !self.is_replaced(id) {
                let name = &file.name;
                self.violated(Rule::Ref, || format!("{name} is to be restored and is gone"));
            }
            return Err("gone".to_owned());
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
