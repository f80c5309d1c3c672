use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::x509::Certificate;
use super::{Certificates, Pair, Peer, assess, data};
use crate::issuer::issue;
use crate::plan::diff;
use crate::plan::issuing::{Issued, PrivateKey};
use crate::plan::object::Object;
use crate::plan::observed::Observed;
use crate::plan::write::{Desired, Write};

const DAY: Duration = Duration::from_hours(24);

fn days(days: u32) -> Timestamp {
    "2026-11-23T01:20:00Z".parse::<Timestamp>().unwrap() + DAY * days
}

fn nothing() -> Observed {
    crate::plan::operand::tests::observed(&json!({}))
}

/// Plans, issues the requested certificates and writes the Secrets.
fn settle(observed: &mut Observed) -> Option<Issued> {
    let request = assess(observed).request;
    let issued = request.map(|request| issue(&request, observed.now).unwrap());
    observed.issued.clone_from(&issued);
    let certificates = assess(observed);
    assert_eq!(certificates.request, None, "every requested certificate was issued");
    for desired in &certificates.desired {
        write(observed, desired.object.clone());
    }
    observed.issued = None;
    issued
}

fn write(observed: &mut Observed, mut object: Object) {
    let applied = diff::need(&Desired::shared(object.clone()), observed, &observed.owner());
    if let diff::Need::Write(Write::Create(written) | Write::Apply { object: written, .. }) = applied {
        object = written;
    }
    observed.objects.insert(object.key(), Arc::new(object));
}

fn fresh() -> Observed {
    let mut observed = nothing();
    settle(&mut observed);
    observed
}

fn secret<'a>(observed: &'a Observed, name: &str) -> &'a Object {
    let secret = observed.objects.values().find(|object| object.name() == name);
    secret.unwrap_or_else(|| panic!("no Secret {name}"))
}

fn entry(observed: &Observed, name: &str, key: &str) -> String {
    String::from_utf8(data(secret(observed, name), key).unwrap()).unwrap()
}

fn set_entry(observed: &mut Observed, name: &str, key: &str, text: &str) {
    let mut changed = secret(observed, name).clone();
    changed.content["data"][key] = json!(data_encoding::BASE64.encode(text.as_bytes()));
    observed.objects.insert(changed.key(), Arc::new(changed));
}

fn remove(observed: &mut Observed, name: &str) {
    let key = secret(observed, name).key();
    observed.objects.remove(&key);
}

fn bundle(observed: &Observed, name: &str) -> Vec<Certificate> {
    Certificate::all(entry(observed, name, "ca.crt").as_bytes())
}

/// Returns whether a new authority is requested, and the peers that need certificates.
fn asked(certificates: &Certificates) -> Option<(bool, Vec<Peer>)> {
    let request = certificates.request.as_ref()?;
    Some((
        request.authority.is_none(),
        request.leaves.iter().map(|leaf| leaf.peer).collect(),
    ))
}

const BOTH: [Peer; 2] = Peer::ALL;

#[test]
fn without_secrets_all_certificates_are_requested() {
    let certificates = assess(&nothing());
    assert_eq!(asked(&certificates), Some((true, BOTH.to_vec())));
    assert_eq!(certificates.desired, []);
    assert!(!certificates.are_complete());
    assert_eq!(certificates.problem, None);
}

#[test]
fn issued_certificates_are_kept_and_nothing_more_is_requested() {
    let observed = fresh();
    let certificates = assess(&observed);
    assert_eq!(certificates.request, None);
    assert_eq!(certificates.problem, None);
    // A leaf certificate is valid for 366 days, including the day before its issue.
    assert_eq!(certificates.renew_in, Some(DAY * (365 - 122)));
    for desired in &certificates.desired {
        assert_eq!(
            diff::need(desired, &observed, &observed.owner()),
            diff::Need::Nothing(Vec::new()),
            "{}",
            desired.object.key()
        );
    }
}

#[test]
fn certificates_meet_the_requirements_of_contour_and_envoy() {
    let observed = fresh();
    let authority = bundle(&observed, "edge-xds-ca").remove(0);
    assert!(authority.is_authority && authority.has_key(&entry(&observed, "edge-xds-ca", "tls.key")));
    for name in ["edge-contour-cert", "edge-envoy-cert"] {
        let leaf = Certificate::all(entry(&observed, name, "tls.crt").as_bytes()).remove(0);
        assert!(!leaf.is_authority && leaf.is_signed_by(&authority), "{name}");
        assert!(leaf.has_key(&entry(&observed, name, "tls.key")), "{name}");
        assert!(
            leaf.is_valid((observed.now - DAY).as_second()),
            "{name}: a peer's clock may be a day behind"
        );
        assert_eq!(bundle(&observed, name), std::slice::from_ref(&authority), "{name}");
        assert_eq!(secret(&observed, name).at("/type"), Some(&json!("kubernetes.io/tls")));
    }
    let contour = Certificate::all(entry(&observed, "edge-contour-cert", "tls.crt").as_bytes()).remove(0);
    assert_eq!(
        contour.dns_names[..3],
        ["contour", "edge-contour", "edge-contour.projectcontour"]
    );
}

