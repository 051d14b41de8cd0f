use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use cutwater_core::{Moment, SubtaskId, TaskId};

use super::layout::{Layout, LayoutError, Plan};
use super::panics::{WorkerPanic, adopt_thread, catch};
use super::seam::Core;
use super::worker::{Note, Seat, Wires};

/// How long a dropped [`Incarnation`] waits for its threads.
const GRACE: Duration = Duration::from_secs(1);

/// Why an [`Incarnation`] could not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The layout makes no sense.
    #[error("the layout of the tasks cannot be hosted")]
    Layout(#[from] LayoutError),
    /// The layout has a subtask for which no core was given.
    #[error("{subtask} has no core")]
    MissingCore {
        /// The subtask.
        subtask: SubtaskId,
    },
    /// There are two cores of one subtask, or one of a subtask that the layout does not have.
    #[error("{subtask} has a core too many")]
    ExcessCore {
        /// The subtask.
        subtask: SubtaskId,
    },
    /// The system gave no thread.
    #[error("could not start the thread of worker {worker}")]
    Spawn {
        /// The worker, from 0.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A worker panicked outside of [`Core::run`]. All workers have ended.
    #[error("the workers ended because of a bug in one of them")]
    Panicked(#[from] WorkerPanic),
    /// A worker did not end in time. A thread cannot be killed: it is left behind, and ends when it comes back from the
    /// call it is in. Whoever cannot have that ends the process.
    #[error("worker {worker} did not end in time; {}", stuck_in(*subtask))]
    Stuck {
        /// The first such worker.
        worker: usize,
        /// The subtask whose quantum it is in, if it is in one.
        subtask: Option<SubtaskId>,
    },
    /// A command for a subtask that does not exist, or whose worker has ended.
    #[error("{subtask} is not running")]
    NotRunning {
        /// The subtask.
        subtask: SubtaskId,
    },
}

fn stuck_in(subtask: Option<SubtaskId>) -> String {
    subtask.map_or_else(|| "it is in no subtask".to_owned(), |subtask| format!("{subtask} does not return"))
}

/// One run of a [`Layout`]: its threads. Dropping it aborts it and waits for the threads, for a second at most; to wait
/// longer, or to learn the outcome, use [`Self::join`].
#[derive(Debug)]
pub struct Incarnation {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Incarnation {
    /// Starts `workers` threads and on them the `cores`, one for each subtask of `layout`. Subtasks are spread evenly;
    /// if the parallelism of a task is a multiple of `workers`, each has the same number of its subtasks.
    ///
    /// `clock` is read often, on all threads. `on_panic` is called, at most once, on a worker's thread, when a worker
    /// panicked outside of [`Core::run`]; the others are told to stop before. What it says, [`Self::join`] says again.
    ///
    /// # Errors
    ///
    /// [`HostError::Layout`], [`HostError::MissingCore`], [`HostError::ExcessCore`] if the arguments do not fit together,
    /// [`HostError::Spawn`] if the system gave too few threads. Then nothing runs.
    pub fn start<C: Core>(
        layout: Layout,
        workers: NonZeroUsize,
        cores: Vec<C>,
        clock: impl Fn() -> Moment + Clone + Send + 'static,
        on_panic: impl Fn(WorkerPanic) + Send + Sync + 'static,
    ) -> Result<(Self, Handles<C::Command>), HostError> {
        let plan = Arc::new(Plan::new(&layout, workers)?);
        let shares = share(&plan, workers.get(), cores)?;
        let shared = Arc::new(Shared::new(workers.get(), Box::new(on_panic)));
        let mut incarnation = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(workers.get()) };
        let mut inboxes = Vec::with_capacity(workers.get());
        for (worker, (wires, cores)) in Wires::for_all(workers.get()).into_iter().zip(shares).enumerate() {
            let (sender, inbox) = channel();
            let (plan, clock) = (Arc::clone(&plan), clock.clone());
            let seat = Seat { worker, plan, shared: Arc::clone(&shared), clock, wires, inbox, cores };
            let thread = spawn(worker, seat).inspect_err(|_| shared.abort())?;
            inboxes.push((sender, thread.thread().clone()));
            incarnation.threads.push(thread);
        }
        Ok((incarnation, Handles { addresses: Arc::new(addresses(&plan)), inboxes }))
    }

    /// Tells all workers to stop, whatever their cores are at, and wakes them. Each stops after the quantum it is in.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// Whether all threads are past the last call of any core.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.ended().running.is_empty()
    }

    /// Waits until all workers have ended: after [`Self::abort`], or when all cores are done. Gives up after `deadline`.
    ///
    /// # Errors
    ///
    /// [`HostError::Stuck`] if a worker did not end in time; it has then been told to stop. [`HostError::Panicked`] if a
    /// worker panicked outside of [`Core::run`] before it was told to stop.
    pub fn join(mut self, deadline: Duration) -> Result<(), HostError> {
        self.wait(deadline)?;
        self.shared.ended().panic.take().map_or(Ok(()), |panic| Err(panic.into()))
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), HostError> {
        let threads = std::mem::take(&mut self.threads);
        let waited =
            self.shared.all_ended.wait_timeout_while(self.shared.ended(), deadline, |ended| ended.is_running());
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(&worker) = ended.running.first() {
            drop(ended);
            self.shared.abort();
            return Err(HostError::Stuck { worker, subtask: self.shared.quanta[worker].load() });
        }
        drop(ended);
        for thread in threads {
            // It has said that it is through; what it panicked about, if it did, it has reported.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.abort();
            // Nobody is left to tell: a thread that stays ends by itself as soon as it comes back.
            let _ = self.wait(GRACE);
        }
    }
}

/// Gives each worker its cores.
fn share<C: Core>(plan: &Plan, workers: usize, cores: Vec<C>) -> Result<Vec<BTreeMap<SubtaskId, C>>, HostError> {
    let mut all = BTreeMap::new();
    for core in cores {
        let subtask = core.subtask();
        if all.insert(subtask, core).is_some() {
            return Err(HostError::ExcessCore { subtask });
        }
    }
    let mut shares: Vec<_> = std::iter::repeat_with(BTreeMap::new).take(workers).collect();
    for (subtask, address) in addresses(plan) {
        let core = all.remove(&subtask).ok_or(HostError::MissingCore { subtask })?;
        shares[address.worker].insert(subtask, core);
    }
    match all.first_key_value() {
        Some((&subtask, _)) => Err(HostError::ExcessCore { subtask }),
        None => Ok(shares),
    }
}

fn spawn<C: Core>(
    worker: usize,
    seat: Seat<C, impl Fn() -> Moment + Clone + Send + 'static>,
) -> Result<JoinHandle<()>, HostError> {
    let shared = Arc::clone(&seat.shared);
    let work = move || {
        adopt_thread();
        shared.arrive();
        let outcome = catch(|| seat.run());
        let panic =
            outcome.err().map(|caught| WorkerPanic { worker, message: caught.message, location: caught.location });
        shared.depart(worker, panic);
    };
    let named = thread::Builder::new().name(format!("cutwater-{worker}"));
    named.spawn(work).map_err(|source| HostError::Spawn { worker, source })
}

/// Where a subtask is to be found.
#[derive(Clone, Copy, Debug)]
struct Address {
    worker: usize,
    operator: usize,
    slot: u32,
}

fn addresses(plan: &Plan) -> BTreeMap<SubtaskId, Address> {
    let of = |operator: usize| {
        let task = &plan.tasks[operator];
        let place = task.placement;
        (0..place.parallelism).map(move |index| {
            let slot = u32::try_from(place.slot(index)).expect("no more slots than subtasks");
            let id = SubtaskId { task: task.task, index };
            (id, Address { worker: place.worker(index), operator, slot })
        })
    };
    (0..plan.tasks.len()).flat_map(of).collect()
}

/// Sends commands to the subtasks of an incarnation, from any thread. Does not keep it alive.
pub struct Handles<M> {
    addresses: Arc<BTreeMap<SubtaskId, Address>>,
    inboxes: Vec<(Sender<Note<M>>, Thread)>,
}

impl<M> Handles<M> {
    /// Puts `command` into the queue of `subtask`, then wakes its worker. Never waits. A subtask that is done drops it.
    ///
    /// # Errors
    ///
    /// [`HostError::NotRunning`] if there is no such subtask, or its worker has ended.
    pub fn send(&self, subtask: SubtaskId, command: M) -> Result<(), HostError> {
        let Some(&Address { worker, operator, slot }) = self.addresses.get(&subtask) else {
            return Err(HostError::NotRunning { subtask });
        };
        let (inbox, thread) = &self.inboxes[worker];
        inbox.send(Note { operator, slot, command }).map_err(|_| HostError::NotRunning { subtask })?;
        // After the command is in: a worker that looks, finds nothing and sleeps is woken by this.
        thread.unpark();
        Ok(())
    }

    /// All subtasks, in order.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        self.addresses.keys().copied()
    }
}

