//! What a disk can do to a tier is an error that says what to do, and never a panic.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{TempTier, header};
use cutwater_core::MaxParallelism;
use cutwater_rocksdb::{RocksBudget, RocksTier};
use cutwater_state::{ColdBatch, ColdError, ColdState, ColdTier, StateKind};

const ENTRIES: u32 = 20_000;

fn name(n: u32) -> Vec<u8> {
    [&[0, (n % 100) as u8][..], &n.to_be_bytes()].concat()
}

/// Bytes that do not compress, the same for the same `n`.
fn value(n: u32) -> Vec<u8> {
    let mut state = u64::from(n) << 32;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).to_be_bytes()
    };
    [next(), next(), next(), next(), next(), next()].concat()
}

fn open(tier: &impl ColdTier) -> ColdState {
    tier.open(&header("state", StateKind::Map)).unwrap()
}

fn fill(tier: &impl ColdTier, entries: std::ops::Range<u32>) -> Result<(), ColdError> {
    let state = open(tier);
    let mut batch = ColdBatch::default();
    for n in entries {
        batch.put(&name(n), &value(n));
    }
    batch.sort();
    tier.write(state, &batch)
}

/// How many entries can be read, and that they are what was written.
fn read_all(tier: &impl ColdTier, by_many: usize) -> Result<usize, ColdError> {
    let state = open(tier);
    let names: Vec<_> = (0..ENTRIES).map(name).collect();
    let mut count = 0;
    for (chunk, names) in names.chunks(by_many).enumerate() {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let mut found = |at: usize, bytes: &[u8]| {
            assert!(bytes == value((chunk * by_many + at) as u32), "what is read was written");
            count += 1;
        };
        tier.get(state, &names, &mut found)?;
    }
    Ok(count)
}

fn scan_all(tier: &impl ColdTier) -> Result<usize, ColdError> {
    let state = open(tier);
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    tier.view()?.scan(state, MaxParallelism::default().all(), &mut visit)?;
    Ok(count)
}

fn files_of(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_str().unwrap().ends_with(suffix));
    files.sort();
    files
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// A process with pipes to it, which is killed in the end.
struct Helper(Child);

impl Helper {
    /// Starts it and waits until it says that it is ready.
    fn start(command: &mut Command) -> Self {
        let mut helper = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(helper.0.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "{command:?} was not ready: see what it wrote");
        helper
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// File systems of our own below `folder`, in a mount namespace that ends with the helper; and `folder` as it is seen there.
///
/// Nobody may try to remove the folder from outside, not even while it is empty: the kernel unmounts it then.
fn mounted(folder: &Path, script: &str) -> (Helper, PathBuf) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]).current_dir(folder);
    // Needs root on Linux.
    let helper = Helper::start(command.arg(format!("set -e; {script}; echo ready; exec cat")));
    let seen = Path::new(&format!("/proc/{}/root", helper.0.id())).join(folder.strip_prefix("/").unwrap());
    (helper, seen)
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_mounts, folder) = mounted(folder.path(), "mount -t tmpfs -o size=6m tmpfs .");
    let folder = folder.join("tier");
    let budget = RocksBudget::new(1 << 20, 1 << 20);
    let tier = RocksTier::create(&folder, &budget).unwrap();
    let mut rounds = 0..20;
    let error = rounds.find_map(|round| fill(&tier, round * ENTRIES..(round + 1) * ENTRIES).and(tier.flush()).err());
    let error = error.expect("20 MB don't fit into 6");
    assert!(rounds.start > 1, "something fitted");
    assert!(error.reason.contains("the disk is full: make room"), "{error}");
    assert_eq!(read_all(&tier, 100).unwrap(), ENTRIES as usize, "what is there can be read");
    let error = fill(&tier, 0..ENTRIES).and(tier.flush()).unwrap_err();
    assert!(error.reason.contains("the disk is full: make room"), "{error}");
    drop(tier);
    let tier = RocksTier::create(&folder, &budget).unwrap();
    fill(&tier, 0..ENTRIES).and(tier.flush()).expect("there is room again");
}

#[test]
fn a_read_only_disk_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_mounts, folder) = mounted(folder.path(), "mount -t tmpfs -o ro tmpfs .");
    for path in [folder.clone(), folder.join("below")] {
        let error = RocksTier::create(&path, &RocksBudget::default()).unwrap_err();
        assert!(error.reason.contains("put the folder of the state on a disk that can be written"), "{error}");
    }
}

