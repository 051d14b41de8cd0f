//! What the settings say that can't be meant.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use cutwater_config::{BackendKind, Level, Origin, Resolved};

use super::check::{Check, Trouble};
use crate::failure::Failure;
use crate::text::{count, duration};

const NAME: &str = "settings";

/// Settings that no job would take.
pub(super) fn refused(failure: &Failure) -> Vec<Check> {
    let rest = Check::warning(
        "all else",
        Trouble::NotChecked,
        "not looked at, since nobody knows what the job is to do",
        "mend the settings and ask again",
    );
    vec![Check::of_job(NAME, failure.code, &failure.message), rest]
}

/// All that is to say of settings that were accepted.
pub(super) fn check(settings: &Resolved) -> Vec<Check> {
    let set = settings.settings.len() as u64;
    let sources = sources(settings);
    let mut checks = vec![Check::ok(NAME, format!("{} set{sources}", count(set, "key"))).with_figures([("keys", set)])];
    let warned = settings.warnings.iter().map(|warning| {
        Check::warning(NAME, Trouble::Setting, warning.to_string(), "say what is meant, or leave it out")
    });
    checks.extend(warned);
    let rules = [
        no_checkpoints,
        checkpoints_in_memory,
        local_copies_without_folder,
        nothing_to_restore_locally,
        savepoints_among_checkpoints,
        deadline_above_timeout,
        request_above_deadline,
        secret_for_all,
    ];
    checks.extend(rules.iter().filter_map(|rule| rule(settings)));
    checks.extend(unused_rocksdb(settings));
    checks.extend(needs_rocksdb(settings));
    checks
}

/// `, of a file and the environment`.
fn sources(settings: &Resolved) -> String {
    let files = settings.settings.iter().filter_map(|setting| file_of(&setting.origin));
    let mut sources: Vec<String> = Vec::new();
    for file in files {
        let file = file.display().to_string();
        if !sources.contains(&file) {
            sources.push(file);
        }
    }
    let has = |level| settings.settings.iter().any(|setting| setting.origin.level() == level);
    sources.extend(has(Level::Environment).then(|| "the environment".to_owned()));
    sources.extend(has(Level::Flag).then(|| "-D".to_owned()));
    if sources.is_empty() { String::new() } else { format!(", by {}", sources.join(", ")) }
}

fn file_of(origin: &Origin) -> Option<&Path> {
    match origin {
        Origin::File { path, .. } => Some(path),
        Origin::Default | Origin::Code | Origin::Environment { .. } | Origin::Flag => None,
    }
}

fn warning(found: impl Into<String>, to_do: &str) -> Option<Check> {
    Some(Check::warning(NAME, Trouble::Setting, found, to_do))
}

fn no_checkpoints(settings: &Resolved) -> Option<Check> {
    if settings.checkpointing.interval.is_some() {
        return None;
    }
    let found = "no checkpoints are taken, unless the program says so: the first failure ends the job";
    warning(found, "set `execution.checkpointing.interval`, to `10 s` say")
}

fn checkpoints_in_memory(settings: &Resolved) -> Option<Check> {
    let in_memory = settings.checkpoint_dir.as_ref().is_none_or(|dir| dir.starts_with("memory:"));
    if settings.checkpointing.interval.is_none() || !in_memory {
        return None;
    }
    let found = "checkpoints are kept in memory, unless the program names a folder: they are gone with the process";
    warning(found, "set `execution.checkpointing.dir`")
}

fn local_copies_without_folder(settings: &Resolved) -> Option<Check> {
    let checkpointing = &settings.checkpointing;
    if !checkpointing.local_backup || !checkpointing.local_backup_dirs.is_empty() {
        return None;
    }
    let found = "local copies of state go to a temporary folder, which is gone with the process: a job that is started again \
                 reads all from the store";
    warning(found, "set `execution.checkpointing.local-backup.dirs`")
}

