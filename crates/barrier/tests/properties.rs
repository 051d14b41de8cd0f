//! What holds whatever the schedule, checked against a small model of a subtask that consumes scripted channels.

use std::collections::BTreeSet;

use cutwater_barrier::{Action, Aligner, MAX_PENDING, Mode, Violation};
use cutwater_core::{Attempt, Barrier, ChannelId, CheckpointId, Epoch, Moment, SnapshotForm};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Record,
    Barrier(u64),
    Cancel(u64),
    End,
}

/// What happens next: some channel is read, or the coordinator says something.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize),
    Abort(u64),
    Trigger(u64),
}

fn barrier(checkpoint: u64) -> Barrier {
    let base = checkpoint.checked_sub(1).filter(|&base| base > 0).map(CheckpointId);
    Barrier {
        epoch: Epoch(1),
        attempt: Attempt(1),
        checkpoint: CheckpointId(checkpoint),
        base,
        form: SnapshotForm::Configured,
    }
}

fn id(channel: usize) -> ChannelId {
    ChannelId(u32::try_from(channel).expect("a few channels"))
}

/// A subtask that does what its aligner says, and checks that it may.
struct Subtask {
    mode: Mode,
    aligner: Aligner,
    scripts: Vec<Vec<Element>>,
    /// How many elements of each channel have been consumed.
    consumed: Vec<usize>,
    paused: BTreeSet<usize>,
    /// The channel that was read last.
    reading: usize,
    now: u64,
    /// The largest number that a barrier or marker has named, in or out.
    newest: u64,
    /// Checkpoints that were news when a barrier named them.
    begun: BTreeSet<u64>,
    aborted: BTreeSet<u64>,
    snapshots: Vec<u64>,
    declined: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
}

