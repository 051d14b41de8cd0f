//! From what was written to what holds: the highest level wins, then types, ranges and rules between keys.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use cutwater_core::{MaxParallelism, OperatorUid, Secret};

use crate::keys::{Key, Kind, Support, keys};
use crate::source::{Found, Layer};
use crate::value;
use crate::{
    BackendKind, CheckpointStorage, Checkpointing, CheckpointingMode, ConfigError, Conflict,
    ExternalizedCheckpointRetention, HistorySizes, NoProgressSettings, ObjectStores, Origin, Recovery, Resolved,
    RestartSettings, RocksDb, Warning,
};

mod restart;
mod trace;

#[cfg(test)]
mod tests;

/// Flink's way of writing "without limit".
pub(crate) const UNLIMITED: u32 = i32::MAX as u32;

/// The least interval and timeout that mean anything.
const LEAST: Duration = Duration::from_millis(10);

/// The least first delay and reset threshold of the exponential strategy.
const MIN_STEP: Duration = Duration::from_millis(1);

/// The longest history that is kept.
const LONGEST_HISTORY: u32 = 1000;

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const LONGER_THAN_A_YEAR: &str = "is longer than a year, a year is taken";

const INTERVAL: &str = "execution.checkpointing.interval";
const MIN_PAUSE: &str = "execution.checkpointing.min-pause";
const INLINE_THRESHOLD: &str = "execution.checkpointing.data-inline-threshold";
const NUM_RETAINED: &str = "execution.checkpointing.num-retained";
const FALL_BACK: &str = "cutwater.state-recovery.fall-back";
const STORAGE: &str = "execution.checkpointing.storage";
const DIR: &str = "execution.checkpointing.dir";
const LOCAL_BACKUP: &str = "execution.checkpointing.local-backup.enabled";
const LOCAL_DIRS: &str = "execution.checkpointing.local-backup.dirs";
const FROM_LOCAL: &str = "execution.state-recovery.from-local";
const ACCESS_KEY: &str = "s3.access-key";
const SECRET_KEY: &str = "s3.secret-key";
const NAME: &str = "pipeline.name";
const PARALLELISM: &str = "parallelism.default";
const MAX_PARALLELISM: &str = "pipeline.max-parallelism";

/// `layers` from the weakest to the strongest; `replaced` is what lost within one of them.
pub(crate) fn resolve(
    layers: Vec<Layer>,
    replaced: Vec<Found>,
    warnings: Vec<Warning>,
) -> Result<Resolved, ConfigError> {
    let said: Vec<Found> = layers.iter().flat_map(|layer| layer.values().cloned()).chain(replaced).collect();
    let (strategy, strategy_warnings) = restart::select(&layers);
    let mut values = Values { found: BTreeMap::new(), warnings };
    values.warnings.extend(strategy_warnings);
    for layer in layers {
        values.found.extend(layer.into_iter().filter(|(name, _)| !name.starts_with(restart::FAMILY)));
    }
    values.found.extend(strategy);
    values.check_not_built()?;
    let checkpointing = values.checkpointing()?;
    let checkpoint_dir = match &checkpointing.storage {
        CheckpointStorage::Folder(folder) => Some(folder.clone()),
        CheckpointStorage::Memory => None,
    };
    Ok(Resolved {
        restart: values.restart()?,
        no_progress: values.no_progress()?,
        backend: values.backend()?,
        parallelism: values.parallelism()?,
        max_parallelism: values.max_parallelism()?,
        name: values.name()?,
        savepoint_dir: values.text("execution.checkpointing.savepoint-dir")?.map(str::to_owned),
        recovery: values.recovery()?,
        history: values.history()?,
        object_stores: values.object_stores()?,
        rocksdb: values.rocksdb()?,
        settings: trace::settings(&values.found, said),
        origins: values.found.iter().map(|(name, found)| (*name, found.entry.origin.clone())).collect(),
        warnings: values.warnings,
        checkpointing,
        checkpoint_dir,
    })
}

/// What holds of each key, and how to read it. A key that is not set is read from its default.
struct Values {
    found: Layer,
    warnings: Vec<Warning>,
}

