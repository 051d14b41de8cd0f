use std::fmt;

use rocksdb::{Cache, WriteBufferManager};

/// Memory that all tiers of the process share, however many subtasks there are: clones are the same budget.
///
/// It bounds what RocksDB keeps of blocks and of writes. What it can't bound is small beside it: open files take some
/// kilobytes each, and a compaction under way some megabytes.
///
/// ```
/// use cutwater_rocksdb::RocksBudget;
///
/// let budget = RocksBudget::new(1 << 30, 512 << 20);
/// assert_eq!((budget.cache_bytes(), budget.write_buffer_bytes()), (1 << 30, 512 << 20));
/// assert_eq!(RocksBudget::default().cache_bytes(), 256 << 20);
/// ```
#[derive(Clone)]
pub struct RocksBudget {
    pub(crate) cache: Cache,
    pub(crate) write_buffers: WriteBufferManager,
    cache_bytes: usize,
    write_buffer_bytes: usize,
}

impl RocksBudget {
    /// What [`RocksBudget::default`] has for blocks: 256 MiB.
    pub const DEFAULT_CACHE_BYTES: usize = 256 << 20;
    /// What [`RocksBudget::default`] has for writes: 256 MiB.
    pub const DEFAULT_WRITE_BUFFER_BYTES: usize = 256 << 20;

    /// A budget of `cache_bytes` for blocks of files with their indexes and filters, uncompressed, and of
    /// `write_buffer_bytes` for writes that are not in files yet.
    ///
    /// A larger cache means fewer reads of the disk. Larger write buffers mean fewer and larger files, and so less
    /// compaction. RocksDB begins to write buffers out at half of the bytes given here: measured, it uses up to twice what it
    /// is told, since the old ones stay until they are in a file. A budget below 128 MiB a busy subtask gives many small
    /// files, which cost more compaction.
    #[must_use]
    pub fn new(cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        // At least one byte: zero would mean no limit.
        let manager = WriteBufferManager::new_write_buffer_manager((write_buffer_bytes / 2).max(1), false);
        Self { cache: Cache::new_lru_cache(cache_bytes), write_buffers: manager, cache_bytes, write_buffer_bytes }
    }

    /// Bytes for blocks, as given.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Bytes for writes that are not in files yet, as given.
    #[must_use]
    pub fn write_buffer_bytes(&self) -> usize {
        self.write_buffer_bytes
    }

    /// Bytes of blocks in the cache now, of all tiers.
    #[must_use]
    pub fn cache_used_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Bytes of writes in memory now, of all tiers.
    #[must_use]
    pub fn write_buffer_used_bytes(&self) -> usize {
        self.write_buffers.get_usage()
    }
}

impl Default for RocksBudget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CACHE_BYTES, Self::DEFAULT_WRITE_BUFFER_BYTES)
    }
}

impl fmt::Debug for RocksBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksBudget")
            .field("cache_bytes", &self.cache_bytes)
            .field("write_buffer_bytes", &self.write_buffer_bytes)
            .finish_non_exhaustive()
    }
}
