use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cutwater_config::{BackendKind, CheckpointingMode, HistorySizes, Resolved, RestartSettings};
use cutwater_coordinator::{
    AbortReason, CompletedCheckpoint, ExternalizedCheckpointRetention, Outcome, RestoreFrom, SavepointFormat, Settings,
};
use cutwater_core::{MaxParallelism, OperatorUid};
use cutwater_dataflow::JobGraph;
use cutwater_driver::{NO_PROGRESS_ATTEMPTS, OnNoProgress};
use cutwater_memory::MemoryBackend;
use cutwater_restart::{ExponentialDelay, Strategy};
use cutwater_state::format::Compression;
use cutwater_state::{Capabilities, StateBackend};
use cutwater_storage::{MemoryStore, Store};
use cutwater_task::{DeltaLimits, TaskSettings};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::driver::{AnswerSavepoint, Event, Shell};
use crate::error::JobError;
use crate::local::LocalRecovery;
use crate::open::open_checkpoint_in;
use crate::place::{OptionsError, StoreResolver, job_folder};
use crate::restore::RestorePoint;
use crate::savepoint::{self, SavepointError, TakenSavepoint, read_savepoint};
use crate::signals::stop_on_signals;
use crate::status::{JobStatus, Shared};
use crate::upload::chain;

/// How a job is run. [`Options::new`] takes no checkpoints and does not restart; [`Options::from_config`] takes all
/// from a configuration.
#[derive(Clone)]
pub struct Options {
    /// The name of the job, in place of the one that its graph has.
    pub name: Option<String>,
    /// Parallelism of the job: the number of subtasks of each task that has no lower limit of its own. 1 unless set.
    pub parallelism: NonZeroU32,
    /// Worker threads; as many as the job's parallelism, but not more than the machine has cores, unless set.
    pub workers: Option<NonZeroUsize>,
    /// Key groups. Unset: those of the restored checkpoint, else 128.
    pub max_parallelism: Option<MaxParallelism>,
    /// When checkpoints are taken.
    pub checkpointing: Settings,
    /// How subtasks work, the checkpointing mode included.
    pub task: TaskSettings,
    /// Whether and when to restart. Unset: fixed delay, 2147483647 times, 1 s, with checkpoints; none without.
    pub restart: Option<Strategy>,
    /// What follows if the job restarts again and again without getting on: it is reported, unless set.
    pub on_no_progress: OnNoProgress,
    /// After how many failures or restores in a row without progress; 3 unless set. What counts is said at
    /// [`ProgressWatch`](cutwater_restart::ProgressWatch).
    pub no_progress_attempts: NonZeroU32,
    /// Where checkpoints are kept, below a folder with the job's name. Unset: in memory, for as long as the process
    /// lives.
    pub store: Option<Arc<dyn Store>>,
    /// Where to start.
    pub from: StartFrom,
    /// What keeps state beside the table.
    pub backend: Arc<dyn StateBackend>,
    /// How snapshot files are compressed; not at all unless set.
    pub compression: Compression,
    /// A snapshot file of up to so many bytes is kept within the record of its checkpoint instead of as an object of its own,
    /// so that a checkpoint of small state is one object; 20 KiB unless set, 0 for none. With many subtasks less, so that no
    /// record holds more than 4 MiB of them. Flink: `execution.checkpointing.data-inline-threshold`.
    pub inline_threshold: u32,
    /// The folder below which savepoints get folders of their own: a path or URL as [`Self::stores`] takes. Unset: each
    /// request must name one. Flink: `execution.checkpointing.savepoint-dir`.
    pub savepoints: Option<String>,
    /// What the paths and URLs of [`StartFrom::Path`] and of savepoints mean; [`store_at`](crate::store_at) unless set.
    pub stores: StoreResolver,
    /// Of which operators, that a checkpoint has and the job has not, the state may be dropped; of none unless set.
    pub ignore_unclaimed: IgnoreUnclaimed,
    /// Who owns the savepoint that the job starts from; the user unless set.
    pub claim: ClaimMode,
    /// How many checkpoints and failures the status holds; 10 and 16 unless set.
    pub history: HistorySizes,
    /// Copies of the state on disks of this machine; none unless set.
    pub local: LocalRecovery,
}

