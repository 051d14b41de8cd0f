use std::io;
use std::sync::Mutex;

use cutwater_storage::{Written, verify};

use super::*;
use crate::writer::PART;

fn storage() -> ObjectStorage {
    let folder = Path::from("some/folder");
    ObjectStorage::over("s3://bucket/some/folder".to_owned(), folder, Client::memory(), &Settings::default())
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// Bytes that differ from place to place.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect()
}

/// All paths in the bucket, whatever they are.
fn paths(storage: &ObjectStorage) -> Vec<String> {
    let own = Arc::clone(&storage.inner);
    let listed = wait(async move { own.objects.list(None).try_collect::<Vec<_>>().await });
    listed.unwrap().unwrap().into_iter().map(|entry| entry.location.to_string()).collect()
}

#[test]
fn objects_are_created_once_read_listed_and_deleted() {
    let storage = storage();
    storage.probe().unwrap();
    assert_eq!(paths(&storage), [""; 0]);
    assert_eq!(storage.read(&name("job/log/1"), 10).unwrap(), None);
    assert!(storage.open(&name("job/log/1")).unwrap().is_none());
    storage.create(&name("job/log/1"), b"one").unwrap();
    assert!(matches!(storage.create(&name("job/log/1"), b"one"), Err(CreateError::Exists)));
    assert_eq!(paths(&storage), ["some/folder/job/log/1"]);
    assert_eq!(storage.read(&name("job/log/1"), 3).unwrap().unwrap(), b"one");
    assert_eq!(storage.read(&name("job/log/1"), 2).unwrap_err().kind(), StoreErrorKind::TooLarge);
    storage.create(&name("job/log/10"), b"ten").unwrap();
    storage.create(&name("job/x"), b"").unwrap();
    assert_eq!(storage.read(&name("job/x"), 10).unwrap().unwrap(), b"");
    assert_eq!(storage.read(&name("job/x"), 0).unwrap().unwrap(), b"");
    assert_eq!(storage.read(&name("job/log/1"), u64::MAX).unwrap().unwrap(), b"one");
    assert_eq!(storage.read(&name("job/log/1"), 0).unwrap_err().kind(), StoreErrorKind::TooLarge);
    storage.create(&name("other/log/1"), b"o").unwrap();
    let listed =
        |prefix| storage.list(prefix).unwrap().into_iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(""), ["job/log/1", "job/log/10", "job/x", "other/log/1"]);
    assert_eq!(listed("job/"), ["job/log/1", "job/log/10", "job/x"]);
    assert_eq!(listed("job/l"), ["job/log/1", "job/log/10"]);
    assert_eq!(listed("job/log/1"), ["job/log/1", "job/log/10"]);
    assert_eq!(listed("none"), [""; 0]);
    storage.delete(&name("job/log/1")).unwrap();
    storage.delete(&name("job/log/1")).unwrap();
    assert_eq!(listed("job/l"), ["job/log/10"]);
}

#[test]
fn objects_of_any_size_come_back() {
    let storage = storage();
    for size in [0, 1, 1_000, PART - 1, PART, PART + 1, 5 * PART + 17] {
        let (name, bytes) = (name(&format!("job/{size}")), bytes(size));
        let mut writer = storage.writer(&name).unwrap();
        for (at, piece) in bytes.chunks(700_001).enumerate() {
            // By turns small, large and given away.
            let (small, large) = piece.split_at(piece.len().min(at * 1_000));
            writer.write(small).unwrap();
            if at % 3 == 0 { writer.write(large).unwrap() } else { writer.write_owned(large.to_vec()).unwrap() }
        }
        assert!(storage.open(&name).unwrap().is_none(), "{size}: nobody sees it before");
        let written = writer.finish().unwrap();
        assert_eq!(written, Written { bytes: size as u64, crc32c: crc32c::crc32c(&bytes) });
        verify(&storage, &name, written.bytes, written.crc32c).unwrap();
        let reader = storage.open(&name).unwrap().unwrap();
        for (offset, count) in [(0, 10), (size / 2, 3_000_000), (size.saturating_sub(7), 100), (size + 5, 3), (0, size)]
        {
            let mut buffer = vec![0; count];
            let read = reader.read_at(offset as u64, &mut buffer).unwrap();
            let expected = &bytes[offset.min(size)..(offset + count).min(size)];
            assert!(buffer[..read] == *expected, "{count} bytes at {offset} of {size}");
        }
        let error = storage.writer(&name).unwrap().finish().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::AlreadyExists, "{size}");
    }
    assert!(paths(&storage).iter().all(|path| !path.contains(NOTES)), "{:?}", paths(&storage));
}

