//! All flights from New York in 2013, counted per route: a job that can be killed at any moment. The same command goes
//! on where the newest checkpoint left it, and the output is that of a run that nobody disturbed.
//!
//! `job.rs` is the job, `progress.rs` and `report.rs` are what is seen of it.

mod progress;
mod report;

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Parser;
use cutwater::coordinator::OpenError;
use cutwater::storage::StoreErrorKind;
use cutwater::{
    Config, ConfigError, CopyError, Failure, GraphError, JobError, JobOutcome, JobStatus, OpenCheckpointError, Options,
    OptionsError, Resolved, RestoreError, Settings, StartFrom, StoreResolver, discover, spawn, stop_on_signals,
};

use cutwater_examples::flights::{self, Tuning};

use crate::report::Report;

/// With a state of gigabytes it is worth the while: see the figures in README.md. A program chooses, no library does.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AFTER_HELP: &str = "\
Kill it at any moment: the same command resumes from the newest checkpoint. Ctrl-C and SIGTERM stop it behind a
savepoint, or behind a checkpoint if --savepoints is not given; a second one cancels it.

Settings are taken from the options above, else from the environment (CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL and so \
on), else from cutwater.yaml, config.yaml or flink-conf.yaml in the working directory.

Exit codes:
  0    finished, or had finished before, or stopped by a signal
  1    could not start: data, output or checkpoint folder can't be used
  2    wrong usage or configuration
  3    failed: bad data, output that can't be written, restarts used up, or taken over by another process
  4    the checkpoint is damaged, of another job, of a newer version, or does not fit the job; nothing was restored
  130  cancelled by a second signal";

/// Counts the flights from New York in 2013 per route, exactly once
#[derive(Parser)]
#[command(name = "flights", after_help = AFTER_HELP)]
struct Args {
    /// CSV file of flights, plain or zstd [default: that of the examples]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Folder for the output, created if missing
    #[arg(long, value_name = "FOLDER", default_value = "out/flights")]
    out: PathBuf,

    /// Where checkpoints are kept, in a folder with the job's name: a path, file://PATH, memory:, or s3://BUCKET/FOLDER with the feature s3 [default: checkpoints]
    #[arg(long, value_name = "URL")]
    checkpoints: Option<String>,

    /// Below which folder savepoints go: a path or file://PATH
    #[arg(long, value_name = "URL")]
    savepoints: Option<String>,

    /// Makes savepoints of the backend's own files, which that alone reads
    #[arg(long)]
    native: bool,

    /// From one checkpoint to the next, such as "1 s"; 0 for none, then the first failure ends the job [default: 200 ms]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,

    /// Reads at most so many records a second
    #[arg(long, value_name = "RECORDS_PER_SECOND", value_parser = pace)]
    pace: Option<f64>,

    /// Subtasks that keep the routes; may be another number at each start [default: 1]
    #[arg(long, value_name = "SUBTASKS")]
    parallelism: Option<NonZeroU32>,

    /// Where the counts are kept: hashmap (in memory), or rocksdb with the feature rocksdb [default: hashmap]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,

    /// Where to start: at the latest checkpoint, at none, at a savepoint, or at the newest of another job's folder
    #[arg(long, value_name = "latest|none|PATH", default_value = "latest")]
    from: From,

    /// Starts before the newest checkpoint if --from says so, although its output is published and will be there twice
    #[arg(long)]
    allow_rewind: bool,

    /// Configuration file, instead of the one in the working directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Panics in the operator at this record of this process, once, to show a restart
    #[arg(long, value_name = "RECORD", value_parser = clap::value_parser!(u64).range(1..))]
    crash_at: Option<u64>,
}

#[derive(Clone, Debug)]
enum From {
    Latest,
    None,
    Place(String),
}

impl std::str::FromStr for From {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "latest" => Self::Latest,
            "none" => Self::None,
            path_or_url => Self::Place(path_or_url.to_owned()),
        })
    }
}

fn pace(text: &str) -> Result<f64, String> {
    let pace = text.parse::<f64>().ok().filter(|pace| pace.is_finite() && *pace > 0.0);
    pace.ok_or_else(|| "expected a number above zero".to_owned())
}

