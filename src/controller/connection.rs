//! Connections to the API server, and the detection of dead connections. Requests and bodies pass unchanged. The module only distinguishes
//! watches from other requests.
//!
//! kube's own stack has none of these limits. It sets no TCP keepalive, and it does not limit the list before a watch or the start of a
//! watch. So a packet filter that drops packets silently, or a server that accepts connections without answering, would stop a watch for as
//! long as the kernel retries (Linux: two hours without traffic).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::timeout::TimeoutBody;

/// The time limit for a new connection, including TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection that accepts no bytes for this time is dead.
const WRITE: Duration = Duration::from_secs(10);

/// The first keepalive probe of an idle connection follows after this time, and further probes follow at this interval. A connection
/// without an answer for [`DEAD`] is closed. So a dead connection is detected after 13 s, with the first probe after the limit (Linux
/// checks the limit with each probe).
const IDLE: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 4;
const DEAD: Duration = Duration::from_secs(12);

/// A connection that was idle for longer is not reused. The limit is shorter than an answer may take. So after a request on a dead
/// connection, the retry does not use another connection that died at the same time. (Such a connection would be detected only after
/// another [`DEAD`], because Linux does not probe while data is unacknowledged.)
const REUSE: Duration = Duration::from_secs(5);

/// The time limits of an answer.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The time until an answer begins, including retries, and between two parts of an answer. Watches are excluded from the latter.
    answer: Duration,
    /// The time between two events of a watch. The watcher itself gives up earlier.
    events: Duration,
}

const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(10),
    events: Duration::from_secs(super::watches::WATCH_SECONDS as u64 + 10),
};

const _: () = assert!(REUSE.as_secs() < PATIENCE.answer.as_secs());

/// Returns a client for the API server of this configuration.
pub fn client(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(IDLE));
    tcp.set_keepalive_interval(Some(TRY_AGAIN));
    tcp.set_keepalive_retries(Some(TRIES));
    tcp.set_tcp_user_timeout(Some(DEAD));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_write_timeout(Some(WRITE));
    let mut pool = legacy::Client::builder(TokioExecutor::new());
    pool.pool_timer(TokioTimer::new()).pool_idle_timeout(REUSE);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer_fn(|inner| Bounded {
            inner,
            patience: PATIENCE,
        })
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(pool.build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// Limits the time until an answer begins, and the pauses in the answer.
#[derive(Clone, Debug)]
struct Bounded<S> {
    inner: S,
    patience: Patience,
}

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<TimeoutBody<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Patience { answer, events } = self.patience;
        let pause = if is_watch(&request) { events } else { answer };
        let called = self.inner.call(request);
        Box::pin(async move {
            let response = tokio::time::timeout(answer, called).await??;
            Ok(response.map(|body| TimeoutBody::new(pause, body)))
        })
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    pairs.any(|pair| pair == "watch=true")
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const SHORT: Patience = Patience {
        answer: Duration::from_millis(20),
        events: Duration::from_mins(1),
    };

    fn request(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).expect("a request")
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_before_it_can_be_reused_dead() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let client = client(&Config::new(address.parse().expect("an address"))).expect("a client");
        let asks = tokio::spawn(async move {
            let request = Request::get("/version").body(Vec::new()).expect("a request");
            client.request_text(request).await.expect("it is answered");
            client
        });
        let (mut connection, _) = listener.accept().await?;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(connection.read_u8().await?);
        }
        connection
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .await?;
        let client = asks.await?;
        let more = tokio::time::timeout(REUSE * 10, connection.read(&mut [0])).await?;
        assert_eq!(more?, 0, "the end of the connection, while there is a client");
        drop(client);
        Ok(())
    }

    #[tokio::test]
    async fn an_answer_that_does_not_begin_is_an_error_also_for_watches() {
        for uri in ["/api/v1/pods", "/api/v1/pods?&watch=true"] {
            let silent = service_fn(|_| std::future::pending::<Result<Response<Full<&[u8]>>, BoxError>>());
            let bounded = Bounded {
                inner: silent,
                patience: SHORT,
            };
            let answered = bounded.oneshot(request(uri)).await.is_ok();
            assert!(!answered, "{uri}: nothing was answered");
        }
    }

    #[tokio::test]
    async fn a_stalled_answer_is_an_error_and_a_quiet_watch_is_not() {
        let stops = service_fn(|_| {
            let body = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<&[u8]>, BoxError>>());
            futures::future::ready(Ok::<_, BoxError>(Response::new(body)))
        });
        let bounded = Bounded {
            inner: stops,
            patience: SHORT,
        };
        let answer = bounded
            .clone()
            .oneshot(request("/api/v1/pods"))
            .await
            .expect("it begins");
        answer.into_body().collect().await.expect_err("it stops");
        let watch = bounded
            .oneshot(request("/api/v1/pods?&watch=true"))
            .await
            .expect("it begins");
        let quiet = tokio::time::timeout(SHORT.answer * 5, watch.into_body().collect()).await;
        assert!(quiet.is_err(), "a watch without events is no error");
    }
}
