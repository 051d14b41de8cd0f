//! The small job that counts its durable steps, with its checkpoints below a folder of a bucket.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cutwater_integration_tests::{BUCKET, Ended, Process};
use tempfile::TempDir;

use crate::Env;

/// How often each step was taken.
pub(crate) type Counts = BTreeMap<String, u64>;

/// One job: its output and whence it reaches its store.
pub(crate) struct Stepped<'a> {
    folder: TempDir,
    env: &'a Env,
    below: String,
    options: &'static str,
}

impl<'a> Stepped<'a> {
    pub(crate) fn new(env: &'a Env, below: impl Into<String>, options: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self { folder, env, below: below.into(), options }
    }

    /// The folder of its bucket that is the job's.
    pub(crate) fn job(&self) -> String {
        format!("{}/stepped", self.below)
    }

    pub(crate) fn start(&self, options: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepped-job"));
        let checkpoints = format!("s3://{BUCKET}/{}", self.below);
        command.current_dir(self.folder.path()).args(["--out", "out", "--checkpoints", &checkpoints]);
        command.args(self.options.split_whitespace()).args(options.split_whitespace()).envs(self.env.clone());
        Process::start(&mut command, self.folder.path())
    }

    pub(crate) fn run(&self, options: &str) -> Ended {
        self.start(options).wait()
    }

    /// The same output in another folder.
    pub(crate) fn moved(mut self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        if self.out().join("lines").exists() {
            fs::create_dir(folder.path().join("out")).expect("the folder is ours");
            fs::rename(self.out().join("lines"), folder.path().join("out/lines")).expect("both are temporary folders");
        }
        self.folder = folder;
        self
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// All published lines, sorted.
    pub(crate) fn output(&self) -> Vec<u8> {
        let files = self.files();
        let published = files.iter().filter(|(name, _)| !name.starts_with('.'));
        let mut lines: Vec<&str> = published.flat_map(|(_, text)| text.split_inclusive('\n')).collect();
        lines.sort_unstable();
        lines.concat().into_bytes()
    }

    /// The files of the output folder that are not published.
    pub(crate) fn unpublished(&self) -> Vec<String> {
        self.files().into_iter().map(|(name, _)| name).filter(|name| name.starts_with('.')).collect()
    }

    fn files(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(self.out().join("lines")) else { return Vec::new() };
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("the folder is ours").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("our names are UTF-8").to_owned();
            (name, fs::read_to_string(path).expect("the process is gone, and its files are text"))
        };
        entries.map(read).collect()
    }
}

/// What a run that ended by itself says of its steps.
pub(crate) fn counts(ended: &Ended) -> Counts {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error} in {ended}"))
}