/// Why the program ends without a result; the number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    CouldNotStart = 1,
    Usage = 2,
    Failed = 3,
    Checkpoint = 4,
    Interrupted = 130,
}

/// An error with its exit code.
struct Ended {
    exit: Exit,
    error: anyhow::Error,
    /// What to do, where the error does not say so.
    help: Option<&'static str>,
}

impl Ended {
    fn with(exit: Exit) -> impl Fn(anyhow::Error) -> Self {
        move |error| Self { exit, error, help: None }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended { exit, error, help }) => {
            match code(&error) {
                Some(code) => eprintln!("error[{code}]: {error:#}"),
                None => eprintln!("error: {error:#}"),
            }
            if let Some(help) = help {
                eprintln!("help: {help}");
            }
            ExitCode::from(exit as u8)
        }
    }
}

/// What docs/errors.md has more of.
fn code(error: &anyhow::Error) -> Option<&'static str> {
    let of_start = error.downcast_ref().map(ConfigError::code).or_else(|| error.downcast_ref().map(GraphError::code));
    let of_place = || error.downcast_ref().map(OptionsError::code);
    let of_checkpoint = || error.downcast_ref().map(OpenCheckpointError::code);
    let of_run = || error.downcast_ref().map(JobError::code);
    of_start.or_else(of_place).or_else(of_checkpoint).or_else(of_run)
}

fn run(args: &Args) -> Result<(), Ended> {
    let config = configuration(args).map_err(Ended::with(Exit::Usage))?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    let mut options = Options::from_config(&config).map_err(|error| Ended::with(Exit::Usage)(error.into()))?;
    options.checkpointing.allow_rewind = args.allow_rewind;
    options.savepoints = args.savepoints.clone().or(options.savepoints);
    options.from = match &args.from {
        From::Latest => options.from, // or where the configuration says
        From::None => StartFrom::Nothing,
        From::Place(path_or_url) => foreign(path_or_url, &options.stores)?,
    };
    let data = data(args).map_err(Ended::with(Exit::CouldNotStart))?;
    // The sink would do it too, but then it would be a failure of the running job.
    let folder = fs::create_dir_all(&args.out).with_context(|| format!("could not create {}", args.out.display()));
    folder.map_err(Ended::with(Exit::CouldNotStart))?;

    let name = config.name.as_deref().unwrap_or("flights");
    let place = Place::of(&config, name);
    refuse_to_mix(args, &place, &options.stores)?;
    let tuning = Tuning { pace: args.pace, crash_at: args.crash_at, files: None };
    let graph = flights::graph(name, &data, &args.out, tuning);
    let graph = graph.map_err(|error| Ended::with(Exit::Usage)(error.into()))?;
    let resumable = matches!(place, Place::Folder(_));
    let ended = |error| ended(error, resumable);
    let handle = Arc::new(spawn(graph, options).map_err(ended)?);
    stop_on_signals(&handle).map_err(ended)?;
    // With --from a folder it may be that one's checkpoint or, on the second try, one of our own.
    let known = !matches!(args.from, From::Place(_));
    let outcome = progress::watch(&handle, known.then_some(&place)).map_err(Ended::with(Exit::Failed))?;
    match outcome.map_err(ended)? {
        JobOutcome::AlreadyFinished => {
            println!(
                "finished already: the output is complete in {}, the checkpoints are in {place}; to run it again, use \
                 other --out and --checkpoints folders",
                args.out.display()
            );
            Ok(())
        }
        JobOutcome::Stopped { savepoint } => {
            let with = savepoint.map_or_else(String::new, |savepoint| format!(" with savepoint {savepoint}"));
            println!("stopped{with}; checkpoints: {place}; the same command resumes");
            Ok(())
        }
        JobOutcome::Canceled => Err(Ended {
            exit: Exit::Interrupted,
            error: anyhow!("cancelled by a second signal"),
            help: Some("the same command resumes from the newest checkpoint"),
        }),
        JobOutcome::Finished | _ => {
            let result = report(&args.out, &place, &handle.status());
            result.map_err(Ended::with(Exit::Failed))
        }
    }
}

