//! Trying what a job will do in a folder or a store, and leaving nothing behind.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cutwater_storage::{ProbeError, Store};

use super::check::{Check, Trouble};
use super::disk::Role;
use crate::failure::chain;
use crate::text::duration;

/// Does the work on a thread of its own; `None` if it takes longer than that. The thread is left to itself then.
pub(super) fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || drop(sender.send(work())));
    done.recv_timeout(limit).ok()
}

#[expect(clippy::disallowed_methods, reason = "how long a disk or a store takes is what is asked")]
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// The folders that are missing on the way to one, innermost last. Those of them that are there and empty go with this.
pub(super) struct Missing(Vec<PathBuf>);

impl Missing {
    pub(super) fn on_the_way_to(folder: &Path) -> Self {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let mut missing: Vec<_> =
            absolute.ancestors().take_while(|above| fs::symlink_metadata(above).is_err()).map(Path::to_owned).collect();
        missing.reverse();
        Self(missing)
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            drop(fs::remove_dir(folder)); // one in which somebody has put something stays
        }
    }
}

/// Tries the store as a job does at its start.
pub(super) fn probe(store: &dyn Store) -> Result<(), ProbeError> {
    let missing = local_folder(store).map(|folder| Missing::on_the_way_to(&folder));
    let probed = store.probe();
    drop(missing);
    probed
}

/// The folder of this machine that a store is in.
pub(super) fn local_folder(store: &dyn Store) -> Option<PathBuf> {
    store.url().strip_prefix("file://").map(PathBuf::from)
}

/// What is to say of a probe; `None` is one that did not come to an end.
pub(super) fn judge_probe(
    role: Role,
    url: &str,
    probed: Option<(Result<(), ProbeError>, Duration)>,
    limit: Duration,
) -> Check {
    match probed {
        Some((Ok(()), took)) => {
            let found = format!("{url}: a small object was created once, read and deleted in {}", duration(took));
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            Check::ok(role.name(), found).with_figures([("probe_ms", took_ms)])
        }
        Some((Err(error), _)) => Check::of_job(role.name(), error.code(), chain(&error)),
        None => no_answer(role.name(), url, limit),
    }
}

pub(super) fn no_answer(check: &'static str, place: &str, limit: Duration) -> Check {
    let found = format!("{place}: no answer within {}", duration(limit));
    let to_do = "see whether the disk or the store is overloaded or gone; `--limit` gives it longer";
    Check::error(check, Trouble::NoAnswer, found, to_do)
}

/// What a folder for local files could not do.
#[derive(Debug)]
pub(super) struct Failed {
    action: &'static str,
    error: io::Error,
}

