//! Where the cases put checkpoints, and how fast plain bytes get there and back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cutwater::CompletedCheckpoint;
use cutwater::storage::Store;

use crate::blobs::noise;
use crate::clock;
use crate::job::Folder;
#[cfg(feature = "s3")]
use crate::s3::Bucket;

/// Arguments of the cases that compare checkpoints with plain bytes.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// What keeps the checkpoints.
    #[arg(long, value_enum, default_value_t = Target::Disk)]
    target: Target,
    /// Where to put the folder of checkpoints, or the data of the server.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// How many objects of the plain bytes are under way at once.
    #[cfg(feature = "s3")]
    #[arg(long, default_value = "4")]
    in_flight: std::num::NonZeroUsize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    /// A folder of this machine.
    Disk,
    /// A MinIO on this machine, started for the run; `./test.sh` installs it. Needs the feature `s3`.
    S3,
}

/// Where the checkpoints of a run are.
pub(crate) enum Place {
    Disk(Folder),
    #[cfg(feature = "s3")]
    S3(Box<Bucket>),
}

impl Where {
    pub(crate) fn open(&self) -> anyhow::Result<Place> {
        let folder = Folder::below(self.checkpoints.as_deref())?;
        match self.target {
            Target::Disk => Ok(Place::Disk(folder)),
            #[cfg(feature = "s3")]
            Target::S3 => Ok(Place::S3(Box::new(Bucket::start(folder, self.in_flight)?))),
            #[cfg(not(feature = "s3"))]
            Target::S3 => anyhow::bail!("--target s3 needs `--features s3`"),
        }
    }
}

impl Place {
    pub(crate) fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Disk(folder) => Ok(folder.store()),
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.store(),
        }
    }

    /// The folder above that of the run.
    pub(crate) fn below(&self) -> Option<&Path> {
        match self {
            Self::Disk(folder) => folder.path().parent(),
            #[cfg(feature = "s3")]
            Self::S3(bucket) => bucket.folder(),
        }
    }

    pub(crate) fn target(&self) -> &'static str {
        match self {
            Self::Disk(_) => "disk",
            #[cfg(feature = "s3")]
            Self::S3(_) => "s3",
        }
    }

    /// Names of the limits: of writing and of reading.
    pub(crate) fn limits(&self) -> [&'static str; 2] {
        match self {
            Self::Disk(_) => ["plain_synced_write_mb_per_second", "plain_read_mb_per_second"],
            #[cfg(feature = "s3")]
            Self::S3(_) => ["raw_puts_mb_per_second", "raw_gets_mb_per_second"],
        }
    }

    /// How the plain bytes are written and read.
    pub(crate) fn notes(&self) -> [&'static str; 2] {
        match self {
            Self::Disk(_) => [
                "The plain write puts as many pseudo-random bytes into one file of the same folder, in pieces of 1 MiB, and \
                 syncs it; the second of two in a row counts.",
                "The plain read takes the same files in pieces of 1 MiB.",
            ],
            #[cfg(feature = "s3")]
            Self::S3(_) => [
                "Raw puts are as many pseudo-random bytes in objects of 64e6 bytes, each put whole, several at once; the \
                 second of two in a row counts. The server runs on the same cores.",
                "Raw gets are as many bytes in objects of 64e6 bytes, each got whole, several at once. The server runs on \
                 the same cores.",
            ],
        }
    }

    /// Writes so many plain bytes, and removes them again. Once before, so that it does not depend on what the checkpoint
    /// has left: memory that the system, or the host of a virtual machine, has to find first.
    pub(crate) fn write(&self, bytes: u64) -> anyhow::Result<Duration> {
        match self {
            Self::Disk(folder) => {
                let block = noise(0, 1 << 20);
                write(folder.path(), bytes, &block)?;
                write(folder.path(), bytes, &block)
            }
            #[cfg(feature = "s3")]
            Self::S3(bucket) => {
                bucket.put(bytes)?;
                bucket.remove()?;
                let took = bucket.put(bytes)?;
                bucket.remove()?;
                Ok(took)
            }
        }
    }

    /// Reads plainly as many bytes as the checkpoint has, on a disk those of its files.
    pub(crate) fn read(&self, checkpoint: &CompletedCheckpoint) -> anyhow::Result<Duration> {
        match self {
            Self::Disk(folder) => {
                let below = folder.path().join(&checkpoint.job);
                let files: Vec<PathBuf> = checkpoint.stored_files().map(|file| below.join(&file.name)).collect();
                read(&files)
            }
            #[cfg(feature = "s3")]
            Self::S3(bucket) => {
                if !bucket.holds_plain() {
                    bucket.put(checkpoint.files().map(|file| file.bytes).sum())?;
                }
                bucket.get()
            }
        }
    }
}

/// Writes so many bytes into a new file, syncs it and removes it again.
fn write(folder: &Path, bytes: u64, block: &[u8]) -> anyhow::Result<Duration> {
    let path = folder.join("plain");
    let start = clock::now();
    let mut file = File::create_new(&path).with_context(|| format!("could not make {}", path.display()))?;
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()?;
    let took = clock::since(start);
    std::fs::remove_file(&path)?;
    Ok(took)
}

/// Reads the files from their beginnings to their ends.
fn read(files: &[PathBuf]) -> anyhow::Result<Duration> {
    let start = clock::now();
    let mut buffer = vec![0_u8; 1 << 20];
    for path in files {
        let mut file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(clock::since(start))
}
