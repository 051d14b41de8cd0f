use std::collections::BTreeMap;

use cutwater_core::KeyHash;

use crate::key_bytes::KeyBytes;
use crate::store::{Entry, Hand, Place, Store};
use crate::{Key, StateError, StateKind, TableSpec, hash_key};

/// Which user keys each key of a map has, in the order of their encodings. It follows from the entries of the map, so
/// it is in no snapshot.
pub(crate) struct Index<K: Key, U: Key> {
    store: Store<Users<K, U>>,
    /// Where the search for keys that were not used goes on.
    hand: Hand,
}

/// A key has most often few user keys: those need no tree.
const FEW: usize = 16;

/// The user keys of one key: in `few`, or all in `many`.
struct Users<K, U> {
    key: K,
    few: Vec<(KeyBytes, U)>,
    many: BTreeMap<KeyBytes, U>,
}

impl<K: Key, U: Key> Index<K, U> {
    pub(crate) fn new(spec: TableSpec) -> Self {
        Self { store: Store::new(spec, StateKind::Map), hand: (0, 0) }
    }

    /// Notes a user key that the key has not.
    pub(crate) fn insert(&mut self, hash: KeyHash, key: &K, bytes: KeyBytes, user: U) -> Result<(), StateError> {
        let place = match self.store.find(hash, hash.0, |users| users.key == *key) {
            Some(place) => place,
            None => {
                let users = Users { key: key.clone(), few: Vec::new(), many: BTreeMap::new() };
                self.store.push(hash, hash.0, users)?
            }
        };
        let users = self.store.at_mut(hash, place)?;
        if !users.many.is_empty() {
            users.many.insert(bytes, user);
            return Ok(());
        }
        let at = users.few.partition_point(|(there, _)| *there < bytes);
        users.few.insert(at, (bytes, user));
        if users.few.len() > FEW {
            users.many = users.few.drain(..).collect();
        }
        Ok(())
    }

    /// Forgets a user key.
    pub(crate) fn remove(&mut self, hash: KeyHash, key: &K, bytes: &KeyBytes) -> Result<(), StateError> {
        let Some(place) = self.store.find(hash, hash.0, |users| users.key == *key) else { return Ok(()) };
        let users = self.store.at_mut(hash, place)?;
        users.many.remove(bytes);
        if let Ok(at) = users.few.binary_search_by(|(there, _)| there.cmp(bytes)) {
            users.few.remove(at);
        }
        if users.few.is_empty() && users.many.is_empty() {
            self.store.remove(hash, place)?;
        }
        Ok(())
    }

    /// The user keys of the key, in order.
    pub(crate) fn of<'a>(
        &'a self,
        hash: KeyHash,
        key: &K,
    ) -> impl DoubleEndedIterator<Item = (&'a KeyBytes, &'a U)> + use<'a, K, U> {
        let users = self.store.find(hash, hash.0, |users| users.key == *key).map(|place| self.store.at(place));
        let few = users.into_iter().flat_map(|users| users.few.iter().map(|(bytes, user)| (bytes, user)));
        few.chain(users.into_iter().flat_map(|users| users.many.iter()))
    }

    /// The last user key of the key.
    pub(crate) fn last(&self, hash: KeyHash, key: &K) -> Option<(&KeyBytes, &U)> {
        let users = self.store.at(self.store.find(hash, hash.0, |users| users.key == *key)?);
        users.many.last_key_value().or_else(|| users.few.last().map(|(bytes, user)| (bytes, user)))
    }

    pub(crate) fn len(&self, hash: KeyHash, key: &K) -> usize {
        let place = self.store.find(hash, hash.0, |users| users.key == *key);
        place.map_or(0, |place| self.store.at(place).few.len() + self.store.at(place).many.len())
    }

    /// Whether the key has any user key here; if so, and `note` says it, that it is used.
    pub(crate) fn is_used(&mut self, hash: KeyHash, key: &K, note: bool) -> bool {
        let Some(place) = self.store.find(hash, hash.0, |users| users.key == *key) else { return false };
        if note {
            self.store.mark_used(place);
        }
        true
    }

    /// Some keys that were not used for a while, at most so many; takes off `slots` how much was searched.
    pub(crate) fn unused(&mut self, slots: &mut usize, most: usize) -> Vec<Place> {
        self.store.turn(&mut self.hand, slots, most)
    }

    /// The key at this place, and its user keys.
    pub(crate) fn at(&self, place: Place) -> (&K, impl Iterator<Item = (&KeyBytes, &U)>) {
        let users = self.store.at(place);
        (&users.key, users.few.iter().map(|(bytes, user)| (bytes, user)).chain(&users.many))
    }

    /// Forgets the key at this place. No other one moves.
    pub(crate) fn forget(&mut self, place: Place) {
        self.store.drop_at(place);
    }

    /// About how much memory it takes, if there are so many user keys all in all.
    pub(crate) fn about_bytes(&self, users: u64) -> u64 {
        let (key, user) = (size_of::<Users<K, U>>() as u64, size_of::<(KeyBytes, U)>() as u64);
        (self.store.in_memory() * key + users * user) * 3 / 2
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
    }
}

impl<K: Key, U: Key> Entry for Users<K, U> {
    type Key = K;
    type Value = ();

    fn hash(&self, scratch: &mut Vec<u8>) -> KeyHash {
        hash_key(&self.key, scratch)
    }

    fn spread(&self, hash: KeyHash) -> u64 {
        hash.0
    }

    fn same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Never called: the index is neither cut nor restored.
    fn encode(&self, _: &mut Vec<u8>) -> Result<(), StateError> {
        Ok(())
    }

    fn warm(&self) -> u8 {
        0
    }

    fn decode(_: &[u8], _: &[u8]) -> Result<Self, StateError> {
        Err(StateError::Decode { type_name: "index", reason: "an index is in no snapshot".into() })
    }

    type Name = ();

    /// Never called, as are the others.
    fn encode_name(&self, _: &mut Vec<u8>) -> Result<(), StateError> {
        Ok(())
    }

    fn decode_name(_: KeyHash, key: &[u8], rest: &[u8]) -> Result<((), u64), StateError> {
        Self::decode(key, rest).map(|_| ((), 0))
    }

    fn has_name(&self, (): &()) -> bool {
        false
    }
}