/// Of which operators that a checkpoint has and the job lacks the state may be dropped when the job starts from it. Until
/// then such a start is refused, with the operators and the sizes of their state. Flink:
/// `execution.state-recovery.ignore-unclaimed-state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IgnoreUnclaimed {
    /// Of none.
    #[default]
    No,
    /// Of these.
    Of(BTreeSet<OperatorUid>),
    /// Of any, as Flink's `true`. A mistyped uid then loses its state without a word.
    All,
}

#[cfg(feature = "rocksdb")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn rocksdb(config: &Resolved) -> Result<Arc<dyn StateBackend>, OptionsError> {
    let settings = &config.rocksdb;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let budget =
        cutwater_rocksdb::RocksBudget::new(bytes(settings.block_cache_bytes), bytes(settings.write_buffer_bytes));
    let below = settings.local_dir.as_deref().map(std::path::Path::new);
    Ok(Arc::new(cutwater_rocksdb::RocksDbBackend::new(below, settings.overlay_bytes, budget)))
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(config: &Resolved) -> Result<Arc<dyn StateBackend>, OptionsError> {
    let origin = config.origins.iter().find(|(key, _)| **key == "state.backend.type").map(|(_, origin)| origin.clone());
    Err(OptionsError::Backend { name: "rocksdb", origin, feature: "rocksdb" })
}

impl IgnoreUnclaimed {
    pub(crate) fn covers(&self, operator: &OperatorUid) -> bool {
        match self {
            Self::No => false,
            Self::Of(operators) => operators.contains(operator),
            Self::All => true,
        }
    }
}

/// Who owns the savepoint that a job starts from. Flink: `execution.state-recovery.claim-mode`; its `LEGACY` is not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimMode {
    /// The user: the job reads it at its start and needs it no more once its first checkpoint has completed.
    #[default]
    NoClaim,
    /// The job: it deletes the savepoint once it has as many checkpoints of its own as it retains. Only savepoints can be
    /// claimed, not checkpoints of another folder.
    Claim,
}

/// Where a job starts.
#[derive(Clone, Debug, Default)]
pub enum StartFrom {
    /// At the newest checkpoint of its own log, if there is one.
    #[default]
    Latest,
    /// From nothing. Refused while the log has a checkpoint, unless `checkpointing.allow_rewind` is set.
    Nothing,
    /// At a savepoint, or a checkpoint of another folder, see [`open_checkpoint`](crate::open_checkpoint).
    Checkpoint(Box<CompletedCheckpoint>, Arc<dyn Store>),
    /// The same, opened when the job is started: a path or URL as [`open_checkpoint`](crate::open_checkpoint) takes, in
    /// the store that [`Options::stores`] has for it.
    Path(String),
}

