use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::GzDecoder;

use super::{Frames, UnpackError, retry};
use crate::position::Frame;

/// A member of a gzip file.
pub(super) fn is_gzip(head: &[u8]) -> bool {
    matches!(head, [0x1f, 0x8b, ..])
}

/// Decompresses member after member and notes where each begins. A member has a window of 32 KiB and a header of at
/// most 64 KiB for each of its texts, so memory is bounded whatever the file says.
pub(super) struct Gzip {
    /// `None` only while one member hands the file on to the next.
    member: Option<GzDecoder<Compressed>>,
    pub(super) offset: u64, // in the decompressed text
    at_end: bool,
    pub(super) frames: Frames,
}

/// The file, which counts what the decompressor takes, and keeps a failure of the system apart from bad data.
struct Compressed {
    file: BufReader<File>,
    taken: u64,
    failed: Option<io::Error>,
}

impl Gzip {
    pub(super) fn new(file: File) -> Self {
        let file = Compressed { file: BufReader::new(file), taken: 0, failed: None };
        Self { member: Some(GzDecoder::new(file)), offset: 0, at_end: false, frames: Frames::default() }
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.member_mut().get_mut().file.get_mut()
    }

    pub(super) fn restart(&mut self, frame: Frame) -> io::Result<()> {
        let mut file = self.take_file();
        let sought = file.file.seek(SeekFrom::Start(frame.compressed)); // drops what was buffered
        file.taken = frame.compressed;
        file.failed = None;
        self.member = Some(GzDecoder::new(file));
        self.offset = frame.offset;
        self.at_end = false;
        self.frames = Frames::from(frame);
        sought.map(|_| ())
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        while !out.is_empty() && !self.at_end {
            if self.between_members()? {
                self.at_end = true;
                break;
            }
            let count = match self.member_mut().read(out) {
                Ok(count) => count,
                Err(error) => return Err(self.failed(&error)),
            };
            if count > 0 {
                self.offset += count as u64;
                return Ok(count);
            }
            let file = self.take_file();
            self.frames.note(Frame { compressed: file.taken, offset: self.offset });
            self.member = Some(GzDecoder::new(file));
        }
        Ok(0)
    }

    /// Whether a member has ended, and the file with it. A file that ends later is cut off.
    fn between_members(&mut self) -> Result<bool, UnpackError> {
        let begins = self.frames.last().offset == self.offset;
        let at_frame = self.frames.last().compressed;
        let file = self.member_mut().get_mut();
        if !begins || file.taken != at_frame {
            return Ok(false);
        }
        file.fill_buf().map(<[u8]>::is_empty).map_err(UnpackError::Read)
    }

    fn failed(&mut self, error: &io::Error) -> UnpackError {
        if let Some(error) = self.member_mut().get_mut().failed.take() {
            return UnpackError::Read(error);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return UnpackError::Truncated;
        }
        let at_member = self.frames.last().offset == self.offset && self.frames.last() != Frame::default();
        UnpackError::Corrupt(if at_member {
            "what comes after a gzip member is no other member, or damaged"
        } else {
            "the gzip data or its checksum is wrong"
        })
    }

    fn member_mut(&mut self) -> &mut GzDecoder<Compressed> {
        self.member.as_mut().expect("each method that takes it puts one back")
    }

    fn take_file(&mut self) -> Compressed {
        self.member.take().expect("each method that takes it puts one back").into_inner()
    }
}

impl Read for Compressed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Compressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { file, failed, .. } = self;
        if let Err(error) = retry(|| file.fill_buf().map(|_| ())) {
            // The decompressor passes the kind on at best.
            let told = io::Error::from(error.kind());
            *failed = Some(error);
            return Err(told);
        }
        file.fill_buf() // what is there already
    }

    fn consume(&mut self, count: usize) {
        self.file.consume(count);
        self.taken += count as u64;
    }
}
