//! `cutwater config`: what a configuration says, and what a key means.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cutwater_config::{Config, ConfigError, discover};

use crate::failure::{Exit, Failure, chain};
use crate::report::print_plain;

mod explain;
mod show;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows what holds, as a file that says the same.
    ///
    /// Read are a file, the variables `CUTWATER_...` and what -D says; what a program
    /// itself says is not known here. Options of restart strategies that are not
    /// chosen are left out.
    #[command(after_help = super::EXIT_CODES, verbatim_doc_comment)]
    Show(Show),
    /// Says what a key means here, under its name of today or of Flink 1.x.
    #[command(after_help = super::EXIT_CODES)]
    Explain {
        /// A key such as `restart-strategy.type`, or its variable [default: all].
        key: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    sources: Sources,
    /// Say where each value comes from, and what it replaced.
    #[arg(long)]
    origin: bool,
    /// Print one JSON document; it always has the origins.
    #[arg(long)]
    json: bool,
}

/// Where settings come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// The file [default: the one in --folder].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where to look for a configuration file [default: here].
    ///
    /// The first there is of cutwater.yaml, config.yaml, flink-conf.yaml.
    #[arg(long, value_name = "FOLDER", conflicts_with = "file")]
    folder: Option<PathBuf>,
    /// Set a key, above all else; may be repeated.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    flags: Vec<String>,
    /// Leave the variables of the environment out.
    #[arg(long)]
    no_environment: bool,
}

impl Command {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Show(Show { json, .. }) | Self::Explain { json, .. } => *json,
        }
    }

    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        match self {
            Self::Show(arguments) => {
                let shown = show::gather(arguments.sources.config()?)?;
                print_plain(&shown, arguments.json, || shown.text(arguments.origin))?;
                if !arguments.json {
                    shown.warn();
                }
            }
            Self::Explain { key: Some(key), json } => {
                let explained = explain::gather(key)?;
                print_plain(&explained, *json, || explained.text())?;
            }
            Self::Explain { key: None, json } => {
                let all = explain::gather_all();
                print_plain(&all, *json, || all.text())?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl Sources {
    /// What they say, unresolved.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::new();
        if let Some(file) = self.file.clone().or_else(|| discover(self.folder.as_deref().unwrap_or(Path::new("")))) {
            config = config.file(file)?;
        }
        if !self.no_environment {
            config = config.environment(std::env::vars_os());
        }
        for flag in &self.flags {
            let Some((key, value)) = flag.split_once('=').map(|(key, value)| (key.trim(), value)) else {
                return Err(Failure::new(Exit::Usage, format!("-D {flag}: give KEY=VALUE")));
            };
            config = config.flag(key, value);
        }
        Ok(config)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            ConfigError::Read { .. } => Exit::Failed,
            ConfigError::TooLarge { .. }
            | ConfigError::Syntax { .. }
            | ConfigError::Duplicate { .. }
            | ConfigError::UnknownKey { .. }
            | ConfigError::Invalid { .. }
            | ConfigError::NotBuilt { .. }
            | ConfigError::Conflict(_)
            | _ => Exit::Refused,
        };
        Self::new(exit, chain(&error)).with_code(error.code())
    }
}
