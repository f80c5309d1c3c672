use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::vocabulary::{FINALIZER, annotations, labels};
use crate::plan::names::{hash, hash_json};
use crate::plan::operand::tests::observed;

const HOME: &str = "projectcontour";

/// A mark on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    BothLabels,
    OneLabel,
    /// Slipway's finalizer without a label.
    Finalizer,
    /// An owner reference to the ContourDeployment without a label.
    Reference,
}

impl Mark {
    const ALL: [Self; 4] = [Self::BothLabels, Self::OneLabel, Self::Finalizer, Self::Reference];
}

fn object(kind: Kind, namespace: &str, name: &str, mark: Mark) -> Object {
    let mut metadata = json!({"name": name});
    if kind.is_namespaced() {
        metadata["namespace"] = namespace.into();
    }
    match mark {
        Mark::BothLabels => metadata["labels"] = json!({labels::OWNER_NAMESPACE: HOME, labels::OWNER_NAME: "edge"}),
        Mark::OneLabel => metadata["labels"] = json!({labels::OWNER_NAME: "edge"}),
        Mark::Finalizer => metadata["finalizers"] = json!([FINALIZER]),
        Mark::Reference => {
            let reference = json!({"apiVersion": "v1", "kind": "ContourDeployment", "name": "edge", "uid": "u-edge"});
            metadata["ownerReferences"] = json!([reference]);
        }
    }
    Object::from_json(kind, json!({"metadata": metadata})).expect("an object")
}

