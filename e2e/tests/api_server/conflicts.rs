//! Name collisions with objects of other users, which Slipway must not change or delete.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Returns objects of another user with the names of Slipway's objects.
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

/// Returns the kind, namespace and name of an object.
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
        .expect("the kind is one of these");
    Thing::new(kind, text("/metadata/namespace"), text("/metadata/name"))
}

/// Returns the parts of an object that only its owner changes. The Deployment controller writes the status and an annotation.
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

/// Waits until the status reports the collision with this object. Returns an error if the status is otherwise wrong.
async fn collision_is_reported(lab: &Lab, edge: &Edge, with: &Thing) -> anyhow::Result<()> {
    let is_reported = |status: &slipway_e2e::edge::Status| {
        status
            .condition("Ready")
            .is_some_and(|ready| ready.reason == "NameCollision")
    };
    let status = lab
        .status(
            edge,
            &format!("the collision with {with} is reported"),
            PROMPT,
            is_reported,
        )
        .await?;
    let ready = status.condition("Ready").expect("the status has the condition");
    ensure!(
        ready.status == "False" && ready.message.contains(&with.to_string()),
        "the message does not name {with}: {}",
        ready.message
    );
    // At first, the collision may resolve itself, for example while another installation is still in progress.
    ensure!(
        status.is("Reconciling", "True") && !status.is("Stalled", "True"),
        "{with}: {status}"
    );
    Ok(())
}

/// Waits until Slipway has created its own object in place of the deleted one. The reason of Ready is not checked: it is already
/// the next thing that Slipway waits for, which may be over before the test reads the status.
async fn slipway_creates(lab: &Lab, edge: &Edge, thing: &Thing) -> anyhow::Result<()> {
    wait(
        &format!("Slipway has created {thing}, and the collision is over"),
        PATIENT,
    )
    .until(async || {
        let found = lab.find(thing).await?.unwrap_or_default();
        let status = edge.status().await?;
        let is_created = found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "slipway";
        let is_over = status
            .condition("Ready")
            .is_some_and(|ready| ready.reason != "NameCollision");
        Ok(Look::when(is_created && is_over, status.to_string()))
    })
    .await
}

#[tokio::test]
async fn a_foreign_object_blocks_creation_but_is_never_changed() {
    beside_others("collision", async |lab: &Lab| {
        let cases = foreign("").into_iter().enumerate().map(async |(index, mut object)| {
            let namespace = lab.name(&index.to_string());
            lab.create_namespace(&namespace).await?;
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
                    Look::NotYet("the Deployment controller has not observed the object".to_owned())
                })
            };
            let before = wait("the foreign object has settled", PROMPT)
                .until(deployment_settled)
                .await?;
            let edge = lab.edge_in(&namespace, &specification("nowhere")).await?;
            collision_is_reported(lab, &edge, &thing).await?;
            lab.reconcile_again(&edge, 2).await?;
            let now = lab.read(&thing).await?;
            ensure!(
                essence(&now) == essence(&before),
                "{thing} was changed:\n{before}\n{now}"
            );
            lab.delete(&thing).await?;
            slipway_creates(lab, &edge, &thing).await?;
            anyhow::Ok(())
        });
        let outcomes = futures::future::join_all(cases).await;
        let errors: Vec<_> = outcomes
            .into_iter()
            .filter_map(|outcome: anyhow::Result<()>| outcome.err().map(|error| format!("{error:#}")))
            .collect();
        ensure!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_lasting_collision_stalls_and_the_foreign_object_survives() {
    beside_others("stalled", async |lab: &Lab| {
        let object = foreign(&lab.namespace).remove(1);
        let thing = thing(&object);
        let before = essence(&serde_json::to_value(lab.create(&object).await?)?);
        let edge = lab.edge(&specification("nowhere")).await?;
        collision_is_reported(lab, &edge, &thing).await?;
        let status = lab
            .status(&edge, "edge is Stalled", Duration::from_secs(45), |status| {
                status.is("Stalled", "True")
            })
            .await?;
        let stalled = status.condition("Stalled").expect("the status has the condition");
        ensure!(
            stalled.reason == "NameCollision" && stalled.message.contains(&thing.to_string()),
            "{}",
            stalled.message
        );
        ensure!(!status.is("Reconciling", "True"), "{status}");
        edge.delete().await?;
        let deployment = Thing::new("ContourDeployment", &lab.namespace, "edge");
        wait("the ContourDeployment is deleted", PATIENT)
            .until(async || Ok(Look::when(lab.find(&deployment).await?.is_none(), "it still exists")))
            .await?;
        ensure!(essence(&lab.read(&thing).await?) == before, "{thing} was changed");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_object_named_like_a_stand_in_is_never_changed() {
    beside_others("stand-in-name", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        let stand_in = wait("a stand-in exists", PROMPT)
            .until(async || {
                let all = lab.all("ExtensionService", &auth, &edge).await?;
                Ok(all
                    .into_iter()
                    .next()
                    .map_or(Look::NotYet("none".to_owned()), Look::Reached))
            })
            .await?;
        edge.delete().await?;
        lab.wait_until_nothing_is_left(&edge).await?;
        let name = stand_in["metadata"]["name"].as_str().context("a name")?;
        let mut foreign = slipway_e2e::lab::players::extension_service(&auth, "1s");
        foreign["metadata"]["name"] = json!(name);
        let thing = thing(&foreign);
        let before = essence(&serde_json::to_value(lab.create(&foreign).await?)?);
        let edge = lab.edge(&specification(&auth)).await?;
        let contour = Thing::new("Deployment", &lab.namespace, "edge-contour");
        wait("the collision is reported, and Contour's Deployment is created", PROMPT)
            .until(async || {
                let own = Thing::new("ContourDeployment", &lab.namespace, "edge");
                let status = lab.read(&own).await?["status"].take();
                let message = status["extensionServices"][0]["message"].as_str().unwrap_or_default();
                let exists = lab.find(&contour).await?.is_some();
                Ok(Look::when(
                    message.contains(&thing.to_string()) && exists,
                    status.to_string(),
                ))
            })
            .await?;
        lab.reconcile_again(&edge, 2).await?;
        ensure!(essence(&lab.read(&thing).await?) == before, "{thing} was changed");
        lab.delete(&thing).await?;
        slipway_creates(lab, &edge, &thing).await
    })
    .await;
}

#[tokio::test]
async fn a_blocked_contour_deployment_does_not_stop_another() {
    beside_others("two", async |lab: &Lab| {
        let object = foreign(&lab.namespace).remove(0);
        let blocked = thing(&object);
        lab.create(&object).await?;
        let edge = lab.edge(&specification("nowhere")).await?;
        collision_is_reported(lab, &edge, &blocked).await?;
        let other = lab.name("other");
        lab.create_namespace(&other).await?;
        let second = lab.edge_in(&other, &specification("nowhere")).await?;
        let deployment = Thing::new("Deployment", &other, "edge-contour");
        wait("the Contour of the other ContourDeployment is created", PROMPT)
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
