//! Where the state of a job is kept, and RocksDB alone.

use std::path::Path;
use std::sync::Arc;

use cutwater::Options;
use cutwater::state::StateBackend;

/// Arguments that say where the state is.
#[derive(clap::Args)]
pub(crate) struct Backend {
    /// Where the state of the job is kept.
    #[arg(long = "backend", value_enum, default_value_t = Kind::Hashmap)]
    kind: Kind,
    /// With `--backend rocksdb`: bytes of the state that stay in memory, in units of 2^20 bytes.
    #[arg(long, default_value_t = 64.0)]
    overlay_mb: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// In memory.
    Hashmap,
    /// On a local disk, what was used last in memory. Needs the feature `rocksdb`.
    Rocksdb,
}

impl Backend {
    pub(crate) fn is_rocksdb(&self) -> bool {
        self.kind == Kind::Rocksdb
    }

    pub(crate) fn name(&self) -> String {
        match self.kind {
            Kind::Hashmap => "hashmap".to_owned(),
            Kind::Rocksdb => format!("rocksdb, {} MB in memory", self.overlay_mb),
        }
    }

    /// Lets the job keep its state there, below the folder.
    pub(crate) fn set(&self, options: &mut Options, below: &Path) -> anyhow::Result<()> {
        if let Some(backend) = self.open(below)? {
            options.backend = backend;
        }
        Ok(())
    }

    /// With what the job is compared.
    pub(crate) fn limit(&self) -> &'static str {
        if self.is_rocksdb() { "raw_rocksdb" } else { "bare_table" }
    }

    /// The backend, with its databases below the folder; `None` for the default one.
    pub(crate) fn open(&self, below: &Path) -> anyhow::Result<Option<Arc<dyn StateBackend>>> {
        if !self.is_rocksdb() {
            return Ok(None);
        }
        #[cfg(feature = "rocksdb")]
        {
            use cutwater::rocksdb::{RocksBudget, RocksDbBackend};
            let overlay_bytes = (self.overlay_mb * f64::from(1 << 20)) as u64;
            let below = below.join("rocksdb");
            Ok(Some(Arc::new(RocksDbBackend::new(Some(&below), overlay_bytes, RocksBudget::default()))))
        }
        #[cfg(not(feature = "rocksdb"))]
        {
            let _ = below;
            anyhow::bail!("--backend rocksdb needs `--features rocksdb`")
        }
    }
}

#[cfg(feature = "rocksdb")]
pub(crate) use raw::RawRocks;

#[cfg(feature = "rocksdb")]
mod raw {
    use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteOptions};

    use crate::job::Folder;
    use crate::keys::{key_of, skewed, splitmix64};
    use crate::meter::BATCH;

    /// RocksDB on one thread: each record reads the sum of its key and writes it back. Options are those of the backend, which
    /// were the best of those tried, and the cache is as large.
    pub(crate) struct RawRocks {
        db: DB,
        without_wal: WriteOptions,
        keys: u64,
        skewed: bool,
        at: u64,
        _folder: Folder,
    }

    impl RawRocks {
        pub(crate) fn new(keys: u64, skewed: bool, folder: Folder) -> anyhow::Result<Self> {
            let mut blocks = BlockBasedOptions::default();
            blocks.set_block_size(8 << 10);
            blocks.set_block_cache(&Cache::new_lru_cache(256 << 20));
            blocks.set_bloom_filter(10.0, false);
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            let mut options = Options::default();
            options.create_if_missing(true);
            options.set_max_background_jobs(2);
            options.set_write_buffer_size(64 << 20);
            options.set_max_write_buffer_number(3);
            options.set_memtable_prefix_bloom_ratio(0.02);
            options.set_memtable_whole_key_filtering(true);
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_block_based_table_factory(&blocks);
            let mut without_wal = WriteOptions::default();
            without_wal.disable_wal(true);
            let db = DB::open(&options, folder.path().join("raw"))?;
            let raw = Self { db, without_wal, keys, skewed, at: 0, _folder: folder };
            for key in 0..keys {
                raw.db.put_opt(name(key), 0_u64.to_be_bytes(), &raw.without_wal)?;
            }
            raw.db.flush()?;
            Ok(raw)
        }

        pub(crate) fn done(&self) -> u64 {
            self.at
        }

        /// So many records as a batch of the job has.
        pub(crate) fn batch(&mut self) -> anyhow::Result<()> {
            for at in self.at..self.at + BATCH as u64 {
                let record = splitmix64(0, at);
                let record = if self.skewed { skewed(record, self.keys) } else { record };
                let name = name(key_of(record, self.keys));
                let sum = match self.db.get_pinned(name)? {
                    Some(sum) => u64::from_be_bytes(sum.as_ref().try_into()?),
                    None => 0,
                };
                self.db.put_opt(name, sum.wrapping_add(record).to_be_bytes(), &self.without_wal)?;
            }
            self.at += BATCH as u64;
            Ok(())
        }
    }

    /// Two bytes for a key group, as the backend has them, and the key.
    fn name(key: u64) -> [u8; 10] {
        let mut name = [0; 10];
        let group = (crate::keys::splitmix64(key, 0) >> 57) as u16;
        name[..2].copy_from_slice(&group.to_be_bytes());
        name[2..].copy_from_slice(&key.to_be_bytes());
        name
    }
}
