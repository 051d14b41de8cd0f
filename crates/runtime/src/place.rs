//! Where checkpoints are kept: the store behind a path or URL, and the part of it that is one job's.

use std::fmt;
use std::sync::Arc;

use cutwater_config::{ObjectStores, Origin, Resolved};
use cutwater_coordinator::CompletedCheckpoint;
use cutwater_storage::{
    CreateError, Leftover, Listed, LocalFolder, MemoryStore, ObjectName, ObjectReader, ObjectWriter, Store, StoreError,
    StoreErrorKind,
};

use crate::open::{OpenCheckpointError, open_checkpoint_in};

/// A place for checkpoints that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// A kind of store that is not known.
    #[error(
        "{url}: there are no checkpoints on {scheme}; use a folder (a path or file://...), memory:, or s3://bucket/folder"
    )]
    Scheme {
        /// What was given, without a user and a password.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A kind of store that this program was built without.
    #[error("{url}: {scheme}:// needs the feature `{feature}`: build the program with `--features {feature}`")]
    Feature {
        /// What was given, without a user and a password.
        url: String,
        /// Its scheme.
        scheme: String,
        /// The feature of the crate `cutwater`.
        feature: &'static str,
    },
    /// A key of object stores in a configuration of a program that was built without them.
    #[error("{origin}: `{key}` needs the feature `s3`: build the program with `--features s3`, or leave the key out")]
    Key {
        /// The key.
        key: &'static str,
        /// Where it was found.
        origin: Origin,
    },
    /// A state backend that this program was built without.
    #[error(
        "{}the state backend {name} needs the feature `{feature}`: build the program with `--features {feature}`, or keep the \
         state in memory (state.backend.type: hashmap)",
        origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default()
    )]
    Backend {
        /// Its name in the configuration.
        name: &'static str,
        /// Where it was found; `None` if nobody knows.
        origin: Option<Origin>,
        /// The feature of the crate `cutwater`.
        feature: &'static str,
    },
    /// An object store that can't be asked.
    #[cfg(feature = "object-store")]
    #[error("{url} can't be used")]
    ObjectStore {
        /// What was given, without a user and a password.
        url: String,
        /// Why.
        source: cutwater_object_store::ConnectError,
    },
    /// A [`StoreResolver`] of the user's own has no store there.
    #[error("{url}: {reason}")]
    Unresolved {
        /// What was given.
        url: String,
        /// Why, and what to give instead.
        reason: String,
    },
}

/// How paths and URLs become stores: [`store_at`], or [`Self::from_config`], unless told otherwise. Here users plug in stores of their own:
/// [`Options::stores`](crate::Options::stores) is asked for [`StartFrom::Path`](crate::StartFrom::Path) and the folders of
/// savepoints, [`Options::from_config_with_stores`](crate::Options::from_config_with_stores) for the folder of checkpoints too.
///
/// ```
/// use std::sync::Arc;
/// use cutwater_runtime::{Options, OptionsError, StoreResolver, store_at};
/// use cutwater_storage::{MemoryStore, Store};
///
/// let shelf: Arc<dyn Store> = Arc::new(MemoryStore::new()); // or one that implements `Store` over a service
/// let mut options = Options::new();
/// options.stores = StoreResolver::new(move |url| match url.strip_prefix("shelf:") {
///     Some("") => Ok(Arc::clone(&shelf)),
///     Some(_) => Err(OptionsError::Unresolved { url: url.to_owned(), reason: "give shelf: alone".to_owned() }),
///     None => store_at(url), // all others as ever
/// });
/// assert_eq!(options.stores.store_at("shelf:b").unwrap_err().to_string(), "shelf:b: give shelf: alone");
/// ```
#[derive(Clone)]
pub struct StoreResolver {
    resolve: Arc<Resolve>,
}

type Resolve = dyn Fn(&str) -> Result<Arc<dyn Store>, OptionsError> + Send + Sync;

impl StoreResolver {
    /// Asks `resolve` for each path and URL. It is called when a job starts and for each savepoint asked for, on the thread
    /// that does so, so it should not block for long; the same text must lead to the same objects each time.
    pub fn new(resolve: impl Fn(&str) -> Result<Arc<dyn Store>, OptionsError> + Send + Sync + 'static) -> Self {
        Self { resolve: Arc::new(resolve) }
    }

    /// [`store_at`], with endpoint, credentials and limits of object stores from a configuration (`s3.*`,
    /// `cutwater.object-store.*`). What that leaves open comes from the environment when a store is opened.
    /// [`Options::from_config`](crate::Options::from_config) takes it.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Key`] if such a key is set and this program was built without object stores.
    pub fn from_config(config: &Resolved) -> Result<Self, OptionsError> {
        let of_stores = |key: &str| key.starts_with("s3.") || key.starts_with("cutwater.object-store.");
        let set = config.origins.iter().find(|(key, _)| of_stores(key));
        match set {
            Some((key, origin)) if !cfg!(feature = "object-store") => {
                Err(OptionsError::Key { key, origin: origin.clone() })
            }
            Some(_) | None => {
                let stores = config.object_stores.clone();
                Ok(Self::new(move |url| store_with(url, &stores)))
            }
        }
    }

    /// The store at a path or URL.
    ///
    /// # Errors
    ///
    /// What the resolver says; without one of the user's own, as [`store_at`].
    pub fn store_at(&self, url: &str) -> Result<Arc<dyn Store>, OptionsError> {
        (self.resolve)(url)
    }

    /// [`open_checkpoint`](crate::open_checkpoint) in the store at a path or URL.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_checkpoint(
        &self,
        path_or_url: &str,
    ) -> Result<(CompletedCheckpoint, Arc<dyn Store>), OpenCheckpointError> {
        open_checkpoint_in(self.store_at(path_or_url)?)
    }
}

