//! What code deep inside a world (hooks of the disk, user code) shares with the world.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_dataflow::UserError;

use crate::choices::Choices;
use crate::config::Rates;
use crate::marks::{Mark, Marks};

/// Numbers the processes of a world in the order of their starts.
pub(crate) type ProcessId = u32;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, such as `OUT` or `CUT`: the invariants of [`crate::Rule`].
    pub rule: Rule,
    /// What was seen.
    pub detail: String,
}

/// What must hold in every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Rule {
    /// Every completed checkpoint is a consistent cut: by what was sent and received on each channel, and by meaning.
    Cut,
    /// Committed output is that of a run without failures, and at the end all of it.
    Out,
    /// What is published is named by a checkpoint that is durable at that instant; what is durable is not lost.
    Commit,
    /// Nobody who was replaced appends to the log.
    Fence,
    /// Numbers of checkpoints and epochs rise; what is restored is the newest.
    Mono,
    /// No file or record that a retained checkpoint needs is gone.
    Ref,
    /// What nobody refers to is deleted in the end.
    Orphan,
    /// Queues stay within their bounds.
    Bound,
    /// Once the faults stop, the job comes to its end.
    Live,
    /// The cores keep their own contracts: no violation of the barrier protocol, no action out of turn, no error that
    /// no fault explains.
    Contract,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) choices: Choices,
    pub(crate) marks: Marks,
    pub(crate) rates: Rates,
    pub(crate) exactly_once: bool,
    /// Processes that were killed and that the world has yet to clear away: all they still try fails.
    pub(crate) killed: BTreeSet<ProcessId>,
    pub(crate) power_lost: bool,
    pub(crate) violation: Option<Violation>,
    /// What happened to files since the world looked last.
    pub(crate) disk_events: Vec<DiskEvent>,
}

/// Something that happened to a file of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskEvent {
    /// A file got its final name.
    Published { path: std::path::PathBuf },
    /// A temporary file was made.
    Created { path: std::path::PathBuf, process: ProcessId },
    /// A temporary name was removed.
    Removed { path: std::path::PathBuf },
    /// It could not be removed, and its owner may leave it at that.
    Kept { path: std::path::PathBuf },
}

#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<Shared>>);

impl Handle {
    pub(crate) fn new(choices: Choices, rates: Rates, exactly_once: bool) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            choices,
            marks: Marks::default(),
            rates,
            exactly_once,
            killed: BTreeSet::new(),
            power_lost: false,
            violation: None,
            disk_events: Vec::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hit(&self, mark: Mark) {
        self.lock().marks.hit(mark);
    }

    /// Asks before a named step of a process that changes the disk or the store: it may fail, and the process may die.
    pub(crate) fn step(&self, process: ProcessId, step: &'static str) -> io::Result<()> {
        let mut shared = self.lock();
        if shared.killed.contains(&process) {
            return Err(dead());
        }
        shared.marks.step(step);
        let Rates { kill_at_step, power_loss_at_step, disk_error, .. } = shared.rates;
        match shared.choices.fault(&[kill_at_step, power_loss_at_step, disk_error]) {
            0 => return Ok(()),
            1 => shared.marks.fault("kill_at_step"),
            2 => {
                shared.power_lost = true;
                shared.marks.fault("power_loss_at_step");
            }
            _ => {
                shared.marks.fault("disk_error");
                shared.marks.hit(Mark::DiskError);
                return Err(io::Error::other("the disk fails this step"));
            }
        }
        shared.killed.insert(process);
        shared.marks.died_at(step);
        shared.marks.hit(Mark::KilledAtStep);
        Err(dead())
    }

    pub(crate) fn is_dead(&self, process: ProcessId) -> bool {
        let shared = self.lock();
        shared.power_lost || shared.killed.contains(&process)
    }

    /// Notes that a rule was broken; the first one counts.
    pub(crate) fn violated(&self, rule: Rule, detail: impl FnOnce() -> String) {
        let mut shared = self.lock();
        if shared.violation.is_none() {
            shared.violation = Some(Violation { rule, detail: detail() });
        }
    }
}

pub(crate) fn dead() -> io::Error {
    io::Error::other("the process was killed")
}

/// What user code of a generated job knows of the world.
#[derive(Clone)]
pub(crate) struct Probe {
    shared: Handle,
    fails: bool,
}

impl Probe {
    pub(crate) fn new(shared: &Handle) -> Self {
        let fails = shared.lock().rates.user_error > 0;
        Self { shared: shared.clone(), fails }
    }

    /// An error now and then.
    pub(crate) fn may_fail(&self) -> Result<(), UserError> {
        if self.fails {
            let mut shared = self.shared.lock();
            let rate = shared.rates.user_error;
            if shared.choices.strikes(rate) {
                shared.marks.fault("user_error");
                return Err("user code fails, as the seed wants it".into());
            }
        }
        Ok(())
    }

    /// Something that must be so unless records may come twice.
    pub(crate) fn expect_in_order(&self, holds: bool, detail: impl FnOnce() -> String) {
        if !holds && self.shared.lock().exactly_once {
            self.shared.violated(Rule::Cut, || format!("an operator met {}", detail()));
        }
    }
}
