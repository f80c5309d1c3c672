//! Slipway repairs an altered object and creates a successor. A user who keeps altering objects does not keep Contour rolling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use slipway::api::Traffic;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Environment, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Owner, View};

use super::cluster::{Cluster, NAMESPACE, described, startup_inputs};
use super::scene::{asks_auth, auth, is_blackhole, persisted_state, points_at, points_at_with_timeout};

/// Disables authorization in the configuration that Contour's Deployment names, as another user would. Returns the key of the
/// configuration.
fn alter_configuration(cluster: &mut Cluster) -> Key {
    let key = cluster.configuration().key();
    cluster.api.edit(&key, |object| {
        object.content["spec"]["globalExtAuth"]["authPolicy"] = json!({"disabled": true});
    });
    key
}

/// Returns name, uid and generation of the ContourConfiguration that Contour's Deployment references.
fn referenced(cluster: &Cluster) -> [Value; 3] {
    let captured = startup_inputs(cluster.contour());
    ["configuration", "uid", "generation"].map(|field| captured[field].clone())
}

#[test]
fn an_altered_configuration_is_repaired_and_rolled_out() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let as_it_was = cluster.configuration();
    let [name, uid, generation] = referenced(&cluster);
    assert_eq!(generation, json!(1));
    let altered = alter_configuration(&mut cluster);
    cluster.reconcile();
    assert_eq!(cluster.configuration().at("/spec"), as_it_was.at("/spec"));
    assert_eq!(cluster.configuration().key(), altered);
    assert_eq!(
        referenced(&cluster),
        [name, uid, json!(3)],
        "one rollout, to the repaired spec"
    );
    assert_eq!(cluster.condition("Degraded"), "True/ConfigurationAltered");
    assert_eq!(
        cluster.status().extension_services[0].traffic,
        Traffic::Unknown,
        "a Contour that started meanwhile may not ask the service"
    );
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    assert_eq!(cluster.condition("Degraded"), "False/Healthy");
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Enforced);
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn an_altered_configuration_is_repaired_before_the_rollout() {
    for survived in 0.. {
        let mut cluster = Cluster::enforcing(&points_at("auth"));
        let before = referenced(&cluster);
        alter_configuration(&mut cluster);
        let written = cluster.reconcile_until_crash(survived);
        if referenced(&cluster) != before {
            assert_eq!(referenced(&cluster)[2], json!(3), "killed after {survived} writes");
            assert!(
                survived > 1,
                "Slipway repairs the configuration first: {:?}",
                described(&written)
            );
            return;
        }
    }
}

#[test]
fn a_hanging_configuration_gets_a_successor_that_stays() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let first = cluster.configuration();
    for hung in 1..=2 {
        cluster.api.now += Duration::from_mins(2);
        let key = cluster.configuration().key();
        cluster.api.edit(&key, |object| {
            object.metadata.finalizers = Some(vec!["example.com/mine".into()]);
        });
        cluster.delete(key.kind, &key.namespace, &key.name);
        cluster.settle();
        assert_ne!(
            cluster.configuration().key(),
            key,
            "configuration {hung} hangs in its deletion"
        );
        assert_eq!(cluster.configuration().at("/spec"), first.at("/spec"));
        assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    }
    let successor = referenced(&cluster);
    let mut hanging: Vec<_> = cluster
        .api
        .of_kind(Kind::ContourConfiguration)
        .map(Object::key)
        .collect();
    hanging.retain(|key| *key != cluster.configuration().key());
    assert_eq!(hanging.len(), 2);
    for key in hanging {
        cluster.api.forget(&key);
    }
    cluster.api.now += Duration::from_mins(2);
    cluster.settle();
    assert_eq!(referenced(&cluster), successor, "Contour keeps the successor");
}

#[test]
fn a_deleted_configuration_is_recreated_and_rolled_out() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let [name, uid, _] = referenced(&cluster);
    let deleted = cluster.configuration().key();
    cluster.api.forget(&deleted);
    cluster.reconcile();
    let [again, another, _] = referenced(&cluster);
    assert_eq!(again, name);
    assert_ne!(another, uid);
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
}

#[test]
fn a_crash_after_a_recreation_does_not_prevent_the_rollout() {
    for survived in 0.. {
        let mut cluster = Cluster::enforcing(&points_at("auth"));
        let before = referenced(&cluster);
        let deleted = cluster.configuration().key();
        cluster.api.forget(&deleted);
        cluster.reconcile_until_crash(survived);
        let is_rolled = referenced(&cluster) != before;
        cluster.settle();
        assert_ne!(referenced(&cluster), before, "killed after {survived} writes");
        assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
        if is_rolled {
            assert!(survived > 0, "Slipway recreates the configuration before the rollout");
            return;
        }
    }
}

