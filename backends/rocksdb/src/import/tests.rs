use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use cutwater_core::{MaxParallelism, OperatorUid};
use cutwater_state::{CodecId, ColdBatch, ColdImage, ColdState, ColdTier, MakeFile, Schema, StateHeader, StateKind};

use super::*;
use crate::RocksTier;
use crate::image::RocksImage;
use crate::steps::Steps;

fn groups(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

#[test]
fn names_that_lead_elsewhere_are_no_files_of_an_image() {
    for name in ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "a\0"] {
        assert!(!is_plain(name), "{name:?}");
    }
    for name in ["CURRENT", "000012.sst", "MANIFEST-000005", "..x"] {
        assert!(is_plain(name), "{name}");
    }
}

#[test]
fn what_is_outside_of_groups_is_all_other_names() {
    assert_eq!(outside(groups(0, u16::MAX)), []);
    assert_eq!(outside(groups(0, 9)), [(vec![0, 10], None)]);
    assert_eq!(outside(groups(300, u16::MAX)), [(vec![], Some(vec![1, 44]))]);
    assert_eq!(outside(groups(3, 3)), [(vec![], Some(vec![0, 3])), (vec![0, 4], None)]);
}

/// An image that lies in files.
#[derive(Debug)]
struct Source {
    image: RocksImage,
    groups: KeyGroupRange,
}

impl ImageSource for Source {
    fn files(&self) -> &[ImageFile] {
        self.image.files()
    }

    fn groups(&self) -> KeyGroupRange {
        self.groups
    }

    fn read(&self, file: usize, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let failed = |error: io::Error| ColdError { action: "copy".into(), reason: error.to_string().into() };
        let mut from = self.image.open(file).map_err(failed)?;
        io::copy(&mut from, &mut make().map_err(failed)?).map_err(failed)?;
        Ok(())
    }
}

fn header() -> StateHeader {
    StateHeader {
        operator: OperatorUid::new("operator").unwrap(),
        name: "state".to_owned(),
        kind: StateKind::Value,
        key_codec: CodecId::Bytes,
        key_schema: Schema::Bytes,
        value_codec: CodecId::Bytes,
        value_schema: Schema::Bytes,
        max_parallelism: MaxParallelism::default(),
    }
}

/// So many entries in each of the key groups `0..10`.
const EACH: u32 = 20_000;

fn fill(tier: &RocksTier, state: ColdState) {
    let mut batch = ColdBatch::default();
    for group in 0..10_u16 {
        for key in 0..EACH {
            let value = key.wrapping_mul(2_654_435_761).to_be_bytes().repeat(5);
            batch.put(&[&group.to_be_bytes()[..], &key.to_be_bytes()].concat(), &value);
        }
    }
    tier.write(state, &batch).unwrap();
}

fn count(tier: &RocksTier, state: ColdState) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    let mut visit = |name: &[u8], _: &[u8]| {
        *counts.entry(u16::from_be_bytes([name[0], name[1]])).or_insert(0) += 1;
        ControlFlow::Continue(())
    };
    tier.view().unwrap().scan(state, groups(0, u16::MAX), &mut visit).unwrap();
    counts
}

fn tables(folder: &Path) -> BTreeSet<u64> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let tables = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "sst"));
    tables.map(|file| file.metadata().unwrap().ino()).collect()
}

struct Rig {
    folder: tempfile::TempDir,
    budget: RocksBudget,
    made: usize,
}

impl Rig {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), budget: RocksBudget::default(), made: 0 }
    }

    fn folder(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.path().join(self.made.to_string())
    }

    /// Files that reach further are as they were.
    fn cut_of(&mut self, source: &Source, wanted: KeyGroupRange) -> RocksTier {
        RocksTier::cut_from_images(&self.folder(), &self.budget, &Steps::default(), &[source], wanted).unwrap().0
    }

    fn of(&mut self, sources: &[&Source], wanted: KeyGroupRange) -> RocksTier {
        let sources: Vec<_> = sources.iter().map(|source| *source as &dyn ImageSource).collect();
        RocksTier::from_images(&self.folder(), &self.budget, &sources, wanted).unwrap().0
    }
}

fn image(tier: &RocksTier, groups: KeyGroupRange) -> Source {
    Source { image: RocksImage::new(tier.database()).unwrap(), groups }
}