#[test]
fn leaves_are_renewed_when_less_than_a_third_of_life_remains() {
    let mut observed = fresh();
    observed.now = days(365 - 122) - Duration::from_secs(1);
    assert_eq!(assess(&observed).request, None);
    observed.now = days(365 - 122);
    let certificates = assess(&observed);
    assert_eq!(asked(&certificates), Some((false, BOTH.to_vec())));
    assert!(
        certificates.are_complete(),
        "the old certificates are kept until the new ones are issued"
    );
    assert!(certificates.renew_in > Some(DAY), "the authority is due next");
    let before = entry(&observed, "edge-envoy-cert", "tls.crt");
    settle(&mut observed);
    assert_ne!(entry(&observed, "edge-envoy-cert", "tls.crt"), before);
    assert_eq!(assess(&observed).renew_in, Some(DAY * (365 - 122)));
}

#[test]
fn authorities_are_renewed_when_less_than_a_third_remains() {
    let mut observed = fresh();
    let authority = bundle(&observed, "edge-xds-ca").remove(0);
    for (late, is_due) in [(-1, false), (0, true)] {
        observed.now = Timestamp::from_second(authority.renew_at() + late).unwrap();
        let (is_asked, _) = asked(&assess(&observed)).expect("the leaf certificates have expired");
        assert_eq!(is_asked, is_due, "{late}");
    }
}

#[test]
fn an_unusable_certificate_is_replaced_and_the_other_is_kept() {
    let foreign = fresh();
    let of_another = |key: &str| entry(&foreign, "edge-contour-cert", key);
    let table: [(&str, Vec<(&str, String)>); 6] = [
        ("not PEM", vec![("tls.crt", "garbage".into())]),
        ("empty", vec![("tls.crt", String::new()), ("tls.key", String::new())]),
        ("no key", vec![("tls.key", "garbage".into())]),
        (
            "the key of another certificate",
            vec![("tls.key", of_another("tls.key"))],
        ),
        (
            "of an untrusted authority",
            vec![("tls.crt", of_another("tls.crt")), ("tls.key", of_another("tls.key"))],
        ),
        ("of another peer", vec![("tls.crt", String::new())]),
    ];
    for (what, entries) in table {
        let mut observed = fresh();
        for (key, text) in entries {
            set_entry(&mut observed, "edge-contour-cert", key, &text);
        }
        if what == "of another peer" {
            for key in ["tls.crt", "tls.key"] {
                let text = entry(&observed, "edge-envoy-cert", key);
                set_entry(&mut observed, "edge-contour-cert", key, &text);
            }
        }
        let certificates = assess(&observed);
        assert_eq!(asked(&certificates), Some((false, vec![Peer::Contour])), "{what}");
        assert!(certificates.are_complete(), "{what}: the Secret is kept until then");
        let envoys = entry(&observed, "edge-envoy-cert", "tls.crt");
        settle(&mut observed);
        assert_eq!(assess(&observed).request, None, "{what}");
        assert_eq!(entry(&observed, "edge-envoy-cert", "tls.crt"), envoys, "{what}");
    }
}

#[test]
fn a_secret_is_kept_until_a_usable_pair_exists() {
    let mut observed = fresh();
    set_entry(&mut observed, "edge-envoy-cert", "tls.crt", "garbage");
    let stored = secret(&observed, "edge-envoy-cert").content.clone();
    assert!(stored.contains_key("data") && stored.contains_key("type"));
    let mut odd = secret(&observed, "edge-envoy-cert").clone();
    odd.content.insert("immutable".into(), json!(false));
    observed.objects.insert(odd.key(), Arc::new(odd));
    let certificates = assess(&observed);
    let kept = certificates
        .desired
        .iter()
        .find(|desired| desired.object.name() == "edge-envoy-cert");
    assert_eq!(kept.expect("the Secret is kept").object.content, stored);
}

#[test]
fn a_bundle_without_the_authority_is_repaired_without_issuing() {
    let mut observed = fresh();
    set_entry(&mut observed, "edge-envoy-cert", "ca.crt", "");
    assert_eq!(settle(&mut observed), None);
    assert_eq!(bundle(&observed, "edge-envoy-cert"), bundle(&observed, "edge-xds-ca"));
}

