//! An API server for unit tests: it answers as the test says.

use std::io;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// An answer: HTTP status and body; none if the connection breaks.
pub type Answer = Option<(u16, Value)>;

/// A client of an API server that gives these answers.
pub fn client(answer: impl Fn(&Method, &str) -> Answer + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let response = match answer(request.method(), request.uri().path()) {
            Some((code, body)) => Response::builder()
                .status(code)
                .body(Body::from(body.to_string().into_bytes()))
                .map_err(io::Error::other),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        };
        std::future::ready(response)
    });
    Client::new(service, "default")
}

/// A refusal in the API server's own form.
#[allow(clippy::unnecessary_wraps)] // as all answers are
pub fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "as the test says",
    });
    Some((code, status))
}