#[test]
fn repeated_alterations_roll_contour_at_most_once_a_minute() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    alter_configuration(&mut cluster);
    cluster.settle();
    let [.., generation] = referenced(&cluster);
    assert_eq!(generation, json!(3), "the first rollout is not delayed");
    cluster.api.now += Duration::from_secs(10);
    alter_configuration(&mut cluster);
    cluster.settle();
    assert_eq!(
        cluster.configuration().metadata.generation,
        Some(5),
        "Slipway repairs the configuration"
    );
    assert_eq!(referenced(&cluster)[2], json!(3), "the second rollout is delayed");
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(50)));
    assert_eq!(cluster.condition("Degraded"), "True/ConfigurationAltered");
    assert_eq!(cluster.status().extension_services[0].traffic, Traffic::Unknown);
    cluster.api.now += Duration::from_secs(50);
    cluster.settle();
    assert_eq!(referenced(&cluster)[2], json!(5));
    assert_eq!(cluster.condition("Degraded"), "False/Healthy");
}

#[test]
fn a_change_of_the_spec_does_not_wait_for_that_minute() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    for _ in 0..2 {
        alter_configuration(&mut cluster);
        cluster.settle();
    }
    assert_eq!(referenced(&cluster)[2], json!(3));
    let mut spec =
        serde_json::to_value(&cluster.observe().expect("the ContourDeployment exists").deployment.spec).expect("JSON");
    spec["contour"]["logLevel"] = "debug".into();
    cluster.specify(spec);
    cluster.settle();
    assert_eq!(
        referenced(&cluster)[2],
        json!(5),
        "the rollout includes the repaired configuration"
    );
}

#[test]
fn each_rollout_renews_the_mark_of_the_last_good_configuration() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let mark = |cluster: &Cluster| {
        let mark = cluster
            .configuration()
            .annotation(annotations::ROLLED_OUT)
            .map(str::to_owned);
        mark.expect("the configuration is rolled out")
    };
    let spec =
        serde_json::to_value(&cluster.observe().expect("the ContourDeployment exists").deployment.spec).expect("JSON");
    let (first, before) = (cluster.configuration().key(), mark(&cluster));
    for spec in [super::scene::asks_auth_fail_open(), spec] {
        cluster.api.now += Duration::from_mins(2);
        cluster.specify(spec);
        cluster.settle();
    }
    assert_eq!(cluster.configuration().key(), first);
    assert!(mark(&cluster) > before, "{} after {before}", mark(&cluster));
}

/// Deletes and recreates the namespace of the authorization service.
fn flap(cluster: &mut Cluster) {
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    cluster.create_namespace("auth");
    cluster.settle();
}

#[test]
fn a_flapping_namespace_rolls_contour_ever_less_often() {
    let mut cluster = Cluster::waiting_for_auth();
    for _ in 0..2 {
        flap(&mut cluster);
        assert_eq!(cluster.stand_in().namespace(), "auth");
    }
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.settle();
    assert_eq!(
        cluster.api.get(Kind::Namespace, "", "auth"),
        None,
        "nothing blocks the deletion of the namespace"
    );
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE);
    cluster.create_namespace("auth");
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), NAMESPACE, "the move back is delayed");
    assert_eq!(cluster.plan().requeue_after, Some(Duration::from_secs(10)));
    cluster.api.now += Duration::from_secs(10);
    cluster.settle();
    assert_eq!(cluster.stand_in().namespace(), "auth");
    cluster.api.now += Duration::from_mins(10);
    flap(&mut cluster);
    assert_eq!(
        cluster.stand_in().namespace(),
        "auth",
        "after ten quiet minutes the move is not delayed"
    );
}

#[test]
fn a_stand_in_with_a_delayed_succession_gets_new_facts_at_once() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "1s"));
    for seconds in 2..8 {
        let spec = points_at_with_timeout("auth", &format!("{seconds}s"));
        cluster.edit_auth(spec.clone());
        cluster.contour_writes_verdict(&auth(), Ok(()));
        cluster.settle();
        assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    }
    let memory = persisted_state(cluster.stand_in());
    assert_eq!(
        (&memory["pinned"]["response"], &memory["moves"]),
        (&json!("6s"), &json!(5))
    );
    cluster.api.now += Duration::from_secs(10);
    cluster.settle();
    assert_eq!(persisted_state(cluster.stand_in())["pinned"]["response"], "7s");
}

