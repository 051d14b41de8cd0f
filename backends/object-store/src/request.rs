//! Requests: each within the limits of the store, tried again until one deadline.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cutwater_storage::StoreErrorKind;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Settings;
use crate::answer::{Outcome, reason};

/// The threads that wait for all stores of the process.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("cutwater-store").enable_all().build();
        runtime.expect("the system gives a process two more threads")
    })
}

/// Waits for the future from outside of it, on any thread.
pub(crate) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T, Failure> {
    let (sender, receiver) = sync_channel(1);
    runtime().spawn(async move { drop(sender.send(future.await)) }); // whoever waits does so until then
    receiver.recv().map_err(|_| Failure::of(Outcome::Refused(StoreErrorKind::Other), "the request came to no end"))
}

/// Why something could not be had from the store, after all tries.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    /// Whether the store may have done as asked in one of the tries.
    pub(crate) sent: bool,
    pub(crate) reason: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(crate) fn of(outcome: Outcome, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { outcome, sent: outcome == Outcome::Passing { sent: true }, reason: reason.into() }
    }

    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self.outcome {
            Outcome::Taken => StoreErrorKind::AlreadyExists,
            Outcome::Missing => StoreErrorKind::NotFound,
            Outcome::Refused(kind) => kind,
            Outcome::Passing { .. } => StoreErrorKind::Unavailable,
        }
    }
}

/// What all requests to one store share.
pub(crate) struct Limits {
    permits: Semaphore,
    request_timeout: Duration,
    deadline: Duration,
    rate: Option<Rate>,
}

struct Rate {
    bytes_per_second: u64,
    /// When the next bytes may go.
    free_at: Mutex<Option<Instant>>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Between the first two tries; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rate = |rate: std::num::NonZeroU64| Rate { bytes_per_second: rate.get(), free_at: Mutex::new(None) };
        Self {
            permits: Semaphore::new(settings.parallelism.get() as usize),
            request_timeout: settings.request_timeout,
            deadline: settings.deadline,
            rate: settings.upload_rate.map(rate),
        }
    }

    /// When an operation that begins now has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Waits until so many more bytes may be uploaded.
    pub(crate) async fn upload(&self, bytes: usize) {
        let Some(rate) = &self.rate else { return };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second as f64);
        let at = {
            let mut free_at = rate.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let at = free_at.map_or_else(Instant::now, |free| free.max(Instant::now()));
            *free_at = Some(at + takes);
            at
        };
        sleep_until(at).await;
    }

    /// Sends the request, again and again if need be.
    pub(crate) async fn request<T, F>(&self, deadline: Instant, request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.request_of(deadline, self.request_timeout, request).await
    }

    /// The same for what takes as long as this each time.
    pub(crate) async fn request_of<T, F>(
        &self,
        deadline: Instant,
        each: Duration,
        mut request: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let (mut sent, mut tries, start) = (false, 0_u32, Instant::now());
        loop {
            tries += 1;
            let until = deadline.min(Instant::now() + each);
            let why: Box<dyn Error + Send + Sync> = {
                let _permit = self.permits.acquire().await; // it is never closed
                match timeout_at(until, request()).await {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(error)) => match Outcome::of(&error) {
                        Outcome::Passing { sent: this } => {
                            sent |= this;
                            reason(&error)
                        }
                        outcome @ (Outcome::Taken | Outcome::Missing | Outcome::Refused(_)) => {
                            return Err(Failure { outcome, sent, reason: reason(&error) });
                        }
                    },
                    Err(_) => {
                        sent = true;
                        format!("no answer within {:.0} s", each.as_secs_f64()).into()
                    }
                }
            };
            let next = Instant::now() + pause(tries);
            if next >= deadline {
                let seconds = start.elapsed().as_secs_f64();
                let times = if tries == 1 { "try".to_owned() } else { format!("{tries} tries") };
                let reason = format!("given up after {times} in {seconds:.1} s; the last one: {why}").into();
                return Err(Failure { outcome: Outcome::Passing { sent }, sent, reason });
            }
            tracing::debug!(target: "cutwater", tries, why = %why, "a request to the object store is sent again");
            sleep_until(next).await;
        }
    }
}

/// Half of it is the same for all, the other half differs from caller to caller, so that they do not come in step.
fn pause(tries: u32) -> Duration {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let whole = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let call = CALLS.fetch_add(1, Ordering::Relaxed) ^ u64::from(process::id()) << 32;
    let mixed = (call ^ call >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    whole / 2 + (whole / 2).mul_f64((mixed >> 40) as f64 / (1_u64 << 24) as f64)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;
    use crate::answer::Answer;

    fn answered(status: u16) -> object_store::Error {
        let source = HttpError::new(HttpErrorKind::Unknown, Answer::new(status, ""));
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_until_the_deadline_and_nothing_else_is() {
        let limits = Limits::new(&Settings::default());
        let mut answers = [503, 500, 429].into_iter();
        let request = || {
            let answer = answers.next();
            async move { answer.map_or(Ok(7), |status| Err(answered(status))) }
        };
        assert_eq!(limits.request(limits.deadline(), request).await.unwrap(), 7);

        let start = Instant::now();
        let mut tries = 0;
        let request = || {
            tries += 1;
            async { Err::<(), _>(answered(503)) }
        };
        let failure = limits.request(limits.deadline(), request).await.unwrap_err();
        assert_eq!((failure.kind(), failure.sent), (StoreErrorKind::Unavailable, true));
        assert!(failure.reason.to_string().contains("the store answered 503"), "{}", failure.reason);
        assert!(tries > 8 && start.elapsed() <= Duration::from_secs(30), "{tries} tries in {:?}", start.elapsed());

        let mut tries = 0;
        let request = || {
            tries += 1;
            async { Err::<(), _>(answered(403)) }
        };
        let failure = limits.request(limits.deadline(), request).await.unwrap_err();
        assert_eq!((failure.kind(), failure.sent, tries), (StoreErrorKind::PermissionDenied, false, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_is_given_up() {
        let limits = Limits::new(&Settings::default());
        let start = Instant::now();
        let failure = limits.request(limits.deadline(), std::future::pending::<object_store::Result<()>>).await;
        assert!(failure.unwrap_err().reason.to_string().contains("no answer within 20 s"));
        assert!(start.elapsed() <= Duration::from_secs(31), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_keep_to_the_rate() {
        let limits = Limits::new(&Settings { upload_rate: NonZeroU64::new(1_000), ..Settings::default() });
        let start = Instant::now();
        for _ in 0..5 {
            limits.upload(500).await;
        }
        assert_eq!(start.elapsed().as_millis(), 2_000);
    }
}
