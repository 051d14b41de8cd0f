//! Runs worlds: one, or many.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cutwater_dataflow::{JobGraph, UserError};
use serde::{Deserialize, Serialize};

use crate::choices::Choices;
use crate::config::{Rates, Search, WorldConfig};
use crate::given::{Env, Given, Observed};
use crate::marks::Marks;
use crate::mutant::Mutant;
use crate::packed;
use crate::shared::Violation;
use crate::trace::Trace;
use crate::world::{Generated, Subject, World};

/// What it takes to have a run again: the world and every decision made in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tape {
    /// The world.
    pub config: WorldConfig,
    /// The decisions, in their order. 0 is harmless, and so is what is missing at the end.
    #[serde(with = "packed")]
    pub decisions: Vec<u32>,
    /// The error that was planted, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<Mutant>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// What was reached.
    pub marks: Marks,
    /// How many events there were.
    pub steps: u32,
    /// How many checkpoints completed.
    pub checkpoints: u64,
    /// All decisions and messages, as a number: two runs of one seed have the same.
    pub hash: u64,
    /// How to have it again.
    pub tape: Tape,
    /// What happened, if it was asked for.
    pub trace: Option<Trace>,
}

/// A job to be simulated: generated ones, another for each seed, or one of your own.
///
/// ```
/// use cutwater_simulation::Simulation;
///
/// let report = Simulation::generated().run_seeds(0..20, 1);
/// assert!(report.failures.is_empty(), "{:?}", report.failures);
/// ```
pub struct Simulation {
    job: Option<Given>,
    mutant: Option<Mutant>,
}

/// Why a job can't be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// It can't be built.
    #[error("the job can't be built")]
    Graph {
        /// Why.
        source: UserError,
    },
    /// It does not even work when nothing fails.
    #[error("without any fault the job breaks the rule {:?}: {}", .violation.rule, .violation.detail)]
    Undisturbed {
        /// What was seen.
        violation: Violation,
    },
    /// There would be nothing to compare.
    #[error("without any fault the job writes no line: give its file sinks `env.out()` and `env.files()`")]
    NoOutput,
}

/// One seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken.
    pub violation: Violation,
    /// How to have it again.
    pub tape: Tape,
}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were run.
    pub seeds: u64,
    /// Events in all.
    pub steps: u64,
    /// Checkpoints completed in all.
    pub checkpoints: u64,
    /// The hashes of all runs together, whatever the order in which they were run.
    pub hash: u64,
    /// What was reached.
    pub marks: Marks,
    /// The seeds that failed, lowest first; at most [`Report::MOST_FAILURES`].
    pub failures: Vec<Failure>,
}

impl Report {
    /// So many failures are kept; then no further seed is begun.
    pub const MOST_FAILURES: usize = 20;