fn nothing_to_restore_locally(settings: &Resolved) -> Option<Check> {
    let checkpointing = &settings.checkpointing;
    if !settings.recovery.from_local || checkpointing.local_backup {
        return None;
    }
    let found = "state is to be read from local copies, and none are made";
    warning(
        found,
        "set `execution.checkpointing.local-backup.enabled: true`, or leave `execution.state-recovery.from-local` out",
    )
}

fn savepoints_among_checkpoints(settings: &Resolved) -> Option<Check> {
    let (savepoints, checkpoints) = (settings.savepoint_dir.as_deref()?, settings.checkpoint_dir.as_deref()?);
    let (inner, outer) = (parts(savepoints), parts(checkpoints));
    let how = match () {
        () if inner == outer => "is also",
        () if is_below(&inner, &outer) => "lies in",
        () if is_below(&outer, &inner) => "holds",
        () => return None,
    };
    let found = format!(
        "the folder of savepoints ({savepoints}) {how} that of checkpoints ({checkpoints}): who clears one away loses the other"
    );
    warning(found, "give `execution.checkpointing.savepoint-dir` a folder of its own")
}

/// What comes before the path, and the parts of that: of a folder of this machine, from its root.
fn parts(location: &str) -> (String, PathBuf) {
    let (before, path) = match location.split_once("://") {
        Some((scheme, path)) if !scheme.eq_ignore_ascii_case("file") => (scheme.to_ascii_lowercase(), path),
        Some((_, path)) => (String::new(), path.strip_prefix("localhost").unwrap_or(path)),
        None => (String::new(), location.strip_prefix("file:").unwrap_or(location)),
    };
    let path = if before.is_empty() { std::path::absolute(path).unwrap_or_else(|_| path.into()) } else { path.into() };
    let kept = path.components().filter(|part| !matches!(part, Component::CurDir));
    (before, kept.collect())
}

fn is_below(inner: &(String, PathBuf), outer: &(String, PathBuf)) -> bool {
    inner.0 == outer.0 && inner.1.starts_with(&outer.1)
}

fn is_remote(location: &str) -> bool {
    location.split_once("://").is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("file"))
}

fn deadline_above_timeout(settings: &Resolved) -> Option<Check> {
    let (deadline, timeout) = (settings.object_stores.deadline, settings.checkpointing.timeout);
    let in_store = settings.checkpoint_dir.as_deref().is_some_and(is_remote);
    if !in_store || settings.checkpointing.interval.is_none() || deadline < timeout {
        return None;
    }
    let found = format!(
        "an operation on the store may take {} (`cutwater.object-store.deadline`), and a checkpoint is given up after {} \
         (`execution.checkpointing.timeout`): where the store is slow, it is never told why",
        duration(deadline),
        duration(timeout)
    );
    warning(found, "raise the timeout, or lower the deadline")
}

fn request_above_deadline(settings: &Resolved) -> Option<Check> {
    let stores = &settings.object_stores;
    let in_store = settings.checkpoint_dir.as_deref().is_some_and(is_remote);
    if !in_store || stores.request_timeout < stores.deadline {
        return None;
    }
    let found = format!(
        "one request to the store may take {} (`cutwater.object-store.request-timeout`), and an operation with all its tries {} \
         (`cutwater.object-store.deadline`): what gets no answer is not tried again",
        duration(stores.request_timeout),
        duration(stores.deadline)
    );
    warning(found, "raise the deadline, or lower the timeout of a request")
}

/// A secret in a file that others may read.
fn secret_for_all(settings: &Resolved) -> Option<Check> {
    let file = file_of(&settings.setting("s3.secret-key")?.origin)?;
    let mode = fs::metadata(file).ok()?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return None;
    }
    let found = format!(
        "{} holds `s3.secret-key`, and others than its owner may read or change it (mode {mode:o})",
        file.display()
    );
    warning(found, "`chmod 600`, or give the secret by `CUTWATER_S3_SECRET_KEY`")
}