impl Subtask {
    fn new(mode: Mode, after_finish: bool, scripts: Vec<Vec<Element>>) -> Self {
        let channels = u32::try_from(scripts.len()).expect("a few channels");
        Self {
            mode,
            aligner: Aligner::new(mode, channels, after_finish),
            consumed: vec![0; scripts.len()],
            scripts,
            paused: BTreeSet::new(),
            reading: 0,
            now: 0,
            newest: 0,
            begun: BTreeSet::new(),
            aborted: BTreeSet::new(),
            snapshots: Vec::new(),
            declined: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    fn readable(&self) -> Vec<usize> {
        let left = |channel: &usize| self.consumed[*channel] < self.scripts[*channel].len();
        (0..self.scripts.len()).filter(|channel| !self.paused.contains(channel)).filter(left).collect()
    }

    fn last_consumed(&self, channel: usize) -> Option<Element> {
        self.consumed[channel].checked_sub(1).map(|at| self.scripts[channel][at])
    }

    /// Follows the schedule, then reads on in turn until nothing can be read.
    fn run(&mut self, schedule: &[Step]) -> Result<(), TestCaseError> {
        for &step in schedule {
            self.step(step)?;
        }
        while !self.readable().is_empty() {
            self.step(Step::Read(0))?;
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.now += 1;
        let now = Moment(self.now);
        match step {
            Step::Read(pick) => self.read(now, pick)?,
            Step::Abort(checkpoint) => {
                if !self.snapshots.contains(&checkpoint) {
                    self.aborted.insert(checkpoint);
                }
                self.aligner.handle_abort(CheckpointId(checkpoint));
            }
            Step::Trigger(checkpoint) => self.aligner.handle_trigger(now, barrier(checkpoint)),
        }
        self.perform()
    }

    fn read(&mut self, now: Moment, pick: usize) -> Result<(), TestCaseError> {
        let readable = self.readable();
        let Some(&channel) = readable.get(pick % readable.len().max(1)) else { return Ok(()) };
        let element = self.scripts[channel][self.consumed[channel]];
        self.consumed[channel] += 1;
        self.reading = channel;
        let result = match element {
            Element::Record => Ok(()),
            Element::Barrier(checkpoint) => {
                if checkpoint > self.newest {
                    self.newest = checkpoint;
                    self.begun.insert(checkpoint);
                }
                self.aligner.handle_barrier(now, id(channel), barrier(checkpoint))
            }
            Element::Cancel(checkpoint) => {
                self.newest = self.newest.max(checkpoint);
                self.aligner.handle_cancel(now, id(channel), CheckpointId(checkpoint))
            }
            Element::End => self.aligner.handle_end(now, id(channel)),
        };
        prop_assert_eq!(result, Ok(()), "well-behaved channels break no rule");
        Ok(())
    }

    fn perform(&mut self) -> Result<(), TestCaseError> {
        let (mut answers, mut markers, mut reads) = (0, 0, 0);
        while let Some(action) = self.aligner.poll_action() {
            match action {
                Action::Pause(channel) => {
                    reads += 1;
                    prop_assert_eq!(self.mode, Mode::ExactlyOnce, "only exactly-once pauses");
                    prop_assert!(self.paused.insert(channel.0 as usize), "{} is paused already", channel);
                }
                Action::Resume(channel) => {
                    reads += 1;
                    prop_assert!(self.paused.remove(&(channel.0 as usize)), "{} is not paused", channel);
                }
                Action::Snapshot { barrier: sent, .. } => {
                    answers += 1;
                    prop_assert_eq!(sent, barrier(sent.checkpoint.0));
                    self.snapshot(sent.checkpoint.0)?;
                }
                Action::Decline { checkpoint, .. } => {
                    answers += 1;
                    prop_assert!(self.declined.insert(checkpoint.0), "{} is declined twice", checkpoint);
                    prop_assert!(!self.snapshots.contains(&checkpoint.0), "{} is declined after all", checkpoint);
                }
                Action::ForwardCancel(checkpoint) => {
                    markers += 1;
                    self.newest = self.newest.max(checkpoint.0);
                    prop_assert!(self.cancelled.insert(checkpoint.0), "{} is cancelled twice", checkpoint);
                    prop_assert!(!self.snapshots.contains(&checkpoint.0), "{} is cancelled after all", checkpoint);
                }
            }
        }
        prop_assert!(answers <= 2 * MAX_PENDING + 1 && markers <= 2 * MAX_PENDING + 1 && reads <= self.scripts.len());
        for channel in 0..self.scripts.len() {
            prop_assert_eq!(self.aligner.is_paused(id(channel)), self.paused.contains(&channel));
        }
        if self.aligner.aligning().is_none() {
            prop_assert!(self.paused.is_empty(), "nothing is aligned, {:?} are paused", &self.paused);
        }
        Ok(())
    }

    /// The cut must be where the barriers are: the whole claim of the crate.
    fn snapshot(&mut self, checkpoint: u64) -> Result<(), TestCaseError> {
        prop_assert!(self.snapshots.last() < Some(&checkpoint), "{} after {:?}", checkpoint, self.snapshots.last());
        prop_assert!(!self.aborted.contains(&checkpoint), "{} was aborted", checkpoint);
        prop_assert!(!self.declined.contains(&checkpoint) && !self.cancelled.contains(&checkpoint));
        for channel in 0..self.scripts.len() {
            let last = self.last_consumed(channel);
            let seen = self.scripts[channel][..self.consumed[channel]].contains(&Element::Barrier(checkpoint));
            let at_the_cut = last == Some(Element::Barrier(checkpoint));
            let reported = if self.mode == Mode::ExactlyOnce { at_the_cut } else { seen };
            prop_assert!(
                reported || last == Some(Element::End),
                "{}: channel {} is at {:?}",
                checkpoint,
                channel,
                last
            );
            let held = self.paused.contains(&channel) || channel == self.reading || last == Some(Element::End);
            prop_assert!(held || self.mode == Mode::AtLeastOnce, "channel {} resumed before the snapshot", channel);
        }
        self.snapshots.push(checkpoint);
        Ok(())
    }
}

/// For each checkpoint: how many records come first, and what then becomes of it on this channel.
fn any_script(most_checkpoints: usize) -> impl Strategy<Value = Vec<Element>> {
    vec((0..3usize, 0..8u8), 0..=most_checkpoints).prop_map(|plan| {
        let mut script = Vec::new();
        for (checkpoint, (records, kind)) in (1..).zip(plan) {
            script.extend([Element::Record].repeat(records));
            match kind {
                0 => script.push(Element::Cancel(checkpoint)),
                1 => {} // skipped without a word
                _ => script.push(Element::Barrier(checkpoint)),
            }
        }
        script.extend([Element::Record, Element::End]);
        script
    })
}

/// All barriers from 1 to the number of gaps, with so many records in each gap.
fn clean_script(gaps: &[usize], end: bool) -> Vec<Element> {
    let mut script = Vec::new();
    for (checkpoint, &records) in (1..).zip(gaps) {
        script.extend([Element::Record].repeat(records));
        script.push(Element::Barrier(checkpoint));
    }
    script.push(Element::Record);
    script.extend(end.then_some(Element::End));
    script
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..8usize).prop_map(Step::Read),
        1 => (1..9u64).prop_map(Step::Abort),
        1 => (1..9u64).prop_map(Step::Trigger),
    ]
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::ExactlyOnce), Just(Mode::AtLeastOnce)]
}

