//! Which files a source reads, and what their splits are called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::glob::{MatchOptions, glob_with};

use crate::FileError;

/// One file, or all that match a pattern: what sources are made of. Implemented for paths and for [`Glob`].
pub trait IntoFiles {
    /// What was given.
    fn into_files(self) -> Files;
}

/// Files of a source. Made of a path, or by [`glob()`].
#[derive(Clone, Debug)]
pub struct Files(Kind);

#[derive(Clone, Debug)]
enum Kind {
    One(PathBuf),
    Matching(String),
}

/// All files that match a pattern. Made by [`glob()`].
#[derive(Clone, Debug)]
pub struct Glob(String);

impl<P: Into<PathBuf>> IntoFiles for P {
    fn into_files(self) -> Files {
        Files(Kind::One(self.into()))
    }
}

impl IntoFiles for Glob {
    fn into_files(self) -> Files {
        Files(Kind::Matching(self.0))
    }
}

/// All files that match a pattern, as in `logs/*.csv.gz` or `data/**/part-[0-9].jsonl`: `?` is one character, `*` any
/// number, `[...]` one of these, `**` any number of folders. Files whose names begin with `.` don't match, and so no
/// unpublished output of a [`FileSink`](crate::FileSink). Folders that match are passed over.
///
/// - The folder is looked at once, when the job is built. Files that appear later are for the next run: when a job is
///   resumed, files that are new are read from their beginning, and those that had been read to their end and are gone
///   are not missed.
/// - Each file is a split, in the order of their names; its name is the path below the last folder in the pattern
///   without a wildcard, so that this folder can move.
/// - It is an error if nothing matches when a job begins.
///
/// ```
/// use cutwater_dataflow::Source;
/// use cutwater_file::{glob, lines};
///
/// # fn main() -> Result<(), cutwater_dataflow::UserError> {
/// # let folder = tempfile::tempdir()?;
/// # for name in ["b.log", "a.log", "c.txt", ".d.log"] { std::fs::write(folder.path().join(name), "x\n")?; }
/// # let pattern = format!("{}/*.log", folder.path().display());
/// assert_eq!(lines(glob(pattern)).splits(1)?, ["a.log", "b.log"]);
/// # Ok(())
/// # }
/// ```
pub fn glob(pattern: impl Into<String>) -> Glob {
    Glob(pattern.into())
}

/// The files by the names of their splits: of a single file its name without its folder, of a pattern the path below its
/// fixed part; the whole path where two files would share a name.
pub(crate) fn by_split(files: &[Files]) -> Result<BTreeMap<String, PathBuf>, FileError> {
    let mut named = Vec::new();
    for files in files {
        match &files.0 {
            Kind::One(path) => {
                named.push((path.file_name().map_or(path.as_path(), Path::new).to_owned(), path.clone()))
            }
            Kind::Matching(pattern) => matching(pattern, &mut named)?,
        }
    }
    let mut shared = BTreeMap::<PathBuf, usize>::new();
    for (name, _) in &named {
        *shared.entry(name.clone()).or_default() += 1;
    }
    let mut by_split = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, path) in named {
        let name = if shared.get(&name) == Some(&1) { &name } else { &path };
        let text = name.to_str().ok_or_else(|| bad(format!("the name of {} is not UTF-8", path.display())))?;
        // Two patterns may have the same file under two names; a name may be the whole path of another file.
        if !seen.insert(path.clone()) || by_split.insert(text.to_owned(), path.clone()).is_some() {
            return Err(bad(format!("{} is given twice", path.display())));
        }
    }
    Ok(by_split)
}

/// Whether a source of these files may have none at all: if all it has are patterns.
pub(crate) fn may_be_none(files: &[Files]) -> bool {
    files.iter().all(|files| matches!(files.0, Kind::Matching(_)))
}

fn matching(pattern: &str, named: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), FileError> {
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let found = glob_with(pattern, options).map_err(|error| bad(format!("{pattern:?} is no pattern: {error}")))?;
    let base = fixed_part(pattern);
    for path in found {
        let path = path.map_err(|error| {
            let path = error.path().to_path_buf();
            FileError::Open { path, source: error.into() }
        })?;
        if !path.is_dir() {
            named.push((path.strip_prefix(base).unwrap_or(&path).to_owned(), path));
        }
    }
    Ok(())
}

/// The folders before the first wildcard. Of a pattern without one, all but the name of the file.
fn fixed_part(pattern: &str) -> &Path {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    Path::new(pattern[..wild].rfind('/').map_or("", |end| &pattern[..=end]))
}

fn bad(reason: String) -> FileError {
    FileError::BadFiles { reason }
}
