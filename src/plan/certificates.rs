//! The certificates by which Contour and its Envoys authenticate each other (xDS is mutual TLS). Each ContourDeployment has its own
//! certificate authority, so the Contour of one ContourDeployment does not trust the Envoys of another.
//!
//! This module checks the existing certificates and requests those that are missing or due ([`Request`]), because issuing requires
//! randomness. Both sides trust the same bundle: the current authority and former authorities that are still valid. A certificate is
//! accepted if any authority of the bundle signed it. So both sides know a new authority long before a peer presents a certificate of that
//! authority. Contour and Envoy read changed files without a restart (Contour v1.33: `cmd/contour/servecontext.go`,
//! `internal/envoy/v3/bootstrap.go`).

mod x509;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Map, Value};

use self::x509::Certificate;
use super::issuing::{Leaf, Pair, Peer, PrivateKey, Request};
use super::object::{Kind, Object, Owner};
use super::observed::Observed;
use super::write::Desired;

/// The maximum number of former authorities in a bundle. More of them exist only if another user keeps deleting the Secret.
const FORMER_AUTHORITIES: usize = 3;

/// The assessment of the certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The desired Secrets that have content.
    pub desired: Vec<Desired>,
    /// The certificates to issue.
    pub request: Option<Request>,
    /// The time until the next certificate is due.
    pub renew_in: Option<Duration>,
    /// The problem of an overdue certificate, as a message.
    pub problem: Option<String>,
}

impl Certificates {
    /// Reports whether every Secret has content, so that pods can start. A pending renewal does not matter.
    pub fn are_complete(&self) -> bool {
        self.desired.len() == 1 + Peer::ALL.len()
    }
}

impl Peer {
    fn secret(self, owner: &Owner) -> String {
        match self {
            Self::Contour => owner.contour_secret(),
            Self::Envoy => owner.envoy_secret(),
        }
    }

    /// Returns the DNS names of the peer's certificate. Envoy requires the name `contour`, whatever the name of the Service is
    /// (`internal/envoy/v3/bootstrap.go`, v1.33). The names of the Service serve other clients. Contour does not check Envoy's names.
    fn dns_names(self, owner: &Owner) -> Vec<String> {
        match self {
            Self::Contour => {
                let (service, namespace) = (owner.contour(), &owner.namespace);
                let long = ["", ".svc", ".svc.cluster.local"].map(|suffix| format!("{service}.{namespace}{suffix}"));
                ["contour".to_owned(), service].into_iter().chain(long).collect()
            }
            Self::Envoy => vec!["envoy".to_owned()],
        }
    }
}

/// Assesses the certificates.
pub fn assess(observed: &Observed) -> Certificates {
    let owner = observed.owner();
    let now = observed.now.as_second();
    let issued = observed.issued.as_ref();
    let live = |name: &str| {
        observed
            .object(Kind::Secret, &owner.namespace, name)
            .filter(|secret| owner.owns(secret))
    };
    let mut result = Certificates {
        desired: Vec::new(),
        request: None,
        renew_in: None,
        problem: None,
    };
    let mut renewals = Vec::new();

    let name = owner.authority_secret();
    let stored = live(&name);
    let authority = pair_of(issued.and_then(|issued| issued.authority.clone()), stored).filter(|(pair, authority)| {
        authority.is_authority && authority.is_valid(now) && authority.has_key(&pair.key.0)
    });
    let sound = authority.as_ref().filter(|(_, authority)| now < authority.renew_at());
    if let Some((_, authority)) = &authority {
        renewals.push(authority.renew_at());
        result.problem = overdue(authority, now, &format!("{}/{name}", owner.namespace));
    }
    let stored_bundles = [stored]
        .into_iter()
        .chain(Peer::ALL.map(|peer| live(&peer.secret(&owner))))
        .flatten();
    let bundle = bundle(authority.as_ref().map(|(_, authority)| authority), stored_bundles, now);
    let trusted = authority.is_some().then_some(&bundle);
    result.desired.extend(secret(
        &owner,
        &name,
        authority.as_ref().map(|(pair, _)| pair).zip(trusted),
        stored,
    ));

    let mut leaves = Vec::new();
    for peer in Peer::ALL {
        let name = peer.secret(&owner);
        let stored = live(&name);
        let dns_names = peer.dns_names(&owner);
        let leaf = pair_of(issued.and_then(|issued| issued.leaves.get(&peer).cloned()), stored);
        let good = leaf.as_ref().filter(|(pair, leaf)| {
            dns_names.iter().all(|name| leaf.dns_names.contains(name))
                && leaf.is_valid(now)
                && leaf.has_key(&pair.key.0)
                && bundle.iter().any(|authority| leaf.is_signed_by(authority))
        });
        if let Some((_, leaf)) = &leaf {
            result.problem = result
                .problem
                .or_else(|| overdue(leaf, now, &format!("{}/{name}", owner.namespace)));
        }
        if let Some((_, leaf)) = good {
            renewals.push(leaf.renew_at());
        }
        if good.is_none_or(|(_, leaf)| leaf.renew_at() <= now) {
            leaves.push(Leaf { peer, dns_names });
        }
        result
            .desired
            .extend(secret(&owner, &name, good.map(|(pair, _)| pair).zip(trusted), stored));
    }

    if sound.is_none() || !leaves.is_empty() {
        result.request = Some(Request {
            authority: sound.map(|(pair, _)| pair.clone()),
            leaves,
        });
    }
    let next = renewals.into_iter().filter(|time| *time > now).min();
    result.renew_in = next
        .and_then(|time| u64::try_from(time - now).ok())
        .map(Duration::from_secs);
    result
}

