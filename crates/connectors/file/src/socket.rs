//! Lines from a TCP connection: for trying things, not for counting.

use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use cutwater_dataflow::{ReadStatus, Source, SourceOutput, SplitReader, UserError};
use serde::{Deserialize, Serialize};

use crate::{DEFAULT_MAX_RECORD_BYTES, FileError};

/// How long a connection may take to come about, for each address that the name has.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a silent connection is looked at.
const POLL: Duration = Duration::from_millis(10);

const CHUNK: usize = 16 << 10;

/// Reads lines from a TCP connection, as of `nc -lk 9999`. Made by [`socket_lines`].
///
/// **It can't be replayed.** What was received between the last checkpoint and a failure is gone, and so is what the
/// other side sends while nobody is connected: over a restart each line counts at most once, whatever the mode of the
/// checkpoints. Its position only counts lines. To lose nothing, write to a file and
/// [follow](crate::FileSource::follow) it.
///
/// An attempt connects when it starts, for at most 5 s an address; that nobody listens is an error that the restart
/// strategy may try again. A connection that the other side has closed is the end of the data. It has no place in the
/// simulation, whose worlds have no sockets.
#[derive(Clone, Debug)]
pub struct SocketSource {
    address: String,
    max_record_bytes: usize,
}

/// Connects to `address`, a host and port as in `localhost:9999`, and reads lines of UTF-8 until the other side closes.
/// Line ends are `\n` or `\r\n`; what comes after the last one counts as a line when the connection is closed.
///
/// ```
/// use std::io::Write;
/// use cutwater_dataflow::{ReadStatus, Source, SourceOutput, SplitReader};
///
/// # fn main() -> Result<(), cutwater_dataflow::UserError> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let source = cutwater_file::socket_lines(listener.local_addr()?.to_string());
/// let mut reader = source.open("socket", None)?;
/// listener.accept()?.0.write_all(b"one\ntwo\n")?; // and closes
/// let mut out = SourceOutput::new(10);
/// while reader.read(&mut out)? != ReadStatus::End {}
/// assert_eq!(out.take().len(), 2);
/// # Ok(())
/// # }
/// ```
pub fn socket_lines(address: impl Into<String>) -> SocketSource {
    SocketSource { address: address.into(), max_record_bytes: DEFAULT_MAX_RECORD_BYTES }
}

impl SocketSource {
    /// The longest line in bytes, its end not counted: a longer one is an error. [`DEFAULT_MAX_RECORD_BYTES`] unless
    /// set.
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    fn connect(&self) -> Result<TcpStream, FileError> {
        let failed = |source| FileError::Connect { address: self.address.clone(), source };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_nonblocking(true).map_err(failed)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }
}

/// How many lines were received, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPosition {
    lines: u64,
}

impl SocketPosition {
    /// The lines received before.
    #[must_use]
    pub fn lines(self) -> u64 {
        self.lines
    }
}

impl Source for SocketSource {
    type Record = String;
    type Position = SocketPosition;
    type Reader = SocketReader;

    fn splits(&self, _parallelism: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["socket".to_owned()])
    }

    fn open(&self, _split: &str, position: Option<&SocketPosition>) -> Result<SocketReader, UserError> {
        Ok(SocketReader {
            stream: self.connect().map_err(FileError::for_job)?,
            address: self.address.clone(),
            limit: self.max_record_bytes,
            received: Vec::new(),
            begin: 0,
            searched: 0,
            closed: false,
            position: position.copied().unwrap_or_default(),
        })
    }

    fn parallelism_limit(&self) -> u32 {
        1
    }
}

/// Reads one connection of a [`SocketSource`].
#[derive(Debug)]
pub struct SocketReader {
    stream: TcpStream,
    address: String,
    limit: usize,
    received: Vec<u8>,
    begin: usize,    // in `received`: of the next line
    searched: usize, // in `received`: there is no line end between `begin` and this
    closed: bool,
    position: SocketPosition,
}

impl SocketReader {
    /// Takes the next line out of what was received; `None` if it is not whole.
    fn line(&mut self) -> Result<Option<String>, FileError> {
        let found = self.received[self.searched..].iter().position(|byte| *byte == b'\n');
        let (end, next) = match found {
            Some(at) => (self.searched + at, self.searched + at + 1),
            None => {
                self.searched = self.received.len();
                let length = self.received.len() - self.begin;
                if length > self.limit.saturating_add(1) {
                    return Err(self.bad(format!("it is longer than {} bytes, is a line end missing?", self.limit)));
                }
                if !self.closed || length == 0 {
                    return Ok(None);
                }
                (self.received.len(), self.received.len())
            }
        };
        let line = &self.received[self.begin..end];
        let line = line.strip_suffix(b"\r").filter(|_| next > end).unwrap_or(line);
        if line.len() > self.limit {
            return Err(self.bad(format!("it is longer than {} bytes, is a line end missing?", self.limit)));
        }
        let text = std::str::from_utf8(line)
            .map_err(|error| {
                self.bad(format!("invalid UTF-8 after {} bytes; expected UTF-8 text", error.valid_up_to()))
            })?
            .to_owned();
        (self.begin, self.searched) = (next, next);
        self.position.lines += 1;
        Ok(Some(text))
    }

    /// Whether anything was received, the end included.
    fn receive(&mut self) -> Result<bool, FileError> {
        self.received.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        let held = self.received.len();
        self.received.resize(held + CHUNK, 0);
        let result = self.stream.read(&mut self.received[held..]);
        self.received.truncate(held + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => {
                self.closed = true;
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(source) => {
                Err(FileError::Receive { address: self.address.clone(), lines: self.position.lines, source })
            }
        }
    }

    fn bad(&self, reason: String) -> FileError {
        FileError::SocketLine { address: self.address.clone(), line: self.position.lines + 1, reason }
    }
}

impl SplitReader for SocketReader {
    type Record = String;
    type Position = SocketPosition;

    fn read(&mut self, out: &mut SourceOutput<String>) -> Result<ReadStatus, UserError> {
        while out.room() > 0 {
            if let Some(line) = self.line().map_err(FileError::for_job)? {
                out.emit(line);
            } else if self.closed {
                return Ok(ReadStatus::End);
            } else if !self.receive().map_err(FileError::for_job)? {
                return Ok(ReadStatus::WaitUntil(out.now() + POLL));
            }
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> SocketPosition {
        self.position
    }
}

#[cfg(test)]
mod tests;
