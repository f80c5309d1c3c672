//! Objects of other users, with or without Slipway's labels, do not control what Slipway does.

use serde_json::{Value, json};
use slipway::api::Traffic;
use slipway::api::vocabulary::{FINALIZER, annotations};
use slipway::plan::{Key, Kind, Object, hash, hash_json};

use super::cluster::{Cluster, NAME, NAMESPACE};
use super::scene::{asks_auth, is_blackhole, points_at};

/// Returns both labels of the ContourDeployment and the component label of Contour's pods.
fn marks() -> Value {
    json!({
        "contour.slipway.dev/contourdeployment": NAME,
        "contour.slipway.dev/contourdeployment-namespace": NAMESPACE,
        "app.kubernetes.io/component": "contour",
    })
}

/// Returns the name and spec of a forged configuration, and a startup-inputs annotation that names the configuration. The spec
/// disables authorization. The name matches the hash of the spec.
fn forged_capture() -> (String, Value, String) {
    let auth = json!({"extensionRef": {"namespace": "auth", "name": "auth"}, "authPolicy": {"disabled": true}});
    let spec = json!({"globalExtAuth": auth});
    let name = format!("{NAME}-{}", hash([NAMESPACE, NAME, hash_json(&spec).as_str()]));
    let captured = json!({"configuration": name, "spec": spec, "standIns": ["auth/edge-ext-auth-BAD NAME"]});
    (name, spec, captured.to_string())
}

/// Returns an object of every kind for a namespace, with both labels and forged annotations.
fn imitations(namespace: &str) -> Vec<(Kind, Value)> {
    let (configuration, spec, captured) = forged_capture();
    let metadata = |name: &str, annotations: Value| {
        json!({
            "namespace": namespace, "name": name, "labels": marks(), "annotations": annotations
        })
    };
    let memory = json!({
        "salt": 4_000_000_000_u32, "moves": u32::MAX, "retired": true, "pinned": {}, "reference": ["auth", "auth"],
        "proven": {"uid": "u", "generation": i64::MAX, "spec": points_at("evil")},
        "nudge": {"about": [], "step": u64::MAX, "odd": true},
    });
    let annotated = json!({annotations::STARTUP_INPUTS: captured});
    let template = json!({"metadata": metadata("", annotated.clone())});
    let role = json!({"contour.slipway.dev/role": "ext-auth"});
    let mut stand_in = metadata(
        "edge-ext-auth-0000000000",
        json!({annotations::PERSISTED_STATE: memory.to_string()}),
    );
    stand_in["labels"]
        .as_object_mut()
        .expect("labels")
        .extend(role.as_object().expect("a label").clone());
    stand_in["finalizers"] = json!([FINALIZER]);
    let mut unlike = stand_in.clone();
    unlike["name"] = "other".into();
    vec![
        (
            Kind::Pod,
            json!({"metadata": metadata("pod", annotated), "status": {"phase": "Pending"}}),
        ),
        (
            Kind::ReplicaSet,
            json!({"metadata": metadata("set", json!({})), "spec": {"replicas": 1, "template": template}}),
        ),
        (
            Kind::Deployment,
            json!({"metadata": metadata("edge-contour", json!({})), "spec": {"replicas": 1, "template": template}}),
        ),
        (
            Kind::ServiceAccount,
            json!({"metadata": metadata("edge-contour", json!({}))}),
        ),
        (
            Kind::Secret,
            json!({"metadata": metadata("edge-contour-cert", json!({}))}),
        ),
        (
            Kind::RoleBinding,
            json!({"metadata": metadata("edge-slipway-secrets", json!({}))}),
        ),
        (Kind::Lease, json!({"metadata": metadata("edge-contour", json!({}))})),
        (
            Kind::ContourConfiguration,
            json!({"metadata": metadata(&configuration, json!({annotations::ROLLED_OUT: "2030-01-01T00:00:00Z"})), "spec": spec}),
        ),
        (
            Kind::ExtensionService,
            json!({"metadata": unlike, "spec": points_at("evil")}),
        ),
        (
            Kind::ExtensionService,
            json!({"metadata": stand_in, "spec": points_at("evil")}),
        ),
    ]
}

