use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use cutwater_config::{BackendKind, CheckpointingMode, Resolved, RestartSettings};
use cutwater_coordinator::{AbortReason, CompletedCheckpoint, RestoreFrom, Settings};
use cutwater_core::MaxParallelism;
use cutwater_dataflow::JobGraph;
use cutwater_memory::MemoryBackend;
use cutwater_restart::{ExponentialDelay, Strategy};
use cutwater_state::StateBackend;
use cutwater_state::format::Compression;
use cutwater_storage::{MemoryStore, Store};
use cutwater_task::TaskSettings;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::driver::{Event, Shell};
use crate::error::JobError;
use crate::place::{OptionsError, job_folder, store_at};
use crate::restore::RestorePoint;
use crate::status::{JobStatus, Shared};

/// How a job is run. [`Options::new`] takes no checkpoints and does not restart; [`Options::from_config`] takes all
/// from a configuration.
#[derive(Clone)]
pub struct Options {
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
    /// Where checkpoints are kept, below a folder with the job's name. Unset: in memory, for as long as the process
    /// lives.
    pub store: Option<Arc<dyn Store>>,
    /// Where to start.
    pub from: StartFrom,
    /// What keeps state beside the table.
    pub backend: Arc<dyn StateBackend>,
    /// How snapshot files are compressed; not at all unless set.
    pub compression: Compression,
}

/// Where a job starts.
#[derive(Clone, Debug, Default)]
pub enum StartFrom {
    /// At the newest checkpoint of its own log, if there is one.
    #[default]
    Latest,
    /// From nothing. Refused while the log has a checkpoint, unless `checkpointing.allow_rewind` is set.
    Nothing,
    /// At a checkpoint of another folder, see [`open_checkpoint`](crate::open_checkpoint).
    Checkpoint(Box<CompletedCheckpoint>, Arc<dyn Store>),
}

impl Options {
    /// Neither checkpoints nor restarts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            parallelism: NonZeroU32::MIN,
            workers: None,
            max_parallelism: None,
            checkpointing: Settings { enabled: false, ..Settings::default() },
            task: TaskSettings::default(),
            restart: None,
            store: None,
            from: StartFrom::Latest,
            backend: Arc::new(MemoryBackend),
            compression: Compression::None,
        }
    }

    /// What the configuration says.
    ///
    /// # Errors
    ///
    /// If the checkpoint folder is of a kind that is not built.
    pub fn from_config(config: &Resolved) -> Result<Self, OptionsError> {
        let checkpointing = &config.checkpointing;
        let mut options = Self::new();
        options.parallelism = config.parallelism.unwrap_or(NonZeroU32::MIN);
        options.max_parallelism = config.max_parallelism;
        options.checkpointing = Settings {
            interval: checkpointing.interval,
            enabled: checkpointing.interval.is_some(),
            timeout: checkpointing.timeout,
            min_pause: checkpointing.min_pause,
            // Flink's "unlimited" is the largest number of its type.
            tolerable_failures: match checkpointing.tolerable_failures {
                0x7fff_ffff => u32::MAX,
                failures => failures,
            },
            num_retained: checkpointing.num_retained,
            checkpoints_after_tasks_finish: checkpointing.after_tasks_finish,
            allow_rewind: false,
        };
        options.task.mode = match checkpointing.mode {
            CheckpointingMode::ExactlyOnce => cutwater_barrier::Mode::ExactlyOnce,
            CheckpointingMode::AtLeastOnce => cutwater_barrier::Mode::AtLeastOnce,
        };
        options.task.checkpoints_after_tasks_finish = checkpointing.after_tasks_finish;
        options.restart = config.restart.as_ref().map(strategy);
        options.backend = match config.backend {
            BackendKind::Hashmap => Arc::new(MemoryBackend),
        };
        if let Some(folder) = &config.checkpoint_dir {
            options.store = Some(store_at(folder)?);
        }
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
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
    /// It was cancelled. The same command resumes from its newest checkpoint.
    Canceled,
}

/// Runs the job to its end.
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
/// assert_eq!(run(job.build()?, Options::new())?, JobOutcome::Finished);
/// assert_eq!(out.take().len(), 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(graph: JobGraph, options: Options) -> Result<JobOutcome, JobError> {
    spawn(graph, options)?.wait()
}

/// Starts the job on threads of its own and returns at once.
///
/// # Errors
///
/// [`JobError::Options`] if the options contradict each other; anything later is told by [`JobHandle::wait`].
pub fn spawn(graph: JobGraph, options: Options) -> Result<JobHandle, JobError> {
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
    let store = if options.checkpointing.enabled { options.store.clone() } else { None };
    let store = job_folder(store.unwrap_or_else(|| Arc::new(MemoryStore::new())), &job);
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_name("cutwater-io")
        .build()
        .map_err(|error| invalid(format!("could not start the I/O threads: {error}")))?;
    let (from, foreign) = match options.from.clone() {
        StartFrom::Latest => (RestoreFrom::Latest, None),
        StartFrom::Nothing => (RestoreFrom::Nothing, None),
        StartFrom::Checkpoint(checkpoint, store) => {
            let point = RestorePoint { checkpoint: (*checkpoint).clone(), store };
            (RestoreFrom::Foreign(checkpoint), Some(point))
        }
    };
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
    Ok(JobHandle { job, events, shared, thread: Mutex::new(Some(thread)), result })
}

/// A running job. Dropping the handle lets the job run on.
pub struct JobHandle {
    job: String,
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
        self.events.send(Event::Request(answer)).map_err(|_| AbortReason::Shutdown)?;
        answered.blocking_recv().unwrap_or(Err(AbortReason::Shutdown))
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
