use cutwater_core::Timestamp;
use cutwater_state::{Accumulator, Data, Key, StateError};

use super::{At, Named, StatesError, ValueState};
use crate::ttl::Life;

/// The value of the key at hand, of a [`ValueState`].
pub struct ValueAccess<'a, K: Key, V: Data> {
    pub(super) table: &'a mut Accumulator<K, V>,
    pub(super) at: At<'a, K>,
    pub(super) life: Life,
}

impl<K: Key> Named<K> {
    #[inline]
    pub(crate) fn value<'a, V: Data>(
        &'a mut self,
        handle: ValueState<V>,
        at: At<'a, K>,
        record: Timestamp,
    ) -> Result<ValueAccess<'a, K, V>, StatesError> {
        let (table, life, _) = self.reach(handle.place, std::any::type_name::<ValueState<V>>(), record)?;
        Ok(ValueAccess { table, at, life })
    }
}

impl<K: Key, V: Data> ValueAccess<'_, K, V> {
    /// The value; `None` if there is none or it has expired.
    ///
    /// # Errors
    ///
    /// If a value that a read renews or removes can't be encoded for a running snapshot.
    pub fn get(&mut self) -> Result<Option<&V>, StateError> {
        self.expire()?;
        let At { hash, key } = self.at;
        if let Some(written) = self.life.read() {
            return Ok(self.table.get_mut(hash, key, &(), Some(written))?.map(|value| &*value));
        }
        Ok(self.table.get(hash, key, &()).map(|(_, value)| value))
    }

    /// The value, to be changed; `None` if there is none or it has expired. Counts as a write.
    ///
    /// # Errors
    ///
    /// If the value as it is can't be encoded for a running snapshot.
    pub fn get_mut(&mut self) -> Result<Option<&mut V>, StateError> {
        self.expire()?;
        self.table.get_mut(self.at.hash, self.at.key, &(), self.life.written)
    }

    /// The value, to be changed; what `make` returns if there is none. Counts as a write.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn get_or_insert_with(&mut self, make: impl FnOnce() -> V) -> Result<&mut V, StateError> {
        self.expire()?;
        let At { hash, key } = self.at;
        if self.table.get(hash, key, &()).is_none() {
            self.table.insert(hash, key, (), self.life.written, make())?;
        }
        let value = self.table.get_mut(hash, key, &(), self.life.written)?;
        Ok(value.expect("it was there or has been put there"))
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn set(&mut self, value: V) -> Result<(), StateError> {
        self.table.insert(self.at.hash, self.at.key, (), self.life.written, value)?;
        Ok(())
    }

    /// Forgets the value.
    ///
    /// # Errors
    ///
    /// As [`Self::get_mut`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.table.remove(self.at.hash, self.at.key, &())?;
        Ok(())
    }

    /// Removes the value if it has expired.
    #[inline]
    fn expire(&mut self) -> Result<(), StateError> {
        if self.life.horizon == i64::MIN {
            return Ok(());
        }
        let At { hash, key } = self.at;
        if self.table.get(hash, key, &()).is_some_and(|(stamp, _)| self.life.has_expired(stamp)) {
            self.table.remove(hash, key, &())?;
        }
        Ok(())
    }
}
