//! The settings that are passed on to Contour: what its CRD or Contour itself does not take is refused as a whole, with its
//! path, and what ran goes on running.

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Settings that the ContourDeployment's own schema lets through, and the path that the refusal must name.
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

/// The size that Slipway takes: what it adds fits into the 256 KiB that Kubernetes allows for annotations.
const LARGEST: usize = 240 * 1024;

/// Settings that have so many bytes as JSON, with those of [`with`].
fn of_size(bytes: usize) -> Value {
    let header = |length: usize| json!({"policy": {"requestHeaders": {"set": {"X-Large": "x".repeat(length)}}}});
    let rest = with(&header(0))["runtimeSettings"].to_string().len();
    header(bytes - rest)
}

fn with(settings: &Value) -> Value {
    let mut spec = specification("nowhere");
    for (key, value) in settings.as_object().into_iter().flatten() {
        spec["runtimeSettings"][key] = value.clone();
    }
    spec
}

async fn is_refused(lab: &Lab, edge: &Edge, path: &str) -> anyhow::Result<()> {
    let refused = |status: &slipway_e2e::edge::Status| {
        status.is("ConfigurationValid", "False") && status.is("Stalled", "True") && status.is("Ready", "False")
    };
    let status = lab.status(edge, "the settings are refused", PROMPT, refused).await?;
    let said = &status.condition("ConfigurationValid").expect("it has one").message;
    ensure!(said.contains(path), "{path} is not named: {said}");
    ensure!(!status.is("Reconciling", "True"), "{status}");
    Ok(())
}

#[tokio::test]
async fn settings_that_contour_does_not_take_are_named_and_nothing_is_made_until_they_are_right() {
    beside_others("settings", async |lab: &Lab| {
        let cases = bad_settings().into_iter().map(async |(name, settings, path)| {
            let namespace = lab.name(name);
            lab.make_namespace(&namespace).await?;
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
                let made = lab.all(kind, &namespace, &edge).await?;
                ensure!(made.is_empty(), "{name}: a {kind} was made");
            }
            lab.edge_in(&namespace, &with(&json!({}))).await?;
            let deployment = Thing::new("Deployment", &namespace, "edge-contour");
            wait("Contour is made once the settings are right", PROMPT)
                .until(async || {
                    Ok(Look::when(
                        lab.find(&deployment).await?.is_some(),
                        edge.status().await?.to_string(),
                    ))
                })
                .await?;
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
async fn the_largest_settings_that_are_taken_fit_on_contours_pods() {
    beside_others("large", async |lab: &Lab| {
        let edge = lab.edge(&with(&of_size(LARGEST))).await?;
        wait("Contour's pods are made", PATIENT)
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
async fn what_runs_is_not_touched_by_settings_that_are_refused() {
    beside_others("last-good", async |lab: &Lab| {
        let edge = lab.edge(&with(&json!({}))).await?;
        lab.status(&edge, "it is accepted", PROMPT, |status| {
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
        wait("Envoy exists", PROMPT)
            .until(async || Ok(Look::when(lab.find(&workloads[1]).await?.is_some(), "it does not")))
            .await?;
        let before = read().await?;
        let configuration = lab.only("ContourConfiguration", &lab.namespace, &edge).await?;
        for (_, settings, path) in bad_settings() {
            // A change that would roll both, with settings that are refused.
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