#[test]
fn a_large_object_takes_no_name_that_is_taken() {
    let storage = storage();
    storage.create(&name("a"), b"there").unwrap();
    let mut writer = storage.writer(&name("a")).unwrap();
    writer.write(&bytes(PART + 1)).unwrap();
    assert_eq!(writer.finish().unwrap_err().kind(), StoreErrorKind::AlreadyExists);
    assert_eq!(storage.read(&name("a"), 100).unwrap().unwrap(), b"there");
}

#[test]
fn of_a_writer_that_is_dropped_nothing_is_left() {
    let storage = storage();
    let mut writer = storage.writer(&name("job/a")).unwrap();
    writer.write(&bytes(3 * PART)).unwrap();
    assert_eq!(paths(&storage).len(), 1, "the upload is noted");
    assert!(storage.list("").unwrap().is_empty(), "and no object");
    drop(writer);
    let start = std::time::Duration::from_millis(1);
    for _ in 0..10_000 {
        if paths(&storage).is_empty() {
            return;
        }
        let paused = wait(async move { tokio::time::sleep(start).await });
        paused.unwrap();
    }
    panic!("{:?} stayed", paths(&storage));
}

#[test]
fn uploads_of_a_killed_process_are_swept() {
    let storage = storage();
    for job in ["job", "other"] {
        let mut writer = storage.writer(&name(&format!("{job}/3-1-keys"))).unwrap();
        writer.write(&bytes(2 * PART)).unwrap();
        std::mem::forget(writer);
    }
    storage.create(&name("job/log/1"), b"one").unwrap();
    assert_eq!(paths(&storage).len(), 3);
    let left = |storage: &ObjectStorage, folder: &str| {
        let left = storage.leftovers(folder).unwrap().into_iter();
        left.map(|leftover| (leftover.path, leftover.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(left(&storage, ""), [("job/3-1-keys".to_owned(), None), ("other/3-1-keys".to_owned(), None)]);
    assert_eq!(left(&storage, "job"), [("job/3-1-keys".to_owned(), None)]);
    let Inner { objects, uploads, .. } = storage.inner.as_ref();
    let client = Client { objects: Arc::clone(objects), uploads: Arc::clone(uploads), suffixes: true, parts: None };
    let of_job = ObjectStorage::over(String::new(), Path::from("some/folder/job"), client, &Settings::default());
    assert_eq!(left(&of_job, ""), [("3-1-keys".to_owned(), None)], "noted beside the job's folder");
    assert_eq!(storage.sweep_leftovers("job").unwrap(), 1);
    assert_eq!(storage.sweep_leftovers("job").unwrap(), 0);
    assert_eq!(storage.list("").unwrap().len(), 1);
    assert_eq!(storage.sweep_leftovers("").unwrap(), 1);
    assert_eq!(paths(&storage), ["some/folder/job/log/1"]);
}

#[test]
fn each_step_has_a_name_and_can_fail() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let fails = Arc::new(Mutex::new(None));
    let storage = {
        let (seen, fails) = (Arc::clone(&seen), Arc::clone(&fails));
        storage().with_steps(Arc::new(move |step, path| {
            seen.lock().unwrap().push((step, path.to_owned()));
            let fails = *fails.lock().unwrap() == Some(step);
            if fails { Err(io::Error::other("as the test wants it")) } else { Ok(()) }
        }))
    };
    let write = |at: usize| {
        let mut writer = storage.writer(&name(&format!("job/{at}")))?;
        writer.write(&bytes(PART + 1))?;
        writer.finish()
    };
    storage.create(&name("small"), b"").unwrap();
    storage.delete(&name("small")).unwrap();
    write(0).unwrap();
    let steps: Vec<_> = std::mem::take(&mut *seen.lock().unwrap()).into_iter().map(|(step, _)| step).collect();
    use Step::{BeginUpload, CompleteUpload, Create, Delete, ForgetUpload, NoteUpload, PutPart};
    assert_eq!(steps, [Create, Delete, BeginUpload, NoteUpload, PutPart, PutPart, CompleteUpload, ForgetUpload]);
    for (at, step) in (1..).zip([BeginUpload, NoteUpload, PutPart, CompleteUpload]) {
        *fails.lock().unwrap() = Some(step);
        let error = write(at).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("as the test wants it"), "{step}: {error}");
        assert!(storage.open(&name(&format!("job/{at}"))).unwrap().is_none(), "{step}");
    }
    assert_eq!(Step::ALL.map(|step| step.to_string()).iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
}

#[test]
fn of_many_creators_one_wins() {
    let storage = storage();
    let won = std::thread::scope(|scope| {
        let create = |at: u8| {
            let storage = storage.clone();
            move || storage.create(&name("slot"), &[at]).is_ok()
        };
        let threads: Vec<_> = (0..16).map(|at| scope.spawn(create(at))).collect();
        threads.into_iter().filter(|_| true).map(|thread| thread.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
}
