//! The file system of a folder: what kind it is, and whether there is room.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::check::{Check, Trouble};
use crate::text::size;

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Checkpoints,
    Savepoints,
    LocalCopies,
    RocksDb,
}

impl Role {
    /// Before what is said of the folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Savepoints => "savepoints",
            Self::LocalCopies => "local copies",
            Self::RocksDb => "RocksDB",
        }
    }

    /// Before what is said of the disk that it lies on.
    fn disk(self) -> &'static str {
        match self {
            Self::Checkpoints => "disk of checkpoints",
            Self::Savepoints => "disk of savepoints",
            Self::LocalCopies => "disk of local copies",
            Self::RocksDb => "disk of RocksDB",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Checkpoints => "execution.checkpointing.dir",
            Self::Savepoints => "execution.checkpointing.savepoint-dir",
            Self::LocalCopies => "execution.checkpointing.local-backup.dirs",
            Self::RocksDb => "state.backend.rocksdb.localdir",
        }
    }
}

/// What a file system keeps its files in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory(&'static str),
    Network(&'static str),
    Other,
}

impl Kind {
    /// By the number that Linux gives it (`man 2 statfs`).
    fn of(number: u64) -> Self {
        match number {
            0x0102_1994 => Self::Memory("tmpfs"),
            0x8584_58f6 => Self::Memory("ramfs"),
            0x6969 => Self::Network("NFS"),
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => Self::Network("SMB"),
            0x0102_1997 => Self::Network("9p"),
            0x00c3_6400 => Self::Network("Ceph"),
            0x0bd0_0bd0 => Self::Network("Lustre"),
            0x4750_4653 => Self::Network("GPFS"),
            0x5346_414f | 0x6b41_4653 => Self::Network("AFS"),
            0x0116_1970 => Self::Network("GFS2"),
            0x7461_636f => Self::Network("OCFS2"),
            0x6573_5546 => Self::Network("FUSE"),
            _ => Self::Other,
        }
    }
}

/// What the system says of the file system that a folder lies in, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) kind: Kind,
    /// Two folders on one disk have the same number.
    pub(super) device: u64,
    read_only: bool,
    total_bytes: u64,
    /// For users other than root.
    free_bytes: u64,
    /// 0: the file system does not count them.
    total_inodes: u64,
    free_inodes: u64,
}

impl Disk {
    /// Of the folder, or of the nearest one above that is there.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let there = nearest(folder)?;
        let found = statvfs(&there)?;
        Ok(Self {
            kind: kind_of(&there),
            device: there.metadata()?.dev(),
            read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_inodes: found.f_files,
            free_inodes: found.f_favail,
        })
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_sign_loss, reason = "the type of the number is another on each machine")]
fn kind_of(folder: &Path) -> Kind {
    // Some machines give it the width of a pointer, with a sign: all numbers have 32 bits.
    rustix::fs::statfs(folder).map_or(Kind::Other, |found| Kind::of(found.f_type as u64 & 0xffff_ffff))
}

#[cfg(not(target_os = "linux"))]
fn kind_of(_: &Path) -> Kind {
    Kind::Other
}

fn nearest(folder: &Path) -> io::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for above in folder.ancestors() {
        match above.metadata() {
            Ok(_) => return Ok(above.to_owned()),
            Err(found) => error = found,
        }
    }
    Err(error)
}

/// Less than this is soon used up, whatever the job does.
const LITTLE_BYTES: u64 = 1 << 30;
/// With less, nothing can be written.
const NO_BYTES: u64 = 16 << 20;
const LITTLE_INODES: u64 = 10_000;
const NO_INODES: u64 = 100;

/// Whether there is room for `needed` bytes, all that the job is known to put on this disk; `None` if nobody knows.
pub(super) fn judge_room(role: Role, folder: &Path, disk: &Disk, needed: Option<u64>) -> Check {
    let Disk { total_bytes, free_bytes, total_inodes, free_inodes, .. } = *disk;
    let inodes = if total_inodes == 0 { String::new() } else { format!(", {free_inodes} of {total_inodes} inodes") };
    let mut found = format!("{}: {} of {} are free{inodes}", folder.display(), size(free_bytes), size(total_bytes));
    if let Some(needed) = needed {
        found += &format!("; the job may need {} on this disk", size(needed));
    }
    let name = role.disk();
    let to_do = format!("make room, or set `{}` to a folder on a larger disk", role.key());
    let few_inodes = |limit| total_inodes > 0 && free_inodes < limit;
    let check = match () {
        () if disk.read_only => {
            let found = format!("{}: the file system is read-only", folder.display());
            let to_do = format!("mount it writable, or set `{}` to another folder", role.key());
            Check::error(name, Trouble::Folder, found, &to_do)
        }
        () if free_bytes < NO_BYTES || few_inodes(NO_INODES) || needed.is_some_and(|needed| free_bytes < needed) => {
            Check::error(name, Trouble::Room, found, &to_do)
        }
        () if free_bytes < LITTLE_BYTES || few_inodes(LITTLE_INODES) => {
            Check::warning(name, Trouble::Room, found, &to_do)
        }
        () => Check::ok(name, found),
    };
    let figures = [("free_bytes", free_bytes), ("total_bytes", total_bytes)];
    let counted = [("free_inodes", free_inodes), ("total_inodes", total_inodes)];
    let check = check.with_figures(figures).with_figures(counted.into_iter().filter(|_| total_inodes > 0));
    check.with_figures(needed.map(|needed| ("needed_bytes", needed)))
}

