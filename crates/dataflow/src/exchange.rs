//! Sends records to other subtasks: to the owner of their key, in turn, or to all.

use std::ops::Range;

use cutwater_core::{CheckpointId, Timestamp};
use cutwater_state::{Data, Key};

use crate::UserError;
use crate::exec::{BATCH_RECORDS, Batch, ChainSnapshot, Element, Exec, Keyed, Origin};
use crate::stage::Stage;

/// The end of a chain that sends records to the subtasks which own their keys.
pub(crate) struct KeyedOutput<K, T, F> {
    pub(crate) key_of: F,
    pub(crate) operator: u16,
    /// The owner of each key group.
    pub(crate) owners: Vec<u32>,
    pub(crate) max_parallelism: cutwater_core::MaxParallelism,
    /// One for each receiver.
    pub(crate) buffers: Vec<Buffer<Keyed<K, T>>>,
    /// The channels to them.
    pub(crate) channels: Range<usize>,
    pub(crate) scratch: Vec<u8>,
}

/// Gathers records for one receiver.
pub(crate) struct Buffer<R> {
    records: Vec<R>,
    times: Vec<Timestamp>,
    /// The source record that the first record here was made of.
    first: Option<Origin>,
    /// What the counters of the [`Exec`] were then.
    switches: u64,
    uneven: u64,
}

impl<R> Buffer<R> {
    /// Room for so many records: as many as the batch before had, so that full batches need not grow and small ones, with
    /// many receivers or little to do, take little.
    pub(crate) fn new(records: usize) -> Self {
        Self { records: Vec::with_capacity(records), times: Vec::new(), first: None, switches: 0, uneven: 0 }
    }

    /// Takes a record; says whether the batch is full.
    #[inline]
    fn push(&mut self, exec: &Exec, time: Timestamp, record: R) -> bool {
        if self.records.is_empty() {
            self.first = exec.at();
            (self.switches, self.uneven) = (exec.switches, exec.uneven);
        }
        if time != Timestamp::MIN || !self.times.is_empty() {
            self.times.resize(self.records.len(), Timestamp::MIN);
            self.times.push(time);
        }
        self.records.push(record);
        self.records.len() == BATCH_RECORDS
    }

    /// The batch so far. On the heap each record holds about `heap` bytes.
    fn take(&mut self, exec: &Exec, heap: u64) -> Box<Batch<R>> {
        let count = self.records.len() as u64;
        let each = (size_of::<R>() + size_of::<Timestamp>()) as u64 + heap;
        // Records of two sources in one batch have no common range.
        let origin = match (self.first, exec.at()) {
            (Some(first), Some(last)) if self.switches == exec.switches => Some(Origin { last: last.last, ..first }),
            _ => None,
        };
        let even = self.uneven == exec.uneven;
        let exact = even && origin.is_some_and(|origin| origin.last + 1 - origin.first == count);
        let full = std::mem::replace(self, Self::new(self.records.len()));
        Box::new(Batch {
            records: full.records.into_iter(),
            times: full.times,
            next: 0,
            bytes: each * count,
            origin,
            exact,
        })
    }
}

/// How many bytes a value holds on the heap, about: its encoded size, if it can hold any.
fn heap_bytes<T: Data>(value: &T, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    match std::mem::needs_drop::<T>() && cutwater_state::encode(value, scratch).is_ok() {
        true => scratch.len() as u64,
        false => 0,
    }
}

impl<K, T, F> KeyedOutput<K, T, F>
where
    K: Key,
    T: Data,
{
    #[cold]
    fn send(&mut self, exec: &mut Exec, to: usize) {
        let Keyed { key, record, .. } = &self.buffers[to].records[0];
        let heap = heap_bytes(key, &mut self.scratch) + heap_bytes(record, &mut self.scratch);
        let batch = self.buffers[to].take(exec, heap);
        exec.outbox.send(self.channels.start + to, batch);
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
        if self.buffers[to].push(exec, time, Keyed { hash, key, record }) {
            self.send(exec, to);
        }
        Ok(())
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.flush(exec);
        exec.outbox.tell(self.channels.clone(), || Element::Watermark(watermark));
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

/// The end of a chain that sends each record to one subtask of the next task: in turn, or all to the one that is its
/// like.
pub(crate) struct TurnOutput<T> {
    operator: u16,
    buffers: Vec<Buffer<T>>,
    channels: Range<usize>,
    /// Who gets the next record.
    to: usize,
    /// Whether the one after gets the one after.
    turns: bool,
    scratch: Vec<u8>,
}

impl<T: Data> TurnOutput<T> {
    /// Begins with receiver `first`, so that the senders do not all begin with the same.
    pub(crate) fn new(operator: u16, channels: Range<usize>, first: u32, turns: bool) -> Self {
        let buffers: Vec<_> = channels.clone().map(|_| Buffer::new(0)).collect();
        let to = first as usize % buffers.len().max(1);
        Self { operator, buffers, channels, to, turns, scratch: Vec::new() }
    }

    #[cold]
    fn send(&mut self, exec: &mut Exec, to: usize) {
        let heap = heap_bytes(&self.buffers[to].records[0], &mut self.scratch);
        let batch = self.buffers[to].take(exec, heap);
        exec.outbox.send(self.channels.start + to, batch);
    }
}

impl<T: Data> Stage<T> for TurnOutput<T> {
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        exec.running = self.operator;
        let to = self.to;
        if self.buffers[to].push(exec, time, record) {
            self.send(exec, to);
        }
        if self.turns {
            self.to = if to + 1 == self.buffers.len() { 0 } else { to + 1 };
        }
        Ok(())
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.flush(exec);
        exec.outbox.tell(self.channels.clone(), || Element::Watermark(watermark));
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

/// The end of a chain that sends each record to all subtasks of the next task.
pub(crate) struct BroadcastOutput<T> {
    operator: u16,
    buffer: Buffer<T>,
    channels: Range<usize>,
    scratch: Vec<u8>,
}

impl<T: Data + Clone> BroadcastOutput<T> {
    pub(crate) fn new(operator: u16, channels: Range<usize>) -> Self {
        Self { operator, buffer: Buffer::new(0), channels, scratch: Vec::new() }
    }

    #[cold]
    fn send(&mut self, exec: &mut Exec) {
        exec.running = self.operator; // copying is user code
        let heap = heap_bytes(&self.buffer.records[0], &mut self.scratch);
        let batch = self.buffer.take(exec, heap);
        let mut channels = self.channels.clone();
        let last = channels.next_back();
        for channel in channels {
            exec.outbox.send(channel, batch.clone());
        }
        if let Some(last) = last {
            exec.outbox.send(last, batch);
        }
    }
}

impl<T: Data + Clone> Stage<T> for BroadcastOutput<T> {
    #[inline]
    fn push(&mut self, exec: &mut Exec, time: Timestamp, record: T) -> Result<(), UserError> {
        if self.buffer.push(exec, time, record) {
            self.send(exec);
        }
        Ok(())
    }

    fn watermark(&mut self, exec: &mut Exec, watermark: Timestamp) -> Result<(), UserError> {
        self.flush(exec);
        exec.outbox.tell(self.channels.clone(), || Element::Watermark(watermark));
        Ok(())
    }

    fn flush(&mut self, exec: &mut Exec) {
        if !self.buffer.records.is_empty() {
            self.send(exec);
        }
    }

    fn snapshot(&mut self, _: &mut Exec, _: CheckpointId, _: &mut ChainSnapshot) -> Result<(), UserError> {
        Ok(())
    }
}