/// Default < file < environment < flags. What the program itself would have comes into play only where nobody says
/// anything: it is a default, not a decision of the job.
fn configuration(args: &Args) -> anyhow::Result<Resolved> {
    let mut config = Config::new();
    if let Some(file) = args.config.clone().or_else(|| discover(Path::new(""))) {
        config = config.file(file)?;
    }
    config = config.environment(env::vars_os());
    if let Some(interval) = &args.interval {
        config = config.flag("execution.checkpointing.interval", interval);
    }
    if let Some(url) = &args.checkpoints {
        config = config.flag("execution.checkpointing.storage", "filesystem").flag("execution.checkpointing.dir", url);
    }
    if let Some(backend) = &args.backend {
        config = config.flag("state.backend.type", backend.as_str());
    }
    if args.native {
        config = config.flag("cutwater.savepoint.format", "NATIVE");
    }
    if let Some(parallelism) = args.parallelism {
        config = config.flag("parallelism.default", parallelism.to_string());
    }
    let said = config.clone().resolve()?;
    let unsaid = |key: &str| !said.origins.contains_key(key);
    let mut settings = Settings::new();
    if unsaid("execution.checkpointing.interval") {
        settings = settings.enable_checkpointing(std::time::Duration::from_millis(200));
    }
    if unsaid("execution.checkpointing.dir") && unsaid("execution.checkpointing.storage") {
        settings = settings.checkpoint_storage("checkpoints");
    }
    Ok(config.code(settings).resolve()?)
}

/// The newest checkpoint in a folder that holds the log of a job.
fn foreign(path_or_url: &str, stores: &StoreResolver) -> Result<StartFrom, Ended> {
    let opened = stores.open_checkpoint(path_or_url);
    let (checkpoint, store) =
        opened.map_err(|error| Ended { exit: not_opened(&error), error: error.into(), help: None })?;
    Ok(StartFrom::Checkpoint(Box::new(checkpoint), store))
}

fn not_opened(error: &OpenCheckpointError) -> Exit {
    match error {
        OpenCheckpointError::Location(_) | OpenCheckpointError::SeveralJobs { .. } => Exit::Usage,
        OpenCheckpointError::NoLog { .. }
        | OpenCheckpointError::NoCheckpoint { .. }
        | OpenCheckpointError::Savepoint(CopyError::Store(_))
        | OpenCheckpointError::Store(_) => Exit::CouldNotStart,
        OpenCheckpointError::Log { .. } | OpenCheckpointError::Part { .. } | OpenCheckpointError::Name { .. } | _ => {
            Exit::Checkpoint
        }
    }
}

/// The file to read, which can be opened.
fn data(args: &Args) -> anyhow::Result<PathBuf> {
    const FILE: &str = "data/flights-2013.csv.zst";
    let Some(data) = &args.data else {
        // Where it was when the program was built; or the program was moved and stands in the repository, or in examples.
        let folders = [env!("CARGO_MANIFEST_DIR"), "examples", "."];
        let found = folders.iter().map(|folder| Path::new(folder).join(FILE)).find(|path| path.is_file());
        return found.ok_or_else(|| anyhow!("{FILE} is in none of the folders {}: use --data", folders.join(", ")));
    };
    File::open(data).with_context(|| format!("could not open {}: check --data", data.display()))?;
    Ok(data.clone())
}

/// Where the checkpoints of the job are.
enum Place {
    /// Below a path or URL.
    Folder(String),
    Memory,
    Nowhere,
}

impl Place {
    fn of(config: &Resolved, job: &str) -> Self {
        match &config.checkpoint_dir {
            _ if config.checkpointing.interval.is_none() => Self::Nowhere,
            Some(dir) if !dir.starts_with("memory:") => Self::Folder(format!("{}/{job}", dir.trim_end_matches('/'))),
            None | Some(_) => Self::Memory,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => f.write_str(folder),
            Self::Memory => f.write_str("in memory, gone with the process"),
            Self::Nowhere => f.write_str("off"),
        }
    }
}

