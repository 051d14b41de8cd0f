use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid};
use cutwater_dataflow::{CommitOutcome, Prepared, SinkWriter};
use cutwater_storage::{Fate, FileStep, HookedFiles, MemoryFiles, Unsynced};
use proptest::prelude::*;

use super::names::Handle;
use super::*;

type Outcome = Result<(), UserError>;

fn at(subtask: u32, epoch: u64, attempt: u32) -> SinkContext {
    SinkContext {
        job: "flights".to_owned(),
        operator: OperatorUid::new("daily-1").unwrap(),
        subtask,
        parallelism: 4,
        epoch: Epoch(epoch),
        attempt: Attempt(attempt),
        from_nothing: false,
    }
}

fn committer<F: Fn(&String, &mut Vec<u8>) + Send + Sync + 'static>(
    sink: &FileSink<F>,
    of: &SinkContext,
) -> Box<dyn Committer> {
    let SinkContext { job, operator, epoch, attempt, .. } = of.clone();
    sink.committer(&CommitContext { job, operator, epoch, attempt }).unwrap()
}

fn memory_sink(files: Arc<dyn Files>) -> FileSink<impl Fn(&String, &mut Vec<u8>) + Send + Sync + 'static> {
    lines_sink::<String>("/out").prefix("p-").header("day,flights").files(files)
}

/// Writes these lines as one file and prepares it.
fn write(writer: &mut impl SinkWriter<String>, lines: &[&str], checkpoint: u64) -> Result<Option<Prepared>, UserError> {
    for line in lines {
        writer.write(None, (*line).to_owned())?;
    }
    let mut prepared = writer.prepare(CheckpointId(checkpoint))?;
    assert!(prepared.len() <= 1);
    Ok(prepared.pop())
}

fn finish(prepared: Prepared) -> Result<Vec<u8>, UserError> {
    prepared.finish.expect("a file must be synced")()?;
    Ok(prepared.handle)
}

/// What other programs see.
fn visible(disk: &MemoryFiles) -> BTreeMap<String, String> {
    let hidden = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let files = disk.snapshot().into_iter().filter(|(path, _)| !hidden(path));
    files.map(|(path, bytes)| (path.display().to_string(), String::from_utf8(bytes).unwrap())).collect()
}

fn out_folder() -> MemoryFiles {
    let disk = MemoryFiles::new();
    disk.create_folder_all(Path::new("/out")).unwrap();
    disk
}

const NAME: &str = "/out/p-daily-1-3-2-5-9.csv";
const CONTENT: &str = "day,flights\na\nb\n";

#[test]
fn a_file_appears_whole_with_the_commit_and_once() {
    let disk = out_folder();
    let sink = memory_sink(Arc::new(disk.clone()));
    let mut writer = sink.open(&at(3, 2, 5)).unwrap();
    let handle = finish(write(&mut writer, &["a", "b"], 9).unwrap().unwrap()).unwrap();
    assert_eq!(visible(&disk), BTreeMap::new(), "nothing is visible before the commit");
    let mut committer = committer(&sink, &at(0, 2, 5));
    assert!(matches!(committer.commit(&handle), CommitOutcome::Committed));
    assert_eq!(visible(&disk), BTreeMap::from([(NAME.to_owned(), CONTENT.to_owned())]));
    assert_eq!(disk.snapshot().len(), 1, "the temporary name is gone");
    assert!(matches!(committer.commit(&handle), CommitOutcome::Already));
    assert!(write(&mut writer, &[], 10).unwrap().is_none(), "no records, no file");
    let handle = finish(write(&mut writer, &["c"], 11).unwrap().unwrap()).unwrap();
    assert!(matches!(committer.commit(&handle), CommitOutcome::Committed));
    assert_eq!(visible(&disk)["/out/p-daily-1-3-2-5-11.csv"], "day,flights\nc\n");
}

#[test]
fn large_output_is_written_in_pieces() {
    let disk = out_folder();
    let sink = memory_sink(Arc::new(disk.clone()));
    let mut writer = sink.open(&at(3, 2, 5)).unwrap();
    let line = "x".repeat(1000);
    let handle = finish(write(&mut writer, &vec![line.as_str(); 1000], 9).unwrap().unwrap()).unwrap();
    assert!(matches!(committer(&sink, &at(0, 2, 5)).commit(&handle), CommitOutcome::Committed));
    assert!(matches!(committer(&sink, &at(0, 2, 5)).commit(&handle), CommitOutcome::Already), "by its checksum");
    assert_eq!(visible(&disk)[NAME].len(), 12 + 1001 * 1000);
}

