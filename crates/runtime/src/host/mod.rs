//! Hosts subtasks on Timely: own threads, channels between subtasks, credits, commands, abort, start again.
//!
//! The seam between what a subtask *means* and what it *runs on*. A subtask is a [`Core`]: a state machine that takes
//! elements, credits and commands, runs one bounded quantum at a time and says what to send. The host knows nothing of
//! batches, watermarks or barriers; a core knows nothing of threads. No type of Timely leaves this module.
//!
//! An [`Incarnation`] is one run of all cores of a [`Layout`] on some worker threads of this process. It ends when all
//! cores are done, or is aborted; then the next one can start in the same process, within a fraction of a millisecond.
//!
//! - Elements between one sender and one receiver arrive in the order sent. No order is promised between senders.
//! - A core pulls: all that has arrived is handed over before its next quantum, so an element that matters (a barrier)
//!   is seen at once. The queues between workers are unbounded; cores bound them with credits, which the host carries.
//! - A panic out of [`Core::run`] is reported to that core and stops it alone. A panic anywhere else on a worker is a bug
//!   of ours and ends the incarnation. Panics on worker threads are not printed.
//! - Idle workers sleep: they wake for an element, a credit, a command or a deadline, and twice a second to look.
//! - Threads are named `cutwater-0`, `cutwater-1` and so on, and are gone after [`Incarnation::join`].
//!
//! Why not `timely::execute`: there a panic in one thread leaves the others running and makes joining hang.

mod envelope;
mod incarnation;
mod layout;
mod operator;
mod panics;
mod seam;
mod worker;

pub use incarnation::{Handles, HostError, Incarnation};
pub use layout::{EdgeLayout, Layout, LayoutError, TaskLayout};
pub use panics::WorkerPanic;
pub use seam::{Core, Output, OutputChannel, Progress};

/// Calls `f` on a thread of ours; a panic is not printed but comes back as its text and place.
pub(crate) fn guarded<R>(f: impl FnOnce() -> R) -> Result<R, (String, Option<String>)> {
    panics::adopt_thread();
    panics::catch(f).map_err(|caught| (caught.message, caught.location))
}

#[cfg(panic = "abort")]
compile_error!(
    "cutwater needs `panic = \"unwind\"`: a panic in user code is caught, reported and answered with a restart of the \
     job, which `panic = \"abort\"` would turn into the end of the process"
);
