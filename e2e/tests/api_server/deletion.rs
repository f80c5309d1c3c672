//! Deletions at special times. The tests in `drift` prove that all other deletions leave no objects.

use kube::api::DeleteParams;
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, Thing, specification, wait};

#[tokio::test]
async fn an_early_deletion_leaves_no_objects() {
    beside_others("early", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        edge.delete().await?;
        lab.wait_until_nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn a_successor_of_the_same_name_gets_its_own_objects() {
    beside_others("again", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.create_namespace(&auth).await?;
        for _ in 0..2 {
            let edge = lab.edge(&specification(&auth)).await?;
            let owner = lab
                .read(&Thing::new("ContourDeployment", &lab.namespace, "edge"))
                .await?["metadata"]["uid"]
                .clone();
            let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
            wait("the ContourDeployment owns a Contour", PATIENT)
                .until(async || {
                    let found = lab.find(&deployment).await?.unwrap_or_default();
                    let found_owner = found["metadata"]["ownerReferences"][0]["uid"].clone();
                    Ok(Look::when(
                        found_owner == owner,
                        format!("the owner is {found_owner}; {}", edge.status().await?),
                    ))
                })
                .await?;
            let api = lab.api("ContourDeployment", &lab.namespace);
            api.delete("edge", &DeleteParams::foreground()).await?;
            wait("the ContourDeployment is deleted", PATIENT)
                .until(async || Ok(Look::when(api.get_opt("edge").await?.is_none(), "it still exists")))
                .await?;
        }
        lab.wait_until_nothing_is_left(&Edge::new(lab.client.clone(), &lab.namespace, "edge"))
            .await
    })
    .await;
}
