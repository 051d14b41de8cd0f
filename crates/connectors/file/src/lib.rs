//! Files as sources and sinks of Cutwater: CSV, JSON and lines, plain, zstd or gzip, read again exactly after a failure;
//! output that appears whole and once.
//!
//! A job hands [`csv()`] or [`lines`] to its first stream and a [`FileSink`] to its last one. Here the two are driven by
//! hand, as a job does it:
//!
//! ```
//! use cutwater_core::{Attempt, CheckpointId, Epoch, OperatorUid, Timestamp};
//! use cutwater_dataflow::{CommitContext, Sink, SinkContext, SinkWriter, Source, SourceOutput, SplitReader};
//! use cutwater_file::{FileSink, csv};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Flight {
//!     day: i64,
//!     origin: String,
//! }
//!
//! # fn main() -> Result<(), cutwater_dataflow::UserError> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("flights.csv");
//! # std::fs::write(&path, "day,origin,dest\n1,JFK,LAX\n1,EWR,ORD\n2,JFK,SFO\n")?;
//! let source = csv::<Flight>(&path)
//!     .event_time(|flight| Timestamp(flight.day * 86_400_000))
//!     .watermark_on_advance(); // the first flight of a day ends the day before
//!
//! // Two flights, a checkpoint, a failure.
//! let mut reader = source.open("flights.csv", None)?;
//! let mut out = SourceOutput::new(2);
//! reader.read(&mut out)?;
//! assert_eq!(out.take().len(), 2);
//! let position = reader.position();
//! drop(reader);
//!
//! // The next attempt begins with the third.
//! let mut reader = source.open("flights.csv", Some(&position))?;
//! reader.read(&mut out)?;
//! let (_, third) = out.take().remove(0);
//! assert_eq!(third.day, 2);
//!
//! // Output is prepared for a checkpoint, and published once the checkpoint is complete.
//! let sink = FileSink::new(folder.path()).prefix("day-").format(|flight: &Flight, line: &mut Vec<u8>| {
//!     line.extend_from_slice(flight.origin.as_bytes());
//!     line.push(b'\n');
//! });
//! let (job, operator, epoch, attempt) = ("flights".to_owned(), OperatorUid::new("origins")?, Epoch(1), Attempt(2));
//! # let (subtask, parallelism) = (0, 1);
//! let context = CommitContext { job: job.clone(), operator: operator.clone(), epoch, attempt };
//! let mut writer = sink.open(&SinkContext { job, operator, subtask, parallelism, epoch, attempt, from_nothing: true })?;
//! writer.write(None, third)?;
//! for prepared in writer.prepare(CheckpointId(7))? {
//!     if let Some(finish) = prepared.finish {
//!         finish()?; // syncs; only then is the snapshot acknowledged
//!     }
//!     sink.committer(&context)?.commit(&prepared.handle);
//! }
//! assert_eq!(std::fs::read_to_string(folder.path().join("day-origins-0-1-2-7.csv"))?, "JFK\n");
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! - [`csv()`], [`delimited`], [`json_lines`] and [`lines`] make a [`FileSource`] of a path or a [`glob()`]: one split for
//!   each file, its place a [`FilePosition`]. Event time, watermarks, pace and the longest record are set by its methods,
//!   and [`FileSource::follow`] waits for what is appended.
//! - [`socket_lines`] reads a TCP connection, for trying things: it can't be replayed.
//! - [`FileSink`] and [`lines_sink`]: one file for each subtask and checkpoint.
//! - [`FileError`]: names file, line, column, what stands there and what was expected.
//!
//! # What is guaranteed
//!
//! - A source opened at a position yields exactly the records after it: with quoted line ends, any mix of line ends, and
//!   records across zstd frames or gzip members.
//! - A file that shrank, or begins otherwise than it did at the checkpoint, is an error. It is never read from the
//!   beginning instead.
//! - Of a followed file only whole lines are read; one that does anything but grow is an error.
//! - Memory stays bounded: by the longest record allowed, some buffers, and the window of the zstd frame (at most
//!   128 MiB).
//! - What a sink acknowledged is published exactly once, whole, whatever step a crash interrupts; what it did not is
//!   never visible. Nothing is ever replaced.
//! - A crash leaves files behind whose names begin with `.` and end with `.tmp`; the next attempt removes those of its
//!   own job and sink.
//!
//! # What it costs
//!
//! Going on in a file costs a seek; in a file of many zstd frames or gzip members the decompression of one of them up to
//! the position; in one of a single frame that of all before. A checkpoint costs the sink a sync of the file and one of the folder
//! before it is acknowledged, and a link, a sync and an unlink when it is complete, all away from the worker.
//!
//! # What is not here
//!
//! No pipes (they can't be read again), no watching of a folder for new files, no splitting of one file over several
//! subtasks, no other compression. A compressed file that was cut exactly between two frames or members, or a text file
//! between two lines, can't be told from a whole one. Bytes are taken as they stand, a NUL too. A CSV column for which the record type has a default, as `Option` has,
//! may be missing altogether.

mod code;
mod csv;
mod error;
mod feed;
mod files;
mod input;
mod json;
mod lines;
mod pace;
mod parse;
mod position;
mod reader;
mod sink;
mod socket;
mod source;

pub use error::FileError;
pub use files::{Files, Glob, IntoFiles, glob};
pub use position::FilePosition;
pub use reader::FileReader;
pub use sink::{FileCommitter, FileSink, FileSinkWriter, NoFormat, lines_sink};
pub use socket::{SocketPosition, SocketReader, SocketSource, socket_lines};
pub use source::{
    CsvSource, DEFAULT_MAX_RECORD_BYTES, FileSource, JsonSource, LineSource, csv, delimited, json_lines, lines,
};
