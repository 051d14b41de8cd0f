//! Reading objects: ranges are fetched side by side, ahead of whoever reads.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cutwater_storage::{ObjectName, ObjectReader, StoreError};
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStoreExt};

use crate::answer::{Outcome, Truncated};
use crate::request::{Failure, runtime, wait};
use crate::storage::Inner;

/// Bytes of one range.
const RANGE: u64 = 4 << 20;
/// So many ranges are fetched beyond the one that is read.
const AHEAD: u64 = 4;
/// So much of the end comes with the length: a small object whole, of a large one the index.
const TAIL: u64 = 256 << 10;

pub(crate) struct Reader {
    inner: Arc<Inner>,
    name: ObjectName,
    path: Path,
    bytes: u64,
    tail: Bytes,
    ranges: Mutex<BTreeMap<u64, Arc<Fetched>>>,
    spent: Arc<Spent>,
}

/// Buffers of ranges that were read: fresh memory costs more than the copy into it.
#[derive(Default)]
struct Spent(Mutex<Vec<Vec<u8>>>);

impl Spent {
    fn take(&self, bytes: u64) -> Vec<u8> {
        let mut buffer = lock(&self.0).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve(bytes.min(RANGE) as usize);
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut spent = lock(&self.0);
        if spent.len() <= AHEAD as usize {
            spent.push(buffer);
        }
    }
}

/// A range that is there or on its way.
#[derive(Default)]
struct Fetched {
    result: Mutex<Option<Result<Vec<u8>, Failure>>>,
    came: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    /// `None` if there is no such object.
    pub(crate) fn open(inner: &Arc<Inner>, name: &ObjectName, path: Path) -> Result<Option<Self>, Failure> {
        let (own, at) = (Arc::clone(inner), path.clone());
        match wait(async move { end_of(&own, &at).await })? {
            Ok((bytes, tail)) => {
                let (inner, name) = (Arc::clone(inner), name.clone());
                Ok(Some(Self { inner, name, path, bytes, tail, ranges: Mutex::default(), spent: Arc::default() }))
            }
            Err(Failure { outcome: Outcome::Missing, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The range of this number, and those after it under way.
    fn range(&self, number: u64) -> Arc<Fetched> {
        let last = (self.bytes - 1 - self.tail.len().min(self.bytes as usize - 1) as u64) / RANGE;
        let mut ranges = lock(&self.ranges);
        for number in number..=last.max(number).min(number + AHEAD) {
            ranges.entry(number).or_insert_with(|| self.fetch(number));
        }
        // What lies behind is not read again, or if so, fetched again.
        let is_left = |other: u64| other + 1 < number || other > number + 2 * AHEAD;
        for (_, left) in ranges.extract_if(.., |other, _| is_left(*other)) {
            // Unless somebody else is still at it.
            if let Some(Ok(buffer)) = Arc::into_inner(left).and_then(|left| lock(&left.result).take()) {
                self.spent.give(buffer);
            }
        }
        Arc::clone(&ranges[&number])
    }

    fn fetch(&self, number: u64) -> Arc<Fetched> {
        let fetched = Arc::new(Fetched::default());
        let (inner, path, result) = (Arc::clone(&self.inner), self.path.clone(), Arc::clone(&fetched));
        let spent = Arc::clone(&self.spent);
        let range = number * RANGE..((number + 1) * RANGE).min(self.bytes);
        runtime().spawn(async move {
            let answer = get(&inner, &path, range, &spent).await;
            *lock(&result.result) = Some(answer);
            result.came.notify_all();
        });
        fetched
    }
}

impl ObjectReader for Reader {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let mut filled = 0;
        let tail_from = self.bytes - self.tail.len() as u64;
        while filled < buffer.len() {
            let at = offset.saturating_add(filled as u64);
            if at >= self.bytes {
                break;
            }
            let rest = &mut buffer[filled..];
            if at >= tail_from {
                filled += copy(&self.tail[(at - tail_from) as usize..], rest);
                continue;
            }
            let number = at / RANGE;
            let fetched = self.range(number);
            let mut result = lock(&fetched.result);
            while result.is_none() {
                result = fetched.came.wait(result).unwrap_or_else(PoisonError::into_inner);
            }
            match result.as_ref() {
                Some(Ok(bytes)) => filled += copy(&bytes[(at - number * RANGE) as usize..], rest),
                _ => {
                    // Whoever reads next tries anew.
                    let failure = result.take().and_then(Result::err);
                    lock(&self.ranges).remove(&number);
                    let gone = || Failure::of(Outcome::Passing { sent: false }, "another thread met an error here");
                    return Err(self.inner.error("read", self.name.as_str(), failure.unwrap_or_else(gone)));
                }
            }
        }
        Ok(filled)
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// How long the object is, and its last bytes.
async fn end_of(inner: &Inner, path: &Path) -> Result<(u64, Bytes), Failure> {
    let deadline = inner.limits.deadline();
    if inner.suffixes {
        let request = || async {
            let options = GetOptions { range: Some(GetRange::Suffix(TAIL)), ..GetOptions::default() };
            let answer = inner.objects.get_opts(path, options).await?;
            let (bytes, expected) = (answer.meta.size, answer.range.end - answer.range.start);
            Ok((bytes, whole(answer.bytes().await?, expected)?))
        };
        match inner.limits.request(deadline, request).await {
            // An empty object has no last bytes.
            Err(failure) if failure.outcome == Outcome::Refused(cutwater_storage::StoreErrorKind::Other) => {}
            answered => return answered,
        }
    }
    let found = inner.limits.request(deadline, || inner.objects.head(path)).await?;
    Ok((found.size, Bytes::new()))
}

async fn get(inner: &Inner, path: &Path, range: Range<u64>, spent: &Spent) -> Result<Vec<u8>, Failure> {
    let request = || async {
        let expected = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let mut pieces = inner.objects.get_opts(path, options).await?.into_stream();
        let mut bytes = spent.take(expected);
        while let Some(piece) = pieces.try_next().await? {
            if piece.len() as u64 > expected - bytes.len() as u64 {
                return Err(truncated(expected, bytes.len() as u64 + piece.len() as u64));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 == expected { Ok(bytes) } else { Err(truncated(expected, bytes.len() as u64)) }
    };
    inner.limits.request(inner.limits.deadline(), request).await
}

/// An answer of another length than was asked for is none.
pub(crate) fn whole(bytes: Bytes, expected: u64) -> object_store::Result<Bytes> {
    let found = bytes.len() as u64;
    if found == expected { Ok(bytes) } else { Err(truncated(expected, found)) }
}

fn truncated(expected: u64, found: u64) -> object_store::Error {
    object_store::Error::Generic { store: "object store", source: Box::new(Truncated { expected, found }) }
}
