/// `SplitMix64`: eight bytes of state, enough for jitter. Not for secrets.
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `-1.0..1.0`.
    pub(crate) fn signed_unit(&mut self) -> f64 {
        // The upper 53 bits: as many as a double can hold without rounding.
        let upper = self.next() >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = upper as f64 / (1_u64 << 53) as f64;
        unit.mul_add(2.0, -1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut rng = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn units_fill_the_range_evenly() {
        let mut rng = SplitMix64::new(7);
        let drawn: Vec<f64> = (0..10_000).map(|_| rng.signed_unit()).collect();
        assert!(drawn.iter().all(|unit| (-1.0..1.0).contains(unit)));
        for quarter in 0..4 {
            let low = f64::from(quarter).mul_add(0.5, -1.0);
            let hits = drawn.iter().filter(|unit| (low..low + 0.5).contains(*unit)).count();
            assert!((2_300..2_700).contains(&hits), "{hits} of 10000 from {low} on");
        }
    }
}
