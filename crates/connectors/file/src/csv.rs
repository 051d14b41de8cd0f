use ::csv::{Reader, ReaderBuilder, StringRecord};
use serde::de::DeserializeOwned;

use crate::FileError;
use crate::feed::Feed;
use crate::parse::{Next, Parser};
use crate::position::{FilePosition, Place};

mod explain;

/// Records of a CSV file with a header, by column names.
pub(crate) struct CsvParser {
    reader: Reader<Feed>,
    base: u64, // of the reader's own byte count
    delimiter: u8,
    header: StringRecord,
    header_crc: u32,
    record: StringRecord,
    place: Place,
    ahead: Ahead, // of a file that is followed
}

/// How much of the next record is there, in a file that is followed.
#[derive(Default)]
struct Ahead {
    scanned: usize, // bytes of what the feed holds
    quotes: explain::Quotes,
    begun: bool, // there is something but line ends
}

impl CsvParser {
    pub(crate) fn open<T: DeserializeOwned + 'static>(
        feed: Feed,
        delimiter: u8,
        position: Option<&FilePosition>,
    ) -> Result<Box<dyn Parser<T>>, FileError> {
        let mut parser = Self::at_header(feed, delimiter)?;
        if let Some(position) = position {
            parser = parser.resume(position)?;
        }
        Ok(Box::new(parser))
    }

    fn at_header(feed: Feed, delimiter: u8) -> Result<Self, FileError> {
        let mut parser = Self {
            reader: reader(feed, delimiter),
            base: 0,
            delimiter,
            header: StringRecord::new(),
            header_crc: 0,
            record: StringRecord::new(),
            place: Place::default(),
            ahead: Ahead::default(),
        };
        if !parser.is_there()? || !parser.read()? {
            return Err(FileError::NoHeader { path: parser.reader.get_ref().path().to_path_buf() });
        }
        let feed = parser.reader.get_ref();
        let ahead = feed.end().offset - parser.place.offset;
        let length = feed.raw().len() - usize::try_from(ahead).expect("no more than is held");
        parser.header_crc = crc32c::crc32c(&feed.raw()[..length]);
        parser.header = std::mem::take(&mut parser.record);
        Ok(parser)
    }

    fn resume(self, position: &FilePosition) -> Result<Self, FileError> {
        let feed = self.reader.into_inner();
        let path = feed.path().clone();
        let feed = feed.resume(position)?;
        if self.header_crc != position.header_crc {
            let reason = "its header is another".to_owned();
            return Err(FileError::Changed { path: path.to_path_buf(), reason });
        }
        // The reader is served an empty line first, which is in no file.
        let base = position.place.offset.wrapping_sub(1);
        let ahead = Ahead::default();
        Ok(Self { reader: reader(feed, self.delimiter), base, place: position.place, ahead, ..self })
    }

    /// Where the reader stands. With `\r\n` that is between the two, before the `\n`.
    fn consumed(&self) -> u64 {
        match self.reader.position().byte() {
            0 => self.place.offset, // resumed, and the empty line not yet taken
            byte => self.base.wrapping_add(byte),
        }
    }

    /// Whether the reader may go on: always, unless the file is followed and the next record is not whole yet. The reader
    /// itself would take the end of what is there for the end of the file.
    fn is_there(&mut self) -> Result<bool, FileError> {
        let feed = self.reader.get_mut();
        if !feed.follows() {
            return Ok(true);
        }
        let ahead = &mut self.ahead;
        loop {
            for byte in &feed.raw()[ahead.scanned..] {
                ahead.quotes.take(*byte, self.delimiter);
                ahead.begun |= !matches!(byte, b'\n' | b'\r');
            }
            ahead.scanned = feed.raw().len();
            if ahead.begun && !ahead.quotes.are_open() && feed.raw().ends_with(b"\n") {
                return Ok(true);
            }
            match feed.read_more() {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(feed.failed(error)),
            }
        }
    }

    /// Reads a record as text; false at the end of the file.
    fn read(&mut self) -> Result<bool, FileError> {
        let Self { reader, record, .. } = self;
        let found = reader.read_record(record).map_err(|error| explain::unreadable(error, reader, &self.header))?;
        let feed = self.reader.get_ref();
        if found && feed.at_end() && explain::ends_in_quotes(feed.raw(), self.delimiter) {
            return Err(FileError::Unclosed { path: feed.path().to_path_buf(), line: feed.line() });
        }
        if found {
            self.place = feed.place(self.consumed());
            self.take_line_feed();
        }
        Ok(found)
    }

    /// Counts the `\n` of a `\r\n` to the record that it ends, so that a place is always the beginning of a line.
    fn take_line_feed(&mut self) {
        let feed = self.reader.get_ref();
        let end = feed.end();
        if end.offset == self.place.offset + 1 && feed.raw().ends_with(b"\r\n") {
            self.place = end;
        }
    }
}

fn reader(feed: Feed, delimiter: u8) -> Reader<Feed> {
    ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(feed)
}

impl<T: DeserializeOwned> Parser<T> for CsvParser {
    fn next(&mut self) -> Result<Next<T>, FileError> {
        let before = self.place;
        // The reader may stand within a `\r\n`, whose second half is no part of the next record.
        let done = self.consumed().max(before.offset);
        if self.reader.get_mut().forget(done) > 0 {
            self.ahead = Ahead::default();
        }
        if !self.is_there()? {
            return Ok(Next::Pending);
        }
        if !self.read()? {
            return Ok(Next::End);
        }
        let feed = self.reader.get_ref();
        let parsed = if self.record.len() == self.header.len() {
            self.record
                .deserialize(Some(&self.header))
                .map_err(|error| explain::bad_record::<T>(&error, feed, &self.header, &self.record))
        } else {
            Err(explain::wrong_fields(feed, &self.header, &self.record))
        };
        if parsed.is_err() {
            self.place = before;
        }
        parsed.map(Next::Record)
    }

    fn place(&self) -> Place {
        self.place
    }

    fn feed(&self) -> &Feed {
        self.reader.get_ref()
    }

    fn header_crc(&self) -> u32 {
        self.header_crc
    }
}