impl<M> Clone for Handles<M> {
    fn clone(&self) -> Self {
        Self { addresses: Arc::clone(&self.addresses), inboxes: self.inboxes.clone() }
    }
}

impl<M> fmt::Debug for Handles<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Whether the workers are to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Requested,
    NotRequested,
}

/// What the workers of an incarnation and its owner share.
pub(super) struct Shared {
    stop: AtomicBool,
    quanta: Vec<Quantum>,
    ended: Mutex<Ended>,
    all_ended: Condvar,
    on_panic: Box<dyn Fn(WorkerPanic) + Send + Sync>,
}

struct Ended {
    /// The workers not yet through, ascending.
    running: Vec<usize>,
    /// Those to wake for an abort.
    threads: Vec<Thread>,
    panic: Option<WorkerPanic>,
}

impl Ended {
    fn is_running(&self) -> bool {
        !self.running.is_empty()
    }
}

/// Which subtask a worker is in. A cache line each, as each is written twice a quantum.
#[repr(align(64))]
struct Quantum(AtomicU64);

impl Quantum {
    /// No subtask: no task has that many.
    const NONE: u64 = u64::MAX;

    fn load(&self) -> Option<SubtaskId> {
        let packed = self.0.load(Ordering::Relaxed);
        let subtask = SubtaskId { task: TaskId((packed >> 32) as u32), index: packed as u32 };
        (packed != Self::NONE).then_some(subtask)
    }
}

