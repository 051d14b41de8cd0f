use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A step of [`LocalFolder`](crate::LocalFolder) that changes the disk, in the order in which an object comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Creates a folder that is missing.
    CreateFolder,
    /// Syncs the folder above one that is used for the first time.
    SyncParent,
    /// Creates the temporary file, under a name that begins with `.`.
    CreateTemp,
    /// Writes a piece of at most 1 MiB to it.
    WriteTemp,
    /// Syncs it.
    SyncTemp,
    /// Syncs the folder before the link, for [`Store::create`](crate::Store::create) only: what others created there, and
    /// the caller may have seen, is durable before the new object can be.
    SyncEarlier,
    /// Links it to the name of the object. From here on the object can be seen.
    Link,
    /// Removes the temporary name; also in the clean-up after a failure.
    UnlinkTemp,
    /// Syncs the folder. From here on the object is durable.
    SyncFolder,
    /// Deletes an object, or a leftover of a killed writer.
    Delete,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 10] = [
        Self::CreateFolder,
        Self::SyncParent,
        Self::CreateTemp,
        Self::WriteTemp,
        Self::SyncTemp,
        Self::SyncEarlier,
        Self::Link,
        Self::UnlinkTemp,
        Self::SyncFolder,
        Self::Delete,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateFolder => "local.folder.create",
            Self::SyncParent => "local.folder.sync-parent",
            Self::CreateTemp => "local.create.open",
            Self::WriteTemp => "local.create.write",
            Self::SyncTemp => "local.create.sync",
            Self::SyncEarlier => "local.create.sync-earlier",
            Self::Link => "local.create.link",
            Self::UnlinkTemp => "local.create.unlink",
            Self::SyncFolder => "local.create.sync-folder",
            Self::Delete => "local.delete",
        })
    }
}

/// What [`LocalFolder::with_steps`](crate::LocalFolder::with_steps) asks before each step; the path is what the step
/// changes.
pub type StepHook = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;
