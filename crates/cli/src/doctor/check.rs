//! One line of what the doctor says.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::text::wrap;

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// The job can be started, and may come to grief or not do what is meant.
    Warning,
    /// The job would not start, or could not be checked.
    Error,
}

/// What is wrong, where no error of the job has a code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Setting,
    OpenFiles,
    Folder,
    Room,
    FileSystem,
    Memory,
    NoAnswer,
    NotChecked,
}

impl Trouble {
    /// What docs/errors.md has more of.
    fn code(self) -> &'static str {
        match self {
            Self::Setting => "DOC0001",
            Self::OpenFiles => "DOC0002",
            Self::Folder => "DOC0003",
            Self::Room => "DOC0004",
            Self::FileSystem => "DOC0005",
            Self::Memory => "DOC0006",
            Self::NoAnswer => "DOC0007",
            Self::NotChecked => "DOC0008",
        }
    }
}

/// What was looked at, what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at, in a word or two.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    pub(crate) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_do: Option<String>,
    /// The numbers in `found`; the units are in the keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) figures: BTreeMap<&'static str, u64>,
}

impl Check {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        let found = found.into();
        Self { check, verdict: Verdict::Ok, code: None, found, to_do: None, figures: BTreeMap::new() }
    }

    pub(crate) fn warning(check: &'static str, trouble: Trouble, found: impl Into<String>, to_do: &str) -> Self {
        let (code, to_do) = (Some(trouble.code()), Some(to_do.to_owned()));
        Self { verdict: Verdict::Warning, code, to_do, ..Self::ok(check, found) }
    }

    pub(crate) fn error(check: &'static str, trouble: Trouble, found: impl Into<String>, to_do: &str) -> Self {
        Self { verdict: Verdict::Error, ..Self::warning(check, trouble, found, to_do) }
    }

    /// An error that the job would end with too, which says itself what to do.
    pub(crate) fn of_job(check: &'static str, code: &'static str, said: impl Into<String>) -> Self {
        Self { verdict: Verdict::Error, code: Some(code), ..Self::ok(check, said) }
    }

    /// The same as a warning, where the job would go on.
    pub(crate) fn but_a_warning(self) -> Self {
        Self { verdict: self.verdict.min(Verdict::Warning), ..self }
    }

    pub(crate) fn with_figures(mut self, figures: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        self.figures.extend(figures);
        self
    }

    /// As people read it: a line, broken where it is long, and one for what to do.
    pub(crate) fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok       ",
            Verdict::Warning => "warning  ",
            Verdict::Error => "error    ",
        };
        let code = self.code.map_or_else(String::new, |code| format!(" [{code}]"));
        let mut text = wrap(verdict, &format!("{}{code}: {}", self.check, self.found));
        if let Some(to_do) = &self.to_do {
            text += &wrap("         to do: ", to_do);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_that_fits_with_what_to_do_below() {
        let cases = [
            (Check::ok("memory", "enough"), "ok       memory: enough\n".to_owned()),
            (
                Check::warning("memory", Trouble::Memory, "little", "buy some"),
                "warning  memory [DOC0006]: little\n         to do: buy some\n".to_owned(),
            ),
            (
                Check::error("memory", Trouble::Memory, "words ".repeat(20).trim_end(), "buy some"),
                "error    memory [DOC0006]: words words words words words words words words words\n         \
                 words words words words words words words words words words words\n         to do: buy some\n"
                    .to_owned(),
            ),
            (Check::of_job("store", "STO0001", "as it says"), "error    store [STO0001]: as it says\n".to_owned()),
            (
                Check::of_job("store", "STO0001", "as it says").but_a_warning(),
                "warning  store [STO0001]: as it says\n".to_owned(),
            ),
            (Check::ok("memory", "enough").but_a_warning(), "ok       memory: enough\n".to_owned()),
        ];
        for (check, expected) in cases {
            assert_eq!(check.text(), expected);
        }
    }
}
