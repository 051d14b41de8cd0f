//! `cutwater simulate`: worlds of failures, from seeds, judged.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use cutwater_simulation::{Failure as SeedFailure, Mark, Marks, Mutant, Report as Seeds, Run, Simulation, Tape};
use serde::Serialize;

use crate::failure::{Exit, Failure, chain};
use crate::report::{print_plain, say};
use crate::text::wrap;

/// Arguments of `simulate`.
#[derive(Args)]
pub(crate) struct Simulate {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Only this one.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "tape"])]
    seed: Option<u64>,
    /// Print what happened, step by step; of a seed or a tape.
    #[arg(long)]
    trace: bool,
    /// Print a diagram of space and time; of a seed or a tape.
    #[arg(long)]
    diagram: bool,
    /// What runs: generated or flights
    ///
    /// generated: a job made from each seed, of up to four streams and three
    /// stages, at any parallelism
    /// flights:   the flights example, on some of its flights
    #[arg(long, value_enum, default_value_t = World::Generated, hide_possible_values = true, verbatim_doc_comment)]
    world: World,
    /// How many threads [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Run the seeds twice, and fail if the runs differ.
    #[arg(long)]
    twice: bool,
    /// Plant this error, or `all`, and fail if it is not found.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Run this tape, or all those in this folder.
    #[arg(long, value_name = "PATH")]
    tape: Option<PathBuf>,
    /// Make the first failing run small, and save it as a tape.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Fail if an interesting state was not reached.
    #[arg(long)]
    require_marks: bool,
    /// Print one JSON document; the units are in its keys.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum World {
    /// A job made from each seed: up to four streams, three stages, any parallelism.
    Generated,
    /// The flights example, on some of its flights.
    Flights,
}

/// The outcome of many seeds.
#[derive(Serialize)]
struct Outcome {
    schema: &'static str,
    seeds: u64,
    failures: Vec<Failed>,
    steps: u64,
    checkpoints: u64,
    seconds: f64,
    seeds_per_second_and_thread: f64,
    threads: usize,
    hash: String,
    marks_reached: usize,
    marks: BTreeMap<&'static str, u64>,
    marks_missing: Vec<&'static str>,
    steps_taken_and_died_at: BTreeMap<&'static str, (u64, u64)>,
    faults: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Failed {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tape: Option<String>,
    rule: String,
    detail: String,
}

/// A planted error, and where it was found.
#[derive(Serialize)]
struct Caught {
    mutant: &'static str,
    seed: Option<u64>,
    rule: Option<String>,
}

impl Simulate {
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let mutant = match self.mutant.as_deref() {
            Some("all") => return self.all_mutants(),
            Some(name) => Some(mutant(name)?),
            None => None,
        };
        let simulation = self.simulation()?.with_mutant(mutant);
        match (&self.tape, self.seed) {
            (Some(path), _) => self.tapes(&simulation, path),
            (None, Some(seed)) => {
                self.one(&simulation, simulation.run_seed(seed, self.traced()), &format!("seed {seed}"))
            }
            (None, None) => self.many(&simulation),
        }
    }

    fn simulation(&self) -> Result<Simulation, Failure> {
        match self.world {
            World::Generated => Ok(Simulation::generated()),
            World::Flights => cutwater_examples::flights::simulation()
                .map_err(|error| Failure::new(Exit::Failed, format!("could not simulate flights: {}", chain(&*error)))),
        }
    }

