//! Starts an attempt: publishes what the restored checkpoint names, builds the subtasks, starts their threads.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use cutwater_core::{Attempt, CheckpointId, Epoch, MaxParallelism, Moment, OperatorUid, SubtaskId, TaskId};
use cutwater_dataflow::exec::OperatorSnapshot;
use cutwater_dataflow::{CommitContext, CommitOutcome, Committer, EdgeSpec, JobGraph};
use cutwater_task::{Cause, TaskError};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::driver::Event;
use crate::error::{Failure, RestoreError};
use crate::host::{EdgeLayout, Handles, Incarnation, Layout, TaskLayout};
use crate::hosted::{Command, Gauges, Hosted, Report};
use crate::job::Options;
use crate::restore::{self, Build, Fetched, RestorePoint};
use crate::status::Shared;
use crate::upload::{Uploader, chain};

/// How often a commit whose result is unknown is tried again before the attempt fails.
const COMMIT_TRIES: u32 = 5;

pub(crate) type Committers = BTreeMap<OperatorUid, Box<dyn Committer>>;

/// An attempt whose threads run.
pub(crate) struct Started {
    pub(crate) incarnation: Incarnation,
    pub(crate) handles: Handles<Command>,
    pub(crate) committers: Committers,
    pub(crate) gauges: BTreeMap<SubtaskId, Arc<Gauges>>,
    /// How long it took to build and fill each subtask, in order.
    pub(crate) took: Vec<Duration>,
}

/// What it takes to start an attempt, on a thread that may block.
pub(crate) struct Start {
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) options: Options,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) point: Option<RestorePoint>,
    /// Output that the checkpoint names.
    pub(crate) handles: Vec<OperatorSnapshot>,
    pub(crate) foreign: bool,
    pub(crate) reports: UnboundedSender<Report>,
    pub(crate) events: UnboundedSender<Event>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) uploader: Arc<Uploader>,
}

impl Start {
    pub(crate) fn run(self) -> Result<Started, Failure> {
        let parallelism = self.options.parallelism.get();
        if let Some(point) = &self.point {
            let failed = |source| Failure::Restore { checkpoint: point.checkpoint.checkpoint, source };
            restore::check(&self.graph, point, parallelism, &self.options.ignore_unclaimed).map_err(failed)?;
            let found = point.checkpoint.max_parallelism;
            if self.max_parallelism != found {
                let (found, asked) = (found.count(), self.max_parallelism.count());
                return Err(failed(RestoreError::MaxParallelism { found, asked }));
            }
        }
        let fetched = Fetched::default();
        let mut build = Build {
            graph: &self.graph,
            parallelism,
            max_parallelism: self.max_parallelism,
            epoch: self.epoch,
            attempt: self.attempt,
            settings: &self.options.task,
            backend: &*self.options.backend,
            restore: self.point.as_ref(),
            local: self.uploader.local.as_deref(),
            fetched: &fetched,
            progress: None,
            ignored: &self.options.ignore_unclaimed,
            foreign: self.foreign,
            chains: &self.uploader.chains,
            natives: &self.uploader.natives,
            clock: self.clock,
        };
        // The claim is ours: what writers of a killed process left half done is nobody's any more.
        if self.attempt == Attempt(1)
            && let Err(error) = self.uploader.store.sweep_leftovers("")
        {
            tracing::warn!(job = self.graph.name(), "could not clean up after a killed run: {}", chain(&error));
        }
        if let (Attempt(1), Some(local)) = (self.attempt, &self.uploader.local) {
            local.sweep();
        }
        let mut committers = self.committers()?;
        // First publish what the checkpoint names, then clean up: what it names lies among the leftovers.
        if let Some(point) = &self.point {
            let checkpoint = point.checkpoint.checkpoint;
            for handle in &self.handles {
                match commit(&mut committers, checkpoint, std::slice::from_ref(handle)) {
                    // Output of a checkpoint from another folder may have been published, and moved, by its own job.
                    // Nor is there anybody to publish that of a sink which the job has not any more.
                    Err(Failure::Commit { operator, reason, lost: true, .. })
                        if self.foreign || !committers.contains_key(&operator) =>
                    {
                        tracing::warn!(job = self.graph.name(), %operator, "output of checkpoint {checkpoint}: {reason}");
                    }
                    committed => committed?,
                }
            }
        }
        for (operator, committer) in &mut committers {
            committer.sweep().map_err(|error| self.failed(operator, error))?;
        }
        let progress = self.point.as_ref().map(|point| Arc::new(build.expected(point, self.shared.now())));
        self.shared.watch_restore(progress.clone());
        build.progress = progress.as_deref();
        let built = build.all();
        progress.iter().for_each(|progress| progress.end(self.shared.now()));
        let (cores, took) = built?;
        let mut gauges = BTreeMap::new();
        let hosted = cores.into_iter().map(|core| {
            let own = Arc::new(Gauges { watermark: AtomicI64::new(i64::MIN), ..Gauges::default() });
            gauges.insert(core.subtask(), Arc::clone(&own));
            let (reports, uploader) = (self.reports.clone(), Arc::clone(&self.uploader));
            Hosted {
                core,
                attempt: self.attempt,
                reports,
                uploader,
                gauges: own,
                upload: None,
                wall_at: Moment::ZERO,
                rested: None,
            }
        });
        let hosted: Vec<_> = hosted.collect();
        let clock = self.clock;
        let (events, attempt) = (self.events.clone(), self.attempt);
        let (incarnation, handles) = Incarnation::start(
            self.layout(),
            self.workers(),
            hosted,
            move || clock.now(),
            move |panic| drop(events.send(Event::HostPanicked(attempt, Failure::Host(panic.into())))),
        )?;
        drop(self.uploader.handles.set(handles.clone()));
        Ok(Started { incarnation, handles, committers, gauges, took })
    }

