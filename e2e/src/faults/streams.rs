//! Streams of watch events to the operator, one line of JSON for each event, and the faults of these streams.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::plan::OnStream;
use super::proxy::{Body, body_of};
use super::request::Set;
use super::script::{OnEvent, Script, Ticket, WITHHOLDING};

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// The error if the operator exited or abandoned the stream.
struct Gone;

/// Passes on the events of a watch and applies the script's faults to them.
pub fn watched(answer: Response<Incoming>, set: Set, script: Arc<Script>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(16);
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(hyper::header::CONTENT_LENGTH);
    tokio::spawn(async move {
        let _ = pass(body, &set, &script, &sender).await;
    });
    Response::from_parts(parts, body_of(ReceiverStream::new(receiver)))
}

async fn pass(mut body: Incoming, set: &Set, script: &Script, sender: &Sender) -> Result<(), Gone> {
    let opened = Instant::now();
    let mut rest = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sender.closed() => return Err(Gone),
        };
        let Some(Ok(frame)) = frame else {
            return Ok(());
        };
        rest.extend(frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let is_event = !line.starts_with(br#"{"type":"BOOKMARK""#);
            let fault = if is_event {
                script.on_event(set, opened)
            } else {
                OnEvent::Pass
            };
            match fault {
                OnEvent::Pass => send(sender, line).await?,
                OnEvent::Fail(fault) => return fail(fault, line, sender).await,
            }
        }
    }
}

async fn fail(fault: OnStream, mut line: Vec<u8>, sender: &Sender) -> Result<(), Gone> {
    match fault {
        OnStream::Cut => {
            line.truncate(line.len() / 2);
            send(sender, line).await?;
            let cut = io::Error::new(io::ErrorKind::ConnectionReset, "the stream is cut");
            sender.send(Err(cut)).await.map_err(|_| Gone)
        }
        OnStream::Error => send(sender, error(500, "InternalError")).await,
        OnStream::Gone => send(sender, error(410, "Expired")).await,
        OnStream::Silent => {
            sender.closed().await;
            Err(Gone)
        }
        OnStream::Withheld => {
            tokio::select! {
                () = tokio::time::sleep(WITHHOLDING) => send(sender, error(410, "Expired")).await,
                () = sender.closed() => Err(Gone),
            }
        }
    }
}

async fn send(sender: &Sender, line: Vec<u8>) -> Result<(), Gone> {
    sender.send(Ok(line.into())).await.map_err(|_| Gone)
}

fn error(code: u16, reason: &str) -> Vec<u8> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "a fault of the test",
    });
    format!("{}\n", json!({"type": "ERROR", "object": status})).into_bytes()
}

/// Returns a watch without events until `end`. Then the watch reports that the resource version has expired.
pub fn silent_until(end: Instant) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep_until(end.into()) => {
                let _ = send(&sender, error(410, "Expired")).await;
            }
            () = sender.closed() => {}
        }
    });
    let mut answer = Response::new(body_of(ReceiverStream::new(receiver)));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Returns a body with the first half of `body` that never ends.
pub fn stalled(body: Bytes, ticket: Ticket) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = send(&sender, body[..body.len() / 2].to_vec()).await;
        sender.closed().await;
        drop(ticket);
    });
    body_of(ReceiverStream::new(receiver))
}
