mod faults;
mod forward;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::Rng;

use faults::Traits;
pub use faults::{Counts, Fault, Rates};

/// How long the faults take that take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A time-out, from the request to the end of the connection: 2 s unless set.
    pub hold: Duration,
    /// From the cut of the connection until a late request reaches the server: 1 s unless set.
    pub late: Duration,
    /// A slow answer: 1 s unless set.
    pub slow: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { hold: Duration::from_secs(2), late: Duration::from_secs(1), slow: Duration::from_secs(1) }
    }
}

/// Stands between a client and an object store, over HTTP/1.1 on this machine, and does to the requests what networks
/// and stores do. It starts without faults. What befalls the n-th request depends on the seed, n and the rates only;
/// requests are numbered as they come in. It changes no request, so that signatures hold.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the connections share.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    seed: u64,
    up: watch::Sender<bool>,
    /// Requests on their way to the server, which their clients may have given up.
    underway: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rates: Rates,
    times: Times,
    once: Vec<(Fault, String)>,
    refusal: Option<Refusal>,
    counts: Counts,
}

/// What every request is answered.
type Refusal = (StatusCode, &'static str);

/// What was decided about a request, and where its details come from.
struct Decision {
    fault: Option<Fault>,
    times: Times,
    rng: Rng,
}

impl Proxy {
    /// Starts one before the server at this address.
    ///
    /// # Panics
    ///
    /// If no port is free.
    #[must_use]
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server,
            seed,
            up: watch::Sender::new(true),
            underway: watch::Sender::new(0),
            state: Mutex::default(),
        });
        let accepting = shared.clone();
        runtime.spawn(async move {
            listener.set_nonblocking(true).expect("it is a socket");
            accept(TcpListener::from_std(listener).expect("it does not block"), accepting).await;
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL there.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, faults come at these rates.
    pub fn set(&self, rates: Rates) {
        self.shared.state().rates = rates;
    }

    /// From now on, faults take so long.
    pub fn set_times(&self, times: Times) {
        self.shared.state().times = times;
    }

    /// The next request that this fault can befall and whose path contains this text meets it, whatever the rates.
    pub fn once(&self, fault: Fault, path: &str) {
        self.shared.state().once.push((fault, path.to_owned()));
    }

    /// From now on every request is answered with this status and S3's code for the error; the server sees none.
    ///
    /// # Panics
    ///
    /// If that is no status.
    pub fn refuse(&self, status: u16, code: &'static str) {
        let status = StatusCode::from_u16(status).expect("a status has three digits");
        self.shared.state().refusal = Some((status, code));
    }

    /// No more faults and refusals, and up again. Late requests still arrive: see [`Self::settle`].
    pub fn all_off(&self) {
        let mut state = self.shared.state();
        state.rates = Rates::none();
        state.once.clear();
        state.refusal = None;
        drop(state);
        self.up();
    }

    /// Cuts all connections, and closes new ones at once, until it is up again.
    pub fn down(&self) {
        self.shared.up.send_replace(false);
    }

    /// Takes connections again.
    pub fn up(&self) {
        self.shared.up.send_replace(true);
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// Waits until no request is underway, late ones least of all.
    ///
    /// # Panics
    ///
    /// If that takes longer than a minute.
    pub async fn settle(&self) {
        let mut underway = self.shared.underway.subscribe();
        let settled = tokio::time::timeout(Duration::from_secs(60), underway.wait_for(|requests| *requests == 0)).await;
        assert!(settled.is_ok(), "requests are still underway after a minute:\n{}", self.counts());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Not the plain drop, which panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a request and decides what befalls it.
    fn decide(&self, path: &str, request: Traits) -> Decision {
        let mut state = self.state();
        let number = state.counts.requests;
        state.counts.requests += 1;
        let mut rng = Rng::new(self.seed ^ Rng::new(number).next_u64());
        let drawn = state.rates.draw(request, &mut rng);
        let once = state.once.iter().position(|(fault, part)| fault.befalls(request) && path.contains(part));
        let fault = once.map(|at| state.once.remove(at).0).or(drawn);
        Decision { fault, times: state.times, rng }
    }

    fn count(&self, fault: Fault) {
        self.state().counts.faults[fault as usize] += 1;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if *shared.up.borrow() {
            tokio::spawn(connection(stream, shared.clone()));
        } else {
            shared.state().counts.refused += 1;
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    drop(stream.set_nodelay(true)); // only faster with it
    let mut up = shared.up.subscribe();
    let service = service_fn(|request| forward::answer(shared.clone(), request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ended = served => {} // a fault that cuts the connection ends it with an error
        _down = up.wait_for(|up| !up) => {}
    }
}

#[cfg(test)]
mod tests;