/// Returns the issued pair, or else the stored pair, with its certificate. Returns None if the pair is unreadable.
fn pair_of(issued: Option<Pair>, stored: Option<&Object>) -> Option<(Pair, Certificate)> {
    let pair = issued.or_else(|| {
        let text = |key| String::from_utf8(data(stored?, key)?).ok();
        Some(Pair {
            certificate: text("tls.crt")?,
            key: PrivateKey(text("tls.key")?),
        })
    })?;
    let certificate = Certificate::all(pair.certificate.as_bytes()).into_iter().next()?;
    Some((pair, certificate))
}

/// Returns the authorities to trust: the current one, then the valid former ones in the live Secrets, newest first. The order is the same
/// on both sides and in every round.
fn bundle<'a>(present: Option<&Certificate>, live: impl Iterator<Item = &'a Object>, now: i64) -> Vec<Certificate> {
    let stored = live
        .flat_map(|secret| ["tls.crt", "ca.crt"].map(|key| data(secret, key)))
        .flatten();
    let mut former: Vec<Certificate> = stored
        .flat_map(|pem| Certificate::all(&pem))
        .filter(|authority| authority.is_authority && authority.is_valid(now) && Some(authority) != present)
        .collect();
    former.sort_by(|a, b| b.not_before.cmp(&a.not_before).then_with(|| a.der.cmp(&b.der)));
    former.dedup();
    former.truncate(FORMER_AUTHORITIES);
    present.cloned().into_iter().chain(former).collect()
}

/// Returns the Secret with this pair and this bundle, in the form of Contour's own certgen (`--secrets-format=compact`, v1.33). Without a
/// usable pair, returns the Secret as stored, or None if no Secret is stored.
fn secret(
    owner: &Owner,
    name: &str,
    content: Option<(&Pair, &Vec<Certificate>)>,
    live: Option<&Object>,
) -> Option<Desired> {
    let metadata = owner.metadata(Kind::Secret, &owner.namespace, name);
    let Some((pair, bundle)) = content else {
        let kept = live?.content.iter().filter(|(key, _)| *key == "data" || *key == "type");
        let content: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        return Some(Desired::shared(Object {
            kind: Kind::Secret,
            metadata,
            content,
            creation_entry: None,
        }));
    };
    let bundle: String = bundle.iter().map(Certificate::to_pem).collect();
    let data = [
        ("ca.crt", bundle),
        ("tls.crt", pair.certificate.clone()),
        ("tls.key", pair.key.0.clone()),
    ];
    let secret = Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    };
    Some(Desired::shared(Object::of(&secret)))
}

/// Returns a message if the renewal of a certificate is overdue: half of the time for renewal has passed.
fn overdue(certificate: &Certificate, now: i64, secret: &str) -> Option<String> {
    let end = certificate.not_after;
    let late = end - (end - certificate.renew_at()) / 2;
    let time = Timestamp::from_second(end).map_or_else(|_| end.to_string(), |time| time.to_string());
    if now > end {
        Some(format!(
            "the certificate in Secret {secret} expired at {time} and has not been renewed; check the operator's log"
        ))
    } else if now >= late {
        Some(format!(
            "the certificate in Secret {secret} expires at {time} and has not been renewed; check the operator's log"
        ))
    } else {
        None
    }
}

/// Returns an entry of a Secret.
fn data(secret: &Object, key: &str) -> Option<Vec<u8>> {
    let text = secret.at("/data")?.get(key)?.as_str()?;
    data_encoding::BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