fn create_all(cluster: &mut Cluster, imitations: &[(Kind, Value)]) -> Vec<Key> {
    let create = |(kind, json): &(Kind, Value)| {
        cluster.create(*kind, json.clone());
        Object::from_json(*kind, json.clone()).expect("an object").key()
    };
    imitations.iter().map(create).collect()
}

#[test]
fn objects_in_an_unreferenced_namespace_are_ignored_or_pruned() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let (status, template) = (cluster.status(), cluster.template());
    cluster.create_namespace("alice");
    let keys = create_all(&mut cluster, &imitations("alice"));
    for restarts in [false, true] {
        if restarts {
            cluster.restart();
        }
        let writes = cluster.writes();
        let is_theirs = |write: &String| write.contains(" alice/edge-ext-auth-0000000000");
        assert!(writes.iter().all(is_theirs), "{writes:?}");
        assert_eq!(
            (cluster.status(), cluster.template()),
            (status.clone(), template.clone())
        );
    }
    for key in keys {
        let is_left = cluster.api.objects.contains_key(&key);
        assert_eq!(is_left, key.name != "edge-ext-auth-0000000000", "{key}");
    }
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.settle();
    assert!(
        cluster.observe().is_none(),
        "none of the imitations blocks the deletion"
    );
}

#[test]
fn a_foreign_pod_at_home_blocks_deletions_and_hides_traffic() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let template = cluster.template();
    let (configuration, ..) = forged_capture();
    let pods = imitations(NAMESPACE).into_iter().take(2).collect::<Vec<_>>();
    create_all(&mut cluster, &pods);
    cluster.restart();
    assert_eq!(cluster.writes(), [""; 0]);
    assert_eq!(cluster.template(), template);
    assert!(
        cluster
            .api
            .get(Kind::ContourConfiguration, NAMESPACE, &configuration)
            .is_none()
    );
    let traffic = |cluster: &Cluster| cluster.status().extension_services[0].traffic;
    assert_eq!(traffic(&cluster), Traffic::Enforced, "the pod has not started");
    let pod = Key::new(Kind::Pod, NAMESPACE, "pod");
    cluster
        .api
        .edit(&pod, |pod| pod.content["status"]["phase"] = "Running".into());
    cluster.reconcile();
    assert_eq!(
        traffic(&cluster),
        Traffic::Unknown,
        "the configuration of the pod is unknown"
    );
    cluster.delete(Kind::ContourDeployment, NAMESPACE, NAME);
    cluster.settle();
    assert!(
        cluster.observe().is_some(),
        "the pod may be a Contour that needs its startup inputs"
    );
    cluster.api.forget(&pod);
    cluster.api.forget(&Key::new(Kind::ReplicaSet, NAMESPACE, "set"));
    cluster.settle();
    assert!(cluster.observe().is_none());
}

#[test]
fn a_forged_rolled_out_mark_is_ignored_while_contour_runs() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let good = cluster.configuration().key();
    let forged = imitations(NAMESPACE);
    let forged = forged.iter().filter(|(kind, _)| *kind == Kind::ContourConfiguration);
    let forged = create_all(&mut cluster, &forged.cloned().collect::<Vec<_>>());
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.restart();
    cluster.reconcile();
    let contour = cluster.contour().key();
    assert_eq!(cluster.configuration().key(), good);
    assert!(!forged.contains(&good));
    cluster
        .api
        .edit(&contour, |contour| contour.content["spec"]["replicas"] = 3.into());
    cluster.reconcile();
    assert_eq!(cluster.configuration().key(), good);
}