#[test]
fn a_stand_in_with_a_delayed_succession_keeps_its_role() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "1s"));
    let auth_and_tracing = json!({"namespace": "auth", "name": "auth"});
    cluster.specify(json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": auth_and_tracing}, "tracing": {"extensionService": auth_and_tracing},
    }}));
    for seconds in 2..8 {
        cluster.edit_auth(points_at_with_timeout("auth", &format!("{seconds}s")));
        cluster.contour_writes_verdict(&auth(), Ok(()));
        cluster.settle();
        for service in cluster.status().extension_services {
            let stand_in = service.stand_in.expect("a stand-in").name;
            let of_the_role = format!("edge-{}-", service.role.slug());
            assert!(
                stand_in.starts_with(&of_the_role),
                "{stand_in} for {}",
                service.role.slug()
            );
        }
    }
}

#[test]
fn a_deleted_stand_in_that_a_pod_may_read_is_recreated() {
    for before in [points_at("auth"), points_at_with_timeout("auth", "500ms")] {
        let mut cluster = Cluster::enforcing(&before);
        let old = cluster.stand_in().key();
        cluster.edit_auth(points_at_with_timeout("auth", "900ms"));
        cluster.contour_writes_verdict(&auth(), Ok(()));
        cluster.reconcile();
        cluster.new_pods_start();
        assert_ne!(cluster.stand_in().key(), old);
        cluster.api.forget(&old);
        cluster.reconcile();
        assert_eq!(
            cluster.api.objects[&old].at("/spec"),
            Some(&points_at_with_timeout("auth", "900ms")),
            "the recreated stand-in is enforced"
        );
        assert_eq!(persisted_state(&cluster.api.objects[&old])["retired"], true);
        cluster.settle();
        assert!(!cluster.api.objects.contains_key(&old));
    }
}

#[test]
fn a_recreated_stand_in_is_not_planned_again() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.edit_auth(points_at_with_timeout("auth", "900ms"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.reconcile();
    cluster.new_pods_start();
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.reconcile();
    cluster.api.forget(&old);
    cluster.reconcile();
    assert!(is_blackhole(&cluster.api.objects[&old]));
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.reconcile();
    assert_ne!(cluster.stand_in().key(), old, "what a container read there is unknown");
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
}

/// A view with one object, which the view attributes to nobody.
struct Unlabelled(Object);

impl View for Unlabelled {
    fn objects(&mut self, _: &Owner) -> BTreeMap<Key, Arc<Object>> {
        BTreeMap::new()
    }

    fn unlabelled(&mut self, namespace: &str) -> Vec<Arc<Object>> {
        let here = self.0.namespace() == namespace;
        here.then(|| Arc::new(self.0.clone())).into_iter().collect()
    }

    fn extension_service(&mut self, _: &NamespacedName) -> Option<(Arc<Object>, Option<Timestamp>)> {
        None
    }

    fn services(&mut self, _: &str, _: &BTreeSet<String>) -> Vec<Arc<Object>> {
        Vec::new()
    }

    fn ready_services(&mut self, _: &str, _: &BTreeSet<String>) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn namespace(&mut self, _: &str) -> Option<NamespacePhase> {
        None
    }

    fn environment(&mut self) -> Environment {
        Environment::at(Timestamp::UNIX_EPOCH)
    }
}

/// Reports whether a ContourDeployment with the same spec in this namespace observes the unlabelled object as its own.
fn is_found(cluster: &Cluster, namespace: &str, object: Object) -> bool {
    let observed = cluster.observe().expect("the ContourDeployment exists");
    let mut deployment = (*observed.deployment).clone();
    deployment.metadata.namespace = Some(namespace.to_owned());
    let found = Observed::of(&mut Unlabelled(object), deployment);
    !found.objects.is_empty()
}

#[test]
fn a_stand_in_without_labels_is_known_by_its_name() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let first = cluster.stand_in().key();
    cluster.delete(first.kind, &first.namespace, &first.name);
    cluster.settle();
    let second = cluster.stand_in().clone();
    assert_eq!(persisted_state(&second)["salt"], 1);
    cluster.api.edit(&second.key(), |object| object.metadata.labels = None);
    let bare = cluster.api.objects[&second.key()].clone();
    assert!(is_found(&cluster, NAMESPACE, bare));
    assert_eq!(cluster.writes(), [format!("Replace {}", second.key())]);
    assert_eq!(cluster.stand_in().metadata.labels, second.metadata.labels);
}