proptest! {
    /// Checkpoints that upstream cancels or leaves out, aborts and triggers at any time, channels that end anywhere.
    #[test]
    fn whatever_the_schedule_the_cut_is_at_the_barriers(
        mode in any_mode(),
        after_finish in any::<bool>(),
        scripts in vec(any_script(8), 1..5),
        schedule in vec(any_step(), 0..80),
    ) {
        let mut subtask = Subtask::new(mode, after_finish, scripts);
        subtask.run(&schedule)?;
        for (channel, script) in subtask.scripts.iter().enumerate() {
            prop_assert_eq!(subtask.consumed[channel], script.len(), "channel {} is stuck", channel);
        }
        prop_assert_eq!(subtask.aligner.open_channels(), 0);
        prop_assert_eq!(subtask.aligner.aligning(), None);
        for &checkpoint in &subtask.begun {
            let taken = subtask.snapshots.contains(&checkpoint);
            let given_up = subtask.cancelled.contains(&checkpoint);
            prop_assert!(!(taken && given_up));
            let overtaken = mode == Mode::AtLeastOnce && checkpoint < subtask.newest;
            prop_assert!(taken || given_up || overtaken, "nothing became of {}", checkpoint);
        }
        // What downstream is told to forget, the coordinator knows.
        for checkpoint in &subtask.cancelled {
            prop_assert!(subtask.declined.contains(checkpoint) || subtask.aborted.contains(checkpoint));
        }
    }

    /// With nobody giving anything up, every checkpoint that any channel carries is snapshot, wherever channels end.
    #[test]
    fn exactly_once_snapshots_every_checkpoint_of_well_behaved_channels(
        gaps in vec(vec(0..3usize, 0..8), 1..5),
        schedule in vec((0..8usize).prop_map(Step::Read), 0..80),
    ) {
        let scripts = gaps.iter().map(|gaps| clean_script(gaps, true)).collect();
        let mut subtask = Subtask::new(Mode::ExactlyOnce, true, scripts);
        subtask.run(&schedule)?;
        let most = gaps.iter().map(Vec::len).max().unwrap_or(0) as u64;
        prop_assert_eq!(subtask.snapshots, (1..=most).collect::<Vec<_>>());
        prop_assert!(subtask.declined.is_empty() && subtask.cancelled.is_empty());
    }

    /// The same where nothing ends, in both modes; up to as many checkpoints behind as at-least-once can count.
    #[test]
    fn every_checkpoint_of_endless_channels_is_snapshot(
        mode in any_mode(),
        gaps in (1..5usize, 0..=MAX_PENDING).prop_flat_map(|(channels, n)| vec(vec(0..2usize, n), channels)),
        schedule in vec((0..8usize).prop_map(Step::Read), 0..200),
    ) {
        let scripts = gaps.iter().map(|gaps| clean_script(gaps, false)).collect();
        let mut subtask = Subtask::new(mode, true, scripts);
        subtask.run(&schedule)?;
        prop_assert_eq!(subtask.snapshots, (1..=gaps[0].len() as u64).collect::<Vec<_>>());
        prop_assert!(subtask.declined.is_empty() && subtask.cancelled.is_empty());
    }

    /// Callers and peers that obey nothing: no panic, an error changes nothing, and the promises on actions hold.
    #[test]
    fn nonsense_does_no_harm(
        mode in any_mode(),
        after_finish in any::<bool>(),
        channels in 0..4u32,
        inputs in vec((0..10u8, 0..5u32, 0..6u64, any::<bool>()), 0..60),
    ) {
        let mut aligner = Aligner::new(mode, channels, after_finish);
        let mut paused = BTreeSet::new();
        let mut last = None;
        for (now, (kind, channel, checkpoint, odd)) in (0..).zip(inputs) {
            let before = aligner.clone();
            let (now, channel) = (Moment(now), ChannelId(channel));
            let sent = Barrier { epoch: Epoch(1 + u64::from(odd)), ..barrier(checkpoint) };
            let checkpoint = CheckpointId(if checkpoint == 5 { u64::MAX } else { checkpoint });
            let sent = Barrier { checkpoint, ..sent };
            let result: Result<(), Violation> = match kind {
                0..=5 => aligner.handle_barrier(now, channel, sent),
                6 => aligner.handle_cancel(now, channel, checkpoint),
                7 => aligner.handle_end(now, channel),
                8 => { aligner.handle_trigger(now, sent); Ok(()) }
                _ => { aligner.handle_abort(checkpoint); Ok(()) }
            };
            if result.is_err() {
                prop_assert_eq!(&aligner, &before);
            }
            while let Some(action) = aligner.poll_action() {
                match action {
                    Action::Pause(channel) => prop_assert!(mode == Mode::ExactlyOnce && paused.insert(channel)),
                    Action::Resume(channel) => prop_assert!(paused.remove(&channel)),
                    Action::Snapshot { barrier, .. } => {
                        prop_assert!(last < Some(barrier.checkpoint));
                        last = Some(barrier.checkpoint);
                    }
                    Action::Decline { .. } | Action::ForwardCancel(_) => {}
                }
            }
            prop_assert!(aligner.aligning().is_some() || paused.is_empty());
            prop_assert!(paused.is_empty() || (paused.len() as u32) < aligner.open_channels());
        }
    }
}
