//! `cutwater config show`.

use cutwater_config::{Config, Key, Kind, Origin, Resolved, Said, Setting, Support, keys};
use serde::Serialize;

use crate::failure::Failure;
use crate::text::{safe, wrap};

/// What holds, key by key.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    schema: &'static str,
    settings: Vec<Row>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    key: &'static str,
    /// As written, `***` for a secret; null: not set, and there is no default.
    value: Option<String>,
    #[serde(skip)]
    secret: bool,
    origin: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_as: Option<String>,
    /// Strongest first.
    overridden: Vec<Overridden>,
    /// What "not set" comes to, where that depends on another key.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_set_means: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Overridden {
    value: String,
    origin: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_as: Option<String>,
}

/// Where a value was found.
#[derive(Debug, Serialize)]
struct Place {
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
}

pub(crate) fn gather(config: Config) -> Result<Shown, Failure> {
    let resolved = config.resolve()?;
    let settings = keys().iter().filter(|key| is_shown(key, &resolved)).map(|key| row(key, &resolved)).collect();
    let warnings = resolved.warnings.iter().map(ToString::to_string).collect();
    Ok(Shown { schema: "cutwater.config.show/1", settings, warnings })
}

/// All that somebody set, and all that could be set and would change something.
fn is_shown(key: &Key, resolved: &Resolved) -> bool {
    if resolved.setting(key.name).is_some() {
        return true;
    }
    let chosen = resolved.setting("restart-strategy.type").and_then(|setting| setting.value.as_deref());
    let option = key.name.strip_prefix("restart-strategy.").filter(|rest| *rest != "type");
    let of_chosen = |option: &str| chosen.is_some_and(|chosen| option.starts_with(&strategy_folder(chosen)));
    key.support == Support::Built && option.is_none_or(of_chosen)
}

/// The options of `FixedDelay` stand below `fixed-delay.`.
fn strategy_folder(chosen: &str) -> String {
    let chosen = chosen.to_ascii_lowercase();
    let known = ["fixed-delay", "failure-rate", "exponential-delay"];
    let known = known.iter().find(|name| **name == chosen || name.replace('-', "") == chosen);
    format!("{}.", known.unwrap_or(&"none"))
}

fn row(key: &Key, resolved: &Resolved) -> Row {
    let default = || key.default.map(str::to_owned);
    let not_set_means = match (key.name, resolved.checkpointing.interval) {
        ("restart-strategy.type", _) if resolved.restart.is_some() => None,
        ("restart-strategy.type", Some(_)) => Some("a fixed delay of 1 s, 2147483647 times, as there are checkpoints"),
        ("restart-strategy.type", None) => Some("none, as there are no checkpoints"),
        _ => None,
    };
    let secret = key.kind == Kind::Secret;
    match resolved.setting(key.name) {
        Some(Setting { key, value, origin, written_as, overridden }) => Row {
            key,
            value: value.clone().or_else(default),
            secret,
            origin: origin.into(),
            written_as: written_as.clone(),
            overridden: overridden.iter().map(Overridden::from).collect(),
            not_set_means,
        },
        None => Row {
            key: key.name,
            value: default(),
            secret,
            origin: (&Origin::Default).into(),
            written_as: None,
            overridden: Vec::new(),
            not_set_means,
        },
    }
}

impl From<&Said> for Overridden {
    fn from(said: &Said) -> Self {
        Self { value: said.value.clone(), origin: (&said.origin).into(), written_as: said.written_as.clone() }
    }
}

impl From<&Origin> for Place {
    fn from(origin: &Origin) -> Self {
        let place = |level| Self { level, file: None, line: None, variable: None };
        match origin {
            Origin::Default => place("default"),
            Origin::File { path, line } => {
                Self { file: Some(path.display().to_string()), line: Some(*line), ..place("file") }
            }
            Origin::Code => place("program"),
            Origin::Environment { variable } => Self { variable: Some(variable.clone()), ..place("environment") },
            Origin::Flag => place("flag"),
        }
    }
}

impl Shown {
    /// `key: value` lines that can be read again; origins are comments.
    pub(crate) fn text(&self, origin: bool) -> String {
        self.settings.iter().map(|row| row.text(origin)).collect()
    }

