//! The outputs of a subtask, and when what is sent leaves.

use std::collections::VecDeque;
use std::ops::Range;

use cutwater_core::EdgeId;

use crate::exec::{AnyBatch, Element};

/// Names one output channel of a subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputChannel {
    /// The edge.
    pub edge: EdgeId,
    /// The receiving subtask.
    pub to: u32,
}

struct Channel {
    /// Whom it leads to.
    to: OutputChannel,
    waiting: VecDeque<Element>,
    waiting_bytes: u64,
    credit: i64,
    /// What the credit is at the most.
    window: i64,
}

/// The outputs of one subtask, over any number of edges. A batch leaves while its channel has credit, else it waits;
/// control elements wait only behind batches. Bytes under way on a channel are at most the window and one batch. While
/// a batch waits on any channel nothing more is processed, so that what waits on each is at most what one record, or
/// one quantum of a source, was made into.
pub struct Outbox {
    channels: Vec<Channel>,
    /// Of each edge: its first channel and how many it has.
    edges: Vec<(EdgeId, usize, usize)>,
    ready: VecDeque<(u32, Element)>,
    blocked: usize,
}

impl Outbox {
    /// Outputs over `edges`, each to so many receivers, with a window of so many bytes on each channel. A task that ends
    /// in sinks alone has none.
    #[must_use]
    pub fn new(edges: &[(EdgeId, u32, u64)]) -> Self {
        let mut channels = Vec::new();
        let mut places = Vec::with_capacity(edges.len());
        for &(edge, receivers, window) in edges {
            let window = i64::try_from(window).unwrap_or(i64::MAX);
            places.push((edge, channels.len(), receivers as usize));
            channels.extend((0..receivers).map(|to| Channel {
                to: OutputChannel { edge, to },
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                credit: window,
                window,
            }));
        }
        Self { channels, edges: places, ready: VecDeque::new(), blocked: 0 }
    }

    /// How many channels there are, over all edges.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Whether a batch waits for credit: then no more input should be processed.
    #[must_use]
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.blocked > 0
    }

    /// Whether everything given has left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.channels.iter().all(|channel| channel.waiting.is_empty())
    }

    /// Sends a batch over a channel, counted over all edges.
    pub(crate) fn send(&mut self, at: usize, batch: Box<dyn AnyBatch>) {
        let channel = &mut self.channels[at];
        let bytes = batch.bytes();
        if channel.waiting.is_empty() && channel.credit > 0 {
            channel.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
            self.ready.push_back((place(at), Element::Batch(batch)));
        } else {
            if channel.waiting.is_empty() {
                self.blocked += 1;
            }
            channel.waiting_bytes += bytes;
            channel.waiting.push_back(Element::Batch(batch));
        }
    }

    /// Sends a control element to all receivers of all edges, behind whatever waits.
    pub fn broadcast(&mut self, make: impl Fn() -> Element) {
        self.tell(0..self.channels.len(), make);
    }

    /// Sends a control element over these channels, behind whatever waits.
    pub(crate) fn tell(&mut self, channels: Range<usize>, make: impl Fn() -> Element) {
        for at in channels {
            let channel = &mut self.channels[at];
            if channel.waiting.is_empty() {
                self.ready.push_back((place(at), make()));
            } else {
                channel.waiting.push_back(make());
            }
        }
    }

    /// A receiver has processed `bytes`: batches that waited for them leave.
    pub fn credit(&mut self, output: OutputChannel, bytes: u64) {
        let Some(&(_, first, count)) = self.edges.iter().find(|(edge, ..)| *edge == output.edge) else { return };
        if output.to as usize >= count {
            return;
        }
        let at = first + output.to as usize;
        let channel = &mut self.channels[at];
        let more = i64::try_from(bytes).unwrap_or(i64::MAX);
        channel.credit = channel.credit.saturating_add(more).min(channel.window);
        let waited = !channel.waiting.is_empty();
        while let Some(element) = channel.waiting.pop_front() {
            if let Element::Batch(batch) = &element {
                if channel.credit <= 0 {
                    channel.waiting.push_front(element);
                    break;
                }
                channel.credit -= i64::try_from(batch.bytes()).unwrap_or(i64::MAX);
                channel.waiting_bytes -= batch.bytes();
            }
            self.ready.push_back((place(at), element));
        }
        if waited && channel.waiting.is_empty() {
            self.blocked -= 1;
        }
    }

    /// The next element that leaves.
    pub fn pop(&mut self) -> Option<(OutputChannel, Element)> {
        let (at, element) = self.ready.pop_front()?;
        Some((self.channels[at as usize].to, element))
    }

    /// The bytes that wait for credit, over all channels.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.channels.iter().map(|channel| channel.waiting_bytes).sum()
    }
}

fn place(channel: usize) -> u32 {
    u32::try_from(channel).expect("a subtask has fewer channels than 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Batch;

    /// A batch of so many bytes.
    fn batch(bytes: u64) -> Box<dyn AnyBatch> {
        Box::new(Batch { records: vec![()].into_iter(), times: vec![], next: 0, bytes, origin: None, exact: false })
    }

    #[test]
    fn a_batch_that_waits_on_one_edge_blocks_the_subtask_and_not_the_other_edges() {
        let (a, b) = (EdgeId(3), EdgeId(5));
        let mut outbox = Outbox::new(&[(a, 1, 10), (b, 2, 10)]);
        let popped = |outbox: &mut Outbox| -> Vec<_> {
            std::iter::from_fn(|| outbox.pop()).map(|(to, element)| (to.edge, to.to, format!("{element:?}"))).collect()
        };
        let named = |edge, to, what: &str| (edge, to, what.to_owned());
        outbox.send(0, batch(10));
        outbox.send(0, batch(4));
        outbox.send(2, batch(1));
        assert!(outbox.is_blocked());
        assert_eq!(outbox.waiting_bytes(), 4);
        let batch = "Batch(1 records)";
        assert_eq!(popped(&mut outbox), [named(a, 0, batch), named(b, 1, batch)]);
        outbox.broadcast(|| Element::End);
        assert_eq!(popped(&mut outbox), [named(b, 0, "End"), named(b, 1, "End")], "it stays behind the batch");
        outbox.credit(OutputChannel { edge: b, to: 1 }, 1);
        outbox.credit(OutputChannel { edge: a, to: 7 }, 10);
        outbox.credit(OutputChannel { edge: EdgeId(0), to: 0 }, 10);
        assert!(outbox.is_blocked(), "credit of other channels");
        outbox.credit(OutputChannel { edge: a, to: 0 }, 10);
        assert!(!outbox.is_blocked());
        assert_eq!(popped(&mut outbox), [named(a, 0, batch), named(a, 0, "End")]);
        assert!(outbox.is_empty());
    }
}
