//! Checkpoints that share RocksDB's files, of which one is missing, damaged or another. Each start says which, and changes nothing;
//! with the file as it was the same command goes on.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cutwater_coordinator::inspect::slot_name;
use cutwater_coordinator::{checkpoint_of_snapshot, native_number};
use cutwater_integration_tests::{Flights, Rng, assert_same_output, cutwater, database_homes, side_by_side};

use crate::{NO_RESTART, PACED, ROCKSDB, data, reference};

const SEED: u64 = 20_140_101;
const INCREMENTAL: &str =
    "execution.checkpointing.incremental: true\nexecution.checkpointing.data-inline-threshold: 0\n";

/// A job that was killed after some checkpoints: all that the newest one names is published.
struct Killed {
    flights: Flights,
    /// RocksDB's files in the newest checkpoint, those first that earlier ones have too. All names begin in the job's folder.
    tables: Vec<String>,
    /// The files that say which these are.
    indexes: Vec<String>,
}

fn killed() -> &'static Killed {
    static KILLED: OnceLock<Killed> = OnceLock::new();
    KILLED.get_or_init(|| {
        for _ in 0..50 {
            let flights = Flights::with_data(data());
            flights.write("job.yaml", format!("{ROCKSDB}{NO_RESTART}{INCREMENTAL}"));
            let mut process = flights.start(PACED);
            process.wait_until("some checkpoints", |_| flights.log().completed().count() >= 6);
            process.wait_until("shared files and the output", |_| shares(&flights) && is_published(&flights));
            process.kill();
            // Another checkpoint may have completed meanwhile.
            if shares(&flights) && is_published(&flights) && !flights.log().finished() {
                return Killed::new(flights);
            }
        }
        panic!("the program was never killed between two checkpoints that share files");
    })
}

impl Killed {
    fn new(flights: Flights) -> Self {
        let log = flights.log();
        let newest = log.newest().unwrap();
        let mut tables: Vec<_> = newest.stored_files().map(|file| file.name.clone()).collect();
        let mut indexes = tables.clone();
        tables.retain(|name| native_number(name).is_some_and(|number| number > 0));
        tables.sort_by_key(|name| checkpoint_of_snapshot(name));
        indexes.retain(|name| native_number(name) == Some(0));
        assert!(tables.len() >= 4 && indexes.len() == 2, "two subtasks with some tables each: {tables:?}, {indexes:?}");
        Self { flights, tables, indexes }
    }

    fn oldest(&self) -> &str {
        &self.tables[0]
    }

    fn newest(&self) -> &str {
        &self.tables[self.tables.len() - 1]
    }
}

/// Whether the newest checkpoint names files that an earlier one has stored.
fn shares(flights: &Flights) -> bool {
    let log = flights.log();
    let newest = log.newest().unwrap();
    newest.files().any(|file| checkpoint_of_snapshot(&file.name) < Some(newest.checkpoint))
}

/// Whether both subtasks have published what they had prepared for the newest checkpoint.
fn is_published(flights: &Flights) -> bool {
    let log = flights.log();
    let newest = log.newest().unwrap();
    let published = flights.published();
    (0..2).all(|subtask| published.contains_key(&format!("out-{subtask}-{}-1-{}.csv", newest.epoch, newest.checkpoint)))
}

/// The record of the newest checkpoint and its files, with their content, as far as they are there.
fn needed(flights: &Flights) -> BTreeMap<String, Option<Vec<u8>>> {
    let log = flights.log();
    let newest = log.newest().unwrap();
    let names = newest.stored_files().map(|file| file.name.clone()).chain([slot_name(newest.slot)]);
    let read = |name: String| (name.clone(), fs::read(flights.checkpoints().join(name)).ok());
    names.map(read).collect()
}

/// All files below a folder, with their content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// The same job as fast as it can, at this parallelism.
fn fast(parallelism: usize) -> String {
    format!("--interval 25ms --parallelism {parallelism} --config job.yaml")
}

/// A file with other content, or none, and what is to be said of it.
struct Case {
    name: &'static str,
    file: String,
    content: Option<Vec<u8>>,
    said: &'static str,
}