    fn add(&mut self, seed: u64, run: Run) {
        self.seeds += 1;
        self.steps += u64::from(run.steps);
        self.checkpoints += run.checkpoints;
        self.hash = self.hash.wrapping_add(run.hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.marks.add(&run.marks);
        if let Some(violation) = run.violation {
            self.failures.push(Failure { seed, violation, tape: run.tape });
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.checkpoints += other.checkpoints;
        self.hash = self.hash.wrapping_add(other.hash);
        self.marks.add(&other.marks);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
    }
}

/// So many seeds are begun at once by one thread.
const CHUNK: u64 = 16;

impl Simulation {
    /// Jobs that are made from the seed.
    #[must_use]
    pub fn generated() -> Self {
        Self { job: None, mutant: None }
    }

    /// A job of your own. `make` is called for each process of each world; it must make the same job each time, with
    /// sinks that write below [`Env::out`] through [`Env::files`], and replayable sources.
    ///
    /// The job is run once without any fault, to learn which lines it writes: in each world the published lines must be
    /// these, each as often. So they must not depend on the order in which records of different keys come. In worlds
    /// that are only at-least-once the lines are not compared.
    ///
    /// # Errors
    ///
    /// [`SimulationError`] if the job can't be built, or does not even work without faults.
    pub fn of_job(
        make: impl Fn(&Env) -> Result<JobGraph, UserError> + Send + Sync + Clone + 'static,
    ) -> Result<Self, SimulationError> {
        let lines = Arc::new(Mutex::new(BTreeMap::new()));
        let observed = Observed { make: Box::new(make.clone()), lines: Arc::clone(&lines) };
        let drawn = WorldConfig::draw_for_job(0);
        let calm = WorldConfig {
            parallelism: vec![2],
            exactly_once: true,
            object_store: true,
            tiers: Vec::new(),
            images: None,
            window_bytes: 100_000,
            read_records: 100,
            timeout_us: 1_000_000,
            undo_limit_bytes: 1 << 30,
            search: Search::Walk,
            rates: Rates::default(),
            fault_steps: 0,
            ..drawn
        };
        let outcome = World::new(&calm, &observed, None, Choices::from_seed(0), false).run();
        if let Some(violation) = outcome.violation {
            return Err(SimulationError::Undisturbed { violation });
        }
        let expected = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
        if expected.is_empty() {
            return Err(SimulationError::NoOutput);
        }
        Ok(Self { job: Some(Given { make: Box::new(make), expected }), mutant: None })
    }

    /// Plants an error, to see that it is found.
    #[must_use]
    pub fn with_mutant(mut self, mutant: Option<Mutant>) -> Self {
        self.mutant = mutant;
        self
    }

    /// The world of a seed.
    #[must_use]
    pub fn config(&self, seed: u64) -> WorldConfig {
        match &self.job {
            None => WorldConfig::draw(seed),
            Some(_) => WorldConfig::draw_for_job(seed),
        }
    }

    /// Runs one seed.
    #[must_use]
    pub fn run_seed(&self, seed: u64, traced: bool) -> Run {
        self.run(&self.config(seed), self.mutant, Choices::from_seed(seed), traced)
    }

    /// Runs a tape. Without a trace it is the same as with one.
    #[must_use]
    pub fn run_tape(&self, tape: &Tape, traced: bool) -> Run {
        self.run(&tape.config, tape.mutant, Choices::from_tape(tape.decisions.clone()), traced)
    }

    /// Runs a world with decisions drawn anew.
    pub(crate) fn run_fresh(&self, config: &WorldConfig, mutant: Option<Mutant>, seed: u64) -> Run {
        self.run(config, mutant, Choices::from_seed(seed), false)
    }

    fn run(&self, config: &WorldConfig, mutant: Option<Mutant>, choices: Choices, traced: bool) -> Run {
        let generated = Generated(config.clone());
        let subject: &dyn Subject = match &self.job {
            None => &generated,
            Some(given) => given,
        };
        let outcome = World::new(config, subject, mutant, choices, traced).run();
        Run {
            violation: outcome.violation,
            marks: outcome.marks,
            steps: outcome.steps,
            checkpoints: outcome.checkpoints,
            hash: outcome.hash,
            tape: Tape { config: config.clone(), decisions: outcome.tape, mutant },
            trace: outcome.trace,
        }
    }

    /// Runs many seeds on so many threads. Stops early when too many have failed.
    #[must_use]
    pub fn run_seeds(&self, seeds: Range<u64>, threads: usize) -> Report {
        self.run_until(seeds, threads, Report::MOST_FAILURES)
    }

    /// The lowest seed of the range that fails, if one does; the same whatever the number of threads.
    #[must_use]
    pub fn first_failure(&self, seeds: Range<u64>, threads: usize) -> Option<Failure> {
        self.run_until(seeds, threads, 1).failures.into_iter().next()
    }

    fn run_until(&self, seeds: Range<u64>, threads: usize, most_failures: usize) -> Report {
        let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
        let all = Mutex::new(Report::default());
        let work = || {
            let mut own = Report::default();
            while !stop.load(Ordering::Relaxed) {
                let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                if first >= seeds.end {
                    break;
                }
                // A chunk is run to its end, so that the lowest failure does not depend on who was faster.
                for seed in first..(first + CHUNK).min(seeds.end) {
                    own.add(seed, self.run_seed(seed, false));
                }
                if own.failures.len() >= most_failures {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut report = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.failures.truncate(Report::MOST_FAILURES);
        report
    }
}
