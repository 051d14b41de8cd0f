//! What all reports have in common: text or JSON, and the problems found on the way.

use std::error::Error;
use std::io::{self, Write};

use cutwater_coordinator::OpenError;
use cutwater_storage::{StoreError, StoreErrorKind};
use serde::Serialize;

use crate::failure::{Exit, Failure, chain};
use crate::text::safe;

/// What a command found.
pub(crate) trait Report: Serialize {
    /// As people read it.
    fn text(&self) -> String;
    /// All that was wrong.
    fn problems(&self) -> Vec<&Problem>;
    /// Whether the text names the problems itself; else they go to standard error.
    fn text_has_problems(&self) -> bool {
        false
    }
}

/// A file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Its path.
    pub(crate) file: String,
    pub(crate) kind: ProblemKind,
    pub(crate) code: &'static str,
    /// What is wrong, in a sentence about the file.
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProblemKind {
    Damaged,
    Missing,
    NewerFormat,
    Unreadable,
}

impl ProblemKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::NewerFormat => "newer format",
            Self::Unreadable => "unreadable",
        }
    }

    /// What docs/errors.md has more of.
    fn code(self) -> &'static str {
        match self {
            Self::Damaged => "CKP0001",
            Self::Missing => "CKP0002",
            Self::NewerFormat => "CKP0003",
            Self::Unreadable => "CKP0004",
        }
    }
}

impl Problem {
    pub(crate) fn new(file: String, kind: ProblemKind, reason: impl Into<String>) -> Self {
        Self { file, kind, code: kind.code(), reason: reason.into() }
    }

    pub(crate) fn of_store(file: String, error: &StoreError) -> Self {
        let kind = error.kind();
        if kind == StoreErrorKind::NotFound {
            return Self::new(file, ProblemKind::Missing, "it is not there");
        }
        if kind == StoreErrorKind::NotAnObject {
            return Self::new(file, ProblemKind::Damaged, kind.to_string());
        }
        if matches!(kind, StoreErrorKind::Corrupt | StoreErrorKind::TooLarge) {
            let cause = error.source().map_or_else(|| kind.to_string(), ToString::to_string);
            return Self::new(file, ProblemKind::Damaged, cause);
        }
        Self::new(file, ProblemKind::Unreadable, chain(error))
    }

    pub(crate) fn of_record(file: String, error: &OpenError) -> Self {
        if let OpenError::Corrupt { reason, .. } = error {
            return Self::new(file, ProblemKind::Damaged, reason);
        }
        if let OpenError::NewerFormat { found, known, .. } = error {
            let reason = format!("it has format version {found}, this program knows up to {known}: use a newer one");
            return Self::new(file, ProblemKind::NewerFormat, reason);
        }
        Self::new(file, ProblemKind::Damaged, chain(error))
    }

    /// `kind[code]: file`, then the reason on a line of its own, since paths are long.
    pub(crate) fn text(&self) -> String {
        format!("{}[{}]: {}\n  {}\n", self.kind.word(), self.code, safe(&self.file), safe(&self.reason))
    }

    fn exit(&self) -> Exit {
        match self.kind {
            ProblemKind::Unreadable => Exit::Failed,
            ProblemKind::Damaged | ProblemKind::Missing | ProblemKind::NewerFormat => Exit::Damaged,
        }
    }
}

/// Prints the report and says how to end.
pub(crate) fn print<R: Report>(report: &R, json: bool) -> Result<Exit, Failure> {
    let problems = report.problems();
    say(&if json { document(report)? } else { report.text() })?;
    if !json && !report.text_has_problems() {
        for problem in &problems {
            eprint!("{}", problem.text());
        }
    }
    Ok(problems.iter().map(|problem| problem.exit()).max().unwrap_or(Exit::Ok))
}

/// Prints a report that knows of no problems.
pub(crate) fn print_plain(report: &impl Serialize, json: bool, text: impl FnOnce() -> String) -> Result<(), Failure> {
    say(&if json { document(report)? } else { text() })
}

fn document(report: &impl Serialize) -> Result<String, Failure> {
    let document = serde_json::to_string_pretty(report);
    Ok(document.map_err(|error| Failure::new(Exit::Failed, format!("could not make JSON: {error}")))? + "\n")
}

/// Prints a text. Whoever closes the pipe early has read enough.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("could not print: {error}")))
        }
        _ => Ok(()),
    }
}
