//! What kind of world a seed makes: the job, its settings, which faults there are and how often.

use std::num::NonZeroU32;
use std::time::Duration;

use cutwater_barrier::Mode;
use cutwater_coordinator::{ExternalizedCheckpointRetention, SavepointFormat, Settings};
use cutwater_restart::{ExponentialDelay, Strategy};
use cutwater_task::{DeltaLimits, TaskSettings};
use serde::{Deserialize, Serialize};

mod draw;

use crate::random::Random;
use draw::{draw_edges, draw_ending, draw_images, draw_tiers, scale};

/// A world as a seed draws it: everything but the decisions made while it runs. Small on purpose (queues of one batch,
/// timeouts of a few steps, one checkpoint retained), since errors live where limits are met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldConfig {
    /// The streams of the job, 1 to 4, each with a source of its own, and a sink if it is not joined with another. Not used by worlds of a given job.
    pub pipelines: Vec<Pipeline>,
    /// Whether the second stream goes into the first behind its source, and how: then it has no stages and no sink of its
    /// own. Worlds of before have none that are joined.
    #[serde(default)]
    pub joined: Option<Joined>,
    /// The parallelism of each start of a process, over and over.
    pub parallelism: Vec<u32>,
    /// How many key groups.
    pub max_parallelism: u16,
    /// Whether every other process is told another number, as by settings that have changed: a job that resumes keeps
    /// that of its checkpoint.
    #[serde(default)]
    pub other_key_groups: bool,
    /// Whether barriers are aligned; else at least once.
    pub exactly_once: bool,
    /// Whether checkpoints are in a modelled object store; else in a local folder over a modelled disk.
    pub object_store: bool,
    /// Whether snapshots hold only what has changed since the checkpoint that the barrier names.
    pub deltas: bool,
    /// Of each start of a process, over and over: whether there is a tier below the tables of its subtasks, and how many bytes
    /// then stay in memory of each table. Without any all state is in memory, as in worlds of before.
    #[serde(default)]
    pub tiers: Vec<Option<u64>>,
    /// If the tiers have files of their own form, how they use them. In worlds of before they have none.
    #[serde(default)]
    pub images: Option<Images>,
    /// Up to how many bytes the files of a subtask are held in the record instead of the store.
    #[serde(default)]
    pub held_bytes: usize,
    /// What may be under way on a channel: so many bytes, some 1 to 4 batches.
    pub window_bytes: u64,
    /// How many records a source reads at once at the most.
    pub read_records: usize,
    /// How much of a snapshot is swept in one quantum.
    pub sweep_step_bytes: usize,
    /// How much of a snapshot may wait to be written.
    pub unwritten_limit_bytes: u64,
    /// How much may be kept because it changed before it was swept.
    pub undo_limit_bytes: u64,
    /// From checkpoint to checkpoint, in microseconds.
    pub interval_us: u32,
    /// How long a checkpoint may take, in microseconds.
    pub timeout_us: u32,
    /// From the end of one to the start of the next, in microseconds.
    pub min_pause_us: u32,
    /// How many may be in flight.
    #[serde(default = "one")]
    pub max_concurrent: u32,
    /// How many failed checkpoints are borne; `u32::MAX` for any number.
    pub tolerable_failures: u32,
    /// How many completed checkpoints are kept.
    pub retained: u32,
    /// What becomes of them when the job ends. In worlds of before they are kept.
    #[serde(default)]
    pub retention: Retention,
    /// Whether the job goes back past a damaged checkpoint. In worlds of before it does not.
    #[serde(default)]
    pub fall_back: bool,
    /// By how many slots of the log a boundary moves.
    pub slots_per_boundary: u64,
    /// Whether and when the job restarts.
    pub restart: Restart,
    /// How the next event is chosen.
    pub search: Search,
    /// Faults, each as often as in 10,000 chances it has.
    pub rates: Rates,
    /// After so many steps the faults stop, and the job must come to its end.
    pub fault_steps: u32,
    /// Within so many steps more.
    pub healed_steps: u32,
}

fn one() -> u32 {
    1
}

/// How tiers use files of their own form. All processes have tiers then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// Of each start of a process, over and over: whether its checkpoints are of such files.
    pub checkpoints: Vec<bool>,
    /// Whether savepoints are.
    pub savepoints: bool,
    /// Into how many files the entries of a state go, each with a part of the key groups.
    pub files: u32,
    /// Up to how many bytes a file that does not last stands in the index.
    pub held_bytes: u64,
}

