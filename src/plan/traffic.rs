//! The current treatment of requests. The treatment follows from what is rolled out (the configurations that running containers have read,
//! and the targets of their stand-ins), not from the spec.

use serde_json::{Map, Value};

use super::object::{Kind, NamespacedName, Object};
use super::observed::Observed;
use super::settings::changed;
use super::stand_in::{Reference, is_blackhole, is_unusable};
use super::startup_inputs::{Contours, StartupInputs};
use super::views::pod_phase;
use crate::api::contour::ExtensionServiceSpec;
use crate::api::{Role, Traffic};

/// Returns the treatment of the requests that this reference affects. The result is the worst treatment by any running Contour.
pub fn of(observed: &Observed, reference: &Reference) -> Traffic {
    let contours = Contours::of(observed);
    let known = contours.pods.iter();
    let known = known.map(|(_, set)| match StartupInputs::of_template(set) {
        Some(inputs) => under(observed, &inputs, reference.role),
        None => Traffic::Unknown,
    });
    // A stranger pod that has not started is not counted before its ReplicaSet is observed.
    let has_started = |pod: &&&Object| pod_phase(pod) == "Running";
    let pods = contours.strangers.iter().filter(|object| object.kind == Kind::Pod);
    let strangers = pods.filter(has_started).map(|_| Traffic::Unknown);
    // Without Contour there are no routes, so no request passes.
    let nothing_runs = reference.role.unanswered(false);
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

/// Returns the treatment of requests under the inputs that a container has read.
fn under(observed: &Observed, inputs: &StartupInputs, role: Role) -> Traffic {
    let owner = observed.owner();
    let live = inputs.live(observed);
    let is_right = inputs.is_unchanged(observed) && live.is_some_and(|live| is_the_same(live, &inputs.spec));
    // Another user changed or deleted the ContourConfiguration, or wrote another one on the template. The content that a container read in
    // the meantime is unknown.
    if !inputs.is_intact(&owner) || !is_right {
        return Traffic::Unknown;
    }
    let Some(block) = inputs.spec.get(role.field()) else {
        return role.unset();
    };
    if block.pointer("/authPolicy/disabled").and_then(Value::as_bool) == Some(true) {
        return Traffic::AllowedUnchecked;
    }
    let stand_in = role.referenced(&inputs.spec);
    let stand_in = stand_in.and_then(|(namespace, name)| observed.object(Kind::ExtensionService, &namespace, &name));
    // Contour drops HTTPS virtual hosts. Contour reports that unless Slipway repairs the stand-in.
    if stand_in.is_some_and(|stand_in| is_unusable(observed, stand_in)) {
        return Traffic::Unknown;
    }
    if stand_in.is_some_and(|stand_in| answers(observed, stand_in)) {
        return Traffic::Enforced;
    }
    let fail_open = block.get("failOpen").and_then(Value::as_bool).unwrap_or_default();
    role.unanswered(fail_open)
}

/// Reports whether the ContourConfiguration has the spec that it was created with, apart from defaults that the CRD got later.
fn is_the_same(live: &Object, spec: &Map<String, Value>) -> bool {
    live.spec().is_some_and(|live| changed(spec, live).is_none())
}

/// Reports whether a stand-in has a ready endpoint.
fn answers(observed: &Observed, stand_in: &Object) -> bool {
    let spec = ExtensionServiceSpec::of(stand_in.spec());
    let ready = |name: String| {
        observed
            .ready_services
            .contains(&NamespacedName::new(stand_in.namespace(), name))
    };
    !is_blackhole(stand_in) && spec.services().into_iter().any(|service| ready(service.name))
}

/// Returns the consequence of this treatment as a message, or None if requests are checked.
pub fn consequence(reference: &Reference, traffic: Traffic) -> Option<String> {
    let words = match traffic {
        Traffic::Enforced => return None,
        Traffic::Unknown => {
            return Some(
                "the treatment of requests is unknown, because Slipway cannot determine the configuration of a \
                 running Contour"
                    .to_owned(),
            );
        }
        Traffic::AllowedUnchecked | Traffic::Denied | Traffic::NotSampled => reference.role.words(traffic),
    };
    // The rolled-out configuration may differ from the spec.
    let why = match reference.fail_open {
        None => return Some(words.to_owned()),
        Some(fail_open) if fail_open == (traffic == Traffic::AllowedUnchecked) => format!("failOpen is {fail_open}"),
        Some(_) => "until the current spec is rolled out".to_owned(),
    };
    Some(format!("{words} ({why})"))
}
