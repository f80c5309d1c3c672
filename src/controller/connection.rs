//! Connections to the API server: how they are made, and how it is noticed that nobody is at the other end any more. Requests and
//! bodies pass; nothing is looked at but whether a request is a watch.
//!
//! kube's own stack bounds none of this: it sets no TCP keepalive, and neither the list before a watch nor the beginning of a watch
//! has a limit there, so that a packet filter that drops silently, or a server that accepts and does not answer, would stop a
//! watch for as long as the kernel tries (Linux: two hours without traffic).

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

/// A connection that is not there by then, TLS included, has failed.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection that takes no bytes for this long is dead.
const WRITE: Duration = Duration::from_secs(10);

/// An idle connection is tried after this time, then at this interval; without an answer for [`DEAD`] it is closed. So a dead one
/// is noticed after 13 s: the first try after the limit (Linux looks at the limit when it tries).
const IDLE: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 4;
const DEAD: Duration = Duration::from_secs(12);

/// A connection that was idle for longer is not used again. It is less than an answer may take, so that the next try of a
/// request whose connection was dead does not go out on another one that died with it (which would then be noticed only after
/// [`DEAD`] more: what is not acknowledged is not probed).
const REUSE: Duration = Duration::from_secs(5);

/// How long an answer may take, and how long it may pause.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Until an answer begins, retries included; and, but for watches, between two pieces of it.
    answer: Duration,
    /// Between two events of a watch. The watcher itself gives up before that.
    events: Duration,
}

const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(10),
    events: Duration::from_secs(super::watches::WATCH_SECONDS as u64 + 10),
};

const _: () = assert!(REUSE.as_secs() < PATIENCE.answer.as_secs());

/// A client for the API server of this configuration.
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

/// Bounds the time until an answer begins, and the pauses in it.
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
    async fn a_connection_that_is_idle_is_closed_so_that_nothing_goes_out_on_one_that_has_died() -> std::io::Result<()>
    {
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
    async fn an_answer_that_does_not_begin_is_an_error_for_watches_too() {
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
    async fn an_answer_that_stops_in_the_middle_is_an_error_and_a_quiet_watch_is_none() {
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
