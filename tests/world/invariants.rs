//! What must hold after every single write of Slipway's, whatever the test is about.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use slipway::api::Role;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Kind, Object, Observed, Wave, Write};

use crate::api_server::ApiServer;
use crate::cluster::{Cluster, NAMESPACE, captured, describe, key_of};

/// No configuration is made that lacks a block that the spec asks for, has another `failOpen`, or references anything but a
/// stand-in that exists, and Contour's Deployment names no other. A configuration that was made before is only ever written
/// as it was: a container may have read it.
pub fn check_configuration(write: &Write, observed: &Observed, cluster: &mut Cluster) {
    let (Write::Create(object) | Write::Replace(object) | Write::Apply { object, .. }) = write else {
        return;
    };
    if object.kind == Kind::Deployment && object.name() == "edge-contour" {
        let name = captured(object)["configuration"].as_str().expect("a name").to_owned();
        let configuration = &cluster.configurations[&name];
        // While a specification is refused, what ran is made again on the configuration that it had.
        if cluster.refuses_settings.is_none() {
            check_blocks(configuration, observed, &cluster.api);
        }
    }
    if object.kind == Kind::ContourConfiguration {
        let spec = object.at("/spec").cloned().unwrap_or_default();
        if let Some(known) = cluster.configurations.get(object.name()) {
            assert_eq!(*known, spec, "{} is written with another spec", object.name());
        } else {
            check_blocks(&spec, observed, &cluster.api);
            cluster.configurations.insert(object.name().to_owned(), spec);
        }
    }
}

/// In another namespace than the ContourDeployment's only stand-ins and blackholes are written, by their names; and where nothing has
/// ever been referenced, what bears both labels is taken away, and nothing else is done.
pub fn check_place(write: &Write, observed: &Observed, cluster: &Cluster) {
    let (key, owner) = (key_of(write), observed.owner());
    if !owner.is_elsewhere(&key) {
        return;
    }
    let may_be_there = matches!(key.kind, Kind::ExtensionService | Kind::Service);
    assert!(
        may_be_there && owner.is_stand_in(&key.name),
        "{} is not written there",
        describe(write)
    );
    let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("JSON");
    let mut specs = cluster.configurations.values().chain([&settings]);
    let is_referenced = specs.any(|spec| spec.to_string().contains(&format!("\"{}\"", key.namespace)));
    let takes_away = matches!(write, Write::Delete(_) | Write::Release(_));
    let bears_labels = || {
        observed
            .objects
            .get(&key)
            .is_some_and(|object| owner.is_named_by(object))
    };
    assert!(
        is_referenced || (takes_away && bears_labels()),
        "{} is somebody else's",
        describe(write)
    );
}

/// What a container may have captured goes only after a live look. Without Contour's CRDs there is nothing left to capture.
pub fn check_look(wave: &Wave, observed: &Observed) {
    let goes = |write: &Write| match write {
        Write::Delete(target) | Write::Release(target) => {
            observed.object(target.key.kind, &target.key.namespace, &target.key.name)
        }
        _ => None,
    };
    let is_startup_input = |object: &Object| match object.kind {
        Kind::ContourConfiguration | Kind::ExtensionService => true,
        Kind::Service => object.has_our_finalizer(),
        _ => false,
    };
    let captured = wave
        .writes
        .iter()
        .filter_map(goes)
        .find(|object| is_startup_input(object));
    if let Some(object) = captured.filter(|_| observed.missing_crds.is_empty()) {
        assert!(wave.needs_live_read, "{} goes without a look", object.key());
    }
}

fn check_blocks(spec: &Value, observed: &Observed, api: &ApiServer) {
    let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("JSON");
    for role in Role::ALL {
        let (wanted, block) = (&settings[role.field()], &spec[role.field()]);
        assert_eq!(wanted.is_null(), block.is_null(), "{role}: {block}");
        if wanted.is_null() {
            continue;
        }
        assert_eq!(wanted["failOpen"], block["failOpen"], "{role}");
        let reference = block.get("extensionRef").or_else(|| block.get("extensionService"));
        let [namespace, name] =
            ["namespace", "name"].map(|key| reference.expect("one")[key].as_str().unwrap_or_default());
        let stand_in = api.get(Kind::ExtensionService, namespace, name);
        let stand_in = stand_in.unwrap_or_else(|| panic!("{role}: {namespace}/{name} does not exist"));
        assert!(
            observed.owner().owns(stand_in),
            "{role}: {namespace}/{name} is not a stand-in"
        );
    }
}

/// The configurations and stand-ins that a container may read, now or when it starts again, and that are absent or that
/// Contour would judge invalid.
pub fn captured_and_unusable(cluster: &Cluster) -> BTreeSet<String> {
    let mut problems = BTreeSet::new();
    for annotation in captured_annotations(&cluster.api) {
        let captured: Value = serde_json::from_str(&annotation).unwrap_or_default();
        let configuration = captured["configuration"].as_str().unwrap_or_default();
        if cluster
            .api
            .get(Kind::ContourConfiguration, NAMESPACE, configuration)
            .is_none()
        {
            problems.insert(format!("ContourConfiguration {configuration} is absent"));
        }
        for stand_in in captured["standIns"].as_array().into_iter().flatten() {
            let Some((namespace, name)) = stand_in.as_str().and_then(|id| id.split_once('/')) else {
                continue;
            };
            match cluster.api.get(Kind::ExtensionService, namespace, name) {
                None => problems.extend([format!("stand-in {stand_in} is absent")]),
                Some(object) => problems.extend(cluster.unresolved(object)),
            }
        }
    }
    problems
}

/// A pod that hangs in Terminating for longer is not waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// From the template, from ReplicaSets with replicas, and from pods, all in the ContourDeployment's namespace.
fn captured_annotations(api: &ApiServer) -> BTreeSet<String> {
    let text = |value: Option<&Value>| value?.get(annotations::STARTUP_INPUTS)?.as_str().map(str::to_owned);
    let template = |object: &Object| text(object.at("/spec/template/metadata/annotations"));
    let at_home = |object: &&Object| object.namespace() == NAMESPACE;
    let active = |set: &&Object| set.at("/spec/replicas").and_then(Value::as_i64) != Some(0);
    let sets = api.of_kind(Kind::ReplicaSet).filter(at_home).filter(active);
    let sets = sets.filter_map(template);
    let ended = |pod: &&Object| {
        let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0 + PATIENCE);
        let phase = pod.at("/status/phase").and_then(Value::as_str);
        matches!(phase, Some("Succeeded" | "Failed")) || deleted.is_some_and(|time| time <= api.now)
    };
    let pods = api
        .of_kind(Kind::Pod)
        .filter(at_home)
        .filter(|pod| !ended(pod))
        .filter_map(|pod| pod.annotation(annotations::STARTUP_INPUTS).map(str::to_owned));
    api.of_kind(Kind::Deployment)
        .filter(at_home)
        .filter_map(template)
        .chain(sets)
        .chain(pods)
        .collect()
}
