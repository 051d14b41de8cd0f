use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use super::{Frames, UnpackError, retry};
use crate::position::Frame;

/// A frame, or a skippable frame, which some tools put first.
pub(super) fn is_zstd(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Decompresses frame after frame and notes where each begins. Its memory is bounded by the decompressor's limit on the
/// window (128 MiB).
pub(super) struct Zstd {
    pub(super) file: File,
    context: DCtx<'static>,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>, // of `buffer`
    read: u64,                      // offset in the file of the end of `unread`
    pub(super) offset: u64,         // in the decompressed text
    inside: bool,                   // a frame has begun and not ended
    pub(super) frames: Frames,
}

impl Zstd {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            context: DCtx::create(),
            buffer: vec![0; DCtx::in_size()].into(),
            unread: 0..0,
            read: 0,
            offset: 0,
            inside: false,
            frames: Frames::default(),
        }
    }

    pub(super) fn restart(&mut self, frame: Frame) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(frame.compressed))?;
        self.context = DCtx::create();
        self.unread = 0..0;
        self.read = frame.compressed;
        self.offset = frame.offset;
        self.inside = false;
        self.frames = Frames::from(frame);
        Ok(())
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.unread.is_empty() {
                let count = retry(|| self.file.read(&mut self.buffer)).map_err(UnpackError::Read)?;
                self.unread = 0..count;
                self.read += count as u64;
                if count == 0 && !self.inside {
                    return Ok(0);
                }
            }
            let at_end = self.unread.is_empty();
            // Also without input: the decompressor may hold output that did not fit the last time.
            let count = self.decompress(out).map_err(|code| UnpackError::Corrupt(get_error_name(code)))?;
            if count > 0 {
                return Ok(count);
            }
            if at_end && self.inside {
                return Err(UnpackError::Truncated);
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
            // A frame ended here, so the next one begins here.
            self.frames.note(Frame { compressed: self.read - self.unread.len() as u64, offset: self.offset });
        }
        Ok(count)
    }
}
