use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cutwater_core::{ChannelId, EdgeId, Moment, SubtaskId};
use timely::communication::{Pull, Push};
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::LogPuller;
use timely::dataflow::channels::pushers;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::InputHandleCore;
use timely::scheduling::Activator;

use super::envelope::{Credit, Envelope};
use super::incarnation::{Shared, Stop};
use super::layout::Placement;
use super::panics::{catch, discard};
use super::seam::{Core, Output, OutputChannel, Progress};

/// How long an idle core whose deadline has passed and stays in the past is left alone.
const SPIN_GUARD: Duration = Duration::from_millis(1);

type Puller<E> = LogPuller<Box<dyn Pull<Message<(), Envelope<E>>>>>;

/// One input edge of the local subtasks.
pub(super) struct Input<E: Send + 'static> {
    pub(super) elements: InputHandleCore<(), Envelope<E>, Puller<E>>,
    /// The channel number of the edge's first sender.
    pub(super) base: u32,
    pub(super) senders: Placement,
    /// Against the edge: to the senders on each worker.
    pub(super) credits: Vec<Box<dyn Push<Credit>>>,
}

/// One output edge of the local subtasks.
pub(super) struct Port<E: Send + 'static> {
    pub(super) edge: EdgeId,
    pub(super) receivers: Placement,
    pub(super) elements: pushers::Output<(), Envelope<E>>,
    pub(super) credits: Box<dyn Pull<Credit>>,
    /// Whether something was sent since the last flush.
    pub(super) sent: bool,
}

/// What the worker's loop holds of one operator.
pub(super) struct Remote<M> {
    /// Commands for its subtasks, by slot, until the operator is scheduled.
    pub(super) commands: RefCell<VecDeque<(u32, M)>>,
    /// The earliest deadline of its cores; [`Moment::MAX`] if there is none.
    pub(super) deadline: Cell<Moment>,
}

/// The local subtasks of one task, as one Timely operator.
pub(super) struct Operator<C: Core, F> {
    pub(super) worker: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: F,
    pub(super) activator: Activator,
    pub(super) remote: Rc<Remote<C::Command>>,
    pub(super) placement: Placement,
    pub(super) slots: Vec<Slot<C>>,
    pub(super) inputs: Vec<Input<C::Element>>,
    pub(super) ports: Vec<Port<C::Element>>,
    /// One for each port. Held until all local subtasks are done; without them the ports are closed for all.
    pub(super) capabilities: Vec<Capability<()>>,
    /// What one quantum puts out; kept for its memory.
    pub(super) out: Vec<Output<C::Element>>,
}

impl<C: Core, F: Fn() -> Moment> Operator<C, F> {
    /// Everything that one activation does: hand over all that has arrived, give each core that has something to do one
    /// quantum, send. Returns whether any local subtask is still at work.
    pub(super) fn activate(&mut self) -> bool {
        let now = (self.clock)();
        self.take_commands(now);
        self.take_credits();
        self.take_elements(now);
        if self.run_cores() == Stop::Requested {
            return true;
        }
        self.flush();
        let deadline = self.slots.iter().map(|slot| slot.deadline).min();
        self.remote.deadline.set(deadline.unwrap_or(Moment::MAX));
        if self.slots.iter().any(|slot| slot.busy) {
            self.activator.activate();
        }
        let working = self.slots.iter().any(|slot| slot.state != State::Done);
        if !working {
            self.capabilities.clear();
        }
        working
    }

    fn take_commands(&mut self, now: Moment) {
        for (slot, command) in self.remote.commands.borrow_mut().drain(..) {
            let slot = self.slots.get_mut(slot as usize);
            if let Some(core) = slot.and_then(Slot::wake) {
                core.handle_command(now, command);
            }
        }
    }

    fn take_credits(&mut self) {
        for port in &mut self.ports {
            while let Some(Credit { sender, receiver, bytes }) = port.credits.recv() {
                if let Some(core) = self.slots[self.placement.slot(sender)].wake() {
                    core.handle_credit(OutputChannel { edge: port.edge, to: receiver }, bytes);
                }
            }
        }
    }

    /// Takes all there is, before any core runs: what waits in Timely's queues is seen by nobody.
    fn take_elements(&mut self, now: Moment) {
        for Input { elements, base, .. } in &mut self.inputs {
            elements.for_each(|_, envelope| {
                let slot = &mut self.slots[self.placement.slot(envelope.to)];
                if let (Some(core), Some(element)) = (slot.wake(), envelope.element.take()) {
                    core.handle_element(now, ChannelId(*base + envelope.from), element);
                }
            });
        }
    }

    fn run_cores(&mut self) -> Stop {
        let Self { worker, shared, clock, slots, inputs, ports, capabilities, out, .. } = self;
        for slot in slots {
            if !slot.may_be_due() {
                continue; // without reading the clock
            }
            let begun = clock();
            let mut now = begun;
            if !slot.is_due(now) {
                continue;
            }
            loop {
                // Between the quanta, so that an abort does not wait for all of them.
                if shared.stop() == Stop::Requested {
                    return Stop::Requested;
                }
                shared.enter(*worker, slot.subtask);
                slot.run(now, out);
                shared.leave(*worker);
                for output in out.drain(..) {
                    match output {
                        Output::Send { output, element } => {
                            let (port, capability) = port(ports, capabilities, slot.subtask, output);
                            port.sent = true;
                            let (from, to) = (slot.subtask.index, output.to);
                            port.elements.give(capability, &mut Envelope { from, to, element: Some(element) });
                        }
                        Output::Credit { channel, bytes } => slot.owe(channel, bytes),
                    }
                }
                if !slot.busy || inputs.is_empty() {
                    break;
                }
                now = clock();
                if now.since(begun) >= TURN && !slot.is_amid() {
                    break;
                }
            }
            slot.pay(inputs);
        }
        Stop::NotRequested
    }

