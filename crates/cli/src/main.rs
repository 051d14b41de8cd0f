//! The `cutwater` command: looks into checkpoint folders without the job that wrote them, says what a configuration
//! means, checks a machine before a job is started on it, and simulates.
//!
//! `checkpoints` only reads. Each command gathers a report, which is printed as text that fits 80 columns, or as one JSON
//! document.

mod config;
mod doctor;
mod failure;
mod folder;
mod gc;
mod history;
mod inspect;
mod list;
mod report;
mod savepoint;
mod simulate;
mod snapshot;
mod text;
mod usage;
mod verify;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::{Exit, Failure};
use crate::report::print;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  something could not be read, or the doctor found an error
  2  the command line is wrong
  3  a simulated world broke a rule
  4  something is damaged, missing from a checkpoint, or of a newer version
  5  there is no such folder, file, log, checkpoint or key
  6  the configuration is not accepted
An error has a code, such as CFG0005: docs/errors.md says what to do.";

/// Checkpoints and restarts for stateful stream processing.
#[derive(Parser)]
#[command(name = "cutwater", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads checkpoint folders, without the job. Changes nothing.
    #[command(subcommand)]
    Checkpoints(Checkpoints),
    /// Inspects, checks, copies and deletes savepoints, without the job.
    #[command(subcommand)]
    Savepoint(SavepointCommand),
    /// Says what a configuration means. Changes nothing.
    #[command(subcommand)]
    Config(config::Command),
    /// Checks this machine and a configuration before a job is started.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Doctor),
    /// Runs worlds of failures from seeds, and judges them.
    #[command(after_help = EXIT_CODES)]
    Simulate(simulate::Simulate),
}

#[derive(Subcommand)]
enum Checkpoints {
    /// Lists the checkpoints of the jobs in a folder, and how each job ended.
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        place: Place,
        /// Also those no longer retained, whose files are deleted.
        #[arg(long)]
        all: bool,
    },
    /// Shows what one checkpoint holds: tasks, files, states, positions.
    #[command(after_help = EXIT_CODES)]
    Inspect {
        #[command(flatten)]
        place: Place,
        /// The checkpoint [default: the newest].
        #[arg(long, value_name = "ID")]
        checkpoint: Option<u64>,
    },
    /// Shows what became of the newest checkpoints, and how long they took
    ///
    /// A job keeps these statistics beside its checkpoints while it runs, and they stay
    /// when it is gone.
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    History {
        #[command(flatten)]
        place: Place,
        /// Only this checkpoint, with its subtasks [default: all].
        #[arg(long, value_name = "ID")]
        checkpoint: Option<u64>,
    },
    /// Says which files of a job's folder nobody needs
    ///
    /// Deletes nothing: that is the job's own work, when it is started again. What a
    /// job that runs may be working at is shown apart.
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Gc {
        #[command(flatten)]
        place: Place,
        /// Only look. Without it the command is refused.
        #[arg(long)]
        dry_run: bool,
    },
    /// Checks every byte of the retained checkpoints and of the log
    ///
    /// Names each file that is missing or not as it was written. If the job runs and
    /// lets go of a checkpoint meanwhile, that is said and is no error.
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Verify {
        #[command(flatten)]
        place: Place,
        /// Only this checkpoint, and the log [default: retained].
        #[arg(long, value_name = "ID")]
        checkpoint: Option<u64>,
    },
}

#[derive(Subcommand)]
enum SavepointCommand {
    /// Shows what a savepoint holds: tasks, files, states, positions.
    #[command(after_help = EXIT_CODES)]
    Inspect {
        #[command(flatten)]
        place: SavepointPlace,
    },
    /// Checks every byte of a savepoint, and names each file that is damaged.
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        place: SavepointPlace,
    },
    /// Copies a savepoint to a new folder, and checks every byte on the way.
    #[command(after_help = EXIT_CODES)]
    Copy {
        #[command(flatten)]
        place: SavepointPlace,
        /// The new folder: a path or file:// URL.
        to: String,
    },
    /// Deletes a savepoint, whether or not a job was started from it.
    #[command(after_help = EXIT_CODES)]
    Delete {
        #[command(flatten)]
        place: SavepointPlace,
    },
}

#[derive(Args)]
struct SavepointPlace {
    /// The savepoint's folder: a path or file:// URL.
    path: String,
    /// Print one JSON document; the units are in its keys.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Place {
    /// A job's checkpoints or the folder above: a path or file:// URL.
    path: String,
    /// Print one JSON document; the units are in its keys.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage::rejected(&error),
    };
    let json = command.json();
    let ended = match command {
        Command::Checkpoints(command) => run(command),
        Command::Savepoint(command) => run_savepoint(command),
        Command::Config(command) => command.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Simulate(simulate) => simulate.run(),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if json {
                drop(report::say(&failure.json())); // if that fails, the next line still says it
            }
            eprintln!("error[{}]: {failure}", failure.code);
            failure.exit.into()
        }
    }
}

impl Command {
    /// Whether standard output is to be JSON.
    fn json(&self) -> bool {
        match self {
            Self::Checkpoints(
                Checkpoints::List { place, .. }
                | Checkpoints::Inspect { place, .. }
                | Checkpoints::History { place, .. }
                | Checkpoints::Gc { place, .. }
                | Checkpoints::Verify { place, .. },
            ) => place.json,
            Self::Savepoint(
                SavepointCommand::Inspect { place }
                | SavepointCommand::Verify { place }
                | SavepointCommand::Copy { place, .. }
                | SavepointCommand::Delete { place },
            ) => place.json,
            Self::Config(command) => command.json(),
            Self::Doctor(doctor) => doctor.json(),
            Self::Simulate(simulate) => simulate.json(),
        }
    }
}

fn run_savepoint(command: SavepointCommand) -> Result<Exit, Failure> {
    match command {
        SavepointCommand::Inspect { place } => print(&savepoint::inspect(&place.path)?, place.json),
        SavepointCommand::Verify { place } => print(&savepoint::verify(&place.path)?, place.json),
        SavepointCommand::Copy { place, to } => print(&savepoint::copy(&place.path, &to)?, place.json),
        SavepointCommand::Delete { place } => print(&savepoint::delete(&place.path)?, place.json),
    }
}

fn run(command: Checkpoints) -> Result<Exit, Failure> {
    match command {
        Checkpoints::List { place, all } => print(&list::gather(&place.path, all)?, place.json),
        Checkpoints::Inspect { place, checkpoint } => print(&inspect::gather(&place.path, checkpoint)?, place.json),
        Checkpoints::History { place, checkpoint } => print(&history::gather(&place.path, checkpoint)?, place.json),
        Checkpoints::Gc { place, dry_run } => print(&gc::gather(&place.path, dry_run)?, place.json),
        Checkpoints::Verify { place, checkpoint } => print(&verify::gather(&place.path, checkpoint)?, place.json),
    }
}