/// The other process is this test again, which a variable tells what it is.
#[test]
fn a_folder_in_use_by_another_process_is_refused() {
    const HELD: &str = "TEST_FOLDER_TO_HOLD";
    let budget = RocksBudget::default();
    if let Some(folder) = std::env::var_os(HELD) {
        let _tier = RocksTier::create(Path::new(&folder), &budget).unwrap();
        println!("\nready");
        std::io::stdin().read_line(&mut String::new()).unwrap(); // until the other one ends
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_folder_in_use_by_another_process_is_refused", "--nocapture"]);
    let holder = Helper::start(command.env(HELD, folder.path()));
    for again in [RocksTier::create(folder.path(), &budget), RocksTier::reopen(folder.path(), &budget)] {
        let error = again.unwrap_err();
        assert!(error.reason.contains("another process has the folder open"), "{error}");
    }
    drop(holder);
    RocksTier::create(folder.path(), &budget).expect("what a killed process had open is free");
}

#[test]
fn a_folder_in_use_is_refused() {
    let first = TempTier::new();
    fill(&first, 0..100).unwrap();
    let budget = RocksBudget::default();
    for again in [RocksTier::create(first.tier.folder(), &budget), RocksTier::reopen(first.tier.folder(), &budget)] {
        let error = again.expect_err("the folder is in use");
        assert!(error.reason.contains("each subtask needs a folder of its own"), "{error}");
        assert!(error.action.contains(first.tier.folder().to_str().unwrap()), "{error}");
    }
    assert_eq!(read_all(&first, 100).unwrap(), 100, "the first one goes on");
}

#[test]
fn what_was_flushed_can_be_opened_again_and_create_begins_empty() {
    let folder = tempfile::tempdir().unwrap();
    let budget = RocksBudget::default();
    let tier = RocksTier::reopen(&folder.path().join("a/b"), &budget).unwrap();
    let other = tier.open(&header("other", StateKind::List)).unwrap();
    let mut batch = ColdBatch::default();
    batch.put(&name(1), b"of another state");
    tier.write(other, &batch).unwrap();
    fill(&tier, 0..ENTRIES).unwrap();
    tier.flush().unwrap();
    let path = tier.folder().to_owned();
    drop(tier);
    let tier = RocksTier::reopen(&path, &budget).unwrap();
    assert_eq!(read_all(&tier, 1).unwrap(), ENTRIES as usize, "one by one");
    assert_eq!(scan_all(&tier).unwrap(), ENTRIES as usize);
    let mut found = Vec::new();
    let other = tier.open(&header("other", StateKind::List)).unwrap();
    tier.get(other, &[&name(1), &name(2)], &mut |at, value| found.push((at, value.to_vec()))).unwrap();
    assert_eq!(found, [(0, b"of another state".to_vec())]);
    fs::write(path.join("notes.txt"), "not of RocksDB").unwrap();
    drop(tier);
    let tier = RocksTier::create(&path, &budget).unwrap();
    assert_eq!((read_all(&tier, 100).unwrap(), scan_all(&tier).unwrap()), (0, 0));
    assert!(path.join("notes.txt").exists(), "files of others stay");
}

#[test]
fn a_view_outlives_its_tier() {
    let TempTier { tier, folder: _folder } = TempTier::new();
    fill(&tier, 0..100).unwrap();
    let (state, view) = (open(&tier), tier.view().unwrap());
    drop(tier);
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    view.scan(state, MaxParallelism::default().all(), &mut visit).unwrap();
    assert_eq!(count, 100);
}

#[test]
fn a_state_of_no_number_is_refused() {
    let tier = TempTier::new();
    open(&tier);
    let error = tier.get(ColdState(1), &[b"name"], &mut |_, _| {}).unwrap_err();
    assert!(error.reason.contains("open it first"), "{error}");
    assert!(tier.write(ColdState(7), &ColdBatch::default()).is_err());
}

/// Wherever a byte of a file is changed: what is read is what was written, or the error says what to do, and names the file that was read.
#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let budget = RocksBudget::default();
    let tier = RocksTier::create(folder.path(), &budget).unwrap();
    fill(&tier, 0..ENTRIES).unwrap();
    tier.flush().unwrap();
    drop(tier);
    let [file] = &files_of(folder.path(), ".sst")[..] else { panic!("one flush makes one file") };
    let (length, mut read, mut opened) = (fs::metadata(file).unwrap().len() as usize, 0, 0);
    // In the data, from its first block on; in filter and index behind it; in the footer.
    let places = (0..20).map(|n| 100 + n * (length - 200) / 20).chain((1..=60).map(|back| length - back * 7));
    for at in places {
        flip(file, at);
        // A cache of its own each, or the blocks of before would be in it.
        let budget = RocksBudget::new(1 << 20, 1 << 20);
        match RocksTier::reopen(folder.path(), &budget) {
            Ok(tier) => {
                let attempts = [read_all(&tier, 1), read_all(&tier, 100), scan_all(&tier)];
                for (attempt, expected) in
                    attempts.into_iter().zip(["read 1 entries", "read 100 entries", "scan key groups"])
                {
                    match attempt {
                        Ok(count) => assert_eq!(count, ENTRIES as usize, "byte {at} of {length}"),
                        Err(error) => {
                            read += 1;
                            assert!(error.reason.contains(file.file_name().unwrap().to_str().unwrap()), "{error}");
                            assert!(error.reason.contains("restart from the last checkpoint"), "{error}");
                            assert!(error.action.starts_with(expected), "{error}");
                        }
                    }
                }
            }
            Err(error) => {
                opened += 1; // RocksDB may suspect the manifest then
                assert!(error.reason.contains(folder.path().to_str().unwrap()), "{error}");
                assert!(error.reason.contains("restart from the last checkpoint"), "{error}");
            }
        }
        flip(file, at);
    }
    assert!(read > 30 && opened > 0, "{read} errors when it is read, {opened} when it is opened");
    assert_eq!(read_all(&RocksTier::reopen(folder.path(), &budget).unwrap(), 7).unwrap(), ENTRIES as usize);
}

