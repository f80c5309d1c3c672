//! What stands in the way and is not Slipway's to remove: objects of the same name, missing permissions.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Foreign objects of names that Slipway wants.
fn foreign(namespace: &str) -> Vec<Value> {
    let metadata = |name: &str| json!({"namespace": namespace, "name": name, "labels": {"app": "somebody-else"}});
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("edge-contour")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("edge-envoy"), "spec": {"ports": [{"port": 1}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("edge-xds-ca"), "data": {"a": "Yg=="}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata("edge-contour"), "spec": {}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata("edge-contour"),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [],
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("edge-contour"),
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("edge-envoy"),
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template},
        }),
    ]
}

fn thing(object: &Value) -> Thing {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kinds = [
        "ServiceAccount",
        "Service",
        "Secret",
        "Lease",
        "RoleBinding",
        "Deployment",
        "ExtensionService",
    ];
    let kind = kinds
        .into_iter()
        .find(|kind| *kind == text("/kind"))
        .expect("one of these");
    Thing::new(kind, text("/metadata/namespace"), text("/metadata/name"))
}

/// What of an object nobody but its owner changes. (A Deployment's controller writes status and an annotation.)
fn essence(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut essence = object.clone();
    essence["metadata"] = json!({
        "uid": metadata["uid"], "labels": metadata["labels"], "generation": metadata["generation"],
        "ownerReferences": metadata["ownerReferences"], "finalizers": metadata["finalizers"], "deletionTimestamp": metadata["deletionTimestamp"],
    });
    if object["kind"] != "Deployment" {
        essence["metadata"]["resourceVersion"] = metadata["resourceVersion"].clone();
    }
    essence["status"] = Value::Null;
    essence
}

async fn collides(lab: &Lab, edge: &Edge, with: &Thing) -> anyhow::Result<()> {
    let says_so = |status: &slipway_e2e::edge::Status| {
        status
            .condition("Ready")
            .is_some_and(|ready| ready.reason == "NameCollision")
    };
    let status = lab
        .status(edge, &format!("the collision with {with} is reported"), PROMPT, says_so)
        .await?;
    let ready = status.condition("Ready").expect("it has one");
    ensure!(
        ready.status == "False" && ready.message.contains(&with.to_string()),
        "{with} is not named: {}",
        ready.message
    );
    // For a while it may cure itself: the rest of the same installation may still come.
    ensure!(
        status.is("Reconciling", "True") && !status.is("Stalled", "True"),
        "{with}: {status}"
    );
    Ok(())
}

/// Waits until the object that is gone was made again by Slipway. What Ready says by then is the next thing that it waits for,
/// which may be over before anybody looks.
async fn ours_once_it_is_gone(lab: &Lab, edge: &Edge, thing: &Thing) -> anyhow::Result<()> {
    wait(&format!("{thing} is ours, and the collision is over"), PATIENT)
        .until(async || {
            let ours = lab.find(thing).await?.unwrap_or_default();
            let status = edge.status().await?;
            let is_ours = ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "slipway";
            let is_over = status
                .condition("Ready")
                .is_some_and(|ready| ready.reason != "NameCollision");
            Ok(Look::when(is_ours && is_over, status.to_string()))
        })
        .await
}

