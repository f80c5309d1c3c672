//! Which stand-in there is, and where it points, while the user's ExtensionService comes, changes and goes.

use serde_json::json;
use slipway::plan::Kind;

use crate::cluster::{Cluster, NAMESPACE, describe};
use crate::scene::{
    asks_auth, asks_auth_fail_open, asks_everything, auth, id, is_blackhole, points_at, points_at_with_timeout,
    remembered,
};

#[test]
fn a_missing_extension_service_has_a_blackhole_in_its_place_and_is_never_referenced() {
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
            .expect("its blackhole");
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
fn a_change_of_fail_open_is_a_new_configuration_and_nothing_else() {
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
fn stand_ins_follow_before_anything_else_is_known() {
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
    let mut observed = cluster.observe().expect("it exists");
    observed.secrets_synced = false;
    assert_eq!(follows(&observed), replaced, "Secrets have not been read yet");
    cluster.specify(asks_auth_fail_open());
    let observed = cluster.observe().expect("it exists");
    assert_eq!(cluster.plan().questions.len(), 1);
    assert_eq!(
        follows(&observed),
        replaced,
        "nobody has asked yet whether the settings are taken"
    );
}

#[test]
fn an_extension_service_that_nobody_has_judged_changes_nothing() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    assert_eq!(cluster.writes(), [""; 0]);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn one_that_becomes_valid_is_one_write_and_no_rollout() {
    let mut cluster = Cluster::waiting_for_auth();
    let template = cluster.template();
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_says(&auth(), Ok(()));
    assert_eq!(
        cluster.writes(),
        [format!("Replace ExtensionService {}", id(cluster.stand_in()))]
    );
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.template(), template);
    assert_eq!(cluster.writes(), [""; 0]);
}

#[test]
fn a_verdict_on_an_older_generation_proves_nothing() {
    let mut cluster = Cluster::waiting_for_auth();
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.contour_says(&auth(), Ok(()));
    cluster.edit_auth(points_at("other"));
    assert_eq!(cluster.writes(), [""; 0]);
    assert!(is_blackhole(cluster.stand_in()));
}

#[test]
fn an_edit_that_contour_finds_invalid_leaves_the_last_copy_in_use() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.edit_auth(json!({"protocol": "h2c", "services": [{"name": "other", "port": 9001}]}));
    assert_eq!(cluster.writes(), [""; 0], "while it is not judged");
    cluster.contour_says(&auth(), Err(("ServiceUnresolvedReference", "unresolved service")));
    assert_eq!(cluster.writes(), [""; 0], "when it is judged");
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("auth")));
    assert_eq!(cluster.condition("Degraded"), "True/ExtensionServiceInvalid");
}

#[test]
fn a_deletion_is_one_write_that_keeps_the_pinned_timeout_and_a_return_with_the_same_facts_rolls_nothing() {
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

    cluster.make_extension_service("auth", "auth", &spec);
    cluster.contour_judges();
    assert_eq!(cluster.writes(), [format!("Replace ExtensionService {name}")]);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    assert_eq!(cluster.template(), template);
}

#[test]
fn an_object_that_was_deleted_and_made_again_has_proved_nothing() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.make_extension_service("auth", "auth", &points_at("auth"));
    cluster.reconcile();
    assert!(
        is_blackhole(cluster.stand_in()),
        "its generation is the same, its uid is not"
    );
}

#[test]
fn a_deletion_that_was_never_seen_is_no_different() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.make_extension_service("auth", "auth", &points_at("other"));
    cluster.make_service("auth", "other");
    cluster.settle();
    assert_eq!(cluster.stand_in().at("/spec"), Some(&points_at("other")));
}

#[test]
fn new_facts_change_the_old_stand_in_at_once_and_roll_to_a_successor_of_another_name() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let (old, configuration) = (cluster.stand_in().key(), cluster.configuration().name().to_owned());
    let spec = points_at_with_timeout("auth", "900ms");
    cluster.edit_auth(spec.clone());
    cluster.contour_says(&auth(), Ok(()));
    let writes = cluster.writes();
    let repairs = writes
        .iter()
        .filter(|write| **write == format!("Replace {old}"))
        .count();
    assert_eq!(repairs, 1, "the copy and the retire come together: {writes:?}");
    let retired = &cluster.api.objects[&old];
    assert_eq!(retired.at("/spec"), Some(&spec));
    assert_eq!(remembered(retired)["retired"], true);
    assert_ne!(cluster.stand_in().key(), old);
    assert_eq!(cluster.stand_in().at("/spec"), Some(&spec));
    assert_ne!(cluster.configuration().name(), configuration);
    assert_eq!(remembered(cluster.stand_in()).get("retired"), None);
}

