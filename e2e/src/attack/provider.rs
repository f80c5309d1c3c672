//! Attacks in the namespace of the authorization service, by a user with all rights there. This user may decide which requests are
//! allowed, and nothing else.

use serde_json::{Value, json};

use super::Attacker::Provider;
use super::Initial::{self, Available, Edited, Missing, NotYet};
use super::Outcome::{Nothing, Pruned, Refused, Repaired, Role, Rolled};
use super::forged::{PERSISTED_STATE, Victim, object, points_at};
use super::tenant::{HOLD, endpoint_slice, pod};
use super::{Attack, Outcome, Step, attack};
use crate::lab::created::FINALIZER;

/// Changes the persisted state of the stand-in.
fn remembers(victim: &Victim, more: &Value) -> Vec<Step> {
    let annotation = victim.stand_in["metadata"]["annotations"][PERSISTED_STATE].as_str();
    let memory = annotation.and_then(|text| serde_json::from_str(text).ok());
    let mut memory: Value = memory.unwrap_or_else(|| json!({}));
    for (key, value) in more.as_object().into_iter().flatten() {
        memory[key] = value.clone();
    }
    vec![annotated(victim, &memory.to_string())]
}

fn annotated(victim: &Victim, memory: &str) -> Step {
    Step::Patch(
        victim.stand_in(),
        json!({"metadata": {"annotations": {PERSISTED_STATE: memory}}}),
    )
}

fn row(name: &'static str, given: Initial, outcomes: [Outcome; 2], steps: fn(&Victim) -> Vec<Step>) -> Attack {
    attack(name, Provider, given, steps, outcomes)
}

/// Returns the rows.
#[allow(clippy::too_many_lines)] // a table
pub fn rows() -> Vec<Attack> {
    let mut rows = places();
    rows.extend(stand_ins());
    rows.extend(memories());
    rows.extend(others());
    rows
}

/// Returns the attacks that prevent the creation of Slipway's objects.
fn places() -> Vec<Attack> {
    vec![
        row("quota", NotYet, [Role("Denied"), Role("Denied")], |it| {
            let mut quota = object("ResourceQuota", &it.auth, "nothing");
            quota["spec"] = json!({"hard": {"services": "0", "count/extensionservices.projectcontour.io": "0"}});
            vec![Step::Create(quota)]
        }),
        row("blackhole-name-taken", NotYet, [Role("Denied"), Role("Denied")], |it| {
            let mut taken = object("Service", &it.auth, &it.stand_in_name(None, 0));
            taken["spec"] = json!({"ports": [{"port": 9}]});
            vec![Step::Create(taken)]
        }),
        row("stand-in-name-taken", NotYet, [Role("Denied"), Role("Denied")], |it| {
            let mut taken = object("ExtensionService", &it.auth, &it.stand_in_name(None, 0));
            taken["spec"] = points_at("evil");
            vec![Step::Create(taken)]
        }),
    ]
}

