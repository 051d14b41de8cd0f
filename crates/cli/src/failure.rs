//! How a command ends.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use cutwater_storage::{StoreError, StoreErrorKind};

/// How the process ends. The numbers are promised in `--help`; 2 is also what the parser of the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Violated = 3,
    Damaged = 4,
    NotFound = 5,
    Refused = 6,
}

impl Exit {
    /// The code of an error that has none of its own.
    fn code(self) -> &'static str {
        match self {
            // The last three are no failures, or have codes of their own.
            Self::Failed | Self::Ok | Self::Violated | Self::Refused => "CLI0001",
            Self::Usage => "CLI0002",
            Self::Damaged => "CLI0003",
            Self::NotFound => "CLI0004",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why there is no report at all.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What docs/errors.md has more of.
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: exit.code(), message: message.into() }
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// What `--json` prints in place of a report.
    pub(crate) fn json(&self) -> String {
        let Self { exit, code, message } = self;
        let document = serde_json::json!({
            "schema": "cutwater.error/1",
            "code": code,
            "exit_code": *exit as u8,
            "message": message,
        });
        format!("{document:#}\n")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::text::safe(&self.message))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = if error.kind() == StoreErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Self::new(exit, chain(&error))
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
