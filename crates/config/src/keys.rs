//! The table of keys: what docs, the search for the nearest name and the reading of values all work from.

use std::borrow::Cow;

use crate::value;

mod table;

pub(crate) use table::KEYS;

#[cfg(test)]
mod tests;

/// One configuration key, of Flink or (`cutwater.`) of ours, and what it is to Cutwater.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The name: that of Flink 2.3, or ours.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds if it is not set; `None` if that is "nothing".
    pub default: Option<&'static str>,
    /// Spellings of Flink 1.x that are still read, in the order in which they are looked for.
    pub old: &'static [&'static str],
    /// Whether it does anything.
    pub support: Support,
    /// What it means, and what gets better and worse as it grows.
    pub description: &'static str,
}

/// What the value of a [`Key`] looks like. Case never matters, but in texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number and a unit (none: milliseconds), or ISO-8601.
    Duration,
    /// A whole number and a binary unit (none: bytes).
    Memory,
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Integer,
    /// A decimal number.
    Double,
    /// Anything.
    Text,
    /// A text that is never shown, wherever values are.
    Secret,
    /// One of these names.
    Choice(&'static [&'static str]),
}

/// Whether a [`Key`] does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what Flink's does, or what its description says.
    Built,
    /// A feature that is not there yet: refused by name, so that nobody believes it is on.
    NotBuilt {
        /// The one value that asks for nothing and is accepted; `None` if there is none.
        inert: Option<&'static str>,
    },
    /// Tunes something that Cutwater does otherwise or not at all: accepted with a warning.
    NoMeaning,
}

/// All keys that Cutwater knows, sorted by name. Keys of Flink that are not among them are accepted with a warning
/// if their family (`rest.`, `taskmanager.`, ...) is none of ours.
///
/// ```
/// let key = cutwater_config::keys().iter().find(|key| key.name == "execution.checkpointing.timeout").unwrap();
/// assert_eq!(key.default, Some("10 min"));
/// ```
#[must_use]
pub fn keys() -> &'static [Key] {
    KEYS
}

/// What a name is to Cutwater, whether it is in [`keys`] or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// A key of the table, under its name of today.
    Known(&'static Key),
    /// A key of the table, under an old name.
    Renamed(&'static Key),
    /// Not in the table, and none of ours: passed over with a warning.
    NoMeaning,
    /// A mistake, refused.
    Unknown {
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
}

/// What would become of a key of this name, or of a variable if it begins with `CUTWATER_`.
///
/// ```
/// use cutwater_config::{Status, status};
///
/// let Status::Renamed(key) = status("state.backend") else { panic!() };
/// assert_eq!(key.name, "state.backend.type");
/// assert_eq!(status("rest.port"), Status::NoMeaning);
/// ```
#[must_use]
pub fn status(name: &str) -> Status {
    match look_up(name, name.starts_with("CUTWATER_")) {
        Known::Current(key) => Status::Known(key),
        Known::Old(key, _) => Status::Renamed(key),
        Known::NoMeaning => Status::NoMeaning,
        Known::Unknown { nearest } => Status::Unknown { nearest },
    }
}

impl Kind {
    /// What kind of value it is, in a few words.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Duration => "duration".to_owned(),
            Self::Memory => "size".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer => "whole number of 32 bits".to_owned(),
            Self::Double => "decimal number".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Secret => "text that is never shown".to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
        }
    }
}

impl Key {
    /// The variable of the environment that sets this key, `CUTWATER_...`.
    ///
    /// ```
    /// let key = cutwater_config::keys().iter().find(|key| key.name == "restart-strategy.type").unwrap();
    /// assert_eq!(key.variable(), "CUTWATER_RESTART_STRATEGY_TYPE");
    /// ```
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

impl Kind {
    /// What may be written, as advice: "give `true` or `false`".
    #[must_use]
    pub fn accepted(self) -> String {
        match self {
            Self::Duration => value::DURATION.to_owned(),
            Self::Memory => {
                "give a whole number and a unit (b, kb, mb, gb, tb; none is bytes), as in `32 mb`".to_owned()
            }
            Self::Boolean => "give `true` or `false`".to_owned(),
            Self::Integer => "give a whole number of 32 bits".to_owned(),
            Self::Double => "give a decimal number".to_owned(),
            Self::Text | Self::Secret => "give a text".to_owned(),
            Self::Choice(names) => format!("give one of {}", names.join(", ")),
        }
    }

