use std::error::Error;
use std::fmt;
use std::io;

use crate::name::ObjectName;

type Source = Box<dyn Error + Send + Sync>;

/// Why an operation on a store failed. The text names the object and says what to do; the cause is the
/// [source](Error::source).
#[derive(Debug)]
pub struct StoreError(Box<Detail>); // boxed, for it is nested in many errors that should stay small

#[derive(Debug)]
struct Detail {
    kind: StoreErrorKind,
    action: &'static str,
    url: String,
    name: String,
    source: Option<Source>,
}

/// What went wrong, as far as the caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The object, or the folder it should be in, is not there.
    NotFound,
    /// An object of this name is there already; objects are never replaced.
    AlreadyExists,
    /// The user that runs the job may not do this.
    PermissionDenied,
    /// The disk is full or a quota is used up.
    NoSpace,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The file system lacks something that the store needs, such as hard links or the syncing of folders.
    Unsupported,
    /// Something on the way to the object is a symbolic link, or neither a folder nor a plain file.
    NotAnObject,
    /// The object is not what was written: its length or its checksum differs.
    Corrupt,
    /// The object is larger than the reader is willing to take.
    TooLarge,
    /// The store does not accept the credentials of this process, or it has none.
    Credentials,
    /// There is no such bucket.
    NoBucket,
    /// The store did not answer, or answered that it can't now, until the deadline.
    Unavailable,
    /// Anything else; the source says what.
    Other,
}

impl StoreError {
    /// An error of `kind` that happened when the store at `url` wanted to `action` (a verb: "read", "delete") the
    /// object `name`; an empty name stands for the store itself.
    pub fn new(kind: StoreErrorKind, action: &'static str, url: String, name: &str) -> Self {
        Self(Box::new(Detail { kind, action, url, name: name.to_owned(), source: None }))
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// An object of `bytes` bytes where at most `limit` were expected.
    #[must_use]
    pub fn too_large(action: &'static str, url: String, name: &ObjectName, bytes: u64, limit: u64) -> Self {
        Self::new(StoreErrorKind::TooLarge, action, url, name.as_str())
            .because(format!("it has {bytes} bytes, at most {limit} are read"))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind
    }

    /// The store, as [`Store::url`](crate::Store::url) gives it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The object's name (or the prefix of a listing); empty if the error is about the whole store.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the same operation may succeed later without anyone changing rights, mounts or files.
    #[must_use]
    pub fn retry_may_help(&self) -> bool {
        matches!(self.0.kind, StoreErrorKind::NoSpace | StoreErrorKind::Unavailable | StoreErrorKind::Other)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { kind, action, url, name, .. } = self.0.as_ref();
        let slash = if name.is_empty() || url.ends_with('/') { "" } else { "/" };
        write!(f, "could not {action} {url}{slash}{name}: {kind}")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl StoreErrorKind {
    /// The kind that an error of the operating system amounts to.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Os;
        let kind = error.kind();
        match () {
            () if kind == Os::NotFound => Self::NotFound,
            () if kind == Os::AlreadyExists => Self::AlreadyExists,
            () if kind == Os::PermissionDenied => Self::PermissionDenied,
            () if matches!(kind, Os::StorageFull | Os::QuotaExceeded | Os::FileTooLarge) => Self::NoSpace,
            () if kind == Os::ReadOnlyFilesystem => Self::ReadOnly,
            // An invalid argument is what some file systems say to the syncing of a folder; ours are valid.
            () if matches!(kind, Os::Unsupported | Os::CrossesDevices | Os::TooManyLinks | Os::InvalidInput) => {
                Self::Unsupported
            }
            () if matches!(kind, Os::NotADirectory | Os::IsADirectory) => Self::NotAnObject,
            () if matches!(kind, Os::InvalidData | Os::UnexpectedEof) => Self::Corrupt,
            () => Self::Other,
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "it is not there; see whether it or its folder was moved or deleted",
            Self::AlreadyExists => "an object of this name is there already and objects are never replaced",
            Self::PermissionDenied => "permission denied; give the user of this process the right, or choose another folder",
            Self::NoSpace => "no space left (disk full, or quota or size limit reached); free some or choose another folder",
            Self::ReadOnly => "the file system is read-only; mount it writable or choose another folder",
            Self::Unsupported => {
                "the file system lacks an operation that is needed (hard links, syncing of folders); choose a folder on \
                 another file system"
            }
            Self::NotAnObject => {
                "a part of its path is a symbolic link or not a plain file or folder; links below the store's folder are \
                 not followed, put the real thing there"
            }
            Self::Corrupt => "its content is not what was written; use another checkpoint and check the disk",
            Self::TooLarge => "it is larger than a file of this kind can be; it is damaged or something else",
            Self::Credentials => "the store does not accept the credentials of this process; see what it says, and correct them",
            Self::NoBucket => "there is no such bucket; create it, or correct the name",
            Self::Unavailable => {
                "the store did not answer in time, or can't serve now; see whether it runs and can be reached from here"
            }
            Self::Other => "the system reported an error; mend its cause and try again",
        })
    }
}

/// How [`Store::create`](crate::Store::create) can fail. The difference between the last two decides what a commit may
/// do next, so they are not one error with a flag.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken, durably. It may even be by this very call, on a store that repeats requests whose answer got
    /// lost: read the object and compare.
    #[error("an object of this name is there already")]
    Exists,
    /// Nothing was stored, now or later.
    #[error("nothing was stored")]
    Failed {
        /// Why.
        source: StoreError,
    },
    /// The object may or may not be there, and may come or go until the store has settled. Never treat this as a
    /// failure: claim the same name again and read who won.
    #[error("the object may or may not have been stored; read it back before going on")]
    Unknown {
        /// Why.
        source: StoreError,
    },
}

