//! What happens to requests now. It is read off what is rolled out (the configurations that running containers captured, and
//! where their stand-ins point), not off what the specification asks for.

use serde_json::{Map, Value};

use crate::api::contour::ExtensionServiceSpec;
use crate::api::{Role, Traffic};
use crate::plan::captured::{Captured, Contours};
use crate::plan::configuration::{changed, is_altered, is_intact};
use crate::plan::object::{Kind, Object};
use crate::plan::observed::Observed;
use crate::plan::stand_in::{Reference, is_blackhole};

/// What happens to the requests that this reference is about; the worst of what any running Contour does.
pub fn of(observed: &Observed, reference: &Reference) -> Traffic {
    let contours = Contours::of(observed);
    let known = contours.pods.iter();
    let known = known.map(|(_, set)| match Captured::of_template(set) {
        Some(captured) => under(observed, &captured, reference.role),
        None => Traffic::Unknown,
    });
    // One that has not started is told of when its ReplicaSet is seen, too.
    let has_started = |pod: &&&Object| pod.at("/status/phase").and_then(Value::as_str) == Some("Running");
    let pods = contours.strangers.iter().filter(|object| object.kind == Kind::Pod);
    let strangers = pods.filter(has_started).map(|_| Traffic::Unknown);
    // No Contour, no routes: nothing passes.
    let nothing_runs = if reference.role == Role::Tracing {
        Traffic::NotSampled
    } else {
        Traffic::Denied
    };
    known
        .chain(strangers)
        .max_by_key(|traffic| match traffic {
            Traffic::Enforced => 0,
            Traffic::NotSampled => 1,
            Traffic::Denied => 2,
            Traffic::AllowedUnchecked => 3,
            Traffic::Unknown => 4,
        })
        .unwrap_or(nothing_runs)
}

/// What happens under what a container has captured.
fn under(observed: &Observed, captured: &Captured, role: Role) -> Traffic {
    let owner = observed.owner();
    let live = observed.object(Kind::ContourConfiguration, &owner.namespace, &captured.configuration);
    // Somebody altered or deleted it, or wrote another one on the template: nobody can say what a container that started meanwhile
    // has read.
    if !is_intact(&owner, captured) || live.is_none_or(|live| is_altered(live) || !is_the_same(live, &captured.spec)) {
        return Traffic::Unknown;
    }
    let Some(block) = captured.spec.get(role.field()) else {
        return match role {
            Role::Tracing => Traffic::NotSampled,
            _ => Traffic::AllowedUnchecked,
        };
    };
    if block.pointer("/authPolicy/disabled").and_then(Value::as_bool) == Some(true) {
        return Traffic::AllowedUnchecked;
    }
    let reference = block.get("extensionRef").or_else(|| block.get("extensionService"));
    let text = |key: &str| {
        reference
            .and_then(|reference| reference.get(key))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let stand_in = observed.object(Kind::ExtensionService, text("namespace"), text("name"));
    if stand_in.is_some_and(|stand_in| answers(observed, stand_in)) {
        return Traffic::Enforced;
    }
    let fail_open = block.get("failOpen").and_then(Value::as_bool).unwrap_or_default();
    match role {
        Role::Tracing => Traffic::NotSampled,
        _ if fail_open => Traffic::AllowedUnchecked,
        _ => Traffic::Denied,
    }
}

/// Whether it is what it was made as, but for defaults that the CRD got later.
fn is_the_same(live: &Object, spec: &Map<String, Value>) -> bool {
    let live = live.at("/spec").and_then(Value::as_object);
    live.is_some_and(|live| changed(spec, live).is_none())
}

/// Whether somebody answers behind a stand-in.
fn answers(observed: &Observed, stand_in: &Object) -> bool {
    let spec = ExtensionServiceSpec(
        stand_in
            .at("/spec")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
    );
    let ready = |name: String| {
        observed
            .ready_services
            .contains(&(stand_in.namespace().to_owned(), name))
    };
    !is_blackhole(stand_in) && spec.services().into_iter().any(|service| ready(service.name))
}

/// What that means, in words.
pub fn consequence(reference: &Reference, traffic: Traffic) -> Option<String> {
    let words = match (reference.role, traffic) {
        (_, Traffic::Enforced) => return None,
        (_, Traffic::Unknown) => {
            return Some("what happens to requests is not known: a Contour runs on what Slipway can't tell".to_owned());
        }
        (Role::GlobalExternalAuthorization, Traffic::Denied) => "every request that needs authorization is denied",
        (Role::GlobalExternalAuthorization, _) => "requests pass without authorization",
        (Role::RateLimit, Traffic::Denied) => "rate-limited requests are denied",
        (Role::RateLimit, _) => "requests pass without rate limits",
        (Role::Tracing, _) => return Some("requests are not traced".to_owned()),
    };
    // What runs may not be what is specified yet.
    let why = match reference.fail_open {
        Some(fail_open) if fail_open == (traffic == Traffic::AllowedUnchecked) => format!("failOpen is {fail_open}"),
        _ => "until the present specification is rolled out".to_owned(),
    };
    Some(format!("{words} ({why})"))
}