/// Does what RocksDB does in its folder: makes one of its own there, with a file that is locked and one that is synced.
pub(super) fn try_folder(folder: &Path) -> Result<(), Failed> {
    let failed = |action| move |error| Failed { action, error };
    let _missing = Missing::on_the_way_to(folder);
    fs::create_dir_all(folder).map_err(failed("made"))?;
    let young = folder.join(format!(".cutwater-doctor-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&young).map_err(failed("written to"))?;
    let own = Own(young);
    let mut file = File::create_new(own.0.join("file")).map_err(failed("written to"))?;
    file.write_all(&[0x5a; 4096]).map_err(failed("written to"))?;
    file.sync_all().map_err(failed("synced"))?;
    file.try_lock().map_err(|error| Failed { action: "locked", error: error.into() })?;
    let renamed = Own(own.0.with_extension("renamed"));
    fs::rename(&own.0, &renamed.0).map_err(failed("renamed in"))
}

/// Goes with this.
struct Own(PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// What is to say of it.
pub(super) fn judge_folder(role: Role, folder: &Path, tried: Option<Result<(), Failed>>, limit: Duration) -> Check {
    let at = folder.display();
    match tried {
        Some(Ok(())) => Check::ok(role.name(), format!("{at} can be written, synced and locked")),
        Some(Err(Failed { action, error })) => {
            let found = format!("{at} can't be {action}: {error}");
            Check::error(role.name(), Trouble::Folder, found, advice(&error))
        }
        None => no_answer(role.name(), &at.to_string(), limit),
    }
}

fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    match () {
        () if matches!(kind, Kind::NotADirectory | Kind::AlreadyExists) => {
            "a part of the path is no folder: give another one, or move away what is there"
        }
        () if kind == Kind::PermissionDenied => "give the user of the job the right to make folders and files there",
        () if kind == Kind::ReadOnlyFilesystem => "mount it writable, or give another folder",
        () if matches!(kind, Kind::StorageFull | Kind::QuotaExceeded) => "make room, or give a folder on a larger disk",
        () => "give a folder of a local disk",
    }
}

#[cfg(test)]
mod tests {
    use cutwater_storage::{LocalFolder, MemoryStore, StoreError, StoreErrorKind};

    use super::super::check::Verdict;
    use super::*;

    fn is_empty(folder: &Path) -> bool {
        fs::read_dir(folder).unwrap().next().is_none()
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for below in ["", "a", "a/b/c"] {
            let path = folder.path().join(below);
            try_folder(&path).unwrap();
            assert!(is_empty(folder.path()), "{below}");
            let store = LocalFolder::new(&path);
            probe(&store).unwrap();
            assert!(is_empty(folder.path()), "{below}");
        }
        probe(&MemoryStore::new()).unwrap();
    }

    #[test]
    fn what_was_there_or_came_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (there, made) = (folder.path().join("there"), folder.path().join("made/by/us"));
        fs::create_dir(&there).unwrap();
        drop(Missing::on_the_way_to(&there));
        assert!(there.is_dir());
        let missing = Missing::on_the_way_to(&made);
        fs::create_dir_all(&made).unwrap();
        fs::write(folder.path().join("made/of-others"), "").unwrap();
        drop(missing);
        assert!(!folder.path().join("made/by").exists() && folder.path().join("made/of-others").exists());
    }

    #[test]
    fn a_folder_that_cant_be_used_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let below = try_folder(&file.join("below"));
        let failed = |kind: io::ErrorKind| Some(Err(Failed { action: "written to", error: kind.into() }));
        use io::ErrorKind as Kind;
        let cases = [
            ("it can be used", Some(Ok(())), Verdict::Ok, None, "can be written, synced and locked"),
            ("below a file", Some(below), Verdict::Error, Some("DOC0003"), "a part of the path is no folder"),
            (
                "the file itself",
                Some(try_folder(&file)),
                Verdict::Error,
                Some("DOC0003"),
                "a part of the path is no folder",
            ),
            ("no right", failed(Kind::PermissionDenied), Verdict::Error, Some("DOC0003"), "give the user of the job"),
            ("read-only", failed(Kind::ReadOnlyFilesystem), Verdict::Error, Some("DOC0003"), "mount it writable"),
            ("full", failed(Kind::StorageFull), Verdict::Error, Some("DOC0003"), "make room"),
            ("something else", failed(Kind::Other), Verdict::Error, Some("DOC0003"), "a local disk"),
            ("no answer", None, Verdict::Error, Some("DOC0007"), "no answer within 2.0 s"),
        ];
        for (name, tried, verdict, code, text) in cases {
            let check = judge_folder(Role::RocksDb, Path::new("/r"), tried, Duration::from_secs(2));
            assert_eq!((check.verdict, check.code), (verdict, code), "{name}: {check:?}");
            let said = format!("{} {}", check.found, check.to_do.clone().unwrap_or_default());
            assert!(said.contains(text), "{name}: {said}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the file alone");
    }

    #[test]
    fn a_store_that_cant_be_used_is_told_in_the_words_of_the_job() {
        let url = || "s3://b".to_owned();
        let unusable = |kind| {
            let source = StoreError::new(kind, "create", url(), "x");
            Err(ProbeError::Unusable { url: url(), action: "create", source })
        };
        let cases = [
            ("it can be used", Ok(()), Verdict::Ok, None, "created once, read and deleted in 5.0 ms"),
            ("wrong keys", unusable(StoreErrorKind::Credentials), Verdict::Error, Some("STO0001"), "the credentials"),
            ("no bucket", unusable(StoreErrorKind::NoBucket), Verdict::Error, Some("STO0001"), "no such bucket"),
            ("down", unusable(StoreErrorKind::Unavailable), Verdict::Error, Some("STO0001"), "did not answer in time"),
            ("twice", Err(ProbeError::CreatesTwice { url: url() }), Verdict::Error, Some("STO0002"), "created twice"),
            ("other bytes", Err(ProbeError::ReadsOther { url: url() }), Verdict::Error, Some("STO0003"), "other bytes"),
        ];
        let (took, limit) = (Duration::from_millis(5), Duration::from_secs(2));
        for (name, probed, verdict, code, text) in cases {
            let check = judge_probe(Role::Checkpoints, &url(), Some((probed, took)), limit);
            assert_eq!((check.verdict, check.code), (verdict, code), "{name}: {check:?}");
            assert!(check.found.contains(text), "{name}: {check:?}");
        }
        let silent = judge_probe(Role::Checkpoints, &url(), None, limit);
        assert_eq!((silent.verdict, silent.code), (Verdict::Error, Some("DOC0007")), "{silent:?}");
    }

    #[test]
    fn work_that_takes_too_long_is_left_to_itself() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (hold, held) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || held.recv().is_ok()), None);
        drop(hold);
    }
}
