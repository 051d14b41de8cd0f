use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use cutwater_core::{Barrier, ChannelId, CheckpointId, Moment};

use crate::{Action, DeclineReason, Violation};

#[cfg(test)]
mod tests;

/// How many checkpoints the at-least-once mode counts at the same time, as in Flink, and how many triggers wait for
/// later. One more, and the oldest is forgotten: a checkpoint silently, a trigger with a decline.
pub const MAX_PENDING: usize = 50;

/// How many aborted checkpoints are remembered whose barrier has not come. One more, and the lowest is forgotten: it
/// costs a snapshot that nobody wants, no more.
pub const MAX_ABORTS: usize = 128;

/// How strict the alignment is. Flink's `execution.checkpointing.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// A channel waits behind its barrier until all channels have theirs: after a restore each record counts once.
    #[default]
    ExactlyOnce,
    /// Barriers are only counted, no channel ever waits: after a restore, records that came behind a barrier and before
    /// the snapshot count twice.
    AtLeastOnce,
}

/// Aligns the barriers of one subtask, whatever its number of input channels.
///
/// In exactly-once mode one checkpoint at a time, the newest wins; in at-least-once mode up to [`MAX_PENDING`] at a
/// time. Call `handle_*` with what arrived, then do what [`Self::poll_action`] says until it says `None`, then go on.
///
/// A barrier, cancel marker or trigger of a checkpoint that is done with, here or because a newer one was seen, changes
/// nothing.
///
/// # Where it differs from Flink
///
/// - An abort by the coordinator frees the waiting channels at once. Flink goes on aligning to the end.
/// - A cancel marker of a newer checkpoint also declines the older one being aligned, as a newer barrier does. Flink
///   drops it without a word.
/// - A trigger that comes while channels are open waits for their ends ([`Self::handle_trigger`]). Flink takes it as the
///   barrier of the open channels, which is safe there, since a task upstream does not finish before everything it sent
///   was processed.
/// - When the end of a channel settles several checkpoints at once, the newest that was not aborted is snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aligner {
    mode: Mode,
    channels: u32,
    checkpoints_after_tasks_finish: bool,
    /// Channels that have not ended.
    open: BTreeSet<ChannelId>,
    paused: BTreeSet<ChannelId>,
    /// Checkpoints with rising numbers up to `newest`, each still missing a channel; at most one in exactly-once.
    pending: VecDeque<Pending>,
    /// The newest checkpoint that a barrier, cancel marker or acted-upon trigger named.
    newest: Option<CheckpointId>,
    /// Triggers above `newest` that wait for the last channel to end.
    triggers: BTreeMap<CheckpointId, (Moment, Barrier)>,
    /// Checkpoints above `newest` that the coordinator has aborted.
    aborts: BTreeSet<CheckpointId>,
    actions: VecDeque<Action>,
}

/// A checkpoint whose barrier has come on some channel and not on all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    barrier: Barrier,
    /// When the first barrier came.
    since: Moment,
    missing: BTreeSet<ChannelId>,
    /// Aborted by the coordinator: when nothing is missing, a cancel marker goes downstream in place of the barrier. Not
    /// earlier, since downstream takes it as the end of all older checkpoints too, and those may still succeed.
    aborted: bool,
}