#[tokio::test]
async fn an_object_of_somebody_else_s_is_reported_and_never_changed_and_once_it_is_gone_all_is_made() {
    beside_others("collision", async |lab: &Lab| {
        let cases = foreign("").into_iter().enumerate().map(async |(index, mut object)| {
            let namespace = lab.name(&index.to_string());
            lab.make_namespace(&namespace).await?;
            object["metadata"]["namespace"] = json!(namespace);
            let thing = thing(&object);
            lab.create(&object).await?;
            let deployment_settled = async || {
                let now = lab.read(&thing).await?;
                let settled =
                    thing.kind != "Deployment" || now["status"]["observedGeneration"] == now["metadata"]["generation"];
                Ok(if settled {
                    Look::Reached(now)
                } else {
                    Look::NotYet("its own controller has not seen it".to_owned())
                })
            };
            let before = wait("the foreign object has settled", PROMPT)
                .until(deployment_settled)
                .await?;
            let edge = lab.edge_in(&namespace, &specification("nowhere")).await?;
            collides(lab, &edge, &thing).await?;
            lab.looks_again(&edge, 2).await?;
            let now = lab.read(&thing).await?;
            ensure!(
                essence(&now) == essence(&before),
                "{thing} was changed:\n{before}\n{now}"
            );
            lab.delete(&thing).await?;
            ours_once_it_is_gone(lab, &edge, &thing).await?;
            anyhow::Ok(())
        });
        let outcomes = futures::future::join_all(cases).await;
        let complaints: Vec<_> = outcomes
            .into_iter()
            .filter_map(|outcome: anyhow::Result<()>| outcome.err().map(|error| format!("{error:#}")))
            .collect();
        ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_collision_that_nobody_cures_becomes_stalled_and_an_object_that_is_not_ours_survives_the_deletion() {
    beside_others("stalled", async |lab: &Lab| {
        let object = foreign(&lab.namespace).remove(1);
        let thing = thing(&object);
        let before = essence(&serde_json::to_value(lab.create(&object).await?)?);
        let edge = lab.edge(&specification("nowhere")).await?;
        collides(lab, &edge, &thing).await?;
        let status = lab
            .status(&edge, "a person is called", Duration::from_secs(45), |status| {
                status.is("Stalled", "True")
            })
            .await?;
        let stalled = status.condition("Stalled").expect("it has one");
        ensure!(
            stalled.reason == "NameCollision" && stalled.message.contains(&thing.to_string()),
            "{}",
            stalled.message
        );
        ensure!(!status.is("Reconciling", "True"), "{status}");
        edge.delete().await?;
        let gone = Thing::new("ContourDeployment", &lab.namespace, "edge");
        wait("the ContourDeployment is gone", PATIENT)
            .until(async || Ok(Look::when(lab.find(&gone).await?.is_none(), "it is still there")))
            .await?;
        ensure!(essence(&lab.read(&thing).await?) == before, "{thing} was changed");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_extension_service_of_a_stand_in_s_name_is_never_changed() {
    beside_others("stand-in-name", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        let stand_in = wait("there is a stand-in", PROMPT)
            .until(async || {
                let all = lab.all("ExtensionService", &auth, &edge).await?;
                Ok(all
                    .into_iter()
                    .next()
                    .map_or(Look::NotYet("none".to_owned()), Look::Reached))
            })
            .await?;
        edge.delete().await?;
        lab.nothing_is_left(&edge).await?;
        let name = stand_in["metadata"]["name"].as_str().context("a name")?;
        let mut foreign = slipway_e2e::lab::players::extension_service(&auth, "1s");
        foreign["metadata"]["name"] = json!(name);
        let thing = thing(&foreign);
        let before = essence(&serde_json::to_value(lab.create(&foreign).await?)?);
        let edge = lab.edge(&specification(&auth)).await?;
        let contour = Thing::new("Deployment", &lab.namespace, "edge-contour");
        wait("it is told of, and holds nothing up", PROMPT)
            .until(async || {
                let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
                let status = lab.read(&own).await?["status"].take();
                let said = status["extensionServices"][0]["message"].as_str().unwrap_or_default();
                let goes_on = lab.find(&contour).await?.is_some();
                Ok(Look::when(
                    said.contains(&thing.to_string()) && goes_on,
                    status.to_string(),
                ))
            })
            .await?;
        lab.looks_again(&edge, 2).await?;
        ensure!(essence(&lab.read(&thing).await?) == before, "{thing} was changed");
        lab.delete(&thing).await?;
        ours_once_it_is_gone(lab, &edge, &thing).await
    })
    .await;
}

#[tokio::test]
async fn trouble_of_one_contour_deployment_does_not_stop_another() {
    beside_others("two", async |lab: &Lab| {
        let object = foreign(&lab.namespace).remove(0);
        let blocked = thing(&object);
        lab.create(&object).await?;
        let edge = lab.edge(&specification("nowhere")).await?;
        collides(lab, &edge, &blocked).await?;
        let other = lab.name("other");
        lab.make_namespace(&other).await?;
        let second = lab.edge_in(&other, &specification("nowhere")).await?;
        let deployment = Thing::new("Deployment", &other, "edge-contour");
        wait("the other one's Contour is made", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    second.status().await?.to_string(),
                ))
            })
            .await
    })
    .await;
}
