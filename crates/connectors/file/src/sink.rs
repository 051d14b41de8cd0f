use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutwater_core::KeyHash;
use cutwater_dataflow::{CommitContext, Committer, Sink, SinkContext, UserError};
use cutwater_storage::{Files, OsFiles};

use crate::FileError;

mod commit;
mod names;
mod writer;

pub use commit::FileCommitter;
pub use writer::FileSinkWriter;

use names::{FinalPrefix, TempNames};

/// Writes records into a folder, one file for each subtask and checkpoint that had any, and publishes each file exactly
/// once, whole, when its checkpoint is complete.
///
/// Until then a file has a name that begins with `.` and ends with `.tmp`. It is published by a hard link to the name
/// `<prefix><uid>-<subtask>-<epoch>-<attempt>-<checkpoint>.<extension>` and never replaces anything; what other programs
/// see under names without a leading `.` is complete and never changes. Within a subtask the order of the names'
/// numbers is the order of the output, apart from what restarts with another parallelism move.
///
/// The folder must be on a file system with hard links and be used by one job at a time per uid. It may be moved between
/// two runs, hidden files and all.
pub struct FileSink<F = NoFormat> {
    folder: PathBuf,
    prefix: String,
    extension: String,
    header: Option<String>,
    create_folder: bool,
    files: Arc<dyn Files>,
    format: Arc<F>,
}

/// The format of a [`FileSink`] that has none yet.
#[derive(Debug)]
pub struct NoFormat;

/// Writes each record as it displays itself, as a line.
///
/// ```
/// let sink = cutwater_file::lines_sink::<String>("out").prefix("words-").extension("txt");
/// ```
pub fn lines_sink<T: fmt::Display>(
    folder: impl Into<PathBuf>,
) -> FileSink<impl Fn(&T, &mut Vec<u8>) + Send + Sync + 'static> {
    FileSink::new(folder).format(|record: &T, buffer: &mut Vec<u8>| {
        writeln!(buffer, "{record}").expect("memory takes all bytes, so only the record's own Display can fail");
    })
}

impl FileSink {
    /// A sink into this folder, which must exist unless [`Self::create_folder`] says otherwise. Give it a
    /// [`format`](Self::format) next.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            prefix: String::new(),
            extension: "csv".to_owned(),
            header: None,
            create_folder: false,
            files: Arc::new(OsFiles::shared()),
            format: Arc::new(NoFormat),
        }
    }

    /// Appends the bytes of a record, its line end included, to the buffer.
    #[must_use]
    pub fn format<T, F: Fn(&T, &mut Vec<u8>) + Send + Sync + 'static>(self, format: F) -> FileSink<F> {
        let Self { folder, prefix, extension, header, create_folder, files, format: _ } = self;
        FileSink { folder, prefix, extension, header, create_folder, files, format: Arc::new(format) }
    }
}

impl<F> FileSink<F> {
    /// What the names of the files begin with; nothing unless set. It must not begin with `.` or hold `/`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What the names end with, after a dot; `csv` unless set.
    #[must_use]
    pub fn extension(mut self, extension: impl Into<String>) -> Self {
        self.extension = extension.into();
        self
    }

    /// A first line for each file, given without line end; none unless set.
    #[must_use]
    pub fn header(mut self, line: impl Into<String>) -> Self {
        self.header = Some(line.into());
        self
    }

    /// Creates the folder, and those above it, where missing. Not done unless said: a folder that is missing may be a
    /// disk that is not mounted.
    #[must_use]
    pub fn create_folder(mut self) -> Self {
        self.create_folder = true;
        self
    }

    /// Uses another file system, such as one that fails at a chosen step; that of the machine unless set.
    #[must_use]
    pub fn files(mut self, files: Arc<dyn Files>) -> Self {
        self.files = files;
        self
    }

    fn check(&self) -> Result<(), FileError> {
        let bad = |part: &str| part.contains(['/', '\\', '\0', '\n']);
        if self.prefix.starts_with('.') || bad(&self.prefix) || bad(&self.extension) {
            let reason = "a prefix must not begin with '.', and neither prefix nor extension hold '/'";
            return Err(FileError::BadNames { path: self.folder.clone(), reason });
        }
        Ok(())
    }

    /// Sees that the folder is there, and that nothing in it has a name that this attempt may give; if the job starts from
    /// nothing, that nothing is of this sink at all.
    fn prepare_folder(&self, finals: &FinalPrefix, from_nothing: bool) -> Result<(), FileError> {
        let failed = |action| move |source| output_error(action, &self.folder, source);
        if self.create_folder {
            self.files.create_folder_all(&self.folder).map_err(failed("create"))?;
        }
        let entries = self.files.list_folder(&self.folder).map_err(failed("list the output folder"))?;
        let in_the_way = |name| finals.is_of_attempt(name) || from_nothing && finals.is_of_sink(name);
        match entries.iter().find(|entry| in_the_way(&entry.name)) {
            Some(taken) => Err(FileError::InTheWay { path: self.folder.join(&taken.name) }),
            None => Ok(()),
        }
    }
}

impl<T: Send + 'static, F: Fn(&T, &mut Vec<u8>) + Send + Sync + 'static> Sink<T> for FileSink<F> {
    type Writer = FileSinkWriter<F>;

    fn open(&self, context: &SinkContext) -> Result<FileSinkWriter<F>, UserError> {
        let finals = FinalPrefix::new(&self.prefix, context);
        self.check().and_then(|()| self.prepare_folder(&finals, context.from_nothing)).map_err(FileError::for_job)?;
        let temps = TempNames::new(&context.job, &context.operator);
        Ok(FileSinkWriter::new(self, context, temps, finals))
    }

    fn committer(&self, context: &CommitContext) -> Result<Box<dyn Committer>, UserError> {
        Ok(Box::new(FileCommitter::new(self.files.clone(), self.folder.clone(), context)))
    }
}

impl<F> fmt::Debug for FileSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink").field("folder", &self.folder).field("files", &self.files).finish_non_exhaustive()
    }
}

fn output_error(action: &'static str, path: &Path, source: std::io::Error) -> FileError {
    FileError::Output { action, path: path.to_path_buf(), source }
}

/// Stands for the job in a file name: any job's name, in 16 characters.
fn job_tag(job: &str) -> String {
    format!("{:016x}", KeyHash::of(job.as_bytes()).0)
}

#[cfg(test)]
mod tests;
