//! The settings that Slipway passes to Contour. If the CRD or Contour rejects a value, Slipway refuses all settings and reports the
//! path. Running workloads stay unchanged.

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Returns settings that the schema of ContourDeployment accepts but Slipway refuses: a name, the settings, and the path that the
/// message must contain.
fn bad_settings() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("unknown", json!({"enableExternalNames": true}), "enableExternalNames"),
        (
            "unknown-below",
            json!({"ingress": {"clasNames": ["a"]}}),
            "ingress.clasNames",
        ),
        ("type", json!({"ingress": {"classNames": "a"}}), "ingress.classNames"),
        (
            "boolean",
            json!({"enableExternalNameService": "yes"}),
            "enableExternalNameService",
        ),
        (
            "exits",
            json!({"envoy": {"timeouts": {"requestTimeout": "soon"}}}),
            "envoy.timeouts.requestTimeout",
        ),
        (
            "cipher",
            json!({"envoy": {"listener": {"tls": {"cipherSuites": ["ROT13"]}}}}),
            "envoy.listener.tls.cipherSuites",
        ),
        ("size", of_size(LARGEST + 1), "spec.runtimeSettings: as JSON it has"),
    ]
}

/// The largest size of settings that Slipway accepts, in bytes of JSON. With Slipway's additions, the settings still fit into the
/// 256 KiB that Kubernetes allows for annotations.
const LARGEST: usize = 240 * 1024;

/// Returns settings that have this many bytes as JSON, together with the settings of [`with`].
fn of_size(bytes: usize) -> Value {
    let header = |length: usize| json!({"policy": {"requestHeaders": {"set": {"X-Large": "x".repeat(length)}}}});
    let rest = with(&header(0))["runtimeSettings"].to_string().len();
    header(bytes - rest)
}

/// Returns the usual spec with additional settings.
fn with(settings: &Value) -> Value {
    let mut spec = specification("nowhere");
    for (key, value) in settings.as_object().into_iter().flatten() {
        spec["runtimeSettings"][key] = value.clone();
    }
    spec
}

/// Waits until the status refuses the settings. Returns an error if the message does not contain the path.
async fn is_refused(lab: &Lab, edge: &Edge, path: &str) -> anyhow::Result<()> {
    let refused = |status: &slipway_e2e::edge::Status| {
        status.is("ConfigurationValid", "False") && status.is("Stalled", "True") && status.is("Ready", "False")
    };
    let status = lab.status(edge, "the settings are refused", PROMPT, refused).await?;
    let message = &status
        .condition("ConfigurationValid")
        .expect("the status has the condition")
        .message;
    ensure!(message.contains(path), "the message does not contain {path}: {message}");
    ensure!(!status.is("Reconciling", "True"), "{status}");
    Ok(())
}

#[tokio::test]
async fn invalid_settings_are_reported_and_block_all_objects() {
    beside_others("settings", async |lab: &Lab| {
        let cases = bad_settings().into_iter().map(async |(name, settings, path)| {
            let namespace = lab.name(name);
            lab.create_namespace(&namespace).await?;
            let edge = lab.edge_in(&namespace, &with(&settings)).await?;
            is_refused(lab, &edge, path).await?;
            for kind in [
                "Deployment",
                "DaemonSet",
                "Service",
                "ServiceAccount",
                "ContourConfiguration",
                "ExtensionService",
            ] {
                let found = lab.all(kind, &namespace, &edge).await?;
                ensure!(found.is_empty(), "{name}: a {kind} was created");
            }
            lab.edge_in(&namespace, &with(&json!({}))).await?;
            let deployment = Thing::new("Deployment", &namespace, "edge-contour");
            lab.wait_until_exists(&deployment, PROMPT).await?;
            lab.status(&edge, "the settings are accepted", PROMPT, |status| {
                status.is("ConfigurationValid", "True") && !status.is("Stalled", "True")
            })
            .await?;
            Ok(())
        });
        futures::future::try_join_all(cases).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn the_largest_accepted_settings_fit_into_pod_annotations() {
    beside_others("large", async |lab: &Lab| {
        let edge = lab.edge(&with(&of_size(LARGEST))).await?;
        wait("a pod of Contour has the settings in its annotation", PATIENT)
            .until(async || {
                let pods = lab.all("Pod", &lab.namespace, &edge).await?;
                let annotation = "/metadata/annotations/contour.slipway.dev~1startup-inputs";
                let captured = pods.iter().find_map(|pod| pod.pointer(annotation)?.as_str());
                let is_whole = captured.is_some_and(|captured| captured.len() > LARGEST);
                Ok(Look::when(is_whole, edge.status().await?.to_string()))
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn refused_settings_do_not_change_running_workloads() {
    beside_others("last-good", async |lab: &Lab| {
        let edge = lab.edge(&with(&json!({}))).await?;
        lab.status(&edge, "the settings are accepted", PROMPT, |status| {
            status.is("ConfigurationValid", "True")
        })
        .await?;
        let workloads = ["edge-contour", "edge-envoy"].map(|name| Thing::new("Deployment", &lab.namespace, name));
        let generations = async || {
            let [contour, envoy] = &workloads;
            anyhow::Ok([contour, envoy].map(async |thing| {
                lab.read(thing)
                    .await
                    .map(|object| object["metadata"]["generation"].clone())
            }))
        };
        let read = async || {
            let [contour, envoy] = generations().await?;
            anyhow::Ok((contour.await?, envoy.await?))
        };
        lab.wait_until_exists(&workloads[1], PROMPT).await?;
        let before = read().await?;
        let configuration = lab.only("ContourConfiguration", &lab.namespace, &edge).await?;
        for (_, settings, path) in bad_settings() {
            // A change that would roll out Contour and Envoy, together with settings that are refused.
            let mut spec = with(&settings);
            spec["contour"] = json!({"logLevel": "debug"});
            spec["envoy"]["logLevel"] = json!("debug");
            lab.edge(&spec).await?;
            is_refused(lab, &edge, path).await?;
            ensure!(read().await? == before, "{path}: a workload was changed");
        }
        let now = lab.only("ContourConfiguration", &lab.namespace, &edge).await?;
        ensure!(
            now["metadata"]["uid"] == configuration["metadata"]["uid"] && now["spec"] == configuration["spec"],
            "the configuration was changed"
        );
        Ok(())
    })
    .await;
}
