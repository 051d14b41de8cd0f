//! The stateless stages, statically fused.

use cutwater_core::{CheckpointId, OperatorUid, Timestamp};
use cutwater_state::{Data, Key};

use crate::UserError;
use crate::exec::{BATCH_RECORDS, ChainSnapshot, Exec, Keyed, KeyedBatch, Origin};
use crate::sink::SinkWriter;

/// A place in a chain that takes records of one type. `time` is [`Timestamp::MIN`] for a record without one.
pub trait Stage<T>: Send + 'static {
    /// Takes a record.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError>;

    /// Takes a watermark, after all records before it.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError>;

    /// Sends partly filled batches.
    fn flush(&mut self, exec: &mut Exec);

    /// Adds to the snapshot.
    ///
    /// # Errors
    ///
    /// Of user code.
    fn snapshot(&mut self, exec: &mut Exec, checkpoint: CheckpointId, out: &mut ChainSnapshot)
    -> Result<(), UserError>;
}

/// Makes a stage out of the one that follows it: how a stream remembers its stateless operators.
pub trait Compose<In>: Clone + Send + Sync + 'static {
    /// What comes out at the end.
    type Out: Send + 'static;
    /// The stages from here to `N`.
    type Stage<N: Stage<Self::Out>>: Stage<In>;

    /// Puts the stages before `next`.
    fn compose<N: Stage<Self::Out>>(&self, next: N) -> Self::Stage<N>;
}

macro_rules! pass_on {
    () => {
        fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
            self.next.watermark(exec, watermark)
        }

        fn flush(&mut self, exec: &mut Exec) {
            self.next.flush(exec);
        }

        fn snapshot(
            &mut self,
            exec: &mut Exec,
            checkpoint: CheckpointId,
            out: &mut ChainSnapshot,
        ) -> Result<(), UserError> {
            self.next.snapshot(exec, checkpoint, out)
        }
    };
}

/// No stage at all.
pub struct Identity<T>(std::marker::PhantomData<fn(T) -> T>);

impl<T> Default for Identity<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> Clone for Identity<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Send + 'static> Compose<T> for Identity<T> {
    type Out = T;
    type Stage<N: Stage<T>> = N;

    fn compose<N: Stage<T>>(&self, next: N) -> N {
        next
    }
}

/// `map` as part of a stream.
#[derive(Clone)]
pub struct Map<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `map` as part of a chain.
pub struct MapStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F, U> Compose<In> for Map<P, F>
where
    P: Compose<In>,
    F: Fn(P::Out) -> U + Clone + Send + Sync + 'static,
    U: Send + 'static,
{
    type Out = U;
    type Stage<N: Stage<U>> = P::Stage<MapStage<F, N>>;

    fn compose<N: Stage<U>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(MapStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, U, F, N> Stage<T> for MapStage<F, N>
where
    F: Fn(T) -> U + Send + 'static,
    N: Stage<U>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let mapped = (self.f)(record);
        self.next.push(exec, time, mapped)
    }

    pass_on!();
}

/// `filter` as part of a stream.
#[derive(Clone)]
pub struct Filter<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `filter` as part of a chain.
pub struct FilterStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F> Compose<In> for Filter<P, F>
where
    P: Compose<In>,
    F: Fn(&P::Out) -> bool + Clone + Send + Sync + 'static,
{
    type Out = P::Out;
    type Stage<N: Stage<P::Out>> = P::Stage<FilterStage<F, N>>;

    fn compose<N: Stage<P::Out>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(FilterStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, F, N> Stage<T> for FilterStage<F, N>
where
    F: Fn(&T) -> bool + Send + 'static,
    N: Stage<T>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        if (self.f)(&record) { self.next.push(exec, time, record) } else { Ok(()) }
    }

    pass_on!();
}

/// `flat_map` as part of a stream.
#[derive(Clone)]
pub struct FlatMap<P, F> {
    pub(crate) before: P,
    pub(crate) f: F,
    pub(crate) operator: u16,
}

/// `flat_map` as part of a chain.
pub struct FlatMapStage<F, N> {
    f: F,
    operator: u16,
    next: N,
}

impl<In, P, F, I> Compose<In> for FlatMap<P, F>
where
    P: Compose<In>,
    F: Fn(P::Out) -> I + Clone + Send + Sync + 'static,
    I: IntoIterator,
    I::Item: Send + 'static,
{
    type Out = I::Item;
    type Stage<N: Stage<I::Item>> = P::Stage<FlatMapStage<F, N>>;

    fn compose<N: Stage<I::Item>>(&self, next: N) -> Self::Stage<N> {
        self.before.compose(FlatMapStage { f: self.f.clone(), operator: self.operator, next })
    }
}

impl<T, I, F, N> Stage<T> for FlatMapStage<F, N>
where
    F: Fn(T) -> I + Send + 'static,
    I: IntoIterator,
    N: Stage<I::Item>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let mut items = 0;
        for item in (self.f)(record) {
            items += 1;
            self.next.push(exec, time, item)?;
            exec.running = self.operator; // the iterator is user code too
        }
        exec.uneven += u64::from(items != 1);
        Ok(())
    }

    pass_on!();
}