/// One stream of a generated job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Splits of the source.
    pub splits: u32,
    /// Records of each split.
    pub records: u32,
    /// Different keys.
    pub keys: u32,
    /// The most records in one read.
    pub chunk: u32,
    /// How much longer each split pauses after a read than the one before it, in microseconds.
    pub pause_us: u32,
    /// Whether some records are filtered out and some doubled before the first exchange.
    pub reshape: bool,
    /// What the keyed stages do, none to three.
    pub stages: Vec<StageKind>,
    /// The number of the first split, so that the splits of streams that are joined can be told apart.
    #[serde(default)]
    pub first_split: u32,
    /// Whether the stream fans out before its first exchange, and how its second branch goes to a sink.
    #[serde(default)]
    pub copied: Option<Copied>,
    /// Whether the first stage emits every fifth record of a key to a side output, which has a sink of its own.
    #[serde(default)]
    pub sided: bool,
}

/// How two streams of a generated job become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Joined {
    /// As one stream of one type.
    Union,
    /// In the first keyed stage, which counts the records of each.
    Connect,
}

/// How the second branch of a fan-out goes to its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copied {
    /// In the task of the source.
    Fused,
    /// To one subtask of another task after another.
    Rebalance,
    /// To all subtasks of another task.
    Broadcast,
}

/// What a keyed stage of a generated job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageKind {
    /// Numbers the records of each key.
    Number,
    /// Keeps a record of state for each key, forgets it now and then, and passes records on.
    Forget,
    /// Counts by key and day, and emits the count by a timer when the day is over. Always the last.
    Days,
}

/// A restart strategy, with times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// The first failure ends the process.
    None,
    /// The same delay each time.
    FixedDelay {
        /// How often.
        attempts: u32,
        /// How long.
        delay_us: u32,
    },
    /// While failures are rare.
    FailureRate {
        /// So many in each stretch of time.
        failures: u32,
        /// The stretch.
        interval_us: u32,
        /// From the failure to the restart.
        delay_us: u32,
    },
    /// Longer and longer.
    Exponential {
        /// The first delay.
        initial_us: u32,
        /// The longest.
        max_us: u32,
    },
}

/// What becomes of checkpoints when the job ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retention {
    /// They are kept.
    #[default]
    Retain,
    /// They are kept if it failed, or was stopped to go on later.
    DeleteOnCancellation,
    /// They are deleted.
    Never,
}

/// How the next event is chosen among those that are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Search {
    /// Each with the same chance.
    Walk,
    /// Whoever has the highest priority goes first; so often the one that would go loses its priority. Finds errors that
    /// need somebody to be very slow. Source: Burckhardt et al., "A randomized scheduler with probabilistic guarantees
    /// of finding bugs", ASPLOS 2010.
    Priorities {
        /// How many changes in 10,000 steps.
        changes: u16,
    },
}

