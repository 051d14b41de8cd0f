//! The tier below the tables of a subtask: a model that fails now and then, and that is watched for marks.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{
    Block, ColdBatch, ColdError, ColdFound, ColdState, ColdTier, ColdView, ColdVisitor, ImageSource, ModelTier,
    StateError, StateHeader, apply_block, blocks_of_view,
};

use crate::config::Rates;
use crate::image::{Numbers, ReadImage, TierImage};
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::shared::Handle;

/// See the module. As a [`ColdTier`] it is what the subtask sees of it; snapshots come into it by [`Tier::apply`].
pub(crate) struct Tier {
    model: ModelTier,
    shared: Handle,
    mutant: Option<Mutant>,
    seen: Mutex<Seen>,
    numbers: Mutex<Numbers>,
}

/// A name of an entry, and of which state.
type Name = (ColdState, Vec<u8>);

/// For marks.
#[derive(Default)]
struct Seen {
    /// Whether all that is to be restored has been.
    running: bool,
    /// Names that were removed and have not come again.
    removed: BTreeSet<Name>,
    /// The same of the tier of the last attempt before that ran.
    removed_before: BTreeSet<Name>,
    /// How often the subtask has written to it while it ran.
    written: u64,
    /// How what it had when it began came into it.
    filled: Option<Filled>,
}

/// How a tier was filled by a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Entry by entry.
    Blocks,
    /// It has taken images over.
    Image,
}