/// The end of a chain that sends records to the subtasks which own their keys.
pub(crate) struct KeyedOutput<K, T, F> {
    pub(crate) key_of: F,
    pub(crate) operator: u16,
    /// The owner of each key group.
    pub(crate) owners: Vec<u32>,
    pub(crate) max_parallelism: cutwater_core::MaxParallelism,
    pub(crate) buffers: Vec<Buffer<K, T>>,
    pub(crate) scratch: Vec<u8>,
}

pub(crate) struct Buffer<K, T> {
    records: Vec<Keyed<K, T>>,
    times: Vec<Timestamp>,
    /// The source record that the first record here was made of.
    first: Option<Origin>,
    /// What the counters of the [`Exec`] were then.
    switches: u64,
    uneven: u64,
}

impl<K, T> Buffer<K, T> {
    /// Room for so many records: as many as the batch before had, so that full batches need not grow and small ones, with
    /// many receivers or little to do, take little.
    pub(crate) fn new(records: usize) -> Self {
        Self { records: Vec::with_capacity(records), times: Vec::new(), first: None, switches: 0, uneven: 0 }
    }
}

impl<K: Key, T: Data> Buffer<K, T> {
    fn take(&mut self, exec: &Exec, scratch: &mut Vec<u8>) -> Box<KeyedBatch<K, T>> {
        let count = self.records.len() as u64;
        let fixed = size_of::<Keyed<K, T>>() + size_of::<Timestamp>();
        let mut each = fixed as u64;
        scratch.clear();
        if std::mem::needs_drop::<K>() && cutwater_state::encode(&self.records[0].key, scratch).is_ok() {
            each += scratch.len() as u64;
        }
        scratch.clear();
        if std::mem::needs_drop::<T>() && cutwater_state::encode(&self.records[0].record, scratch).is_ok() {
            each += scratch.len() as u64;
        }
        // Records of two sources in one batch have no common range.
        let origin = match (self.first, exec.at()) {
            (Some(first), Some(last)) if self.switches == exec.switches => Some(Origin { last: last.last, ..first }),
            _ => None,
        };
        let even = self.uneven == exec.uneven;
        let exact = even && origin.is_some_and(|origin| origin.last + 1 - origin.first == count);
        let full = std::mem::replace(self, Self::new(self.records.len()));
        Box::new(KeyedBatch {
            records: full.records.into_iter(),
            times: full.times,
            next: 0,
            bytes: each * count,
            origin,
            exact,
        })
    }
}

impl<K, T, F> KeyedOutput<K, T, F>
where
    K: Key,
    T: Data,
{
    #[cold]
    fn send(&mut self, exec: &mut Exec, to: usize) {
        let batch = self.buffers[to].take(exec, &mut self.scratch);
        exec.outbox.send(u32::try_from(to).expect("at most 32768 receivers"), batch);
    }
}

impl<K, T, F> Stage<T> for KeyedOutput<K, T, F>
where
    K: Key,
    T: Data,
    F: Fn(&T) -> K + Send + 'static,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let key = (self.key_of)(&record);
        let hash = cutwater_state::hash_key(&key, &mut self.scratch);
        let to = match self.buffers.len() {
            1 => 0,
            _ => self.owners[usize::from(hash.group(self.max_parallelism).0)] as usize,
        };
        let buffer = &mut self.buffers[to];
        if buffer.records.is_empty() {
            buffer.first = exec.at();
            (buffer.switches, buffer.uneven) = (exec.switches, exec.uneven);
        }
        if time != Timestamp::MIN || !buffer.times.is_empty() {
            buffer.times.resize(buffer.records.len(), Timestamp::MIN);
            buffer.times.push(time);
        }
        buffer.records.push(Keyed { hash, key, record });
        if buffer.records.len() == BATCH_RECORDS {
            self.send(exec, to);
        }
        Ok(())
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.flush(exec);
        exec.outbox.broadcast(|| crate::exec::Element::Watermark(watermark));
        Ok(())
    }

    fn flush(&mut self, exec: &mut Exec) {
        for to in 0..self.buffers.len() {
            if !self.buffers[to].records.is_empty() {
                self.send(exec, to);
            }
        }
    }

    fn snapshot(&mut self, _: &mut Exec, _: CheckpointId, _: &mut ChainSnapshot) -> Result<(), UserError> {
        Ok(())
    }
}

/// The end of a chain that writes to a sink.
pub(crate) struct SinkStage<W> {
    pub(crate) writer: W,
    pub(crate) operator: u16,
    pub(crate) uid: OperatorUid,
}

impl<T, W> Stage<T> for SinkStage<W>
where
    T: Send + 'static,
    W: SinkWriter<T>,
{
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        self.writer.write((time != Timestamp::MIN).then_some(time), record)
    }

    fn watermark(&mut self, _: &mut Exec, _: Timestamp) -> Result<(), UserError> {
        Ok(())
    }

    fn flush(&mut self, _: &mut Exec) {}

    fn snapshot(
        &mut self,
        exec: &mut Exec,
        checkpoint: CheckpointId,
        out: &mut ChainSnapshot,
    ) -> Result<(), UserError> {
        exec.running = self.operator;
        for prepared in self.writer.prepare(checkpoint)? {
            out.prepared.push((self.uid.clone(), prepared));
        }
        Ok(())
    }
}