macro_rules! rates {
    ($($(#[$doc:meta])* $name:ident: $typical:literal;)*) => {
        /// How often each fault strikes: of 10,000 chances that it has. 0 is never, or drawn elsewhere.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)] // a tape does not know what came after it
        pub struct Rates {
            $($(#[$doc])* pub $name: u16,)*
        }

        impl Rates {
            /// Each off with a chance of 40 %, so that single faults get deep schedules of their own; else around what is
            /// typical.
            fn draw(random: &mut Random) -> Self {
                Self {
                    $($name: if $typical == 0 || random.percent(40) { 0 } else { scale($typical, random) },)*
                }
            }
        }
    };
}

rates! {
    /// The process is killed, at any step of the world.
    kill: 12;
    /// The process is killed at a named step that changes the disk or the store.
    kill_at_step: 40;
    /// The machine loses power: all processes die, what was not synced may be lost, torn or zeroed.
    power_loss: 4;
    /// The same, at a named step.
    power_loss_at_step: 10;
    /// A subtask fails: user code panics.
    task_panic: 12;
    /// User code or a sink returns an error.
    user_error: 15;
    /// The process stands still for a while and wakes as if nothing had happened.
    pause: 10;
    /// Another process of the same job is started beside those that run.
    second_process: 10;
    /// A step of the disk fails.
    disk_error: 60;
    /// The store says no, and did nothing.
    store_fails: 150;
    /// The store did it, and its answer is lost.
    store_answer_lost: 150;
    /// The store's answer is lost, and the operation may take effect at any later time.
    store_late: 150;
    /// A read brings back something else than what was written.
    corrupt_read: 60;
    /// A listing lacks what is new, or has what is gone.
    stale_list: 3000;
    /// A message between coordinator and subtasks is lost.
    message_lost: 200;
    /// It comes twice.
    message_twice: 300;
    /// The store can't be reached for a while.
    store_outage: 5;
    /// Somebody asks for a checkpoint.
    request: 30;
    /// Somebody cancels the job.
    cancel: 3;
    /// Somebody asks for a savepoint.
    savepoint: 25;
    /// Somebody stops the job behind a savepoint, or behind a checkpoint alone.
    stop: 12;
    /// Somebody drains it: only where what is published does not depend on where the data ends.
    drain: 2;
    /// A process is started from a savepoint, of those in which any was made.
    from_savepoint: 3000;
    /// A file of the newest checkpoint is lost for good: only where the job may go back to one that is whole.
    file_lost: 20;
    /// A tier below the tables can't be read.
    tier_read: 0;
    /// It can't be written.
    tier_write: 0;
    /// Snapshots don't come into it for a while.
    tier_stall: 0;
    /// The store does not answer whoever restores a snapshot, in worlds with tiers.
    restore_fails: 0;
    /// A snapshot that is being stored does not get on for a while, and others do.
    upload_stall: 60;
}

impl WorldConfig {
    /// The world of this seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x6375_7477_6174_6572);
        let pipelines = match random.below(100) {
            0..70 => 1,
            70..92 => 2,
            92..97 => 3,
            _ => 4,
        };
        let records = random.between(4, 96 / pipelines);
        let most_stages = if pipelines > 2 { 1 } else { 3 };
        let parallelism = |random: &mut Random| random.one_of(&[1, 1, 2, 2, 2, 3, 4]);
        let exactly_once = random.percent(88);
        let deltas = random.percent(35);
        let mut pipelines: Vec<_> = (0..pipelines).map(|_| Pipeline::draw(random, records, most_stages)).collect();
        let (retention, fall_back) = draw_ending(&mut Random::new(seed ^ 0x656e_6469_6e67_0000));
        let joined = draw_edges(&mut Random::new(seed ^ 0x6564_6765_7300_0000), &mut pipelines, records);
        let drawn = Self {
            pipelines,
            joined,
            parallelism: (0..4).map(|_| parallelism(random)).collect(),
            max_parallelism: random.one_of(&[4, 7, 16]),
            other_key_groups: random.percent(15),
            exactly_once,
            object_store: random.percent(60),
            deltas,
            tiers: Vec::new(),
            images: None,
            // By dice of its own too.
            held_bytes: Random::new(seed ^ 0x6865_6c64_0000_0000).one_of(&[0, 0, 0, 0, 400, 1_000, 20_000]),
            window_bytes: random.one_of(&[1, 120, 240, 480]),
            read_records: 1_024,
            sweep_step_bytes: random.one_of(&[24, 64, 100_000]),
            unwritten_limit_bytes: random.one_of(&[48, 200, 1 << 20]),
            undo_limit_bytes: random.one_of(&[60, 1 << 20, 1 << 20, 1 << 20]),
            interval_us: random.between(1_000, 6_000),
            timeout_us: random.one_of(&[3_000, 20_000, 100_000]),
            min_pause_us: random.one_of(&[0, 0, 3_000]),
            // By dice of its own, so that all else is as it was before there could be several.
            max_concurrent: Random::new(seed ^ 0x666c_6967_6874_0000).one_of(&[1, 1, 1, 2, 3]),
            tolerable_failures: random.one_of(&[0, 1, 3, u32::MAX, u32::MAX]),
            retained: random.between(1, 3),
            retention,
            fall_back,
            slots_per_boundary: u64::from(random.one_of(&[2_u32, 3, 5, 1024])),
            restart: Restart::draw(random),
            search: if random.percent(75) {
                Search::Walk
            } else {
                Search::Priorities { changes: random.one_of(&[30, 100, 300]) }
            },
            rates: Rates::draw(random),
            fault_steps: random.one_of(&[150, 400, 800]),
            healed_steps: 20_000,
        };
        let drawn = draw_tiers(&mut Random::new(seed ^ 0x7469_6572_7300_0000), drawn);
        draw_images(&mut Random::new(seed ^ 0x696d_6167_6573_0000), drawn)
    }

    /// Whether checkpoints of the process of this number are files of its tiers.
    pub(crate) fn is_native(&self, process: u32) -> bool {
        let checkpoints = self.images.as_ref().map_or(&[][..], |images| &images.checkpoints);
        checkpoints.get(process as usize % checkpoints.len().max(1)).copied().unwrap_or(false)
    }

    /// How much of each table stays in memory, in the process of this number, if there is a tier below.
    pub(crate) fn overlay_of(&self, process: u32) -> Option<u64> {
        let tiers = if self.deltas { &[][..] } else { &self.tiers[..] };
        tiers.get(process as usize % tiers.len().max(1)).copied().flatten()
    }

    /// The world of this seed for a job that is given.
    #[must_use]
    pub fn draw_for_job(seed: u64) -> Self {
        let drawn = Self::draw(seed);
        let random = &mut Random::new(seed ^ 0x6a6f_6273);
        Self {
            pipelines: Vec::new(),
            joined: None,
            window_bytes: random.one_of(&[1, 2_000, 20_000]),
            read_records: random.one_of(&[1, 4, 20]),
            sweep_step_bytes: random.one_of(&[64, 500, 100_000]),
            unwritten_limit_bytes: random.one_of(&[200, 2_000, 1 << 20]),
            undo_limit_bytes: random.one_of(&[1_000, 1 << 20, 1 << 20, 1 << 20]),
            fault_steps: random.one_of(&[300, 1_000, 3_000]),
            healed_steps: 300_000,
            ..drawn
        }
    }

    /// Whether what is published up to some record stays the same if the data ends there.
    pub(crate) fn may_drain(&self) -> bool {
        let days = |pipeline: &Pipeline| pipeline.stages.contains(&StageKind::Days);
        !self.pipelines.is_empty() && !self.pipelines.iter().any(days)
    }

    /// How the first two streams are joined, if there are two, and stages that can do it.
    pub(crate) fn joined(&self) -> Option<Joined> {
        let [first, second, ..] = &self.pipelines[..] else { return None };
        let apart = second.first_split >= first.first_split + first.splits;
        let joined = self.joined.filter(|_| apart)?;
        Some(if first.stages.is_empty() { Joined::Union } else { joined })
    }

    /// What the coordinator is told.
    pub(crate) fn checkpointing(&self) -> Settings {
        Settings {
            interval: Some(micros(self.interval_us)),
            timeout: micros(self.timeout_us),
            min_pause: micros(self.min_pause_us),
            max_concurrent: NonZeroU32::new(self.max_concurrent).unwrap_or(NonZeroU32::MIN),
            tolerable_failures: self.tolerable_failures,
            num_retained: NonZeroU32::new(self.retained).unwrap_or(NonZeroU32::MIN),
            externalized_checkpoint_retention: match self.retention {
                Retention::Retain => ExternalizedCheckpointRetention::RetainOnCancellation,
                Retention::DeleteOnCancellation => ExternalizedCheckpointRetention::DeleteOnCancellation,
                Retention::Never => ExternalizedCheckpointRetention::NoExternalizedCheckpoints,
            },
            fall_back: self.fall_back,
            savepoints: match &self.images {
                Some(Images { savepoints: true, .. }) => SavepointFormat::Native,
                Some(_) | None => SavepointFormat::Canonical,
            },
            ..Settings::default()
        }
    }

    /// What subtasks are told.
    pub(crate) fn task(&self) -> TaskSettings {
        TaskSettings {
            mode: if self.exactly_once { Mode::ExactlyOnce } else { Mode::AtLeastOnce },
            window_bytes: self.window_bytes,
            read_records: self.read_records,
            flush_delay: Duration::from_micros(500),
            sweep_step_bytes: self.sweep_step_bytes,
            unwritten_limit_bytes: self.unwritten_limit_bytes,
            undo_limit_bytes: self.undo_limit_bytes,
            deltas: self.deltas.then_some(DeltaLimits { longest: 3, percent: 500 }),
            ..TaskSettings::default()
        }
    }
}

impl Restart {
    pub(crate) fn strategy(self) -> Strategy {
        match self {
            Self::None => Strategy::None,
            Self::FixedDelay { attempts, delay_us } => Strategy::FixedDelay { attempts, delay: micros(delay_us) },
            Self::FailureRate { failures, interval_us, delay_us } => Strategy::FailureRate {
                max_failures_per_interval: failures,
                interval: micros(interval_us),
                delay: micros(delay_us),
            },
            Self::Exponential { initial_us, max_us } => Strategy::ExponentialDelay(ExponentialDelay {
                initial_backoff: micros(initial_us),
                max_backoff: micros(max_us),
                reset_backoff_threshold: micros(max_us),
                ..ExponentialDelay::default()
            }),
        }
    }
}

fn micros(micros: u32) -> Duration {
    Duration::from_micros(micros.into())
}