impl Aligner {
    /// An aligner for the input channels `0..channels`, all open; a source has none.
    ///
    /// With `checkpoints_after_tasks_finish` (Flink's `execution.checkpointing.checkpoints-after-tasks-finish`, on by
    /// default there) a channel that ends counts as having delivered the barriers of all checkpoints to come; without it,
    /// the end of a channel declines what is being aligned, and a subtask whose channels have all ended declines every
    /// trigger.
    #[must_use]
    pub fn new(mode: Mode, channels: u32, checkpoints_after_tasks_finish: bool) -> Self {
        Self {
            mode,
            channels,
            checkpoints_after_tasks_finish,
            open: (0..channels).map(ChannelId).collect(),
            paused: BTreeSet::new(),
            pending: VecDeque::new(),
            newest: None,
            triggers: BTreeMap::new(),
            aborts: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// A barrier arrived on `channel`.
    ///
    /// # Errors
    ///
    /// [`Violation`] if the channel is unknown, has ended or is paused, delivers the barrier a second time (in
    /// exactly-once mode; in at-least-once mode it counts once), or another barrier than the other channels did. The
    /// aligner is then as it was.
    pub fn handle_barrier(&mut self, now: Moment, channel: ChannelId, barrier: Barrier) -> Result<(), Violation> {
        self.check_open(channel)?;
        if let Some(at) = self.position(barrier.checkpoint) {
            self.check_barrier(self.pending[at].barrier, channel, barrier)?;
            self.arrive(now, at, channel);
        } else {
            self.check_readable(channel)?;
            if self.is_new(barrier.checkpoint) {
                self.begin(now, channel, barrier);
            }
        }
        Ok(())
    }

    /// A cancel marker arrived on `channel`: upstream gave the checkpoint up. The moment makes no difference; it is here
    /// because each element of a channel brings one.
    ///
    /// # Errors
    ///
    /// [`Violation`] if the channel is unknown, has ended or is paused. The aligner is then as it was.
    pub fn handle_cancel(
        &mut self,
        _now: Moment,
        channel: ChannelId,
        checkpoint: CheckpointId,
    ) -> Result<(), Violation> {
        self.check_open(channel)?;
        self.check_readable(channel)?;
        let begun = self.position(checkpoint).is_some();
        if begun || self.is_new(checkpoint) {
            self.cancel_up_to(checkpoint);
        }
        if self.is_new(checkpoint) {
            self.decline_new(checkpoint, DeclineReason::OnCancellationBarrier);
        }
        Ok(())
    }

    /// `channel` ended: nothing more will come from it.
    ///
    /// # Errors
    ///
    /// [`Violation`] if the channel is unknown, has ended already or is paused. The aligner is then as it was.
    pub fn handle_end(&mut self, now: Moment, channel: ChannelId) -> Result<(), Violation> {
        self.check_open(channel)?;
        self.check_readable(channel)?;
        self.open.remove(&channel);
        if !self.checkpoints_after_tasks_finish {
            self.decline_all(DeclineReason::InputEndOfStream);
            return Ok(());
        }
        for pending in &mut self.pending {
            pending.missing.remove(&channel);
        }
        // The newest, since with it all older ones are settled too.
        if let Some(at) = self.pending.iter().rposition(|pending| pending.missing.is_empty()) {
            self.finish(now, at);
        }
        if self.open.is_empty() {
            for (since, barrier) in mem::take(&mut self.triggers).into_values() {
                self.answer_trigger(now, since, barrier);
            }
        }
        Ok(())
    }

    /// The coordinator asks for a checkpoint: of a source, or of a subtask with nobody running upstream.
    ///
    /// A source, or a subtask all of whose channels have ended, answers at once. Otherwise the trigger is kept: it has
    /// overtaken records that are still in the channels and that no task upstream will ever send again, so a snapshot
    /// now would lose them. As soon as the last channel has ended, the kept triggers are answered in order, save those
    /// of checkpoints that were snapshot or given up in the meantime. A trigger that is overtaken while it waits, by a
    /// barrier or cancel marker of a newer checkpoint or by [`MAX_PENDING`] newer triggers, is declined as
    /// [`DeclineReason::Subsumed`].
    ///
    /// A subtask that has sent its own end downstream sends no barrier behind it: the snapshot is all that is left.
    pub fn handle_trigger(&mut self, now: Moment, barrier: Barrier) {
        let checkpoint = barrier.checkpoint;
        if !self.is_new(checkpoint) {
            return;
        }
        if self.open.is_empty() {
            self.answer_trigger(now, now, barrier);
            return;
        }
        self.triggers.entry(checkpoint).or_insert((now, barrier));
        if self.triggers.len() > MAX_PENDING
            && let Some((checkpoint, _)) = self.triggers.pop_first()
        {
            self.actions.push_back(Action::Decline { checkpoint, reason: DeclineReason::Subsumed });
        }
    }

    /// The coordinator says that this checkpoint is dead. It is not told so in return.
    ///
    /// If it is being aligned, it is given up: the channels resume and a cancel marker goes downstream; in at-least-once
    /// mode, where nobody waits, the marker goes when the snapshot would have been taken. If nothing was heard of it
    /// yet, the abort is remembered, and the barrier or trigger that comes later is answered with a cancel marker in
    /// place of a snapshot. A checkpoint already snapshot or given up: nothing.
    pub fn handle_abort(&mut self, checkpoint: CheckpointId) {
        if let Some(at) = self.position(checkpoint) {
            match self.mode {
                Mode::ExactlyOnce => {
                    self.pending.remove(at);
                    self.actions.push_back(Action::ForwardCancel(checkpoint));
                    self.resume_all();
                }
                Mode::AtLeastOnce => self.pending[at].aborted = true,
            }
        } else if self.is_new(checkpoint) {
            self.aborts.insert(checkpoint);
            if self.aborts.len() > MAX_ABORTS {
                self.aborts.pop_first();
            }
        }
    }

    /// The next thing to do. Drain to `None` after each `handle_*` call, before the next one.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether nothing may be read from the channel now.
    #[must_use]
    pub fn is_paused(&self, channel: ChannelId) -> bool {
        self.paused.contains(&channel)
    }

    /// The checkpoint being aligned; in at-least-once mode the newest of those that may still be snapshot.
    #[must_use]
    pub fn aligning(&self) -> Option<CheckpointId> {
        let wanted = self.pending.iter().rev().find(|pending| !pending.aborted);
        wanted.map(|pending| pending.barrier.checkpoint)
    }

    /// How many channels have not ended.
    #[must_use]
    pub fn open_channels(&self) -> u32 {
        u32::try_from(self.open.len()).expect("at most the number of channels, a u32")
    }

    fn check_open(&self, channel: ChannelId) -> Result<(), Violation> {
        if channel.0 >= self.channels {
            return Err(Violation::UnknownChannel { channel, channels: self.channels });
        }
        if self.open.contains(&channel) { Ok(()) } else { Err(Violation::AfterEnd { channel }) }
    }

    fn check_readable(&self, channel: ChannelId) -> Result<(), Violation> {
        match self.pending.front() {
            Some(pending) if self.is_paused(channel) => {
                Err(Violation::ReadWhilePaused { channel, checkpoint: pending.barrier.checkpoint })
            }
            _ => Ok(()),
        }
    }

    fn check_barrier(&self, expected: Barrier, channel: ChannelId, found: Barrier) -> Result<(), Violation> {
        if expected != found {
            Err(Violation::DifferentBarrier { channel, expected, found })
        } else if self.is_paused(channel) {
            Err(Violation::RepeatedBarrier { channel, checkpoint: found.checkpoint })
        } else {
            Ok(())
        }
    }

    fn position(&self, checkpoint: CheckpointId) -> Option<usize> {
        self.pending.iter().position(|pending| pending.barrier.checkpoint == checkpoint)
    }

    fn is_new(&self, checkpoint: CheckpointId) -> bool {
        Some(checkpoint) > self.newest
    }

    /// The first barrier of a checkpoint newer than all.
    fn begin(&mut self, now: Moment, channel: ChannelId, barrier: Barrier) {
        let checkpoint = barrier.checkpoint;
        if self.mode == Mode::ExactlyOnce {
            self.decline_front(DeclineReason::Subsumed);
            self.resume_all();
        }
        let aborted = self.rise_to(checkpoint);
        if aborted && self.mode == Mode::ExactlyOnce {
            // Nothing older can still succeed, so there is nothing to wait for.
            self.actions.push_back(Action::ForwardCancel(checkpoint));
            return;
        }
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { barrier, since: now, missing: self.open.clone(), aborted });
        self.arrive(now, self.pending.len() - 1, channel);
    }

    /// Everything below `checkpoint` that waits for something to come is overtaken. Returns whether the coordinator has
    /// aborted `checkpoint`.
    fn rise_to(&mut self, checkpoint: CheckpointId) -> bool {
        self.newest = Some(checkpoint);
        while let Some(entry) = self.triggers.first_entry()
            && *entry.key() <= checkpoint
        {
            let overtaken = entry.remove_entry().0;
            if overtaken < checkpoint && !self.aborts.contains(&overtaken) {
                // No cancel marker: what overtook it goes downstream and overtakes it there too.
                self.actions.push_back(Action::Decline { checkpoint: overtaken, reason: DeclineReason::Subsumed });
            }
        }
        let aborted = self.aborts.contains(&checkpoint);
        self.aborts.retain(|&id| id > checkpoint);
        aborted
    }

    fn arrive(&mut self, now: Moment, at: usize, channel: ChannelId) {
        self.pending[at].missing.remove(&channel);
        if self.pending[at].missing.is_empty() {
            self.finish(now, at);
        } else if self.mode == Mode::ExactlyOnce {
            self.paused.insert(channel);
            self.actions.push_back(Action::Pause(channel));
        }
    }

    /// Nothing is missing at `at`: it and all older ones are settled, and the newest complete one is snapshot.
    fn finish(&mut self, now: Moment, at: usize) {
        let settled: Vec<Pending> = self.pending.drain(..=at).filter(|pending| pending.missing.is_empty()).collect();
        let newest_wanted = settled.iter().rposition(|pending| !pending.aborted);
        for (i, Pending { barrier, since, aborted, .. }) in settled.into_iter().enumerate() {
            if aborted {
                self.actions.push_back(Action::ForwardCancel(barrier.checkpoint));
            } else if newest_wanted == Some(i) {
                self.actions.push_back(Action::Snapshot { barrier, aligned_for: now.since(since) });
            }
        }
        // Only after the snapshot: a record read before it would count twice.
        self.resume_all();
    }

    /// A cancel marker of `checkpoint` ends what is older, too. It need not be kept until all channels have reported:
    /// no number up to the newest begins again.
    fn cancel_up_to(&mut self, checkpoint: CheckpointId) {
        while let Some(front) = self.pending.front().map(|pending| pending.barrier.checkpoint)
            && front <= checkpoint
        {
            self.decline_front(match self.mode {
                Mode::ExactlyOnce if front < checkpoint => DeclineReason::Subsumed,
                Mode::ExactlyOnce | Mode::AtLeastOnce => DeclineReason::OnCancellationBarrier,
            });
        }
        self.resume_all();
    }

    /// An input ended and checkpoints after that are off.
    fn decline_all(&mut self, reason: DeclineReason) {
        while !self.pending.is_empty() {
            self.decline_front(reason);
        }
        for checkpoint in mem::take(&mut self.triggers).into_keys() {
            self.decline_new(checkpoint, reason);
        }
        self.resume_all();
    }

    /// Gives up the oldest that is pending, if there is one.
    fn decline_front(&mut self, reason: DeclineReason) {
        if let Some(Pending { barrier: Barrier { checkpoint, .. }, aborted, .. }) = self.pending.pop_front() {
            if !aborted {
                self.actions.push_back(Action::Decline { checkpoint, reason });
            }
            self.actions.push_back(Action::ForwardCancel(checkpoint));
        }
    }

    fn answer_trigger(&mut self, now: Moment, since: Moment, barrier: Barrier) {
        let checkpoint = barrier.checkpoint;
        if self.channels > 0 && !self.checkpoints_after_tasks_finish {
            self.decline_new(checkpoint, DeclineReason::InputEndOfStream);
        } else if self.rise_to(checkpoint) {
            self.actions.push_back(Action::ForwardCancel(checkpoint));
        } else {
            self.actions.push_back(Action::Snapshot { barrier, aligned_for: now.since(since) });
        }
    }

    /// Gives up a checkpoint newer than all.
    fn decline_new(&mut self, checkpoint: CheckpointId, reason: DeclineReason) {
        if !self.rise_to(checkpoint) {
            self.actions.push_back(Action::Decline { checkpoint, reason });
        }
        self.actions.push_back(Action::ForwardCancel(checkpoint));
    }

    fn resume_all(&mut self) {
        let paused = mem::take(&mut self.paused);
        self.actions.extend(paused.into_iter().map(Action::Resume));
    }
}
