//! Attacks in the namespace of the ContourDeployment itself, with `edit`. An editor of this namespace can read Contour's Secrets and run
//! pods as Contour. So the proof can only require that the operator is not misled.

use serde_json::{Value, json};

use super::Attacker::Editor;
use super::Initial::{Available, Missing};
use super::Outcome::{Nothing, Pruned, Refused, Role, Rolled};
use super::forged::{FORGED_DATA, Forged, STARTUP_INPUTS, Victim, pod_spec};
use super::tenant::{pod, workload};
use super::{Attack, OperatorState, Outcome, Step, attack};
use crate::lab::Thing;

fn says(forged: &Forged) -> Value {
    json!({STARTUP_INPUTS: forged.captured(&[]).to_string()})
}

fn real_pod(victim: &Victim) -> Thing {
    Thing::new(
        "Pod",
        &victim.home,
        victim.pod["metadata"]["name"].as_str().unwrap_or_default(),
    )
}

fn row(name: &'static str, outcomes: [Outcome; 2], steps: fn(&Victim) -> Vec<Step>) -> Attack {
    attack(name, Editor, Available, steps, outcomes)
}

/// Returns the rows.
pub fn rows() -> Vec<Attack> {
    let mut rows = workloads();
    rows.extend(objects());
    rows
}

fn workloads() -> Vec<Attack> {
    let holds = |row: Attack| Attack { may_hold: true, ..row };
    vec![
        holds(row("home-pod", [Nothing, Nothing], |it| {
            let captured = it
                .unchecked()
                .captured(&[format!("{}/edge-ext-auth-BAD NAME", it.auth)]);
            vec![Step::Create(pod(it, &it.home, "unchecked", &captured.to_string()))]
        })),
        // Envoys find Contours by their labels, so a Contour that runs here can send them any configuration.
        holds(row("home-pod-that-runs", [Role("Unknown"), Role("Unknown")], |it| {
            let mut pod = pod(it, &it.home, "running", "{}");
            pod["spec"] = pod_spec();
            vec![Step::Create(pod)]
        })),
        holds(row("home-replica-set", [Nothing, Nothing], |it| {
            let mut set = workload(it, "ReplicaSet", &it.home, "edge-contour-forged", 0);
            set["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "999"});
            vec![Step::Create(set)]
        })),
        // The Deployment adopts the ReplicaSet and deletes its pods.
        row("home-replica-set-with-pods", [Rolled, Rolled], |it| {
            vec![Step::Create(workload(
                it,
                "ReplicaSet",
                &it.home,
                "edge-contour-forged",
                1,
            ))]
        }),
        // The ReplicaSet adopts the pod.
        row("home-pod-adopted", [Rolled, Rolled], |it| {
            let mut pod = pod(it, &it.home, "adopted", "");
            pod["metadata"]["labels"] = it.pod["metadata"]["labels"].clone();
            pod["metadata"]["annotations"] = says(&it.unchecked());
            vec![Step::Create(pod)]
        }),
        holds(row("home-pod-annotated", [Nothing, Nothing], |it| {
            vec![Step::Patch(
                real_pod(it),
                json!({"metadata": {"annotations": says(&it.unchecked())}}),
            )]
        })),
        holds(row("home-pod-annotated-succeeding", [Nothing, Nothing], |it| {
            let annotations = says(&it.succeeding("another"));
            vec![Step::Patch(
                real_pod(it),
                json!({"metadata": {"annotations": annotations}}),
            )]
        })),
        row("home-deployment-annotated", [Rolled, Rolled], |it| {
            let template = json!({"metadata": {"annotations": says(&it.unchecked())}});
            let deployment = Thing::new("Deployment", &it.home, "edge-contour");
            vec![Step::Patch(deployment, json!({"spec": {"template": template}}))]
        }),
        row("home-deployment-changed", [Rolled, Rolled], |it| {
            let template = json!({"spec": {"serviceAccountName": "default"}});
            let deployment = Thing::new("Deployment", &it.home, "edge-contour");
            vec![Step::Patch(deployment, json!({"spec": {"template": template}}))]
        }),
    ]
}

fn objects() -> Vec<Attack> {
    vec![
        row("home-configuration", [Refused, Pruned], |it| {
            vec![Step::Create(it.unchecked().object(it, &it.home))]
        }),
        Attack {
            when: OperatorState::Stopped,
            given: Missing,
            ..row("home-configuration-overnight", [Refused, Pruned], |it| {
                vec![Step::Create(it.unchecked().object(it, &it.home))]
            })
        },
        row("home-configuration-altered", [Refused, Rolled], |it| {
            let name = it.configuration["metadata"]["name"].as_str().unwrap_or_default();
            let spec = json!({"globalExtAuth": {"authPolicy": {"disabled": true}}});
            vec![Step::Patch(
                Thing::new("ContourConfiguration", &it.home, name),
                json!({"spec": spec}),
            )]
        }),
        row("home-secret", [Refused, Pruned], |it| {
            vec![Step::Create(it.marked("Secret", &it.home, "labelled"))]
        }),
        row("home-secret-altered", [Refused, Rolled], |it| {
            let data = json!({"tls.crt": FORGED_DATA, "tls.key": FORGED_DATA, "ca.crt": FORGED_DATA});
            vec![Step::Patch(
                Thing::new("Secret", &it.home, "edge-contour-cert"),
                json!({"data": data}),
            )]
        }),
        row("home-service-account", [Refused, Pruned], |it| {
            vec![Step::Create(it.marked("ServiceAccount", &it.home, "labelled"))]
        }),
        row("home-service", [Refused, Pruned], |it| {
            let mut service = it.marked("Service", &it.home, "labelled");
            service["spec"] = json!({"ports": [{"port": 1}]});
            vec![Step::Create(service)]
        }),
        row("home-lease", [Pruned, Pruned], |it| {
            vec![Step::Create(it.marked("Lease", &it.home, "labelled"))]
        }),
    ]
}