/// One run over a disk that dies before its `steps`th step, then what survives `fate`, then a new attempt that commits
/// again what was acknowledged. The number of steps asked for.
fn crash_and_recover(steps: usize, fate: impl FnMut(&Unsynced) -> Fate) -> usize {
    let disk = out_folder();
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let dying = HookedFiles::new(Arc::new(disk.clone()), move |_, _| {
        let step = counted.fetch_add(1, Ordering::Relaxed);
        if step < steps { Ok(()) } else { Err(io::Error::other("killed")) }
    });
    let sink = memory_sink(Arc::new(dying));
    let prepared = sink.open(&at(3, 2, 5)).and_then(|mut writer| write(&mut writer, &["a", "b"], 9));
    let acknowledged = prepared.and_then(|prepared| finish(prepared.unwrap())).ok();
    let first = acknowledged.as_ref().map(|handle| committer(&sink, &at(0, 2, 5)).commit(handle));
    disk.crash(fate);

    let name = format!("killed before step {steps}, acknowledged: {}, {first:?}", acknowledged.is_some());
    let sink = memory_sink(Arc::new(disk.clone()));
    let mut committer = committer(&sink, &at(0, 3, 1));
    if let Some(handle) = &acknowledged {
        let again = committer.commit(handle);
        assert!(matches!(again, CommitOutcome::Committed | CommitOutcome::Already), "{name}: {again:?}");
    }
    committer.sweep().unwrap();
    disk.crash_losing_all(); // whatever was reported must be durable
    committer.sweep().unwrap();
    let expected = acknowledged.map(|_| (NAME.to_owned(), CONTENT.to_owned()));
    assert_eq!(visible(&disk), expected.into_iter().collect(), "{name}");
    assert!(disk.snapshot().keys().all(|path| !path.to_str().unwrap().ends_with(".tmp")), "{name}: leftovers");
    assert!(!matches!(first, Some(CommitOutcome::Lost(_))), "{name}");
    done.load(Ordering::Relaxed)
}

#[test]
fn a_crash_at_any_step_loses_nothing_acknowledged_and_shows_nothing_else() {
    let all = crash_and_recover(usize::MAX, |_| Fate::Lost);
    assert!(all >= 7, "create, write, sync, sync folder, link, sync folder, unlink: {all}");
    for steps in 0..=all {
        crash_and_recover(steps, |_| Fate::Lost);
        crash_and_recover(steps, |_| Fate::Kept);
        crash_and_recover(steps, |_| Fate::Torn(3));
        crash_and_recover(steps, |_| Fate::Zeroed);
    }
}

proptest! {
    #[test]
    fn whatever_survives_of_a_crash_the_output_is_whole(steps in 0usize..9, kept in prop::collection::vec(any::<bool>(), 16)) {
        let mut kept = kept.into_iter().cycle();
        crash_and_recover(steps, move |_| if kept.next() == Some(true) { Fate::Kept } else { Fate::Lost });
    }
}

#[test]
fn a_disk_that_fails_one_step_leaves_no_doubt() {
    let cases = [
        ("no link", FileStep::Link, 0, "unknown"),
        ("no sync after the link", FileStep::SyncFolder, 1, "unknown"),
        ("no removal of the temporary name", FileStep::Unlink, 0, "committed"),
    ];
    for (name, step, nth, expected) in cases {
        let disk = out_folder();
        let seen = AtomicUsize::new(0);
        let failing = HookedFiles::new(Arc::new(disk.clone()), move |now, _| {
            let fails = now == step && seen.fetch_add(1, Ordering::Relaxed) == nth;
            if fails { Err(io::Error::other("bad disk")) } else { Ok(()) }
        });
        let sink = memory_sink(Arc::new(failing));
        let mut writer = sink.open(&at(3, 2, 5)).unwrap();
        let handle = finish(write(&mut writer, &["a", "b"], 9).unwrap().unwrap()).unwrap();
        let mut committer = committer(&sink, &at(0, 2, 5));
        let first = match committer.commit(&handle) {
            CommitOutcome::Unknown(_) => "unknown",
            CommitOutcome::Committed => "committed",
            other @ (CommitOutcome::Already | CommitOutcome::Lost(_)) => panic!("{name}: {other:?}"),
        };
        assert_eq!(first, expected, "{name}");
        let again = committer.commit(&handle);
        assert!(matches!(again, CommitOutcome::Committed | CommitOutcome::Already), "{name}: {again:?}");
        assert_eq!(visible(&disk), BTreeMap::from([(NAME.to_owned(), CONTENT.to_owned())]), "{name}");
        assert_eq!(disk.snapshot().len(), 1, "{name}");
    }
}

