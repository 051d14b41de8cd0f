use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use cutwater_core::KeyGroupRange;
use cutwater_state::{ColdBatch, ColdError, ColdState, StateHeader};
use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, FlushOptions, MultiThreaded, Options, WriteBatch,
    WriteOptions, properties,
};

use crate::error::{failed, folder_failed};
use crate::expiry::Expiry;
use crate::family::family_name;
use crate::import::outside;
use crate::steps::{Step, Steps};
use crate::{RocksBudget, TierStatistics, options};

/// Bytes of a batch that are handed to RocksDB at once, which copies them: what is larger goes in several.
const BATCH_BYTES: usize = 8 << 20;

/// Column families can be added while others are used.
pub(crate) type Db = DBWithThreadMode<MultiThreaded>;

/// An open database, with what its tier and their views share.
pub(crate) struct Database {
    pub(crate) db: Db,
    pub(crate) folder: PathBuf,
    pub(crate) without_wal: WriteOptions,
    pub(crate) expiry: Expiry,
    family_options: Options,
    /// Whether entries were cut off, of which files still have to be rid.
    pub(crate) is_cut: AtomicBool,
    pub(crate) steps: Steps,
    /// Names of the column families by the numbers of states.
    families: RwLock<Vec<Box<str>>>,
}

impl Database {
    /// Removes what there is in the folder of another database.
    pub(crate) fn destroy(folder: &Path, budget: &RocksBudget) -> Result<(), ColdError> {
        // Else it would be RocksDB that fails to make it, and say less.
        fs::create_dir_all(folder).map_err(|error| folder_failed(folder, &error))?;
        Db::destroy(&options::database(budget), folder)
            .map_err(|error| failed(format!("remove the former database in {}", folder.display()), &error))
    }