#[test]
fn slipway_repairs_a_blackhole_that_becomes_an_external_name() {
    let mut cluster = Cluster::waiting_for_auth();
    let stand_in = cluster.stand_in().clone();
    let blackhole = Key::new(Kind::Service, stand_in.namespace(), stand_in.name());
    cluster.api.edit(&blackhole, |service| {
        service.content["spec"]["type"] = "ExternalName".into();
        service.content["spec"]["externalName"] = "evil.example.com".into();
    });
    assert_eq!(cluster.writes(), [format!("Replace {blackhole}")]);
    let spec = cluster.api.objects[&blackhole].at("/spec").cloned().expect("a spec");
    assert_eq!((&spec["type"], spec.get("externalName")), (&json!("ClusterIP"), None));
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_namespace_that_refuses_creations_is_bypassed_and_retried() {
    let mut cluster = Cluster::new();
    cluster.create_namespace("auth");
    cluster.full.insert("auth".to_owned());
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.specify(asks_auth());
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    assert_eq!(cluster.condition("ContourAvailable"), "True/Available");
    assert_eq!(cluster.condition("EnvoyAvailable"), "True/Available");
    assert_eq!(cluster.condition("Ready"), "False/ExtensionServiceBlocked");
    let said = cluster.status().extension_services[0]
        .message
        .clone()
        .unwrap_or_default();
    assert!(
        said.contains("exceeded quota") && said.contains("namespace auth"),
        "{said}"
    );
    let template = cluster.template();
    for _ in 0..20 {
        let wait = cluster.plan().requeue_after.expect("a retry");
        cluster.api.now += wait;
        assert_eq!(cluster.writes(), [""; 0], "the creation is refused");
        assert_eq!(cluster.template(), template, "a refused creation rolls out nothing");
    }
    assert!(
        cluster.plan().requeue_after.is_some_and(|wait| wait.as_secs() > 200),
        "the retries back off"
    );
    cluster.full.clear();
    cluster.api.now += cluster.plan().requeue_after.expect("a retry");
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn a_stand_in_whose_successor_is_refused_stays_in_use() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    cluster.full.insert("auth".to_owned());
    cluster.edit_auth(super::scene::points_at_with_timeout("auth", "9s"));
    cluster.contour_judges_if_triggered();
    cluster.settle();
    assert_eq!(cluster.stand_in().key(), stand_in);
    let spec = cluster.stand_in().at("/spec/timeoutPolicy/response").cloned();
    assert_eq!(spec, Some(json!("9s")), "the stand-in follows its service");
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Enforced);
    cluster.full.clear();
    cluster.api.now += std::time::Duration::from_mins(6);
    cluster.settle();
    assert_ne!(
        cluster.stand_in().key(),
        stand_in,
        "the name of the former stand-in promises another timeout"
    );
}

#[test]
fn a_name_taken_in_the_service_namespace_blocks_nothing() {
    let mut cluster = Cluster::new();
    cluster.create_namespace("auth");
    let name = {
        let mut elsewhere = cluster.clone();
        elsewhere.specify(asks_auth());
        elsewhere.settle();
        elsewhere.stand_in().name().to_owned()
    };
    for kind in [Kind::Service, Kind::ExtensionService] {
        let mut cluster = cluster.clone();
        let spec = json!({"services": [{"name": "theirs", "port": 1}], "ports": []});
        cluster.create(
            kind,
            json!({"metadata": {"namespace": "auth", "name": name}, "spec": spec}),
        );
        let theirs = cluster.api.objects[&Key::new(kind, "auth", &name)].clone();
        cluster.specify(asks_auth());
        cluster.settle();
        assert_eq!(cluster.stand_in().namespace(), NAMESPACE, "{kind}");
        assert_eq!(cluster.condition("EnvoyAvailable"), "True/Available", "{kind}");
        assert_eq!(
            cluster.api.objects[&theirs.key()].at("/spec"),
            theirs.at("/spec"),
            "{kind}"
        );
    }
}
