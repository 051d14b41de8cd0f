//! Makes a failing run small enough to be read.

use crate::config::{Pipeline, Search, StageKind, WorldConfig};
use crate::run::{Run, Simulation, Tape};
use crate::shared::Rule;

/// So many runs are tried at the most.
const MOST_RUNS: u32 = 6_000;
/// In a changed world the old decisions mean something else: so many seeds are tried for new ones.
const FRESH_SEEDS: u64 = 40;

struct Shrinker<'a> {
    simulation: &'a Simulation,
    rule: Rule,
    best: Run,
    runs: u32,
}

impl Simulation {
    /// The smallest run found that breaks the same rule as this one: fewer streams, records and subtasks, then fewer
    /// decisions other than the harmless ones. Takes seconds. A run that breaks no rule comes back as it is.
    #[must_use]
    pub fn shrink(&self, run: Run) -> Run {
        let Some(rule) = run.violation.as_ref().map(|violation| violation.rule) else { return run };
        let mut shrinker = Shrinker { simulation: self, rule, best: run, runs: 0 };
        shrinker.shrink_world();
        shrinker.shrink_tape();
        shrinker.best
    }
}

impl Shrinker<'_> {
    /// Takes the run if it breaks the rule.
    fn takes(&mut self, run: Run) -> bool {
        self.runs += 1;
        let same = run.violation.as_ref().is_some_and(|violation| violation.rule == self.rule);
        if same {
            self.best = run;
        }
        same
    }

    fn shrink_world(&mut self) {
        while self.runs < MOST_RUNS {
            let smaller = smaller_worlds(&self.best.tape.config);
            if !smaller.into_iter().any(|config| self.try_world(config)) {
                return;
            }
        }
    }

    fn try_world(&mut self, config: WorldConfig) -> bool {
        let Tape { decisions, mutant, .. } = self.best.tape.clone();
        let tape = Tape { config: config.clone(), decisions, mutant };
        let run = self.simulation.run_tape(&tape, false);
        if self.takes(run) {
            return true;
        }
        (0..FRESH_SEEDS).any(|seed| {
            let run = self.simulation.run_fresh(&config, mutant, seed);
            self.takes(run)
        })
    }

    fn try_tape(&mut self, decisions: Vec<u32>) -> bool {
        if self.runs >= MOST_RUNS {
            return false;
        }
        let Tape { config, mutant, .. } = self.best.tape.clone();
        let run = self.simulation.run_tape(&Tape { config, decisions: trimmed(decisions), mutant }, false);
        let taken = self.takes(run);
        if taken {
            let decisions = std::mem::take(&mut self.best.tape.decisions);
            self.best.tape.decisions = trimmed(decisions);
        }
        taken
    }

    /// Delta debugging: chunks are cut out or set to zero, from half of the tape down to single decisions.
    fn shrink_tape(&mut self) {
        let decisions = std::mem::take(&mut self.best.tape.decisions);
        self.best.tape.decisions = trimmed(decisions);
        let mut size = self.best.tape.decisions.len().div_ceil(2);
        while size >= 1 && self.runs < MOST_RUNS {
            let mut at = 0;
            let mut any = false;
            while at < self.best.tape.decisions.len() {
                let decisions = self.best.tape.decisions.clone();
                let end = (at + size).min(decisions.len());
                let mut cut = decisions.clone();
                cut.drain(at..end);
                if self.try_tape(cut) {
                    any = true;
                    continue;
                }
                if decisions[at..end].iter().any(|decision| *decision != 0) {
                    let mut calm = decisions;
                    calm[at..end].fill(0);
                    any |= self.try_tape(calm);
                }
                at += size;
            }
            if !any || size > 1 {
                if size == 1 {
                    break;
                }
                size = size.div_ceil(2);
            }
        }
    }
}

/// Without the zeros at the end, which are what is missing anyway.
fn trimmed(mut decisions: Vec<u32>) -> Vec<u32> {
    while decisions.last() == Some(&0) {
        decisions.pop();
    }
    decisions
}

/// Worlds that are smaller in one respect, the largest steps first.
fn smaller_worlds(config: &WorldConfig) -> Vec<WorldConfig> {
    let mut worlds = Vec::new();
    let mut world = |change: &dyn Fn(&mut WorldConfig)| {
        let mut smaller = config.clone();
        change(&mut smaller);
        if smaller != *config {
            worlds.push(smaller);
        }
    };
    for at in 0..config.pipelines.len() {
        if config.pipelines.len() > 1 {
            world(&|config| drop(config.pipelines.remove(at)));
        }
    }
    world(&|config| config.joined = None);
    world(&|config| config.parallelism = vec![1]);
    world(&|config| config.parallelism.iter_mut().for_each(|it| *it = (*it - 1).max(1)));
    world(&|config| config.deltas = false);
    world(&|config| (config.tiers, config.images) = (Vec::new(), None));
    world(&|config| config.images = None);
    world(&|config| config.max_concurrent = 1);
    world(&|config| config.search = Search::Walk);
    for at in 0..config.pipelines.len() {
        let pipeline = |change: &dyn Fn(&mut Pipeline)| {
            let mut smaller = config.clone();
            change(&mut smaller.pipelines[at]);
            smaller
        };
        let candidates = [
            pipeline(&|it| it.records = (it.records / 2).max(1)),
            pipeline(&|it| it.splits = 1),
            pipeline(&|it| it.keys = 1),
            pipeline(&|it| it.chunk = 1),
            pipeline(&|it| it.reshape = false),
            pipeline(&|it| it.copied = None),
            pipeline(&|it| it.sided = false),
            pipeline(&|it| it.stages.truncate(1)),
            pipeline(&|it| it.stages.retain(|stage| *stage != StageKind::Days)),
        ];
        worlds.extend(candidates.into_iter().filter(|smaller| smaller != config));
    }
    worlds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mutant;

    #[test]
    fn a_failing_run_becomes_a_short_tape_of_a_small_world() {
        let simulation = Simulation::generated().with_mutant(Some(Mutant::NoRecommit));
        let failure = simulation.first_failure(0..3_000, 1).expect("the mutant is found");
        let run = simulation.run_tape(&failure.tape, false);
        let before = run.tape.decisions.iter().filter(|decision| **decision != 0).count();
        let small = simulation.shrink(run);
        let after = small.tape.decisions.iter().filter(|decision| **decision != 0).count();
        assert_eq!(small.violation.as_ref().map(|violation| violation.rule), Some(failure.violation.rule));
        assert!(after * 4 < before, "{before} decisions became {after}");
        assert_eq!(small.tape.config.pipelines.len(), 1);
        let again = simulation.run_tape(&small.tape, true);
        assert_eq!(again.violation, small.violation);
        let trace = again.trace.expect("it was asked for");
        assert!(trace.list().lines().count() < 200, "{}", trace.list());
        assert!(trace.diagram().lines().next().is_some_and(|line| line.contains("process 1")));
    }
}
