//! Certificates for the HTTPS host of the demo, generated for each run.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Generates a new authority. Only the clients of this run trust this authority.
    pub fn new() -> anyhow::Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "slipway demo");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().context("generating the authority's key")?;
        CertifiedIssuer::self_signed(parameters, key)
            .map(Self)
            .context("creating the authority")
    }

    /// Returns the authority's certificate, for the clients that trust the authority.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Generates a key and a certificate for `host`.
    pub fn sign(&self, host: &str) -> anyhow::Result<Leaf> {
        let key = KeyPair::generate().with_context(|| format!("generating a key for {host}"))?;
        let certificate = CertificateParams::new([host.to_owned()])
            .and_then(|parameters| parameters.signed_by(&key, &self.0))
            .with_context(|| format!("signing a certificate for {host}"))?;
        Ok(Leaf { certificate, key })
    }
}

/// A host's certificate and its key.
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Leaf {
    /// Returns the certificate.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Returns the key in PKCS #8.
    pub fn key_der(&self) -> PrivatePkcs8KeyDer<'static> {
        self.key.serialize_der().into()
    }

    /// Returns certificate and key as a Secret of type `kubernetes.io/tls`.
    pub fn secret(&self, namespace: &str, name: &str) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self.certificate.pem(), "tls.key": self.key.serialize_pem()},
        })
    }
}
