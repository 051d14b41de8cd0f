use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::error::ProbeError;
use crate::files::{Fate, MemoryFiles, Unsynced};
use crate::verify;

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// Fails `step` the `nth` time (from 0), and from then on everything if `dies`.
fn failing(step: Step, nth: usize, dies: bool) -> StepHook {
    let state = Mutex::new((0, false));
    Arc::new(move |now, _: &Path| {
        let (seen, dead) = &mut *state.lock().unwrap();
        let hit = now == step && *seen == nth;
        *seen += usize::from(now == step);
        *dead |= hit && dies;
        if hit || *dead { Err(io::Error::other("injected")) } else { Ok(()) }
    })
}

/// Runs one operation to the end and returns the steps it took.
fn steps_of(run: impl FnOnce(&LocalFolder)) -> Vec<Step> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let hook: StepHook = Arc::new(move |step, _| {
        log.lock().unwrap().push(step);
        Ok(())
    });
    run(&LocalFolder::with_files("/data/job", Arc::new(MemoryFiles::new())).with_steps(hook));
    std::mem::take(&mut *seen.lock().unwrap())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Create,
    Writer,
}

const BYTES: usize = (2 << 20) + 5; // three pieces

/// Stores an object, one way or the other.
fn store_one(store: &LocalFolder, way: Way) -> Result<(), CreateError> {
    let (object, bytes) = (name("log/object"), vec![7; BYTES]);
    match way {
        Way::Create => store.create(&object, &bytes),
        Way::Writer => {
            let finish = || {
                let mut writer = store.writer(&object)?;
                writer.write(&bytes)?;
                writer.finish()
            };
            // A data file is given up after any error, so its writer does not tell the two apart.
            finish().map(drop).map_err(|source| CreateError::Unknown { source })
        }
    }
}

#[test]
fn an_object_is_made_by_these_steps_in_this_order() {
    use Step::{
        CreateFolder, CreateTemp, Delete, Link, SyncEarlier, SyncFolder, SyncParent, SyncTemp, UnlinkTemp, WriteTemp,
    };
    // The first sync is for what is there already: whoever made it may have been killed before.
    let first = [SyncParent, CreateFolder, SyncParent, CreateFolder, SyncParent, CreateFolder, SyncParent];
    let written = [CreateTemp, WriteTemp, WriteTemp, WriteTemp, SyncTemp];
    let named = [Link, UnlinkTemp, SyncFolder];
    for (way, earlier) in [(Way::Create, &[SyncEarlier][..]), (Way::Writer, &[])] {
        let steps = steps_of(|store| store_one(store, way).unwrap());
        assert_eq!(steps, [&first[..], &written, earlier, &named].concat(), "{way:?}");
    }
    let both = steps_of(|store| {
        store.create(&name("log/a"), b"1").unwrap();
        store.create(&name("log/a"), b"2").unwrap_err();
        store.delete(&name("log/a")).unwrap();
    });
    let won = [CreateTemp, WriteTemp, SyncTemp, SyncEarlier, Link, UnlinkTemp, SyncFolder];
    let lost = [CreateTemp, WriteTemp, SyncTemp, SyncEarlier, Link, SyncFolder, UnlinkTemp, Delete];
    assert_eq!(both, [&first[..], &won, &lost].concat(), "the loser syncs the folder before it says so");
}

#[test]
fn a_step_that_fails_is_failed_before_the_link_and_unknown_after_it_and_leaves_no_half_object() {
    for way in [Way::Create, Way::Writer] {
        let steps = steps_of(|store| store_one(store, way).unwrap());
        for (at, &step) in steps.iter().enumerate() {
            let nth = steps[..at].iter().filter(|&&earlier| earlier == step).count();
            let label = format!("{way:?}: {step}, time {nth}");
            let files = Arc::new(MemoryFiles::new());
            let store = LocalFolder::with_files("/data/job", files.clone()).with_steps(failing(step, nth, false));
            let after_link = matches!(step, Step::UnlinkTemp | Step::SyncFolder);
            match store_one(&store, way).expect_err(&label) {
                CreateError::Failed { source } => {
                    assert!(!after_link, "{label}");
                    assert!(source.to_string().contains("file:///data/job/log/object"), "{source}");
                    assert!(source.source().unwrap().to_string().contains("injected"), "{label}");
                }
                CreateError::Unknown { .. } => assert!(after_link || way == Way::Writer, "{label}"),
                CreateError::Exists => panic!("{label}"),
            }
            let object = PathBuf::from("/data/job/log/object");
            let left = files.snapshot();
            assert_eq!(left.contains_key(&object), after_link, "{label}");
            assert!(left.iter().all(|(path, bytes)| *path == object && bytes.len() == BYTES), "{label}: {left:?}");

            // One bad moment harms nobody later.
            match store.create(&name("log/object"), b"again") {
                Ok(()) => assert!(!after_link, "{label}"),
                Err(CreateError::Exists) => assert!(after_link, "{label}"),
                Err(error) => panic!("{label}: {error}"),
            }
        }
    }
}