impl Values {
    fn check_not_built(&self) -> Result<(), ConfigError> {
        for found in self.found.values() {
            let Support::NotBuilt { inert } = found.key.support else { continue };
            let value = found.text()?;
            let same = match inert {
                Some(inert) => found.key.kind.same(value, inert),
                None => found.key.kind.same(value, value).map(|_| false),
            };
            match same {
                Some(true) => {}
                Some(false) => {
                    let only = |inert| format!("leave it out or set it to `{inert}`");
                    return Err(found.not_built(inert.map_or_else(|| "leave it out".to_owned(), only)));
                }
                None => return Err(found.invalid(found.key.kind.accepted())),
            }
        }
        Ok(())
    }

    fn checkpointing(&mut self) -> Result<Checkpointing, ConfigError> {
        let interval = self.duration(INTERVAL, "give at least 10 ms, or 0 for no checkpoints", |interval| {
            interval.is_zero() || interval >= LEAST
        })?;
        let timeout = self.duration_or_default("execution.checkpointing.timeout", "give at least 10 ms", LEAST)?;
        let mut min_pause = self.duration_or_default(MIN_PAUSE, "give at least 0", Duration::ZERO)?;
        if min_pause > YEAR {
            min_pause = YEAR;
            self.adjusted(MIN_PAUSE, LONGER_THAN_A_YEAR);
        }
        let mut interval = interval.filter(|interval| !interval.is_zero());
        if interval.is_some_and(|interval| interval < min_pause) {
            interval = Some(min_pause);
            self.adjusted(INTERVAL, "is shorter than `execution.checkpointing.min-pause`, which is taken instead");
        }
        Ok(Checkpointing {
            interval,
            mode: self.mode()?,
            timeout,
            min_pause,
            max_concurrent: self.positive("execution.checkpointing.max-concurrent-checkpoints")?,
            tolerable_failures: self.number("execution.checkpointing.tolerable-failed-checkpoints", 0)?,
            num_retained: self.positive(NUM_RETAINED)?,
            retention: self.retention()?,
            after_tasks_finish: self.boolean("execution.checkpointing.checkpoints-after-tasks-finish")?,
            compression: self.boolean("execution.checkpointing.snapshot-compression")?,
            inline_threshold: self.inline_threshold()?,
            incremental: self.boolean("execution.checkpointing.incremental")?,
            native_savepoints: self.choice("cutwater.savepoint.format")? == Some("NATIVE"),
            storage: self.storage()?,
            local_backup: self.local_backup()?,
            local_backup_dirs: self.local_backup_dirs()?,
        })
    }

    fn inline_threshold(&self) -> Result<u32, ConfigError> {
        let Some(found) = self.found.get(INLINE_THRESHOLD) else {
            return Ok(Checkpointing::default().inline_threshold);
        };
        let bytes = u32::try_from(found.parse(value::memory)?).ok().filter(|bytes| *bytes <= 1 << 20);
        bytes.ok_or_else(|| found.invalid("give 0 to 1 mb".to_owned()))
    }

    fn mode(&self) -> Result<CheckpointingMode, ConfigError> {
        let choice = self.choice("execution.checkpointing.mode")?;
        Ok(if choice == Some("AT_LEAST_ONCE") {
            CheckpointingMode::AtLeastOnce
        } else {
            CheckpointingMode::ExactlyOnce
        })
    }

    fn retention(&self) -> Result<ExternalizedCheckpointRetention, ConfigError> {
        use ExternalizedCheckpointRetention as Retention;
        Ok(match self.choice("execution.checkpointing.externalized-checkpoint-retention")? {
            Some("DELETE_ON_CANCELLATION") => Retention::DeleteOnCancellation,
            Some("NO_EXTERNALIZED_CHECKPOINTS") => Retention::NoExternalizedCheckpoints,
            Some(_) | None => Retention::RetainOnCancellation,
        })
    }

    fn no_progress(&self) -> Result<NoProgressSettings, ConfigError> {
        Ok(NoProgressSettings {
            stop: self.choice("cutwater.restart.no-progress")? == Some("STOP"),
            attempts: self.positive("cutwater.restart.no-progress-attempts")?,
        })
    }

    fn fall_back(&self) -> Result<bool, ConfigError> {
        let fall_back = self.boolean(FALL_BACK)?;
        if fall_back && self.positive(NUM_RETAINED)?.get() < 2 {
            return Err(self.conflict(
                FALL_BACK,
                NUM_RETAINED,
                "at least 2 must be kept to fall back from one to the other",
            ));
        }
        Ok(fall_back)
    }

