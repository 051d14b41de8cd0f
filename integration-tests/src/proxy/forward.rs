use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, ETAG, EXPECT, HeaderValue, IF_NONE_MATCH, TRANSFER_ENCODING};
use hyper::http::{request, response};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Rng;

use super::faults::Traits;
use super::{Decision, Fault, Shared};

/// The connection ends here, on purpose or because the server's did.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cut the connection")]
pub(super) struct Cut;

type Body = BoxBody<Bytes, Cut>;

/// Between the last piece that a client gets and the cut: without it, nothing of the answer would be sent.
const FLUSH: Duration = Duration::from_millis(20);

/// Pieces of a slow answer.
const PIECES: usize = 16;

/// Answers a request, with what was decided about it.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    // The connection to the server is another one, and there the body is known.
    parts.headers.remove(CONNECTION);
    parts.headers.remove(EXPECT);
    let refusal = shared.state().refusal;
    if let Some((status, code)) = refusal {
        return Ok(error(status, code));
    }
    let Decision { fault, times, mut rng } = shared.decide(&parts.uri.to_string(), traits(&parts));
    let deliver = || delivered(shared.clone(), parts.clone(), body.clone(), Duration::ZERO);
    let whole = |answer: Result<Answer, Cut>| answer.map(|(parts, body)| Response::from_parts(parts, full(body)));
    let Some(fault) = fault else { return whole(deliver().await) };
    if !matches!(fault, Fault::CutBody | Fault::ShortBody | Fault::FlippedBit | Fault::PreconditionIgnored) {
        shared.count(fault);
    }
    match fault {
        Fault::Error => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Fault::SlowDown => Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Fault::Conflict => Ok(error(StatusCode::CONFLICT, "ConditionalRequestConflict")),
        Fault::ErrorAfter => {
            deliver().await?;
            Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
        }
        Fault::AnswerLost => {
            deliver().await?;
            Err(Cut)
        }
        Fault::Twice => {
            deliver().await?;
            whole(deliver().await)
        }
        Fault::TimeOutBefore => {
            tokio::time::sleep(times.hold).await;
            Err(Cut)
        }
        Fault::TimeOutAfter => {
            deliver().await?;
            tokio::time::sleep(times.hold).await;
            Err(Cut)
        }
        Fault::Late => {
            drop(delivered(shared, parts, body, times.late)); // it goes its way without us
            Err(Cut)
        }
        Fault::Slow => {
            let (parts, body) = deliver().await?;
            let pause = times.slow / u32::try_from(PIECES + 1).expect("they are few");
            tokio::time::sleep(pause).await;
            Ok(Response::from_parts(parts, trickled(&body, pause)))
        }
        Fault::CutBody | Fault::ShortBody | Fault::FlippedBit => {
            let (mut parts, body) = deliver().await?;
            if !parts.status.is_success() || body.is_empty() {
                return whole(Ok((parts, body))); // there is nothing to damage
            }
            shared.count(fault);
            let place = rng.below(body.len());
            if fault == Fault::CutBody {
                return Ok(Response::from_parts(parts, cut(&body, place)));
            }
            let damaged = if fault == Fault::ShortBody { body.slice(..place) } else { flipped(&body, place, &mut rng) };
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(damaged.len()));
            whole(Ok((parts, damaged)))
        }
        Fault::PreconditionIgnored => {
            let (mut parts, body) = deliver().await?;
            if parts.status != StatusCode::PRECONDITION_FAILED {
                return whole(Ok((parts, body)));
            }
            shared.count(fault);
            parts.status = StatusCode::OK;
            parts.headers.insert(ETAG, HeaderValue::from_static("\"ignored\""));
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            whole(Ok((parts, Bytes::new())))
        }
    }
}

fn traits(request: &request::Parts) -> Traits {
    let (puts, gets) = (request.method == Method::PUT, request.method == Method::GET);
    // `/bucket/name`; a query asks for something else than the object, unless it names a version or a part.
    let query = request.uri.query().unwrap_or_default();
    let asks = |what: &str| query.split('&').any(|part| part.split('=').next() == Some(what));
    let named = request.uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, name)| !name.is_empty());
    let object = named && !["list-type", "uploads", "uploadId"].into_iter().any(asks);
    Traits { puts, creates: puts && request.headers.contains_key(IF_NONE_MATCH), gets, gets_object: gets && object }
}

type Answer = (response::Parts, Bytes);

/// Sends a request to the server after some time. It goes there even if nobody waits for the answer any more.
fn delivered(
    shared: Arc<Shared>,
    parts: request::Parts,
    body: Bytes,
    after: Duration,
) -> impl Future<Output = Result<Answer, Cut>> {
    shared.underway.send_modify(|requests| *requests += 1);
    let task = tokio::spawn(async move {
        tokio::time::sleep(after).await;
        let answer = send(shared.server, Request::from_parts(parts, Full::new(body))).await;
        if answer.is_some() {
            shared.state().counts.delivered += 1;
        }
        shared.underway.send_modify(|requests| *requests -= 1);
        answer
    });
    async { task.await.ok().flatten().ok_or(Cut) }
}

/// Sends a request over a connection of its own; `None` if that ends before the whole answer is there.
pub(super) async fn send(server: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = TcpStream::connect(server).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let (mut parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        parts.headers.remove(CONNECTION);
        parts.headers.remove(TRANSFER_ENCODING);
        Some((parts, body))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
    let answer = Response::builder().status(status).header("content-type", "application/xml").body(full(text.into()));
    answer.expect("these headers are valid")
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed()
}

/// The body up to `place`, then the end of the connection.
fn cut(body: &Bytes, place: usize) -> Body {
    let start = body.slice(..place);
    let pieces = stream::iter([Some(start), None]).then(|piece| async {
        match piece {
            Some(piece) => Ok(Frame::data(piece)),
            None => {
                tokio::time::sleep(FLUSH).await;
                Err(Cut)
            }
        }
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

/// The body in pieces, with a pause before each.
fn trickled(body: &Bytes, pause: Duration) -> Body {
    let size = body.len().div_ceil(PIECES).max(1);
    let pieces: Vec<_> = (0..body.len()).step_by(size).map(|at| body.slice(at..body.len().min(at + size))).collect();
    let pieces = stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(piece))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

fn flipped(body: &Bytes, place: usize, rng: &mut Rng) -> Bytes {
    let mut bytes = body.to_vec();
    bytes[place] ^= 1 << rng.below(8);
    bytes.into()
}
