//! Schemas of another version: Contour's CRD gets a default that nobody knew, and a status has a word that this Slipway does not.

use anyhow::{Context as _, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger;
use crate::scene::{
    A_WHILE, READY, TRIED_AGAIN, configurations_rolled_to, is_quiet, is_quiet_since, is_ready, ready_edge,
    somebody_else_decides, told,
};

/// A field of settings that no Contour has.
const NEW_FIELD: &str = "testOnlyKnob";

pub async fn a_default_comes_to_the_crd_of_configurations(lab: &Lab) -> anyhow::Result<()> {
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
    wait("the default is served", PROMPT)
        .until(async || {
            let all = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
            let has = |it: &Value| it["spec"][NEW_FIELD] == "new";
            Ok(Look::when(
                all.iter().all(has),
                format!("{:?}", all.first().map(|it| it["spec"].clone())),
            ))
        })
        .await?;
    // The watch ends with the old schema, or after a minute; then the operator sees what is served now, and tries once whether it
    // can be had as it was.
    let outcome = async {
        let name = rolled.first().context("Contour was rolled to one")?;
        wait("status says that somebody else decides the field", TRIED_AGAIN)
            .until(async || {
                let status = edge.status().await?;
                let named = somebody_else_decides(&status, "ContourConfiguration", name, NEW_FIELD);
                Ok(Look::when(named.is_ok(), told(&status)))
            })
            .await?;
        is_ready(lab, &edge).await?;
        is_quiet_since(lab, &edge, began, A_WHILE).await?;
        let now = configurations_rolled_to(lab, &edge).await?;
        ensure!(now == rolled, "Contour was rolled to {now:?}, not {rolled:?}");
        Ok(())
    };
    let outcome = outcome.await;
    lab.patch(&crd, &json!({"spec": {"versions": before}})).await?;
    outcome
}

/// As after a downgrade. The word is put into the schema, which leaves everything else as it is.
pub async fn a_word_that_is_not_known_is_in_a_stored_status(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let crd = Thing::new("CustomResourceDefinition", "", "contourdeployments.contour.slipway.dev");
    let mut versions = lab.read(&crd).await?["spec"]["versions"].clone();
    let enumeration =
        "/0/schema/openAPIV3Schema/properties/status/properties/extensionServices/items/properties/state/enum";
    let words = versions.pointer_mut(enumeration).and_then(Value::as_array_mut);
    words.context("states are an enumeration")?.push(json!("Resting"));
    lab.patch(&crd, &json!({"spec": {"versions": versions}})).await?;
    let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
    wait("the word can be stored", READY)
        .until(async || {
            let mut services = lab.read(&own).await?["status"]["extensionServices"].clone();
            services[0]["state"] = json!("Resting");
            let patch = Patch::Merge(json!({"status": {"extensionServices": services}}));
            let api = lab.api(own.kind, &own.namespace);
            let patched = api.patch_status(&own.name, &PatchParams::default(), &patch).await;
            Ok(Look::when(patched.is_ok(), format!("{patched:?}")))
        })
        .await?;
    wait("status is true again", PROMPT)
        .until(async || {
            let status = edge.status().await?;
            let is_true = status
                .extension_services
                .iter()
                .all(|service| service.state == "Available");
            Ok(Look::when(is_true && status.is("Ready", "True"), told(&status)))
        })
        .await?;
    // And it is looked after as before.
    let mut spec = specification(&lab.name("auth"));
    spec["contour"] = json!({"deployment": {"replicas": 3}});
    lab.edge(&spec).await?;
    let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
    wait("a change of the specification is carried out", PROMPT)
        .until(async || {
            let replicas = lab.read(&deployment).await?["spec"]["replicas"].clone();
            Ok(Look::when(replicas == 3, replicas.to_string()))
        })
        .await?;
    is_ready(lab, &edge).await?;
    is_quiet(lab, &edge).await
}
