//! Reading configuration files: YAML 1.2 for `config.yaml` and `cutwater.yaml`, lines for `flink-conf.yaml`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::source::Entry;
use crate::{ConfigError, Origin, Warning};

mod yaml;

#[cfg(test)]
mod tests;

/// No configuration is longer; what is, is another file.
const MAX_BYTES: u64 = 1024 * 1024;

/// The name whose files are read line by line, as Flink did up to 1.18.
const OLD_NAME: &str = "flink-conf.yaml";

/// The configuration file of a folder: `cutwater.yaml`, else `config.yaml`, else `flink-conf.yaml`, else none.
///
/// Only one is read; a file that is there and can't be read is found too, and [`Config::file`](crate::Config::file)
/// says so.
#[must_use]
pub fn discover(folder: &Path) -> Option<PathBuf> {
    let names = ["cutwater.yaml", "config.yaml", OLD_NAME];
    names.into_iter().map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok())
}

/// The keys of a file with their lines, flat. Nothing is looked up yet.
pub(crate) fn read(path: &Path) -> Result<(Vec<Entry>, Vec<Warning>), ConfigError> {
    let text = read_text(path)?;
    if path.file_name().is_some_and(|name| name == OLD_NAME) {
        Ok(parse_lines(path, &text))
    } else {
        Ok((yaml::parse(path, &text)?, Vec::new()))
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let message = format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        ConfigError::Syntax { path: path.to_owned(), message }
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// One `key: value` a line; `#` begins a comment anywhere; the last of equal keys wins.
fn parse_lines(path: &Path, text: &str) -> (Vec<Entry>, Vec<Warning>) {
    let mut entries = BTreeMap::new();
    let mut warnings = Vec::new();
    for (line, content) in (1_u64..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match content.split_once(": ").map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                let origin = Origin::File { path: path.to_owned(), line };
                entries.insert(key.to_owned(), Entry::new(key, value, origin));
            }
            _ => warnings.push(Warning::BadLine { path: path.to_owned(), line }),
        }
    }
    (entries.into_values().collect(), warnings)
}
