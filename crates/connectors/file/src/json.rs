use serde::de::DeserializeOwned;

use crate::FileError;
use crate::feed::Feed;
use crate::parse::{Next, Parser};
use crate::position::{FilePosition, Place};

/// Longest part of a line that an error shows, in characters.
const SHOWN: usize = 60;

/// Each line is a JSON text; lines of nothing but white space are skipped.
pub(crate) struct JsonParser {
    feed: Feed,
    place: Place,
}

impl JsonParser {
    pub(crate) fn open<T: DeserializeOwned + 'static>(
        feed: Feed,
        position: Option<&FilePosition>,
    ) -> Result<Box<dyn Parser<T>>, FileError> {
        let feed = match position {
            Some(position) => feed.resume(position)?,
            None => feed,
        };
        let place = feed.end();
        Ok(Box::new(Self { feed, place }))
    }
}

impl<T: DeserializeOwned> Parser<T> for JsonParser {
    fn next(&mut self) -> Result<Next<T>, FileError> {
        let mut begin = self.place;
        loop {
            self.feed.forget(begin.offset);
            match self.feed.read_line()? {
                Next::Record(()) => {}
                Next::Pending => return Ok(Next::Pending),
                Next::End => return Ok(Next::End),
            }
            let line = self.feed.line_after(begin.lines)?;
            // A byte order mark is no part of the first text.
            let text = if begin.offset == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
            if !text.trim_ascii().is_empty() {
                let record = serde_json::from_str(text).map_err(|error| self.explain(begin, text, &error))?;
                self.place = self.feed.end();
                return Ok(Next::Record(record));
            }
            begin = self.feed.end();
            if self.feed.follows() {
                self.place = begin; // or the white space would be read again and again, until a record follows
            }
        }
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

impl JsonParser {
    fn explain(&self, begin: Place, text: &str, error: &serde_json::Error) -> FileError {
        let all = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        // What stands around the place: from a few characters before it.
        let from = text.char_indices().map(|(at, _)| at).take_while(|at| at + 20 < error.column()).last().unwrap_or(0);
        FileError::BadJson {
            path: self.feed.path().to_path_buf(),
            line: begin.lines + 1,
            column: error.column(),
            near: text[from..].chars().take(SHOWN).collect(),
            reason: all.strip_suffix(&place).unwrap_or(&all).to_owned(),
            cut: error.is_eof() && !self.feed.raw().ends_with(b"\n"),
        }
    }
}