/// What is to say of the kind of file system for this use.
pub(super) fn judge_kind(role: Role, folder: &Path, kind: Kind) -> Option<Check> {
    let at = folder.display();
    let (found, to_do) = match (role, kind) {
        (Role::Checkpoints | Role::Savepoints, Kind::Memory(name)) => (
            format!("{at} is in memory ({name}): what lies there is gone with the machine"),
            "a disk, or an object store",
        ),
        (Role::RocksDb, Kind::Memory(name)) => {
            (format!("{at} is in memory ({name}): state in RocksDB then takes memory twice"), "a local disk")
        }
        (Role::LocalCopies, Kind::Memory(name)) => {
            (format!("{at} is in memory ({name}): copies take memory, and are gone with the machine"), "a local disk")
        }
        (Role::RocksDb | Role::LocalCopies, Kind::Network(name)) => (
            format!("{at} is not on a disk of this machine ({name}): each access goes over the network"),
            "a local disk",
        ),
        (Role::Checkpoints | Role::Savepoints, Kind::Network(_)) | (_, Kind::Other) => return None,
    };
    let to_do = format!("set `{}` to {to_do}", role.key()).replace("to a local disk", "to a folder of a local disk");
    Some(Check::warning(role.disk(), Trouble::FileSystem, found, &to_do))
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    const ROOMY: Disk = Disk {
        kind: Kind::Other,
        device: 1,
        read_only: false,
        total_bytes: 100 << 30,
        free_bytes: 50 << 30,
        total_inodes: 1_000_000,
        free_inodes: 900_000,
    };

    #[test]
    fn a_disk_that_is_full_or_nearly_is_told() {
        use Verdict::{Error, Ok, Warning};
        let cases = [
            ("room", ROOMY, None, Ok, "50.0 GiB of 100.0 GiB are free, 900000 of 1000000 inodes"),
            ("room for the state", ROOMY, Some(50 << 30), Ok, "may need 50.0 GiB on this disk"),
            ("one byte too little for the state", ROOMY, Some((50 << 30) + 1), Error, "execution.checkpointing.dir"),
            ("less than a gigabyte", Disk { free_bytes: (1 << 30) - 1, ..ROOMY }, None, Warning, "make room"),
            ("a gigabyte", Disk { free_bytes: 1 << 30, ..ROOMY }, None, Ok, "1.0 GiB of"),
            ("full", Disk { free_bytes: 0, ..ROOMY }, None, Error, "make room"),
            ("nearly full", Disk { free_bytes: (16 << 20) - 1, ..ROOMY }, None, Error, "make room"),
            ("no inodes", Disk { free_inodes: 0, ..ROOMY }, None, Error, "0 of 1000000 inodes"),
            ("few inodes", Disk { free_inodes: 9_999, ..ROOMY }, None, Warning, "9999 of 1000000 inodes"),
            ("inodes are not counted", Disk { free_inodes: 0, total_inodes: 0, ..ROOMY }, None, Ok, "GiB are free"),
            ("read-only", Disk { read_only: true, ..ROOMY }, None, Error, "mount it writable"),
        ];
        for (name, disk, needed, verdict, text) in cases {
            let check = judge_room(Role::Checkpoints, Path::new("/c"), &disk, needed);
            assert_eq!(check.verdict, verdict, "{name}: {check:?}");
            let said = format!("{} {}", check.found, check.to_do.clone().unwrap_or_default());
            assert!(said.contains(text), "{name}: {said}");
            assert_eq!(check.to_do.is_some(), verdict != Ok, "{name}");
        }
    }

    #[test]
    fn memory_and_networks_are_told_where_they_matter() {
        use Role::{Checkpoints, LocalCopies, RocksDb, Savepoints};
        let (tmpfs, nfs) = (Kind::of(0x0102_1994), Kind::of(0x6969));
        let cases = [
            (Checkpoints, tmpfs, Some("is in memory (tmpfs): what lies there is gone with the machine")),
            (Savepoints, tmpfs, Some("gone with the machine")),
            (LocalCopies, tmpfs, Some("copies take memory")),
            (RocksDb, tmpfs, Some("takes memory twice")),
            (Checkpoints, nfs, None), // what it lacks, the probe finds
            (Savepoints, nfs, None),
            (LocalCopies, nfs, Some("goes over the network")),
            (RocksDb, nfs, Some("is not on a disk of this machine (NFS)")),
            (RocksDb, Kind::of(0xef53), None),          // ext4
            (LocalCopies, Kind::of(0x794c_7630), None), // overlay
        ];
        for (role, kind, expected) in cases {
            let check = judge_kind(role, Path::new("/f"), kind);
            assert_eq!(check.is_some(), expected.is_some(), "{role:?} {kind:?}");
            if let (Some(check), Some(expected)) = (check, expected) {
                assert!(check.found.contains(expected), "{role:?} {kind:?}: {check:?}");
                assert!(check.to_do.is_some_and(|to_do| to_do.contains(role.key())), "{role:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(folder.path()).unwrap();
        assert!(disk.total_bytes > 0 && !disk.read_only);
        let below = Disk::of(&folder.path().join("a/b/c")).unwrap();
        assert_eq!((below.device, below.total_bytes), (disk.device, disk.total_bytes));
        assert_eq!(Disk::of(Path::new("/proc")).map(|disk| disk.device == below.device).ok(), Some(false));
    }
}