#[test]
fn a_stand_in_of_another_owner_or_name_is_not_slipways() {
    let cluster = Cluster::enforcing(&points_at("auth"));
    assert!(is_found(&cluster, NAMESPACE, cluster.stand_in().clone()));
    assert!(!is_found(&cluster, "elsewhere", cluster.stand_in().clone()));
    let mut forged = cluster.stand_in().clone();
    forged.metadata.name = Some("edge-ext-auth-0123456789".into());
    assert!(!is_found(&cluster, NAMESPACE, forged));
}

#[test]
fn a_pods_annotation_creates_nothing_in_an_unrelated_namespace() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.create_namespace("kube-system");
    let mut said = startup_inputs(cluster.contour());
    said["standIns"] = json!(["kube-system/edge-ext-auth-0123456789"]);
    let pod = cluster.contour_pods().next().expect("a pod").key();
    cluster
        .api
        .edit(&pod, |pod| pod.annotate(annotations::STARTUP_INPUTS, said.to_string()));
    cluster.settle();
    let there = |object: &&Object| object.namespace() == "kube-system";
    assert_eq!(cluster.api.objects.values().filter(there).count(), 0);
}

#[test]
fn a_workload_deleted_while_a_spec_is_refused_is_recreated() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let (configuration, template) = (cluster.configuration().key(), cluster.template());
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({
        "contour": {"logLevel": "debug"},
        "runtimeSettings": {"foo": 1, "globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}, "failOpen": true}},
    }));
    cluster.settle();
    assert_eq!(
        cluster.template(),
        template,
        "Slipway applies nothing of the refused spec"
    );
    for (kind, name) in [
        (Kind::Deployment, "edge-contour"),
        (Kind::DaemonSet, "edge-envoy"),
        (Kind::Service, "edge-envoy"),
        (Kind::Service, "edge-contour"),
    ] {
        cluster.delete(kind, NAMESPACE, name);
        cluster.settle();
        assert!(cluster.api.get(kind, NAMESPACE, name).is_some(), "{kind} {name}");
    }
    assert_eq!(cluster.configuration().key(), configuration);
    assert_eq!(cluster.condition("ConfigurationValid"), "False/ConfigurationRefused");
    assert_eq!(cluster.writes(), [""; 0]);
}

/// Returns a cluster that was rolled out to a spec without references, and the stand-in that was used before.
fn without_its_reference() -> (Cluster, Key) {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().key();
    cluster.specify(json!({"runtimeSettings": {}}));
    cluster.reconcile();
    cluster.roll();
    (cluster, stand_in)
}

#[test]
fn a_started_deletion_completes_while_a_spec_is_refused() {
    let (mut cluster, stand_in) = without_its_reference();
    while !cluster.api.objects[&stand_in].is_terminating() {
        assert_ne!(cluster.reconcile_until_crash(1), [], "no writes are left");
    }
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&stand_in));
}

#[test]
fn no_deletion_starts_while_a_spec_is_refused() {
    let (mut cluster, stand_in) = without_its_reference();
    let told = cluster.reconcile_until_crash(1);
    assert_eq!(
        described(&told),
        [format!("Replace {}", cluster.configuration().key())],
        "Slipway marks the configuration as rolled out"
    );
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.settle();
    assert!(!cluster.api.objects[&stand_in].is_terminating());
    assert!(
        cluster.plan().requeue_after.is_some(),
        "Slipway still renews certificates"
    );
}

#[test]
fn a_partly_rolled_out_configuration_is_not_the_last_good_one() {
    let mut cluster = Cluster::new();
    cluster.create_service("auth", "auth");
    cluster.specify(asks_auth());
    cluster.reconcile();
    cluster.refuses_settings = Some("spec.foo: unknown".into());
    cluster.specify(json!({"runtimeSettings": {"foo": 1}}));
    cluster.delete(Kind::Deployment, NAMESPACE, "edge-contour");
    cluster.settle();
    assert!(cluster.api.get(Kind::Deployment, NAMESPACE, "edge-contour").is_none());
}

#[test]
fn missing_crds_do_not_keep_a_blackhole_without_its_stand_in() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let stand_in = cluster.stand_in().clone();
    assert!(!is_blackhole(&stand_in));
    cluster.missing_crds = vec!["extensionservices.projectcontour.io".into()];
    cluster.delete(Kind::Namespace, "", "auth");
    cluster.finalize_namespaces();
    let blackhole = Key::new(Kind::Service, "auth", stand_in.name());
    let expected = [stand_in.key(), blackhole].map(|key| format!("Release {key}"));
    assert_eq!(cluster.writes(), expected, "the stand-in before the blackhole");
    cluster.finalize_namespaces();
    assert_eq!(cluster.api.get(Kind::Namespace, "", "auth"), None);
}
