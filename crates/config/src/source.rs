//! What was written where, before anything is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::keys::{HIDDEN, Key, Known, Support, look_up, may_be_shown};
use crate::{ConfigError, Level, Origin, Resolved, Settings, Warning, file, resolve};

/// One key and value as written.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) origin: Origin,
    /// Why no key can take this value, whatever it means: it is a list, say.
    pub(crate) problem: Option<&'static str>,
}

impl Entry {
    pub(crate) fn new(key: &str, value: &str, origin: Origin) -> Self {
        Self { key: key.to_owned(), value: value.to_owned(), origin, problem: None }
    }

    pub(crate) fn with_problem(self, problem: &'static str) -> Self {
        Self { problem: Some(problem), ..self }
    }

    /// The value for whoever may see it.
    pub(crate) fn shown(&self) -> &str {
        let in_environment = self.origin.level() == Level::Environment;
        if may_be_shown(&self.key, in_environment) { &self.value } else { HIDDEN }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, problem, .. } = self;
        let mut fields = f.debug_struct("Entry");
        fields
            .field("key", key)
            .field("value", &self.shown())
            .field("origin", origin)
            .field("problem", problem)
            .finish()
    }
}

/// Collects settings from where they are said, and makes one consistent configuration of them.
///
/// A higher [`Level`] replaces a lower one key by key, whatever the order of the calls; within a level the later
/// source replaces the earlier. Old spellings count as the new key; if one source has both, the new one wins. The
/// options of a restart strategy are read only from the source that sets `restart-strategy.type` last.
///
/// ```
/// use cutwater_config::{Config, Settings};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), cutwater_config::ConfigError> {
/// let resolved = Config::new()
///     .code(Settings::new().enable_checkpointing(Duration::from_secs(10)))
///     .environment([("CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL", "1 s")])
///     .resolve()?;
/// assert_eq!(resolved.checkpointing.interval, Some(Duration::from_secs(1)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    sources: Vec<(Level, Vec<Entry>)>,
    warnings: Vec<Warning>,
}

impl Config {
    /// Nothing said yet: every key has its default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file: YAML 1.2, flat and nested keys mixed; or, if it is called `flink-conf.yaml`, one `key: value` a
    /// line. At most 1 MiB, nested at most 16 deep. Use [`discover`](crate::discover) to find one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`], [`ConfigError::TooLarge`], [`ConfigError::Syntax`], [`ConfigError::Duplicate`]. Keys and
    /// values are judged by [`Self::resolve`].
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let (entries, warnings) = file::read(path.as_ref())?;
        self.sources.push((Level::File, entries));
        self.warnings.extend(warnings);
        Ok(self)
    }

    /// Adds what the program says.
    #[must_use]
    pub fn code(mut self, settings: Settings) -> Self {
        let pairs = settings.into_pairs();
        let entries = pairs.into_iter().map(|(key, value)| Entry::new(&key, &value, Origin::Code)).collect();
        self.sources.push((Level::Code, entries));
        self
    }

    /// Adds the variables that begin with `CUTWATER_`; pass `std::env::vars_os()`. The variable of a key is its name
    /// in upper case with `_` for `.` and `-`: `CUTWATER_EXECUTION_CHECKPOINTING_INTERVAL`.
    #[must_use]
    pub fn environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut entries = Vec::new();
        for (name, value) in variables {
            let name = name.into().to_string_lossy().into_owned();
            if !name.starts_with("CUTWATER_") {
                continue;
            }
            let value = value.into();
            let origin = Origin::Environment { variable: name.clone() };
            let entry = Entry::new(&name, &value.to_string_lossy(), origin);
            entries.push(if value.to_str().is_some() { entry } else { entry.with_problem("give valid UTF-8") });
        }
        self.sources.push((Level::Environment, entries));
        self
    }

    /// Adds `key=value` from the command line.
    #[must_use]
    pub fn flag(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let entry = Entry::new(key.as_ref(), value.as_ref(), Origin::Flag);
        // One source for all flags, so that a strategy and its options belong together.
        match self.sources.iter_mut().find(|(level, _)| *level == Level::Flag) {
            Some((_, entries)) => entries.push(entry),
            None => self.sources.push((Level::Flag, vec![entry])),
        }
        self
    }

    /// Makes one configuration of all that was added.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first key that does not exist, the first value that is not accepted, the first
    /// feature that is not built, or two values that contradict each other.
    pub fn resolve(mut self) -> Result<Resolved, ConfigError> {
        self.sources.sort_by_key(|(level, _)| *level); // stable: later sources of a level stay later
        let mut reader = Reader { warnings: self.warnings, replaced: Vec::new(), seen: BTreeSet::new() };
        let layers = self.sources.into_iter().map(|(_, entries)| reader.read(entries)).collect::<Result<_, _>>()?;
        resolve::resolve(layers, reader.replaced, reader.warnings)
    }
}

