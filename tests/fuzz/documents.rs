//! Converts bytes to a ContourDeployment and the objects around the ContourDeployment, some of them damaged, and follows the path
//! of `slipway render`.
//!
//! Properties: nothing panics. The same documents give the same plan. A plan writes an object only once, and writes only
//! Slipway's objects. Objects of other users in an unreferenced namespace do not influence the plan, except that the plan deletes
//! or releases objects that look like leftovers of an earlier plan. The configuration that Contour reads has the blocks of the
//! spec with the same `failOpen`, and references only stand-ins.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Value, json};
use slipway::api::Role;
use slipway::plan::{Key, Kind, Object, Observed, Plan, Write};
use slipway::render::{answered, observe, render};

use crate::cluster::{describe, key_of, startup_inputs};
use crate::imitations;

/// Checks the documents that the bytes describe. Returns the number of writes, or None if the bytes contain no readable
/// ContourDeployment.
pub fn check(bytes: &[u8]) -> Option<usize> {
    // With a leading zero, the remaining bytes are the text itself.
    let text = match bytes.split_first() {
        Some((0, text)) => String::from_utf8_lossy(text).into_owned(),
        _ => documents(&mut Unstructured::new(bytes)).ok()?,
    };
    check_text(&text)
}

fn check_text(text: &str) -> Option<usize> {
    let observed = observe(text).ok()?;
    let (plan, _) = answered(&observed);
    let (again, _) = answered(&observed);
    assert_eq!(
        serde_json::to_value(&plan).expect("a plan is JSON"),
        serde_json::to_value(&again).expect("a plan is JSON"),
        "the same documents give the same plan"
    );
    assert_eq!(plan.requeue_after, again.requeue_after);
    render(text).expect("`render` prints every readable input");
    let writes: Vec<&Write> = plan.waves.iter().flat_map(|wave| &wave.writes).collect();
    let mut written = BTreeSet::new();
    for write in &writes {
        let key = key_of(write);
        imitations::check_place(write, &observed);
        assert!(written.insert(key.clone()), "{key} is written twice");
        let is_ours = |object: &Object| observed.owner().owns(object);
        let exists = observed.objects.get(&key).map(AsRef::as_ref);
        match write {
            Write::Create(_) => assert!(!exists.is_some_and(is_ours), "{} exists", describe(write)),
            _ => assert!(
                key.kind == Kind::ContourDeployment || exists.is_some_and(is_ours),
                "{} is not Slipway's object",
                describe(write)
            ),
        }
    }
    check_contour(&observed, &plan, &writes);
    check_pods(&observed, &writes);
    imitations::check_influence(&observed);
    Some(writes.len())
}

/// Checks the configuration that the written Deployment of Contour names.
fn check_contour(observed: &Observed, plan: &Plan, writes: &[&Write]) {
    let owner = observed.owner();
    let made = |key: &Key| {
        let written = writes.iter().find_map(|write| match write {
            Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) if object.key() == *key => {
                Some(object)
            }
            _ => None,
        });
        written.or_else(|| {
            observed
                .objects
                .get(key)
                .map(AsRef::as_ref)
                .filter(|live| owner.owns(live))
        })
    };
    let contour = Key::new(Kind::Deployment, &owner.namespace, &owner.contour());
    let is_written = writes
        .iter()
        .any(|write| key_of(write) == contour && !matches!(write, Write::Delete(_)));
    if !is_written {
        return;
    }
    let captured = startup_inputs(made(&contour).expect("the Deployment is written"));
    let name = captured["configuration"].as_str().expect("a name");
    let key = Key::new(Kind::ContourConfiguration, &owner.namespace, name);
    let configuration = made(&key).unwrap_or_else(|| panic!("{key} is not created: {plan:?}"));
    let asked = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("settings are JSON");
    // A user who can write in the ContourDeployment's namespace can forge the last good configuration, which stays in use while
    // settings are refused.
    let conditions = &plan.status.conditions;
    let is_refused = conditions
        .iter()
        .any(|it| it.type_ == "ConfigurationValid" && it.status != "True");
    if is_refused && imitations::is_of_home(configuration, observed) {
        return;
    }
    for role in Role::ALL {
        let (asked, block) = (
            &asked[role.field()],
            configuration.at("/spec").map(|spec| &spec[role.field()]),
        );
        let block = block.unwrap_or(&Value::Null);
        assert_eq!(asked.is_null(), block.is_null(), "{role}: {block}");
        if asked.is_null() {
            continue;
        }
        assert_eq!(asked["failOpen"], block["failOpen"], "{role}");
        let reference = block.get("extensionRef").or_else(|| block.get("extensionService"));
        let [namespace, name] = ["namespace", "name"].map(|key| {
            reference.expect("a reference")[key]
                .as_str()
                .expect("a text")
                .to_owned()
        });
        let stand_in = Key::new(Kind::ExtensionService, &namespace, &name);
        let made = made(&stand_in).unwrap_or_else(|| panic!("{stand_in} is not created"));
        assert!(owner.owns(made), "{stand_in} is not a stand-in");
    }
}

