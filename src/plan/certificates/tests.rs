use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::x509::Certificate;
use super::{Certificates, Pair, Peer, data, plan};
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

/// What is planned, with what it asked for issued and written.
fn settle(observed: &mut Observed) -> Option<Issued> {
    let request = plan(observed).request;
    let issued = request.map(|request| issue(&request, observed.now).unwrap());
    observed.issued.clone_from(&issued);
    let certificates = plan(observed);
    assert_eq!(certificates.request, None, "what was issued is what was asked for");
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

/// What is asked for: whether a new authority, and for whom.
fn asked(certificates: &Certificates) -> Option<(bool, Vec<Peer>)> {
    let request = certificates.request.as_ref()?;
    Some((
        request.authority.is_none(),
        request.leaves.iter().map(|leaf| leaf.peer).collect(),
    ))
}

const BOTH: [Peer; 2] = Peer::ALL;

#[test]
fn where_nothing_is_everything_is_asked_for_and_nothing_written() {
    let certificates = plan(&nothing());
    assert_eq!(asked(&certificates), Some((true, BOTH.to_vec())));
    assert_eq!(certificates.desired, []);
    assert!(!certificates.are_complete());
    assert_eq!(certificates.problem, None);
}

#[test]
fn what_was_issued_is_kept_and_nothing_more_is_asked_for() {
    let observed = fresh();
    let certificates = plan(&observed);
    assert_eq!(certificates.request, None);
    assert_eq!(certificates.problem, None);
    // A leaf lives 366 days, the day before it was issued included.
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
fn the_certificates_are_what_contour_and_envoy_insist_on() {
    let observed = fresh();
    let authority = bundle(&observed, "edge-xds-ca").remove(0);
    assert!(authority.is_authority && authority.has_key(&entry(&observed, "edge-xds-ca", "tls.key")));
    for name in ["edge-contour-cert", "edge-envoy-cert"] {
        let leaf = Certificate::all(entry(&observed, name, "tls.crt").as_bytes()).remove(0);
        assert!(!leaf.is_authority && leaf.is_signed_by(&authority), "{name}");
        assert!(leaf.has_key(&entry(&observed, name, "tls.key")), "{name}");
        assert!(
            leaf.is_valid((observed.now - DAY).as_second()),
            "{name}: another clock may be a day late"
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
fn certificates_are_renewed_when_less_than_a_third_of_their_life_remains() {
    let mut observed = fresh();
    observed.now = days(365 - 122) - Duration::from_secs(1);
    assert_eq!(plan(&observed).request, None);
    observed.now = days(365 - 122);
    let certificates = plan(&observed);
    assert_eq!(asked(&certificates), Some((false, BOTH.to_vec())));
    assert!(certificates.are_complete(), "until they are issued the old ones stay");
    assert!(certificates.renew_in > Some(DAY), "the next is the authority");
    let before = entry(&observed, "edge-envoy-cert", "tls.crt");
    settle(&mut observed);
    assert_ne!(entry(&observed, "edge-envoy-cert", "tls.crt"), before);
    assert_eq!(plan(&observed).renew_in, Some(DAY * (365 - 122)));
}

#[test]
fn an_authority_is_replaced_when_less_than_a_third_of_its_life_remains() {
    let mut observed = fresh();
    let authority = bundle(&observed, "edge-xds-ca").remove(0);
    for (late, is_due) in [(-1, false), (0, true)] {
        observed.now = Timestamp::from_second(authority.renew_at() + late).unwrap();
        let (is_asked, _) = asked(&plan(&observed)).expect("the others are over");
        assert_eq!(is_asked, is_due, "{late}");
    }
}

#[test]
fn a_certificate_that_is_no_good_is_asked_for_and_the_other_one_kept() {
    let foreign = fresh();
    let of_another = |key: &str| entry(&foreign, "edge-contour-cert", key);
    let table: [(&str, Vec<(&str, String)>); 6] = [
        ("not PEM", vec![("tls.crt", "garbage".into())]),
        ("empty", vec![("tls.crt", String::new()), ("tls.key", String::new())]),
        ("no key", vec![("tls.key", "garbage".into())]),
        ("the key of another", vec![("tls.key", of_another("tls.key"))]),
        (
            "of an authority that nobody trusts",
            vec![("tls.crt", of_another("tls.crt")), ("tls.key", of_another("tls.key"))],
        ),
        ("of another service", vec![("tls.crt", String::new())]),
    ];
    for (what, entries) in table {
        let mut observed = fresh();
        for (key, text) in entries {
            set_entry(&mut observed, "edge-contour-cert", key, &text);
        }
        if what == "of another service" {
            for key in ["tls.crt", "tls.key"] {
                let text = entry(&observed, "edge-envoy-cert", key);
                set_entry(&mut observed, "edge-contour-cert", key, &text);
            }
        }
        let certificates = plan(&observed);
        assert_eq!(asked(&certificates), Some((false, vec![Peer::Contour])), "{what}");
        assert!(certificates.are_complete(), "{what}: the Secret stays until then");
        let envoys = entry(&observed, "edge-envoy-cert", "tls.crt");
        settle(&mut observed);
        assert_eq!(plan(&observed).request, None, "{what}");
        assert_eq!(entry(&observed, "edge-envoy-cert", "tls.crt"), envoys, "{what}");
    }
}

#[test]
fn a_secret_without_a_pair_that_is_any_good_is_kept_as_it_is_until_there_is_one() {
    let mut observed = fresh();
    set_entry(&mut observed, "edge-envoy-cert", "tls.crt", "garbage");
    let stored = secret(&observed, "edge-envoy-cert").content.clone();
    assert!(stored.contains_key("data") && stored.contains_key("type"));
    let mut odd = secret(&observed, "edge-envoy-cert").clone();
    odd.content.insert("immutable".into(), json!(false));
    observed.objects.insert(odd.key(), Arc::new(odd));
    let certificates = plan(&observed);
    let kept = certificates
        .desired
        .iter()
        .find(|desired| desired.object.name() == "edge-envoy-cert");
    assert_eq!(kept.expect("it is kept").object.content, stored);
}

#[test]
fn a_bundle_that_lacks_the_authority_is_repaired_without_issuing_anything() {
    let mut observed = fresh();
    set_entry(&mut observed, "edge-envoy-cert", "ca.crt", "");
    assert_eq!(settle(&mut observed), None);
    assert_eq!(bundle(&observed, "edge-envoy-cert"), bundle(&observed, "edge-xds-ca"));
}

#[test]
fn a_replaced_authority_cuts_nobody_off() {
    type Loss = fn(&mut Observed);
    let losses: [(&str, Loss); 3] = [
        ("the Secret is deleted", |observed| remove(observed, "edge-xds-ca")),
        ("the key is lost", |observed| {
            set_entry(observed, "edge-xds-ca", "tls.key", "");
        }),
        ("it is due", |observed| {
            // Seven years, in which the others were renewed in time.
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
        if what != "it is due" {
            assert_eq!(asked(&plan(&observed)), Some((true, vec![])), "{what}");
        }
        settle(&mut observed);
        for (name, leaf) in ["edge-contour-cert", "edge-envoy-cert"].into_iter().zip(leaves) {
            assert_eq!(
                entry(&observed, name, "tls.crt"),
                leaf,
                "{what}: {name} stays until its own time comes"
            );
            let trusted = bundle(&observed, name);
            assert_eq!(trusted.len(), 2, "{what}");
            assert_eq!(trusted[1], old, "{what}");
        }
        // What comes next is signed by the new one, which both sides have long known.
        remove(&mut observed, "edge-contour-cert");
        settle(&mut observed);
        let new = Certificate::all(entry(&observed, "edge-xds-ca", "tls.crt").as_bytes()).remove(0);
        let leaf = Certificate::all(entry(&observed, "edge-contour-cert", "tls.crt").as_bytes()).remove(0);
        assert!(leaf.is_signed_by(&new) && !leaf.is_signed_by(&old), "{what}");
    }
}

#[test]
fn former_authorities_are_few_and_those_that_are_over_go() {
    let mut observed = fresh();
    for round in 1..=6 {
        observed.now = days(round);
        remove(&mut observed, "edge-xds-ca");
        settle(&mut observed);
    }
    assert_eq!(
        plan(&observed).request,
        None,
        "a leaf whose authority fell out of the bundle was renewed"
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
fn a_certificate_is_over_after_its_last_second() {
    let mut observed = fresh();
    let leaf = Certificate::all(entry(&observed, "edge-envoy-cert", "tls.crt").as_bytes()).remove(0);
    for (late, words) in [(0, "expires at"), (1, "expired at")] {
        observed.now = Timestamp::from_second(leaf.not_after + late).unwrap();
        let problem = plan(&observed).problem.unwrap();
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn a_certificate_that_is_long_overdue_is_a_problem_in_words() {
    let mut observed = fresh();
    observed.now = days(365 - 62);
    assert_eq!(plan(&observed).problem, None, "renewal still has time");
    observed.now = days(365 - 60);
    let problem = plan(&observed).problem.unwrap();
    assert!(
        problem.contains("projectcontour/edge-contour-cert expires at 2027-11-23T01:20:00Z"),
        "{problem}"
    );
    observed.now = days(366);
    let problem = plan(&observed).problem.unwrap();
    assert!(problem.contains("expired at 2027-11-23T01:20:00Z"), "{problem}");
    settle(&mut observed);
    assert_eq!(plan(&observed).problem, None);
}

#[test]
fn somebody_elses_secret_is_not_looked_at() {
    let mut observed = fresh();
    let mut foreign = secret(&observed, "edge-envoy-cert").clone();
    foreign.metadata.owner_references = None;
    foreign.metadata.labels = Some([("contour.slipway.dev/contourdeployment".into(), "other".into())].into());
    observed.objects.insert(foreign.key(), Arc::new(foreign));
    assert_eq!(asked(&plan(&observed)), Some((false, vec![Peer::Envoy])));
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