/// Why a store can't hold checkpoints, found by [`Store::probe`](crate::Store::probe) before the first one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A small object could not be created, read back or deleted.
    #[error("{url} can't hold checkpoints: could not {action} a small object there")]
    Unusable {
        /// The store.
        url: String,
        /// What was tried: a verb.
        action: &'static str,
        /// Why it failed.
        source: StoreError,
    },
    /// A second create of the same name succeeded. Two coordinators could both believe they had committed.
    #[error(
        "{url} can't hold checkpoints: it lets an object be created twice, so it could not tell which of two jobs \
         committed; choose a store with create-if-absent"
    )]
    CreatesTwice {
        /// The store.
        url: String,
    },
    /// What was read back is not what was written.
    #[error(
        "{url} can't hold checkpoints: it gave back other bytes than were written; check the disk or choose another store"
    )]
    ReadsOther {
        /// The store.
        url: String,
    },
}

impl ProbeError {
    /// The code of this kind of error, under which docs/errors.md says what to do. It never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "STO0001",
            Self::CreatesTwice { .. } => "STO0002",
            Self::ReadsOther { .. } => "STO0003",
        }
    }
}

impl ProbeError {
    /// The store that was probed.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::Unusable { url, .. } | Self::CreatesTwice { url } | Self::ReadsOther { url } => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_become_kinds_and_texts_that_name_the_object() {
        let cases = [
            ("ENOSPC", 28, StoreErrorKind::NoSpace, "no space left"),
            ("EDQUOT", 122, StoreErrorKind::NoSpace, "no space left"),
            ("EROFS", 30, StoreErrorKind::ReadOnly, "read-only"),
            ("EACCES", 13, StoreErrorKind::PermissionDenied, "permission denied"),
            ("EOPNOTSUPP", 95, StoreErrorKind::Unsupported, "hard links"),
            ("ENOTDIR", 20, StoreErrorKind::NotAnObject, "symbolic link"),
            ("EIO", 5, StoreErrorKind::Other, "mend its cause"),
        ];
        if !cfg!(target_os = "linux") {
            return; // the numbers are Linux's
        }
        for (name, number, kind, text) in cases {
            let source = io::Error::from_raw_os_error(number);
            assert_eq!(StoreErrorKind::of(&source), kind, "{name}");
            let error = StoreError::new(kind, "write", "file:///data".to_owned(), "a/b").because(source);
            assert!(error.to_string().starts_with("could not write file:///data/a/b: "), "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.source().is_some(), "{name}");
        }
    }
}
