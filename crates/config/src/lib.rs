//! Flink's configuration keys for Cutwater: from files, the program, the environment and the command line.
//!
//! Whoever knows Flink knows the keys: a `config.yaml` written for Flink 2 and a `flink-conf.yaml` written for
//! Flink 1 are read as they are. [`Config`] collects what the sources say; [`Config::resolve`] makes one [`Resolved`]
//! of it, in which no invalid value exists.
//!
//! ```
//! use std::time::Duration;
//! use cutwater_config::{Config, ConfigError, Level, RestartSettings, Settings};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("cutwater.yaml");
//! std::fs::write(&path, "
//! execution.checkpointing:
//!   interval: 10 s
//!   dir: /var/lib/flights
//! restart-strategy:
//!   type: fixed-delay
//!   fixed-delay.attempts: 3
//! ")?;
//!
//! let resolved = Config::new()
//!     .file(&path)?
//!     .code(Settings::new().no_restart())
//!     .environment([("CUTWATER_EXECUTION_CHECKPOINTING_TIMEOUT", "1 min")])
//!     .flag("execution.checkpointing.interval", "500 ms")
//!     .resolve()?;
//!
//! assert_eq!(resolved.checkpointing.interval, Some(Duration::from_millis(500)));
//! assert_eq!(resolved.checkpointing.timeout, Duration::from_secs(60));
//! assert_eq!(resolved.checkpoint_dir.as_deref(), Some("/var/lib/flights"));
//! assert_eq!(resolved.restart, Some(RestartSettings::None));
//! assert_eq!(resolved.origin("execution.checkpointing.interval").level(), Level::Flag);
//!
//! let mistyped = Config::new().flag("execution.checkpointing.intervall", "1 s").resolve().unwrap_err();
//! assert_eq!(
//!     mistyped.to_string(),
//!     "flag: there is no key `execution.checkpointing.intervall`, did you mean `execution.checkpointing.interval`?"
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # What wins
//!
//! Default < file < program < environment (`CUTWATER_...`) < flag, key by key. The options of a restart strategy are
//! the exception: they are read only from the source that sets `restart-strategy.type`. An empty value is the same as
//! none; in YAML so are `null` and `~`.
//!
//! # What happens to a key
//!
//! - One of [`keys`] that is [`Support::Built`]: read, typed, checked.
//! - [`Support::NotBuilt`]: refused by name, unless it asks for nothing.
//! - [`Support::NoMeaning`]: passed over, with one [`Warning`].
//! - An old spelling of Flink 1.x: read, with a [`Warning`].
//! - Unknown in our families (`execution.checkpointing.`, `restart-strategy.`, `state.`, `cutwater.`), or all but one
//!   of ours: an error that names the nearest.
//! - Any other key of Flink: passed over, with one [`Warning`].
//!
//! # Parts
//!
//! - [`Config`], [`Settings`] (the program's words), [`discover`] (which file).
//! - [`Resolved`], [`Checkpointing`], [`RestartSettings`]; [`Origin`] and [`Level`] say where a value came from.
//! - [`Setting`] says of a key what holds, where that stands and what it replaced; [`status`] says what a key is here.
//! - [`ConfigError`] names key, value, place and what is accepted, and has a code that docs/errors.md explains.
//! - [`Key`], [`Kind`]: the table that documentation is made from.
//!
//! Secrets are read and never shown: not by errors, `Debug` or [`Setting`].
//!
//! Where Cutwater differs from Flink: an interval of 0 turns checkpointing off and one between 0 and 10 ms is an
//! error; all values are judged at the start, not when they are first used; checkpoints are retained on cancel.

mod error;
mod file;
mod keys;
mod origin;
mod resolve;
mod resolved;
mod settings;
mod source;
mod value;
mod warning;

pub use error::{ConfigError, Conflict};
pub use file::discover;
pub use keys::{Key, Kind, Status, Support, keys, status};
pub use origin::{Level, Origin};
pub use resolved::{
    BackendKind, CheckpointStorage, Checkpointing, CheckpointingMode, ExternalizedCheckpointRetention, HistorySizes,
    NoProgressSettings, ObjectStores, Recovery, Resolved, RestartSettings, RocksDb, Said, Setting,
};
pub use settings::Settings;
pub use source::Config;
pub use value::memory as size_in_bytes;
pub use warning::Warning;
