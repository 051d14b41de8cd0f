/// A bit for each place of a shard. Beyond its end all are clear.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The first so many bits are set.
    pub(crate) fn all(places: usize) -> Self {
        let mut words = vec![u64::MAX; places.div_ceil(64)];
        if let Some(last) = words.last_mut().filter(|_| !places.is_multiple_of(64)) {
            *last = (1 << (places % 64)) - 1;
        }
        Self(words)
    }

    #[inline]
    pub(crate) fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    #[inline]
    pub(crate) fn clear(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    /// Sets a bit; true if it was clear.
    #[inline]
    pub(crate) fn set(&mut self, place: usize) -> bool {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        let word = &mut self.0[place / 64];
        let clear = *word >> (place % 64) & 1 == 0;
        *word |= 1 << (place % 64);
        clear
    }

    /// Sets all bits that the other has set.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// The first set bit at or after this place.
    #[inline]
    pub(crate) fn next(&self, place: usize) -> Option<usize> {
        let mut word = place / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (place % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// The bits from this place to the end of its word, from the lowest on.
    pub(crate) fn word_from(&self, place: usize) -> u64 {
        self.0.get(place / 64).map_or(0, |word| word >> (place % 64))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.capacity() * 8
    }
}