    fn storage(&mut self) -> Result<CheckpointStorage, ConfigError> {
        let folder = self.text(DIR)?.map(str::to_owned);
        match (self.choice(STORAGE)?, folder) {
            (Some("filesystem"), None) => {
                Err(self.refused(STORAGE, "set `execution.checkpointing.dir` too".to_owned()))
            }
            (Some("filesystem") | None, Some(folder)) => Ok(CheckpointStorage::Folder(folder)),
            (None, None) => Ok(CheckpointStorage::Memory),
            (Some(_), folder) => {
                if folder.is_some() {
                    self.adjusted(DIR, "is not read, `execution.checkpointing.storage` is `jobmanager`");
                }
                Ok(CheckpointStorage::Memory)
            }
        }
    }

    fn recovery(&self) -> Result<Recovery, ConfigError> {
        const CLAIM: &str = "execution.state-recovery.claim-mode";
        let mode = self.choice(CLAIM)?;
        if let (Some("LEGACY"), Some(found)) = (mode, self.found.get(CLAIM)) {
            return Err(found.not_built("only `CLAIM` and `NO_CLAIM` are".to_owned()));
        }
        Ok(Recovery {
            path: self.text("execution.state-recovery.path")?.map(str::to_owned),
            claim: mode == Some("CLAIM"),
            from_local: self.reads_local()?,
            fall_back: self.fall_back()?,
            ignore_unclaimed: self.boolean("execution.state-recovery.ignore-unclaimed-state")?,
        })
    }

    /// Flink's rule: unset, it follows `from-local`.
    fn local_backup(&self) -> Result<bool, ConfigError> {
        if self.found.contains_key(LOCAL_BACKUP) { self.boolean(LOCAL_BACKUP) } else { self.boolean(FROM_LOCAL) }
    }

    /// The old name of the other key was that of both.
    fn reads_local(&self) -> Result<bool, ConfigError> {
        let both = self.found.get(LOCAL_BACKUP).is_some_and(|found| found.new_name().is_some());
        let unset = !self.found.contains_key(FROM_LOCAL);
        self.boolean(if both && unset { LOCAL_BACKUP } else { FROM_LOCAL })
    }

    fn local_backup_dirs(&mut self) -> Result<Vec<String>, ConfigError> {
        let Some(text) = self.text(LOCAL_DIRS)? else { return Ok(Vec::new()) };
        let dirs: Vec<String> = text.split(',').map(|dir| dir.trim().to_owned()).collect();
        if dirs.iter().any(|dir| dir.is_empty() || dir.contains("://")) {
            return Err(self.refused(LOCAL_DIRS, "give the path of a folder, or several with `,` between".to_owned()));
        }
        if !self.local_backup()? && !self.reads_local()? {
            self.adjusted(LOCAL_DIRS, "is not used, `execution.checkpointing.local-backup.enabled` is off");
        }
        Ok(dirs)
    }

    fn history(&mut self) -> Result<HistorySizes, ConfigError> {
        Ok(HistorySizes {
            checkpoints: self.history_of("web.checkpoints.history")?,
            failures: self.history_of("web.exception-history-size")?,
        })
    }

    fn history_of(&mut self, name: &'static str) -> Result<u32, ConfigError> {
        let number = self.number(name, 0)?;
        if number > LONGEST_HISTORY {
            self.adjusted(name, "is more than is kept, 1000 is taken");
        }
        Ok(number.min(LONGEST_HISTORY))
    }

    fn object_stores(&mut self) -> Result<ObjectStores, ConfigError> {
        let (access_key, secret_key) = (self.text(ACCESS_KEY)?.map(str::to_owned), self.text(SECRET_KEY)?);
        let secret_key = secret_key.map(Secret::new);
        match (&access_key, &secret_key) {
            (Some(_), None) => return Err(self.refused(ACCESS_KEY, format!("set `{SECRET_KEY}` too"))),
            (None, Some(_)) => return Err(self.refused(SECRET_KEY, format!("set `{ACCESS_KEY}` too"))),
            (Some(_), Some(_)) | (None, None) => {}
        }
        Ok(ObjectStores {
            endpoint: self.text("s3.endpoint")?.map(str::to_owned),
            region: self.text("s3.region")?.map(str::to_owned),
            access_key,
            secret_key,
            path_style: self.boolean_if_set("s3.path-style-access")?,
            allow_http: self.boolean_if_set("s3.allow-http")?,
            deadline: self.up_to_a_year("cutwater.object-store.deadline")?,
            request_timeout: self.up_to_a_year("cutwater.object-store.request-timeout")?,
            parallelism: self.positive("cutwater.object-store.parallelism")?,
            upload_rate: self.upload_rate()?,
        })
    }

