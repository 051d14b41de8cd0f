use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use crate::FileError;
use crate::input::{Input, read_failed};
use crate::parse::Next;
use crate::position::{FilePosition, Frame, Identity, Place};

const BUFFER: usize = 64 << 10;
const CHUNK: usize = 8 << 10;

/// Hands the text to a parser, at most one line at a time, and remembers the record being read.
///
/// So a parser never reads ahead by more than a line, the bytes and line ends before any place near the end are known
/// exactly, and a record without end is noticed while it is still small.
pub(crate) struct Feed {
    input: BufReader<Input>,
    raw: Vec<u8>,   // from the end of the last record on
    served: usize,  // of `raw`, how much the parser has taken
    end: Place,     // after `raw`
    limit: usize,   // of a record, in bytes
    at_end: bool,   // the parser has been told that the file ends
    open_end: bool, // what was read last does not end a line
    blank: bool,    // an empty line is to be served first
    follow: bool,   // the file may grow: its end is not the end, and what has no line end yet is not read
    waiting: bool,  // its end was reached the last time
}

impl Feed {
    pub(crate) fn open(path: &Path, limit: usize, follow: bool) -> Result<Self, FileError> {
        let input = Input::open(path)?;
        if follow && input.is_compressed() {
            return Err(FileError::CantFollow { path: path.to_path_buf() });
        }
        let input = BufReader::with_capacity(BUFFER, input);
        let (raw, end) = (Vec::new(), Place::default());
        Ok(Self {
            input,
            raw,
            served: 0,
            end,
            limit,
            at_end: false,
            open_end: false,
            blank: false,
            follow,
            waiting: false,
        })
    }

    /// Goes on at the position, after checking that it is still the same file. The parser is served an empty line
    /// first, so that it can't take a record for the beginning of a file (where a byte order mark is dropped).
    pub(crate) fn resume(self, position: &FilePosition) -> Result<Self, FileError> {
        let mut input = self.input.into_inner();
        input.check(position.file)?;
        if position.open_end && input.identity().bytes > position.file.bytes {
            let reason = "it has grown, but its last line had no line end, so the growth may belong to that line";
            return Err(FileError::Changed { path: input.path().to_path_buf(), reason: reason.to_owned() });
        }
        input.seek(position.place.offset, position.frame)?;
        let input = BufReader::with_capacity(BUFFER, input);
        let (raw, end) = (Vec::new(), position.place);
        Ok(Self {
            input,
            raw,
            served: 0,
            end,
            limit: self.limit,
            at_end: false,
            open_end: position.open_end,
            blank: true,
            follow: self.follow,
            waiting: false,
        })
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        self.input.get_ref().path()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.input.get_ref().identity()
    }

    /// The last zstd frame that begins at or before `offset`.
    pub(crate) fn frame_before(&self, offset: u64) -> Option<Frame> {
        self.input.get_ref().frame_before(offset)
    }

    /// Whether the file may grow.
    pub(crate) fn follows(&self) -> bool {
        self.follow
    }

    /// Reads to the end of the line with which [`Self::raw`] begins. Not with [`Read`].
    pub(crate) fn read_line(&mut self) -> Result<Next<()>, FileError> {
        while !self.raw.ends_with(b"\n") {
            match self.read_more() {
                Ok(0) if self.follow => return Ok(Next::Pending),
                Ok(0) if self.raw.is_empty() => return Ok(Next::End),
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(Next::Record(()))
    }

    /// The line that was read, without its line end; `lines` are before it.
    pub(crate) fn line_after(&self, lines: u64) -> Result<&str, FileError> {
        let line = self.raw.as_slice();
        let line = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")).unwrap_or(line);
        std::str::from_utf8(line).map_err(|error| FileError::Utf8 {
            path: self.path().to_path_buf(),
            line: lines + 1,
            place: format!("byte {}", error.valid_up_to() + 1),
            valid: error.valid_up_to(),
        })
    }

    /// Whether the end of the file was reached, beyond the last line end.
    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Whether the file ends at `offset` in the midst of a line.
    pub(crate) fn open_end(&self, offset: u64) -> bool {
        self.at_end && self.open_end && self.end.offset == offset
    }

    /// The bytes of the record being read, and perhaps some after it.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// After all that was read.
    pub(crate) fn end(&self) -> Place {
        self.end
    }

    /// The place at `offset`, which must be in what [`Self::raw`] holds.
    pub(crate) fn place(&self, offset: u64) -> Place {
        let ahead = self.ahead(offset);
        Place { offset, lines: self.end.lines - count_line_ends(&self.raw[self.raw.len() - ahead..]) }
    }

    /// A record has ended at `offset`: forgets what is before, and says how much that was.
    pub(crate) fn forget(&mut self, offset: u64) -> usize {
        let done = self.raw.len() - self.ahead(offset);
        self.raw.drain(..done);
        self.served = self.served.saturating_sub(done); // 0 when lines are taken from `raw` directly
        self.input.get_mut().forget(offset);
        done
    }

    fn ahead(&self, offset: u64) -> usize {
        usize::try_from(self.end.offset - offset).expect("no more than is held")
    }

    /// The line on which the record being read begins, from 1. Blank lines before it don't count as its beginning.
    pub(crate) fn line(&self) -> u64 {
        let before = self.end.lines - count_line_ends(&self.raw);
        let blank = self.raw.iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
        before + blank.filter(|byte| **byte == b'\n').count() as u64 + 1
    }

    /// Reads more of the record, up to the next line end; 0 at the end of the file.
    pub(crate) fn read_more(&mut self) -> io::Result<usize> {
        if self.raw.len() > self.limit {
            let (path, line) = (self.path().to_path_buf(), self.line());
            return Err(io::Error::other(FileError::TooLong { path, line, limit: self.limit }));
        }
        if self.waiting {
            // Before anything is read: what stands there now may not be what was appended.
            self.input.get_mut().check_followed()?;
        }
        let most = (self.limit - self.raw.len()).saturating_add(1).min(CHUNK);
        let count = self.input.by_ref().take(most as u64).read_until(b'\n', &mut self.raw)?;
        self.end.offset += count as u64;
        self.end.lines += u64::from(count > 0 && self.raw.ends_with(b"\n"));
        self.open_end = self.raw.last().map_or(self.open_end, |last| !matches!(last, b'\n' | b'\r'));
        self.at_end = count == 0 && !self.follow;
        self.waiting = count == 0 && self.follow;
        Ok(count)
    }

    pub(crate) fn failed(&self, error: io::Error) -> FileError {
        read_failed(self.path(), self.end.offset, error)
    }
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.blank) {
            return (&b"\n"[..]).read(out);
        }
        if self.served == self.raw.len() {
            self.read_more()?;
        }
        let count = (&self.raw[self.served..]).read(out)?;
        self.served += count;
        Ok(count)
    }
}

fn count_line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
