//! A simulated API server for unit tests. The test determines the answers.

use std::io;
use std::sync::Arc;

use http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// An answer: HTTP status and body. None: the connection breaks.
pub type Answer = Option<(u16, Value)>;

/// Returns a client of an API server that gives these answers.
pub fn client(answer: impl Fn(&Method, &str) -> Answer + Send + Sync + 'static) -> Client {
    client_with_body(move |method, path, _| answer(method, path))
}

/// Returns a client of an API server whose answers depend on the body of the request. The body is null if the request has no body.
pub fn client_with_body(answer: impl Fn(&Method, &str, Value) -> Answer + Send + Sync + 'static) -> Client {
    client_with_query(move |method, uri, body| answer(method, uri.path(), body))
}

/// Returns a client of an API server whose answers depend on the query and on the body of the request.
pub fn client_with_query(answer: impl Fn(&Method, &Uri, Value) -> Answer + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect_bytes().await.map_err(io::Error::other)?;
            let sent = serde_json::from_slice(&sent).unwrap_or_default();
            match answer(&parts.method, &parts.uri, sent) {
                Some((code, body)) => Response::builder()
                    .status(code)
                    .body(Body::from(body.to_string().into_bytes()))
                    .map_err(io::Error::other),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    });
    Client::new(service, "default")
}

/// Returns a refusal in the format of the API server.
#[allow(clippy::unnecessary_wraps)] // as all answers are
pub fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "as the test says",
    });
    Some((code, status))
}