    fn upload_rate(&self) -> Result<Option<NonZeroU64>, ConfigError> {
        const UPLOAD_RATE: &str = "cutwater.object-store.upload-rate";
        let Some(found) = self.found.get(UPLOAD_RATE) else { return Ok(None) };
        let rate = NonZeroU64::new(found.parse(value::memory)?);
        rate.map(Some).ok_or_else(|| found.invalid("give at least 1 byte, or leave it out for no limit".to_owned()))
    }

    fn up_to_a_year(&mut self, name: &'static str) -> Result<Duration, ConfigError> {
        let duration = self.duration_or_default(name, "give at least 10 ms", LEAST)?;
        if duration > YEAR {
            self.adjusted(name, LONGER_THAN_A_YEAR);
        }
        Ok(duration.min(YEAR))
    }

    fn backend(&self) -> Result<BackendKind, ConfigError> {
        let Some(found) = self.found.get("state.backend.type") else { return Ok(BackendKind::default()) };
        match found.text()?.to_ascii_lowercase().as_str() {
            "hashmap" | "memory" => Ok(BackendKind::Hashmap),
            "rocksdb" => Ok(BackendKind::RocksDb),
            _ => Err(found.not_built("only `hashmap` (or `memory`) and `rocksdb` are".to_owned())),
        }
    }

