use rocksdb::{
    BlockBasedOptions, DBCompactionStyle, DBCompressionType, DataBlockIndexType, LogLevel, Options,
    UniversalCompactOptions,
};

use crate::RocksBudget;
use crate::expiry::Filters;

/// Writes of one state that are collected before they become a file, as far as the budget allows.
const MEMTABLE_BYTES: usize = 64 << 20;
/// Memtables of one state: one being filled, two being written out.
const MEMTABLES: i32 = 3;
/// Of a memtable, for its bloom filter: 1.3 MB, which is 10 bits for each of a million entries. It is taken with the first
/// write to a state, so that more would be dear where there are hundreds of states.
const MEMTABLE_BLOOM: f64 = 0.02;
const BLOOM_BITS: f64 = 10.0;
/// Of what says which files there are, before it is written anew: each image has it.
const MANIFEST_BYTES: usize = 64 << 10;
const BLOCK_BYTES: usize = 8 << 10;
/// So many files or runs of files of a state are left before some become one. Twice RocksDB's default: a checkpoint stores again
/// what was rewritten since the last, so that most of them have only what changed. A lookup asks one more filter for each.
const RUNS: i32 = 8;
/// At so many writes wait for it, first some of the time and then all of it.
const RUNS_DELAY: i32 = 3 * RUNS;
const RUNS_STOP: i32 = 5 * RUNS;
/// Of what a state takes on the disk, more than this many percent of its oldest run are made one with that. RocksDB's default is 200:
/// three times the state on the disk and in a checkpoint. Less rewrites all of it more often, and each checkpoint after that stores it.
const AMPLIFICATION_PERCENT: i32 = 100;
/// Flushes and compactions at once. More would finish sooner and take the cores from the subtasks.
const BACKGROUND_JOBS: i32 = 2;

/// What holds for a whole database.
pub(crate) fn database(budget: &RocksBudget) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_manager(&budget.write_buffers);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    // A tier need not survive the process, so its end need not wait for the disk.
    options.set_avoid_flush_during_shutdown(true);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// What holds for the column family of a state.
pub(crate) fn family(budget: &RocksBudget) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_block_cache(&budget.cache);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    // Else indexes and filters would lie outside the budget, and grow with the state.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM);
    options.set_memtable_whole_key_filtering(true);
    options.set_compression_type(DBCompressionType::Lz4);
    // Files are stored again when they are rewritten: of 1 GB of which 1 % changes, this rewrites a sixth of what levels do.
    options.set_compaction_style(DBCompactionStyle::Universal);
    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(AMPLIFICATION_PERCENT);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(RUNS);
    options.set_level_zero_slowdown_writes_trigger(RUNS_DELAY);
    options.set_level_zero_stop_writes_trigger(RUNS_STOP);
    options.set_block_based_table_factory(&blocks);
    options
}

/// The same for one of them, with what of it may expire.
pub(crate) fn of_family(family: &Options, filters: Filters) -> Options {
    let mut options = family.clone();
    options.set_compaction_filter_factory(filters);
    options
}
