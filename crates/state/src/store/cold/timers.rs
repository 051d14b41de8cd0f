//! Stores whose entries lie in a tier in an order of their own, and are read from there in portions. Which of them are in memory
//! somebody else knows.

use std::ops::ControlFlow;

use cutwater_core::{KeyGroup, KeyGroupRange, KeyHash};

use super::super::shard::Entry;
use super::super::{Place, Store};
use super::each_bytes;
use crate::StateError;

/// How much a store has in memory.
pub(crate) struct Held {
    /// What that takes, about.
    pub(crate) bytes: u64,
    /// What it may take.
    pub(crate) limit: u64,
    /// Whether those that have changed may go too: [`Store::write_back`].
    pub(crate) may_write: bool,
}

/// So many bytes a name in a set takes beside its own.
const NAME_BYTES: u64 = 48;

impl<E: Entry> Store<E> {
    pub(crate) fn has_tier(&self) -> bool {
        self.cold.is_some()
    }

    pub(crate) fn group_of(&self, hash: KeyHash) -> KeyGroup {
        hash.group(self.spec.max_parallelism)
    }

    pub(crate) fn key_groups(&self) -> KeyGroupRange {
        self.spec.key_groups
    }

    /// Bytes that entries in memory may take; 0 without a tier.
    pub(crate) fn limit(&self) -> u64 {
        self.cold.as_ref().map_or(0, |cold| cold.limit)
    }

    /// What an entry in memory takes, about.
    pub(crate) fn each_bytes(&self) -> u64 {
        self.cold.as_ref().map_or(size_of::<E>() as u64, |cold| each_bytes::<E>(cold))
    }

    /// What is in memory, with so many bytes that belong to it elsewhere; `None` without a tier.
    pub(crate) fn held(&mut self, beside: u64) -> Result<Option<Held>, StateError> {
        self.sample()?;
        let Some(cold) = &self.cold else { return Ok(None) };
        let gone = cold.gone.len() as u64 * (NAME_BYTES + cold.encoded.get());
        let bytes = self.cold_bytes(cold) + gone + beside;
        Ok(Some(Held { bytes, limit: cold.limit, may_write: !cold.outstanding }))
    }

    /// Takes names of entries that went off memory once they take so many bytes: the tier, which may be written now, has none of
    /// them any more.
    pub(crate) fn write_gone(&mut self, bytes: u64) -> Result<(), StateError> {
        let Some(cold) = &mut self.cold else { return Ok(()) };
        if cold.gone.len() as u64 * (NAME_BYTES + cold.encoded.get()) <= bytes {
            return Ok(());
        }
        cold.batch.clear();
        cold.gone.iter().for_each(|name| cold.batch.delete(name));
        let written = cold.tier.write(cold.state, &cold.batch);
        written.map_err(|error| self.cold_error(error))?;
        if let Some(cold) = &mut self.cold {
            cold.gone.clear();
        }
        Ok(())
    }

    /// Whether an entry of this name went, which the tier may still have.
    pub(crate) fn is_gone(&self, name: &[u8]) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.gone.contains(name) || cold.frozen_gone.contains(name))
    }

    /// The entry of this name, which is not in memory, goes: the tier may have it.
    pub(crate) fn gone_unseen(&mut self, name: Vec<u8>) {
        if let Some(cold) = &mut self.cold {
            cold.below = cold.below.saturating_sub(1);
            cold.gone.insert(name);
        }
    }

    /// The tier may have had the entry already when it came.
    pub(crate) fn may_be_below(&mut self, place: Place) {
        if let Some(changes) = &mut self.shards[place.shard].changes {
            changes.seen(place.entry);
        }
    }

    /// The tier has nothing that is not in memory.
    pub(crate) fn all_in_memory(&mut self) {
        if let Some(cold) = &mut self.cold {
            (cold.below, cold.any_below) = (0, false);
        }
    }

    /// Visits names in the tier from this one on, up to the end of a key group, until it is told to stop.
    pub(crate) fn range(
        &self,
        from: &[u8],
        last: KeyGroup,
        mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let Some(cold) = &self.cold else { return Ok(()) };
        let read = cold.tier.range(cold.state, from, last, &mut |name, _| visit(name));
        read.map_err(|error| self.cold_error(error))
    }
}