    /// Whether two texts mean the same value of this kind; `None` if the first is not of this kind.
    pub(crate) fn same(self, text: &str, other: &str) -> Option<bool> {
        match self {
            Self::Duration => value::duration(text).map(|parsed| Some(parsed) == value::duration(other)),
            Self::Memory => value::memory(text).map(|parsed| Some(parsed) == value::memory(other)),
            Self::Boolean => value::boolean(text).map(|parsed| Some(parsed) == value::boolean(other)),
            Self::Integer => value::int(text).map(|parsed| Some(parsed) == value::int(other)),
            Self::Double => value::double(text).map(|parsed| Some(parsed) == value::double(other)),
            Self::Text | Self::Secret => Some(text == other),
            Self::Choice(names) => {
                let known = names.iter().any(|name| name.eq_ignore_ascii_case(text));
                known.then(|| text.eq_ignore_ascii_case(other))
            }
        }
    }
}

/// What stands for a value that must not be shown.
pub(crate) const HIDDEN: &str = "***";

/// Families in which every key is known: another one is a mistake.
const OURS: [&str; 4] = ["execution.checkpointing.", "restart-strategy.", "state.", "cutwater."];

/// Families of options of backends and features that are not built: without these, their options mean nothing.
const WITHOUT_MEANING: [&str; 5] =
    ["state.backend.rocksdb.", "state.backend.forst.", "state.changelog.", "state.latency-track.", "state.size-track."];

/// The same under the names of 1.x.
const OLD_WITHOUT_MEANING: [&str; 2] = ["state.backend.changelog.", "state.backend.latency-track."];

/// A key of the table, or none, by a name that was written somewhere.
pub(crate) enum Known {
    /// The name of today.
    Current(&'static Key),
    /// The old name with this place in [`Key::old`].
    Old(&'static Key, usize),
    /// A key that may be passed over.
    NoMeaning,
    /// A mistake.
    Unknown {
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
}

/// Looks a name up that was written in a file or a program, or, `in_environment`, a variable with its prefix.
pub(crate) fn look_up(written: &str, in_environment: bool) -> Known {
    let spell =
        |name: &'static str| -> Cow<'static, str> { if in_environment { variable(name).into() } else { name.into() } };
    for key in KEYS {
        if spell(key.name) == written {
            return Known::Current(key);
        }
        if let Some(place) = key.old.iter().position(|old| spell(old) == written) {
            return Known::Old(key, place);
        }
    }
    if WITHOUT_MEANING.iter().chain(&OLD_WITHOUT_MEANING).any(|family| written.starts_with(&*spell(family))) {
        return Known::NoMeaning;
    }
    // A program may have variables of its own under our prefix, `CUTWATER_LOG` say: only the families count.
    if OURS.iter().any(|family| written.starts_with(&*spell(family))) {
        return Known::Unknown { nearest: nearest(written, spell, written.len() / 3) };
    }
    // `executon.checkpointing.interval` is in no family of ours, and still nobody means anything else by it.
    match nearest(written, spell, 2) {
        Some(nearest) => Known::Unknown { nearest: Some(nearest) },
        None => Known::NoMeaning,
    }
}

/// Whether the value of what was written under this name may be shown: that of a key that we know, if it is no secret. What
/// is mistyped may be one, and what belongs to others too.
pub(crate) fn may_be_shown(written: &str, in_environment: bool) -> bool {
    match look_up(written, in_environment) {
        Known::Current(key) | Known::Old(key, _) => key.kind != Kind::Secret,
        Known::NoMeaning | Known::Unknown { .. } => false,
    }
}

/// The known name with the least edit distance from `written`, if that is at most `limit`.
fn nearest(written: &str, spell: impl Fn(&'static str) -> Cow<'static, str>, limit: usize) -> Option<String> {
    let names = KEYS.iter().map(|key| spell(key.name));
    // The lengths alone rule most names out, which keeps a file of a hundred thousand keys from taking minutes.
    let names = names.filter(|name| name.len().abs_diff(written.len()) <= limit);
    // A wrong case is the nearest miss of all.
    let written = written.to_lowercase();
    let measured = names.map(|name| (distance(&written, &name.to_lowercase()), name));
    measured.min().filter(|(distance, _)| *distance <= limit).map(|(_, name)| name.into_owned())
}

/// How many characters must be put in, taken out, changed or swapped with their neighbour to make one text of the other
/// (Damerau and Levenshtein; no character is touched twice). Longer texts than any key are cut, so that a hostile file
/// can't make this slow.
fn distance(one: &str, other: &str) -> usize {
    const LONGEST: usize = 128;
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(LONGEST).collect(), other.chars().take(LONGEST).collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (line, char) in one.iter().enumerate() {
        let mut row = vec![line + 1; other.len() + 1];
        for (column, wanted) in other.iter().enumerate() {
            let changed = last[column] + usize::from(char != wanted);
            let mut least = changed.min(last[column + 1] + 1).min(row[column] + 1);
            if line > 0 && column > 0 && one[line - 1] == *wanted && *char == other[column - 1] {
                least = least.min(before_last[column - 1] + 1);
            }
            row[column + 1] = least;
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

/// The variable for a key: upper case, `.` and `-` as `_`, and our prefix, which keys of ours have already.
pub(crate) fn variable(name: &str) -> String {
    let name = name.strip_prefix("cutwater.").filter(|rest| !rest.is_empty()).unwrap_or(name);
    let upper = name.to_ascii_uppercase().replace(['.', '-'], "_");
    format!("CUTWATER_{upper}")
}
