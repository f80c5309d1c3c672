//! Objects that were stored before the schema forbade them.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, contour_deployment, specification, wait};

const CRD: &str = "contourdeployments.contour.slipway.dev";

#[tokio::test]
async fn a_contour_deployment_that_cannot_be_read_says_so_and_does_not_stop_another() {
    alone("undecodable", Takes::Installation, async |lab: &Lab| {
        let crd = Thing::new("CustomResourceDefinition", "", CRD);
        let strict = lab.read(&crd).await?["spec"]["versions"].clone();
        let mut lax = strict.clone();
        lax[0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        lab.patch(&crd, &json!({"spec": {"versions": lax}})).await?;
        lab.world.stop_operator().await?;
        let mut bad = contour_deployment(&lab.namespace, &specification("nowhere"));
        bad["spec"]["contour"] = json!({"deployment": {"replicas": "two"}});
        wait("the lax schema is in force", PATIENT)
            .until(async || {
                Ok(lab
                    .create(&bad)
                    .await
                    .map_or_else(|error| Look::NotYet(format!("{error:#}")), |_| Look::Reached(())))
            })
            .await?;
        lab.patch(&crd, &json!({"spec": {"versions": strict}})).await?;
        let refused = async || {
            let mut second = bad.clone();
            second["metadata"]["name"] = json!("second");
            let outcome = lab.create(&second).await;
            if outcome.is_ok() {
                lab.delete(&Thing::new("ContourDeployment", &lab.namespace, "second"))
                    .await?;
            }
            Ok(Look::when(outcome.is_err(), "such an object is still taken"))
        };
        wait("the strict schema is in force again", PATIENT)
            .every(Duration::from_millis(300))
            .until(refused)
            .await?;

        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
        let status = wait("the unreadable one says that it is", PROMPT)
            .until(async || {
                let now = lab.read(&own).await?;
                let status = now["status"].clone();
                Ok(if status["observedGeneration"] == now["metadata"]["generation"] {
                    Look::Reached(status)
                } else {
                    Look::NotYet(status.to_string())
                })
            })
            .await?;
        let condition = |type_: &str| {
            status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|it| it["type"] == type_)
                .cloned()
                .unwrap_or(Value::Null)
        };
        ensure!(
            condition("Ready")["status"] == "False" && condition("Ready")["reason"] == "Undecodable",
            "{status}"
        );
        ensure!(
            condition("Stalled")["status"] == "True"
                && condition("Stalled")["message"]
                    .as_str()
                    .is_some_and(|said| said.contains("two")),
            "{status}"
        );

        let other = lab.name("other");
        lab.make_namespace(&other).await?;
        let edge = lab.edge_in(&other, &specification("nowhere")).await?;
        let deployment = Thing::new("Deployment", &other, "edge-contour");
        wait("the other one is served", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    edge.status().await?.to_string(),
                ))
            })
            .await?;

        // Written anew it is one like any other.
        let good = lab.file(&contour_deployment(&lab.namespace, &specification("nowhere")))?;
        lab.world.kubectl().run(&["replace", "-f", &good]).await?;
        let edge = Edge::new(lab.client.clone(), &lab.namespace, "edge");
        let repaired = lab.read(&own).await?;
        ensure!(
            repaired["spec"]["contour"]["deployment"]["replicas"] != "two",
            "{}",
            repaired["spec"]
        );
        lab.status(&edge, "it is served as well", PROMPT, |status| {
            status.is("ConfigurationValid", "True") && !status.is("Stalled", "True")
        })
        .await?;
        Ok(())
    })
    .await;
}
