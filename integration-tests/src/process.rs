#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// The longest that any process may run. Those here need seconds, but a sync can take a minute on a disk that others fill.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Between two looks at a process.
const TICK: Duration = Duration::from_micros(500);

/// A program of this repository, as the release build left it.
///
/// # Panics
///
/// If it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test is known");
    let folder = test.ancestors().nth(2).expect("tests lie in target/release/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run ./test.sh, which builds the programs before it runs these tests",
        path.display()
    );
    path
}

/// A command for [`Process::start_bound`].
#[must_use]
pub fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs the function in a thread that lasts as long as this process.
fn in_lasting_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    type Job = Box<dyn FnOnce() + Send>;
    static THREAD: OnceLock<Sender<Job>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    let (sender, result) = mpsc::channel();
    let job: Job = Box::new(move || drop(sender.send(catch_unwind(AssertUnwindSafe(run)))));
    thread.send(job).expect("the thread lasts");
    result.recv().expect("each job sends its result").unwrap_or_else(|panic| resume_unwind(panic))
}

/// Seconds on a clock that only goes forward.
#[must_use]
pub fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Waits for some time. For moments that a test wants to spread; what it waits *for* is waited for as such.
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
    texts: PathBuf,
    started: Instant,
}

/// A child that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub time: Duration,
    command: String,
}

impl Process {
    /// Starts the command. Its texts go to files in `folder`, so that no full pipe can stop it.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    pub fn start(command: &mut Command, folder: &Path) -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let texts = folder.join(format!("process-{number}"));
        let file = |extension| File::create(texts.with_extension(extension)).expect("the folder is ours");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Self::spawn(command, texts.clone())
    }

    /// Starts a command of [`bound`], which the kernel kills when this process ends, however it ends.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start_bound(mut command: Command, folder: &Path) -> Self {
        // The kernel looks at the thread that started the child, and a test's thread ends before the process does.
        let folder = folder.to_owned();
        in_lasting_thread(move || Self::start(&mut command, &folder))
    }

    /// Starts the command with pipes for its input and output, which the caller takes.
    pub(crate) fn with_pipes(command: &mut Command) -> (Self, std::process::ChildStdin, std::process::ChildStdout) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Self::spawn(command, PathBuf::new());
        let stdin = process.child.stdin.take().expect("it was asked for");
        let stdout = process.child.stdout.take().expect("it was asked for");
        (process, stdin, stdout)
    }

    fn spawn(command: &mut Command, texts: PathBuf) -> Self {
        // What the environment says to Cutwater is not for these processes.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CUTWATER_")) {
                command.env_remove(name);
            }
        }
        let text = format!("{command:?}");
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("could not start {text}: {error}"));
        Self { child, command: text, texts, started }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn text(&self, extension: &str) -> String {
        let bytes = fs::read(self.texts.with_extension(extension)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    fn into_ended(self, status: ExitStatus) -> Ended {
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout: self.text("stdout"),
            stderr: self.text("stderr"),
            time: self.started.elapsed(),
            command: self.command.clone(),
        }
    }

    /// Kills it with SIGKILL when it has run so long, and waits until it is gone; its end if it ended before.
    ///
    /// # Errors
    ///
    /// Not really: `Err` holds the end of a process that could not be killed any more.
    pub fn kill_at(mut self, moment: Duration) -> Result<(), Ended> {
        loop {
            if let Some(status) = self.ended() {
                return Err(self.into_ended(status));
            }
            let left = moment.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(left.min(TICK));
        }
        match self.kill() {
            // It may have ended between the look and the signal.
            status if status.code().is_some() => Err(self.into_ended(status)),
            _ => Ok(()),
        }
    }

    /// Kills it with SIGKILL now; its status then.
    pub fn kill(&mut self) -> ExitStatus {
        drop(self.child.kill()); // it may have ended
        self.child.wait().expect("the child is ours")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// If that takes longer than [`LIMIT`].
    #[must_use]
    pub fn wait(mut self) -> Ended {
        loop {
            if let Some(status) = self.ended() {
                return self.into_ended(status);
            }
            self.bounded("its end");
            sleep(TICK);
        }
    }

    /// Waits until something has happened while it runs.
    ///
    /// # Panics
    ///
    /// If it ends before, or that takes longer than [`LIMIT`].
    pub fn wait_until(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        while !happened(self) {
            if let Some(status) = self.ended() {
                panic!("ended with {status} before {what}: {}\n{}", self.command, self.stderr());
            }
            self.bounded(what);
            sleep(TICK);
        }
    }

    fn bounded(&mut self, what: &str) {
        if self.started.elapsed() > LIMIT {
            self.kill();
            let (stdout, stderr) = (self.text("stdout"), self.stderr());
            panic!("waited {LIMIT:?} in vain for {what} of {}\n{stdout}\n{stderr}", self.command);
        }
    }

    /// Sends a signal that does not end it: `STOP` or `CONT`.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn signal(&self, name: &str) {
        // The child is not waited for yet, so that its id can't have become another's.
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "could not send {name} to {}", self.command);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

impl Ended {
    /// Requires an exit code.
    ///
    /// # Panics
    ///
    /// With all that the process said, if it ended otherwise.
    #[track_caller]
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Requires that standard error contains these texts.
    ///
    /// # Panics
    ///
    /// With all that the process said, if it does not.
    #[track_caller]
    pub fn saying(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in what it said: {self}");
        }
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, signal, stdout, stderr, time, command } = self;
        write!(
            f,
            "{command}\nended with {code:?}, signal {signal:?}, after {time:?}\nstdout: {stdout}\nstderr: {stderr}"
        )
    }
}
