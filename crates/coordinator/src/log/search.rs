/// No job writes as many objects.
const MOST: u64 = 1 << 48;

/// Finds how many objects of a gapless sequence exist by asking about single ones: gallops up, then bisects. Takes about
/// `2 * log2(count)` questions.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Search {
    present: u64,         // objects `0..present` exist
    missing: Option<u64>, // this one does not
}

impl Search {
    /// The object to ask about next; `None` when the count is known.
    pub(crate) fn probe(&self) -> Option<u64> {
        if self.present > MOST {
            return None; // the store claims to have everything: reading the last record will find out
        }
        match self.missing {
            None => Some((self.present * 2).saturating_sub(1)),
            Some(missing) if missing == self.present => None,
            Some(missing) => Some(self.present + (missing - self.present) / 2),
        }
    }

    /// The answer about the object last asked for.
    pub(crate) fn answer(&mut self, index: u64, exists: bool) {
        if exists {
            self.present = self.present.max(index + 1);
        } else {
            self.missing = Some(index);
        }
    }

    /// How many there are, once `probe` is `None`.
    pub(crate) fn count(&self) -> u64 {
        self.present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_claims_to_have_everything_is_not_asked_for_ever() {
        let mut search = Search::default();
        for _ in 0..60 {
            let Some(index) = search.probe() else { return };
            search.answer(index, true);
        }
        panic!("still asking");
    }

    #[test]
    fn every_count_is_found_with_few_questions() {
        for count in (0..300).chain([1000, 1023, 1024, 1025, 1_000_000]) {
            let (mut search, mut questions) = (Search::default(), 0);
            while let Some(index) = search.probe() {
                search.answer(index, index < count);
                questions += 1;
            }
            assert_eq!(search.count(), count);
            assert!(questions <= 2 * (count + 2).ilog2() + 2, "{questions} questions for {count}");
        }
    }
}