fn unused_rocksdb(settings: &Resolved) -> Vec<Check> {
    if settings.backend == BackendKind::RocksDb {
        return Vec::new();
    }
    let of_rocksdb = |key: &str| key.starts_with("cutwater.rocksdb.") || key.starts_with("state.backend.rocksdb.");
    let unused = settings.settings.iter().filter(|setting| of_rocksdb(setting.key));
    let one = |setting: &cutwater_config::Setting| {
        let found = format!("{}: `{}` has no effect, `state.backend.type` is `hashmap`", setting.origin, setting.key);
        warning(found, "set `state.backend.type: rocksdb`, or leave the key out")
    };
    unused.filter_map(one).collect()
}

/// Which features a program has can't be seen from outside.
fn needs_rocksdb(settings: &Resolved) -> Option<Check> {
    let found = "the state is to be in RocksDB: the program of the job must be built with the feature `rocksdb`, which this \
                 command can't see";
    (settings.backend == BackendKind::RocksDb).then(|| Check::ok("backend", found))
}

#[cfg(test)]
mod tests {
    use cutwater_config::Config;

    use super::super::check::Verdict;
    use super::*;

    fn resolved(flags: &str) -> Resolved {
        let flags = flags.split(';').map(str::trim).filter(|flag| !flag.is_empty());
        let config = flags.fold(Config::new(), |config, flag| {
            let (key, value) = flag.split_once('=').unwrap();
            let key = match key.split_once('/') {
                Some(("chk", rest)) => format!("execution.checkpointing.{rest}"),
                _ => key.to_owned(),
            };
            config.flag(key, value)
        });
        config.resolve().unwrap()
    }

    /// Checkpoints each second, in a folder: nothing to say of it.
    const SOUND: &str = "chk/interval=1 s;chk/dir=/c";
    const IN_STORE: &str = "chk/interval=1 s;chk/dir=s3://b/c";
    const ROCKSDB: &str = "chk/interval=1 s;chk/dir=/c;state.backend.type=rocksdb";