    /// Tells the warnings on standard error.
    pub(crate) fn warn(&self) {
        for warning in &self.warnings {
            eprint!("{}", wrap("warning: ", warning));
        }
    }
}

impl Row {
    fn text(&self, origin: bool) -> String {
        let mut out = match (&self.value, self.not_set_means) {
            (Some(_), _) if self.secret => format!("# {}: set, and not shown\n", self.key),
            (Some(value), _) => format!("{}: {}\n", self.key, quoted(value)),
            (None, None) => format!("# {}: not set\n", self.key),
            (None, Some(meaning)) => format!("# {}: not set\n#   {meaning}\n", self.key),
        };
        if !origin {
            return out;
        }
        if self.value.is_some() {
            out += &comment("from", &self.origin, self.written_as.as_deref(), "");
        }
        for overridden in &self.overridden {
            let value = format!(": {}", overridden.value);
            out += &comment("over", &overridden.origin, overridden.written_as.as_deref(), &value);
        }
        out
    }
}

fn comment(word: &str, place: &Place, written_as: Option<&str>, value: &str) -> String {
    let written_as = written_as.map_or_else(String::new, |name| format!(", as `{name}`"));
    format!("#   {word} {}{}\n", place.text(), safe(&format!("{written_as}{value}")))
}

impl Place {
    fn text(&self) -> String {
        safe(&match (&self.file, self.line, &self.variable) {
            (Some(file), Some(line), _) => format!("{file}:{line}"),
            (_, _, Some(variable)) => format!("environment, {variable}"),
            _ => self.level.to_owned(),
        })
    }
}

/// The value as YAML: in quotes unless that is needless for certain.
fn quoted(value: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '/' | '_' | '-' | ' ');
    let begins_plain = value.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    // A number that is written in another way than its reader would write it comes back changed.
    let same_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value)
        || value.parse::<f64>().is_ok_and(|number| number.is_finite() && number.to_string() == value);
    let is_number = value.parse::<f64>().is_ok() || ["0x", "0o", "0b"].iter().any(|radix| value.starts_with(radix));
    let is_null = value.eq_ignore_ascii_case("null");
    if same_number || begins_plain && value.chars().all(plain) && !is_null && !is_number {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string() // a JSON text is a YAML text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown can be kept as a file that means the same, and shows the same.
    #[test]
    fn what_is_shown_is_a_file_that_says_the_same() {
        let configurations: [&[(&str, &str)]; 6] = [
            &[],
            &[("execution.checkpointing.interval", "10 s"), ("execution.checkpointing.dir", "/with # and: \"quotes\"")],
            &[("restart-strategy", "FixedDelay"), ("restart-strategy.fixed-delay.attempts", "3")],
            &[("restart-strategy.type", "exponential-delay"), ("pipeline.name", "null")],
            &[("restart-strategy.type", "off"), ("pipeline.max-parallelism", "64"), ("pipeline.name", "1.50")],
            &[("execution.checkpointing.dir", "ordner/für\tä\u{1b}"), ("execution.checkpointing.timeout", "PT1M")],
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutwater.yaml");
        for (flags, origin) in configurations.iter().flat_map(|flags| [(flags, false), (flags, true)]) {
            let config = flags.iter().fold(Config::new(), |config, (key, value)| config.flag(key, value));
            let text = gather(config.clone()).unwrap().text(origin);
            std::fs::write(&path, &text).unwrap();
            let read = Config::new().file(&path).unwrap();
            let (before, after) = (config.resolve().unwrap(), read.clone().resolve().unwrap());
            assert_eq!(after.warnings, [], "{text}");
            let meaning = |resolved: Resolved| {
                (
                    resolved.checkpointing,
                    resolved.restart,
                    resolved.checkpoint_dir,
                    resolved.name,
                    resolved.max_parallelism,
                )
            };
            assert_eq!(meaning(before), meaning(after), "{text}");
            assert_eq!(gather(read).unwrap().text(false), gather_text(flags), "{flags:?}");
        }
    }

    fn gather_text(flags: &[(&str, &str)]) -> String {
        let config = flags.iter().fold(Config::new(), |config, (key, value)| config.flag(key, value));
        gather(config).unwrap().text(false)
    }
}