/// Both ways of joining: right after images were cut out of another the entries are copied, later their files are linked.
#[test]
fn files_are_joined_once_nothing_else_is_in_them() {
    let mut rig = Rig::new();
    let tier = RocksTier::create(&rig.folder(), &rig.budget).unwrap();
    let state = tier.open(&header()).unwrap();
    fill(&tier, state);
    tier.flush().unwrap();
    let whole = image(&tier, groups(0, 9));
    let all: BTreeMap<u16, u32> = (0..10).map(|group| (group, EACH)).collect();

    let mut halves = [rig.cut_of(&whole, groups(0, 4)), rig.cut_of(&whole, groups(5, 9))];
    for (half, wanted) in halves.iter().zip([0..5, 5..10]) {
        let state = half.open(&header()).unwrap();
        assert_eq!(count(half, state), all.clone().into_iter().filter(|(group, _)| wanted.contains(group)).collect());
    }
    for clean in [false, true] {
        if clean {
            for (half, wanted) in halves.iter_mut().zip([groups(0, 4), groups(5, 9)]) {
                half.clean(wanted);
                half.wait_until_clean();
            }
        }
        let parts = [image(&halves[0], groups(0, 4)), image(&halves[1], groups(5, 9))];
        let files = |part: &Source| part.files().iter().filter(|file| file.lasting).map(|file| file.bytes).sum::<u64>();
        let joined = rig.of(&[&parts[0], &parts[1]], groups(0, 9));
        let state = joined.open(&header()).unwrap();
        assert_eq!(count(&joined, state), all, "clean: {clean}");
        // What was copied is still in memory.
        assert_eq!(joined.statistics().sst_bytes > 0, clean);
        assert_eq!(tables(joined.folder()).is_empty(), !clean);
        if clean {
            assert_eq!(joined.statistics().sst_bytes, files(&parts[0]) + files(&parts[1]));
        }
        // A third of what two have.
        let third = rig.of(&[&parts[0], &parts[1]], groups(3, 6));
        let state = third.open(&header()).unwrap();
        assert_eq!(count(&third, state).into_keys().collect::<Vec<_>>(), [3, 4, 5, 6]);
        let beside: Vec<_> = fs::read_dir(third.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let is_left = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name.starts_with("import-") || name.starts_with("export-")
        };
        assert!(!beside.iter().any(is_left), "{beside:?}");
    }
}

#[test]
fn an_image_takes_no_room_and_goes_when_it_is_dropped() {
    let mut rig = Rig::new();
    let tier = RocksTier::create(&rig.folder(), &rig.budget).unwrap();
    let state = tier.open(&header()).unwrap();
    fill(&tier, state);
    let first = image(&tier, groups(0, 9));
    let linked = fs::read_dir(tier.folder()).unwrap().map(|entry| entry.unwrap());
    let folder = linked.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    assert!(tables(&folder).is_subset(&tables(tier.folder())), "they are the same files");
    // One entry more is one small file more.
    let mut batch = ColdBatch::default();
    batch.put(b"\0\0key", b"value");
    tier.write(state, &batch).unwrap();
    let second = image(&tier, groups(0, 9));
    let new: Vec<_> = second.files().iter().filter(|file| file.lasting && !first.files().contains(file)).collect();
    assert!(matches!(new[..], [file] if file.bytes < 2_000), "{new:?}");
    drop((first, second));
    assert!(!folder.exists());
}

/// What says which files there are grows with each file that comes or goes, and every image has it.
#[test]
fn what_an_image_has_besides_entries_stays_small() {
    let mut rig = Rig::new();
    let tier = RocksTier::create(&rig.folder(), &rig.budget).unwrap();
    let state = tier.open(&header()).unwrap();
    let mut batch = ColdBatch::default();
    for round in 0..600_u32 {
        batch.clear();
        batch.put(&[&[0, 0][..], &(round % 10).to_be_bytes(), &[b'k'; 200]].concat(), b"value");
        tier.write(state, &batch).unwrap();
        tier.flush().unwrap();
    }
    let image = image(&tier, groups(0, 9));
    let beside: u64 = image.files().iter().filter(|file| !file.lasting).map(|file| file.bytes).sum();
    assert!(beside < 160 << 10, "{beside} bytes");
}
