//! The HTTP server for the kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`. The server is read-only.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::FutureExt;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::{Liveness, Metrics, Readiness, Telemetry};

/// The content type of the text that `prometheus_client::encoding::text` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Time that responses in progress may take after the shutdown was requested.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves `/livez`, `/readyz` and `/metrics` on `address` until `shutdown` resolves, and up to one second longer for responses in
/// progress. Returns an error if the server can't listen on the address.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    liveness: Liveness,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    serve_on(
        listener,
        Telemetry {
            metrics,
            readiness,
            liveness,
        },
        shutdown,
    )
    .await
}

async fn serve_on(
    listener: TcpListener,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry);
    let shutdown = shutdown.shared();
    let drained = {
        let shutdown = shutdown.clone();
        async move {
            shutdown.await;
            tokio::time::sleep(DRAIN).await;
        }
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(shutdown) => served,
        () = drained => Ok(()),
    }
}

async fn livez(State(telemetry): State<Telemetry>) -> (StatusCode, String) {
    let now = Instant::now();
    if telemetry.liveness.is_alive(now) {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let silence = telemetry.liveness.silence(now).as_secs();
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the controller's loop has not run for {silence} s\n"),
        )
    }
}

async fn readyz(State(telemetry): State<Telemetry>) -> (StatusCode, String) {
    let missing = telemetry.readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready, waiting for:\n{}\n", missing.join("\n")),
        )
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, OPEN_METRICS)],
        telemetry.metrics.encode(Timestamp::now()),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use futures::channel::oneshot;
    use tokio::task::{JoinHandle, spawn_blocking};

    use super::*;
    use crate::telemetry::ReconcileOutcome;

    struct Server {
        address: SocketAddr,
        metrics: Metrics,
        readiness: Readiness,
        stop: oneshot::Sender<()>,
        served: JoinHandle<io::Result<()>>,
    }

    async fn start(liveness: Liveness) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new(["Pod", "Service"]);
        let metrics = Metrics::new();
        let telemetry = Telemetry {
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            liveness,
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve_on(listener, telemetry, stopped.map(|_| ())));
        Server {
            address,
            metrics,
            readiness,
            stop,
            served,
        }
    }

    impl Server {
        /// Returns the complete response, including the head.
        async fn get(&self, path: &'static str) -> String {
            let address = self.address;
            spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(
                    stream,
                    "GET {path} HTTP/1.1\r\nhost: slipway\r\nconnection: close\r\n\r\n"
                )
                .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
            .await
            .unwrap()
        }
    }

    #[tokio::test]
    async fn readyz_lists_the_missing_parts() {
        let server = start(Liveness::new(Duration::from_mins(1))).await;
        server.readiness.set("Pod", true);
        let answer = server.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nnot ready, waiting for:\nService\n"),
            "{answer}"
        );
        server.readiness.exempt("Service");
        let answer = server.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }

    #[tokio::test]
    async fn livez_fails_when_the_loop_does_not_run() {
        let answer = start(Liveness::new(Duration::from_mins(1))).await.get("/livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = start(Liveness::new(Duration::ZERO)).await.get("/livez").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test]
    async fn metrics_have_the_open_metrics_format() {
        let answer = start(Liveness::new(Duration::from_mins(1))).await.get("/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
            "{answer}"
        );
        assert!(answer.contains("slipway_build_info{version="), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn server_stops_on_shutdown_despite_an_unread_response() {
        let server = start(Liveness::new(Duration::from_mins(1))).await;
        // The response is larger than the buffers of both sockets.
        let endless = "x".repeat(20_000_000);
        server.metrics.reconciled(
            "projectcontour",
            &endless,
            ReconcileOutcome::Error("Timeout"),
            Duration::ZERO,
        );
        let address = server.address;
        let unread = spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nhost: slipway\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        });
        let unread = unread.await.unwrap();
        server.stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(3), server.served).await;
        ended.expect("the server stops").unwrap().unwrap();
        drop(unread);
    }

    #[tokio::test]
    async fn serve_names_an_address_in_use_in_its_error() {
        let server = start(Liveness::new(Duration::from_mins(1))).await;
        let liveness = Liveness::new(Duration::from_mins(1));
        let error = serve(
            server.address,
            Metrics::new(),
            Readiness::new([]),
            liveness,
            std::future::pending(),
        )
        .await
        .expect_err("the address is in use");
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot listen on {}: ", server.address)),
            "{error}"
        );
    }
}
