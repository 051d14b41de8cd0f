use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{
    ColdBatch, ColdError, ColdFound, ColdImage, ColdLoad, ColdState, ColdTier, ColdView, ColdVisitor, ImageSource,
    StateHeader,
};
use rocksdb::ReadOptions;

use crate::database::Database;
use crate::error::failed;
use crate::image::RocksImage;
use crate::import::import;
use crate::load::RocksLoad;
use crate::steps::{Step, Steps};
use crate::view::RocksView;
use crate::{RocksBudget, TierStatistics};

/// How many names are looked up at once: their values are in memory together.
const LOOKUPS: usize = 128;
/// So many bytes of writes in memory are worth a file of their own.
const FLUSHED_BYTES: u64 = 16 << 20;

/// The cold tier of one subtask: a RocksDB database in a folder of its own, with a column family for each state.
///
/// It has no write-ahead log: what was written since the last flush is gone with the process, as state is restored from
/// checkpoints. Dropping it, with all its views, closes the database and leaves the files.
pub struct RocksTier {
    database: Arc<Database>,
    /// Rids files of what was cut off.
    cleaning: Option<JoinHandle<()>>,
}

impl RocksTier {
    /// An empty tier in the folder, which is made if it is not there. A database that a former process left in it is removed;
    /// other files stay.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if the folder can't be made or written, or is in use by another tier of this or another process.
    pub fn create(folder: &Path, budget: &RocksBudget) -> Result<Self, ColdError> {
        Self::create_with(folder, budget, &Steps::default())
    }

    pub(crate) fn create_with(folder: &Path, budget: &RocksBudget, steps: &Steps) -> Result<Self, ColdError> {
        Database::destroy(folder, budget)?;
        Ok(Self { database: Arc::new(Database::open(folder, budget, steps)?), cleaning: None })
    }

    /// A tier with what the folder holds: what was written before the last [flush](Self::flush), and of later writes any
    /// part. An empty one if there is nothing.
    ///
    /// # Errors
    ///
    /// [`ColdError`] as of [`Self::create`], and if the database is damaged in a way that is seen when it is opened.
    pub fn reopen(folder: &Path, budget: &RocksBudget) -> Result<Self, ColdError> {
        Ok(Self { database: Arc::new(Database::open(folder, budget, &Steps::default())?), cleaning: None })
    }

    /// A tier with what these images of others have of the key groups, in a folder as of [`Self::create`]. Returns also which of
    /// them it goes on from: see [`ColdTier::import`].
    ///
    /// A single image costs the time that its files take to come and some 30 ms. What it has of other groups is no longer seen,
    /// and goes from the disk beside the use of the tier. Of several images the files are linked together, unless one was cut
    /// out of another and not cleaned up yet: then its entries are read and written.
    ///
    /// # Errors
    ///
    /// [`ColdError`] as of [`Self::create`] and of the images, and if their files are not those of a database.
    pub fn from_images(
        folder: &Path,
        budget: &RocksBudget,
        images: &[&dyn ImageSource],
        groups: KeyGroupRange,
    ) -> Result<(Self, Option<usize>), ColdError> {
        Self::from_images_with(folder, budget, &Steps::default(), images, groups)
    }

    pub(crate) fn from_images_with(
        folder: &Path,
        budget: &RocksBudget,
        steps: &Steps,
        images: &[&dyn ImageSource],
        groups: KeyGroupRange,
    ) -> Result<(Self, Option<usize>), ColdError> {
        let (mut tier, goes_on) = Self::cut_from_images(folder, budget, steps, images, groups)?;
        tier.clean(groups);
        Ok((tier, goes_on))
    }

    /// The same, and nothing goes from the disk yet.
    pub(crate) fn cut_from_images(
        folder: &Path,
        budget: &RocksBudget,
        steps: &Steps,
        images: &[&dyn ImageSource],
        groups: KeyGroupRange,
    ) -> Result<(Self, Option<usize>), ColdError> {
        Database::destroy(folder, budget)?;
        let (database, goes_on) = import(folder, budget, steps, images, groups)?;
        Ok((Self { database: Arc::new(database), cleaning: None }, goes_on))
    }

    /// Begins to rid the files of what was cut off.
    pub(crate) fn clean(&mut self, groups: KeyGroupRange) {
        self.cleaning = self.database.is_cut.load(Ordering::Relaxed).then(|| {
            let database = Arc::clone(&self.database);
            std::thread::spawn(move || {
                if database.steps.ask(Step::Clean, &database.folder).is_ok() {
                    database.compact_outside(groups);
                }
            })
        });
    }

