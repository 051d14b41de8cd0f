use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Ended, Log, Process, program};

/// A folder in which the `flights` program runs, with its output in `out` and its checkpoints in `checkpoints`. It is
/// the working directory, so that messages name short paths and no configuration of others is found.
#[derive(Debug)]
pub struct Flights {
    folder: TempDir,
    data: bool,
}

impl Default for Flights {
    fn default() -> Self {
        Self::new()
    }
}

impl Flights {
    /// With the data of the repository: 336,776 flights.
    ///
    /// # Panics
    ///
    /// If no temporary folder can be made, as all the functions here that only need a usable disk.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made"), data: false }
    }

    /// With other data, in the file `flights.csv` of the folder.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[must_use]
    pub fn with_data(text: &str) -> Self {
        let flights = Self { data: true, ..Self::new() };
        flights.write("flights.csv", text);
        flights
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the job's checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path().join("checkpoints/flights")
    }

    /// Writes a file in the folder.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    /// The program with these options, separated by spaces, besides those that name the files.
    #[must_use]
    pub fn command(&self, options: &str) -> Command {
        let mut command = Command::new(program("flights"));
        command.current_dir(self.path()).args(["--out", "out", "--checkpoints", "checkpoints"]);
        if self.data {
            command.args(["--data", "flights.csv"]);
        }
        command.args(options.split_whitespace());
        command
    }

    /// Starts the program.
    #[must_use]
    pub fn start(&self, options: &str) -> Process {
        Process::start(&mut self.command(options), self.path())
    }

    /// Runs the program to its end.
    #[must_use]
    pub fn run(&self, options: &str) -> Ended {
        self.start(options).wait()
    }

    /// The same files in another folder.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self { data: self.data, ..Self::new() };
        copy_folder(self.path(), copy.path());
        copy
    }

    /// The commit log.
    #[must_use]
    pub fn log(&self) -> Log {
        Log::read(&self.checkpoints())
    }

    /// The published files with their content, by name.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    #[must_use]
    pub fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let names = names(&self.path().join("out")).into_iter().filter(|name| !name.starts_with('.'));
        let read = |name: String| {
            let bytes = fs::read(self.path().join("out").join(&name)).expect("published files stay");
            (name, bytes)
        };
        names.map(read).collect()
    }

    /// All published lines, sorted: what a run has to say, however it came to its end.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        let files = self.published();
        let mut lines: Vec<&[u8]> =
            files.values().flat_map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n')).collect();
        lines.sort_unstable();
        lines.concat()
    }

    /// Files of the output folder that are not published.
    #[must_use]
    pub fn unpublished(&self) -> Vec<String> {
        names(&self.path().join("out")).into_iter().filter(|name| name.starts_with('.')).collect()
    }

    /// Temporary files below the checkpoint folder.
    #[must_use]
    pub fn temporary(&self) -> Vec<String> {
        let folders = ["", "log", "chk", "boundary"];
        let names = folders.iter().flat_map(|folder| names(&self.checkpoints().join(folder)));
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// The snapshot files, with the epoch and the checkpoint that their names tell.
    ///
    /// # Panics
    ///
    /// If a file there has another name.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(u64, u64, String)> {
        let names = names(&self.checkpoints().join("chk")).into_iter().filter(|name| !name.starts_with('.'));
        let parse = |name: String| {
            let mut numbers = name.split('-').map_while(|part| part.parse().ok());
            let numbers = (numbers.next(), numbers.next());
            let (Some(epoch), Some(checkpoint)) = numbers else { panic!("chk/{name} is not the name of a snapshot") };
            (epoch, checkpoint, name)
        };
        names.map(parse).collect()
    }
}

/// Runs `cutwater` in this folder with these arguments, separated by spaces.
#[must_use]
pub fn cutwater(folder: &Path, arguments: &str) -> Ended {
    let mut command = Command::new(program("cutwater"));
    command.current_dir(folder).args(arguments.split_whitespace());
    Process::start(&mut command, folder).wait()
}

/// Requires the same lines, and names the first that differs.
///
/// # Panics
///
/// If they differ.
#[track_caller]
pub fn assert_same_output(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let line = |lines: &[Vec<u8>]| lines.get(same).map(|line| String::from_utf8_lossy(line).into_owned());
    panic!(
        "{what}: {} lines instead of {}, the first to differ is {:?} instead of {:?}",
        found.len(),
        expected.len(),
        line(&found),
        line(&expected)
    );
}

/// The names in a folder, sorted; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.expect("the folder is ours").file_name()).collect();
    names.sort();
    names.into_iter().map(|name| name.into_string().expect("our names are UTF-8")).collect()
}

/// Copies all files that nobody changes.
///
/// # Panics
///
/// If one can't be copied.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("nobody changes these files");
        }
    }
}