#[test]
fn a_damaged_manifest_is_an_error_and_create_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let budget = RocksBudget::default();
    let tier = RocksTier::create(folder.path(), &budget).unwrap();
    fill(&tier, 0..100).unwrap();
    tier.flush().unwrap();
    drop(tier);
    let manifests = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    for manifest in manifests.filter(|file| file.to_str().unwrap().contains("MANIFEST")) {
        flip(&manifest, 20);
    }
    let error = RocksTier::reopen(folder.path(), &budget).unwrap_err();
    assert!(error.reason.contains("restart from the last checkpoint with an empty folder"), "{error}");
    let tier = RocksTier::create(folder.path(), &budget).unwrap();
    assert_eq!(scan_all(&tier).unwrap(), 0);
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "text").unwrap();
    for result in [RocksTier::create(&file, &RocksBudget::default()), RocksTier::reopen(&file, &RocksBudget::default())]
    {
        let error = result.unwrap_err();
        assert!(error.action.contains(file.to_str().unwrap()), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"text", "it stays");
}

/// Many writes in memory become a file beside what is loaded, which is newer.
#[test]
fn what_is_loaded_is_newer_than_many_writes_in_memory() {
    const MANY: u32 = 200_000;
    let tier = TempTier::new();
    let state = open(&tier);
    fill(&tier, 0..100).unwrap();
    assert!(tier.load(state).unwrap().is_none(), "a few are written together with what follows");
    fill(&tier, 0..MANY).unwrap();
    let mut load = tier.load(state).unwrap().expect("many become a file of their own");
    let mut batch = ColdBatch::default();
    let mut names: Vec<_> = (0..MANY).filter(|n| n % 3 == 0).map(|n| (name(n), n)).collect();
    names.sort_unstable();
    for (name, n) in &names {
        if n % 2 == 0 { batch.delete(name) } else { batch.put(name, b"newer") }
    }
    load.write(&batch).unwrap();
    load.finish().unwrap();
    let mut found = vec![None; 1000];
    let names: Vec<_> = (0..1000).map(name).collect();
    let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    tier.get(state, &asked, &mut |at, value| found[at] = Some(value.to_vec())).unwrap();
    for (n, found) in (0..).zip(found) {
        let expected = match n % 6 {
            0 => None,
            3 => Some(b"newer".to_vec()),
            _ => Some(value(n)),
        };
        assert_eq!(found, expected, "{n}");
    }
    assert_eq!(scan_all(&tier).unwrap(), (MANY - MANY.div_ceil(6)) as usize);
}

#[test]
fn statistics_tell_memory_from_files() {
    let tier = TempTier::new();
    fill(&tier, 0..ENTRIES).unwrap();
    let before = tier.tier.statistics();
    tier.tier.flush().unwrap();
    let after = tier.tier.statistics();
    let bytes = u64::from(ENTRIES) * 54;
    assert!(before.memtable_bytes > bytes && before.sst_bytes == 0, "{before:?}");
    assert!(after.sst_bytes > bytes / 2 && after.memtable_bytes < before.memtable_bytes, "{after:?}");
    assert!(!after.write_stopped && after.delayed_write_rate == 0);
}

#[test]
fn tiers_share_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let budget = RocksBudget::new(64 << 20, 16 << 20);
    let tiers: Vec<_> =
        (0..4).map(|n| RocksTier::create(&folder.path().join(n.to_string()), &budget).unwrap()).collect();
    for round in 0..8 {
        for tier in &tiers {
            fill(tier, round * ENTRIES..(round + 1) * ENTRIES).unwrap();
        }
    }
    // 50 MB were written; without the budget all of it would be in memory.
    let used = budget.write_buffer_used_bytes();
    assert!(used <= 2 * budget.write_buffer_bytes(), "{used} bytes");
    assert!(tiers.iter().all(|tier| tier.statistics().sst_bytes > 0), "some of each is in files");
    assert_eq!(tiers.iter().map(|tier| read_all(tier, 100).unwrap()).sum::<usize>(), 4 * ENTRIES as usize);
    assert!(budget.cache_used_bytes() > 0);
}
