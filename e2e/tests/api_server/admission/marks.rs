//! The policy on Slipway's marks: reserved labels, annotations and finalizers.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{OWNER_NAME, OWNER_NAMESPACE};
use slipway_e2e::lab::created::{APPLIED, FINALIZER, name};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification};

use super::{
    KINDS, MANAGED_BY, User, WITH_STATUS, administrator, grant, once_permitted, refused, settled_edge_and_objects,
    unmarked,
};

#[tokio::test]
async fn only_the_operator_creates_objects_with_marks() {
    beside_others("marks-made", async |lab: &Lab| {
        let marks = [
            (
                "labels",
                json!({"contour.slipway.dev/role": "ext-auth"}),
                "contour.slipway.dev/role",
            ),
            (
                "labels",
                json!({"contour.slipway.dev/made-up": ""}),
                "contour.slipway.dev/made-up",
            ),
            ("annotations", json!({APPLIED: "x"}), APPLIED),
            ("finalizers", json!([FINALIZER]), FINALIZER),
        ];
        let similar = json!({
            "labels": {"contour.slipway.dev": "x", "contour.slipway.dev.example.com/role": "x", MANAGED_BY: "slipway"},
            "annotations": {"example.com/contour.slipway.dev": "contour.slipway.dev/applied"},
            "finalizers": ["contour.slipway.dev/other"],
        });
        let administrator = administrator(lab);
        for kind in KINDS {
            let mut object = unmarked(kind, &lab.namespace, "new");
            for (field, mark, named) in &marks {
                let mut marked = object.clone();
                marked["metadata"][*field] = mark.clone();
                let message = refused(
                    administrator.try_create(&marked).await,
                    "slipway-marks",
                    &format!("{kind} with {mark}"),
                )?;
                let name = object["metadata"]["name"].as_str().context("a name")?;
                ensure!(
                    message.contains(named) && message.contains(name) && message.contains("Omit it"),
                    "{message}"
                );
            }
            for (key, value) in similar.as_object().into_iter().flatten() {
                object["metadata"][key] = value.clone();
            }
            administrator
                .try_create(&object)
                .await
                .with_context(|| format!("a {kind} with metadata that only resembles marks"))?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn only_the_operator_adds_changes_or_removes_marks() {
    beside_others("marks-changed", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let (_, _, made) = settled_edge_and_objects(lab).await?;
        let administrator = administrator(lab);
        for thing in &made {
            let metadata = lab.read(thing).await?["metadata"].clone();
            ensure!(metadata["annotations"][APPLIED].is_string(), "{thing}: {metadata}");
            let mut changes = vec![
                json!({"labels": {OWNER_NAME: null}}),
                json!({"labels": {OWNER_NAMESPACE: "elsewhere"}}),
                json!({"labels": {"contour.slipway.dev/made-up": "x"}}),
                json!({"labels": null}),
                json!({"annotations": {APPLIED: null}}),
                json!({"annotations": {APPLIED: "x"}}),
                json!({"annotations": {"contour.slipway.dev/made-up": ""}}),
            ];
            if metadata["finalizers"].is_null() {
                changes.push(json!({"finalizers": [FINALIZER]}));
            }
            for change in &changes {
                let what = format!("{thing} {change}");
                let patch = json!({"metadata": change});
                let message = refused(administrator.try_patch(thing, &patch).await, "slipway-marks", &what)?;
                ensure!(
                    message.contains(&thing.name) && message.contains("contour.slipway.dev/"),
                    "{message}"
                );
                // A request to the status of a Deployment cannot change its labels.
                let is_ignored = thing.kind == "Deployment" && change.get("labels").is_some();
                if WITH_STATUS.contains(&thing.kind) && !is_ignored {
                    let outcome = administrator.try_patch_status(thing, &patch).await;
                    refused(outcome, "slipway-marks", &format!("status of {what}"))?;
                }
            }
            // Users may change all other metadata.
            for change in [
                json!({"labels": {MANAGED_BY: null, "example.com/mine": "x"}}),
                json!({"annotations": {"example.com/mine": "x"}}),
                json!({"ownerReferences": null}),
                json!({"managedFields": [{}]}),
            ] {
                let patch = json!({"metadata": change});
                administrator
                    .try_patch(thing, &patch)
                    .await
                    .with_context(|| format!("{thing} {change}"))?;
            }
            let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.push(json!("example.com/mine"));
            administrator
                .try_patch(thing, &json!({"metadata": {"finalizers": finalizers}}))
                .await
                .with_context(|| format!("adding another finalizer to {thing}"))?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_rollback_that_blocks_the_deployment_controller_is_refused() {
    beside_others("rollback", async |lab: &Lab| {
        lab.edge(&specification("nowhere")).await?;
        let contour = Thing::new("Deployment", &lab.namespace, "edge-contour");
        lab.wait_until_exists(&contour, PROMPT).await?;
        let rollback = json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "1"}}});
        let administrator = administrator(lab);
        refused(
            administrator.try_patch(&contour, &rollback).await,
            "slipway-marks",
            "a rollback of Contour's Deployment",
        )?;
        // Kubernetes treats this annotation as a part of the spec, which a request to the status does not change.
        let answer = administrator.try_patch_status(&contour, &rollback).await?;
        let annotations = serde_json::to_value(answer.metadata.annotations)?;
        ensure!(
            annotations[APPLIED].is_string() && annotations["deprecated.deployment.rollback.to"].is_null(),
            "after a request to the status: {annotations}"
        );
        lab.create(&unmarked("Deployment", &lab.namespace, "foreign")).await?;
        let foreign = Thing::new("Deployment", &lab.namespace, "foreign");
        administrator
            .try_patch(&foreign, &rollback)
            .await
            .context("a rollback of another user's Deployment")?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn objects_of_other_users_get_no_marks_through_any_request() {
    beside_others("marks-put-on", async |lab: &Lab| {
        let administrator = administrator(lab);
        let marks = [
            ("labels", json!({OWNER_NAME: "edge"})),
            ("annotations", json!({"contour.slipway.dev/persisted-state": "{}"})),
            ("finalizers", json!([FINALIZER])),
        ];
        for kind in KINDS {
            let stored = lab.create(&unmarked(kind, &lab.namespace, "foreign")).await?;
            let thing = Thing::new(
                kind,
                stored.metadata.namespace.as_deref().unwrap_or_default(),
                stored.metadata.name.as_deref().unwrap_or_default(),
            );
            for (field, mark) in &marks {
                let patch = json!({"metadata": {*field: mark}});
                let what = format!("{mark} on {thing}");
                refused(administrator.try_patch(&thing, &patch).await, "slipway-marks", &what)?;
                match kind {
                    // A request to the status of a Deployment cannot change its labels.
                    "Deployment" if *field == "labels" => {}
                    _ if WITH_STATUS.contains(&kind) => {
                        refused(
                            administrator.try_patch_status(&thing, &patch).await,
                            "slipway-marks",
                            &format!("status: {what}"),
                        )?;
                    }
                    // A request to the status of a custom resource changes no metadata, so no policy needs to match such requests.
                    "ExtensionService" | "ContourConfiguration" => {
                        let answer = administrator.try_patch_status(&thing, &patch).await;
                        let metadata = serde_json::to_value(answer.context(what)?.metadata)?;
                        ensure!(metadata[*field].is_null(), "{thing}: {metadata}");
                    }
                    _ => {}
                }
            }
            administrator
                .try_patch(
                    &thing,
                    &json!({"metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}}}),
                )
                .await
                .with_context(|| format!("adding labels of another user to {thing}"))?;
            lab.delete(&thing).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_releaser_removes_the_finalizer_but_no_other_mark() {
    beside_others("marks-released", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        lab.status(&edge, "the operator has reconciled edge", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
        let held =
            ["ExtensionService", "Service"].map(|kind| Thing::new(kind, &auth, name(&stand_in).unwrap_or_default()));
        let (tenant, releaser) = (lab.name("tenant"), lab.name("releaser"));
        // All rights in the namespace, including `release`, do not permit the tenant to remove Slipway's finalizer there.
        grant(lab, &tenant, "cluster-admin", &auth).await?;
        let cluster_wide = grant(lab, &releaser, "slipway-releaser", "").await?;
        let tenant = lab.client_of(&tenant).await?;
        let releaser = lab.client_of(&releaser).await?;
        let [tenant, releaser] = [&tenant, &releaser].map(|client| User { client });
        let no_finalizers = json!({"metadata": {"finalizers": null}});
        for thing in &held {
            let outcome = once_permitted("of the tenant to patch", async || {
                tenant.try_patch(thing, &no_finalizers).await
            })
            .await?;
            let message = refused(outcome, "slipway-marks", &format!("the tenant releases {thing}"))?;
            ensure!(
                message.contains("slipway release") && message.contains("slipway-releaser"),
                "{message}"
            );
            let outcome = once_permitted("of the releaser to patch", async || {
                releaser.try_patch(thing, &no_finalizers).await
            })
            .await?;
            outcome.with_context(|| format!("the releaser releases {thing}"))?;
            for more in [
                json!({"labels": {OWNER_NAME: null}}),
                json!({"annotations": {APPLIED: null}}),
            ] {
                let mut patch = json!({"metadata": more});
                refused(
                    releaser.try_patch(thing, &patch).await,
                    "slipway-marks",
                    &format!("the releaser: {patch}"),
                )?;
                patch["metadata"]["finalizers"] = Value::Null;
                refused(
                    releaser.try_patch(thing, &patch).await,
                    "slipway-marks",
                    &format!("the releaser: {patch}"),
                )?;
            }
            // The releaser replaces Slipway's finalizer with another one.
            let other = json!({"metadata": {"finalizers": ["example.com/mine"]}});
            releaser
                .try_patch(thing, &other)
                .await
                .with_context(|| format!("replacing the finalizer of {thing}"))?;
        }
        lab.delete(&cluster_wide).await
    })
    .await;
}