    fn rocksdb(&self) -> Result<RocksDb, ConfigError> {
        const LEAST_BYTES: u64 = 1 << 20;
        let bytes = |name: &'static str, default: u64| match self.found.get(name) {
            None => Ok(default),
            Some(found) => match found.parse(value::memory)? {
                bytes if bytes >= LEAST_BYTES => Ok(bytes),
                _ => Err(found.invalid("give at least 1 mb".to_owned())),
            },
        };
        let RocksDb { overlay_bytes, block_cache_bytes, write_buffer_bytes, .. } = RocksDb::default();
        Ok(RocksDb {
            local_dir: self.text("state.backend.rocksdb.localdir")?.map(str::to_owned),
            overlay_bytes: bytes("cutwater.rocksdb.overlay", overlay_bytes)?,
            block_cache_bytes: bytes("cutwater.rocksdb.block-cache", block_cache_bytes)?,
            write_buffer_bytes: bytes("cutwater.rocksdb.write-buffers", write_buffer_bytes)?,
        })
    }

    /// It names a folder and stands in file names, so not everything will do.
    fn name(&self) -> Result<Option<String>, ConfigError> {
        let Some(name) = self.text(NAME)? else { return Ok(None) };
        match OperatorUid::new(name) {
            Ok(_) => Ok(Some(name.to_owned())),
            Err(_) => {
                let accepted = "give 1 to 200 letters, digits, `-`, `_` or `.`, a letter or digit first";
                Err(self.refused(NAME, accepted.to_owned()))
            }
        }
    }

    fn parallelism(&self) -> Result<Option<NonZeroU32>, ConfigError> {
        let Some(found) = self.found.get(PARALLELISM) else { return Ok(None) };
        let parallelism = self.positive(PARALLELISM)?;
        if MaxParallelism::new(parallelism.get()).is_err() {
            return Err(found.invalid("give 1 to 32768".to_owned()));
        }
        match self.max_parallelism()? {
            Some(max) if parallelism.get() > max.count() => {
                Err(self.conflict(PARALLELISM, MAX_PARALLELISM, "the parallelism can't be above the maximum"))
            }
            Some(_) | None => Ok(Some(parallelism)),
        }
    }

    fn max_parallelism(&self) -> Result<Option<MaxParallelism>, ConfigError> {
        let number = self.int(MAX_PARALLELISM)?;
        if number == -1 {
            return Ok(None);
        }
        let valid = u32::try_from(number).ok().and_then(|count| MaxParallelism::new(count).ok());
        valid.map(Some).ok_or_else(|| self.refused(MAX_PARALLELISM, "give 1 to 32768, or -1 for none".to_owned()))
    }

    /// Two values that contradict each other; either may be a default.
    fn conflict(&self, key: &'static str, other_key: &'static str, rule: &'static str) -> ConfigError {
        let ((value, origin), (other_value, other_origin)) = (self.written(key), self.written(other_key));
        let conflict = Conflict { key, value, origin, other_key, other_value, other_origin, rule };
        ConfigError::Conflict(Box::new(conflict))
    }

    fn written(&self, name: &str) -> (String, Origin) {
        match self.found.get(name) {
            Some(found) => (found.entry.shown().to_owned(), found.entry.origin.clone()),
            None => (key(name).default.unwrap_or_default().to_owned(), Origin::Default),
        }
    }

    fn adjusted(&mut self, key: &'static str, how: &'static str) {
        let origin = self.found.get(key).map_or(Origin::Default, |found| found.entry.origin.clone());
        self.warnings.push(Warning::Adjusted { key, origin, how });
    }

    fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        self.read(name, value::boolean)
    }

    fn boolean_if_set(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.found.get(name).map(|found| found.parse(value::boolean)).transpose()
    }

    fn int(&self, name: &str) -> Result<i32, ConfigError> {
        self.read(name, value::int)
    }

    fn double(&self, name: &str) -> Result<f64, ConfigError> {
        self.read(name, value::double)
    }

    /// A whole number from `least` to 2147483647.
    fn number(&self, name: &str, least: u32) -> Result<u32, ConfigError> {
        let number = u32::try_from(self.int(name)?).ok().filter(|number| *number >= least);
        number.ok_or_else(|| self.refused(name, format!("give {least} to {UNLIMITED}")))
    }

    fn positive(&self, name: &str) -> Result<NonZeroU32, ConfigError> {
        Ok(NonZeroU32::new(self.number(name, 1)?).expect("at least 1 by the line before"))
    }

    /// A duration that may be unset.
    fn duration(
        &self,
        name: &str,
        accepted: &str,
        fits: impl Fn(Duration) -> bool,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(found) = self.found.get(name) else { return Ok(None) };
        let duration = found.parse(value::duration)?;
        if fits(duration) { Ok(Some(duration)) } else { Err(found.invalid(accepted.to_owned())) }
    }

    fn duration_or_default(&self, name: &str, accepted: &str, least: Duration) -> Result<Duration, ConfigError> {
        let set = self.duration(name, accepted, |duration| duration >= least)?;
        set.map_or_else(|| self.read(name, value::duration), Ok)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        self.found.get(name).map(Found::text).transpose()
    }

    /// The name out of the list of the key, spelled as there.
    fn choice(&self, name: &str) -> Result<Option<&'static str>, ConfigError> {
        let Some(found) = self.found.get(name) else { return Ok(key(name).default) };
        let Kind::Choice(names) = found.key.kind else { unreachable!("`{name}` is no choice in the table of keys") };
        let text = found.text()?;
        let chosen = names.iter().find(|known| known.eq_ignore_ascii_case(text));
        chosen.map(|name| Some(*name)).ok_or_else(|| found.invalid(found.key.kind.accepted()))
    }

    /// The value as set, else the default.
    fn read<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        match self.found.get(name) {
            Some(found) => found.parse(parse),
            None => {
                let default = key(name).default.and_then(parse);
                Ok(default.expect("a test of the table of keys reads every default"))
            }
        }
    }

    /// The error for a value that was read and does not fit.
    fn refused(&self, name: &str, accepted: String) -> ConfigError {
        let found = self.found.get(name).expect("a default always fits, so the key is set");
        found.invalid(accepted)
    }
}

impl Found {
    /// The value without the space around it.
    fn text(&self) -> Result<&str, ConfigError> {
        match self.entry.problem {
            Some(problem) => Err(self.invalid(problem.to_owned())),
            None => Ok(self.entry.value.trim()),
        }
    }

    fn parse<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        parse(self.text()?).ok_or_else(|| self.invalid(self.key.kind.accepted()))
    }

    fn invalid(&self, accepted: String) -> ConfigError {
        let (value, entry) = (self.entry.shown().to_owned(), self.entry.clone());
        ConfigError::Invalid { key: entry.key, new: self.new_name(), value, origin: entry.origin, accepted }
    }

    fn not_built(&self, accepted: String) -> ConfigError {
        let (value, entry) = (self.entry.shown().to_owned(), self.entry.clone());
        ConfigError::NotBuilt { key: entry.key, new: self.new_name(), value, origin: entry.origin, accepted }
    }
}

fn key(name: &str) -> &'static Key {
    keys().iter().find(|key| key.name == name).expect("the names in this file are in the table of keys")
}