    fn failed(&self, operator: &OperatorUid, error: cutwater_dataflow::UserError) -> Failure {
        let mut tasks = self.graph.tasks().iter();
        let task = tasks.find(|task| task.uids().any(|uid| uid == operator)).map_or(TaskId(0), |task| task.task);
        Failure::Task(TaskError {
            subtask: SubtaskId { task, index: 0 },
            operator: operator.to_string(),
            position: None,
            cause: Cause::User(error),
        })
    }

    fn committers(&self) -> Result<Committers, Failure> {
        let mut committers = Committers::new();
        for (operator, make) in self.graph.tasks().iter().flat_map(|task| &task.committers) {
            let committer = make(&CommitContext {
                job: self.graph.name().to_owned(),
                operator: operator.clone(),
                epoch: self.epoch,
                attempt: self.attempt,
            });
            committers.insert(operator.clone(), committer.map_err(|error| self.failed(operator, error))?);
        }
        Ok(committers)
    }

    /// As many workers as there is work for, up to the cores of the machine.
    fn workers(&self) -> NonZeroUsize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let wanted = NonZeroUsize::try_from(self.options.parallelism).unwrap_or(NonZeroUsize::MIN);
        self.options.workers.unwrap_or_else(|| wanted.min(cores))
    }

    fn layout(&self) -> Layout {
        let parallelism = self.options.parallelism.get();
        let tasks = self.graph.tasks();
        Layout {
            tasks: tasks
                .iter()
                .map(|task| TaskLayout {
                    task: task.task,
                    parallelism: task.parallelism(parallelism),
                    inputs: task.inputs.iter().map(|input| input.edge).collect(),
                    outputs: task.outputs.iter().map(|output| output.edge).collect(),
                })
                .collect(),
            edges: self
                .graph
                .edges()
                .iter()
                .map(|&EdgeSpec { edge, from, to }| EdgeLayout { edge, from, to })
                .collect(),
        }
    }
}

/// Publishes handles. An unknown result is tried again: committing is idempotent, and only an answer settles it.
pub(crate) fn commit(
    committers: &mut Committers,
    checkpoint: CheckpointId,
    handles: &[OperatorSnapshot],
) -> Result<(), Failure> {
    for handle in handles {
        let failed =
            |reason: String, lost| Failure::Commit { operator: handle.operator.clone(), checkpoint, reason, lost };
        let Some(committer) = committers.get_mut(&handle.operator) else {
            return Err(failed("the job has no such sink any more".to_owned(), true));
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match committer.commit(&handle.payload) {
                CommitOutcome::Committed | CommitOutcome::Already => break,
                CommitOutcome::Lost(error) => return Err(failed(error.to_string(), true)),
                CommitOutcome::Unknown(error) if tries >= COMMIT_TRIES => {
                    return Err(failed(format!("{error} (tried {tries} times)"), false));
                }
                CommitOutcome::Unknown(_) => {}
            }
        }
    }
    Ok(())
}
