use std::sync::{Arc, Mutex};

use super::*;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn write(files: &dyn Files, to: &str, bytes: &[u8], sync: bool) {
    let mut file = files.create_new(path(to)).unwrap();
    file.write(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

/// What both file systems do alike.
fn behaves(files: &dyn Files, root: &Path) {
    let at = |name: &str| root.join(name);
    let kind = |error: io::Error| error.kind();
    files.create_folder_all(&at("a/b")).unwrap();
    files.create_folder_all(&at("a/b")).unwrap();
    assert_eq!(files.create_folder(&at("a")).map_err(kind), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(files.create_folder(&at("x/y")).map_err(kind), Err(io::ErrorKind::NotFound));

    let mut file = files.create_new(&at("a/one")).unwrap();
    file.write(b"hello ").unwrap();
    file.write(b"world").unwrap();
    file.sync().unwrap();
    assert_eq!(files.create_new(&at("a/one")).map(drop).map_err(kind), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(files.create_new(&at("x/one")).map(drop).map_err(kind), Err(io::ErrorKind::NotFound));
    assert_eq!(files.create_new(&at("a/one/two")).map(drop).map_err(kind), Err(io::ErrorKind::NotADirectory));

    files.link(&at("a/one"), &at("a/b/two")).unwrap();
    assert_eq!(files.link(&at("a/one"), &at("a/b/two")).map_err(kind), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(files.link(&at("a/none"), &at("a/b/three")).map_err(kind), Err(io::ErrorKind::NotFound));
    files.unlink(&at("a/one")).unwrap();
    assert_eq!(files.unlink(&at("a/one")).map_err(kind), Err(io::ErrorKind::NotFound));
    files.sync_folder(&at("a")).unwrap();
    assert_eq!(files.sync_folder(&at("x")).map_err(kind), Err(io::ErrorKind::NotFound));

    assert_eq!(files.read(&at("a/b/two"), 11).unwrap(), b"hello world");
    assert_eq!(files.read(&at("a/b/two"), 10).map_err(kind), Err(io::ErrorKind::FileTooLarge));
    assert_eq!(files.read(&at("a/one"), 10).map_err(kind), Err(io::ErrorKind::NotFound));
    assert_eq!(files.open(&at("a/b")).map(drop).map_err(kind), Err(io::ErrorKind::IsADirectory));
    let entry = |name: &str, kind, bytes| FolderEntry { name: name.into(), kind, bytes };
    assert_eq!(files.list_folder(&at("a")).unwrap(), [entry("b", EntryKind::Folder, 0)]);
    assert_eq!(files.list_folder(&at("a/b")).unwrap(), [entry("two", EntryKind::File, 11)]);
    assert_eq!(files.list_folder(&at("x")).map_err(kind), Err(io::ErrorKind::NotFound));
    assert_eq!(files.kind(&at("a/b/two")).unwrap(), Some(EntryKind::File));
    assert_eq!(files.kind(&at("a/b/two/three")).unwrap(), None);
    assert!(files.exists(&at("a/b")).unwrap() && !files.exists(&at("x/y")).unwrap());
}

#[test]
fn the_real_one_and_the_model_behave_alike() {
    let folder = tempfile::tempdir().unwrap();
    behaves(&OsFiles::private(), folder.path());
    let folder = tempfile::tempdir().unwrap();
    behaves(&OsFiles::shared(), folder.path());
    behaves(&MemoryFiles::new(), path("/"));
    behaves(&HookedFiles::new(Arc::new(MemoryFiles::new()), |_, _| Ok(())), path("/"));
}

#[test]
fn a_crash_takes_what_was_not_synced_and_leaves_what_was() {
    let cases = [
        ("nothing synced", false, false, Fate::Lost, None),
        ("only the bytes", true, false, Fate::Lost, None),
        ("only the folder", false, true, Fate::Lost, Some(&b""[..])),
        ("only the folder, bytes came through", false, true, Fate::Kept, Some(b"bytes")),
        ("only the folder, torn", false, true, Fate::Torn(2), Some(b"by")),
        ("only the folder, torn beyond the end", false, true, Fate::Torn(9), Some(b"bytes")),
        ("only the folder, length without bytes", false, true, Fate::Zeroed, Some(b"\0\0\0\0\0")),
        ("both", true, true, Fate::Lost, Some(b"bytes")),
        ("nothing, but all came through", false, false, Fate::Kept, Some(b"bytes")),
    ];
    for (label, bytes, folder, fate, expected) in cases {
        let files = MemoryFiles::new();
        write(&files, "/file", b"bytes", bytes);
        if folder {
            files.sync_folder(path("/")).unwrap();
        }
        files.crash(|_| fate);
        assert_eq!(files.snapshot().get(path("/file")).map(Vec::as_slice), expected, "{label}");
    }
}

#[test]
fn a_crash_asks_about_each_change_by_itself() {
    let files = MemoryFiles::new();
    files.create_folder_all(path("/out")).unwrap();
    write(&files, "/out/.temp", b"bytes", true);
    files.sync_folder(path("/out")).unwrap();
    files.link(path("/out/.temp"), path("/out/final")).unwrap();
    files.unlink(path("/out/.temp")).unwrap();
    // The removal got through and the link did not: without a sync between them, this is what a disk may do.
    let mut asked = Vec::new();
    files.crash(|unsynced| {
        asked.push(unsynced.clone());
        if matches!(unsynced, Unsynced::Removed(_)) { Fate::Kept } else { Fate::Lost }
    });
    assert_eq!(asked, [Unsynced::Added("/out/final".into()), Unsynced::Removed("/out/.temp".into())]);
    assert!(files.snapshot().is_empty());
}

#[test]
fn a_folder_whose_parent_was_not_synced_goes_with_all_that_is_in_it() {
    let files = MemoryFiles::new();
    files.create_folder(path("/a")).unwrap();
    files.create_folder(path("/a/b")).unwrap();
    write(&files, "/a/b/file", b"bytes", true);
    files.sync_folder(path("/a/b")).unwrap();
    files.sync_folder(path("/a")).unwrap();
    files.crash_losing_all();
    assert_eq!(files.kind(path("/a")).unwrap(), None);
    assert_eq!(files.kind(path("/a/b/file")).unwrap(), None);
    files.create_folder_all(path("/a/b")).unwrap();
    assert!(files.list_folder(path("/a/b")).unwrap().is_empty());
    files.crash_losing_all();
    assert!(files.exists(path("/a/b")).unwrap(), "create_folder_all syncs every parent");
}

#[test]
fn handles_do_not_survive_a_crash() {
    let files = MemoryFiles::new();
    let mut writer = files.create_new(path("/file")).unwrap();
    writer.write(b"1").unwrap();
    let reader = files.open(path("/file")).unwrap();
    files.crash(|_| Fate::Kept);
    assert!(writer.write(b"2").is_err() && writer.sync().is_err());
    assert!(reader.read_at(0, &mut [0]).is_err());
    assert_eq!(files.read(path("/file"), 9).unwrap(), b"1");
}

#[test]
fn every_change_of_the_disk_passes_the_hook_and_none_is_taken_if_it_refuses() {
    let run = |files: &dyn Files| -> io::Result<()> {
        files.create_folder_all(path("/out"))?;
        let mut file = files.create_new(path("/out/.temp"))?;
        file.write(b"row")?;
        file.sync()?;
        files.link(path("/out/.temp"), path("/out/rows"))?;
        files.unlink(path("/out/.temp"))?;
        files.sync_folder(path("/out"))
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let hooked = HookedFiles::new(Arc::new(MemoryFiles::new()), move |step, path: &Path| {
        log.lock().unwrap().push(format!("{step} {}", path.display()));
        Ok(())
    });
    run(&hooked).unwrap();
    let all = seen.lock().unwrap().clone();
    assert_eq!(
        all,
        [
            "file.sync-folder /", // what is there already may not be durable
            "file.create-folder /out",
            "file.sync-folder /",
            "file.create /out/.temp",
            "file.write /out/.temp",
            "file.sync /out/.temp",
            "file.link /out/rows",
            "file.unlink /out/.temp",
            "file.sync-folder /out",
        ]
    );
    let mut states = Vec::new();
    for (nth, step) in all.iter().enumerate() {
        let (memory, count) = (MemoryFiles::new(), Mutex::new(0));
        let hooked = HookedFiles::new(Arc::new(memory.clone()), move |_, _| {
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count > nth { Err(io::Error::other("killed")) } else { Ok(()) }
        });
        assert_eq!(run(&hooked).unwrap_err().to_string(), "killed", "before {step}");
        let names: Vec<_> = memory.snapshot().into_keys().map(|path| path.display().to_string()).collect();
        states.push(names.join(" "));
    }
    let temp = "/out/.temp";
    let both = "/out/.temp /out/rows";
    assert_eq!(states, ["", "", "", "", temp, temp, temp, both, "/out/rows"]);
}

#[test]
fn a_file_whose_sync_failed_is_lost() {
    let fails = Mutex::new(true);
    let files = HookedFiles::new(Arc::new(MemoryFiles::new()), move |step, _| {
        let first = step == FileStep::Sync && std::mem::take(&mut *fails.lock().unwrap());
        if first { Err(io::Error::other("bad disk")) } else { Ok(()) }
    });
    let mut file = files.create_new(path("/file")).unwrap();
    file.write(b"bytes").unwrap();
    assert_eq!(file.sync().unwrap_err().to_string(), "bad disk");
    assert!(file.sync().unwrap_err().to_string().contains("given up"), "a second sync would say Ok and prove nothing");
    assert!(file.write(b"more").is_err());
}

#[test]
fn a_folder_that_a_killed_process_did_not_sync_is_made_durable_by_the_next() {
    for created in ["/a", "/a/b"] {
        let disk = MemoryFiles::new();
        for folder in path(created).ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
            disk.create_folder(folder).unwrap();
            if folder != path(created) {
                disk.sync_folder(parent(folder)).unwrap();
            }
        }
        // Killed here, before it could sync the parent of the last one.
        disk.create_folder_all(path("/a/b")).unwrap();
        disk.crash_losing_all();
        assert!(disk.exists(path("/a/b")).unwrap(), "{created} had been created");
    }
}
