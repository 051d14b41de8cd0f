use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cutwater_storage::{
    CreateError, Leftover, Listed, ObjectName, ObjectReader, ObjectWriter, Store, StoreError, StoreErrorKind,
};
use futures_util::TryStreamExt as _;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartId, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::time::Instant;

use crate::answer::Outcome;
use crate::connect::{Client, client};
use crate::location::Location;
use crate::parts::Parts;
use crate::reader::{Reader, whole};
use crate::request::{Failure, Limits, wait};
use crate::steps::StepHook;
use crate::writer::{Writer, abort};
use crate::{ConnectError, Settings, Step};

/// A folder in a bucket of S3, Google Cloud Storage, Azure, or of anything that speaks S3's protocol, as a [`Store`].
///
/// Credentials and the like come from where other programs look for them. S3: the variables `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`, `AWS_ALLOW_HTTP`,
/// and the files `~/.aws/credentials` and `~/.aws/config` with `AWS_PROFILE`; then web identity, container and instance
/// roles. Google: `GOOGLE_SERVICE_ACCOUNT` and its kin, `GOOGLE_BASE_URL`, `GOOGLE_ALLOW_HTTP`. Azure:
/// `AZURE_STORAGE_ACCOUNT_NAME` and its kin, `AZURE_STORAGE_ENDPOINT`, `AZURE_ALLOW_HTTP`; `AZURE_STORAGE_USE_EMULATOR` and
/// `AZURITE_BLOB_STORAGE_URL`.
///
/// Clones share their limits.
#[derive(Clone)]
pub struct ObjectStorage {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) url: String,
    folder: Path,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) uploads: Arc<dyn MultipartStore>,
    pub(crate) suffixes: bool,
    parts: Option<Arc<Parts>>,
    pub(crate) limits: Arc<Limits>,
    steps: Option<StepHook>,
}

/// Where uploads are noted that have not ended. No object can have such a name.
const NOTES: &str = ".uploads";
/// A note holds an id of the store's own, of some hundred bytes.
const LONGEST_NOTE: u64 = 16 << 10;
/// No object of any store is longer.
const MOST_BYTES: u64 = 1 << 43;

impl ObjectStorage {
    /// The store at a URL such as `s3://bucket/folder`. Asks nothing of it: whether it is there is seen at the first use.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the URL, the environment or the settings can't be used.
    pub fn open(url: &str, settings: &Settings) -> Result<Self, ConnectError> {
        let location = Location::parse(url)?;
        let client = client(&location, settings)?;
        Ok(Self::over(location.to_string(), location.folder, client, settings))
    }

    pub(crate) fn over(url: String, folder: Path, client: Client, settings: &Settings) -> Self {
        let Client { objects, uploads, suffixes, parts } = client;
        let limits = Arc::new(Limits::new(settings));
        Self { inner: Arc::new(Inner { url, folder, objects, uploads, suffixes, parts, limits, steps: None }) }
    }

    /// The same store; `hook` is asked before each step that changes it, and can fail it or end the process there.
    #[must_use]
    pub fn with_steps(self, hook: StepHook) -> Self {
        let Inner { url, folder, objects, uploads, suffixes, parts, .. } = self.inner.as_ref();
        let inner = Inner {
            url: url.clone(),
            folder: folder.clone(),
            objects: Arc::clone(objects),
            uploads: Arc::clone(uploads),
            suffixes: *suffixes,
            parts: parts.clone(),
            limits: Arc::clone(&self.inner.limits),
            steps: Some(hook),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    fn path(&self, below: &str) -> Path {
        joined(&self.folder, below)
    }

    /// Where the upload of the object at this path is noted.
    pub(crate) fn note_of(&self, path: &Path, id: &MultipartId) -> Path {
        let below = path.prefix_match(&self.folder);
        let parts: Vec<_> = below.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect()).unwrap_or_default();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        self.path(&format!("{NOTES}/{}/{hash:016x}", parts.join("/")))
    }

    pub(crate) fn step(&self, step: Step, path: &Path) -> Result<(), Failure> {
        let Some(hook) = &self.steps else { return Ok(()) };
        hook(step, path.as_ref()).map_err(|error| Failure::of(Outcome::Refused(StoreErrorKind::Other), error))
    }

    pub(crate) fn error(&self, action: &'static str, name: &str, failure: Failure) -> StoreError {
        StoreError::new(failure.kind(), action, self.url.clone(), name).because(failure.reason)
    }

    /// Puts the object there, if none of its name is.
    pub(crate) fn create(self: &Arc<Self>, name: &ObjectName, path: &Path, bytes: Bytes) -> Result<(), CreateError> {
        let failed = |failure| CreateError::Failed { source: self.error("create", name.as_str(), failure) };
        self.step(Step::Create, path).map_err(failed)?;
        let (own, at) = (Arc::clone(self), path.clone());
        match wait(async move { own.put(&at, bytes).await }).map_err(failed)? {
            Ok(()) => Ok(()),
            Err(Failure { outcome: Outcome::Taken, .. }) => Err(CreateError::Exists),
            Err(failure) if failure.sent => {
                Err(CreateError::Unknown { source: self.error("create", name.as_str(), failure) })
            }
            Err(failure) => Err(failed(failure)),
        }
    }

    async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        let deadline = self.limits.deadline();
        let mut sent = false;
        self.limits.upload(bytes.len()).await;
        loop {
            let request = || {
                let payload = PutPayload::from_bytes(bytes.clone());
                self.objects.put_opts(path, payload, PutMode::Create.into())
            };
            let mut failure = match self.limits.request(deadline, request).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            sent |= failure.sent;
            failure.sent = sent;
            if failure.outcome != Outcome::Taken {
                return Err(failure);
            }
            match self.get(path, bytes.len() as u64, deadline).await {
                // By an earlier try of ours: its answer got lost.
                Ok(Found::Bytes(found)) if sent && found == bytes => return Ok(()),
                Ok(Found::Bytes(_) | Found::TooLarge(_)) => return Err(failure),
                // Somebody else was about to take the name, and has not.
                Ok(Found::Nothing) => {
                    let next = Instant::now() + CONFLICT;
                    if next >= deadline {
                        let reason = "others kept on creating and deleting it";
                        return Err(Failure { outcome: Outcome::Passing { sent }, sent, reason: reason.into() });
                    }
                    tokio::time::sleep_until(next).await;
                }
                Err(unread) => return Err(Failure { sent: true, ..unread }),
            }
        }
    }

