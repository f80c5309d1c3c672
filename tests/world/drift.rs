//! Slipway repairs changes by other users to Slipway's objects and leaves additions by other users, with as few writes as
//! possible.

use serde_json::{Value, json};
use slipway::api::vocabulary::{annotations, labels};
use slipway::plan::{Key, Kind, Object};

use super::cluster::{Cluster, NAMESPACE, deployment_key, described};
use super::scene::points_at;

/// Returns a settled cluster and the keys of all objects that Slipway has created.
fn converged() -> (Cluster, Vec<Key>) {
    let cluster = Cluster::enforcing(&points_at("auth"));
    let made = |key: &Key| *key != deployment_key() && !matches!(key.kind, Kind::Pod | Kind::ReplicaSet);
    let ours: Vec<Key> = cluster
        .observe()
        .expect("the ContourDeployment exists")
        .objects
        .into_keys()
        .filter(made)
        .collect();
    let kinds: std::collections::BTreeSet<Kind> = ours.iter().map(|key| key.kind).collect();
    assert_eq!(kinds.len(), 10, "every kind that Slipway writes: {kinds:?}");
    (cluster, ours)
}

/// Makes one change and reconciles. Returns the number of writes, and checks that the writes revert the change.
fn repaired(cluster: &Cluster, key: &Key, change: impl FnOnce(&mut Object)) -> usize {
    let mut cluster = cluster.clone();
    let before = cluster.api.objects[key].clone();
    cluster.api.edit(key, change);
    assert_ne!(cluster.api.objects[key], before, "{key}: the change has an effect");
    let writes = described(&cluster.reconcile());
    assert!(
        writes.iter().all(|write| write.ends_with(&key.to_string())),
        "{key}: {writes:?}"
    );
    let mut after = cluster.api.objects[key].clone();
    after
        .metadata
        .resource_version
        .clone_from(&before.metadata.resource_version);
    after.metadata.generation = before.metadata.generation;
    after.creation_entry = before.creation_entry;
    after.content.get_mut("status").map(Value::take);
    let mut before = before;
    before.content.get_mut("status").map(Value::take);
    if !writes.is_empty() {
        assert_eq!(after, before, "{key}");
    }
    assert_eq!(cluster.writes(), [""; 0], "{key}: no further writes");
    writes.len()
}

#[test]
fn slipway_repairs_a_changed_field_with_one_write() {
    let (cluster, ours) = converged();
    for key in &ours {
        let pointer = match key.kind {
            Kind::RoleBinding | Kind::ClusterRoleBinding => "/subjects/0/name",
            Kind::Service => "/spec/ports/0/port",
            Kind::ExtensionService => "/spec/services/0/name",
            Kind::Deployment | Kind::DaemonSet => "/spec/template/spec/serviceAccountName",
            Kind::Secret => "/data/ca.crt",
            // Contour's ServiceAccount has no fields. Contour owns the fields of the Lease. An altered configuration also gets a
            // successor.
            _ => continue,
        };
        let change = |object: &mut Object| {
            let (top, rest) = pointer[1..].split_once('/').expect("two levels");
            let value = object.content[top]
                .pointer_mut(&format!("/{rest}"))
                .unwrap_or_else(|| panic!("{key} {pointer}"));
            *value = if value.is_number() {
                1.into()
            } else if value.is_boolean() {
                true.into()
            } else {
                "changed".into()
            };
        };
        assert_eq!(repaired(&cluster, key, change), 1, "{key} {pointer}");
    }
    let envoy = Key::new(Kind::ServiceAccount, NAMESPACE, "edge-envoy");
    let change = |object: &mut Object| {
        drop(
            object
                .content
                .insert("automountServiceAccountToken".into(), true.into()),
        );
    };
    assert_eq!(repaired(&cluster, &envoy, change), 1);
}

#[test]
fn slipway_restores_a_removed_label_with_one_write() {
    let (cluster, ours) = converged();
    for key in &ours {
        for label in [
            labels::OWNER_NAME,
            labels::OWNER_NAMESPACE,
            labels::ROLE,
            "app.kubernetes.io/managed-by",
        ] {
            if cluster.api.objects[key].label(label).is_some() {
                let change = |object: &mut Object| drop(object.metadata.labels.get_or_insert_default().remove(label));
                assert_eq!(repaired(&cluster, key, change), 1, "{key} {label}");
            }
        }
    }
}

#[test]
fn slipway_restores_all_labels_of_an_identifiable_object() {
    let (cluster, ours) = converged();
    for key in ours.iter().filter(|key| key.kind != Kind::ClusterRoleBinding) {
        assert_eq!(
            repaired(&cluster, key, |object| object.metadata.labels = None),
            1,
            "{key}"
        );
    }
}

