//! Where the state of a job is kept, and RocksDB alone.

use std::path::Path;
use std::sync::Arc;

use cutwater::Options;
use cutwater::state::StateBackend;

#[cfg(not(feature = "rocksdb"))]
const LACKING: &str = "--backend rocksdb needs `--features rocksdb`";

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

    /// The longest that 99.9 % of the batches should take while a checkpoint is taken, in milliseconds.
    pub(crate) fn longest_batch_ms(&self) -> f64 {
        if self.is_rocksdb() { 2.0 } else { 1.0 }
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
            anyhow::bail!(LACKING)
        }
    }
}

pub(crate) use raw::RawRocks;

#[cfg(not(feature = "rocksdb"))]
mod raw {
    use std::time::Duration;

    use crate::job::Folder;

    /// There is none in this build.
    pub(crate) enum RawRocks {}

    impl RawRocks {
        pub(crate) fn new(_: u64, _: usize, _: bool, _: Folder) -> anyhow::Result<Self> {
            anyhow::bail!(super::LACKING)
        }

        pub(crate) fn done(&self) -> u64 {
            match *self {}
        }

        pub(crate) fn batch(&mut self) -> anyhow::Result<()> {
            match *self {}
        }

        pub(crate) fn touch(&mut self, _: u64, _: u64) -> anyhow::Result<()> {
            match *self {}
        }

        pub(crate) fn checkpoint(&self, _: u64) -> anyhow::Result<Duration> {
            match *self {}
        }
    }
}

#[cfg(feature = "rocksdb")]
mod raw {
    use std::time::Duration;

    use anyhow::Context;
    use rocksdb::checkpoint::Checkpoint;
    use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteOptions};

    use crate::blobs::noise;
    use crate::clock;
    use crate::job::Folder;
    use crate::keys::{key_of, skewed, splitmix64};
    use crate::meter::BATCH;

    /// RocksDB on one thread: each record reads the value of its key, changes the first eight bytes and writes it back. Options
    /// are those of the backend, which were the best of those tried, and the cache is as large.
    pub(crate) struct RawRocks {
        db: DB,
        without_wal: WriteOptions,
        keys: u64,
        skewed: bool,
        at: u64,
        value: Vec<u8>,
        folder: Folder,
    }

    impl RawRocks {
        /// With all keys in it; values have so many bytes, eight or more.
        pub(crate) fn new(keys: u64, bytes: usize, skewed: bool, folder: Folder) -> anyhow::Result<Self> {
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
            for key in 0..keys {
                let mut value = noise(key, bytes);
                value[..8].fill(0);
                db.put_opt(name(key), value, &without_wal)?;
            }
            db.flush()?;
            Ok(Self { db, without_wal, keys, skewed, at: 0, value: Vec::new(), folder })
        }

        pub(crate) fn done(&self) -> u64 {
            self.at
        }

        fn change(&mut self, key: u64, by: u64) -> anyhow::Result<()> {
            let name = name(key);
            let held = self.db.get_pinned(name)?.context("a key is missing")?;
            self.value.clear();
            self.value.extend_from_slice(&held);
            let (sum, _) = self.value.split_first_chunk_mut::<8>().context("a value is too short")?;
            *sum = u64::from_be_bytes(*sum).wrapping_add(by).to_be_bytes();
            Ok(self.db.put_opt(name, &self.value, &self.without_wal)?)
        }

        /// So many records as a batch of the job has.
        pub(crate) fn batch(&mut self) -> anyhow::Result<()> {
            for at in self.at..self.at + BATCH as u64 {
                let record = splitmix64(0, at);
                let record = if self.skewed { skewed(record, self.keys) } else { record };
                self.change(key_of(record, self.keys), record)?;
            }
            self.at += BATCH as u64;
            Ok(())
        }

        /// Changes so many keys, spread over all of them, others in each round.
        pub(crate) fn touch(&mut self, keys: u64, round: u64) -> anyhow::Result<()> {
            let step = (self.keys / keys).max(1);
            for at in 0..keys {
                self.change((at * step + round) % self.keys, at)?;
            }
            Ok(())
        }

        /// How long it takes to write out what has changed and to link all files into another folder.
        pub(crate) fn checkpoint(&self, round: u64) -> anyhow::Result<Duration> {
            let folder = self.folder.path().join(format!("checkpoint-{round}"));
            let start = clock::now();
            Checkpoint::new(&self.db)?.create_checkpoint(folder)?;
            Ok(clock::since(start))
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
