use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use cutwater_core::{MaxParallelism, Secret};

use crate::{Origin, Warning};

/// All that configuration says, checked. Made by [`Config::resolve`](crate::Config::resolve).
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// When and how checkpoints are taken.
    pub checkpointing: Checkpointing,
    /// The restart strategy; `None` if nobody chose one, which leaves it to whether checkpointing is on.
    pub restart: Option<RestartSettings>,
    /// What follows if the job restarts again and again without getting on.
    pub no_progress: NoProgressSettings,
    /// Where keyed state lives.
    pub backend: BackendKind,
    /// The folder of [`CheckpointStorage::Folder`], as written: a path or a URI.
    pub checkpoint_dir: Option<String>,
    /// The number of subtasks of each operator, if someone said; at most [`Self::max_parallelism`] if that is set.
    pub parallelism: Option<NonZeroU32>,
    /// The number of key groups, if someone said.
    pub max_parallelism: Option<MaxParallelism>,
    /// The name of the job, if someone said.
    pub name: Option<String>,
    /// The folder for savepoints, as written: a path or a URI.
    pub savepoint_dir: Option<String>,
    /// From where the job starts, if not from its own newest checkpoint.
    pub recovery: Recovery,
    /// How much of the past the status of the job holds.
    pub history: HistorySizes,
    /// How object stores are reached and how hard they are used.
    pub object_stores: ObjectStores,
    /// How RocksDB is used, if it is the backend.
    pub rocksdb: RocksDb,
    /// What the author of the configuration should know; to be shown once.
    pub warnings: Vec<Warning>,
    /// Each key that somebody set, by its name of today, sorted; also those of which nothing holds.
    pub settings: Vec<Setting>,
    /// Where each key was found that was set and read, by its name of today.
    pub origins: BTreeMap<&'static str, Origin>,
}

impl Resolved {
    /// Where the value of a key comes from: [`Origin::Default`] if nobody set it.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// What was said of a key, by its name of today; `None` if nothing was.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

/// What was said of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name of today.
    pub key: &'static str,
    /// The value that holds, as written, or `***` if it is a secret; `None` if nothing that was said of the key was read and its default holds.
    pub value: Option<String>,
    /// Where that value was found.
    pub origin: Origin,
    /// The old name or the variable of an old name under which it was written; `None` if it was the name of today.
    pub written_as: Option<String>,
    /// What does not hold since something stronger was said, strongest first.
    pub overridden: Vec<Said>,
}

/// One thing that was said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The value as written, or `***` if it is a secret.
    pub value: String,
    /// Where.
    pub origin: Origin,
    /// The old name under which it was said, if it was one.
    pub written_as: Option<String>,
}

/// From where a job starts. The default: from its own newest checkpoint, else from nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// A savepoint, or the folder of another job's checkpoints, as written: a path or a URI.
    pub path: Option<String>,
    /// Whether the savepoint becomes the job's, which deletes it when it has checkpoints of its own; false by default.
    pub claim: bool,
    /// Whether state that no operator asks for is left out; false by default: then such a start is refused.
    pub ignore_unclaimed: bool,
    /// Whether state is read from the copies on this machine, where they are there and right; false by default.
    pub from_local: bool,
    /// Whether the retained checkpoint before it takes the place of one that is damaged; false by default. Then
    /// [`Checkpointing::num_retained`] is at least 2.
    pub fall_back: bool,
}

/// How much of the past the status of a job holds, each from 0 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySizes {
    /// How many checkpoints, completed and failed; 10 by default. Flink: `web.checkpoints.history`.
    pub checkpoints: u32,
    /// How many failures; 16 by default. Flink: `web.exception-history-size`.
    pub failures: u32,
}

impl Default for HistorySizes {
    fn default() -> Self {
        Self { checkpoints: 10, failures: 16 }
    }
}

/// How object stores are reached and how hard they are used. What is not set comes from the environment, as for other
/// programs, when a store is opened. The first six are of S3 alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStores {
    /// Where the service is, as written.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// The access key; there if and only if the secret key is.
    pub access_key: Option<String>,
    /// The secret key.
    pub secret_key: Option<Secret>,
    /// Whether the bucket stands in the path of a URL, not in the name of the host.
    pub path_style: Option<bool>,
    /// Whether an endpoint on another machine may be reached without TLS.
    pub allow_http: Option<bool>,
    /// The longest that one operation may take with all its tries; from 10 ms to 365 days; 30 s by default.
    pub deadline: Duration,
    /// The longest that a single request may take; from 10 ms to 365 days; 20 s by default.
    pub request_timeout: Duration,
    /// How many requests run at once; 16 by default.
    pub parallelism: NonZeroU32,
    /// How many bytes a second are uploaded at the most; unlimited by default.
    pub upload_rate: Option<NonZeroU64>,
}

impl Default for ObjectStores {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
            path_style: None,
            allow_http: None,
            deadline: Duration::from_secs(30),
            request_timeout: Duration::from_secs(20),
            parallelism: NonZeroU32::new(16).expect("16 is not zero"),
            upload_rate: None,
        }
    }
}

/// How RocksDB is used, if it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksDb {
    /// The folder for the databases, as written; a temporary one unless set.
    pub local_dir: Option<String>,
    /// Bytes of each state that stay in memory; at least 1 MiB; 64 MiB by default.
    pub overlay_bytes: u64,
    /// Bytes for blocks of files, for the whole process; at least 1 MiB; 256 MiB by default.
    pub block_cache_bytes: u64,
    /// Bytes for writes that are not in files yet, for the whole process; at least 1 MiB; 256 MiB by default.
    pub write_buffer_bytes: u64,
}