/// The fates to try for what a crash finds unsynced, by number.
fn fate(seed: u64, unsynced: &Unsynced, asked: u32) -> Fate {
    let bit = seed >> (asked % 12) & 1 == 1;
    match unsynced {
        Unsynced::Added(_) | Unsynced::Removed(_) => {
            if bit {
                Fate::Kept
            } else {
                Fate::Lost
            }
        }
        Unsynced::Tail { unsynced, .. } => match (bit, seed & 1 == 1) {
            (true, true) => Fate::Kept,
            (true, false) => Fate::Torn(unsynced / 2),
            (false, true) => Fate::Zeroed,
            (false, false) => Fate::Lost,
        },
    }
}

#[test]
fn after_a_kill_and_a_loss_of_power_at_any_step_the_object_is_whole_or_absent() {
    let (mut whole, mut absent, mut swept) = (0, 0, 0);
    for way in [Way::Create, Way::Writer] {
        let steps = steps_of(|store| store_one(store, way).unwrap());
        for at in 0..=steps.len() {
            for seed in 0..64 {
                let files = Arc::new(MemoryFiles::new());
                let store = LocalFolder::with_files("/data/job", files.clone());
                let done = match steps.get(at) {
                    Some(&step) => {
                        let nth = steps[..at].iter().filter(|&&earlier| earlier == step).count();
                        store_one(&store.with_steps(failing(step, nth, true)), way)
                    }
                    None => store_one(&store, way),
                };
                assert_eq!(done.is_ok(), at == steps.len());
                let mut asked = 0;
                files.crash(|unsynced| {
                    asked += 1;
                    fate(seed * 67, unsynced, asked)
                });

                let store = LocalFolder::with_files("/data/job", files.clone());
                let label = format!("{way:?}, killed before step {at}, fates {seed}");
                match store.read(&name("log/object"), 1 << 30).unwrap() {
                    Some(bytes) => {
                        assert!(bytes == vec![7; BYTES], "{label}: a half object");
                        assert!(steps[..at].contains(&Step::Link), "{label}: an object from nowhere");
                        whole += 1;
                    }
                    None => {
                        assert_ne!(at, steps.len(), "{label}: lost although its creator was told it is durable");
                        absent += 1;
                    }
                }
                swept += store.sweep_leftovers("").unwrap();
                let left = files.snapshot();
                assert!(left.keys().all(|path| path.ends_with("object")), "{label}: {left:?}");
                store.probe().unwrap();
            }
        }
    }
    assert!(
        whole > 128 && absent > 128 && swept > 20,
        "whole {whole}, absent {absent}, swept {swept}: too tame a test"
    );
}

#[test]
fn whoever_hears_that_a_name_is_taken_can_rely_on_it_though_the_winner_was_killed() {
    let files = Arc::new(MemoryFiles::new());
    let winner = LocalFolder::with_files("/data", files.clone());
    winner.create(&name("log/0"), b"0").unwrap(); // the folder is there and durable
    let killed = winner.with_steps(failing(Step::SyncFolder, 0, true));
    assert!(matches!(killed.create(&name("log/1"), b"mine"), Err(CreateError::Unknown { .. })));
    let loser = LocalFolder::with_files("/data", files.clone());
    assert!(matches!(loser.create(&name("log/1"), b"other"), Err(CreateError::Exists)));
    files.crash_losing_all();
    assert_eq!(loser.read(&name("log/1"), 9).unwrap().unwrap(), b"mine");
}

