//! The name and the target of a stand-in, while the user creates, changes and deletes the ExtensionService.

use serde_json::json;
use slipway::plan::Kind;

use super::cluster::{Cluster, NAMESPACE, describe};
use super::scene::{
    asks_auth, asks_auth_fail_open, asks_everything, auth, id, is_blackhole, persisted_state, points_at,
    points_at_with_timeout,
};

#[test]
fn contour_references_a_blackhole_for_a_missing_service() {
    let mut cluster = Cluster::new();
    cluster.specify(asks_everything());
    cluster.settle();
    let stand_ins: Vec<_> = cluster.api.of_kind(Kind::ExtensionService).collect();
    assert_eq!(stand_ins.len(), 3);
    for stand_in in stand_ins {
        assert!(is_blackhole(stand_in), "{}", id(stand_in));
        let service = cluster
            .api
            .get(Kind::Service, stand_in.namespace(), stand_in.name())
            .expect("the blackhole of the stand-in");
        assert_eq!(
            (service.at("/spec/selector"), service.at("/spec/clusterIP")),
            (None, Some(&"None".into()))
        );
    }
    let spec = cluster.configuration().at("/spec").cloned().expect("a spec");
    assert_eq!(spec["globalExtAuth"]["failOpen"], true);
    assert_eq!(spec["rateLimitService"]["failOpen"], false);
    for (block, field) in [
        ("globalExtAuth", "extensionRef"),
        ("rateLimitService", "extensionService"),
        ("tracing", "extensionService"),
    ] {
        assert_eq!(spec[block][field]["namespace"], NAMESPACE, "{block}");
        assert!(
            spec[block][field]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("edge-")),
            "{block}"
        );
    }
}

#[test]
fn a_change_of_fail_open_only_creates_a_new_configuration() {
    let mut cluster = Cluster::waiting_for_auth();
    let before = (cluster.configuration().name().to_owned(), cluster.stand_ins());
    cluster.specify(asks_auth_fail_open());
    cluster.settle();
    assert_ne!(cluster.configuration().name(), before.0);
    assert_eq!(
        cluster.configuration().at("/spec/globalExtAuth/failOpen"),
        Some(&true.into())
    );
    assert_eq!(cluster.stand_ins(), before.1);
}

#[test]
fn stand_ins_follow_before_secrets_and_settings_are_known() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    let follows = |observed: &slipway::plan::Observed| {
        let waves = slipway::plan::plan(observed).waves;
        waves
            .iter()
            .flat_map(|wave| &wave.writes)
            .map(describe)
            .collect::<Vec<_>>()
    };
    let replaced = [format!("Replace {}", cluster.stand_in().key())];
    let mut observed = cluster.observe().expect("the ContourDeployment exists");
    observed.secrets_synced = false;
    assert_eq!(follows(&observed), replaced, "Secrets have not been read yet");
    cluster.specify(asks_auth_fail_open());
    let observed = cluster.observe().expect("the ContourDeployment exists");
    assert_eq!(cluster.plan().questions.len(), 1);
    assert_eq!(follows(&observed), replaced, "the settings have not been checked yet");
}

#[test]
fn an_unjudged_extension_service_changes_nothing() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    assert_eq!(cluster.writes(), [""; 0]);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn a_valid_extension_service_causes_one_write_and_no_rollout() {
    let mut cluster = Cluster::waiting_for_auth();
    let template = cluster.template();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    assert_eq!(
        cluster.writes(),
        [format!("Replace ExtensionService {}", id(cluster.stand_in()))]
    );
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.template(), template);
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_verdict_on_an_older_generation_is_ignored() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.edit_auth(points_at("other"));
    assert_eq!(cluster.writes(), [""; 0]);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn an_invalid_edit_keeps_the_last_copy_in_use() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(json!({"protocol": "h2c", "services": [{"name": "other", "port": 9001}]}));
    assert_eq!(cluster.writes(), [""; 0], "before Contour judges the edit");
    cluster.contour_writes_verdict(&auth(), Err(("ServiceUnresolvedReference", "unresolved service")));
    assert_eq!(cluster.writes(), [""; 0], "after Contour has judged the edit");
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServiceInvalid");
}

