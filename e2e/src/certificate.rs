//! Certificates for the HTTPS host of the demo, made anew for each run.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, which nobody else trusts.
    pub fn new() -> anyhow::Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "slipway demo");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().context("making the authority's key")?;
        CertifiedIssuer::self_signed(parameters, key)
            .map(Self)
            .context("making the authority")
    }

    /// Its certificate, to be trusted.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for `host`, with its key.
    pub fn sign(&self, host: &str) -> anyhow::Result<Leaf> {
        let key = KeyPair::generate().with_context(|| format!("making a key for {host}"))?;
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
    /// The certificate.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The key, PKCS #8.
    pub fn key_der(&self) -> PrivatePkcs8KeyDer<'static> {
        self.key.serialize_der().into()
    }

    /// Both as a Secret of type `kubernetes.io/tls`.
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