/// Returns a ContourDeployment that references the namespace `auth` but not `alice`.
fn asks_auth() -> Observed {
    let reference = json!({"namespace": "auth", "name": "auth"});
    observed(&json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": reference}}}))
}

fn standing_of(observed: &Observed, object: &Object) -> Standing {
    let (owner, settings) = (observed.owner(), &observed.deployment.spec.runtime_settings);
    let objects = observed.objects.values().map(AsRef::as_ref);
    standing(&owner, &namespaces(&owner, settings, objects), object)
}

#[test]
fn kind_place_marks_and_name_decide_the_ownership() {
    use Standing::{Foreign, Leftover, Ours};
    // For each place and mark: the standing of stand-ins and blackholes, and the standing of all other objects.
    const TABLE: [(&str, Mark, Standing, Standing); 12] = [
        (HOME, Mark::BothLabels, Ours, Ours),
        (HOME, Mark::OneLabel, Foreign, Foreign),
        (HOME, Mark::Finalizer, Ours, Ours),
        (HOME, Mark::Reference, Ours, Ours),
        ("auth", Mark::BothLabels, Ours, Foreign),
        ("auth", Mark::OneLabel, Foreign, Foreign),
        ("auth", Mark::Finalizer, Ours, Foreign),
        ("auth", Mark::Reference, Foreign, Foreign),
        ("alice", Mark::BothLabels, Leftover, Foreign),
        ("alice", Mark::OneLabel, Foreign, Foreign),
        ("alice", Mark::Finalizer, Foreign, Foreign),
        ("alice", Mark::Reference, Foreign, Foreign),
    ];
    let observed = asks_auth();
    for kind in Kind::ALL.iter().filter(|kind| kind.is_namespaced()) {
        let names = [
            "edge-ext-auth-0000000000",
            "edge-trial-0000000000",
            "edge-contour",
            "edge-ext-auth",
            "other",
        ];
        for (name, is_of_our_pattern) in names.into_iter().zip([true, true, false, false, false]) {
            let is_stand_in = matches!(kind, Kind::ExtensionService | Kind::Service) && is_of_our_pattern;
            for (namespace, mark, of_stand_ins, of_others) in TABLE {
                let expected = if is_stand_in { of_stand_ins } else { of_others };
                let found = standing_of(&observed, &object(*kind, namespace, name, mark));
                assert_eq!(found, expected, "{kind} {namespace}/{name}: {mark:?}");
            }
        }
    }
}

#[test]
fn slipway_owns_one_cluster_scoped_object_by_its_name() {
    let (observed, binding) = (asks_auth(), "slipway:projectcontour:edge:contour");
    for kind in Kind::ALL.iter().filter(|kind| !kind.is_namespaced()) {
        for name in [
            binding,
            "slipway:projectcontour:rear:contour",
            "edge-ext-auth-0000000000",
            HOME,
            "alice",
        ] {
            for mark in Mark::ALL {
                let is_it = *kind == Kind::ClusterRoleBinding && name == binding && mark != Mark::Reference;
                let expected = if is_it { Standing::Ours } else { Standing::Foreign };
                let found = standing_of(&observed, &object(*kind, "", name, mark));
                assert_eq!(found, expected, "{kind} {name}: {mark:?}");
            }
        }
    }
}

/// Returns a pod template whose configuration references a stand-in in this namespace. `is_proved`: the name of the configuration matches
/// its content.
fn template(namespace: &str, is_proved: bool) -> Value {
    let reference = json!({"namespace": namespace, "name": "edge-ext-auth-0000000000"});
    let spec = json!({"globalExtAuth": {"extensionRef": reference}});
    let content = hash_json(&spec);
    let parts = [HOME, "edge", content.as_str()].into_iter();
    let proof = hash(parts.chain((!is_proved).then_some("another")));
    let inputs = json!({"configuration": format!("edge-{proof}"), "spec": spec, "standIns": []});
    json!({"metadata": {"annotations": {annotations::STARTUP_INPUTS: inputs.to_string()}}})
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn only_the_spec_and_proved_templates_reference_namespaces() {
    let workload = |kind, namespace: &str, name: &str, controller: Option<&str>, of: Value| {
        let mut object = object(kind, namespace, name, Mark::BothLabels);
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert(labels::COMPONENT.to_owned(), "contour".to_owned());
        object.metadata.uid = Some(format!("u-{name}"));
        if let Some(uid) = controller {
            let reference = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true});
            object.metadata.owner_references = serde_json::from_value(json!([reference])).expect("a reference");
        }
        object
            .content
            .insert("spec".into(), json!({"replicas": 1, "template": of}));
        object
    };
    let contour = |of| workload(Kind::Deployment, HOME, "edge-contour", None, of);
    let set = |controller, of| workload(Kind::ReplicaSet, HOME, "set", controller, of);
    let idle = |mut set: Object| {
        set.content["spec"]["replicas"] = 0.into();
        set
    };
    let old = || contour(template("auth", true));
    let pod = |controller: &str| workload(Kind::Pod, HOME, "pod", Some(controller), json!({}));
    let left = |controller: &str| {
        let set = idle(set(Some("u-edge-contour"), template("alice", true)));
        vec![old(), set, pod(controller)]
    };
    let cases = [
        ("absent", vec![], false),
        ("of Slipway's Deployment", vec![contour(template("alice", true))], true),
        (
            "of Slipway's Deployment, unproved",
            vec![contour(template("alice", false))],
            false,
        ),
        (
            "of Slipway's ReplicaSet",
            vec![old(), set(Some("u-edge-contour"), template("alice", true))],
            true,
        ),
        (
            "of Slipway's ReplicaSet, unproved",
            vec![old(), set(Some("u-edge-contour"), template("alice", false))],
            false,
        ),
        (
            "of Slipway's idle ReplicaSet",
            vec![old(), idle(set(Some("u-edge-contour"), template("alice", true)))],
            false,
        ),
        ("of Slipway's idle ReplicaSet with a pod", left("u-set"), true),
        (
            "of Slipway's idle ReplicaSet beside another pod",
            left("u-other"),
            false,
        ),
        (
            "of a ReplicaSet without a controller",
            vec![old(), set(None, template("alice", true))],
            false,
        ),
        (
            "of another controller's ReplicaSet",
            vec![old(), set(Some("u-other"), template("alice", true))],
            false,
        ),
        (
            "of another Deployment",
            vec![
                old(),
                workload(Kind::Deployment, HOME, "another", None, template("alice", true)),
            ],
            false,
        ),
        (
            "of a Deployment in that namespace",
            vec![workload(
                Kind::Deployment,
                "alice",
                "edge-contour",
                None,
                template("alice", true),
            )],
            false,
        ),
    ];
    for (whose, objects, is_referenced) in cases {
        let mut observed = asks_auth();
        observed.objects = objects
            .into_iter()
            .map(|object| (object.key(), Arc::new(object)))
            .collect();
        let stand_in = object(
            Kind::ExtensionService,
            "alice",
            "edge-ext-auth-0000000000",
            Mark::BothLabels,
        );
        observed.objects.insert(stand_in.key(), Arc::new(stand_in.clone()));
        let expected = if is_referenced {
            Standing::Ours
        } else {
            Standing::Leftover
        };
        assert_eq!(standing_of(&observed, &stand_in), expected, "the template is {whose}");
        let Classified { observed, leftovers } = classify(&observed);
        let is_kept = observed.objects.contains_key(&stand_in.key());
        assert_eq!(
            (is_kept, leftovers.len()),
            (is_referenced, usize::from(!is_referenced)),
            "{whose}"
        );
    }
}
