//! Subtasks and what flows between them.

use cutwater_core::{CheckpointId, SubtaskId};
use cutwater_dataflow::exec::{Element, OutputChannel};
use cutwater_restart::FailureClass;
use cutwater_task::{Action, Cause, Progress};

use super::World;
use super::events::Entity;
use crate::marks::Mark;
use crate::mutant::Mutant;
use crate::process::{Channel, Message, Node, Process, Running, Snapshot, Upload, UploadStep};
use crate::shared::{ProcessId, Rule};

impl World<'_> {
    fn node_mut(&mut self, id: ProcessId, at: usize) -> Option<&mut Node> {
        self.processes.get_mut(&id)?.running.as_mut()?.nodes.get_mut(at)
    }

    /// A subtask does a quantum of work.
    pub(super) fn run_node(&mut self, id: ProcessId, at: usize) {
        let now = self.now;
        let Some(node) = self.node_mut(id, at) else { return };
        let result = node.core.run(now);
        node.deadline = node.core.next_deadline();
        match result {
            Ok(progress) => node.busy = progress == Progress::Busy,
            Err(error) => {
                node.failed = true;
                let class =
                    if error.is_non_recoverable() { FailureClass::NonRecoverable } else { FailureClass::Recoverable };
                let broken = matches!(error.cause, Cause::Protocol(_) | Cause::State(_));
                let text = error.to_string();
                let Some(process) = self.processes.get_mut(&id) else { return };
                let Some(running) = &process.running else { return };
                process.net.push(Message::Failed { attempt: running.attempt, class });
                if broken && self.mutant.is_none() {
                    self.violated(Rule::Contract, || text.clone());
                }
                // A file that can't be written because the process is dead is nobody's failure.
                if !self.shared.is_dead(id) {
                    self.hit(Mark::UserError);
                }
                self.tell(Entity::Node(id, at as u32), || format!("fails: {text}"));
                return; // a host drops what a failed subtask still has to say
            }
        }
        self.drain_node(id, at);
    }

    /// Performs what a subtask wants done.
    pub(super) fn drain_node(&mut self, id: ProcessId, at: usize) {
        loop {
            let Some(node) = self.node_mut(id, at) else { return };
            let subtask = node.subtask;
            match node.core.poll_action() {
                None => return,
                Some(Action::Send { output, element }) => self.send(id, at, subtask, output, element),
                Some(Action::Credit { channel, bytes }) => self.give_credit(id, subtask, channel.0, bytes),
                Some(other) => self.perform_task(id, at, subtask, other),
            }
        }
    }

    fn send(&mut self, id: ProcessId, at: usize, subtask: SubtaskId, output: OutputChannel, element: Element) {
        let (overtakes, late) = (self.is(Mutant::BarrierOvertakes), self.is(Mutant::SnapshotLate));
        let (window, no_credit) = (self.config.window_bytes, self.is(Mutant::NoCredit));
        let (branch_late, misses) = (self.is(Mutant::BarrierLateOnBranch), self.is(Mutant::BroadcastMisses));
        self.tell(Entity::Node(id, at as u32), || format!("sends {element:?} to {}", output.to));
        let Some(running) = self.processes.get_mut(&id).and_then(|process| process.running.as_mut()) else { return };
        let place = running.channel_of(output.edge, subtask.index, output.to);
        let edge = running.edges[output.edge.0 as usize];
        let siblings = running.channels_of(output.edge, subtask.index);
        let mut unequal = None;
        if let (true, Element::Barrier(barrier)) = (edge.broadcast, &element) {
            let sent = running.channels[place].sent;
            let before = siblings.iter().filter_map(|other| other.at_barrier.get(&barrier.checkpoint));
            unequal = before.copied().find(|before| *before != sent).map(|before| (before, sent));
        }
        let last = siblings.len() > 1 && output.to as usize + 1 == siblings.len();
        let (everywhere, late) = (edge.broadcast && siblings.len() > 1, late || (branch_late && edge.branch));
        let channel = &mut running.channels[place];
        let mut too_much = false;
        let mut marks = [None; 2];
        match &element {
            Element::Batch(batch) => {
                too_much = channel.in_flight >= window;
                channel.in_flight += batch.bytes();
                channel.sent += batch.len() as u64;
                if channel.in_flight >= window {
                    marks[0] = Some(Mark::WindowUsedUp);
                }
                if everywhere {
                    marks[1] = Some(Mark::BroadcastSent);
                }
                if misses && everywhere && last {
                    channel.credits.push_back(batch.bytes());
                    return; // as if it had been processed
                }
            }
            Element::Barrier(barrier) => {
                channel.at_barrier.insert(barrier.checkpoint, channel.sent);
                if channel.elements.iter().any(|element| matches!(element, Element::Batch(_))) {
                    marks[0] = Some(Mark::BarrierWaitsForCredit);
                }
            }
            Element::CancelBarrier(_) => marks[0] = Some(Mark::CancelBarrier),
            Element::End => channel.ended = true,
            Element::Watermark(_) | Element::Idle | Element::Active => {}
        }
        self.shared.lock().choices.note(channel.sent << 8 | channel.elements.len() as u64);
        let is_batch = matches!(element, Element::Batch(_));
        match (&element, channel.elements.back()) {
            (Element::Barrier(_), Some(Element::Batch(_))) if overtakes => {
                let before = channel.elements.len() - 1;
                channel.elements.insert(before, element);
            }
            (Element::Barrier(_), _) if late && channel.held.is_none() => channel.held = Some(element),
            _ => {
                let held = channel.held.take();
                match (held, is_batch) {
                    (Some(barrier), true) => channel.elements.extend([element, barrier]),
                    (Some(barrier), false) => channel.elements.extend([barrier, element]),
                    (None, _) => channel.elements.push_back(element),
                }
            }
        }
        let other = |channel: &&Channel| channel.sender == at && channel.edge != output.edge.0;
        if marks[0] == Some(Mark::WindowUsedUp)
            && running.channels.iter().filter(other).any(|channel| channel.in_flight < window)
        {
            self.hit(Mark::BranchBlocked);
        }
        marks.into_iter().flatten().for_each(|mark| self.hit(mark));
        if let Some((one, other)) = unequal {
            self.violated(Rule::Cut, || format!("{subtask} broadcasts {one} records to one and {other} to another"));
        }
        if too_much || (no_credit && is_batch && self.more_than_the_window(id, place)) {
            self.violated(Rule::Bound, || format!("a batch leaves {subtask} although its window is used up"));
        }
    }

    /// With credit ignored, what is on a channel grows without bound.
    fn more_than_the_window(&self, id: ProcessId, place: usize) -> bool {
        let running = self.processes.get(&id).and_then(|process| process.running.as_ref());
        let batches = |running: &Running| {
            let elements = &running.channels[place].elements;
            elements.iter().filter(|element| matches!(element, Element::Batch(_))).count() as u64
        };
        // Each batch of the generated jobs has at least one record of 28 bytes, and a last one may exceed the window.
        running.is_some_and(|running| batches(running) > self.config.window_bytes / 28 + 2)
    }

    fn give_credit(&mut self, id: ProcessId, subtask: SubtaskId, number: u32, bytes: u64) {
        let Some(running) = self.processes.get_mut(&id).and_then(|process| process.running.as_mut()) else { return };
        let Some(place) = running.input_of(subtask, number) else {
            return self.violated(Rule::Contract, || format!("{subtask} has no channel {number} to give credit on"));
        };
        let channel = &mut running.channels[place];
        channel.credits.push_back(bytes);
        let coming: u64 = channel.credits.iter().sum();
        if coming > channel.in_flight {
            self.violated(Rule::Contract, || format!("{subtask} returns more credit than is under way"));
        }
    }

    fn perform_task(&mut self, id: ProcessId, at: usize, subtask: SubtaskId, action: Action) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(running) = process.running.as_mut() else { return };
        let attempt = running.attempt;
        let node = &mut running.nodes[at];
        let who = Entity::Node(id, at as u32);
        match action {
            Action::Send { .. } | Action::Credit { .. } => {}
            Action::SnapshotBegun { barrier, base, states, cold, .. } => {
                let tiered = cold.iter().any(Option::is_some).then(|| (states.clone(), cold.clone()));
                let before = node.snapshot.replace(Snapshot { barrier, base, states, cold, blocks: Vec::new() });
                node.newest = node.newest.max(barrier.checkpoint);
                if let Some((states, cold)) = tiered {
                    self.begin_applying(id, (attempt, barrier.checkpoint, subtask), states, cold);
                }
                if before.is_some() {
                    self.violated(Rule::Contract, || format!("{subtask} begins a snapshot within another"));
                }
                self.tell(who, || format!("cuts for checkpoint {}", barrier.checkpoint));
            }
            Action::Block { checkpoint, block } => {
                let bytes = block.payload.len() as u64;
                match node.snapshot.as_mut().filter(|snapshot| snapshot.barrier.checkpoint == checkpoint) {
                    Some(snapshot) if snapshot.is_cold(block.state) => {
                        self.block_for_tier(id, (attempt, checkpoint, subtask), block);
                    }
                    Some(snapshot) => {
                        snapshot.blocks.push(block);
                        process.written.push_back((attempt, subtask, checkpoint, bytes));
                    }
                    None => self.violated(Rule::Contract, || format!("{subtask} emits a block of no snapshot")),
                }
            }
            Action::SnapshotComplete { checkpoint, inline, finish } => {
                let taken = node.snapshot.take().filter(|snapshot| snapshot.barrier.checkpoint == checkpoint);
                let Some(Snapshot { barrier, base, states, cold, blocks }) = taken else {
                    return self.violated(Rule::Contract, || format!("{subtask} completes no snapshot"));
                };
                let tiered = cold.iter().any(Option::is_some);
                self.check_channels(id, subtask, checkpoint, inline.records);
                let mut inline = inline;
                if self.is(Mutant::PositionAhead) {
                    move_positions(&mut inline);
                }
                let step = UploadStep::Finish;
                // With a tier only once that has the snapshot: until then there can't be another.
                if self.config.max_concurrent > 1 && !tiered {
                    self.post(id, Message::Swept { attempt, checkpoint, subtask });
                }
                let chain = self.chain_of(id, attempt, subtask, base);
                let native = None;
                let upload = Upload {
                    attempt,
                    subtask,
                    barrier,
                    base,
                    chain,
                    states,
                    tiered,
                    blocks,
                    native,
                    inline,
                    finish,
                    step,
                    stalled_until: self.now,
                };
                if tiered {
                    return self.complete_for_tier(id, (attempt, checkpoint, subtask), upload);
                }
                self.note_taken(id, &upload);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.uploads.push(upload);
                }
            }
            Action::SnapshotDropped { checkpoint } => {
                node.snapshot = None;
                self.drop_for_tier(id, (attempt, checkpoint, subtask));
                self.hit(Mark::SnapshotDropped);
            }
            Action::Decline { checkpoint, reason, counted } => {
                let mark = match (counted, reason.contains("old values")) {
                    (true, true) => Mark::UndoLimit,
                    (true, false) => Mark::DeclinedCounted,
                    (false, _) if reason.contains("to the tier below") => Mark::TierPending,
                    (false, _) => Mark::DeclinedOvertaken,
                };
                self.tell(who, || format!("declines checkpoint {checkpoint}: {reason}"));
                self.post(id, Message::Declined { attempt, checkpoint, subtask, reason, counted });
                self.hit(mark);
            }
            Action::EndOfData => {
                node.ended = true;
                self.tell(who, || "is at the end of data".to_owned());
                self.post(id, Message::EndOfData { attempt, subtask });
            }
            Action::LastCut { handles, finish } => {
                self.post(id, Message::HandedOver { attempt, subtask, handles, finish });
            }
        }
    }

    /// What a subtask had processed when it was cut is what was sent to it before the barrier.
    fn check_channels(&mut self, id: ProcessId, subtask: SubtaskId, checkpoint: CheckpointId, records: u64) {
        let Some(running) = self.processes.get(&id).and_then(|process| process.running.as_ref()) else { return };
        let Some(inputs) = running.node_of(subtask).and_then(|node| running.inputs.get(node)) else { return };
        if inputs.is_empty() {
            return; // a source
        }
        let mine = inputs.iter().map(|place| &running.channels[*place]);
        let before: u64 =
            mine.map(|channel| channel.at_barrier.get(&checkpoint).copied().unwrap_or(channel.sent)).sum();
        let exact = self.config.exactly_once;
        if records < before || (exact && records != before) {
            self.violated(Rule::Cut, || {
                format!(
                    "{subtask} has {records} records in checkpoint {checkpoint}, {before} were sent before the barrier"
                )
            });
        }
        if records > before {
            self.hit(Mark::AtLeastOnceAhead);
        }
    }

    pub(super) fn post(&mut self, id: ProcessId, message: Message) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.net.push(message);
        }
    }

    /// An element comes in.
    pub(super) fn deliver(&mut self, id: ProcessId, place: usize) {
        let now = self.now;
        let (honours_stale, mutant) = (self.is(Mutant::StaleHonoured), self.mutant);
        let Some(running) = self.processes.get_mut(&id).and_then(|process| process.running.as_mut()) else { return };
        let others: Vec<usize> = running.other_inputs(place).collect();
        let channel = &mut running.channels[place];
        let Some(element) = channel.elements.pop_front() else { return };
        channel.over = matches!(element, Element::End);
        let (number, receiver) = (channel.number, channel.receiver);
        let node = &mut running.nodes[receiver];
        let mut pauses = false;
        let ends_apart = matches!(element, Element::End) && !others.is_empty();
        if let Element::Barrier(barrier) = &element {
            if honours_stale && barrier.checkpoint < node.newest {
                channel.stuck = true; // it waits for the same barrier on the other channels, which never comes
            }
            pauses = node.newest < barrier.checkpoint;
            node.newest = node.newest.max(barrier.checkpoint);
        }
        let for_all = super::planted::for_all_inputs(mutant, &element, pauses);
        let subtask = node.subtask;
        let element = match element {
            Element::Barrier(barrier) => Element::Barrier(self.planted_base(id, subtask, barrier)),
            other @ (Element::Batch(_)
            | Element::Watermark(_)
            | Element::Idle
            | Element::Active
            | Element::CancelBarrier(_)
            | Element::End) => other,
        };
        let Some(running) = self.processes.get_mut(&id).and_then(|process| process.running.as_mut()) else { return };
        let node = &mut running.nodes[receiver];
        node.core.handle_element(now, cutwater_core::ChannelId(number), element);
        node.busy = true;
        if let Some(make) = for_all {
            for other in &others {
                let number = running.channels[*other].number;
                running.nodes[receiver].core.handle_element(now, cutwater_core::ChannelId(number), make());
            }
        }
        if pauses {
            self.hit(Mark::AlignmentPauses);
            if !others.is_empty() {
                self.hit(Mark::AlignedOverInputs);
            }
        }
        if ends_apart {
            self.hit(Mark::InputsEndApart);
        }
        self.drain_node(id, receiver);
    }

    /// A receiver's credit comes back to the sender.
    pub(super) fn return_credit(&mut self, id: ProcessId, place: usize) {
        let Some(running) = self.processes.get_mut(&id).and_then(|process| process.running.as_mut()) else { return };
        let channel = &mut running.channels[place];
        let Some(bytes) = channel.credits.pop_front() else { return };
        channel.in_flight = channel.in_flight.saturating_sub(bytes);
        let (sender, output) =
            (channel.sender, OutputChannel { edge: cutwater_core::EdgeId(channel.edge), to: channel.to });
        running.nodes[sender].core.handle_credit(output, bytes);
        running.nodes[sender].busy = true;
        self.drain_node(id, sender);
    }

    /// Tells a subtask that a part of its snapshot is written.
    pub(super) fn tell_written(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some((attempt, subtask, checkpoint, bytes)) = process.written.pop_front() else { return };
        let Some(at) = node_of(process, attempt, subtask) else { return };
        if let Some(node) = self.node_mut(id, at) {
            node.core.handle_written(checkpoint, bytes);
            node.busy = true;
        }
        self.drain_node(id, at);
    }

    /// One of the messages comes, or is lost, or comes and will come again.
    pub(super) fn deliver_message(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let count = process.net.len();
        let at = self.shared.lock().choices.below(count);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let message = process.net.swap_remove(at);
        let fault = {
            let mut shared = self.shared.lock();
            let lost = if message.may_be_lost() { shared.rates.message_lost } else { 0 };
            let rates = [lost, shared.rates.message_twice];
            shared.choices.fault(&rates)
        };
        match fault {
            1 => {
                self.shared.lock().marks.fault("message_lost");
                if let Message::Acked { snapshot, .. } = &message {
                    self.oracle.unheard.extend(snapshot.stored_files().map(|file| file.name.clone()));
                }
                return self.hit(Mark::MessageLost);
            }
            2 => {
                if let Some(again) = message.again() {
                    self.shared.lock().marks.fault("message_twice");
                    self.hit(Mark::MessageTwice);
                    self.post(id, again);
                }
            }
            _ => {}
        }
        self.receive(id, message);
    }

    fn receive(&mut self, id: ProcessId, message: Message) {
        let now = self.now;
        match message {
            Message::Trigger { to, attempt, barrier, hold } => {
                let holds = self.is(Mutant::HeldForEver);
                let barrier = self.planted_base(id, to, barrier);
                self.command(id, attempt, to, |node| {
                    let late = barrier.checkpoint < node.newest;
                    node.newest = node.newest.max(barrier.checkpoint);
                    if hold || (holds && node.held.is_some()) {
                        node.core.handle_hold(barrier.checkpoint);
                        node.held = Some(barrier.checkpoint);
                    }
                    node.core.handle_trigger(now, barrier);
                    late.then_some(Mark::TriggerLate)
                });
                self.honour_stale_trigger(id, attempt, to, barrier);
            }
            Message::Drain { to, attempt } => self.command(id, attempt, to, |node| {
                node.core.handle_drain();
                None
            }),
            Message::Abort { to, attempt, checkpoint } => {
                let forgets = self.is(Mutant::HandlesForgotten);
                let holds = self.is(Mutant::HeldForEver);
                self.command(id, attempt, to, |node| {
                    let held = node.held.take_if(|held| *held == checkpoint).is_some();
                    if held && holds {
                        return None;
                    }
                    node.core.handle_abort(checkpoint);
                    if held {
                        return Some(Mark::HeldSourceGoesOn);
                    }
                    if forgets {
                        node.core.handle_published(checkpoint);
                    }
                    None
                });
            }
            Message::Published { to, attempt, checkpoint } => {
                self.command(id, attempt, to, |node| {
                    node.core.handle_published(checkpoint);
                    None
                });
                if let Some(process) = self.processes.get_mut(&id) {
                    let noticed = process.noticed.entry(to).or_insert(checkpoint);
                    *noticed = checkpoint.max(*noticed);
                }
            }
            Message::LastCut { to, attempt } => self.command(id, attempt, to, |node| {
                node.core.handle_last_cut();
                None
            }),
            Message::Applied { to, attempt, checkpoint, applied } => {
                self.applied(id, (attempt, checkpoint, to), applied)
            }
            Message::Acked { attempt, checkpoint, snapshot } => self.acknowledge(id, attempt, checkpoint, *snapshot),
            Message::Swept { attempt, checkpoint, subtask } => {
                self.with_driver(id, |driver| driver.handle_swept(now, attempt, checkpoint, subtask));
            }
            Message::Declined { attempt, checkpoint, subtask, reason, counted } => {
                self.with_driver(id, |driver| {
                    driver.handle_decline(now, attempt, checkpoint, subtask, reason, counted);
                });
            }
            Message::EndOfData { attempt, subtask } => {
                self.with_driver(id, |driver| driver.handle_end_of_data(now, attempt, subtask));
            }
            Message::HandedOver { attempt, subtask, handles, finish } => {
                self.with_driver(id, |driver| driver.handle_last_cut(now, attempt, subtask, handles, finish));
            }
            Message::Failed { attempt, class } => self.report_failure(id, attempt, class),
            Message::Litter { names } => {
                self.hit(Mark::LitterTold);
                self.with_driver(id, |driver| driver.handle_litter(now, names));
            }
        }
    }

    /// Tells a subtask something, if its attempt still runs.
    pub(super) fn command(
        &mut self,
        id: ProcessId,
        attempt: cutwater_core::Attempt,
        to: SubtaskId,
        tell: impl FnOnce(&mut Node) -> Option<Mark>,
    ) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(at) = node_of(process, attempt, to) else { return };
        let Some(node) = self.node_mut(id, at).filter(|node| !node.failed) else { return };
        let mark = tell(node);
        node.busy = true;
        if let Some(mark) = mark {
            self.hit(mark);
        }
        self.drain_node(id, at);
    }

    /// A source that honours a stale trigger sends a stale barrier.
    fn honour_stale_trigger(
        &mut self,
        id: ProcessId,
        attempt: cutwater_core::Attempt,
        to: SubtaskId,
        barrier: cutwater_core::Barrier,
    ) {
        if !self.is(Mutant::StaleHonoured) {
            return;
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(at) = node_of(process, attempt, to) else { return };
        let Some(running) = process.running.as_mut() else { return };
        if barrier.checkpoint >= running.nodes[at].newest || running.nodes[at].ended {
            return;
        }
        for channel in running.channels.iter_mut().filter(|channel| channel.sender == at && !channel.ended) {
            channel.elements.push_back(Element::Barrier(barrier));
        }
    }
}

