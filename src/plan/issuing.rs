//! The request for certificates, and the answer from outside the core.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A request for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The authority that signs. None: issue a new authority.
    pub authority: Option<Pair>,
    /// The certificates to issue.
    pub leaves: Vec<Leaf>,
}

/// A certificate to issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// The peer that presents the certificate.
    pub peer: Peer,
    /// The DNS names of the certificate.
    pub dns_names: Vec<String>,
}

/// The issued certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// The new authority, if one was requested.
    pub authority: Option<Pair>,
    /// The requested certificates.
    pub leaves: BTreeMap<Peer, Pair>,
}

/// A peer of an xDS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Peer {
    /// The server.
    Contour,
    /// The client.
    Envoy,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, which is never printed and never serialized.
    #[serde(skip)]
    pub key: PrivateKey,
}

/// A private key, in PEM (PKCS #8).
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub String);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl Peer {
    /// Both peers.
    pub const ALL: [Self; 2] = [Self::Contour, Self::Envoy];
}