#[test]
fn a_retired_name_is_never_planned_again_even_after_a_revert() {
    let mut cluster = Cluster::enforcing(&points_at_with_timeout("auth", "500ms"));
    let mut names = vec![id(cluster.stand_in())];
    for timeout in ["900ms", "500ms", "900ms", "500ms"] {
        cluster.edit_auth(points_at_with_timeout("auth", timeout));
        cluster.contour_says(&auth(), Ok(()));
        cluster.reconcile();
        // Pods of every template stay, so that every stand-in is in use.
        cluster.pods_come();
        let name = id(cluster.stand_in());
        assert!(!names.contains(&name), "{name} was planned before: {names:?}");
        names.push(name);
    }
}

#[test]
fn a_stand_in_that_is_on_its_way_out_gets_a_successor() {
    let mut cluster = Cluster::enforcing(&points_at("auth"));
    let old = cluster.stand_in().key();
    cluster.delete(Kind::ExtensionService, &old.namespace, &old.name);
    cluster.reconcile();
    assert_ne!(cluster.stand_in().key(), old);
    assert_eq!(
        cluster.stand_in().at("/spec"),
        Some(&points_at("auth")),
        "the copy goes along"
    );
    assert!(cluster.api.objects.contains_key(&old), "it stays until nobody uses it");
    cluster.settle();
    assert!(!cluster.api.objects.contains_key(&old));
}

#[test]
fn a_stand_in_whose_blackhole_is_on_its_way_out_gets_a_successor() {
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

/// Somebody alters the planned stand-in. Returns its key.
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
fn a_subject_name_that_comes_back_is_enforced_at_once_and_retires_if_a_container_may_have_read_none() {
    let spec = points_at_with_subject_name();
    let mut cluster = Cluster::enforcing(&spec);
    let old = cluster.stand_in().key();
    cluster.delete(Kind::ExtensionService, "auth", "auth");
    cluster.settle();
    assert_eq!(cluster.stand_in().key(), old, "a flap alone rolls nothing");
    cluster.make_extension_service("auth", "auth", &spec);
    cluster.contour_says(&auth(), Ok(()));
    cluster.reconcile();
    assert_eq!(cluster.api.objects[&old].at("/spec"), Some(&spec));
    assert_eq!(remembered(&cluster.api.objects[&old])["retired"], true);
    assert_ne!(cluster.stand_in().key(), old);
}

#[test]
fn a_subject_name_that_somebody_removes_retires_also_if_the_service_is_deleted_meanwhile() {
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
            "a container that started meanwhile takes any certificate; deleted: {is_deleted}"
        );
    }
}

#[test]
fn a_subject_name_that_somebody_puts_on_a_blackhole_retires() {
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
fn facts_are_pinned_before_a_verdict_only_while_no_envoy_exists() {
    let spec = points_at_with_timeout("auth", "500ms");
    let mut cluster = Cluster::new();
    cluster.make_service("auth", "auth");
    cluster.make_extension_service("auth", "auth", &spec);
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
    without_envoy.make_service("auth", "auth");
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
    without_envoy.make_extension_service("auth", "auth", &spec);
    without_envoy.reconcile();
    assert_eq!(
        without_envoy.stand_in().at("/spec/timeoutPolicy/response"),
        Some(&"500ms".into()),
        "there is Contour, but no Envoy yet"
    );

    let mut late = Cluster::waiting_for_auth();
    let template = late.template();
    late.make_extension_service("auth", "auth", &spec);
    late.reconcile();
    assert_eq!(late.template(), template, "an unjudged object rolls nothing out");
}

#[test]
fn facts_that_would_stop_contour_are_not_pinned_unjudged() {
    let mut cluster = Cluster::new();
    cluster.make_service("auth", "auth");
    cluster.make_extension_service("auth", "auth", &points_at_with_timeout("auth", "s"));
    cluster.specify(asks_auth());
    cluster.reconcile();
    assert_eq!(cluster.stand_in().at("/spec/timeoutPolicy"), None);
}

#[test]
fn a_repair_of_pinned_facts_retires_the_stand_in_and_one_of_anything_else_does_not() {
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
        remembered(repaired)["retired"],
        true,
        "a container may have captured 1ms"
    );
    assert_ne!(cluster.stand_in().key(), old);
}
