//! What is asked of the outside when certificates have to be issued, and what it answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What has to be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The authority to sign with; none: a new one.
    pub authority: Option<Pair>,
    /// Who needs a certificate.
    pub leaves: Vec<Leaf>,
}

/// A certificate that has to be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// For whom.
    pub peer: Peer,
    /// Its DNS names.
    pub dns_names: Vec<String>,
}

/// What was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// The new authority, if one was asked for.
    pub authority: Option<Pair>,
    /// The certificates that were asked for.
    pub leaves: BTreeMap<Peer, Pair>,
}

/// One side of an xDS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Peer {
    /// The server.
    Contour,
    /// The client.
    Envoy,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key; it is never printed and never serialized.
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
    /// Both.
    pub const ALL: [Self; 2] = [Self::Contour, Self::Envoy];
}
