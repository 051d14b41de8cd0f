use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

use crate::{Ended, Process};

/// A mount namespace of its own, held by a process that waits. What is mounted in it is seen only by the processes that
/// are started in it, and is gone with it: also when the test is killed, since the holder's input ends then.
#[derive(Debug)]
pub struct Mounts {
    holder: Process,
    _stdin: ChildStdin,
}

impl Mounts {
    /// Makes the namespace and runs a shell script in it, in `folder`, which mounts what is wanted.
    ///
    /// # Panics
    ///
    /// If that is not permitted: it takes root, or the right to make user namespaces.
    #[must_use]
    pub fn new(folder: &Path, script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("set -e; {script}; echo mounted; exec cat")).current_dir(folder);
        let (holder, stdin, stdout) = Process::with_pipes(&mut command);
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(
            read.is_ok() && line == "mounted\n",
            "no mounts of our own ({script}): these tests need to be root on Linux, with unshare, nsenter and mount"
        );
        Self { holder, _stdin: stdin }
    }

    /// The same command as one that runs in the namespace.
    #[must_use]
    pub fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        // Entering a mount namespace leads to its root folder.
        entered.args(["--mount", "--target", &self.holder.id().to_string(), "sh", "-c", "cd \"$0\" && exec \"$@\""]);
        entered.arg(command.get_current_dir().unwrap_or(Path::new("/")));
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    /// Runs a shell script in the namespace, in `folder`.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run(&self, folder: &Path, script: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder);
        Process::start(&mut self.enter(&command), folder).wait().with_code(0)
    }

    /// A path in the namespace as a path outside of it.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix("/").expect("the path is absolute");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(relative)
    }
}