    /// Waits until the files hold nothing of the key groups that [`Self::from_images`] left out.
    pub fn wait_until_clean(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            drop(cleaning.join()); // one that died has cleaned less
        }
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.database.folder
    }

    /// Writes all that is in memory into files, and waits for it. Nothing in the contract of a tier needs it.
    ///
    /// # Errors
    ///
    /// [`ColdError`] if they can't be written, such as on a full disk. All of it can still be read.
    pub fn flush(&self) -> Result<(), ColdError> {
        self.database.flush()
    }

    /// How large it is, and whether writes have to wait. Takes some microseconds for each state.
    #[must_use]
    pub fn statistics(&self) -> TierStatistics {
        self.database.statistics()
    }
}

impl ColdTier for RocksTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.database.open_family(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        let Database { db, .. } = &*self.database;
        let family = self.database.family(state)?;
        let cant_read = |error| failed(format!("read {} entries", names.len()), &error);
        if let [name] = names {
            if let Some(value) = db.get_pinned_cf(&family, name).map_err(cant_read)? {
                found(0, &value);
            }
            return Ok(());
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_unstable_by_key(|at| names[*at]);
        for some in order.chunks(LOOKUPS) {
            let sorted = some.iter().map(|at| names[*at]);
            let values = db.batched_multi_get_pinned_batch_cf(&family, sorted, true).map_err(cant_read)?;
            for (at, value) in some.iter().zip(values.iter()) {
                if let Some(value) = value.map_err(cant_read)? {
                    found(*at, value);
                }
            }
        }
        Ok(())
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        let Database { db, .. } = &*self.database;
        let family = self.database.family(state)?;
        let mut order: Vec<usize> = (0..prefixes.len()).collect();
        order.sort_unstable_by_key(|at| prefixes[*at]);
        for at in order {
            let prefix = prefixes[at];
            let mut options = ReadOptions::default();
            // So that what was deleted behind the last one need not be passed to see that it is the last.
            if let Some(end) = behind(prefix) {
                options.set_iterate_upper_bound(end);
            }
            let mut entries = db.raw_iterator_cf_opt(&family, options);
            entries.seek(prefix);
            while let Some((name, value)) = entries.item() {
                found(at, name, value);
                entries.next();
            }
            // It also ends where it can't go on.
            entries.status().map_err(|error| failed(format!("read the entries of {} keys", prefixes.len()), &error))?;
        }
        Ok(())
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        let family = self.database.family(state)?;
        let mut options = ReadOptions::default();
        // Above the last group of all there is nothing.
        if let Some(end) = last.0.checked_add(1) {
            options.set_iterate_upper_bound(end.to_be_bytes());
        }
        let mut entries = self.database.db.raw_iterator_cf_opt(&family, options);
        entries.seek(from);
        while let Some((name, value)) = entries.item() {
            // A name without a whole group is in none.
            if name.len() >= 2 && visit(name, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        // It also ends where it can't go on.
        entries.status().map_err(|error| failed(format!("read from a name on, up to {last}"), &error))
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.database.write(state, batch)
    }

    /// Not while there are few writes in memory: they have to become a file first, and with them it can be one. Many become one
    /// of their own meanwhile.
    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        let writes = self.database.bytes_in_memory(state)?;
        if writes > 0 && writes < FLUSHED_BYTES {
            return Ok(None);
        }
        if writes > 0 {
            self.database.begin_flush(state)?;
        }
        Ok(Some(Box::new(RocksLoad::new(&self.database, state))))
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        Ok(Box::new(RocksView::new(Arc::clone(&self.database))))
    }

    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        Ok(Some(Box::new(RocksImage::new(&self.database)?)))
    }

    /// Refused: the database is open. [`RocksTier::from_images`] makes a tier of images.
    fn import(&self, images: &[&dyn ImageSource], _groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        Err(ColdError {
            action: format!("take over {} images", images.len()).into(),
            reason: format!("the database in {} is open already: make it of them", self.folder().display()).into(),
        })
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.database.about(state)
    }

    /// What may go goes when its file is rewritten.
    fn expire(&self, state: ColdState, horizon: i64) {
        self.database.expire(state, horizon);
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        self.database.keep_only(states)
    }
}

impl Drop for RocksTier {
    fn drop(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            // What is read from a view goes on.
            self.database.db.cancel_all_background_work(false);
            drop(cleaning.join());
        }
    }
}

/// The least name behind all those that begin with the prefix; `None` if there is none.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

impl fmt::Debug for RocksTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksTier").field("folder", &self.folder()).finish_non_exhaustive()
    }
}
