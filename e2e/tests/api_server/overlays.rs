//! Overlays of the user on pod templates and on the Service. A valid overlay reaches the object, and leaves it again. An invalid one is
//! refused with the path of the field, and running workloads stay unchanged.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;

/// Returns the usual spec with overlays.
fn with(contour: &Value, envoy: &Value, service: &Value) -> Value {
    let mut spec = specification("nowhere");
    spec["contour"]["podTemplate"] = contour.clone();
    spec["envoy"]["podTemplate"] = envoy.clone();
    spec["envoy"]["networkPublishing"] = json!({"type": "LoadBalancerService", "service": service});
    spec
}

fn sidecar() -> Value {
    json!({"name": "logs", "image": "example.com/logs:1", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}})
}

/// Returns Contour's Deployment, Envoy's Deployment and Envoy's Service.
fn objects(lab: &Lab) -> [Thing; 3] {
    [
        Thing::new("Deployment", &lab.namespace, "edge-contour"),
        Thing::new("Deployment", &lab.namespace, "edge-envoy"),
        Thing::new("Service", &lab.namespace, "edge-envoy"),
    ]
}

/// Waits until each object has this value at this pointer. Null stands for an absent value.
async fn have(lab: &Lab, expected: [(&str, Value); 3]) -> anyhow::Result<()> {
    for (thing, (pointer, value)) in objects(lab).iter().zip(expected) {
        wait(&format!("{thing} has {value} at {pointer}"), PROMPT)
            .until(async || {
                let object = lab.find(thing).await?.unwrap_or_default();
                let found = object.pointer(pointer).unwrap_or(&Value::Null);
                Ok(Look::when(*found == value, found.to_string()))
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn overlays_reach_the_objects_and_leave_with_the_spec() {
    beside_others("overlays", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let contour = json!({"spec": {"containers": [sidecar()]}});
        let envoy = json!({"spec": {"imagePullSecrets": [{"name": "registry"}]}});
        let service = json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}});
        let edge = lab.edge(&with(&contour, &envoy, &service)).await?;
        have(
            lab,
            [
                ("/spec/template/spec/containers/1/name", json!("logs")),
                ("/spec/template/spec/imagePullSecrets/0/name", json!("registry")),
                ("/spec/loadBalancerSourceRanges", json!(["10.0.0.0/8"])),
            ],
        )
        .await?;
        // The API server stores `cpu: 1` and `1024Mi` in another form. That is no drift.
        let before = specs(lab).await?;
        lab.reconcile_again(&edge, 3).await?;
        ensure!(specs(lab).await? == before, "an object was written again");
        lab.edge(&with(
            &json!({}),
            &Value::Null,
            &json!({"metadata": {"annotations": {"a": "b"}}}),
        ))
        .await?;
        have(
            lab,
            [
                ("/spec/template/spec/containers/1", Value::Null),
                ("/spec/template/spec/imagePullSecrets", Value::Null),
                ("/spec/loadBalancerSourceRanges", Value::Null),
            ],
        )
        .await?;
        let annotated = lab.read(&objects(lab)[2]).await?;
        ensure!(annotated["metadata"]["annotations"]["a"] == "b", "{annotated}");
        Ok(())
    })
    .await;
}

/// Returns what tells whether an object's spec was changed: the generations of the workloads, and the Service's spec.
async fn specs(lab: &Lab) -> anyhow::Result<Vec<Value>> {
    let mut specs = Vec::new();
    for thing in objects(lab) {
        let object = lab.read(&thing).await?;
        specs.push(
            object
                .pointer("/metadata/generation")
                .unwrap_or(&object["spec"])
                .clone(),
        );
    }
    Ok(specs)
}

/// Waits until the status refuses the settings. Returns an error if the message lacks one of the texts.
async fn is_refused(lab: &Lab, edge: &Edge, texts: &[&str]) -> anyhow::Result<()> {
    let status = lab
        .status(edge, &format!("the overlay is refused: {texts:?}"), PROMPT, |status| {
            let condition = status.condition("ConfigurationValid");
            status.is("ConfigurationValid", "False") && condition.is_some_and(|it| it.message.contains(texts[0]))
        })
        .await?;
    let condition = status
        .condition("ConfigurationValid")
        .context("the status has the condition")?;
    for text in texts {
        ensure!(
            condition.message.contains(text),
            "the message does not contain {text}: {}",
            condition.message
        );
    }
    ensure!(
        status.is("Stalled", "True") && !status.is("Reconciling", "True"),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn an_invalid_overlay_is_refused_and_running_workloads_stay() {
    beside_others("bad-overlays", async |lab: &Lab| {
        let class = json!({"spec": {"loadBalancerClass": "example.com/one"}});
        let edge = lab.edge(&with(&json!({}), &json!({}), &class)).await?;
        have(
            lab,
            [
                ("/spec/template/spec/containers/1", Value::Null),
                ("/spec/template/spec/containers/2", Value::Null),
                ("/spec/loadBalancerClass", json!("example.com/one")),
            ],
        )
        .await?;
        lab.status(&edge, "the settings are accepted", PROMPT, |status| status.is("ConfigurationValid", "True"))
            .await?;
        let before = specs(lab).await?;
        let none = json!({});
        let cases = [
            // Slipway's own check.
            with(&json!({"spec": {"containers": [{"name": "contour", "image": "x"}]}}), &none, &class),
            with(&none, &json!({"spec": {"contianers": []}}), &class),
            // The check of the API server.
            with(&none, &json!({"spec": {"priorityClassName": "no such name"}}), &class),
            with(
                &json!({"spec": {"containers": [{"name": "logs", "image": "x", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}]}}),
                &none,
                &class,
            ),
            // This field is immutable, so the verdict depends on the object that exists.
            with(&none, &none, &json!({"spec": {"loadBalancerClass": "example.com/two"}})),
        ];
        let texts: [&[&str]; 5] = [
            &[r#"spec.contour.podTemplate.spec.containers[name="contour"].image"#, "Slipway sets this value"],
            &["spec.envoy.podTemplate.spec.contianers", "does not exist"],
            &["spec.envoy.podTemplate: ", "priorityClassName"],
            &["spec.contour.podTemplate: ", "must be less than or equal to cpu limit"],
            &["spec.envoy.networkPublishing.service: ", "loadBalancerClass"],
        ];
        for (spec, texts) in cases.iter().zip(texts) {
            // A change that would roll out Contour, together with the invalid overlay.
            let mut spec = spec.clone();
            spec["contour"]["logLevel"] = json!("debug");
            lab.edge(&spec).await?;
            is_refused(lab, &edge, texts).await?;
            ensure!(specs(lab).await? == before, "{texts:?}: an object was changed");
        }
        lab.edge(&with(&none, &none, &class)).await?;
        lab.status(&edge, "the settings are accepted again", PROMPT, |status| {
            status.is("ConfigurationValid", "True") && !status.is("Stalled", "True")
        })
        .await?;
        ensure!(specs(lab).await? == before, "an object was changed");
        Ok(())
    })
    .await;
}
