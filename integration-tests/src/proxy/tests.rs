#![expect(clippy::disallowed_methods, reason = "time-outs take real time")]

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::*;

const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

/// A store that takes and gives objects, knows `If-None-Match: *`, and notes each request.
#[derive(Debug, Default)]
struct Store {
    objects: BTreeMap<String, Bytes>,
    requests: Vec<String>,
}

type Shelf = Arc<Mutex<Store>>;

async fn serve(store: Shelf, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut store = store.lock().unwrap();
    store.requests.push(format!("{} {} {:?}", parts.method, parts.uri, parts.headers["host"]));
    let path = parts.uri.path().to_owned();
    let (status, body) = match (parts.method, store.objects.get(&path).cloned()) {
        (Method::PUT, Some(_)) if parts.headers.contains_key("if-none-match") => {
            (StatusCode::PRECONDITION_FAILED, Bytes::from("there already"))
        }
        (Method::PUT, _) => {
            store.objects.insert(path, body);
            (StatusCode::OK, Bytes::new())
        }
        (_, Some(object)) => (StatusCode::OK, object),
        (_, None) => (StatusCode::NOT_FOUND, Bytes::from("no such key")),
    };
    Ok(Response::builder().status(status).body(Full::new(body)).unwrap())
}

/// A store and a proxy before it, with short times.
struct World {
    store: Shelf,
    proxy: Proxy,
}

/// What a client sees: a whole answer, or the connection cut.
type Seen = Option<(StatusCode, Bytes)>;