/// Returns the attacks that change stand-ins and blackholes.
fn stand_ins() -> Vec<Attack> {
    vec![
        row("blackhole-external-name", Missing, [Refused, Repaired], |it| {
            let spec =
                json!({"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null});
            vec![Step::Patch(it.blackhole(), json!({"spec": spec}))]
        }),
        row("blackhole-selector", Missing, [Refused, Repaired], |it| {
            // Without a selector, the Service may have both families, if the cluster has both.
            let spec = json!({"selector": {"app": "evil"}, "ipFamilyPolicy": "SingleStack", "ipFamilies": null});
            vec![Step::Patch(it.blackhole(), json!({"spec": spec}))]
        }),
        // A user who adds endpoints to the blackhole answers for the missing service, as with an ExtensionService.
        row("blackhole-endpoints", Missing, [Nothing, Nothing], |it| {
            vec![Step::Create(endpoint_slice(&it.auth, &it.stand_in().name, 9))]
        }),
        row("blackhole-deleted", Missing, [Rolled, Rolled], |it| {
            vec![Step::Delete(it.blackhole())]
        }),
        row("stand-in-deleted", Available, [Rolled, Rolled], |it| {
            vec![Step::Delete(it.stand_in())]
        }),
        row("stand-in-deleted-at-once", Available, [Refused, Rolled], |it| {
            let unheld = json!({"metadata": {"finalizers": null}});
            vec![Step::Patch(it.stand_in(), unheld), Step::Delete(it.stand_in())]
        }),
        row("stand-in-points-elsewhere", Available, [Refused, Repaired], |it| {
            vec![Step::Patch(it.stand_in(), json!({"spec": points_at("evil")}))]
        }),
        row("stand-in-without-finalizer", Available, [Refused, Repaired], |it| {
            vec![Step::Patch(it.stand_in(), json!({"metadata": {"finalizers": null}}))]
        }),
        row("stand-in-without-labels", Available, [Refused, Repaired], |it| {
            vec![Step::Patch(it.stand_in(), json!({"metadata": {"labels": null}}))]
        }),
        row("stand-in-of-another-role", Available, [Refused, Rolled], |it| {
            let labels = json!({"contour.slipway.dev/role": "tracing"});
            vec![Step::Patch(it.stand_in(), json!({"metadata": {"labels": labels}}))]
        }),
        row("stand-in-held-for-ever", Available, [Nothing, Nothing], |it| {
            vec![Step::Patch(
                it.stand_in(),
                json!({"metadata": {"finalizers": [FINALIZER, HOLD]}}),
            )]
        }),
    ]
}

/// Returns the attacks that change the persisted state of a stand-in.
fn memories() -> Vec<Attack> {
    vec![
        row("remembers-salt", Available, [Refused, Rolled], |it| {
            remembers(it, &json!({"retired": true, "salt": 4_000_000}))
        }),
        row("remembers-greatest", Available, [Refused, Rolled], |it| {
            let nudge = json!({"about": [], "step": u64::MAX, "odd": true});
            remembers(
                it,
                &json!({"retired": true, "salt": u32::MAX, "moves": u32::MAX, "nudge": nudge}),
            )
        }),
        row("remembers-nothing", Available, [Refused, Rolled], |it| {
            vec![annotated(it, "{")]
        }),
        row("remembers-another-form", Edited, [Refused, Role("Denied")], |it| {
            let proven = json!({"uid": it.service, "generation": i64::MAX, "spec": points_at("evil")});
            remembers(it, &json!({"proven": proven}))
        }),
        row("remembers-no-form", Edited, [Refused, Role("Enforced")], |it| {
            let proven = json!({"uid": it.service, "generation": i64::MAX, "spec": {"services": "evil"}});
            remembers(it, &json!({"proven": proven}))
        }),
    ]
}

/// Returns the attacks that create other objects beside them.
fn others() -> Vec<Attack> {
    vec![
        row("stand-in-forged", Available, [Refused, Pruned], |it| {
            let memory = json!({"salt": u32::MAX, "retired": true, "pinned": {}, "reference": [it.auth, "auth"]});
            vec![Step::Create(it.forged_stand_in(&it.auth, u32::MAX, &memory))]
        }),
        row("service-marked", Available, [Refused, Nothing], |it| {
            let service = crate::lab::Thing::new("ExtensionService", &it.auth, "auth");
            vec![Step::Patch(service, json!({"metadata": {"labels": it.labels()}}))]
        }),
        row("service-account-beside", Available, [Refused, Nothing], |it| {
            vec![Step::Create(it.marked("ServiceAccount", &it.auth, "labelled"))]
        }),
        row("blackhole-pattern-beside", Available, [Refused, Pruned], |it| {
            let mut service = it.marked("Service", &it.auth, &it.stand_in_name(None, 23));
            service["spec"] = json!({"ports": [{"port": 9}]});
            vec![Step::Create(service)]
        }),
        row("configuration-beside", Available, [Refused, Nothing], |it| {
            vec![Step::Create(it.unchecked().object(it, &it.auth))]
        }),
        row("pod-beside", Available, [Nothing, Nothing], |it| {
            let captured = it
                .unchecked()
                .captured(&[format!("{}/edge-ext-auth-BAD NAME", it.auth)]);
            vec![Step::Create(pod(it, &it.auth, "unchecked", &captured.to_string()))]
        }),
    ]
}
