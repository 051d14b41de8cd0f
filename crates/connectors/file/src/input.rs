use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::FileError;
use crate::position::{Frame, Identity};

mod gzip;
mod zstd;

use gzip::{Gzip, is_gzip};
use zstd::{Zstd, is_zstd};

/// How many first bytes of a file tell it from another.
const HEAD: u64 = 4096;

/// The decompressed text of a file. Whether it is compressed is told by its first bytes.
pub(crate) struct Input {
    path: Arc<Path>,
    identity: Identity,
    kind: Kind,
}

enum Kind {
    Plain { file: File, offset: u64 },
    Zstd(Box<Zstd>),
    Gzip(Box<Gzip>),
}

impl Input {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Open { path: path.into(), source };
        // Asked before opening: opening a named pipe would wait for a writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(FileError::NotAFile { path: path.into() });
        }
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let head = head(&mut file, HEAD).map_err(failed)?;
        let identity = Identity {
            bytes,
            head_bytes: u32::try_from(head.len()).expect("at most HEAD"),
            head_crc: crc32c::crc32c(&head),
        };
        let kind = match () {
            () if is_zstd(&head) => Kind::Zstd(Box::new(Zstd::new(file))),
            () if is_gzip(&head) => Kind::Gzip(Box::new(Gzip::new(file))),
            () => Kind::Plain { file, offset: 0 },
        };
        Ok(Self { path: path.into(), identity, kind })
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this is the file it was, perhaps grown.
    pub(crate) fn check(&mut self, before: Identity) -> Result<(), FileError> {
        let path = &self.path;
        if self.identity.bytes < before.bytes {
            let reason = format!("it had {} bytes and has {}", before.bytes, self.identity.bytes);
            return Err(FileError::Changed { path: path.to_path_buf(), reason });
        }
        let file = match &mut self.kind {
            Kind::Plain { file, .. } => file,
            Kind::Zstd(zstd) => &mut zstd.file,
            Kind::Gzip(gzip) => gzip.file(),
        };
        let head = head(file, u64::from(before.head_bytes))
            .map_err(|source| FileError::Open { path: path.to_path_buf(), source })?;
        if crc32c::crc32c(&head) != before.head_crc {
            let reason = format!("its first {} bytes differ", before.head_bytes);
            return Err(FileError::Changed { path: path.to_path_buf(), reason });
        }
        Ok(())
    }

    /// Whether it is decompressed.
    pub(crate) fn is_compressed(&self) -> bool {
        !matches!(self.kind, Kind::Plain { .. })
    }

    /// Of a file that is followed, at its end: whether it is still there, and has only grown.
    pub(crate) fn check_followed(&mut self) -> io::Result<()> {
        let Kind::Plain { file, offset } = &mut self.kind else { return Ok(()) };
        let (path, offset) = (self.path.to_path_buf(), *offset);
        let not_appended = |reason: String| io::Error::other(FileError::NotAppended { path: path.clone(), reason });
        let there = match fs::metadata(&path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_appended("was moved or deleted".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let ours = file.metadata()?;
        if !is_same(&there, &ours) {
            return Err(not_appended("was replaced by another file".to_owned()));
        }
        if ours.len() < offset {
            return Err(not_appended(format!("was cut to {} bytes, of which {offset} had been read", ours.len())));
        }
        let head = head_at(file, offset)?;
        let known = usize::try_from(self.identity.head_bytes).expect("at most HEAD");
        if head.get(..known).is_none_or(|head| crc32c::crc32c(head) != self.identity.head_crc) {
            return Err(not_appended(format!("was written anew: its first {known} bytes differ")));
        }
        // Of a file that was short, more can be told by now. What is not read yet may still change.
        let read = usize::try_from(offset).unwrap_or(usize::MAX).min(head.len());
        if read > known {
            self.identity.head_bytes = u32::try_from(read).expect("at most HEAD");
            self.identity.head_crc = crc32c::crc32c(&head[..read]);
        }
        Ok(())
    }

    /// Goes on at `offset`, where `frame` is the beginning of a frame at or before it.
    pub(crate) fn seek(&mut self, offset: u64, frame: Option<Frame>) -> Result<(), FileError> {
        let failed = |path: &Arc<Path>, source| FileError::Read { path: path.to_path_buf(), offset, source };
        let skip = match &mut self.kind {
            Kind::Plain { file, offset: now } => {
                file.seek(SeekFrom::Start(offset)).map_err(|error| failed(&self.path, error))?;
                *now = offset;
                0
            }
            Kind::Zstd(zstd) => {
                let frame = frame.filter(|frame| frame.offset <= offset).unwrap_or_default();
                zstd.restart(frame).map_err(|error| failed(&self.path, error))?;
                offset - frame.offset
            }
            Kind::Gzip(gzip) => {
                let frame = frame.filter(|frame| frame.offset <= offset).unwrap_or_default();
                gzip.restart(frame).map_err(|error| failed(&self.path, error))?;
                offset - frame.offset
            }
        };
        let skipped = io::copy(&mut self.by_ref().take(skip), &mut io::sink());
        let skipped = skipped.map_err(|error| read_failed(&self.path, offset, error))?;
        if skipped < skip {
            let reason = format!("it ends before byte {offset} of its decompressed text, where reading was to go on");
            return Err(FileError::Changed { path: self.path.to_path_buf(), reason });
        }
        Ok(())
    }

    /// The last frame known to begin at or before `offset`.
    pub(crate) fn frame_before(&self, offset: u64) -> Option<Frame> {
        match &self.kind {
            Kind::Plain { .. } => None,
            Kind::Zstd(zstd) => zstd.frames.before(offset),
            Kind::Gzip(gzip) => gzip.frames.before(offset),
        }
    }

    /// Nobody will ask for a place before `offset` any more.
    pub(crate) fn forget(&mut self, offset: u64) {
        match &mut self.kind {
            Kind::Plain { .. } => {}
            Kind::Zstd(zstd) => zstd.frames.forget(offset),
            Kind::Gzip(gzip) => gzip.frames.forget(offset),
        }
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Plain { file, offset } => {
                let count = retry(|| file.read(out)).map_err(|source| {
                    let path = self.path.to_path_buf();
                    io::Error::other(FileError::Read { path, offset: *offset, source })
                })?;
                *offset += count as u64;
                // It has grown since it was opened: shorter than this it will never be again.
                self.identity.bytes = self.identity.bytes.max(*offset);
                Ok(count)
            }
            Kind::Zstd(zstd) => zstd.read(out).map_err(|error| error.at(&self.path, zstd.offset)),
            Kind::Gzip(gzip) => gzip.read(out).map_err(|error| error.at(&self.path, gzip.offset)),
        }
    }
}