impl Default for RocksDb {
    fn default() -> Self {
        Self { local_dir: None, overlay_bytes: 64 << 20, block_cache_bytes: 256 << 20, write_buffer_bytes: 256 << 20 }
    }
}

/// When and how checkpoints are taken. One made by [`Config::resolve`](crate::Config::resolve) or [`Default`] is
/// always consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpointing {
    /// From the start of one to the start of the next, at least 10 ms and at least `min_pause`; `None`, the default,
    /// is off.
    pub interval: Option<Duration>,
    /// Exactly once by default.
    pub mode: CheckpointingMode,
    /// A checkpoint that takes longer is given up; at least 10 ms; 10 min by default.
    pub timeout: Duration,
    /// From the end of one to the start of the next, at most 365 days; 0 by default.
    pub min_pause: Duration,
    /// How many may be in flight at once; 1 by default.
    pub max_concurrent: NonZeroU32,
    /// How many failures in a row the job bears; 0 by default, 2147483647 is as good as unlimited.
    pub tolerable_failures: u32,
    /// How many completed ones are kept; 1 by default.
    pub num_retained: NonZeroU32,
    /// What becomes of them when the job ends; they are kept by default.
    pub retention: ExternalizedCheckpointRetention,
    /// Whether they go on when some subtasks have ended; true by default.
    pub after_tasks_finish: bool,
    /// Whether state files are compressed; false by default.
    pub compression: bool,
    /// Up to how many bytes a state file is kept within the record of its checkpoint; 20 KiB by default.
    pub inline_threshold: u32,
    /// Whether they hold only what has changed since the one before, when that pays; false by default.
    pub incremental: bool,
    /// Whether savepoints are in the backend's own form; false by default.
    pub native_savepoints: bool,
    /// Where they are written; memory by default.
    pub storage: CheckpointStorage,
    /// Whether state files are copied to disks of this machine too; false by default.
    pub local_backup: bool,
    /// The folders for that, as written; none, which means a temporary one, by default.
    pub local_backup_dirs: Vec<String>,
}

impl Default for Checkpointing {
    fn default() -> Self {
        Self {
            interval: None,
            mode: CheckpointingMode::ExactlyOnce,
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            max_concurrent: NonZeroU32::MIN,
            tolerable_failures: 0,
            num_retained: NonZeroU32::MIN,
            retention: ExternalizedCheckpointRetention::RetainOnCancellation,
            after_tasks_finish: true,
            compression: false,
            inline_threshold: 20 << 10,
            incremental: false,
            native_savepoints: false,
            storage: CheckpointStorage::Memory,
            local_backup: false,
            local_backup_dirs: Vec::new(),
        }
    }
}

/// What a restart may do to the count of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointingMode {
    /// Each record counts once: channels wait for each other at a barrier.
    #[default]
    ExactlyOnce,
    /// Each record counts, some twice after a restart; no channel ever waits.
    AtLeastOnce,
}

/// What becomes of checkpoints when the job ends. Names and rules are Flink's, but that `RetainOnCancellation` keeps them
/// also when the job has finished. Savepoints and published output always stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalizedCheckpointRetention {
    /// They are kept.
    #[default]
    RetainOnCancellation,
    /// They are kept if the job failed, or was stopped to go on later; deleted if it finished, was drained or cancelled.
    DeleteOnCancellation,
    /// They are deleted, unless the job was stopped behind a checkpoint without a savepoint.
    NoExternalizedCheckpoints,
}

/// What follows if a job restarts again and again without getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProgressSettings {
    /// Whether the job ends as failed; false by default: it is reported.
    pub stop: bool,
    /// After how many failures or restores in a row without progress; 3 by default.
    pub attempts: NonZeroU32,
}

impl Default for NoProgressSettings {
    fn default() -> Self {
        Self { stop: false, attempts: NonZeroU32::new(3).expect("three is not zero") }
    }
}

/// Where checkpoints are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointStorage {
    /// Into the memory of the process: they outlive a restart of the job, not of the process. Flink's `jobmanager`.
    Memory,
    /// Below this path or URI, as written. Flink's `filesystem`.
    Folder(String),
}

/// Where keyed state lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// In memory. Flink's `hashmap`.
    #[default]
    Hashmap,
    /// On a local disk, what was used last in memory.
    RocksDb,
}

/// The restart strategy someone chose. The rules behind the numbers are those of `cutwater-restart`; all numbers are in
/// their ranges.
#[derive(Clone, Debug, PartialEq)]
pub enum RestartSettings {
    /// The first failure ends the job.
    None,
    /// A number of restarts, each after the same delay.
    FixedDelay {
        /// How many failures are forgiven; 1 by default.
        attempts: u32,
        /// 1 s by default.
        delay: Duration,
    },
    /// Restarts as long as failures stay rare.
    FailureRate {
        /// How many failures an interval may hold; at least 1, which is the default.
        max_failures_per_interval: u32,
        /// Above zero; 1 min by default.
        interval: Duration,
        /// 1 s by default.
        delay: Duration,
    },
    /// Delays that grow.
    ExponentialDelay {
        /// The first delay; at least 1 ms; 1 s by default.
        initial_backoff: Duration,
        /// The longest; at least the first; 1 min by default.
        max_backoff: Duration,
        /// Above 1; 1.5 by default.
        backoff_multiplier: f64,
        /// At least 1 ms; 1 h by default.
        reset_backoff_threshold: Duration,
        /// From 0 to 1; 0.1 by default.
        jitter_factor: f64,
        /// At least 1; 2147483647, as good as unlimited, by default.
        attempts_before_reset_backoff: u32,
    },
}
