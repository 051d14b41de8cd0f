use cutwater_core::Timestamp;
use cutwater_state::{Data, Key, MapTable, StateError};

use super::{At, MapState, Named, StatesError};
use crate::ttl::Life;

/// The map of the key at hand, of a [`MapState`].
pub struct MapAccess<'a, K: Key, U: Key, V: Data> {
    table: &'a mut MapTable<K, U, V>,
    at: At<'a, K>,
    life: Life,
}

impl<K: Key> Named<K> {
    #[inline]
    pub(crate) fn map<'a, U: Key, V: Data>(
        &'a mut self,
        handle: MapState<U, V>,
        at: At<'a, K>,
        record: Timestamp,
    ) -> Result<MapAccess<'a, K, U, V>, StatesError> {
        let (table, life, _) = self.reach(handle.place, std::any::type_name::<MapState<U, V>>(), record)?;
        Ok(MapAccess { table, at, life })
    }
}

impl<K: Key, U: Key, V: Data> MapAccess<'_, K, U, V> {
    /// The value under the user key; `None` if there is none or it has expired.
    ///
    /// # Errors
    ///
    /// If a value that a read renews or removes can't be encoded for a running snapshot.
    pub fn get(&mut self, user: &U) -> Result<Option<&V>, StateError> {
        self.expire(user)?;
        let At { hash, key } = self.at;
        if let Some(written) = self.life.read() {
            return Ok(self.table.get_mut(hash, key, user, Some(written))?.map(|value| &*value));
        }
        Ok(self.table.get(hash, key, user).map(|(_, value)| value))
    }

    /// The value under the user key, to be looked at beside others: it is neither renewed nor removed.
    #[must_use]
    pub fn peek(&self, user: &U) -> Option<&V> {
        let (stamp, value) = self.table.peek(self.at.hash, self.at.key, user)?;
        (!self.life.has_expired(stamp)).then_some(value)
    }

    /// The value under the user key, to be changed. Counts as a write.
    ///
    /// # Errors
    ///
    /// If the value as it is can't be encoded for a running snapshot.
    pub fn get_mut(&mut self, user: &U) -> Result<Option<&mut V>, StateError> {
        self.expire(user)?;
        self.table.get_mut(self.at.hash, self.at.key, user, self.life.written)
    }

    /// The value under the user key, to be changed; what `make` returns if there is none. Counts as a write.
    ///
    /// # Errors
    ///
    /// As [`Self::insert`].
    pub fn get_or_insert_with(&mut self, user: &U, make: impl FnOnce() -> V) -> Result<&mut V, StateError> {
        self.expire(user)?;
        let At { hash, key } = self.at;
        if self.table.get(hash, key, user).is_none() {
            self.table.insert(hash, key, user.clone(), self.life.written, make())?;
        }
        let value = self.table.get_mut(hash, key, user, self.life.written)?;
        Ok(value.expect("it was there or has been put there"))
    }

    /// Sets the value under the user key and returns the one that was there, unless that had expired.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`]; if the user key can't be encoded.
    pub fn insert(&mut self, user: U, value: V) -> Result<Option<V>, StateError> {
        self.expire(&user)?;
        self.table.insert(self.at.hash, self.at.key, user, self.life.written, value)
    }

    /// Removes the user key and returns the value that it had, unless that had expired.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn remove(&mut self, user: &U) -> Result<Option<V>, StateError> {
        self.expire(user)?;
        self.table.remove(self.at.hash, self.at.key, user)
    }

    /// The entries that have not expired, in the order of the encoded user keys: integers by number, strings by bytes.
    ///
    /// # Errors
    ///
    /// If what a read renews can't be encoded for a running snapshot.
    pub fn iter(&mut self) -> Result<impl DoubleEndedIterator<Item = (&U, &V)>, StateError> {
        let Self { table, at: At { hash, key }, life } = self;
        let life = *life;
        if let Some(written) = life.read() {
            let live = table.iter(*hash, key).filter(|(_, stamp, _)| !life.has_expired(*stamp));
            for user in live.map(|(user, ..)| user.clone()).collect::<Vec<_>>() {
                table.get_mut(*hash, key, &user, Some(written))?;
            }
        }
        let live = table.iter(*hash, key).filter(move |(_, stamp, _)| !life.has_expired(*stamp));
        Ok(live.map(|(user, _, value)| (user, value)))
    }

    /// Whether there is no entry that has not expired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.table.iter(self.at.hash, self.at.key).any(|(_, stamp, _)| !self.life.has_expired(stamp))
    }

    /// Forgets the map.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.table.clear(self.at.hash, self.at.key)
    }

    /// Removes the entry if it has expired.
    #[inline]
    fn expire(&mut self, user: &U) -> Result<(), StateError> {
        if self.life.horizon == i64::MIN {
            return Ok(());
        }
        let At { hash, key } = self.at;
        if self.table.get(hash, key, user).is_some_and(|(stamp, _)| self.life.has_expired(stamp)) {
            self.table.remove(hash, key, user)?;
        }
        Ok(())
    }
}