/// Takes the error of this crate out of an I/O error that carries it through a reader.
pub(crate) fn read_failed(path: &Path, offset: u64, error: io::Error) -> FileError {
    error.downcast().unwrap_or_else(|source| FileError::Read { path: PathBuf::from(path), offset, source })
}

fn head(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.rewind()?;
    file.by_ref().take(limit).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}

/// The first bytes, while reading stands at `offset` and goes on there.
fn head_at(file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
    let head = head(file, HEAD)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(head)
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere a replaced file is told by its length and its first bytes alone.
#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

fn retry<T>(mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match run() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Why there is no more decompressed text.
enum UnpackError {
    Read(io::Error),
    Corrupt(&'static str),
    Truncated,
}

impl UnpackError {
    /// As an I/O error, to get through the readers above.
    fn at(self, path: &Path, offset: u64) -> io::Error {
        let path = path.to_path_buf();
        io::Error::other(match self {
            Self::Read(source) => FileError::Read { path, offset, source },
            Self::Corrupt(reason) => FileError::Corrupt { path, offset, reason },
            Self::Truncated => FileError::Truncated { path, offset },
        })
    }
}

/// Where frames (zstd) or members (gzip) begin, the first at or before what callers may still ask for. Never empty.
struct Frames(VecDeque<Frame>);

impl Default for Frames {
    fn default() -> Self {
        Self::from(Frame::default())
    }
}

impl From<Frame> for Frames {
    fn from(first: Frame) -> Self {
        Self(VecDeque::from([first]))
    }
}

impl Frames {
    fn note(&mut self, frame: Frame) {
        match self.0.back_mut() {
            // Frames without content, however many, take one place.
            Some(last) if last.offset == frame.offset => *last = frame,
            _ => self.0.push_back(frame),
        }
    }

    fn last(&self) -> Frame {
        self.0.back().copied().unwrap_or_default()
    }

    fn before(&self, offset: u64) -> Option<Frame> {
        self.0.iter().take_while(|frame| frame.offset <= offset).last().copied()
    }

    fn forget(&mut self, offset: u64) {
        while self.0.get(1).is_some_and(|next| next.offset <= offset) {
            self.0.pop_front();
        }
    }
}