/// The place of the subtask among the nodes, if the attempt runs.
pub(super) fn node_of(process: &Process, attempt: cutwater_core::Attempt, subtask: SubtaskId) -> Option<usize> {
    process.running.as_ref().filter(|running| running.attempt == attempt)?.node_of(subtask)
}

/// Records positions one record further than the source has emitted.
fn move_positions(inline: &mut cutwater_task::TaskSnapshot) {
    use cutwater_dataflow::exec::SnapshotKind;
    type Split = (String, Option<Vec<u8>>, bool, i64, u64);
    for part in inline.operators.iter_mut().filter(|part| part.kind == SnapshotKind::SourceSplits) {
        let Ok(mut splits) = cutwater_state::decode::<Vec<Split>>(&part.payload) else { continue };
        for (_, position, ended, _, _) in splits.iter_mut().filter(|split| !split.2) {
            let ahead = position.as_deref().and_then(|bytes| cutwater_state::decode::<u32>(bytes).ok());
            let mut bytes = Vec::new();
            if !*ended && cutwater_state::encode(&(ahead.unwrap_or(0) + 1), &mut bytes).is_ok() {
                *position = Some(bytes);
            }
        }
        part.payload.clear();
        let _ = cutwater_state::encode(&splits, &mut part.payload);
    }
}
