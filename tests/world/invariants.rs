//! The invariants that must hold after every single write of Slipway, in every test.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use slipway::api::Role;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Kind, Object, Observed, Wave, Write};

use super::api_server::ApiServer;
use super::cluster::{Cluster, NAMESPACE, describe, key_of, startup_inputs};

/// Checks that a configuration is valid when Slipway creates the configuration: the configuration has every block of the spec
/// with the same `failOpen`, and references only stand-ins that exist. Contour's Deployment must name such a configuration.
/// Slipway may write a configuration again only with the same spec, because a container may have read the configuration.
pub fn check_configuration(write: &Write, observed: &Observed, cluster: &mut Cluster) {
    let (Write::Create(object) | Write::Replace(object) | Write::Apply { object, .. }) = write else {
        return;
    };
    if object.kind == Kind::Deployment && object.name() == "edge-contour" {
        let name = startup_inputs(object)["configuration"]
            .as_str()
            .expect("a name")
            .to_owned();
        let configuration = &cluster.configurations[&name];
        // While the API server refuses a spec, Slipway recreates the former workload with its former configuration.
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

/// Checks the namespace of a write. Outside the namespace of the ContourDeployment, Slipway writes only stand-ins and blackholes,
/// by their names. In a namespace that was never referenced, Slipway only deletes or releases objects with both labels.
pub fn check_place(write: &Write, observed: &Observed, cluster: &Cluster) {
    let (key, owner) = (key_of(write), observed.owner());
    if !owner.is_elsewhere(&key) {
        return;
    }
    let may_be_there = matches!(key.kind, Kind::ExtensionService | Kind::Service);
    assert!(
        may_be_there && owner.is_stand_in(&key.name),
        "Slipway must not write {} in that namespace",
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
        "{} is an object of another user",
        describe(write)
    );
}

/// Checks that Slipway deletes or releases startup inputs only after a live read. Without Contour's CRDs there are no startup
/// inputs.
pub fn check_live_read(wave: &Wave, observed: &Observed) {
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
        assert!(
            wave.needs_live_read,
            "{} is deleted or released without a live read",
            object.key()
        );
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

/// Returns problems with what a container may read, now or at a restart: configurations that are absent, and stand-ins that are
/// absent or that Contour would judge invalid.
pub fn unusable_startup_inputs(cluster: &Cluster) -> BTreeSet<String> {
    let mut problems = BTreeSet::new();
    for annotation in startup_input_annotations(&cluster.api) {
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

/// Slipway does not wait for a pod that has been Terminating for longer than this duration.
const PATIENCE: Duration = Duration::from_mins(1);

/// Returns the startup inputs of the Deployment's template, of ReplicaSets with replicas, and of pods, all in the
/// ContourDeployment's namespace.
fn startup_input_annotations(api: &ApiServer) -> BTreeSet<String> {
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
