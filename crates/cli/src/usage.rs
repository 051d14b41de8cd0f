//! What the grammar of the command line rejects, before any command runs.

use std::env;
use std::process::ExitCode;

use clap::error::{Error, ErrorKind};

use crate::failure::{Exit, Failure};
use crate::report::say;
use crate::text::safe;

/// What is wrong with a command line that no command ever sees.
enum Wrong {
    Grammar,
}

impl Wrong {
    fn code(self) -> &'static str {
        match self {
            Self::Grammar => "CLI0005",
        }
    }
}

/// Says what is wrong, with a code, and as a document if `--json` stands among the arguments. Help and version are no
/// errors, and are printed as they are.
pub(crate) fn rejected(error: &Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        drop(error.print()); // whoever closes the pipe early has read enough
        return ExitCode::SUCCESS;
    }
    let said = error.render().to_string();
    let code = Wrong::Grammar.code();
    let failure = Failure::new(Exit::Usage, message(error.kind(), &said)).with_code(code);
    if wants_json() {
        drop(say(&failure.json())); // if that fails, the next line still says it
        eprintln!("error[{code}]: {failure}");
    } else if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{said}");
        eprintln!("\nerror[{code}]: {failure}");
    } else {
        let rest = said.strip_prefix("error: ").unwrap_or(&said);
        let lines: Vec<_> = rest.trim_end().lines().map(safe).collect();
        eprintln!("error[{code}]: {}", lines.join("\n"));
    }
    failure.exit.into()
}

/// In one line, without the usage.
fn message(kind: ErrorKind, said: &str) -> String {
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: --help lists them".to_owned();
    }
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let lines = said.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    lines.map(str::trim).filter(|line| !line.is_empty()).fold(String::new(), |text, line| match text.as_str() {
        "" => line.to_owned(),
        open if open.ends_with(':') => format!("{text} {line}"),
        _ => format!("{text}; {line}"),
    })
}

/// Whether there is a `--json` that could be meant: none behind `--`.
fn wants_json() -> bool {
    env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}