    /// Opens the database in the folder with all its column families; makes both if they are not there.
    pub(crate) fn open(folder: &Path, budget: &RocksBudget, steps: &Steps) -> Result<Self, ColdError> {
        steps.before(Step::Open, folder)?;
        fs::create_dir_all(folder).map_err(|error| folder_failed(folder, &error))?;
        let options = options::database(budget);
        let family_options = options::family(budget);
        let action = || format!("open the database in {}", folder.display());
        // RocksDB refuses to open a database without all of its families, and can't list those of none.
        let families = match fs::metadata(folder.join("CURRENT")) {
            Ok(_) => Db::list_cf(&options, folder).map_err(|error| failed(action(), &error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec!["default".to_owned()],
            Err(error) => return Err(folder_failed(folder, &error)),
        };
        let expiry = Expiry::default();
        let descriptors = families.into_iter().map(|name| {
            let options = options::of_family(&family_options, expiry.filters(&name));
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = Db::open_cf_descriptors(&options, folder, descriptors).map_err(|error| failed(action(), &error))?;
        let mut without_wal = WriteOptions::default();
        without_wal.disable_wal(true);
        let folder = folder.to_owned();
        Ok(Self {
            db,
            folder,
            without_wal,
            expiry,
            family_options,
            is_cut: AtomicBool::new(false),
            steps: steps.clone(),
            families: RwLock::default(),
        })
    }

    /// How the column family of this name is opened.
    pub(crate) fn family_options(&self, name: &str) -> Options {
        options::of_family(&self.family_options, self.expiry.filters(name))
    }

    /// What was stamped at or before the horizon need no longer be kept.
    pub(crate) fn expire(&self, state: ColdState, horizon: i64) {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = families.get(state.0 as usize) {
            self.expiry.tell(name, horizon);
        }
    }

    /// The number of the state, whose column family is made if it is not there.
    pub(crate) fn open_family(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        let name = family_name(header);
        if self.db.cf_handle(&name).is_none() {
            let made = self.db.create_cf(&name, &self.family_options(&name));
            made.map_err(|error| failed(format!("make the column family {name}"), &error))?;
        }
        Ok(self.numbered(&name))
    }

    /// The number of the state of this column family.
    pub(crate) fn numbered(&self, name: &str) -> ColdState {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        let at = families.iter().position(|family| **family == *name).unwrap_or_else(|| {
            families.push(name.into());
            families.len() - 1
        });
        ColdState(u32::try_from(at).expect("fewer states than 2^32"))
    }

    /// The column families that states have, with their names.
    pub(crate) fn named_families(&self) -> Vec<(String, Arc<BoundColumnFamily<'_>>)> {
        let named = |name: String| Some((name.clone(), self.db.cf_handle(&name)?));
        self.db.cf_names().into_iter().filter(|name| name != "default").filter_map(named).collect()
    }

    /// Removes the column families of all states but these.
    pub(crate) fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        let kept: BTreeSet<Box<str>> = {
            let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
            states.iter().filter_map(|state| families.get(state.0 as usize).cloned()).collect()
        };
        for (name, family) in self.named_families().into_iter().filter(|(name, _)| !kept.contains(&**name)) {
            drop(family);
            self.db.drop_cf(&name).map_err(|error| failed(format!("remove the column family {name}"), &error))?;
        }
        Ok(())
    }

    /// The name of the column family of a state.
    pub(crate) fn name_of(&self, state: ColdState) -> Option<Box<str>> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        families.get(state.0 as usize).cloned()
    }

    /// The column family of a state.
    pub(crate) fn family(&self, state: ColdState) -> Result<Arc<BoundColumnFamily<'_>>, ColdError> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        families.get(state.0 as usize).and_then(|name| self.db.cf_handle(name)).ok_or_else(|| ColdError {
            action: format!("find the state {}", state.0).into(),
            reason: format!("it was not opened in the tier in {}: open it first", self.folder.display()).into(),
        })
    }

    /// Puts and deletes what the batch says.
    pub(crate) fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        let family = self.family(state)?;
        self.steps.before(Step::Write, &self.folder)?;
        let write = |writes: &WriteBatch| {
            self.db
                .write_opt(writes, &self.without_wal)
                .map_err(|error| failed(format!("write {} entries", batch.len()), &error))
        };
        let mut writes = WriteBatch::with_capacity_bytes((batch.bytes() + 16 * batch.len()).min(BATCH_BYTES + 4096));
        for (name, value) in batch.iter() {
            match value {
                Some(value) => writes.put_cf(&family, name, value),
                None => writes.delete_cf(&family, name),
            }
            if writes.size_in_bytes() >= BATCH_BYTES {
                write(&writes)?;
                writes.clear();
            }
        }
        if writes.is_empty() { Ok(()) } else { write(&writes) }
    }

    /// About how many bytes of writes to the state are in no file yet, nor on their way to one.
    pub(crate) fn bytes_in_memory(&self, state: ColdState) -> Result<u64, ColdError> {
        let family = self.family(state)?;
        let number = |property| {
            let number = self.db.property_int_value_cf(&family, property);
            Ok::<_, ColdError>(number.map_err(|error| failed("count writes", &error))?.unwrap_or(0))
        };
        // An empty one takes some room too.
        if number(properties::NUM_ENTRIES_ACTIVE_MEM_TABLE)? == 0 {
            return Ok(0);
        }
        number(properties::CUR_SIZE_ACTIVE_MEM_TABLE)
    }

    /// Writes of the state that are in memory become a file, beside what is done next.
    pub(crate) fn begin_flush(&self, state: ColdState) -> Result<(), ColdError> {
        let family = self.family(state)?;
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.db
            .flush_cf_opt(&family, &options)
            .map_err(|error| failed(format!("flush a state of {}", self.folder.display()), &error))
    }

    /// About how many entries a state has.
    pub(crate) fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        let family = self.family(state)?;
        let cant = |error| failed("count entries", &error);
        let estimate =
            self.db.property_int_value_cf(&family, properties::ESTIMATE_NUM_KEYS).map_err(cant)?.unwrap_or(0);
        if estimate > 0 {
            return Ok(estimate);
        }
        // Deletions may make it 0 where there are entries.
        let mut entries = self.db.raw_iterator_cf(&family);
        entries.seek_to_first();
        entries.status().map_err(cant)?;
        Ok(u64::from(entries.valid()))
    }

    /// Rewrites files that have something outside of these groups.
    pub(crate) fn compact_outside(&self, groups: KeyGroupRange) {
        for (_, family) in self.named_families() {
            for (from, to) in outside(groups) {
                self.db.compact_range_cf(&family, Some(from), to);
            }
        }
    }

    pub(crate) fn flush(&self) -> Result<(), ColdError> {
        let families = self.all_families();
        let families: Vec<_> = families.iter().collect();
        self.db
            .flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(|error| failed(format!("flush the database in {}", self.folder.display()), &error))
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        let number = |value: Result<Option<u64>, rocksdb::Error>| value.ok().flatten().unwrap_or(0);
        let families = self.all_families();
        let sum = |property| {
            families.iter().map(|family| number(self.db.property_int_value_cf(family, property))).sum::<u64>()
        };
        let of_database = |property| number(self.db.property_int_value(property));
        TierStatistics {
            sst_bytes: sum(properties::LIVE_SST_FILES_SIZE),
            memtable_bytes: sum(properties::SIZE_ALL_MEM_TABLES),
            pending_compaction_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            delayed_write_rate: of_database(properties::ACTUAL_DELAYED_WRITE_RATE),
            write_stopped: of_database(properties::IS_WRITE_STOPPED) != 0,
        }
    }

    fn all_families(&self) -> Vec<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_names().iter().filter_map(|name| self.db.cf_handle(name)).collect()
    }
}
