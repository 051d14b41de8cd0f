//! What a snapshot has goes straight into a file, which the database then takes over: in memory it would be put in order
//! entry by entry, and written to a file all the same.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cutwater_state::{ColdBatch, ColdError, ColdLoad, ColdState, group_of_name, group_prefix};
use rocksdb::{DBCompressionType, IngestExternalFileOptions, Options, SstFileWriter};
use self_cell::self_cell;

use crate::database::Database;
use crate::error::{failed, io_failed};
use crate::steps::Step;

/// What is less is written like anything else: it is not worth a file of its own.
const LEAST_BYTES: usize = 64 << 10;
/// What may wait in memory for entries that belong before it.
const HELD_BYTES: usize = 16 << 20;
/// Of entries in a file, about.
const FILE_BYTES: usize = 256 << 20;
/// Of each of the samples of what is to be written that are compressed to see whether it gets smaller.
const SAMPLE_BYTES: usize = 4 << 10;
/// What is longer is not read to have it in the page cache.
const WARMED_BYTES: u64 = 64 << 20;
/// What the names of the files begin with.
const PREFIX: &str = "load-";

/// A name, and its value unless it is deleted.
type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

static NEXT: AtomicU64 = AtomicU64::new(0);

self_cell!(
    /// What writes a file borrows the options that it was made with.
    struct Writer {
        owner: Box<Options>,
        #[covariant]
        dependent: SstFileWriter,
    }
);

/// Writes files of entries in the order of their names. What comes too late for that is written after them.
pub(crate) struct RocksLoad {
    database: Arc<Database>,
    state: ColdState,
    held: ColdBatch,
    /// Names that are less have been written.
    end: Vec<u8>,
    late: ColdBatch,
    file: Option<Writer>,
    /// Bytes of entries in it.
    bytes: usize,
    /// All files, the one that is being written last. They go with the load.
    paths: Vec<PathBuf>,
}

impl RocksLoad {
    pub(crate) fn new(database: &Arc<Database>, state: ColdState) -> Self {
        Self {
            database: Arc::clone(database),
            state,
            held: ColdBatch::default(),
            end: Vec::new(),
            late: ColdBatch::default(),
            file: None,
            bytes: 0,
            paths: Vec::new(),
        }
    }

    /// Writes what is held or in the batch, which is sorted, and has a name below `end`, or all. The rest of it is held.
    fn write_below(&mut self, end: Option<&[u8]>, batch: &ColdBatch) -> Result<(), ColdError> {
        let mut held = std::mem::take(&mut self.held);
        held.sort();
        let sample = if batch.is_empty() { &held } else { batch };
        let (mut before, mut next) = (held.iter().peekable(), batch.iter().peekable());
        let mut last: Option<Entry<'_>> = None;
        loop {
            let from_batch = match (before.peek(), next.peek()) {
                (Some((before, _)), Some((next, _))) => next < before,
                (None, None) => break,
                (before, _) => before.is_none(),
            };
            let entry = if from_batch { next.next() } else { before.next() };
            // Of those with one name the last one counts.
            if let Some((name, value)) = last
                && entry.is_none_or(|(next, _)| next != name)
            {
                self.put(name, value, end, sample)?;
            }
            last = entry;
        }
        if let Some((name, value)) = last {
            self.put(name, value, end, sample)?;
        }
        match (end, last) {
            (Some(end), _) if !self.paths.is_empty() && *end > *self.end => self.end = end.to_vec(),
            (None, Some((last, _))) if *last >= *self.end => self.end = [last, &[0]].concat(),
            _ => {}
        }
        Ok(())
    }

    fn put(
        &mut self,
        name: &[u8],
        value: Option<&[u8]>,
        end: Option<&[u8]>,
        sample: &ColdBatch,
    ) -> Result<(), ColdError> {
        if *name < *self.end {
            add(&mut self.late, name, value);
            return Ok(());
        }
        if end.is_some_and(|end| name >= end) {
            add(&mut self.held, name, value);
            return Ok(());
        }
        if self.bytes >= FILE_BYTES {
            self.finish_file()?;
        }
        if self.file.is_none() {
            self.begin_file(gets_smaller(sample))?;
        }
        self.bytes += name.len() + value.map_or(0, <[u8]>::len);
        self.in_file(|file| match value {
            Some(value) => file.put(name, value),
            None => file.delete(name),
        })
    }

    fn begin_file(&mut self, compress: bool) -> Result<(), ColdError> {
        let path = self.database.folder.join(format!("{PREFIX}{}.sst", NEXT.fetch_add(1, Ordering::Relaxed)));
        self.database.steps.before(Step::Load, &path)?;
        let family = self.database.name_of(self.state).unwrap_or_default();
        let mut options = Box::new(self.database.family_options(&family));
        if !compress {
            options.set_compression_type(DBCompressionType::None);
        }
        self.file = Some(Writer::new(options, |options| SstFileWriter::create(options)));
        self.paths.push(path.clone());
        self.in_file(|file| file.open(&path))
    }