impl Shared {
    fn new(workers: usize, on_panic: Box<dyn Fn(WorkerPanic) + Send + Sync>) -> Self {
        let ended = Ended { running: (0..workers).collect(), threads: Vec::new(), panic: None };
        let quanta = std::iter::repeat_with(|| Quantum(AtomicU64::new(Quantum::NONE))).take(workers).collect();
        Self { stop: AtomicBool::new(false), quanta, ended: Mutex::new(ended), all_ended: Condvar::new(), on_panic }
    }

    pub(super) fn stop(&self) -> Stop {
        if self.stop.load(Ordering::Acquire) { Stop::Requested } else { Stop::NotRequested }
    }

    /// Notes which subtask's quantum a worker enters, to name it should it never come back.
    pub(super) fn enter(&self, worker: usize, subtask: SubtaskId) {
        let packed = u64::from(subtask.task.0) << 32 | u64::from(subtask.index);
        self.quanta[worker].0.store(packed, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, worker: usize) {
        self.quanta[worker].0.store(Quantum::NONE, Ordering::Relaxed);
    }

    /// The lock; what it guards is consistent at every point where a thread could panic.
    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abort(&self) {
        // The flag before the lock: a worker not yet in the list will see the flag when it looks, before it sleeps.
        self.stop.store(true, Ordering::Release);
        for thread in &self.ended().threads {
            thread.unpark();
        }
    }

    fn arrive(&self) {
        self.ended().threads.push(thread::current());
    }

    /// A worker is through. A panic counts only if nobody had asked to stop: afterwards channels break, and Timely panics
    /// about that.
    fn depart(&self, worker: usize, panic: Option<WorkerPanic>) {
        let first = panic.filter(|_| !self.stop.swap(true, Ordering::AcqRel));
        if let Some(panic) = first {
            self.ended().panic = Some(panic.clone());
            self.abort();
            // A panic of the callback must not keep the worker from being counted below.
            if let Err(_unheard) = catch(|| (self.on_panic)(panic)) {}
        }
        let mut ended = self.ended();
        ended.running.retain(|&other| other != worker);
        ended.threads.retain(|thread| thread.id() != thread::current().id());
        if !ended.is_running() {
            self.all_ended.notify_all();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("stop", &self.stop).finish_non_exhaustive()
    }
}