impl Options {
    /// Neither checkpoints nor restarts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: None,
            parallelism: NonZeroU32::MIN,
            workers: None,
            max_parallelism: None,
            checkpointing: Settings { enabled: false, ..Settings::default() },
            task: TaskSettings::default(),
            restart: None,
            on_no_progress: OnNoProgress::Report,
            no_progress_attempts: NO_PROGRESS_ATTEMPTS,
            store: None,
            from: StartFrom::Latest,
            backend: Arc::new(MemoryBackend),
            compression: Compression::None,
            inline_threshold: 20 << 10,
            savepoints: None,
            stores: StoreResolver::default(),
            ignore_unclaimed: IgnoreUnclaimed::No,
            claim: ClaimMode::NoClaim,
            history: HistorySizes::default(),
            local: LocalRecovery::default(),
        }
    }

    /// What the configuration says.
    ///
    /// # Errors
    ///
    /// If the checkpoint folder is of a kind that is not built, or a key of object stores is set in a program without them.
    pub fn from_config(config: &Resolved) -> Result<Self, OptionsError> {
        Self::from_config_with_stores(config, StoreResolver::from_config(config)?)
    }

    /// What the configuration says, with other stores behind its paths and URLs. Its keys of object stores are up to the
    /// resolver: that of [`StoreResolver::from_config`] reads them.
    ///
    /// # Errors
    ///
    /// What the resolver says of the checkpoint folder.
    pub fn from_config_with_stores(config: &Resolved, stores: StoreResolver) -> Result<Self, OptionsError> {
        let checkpointing = &config.checkpointing;
        let mut options = Self::new();
        options.name.clone_from(&config.name);
        options.parallelism = config.parallelism.unwrap_or(NonZeroU32::MIN);
        options.max_parallelism = config.max_parallelism;
        options.checkpointing = Settings {
            interval: checkpointing.interval,
            enabled: checkpointing.interval.is_some(),
            timeout: checkpointing.timeout,
            min_pause: checkpointing.min_pause,
            max_concurrent: checkpointing.max_concurrent,
            // Flink's "unlimited" is the largest number of its type.
            tolerable_failures: match checkpointing.tolerable_failures {
                0x7fff_ffff => u32::MAX,
                failures => failures,
            },
            num_retained: checkpointing.num_retained,
            checkpoints_after_tasks_finish: checkpointing.after_tasks_finish,
            allow_rewind: false,
            externalized_checkpoint_retention: retention(checkpointing.retention),
            fall_back: config.recovery.fall_back,
            savepoints: match checkpointing.native_savepoints {
                true => SavepointFormat::Native,
                false => SavepointFormat::Canonical,
            },
        };
        options.task.mode = match checkpointing.mode {
            CheckpointingMode::ExactlyOnce => cutwater_barrier::Mode::ExactlyOnce,
            CheckpointingMode::AtLeastOnce => cutwater_barrier::Mode::AtLeastOnce,
        };
        options.task.deltas = checkpointing.incremental.then(DeltaLimits::default);
        options.task.checkpoints_after_tasks_finish = checkpointing.after_tasks_finish;
        options.restart = config.restart.as_ref().map(strategy);
        options.on_no_progress = if config.no_progress.stop { OnNoProgress::Stop } else { OnNoProgress::Report };
        options.no_progress_attempts = config.no_progress.attempts;
        options.backend = match config.backend {
            BackendKind::Hashmap => Arc::new(MemoryBackend),
            BackendKind::RocksDb => rocksdb(config)?,
        };
        if checkpointing.compression {
            options.compression = Compression::Zstd(1);
        }
        options.inline_threshold = checkpointing.inline_threshold;
        options.savepoints = config.savepoint_dir.clone();
        options.from = config.recovery.path.clone().map_or(StartFrom::Latest, StartFrom::Path);
        options.claim = if config.recovery.claim { ClaimMode::Claim } else { ClaimMode::NoClaim };
        options.ignore_unclaimed =
            if config.recovery.ignore_unclaimed { IgnoreUnclaimed::All } else { IgnoreUnclaimed::No };
        options.history = config.history;
        options.local = LocalRecovery {
            backup: checkpointing.local_backup,
            from_local: config.recovery.from_local,
            dirs: checkpointing.local_backup_dirs.iter().map(PathBuf::from).collect(),
        };
        if let Some(folder) = &config.checkpoint_dir {
            options.store = Some(stores.store_at(folder)?);
        }
        options.stores = stores;
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

fn retention(configured: cutwater_config::ExternalizedCheckpointRetention) -> ExternalizedCheckpointRetention {
    use cutwater_config::ExternalizedCheckpointRetention as Configured;
    match configured {
        Configured::RetainOnCancellation => ExternalizedCheckpointRetention::RetainOnCancellation,
        Configured::DeleteOnCancellation => ExternalizedCheckpointRetention::DeleteOnCancellation,
        Configured::NoExternalizedCheckpoints => ExternalizedCheckpointRetention::NoExternalizedCheckpoints,
    }
}

fn strategy(settings: &RestartSettings) -> Strategy {
    match *settings {
        RestartSettings::None => Strategy::None,
        RestartSettings::FixedDelay { attempts, delay } => Strategy::FixedDelay { attempts, delay },
        RestartSettings::FailureRate { max_failures_per_interval, interval, delay } => {
            Strategy::FailureRate { max_failures_per_interval, interval, delay }
        }
        RestartSettings::ExponentialDelay {
            initial_backoff,
            max_backoff,
            backoff_multiplier,
            reset_backoff_threshold,
            jitter_factor,
            attempts_before_reset_backoff,
        } => Strategy::ExponentialDelay(ExponentialDelay {
            initial_backoff,
            max_backoff,
            backoff_multiplier,
            reset_backoff_threshold,
            jitter_factor,
            attempts_before_reset_backoff,
        }),
    }
}

/// How a job came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobOutcome {
    /// All data was processed and all output published.
    Finished,
    /// It had finished in an earlier run; nothing was done now.
    AlreadyFinished,
    /// It was cancelled. The same command resumes from its newest checkpoint, if they are kept.
    Canceled,
    /// It was stopped behind a checkpoint, whose output is published. Unless it was drained, the same command resumes
    /// from it.
    Stopped {
        /// Where the savepoint lies, if one was made.
        savepoint: Option<String>,
    },
}