    fn finish_file(&mut self) -> Result<(), ColdError> {
        let finished = self.in_file(|file| file.finish());
        (self.file, self.bytes) = (None, 0);
        finished
    }

    /// Reads what was written, unless it is much. RocksDB tells the system, with each megabyte and at the end, that nobody needs
    /// a file which is to be taken over, so that the lookups of the next batches would each wait for the disk.
    fn warm(&self) -> Result<(), ColdError> {
        let mut piece = vec![0; 1 << 20];
        for path in &self.paths {
            let read = |piece: &mut [u8]| {
                let mut file = File::open(path)?;
                if file.metadata()?.len() <= WARMED_BYTES {
                    while file.read(piece)? > 0 {}
                }
                io::Result::Ok(())
            };
            read(&mut piece).map_err(|error| io_failed(format!("read {}", path.display()), &error))?;
        }
        Ok(())
    }

    /// What `work` does with the file that is being written, if there is one.
    fn in_file(
        &mut self,
        work: impl FnOnce(&mut SstFileWriter<'_>) -> Result<(), rocksdb::Error>,
    ) -> Result<(), ColdError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let path = || self.paths.last().map(|path| path.display().to_string()).unwrap_or_default();
        let done = file.with_dependent_mut(|_, file| work(file));
        done.map_err(|error| failed(format!("write entries into {}", path()), &error))
    }
}

impl ColdLoad for RocksLoad {
    fn write(&mut self, batch: &ColdBatch) -> Result<(), ColdError> {
        if self.paths.is_empty() && self.held.bytes() + batch.bytes() < LEAST_BYTES {
            batch.iter().for_each(|(name, value)| add(&mut self.held, name, value));
            return Ok(());
        }
        let sorted;
        let batch = if batch.is_sorted() {
            batch
        } else {
            let mut copy = batch.clone();
            copy.sort();
            sorted = copy;
            &sorted
        };
        // A sweep goes up in key groups, but for what it removes, which comes before all of it.
        let last = batch.iter().filter(|(_, value)| value.is_some()).last();
        match last.and_then(|(name, _)| group_of_name(name)) {
            Some(group) => self.write_below(Some(&group_prefix(group)), batch)?,
            None => batch.iter().for_each(|(name, value)| {
                add(if *name < *self.end { &mut self.late } else { &mut self.held }, name, value);
            }),
        }
        if self.held.bytes() >= HELD_BYTES { self.write_below(None, &ColdBatch::default()) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), ColdError> {
        if self.paths.is_empty() && self.held.bytes() < LEAST_BYTES {
            return self.database.write(self.state, &self.held);
        }
        self.write_below(None, &ColdBatch::default())?;
        self.finish_file()?;
        self.warm()?;
        let cant = |error| failed(format!("take over {} files of entries", self.paths.len()), &error);
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.database.family(self.state)?;
        let taken = self.database.db.ingest_external_file_cf_opts(&family, &options, self.paths.clone());
        taken.map_err(cant)?;
        drop(family);
        if self.late.is_empty() { Ok(()) } else { self.database.write(self.state, &self.late) }
    }
}

impl Drop for RocksLoad {
    fn drop(&mut self) {
        self.file = None;
        for path in &self.paths {
            drop(fs::remove_file(path)); // it is not there if it was taken over; what can't be removed goes with the folder
        }
    }
}

impl fmt::Debug for RocksLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksLoad").field("state", &self.state).field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn add(batch: &mut ColdBatch, name: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => batch.put(name, value),
        None => batch.delete(name),
    }
}

/// Whether it is worth compressing, by samples from the front, the middle and the end: for what does not get smaller it would
/// take half of the time.
fn gets_smaller(batch: &ColdBatch) -> bool {
    let (mut plain, mut packed) = (0, 0);
    for third in 0..3 {
        let mut sample = Vec::with_capacity(2 * SAMPLE_BYTES);
        for (name, value) in batch.iter().skip(batch.len() / 3 * third) {
            let value = value.unwrap_or_default();
            sample.extend_from_slice(name);
            sample.extend_from_slice(&value[..value.len().min(SAMPLE_BYTES)]);
            if sample.len() >= SAMPLE_BYTES {
                break;
            }
        }
        plain += sample.len();
        packed += lz4_flex::block::compress(&sample).len();
    }
    // RocksDB itself leaves a block as it is unless it gets smaller by an eighth.
    packed < plain - plain / 8
}