    fn traced(&self) -> bool {
        self.trace || self.diagram
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    fn many(&self, simulation: &Simulation) -> Result<Exit, Failure> {
        let range = self.from..self.from.saturating_add(self.seeds);
        let threads = self.threads();
        let (report, took) = timed(|| simulation.run_seeds(range.clone(), threads));
        let mut differs = false;
        if self.twice && report.failures.is_empty() {
            differs = simulation.run_seeds(range, threads).hash != report.hash;
        }
        let first = report.failures.first().cloned();
        let missing = !report.marks.missing().is_empty();
        self.print_many(&Outcome::of(report, took, threads))?;
        if differs {
            eprintln!("error: the same seeds did not do the same when they were run again");
        }
        if let Some(failure) = first {
            self.explain(simulation, failure)?;
            return Ok(Exit::Violated);
        }
        Ok(if differs || (self.require_marks && missing) { Exit::Violated } else { Exit::Ok })
    }

    fn print_many(&self, outcome: &Outcome) -> Result<(), Failure> {
        match self.json {
            true => print_json(outcome),
            false => say(&outcome.text()),
        }
    }

    /// Makes the failing run small and says how to have it again.
    fn explain(&self, simulation: &Simulation, failure: SeedFailure) -> Result<(), Failure> {
        if self.json && self.save.is_none() {
            return Ok(());
        }
        let small = simulation.shrink(simulation.run_tape(&failure.tape, false));
        if let Some(path) = &self.save {
            save(path, &small.tape)?;
            eprintln!("the run, made small: cutwater simulate --tape {} --trace", path.display());
        } else {
            let world = match self.world {
                World::Generated => "",
                World::Flights => " --world flights",
            };
            let mutant = self.mutant.as_ref().map_or_else(String::new, |name| format!(" --mutant {name}"));
            eprintln!("what happened: cutwater simulate{world}{mutant} --seed {} --diagram", failure.seed);
            eprintln!("the same, made small: with --save FILE");
        }
        Ok(())
    }

    /// One run, with all that is asked for.
    fn one(&self, simulation: &Simulation, run: Run, name: &str) -> Result<Exit, Failure> {
        let run = match (&self.save, &run.violation) {
            (Some(path), Some(_)) => {
                let small = simulation.shrink(run);
                save(path, &small.tape)?;
                simulation.run_tape(&small.tape, self.traced())
            }
            _ => run,
        };
        if let Some(trace) = &run.trace {
            if self.trace {
                say(&trace.list())?;
            }
            if self.diagram {
                say(&trace.diagram())?;
            }
        }
        let (steps, checkpoints, hash) = (run.steps, run.checkpoints, run.hash);
        say(&format!("{name}: {steps} steps, {checkpoints} checkpoints, hash {hash:016x}\n"))?;
        match run.violation {
            Some(violation) => {
                say(&wrap(&format!("{:?} is broken: ", violation.rule), &violation.detail))?;
                Ok(Exit::Violated)
            }
            None => Ok(Exit::Ok),
        }
    }

    fn tapes(&self, simulation: &Simulation, path: &Path) -> Result<Exit, Failure> {
        if path.is_file() {
            let tape = load(path)?;
            let run = simulation.run_tape(&tape, self.traced());
            return self.one(simulation, run, &path.display().to_string());
        }
        let unreadable = |error| Failure::new(Exit::NotFound, format!("can't read {}: {error}", path.display()));
        let mut paths = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            paths.push(entry.map_err(unreadable)?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let mut exit = Exit::Ok;
        for path in paths {
            let tape = load(&path)?;
            exit = exit.max(self.one(simulation, simulation.run_tape(&tape, false), &path.display().to_string())?);
        }
        Ok(exit)
    }

    fn all_mutants(&self) -> Result<Exit, Failure> {
        let mut found = Vec::new();
        for &mutant in Mutant::ALL {
            let simulation = self.simulation()?.with_mutant(Some(mutant));
            let range = self.from..self.from.saturating_add(self.seeds);
            let failure = simulation.first_failure(range, self.threads());
            let rule = failure.as_ref().map(|failure| format!("{:?}", failure.violation.rule));
            let caught = Caught { mutant: mutant.name(), seed: failure.map(|failure| failure.seed), rule };
            if !self.json {
                say(&match (&caught.seed, &caught.rule) {
                    (Some(seed), Some(rule)) => format!("{:<24} caught by {rule} at seed {seed}\n", caught.mutant),
                    _ => format!("{:<24} NOT CAUGHT by {} seeds\n", caught.mutant, self.seeds),
                })?;
            }
            found.push(caught);
        }
        let escaped = found.iter().filter(|caught| caught.seed.is_none()).count();
        if self.json {
            print_json(&found)?;
        } else {
            say(&format!("{} of {} planted errors are caught\n", found.len() - escaped, found.len()))?;
        }
        Ok(if escaped > 0 { Exit::Violated } else { Exit::Ok })
    }
}

impl Outcome {
    fn of(report: Seeds, took: Duration, threads: usize) -> Self {
        let Seeds { seeds, steps, checkpoints, hash, marks, failures } = report;
        let failures = failures.into_iter().map(|failure| Failed {
            seed: Some(failure.seed),
            tape: None,
            rule: format!("{:?}", failure.violation.rule),
            detail: failure.violation.detail,
        });
        let seconds = took.as_secs_f64();
        Self {
            schema: "cutwater.simulate/1",
            seeds,
            failures: failures.collect(),
            steps,
            checkpoints,
            seconds,
            seeds_per_second_and_thread: seeds as f64 / seconds.max(1e-9) / threads as f64,
            threads,
            hash: format!("{hash:016x}"),
            marks_reached: Mark::ALL.len() - marks.missing().len(),
            marks: Mark::ALL.iter().map(|mark| (mark.name(), marks.count(*mark))).collect(),
            marks_missing: marks.missing().into_iter().map(Mark::name).collect(),
            steps_taken_and_died_at: Marks::steps(&marks).clone(),
            faults: marks.faults().clone(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} seeds, {} steps, {} checkpoints, {} failed\n{:.1} s, {:.0} seeds a second and thread, hash {}\n{} of {} \
             marks reached\n",
            self.seeds,
            self.steps,
            self.checkpoints,
            self.failures.len(),
            self.seconds,
            self.seeds_per_second_and_thread,
            self.hash,
            self.marks_reached,
            Mark::ALL.len(),
        );
        for mark in &self.marks_missing {
            text += &format!("  not reached: {mark}\n");
        }
        let faults: Vec<String> = self.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        text += &wrap("faults: ", &faults.join(", "));
        text += "durable steps, how often taken and how often somebody died there:\n";
        for (step, (taken, died)) in &self.steps_taken_and_died_at {
            text += &format!("  {step:<26} {taken:>10} {died:>8}\n");
        }
        for failed in &self.failures {
            let seed = failed.seed.unwrap_or(0);
            text += &wrap(&format!("seed {seed}: {} is broken: ", failed.rule), &failed.detail);
        }
        text
    }
}

fn mutant(name: &str) -> Result<Mutant, Failure> {
    let names = || Mutant::ALL.iter().map(|mutant| mutant.name()).collect::<Vec<_>>().join(", ");
    let found = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
    found.ok_or_else(|| Failure::new(Exit::Usage, format!("there is no mutant {name:?}: all, or one of {}", names())))
}

fn load(path: &Path) -> Result<Tape, Failure> {
    let failed = |exit, reason: String| Failure::new(exit, format!("can't read {}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(Exit::NotFound, error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(Exit::Damaged, error.to_string()))
}

fn save(path: &Path, tape: &Tape) -> Result<(), Failure> {
    let failed = |reason: String| Failure::new(Exit::Failed, format!("could not write {}: {reason}", path.display()));
    let text = serde_json::to_string_pretty(tape).map_err(|error| failed(error.to_string()))?;
    fs::write(path, text + "\n").map_err(|error| failed(error.to_string()))
}

fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    print_plain(document, true, String::new)
}

#[expect(clippy::disallowed_methods, reason = "the worlds have clocks of their own; this is how long they take")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