    /// A whole object of at most so many bytes.
    async fn get(&self, path: &Path, limit: u64, deadline: Instant) -> Result<Found, Failure> {
        let ask = |range: Option<GetRange>| async {
            let answer = self.objects.get_opts(path, GetOptions { range, ..GetOptions::default() }).await?;
            let bytes = answer.meta.size;
            if bytes > limit {
                return Ok(Found::TooLarge(bytes));
            }
            whole(answer.bytes().await?, bytes).map(Found::Bytes)
        };
        // The answer to a range says how long the object is, whatever comes of it.
        let range = GetRange::Bounded(0..limit.clamp(1, MOST_BYTES));
        let answered = match self.limits.request(deadline, || ask(Some(range.clone()))).await {
            // An empty object has no bytes that could be asked for; and not every store may know ranges.
            Err(Failure { outcome: Outcome::Refused(StoreErrorKind::Other | StoreErrorKind::Unsupported), .. }) => {
                self.limits.request(deadline, || ask(None)).await
            }
            answered => answered,
        };
        match answered {
            Err(Failure { outcome: Outcome::Missing, .. }) => Ok(Found::Nothing),
            answered => answered,
        }
    }

    /// One that is not there is fine.
    pub(crate) async fn delete(&self, path: &Path, deadline: Instant) -> Result<(), Failure> {
        match self.limits.request(deadline, || self.objects.delete(path)).await {
            Err(Failure { outcome: Outcome::Missing, .. }) => Ok(()),
            answered => answered,
        }
    }

    /// All objects below a folder, with their paths relative to it.
    async fn list(&self, folder: &Path) -> Result<Vec<(String, u64)>, Failure> {
        let request = || async {
            let mut listed = Vec::new();
            let mut entries = self.objects.list(Some(folder));
            while let Some(entry) = entries.try_next().await? {
                if let Some(parts) = entry.location.prefix_match(folder) {
                    let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
                    listed.push((parts.join("/"), entry.size));
                }
            }
            Ok(listed)
        };
        self.limits.request_of(self.limits.deadline() + LISTING, LISTING, request).await
    }

    async fn sweep(&self, folder: &str) -> Result<u64, Failure> {
        let mut swept = 0;
        for Noted { object, id, note } in self.noted(&self.folder, folder).await? {
            abort(self, &object, &id, note).await?;
            swept += 1;
        }
        Ok(swept)
    }

    /// The uploads that are noted for objects below a folder. `root` is that of the store which noted them.
    async fn noted(&self, root: &Path, folder: &str) -> Result<Vec<Noted>, Failure> {
        let (notes, objects) = (joined(root, &format!("{NOTES}/{folder}")), joined(root, folder));
        let mut noted = Vec::new();
        for (below, _) in self.list(&notes).await? {
            let Some((object, _)) = below.rsplit_once('/') else { continue };
            let (note, object) = (joined(&notes, &below), joined(&objects, object));
            if let Found::Bytes(id) = self.get(&note, LONGEST_NOTE, self.limits.deadline()).await? {
                noted.push(Noted { object, id: String::from_utf8_lossy(&id).into_owned(), note });
            }
        }
        Ok(noted)
    }

