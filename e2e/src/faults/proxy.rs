//! A proxy on loopback between the operator and the API server that follows a script for requests and streams. The proxy uses plain
//! HTTP/1.1 towards the operator and TLS towards the API server, with one connection to the API server for each of the operator's.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, server};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::plan::OnRequest;
use super::request::{Asked, Set};
use super::script::{Decision, Script};
use super::seat::Seat;
use super::streams;

/// The body of a response to the operator.
pub type Body = BoxBody<Bytes, io::Error>;

/// A running proxy; it stops when this value is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The address that the proxy listens on.
    pub address: SocketAddr,
    /// The script that the proxy follows.
    pub script: Arc<Script>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    script: Arc<Script>,
    seat: Arc<Seat>,
    /// The request head with which the operator listed each set.
    lists: Mutex<HashMap<Set, Parts>>,
}

/// The API server.
#[derive(Clone)]
pub struct Upstream {
    /// `HOST:PORT`.
    pub authority: String,
    /// The TLS configuration that verifies the API server's certificate.
    pub tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({})", self.authority)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts to listen. Faults that kill the operator kill the operator on `seat`.
    pub async fn start(upstream: Upstream, seat: Arc<Seat>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listening for the operator")?;
        let address = listener.local_addr()?;
        let script = Arc::new(Script::default());
        let shared = Arc::new(Shared {
            upstream,
            script: script.clone(),
            seat,
            lists: Mutex::default(),
        });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        Ok(Self {
            address,
            script,
            shared,
            task,
        })
    }

    /// Reads every set that the operator has read, and stores the responses as the past for stale starts.
    pub async fn remember(&self) -> anyhow::Result<()> {
        let lists = self.shared.lists.lock().expect("the lock is not poisoned").clone();
        ensure!(
            !lists.is_empty(),
            "the operator has not listed any set that could become stale"
        );
        let mut past = HashMap::new();
        let mut connection = Connection::new(&self.shared.upstream);
        for (set, parts) in lists {
            let answer = connection.send(Request::from_parts(parts, Full::default())).await?;
            // A set that the operator may not read, or that is not served any more, has no past.
            if answer.status().is_success() {
                past.insert(set, BodyExt::collect(answer.into_body()).await?.to_bytes());
            }
        }
        self.script.remember(past);
        Ok(())
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    drop(stream.set_nodelay(true));
    // hyper owns the stream. This second handle of the socket allows a reset.
    let Ok((stream, rude)) = doubled(stream) else { return };
    let rude = Arc::new(rude);
    let connection = Arc::new(tokio::sync::Mutex::new(Connection::new(&shared.upstream)));
    let service = service_fn(move |request| {
        let (shared, connection, rude) = (shared.clone(), connection.clone(), rude.clone());
        async move { answer(&shared, &connection, &rude, request).await }
    });
    // An error here is either the fault itself or the exit of the operator.
    let _ = server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn doubled(stream: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let stream = stream.into_std()?;
    let other = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, other))
}

