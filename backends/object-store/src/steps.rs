use std::fmt;
use std::io;
use std::sync::Arc;

/// A request that changes the store, in the order in which an object comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Puts a whole object, if none of its name is there.
    Create,
    /// Begins to upload a large object in parts.
    BeginUpload,
    /// Notes the upload, so that it can be swept if this process dies.
    NoteUpload,
    /// Uploads one part.
    PutPart,
    /// Makes an object of the parts. From here on it can be seen, and is durable.
    CompleteUpload,
    /// Throws the parts away.
    AbortUpload,
    /// Removes the note of an upload that has ended.
    ForgetUpload,
    /// Deletes an object.
    Delete,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::BeginUpload,
        Self::NoteUpload,
        Self::PutPart,
        Self::CompleteUpload,
        Self::AbortUpload,
        Self::ForgetUpload,
        Self::Delete,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "object.create",
            Self::BeginUpload => "object.upload.begin",
            Self::NoteUpload => "object.upload.note",
            Self::PutPart => "object.upload.part",
            Self::CompleteUpload => "object.upload.complete",
            Self::AbortUpload => "object.upload.abort",
            Self::ForgetUpload => "object.upload.forget",
            Self::Delete => "object.delete",
        })
    }
}

/// What [`ObjectStorage::with_steps`](crate::ObjectStorage::with_steps) asks before each step; the text is the path of the
/// object in the bucket. An error fails the step.
pub type StepHook = Arc<dyn Fn(Step, &str) -> io::Result<()> + Send + Sync>;