/// A run that begins anew would add its output to that of a run before, and nobody could tell them apart.
fn refuse_to_mix(args: &Args, place: &Place, stores: &StoreResolver) -> Result<(), Ended> {
    let could_not_start = Ended::with(Exit::CouldNotStart);
    // Without output there is nothing to mix, whatever the store has to say, and however long it takes.
    if report::files(&args.out).map_err(&could_not_start)?.next().is_none() {
        return Ok(());
    }
    let anew = match (&args.from, place) {
        (From::Place(_), _) => false, // the other's output may well be here, to be continued
        (_, Place::Memory | Place::Nowhere) => true,
        (_, Place::Folder(folder)) => match stores.open_checkpoint(folder) {
            Err(OpenCheckpointError::NoLog { .. } | OpenCheckpointError::NoCheckpoint { .. }) => true,
            // The job would ask the same store again, as patiently.
            Err(error) if is_unanswered(&error) => return Err(could_not_start(error.into())),
            // Where there is a checkpoint, or anything is wrong with it, the job says what is to be said.
            Ok(_) | Err(_) => false,
        },
    };
    if anew {
        return Err(could_not_start(anyhow!(
            "{} holds output of another run, and there is no checkpoint to resume from: move it away or use another --out \
             folder",
            args.out.display()
        )));
    }
    Ok(())
}

/// Whether the store was asked until the deadline, in vain.
fn is_unanswered(error: &OpenCheckpointError) -> bool {
    matches!(
        error,
        OpenCheckpointError::Store(error) | OpenCheckpointError::Savepoint(CopyError::Store(error))
            if error.kind() == StoreErrorKind::Unavailable
    )
}

/// What is said at the end of a run.
fn report(out: &Path, place: &Place, status: &JobStatus) -> anyhow::Result<()> {
    let report = Report::read(out)?;
    if let Some(table) = report.worst() {
        println!("{table}\n");
    }
    println!("finished: {} flights on {} routes", report.flights(), report.routes());
    let last = match &status.last_checkpoint {
        Some(last) => format!(", the last number {} with {} bytes of state", last.checkpoint, last.bytes),
        None => String::new(),
    };
    println!(
        "this run: {} records read, {} checkpoints{last}, {} restarts",
        status.records_in, status.completed_checkpoints, status.restarts
    );
    println!("output: {} in {} files", out.display(), report.files);
    println!("checkpoints: {place}");
    Ok(())
}

/// Why the job did not finish, and what to do about it.
fn ended(error: JobError, resumable: bool) -> Ended {
    let (exit, help) = match &error {
        JobError::Options { .. } => (Exit::Usage, None),
        JobError::Open { source, .. } => (not_opened(source), None),
        JobError::Store { .. } => (Exit::CouldNotStart, Some("choose another folder with --checkpoints")),
        JobError::Backend { .. } => (Exit::CouldNotStart, None),
        JobError::Log { source: OpenError::BelowPublished { .. }, .. } => {
            (Exit::Usage, Some("leave --from away to resume; or add --allow-rewind; or use new folders"))
        }
        JobError::Log { source: OpenError::Storage { .. }, .. } => (Exit::CouldNotStart, None),
        JobError::Log { .. } => (Exit::Checkpoint, None),
        JobError::Failed { source, .. } => match &**source {
            Failure::Restore { source: RestoreError::Store(_), .. } => (Exit::Failed, None),
            Failure::Restore { source: RestoreError::File { source: error, .. }, .. } if error.is_retryable() => {
                (Exit::Failed, None)
            }
            Failure::Restore { source: RestoreError::Parallelism { .. }, .. } => (Exit::Usage, None),
            Failure::Restore { .. } => (Exit::Checkpoint, None),
            Failure::Task(_) | Failure::Checkpoints(_) | Failure::Commit { .. } | Failure::Host(_) | _ => {
                let resume = "once this is mended, the same command resumes from the newest checkpoint";
                (Exit::Failed, resumable.then_some(resume))
            }
        },
        JobError::Superseded { .. } | JobError::Driver { .. } => (Exit::Failed, None),
        _ => (Exit::Failed, None),
    };
    Ended { exit, error: error.into(), help }
}
