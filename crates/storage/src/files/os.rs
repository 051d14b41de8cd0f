use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::{EntryKind, FileReader, FileWriter, Files, FolderEntry, lost_file};

/// How many bytes are written before the disk is set to work on them, while more are being written. Much less costs
/// journal commits, much more leaves the disk idle at the beginning and a long sync at the end.
const WRITE_BACK: u64 = 32 << 20;

/// The file system of this machine. Needs a Unix-like system.
#[derive(Clone, Debug)]
pub struct OsFiles {
    private: bool,
}

impl OsFiles {
    /// New files can be read and written (0600), new folders entered (0700) by this user only, whatever the umask: for
    /// checkpoints, which hold what the job has seen.
    #[must_use]
    pub fn private() -> Self {
        Self { private: true }
    }

    /// New files and folders have the rights that the umask leaves: for output that others read.
    #[must_use]
    pub fn shared() -> Self {
        Self { private: false }
    }
}

impl Files for OsFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        let mode = if self.private { 0o600 } else { 0o666 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Box::new(OsWriter::new(file)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mode = if self.private { 0o700 } else { 0o777 };
        DirBuilder::new().mode(mode).create(path)
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(data) => {
                    let kind = kind_of(data.file_type());
                    let bytes = if kind == EntryKind::File { data.len() } else { 0 };
                    entries.push(FolderEntry { name: entry.file_name(), kind, bytes });
                }
                // Deleted since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match fs::symlink_metadata(path) {
            Ok(data) => Ok(Some(kind_of(data.file_type()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileReader>> {
        // Asked before opening: opening a named pipe would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Box::new(OsReader { file, length }))
    }
}

fn kind_of(file_type: fs::FileType) -> EntryKind {
    match () {
        () if file_type.is_file() => EntryKind::File,
        () if file_type.is_dir() => EntryKind::Folder,
        () => EntryKind::Other,
    }
}

#[derive(Debug)]
struct OsWriter {
    file: File,
    pending: u64, // bytes since the write-back was last asked for
    write_back: Option<WriteBack>,
    lost: bool,
}

impl OsWriter {
    fn new(file: File) -> Self {
        Self { file, pending: 0, write_back: None, lost: false }
    }

    /// Sets the disk to work on what was written, on another thread. Nothing depends on it but speed: if no thread can
    /// be had, the last sync does all.
    fn write_back_early(&mut self) -> io::Result<()> {
        if self.write_back.is_none() {
            self.write_back = WriteBack::start(&self.file).ok();
        }
        let failed = self.write_back.as_ref().is_some_and(WriteBack::ask_fails);
        if failed { self.end_write_back() } else { Ok(()) }
    }

    fn end_write_back(&mut self) -> io::Result<()> {
        self.write_back.take().map_or(Ok(()), WriteBack::end)
    }

    fn unless_lost(&mut self, run: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.lost {
            return Err(lost_file());
        }
        let done = run(self);
        self.lost = done.is_err();
        done
    }
}

impl FileWriter for OsWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unless_lost(|writer| {
            writer.file.write_all(bytes)?;
            writer.pending += bytes.len() as u64;
            if writer.pending < WRITE_BACK {
                return Ok(());
            }
            writer.pending = 0;
            writer.write_back_early()
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        // The helper's error comes first: both handles share one error state in the system, which reports a failed
        // write-back once, so a sync after it may well succeed although bytes are lost.
        self.unless_lost(|writer| {
            writer.end_write_back()?;
            writer.pending = 0;
            writer.file.sync_all()
        })
    }
}

/// A thread that syncs a file each time it is asked, while its writer goes on.
#[derive(Debug)]
struct WriteBack {
    ask: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl WriteBack {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (ask, asked) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("cutwater-write-back".to_owned())
            .spawn(move || asked.iter().try_for_each(|()| file.sync_data()))?;
        Ok(Self { ask, thread })
    }

    /// Asks for a sync, and whether the thread has ended, which it only does on an error. One that is busy and has the
    /// next request waiting will take the new bytes along with it.
    fn ask_fails(&self) -> bool {
        matches!(self.ask.try_send(()), Err(TrySendError::Disconnected(())))
    }

    fn end(self) -> io::Result<()> {
        drop(self.ask);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the write-back thread panicked")))
    }
}

#[derive(Debug)]
struct OsReader {
    file: File,
    length: u64,
}

impl FileReader for OsReader {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str) -> OsWriter {
        OsWriter::new(OpenOptions::new().write(true).open(path).unwrap())
    }

    #[test]
    fn a_failed_early_write_back_fails_the_file_at_the_latest_when_it_is_synced() {
        // This device takes every byte and refuses to sync.
        let mut file = device("/dev/null");
        let piece = vec![0; 1 << 20];
        let written = (0..WRITE_BACK >> 20).try_for_each(|_| file.write(&piece));
        written.unwrap(); // the first request has only just been made
        assert!(file.write_back.is_some());
        assert!(!file.sync().unwrap_err().to_string().contains("given up"), "the error of the thread itself");
        for _ in 0..2 {
            assert!(file.sync().unwrap_err().to_string().contains("given up"));
        }
        assert!(file.write(&piece).is_err());
    }

    #[test]
    fn a_writer_notices_that_its_write_back_failed() {
        let mut file = device("/dev/null");
        let piece = vec![0; 1 << 20];
        // Some request finds the thread gone; how many pass before is up to the scheduler.
        let failed = (0..1_000_000).any(|_| file.write(&piece).is_err());
        assert!(failed);
        assert!(file.write(&piece).unwrap_err().to_string().contains("given up"));
    }

    #[test]
    fn a_full_disk_is_an_error_of_its_own_kind() {
        let mut file = device("/dev/full");
        assert_eq!(file.write(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.sync().is_err());
    }
}