/// What became of the job, after its name.
impl fmt::Display for JobOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::AlreadyFinished => f.write_str(
                "had finished before, and nothing was done: to run it again, give it other folders for checkpoints and \
                 output",
            ),
            Self::Canceled => f.write_str("was cancelled"),
            Self::Stopped { savepoint: Some(savepoint) } => write!(f, "stopped with savepoint {savepoint}"),
            Self::Stopped { savepoint: None } => f.write_str("stopped behind a checkpoint"),
        }
    }
}

/// How a job stops behind a savepoint. Source: Flink's stop-with-savepoint, without and with `--drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sources read nothing more; timers and windows stay as they are. The job can go on from the savepoint.
    Suspend,
    /// Sources end where they stand: the watermark goes to its end, all timers fire. Not meant to be resumed: what starts
    /// from the savepoint has nothing left to read, and the same command finds the job finished.
    Drain,
}

/// Runs the job to its end, or until the process gets SIGINT or SIGTERM: then the job stops behind a savepoint if
/// [`Options::savepoints`] says where, else behind a checkpoint, and without checkpoints at once. A second signal cancels
/// it. What became of the job is returned, and told on standard error in one line; in another, if it began from nothing
/// since its checkpoints had been deleted, or from an older checkpoint since the newest was damaged.
///
/// # Errors
///
/// [`JobError`] if it can't start, or fails and is not restarted any more.
///
/// ```
/// use cutwater_dataflow::{Collect, Job, generator};
/// use cutwater_runtime::{JobOutcome, Options, run};
///
/// let out = Collect::<(u64, u64)>::default();
/// let job = Job::new("counts");
/// job.source("numbers", generator(1_000, |n| n))
///     .key_by(|n| n % 10)
///     .fold("counts", 0u64, |count, _| *count += 1)
///     .sink("out", out.clone());
/// let outcome = run(job.build()?, Options::new())?;
/// assert_eq!(outcome, JobOutcome::Finished);
/// assert_eq!(outcome.to_string(), "finished"); // as it was told
/// assert_eq!(out.take().len(), 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(graph: JobGraph, options: Options) -> Result<JobOutcome, JobError> {
    let handle = Arc::new(spawn(graph, options)?);
    stop_on_signals(&handle)?;
    let outcome = telling_of_restores(&handle);
    let status = handle.status();
    if let Some(ended) = &status.discarded {
        eprintln!("job {} began anew: its checkpoints were deleted when it had {}", handle.job, in_words(ended));
    }
    if let Some(fell_back) = &status.fell_back {
        eprintln!("job {}: {fell_back}", handle.job);
    }
    if let Ok(outcome) = &outcome {
        eprintln!("job {} {outcome}", handle.job);
    }
    outcome
}