impl Case {
    fn run(&self, killed: &Killed, parallelism: usize) {
        let flights = killed.flights.copy();
        let (file, what) = (&self.file, format!("{}, {}, at parallelism {parallelism}", self.name, self.file));
        let path = flights.checkpoints().join(file);
        let whole = fs::read(&path).unwrap();
        assert!(self.content.as_ref() != Some(&whole), "{what}: that is the file as it was");
        match &self.content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
        assert_eq!(verified.code, Some(4), "{what}: {verified}");
        assert!(verified.stdout.contains(file), "{what}: {verified}");

        let (published, before) = (flights.published(), needed(&flights));
        for _ in 0..2 {
            let ended = flights.run(&fast(parallelism));
            assert_eq!(ended.code, Some(4), "{what}: {ended}");
            assert_eq!(ended.stderr.matches("error[").count(), 1, "{what}: {ended}");
            for text in [&*format!("flights/{file}"), self.said] {
                assert!(ended.stderr.contains(text), "{what}: {text:?} is not in {ended}");
            }
            assert!(["another checkpoint", "bring"].iter().all(|text| ended.stderr.contains(text)), "{what}: {ended}");
            assert!(flights.published() == published, "{what}: a start that was refused has changed the output");
            assert!(needed(&flights) == before, "{what}: the checkpoint has changed");
            assert_eq!(database_homes(&flights.path().join("state")), [] as [PathBuf; 0], "{what}: databases stay");
        }
        fs::write(&path, whole).unwrap();
        assert_goes_on(&flights, parallelism, &what);
        assert!(published.iter().all(|(name, bytes)| flights.published().get(name) == Some(bytes)), "{what}");
    }
}

fn assert_goes_on(flights: &Flights, parallelism: usize, what: &str) {
    let ended = flights.run(&fast(parallelism));
    assert_eq!(ended.code, Some(0), "{what}: {ended}");
    assert!(ended.stderr.contains("resumes from checkpoint"), "{what}: {ended}");
    assert_same_output(&flights.output(), reference(), what);
    let verified = cutwater(flights.path(), "checkpoints verify checkpoints");
    assert_eq!(verified.code, Some(0), "{what}: {verified}");
    assert_eq!(database_homes(&flights.path().join("state")), [] as [PathBuf; 0], "{what}: databases stay");
}

/// Where an index has the content of the file of which RocksDB's name begins so: docs/format.md.
fn held(index: &[u8], name: &str) -> Range<usize> {
    let length = u32::from_le_bytes(index[12..16].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&index[16..16 + length]).unwrap();
    let mut at = 16 + length;
    for file in json["files"].as_array().unwrap().iter().filter(|file| file["object"].is_null()) {
        let bytes = usize::try_from(file["bytes"].as_u64().unwrap()).unwrap();
        if file["name"].as_str().unwrap().starts_with(name) {
            return at..at + bytes;
        }
        at += bytes;
    }
    panic!("the index has no {name}: {json}");
}

fn flipped(content: &[u8], at: usize) -> Vec<u8> {
    let mut content = content.to_vec();
    content[at] ^= 0x10;
    content
}

/// An index that says something else in as many bytes, with its checksum: one of another run would be such.
fn other_index(index: &[u8]) -> Vec<u8> {
    let mut other = index.to_vec();
    let text = b"\"entries\":";
    let at = other.windows(text.len()).position(|part| part == text).unwrap() + text.len();
    other[at] = if other[at] == b'1' { b'2' } else { b'1' };
    let end = other.len() - 4;
    let sum = crc32c::crc32c(&other[..end]).rotate_right(15).wrapping_add(0x5157_3a21);
    other[end..].copy_from_slice(&sum.to_le_bytes());
    other
}