/// Generates a ContourDeployment, the objects that Slipway would create for the ContourDeployment, and the user's objects.
/// Damages some of the objects and adds imitations.
fn documents(input: &mut Unstructured<'_>) -> Result<String> {
    let deployment = json!({
        "apiVersion": "contour.slipway.dev/v1alpha1",
        "kind": "ContourDeployment",
        "metadata": {"name": "edge", "namespace": "projectcontour", "uid": "u-edge", "generation": 1},
        "spec": spec(input)?,
    });
    let mut documents = vec![deployment];
    for namespace in ["auth", "limits"] {
        if input.arbitrary()? {
            documents.extend(surroundings(input, namespace)?);
        }
    }
    if input.arbitrary()? {
        documents.extend(objects_created_for(&documents));
    }
    for _ in 0..input.int_in_range(0..=6)? {
        // The API server accepts only a readable ContourDeployment. Most inputs therefore damage only the other objects.
        let first = usize::from(documents.len() > 1 && input.ratio(15_u8, 16_u8)?);
        let index = input.int_in_range(first..=documents.len() - 1)?;
        damage(input, &mut documents[index])?;
    }
    if input.ratio(1_u8, 4_u8)? {
        documents.push(json!({
            "kind": "Observation",
            "now": "2026-11-23T01:20:00Z",
            "refused": if input.arbitrary()? { json!("no") } else { Value::Null },
            "missingCRDs": if input.arbitrary()? { json!(["contourconfigurations.projectcontour.io"]) } else { json!([]) },
            "failures": if input.arbitrary()? {
                json!([{"kind": "Service", "namespace": "auth", "name": "x", "cause": "Transient", "message": "no"}])
            } else {
                json!([])
            },
        }));
    }
    documents.extend(imitations::documents(input)?);
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    Ok(texts.join("\n---\n"))
}

/// Returns the objects of Slipway in a converged cluster.
fn objects_created_for(documents: &[Value]) -> Vec<Value> {
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    let Ok(observed) = observe(&texts.join("\n---\n")) else {
        return Vec::new();
    };
    let (plan, _) = answered(&observed);
    let writes = plan.waves.into_iter().flat_map(|wave| wave.writes);
    let created = writes.filter_map(|write| match write {
        Write::Create(mut object) => {
            object.metadata.uid = Some(format!("u-{}", object.name()));
            object.metadata.generation = Some(1);
            Some(object.to_json())
        }
        _ => None,
    });
    created.collect()
}