impl World {
    async fn new(seed: u64) -> Self {
        let store = Shelf::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = store.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shelf = shelf.clone();
                let service = service_fn(move |request| serve(shelf.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let proxy = Proxy::start(address, seed);
        let short = Duration::from_millis(100);
        proxy.set_times(Times { hold: short, late: short, slow: short });
        Self { store, proxy }
    }

    async fn send(&self, method: Method, path: &str, create: bool, body: &'static str) -> Seen {
        let mut request = Request::builder().method(method).uri(path).header("host", "store.example:1234");
        if create {
            request = request.header("if-none-match", "*");
        }
        let request = request.body(Full::from(body)).unwrap();
        let (parts, body) = forward::send(self.proxy.address(), request).await?;
        Some((parts.status, body))
    }

    async fn create(&self, path: &str, body: &'static str) -> Seen {
        self.send(Method::PUT, path, true, body).await
    }

    async fn get(&self, path: &str) -> Seen {
        self.send(Method::GET, path, false, "").await
    }

    fn stored(&self, path: &str) -> Option<Bytes> {
        self.store.lock().unwrap().objects.get(path).cloned()
    }

    fn requests(&self) -> usize {
        self.store.lock().unwrap().requests.len()
    }

    /// Requires that these were all faults.
    fn assert_counted(&self, fault: Fault, count: u64) {
        let counts = self.proxy.counts();
        assert_eq!((counts.of(fault), counts.injected()), (count, count), "{}:\n{counts}", fault.name());
    }
}

fn status(seen: Seen) -> Option<u16> {
    seen.map(|(status, _)| status.as_u16())
}

#[tokio::test]
async fn without_faults_it_changes_nothing() {
    let world = World::new(1).await;
    assert_eq!(status(world.create("/b/a%20name?x=1&y", TEXT).await), Some(200));
    assert_eq!(status(world.create("/b/a%20name?x=1&y", "other").await), Some(412));
    assert_eq!(world.get("/b/a%20name").await, Some((StatusCode::OK, TEXT.into())));
    assert_eq!(status(world.get("/b/other").await), Some(404));
    assert_eq!(world.send(Method::HEAD, "/b/a%20name", false, "").await, Some((StatusCode::OK, Bytes::new())));
    let requests = world.store.lock().unwrap().requests.clone();
    assert_eq!(requests[0], "PUT /b/a%20name?x=1&y \"store.example:1234\"");
    let counts = world.proxy.counts();
    assert_eq!((counts.requests, counts.delivered, counts.injected()), (5, 5, 0), "{counts}");
}

#[tokio::test]
async fn faults_before_the_server_leave_nothing_there() {
    let cases = [
        (Fault::Error, Some((500, "InternalError"))),
        (Fault::SlowDown, Some((503, "SlowDown"))),
        (Fault::Conflict, Some((409, "ConditionalRequestConflict"))),
        (Fault::TimeOutBefore, None),
    ];
    for (fault, expected) in cases {
        let world = World::new(2).await;
        world.proxy.set(Rates::none().with(fault, 1.0));
        let started = Instant::now();
        match (world.create("/b/o", TEXT).await, expected) {
            (None, None) => assert!(started.elapsed() >= Duration::from_millis(100), "it was not held"),
            (Some((status, body)), Some((code, name))) => {
                let body = String::from_utf8_lossy(&body).into_owned();
                assert!(status == code && body.contains(&format!("<Code>{name}</Code>")), "{status} {body}");
            }
            other => panic!("{}: {other:?}", fault.name()),
        }
        assert_eq!(world.requests(), 0, "{}", fault.name());
        world.assert_counted(fault, 1);
    }
}

#[tokio::test]
async fn faults_after_the_server_leave_the_object_there() {
    let cases = [(Fault::ErrorAfter, Some(500)), (Fault::AnswerLost, None), (Fault::TimeOutAfter, None)];
    for (fault, expected) in cases {
        let world = World::new(3).await;
        world.proxy.once(fault, "/b/o");
        assert_eq!(status(world.create("/b/o", TEXT).await), expected, "{}", fault.name());
        assert_eq!(world.stored("/b/o").as_deref(), Some(TEXT.as_bytes()), "{}", fault.name());
        assert_eq!(status(world.create("/b/o", TEXT).await), Some(412), "{}: its own first try", fault.name());
        world.assert_counted(fault, 1);
    }
}

#[tokio::test]
async fn a_request_delivered_twice_gets_the_second_answer() {
    let world = World::new(4).await;
    world.proxy.once(Fault::Twice, "");
    assert_eq!(status(world.create("/b/o", TEXT).await), Some(412));
    assert_eq!(world.requests(), 2);
    world.assert_counted(Fault::Twice, 1);
}

#[tokio::test]
async fn a_late_request_arrives_when_its_client_has_given_up() {
    let world = World::new(5).await;
    world.proxy.set_times(Times { late: Duration::from_secs(1), ..Times::default() });
    world.proxy.set(Rates::none().with(Fault::Late, 1.0));
    assert_eq!(world.create("/b/o", TEXT).await, None);
    assert_eq!(world.requests(), 0);
    world.proxy.all_off(); // what is late is not off
    assert_eq!(status(world.get("/b/o").await), Some(404));
    world.proxy.settle().await;
    assert_eq!(world.stored("/b/o").as_deref(), Some(TEXT.as_bytes()));
    world.assert_counted(Fault::Late, 1);
}

#[tokio::test]
async fn a_cut_body_is_seen_as_a_cut_connection() {
    let world = World::new(6).await;
    world.create("/b/o", TEXT).await;
    world.proxy.set(Rates::none().with(Fault::CutBody, 1.0));
    assert_eq!(world.get("/b/o").await, None);
    assert_eq!(status(world.get("/b/none").await), Some(404), "there was nothing to cut");
    world.assert_counted(Fault::CutBody, 1);
}

#[tokio::test]
async fn a_short_body_looks_whole() {
    let world = World::new(7).await;
    world.create("/b/o", TEXT).await;
    world.proxy.set(Rates::none().with(Fault::ShortBody, 1.0));
    let (status, body) = world.get("/b/o").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(body.len() < TEXT.len() && TEXT.as_bytes().starts_with(&body), "{body:?}");
    world.assert_counted(Fault::ShortBody, 1);
}

#[tokio::test]
async fn a_flipped_bit_is_one_bit_of_an_object() {
    let world = World::new(8).await;
    world.create("/b/o", TEXT).await;
    world.create("/b", "a list").await;
    world.proxy.set(Rates::none().with(Fault::FlippedBit, 1.0));
    let (_, body) = world.get("/b/o").await.unwrap();
    let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    assert_eq!(body.len(), TEXT.len());
    assert_eq!(body.iter().zip(TEXT.as_bytes()).map(bits).sum::<u32>(), 1, "{body:?}");
    assert_eq!(world.get("/b?list-type=2").await, Some((StatusCode::OK, "a list".into())), "no object");
    world.assert_counted(Fault::FlippedBit, 1);
}

#[tokio::test]
async fn a_slow_answer_is_whole() {
    let world = World::new(9).await;
    world.create("/b/o", TEXT).await;
    world.proxy.set(Rates::none().with(Fault::Slow, 1.0));
    let started = Instant::now();
    assert_eq!(world.get("/b/o").await, Some((StatusCode::OK, TEXT.into())));
    assert!(started.elapsed() >= Duration::from_millis(60), "{:?}", started.elapsed());
    world.assert_counted(Fault::Slow, 1);
}

#[tokio::test]
async fn an_ignored_precondition_says_that_the_object_was_made() {
    let world = World::new(10).await;
    world.proxy.set(Rates::none().with(Fault::PreconditionIgnored, 1.0));
    assert_eq!(status(world.create("/b/o", TEXT).await), Some(200));
    world.assert_counted(Fault::PreconditionIgnored, 0);
    assert_eq!(status(world.create("/b/o", "other").await), Some(200));
    world.assert_counted(Fault::PreconditionIgnored, 1);
}

#[tokio::test]
async fn while_it_is_down_nobody_gets_an_answer() {
    let world = World::new(11).await;
    world.proxy.set(Rates::none().with(Fault::TimeOutBefore, 1.0));
    world.proxy.set_times(Times { hold: Duration::from_secs(60), ..Times::default() });
    let down = async {
        while world.proxy.counts().requests == 0 {
            tokio::task::yield_now().await;
        }
        world.proxy.down();
    };
    let (held, ()) = tokio::join!(world.create("/b/held", TEXT), down);
    assert_eq!(held, None, "open connections are cut");
    assert_eq!(world.create("/b/o", TEXT).await, None);
    assert_eq!(world.proxy.counts().refused, 1);
    world.proxy.all_off();
    assert_eq!(status(world.create("/b/o", TEXT).await), Some(200));
    assert_eq!(world.requests(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_cut_connection() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(free, 12);
    let request = Request::builder().uri("/b/o").header("host", "h").body(Full::default()).unwrap();
    assert!(forward::send(proxy.address(), request).await.is_none());
    proxy.settle().await;
    assert_eq!((proxy.counts().requests, proxy.counts().delivered), (1, 0));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let faults = [Fault::Error, Fault::SlowDown, Fault::AnswerLost, Fault::Conflict, Fault::ShortBody];
    let run = async |seed| {
        let world = World::new(seed).await;
        world.proxy.set(Rates::of(&faults, 0.1));
        let mut seen = Vec::new();
        for number in 0..100 {
            let path = format!("/b/{number}");
            seen.push(world.create(&path, TEXT).await);
            seen.push(world.get(&path).await);
        }
        (seen, world.proxy.counts())
    };
    let (first, again, other) = (run(13).await, run(13).await, run(14).await);
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    for fault in faults {
        assert!(first.1.of(fault) > 0, "{} never came:\n{}", fault.name(), first.1);
    }
}

#[test]
fn each_rate_is_that_of_the_requests_it_can_befall() {
    let rates = Rates::of(&Fault::ALL, 0.05);
    let gets = Traits { gets: true, gets_object: true, ..Traits::default() };
    let creates = Traits { puts: true, creates: true, ..Traits::default() };
    for (name, request) in [("a read", gets), ("a create", creates), ("something else", Traits::default())] {
        let mut drawn = BTreeMap::new();
        for seed in 0..20_000 {
            *drawn.entry(rates.draw(request, &mut Rng::new(seed))).or_insert(0) += 1;
        }
        for fault in Fault::ALL {
            let count = drawn.get(&Some(fault)).copied().unwrap_or(0);
            let expected = if fault.befalls(request) { 850..1150 } else { 0..1 };
            assert!(expected.contains(&count), "{name}: {} befell {count} of 20000", fault.name());
        }
    }
}

#[test]
fn counts_are_a_table_and_json() {
    let mut counts = Counts { requests: 12, delivered: 11, ..Counts::default() };
    counts.faults[Fault::SlowDown as usize] = 3;
    assert!(counts.to_string().contains("requests                   12\n"), "{counts}");
    assert!(counts.to_string().contains("slow-down                   3\n"), "{counts}");
    assert_eq!(counts.to_json()["slow-down"], 3);
    assert_eq!(counts.to_json().as_object().unwrap().len(), Fault::ALL.len() + 3);
}

#[test]
#[should_panic(expected = "a rate of 0.6 for slow, 1.1 in all")]
fn more_than_one_fault_for_each_request_is_refused() {
    let _ = Rates::none().with(Fault::Error, 0.5).with(Fault::Slow, 0.6);
}
