use cutwater_core::Timestamp;
use cutwater_state::{Data, Key, ListTable, StateError};

use super::{At, ListState, Named, StatesError};
use crate::ttl::Life;

/// The list of the key at hand, of a [`ListState`].
pub struct ListAccess<'a, K: Key, T: Data> {
    table: &'a mut ListTable<K, T>,
    at: At<'a, K>,
    life: Life,
}

impl<K: Key> Named<K> {
    #[inline]
    pub(crate) fn list<'a, T: Data>(
        &'a mut self,
        handle: ListState<T>,
        at: At<'a, K>,
        record: Timestamp,
    ) -> Result<ListAccess<'a, K, T>, StatesError> {
        let (table, life, _) = self.reach(handle.place, std::any::type_name::<ListState<T>>(), record)?;
        Ok(ListAccess { table, at, life })
    }
}

impl<K: Key, T: Data> ListAccess<'_, K, T> {
    /// Appends an element. Only the last chunk of the list is touched.
    ///
    /// # Errors
    ///
    /// If that chunk can't be encoded for a running snapshot as it is.
    pub fn push(&mut self, element: T) -> Result<(), StateError> {
        self.table.push(self.at.hash, self.at.key, self.life.written, element)
    }

    /// Appends elements.
    ///
    /// # Errors
    ///
    /// As [`Self::push`]; some may then have been appended.
    pub fn extend(&mut self, elements: impl IntoIterator<Item = T>) -> Result<(), StateError> {
        elements.into_iter().try_for_each(|element| self.push(element))
    }

    /// The elements that have not expired, in the order in which they were appended.
    ///
    /// # Errors
    ///
    /// If what a read renews can't be encoded for a running snapshot.
    pub fn iter(&mut self) -> Result<impl Iterator<Item = &T>, StateError> {
        let Self { table, at: At { hash, key }, life } = self;
        if let Some(written) = life.read() {
            table.touch(*hash, key, life.horizon, written)?;
        }
        let life = *life;
        Ok(table.iter(*hash, key).filter(move |(stamp, _)| !life.has_expired(*stamp)).map(|(_, element)| element))
    }

    /// Whether there is no element that has not expired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.table.iter(self.at.hash, self.at.key).any(|(stamp, _)| !self.life.has_expired(stamp))
    }

    /// Puts these elements in the place of the list.
    ///
    /// # Errors
    ///
    /// As [`Self::push`]; the list may then have some of them.
    pub fn replace(&mut self, elements: impl IntoIterator<Item = T>) -> Result<(), StateError> {
        self.clear()?;
        self.extend(elements)
    }

    /// Forgets the list.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.table.clear(self.at.hash, self.at.key)
    }
}
