//! Attacks outside the ContourDeployment's namespaces: in a namespace without any reference, in a referenced namespace that does not exist
//! yet, and with bindings.

use serde_json::{Value, json};

use super::Attacker::{Binder, Founder, Owner, Tenant};
use super::Initial::{Absent, Available, Edited, Missing, Refused as RefusedSettings};
use super::Outcome::{Nothing, Pruned, Refused, Role};
use super::forged::{PERSISTED_STATE, STARTUP_INPUTS, Victim, object, pending_pod_spec, pods_spec, points_at};
use super::{Attack, OperatorState, Step, attack};
use crate::lab::Thing;
use crate::lab::created::FINALIZER;

/// A finalizer that only its creator removes.
pub const HOLD: &str = "example.com/hold";

/// Returns a Pending pod with the labels of Contour's pods, which claims to have captured these inputs.
pub fn pod(victim: &Victim, namespace: &str, name: &str, captured: &str) -> Value {
    let mut pod = victim.marked("Pod", namespace, name);
    pod["metadata"]["labels"] = victim.contour_labels();
    pod["metadata"]["annotations"] = json!({STARTUP_INPUTS: captured});
    pod["spec"] = pending_pod_spec();
    pod
}

/// Returns a workload with Contour's labels and such pods.
pub fn workload(victim: &Victim, kind: &'static str, namespace: &str, name: &str, replicas: u32) -> Value {
    let mut workload = victim.marked(kind, namespace, name);
    let captured = victim.unchecked().captured(&[]).to_string();
    workload["metadata"]["labels"] = victim.contour_labels();
    workload["spec"] = pods_spec(&victim.contour_labels(), &json!({STARTUP_INPUTS: captured}), replicas);
    if kind == "DaemonSet" {
        workload["spec"].as_object_mut().expect("an object").remove("replicas");
    }
    workload
}