#[test]
fn replacing_an_authority_disconnects_no_peer() {
    type Loss = fn(&mut Observed);
    let losses: [(&str, Loss); 3] = [
        ("the Secret is deleted", |observed| remove(observed, "edge-xds-ca")),
        ("the key is lost", |observed| {
            set_entry(observed, "edge-xds-ca", "tls.key", "");
        }),
        ("the authority is due", |observed| {
            // Seven years, in which the leaf certificates were renewed in time.
            for half_years in 1..=15 {
                observed.now = days(half_years * 182);
                settle(observed);
            }
        }),
    ];
    for (what, lose) in losses {
        let mut observed = fresh();
        let old = bundle(&observed, "edge-xds-ca").remove(0);
        lose(&mut observed);
        let leaves = ["edge-contour-cert", "edge-envoy-cert"].map(|name| entry(&observed, name, "tls.crt"));
        if what != "the authority is due" {
            assert_eq!(asked(&assess(&observed)), Some((true, vec![])), "{what}");
        }
        settle(&mut observed);
        for (name, leaf) in ["edge-contour-cert", "edge-envoy-cert"].into_iter().zip(leaves) {
            assert_eq!(
                entry(&observed, name, "tls.crt"),
                leaf,
                "{what}: {name} is kept until its own renewal is due"
            );
            let trusted = bundle(&observed, name);
            assert_eq!(trusted.len(), 2, "{what}");
            assert_eq!(trusted[1], old, "{what}");
        }
        // The new authority signs the next certificate. Both sides already trust that authority.
        remove(&mut observed, "edge-contour-cert");
        settle(&mut observed);
        let new = Certificate::all(entry(&observed, "edge-xds-ca", "tls.crt").as_bytes()).remove(0);
        let leaf = Certificate::all(entry(&observed, "edge-contour-cert", "tls.crt").as_bytes()).remove(0);
        assert!(leaf.is_signed_by(&new) && !leaf.is_signed_by(&old), "{what}");
    }
}

#[test]
fn former_authorities_are_few_and_expired_ones_are_dropped() {
    let mut observed = fresh();
    for round in 1..=6 {
        observed.now = days(round);
        remove(&mut observed, "edge-xds-ca");
        settle(&mut observed);
    }
    assert_eq!(
        assess(&observed).request,
        None,
        "a leaf certificate was renewed when its authority left the bundle"
    );
    assert_eq!(bundle(&observed, "edge-contour-cert").len(), 4);
    assert_eq!(
        bundle(&observed, "edge-contour-cert"),
        bundle(&observed, "edge-envoy-cert")
    );
    observed.now = days(3650 * 2);
    settle(&mut observed);
    assert_eq!(bundle(&observed, "edge-contour-cert").len(), 1);
}

#[test]
fn a_certificate_expires_after_its_last_second() {
    let mut observed = fresh();
    let leaf = Certificate::all(entry(&observed, "edge-envoy-cert", "tls.crt").as_bytes()).remove(0);
    for (late, words) in [(0, "expires at"), (1, "expired at")] {
        observed.now = Timestamp::from_second(leaf.not_after + late).unwrap();
        let problem = assess(&observed).problem.unwrap();
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn an_overdue_certificate_is_reported() {
    let mut observed = fresh();
    observed.now = days(365 - 62);
    assert_eq!(assess(&observed).problem, None, "the renewal is not overdue yet");
    observed.now = days(365 - 60);
    let problem = assess(&observed).problem.unwrap();
    assert!(
        problem.contains("projectcontour/edge-contour-cert expires at 2027-11-23T01:20:00Z"),
        "{problem}"
    );
    observed.now = days(366);
    let problem = assess(&observed).problem.unwrap();
    assert!(problem.contains("expired at 2027-11-23T01:20:00Z"), "{problem}");
    settle(&mut observed);
    assert_eq!(assess(&observed).problem, None);
}

#[test]
fn slipway_ignores_a_secret_of_another_owner() {
    let mut observed = fresh();
    let mut foreign = secret(&observed, "edge-envoy-cert").clone();
    foreign.metadata.owner_references = None;
    foreign.metadata.labels = Some([("contour.slipway.dev/contourdeployment".into(), "other".into())].into());
    observed.objects.insert(foreign.key(), Arc::new(foreign));
    assert_eq!(asked(&assess(&observed)), Some((false, vec![Peer::Envoy])));
}

#[test]
fn keys_are_never_printed() {
    let pair = Pair {
        certificate: "certificate".into(),
        key: PrivateKey("secret".into()),
    };
    assert_eq!(format!("{:?}", pair.key), "PrivateKey(…)");
    assert!(!format!("{pair:?}").contains("secret"));
    assert!(!serde_json::to_string(&pair).unwrap().contains("secret"));
}
