//! What happens to requests now. It is read off what is rolled out (the configurations that running containers captured, and
//! where their stand-ins point), not off what the specification asks for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::contour::ExtensionServiceSpec;
use crate::api::{Role, Traffic};
use crate::plan::configuration::is_altered;
use crate::plan::object::{Kind, Object};
use crate::plan::observed::Observed;
use crate::plan::stand_in::{Reference, is_blackhole};
use crate::plan::usage;

/// What happens to the requests that this reference is about; the worst of what any running Contour does.
pub fn of(observed: &Observed, reference: &Reference) -> Traffic {
    let owner = observed.owner();
    let names: BTreeSet<String> = usage::contour_pods(observed)
        .filter_map(|pod| usage::captured(serde_json::to_value(&pod.metadata.annotations).ok().as_ref()))
        .map(|captured| captured.configuration)
        .collect();
    let configurations = names
        .iter()
        .filter_map(|name| observed.object(Kind::ContourConfiguration, &owner.namespace, name));
    let each = configurations.map(|configuration| under(observed, configuration, reference.role));
    // No Contour, no routes: nothing passes.
    let nothing_runs = if reference.role == Role::Tracing {
        Traffic::NotSampled
    } else {
        Traffic::Denied
    };
    each.max_by_key(|traffic| match traffic {
        Traffic::Enforced => 0,
        Traffic::NotSampled => 1,
        Traffic::Denied => 2,
        Traffic::AllowedUnchecked => 3,
    })
    .unwrap_or(nothing_runs)
}

/// What happens under one configuration.
fn under(observed: &Observed, configuration: &Object, role: Role) -> Traffic {
    let missing = if role == Role::Tracing {
        Traffic::NotSampled
    } else {
        Traffic::AllowedUnchecked
    };
    // Somebody altered it, and nobody can say what a container that started meanwhile has read.
    if is_altered(configuration) {
        return missing;
    }
    let Some(block) = configuration.at("/spec").and_then(|spec| spec.get(role.field())) else {
        return missing;
    };
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
