use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{EntryKind, FileReader, FileWriter, Files, FolderEntry, lost_file};
use crate::aligned::ALIGNMENT;

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
    /// checkpoints, which hold what the job has seen. Large pieces go past the page cache where the file system allows
    /// that: nobody reads a checkpoint soon, and its pages would push out others.
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
        Ok(Box::new(OsWriter::new(file, self.private)))
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
    offset: u64,
    direct: Direct,
    pending: u64, // bytes since the write-back was last asked for
    write_back: Option<WriteBack>,
    lost: bool,
}

impl OsWriter {
    fn new(file: File, direct: bool) -> Self {
        let direct = if direct { Direct::Off } else { Direct::Refused };
        Self { file, offset: 0, direct, pending: 0, write_back: None, lost: false }
    }

    /// Writes the bytes through the page cache.
    fn write_cached(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.leave_direct()?;
        self.file.write_all_at(bytes, self.offset)?;
        self.pending += bytes.len() as u64;
        if self.pending < WRITE_BACK {
            return Ok(());
        }
        self.pending = 0;
        self.write_back_early()
    }

    /// Writes the bytes past the page cache, which saves getting and filling its pages; `false` if that can't be done.
    /// They are durable after a sync, like others.
    fn write_direct(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let length_and_offset = bytes.len() as u64 | self.offset;
        let aligned = length_and_offset.is_multiple_of(ALIGNMENT as u64) && bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        if !aligned || bytes.len() < LEAST_DIRECT || self.direct == Direct::Refused {
            return Ok(false);
        }
        if self.direct == Direct::Off {
            if set_direct(&self.file, true).is_err() {
                self.direct = Direct::Refused; // a file system without it
                return Ok(false);
            }
            self.direct = Direct::On;
        }
        match self.file.write_all_at(bytes, self.offset) {
            // A device with larger sectors, or a file system that looks at it only now. Bytes that have been written
            // are written again, to the same place.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.leave_direct()?;
                self.direct = Direct::Refused;
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }

    /// What is not aligned can't be written directly, so that not to get back is an error.
    fn leave_direct(&mut self) -> io::Result<()> {
        if self.direct == Direct::On {
            set_direct(&self.file, false)?;
            self.direct = Direct::Off;
        }
        Ok(())
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
            if !writer.write_direct(bytes)? {
                writer.write_cached(bytes)?;
            }
            writer.offset += bytes.len() as u64;
            Ok(())
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

/// Whether writes go past the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    Refused,
    Off,
    On,
}

/// Smaller writes gain nothing: each waits for the device.
const LEAST_DIRECT: usize = 256 << 10;

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
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
    use crate::aligned::AlignedBuffer;

    fn device(path: &str) -> OsWriter {
        OsWriter::new(OpenOptions::new().write(true).open(path).unwrap(), false)
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
    fn whichever_way_bytes_are_written_they_are_there_in_order() {
        const MIB: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let mut memory = AlignedBuffer::new(3 * MIB);
        let bytes: Vec<u8> = (0..3 * MIB).map(|at| (at * 31 + at / 4096) as u8).collect();
        memory.fill(&bytes);
        let cases: [(&str, &[usize]); 5] = [
            ("pieces and an end", &[MIB, MIB, 1_000]),
            ("after an odd one nothing is aligned", &[MIB, 1_000, MIB, 1_096]),
            ("an aligned small one between large ones", &[MIB, ALIGNMENT, MIB]),
            ("after odd ones that add up", &[1_000, 3_096, MIB, MIB]),
            ("small ones", &[10, 20, 30]),
        ];
        for (at, (name, lengths)) in cases.into_iter().enumerate() {
            let path = folder.path().join(at.to_string());
            let mut file = OsFiles::private().create_new(&path).unwrap();
            let mut written = Vec::new();
            for &length in lengths {
                file.write(&memory.bytes()[..length]).unwrap();
                written.extend_from_slice(&bytes[..length]);
                // From memory that is not aligned.
                file.write(&memory.bytes()[1..1 + length]).unwrap();
                written.extend_from_slice(&bytes[1..1 + length]);
            }
            file.sync().unwrap();
            assert!(fs::read(&path).unwrap() == written, "{name}");
        }
    }

    #[test]
    fn a_device_that_refuses_direct_writes_gets_others() {
        let mut memory = AlignedBuffer::new(1 << 20);
        memory.fill(&vec![0; 1 << 20]);
        let mut file = OsWriter::new(OpenOptions::new().write(true).open("/dev/null").unwrap(), true);
        file.write(memory.bytes()).unwrap();
        assert_eq!(file.direct, Direct::Refused);
        assert_eq!(file.offset, 1 << 20);
    }

    #[test]
    fn a_full_disk_is_an_error_of_its_own_kind() {
        let mut file = device("/dev/full");
        assert_eq!(file.write(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.sync().is_err());
    }
}
