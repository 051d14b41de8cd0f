//! The modelled object store: what it holds, and what a listing may say of it.

use std::collections::BTreeMap;

/// Immutable objects under names. That it is asked late, lied about or not heard is up to the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    objects: BTreeMap<String, Vec<u8>>,
    /// What the listing showed when it was last up to date.
    listed: Vec<String>,
}

impl Objects {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.objects.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Vec<u8>> {
        self.objects.get(name)
    }

    /// Creates it if it is absent; whether it was.
    pub(crate) fn create(&mut self, name: &str, bytes: Vec<u8>) -> bool {
        let absent = !self.objects.contains_key(name);
        if absent {
            self.objects.insert(name.to_owned(), bytes);
        }
        absent
    }

    /// Puts it there, whatever was there before: what no store should do.
    pub(crate) fn overwrite(&mut self, name: &str, bytes: Vec<u8>) {
        self.objects.insert(name.to_owned(), bytes);
    }

    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.objects.remove(name).is_some()
    }

    /// The objects of the log.
    pub(crate) fn of_log(&self) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
        let log = self.objects.iter().filter(|(name, _)| !name.starts_with("chk/"));
        log.map(|(name, bytes)| (name.clone(), bytes.clone()))
    }

    /// The names of the files of snapshots.
    pub(crate) fn of_snapshots(&self) -> impl Iterator<Item = String> + '_ {
        self.objects.keys().filter(|name| name.starts_with("chk/")).cloned()
    }

    /// Names that begin with the prefix, as they are, or as they were at the last listing.
    pub(crate) fn list(&mut self, prefix: &str, stale: bool) -> Vec<String> {
        if !stale {
            self.listed = self.objects.keys().cloned().collect();
        }
        self.listed.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    }
}
