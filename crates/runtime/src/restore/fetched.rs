//! Files that more than one subtask of an attempt takes over.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a file was put, which nobody changes; locked while somebody puts it there.
type Place = Arc<Mutex<Option<PathBuf>>>;

/// The files that the subtasks of this process have got from the store or from copies on this machine, by their names: what one
/// has got the others link.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    places: Mutex<HashMap<String, Place>>,
}

impl Fetched {
    /// Puts the file of this name to the path: by a link if another subtask has it, else by `fetch`. Returns whether it is a link.
    /// Whoever comes while it is fetched waits for it; where that fails, the next one fetches it.
    pub(super) fn put<E>(&self, name: &str, to: &Path, fetch: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            match places.get(name) {
                Some(place) => Arc::clone(place),
                None => Arc::clone(places.entry(name.to_owned()).or_default()),
            }
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have gone meanwhile: a database removes what it no longer needs.
        if place.as_ref().is_some_and(|path| fs::hard_link(path, to).is_ok()) {
            return Ok(true);
        }
        fetch()?;
        *place = Some(to.to_owned());
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_fetches_and_the_others_link() {
        let (folder, fetched, copies) = (tempfile::tempdir().unwrap(), Fetched::default(), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for subtask in 0..4 {
                let (folder, fetched, copies) = (folder.path(), &fetched, &copies);
                threads.spawn(move || {
                    for file in 0..10 {
                        let to = folder.join(format!("{subtask}-{file}"));
                        let fetch = || {
                            copies.fetch_add(1, Ordering::Relaxed);
                            fs::write(&to, "half")?;
                            (0..20).for_each(|_| std::thread::yield_now());
                            fs::write(&to, file.to_string())
                        };
                        fetched.put(&file.to_string(), &to, fetch).unwrap();
                        assert_eq!(fs::read_to_string(&to).unwrap(), file.to_string());
                    }
                });
            }
        });
        assert_eq!(copies.into_inner(), 10);
    }

    #[test]
    fn what_failed_or_has_gone_is_fetched_again() {
        let (folder, fetched) = (tempfile::tempdir().unwrap(), Fetched::default());
        let at = |name: &str| folder.path().join(name);
        assert_eq!(fetched.put("file", &at("first"), || Err("torn")), Err("torn"));
        let write = |name: &'static str| {
            let to = at(name);
            move || {
                fs::write(to, name).unwrap();
                Ok::<_, Infallible>(())
            }
        };
        assert_eq!(fetched.put("file", &at("second"), write("second")), Ok(false));
        assert_eq!(fetched.put("file", &at("third"), write("third")), Ok(true));
        fs::remove_file(at("second")).unwrap();
        assert_eq!(fetched.put("file", &at("fourth"), write("fourth")), Ok(false));
        assert_eq!(fetched.put("file", &at("fifth"), write("fifth")), Ok(true));
        let content = ["third", "fourth", "fifth"].map(|name| fs::read_to_string(at(name)).unwrap());
        assert_eq!(content, ["second", "fourth", "fourth"]);
    }
}