#[test]
fn an_object_does_not_outlive_those_that_were_there_before_it() {
    let files = Arc::new(MemoryFiles::new());
    let first = LocalFolder::with_files("/data", files.clone());
    first.create(&name("log/0"), b"0").unwrap(); // the folder is there and durable
    let killed = first.with_steps(failing(Step::SyncFolder, 0, true));
    assert!(matches!(killed.create(&name("log/1"), b"1"), Err(CreateError::Unknown { .. })));
    let next = LocalFolder::with_files("/data", files.clone());
    assert!(next.open(&name("log/1")).unwrap().is_some(), "it is seen, and so the next one comes after it");
    let killed = next.with_steps(failing(Step::SyncFolder, 0, true));
    assert!(matches!(killed.create(&name("log/2"), b"2"), Err(CreateError::Unknown { .. })));
    // The worst that a loss of power can do: it keeps the second of the two unsynced names only.
    files.crash(|unsynced| match unsynced {
        Unsynced::Added(path) if path.ends_with("log/1") => Fate::Lost,
        Unsynced::Added(_) | Unsynced::Removed(_) | Unsynced::Tail { .. } => Fate::Kept,
    });
    let left = LocalFolder::with_files("/data", files);
    assert_eq!(left.read(&name("log/2"), 9).unwrap().unwrap(), b"2");
    assert_eq!(left.read(&name("log/1"), 9).unwrap().unwrap(), b"1", "a hole in the log");
}

/// A file system whose link fails in a certain way, having linked or not.
#[derive(Debug)]
struct BadLink {
    files: MemoryFiles,
    links: bool,
    error: i32,
}

