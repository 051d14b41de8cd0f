//! The decisions of one run: drawn from a seed, or read from a tape; either way written down.

use crate::random::Random;

/// Where decisions come from.
#[derive(Clone, Debug)]
enum Source {
    Seed(Random),
    Tape { decisions: Vec<u32>, next: usize },
}

/// Every decision of a run goes through here, so that a run is its list of decisions and can be had again.
///
/// A decision is a number below some bound, and 0 always means the harmless option: no fault, the first of what is
/// possible. So a tape with entries missing or set to zero is a calmer run, which is what shrinking makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    source: Source,
    tape: Vec<u32>,
    hash: u64,
    /// Whether faults may be chosen at all.
    pub(crate) faults: bool,
}

impl Choices {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self::new(Source::Seed(Random::new(seed)))
    }

    pub(crate) fn from_tape(decisions: Vec<u32>) -> Self {
        Self::new(Source::Tape { decisions, next: 0 })
    }

    fn new(source: Source) -> Self {
        Self { source, tape: Vec::new(), hash: 0xcbf2_9ce4_8422_2325, faults: true }
    }

    /// What was decided so far.
    pub(crate) fn into_tape(self) -> Vec<u32> {
        self.tape
    }

    /// All decisions and everything noted so far, as a number.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Adds something that happened to the hash.
    pub(crate) fn note(&mut self, what: u64) {
        self.hash = (self.hash ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// A number in `0..n`; `n` is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u32;
        if n <= 1 {
            return 0;
        }
        self.decide(|random| random.below(n), n) as usize
    }

    /// Whether a fault of this rate (per 10,000) strikes.
    pub(crate) fn strikes(&mut self, rate: u16) -> bool {
        self.fault(&[rate]) != 0
    }

    /// Which of several faults strikes, counted from 1; 0 is none. Rates are per 10,000 and exclude each other.
    pub(crate) fn fault(&mut self, rates: &[u16]) -> usize {
        if !self.faults || rates.iter().all(|rate| *rate == 0) {
            return 0;
        }
        let draw = |random: &mut Random| {
            let mut roll = random.below(10_000);
            for (at, rate) in (1..).zip(rates) {
                match roll.checked_sub(u32::from(*rate)) {
                    None => return at,
                    Some(rest) => roll = rest,
                }
            }
            0
        };
        let chosen = self.decide(draw, rates.len() as u32 + 1) as usize;
        // A tape that was changed may name a fault which this world has not.
        if chosen > 0 && rates[chosen - 1] == 0 { 0 } else { chosen }
    }

    fn decide(&mut self, draw: impl FnOnce(&mut Random) -> u32, n: u32) -> u32 {
        let chosen = match &mut self.source {
            Source::Seed(random) => draw(random),
            Source::Tape { decisions, next } => {
                let chosen = decisions.get(*next).map_or(0, |decision| decision % n);
                *next += 1;
                chosen
            }
        };
        self.tape.push(chosen);
        self.note(u64::from(chosen) + 1);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(choices: &mut Choices) -> Vec<usize> {
        (0..100).map(|at| if at % 3 == 0 { choices.fault(&[500, 0, 9_000]) } else { choices.below(at) }).collect()
    }

    #[test]
    fn a_tape_repeats_what_a_seed_has_decided() {
        let mut drawn = Choices::from_seed(7);
        let first = some(&mut drawn);
        let hash = drawn.hash();
        let mut replayed = Choices::from_tape(drawn.into_tape());
        assert_eq!((some(&mut replayed), replayed.hash()), (first, hash));
    }

    #[test]
    fn what_a_tape_lacks_is_the_harmless_option() {
        assert!(some(&mut Choices::from_tape(Vec::new())).iter().all(|decision| *decision == 0));
    }

    #[test]
    fn a_fault_that_the_world_has_not_is_not_chosen() {
        let mut choices = Choices::from_tape(vec![2, 1, 7]);
        assert_eq!(choices.fault(&[10, 0]), 0, "the second has no rate");
        assert_eq!(choices.fault(&[10, 0]), 1);
        choices.faults = false;
        assert_eq!(choices.fault(&[10, 0]), 0, "no faults any more");
    }
}