    fn flush(&mut self) {
        for port in &mut self.ports {
            if std::mem::take(&mut port.sent) {
                drop(port.elements.activate()); // a session flushes when it ends
            }
        }
    }
}

/// The port of `output`, with its capability. A core that sends elsewhere is a bug of ours, not of the user.
fn port<'a, E: Send + 'static>(
    ports: &'a mut [Port<E>],
    capabilities: &'a [Capability<()>],
    subtask: SubtaskId,
    output: OutputChannel,
) -> (&'a mut Port<E>, &'a Capability<()>) {
    let found = ports.iter_mut().zip(capabilities).find(|(port, _)| port.edge == output.edge);
    let (port, capability) = found.unwrap_or_else(|| panic!("{subtask} sent to {}, not its output", output.edge));
    assert!(output.to < port.receivers.parallelism, "{subtask} sent to subtask {} of {}", output.to, output.edge);
    (port, capability)
}

/// For how long a core that has inputs goes on before it is the turn of the next. With a single quantum each, one that gets
/// batches from several senders would never catch up with them on a worker where a source takes long for each of its own:
/// what waits would grow, and barriers wait behind it.
const TURN: Duration = Duration::from_micros(200);

/// How far a core is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Done,
    /// Its code panicked: it is kept, untouched, so that the task does not look done.
    Dead,
}

/// One core and what the operator remembers of it.
pub(super) struct Slot<C: Core> {
    subtask: SubtaskId,
    /// `None` once done.
    core: Option<C>,
    state: State,
    /// Something was handed over since the last quantum.
    ready: bool,
    /// The last quantum was not enough.
    busy: bool,
    deadline: Moment,
    /// Credit owed, by channel, gathered over one quantum.
    owed: Vec<u64>,
    /// The channels with credit owed.
    owing: Vec<u32>,
}

impl<C: Core> Slot<C> {
    pub(super) fn new(subtask: SubtaskId, core: C, channels: u32) -> Self {
        let owed = vec![0; channels as usize];
        let deadline = Moment::MAX;
        Self { subtask, core: Some(core), state: State::Live, ready: true, busy: false, deadline, owed, owing: vec![] }
    }

    /// The core, to be handed something, for which it will be run; `None` if it is past that.
    fn wake(&mut self) -> Option<&mut C> {
        self.ready = true;
        if self.state == State::Live { self.core.as_mut() } else { None }
    }

    fn may_be_due(&self) -> bool {
        self.state == State::Live && (self.ready || self.busy || self.deadline < Moment::MAX)
    }

    fn is_due(&self, now: Moment) -> bool {
        self.state == State::Live && (self.ready || self.busy || self.deadline <= now)
    }

    fn is_amid(&self) -> bool {
        self.core.as_ref().is_some_and(C::is_amid)
    }

    /// One quantum.
    fn run(&mut self, now: Moment, out: &mut Vec<Output<C::Element>>) {
        let Some(core) = &mut self.core else { return };
        self.ready = false;
        self.busy = false;
        self.deadline = Moment::MAX;
        match catch(|| core.run(now, out)) {
            Ok(Progress::Busy) => {
                self.busy = true;
                self.deadline = core.next_deadline().unwrap_or(Moment::MAX);
            }
            Ok(Progress::Idle) => {
                let deadline = core.next_deadline().unwrap_or(Moment::MAX);
                self.deadline = if deadline <= now { now + SPIN_GUARD } else { deadline };
            }
            Ok(Progress::Done) => {
                self.state = State::Done;
                discard(self.core.take());
            }
            Err(caught) => {
                self.state = State::Dead;
                out.clear();
                core.panicked(caught.message, caught.location);
            }
        }
    }

    fn owe(&mut self, channel: ChannelId, bytes: u64) {
        let Some(owed) = self.owed.get_mut(channel.0 as usize) else {
            panic!("{} gave credit to {channel}, not its input", self.subtask)
        };
        if *owed == 0 && bytes > 0 {
            self.owing.push(channel.0);
        }
        *owed += bytes;
    }

    /// Sends what is owed, one message for each channel.
    fn pay(&mut self, inputs: &mut [Input<C::Element>]) {
        for channel in self.owing.drain(..) {
            let bytes = std::mem::take(&mut self.owed[channel as usize]);
            let input = inputs.iter_mut().rfind(|input| input.base <= channel).expect("the first input's base is 0");
            let credit = Credit { sender: channel - input.base, receiver: self.subtask.index, bytes };
            input.credits[input.senders.worker(credit.sender)].send(credit);
        }
    }
}

impl<C: Core> Drop for Slot<C> {
    fn drop(&mut self) {
        discard(self.core.take());
    }
}