impl Files for BadLink {
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.links {
            self.files.link(from, to)?;
        }
        Err(io::Error::from_raw_os_error(self.error))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn crate::files::FileWriter>> {
        self.files.create_new(path)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.files.unlink(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.files.sync_folder(path)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.files.create_folder(path)
    }
    fn list_folder(&self, path: &Path) -> io::Result<Vec<crate::files::FolderEntry>> {
        self.files.list_folder(path)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.files.kind(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>> {
        self.files.open(path)
    }
}

#[test]
fn a_link_that_reports_an_error_may_still_have_been_made() {
    const EIO: i32 = 5;
    const EPERM: i32 = 1;
    let store =
        |links, error| LocalFolder::with_files("/d", Arc::new(BadLink { files: MemoryFiles::new(), links, error }));
    for links in [true, false] {
        let store = store(links, EIO);
        assert!(matches!(store.create(&name("a"), b"1"), Err(CreateError::Unknown { .. })), "linked: {links}");
        assert_eq!(store.read(&name("a"), 9).unwrap().is_some(), links);
    }
    // A file system without hard links says so, and the probe tells the user.
    let error = store(false, EPERM).probe().unwrap_err();
    let ProbeError::Unusable { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), StoreErrorKind::Unsupported);
    assert!(error.to_string().contains("file:///d") && source.to_string().contains("hard links"), "{error}: {source}");
}

/// A file system that replaces what is there.
#[derive(Debug)]
struct Replacing(crate::MemoryStore);

impl Store for Replacing {
    fn url(&self) -> String {
        "test:".to_owned()
    }
    fn create(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), CreateError> {
        self.0.delete(name).map(|()| self.0.create(name, bytes)).unwrap()
    }
    fn read(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(name, limit)
    }
    fn open(&self, name: &ObjectName) -> Result<Option<Box<dyn ObjectReader>>, StoreError> {
        self.0.open(name)
    }
    fn writer(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.0.writer(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(prefix)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[test]
fn a_store_without_create_if_absent_is_refused() {
    let store = Replacing(crate::MemoryStore::new());
    let error = store.probe().unwrap_err();
    assert!(matches!(error, ProbeError::CreatesTwice { .. }), "{error}");
    assert_eq!(error.url(), "test:");
    assert!(store.list("").unwrap().is_empty(), "the probe cleans up after itself");
}

#[test]
fn a_full_or_read_only_disk_is_named_and_nothing_is_left() {
    let cases = [
        (Step::WriteTemp, 28, StoreErrorKind::NoSpace, "no space left"),
        (Step::SyncTemp, 28, StoreErrorKind::NoSpace, "no space left"),
        (Step::Link, 28, StoreErrorKind::NoSpace, "no space left"),
        (Step::CreateTemp, 30, StoreErrorKind::ReadOnly, "read-only"),
        (Step::CreateTemp, 13, StoreErrorKind::PermissionDenied, "permission denied"),
    ];
    for (bad, number, kind, text) in cases {
        let folder = tempfile::tempdir().unwrap();
        let hook: StepHook =
            Arc::new(move |step, _| if step == bad { Err(io::Error::from_raw_os_error(number)) } else { Ok(()) });
        let store = LocalFolder::new(folder.path()).with_steps(hook);
        for way in [Way::Create, Way::Writer] {
            let source = match store_one(&store, way) {
                Err(CreateError::Failed { source } | CreateError::Unknown { source }) => source,
                other => panic!("{bad}: {other:?}"),
            };
            assert_eq!(source.kind(), kind, "{bad}");
            let message = source.to_string();
            assert!(message.contains(text) && message.contains(folder.path().to_str().unwrap()), "{message}");
            assert!(message.contains("log/object"), "{message}");
        }
        assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 0, "{bad}");
        let error = store.probe().unwrap_err();
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
        assert!(error.source().unwrap().to_string().contains(text), "{error}");
    }
}

#[test]
fn a_folder_that_can_not_be_written_is_refused_by_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let root_user = fs::metadata(folder.path()).unwrap().uid() == 0;
    // Rights mean nothing to root, but the kernel's own folder takes files from nobody.
    let refused = if root_user { PathBuf::from("/sys") } else { folder.path().to_owned() };
    if !root_user {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let error = LocalFolder::new(&refused).probe().unwrap_err();
    let ProbeError::Unusable { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source.kind(), StoreErrorKind::PermissionDenied | StoreErrorKind::ReadOnly), "{source}");
    assert!(source.to_string().contains(refused.to_str().unwrap()), "{source}");
}

#[test]
fn files_and_folders_are_for_this_user_only_and_the_existing_folder_keeps_its_rights() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let store = LocalFolder::new(folder.path());
    store.create(&name("job/log/0"), b"0").unwrap();
    for (path, expected) in [("job/log/0", 0o600), ("job/log", 0o700), ("job", 0o700), ("", 0o755)] {
        let mode = fs::metadata(folder.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{path:?}");
    }
}

#[test]
fn links_below_the_folder_are_not_followed_but_the_folder_may_be_one() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real", &root).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    symlink(outside.path().join("secret"), root.join("file")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();

    let store = LocalFolder::new(&root);
    store.probe().unwrap();
    for text in ["out/secret", "file", "dangling"] {
        let object = name(text);
        assert_eq!(store.read(&object, 99).unwrap_err().kind(), StoreErrorKind::NotAnObject, "{text}");
        assert_eq!(store.open(&object).unwrap_err().kind(), StoreErrorKind::NotAnObject, "{text}");
        assert_eq!(store.delete(&object).unwrap_err().kind(), StoreErrorKind::NotAnObject, "{text}");
    }
    for text in ["out/new", "out/deeper/new", "dangling/new"] {
        let Err(CreateError::Failed { source }) = store.create(&name(text), b"1") else { panic!("{text}") };
        assert_eq!(source.kind(), StoreErrorKind::NotAnObject, "{text}");
        assert!(source.source().unwrap().to_string().contains("is not a plain file or folder"), "{text}");
    }
    assert!(matches!(store.create(&name("dangling"), b"1"), Err(CreateError::Exists)));
    assert!(store.list("").unwrap().is_empty());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn what_is_not_ours_is_neither_listed_nor_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFolder::new(folder.path());
    store.create(&name("job/a"), b"1").unwrap();
    for foreign in [".hidden", "job/.nfs0001", "job/with space", ".cutwater-12-0", "job/.cutwater-12-1"] {
        fs::write(folder.path().join(foreign), b"x").unwrap();
    }
    let listed = store.list("").unwrap();
    assert_eq!(listed, [Listed { name: name("job/a"), bytes: 1 }]);
    let left =
        |folder| store.leftovers(folder).unwrap().into_iter().map(|left| (left.path, left.bytes)).collect::<Vec<_>>();
    assert_eq!(left("job"), [("job/.cutwater-12-1".to_owned(), Some(1))]);
    assert_eq!((left("").len(), left("..").len()), (2, 0));
    assert_eq!(store.sweep_leftovers("job/").unwrap(), 1);
    assert_eq!(store.sweep_leftovers("").unwrap(), 1);
    assert_eq!(store.sweep_leftovers("..").unwrap(), 0);
    for kept in [".hidden", "job/.nfs0001", "job/with space", "job/a"] {
        assert!(folder.path().join(kept).exists(), "{kept}");
    }
}

#[test]
fn a_writer_whose_temporary_file_was_swept_fails_cleanly() {
    let files = Arc::new(MemoryFiles::new());
    let store = LocalFolder::with_files("/data", files.clone());
    let mut writer = store.writer(&name("a")).unwrap();
    writer.write(b"old reign").unwrap();
    assert_eq!(LocalFolder::with_files("/data", files.clone()).sweep_leftovers("").unwrap(), 1);
    assert_eq!(writer.finish().unwrap_err().kind(), StoreErrorKind::NotFound);
    assert!(files.snapshot().is_empty());
}

#[test]
fn a_temporary_name_that_is_taken_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join(format!("{TEMP_PREFIX}{}-0", process::id()));
    fs::write(&taken, b"of another process with this number").unwrap();
    LocalFolder::new(folder.path()).create(&name("a"), b"1").unwrap();
    assert_eq!(fs::read(&taken).unwrap(), b"of another process with this number");
}

#[test]
fn a_folder_deleted_under_the_store_fails_once_and_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFolder::new(folder.path().join("store"));
    store.create(&name("job/a"), b"1").unwrap();
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let Err(CreateError::Failed { source }) = store.create(&name("job/b"), b"2") else { panic!("it has no folder") };
    assert_eq!(source.kind(), StoreErrorKind::NotFound);
    store.create(&name("job/b"), b"2").unwrap();
}