/// A table of a job of another name, with other data.
fn table_of_another_job() -> Vec<u8> {
    let flights = Flights::with_data(&data().replace(",UA,", ",AA,"));
    flights.write("job.yaml", format!("{ROCKSDB}{NO_RESTART}{INCREMENTAL}pipeline.name: trains\n"));
    drop(flights.run(&fast(1)).with_code(0));
    let tables = content(&flights.path().join("checkpoints/trains/chk")).into_iter();
    let is_table = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        native_number(&format!("chk/{name}")).is_some_and(|number| number > 0)
    };
    tables.filter(|(path, _)| is_table(path)).map(|(_, bytes)| bytes).max_by_key(Vec::len).unwrap()
}

#[test]
fn files_of_rocksdb_in_a_checkpoint_that_are_not_what_they_were_are_named_and_nothing_is_lost() {
    let killed = killed();
    let read = |name: &str| fs::read(killed.flights.checkpoints().join(name)).unwrap();
    let of_length = |content: Vec<u8>, length: usize| content.into_iter().cycle().take(length).collect::<Vec<_>>();
    let (oldest, newest) = (killed.oldest(), killed.newest());
    let table = read(oldest);
    let foreign = table_of_another_job();
    let [first, second] = [0, 1].map(|subtask| &*killed.indexes[subtask]);
    let (index, other) = (read(first), read(second));
    let mut rng = Rng::new(SEED);
    let mut cases = Vec::new();
    let mut case = |name, file: &str, content: Option<Vec<u8>>, said| {
        cases.push(Case { name, file: file.to_owned(), content, said });
    };
    let (sum, bytes) = ("its checksum is wrong", "the checkpoint names");
    case("a shared table is missing", oldest, None, "is missing");
    case("a new table is missing", newest, None, "is missing");
    case("a table is cut in half", oldest, Some(table[..table.len() / 2].to_vec()), bytes);
    case("a table lacks its last byte", newest, Some(read(newest).split_last().unwrap().1.to_vec()), bytes);
    case("a table is empty", newest, Some(Vec::new()), bytes);
    case("another table of the same length", oldest, Some(of_length(read(newest), table.len())), sum);
    case("a table of another job", oldest, Some([&foreign[..], b"x"].concat()), bytes);
    case("a table of another job, of the same length", oldest, Some(of_length(foreign, table.len())), sum);
    for name in ["a byte of a shared table is flipped", "another byte"] {
        case(name, oldest, Some(flipped(&table, rng.below(table.len()))), sum);
    }
    let table = read(newest);
    case("a byte of a new table is flipped", newest, Some(flipped(&table, rng.below(table.len()))), sum);
    case("the index is missing", first, None, "is missing");
    case("the index is cut in half", first, Some(index[..index.len() / 2].to_vec()), bytes);
    case("the index of the other subtask", first, Some(of_length(other.clone(), index.len() + 1)), bytes);
    let manifest = held(&index, "MANIFEST-");
    let at = manifest.start + rng.below(manifest.len());
    case("a byte of the MANIFEST is flipped", first, Some(flipped(&index, at)), sum);
    let current = held(&other, "CURRENT");
    case("a byte of CURRENT is flipped", second, Some(flipped(&other, current.start)), sum);
    case("another index of the same length", first, Some(other_index(&index)), sum);

    side_by_side(3, cases.len(), |at| cases[at].run(killed, 1 + at % 3));
}

/// Whether there is a table anywhere below the folder.
fn has_table(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|ext| ext == "sst") || has_table(&path))
}

#[test]
fn a_process_killed_in_the_midst_of_an_import_does_it_again() {
    for parallelism in 1..=3 {
        let flights = killed().flights.copy();
        // What the killed one before it left is swept first.
        for home in database_homes(&flights.path().join("state")) {
            fs::remove_dir_all(home).unwrap();
        }
        let what = format!("at parallelism {parallelism}");
        let completed = flights.log().completed().count();
        for _ in 0..2 {
            let mut process = flights.start(&fast(parallelism));
            process.wait_until("an import", |_| has_table(&flights.path().join("state")));
            process.kill();
            assert_eq!(flights.log().completed().count(), completed, "{what}: it was killed too late");
            let left = database_homes(&flights.path().join("state"));
            assert_eq!(left.len(), 1, "{what}: what is killed can't tidy up, and what the one before left is swept");
        }
        assert_goes_on(&flights, parallelism, &what);
    }
}
