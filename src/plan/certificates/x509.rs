//! What has to be known of a certificate, and no more. Reading only: nothing here needs a clock or randomness.

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// All of it.
    pub der: Vec<u8>,
    /// First second of its validity, since 1970.
    pub not_before: i64,
    /// Last second of its validity, since 1970.
    pub not_after: i64,
    /// Its subject alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    public_key: Vec<u8>,
}

impl Certificate {
    /// All that are in a PEM text; what can't be read is left out.
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

    /// Whether it is within its validity.
    pub fn is_valid(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// From when on it is to be replaced: when less than a third of its validity remains.
    pub fn renew_at(&self) -> i64 {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// Whether this private key, in PEM, is the one that belongs to it.
    pub fn has_key(&self, pem: &str) -> bool {
        rcgen::KeyPair::from_pem(pem).is_ok_and(|key| key.public_key_raw() == self.public_key)
    }

    /// Whether this authority signed it.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, leaf)), Ok((_, issuer))) = (
            X509Certificate::from_der(&self.der),
            X509Certificate::from_der(&authority.der),
        ) else {
            return false;
        };
        leaf.issuer() == issuer.subject() && leaf.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// In PEM, always the same text for the same certificate.
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
