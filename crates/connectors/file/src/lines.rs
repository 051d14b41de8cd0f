use crate::FileError;
use crate::feed::Feed;
use crate::parse::Parser;
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
    fn next(&mut self) -> Result<Option<String>, FileError> {
        let feed = &mut self.feed;
        feed.forget(self.place.offset);
        while !feed.raw().ends_with(b"\n") {
            match feed.read_more() {
                Ok(0) if feed.raw().is_empty() => return Ok(None),
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(feed.failed(error)),
            }
        }
        let line = feed.raw();
        let line = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")).unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|error| FileError::Utf8 {
            path: feed.path().to_path_buf(),
            line: self.place.lines + 1,
            place: format!("byte {}", error.valid_up_to() + 1),
            valid: error.valid_up_to(),
        })?;
        self.place = feed.end();
        Ok(Some(text.to_owned()))
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
