use std::io;
use std::path::Path;

use cutwater_state::ColdError;
use rocksdb::ErrorKind;

/// RocksDB failed at what `action` says.
pub(crate) fn failed(action: impl Into<Box<str>>, error: &rocksdb::Error) -> ColdError {
    ColdError { action: action.into(), reason: reason(&error.kind(), error.as_ref()).into() }
}

/// The folder of a tier could not be made.
pub(crate) fn folder_failed(folder: &Path, error: &io::Error) -> ColdError {
    io_failed(format!("make the folder {}", folder.display()), error)
}

/// The system failed at what `action` says.
pub(crate) fn io_failed(action: impl Into<Box<str>>, error: &io::Error) -> ColdError {
    ColdError { action: action.into(), reason: reason(&ErrorKind::IOError, &error.to_string()).into() }
}

/// What RocksDB said and what to do next. Its errors are text; files and numbers of blocks are in it.
fn reason(kind: &ErrorKind, text: &str) -> String {
    let text = text.trim_end_matches(['.', ' ']);
    match advice(kind, text) {
        Some(advice) => format!("{text}: {advice}"),
        None => text.to_owned(),
    }
}

fn advice(kind: &ErrorKind, text: &str) -> Option<&'static str> {
    let said = |part: &str| text.contains(part);
    if *kind == ErrorKind::Corruption || said("checksum mismatch") {
        return Some(
            "the local state is damaged, checkpoints are not: check the disk, and restart from the last checkpoint \
             with an empty folder",
        );
    }
    if said("No space left on device") || said("Disk quota exceeded") || said("Space limit reached") {
        return Some("the disk is full: make room, or put the folder of the state on a larger disk");
    }
    if said("lock hold by current process") {
        return Some("another tier of this process has the folder open: each subtask needs a folder of its own");
    }
    if said("While lock file") && !said("Permission denied") {
        return Some("another process has the folder open: end it, or give this one another folder");
    }
    if said("Permission denied") || said("Operation not permitted") {
        return Some("give the user of this process the right to read and write the folder and the files in it");
    }
    if said("Read-only file system") {
        return Some("put the folder of the state on a disk that can be written");
    }
    if said("Not a directory") || said("File exists") {
        return Some(
            "a part of its path is no folder: move away what is there, or set state.backend.rocksdb.localdir to another folder",
        );
    }
    if said("Too many open files") {
        return Some("raise the limit of open files of this process (`ulimit -n`): each 64 MB of state are a file");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_done_is_said() {
        use ErrorKind::{Corruption, IOError, InvalidArgument};
        let cases = [
            (
                "a full disk",
                IOError,
                "IO error: No space left on device: While appending to file: /s/000012.sst: No space left on device",
                Some("make room"),
            ),
            (
                "a folder open in this process",
                IOError,
                "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /s/LOCK: No locks available",
                Some("folder of its own"),
            ),
            (
                "a folder open in another process",
                IOError,
                "IO error: While lock file: /s/LOCK: Resource temporarily unavailable",
                Some("another process"),
            ),
            (
                "a lock that may not be touched",
                IOError,
                "IO error: While open a file for lock: /s/LOCK: Permission denied",
                Some("the right to read and write"),
            ),
            (
                "a damaged block",
                Corruption,
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /s/000012.sst offset 0 size 9",
                Some("check the disk"),
            ),
            (
                "a path below a file",
                IOError,
                "IO error: While mkdir: /s/file/state: Not a directory",
                Some("a part of its path is no folder"),
            ),
            ("no files left", IOError, "IO error: While open: /s/1.sst: Too many open files", Some("ulimit")),
            ("what has no cure", InvalidArgument, "Invalid argument: column family not found", None),
        ];
        for (name, kind, text, expected) in cases {
            let reason = reason(&kind, text);
            assert!(reason.starts_with(text), "{name}: {reason}");
            match expected {
                Some(advice) => assert!(reason.contains(advice), "{name}: {reason}"),
                None => assert_eq!(reason, text, "{name}"),
            }
        }
    }
}