    #[test]
    fn what_contradicts_itself_is_told() {
        let cases = [
            ("nothing is wrong", SOUND, "", None),
            ("no interval", "chk/dir=/c", "", Some("no checkpoints are taken")),
            ("an interval of 0", "chk/dir=/c;chk/interval=0", "", Some("no checkpoints are taken")),
            ("no folder", "chk/interval=1 s", "", Some("gone with the process")),
            ("a folder in memory", "chk/interval=1 s;chk/dir=memory:", "", Some("gone with the process")),
            ("a pause above the interval", SOUND, "chk/min-pause=5 s", Some("is shorter than")),
            ("a key without meaning", SOUND, "rest.port=1", Some("`rest.port` has no meaning here")),
            ("an old name", SOUND, "state.backend=hashmap", Some("is an old name, use `state.backend.type`")),
            ("copies without a folder", SOUND, "chk/local-backup.enabled=true", Some("to a temporary folder")),
            ("copies with one", SOUND, "chk/local-backup.enabled=true;chk/local-backup.dirs=/l", None),
            (
                "a folder without copies",
                SOUND,
                "chk/local-backup.dirs=/l",
                Some("`execution.checkpointing.local-backup.enabled` is off"),
            ),
            (
                "copies that nobody makes",
                SOUND,
                "execution.state-recovery.from-local=true;chk/local-backup.enabled=false;chk/local-backup.dirs=/l",
                Some("none are made"),
            ),
            ("savepoints elsewhere", SOUND, "chk/savepoint-dir=/s", None),
            ("a name that only begins the same", SOUND, "chk/savepoint-dir=/c2", None),
            (
                "savepoints in the same folder",
                SOUND,
                "chk/savepoint-dir=file:///c/",
                Some("is also that of checkpoints"),
            ),
            ("savepoints below", SOUND, "chk/savepoint-dir=/c/./s", Some("lies in that of checkpoints")),
            ("checkpoints below", "chk/interval=1 s;chk/dir=/c/d", "chk/savepoint-dir=/c", Some("holds that of")),
            ("another kind of store", SOUND, "chk/savepoint-dir=s3://c", None),
            ("the same in a bucket", IN_STORE, "chk/savepoint-dir=s3://b/c/s", Some("lies in that of checkpoints")),
            ("a bucket of that name elsewhere", IN_STORE, "chk/savepoint-dir=gs://b/c/s", None),
            ("another bucket", IN_STORE, "chk/savepoint-dir=s3://other/c", None),
            ("the usual deadline", IN_STORE, "", None),
            ("a short timeout", IN_STORE, "chk/timeout=30 s", Some("may take 30.0 s")),
            ("a short timeout of a folder", SOUND, "chk/timeout=30 s", None),
            ("a long request", IN_STORE, "cutwater.object-store.request-timeout=30 s", Some("is not tried again")),
            ("a long request, but no store", SOUND, "cutwater.object-store.request-timeout=30 s", None),
            ("RocksDB", ROCKSDB, "cutwater.rocksdb.overlay=1 mb", None),
            (
                "a size for it alone",
                SOUND,
                "cutwater.rocksdb.overlay=1 mb",
                Some("flag: `cutwater.rocksdb.overlay` has no"),
            ),
            ("a folder for it alone", SOUND, "state.backend.rocksdb.localdir=/r", Some("has no effect")),
        ];
        for (name, sound, more, expected) in cases {
            let checks = check(&resolved(&format!("{sound};{more}")));
            let wrong: Vec<_> = checks.iter().filter(|check| check.verdict != Verdict::Ok).collect();
            let Some(expected) = expected else {
                assert_eq!(wrong, [] as [&Check; 0], "{name}");
                continue;
            };
            let [one] = wrong[..] else { panic!("{name}: {wrong:?}") };
            assert_eq!((one.verdict, one.code), (Verdict::Warning, Some("DOC0001")), "{name}: {one:?}");
            assert!(one.found.contains(expected), "{name}: {one:?}");
            assert!(one.to_do.as_ref().is_some_and(|to_do| !to_do.is_empty()), "{name}");
        }
    }

    #[test]
    fn what_the_job_refuses_is_an_error_in_its_words() {
        for settings in [ROCKSDB, SOUND] {
            let checks = check(&resolved(&format!("{settings};chk/incremental=true")));
            assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{settings}: {checks:?}");
        }
        let failure = Config::new().flag("parallelism.default", "0").resolve().map_err(Failure::from).unwrap_err();
        let refused = refused(&failure);
        assert_eq!((refused[0].verdict, refused[0].code), (Verdict::Error, Some("CFG0006")));
        assert_eq!(refused[0].found, failure.message);
    }

    #[test]
    fn what_is_asked_of_the_program_is_told() {
        let feature = |flags| check(&resolved(flags)).iter().any(|check| check.found.contains("the feature `rocksdb`"));
        assert!(feature(ROCKSDB) && !feature(SOUND));
    }

    #[test]
    fn a_secret_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cutwater.yaml");
        fs::write(&file, "s3.access-key: a\ns3.secret-key: hunter2\n").unwrap();
        let settings = Config::new().file(&file).unwrap().resolve().unwrap();
        for (mode, told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let said = secret_for_all(&settings);
            assert_eq!(said.is_some(), told, "{mode:o}");
            assert!(said.is_none_or(|check| check.found.contains(&format!("(mode {mode:o})"))), "{mode:o}");
        }
        let flag = resolved("s3.access-key=a;s3.secret-key=b");
        assert_eq!(secret_for_all(&flag), None, "it stands in no file");
        let shown = format!("{:?}", check(&settings));
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
