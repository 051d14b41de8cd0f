//! The small job that counts its durable steps, in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cutwater::storage::MemoryStore;
use cutwater::{OpenCheckpointError, copy_savepoint, open_checkpoint, read_savepoint, store_at};
#[cfg(feature = "rocksdb")]
use cutwater_integration_tests::copy_folder;
use cutwater_integration_tests::{Ended, Log, Process, assert_same_output, cutwater};
use tempfile::TempDir;

/// How often each step was taken.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A folder with all that belongs to one job.
pub(crate) struct Stepped {
    folder: TempDir,
    pub(crate) variant: &'static str,
}

impl Stepped {
    pub(crate) fn new(variant: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made"), variant }
    }

    /// The same files in another folder.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.variant);
        copy_folder(self.folder.path(), copy.folder.path());
        copy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, options: &str) -> Ended {
        self.run_in("out", "checkpoints", &format!("--savepoints savepoints {options}"))
    }

    pub(crate) fn run_in(&self, out: &str, checkpoints: &str, options: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepped-job"));
        command.current_dir(self.folder.path()).args(["--out", out, "--checkpoints", checkpoints]);
        command.args(options.split_whitespace()).args(self.variant.split_whitespace());
        Process::start(&mut command, self.folder.path()).wait()
    }

    /// The published files by name; hidden ones too.
    pub(crate) fn files(&self, out: &str) -> BTreeMap<String, String> {
        let names = names(&self.path(out).join("lines")).into_iter();
        let read = |name: String| {
            let text = fs::read_to_string(self.path(out).join("lines").join(&name));
            (name, text.expect("the process is gone, and its files are text"))
        };
        names.map(read).collect()
    }

    /// What holds after a run that came to its end, whatever happened before.
    pub(crate) fn assert_finished(&self, expected: &[u8], what: &str) {
        let files = self.files("out");
        let hidden: Vec<_> = files.keys().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{what}: {hidden:?} stay in the output folder");
        assert_same_output(&sorted(files.values()), expected, what);
        let job = self.path("checkpoints/stepped");
        assert!(Log::read(&job).finished(), "{what}: the log does not say that the job has finished");
        for folder in ["", "log", "chk", "boundary"] {
            let hidden = names(&job.join(folder)).into_iter().find(|name| name.starts_with('.'));
            assert_eq!(hidden, None, "{what}: stays in {folder} of the checkpoint folder");
        }
        let verified = cutwater(self.folder.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
    }

    /// The savepoints that are there, each checked whole. What is no savepoint says so.
    pub(crate) fn savepoints(&self, what: &str) -> Vec<PathBuf> {
        let mut whole = Vec::new();
        for name in names(&self.path("savepoints")) {
            let path = self.path("savepoints").join(name);
            let text = path.to_str().expect("our names are UTF-8");
            match open_checkpoint(text) {
                Ok((_, store)) => {
                    let savepoint = read_savepoint(store.as_ref()).expect("it was just read").expect("it was there");
                    copy_savepoint(&savepoint, store.as_ref(), &MemoryStore::new())
                        .unwrap_or_else(|error| panic!("{what}: {text} is half a savepoint: {error}"));
                    whole.push(path);
                }
                Err(OpenCheckpointError::NoLog { .. }) => {}
                Err(error) => panic!("{what}: {text} is neither a savepoint nor none: {error}"),
            }
        }
        whole
    }

    /// What starts from a savepoint publishes what the job had not published up to it.
    pub(crate) fn assert_restores(&self, savepoint: &Path, expected: &[u8], what: &str) {
        let store = store_at(savepoint.to_str().expect("our names are UTF-8")).expect("a path");
        let made = read_savepoint(store.as_ref()).expect("it can be read").expect("it is there").checkpoint;
        let options = format!("--from {}", savepoint.display());
        drop(self.run_in("out-from", "checkpoints-from", &options).with_code(0));
        let rest = self.files("out-from");
        let upto = (made.epoch.0, made.checkpoint.0);
        let before = self.files("out").into_iter().filter(|(name, _)| epoch_and_checkpoint(name) <= upto);
        let all: Vec<String> = before.map(|(_, text)| text).chain(rest.into_values()).collect();
        assert_same_output(&sorted(all.iter()), expected, &format!("{what}, from {}", savepoint.display()));
    }
}

/// Those of a published file, which is named `lines-<subtask>-<epoch>-<attempt>-<checkpoint>.txt`.
fn epoch_and_checkpoint(name: &str) -> (u64, u64) {
    let numbers = name.trim_end_matches(".txt").split('-').skip(1).map(str::parse);
    match numbers.collect::<Result<Vec<u64>, _>>().as_deref() {
        Ok(&[_, epoch, _, checkpoint]) => (epoch, checkpoint),
        _ => panic!("{name} is not the name of a published file"),
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("the folder is ours").file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("our names are UTF-8")).collect();
    names.sort_unstable();
    names
}

pub(crate) fn sorted<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<u8> {
    let mut lines: Vec<&str> = texts.flat_map(|text| text.split_inclusive('\n')).collect();
    lines.sort_unstable();
    lines.concat().into_bytes()
}

pub(crate) fn counts(ended: &Ended) -> Counts {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error} in {ended}"))
}