impl Default for StoreResolver {
    fn default() -> Self {
        Self::new(store_at)
    }
}

impl fmt::Debug for StoreResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreResolver").finish_non_exhaustive()
    }
}

/// The store at a path, a `file:` URL, or `memory:`; with the feature `object-store` also at `s3://bucket/folder`, with `gcs`
/// and `azure` at `gs://` and `az://`. Endpoint and credentials of those come from the environment, see
/// `cutwater_object_store::ObjectStorage`; [`StoreResolver::from_config`] has them from a configuration too.
///
/// # Errors
///
/// [`OptionsError`] if there is no such kind of store, this program was built without it, or the environment can't be used.
/// Whether the folder can be written is seen when a job starts.
pub fn store_at(url: &str) -> Result<Arc<dyn Store>, OptionsError> {
    store_with(url, &ObjectStores::default())
}

fn store_with(url: &str, stores: &ObjectStores) -> Result<Arc<dyn Store>, OptionsError> {
    let path = match url.split_once(':') {
        Some(("memory", _)) => return Ok(Arc::new(MemoryStore::new())),
        Some(("file", path)) => {
            path.strip_prefix("//localhost/").map_or(path.strip_prefix("//").unwrap_or(path), |rest| rest)
        }
        Some((scheme, rest)) if rest.starts_with("//") => return remote(scheme, url, stores),
        _ => url,
    };
    Ok(Arc::new(LocalFolder::new(path)))
}

/// The store at a URL of this scheme.
fn remote(scheme: &str, url: &str, stores: &ObjectStores) -> Result<Arc<dyn Store>, OptionsError> {
    let feature = match scheme {
        "s3" | "s3a" => "s3",
        "gs" => "gcs",
        "az" | "abfs" | "abfss" => "azure",
        _ => return Err(OptionsError::Scheme { url: without_user(url), scheme: scheme.to_owned() }),
    };
    if let Some(opened) = object_storage(url, feature, stores) {
        return opened;
    }
    Err(OptionsError::Feature { url: without_user(url), scheme: scheme.to_owned(), feature })
}

/// `None` if this program has no such stores.
#[cfg(feature = "object-store")]
fn object_storage(url: &str, feature: &str, stores: &ObjectStores) -> Option<Result<Arc<dyn Store>, OptionsError>> {
    use cutwater_object_store::{ObjectStorage, Settings};
    if feature == "gcs" && !cfg!(feature = "gcs") || feature == "azure" && !cfg!(feature = "azure") {
        return None;
    }
    let mut settings = Settings {
        deadline: stores.deadline,
        request_timeout: stores.request_timeout,
        parallelism: stores.parallelism,
        upload_rate: stores.upload_rate,
        ..Settings::default()
    };
    if feature == "s3" {
        settings.endpoint.clone_from(&stores.endpoint);
        settings.region.clone_from(&stores.region);
        settings.access_key.clone_from(&stores.access_key);
        settings.secret_key.clone_from(&stores.secret_key);
        settings.path_style = stores.path_style;
        settings.allow_http = stores.allow_http;
    }
    let opened = ObjectStorage::open(url, &settings);
    let failed = |source| OptionsError::ObjectStore { url: without_user(url), source };
    Some(opened.map(|store| Arc::new(store) as Arc<dyn Store>).map_err(failed))
}

#[cfg(not(feature = "object-store"))]
fn object_storage(_: &str, _: &str, _: &ObjectStores) -> Option<Result<Arc<dyn Store>, OptionsError>> {
    None
}

/// The URL without what stands before an `@` in its host: somebody may have put a password there.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{}", &rest[user.len() + 1..]),
        None => url.to_owned(),
    }
}

/// A part of a store: all names below one folder.
#[derive(Debug)]
struct Below {
    store: Arc<dyn Store>,
    folder: String,
}

impl Below {
    fn name(&self, name: &ObjectName) -> Result<ObjectName, StoreError> {
        ObjectName::parse(&format!("{}/{name}", self.folder)).map_err(|error| {
            let kind = StoreErrorKind::Other;
            StoreError::new(kind, "name", self.store.url(), name.as_str()).because(error)
        })
    }
}

impl Store for Below {
    fn url(&self) -> String {
        format!("{}/{}", self.store.url().trim_end_matches('/'), self.folder)
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        let name = self.name(name).map_err(|source| CreateError::Failed { source })?;
        self.store.create(&name, bytes)
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(&self.name(name)?, limit)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.store.open(&self.name(name)?)
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.store.writer(&self.name(name)?)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let folder = format!("{}/", self.folder);
        let mut listed = self.store.list(&format!("{folder}{prefix}"))?;
        listed.retain_mut(|entry| {
            let name = entry.name.as_str().strip_prefix(&folder).and_then(|rest| ObjectName::parse(rest).ok());
            name.map(|name| entry.name = name).is_some()
        });
        Ok(listed)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(&self.name(name)?)
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        let below = if folder.is_empty() { self.folder.clone() } else { format!("{}/{folder}", self.folder) };
        self.store.sweep_leftovers(&below)
    }

    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        let below = if folder.is_empty() { self.folder.clone() } else { format!("{}/{folder}", self.folder) };
        let mut left = self.store.leftovers(&below)?;
        for leftover in &mut left {
            if let Some(path) = leftover.path.strip_prefix(&self.folder).and_then(|path| path.strip_prefix('/')) {
                leftover.path = path.to_owned();
            }
        }
        Ok(left)
    }
}

/// The part of a store that belongs to one job.
#[must_use]
pub fn job_folder(store: Arc<dyn Store>, job: &str) -> Arc<dyn Store> {
    Arc::new(Below { store, folder: job.to_owned() })
}
