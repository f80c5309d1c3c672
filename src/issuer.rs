//! Issues certificates. The issuer is not part of the core because keys need randomness. The core decides which certificates
//! are issued, and when (`plan/certificates.rs`).

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::plan::issuing::{Issued, Pair, Peer, PrivateKey, Request};

const DAY: Duration = Duration::from_hours(24);
const AUTHORITY_DAYS: u32 = 3650;
const LEAF_DAYS: u32 = 365;

/// Issues the requested certificates, with ECDSA keys on P-256. An authority is valid for ten years, every other certificate for one.
/// Each certificate is valid from the day before `now`, because clocks differ. Returns an error if the authority in the request
/// is unusable.
pub fn issue(request: &Request, now: Timestamp) -> Result<Issued, rcgen::Error> {
    issue_with(request, now, KeyPair::generate)
}

/// Issues the requested certificates with keys from `key`. The offline rendering passes the same keys each time, so that it issues the
/// same certificates.
pub fn issue_with(
    request: &Request,
    now: Timestamp,
    mut key: impl FnMut() -> Result<KeyPair, rcgen::Error>,
) -> Result<Issued, rcgen::Error> {
    let made = if request.authority.is_none() {
        Some(authority(now, &key()?)?)
    } else {
        None
    };
    let Some(signer) = request.authority.as_ref().or(made.as_ref()) else {
        unreachable!("the request has an authority, or one was issued")
    };
    let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(&signer.key.0)?)?;
    let leaves = request.leaves.iter().map(|leaf| {
        let key = key()?;
        let mut params = CertificateParams::new(leaf.dns_names.clone())?;
        let (name, usage) = match leaf.peer {
            Peer::Contour => ("contour", ExtendedKeyUsagePurpose::ServerAuth),
            Peer::Envoy => ("envoy", ExtendedKeyUsagePurpose::ClientAuth),
        };
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_DAYS);
        Ok((leaf.peer, pair(&params.signed_by(&key, &issuer)?, &key)))
    });
    let leaves = leaves.collect::<Result<_, rcgen::Error>>()?;
    Ok(Issued {
        authority: made,
        leaves,
    })
}

fn authority(now: Timestamp, key: &KeyPair) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // The time in the name distinguishes this authority from its predecessor: a bundle may hold both.
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Slipway xDS authority {}", now.strftime("%Y-%m-%dT%H:%M:%SZ")),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_DAYS);
    Ok(pair(&params.self_signed(key)?, key))
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let since_1970 = Duration::from_secs(now.as_second().try_into().unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

fn pair(certificate: &rcgen::Certificate, key: &KeyPair) -> Pair {
    Pair {
        certificate: certificate.pem(),
        key: PrivateKey(key.serialize_pem()),
    }
}
