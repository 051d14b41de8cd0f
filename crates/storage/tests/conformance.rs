//! The contract of `Store`, sentence by sentence, over every store of this crate.
#![expect(clippy::unwrap_used, reason = "all of this is test code, also the functions that the suite calls")]

use std::sync::{Arc, Barrier};
use std::thread;

use cutwater_storage::{CreateError, LocalFolder, MemoryFiles, MemoryStore, ObjectName, Store, StoreErrorKind, verify};

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|listed| listed.name.to_string()).collect()
}

fn a_second_create_finds_the_first(store: &dyn Store) {
    store.create(&name("job/a"), b"first").unwrap();
    assert!(matches!(store.create(&name("job/a"), b"second"), Err(CreateError::Exists)));
    assert_eq!(store.read(&name("job/a"), 5).unwrap().unwrap(), b"first");
    store.create(&name("job/empty"), b"").unwrap();
    assert_eq!(store.read(&name("job/empty"), 0).unwrap().unwrap(), b"");
}

fn of_racing_creators_one_wins(store: &dyn Store) {
    let start = Barrier::new(16);
    for round in 0..8 {
        let slot = name(&format!("race/{round}/slot"));
        let winners: Vec<u8> = thread::scope(|scope| {
            let racers: Vec<_> = (0..16u8)
                .map(|racer| {
                    let (slot, start) = (&slot, &start);
                    scope.spawn(move || {
                        start.wait();
                        match store.create(slot, &[racer; 100]) {
                            Ok(()) => Some(racer),
                            Err(CreateError::Exists) => {
                                // Whoever is told so can read the winner's bytes, whole.
                                assert_eq!(store.read(slot, 100).unwrap().unwrap().len(), 100);
                                None
                            }
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(store.read(&slot, 100).unwrap().unwrap(), [winners[0]; 100]);
    }
}

fn a_reader_takes_no_more_than_its_limit(store: &dyn Store) {
    store.create(&name("eleven"), b"eleven byte").unwrap();
    assert_eq!(store.read(&name("eleven"), 11).unwrap().unwrap(), b"eleven byte");
    let error = store.read(&name("eleven"), 10).unwrap_err();
    assert_eq!((error.kind(), error.name()), (StoreErrorKind::TooLarge, "eleven"));
    assert!(error.to_string().contains("eleven"), "{error}");
}

fn what_is_absent_is_none_and_deleting_it_is_fine(store: &dyn Store) {
    for absent in ["absent", "no/such/folder/absent"] {
        assert!(store.read(&name(absent), 1).unwrap().is_none());
        assert!(store.open(&name(absent)).unwrap().is_none());
        store.delete(&name(absent)).unwrap();
    }
    assert_eq!(verify(store, &name("absent"), 0, 0).unwrap_err().kind(), StoreErrorKind::NotFound);
}

fn a_deleted_name_is_free_again(store: &dyn Store) {
    store.create(&name("job/a"), b"first").unwrap();
    let reader = store.open(&name("job/a")).unwrap().unwrap();
    store.delete(&name("job/a")).unwrap();
    assert!(store.read(&name("job/a"), 9).unwrap().is_none());
    store.create(&name("job/a"), b"second").unwrap();
    assert_eq!(store.read(&name("job/a"), 9).unwrap().unwrap(), b"second");
    let mut buffer = [0; 9];
    assert_eq!(reader.read_at(0, &mut buffer).unwrap(), 5, "an open reader keeps what it had");
    assert_eq!(&buffer[..5], b"first");
}

fn a_writer_is_invisible_until_finished(store: &dyn Store) {
    let object = name("job/large");
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
    let mut writer = store.writer(&object).unwrap();
    // Pieces of all sizes: below, at and above what the store passes on at once.
    let mut rest = &bytes[..];
    for size in [1, 1_000_000, 48_576, 1 << 20, 0, 2_000_001, 7].into_iter().chain([usize::MAX]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        writer.write(piece).unwrap();
        rest = after;
        assert!(store.open(&object).unwrap().is_none());
        assert!(names(store, "").is_empty());
    }
    let written = writer.finish().unwrap();
    assert_eq!((written.bytes, written.crc32c), (bytes.len() as u64, crc32c::crc32c(&bytes)));
    assert_eq!(store.read(&object, 5_000_000).unwrap().unwrap(), bytes);
    verify(store, &object, written.bytes, written.crc32c).unwrap();
}

fn a_dropped_writer_leaves_nothing(store: &dyn Store) {
    let mut writer = store.writer(&name("job/a")).unwrap();
    writer.write(&vec![1; 3 << 20]).unwrap();
    drop(writer);
    assert!(store.read(&name("job/a"), 9).unwrap().is_none());
    assert!(names(store, "").is_empty());
    assert_eq!(store.leftovers("").unwrap(), []);
    assert_eq!(store.sweep_leftovers("").unwrap(), 0);
}

fn a_writer_never_replaces(store: &dyn Store) {
    let mut writer = store.writer(&name("job/a")).unwrap();
    writer.write(b"late").unwrap();
    store.create(&name("job/a"), b"early").unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
    assert!(error.to_string().contains("job/a"), "{error}");
    assert_eq!(store.read(&name("job/a"), 9).unwrap().unwrap(), b"early");
}

fn reads_in_parts_stop_at_the_end(store: &dyn Store) {
    store.create(&name("digits"), b"0123456789").unwrap();
    let reader = store.open(&name("digits")).unwrap().unwrap();
    assert_eq!((reader.len(), reader.is_empty()), (10, false));
    for (offset, size, expected) in
        [(0, 4, &b"0123"[..]), (8, 4, b"89"), (10, 4, b""), (11, 4, b""), (u64::from(u32::MAX), 1, b""), (3, 0, b"")]
    {
        let mut buffer = vec![0; size];
        let count = reader.read_at(offset, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], expected, "{size} bytes from {offset}");
    }
}

fn listings_are_sorted_and_follow_the_prefix(store: &dyn Store) {
    for text in ["b", "a/c/1", "a-1", "a/b", "a/c2", "ab/1"] {
        store.create(&name(text), text.as_bytes()).unwrap();
    }
    let cases = [
        ("", vec!["a-1", "a/b", "a/c/1", "a/c2", "ab/1", "b"]),
        ("a", vec!["a-1", "a/b", "a/c/1", "a/c2", "ab/1"]),
        ("a/", vec!["a/b", "a/c/1", "a/c2"]),
        ("a/c", vec!["a/c/1", "a/c2"]),
        ("a/c/", vec!["a/c/1"]),
        ("a/b", vec!["a/b"]),
        ("a/b/", vec![]),
        ("c", vec![]),
        ("c/d", vec![]),
        ("../", vec![]),
        ("/", vec![]),
        ("a/../", vec![]),
    ];
    for (prefix, expected) in cases {
        assert_eq!(names(store, prefix), expected, "{prefix:?}");
    }
    assert_eq!(store.list("a/c/").unwrap()[0].bytes, 5);
}

fn a_probe_accepts_the_store_and_leaves_nothing(store: &dyn Store) {
    store.probe().unwrap();
    store.probe().unwrap();
    assert!(names(store, "").is_empty());
}

fn verify_finds_any_flipped_or_cut_byte(store: &dyn Store) {
    let bytes = b"a small object, every bit of which matters";
    let crc = crc32c::crc32c(bytes);
    let check = |label: &str, damaged: &[u8]| {
        let object = name("damaged");
        store.create(&object, damaged).unwrap();
        let error = verify(store, &object, bytes.len() as u64, crc).unwrap_err();
        assert_eq!((error.kind(), error.name()), (StoreErrorKind::Corrupt, "damaged"), "{label}");
        assert!(error.to_string().contains("damaged") && std::error::Error::source(&error).is_some(), "{error}");
        store.delete(&object).unwrap();
    };
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        check(&format!("byte {at} flipped"), &flipped);
        check(&format!("cut at {at}"), &bytes[..at]);
    }
    check("longer", &[&bytes[..], b"!"].concat());
}

macro_rules! suite {
    ($($contract:ident),* $(,)?) => {
        mod memory_store { $(
            #[test]
            fn $contract() {
                super::$contract(&super::MemoryStore::new());
            }
        )* }
        mod folder_in_memory { $(
            #[test]
            fn $contract() {
                let files = super::Arc::new(super::MemoryFiles::new());
                super::$contract(&super::LocalFolder::with_files("/var/store", files));
            }
        )* }
        mod local_folder { $(
            #[test]
            fn $contract() {
                let folder = tempfile::tempdir().unwrap();
                super::$contract(&super::LocalFolder::new(folder.path().join("new/store")));
            }
        )* }
    };
}

suite!(
    a_second_create_finds_the_first,
    of_racing_creators_one_wins,
    a_reader_takes_no_more_than_its_limit,
    what_is_absent_is_none_and_deleting_it_is_fine,
    a_deleted_name_is_free_again,
    a_writer_is_invisible_until_finished,
    a_dropped_writer_leaves_nothing,
    a_writer_never_replaces,
    reads_in_parts_stop_at_the_end,
    listings_are_sorted_and_follow_the_prefix,
    a_probe_accepts_the_store_and_leaves_nothing,
    verify_finds_any_flipped_or_cut_byte,
);