async fn answer(
    shared: &Shared,
    connection: &Arc<tokio::sync::Mutex<Connection>>,
    rude: &std::net::TcpStream,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = BodyExt::collect(body).await?.to_bytes();
    let asked = Asked::of(&parts, &body);
    if let Asked::List(set) = &asked {
        let mut lists = shared.lists.lock().expect("the lock is not poisoned");
        lists.insert(set.clone(), parts.clone());
    }
    let (decision, ticket) = shared.script.decide(&asked);
    let request = Request::from_parts(parts, Full::new(body));
    // A separate task sends the request, so a request that was sent is executed even if the operator dies meanwhile. The audit log
    // does not contain the result of a request that is cut off. (Several writes of a wave are in progress together; one of them kills
    // the operator.)
    let connection = connection.clone();
    let forward = async || tokio::spawn(async move { connection.lock().await.send(request).await }).await?;
    let never = std::future::pending::<anyhow::Result<Response<Body>>>;
    match decision {
        Decision::Forward => {
            let answer = forward().await?;
            let code = answer.status();
            if let Asked::Watch(set) = asked
                && code.is_success()
            {
                ticket.answered(code);
                return Ok(streams::watched(answer, set, shared.script.clone()));
            }
            let answer = whole(answer).await?;
            ticket.answered(code);
            Ok(answer.map(full))
        }
        Decision::Fail(OnRequest::KillBefore) => {
            shared.seat.kill();
            bail!("the operator was killed")
        }
        Decision::Fail(OnRequest::KillAfter) => {
            whole(forward().await?).await?;
            shared.seat.kill();
            bail!("the operator was killed")
        }
        Decision::Fail(OnRequest::Answer(code)) => {
            let code = StatusCode::from_u16(code)?;
            ticket.answered(code);
            refusal(code)
        }
        Decision::Fail(OnRequest::Reset) => {
            socket2::SockRef::from(rude).set_linger(Some(Duration::ZERO))?;
            bail!("the connection is reset")
        }
        Decision::Fail(OnRequest::CommitWithoutAnswer) => {
            whole(forward().await?).await?;
            never().await
        }
        Decision::Fail(OnRequest::BlackHole) | Decision::BlackHole => never().await,
        Decision::Stall => {
            let answer = whole(forward().await?).await?;
            Ok(answer.map(|body| streams::stalled(body, ticket)))
        }
        Decision::Stale(body) => {
            let mut answer = Response::new(full(body));
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            ticket.answered(StatusCode::OK);
            Ok(answer)
        }
        Decision::SilentUntil(end) => {
            ticket.answered(StatusCode::OK);
            Ok(streams::silent_until(end))
        }
    }
}

/// Reads the whole response.
async fn whole(answer: Response<Incoming>) -> anyhow::Result<Response<Bytes>> {
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, BodyExt::collect(body).await?.to_bytes()))
}

fn full(bytes: Bytes) -> Body {
    BodyExt::boxed(Full::new(bytes).map_err(|never| match never {}))
}

/// Returns the response that an API server sends with this code.
fn refusal(code: StatusCode) -> anyhow::Result<Response<Body>> {
    let reason = match code.as_u16() {
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        other => bail!("the response of an API server with code {other} is not defined here"),
    };
    let causes = if code == StatusCode::UNPROCESSABLE_ENTITY {
        json!([{"reason": "FieldValueInvalid", "message": "a fault of the test", "field": "spec"}])
    } else {
        json!([])
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": "a fault of the test", "details": {"causes": causes},
    });
    let mut answer = Response::builder()
        .status(code)
        .header(CONTENT_TYPE, "application/json");
    if code == StatusCode::TOO_MANY_REQUESTS {
        answer = answer.header(RETRY_AFTER, "1");
    }
    Ok(answer.body(full(status.to_string().into()))?)
}

/// One connection to the API server, opened on demand.
struct Connection {
    upstream: Upstream,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    fn new(upstream: &Upstream) -> Self {
        Self {
            upstream: upstream.clone(),
            sender: None,
        }
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_str(&self.upstream.authority)?);
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            closed => closed.insert(connect(&self.upstream).await?),
        };
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }
}

async fn connect(upstream: &Upstream) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(&upstream.authority)
        .await
        .with_context(|| format!("connecting to {}", upstream.authority))?;
    stream.set_nodelay(true)?;
    let (host, _) = upstream
        .authority
        .rsplit_once(':')
        .context("the authority has no port")?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(upstream.tls.clone()).connect(name, stream).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The task ends when the sender is dropped and the last response was read or dropped.
    tokio::spawn(connection);
    Ok(sender)
}

/// Returns a body that streams these bytes.
pub fn body_of(stream: impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(stream.map(|bytes| bytes.map(Frame::data))))
}