    async fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, Failure> {
        let mut noted = self.noted(&self.folder, folder).await?;
        // A job notes its uploads beside its own folder, and this store may be that folder.
        if let Some((above, own)) = parent(&self.folder) {
            noted.extend(self.noted(&above, &format!("{own}/{folder}")).await?);
        }
        let mut left = Vec::new();
        for Noted { object, id, .. } in noted {
            let parts = object.prefix_match(&self.folder).into_iter().flatten();
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            left.push(Leftover { path: parts.join("/"), bytes: self.uploaded(&object, &id).await? });
        }
        left.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(left)
    }

    /// How much the store has of an upload.
    async fn uploaded(&self, object: &Path, id: &str) -> Result<Option<u64>, Failure> {
        let Some(parts) = &self.parts else { return Ok(None) };
        match self.limits.request(self.limits.deadline(), || parts.bytes(object, id)).await {
            Ok(bytes) => Ok(Some(bytes)),
            // It has ended, and only its note is there.
            Err(Failure { outcome: Outcome::Missing, .. }) => Ok(Some(0)),
            Err(failure) => Err(failure),
        }
    }
}

/// An upload that may not have ended.
struct Noted {
    object: Path,
    id: MultipartId,
    note: Path,
}

fn joined(folder: &Path, below: &str) -> Path {
    let parts = folder.as_ref().split('/').chain(below.split('/'));
    parts.filter(|part| !part.is_empty()).collect()
}

/// The folder that a folder is in, and its name there.
fn parent(folder: &Path) -> Option<(Path, String)> {
    let (above, own) = folder.as_ref().rsplit_once('/').unwrap_or(("", folder.as_ref()));
    (!own.is_empty()).then(|| (joined(&Path::default(), above), own.to_owned()))
}

enum Found {
    Nothing,
    Bytes(Bytes),
    TooLarge(u64),
}

/// Between a conflict with another creator and the next try.
const CONFLICT: Duration = Duration::from_millis(100);
/// The longest that a listing may take, with all its pages.
const LISTING: Duration = Duration::from_secs(120);

impl Store for ObjectStorage {
    fn url(&self) -> String {
        self.inner.url.clone()
    }

    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.inner.create(name, &self.inner.path(name.as_str()), Bytes::copy_from_slice(bytes))
    }

    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let (own, path) = (Arc::clone(&self.inner), self.inner.path(name.as_str()));
        let got = wait(async move { own.get(&path, limit, own.limits.deadline()).await });
        match got.and_then(|got| got).map_err(|failure| self.inner.error("read", name.as_str(), failure))? {
            Found::Nothing => Ok(None),
            Found::Bytes(bytes) => Ok(Some(bytes.into())),
            Found::TooLarge(bytes) => Err(StoreError::too_large("read", self.url(), name, bytes, limit)),
        }
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        let opened = Reader::open(&self.inner, name, self.inner.path(name.as_str()));
        let opened = opened.map_err(|failure| self.inner.error("open", name.as_str(), failure))?;
        Ok(opened.map(|reader| Box::new(reader) as Box<dyn ObjectReader>))
    }

    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let path = self.inner.path(name.as_str());
        Ok(Box::new(Writer::new(Arc::clone(&self.inner), name.clone(), path)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let (folder, _) = prefix.rsplit_once('/').unwrap_or_default();
        let (own, path) = (Arc::clone(&self.inner), self.inner.path(folder));
        let listed = wait(async move { own.list(&path).await }).and_then(|listed| listed);
        let listed = listed.map_err(|failure| self.inner.error("list", prefix, failure))?;
        let slash = if folder.is_empty() { "" } else { "/" };
        let named = listed.into_iter().filter_map(|(below, bytes)| {
            let name = ObjectName::parse(&format!("{folder}{slash}{below}")).ok()?;
            name.as_str().starts_with(prefix).then_some(Listed { name, bytes })
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(named)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.inner.path(name.as_str());
        let failed = |failure| self.inner.error("delete", name.as_str(), failure);
        self.inner.step(Step::Delete, &path).map_err(failed)?;
        let own = Arc::clone(&self.inner);
        wait(async move { own.delete(&path, own.limits.deadline()).await }).and_then(|done| done).map_err(failed)
    }

    fn sweep_leftovers(&self, folder: &str) -> Result<u64, StoreError> {
        let (own, below) = (Arc::clone(&self.inner), folder.to_owned());
        let swept = wait(async move { own.sweep(&below).await }).and_then(|swept| swept);
        swept.map_err(|failure| self.inner.error("sweep", folder, failure))
    }

    fn leftovers(&self, folder: &str) -> Result<Vec<Leftover>, StoreError> {
        let (own, below) = (Arc::clone(&self.inner), folder.to_owned());
        let left = wait(async move { own.leftovers(&below).await }).and_then(|left| left);
        left.map_err(|failure| self.inner.error("list", folder, failure))
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