#[test]
fn a_failed_sync_is_not_acknowledged() {
    for step in [FileStep::Create, FileStep::Write, FileStep::Sync, FileStep::SyncFolder] {
        let disk = out_folder();
        let full = move |now, _: &Path| {
            if now == step { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let sink = memory_sink(Arc::new(HookedFiles::new(Arc::new(disk.clone()), full)));
        let mut writer = sink.open(&at(3, 2, 5)).unwrap();
        let result = write(&mut writer, &["a"], 9).and_then(|prepared| finish(prepared.unwrap()));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("/out") && error.contains("no space left"), "{step}: {error}");
    }
}

fn lost(outcome: CommitOutcome) -> String {
    let CommitOutcome::Lost(error) = outcome else { panic!("not lost: {outcome:?}") };
    error.to_string()
}

#[test]
fn what_can_not_be_published_is_lost_with_a_reason() {
    let disk = out_folder();
    let sink = memory_sink(Arc::new(disk.clone()));
    let mut writer = sink.open(&at(3, 2, 5)).unwrap();
    let handle = finish(write(&mut writer, &["a", "b"], 9).unwrap().unwrap()).unwrap();
    let temporary = disk.snapshot().into_keys().next().unwrap();
    let mut committer = committer(&sink, &at(0, 2, 5));

    for (name, content) in [("other length", "other"), ("other content", "day,flights\na\nX\n")] {
        disk.create_new(Path::new(NAME)).unwrap().write(content.as_bytes()).unwrap();
        let error = lost(committer.commit(&handle));
        assert!(error.contains(NAME) && error.contains("is not the file"), "{name}: {error}");
        assert_eq!(visible(&disk)[NAME], content, "{name}: never replaced");
        assert!(disk.exists(&temporary).unwrap(), "{name}: the output still waits");
        disk.unlink(Path::new(NAME)).unwrap();
    }
    disk.create_folder(Path::new(NAME)).unwrap();
    assert!(lost(committer.commit(&handle)).contains("not a plain file"));

    let handle = finish(write(&mut writer, &["c"], 10).unwrap().unwrap()).unwrap();
    let waiting = disk.snapshot().into_keys().find(|path| *path != temporary).unwrap();
    disk.unlink(&waiting).unwrap();
    let error = lost(committer.commit(&handle));
    assert!(error.contains("flights") && error.contains("is lost") && error.contains("-10.csv"), "{error}");
    disk.create_new(&waiting).unwrap().write(b"cut").unwrap();
    let error = lost(committer.commit(&handle));
    assert!(error.contains("has 3 bytes"), "{error}");
}

#[test]
fn a_handle_that_is_damaged_or_leaves_the_folder_is_refused() {
    let good = Handle {
        temporary: ".a.tmp".to_owned(),
        name: "a.csv".to_owned(),
        bytes: 3,
        crc32c: 7,
        job: "j".to_owned(),
        uid: OperatorUid::new("u").unwrap(),
    };
    assert_eq!(Handle::decode(&good.encode()).unwrap(), good);
    let bytes = good.encode();
    for length in 0..bytes.len() {
        Handle::decode(&bytes[..length]).unwrap_err();
    }
    Handle::decode(&[&bytes[..], b"x"].concat()).unwrap_err();
    Handle::decode(&[&[2], &bytes[1..]].concat()).unwrap_err();
    for (temporary, name) in [
        (".a.tmp", "../a"),
        (".a.tmp", "/etc/a"),
        (".a.tmp", ""),
        (".a.tmp", ".a"),
        ("../a.tmp", "a"),
        ("a", "b"),
        ("./a.tmp", "a"),
    ] {
        let bad = Handle { temporary: temporary.to_owned(), name: name.to_owned(), ..good.clone() };
        Handle::decode(&bad.encode()).unwrap_err();
    }
}

#[test]
fn only_leftovers_of_earlier_runs_of_the_same_sink_are_swept() {
    let disk = out_folder();
    let sink = memory_sink(Arc::new(disk.clone()));
    let other_job = SinkContext { job: "trains".to_owned(), ..at(0, 1, 1) };
    let uid = |uid| SinkContext { operator: OperatorUid::new(uid).unwrap(), ..at(0, 1, 1) };
    let cases = [
        ("an earlier attempt", at(0, 2, 4), false),
        ("an earlier epoch", at(9, 1, 7), false),
        ("this attempt", at(0, 2, 5), true),
        ("a later attempt", at(0, 2, 6), true),
        ("a later epoch", at(0, 3, 1), true),
        ("another job", other_job, true),
        ("a uid that begins like ours", uid("daily-1-1"), true),
        ("a uid that ours begins with", uid("daily"), true),
    ];
    for (name, context, stays) in cases {
        let before = disk.snapshot();
        let mut writer = sink.open(&context).unwrap();
        drop(write(&mut writer, &["a"], 9).unwrap());
        let path = disk.snapshot().into_keys().find(|path| !before.contains_key(path)).unwrap();
        committer(&sink, &at(0, 2, 5)).sweep().unwrap();
        assert_eq!(disk.exists(&path).unwrap(), stays, "{name}: {}", path.display());
    }
    for foreign in ["notes.tmp", ".notes.tmp", ".daily-1-x-1-1-1.tmp", "daily-1-0-1-1-1.csv"] {
        let path = Path::new("/out").join(foreign);
        drop(disk.create_new(&path).unwrap());
        committer(&sink, &at(0, 2, 5)).sweep().unwrap();
        assert!(disk.exists(&path).unwrap(), "{foreign}");
    }
}

#[test]
fn output_of_another_run_is_not_mixed_with_ours() {
    let disk = out_folder();
    let sink = memory_sink(Arc::new(disk.clone()));
    drop(disk.create_new(Path::new("/out/p-daily-1-3-2-5-1.csv")).unwrap());
    let error = sink.open(&at(3, 2, 5)).unwrap_err().to_string();
    assert!(error.contains("p-daily-1-3-2-5-1.csv") && error.contains("another run"), "{error}");
    for context in [at(3, 2, 6), at(3, 3, 5), at(4, 2, 5)] {
        sink.open(&context).unwrap();
        let error = sink.open(&SinkContext { from_nothing: true, ..context }).unwrap_err().to_string();
        assert!(error.contains("p-daily-1-3-2-5-1.csv"), "a job that has published nothing: {error}");
    }
    let other = SinkContext { operator: OperatorUid::new("daily").unwrap(), from_nothing: true, ..at(0, 1, 1) };
    sink.open(&other).unwrap();
}

#[test]
fn a_folder_that_can_not_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("a/b");
    let error = lines_sink::<String>(&missing).open(&at(0, 1, 1)).unwrap_err().to_string();
    assert!(error.contains("a/b") && error.contains("it is not there"), "{error}");
    committer(&lines_sink::<String>(&missing), &at(0, 1, 1)).sweep().unwrap();
    lines_sink::<String>(&missing).create_folder().open(&at(0, 1, 1)).unwrap();

    for prefix in [".x", "a/b"] {
        let error = lines_sink::<String>(&missing).prefix(prefix).open(&at(0, 1, 1)).unwrap_err();
        assert!(error.to_string().contains("a/b"), "{error}");
    }
    fs::set_permissions(&missing, Permissions::from_mode(0o555)).unwrap();
    let mut writer = lines_sink::<String>(&missing).open(&at(0, 1, 1)).unwrap();
    let denied: Outcome = writer.write(None, "a".to_owned());
    // Whoever runs this as root may write anywhere.
    if let Err(error) = denied {
        assert!(error.to_string().contains("a/b") && error.to_string().contains("permission denied"), "{error}");
    }
    let sink = lines_sink::<String>("/out");
    let disk = out_folder();
    let read_only = |_: FileStep, _: &Path| -> io::Result<()> { Err(io::ErrorKind::ReadOnlyFilesystem.into()) };
    let sink = sink.files(Arc::new(HookedFiles::new(Arc::new(disk), read_only)));
    let error = sink.open(&at(0, 1, 1)).unwrap().write(None, "a".to_owned()).unwrap_err().to_string();
    assert!(error.contains("/out/") && error.contains("read-only"), "{error}");
}

#[test]
fn it_works_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path())
        .format(|record: &String, buffer: &mut Vec<u8>| buffer.extend_from_slice(record.as_bytes()))
        .extension("txt");
    let mut writer = sink.open(&at(0, 1, 1)).unwrap();
    let handle = finish(write(&mut writer, &["a", "b"], 1).unwrap().unwrap()).unwrap();
    assert!(matches!(committer(&sink, &at(0, 1, 1)).commit(&handle), CommitOutcome::Committed));
    assert!(matches!(committer(&sink, &at(0, 1, 2)).commit(&handle), CommitOutcome::Already));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["daily-1-0-1-1-1.txt"]);
    assert_eq!(fs::read_to_string(folder.path().join("daily-1-0-1-1-1.txt")).unwrap(), "ab");
}