#[test]
fn a_deletion_keeps_the_timeout_and_a_return_rolls_out_nothing() {
    let spec = points_at_with_timeout("auth", "500ms");
    let mut cluster = Cluster::enforcing(&spec);
    let (template, name) = (cluster.template(), id(cluster.stand_in()));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    assert_eq!(cluster.writes(), [format!("Replace ExtensionService {name}")]);
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.stand_in().at("/spec/timeoutPolicy/response"),
        Some(&"500ms".into())
    );

    cluster.create_extension_service("auth", "auth", &spec);
    cluster.contour_judges();
    assert_eq!(cluster.writes(), [format!("Replace ExtensionService {name}")]);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    assert_eq!(cluster.template(), template);
}

#[test]
fn the_verdict_on_a_deleted_object_does_not_prove_its_successor() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("auth"));
    cluster.reconcile();
    assert!(
        is_blackhole(cluster.stand_in()),
        "the generation is the same, but the uid differs"
    );
}

#[test]
fn a_deletion_that_was_not_observed_has_the_same_final_state() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at("other"));
    cluster.create_service("auth", "other");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("other")));
}

#[test]
fn new_facts_update_the_old_stand_in_and_create_a_successor() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let (old, configuration) = (cluster.stand_in().key(), cluster.configuration().name().to_owned());
    let spec = points_at_with_timeout("auth", "900ms");
    cluster.edit_auth(spec.clone());
    cluster.contour_writes_verdict(&auth(), Ok(()));
    let writes = cluster.writes();
    let repairs = writes
        .iter()
        .filter(|write| **write == format!("Replace {old}"))
        .count();
    assert_eq!(
        repairs, 1,
        "one write updates the copy and retires the stand-in: {writes:?}"
    );
    let retired = &cluster.api.objects[&old];
    assert_eq!(retired.at("/spec"), Some(&spec));
    assert_eq!(persisted_state(retired)["retired"], true);
    assert_ne!(cluster.stand_in().key(), old);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    assert_ne!(cluster.configuration().name(), configuration);
    assert_eq!(persisted_state(cluster.stand_in()).get("retired"), None);
}

#[test]
fn a_retired_name_is_not_planned_again_after_a_revert() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let mut names = vec![id(cluster.stand_in())];
    for timeout in ["900ms", "500ms", "900ms", "500ms"] {
        cluster.edit_auth(points_at_with_timeout("auth", timeout));
        cluster.contour_writes_verdict(&auth(), Ok(()));
        cluster.reconcile();
        // Pods of every template remain, so every stand-in stays in use.
        cluster.new_pods_start();
        let name = id(cluster.stand_in());
        assert!(!names.contains(&name), "{name} was planned before: {names:?}");
        names.push(name);
    }
}

#[test]
fn a_terminating_stand_in_gets_a_successor() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.delete(Kind::ExtensionService, &old.namespace, &old.name);
    cluster.reconcile();
    assert_ne!(cluster.stand_in().key(), old);
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&points_at("auth")),
        "the successor has the same copy"
    );
    assert!(
        cluster.api.objects.contains_key(&old),
        "the old stand-in remains while a pod uses it"
    );
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&old));
}

#[test]
fn a_stand_in_with_a_terminating_blackhole_gets_a_successor() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.delete(Kind::Service, &old.namespace, &old.name);
    cluster.reconcile();
    assert_ne!(cluster.stand_in().key(), old);
    cluster.settle();
    assert_eq!(cluster.stand_ins().len(), 1);
}

fn points_at_with_subject_name() -> serde_json::Value {
    let mut spec = points_at("auth");
    spec["validation"] = json!({"caSecret": "ca", "subjectName": "auth.example"});
    spec
}

/// Changes the validation of the planned stand-in, as another user would. Returns the key of the stand-in.
fn alter_validation(cluster: &mut Cluster, validation: Option<serde_json::Value>) -> slipway::plan::Key {
    let key = cluster.stand_in().key();
    cluster.api.edit(&key, |object| {
        let spec = object.content["spec"].as_object_mut().expect("a spec");
        match validation {
            Some(validation) => drop(spec.insert("validation".into(), validation)),
            None => drop(spec.remove("validation")),
        }
    });
    key
}

