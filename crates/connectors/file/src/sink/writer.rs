use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cutwater_core::{CheckpointId, Timestamp};
use cutwater_dataflow::{Prepared, SinkContext, SinkWriter, UserError};
use cutwater_storage::{FileWriter, Files};

use super::names::{FinalPrefix, Handle, TempNames};
use super::{FileSink, output_error};
use crate::FileError;

/// Bytes gathered before they go to the system.
const BUFFER: usize = 64 << 10;

/// Writes the records of one subtask of a [`FileSink`].
pub struct FileSinkWriter<F> {
    files: Arc<dyn Files>,
    folder: PathBuf,
    extension: String,
    header: Option<String>,
    format: Arc<F>,
    context: SinkContext,
    temps: TempNames,
    finals: FinalPrefix,
    buffer: Vec<u8>,
    open: Option<OpenFile>,
    opened: u64, // the next number for a file
}

struct OpenFile {
    file: Box<dyn FileWriter>,
    name: String,
    bytes: u64,
    crc32c: u32,
}

impl<F> FileSinkWriter<F> {
    pub(super) fn new(sink: &FileSink<F>, context: &SinkContext, temps: TempNames, finals: FinalPrefix) -> Self {
        Self {
            files: sink.files.clone(),
            folder: sink.folder.clone(),
            extension: sink.extension.clone(),
            header: sink.header.clone(),
            format: sink.format.clone(),
            context: context.clone(),
            temps,
            finals,
            buffer: Vec::new(),
            open: None,
            opened: 0,
        }
    }

    /// Opens the next file; it begins with the header.
    fn open(&mut self) -> Result<(), FileError> {
        let (name, file) = loop {
            let name = self.temps.name(&self.context, self.opened);
            let path = self.folder.join(&name);
            self.opened += 1;
            match self.files.create_new(&path) {
                Ok(file) => break (name, file),
                // Of an attempt with the same numbers, from another log or from none: not ours to take.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(output_error("create", &path, source)),
            }
        };
        self.open = Some(OpenFile { file, name, bytes: 0, crc32c: 0 });
        if let Some(header) = &self.header {
            self.buffer.extend_from_slice(header.as_bytes());
            self.buffer.push(b'\n');
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FileError> {
        if let Some(open) = &mut self.open {
            let written = open.file.write(&self.buffer);
            written.map_err(|source| output_error("write", &self.folder.join(&open.name), source))?;
            open.bytes += self.buffer.len() as u64;
            open.crc32c = crc32c::crc32c_append(open.crc32c, &self.buffer);
            self.buffer.clear();
        }
        Ok(())
    }
}

impl<T, F: Fn(&T, &mut Vec<u8>) + Send + Sync + 'static> SinkWriter<T> for FileSinkWriter<F> {
    fn write(&mut self, _time: Option<Timestamp>, record: T) -> Result<(), UserError> {
        if self.open.is_none() {
            self.open()?;
        }
        (self.format)(&record, &mut self.buffer);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Prepared>, UserError> {
        self.flush()?;
        let Some(OpenFile { mut file, name, bytes, crc32c }) = self.open.take() else { return Ok(Vec::new()) };
        let path = self.folder.join(&name);
        let (files, folder) = (self.files.clone(), self.folder.clone());
        let finish = move || {
            file.sync().map_err(|source| output_error("sync", &path, source))?;
            files.sync_folder(&folder).map_err(|source| output_error("sync", &folder, source))?;
            Ok(())
        };
        let handle = Handle {
            temporary: name,
            name: self.finals.name(checkpoint, &self.extension),
            bytes,
            crc32c,
            job: self.context.job.clone(),
            uid: self.context.operator.clone(),
        };
        Ok(vec![Prepared { handle: handle.encode(), finish: Some(Box::new(finish)) }])
    }
}

impl<F> fmt::Debug for FileSinkWriter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSinkWriter")
            .field("folder", &self.folder)
            .field("context", &self.context)
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}
