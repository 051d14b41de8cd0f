//! One seed runs a world and judges it: jobs, stores, disks and crashes, on the very cores that run in production.
//!
//! A world is a clock, one or more processes of the same job, the channels and messages between their subtasks, a store
//! of checkpoints and a disk. It drives [`TaskCore`](cutwater_task::TaskCore)s with typed operators, the
//! [`Driver`](cutwater_driver::Driver) with its coordinator, commit log and restart strategy, the real two-phase file sink
//! and the real snapshot format. The seed decides what happens next and what fails; an oracle watches from outside.
//!
//! ```
//! use cutwater_simulation::Simulation;
//!
//! let simulation = Simulation::generated();
//! let report = simulation.run_seeds(0..50, 1);
//! assert!(report.failures.is_empty(), "{:?}", report.failures);
//! assert_eq!(report.hash, simulation.run_seeds(0..50, 2).hash, "the same seeds do the same");
//!
//! // What happened in one of them, step by step.
//! let run = simulation.run_seed(7, true);
//! assert!(run.trace.unwrap().list().contains("is complete"));
//! ```
//!
//! # A job of your own
//!
//! [`Simulation::of_job`] takes the graph that the runtime takes. Its sinks write to the modelled disk of [`Env`], its
//! sources must be replayable, and its output must not depend on the order of records of different keys. The lines that
//! it publishes in each world are compared with those of a run without faults.
//!
//! ```
//! use cutwater_dataflow::{Job, from_iter};
//! use cutwater_file::lines_sink;
//! use cutwater_simulation::{Env, Simulation};
//!
//! let counts = |env: &Env| {
//!     let job = Job::new("counts");
//!     job.source("numbers", from_iter(0u64..60))
//!         .key_by(|n| n % 7)
//!         .fold("counts", 0u64, |count, _| *count += 1)
//!         .map(|(key, count)| format!("{key},{count}"))
//!         .sink("out", lines_sink::<String>(env.out()).create_folder().files(env.files()));
//!     Ok(job.build()?)
//! };
//! let report = Simulation::of_job(counts)?.run_seeds(0..20, 1);
//! assert!(report.failures.is_empty(), "{:?}", report.failures);
//! # Ok::<(), cutwater_simulation::SimulationError>(())
//! ```
//!
//! # The parts
//!
//! - [`Simulation`], [`Report`], [`Run`], [`Failure`]: many seeds, or one.
//! - [`WorldConfig`] with [`Rates`]: what a seed draws. Each kind of fault is off with a chance of 40 %.
//! - [`Rule`] and [`Violation`]: what must hold, and what was seen instead.
//! - [`Tape`]: a run as its decisions. [`Simulation::shrink`] makes a failing one small; those of errors that were found
//!   stay in `testdata/`. [`Trace`]: the run for people.
//! - [`Mark`] and [`Marks`]: interesting states, so that "no failure" does not mean "nothing happened".
//! - [`Mutant`]: 69 errors planted at the seam between cores and world, to see that the oracle finds them.
//! - [`exhaustive`]: every run of the commit log in small worlds, breadth first.
//!
//! # What is modelled, and what is not
//!
//! Processes are killed, sleep and wake as zombies, are started twice; machines lose power, and with it unsynced bytes,
//! entries of folders and removals; disks and stores fail, answer late or not at all, and bring back damaged bytes; the
//! messages between driver and subtasks come in any order, twice, or not at all. What must arrive there (the end of data,
//! a failure) does arrive, in any order. Channels keep their order. What a snapshot
//! holds together with those that it builds on is read by the format's description, and compared with what must be there.
//! Below the tables of some worlds lie tiers, models that fail: a snapshot goes there block by block, and from there into its
//! file, or into files of the tier's own form that later checkpoints share.
//!
//! Not modelled: threads (a core runs whole quanta), the time that user code takes, several processes for one attempt.

mod choices;
mod config;
mod contents;
mod disk;
pub mod exhaustive;
mod generated;
mod given;
mod image;
mod job;
mod marks;
mod mutant;
mod native;
mod oracle;
mod packed;
mod process;
mod random;
mod run;
mod shared;
mod shrink;
mod store;
mod tier;
mod trace;
mod world;

pub use config::{Copied, Images, Joined, Pipeline, Rates, Restart, Search, StageKind, WorldConfig};
pub use given::Env;
pub use marks::{Mark, Marks};
pub use mutant::Mutant;
pub use run::{Failure, Report, Run, Simulation, SimulationError, Tape};
pub use shared::{Rule, Violation};
pub use trace::Trace;
