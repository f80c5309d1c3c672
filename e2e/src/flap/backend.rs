//! The backend of this proof: a server on this machine. Envoy reaches the server through manually created endpoints. The server counts
//! requests without the authorization server's mark.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::authorizer::CHECKED_BY;

/// The path that the clients of the traffic request.
pub const PATH: &str = "/flap";

/// The body of the response to a checked request.
pub const CHECKED: &str = "checked";

/// The body of the response to any other request.
pub const UNCHECKED: &str = "unchecked";

/// The requests that have reached the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Requests with the authorization server's mark as the only value of the header.
    pub checked: u64,
    /// Requests with other values of the header.
    pub forged: u64,
    /// Requests without the header.
    pub unmarked: u64,
    /// The requests of the clients ([`PATH`]) among all of these; the others are requests of probes.
    pub of_clients: u64,
}

impl Arrivals {
    /// Returns the number of unchecked requests.
    pub fn unchecked(self) -> u64 {
        self.forged + self.unmarked
    }

    /// Adds other arrivals.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.forged += other.forged;
        self.unmarked += other.unmarked;
        self.of_clients += other.of_clients;
    }

    /// Returns the arrivals since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            checked: self.checked - earlier.checked,
            forged: self.forged - earlier.forged,
            unmarked: self.unmarked - earlier.unmarked,
            of_clients: self.of_clients - earlier.of_clients,
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            checked,
            forged,
            unmarked,
            of_clients: _,
        } = self;
        write!(f, "{checked} checked, {forged} forged, {unmarked} unmarked")
    }
}

/// A running server; it stops when this value is dropped.
pub struct Backend {
    /// The address that the server listens on.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Arrivals>>,
    server: JoinHandle<()>,
}

impl Backend {
    /// Starts a server on a free port of this machine's address `host`. Only the backend and the authorization server know the mark.
    pub async fn start(host: IpAddr, mark: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, 0))
            .await
            .with_context(|| format!("listening on {host}"))?;
        let address = listener.local_addr().context("reading the port")?;
        let arrivals = Arc::<Mutex<Arrivals>>::default();
        let server = tokio::spawn(serve(listener, mark.into(), Arc::clone(&arrivals)));
        Ok(Self {
            address,
            arrivals,
            server,
        })
    }

    /// Returns the requests that have reached the backend up to now.
    pub fn arrivals(&self) -> Arrivals {
        *self.arrivals.lock().expect("the lock is not poisoned")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, mark: Arc<str>, arrivals: Arc<Mutex<Arrivals>>) {
    loop {
        // A client that disconnected before the accept sends no request.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // A response must not wait for an acknowledgement.
        drop(stream.set_nodelay(true));
        let (mark, arrivals) = (Arc::clone(&mark), Arc::clone(&arrivals));
        let service = service_fn(move |request| {
            let answer = note(&request, &mark, &arrivals);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

fn note(request: &Request<Incoming>, mark: &str, arrivals: &Mutex<Arrivals>) -> Response<Full<Bytes>> {
    let marks: Vec<_> = request.headers().get_all(CHECKED_BY).iter().collect();
    let mut arrivals = arrivals.lock().expect("the lock is not poisoned");
    arrivals.of_clients += u64::from(request.uri().path() == PATH);
    let verdict = match marks[..] {
        [only] if only == mark => {
            arrivals.checked += 1;
            CHECKED
        }
        [] => {
            arrivals.unmarked += 1;
            UNCHECKED
        }
        _ => {
            arrivals.forged += 1;
            UNCHECKED
        }
    };
    Response::new(Full::from(verdict))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http_body_util::Empty;

    use super::*;
    use crate::probe::{Answer, Host};

    #[tokio::test]
    async fn backend_counts_only_the_single_exact_mark_as_checked() {
        let backend = Backend::start(Ipv4Addr::LOCALHOST.into(), "secret".to_owned())
            .await
            .expect("a backend");
        let host = Host::http("a.test", backend.address);
        let mut connection = host.connect().await.expect("it listens");
        for (marks, verdict) in [
            (&["secret"][..], CHECKED),
            (&[], UNCHECKED),
            (&["Secret"], UNCHECKED),
            (&[""], UNCHECKED),
            (&["secret", "secret"], UNCHECKED),
            (&["guess", "secret"], UNCHECKED),
        ] {
            let mut request = host.request(PATH);
            for mark in marks {
                request = request.header(CHECKED_BY, *mark);
            }
            let answer = connection.send(request.body(Empty::new()).expect("valid")).await;
            let body = verdict.to_owned();
            assert_eq!(answer, Answer::Http { status: 200, body }, "{marks:?}");
        }
        let seen = backend.arrivals();
        assert_eq!(
            (seen.checked, seen.forged, seen.unmarked, seen.of_clients),
            (1, 4, 1, 6)
        );
    }
}
