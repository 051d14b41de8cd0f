use crate::FileError;
use crate::feed::Feed;
use crate::parse::{Next, Parser};
use crate::position::{FilePosition, Place};

/// Each line is a record, without its line end (`\n` or `\r\n`); the last one may lack it.
pub(crate) struct LineParser {
    feed: Feed,
    place: Place,
}

impl LineParser {
    pub(crate) fn open(feed: Feed, position: Option<&FilePosition>) -> Result<Box<dyn Parser<String>>, FileError> {
        let feed = match position {
            Some(position) => feed.resume(position)?,
            None => feed,
        };
        let place = feed.end();
        Ok(Box::new(Self { feed, place }))
    }
}

impl Parser<String> for LineParser {
    fn next(&mut self) -> Result<Next<String>, FileError> {
        self.feed.forget(self.place.offset);
        match self.feed.read_line()? {
            Next::Record(()) => {}
            Next::Pending => return Ok(Next::Pending),
            Next::End => return Ok(Next::End),
        }
        let line = self.feed.line_after(self.place.lines)?.to_owned();
        self.place = self.feed.end();
        Ok(Next::Record(line))
    }

    fn place(&self) -> Place {
        self.place
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn header_crc(&self) -> u32 {
        0
    }
}
