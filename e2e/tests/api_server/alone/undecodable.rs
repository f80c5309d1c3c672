//! Objects that this version cannot decode: stored before the schema forbade them, or written by another version.

use std::time::Duration;

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::audit;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, contour_deployment, specification, wait};

const CRD: &str = "contourdeployments.contour.slipway.dev";

/// Makes the schema accept any value below `spec` or `status`. Returns the versions of the CRD before the change.
async fn relax(lab: &Lab, field: &str) -> anyhow::Result<Value> {
    let crd = Thing::new("CustomResourceDefinition", "", CRD);
    let strict = lab.read(&crd).await?["spec"]["versions"].clone();
    let mut lax = strict.clone();
    lax[0]["schema"]["openAPIV3Schema"]["properties"][field] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    lab.patch(&crd, &json!({"spec": {"versions": lax}})).await?;
    Ok(strict)
}

/// Restores the versions of the CRD.
async fn restrict(lab: &Lab, strict: &Value) -> anyhow::Result<()> {
    let crd = Thing::new("CustomResourceDefinition", "", CRD);
    lab.patch(&crd, &json!({"spec": {"versions": strict}})).await
}

/// Patches the status of `edge` with values that another version may have written.
async fn write_status(lab: &Lab, status: &Value) -> anyhow::Result<()> {
    let api = lab.api("ContourDeployment", &lab.namespace);
    let patch = Patch::Merge(json!({"status": status}));
    Ok(api
        .patch_status("edge", &PatchParams::default(), &patch)
        .await
        .map(drop)?)
}

/// Returns an error if the operator writes to the ContourDeployment although no relevant object has changed.
async fn is_quiet(lab: &Lab) -> anyhow::Result<()> {
    let edge = Edge::new(lab.client.clone(), &lab.namespace, "edge");
    // The audit log contains a request only after the response, but clients can observe the write earlier. The operator reconciles
    // again after the response, so one more reconcile ensures that the log contains all earlier requests.
    lab.reconcile_again(&edge, 1).await?;
    let before = audit::mark(lab.world)?;
    lab.reconcile_again(&edge, 3).await?;
    let requests = audit::requests(lab.world, before, &lab.namespace)?;
    let writes: Vec<_> = requests
        .iter()
        .filter(|request| audit::is_write(request) && request.contains(" contourdeployments/"))
        .collect();
    ensure!(writes.is_empty(), "{writes:?}");
    Ok(())
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // one story
async fn an_undecodable_contour_deployment_does_not_stop_another() {
    alone("undecodable", Takes::Installation, async |lab: &Lab| {
        let strict = relax(lab, "spec").await?;
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
        // The status that another version, which could decode the object, wrote last.
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "AsSpecified", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-30T00:00:00Z",
        });
        let stale = json!({"observedGeneration": 1, "conditions": [ready], "contour": "2/2"});
        write_status(lab, &stale).await?;
        restrict(lab, &strict).await?;
        let refused = async || {
            let mut second = bad.clone();
            second["metadata"]["name"] = json!("second");
            let outcome = lab.create(&second).await;
            if outcome.is_ok() {
                lab.delete(&Thing::new("ContourDeployment", &lab.namespace, "second"))
                    .await?;
            }
            Ok(Look::when(
                outcome.is_err(),
                "the API server still accepts such an object",
            ))
        };
        wait("the strict schema is in force again", PATIENT)
            .every(Duration::from_millis(300))
            .until(refused)
            .await?;

        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
        let status = wait("the status of the undecodable object reports the error", PROMPT)
            .until(async || {
                let now = lab.read(&own).await?;
                let status = now["status"].clone();
                let is_reported = status["conditions"][0]["reason"] == "Undecodable"
                    && status["observedGeneration"] == now["metadata"]["generation"];
                Ok(if is_reported {
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
                    .is_some_and(|message| message.contains("two")),
            "{status}"
        );
        ensure!(
            status["contour"].is_null(),
            "the status still contains the outdated field contour: {status}"
        );
        is_quiet(lab).await?;

        let other = lab.name("other");
        lab.create_namespace(&other).await?;
        lab.edge_in(&other, &specification("nowhere")).await?;
        let deployment = Thing::new("Deployment", &other, "edge-contour");
        lab.wait_until_exists(&deployment, PROMPT).await?;

        // After its repair, the operator reconciles the object like any other.
        let good = lab.file(&contour_deployment(&lab.namespace, &specification("nowhere")))?;
        lab.world.kubectl().run(&["replace", "-f", &good]).await?;
        let edge = Edge::new(lab.client.clone(), &lab.namespace, "edge");
        let repaired = lab.read(&own).await?;
        ensure!(
            repaired["spec"]["contour"]["deployment"]["replicas"] != "two",
            "{}",
            repaired["spec"]
        );
        lab.status(
            &edge,
            "the repaired ContourDeployment is reconciled",
            PROMPT,
            |status| status.is("ConfigurationValid", "True") && !status.is("Stalled", "True"),
        )
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_operator_replaces_an_undecodable_status() {
    alone("other-version", Takes::Installation, async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
        let service = Thing::new("Service", &lab.namespace, "edge-envoy");
        let is_right = async || {
            let status = lab.read(&own).await?["status"].take();
            let exists = lab.find(&service).await?.is_some();
            let is_right = status["extensionServices"][0]["state"] == "Missing";
            Ok(Look::when(
                exists && is_right,
                format!("{service} exists: {exists}; {status}"),
            ))
        };
        wait("the Service exists and the status is correct", PROMPT)
            .until(is_right)
            .await?;
        lab.world.stop_operator().await?;
        let strict = relax(lab, "status").await?;
        let mut status = lab.read(&own).await?["status"].take();
        status["extensionServices"][0]["state"] = json!("Sulking");
        wait("the lax schema is in force", PATIENT)
            .until(async || {
                if let Err(error) = write_status(lab, &status).await {
                    return Ok(Look::NotYet(format!("{error:#}")));
                }
                let now = lab.read(&own).await?["status"].take();
                Ok(Look::when(now == status, now.to_string()))
            })
            .await?;
        restrict(lab, &strict).await?;
        lab.delete(&service).await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        wait("the Service exists and the status is correct again", PROMPT)
            .until(is_right)
            .await?;
        lab.status(&edge, "the status reports no decoding error", PROMPT, |status| {
            status.is("ConfigurationValid", "True") && !status.is("Stalled", "True")
        })
        .await?;
        is_quiet(lab).await
    })
    .await;
}