#[test]
fn slipway_restores_an_owner_reference_with_one_write() {
    let (cluster, ours) = converged();
    for key in ours.iter().filter(|key| key.namespace == NAMESPACE) {
        assert_eq!(
            repaired(&cluster, key, |object| object.metadata.owner_references = None),
            1,
            "{key}"
        );
    }
}

#[test]
fn slipway_restores_the_applied_annotation_with_one_write() {
    let (cluster, ours) = converged();
    for key in &ours {
        let annotation = annotations::APPLIED;
        if cluster.api.objects[key].annotation(annotation).is_some() {
            let change =
                |object: &mut Object| drop(object.metadata.annotations.get_or_insert_default().remove(annotation));
            assert_eq!(repaired(&cluster, key, change), 1, "{key} {annotation}");
        }
    }
}

#[test]
fn slipway_restores_a_finalizer_with_one_write() {
    let (cluster, ours) = converged();
    let held: Vec<_> = ours
        .iter()
        .filter(|key| cluster.api.objects[*key].has_our_finalizer())
        .collect();
    assert_eq!(held.len(), 2, "the stand-in and its blackhole");
    for key in held {
        assert_eq!(
            repaired(&cluster, key, |object| object.metadata.finalizers = None),
            1,
            "{key}"
        );
    }
    let mut cluster = cluster;
    cluster
        .api
        .edit(&deployment_key(), |object| object.metadata.finalizers = None);
    assert_eq!(cluster.writes(), ["Hold ContourDeployment projectcontour/edge"]);
}

#[test]
fn slipway_leaves_fields_that_other_users_add() {
    let (cluster, ours) = converged();
    for key in &ours {
        let writes = repaired(&cluster, key, |object| {
            object
                .metadata
                .labels
                .get_or_insert_default()
                .insert("example.com/team".into(), "edge".into());
            object
                .metadata
                .annotations
                .get_or_insert_default()
                .insert("cloud.example.com/address".into(), "1.2.3.4".into());
            object
                .metadata
                .finalizers
                .get_or_insert_default()
                .push("cloud.example.com/cleanup".into());
        });
        assert_eq!(writes, 0, "{key}");
    }
    let add = |kind, name: &str, pointer: &str, field: &str, value: Value| {
        let key = Key::new(kind, NAMESPACE, name);
        let change =
            |object: &mut Object| object.content["spec"].pointer_mut(pointer).expect("the field exists")[field] = value;
        assert_eq!(repaired(&cluster, &key, change), 0, "{key} {pointer}/{field}");
    };
    add(Kind::Deployment, "edge-contour", "", "replicas", 7.into());
    add(Kind::Deployment, "edge-contour", "", "minReadySeconds", 3.into());
    add(
        Kind::Deployment,
        "edge-contour",
        "/template/metadata/annotations",
        "kubectl.kubernetes.io/restartedAt",
        "now".into(),
    );
    add(
        Kind::Deployment,
        "edge-contour",
        "/template/spec",
        "priorityClassName",
        "high".into(),
    );
    add(
        Kind::DaemonSet,
        "edge-envoy",
        "/template/spec/containers/1",
        "stdin",
        true.into(),
    );
    add(
        Kind::Service,
        "edge-envoy",
        "",
        "loadBalancerClass",
        "example.com/lb".into(),
    );
    add(Kind::Service, "edge-envoy", "/ports/0", "nodePort", 30080.into());
    add(
        Kind::Lease,
        "edge-contour",
        "",
        "holderIdentity",
        "edge-contour-1".into(),
    );
}

#[test]
fn slipway_leaves_a_container_that_another_user_injects() {
    let (cluster, _) = converged();
    let key = Key::new(Kind::DaemonSet, NAMESPACE, "edge-envoy");
    let sidecar = json!({"name": "sidecar", "image": "example.com/sidecar"});
    let change = |object: &mut Object| {
        object.content["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .expect("containers")
            .push(sidecar);
    };
    assert_eq!(repaired(&cluster, &key, change), 0);
}

#[test]
fn slipway_restores_replicas_if_the_spec_sets_them() {
    let mut cluster = Cluster::new();
    cluster.specify(json!({"contour": {"deployment": {"replicas": 3}}}));
    cluster.settle();
    let key = cluster.contour().key();
    assert_eq!(
        repaired(&cluster, &key, |object| object.content["spec"]["replicas"] = 7.into()),
        1
    );
}

#[test]
fn slipway_removes_an_endpoint_from_a_blackhole() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.reconcile();
    let key = Key::new(Kind::Service, "auth", cluster.stand_in().name());
    for (field, value) in [
        ("selector", json!({"app": "open"})),
        ("externalName", "open.example.com".into()),
    ] {
        let change = |object: &mut Object| object.content["spec"][field] = value;
        assert_eq!(repaired(&cluster, &key, change), 1, "{field}");
    }
}