impl Tier {
    /// An empty one, in place of the one before.
    pub(crate) fn new(shared: &Handle, mutant: Option<Mutant>, groups_in_file: u16, before: Option<&Self>) -> Self {
        let removed_before = before.map(|before| {
            let mut seen = before.seen();
            let seen = &mut *seen;
            std::mem::take(if seen.running { &mut seen.removed } else { &mut seen.removed_before })
        });
        let removed_before = removed_before.unwrap_or_default();
        let seen = Mutex::new(Seen { removed_before, ..Seen::default() });
        let model = ModelTier::with_groups_in_file(groups_in_file);
        Self { model, shared: shared.clone(), mutant, seen, numbers: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is to be restored has been: its subtask runs. Whether anything has come into it.
    pub(crate) fn begin(&self) -> bool {
        let mut seen = self.seen();
        seen.running = true;
        let filled = !self.model.is_empty();
        if filled {
            seen.filled.get_or_insert(Filled::Blocks);
        }
        filled
    }

    /// How it was filled, if anything has come into it before it ran.
    pub(crate) fn was_filled(&self) -> Option<Filled> {
        self.seen().filled
    }

    /// How often its subtask has written to it.
    pub(crate) fn written(&self) -> u64 {
        self.seen().written
    }

    /// Puts a block of a snapshot into it. If it `fails`, any part of the block is there.
    pub(crate) fn apply(
        &self,
        state: ColdState,
        header: &StateHeader,
        block: &Block,
        fails: bool,
    ) -> Result<(), StateError> {
        apply_block(&OfSnapshot { tier: self, fails }, state, header, block, &mut ColdBatch::default())
    }

    /// It as it is now.
    pub(crate) fn view_now(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.model.view()
    }

    /// It as it is now, as files.
    pub(crate) fn image_now(&self) -> Result<TierImage, ColdError> {
        let failed = |reason: String| ColdError { action: "make an image".into(), reason: reason.into() };
        let image = self.model.image()?.ok_or_else(|| failed("the model has none".to_owned()))?;
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.name(&*image).map_err(|error| failed(error.to_string()))
    }

    /// Takes over what these images have of the key groups. Whether it goes on from the first.
    pub(crate) fn take_over(&self, images: &[ReadImage], groups: KeyGroupRange) -> Result<bool, ColdError> {
        let opened: Vec<_> = images.iter().map(ReadImage::open).collect();
        let sources: Vec<_> = opened.iter().map(|(model, _)| model as &dyn ImageSource).collect();
        let goes_on = self.model.import(&sources, groups)? == Some(0);
        self.watch_import()?;
        for (at, (_, numbers)) in opened.into_iter().enumerate() {
            let found = numbers?;
            if goes_on && at == 0 {
                *self.numbers.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
        }
        Ok(goes_on)
    }

    fn watch_import(&self) -> Result<(), ColdError> {
        let mut seen = self.seen();
        seen.filled = Some(Filled::Image);
        for (state, name) in std::mem::take(&mut seen.removed_before) {
            self.model.get(state, &[&name], &mut |_, _| self.shared.hit(Mark::TierRestoredRemoved))?;
        }
        Ok(())
    }

    /// Whether a fault of this rate strikes.
    fn strikes(&self, fault: &'static str, rate: impl Fn(&Rates) -> u16) -> bool {
        let mut shared = self.shared.lock();
        let rate = rate(&shared.rates);
        let strikes = shared.choices.strikes(rate);
        if strikes {
            shared.marks.fault(fault);
        }
        strikes
    }

    /// Whether a block of a snapshot can't be written, or of what is restored: more often than what goes to make room, since there
    /// are far fewer of them.
    pub(crate) fn apply_fails(&self) -> bool {
        self.strikes("tier_write", |rates| rates.tier_write.saturating_mul(30))
    }

    /// Whether it can't be read.
    pub(crate) fn read_fails(&self) -> bool {
        self.strikes("tier_read", |rates| rates.tier_read)
    }

    /// Whether there can be no image of it.
    pub(crate) fn image_fails(&self) -> bool {
        self.strikes("tier_read", |rates| rates.tier_read.saturating_mul(10))
    }

    /// Writes the batch, or a part of it that is left to chance.
    fn put(&self, state: ColdState, batch: &ColdBatch, fails: bool) -> Result<(), ColdError> {
        let written = match fails {
            true => self.shared.lock().choices.below(batch.len() + 1),
            false => batch.len(),
        };
        let mut part = ColdBatch::default();
        for (name, value) in batch.iter().take(written) {
            match value {
                Some(value) => part.put(name, value),
                None => part.delete(name),
            }
            self.watch(state, name, value.is_some())?;
        }
        self.shared.lock().choices.note(part.bytes() as u64);
        self.model.write(state, &part)?;
        if fails { Err(refused("write", batch.len())) } else { Ok(()) }
    }

    fn watch(&self, state: ColdState, name: &[u8], there: bool) -> Result<(), ColdError> {
        let mut seen = self.seen();
        let id = (state, name.to_vec());
        if there {
            if seen.removed.remove(&id) {
                self.shared.hit(Mark::TierCameBack);
            }
            if !seen.running && seen.removed_before.remove(&id) {
                self.shared.hit(Mark::TierRestoredRemoved);
            }
            return Ok(());
        }
        let mut had = false;
        self.model.get(state, &[name], &mut |_, _| had = true)?;
        if had {
            seen.removed.insert(id);
            self.shared.hit(Mark::TierRemoved);
        }
        Ok(())
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("model", &self.model).finish_non_exhaustive()
    }
}

impl ColdTier for Tier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.model.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        if self.read_fails() {
            self.shared.hit(Mark::TierReadFailed);
            return Err(refused("read", names.len()));
        }
        let mut count = 0;
        self.model.get(state, names, &mut |at, value| {
            count += 1;
            found(at, value);
        })?;
        if count > 0 {
            self.shared.hit(Mark::TierFetched);
        }
        self.shared.lock().choices.note(count);
        Ok(())
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        if self.read_fails() {
            self.shared.hit(Mark::TierReadFailed);
            return Err(refused("read all entries of", prefixes.len()));
        }
        let mut count = 0;
        self.model.get_all(state, prefixes, &mut |at, name, value| {
            count += 1;
            found(at, name, value);
        })?;
        if count > 0 {
            self.shared.hit(Mark::TierFetched);
        }
        self.shared.lock().choices.note(count);
        Ok(())
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        if self.read_fails() {
            self.shared.hit(Mark::TierReadFailed);
            return Err(refused("read", 1));
        }
        let mut count = 0;
        self.model.range(state, from, last, &mut |name, value| {
            count += 1;
            visit(name, value)
        })?;
        if count > 0 {
            self.shared.hit(Mark::TierFetched);
        }
        self.shared.lock().choices.note(count);
        Ok(())
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        let running = {
            let mut seen = self.seen();
            seen.written += u64::from(seen.running);
            seen.running
        };
        let fails = match running {
            true => self.strikes("tier_write", |rates| rates.tier_write),
            false => self.apply_fails(),
        };
        match (running, fails) {
            (true, true) => self.shared.hit(Mark::TierWriteFailed),
            (true, false) => self.shared.hit(Mark::TierWrittenBack),
            (false, true) => self.shared.hit(Mark::TierRestoreFailed),
            (false, false) => {}
        }
        if running && self.mutant == Some(Mutant::TierWriteBackLost) {
            return Ok(());
        }
        self.put(state, batch, fails)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.model.view()
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        self.model.expire(state, horizon);
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.model.about(state)
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        self.model.keep_only(states)
    }
}

/// The tier as whoever puts a snapshot into it writes to it.
#[derive(Debug)]
struct OfSnapshot<'t> {
    tier: &'t Tier,
    fails: bool,
}

impl ColdTier for OfSnapshot<'_> {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.tier.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        self.tier.get(state, names, found)
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        self.tier.get_all(state, prefixes, found)
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.tier.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.tier.put(state, batch, self.fails)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.tier.view()
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        self.tier.expire(state, horizon);
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.tier.about(state)
    }
}

fn refused(what: &str, entries: usize) -> ColdError {
    ColdError { action: format!("{what} {entries} entries").into(), reason: "the seed wants it".into() }
}

/// What a view has of a state in these key groups, as blocks of a snapshot.
pub(crate) fn blocks_of(
    view: &dyn ColdView,
    state: ColdState,
    index: u16,
    header: &StateHeader,
    groups: KeyGroupRange,
) -> Result<Vec<Block>, StateError> {
    let mut blocks = Vec::new();
    blocks_of_view(view, state, header, groups, |block| {
        blocks.push(Block { state: index, ..block });
        Ok::<_, StateError>(())
    })?;
    Ok(blocks)
}
