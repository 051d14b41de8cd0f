//! A task core on a host: performs its actions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use cutwater_coordinator::SubtaskSnapshot;
use cutwater_core::{Attempt, Barrier, ChannelId, CheckpointId, Moment, SubtaskId};
use cutwater_dataflow::Finish;
use cutwater_dataflow::exec::{Element, OperatorSnapshot};
use cutwater_task::{Action, Cause, Progress as TaskProgress, TaskCore, TaskError};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::host::{Core, Output, OutputChannel, Progress};
use crate::upload::{Applying, Upload, Uploader};

/// What the driver tells a subtask.
#[derive(Debug)]
pub(crate) enum Command {
    Trigger {
        barrier: Barrier,
        /// Whether a source reads nothing after it.
        hold: bool,
    },
    Drain,
    Abort(CheckpointId),
    Written {
        checkpoint: CheckpointId,
        bytes: u64,
    },
    Published(CheckpointId),
    /// Whether the tier below the tables has the snapshot.
    Applied {
        checkpoint: CheckpointId,
        applied: bool,
    },
    LastCut,
}

/// What a subtask tells the driver.
pub(crate) enum Report {
    Acked {
        attempt: Attempt,
        checkpoint: CheckpointId,
        snapshot: Box<SubtaskSnapshot>,
        cut_at: Moment,
    },
    Swept {
        attempt: Attempt,
        checkpoint: CheckpointId,
        subtask: SubtaskId,
    },
    Declined {
        attempt: Attempt,
        checkpoint: CheckpointId,
        subtask: SubtaskId,
        reason: String,
        counted: bool,
    },
    EndOfData {
        attempt: Attempt,
        subtask: SubtaskId,
    },
    LastCut {
        attempt: Attempt,
        subtask: SubtaskId,
        handles: Vec<OperatorSnapshot>,
        finish: Vec<Finish>,
    },
    Failed {
        attempt: Attempt,
        error: Box<TaskError>,
    },
    /// Names of files that were, or may have been, stored in vain.
    Litter(Vec<String>),
    /// No upload was under way, and what they had to tell was told.
    AllStored,
}

/// Counters of one subtask that others may read at any time.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) records: AtomicU64,
    pub(crate) watermark: AtomicI64,
    /// Nanoseconds of the attempt so far.
    pub(crate) busy: AtomicU64,
    pub(crate) backpressured: AtomicU64,
    pub(crate) idle: AtomicU64,
}

pub(crate) struct Hosted {
    pub(crate) core: TaskCore,
    pub(crate) attempt: Attempt,
    pub(crate) reports: UnboundedSender<Report>,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) upload: Option<Upload>,
    /// When to look at the wall clock again.
    pub(crate) wall_at: Moment,
    /// When the last quantum ended, and whether for want of credit.
    pub(crate) rested: Option<(Moment, bool)>,
}

/// How often a subtask at work looks at the wall clock, which may be set while it runs.
const WALL_EVERY: Duration = Duration::from_secs(1);

impl Hosted {
    fn report(&self, report: Report) {
        // A driver that is gone needs no reports.
        drop(self.reports.send(report));
    }