/// How often a restore that lasts is told of.
const RESTORE_LINE: Duration = Duration::from_secs(3);

/// Waits for the end of the job. A restore that takes longer than a second is told of in a line every few.
fn telling_of_restores(handle: &Arc<JobHandle>) -> Result<JobOutcome, JobError> {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let teller = {
        let handle = Arc::clone(handle);
        std::thread::Builder::new().name("cutwater-restore".to_owned()).spawn(move || {
            let mut told = None;
            while end.recv_timeout(Duration::from_secs(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let Some(restore) = handle.shared.restore().filter(|restore| !restore.is_over) else { continue };
                let now = restore.since + restore.elapsed;
                if restore.elapsed >= Duration::from_secs(1) && told.is_none_or(|told| now.since(told) >= RESTORE_LINE)
                {
                    told = Some(now);
                    eprintln!("job {} restores {restore}", handle.job);
                }
            }
        })
    };
    let outcome = handle.wait();
    drop(ended);
    if let Ok(teller) = teller {
        drop(teller.join()); // one that panicked has told nothing, and the job has ended
    }
    outcome
}

/// How a job had ended, after "when it had".
pub(crate) fn in_words(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Canceled => "been cancelled",
        Outcome::Failed(_) => "failed",
        Outcome::Stopped { .. } => "been stopped",
    }
}

/// Starts the job on threads of its own and returns at once.
///
/// # Errors
///
/// [`JobError::Options`] if the options contradict each other, [`JobError::Open`] if there is no checkpoint at
/// [`StartFrom::Path`]; anything later is told by [`JobHandle::wait`].
pub fn spawn(graph: JobGraph, options: Options) -> Result<JobHandle, JobError> {
    let graph = match &options.name {
        None => graph,
        Some(name) => {
            let job = graph.name().to_owned();
            graph.renamed(name).map_err(|error| JobError::Options { job, reason: crate::upload::chain(&error) })?
        }
    };
    let job = graph.name().to_owned();
    let invalid = |reason: String| JobError::Options { job: job.clone(), reason };
    let restart = options.restart.clone().unwrap_or_else(|| {
        if options.checkpointing.enabled {
            Strategy::default_with_checkpointing()
        } else {
            Strategy::default_without_checkpointing()
        }
    });
    restart.validate().map_err(|error| invalid(error.to_string()))?;
    if let Some(max) = options.max_parallelism
        && options.parallelism.get() > max.count()
    {
        return Err(invalid(format!("parallelism {} is above its {} key groups", options.parallelism, max.count())));
    }
    if options.checkpointing.fall_back && options.checkpointing.num_retained.get() < 2 {
        let reason = "falling back past a damaged checkpoint (cutwater.state-recovery.fall-back) needs one before it: raise \
                      execution.checkpointing.num-retained to at least 2";
        return Err(invalid(reason.to_owned()));
    }
    let Capabilities { cold_tier, images, .. } = options.backend.capabilities();
    if options.task.deltas.is_some() && cold_tier && !images {
        let reason = format!(
            "checkpoints that hold only what has changed (execution.checkpointing.incremental) are not built for the backend \
             {}: leave the setting out, or keep the state in memory (state.backend.type: hashmap)",
            options.backend.name()
        );
        return Err(invalid(reason));
    }
    let store = if options.checkpointing.enabled { options.store.clone() } else { None };
    let store = job_folder(store.unwrap_or_else(|| Arc::new(MemoryStore::new())), &job);
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_name("cutwater-io")
        .build()
        .map_err(|error| invalid(format!("could not start the I/O threads: {error}")))?;
    let foreign = |checkpoint: Box<CompletedCheckpoint>, store| {
        let point = RestorePoint { checkpoint: (*checkpoint).clone(), store };
        (RestoreFrom::Foreign(checkpoint), Some(point))
    };
    let (from, foreign) = match options.from.clone() {
        StartFrom::Latest => (RestoreFrom::Latest, None),
        StartFrom::Nothing => (RestoreFrom::Nothing, None),
        StartFrom::Checkpoint(checkpoint, store) => foreign(checkpoint, store),
        StartFrom::Path(path) => {
            let opened = options.stores.store_at(&path).map_err(Into::into).and_then(open_checkpoint_in);
            let (checkpoint, store) =
                opened.map_err(|source| JobError::Open { job: job.clone(), source: Arc::new(source) })?;
            foreign(Box::new(checkpoint), store)
        }
    };
    let (savepoints, checkpoints, stores) =
        (options.savepoints.clone(), options.checkpointing.enabled, options.stores.clone());
    if let (ClaimMode::Claim, Some(foreign)) = (options.claim, &foreign) {
        let url = foreign.store.url();
        match read_savepoint(foreign.store.as_ref()) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(invalid(format!("{url} is no savepoint, so it can't be claimed: use NO_CLAIM"))),
            Err(error) => return Err(invalid(format!("can't claim {url}: {}", chain(&error)))),
        }
    }
    let (events, inbox) = unbounded_channel();
    let shared = Arc::new(Shared::new(JobStatus::new(&job)));
    let result = Arc::new(Mutex::new(None));
    let handle = tokio.handle().clone();
    let shell = Shell::new(graph, options, restart, store, foreign, handle, events.clone(), Arc::clone(&shared));
    let thread = {
        let result = Arc::clone(&result);
        std::thread::Builder::new().name("cutwater-driver".to_owned()).spawn(move || {
            let outcome = tokio.block_on(shell.drive(from, inbox));
            *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
            // A blocking task that hangs in a store must not hold the program up.
            tokio.shutdown_background();
        })
    };
    let thread = thread.map_err(|error| invalid(format!("could not start the driver's thread: {error}")))?;
    Ok(JobHandle { job, savepoints, stores, checkpoints, events, shared, thread: Mutex::new(Some(thread)), result })
}