#[test]
fn a_returning_subject_name_is_enforced_and_retires_a_stand_in() {
    let spec = points_at_with_subject_name();
    let mut cluster = Cluster::enforcing(&spec);
    let old = cluster.stand_in().key();
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.settle();
    assert_eq!(
        cluster.stand_in().key(),
        old,
        "a deletion of the service alone rolls out nothing"
    );
    cluster.create_extension_service("auth", "auth", &spec);
    cluster.contour_writes_verdict(&auth(), Ok(()));
    cluster.reconcile();
    assert_eq!(cluster.api.objects[&old].at("/spec"), Some(&spec));
    assert_eq!(persisted_state(&cluster.api.objects[&old])["retired"], true);
    assert_ne!(cluster.stand_in().key(), old);
}

#[test]
fn a_removed_subject_name_retires_a_stand_in_of_any_service() {
    for is_deleted in [false, true] {
        let mut cluster = Cluster::enforcing(&points_at_with_subject_name());
        let old = alter_validation(&mut cluster, None);
        if is_deleted {
            cluster.delete(Kind::ExtensionService, "auth", "auth");
        }
        cluster.reconcile();
        assert_ne!(
            cluster.stand_in().key(),
            old,
            "a container that started meanwhile accepts any certificate; deleted: {is_deleted}"
        );
    }
}

#[test]
fn a_subject_name_added_to_a_blackhole_retires_the_stand_in() {
    let mut cluster = Cluster::enforcing(&points_at_with_subject_name());
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.settle();
    let old = alter_validation(
        &mut cluster,
        Some(json!({"caSecret": "ca", "subjectName": "other.example"})),
    );
    cluster.reconcile();
    assert_ne!(cluster.stand_in().key(), old);
}

#[test]
fn facts_without_a_verdict_are_pinned_only_before_envoy_exists() {
    let spec = points_at_with_timeout("auth", "500ms");
    let mut cluster = Cluster::new();
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &spec);
    cluster.specify(asks_auth());
    cluster.reconcile();
    assert!(is_blackhole(cluster.stand_in()));
    assert_eq!(
        cluster.stand_in().at("/spec/timeoutPolicy/response"),
        Some(&"500ms".into())
    );
    let template = cluster.template();
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    assert_eq!(cluster.template(), template, "the installation needs one rollout");

    let mut without_envoy = Cluster::new();
    without_envoy.create_service("auth", "auth");
    without_envoy.specify(asks_auth());
    while without_envoy
        .api
        .get(Kind::Deployment, NAMESPACE, "edge-contour")
        .is_none()
    {
        assert_ne!(without_envoy.reconcile_until_crash(1), []);
    }
    assert_eq!(without_envoy.api.get(Kind::DaemonSet, NAMESPACE, "edge-envoy"), None);
    assert_eq!(without_envoy.stand_in().at("/spec/timeoutPolicy"), None);
    without_envoy.create_extension_service("auth", "auth", &spec);
    without_envoy.reconcile();
    assert_eq!(
        without_envoy.stand_in().at("/spec/timeoutPolicy/response"),
        Some(&"500ms".into()),
        "Contour exists, but no Envoy yet"
    );

    let mut late = Cluster::waiting_for_auth();
    let template = late.template();
    late.create_extension_service("auth", "auth", &spec);
    late.reconcile();
    assert_eq!(late.template(), template, "an unjudged object rolls out nothing");
}

#[test]
fn facts_that_would_stop_contour_are_not_pinned_unjudged() {
    let mut cluster = Cluster::new();
    cluster.create_service("auth", "auth");
    cluster.create_extension_service("auth", "auth", &points_at_with_timeout("auth", "s"));
    cluster.specify(asks_auth());
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec/timeoutPolicy"), None);
}

#[test]
fn only_a_repair_of_pinned_facts_retires_a_stand_in() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let old = cluster.stand_in().key();
    cluster
        .api
        .edit(&old, |object| object.content["spec"]["protocol"] = "h2".into());
    assert_eq!(cluster.writes(), [format!("Replace {old}")]);
    assert_eq!(cluster.stand_in().key(), old);
    cluster.api.edit(&old, |object| {
        object.content["spec"]["timeoutPolicy"]["response"] = "1ms".into();
    });
    cluster.reconcile();
    let repaired = &cluster.api.objects[&old];
    assert_eq!(repaired.at("/spec/timeoutPolicy/response"), Some(&"500ms".into()));
    assert_eq!(
        persisted_state(repaired)["retired"],
        true,
        "a container may have read 1ms"
    );
    assert_ne!(cluster.stand_in().key(), old);
}
