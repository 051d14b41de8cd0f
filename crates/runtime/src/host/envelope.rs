use std::io::Write;

use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::communication::{Bytesable, Push};
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};
use timely::progress::Stamp;

use super::layout::Placement;

/// One message of an edge: one element from one subtask to another. To Timely it is a container of one record, so that
/// nothing regroups, splits or hashes it. Empty only where Timely takes the element out and leaves a default behind.
pub(super) struct Envelope<E> {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) element: Option<E>,
}

impl<E> Default for Envelope<E> {
    fn default() -> Self {
        Self { from: 0, to: 0, element: None }
    }
}

impl<E> Accountable for Envelope<E> {
    fn record_count(&self) -> i64 {
        i64::from(self.element.is_some())
    }
}

/// Timely asks for it because other allocators of its serialise. The ones used here, of one thread and of one process,
/// move the value. Should that ever change, an element silently lost would be worse than the panic, which ends the
/// incarnation with a report.
impl<E> ContainerBytes for Envelope<E> {
    fn from_bytes(_: Bytes) -> Self {
        unreachable!("{NEVER_BYTES}")
    }

    fn length_in_bytes(&self) -> usize {
        unreachable!("{NEVER_BYTES}")
    }

    fn into_bytes<W: Write>(&self, _: &mut W) {
        unreachable!("{NEVER_BYTES}")
    }
}

const NEVER_BYTES: &str = "what one process's subtasks send each other is moved, never serialised";

/// Credit that a receiving subtask gives back to a sending one, over a raw channel that runs against its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    /// The sending subtask, which gets the credit.
    pub(super) sender: u32,
    /// The receiving subtask, which has processed.
    pub(super) receiver: u32,
    pub(super) bytes: u64,
}

/// As for [`Envelope`]: asked for, never called.
impl Bytesable for Credit {
    fn from_bytes(_: Bytes) -> Self {
        unreachable!("{NEVER_BYTES}")
    }

    fn length_in_bytes(&self) -> usize {
        unreachable!("{NEVER_BYTES}")
    }

    fn into_bytes<W: Write>(&self, _: &mut W) {
        unreachable!("{NEVER_BYTES}")
    }
}

/// Brings each envelope to the worker of its receiver. Counts stay as they are, as Timely demands: one in, one out.
pub(super) struct Route(pub(super) Placement);

impl<E> Distributor<Envelope<E>> for Route {
    fn partition<T: Clone, P: Push<Message<T, Envelope<E>>>>(
        &mut self,
        envelope: &mut Envelope<E>,
        stamp: &Stamp<T>,
        workers: &mut [P],
    ) {
        let worker = self.0.worker(envelope.to);
        Message::push_at(envelope, stamp.clone(), &mut workers[worker]);
    }

    fn flush<T: Clone, P: Push<Message<T, Envelope<E>>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}
