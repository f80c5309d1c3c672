//! Changes by a mutating webhook or a policy to objects that Slipway writes.

use serde_json::{Value, json};
use slipway::plan::{Key, Kind, Object};

use super::cluster::{Cluster, NAMESPACE};
use super::scene::{asks_auth, points_at};

fn containers(object: &mut Object) -> Option<&mut Vec<Value>> {
    let spec = object.content.get_mut("spec")?;
    spec.pointer_mut("/template/spec/containers")?.as_array_mut()
}

/// Replaces the registry of images with a mirror, and adds a sidecar, a toleration and an environment variable to every workload.
fn platform(object: &mut Object) {
    let Some(all) = containers(object) else { return };
    for container in all.iter_mut() {
        let image = container["image"]
            .as_str()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        container["image"] = format!("mirror.example.com/{image}").into();
        if let Some(environment) = container["env"].as_array_mut()
            && environment.iter().all(|variable| variable["name"] != "PROXY")
        {
            environment.push(json!({"name": "PROXY", "value": "none"}));
        }
    }
    if all.iter().all(|container| container["name"] != "sidecar") {
        all.push(json!({"name": "sidecar", "image": "mirror.example.com/sidecar"}));
    }
    object.content["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "dedicated", "operator": "Exists"}]);
}

#[test]
fn slipway_accepts_and_reports_a_platforms_changes_to_workloads() {
    let mut cluster = Cluster::new();
    cluster.api.webhook = Some(platform);
    let mut spec = asks_auth();
    spec["contour"] =
        json!({"nodePlacement": {"tolerations": [{"key": "dedicated", "operator": "Exists", "effect": ""}]}});
    cluster.specify(spec);
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    assert_eq!(cluster.writes(), [""; 0]);
    let named = cluster.status().fields_decided_by_others;
    let of = |kind: &str| {
        named
            .iter()
            .find(|object| object.kind == kind)
            .expect("the status lists the object")
            .fields
            .clone()
    };
    let image = "spec.template.spec.containers[contour].image".to_owned();
    assert!(of("Deployment").contains(&image), "{named:?}");
    assert!(
        of("DaemonSet")
            .iter()
            .any(|field| field.ends_with("containers[envoy].image")),
        "{named:?}"
    );
    // A new process writes each object once more, and then knows the result.
    cluster.restart();
    let writes = cluster.writes();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.status().fields_decided_by_others, named);
}

/// Disables authorization in the configuration that Contour reads.
fn disables(object: &mut Object) {
    if object.kind == Kind::ContourConfiguration {
        object.content["spec"]["globalExtAuth"]["authPolicy"] = json!({"disabled": true});
    }
}

#[test]
fn slipway_never_rolls_out_a_configuration_changed_on_write() {
    let mut cluster = Cluster::new();
    cluster.api.webhook = Some(disables);
    cluster.create_namespace("auth");
    cluster.specify(asks_auth());
    for restarts in [false, true, true] {
        if restarts {
            cluster.restart();
        }
        cluster.settle();
        assert_eq!(cluster.condition("Stalled"), "True/NotTaken");
        assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_none());
    }
    let status = cluster.status();
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
    let message = &stalled.expect("the condition exists").message;
    assert!(message.contains("spec.globalExtAuth.authPolicy"), "{message}");
    cluster.api.webhook = None;
    cluster.api.now += cluster.plan().requeue_after.expect("a retry");
    cluster.settle();
    assert_eq!(cluster.condition("Stalled"), "");
    assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_some());
}

/// Replaces the command of Contour's container.
fn runs_another(object: &mut Object) {
    for container in containers(object)
        .into_iter()
        .flatten()
        .filter(|container| container["name"] == "contour")
    {
        container["command"] = json!(["sh"]);
    }
}

#[test]
fn a_contour_whose_command_is_changed_on_write_is_reported() {
    let mut cluster = Cluster::new();
    cluster.api.webhook = Some(runs_another);
    cluster.create_namespace("auth");
    cluster.specify(asks_auth());
    cluster.settle();
    assert_eq!(cluster.condition("Stalled"), "True/NotTaken");
    let before = cluster.api.objects[&Key::new(Kind::Deployment, NAMESPACE, "edge-contour")].clone();
    cluster.settle();
    assert_eq!(
        cluster.api.objects[&before.key()],
        before,
        "Slipway does not write the Deployment again at once"
    );
}

/// Sets defaults that an older version of Contour's CRDs does not have.
fn newer_crds(object: &mut Object) {
    match object.kind {
        Kind::ContourConfiguration => object.content["spec"]["policy"] = json!({"applyToIngress": false}),
        Kind::ExtensionService => object.content["spec"]["loadBalancerPolicy"] = json!({"strategy": "Random"}),
        _ => {}
    }
}

#[test]
fn new_defaults_of_contours_crds_settle_without_a_rollout() {
    for is_enforced in [true, false] {
        let mut cluster = if is_enforced {
            Cluster::enforcing(&points_at("auth"))
        } else {
            Cluster::waiting_for_auth()
        };
        let (ready, template) = (cluster.condition("Ready"), cluster.template());
        let traffic = cluster.status().extension_services[0].traffic;
        cluster.api.webhook = Some(newer_crds);
        for object in cluster.api.objects.values_mut() {
            newer_crds(object);
        }
        cluster.settle();
        assert_eq!((cluster.condition("Ready"), cluster.template()), (ready, template));
        assert_eq!(cluster.status().extension_services[0].traffic, traffic);
        assert_eq!(cluster.writes(), [""; 0]);
    }
}

/// Redirects the stand-ins of Slipway to another Service.
fn redirects(object: &mut Object) {
    if object.kind == Kind::ExtensionService && object.namespace() == "auth" && object.has_our_finalizer() {
        object.content["spec"]["services"] = json!([{"name": "evil", "port": 1}]);
    }
}

#[test]
fn a_stand_in_changed_on_write_is_not_used() {
    let mut cluster = Cluster::new();
    cluster.api.webhook = Some(redirects);
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.specify(asks_auth());
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    assert_eq!(cluster.condition("Ready"), "False/ExtensionServiceBlocked");
    assert_eq!(cluster.condition("EnvoyAvailable"), "True/Available");
}