    fn perform(&mut self, out: &mut Vec<Output<Element>>) {
        let (attempt, subtask) = (self.attempt, self.core.subtask());
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { output, element } => {
                    let output = OutputChannel { edge: output.edge, to: output.to };
                    out.push(Output::Send { output, element });
                }
                Action::Credit { channel, bytes } => out.push(Output::Credit { channel, bytes }),
                Action::SnapshotBegun { barrier, base, states, cold, cut_at, aligned_for } => {
                    let reports = self.reports.clone();
                    let uploader = &self.uploader;
                    let tier = self.core.tier().map(|attached| &attached.tier);
                    let tier = tier.map(|tier| Applying::new(uploader, subtask, barrier, tier, cold));
                    let upload =
                        Upload::new(uploader, subtask, barrier, base, states, tier, cut_at, aligned_for, reports);
                    self.upload = Some(upload);
                }
                Action::Block { block, .. } => {
                    if let Some(upload) = &mut self.upload {
                        upload.block(block);
                    }
                }
                Action::SnapshotComplete { checkpoint, inline, finish } => {
                    // With a tier below only once that has it: until then there can't be another.
                    if self.uploader.overlapping && self.core.tier().is_none() {
                        self.report(Report::Swept { attempt, checkpoint, subtask });
                    }
                    if let Some(upload) = self.upload.take() {
                        upload.complete(inline, finish);
                    }
                }
                Action::SnapshotDropped { .. } => self.upload = None,
                Action::Decline { checkpoint, reason, counted } => {
                    self.report(Report::Declined { attempt, checkpoint, subtask, reason, counted });
                }
                Action::EndOfData => self.report(Report::EndOfData { attempt, subtask }),
                Action::LastCut { handles, finish } => {
                    self.report(Report::LastCut { attempt, subtask, handles, finish });
                }
            }
        }
    }

    /// Notes how the time since the last quantum was spent, and the quantum that began `then`.
    fn measure(&mut self, then: Moment) {
        let now = self.uploader.clock.now();
        let gauges = &self.gauges;
        let add = |gauge: &AtomicU64, nanos: u64| gauge.store(gauge.load(Ordering::Relaxed) + nanos, Ordering::Relaxed);
        if let Some((rested, for_credit)) = self.rested {
            let rest = then.0.saturating_sub(rested.0);
            add(if for_credit { &gauges.backpressured } else { &gauges.idle }, rest);
        }
        add(&gauges.busy, now.0.saturating_sub(then.0));
        self.rested = Some((now, self.core.is_backpressured() || self.core.is_crowded()));
        gauges.records.store(self.core.records(), Ordering::Relaxed);
        gauges.watermark.store(self.core.watermark().0, Ordering::Relaxed);
    }

    fn fail(&self, error: TaskError) {
        self.report(Report::Failed { attempt: self.attempt, error: Box::new(error) });
    }
}

impl Core for Hosted {
    type Element = Element;
    type Command = Command;

    fn subtask(&self) -> SubtaskId {
        self.core.subtask()
    }

    fn handle_element(&mut self, now: Moment, channel: ChannelId, element: Element) {
        self.core.handle_element(now, channel, element);
    }

    fn handle_credit(&mut self, output: OutputChannel, bytes: u64) {
        let output = cutwater_dataflow::exec::OutputChannel { edge: output.edge, to: output.to };
        self.core.handle_credit(output, bytes);
    }

    fn handle_command(&mut self, now: Moment, command: Command) {
        match command {
            Command::Trigger { barrier, hold } => {
                if hold {
                    self.core.handle_hold(barrier.checkpoint);
                }
                self.core.handle_trigger(now, barrier);
            }
            Command::Drain => self.core.handle_drain(),
            Command::Abort(checkpoint) => self.core.handle_abort(checkpoint),
            Command::Written { checkpoint, bytes } => self.core.handle_written(checkpoint, bytes),
            Command::Published(checkpoint) => self.core.handle_published(checkpoint),
            Command::Applied { checkpoint, applied } => {
                self.core.handle_applied(checkpoint, applied);
                if applied && self.uploader.overlapping {
                    self.report(Report::Swept { attempt: self.attempt, checkpoint, subtask: self.core.subtask() });
                }
            }
            Command::LastCut => self.core.handle_last_cut(),
        }
    }

    fn run(&mut self, now: Moment, out: &mut Vec<Output<Element>>) -> Progress {
        if self.wall_at <= now {
            self.core.set_wall_clock(now, Clock::unix_ms());
            self.wall_at = now + WALL_EVERY;
        }
        let progress = self.core.run(now);
        self.perform(out);
        self.measure(now);
        match progress {
            Ok(TaskProgress::Busy) => Progress::Busy,
            Ok(TaskProgress::Idle) => Progress::Idle,
            Err(error) => {
                self.fail(error);
                Progress::Done
            }
        }
    }

    fn is_amid(&self) -> bool {
        self.core.is_amid()
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.core.next_deadline()
    }

    fn panicked(&mut self, message: String, location: Option<String>) {
        self.fail(self.core.fault(Cause::Panic { message, at: location }));
    }
}
