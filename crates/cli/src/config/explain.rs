//! `cutwater config explain`.

use cutwater_config::{Key, Status, Support, keys, status};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::text::{safe, wrap};

/// What a key means here.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    schema: &'static str,
    /// The name of today.
    key: String,
    /// `honoured`, `refused` (not built yet) or `warned` (no meaning here).
    status: &'static str,
    /// What that comes to, in a sentence.
    effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// What may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
    /// Null: nothing holds if it is not set.
    default: Option<&'static str>,
    old_names: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
}

/// All keys that Cutwater knows.
#[derive(Debug, Serialize)]
pub(crate) struct All {
    schema: &'static str,
    keys: Vec<Explained>,
}

pub(crate) fn gather_all() -> All {
    All { schema: "cutwater.config.keys/1", keys: keys().iter().map(of).collect() }
}

impl All {
    /// What becomes of a key, and its name: a line each, the same on a terminal and in a pipe.
    pub(crate) fn text(&self) -> String {
        self.keys.iter().map(|explained| format!("{:<8}  {}\n", explained.status, explained.key)).collect()
    }
}

pub(crate) fn gather(name: &str) -> Result<Explained, Failure> {
    match status(name.trim()) {
        Status::Known(key) | Status::Renamed(key) => Ok(of(key)),
        Status::NoMeaning => Ok(Explained {
            schema: SCHEMA,
            key: name.trim().to_owned(),
            status: "warned",
            effect: "not a key of checkpoints, recovery or restarts: it is passed over, with a warning".to_owned(),
            meaning: None,
            kind: None,
            accepted: None,
            default: None,
            old_names: &[],
            variable: None,
        }),
        Status::Unknown { nearest } => {
            let hint = nearest.map_or_else(String::new, |nearest| format!(", did you mean `{nearest}`?"));
            let message = format!("there is no key `{name}`{hint}");
            Err(Failure::new(Exit::NotFound, message).with_code("CFG0005"))
        }
    }
}

const SCHEMA: &str = "cutwater.config.explain/1";

fn of(key: &'static Key) -> Explained {
    let (status, effect) = match key.support {
        Support::Built => ("honoured", "it is read, and does what is said here".to_owned()),
        Support::NoMeaning => ("warned", "it has no meaning here: any value is passed over, with a warning".to_owned()),
        Support::NotBuilt { inert: None } => ("refused", "not built yet: any value is an error".to_owned()),
        Support::NotBuilt { inert: Some(inert) } => {
            ("refused", format!("not built yet: any value but `{inert}` is an error"))
        }
    };
    Explained {
        schema: SCHEMA,
        key: key.name.to_owned(),
        status,
        effect,
        meaning: Some(key.description),
        kind: Some(key.kind.describe()),
        accepted: Some(key.kind.accepted()),
        default: key.default,
        old_names: key.old,
        variable: Some(key.variable()),
    }
}

impl Explained {
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{}\n", safe(&self.key));
        out += &wrap(&format!("  {}: ", self.status), &self.effect);
        let Some(meaning) = self.meaning else { return out };
        out += &wrap("  ", meaning);
        let kind = self.kind.as_deref().unwrap_or_default();
        let accepted = self.accepted.as_deref().unwrap_or_default();
        out += &wrap("  value      ", kind);
        if !accepted.ends_with(kind) {
            out += &wrap("             ", accepted);
        }
        out += &wrap("  default    ", self.default.unwrap_or("not set"));
        if !self.old_names.is_empty() {
            out += &wrap("  old names  ", &self.old_names.join(" "));
        }
        out + &wrap("  variable   ", self.variable.as_deref().unwrap_or_default())
    }
}