/// Generates the user's ExtensionService, the Service of the ExtensionService, and an endpoint.
fn surroundings(input: &mut Unstructured<'_>, namespace: &str) -> Result<Vec<Value>> {
    let metadata = json!({"name": "one", "namespace": namespace, "uid": format!("u-{namespace}"), "generation": 1});
    let mut spec = json!({"protocol": "h2c", "services": [{"name": "one", "port": 9001}]});
    if input.arbitrary()? {
        spec["timeoutPolicy"] = json!({"response": text(input)?});
    }
    let valid = if input.arbitrary()? { "True" } else { "False" };
    let condition = json!({"type": "Valid", "status": valid, "observedGeneration": 1, "errors": [
        {"type": "ServiceError", "status": "True", "reason": "ServiceUnresolvedReference", "message": "no"},
    ]});
    Ok(vec![
        json!({"apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService", "metadata": metadata, "spec": spec,
            "status": {"conditions": [condition]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one", "namespace": namespace},
            "spec": {"ports": [{"port": 9001}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "one-x", "namespace": namespace, "labels": {"kubernetes.io/service-name": "one"}},
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": input.arbitrary::<bool>()?}}]}),
    ])
}

/// Settings that preflight checks.
const SETTINGS: [&str; 21] = [
    "envoy",
    "envoy.timeouts.requestTimeout",
    "envoy.timeouts.connectTimeout",
    "envoy.cluster.circuitBreakers.maxRetries",
    "envoy.cluster.upstreamTLS.minimumProtocolVersion",
    "envoy.cluster.dnsLookupFamily",
    "envoy.listener.tls.cipherSuites",
    "envoy.network.numTrustedHops",
    "envoy.network.adminPort",
    "envoy.defaultHTTPVersions",
    "envoy.logging.accessLogFormatString",
    "envoy.logging.accessLogJSONFields",
    "envoy.http.port",
    "envoy.https.address",
    "envoy.health.port",
    "envoy.metrics.tls",
    "health.port",
    "metrics.port",
    "debug.address",
    "policy.requestHeaders.set",
    "policy.responseHeaders.remove",
];

fn spec(input: &mut Unstructured<'_>) -> Result<Value> {
    let mut settings = json!({});
    if input.arbitrary()? {
        settings["globalExtAuth"] = json!({"extensionRef": reference(input)?, "failOpen": input.arbitrary::<bool>()?});
        if input.arbitrary()? {
            settings["globalExtAuth"]["responseTimeout"] = text(input)?.into();
        }
    }
    if input.arbitrary()? {
        settings["rateLimitService"] =
            json!({"extensionService": reference(input)?, "domain": "edge", "failOpen": input.arbitrary::<bool>()?});
        if input.ratio(1_u8, 4_u8)? {
            let entry = json!({text(input)?: value(input, 1)?});
            settings["rateLimitService"]["defaultGlobalRateLimitPolicy"] =
                json!({"descriptors": [{"entries": [entry]}]});
        }
    }
    if input.arbitrary()? {
        settings["tracing"] = json!({"extensionService": reference(input)?});
        if input.ratio(1_u8, 4_u8)? {
            settings["tracing"]["overallSampling"] = text(input)?.into();
            settings["tracing"]["customTags"] = json!([{"tagName": text(input)?, "literal": text(input)?}]);
        }
    }
    for _ in 0..input.int_in_range(0..=2)? {
        let path = *input.choose(&SETTINGS)?;
        put(&mut settings, path, value(input, 2)?);
    }
    let mut spec = json!({"runtimeSettings": settings});
    if input.arbitrary()? {
        spec["envoy"] = json!({"workloadType": "Deployment", "deployment": {"replicas": input.arbitrary::<i32>()?}});
    }
    if input.arbitrary()? {
        spec["contour"] = json!({"image": text(input)?, "kubernetesLogLevel": input.arbitrary::<i32>()?});
    }
    let arguments = [
        ("contour.leaderElection.leaseDuration", false),
        ("contour.leaderElection.retryPeriod", false),
        ("envoy.shutdown.drainDelay", false),
        ("envoy.shutdown.checkInterval", false),
        ("envoy.extraArgs", true),
    ];
    for (path, is_list) in arguments {
        if input.ratio(1_u8, 8_u8)? {
            let argument = Value::from(text(input)?);
            put(&mut spec, path, if is_list { json!([argument]) } else { argument });
        }
    }
    for (field, path) in [
        ("contour", "podTemplate"),
        ("envoy", "podTemplate"),
        ("envoy", "networkPublishing.service"),
    ] {
        if input.ratio(1_u8, 4_u8)? {
            put(&mut spec, &format!("{field}.{path}"), overlay(input)?);
        }
    }
    Ok(spec)
}

/// Paths in overlays, allowed and forbidden ones.
const OVERLAID: [&str; 12] = [
    "metadata.labels",
    "metadata.annotations",
    "spec.priorityClassName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "spec.securityContext.runAsUser",
    "spec.securityContext.fsGroup",
    "spec.affinity",
    "spec.selector",
    "spec.ports",
    "spec.type",
    "spec.loadBalancerClass",
];

/// Generates a partial pod template or Service.
fn overlay(input: &mut Unstructured<'_>) -> Result<Value> {
    let mut overlay = json!({});
    for _ in 0..input.int_in_range(0..=2)? {
        let path = *input.choose(&OVERLAID)?;
        put(&mut overlay, path, value(input, 2)?);
    }
    if input.arbitrary()? {
        let names = ["contour", "envoy", "shutdown-manager", "bootstrap", "mine"];
        let fields = [
            "image",
            "args",
            "command",
            "env",
            "resources",
            "volumeMounts",
            "ports",
            "securityContext",
        ];
        let list = *input.choose(&["spec.containers", "spec.initContainers"])?;
        let container = json!({"name": input.choose(&names)?, *input.choose(&fields)?: value(input, 3)?});
        put(&mut overlay, list, json!([container]));
    }
    if input.arbitrary()? {
        let volume = json!({"name": input.choose(&["certificates", "mine"])?, "secret": {"secretName": text(input)?}});
        put(&mut overlay, "spec.volumes", json!([volume]));
    }
    Ok(overlay)
}

/// Checks that no overlay changes what the pods need.
fn check_pods(observed: &Observed, writes: &[&Write]) {
    let owner = observed.owner();
    for write in writes {
        let (Write::Create(object) | Write::Apply { object, .. }) = write else {
            continue;
        };
        let at = |pointer: &str| object.at(pointer).cloned().unwrap_or_default();
        let (account, secret) = match (object.kind, object.name()) {
            (Kind::Deployment, name) if name == owner.contour() => (owner.contour(), owner.contour_secret()),
            (Kind::Deployment | Kind::DaemonSet, _) => (owner.envoy(), owner.envoy_secret()),
            (Kind::Service, name) if name == owner.envoy() => {
                assert_eq!(at("/spec/ports/0/port"), 80, "{object:?}");
                assert_eq!(at("/spec/ports/1/port"), 443, "{object:?}");
                assert_eq!(at("/spec/externalIPs"), Value::Null, "{object:?}");
                continue;
            }
            _ => continue,
        };
        let spec = at("/spec/template/spec");
        assert_eq!(spec["serviceAccountName"], account, "{object:?}");
        assert_eq!(spec["volumes"][0]["secret"]["secretName"], secret, "{object:?}");
        assert_eq!(spec["securityContext"]["runAsUser"], 65534, "{object:?}");
        assert_eq!(spec["hostNetwork"], Value::Null, "{object:?}");
        let containers = spec["containers"].as_array().expect("containers").iter();
        let arguments = containers.clone().map(|container| &container["args"][0]);
        let first = if account == owner.contour() { "serve" } else { "envoy" };
        assert_eq!(arguments.clone().next(), Some(&json!(first)), "{object:?}");
        for container in containers.filter(|container| container["name"] != "mine") {
            assert_eq!(
                container["securityContext"]["readOnlyRootFilesystem"], true,
                "{object:?}"
            );
        }
    }
}

fn reference(input: &mut Unstructured<'_>) -> Result<Value> {
    let namespace = input.choose(&["auth", "limits", "projectcontour", "absent", ""])?;
    Ok(json!({"namespace": namespace, "name": "one"}))
}

fn put(target: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        None if target.is_object() => target[path] = value,
        Some((first, rest)) if target.is_object() => {
            if !target[first].is_object() {
                target[first] = json!({});
            }
            put(&mut target[first], rest, value);
        }
        _ => {}
    }
}

/// Changes an object, but neither the kind nor the name of the object.
fn damage(input: &mut Unstructured<'_>, document: &mut Value) -> Result<()> {
    let fields = document.as_object_mut().expect("an object");
    if input.ratio(1_u8, 3_u8)? {
        return damage_metadata(input, &mut fields["metadata"]);
    }
    let parts = fields
        .iter_mut()
        .filter(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str()));
    let mut parts: Vec<&mut Value> = parts.map(|(_, part)| part).collect();
    if parts.is_empty() {
        return Ok(());
    }
    let index = input.choose_index(parts.len())?;
    damage_part(input, parts[index])
}

fn damage_metadata(input: &mut Unstructured<'_>, metadata: &mut Value) -> Result<()> {
    match input.int_in_range(0..=3)? {
        0 => {
            let field = *input.choose(&[
                "labels",
                "annotations",
                "finalizers",
                "ownerReferences",
                "uid",
                "generation",
            ])?;
            metadata.as_object_mut().expect("an object").remove(field);
        }
        1 => metadata["deletionTimestamp"] = "2026-11-23T01:19:00Z".into(),
        2 => metadata["generation"] = i64::arbitrary(input)?.into(),
        _ => {
            let field = *input.choose(&["labels", "annotations"])?;
            if let Some(Value::Object(texts)) = metadata.get_mut(field)
                && !texts.is_empty()
            {
                let index = input.choose_index(texts.len())?;
                let changed = texts.values_mut().nth(index).expect("one of them");
                *changed = text(input)?.into();
            }
        }
    }
    Ok(())
}

/// Descends at random, and changes or removes the value that the descent reaches.
fn damage_part(input: &mut Unstructured<'_>, place: &mut Value) -> Result<()> {
    let ends = input.ratio(1_u8, 4_u8)?;
    match place {
        Value::Object(fields) if !fields.is_empty() && !ends => {
            let index = input.choose_index(fields.len())?;
            let key = fields.keys().nth(index).expect("one of them").clone();
            if input.ratio(1_u8, 8_u8)? {
                fields.remove(&key);
                return Ok(());
            }
            damage_part(input, &mut fields[&key])
        }
        Value::Array(items) if !items.is_empty() && !ends => {
            let index = input.choose_index(items.len())?;
            damage_part(input, &mut items[index])
        }
        _ => {
            *place = value(input, 1)?;
            Ok(())
        }
    }
}

fn value(input: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match input.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => bool::arbitrary(input)?.into(),
        2 => i64::arbitrary(input)?.into(),
        3 => (*input.choose(&[0_i64, 1, -1, 80, 8000, 8001, 8443, 9001, 65_535, 65_536])?).into(),
        4 => text(input)?.into(),
        5 => {
            let count = input.int_in_range(0..=3)?;
            (0..count)
                .map(|_| value(input, depth - 1))
                .collect::<Result<Vec<_>>>()?
                .into()
        }
        _ => {
            let count = input.int_in_range(0..=3)?;
            let fields = (0..count).map(|_| Ok((text(input)?, value(input, depth - 1)?)));
            Value::Object(fields.collect::<Result<_>>()?)
        }
    })
}

fn text(input: &mut Unstructured<'_>) -> Result<String> {
    const WORDS: [&str; 20] = [
        "",
        "1s",
        "500ms",
        "infinity",
        "s",
        "-1s",
        "1.5h",
        "99999999999999999999s",
        "0.0.0.0",
        "::1",
        "/dev/stdout",
        "%REQ(X)%\n",
        "%START_TIME%",
        "1.3",
        "[A|B]",
        "auth",
        "edge",
        "null",
        "{\"salt\":1}",
        "µ",
    ];
    Ok(match input.int_in_range(0..=3)? {
        0 => String::arbitrary(input)?,
        _ => (*input.choose(&WORDS)?).to_owned(),
    })
}
