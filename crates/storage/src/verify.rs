use crate::error::{StoreError, StoreErrorKind};
use crate::name::ObjectName;
use crate::store::{Store, Written};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Reads the object and compares its length and checksum with what [`finish`](crate::ObjectWriter::finish) returned
/// when it was written, in constant memory. One that differs is read once more: an answer may be damaged on its way from
/// a store elsewhere, where the object is whole.
///
/// # Errors
///
/// [`NotFound`](StoreErrorKind::NotFound) if there is no such object, [`Corrupt`](StoreErrorKind::Corrupt) if it differs
/// (the source says in what), else as the system reports.
pub fn verify(store: &dyn Store, name: &ObjectName, bytes: u64, crc32c: u32) -> Result<(), StoreError> {
    match verify_once(store, name, bytes, crc32c) {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => verify_once(store, name, bytes, crc32c),
        verified => verified,
    }
}

/// Reads a whole object, as [`Store::read`], that can tell whether it is what was written; if it is not, reads it once more and
/// returns that, whatever it is.
///
/// # Errors
///
/// As [`Store::read`].
///
/// ```
/// use cutwater_storage::{MemoryStore, ObjectName, Store, read_checked};
///
/// let (store, name) = (MemoryStore::new(), ObjectName::parse("greeting")?);
/// store.create(&name, b"hello")?;
/// let read = read_checked(&store, &name, 1 << 10, |bytes| bytes == b"hello")?;
/// assert_eq!(read.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_checked<S: Store + ?Sized>(
    store: &S,
    name: &ObjectName,
    limit: u64,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Result<Option<Vec<u8>>, StoreError> {
    match store.read(name, limit) {
        Ok(Some(bytes)) if !is_whole(&bytes) => store.read(name, limit),
        Err(error) if error.kind() == StoreErrorKind::Corrupt => store.read(name, limit),
        read => read,
    }
}

fn verify_once(store: &dyn Store, name: &ObjectName, bytes: u64, crc32c: u32) -> Result<(), StoreError> {
    let error = |kind| StoreError::new(kind, "verify", store.url(), name.as_str());
    let expected = Written { bytes, crc32c };
    let reader = store.open(name)?.ok_or_else(|| error(StoreErrorKind::NotFound))?;
    if reader.len() != expected.bytes {
        let difference = format!("it holds {} bytes, {} were written", reader.len(), expected.bytes);
        return Err(error(StoreErrorKind::Corrupt).because(difference));
    }
    let mut found = Written { bytes: 0, crc32c: 0 };
    let mut piece = vec![0; PIECE];
    loop {
        let count = reader.read_at(found.bytes, &mut piece)?;
        if count == 0 {
            break;
        }
        found.bytes += count as u64;
        found.crc32c = crc32c::crc32c_append(found.crc32c, &piece[..count]);
    }
    if found == expected {
        return Ok(());
    }
    let difference = format!(
        "{} bytes with crc32c {:08x} were read, {} bytes with {:08x} were written",
        found.bytes, found.crc32c, expected.bytes, expected.crc32c
    );
    Err(error(StoreErrorKind::Corrupt).because(difference))
}