/// Returns the persisted state of a stand-in for the authorization service.
fn memory(victim: &Victim, more: &Value) -> Value {
    let mut memory = json!({"salt": 0, "pinned": {}, "reference": [victim.auth, "auth"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        memory[key] = value.clone();
    }
    memory
}

/// Returns the creation of a forged stand-in in the tenant's namespace.
fn stand_in(victim: &Victim, salt: u32, more: &Value) -> Vec<Step> {
    let mut memory = memory(victim, more);
    memory["salt"] = json!(salt);
    vec![Step::Create(victim.forged_stand_in(&victim.alice, salt, &memory))]
}

/// Returns texts that an attacker may write where JSON, numbers or names are expected.
fn odd(victim: &Victim) -> Vec<String> {
    let mut all: Vec<String> = ["", "null", "[]", "{}", "\"\"", "{", "\u{0}", "1e999"]
        .map(str::to_owned)
        .into();
    all.push("[".repeat(5000));
    all.push(json!({"configuration": "../../x", "standIns": ["", "/", "a/b/c", "../../x"]}).to_string());
    all.push(json!({"configuration": "x".repeat(100_000), "spec": {"x": "y".repeat(100_000)}}).to_string());
    for number in ["-1", "9223372036854775808", "1e99", "\"1\"", "null"] {
        let name = &victim.unchecked().name;
        all.push(format!(
            r#"{{"configuration":"{name}","uid":{number},"generation":{number},"inPlaceOf":{number}}}"#
        ));
    }
    all
}

/// Returns the rows.
pub fn rows() -> Vec<Attack> {
    let mut rows = pods();
    rows.extend(workloads());
    rows.extend(objects());
    rows.extend(extension_services());
    rows.extend(others());
    rows
}

#[allow(clippy::too_many_lines)] // a table
fn pods() -> Vec<Attack> {
    vec![
        attack(
            "pod-captured-unchecked",
            Tenant,
            Available,
            |it| {
                let stand_ins = [format!("{}/{}", it.auth, it.stand_in().name)];
                let captured = it.unchecked().captured(&stand_ins);
                vec![Step::Create(pod(it, &it.alice, "unchecked", &captured.to_string()))]
            },
            [Nothing, Nothing],
        ),
        attack(
            "pod-captured-bad-name",
            Tenant,
            Available,
            |it| {
                let captured = it
                    .unchecked()
                    .captured(&[format!("{}/edge-ext-auth-BAD NAME", it.auth)]);
                vec![Step::Create(pod(it, &it.alice, "bad-name", &captured.to_string()))]
            },
            [Nothing, Nothing],
        ),
        attack(
            "pod-captured-many-stand-ins",
            Tenant,
            Missing,
            |it| {
                let names = (0..30).map(|number| format!("{}/edge-ext-auth-aaaaaaaa{number}", it.auth));
                let captured = it.unchecked().captured(&names.collect::<Vec<_>>());
                vec![Step::Create(pod(it, &it.alice, "many", &captured.to_string()))]
            },
            [Nothing, Nothing],
        ),
        attack(
            "pod-captured-odd",
            Tenant,
            Available,
            |it| {
                let odd = odd(it).into_iter().enumerate();
                odd.map(|(number, text)| Step::Create(pod(it, &it.alice, &format!("odd-{number}"), &text)))
                    .collect()
            },
            [Nothing, Nothing],
        ),
        attack(
            "pod-captured-succeeding",
            Tenant,
            Available,
            |it| {
                let uid = it.configuration["metadata"]["uid"].as_str().unwrap_or_default();
                let uids = ["another", uid].into_iter().enumerate();
                uids.map(|(number, uid)| {
                    let captured = it.succeeding(uid).captured(&[]).to_string();
                    Step::Create(pod(it, &it.alice, &format!("succeeding-{number}"), &captured))
                })
                .collect()
            },
            [Nothing, Nothing],
        ),
        attack(
            "pod-that-never-ends",
            Tenant,
            Missing,
            |it| {
                let mut pod = pod(it, &it.alice, "endless", "{}");
                pod["metadata"]["finalizers"] = json!([HOLD]);
                vec![Step::Create(pod), Step::Delete(Thing::new("Pod", &it.alice, "endless"))]
            },
            [Nothing, Nothing],
        ),
    ]
}

fn workloads() -> Vec<Attack> {
    vec![
        attack(
            "replica-set",
            Tenant,
            Available,
            |it| {
                vec![Step::Create(workload(
                    it,
                    "ReplicaSet",
                    &it.alice,
                    "edge-contour-forged",
                    1,
                ))]
            },
            [Nothing, Nothing],
        ),
        attack(
            "replica-set-of-the-owner",
            Tenant,
            Available,
            |it| {
                let mut set = workload(it, "ReplicaSet", &it.alice, "owned", 0);
                set["metadata"]["ownerReferences"] = owner(it);
                vec![Step::Create(set)]
            },
            [Nothing, Nothing],
        ),
        attack(
            "deployment",
            Tenant,
            Available,
            |it| vec![Step::Create(workload(it, "Deployment", &it.alice, "edge-contour", 1))],
            [Refused, Nothing],
        ),
        attack(
            // The controllers copy any labels of a template to pods and ReplicaSets.
            "deployment-of-marked-pods",
            Tenant,
            Available,
            |it| {
                let mut workload = workload(it, "Deployment", &it.alice, "innocent", 1);
                workload["metadata"]["labels"] = json!({});
                vec![Step::Create(workload)]
            },
            [Nothing, Nothing],
        ),
        attack(
            "daemon-set",
            Tenant,
            Missing,
            |it| vec![Step::Create(workload(it, "DaemonSet", &it.alice, "edge-envoy", 1))],
            [Refused, Nothing],
        ),
    ]
}

/// Returns an ownerReference to the ContourDeployment as the controller.
fn owner(victim: &Victim) -> Value {
    json!([{
        "apiVersion": "contour.slipway.dev/v1alpha1", "kind": "ContourDeployment", "name": "edge", "uid": victim.uid,
        "controller": true, "blockOwnerDeletion": true,
    }])
}

fn objects() -> Vec<Attack> {
    let marked =
        |kind: &'static str, outcomes, steps: fn(&Victim) -> Vec<Step>| attack(kind, Tenant, Missing, steps, outcomes);
    vec![
        marked("service-account", [Refused, Nothing], |it| {
            vec![Step::Create(it.marked("ServiceAccount", &it.alice, "labelled"))]
        }),
        marked("secret", [Refused, Nothing], |it| {
            vec![Step::Create(it.marked("Secret", &it.alice, "edge-xds-ca"))]
        }),
        marked("lease", [Nothing, Nothing], |it| {
            vec![Step::Create(it.marked("Lease", &it.alice, "edge-contour"))]
        }),
        marked("service", [Refused, Nothing], |it| {
            let mut service = it.marked("Service", &it.alice, "labelled");
            service["spec"] = json!({"ports": [{"port": 1}]});
            vec![Step::Create(service)]
        }),
        marked("service-of-our-pattern", [Refused, Pruned], |it| {
            let mut service = it.marked("Service", &it.alice, &it.stand_in_name(None, 21));
            service["metadata"]["finalizers"] = json!([FINALIZER]);
            service["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
            vec![Step::Create(service)]
        }),
        attack(
            "configuration",
            Tenant,
            Available,
            |it| vec![Step::Create(it.unchecked().object(it, &it.alice))],
            [Refused, Nothing],
        ),
        attack(
            "configuration-as-last-good",
            Tenant,
            RefusedSettings,
            |it| vec![Step::Create(it.unchecked().object(it, &it.alice))],
            [Refused, Nothing],
        ),
    ]
}

fn extension_services() -> Vec<Attack> {
    let forged = |name, given, steps: fn(&Victim) -> Vec<Step>| attack(name, Tenant, given, steps, [Refused, Pruned]);
    let marked = |name, steps: fn(&Victim) -> Vec<Step>| attack(name, Tenant, Available, steps, [Refused, Nothing]);
    vec![
        forged("memory-salt", Available, |it| {
            stand_in(it, 4_000_000, &json!({"retired": true}))
        }),
        forged("memory-greatest", Available, |it| {
            let nudge = json!({"about": [], "step": u64::MAX, "odd": true});
            let greatest = json!({"retired": true, "moves": u32::MAX, "withdrawn": true, "nudge": nudge});
            stand_in(it, u32::MAX, &greatest)
        }),
        forged("memory-proven", Edited, |it| {
            let proven = json!({"uid": it.service, "generation": i64::MAX, "spec": points_at("evil")});
            stand_in(it, 31, &json!({"proven": proven}))
        }),
        forged("memory-withdrawn", Edited, |it| {
            stand_in(it, 32, &json!({"withdrawn": true}))
        }),
        forged("memory-of-elsewhere", Missing, |it| {
            let elsewhere = stand_in(it, 33, &json!({"reference": [it.elsewhere, "x"]}));
            let path = stand_in(it, 34, &json!({"reference": [format!("../{}", it.elsewhere), "../x"]}));
            [elsewhere, path].concat()
        }),
        forged("memory-odd", Missing, |it| {
            let odd = odd(it).into_iter().zip(40..);
            odd.map(|(text, salt)| {
                let mut stand_in = it.forged_stand_in(&it.alice, salt, &json!({}));
                stand_in["metadata"]["annotations"][PERSISTED_STATE] = json!(text);
                Step::Create(stand_in)
            })
            .collect()
        }),
        forged("stand-in-held", Missing, |it| {
            let mut steps = stand_in(it, 35, &json!({}));
            if let Some(Step::Create(object)) = steps.first_mut() {
                object["metadata"]["finalizers"] = json!([FINALIZER, HOLD]);
            }
            steps
        }),
        forged("marked-later", Missing, |it| {
            let name = it.stand_in_name(None, 36);
            let mut innocent = object("ExtensionService", &it.alice, &name);
            innocent["spec"] = points_at("auth");
            let labels = json!({"metadata": {"labels": it.labels()}});
            vec![
                Step::Create(innocent),
                Step::Patch(Thing::new("ExtensionService", &it.alice, &name), labels),
            ]
        }),
        forged("trial", Available, |it| {
            let mut trial = it.marked("ExtensionService", &it.alice, "edge-trial-aaaaaaaaaa");
            trial["spec"] = points_at("auth");
            vec![Step::Create(trial)]
        }),
        marked("finalizer-only", |it| {
            let mut steps = stand_in(it, 37, &json!({"retired": true}));
            if let Some(Step::Create(object)) = steps.first_mut() {
                object["metadata"]["labels"] = json!({});
            }
            steps
        }),
        marked("one-label", |it| {
            let mut steps = stand_in(it, 38, &json!({"retired": true}));
            if let Some(Step::Create(object)) = steps.first_mut() {
                object["metadata"]["labels"] = json!({"contour.slipway.dev/contourdeployment": "edge"});
            }
            steps
        }),
        marked("foreign-name", |it| {
            let mut service = it.marked("ExtensionService", &it.alice, "mine");
            service["spec"] = points_at("auth");
            vec![Step::Create(service)]
        }),
        attack(
            "owned",
            Tenant,
            Available,
            |it| {
                let mut service = object("ExtensionService", &it.alice, "owned");
                service["metadata"]["ownerReferences"] = owner(it);
                service["spec"] = points_at("auth");
                vec![Step::Create(service)]
            },
            [Nothing, Nothing],
        ),
    ]
}

fn others() -> Vec<Attack> {
    vec![
        attack(
            "endpoint-slice",
            Owner,
            Missing,
            |it| vec![Step::Create(endpoint_slice(&it.alice, "auth", 9001))],
            [Nothing, Nothing],
        ),
        attack(
            "role-binding",
            Owner,
            Available,
            |it| {
                let mut binding = it.marked("RoleBinding", &it.alice, "edge-slipway-operand");
                binding["roleRef"] =
                    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-operand"});
                binding["subjects"] = json!([{"kind": "ServiceAccount", "namespace": it.alice, "name": "default"}]);
                vec![Step::Create(binding)]
            },
            [Refused, Nothing],
        ),
        attack(
            "service-marked-by-its-status",
            Owner,
            Missing,
            |it| {
                let name = it.stand_in_name(None, 22);
                let mut service = object("Service", &it.alice, &name);
                service["spec"] = json!({"ports": [{"port": 9}]});
                let labels = json!({"metadata": {"labels": it.labels()}});
                vec![
                    Step::Create(service),
                    Step::PatchStatus(Thing::new("Service", &it.alice, &name), labels),
                ]
            },
            [Refused, Pruned],
        ),
        attack(
            "cluster-role-binding",
            Binder,
            Available,
            |it| {
                let mut binding = it.marked("ClusterRoleBinding", "", &format!("labelled-{}", it.home));
                binding["roleRef"] =
                    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
                vec![Step::Create(binding)]
            },
            [Refused, Nothing],
        ),
        attack(
            // The spec waits for exactly this service, and does not restrict who may create it.
            "namespace-and-service",
            Founder,
            Absent,
            |it| {
                let mut service = object("Service", &it.auth, "auth");
                service["spec"] = json!({"ports": [{"name": "grpc", "port": 9001}]});
                let mut extension_service = object("ExtensionService", &it.auth, "auth");
                extension_service["spec"] = points_at("auth");
                let slice = endpoint_slice(&it.auth, "auth", 9001);
                let all = [object("Namespace", "", &it.auth), service, slice, extension_service];
                all.map(Step::Create).into()
            },
            [Role("Enforced"), Role("Enforced")],
        ),
        Attack {
            when: OperatorState::Stopped,
            ..attack(
                "namespace-and-name",
                Founder,
                Absent,
                |it| {
                    let mut taken = object("Service", &it.auth, &it.stand_in_name(None, 0));
                    taken["spec"] = json!({"ports": [{"port": 9}]});
                    [object("Namespace", "", &it.auth), taken].map(Step::Create).into()
                },
                [Role("Denied"), Role("Denied")],
            )
        },
    ]
}

/// Returns an EndpointSlice that adds a ready endpoint to a Service.
pub fn endpoint_slice(namespace: &str, service: &str, port: u16) -> Value {
    let mut slice = object("EndpointSlice", namespace, &format!("{service}-forged"));
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    slice["addressType"] = json!("IPv4");
    slice["endpoints"] = json!([{"addresses": ["192.0.2.66"], "conditions": {"ready": true}}]);
    slice["ports"] = json!([{"name": "grpc", "port": port}]);
    slice
}
