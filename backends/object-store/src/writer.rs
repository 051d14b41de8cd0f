//! New objects: small ones in one request, large ones in parts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use cutwater_storage::{CreateError, ObjectName, ObjectWriter, StoreError, StoreErrorKind, Written};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutPayload};

use crate::Step;
use crate::answer::Outcome;
use crate::request::{Failure, runtime, wait};
use crate::storage::Inner;

/// Objects of less than this go in one request.
pub(crate) const PART: usize = 8 << 20;
/// So many parts have that size; later ones are larger, so that a file may have some 500 GB.
const SMALL_PARTS: usize = 1_000;
const LARGE_PART: usize = 64 << 20;
/// What S3 allows.
const MOST_PARTS: usize = 10_000;
/// So many parts of one object are under way at once, in memory.
const IN_FLIGHT: usize = 4;

#[derive(Debug)]
pub(crate) struct Writer {
    inner: Arc<Inner>,
    name: ObjectName,
    path: Path,
    gathered: Gathered,
    written: Written,
    state: State,
}

/// Bytes that have not been sent: pieces as they came, small ones gathered.
#[derive(Debug, Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    small: Vec<u8>,
    bytes: usize,
}

/// What is given away and smaller is copied all the same.
const PIECE: usize = 64 << 10;

impl Gathered {
    fn append(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn push(&mut self, piece: Bytes) {
        self.close();
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    /// The small ones so far become a piece.
    fn close(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
    }

    fn take(&mut self) -> (PutPayload, usize) {
        self.close();
        let Self { pieces, bytes, .. } = std::mem::take(self);
        (pieces.into_iter().collect(), bytes)
    }
}

#[derive(Debug)]
enum State {
    /// Nothing was sent.
    Small,
    Large(Upload),
    /// After an error, or at the end.
    Over,
}

/// A large object that is under way.
#[derive(Debug)]
struct Upload {
    id: MultipartId,
    note: Path,
    parts: Vec<PartId>,
    pending: VecDeque<Receiver<Result<PartId, Failure>>>,
}

impl Writer {
    pub(crate) fn new(inner: Arc<Inner>, name: ObjectName, path: Path) -> Self {
        let written = Written { bytes: 0, crc32c: 0 };
        Self { inner, name, path, gathered: Gathered::default(), written, state: State::Small }
    }

    fn error(&self, action: &'static str, failure: Failure) -> StoreError {
        self.inner.error(action, self.name.as_str(), failure)
    }

    fn part_bytes(&self) -> usize {
        match &self.state {
            State::Large(upload) if upload.parts.len() + upload.pending.len() >= SMALL_PARTS => LARGE_PART,
            State::Small | State::Large(_) | State::Over => PART,
        }
    }

    /// Notes bytes that are to be gathered.
    fn begin_write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if matches!(self.state, State::Over) {
            let kind = StoreErrorKind::Other;
            let error = StoreError::new(kind, "write", self.inner.url.clone(), self.name.as_str());
            return Err(error.because("an earlier write of this object failed"));
        }
        self.written.bytes += bytes.len() as u64;
        self.written.crc32c = crc32c::crc32c_append(self.written.crc32c, bytes);
        Ok(())
    }

    fn room(&self) -> usize {
        self.part_bytes() - self.gathered.bytes
    }

    fn send_if_full(&mut self) -> Result<(), StoreError> {
        if self.gathered.bytes >= self.part_bytes()
            && let Err(failure) = self.send()
        {
            self.give_up();
            return Err(self.error("write", failure));
        }
        Ok(())
    }

    /// Sends what was gathered as a part.
    fn send(&mut self) -> Result<(), Failure> {
        if matches!(self.state, State::Small) {
            let upload = begin(&self.inner, &self.path)?;
            self.state = State::Large(upload);
        }
        let (payload, bytes) = self.gathered.take();
        let State::Large(upload) = &mut self.state else { return Ok(()) };
        while upload.pending.len() >= IN_FLIGHT {
            upload.settle_one()?;
        }
        let place = upload.parts.len() + upload.pending.len();
        if place >= MOST_PARTS {
            let reason = format!("a file in an object store has at most {MOST_PARTS} parts; use a higher parallelism");
            return Err(Failure::of(Outcome::Refused(StoreErrorKind::TooLarge), reason));
        }
        self.inner.step(Step::PutPart, &self.path)?;
        let (sender, receiver) = sync_channel(1);
        let (inner, path, id) = (Arc::clone(&self.inner), self.path.clone(), upload.id.clone());
        runtime().spawn(async move {
            inner.limits.upload(bytes).await;
            let request = || inner.uploads.put_part(&path, &id, place, payload.clone());
            let sent = inner.limits.request(inner.limits.deadline(), request).await;
            drop(sender.send(sent)); // of an upload that was given up nobody asks
        });
        upload.pending.push_back(receiver);
        Ok(())
    }

    fn finish_large(&mut self) -> Result<(), Failure> {
        if self.gathered.bytes > 0 {
            self.send()?;
        }
        let State::Large(upload) = &mut self.state else { return Ok(()) };
        while !upload.pending.is_empty() {
            upload.settle_one()?;
        }
        self.inner.step(Step::CompleteUpload, &self.path)?;
        let (inner, path, id) = (Arc::clone(&self.inner), self.path.clone(), upload.id.clone());
        let (parts, bytes) = (std::mem::take(&mut upload.parts), self.written.bytes);
        wait(async move { complete(&inner, &path, &id, parts, bytes).await })??;
        let State::Large(Upload { note, .. }) = std::mem::replace(&mut self.state, State::Over) else { return Ok(()) };
        // The object is there: that its upload is still noted does no harm.
        self.inner.step(Step::ForgetUpload, &note)?;
        drop(wait(forget(Arc::clone(&self.inner), note)));
        Ok(())
    }

    /// Nothing is left of it.
    fn give_up(&mut self) {
        if let State::Large(upload) = std::mem::replace(&mut self.state, State::Over)
            && self.inner.step(Step::AbortUpload, &self.path).is_ok()
        {
            let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
            runtime().spawn(async move {
                // The parts under way would else come after the end of the upload and stay.
                let pending = upload.pending;
                let ended = tokio::task::spawn_blocking(move || pending.into_iter().for_each(|part| drop(part.recv())));
                drop(ended.await);
                drop(abort(&inner, &path, &upload.id, upload.note).await); // the next sweep tries again
            });
        }
    }
}

impl Upload {
    /// Waits for the part that was sent first.
    fn settle_one(&mut self) -> Result<(), Failure> {
        let Some(part) = self.pending.pop_front() else { return Ok(()) };
        let gone = || Failure::of(Outcome::Refused(StoreErrorKind::Other), "the upload of a part came to no end");
        self.parts.push(part.recv().map_err(|_| gone())??);
        Ok(())
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.begin_write(bytes)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.room().min(bytes.len()));
            self.gathered.append(now);
            bytes = later;
            self.send_if_full()?;
        }
        Ok(())
    }

    fn write_owned(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        if bytes.len() < PIECE {
            return self.write(&bytes);
        }
        self.begin_write(&bytes)?;
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            let now = rest.split_to(self.room().min(rest.len()));
            self.gathered.push(now);
            self.send_if_full()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Written, StoreError> {
        let taken = |writer: &Self| {
            StoreError::new(StoreErrorKind::AlreadyExists, "finish", writer.inner.url.clone(), writer.name.as_str())
        };
        match self.state {
            State::Small => {
                self.state = State::Over;
                let bytes = Bytes::from(self.gathered.take().0);
                match self.inner.create(&self.name, &self.path, bytes) {
                    Ok(()) => Ok(self.written),
                    Err(CreateError::Exists) => Err(taken(&self)),
                    Err(CreateError::Failed { source } | CreateError::Unknown { source }) => Err(source),
                }
            }
            State::Large(_) => match self.finish_large() {
                Ok(()) => Ok(self.written),
                Err(failure) => {
                    self.give_up();
                    Err(if failure.outcome == Outcome::Taken { taken(&self) } else { self.error("finish", failure) })
                }
            },
            State::Over => {
                Err(StoreError::new(StoreErrorKind::Other, "finish", self.inner.url.clone(), self.name.as_str())
                    .because("an earlier write of this object failed"))
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Begins an upload, and notes it before anything is sent: whoever comes after this process finds it.
fn begin(inner: &Arc<Inner>, path: &Path) -> Result<Upload, Failure> {
    inner.step(Step::BeginUpload, path)?;
    let (own, at) = (Arc::clone(inner), path.clone());
    let id =
        wait(async move { own.limits.request(own.limits.deadline(), || own.uploads.create_multipart(&at)).await })??;
    let note = inner.note_of(path, &id);
    let noted = inner.step(Step::NoteUpload, &note).and_then(|()| {
        let (own, note, id) = (Arc::clone(inner), note.clone(), id.clone());
        wait(async move {
            let request = || own.objects.put(&note, PutPayload::from(id.clone().into_bytes()));
            own.limits.request(own.limits.deadline(), request).await
        })?
    });
    match noted {
        Ok(_) => Ok(Upload { id, note, parts: Vec::new(), pending: VecDeque::new() }),
        Err(failure) => {
            let (own, at) = (Arc::clone(inner), path.clone());
            runtime().spawn(async move { drop(abort(&own, &at, &id, note).await) });
            Err(failure)
        }
    }
}

async fn complete(inner: &Inner, path: &Path, id: &MultipartId, parts: Vec<PartId>, bytes: u64) -> Result<(), Failure> {
    let deadline = inner.limits.deadline();
    // No store takes a condition here. Names of large objects are used once, so this is for mistakes.
    match inner.limits.request(deadline, || inner.objects.head(path)).await {
        Ok(_) => return Err(Failure::of(Outcome::Taken, "an object of this name is there")),
        Err(Failure { outcome: Outcome::Missing, .. }) => {}
        Err(failure) => return Err(failure),
    }
    let request = || inner.uploads.complete_multipart(path, id, parts.clone());
    match inner.limits.request(deadline, request).await {
        Ok(_) => Ok(()),
        // An earlier try has done it, and its answer got lost.
        Err(failure) if failure.outcome == Outcome::Missing && failure.sent => {
            match inner.limits.request(deadline, || inner.objects.head(path)).await {
                Ok(found) if found.size == bytes => Ok(()),
                _ => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// Throws the upload away with its note.
pub(crate) async fn abort(inner: &Inner, path: &Path, id: &MultipartId, note: Path) -> Result<(), Failure> {
    let deadline = inner.limits.deadline();
    match inner.limits.request(deadline, || inner.uploads.abort_multipart(path, id)).await {
        Ok(()) | Err(Failure { outcome: Outcome::Missing, .. }) => inner.delete(&note, deadline).await,
        Err(failure) => Err(failure),
    }
}

async fn forget(inner: Arc<Inner>, note: Path) -> Result<(), Failure> {
    inner.delete(&note, inner.limits.deadline()).await
}