/// What one source says, by the keys of today.
pub(crate) type Layer = BTreeMap<&'static str, Found>;

/// A value of a known key.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: &'static Key,
    pub(crate) entry: Entry,
    /// 0 for the name of today, then the old names.
    rank: usize,
}

impl Found {
    /// The name of today, if the key was written under another one.
    pub(crate) fn new_name(&self) -> Option<&'static str> {
        (self.rank > 0).then_some(self.key.name)
    }
}

struct Reader {
    warnings: Vec<Warning>,
    /// What a stronger spelling or a later flag of the same source replaced.
    replaced: Vec<Found>,
    /// Keys that were warned of: once is enough.
    seen: BTreeSet<String>,
}

impl Reader {
    fn read(&mut self, entries: Vec<Entry>) -> Result<Layer, ConfigError> {
        let mut layer = Layer::new();
        for entry in entries {
            let in_environment = entry.origin.level() == Level::Environment;
            match look_up(&entry.key, in_environment) {
                Known::Unknown { nearest } => {
                    return Err(ConfigError::UnknownKey { key: entry.key, origin: entry.origin, nearest });
                }
                Known::NoMeaning => self.no_meaning(entry),
                Known::Current(key) if key.support == Support::NoMeaning => self.no_meaning(entry),
                Known::Old(key, _) if key.support == Support::NoMeaning => self.no_meaning(entry),
                Known::Current(key) => self.insert(&mut layer, Found { key, entry, rank: 0 }),
                Known::Old(key, place) => {
                    self.warn_once(&entry.key.clone(), || Warning::Deprecated {
                        key: entry.key.clone(),
                        new: key.name,
                        origin: entry.origin.clone(),
                    });
                    self.insert(&mut layer, Found { key, entry, rank: place + 1 });
                }
            }
        }
        Ok(layer)
    }

    fn insert(&mut self, layer: &mut Layer, found: Found) {
        if found.entry.value.trim().is_empty() {
            return; // the same as not set
        }
        let name = found.key.name;
        let loser = match layer.get(name) {
            Some(there) if there.rank < found.rank => Some(found),
            Some(_) | None => layer.insert(name, found),
        };
        let Some(loser) = loser else { return };
        // Equal names are a flag given twice: the later one wins, as with any command.
        if loser.rank > 0 {
            let Entry { key, origin, .. } = loser.entry.clone();
            self.warnings.push(Warning::Overruled { key, by: name, origin });
        }
        self.replaced.push(loser);
    }

    fn no_meaning(&mut self, entry: Entry) {
        let Entry { key, origin, .. } = entry;
        self.warn_once(&key.clone(), || Warning::NoMeaning { key, origin });
    }

    fn warn_once(&mut self, key: &str, warning: impl FnOnce() -> Warning) {
        if self.seen.insert(key.to_owned()) {
            self.warnings.push(warning());
        }
    }
}
