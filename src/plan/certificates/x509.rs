//! The required properties of a certificate. This module only reads certificates, without a clock or randomness.

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The whole certificate in DER.
    pub der: Vec<u8>,
    /// The first second of its validity, in Unix time.
    pub not_before: i64,
    /// The last second of its validity, in Unix time.
    pub not_after: i64,
    /// The DNS names among its subject alternative names.
    pub dns_names: Vec<String>,
    /// Whether the certificate may sign other certificates.
    pub is_authority: bool,
    public_key: Vec<u8>,
}

impl Certificate {
    /// Returns all certificates in a PEM text. Unreadable certificates are skipped.
    pub fn all(pem: &[u8]) -> Vec<Self> {
        let blocks = Pem::iter_from_buffer(pem).map_while(Result::ok);
        blocks
            .filter(|block| block.label == "CERTIFICATE")
            .filter_map(|block| Self::read(block.contents))
            .collect()
    }

    fn read(der: Vec<u8>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let names = parsed
            .subject_alternative_name()
            .ok()?
            .map(|extension| extension.value.general_names.clone());
        let dns_names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        });
        let (not_before, not_after) = (
            parsed.validity().not_before.timestamp(),
            parsed.validity().not_after.timestamp(),
        );
        let (dns_names, is_authority) = (dns_names.collect(), parsed.is_ca());
        let public_key = parsed.public_key().subject_public_key.data.to_vec();
        Some(Self {
            der,
            not_before,
            not_after,
            dns_names,
            is_authority,
            public_key,
        })
    }

    /// Reports whether the certificate is valid at this time, in Unix seconds.
    pub fn is_valid(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Returns the time, in Unix seconds, from which the certificate is due for renewal: when less than a third of its validity remains.
    pub fn renew_at(&self) -> i64 {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// Reports whether this private key, in PEM, belongs to the certificate.
    pub fn has_key(&self, pem: &str) -> bool {
        rcgen::KeyPair::from_pem(pem).is_ok_and(|key| key.public_key_raw() == self.public_key)
    }

    /// Reports whether this authority signed the certificate.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, leaf)), Ok((_, issuer))) = (
            X509Certificate::from_der(&self.der),
            X509Certificate::from_der(&authority.der),
        ) else {
            return false;
        };
        leaf.issuer() == issuer.subject() && leaf.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Returns the certificate in PEM. The text is always the same for the same certificate.
    pub fn to_pem(&self) -> String {
        let text = data_encoding::BASE64.encode(&self.der);
        let lines = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.collect::<Vec<_>>().join("\n")
        )
    }
}
