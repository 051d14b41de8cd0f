use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A panic on a worker that did not come out of a core's `run`: a bug of ours. It has ended the incarnation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} panicked at {}: {message}", location.as_deref().unwrap_or("an unknown place"))]
pub struct WorkerPanic {
    /// Which worker.
    pub worker: usize,
    /// What the panic said.
    pub message: String,
    /// Where it began, as `file:line:column`.
    pub location: Option<String>,
}

/// What is known of a panic that was caught.
pub(super) struct Caught {
    pub(super) message: String,
    pub(super) location: Option<String>,
}

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
    /// The last panic that began: its text and its place.
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Makes the panics of the calling thread silent and their places known to [`catch`], for as long as the thread lives.
/// The hook is installed once in the process and hands the panics of all other threads to the hook it found. A program
/// that sets a hook of its own later takes both away: panics are then reported without a place.
pub(super) fn adopt_thread() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| if OURS.try_with(Cell::get) == Ok(true) { note(info) } else { previous(info) }));
    });
    OURS.set(true);
}

/// A thread whose locals are gone already is past all catching, so there is nothing to note for.
fn note(info: &PanicHookInfo<'_>) {
    let last = info.location().map(|location| (message(info.payload()), location.to_string()));
    let _ = LAST.try_with(|noted| noted.replace(last));
}

/// Calls `f`; what a panic out of it said, and where it began.
pub(super) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Caught> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let message = message(&*payload);
        // Code that catches panics may resume another than the last that began here, whose place would mislead.
        let location = LAST.take().filter(|(of, _)| *of == message).map(|(_, location)| location);
        discard(payload);
        Caught { message, location }
    })
}

/// Drops `value`, whatever its destructor does. User code gets no second chance to end a worker.
pub(super) fn discard<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // A payload can have a destructor that panics too, and so on; leaking this one ends it.
        std::mem::forget(payload);
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic whose payload is not a text".to_owned())
}
