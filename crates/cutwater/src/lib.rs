//! Cutwater: checkpoints and restart strategies for stateful stream processing, as a library.
//!
//! A program reads a replayable source, keeps state by key and writes results; Cutwater lets it survive `kill -9`,
//! panics and restarts with every record counted once. There is no server to run and nothing to install.
//!
//! ```
//! use std::time::Duration;
//! use cutwater::prelude::*;
//!
//! let job = Job::new("word-count");
//! let counts = Collect::<(String, u64)>::default();
//! job.source("lines", from_iter(["to be or not", "to be"]))
//!     .flat_map(|line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
//!     .key_by(|word| word.clone())
//!     .fold("counts", 0u64, |count, _word| *count += 1)
//!     .sink("out", counts.clone());
//!
//! // In memory here; `checkpoint_storage("checkpoints")` keeps them in a folder, and the same command resumes.
//! let settings = Settings::new().enable_checkpointing(Duration::from_secs(1));
//! let options = Options::from_config(&Config::new().code(settings).resolve()?)?;
//! cutwater::run(job.build()?, options)?;
//! assert!(counts.take().contains(&("to".to_owned(), 2)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - [`Job`] and its streams: sources, `map`, `filter`, `flat_map`, `key_by`, `process` with state and timers, `fold`,
//!   `fan_out`, `union`, `rebalance`, `broadcast`, `connect`, `connect_broadcast`, side outputs, [`Windows`], sinks. Of
//!   your own: [`Source`], [`Sink`], [`KeyedProcess`] and [`KeyedProcess2`] with [`States`] of every kind, each with a
//!   [`Ttl`] if wanted; without keys [`Process`] with [`OperatorStates`]; [`KeyedBroadcastProcess`] for a broadcast stream;
//!   [`testing`] runs one in a test.
//! - [`run`] and [`spawn`] with [`Options`]; [`JobHandle`] has status, checkpoints by hand, cancel. [`JobStatus`] tells what
//!   became of checkpoints and attempts; [`read_statistics`] when the job is gone.
//! - [`Config`]: Flink's keys from `cutwater.yaml`, `config.yaml` or `flink-conf.yaml`, from code ([`Settings`], with
//!   Flink's words) and environment.
//! - [`file`](mod@file): CSV, JSON and line sources, plain, zstd or gzip, one file or many, also while they grow,
//!   with exact positions; and a two-phase file sink.
//! - [`state`], [`storage`], [`coordinator`]: the layers below, for tools and backends.
//!
//! # What is guaranteed
//!
//! GUARANTEES.md in the repository numbers the promises, each with the fault model and the tests that check it.
//!
//! # Features
//!
//! Without any, memory keeps the state, a local folder or memory the checkpoints. Features add names and never change
//! behaviour.
//!
//! - `s3` (the same as `object-store`): checkpoints and savepoints on S3 and what speaks its protocol, `s3://bucket/folder`;
//!   the module `object_store`. `gcs` and `azure`: on Google's and Microsoft's too, `gs://` and `az://`.
//! - `rocksdb`: state larger than memory, `state.backend.type: rocksdb`; the module `rocksdb`.
//! - `simulation`: the module `simulation`, which runs a job of yours in worlds where everything fails, and judges its
//!   output.

pub mod prelude;

pub use cutwater_config::{
    CheckpointingMode, Config, ConfigError, ExternalizedCheckpointRetention, Resolved, Settings, discover,
};
pub use cutwater_coordinator::{AbortReason, CompletedCheckpoint};
pub use cutwater_core::{
    Attempt, CheckpointId, Epoch, KeyGroup, KeyGroupRange, KeyHash, MaxParallelism, Moment, OperatorUid, SubtaskId,
    TaskId, Timestamp,
};
pub use cutwater_dataflow::testing;
pub use cutwater_dataflow::{
    Aggregate, AggregatingAccess, AggregatingState, BroadcastState, Folding, LateCount, ListAccess, ListState,
    MapAccess, MapState, OperatorListState, OperatorState, OperatorStates, ReducingAccess, ReducingState, States,
    StatesError, Ttl, UnionListState, ValueAccess, ValueState, Window, Windowed, WindowedStream, Windows, folding,
};
pub use cutwater_dataflow::{
    BroadcastConnectedStreams, Collect, CommitContext, CommitOutcome, Committer, ConnectedStreams, Discard, FanOut,
    GraphError, IntoUnion, Job, JobGraph, KeyedBroadcastProcess, KeyedProcess, KeyedProcess2, KeyedStream,
    NonRecoverable, OutputTag, Prepared, Process, ProcessContext, ReadStatus, RecordContext, Sink, SinkContext,
    SinkWriter, Source, SourceOutput, SplitReader, Stream, Union, UserError, discard, from_iter, generator,
};
#[cfg(feature = "object-store")]
pub use cutwater_object_store as object_store;
pub use cutwater_restart::{ExponentialDelay, FailureSite, NoProgress, SourceRange, Strategy};
#[cfg(feature = "rocksdb")]
pub use cutwater_rocksdb as rocksdb;
pub use cutwater_runtime::{
    CheckpointCounts, CheckpointHistory, CheckpointKind, CheckpointStatistics, CheckpointStatisticsSummary,
    CheckpointStatus, CheckpointSummary, ClaimMode, CopyError, Distribution, Failure, FailureDecision, FailurePosition,
    FailureRecord, FellBack, HistorySizes, IgnoreUnclaimed, JobError, JobHandle, JobOutcome, JobRates, JobState,
    JobStatus, LocalRecovery, Metric, OnNoProgress, OpenCheckpointError, Options, OptionsError, Replayed, RestoreError,
    RestoreProgress, SavepointError, StartFrom, StatisticsError, StopMode, StoreResolver, StoredStatistics,
    SubtaskRates, SubtaskStatistics, SubtaskStatus, TakenSavepoint, UnclaimedState, copy_savepoint, delete_savepoint,
    open_checkpoint, read_savepoint, read_statistics, run, spawn, stop_on_signals, store_at,
};
#[cfg(feature = "simulation")]
pub use cutwater_simulation as simulation;
pub use cutwater_task::{DeltaLimits, TaskSettings};
pub use {
    cutwater_coordinator as coordinator, cutwater_file as file, cutwater_memory as memory, cutwater_state as state,
    cutwater_storage as storage,
};

/// Compiles the code of README.md.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Compiles and runs the code of docs/savepoints.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/savepoints.md")]
struct SavepointsPage;

/// Compiles and runs the code of docs/observability.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/observability.md")]
struct ObservabilityPage;

/// Compiles and runs the code of docs/coming-from-flink.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/coming-from-flink.md")]
struct FlinkPage;

/// Compiles and runs the code of docs/state.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/state.md")]
struct StatePage;

/// Compiles and runs the code of docs/time.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/time.md")]
struct TimePage;

/// Compiles and runs the code of docs/sinks.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sinks.md")]
struct SinksPage;

/// Compiles and runs the code of docs/restart.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/restart.md")]
struct RestartPage;

/// Compiles and runs the code of docs/simulation.md.
#[cfg(all(doctest, feature = "simulation"))]
#[doc = include_str!("../../../docs/simulation.md")]
struct SimulationPage;