#[test]
fn a_file_in_the_way_of_the_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"x").unwrap();
    for root in ["file", "file/below"] {
        let store = LocalFolder::new(folder.path().join(root));
        assert!(store.read(&name("a"), 9).unwrap().is_none());
        let Err(CreateError::Failed { source }) = store.create(&name("a"), b"1") else { panic!("{root}") };
        assert!(source.to_string().contains("file"), "{source}");
        assert_eq!(source.kind(), StoreErrorKind::NotAnObject, "{source}: {:?}", source.source());
    }
}

#[test]
fn a_writer_that_failed_stays_failed() {
    let store =
        LocalFolder::with_files("/data", Arc::new(MemoryFiles::new())).with_steps(failing(Step::WriteTemp, 0, false));
    let mut writer = store.writer(&name("a")).unwrap();
    assert!(writer.write(&vec![0; PIECE_AND_A_BIT]).is_err());
    assert!(writer.write(b"more").is_err(), "the hook would let this one pass");
    assert!(writer.finish().is_err());
    assert!(store.list("").unwrap().is_empty());
}

const PIECE_AND_A_BIT: usize = writer::PIECE + 1;

#[test]
fn a_large_object_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFolder::new(folder.path());
    let mut writer = store.writer(&name("large")).unwrap();
    for n in 0..70u8 {
        writer.write(&vec![n; 1 << 20]).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(written.bytes, 70 << 20);
    verify(&store, &name("large"), written.bytes, written.crc32c).unwrap();
}

#[test]
fn a_location_is_a_path_or_a_file_url() {
    let cases = [
        ("/var/lib/job", Ok("/var/lib/job")),
        ("file:///var/lib/job", Ok("/var/lib/job")),
        ("file:///var/lib/job/", Ok("/var/lib/job/")),
        ("file:/var/lib/job", Ok("/var/lib/job")),
        ("file://localhost/var", Ok("/var")),
        ("FILE:///var", Ok("/var")),
        ("/with%20percent and:colon", Ok("/with%20percent and:colon")),
        ("s3://bucket/job", Err("s3")),
        ("hdfs:///job", Err("hdfs")),
        ("file://other-host/job", Err("other-host")),
        ("file://relative", Err("relative")),
        ("file:relative", Err("file:relative")),
        ("", Err("empty")),
    ];
    for (location, expected) in cases {
        match (LocalFolder::parse(location), expected) {
            (Ok(store), Ok(path)) => assert_eq!(store.path(), Path::new(path), "{location}"),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{location}: {error}"),
            (parsed, _) => panic!("{location}: {parsed:?}"),
        }
    }
    let relative = LocalFolder::parse("checkpoints/job").unwrap();
    assert!(relative.path().is_absolute() && relative.path().ends_with("checkpoints/job"));
}
