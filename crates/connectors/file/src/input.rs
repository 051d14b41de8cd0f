use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use crate::FileError;
use crate::position::{Frame, Identity};

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
        let kind = if is_zstd(&head) { Kind::Zstd(Box::new(Zstd::new(file))) } else { Kind::Plain { file, offset: 0 } };
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
        };
        let head = head(file, u64::from(before.head_bytes))
            .map_err(|source| FileError::Open { path: path.to_path_buf(), source })?;
        if crc32c::crc32c(&head) != before.head_crc {
            let reason = format!("its first {} bytes differ", before.head_bytes);
            return Err(FileError::Changed { path: path.to_path_buf(), reason });
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
            Kind::Zstd(zstd) => zstd.frames.iter().take_while(|frame| frame.offset <= offset).last().copied(),
        }
    }

    /// Nobody will ask for a place before `offset` any more.
    pub(crate) fn forget(&mut self, offset: u64) {
        if let Kind::Zstd(zstd) = &mut self.kind {
            while zstd.frames.get(1).is_some_and(|next| next.offset <= offset) {
                zstd.frames.pop_front();
            }
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
                Ok(count)
            }
            Kind::Zstd(zstd) => zstd.read(out).map_err(|error| {
                let (path, offset) = (self.path.to_path_buf(), zstd.offset);
                io::Error::other(match error {
                    ZstdError::Read(source) => FileError::Read { path, offset, source },
                    ZstdError::Corrupt(code) => FileError::Corrupt { path, offset, reason: get_error_name(code) },
                    ZstdError::Truncated => FileError::Truncated { path, offset },
                })
            }),
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

/// A frame, or a skippable frame, which some tools put first.
fn is_zstd(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn retry<T>(mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match run() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Decompresses frame after frame and notes where each begins. Its memory is bounded by the decompressor's limit on the
/// window (128 MiB).
struct Zstd {
    file: File,
    context: DCtx<'static>,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>, // of `buffer`
    read: u64,                      // offset in the file of the end of `unread`
    offset: u64,                    // in the decompressed text
    inside: bool,                   // a frame has begun and not ended
    frames: VecDeque<Frame>,        // beginnings, the first at or before what callers may still ask for
}

enum ZstdError {
    Read(io::Error),
    Corrupt(usize),
    Truncated,
}

impl Zstd {
    fn new(file: File) -> Self {
        Self {
            file,
            context: DCtx::create(),
            buffer: vec![0; DCtx::in_size()].into(),
            unread: 0..0,
            read: 0,
            offset: 0,
            inside: false,
            frames: VecDeque::from([Frame::default()]),
        }
    }

    fn restart(&mut self, frame: Frame) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(frame.compressed))?;
        self.context = DCtx::create();
        self.unread = 0..0;
        self.read = frame.compressed;
        self.offset = frame.offset;
        self.inside = false;
        self.frames = VecDeque::from([frame]);
        Ok(())
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, ZstdError> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.unread.is_empty() {
                let count = retry(|| self.file.read(&mut self.buffer)).map_err(ZstdError::Read)?;
                self.unread = 0..count;
                self.read += count as u64;
                if count == 0 && !self.inside {
                    return Ok(0);
                }
            }
            let at_end = self.unread.is_empty();
            // Also without input: the decompressor may hold output that did not fit the last time.
            let count = self.decompress(out).map_err(ZstdError::Corrupt)?;
            if count > 0 {
                return Ok(count);
            }
            if at_end && self.inside {
                return Err(ZstdError::Truncated);
            }
        }
    }

    fn decompress(&mut self, out: &mut [u8]) -> Result<usize, usize> {
        let mut input = InBuffer::around(&self.buffer[self.unread.clone()]);
        let mut output = OutBuffer::around(out);
        let hint = self.context.decompress_stream(&mut output, &mut input)?;
        let count = output.pos();
        self.unread.start += input.pos();
        self.offset += count as u64;
        self.inside = hint != 0;
        if !self.inside {
            self.note_frame();
        }
        Ok(count)
    }

    /// A frame ended here, so the next one begins here.
    fn note_frame(&mut self) {
        let frame = Frame { compressed: self.read - self.unread.len() as u64, offset: self.offset };
        match self.frames.back_mut() {
            // Frames without content, however many, take one place.
            Some(last) if last.offset == frame.offset => *last = frame,
            _ => self.frames.push_back(frame),
        }
    }
}