type SavepointReceiver = oneshot::Receiver<Result<Option<TakenSavepoint>, SavepointError>>;

/// A running job. Dropping the handle lets the job run on.
pub struct JobHandle {
    job: String,
    savepoints: Option<String>,
    stores: StoreResolver,
    checkpoints: bool,
    events: UnboundedSender<Event>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    result: Arc<Mutex<Option<Result<JobOutcome, JobError>>>>,
}

impl JobHandle {
    /// What the job does now.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.shared.read()
    }

    /// Takes a checkpoint now and waits until it is durable. Ignores interval and pause, waits for one in flight.
    ///
    /// # Errors
    ///
    /// Why it came to nothing; [`AbortReason::Shutdown`] if the job has ended.
    pub fn checkpoint(&self) -> Result<CompletedCheckpoint, AbortReason> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Checkpoint(answer)).map_err(|_| AbortReason::Shutdown)?;
        answered.blocking_recv().unwrap_or(Err(AbortReason::Shutdown))
    }

    /// Makes a savepoint now, in a new folder below `folder` (a path or URL as [`Options::stores`] takes; `None`:
    /// [`Options::savepoints`]), and waits until it is durable. Ignores interval and pause, waits for one in flight.
    ///
    /// It is a checkpoint of the job, with all that follows from one (output is published, the one before is subsumed),
    /// and a copy of it, which is the caller's: nothing in it refers to anything outside, and the job never touches it
    /// again. (Flink's plain savepoint publishes nothing; here, whatever a savepoint holds was published when it is there.)
    ///
    /// # Errors
    ///
    /// [`SavepointError`]; the job goes on.
    pub fn savepoint(&self, folder: Option<&str>) -> Result<TakenSavepoint, SavepointError> {
        let folder = folder.or(self.savepoints.as_deref()).ok_or(SavepointError::NoFolder)?;
        let waiting = self.ask(Some(folder), false, Event::Savepoint)?;
        waiting.blocking_recv().unwrap_or(Err(SavepointError::Ended))?.ok_or(SavepointError::Ended)
    }

    /// Stops the job behind a savepoint, made as by [`Self::savepoint`], and waits until it has stopped.
    ///
    /// Sources read nothing behind it, its output is published, and the end of the job is recorded in the log. Starting
    /// below it later is refused unless asked for by name, see
    /// [`allow_rewind`](cutwater_coordinator::Settings::allow_rewind).
    ///
    /// # Errors
    ///
    /// [`SavepointError`]; the job goes on, or has ended otherwise, as [`Self::wait`] tells.
    pub fn stop_with_savepoint(&self, folder: Option<&str>, mode: StopMode) -> Result<TakenSavepoint, SavepointError> {
        let folder = folder.or(self.savepoints.as_deref()).ok_or(SavepointError::NoFolder)?;
        let stopped = self.stop(Some(folder), mode)?;
        stopped.ok_or(SavepointError::Ended)
    }

    /// Stops the job behind a checkpoint, with its output published, and waits until it has stopped. Without checkpoints
    /// it is refused: see [`Self::cancel`].
    ///
    /// # Errors
    ///
    /// As [`Self::stop_with_savepoint`].
    pub fn stop_with_checkpoint(&self, mode: StopMode) -> Result<(), SavepointError> {
        self.stop(None, mode).map(drop)
    }

    fn stop(&self, folder: Option<&str>, mode: StopMode) -> Result<Option<TakenSavepoint>, SavepointError> {
        let drain = mode == StopMode::Drain;
        let waiting = self.ask(folder, true, |answer| Event::Stop(answer, drain))?;
        waiting.blocking_recv().unwrap_or(Err(SavepointError::Ended))
    }

    fn ask(
        &self,
        folder: Option<&str>,
        stops: bool,
        event: impl FnOnce(Box<AnswerSavepoint>) -> Event,
    ) -> Result<SavepointReceiver, SavepointError> {
        let to = folder.map(|folder| savepoint::new_folder(&self.stores, folder, &self.job)).transpose()?;
        let (answer, answered) = oneshot::channel();
        let waiting = Box::new(AnswerSavepoint { to, stops, taken: None, answer });
        self.events.send(event(waiting)).map_err(|_| SavepointError::Ended)?;
        Ok(answered)
    }

    /// What the first signal does. Returns at once, and says on standard error if nothing comes of it.
    pub(crate) fn stop_in_order(self: Arc<Self>) {
        if !self.checkpoints {
            return self.cancel();
        }
        let stop = move || {
            let stopped = self.stop(self.savepoints.as_deref(), StopMode::Suspend);
            let job = &self.job;
            match stopped {
                Ok(_) | Err(SavepointError::Ended | SavepointError::Stopping) => {}
                Err(error) => {
                    eprintln!(
                        "job {job} could not be stopped in order ({}): a second signal cancels it",
                        chain(&error)
                    );
                }
            }
        };
        let thread = std::thread::Builder::new().name("cutwater-stop".to_owned());
        if let Err(error) = thread.spawn(stop) {
            tracing::error!("could not stop in order: {error}");
        }
    }

    /// Stops the job, without a further checkpoint. Returns at once; [`Self::wait`] tells when it is done.
    pub fn cancel(&self) {
        drop(self.events.send(Event::Cancel)); // a job that has ended needs no cancelling
    }

    /// Whether the job has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    ///
    /// [`JobError`] if it could not start, or failed and is not restarted any more.
    pub fn wait(&self) -> Result<JobOutcome, JobError> {
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let ended = thread.is_none_or(|thread| thread.join().is_ok());
        let result = self.result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match result {
            Some(result) if ended => result,
            _ => Err(JobError::Driver { job: self.job.clone() }),
        }
    }
}
