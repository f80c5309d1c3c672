//! Schemas of another version: Contour's CRD gets an unknown default, and a status has a value that this version of Slipway does not
//! know.

use anyhow::{Context as _, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger;
use crate::scene::{
    A_WHILE, READY, RETRIED, configurations_rolled_to, describe, is_quiet, is_quiet_since, is_ready, others_decide,
    ready_edge,
};

/// A field of settings that does not exist in any version of Contour.
const NEW_FIELD: &str = "testOnlyKnob";

pub async fn a_new_crd_default_rolls_out_nothing(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let rolled = configurations_rolled_to(lab, &edge).await?;
    let began = ledger::now()?;
    let crd = Thing::new(
        "CustomResourceDefinition",
        "",
        "contourconfigurations.projectcontour.io",
    );
    let before = lab.read(&crd).await?["spec"]["versions"].clone();
    let mut after = before.clone();
    let properties = "/0/schema/openAPIV3Schema/properties/spec/properties";
    after.pointer_mut(properties).context("settings have properties")?[NEW_FIELD] =
        json!({"type": "string", "default": "new"});
    lab.patch(&crd, &json!({"spec": {"versions": after}})).await?;
    wait("the API server returns the default", PROMPT)
        .until(async || {
            let all = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
            let has = |it: &Value| it["spec"][NEW_FIELD] == "new";
            Ok(Look::when(
                all.iter().all(has),
                format!("{:?}", all.first().map(|it| it["spec"].clone())),
            ))
        })
        .await?;
    // The watch ends with the old schema, or after a minute. Then the operator observes the default, and tries once to remove the
    // default.
    let outcome = async {
        let name = rolled.first().context("Contour was rolled out to a configuration")?;
        wait("status reports that others decide the field", RETRIED)
            .until(async || {
                let status = edge.status().await?;
                let named = others_decide(&status, "ContourConfiguration", name, NEW_FIELD);
                Ok(Look::when(named.is_ok(), describe(&status)))
            })
            .await?;
        is_ready(lab, &edge).await?;
        is_quiet_since(lab, &edge, began, A_WHILE).await?;
        let now = configurations_rolled_to(lab, &edge).await?;
        ensure!(now == rolled, "Contour was rolled out to {now:?}, expected {rolled:?}");
        Ok(())
    };
    let outcome = outcome.await;
    lab.patch(&crd, &json!({"spec": {"versions": before}})).await?;
    outcome
}

/// Simulates a downgrade. The test adds the value to the schema, and leaves all else unchanged.
pub async fn an_unknown_value_in_the_status_is_replaced(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let crd = Thing::new("CustomResourceDefinition", "", "contourdeployments.contour.slipway.dev");
    let mut versions = lab.read(&crd).await?["spec"]["versions"].clone();
    let enumeration =
        "/0/schema/openAPIV3Schema/properties/status/properties/extensionServices/items/properties/state/enum";
    let allowed = versions.pointer_mut(enumeration).and_then(Value::as_array_mut);
    allowed.context("states are an enumeration")?.push(json!("Resting"));
    lab.patch(&crd, &json!({"spec": {"versions": versions}})).await?;
    let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
    wait("the value is stored", READY)
        .until(async || {
            let mut services = lab.read(&own).await?["status"]["extensionServices"].clone();
            services[0]["state"] = json!("Resting");
            let patch = Patch::Merge(json!({"status": {"extensionServices": services}}));
            let api = lab.api(own.kind, &own.namespace);
            let patched = api.patch_status(&own.name, &PatchParams::default(), &patch).await;
            Ok(Look::when(patched.is_ok(), format!("{patched:?}")))
        })
        .await?;
    wait("status is correct again", PROMPT)
        .until(async || {
            let status = edge.status().await?;
            let is_correct = status
                .extension_services
                .iter()
                .all(|service| service.state == "Available");
            Ok(Look::when(is_correct && status.is("Ready", "True"), describe(&status)))
        })
        .await?;
    // The operator reconciles the ContourDeployment as before.
    let mut spec = specification(&lab.name("auth"));
    spec["contour"] = json!({"deployment": {"replicas": 3}});
    lab.edge(&spec).await?;
    let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
    wait("Contour's Deployment has the new number of replicas", PROMPT)
        .until(async || {
            let replicas = lab.read(&deployment).await?["spec"]["replicas"].clone();
            Ok(Look::when(replicas == 3, replicas.to_string()))
        })
        .await?;
    is_ready(lab, &edge).await?;
    is_quiet(lab, &edge).await
}
