//! Requests of a client of Envoy, and their outcomes.
//!
//! A probe opens a new connection for each request. Only a new connection shows whether a listener still exists. Constant traffic
//! also keeps some connections open.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::http::request;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::authorizer;

/// The time limit for one request, its connection included.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The credentials of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No credentials.
    Anonymous,
    /// The credentials that the authorization server accepts: [`authorizer::CREDENTIALS`].
    Authorized,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous requests",
            Self::Authorized => "authorized requests",
        })
    }
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response.
    Http {
        /// The response's status code.
        status: u16,
        /// The response's body.
        body: String,
    },
    /// Nothing listens on the address.
    Refused,
    /// A connection without a TLS session: the virtual host does not exist, or its certificate is wrong.
    Handshake(String),
    /// The connection broke before a response.
    Broken(String),
    /// No response within [`LIMIT`].
    Silent,
}

impl Answer {
    /// Returns the status code, or None without an HTTP response.
    pub fn status(&self) -> Option<u16> {
        if let Self::Http { status, .. } = self {
            Some(*status)
        } else {
            None
        }
    }

    /// Reports whether the backend answered and had received the mark of the authorization server, which allowed requests carry.
    ///
    /// The backend returns the headers of the request in its response (go-httpbin, `/headers`).
    pub fn was_checked(&self) -> bool {
        matches!(self, Self::Http { status: 200, body } if body.contains(authorizer::CHECKER))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { status, .. } => write!(f, "{status}"),
            Self::Refused => f.write_str("connection refused"),
            Self::Handshake(why) => write!(f, "TLS handshake failed ({why})"),
            Self::Broken(why) => write!(f, "connection broken ({why})"),
            Self::Silent => write!(f, "no answer within {} s", LIMIT.as_secs()),
        }
    }
}

/// A virtual host of an Envoy.
#[derive(Clone)]
pub struct Host {
    name: String,
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Host {
    /// Returns the host `name` over HTTP at `address`.
    pub fn http(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            tls: None,
        }
    }

    /// Returns the host `name` over HTTPS at `address`. Only certificates that `authority` signed are trusted.
    pub fn https(name: &str, address: SocketAddr, authority: CertificateDer<'static>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority).context("using the authority's certificate")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choosing TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            name: name.to_owned(),
            address,
            tls: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    /// Returns `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Sends `GET /headers` on a new connection.
    pub async fn get(&self, caller: Caller) -> Answer {
        timeout(LIMIT, Box::pin(self.connect_and_get(caller)))
            .await
            .unwrap_or(Answer::Silent)
    }

    async fn connect_and_get(&self, caller: Caller) -> Answer {
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(answer) => return answer,
        };
        let mut request = self.request("/headers");
        if caller == Caller::Authorized {
            request = request.header(header::AUTHORIZATION, authorizer::CREDENTIALS);
        }
        connection
            .send(request.body(Empty::new()).expect("its parts are valid"))
            .await
    }

    /// Returns the builder of a GET request for a path of this host.
    pub fn request(&self, path: &str) -> request::Builder {
        Request::get(path).header(header::HOST, &self.name)
    }

    /// Opens a new connection. The error is the outcome that a request on that connection would have had.
    pub async fn connect(&self) -> Result<Connection, Answer> {
        let stream = match TcpStream::connect(self.address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(Answer::Refused),
            Err(error) => return Err(Answer::Broken(error.to_string())),
        };
        // With Nagle's algorithm the request would wait some 40 ms for the peer's delayed acknowledgement of the handshake.
        if let Err(error) = stream.set_nodelay(true) {
            return Err(Answer::Broken(error.to_string()));
        }
        let Some(tls) = &self.tls else {
            return Connection::over(stream).await;
        };
        let name = match ServerName::try_from(self.name.clone()) {
            Ok(name) => name,
            Err(error) => return Err(Answer::Handshake(error.to_string())),
        };
        match tls.connect(name, stream).await {
            Ok(stream) => Connection::over(stream).await,
            Err(error) => Err(Answer::Handshake(error.to_string())),
        }
    }
}

/// A connection to a host for several requests in sequence.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Connection {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, Answer> {
        match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
            // `sender` reports any error of the connection, too.
            Ok((sender, connection)) => Ok(Self {
                sender,
                driver: tokio::spawn(connection),
            }),
            Err(error) => Err(Answer::Broken(error.to_string())),
        }
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: Request<Empty<Bytes>>) -> Answer {
        let answer = async {
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer::Http {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        answer.await.unwrap_or_else(|error| Answer::Broken(error.to_string()))
    }

    /// Reports whether another request can follow. The server may have announced a close, or have closed the connection.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{} at {}", self.scheme(), self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::certificate::{Authority, Leaf};

    const HOST: &str = "https.demo.test";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\nslipway-ext-authz";

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        (listener, address)
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, with: &[u8]) {
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("a request");
        assert_eq!(&start, b"GET /headers");
        stream.write_all(with).await.expect("the client listens");
        stream.flush().await.expect("the client listens");
        // Reads until the client closes: closing a socket with unread input would reset the connection.
        while stream.read(&mut [0; 512]).await.is_ok_and(|count| count > 0) {}
    }

    fn tls_of(leaf: &Leaf) -> TlsAcceptor {
        let key = PrivateKeyDer::from(leaf.key_der());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate_der()], key)
            .expect("a certificate with its key");
        TlsAcceptor::from(Arc::new(config))
    }

    #[tokio::test]
    async fn port_without_a_listener_refuses_connections() {
        let (listener, address) = listener().await;
        drop(listener);
        assert_eq!(
            Host::http("a.test", address).get(Caller::Anonymous).await,
            Answer::Refused
        );
    }

    #[tokio::test]
    async fn hang_up_is_broken_over_http_and_handshake_over_https() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                drop(listener.accept().await);
            }
        });
        let authority = Authority::new().expect("an authority");
        let http = Host::http("a.test", address).get(Caller::Anonymous).await;
        assert!(matches!(http, Answer::Broken(_)), "{http}");
        let https = Host::https(HOST, address, authority.certificate_der()).expect("a host");
        let https = https.get(Caller::Anonymous).await;
        assert!(matches!(https, Answer::Handshake(_)), "{https}");
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn https_host_trusts_only_its_own_authority() {
        let authority = Authority::new().expect("an authority");
        let acceptor = tls_of(&authority.sign(HOST).expect("a certificate"));
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            answer(acceptor.accept(stream).await.expect("a session"), OK).await;
            let (stream, _) = listener.accept().await.expect("a client");
            assert!(acceptor.accept(stream).await.is_err());
        });
        let right = Host::https(HOST, address, authority.certificate_der()).expect("a host");
        let seen = right.get(Caller::Authorized).await;
        assert_eq!(seen.status(), Some(200), "{seen}");
        assert!(seen.was_checked());
        let stranger = Authority::new().expect("another").certificate_der();
        let seen = Host::https(HOST, address, stranger)
            .expect("a host")
            .get(Caller::Authorized)
            .await;
        assert!(matches!(seen, Answer::Handshake(_)), "{seen}");
        server.await.expect("no panic");
    }
}
