/// What metrics tell of a [`RocksTier`](crate::RocksTier): figures of RocksDB, summed over its states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStatistics {
    /// Bytes of the files that hold its newest state. On the disk may be more: files that a view still reads, and those that
    /// are about to be removed.
    pub sst_bytes: u64,
    /// Bytes of writes in memory, those being written to a file included.
    pub memtable_bytes: u64,
    /// Bytes that compactions are behind, estimated.
    pub pending_compaction_bytes: u64,
    /// Bytes a second to which RocksDB slows writes down, since compactions are behind; 0 if it does not.
    pub delayed_write_rate: u64,
    /// Whether writes wait until flushes or compactions have caught up.
    pub write_stopped: bool,
}
