//! Maps with a tier below them. Either all entries of a key are in memory, as the index says which, or none is.

use std::sync::Arc;

use cutwater_core::KeyHash;

use super::{MapTable, Part, single, spread_of_bytes, stamp};
use crate::codec::{checked_length, encode_framed, encode_with_postcard};
use crate::key_bytes::KeyBytes;
use crate::store::Place;
use crate::{ColdTier, Data, Key, StateError, encode, hash_key};

/// So many keys are looked at, in a call of [`MapTable::relieve`], that have to stay since a cut waits to be applied. More would
/// be in vain with each batch anew: by then nearly all that is used has changed.
const IN_VAIN: usize = 256;
/// So many keys are put out together.
const TOGETHER: usize = 1024;

impl<K: Key, U: Key, V: Data> MapTable<K, U, V> {
    /// [`Table::attach`](crate::Table::attach). A key comes into memory and goes with all its entries, so that there has to be
    /// room for the largest map in use, whatever the limit. What has expired by a call of [`Self::clean`] the tier lets go.
    ///
    /// # Errors
    ///
    /// [`StateError::Cold`] if the tier refuses.
    ///
    /// # Panics
    ///
    /// If there was a value already.
    pub fn attach(&mut self, tier: Arc<dyn ColdTier>, limit: u64) -> Result<(), StateError> {
        self.store.attach(tier, limit)
    }

    /// [`Table::fetch`](crate::Table::fetch), with all entries of these keys.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fetch<'k>(&mut self, keys: impl IntoIterator<Item = (KeyHash, &'k K)>) -> Result<usize, StateError>
    where
        K: 'k,
    {
        let Self { store, index: Some(index), scratch } = self else {
            return self.store.fetch(keys, |part, key| part.key == *key, |hash, _| single(hash), encode_framed);
        };
        let Some(mut wanted) = store.wanted() else { return Ok(0) };
        let pressed = wanted.pressed;
        for (hash, key) in keys {
            if !index.is_used(hash, key, pressed) {
                store.want(&mut wanted, hash, key)?;
            }
        }
        let (mut last, count) = (None, wanted.count());
        for (hash, part) in store.read_wanted(wanted)? {
            scratch.clear();
            encode(&part.user, scratch)?;
            index.insert(hash, &part.key, KeyBytes::from(scratch.as_slice()), part.user.clone())?;
            if last.replace(hash) != Some(hash) {
                index.is_used(hash, &part.key, true);
            }
            store.push_clean(hash, part)?;
        }
        Ok(count)
    }

    /// [`Table::relieve`](crate::Table::relieve). A key stays as long as one of its entries has to.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn relieve(&mut self) -> Result<(), StateError> {
        let Self { store, index: Some(index), scratch } = self else { return self.store.relieve() };
        let Some(mut pressure) = store.pressure(index.about_bytes(store.in_memory()))? else { return Ok(()) };
        let mut in_vain = IN_VAIN;
        while pressure.entries > 0 && pressure.slots > 0 && in_vain > 0 {
            let (mut keys, mut out, mut dirty) = (Vec::new(), Vec::<Place>::new(), Vec::new());
            for place in index.unused(&mut pressure.slots, pressure.entries.min(TOGETHER)) {
                if out.len() >= pressure.entries || in_vain == 0 {
                    break;
                }
                let (key, users) = index.at(place);
                let hash = hash_key(key, scratch);
                let (before, dirty_before) = (out.len(), dirty.len());
                for (bytes, user) in users {
                    let spread = spread_of_bytes::<U>(hash, bytes);
                    let found = store.find(hash, spread, |part| part.key == *key && part.user == *user);
                    out.extend(found);
                    dirty.extend(found.filter(|found| store.is_dirty(*found)));
                    if dirty.len() > dirty_before && !pressure.may_write {
                        break;
                    }
                }
                if dirty.len() > dirty_before && !pressure.may_write {
                    out.truncate(before);
                    dirty.truncate(dirty_before);
                    in_vain -= 1;
                } else {
                    keys.push(place);
                }
            }
            store.write_back(&dirty)?;
            pressure.entries = pressure.entries.saturating_sub(out.len());
            out.into_iter().for_each(|place| store.put_out(place));
            keys.into_iter().for_each(|place| index.forget(place));
        }
        Ok(())
    }

    /// How many entries are in the tier and not in memory.
    #[must_use]
    pub fn cold_entries(&self) -> u64 {
        self.store.cold_entries()
    }
}

impl<K: Key, U: Key, V: Data> Part<K, U, V> {
    /// Key and value, as they stand in a block for a tier.
    pub(super) fn encode_split(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        encode_framed(&self.key, out)?;
        let start = out.len();
        out.extend_from_slice(&[0; 8]); // for the length of all that follows, and that of the user key
        encode_with_postcard(&self.user, out)?;
        let user = checked_length(out.len() - start - 8)?;
        encode_with_postcard(&(stamp(self.stamp), &self.value), out)?;
        let all = checked_length(out.len() - start - 4)?;
        out[start..start + 4].copy_from_slice(&all.to_le_bytes());
        out[start + 4..start + 8].copy_from_slice(&user.to_le_bytes());
        Ok(())
    }
}