#[test]
fn slipway_removes_a_field_added_to_the_spec_of_a_stand_in() {
    let (cluster, _) = converged();
    let stand_in = cluster.stand_in().key();
    let change = |object: &mut Object| object.content["spec"]["loadBalancerPolicy"] = json!({"strategy": "Random"});
    assert_eq!(repaired(&cluster, &stand_in, change), 1);
}

#[test]
fn slipway_removes_a_subject_added_to_one_of_its_bindings() {
    let (cluster, ours) = converged();
    let bindings = [Kind::RoleBinding, Kind::ClusterRoleBinding];
    for key in ours.iter().filter(|key| bindings.contains(&key.kind)) {
        let another = json!({"kind": "ServiceAccount", "name": "another", "namespace": "elsewhere"});
        let change = |object: &mut Object| {
            object.content["subjects"]
                .as_array_mut()
                .expect("subjects")
                .push(another);
        };
        assert_eq!(repaired(&cluster, key, change), 1, "{key}");
    }
}

#[test]
fn slipway_restores_a_changed_container_port() {
    let (cluster, ours) = converged();
    let mut tried = 0;
    for key in ours
        .iter()
        .filter(|key| matches!(key.kind, Kind::Deployment | Kind::DaemonSet))
    {
        let change = |object: &mut Object| {
            let containers = object.content["spec"]["template"]["spec"]["containers"].as_array_mut();
            let mut ports = containers
                .expect("containers")
                .iter_mut()
                .filter_map(|it| it.get_mut("ports"));
            ports.next().expect("a container with ports")[0]["containerPort"] = json!(9999);
        };
        assert_eq!(repaired(&cluster, key, change), 1, "{key}");
        tried += 1;
    }
    assert_eq!(tried, 2, "the workloads of Contour and Envoy");
}

#[test]
fn slipway_removes_a_label_added_to_a_service_selector() {
    let (cluster, ours) = converged();
    let selects = |key: &&Key| cluster.api.objects[*key].at("/spec/selector").is_some() && key.kind == Kind::Service;
    let services: Vec<_> = ours.iter().filter(selects).collect();
    assert_eq!(services.len(), 2, "the Services of Contour and Envoy: {services:?}");
    for key in services {
        let change = |object: &mut Object| object.content["spec"]["selector"]["another"] = json!("label");
        assert_eq!(repaired(&cluster, key, change), 1, "{key}");
    }
}

#[test]
fn slipway_recreates_a_deleted_object_under_its_name() {
    let (cluster, ours) = converged();
    for key in ours.iter().filter(|key| !cluster.api.objects[*key].has_our_finalizer()) {
        let mut cluster = cluster.clone();
        cluster.api.forget(key);
        let writes = cluster.writes();
        assert!(writes.contains(&format!("Create {key}")), "{key}: {writes:?}");
        cluster.settle();
        assert_eq!(cluster.condition("Ready"), "True/AsSpecified", "{key}");
    }
}

#[test]
fn slipway_removes_a_setting_from_shared_objects_with_the_spec() {
    let mut cluster = Cluster::new();
    let publishing = json!({"serviceAnnotations": {"example.com/mine": "yes"}, "externalTrafficPolicy": "Cluster"});
    cluster.specify(
        json!({"envoy": {"networkPublishing": publishing, "nodePlacement": {"nodeSelector": {"disk": "ssd"}}}}),
    );
    cluster.settle();
    let service = Key::new(Kind::Service, NAMESPACE, "edge-envoy");
    cluster
        .api
        .edit(&service, |object| object.annotate("example.com/theirs", "yes".into()));
    cluster.specify(json!({"envoy": {"networkPublishing": {"type": "ClusterIPService"}}}));
    cluster.settle();
    let service = &cluster.api.objects[&service];
    assert_eq!(
        (
            service.annotation("example.com/mine"),
            service.annotation("example.com/theirs")
        ),
        (None, Some("yes"))
    );
    assert_eq!(service.at("/spec/externalTrafficPolicy"), None);
    let envoy = cluster
        .api
        .get(Kind::DaemonSet, NAMESPACE, "edge-envoy")
        .expect("the DaemonSet exists");
    let selector = envoy.at("/spec/template/spec/nodeSelector");
    assert_eq!(selector, Some(&json!({"kubernetes.io/os": "linux"})));
}
