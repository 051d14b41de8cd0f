use super::temp::Temp;
use crate::aligned::AlignedBuffer;
use crate::error::{CreateError, StoreError, StoreErrorKind};
use crate::name::ObjectName;
use crate::store::{ObjectWriter, Written};

/// Bytes written at once.
pub(super) const PIECE: usize = 1 << 20;

/// A large object of a local folder: gathers pieces, computes the checksum on the way.
#[derive(Debug)]
pub(super) struct Writer {
    url: String,
    name: ObjectName,
    temp: Option<Temp>,      // `None` after a failure: the temporary file is gone by then
    gathered: AlignedBuffer, // less than a piece
    written: Written,        // what was passed on, without `gathered`
}

impl Writer {
    pub(super) fn new(temp: Temp, name: ObjectName) -> Self {
        let url = temp.inner.url();
        Self {
            url,
            name,
            temp: Some(temp),
            gathered: AlignedBuffer::new(PIECE),
            written: Written { bytes: 0, crc32c: 0 },
        }
    }

    fn given_up(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Other, "write", self.url.clone(), self.name.as_str())
            .because("an earlier write of this object failed")
    }

    /// Passes on what was gathered, at most a piece.
    fn pass_on(&mut self) -> Result<(), StoreError> {
        let Some(temp) = &mut self.temp else { return Err(self.given_up()) };
        let piece = self.gathered.bytes();
        if let Err(source) = temp.write(piece) {
            let error = temp.inner.error("write", self.name.as_str(), source);
            self.temp = None;
            return Err(error);
        }
        self.written.bytes += piece.len() as u64;
        self.written.crc32c = crc32c::crc32c_append(self.written.crc32c, piece);
        self.gathered.clear();
        Ok(())
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        // Even whole pieces are copied: once, into memory from which the device takes them.
        while !bytes.is_empty() {
            bytes = self.gathered.fill(bytes);
            if self.gathered.is_full() {
                self.pass_on()?;
            }
        }
        if self.temp.is_some() { Ok(()) } else { Err(self.given_up()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Written, StoreError> {
        self.pass_on()?;
        let Some(temp) = self.temp.take() else { return Err(self.given_up()) };
        match temp.publish(&self.name, false) {
            Ok(()) => Ok(self.written),
            Err(CreateError::Failed { source } | CreateError::Unknown { source }) => Err(source),
            Err(CreateError::Exists) => {
                Err(StoreError::new(StoreErrorKind::AlreadyExists, "finish", self.url.clone(), self.name.as_str()))
            }
        }
    }
}
