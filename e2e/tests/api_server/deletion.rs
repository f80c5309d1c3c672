//! Nothing of a ContourDeployment outlives it, however and whenever it is deleted.

use anyhow::ensure;
use kube::api::DeleteParams;
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::made::settled_edge;
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, Thing, specification, wait};

/// What is left once everything is as it shall be must first have been there.
pub async fn is_there(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let left = lab.belongings(edge).await?;
    let binding = format!("ClusterRoleBinding slipway:{}:edge:contour", edge.namespace());
    ensure!(
        left.contains(&binding) && left.len() > 15,
        "only this is there: {left:?}"
    );
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_contour_deployment_that_is_deleted() {
    beside_others("deleted", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let edge = settled_edge(lab, &lab.name("auth")).await?;
        is_there(lab, &edge).await?;
        edge.delete().await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_one_that_is_deleted_before_anything_has_started() {
    beside_others("early", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        edge.delete().await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_one_whose_namespace_is_deleted_and_the_namespace_goes() {
    beside_others("whole", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        is_there(lab, &edge).await?;
        let namespace = Thing::new("Namespace", "", &lab.namespace);
        lab.delete(&namespace).await?;
        namespace_goes(lab, &namespace).await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn both_namespaces_go_when_they_are_deleted_together() {
    beside_others("together", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        let [own, other] = [&lab.namespace, &auth].map(|name| Thing::new("Namespace", "", name));
        lab.delete(&other).await?;
        lab.delete(&own).await?;
        namespace_goes(lab, &own).await?;
        namespace_goes(lab, &other).await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn a_namespace_whose_stand_in_is_in_itself_goes_when_it_is_deleted() {
    beside_others("inside", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.settled(&edge).await?;
        let namespace = Thing::new("Namespace", "", &lab.namespace);
        lab.delete(&namespace).await?;
        namespace_goes(lab, &namespace).await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

pub async fn namespace_goes(lab: &Lab, namespace: &Thing) -> anyhow::Result<()> {
    wait(&format!("{namespace} is gone"), PATIENT)
        .until(async || {
            let found = lab.find(namespace).await?;
            Ok(Look::when(
                found.is_none(),
                found.map_or_else(String::new, |it| it["status"]["conditions"].to_string()),
            ))
        })
        .await
}

#[tokio::test]
async fn a_successor_of_the_same_name_gets_objects_of_its_own() {
    beside_others("again", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        for _ in 0..2 {
            let edge = lab.edge(&specification(&auth)).await?;
            let owner = lab
                .read(&Thing::new("ContourDeployment", &lab.namespace, "edge"))
                .await?["metadata"]["uid"]
                .clone();
            let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
            wait("its own Contour is made", PATIENT)
                .until(async || {
                    let found = lab.find(&deployment).await?.unwrap_or_default();
                    let its = found["metadata"]["ownerReferences"][0]["uid"].clone();
                    Ok(Look::when(
                        its == owner,
                        format!("it belongs to {its}; {}", edge.status().await?),
                    ))
                })
                .await?;
            let api = lab.api("ContourDeployment", &lab.namespace);
            api.delete("edge", &DeleteParams::foreground()).await?;
            wait("the ContourDeployment is gone", PATIENT)
                .until(async || Ok(Look::when(api.get_opt("edge").await?.is_none(), "it is still there")))
                .await?;
        }
        lab.nothing_is_left(&Edge::new(lab.client.clone(), &lab.namespace, "edge"))
            .await
    })
    .await;
}
